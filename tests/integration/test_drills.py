"""Fire drills: what is sent when, what they count as, and what they do not touch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from notifyd.cli.doctor_store import failed_drills
from notifyd.errors import ConfigError, PermanentError, Reason, StoreError
from notifyd.flow.drill import AGAIN
from notifyd.model import SECOND
from notifyd.registry.registry import open_registry
from notifyd.service.keys import agree_on_keys
from notifyd.store import Store, Turn
from tests.fakes import Channels, TurnableClock, discovered, registry, settings
from tests.flows import Flow, flow

pytestmark = pytest.mark.usefixtures("templates_once")

DAY = 86400
CONFIG = """
[channels.team]
type = "fake"

[channels.quiet]
type = "fake"

[channels.mail]
type = "person"

[recipients."ops@acme.example"]
locale = "de"

[drill]
channels = ["team", "mail"]
to = "ops@acme.example"
"""
REFUSED = PermanentError("no such room", reason=Reason.NOT_FOUND)


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Flow]:
    async with flow(tmp_path, CONFIG) as one:
        yield one


def times(way: Flow, channel: str) -> tuple[float, float]:
    """When the channel was last drilled, and when with success."""
    return (
        way.metric("notifyd_drill_last_timestamp_seconds", channel=channel),
        way.metric("notifyd_drill_last_success_timestamp_seconds", channel=channel),
    )


def drilled(way: Flow, channel: str = "team") -> dict[str, float]:
    return {
        outcome: way.metric("notifyd_drills_total", channel=channel, outcome=outcome)
        for outcome in ("sent", "failed")
    }


async def test_the_channels_that_are_named_are_drilled_once_in_each_interval(way: Flow) -> None:
    assert await way.app._drills.sweep() == 2
    assert await way.app._drills.sweep() == 0
    way.turn(DAY - 1)
    assert await way.app._drills.sweep() == 0
    way.turn(1)
    assert await way.app._drills.sweep() == 2
    first, second = way.channel("team").received
    assert first.id != second.id
    assert way.channel("quiet").received == []
    assert drilled(way) == {"sent": 2, "failed": 0}
    assert times(way, "team") == (way.clock() / SECOND, way.clock() / SECOND)
    assert way.metric("notifyd_drill_seconds_count", channel="team") == 2


async def test_a_drill_says_so_in_the_language_of_its_reader(way: Flow) -> None:
    await way.app._drills.sweep()
    (told,), (mail,) = way.channel("team").received, way.channel("mail").received
    assert told.title == "Fire drill: test message from notifyd"
    assert told.event["drill"] is True
    assert (mail.title, mail.recipient) == ("Probealarm: Testnachricht von notifyd", "ops@acme.example")


async def test_a_drill_is_no_event_no_delivery_and_no_message_that_is_counted(way: Flow) -> None:
    way.channel("team").script = [REFUSED]
    await way.app._drills.sweep()
    assert await way.store.backlog() == []
    assert await way.store.dead_letters() == {}
    assert await way.unplanned() == []
    assert await way.audit("") == []
    assert way.metric("notifyd_delivery_attempts_total", channel="team", outcome="not_found") == 0
    assert way.metric("notifyd_last_success_timestamp_seconds", channel="mail") == 0
    assert way.app._dispatcher.snapshot("team").last_failure is None


async def test_a_drill_that_fails_is_told_and_repeated_soon(
    way: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    way.channel("team").script = [REFUSED, REFUSED]
    await way.app._drills.sweep()
    began = way.clock() / SECOND
    assert times(way, "team") == (began, 0)
    way.turn(AGAIN / SECOND)
    assert await way.app._drills.sweep() == 1
    assert drilled(way) == {"sent": 0, "failed": 2}
    way.turn(AGAIN / SECOND)
    assert await way.app._drills.sweep() == 1
    assert times(way, "team") == (way.clock() / SECOND, way.clock() / SECOND)
    assert await way.app._drills.sweep() == 0
    assert caplog.messages[0] == "the fire drill of channel team has failed: not_found: no such room"


async def test_a_drill_that_cannot_be_written_has_failed(tmp_path: Path) -> None:
    (tmp_path / "channel-test.en.txt").write_text(
        "{% block title %}{{ 1 / event.none|default(0) }}{% endblock %}{% block body %}{% endblock %}"
    )
    async with flow(tmp_path, f'[templates]\ndirs = ["{tmp_path}"]\n{CONFIG}') as way:
        await way.app._drills.sweep()
        assert way.channel("team").received == []
        assert drilled(way) == {"sent": 0, "failed": 1}


async def test_a_restart_drills_nothing_again_and_tells_the_same(tmp_path: Path) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, CONFIG, clock=clock) as way:
        await way.app._drills.sweep()
    async with flow(tmp_path, CONFIG, clock=clock) as way:
        assert await way.app._drills.sweep() == 0
        assert times(way, "team") == (clock() / SECOND, clock() / SECOND)
        assert drilled(way) == {"sent": 0, "failed": 0}


async def test_a_clock_that_was_set_back_does_not_stop_the_drills(way: Flow) -> None:
    way.turn(10 * DAY)
    await way.app._drills.sweep()
    way.turn(-9 * DAY)
    assert await way.app._drills.sweep() == 2


async def test_a_channel_that_is_drilled_no_more_has_no_series(way: Flow) -> None:
    await way.app._drills.sweep()
    assert way.metric("notifyd_drill_interval_seconds", channel="mail") == DAY
    assert await way.reload(CONFIG.replace('["team", "mail"]', '["team"]').replace("\nto =", "\n#to ="))
    await way.app._drills.sweep()
    series = {
        sample.labels["channel"]
        for family in way.metrics.registry.collect()
        for sample in family.samples
        if sample.name.startswith("notifyd_drill")
    }
    assert series == {"team"}


async def test_without_channels_nothing_is_asked_of_the_store(tmp_path: Path) -> None:
    async with flow(tmp_path) as way:
        assert await way.app._drills.sweep() == 0
        assert {"channel_state", "claim_job"}.isdisjoint(way.store.asked)


async def test_a_store_that_fails_lets_no_drill_begin(way: Flow) -> None:
    way.store.fail("claim_job")
    with pytest.raises(StoreError):
        await way.app._drills.sweep()
    assert way.channel("team").received == []
    assert await way.app._drills.sweep() == 2


async def test_while_another_node_drills_nobody_else_does(way: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(*_: Any, **__: Any) -> Turn:
        return Turn(mine=False, node="b")

    monkeypatch.setattr(way.store, "claim_job", taken, raising=False)
    assert await way.app._drills.sweep() == 0
    assert way.channel("team").received == []


async def test_what_drills_keep_holds_no_key_of_seals_back(way: Flow) -> None:
    await way.app._drills.sweep()
    async with registry(CONFIG) as opened:
        await agree_on_keys(cast(Store, way.store), opened.keyring)
    other = settings(CONFIG, Channels(), b"another key that is 32 bytes too")
    reopened = await open_registry(other, discovered(Channels()), way.clock)
    try:
        await agree_on_keys(cast(Store, way.store), reopened.keyring)
    finally:
        await reopened.aclose()


async def test_doctor_names_a_channel_whose_last_drill_has_failed(way: Flow) -> None:
    way.channel("team").script = [REFUSED]
    await way.app._drills.sweep()
    samples = [sample for family in way.metrics.registry.collect() for sample in family.samples]
    assert [one.detail for one in failed_drills(samples)] == [
        "the last fire drill of the channel team has failed"
    ]


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ('["team", "mail"]', '["team", "gone"]', 'drill.channels[1]: there is no channel "gone"'),
        ('["team", "mail"]', '["team", "team"]', "drill.channels[1]: is named twice"),
        ("to =", "#to =", 'drill.to: is required: the channel "mail" reaches named people only'),
        ('["team", "mail"]', '["team"]', "drill.to: needs a channel that reaches named people"),
        ("[drill]", '[drill]\ninterval = "59s"', "drill.interval: must be"),
    ],
)
def test_a_drill_that_could_never_be_is_a_fault(before: str, after: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(CONFIG.replace(before, after), Channels())
    assert any(str(one).startswith(fault) for one in caught.value.faults)
