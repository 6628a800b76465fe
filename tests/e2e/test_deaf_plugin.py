"""A plugin that will not end, in a daemon that is told to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests import events
from tests.e2e.databases import Database
from tests.process import DaemonProcess, daemon_process
from tests.waiting import until_async

PLUGIN = """
import asyncio
import threading
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


class Pooled(Deaf):
    async def send(self, message):
        await asyncio.to_thread(wait_for_ever)


class Threaded(Deaf):
    async def send(self, message):
        threading.Thread(target=wait_for_ever, name="of-its-own").start()
        await asyncio.Event().wait()


class Opening(Deaf):
    def __init__(self, config, context):
        threading.Thread(target=wait_for_ever).start()
        raise RuntimeError("no way in")


class Many(Deaf):
    async def send(self, message):
        await asyncio.gather(*(asyncio.to_thread(wait_for_ever) for _ in range(100)))


def wait_for_ever():
    threading.Event().wait()


@hookimpl
def notifyd_channel_types():
    kinds = {"deaf": Deaf, "pooled": Pooled, "threaded": Threaded, "many": Many, "opening": Opening}
    return [ChannelType(name, NoOptions, kind) for name, kind in kinds.items()]
"""

CONFIG = """
[channels.pager]
type = "{type}"
timeout = "100ms"

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["pager"]
"""


def install(folder: Path) -> None:
    """A distribution as pip would leave it, for whoever has `folder` on the path."""
    (folder / "deaf_plugin.py").write_text(PLUGIN)
    info = folder / "deaf_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deaf-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[notifyd]\ndeaf = deaf_plugin\n")


@asynccontextmanager
async def failing(folder: Path, type_: str, store: str) -> AsyncIterator[DaemonProcess]:
    """A daemon one of whose channels has failed to send, by its plugin's fault."""
    (packages := folder / "packages").mkdir()
    install(packages)
    path, config = {"PYTHONPATH": str(packages)}, CONFIG.replace("{type}", type_)
    async with daemon_process(folder, config, store=store, environ=path) as daemon:
        event = events.load("cloudevent-task-done")
        del event["time"]
        assert (await daemon.post("/api/v1/events", event)).status == 202

        async def failed() -> bool:
            (item,) = (await daemon.get("/api/v1/channels")).json["items"]
            return item["lastFailure"] is not None

        await until_async(failed)
        yield daemon


async def test_a_daemon_ends_in_time_though_a_plugin_swallows_every_cancellation(
    database: Database, tmp_path: Path
) -> None:
    async with failing(tmp_path, "deaf", database.url) as daemon:
        began = time.monotonic()
        assert await daemon.stop() == 0
        assert time.monotonic() - began < 9
        assert any("it is left behind" in line["message"] for line in daemon.logs)


@pytest.mark.parametrize(
    "type_", [*(pytest.param(type_, marks=pytest.mark.long) for type_ in ("pooled", "threaded")), "many"]
)
async def test_a_daemon_ends_in_time_though_a_plugins_threads_go_on_and_says_whose_they_are(
    type_: str, tmp_path: Path
) -> None:
    async with failing(tmp_path, type_, f"sqlite:///{tmp_path}/notifyd.db") as daemon:
        began = time.monotonic()
        assert await daemon.stop() == 0
        assert time.monotonic() - began < 9
        said = [line["message"] for line in daemon.logs]
        assert "stopped" in said, "in order"
        (told, *_) = [line for line in said if line.startswith("left running: ")]
        assert ("thread of-its-own," in told) is (type_ == "threaded")
        assert "of channel pager" in told
        assert "deaf_plugin" in told
        assert "wait_for_ever" in told


async def test_a_start_that_fails_ends_though_a_plugins_thread_goes_on_and_says_why(tmp_path: Path) -> None:
    (packages := tmp_path / "packages").mkdir()
    install(packages)
    config, path = CONFIG.replace("{type}", "opening"), {"PYTHONPATH": str(packages)}
    async with daemon_process(tmp_path, config, environ=path, start=False) as daemon:
        await daemon.launch()
        assert await daemon.wait() == 1
        assert b"no way in" in daemon.stderr
