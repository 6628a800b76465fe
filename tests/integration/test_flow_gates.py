"""Gates: a plugin asks for another system, and is sent the end as its answer, durable like a callback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from notifyd.errors import ConfigError, InvalidError, PermanentError, Reason, TransientError
from notifyd.model import GATE_ANSWER, RESUME_CHANNEL, Choice, Delivery, ResumeStatus, State
from notifyd.plugin import ChannelContext, ChannelType, hookimpl
from notifyd.registry.discovery import discover
from notifyd.web.gates import asking
from notifyd.wire.codec import rfc3339
from tests import events
from tests.daemon import CONFIG, daemon
from tests.fakes import Channels, NoOptions, registry, settings
from tests.flows import Flow, flow, stored_bytes
from tests.waiting import until, until_async

pytestmark = pytest.mark.usefixtures("templates_once")

DOOR = "resume.deployments"
KEPT = '{"run": 15891, "environment": "production"}'

FLOW = """
[channels.team]
type = "fake"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["team"]

[channels.ends]
type = "fake"

[[rules]]
name = "ends"
when = 'event.kind == "pack.approval" && event.action in ["resumed", "resume_failed"]'
channels = ["ends"]

[approvals]
return_resume_token = "plain"

[resume.forwarders.deployments]
type = "door"
tenant = "acme"

[resume.forwarders.other]
type = "door"
tenant = "globex"

