"""What a decision sets off, over a real store and a real Task Runner's socket."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import rfc8785
from attrs import evolve

from notifyd.config.units import DAY
from notifyd.errors import NotFoundError, Reason, StoreError
from notifyd.model import (
    RESUME_CHANNEL,
    SECOND,
    Approval,
    AuditName,
    Choice,
    Delivery,
    EffectKind,
    ResumeStatus,
    State,
    Status,
)
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes, verify
from notifyd.store import AttemptRecord, Store
from notifyd.testkit.receivers import Received, Reply, Sink
from notifyd.web.answers import callback_reason
from notifyd.wire.codec import rfc3339
from tests import events
from tests.fakes import RUNNER, SEAL_KEY, TOKEN, Channels, TurnableClock, principal
from tests.flows import Flow, flow, stored_bytes
from tests.waiting import until, until_async

RULES = """
[egress]
allow_private = ["127.0.0.0/8"]

[channels.team]
type = "fake"

[[rules]]
name = "decisions"
when = 'event.kind == "pack.approval" && !(event.action in ["requested", "resumed", "resume_failed"])'
channels = ["team"]

[[rules]]
name = "callbacks"
when = 'event.action in ["resumed", "resume_failed"]'
channels = ["team"]
"""


def config(*sinks: Sink, more: str = "") -> str:
    origins = ", ".join(f'"{sink.url}"' for sink in sinks)
    return f"{RULES}\n[resume]\nallowed_origins = [{origins}]\n{more}"


@pytest.fixture
async def runner() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def way(tmp_path: Path, runner: Sink) -> AsyncIterator[Flow]:
    async with flow(tmp_path, config(runner)) as way:
        yield way


async def ask(way: Flow, runner: Sink, **overrides: Any) -> dict[str, Any]:
    return await way.ask(**{"resume": way.resume(f"{runner.url}/resume/run-0042?x=1")} | overrides)


async def tried(way: Flow, times: int) -> None:
    """Wait until so many attempts are on record: only then does turning the clock not overtake one."""

    async def recorded() -> bool:
        return (await callback(way)).tries >= times

    await until_async(recorded)


async def callback(way: Flow) -> Delivery:
    """The callback's row, as soon as it is there."""

    async def found() -> list[Delivery]:
        return await way.deliveries(channel=RESUME_CHANNEL)

    return (await until_async(found))[0]


async def arrived(runner: Sink, count: int = 1) -> list[Received]:
    await until(lambda: len(runner.received) >= count)
    return runner.received


async def resumed(way: Flow, document: dict[str, Any], status: ResumeStatus) -> Approval:
    async def found() -> Approval | None:
        approval = await way.approval(document)
        return approval if approval.resume is status else None

    approval = await until_async(found)
    assert approval is not None
    return approval


# --- the callback ------------------------------------------------------------------------------------------


async def test_the_callback_is_what_the_contract_says_and_its_signature_verifies(
    way: Flow, runner: Sink
) -> None:
    document = await ask(way, runner, requiredApprovals=2)
    way.clock.turn(5)
    await way.decide(document, comment="fine")
    answer = await way.decide(document, actor="bob@acme.example", comment="Grüezi")
    (received,) = await arrived(runner)
    assert (received.method, received.path) == ("POST", "/resume/run-0042?x=1")
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["X-Correlation-ID"] == "corr-1"
    assert received.headers["webhook-id"] == answer["resume"]["deliveryId"]
    verify([secret_bytes(RUNNER)], received.headers, received.body, way.clock() / SECOND, 0)
    decided_at = rfc3339(way.clock())
    assert orjson.loads(received.body) == {
        "type": "pack.approval.decided",
        "timestamp": decided_at,
        "data": {
            "tenant": "acme",
            "runId": "run-0042",
            "approvalId": "deploy-prod",
            "planHash": document["planHash"],
            "decision": "approved",
            "decisionHash": answer["decision"]["decisionHash"],
            "actors": ["alice@acme.example", "bob@acme.example"],
            "comment": "Grüezi",
            "decidedAt": decided_at,
            "correlationId": "corr-1",
            "resumeToken": TOKEN.reveal(),
        },
    }


async def test_a_rejection_names_who_rejected_alone(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, requiredApprovals=3)
    await way.decide(document)
    await way.decide(document, actor="bob@acme.example", choice=Choice.REJECTED)
    (received,) = await arrived(runner)
    data = orjson.loads(received.body)["data"]
    assert (data["decision"], data["actors"]) == ("rejected", ["bob@acme.example"])


