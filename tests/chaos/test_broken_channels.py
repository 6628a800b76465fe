"""Channels that answer badly, late or not at all: what it does to their deliveries, and not to a neighbour's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from notifyd.testing import Received, Reply, Sink
from tests import events
from tests.daemon import CONFIG, Daemon, daemon
from tests.waiting import until, until_async

pytestmark = pytest.mark.usefixtures("often")

BASE = CONFIG.partition("[channels.inbox]")[0]
SECRET = "whsec_c2VjcmV0LW9mLXRoZS1ob29rLW9mLTMyLWJ5dGVzLiE="


def hook(name: str, sink: Sink, options: str = "") -> str:
    return f"""
[channels.{name}]
type = "webhook"
url = "{sink.url}/{name}"
secret = "{SECRET}"
{options}
[[rules]]
name = "to-{name}"
when = 'event.kind == "task.done"'
channels = ["{name}"]
"""


@asynccontextmanager
async def running(folder: Path, *hooks: str, backoff: str = "10ms..50ms") -> AsyncIterator[Daemon]:
    text = BASE + f'[dispatch]\nbackoff = "{backoff}"\n' + "".join(hooks)
    async with daemon(folder, text) as one:
        yield one


async def post(one: Daemon, count: int = 1) -> None:
    batch = [events.cloud_event(at=one.clock()) for _ in range(count)]
    headers = {"X-Notifyd-Tenant": "acme", "Content_Type": "application/cloudevents-batch+json"}
    assert (await one.post("/api/v1/events", batch, "operator", **headers)).status == 202


async def ledger(one: Daemon, **where: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in where.items())
    items: list[dict[str, Any]] = (await one.get(f"/api/v1/deliveries?limit=200&{query}")).json["items"]
    return items


async def until_sent(one: Daemon, count: int, channel: str = "hook") -> list[dict[str, Any]]:
    async def sent() -> list[dict[str, Any]]:
        items = await ledger(one, state="sent", channel=channel)
        return items if len(items) == count else []

    return await until_async(sent)


async def breaker(one: Daemon, channel: str = "hook") -> bool:
    return f'notifyd_breaker_open{{channel="{channel}"}} 1.0' in (await one.get("/metrics")).text


def ids(sink: Sink) -> list[str]:
    return [received.headers["webhook-id"] for received in sink.received]


class Gated(Sink):
    """Answers once it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def choose(self, received: Received) -> Reply:
        await self.gate.wait()
        return Reply()


