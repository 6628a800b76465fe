"""What was acknowledged survives: a killed process, a full disk, a restart with much in flight."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import StoreError
from notifyd.model import Event
from notifyd.store.sqlite import SqliteStore, open_sqlite
from notifyd.store.sqlite.files import broken_pages, open_writer
from notifyd.store.sqlite.writer import Limits
from tests.store.makers import (
    HOUR,
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    append_of,
    approval,
    delivery,
    event,
    insert,
    leased,
    opening,
)

ROOT = Path(__file__).parents[2]


async def opened(folder: Path, **options: Any) -> SqliteStore:
    return await open_sqlite(folder / "notifyd.db", node=NODE, clock=TurnableClock(), **options)


async def known(store: SqliteStore, given: Event) -> bool:
    return not (await store.append(append_of(given))).fresh


def test_every_commit_is_flushed_to_the_disk_and_none_runs_a_checkpoint(tmp_path: Path) -> None:
    db = open_writer(tmp_path / "notifyd.db")
    names = ("journal_mode", "synchronous", "wal_autocheckpoint")
    assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == ["wal", 2, 0]
    db.close()


# --- a killed process --------------------------------------------------------------------------------------

APPEND_FOREVER = """
import asyncio, sys
from pathlib import Path
from notifyd.store.sqlite import open_sqlite
from notifyd.store.sqlite.writer import Limits
from tests.store.makers import append_of, approval, event, opening

LIMITS = Limits(idle_checkpoint=1, busy_checkpoint=1, checkpoint_pause=0) if sys.argv[2] == "copying" else None

async def caller(store, number):
    count = 0
    while True:
        run = f"{number}-{count}"
        given = event(f"e{run}", run_id=run)
        await store.append(append_of(given, opening(approval(run_id=run))))
        print(run, flush=True)
        count += 1

async def main():
    store = await open_sqlite(Path(sys.argv[1]), node="n", clock=lambda: 0, limits=LIMITS)
    await asyncio.gather(*(caller(store, number) for number in range(32)))

asyncio.run(main())
"""


def acknowledged_until_killed(folder: Path, count: int, how: str) -> list[str]:
    """The runs whose appends a process acknowledged, killed once there are `count`."""
    command = [sys.executable, "-c", APPEND_FOREVER, str(folder / "notifyd.db"), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


async def test_every_acknowledged_append_survives_kill_9(tmp_path: Path) -> None:
    """Also while the log is copied into the database, which it is at nearly every moment of `copying`."""
    for count, how in ((200, "copying"), (533, "plain"), (866, "copying")):
        folder = tmp_path / str(count)
        folder.mkdir()
        runs = acknowledged_until_killed(folder, count, how)
        store = await opened(folder)
        assert not broken_pages(folder / "notifyd.db")
        found = await asyncio.gather(*(store.approval(approval(run_id=run).key) for run in runs))
        assert all(found)
        assert all([await known(store, event(f"e{run}", run_id=run)) for run in runs])
        await store.aclose()


# --- a full disk -------------------------------------------------------------------------------------------


async def fill(store: SqliteStore, name: str) -> tuple[list[str], list[str]]:
    """Append until the disk is full: the keys acknowledged, and those refused."""
    acknowledged, refused, reasons = [], [], set()
    for number in range(500):
        key = f"{name}-{number}"
        try:
            await store.append(append_of(event(key, body=f'{{"x":"{"x" * 3000}"}}')))
            acknowledged.append(key)
        except StoreError as error:
            refused.append(key)
            reasons.add(error.detail.partition("notifyd.db: ")[2])
            if len(refused) == 5:
                assert reasons == {"the disk is full (SQLITE_FULL)"}
                return acknowledged, refused
    raise AssertionError("the disk never filled up")


async def test_a_full_database_refuses_what_it_cannot_keep_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path)
    await limit_pages(store, 100)
    acknowledged, refused = await fill(store, "e")
    assert acknowledged
    with pytest.raises(StoreError, match="disk is full"):
        await store.append(append_of(event("another", body=f'{{"y":"{"y" * 9000}"}}')))
    await limit_pages(store, 100_000)
    assert (await store.append(append_of(event("after")))).fresh
    assert not any([await known(store, event(key)) for key in refused])
    await store.aclose()
    store = await opened(tmp_path)
    assert all([await known(store, event(key)) for key in [*acknowledged, "after"]])
    await store.aclose()


async def limit_pages(store: SqliteStore, count: int) -> None:
    await store._writer.submit(lambda db: db.execute(f"PRAGMA max_page_count = {count}").fetchone())


async def test_a_step_that_finds_the_disk_full_fails_its_whole_batch_with_the_reason(tmp_path: Path) -> None:
    store = await opened(tmp_path, limits=Limits(batch_seconds=60))
    await limit_pages(store, 100)
    large = append_of(event("large", body=f'{{"x":"{"x" * 1_000_000}"}}'))
    small = [append_of(event(f"small-{number}")) for number in range(3)]
    results = await asyncio.gather(*map(store.append, [*small, large]), return_exceptions=True)
    assert [type(result) for result in results] == [StoreError] * 4
    assert [appended.fresh for appended in await asyncio.gather(*map(store.append, small))] == [True] * 3
    await store.aclose()


LIMITED_FILES = """
import asyncio, resource, sys
from pathlib import Path
from notifyd.errors import StoreError
from notifyd.store.sqlite import open_sqlite
from tests.store.makers import append_of, event

