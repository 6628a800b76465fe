"""Hold and Released events: a policy's incident, ordered by `occurredAt`."""

from __future__ import annotations

from attrs import evolve

from notifyd.approval.notices import over
from notifyd.approval.rounds import approval_key_of, arrival_audit, moved, recorded
from notifyd.model import AuditName, Event, Incident, Outcome
from notifyd.store import Advance


def on_hold(stored: Incident | None, event: Event, policy_id: str) -> Advance:
    """Open an incident, unless it is open already or a later event has decided it."""
    return _on_policy(stored, event, policy_id, opens=True)


def on_released(stored: Incident | None, event: Event, policy_id: str) -> Advance:
    """Close an incident. One never opened is recorded as closed, so that a late Hold stays silent."""
    return _on_policy(stored, event, policy_id, opens=False)


def _on_policy(stored: Incident | None, event: Event, policy_id: str, *, opens: bool) -> Advance:
    name = AuditName.HOLD if opens else AuditName.RELEASED
    if stored is not None and event.occurred_at <= stored.occurred_at:
        return recorded(event, stored.version, 0, name, policy=policy_id)
    version = stored.version + 1 if stored else 1
    if stored is not None and stored.open == opens:
        # Record the repeat's time, so that an event from before it that comes late cannot undo it.
        later = evolve(stored, version=version, occurred_at=event.occurred_at)
        return evolve(recorded(event, version, 0, name, policy=policy_id), subject=later)
    # A release is told with the hold's members below its own, so it need not repeat them.
    body = event.body if opens or stored is None else over(stored.request, event.body)
    outcome = Outcome.OPENED if opens else Outcome.ENDED
    audit = arrival_audit(event, name, outcome=outcome, policy=policy_id)
    return moved(_moved(stored, event, policy_id, version, body, opens=opens), outcome, (audit,), body=body)


def _moved(
    stored: Incident | None, event: Event, policy_id: str, version: int, body: str, *, opens: bool
) -> Incident:
    key = approval_key_of(event)
    return Incident(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        policy_id=policy_id,
        version=version,
        open=opens,
        occurred_at=event.occurred_at,
        opened_at=event.received_at if opens else stored.opened_at if stored else None,
        closed_at=None if opens else event.received_at,
        request=body,
    )
