"""What the metrics tell of deliveries that wait, of the store, and of channels that come and go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.samples import Sample

from notifyd.errors import PermanentError, Reason, StoreError, TransientError
from notifyd.flow import dispatch, tally
from notifyd.flow.lane import BREAKER_THRESHOLD, Lane
from notifyd.metrics import Metrics
from notifyd.model import RESUME_CHANNEL, SECOND, Wait
from notifyd.store import DeliveryFilter, Page
from notifyd.store.watched import STEPS
from tests import events
from tests.fakes import Channels, Gate
from tests.flows import RULES, TASKS, Flow, flow
from tests.waiting import until, until_async


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count each time the dispatcher is woken, and not once in some seconds."""
    monkeypatch.setattr(dispatch, "_RECOUNT", 0.0)
    monkeypatch.setattr(tally, "_INTERVAL", 0.0)


async def tasks_done(way: Flow, count: int) -> None:
    for _ in range(count):
        await way.cloud(events.cloud_event(at=way.clock()))


async def holds(way: Flow, why: Wait, count: int, channel: str = "team") -> None:
    """Wait until so many are said to wait for that, by the metric and by each delivery, and none for else."""

    async def told() -> bool:
        way.app._dispatcher.wake()
        found = {one: way.metric("notifyd_held", channel=channel, why=one.value) for one in Wait}
        rows, _ = await way.store.deliveries("acme", DeliveryFilter(channel=channel), Page())
        each = Counter(filter(None, map(way.app._dispatcher.wait_of, rows)))
        return found == dict.fromkeys(Wait, 0.0) | {why: count} and each == {why: count}

    await until_async(told)


async def test_every_series_of_a_channel_and_of_the_store_begins_at_zero(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        for channel in ("team", RESUME_CHANNEL):
            for why in Wait:
                found = way.metrics.registry.get_sample_value(
                    "notifyd_held", {"channel": channel, "why": why.value}
                )
                assert found == 0
            last = "notifyd_last_success_timestamp_seconds"
            assert way.metrics.registry.get_sample_value(last, {"channel": channel}) == 0
        for step in STEPS:
            errors = way.metrics.registry.get_sample_value("notifyd_store_errors_total", {"step": step})
            assert errors == 0, step


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("pack.approval", {"opened", "new_round", "ended", "expired", "recorded"}),
        ("task.done", {"accepted"}),
        ("other", {"accepted"}),
    ],
)
async def test_events_begin_at_zero_with_each_outcome_of_their_kind(
    tmp_path: Path, kind: str, outcomes: set[str]
) -> None:
    outcomes |= {"duplicate", "conflict", "overloaded", "backlog_full", "store_unavailable"}
    async with flow(tmp_path, TASKS, start=False) as way:
        told = {one.labels["outcome"]: one.value for one in samples(way, "notifyd_events", kind=kind)}
        assert told == dict.fromkeys(outcomes, 0.0)


async def test_the_errors_of_a_rule_begin_at_zero_and_go_with_the_rule(tmp_path: Path) -> None:
    faulty = TASKS.replace("when = '", 'when = \'event.labels.absent == "" && ')
    async with flow(tmp_path, faulty) as way:
        assert rule_errors(way) == {"tasks": 0}
        await tasks_done(way, 1)
        await until(lambda: way.metric("notifyd_rule_errors_total", rule="tasks") == 1)
        assert await way.reload(faulty.replace('name = "tasks"', 'name = "jobs"'))
        assert rule_errors(way) == {"jobs": 0}


def test_pending_approvals_begin_at_zero_for_tenants_of_the_config_and_others_go_with_their_last() -> None:
    metrics = Metrics()
    metrics.name_tenants(["acme"])
    assert metrics.values("notifyd_approvals_outstanding", "tenant") == {"acme": 0}
    metrics.set_outstanding({"globex": 2})
    assert metrics.values("notifyd_approvals_outstanding", "tenant") == {"acme": 0, "globex": 2}
    metrics.set_outstanding({"acme": 1})
    assert metrics.values("notifyd_approvals_outstanding", "tenant") == {"acme": 1}


