"""Keys: found wherever they are, in memory or in the file, and after whatever ended the life before."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import StoreError
from notifyd.model import AuditRecord, Outcome, State
from notifyd.store import Advance, Aged, CollectionName
from notifyd.store.sqlite import SqliteStore, keys, open_sqlite, rows
from notifyd.store.sqlite.files import connect, open_writer
from notifyd.store.sqlite.keys import KeyIndex, Keys, begin
from notifyd.store.sqlite.schema import MIGRATIONS, migrate
from notifyd.store.sqlite.writer import Limits, commit
from tests.store.makers import (
    HOUR,
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    append_of,
    audit_record,
    delivery,
    ended,
    event,
    insert,
    leased,
)

ROOT = Path(__file__).parents[2]
TABLES = ("events", "deliveries", "audit")


async def opened(folder: Path, **options: Any) -> SqliteStore:
    return await open_sqlite(folder / "notifyd.db", node=NODE, clock=TurnableClock(), **options)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is full with a few keys."""
    monkeypatch.setattr(keys, "KEPT", 40)


async def append(store: SqliteStore, names: Sequence[str]) -> list[bool]:
    """Whether each was new."""
    answers = await asyncio.gather(*(store.append(append_of(event(name))) for name in names))
    return [answer.fresh for answer in answers]


def named(prefix: str, count: int) -> list[str]:
    """Keys as notifyd's own are."""
    return [sha256(f"{prefix}{number}".encode()).hexdigest() for number in range(count)]


async def merged(store: SqliteStore) -> None:
    """Wait until memory holds no more than it may."""
    async with asyncio.timeout(20):
        while any(index.full for index in store._writer._db.keys):
            await store.probe()


def in_file(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "notifyd.db") as db:
        (count,) = db.execute(f"SELECT count(*) FROM {table}_keys").fetchone()  # noqa: S608 - a table of TABLES
    db.close()
    return int(count)


def in_memory(store: SqliteStore, table: str) -> int:
    return next(index.count for index in store._writer._db.keys if index.table == table)


def crashed(folder: Path) -> Path:
    """A copy of the files as they are, which is what a process killed at this moment leaves."""
    copy = folder / "crashed"
    copy.mkdir()
    for name in ("notifyd.db", "notifyd.db-wal"):
        shutil.copy(folder / name, copy / name)
    return copy


# --- wherever a key is -------------------------------------------------------------------------------------


async def test_a_repetition_is_known_while_its_key_is_in_memory_in_the_file_and_after_a_restart(
    tmp_path: Path, small: None
) -> None:
    store, names = await opened(tmp_path), named("e", 300)
    assert all(await append(store, names))
    assert not any(await append(store, names))
    await merged(store)
    assert (in_memory(store, "events"), in_file(tmp_path, "events")) > (0, 200)
    assert in_memory(store, "events") + in_file(tmp_path, "events") == 300
    assert not any(await append(store, names))
    await store.aclose()
    store = await opened(tmp_path)
    assert not any(await append(store, names))
    await store.aclose()


async def test_deliveries_and_audit_records_are_written_once_wherever_their_keys_are(
    tmp_path: Path, small: None
) -> None:
    store = await opened(tmp_path)
    records, given = [audit_record(name) for name in named("a", 150)], [leased(n) for n in named("d", 150)]
    for _ in range(2):
        await store.write_audit(records)
        await insert(store, *given)
        await merged(store)
    assert await store.count(CollectionName.AUDIT) == await store.count(CollectionName.DELIVERIES) == 150
    assert await store.renew_leases(given, NOW + HOUR, sending=True) == {one.id for one in given}
    assert all([await store.record(ended(one)) for one in given])
    found = [await store.delivery(TENANT, one.id) for one in given]
    assert [one and one.state for one in found] == [State.SENT] * 150
    assert min(in_file(tmp_path, "audit"), in_file(tmp_path, "deliveries")) > 100
    await store.aclose()


async def test_one_key_of_two_tenants_is_two_rows(tmp_path: Path, small: None) -> None:
    store = await opened(tmp_path)
    both = [delivery(name, tenant=tenant) for name in named("d", 60) for tenant in ("acme", "globex")]
    for _ in range(2):
        await insert(store, *both)
        await merged(store)
    assert await store.count(CollectionName.DELIVERIES) == 120
    assert [await store.delivery(one.tenant, one.id) for one in both] == both
    assert await store.delivery("initech", "d1") is None
    await store.aclose()


async def test_keys_that_share_a_hash_are_told_apart(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "hash_of", lambda key: len(key))
    store, names = await opened(tmp_path), named("e", 200)
    for fresh in (True, False, False):
        assert await append(store, names) == [fresh] * 200
        await merged(store)
    await store.aclose()
    store = await opened(tmp_path)
    assert not any(await append(store, names))
    await store.aclose()


