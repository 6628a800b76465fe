"""Decisions and the timer: who may decide what, in which order it is checked, and what it sets off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from attrs import asdict, evolve, frozen

from notifyd.approval.notices import NOTIFYD, own_audit, own_event, progress
from notifyd.errors import (
    AlreadyDecidedError,
    AlreadyVotedError,
    ExpiredError,
    GrantMissingError,
    PlanChangedError,
    SelfApprovalError,
)
from notifyd.model import (
    Approval,
    ApprovalKey,
    AuditName,
    AuditRecord,
    Choice,
    Decision,
    Effect,
    EffectKind,
    Event,
    Instant,
    Outcome,
    ResumeStatus,
    Status,
    Via,
)
from notifyd.wire.codec import canonical, derived_id, rfc3339

Canonical: TypeAlias = Callable[[str], str]
"""Gives the one name of an actor for any of its names; see `notifyd.security.actors`."""


@frozen
class Ballot:
    """A decision as it comes in. `actor` is canonical; `round` is the link's, None where no link carries it.

    `client` is the machine client or token that carried it, "" for a link.
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

    @property
    def key(self) -> ApprovalKey:
        return ApprovalKey(self.tenant, self.run_id, self.approval_id)


def decision_hash(approval: Approval, ballot: Ballot, round_: int) -> str:
    """Identity of a decision: hex SHA-256 over the JCS array the contract names."""
    key = approval.key
    parts = [
        key.tenant,
        key.run_id,
        key.approval_id,
        round_,
        ballot.plan_hash,
        ballot.choice.value,
        ballot.actor,
    ]
    return hashlib.sha256(canonical(parts)).hexdigest()


def earlier_answer(approval: Approval, ballot: Ballot) -> Decision | None:
    """The recorded decision that `ballot` repeats, whatever has happened since.

    In the present round where the plan is the present one (or the link names a round), else in any round of
    that plan: a plan that comes back in a later round asks anew.
    """
    if ballot.round is not None:
        rounds = [ballot.round]
    elif ballot.plan_hash == approval.plan_hash:
        rounds = [approval.round]
    else:
        rounds = sorted({d.round for d in approval.decisions}, reverse=True)
    wanted = {decision_hash(approval, ballot, r) for r in rounds}
    return next((d for d in approval.decisions if d.decision_hash in wanted), None)


def check_grants(approval: Approval, grants: frozenset[str]) -> None:
    """Raises `GrantMissingError`, naming what is missing."""
    missing = [g for g in approval.required_grants if g not in grants]
    if missing:
        raise GrantMissingError(f"this approval also requires the grants {', '.join(missing)}")


def is_requester(approval: Approval, actor: str, canonical: Canonical) -> bool:
    """Has `actor` asked for it? By today's names: an alias may have become known since."""
    return canonical(approval.requested_by) == canonical(actor)


def has_decided(approval: Approval, actor: str, canonical: Canonical) -> bool:
    """Has `actor` decided in this round, under any of today's names?"""
    return canonical(actor) in {canonical(decision.actor) for decision in approval.ballots}


def check_ballot(
    approval: Approval, ballot: Ballot, now: Instant, *, allow_self: bool, canonical: Canonical
) -> None:
    """What stands against recording `ballot`, in the contract's order, for one that is not a repeat.

    `canonical` is by today's configuration. Raises `AlreadyDecidedError`, `ExpiredError`, `PlanChangedError`,
    `SelfApprovalError` or `AlreadyVotedError`.
    """
    if approval.status is Status.EXPIRED or approval.overdue(now):
        raise ExpiredError("this approval has expired; a rerun needs a new approvalId")
    if approval.status.ended:
        raise AlreadyDecidedError(f"this approval has ended as {approval.status.value}")
    stale_link = ballot.round is not None and ballot.round != approval.round
    if stale_link or ballot.plan_hash != approval.plan_hash:
        raise PlanChangedError("the plan has changed since; look at the present one and decide on that")
    if not allow_self and is_requester(approval, ballot.actor, canonical):
        raise SelfApprovalError("who asked for an approval does not decide it")
    if has_decided(approval, ballot.actor, canonical):
        raise AlreadyVotedError("this actor has already decided, otherwise or under another name")


