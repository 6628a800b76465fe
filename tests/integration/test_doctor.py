"""`notifyd doctor` on installations that are sound, and on some that are not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from notifyd.model import State, wall_clock
from notifyd.store import CollectionName
from notifyd.store.sqlite import open_sqlite
from notifyd.store.sqlite.schema import APPLICATION_ID
from tests.forked import notifyd
from tests.process import configure, daemon_process, environ_of
from tests.spoiling import Spoiler
from tests.store.makers import delivery

RULE = """
[channels.log]
type = "log"
[[rules]]
name = "all"
when = 'true'
channels = ["log"]
"""


async def examined(folder: Path, config: str = RULE, code: int = 0) -> list[dict[str, Any]]:
    path = folder / "notifyd.toml"
    if config:
        configure(path, config)
    done = await notifyd("doctor", "--json", "--config", str(path), environ=environ_of(folder, 0))
    assert done.code == code, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def of(findings: list[dict[str, Any]], check: str) -> list[tuple[str, str]]:
    return [(one["level"], one["detail"]) for one in findings if one["check"] == check]


async def make_store(folder: Path) -> None:
    store = await open_sqlite(folder / "notifyd.db", node="before", clock=wall_clock)
    await store.insert_deliveries(None, [delivery("one"), delivery("two", state=State.DEAD, ended_at=1)])
    await store.aclose()


async def test_a_sound_installation_is_told_as_one(tmp_path: Path) -> None:
    await make_store(tmp_path)
    findings = await examined(tmp_path)
    assert {one["level"] for one in findings} <= {"ok", "warning"}
    assert of(findings, "rows") == [("ok", "all can be read")]
    assert ("ok", "no page is broken") in of(findings, "store")
    assert of(findings, "config")[0] == ("ok", "1 channel, 1 rule")


async def test_rows_that_cannot_be_read_are_each_named(tmp_path: Path) -> None:
    await make_store(tmp_path)
    spoiler = Spoiler(f"sqlite:///{tmp_path}/notifyd.db")
    spoiler.spoil(CollectionName.DELIVERIES, {"id": "two"}, "reason", "of_the_future")
    ((level, detail),) = of(await examined(tmp_path, code=1), "rows")
    assert (level, "deliveries row" in detail, "two" in detail) == ("error", True, True)
    assert "of_the_future" not in detail


async def test_a_running_service_is_asked_what_it_has_come_upon(tmp_path: Path) -> None:
    await make_store(tmp_path)
    Spoiler(f"sqlite:///{tmp_path}/notifyd.db").spoil(
        CollectionName.DELIVERIES, {"id": "one"}, "reason", "of_the_future"
    )
    async with daemon_process(tmp_path, RULE) as daemon:
        assert (await daemon.get("/api/v1/deliveries")).status == 200, "which comes upon the row"
        path, environ = str(daemon.config_path), environ_of(tmp_path, daemon.port)
        done = await notifyd("doctor", "--json", "--config", path, environ=environ)
    assert done.code == 1
    findings = json.loads(done.stdout)["findings"]
    assert ("ok", "the service has it open") in of(findings, "store")
    assert of(findings, "rows") == [("error", "1 of deliveries cannot be read")]


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (RULE.replace('"log"', '"telegraph"', 1), 'no plugin brings the type "telegraph"'),
        (RULE + "[server]\nlissten = 1\n", "is not a known key"),
    ],
)
async def test_a_configuration_with_a_fault_is_named(tmp_path: Path, config: str, fault: str) -> None:
    findings = await examined(tmp_path, config, code=1)
    assert [level for level, detail in of(findings, "config") if fault in detail] == ["error"]


async def test_a_configuration_that_anybody_may_write_is_wrong(tmp_path: Path) -> None:
    await make_store(tmp_path)
    configure(tmp_path / "notifyd.toml", RULE)
    (tmp_path / "notifyd.toml").chmod(0o666)
    ((level, detail),) = of(await examined(tmp_path, "", code=1), "permissions")
    assert (level, "anybody may write" in detail) == ("error", True)


async def test_a_store_that_is_not_there_is_a_warning_and_none_is_made(tmp_path: Path) -> None:
    assert [level for level, _ in of(await examined(tmp_path), "store")] == ["warning"]
    assert not (tmp_path / "notifyd.db").exists()


async def test_a_store_of_an_earlier_version_is_a_warning_and_stays_as_it_is(tmp_path: Path) -> None:
    """It may still be in use: the new version's doctor looks before an upgrade, too."""
    path = tmp_path / "notifyd.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parents[1] / "store" / "schema4.sql").read_text())
        db.executescript(f"PRAGMA user_version = 4; PRAGMA application_id = {APPLICATION_ID}")
    before = path.read_bytes()
    ((level, detail),) = of(await examined(tmp_path), "store")
    assert (level, "has schema 4" in detail) == ("warning", True)
    exported = await notifyd(
        "export", tmp_path / "all", "--config", tmp_path / "notifyd.toml", environ=environ_of(tmp_path, 0)
    )
    assert (exported.code, "has schema 4" in exported.stderr) == (1, True)
    assert path.read_bytes() == before


async def test_a_broken_page_of_an_index_is_wrong_although_each_row_can_be_read(tmp_path: Path) -> None:
    await make_store(tmp_path)
    path = tmp_path / "notifyd.db"
    with closing(sqlite3.connect(path)) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_by_age'")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    findings = await examined(tmp_path, code=1)
    assert of(findings, "rows") == [("ok", "all can be read")]
    assert [
        detail
        for level, detail in of(findings, "store")
        if level == "error" and f"{path} is corrupt" in detail
    ]


async def test_a_file_that_is_no_database_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "notifyd.db").write_bytes(b"not a database" * 1000)
    assert [level for level, _ in of(await examined(tmp_path, code=1), "store")] == ["error"]