class FailingFirst(Sink):
    """Answers 503 so often, with a page that repeats what it was sent, then 200."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def choose(self, received: Received) -> Reply:
        self.failures -= 1
        return Reply(503, lambda one: one.echo() * 50 + SECRET) if self.failures >= 0 else Reply()


async def test_a_channel_that_answers_503_and_then_200_is_sent_the_same_message_until_it_takes_it(
    tmp_path: Path,
) -> None:
    async with FailingFirst(3) as sink, running(tmp_path, hook("hook", sink)) as one:
        await post(one)
        (item,) = await until_sent(one, 1)
        assert ids(sink) == [item["id"]] * 4
        assert len({received.body for received in sink.received}) == 1
        assert item["tries"] == 4
        attempts = item["attempts"]
        assert [(a["outcome"], a["status"]) for a in attempts] == [("transient", 503)] * 3 + [("sent", 200)]
        for attempt in attempts[:3]:
            assert attempt["reason"] == "server_error"
            assert attempt["durationMs"] > 0
            assert attempt["at"] >= item["createdAt"]
            assert 0 < len(attempt["excerpt"]) <= 1024
            assert SECRET not in attempt["excerpt"]
            assert SECRET.removeprefix("whsec_") not in attempt["excerpt"]


@pytest.mark.parametrize(
    ("trouble", "reason", "timeout"), [("silent", "timeout", "200ms"), ("hangs_up", "network", "10s")]
)
async def test_a_channel_that_hangs_or_resets_is_tried_again_until_it_answers(
    trouble: str, reason: str, timeout: str, tmp_path: Path
) -> None:
    async with Sink() as sink, running(tmp_path, hook("hook", sink, f'timeout = "{timeout}"')) as one:
        setattr(sink, trouble, True)
        await post(one)
        await until(lambda: len(sink.received) >= 2)
        setattr(sink, trouble, False)
        (item,) = await until_sent(one, 1)
        assert {attempt["reason"] for attempt in item["attempts"][:-1]} == {reason}
        assert set(ids(sink)) == {item["id"]}


async def test_a_neighbour_of_a_channel_that_hangs_is_sent_everything_meanwhile(tmp_path: Path) -> None:
    async with Gated() as stuck, Sink() as healthy:
        hooks = hook("stuck", stuck, "concurrency = 2"), hook("healthy", healthy)
        async with running(tmp_path, *hooks) as one:
            await post(one, 50)
            await until_sent(one, 50, "healthy")
            # Not one attempt of the other has ended by then.
            assert len(stuck.received) == 2
            assert {item["state"] for item in await ledger(one, channel="stuck")} <= {"pending", "sending"}
            assert not any(item["attempts"] for item in await ledger(one, channel="stuck"))
            stuck.gate.set()
            await until_sent(one, 50, "stuck")


async def test_a_dead_channel_is_probed_once_in_a_while_and_its_deliveries_spend_no_attempts(
    tmp_path: Path,
) -> None:
    async with Sink() as sink, running(tmp_path, hook("hook", sink, "concurrency = 1")) as one:
        sink.reply = Reply(503)
        await post(one, 20)
        await until_async(lambda: breaker(one))
        await until_async(lambda: _tried(one, 5))
        for probes in range(3):
            assert len(sink.received) == 5 + probes
            assert sum(item["tries"] for item in await ledger(one)) == 5 + probes
            one.clock.turn(5)
            await until(lambda: len(sink.received) == 6 + probes)  # noqa: B023 - awaited in this turn
            await until_async(lambda: _tried(one, 6 + probes))  # noqa: B023 - the same
        assert await breaker(one)

        sink.reply = Reply()
        one.clock.turn(5)
        await until_sent(one, 20)
        assert not await breaker(one)
        assert len(set(ids(sink))) == 20


async def _tried(one: Daemon, count: int) -> bool:
    return bool(sum(item["tries"] for item in await ledger(one)) == count)


# --- a clock that jumps ------------------------------------------------------------------------------------

HOUR = 3600


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_retry_is_made_though_the_clock_has_jumped(jump: int, tmp_path: Path) -> None:
    async with (
        FailingFirst(1) as sink,
        running(tmp_path, hook("hook", sink), backoff="14m..15m") as one,
    ):
        await post(one)
        await until_async(lambda: _tried(one, 1))
        one.clock.turn(jump)
        (item,) = await until_sent(one, 1)
        assert item["tries"] == 2


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_breaker_lets_its_probe_through_though_the_clock_has_jumped(
    jump: int, tmp_path: Path
) -> None:
    async with Sink() as sink, running(tmp_path, hook("hook", sink, "concurrency = 1")) as one:
        sink.reply = Reply(503)
        await post(one, 6)
        await until_async(lambda: breaker(one))
        await until_async(lambda: _tried(one, 5))
        sink.reply = Reply()
        one.clock.turn(jump)

        async def sent() -> bool:
            one.clock.turn(1)
            return len(await ledger(one, state="sent")) == 6

        await until_async(sent)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_rate_limit_goes_on_though_the_clock_has_jumped(jump: int, tmp_path: Path) -> None:
    async with Sink() as sink, running(tmp_path, hook("hook", sink, 'rate_limit = "2/s"')) as one:
        await post(one, 4)
        await until(lambda: len(sink.received) >= 2)
        one.clock.turn(jump)
        await until_sent(one, 4)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_an_attempt_under_way_keeps_its_lease_though_the_clock_jumps(jump: int, tmp_path: Path) -> None:
    async with Gated() as sink, running(tmp_path, hook("hook", sink)) as one:
        await post(one)
        await until(lambda: sink.received)
        one.clock.turn(jump)

        async def shown() -> bool:
            return bool(await ledger(one, state="sending"))

        await until_async(shown)
        sink.gate.set()
        (item,) = await until_sent(one, 1)
        assert len(sink.received) == 1
        assert item["tries"] == 1


# --- backpressure ------------------------------------------------------------------------------------------

PLANNED_AT_ONCE = 64
"""Events between memory and backlog, which neither counts."""


async def test_past_the_longest_backlog_ingest_is_refused_for_a_while_and_nothing_accepted_is_lost(
    tmp_path: Path,
) -> None:
    async with Gated() as sink:
        text = BASE + "[dispatch]\nmax_backlog = 40\n" + hook("hook", sink)
        async with daemon(tmp_path, text) as one:
            accepted: list[str] = []
            headers = {"X-Notifyd-Tenant": "acme"}
            while True:
                event = events.cloud_event(at=one.clock())
                answer = await one.post("/api/v1/events", event, "operator", **headers)
                if answer.status != 202:
                    break
                accepted.append(event["id"])
            assert answer.status == 429
            assert answer.json["code"] == "overloaded"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert 40 <= len(accepted) <= 40 + PLANNED_AT_ONCE
            assert len(sink.received) <= 4

            sink.gate.set()
            await until_sent(one, len(accepted))
            assert len(set(ids(sink))) == len(accepted)
            assert (await one.post("/api/v1/events", event, "operator", **headers)).status == 202
