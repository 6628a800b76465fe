"""What the machines that take arriving events share."""

from __future__ import annotations

from typing import Any, Final

from notifyd.codec import derived_id
from notifyd.model import Applied, ApprovalKey, AuditName, AuditRecord, Event, Outcome
from notifyd.store import Advance, Subject

_SILENT: Final = frozenset({Outcome.EXPIRED, Outcome.RECORDED})
"""Outcomes that people are not told of."""


def applied_before(applied: tuple[Applied, ...], event: Event) -> Applied | None:
    """What this event has done to this subject already."""
    return next((one for one in applied if one.event_key == event.key), None)


def answer(done: Applied, audit: tuple[AuditRecord, ...], subject: Subject | None = None) -> Advance:
    """The advance for what an event has done: but for the subject, the same each time it is asked for."""
    notify = done.outcome not in _SILENT
    return Advance(subject, done.outcome, notify, done.version, done.round, audit)


def recorded(event: Event, version: int, round_: int, name: AuditName) -> Advance:
    audit = arrival_audit(event, name, outcome=Outcome.RECORDED, round=round_)
    return answer(Applied(event.key, version, round_, Outcome.RECORDED), (audit,))


def approval_key_of(event: Event) -> ApprovalKey:
    key = event.approval_key
    if key is None:
        raise ValueError("a pack event names a run and an approval")
    return key


def arrival_audit(event: Event, name: AuditName, **data: Any) -> AuditRecord:
    return AuditRecord(
        id=derived_id("audit", event.tenant, event.key, name.value),
        tenant=event.tenant,
        name=name,
        at=event.received_at,
        actor=f"client:{event.client}",
        correlation_id=event.correlation_id,
        run_id=event.run_id,
        approval_id=event.approval_id,
        data={"eventId": event.event_id, **data},
    )