[resume.forwarders.bus]
type = "bus"
"""


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Flow]:
    async with flow(tmp_path, FLOW) as way:
        yield way


def asked(way: Flow, **overrides: Any) -> dict[str, Any]:
    """What a gate hands in: no tenant, and no address to call back."""
    document = events.requested(at=way.clock(), **{"resume": {"token": KEPT}} | overrides)
    return {name: value for name, value in document.items() if name != "tenant"}


async def ask(way: Flow, name: str = DOOR, **overrides: Any) -> dict[str, Any]:
    document = asked(way, **overrides)
    await hand_in(way, document, name)
    return document | {"tenant": {"id": "acme"}}


async def hand_in(way: Flow, document: dict[str, Any], name: str = DOOR) -> None:
    await asking(way.app._services, way.current().channels[name])(document)


async def answered(way: Flow) -> dict[str, Any]:
    """The one end that the gate was sent."""
    gate = way.channels.of(DOOR)
    await until(lambda: gate.received)
    (message,) = gate.received
    return orjson.loads(message.body)["data"]  # type: ignore[no-any-return]


async def answer(way: Flow, state: State, tries: int = 0) -> Delivery:
    """The answer in that state, after so many attempts at least."""

    async def found() -> list[Delivery]:
        rows = await way.deliveries(channel=DOOR)
        return [one for one in rows if one.state is state and one.tries >= tries]

    return (await until_async(found))[0]


async def told_of(way: Flow, document: dict[str, Any], status: ResumeStatus) -> None:
    async def found() -> bool:
        return (await way.approval(document)).resume is status

    await until_async(found)


async def test_what_a_gate_asks_is_decided_and_the_end_goes_back_through_it_once(
    tmp_path: Path, way: Flow
) -> None:
    document = await ask(way)
    await way.messages(1)
    await way.decide(document, comment="after the tests")
    data = await answered(way)
    assert (data["decision"], data["actors"]) == ("approved", ["alice@acme.example"])
    assert (data["comment"], data["resumeToken"]) == ("after the tests", KEPT)
    assert (await answer(way, State.SENT)).action == GATE_ANSWER
    await told_of(way, document, ResumeStatus.DELIVERED)
    assert await way.deliveries(channel=RESUME_CHANNEL) == []
    assert KEPT.encode() not in stored_bytes(tmp_path)
    assert b"15891" not in stored_bytes(tmp_path)


async def test_rules_see_the_event_as_any_other_and_that_the_gate_was_told(way: Flow) -> None:
    await way.decide(await ask(way))
    (seen,) = await way.messages(1)
    assert seen.event["resume"] == {"callbackUrl": "gate:deployments?type=door"}
    (told,) = await way.messages(1, "ends")
    assert (told.event["action"], told.event["resume"]["status"]) == ("resumed", "delivered")


async def test_each_end_but_its_own_is_spared_a_gate_and_forwarders_hear_of_it_without_what_it_keeps(
    way: Flow,
) -> None:
    await way.decide(await ask(way), choice=Choice.REJECTED)
    assert (await answered(way))["decision"] == "rejected"
    bus = way.channels.of("resume.bus")
    await until(lambda: bus.received)
    assert orjson.loads(bus.received[0].body)["data"]["resumeToken"] is None
    await way.post(events.updated("cancelled", at=way.clock(), runId="run-of-a-client"))
    await way.sweep()
    await until(lambda: len(bus.received) == 2)
    assert len(way.channels.of(DOOR).received) == 1
    assert way.channels.of("resume.other").received == []


async def test_an_expiry_and_a_break_glass_are_told(way: Flow) -> None:
    await ask(way, expiresAt=rfc3339(way.clock() + 60_000_000))
    way.clock.turn(61)
    await way.sweep()
    data = await answered(way)
    assert (data["decision"], data["actors"], data["resumeToken"]) == ("expired", [], KEPT)
    way.channels.of(DOOR).received.clear()
    grants = frozenset({"Packs.Approve", "Packs.BreakGlass"})
    document = await ask(way, runId="run-2", requiredApprovals=3)
    await way.decide(document, break_glass=True, grants=grants)
    data = await answered(way)
    assert (data["decision"], data["breakGlass"]) == ("approved", True)


async def test_an_answer_that_does_not_come_through_is_tried_again_dies_and_is_replayed(way: Flow) -> None:
    gate = way.channels.of(DOOR)
    gate.script = [TransientError("away"), PermanentError("gone", reason=Reason.NOT_FOUND)]
    document = await ask(way)
    await way.decide(document)
    await answer(way, State.PENDING, tries=1)
    way.turn(60)
    dead = await answer(way, State.DEAD)
    await told_of(way, document, ResumeStatus.FAILED)
    await way.app._services.replays.retry("acme", dead.id)
    await told_of(way, document, ResumeStatus.DELIVERED)
    assert len(set(gate.ids)) == 1


async def test_the_tenant_is_that_of_the_configuration_whatever_the_event_names(way: Flow) -> None:
    await hand_in(way, asked(way) | {"tenant": {"id": "globex"}})
    (message,) = await way.messages(1)
    assert message.event["tenant"] == {"id": "acme"}


async def test_the_same_event_again_changes_nothing_and_another_under_its_id_is_refused(way: Flow) -> None:
    document = asked(way)
    for _ in range(3):
        await hand_in(way, document)
    with pytest.raises(PermanentError, match="known with another content"):
        await hand_in(way, document | {"runId": "run-9"})
    await way.messages(1)
    await way.sweep()
    assert len(way.channel().received) == 1


BROKEN: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"planHash": "no hash"}, "/planHash"),
    ({"resume": None}, "/resume"),
    ({"resume": {}}, "/resume/token"),
    ({"type": "PackEverything"}, "/type"),
    ({"unheard": 1}, "/unheard"),
    ({"occurredAt": "2020-01-01T00:00:00Z"}, "older than"),
    ({"labels": {"a": object()}}, "not JSON"),
    ({"labels": {"a": "\ud800"}}, "not JSON"),
)


async def test_what_breaks_the_contract_is_refused_with_its_place(way: Flow) -> None:
    for changes, fault in BROKEN:
        with pytest.raises(PermanentError, match=fault):
            await hand_in(way, asked(way) | changes)
    assert await way.unplanned() == []


async def test_a_store_that_is_away_says_that_it_can_be_handed_in_later(way: Flow) -> None:
    way.store.fail("append")
    document = asked(way)
    with pytest.raises(TransientError):
        await hand_in(way, document)
    await hand_in(way, document)
    await way.messages(1)


async def test_a_channel_that_is_no_gate_hands_in_nothing(way: Flow) -> None:
    for name in ("team", "resume.bus"):
        with pytest.raises(PermanentError, match="only a gate"):
            await hand_in(way, asked(way), name)


async def test_nobody_else_can_have_an_end_sent_to_a_gate_or_end_what_it_asked(way: Flow) -> None:
    for url in ("gate:deployments?type=door", "gate:task-runner?type=door", "gate:"):
        with pytest.raises(InvalidError):
            await way.post(way.requested(resume=way.resume(url)))
    document = await ask(way)
    await way.post(events.updated("approved", at=way.clock(), planHash=document["planHash"]))
    assert (await way.approval(document)).status.value == "pending"


async def test_whoever_decides_is_not_handed_what_the_gate_keeps(way: Flow) -> None:
    document = await ask(way)
    given = await way.decide_raw(document)
    way.channels.of(DOOR)
    again = await way.app._services.decisions.decide(way.ballot(document), private=True)
    for body in (given, again):
        assert orjson.loads(body)["resume"]["token"] is None


async def test_an_answer_waits_for_a_gate_that_is_gone_and_goes_when_it_is_back(way: Flow) -> None:
    document = await ask(way)
    without = FLOW.replace("[resume.forwarders.deployments]", "[resume.forwarders.renamed]")
    assert await way.reload(without)
    await way.decide(document)
    waiting = await answer(way, State.PENDING)
    assert way.channels.of("resume.renamed").received == []
    assert await way.reload(FLOW)
    assert (await answered(way))["decision"] == "approved"
    await way.becomes(waiting.id, State.SENT)


# --- over HTTP ---------------------------------------------------------------------------------------------


class Plugin:
    """Brings the gate `door`."""

    @hookimpl
    def notifyd_resume_forwarders(self) -> list[ChannelType]:
        return [Channels().forwarders["door"]]


async def test_a_vendor_calls_a_gate_and_hears_what_became_of_it(tmp_path: Path) -> None:
    gate = '[resume.forwarders.deployments]\ntype = "door"\ntenant = "acme"\n'
    async with daemon(tmp_path, CONFIG + gate, extra=[Plugin()]) as notifyd:
        document = {name: value for name, value in notifyd.requested().items() if name != "tenant"}

        async def called(body: object, name: str = DOOR) -> int:
            return (await notifyd.call("POST", f"/channels/{name}/inbound", json=body)).status

        assert [await called(document), await called(document)] == [202, 202]
        assert await called(document | {"planHash": "none"}) == 422
        assert await called(document, "deployments") == 404
        assert await called(document, "resume") == 404
        asked = await notifyd.approval(document)
    assert (asked["status"], asked["requestedBy"]) == ("pending", document["requestedBy"])


# --- what a configuration may say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[resume.forwarders.door]\ntype = "door"', "resume.forwarders.door.tenant: is required"),
        ('[resume.forwarders.door]\ntype = "door"\ntenant = "a/b"', "resume.forwarders.door.tenant"),
        ('[resume.forwarders.bus]\ntype = "bus"\ntenant = "acme"', "resume.forwarders.bus.tenant"),
        ('[channels.door]\ntype = "door"', "channels.door.type"),
    ],
)
def test_a_gate_has_a_tenant_and_nothing_else_has_one(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(text, Channels())
    assert fault in str(caught.value)


class Shut(Channels):
    """Its gate cannot be called."""

    def open_gate(self, config: NoOptions, context: ChannelContext) -> Any:
        return self.open(config, context)


async def test_a_gate_that_cannot_be_called_does_not_open() -> None:
    with pytest.raises(ConfigError, match="is a gate and which lacks receive"):
        async with registry('[resume.forwarders.door]\ntype = "door"\ntenant = "acme"', Shut()):
            pass


class Misplaced:
    """Brings a gate as a channel, which a rule could name."""

    @hookimpl
    def notifyd_channel_types(self) -> list[ChannelType]:
        return [Channels().forwarders["door"]]


def test_a_gate_is_no_channel_that_a_rule_may_name() -> None:
    (fault,) = discover(group="none", extra=[Misplaced()]).faults
    assert "a gate is brought by notifyd_resume_forwarders" in str(fault)
