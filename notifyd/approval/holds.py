"""Hold and Released events: a policy's incident, ordered by `occurredAt`."""

from __future__ import annotations

from attrs import evolve

from notifyd.approval.notices import over
from notifyd.approval.rounds import answer, applied_before, approval_key_of, arrival_audit, recorded
from notifyd.model import Applied, AuditName, AuditRecord, Event, Incident, Outcome
from notifyd.store import Advance


def on_hold(stored: Incident | None, event: Event, policy_id: str) -> Advance:
    """Open an incident, unless it is open already or a later event has spoken."""
    return _on_policy(stored, event, policy_id, opens=True)


def on_released(stored: Incident | None, event: Event, policy_id: str) -> Advance:
    """Close an incident. One never opened is recorded as closed, so that a late Hold stays silent."""
    return _on_policy(stored, event, policy_id, opens=False)


def _on_policy(stored: Incident | None, event: Event, policy_id: str, *, opens: bool) -> Advance:
    name = AuditName.HOLD if opens else AuditName.RELEASED
    done = applied_before(stored.applied if stored else (), event)
    # People are told of a release over what the hold said: it need not say it again.
    body = event.body if opens or stored is None else over(stored.request, event.body)
    if done is not None:
        return answer(done, _audit(event, name, done, policy_id), body=body)
    if stored is not None and event.occurred_at <= stored.occurred_at:
        return recorded(event, stored.version, 0, name)
    version = stored.version + 1 if stored else 1
    if stored is not None and stored.open == opens:
        # Nothing new, but the latest word: what comes late from before it must not undo it.
        later = evolve(stored, version=version, occurred_at=event.occurred_at)
        return evolve(recorded(event, version, 0, name), subject=later)
    outcome = Outcome.OPENED if opens else Outcome.ENDED
    done = Applied(event.key, version, 0, outcome, event.occurred_at)
    incident = _moved(stored, evolve(event, body=body), policy_id, done)
    return answer(done, _audit(event, name, done, policy_id), incident, body=body)


def _moved(stored: Incident | None, event: Event, policy_id: str, done: Applied) -> Incident:
    key, opens = approval_key_of(event), done.outcome is Outcome.OPENED
    return Incident(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        policy_id=policy_id,
        version=done.version,
        open=opens,
        occurred_at=event.occurred_at,
        opened_at=event.received_at if opens else stored.opened_at if stored else None,
        closed_at=None if opens else event.received_at,
        request=event.body,
        applied=(*(stored.applied if stored else ()), done),
    )


def _audit(event: Event, name: AuditName, done: Applied, policy_id: str) -> tuple[AuditRecord, ...]:
    return (arrival_audit(event, name, outcome=done.outcome, policy=policy_id),)
