"""Tiny fakes that the tests of the steps share, and a registry made from a few lines of TOML."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from attrs import define, evolve, field, frozen

from notifyd.config import load as config
from notifyd.config.brought import Brought
from notifyd.config.settings import Settings
from notifyd.model import SECOND, Approval, Instant, Message, Principal, Receipt, Via
from notifyd.plugin import (
    ChannelContext,
    ChannelType,
    InboundRequest,
    InboundResponse,
    PermanentError,
    check_response,
    post,
)
from notifyd.registry.channels import OpenChannel
from notifyd.registry.discovery import Discovered
from notifyd.registry.registry import Registry, open_registry
from notifyd.security.secrets import Secret
from notifyd.store import Store
from notifyd.store.sqlite import open_sqlite

NOW: Final[Instant] = 1_793_782_200 * SECOND
"""2026-11-04T08:50:00Z."""

NODE: Final = "node-a"
SEAL_KEY: Final = b"0123456789abcdef0123456789ABCDEF"
RUNNER: Final = Secret("whsec_" + base64.b64encode(b"the runner's secret of 32 bytes.").decode())
TOKEN: Final = Secret("rt_3yQ8Jv1nTz5kWc7pXe2mRb9d")

CONFIG: Final = f"""
[server]
public_url = "https://notify.acme.example"

[keys]
seal = ["${{SEAL_KEY}}"]

[auth.clients.task-runner]
hmac_secrets = ["{RUNNER.reveal()}"]
scopes = ["Notifier.Events:Write", "Packs.Approve"]
tenants = ["acme", "globex"]
"""
"""What every configuration of a test begins with."""


@define
class TurnableClock:
    """A clock that a test turns."""

    now: Instant = NOW

    def __call__(self) -> Instant:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


# --- channels ----------------------------------------------------------------------------------------------

Step: TypeAlias = BaseException | Receipt | Callable[[Message], Any]
"""What one send does: raises, returns, or, called with the message, gives either (or is awaited)."""


@define(eq=False)
class ScriptedChannel:
    """Does with each message what comes next in `script`, and takes it where that is at its end."""

    script: list[Any] = field(factory=list)
    received: list[Message] = field(factory=list)
    running: int = 0
    most_running: int = 0
    closed: int = 0

    async def send(self, message: Message) -> Any:
        self.received.append(message)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._next(message)
        finally:
            self.running -= 1

    async def _next(self, message: Message) -> Any:
        step = self.script.pop(0) if self.script else Receipt()
        if callable(step) and not isinstance(step, BaseException):
            step = step(message)
        if asyncio.iscoroutine(step):
            step = await step
        if isinstance(step, BaseException):
            raise step
        return step

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.received]


class Gate:
    """A step that holds each message until the gate is opened."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self.waiting = 0

    async def __call__(self, message: Message) -> Receipt:
        self.waiting += 1
        await self._opened.wait()
        return Receipt()

    def open(self) -> None:
        self._opened.set()


def open_channel(
    channel: Any, *, name: str = "team", timeout: float = 5.0, concurrency: int = 4, personal: bool = False
) -> OpenChannel:
    return OpenChannel(name, "fake", personal, channel, concurrency, timeout)


@frozen
class NoOptions:
    """The options of a fake channel."""


@frozen
class PostOptions:
    """The options of a channel that posts."""

    url: str


@define(eq=False)
class PostChannel:
    """Posts a message's title to a real server, as a first-party channel would."""

    options: PostOptions
    context: ChannelContext

    async def send(self, message: Message) -> Receipt:
        headers = {"webhook-id": message.id}
        answer = await post(self.context.http, Secret(self.options.url), message.title.encode(), headers)
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock())

    async def aclose(self) -> None:
        """The session is its context's."""


