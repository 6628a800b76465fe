"""`notifyd purge`, `export` and `import`, on a running service and on a store whose service is stopped."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from notifyd.config.settings import Retention as Keep
from notifyd.config.units import DAY
from notifyd.model import State, Status
from notifyd.store import CollectionName, Store, Stored, StoredEvent
from notifyd.store.archive import HEADER_BYTES
from notifyd.store.sqlite import open_sqlite
from notifyd.web import purge
from tests.command import Result
from tests.daemon import TOKENS, Daemon
from tests.forked import notifyd as run
from tests.process import SEAL_KEY, configure, environ_of
from tests.spoiling import Spoiler
from tests.store.makers import approval, audit_record, delivery, event, incident

OPERATOR: Final = {"NOTIFYD_TOKEN": TOKENS["operator"]}
NOTHING: Final = {"events": 0, "approvals": 0, "incidents": 0, "deliveries": 0, "audit": 0}
HELD: Final = '{"labels":{"case":"4711"}}'


def rows(now: int, run_id: str = "run-1", request: str = "{}") -> list[Stored]:
    """One of everything about one run, which was over 100 days before now; its audit is kept for longer."""
    then, about = now - 100 * DAY, {"run_id": run_id}
    return [
        StoredEvent(
            event(f"e-{run_id}", received_at=then, occurred_at=then, content_id="", **about), planned=True
        ),
        approval(status=Status.REJECTED, ended_at=then, sealed_token=None, request=request, **about),
        incident(open=False, closed_at=then, occurred_at=then, **about),
        delivery(f"d-{run_id}", state=State.SENT, ended_at=then, **about),
        audit_record(f"a-{run_id}", at=then, **about),
    ]


REMOVED: Final = NOTHING | {"events": 1, "approvals": 1, "incidents": 1, "deliveries": 1}


async def counts(store: Store) -> dict[str, int]:
    return {name.value: await store.count(name) for name in CollectionName}


async def contents(store: Store) -> list[Stored]:
    return [row for name in CollectionName for row in (await store.dump(name, "", 1000))[0]]


def now() -> int:
    return time.time_ns() // 1000


# --- a running service -------------------------------------------------------------------------------------


async def operate(notifyd: Daemon, *arguments: str) -> Result:
    return await run("purge", *arguments, "--url", notifyd.url, environ=OPERATOR)


async def test_purge_removes_what_is_old_from_a_running_service_and_says_how_much(notifyd: Daemon) -> None:
    document = await notifyd.ask()
    store = notifyd.app._store
    await store.restore(rows(notifyd.clock()))
    dry = await operate(notifyd, "--dry-run", "--json")
    assert (dry.code, dry.json) == (0, {"dryRun": True, "removed": REMOVED})
    there = await counts(store)  # what the approval sets off meanwhile is counted in the other collections
    assert (there["events"], there["approvals"], there["incidents"]) == (2, 2, 1)
    done = await operate(notifyd)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["collection\tremoved", "events\t1"]
    again = await operate(notifyd, "--json")
    assert again.json == {"dryRun": False, "removed": NOTHING}
    assert (await notifyd.approval(document))["status"] == "pending"
    metrics = (await notifyd.call("GET", "/metrics")).text
    assert 'notifyd_purged_total{collection="approvals"} 1.0' in metrics


async def test_a_long_purge_is_many_short_requests(notifyd: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "WORK", 0.0)
    await notifyd.app._store.restore(rows(notifyd.clock()))
    answer = (await notifyd.post("/api/v1/purge", {}, "operator")).json
    assert answer["removed"] == NOTHING | {"events": 1}
    assert answer["nextCursor"]
    answer = (await notifyd.post("/api/v1/purge", {"cursor": answer["nextCursor"]}, "operator")).json
    assert answer["removed"] == NOTHING | {"approvals": 1}
    done = await operate(notifyd, "--json")
    assert done.json["removed"] == NOTHING | {"incidents": 1, "deliveries": 1}


@pytest.mark.parametrize(
    ("client", "status", "code"),
    [(None, 401, "unauthenticated"), ("reader", 403, "scope_missing"), ("task-runner", 403, "scope_missing")],
)
async def test_only_an_operator_may_purge(
    notifyd: Daemon, client: str | None, status: int, code: str
) -> None:
    answer = await notifyd.post("/api/v1/purge", {"dryRun": True}, client)
    assert (answer.status, answer.json["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"dryRun": "yes"}, 422, "invalid_event"),
        ({"before": "2020-01-01"}, 422, "invalid_event"),
        ({"cursor": "ZXZlbnRz"}, 400, "invalid_cursor"),
        ({"cursor": "WyJbXCJldmVudHNcIixcIlwiXSIsIngiXQ=="}, 400, "invalid_cursor"),
        ({"cursor": "é"}, 400, "invalid_cursor"),
    ],
)
async def test_a_purge_that_cannot_be_understood_is_refused(
    notifyd: Daemon, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await notifyd.post("/api/v1/purge", body, "operator")
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_offline_commands_leave_the_store_of_a_running_service_alone(
    notifyd: Daemon, tmp_path: Path
) -> None:
    home, other = Home(tmp_path), Home(tmp_path / "other")
    await other.put(rows(now()))
    await other.run("export", tmp_path / "other.jsonl")
    for command in (["purge", "--offline"], ["export", tmp_path / "x"], ["import", tmp_path / "other.jsonl"]):
        result = await home.run(*command)
        assert result.code == 1
        assert "in use by process" in result.stderr
        assert "stop the service first" in result.stderr


# --- a store whose service is stopped ----------------------------------------------------------------------


class Home:
    """A folder with a configuration and, once something is put there, a database."""

    def __init__(self, folder: Path, config: str = "", seal_key: str = SEAL_KEY) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.config = folder / "notifyd.toml"
        self.environ = environ_of(folder, 8686) | {"NOTIFYD_SEAL_KEY": seal_key}
        configure(self.config, config)

    async def run(self, *arguments: object) -> Result:
        return await run(*arguments, "--config", self.config, environ=self.environ)

    async def put(self, given: list[Stored]) -> None:
        store = await self._open()
        await store.restore(given)
        await store.aclose()

    async def contents(self) -> list[Stored]:
        store = await self._open()
        found = await contents(store)
        await store.aclose()
        return found

    async def _open(self) -> Store:
        return await open_sqlite(self.folder / "notifyd.db", node="test", clock=now)


async def test_purge_offline_removes_what_is_old_but_what_a_label_holds(tmp_path: Path) -> None:
    home = Home(tmp_path, '[retention]\nhold_label = "case=4711"\n')
    await home.put([*rows(now()), *rows(now(), "run-held", HELD)])
    dry = await home.run("purge", "--offline", "--dry-run", "--json")
    assert (dry.code, dry.json["removed"]) == (0, REMOVED)
    assert len(await home.contents()) == 10
    done = await home.run("purge", "--offline", "--json")
    assert (done.code, done.json) == (0, {"dryRun": False, "removed": REMOVED})
    left = await home.contents()
    assert len(left) == 6
    events = [row.event for row in left if isinstance(row, StoredEvent)]
    assert [one.key for one in events] == ["e-run-held"]


async def test_everything_moves_to_another_store_by_a_file(tmp_path: Path) -> None:
    here, there = Home(tmp_path / "here"), Home(tmp_path / "there")
    file, given = tmp_path / "all.jsonl", [*rows(now()), *rows(now(), "run-2")]
    await here.put(given)
    exported = await here.run("export", file)
    assert (exported.code, exported.stdout) == (0, f"10 rows are in {file}\n")
    for new in (10, 0):
        imported = await there.run("import", "--create", file)
        assert imported.stdout == f"10 rows are in the store, {new} of them new\n"
        assert sorted(await there.contents(), key=repr) == sorted(given, key=repr)
    assert await there.contents() == await here.contents()
    assert (await here.run("export", tmp_path / "more.jsonl", "--json")).json["rows"] == dict.fromkeys(
        NOTHING, 2
    )


async def test_an_import_with_other_keys_is_refused(tmp_path: Path) -> None:
    other = "b3RoZXIga2V5IG9mIDMyIGJ5dGVzIGZvciB0ZXN0cy4="
    here, there = Home(tmp_path / "here"), Home(tmp_path / "there", seal_key=other)
    await here.put(rows(now()))
    assert (await here.run("export", tmp_path / "all.jsonl")).code == 0
    refused = await there.run("import", "--create", tmp_path / "all.jsonl")
    assert refused.code == 1
    assert "keys.seal lacks keys that rows are sealed under: " in refused.stderr
    assert "(1 row)" in refused.stderr
    assert not (there.folder / "notifyd.db").exists()


@pytest.mark.parametrize("create", ["true", "false"])
@pytest.mark.parametrize(
    "command", [["export", "new.jsonl"], ["import", "all.jsonl"], ["purge", "--offline"]]
)
async def test_a_command_refuses_where_no_store_is_and_makes_none(
    command: list[str], create: str, tmp_path: Path
) -> None:
    config = f'[store]\nurl = "${{NOTIFYD_STORE}}"\ncreate = {create}\n'
    here, there = Home(tmp_path / "here"), Home(tmp_path / "there", config)
    await here.put(rows(now()))
    file = there.folder / "all.jsonl"
    await here.run("export", file)
    before = set(there.folder.iterdir())
    result = await there.run(
        command[0], *(there.folder / name if "." in name else name for name in command[1:])
    )
    assert result.code == 1
    database = there.folder / "notifyd.db"
    told, *hint = result.stderr.splitlines()
    assert told == f"notifyd: {database}: no store is there: restore it, or correct store.url"
    assert hint == (["notifyd: or make one with --create"] if command[0] == "import" else [])
    assert set(there.folder.iterdir()) == before
    made = await there.run("import", "--create", file)
    assert made.code == 0, made.stderr
    assert sorted(await there.contents(), key=repr) == sorted(await here.contents(), key=repr)


@pytest.mark.parametrize("size", [1, HEADER_BYTES + 1])
@pytest.mark.parametrize("command", ["export", "import"])
async def test_a_file_that_will_not_do_is_named_and_left_alone(
    command: str, size: int, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    await home.put([])
    file = tmp_path / "notes.txt"
    text = json.dumps({"a": 1}).ljust(size)
    _write(file, text)
    file.chmod(0o600)
    result = await home.run(command, file)
    assert result.code == 1
    assert _text(file) == text
    assert result.stderr == f"notifyd: {file}: does not begin as an export of notifyd does\n"


async def test_an_export_leaves_out_rows_that_cannot_be_read_names_them_and_does_not_call_that_success(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    await home.put(rows(now()))
    spoiler = Spoiler(f"sqlite:///{tmp_path}/notifyd.db")
    spoiler.spoil(CollectionName.AUDIT, {"run_id": "run-1"}, "name", "of_the_future")
    result = await home.run("export", tmp_path / "all.jsonl", "--json")
    assert result.code == 1
    assert (result.json["rows"]["audit"], result.json["leftOut"]) == (0, 1)
    named, last = result.stderr.splitlines()
    assert named.startswith("set aside: audit row 1 (tenant acme, id a-run-1): name has a value")
    assert last == "notifyd: 1 row cannot be read and is left out: see the runbook"


async def test_an_export_is_a_file_and_none_by_the_name_of_standard_output(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.put([])
    result = await home.run("export", "-")
    assert result.code == 2
    assert "name one" in result.stderr


async def test_an_export_into_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.put([])
    result = await home.run("export", tmp_path / "nowhere" / "all.jsonl")
    assert result.code == 1
    assert result.stderr == f"notifyd: {tmp_path}/nowhere/all.jsonl: No such file or directory\n"


async def test_on_a_terminal_progress_is_shown_beside_what_is_printed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.put(rows(now()))
    primary, secondary = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifyd", "purge", "--offline", "--json", "--config", str(home.config)),
        env=home.environ | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=asyncio.subprocess.PIPE,
        stderr=secondary,
    )
    os.close(secondary)
    shown, (stdout, _) = await asyncio.gather(asyncio.to_thread(_read, primary), process.communicate())
    assert json.loads(stdout)["removed"] == REMOVED
    assert "deliveries" in shown
    assert "1/1" in shown


def test_the_ages_of_these_tests_are_the_defaults() -> None:
    keep = Keep()
    assert max(keep.events, keep.approvals, keep.incidents, keep.deliveries) < 100 * DAY < keep.audit


def _read(terminal: int) -> str:
    """All that is written to a terminal until nobody has it open any more."""
    found = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, suppress(OSError):  # EIO is its end
        while some := file.read(65536):
            found += some
    return found.decode()


def _text(path: Path) -> str:
    return path.read_text()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