async def test_the_callback_tells_who_counted_in_which_group(way: Flow, runner: Sink) -> None:
    groups = [
        {"name": "Security", "grant": "Sec", "required": 1},
        {"name": "Operations", "grant": "Packs.Approve", "required": 1},
    ]
    document = await ask(way, runner, approvalGroups=groups)
    await way.decide(document, grants=frozenset({"Packs.Approve", "Sec"}))
    await way.decide(document, actor="bob@acme.example")
    (received,) = await arrived(runner)
    told = [(one["name"], one["actors"]) for one in orjson.loads(received.body)["data"]["groups"]]
    assert told == [("Security", ["alice@acme.example"]), ("Operations", ["bob@acme.example"])]


async def test_the_callback_tells_what_was_filled_in_and_that_the_glass_was_broken(
    way: Flow, runner: Sink
) -> None:
    inputs = [{"name": "replicas", "type": "number", "default": 3}, {"name": "note", "type": "text"}]
    document = await ask(way, runner, inputs=inputs, requiredApprovals=2)
    grants = frozenset({"Packs.Approve", "Packs.BreakGlass"})
    await way.decide(document, grants=grants, break_glass=True, inputs={"note": "now"})
    (received,) = await arrived(runner)
    data = orjson.loads(received.body)["data"]
    assert (data["inputs"], data["breakGlass"]) == ({"replicas": 3, "note": "now"}, True)


async def test_the_callback_tells_for_whom_a_deputy_decided(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, requiredApprovals=2)
    await way.decide(document)
    await way.decide(document, actor="bruno@acme.example", on_behalf_of="bob@acme.example")
    (received,) = await arrived(runner)
    data = orjson.loads(received.body)["data"]
    assert data["actors"] == ["alice@acme.example", "bruno@acme.example"]
    assert data["onBehalfOf"] == {"bruno@acme.example": "bob@acme.example"}


async def test_who_approved_an_earlier_plan_is_not_among_the_actors(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, requiredApprovals=2)
    await way.decide(document)
    way.clock.turn(1)
    plan = "sha256:" + "b" * 64
    await ask(way, runner, planHash=plan)
    await way.decide(document, actor="bob@acme.example", plan_hash=plan, round=2)
    (received,) = await arrived(runner)
    data = orjson.loads(received.body)["data"]
    assert (data["planHash"], data["actors"]) == (plan, ["bob@acme.example"])


async def test_the_callback_is_sent_once_and_its_end_is_told_to_all(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner)
    await way.decide(document)
    await resumed(way, document, ResumeStatus.DELIVERED)
    acknowledged, told = await way.messages(2)
    assert (acknowledged.event["action"], told.event["action"]) == ("acknowledged", "resumed")
    assert told.event["resume"] == {"status": "delivered"}
    assert told.event["labels"] == document["labels"]
    await way.sweep()
    await way.ended(3)
    assert len(runner.received) == 1
    names = [line.name for line in await way.audit()]
    assert names.count(AuditName.RESUME_DELIVERED) == 1
    assert AuditName.NOTIFICATION_SENT in names


