"""Taking a decision back while its effects wait. Pure."""

from __future__ import annotations

from attrs import evolve

from notifyd.approval.ballots import Canonical, counted
from notifyd.approval.effects import owing
from notifyd.approval.notices import own_audit
from notifyd.model import Approval, AuditName, Decision, EffectKind, Instant, ResumeStatus, Status
from notifyd.wire.codec import rfc3339


def undoable_by(approval: Approval, actor: str, now: Instant, canonical: Canonical) -> Decision | None:
    """The last decision of `actor` that can be taken back at `now`, None where there is none.

    Those that came after it are counted anew without it, so their effects have to wait, too. What was signed by a
    program is not taken back: the same request, sent again, would count.
    """
    for index, decision in reversed(list(enumerate(approval.decisions))):
        if canonical(decision.actor) != canonical(actor):
            continue
        waiting = all(one.decision_hash in approval.undoable for one in approval.decisions[index:])
        return decision if waiting and now < decision.undo_until and not decision.message_id else None
    return None


def take_back(approval: Approval, decision: Decision, now: Instant, *, correlation_id: str) -> Approval:
    """`approval` without `decision`, which `undoable_by` has answered, and as if it had never been made."""
    index = approval.decisions.index(decision)
    later = approval.decisions[index + 1 :]
    undone = {one.decision_hash for one in approval.decisions[index:]}
    version = approval.version + 1
    without = evolve(
        approval,
        version=version,
        status=Status.PENDING,
        decisions=approval.decisions[:index],
        ended_at=None,
        ended_by=None,
        resume=ResumeStatus.NONE,
        resume_delivery=None,
        effects=tuple(e for e in approval.effects if e.waits_with not in undone),
    )
    for one in later:
        # In the version of its own: its audit line and notice have their ids and their order by that.
        at_the_time = evolve(without, version=_version_of(approval, one))
        without = evolve(counted(at_the_time, one), version=version)
    record = own_audit(
        without,
        AuditName.TAKEN_BACK,
        now,
        actor=decision.actor,
        correlation_id=correlation_id,
        data={
            "decision": decision.choice.value,
            "decisionHash": decision.decision_hash,
            "decidedAt": rfc3339(decision.decided_at),
            "via": decision.via.value,
            "round": decision.round,
        },
    )
    return owing(without, record)


def _version_of(approval: Approval, decision: Decision) -> int:
    """The version of `approval` that `decision` made."""
    notices = (e for e in approval.effects if e.kind is EffectKind.NOTICE)
    version: int = next(e.data["version"] for e in notices if e.waits_with == decision.decision_hash)
    return version
