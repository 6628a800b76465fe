"""What several nodes write in transactions: whole or not at all, once, and held against nobody for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import evolve
from pymongo.errors import OperationFailure

from notifyd.config.settings import StoreDriver
from notifyd.errors import StoreError, TooLargeError
from notifyd.model import SECOND, Approval, Decision, Delivery, Event, Outcome, ResumeStatus, State
from notifyd.store import Advance, Append, AttemptRecord, AuditFilter, CollectionName, Page, Window
from notifyd.store.mongo import MongoStore, windows
from notifyd.store.mongo.base import Base
from tests.mongodb import MongoServer
from tests.store.conftest import Open
from tests.store.makers import (
    HOUR,
    MINUTE,
    NOW,
    TENANT,
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
)

DRIVERS = pytest.mark.parametrize(
    "driver", [StoreDriver.PYMONGO, pytest.param(StoreDriver.MOTOR, marks=pytest.mark.long)]
)


def moving(given: Event) -> Append:
    """Moves its approval to the next version."""

    def advance(stored: Approval) -> Advance:
        moved = evolve(stored, version=stored.version + 1)
        audit = (audit_record(f"audit-{given.key}"),)
        return Advance(moved, Outcome.NEW_ROUND, True, moved.version, moved.round, audit)

    return append_of(given, advance)


async def lines(store: MongoStore) -> list[str]:
    return sorted(line.id for line in (await store.audit(TENANT, AuditFilter(), Page()))[0])


async def nothing_of(store: MongoStore, key: str) -> bool:
    """Is nothing stored of an event that moves the approval, or of the end of a callback?"""
    return (
        await store.event(TENANT, key) is None
        and await lines(store) == []
        and await find_approval(store) == approval(resume=ResumeStatus.QUEUED, resume_delivery="d1")
    )


async def failing(*_: object, **__: object) -> None:
    """Stands for a connection that is lost in the middle."""
    raise StoreError("connection lost")


STEPS = ("audit.write_within", "events.insert_within")


# --- whole or not at all -----------------------------------------------------------------------------------


@DRIVERS
@pytest.mark.parametrize("step", ["approvals.put", *STEPS])
async def test_an_acceptance_that_breaks_off_leaves_nothing_and_is_done_by_its_repetition(
    node: Open, step: str, driver: StoreDriver
) -> None:
    store, other = await node("a", driver=driver), await node("b", driver=driver)
    await open_approval(store, approval(resume=ResumeStatus.QUEUED, resume_delivery="d1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"notifyd.store.mongo.{step}", failing)
        with pytest.raises(StoreError):
            await store.append(moving(event("b")))
    assert await nothing_of(other, "b")
    assert (await other.append(moving(event("b")))).fresh
    assert not (await store.append(moving(event("b")))).fresh
    assert (await find_approval(store)).version == 2
    assert await lines(store) == ["audit-b"]


def callback_end() -> AttemptRecord:
    record = ended(leased(), audit=(audit_record(),), event=event("resumed"))
    return evolve(record, resume=ResumeStatus.DELIVERED)


@DRIVERS
@pytest.mark.parametrize("step", ["approvals.set_resume", *STEPS])
async def test_an_end_that_breaks_off_leaves_nothing_and_is_written_by_its_repetition(
    node: Open, step: str, driver: StoreDriver
) -> None:
    store = await node("a", driver=driver)
    await open_approval(store, approval(resume=ResumeStatus.QUEUED, resume_delivery="d1"))
    await insert(store, leased())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"notifyd.store.mongo.{step}", failing)
        with pytest.raises(StoreError):
            await store.record(callback_end())
    assert await nothing_of(store, "resumed")
    assert await get(store, delivery()) == leased()
    for _ in range(2):
        assert await store.record(callback_end())
    assert (await find_approval(store)).resume is ResumeStatus.DELIVERED
    assert await store.event(TENANT, "resumed") is not None
    assert await lines(store) == ["a1"]


@DRIVERS
async def test_an_event_too_large_for_a_document_is_refused_whole_and_keeps_no_other_waiting(
    node: Open, driver: StoreDriver
) -> None:
    store = await node("a", driver=driver)
    await open_approval(store, approval())
    huge = store.append(moving(event("huge", body="x" * 17 * 1024 * 1024)))
    refused, fits = await asyncio.gather(huge, store.append(moving(event("b"))), return_exceptions=True)
    assert isinstance(refused, TooLargeError)
    assert not isinstance(fits, BaseException)
    assert (fits.event.version, (await find_approval(store)).version) == (2, 2)
    assert await store.event(TENANT, "huge") is None


# --- others in the way -------------------------------------------------------------------------------------


@DRIVERS
async def test_events_about_one_approval_that_come_to_nodes_at_once_each_move_it_once(
    node: Open, driver: StoreDriver
) -> None:
    stores = [await node(name, driver=driver, timeout=10) for name in ("a", "b", "c")]
    await open_approval(stores[0], approval())
    events = [event(f"b{number:02}") for number in range(20)]
    appends = [store.append(moving(one)) for one in events for store in stores]
    appended = await asyncio.gather(*appends)
    assert [one.fresh for one in appended].count(True) == 20
    assert sorted({one.event.version for one in appended}) == list(range(2, 22))
    assert (await find_approval(stores[0])).version == 21
    assert await lines(stores[0]) == [f"audit-{one.key}" for one in events]


async def test_an_event_that_opens_its_approval_on_several_nodes_at_once_does_so_once(node: Open) -> None:
    stores = [await node(name, timeout=10) for name in ("a", "b", "c")]
    audit = (audit_record("audit-b"),)
    opened = Advance(approval(), Outcome.OPENED, True, 1, 1, audit)
    appended = await asyncio.gather(
        *(store.append(append_of(event("b"), lambda _: opened)) for store in stores)
    )
    assert [one.fresh for one in appended].count(True) == 1
    assert await find_approval(stores[0]) == approval()
    assert await lines(stores[0]) == ["audit-b"]


async def test_an_approval_that_changes_while_an_event_moves_it_is_looked_at_again(node: Open) -> None:
    store, other = await node("a"), await node("b")
    await open_approval(store, approval())
    looked: list[int] = []
    request = moving(event("b"))

    def advance(stored: Approval) -> Advance:
        looked.append(stored.version)
        return request.advance(stored)

    async def late(base: Base, stored: Approval, subject: Approval, superseded: Sequence[Decision]) -> None:
        if len(looked) == 1:
            assert await other.replace_approval(approval(version=2, round=2))
        await put(base, stored, subject, superseded)

    from notifyd.store.mongo.approvals import put

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("notifyd.store.mongo.approvals.put", late)
        appended = await store.append(append_of(event("b"), advance))
    assert looked == [1, 2]
    assert (appended.event.version, appended.event.round) == (3, 2)


# --- commits that are not answered -------------------------------------------------------------------------


@asynccontextmanager
async def failing_commit(server: MongoServer, **fault: Any) -> AsyncIterator[None]:
    """Let the next commit go wrong, as the server can be told to."""
    import pymongo

    client: Any = pymongo.AsyncMongoClient(server.url)
    data = {"failCommands": ["commitTransaction"], **fault}
    await client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
    try:
        yield
    finally:
        await client.admin.command("configureFailPoint", "failCommand", mode="off")
        await client.close()


FAULTS: dict[str, dict[str, Any]] = {
    "the connection is lost before it": {"closeConnection": True},
    "it is done, and its answer says that the majority was late": {
        "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}
    },
    "the transaction is gone": {"errorCode": 251, "errorLabels": ["TransientTransactionError"]},
    "the server gives no answer in time": {"errorCode": 50},
}


@DRIVERS
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_commit_that_goes_wrong_is_tried_again_and_done_once(
    node: Open, mongo_server: MongoServer, fault: str, driver: StoreDriver
) -> None:
    store = await node("a", driver=driver)
    await open_approval(store, approval())
    async with failing_commit(mongo_server, **FAULTS[fault]):
        assert (await store.append(moving(event("b")))).event.version == 2
    assert (await find_approval(store)).version == 2
    assert not (await store.append(moving(event("b")))).fresh
    assert await lines(store) == ["audit-b"]


# --- what is held ------------------------------------------------------------------------------------------


async def hold(store: MongoStore) -> None:
    """Leave the approval written, in a transaction that nobody ends: as a process that is killed does."""
    session = await store._base.connection._free.get()
    await session.start_transaction()
    approvals = store._base.approvals.within(session)
    assert await approvals.update_one({"tenant": TENANT}, {"$set": {"comment": "held"}})


async def fails(store: MongoStore) -> bool:
    try:
        await store.append(moving(event("b")))
    except StoreError:
        return True
    return False


async def test_what_a_dead_node_was_writing_is_free_when_it_is_found_dead(node: Open) -> None:
    killed, other = await node("a"), await node("b", timeout=0.5)
    await open_approval(killed, approval())
    await killed.beat(NOW, NOW + 5 * SECOND)
    await hold(killed)
    assert await other.beat(NOW + 4 * SECOND, NOW + 9 * SECOND) == 2
    assert await fails(other)
    assert await other.beat(NOW + 5 * SECOND, NOW + 10 * SECOND) == 1
    assert not await fails(other)
    assert (await find_approval(other)).version == 2


async def test_what_a_node_was_writing_when_it_was_killed_is_free_when_it_starts(node: Open) -> None:
    killed = await node("a")
    await open_approval(killed, approval())
    await hold(killed)
    again = await node("a", timeout=0.5)
    assert not await fails(again)


async def test_a_node_that_was_only_asleep_goes_on_with_its_transactions(node: Open) -> None:
    asleep, other = await node("a"), await node("b", timeout=0.5)
    await open_approval(asleep, approval())
    await asleep.beat(NOW, NOW + 5 * SECOND)
    steps = 0

    async def step(base: Base) -> int:
        nonlocal steps
        steps += 1
        await base.approvals.update_one({"tenant": TENANT}, {"$inc": {"tried": 1}})
        if steps == 1:
            await other.beat(NOW + 5 * SECOND, NOW + 10 * SECOND)
        return steps

    assert await asleep._base.transact(step) == 2
    (found,) = await other._base.approvals.find({})
    assert found["tried"] == 1
    await asleep.beat(NOW + 6 * SECOND, NOW + 11 * SECOND)
    (found,) = await other._base.nodes.find({"_id": "a"})
    assert found["sessions"] == asleep._base.connection.session_ids


@DRIVERS
async def test_a_transaction_that_runs_out_of_time_is_given_up_and_holds_nothing(
    node: Open, driver: StoreDriver
) -> None:
    store, other = await node("a", driver=driver, timeout=0.4), await node("b", timeout=5)
    await open_approval(store, approval())

    async def slow(base: Base) -> None:
        await base.approvals.update_one({"tenant": TENANT}, {"$set": {"comment": "slow"}})
        await asyncio.sleep(0.5)
        await base.approvals.find_one({"tenant": TENANT})

    with pytest.raises(StoreError):
        await store._run(store._base.transact(slow))
    await store._base.settled()
    assert not await fails(other)
    assert "comment" not in (await other._base.approvals.find({}))[0]


@DRIVERS
async def test_a_caller_that_goes_away_leaves_a_transaction_that_ends_all_the_same(
    node: Open, driver: StoreDriver
) -> None:
    store, other = await node("a", driver=driver), await node("b")
    await open_approval(store, approval())
    looking = asyncio.Event()

    def advance(stored: Approval) -> Advance:
        looking.set()
        return moving(event("b")).advance(stored)

    caller = asyncio.create_task(store.append(append_of(event("b"), advance)))
    await looking.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await store.aclose()
    assert not (await other.append(moving(event("b")))).fresh
    assert (await find_approval(other)).version == 2


async def test_no_more_transactions_are_open_at_once_than_there_are_sessions(node: Open) -> None:
    store = await node("a")
    appends = (store.append(moving_new(f"run-{n}")) for n in range(100))
    assert all(one.fresh for one in await asyncio.gather(*appends))
    assert store._base.connection._free.qsize() == len(store._base.connection.session_ids)


def moving_new(run: str) -> Append:
    opened = Advance(approval(run_id=run), Outcome.OPENED, True, 1, 1)
    return append_of(event(run, run_id=run), lambda _: opened)


# --- windows -----------------------------------------------------------------------------------------------

CLOSES = NOW + MINUTE
WINDOW = Window(TENANT, "w", NOW, CLOSES, "slack", "slack", 2)


def held(delivery_id: str, **changes: Any) -> Delivery:
    return delivery(delivery_id, **{"window": "w", "window_start": NOW, "next_attempt_at": CLOSES} | changes)


LATE = held("late", created_at=NOW + SECOND, window_start=NOW + SECOND, next_attempt_at=CLOSES + SECOND)


def closers() -> Iterator[tuple[str, Any]]:
    digest = leased("digest", seq=0)
    yield "folded", lambda store: store.fold(WINDOW, digest, None)
    yield "folded in part", lambda store: store.fold(WINDOW, digest, {"d1", "d2"})
    yield "let go", lambda store: store.let_go(WINDOW)
    yield "put off", lambda store: store.postpone(WINDOW, CLOSES + HOUR)


CLOSERS = dict(closers())


@pytest.mark.parametrize("closer", CLOSERS)
async def test_a_row_whose_window_changes_while_it_joins_goes_by_what_it_is_then(
    node: Open, closer: str
) -> None:
    store, other = await node("a"), await node("b")
    await insert(store, held("d1"), held("d2"))
    joins = 0

    async def overtaken(base: Base, deliveries: Any) -> list[Delivery]:
        nonlocal joins
        joins += 1
        if joins == 1:
            await base.timers.find_one({"tenant": TENANT})  # the transaction sees the window as it is now
            await CLOSERS[closer](other)
        return await join(base, deliveries)

    join = windows.join
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "join", overtaken)
        assert await store.insert_deliveries(None, [LATE]) == {"late"}
    row = await get(store, LATE)
    assert joins == 2
    assert row.state is State.PENDING
    span = (NOW, CLOSES + HOUR) if closer == "put off" else (LATE.window_start, LATE.next_attempt_at)
    assert (row.window_start, row.next_attempt_at) == span


async def test_a_digest_of_some_rows_stands_for_none_that_another_node_has_seen_since(node: Open) -> None:
    """As of requests, which a digest lists one by one."""
    first, second = await node("a"), await node("b")
    await insert(first, held("d1"), held("d2"), held("d3"))
    assert await first.fold(WINDOW, leased("digest", lease_owner="a", seq=0), {"d1", "d2"}) == 2
    assert await second.fold(WINDOW, leased("digest", lease_owner="b", seq=0), {"d1", "d2", "d3"}) == 0
    assert (await get(first, held("d3"))).folded_into is None
    assert [row.id for row in await second.window_rows(WINDOW, 5)] == ["d3"]


async def test_nobody_s_sessions_are_ended_where_a_dead_node_has_none_on_record(
    node: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command with no session in it ends those of all."""
    store = await node("a")
    await store._base.nodes.update_one({"_id": "a"}, {"$unset": {"sessions": ""}})
    ended = list[object]()
    monkeypatch.setattr("pymongo.asynchronous.database.AsyncDatabase.command", noting(ended))
    await node("a")
    assert "hello" in ended
    assert "killSessions" not in ended


def noting(commands: list[object]) -> Any:
    """A driver's `command` that notes what it sends."""
    from pymongo.asynchronous.database import AsyncDatabase

    real = AsyncDatabase.command

    async def command(database: Any, name: str, *args: Any, **options: Any) -> Any:
        commands.append(name)
        return await real(database, name, *args, **options)

    return command


async def test_a_server_that_ends_no_sessions_for_us_is_no_reason_not_to_start(
    node: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await open_approval(await node("a"), approval())

    async def refused(*_: object) -> None:
        raise OperationFailure("not authorized", 13)

    monkeypatch.setattr("notifyd.store.mongo.driver.Connection.kill_sessions", refused)
    again = await node("a")
    assert await again.count(CollectionName.APPROVALS) == 1
    assert "the transactions of node 'a' are left to their time (code 13)" in caplog.text
