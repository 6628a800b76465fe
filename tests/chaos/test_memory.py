"""Large events for a channel that stands still: what memory they take, and that all of them arrive."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from notifyd.model import wall_clock
from tests import events
from tests.process import DaemonProcess, daemon_process
from tests.sinks import HttpSink
from tests.waiting import until_async

pytestmark = pytest.mark.long

MIB: Final = 1024 * 1024
EVENTS: Final = 300
LIMIT: Final = 16 * MIB
LARGE: Final[dict[str, Any]] = {"data": {f"part{number}": "x" * 16_000 for number in range(10)}}
"""Of about 166 KB with the event around it; its message takes 330 KB in memory, or 500."""

BESIDE: Final = 110 * MIB
"""What the daemon takes beside its queues: SQLite's cache of 64 MiB, and what requests and attempts pass."""


def config(sink: HttpSink) -> str:
    return f"""
[channels.hook]
type = "webhook"
url = "{sink.url}/hook"
timeout = "60s"
[[rules]]
name = "everything"
when = "true"
channels = ["hook"]
[dispatch]
memory = "{LIMIT // MIB}MiB"
"""


def resident(daemon: DaemonProcess) -> int:
    """Bytes of the process that are in memory."""
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return pages * 4096


async def post_large(daemon: DaemonProcess, count: int) -> None:
    for _ in range(count):
        answer = await daemon.send(events.cloud_event(at=wall_clock(), **LARGE), "/api/v1/events")
        assert answer.status == 202


async def test_large_events_for_a_channel_that_stands_still_take_bounded_memory_and_all_arrive(
    tmp_path: Path,
) -> None:
    """Without the bound these take 240 MiB more than at the start."""
    async with HttpSink() as sink, daemon_process(tmp_path, config(sink), python=sys.executable) as daemon:
        sink.gate.clear()
        before = resident(daemon)
        await asyncio.gather(*(post_large(daemon, EVENTS // 4) for _ in range(4)))

        async def planned() -> bool:
            return await daemon.metric("notifyd_backlog", channel="hook") == EVENTS

        await until_async(planned, 30)
        assert resident(daemon) - before < LIMIT + BESIDE
        sink.gate.set()

        async def sent() -> bool:
            return await daemon.metric("notifyd_deliveries_total", channel="hook", outcome="sent") == EVENTS

        await until_async(sent, 60)
        ids = [received.headers["webhook-id"] for received in sink.received]
        assert len(ids) == len(set(ids)) == EVENTS
        assert resident(daemon) - before < LIMIT + BESIDE
