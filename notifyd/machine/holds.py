"""Hold and Released events: a policy's incident, ordered by `occurredAt`."""

from __future__ import annotations

from notifyd.machine.advance import applied_before, approval_key_of, arrival_audit, recorded
from notifyd.model import Applied, AuditName, Event, Incident, Outcome
from notifyd.store import Advance


def on_hold(stored: Incident | None, event: Event, policy_id: str) -> Advance:
    """Open an incident, unless it is open already or a later event has spoken."""
    return _on_policy(stored, event, policy_id, opens=True)


def on_released(stored: Incident | None, event: Event, policy_id: str) -> Advance:
    """Close an incident. One never opened is recorded as closed, so that a late Hold stays silent."""
    return _on_policy(stored, event, policy_id, opens=False)


def _on_policy(stored: Incident | None, event: Event, policy_id: str, *, opens: bool) -> Advance:
    again = applied_before(stored.applied if stored else (), event)
    if again is not None:
        return again
    name = AuditName.HOLD if opens else AuditName.RELEASED
    overtaken = stored is not None and event.occurred_at <= stored.occurred_at
    if stored is not None and (overtaken or stored.open == opens):
        return recorded(event, stored.version, 0, name)
    version = stored.version + 1 if stored else 1
    outcome = Outcome.OPENED if opens else Outcome.ENDED
    key = approval_key_of(event)
    incident = Incident(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        policy_id=policy_id,
        version=version,
        open=opens,
        occurred_at=event.occurred_at,
        opened_at=event.received_at if opens else stored.opened_at if stored else None,
        closed_at=None if opens else event.received_at,
        request=event.body,
        applied=(*(stored.applied if stored else ()), Applied(event.key, version, 0, outcome)),
    )
    audit = arrival_audit(event, name, outcome=outcome, policy=policy_id)
    return Advance(incident, outcome, notify=True, version=version, audit=(audit,))
