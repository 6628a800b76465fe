"""Forwarders: every end of an approval is sent through each, durable, and apart from the callback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.model import RESUME_CHANNEL, AuditName, Choice, Delivery, ResumeStatus, State
from notifyd.security.resume_token import CLIENT_LABEL
from notifyd.security.secrets import decrypt, derive_key
from notifyd.security.signing import secret_bytes
from notifyd.testkit.receivers import Sink
from notifyd.wire.codec import rfc3339
from tests import events
from tests.fakes import RUNNER, TOKEN, Channels
from tests.flows import Flow, flow, stored_bytes
from tests.waiting import until, until_async

BUS = "resume.bus"

CONFIG = """
[egress]
allow_private = ["127.0.0.0/8"]

[channels.team]
type = "fake"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["team"]

[resume]
allowed_origins = ["{origin}"]

[resume.forwarders.bus]
type = "bus"

[resume.forwarders.ledger]
type = "bus"
rate_limit = "1/s"
"""


@pytest.fixture
async def runner() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def way(tmp_path: Path, runner: Sink) -> AsyncIterator[Flow]:
    async with flow(tmp_path, CONFIG.format(origin=runner.url)) as way:
        yield way


async def ask(way: Flow, runner: Sink, **overrides: Any) -> dict[str, Any]:
    return await way.ask(**{"resume": way.resume(f"{runner.url}/resume")} | overrides)


async def forwarded(way: Flow, channel: str = BUS) -> dict[str, Any]:
    """The body of the one message that the forwarder was sent."""
    bus = way.channels.of(channel)
    await until(lambda: bus.received)
    (message,) = bus.received
    return orjson.loads(message.body)  # type: ignore[no-any-return]


async def ended(way: Flow, state: State, channel: str = BUS, tries: int = 0) -> Delivery:
    async def found() -> list[Delivery]:
        rows = await way.deliveries(channel=channel)
        return [one for one in rows if one.state is state and one.tries >= tries]

    return (await until_async(found))[0]


async def test_a_forwarder_gets_what_the_callback_tells_with_the_token_sealed(
    tmp_path: Path, way: Flow, runner: Sink
) -> None:
    document = await ask(way, runner)
    await way.decide(document)
    body = await forwarded(way)
    await until(lambda: runner.received)
    called = orjson.loads(runner.received[0].body)
    assert {**body, "data": {**body["data"], "resumeToken": TOKEN.reveal()}} == called
    assert opened(body["data"]["resumeToken"]) == TOKEN.reveal()
    assert TOKEN.reveal().encode() not in stored_bytes(tmp_path)


def opened(token: str) -> str:
    """As Task Runner opens it: under a key derived from its own secret."""
    return decrypt(derive_key(secret_bytes(RUNNER), CLIENT_LABEL), token).decode()


async def test_each_forwarder_has_a_delivery_of_its_own_under_an_id_that_stays(
    way: Flow, runner: Sink
) -> None:
    await way.decide(await ask(way, runner), choice=Choice.REJECTED)
    bodies = [await forwarded(way, name) for name in (BUS, "resume.ledger")]
    assert [body["data"]["decision"] for body in bodies] == ["rejected", "rejected"]
    sent = [await ended(way, State.SENT, name) for name in (BUS, "resume.ledger", RESUME_CHANNEL)]
    assert len({one.id for one in sent}) == 3
    assert way.channels.of(BUS).ids == [sent[0].id]


async def test_an_expiry_is_forwarded(way: Flow, runner: Sink) -> None:
    await ask(way, runner, expiresAt=rfc3339(way.clock() + 60_000_000))
    way.clock.turn(61)
    await way.sweep()
    data = (await forwarded(way))["data"]
    assert (data["decision"], data["actors"]) == ("expired", [])


async def test_an_end_by_the_one_who_asked_is_forwarded_and_not_called_back(way: Flow, runner: Sink) -> None:
    await ask(way, runner)
    await way.post(events.updated("cancelled", at=way.clock(), decidedBy="ci@acme.example"))
    await way.sweep()
    data = (await forwarded(way))["data"]
    assert (data["decision"], data["actors"], data["comment"]) == ("cancelled", ["ci@acme.example"], "")
    assert await way.deliveries(channel=RESUME_CHANNEL) == []


async def test_a_bus_that_is_down_is_tried_again_and_holds_up_no_callback(way: Flow, runner: Sink) -> None:
    bus = way.channels.of(BUS)
    bus.script = [TransientError("the bus is down")]
    await way.decide(await ask(way, runner))
    await until(lambda: runner.received)
    await ended(way, State.PENDING, tries=1)
    way.turn(60)
    assert (await ended(way, State.SENT)).tries == 2
    assert len(set(bus.ids)) == 1
    assert len({message.body for message in bus.received}) == 1


async def test_a_forward_that_is_refused_is_dead_told_and_replayed(way: Flow, runner: Sink) -> None:
    bus = way.channels.of(BUS)
    bus.script = [PermanentError("no such stream", reason=Reason.NOT_FOUND)]
    document = await ask(way, runner)
    await way.decide(document)
    dead = await ended(way, State.DEAD)
    assert AuditName.RESUME_DEAD in [line.name for line in await way.audit()]

    async def delivered() -> bool:
        """Which tells of the callback alone."""
        return (await way.approval(document)).resume is ResumeStatus.DELIVERED

    await until_async(delivered)
    await way.app._services.replays.retry("acme", dead.id)
    await ended(way, State.SENT)


async def test_without_forwarders_an_end_by_update_owes_nothing_for_long(tmp_path: Path) -> None:
    async with flow(tmp_path, channels=Channels()) as way:
        await way.post(events.updated("cancelled", at=way.clock()))
        await way.sweep()
        assert await way.store.owing_approvals(way.clock(), 10) == []
