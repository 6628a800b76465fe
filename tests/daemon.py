"""A whole notifyd in the test's own loop, on a port of its own, with an inbox for a channel."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from attrs import define, field, frozen

from notifyd.config import load as config
from notifyd.config.settings import Settings
from notifyd.levels import OURS
from notifyd.model import SECOND, Instant, Message, Receipt
from notifyd.plugin import ChannelType, hookimpl
from notifyd.registry.discovery import Discovered, discover, examine
from notifyd.security.secrets import Secret
from notifyd.security.signing import sign
from notifyd.service.app import App, running
from notifyd.tracing import NO_TRACER, Tracer
from tests import events

SECRETS: Final = {
    "task-runner": Secret("whsec_" + base64.b64encode(b"the runner's secret of 32 bytes.").decode()),
    "outsider": Secret("whsec_" + base64.b64encode(b"the outsider's, of 32 bytes too.").decode()),
}
TOKENS: Final = {name: f"token-of-{name}" for name in ("task-runner", "reader", "operator", "outsider")}
CALLBACK: Final = "http://127.0.0.1:9"
"""Where decisions are to be sent: nobody listens there."""

CONFIG: Final = f"""
[server]
listen = "127.0.0.1:0"
public_url = "https://notifyd.acme.example"

[keys]
seal = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]

[auth.actors]
"alice@acme.example" = ["00u1ab"]

[auth.clients.task-runner]
hmac_secrets = ["${{SECRET_TASK_RUNNER}}"]
token_hashes = ["${{HASH_TASK_RUNNER}}"]
scopes = ["Packs.Approve", "Notifier.Events:Write"]
act_as = ["*@acme.example"]
tenants = ["acme"]

[auth.clients.reader]
token_hashes = ["${{HASH_READER}}"]
scopes = ["Notifier.Read"]
tenants = ["acme"]

[auth.clients.operator]
token_hashes = ["${{HASH_OPERATOR}}"]
scopes = ["Notifier.Read", "Notifier.Operate", "Notifier.Events:Write"]
tenants = ["acme", "globex"]

[auth.clients.outsider]
hmac_secrets = ["${{SECRET_OUTSIDER}}"]
token_hashes = ["${{HASH_OUTSIDER}}"]
scopes = ["Packs.Approve", "Notifier.Events:Write", "Notifier.Read", "Notifier.Operate"]
tenants = ["globex"]

[resume]
allowed_origins = ["{CALLBACK}"]

[egress]
allow_private = ["127.0.0.0/8"]

[channels.inbox]
type = "inbox"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["inbox"]
to = ["alice@acme.example", "bob@acme.example"]

