"""Spans of the work between a request and its callback: planning an event, and recording a decision.

Each is a child of the trace that is stored with its event or approval, so that one trace holds them all, over
restarts and whichever node does the work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import orjson

from notifyd.approval.ballots import Ballot
from notifyd.errors import NotifydError, UnavailableError
from notifyd.model import Approval
from notifyd.store import Planned
from notifyd.tracing import NO_TRACE, NO_TRACER, Facts, Role, Span, Trace, Tracer, Unrecorded, trace_in


async def in_plan_span(tracer: Tracer, seen: Mapping[str, Any], planning: Awaitable[Planned]) -> Planned:
    """What `planning` gives, of the event that rules see as `seen`."""
    if tracer is NO_TRACER:  # nobody hears of what would be gathered for each event
        return await planning
    with judged(tracer, "plan", Role.INTERNAL, trace_in(seen), {}) as span:
        planned = await planning
        rules = list(dict.fromkeys(entry.rule for entry in planned.plan))
        span.note({"notifyd.rules": rules, "notifyd.deliveries": len(planned.plan)})
        return planned


def decide_span(
    tracer: Tracer, approval: Approval, ballot: Ballot, caller: Trace
) -> AbstractContextManager[Span]:
    """Around the recording of `ballot`. `caller` is the trace of the request that brings it."""
    facts = {"notifyd.decision": ballot.choice.value, "notifyd.via": ballot.via.value}
    return _about(tracer, "decide", approval, facts, caller)


def take_back_span(tracer: Tracer, approval: Approval, caller: Trace) -> AbstractContextManager[Span]:
    """Around the undoing of a decision."""
    return _about(tracer, "take back", approval, {}, caller)


def _about(
    tracer: Tracer, name: str, approval: Approval, facts: Facts, caller: Trace
) -> AbstractContextManager[Span]:
    # A request may be long: nobody is to wait for its reading where nobody hears of it.
    if tracer is NO_TRACER:
        return Unrecorded(caller)
    return judged(tracer, name, Role.INTERNAL, trace_in(orjson.loads(approval.request)), facts, caller)


@contextmanager
def judged(
    tracer: Tracer, name: str, role: Role, parent: Trace, facts: Facts, caller: Trace = NO_TRACE
) -> Iterator[Span]:
    """A span whose outcome is the code of what is raised. A refusal is an outcome; what else is raised, a failure.

    `caller` is a trace that it has a link to.
    """
    with tracer.span(name, role, parent, facts) as span:
        span.link(caller)
        try:
            yield span
        except Exception as error:
            code = error.code if isinstance(error, NotifydError) else NotifydError.code
            span.note({"notifyd.outcome": code})
            if not isinstance(error, NotifydError) or isinstance(error, UnavailableError):
                span.fail(code)
            raise
