"""Spans for a collector: the one module that knows OpenTelemetry, imported only where a collector is named.

The environment says where to, with what and how many, by the names of the specification:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from attrs import frozen
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from notifyd import __version__
from notifyd.levels import Complaint
from notifyd.tracing import Facts, Role, Span, Trace, Tracer, trace_in

log = logging.getLogger(__name__)

_LAST_WORDS: Final = 0.5
"""Seconds that the last spans are given to reach the collector."""

_KINDS: Final = {
    Role.SERVER: api.SpanKind.SERVER,
    Role.CLIENT: api.SpanKind.CLIENT,
    Role.INTERNAL: api.SpanKind.INTERNAL,
}
_HEADERS: Final = TraceContextTextMapPropagator()


def exporting(node: str) -> AbstractContextManager[Tracer]:
    """A tracer whose spans go to the collector that the environment names, and the end of it within a second.

    Raises ValueError or OSError where the environment holds what the exporter refuses.
    """
    # Its own words show the collector's address and answer, once more for each batch. `_Told` speaks in its place.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    exporter = _Told(OTLPSpanExporter())
    return _ending(provider_of(node, BatchSpanProcessor(exporter)), exporter)


@contextmanager
def _ending(provider: TracerProvider, exporter: SpanExporter) -> Iterator[Tracer]:
    try:
        yield OtelTracer(provider)
    finally:
        # On a thread that the interpreter does not wait for: a dead collector keeps it for seconds. Nothing else
        # is left for the loop to do.
        end = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        end.start()
        end.join(_LAST_WORDS)
        exporter.shutdown()  # where there is a retry under way, it was the last


def provider_of(node: str, processor: SpanProcessor) -> TracerProvider:
    """What makes the spans that `processor` gets. What the environment says of the service comes before."""
    ours = {"service.name": "notifyd", "service.version": __version__, "service.instance.id": node}
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


class OtelTracer:
    """A `notifyd.tracing.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("notifyd", __version__)

    @contextmanager
    def span(self, name: str, role: Role, parent: Trace, facts: Facts) -> Iterator[Span]:
        # Never the context of the thread or task: a step that works for many events has none of theirs.
        above = _HEADERS.extract(parent, Context())
        span = self._tracer.start_span(name, above, kind=_KINDS[role], attributes=facts)
        try:
            yield _Recorded(span, _passed_on(span))
        finally:
            span.end()


def _passed_on(span: api.Span) -> Trace:
    carrier: dict[str, str] = {}
    _HEADERS.inject(carrier, api.set_span_in_context(span, Context()))
    return trace_in(carrier)


@frozen
class _Recorded:
    _span: api.Span
    trace: Trace

    def note(self, facts: Facts) -> None:
        self._span.set_attributes(facts)

    def link(self, trace: Trace) -> None:
        context = api.get_current_span(_HEADERS.extract(trace, Context())).get_span_context()
        if context.is_valid:
            self._span.add_link(context)

    def fail(self, why: str) -> None:
        self._span.set_attribute("error.type", why)
        self._span.set_status(api.StatusCode.ERROR)


class _Told(SpanExporter):
    """Exports, and says until its end when a collector begins to take no spans, on the exporter's own thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._complaint = Complaint(log)
        self._ended = False

    def shutdown(self) -> None:
        self._ended = True
        self._exporter.shutdown()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever a library of three parties raises, spans are lost
            return self._lost(type(error).__name__)
        if result is not SpanExportResult.SUCCESS:
            return self._lost("it refused them or was not there")
        self._complaint.over()
        return result

    def _lost(self, why: str) -> SpanExportResult:
        if not self._ended:
            self._complaint.repeat(f"the collector takes no spans, and they are lost: {why}")
        return SpanExportResult.FAILURE
