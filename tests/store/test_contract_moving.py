"""What any store gives to another, and takes from it: all there is, in order, and never twice."""

from __future__ import annotations

from attrs import evolve

from notifyd.model import Approval, AuditSeal, Delivery, State, Status
from notifyd.store import (
    ApprovalFilter,
    CollectionName,
    DeliveryFilter,
    Page,
    Planned,
    Store,
    Stored,
    StoredEvent,
)
from tests.store.makers import (
    MINUTE,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    delivery,
    effect,
    ended,
    event,
    incident,
    insert,
    leased,
    open_approval,
    open_incident,
    plan_entry,
    retried,
)

EVENTS, APPROVALS, INCIDENTS, DELIVERIES, AUDIT = CollectionName


async def dump(store: Store, collection: CollectionName, limit: int = 2) -> list[Stored]:
    rows: list[Stored] = []
    after: str | None = ""
    while after is not None:
        page, after = await store.dump(collection, after, limit)
        assert len(page) <= limit
        rows += page
    return rows


async def fill(store: Store) -> None:
    """Some of everything, in every state there is."""
    await open_approval(store, approval(effects=(effect("x"),)))
    await open_approval(store, approval(run_id="run-2", status=Status.APPROVED, ended_at=NOW, ended_by="al"))
    await open_incident(store, incident())
    await store.append(append_of(event("planned")))
    await store.fix_plans([Planned(event("planned"), (plan_entry(),), (leased(),))])
    await insert(store, leased("sending"), leased("dead"), leased("retried"), delivery("waits"))
    await insert(store, delivery("held", window="w", window_start=NOW, next_attempt_at=NOW + MINUTE))
    await store.renew_leases([leased("sending")], NOW + MINUTE, sending=True)
    await store.record(ended(leased("dead"), State.DEAD))
    await store.record(retried(leased("retried"), NOW + MINUTE))
    await store.write_audit([audit_record("a1"), audit_record("a2", run_id=None, approval_id=None)])


async def test_a_dump_gives_each_collection_oldest_first(store: Store) -> None:
    await fill(store)
    events = [row for row in await dump(store, EVENTS) if isinstance(row, StoredEvent)]
    assert [(row.event.key, row.planned) for row in events] == [
        ("open-acme-run-1-deploy", False),
        ("open-acme-run-2-deploy", False),
        ("e1", False),
        ("planned", True),
    ]
    assert events[-1].event == event("planned", plan=(plan_entry(),))
    approvals = [row for row in await dump(store, APPROVALS) if isinstance(row, Approval)]
    assert [row.run_id for row in approvals] == ["run-1", "run-2"]
    assert approvals[0] == approval(effects=(effect("x"),))
    assert await dump(store, INCIDENTS) == [incident()]
    assert [getattr(row, "id", "") for row in await dump(store, AUDIT)] == ["a1", "a2"]
    for collection in CollectionName:
        assert await store.count(collection) == len(await dump(store, collection)), collection


async def test_a_delivery_is_dumped_as_nobody_s_with_its_message_and_attempts(store: Store) -> None:
    await fill(store)
    rows = {row.id: row for row in await dump(store, DELIVERIES) if isinstance(row, Delivery)}
    assert {row.lease_owner for row in rows.values()} == {None}
    assert rows["sending"] == delivery("sending", fencing_token=1)
    assert (rows["dead"].state, len(rows["dead"].attempts)) == (State.DEAD, 1)
    assert rows["waits"].message == delivery().message


RECORDS: list[Stored] = [
    StoredEvent(event("old", plan=(plan_entry("d1"),)), planned=True),
    StoredEvent(event("silent", notify=False), planned=True),
    StoredEvent(event("half", plan=(plan_entry("d2"),)), planned=False),
    StoredEvent(event("new"), planned=False),
    approval(effects=(effect("x"),)),
    approval(run_id="run-2", status=Status.REJECTED, ended_at=NOW, ended_by="alice"),
    incident(),
    delivery("d1", fencing_token=3, tries=2),
    delivery("d2", state=State.DEAD, ended_at=NOW),
    delivery("d3", window="w", window_start=NOW, next_attempt_at=NOW + MINUTE),
    audit_record("a1"),
    audit_record("a2", tenant="", run_id=None, approval_id=None),
    AuditSeal(TENANT, 1, '{"payload": "anything"}'),
    AuditSeal("", 1, "{}"),
]


async def test_what_is_restored_is_dumped_as_it_came_and_once_however_often(store: Store) -> None:
    assert await store.restore(RECORDS[:5]) == 5
    assert await store.restore(RECORDS) == len(RECORDS) - 5
    assert await store.restore(RECORDS) == 0
    assert [row for collection in CollectionName for row in await dump(store, collection)] == RECORDS


async def test_what_is_there_already_stays_as_it_is(store: Store) -> None:
    given = await open_approval(store, approval())
    assert await store.replace_approval(evolve(given, version=2, status=Status.APPROVED, ended_at=NOW))
    assert await store.restore([approval()]) == 0
    (found,), _ = await store.approvals(TENANT, ApprovalFilter(), Page())
    assert found.status is Status.APPROVED


async def test_restored_events_whose_planning_is_not_finished_are_planned_and_no_others(store: Store) -> None:
    await store.restore(RECORDS)
    claimed = await store.claim_unplanned(NODE, NOW, NOW + MINUTE, 10)
    assert {one.key for one in claimed} == {"half", "new"}
    assert not (await store.append(append_of(event("old")))).fresh


async def test_restored_deliveries_are_due_and_held_ones_wait_for_their_window(store: Store) -> None:
    await store.restore(RECORDS)
    claimed = await store.claim_due("slack", NODE, NOW, NOW + MINUTE, 10)
    assert [(one.id, one.fencing_token, one.tries) for one in claimed] == [("d1", 4, 2)]
    (window,) = await store.due_windows(NOW + MINUTE, 10)
    assert (window.key, window.start, window.count) == ("w", NOW, 1)
    assert await store.dead_letters() == {"slack": 1}


async def test_what_comes_after_joins_a_restored_window(store: Store) -> None:
    await store.restore(RECORDS)
    later = delivery("later", window="w", window_start=NOW + 1, next_attempt_at=NOW + 2 * MINUTE)
    await insert(store, evolve(later, created_at=NOW + 1))
    (window,) = await store.due_windows(NOW + MINUTE, 10)
    assert (window.start, window.count) == (NOW, 2)


async def test_restored_rows_keep_their_order_in_lists(store: Store) -> None:
    await store.restore(RECORDS)
    found, _ = await store.deliveries(TENANT, DeliveryFilter(), Page())
    assert [one.id for one in found] == ["d3", "d2", "d1"]


async def test_a_held_row_is_restored_into_its_own_window_though_a_newer_is_open(store: Store) -> None:
    old = delivery("old", window="w", window_start=NOW - MINUTE, next_attempt_at=NOW + MINUTE)
    new = delivery("new", window="w", window_start=NOW, next_attempt_at=NOW + 2 * MINUTE)
    await store.restore([new, old])
    assert await dump(store, DELIVERIES) == [new, old]


async def test_a_dump_goes_on_where_an_earlier_one_ended(store: Store) -> None:
    await store.restore(RECORDS)
    first, after = await store.dump(DELIVERIES, "", 2)
    assert after is not None
    rest, end = await store.dump(DELIVERIES, after, 2)
    assert (len(first), len(rest), end) == (2, 1, None)
    assert await dump(store, DELIVERIES, 3) == [*first, *rest]
