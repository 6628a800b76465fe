"""A person's list: GET shows what waits for them, soonest end first, POST decides several of these at once.

Each item bears the sealed link by which it is decided, to one plan in one round, and passes the same checks as on
its own page. What more is needed for than a choice is decided there: inputs, and a reason that is required.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from aiohttp import web
from attrs import evolve, frozen

from notifyd import correlation
from notifyd.approval.ballots import COMMENT_LIMIT, Ballot, cast, check_ballot
from notifyd.config.settings import LinkMode
from notifyd.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    SealError,
    StoreError,
)
from notifyd.flow.deputies import days_by_link
from notifyd.flow.mine import Asked, asked_of
from notifyd.flow.reasons import needs_reason
from notifyd.flow.standing import Standing, View, ballot_by, look
from notifyd.model import Choice
from notifyd.registry.registry import Registry
from notifyd.security.links import MINE, Link, MineLink
from notifyd.security.sign_in import Draft
from notifyd.text import clean
from notifyd.tracing import trace_in
from notifyd.web import problems
from notifyd.web.pages import deputies
from notifyd.web.pages.cookies import Cookies
from notifyd.web.pages.forms import SIGN_IN, Alert, alert_of, read_fields
from notifyd.web.pages.html import compile_first
from notifyd.web.pages.mine_html import LIST, Item, Result, confirm_list_page, list_page
from notifyd.web.pages.reader import reader_of
from notifyd.web.pages.sign_in import see_other
from notifyd.web.pages.visit import LinkVisit
from notifyd.web.problems import LinkExpiredError
from notifyd.web.services import SERVICES

PATH: Final = "/approvals/mine/{link}"

SHOWN: Final = 50
"""How many items a page has: what ends first."""

_FIELDS: Final = SHOWN + 10
_NEVER: Final = float("inf")
_TURN: Final = 20
"""How many approvals are looked at before requests of others go in between."""

routes = web.RouteTableDef()


@routes.get(PATH)
async def get_list(request: web.Request) -> web.Response:
    visit = await _visit(request)
    return visit.page(visit.failed_sign_in() if visit.can_sign_in else None)


@routes.post(PATH)
async def post_list(request: web.Request) -> web.Response:
    """Decide, and show what came of each and what still waits.

    Sent again the form records nothing twice: each decision is answered as it was the first time.
    """
    _open(request.app[SERVICES].current(), request.match_info["link"])  # whose body is read holds a link
    form = await _read_form(request)
    visit = await _visit(request)
    if form.back:
        return visit.page(None, form)
    if (alert := visit.refuse(form)) is not None:
        return visit.page(alert, form)
    if form.decision == SIGN_IN:
        left = await visit.leave_to_sign_in(Draft(clean(form.comment)))
        return visit.page(left, form) if isinstance(left, Alert) else left
    if form.decision in (deputies.NAME, deputies.END):
        return await _change_deputy(visit, form)
    try:
        chosen = [await visit.chosen(token) for token in form.items]
    except SealError:
        return visit.page(Alert(403, "form"), form)
    if not (form.confirmed or visit.registry.settings.approvals.undo):
        return visit.confirmation(form, chosen)
    results = [await visit.decide(view, form) for view in chosen]
    try:
        after = await _visit(request)
    except StoreError:  # the answer must not say that nothing was recorded
        recorded = [one.view.link.subject for one in results if one.choice is not None]
        after = evolve(visit, views=[v for v in visit.views if v.link.subject not in recorded])
    return after.told(results, form)


async def _change_deputy(visit: _Visit, form: _Form) -> web.Response:
    """Then show the page by a redirect, so that a reload sends nothing twice."""
    place = visit.place
    alert = await place.change(visit.services.deputies, form.deputy, form.decision, form.csrf)
    return see_other(visit.path.removeprefix(MINE)) if alert is None else visit.page(alert, form)


@frozen
class _Form:
    """`items` are the links of what was selected, each once. `confirmed` and `back` are as on a single page."""

    csrf: str
    decision: str
    comment: str
    items: Sequence[str]
    confirmed: bool
    back: bool
    deputy: deputies.DeputyForm


async def _read_form(request: web.Request) -> _Form:
    """Raises as `read_fields` does."""
    fields = await read_fields(request, _FIELDS, several="item")
    csrf_, decision, comment = (fields.get(name, [""])[0] for name in ("csrf", "decision", "comment"))
    items = tuple(dict.fromkeys(fields.get("item", ())))
    deputy = deputies.DeputyForm.of(fields)
    return _Form(csrf_, decision, comment, items, "confirmed" in fields, "back" in fields, deputy)


@frozen
class _Visit(LinkVisit):
    """To one person's list. `views` are all that the person can decide, soonest end first.

    `hidden` says that there is more for who has signed in, and `whole` that all that waits was looked through.
    """

    mine: MineLink
    views: Sequence[View]
    hidden: bool
    whole: bool

    @property
    def place(self) -> deputies.Place:
        return deputies.Place(self.mine, self.registry, self.signed_in, self.now)

    @property
    def can_sign_in(self) -> bool:
        """Is there something on the page for which somebody has to sign in first?"""
        return self.hidden or self.place.lacks_sign_in

    def refuse(self, form: _Form) -> Alert | None:
        """What is wrong with a form, None where nothing is."""
        if not self.is_genuine(form.csrf):
            return Alert(403, "form")
        if form.decision == SIGN_IN and self.can_sign_in:
            return None
        if form.decision in (deputies.NAME, deputies.END):
            return None
        if form.decision not in tuple(Choice):
            return Alert(422, "choice")
        if len(clean(form.comment)) > COMMENT_LIMIT:
            return Alert(422, "comment")
        return None if form.items else Alert(422, "none_selected")

    async def chosen(self, token: str) -> View:
        """What the link of an item is about, as it is now. Raises `SealError` where no list of theirs had it."""
        link = self.registry.links.read(token)
        canonical = self.registry.actors.canonical
        theirs = (link.tenant, canonical(link.recipient or "")) == (
            self.mine.tenant,
            canonical(self.mine.recipient),
        )
        approval = await self.services.store.approval(link.key) if theirs else None
        if approval is None or link.expires_at <= self.now:
            raise SealError("it stood on no list of this person")
        return look(link, approval, self.registry, self.now, self.signed_in)

    async def decide(self, view: View, form: _Form) -> Result:
        """Record one decision, or say why it was not recorded."""
        try:
            caller = trace_in(self.request.headers)
            await self.services.decisions.decide(self._ballot(view, form), caller=caller)
        except (NotFoundError, StoreError):  # what came before it is recorded: the page is to tell that
            return self._refused(view, Alert(503, "unavailable"))
        except _REFUSALS as error:
            return self._refused(view, _why(error))
        return Result(view, self._path(view.link), Choice(form.decision))

    def confirmation(self, form: _Form, chosen: Iterable[View]) -> web.Response:
        """What each decision does, to be confirmed; what cannot be decided so is told."""
        fit, refused = list[tuple[View, Ballot]](), list[Result]()
        for view in chosen:
            try:
                fit.append((view, self._checked(view, form)))
            except _REFUSALS as error:
                refused.append(self._refused(view, _why(error)))
        if not fit:
            return self.told(refused, form)
        return confirm_list_page(
            [
                (Item(view, self._path(view.link)), cast(view.approval, ballot, self.now))
                for view, ballot in fit
            ],
            self.reader,
            choice=Choice(form.decision),
            actor=fit[0][1].actor,
            form=self.issue(),
            comment=form.comment,
            refused=refused,
        )

    def _checked(self, view: View, form: _Form) -> Ballot:
        """Raises one of `_REFUSALS`."""
        ballot, settings = self._ballot(view, form), self.registry.settings.approvals
        canonical, allow_self = self.registry.actors.canonical, settings.allow_self_approval
        check_ballot(view.approval, ballot, self.now, allow_self=allow_self, canonical=canonical)
        return ballot

    def _ballot(self, view: View, form: _Form) -> Ballot:
        """Raises `_NotHereError`."""
        choice = Choice(form.decision)
        if view.right is None:
            raise _NotHereError(Alert(403, "sign_in" if view.lacks_sign_in else "refused"))
        if not is_decided_here(view, choice, self.registry):
            raise _NotHereError(Alert(422, "own_page"))
        correlation_id = correlation.current.get()
        return ballot_by(
            view.link, view.right, self.registry, choice, form.comment, correlation_id=correlation_id
        )

    def _refused(self, view: View, alert: Alert) -> Result:
        return Result(
            view, self._path(view.link), None, self.reader.texts[f"alert.{alert.name}"], alert.status
        )

    def told(self, results: Sequence[Result], form: _Form) -> web.Response:
        """The list as it is now below what came of a form. A comment that was not recorded everywhere is kept."""
        statuses = [one.status for one in results if one.choice is None]
        lost = evolve(form, items=(), comment=form.comment if statuses else "")
        return self._list(results=results, form=lost, status=max(statuses, default=200))

    def page(self, alert: Alert | None, form: _Form | None = None) -> web.Response:
        """The list, with what was filled in before."""
        limits = {"limit": COMMENT_LIMIT, "days": days_by_link(self.registry)}
        words = self.reader.texts[f"alert.{alert.name}"].format(**limits) if alert else ""
        return self._list(alert=words, form=form, status=alert.status if alert else 200)

    def _list(
        self,
        *,
        form: _Form | None,
        status: int,
        alert: str = "",
        results: Sequence[Result] = (),
    ) -> web.Response:
        undo = self.registry.settings.approvals.undo
        return list_page(
            [self._item(view) for view in self.views[:SHOWN]],
            self.reader,
            person=self.person,
            form=self.issue(),
            more=len(self.views) - SHOWN,
            whole=self.whole,
            hidden=self.hidden,
            signed_in=self.signed_in,
            comment=form.comment if form else self.cookies.draft(self.path).comment,
            selected=self._selected(form.items) if form else (),
            alert=alert,
            results=results,
            status=status,
            now=self.now,
            undo_time=undo,
            deputies=self.place.shown(self.reader, form.deputy if form else None),
        )

    def _item(self, view: View) -> Item:
        return Item(
            view,
            self._path(view.link),
            approvable=view.opens_at is None and is_decided_here(view, Choice.APPROVED, self.registry),
            rejectable=is_decided_here(view, Choice.REJECTED, self.registry),
        )

    def _selected(self, tokens: Iterable[str]) -> list[list[Any]]:
        """What was selected: a plan that came since is another."""
        found = []
        for token in tokens:
            with suppress(SealError):
                found.append(self.registry.links.read(token).subject)
        return found

    def _path(self, link: Link) -> str:
        return self.registry.links.seal(link)


class _NotHereError(Exception):
    """Something is not decided by the list, or not by this reader."""

    def __init__(self, alert: Alert) -> None:
        super().__init__(alert.name)
        self.alert = alert


_REFUSALS: Final = (ConflictError, ForbiddenError, InvalidError, _NotHereError)


def _why(error: Exception) -> Alert:
    if isinstance(error, _NotHereError):
        return error.alert
    if isinstance(error, InvalidError):
        return Alert(422, "own_page")  # what is asked for has changed since it was on the list
    return Alert(problems.meaning(type(error)).status, alert_of(error))


def is_decided_here(view: View, choice: Choice, registry: Registry) -> bool:
    """Does a decision need no more than a choice?"""
    return not view.approval.inputs and not needs_reason(
        choice, registry.rule(view.link.rule), registry.settings
    )


async def _visit(request: web.Request) -> _Visit:
    """Raises `NotFoundError`, `LinkExpiredError`, `StoreError`."""
    await compile_first(LIST)
    services, token = request.app[SERVICES], request.match_info["link"]
    registry, now = services.current(), services.clock()
    mine = _open(registry, token)
    if mine.expires_at <= now:
        raise LinkExpiredError("this link has expired")
    cookies, reader = Cookies(request, registry), reader_of(request, registry, mine.recipient)
    signed_in = cookies.signed_in(mine, now)
    asked, whole = await asked_of(mine, registry, services.store, now)
    views = [view async for view in _views(asked, registry, now, signed_in)]
    return _Visit(
        *(request, services, registry, MINE + token, mine.recipient, reader, cookies, signed_in, now),
        mine=mine,
        views=sorted((view for view in views if view.standing is Standing.OPEN), key=_urgency),
        hidden=any(view.lacks_sign_in for view in views),
        whole=whole,
    )


async def _views(
    asked: Iterable[Asked], registry: Registry, now: int, signed_in: str | None
) -> AsyncIterator[View]:
    for number, one in enumerate(asked):
        if number % _TURN == 0:
            await asyncio.sleep(0)  # others' requests go in between
        view = _view(one, registry, now, signed_in)
        if view is not None:
            yield view


def _view(asked: Asked, registry: Registry, now: int, signed_in: str | None) -> View | None:
    """By the first link that decides, or would after a sign-in; None where no link does."""
    views = [look(link, asked.approval, registry, now, signed_in) for link in asked.links]
    decides = (view for view in views if view.standing is Standing.OPEN)
    unproved = (view for view in views if view.standing in (Standing.SIGN_IN, Standing.OTHER_PERSON))
    return next(chain(decides, unproved), None)


def _urgency(view: View) -> tuple[float, int]:
    approval = view.approval
    return _NEVER if approval.expires_at is None else approval.expires_at, approval.requested_at


def _open(registry: Registry, token: str) -> MineLink:
    if registry.settings.approvals.links is not LinkMode.DECIDE:
        raise NotFoundError("this link is not valid")
    try:
        return registry.links.read_mine(token)
    except SealError:
        raise NotFoundError("this link is not valid") from None
