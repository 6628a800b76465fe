"""A tap in Slack reaches the callback though the node that listened was killed: another listens in its place."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import orjson
import pytest

from notifyd.model import wall_clock
from tests import events
from tests.mongodb import MongoServer
from tests.process import DaemonProcess, daemon_process
from tests.sinks import HttpSink
from tests.slack_api import APP_TOKEN, BOT_TOKEN, CHANNEL, SlackApi, buttons
from tests.waiting import until, until_async

ALICE: Final = "U0ALICE01"

CONFIG: Final = """
[server]
listen = "127.0.0.1:${{NOTIFYD_PORT}}"
public_url = "https://notifyd.acme.example"
node = "{name}"

[store]
url = "{database}"
driver = "pymongo"
timeout = "20s"

[dispatch]
lease = "3s"
clock_skew = "1s"

[channels.ops]
type = "slack"
bot_token = "{bot}"
app_token = "{app}"
channel_id = "{channel}"
api_url = "{api}"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["ops"]
to = ["alice@acme.example"]

[recipients."alice@acme.example"]
addresses = {{slack = "{alice}"}}

[resume]
allowed_origins = ["{sink}"]
"""


@pytest.mark.long
async def test_a_tap_decides_once_after_the_node_that_listened_was_killed(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with AsyncExitStack() as stack:
        slack = await stack.enter_async_context(SlackApi())
        sink = await stack.enter_async_context(HttpSink())
        nodes: dict[str, DaemonProcess] = {}
        for name in ("a", "b"):
            text = CONFIG.format(
                name=name,
                database=database,
                bot=BOT_TOKEN,
                app=APP_TOKEN,
                channel=CHANNEL,
                api=slack.url(name),
                alice=ALICE,
                sink=sink.url,
            )
            home = tmp_path / name
            home.mkdir()
            nodes[name] = await stack.enter_async_context(daemon_process(home, text, start=False))
        await asyncio.gather(*(node.begin() for node in nodes.values()))
        ((holder, _),) = await until(lambda: slack.sockets)
        (other,) = nodes.keys() - {holder}
        resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
        asked = events.requested(at=wall_clock(), resume=resume, requiredApprovals=1)
        assert (await nodes[holder].send(asked)).status == 202
        (message,) = await until(lambda: slack.sent)
        await until_async(lambda: has_sent(nodes[holder]))
        await nodes[holder].kill()
        await until(lambda: [name for name, _ in slack.sockets] == [other])
        pressed = slack.pressed(message, ALICE, "Approve")
        for envelope in ("first", "again"):  # Slack may tell of it twice
            await slack.tells(envelope, pressed)
            await acknowledged(slack, envelope)
        await until(lambda: sink.received)
        await until(lambda: "Approve" not in [one["text"]["text"] for one in buttons(message)])
    (callback,) = sink.received
    assert orjson.loads(callback.body)["data"]["decision"] == "approved"
    assert slack.opened == [holder, other]


async def has_sent(daemon: DaemonProcess) -> bool:
    """What was sent is in the ledger too: what is not yet is sent again by another node."""
    return bool((await daemon.get("/api/v1/deliveries", channel="ops", state="sent")).json["items"])


async def acknowledged(slack: SlackApi, envelope: str) -> None:
    await until(lambda: slack.acked(envelope))
