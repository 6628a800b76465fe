"""The trace that an event belongs to, by the W3C's Trace Context: taken from its sender, kept with it, passed on.

https://www.w3.org/TR/trace-context/ says what the two headers hold, and that whoever records no spans of its own
passes them on as they came. CloudEvents have them as attributes of the same names:
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

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


@contextmanager
def carrying(trace: Trace) -> Iterator[None]:
    """What is posted in the block, and in tasks begun in it, carries `trace`."""
    token = current.set(trace)
    try:
        yield
    finally:
        current.reset(token)
