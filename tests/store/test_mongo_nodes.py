"""What several nodes on one MongoDB do, and what is left of a step that one of them broke off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from bson import ObjectId

from notifyd.config.settings import Settings
from notifyd.errors import StoreError, StoreInUseError, TooLargeError
from notifyd.flow.expire import Expiry
from notifyd.flow.queues import PlanningQueue
from notifyd.flow.resume import Effects
from notifyd.metrics import Metrics
from notifyd.model import (
    SECOND,
    Applied,
    Approval,
    ApprovalKey,
    AuditName,
    Delivery,
    Event,
    Instant,
    Outcome,
    State,
    Status,
)
from notifyd.store import Advance, Aged, Append, AuditFilter, CollectionName, Page, Window
from notifyd.store.mongo import MongoStore, approvals, windows
from notifyd.store.mongo.approvals import find_subject
from notifyd.store.mongo.claims import Queue, Wanted
from notifyd.store.mongo.deliveries import document
from tests.store.conftest import Open
from tests.store.makers import (
    HOUR,
    MINUTE,
    NOW,
    TENANT,
    TurnableClock,
    append_of,
    approval,
    audit_record,
    delivery,
    ended,
    event,
    find_approval,
    get,
    insert,
    leased,
    open_approval,
    planned,
)


class BrokenInserter:
    """Stands for a connection that is lost before an insert."""

    async def insert(self, documents: Sequence[Any]) -> list[bool]:
        raise StoreError("connection lost")

    async def settled(self) -> None:
        """Nothing is under way."""


def broken(store: MongoStore, inserter: str) -> Any:
    """`store` as it goes on when it can insert no more into a collection; and what it was before."""
    before = store._base
    replaced: dict[str, Any] = {inserter: BrokenInserter()}
    store._base = evolve(before, **replaced)
    return before


def applying(given: Event) -> Callable[[Any], Advance]:
    """An advance as the machines make it: what the event has done already, it does not do again."""
    done = Applied(given.key, 1, 1, Outcome.OPENED)
    subject = approval(run_id=given.run_id, applied=(done,))
    opened = Advance(subject, Outcome.OPENED, True, 1, 1, (audit_record(f"audit-{given.key}"),))
    return lambda stored: opened if stored is None else evolve(opened, subject=None)


async def claim(store: MongoStore, name: str, now: Instant = NOW, limit: int = 10) -> list[Delivery]:
    return await store.claim_due("slack", name, now, now + MINUTE, limit)


# --- claims ------------------------------------------------------------------------------------------------


async def test_nodes_that_open_an_empty_database_at_once_all_succeed(node: Open) -> None:
    stores = await asyncio.gather(*(node(f"node-{n}") for n in range(3)))
    await asyncio.gather(*(store.probe() for store in stores))


async def test_nodes_that_claim_at_once_share_all_rows_and_each_goes_to_one(node: Open) -> None:
    stores = {name: await node(name) for name in ("a", "b", "c")}
    rows = [delivery(f"d{n:02}", next_attempt_at=NOW - n) for n in range(40)]
    await insert(stores["a"], *rows)
    claimed: list[str] = []
    for _ in range(20):
        batches = await asyncio.gather(*(claim(store, name, limit=5) for name, store in stores.items()))
        for name, batch in zip(stores, batches, strict=True):
            assert {row.lease_owner for row in batch} <= {name}
        claimed += [row.id for batch in batches for row in batch]
        if len(claimed) >= len(rows):
            break
    assert sorted(claimed) == [row.id for row in rows]


class Overtaken(Queue):
    """A queue whose first two candidates another node takes, as long as this one goes for the head."""

    async def _candidates(self, wanted: Wanted, count: int) -> list[ObjectId]:
        candidates = await super()._candidates(wanted, count)
        if self._spread == 1:
            taken = {"_id": {"$in": candidates[:2]}}
            await self.collection.update_many(taken, {"$unset": {"claim_at": ""}})
        return candidates


async def test_a_queue_that_lost_rows_to_another_spreads_out_and_comes_back_to_its_head(node: Open) -> None:
    store = await node("a")
    await insert(store, *(delivery(f"d{n:02}", next_attempt_at=NOW - n) for n in range(30)))
    store._deliveries = Overtaken(store._base.deliveries)
    claimed = await claim(store, "a", limit=4)
    assert len(claimed) == 4
    assert not {"d29", "d28"} & {row.id for row in claimed}
    store._deliveries = Queue(store._base.deliveries, spread=4)
    for _ in range(2):
        assert len(await claim(store, "a", limit=1)) == 1
    left = sorted({f"d{n:02}" for n in range(28)} - {row.id for row in claimed})
    unleased = await store._base.deliveries.find({"lease_owner": None, "claim_at": {"$gte": 0}})
    head = max(row["id"] for row in unleased)
    assert head in left
    assert [row.id for row in await claim(store, "a", limit=1)] == [head]


async def test_a_node_that_starts_voids_its_own_leases_and_no_other_s(node: Open) -> None:
    store = await node("a")
    await insert(store, delivery("d1"), delivery("d2"))
    await claim(store, "a", limit=1)
    await claim(await node("b"), "b", limit=1)
    again = await node("a")
    assert [row.id for row in await claim(again, "a", NOW + 1)] == ["d1"]


async def test_a_lease_is_free_for_others_only_after_its_end_and_the_clocks_tolerance(node: Open) -> None:
    wall = TurnableClock(time.time_ns() // 1000)
    first, second = await node("a", clock=wall, clock_skew=5), await node("b", clock=wall, clock_skew=5)
    now = wall.now
    await insert(first, delivery(created_at=now, next_attempt_at=now, deadline=now + HOUR))
    assert len(await claim(first, "a", now)) == 1
    assert await claim(second, "b", now + MINUTE + 4 * SECOND) == []
    assert len(await claim(second, "b", now + MINUTE + 6 * SECOND)) == 1


async def test_leases_are_stamped_by_the_server_s_clock(node: Open) -> None:
    ahead = TurnableClock(time.time_ns() // 1000 + 4 * SECOND)
    store = await node("a", clock=ahead, clock_skew=5)
    assert await claim(store, "a", ahead.now) == []
    end = store._base.lease(ahead.now + MINUTE)["claim_at"]
    assert abs(end - (ahead.now - 4 * SECOND + MINUTE + 5 * SECOND)) < SECOND


async def test_a_node_whose_clock_is_off_claims_nothing_and_says_so(
    node: Open, caplog: pytest.LogCaptureFixture
) -> None:
    clock = TurnableClock()
    store = await node("a", clock=clock, clock_skew=5)
    await insert(store, delivery())
    await store.append(append_of(event()))
    assert await claim(store, "a", NOW + HOUR) == []
    assert await store.claim_unplanned("a", NOW + HOUR, NOW + 2 * HOUR, 10) == []
    assert "nothing is claimed until it is right" in caplog.text


# --- one service -------------------------------------------------------------------------------------------


async def test_of_nodes_that_are_given_one_event_at_once_one_accepts_it(node: Open) -> None:
    stores = [await node("a"), await node("b")]
    for number in range(5):
        given = event(f"e{number}", run_id=f"run-{number}")
        appends = (store.append(append_of(given, applying(given))) for store in stores)
        appended = await asyncio.gather(*appends)
        assert [one.fresh for one in appended].count(True) == 1
        assert len({one.event for one in appended}) == 1


async def test_a_decision_on_one_node_is_seen_by_the_others_at_once(node: Open) -> None:
    first, second = await node("a"), await node("b")
    await open_approval(first, approval())
    assert await second.replace_approval(approval(version=2, status=Status.APPROVED))
    assert (await find_approval(first)).status is Status.APPROVED
    assert not await first.replace_approval(approval(version=2, status=Status.REJECTED))


# --- who lives ---------------------------------------------------------------------------------------------


async def test_nodes_are_counted_as_long_as_they_beat(node: Open) -> None:
    first, second = await node("a"), await node("b")
    await node("never-beats")
    assert await first.beat(NOW, NOW + 5 * SECOND) == 1
    assert await second.beat(NOW + SECOND, NOW + 6 * SECOND) == 2
    assert await first.beat(NOW + 5 * SECOND, NOW + 10 * SECOND) == 2
    assert await first.beat(NOW + 6 * SECOND, NOW + 11 * SECOND) == 1
    assert await second.beat(NOW + 7 * SECOND, NOW + 12 * SECOND) == 2


async def test_a_node_that_stops_cleanly_is_gone_at_once_and_its_name_free(node: Open) -> None:
    first, second = await node("a"), await node("b")
    await second.beat(NOW, NOW + HOUR)
    assert await first.beat(NOW, NOW + HOUR) == 2
    await second.aclose()
    assert await first.beat(NOW, NOW + HOUR) == 1
    assert await (await node("b")).beat(NOW, NOW + HOUR) == 2


async def test_a_second_live_process_under_one_name_is_refused(node: Open) -> None:
    first = await node("a")
    await first.beat(NOW, NOW + HOUR)

    async def live() -> None:
        while True:
            await first.beat(NOW, NOW + HOUR)
            await asyncio.sleep(0)

    living = asyncio.create_task(live())
    with pytest.raises(StoreInUseError, match="another process lives as node 'a'"):
        await node("a")
    living.cancel()
    assert await first.beat(NOW, NOW + HOUR) == 1


async def test_a_life_that_was_killed_is_succeeded_and_is_told_so_should_it_wake(node: Open) -> None:
    killed = await node("a")
    await insert(killed, delivery())
    (row,) = await claim(killed, "a")
    await killed.beat(NOW, NOW + SECOND // 4)
    again = await node("a")
    assert await again.beat(NOW, NOW + HOUR) == 1
    with pytest.raises(StoreInUseError):
        await killed.beat(NOW, NOW + HOUR)
    assert await killed.renew_leases([row], NOW + HOUR, sending=False) == frozenset()
    await killed.aclose()
    assert await again.beat(NOW, NOW + HOUR) == 1


async def test_of_processes_that_start_under_one_name_at_once_one_lives(node: Open) -> None:
    stores = await asyncio.gather(node("a"), node("a"), return_exceptions=True)
    opened = [one for one in stores if isinstance(one, MongoStore)]
    beats = await asyncio.gather(*(one.beat(NOW, NOW + HOUR) for one in opened), return_exceptions=True)
    assert beats.count(1) == 1
    assert all(isinstance(one, int | StoreInUseError) for one in beats)


# --- what the clock sets off -------------------------------------------------------------------------------


class Timer:
    """What a node does about expiry: ending what is due, and settling what that sets off."""

    def __init__(self, store: MongoStore, planning_queue: PlanningQueue) -> None:
        nothing: Any = None  # it owes no callback
        current: Any = lambda: SimpleNamespace(settings=Settings())  # noqa: E731 - all of a registry that it needs
        clock = TurnableClock()
        self.store = store
        self.effects = Effects(
            store=store, current=current, planning_queue=planning_queue, dispatch_queue=nothing, clock=clock
        )
        self.expiry = Expiry(store=store, effect_queue=self.effects, metrics=Metrics(), clock=clock)

    async def sweep(self) -> None:
        await self.expiry.sweep()
        await self.effects.sweep()


async def expiries(store: MongoStore) -> list[str]:
    trail, _ = await store.audit(TENANT, AuditFilter(), Page())
    return sorted(str(one.run_id) for one in trail if one.name is AuditName.EXPIRED)


async def test_approvals_that_nodes_find_expired_at_once_expire_once_each(node: Open) -> None:
    accepted = PlanningQueue()
    timers = [Timer(await node(name), accepted) for name in ("a", "b", "c")]
    runs = [f"run-{number}" for number in range(4)]
    for run in runs:
        await open_approval(timers[0].store, approval(run_id=run, expires_at=NOW))
    await asyncio.gather(*(timer.sweep() for timer in timers))
    for run in runs:
        found = await find_approval(timers[1].store, ApprovalKey(TENANT, run, "deploy"))
        assert (found.status, found.effects) == (Status.EXPIRED, ())
    assert await expiries(timers[0].store) == runs
    raised = await accepted.take(100)
    assert sorted(str(one.run_id) for one in raised) == runs
    assert {one.action for one in raised} == {"expired"}


async def test_an_expiry_that_its_node_did_not_live_to_settle_is_settled_once_by_the_others(
    node: Open,
) -> None:
    accepted = PlanningQueue()
    killed, *others = [Timer(await node(name), accepted) for name in ("a", "b", "c")]
    await open_approval(killed.store, approval(expires_at=NOW))
    assert await killed.expiry.sweep() == 1
    assert accepted.waiting == 0
    await asyncio.gather(*(timer.sweep() for timer in others))
    await killed.sweep()
    assert await expiries(killed.store) == ["run-1"]
    assert [one.action for one in await accepted.take(100)] == ["expired"]


async def test_what_two_nodes_remove_by_age_at_once_is_removed_and_counted_once(node: Open) -> None:
    stores = [await node("a"), await node("b")]
    await stores[0].write_audit([audit_record(f"audit-{n}") for n in range(30)])
    aged = Aged(CollectionName.AUDIT, NOW + HOUR, None)
    purged = await asyncio.gather(*(store.purge(aged, 100) for store in stores))
    assert sum(one.removed for one in purged) == 30
    assert await stores[0].count(CollectionName.AUDIT) == 0


# --- what an event does, it does once ------------------------------------------------------------------------


class HeldInserter:
    """An inserter that is slow: it inserts once it is let go."""

    def __init__(self, inserter: Any) -> None:
        self._inserter = inserter
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()

    async def insert(self, documents: Sequence[Any]) -> list[bool]:
        self.reached.set()
        await self.let_go.wait()
        fresh: list[bool] = await self._inserter.insert(documents)
        return fresh

    async def settled(self) -> None:
        """Nothing is under way."""


def overtaking(given: Event) -> Append:
    """Opens a round where the approval is in a later one than the first; in the first it is only recorded."""

    def advance(stored: Approval) -> Advance:
        if stored.round == 1:
            return Advance(None, Outcome.RECORDED, False, stored.version, stored.round)
        moved = evolve(stored, version=stored.version + 1, round=stored.round + 1)
        return Advance(moved, Outcome.NEW_ROUND, True, moved.version, moved.round)

    return append_of(given, advance)


async def test_an_event_that_one_node_is_recording_is_not_acted_on_by_another(node: Open) -> None:
    slow, other = await node("a"), await node("b")
    await open_approval(slow, approval())
    inserter = HeldInserter(slow._base.new_events)
    held: dict[str, Any] = {"new_events": inserter}
    slow._base = evolve(slow._base, **held)
    recording = asyncio.create_task(slow.append(overtaking(event("b"))))
    await inserter.reached.wait()
    moved = approval(version=2, round=2)
    assert await other.replace_approval(moved)
    repeated = await other.append(overtaking(event("b")))
    inserter.let_go.set()
    first = await recording
    assert (repeated.fresh, first.fresh) == (True, False)
    assert (
        first.event
        == repeated.event
        == evolve(event("b"), outcome=Outcome.RECORDED, notify=False, version=1, round=1)
    )
    assert await find_approval(other) == moved


async def test_an_event_whose_recording_broke_off_is_recorded_by_a_sweep_whatever_is_new_since(
    node: Open,
) -> None:
    store, other = await node("a"), await node("b")
    await open_approval(store, approval())
    broken(store, "new_events")
    with pytest.raises(StoreError):
        await store.append(overtaking(event("b")))
    moved = approval(version=2, round=2)
    assert await other.replace_approval(moved)
    assert len(await other.claim_unplanned("b", NOW + HOUR, NOW + HOUR + MINUTE, 10)) == 1
    again = await other.append(overtaking(event("b")))
    assert (again.fresh, again.event.outcome) == (False, Outcome.RECORDED)
    assert await find_approval(other) == moved


async def test_an_approval_that_changes_while_an_event_is_recorded_is_looked_at_again(node: Open) -> None:
    store, other = await node("a"), await node("b")
    await open_approval(store, approval())
    looked: list[int] = []

    def advance(stored: Approval) -> Advance:
        looked.append(stored.version)
        return Advance(None, Outcome.RECORDED, False, stored.version)

    async def late(base: Any, key: Any) -> Any:
        found = await find_subject(base, key)
        if not looked:
            await other.replace_approval(approval(version=2, round=2))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approvals, "find_subject", late)
        appended = await store.append(append_of(event("b"), advance))
    assert looked == [1, 2]
    assert appended.event.version == 2


async def test_of_nodes_that_decide_on_an_event_at_once_and_differently_the_first_to_write_does(
    node: Open,
) -> None:
    """As two configurations may have it, while a reload goes round the nodes."""
    first, second = await node("a"), await node("b")
    await open_approval(first, approval())
    recording = append_of(event("b"), lambda _: Advance(None, Outcome.RECORDED, False, 1, 1))
    moved = approval(version=2, round=2)
    acting = append_of(event("b"), lambda _: Advance(moved, Outcome.NEW_ROUND, True, 2, 2))
    inserter = HeldInserter(first._base.new_events)
    held: dict[str, Any] = {"new_events": inserter}
    first._base = evolve(first._base, **held)
    tasks: list[asyncio.Task[Any]] = []

    async def overtaken(base: Any, key: Any) -> Any:
        found = await find_subject(base, key)
        if base is second._base and not tasks:
            tasks.append(asyncio.create_task(first.append(recording)))
            await inserter.reached.wait()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approvals, "find_subject", overtaken)
        appended = await second.append(acting)
    inserter.let_go.set()
    assert appended.event.outcome is Outcome.RECORDED
    assert (await tasks[0]).event == appended.event
    assert await find_approval(second) == approval()


async def test_planning_is_left_to_the_node_that_accepted_an_event_for_as_long_as_it_was_leased(
    node: Open,
) -> None:
    store, other = await node("a"), await node("b")
    await store.append(evolve(append_of(event()), lease=7 * SECOND))

    async def claimed(now: Instant) -> list[str]:
        return [one.key for one in await other.claim_unplanned("b", now, now + 7 * SECOND, 10)]

    assert await claimed(NOW + 7 * SECOND - 1) == []
    assert await claimed(NOW + 7 * SECOND) == ["e1"]


async def test_a_node_that_starts_may_plan_at_once_what_its_earlier_life_accepted(node: Open) -> None:
    store, other = await node("a"), await node("b")
    await store.append(evolve(append_of(event()), lease=HOUR))
    assert await other.claim_unplanned("b", NOW + MINUTE, NOW + 2 * MINUTE, 10) == []
    again = await node("a")
    assert [one.key for one in await again.claim_unplanned("a", NOW + 1, NOW + MINUTE, 10)] == ["e1"]


async def test_planning_the_event_of_an_end_is_left_to_its_node_as_long_as_the_delivery_was(
    node: Open,
) -> None:
    store, other = await node("a"), await node("b")
    row = leased(lease_owner="a", lease_until=NOW + 7 * SECOND)
    await insert(store, row)
    assert await store.record(ended(row, event=event("resumed")))
    assert await other.claim_unplanned("b", NOW + 7 * SECOND - 1, NOW + MINUTE, 10) == []
    (found,) = await other.claim_unplanned("b", NOW + 7 * SECOND, NOW + MINUTE, 10)
    assert found.key == "resumed"


async def test_an_acceptance_that_broke_off_is_looked_for_after_the_lease(node: Open) -> None:
    store, other = await node("a"), await node("b")
    broken(store, "new_events")
    with pytest.raises(StoreError):
        await store.append(append_of(event(), applying(event())))
    lease = 7 * SECOND
    assert await other.claim_unplanned("b", NOW + lease, NOW + 2 * lease, 10) == []
    (found,) = await other.claim_unplanned("b", NOW + lease + 1, NOW + 2 * lease + 1, 10)
    assert found.key == "e1"


# --- steps that were broken off ------------------------------------------------------------------------------


@pytest.mark.parametrize("inserter", ["new_audit", "new_events"])
async def test_an_acceptance_that_broke_off_is_finished_by_its_repetition(node: Open, inserter: str) -> None:
    store, other = await node("a"), await node("b")
    before = broken(store, inserter)
    with pytest.raises(StoreError):
        await store.append(append_of(event(), applying(event())))
    store._base = before
    appended = await other.append(append_of(event(), applying(event())))
    assert appended.fresh
    assert (appended.event.outcome, appended.event.version) == (Outcome.OPENED, 1)
    assert not (await store.append(append_of(event(), applying(event())))).fresh
    assert (await find_approval(store)).version == 1
    assert len((await store.audit(TENANT, AuditFilter(), Page()))[0]) == 1


@pytest.mark.parametrize("inserter", ["new_audit", "new_events"])
async def test_an_acceptance_that_broke_off_and_is_not_repeated_is_finished_by_another_node(
    node: Open, inserter: str
) -> None:
    store, other = await node("a"), await node("b")
    await store.append(append_of(event("e0", run_id="run-0"), applying(event("e0", run_id="run-0"))))
    broken(store, inserter)
    with pytest.raises(StoreError):
        await store.append(append_of(event(), applying(event())))
    assert await other.claim_unplanned("b", NOW + MINUTE - 1, NOW + 2 * MINUTE - 1, 10) == []
    found = await other.claim_unplanned("b", NOW + MINUTE + 1, NOW + 2 * MINUTE + 1, 10)
    assert {(one.key, one.outcome, one.version) for one in found} == {
        ("e0", Outcome.OPENED, 1),
        ("e1", Outcome.OPENED, 1),
    }
    assert not (await other.append(append_of(event(), applying(event())))).fresh
    lines, _ = await other.audit(TENANT, AuditFilter(), Page())
    assert sorted(line.id for line in lines) == ["audit-e0", "audit-e1"]
    assert await other._base.approvals.find({"accepting.at": {"$gt": 0}}) == []
    assert (await find_approval(other)).version == 1


async def test_a_plan_whose_deliveries_were_not_inserted_is_taken_up_by_another_node(node: Open) -> None:
    store, other = await node("a"), await node("b")
    await store.append(append_of(event()))
    broken(store, "new_deliveries")
    with pytest.raises(StoreError):
        await store.fix_plans([planned(event(), delivery())])
    (found,) = await other.claim_unplanned("b", NOW + HOUR, NOW + 2 * HOUR, 10)
    assert found.plan == planned(event(), delivery()).plan
    assert await other.insert_deliveries(found, [delivery()]) == {"d1"}
    assert await other.claim_unplanned("b", NOW + 9 * HOUR, NOW + 10 * HOUR, 10) == []


async def test_an_end_whose_event_was_not_inserted_is_not_recorded(node: Open) -> None:
    store = await node("a")
    await insert(store, leased(lease_owner="a"))
    record = ended(leased(lease_owner="a"), audit=(audit_record(),), event=event("resumed"))
    before = broken(store, "new_events")
    with pytest.raises(StoreError):
        await store.record(record)
    store._base = before
    assert (await get(store, delivery())).state is State.PENDING
    assert await store.record(record)
    assert (await get(store, delivery())).state is State.SENT


async def test_a_record_too_large_for_a_document_is_refused_and_spoils_no_other(node: Open) -> None:
    store = await node("a")
    huge = store.append(append_of(event("huge", body="x" * 17 * 1024 * 1024)))
    fits = [store.append(append_of(event(f"e{n}"))) for n in range(3)]
    refused, *accepted = await asyncio.gather(huge, *fits, return_exceptions=True)
    assert isinstance(refused, TooLargeError)
    assert all(not isinstance(one, BaseException) and one.fresh for one in accepted)


# --- windows -----------------------------------------------------------------------------------------------

CLOSES = NOW + MINUTE
WINDOW = Window(TENANT, "w", NOW, CLOSES, "slack", "slack", 2)


def held(delivery_id: str, **changes: Any) -> Delivery:
    return delivery(delivery_id, **{"window": "w", "window_start": NOW, "next_attempt_at": CLOSES} | changes)


async def insert_alone(store: MongoStore, row: Delivery) -> None:
    """Insert a row and do nothing after it."""
    assert await store._base.new_deliveries.insert([document(store._base, row)]) == [True]


def digest_of(owner: str) -> Delivery:
    return leased("digest", lease_owner=owner, seq=0)


async def test_of_nodes_that_close_one_window_at_once_one_sends_the_digest(node: Open) -> None:
    first, second = await node("a"), await node("b")
    await insert(first, *(held(f"d{n}") for n in range(4)))
    await asyncio.gather(first.fold(WINDOW, digest_of("a"), None), second.fold(WINDOW, digest_of("b"), None))
    digest = await get(first, delivery("digest"))
    assert digest.lease_owner in ("a", "b")
    rows = [await get(first, held(f"d{n}")) for n in range(4)]
    assert {(row.state, row.folded_into) for row in rows} == {(State.FOLDED, "digest")}
    loser = "b" if digest.lease_owner == "a" else "a"
    assert await (second if loser == "b" else first).fold(WINDOW, digest_of(loser), None) == 0


async def test_a_row_whose_window_closes_while_it_is_inserted_moves_to_the_next(node: Open) -> None:
    store = await node("a")
    row = held("late", created_at=NOW + SECOND, window_start=NOW + SECOND, next_attempt_at=CLOSES + SECOND)
    await insert(store, held("d1"), held("d2"))
    (joined,) = await windows.join(store._base, [row])
    assert joined.window_start == NOW
    await insert_alone(store, joined)
    await store.fold(WINDOW, digest_of("a"), {"d1", "d2"})
    await windows.settle(store._base, [row], [joined], frozenset({"late"}))
    moved = await get(store, row)
    assert (moved.window_start, moved.next_attempt_at) == (NOW + SECOND, CLOSES + SECOND)


async def test_a_row_that_a_dead_node_left_in_a_folded_window_is_sent_as_itself(node: Open) -> None:
    store = await node("a")
    await insert(store, held("d1"), held("d2"))
    await store.fold(WINDOW, digest_of("a"), None)
    late = held("late")
    await insert_alone(store, late)
    (window,) = await store.due_windows(CLOSES, 10)
    assert (window.start, window.count) == (NOW, 1)
    assert await store.fold(window, digest_of("b"), None) == 0
    row = await get(store, late)
    assert (row.state, row.window) == (State.PENDING, None)
    assert "late" in [one.id for one in await claim(store, "a", CLOSES + HOUR)]


async def test_the_key_of_an_approval_is_kept_whole(node: Open) -> None:
    store = await node("a")
    await open_approval(store, approval(run_id="$where", approval_id="a.b"))
    assert await store.approval(ApprovalKey(TENANT, "$where", "a.b")) is not None