def cast(approval: Approval, ballot: Ballot, now: Instant) -> Approval:
    """`approval` with a checked `ballot` recorded, ended where that decides it, owing what it sets off.

    The decision's `answer` is still empty: the answer tells the state this returns.
    """
    decision = Decision(
        decision_hash=decision_hash(approval, ballot, approval.round),
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
    )
    counted = evolve(approval, version=approval.version + 1, decisions=(*approval.decisions, decision))
    if ballot.choice is Choice.REJECTED:
        counted = _end(counted, Status.REJECTED, decision)
    elif counted.received >= counted.required_approvals:
        counted = _end(counted, Status.APPROVED, decision)
    return evolve(counted, effects=(*counted.effects, *_decision_effects(counted, decision)))


def _end(approval: Approval, status: Status, decision: Decision) -> Approval:
    ended = evolve(approval, status=status, ended_at=decision.decided_at, ended_by=decision.actor)
    if approval.callback_url is None or approval.sealed_token is None:
        return ended
    delivery = derived_id(
        "resume", approval.tenant, approval.run_id, approval.approval_id, decision.decision_hash
    )
    return evolve(ended, resume=ResumeStatus.QUEUED, resume_delivery=delivery)


def _decision_effects(approval: Approval, decision: Decision) -> tuple[Effect, ...]:
    told = {
        "decision": decision.choice.value,
        "decisionHash": decision.decision_hash,
        "actor": decision.actor,
        "comment": decision.comment,
        "decidedAt": rfc3339(decision.decided_at),
        "via": decision.via.value,
    }
    facts = {"status": approval.status.value, "round": approval.round, "approvals": progress(approval)}
    record = own_audit(
        approval,
        AuditName.ACKNOWLEDGED,
        decision.decided_at,
        actor=decision.actor,
        correlation_id=decision.correlation_id,
        data={k: v for k, v in told.items() if k != "comment"} | facts,
    )
    notice = own_event(
        approval,
        "acknowledged",
        decision.decided_at,
        correlation_id=decision.correlation_id,
        facts={"decision": told, **facts},
    )
    effects = [_owed(EffectKind.AUDIT, record.id, record), _owed(EffectKind.NOTICE, notice.key, notice)]
    if approval.status.ended and approval.resume_delivery is not None:
        resume = {"decisionHash": decision.decision_hash, "version": approval.version}
        effects.append(Effect(approval.resume_delivery, EffectKind.RESUME, resume))
    return tuple(effects)


def expire(approval: Approval, now: Instant) -> Approval | None:
    """`approval` ended by its timer, None where there is nothing to end."""
    if approval.expires_at is None or not approval.overdue(now):
        return None
    ended = evolve(
        approval,
        version=approval.version + 1,
        status=Status.EXPIRED,
        ended_at=approval.expires_at,
        ended_by=NOTIFYD,
    )
    at, correlation_id = approval.expires_at, approval.correlation_id
    record = own_audit(
        ended,
        AuditName.EXPIRED,
        at,
        actor=NOTIFYD,
        correlation_id=correlation_id,
        data={"round": ended.round},
    )
    facts = {"status": ended.status.value, "round": ended.round, "approvals": progress(ended)}
    notice = own_event(ended, "expired", at, correlation_id=correlation_id, facts=facts)
    owed = (_owed(EffectKind.AUDIT, record.id, record), _owed(EffectKind.NOTICE, notice.key, notice))
    return evolve(ended, effects=(*ended.effects, *owed))


def _owed(kind: EffectKind, effect_id: str, row: AuditRecord | Event) -> Effect:
    return Effect(effect_id, kind, asdict(row))


def owed_row(effect: Effect) -> AuditRecord | Event:
    """The row that an audit or notice effect is made from."""
    if effect.kind is EffectKind.AUDIT:
        return AuditRecord(**{**effect.data, "name": AuditName(effect.data["name"])})
    return Event(**{**effect.data, "outcome": Outcome(effect.data["outcome"])})