async def test_who_lost_a_callbacks_lease_keeps_the_attempt_and_tells_nobody_of_an_end(
    way: Flow, runner: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """How the callback ends is for its new holder to say: the old one plans no event that is not stored."""
    record, lost = way.store.record, list[bool]()

    async def late(given: AttemptRecord) -> bool:
        stale = evolve(given.delivery, fencing_token=given.delivery.fencing_token + 1)
        lost.append(not await record(evolve(given, delivery=stale)))
        return not lost[-1]

    document = await ask(way, runner)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(way.store, "record", late, raising=False)
        await way.decide(document)
        await until(lambda: len(lost) == 2)  # that people were told, and the callback
    await way.sweep()
    row = await callback(way)
    assert lost == [True, True]
    assert (row.state.open, row.tries, [one.status for one in row.attempts]) == (True, 0, [200])
    assert (await way.approval(document)).resume is ResumeStatus.QUEUED
    assert {line.name for line in await way.audit()} == {AuditName.REQUESTED, AuditName.ACKNOWLEDGED}
    assert [one.event["action"] for one in await way.messages(1)] == ["acknowledged"]
    assert way.metric("notifyd_deliveries_total", channel=RESUME_CHANNEL, outcome="sent") == 0
    assert "ERROR" not in {one.levelname for one in caplog.records}


async def test_the_callbacks_row_shows_no_token_and_its_message_is_sealed(
    tmp_path: Path, way: Flow, runner: Sink
) -> None:
    document = await ask(way, runner)
    await way.decide(document)
    row = await callback(way)
    assert row.sealed
    assert TOKEN.reveal() not in repr(row)
    assert row.lane == f"resume:{runner.url}"
    assert (row.deadline - row.created_at, row.recipient) == (7 * DAY, None)
    await resumed(way, document, ResumeStatus.DELIVERED)
    assert TOKEN.reveal().encode() not in stored_bytes(tmp_path)


async def test_the_configured_secrets_sign_where_there_are_some(tmp_path: Path, runner: Sink) -> None:
    old, new = "whsec_" + "A" * 32, "whsec_" + "B" * 32
    async with flow(tmp_path, config(runner, more=f'secrets = ["{new}", "{old}"]\n')) as way:
        await way.decide(await ask(way, runner))
        (received,) = await arrived(runner)
        for secret in (old, new):
            key = secret_bytes(Secret(secret))
            verify([key], received.headers, received.body, way.clock() / SECOND, 0)


async def test_an_update_that_ends_an_approval_calls_nobody_back(way: Flow, runner: Sink) -> None:
    await ask(way, runner)
    await way.post(events.updated("approved", at=way.clock()))
    (message,) = await way.messages(1)
    assert message.event["action"] == "updated"
    await way.sweep()
    assert await way.deliveries(channel=RESUME_CHANNEL) == []
    assert not runner.received


# --- when it does not arrive -------------------------------------------------------------------------------


async def test_a_runner_that_is_down_gets_the_same_bytes_later(way: Flow, runner: Sink) -> None:
    runner.reply = Reply(503)
    document = await ask(way, runner)
    await way.decide(document)
    await arrived(runner)
    row = await callback(way)

    async def again() -> bool:
        return len((await way.delivery(row.id)).attempts) == 1

    await until_async(again)
    runner.reply = Reply(200)
    way.turn(2)
    first, second = await arrived(runner, 2)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    await resumed(way, document, ResumeStatus.DELIVERED)


async def test_a_callback_that_is_refused_for_good_is_told_replayed_and_told_again(
    way: Flow, runner: Sink
) -> None:
    runner.reply = Reply(410)
    document = await ask(way, runner)
    await way.decide(document)
    await resumed(way, document, ResumeStatus.FAILED)
    row = await callback(way)
    assert (row.state, row.reason) == (State.DEAD, Reason.NOT_FOUND)
    told = (await way.messages(2))[1]
    assert told.event["action"] == "resume_failed"
    assert told.event["resume"] == {"status": "failed", "reason": "not_found", "answered": 410}
    assert "The runner answered 410: it may still be waiting." in told.body
    for times in (2, 3):  # by hand, and it fails once more
        await way.app._services.replays.retry("acme", row.id)
        await arrived(runner, times)
        assert (await way.messages(times + 1))[times].event["action"] == "resume_failed"
    runner.reply = Reply(200)
    await way.app._services.replays.retry("acme", row.id)
    await resumed(way, document, ResumeStatus.DELIVERED)
    assert (await way.messages(5))[4].event["action"] == "resumed"
    trail = [line.name for line in await way.audit()]
    assert trail.count(AuditName.RESUME_DEAD) == 3
    assert trail.count(AuditName.RESUME_DELIVERED) == 1


async def test_a_callback_waits_for_its_runner_for_days_and_then_is_given_up(
    tmp_path: Path, runner: Sink
) -> None:
    runner.reply = Reply(503)
    more = 'max_age = "2h"\n[dispatch]\nmax_attempts = 1000\nmax_age = "1m"\n'
    async with flow(tmp_path, config(runner, more=more)) as way:
        document = await ask(way, runner)
        await way.decide(document)
        await arrived(runner)
        await tried(way, 1)
        way.turn(3600)
        await arrived(runner, 2)
        await tried(way, 2)
        way.turn(3601)
        await resumed(way, document, ResumeStatus.FAILED)
        row = await callback(way)
        assert (row.state, row.reason) == (State.DEAD, Reason.MAX_AGE)


async def test_a_redirect_is_not_followed(way: Flow, runner: Sink) -> None:
    async with Sink() as elsewhere:
        runner.reply = Reply(307, headers={"Location": elsewhere.url})
        document = await ask(way, runner)
        await way.decide(document)
        await resumed(way, document, ResumeStatus.FAILED)
        assert not elsewhere.received


async def test_each_origin_has_a_lane_and_a_breaker_of_its_own(tmp_path: Path, runner: Sink) -> None:
    async with Sink() as dead, flow(tmp_path, config(runner, dead)) as way:
        dead.silent = True
        for number in range(6):
            await way.decide(await ask(way, dead, runId=f"dead-{number}"))
        await until(lambda: len(dead.received) == 4)  # as many as run at once
        await way.decide(await ask(way, runner, runId="alive"))
        await arrived(runner)
        lanes = way.app._dispatcher._lanes
        assert {f"resume:{dead.url}", f"resume:{runner.url}"} <= lanes.keys()
        assert lanes[f"resume:{dead.url}"].breaker is not lanes[f"resume:{runner.url}"].breaker
        await way.app._dispatcher.drain(0.01)


# --- what is not allowed any more --------------------------------------------------------------------------

NO_ORIGIN = RULES + '\n[resume]\nallowed_origins = ["https://elsewhere.example"]\n'


def no_private(runner: Sink) -> str:
    return config(runner).replace('allow_private = ["127.0.0.0/8"]', "allow_private = []")


async def shown(way: Flow, document: dict[str, Any]) -> Reason | None:
    """Why its callback waits, as GET and the page tell."""
    return await callback_reason(await way.approval(document), cast(Store, way.store), way.current())


async def held_back(way: Flow, document: dict[str, Any]) -> None:
    """The callback is there, and the dispatcher has had its chances to send it."""
    await callback(way)
    for _ in range(3):
        way.turn(70)
        await until(lambda: not way.app._dispatcher._wake.is_set())
    assert (await way.approval(document)).resume is ResumeStatus.QUEUED
    assert await shown(way, document) is Reason.NOT_ALLOWED
    assert (await callback(way)).tries == 0


@pytest.mark.parametrize("forbidden", ["origin", "address"])
async def test_a_callback_that_is_not_allowed_any_more_waits_and_goes_once_it_is(
    tmp_path: Path, runner: Sink, forbidden: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, config(runner)) as way:
        document = await ask(way, runner)
        assert await way.reload(NO_ORIGIN if forbidden == "origin" else no_private(runner))
        await way.decide(document)
        await held_back(way, document)
        assert not runner.received
        told = [
            line
            for line in caplog.messages
            if line.startswith("1 delivery to resume:") and " waits: " in line
        ]
        assert len(told) == 1
        assert await way.reload(config(runner))
        await resumed(way, document, ResumeStatus.DELIVERED)
        assert await shown(way, document) is None
        assert len(runner.received) == 1


async def test_a_callback_that_was_to_be_tried_again_is_not_once_it_is_not_allowed(
    tmp_path: Path, runner: Sink
) -> None:
    runner.reply = Reply(503)
    async with flow(tmp_path, config(runner)) as way:
        document = await ask(way, runner)
        await way.decide(document)
        await tried(way, 1)
        runner.reply = Reply()
        assert await way.reload(NO_ORIGIN)
        way.turn(3600)
        await until(lambda: not way.app._dispatcher._wake.is_set())
        assert await shown(way, document) is Reason.NOT_ALLOWED
        assert len(runner.received) == 1
        assert await way.reload(config(runner))
        await resumed(way, document, ResumeStatus.DELIVERED)


async def test_a_dead_callback_that_is_replayed_waits_where_it_is_not_allowed_any_more(
    tmp_path: Path, runner: Sink
) -> None:
    runner.reply = Reply(404)
    async with flow(tmp_path, config(runner)) as way:
        document = await ask(way, runner)
        await way.decide(document)
        await resumed(way, document, ResumeStatus.FAILED)
        runner.reply = Reply()
        assert await way.reload(NO_ORIGIN)
        await way.app._services.replays.retry("acme", (await callback(way)).id)
        way.turn(70)
        await until(lambda: not way.app._dispatcher._wake.is_set())
        assert await shown(way, document) is Reason.NOT_ALLOWED
        assert len(runner.received) == 1
        assert await way.reload(config(runner))
        await resumed(way, document, ResumeStatus.DELIVERED)


async def test_a_callback_that_is_not_allowed_for_too_long_is_dead_and_listed(
    tmp_path: Path, runner: Sink
) -> None:
    async with flow(tmp_path, config(runner)) as way:
        document = await ask(way, runner)
        assert await way.reload(NO_ORIGIN)
        await way.decide(document)
        await held_back(way, document)
        way.turn(7 * 86400)
        await resumed(way, document, ResumeStatus.FAILED)
        assert await shown(way, document) is Reason.MAX_AGE
        assert not runner.received


async def test_a_restart_under_another_configuration_sends_no_callback_that_it_does_not_allow(
    tmp_path: Path, runner: Sink
) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, config(runner), clock=clock, start=False) as way:
        document = await ask(way, runner)
        await way.decide(document)
    async with flow(tmp_path, NO_ORIGIN, clock=clock) as way:
        await way.sweep()
        await held_back(way, document)
        assert not runner.received


