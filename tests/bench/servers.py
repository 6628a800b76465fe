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
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import aiohttp
import orjson
import uvloop
from aiohttp import web
from attrs import evolve

from notifyd.config.settings import StoreDriver
from notifyd.model import (
    SECOND,
    Attempt,
    AttemptOutcome,
    AuditName,
    AuditRecord,
    Delivery,
    Event,
    Message,
    Outcome,
    State,
    wall_clock,
)
from notifyd.security.envelope import wrap
from notifyd.security.secrets import Keyring, Secret
from notifyd.security.signing import secret_bytes, verify
from notifyd.store import SealKeys, Store, append_as_is
from notifyd.store.open import StoreOptions, open_store
from notifyd.store.sqlite import rows

SECRET = Secret("whsec_" + base64.b64encode(b"the secret of the bench's sender").decode())
_KEYRING: Final = Keyring([b"0" * 32])
"""The key of the harness's configuration."""


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


async def disk(count: str) -> None:
    """The disk's limit: rows of an event's size, 32 to a commit, nothing else."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        db = sqlite3.connect(Path(folder) / "rows.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, key TEXT NOT NULL, body TEXT NOT NULL)")
        db.execute("CREATE UNIQUE INDEX rows_key ON rows (key)")
        body, total = "x" * 1200, int(count)
        started = time.perf_counter()
        for first in range(0, total, 32):
            db.execute("BEGIN IMMEDIATE")
            batch = ((os.urandom(32).hex(), body) for _ in range(first, min(first + 32, total)))
            db.executemany("INSERT INTO rows (key, body) VALUES (?, ?)", batch)
            db.execute("COMMIT")
        print(total / (time.perf_counter() - started), flush=True)
        db.close()


async def store(where: str, count: str, callers: str, driver: str = "pymongo") -> None:
    """What a store makes of its disk: events appended by so many callers at once."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        url = f"sqlite:///{folder}/store.db" if where == "sqlite" else where
        opened = await open_store(
            url, StoreOptions(node="bench", clock=wall_clock, driver=StoreDriver(driver))
        )
        print(await _append(opened, int(count), int(callers)), flush=True)
        await opened.aclose()


async def _append(opened: Store, count: int, callers: int) -> float:
    """Events a second."""
    left, now = iter(range(count)), wall_clock()

    async def caller() -> None:
        for number in left:
            await opened.append(append_as_is(_event(number, now)))

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - started)


async def delivered(path: str, count: str) -> None:
    """A store in which so many events have been delivered, their rows written straight into the file.

    Bodies and messages are short: no step of a later delivery reads them.
    """
    await (await open_store(f"sqlite:///{path}", StoreOptions(node="bench", clock=wall_clock))).aclose()
    now, keys = wall_clock(), [os.urandom(32).hex() for _ in range(int(count))]
    event = rows.event_row(evolve(_event(0, now), body="x" * 100))
    sent = evolve(_delivery(0, now), state=State.SENT, message="{}", tries=1, attempts=(_SENT,), ended_at=now)
    delivery = rows.delivery_row(sent)
    audit = rows.audit_row(
        AuditRecord("", "acme", AuditName.NOTIFICATION_SENT, now, "notifyd", "bench", data={"tries": 1})
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = -2000000")
        db.execute("BEGIN")
        for table, columns, row in (
            ("events", rows.EVENT, event),
            ("deliveries", (*rows.DELIVERY, "life"), (*delivery, 0)),
            ("audit", rows.AUDIT, audit),
        ):
            db.executemany(rows.insert(table, columns), ((row[0], key, *row[2:]) for key in keys))
        db.executemany(rows.insert("messages", ("delivery", "message")), ((n, "{}") for n in _numbers(keys)))
        db.executemany(rows.insert("plans", ("event", "plan")), ((n, "[]") for n in _numbers(keys)))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    print(count, flush=True)


def _numbers(rows_: list[str]) -> range:
    """The rowids that SQLite gives the rows of a new table."""
    return range(1, len(rows_) + 1)


_SENT = Attempt(0, 8.0, AttemptOutcome.SENT, status=200)


async def fill(path: str, count: str) -> None:
    """A store with so many deliveries waiting to be sent, as a daemon that could not send them leaves it."""
    opened = await open_store(f"sqlite:///{path}", StoreOptions(node="bench", clock=wall_clock))
    # Else the next start looks through all rows for the keys that they need.
    await opened.note_seal_keys(SealKeys(frozenset(_KEYRING.ids)))
    now = wall_clock()
    for first in range(0, int(count), 1000):
        given = [_delivery(n, now) for n in range(first, min(first + 1000, int(count)))]
        await opened.insert_deliveries(None, given)
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
        message=wrap(message, _KEYRING, sealed=False),
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
    print(f"{int(count) / (time.perf_counter() - started)}", flush=True)


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
        f.__name__: f
        for f in (bare_handler, bare_client, disk, store, delivered, fill, imports, apprise, sink)
    }
    uvloop.run(programs[name](*arguments))
