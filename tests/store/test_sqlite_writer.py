"""Group commit: who shares a batch, what a failure costs, and that the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from notifyd.errors import StoreError
from notifyd.model import Outcome
from notifyd.store import Advance
from notifyd.store.sqlite import SqliteStore, copier, open_sqlite
from notifyd.store.sqlite.copier import copy_log
from notifyd.store.sqlite.wal import WalGauge
from notifyd.store.sqlite.writer import Limits, commit
from tests.store.makers import (
    NODE,
    TENANT,
    TurnableClock,
    append_of,
    approval,
    audit_record,
    delivery,
    event,
    insert,
)
from tests.waiting import until, until_async


class Batches:
    """A commit observer that keeps what it is told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.faults: list[str] = []

    def store_error(self, step: str) -> None:
        self.faults.append(step)

    def undecodable(self, table: str, rows: int) -> None:
        assert not rows

    def commit(self, seconds: float, rows: int) -> None:
        assert seconds >= 0
        self.sizes.append(rows)


class HeldCommit:
    """A disk that takes its time: a commit waits until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()

    def __call__(self, db: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._go.wait(30)
        commit(db)

    def let_go(self) -> None:
        self._go.set()


class FailingCommit:
    """A disk on which the next commits fail with the error given, before or after SQLite's own rollback."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.rolls_back = False

    def __call__(self, db: sqlite3.Connection) -> None:
        if self.error is None:
            commit(db)
            return
        if self.rolls_back:
            db.execute("ROLLBACK")
        raise self.error


