"""`notifyd channels list` and `notifyd channels test`, against a running daemon."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from notifyd.cli import cli
from notifyd.plugin import PermanentError, Receipt
from tests.daemon import TOKENS, Daemon


async def run(notifyd: Daemon, *args: str, client: str = "operator") -> Result:
    """`notifyd channels ARGS`, as `client`, in a thread, as the daemon has this one."""
    environ = {"NOTIFYD_TOKEN": TOKENS[client], "NOTIFYD_URL": notifyd.url}
    return await asyncio.to_thread(CliRunner().invoke, cli, ["channels", *args], env=environ)


async def test_channels_are_listed_with_their_type_and_their_lane(notifyd: Daemon) -> None:
    result = await run(notifyd, "list")
    assert result.exit_code == 0, result.output
    head, line = (row.split("\t") for row in result.stdout.splitlines())
    assert head[:5] == ["name", "type", "plugin", "breaker", "backlog"]
    assert (line[0], line[1], line[3], line[4]) == ("inbox", "inbox", "closed", "0")


async def test_channels_are_listed_as_json_as_the_service_tells_them(notifyd: Daemon) -> None:
    result = await run(notifyd, "list", "--json")
    assert json.loads(result.stdout) == (await notifyd.get("/api/v1/channels")).json["items"]


async def test_a_channel_is_tested_on_a_person(notifyd: Daemon) -> None:
    result = await run(notifyd, "test", "--recipient", "bob@acme.example", "inbox")
    assert (result.exit_code, result.stdout) == (0, "inbox took the test message\n")
    assert [message.recipient for message in notifyd.inbox.messages] == ["bob@acme.example"]


async def test_what_the_vendor_answered_to_a_test_is_told(notifyd: Daemon) -> None:
    notifyd.inbox.receipt = Receipt(detail="250 queued as 4711")
    result = await run(notifyd, "test", "--recipient", "bob@acme.example", "inbox")
    assert result.stdout == "inbox took the test message: 250 queued as 4711\n"


async def test_a_channel_that_fails_is_told_with_its_own_words_and_exit_code_1(notifyd: Daemon) -> None:
    notifyd.inbox.fault = PermanentError("no such mailbox")
    result = await run(notifyd, "test", "--recipient", "bob@acme.example", "inbox")
    assert result.exit_code == 1
    assert "502 channel_failed: rejected: no such mailbox" in result.stderr


async def test_a_missing_recipient_and_an_unknown_channel_are_told(notifyd: Daemon) -> None:
    missing = await run(notifyd, "test", "inbox")
    assert (missing.exit_code, "/recipient: is required" in missing.stderr) == (1, True)
    unknown = await run(notifyd, "test", "nowhere")
    assert (unknown.exit_code, "404 not_found: no such channel" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("args", [("list",), ("test", "inbox")])
async def test_a_client_without_the_scope_is_told_which_it_needs(
    notifyd: Daemon, args: tuple[str, ...]
) -> None:
    result = await run(notifyd, *args, client="task-runner")
    assert (result.exit_code, "403 scope_missing" in result.stderr) == (1, True)
