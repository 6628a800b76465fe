"""What a change of an approval owes: audit lines, notices, and, at its end, the callback."""

from __future__ import annotations

import hashlib
from typing import Final

from attrs import asdict, evolve

from notifyd.approval.notices import own_event, progress
from notifyd.model import (
    Approval,
    ApprovalKey,
    AuditName,
    AuditRecord,
    Effect,
    EffectKind,
    Event,
    Instant,
    Outcome,
    ResumeStatus,
    Status,
)
from notifyd.wire.codec import canonical, derived_id

_NOBODY: Final = ""
"""The actor in the identity of an expiry. No actor has an empty name."""


def decision_hash(key: ApprovalKey, round_: int, plan_hash: str, decision: str, actor: str) -> str:
    """Identity of a decision: hex SHA-256 over the JCS array the contract names."""
    parts = [key.tenant, key.run_id, key.approval_id, round_, plan_hash, decision, actor]
    return hashlib.sha256(canonical(parts)).hexdigest()


def expiry_hash(approval: Approval) -> str:
    """Identity of an expiry: that of a decision `expired` by nobody."""
    return decision_hash(
        approval.key, approval.round, approval.plan_hash, Status.EXPIRED.value, actor=_NOBODY
    )


def owing_callback(ended: Approval, decision: str) -> Approval:
    """`ended`, owing the callback that tells of its end; without one where its request named none.

    `decision` is the hash of the decision, or of the expiry, that ended it.
    """
    if ended.callback_url is None or ended.sealed_token is None:
        return ended
    delivery = derived_id("resume", ended.tenant, ended.run_id, ended.approval_id, decision)
    effect = Effect(delivery, EffectKind.RESUME, {"decisionHash": decision, "version": ended.version})
    return evolve(
        ended,
        resume=ResumeStatus.QUEUED,
        resume_delivery=delivery,
        effects=(*ended.effects, effect),
    )


def owing_expiry_notice(expired: Approval, at: Instant) -> Approval:
    """`expired`, owing the event by which rules tell people that it was over at `at`."""
    facts = {
        "status": expired.status.value,
        "round": expired.round,
        "approvals": progress(expired),
    }
    notice = own_event(expired, "expired", at, correlation_id=expired.correlation_id, facts=facts)
    return owing(expired, notice)


def owing(approval: Approval, *rows: AuditRecord | Event) -> Approval:
    """`approval`, owing these rows too."""
    return evolve(approval, effects=(*approval.effects, *map(_owed, rows)))


def _owed(row: AuditRecord | Event) -> Effect:
    if isinstance(row, AuditRecord):
        return Effect(row.id, EffectKind.AUDIT, asdict(row))
    return Effect(row.key, EffectKind.NOTICE, asdict(row))


def owed_row(effect: Effect) -> AuditRecord | Event:
    """The row that an audit or notice effect is made from."""
    if effect.kind is EffectKind.AUDIT:
        return AuditRecord(**{**effect.data, "name": AuditName(effect.data["name"])})
    return Event(**{**effect.data, "outcome": Outcome(effect.data["outcome"])})