@define(eq=False)
class Channels:
    """The types `fake` (shared), `other` (the same), `person` (personal) and `post`, and what was opened.

    A channel is kept by its name, over reloads too: `of` gives it, before it was opened as well. `opened`
    has the instances in the order of opening; `more` are types of a test's own.
    """

    scripted: dict[str, ScriptedChannel] = field(factory=dict)
    opened: list[tuple[str, _Instance]] = field(factory=list)
    more: dict[str, ChannelType] = field(factory=dict)
    fault: BaseException | None = None

    def of(self, name: str) -> ScriptedChannel:
        return self.scripted.setdefault(name, ScriptedChannel())

    def open(self, _config: NoOptions, context: ChannelContext) -> _Instance:
        if self.fault is not None:
            raise self.fault
        instance = _Instance(self.of(context.name))
        self.opened.append((context.name, instance))
        return instance

    @property
    def types(self) -> dict[str, ChannelType]:
        shared = [ChannelType(name, NoOptions, self.open) for name in ("fake", "other")]
        personal = ChannelType("person", NoOptions, self.open, personal=True)
        posting = ChannelType("post", PostOptions, PostChannel)
        return {one.name: one for one in (*shared, personal, posting)} | self.more

    @property
    def forwarders(self) -> dict[str, ChannelType]:
        """`bus`, and `door`, which is a gate; their channels are kept as `resume.NAME`."""
        gate = ChannelType("door", NoOptions, self.open_gate, gate=True)
        return {"bus": ChannelType("bus", NoOptions, self.open), "door": gate}

    @property
    def brought(self) -> Brought:
        return Brought(self.types, self.forwarders)

    def open_gate(self, _config: NoOptions, context: ChannelContext) -> _Instance:
        return _Gate(self.of(context.name))


@define(eq=False)
class _Instance:
    """One opening of a channel: it is closed once, while its script goes on with the next."""

    channel: ScriptedChannel
    closed: bool = False

    async def send(self, message: Message) -> Receipt:
        if self.closed:
            raise RuntimeError("sent through a channel that was closed")
        receipt: Receipt = await self.channel.send(message)
        return receipt

    async def aclose(self) -> None:
        if self.channel.running and not self.closed:
            raise RuntimeError("closed while it was sending")
        self.closed = True


@define(eq=False)
class _Gate(_Instance):
    """Hands in the JSON that it is posted, whoever posts it."""

    async def receive(self, request: InboundRequest) -> InboundResponse:
        try:
            await request.ask(orjson.loads(request.body))
        except PermanentError as error:
            return InboundResponse(422, error.detail)
        return InboundResponse(202)


# --- the registry and the store ----------------------------------------------------------------------------


def discovered(channels: Channels, functions: Mapping[str, Callable[..., Any]] | None = None) -> Discovered:
    return Discovered(
        channel_types=channels.types,
        forwarder_types=channels.forwarders,
        template_sources=(),
        rule_functions=functions or {},
        plugins=(),
        faults=(),
    )


def settings(text: str, channels: Channels, seal_key: bytes = SEAL_KEY) -> Settings:
    """`CONFIG` and `text` as a configuration."""
    environ = {"SEAL_KEY": base64.b64encode(seal_key).decode()}
    return config.reads(CONFIG + text, channels.brought, environ).whole()


@asynccontextmanager
async def registry(
    text: str = "", channels: Channels | None = None, clock: Callable[[], Instant] | None = None
) -> AsyncIterator[Registry]:
    channels = channels or Channels()
    opened = await open_registry(settings(text, channels), discovered(channels), clock or TurnableClock())
    try:
        yield opened
    finally:
        await opened.aclose()


async def sqlite(folder: Path, clock: Callable[[], Instant]) -> Store:
    """The store in `folder`, which the caller closes."""
    return await open_sqlite(folder / "notifyd.db", node=NODE, clock=clock)


# --- neighbours --------------------------------------------------------------------------------------------


@define
class RecordingEffects:
    """An effect queue that keeps what it is given, and settles nothing."""

    offered: list[Approval] = field(factory=list)

    def offer(self, approval: Approval) -> None:
        self.offered.append(approval)


def principal(name: str = "task-runner", **changes: Any) -> Principal:
    """A machine client as the web knows it."""
    scopes = frozenset({"Notifier.Events:Write", "Packs.Approve"})
    known = Principal(name, Via.CLIENT, scopes=scopes, grants=scopes, tenants=("acme",), signed=True)
    return evolve(known, **changes)
