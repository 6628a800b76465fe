"""The files for systemd agree with the service they start."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from notifyd.cli import COMMANDS
from notifyd.cli.common import DEFAULT_CONFIG, Unusable
from notifyd.config.settings import Server
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


def test_systemd_is_told_of_readiness_and_of_a_turning_loop_and_reloads_by_a_signal() -> None:
    assert SERVICE["Type"] == ["notify"]
    assert SERVICE["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert parse_duration(SERVICE["WatchdogSec"][0]) > 0


def test_a_start_that_cannot_succeed_is_not_repeated() -> None:
    assert SERVICE["Restart"] == ["on-failure"]
    assert SERVICE["RestartPreventExitStatus"] == [str(Unusable.exit_code)]


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
