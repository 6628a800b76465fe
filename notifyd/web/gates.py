"""What gates are asked to let through: an event that a plugin hands in, accepted like one that is posted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import orjson

from notifyd import correlation
from notifyd.config.settings import Scope
from notifyd.errors import (
    EventIdConflictError,
    FaultsError,
    MalformedError,
    PermanentError,
    TransientError,
    UnavailableError,
)
from notifyd.flow.spans import judged
from notifyd.model import Gate, Principal, Via
from notifyd.plugin import Ask
from notifyd.registry.channels import OpenChannel
from notifyd.tracing import NO_TRACE, Role, Span, Trace, Tracer
from notifyd.web.services import Services
from notifyd.wire.codec import loads
from notifyd.wire.events import parse_pack_event


def asking(services: Services, channel: OpenChannel, caller: Trace = NO_TRACE) -> Ask:
    """Where `channel` hands in an event, for the one tenant that its configuration names, in a call of the trace
    `caller`. Raises as `Ask` says."""
    gate = Gate(channel.name, channel.type)

    async def ask(event: Mapping[str, Any]) -> None:
        if not channel.tenant:
            raise PermanentError("only a gate hands in events")
        try:
            with services.metrics.ingest_seconds.time(), _span(services.tracer, channel, caller) as span:
                document = _document(event, gate, channel.tenant)
                accepted = await services.ingest.pack_event(
                    parse_pack_event(document),
                    document,
                    _principal(gate, channel.tenant),
                    correlation.current.get(),
                    span.trace,
                )
                span.note({"notifyd.outcome": "accepted" if accepted.fresh else "duplicate"})
        except UnavailableError as error:
            raise TransientError(
                f"nothing can be recorded now: {error}", retry_after=error.retry_after
            ) from error
        except (FaultsError, MalformedError, EventIdConflictError) as error:
            raise PermanentError(f"the event is not taken: {error}") from error

    return ask


def _span(tracer: Tracer, channel: OpenChannel, caller: Trace) -> AbstractContextManager[Span]:
    facts = {"notifyd.channel": channel.name, "notifyd.channel.type": channel.type}
    return judged(tracer, f"ask {channel.name}", Role.SERVER, caller, facts)


def _principal(gate: Gate, tenant: str) -> Principal:
    """A gate may ask, for one tenant, and nothing else."""
    scopes = frozenset({Scope.INGEST.value})
    return Principal(gate.client, Via.CHANNEL, scopes=scopes, grants=scopes, tenants=(tenant,))


def _document(event: Mapping[str, Any], gate: Gate, tenant: str) -> Any:
    """`event` as it would have been posted: read strictly, with what a plugin has no say about."""
    try:
        document = loads(orjson.dumps(dict(event)))
    except (TypeError, ValueError) as error:
        raise PermanentError(f"the event is not JSON: {error}") from None
    document["tenant"] = {"id": tenant}
    resume = document.get("resume")
    if isinstance(resume, dict):
        resume["callbackUrl"] = gate.address
    return document
