"""Opening a file: who may, what is refused, and what the refusal says."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from notifyd.errors import StoreError, StoreInUseError, StoreMissingError, StoreOutdatedError
from notifyd.store.sqlite import SqliteStore, open_sqlite
from notifyd.store.sqlite.files import open_writer
from notifyd.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, migrate
from tests.store.makers import NODE, TENANT, TurnableClock, append_of, delivery, event, insert


async def opened(path: Path) -> SqliteStore:
    return await open_sqlite(path, node=NODE, clock=TurnableClock())


async def refused(path: Path, expected: type[Exception] = StoreError) -> str:
    """What opening `path` is refused with."""
    with pytest.raises(expected) as caught:
        await opened(path)
    return str(caught.value)


def run_python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


# --- one owner ---------------------------------------------------------------------------------------------

HOLD = """
import asyncio, sys
from pathlib import Path
from notifyd.store.sqlite import open_sqlite

async def main():
    store = await open_sqlite(Path(sys.argv[1]), node="node-b", clock=lambda: 0)
    print("open", flush=True)
    sys.stdin.readline()
    await store.aclose()

asyncio.run(main())
"""


async def test_a_second_process_is_told_who_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    holder = run_python(HOLD, str(path))
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        message = await refused(path, StoreInUseError)
        assert message == f"{path}: in use by process {holder.pid}, node node-b"
        holder.communicate("\n")
    await (await opened(path)).aclose()


async def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    with run_python(HOLD, str(path)) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    await (await opened(path)).aclose()


async def test_the_same_file_by_another_name_is_in_use_too(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "notifyd.db")
    store = await opened(tmp_path / "notifyd.db")
    await refused(tmp_path / "link.db", StoreInUseError)
    await store.aclose()
    await (await opened(tmp_path / "link.db")).aclose()


async def test_a_second_opening_does_not_disturb_the_first(tmp_path: Path) -> None:
    store = await opened(tmp_path / "notifyd.db")
    await refused(tmp_path / "notifyd.db", StoreInUseError)
    assert (await store.append(append_of(event()))).fresh
    await store.aclose()


# --- files -------------------------------------------------------------------------------------------------


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_what_is_created_is_for_the_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        store = await opened(tmp_path / "notifyd.db")
    finally:
        os.umask(previous)
    assert modes_in(tmp_path) == dict.fromkeys(
        ("notifyd.db", "notifyd.db-wal", "notifyd.db-shm", "notifyd.db.lock"), 0o600
    )
    await store.aclose()


async def test_what_root_makes_belongs_to_whoever_has_the_folder_or_the_database(tmp_path: Path) -> None:
    """Anybody else makes files of their own, in a folder of their own."""
    folder, others = tmp_path / "service", (1234, 2345) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    folder.mkdir()
    os.chown(folder, *others)
    for owner in (others, (others[0], os.getgid())):
        store = await opened(folder / "notifyd.db")
        found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()}
        assert found == dict.fromkeys(
            ("notifyd.db", "notifyd.db-wal", "notifyd.db-shm", "notifyd.db.lock"), owner
        )
        await store.aclose()
        (folder / "notifyd.db.lock").unlink()
        os.chown(folder / "notifyd.db", others[0], os.getgid())


async def test_a_lock_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("keep this")
    (tmp_path / "notifyd.db.lock").symlink_to(tmp_path / "elsewhere")
    assert "cannot be written" in await refused(tmp_path / "notifyd.db")
    assert (tmp_path / "elsewhere").read_text() == "keep this"


@pytest.mark.parametrize("empty", [True, False])
async def test_where_there_is_no_store_none_is_made_unless_it_may_be(
    empty: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notifyd.db"
    if empty:
        path.touch()
    before = modes_in(tmp_path)
    with pytest.raises(StoreMissingError, match=rf"{path}: no store is there"):
        await open_sqlite(path, node=NODE, clock=TurnableClock(), create=False)
    assert modes_in(tmp_path) == before
    for _ in range(2):
        await (await opened(path)).aclose()
    assert [one.message for one in caplog.records] == [f"{path}: no store was there, an empty one is made"]
    await (await open_sqlite(path, node=NODE, clock=TurnableClock(), create=False)).aclose()


async def test_a_write_ahead_log_without_its_database_is_kept(tmp_path: Path) -> None:
    """What was committed may be in it: SQLite would throw it away together with the events it holds."""
    path, log = tmp_path / "notifyd.db", tmp_path / "notifyd.db-wal"
    with run_python(HOLD, str(path)) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    size = log.stat().st_size
    path.rename(tmp_path / "elsewhere.db")
    assert await refused(path) == f"{log}: has lost its database {path}: put that back, or remove both"
    assert log.stat().st_size == size > 0
    (tmp_path / "elsewhere.db").rename(path)
    await (await opened(path)).aclose()


async def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    assert await refused(folder / "notifyd.db") == f"{folder}: no such folder; create it, or change store.url"
    assert not folder.exists()


async def test_a_folder_in_the_file_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notifyd.db").mkdir()
    assert str(tmp_path / "notifyd.db") in await refused(tmp_path / "notifyd.db")


UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
from notifyd.errors import StoreError
from notifyd.store.sqlite import open_sqlite

async def main():
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        await open_sqlite(Path(sys.argv[1]), node="n", clock=lambda: 0)
    except StoreError as error:
        print(error)

asyncio.run(main())
"""


