"""Several nodes, each a process of its own, on one database.

async with service(tmp_path, database, database) as both:
    await both.post(both.a, "first", "second")
    await both.all_sent()
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import orjson
from attrs import define, field

from notifyd.model import wall_clock
from notifyd.testing import Received
from notifyd.wire.codec import derived_id, rfc3339
from tests.process import TENANT, TOKEN, Answer, DaemonProcess, daemon_process
from tests.sinks import HttpSink
from tests.waiting import until, until_async

CONCURRENCY: Final = 2
SOURCE: Final = "/nodes"

PATIENT: Final = "20s"
"""No database that is there takes as long, however busy the machine."""
IMPATIENT: Final = "5s"
"""For a node that is to see soon that its database is not there."""

CONFIG: Final = """
[server]
listen = "127.0.0.1:${{NOTIFYD_PORT}}"
node = "{name}"

[store]
url = "{database}"
driver = "pymongo"
timeout = "{patience}"

[dispatch]
lease = "3s"
clock_skew = "1s"

[channels.hook]
type = "webhook"
url = "{sink}/hook"
headers = {{ X-Sent-By = "{name}" }}
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
    folder: Path, name: str, database: str, sink: HttpSink, patience: str = PATIENT
) -> AsyncIterator[DaemonProcess]:
    """A node that has not been started. `patience` is how long it waits for its database."""
    own = {"name": name, "database": database, "patience": patience}
    config = CONFIG.format(**own, sink=sink.url, concurrency=CONCURRENCY)
    home = Path(mkdtemp(prefix=f"{name}-", dir=folder))
    async with daemon_process(home, config, start=False) as daemon:
        yield daemon


@define
class Service:
    """Nodes by their names, and what they send to. `expected` are the webhook ids of what they have accepted."""

    nodes: Mapping[str, DaemonProcess]
    sink: HttpSink
    expected: set[str] = field(factory=set)
    began: str = field(factory=lambda: rfc3339(wall_clock()))

    @property
    def a(self) -> DaemonProcess:
        return self.nodes["a"]

    @property
    def b(self) -> DaemonProcess:
        return self.nodes["b"]

    async def post(self, to: DaemonProcess, *names: str) -> None:
        """Hand in an event for each name, at once."""
        self.taken(await self.try_post(to, *names), *names)

    async def try_post(self, to: DaemonProcess, *names: str) -> Answer:
        """By one name it is one event, however often it is handed in."""
        each = {"specversion": "1.0", "source": SOURCE, "type": "task.done", "time": self.began}
        body = orjson.dumps([each | {"id": name} for name in names])
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cloudevents-batch+json"}
        return await to.call("POST", "/api/v1/events", data=body, headers=headers)

    def taken(self, answer: Answer, *names: str) -> None:
        """The events by these names have been answered so."""
        assert answer.status in (200, 202), answer.text
        self.expected |= set(map(delivery_id, names))

    def hooks(self, first: int = 0) -> list[Received]:
        """The webhooks among all that was received but for the `first`."""
        return [one for one in self.sink.received[first:] if one.path == "/hook"]

    @property
    def seen(self) -> Counter[str]:
        """How often each webhook id has come."""
        return Counter(map(webhook_id, self.hooks()))

    def repeated(self) -> set[str]:
        return {one for one, times in self.seen.items() if times > 1}

    async def all_seen(self) -> None:
        await until(lambda: self.expected <= self.seen.keys(), 30)

    async def all_sent(self) -> None:
        """The ledger says so too, whichever node is asked."""

        async def sent() -> bool:
            return await ledger(self.a, state="sent") == self.expected

        await until_async(sent, 30)


@asynccontextmanager
async def service(folder: Path, *databases: str, patience: str = PATIENT) -> AsyncIterator[Service]:
    """A node for each of these URLs of the one database, started together: `a`, `b` and so on."""
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(HttpSink())
        nodes = {
            name: await stack.enter_async_context(node(folder, name, database, sink, patience))
            for name, database in zip("abc", databases, strict=False)
        }
        await asyncio.gather(*(daemon.begin() for daemon in nodes.values()))
        yield Service(nodes, sink)


def delivery_id(name: str) -> str:
    key = derived_id("cloudevent", TENANT, SOURCE, name)
    return derived_id("delivery", TENANT, key, "tasks", "hook", "")


def webhook_id(received: Received) -> str:
    return received.headers["webhook-id"]


def sent_by(received: Received) -> str:
    """The name of the node that sent this webhook."""
    return received.headers["x-sent-by"]


async def ledger(daemon: DaemonProcess, **query: str) -> set[str]:
    """The ids of the webhooks that `daemon` knows of, those of all pages."""
    ids: set[str] = set()
    cursor: str | None = ""
    while cursor is not None:
        query |= {"channel": "hook", "limit": "200", "cursor": cursor}
        answer = await daemon.get("/api/v1/deliveries", **query)
        assert answer.status == 200, answer.text
        ids |= {one["id"] for one in answer.json["items"]}
        cursor = answer.json["nextCursor"]
    return ids


async def answers_readyz(daemon: DaemonProcess, status: int) -> bool:
    return (await daemon.call("GET", "/readyz")).status == status