async def unsigned(way: Flow, runner: Sink) -> dict[str, Any]:
    """A decided request of a client without a secret, once its callback says that it waits for one."""
    document = way.requested(resume=way.resume(f"{runner.url}/resume"))
    await way.post(document, by=principal("by-certificate"))
    await way.decide(document)

    async def waits() -> bool:
        return await shown(way, document) is Reason.SECRET_MISSING

    await until_async(waits)
    row = await callback(way)
    assert (row.state, row.tries, row.attempts) == (State.PENDING, 0, ())
    return document


async def test_a_callback_that_nothing_can_sign_waits_and_goes_once_there_is_a_secret(
    tmp_path: Path, runner: Sink
) -> None:
    async with flow(tmp_path, config(runner)) as way:
        document = await unsigned(way, runner)
        assert not runner.received
        other = await ask(way, runner, runId="signed")
        await way.decide(other)
        await resumed(way, other, ResumeStatus.DELIVERED)
        secrets = f'secrets = ["{RUNNER.reveal()}"]'
        assert await way.reload(config(runner).replace("[resume]", f"[resume]\n{secrets}"))
        way.turn(5)
        await resumed(way, document, ResumeStatus.DELIVERED)
        assert await shown(way, document) is None


async def test_a_callback_that_nothing_can_sign_for_too_long_is_dead_and_listed(
    tmp_path: Path, runner: Sink
) -> None:
    async with flow(tmp_path, config(runner)) as way:
        document = await unsigned(way, runner)
        way.turn(7 * 86400)
        await resumed(way, document, ResumeStatus.FAILED)
        assert await shown(way, document) is Reason.MAX_AGE
        assert not runner.received


