"""The programs a benchmark runs on a core of its own: `python -m tests.bench.servers NAME [ARGUMENT ...]`.

Each prints its port, or its result, on a line and serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import aiohttp
import orjson
import uvloop
from aiohttp import web

from notifyd.config.settings import StoreDriver
from notifyd.model import SECOND, Delivery, Event, Message, Outcome
from notifyd.security.envelope import wrap
from notifyd.security.secrets import Keyring, Secret
from notifyd.security.signing import secret_bytes, verify
from notifyd.service.app import wall_clock
from notifyd.store import Store, append_as_is
from notifyd.store.open import open_store

SECRET = Secret("whsec_" + base64.b64encode(b"the secret of the bench's sender").decode())


async def _serve(handler: web.RequestHandler | object) -> None:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def bare_handler() -> None:
    """The ingest limit: read, parse with orjson, verify the HMAC, answer 202."""
    keys = [secret_bytes(SECRET)]

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        verify(keys, request.headers, body, time.time(), 300)
        document = orjson.loads(body)
        answer = orjson.dumps({"eventId": document["eventId"]})
        return web.Response(status=202, body=answer, content_type="application/json")

    await _serve(handler)


async def bare_client(url: str, count: str, concurrency: str) -> None:
    """The delivery limit: a bare aiohttp client that posts, so many at a time."""
    body = b"x" * 1500
    left = iter(range(int(count)))

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(url, data=body) as response:
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(int(concurrency))))
        print(int(count) / (time.perf_counter() - started), flush=True)


async def disk(rows: str) -> None:
    """The disk's limit: rows of an event's size, 32 to a commit, nothing else."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        db = sqlite3.connect(Path(folder) / "rows.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, key TEXT NOT NULL, body TEXT NOT NULL)")
        db.execute("CREATE UNIQUE INDEX rows_key ON rows (key)")
        body, total = "x" * 1200, int(rows)
        started = time.perf_counter()
        for first in range(0, total, 32):
            db.execute("BEGIN IMMEDIATE")
            batch = ((os.urandom(32).hex(), body) for _ in range(first, min(first + 32, total)))
            db.executemany("INSERT INTO rows (key, body) VALUES (?, ?)", batch)
            db.execute("COMMIT")
        print(total / (time.perf_counter() - started), flush=True)
        db.close()


