"""A configuration made into channels, rules and keys: what plugins may do to it, and what they may not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifyd.config.settings import Rate
from notifyd.errors import ConfigError
from notifyd.model import RESUME_CHANNEL, Message, Receipt
from notifyd.plugin import ChannelContext, ChannelType
from notifyd.registry import channels as opening
from notifyd.registry.registry import Registry, open_registry
from notifyd.wire.codec import parse_instant
from tests import events
from tests.daemon import CONFIG, daemon
from tests.fakes import Channels, NoOptions, TurnableClock, discovered, settings
from tests.flows import RULES, flow

TWO = """
[channels.good]
type = "fake"
[channels.odd]
type = "odd"
"""


class Plain:
    """A channel that does nothing, and may not want to be closed."""

    def __init__(self, on_close: BaseException | None = None) -> None:
        self.on_close = on_close
        self.closed = 0

    async def send(self, message: Message) -> Receipt:
        return Receipt()

    async def aclose(self) -> None:
        self.closed += 1
        if self.on_close is not None:
            raise self.on_close


async def opened(
    open_odd: Callable[[Any, ChannelContext], Any], channels: Channels | None = None
) -> Registry:
    """The registry with a well-behaved channel, and one that `open_odd` opens."""
    channels = channels or Channels()
    channels.more["odd"] = ChannelType("odd", NoOptions, open_odd)
    return await open_registry(settings(TWO, channels), discovered(channels), TurnableClock())


async def test_a_registry_has_the_configured_channels_and_the_callbacks() -> None:
    current = await opened(lambda _config, _context: Plain())
    assert set(current.channels) == {"good", "odd", RESUME_CHANNEL}
    assert current.channel("good", "fake") is current.channels["good"]
    assert current.channel("good", "other") is None
    assert current.channel("gone", "fake") is None
    await current.aclose()
    await current.aclose()


async def test_a_channel_may_be_opened_by_awaiting() -> None:
    async def later(_config: object, context: ChannelContext) -> Plain:
        await asyncio.sleep(0)
        assert context.name == "odd"
        return Plain()

    current = await opened(later)
    assert isinstance(current.channels["odd"].channel, Plain)
    await current.aclose()


def _raises(error: BaseException) -> Callable[[Any, ChannelContext], Any]:
    def open_odd(_config: object, _context: ChannelContext) -> Any:
        raise error

    return open_odd


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such host"),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        ImportError("lib"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_plugin_raises_when_opened_is_told_by_the_channels_name(
    error: BaseException,
) -> None:
    channels = Channels()
    with pytest.raises(ConfigError) as caught:
        await opened(_raises(error), channels)
    (fault,) = caught.value.faults
    assert fault.pointer == "channels.odd"
    assert type(error).__name__ in fault.message
    ((_, good),) = channels.opened
    assert good.closed


@pytest.mark.parametrize("given", [None, "a string", object(), Plain.send])
async def test_what_is_no_channel_is_refused_when_it_is_opened(given: object) -> None:
    with pytest.raises(ConfigError, match="lacks send or aclose"):
        await opened(lambda _config, _context: given)


async def test_a_plugin_that_hangs_when_opened_does_not_hang_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "_OPEN_TIMEOUT", 0.01)

    async def hang(_config: object, _context: ChannelContext) -> Plain:
        await asyncio.Event().wait()
        return Plain()

    with pytest.raises(ConfigError, match="TimeoutError"):
        await opened(hang)


async def test_a_secret_in_a_plugins_error_is_hidden() -> None:
    secret = "dGhlIHJ1bm5lcidzIHNlY3JldCBvZiAzMiBieXRlcy4="  # of the client, in base64
    with pytest.raises(ConfigError) as caught:
        await opened(_raises(ValueError(f"cannot log in with whsec_{secret}")))
    assert secret not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("closed already"), SystemExit(1), asyncio.CancelledError()])
async def test_a_plugin_that_fails_to_close_keeps_no_other_from_being_closed(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    channels, odd = Channels(), Plain(error)
    current = await opened(lambda _config, _context: odd, channels)
    await current.aclose()
    ((_, good),) = channels.opened
    assert (odd.closed, good.closed) == (1, True)
    assert "channel odd does not close" in caplog.text


async def test_a_plugin_that_hangs_when_closed_does_not_hang_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "_CLOSE_TIMEOUT", 0.01)

    class Hanging(Plain):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    channels = Channels()
    current = await opened(lambda _config, _context: Hanging(), channels)
    await current.aclose()
    assert channels.opened[0][1].closed


async def test_a_channels_own_options_and_limits_are_taken_from_the_config() -> None:
    channels = Channels()
    text = '[channels.team]\ntype = "fake"\nconcurrency = 7\ntimeout = "3s"\nrate_limit = "2/m"\n'
    current = await open_registry(settings(text, channels), discovered(channels), TurnableClock())
    team = current.channels["team"]
    assert (team.concurrency, team.timeout, team.personal) == (7, 3.0, False)
    assert isinstance(team.rate_limit, Rate)
    await current.aclose()


# --- start and reload --------------------------------------------------------------------------------------


async def test_a_start_that_fails_leaves_nothing_running(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with daemon(tmp_path / "one") as first:
        before = asyncio.all_tasks()
        taken = CONFIG.replace("127.0.0.1:0", "{}:{}".format(*first.app.address))
        with pytest.raises(OSError, match="Address already in use"):
            async with daemon(tmp_path / "two", taken):
                raise AssertionError
        assert asyncio.all_tasks() <= before
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_reload_is_on_record_and_what_needs_a_restart_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path) as way:
        caplog.set_level(logging.INFO)
        assert await way.reload(RULES + '[store]\nurl = "sqlite:///elsewhere.db"\n')
        assert "store.url cannot change while the service runs" in caplog.text
        (line,) = await way.audit(tenant="")
        assert (line.name, line.actor) == ("config.reloaded", "notifyd")


async def test_a_reload_names_each_fault_with_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path) as way:
        assert not await way.reload(RULES + '[dispatch]\nmax_attempts = 0\nlease = "soon"\n')
        assert "dispatch.max_attempts" in caplog.text
        assert "dispatch.lease" in caplog.text


async def test_a_reload_that_breaks_in_an_unforeseen_way_is_counted_and_changes_nothing(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path) as way:
        before = way.current()

        def load() -> Any:
            raise RuntimeError("unforeseen")

        with pytest.raises(RuntimeError):
            await way.app.reload(load)
        assert way.current() is before
        assert way.metric("notifyd_config_last_reload_successful") == 0


# --- numbers -----------------------------------------------------------------------------------------------

NUMBERS = {
    "notifyd_events": {"kind", "outcome"},
    "notifyd_ingest_seconds": set(),
    "notifyd_approvals_outstanding": {"tenant"},
    "notifyd_approval_notifications_queued": set(),
    "notifyd_approval_notifications_sent": set(),
    "notifyd_approval_ack_latency_seconds": set(),
    "notifyd_deliveries": {"channel", "outcome"},
    "notifyd_delivery_seconds": {"channel"},
    "notifyd_delivery_attempts": {"channel", "outcome"},
    "notifyd_backlog": {"channel"},
    "notifyd_oldest_pending_seconds": {"channel"},
    "notifyd_held": {"channel", "why"},
    "notifyd_last_success_timestamp_seconds": {"channel"},
    "notifyd_store_errors": {"step"},
    "notifyd_store_bytes": {"part"},
    "notifyd_disk_free_bytes": set(),
    "notifyd_log_lines_dropped": set(),
    "notifyd_approvals_ended": {"status"},
    "notifyd_undecodable_rows": {"table"},
    "notifyd_unplanned_events": set(),
    "notifyd_ready": set(),
    "notifyd_http_requests": {"route", "status"},
    "notifyd_dead_letters": {"channel"},
    "notifyd_breaker_open": {"channel"},
    "notifyd_store_commit_seconds": set(),
    "notifyd_store_batch_size": set(),
    "notifyd_rule_errors": {"rule"},
    "notifyd_config_last_reload_successful": set(),
    "notifyd_config_last_reload_success_timestamp_seconds": set(),
    "notifyd_purged": {"collection"},
    "notifyd_build_info": {"version"},
}
"""Each number that is exported, with its labels; counters as the library names them, without `_total`."""


async def test_every_number_that_is_promised_is_exported_with_its_labels_alone(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        exported = {metric.name: metric for metric in way.metrics.registry.collect()}
        collectors = way.metrics.registry._names_to_collectors
        for name, labels in NUMBERS.items():
            assert name in exported, name
            collector = collectors.get(name) or collectors[f"{name}_total"]
            assert set(vars(collector)["_labelnames"]) == labels, name


async def test_a_kind_that_the_config_does_not_name_is_counted_as_other(tmp_path: Path) -> None:
    text = (
        RULES
        + """
