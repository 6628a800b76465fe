"""The effects of a change of an approval: audit lines, notices, and, at its end, the callback."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from attrs import asdict, evolve

from notifyd.approval.notices import NOTIFYD, own_audit, own_event
from notifyd.approval.quorum import progress
from notifyd.errors import Reason
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


def decision_hash(
    key: ApprovalKey, round_: int, plan_hash: str, decision: str, actor: str, *, more: Mapping[str, Any]
) -> str:
    """Identity of a decision: hex SHA-256 over the JCS array the contract names.

    `more` is what else makes it another decision. It stands at the end of the array where there is any.
    """
    parts = [key.tenant, key.run_id, key.approval_id, round_, plan_hash, decision, actor]
    return hashlib.sha256(canonical([*parts, more] if more else parts)).hexdigest()


def expiry_hash(approval: Approval) -> str:
    """Identity of an expiry: that of a decision `expired` by nobody."""
    return decision_hash(
        approval.key, approval.round, approval.plan_hash, Status.EXPIRED.value, actor=_NOBODY, more={}
    )


def owing_callback(ended: Approval, decision: str) -> Approval:
    """`ended`, owing to tell of its end: by the callback, where its request named one, and by the forwarders.

    `decision` is the hash of the decision, or of the expiry, that ended it.
    """
    delivery, told = _end_to_tell(ended, decision)
    if ended.callback_url is None or ended.sealed_token is None:
        return told
    return evolve(told, resume=ResumeStatus.QUEUED, resume_delivery=delivery)


def owing_forwards(ended: Approval) -> Approval:
    """`ended` by the one who asked, who needs no callback, owing to tell the forwarders."""
    status, actor = ended.status.value, ended.ended_by or _NOBODY
    return _end_to_tell(
        ended, decision_hash(ended.key, ended.round, ended.plan_hash, status, actor, more={})
    )[1]


def _end_to_tell(ended: Approval, decision: str) -> tuple[str, Approval]:
    delivery = derived_id("resume", ended.tenant, ended.run_id, ended.approval_id, decision)
    effect = Effect(delivery, EffectKind.RESUME, {"decisionHash": decision, "version": ended.version})
    return delivery, evolve(ended, effects=(*ended.effects, effect))


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


def let_go(approval: Approval, now: Instant | None = None) -> Approval:
    """`approval`, in the same version, with nothing left to be taken back of what is due by `now`.

    Without `now` that is all there is. A decision before one that has taken effect can be taken back no more, and
    waits no longer. What is let go is due at once.
    """
    marks = {e.waits_with for e in approval.effects if now is None or e.next_attempt_at <= now}
    final = [i for i, d in enumerate(approval.decisions) if d.decision_hash in marks]
    marks |= {d.decision_hash for d in approval.decisions[: max(final, default=0)]}
    freed = (
        evolve(e, waits_with="", next_attempt_at=0) if e.waits_with and e.waits_with in marks else e
        for e in approval.effects
    )
    return evolve(approval, effects=tuple(freed))


def within(approval: Approval, horizon: Instant) -> Approval:
    """`approval`, in the same version, with what is put off beyond `horizon` due at once.

    So far ahead it was put by a clock that has been set back since.
    """
    effects = (evolve(e, next_attempt_at=0) if e.next_attempt_at > horizon else e for e in approval.effects)
    return evolve(approval, effects=tuple(effects))


def hasten(approval: Approval) -> Approval:
    """`approval`, in the same version, with nothing left to be taken back: the next look lets go what waits."""
    return evolve(
        approval,
        effects=tuple(evolve(e, next_attempt_at=0) if e.waits_with else e for e in approval.effects),
    )


def put_off(approval: Approval, effect: Effect) -> Approval:
    """`approval` with a failed `effect` as it is to be tried again."""
    return evolve(approval.replace_effect(effect), version=approval.version + 1)


def bury(approval: Approval, effect: Effect, at: Instant) -> Approval:
    """`approval` with `effect` dead at `at`. Where that was its callback, it owes to tell so."""
    dead = put_off(approval, evolve(effect, dead_at=at))
    if effect.kind is not EffectKind.RESUME or approval.resume is ResumeStatus.NONE:
        return dead
    failed = evolve(dead, resume=ResumeStatus.FAILED)
    record = own_audit(
        failed,
        AuditName.RESUME_DEAD,
        at,
        actor=NOTIFYD,
        correlation_id=failed.correlation_id,
        data={"effectId": effect.id, "reason": Reason.MAX_ATTEMPTS.value, "fault": effect.fault},
    )
    facts = {
        "status": failed.status.value,
        "round": failed.round,
        "approvals": progress(failed),
        "resume": {"status": failed.resume.value, "reason": Reason.MAX_ATTEMPTS.value},
    }
    notice = own_event(failed, "resume_failed", at, correlation_id=failed.correlation_id, facts=facts)
    return owing(failed, record, notice)


def revive(approval: Approval, effect_id: str) -> Approval:
    """`approval` with a dead effect owed again, its tries at zero."""
    dead = next(one for one in approval.dead_effects if one.id == effect_id)
    revived = put_off(approval, Effect(dead.id, dead.kind, dead.data))
    callback = dead.kind is EffectKind.RESUME and approval.resume is not ResumeStatus.NONE
    return evolve(revived, resume=ResumeStatus.QUEUED) if callback else revived


def owed_row(effect: Effect) -> AuditRecord | Event:
    """The row that an audit or notice effect is made from."""
    if effect.kind is EffectKind.AUDIT:
        return AuditRecord(**{**effect.data, "name": AuditName(effect.data["name"])})
    return Event(**{**effect.data, "outcome": Outcome(effect.data["outcome"])})
