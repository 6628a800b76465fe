"""The trace that an event belongs to, by the W3C's Trace Context: taken from its sender, kept with it, passed on.

https://www.w3.org/TR/trace-context/ says what the two headers hold, and that whoever records no spans of its own
passes them on as they came. notifyd does so unless it is given a `Tracer`.
CloudEvents have them as attributes of the same names:
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias

Trace: TypeAlias = Mapping[str, str]
"""`traceparent` and perhaps `tracestate`; empty for none."""

NO_TRACE: Final[Trace] = {}
PARENT: Final = "traceparent"
STATE: Final = "tracestate"

current: Final[ContextVar[Trace]] = ContextVar("trace", default=NO_TRACE)
"""The trace of the message that is being sent. Each task has its own."""

_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}").fullmatch


def trace_in(said: Mapping[str, Any]) -> Trace:
    """What headers or an event's members say of their trace. What is not in the standard's form is none."""
    parent = said.get(PARENT)
    if not isinstance(parent, str) or not _PARENT(parent):
        return NO_TRACE
    state = said.get(STATE)
    return {PARENT: parent, STATE: state} if isinstance(state, str) and _STATE(state) else {PARENT: parent}


# --- spans -------------------------------------------------------------------------------------------------

Facts: TypeAlias = Mapping[str, str | int | Sequence[str]]
"""Attributes of a span. They go to a collector, which may be another party's: no secret, person or content."""


class Role(StrEnum):
    """Who waits for whom: https://opentelemetry.io/docs/specs/otel/trace/api/#spankind"""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class Span(Protocol):
    """A piece of work under way."""

    @property
    def trace(self) -> Trace:
        """What is passed on, in which this span is the parent."""

    def note(self, facts: Facts) -> None:
        """Add attributes."""

    def link(self, trace: Trace) -> None:
        """Name a span of another trace that belongs to this one; nothing for `NO_TRACE`."""

    def fail(self, why: str) -> None:
        """The work has failed: `why` is a stable code, the attribute `error.type`."""


class Tracer(Protocol):
    """Records spans. Never raises, and never waits."""

    def span(self, name: str, role: Role, parent: Trace, facts: Facts) -> AbstractContextManager[Span]:
        """A span that lasts as long as the block, a child of `parent`, or the first of a new trace."""


class Unrecorded:
    """A span that nobody is told of, for which no facts need be gathered. It passes `trace` on as it came."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody is told."""

    def note(self, facts: Facts) -> None:
        """Nobody is told."""

    def link(self, trace: Trace) -> None:
        """Nobody is told."""

    def fail(self, why: str) -> None:
        """Nobody is told."""


class _NoTracer:
    def span(self, name: str, role: Role, parent: Trace, facts: Facts) -> AbstractContextManager[Span]:
        return Unrecorded(parent)


NO_TRACER: Final[Tracer] = _NoTracer()
"""Records nothing, and passes a trace on as it came."""
