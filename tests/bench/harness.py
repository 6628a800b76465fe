"""What the figures are made with: processes on cores of their own, a daemon, prepared requests, a sink."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import orjson
from attrs import evolve, frozen

from notifyd.model import wall_clock
from notifyd.security.signing import sign
from tests import events
from tests.bench.load import Load, drive, http_request
from tests.bench.servers import SECRET
from tests.ports import free_port

SERVER_CORE: Final = "0"
LOAD_CORE: Final = "1"
CONNECTIONS: Final = 128

CONFIG: Final = """
[server]
listen = "127.0.0.1:{port}"
[store]
url = "{store}"
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
    figure: float
    limit: float | None = None
    ratio: float | None = None
    must: str = ""
    form: str = "{:,.0f}"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        limit = "" if self.limit is None else self.form.format(self.limit)
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.name, self.form.format(self.figure), limit, ratio, self.must


def medians(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Of each line its median figure, its median limit, and the median of the ratios within a run."""
    return [
        evolve(
            rows[0],
            figure=median(row.figure for row in rows),
            limit=_median(row.limit for row in rows),
            ratio=_median(row.ratio for row in rows),
        )
        for rows in zip(*runs, strict=True)
    ]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


@frozen
class Bench:
    """What every figure is given: how many events, a folder of its own, and the sink's address."""

    count: int
    folder: Path
    sink: str

    def room(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made


def _pinned(core: str, *command: str) -> list[str]:
    """`command` on one core, where the machine can do that."""
    taskset = shutil.which("taskset")
    return [taskset, "-c", core, *command] if taskset and (os.cpu_count() or 1) > 1 else list(command)


@asynccontextmanager
async def process(core: str, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command on a core, its output read so that it never blocks, ended with SIGTERM."""
    started = await asyncio.create_subprocess_exec(
        *_pinned(core, *command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGTERM)
        await started.communicate()


def module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


async def line_of(started: asyncio.subprocess.Process) -> str:
    assert started.stdout is not None
    return (await started.stdout.readline()).decode().strip()


async def figure(core: str, name: str, *arguments: str) -> str:
    """What one of the programs in `servers` prints."""
    async with process(core, *module("tests.bench.servers", name, *arguments)) as started:
        return await line_of(started)


@frozen
class Running:
    """A daemon: its address, its process id, and the seconds from its start to its being ready."""

    url: str
    pid: int
    seconds: float


@asynccontextmanager
async def notifyd(bench: Bench, folder: Path, *, sink: str = "", store: str = "") -> AsyncIterator[Running]:
    port = free_port()
    text = CONFIG.format(
        port=port,
        store=store or f"sqlite:///{folder}/notifyd.db",
        seal=base64.b64encode(b"0" * 32).decode(),
        secret=SECRET.reveal(),
        sink=sink or bench.sink,
    )
    (folder / "notifyd.toml").write_text(text)
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    command = module("notifyd", "serve", "--config", str(folder / "notifyd.toml"))
    async with process(SERVER_CORE, *command) as started:
        drained = asyncio.create_task(_drain(started))
        await _until_ready(url)
        yield Running(url, started.pid, time.perf_counter() - began)
        started.send_signal(signal.SIGTERM)
        await drained


async def _drain(started: asyncio.subprocess.Process) -> None:
    assert started.stdout is not None
    while await started.stdout.read(65536):
        pass


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
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


# --- measuring ---------------------------------------------------------------------------------------------


async def saturated(pid: int, url: str, requests: list[bytes]) -> tuple[Load, float]:
    """A saturated run, and the processor time it took for each request, in microseconds."""
    before = cpu_seconds(pid)
    load = await drive(url, requests, CONNECTIONS)
    if set(load.statuses) != {202}:
        raise RuntimeError(f"answers other than 202: {dict(load.statuses)}")
    return load, (cpu_seconds(pid) - before) / len(requests) * 1e6


async def sink_state(sink: str) -> dict[str, Any]:
    """How many webhooks have come, and when the last one did."""
    async with aiohttp.ClientSession() as session, session.get(sink) as response:
        state: dict[str, Any] = orjson.loads(await response.read())
        return state


async def arrivals(sink: str, count: int) -> float:
    """When the `count`th webhook arrived, once it has."""
    while True:
        state = await sink_state(sink)
        if state["count"] >= count:
            return float(state["last"])
        await asyncio.sleep(0.001)


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far: what a busy neighbour on the machine disturbs least."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