_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)

async def main():
    store = await open_sqlite(Path(sys.argv[1]), node="n", clock=lambda: 0)
    for limit, name in ((1_000_000, "a"), (HARD, "b"), (2_000_000, "c"), (HARD, "d")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, HARD))
        for number in range(300):
            given = [event(f"{name}{number}-{n}", body='{"x":"' + "x" * 500 + '"}') for n in range(4)]
            appends = [store.append(append_of(one)) for one in given]
            for n, result in enumerate(await asyncio.gather(*appends, return_exceptions=True)):
                assert isinstance(result, StoreError) or result.fresh, result
                print(f"{name}{number}-{n}", "no" if isinstance(result, StoreError) else "yes")
    await store.aclose()

asyncio.run(main())
"""


def answers_under_limits(path: Path) -> dict[str, str]:
    command = [sys.executable, "-c", LIMITED_FILES, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


async def test_a_disk_that_refuses_writes_loses_no_acknowledged_append_and_makes_up_none(
    tmp_path: Path,
) -> None:
    """A limit on the size of files makes the write of the log itself fail, at the commit."""
    answers = answers_under_limits(tmp_path / "notifyd.db")
    assert len(answers) == 4 * 300 * 4
    by_phase = {phase: {a for key, a in answers.items() if key.startswith(phase)} for phase in "abcd"}
    assert by_phase == {"a": {"yes", "no"}, "b": {"yes"}, "c": {"yes", "no"}, "d": {"yes"}}
    store = await opened(tmp_path)
    for key, answer in answers.items():
        assert await known(store, event(key)) is (answer == "yes"), key
    await store.aclose()


# --- a restart ---------------------------------------------------------------------------------------------


async def test_opening_rewrites_no_row_however_many_are_leased(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await asyncio.gather(*(insert(store, leased(f"d{n}")) for n in range(2000)))
    await store.aclose()
    store = await opened(tmp_path)
    assert (tmp_path / "notifyd.db-wal").stat().st_size < 20_000
    assert len(await store.claim_due("slack", NODE, NOW, NOW + HOUR, 3000)) == 2000
    await store.aclose()


async def test_a_half_written_log_gives_up_only_what_nobody_was_told_of(tmp_path: Path) -> None:
    """As after power loss: the last bytes of the log never reached the disk."""
    store = await opened(tmp_path)
    await store.append(append_of(event("first"), opening(approval())))
    await store.append(append_of(event("last")))
    copy = tmp_path / "copy"
    copy.mkdir()
    log = (tmp_path / "notifyd.db-wal").read_bytes()
    (copy / "notifyd.db").write_bytes((tmp_path / "notifyd.db").read_bytes())
    (copy / "notifyd.db-wal").write_bytes(log[:-10])
    await store.aclose()
    store = await opened(copy)
    assert await store.approval(approval().key) == approval()
    assert not await known(store, event("last"))
    await store.aclose()


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await insert(store, delivery())
    with pytest.raises(StoreError, match="read-only"):
        await store._readers.run(lambda db: db.execute("DELETE FROM deliveries"))
    assert await store.delivery(TENANT, "d1") == delivery()
    await store.aclose()
