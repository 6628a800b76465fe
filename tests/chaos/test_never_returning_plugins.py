"""Every plugin that never returns: a daemon that is told to stop ends within ten seconds, and loses nothing.

In a coroutine that swallows its cancellation, on the event loop itself, and in threads: wherever one is called.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

from notifyd.model import SECOND, wall_clock
from notifyd.store.sqlite import open_sqlite
from tests import events
from tests.chaos.never import environ, install
from tests.process import DaemonProcess, daemon_process
from tests.waiting import until

pytestmark = pytest.mark.long

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
    Case("aclose", "deaf"),
    Case("aclose", "blocking"),
    Case("open", "thread", starts=False),
    Case("rule", "blocking"),
    Case("templates", "blocking", starts=False),
]
"""Each place, and each form: a start of an interpreter for each, so not each form at each place."""


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
    own = environ(packages, case.place, case.form, reached)
    async with daemon_process(folder, CONFIG, environ=own, start=case.starts) as daemon:
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
