"""A vendor's call at `/channels/NAME/inbound`: bounded in all it may do, and in all a channel may answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from yarl import URL

from notifyd.errors import PermanentError, TransientError
from notifyd.flow.calls import MAX_STRAYS
from notifyd.plugin import (
    ChannelContext,
    ChannelType,
    InboundRequest,
    InboundResponse,
    Message,
    Receipt,
    hookimpl,
)
from tests.daemon import CONFIG, Daemon, daemon, until
from tests.fakes import NoOptions

PATH = "/channels/desk/inbound"
DESK = '\n[channels.desk]\ntype = "desk"\ntimeout = "10s"\n'


@define(eq=False)
class Desk:
    """A channel that answers its vendor as a test says."""

    answer: Callable[[InboundRequest], Awaitable[Any]] | None = None
    contexts: list[ChannelContext] = field(factory=list)

    @hookimpl
    def notifyd_channel_types(self) -> list[ChannelType]:
        return [ChannelType("desk", NoOptions, self.open, answers=True)]

    def open(self, _config: object, context: ChannelContext) -> Any:
        self.contexts.append(context)
        return self

    async def send(self, message: Message) -> Receipt:
        return Receipt()

    async def receive(self, request: InboundRequest) -> InboundResponse:
        assert self.answer is not None
        answer: InboundResponse = await self.answer(request)
        return answer

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[tuple[Daemon, Desk]]:
    desk = Desk()
    async with daemon(tmp_path, CONFIG + DESK, extra=[desk]) as notifyd:
        yield notifyd, desk


def always(answer: object) -> Callable[[InboundRequest], Awaitable[Any]]:
    async def given(_: InboundRequest) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return given


WRONG: list[Any] = [
    None,
    "taken",
    InboundResponse(0),
    InboundResponse(101),
    InboundResponse(999),
    InboundResponse(True),
    InboundResponse("200"),  # type: ignore[arg-type]
    InboundResponse(200, b"bytes"),  # type: ignore[arg-type]
    InboundResponse(200, None),  # type: ignore[arg-type]
    InboundResponse(200, "half a \ud800 sign"),
    InboundResponse(200, "x" * (16 * 1024 + 1)),
    InboundResponse(200, "\u00fc" * (8 * 1024 + 1)),
    InboundResponse(200, "<script>", "text/html"),
    InboundResponse(200, "", "text/plain\r\nset-cookie: a=b"),
    InboundResponse(200, "", []),  # type: ignore[arg-type]
    PermanentError("no"),
    ValueError("no"),
    SystemExit(3),
    asyncio.CancelledError(),
]


async def test_an_answer_that_cannot_be_sent_is_a_fault_of_the_channel(way: tuple[Daemon, Desk]) -> None:
    notifyd, desk = way
    for wrong in WRONG:
        desk.answer = always(wrong)
        answer = await notifyd.call("POST", PATH, data=b"{}")
        assert (answer.status, answer.json["code"]) == (502, "channel_failed"), wrong


async def test_a_status_goes_as_the_vendor_asks_with_a_body_where_it_has_one(
    way: tuple[Daemon, Desk],
) -> None:
    notifyd, desk = way
    for status in (200, 202, 204, 205, 302, 304, 400, 418, 503, 599):
        desk.answer = always(InboundResponse(status, "words"))
        answer = await notifyd.call("POST", PATH, data=b"{}")
        assert (answer.status, answer.text) == (status, "" if status in (204, 205, 304) else "words")


async def test_nothing_that_can_be_recorded_is_to_come_again(way: tuple[Daemon, Desk]) -> None:
    notifyd, desk = way
    for error in (TransientError("away"), TimeoutError()):
        desk.answer = always(error)
        answer = await notifyd.call("POST", PATH, data=b"{}")
        assert answer.status == 503
        assert answer.headers["Retry-After"]


async def test_one_that_hangs_is_answered_in_time_though_it_is_deaf_to_its_cancellation(
    way: tuple[Daemon, Desk], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("notifyd.flow.calls.LAST_WORDS", 0.01)
    notifyd, desk = way
    await notifyd.reload(notifyd.text.replace('timeout = "10s"', 'timeout = "10ms"'))
    released = asyncio.Event()

    async def hang(_: InboundRequest) -> InboundResponse:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()
        return InboundResponse()

    desk.answer = hang
    strays = notifyd.app.registry().channels["desk"].stray_calls
    for _ in range(MAX_STRAYS):
        assert (await notifyd.call("POST", PATH, data=b"{}")).status == 503
    assert len(strays) == MAX_STRAYS
    assert "channel desk does not end a vendor's call that was cancelled" in caplog.text
    desk.answer = always(InboundResponse())
    assert "have not ended" in (await notifyd.call("POST", PATH, data=b"{}")).text
    released.set()
    await until(lambda: not strays)
    await notifyd.reload(notifyd.text)
    assert (await notifyd.call("POST", PATH, data=b"{}")).status == 200


async def test_a_reload_closes_a_channel_after_it_has_answered(way: tuple[Daemon, Desk]) -> None:
    notifyd, desk = way
    began, released = asyncio.Event(), asyncio.Event()

    async def waiting(_: InboundRequest) -> InboundResponse:
        began.set()
        await released.wait()
        return InboundResponse(200, str(desk.contexts[0].http.closed))

    desk.answer = waiting
    call = asyncio.create_task(notifyd.call("POST", PATH, data=b"{}"))
    await began.wait()
    await notifyd.reload(notifyd.text.replace('timeout = "10s"', 'timeout = "11s"'))
    for _ in range(20):
        await asyncio.sleep(0)
    released.set()
    answer = await call
    assert (answer.status, answer.text) == (200, "False")
    await until(lambda: desk.contexts[0].http.closed)


async def test_nothing_but_a_post_to_a_channel_that_is_called_is_taken(way: tuple[Daemon, Desk]) -> None:
    notifyd, desk = way
    desk.answer = always(InboundResponse())
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        assert (await notifyd.call(method, PATH)).status == 405
    for name in (
        "%00",
        "..",
        "a%2Fb",
        "desk%20",
        "DESK",
        "%F0%9F%90%8D",
        "%FF",
        "resume",
        "inbox",
        "x" * 5000,
    ):
        url = URL(f"{notifyd.url}/channels/{name}/inbound", encoded=True)
        async with notifyd.session.post(url) as answer:
            assert answer.status == 404, name


async def test_a_body_is_bounded_and_any_kind_of_it_is_the_channels(way: tuple[Daemon, Desk]) -> None:
    notifyd, desk = way
    desk.answer = always(InboundResponse())
    big = b"x" * (256 * 1024 + 1)
    assert (await notifyd.call("POST", PATH, data=big)).status == 413
    for kind in ("text/html", "application/x-www-form-urlencoded", "nonsense", ""):
        assert (await notifyd.call("POST", PATH, data=b"x", headers={"content-type": kind})).status == 200
