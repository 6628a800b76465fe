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

from notifyd.app import wall_clock
from notifyd.model import Event, Outcome
from notifyd.secrets import Secret
from notifyd.signing import secret_bytes, verify
from notifyd.store import append_as_is
from notifyd.store.sqlite import open_sqlite

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


async def store(rows: str, callers: str) -> None:
    """What the store makes of the disk: events appended by so many callers at once."""
    left, now = iter(range(int(rows))), wall_clock()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        opened = await open_sqlite(Path(folder) / "store.db", node="bench", clock=wall_clock)

        async def caller() -> None:
            for number in left:
                await opened.append(append_as_is(_event(number, now)))

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(int(callers))))
        print(int(rows) / (time.perf_counter() - started), flush=True)
        await opened.aclose()


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
    programs = {f.__name__: f for f in (bare_handler, bare_client, disk, store, sink)}
    uvloop.run(programs[name](*arguments))
