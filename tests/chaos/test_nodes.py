"""Several nodes, each a process of its own, on one database: one killed, one paused, one cut off."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import orjson
from attrs import define, field

from notifyd.app import wall_clock
from notifyd.codec import derived_id, rfc3339
from tests import events
from tests.mongodb import MongoServer
from tests.process import TENANT, TOKEN, DaemonProcess, daemon_process
from tests.sinks import HttpSink
from tests.waiting import until, until_async

CONCURRENCY: Final = 2
SOURCE: Final = "/nodes"

CONFIG: Final = """
[server]
listen = "127.0.0.1:${{NOTIFYD_PORT}}"
node = "{name}"

[store]
url = "{database}"
driver = "pymongo"
timeout = "5s"

[dispatch]
lease = "3s"
clock_skew = "1s"

[channels.hook]
type = "webhook"
url = "{sink}/hook"
concurrency = {concurrency}
timeout = "60s"

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["hook"]

[resume]
allowed_origins = ["{sink}"]
"""


@asynccontextmanager
async def node(
    folder: Path, name: str, database: str, sink: HttpSink, *, start: bool = True
) -> AsyncIterator[DaemonProcess]:
    config = CONFIG.format(name=name, database=database, sink=sink.url, concurrency=CONCURRENCY)
    own = folder / f"{name}-{'first' if start else 'second'}"
    own.mkdir()
    async with daemon_process(own, config, start=start) as daemon:
        yield daemon


@define
class Service:
    """Two nodes, and what they send to."""

    a: DaemonProcess
    b: DaemonProcess
    sink: HttpSink
    expected: set[str] = field(factory=set)

    async def post(self, to: DaemonProcess, *names: str) -> None:
        """Hand in an event for each name, at once."""
        answer = await self.try_post(to, *names)
        assert answer.status in (200, 202), answer.text
        self.expected |= set(map(delivery_id, names))

    async def try_post(self, to: DaemonProcess, *names: str) -> Any:
        now = rfc3339(wall_clock())
        each = {"specversion": "1.0", "source": SOURCE, "type": "task.done", "time": now}
        body = orjson.dumps([each | {"id": name} for name in names])
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cloudevents-batch+json"}
        return await to.call("POST", "/api/v1/events", data=body, headers=headers)

    @property
    def seen(self) -> Counter[str]:
        """How often each webhook id has come."""
        return Counter(one.headers["webhook-id"] for one in self.sink.received if one.path == "/hook")

    async def all_seen(self) -> None:
        await until(lambda: self.expected <= self.seen.keys(), 30)

    async def all_sent(self) -> None:
        """The ledger says so too, whichever node is asked."""

        async def sent() -> bool:
            found = (await self.a.get("/api/v1/deliveries", state="sent")).json["items"]
            return {one["id"] for one in found} == self.expected

        await until_async(sent, 30)

    async def under_way(self) -> set[str]:
        """Post to both while nobody is answered; the ids that `b` is sending, with as many waiting behind."""
        self.sink.gate.clear()
        await self.post(self.b, *(f"b{n}" for n in range(2 * CONCURRENCY)))
        await until(lambda: len(self.sink.received) == CONCURRENCY)
        sending = set(self.seen)
        await self.post(self.a, *(f"a{n}" for n in range(2 * CONCURRENCY)))
        await until(lambda: len(self.sink.received) == 2 * CONCURRENCY)

        async def planned() -> bool:
            found = (await self.a.get("/api/v1/deliveries")).json["items"]
            return {one["id"] for one in found} == self.expected

        await until_async(planned)
        return sending

    def repeated(self) -> set[str]:
        return {one for one, times in self.seen.items() if times > 1}


def delivery_id(name: str) -> str:
    key = derived_id("cloudevent", TENANT, SOURCE, name)
    return derived_id("delivery", TENANT, key, "tasks", "hook", "")


@asynccontextmanager
async def service(folder: Path, database: str, database_of_b: str = "") -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(HttpSink())
        a = await stack.enter_async_context(node(folder, "a", database, sink))
        b = await stack.enter_async_context(node(folder, "b", database_of_b or database, sink))
        yield Service(a, b, sink)


async def test_what_a_killed_node_leaves_the_other_sends_and_it_comes_back_under_its_name(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, mongo_server.database()) as both:
        sending = await both.under_way()
        await both.b.kill()
        both.sink.gate.set()
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() == sending, "what was under way at the kill comes again, and nothing else"
        await both.b.start()
        await both.post(both.b, "later")
        await both.all_seen()
        assert both.repeated() == sending


async def test_a_node_that_was_paused_past_its_leases_sends_nothing_that_another_has_sent(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, mongo_server.database()) as both:
        sending = await both.under_way()
        both.b.signal(signal.SIGSTOP)
        both.sink.gate.set()
        await both.all_seen()
        await both.all_sent()
        both.b.signal(signal.SIGCONT)
        await both.post(both.b, *(f"later{n}" for n in range(2 * CONCURRENCY)))
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() == sending, "only what it was sending when it was paused"


async def test_a_decision_made_on_one_node_is_seen_on_the_other_at_once_and_a_name_has_one_node(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with service(tmp_path, database) as both:
        resume = {"callbackUrl": f"{both.sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
        asked = events.requested(at=wall_clock(), resume=resume)
        assert (await both.a.send(asked)).status == 202
        assert (await both.b.send(asked)).status == 200
        assert (await both.b.ack(asked)).status == 200
        path = f"/notifications/pack-approvals/{asked['runId']}/{asked['approvalId']}"
        assert (await both.a.get(path)).json["status"] == "approved"
        contrary = await both.a.ack(asked, "rejected")
        assert contrary.status == 409, contrary.text
        await both.sink.wait(1, lambda one: one.path == "/resume")
        async with node(tmp_path, "a", database, both.sink, start=False) as second:
            await second.launch()
            assert await second.wait() == 1
            assert "another process lives as node 'a'" in (second.stderr + second.stdout).decode()
        assert [one.path for one in both.sink.received] == ["/resume"]


# --- cut off -----------------------------------------------------------------------------------------------


class Proxy:
    """Stands between a node and its database: `async with Proxy(url) as proxy`. `cut` drops all there is."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        # Else the driver asks the server for its address, and goes there.
        direct = self._target._replace(netloc=f"127.0.0.1:{port}", query="directConnection=true")
        return str(urlunsplit(direct))

    def cut(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.close()

    def mend(self) -> None:
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.close()
            return
        onward, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._open |= {writer, back}
        await asyncio.gather(_pipe(reader, back), _pipe(onward, writer))
        self._open -= {writer, back}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


async def answers_readyz(daemon: DaemonProcess, status: int) -> bool:
    return (await daemon.call("GET", "/readyz")).status == status


async def test_a_node_that_loses_its_database_takes_nothing_and_recovers_by_itself(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with Proxy(database) as proxy, service(tmp_path, database, proxy.url) as both:
        await both.under_way()
        of_b = {delivery_id(f"b{n}") for n in range(2 * CONCURRENCY)}
        proxy.cut()
        both.sink.gate.set()
        await until_async(lambda: answers_readyz(both.b, 503))
        refused = await both.try_post(both.b, "refused")
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert await answers_readyz(both.a, 200)
        await both.all_sent()
        proxy.mend()
        await until_async(lambda: answers_readyz(both.b, 200))
        await both.post(both.b, "later")
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() <= of_b, "what it sent and could not record, the other sends again"
