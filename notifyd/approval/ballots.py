"""Decisions and expiry: who may decide, the order of the checks, and the effects that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import evolve, field, frozen

from notifyd.approval.effects import (
    decision_hash,
    expiry_hash,
    let_go,
    owing,
    owing_callback,
    owing_expiry_notice,
)
from notifyd.approval.inputs import effective, proposed, settled, value_faults
from notifyd.approval.notices import NOTIFYD, own_audit, own_event
from notifyd.approval.quorum import progress, reached
from notifyd.errors import (
    AlreadyDecidedError,
    AlreadyVotedError,
    ExpiredError,
    Fault,
    GrantMissingError,
    InputsDifferError,
    InvalidError,
    PlanChangedError,
    SelfApprovalError,
)
from notifyd.model import (
    Approval,
    ApprovalKey,
    AuditName,
    Choice,
    Decision,
    Instant,
    Status,
    Via,
)
from notifyd.text import blank
from notifyd.wire.codec import rfc3339

Canonical: TypeAlias = Callable[[str], str]
"""Gives the one name of an actor for any of its names; see `notifyd.security.actors`."""


COMMENT_LIMIT: Final = 2000
"""Characters that a person may write with a decision."""


@frozen
class Ballot:
    """A decision as it comes in. `actor` is canonical; `round` is the one it names, None where it names none.

    `client` is the machine client or token that carried it, "" for a link. `message_id` is the `webhook-id` of
    the signed request that it came in, "" where none was signed. `break_glass` asks to end the approval at once.
    `inputs` are what it fills in, by name: a default stands in for what is left out, and not for null.
    `on_behalf_of` is the canonical name of the person for whom the actor stands in, as the configuration allows.
    """

    tenant: str
    run_id: str
    approval_id: str
    choice: Choice
    plan_hash: str
    actor: str
    comment: str
    via: Via
    client: str
    grants: frozenset[str]
    correlation_id: str
    round: int | None = None
    message_id: str = ""
    break_glass: bool = False
    rule: str = ""  # whose message had the link that it came by
    inputs: Mapping[str, Any] = field(factory=dict)
    on_behalf_of: str = ""

    @property
    def key(self) -> ApprovalKey:
        return ApprovalKey(self.tenant, self.run_id, self.approval_id)

    @property
    def people(self) -> tuple[str, ...]:
        """The people whose decision this is: the actor, and whom the actor stands in for."""
        return (self.actor, self.on_behalf_of) if self.on_behalf_of else (self.actor,)


def _filled_in(ballot: Ballot, base: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that `ballot` fills in, over `base`. A rejection fills in none."""
    return effective(base, ballot.inputs) if ballot.choice is Choice.APPROVED else {}


def ballot_hash(approval: Approval, ballot: Ballot, round_: int, inputs: Mapping[str, Any]) -> str:
    """Hash that identifies the decision of `ballot` in a round, with its `inputs`."""
    more: dict[str, Any] = {"breakGlass": True} if ballot.break_glass else {}
    more |= {"inputs": inputs} if inputs else {}
    more |= {"onBehalfOf": ballot.on_behalf_of} if ballot.on_behalf_of else {}
    decision = ballot.choice.value
    return decision_hash(approval.key, round_, ballot.plan_hash, decision, ballot.actor, more=more)


def may_repeat_superseded(approval: Approval, ballot: Ballot) -> bool:
    """May `ballot` repeat what was decided in an earlier round?"""
    return approval.round > 1 and ballot.round != approval.round


def earlier_answer(
    approval: Approval, ballot: Ballot, superseded: Sequence[Decision] = ()
) -> Decision | None:
    """The recorded decision that `ballot` repeats, whatever has happened since.

    In the round that it names; where it names none, in the present one if the plan is the present one, else in
    any round of that plan: a plan that comes back in a later round asks anew. Only the very request that was
    signed for an earlier round, captured and sent again, is told what it was told then.

    `superseded` is what its actor decided on its plan in earlier rounds.
    """
    recorded = (*superseded, *approval.decisions)
    return next((d for d in recorded if _repeats(approval, d, ballot)), None)


def _repeats(approval: Approval, recorded: Decision, ballot: Ballot) -> bool:
    # Which defaults stood in in an earlier round is known from the decision alone.
    present = recorded.round == approval.round
    inputs = _filled_in(ballot, proposed(approval.inputs) if present else recorded.inputs)
    if recorded.decision_hash != ballot_hash(approval, ballot, recorded.round, inputs):
        return False
    if ballot.round is not None:
        asked_for = recorded.round == ballot.round
    else:
        asked_for = ballot.plan_hash != approval.plan_hash or recorded.round == approval.round
    same_request = (recorded.client, recorded.message_id) == (ballot.client, ballot.message_id)
    return asked_for or (ballot.message_id != "" and same_request)


