"""Keys: the database itself lets none in twice, of whatever form, and a file of any older schema keeps its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import StoreError
from notifyd.model import AuditRecord, Outcome, State
from notifyd.store import Advance, Aged, AuditFilter, CollectionName, Page
from notifyd.store.sqlite import SqliteStore, open_sqlite, rows
from notifyd.store.sqlite.rows import dump
from notifyd.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from notifyd.store.sqlite.writer import commit
from tests.store.makers import (
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    append_of,
    approval,
    audit_record,
    decision,
    delivery,
    event,
    incident,
    insert,
)

HASH = sha256(b"e").hexdigest()
NO_HASHES = (
    "",
    "-1",
    " 7",
    "é" * 64,
    HASH[:32],  # what the index holds of HASH
    HASH[:63],
    HASH.upper(),
    f"{HASH}0",
    "order-" + "0" * 57 + "1",  # 64 characters each, the first 32 the same
    "order-" + "0" * 57 + "2",
)


async def opened(folder: Path, **options: Any) -> SqliteStore:
    return await open_sqlite(folder / "notifyd.db", node=NODE, clock=TurnableClock(), **options)


async def append(store: SqliteStore, names: Sequence[str]) -> list[bool]:
    """Whether each was new."""
    answers = await asyncio.gather(*(store.append(append_of(event(name))) for name in names))
    return [answer.fresh for answer in answers]


def named(prefix: str, count: int) -> list[str]:
    """Keys as notifyd's own are."""
    return [sha256(f"{prefix}{number}".encode()).hexdigest() for number in range(count)]


# --- of whatever form --------------------------------------------------------------------------------------


async def test_keys_of_any_form_are_told_apart_and_known_again(tmp_path: Path) -> None:
    """What another system exported may bear any."""
    store, names = await opened(tmp_path), [*NO_HASHES[:4], *NO_HASHES[5:], HASH, *named("e", 50)]
    deliveries = [delivery(name) for name in names]
    for fresh in (True, False):
        assert await append(store, names) == [fresh] * len(names)
        assert await store.insert_deliveries(None, deliveries) == (set(names) if fresh else set())
        await store.write_audit([audit_record(name) for name in names])
    assert [await store.delivery(TENANT, name) for name in names] == deliveries
    found = [await store.event(TENANT, name) for name in names]
    assert [one and one.key for one in found] == names
    records, _ = await store.audit(TENANT, AuditFilter(), Page(limit=100))
    assert sorted(one.id for one in records) == sorted(names)
    await store.aclose()


async def test_one_key_of_two_tenants_is_two_rows(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    both = [delivery(name, tenant=tenant) for name in named("d", 20) for tenant in ("acme", "globex")]
    for _ in range(2):
        await insert(store, *both)
    assert await store.count(CollectionName.DELIVERIES) == 40
    assert [await store.delivery(one.tenant, one.id) for one in both] == both
    assert await store.delivery("initech", both[0].id) is None
    await store.aclose()


async def test_an_event_that_the_index_takes_for_another_is_refused_and_not_acknowledged(
    tmp_path: Path,
) -> None:
    """Half of a hash is all that the index holds: that two share it must not lose one in silence."""
    store = await opened(tmp_path)
    assert await append(store, [HASH]) == [True]
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        await append(store, [HASH[:32]])
    assert await store.event(TENANT, HASH[:32]) is None
    assert await append(store, [HASH]) == [False]
    await store.aclose()


async def test_the_indexes_over_derived_keys_hold_half_of_each(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await append(store, [HASH])
    found = await store._read(lambda db: db.execute("SELECT short_key FROM events").fetchall())
    assert found == [(HASH[:32],)]
    await store.aclose()


@pytest.mark.parametrize("table", ["events", "deliveries", "audit"])
async def test_no_program_can_write_a_key_of_a_tenant_twice(tmp_path: Path, table: str) -> None:
    store = await opened(tmp_path)
    await append(store, [HASH])
    await insert(store, delivery(HASH))
    await store.write_audit([audit_record(HASH)])
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / "notifyd.db")) as db:
        db.execute(f"CREATE TEMP TABLE copy AS SELECT * FROM {table}")  # noqa: S608 - one of the three
        columns = {"events": rows.EVENT, "deliveries": (*rows.DELIVERY, "life"), "audit": rows.AUDIT}[table]
        again = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns)} FROM copy"  # noqa: S608
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
            db.execute(again)
        db.execute("UPDATE copy SET tenant = 'globex'")
        assert db.execute(again).rowcount == 1


async def test_every_unique_index_begins_with_the_tenant(tmp_path: Path) -> None:
    await (await opened(tmp_path)).aclose()
    unique = """
    SELECT one.name, (SELECT name FROM pragma_index_info(one.name) WHERE seqno = 0)
    FROM sqlite_master AS tables, pragma_index_list(tables.name) AS one
    WHERE tables.type = 'table' AND one."unique"
    """
    with closing(sqlite3.connect(tmp_path / "notifyd.db")) as db:
        first = dict(db.execute(unique).fetchall())
    assert first.pop("sqlite_autoindex_channel_state_1") == "channel", "a channel serves all tenants"
    assert first == dict.fromkeys(
        (
            *("events_key", "deliveries_id", "audit_id", "approvals_key", "incidents_key"),
            *("audit_seals_key", "silences_id", "deputies_id"),
        ),
        "tenant",
    )


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
    store, names = await opened(tmp_path, commit=commits), named("e", 10)
    await append(store, ["before"])
    commits.failing = True
    failed = [store.append(append_of(event(name))) for name in names]
    assert {type(end) for end in await asyncio.gather(*failed, return_exceptions=True)} == {StoreError}
    commits.failing = False
    assert await append(store, ["before", *names]) == [False, *[True] * 10]
    assert await append(store, ["before", *names]) == [False] * 11
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


