"""Spans: one trace from ingest to callback, what they tell and keep to themselves, and collectors that fail."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from notifyd.plugin import PermanentError
from notifyd.service.daemon import tracer_from_environ
from notifyd.service.telemetry import OtelTracer, provider_of
from notifyd.testkit.receivers import Sink
from notifyd.tracing import NO_TRACE, NO_TRACER, Role, Tracer
from tests import events
from tests.daemon import CALLBACK, CONFIG, Daemon, Inbox, daemon, until

pytestmark = pytest.mark.usefixtures("templates_once")

PACK: Final = "/notifications/pack-approvals"
SENDER: Final = "b7ad6b7169203331"
TRACE_ID: Final = "0af7651916cd43dd8448eb211c80319c"
TRACE: Final = {"traceparent": f"00-{TRACE_ID}-{SENDER}-01", "tracestate": "acme=1"}
OTHER: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ANYTHING: Final = """
[channels.hook]
type = "webhook"
url = "{hook}"
secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

[[rules]]
name = "anything"
when = "true"
channels = ["hook"]
"""


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def recording(spans: InMemorySpanExporter) -> Tracer:
    """A tracer of its own, as each life of the daemon has one."""
    return OtelTracer(provider_of("node-1", SimpleSpanProcessor(spans)))


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def own(span: ReadableSpan) -> str:
    """What a receiver is told where this span is the parent."""
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def above(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent else None


async def approve(notifyd: Daemon, asked: dict[str, Any]) -> None:
    path = f"{PACK}/{{runId}}/{{approvalId}}/ack".format_map(asked)
    body = {"decision": "approved", "planHash": asked["planHash"], "actor": "alice@acme.example"}
    assert (await notifyd.post(path, body, "task-runner")).status == 200


async def test_one_trace_leads_from_the_sender_over_a_restart_to_the_callback(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with Sink() as hook, Sink() as runner:
        text = CONFIG.replace(CALLBACK, runner.url) + ANYTHING.format(hook=hook.url)
        async with daemon(tmp_path, text, tracer=recording(spans)) as notifyd:
            resume = {"callbackUrl": f"{runner.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            asked = notifyd.requested(resume=resume)
            assert (await notifyd.signed(PACK, asked, **TRACE)).status == 202
            await until(lambda: len(named(spans, "send inbox")) == 2 and named(spans, "send hook"))
        told = named(spans, "send hook")[0]
        async with daemon(tmp_path, text, tracer=recording(spans)) as notifyd:
            await approve(notifyd, asked)
            await until(lambda: named(spans, "send resume"))
    (ingest,), (callback,) = named(spans, f"POST {PACK}"), named(spans, "send resume")
    assert (ingest.kind, above(ingest)) == (SpanKind.SERVER, SENDER)
    sent = [told, callback, *named(spans, "send inbox")]
    assert {(span.kind, above(span)) for span in sent} == {
        (SpanKind.CLIENT, f"{ingest.context.span_id:016x}")
    }
    inner = named(spans, "plan") + named(spans, "decide")
    assert {(span.name, span.kind, above(span)) for span in inner} == {
        (name, SpanKind.INTERNAL, f"{ingest.context.span_id:016x}") for name in ("plan", "decide")
    }
    assert {span.context.trace_id for span in spans.get_finished_spans()} == {int(TRACE_ID, 16)}
    # What receivers are told names the attempt, and the sender's own state comes with it.
    for span, received in ((told, hook.received[0]), (callback, runner.received[0])):
        assert received.headers["traceparent"] == own(span)
        assert received.headers["tracestate"] == "acme=1"
    told_of = "".join(span.to_json() for span in spans.get_finished_spans())
    for private in ("alice", "bob", "run-0042", "rt_3yQ8", "127.0.0.1", '"acme"', "corr"):
        assert private not in told_of


async def test_a_request_without_a_trace_begins_one(
    notifyd_recorded: Daemon, spans: InMemorySpanExporter
) -> None:
    await notifyd_recorded.ask()
    await until(lambda: len(named(spans, "send inbox")) == 2)
    (ingest,) = named(spans, f"POST {PACK}")
    assert above(ingest) is None
    assert {above(span) for span in named(spans, "send inbox")} == {f"{ingest.context.span_id:016x}"}


async def test_spans_tell_how_it_ended(notifyd_recorded: Daemon, spans: InMemorySpanExporter) -> None:
    notifyd_recorded.inbox.fault = PermanentError("no such user: alice@acme.example", status=404)
    asked = await notifyd_recorded.ask()
    await notifyd_recorded.signed(PACK, asked)
    await notifyd_recorded.signed(PACK, b"{")
    await until(lambda: len(named(spans, "send inbox")) == 2)
    facts = [dict(span.attributes or {}) for span in named(spans, f"POST {PACK}")]
    ends = [(one["http.response.status_code"], one["notifyd.outcome"]) for one in facts]
    assert ends == [(202, "accepted"), (200, "duplicate"), (400, "malformed_json")]
    assert {span.status.status_code for span in named(spans, f"POST {PACK}")} == {StatusCode.UNSET}
    (failed, _) = named(spans, "send inbox")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description is None
    attributes = dict(failed.attributes or {})
    assert len(str(attributes.pop("notifyd.delivery.id"))) > 8
    assert attributes == {
        "notifyd.channel": "inbox",
        "notifyd.channel.type": "inbox",
        "notifyd.outcome": "permanent",
        "notifyd.status": 404,
        "error.type": "rejected",
    }


@pytest.mark.parametrize("batch", [False, True])
async def test_a_cloud_events_own_trace_is_linked_to_its_request_and_has_its_attempts(
    tmp_path: Path, spans: InMemorySpanExporter, batch: bool
) -> None:
    async with (
        Sink() as hook,
        daemon(tmp_path, CONFIG + ANYTHING.format(hook=hook.url), tracer=recording(spans)) as notifyd,
    ):
        document: Any = events.cloud_event(at=notifyd.clock(), tenant="acme", traceparent=OTHER)
        kind = "application/cloudevents-batch+json" if batch else "application/cloudevents+json"
        answer = await notifyd.signed(
            "/api/v1/events", [document] if batch else document, content_type=kind, **TRACE
        )
        assert answer.status == 202, answer.text
        await until(lambda: named(spans, "send hook"))
    (ingest,), (sent,) = named(spans, "POST /api/v1/events"), named(spans, "send hook")
    assert above(ingest) == SENDER
    assert [f"{link.context.span_id:016x}" for link in ingest.links] == ["00f067aa0ba902b7"]
    assert above(sent) == "00f067aa0ba902b7"
    assert hook.received[0].headers["traceparent"] == own(sent)


@pytest.fixture
async def notifyd_recorded(tmp_path: Path, spans: InMemorySpanExporter) -> Any:
    async with daemon(tmp_path, inbox=Inbox(), tracer=recording(spans)) as running:
        yield running


# --- to a collector ----------------------------------------------------------------------------------------


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment, in which spans are sent without delay."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    return monkeypatch


def make(tracer: Tracer, name: str) -> None:
    with tracer.span(name, Role.CLIENT, NO_TRACE, {}):
        pass


async def test_spans_reach_the_collector_that_the_environment_names(environ: pytest.MonkeyPatch) -> None:
    async with Sink() as collector:
        environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t0ken")
        environ.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with tracer_from_environ("node-1") as tracer:
            make(tracer, "send hook")
            await until(lambda: collector.received)
    (received,) = collector.received
    assert (received.method, received.path) == ("POST", "/v1/traces")
    assert received.headers["Authorization"] == "Bearer t0ken"
    (told,) = ExportTraceServiceRequest.FromString(received.body).resource_spans
    resource = {one.key: one.value.string_value for one in told.resource.attributes}
    assert resource["service.name"] == "notifyd"
    assert resource["service.instance.id"] == "node-1"
    assert resource["deployment.environment.name"] == "test"
    assert [span.name for span in told.scope_spans[0].spans] == ["send hook"]


async def test_the_services_name_is_the_environments(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("OTEL_SERVICE_NAME", "approvals")
    assert (
        provider_of("n", SimpleSpanProcessor(InMemorySpanExporter())).resource.attributes["service.name"]
        == "approvals"
    )


async def test_a_collector_that_never_answers_holds_nothing_up_and_memory_is_bounded(
    environ: pytest.MonkeyPatch,
) -> None:
    async with Sink() as collector:
        collector.silent = True
        environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        environ.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        environ.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        with tracer_from_environ("node-1") as tracer:
            make(tracer, "first")
            await until(lambda: collector.received)
            for number in range(1000):
                make(tracer, f"span {number}")
            began = time.monotonic()
        assert time.monotonic() - began < 30  # of the 60 that the exporter would wait
    await until(lambda: not [one for one in threading.enumerate() if "Otel" in one.name])


async def test_that_a_collector_takes_nothing_is_told_once_and_without_its_address(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def arrived(count: int) -> bool:
        return len(collector.received) == count

    async with Sink() as collector:
        collector.reply = type(collector.reply)(status=400, body="no: t0ken")
        environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with tracer_from_environ("node-1") as tracer:
            for count in (1, 2, 3):
                make(tracer, "send hook")
                await until(partial(arrived, count))
    assert [one.levelname for one in caplog.records].count("WARNING") == 1
    assert "the collector takes no spans" in caplog.text
    assert collector.url not in caplog.text
    assert "t0ken" not in caplog.text


@pytest.mark.parametrize("settings", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_SDK_DISABLED": "TRUE"}])
def test_without_a_collector_nothing_is_recorded(
    settings: dict[str, str], environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if settings.get("OTEL_SDK_DISABLED"):
        environ.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    for name, value in settings.items():
        environ.setenv(name, value)
    with tracer_from_environ("node-1") as tracer:
        assert tracer is NO_TRACER
    assert caplog.records == []


def test_without_the_extra_a_line_says_what_to_install(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    environ.setitem(sys.modules, "notifyd.service.telemetry", None)
    with tracer_from_environ("node-1") as tracer:
        assert tracer is NO_TRACER
    assert "install notifyd-server[otel]" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),  # less than a batch
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
    ],
)
def test_settings_that_opentelemetry_refuses_are_told_and_keep_nothing_from_starting(
    name: str, value: str, environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    environ.setenv(name, value)
    with tracer_from_environ("node-1") as tracer:
        assert tracer is NO_TRACER
    assert "no span is recorded" in caplog.text
