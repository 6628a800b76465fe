"""Every plugin that never returns: a daemon that is told to stop ends within ten seconds, and loses nothing.

In a coroutine that swallows its cancellation, on the event loop itself, and in threads: wherever one is called.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from attrs import frozen

from notifyd.model import SECOND
from notifyd.service.app import wall_clock
from notifyd.store.sqlite import open_sqlite
from tests import events
from tests.process import DaemonProcess, daemon_process
from tests.waiting import until

PLUGIN: Final = """
import asyncio
import os
import pathlib
import threading
from attrs import frozen
from notifyd.plugin import ChannelType, Receipt, RuleFunction, hookimpl

PLACE, FORM = os.environ["NEVER"].split()


@frozen
class NoOptions:
    pass


def block():
    pathlib.Path(os.environ["REACHED"]).touch()
    while True:
        threading.Event().wait()


async def never():
    pathlib.Path(os.environ["REACHED"]).touch()
    if FORM == "blocking":
        block()
    if FORM == "thread":
        await asyncio.to_thread(block)
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            pass


class Channel:
    async def send(self, message):
        if PLACE == "send":
            await never()
        return Receipt()

    async def aclose(self):
        if PLACE == "aclose":
            await never()


async def open_channel(config, context):
    if PLACE == "open":
        await never()
    return Channel()


def rule(kind):
    if PLACE == "rule":
        block()
    return True


@hookimpl
def notifyd_channel_types():
    return [ChannelType("never", NoOptions, open_channel)]


@hookimpl
def notifyd_rule_functions():
    return [RuleFunction("never", rule)]


@hookimpl
def notifyd_template_sources():
    if PLACE == "templates":
        block()
    return []
"""

CONFIG: Final = """
[channels.pager]
type = "never"
timeout = "100ms"

[[rules]]
name = "tasks"
when = 'event.kind == "task.done" && never(event.kind)'
channels = ["pager"]
"""


@frozen
class Case:
    """Where a plugin does not return, and how. `starts`: the daemon gets as far as taking events."""

    place: str
    form: str
    starts: bool = True

    @property
    def takes_an_event(self) -> bool:
        return self.place in ("send", "rule")


FORMS: Final = ("deaf", "blocking", "thread")
CASES: Final = [
    *(Case("send", form) for form in FORMS),
    *(Case("aclose", form) for form in FORMS),
    *(Case("open", form, starts=False) for form in FORMS),
    Case("rule", "blocking"),
    Case("templates", "blocking", starts=False),
]


def install(folder: Path) -> None:
    """A distribution as pip would leave it, for whoever has `folder` on the path."""
    info = folder / "never_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "never_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: never-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[notifyd]\nnever = never_plugin\n")


async def accept(daemon: DaemonProcess) -> None:
    event = events.load("cloudevent-task-done")
    del event["time"]
    assert (await daemon.post("/api/v1/events", event)).status == 202


async def kept(path: Path) -> int:
    """How many deliveries, and events to plan, the daemon has left."""
    store = await open_sqlite(path, node="after", clock=wall_clock)
    waiting = sum(one.waiting for one in await store.backlog())
    now = wall_clock() + 3600 * SECOND
    unplanned = await store.claim_unplanned("after", now, now + SECOND, 10)
    await store.aclose()
    return waiting + len(unplanned)


async def stopped(case: Case, folder: Path, packages: Path) -> str:
    """What is wrong with the end of a daemon whose plugin does not return: "" where nothing is."""
    reached = folder / "reached"
    environ = {"PYTHONPATH": str(packages), "NEVER": f"{case.place} {case.form}", "REACHED": str(reached)}
    async with daemon_process(folder, CONFIG, environ=environ, start=case.starts) as daemon:
        if not case.starts:
            await daemon.launch()
        if case.takes_an_event:
            await accept(daemon)
        if case.place != "aclose":
            await until(reached.exists)
        began = time.monotonic()
        code = await daemon.stop()
        took = time.monotonic() - began
    faults = [
        f"code {code}" if code else "",
        "" if took < 10 else f"took {took:.1f} s",
        "" if reached.exists() else "did not meet the plugin",
        "" if not case.takes_an_event or await kept(daemon.database) == 1 else "lost the event",
    ]
    return ", ".join(filter(None, faults))


async def test_a_daemon_ends_in_time_and_loses_nothing_wherever_a_plugin_never_returns(
    tmp_path: Path,
) -> None:
    packages = tmp_path / "packages"
    install(packages)
    folders = [tmp_path / f"{case.place}-{case.form}" for case in CASES]
    for folder in folders:
        folder.mkdir()
    ends = await asyncio.gather(
        *(stopped(case, folder, packages) for case, folder in zip(CASES, folders, strict=True))
    )
    assert {case: fault for case, fault in zip(CASES, ends, strict=True) if fault} == {}
