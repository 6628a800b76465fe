"""What any store lets go of by age, and what it keeps however old it is."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from notifyd.model import Approval, AuditName, Incident, Outcome, ResumeStatus, State, Status
from notifyd.store import (
    Advance,
    Aged,
    Append,
    ApprovalFilter,
    AuditFilter,
    CollectionName,
    DeliveryFilter,
    Job,
    LegalHold,
    Page,
    Planned,
    Store,
)
from tests.store.conftest import Reopen
from tests.store.makers import (
    HOUR,
    MINUTE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    delivery,
    effect,
    ended,
    event,
    find_approval,
    incident,
    insert,
    leased,
    open_approval,
    open_incident,
    planned,
    retried,
)

LATER = NOW + HOUR
EVENTS, APPROVALS, INCIDENTS, DELIVERIES, AUDIT = CollectionName
HELD = '{"labels":{"case":"4711","tier":"gold"},"title":"x"}'


async def purge(
    store: Store, collection: CollectionName, before: int = LATER, hold: str = "", **options: Any
) -> int:
    """Remove all that is over, two rows a call; answers how many."""
    removed, after = 0, ""
    for _ in range(50):
        done = await store.purge(Aged(collection, before, LegalHold.parse(hold)), 2, after, **options)
        removed += done.removed
        if done.after is None:
            return removed
        after = done.after
    raise AssertionError("the purge comes to no end")


async def finished(store: Store, key: str = "e1", **changes: Any) -> None:
    """An event whose planning is finished."""
    given = event(key, **changes)
    await store.append(append_of(given))
    await store.fix_plans([Planned(given, (), ())])


async def finish_all(store: Store) -> None:
    for one in await store.claim_unplanned("node-b", NOW + 2 * HOUR, NOW + 3 * HOUR, 100):
        await store.fix_plans([Planned(one, (), ())])


def over(**changes: Any) -> Approval:
    return approval(**{"status": Status.APPROVED, "ended_at": NOW, "ended_by": "alice", **changes})


def released(**changes: Any) -> Incident:
    return incident(**{"open": False, "closed_at": NOW, **changes})


async def is_known(store: Store, key: str) -> bool:
    """Would this event be a duplicate?"""
    return not (await store.append(append_of(event(key, notify=False)))).fresh


# --- events ------------------------------------------------------------------------------------------------


async def test_an_event_and_its_plan_go_once_both_its_times_are_past(store: Store) -> None:
    await finished(store, "old")
    await finished(store, "came late", received_at=LATER)
    await finished(store, "is ahead", occurred_at=LATER)
    assert await purge(store, EVENTS) == 1
    assert not await is_known(store, "old")
    assert await is_known(store, "came late")
    assert await is_known(store, "is ahead")


async def test_an_event_whose_planning_is_not_finished_stays(store: Store) -> None:
    await store.append(append_of(event()))
    assert await purge(store, EVENTS) == 0
    await store.fix_plans([Planned(event(), (), ())])
    assert await purge(store, EVENTS) == 1


async def test_an_event_that_is_only_recorded_goes(store: Store) -> None:
    advance = Advance(None, Outcome.RECORDED, notify=False)
    await store.append(Append(event(), None, lambda _: advance))
    assert await purge(store, EVENTS) == 1


async def test_the_events_of_a_pending_approval_stay_and_go_after_its_end(store: Store) -> None:
    given = await open_approval(store, approval())
    await finish_all(store)
    assert await purge(store, EVENTS) == 0
    ended_now = evolve(given, version=2, status=Status.REJECTED, ended_at=NOW, effects=(effect("x"),))
    assert await store.replace_approval(ended_now)
    assert await purge(store, EVENTS) == 0, "it owes an effect"
    await store.complete_effect(given.key, "x")
    assert await purge(store, EVENTS) == 1


async def test_an_event_that_was_removed_can_come_again_with_its_plan_and_deliveries(store: Store) -> None:
    row = delivery()
    await store.append(append_of(event()))
    await store.fix_plans([planned(event(), row)])
    await store.record(ended(leased()))
    assert await purge(store, EVENTS) == 1
    again = await store.append(append_of(event()))
    assert (again.fresh, again.event.plan) == (True, None)


# --- approvals and incidents -------------------------------------------------------------------------------


async def test_an_approval_goes_by_the_time_of_its_end_and_a_pending_one_never(store: Store) -> None:
    await open_approval(store, over())
    await open_approval(store, over(approval_id="later", ended_at=LATER))
    await open_approval(store, approval(approval_id="pending", requested_at=1, created_at=1, expires_at=None))
    assert await purge(store, APPROVALS) == 1
    left, _ = await store.approvals(TENANT, ApprovalFilter(), Page())
    assert {one.approval_id for one in left} == {"later", "pending"}


async def test_an_approval_that_owes_effects_or_waits_for_its_callback_stays(store: Store) -> None:
    await open_approval(store, over(approval_id="owing", effects=(effect("x"),)))
    await open_approval(store, over(approval_id="waiting", resume=ResumeStatus.QUEUED))
    await open_approval(store, over(approval_id="told", resume=ResumeStatus.DELIVERED))
    assert await purge(store, APPROVALS) == 1
    left, _ = await store.approvals(TENANT, ApprovalFilter(), Page())
    assert {one.approval_id for one in left} == {"owing", "waiting"}


async def test_an_incident_goes_once_it_is_released_and_no_later_event_spoke_of_it(store: Store) -> None:
    await open_incident(store, incident(policy_id="open"), "e1")
    await open_incident(store, released(policy_id="over"), "e2")
    await open_incident(store, released(policy_id="late word", occurred_at=LATER), "e3")
    assert await purge(store, INCIDENTS) == 1
    assert await store.count(INCIDENTS) == 2


# --- deliveries and audit ----------------------------------------------------------------------------------


async def test_deliveries_go_by_their_end_and_open_ones_never(store: Store) -> None:
    rows = {state: leased(state.value) for state in (State.SENT, State.DEAD)}
    await insert(store, *rows.values(), leased("again"), delivery("open"), leased("later"))
    for state, row in rows.items():
        await store.record(ended(row, state))
    await store.record(retried(leased("again"), NOW))
    await store.record(ended(leased("later"), ended_at=LATER))
    assert await purge(store, DELIVERIES) == 2
    left, _ = await store.deliveries(TENANT, DeliveryFilter(), Page())
    assert {one.id for one in left} == {"again", "open", "later"}
    assert await store.dead_letters() == {}


async def test_a_folded_delivery_goes_and_the_digest_that_waits_stays(store: Store) -> None:
    held = delivery("held", window="w", window_start=NOW, next_attempt_at=NOW + MINUTE)
    await insert(store, held)
    (window,) = await store.due_windows(NOW + MINUTE, 10)
    await store.fold(window, delivery("digest"), None)
    assert await purge(store, DELIVERIES, NOW + 2 * HOUR) == 1
    assert await store.delivery(TENANT, "digest") is not None


async def test_a_held_delivery_stays(store: Store) -> None:
    await insert(store, delivery(window="w", window_start=NOW, next_attempt_at=NOW + MINUTE))
    assert await purge(store, DELIVERIES) == 0


async def test_a_delivery_stays_while_making_its_row_again_is_due(store: Store) -> None:
    await store.append(append_of(event()))
    await insert(store, leased("d1"), leased("callback", event_key=""))
    await open_approval(store, over(effects=(effect("callback"),)))
    for delivery_id in ("d1", "callback"):
        given = leased(delivery_id) if delivery_id == "d1" else leased(delivery_id, event_key="")
        await store.record(ended(given))
    assert await purge(store, DELIVERIES) == 0
    await store.complete_effect(approval().key, "callback")
    assert await purge(store, DELIVERIES) == 1, "the event of the other is not planned yet"
    await finish_all(store)
    assert await purge(store, DELIVERIES) == 1


async def test_a_dead_delivery_that_was_taken_up_again_stays(store: Store) -> None:
    await insert(store, leased())
    await store.record(ended(leased(), State.DEAD))
    await store.revive(TENANT, "d1", NOW, NOW + HOUR)
    assert await purge(store, DELIVERIES) == 0


async def test_a_removed_delivery_can_be_inserted_again(store: Store) -> None:
    await insert(store, leased())
    await store.record(ended(leased()))
    assert await purge(store, DELIVERIES) == 1
    assert await store.insert_deliveries(None, [delivery(message="{}")]) == {"d1"}
    found = await store.delivery(TENANT, "d1")
    assert found is not None
    assert (found.state, found.message) == (State.PENDING, "{}")


async def test_audit_records_go_by_their_time(store: Store) -> None:
    reloaded = audit_record("old too", tenant="", name=AuditName.CONFIG_RELOADED, run_id=None)
    await store.write_audit([audit_record("old"), audit_record("later", at=LATER), reloaded])
    assert await purge(store, AUDIT) == 2
    left, _ = await store.audit(TENANT, AuditFilter(), Page())
    assert [one.id for one in left] == ["later"]


# --- legal hold --------------------------------------------------------------------------------------------


async def case(store: Store, run_id: str, request: str, *, by_incident: bool = False) -> None:
    """One of everything about one approval, all of it over."""
    about = {"run_id": run_id}
    await open_approval(store, over(request="{}" if by_incident else request, **about))
    policy = released(request=request if by_incident else "{}", **about)
    opened = Advance(policy, Outcome.OPENED, notify=True, version=1)
    await store.append(Append(event(f"hold-{run_id}", **about), policy.key, lambda _: opened))
    row = leased(f"d-{run_id}", **about)
    await insert(store, row)
    await store.record(ended(row))
    await store.write_audit([audit_record(f"a-{run_id}", **about)])


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        ("case", True),
        ("case=4711", True),
        ("case=", False),
        ("case=47", False),
        ("tier=4711", False),
        ("title", False),
        ("Case", False),
        ("", False),
    ],
)
async def test_a_label_holds_an_approval_and_all_about_it(store: Store, label: str, kept: bool) -> None:
    await case(store, "run-held", HELD)
    await case(store, "run-other", '{"labels":{"env":"test"}}')
    await finish_all(store)
    await finished(store, "about nothing", run_id=None, approval_id=None)
    for collection in CollectionName:
        there = await store.count(collection)
        held = await purge(store, collection, hold=label) < there
        assert held is kept, collection
        assert await store.count(collection) == (there // 2 if kept else 0), collection


async def test_a_label_of_an_incident_holds_its_approval_too(store: Store) -> None:
    await case(store, "run-held", HELD, by_incident=True)
    await finish_all(store)
    for collection in CollectionName:
        assert await purge(store, collection, hold="case=4711") == 0, collection


async def test_a_label_of_another_tenant_s_approval_holds_nothing_here(store: Store) -> None:
    await open_approval(store, over(request=HELD, tenant="globex"))
    await open_approval(store, over())
    assert await purge(store, APPROVALS, hold="case") == 1
    assert (await find_approval(store, evolve(approval(), tenant="globex").key)).tenant == "globex"


# --- how ---------------------------------------------------------------------------------------------------


async def test_a_dry_run_counts_and_removes_nothing(store: Store) -> None:
    for number in range(5):
        await finished(store, f"e{number}")
    assert await purge(store, EVENTS, dry_run=True) == 5
    assert await store.count(EVENTS) == 5
    assert await purge(store, EVENTS) == 5
    assert await purge(store, EVENTS) == 0


async def test_a_call_looks_at_no_more_rows_than_it_may_and_goes_on_past_those_it_keeps(store: Store) -> None:
    for number in range(4):
        await open_approval(store, over(run_id=f"run-{number}", request=HELD, ended_at=NOW - MINUTE))
    await open_approval(store, over(run_id="run-last"))
    aged = Aged(APPROVALS, LATER, LegalHold("case"))
    first = await store.purge(aged, 3)
    assert (first.examined, first.removed) == (3, 0)
    assert first.after is not None
    second = await store.purge(aged, 3, first.after)
    assert (second.examined, second.removed, second.after) == (2, 1, None)


async def test_a_mark_that_no_purge_gave_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="mark"):
        await store.purge(Aged(EVENTS, LATER), 10, "nonsense")


# --- whose the job is --------------------------------------------------------------------------------------


async def test_a_job_is_given_to_the_only_process_as_often_as_it_asks(store: Store, reopen: Reopen) -> None:
    for until in (MINUTE, 2 * MINUTE):
        assert (await store.claim_job(Job.RETENTION, NOW, NOW + until)).mine
    await store.end_job(Job.RETENTION)
    assert (await store.claim_job(Job.RETENTION, NOW, NOW + MINUTE, unless_done_since=NOW - HOUR)).mine
    again = await reopen()
    assert (await again.claim_job(Job.RETENTION, NOW, NOW + MINUTE)).mine
