"""The approver's page: GET shows what a link is about and changes nothing, POST decides as its recipient.

Where deciding needs a sign-in, POST begins one, which ends in `signed_in`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import hdrs, web
from attrs import frozen

from notifyd import correlation
from notifyd.approval.ballots import COMMENT_LIMIT, Ballot, cast, check_ballot
from notifyd.approval.inputs import MAX_INPUTS
from notifyd.config.settings import LinkMode
from notifyd.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    SealError,
)
from notifyd.flow.mine import present_link
from notifyd.flow.reasons import needs_reason
from notifyd.flow.standing import Right, Standing, View, ballot_by, look
from notifyd.model import Approval, Choice, Decision, Delivery
from notifyd.registry.registry import Registry
from notifyd.security.links import Link
from notifyd.security.sign_in import Draft
from notifyd.text import blank, clean, one_line
from notifyd.tracing import trace_in
from notifyd.web import problems
from notifyd.web.answers import callback_of, reason_of
from notifyd.web.pages.cookies import Cookies
from notifyd.web.pages.fields import form_fields, sent_fields, values_of
from notifyd.web.pages.forms import SIGN_IN, Alert, alert_of, inputs_of, read_fields
from notifyd.web.pages.html import APPROVAL, approval_page, compile_first, confirm_page, message_page
from notifyd.web.pages.reader import reader_of
from notifyd.web.pages.sign_in import see_other
from notifyd.web.pages.visit import LinkVisit
from notifyd.web.problems import LinkExpiredError, Problem, SignInOverError
from notifyd.web.services import SERVICES

PATH: Final = "/approvals/{link}"
HTML: Final = "text/html"

_EARLIER: Final = 200
"""How many decisions of earlier rounds a page shows: the newest."""

_FIELDS: Final = 10 + MAX_INPUTS
_ASKED_AGAIN: Final = frozenset({"csrf", "decision", "comment", "confirmed"})
"""What the page that asks for confirmation has in a field of its own."""

_KINDS: Final = {404: "invalid", 410: "gone", 429: "later", 503: "later"}

routes = web.RouteTableDef()


@routes.get("/approvals")
@routes.get("/")
async def get_home(request: web.Request) -> web.Response:
    """Tells a person, who typed the address, how to go on. Raises `NotFoundError` for a program."""
    if HTML not in request.headers.get(hdrs.ACCEPT, ""):
        raise NotFoundError("there is nothing here: see /openapi.json")
    registry = request.app[SERVICES].current()
    return message_page("home", reader_of(request, registry), 200)


@routes.get(PATH)
async def get_page(request: web.Request) -> web.Response:
    visit = await _visit(request)
    return visit.page(visit.failed_sign_in() if visit.view.lacks_sign_in else None)


@routes.post(PATH)
async def post_page(request: web.Request) -> web.Response:
    """Decide, then show the page again by a redirect, so that a reload sends nothing twice."""
    _open(request.app[SERVICES].current(), request.match_info["link"])  # whose body is read holds a link
    form = await _read_form(request)
    visit = await _visit(request)
    if form.back:
        return visit.page(None, form)
    if (alert := visit.refuse(form)) is not None:
        return visit.page(alert, form)
    if form.decision == SIGN_IN:
        left = await visit.leave_to_sign_in(form.draft(visit.view.approval))
        return visit.page(left, form) if isinstance(left, Alert) else left
    if visit.view.right is None:
        return visit.page(Alert(403, "refused"), form)
    if form.takes_back:
        return await visit.take_back(visit.view.right)
    try:
        if visit.unsure(form):
            return visit.confirmation(form, visit.view.right)
        ballot, caller = visit.ballot(form, visit.view.right), trace_in(request.headers)
        await visit.services.decisions.decide(ballot, caller=caller)
    except InvalidError as error:
        if [fault.pointer for fault in error.faults] == ["/comment"]:
            return visit.confirmation(form, visit.view.right, Alert(422, "no_reason"))
        return visit.page(Alert(422, "inputs", inputs_of(error)), form)
    except (ForbiddenError, ConflictError) as error:
        status = problems.meaning(type(error)).status
        # What stood in the way is on the page as it is now.
        return (await _visit(request)).page(Alert(status, alert_of(error)), form)
    return visit.to_page()


def render_problem(request: web.Request, problem: Problem, registry: Registry) -> web.Response:
    """Whatever else went wrong, as a page that says nothing of any request."""
    reader = reader_of(request, registry)
    over = problem.code == SignInOverError.code
    kind = "sign_in_over" if over else _KINDS.get(problem.status, "failed")
    page = message_page(kind, reader, problem.status)
    page.headers.update(problem.headers)
    return page


@frozen
class _Form:
    """`confirmed` says that its sender has been told what will happen; `back` asks for the page again, and
    `takes_back` to undo what was decided.

    `more` is all else that was filled in.
    """

    csrf: str
    decision: str
    comment: str
    break_glass: bool
    confirmed: bool
    inputs: Mapping[str, str]
    back: bool
    takes_back: bool
    more: tuple[tuple[str, str], ...]

    def draft(self, approval: Approval) -> Draft:
        """What is kept of it while its sender signs in."""
        asked = {one.name for one in approval.inputs}
        inputs = {name: clean(text) for name, text in self.inputs.items() if name in asked}
        return Draft(clean(self.comment), self.break_glass, inputs if asked else None)


async def _read_form(request: web.Request) -> _Form:
    """Raises as `read_fields` does."""
    fields = await read_fields(request, _FIELDS)
    csrf_, decision, comment = (fields.get(name, [""])[0] for name in ("csrf", "decision", "comment"))
    more = tuple((name, values[0]) for name, values in fields.items() if name not in _ASKED_AGAIN)
    return _Form(
        csrf_,
        decision,
        comment,
        break_glass="breakGlass" in fields,
        confirmed="confirmed" in fields,
        inputs=sent_fields(fields),
        back="back" in fields,
        takes_back="takeBack" in fields,
        more=more,
    )


@frozen
class _Visit(LinkVisit):
    """To an approval's page, whose path is the link's token.

    `newer` is the link to the present round of whoever has one to an earlier round, and is asked in this one.
    """

    view: View
    callback: Delivery | None
    earlier: Sequence[Decision]
    newer: Link | None

    def refuse(self, form: _Form) -> Alert | None:
        """What is wrong with a form, None where nothing is."""
        if self.view.lacks_sign_in and form.decision != SIGN_IN:
            return Alert(403, "sign_in")  # it may have ended while the form was open
        if not self.is_genuine(form.csrf):
            return Alert(403, "form")
        if form.takes_back:
            return None
        if form.decision not in ((SIGN_IN,) if self.view.lacks_sign_in else tuple(Choice)):
            return Alert(422, "choice")
        if len(clean(form.comment)) > COMMENT_LIMIT:
            return Alert(422, "comment")
        if form.decision == SIGN_IN:
            return None
        if form.break_glass and blank(form.comment):
            return Alert(422, "reason")
        if form.break_glass and not form.confirmed:
            return Alert(422, "unconfirmed")
        return None

    def unsure(self, form: _Form) -> bool:
        """Is its sender still to be told what will happen?"""
        undo = self.registry.settings.approvals.undo
        too_early = form.decision == Choice.APPROVED and self.view.opens_at is not None
        return self.view.standing is Standing.OPEN and not (form.confirmed or too_early or undo)

    def confirmation(self, form: _Form, right: Right, alert: Alert | None = None) -> web.Response:
        """What the decision of `form` does, to be confirmed, with the comment in its place.

        Raises as `check_ballot` does: what stands against it is told before.
        """
        ballot, settings = self.ballot(form, right), self.registry.settings
        canonical, allow_self = self.registry.actors.canonical, settings.approvals.allow_self_approval
        check_ballot(self.view.approval, ballot, self.now, allow_self=allow_self, canonical=canonical)
        return confirm_page(
            self.view,
            self.reader,
            choice=ballot.choice,
            after=cast(self.view.approval, ballot, self.now),
            actor=right.actor,
            form=self.issue(),
            alert=self._words(alert),
            comment=form.comment,
            more=form.more,
            needs_reason=needs_reason(ballot.choice, self.registry.rule(ballot.rule), settings),
            status=alert.status if alert else 200,
        )

    async def take_back(self, right: Right) -> web.Response:
        key, caller = self.view.link.key, trace_in(self.request.headers)
        try:
            await self.services.decisions.take_back(
                key, right.actor, correlation_id=correlation.current.get(), caller=caller
            )
        except ConflictError:
            return (await _visit(self.request)).page(Alert(409, "too_late"))
        return self.to_page()

    def to_page(self) -> web.Response:
        response = see_other(self.path)
        self.cookies.drop_draft(response, self.path)
        return response

    def ballot(self, form: _Form, right: Right) -> Ballot:
        approves = form.decision == Choice.APPROVED
        return ballot_by(
            self.view.link,
            right,
            self.registry,
            Choice(form.decision),
            form.comment,
            correlation_id=correlation.current.get(),
            break_glass=form.break_glass,
            inputs=values_of(self.view.approval.inputs, form.inputs) if approves else {},
        )

    def page(self, alert: Alert | None = None, form: _Form | None = None) -> web.Response:
        view = self.view
        open_ = view.standing is Standing.OPEN or view.may_break_glass or view.undoable is not None
        asks = open_ or view.lacks_sign_in
        faulty = alert.inputs if alert else frozenset()
        typed = form or self.cookies.draft(self.path)
        return approval_page(
            self.view,
            self.reader,
            form=self.issue() if asks else None,
            fields=tuple(form_fields(self.view.approval, typed.inputs, faulty)),
            alert=self._words(alert),
            comment=typed.comment,
            breaking=typed.break_glass,
            status=alert.status if alert else 200,
            waits=reason_of(self.callback, self.registry) if self.callback else None,
            told_at=self.callback.ended_at if self.callback else None,
            earlier=() if view.standing is Standing.SUPERSEDED else self.earlier,
            newer=self.registry.links.seal(self.newer) if self.newer else "",
            now=self.now,
            undo_time=self.registry.settings.approvals.undo,
        )

    def _words(self, alert: Alert | None) -> str:
        if alert is None:
            return ""
        labels = (one.label for one in self.view.approval.inputs if one.name in alert.inputs)
        template = self.reader.texts[f"alert.{alert.name}"]
        return template.format(limit=COMMENT_LIMIT, inputs=", ".join(map(one_line, labels)))


async def _visit(request: web.Request) -> _Visit:
    """Raises `NotFoundError`, `LinkExpiredError`, `StoreError`."""
    await compile_first(APPROVAL)
    services, token = request.app[SERVICES], request.match_info["link"]
    registry, now = services.current(), services.clock()
    link = _open(registry, token)
    if link.expires_at <= now:
        raise LinkExpiredError("this link has expired")
    approval = await services.store.approval(link.key)
    if approval is None:
        raise NotFoundError("this link is not valid")
    cookies, reader = Cookies(request, registry), reader_of(request, registry, link.recipient)
    signed_in = cookies.signed_in(link, now)
    callback = await callback_of(approval, services.store)
    earlier = await services.store.superseded(link.key, _EARLIER) if approval.round > 1 else ()
    newer = None
    if link.round < approval.round:
        newer = await present_link(link, approval, registry, services.store, now)
    return _Visit(
        *(request, services, registry, token, link.recipient or "", reader, cookies, signed_in, now),
        view=look(link, approval, registry, now, signed_in),
        callback=callback,
        earlier=earlier,
        newer=newer,
    )


def _open(registry: Registry, token: str) -> Link:
    if registry.settings.approvals.links is LinkMode.OFF:
        raise NotFoundError("this link is not valid")
    try:
        return registry.links.read(token)
    except SealError:
        raise NotFoundError("this link is not valid") from None