BREAK_GLASS: Final = "Packs.BreakGlass"
"""The grant that lets its holder end an approval as approved, whatever its quorum."""


def grant_fault(approval: Approval, grants: frozenset[str], *, break_glass: bool = False) -> str:
    """The grants missing from `grants` to decide, or to break the glass; "" where none is.

    Whoever breaks the glass needs to be in none of the groups: they are a part of the quorum.
    """
    required = (*approval.required_grants, *([BREAK_GLASS] if break_glass else []))
    missing = [g for g in required if g not in grants]
    if missing:
        return f"this approval also requires the grants {', '.join(missing)}"
    if approval.groups and not break_glass and not _groups_of(approval, grants):
        accepted = dict.fromkeys(group.grant for group in approval.groups)
        return f"this approval requires the grant of one of its groups: {', '.join(accepted)}"
    return ""


def _groups_of(approval: Approval, grants: frozenset[str]) -> tuple[str, ...]:
    """The groups that the holder of `grants` may count in."""
    return tuple(group.name for group in approval.groups if group.grant in grants)


def check_grants(approval: Approval, ballot: Ballot) -> None:
    """Raises `GrantMissingError`, naming what is missing."""
    if fault := grant_fault(approval, ballot.grants, break_glass=ballot.break_glass):
        raise GrantMissingError(fault)


def is_requester(approval: Approval, actor: str, canonical: Canonical) -> bool:
    """Is `actor` the requester? Compared by today's names, as an alias may have become known since."""
    return canonical(approval.requested_by) == canonical(actor)


def has_decided(approval: Approval, people: Iterable[str], canonical: Canonical) -> bool:
    """Has one of `people` decided in this round, under any of today's names, or a deputy for them?"""
    return not {canonical(name) for name in _voters(approval)}.isdisjoint(map(canonical, people))


_NO_REASON: Final = Fault("/comment", "is required with this decision: say why")


def check_ballot(
    approval: Approval,
    ballot: Ballot,
    now: Instant,
    *,
    allow_self: bool,
    canonical: Canonical,
    lacks_reason: bool = False,
) -> None:
    """Check a `ballot` that is not a repeat, in the contract's order.

    `canonical` and `lacks_reason` are by today's configuration. Whoever has approved may break the glass
    afterwards, and whoever asked never may. Raises `AlreadyDecidedError`, `ExpiredError`, `PlanChangedError`,
    `InvalidError` with all that the ballot lacks, `SelfApprovalError`, `AlreadyVotedError` or `InputsDifferError`.
    """
    if approval.status is Status.EXPIRED or approval.overdue(now):
        raise ExpiredError("this approval has expired; a rerun needs a new approvalId")
    if approval.status.ended:
        raise AlreadyDecidedError(f"this approval has ended as {approval.status.value}")
    other_round = ballot.round is not None and ballot.round != approval.round
    if other_round or ballot.plan_hash != approval.plan_hash:
        raise PlanChangedError("the plan has changed since; look at the present one and decide on that")
    reasonless = [_NO_REASON] if lacks_reason else []
    if faults := list(_faults(approval, ballot)):
        raise InvalidError([*faults, *reasonless])
    if (ballot.break_glass or not allow_self) and any(
        is_requester(approval, name, canonical) for name in ballot.people
    ):
        raise SelfApprovalError("who asked for an approval does not decide it, and nobody does for them")
    if not ballot.break_glass and has_decided(approval, ballot.people, canonical):
        raise AlreadyVotedError(
            "this actor has already decided, otherwise, under another name or by a deputy"
        )
    before = settled(approval)
    if ballot.choice is Choice.APPROVED and before not in (
        None,
        _filled_in(ballot, proposed(approval.inputs)),
    ):
        raise InputsDifferError("whoever approved first filled in something else: look at it and confirm it")
    if reasonless:
        raise InvalidError(reasonless)


def _faults(approval: Approval, ballot: Ballot) -> Iterator[Fault]:
    if ballot.round is None and approval.round > 1:
        # A plan may come back: what was said of it in an earlier round would count in this one.
        yield Fault("/round", "is required: this approval has had more than one round")
    if ballot.break_glass and ballot.choice is not Choice.APPROVED:
        yield Fault("/breakGlass", "goes with the decision approved only: one rejection ends an approval")
    if ballot.break_glass and blank(ballot.comment):
        yield Fault("/comment", "is required with breakGlass: say why nobody can wait")
    if ballot.choice is Choice.APPROVED:
        yield from value_faults(approval.inputs, ballot.inputs)
    elif ballot.inputs:
        yield Fault("/inputs", "goes with the decision approved only")


