"""The figures, each with the limit it is held against, measured in the same run."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

import orjson

from tests.bench.harness import (
    CONNECTIONS,
    LOAD_CORE,
    SERVER_CORE,
    Bench,
    Row,
    arrivals,
    cloud_requests,
    cpu_seconds,
    figure,
    line_of,
    module,
    notifyd,
    pack_requests,
    process,
    rss,
    saturated,
    sink_state,
)
from tests.bench.load import Load, drive
from tests.mongodb import secantus
from tests.ports import free_port
from tests.waiting import until

Figure: TypeAlias = Callable[[Bench], Awaitable[list[Row]]]

_PENDING: Final = 100_000
_LARGE, _SMALL, _TURNS = 1_000_000, 1_000, 8
_BURST, _BURSTS = 500, 4
_REST: Final = 0.3  # seconds


async def ingest(bench: Bench) -> list[Row]:
    """Durable ingest at 128 connections, of plain events and of approval requests, against a bare handler."""
    async with process(SERVER_CORE, *module("tests.bench.servers", "bare_handler")) as started:
        bare = f"http://127.0.0.1:{await line_of(started)}"
        await drive(bare, pack_requests(bare, bench.count // 10), 128)  # warm
        limit = await saturated(started.pid, bare, pack_requests(bare, bench.count))
    rows = []
    for name, make, must in (
        ("CloudEvents", _kept, ("0.50", "40 ms")),
        ("approval requests", pack_requests, ("0.30", "60 ms")),
    ):
        async with notifyd(bench, bench.room(f"ingest {name}"[:10])) as daemon:
            await drive(daemon.url, make(daemon.url, bench.count // 10), 128)
            run = await saturated(daemon.pid, daemon.url, make(daemon.url, bench.count))
        rows += _ingest_rows(name, run, limit, must)
    return rows


def _kept(url: str, count: int) -> list[bytes]:
    return cloud_requests(url, "bench.kept", count)


def _ingest_rows(
    name: str, run: tuple[Load, float], limit: tuple[Load, float], must: tuple[str, str]
) -> list[Row]:
    (load, cost), (bare, bare_cost) = run, limit
    return [
        _ratio(f"durable ingest of {name} /s", load.per_second, bare.per_second, must[0]),
        Row("  p99", load.percentile(0.99) * 1000, must=must[1], form="{:.1f} ms"),
        Row("  processor time each", cost, bare_cost, bare_cost / cost, must=must[0], form="{:.0f} µs"),
    ]


def _ratio(name: str, measured: float, limit: float, must: str = "") -> Row:
    return Row(name, measured, limit, measured / limit, must)


async def store(bench: Bench) -> list[Row]:
    """Events appended by 128 callers at once, against the rows the disk takes; and MongoDB's wire."""
    limit = float(await figure(SERVER_CORE, "disk", str(bench.count * 2)))
    kept = float(await figure(SERVER_CORE, "store", "sqlite", str(bench.count), "128"))
    rows = [_ratio("events appended to SQLite /s", kept, limit)]
    with secantus() as server:
        for driver in ("motor", "pymongo"):
            few = str(max(500, bench.count // 20))
            made = float(await figure(SERVER_CORE, "store", server.database(), few, "32", driver))
            rows.append(Row(f"events appended to MongoDB's wire by {driver} /s", made))
    return rows


async def delivery(bench: Bench) -> list[Row]:
    """Events from request to arrival: ingest, plan, render, send, record; against a bare client."""
    limit = float(await figure(SERVER_CORE, "bare_client", bench.sink, str(bench.count), "64"))
    ours, _ = await end_to_end(bench, "delivery")
    return [_ratio("events delivered end to end /s", ours, limit, "0.22")]


async def end_to_end(bench: Bench, room: str) -> tuple[float, float]:
    """Events a second, from the first request to the last arrival, and the processor time of each, in µs."""
    before = (await sink_state(bench.sink))["count"]
    async with notifyd(bench, bench.room(room)) as daemon:
        requests = cloud_requests(daemon.url, "bench.delivered", bench.count)
        used, began = cpu_seconds(daemon.pid), time.time()
        await drive(daemon.url, requests, 128)
        arrived = await arrivals(bench.sink, before + bench.count)
        each = (cpu_seconds(daemon.pid) - used) / bench.count * 1e6
        return bench.count / (arrived - began), each


async def latency(bench: Bench) -> list[Row]:
    """From POST to the webhook's arrival, one at a time."""
    taken = []
    async with notifyd(bench, bench.room("latency")) as daemon:
        for request in cloud_requests(daemon.url, "bench.delivered", 300):
            before, began = (await sink_state(bench.sink))["count"], time.time()
            await drive(daemon.url, [request], 1)
            taken.append(await arrivals(bench.sink, before + 1) - began)
    half = sorted(taken)[len(taken) // 2] * 1000
    return [Row("POST to webhook arrival, idle, p50", half, must="1.5 ms", form="{:.2f} ms")]


async def start(bench: Bench) -> list[Row]:
    """Start and memory: idle beside a process that only imports, and with 100,000 deliveries waiting."""
    imports = orjson.loads(await figure(SERVER_CORE, "imports"))
    async with notifyd(bench, bench.room("idle")) as daemon:
        idle, ready = rss(daemon.pid), daemon.seconds
    full = bench.room("pending")
    await figure(LOAD_CORE, "fill", str(full / "notifyd.db"), str(_PENDING))
    nobody = f"http://127.0.0.1:{free_port()}"
    async with notifyd(bench, full, sink=nobody) as daemon:
        await asyncio.sleep(3)  # long enough to bring in what it is going to bring in
        pending, recovered = rss(daemon.pid), daemon.seconds
    return [
        Row("start to ready", ready, imports["seconds"], must="1.2 s", form="{:.2f} s"),
        Row("start to ready, 100,000 waiting", recovered, form="{:.2f} s"),
        Row("memory, idle", idle, imports["megabytes"], must="70 MB", form="{:.0f} MB"),
        Row("memory, 100,000 waiting", pending, must="90 MB", form="{:.0f} MB"),
    ]


async def growth(bench: Bench) -> list[Row]:
    """The processor time of a delivered event in a store of a million of them, and in one of a thousand.

    Two daemons take short bursts by turns, because the machine's own speed changes within seconds. The large file
    is read beforehand: a store in use is in the system's cache, and a cold disk is not what growth costs.
    """
    full = bench.room("large")
    await figure(LOAD_CORE, "delivered", str(full / "notifyd.db"), str(_LARGE))
    costs = [await _grown(bench, full, bench.room(f"small {turn}")) for turn in range(_TURNS)]
    large, small = (median(column) for column in zip(*costs, strict=True))
    ratios = sorted(large / small for large, small in costs)
    name = f"a delivered event's processor time at {_LARGE:,} events"
    return [
        Row(name, large, small, median(ratios), "1.10", "{:.0f} µs"),
        Row(f"  the least ratio of {_TURNS} turns", ratios[0], form="{:.2f}"),
        Row(f"  the greatest ratio of {_TURNS} turns", ratios[-1], form="{:.2f}"),
    ]


async def _grown(bench: Bench, full: Path, few: Path) -> tuple[float, float]:
    """Microseconds from request to record, checkpoints too, in a large store and a small one."""
    await figure(LOAD_CORE, "delivered", str(few / "notifyd.db"), str(_SMALL))
    await asyncio.to_thread(_read_through, full / "notifyd.db")
    async with notifyd(bench, full) as large, notifyd(bench, few) as small:
        for room in (full, few):
            await _sealed(room / "notifyd.db")
        both, used = (large, small), [0.0, 0.0]
        for burst in range(-1, _BURSTS):  # the first is not counted
            for number, daemon in enumerate(both):
                before = cpu_seconds(daemon.pid)
                await _deliver(bench, daemon.url, _BURST)
                used[number] += (cpu_seconds(daemon.pid) - before) * (burst >= 0)
        return used[0] / (_BURSTS * _BURST) * 1e6, used[1] / (_BURSTS * _BURST) * 1e6


async def _sealed(path: Path) -> None:
    """Wait until the audit trail is sealed: that takes half a minute after a start over a filled file."""
    with closing(sqlite3.connect(path)) as db:
        await until(lambda: not db.execute("SELECT 1 FROM audit WHERE seal = 0 LIMIT 1").fetchone(), 300)


def _read_through(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


async def _deliver(bench: Bench, url: str, count: int) -> None:
    """Have so many events delivered, and leave the daemon the time to record and to checkpoint them."""
    before = (await sink_state(bench.sink))["count"]
    await drive(url, cloud_requests(url, "bench.delivered", count), CONNECTIONS)
    await arrivals(bench.sink, before + count)
    await asyncio.sleep(_REST)


FIGURES: Final[Mapping[str, Figure]] = {
    one.__name__: one for one in (ingest, store, delivery, latency, start, growth)
}
