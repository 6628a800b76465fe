"""`make bench`: notifyd beside its limits, all measured in the same run, as ratios.

The program under test has one core, the load and the sink the other. Nothing here is a test: it prints.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson
import uvloop
from attrs import frozen
from rich.console import Console
from rich.table import Table

from notifyd.app import wall_clock
from notifyd.signing import sign
from tests import events
from tests.bench.load import Load, drive, http_request
from tests.bench.servers import SECRET

_SERVER_CORE, _LOAD_CORE = "0", "1"
_CONNECTIONS = 128

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
[store]
url = "sqlite:///{folder}/notifyd.db"
[keys]
seal = ["{seal}"]
[auth.clients.bench]
hmac_secrets = ["{secret}"]
scopes = ["Notifier.Events:Write"]
tenants = ["acme"]
[egress]
allow_private = ["127.0.0.0/8"]
[resume]
allowed_origins = ["https://runner.acme.example"]
[dispatch]
max_backlog = 10000000
[channels.hook]
type = "webhook"
url = "{sink}/hook"
secret = "{secret}"
concurrency = 64
[[rules]]
name = "bench"
when = 'event.kind == "bench.delivered"'
channels = ["hook"]
"""


@frozen
class Row:
    """One line of the table: a figure, its limit in the same run, and what it must reach."""

    name: str
    figure: str
    limit: str = ""
    ratio: str = ""
    must: str = ""


def _pinned(core: str, *command: str) -> list[str]:
    """`command` on one core, where the machine can do that."""
    taskset = shutil.which("taskset")
    return [taskset, "-c", core, *command] if taskset and (os.cpu_count() or 1) > 1 else list(command)


@asynccontextmanager
async def process(core: str, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        *_pinned(core, sys.executable, "-m", *command), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGTERM)
        await started.communicate()


async def _line(of: asyncio.subprocess.Process) -> str:
    assert of.stdout is not None
    return (await of.stdout.readline()).decode().strip()


@asynccontextmanager
async def server(core: str, name: str) -> AsyncIterator[str]:
    async with process(core, "tests.bench.servers", name) as started:
        yield f"http://127.0.0.1:{await _line(started)}"


async def figure(core: str, name: str, *arguments: str) -> float:
    async with process(core, "tests.bench.servers", name, *arguments) as started:
        return float(await _line(started))


@asynccontextmanager
async def notifyd(folder: Path, sink: str, port: int) -> AsyncIterator[tuple[str, int, float]]:
    """A daemon: its address, its process id, and the seconds from its start to its being ready."""
    text = CONFIG.format(
        port=port,
        folder=folder,
        seal=base64.b64encode(b"0" * 32).decode(),
        secret=SECRET.reveal(),
        sink=sink,
    )
    (folder / "notifyd.toml").write_text(text)
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    command = ("notifyd", "serve", "--config", str(folder / "notifyd.toml"))
    async with process(_SERVER_CORE, *command) as started:
        drained = asyncio.create_task(_drain(started))
        await _until_ready(url)
        yield url, started.pid, time.perf_counter() - began
        started.send_signal(signal.SIGTERM)
        await drained


async def _drain(of: asyncio.subprocess.Process) -> None:
    assert of.stdout is not None
    while await of.stdout.read(65536):
        pass


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url + "/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.005)


# --- requests ----------------------------------------------------------------------------------------------


def _signed(url: str, document: dict[str, Any], content_type: str = "application/json") -> bytes:
    body = orjson.dumps(document)
    headers = sign([SECRET], document.get("eventId") or document["id"], int(time.time()), body)
    return http_request(url, body, headers | {"X-Notifyd-Client": "bench", "Content-Type": content_type})


def pack_requests(url: str, count: int) -> list[bytes]:
    base = events.requested(at=wall_clock())
    base["tenant"] = {"id": "acme"}
    base["resume"] = {"callbackUrl": "https://runner.acme.example/r", "token": "a-resume-token"}
    target = url + "/notifications/pack-approvals"
    return [
        _signed(target, base | {"eventId": str(uuid.uuid4()), "runId": f"run-{uuid.uuid4().hex}"})
        for _ in range(count)
    ]


def cloud_requests(url: str, kind: str, count: int) -> list[bytes]:
    base = {
        "specversion": "1.0",
        "source": "bench",
        "type": kind,
        "tenant": "acme",
        "data": {"stage": "x" * 400},
    }
    content_type = "application/cloudevents+json"
    return [
        _signed(url + "/api/v1/events", base | {"id": uuid.uuid4().hex}, content_type) for _ in range(count)
    ]


# --- measurements ------------------------------------------------------------------------------------------


