"""A file that is moved, deleted, replaced, cut or corrupt under the store: nothing more is acknowledged."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

import pytest

from notifyd.errors import StoreError, StoreMissingError, StoreUnusableError
from notifyd.store.sqlite import SqliteStore, open_sqlite
from tests.store.makers import NODE, TENANT, TurnableClock, append_of, delivery, event, insert

OWN: Final = ("", "-wal", "-shm", ".lock")
PAGE: Final = 4096


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, node=NODE, clock=TurnableClock(), **options)
    try:
        yield store
    finally:
        await store.aclose()


async def accepts(store: SqliteStore, key: str) -> None:
    assert (await store.append(append_of(event(key)))).fresh


async def refuses(store: SqliteStore, key: str = "refused") -> StoreUnusableError:
    """Neither an event is taken nor is the store ready; the reason."""
    with pytest.raises(StoreUnusableError) as caught:
        await store.append(append_of(event(key)))
    with pytest.raises(StoreUnusableError):
        await store.probe()
    return caught.value


async def has(path: Path, *keys: str) -> bool:
    async with opened(path, create=False) as store:
        return all([await store.event(TENANT, key) is not None for key in keys])


# --- moved, deleted, replaced ------------------------------------------------------------------------------


def take_away(own: Path, aside: Path, how: str) -> None:
    if how == "deleted":
        own.unlink()
    else:
        own.rename(aside)
    if how == "replaced":
        shutil.copy(aside, own)


@pytest.mark.parametrize("suffix", OWN)
@pytest.mark.parametrize("away", ["moved", "deleted", "replaced"])
async def test_no_event_is_taken_while_a_file_of_the_store_is_not_in_its_place(
    tmp_path: Path, suffix: str, away: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notifyd.db"
    own, aside = Path(f"{path}{suffix}"), tmp_path / "aside"
    async with opened(path) as store:
        await accepts(store, "before")
        take_away(own, aside, away)
        fault = await refuses(store)
        assert str(own) in fault.detail
        assert "runbook" in fault.detail
        assert fault.retry_after >= 10
        assert await store.event(TENANT, "before") is not None
        assert len([one for one in caplog.records if one.levelname == "CRITICAL"]) == 1
        if away != "deleted":
            aside.rename(own)
            await accepts(store, "after")
            await store.probe()
    if away != "deleted":
        assert await has(path, "before", "after")
    elif suffix:
        assert await has(path, "before"), "what the log held was written into the database"


async def test_what_a_moved_database_has_accepted_is_in_it_without_its_log(tmp_path: Path) -> None:
    path, aside = tmp_path / "notifyd.db", tmp_path / "aside" / "notifyd.db"
    aside.parent.mkdir()
    async with opened(path) as store:
        await accepts(store, "before")
        path.rename(aside)
        await refuses(store)
        with sqlite3.connect(f"file:{aside}?immutable=1", uri=True) as db:
            assert ("before",) in db.execute("SELECT key FROM events").fetchall()
        db.close()
    assert await has(aside, "before")


def delete(path: Path, suffixes: Sequence[str]) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def rescue(path: Path, copy: Path) -> Iterator[set[str]]:
    """The keys of events in each copy of a deleted file, made by another program, as the runbook says."""
    gone = f"{path} (deleted)"
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink() and str(descriptor.readlink()) == gone:
            subprocess.run(["/bin/cp", f"/proc/{os.getpid()}/fd/{descriptor.name}", copy], check=True)
            with closing(sqlite3.connect(copy)) as db:
                yield {key for (key,) in db.execute("SELECT key FROM events")}


@pytest.mark.parametrize("files", [("",), OWN], ids=["the-database", "all-four"])
async def test_a_deleted_database_is_copied_whole_from_the_process_that_has_it_open(
    tmp_path: Path, files: Sequence[str]
) -> None:
    path, copy = tmp_path / "notifyd.db", tmp_path / "rescued.db"
    async with opened(path) as store:
        await accepts(store, "one")
        await accepts(store, "two")
        delete(path, files)
        await refuses(store)
        copies = list(rescue(path, copy))
        assert copies
        assert all(keys >= {"one", "two"} for keys in copies)
    delete(path, ("-wal", "-shm"))
    copy.rename(path)
    assert await has(path, "one", "two")


async def test_a_file_that_is_put_in_the_place_of_a_moved_one_is_left_alone(tmp_path: Path) -> None:
    path, backup = tmp_path / "notifyd.db", tmp_path / "backup.db"
    async with opened(path) as store:
        await accepts(store, "kept")
        with sqlite3.connect(path) as db, sqlite3.connect(backup) as copy:
            db.backup(copy)
        db.close()
        copy.close()
        await accepts(store, "later")
        backup.replace(path)
        before = path.read_bytes()
        await refuses(store)
    assert path.read_bytes() == before
    assert await has(path, "kept")
    assert not await has(path, "later")


async def test_no_event_is_taken_while_the_folder_has_another_name(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    async with opened(folder / "notifyd.db") as store:
        await accepts(store, "before")
        folder.rename(other)
        await refuses(store)
        other.rename(folder)
        await accepts(store, "after")
    assert await has(folder / "notifyd.db", "before", "after")


async def test_no_event_is_taken_once_the_link_that_names_the_file_leads_elsewhere(tmp_path: Path) -> None:
    link = tmp_path / "notifyd.db"
    link.symlink_to(tmp_path / "one.db")
    async with opened(link) as store:
        await accepts(store, "before")
        link.unlink()
        link.symlink_to(tmp_path / "two.db")
        await refuses(store)


async def test_a_relative_name_means_the_same_file_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(Path("notifyd.db")) as store:
        monkeypatch.chdir("/")
        await accepts(store, "one")


async def test_an_event_is_refused_whose_commit_the_file_s_end_has_overtaken(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"

    def commit_late(db: sqlite3.Connection) -> None:
        if armed:
            path.unlink()
        db.execute("COMMIT")

    armed: list[bool] = []
    async with opened(path, commit=commit_late) as store:
        await accepts(store, "before")
        armed.append(True)
        await refuses(store)


# --- cut, overwritten --------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2 * PAGE)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    """As `cp` does: the same file, an older content."""
    path.write_bytes(path.with_name("older.db").read_bytes())


def spoil(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 10_000)


@pytest.mark.parametrize("change", [cut, empty, overwrite, spoil])
async def test_no_event_is_taken_once_the_file_was_overwritten_and_only_a_restart_mends_it(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        await accepts(store, "old")
    shutil.copy(path, tmp_path / "older.db")
    async with opened(path) as store:
        for number in range(20):
            await store.append(append_of(event(f"large-{number}", body="x" * 50_000)))
    async with opened(path) as store:
        await accepts(store, "before")
        whole = path.read_bytes()
        change(path)
        assert "overwritten" in (await refuses(store)).detail
        path.write_bytes(whole)
        await refuses(store)


async def test_a_vacuum_by_another_program_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        for number in range(20):
            await store.append(append_of(event(f"large-{number}", body="x" * 50_000)))
        await store._writer.submit(lambda db: db.execute("UPDATE events SET body = ''"))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        assert path.stat().st_size < 500_000
        await accepts(store, "after")
        await store.probe()
    assert await has(path, "after")


async def test_no_event_is_taken_once_the_log_was_emptied_by_another_hand(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        await accepts(store, "before")
        (tmp_path / "notifyd.db-wal").write_bytes(b"")
        assert "-wal" in (await refuses(store)).detail
        await refuses(store, "again")


async def test_a_log_that_another_program_has_checkpointed_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            await accepts(store, f"before-{mode}")
            db = sqlite3.connect(path, isolation_level=None)
            db.execute(f"PRAGMA wal_checkpoint({mode})")
            db.close()
            await accepts(store, f"after-{mode}")


# --- corrupt -----------------------------------------------------------------------------------------------


async def with_large_rows(path: Path, count: int = 60) -> None:
    async with opened(path) as store:
        for number in range(count):
            await insert(store, delivery(f"d{number}", message="x" * 20_000))


def corrupt(path: Path, first: int, last: int | None = None) -> None:
    """Overwrite pages, counted from 0."""
    content = bytearray(path.read_bytes())
    end = len(content) if last is None else last * PAGE
    content[first * PAGE : end] = b"\xff" * (end - first * PAGE)
    path.write_bytes(content)


async def test_a_corrupt_page_that_a_reader_meets_ends_the_taking_of_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notifyd.db"
    await with_large_rows(path)
    corrupt(path, -50)
    async with opened(path) as store:
        await accepts(store, "before")
        for _ in range(2):
            with pytest.raises(
                StoreUnusableError, match=r"notifyd\.db: the file is corrupt: .*restore a backup"
            ):
                await store.delivery(TENANT, "d59")
        fault = await refuses(store)
        assert "the file is corrupt" in fault.detail
        assert fault.retry_after >= 10
        assert await store.delivery(TENANT, "d0") is not None, "what can be read is shown"
    assert len([one for one in caplog.records if one.levelname == "CRITICAL"]) == 1
    async with opened(path) as store:
        await accepts(store, "of the next life")


async def test_a_corrupt_page_that_a_step_meets_ends_the_taking_of_events(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    await with_large_rows(path)
    corrupt(path, -50)
    async with opened(path) as store:
        read = "SELECT sum(length(message)) FROM messages"
        with pytest.raises(StoreUnusableError, match="corrupt"):
            await store._writer.submit(lambda db: db.execute(read).fetchone())
        await refuses(store)


@pytest.mark.parametrize(
    "name",
    ["CORRUPT", "CORRUPT_INDEX", "NOTADB", "IOERR_READ", "IOERR_SHORT_READ", "IOERR_CORRUPTFS", "IOERR_DATA"],
)
async def test_what_says_that_the_file_is_broken_ends_the_taking_of_events(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / "notifyd.db") as store:
        with pytest.raises(StoreUnusableError):
            await store._readers.run(raising(f"SQLITE_{name}"))
        await refuses(store)


@pytest.mark.parametrize("name", ["FULL", "BUSY", "IOERR_WRITE", "IOERR_FSYNC", "READONLY", "NOMEM"])
async def test_what_passes_does_not(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / "notifyd.db") as store:
        with pytest.raises(StoreError) as caught:
            await store._readers.run(raising(f"SQLITE_{name}"))
        assert not isinstance(caught.value, StoreUnusableError)
        await accepts(store, "one")


def raising(name: str) -> Callable[[sqlite3.Connection], None]:
    def query(db: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("as SQLite says it")
        error.sqlite_errorname = name
        error.sqlite_errorcode = getattr(sqlite3, name)
        raise error

    return query


async def test_a_table_that_another_program_drops_ends_the_taking_of_events(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE deliveries")
        db.close()
        with pytest.raises(StoreUnusableError, match="no such table: deliveries"):
            await store.delivery(TENANT, "d1")
        await refuses(store)


# --- at the start ------------------------------------------------------------------------------------------


async def changed(folder: Path, *statements: str) -> Path:
    """A store that another program has changed since it was closed."""
    path = folder / "notifyd.db"
    async with opened(path):
        pass
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()
    return path


@pytest.mark.parametrize("what", ["TABLE messages", "INDEX events_key"])
async def test_a_store_that_lacks_a_table_or_an_index_is_refused(tmp_path: Path, what: str) -> None:
    path = await changed(tmp_path, f"DROP {what}")
    with pytest.raises(StoreUnusableError, match=rf"lacks {what.split()[1]}: .*restore a backup"):
        await open_sqlite(path, node=NODE, clock=TurnableClock())


async def test_a_store_with_an_index_of_somebody_s_own_is_opened(tmp_path: Path) -> None:
    path = await changed(tmp_path, "CREATE INDEX theirs ON events (client)")
    async with opened(path) as store:
        await accepts(store, "one")


async def test_a_store_whose_own_row_is_gone_is_refused(tmp_path: Path) -> None:
    path = await changed(tmp_path, "DELETE FROM store")
    with pytest.raises(StoreUnusableError, match="lacks its row in store"):
        await open_sqlite(path, node=NODE, clock=TurnableClock())


async def test_a_malformed_schema_is_refused(tmp_path: Path) -> None:
    path = await changed(
        tmp_path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE nonsense (' WHERE name = 'events'",
    )
    with pytest.raises(StoreUnusableError, match="the file is corrupt"):
        await open_sqlite(path, node=NODE, clock=TurnableClock())


async def test_a_start_after_the_file_was_deleted_under_a_life_refuses_where_none_may_be_made(
    tmp_path: Path,
) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        path.unlink()
        await refuses(store)
    with pytest.raises(StoreMissingError):
        await open_sqlite(path, node=NODE, clock=TurnableClock(), create=False)


async def test_many_callers_are_all_refused(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    async with opened(path) as store:
        path.unlink()
        ends = await asyncio.gather(
            *(store.append(append_of(event(f"e{n}"))) for n in range(2000)), return_exceptions=True
        )
        assert all(isinstance(end, StoreUnusableError) for end in ends)
