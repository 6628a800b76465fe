"""The heartbeat: a watcher outside hears from a daemon that is well, and from no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from notifyd.errors import StoreError
from notifyd.security.secrets import Secret
from notifyd.service.heartbeat import Heartbeat
from notifyd.testkit.receivers import Reply, Sink
from tests.fakes import TurnableClock, registry
from tests.waiting import until

CONFIG = """
[egress]
allow_private = ["127.0.0.0/8"]
[heartbeat]
url = "{url}/ping/secret-of-the-watcher"
interval = "1s"
"""


def url_of(watcher: Sink) -> Secret:
    return Secret(f"{watcher.url}/ping/secret-of-the-watcher")


async def well() -> None:
    pass


async def broken() -> None:
    raise StoreError("the disk is full")


@asynccontextmanager
async def heartbeat(config: str, ready: Callable[[], Awaitable[None]] = well) -> AsyncIterator[Heartbeat]:
    async with registry(config) as opened:
        yield Heartbeat(current=lambda: opened, ready=ready, clock=TurnableClock())


async def ended(task: asyncio.Task[None]) -> None:
    """Cancelled as often as it takes: one that meets the body of an answer is taken for the end of that."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)


async def test_a_watcher_is_called_again_and_again() -> None:
    async with Sink() as watcher, heartbeat(CONFIG.format(url=watcher.url)) as beating:
        task = asyncio.create_task(beating.run())
        await until(lambda: len(watcher.received) >= 2)
        await ended(task)
    assert {one.path for one in watcher.received} == {"/ping/secret-of-the-watcher"}
    assert {one.body for one in watcher.received} == {b""}


async def test_a_daemon_that_is_not_well_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    async with Sink() as watcher, heartbeat(CONFIG.format(url=watcher.url), broken) as beating:
        assert not await beating.beat(url_of(watcher))
        assert not await beating.beat(url_of(watcher))
    assert watcher.received == []
    assert caplog.messages == ["no heartbeat: the disk is full"]


async def test_a_watcher_that_does_not_answer_is_told_of_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with Sink() as watcher, heartbeat(CONFIG.format(url=watcher.url)) as beating:
        watcher.reply = Reply(500)
        assert [await beating.beat(url_of(watcher)) for _ in range(2)] == [False, False]
        watcher.hangs_up = True
        assert not await beating.beat(url_of(watcher))
        watcher.reply, watcher.hangs_up = Reply(), False
        assert await beating.beat(url_of(watcher))
    assert caplog.messages[0] == "no heartbeat: the receiver answered 500"
    assert caplog.messages[1].startswith("no heartbeat: ")  # another fault
    assert caplog.messages[2:] == ["the heartbeat goes on"]
    assert "secret-of-the-watcher" not in caplog.text


async def test_a_private_address_that_egress_does_not_name_is_not_called() -> None:
    async with Sink() as watcher:
        config = CONFIG.format(url=watcher.url).replace("127.0.0.0/8", "10.0.0.0/8")
        async with heartbeat(config) as beating:
            assert not await beating.beat(url_of(watcher))
        assert watcher.received == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(302, headers={"Location": "http://127.0.0.1:9/"}), "the receiver answered 302"),
        (Reply(404), "the receiver answered 404"),
    ],
)
async def test_a_watcher_that_sends_on_or_knows_no_such_check_is_a_fault(
    caplog: pytest.LogCaptureFixture, reply: Reply, told: str
) -> None:
    async with Sink() as watcher, heartbeat(CONFIG.format(url=watcher.url)) as beating:
        watcher.reply = reply
        assert not await beating.beat(url_of(watcher))
        assert len(watcher.received) == 1
    assert caplog.messages == [f"no heartbeat: {told}"]


async def test_what_nobody_foresaw_keeps_the_heart_from_one_beat_and_shows_no_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def unforeseen() -> None:
        raise ValueError("https://hc.example/ping/secret-of-the-watcher")

    async with Sink() as watcher, heartbeat(CONFIG.format(url=watcher.url), unforeseen) as beating:
        assert not await beating.beat(url_of(watcher))
    assert caplog.messages == ["no heartbeat: the call failed with ValueError"]


async def test_a_reload_has_another_watcher_called_at_once_however_long_the_interval_was() -> None:
    async with Sink() as first, Sink() as second:
        config = CONFIG.replace('"1s"', '"1d"')
        async with (
            registry(config.format(url=first.url)) as old,
            registry(config.format(url=second.url)) as new,
        ):
            current = [old]
            beating = Heartbeat(current=lambda: current[0], ready=well, clock=TurnableClock())
            task = asyncio.create_task(beating.run())
            await until(lambda: first.received)
            current[0] = new
            await until(lambda: second.received)
            await ended(task)
    assert (len(first.received), len(second.received)) == (1, 1)


async def test_without_a_watcher_nobody_is_called() -> None:
    async with heartbeat("") as beating:
        task = asyncio.create_task(beating.run())
        await asyncio.sleep(0)
        assert not task.done()
        await ended(task)