[recipients."bob@acme.example"]
locale = "de-CH"
zone = "Europe/Zurich"
"""
"""The clients: Task Runner, which signs; two that hold tokens; and one of another tenant with every scope."""


def _environ() -> dict[str, str]:
    hashes = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}
    names = {name: name.upper().replace("-", "_") for name in TOKENS}
    return {f"HASH_{names[n]}": f"sha256:{digest}" for n, digest in hashes.items()} | {
        f"SECRET_{names[n]}": secret.reveal() for n, secret in SECRETS.items()
    }


@frozen
class _NoOptions:
    """The options of an inbox."""


@define
class Inbox:
    """A personal channel that keeps what it is given. `fault`, where set, is raised instead."""

    messages: list[Message] = field(factory=list)
    fault: Exception | None = None
    receipt: Receipt = field(factory=Receipt)

    async def send(self, message: Message) -> Receipt:
        if self.fault is not None:
            raise self.fault
        self.messages.append(message)
        return self.receipt

    async def aclose(self) -> None:
        """Nothing is open."""

    @hookimpl
    def notifyd_channel_types(self) -> list[ChannelType]:
        return [ChannelType("inbox", _NoOptions, lambda _config, _context: self, personal=True)]


@define
class Clock:
    """The wall clock, and how far a test has turned it."""

    turned: Instant = 0

    def __call__(self) -> Instant:
        return time.time_ns() // 1000 + self.turned

    def turn(self, seconds: float) -> None:
        self.turned += int(seconds * SECOND)


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@define
class Daemon:
    """A running notifyd, and a caller's side of it. `text` is its configuration."""

    app: App
    text: str
    clock: Clock
    inbox: Inbox
    discovered: Discovered
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.app.address)

    async def call(self, method: str, path: str, **request: Any) -> Answer:
        async with self.session.request(
            method, self.url + path, allow_redirects=False, **request
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, client: str | None = "reader", **headers: str) -> Answer:
        return await self.call("GET", path, headers=bearer(client) | _headers(headers))

    async def signed(self, path: str, document: Any, client: str = "task-runner", **headers: str) -> Answer:
        """POST `document` as JSON, signed by `client`; headers by keyword, such as `x_notifyd_tenant`."""
        body = document if isinstance(document, bytes) else orjson.dumps(document)
        sent = {"Content-Type": "application/json"} | self.signature(body, client) | _headers(headers)
        return await self.call("POST", path, data=body, headers=sent)

    def signature(self, body: bytes, client: str = "task-runner") -> dict[str, str]:
        signed = sign([SECRETS[client]], uuid.uuid4().hex, self.clock() // SECOND, body)
        return signed | {"X-Notifyd-Client": client}

    async def post(self, path: str, document: Any, client: str | None, **headers: str) -> Answer:
        """POST `document` as JSON with `client`'s API token."""
        sent = {"Content-Type": "application/json"} | bearer(client) | _headers(headers)
        return await self.call("POST", path, data=orjson.dumps(document), headers=sent)

    def requested(self, **overrides: Any) -> dict[str, Any]:
        resume = {"callbackUrl": f"{CALLBACK}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
        return events.requested(at=self.clock(), **{"resume": resume} | overrides)

    async def ask(self, **overrides: Any) -> dict[str, Any]:
        """Post a request for approval; what was posted."""
        document = self.requested(**overrides)
        answer = await self.signed("/notifications/pack-approvals", document)
        assert answer.status == 202, answer.text
        return document

    async def link(self, recipient: str = "alice@acme.example", number: int = 0) -> str:
        """The path of the link in `recipient`'s message, the newest but `number`."""

        def sent() -> list[Message]:
            return [message for message in self.inbox.messages if message.recipient == recipient]

        await until(lambda: len(sent()) > number)
        action = sent()[number].actions[0]
        return action.url.removeprefix("https://notifyd.acme.example")

    async def reload(self, text: str) -> None:
        assert await self.app.reload(lambda: (settings(text, self.discovered), self.discovered))

    async def approval(self, document: Mapping[str, Any]) -> Any:
        path = "/notifications/pack-approvals/{runId}/{approvalId}".format_map(document)
        return (await self.get(path)).json


def bearer(client: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[client]}"} if client else {}


def _headers(keywords: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in keywords.items()}


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until `condition` holds; TimeoutError where it does not come to."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any state may be waited for, and most has no event
            await asyncio.sleep(0)


def settings(text: str, discovered: Discovered) -> Settings:
    return config.reads(text, discovered.brought, _environ()).whole()


@cache
def installed() -> Discovered:
    """What the installed plugins bring, looked for once in a process: it takes a tenth of a second."""
    return discover()


def discovered_with(extra: Iterable[object]) -> Discovered:
    """What is installed, and `extra` plugins; a name that several bring belongs to the first of them."""
    found = [*map(examine, extra), installed()]
    last_first = found[::-1]
    return Discovered(
        channel_types={name: item for each in last_first for name, item in each.channel_types.items()},
        forwarder_types={name: item for each in last_first for name, item in each.forwarder_types.items()},
        template_sources=tuple(source for each in found for source in each.template_sources),
        rule_functions={name: item for each in last_first for name, item in each.rule_functions.items()},
        plugins=tuple(plugin for each in found for plugin in each.plugins),
        faults=tuple(fault for each in found for fault in each.faults),
        configs={name: item for each in last_first for name, item in each.configs.items()},
    )


@contextmanager
def _levels_kept() -> Iterator[None]:
    """Whoever calls a daemon may change the log's level, which is the whole process's, and so other tests'."""
    before = [(one, one.level) for one in (logging.getLogger(), logging.getLogger(OURS))]
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


@asynccontextmanager
async def daemon(
    folder: Path,
    text: str = CONFIG,
    *,
    clock: Clock | None = None,
    inbox: Inbox | None = None,
    extra: Iterable[object] = (),
    abandon_sealed: bool = False,
    tracer: Tracer = NO_TRACER,
    listener: socket.socket | None = None,
) -> AsyncIterator[Daemon]:
    """A running notifyd with the database in `folder`, made where there is none, and with `extra` plugins."""
    clock, inbox = clock or Clock(), inbox or Inbox()
    discovered = discovered_with([inbox, *extra])
    text += f'\n[store]\nurl = "sqlite:///{folder / "notifyd.db"}"\n'
    with _levels_kept():
        async with (
            running(
                settings(text, discovered),
                discovered,
                clock=clock,
                abandon_sealed=abandon_sealed,
                tracer=tracer,
                listener=listener,
            ) as app,
            aiohttp.ClientSession() as session,
        ):
            yield Daemon(app, text, clock, inbox, discovered, session)