# --- effects, however the daemon ends ----------------------------------------------------------------------

STEPS = list(range(7))
"""How many of the six steps were done before the crash: three effects, each done and then completed."""


@pytest.mark.parametrize("done", STEPS)
async def test_effects_are_finished_by_the_next_life_wherever_the_last_one_ended(
    tmp_path: Path, runner: Sink, done: int
) -> None:
    clock, channels = TurnableClock(), Channels()
    async with flow(tmp_path, config(runner), clock=clock, channels=channels, start=False) as way:
        document = await ask(way, runner)
        await way.decide(document)
        approval = await way.approval(document)
        kinds = [effect.kind for effect in approval.effects]
        assert kinds == [EffectKind.AUDIT, EffectKind.NOTICE, EffectKind.RESUME]
        steps = itertools.islice(_steps(way, approval), done)
        for step in steps:
            await step
    async with flow(tmp_path, config(runner), clock=clock, channels=channels) as way:
        await way.sweep()
        await resumed(way, document, ResumeStatus.DELIVERED)
        assert (await way.approval(document)).effects == ()
        await way.ended(2)
        way.turn(1)  # what was planned together with it waits for it to be sent
        actions = [message.event["action"] for message in await way.messages(2)]
        assert actions == ["acknowledged", "resumed"]
        assert len(runner.received) == 1
        trail = [line.name for line in await way.audit()]
        assert trail.count(AuditName.ACKNOWLEDGED) == 1
        assert trail.count(AuditName.RESUME_DELIVERED) == 1


def _steps(way: Flow, approval: Approval) -> Any:
    for effect in approval.effects:
        yield way.app._effects._do(approval, effect)
        yield way.store.complete_effect(approval.key, effect.id)


async def test_settling_twice_at_once_makes_each_row_once(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner)
    await way.decide(document)
    approval = evolve(await way.approval(document))
    await asyncio.gather(*(way.app._effects.settle(approval) for _ in range(5)))
    await resumed(way, document, ResumeStatus.DELIVERED)
    await way.ended(3)
    assert len(runner.received) == 1
    assert len(await way.deliveries()) == 3
    trail = [line.name for line in await way.audit()]
    assert trail.count(AuditName.ACKNOWLEDGED) == 1