def cast(approval: Approval, ballot: Ballot, now: Instant, undo: Instant = 0) -> Approval:
    """`approval` with a checked `ballot` recorded, ended where that decides it, owing what it sets off.

    The decision's `answer` is still empty: the answer tells the state this returns. What it sets off waits for
    `undo` microseconds; breaking the glass, which cannot wait, sets it off at once.
    """
    inputs = _filled_in(ballot, proposed(approval.inputs))
    decision = Decision(
        decision_hash=ballot_hash(approval, ballot, approval.round, inputs),
        actor=ballot.actor,
        choice=ballot.choice,
        comment=ballot.comment,
        decided_at=now,
        round=approval.round,
        plan_hash=approval.plan_hash,
        via=ballot.via,
        client=ballot.client,
        correlation_id=ballot.correlation_id,
        answer="",
        message_id=ballot.message_id,
        groups=_groups_of(approval, ballot.grants),
        break_glass=ballot.break_glass,
        inputs=inputs,
        on_behalf_of=ballot.on_behalf_of,
        undo_until=now + undo if undo and not ballot.break_glass else 0,
    )
    return counted(evolve(approval, version=approval.version + 1), decision)


def counted(approval: Approval, decision: Decision) -> Approval:
    """`approval` in its own version with one more decision, owing what that sets off then.

    Where that is at once, what earlier decisions set off waits no longer: they can be taken back no more.
    """
    voted = evolve(approval, decisions=(*approval.decisions, decision))
    status = _status(voted, decision)
    if status.ended:
        ended = evolve(voted, status=status, ended_at=decision.decided_at, ended_by=decision.actor)
        owing_all = owing_callback(_owing_decision(ended, decision), decision.decision_hash)
    else:
        owing_all = _owing_decision(voted, decision)
    if not decision.undo_until:
        return let_go(owing_all)
    return _waiting(owing_all, len(approval.effects), decision)


def _waiting(approval: Approval, before: int, decision: Decision) -> Approval:
    """`approval` with all effects but the first `before` waiting with `decision`."""
    until, hash_ = decision.undo_until, decision.decision_hash
    new = (evolve(e, next_attempt_at=until, waits_with=hash_) for e in approval.effects[before:])
    return evolve(approval, effects=(*approval.effects[:before], *new))


def _status(counted: Approval, last: Decision) -> Status:
    if last.choice is Choice.REJECTED:
        return Status.REJECTED
    return Status.APPROVED if last.break_glass or reached(counted) else Status.PENDING


def _owing_decision(approval: Approval, decision: Decision) -> Approval:
    told = {
        "decision": decision.choice.value,
        "decisionHash": decision.decision_hash,
        "actor": decision.actor,
        "comment": decision.comment,
        "decidedAt": rfc3339(decision.decided_at),
        "via": decision.via.value,
        **({"breakGlass": True} if decision.break_glass else {}),
        **({"inputs": dict(decision.inputs)} if decision.inputs else {}),
        **({"onBehalfOf": decision.on_behalf_of} if decision.on_behalf_of else {}),
    }
    facts = {"status": approval.status.value, "round": approval.round, "approvals": progress(approval)}
    record = own_audit(
        approval,
        AuditName.OVERRIDDEN if decision.break_glass else AuditName.ACKNOWLEDGED,
        decision.decided_at,
        actor=decision.actor,
        correlation_id=decision.correlation_id,
        # Why the glass was broken is kept for as long as that it was.
        data={k: v for k, v in told.items() if k != "comment" or decision.break_glass} | facts,
    )
    notice = own_event(
        approval,
        "acknowledged",
        decision.decided_at,
        correlation_id=decision.correlation_id,
        facts={"decision": told, **facts, "approvals": progress(approval) | {"actors": _voters(approval)}},
    )
    return owing(approval, record, notice)


def _voters(approval: Approval) -> list[str]:
    """Who has decided, and for whom somebody has."""
    named = (name for decision in approval.decisions for name in (decision.actor, decision.on_behalf_of))
    return list(dict.fromkeys(filter(None, named)))


def expire(approval: Approval, now: Instant) -> Approval | None:
    """`approval` ended by its expiry, None where it is over already."""
    if approval.expires_at is None or not approval.overdue(now):
        return None
    ended = evolve(
        let_go(approval),
        version=approval.version + 1,
        status=Status.EXPIRED,
        ended_at=approval.expires_at,
        ended_by=NOTIFYD,
    )
    record = own_audit(
        ended,
        AuditName.EXPIRED,
        approval.expires_at,
        actor=NOTIFYD,
        correlation_id=approval.correlation_id,
        data={"round": ended.round},
    )
    told = owing_expiry_notice(owing(ended, record), approval.expires_at)
    return owing_callback(told, expiry_hash(ended))
