"""Spans between a request and its callback: one trace through plan and decision, whichever way that comes in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

import orjson
import pytest
from attrs import define, evolve, field
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from notifyd.errors import AlreadyDecidedError, StoreError
from notifyd.flow.decide import Decisions
from notifyd.model import Choice
from notifyd.plugin import (
    ChannelType,
    InboundRequest,
    InboundResponse,
    Message,
    PermanentError,
    Reaction,
    Receipt,
    hookimpl,
)
from notifyd.store import Store
from notifyd.testkit.receivers import Sink
from notifyd.tracing import trace_in
from notifyd.web.gates import asking
from notifyd.wire import events as wire
from tests import events
from tests.daemon import CALLBACK, CONFIG, Answer, Daemon, daemon, until
from tests.fakes import NoOptions, RecordingEffects, principal
from tests.flows import RULES, Flow, flow
from tests.integration.test_telemetry import (
    ANYTHING,
    OTHER,
    PACK,
    SENDER,
    TRACE,
    TRACE_ID,
    above,
    named,
    own,
    recording,
)
from tests.integration.test_web_mine import list_of
from tests.integration.test_web_mine import send as send_list
from tests.integration.test_web_page import look, parsed

pytestmark = pytest.mark.usefixtures("templates_once")

FORM: Final = "application/x-www-form-urlencoded"
DESK: Final = """
[channels.desk]
type = "desk"

[[rules]]
name = "desk"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["desk"]
to = ["alice@acme.example"]

