"""Channels that do what no channel should, in a whole daemon: their lane suffers, and nothing else does."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, frozen

from notifyd.errors import ConfigError
from notifyd.model import Message, Receipt
from notifyd.plugin import ChannelType, hookimpl
from notifyd.render.render import TemplateSet
from notifyd.wire.codec import rfc3339
from tests.daemon import CONFIG, Daemon, daemon, settings
from tests.waiting import until, until_async

RULES = """
[channels.rogue]
type = "rogue"
timeout = "100ms"

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["rogue", "inbox"]
to = ["alice@acme.example"]
"""

_load_once = cache(TemplateSet.load)


class Unforeseen(BaseException):
    """What no author of a channel should derive from."""


@frozen
class NoOptions:
    """A rogue has none."""


async def nothing() -> None:
    """What a channel that holds nothing has to do at its end."""


async def taken(_: Message) -> Receipt:
    """What a channel does with a message that behaves."""
    return Receipt()


@define(eq=False)
class Rogue:
    """A channel that does with each message what a test says."""

    act: Callable[[Message], Awaitable[Any]]
    close: Callable[[], Awaitable[Any]] = nothing
    open: Callable[[], Any] | None = None
    sends: int = 0

    async def send(self, message: Message) -> Any:
        self.sends += 1
        return await self.act(message)

    async def aclose(self) -> None:
        await self.close()

    @hookimpl
    def notifyd_channel_types(self) -> list[ChannelType]:
        return [ChannelType("rogue", NoOptions, lambda _config, _context: self.open() if self.open else self)]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Rogue], Any]:
    monkeypatch.setattr(TemplateSet, "load", _load_once)

    @asynccontextmanager
    async def started(rogue: Rogue, timeout: str = "100ms") -> AsyncIterator[Daemon]:
        async with daemon(tmp_path, CONFIG + RULES.replace("100ms", timeout), extra=[rogue]) as running:
            yield running

    return started


async def post_task(notifyd: Daemon) -> None:
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/tests", "type": "task.done"}
    event |= {"time": rfc3339(notifyd.clock()), "tenant": "acme"}
    answer = await notifyd.post("/api/v1/events", event, "operator", X_Notifyd_Tenant="acme")
    assert answer.status == 202, answer.text


async def lane(notifyd: Daemon, condition: Callable[[Any], object]) -> Any:
    """The rogue as it is listed, once `condition` holds of it."""

    async def listed() -> Any:
        items = (await notifyd.get("/api/v1/channels")).json["items"]
        (item,) = (item for item in items if item["name"] == "rogue")
        return item if condition(item) else None

    return await until_async(listed)


async def neighbour_delivers(notifyd: Daemon, count: int = 1) -> None:
    await until(lambda: len(notifyd.inbox.messages) >= count)


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), Unforeseen(), asyncio.CancelledError()],
    ids=repr,
)
async def test_one_that_raises_anything_ends_in_its_own_ledger(start: Any, error: BaseException) -> None:
    async def act(_: Message) -> None:
        raise error

    async with start(Rogue(act)) as notifyd:
        await post_task(notifyd)
        await neighbour_delivers(notifyd)
        item = await lane(notifyd, lambda item: item["lastFailure"])
        assert item["lastFailure"]["reason"] == "channel_fault"
        assert type(error).__name__ in item["lastFailure"]["detail"]


async def test_while_one_hangs_its_neighbour_delivers(start: Any) -> None:
    released = asyncio.Event()

    async def act(_: Message) -> Receipt:
        await released.wait()
        return Receipt()

    async with start(Rogue(act), timeout="60s") as notifyd:
        for count in range(1, 9):
            await post_task(notifyd)
            await neighbour_delivers(notifyd, count)
        item = await lane(notifyd, lambda item: item["lane"]["backlog"] == 8)
        assert (item["lane"]["running"], item["lastSuccess"], item["lastFailure"]) == (4, None, None)
        released.set()


async def test_one_that_never_returns_is_timed_out(start: Any) -> None:
    async def act(_: Message) -> None:
        await asyncio.Event().wait()

    async with start(Rogue(act)) as notifyd:
        await post_task(notifyd)
        await neighbour_delivers(notifyd)
        item = await lane(notifyd, lambda item: item["lastFailure"])
        assert item["lastFailure"]["reason"] == "timeout"
        assert item["lastFailure"]["detail"] == "no answer within 0.1 s"


async def test_one_that_is_deaf_to_its_cancellation_holds_neither_its_lane_nor_the_end(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    released = asyncio.Event()

    async def act(_: Message) -> None:
        await deaf(released)

    try:
        async with start(rogue := Rogue(act)) as notifyd:
            await post_task(notifyd)
            await neighbour_delivers(notifyd)
            item = await lane(notifyd, lambda item: item["lastFailure"])
            assert item["lastFailure"]["reason"] == "timeout"
            await until(lambda: rogue.sends >= 2)  # its lane goes on
            await post_task(notifyd)
            await neighbour_delivers(notifyd, 2)
        assert "channel rogue does not end an attempt that was cancelled" in caplog.text
    finally:
        released.set()


@pytest.mark.parametrize("nonsense", [None, "sent", 200, object()], ids=lambda value: type(value).__name__)
async def test_one_that_returns_nonsense_is_believed_and_named(
    start: Any, nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(_: Message) -> Any:
        return nonsense

    async with start(Rogue(act)) as notifyd:
        await post_task(notifyd)
        await neighbour_delivers(notifyd)
        await lane(notifyd, lambda item: item["lastSuccess"])
        assert f"channel rogue returned {type(nonsense).__name__} instead of a Receipt" in caplog.text


class Blunt(Rogue):
    """Sends, and is not async."""

    def send(self, message: Message) -> Any:
        self.sends += 1
        return Receipt()


async def test_one_whose_send_is_not_async_sends_once(start: Any) -> None:
    blunt = Blunt(taken)
    async with start(blunt) as notifyd:
        await post_task(notifyd)
        item = await lane(notifyd, lambda item: item["lastSuccess"] or item["lastFailure"])
        assert (item["lastFailure"], blunt.sends) == (None, 1)


@frozen
class Abrupt:
    """Options that end the process, as some parsers of arguments do."""

    def __attrs_post_init__(self) -> None:
        raise SystemExit(2)


@pytest.mark.parametrize(
    ("options", "own_body", "complaint"),
    [
        (Abrupt, None, "channels.rogue: SystemExit: 2"),
        (
            NoOptions,
            lambda _: 7,
            "channels.rogue: does not open: TypeError: own_body gives int, which is no media type",
        ),
    ],
)
async def test_a_type_that_breaks_as_it_is_configured_is_named(
    start: Any, options: Any, own_body: Any, complaint: str
) -> None:
    rogue = Rogue(taken)
    kind = ChannelType("rogue", options, lambda _config, _context: rogue, own_body=own_body)
    plugin = SimpleNamespace(notifyd_channel_types=hookimpl(lambda: [kind]))
    with pytest.raises(ConfigError) as caught:
        async with start(plugin):
            pytest.fail("it has started")
    assert [str(fault) for fault in caught.value.faults] == [complaint]


async def test_one_that_leaks_tasks_and_lets_them_fail_disturbs_nobody(start: Any) -> None:
    leaked: list[asyncio.Task[Any]] = []

    async def act(_: Message) -> Receipt:
        leaked.append(asyncio.create_task(asyncio.Event().wait()))
        return Receipt()

    async with start(Rogue(act)) as notifyd:
        for count in range(1, 4):
            await post_task(notifyd)
            await neighbour_delivers(notifyd, count)
        await lane(notifyd, lambda item: item["lastSuccess"] and not item["lane"]["backlog"])
    assert [task.done() for task in leaked] == [False] * 3
    for task in leaked:
        task.cancel()


@contextmanager
def released_by(words: str) -> Iterator[threading.Event]:
    """An event that is set when a log line holds `words`."""
    event = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                event.set()

    handler, logger = Handler(), logging.getLogger("notifyd.service.watchdog")
    logger.addHandler(handler)
    try:
        yield event
    finally:
        logger.removeHandler(handler)


async def test_one_that_blocks_the_loop_is_named_in_the_log_and_a_metric(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with released_by("the event loop is blocked") as released:

        async def act(_: Message) -> Receipt:
            released.wait(20)
            return Receipt()

        async with start(Rogue(act)) as notifyd:
            await post_task(notifyd)
            await lane(notifyd, lambda item: item["lastSuccess"])
            await neighbour_delivers(notifyd)
            await until(lambda: "the event loop turns again, after " in caplog.text)
            (line,) = [r.getMessage() for r in caplog.records if "is blocked" in r.getMessage()]
            assert line.startswith("the event loop is blocked, by channel rogue: threading:")
            assert f"{__name__}:" in line
            assert " act <" in line
            metrics = (await notifyd.get("/metrics", None)).text
            assert 'notifyd_loop_blocked_total{channel="rogue"} 1.0' in metrics


# --- at the beginning, and at the end ----------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> None:
        raise error

    return act


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("act", "complaint"),
    [
        (raising(ValueError("no such vendor")), "does not open: ValueError: no such vendor"),
        (raising(SystemExit(3)), "does not open: SystemExit: 3"),
        (raising(Unforeseen("boo")), "does not open: Unforeseen: boo"),
        (lambda: None, "does not open: TypeError: open gives NoneType, which lacks send or aclose"),
        (lambda: Rogue, "does not open: TypeError: open gives the class Rogue, and no object of it"),
        (hang, "does not open: TimeoutError: "),
    ],
)
async def test_one_that_does_not_open_is_named_and_refuses_the_configuration(
    start: Any, act: Callable[[], Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.registry.channels._OPEN_TIMEOUT", 0.01)
    with pytest.raises(ConfigError) as caught:
        async with start(Rogue(taken, open=act)):
            pytest.fail("it has started")
    assert [str(fault) for fault in caught.value.faults] == [f"channels.rogue: {complaint}"]


async def test_one_that_does_not_open_at_a_reload_leaves_the_old_one_at_work(start: Any) -> None:
    async with start(rogue := Rogue(taken)) as notifyd:
        rogue.open = raising(ValueError("no such vendor"))
        fresh = (settings(notifyd.text, notifyd.discovered), notifyd.discovered)
        assert not await notifyd.app.reload(lambda: fresh)
        await post_task(notifyd)
        await lane(notifyd, lambda item: item["lastSuccess"])


async def deaf(released: asyncio.Event) -> None:
    while not released.is_set():
        with suppress(asyncio.CancelledError):
            await released.wait()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), Unforeseen()], ids=repr)
async def test_one_that_raises_as_it_is_closed_is_named_and_the_end_goes_on(
    start: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def close() -> None:
        raise error

    async with start(Rogue(taken, close=close)) as notifyd:
        await post_task(notifyd)
        await neighbour_delivers(notifyd)
    assert f"channel rogue does not close: {type(error).__name__}" in caplog.text


async def test_one_that_never_closes_and_is_deaf_to_its_cancellation_does_not_hold_up_the_end(
    start: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.registry.channels._CLOSE_TIMEOUT", 0.01)
    released = asyncio.Event()
    async with start(Rogue(taken, close=lambda: deaf(released))) as notifyd:
        await neighbour_delivers(notifyd, 0)
    assert "channel rogue does not close within 0.01 s" in caplog.text
    released.set()
