"""Rows against a plain set: whatever befalls a store, each key that was taken is there, once."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from notifyd.errors import StoreError
from notifyd.model import SECOND, Outcome, State
from notifyd.store import Advance, Aged, CollectionName, Purged
from notifyd.store.sqlite import SqliteStore, deliveries, events, open_sqlite
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.writer import commit
from tests.store.makers import NODE, NOW, TurnableClock, append_of, audit_record, delivery, event

T = TypeVar("T")
COLUMN: Final = {CollectionName.EVENTS: "key", CollectionName.DELIVERIES: "id", CollectionName.AUDIT: "id"}
AGES: Final = 4


class Row(NamedTuple):
    table: CollectionName
    tenant: str
    key: str


class Given(NamedTuple):
    """A row to write, and what becomes of its step."""

    row: Row
    age: int  # seconds after `NOW`
    fate: str

    async def write(self, store: SqliteStore) -> bool | None:
        """Whether it was new, None where the store does not tell."""
        row, at = self.row, NOW + self.age * SECOND
        match row.table:
            case CollectionName.EVENTS:
                return await self._append(store, at)
            case CollectionName.DELIVERIES:
                one = delivery(row.key, tenant=row.tenant, state=State.SENT, ended_at=at, run_id=None)
                return bool(await store.insert_deliveries(None, [one]))
            case _:
                broken = [audit_record("broken", data={1: "no text"})] if self.fate == "spoilt" else []
                at = NOW + KEYS.index(row.key) % AGES * SECOND  # the same each time
                await store.write_audit([audit_record(row.key, tenant=row.tenant, at=at), *broken])
                return None

    async def _append(self, store: SqliteStore, at: int) -> bool:
        audit = (audit_record("broken", data={1: "no text"}),) if self.fate == "spoilt" else ()
        given = event(
            self.row.key, tenant=self.row.tenant, received_at=at, occurred_at=at, run_id=None, notify=False
        )
        advance = Advance(None, Outcome.ACCEPTED, False, audit=audit)
        return (await store.append(append_of(given, lambda _: advance))).fresh


class Commits:
    """Commits as it is told to: some fail, and of some a copy of the files is kept, as a kill would leave it."""

    def __init__(self) -> None:
        self.failing = False
        self.copy: tuple[Path, Path, str] | None = None  # from, to, and whether "before" or "after"

    def __call__(self, db: sqlite3.Connection) -> None:
        if self.failing:
            raise sqlite3.OperationalError("the disk is away")
        copy, self.copy = self.copy, None
        if copy is not None and copy[2] == "before":
            copied(copy[0], copy[1])
        commit(db)
        if copy is not None and copy[2] == "after":
            copied(copy[0], copy[1])


def copied(folder: Path, to: Path) -> None:
    to.mkdir()
    for name in ("notifyd.db", "notifyd.db-wal"):
        shutil.copy(folder / name, to / name)


KEYS: Final = [f"k{n}" for n in range(8)] + [sha256(bytes([n])).hexdigest() for n in range(8)]
ROWS: Final = st.builds(
    Row,
    st.sampled_from(list(COLUMN)),
    st.sampled_from(["acme", "globex"]),
    st.sampled_from(KEYS),
)
FATES: Final = st.sampled_from(["kept"] * 6 + ["spoilt", "withdrawn", "forgotten"])
GIVEN: Final = st.lists(st.builds(Given, ROWS, st.integers(0, AGES - 1), FATES), min_size=1, max_size=12)
FAULTS: Final = st.sampled_from([""] * 5 + ["commit", "busy", "full"])


class StoreMachine(RuleBasedStateMachine):
    """Runs a store beside `self.rows`, what is in it by all that it has said."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.temporary = TemporaryDirectory()
        self.folder = Path(self.temporary.name) / "0"
        self.folder.mkdir()
        self.copies = 0
        self.commits = Commits()
        self.rows: dict[Row, int] = {}
        self._open()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    def _open(self) -> None:
        path = self.folder / "notifyd.db"
        opening = open_sqlite(path, node=NODE, clock=TurnableClock(), timeout=0.01, commit=self.commits)
        self.store = self.run(opening)

    def teardown(self) -> None:
        try:
            self.run(self.store.aclose())
            with closing(sqlite3.connect(self.folder / "notifyd.db")) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        finally:
            self.runner.close()
            self.temporary.cleanup()

    # -- what befalls it ----------------------------------------------------------------------------------

    @rule(given=GIVEN, fault=FAULTS)
    def write(self, given: list[Given], fault: str) -> None:
        with self.faulty(fault):
            answers = self.run(self._write(given))
        assert fault or not any(isinstance(answer, StoreError) for answer in answers)
        found, told = self.stored(), self.rows.keys()
        for row in {one.row for one in given}:
            fresh = [answer for one, answer in zip(given, answers, strict=True) if one.row == row]
            assert fresh.count(True) <= (row not in told)
            if True in fresh or False in fresh:
                assert row in found
            if fresh.count(False) == len(fresh):
                assert row in told
        unsure = {one.row for one, answer in zip(given, answers, strict=True) if answer is None}
        sure = {one.row for one, answer in zip(given, answers, strict=True) if answer is True}
        assert told | sure <= found.keys() <= told | sure | unsure
        self.rows = found
        self.check()

    async def _write(self, given: list[Given]) -> list[bool | BaseException | None]:
        tasks = [asyncio.ensure_future(one.write(self.store)) for one in given]
        for fate in ("withdrawn", "forgotten"):  # before its turn, and, most likely, after
            await asyncio.sleep(0)
            for one, task in zip(given, tasks, strict=True):
                if one.fate == fate:
                    task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await self.store._writer._rest.wait()  # a step that was forgotten may still be under way
        for one, answer in zip(given, answers, strict=True):
            allowed = TypeError if one.fate == "spoilt" else StoreError
            assert answer is None or isinstance(
                answer, bool | StoreError | asyncio.CancelledError | allowed
            ), answer
        return [None if isinstance(answer, asyncio.CancelledError) else answer for answer in answers]

    @rule(
        table=st.sampled_from(list(COLUMN)), age=st.integers(1, AGES), limit=st.integers(1, 20), fault=FAULTS
    )
    def purge(self, table: CollectionName, age: int, limit: int, fault: str) -> None:
        with self.faulty(fault):
            answer = self.run(self._purge(Aged(table, NOW + age * SECOND), limit))
        found = self.stored()
        gone = self.rows.keys() - found.keys()
        assert all(row.table is table and self.rows[row] < age for row in gone)
        assert found.keys() <= self.rows.keys()
        assert fault or answer is not None
        if answer is not None:
            assert len(gone) == answer.removed
        self.rows = found
        self.check()

    async def _purge(self, aged: Aged, limit: int) -> Purged | None:
        with suppress(StoreError):
            return await self.store.purge(aged, limit)
        return None

    @rule()
    def reopen(self) -> None:
        self.run(self.store.aclose())
        self._open()
        self.check()

    @rule(given=GIVEN, moment=st.sampled_from(["before", "after"]))
    def kill(self, given: list[Given], moment: str) -> None:
        """Goes on with the files as they were at the commit: what had been said before must be in them."""
        copy = self._next()
        self.commits.copy = (self.folder, copy, moment)
        self.run(self._write(given))
        after = self.stored()
        if self.commits.copy is not None:  # all was withdrawn
            self.commits.copy = None
            copied(self.folder, copy)
        self._move(copy)
        found = self.stored()
        assert self.rows.keys() <= found.keys() <= after.keys()
        self.rows = found
        self.check()

    @rule(given=GIVEN)
    def restore_backup(self, given: list[Given]) -> None:
        """Of SQLite's own making, page by page, while rows are written."""
        copy = self._next()
        copy.mkdir()
        with (
            closing(sqlite3.connect(self.folder / "notifyd.db", check_same_thread=False)) as source,
            closing(sqlite3.connect(copy / "notifyd.db", check_same_thread=False)) as target,
        ):
            self.run(self._backed_up(given, source, target))
        after = self.stored()
        self._move(copy)
        found = self.stored()
        assert self.rows.keys() <= found.keys() <= after.keys()
        self.rows = found
        self.check()

    async def _backed_up(
        self, given: list[Given], source: sqlite3.Connection, target: sqlite3.Connection
    ) -> None:
        backup = asyncio.to_thread(source.backup, target, pages=5, sleep=0.0)
        await asyncio.gather(self._write(given), backup)

    @rule(chosen=st.integers(0, 999))
    def remove_by_another_program(self, chosen: int) -> None:
        if not self.rows:
            return
        row = sorted(self.rows)[chosen % len(self.rows)]
        with closing(sqlite3.connect(self.folder / "notifyd.db")) as db, db:
            where = f"FROM {row.table} WHERE tenant = ? AND {COLUMN[row.table]} = ?"
            if row.table is CollectionName.DELIVERIES:
                db.execute(f"DELETE FROM messages WHERE delivery = (SELECT rowid {where})", row[1:])  # noqa: S608
            assert db.execute(f"DELETE {where}", row[1:]).rowcount == 1
        del self.rows[row]
        self.check()

    def _next(self) -> Path:
        self.copies += 1
        return Path(self.temporary.name) / str(self.copies)

    def _move(self, copy: Path) -> None:
        self.run(self.store.aclose())
        self.folder = copy
        self._open()

    @contextmanager
    def faulty(self, fault: str) -> Iterator[None]:
        self.commits.failing = fault == "commit"
        with closing(sqlite3.connect(self.folder / "notifyd.db", isolation_level=None)) as other:
            if fault == "busy":
                other.execute("BEGIN IMMEDIATE")
            if fault == "full":
                self._limit_pages(1)  # SQLite makes of it as many as there are
            yield
            if fault == "full":
                self._limit_pages(2**30)
        self.commits.failing = False

    def _limit_pages(self, count: int) -> None:
        self.run(self._step(lambda db: db.execute(f"PRAGMA max_page_count = {count}").fetchone()))

    async def _step(self, step: Any) -> Any:
        return await self.store._writer.submit(step)

    # -- what must be so ----------------------------------------------------------------------------------

    def stored(self) -> dict[Row, int]:
        """The rows by another connection's reading of the tables, with their ages; none may be there twice."""
        found: dict[Row, int] = {}
        with closing(sqlite3.connect(self.folder / "notifyd.db")) as db:
            for table, age in (("events", "received_at"), ("deliveries", "ended_at"), ("audit", "at")):
                name = CollectionName(table)
                for tenant, key, at in db.execute(f"SELECT tenant, {COLUMN[name]}, {age} FROM {table}"):  # noqa: S608
                    row = Row(name, tenant, key)
                    assert row not in found
                    found[row] = (at - NOW) // SECOND
            lonely = "SELECT count(*) FROM deliveries WHERE rowid NOT IN (SELECT delivery FROM messages)"
            assert db.execute(lonely).fetchone() == (0,)
        return found

    def check(self) -> None:
        """Each row is found by its key, and nothing else."""
        assert self.stored() == self.rows
        self.run(self.store._read(self._check))

    def _check(self, db: Database) -> None:
        for tenant in ("acme", "globex"):
            for key in KEYS:
                event, delivery = events.find(db, tenant, key), deliveries.find(db, tenant, key)
                assert (event is not None) is (Row(CollectionName.EVENTS, tenant, key) in self.rows)
                assert (delivery is not None) is (Row(CollectionName.DELIVERIES, tenant, key) in self.rows)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=15,
    stateful_step_count=15,
    database=None,
    phases=[Phase.generate],  # to shrink what was found would take longer than a test may
    suppress_health_check=list(HealthCheck),
)
