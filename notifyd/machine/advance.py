"""What the machines that take arriving events share."""

from __future__ import annotations

from typing import Any

from notifyd.codec import derived_id
from notifyd.model import Applied, ApprovalKey, AuditName, AuditRecord, Event, Outcome
from notifyd.store import Advance


def applied_before(applied: tuple[Applied, ...], event: Event) -> Advance | None:
    """The answer for an event that has changed this subject already: the same, and no change."""
    for one in applied:
        if one.event_key == event.key:
            notify = one.outcome is not Outcome.EXPIRED
            return Advance(None, one.outcome, notify=notify, version=one.version, round=one.round)
    return None


def recorded(event: Event, version: int, round_: int, name: AuditName) -> Advance:
    audit = arrival_audit(event, name, outcome=Outcome.RECORDED, round=round_)
    return Advance(None, Outcome.RECORDED, notify=False, version=version, round=round_, audit=(audit,))


def approval_key_of(event: Event) -> ApprovalKey:
    key = event.approval_key
    if key is None:
        raise ValueError("a pack event names a run and an approval")
    return key


def arrival_audit(event: Event, name: AuditName, **data: Any) -> AuditRecord:
    return AuditRecord(
        id=derived_id("audit", event.tenant, event.key, name),
        tenant=event.tenant,
        name=name,
        at=event.received_at,
        actor=f"client:{event.client}",
        correlation_id=event.correlation_id,
        run_id=event.run_id,
        approval_id=event.approval_id,
        data={"eventId": event.event_id, **data},
    )
