"""A burst of events, and a kill -9 in the middle of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest
from aiohttp import web

from notifyd.wire.codec import derived_id, rfc3339
from tests.process import TENANT, TOKEN, DaemonProcess, daemon_process
from tests.waiting import until

EVENTS: Final = 20_000
BATCH: Final = 100
POSTERS: Final = 2
SOURCE: Final = "/burst"
CONCURRENCY: Final = 32

CONFIG: Final = """
[channels.hook]
type = "webhook"
url = "{url}/hook"
concurrency = {concurrency}

[[rules]]
name = "burst"
when = 'event.kind == "task.done"'
channels = ["hook"]
"""


@asynccontextmanager
async def counting_sink(seen: Counter[str]) -> AsyncIterator[str]:
    """A server that counts what comes by its id, and does as little else as it can."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        seen[request.headers["webhook-id"]] += 1
        return web.Response()

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://{}:{}".format(*runner.addresses[0])
    await runner.cleanup()


def batch(number: int) -> list[dict[str, Any]]:
    now = rfc3339(time.time_ns() // 1000)
    return [
        {"specversion": "1.0", "id": f"{number}-{n}", "source": SOURCE, "type": "task.done", "time": now}
        for n in range(BATCH)
    ]


async def post(daemon: DaemonProcess, events: Sequence[dict[str, Any]]) -> None:
    """Post until they are accepted, as a sender does that was told to, or heard nothing."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cloudevents-batch+json"}
    body = orjson.dumps(events)
    while True:
        try:
            answer = await daemon.call("POST", "/api/v1/events", data=body, headers=headers)
        except (aiohttp.ClientError, OSError):
            await asyncio.sleep(0.05)
            continue
        if answer.status in (200, 202):
            return
        assert answer.status in (429, 503), answer.text
        await asyncio.sleep(0.05)


def delivery_id(number: int, n: int) -> str:
    key = derived_id("cloudevent", TENANT, SOURCE, f"{number}-{n}")
    return derived_id("delivery", TENANT, key, "burst", "hook", "")


@pytest.mark.timeout(200)
async def test_every_accepted_event_of_a_burst_is_delivered_though_the_daemon_is_killed(
    tmp_path: Path,
) -> None:
    seen: Counter[str] = Counter()
    numbers = iter(range(EVENTS // BATCH))
    async with (
        counting_sink(seen) as url,
        daemon_process(tmp_path, CONFIG.format(url=url, concurrency=CONCURRENCY)) as daemon,
    ):

        async def poster() -> None:
            for number in numbers:
                await post(daemon, batch(number))

        began = time.monotonic()
        posters = [asyncio.create_task(poster()) for _ in range(POSTERS)]
        await until(lambda: len(seen) >= EVENTS // 4, 60)
        await daemon.kill()
        await daemon.start()
        await asyncio.gather(*posters)
        await until(lambda: len(seen) >= EVENTS, 90)
        repeats = seen.total() - EVENTS
        took = time.monotonic() - began
        print(f"{EVENTS} events and a kill in {took:.1f} s, {repeats} sent twice")
        assert set(seen) == {delivery_id(b, n) for b in range(EVENTS // BATCH) for n in range(BATCH)}
        assert repeats <= CONCURRENCY, "only what was under way at the kill may come again"
