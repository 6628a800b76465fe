"""The level of the log of a running service, by HTTP and by the command."""

from __future__ import annotations

import pytest

from notifyd.levels import LogLevel, get_level, set_level
from tests.command import Result
from tests.daemon import TOKENS, Daemon
from tests.forked import notifyd as run


@pytest.fixture(autouse=True)
def level() -> None:
    """It is the whole process's: a daemon that ends puts it back."""
    set_level(LogLevel.INFO)


async def command(notifyd: Daemon, *arguments: str, client: str = "operator") -> Result:
    environ = {"NOTIFYD_TOKEN": TOKENS[client]}
    return await run("log-level", *arguments, "--url", notifyd.url, environ=environ)


async def test_an_operator_changes_the_level_of_a_running_service_and_is_named(
    notifyd: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    changed = await command(notifyd, "debug")
    assert (changed.code, changed.stdout) == (0, "debug\n")
    assert get_level() is LogLevel.DEBUG
    assert "the log's level is debug, and was info: operator asked for it" in caplog.text
    shown = await command(notifyd, "--json")
    assert (shown.code, shown.json) == (0, {"level": "debug"})


async def test_a_level_that_is_none_is_refused(notifyd: Daemon) -> None:
    assert (await command(notifyd, "loud")).code == 2
    answer = await notifyd.post("/api/v1/log-level", {"level": "loud"}, "operator")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/level")
    assert get_level() is LogLevel.INFO


@pytest.mark.parametrize(
    ("client", "status", "code"), [(None, 401, "unauthenticated"), ("reader", 403, "scope_missing")]
)
async def test_only_an_operator_may(notifyd: Daemon, client: str | None, status: int, code: str) -> None:
    answer = await notifyd.post("/api/v1/log-level", {"level": "debug"}, client)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert (await notifyd.get("/api/v1/log-level", client)).status == status
    assert get_level() is LogLevel.INFO
