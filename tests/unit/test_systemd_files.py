"""The files for systemd agree with the service they start."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from notifyd.cli import COMMANDS
from notifyd.cli.common import DEFAULT_CONFIG, Unusable
from notifyd.config.settings import Dispatch, Server
from notifyd.config.units import SECOND, parse_duration
from notifyd.service import daemon

SYSTEMD: Final = Path(__file__).parents[2] / "systemd"


def options(name: str) -> dict[str, list[str]]:
    """Every setting of a unit with its values in order, those that are commented out left out."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


SERVICE: Final = options("notifyd.service")


def test_the_service_runs_a_command_that_there_is_with_the_default_configuration() -> None:
    ((program, command, *arguments),) = map(shlex.split, SERVICE["ExecStart"])
    serve = COMMANDS[command].load()
    context = serve.make_context(command, list(arguments))
    assert Path(program).name == "notifyd"
    assert context.params["config_path"] == DEFAULT_CONFIG


def test_systemd_waits_longer_for_the_end_than_it_takes() -> None:
    (patience,) = SERVICE["TimeoutStopSec"]
    assert parse_duration(patience) > daemon._PATIENCE * SECOND


def test_systemd_is_told_of_readiness_and_of_a_turning_loop_and_reloads_by_a_command_that_waits() -> None:
    assert SERVICE["Type"] == ["notify"]
    ((program, command),) = map(shlex.split, SERVICE["ExecReload"])
    assert program == shlex.split(SERVICE["ExecStart"][0])[0]
    assert COMMANDS[command].load().make_context(command, []).params["timeout"] < 90  # systemd's own patience
    assert SERVICE["RuntimeDirectory"] == ["notifyd"]
    assert parse_duration(SERVICE["WatchdogSec"][0]) > 0


def test_a_start_that_cannot_succeed_is_not_repeated() -> None:
    assert SERVICE["Restart"] == ["on-failure"]
    assert SERVICE["RestartPreventExitStatus"] == [str(Unusable.exit_code)]


def test_a_service_that_cannot_start_leaves_its_socket_open() -> None:
    """A start limit that is hit takes the socket down: https://github.com/systemd/systemd/issues/11553."""
    assert SERVICE["StartLimitIntervalSec"] == ["0"]
    assert options("notifyd.socket")["PollLimitBurst"] == ["3"]


def test_the_memory_that_the_service_may_take_holds_what_it_is_configured_to() -> None:
    beside = 80_000_000 + 64 * 2**20 + 64 * 2**20  # the process, SQLite's cache, bodies on their way in
    (limit,) = SERVICE["MemoryMax"]
    assert limit == "1G"
    assert (
        Dispatch().memory + beside < 2**30 / 2
    )  # what requests under way hold, and a peak, have as much again


def test_systemd_reads_the_units_without_a_complaint(tmp_path: Path) -> None:
    for name in ("notifyd.service", "notifyd.socket"):
        text = (SYSTEMD / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/notifyd/bin/notifyd", sys.executable))
    for analyze in filter(None, [shutil.which("systemd-analyze")]):  # by the systemd that is here, if one is
        units = [str(tmp_path / name) for name in ("notifyd.service", "notifyd.socket")]
        verify = [analyze, "verify", "--man=no", *units]
        done = subprocess.run(verify, capture_output=True, text=True, check=False)
        complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
        # What this systemd is too old for it says it ignores.
        assert [line for line in complaints if "PollLimit" not in line] == []


def test_the_database_of_the_default_configuration_is_in_the_folder_of_state() -> None:
    assert SERVICE["WorkingDirectory"] == [f"/var/lib/{SERVICE['StateDirectory'][0]}"]
    assert SERVICE["ProtectSystem"] == ["strict"]


def test_the_socket_is_where_the_service_listens_by_default() -> None:
    assert options("notifyd.socket")["ListenStream"] == [str(Server().listen)]


def test_user_and_folders_are_the_ones_that_are_made() -> None:
    (user,) = SERVICE["User"]
    made = [
        shlex.split(line, comments=True) for line in (SYSTEMD / "notifyd.sysusers").read_text().splitlines()
    ]
    assert ["u", user] in [words[:2] for words in made]
    folders = [line.split() for line in (SYSTEMD / "notifyd.tmpfiles").read_text().splitlines()]
    assert ["d", str(DEFAULT_CONFIG.parent), "0750", "root", user] in folders
