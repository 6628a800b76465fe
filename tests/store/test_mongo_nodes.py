"""What several nodes on one MongoDB do, and what is left of a step that one of them broke off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from pymongo.errors import NetworkTimeout

from notifyd.config.settings import Settings
from notifyd.errors import StoreError, StoreInUseError, TooLargeError
from notifyd.flow.effects import Effects
from notifyd.flow.expire import Expiry
from notifyd.flow.queues import PlanningQueue
from notifyd.metrics import Metrics
from notifyd.model import (
    SECOND,
    ApprovalKey,
    AuditName,
    Delivery,
    Event,
    Instant,
    Outcome,
    State,
    Status,
)
from notifyd.store import Advance, Aged, AuditFilter, CollectionName, Page, Window
from notifyd.store.mongo import MongoStore
from notifyd.store.mongo.claims import Queue, Wanted
from notifyd.store.mongo.driver import Collection, Document
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
    effect,
    ended,
    event,
    find_approval,
    get,
    insert,
    leased,
    open_approval,
    planned,
)


async def broken(*_: object, **__: object) -> None:
    """Stands for a connection that is lost before a write."""
    raise StoreError("connection lost")


def applying(given: Event) -> Callable[[Any], Advance]:
    """An advance as the machines make it: what the event has done already, it does not do again."""
    subject = approval(run_id=given.run_id)
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

    async def _candidates(self, wanted: Wanted, count: int) -> list[Document]:
        candidates = await super()._candidates(wanted, count)
        if self._spread == 1:
            taken = {"_id": {"$in": [one["_id"] for one in candidates[:2]]}}
            await self.collection.update_many(taken, {"$unset": {"claim_at": ""}})
        return candidates


async def test_a_queue_that_lost_rows_to_another_spreads_out_and_comes_back_to_its_head(node: Open) -> None:
    store = await node("a")
    await insert(store, *(delivery(f"d{n:02}", next_attempt_at=NOW - n) for n in range(30)))
    store._deliveries = Overtaken(store._base, CollectionName.DELIVERIES)
    claimed = await claim(store, "a", limit=4)
    assert len(claimed) == 4
    assert not {"d29", "d28"} & {row.id for row in claimed}
    store._deliveries = Queue(store._base, CollectionName.DELIVERIES, spread=4)
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
    assert "nothing is claimed or ended by it until it is right" in caplog.text


async def test_by_a_clock_that_is_wrong_nothing_is_due_from_the_moment_on_that_it_is(node: Open) -> None:
    """One of several nodes, with a clock that leapt ahead, ended all that waited for the others' people."""
    clock = TurnableClock(time.time_ns() // 1000)
    store = await node("a", clock=clock, clock_skew=5)
    now = clock.now
    waits = approval(
        expires_at=now + HOUR,
        timer_at=now + MINUTE,
        effects=(evolve(effect("n"), next_attempt_at=now + MINUTE),),
    )
    await open_approval(store, waits)
    assert await store.claim_unplanned("a", now, now + MINUTE, 10) is not None  # the clocks are compared
    for leap in (0, 2 * HOUR, -2 * HOUR):
        clock.now = now + leap
        seen = clock.now
        assert await store.due_approvals(seen, 10) == []
        assert await store.timed_approvals(seen, 10) == []
        assert await store.owing_approvals(seen, 10, horizon=seen + HOUR) == []
    clock.now = now
    assert len(await store.due_approvals(now + 2 * HOUR, 10)) == 1
    assert len(await store.timed_approvals(now + 2 * HOUR, 10)) == 1
    assert len(await store.owing_approvals(now + 2 * HOUR, 10)) == 1


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
        # All of a registry that it needs: nothing signs a receipt.
        current: Any = lambda: SimpleNamespace(settings=Settings(), signing=())  # noqa: E731
        clock = TurnableClock()
        self.store = store
        self.effects = Effects(
            store=store,
            current=current,
            planning_queue=planning_queue,
            dispatch_queue=nothing,
            metrics=Metrics(),
            clock=clock,
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
        await open_approval(timers[0].store, approval(run_id=run, expires_at=NOW, callback_url=None))
    await asyncio.gather(*(timer.sweep() for timer in timers))
    for run in runs:
        found = await find_approval(timers[1].store, ApprovalKey(TENANT, run, "deploy"))
        assert (found.status, found.effects) == (Status.EXPIRED, ())
    assert await expiries(timers[0].store) == runs
    raised = await accepted.take(100, 1024 * 1024)
    assert sorted(str(one.run_id) for one in raised) == runs
    assert {one.action for one in raised} == {"expired"}


async def test_an_expiry_that_its_node_did_not_live_to_settle_is_settled_once_by_the_others(
    node: Open,
) -> None:
    accepted = PlanningQueue()
    killed, *others = [Timer(await node(name), accepted) for name in ("a", "b", "c")]
    await open_approval(killed.store, approval(expires_at=NOW, callback_url=None))
    assert await killed.expiry.sweep() == 1
    assert accepted.waiting.total == 0
    await asyncio.gather(*(timer.sweep() for timer in others))
    await killed.sweep()
    assert await expiries(killed.store) == ["run-1"]
    assert [one.action for one in await accepted.take(100, 1024 * 1024)] == ["expired"]


async def test_what_two_nodes_remove_by_age_at_once_is_removed_and_counted_once(node: Open) -> None:
    stores = [await node("a"), await node("b")]
    await stores[0].write_audit([audit_record(f"audit-{n}") for n in range(30)])
    aged = Aged(CollectionName.AUDIT, NOW + HOUR, None)
    purged = await asyncio.gather(*(store.purge(aged, 100) for store in stores))
    assert sum(one.removed for one in purged) == 30
    assert await stores[0].count(CollectionName.AUDIT) == 0


# --- whose planning it is -----------------------------------------------------------------------------------


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


async def test_a_plan_whose_deliveries_were_not_inserted_is_taken_up_by_another_node(node: Open) -> None:
    store, other = await node("a"), await node("b")
    await store.append(append_of(event()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("notifyd.store.mongo.deliveries.insert", broken)
        with pytest.raises(StoreError):
            await store.fix_plans([planned(event(), delivery())])
    (found,) = await other.claim_unplanned("b", NOW + HOUR, NOW + 2 * HOUR, 10)
    assert found.plan == planned(event(), delivery()).plan
    assert await other.insert_deliveries(found, [delivery()]) == {"d1"}
    assert await other.claim_unplanned("b", NOW + 9 * HOUR, NOW + 10 * HOUR, 10) == []


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


async def test_the_key_of_an_approval_is_kept_whole(node: Open) -> None:
    store = await node("a")
    await open_approval(store, approval(run_id="$where", approval_id="a.b"))
    assert await store.approval(ApprovalKey(TENANT, "$where", "a.b")) is not None


@pytest.mark.parametrize("lost", ["update_many", "find"])
@pytest.mark.parametrize("at_once", [1, 2])
async def test_what_was_claimed_without_an_answer_is_free_for_the_next_claims(
    node: Open, lost: str, at_once: int
) -> None:
    store = await node("a")
    await insert(store, *(delivery(f"d{number}") for number in range(3)))
    operation = getattr(Collection, lost)

    async def unanswered(self: Collection, *args: Any, **options: Any) -> Any:
        result = await operation(self, *args, **options)
        if any("claim" in one for one in (args[0], args[-1].get("$set", {}))):
            raise NetworkTimeout("no answer")
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collection, lost, unanswered)
        with pytest.raises(StoreError):
            await store.claim_due("slack", "a", NOW, NOW + MINUTE, 3)
    assert (await get(store, delivery("d0"))).lease_owner == "a"
    claims = (store.claim_due("slack", "a", NOW, NOW + MINUTE, 3) for _ in range(at_once))
    claimed = [row for rows in await asyncio.gather(*claims) for row in rows]
    assert sorted(row.id for row in claimed) == ["d0", "d1", "d2"]
    assert [row.fencing_token for row in claimed] == [2, 2, 2]
