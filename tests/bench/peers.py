"""Other programs with the same sink, where they are installed, each with what it keeps: `make bench-peers`."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from tests.bench.figures import end_to_end
from tests.bench.harness import (
    LOAD_CORE,
    SERVER_CORE,
    Bench,
    Row,
    arrivals,
    cpu_seconds,
    figure,
    line_of,
    process,
    sink_state,
)
from tests.ports import free_port

_ALERTMANAGER: Final = "prometheus-alertmanager"
_REDIS: Final = "redis-server"
_CONFIG: Final = """
route: {{receiver: sink, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: sink, webhook_configs: [{{url: '{sink}/hook', send_resolved: false}}]}}]
"""


_PYTHON: Final = Path(".venv-peers/bin/python")
"""Where `make bench-peers` installs what requirements/peers.txt names."""

_QUEUES: Final[Mapping[str, str]] = {
    "celery": "Redis, each write synced; a begun job comes again",
    "dramatiq": "Redis, each write synced; a begun job comes again",
    "arq": "Redis, each write synced; a begun job comes again",
    "huey": "SQLite, each commit synced; a begun job is lost",
}
"""Each with its durability."""

_COST: Final = "  processor time each"

_ON_SQLITE: Final = frozenset({"huey"})


async def peers(bench: Bench) -> list[Row]:
    """notifyd beside each kind: what keeps nothing, and the quickest of the queues that keep their jobs."""
    ours, cost = await end_to_end(bench, "beside peers")
    rows = [Row("notifyd, delivered /s: each commit synced, begun ones again", ours)]
    rows.append(Row(_COST, cost, form="{:.0f} µs"))
    if shutil.which(_ALERTMANAGER):
        theirs, used = await _alertmanager(bench)
        rows.append(Row("Alertmanager, delivered /s: nothing kept", ours, theirs, ours / theirs, "0.75"))
        rows.append(Row(_COST, cost, used, used / cost, form="{:.0f} µs"))
    if find_spec("apprise") is not None:
        few = str(max(200, bench.count // 20))
        made = float(await figure(SERVER_CORE, "apprise", bench.sink, few, "64"))
        rows.append(Row("Apprise, notifications /s: nothing kept", made))
    return rows + await _queues(bench, ours, cost)


async def _queues(bench: Bench, ours: float, cost: float) -> list[Row]:
    known = [name for name in _QUEUES if name in _ON_SQLITE or shutil.which(_REDIS)]
    found = {name: await _queue(bench, name) for name in known if _PYTHON.exists()}
    rows: list[Row] = []
    for name, (each, used) in found.items():
        rows.append(Row(f"{name} /s: {_QUEUES[name]}", each))
        rows.append(Row(_COST, used, form="{:.0f} µs"))
    if found:
        quickest = max(each for each, _ in found.values())
        least = min(used for _, used in found.values())
        rows.append(Row("notifyd / the quickest durable queue", ours, quickest, ours / quickest, "4"))
        rows.append(Row(_COST, cost, least, least / cost, "4", form="{:.0f} µs"))
    return rows


async def _queue(bench: Bench, name: str) -> tuple[float, float]:
    """Jobs a second, from the first handed in to the last arrival, and what worker and broker use for each."""
    folder, count = bench.room(name), max(200, bench.count // 10)
    before = (await sink_state(bench.sink))["count"]
    async with (
        _broker(name, folder) as (where, broker),
        process(SERVER_CORE, *_job("work", name, where, bench.sink)) as worker,
    ):
        await _put(name, where, bench.sink, 1)
        await arrivals(bench.sink, before + 1)  # the worker is there
        busy = [worker.pid, *broker]
        used = sum(map(cpu_seconds, busy))
        began = await _put(name, where, bench.sink, count)
        arrived = await arrivals(bench.sink, before + 1 + count)
        return count / (arrived - began), (sum(map(cpu_seconds, busy)) - used) / count * 1e6


async def _put(name: str, where: str, sink: str, count: int) -> float:
    """When the first was handed in, once all are durable."""
    async with process(LOAD_CORE, *_job("put", name, where, sink, count)) as started:
        return float(await line_of(started))


def _job(what: str, name: str, where: str, sink: str, count: int = 0) -> tuple[str, ...]:
    return (str(_PYTHON), "tests/bench/queues.py", what, name, where, sink, str(count))


@asynccontextmanager
async def _broker(name: str, folder: Path) -> AsyncIterator[tuple[str, list[int]]]:
    """A file for SQLite, or a Redis that acknowledges what is on the disk: its address and its process."""
    if name in _ON_SQLITE:
        yield str(folder / "jobs.db"), []
        return
    port = free_port()
    options = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", str(folder))
    async with process(SERVER_CORE, _REDIS, "--port", str(port), "--bind", "127.0.0.1", *options) as started:
        await _listens(port)
        yield f"redis://127.0.0.1:{port}/0", [started.pid]


async def _listens(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.01)


async def _alertmanager(bench: Bench) -> tuple[float, float]:
    """Alerts a second, from the first handed in to the last arrival, and what it uses for each."""
    folder, port = bench.room("alertmanager"), free_port()
    (folder / "config.yml").write_text(_CONFIG.format(sink=bench.sink))
    url = f"http://127.0.0.1:{port}"
    command = [_ALERTMANAGER, f"--config.file={folder}/config.yml", f"--storage.path={folder}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    before = (await sink_state(bench.sink))["count"]
    async with process(SERVER_CORE, *command) as started, aiohttp.ClientSession() as session:
        await _ready(session, url)
        used, began = cpu_seconds(started.pid), time.time()
        for first in range(0, bench.count, 100):
            alerts = [{"labels": {"alertname": "bench", "n": str(n)}} for n in range(first, first + 100)]
            headers = {"Content-Type": "application/json"}
            async with session.post(
                url + "/api/v2/alerts", data=orjson.dumps(alerts), headers=headers
            ) as answer:
                answer.raise_for_status()
        arrived = await arrivals(bench.sink, before + bench.count)
        each = (cpu_seconds(started.pid) - used) / bench.count * 1e6
    return bench.count / (arrived - began), each


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        try:
            async with session.get(url + "/-/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            continue