async def store(where: str, rows: str, callers: str, driver: str = "pymongo") -> None:
    """What a store makes of its disk: events appended by so many callers at once."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        url = f"sqlite:///{folder}/store.db" if where == "sqlite" else where
        opened = await open_store(url, node="bench", clock=wall_clock, driver=StoreDriver(driver))
        print(await _append(opened, int(rows), int(callers)), flush=True)
        await opened.aclose()


async def _append(opened: Store, rows: int, callers: int) -> float:
    """Events a second."""
    left, now = iter(range(rows)), wall_clock()

    async def caller() -> None:
        for number in left:
            await opened.append(append_as_is(_event(number, now)))

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return rows / (time.perf_counter() - started)


async def growth(path: str) -> None:
    """Microseconds of processor time an event costs a store of some sizes and, each time, a small one, as JSON.

    The two are measured by turns, as the machine's own speed changes within minutes.
    """
    opened = await open_store(f"sqlite:///{path}", node="bench", clock=wall_clock)
    costs, rows = {}, 0
    for size, sample in _SIZES.items():
        await _append(opened, size - rows, 512)
        small = [await _cost_when_small(f"{path}.{size}.before")]
        large = await _cost(opened, sample)
        small.append(await _cost_when_small(f"{path}.{size}.after"))
        costs[str(size)] = (large, sum(small) / len(small))
        rows = size + sample
    print(orjson.dumps(costs).decode(), flush=True)
    await opened.aclose()


async def _cost_when_small(path: str) -> float:
    opened = await open_store(f"sqlite:///{path}", node="bench", clock=wall_clock)
    await _append(opened, 1_000, 512)
    cost = await _cost(opened, 10_000)
    await opened.aclose()
    return cost


async def _cost(opened: Store, sample: int) -> float:
    """Microseconds an event, until the store is at rest: it pays for all it wrote, the checkpoint too."""
    await asyncio.sleep(_REST)
    began = time.process_time()
    await _append(opened, sample, 128)
    await asyncio.sleep(_REST)
    return (time.process_time() - began) / sample * 1e6


_REST = 0.5
"""Seconds that the store is left to checkpoint what it wrote."""

_SIZES = {10_000: 20_000, 100_000: 40_000, 300_000: 40_000, 1_000_000: 40_000}
"""At how many rows the cost of growth is measured, over how many more: as many as every key takes to be merged."""


async def fill(path: str, count: str) -> None:
    """A store with so many deliveries waiting to be sent, as a daemon that could not send them leaves it."""
    opened = await open_store(f"sqlite:///{path}", node="bench", clock=wall_clock)
    now = wall_clock()
    for first in range(0, int(count), 1000):
        rows = [_delivery(n, now) for n in range(first, min(first + 1000, int(count)))]
        await opened.insert_deliveries(None, rows)
    await opened.aclose()
    print(count, flush=True)


def _delivery(number: int, now: int) -> Delivery:
    delivery_id = os.urandom(32).hex()
    event = {"kind": "bench.delivered", "action": "", "n": number, "occurredAt": "2026-01-01T00:00:00Z"}
    message = Message(id=delivery_id, title="bench", body="x" * 400, event=event)
    return Delivery(
        id=delivery_id,
        tenant="acme",
        event_key="",
        kind="bench.delivered",
        action="",
        rule="bench",
        channel="hook",
        channel_type="webhook",
        lane="hook",
        recipient=None,
        message=wrap(message, Keyring([b"0" * 32]), sealed=False),
        sealed=False,
        correlation_id="bench",
        created_at=now,
        next_attempt_at=now,
        deadline=now + 24 * 3600 * SECOND,
    )


async def imports() -> None:
    """A process that only imports what the daemon does: seconds and megabytes, as JSON."""
    code = "import notifyd.service.daemon, notifyd.web, notifyd.store.sqlite, notifyd_webhook, uvloop, sys; "
    code += "print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    seconds = time.perf_counter() - started
    print(orjson.dumps({"seconds": seconds, "megabytes": int(out) / 1024}).decode(), flush=True)


async def apprise(sink: str, count: str, concurrency: str) -> None:
    """Notifications a second by Apprise's own client, kept nowhere."""
    from apprise import Apprise

    sender, left = Apprise(), iter(range(int(count)))
    sender.add(sink.replace("http://", "json://") + "/hook")

    async def worker() -> None:
        for number in left:
            await sender.async_notify(body="x" * 400, title=str(number))

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(int(concurrency))))
    print(f"{int(count) / (time.perf_counter() - started):,.0f}", flush=True)


def _event(number: int, now: int) -> Event:
    return Event(
        tenant="acme",
        key=os.urandom(32).hex(),
        event_id=str(number),
        kind="bench",
        action="",
        occurred_at=now,
        received_at=now,
        body="x" * 1200,
        content_id="",
        client="bench",
        correlation_id="bench",
        outcome=Outcome.ACCEPTED,
    )


async def sink() -> None:
    """Receives webhooks: counts them, and tells the count and the arrival times when asked with GET."""
    arrivals: list[float] = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    class Receiver(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport, self.buffer = cast(asyncio.WriteTransport, transport), b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            head, separator, rest = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if head.startswith(b"GET"):
                body = orjson.dumps({"count": len(arrivals), "last": arrivals[-1] if arrivals else 0.0})
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                self.buffer = b""
                return
            lower = head.lower()
            length = int(lower[lower.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            arrivals.append(time.time())
            self.buffer = b""
            self.transport.write(answer)

    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, name, *arguments = sys.argv
    programs = {
        f.__name__: f for f in (bare_handler, bare_client, disk, store, growth, fill, imports, apprise, sink)
    }
    uvloop.run(programs[name](*arguments))
