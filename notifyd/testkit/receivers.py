"""What a channel under test sends to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Protocol, Self

import aiohttp
from aiohttp import web
from attrs import field, frozen


@frozen
class Received:
    """What a receiver was sent. Where the protocol is not HTTP, `body` is the message as it travelled."""

    body: bytes
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(factory=dict)

    def echo(self) -> str:
        """All of it as text, as a receiver might print it into an error page."""
        lines = [f"{self.method} {self.path}", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\n".join([*lines, "", self.body.decode(errors="replace")])


@frozen
class Reply:
    """What a receiver answers: a status of its protocol, and a text, perhaps made from what was received.

    With `endless` the text comes again and again until the other side hangs up.
    """

    status: int = 200
    body: str | Callable[[Received], str] = "ok"
    headers: Mapping[str, str] = field(factory=dict)
    endless: bool = False

    def text(self, received: Received) -> str:
        return self.body if isinstance(self.body, str) else self.body(received)


class Receiver(Protocol):
    """What the kit sends to. It does as `reply` says, or never answers, or hangs up."""

    url: str
    received: list[Received]
    reply: Reply
    arrived: asyncio.Event
    silent: bool
    hangs_up: bool


async def serve(app: web.Application, *, shutdown_timeout: float = 60.0) -> tuple[web.AppRunner, str]:
    """`app` on a free port of the loopback address: what is to be cleaned up at the end, and its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_timeout)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


class Sink:
    """A real HTTP server on a free port of the loopback address: `async with Sink() as sink`.

    It records each request in `received` and answers it with `reply`, which a test may set at any time;
    `silent` makes it never answer, `hangs_up` makes it close the connection instead.
    """

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.reply = Reply()
        self.arrived = asyncio.Event()
        self.silent = False
        self.hangs_up = False
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner, self.url = await serve(app)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = Received(body, request.method, request.path_qs, request.headers)
        self.received.append(received)
        self.arrived.set()
        if self.silent:
            await self._closing.wait()
        if self.hangs_up and request.transport is not None:
            request.transport.abort()
        reply = await self.choose(received)
        if reply.endless:
            return await _without_end(request, reply, received)
        return web.Response(status=reply.status, text=reply.text(received), headers=reply.headers)

    async def choose(self, received: Received) -> Reply:
        """The reply to one request. A subclass may give another, or take its time."""
        return self.reply


async def _without_end(request: web.Request, reply: Reply, received: Received) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(reply.text(received).encode())
    return response


class RecordedResponse(aiohttp.ClientResponse):
    """Give this to `aioresponses` as `response_class`: release 0.7.9 lacks an argument of aiohttp 3.14."""

    def __init__(self, *args: Any, stream_writer: Any = None, **options: Any) -> None:
        writer: Any = stream_writer or SimpleNamespace(output_size=0)
        super().__init__(*args, stream_writer=writer, **options)
