"""The second door, for the tests of plugins: a receiver, a sample message, and the conformance kit."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from attrs import evolve, field, frozen

from notifyd.plugin import SECOND, Action, Channel, ChannelContext, ChannelType, Field, Level, Message

NOW: Final = 1_790_000_000 * SECOND
"""What the clock of a channel under test says: 2026-09-21T14:13:20Z."""


def sample_message(**changes: Any) -> Message:
    """An approval request as the daemon would give it, with `changes` to its attributes."""
    message = Message(
        id="5f0c3c2b7f9e4a6d8b1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69",
        title="Approval needed: Deploy to production",
        body="ci@acme.example asks to deploy payments v3 to production.\n\nThree replicas will restart.",
        level=Level.WARNING,
        fields=(Field("Environment", "production"), Field("Requested by", "ci@acme.example")),
        actions=(
            Action("Review and decide", "https://notify.acme.example/approvals/eyJhbGciOiJkaXIifQ.c2VjcmV0"),
        ),
        locale="en",
        event={
            "kind": "pack.approval",
            "action": "requested",
            "occurredAt": "2026-09-21T14:00:00Z",
            "tenant": {"id": "acme", "project": "payments"},
            "runId": "run-0042",
            "approvalId": "deploy-prod",
            "correlationId": "c0ffee-42",
        },
    )
    return evolve(message, **changes)


@frozen
class Reply:
    """What a `Sink` answers."""

    status: int = 200
    body: str = "ok"
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Received:
    """A request that a `Sink` was sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Sink:
    """A real HTTP server on a free port of the loopback address: `async with Sink() as sink`.

    It records each request in `received` and answers it with `reply`, which a test may set at any time.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.reply = Reply()
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(Received(request.method, request.path_qs, request.headers, body))
        return web.Response(status=self.reply.status, text=self.reply.body, headers=self.reply.headers)


@asynccontextmanager
async def opened(
    channel_type: ChannelType, config: object, clock: Callable[[], int] = lambda: NOW
) -> AsyncIterator[Channel]:
    """The channel that `channel_type` opens with `config`, in a context of its own, closed at the end."""
    async with aiohttp.ClientSession() as http:
        context = ChannelContext("under-test", http, logging.getLogger("notifyd.channel.under-test"), clock)
        channel = channel_type.open(config, context)
        if inspect.isawaitable(channel):
            channel = await channel
        try:
            yield channel
        finally:
            await channel.aclose()