async def ingest(
    count: int, make: Callable[[str, int], list[bytes]], folder: Path, sink: str, port: int
) -> tuple[Load, float]:
    async with notifyd(folder, sink, port) as (url, pid, _):
        await drive(url, make(url, count // 10), _CONNECTIONS)  # warm
        return await _measured(pid, url, make(url, count))


async def _measured(pid: int, url: str, requests: list[bytes]) -> tuple[Load, float]:
    """A saturated run, and the processor time it took for each request, in microseconds."""
    before = cpu_seconds(pid)
    load = await drive(url, requests, _CONNECTIONS)
    if set(load.statuses) != {202}:
        raise RuntimeError(f"answers other than 202: {dict(load.statuses)}")
    return load, (cpu_seconds(pid) - before) / len(requests) * 1e6


async def _sink_state(sink: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(sink) as response:
        state: dict[str, Any] = orjson.loads(await response.read())
        return state


async def _arrivals(sink: str, count: int) -> float:
    """When the `count`th webhook arrived, once it has."""
    while True:
        state = await _sink_state(sink)
        if state["count"] >= count:
            return float(state["last"])
        await asyncio.sleep(0.001)


async def end_to_end(count: int, folder: Path, sink: str, port: int) -> float:
    """Events a second from the first request to the last arrival, saturated."""
    before = (await _sink_state(sink))["count"]
    async with notifyd(folder, sink, port) as (url, _, _):
        began = time.time()
        await drive(url, cloud_requests(url, "bench.delivered", count), _CONNECTIONS)
        arrived = await _arrivals(sink, before + count)
    return count / (arrived - began)


async def latency(count: int, folder: Path, sink: str, port: int) -> list[float]:
    """Seconds from POST to arrival, one at a time."""
    taken = []
    async with notifyd(folder, sink, port) as (url, _, _):
        for request in cloud_requests(url, "bench.delivered", count):
            before, began = (await _sink_state(sink))["count"], time.time()
            await drive(url, [request], 1)
            taken.append(await _arrivals(sink, before + 1) - began)
    return sorted(taken)


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far: what a busy neighbour on the machine disturbs least."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@click.command()
@click.option("--events", "count", default=20_000, help="How many events a saturated run sends.")
@click.option("--only", multiple=True, help="Run only these: ingest, pack, e2e, latency, start, disk.")
def main(count: int, only: Sequence[str]) -> None:
    """Measure, and print one table."""
    uvloop.run(_main(count, set(only)))


async def _main(count: int, only: set[str]) -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        async with server(_LOAD_CORE, "sink") as sink:
            await _measure(rows, count, only, Path(name), sink)
    table = Table("figure", "measured", "limit", "ratio", "must reach")
    for row in rows:
        table.add_row(row.name, row.figure, row.limit, row.ratio, row.must)
    Console().print(table)


async def _measure(rows: list[Row], count: int, only: set[str], root: Path, sink: str) -> None:
    def wanted(name: str) -> bool:
        return not only or name in only

    def folder(name: str) -> Path:
        (root / name).mkdir()
        return root / name

    if {"ingest", "pack"} & only or not only:
        async with process(_SERVER_CORE, "tests.bench.servers", "bare_handler") as started:
            bare = f"http://127.0.0.1:{await _line(started)}"
            await drive(bare, pack_requests(bare, count // 10), _CONNECTIONS)  # warm
            handler = await _measured(started.pid, bare, pack_requests(bare, count))
        for kind, make in (("ingest", _plain_events), ("pack", pack_requests)):
            if wanted(kind):
                measured = await ingest(count, make, folder(kind), sink, 18686)
                rows += _ingest_rows(kind, measured, handler)
    if wanted("disk"):
        limit = await figure(_SERVER_CORE, "disk", str(count * 2))
        kept = await figure(_SERVER_CORE, "store", str(count), str(_CONNECTIONS))
        rows.append(
            Row("rows appended to the store /s", f"{kept:,.0f}", f"{limit:,.0f}", f"{kept / limit:.2f}")
        )
    if wanted("e2e"):
        limit = await figure(_SERVER_CORE, "bare_client", sink, str(count), "64")
        done = await end_to_end(count, folder("e2e"), sink, 18687)
        rows.append(
            Row(
                "events delivered end to end /s",
                f"{done:,.0f}",
                f"{limit:,.0f}",
                f"{done / limit:.2f}",
                "0.12",
            )
        )
    if wanted("latency"):
        taken = await latency(300, folder("latency"), sink, 18688)
        half = taken[len(taken) // 2] * 1000
        rows.append(Row("POST to webhook arrival, idle, p50", f"{half:.2f} ms", must="5 ms"))
    if wanted("start"):
        async with notifyd(folder("start"), sink, 18689) as (_, pid, seconds):
            rows.append(Row("start to ready", f"{seconds:.2f} s", must="1.2 s"))
            rows.append(Row("memory, idle", f"{rss(pid):.0f} MB", must="110 MB"))


def _plain_events(url: str, count: int) -> list[bytes]:
    return cloud_requests(url, "bench.kept", count)


def _ingest_rows(kind: str, measured: tuple[Load, float], handler: tuple[Load, float]) -> list[Row]:
    name = {"ingest": "durable ingest, CloudEvents", "pack": "durable ingest, approval requests"}[kind]
    (load, cost), (bare, bare_cost) = measured, handler
    ratio = load.per_second / bare.per_second
    return [
        Row(f"{name} /s", f"{load.per_second:,.0f}", f"{bare.per_second:,.0f}", f"{ratio:.2f}", "0.35"),
        Row(f"{name}, p99", f"{load.percentile(0.99) * 1000:.1f} ms", must="50 ms"),
        Row(f"{name}, processor", f"{cost:.0f} µs", f"{bare_cost:.0f} µs", f"{bare_cost / cost:.2f}"),
    ]


if __name__ == "__main__":
    main()
