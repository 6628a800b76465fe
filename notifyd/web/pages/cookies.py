"""What an approver's browser keeps of a sign-in: sealed cookies, which no script reads and no other site sends.

They are sent to the path that they are for alone: one that has begun to where the provider sends the browser back,
the rest to the page of one link.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from notifyd.model import SECOND, Instant
from notifyd.registry.provider import BEGUN_LIFE, SIGNED_IN
from notifyd.registry.registry import Registry
from notifyd.security.links import Link, MineLink
from notifyd.security.sign_in import (
    Begun,
    Draft,
    SignedIn,
    open_draft,
    open_sealed,
    seal,
    seal_draft,
    signed_in_for,
)

LIFE: Final[Instant] = 900 * SECOND
"""How long a person stays signed in for one approval, and what they typed is kept."""

_PIECE: Final = 3675
"""Characters of a draft in one cookie: browsers take 4,096 bytes with its name, the server 8,190 of all."""

_PIECES: Final = 2


class Cookies:
    """Those of one browser, as a request brings them, under one configuration."""

    def __init__(self, request: web.Request, registry: Registry) -> None:
        self._given = request.cookies
        self._keyring = registry.keyring
        self._oidc = registry.settings.auth.oidc
        self._actors = registry.actors
        parts = urlsplit(registry.settings.server.public_url)
        self._base = parts.path
        # Such a cookie nobody can plant by plain http. Browsers do not take it from a loopback address.
        self._prefix = "__Secure-notifyd-" if parts.scheme == "https" else "notifyd-"

    # --- a sign-in under way ---

    def begun(self, state: str, now: Instant) -> Begun | None:
        """The sign-in of this browser with `state`."""
        text = self._given.get(self._begun_name(state))
        begun = open_sealed(self._keyring, Begun, text, now) if text else None
        return begun if begun is not None and begun.state == state else None

    def keep_begun(self, response: web.Response, begun: Begun) -> None:
        name, text = self._begun_name(begun.state), seal(self._keyring, begun)
        self._set(response, name, text, self._base + SIGNED_IN, BEGUN_LIFE)

    def drop_begun(self, response: web.Response, begun: Begun) -> None:
        self._set(response, self._begun_name(begun.state), "", self._base + SIGNED_IN, 0)

    def _begun_name(self, state: str) -> str:
        return f"{self._prefix}begun-{state[:16]}"

    # --- who is signed in ---

    def signed_in(self, link: Link | MineLink, now: Instant) -> str | None:
        """The canonical name of who is signed in for what `link` is about; None where nobody is."""
        text = self._given.get(f"{self._prefix}signed-in")
        if text is None or self._oidc is None:
            return None
        found = open_sealed(self._keyring, SignedIn, text, now)
        if found is None or found.about != signed_in_for(link, self._oidc.issuer):
            return None
        return self._actors.canonical(found.name)

    def keep_signed_in(self, response: web.Response, path: str, found: SignedIn) -> None:
        self._set(response, f"{self._prefix}signed-in", seal(self._keyring, found), self._page(path), LIFE)

    # --- what was typed before it could be sent ---

    def draft(self, path: str) -> Draft:
        pieces = (self._given.get(self._draft_name(number), "") for number in range(_PIECES))
        return open_draft(self._keyring, path, "".join(pieces))

    def keep_draft(self, response: web.Response, path: str, draft: Draft) -> bool:
        """Instead of an earlier one; an empty one drops that. False: it is too long to be kept."""
        text = "" if draft == Draft() else seal_draft(self._keyring, path, draft)
        if len(text) > _PIECES * _PIECE:
            return False
        for number in range(_PIECES):
            piece = text[number * _PIECE :][:_PIECE]
            self._set(response, self._draft_name(number), piece, self._page(path), LIFE if piece else 0)
        return True

    def drop_draft(self, response: web.Response, path: str) -> None:
        if self._draft_name(0) in self._given:
            self.keep_draft(response, path, Draft())

    def _draft_name(self, number: int) -> str:
        return f"{self._prefix}draft-{number}"

    # --- all of them ---

    def _page(self, path: str) -> str:
        return f"{self._base}/approvals/{path}"

    @staticmethod
    def _set(response: web.Response, name: str, text: str, path: str, life: Instant) -> None:
        """A life of 0 drops it."""
        response.set_cookie(
            name, text, max_age=life // SECOND, path=path, secure=True, httponly=True, samesite="Lax"
        )
