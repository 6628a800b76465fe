"""The shell completes what may come next on the command line."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete

from notifyd.cli import cli


def completed(words: list[str], begun: str) -> list[str]:
    shell = BashComplete(cli, {}, "notifyd", "_NOTIFYD_COMPLETE")
    return [item.value for item in shell.get_completions(words, begun)]


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ([], "check", ["check-config"]),
        (["channels"], "", ["list", "test"]),
        (["log-level"], "d", ["debug"]),
        (["serve"], "--log", ["--log-level"]),
        (["deliveries", "list", "--state"], "de", ["dead"]),
    ],
)
def test_commands_options_and_values_are_completed(words: list[str], begun: str, offered: list[str]) -> None:
    assert completed(words, begun) == offered