async def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    for shut in (folder, tmp_path):
        shut.chmod(0o555)
    with run_python(UNPRIVILEGED, f"{folder}/notifyd.db") as process:
        answer, _ = process.communicate()
    for shut in (tmp_path, folder):
        shut.chmod(0o755)
    assert answer == f"{folder}/notifyd.db: cannot be written in {folder}: Permission denied\n"


async def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    path.write_bytes(b"not a database at all" * 1000)
    assert (
        await refused(path) == f"{path}: not an SQLite database, or corrupt: restore a backup (SQLITE_NOTADB)"
    )


async def test_a_file_with_broken_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    await (await opened(path)).aclose()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    assert await refused(path) == f"{path}: the file is corrupt: restore a backup (SQLITE_CORRUPT)"


async def test_a_page_that_breaks_later_fails_the_step_that_meets_it(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    store = await opened(path)
    await insert(store, delivery())
    await insert(store, delivery("large", message="x" * 400_000))
    await store.aclose()
    content = bytearray(path.read_bytes())
    content[-50 * 4096 :] = b"\xff" * (50 * 4096)  # of the large message's
    path.write_bytes(content)
    store = await opened(path)
    with pytest.raises(StoreError, match=r"notifyd\.db: the file is corrupt"):
        await store.delivery(TENANT, "large")
    assert await store.delivery(TENANT, "d1") == delivery()
    await store.aclose()


async def test_a_refused_opening_leaves_the_file_free(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    path.write_bytes(b"not a database at all" * 1000)
    await refused(path)
    path.unlink()
    await (await opened(path)).aclose()


# --- schema ------------------------------------------------------------------------------------------------


def schema_of(path: Path) -> tuple[int, int]:
    db = sqlite3.connect(path)
    marks = db.execute("PRAGMA user_version").fetchone()[0], db.execute("PRAGMA application_id").fetchone()[0]
    db.close()
    return marks


async def test_a_new_file_gets_the_newest_schema(tmp_path: Path) -> None:
    await (await opened(tmp_path / "notifyd.db")).aclose()
    assert schema_of(tmp_path / "notifyd.db") == (len(MIGRATIONS), APPLICATION_ID)


async def test_an_older_file_goes_through_the_steps_it_lacks_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    store = await opened(path)
    await store.append(append_of(event()))
    await store.aclose()
    steps = (*MIGRATIONS, "CREATE TABLE one (x)", "CREATE TABLE two (x); INSERT INTO two VALUES (1)")
    for _ in range(2):
        db = open_writer(path)
        migrate(db, path, steps)
        assert db.execute("SELECT count(*) FROM two").fetchone() == (1,)
        assert db.execute("SELECT key FROM events").fetchall() == [("e1",)]
        db.close()
    assert schema_of(path)[0] == len(steps)


async def test_an_older_file_is_upgraded_with_a_line_in_the_log_and_where_it_may_not_be_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notifyd.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(Path(__file__).with_name("schema4.sql").read_text())
        db.executescript(f"PRAGMA user_version = 4; PRAGMA application_id = {APPLICATION_ID}")
    before = path.read_bytes()
    with pytest.raises(
        StoreOutdatedError, match=f"has schema 4, .* changes it to {len(MIGRATIONS)} at its start"
    ):
        await open_sqlite(path, node=NODE, clock=TurnableClock(), upgrade=False)
    assert path.read_bytes() == before
    await (await opened(path)).aclose()
    assert caplog.messages == [f"{path}: schema 4 is now {len(MIGRATIONS)}, and nothing changes it back"]
    await (await open_sqlite(path, node=NODE, clock=TurnableClock(), upgrade=False)).aclose()
    assert len(caplog.messages) == 1


def test_a_step_that_fails_leaves_the_schema_before_it(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    db = open_writer(path)
    steps = (*MIGRATIONS, "CREATE TABLE one (x)", "CREATE TABLE two (x); SELECT nonsense FROM nowhere")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(db, path, steps)
    assert db.execute("SELECT name FROM sqlite_master WHERE name IN ('one', 'two')").fetchall() == [("one",)]
    db.close()
    assert schema_of(path)[0] == len(MIGRATIONS) + 1


async def test_a_file_of_a_newer_notifyd_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    await (await opened(path)).aclose()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    message = await refused(path)
    assert message.startswith(
        f"{path}: written by a newer notifyd (schema 999; this one knows {len(MIGRATIONS)})"
    )
    assert schema_of(path)[0] == 999


def contents(path: Path) -> list[bytes]:
    """Of the database and its log."""
    return [path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()]


async def test_a_file_that_a_newer_notifyd_left_with_its_log_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    there, copy = tmp_path / "there.db", tmp_path / "notifyd.db"
    store = await opened(there)
    await store._writer.submit(lambda db: db.execute("PRAGMA user_version = 999").fetchone())
    for suffix in ("", "-wal"):  # as after a power failure
        shutil.copy(f"{there}{suffix}", f"{copy}{suffix}")
    await store.aclose()
    before = contents(copy)
    assert all(before)
    assert "newer notifyd" in await refused(copy)
    assert contents(copy) == before


async def test_another_program_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    assert await refused(path) == f"{path}: an SQLite database, but not one of notifyd's"
    assert schema_of(path) == (0, 0)


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "notifyd.db").touch()
    await (await opened(tmp_path / "notifyd.db")).aclose()
    assert schema_of(tmp_path / "notifyd.db")[0] == len(MIGRATIONS)
