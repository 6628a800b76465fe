"""What becomes of an event that came in: the row that is stored, and what it does to its approval or hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

import orjson
from attrs import frozen

from notifyd.approval.holds import on_hold, on_released
from notifyd.approval.inputs import definition_faults
from notifyd.approval.rounds import Request, Update, on_requested, on_updated
from notifyd.approval.timers import first_due
from notifyd.errors import Fault
from notifyd.model import (
    APPROVAL_KIND,
    POLICY_KIND,
    ApprovalKey,
    Event,
    Group,
    IncidentKey,
    Input,
    Instant,
    Outcome,
)
from notifyd.registry.registry import Registry
from notifyd.security import resume_token
from notifyd.security.names import name_fault
from notifyd.security.redact import MIN_SEARCHED, Redactor, names_secret, spelled, without
from notifyd.security.secrets import EVENT_CONTENT
from notifyd.store import Advance
from notifyd.tracing import NO_TRACE, PARENT, Trace
from notifyd.wire.codec import Document, canonical, derived_id, event_key, pointer, rfc3339
from notifyd.wire.events import (
    CloudEvent,
    PackApprovalRequested,
    PackApprovalUpdated,
    PackEvent,
    PackPolicyHold,
    PackPolicyReleased,
)
from notifyd.wire.meaning import faults_together

_MEANING: Final[Mapping[type[PackEvent], tuple[str, str]]] = {
    PackApprovalRequested: (APPROVAL_KIND, "requested"),
    PackApprovalUpdated: (APPROVAL_KIND, "updated"),
    PackPolicyHold: (POLICY_KIND, "hold"),
    PackPolicyReleased: (POLICY_KIND, "released"),
}


@frozen
class Arrival:
    """How an event came in: from which client, when, and what was in force then. `trace` is kept with it."""

    client: str
    correlation_id: str
    at: Instant
    registry: Registry
    trace: Trace = NO_TRACE


@frozen
class Posted:
    """A CloudEvent, with the document it was read from and its tenant."""

    event: CloudEvent
    document: Document
    tenant: str


# --- what is asked of its members --------------------------------------------------------------------------


def member_faults(event: PackEvent, document: Mapping[str, Any], registry: Registry) -> Iterator[Fault]:
    """Whoever asks or decides is compared with others by name, and some members depend on one another."""
    given = {"/requestedBy": event.requested_by, "/decidedBy": getattr(event, "decided_by", None)}
    yield from (Fault(at, fault) for at, name in given.items() if name and (fault := name_fault(name)))
    yield from faults_together(event)
    if event.inputs:
        yield from definition_faults(_inputs(event))
        yield from _secret_faults(document["inputs"], registry.redactor)


def _secret_faults(inputs: Sequence[Any], redactor: Redactor) -> Iterator[Fault]:
    """Whoever may read the approval reads what is filled in: it may neither be a secret nor ask for one."""
    for index, one in enumerate(inputs):
        if names_secret(one["name"]):
            yield Fault(pointer("inputs", index, "name"), "must not name a secret: everybody could read it")
        elif redactor.tree(one) != one:
            yield Fault(pointer("inputs", index), "must not hold a secret")


def _inputs(event: PackEvent) -> tuple[Input, ...]:
    return tuple(
        Input(one.name, one.label or one.name, one.type, one.required, one.pattern, one.choices, one.default)
        for one in event.inputs
    )


def token_faults(event: PackEvent, content: bytes, correlation_id: str) -> Iterator[Fault]:
    """The token is sealed at rest, so it may not stand where it would be kept as it is."""
    if event.resume is None:
        return
    token = event.resume.token.reveal()
    if len(token) < MIN_SEARCHED:
        return  # to search for it would refuse ids and texts that only look alike
    if token in correlation_id:
        yield Fault("/resume/token", "must not stand in the correlation id, which is told")
    url = event.resume.callback_url
    if content.count(_in_json(token)) == 1 and "%" not in url:
        return  # it stands in the canonical text once: as itself
    kept = {
        "/eventId": event.event_id,
        "/runId": event.run_id,
        "/approvalId": event.approval_id,
        "/planHash": event.plan_hash,
        "/requestedBy": event.requested_by or "",
        "/requiredGrants": " ".join(event.required_grants),
        "/approvalGroups": " ".join(f"{group.name} {group.grant}" for group in event.approval_groups),
        "/inputs": " ".join(
            word
            for one in event.inputs
            for word in (one.name, one.label or "", one.pattern or "", *one.choices, str(one.default))
        ),
        "/policy/id": event.policy.id if event.policy else "",
        "/decidedBy": getattr(event, "decided_by", ""),
        "/resume/callbackUrl": url + " " + unquote(url),
    }
    yield from (Fault(at, "must not hold the resume token") for at, text in kept.items() if token in text)


def _in_json(text: str) -> bytes:
    """`text` as it stands inside a JSON string."""
    return orjson.dumps(text)[1:-1]


# --- the row that is stored --------------------------------------------------------------------------------


def pack_row(event: PackEvent, document: Document, arrival: Arrival) -> Event:
    """One of Task Runner's events as it is stored where its approval is new, so that it is not copied then."""
    registry = arrival.registry
    kind, action = _MEANING[type(event)]
    opens = isinstance(event, PackApprovalRequested)
    return Event(
        tenant=event.tenant.id,
        key=event_key(event.tenant.id, event.event_id),
        event_id=event.event_id,
        kind=kind,
        action=action,
        occurred_at=event.occurred_at,
        received_at=arrival.at,
        body=_pack_body(event, document, arrival, kind, action),
        content_id=registry.keyring.identify(EVENT_CONTENT, document.text),
        client=arrival.client,
        correlation_id=arrival.correlation_id,
        run_id=event.run_id,
        approval_id=event.approval_id,
        outcome=Outcome.OPENED if opens else Outcome.ACCEPTED,
        notify=registry.rules.concern(kind),
        version=int(opens),
        round=int(opens),
    )


