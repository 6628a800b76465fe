"""Records for the store's tests: each a plain default, changed by keyword."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from notifyd.errors import Reason
from notifyd.model import (
    SECOND,
    Approval,
    ApprovalKey,
    Attempt,
    AttemptOutcome,
    AuditName,
    AuditRecord,
    Choice,
    Decision,
    Delivery,
    Effect,
    EffectKind,
    Event,
    Incident,
    IncidentKey,
    Instant,
    Outcome,
    OwnDeputy,
    PlanEntry,
    Silence,
    State,
    Status,
    Via,
)
from notifyd.store import Advance, Append, Appended, AttemptRecord, Planned, Store, append_as_is

NOW: Instant = 1_800_000_000 * SECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NODE = "node-a"
TENANT = "acme"


class TurnableClock:
    """A clock that a test sets."""

    def __init__(self, now: Instant = NOW) -> None:
        self.now = now

    def __call__(self) -> Instant:
        return self.now


def event(key: str = "e1", **changes: Any) -> Event:
    given = Event(
        tenant=TENANT,
        key=key,
        event_id=f"sender-{key}",
        kind="pack.approval",
        action="requested",
        occurred_at=NOW - SECOND,
        received_at=NOW,
        body='{"kind":"pack.approval","title":"Grüezi"}',
        content_id="k1:00ff",
        client="task-runner",
        correlation_id=f"corr-{key}",
        run_id="run-1",
        approval_id="deploy",
    )
    return evolve(given, **changes)


def nobody(owner: str, client: str) -> bool:
    """No client lets another act on its approvals."""
    return False


def anybody(owner: str, client: str) -> bool:
    """Every client lets every other act on its approvals."""
    return True


def approval(**changes: Any) -> Approval:
    given = Approval(
        tenant=TENANT,
        run_id="run-1",
        approval_id="deploy",
        version=1,
        round=1,
        status=Status.PENDING,
        plan_hash="sha256:00",
        required_grants=("Packs.Approve",),
        required_approvals=1,
        requested_by="ci@acme.example",
        client="task-runner",
        requested_at=NOW - SECOND,
        created_at=NOW,
        expires_at=NOW + HOUR,
        callback_url="https://runner.acme.example/resume",
        sealed_token="sealed",
        correlation_id="corr-1",
        request="{}",
    )
    return evolve(given, **changes)


def decision(actor: str = "alice@acme.example", **changes: Any) -> Decision:
    given = Decision(
        decision_hash=f"hash-{actor}-{changes.get('round', 1)}",
        actor=actor,
        choice=Choice.APPROVED,
        comment="Grüezi",
        decided_at=NOW,
        round=1,
        plan_hash="sha256:00",
        via=Via.CLIENT,
        client="task-runner",
        correlation_id="corr-1",
        answer='{"status": "pending"}',
        message_id="msg-1",
    )
    return evolve(given, **changes)


def effect(effect_id: str) -> Effect:
    return Effect(effect_id, EffectKind.NOTICE, {"action": "acknowledged", "count": 2})


def incident(**changes: Any) -> Incident:
    given = Incident(
        tenant=TENANT,
        run_id="run-1",
        approval_id="deploy",
        policy_id="prod",
        version=1,
        open=True,
        occurred_at=NOW,
        opened_at=NOW,
        closed_at=None,
        request="{}",
    )
    return evolve(given, **changes)


def plan_entry(delivery_id: str = "d1", channel: str = "slack") -> PlanEntry:
    return PlanEntry(delivery_id, "approvals", channel, "slack", None, False, "pack-approval", "de-CH")


def delivery(delivery_id: str = "d1", **changes: Any) -> Delivery:
    """An open delivery, due now and not leased."""
    given = Delivery(
        id=delivery_id,
        tenant=TENANT,
        event_key="e1",
        kind="pack.approval",
        action="requested",
        rule="approvals",
        channel="slack",
        channel_type="slack",
        lane="slack",
        recipient=None,
        message='{"title":"Bitte entscheiden"}',
        sealed=False,
        correlation_id="corr-1",
        created_at=NOW,
        next_attempt_at=NOW,
        deadline=NOW + 24 * HOUR,
        run_id="run-1",
        approval_id="deploy",
        seq=1,
    )
    return evolve(given, **changes)


def leased(delivery_id: str = "d1", **changes: Any) -> Delivery:
    """An open delivery that its planner dispatches from memory."""
    lease = {"lease_owner": NODE, "lease_until": NOW + MINUTE, "fencing_token": 1}
    return delivery(delivery_id, **{**lease, **changes})


def attempt(at: Instant = NOW, **changes: Any) -> Attempt:
    given = Attempt(at, 12.5, AttemptOutcome.TRANSIENT, Reason.SERVER_ERROR, 503, "answered 503", "busy")
    return evolve(given, **changes)


def sent(at: Instant = NOW) -> Attempt:
    return Attempt(at, 8.25, AttemptOutcome.SENT, status=200)


def ended(given: Delivery, state: State = State.SENT, **changes: Any) -> AttemptRecord:
    """The record of an attempt that ended the delivery."""
    reason = None if state is State.SENT else Reason.REJECTED
    last = sent() if state is State.SENT else attempt(outcome=AttemptOutcome.PERMANENT, reason=reason)
    record = AttemptRecord(given, last, state, given.next_attempt_at, NOW, reason)
    return evolve(record, **changes)


def retried(given: Delivery, next_attempt_at: Instant, **changes: Any) -> AttemptRecord:
    """The record of an attempt that will be repeated."""
    record = AttemptRecord(given, attempt(), State.PENDING, next_attempt_at, None, Reason.SERVER_ERROR)
    return evolve(record, **changes)


def silence(id_: str = "s1", **changes: Any) -> Silence:
    given = Silence(
        tenant=TENANT,
        id=id_,
        predicate="true",
        reason="maintenance",
        author="alice@acme.example",
        created_at=NOW,
        starts_at=NOW,
        ends_at=NOW + HOUR,
        approvals=True,
    )
    return evolve(given, **changes)


def own_deputy(id_: str = "p1", **changes: Any) -> OwnDeputy:
    given = OwnDeputy(
        tenant=TENANT,
        id=id_,
        person="alice@acme.example",
        deputy="bruno@acme.example",
        first="2026-12-20",
        last="2027-01-06",
        proved=True,
        created_at=NOW,
        over_at=NOW + HOUR,
    )
    return evolve(given, **changes)


def audit_record(record_id: str = "a1", **changes: Any) -> AuditRecord:
    given = AuditRecord(
        id=record_id,
        tenant=TENANT,
        name=AuditName.REQUESTED,
        at=NOW,
        actor="ci@acme.example",
        correlation_id="corr-1",
        run_id="run-1",
        approval_id="deploy",
        data={"channel": "slack", "tries": 2},
    )
    return evolve(given, **changes)


def append_of(given: Event, advance: Callable[[Any], Advance] | None = None) -> Append:
    if advance is None:
        return append_as_is(given)
    return Append(given, given.approval_key, advance)


def opening(given: Approval) -> Callable[[Any], Advance]:
    """The advance of the first event of `given`."""
    return lambda _: Advance(given, Outcome.OPENED, True, given.version, given.round)


async def open_approval(store: Store, given: Approval) -> Approval:
    """Store an approval by an event of its own."""
    key = f"open-{given.tenant}-{given.run_id}-{given.approval_id}"
    opened = event(key, tenant=given.tenant, run_id=given.run_id, approval_id=given.approval_id)
    await store.append(append_of(opened, opening(given)))
    return given


async def open_incident(store: Store, given: Incident, key: str = "e1") -> Appended:
    subject = IncidentKey(given.tenant, given.run_id, given.approval_id, given.policy_id)
    return await store.append(
        Append(event(key), subject, lambda _: Advance(given, Outcome.OPENED, True, given.version))
    )


async def insert(store: Store, *given: Delivery) -> None:
    await store.insert_deliveries(None, given)


async def get(store: Store, given: Delivery) -> Delivery:
    found = await store.delivery(given.tenant, given.id)
    assert found is not None
    return found


async def find_approval(store: Store, key: ApprovalKey | None = None) -> Approval:
    found = await store.approval(key or approval().key)
    assert found is not None
    return found


def planned(given: Event, *deliveries: Delivery) -> Planned:
    return Planned(given, tuple(plan_entry(d.id, d.channel) for d in deliveries), deliveries)