[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["team"]
"""
    )
    async with flow(tmp_path, text, start=False) as way:
        for number in range(3):
            await way.cloud(events.cloud_event(at=way.clock(), type=f"made.up.{number}"))
        await way.cloud(events.cloud_event(at=way.clock()))
        assert way.metric("notifyd_events_total", kind="other", outcome="accepted") == 3
        assert way.metric("notifyd_events_total", kind="task.done", outcome="accepted") == 1


@pytest.mark.parametrize(
    ("at", "stands_in"),
    [
        ("2026-12-19T22:59:59Z", False),
        ("2026-12-19T23:00:00Z", True),
        ("2027-01-06T22:59:59Z", True),
        ("2027-01-06T23:00:00Z", False),
    ],
)
async def test_a_deputy_stands_in_from_the_first_day_to_the_end_of_the_last_in_the_persons_zone(
    at: str, stands_in: bool
) -> None:
    text = """
        [auth.actors]
        "alice@acme.example" = ["00u1ab"]
        [recipients."alice@acme.example"]
        zone = "Europe/Zurich"
        deputy = {to = "Bruno@acme.example", from = 2026-12-20, until = 2027-01-06}
    """
    channels = Channels()
    registry = await open_registry(settings(text, channels), discovered(channels), TurnableClock())
    try:
        now = parse_instant(at)
        assert registry.is_deputy("acme", "bruno@acme.example", "00u1ab", now) is stands_in
        assert registry.deputy_of("acme", "bruno@acme.example", now) is None
    finally:
        await registry.aclose()
