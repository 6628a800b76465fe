"""What the reader of a link may do, and where its approval stands for them, by the configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import orjson
from attrs import evolve, frozen

from notifyd.approval.ballots import Ballot, grant_fault, has_decided, is_requester
from notifyd.approval.undo import undoable_by
from notifyd.config.settings import LinkMode, Proof, Rule, Scope
from notifyd.model import Approval, Choice, Decision, Instant, Status, Via
from notifyd.registry.registry import Registry
from notifyd.security.links import Link
from notifyd.text import clean


class Standing(StrEnum):
    """Where the approval stands, as the reader of one link sees it."""

    OPEN = "open"
    VIEW_ONLY = "view_only"  # the link names nobody, or links only show
    NOT_CONFERRED = "not_conferred"  # its rule is gone, or confers too little, or names somebody else by now
    OWN_REQUEST = "own_request"
    SIGN_IN = "sign_in"  # the recipient has to sign in first
    OTHER_PERSON = "other_person"  # somebody else has
    VOTED = "voted"
    REPRESENTED = "represented"  # of the reader and a deputy, the other has decided
    SUPERSEDED = "superseded"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@frozen
class Right:
    """As whom a link decides, and what its rule confers: to vote, to break the glass, or both.

    `via` is the way in which a decision by it comes in.
    """

    actor: str
    grants: frozenset[str]
    votes: bool
    breaks_glass: bool
    via: Via


@frozen
class View:
    """`right` is None where this reader cannot decide by the link, whatever the state. `event` is the request.

    `opens_at` is when approving becomes possible, None where its hours leave it open. `undoable` is
    the decision that the reader can still take back. `signed_in` is the canonical name of who is signed in for
    what the link is about; `lacks_sign_in` says that this, or another name, is what the reader's right lacks.
    """

    link: Link
    approval: Approval
    event: Mapping[str, Any]
    standing: Standing
    right: Right | None
    opens_at: Instant | None = None
    undoable: Decision | None = None
    signed_in: str | None = None
    lacks_sign_in: bool = False

    @property
    def may_break_glass(self) -> bool:
        """May the reader, having voted or not, still end this as approved?"""
        waiting = self.standing in (Standing.OPEN, Standing.VOTED, Standing.NOT_CONFERRED)
        return waiting and self.right is not None and self.right.breaks_glass

    @property
    def badge(self) -> str:
        """The approval's own state, whoever looks."""
        ended = self.standing.value in (*(status.value for status in Status), Standing.SUPERSEDED.value)
        return self.standing.value if ended else Status.PENDING.value


def look(
    link: Link, approval: Approval, registry: Registry, now: Instant, signed_in: str | None = None
) -> View:
    """`signed_in` is the canonical name of who is signed in for what the link is about."""
    view = evolve(_conferred(link, approval, registry, now), signed_in=signed_in)
    right = view.right
    if right is None or right.via is Via.LINK or right.actor == signed_in:
        return view
    standing = view.standing
    if standing is Standing.OPEN:
        standing = Standing.SIGN_IN if signed_in is None else Standing.OTHER_PERSON
    lacks = view.standing is Standing.OPEN or view.may_break_glass or view.undoable is not None
    return evolve(view, standing=standing, right=None, undoable=None, lacks_sign_in=lacks)


def _conferred(link: Link, approval: Approval, registry: Registry, now: Instant) -> View:
    """What the link's recipient sees, who they are being proved."""
    right = _right(link, approval, registry, now)
    standing = _state(link, approval, now) or _place(link, approval, right, registry)
    opens_at = _opens_at(link, registry, now)
    undoable = None
    if right is not None and standing is not Standing.SUPERSEDED:
        undoable = undoable_by(approval, right.actor, now, registry.actors.canonical)
    return View(link, approval, orjson.loads(approval.request), standing, right, opens_at, undoable)


def _opens_at(link: Link, registry: Registry, now: Instant) -> Instant | None:
    rule = registry.rule(link.rule)
    opens_at = rule.window.opens_at(now) if rule and rule.window else now
    return None if opens_at == now else opens_at