async def test_a_delivery_whose_key_a_reader_missed_on_its_way_to_the_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path)
    await insert(store, delivery())
    monkeypatch.setattr(store._readers, "run", _finding_nothing)
    assert await store.delivery(TENANT, "d1") == delivery()
    monkeypatch.undo()
    await store.aclose()


async def test_a_key_that_is_no_hash_is_merged_and_found_like_any_other(tmp_path: Path) -> None:
    """What another system exported may bear any; and to Python "-1" is a hexadecimal number."""
    names = ["-1", "order-10000000000", "1_0", " 7", "é", "", *(f"-{number:x}" for number in range(2, 60))]
    store = await opened(tmp_path)
    assert all(await append(store, names))
    await merge(store, store._writer._db.keys.events, 128)
    assert (in_memory(store, "events"), in_file(tmp_path, "events")) == (0, len(names))
    assert not any(await append(store, names))
    await store.aclose()


async def _finding_nothing(query: Callable[..., Any]) -> None:
    del query


# --- rolled back -------------------------------------------------------------------------------------------


class FailingCommits:
    """Fails while it is told to."""

    failing = False

    def __call__(self, db: sqlite3.Connection) -> None:
        if self.failing:
            raise sqlite3.OperationalError("the disk is away")
        commit(db)


async def test_a_batch_that_was_rolled_back_leaves_no_key_behind(tmp_path: Path) -> None:
    commits = FailingCommits()
    store = await opened(tmp_path, commit=commits)
    await append(store, ["before"])
    commits.failing = True
    for attempt in range(20):
        failed = [store.append(append_of(event(name))) for name in named("e", 10)]
        failed += [store.append(append_of(event(f"other{attempt}")))]
        assert {type(end) for end in await asyncio.gather(*failed, return_exceptions=True)} == {StoreError}
    commits.failing = False
    assert await append(store, ["before", *named("e", 10)]) == [False, *[True] * 10]
    assert in_memory(store, "events") == 11
    assert await append(store, ["before", *named("e", 10)]) == [False] * 11
    await store.aclose()


async def test_a_step_that_fails_after_its_insert_leaves_its_own_key_out_and_the_others_in(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path)
    broken = audit_record(data={1: "a name that is no text"})
    given = [store.append(append_of(event(name))) for name in ("a", "b")]
    spoilt = store.append(append_of(event("spoilt"), lambda _: accepted_with(broken)))
    ends = await asyncio.gather(given[0], spoilt, given[1], return_exceptions=True)
    assert [isinstance(end, TypeError) for end in ends] == [False, True, False]
    assert await append(store, ["a", "b", "spoilt"]) == [False, False, True]
    await store.aclose()


def accepted_with(broken: AuditRecord) -> Advance:
    return Advance(None, Outcome.ACCEPTED, True, audit=(broken,))


async def test_a_merge_that_could_not_be_committed_is_repeated(
    tmp_path: Path, small: None, caplog: pytest.LogCaptureFixture
) -> None:
    commits = FailingCommits()
    store, names = await opened(tmp_path, commit=commits), named("e", 60)
    await append(store, names)
    commits.failing = True  # before the merge that this commit called for has had its turn
    assert store._merger._task is not None
    with caplog.at_level(logging.WARNING, "notifyd.store"):
        await store._merger._task
    assert "their merge will be repeated" in caplog.text
    assert (in_memory(store, "events"), in_file(tmp_path, "events")) == (60, 0)
    commits.failing = False
    assert not any(await append(store, names))
    await merged(store)
    assert in_file(tmp_path, "events") > 0
    assert not any(await append(store, names))
    await store.aclose()