async def test_the_key_of_a_removed_row_may_come_again(tmp_path: Path) -> None:
    store, records = await opened(tmp_path), [audit_record(name) for name in named("a", 20)]
    await store.write_audit(records)
    while await store.count(CollectionName.AUDIT):
        await store.purge(Aged(CollectionName.AUDIT, NOW + 1), 1000)
    for _ in range(2):
        await store.write_audit(records)
        assert await store.count(CollectionName.AUDIT) == 20
    await store.aclose()


# --- a file of before --------------------------------------------------------------------------------------

OLD = Path(__file__).with_name("schema4.sql").read_text()
"""A file as schema 4 left it: some keys are in its tables of keys, some are in the rows alone."""


def old_file(folder: Path, schema: int) -> Path:
    """A file of that schema with the rows of `OLD`."""
    script = OLD
    if schema == 3:
        script += "ALTER TABLE deliveries RENAME COLUMN fencing_token TO lease_number;"
    elif schema < 3:
        inserts = [line for line in OLD.splitlines() if line.startswith("INSERT")]
        ours = [line for line in inserts if '_keys"' not in line and '"key_marks"' not in line]
        script = "\n".join([*MIGRATIONS[:schema], "DELETE FROM store;", *ours])
    script += f"PRAGMA user_version = {schema}; PRAGMA application_id = {APPLICATION_ID};"
    path = folder / "notifyd.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    return path


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
async def test_a_file_of_an_older_schema_keeps_its_rows_and_knows_their_keys(
    tmp_path: Path, schema: int
) -> None:
    path = old_file(tmp_path, schema)
    events, ids = named("e", 4), named("d", 4)
    store = await opened(tmp_path)
    assert await append(store, [*events, "e1", "x" * 64, "x" * 63 + "y", "hold"]) == [False] * 8
    assert await store.insert_deliveries(None, [delivery(one) for one in [*ids, "d1"]]) == set()
    await store.write_audit([audit_record(one) for one in [*named("a", 2), "a1"]])
    assert await store.count(CollectionName.AUDIT) == 4
    found = [await store.delivery(TENANT, one) for one in ids]
    assert [one and one.state for one in found] == [State.SENT, *[State.PENDING] * 3]
    assert [one and len(one.attempts) for one in found] == [1, 1, 0, 0]
    assert await store.approval(approval(run_id="run-1").key) == approval(run_id="run-1")
    assert await store.count(CollectionName.INCIDENTS) == 1
    assert incident() in (await store.dump(CollectionName.INCIDENTS, "", 10))[0]
    assert len(await store.claim_unplanned(NODE, NOW, NOW + 1, 10)) == 5
    assert await append(store, ["new"]) == [True]
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


APPLIED = [
    {"event_key": "e1", "version": 1, "round": 1, "outcome": "opened"},
    {"event_key": "e2", "version": 2, "round": 2, "outcome": "new_round", "occurred_at": NOW - 9},
    {"event_key": "e3", "version": 3, "round": 2, "outcome": "recorded", "occurred_at": NOW + 7},
]


async def test_decisions_of_earlier_rounds_get_a_table_of_their_own_and_no_row_keeps_its_events(
    tmp_path: Path,
) -> None:
    path = old_file(tmp_path, 4)
    earlier = [decision(), decision("bob@acme.example", comment="nicht 'so'")]
    present = decision(round=2, plan_hash="sha256:02")
    with closing(sqlite3.connect(path)) as db:
        values = (dump((*earlier, present)), dump(APPLIED))
        db.execute("UPDATE approvals SET round = 2, decisions = ?, applied = ? WHERE rowid = 1", values)
        db.execute("UPDATE approvals SET applied = ? WHERE rowid = 2", (dump(APPLIED[:1]),))
        db.commit()
    store = await opened(tmp_path)
    given = approval(run_id="run-0", round=2, decisions=(present,), heard_again_at=NOW + 7)
    assert await store.approval(given.key) == given
    assert await store.superseded(given.key, 9) == earlier
    assert await store.approval(approval(run_id="run-1").key) == approval(run_id="run-1")
    assert (await store.dump(CollectionName.INCIDENTS, "", 9))[0] == [incident()]
    await store.aclose()


@pytest.mark.parametrize("schema", [1, 4])
async def test_a_file_of_an_older_schema_becomes_what_a_new_one_is(tmp_path: Path, schema: int) -> None:
    old_file(tmp_path, schema)
    (tmp_path / "new").mkdir()
    for folder in (tmp_path, tmp_path / "new"):
        await (await opened(folder)).aclose()
    assert shape_of(tmp_path) == shape_of(tmp_path / "new")


def shape_of(folder: Path) -> set[tuple[str, ...]]:
    """The tables, their columns and the indexes of a file."""
    with closing(sqlite3.connect(folder / "notifyd.db")) as db:
        found = set(db.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall())
        for _, name, _ in sorted(found):
            found |= {
                (name, *row) for row in db.execute("SELECT name, type FROM pragma_table_xinfo(?)", (name,))
            }
    return found


async def test_a_file_in_which_a_key_stands_twice_is_refused_by_name_and_left_as_it_was(
    tmp_path: Path,
) -> None:
    path = old_file(tmp_path, 4)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO audit SELECT 99, tenant, id, name, at, actor, '', NULL, NULL, data FROM audit LIMIT 1"
        )
    with pytest.raises(StoreError, match=r"notifyd\.db: UNIQUE constraint failed: audit"):
        await opened(tmp_path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4,)
        assert db.execute("SELECT count(*) FROM key_marks").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM audit").fetchone() == (5,)