def fault_of_disk(code: int, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(folder / "notifyd.db", node=NODE, clock=TurnableClock(), **options)
    try:
        yield store
    finally:
        await store.aclose()


def append(store: SqliteStore, key: str) -> Awaitable[Any]:
    return store.append(append_of(event(key)))


async def stored(store: SqliteStore, key: str) -> bool:
    """Was the event there? It is afterwards."""
    return not (await store.append(append_of(event(key)))).fresh


async def ends_of(*steps: Awaitable[Any]) -> list[Any]:
    """What each step answered or raised."""
    return list(await asyncio.gather(*steps, return_exceptions=True))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- batches -----------------------------------------------------------------------------------------------


async def test_a_thousand_callers_at_once_share_few_commits_and_are_all_durable(tmp_path: Path) -> None:
    batches = Batches()
    async with opened(tmp_path, observer=batches) as store:
        appended = await asyncio.gather(*(append(store, f"e{n}") for n in range(1000)))
        assert all(a.fresh for a in appended)
        assert sum(batches.sizes) == 1000
        assert len(batches.sizes) < 100
    with sqlite3.connect(tmp_path / "notifyd.db") as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (1000,)
    db.close()


async def test_the_loop_is_woken_once_for_each_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, wakes = Batches(), []
    async with opened(tmp_path, observer=batches) as store:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            wakes.append(args)
            return wake(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        await asyncio.gather(*(append(store, f"e{n}") for n in range(1000)))
        monkeypatch.undo()
    assert len(wakes) == len(batches.sizes)


async def test_what_arrives_during_a_commit_is_the_next_batch(tmp_path: Path) -> None:
    disk, batches = HeldCommit(), Batches()
    async with opened(tmp_path, observer=batches, commit=disk) as store:
        first = asyncio.ensure_future(append(store, "e0"))
        await disk.begun.wait()
        rest = [asyncio.ensure_future(append(store, f"e{n}")) for n in range(1, 20)]
        await asyncio.sleep(0)
        assert not first.done()
        disk.let_go()
        await asyncio.gather(first, *rest)
    assert batches.sizes == [1, 19]


async def test_the_loop_runs_on_while_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    disk = HeldCommit()
    async with opened(tmp_path, commit=disk) as store:
        waiting = asyncio.ensure_future(append(store, "e0"))
        await disk.begun.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert await store.approval(approval().key) is None
        assert not waiting.done()
        disk.let_go()
        await waiting


async def test_nobody_is_answered_before_the_commit_is_done(tmp_path: Path) -> None:
    disk = HeldCommit()
    async with opened(tmp_path, commit=disk) as store:
        waiting = asyncio.ensure_future(append(store, "e0"))
        await disk.begun.wait()
        other = sqlite3.connect(tmp_path / "notifyd.db")
        assert other.execute("SELECT count(*) FROM events").fetchone() == (0,)
        assert not waiting.done()
        disk.let_go()
        await waiting
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)
        other.close()


async def test_a_batch_is_bounded(tmp_path: Path) -> None:
    batches = Batches()
    async with opened(tmp_path, observer=batches, limits=Limits(batch_steps=10)) as store:
        await asyncio.gather(*(append(store, f"e{n}") for n in range(95)))
    assert sum(batches.sizes) == 95
    assert max(batches.sizes) == 10


async def test_a_batch_that_takes_long_to_run_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    batches = Batches()
    async with opened(tmp_path, observer=batches, limits=Limits(batch_seconds=1e-9)) as store:
        await asyncio.gather(*(append(store, f"e{n}") for n in range(5)))
    assert batches.sizes == [1, 1, 1, 1, 1]


async def test_a_caller_that_gives_up_before_its_turn_withdraws_its_step(tmp_path: Path) -> None:
    disk = HeldCommit()
    async with opened(tmp_path, commit=disk) as store:
        first = asyncio.ensure_future(append(store, "first"))
        await disk.begun.wait()
        given_up, kept = (asyncio.ensure_future(append(store, key)) for key in ("given-up", "kept"))
        await asyncio.sleep(0)
        given_up.cancel()
        disk.let_go()
        await asyncio.gather(first, kept)
        assert not await stored(store, "given-up")
        assert await stored(store, "kept")


async def test_a_caller_that_gives_up_during_the_commit_harms_nobody(tmp_path: Path) -> None:
    disk = HeldCommit()
    async with opened(tmp_path, commit=disk) as store:
        given_up, kept = (asyncio.ensure_future(append(store, key)) for key in ("given-up", "kept"))
        await disk.begun.wait()
        given_up.cancel()
        disk.let_go()
        assert (await kept).fresh
        assert await stored(store, "given-up")


# --- one step fails ----------------------------------------------------------------------------------------


def spoilt(store: SqliteStore) -> Awaitable[Any]:
    """An append that fails after it has written an event and an approval."""
    unwritable = audit_record("broken", data={"at": object()})
    opened = approval(run_id="spoilt")
    advance = Advance(opened, Outcome.OPENED, True, audit=(unwritable,))
    return store.append(append_of(event("spoilt", run_id="spoilt"), lambda _: advance))


async def test_a_step_that_fails_after_writing_fails_alone_and_leaves_nothing(tmp_path: Path) -> None:
    batches = Batches()
    async with opened(tmp_path, observer=batches) as store:
        results = await ends_of(
            *(append(store, f"before-{n}") for n in range(5)),
            spoilt(store),
            *(append(store, f"after-{n}") for n in range(5)),
        )
        assert isinstance(results[5], TypeError)
        assert [r.fresh for n, r in enumerate(results) if n != 5] == [True] * 10
        assert sum(batches.sizes) == 11
        assert await store.approval(approval(run_id="spoilt").key) is None
        assert not await stored(store, "spoilt")
        assert await stored(store, "before-4")
        assert await stored(store, "after-4")


async def test_a_broken_constraint_fails_its_own_caller_by_a_store_error(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        broken: Any = append_of(event("broken", kind=None))
        bad, good = await ends_of(store.append(broken), append(store, "good"))
        assert isinstance(bad, StoreError)
        assert "NOT NULL constraint failed: events.kind" in bad.detail
        assert not isinstance(good, BaseException)


@pytest.mark.parametrize("value", [2**63, "\ud800", object()])
async def test_a_value_that_no_column_takes_fails_its_own_caller(tmp_path: Path, value: Any) -> None:
    async with opened(tmp_path) as store:
        broken = append_of(event("broken", occurred_at=value))
        bad, good = await ends_of(store.append(broken), append(store, "good"))
        assert isinstance(bad, Exception)
        assert not isinstance(good, BaseException)


async def test_one_failing_row_of_a_long_call_leaves_the_others_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await insert(store, delivery("d1"))
        with pytest.raises(StoreError, match="NOT NULL"):
            await store.write_audit([audit_record("a1", actor=None)])
        assert await store.delivery(TENANT, "d1") == delivery("d1")


# --- the commit fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rolls_back", [False, True])
@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        (sqlite3.SQLITE_FULL, "SQLITE_FULL", "the disk is full"),
        (sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC", "I/O error"),
        (sqlite3.SQLITE_READONLY, "SQLITE_READONLY", "read-only"),
    ],
)
async def test_a_failed_commit_fails_every_caller_of_its_batch_and_no_other(
    tmp_path: Path, code: int, name: str, text: str, rolls_back: bool
) -> None:
    disk = FailingCommit()
    async with opened(tmp_path, commit=disk) as store:
        await append(store, "before")
        disk.error, disk.rolls_back = fault_of_disk(code, name), rolls_back
        failed = await ends_of(*(append(store, f"e{n}") for n in range(3)))
        for error in failed:
            assert isinstance(error, StoreError)
            assert error.detail == f"{tmp_path}/notifyd.db: {error.detail.partition(': ')[2]}"
            assert text in error.detail
            assert name in error.detail
        assert len({id(error) for error in failed}) == 3
        disk.error = None
        assert not any([await stored(store, f"e{n}") for n in range(3)])
        assert await stored(store, "before")


async def test_a_commit_that_breaks_in_an_unknown_way_leaves_nobody_waiting(tmp_path: Path) -> None:
    disk = FailingCommit()
    async with opened(tmp_path, commit=disk) as store:
        disk.error = MemoryError("no room")
        with pytest.raises(StoreError, match="no room"):
            await append(store, "e1")
        disk.error = None
        assert not await stored(store, "e1")


async def test_a_disk_that_takes_no_writes_is_told_once_and_once_that_it_does_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FailingCommit()
    async with opened(tmp_path, commit=disk) as store:
        await append(store, "before")
        disk.error = fault_of_disk(sqlite3.SQLITE_FULL, "SQLITE_FULL")
        for _ in range(3):
            await ends_of(append(store, "e1"))
        disk.error = None
        await append(store, "e1")
        await append(store, "e2")
    path = tmp_path / "notifyd.db"
    assert caplog.messages[1:] == [
        f"{path}: the disk is full (SQLITE_FULL); until it can be written no event is taken",
        f"{path}: is written again",
    ]


async def test_that_nothing_was_to_be_written_is_no_sign_that_it_could_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FailingCommit()
    async with opened(tmp_path, commit=disk) as store:
        disk.error = fault_of_disk(sqlite3.SQLITE_FULL, "SQLITE_FULL")
        await ends_of(append(store, "e1"))
        disk.error = None
        await store.release([])
        assert await store.claim_due("team", NODE, 0, 1, 10) == []
        assert not any("written again" in line for line in caplog.messages)


async def test_a_failed_batch_is_not_counted_as_committed(tmp_path: Path) -> None:
    disk, batches = FailingCommit(), Batches()
    async with opened(tmp_path, commit=disk, observer=batches) as store:
        disk.error = fault_of_disk(sqlite3.SQLITE_FULL, "SQLITE_FULL")
        await ends_of(append(store, "e1"))
        disk.error = None
    assert batches.sizes == []


# --- another program has the lock --------------------------------------------------------------------------


async def test_a_lock_held_for_a_moment_by_another_program_is_waited_for(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout=30) as store:
        other = sqlite3.connect(tmp_path / "notifyd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(append(store, "e1"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert (await waiting).fresh
        other.close()


async def test_a_lock_that_another_program_keeps_is_named_in_the_error(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout=0.05) as store:
        other = sqlite3.connect(tmp_path / "notifyd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"notifyd\.db: locked by another program \(SQLITE_BUSY\)"):
            await append(store, "e1")
        other.execute("ROLLBACK")
        other.close()
        assert not await stored(store, "e1")


# --- the write-ahead log -----------------------------------------------------------------------------------

SMALL = Limits(
    batch_steps=8,
    idle_checkpoint=100_000,
    busy_checkpoint=200_000,
    rest=50_000,
    truncate=400_000,
    checkpoint_pause=0,
    blocked_pause=0,
)


async def test_the_log_stays_bounded_under_constant_load(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=SMALL) as store:
        await asyncio.gather(*(append(store, f"e{n}") for n in range(3000)))
        assert (tmp_path / "notifyd.db-wal").stat().st_size < 500_000


@contextmanager
def held_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Copies of the log that wait for the second event; the first is set once one has begun."""
    begun, go = threading.Event(), threading.Event()

    def held(db: sqlite3.Connection) -> bool:
        begun.set()
        assert go.wait(30)
        return copy_log(db)

    monkeypatch.setattr(copier, "copy_log", held)
    try:
        yield begun, go
    finally:
        go.set()


async def test_commits_go_on_while_the_log_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, limits=evolve(SMALL, truncate=100_000_000)) as store:
        with held_copies(monkeypatch) as (begun, _):
            await asyncio.gather(*(append(store, f"a{n}") for n in range(100)))
            await until(begun.is_set)
            await asyncio.gather(*(append(store, f"b{n}") for n in range(100)))
            assert store._writer._copying


async def test_the_log_does_not_outgrow_a_disk_that_copies_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "notifyd.db-wal"
    async with opened(tmp_path, limits=SMALL) as store:
        with held_copies(monkeypatch) as (_, go):
            appends = [asyncio.ensure_future(append(store, f"e{n}")) for n in range(1000)]
            await until(lambda: store._writer._outgrown and not store._writer._busy)
            assert not all(one.done() for one in appends)
            assert log.stat().st_size < 800_000
            go.set()
            assert all(one.fresh for one in await asyncio.gather(*appends))
            assert log.stat().st_size < 800_000


async def test_a_copy_that_fails_is_told_once_counted_each_time_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> bool:
        raise fault_of_disk(sqlite3.SQLITE_FULL, "SQLITE_FULL")

    batches = Batches()
    async with opened(tmp_path, limits=SMALL, observer=batches) as store:
        with monkeypatch.context() as patched:
            patched.setattr(copier, "copy_log", fails)
            await asyncio.gather(*(append(store, f"a{n}") for n in range(500)))
            await until(lambda: len(batches.faults) > 1)
        assert [line for line in caplog.messages if "checkpoint" in line] == [
            f"checkpoint failed, will be repeated: {tmp_path}/notifyd.db: the disk is full (SQLITE_FULL)"
        ]
        assert set(batches.faults) == {"checkpoint"}
        before = (tmp_path / "notifyd.db").stat().st_size
        await asyncio.gather(*(append(store, f"b{n}") for n in range(500)))
        await until(lambda: (tmp_path / "notifyd.db").stat().st_size > before)
        assert await stored(store, "a499")


@pytest.mark.parametrize(("told", "complete"), [((0, 7, 7), True), ((0, 7, 5), False), ((1, -1, -1), False)])
def test_a_copy_that_was_held_back_or_refused_is_not_complete(told: tuple[int, ...], complete: bool) -> None:
    """Refused it is while another program copies."""
    db: Any = SimpleNamespace(execute=lambda _: SimpleNamespace(fetchone=lambda: told))
    assert copy_log(db) is complete


async def test_the_log_is_emptied_into_the_database_when_nothing_waits(tmp_path: Path) -> None:
    limits = Limits(idle_checkpoint=50_000, checkpoint_pause=0)
    async with opened(tmp_path, limits=limits) as store:
        await asyncio.gather(*(append(store, f"e{n}") for n in range(100)))
        gauge, keys = WalGauge(tmp_path / "notifyd.db"), itertools.count()
        assert gauge.used() > 50_000

        async def starts_over() -> bool:
            await append(store, f"next-{next(keys)}")
            return gauge.used() < 50_000

        await until_async(starts_over)
        gauge.close()


async def test_a_long_reader_lets_the_log_grow_and_its_end_lets_it_shrink(tmp_path: Path) -> None:
    log = tmp_path / "notifyd.db-wal"
    async with opened(tmp_path, limits=evolve(SMALL, truncate_wait=0)) as store:
        await append(store, "e")
        reader = sqlite3.connect(tmp_path / "notifyd.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        await asyncio.gather(*(append(store, f"a{n}") for n in range(1000)))
        assert log.stat().st_size > 1_000_000
        reader.execute("ROLLBACK")
        await asyncio.gather(*(append(store, f"b{n}") for n in range(100)))
        assert log.stat().st_size < 500_000
        reader.close()


async def test_a_long_reader_is_waited_for_but_seldom(tmp_path: Path) -> None:
    """A backup holds the log back for minutes; meanwhile commits must go on."""
    limits = evolve(SMALL, blocked_pause=3600, truncate_wait=1)
    async with opened(tmp_path, limits=limits, timeout=0) as store:
        await append(store, "e")
        reader = sqlite3.connect(tmp_path / "notifyd.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        async with asyncio.timeout(20):
            await asyncio.gather(*(append(store, f"a{n}") for n in range(2000)))
        reader.close()


async def test_closing_waits_for_every_batch_that_was_handed_in(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=Limits(batch_steps=1)) as store:
        appends = [asyncio.ensure_future(append(store, f"e{n}")) for n in range(20)]
        await asyncio.sleep(0)
    assert all(appended.fresh for appended in await asyncio.gather(*appends))


async def test_closing_leaves_all_in_the_database_and_no_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await append(store, "e1")
    assert names_in(tmp_path) == ["notifyd.db", "notifyd.db.lock"]


def test_the_gauge_counts_the_present_generation_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("CREATE TABLE t (x)")
    gauge = WalGauge(path)
    frame = 24 + 4096
    for rows in (400, 3, 90, 1):
        for _ in range(rows):
            db.execute("INSERT INTO t VALUES (randomblob(3000))")
        used = gauge.used()
        _, frames, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert used == frames * frame
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert gauge.used() == 0
    gauge.close()
    db.close()