def cloud_row(posted: Posted, arrival: Arrival) -> Event:
    """A CloudEvent as it is stored."""
    event, document, tenant, registry = posted.event, posted.document, posted.tenant, arrival.registry
    occurred_at = arrival.at if event.time is None else event.time
    trace = NO_TRACE if PARENT in document.members else arrival.trace  # its own comes first
    meaning = {"kind": event.type, "action": "", "tenant": {"id": tenant}, "occurredAt": rfc3339(occurred_at)}
    seen = registry.redactor.tree({**document.members, **trace}) | meaning
    return Event(
        tenant=tenant,
        key=derived_id("cloudevent", tenant, event.source, event.id),
        event_id=event.id,
        kind=event.type,
        action="",
        occurred_at=occurred_at,
        received_at=arrival.at,
        body=canonical(seen, plain=document.plain).decode(),
        content_id=registry.keyring.identify(EVENT_CONTENT, document.text),
        client=arrival.client,
        correlation_id=arrival.correlation_id,
        notify=registry.rules.concern(event.type, tenant),
    )


def _pack_body(event: PackEvent, document: Document, arrival: Arrival, kind: str, action: str) -> str:
    """What rules see: the payload, redacted, without its token, with its meaning."""
    shown, registry = {**document.members, **arrival.trace}, arrival.registry
    if event.resume:  # the member may be null
        shown["resume"] = {name: value for name, value in shown["resume"].items() if name != "token"}
    seen = registry.redactor.tree(shown)
    meaning = {"kind": kind, "action": action}
    if isinstance(event, PackApprovalRequested) and event.expires_at is None:
        meaning["expiresAt"] = rfc3339(_expiry(event, registry))  # the reader is told when it is too late
    body = canonical(seen | meaning, plain=document.plain)
    token = spelled(event.resume.token.reveal()) if event.resume else ()
    if any(_in_json(one) in body for one in token):
        body = canonical(_without_token(seen, token) | meaning)
    return body.decode()


def _expiry(event: PackApprovalRequested, registry: Registry) -> Instant:
    """When the approval expires: as the event says, else by `approvals.default_ttl`."""
    if event.expires_at is not None:
        return event.expires_at
    return event.occurred_at + registry.settings.approvals.default_ttl


def _without_token(seen: Mapping[str, Any], token: Sequence[str]) -> dict[str, Any]:
    hidden = {name: _without(value, token) for name, value in seen.items()}
    # The contract's own names mean what they mean, whatever the token is.
    return {_without(n, token) if n.startswith("x-") else n: v for n, v in hidden.items()}


def _without(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return without(value, secrets)
    if isinstance(value, Mapping):
        return {_without(k, secrets): _without(v, secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [_without(v, secrets) for v in value]
    return value


# --- what the event does to its approval or hold -----------------------------------------------------------


def subject_of(
    event: PackEvent, row: Event, registry: Registry
) -> tuple[ApprovalKey | IncidentKey | None, Callable[[Any], Advance]]:
    """What the event is about, and what it does to that."""
    key, shared = row.approval_key, registry.clients.shares
    if isinstance(event, PackApprovalRequested):
        request = _request(event, row, registry)
        return key, lambda stored: on_requested(stored, row, request, row.received_at, shared)
    if isinstance(event, PackApprovalUpdated):
        actor = registry.actors.canonical(event.decided_by)
        update = Update(event.status, actor, event.plan_hash)
        return key, lambda stored: on_updated(stored, row, update, shared)
    step = on_hold if isinstance(event, PackPolicyHold) else on_released
    policy = event.policy.id if event.policy else ""
    hold = IncidentKey(row.tenant, event.run_id, event.approval_id, policy)
    return hold, lambda stored: step(stored, row, policy)


def _request(event: PackApprovalRequested, row: Event, registry: Registry) -> Request:
    requested_by = event.requested_by or f"client:{row.client}"
    inputs = _inputs(event)
    groups = tuple(Group(group.name, group.grant, group.required) for group in event.approval_groups)
    expires_at = _expiry(event, registry)
    return Request(
        plan_hash=event.plan_hash,
        required_grants=event.required_grants,
        required_approvals=max(event.required_approvals, sum(group.required for group in groups)),
        requested_by=registry.actors.canonical(requested_by),
        expires_at=expires_at,
        callback_url=event.resume.callback_url,
        sealed_token=resume_token.keep(registry.keyring, event.resume.token),
        groups=groups,
        inputs=inputs,
        timer_at=first_due(registry.timed, max(row.received_at, row.occurred_at), expires_at),
    )
