"""A plugin that will not end, in a daemon that is told to."""

from __future__ import annotations

import time
from pathlib import Path

from tests import events
from tests.e2e.databases import Database
from tests.process import daemon_process
from tests.waiting import until_async

PLUGIN = """
import asyncio
from attrs import frozen
from notifyd.plugin import ChannelType, hookimpl


@frozen
class NoOptions:
    pass


class Deaf:
    def __init__(self, config, context):
        pass

    async def send(self, message):
        asyncio.create_task(self.listen_to_nobody())
        await self.listen_to_nobody()

    async def listen_to_nobody(self):
        while True:
            try:
                await asyncio.Event().wait()
            except BaseException:
                pass

    async def aclose(self):
        pass


@hookimpl
def notifyd_channel_types():
    return [ChannelType("deaf", NoOptions, Deaf)]
"""

CONFIG = """
[channels.deaf]
type = "deaf"
timeout = "100ms"

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["deaf"]
"""


def install(folder: Path) -> None:
    """A distribution as pip would leave it, for whoever has `folder` on the path."""
    (folder / "deaf_plugin.py").write_text(PLUGIN)
    info = folder / "deaf_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deaf-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[notifyd]\ndeaf = deaf_plugin\n")


async def test_a_daemon_ends_in_time_though_a_plugin_swallows_every_cancellation(
    database: Database, tmp_path: Path
) -> None:
    (packages := tmp_path / "packages").mkdir()
    install(packages)
    path = {"PYTHONPATH": str(packages)}
    async with daemon_process(tmp_path, CONFIG, store=database.url, environ=path) as daemon:
        event = events.load("cloudevent-task-done")
        del event["time"]
        assert (await daemon.post("/api/v1/events", event)).status == 202

        async def failed() -> bool:
            (item,) = (await daemon.get("/api/v1/channels")).json["items"]
            return item["lastFailure"] is not None

        await until_async(failed)
        began = time.monotonic()
        assert await daemon.stop() == 0
        assert time.monotonic() - began < 9
        assert any("it is left behind" in line["message"] for line in daemon.logs)
