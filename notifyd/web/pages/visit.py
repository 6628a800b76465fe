"""What the pages behind a link have in common: a request to one, the token of its form, and signing in for it."""

from __future__ import annotations

from aiohttp import web
from attrs import frozen

from notifyd.model import Instant
from notifyd.registry.registry import Registry
from notifyd.security.sign_in import Draft
from notifyd.web.pages import csrf
from notifyd.web.pages.cookies import Cookies
from notifyd.web.pages.forms import Alert
from notifyd.web.pages.reader import Reader
from notifyd.web.pages.sign_in import OUTCOME, Outcome, leave_to_sign_in
from notifyd.web.services import Services


@frozen
class LinkVisit:
    """One request to the page at `path` below `/approvals/`. `now` is the clock's time when it began.

    `person` is whose link it is, "" for nobody's, and `signed_in` the canonical name of who is signed in for it.
    """

    request: web.Request
    services: Services
    registry: Registry
    path: str
    person: str
    reader: Reader
    cookies: Cookies
    signed_in: str | None
    now: Instant

    @property
    def _form(self) -> str:
        """What a form's token is bound to: the page, and who is signed in."""
        return self.path if self.signed_in is None else f"{self.path}/{self.signed_in}"

    def issue(self) -> str:
        """A token for a form of this page."""
        return csrf.issue(self.registry.keyring, self._form, self.now)

    def is_genuine(self, token: str) -> bool:
        """Did the form with this token come from this page, and from this site?"""
        genuine = csrf.holds(self.registry.keyring, self._form, token, self.now)
        return genuine and csrf.same_origin(self.request, self.registry.settings.server.public_url)

    async def leave_to_sign_in(self, draft: Draft) -> web.Response | Alert:
        """See `sign_in.leave_to_sign_in`."""
        return await leave_to_sign_in(
            self.registry,
            self.cookies,
            self.reader,
            path=self.path,
            person=self.person,
            again=self.signed_in is not None,
            draft=draft,
            now=self.now,
        )

    def failed_sign_in(self) -> Alert | None:
        """That a sign-in did not succeed, where the browser comes back from one."""
        how = self.request.query.get(OUTCOME)
        return Alert(200, f"sign_in_{how}") if how in tuple(Outcome) else None
