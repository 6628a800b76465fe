"""The watchdog: what counts as blocked, and who did it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest
from attrs import evolve

from notifyd.flow.calls import called
from notifyd.metrics import Metrics
from notifyd.service.watchdog import Watchdog, channel_in, stack_from
from tests.fakes import ScriptedChannel, open_channel
from tests.waiting import until


def channel_of_package(package: str, name: str) -> Any:
    """An open channel whose class is from a module of `package`."""
    kind = type("Channel", (ScriptedChannel,), {"__module__": f"{package}.channel"})
    return evolve(open_channel(kind()), name=name)


class Channels:
    """As much of a registry as the watchdog asks for."""

    def __init__(self, *channels: Any) -> None:
        self.channels = {channel.name: channel for channel in channels}


def channel_named(stack: Sequence[FrameType], *channels: Any) -> str:
    registry: Any = Channels(*channels)
    return channel_in(stack, registry)


def stack_in(module: str) -> list[FrameType]:
    """A stack whose innermost frame runs code of `module`."""
    names: dict[str, Any] = {"__name__": module, "sys": sys}
    exec("def leaked():\n    return sys._getframe()", names)  # noqa: S102 - the test's own text
    return [names["leaked"]()]


# --- who ---------------------------------------------------------------------------------------------------


def test_code_of_a_plugin_outside_of_send_is_that_of_its_only_channel() -> None:
    pager, mail = channel_of_package("pager", "on-call"), channel_of_package("mail", "post")
    assert channel_named(stack_in("pager.sdk.client"), pager, mail) == "on-call"


async def test_code_that_a_channels_method_runs_is_that_channels() -> None:
    async def listen() -> Sequence[FrameType]:
        return stack_from(sys._getframe())

    day, night = (channel_of_package("pager", name) for name in ("day", "night"))
    assert channel_named(await called(night, listen()), day, night) == "night"


def test_code_that_several_channels_share_is_nobodys() -> None:
    channels = [channel_of_package("pager", name) for name in ("day", "night")]
    assert channel_named(stack_in("pager.sdk"), *channels) == "other"


def test_code_of_no_channel_is_nobodys() -> None:
    pager, own = channel_of_package("pager", "on-call"), channel_of_package("notifyd", "resume")
    assert channel_named(stack_in("json.decoder"), pager, own) == "other"
    assert channel_named(stack_in("notifyd.render.render"), pager, own) == "other"


# --- what --------------------------------------------------------------------------------------------------


def current() -> Any:
    return Channels()


def counted(metrics: Metrics, channel: str = "other") -> float:
    value = metrics.registry.get_sample_value("notifyd_loop_blocked_total", {"channel": channel})
    return value or 0.0


async def test_a_blocked_loop_is_told_once_and_again_when_it_turns(caplog: pytest.LogCaptureFixture) -> None:
    told, metrics = threading.Event(), Metrics()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    handler = Handler()
    logging.getLogger("notifyd.service.watchdog").addHandler(handler)
    try:
        async with Watchdog(current, metrics, threshold=0.1):
            told.wait(20)  # this is what blocks
            threading.Event().wait(0.3)  # and goes on blocking
            await until(lambda: "turns again" in caplog.text)
            assert counted(metrics) >= 1
    finally:
        logging.getLogger("notifyd.service.watchdog").removeHandler(handler)
    lines = (record.getMessage() for record in caplog.records if record.name == "notifyd.service.watchdog")
    blocked, again, *_ = lines
    assert blocked.startswith("the event loop is blocked, by no channel that is known: threading:")
    assert f"{__name__}:" in blocked
    assert again.startswith("the event loop turns again, after ")


async def test_a_loop_that_turns_or_waits_is_not_blocked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, loop = Metrics(), asyncio.get_running_loop()
    probe = Mock(wraps=loop.call_soon_threadsafe)
    monkeypatch.setattr(loop, "call_soon_threadsafe", probe)
    async with Watchdog(current, metrics, threshold=0.4):
        await until(lambda: probe.call_count >= 2)
    assert counted(metrics) == 0
    assert "notifyd.service.watchdog" not in {record.name for record in caplog.records}


async def test_nothing_is_left_of_it_at_the_end() -> None:
    async with Watchdog(current, Metrics(), threshold=60):
        pass
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