def _state(link: Link, approval: Approval, now: Instant) -> Standing | None:
    """What ends all deciding; None while the approval waits."""
    if (link.round, link.plan_hash) != (approval.round, approval.plan_hash):
        return Standing.SUPERSEDED
    if approval.status.ended:
        return Standing(approval.status.value)
    return Standing.EXPIRED if approval.overdue(now) else None


def _place(link: Link, approval: Approval, right: Right | None, registry: Registry) -> Standing:
    """The reader's own place in a decision that is still open."""
    settings = registry.settings.approvals
    if link.recipient is None or settings.links is not LinkMode.DECIDE:
        return Standing.VIEW_ONLY
    own = [decision.actor for decision in approval.decisions]
    if _is_among(link.recipient, own, registry):
        return Standing.VOTED
    if has_decided(approval, _people(link), registry.actors.canonical):
        return Standing.REPRESENTED
    if right is None or not right.votes:
        return Standing.NOT_CONFERRED
    if not settings.allow_self_approval and _asked(link, approval, registry):
        return Standing.OWN_REQUEST
    return Standing.OPEN


def _people(link: Link) -> list[str]:
    """Whose link it is: a person's, or a deputy's and that of the person they stand in for."""
    return [name for name in (link.recipient, link.on_behalf_of) if name is not None]


def _asked(link: Link, approval: Approval, registry: Registry) -> bool:
    """Is it the link of who asked for this, or of their deputy?"""
    return any(is_requester(approval, name, registry.actors.canonical) for name in _people(link))


def _right(link: Link, approval: Approval, registry: Registry, now: Instant) -> Right | None:
    """A rule confers when the decision is made: taken back, or from this person, it confers nothing."""
    settings = registry.settings
    rule = registry.rule(link.rule)
    if settings.approvals.links is not LinkMode.DECIDE or link.recipient is None or rule is None:
        return None
    actor = registry.actors.canonical(link.recipient)
    grants = frozenset(rule.grants)
    if Scope.APPROVE.value not in grants or not _names(rule, link, registry, now):
        return None
    right = Right(
        actor,
        grants,
        votes=not grant_fault(approval, grants),
        breaks_glass=not _asked(link, approval, registry)
        and not grant_fault(approval, grants, break_glass=True),
        via=Via.SIGN_IN if registry.proof(rule) is Proof.SIGN_IN else Via.LINK,
    )
    return right if right.votes or right.breaks_glass else None


def _names(rule: Rule, link: Link, registry: Registry, now: Instant) -> bool:
    """Does the rule still name the link's recipient, or the one for whom they stand in today?"""
    recipient, person = link.recipient or "", link.on_behalf_of
    named = rule.people
    if person is not None:
        return registry.is_deputy(link.tenant, recipient, person, now) and _is_among(person, named, registry)
    return _is_among(recipient, named, registry)


def _is_among(name: str, people: Iterable[str], registry: Registry) -> bool:
    return registry.actors.canonical(name) in map(registry.actors.canonical, people)


def ballot_by(
    link: Link,
    right: Right,
    registry: Registry,
    choice: Choice,
    comment: str,
    *,
    correlation_id: str,
    client: str = "",
    break_glass: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> Ballot:
    """What the link's recipient decides by it. `client` is whoever carried it, "" for the link itself."""
    return Ballot(
        tenant=link.tenant,
        run_id=link.run_id,
        approval_id=link.approval_id,
        choice=choice,
        plan_hash=link.plan_hash,
        actor=right.actor,
        comment=registry.redactor.text(clean(comment).strip()),
        via=right.via,
        client=client,
        grants=right.grants,
        correlation_id=correlation_id,
        round=link.round,
        break_glass=break_glass,
        rule=link.rule,
        on_behalf_of=registry.actors.canonical(link.on_behalf_of) if link.on_behalf_of else "",
        inputs=inputs or {},
    )