@pytest.mark.parametrize("operation", ["write_audit", "append", "insert_deliveries", "complete_effect"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_store_that_fails_between_two_effects_delays_them(
    tmp_path: Path, runner: Sink, operation: str, after: bool
) -> None:
    async with flow(tmp_path, config(runner), start=False) as way:
        document = await ask(way, runner)
        await way.decide(document)
        way.store.fail(operation, times=1, after=after)
        await way.app._effects.sweep()
        done = after and operation == "complete_effect"  # and the others are not held up
        assert ((await way.approval(document)).effects == ()) is done
        way.start()
        way.turn(2)
        await way.app._effects.sweep()
        way.app._dispatcher._counted -= 60
        await way.app._planner.sweep()
        way.turn(61)  # what was leased by a step whose answer was lost
        await way.app._planner.sweep()
        await resumed(way, document, ResumeStatus.DELIVERED)
        assert len(runner.received) == 1
        assert (await way.approval(document)).effects == ()


@pytest.mark.parametrize("undo", ["0s", "30s"])
async def test_a_clock_that_is_set_back_holds_up_no_callback(tmp_path: Path, runner: Sink, undo: str) -> None:
    text = config(runner) + f'[approvals]\nundo = "{undo}"\n'
    async with flow(tmp_path, text, start=False) as way:
        document = await ask(way, runner)
        await way.decide(document)
        if undo == "0s":
            way.store.fail("insert_deliveries", times=1)
            await way.app._effects.sweep()  # what failed is put off
            assert (await way.approval(document)).effects != ()
        way.turn(-3600)
        await way.app._effects.sweep()
        assert (await way.approval(document)).effects == ()


@pytest.mark.long
async def test_more_approvals_than_one_look_finds_are_settled_in_one_sweep(
    tmp_path: Path, runner: Sink
) -> None:
    async with flow(tmp_path, config(runner), start=False) as way:
        for number in range(120):
            await way.decide(await ask(way, runner, runId=f"run-{number}"))
        assert await way.app._effects.sweep() == 120
        assert await way.store.owing_approvals(way.clock(), 1000) == []


async def test_an_approval_whose_effects_cannot_be_settled_holds_up_none_of_the_others(
    tmp_path: Path, runner: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, config(runner), clock=clock, start=False) as way:
        stuck = await ask(way, runner, runId="stuck")
        await way.decide(stuck)
    other = b"another key, of 32 bytes as well"
    async with flow(tmp_path, config(runner), clock=clock, start=False, seal_key=other) as way:
        fine = await ask(way, runner, runId="fine")
        await way.decide(fine)
        assert await way.app._effects.sweep() == 2
        (effect,) = (await way.approval(stuck)).effects
        assert (effect.kind, effect.tries, effect.dead) == (EffectKind.RESUME, 1, False)
        assert effect.next_attempt_at > way.clock()
        assert (await way.approval(fine)).effects == ()
        assert f"effect {effect.id} of stuck/deploy-prod waits" in caplog.text


@pytest.mark.long
async def test_a_hundred_approvals_that_cannot_be_settled_starve_none_behind_them(
    tmp_path: Path, runner: Sink
) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, config(runner), clock=clock, start=False) as way:
        for number in range(101):
            await way.decide(await ask(way, runner, runId=f"stuck-{number}"))
    other = b"another key, of 32 bytes as well"
    async with flow(tmp_path, config(runner), clock=clock, start=False, seal_key=other) as way:
        fine = await ask(way, runner, runId="fine")
        await way.decide(fine)
        assert await way.app._effects.sweep() == 102
        assert (await way.approval(fine)).effects == ()
        assert await way.app._effects.sweep() == 0  # nothing is due again at once


async def test_a_callback_that_can_never_be_made_is_dead_told_listed_and_taken_up_by_hand(
    tmp_path: Path, runner: Sink
) -> None:
    clock, channels = TurnableClock(), Channels()
    more = "[dispatch]\nmax_attempts = 3\n"
    async with flow(tmp_path, config(runner, more=more), clock=clock, start=False) as way:
        document = await ask(way, runner)
        await way.decide(document)
    key, other = SEAL_KEY, b"another key, of 32 bytes as well"
    text = config(runner, more=more)
    async with flow(tmp_path, text, clock=clock, channels=channels, seal_key=other) as way:
        for _ in range(4):
            await way.app._effects.sweep()
            way.turn(60)
        approval = await way.approval(document)
        (dead,) = approval.dead_effects
        assert (approval.resume, approval.effects_due_at) == (ResumeStatus.FAILED, None)
        assert (dead.kind, dead.tries) == (EffectKind.RESUME, 3)
        assert "key" in dead.fault
        assert way.metric("notifyd_approvals_with_dead_effects") == 1
        told = [message.event["action"] for message in await way.messages(2)]
        assert told == ["acknowledged", "resume_failed"]
        trail = [line.name for line in await way.audit()]
        assert trail.count(AuditName.RESUME_DEAD) == 1
        with pytest.raises(NotFoundError):
            await way.app._effects.retry("globex", dead.id)
    async with flow(tmp_path, text, clock=clock, channels=channels, seal_key=key) as way:
        await way.app._effects.retry("acme", dead.id)
        await resumed(way, document, ResumeStatus.DELIVERED)
        assert len(runner.received) == 1
        assert way.metric("notifyd_approvals_with_dead_effects") == 0
        with pytest.raises(NotFoundError):
            await way.app._effects.retry("acme", dead.id)


# --- the timer ---------------------------------------------------------------------------------------------


async def test_what_nobody_decided_in_time_expires_and_people_are_told_once(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, expiresAt=rfc3339(way.clock() + 60 * SECOND))
    assert await way.app._expiry.sweep() == 0
    way.clock.turn(3600)
    assert await way.app._expiry.sweep() == 1
    assert await way.app._expiry.sweep() == 0
    approval = await way.approval(document)
    assert (approval.status, approval.ended_at) == (Status.EXPIRED, way.clock() - 3540 * SECOND)
    (message,) = await way.messages(1)
    assert message.event["action"] == "expired"
    assert message.event["occurredAt"] == document["expiresAt"]
    await way.sweep()
    trail = [line.name for line in await way.audit()]
    assert trail.count(AuditName.EXPIRED) == 1
    assert len(await way.deliveries(channel=RESUME_CHANNEL)) == 1
    assert way.metric("notifyd_approvals_outstanding", tenant="acme") == 0
    assert way.metric("notifyd_approvals_ended_total", status="expired") == 1


def expiry_hash(document: dict[str, Any], round_: int = 1) -> str:
    """As the contract says: that of a decision `expired` by nobody."""
    parts = ["acme", document["runId"], document["approvalId"], round_, document["planHash"], "expired", ""]
    return hashlib.sha256(rfc8785.dumps(parts)).hexdigest()


async def test_an_expiry_is_answered_like_any_end_with_nobody_as_actor(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, requiredApprovals=2, expiresAt=rfc3339(way.clock() + 60 * SECOND))
    await way.decide(document)
    way.clock.turn(3600)
    await way.sweep()
    (received,) = await arrived(runner)
    verify([secret_bytes(RUNNER)], received.headers, received.body, way.clock() / SECOND, 0)
    assert received.headers["X-Correlation-ID"] == "corr-1"
    assert orjson.loads(received.body) == {
        "type": "pack.approval.decided",
        "timestamp": document["expiresAt"],
        "data": {
            "tenant": "acme",
            "runId": "run-0042",
            "approvalId": "deploy-prod",
            "planHash": document["planHash"],
            "decision": "expired",
            "decisionHash": expiry_hash(document),
            "actors": [],
            "comment": "",
            "decidedAt": document["expiresAt"],
            "correlationId": "corr-1",
            "resumeToken": TOKEN.reveal(),
        },
    }
    approval = await resumed(way, document, ResumeStatus.DELIVERED)
    assert (approval.resume_delivery, approval.effects) == (received.headers["webhook-id"], ())
    actions = [message.event["action"] for message in await way.messages(3)]
    assert sorted(actions) == ["acknowledged", "expired", "resumed"]


async def test_what_comes_expired_is_answered_though_nobody_is_asked(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, expiresAt=rfc3339(way.clock() - 60 * SECOND))
    came_at = rfc3339(way.clock())
    way.clock.turn(5)
    await way.sweep()
    (received,) = await arrived(runner)
    told = orjson.loads(received.body)
    assert (told["timestamp"], told["data"]["decidedAt"]) == (came_at, came_at)
    assert (told["data"]["decision"], told["data"]["actors"]) == ("expired", [])
    assert told["data"]["decisionHash"] == expiry_hash(document)
    assert told["data"]["resumeToken"] == TOKEN.reveal()
    await resumed(way, document, ResumeStatus.DELIVERED)
    (message,) = await way.messages(1)
    assert message.event["action"] == "resumed", "nobody was asked, so nobody hears that it expired"
    assert way.metric("notifyd_approvals_ended_total", status="expired") == 1


async def test_a_new_plan_that_comes_expired_is_answered_and_told_to_those_who_were_asked(
    way: Flow, runner: Sink
) -> None:
    await ask(way, runner)
    way.clock.turn(1)
    plan = "sha256:" + "b" * 64
    resume = {"callbackUrl": f"{runner.url}/second", "token": "rt_of_the_second_plan_0123456789"}
    document = await ask(way, runner, planHash=plan, expiresAt=rfc3339(way.clock()), resume=resume)
    await way.sweep()
    (received,) = await arrived(runner)
    data = orjson.loads(received.body)["data"]
    assert (received.path, data["resumeToken"]) == ("/second", resume["token"])
    assert (data["decision"], data["decisionHash"]) == ("expired", expiry_hash(document, round_=2))
    (message, _) = await way.messages(2)
    assert message.event["action"] == "expired"


async def test_a_plan_that_comes_after_the_expiry_leaves_one_answer_to_the_one_who_asked(
    way: Flow, runner: Sink
) -> None:
    document = await ask(way, runner, expiresAt=rfc3339(way.clock() + 60 * SECOND))
    way.clock.turn(61)
    await ask(way, runner, planHash="sha256:" + "b" * 64)
    await way.sweep()
    (received,) = await arrived(runner)
    data = orjson.loads(received.body)["data"]
    assert (data["decision"], data["planHash"]) == ("expired", document["planHash"])
    await resumed(way, document, ResumeStatus.DELIVERED)
    assert len(await way.deliveries(channel=RESUME_CHANNEL)) == 1


async def test_an_end_by_update_is_not_answered(way: Flow, runner: Sink) -> None:
    document = await ask(way, runner, expiresAt=rfc3339(way.clock() + 60 * SECOND))
    await way.post(events.updated("expired", at=way.clock()))
    way.clock.turn(61)
    await way.sweep()
    await way.messages(1)
    assert (await way.approval(document)).resume is ResumeStatus.NONE
    assert await way.deliveries(channel=RESUME_CHANNEL) == []
    assert way.metric("notifyd_approvals_ended_total", status="expired") == 1


async def test_the_answer_to_an_expiry_that_cannot_be_sent_dies_and_is_replayed(
    way: Flow, runner: Sink
) -> None:
    runner.reply = Reply(400)
    document = await ask(way, runner, expiresAt=rfc3339(way.clock() + 60 * SECOND))
    way.clock.turn(61)
    await way.sweep()
    approval = await resumed(way, document, ResumeStatus.FAILED)
    runner.reply = Reply()
    await way.app._services.replays.retry("acme", approval.resume_delivery or "")
    await resumed(way, document, ResumeStatus.DELIVERED)
    assert runner.received[0].body == runner.received[1].body


async def test_more_than_one_look_finds_expire_in_one_sweep(tmp_path: Path, runner: Sink) -> None:
    async with flow(tmp_path, config(runner), start=False) as way:
        expiry = rfc3339(way.clock() + SECOND)
        for number in range(120):
            await ask(way, runner, runId=f"run-{number}", expiresAt=expiry)
        way.clock.turn(2)
        assert await way.app._expiry.sweep() == 120
        assert await way.store.outstanding() == {}


async def test_a_timer_that_meets_a_failing_store_comes_again(tmp_path: Path, runner: Sink) -> None:
    async with flow(tmp_path, config(runner), start=False) as way:
        document = await ask(way, runner, expiresAt=rfc3339(way.clock() + SECOND))
        way.clock.turn(2)
        way.store.fail("replace_approval")
        with pytest.raises(StoreError):
            await way.app._expiry.sweep()
        assert await way.app._expiry.sweep() == 1
        assert (await way.approval(document)).status is Status.EXPIRED


async def test_a_restart_expires_what_came_due_meanwhile(tmp_path: Path, runner: Sink) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, config(runner), clock=clock, start=False) as way:
        document = await ask(way, runner)
    clock.turn(2 * 86400)
    async with flow(tmp_path, config(runner), clock=clock) as way:
        await way.app._expiry.sweep()
        assert (await way.approval(document)).status is Status.EXPIRED
        (message,) = await way.messages(1)
        assert message.event["action"] == "expired"
        (received,) = await arrived(runner)
        assert orjson.loads(received.body)["data"]["decision"] == "expired"