async def test_a_store_that_closes_amid_a_merge_says_nothing_of_it(
    tmp_path: Path, small: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = await opened(tmp_path)
    given = [asyncio.ensure_future(store.append(append_of(event(name)))) for name in named("e", 500)]
    await asyncio.sleep(0)
    await store.aclose()
    assert all([(await one).fresh for one in given])
    assert caplog.text == ""


# --- killed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 60, 128, 200])
async def test_a_life_that_ends_between_two_steps_of_a_merge_leaves_every_key_to_the_next(
    tmp_path: Path, steps: int
) -> None:
    store, names = await opened(tmp_path), named("e", 500)
    await append(store, names)
    await merge(store, store._writer._db.keys.events, steps)
    assert all(await append(store, ["later"]))
    copy = crashed(tmp_path)
    await store.aclose()
    store = await opened(copy)
    assert not any(await append(store, [*names, "later"]))
    await merge(store, store._writer._db.keys.events, 128)
    assert in_file(copy, "events") == 501
    assert not any(await append(store, [*names, "later"]))
    await store.aclose()


async def merge(store: SqliteStore, index: KeyIndex, steps: int) -> None:
    for _ in range(steps):
        index.merged(await store._writer.submit(index.merge))


async def test_a_start_reads_only_the_keys_that_no_merge_has_written(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await append(store, named("e", 300))
    await merge(store, store._writer._db.keys.events, 128)
    await append(store, named("later", 20))
    await store.aclose()
    store = await opened(tmp_path)
    assert in_memory(store, "events") == 20
    await store.aclose()


APPEND_AND_MERGE = """
import asyncio, sys
from hashlib import sha256
from pathlib import Path
from notifyd.store.sqlite import keys, open_sqlite
from tests.store.makers import append_of, event

keys.KEPT = 60

async def caller(store, number):
    count = 0
    while True:
        key = sha256(f"{number}-{count}".encode()).hexdigest()
        await store.append(append_of(event(key)))
        print(key, flush=True)
        count += 1

async def main():
    store = await open_sqlite(Path(sys.argv[1]), node="n", clock=lambda: 0)
    await asyncio.gather(*(caller(store, number) for number in range(32)))

asyncio.run(main())
"""


def acknowledged_until_killed(folder: Path, count: int) -> list[str]:
    """The keys that a process acknowledged, killed once there are `count`."""
    command = [sys.executable, "-c", APPEND_AND_MERGE, str(folder / "notifyd.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("count", [500, 977])
async def test_every_key_that_was_acknowledged_survives_kill_9_amid_merges(
    tmp_path: Path, count: int
) -> None:
    acknowledged = acknowledged_until_killed(tmp_path, count)
    assert in_file(tmp_path, "events") > 0
    store = await opened(tmp_path)
    assert not any(await append(store, acknowledged))
    await store.aclose()


# --- removed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 20, 128])
async def test_a_removed_row_takes_its_key_along_and_may_come_again(tmp_path: Path, steps: int) -> None:
    store, names = await opened(tmp_path), named("a", 100)
    index = store._writer._db.keys.audit
    await store.write_audit([audit_record(name) for name in names])
    await merge(store, index, steps)
    while await store.count(CollectionName.AUDIT):
        await store.purge(Aged(CollectionName.AUDIT, NOW + 1), 1000)
    assert in_file(tmp_path, "audit") == 0
    await merge(store, index, 128)
    assert in_file(tmp_path, "audit") == 0
    await store.write_audit([audit_record(name) for name in names])
    await store.write_audit([audit_record(name) for name in names])
    assert await store.count(CollectionName.AUDIT) == 100
    copy = crashed(tmp_path)
    await store.aclose()
    store = await opened(copy)
    await store.write_audit([audit_record(name) for name in names])
    assert await store.count(CollectionName.AUDIT) == 100
    await store.aclose()


async def test_the_number_of_a_removed_row_is_given_to_no_other(tmp_path: Path) -> None:
    """The key of a row below the mark would be missed by the next life."""
    store = await opened(tmp_path)
    await store.write_audit([audit_record("a"), audit_record("b")])
    await merge(store, store._writer._db.keys.audit, 128)
    await store.purge(Aged(CollectionName.AUDIT, NOW + 1), 10)
    await store.aclose()
    store = await opened(tmp_path)
    await store.write_audit([audit_record("c")])
    with sqlite3.connect(tmp_path / "notifyd.db") as db:
        assert db.execute("SELECT rowid, id FROM audit").fetchall() == [(3, "c")]
    db.close()
    await store.aclose()


# --- how much at once --------------------------------------------------------------------------------------


def filled(folder: Path, count: int) -> tuple[keys.Database, KeyIndex]:
    """The keys of a file into which another program put very many rows."""
    db = open_writer(folder / "notifyd.db")
    migrate(db, folder)
    statement = rows.insert("audit", ("rowid", *rows.AUDIT))
    given = (
        (number, *rows.audit_row(audit_record(name))) for number, name in enumerate(named("a", count), 1)
    )
    db.execute("BEGIN")
    db.executemany(statement, given)
    db.execute("COMMIT")
    begin(db, Keys())
    return db, db.keys.audit


def test_a_step_merges_a_bounded_number_of_keys_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step runs on the event loop: what it does is counted in keys, as its time is the machine's."""
    monkeypatch.setattr(keys, "AT_ONCE", 20)
    db, index = filled(tmp_path, 4_000)
    written = []
    db.execute("BEGIN")
    while index.count:
        before = db.total_changes
        index.merged(index.merge(db))
        written.append(db.total_changes - before - 1)  # the mark is the one
    assert max(written) == 20
    assert sum(written) == 4_000
    assert db.execute("SELECT row FROM key_marks WHERE name = 'audit'").fetchone() == (4_000,)
    db.execute("COMMIT")
    db.close()


def test_under_constant_load_each_step_merges_a_share_of_the_keys_and_memory_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEPT", 2_000)
    db, index = filled(tmp_path, 0)
    statement, written = rows.insert("audit", ("rowid", *rows.AUDIT)), []
    db.execute("BEGIN")
    for name in named("a", 10_000):
        index.insert(db, statement, rows.audit_row(audit_record(name)))
        while index.full:
            before = db.total_changes
            index.merged(index.merge(db))
            written.append(db.total_changes - before - 1)
        assert index.count <= 2_000
    db.execute("COMMIT")
    steady = written[len(written) // 2 :]
    assert (
        20 < sum(steady) / len(steady) < 50
    )  # a bucket of 128 has filled to twice its mean when its turn comes
    assert max(steady) < 80
    db.close()


def test_no_key_is_passed_over_for_ever_by_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets that fill as fast as they are merged: what memory holds is of the newest rows alone."""
    monkeypatch.setattr(keys, "AT_ONCE", 10)
    db, index = filled(tmp_path, 3_000)
    statement = rows.insert("audit", ("rowid", *rows.AUDIT))
    db.execute("BEGIN")
    for number, name in enumerate(named("b", 20_000)):
        index.insert(db, statement, rows.audit_row(audit_record(name)))
        if number % 10 == 0:
            index.merged(index.merge(db))
    db.execute("COMMIT")
    (mark,) = db.execute("SELECT row FROM key_marks WHERE name = 'audit'").fetchone()
    assert mark > 23_000 - 3 * index.count
    db.close()


async def test_memory_stays_bounded_however_many_callers_wait(tmp_path: Path, small: None) -> None:
    counts = []

    class Counts:
        def commit(self, seconds: float, rows: int) -> None:
            counts.append(in_memory(store, "events") + in_memory(store, "audit"))

    store = await opened(tmp_path, observer=Counts(), limits=Limits(batch_steps=8))
    records = [[audit_record(name)] for name in named("a", 1_000)]
    given = [store.append(append_of(event(name))) for name in named("e", 1_000)]
    await asyncio.gather(*given, *map(store.write_audit, records))
    assert max(counts) < 1_300
    await store.aclose()


OPEN_AND_WEIGH = """
import re, sys
from pathlib import Path
from notifyd.store.sqlite.files import open_writer
from notifyd.store.sqlite.keys import Keys, begin

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

db = open_writer(Path(sys.argv[1]))
before = peak()
begin(db, Keys())
print(db.keys.audit.count, peak() - before, db.execute("PRAGMA cache_size").fetchone()[0])
"""

LARGE_ROWS = """
WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 8000)
INSERT INTO audit (rowid, tenant, id, name, at, actor, correlation_id, data)
SELECT number, 'acme', number, 'auth.refused', 0, '', '', hex(zeroblob(1500)) FROM numbers
"""


def test_a_start_that_reads_many_rows_for_their_keys_keeps_none_of_them_in_memory(tmp_path: Path) -> None:
    db, _ = filled(tmp_path, 0)
    db.execute(LARGE_ROWS)  # 32 MB
    db.close()
    command = [sys.executable, "-c", OPEN_AND_WEIGH, str(tmp_path / "notifyd.db")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    count, kilobytes, cache = map(int, done.stdout.split())
    assert (count, cache) == (8000, -65536)
    assert kilobytes < 10_000


# --- an older file -----------------------------------------------------------------------------------------


async def test_the_keys_of_a_file_from_before_are_kept_and_its_old_indexes_go(tmp_path: Path) -> None:
    db = connect(tmp_path / "notifyd.db")
    migrate(db, tmp_path, MIGRATIONS[:2])
    for number in range(1, 101):
        db.execute(
            rows.insert("events", ("rowid", *rows.EVENT)), (number, *rows.event_row(event(f"e{number}")))
        )
        given = (number, *rows.delivery_row(delivery(f"d{number}")), NOW, 0)
        db.execute(rows.insert("deliveries", ("rowid", *rows.DELIVERY, "due_at", "life")), given)
        db.execute("INSERT INTO messages (delivery, message) VALUES (?, '{}')", (number,))
    db.close()
    store = await opened(tmp_path)
    assert [in_file(tmp_path, table) for table in TABLES] == [100, 100, 0]
    assert [in_memory(store, table) for table in TABLES] == [0, 0, 0]
    assert await append(store, ["e1", "e100", "e101"]) == [False, False, True]
    assert await store.delivery(TENANT, "d100") is not None
    assert await store.insert_deliveries(None, [delivery("d1"), delivery("d101")]) == {"d101"}
    indexes = await store._read(lambda db: set(db.execute("SELECT name FROM sqlite_master")))
    assert not indexes & {("events_key",), ("deliveries_id",), ("audit_id",)}
    await store.aclose()
