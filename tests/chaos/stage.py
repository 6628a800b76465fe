"""A load on daemons, a receiver that counts what comes, and what is to be told of the two at the end.

async with on_stage(folder, fault, goal=1000) as stage:
    await stage.play()
    print(stage.row("a fault"))
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from aiohttp import web
from attrs import define, field, frozen

from notifyd.model import wall_clock
from notifyd.wire.codec import derived_id, rfc3339
from tests import events, mongodb
from tests.chaos import crashing, never
from tests.chaos.disks import Disk, small_disk
from tests.chaos.nodes import PATIENT
from tests.chaos.proxy import Proxy
from tests.forks import Forked
from tests.ports import free_port
from tests.process import TENANT, TOKEN, Answer, DaemonProcess, configure, environ_of
from tests.waiting import until, until_async

POSTERS: Final = 2
REQUESTS: Final = 8
"""Requests for approval, for each thousand events."""
STALLED: Final = 60.0
"""Seconds without any progress, after which what is missing counts as lost."""
GIVEN_UP: Final = 120.0
"""Seconds in which a request has to be accepted at last."""
SOURCE: Final = "/chaos"

CONFIG: Final = """
[server]
listen = "127.0.0.1:${{NOTIFYD_PORT}}"
node = "{node}"
[store]
url = "${{NOTIFYD_STORE}}"
timeout = "{patience}"
[auth]
clock_tolerance = "1d"
[dispatch]
lease = "5s"
clock_skew = "1s"
backoff = "50ms..1s"
max_attempts = 1000
[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = {channels}
[resume]
allowed_origins = ["{sink}"]
"""

CHANNEL: Final = """
[channels.{name}]
type = "webhook"
url = "{sink}/{name}"
concurrency = {concurrency}
timeout = "2s"
"""

NEVER: Final = """
[channels.pager]
type = "never"
timeout = "100ms"
[[rules]]
name = "pages"
when = 'event.kind == "task.done"'
channels = ["pager"]
"""


class CountingSink:
    """A receiver that counts what it answers with 200: webhooks by their channel and id, callbacks by their run.

    `trouble`, where it is set, is awaited before the answer: it may take its time, or raise to hang up.
    """

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.by_channel: Counter[str] = Counter()
        self.callbacks: Counter[str] = Counter()
        self.trouble: Callable[[web.BaseRequest], Awaitable[None]] | None = None
        self.troubled = 0

    async def __aenter__(self) -> CountingSink:
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.trouble = None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._runner.addresses[0])

    def _count(self, channel: str, id_: str) -> None:
        self.by_channel[channel] += (channel, id_) not in self.seen
        self.seen[channel, id_] += 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        if request.path.startswith("/resume/"):
            self.callbacks[request.path.removeprefix("/resume/")] += 1
        else:
            self._count(request.path.removeprefix("/"), request.headers["webhook-id"])
        if self.trouble is not None:
            self.troubled += 1
            await self.trouble(request)
        return web.Response()


@define
class Node:
    """A daemon as a process that is forked from one which has imported it, and a caller's side of it.

    `port` is where it listens, and `calls.port` where it is called, which may be a proxy's. With a plugin that
    never returns, see `never`, it is a `notifyd serve` of its own.
    """

    calls: DaemonProcess
    port: int
    never: bool = False
    process: Forked | asyncio.subprocess.Process | None = None
    ended: asyncio.Task[int] | None = None

    @property
    def folder(self) -> Path:
        return self.calls.folder

    @property
    def database(self) -> Path:
        return self.folder / "store" / "notifyd.db"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def environ(self) -> dict[str, str]:
        return environ_of(self.folder, self.port, self.calls.store)

    @property
    def reached(self) -> Path:
        """What the plugin that never returns makes."""
        return self.folder / "reached"

    @property
    def alive(self) -> bool:
        return self.ended is not None and not self.ended.done()

    async def launch(self, *crash_at: str) -> None:
        """Start it, to crash at a step of the store where one is named; see `crashing`."""
        if self.never:
            self.process = await self._serve()
        else:
            self.process = await crashing.start(self.folder, *crash_at, traced=False, environ=self.environ)
        self.ended = asyncio.create_task(self.process.wait())

    async def _serve(self) -> asyncio.subprocess.Process:
        packages = self.folder / "packages"
        if not packages.exists():
            never.install(packages)
        environ = self.environ | never.environ(packages, "send", "deaf", self.reached)
        command = (sys.executable, "-m", "notifyd", "serve", "--config", str(self.calls.config_path))
        with (self.folder / "stderr").open("ab") as log:
            return await asyncio.create_subprocess_exec(*command, env=environ, stdout=log, stderr=log)

    async def start(self, *crash_at: str) -> None:
        """`launch`, until it is ready or has ended."""
        await self.launch(*crash_at)
        await until_async(self._ready_or_ended, 60)

    async def _ready_or_ended(self) -> bool:
        return not self.alive or await self.answers_readyz(200)

    async def answers_readyz(self, status: int) -> bool:
        try:
            return (await self.calls.call("GET", "/readyz")).status == status
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        if self.alive and self.process is not None:
            self.process.kill()
        if self.ended is not None:
            await self.ended

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.ended is not None
        os.kill(self.pid, signal.SIGTERM)
        return await self.ended

    def log(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")


@frozen
class Row:
    """What came of a fault. Messages and callbacks are `lost` or `missing` that never came."""

    fault: str
    times: int  # that the fault came
    accepted: int  # events, requests for approval among them
    refused: int  # requests that were to come again, or had no answer
    lost: int
    repeated: int
    callbacks: int  # decisions, each of which owes one
    missing: int
    seconds: float


Act = Callable[["Stage"], Awaitable[None]]


@frozen
class Fault:
    """What is done to a stage, and what has to stand there for it.

    `nodes` daemons share a MongoDB where there are more than one. Messages go out by the channels of `direct`, and
    by those of `through` a proxy; `called_through` puts another before the daemon. Posting waits while more than
    `window` events are accepted and not delivered, so that a fault meets both at work.

    A full run has so many `events`, and the fault once in `every` so many.
    """

    act: Act
    events: int
    every: int = 5_000
    batch: int = 50  # events of a request
    window: int = 4_000
    concurrency: int = 32  # of each channel
    nodes: int = 1
    direct: tuple[str, ...] = ("hook",)
    through: tuple[str, ...] = ()
    called_through: bool = False
    small_disk: bool = False
    never: bool = False  # there is a channel whose plugin never returns: nothing is expected of that

    @property
    def channels(self) -> tuple[str, ...]:
        return self.direct + self.through


@define
class Stage:
    """One run: `goal` events, while a fault comes `rounds` times. No event is posted from `end` on."""

    fault: Fault
    nodes: list[Node]
    sink: CountingSink
    goal: int
    rounds: int
    end: float
    receivers: Proxy  # before the sink, for the channels that go through it
    callers: Proxy | None = None  # before the first node
    disk: Disk | None = None
    times: int = 0
    refused: int = 0
    refusal: Answer | None = None
    acted: bool = False
    posted: set[int] = field(factory=set)  # the batches that were accepted
    asked: int = 0  # requests for approval that were accepted
    owed: set[str] = field(factory=set)  # the runs that wait for a callback
    began: float = field(factory=time.monotonic)
    occurred_at: str = field(factory=lambda: rfc3339(wall_clock()))
    _next: int = 0
    _turn: int = 0
    _pressed: bool = False

    @property
    def node(self) -> Node:
        return self.nodes[0]

    @property
    def accepted(self) -> int:
        return len(self.posted) * self.fault.batch + self.asked

    @property
    def arrived(self) -> int:
        """Messages by the first channel."""
        return self.sink.by_channel[self.fault.channels[0]]

    # -- what a fault waits for ---------------------------------------------------------------------------

    async def moments(self) -> AsyncIterator[int]:
        """Each time that the fault is to come: spread evenly over the load."""
        for number in range(self.rounds):
            threshold = self.goal * (number + 1) / (self.rounds + 1)
            await until(lambda threshold=threshold: self.over or self.accepted >= threshold, 3600)  # type: ignore[misc]
            if self.over:
                return
            self.times += 1
            yield number

    async def refused_more(self, count: int = 3) -> None:
        """Until so many more requests were refused, with an answer or without."""
        before = self.refused
        with self._pressing():
            await until(lambda: self.refused >= before + count)

    async def told(self, status: int) -> Answer:
        """The next answer with this status to a batch of events."""
        self.refusal = None
        with self._pressing():
            await until(lambda: self.refusal is not None and self.refusal.status == status)
        assert self.refusal is not None
        return self.refusal

    @contextmanager
    def _pressing(self) -> Iterator[None]:
        """Here it is posted though too much waits: what the fault holds up would never make room."""
        self._pressed = True
        try:
            yield
        finally:
            self._pressed = False

    async def all_come(self) -> bool:
        """Everything that was accepted by now; False where nothing has come for so long that it never will."""
        expected, owed = self._expected(), set(self.owed)
        last, since = -1, time.monotonic()
        while not (expected <= self.sink.seen.keys() and owed <= self.sink.callbacks.keys()):
            here = len(self.sink.seen) + len(self.sink.callbacks)
            if here != last:
                last, since = here, time.monotonic()
            if time.monotonic() - since >= STALLED:
                return False
            await asyncio.sleep(0.05)
        return True

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.end

    # -- the load -----------------------------------------------------------------------------------------

    async def play(self) -> None:
        """The whole run. Raises what an answer or a fault had no business to be."""
        async with asyncio.TaskGroup() as group:
            for _ in range(POSTERS):
                group.create_task(self._post_events())
            group.create_task(self._ask())
            await self.fault.act(self)
            self.acted = True
        await self.all_come()

    async def _post_events(self) -> None:
        while not self.over and not (self.acted and self._next * self.fault.batch >= self.goal):
            number, self._next = self._next, self._next + 1
            await until(self._has_room, 3600)
            await self._until_taken(lambda node, number=number: self._post(node, number))  # type: ignore[misc]
            self.posted.add(number)

    def _has_room(self) -> bool:
        waiting = len(self.posted) * self.fault.batch - self.arrived
        return waiting <= self.fault.window or self._pressed or self.over

    async def _ask(self) -> None:
        """Requests for approval beside the events, each decided at once."""
        while not (self.acted and self._next * self.fault.batch >= self.goal) and not self.over:
            if self.asked * 1000 >= self._next * self.fault.batch * REQUESTS:
                await asyncio.sleep(0.01)
                continue
            run = f"run-{self.asked}"
            resume = {"callbackUrl": f"{self.sink.url}/resume/{run}", "token": "rt_known-to-the-runner"}
            asked = events.requested(at=wall_clock(), runId=run, resume=resume)
            await self._until_taken(lambda node, asked=asked: node.send(asked))  # type: ignore[misc]
            self.asked += 1
            await self._until_taken(lambda node, asked=asked: node.ack(asked))  # type: ignore[misc]
            self.owed.add(run)

    async def _until_taken(self, request: Callable[[DaemonProcess], Awaitable[Answer]]) -> None:
        """Send until it is answered with success, as a caller does that was told to, or heard nothing."""
        began = time.monotonic()
        while True:
            assert time.monotonic() - began < GIVEN_UP, "the daemon takes nothing any more"
            self._turn += 1
            try:
                async with asyncio.timeout(5):
                    answer = await request(self.nodes[self._turn % len(self.nodes)].calls)
            except (aiohttp.ClientError, OSError, TimeoutError):
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status in (200, 202):
                return
            assert answer.status in (429, 503), answer.text
            self.refused += 1
            self.refusal = answer
            await asyncio.sleep(0.05)

    async def _post(self, daemon: DaemonProcess, number: int) -> Answer:
        one = {"specversion": "1.0", "source": SOURCE, "type": "task.done", "time": self.occurred_at}
        body = orjson.dumps([one | {"id": f"{number}-{n}"} for n in range(self.fault.batch)])
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/cloudevents-batch+json"}
        return await daemon.call("POST", "/api/v1/events", data=body, headers=headers)

    # -- what came of it ----------------------------------------------------------------------------------

    def _expected(self) -> set[tuple[str, str]]:
        channels = self.fault.channels
        return {(channel, delivery_id(channel, *one)) for channel in channels for one in self._events()}

    def _events(self) -> Iterator[tuple[int, int]]:
        return ((number, n) for number in self.posted for n in range(self.fault.batch))

    def row(self, fault: str) -> Row:
        """What is to be told at the end. AssertionError where something came that nobody had sent."""
        expected = self._expected()
        assert self.sink.seen.keys() <= expected, "a message that no accepted event is behind"
        lost = {key for key in expected if key not in self.sink.seen}
        repeated = self.sink.seen.total() - len(self.sink.seen)
        return Row(
            fault,
            self.times,
            self.accepted,
            self.refused,
            len(lost),
            repeated + self.sink.callbacks.total() - len(self.sink.callbacks),
            len(self.owed),
            len(self.owed - self.sink.callbacks.keys()),
            time.monotonic() - self.began,
        )


def delivery_id(channel: str, number: int, n: int) -> str:
    """The `webhook-id` of an event's message."""
    key = derived_id("cloudevent", TENANT, SOURCE, f"{number}-{n}")
    return derived_id("delivery", TENANT, key, "tasks", channel, "")


@asynccontextmanager
async def on_stage(
    folder: Path, fault: Fault, *, goal: int, rounds: int = 1, seconds: float = 3600
) -> AsyncIterator[Stage]:
    """Daemons that have started, and all that the fault needs. Events are posted for so many seconds at most."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        sink = await stack.enter_async_context(CountingSink())
        receivers = await stack.enter_async_context(Proxy(sink.url))
        nodes = [
            Node(DaemonProcess(folder / f"node-{n}", session, port), port, fault.never)
            for n, port in _ports(fault)
        ]
        stage = Stage(fault, nodes, sink, goal, rounds, time.monotonic() + seconds, receivers)
        await _prepare(stack, stage)
        for node in nodes:
            stack.push_async_callback(node.kill)
        await asyncio.gather(*(node.start() for node in nodes))
        yield stage


def _ports(fault: Fault) -> Iterator[tuple[int, int]]:
    return ((number, free_port()) for number in range(fault.nodes))


async def _prepare(stack: AsyncExitStack, stage: Stage) -> None:
    """Configurations, a place for the databases, and the proxy before the daemon."""
    fault, sink = stage.fault, stage.sink
    shared = stack.enter_context(mongodb.server()).database() if fault.nodes > 1 else ""
    channels = [
        CHANNEL.format(name=name, sink=url, concurrency=fault.concurrency)
        for names, url in (
            (fault.direct, sink.url),
            (fault.through, f"http://127.0.0.1:{stage.receivers.port}"),
        )
        for name in names
    ]
    for node in stage.nodes:
        node.database.parent.mkdir(parents=True)
        node.calls.store = shared or f"sqlite:///{node.database}"
        names = {"node": node.folder.name, "channels": list(fault.channels)}
        own = CONFIG.format(**names, sink=sink.url, patience=PATIENT)
        configure(node.calls.config_path, "".join([own, *channels, NEVER * fault.never]))
    if fault.small_disk:
        size = 16 + stage.goal // 200
        stage.disk = stack.enter_context(small_disk(stage.node.database.parent, size))
    if fault.called_through:
        stage.callers = await stack.enter_async_context(Proxy(stage.node.calls.url))
        stage.node.calls.port = stage.callers.port