[recipients."alice@acme.example"]
addresses = {desk = "U1"}
"""


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@define(eq=False)
class Desk:
    """A channel whose vendor is told of a button: each call presses the first one."""

    messages: list[Message] = field(factory=list)

    @hookimpl
    def notifyd_channel_types(self) -> list[ChannelType]:
        return [ChannelType("desk", NoOptions, lambda _config, _context: self, answers=True)]

    async def send(self, message: Message) -> Receipt:
        self.messages.append(message)
        return Receipt()

    async def receive(self, request: InboundRequest) -> InboundResponse:
        button = self.messages[0].buttons[0]
        reply = await request.inbox(Reaction("U1", button.action, button.ref, ""))
        return InboundResponse(200, reply.text)

    async def aclose(self) -> None:
        """Nothing is open."""


Way = Callable[[Daemon, Desk, dict[str, Any]], Awaitable[Answer]]


async def by_call(notifyd: Daemon, _desk: Desk, asked: dict[str, Any]) -> Answer:
    path = f"{PACK}/{{runId}}/{{approvalId}}/ack".format_map(asked)
    body = {"decision": "approved", "planHash": asked["planHash"], "actor": "alice@acme.example"}
    return await notifyd.post(path, body, "task-runner", traceparent=OTHER)


async def by_page(notifyd: Daemon, _desk: Desk, _asked: dict[str, Any]) -> Answer:
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden | {"confirmed": "1", "decision": "approved"}
    return await notifyd.call("POST", path, data=form, headers={"traceparent": OTHER})


async def by_list(notifyd: Daemon, _desk: Desk, _asked: dict[str, Any]) -> Answer:
    notifyd.session.headers["traceparent"] = OTHER
    return await send_list(notifyd, await list_of(notifyd), confirmed="1")


async def by_button(notifyd: Daemon, desk: Desk, _asked: dict[str, Any]) -> Answer:
    await until(lambda: desk.messages)
    return await notifyd.call("POST", "/channels/desk/inbound", headers={"traceparent": OTHER})


@pytest.mark.parametrize(
    ("way", "via"), [(by_call, "client"), (by_page, "link"), (by_list, "link"), (by_button, "channel")]
)
async def test_whichever_way_a_decision_comes_in_it_is_in_the_trace_of_its_request_and_linked_to_its_own(
    tmp_path: Path, spans: InMemorySpanExporter, way: Way, via: str
) -> None:
    desk = Desk()
    async with Sink() as runner:
        text = CONFIG.replace(CALLBACK, runner.url) + DESK
        async with daemon(tmp_path, text, tracer=recording(spans), extra=[desk]) as notifyd:
            resume = {"callbackUrl": f"{runner.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            asked = notifyd.requested(resume=resume)
            assert (await notifyd.signed(PACK, asked, **TRACE)).status == 202
            answer = await way(notifyd, desk, asked)
            assert answer.status in (200, 303), answer.text
            await until(lambda: named(spans, "send resume"))
    ((decided,), (ingest,)) = named(spans, "decide"), named(spans, f"POST {PACK}")
    assert above(decided) == f"{ingest.context.span_id:016x}"
    assert decided.kind is SpanKind.INTERNAL
    assert links(decided) == [OTHER]
    assert facts(decided) == {
        "notifyd.decision": "approved",
        "notifyd.via": via,
        "notifyd.outcome": "recorded",
    }
    assert {span.context.trace_id for span in spans.get_finished_spans()} == {int(TRACE_ID, 16)}
    assert_discreet(spans, "rt_3yQ8", "run-0042", "U1")


def links(span: ReadableSpan) -> list[str]:
    return [f"00-{one.context.trace_id:032x}-{one.context.span_id:016x}-01" for one in span.links]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def assert_discreet(spans: InMemorySpanExporter, *private: str) -> None:
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    for word in ("alice", "bob", "@", "/approvals/", '"acme"', "corr", *private):
        assert word not in told


# --- planning ----------------------------------------------------------------------------------------------


async def test_a_plan_is_a_child_of_its_request_and_tells_which_rules_matched(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with daemon(tmp_path, tracer=recording(spans)) as notifyd:
        assert (await notifyd.signed(PACK, notifyd.requested(), **TRACE)).status == 202
        await until(lambda: len(named(spans, "send inbox")) == 2)
    (ingest,), (planned,) = named(spans, f"POST {PACK}"), named(spans, "plan")
    assert (planned.kind, above(planned)) == (SpanKind.INTERNAL, f"{ingest.context.span_id:016x}")
    assert facts(planned) == {"notifyd.rules": ("approvals",), "notifyd.deliveries": 2}
    assert_discreet(spans)


async def test_an_event_that_is_planned_before_it_is_stored_has_one_plan_too(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with (
        Sink() as hook,
        daemon(tmp_path, CONFIG + ANYTHING.format(hook=hook.url), tracer=recording(spans)) as notifyd,
    ):
        document = events.cloud_event(at=notifyd.clock(), tenant="acme")
        kind = "application/cloudevents+json"
        assert (await notifyd.signed("/api/v1/events", document, content_type=kind)).status == 202
        await until(lambda: named(spans, "send hook"))
    (ingest,), (planned,) = named(spans, "POST /api/v1/events"), named(spans, "plan")
    assert above(planned) == f"{ingest.context.span_id:016x}"
    assert facts(planned) == {"notifyd.rules": ("anything",), "notifyd.deliveries": 1}


async def test_what_a_gate_is_asked_is_kept_in_the_trace_of_the_vendors_call(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    gate = '[resume.forwarders.door]\ntype = "door"\ntenant = "acme"\n'
    async with flow(tmp_path, gate, start=False) as way:
        services = evolve(way.app._services, tracer=recording(spans))
        ask = asking(services, way.current().channels["resume.door"], TRACE)
        document = events.requested(at=way.clock(), resume={"token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"})
        given = {name: value for name, value in document.items() if name != "tenant"}
        await ask(given)
        await ask(given)
        with pytest.raises(PermanentError):
            await ask(given | {"planHash": "none"})
        kept = trace_in(orjson.loads((await way.approval(document)).request))
    asked = named(spans, "ask resume.door")
    assert [facts(one)["notifyd.outcome"] for one in asked] == ["accepted", "duplicate", "invalid_event"]
    assert {(one.kind, above(one)) for one in asked} == {(SpanKind.SERVER, SENDER)}
    assert kept["traceparent"] == own(asked[0])
    assert_discreet(spans, "rt_3yQ8", "run-0042")


# --- how a decision ends -----------------------------------------------------------------------------------


def decisions(way: Flow, spans: InMemorySpanExporter, *, store: Any = None) -> Decisions:
    """Those of another node over the same store."""
    return Decisions(
        store=cast(Store, store or way.store),
        current=way.current,
        effect_queue=RecordingEffects(),
        metrics=way.metrics,
        clock=way.clock,
        tracer=recording(spans),
    )


async def asked_in(way: Flow, trace: dict[str, str]) -> dict[str, Any]:
    document = way.requested()
    event = wire.parse_pack_event(document)
    await way.app._services.ingest.pack_event(event, document, principal(), "corr-1", trace)
    return document


async def test_a_decision_at_another_node_is_in_the_same_trace_and_says_how_it_ended(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with flow(tmp_path, start=False) as way:
        document, node = await asked_in(way, TRACE), decisions(way, spans)
        await node.decide(way.ballot(document))
        await node.decide(way.ballot(document))
        with pytest.raises(AlreadyDecidedError):
            await node.decide(way.ballot(document, choice=Choice.REJECTED))
    ends = [facts(span)["notifyd.outcome"] for span in named(spans, "decide")]
    assert ends == ["recorded", "repeated", "already_decided"]
    for span in named(spans, "decide"):
        assert f"00-{span.context.trace_id:032x}-{above(span)}-01" == TRACE["traceparent"]
        assert (span.status.status_code, links(span)) == (StatusCode.UNSET, [])
    assert_discreet(spans)


async def test_a_decision_that_no_store_takes_has_failed(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async with flow(tmp_path, start=False) as way:
        document = await asked_in(way, TRACE)
        way.store.fail("replace_approval")
        with pytest.raises(StoreError):
            await decisions(way, spans).decide(way.ballot(document))
    (failed,) = named(spans, "decide")
    assert failed.status.status_code is StatusCode.ERROR
    assert facts(failed)["error.type"] == facts(failed)["notifyd.outcome"] == "store_unavailable"


async def test_taking_a_decision_back_is_a_span_of_its_own(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with flow(tmp_path, '[approvals]\nundo = "1m"\n' + RULES, start=False) as way:
        document, node = await asked_in(way, TRACE), decisions(way, spans)
        await node.decide(way.ballot(document))
        key = (await way.approval(document)).key
        await node.take_back(
            key, "alice@acme.example", correlation_id="corr-2", caller={"traceparent": OTHER}
        )
    (undone,) = named(spans, "take back")
    assert f"{undone.context.trace_id:032x}" == TRACE_ID
    assert (links(undone), facts(undone)) == ([OTHER], {"notifyd.outcome": "recorded"})


async def test_where_nothing_is_recorded_no_fact_is_gathered(
    tmp_path: Path, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("a trace is read, and nobody hears of it")

    monkeypatch.setattr("notifyd.flow.spans.trace_in", refuse)
    async with flow(tmp_path) as way:
        document = await way.ask()
        await way.decide(document)
        assert (await way.approval(document)).status.ended
        with pytest.raises(AssertionError):
            await decisions(way, spans).decide(way.ballot(document))