async def test_a_channel_that_is_gone_has_no_breaker_whatever_waits_for_it(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        way.channel().script = [TransientError("busy", reason=Reason.SERVER_ERROR)] * BREAKER_THRESHOLD
        await tasks_done(way, BREAKER_THRESHOLD)
        await until(lambda: way.metric("notifyd_breaker_open", channel="team") == 1)
        assert await way.reload("")

        def told() -> bool:
            way.app._dispatcher.wake()
            return samples(way, "notifyd_breaker_open", channel="team") == []

        await until(told)
        assert way.metric("notifyd_backlog", channel="team") == BREAKER_THRESHOLD
        assert await way.reload(TASKS)
        await until(lambda: samples(way, "notifyd_breaker_open", channel="team") != [])


async def test_a_failed_delivery_is_held_for_its_retry(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        way.channel().script = [TransientError("busy", reason=Reason.SERVER_ERROR)]
        await tasks_done(way, 1)
        await holds(way, Wait.RETRY, 1)


async def test_what_comes_in_quiet_hours_is_held_in_a_window(tmp_path: Path) -> None:
    grouped = TASKS + 'group_by = ["type"]\ngroup_wait = "30s"\n'
    async with flow(tmp_path, grouped) as way:
        await tasks_done(way, 3)
        await holds(way, Wait.WINDOW, 3)
        assert way.metric("notifyd_backlog", channel="team") == 0


async def test_what_a_channel_has_no_hand_free_for_is_held_by_its_concurrency(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS.replace('type = "fake"', 'type = "fake"\nconcurrency = 2')) as way:
        gate = Gate()
        way.channel().script = [gate] * 2
        await tasks_done(way, 5)
        await holds(way, Wait.CONCURRENCY, 3)
        gate.open()


async def test_what_waits_for_a_rate_is_held_by_it(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS.replace('type = "fake"', 'type = "fake"\nrate_limit = "2/s"')) as way:
        await tasks_done(way, 5)
        await holds(way, Wait.RATE_LIMIT, 3)


async def test_what_an_open_breaker_spares_is_held_by_it(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS.replace('type = "fake"', 'type = "fake"\nconcurrency = 1')) as way:
        failing = [TransientError("busy", reason=Reason.SERVER_ERROR) for _ in range(BREAKER_THRESHOLD)]
        way.channel().script = list(failing)
        await tasks_done(way, BREAKER_THRESHOLD + 4)
        await until(lambda: way.metric("notifyd_breaker_open", channel="team") == 1)

        def told() -> bool:
            way.app._dispatcher.wake()
            held = {why: way.metric("notifyd_held", channel="team", why=why.value) for why in Wait}
            return (held[Wait.BREAKER_OPEN], held[Wait.RETRY]) == (4, BREAKER_THRESHOLD)

        await until(told)


async def test_a_channel_that_is_gone_holds_what_waits_for_it_and_its_series_go_with_the_last(
    tmp_path: Path,
) -> None:
    both = TASKS.replace('channels = ["team"]', 'channels = ["team", "mail"]')
    both += '[channels.mail]\ntype = "fake"\n'
    async with flow(tmp_path, both) as way:
        way.channel("mail").script = [TransientError("busy", reason=Reason.SERVER_ERROR)]
        await tasks_done(way, 1)
        await until(lambda: way.metric("notifyd_last_success_timestamp_seconds", channel="team") > 0)
        assert way.metric("notifyd_last_success_timestamp_seconds", channel="team") <= way.clock() / SECOND
        await holds(way, Wait.RETRY, 1, "mail")
        assert await way.reload(TASKS)
        await holds(way, Wait.CHANNEL_MISSING, 1, "mail")
        assert await way.reload(both)
        way.turn(600)
        await way.ended(2)
        assert await way.reload(TASKS)
        await until(lambda: "mail" not in channels_of(way.metrics))
        assert "team" in channels_of(way.metrics)
        assert await way.reload(both)
        await tasks_done(way, 1)
        await until(lambda: way.metric("notifyd_deliveries_total", channel="mail", outcome="sent") == 1)
        await until(lambda: way.metric("notifyd_delivery_seconds_count", channel="mail") == 1)


async def test_dead_letters_of_a_channel_that_is_gone_are_still_told(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        way.channel().script = [PermanentError("gone")]
        await tasks_done(way, 1)
        await way.ended(1)
        assert await way.reload("")
        await until(
            lambda: way.metrics.registry.get_sample_value("notifyd_backlog", {"channel": "team"}) is None
        )
        assert way.metric("notifyd_dead_letters", channel="team") == 1
        way.metrics.set_dead_letters({})
        way.metrics.keep_channels(["resume"])
        assert "team" not in channels_of(way.metrics)


async def test_a_look_at_channels_of_which_nothing_has_changed_looks_up_no_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count()
    report = tally.Tally.report

    def told(*given: Any) -> None:
        report(*given)
        next(looks)

    monkeypatch.setattr(tally.Tally, "report", told)

    async def looked(way: Flow) -> None:
        for _ in range(3):
            before = next(looks)
            way.app._dispatcher.wake()
            await until(lambda before=before: next(looks) > before + 1)  # type: ignore[misc]

    async with flow(tmp_path, TASKS) as way:
        await tasks_done(way, 1)
        await until(lambda: way.metric("notifyd_deliveries_total", channel="team", outcome="sent") == 1)
        await looked(way)
        found = list[str]()
        for gauge in (way.metrics.backlog, way.metrics.breaker_open, way.metrics.held):
            monkeypatch.setattr(gauge, "labels", partial(_noted, gauge.labels, found))
        monkeypatch.setattr(way.metrics, "keep_channels", lambda _: found.append("keep"))
        await looked(way)
        assert found == []
        assert await way.reload(TASKS.replace("team", "other"))
        await looked(way)
        assert found.count("keep") == 1


class Looks:
    """Looks at one lane, seconds after one another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        monkeypatch.setattr(tally, "_INTERVAL", 1.0)
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        self.metrics, self.lane = Metrics(), Lane("old", "old")
        self._tally = tally.Tally(self.metrics)

    def after(self, seconds: float, known: Collection[str]) -> None:
        self._now += seconds
        self._tally.report([self.lane], known, lambda _: {}, 0)

    def told(self, gauge: str, channel: str) -> float | None:
        return self.metrics.registry.get_sample_value(gauge, {"channel": channel})


def test_the_series_of_a_channel_that_is_gone_before_the_next_look_go_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = Looks(monkeypatch)
    for seconds, change in ((2, 0), (0.1, 1), (2, -1)):
        looks.lane.waiting.add("acme", change)
        looks.after(seconds, {"team"})
    assert looks.told("notifyd_backlog", "team") == 0
    assert looks.told("notifyd_backlog", "old") is None


def test_the_breaker_of_a_channel_that_is_gone_before_the_next_look_goes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = Looks(monkeypatch)
    looks.lane.waiting.add("acme", 1)
    for _ in range(BREAKER_THRESHOLD):
        looks.lane.breaker.failed(0)
    for seconds, known in ((2, {"team"}), (2, {"team"}), (0.1, {"team", "old"}), (2, {"team"})):
        looks.after(seconds, known)
    assert looks.told("notifyd_backlog", "old") == 1
    assert looks.told("notifyd_breaker_open", "old") is None


def _noted(labels: Callable[..., Any], found: list[str], *values: str) -> Any:
    found.append("labels")
    return labels(*values)


def rule_errors(way: Flow) -> dict[str, float]:
    return {one.labels["rule"]: one.value for one in samples(way, "notifyd_rule_errors")}


def samples(way: Flow, name: str, **labels: str) -> list[Sample]:
    """The series of a metric with these labels, but for when each began."""
    found = [
        one for family in way.metrics.registry.collect() if family.name == name for one in family.samples
    ]
    return [
        one for one in found if labels.items() <= one.labels.items() and not one.name.endswith("_created")
    ]


def channels_of(metrics: Metrics) -> set[str]:
    return {
        sample.labels["channel"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "channel" in sample.labels
    }


async def test_a_step_that_the_store_does_not_do_is_counted_by_its_name_and_so_is_the_event(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, RULES) as way:
        way.store.fail("append", 2)
        for _ in range(2):
            with pytest.raises(StoreError):
                await way.ask()
        await way.ask()
        assert way.metric("notifyd_store_errors_total", step="append") == 2
        refused = {"kind": "pack.approval", "outcome": "store_unavailable"}
        assert way.metric("notifyd_events_total", **refused) == 2
        way.store.fail("record", 1)
        await way.ask(runId="run-0043")
        await until(lambda: way.metric("notifyd_store_errors_total", step="record") == 1)


async def test_the_bytes_of_the_store_and_of_its_disk_are_told(tmp_path: Path) -> None:
    async with flow(tmp_path, channels=Channels(), start=False) as way:
        await way.app._count()
        file = tmp_path / "notifyd.db"
        assert way.metric("notifyd_store_bytes", part="database") == file.stat().st_size
        assert way.metric("notifyd_store_bytes", part="log") > 0
        assert way.metric("notifyd_disk_free_bytes") > 0
