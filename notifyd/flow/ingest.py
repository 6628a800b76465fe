"""Meaning, duplicate check, append: from a validated event to a durable one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Final
from urllib.parse import unquote

import orjson
from attrs import evolve, frozen

from notifyd.approval.holds import on_hold, on_released
from notifyd.approval.inputs import definition_faults
from notifyd.approval.rounds import Request, Update, on_requested, on_updated
from notifyd.approval.timers import first_due
from notifyd.errors import (
    EventIdConflictError,
    Fault,
    FaultsError,
    InvalidError,
    NotifydError,
    TooOldError,
)
from notifyd.flow.queues import Admission, AppendQueue, PlanningQueue
from notifyd.metrics import EVENT_REFUSALS, Metrics
from notifyd.model import (
    APPROVAL_KIND,
    POLICY_KIND,
    ApprovalKey,
    Clock,
    Event,
    Gate,
    Group,
    IncidentKey,
    Input,
    Instant,
    Outcome,
    Principal,
    Status,
)
from notifyd.registry.egress import callback_fault
from notifyd.registry.registry import Registry
from notifyd.security import resume_token
from notifyd.security.names import name_fault
from notifyd.security.redact import MIN_SEARCHED, Redactor, names_secret, spellings
from notifyd.security.secrets import EVENT_CONTENT, HIDDEN, Keyring
from notifyd.store import Advance, Append, Appended, Store, append_as_is
from notifyd.tracing import NO_TRACE, PARENT, Trace
from notifyd.wire.codec import canonical, derived_id, event_key, pointer, rfc3339
from notifyd.wire.events import (
    CloudEvent,
    PackApprovalRequested,
    PackApprovalUpdated,
    PackEvent,
    PackPolicyHold,
    PackPolicyReleased,
    sound_part,
)
from notifyd.wire.meaning import faults_together

_WRITTEN_ALIKE: Final = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch
"""A text that JSON, addresses and forms write as it is."""

_ENDS: Final = frozenset({Outcome.ENDED, Outcome.EXPIRED})

_MEANING: Final[Mapping[type[PackEvent], tuple[str, str]]] = {
    PackApprovalRequested: (APPROVAL_KIND, "requested"),
    PackApprovalUpdated: (APPROVAL_KIND, "updated"),
    PackPolicyHold: (POLICY_KIND, "hold"),
    PackPolicyReleased: (POLICY_KIND, "released"),
}


@frozen
class Accepted:
    """`fresh`: 202, else 200 with the first answer again. `answer` is the response's body."""

    fresh: bool
    answer: Mapping[str, Any]


@frozen
class Posted:
    """One event of a batch, with the document it was read from and its tenant."""

    event: CloudEvent
    document: Mapping[str, Any]
    tenant: str


@frozen
class Arrival:
    """How an event came in: from which client, when, and what was in force then. `trace` is kept with it."""

    client: str
    correlation_id: str
    at: Instant
    registry: Registry
    trace: Trace = NO_TRACE


class Ingest:
    """Makes events durable by `append_queue`, as far as `admission` allows. What is new and not planned with that
    goes to `planning_queue`."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        admission: Admission,
        append_queue: AppendQueue,
        planning_queue: PlanningQueue,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._admission = admission
        self._append_queue = append_queue
        self._planning_queue = planning_queue
        self._metrics = metrics
        self._clock = clock

    async def pack_event(
        self,
        event: PackEvent,
        document: Mapping[str, Any],
        principal: Principal,
        correlation_id: str,
        trace: Trace = NO_TRACE,
    ) -> Accepted:
        """Accept one of Task Runner's events. `trace` is kept with it.

        Raises `InvalidError`, `TooOldError`, `EventIdConflictError`, `OverloadedError`, `BacklogFullError` or
        `StoreError`; then nothing is stored, but for a `StoreError`, after which the same event can be sent again.
        """
        registry, now = self._current(), self._clock()
        content = canonical(document)
        same = partial(_same, content, registry.keyring)
        key = event_key(event.tenant.id, event.event_id)
        faults = [
            *member_faults(event, document, registry),
            *_callback_faults(event, principal, registry),
            *_token_faults(event, content, correlation_id),
        ]
        refusal = _refusal(faults, [("/occurredAt", event.occurred_at)], registry, now)
        if refusal is not None and not await self._knows(event.tenant.id, key, same):
            raise refusal
        identity = registry.keyring.identify(EVENT_CONTENT, content)
        row = pack_row(
            event, document, Arrival(principal.name, correlation_id, now, registry, trace), identity
        )
        subject, advance = _subject(event, registry, now, row)
        lease = registry.settings.dispatch.lease
        return await self._append(Append(row, subject, advance, lease=lease, same=same))

    def all_faults(self, error: InvalidError, document: Any, principal: Principal) -> InvalidError:
        """`error`, which the reading of a pack event has raised, with what else is wrong with it."""
        event = sound_part(document, error.faults)
        if event is None:
            return error
        registry = self._current()
        faults = [*member_faults(event, document, registry), *_callback_faults(event, principal, registry)]
        others = _refusal(faults, [("/occurredAt", event.occurred_at)], registry, self._clock())
        told = tuple(f"{fault.pointer}/" for fault in error.faults)
        found = others.faults if others is not None else ()
        return InvalidError(
            [*error.faults, *(one for one in found if not f"{one.pointer}/".startswith(told))]
        )

    async def cloud_event(
        self,
        event: CloudEvent,
        document: Mapping[str, Any],
        tenant: str,
        principal: Principal,
        correlation_id: str,
        trace: Trace = NO_TRACE,
    ) -> Accepted:
        """Accept any other event, as CloudEvents 1.0. Raises as `pack_event` does."""
        registry, now = self._current(), self._clock()
        arrival = Arrival(principal.name, correlation_id, now, registry, trace)
        wanted = _cloud_append(Posted(event, document, tenant), arrival)
        await self._check_times([("/time", wanted)], registry, now)
        return await self._append(wanted)

    async def cloud_events(
        self, batch: Sequence[Posted], principal: Principal, correlation_id: str, trace: Trace = NO_TRACE
    ) -> list[Accepted]:
        """Accept a batch of other events, whole or not at all.

        Raises as `pack_event` does, each fault and each conflict with the place of its event.
        """
        registry, now = self._current(), self._clock()
        arrival = Arrival(principal.name, correlation_id, now, registry, trace)
        wanted = [_cloud_append(one, arrival) for one in batch]
        timed = [(pointer(index, "time"), one) for index, one in enumerate(wanted)]
        await self._check_times(timed, registry, now)
        try:
            with self._admission.admit([one.event for one in wanted]) as leases:
                appends = list(map(_leased, wanted, leases))
                return self._all_accepted(appends, await self._store.append_all(appends) if appends else [])
        except EVENT_REFUSALS as error:
            self._count_refused(wanted, error)
            raise

    def _all_accepted(self, appends: Sequence[Append], appended: Sequence[Appended]) -> list[Accepted]:
        """Raises `EventIdConflictError`."""
        pairs = list(zip(appends, appended, strict=True))
        faults = [
            Fault(pointer(index, "id"), self._conflict(append))
            for index, (append, one) in enumerate(pairs)
            if not (one.fresh or append.same(one.event))
        ]
        if faults:
            raise EventIdConflictError("the batch is not taken", faults)
        return [self._accepted(append, one) for append, one in pairs]

    async def _check_times(
        self, timed: Sequence[tuple[str, Append]], registry: Registry, now: Instant
    ) -> None:
        """Each with the place of its time. Raises one error with all faults."""
        if _refusal((), [(at, one.event.occurred_at) for at, one in timed], registry, now) is None:
            return
        new = [
            (at, one.event.occurred_at)
            for at, one in timed
            if not await self._knows(one.event.tenant, one.event.key, one.same)
        ]
        refusal = _refusal((), new, registry, now)
        if refusal is not None:
            raise refusal

    async def _knows(self, tenant: str, key: str, same: Callable[[Event], bool]) -> bool:
        """Is the event a duplicate? Then it was accepted, whatever the clock and the configuration say now."""
        stored = await self._store.event(tenant, key)
        return stored is not None and same(stored)

    async def _append(self, wanted: Append) -> Accepted:
        try:
            with self._admission.admit([wanted.event]) as (leased,):
                append = _leased(wanted, leased)
                appended, planned = await self._append_queue.append(append)
                if not (appended.fresh or append.same(appended.event)):
                    raise EventIdConflictError(self._conflict(append))
                return self._accepted(append, appended, planned=planned)
        except EVENT_REFUSALS as error:
            self._count_refused([wanted], error)
            raise

    def _count_refused(self, appends: Sequence[Append], error: NotifydError) -> None:
        for one in appends:
            self._metrics.event(self._metrics.kind(one.event.kind), error.code).inc()

    def _accepted(self, append: Append, appended: Appended, *, planned: bool = False) -> Accepted:
        stored = appended.event
        if appended.fresh:
            self._count_approval(stored)
            if not planned:
                self._planning_queue.offer(stored, leased=append.leased)
        elif append.leased and stored.plan is None:
            # Perhaps its first answer was lost, and nobody plans it until its lease ends. Twice does no harm.
            self._planning_queue.offer(stored)
        outcome = str(stored.outcome) if appended.fresh else "duplicate"
        self._metrics.event(self._metrics.kind(stored.kind), outcome).inc()
        return Accepted(appended.fresh, _answer(stored))

    def _count_approval(self, event: Event) -> None:
        """Count what opens or ends. An approval whose first event ended it was never outstanding."""
        if event.kind != APPROVAL_KIND:
            return
        outstanding = self._metrics.outstanding.labels(event.tenant)
        if event.outcome is Outcome.OPENED:
            outstanding.inc()
        elif event.outcome in _ENDS:
            expired = event.outcome is Outcome.EXPIRED
            status = Status.EXPIRED.value if expired else orjson.loads(event.body)["status"]
            self._metrics.ended.labels(status).inc()
            outstanding.dec(event.version > 1)

    def _conflict(self, append: Append) -> str:
        self._metrics.event(self._metrics.kind(append.event.kind), "conflict").inc()
        return f"event {append.event.event_id!r} is known with another content"


def _cloud_append(posted: Posted, arrival: Arrival) -> Append:
    registry = arrival.registry
    content = canonical(posted.document)
    row = cloud_row(posted, arrival, registry.keyring.identify(EVENT_CONTENT, content))
    same = partial(_same, content, registry.keyring)
    return append_as_is(row, lease=registry.settings.dispatch.lease, same=same)


def _leased(append: Append, leased: bool) -> Append:
    """`append`, its event to be planned by this node from memory, or by whichever claims it."""
    return append if append.leased == leased else evolve(append, leased=leased)


def _answer(event: Event) -> dict[str, Any]:
    """Made from the stored event alone, so that a duplicate is given the first answer again."""
    answer: dict[str, Any] = {"eventId": event.event_id, "tenant": event.tenant}
    if event.run_id is not None:
        answer |= {"runId": event.run_id, "approvalId": event.approval_id, "round": event.round}
    return answer | {"outcome": str(event.outcome), "correlationId": event.correlation_id}


def _same(content: bytes, keyring: Keyring, stored: Event) -> bool:
    """Is what is stored the given event? Its content may be known under an older key.

    Where that key was dropped nobody can compare, and the id alone tells: a conflict would be final for a sender
    that does nothing but repeat itself.
    """
    if not keyring.comparable(stored.content_id):
        return True
    return keyring.same(EVENT_CONTENT, content, stored.content_id)


# --- checks that need the config or the clock --------------------------------------------------------------


def _refusal(
    faults: Sequence[Fault], times: Sequence[tuple[str, Instant]], registry: Registry, now: Instant
) -> FaultsError | None:
    """One error with all faults, those of `times` with their places first; None where there is none.

    A batch with an event of the future can never be taken; else one that is too old gives the error its name.
    """
    latest, earliest = now + registry.settings.auth.clock_tolerance, now - registry.settings.retention.events
    wrong = [(at, time > latest) for at, time in times if time > latest or time < earliest]
    if not (wrong or faults):
        return None
    told = [Fault(at, _AHEAD if ahead else _TOO_OLD) for at, ahead in wrong]
    old = wrong and not any(ahead for _, ahead in wrong)
    return (TooOldError if old else InvalidError)([*told, *faults])


_AHEAD: Final = "is ahead of the clock by more than auth.clock_tolerance"
_TOO_OLD: Final = "is older than retention.events keeps"


def _callback_faults(event: PackEvent, principal: Principal, registry: Registry) -> Iterator[Fault]:
    if event.resume is None:
        return
    gate = Gate.at(event.resume.callback_url)
    if gate is not None and gate.client == principal.name:
        return  # as the service itself has written it
    origins = registry.settings.resume.allowed_origins
    fault = callback_fault(event.resume.callback_url, origins, registry.guard)
    if fault is not None:
        yield Fault("/resume/callbackUrl", fault)


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


def _token_faults(event: PackEvent, content: bytes, correlation_id: str) -> Iterator[Fault]:
    """The token is sealed at rest, so it may not stand where it would be kept as it is."""
    token = _searched_token(event)
    if token is None or event.resume is None:
        return
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


def _searched_token(event: PackEvent) -> str | None:
    """The sender's token, a secret that no config names. One too short to search for would shred ids and texts."""
    token = event.resume.token.reveal() if event.resume else ""
    return token if len(token) >= MIN_SEARCHED else None


def _spelled(token: str) -> Sequence[str]:
    """`token` as the sender may have written it elsewhere, in an address perhaps: the longest first."""
    return (token,) if _WRITTEN_ALIKE(token) else sorted(spellings(token), key=len, reverse=True)


def _in_json(text: str) -> bytes:
    """`text` as it stands inside a JSON string."""
    return orjson.dumps(text)[1:-1]


# --- what an event becomes: pure ---------------------------------------------------------------------------


def pack_row(event: PackEvent, document: Mapping[str, Any], arrival: Arrival, content_id: str = "") -> Event:
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
        body=_pack_body(event, {**document, **arrival.trace}, kind, action, registry),
        content_id=content_id,
        client=arrival.client,
        correlation_id=arrival.correlation_id,
        run_id=event.run_id,
        approval_id=event.approval_id,
        outcome=Outcome.OPENED if opens else Outcome.ACCEPTED,
        notify=registry.rules.concern(kind),
        version=int(opens),
        round=int(opens),
    )


def cloud_row(posted: Posted, arrival: Arrival, content_id: str = "") -> Event:
    """A CloudEvent as it is stored."""
    event, tenant, registry = posted.event, posted.tenant, arrival.registry
    occurred_at = arrival.at if event.time is None else event.time
    trace = NO_TRACE if PARENT in posted.document else arrival.trace  # its own comes first
    meaning = {
        "kind": event.type,
        "action": "",
        "tenant": {"id": tenant},
        "occurredAt": rfc3339(occurred_at),
    }
    return Event(
        tenant=tenant,
        key=derived_id("cloudevent", tenant, event.source, event.id),
        event_id=event.id,
        kind=event.type,
        action="",
        occurred_at=occurred_at,
        received_at=arrival.at,
        body=canonical(registry.redactor.tree({**posted.document, **trace}) | meaning).decode(),
        content_id=content_id,
        client=arrival.client,
        correlation_id=arrival.correlation_id,
        notify=registry.rules.concern(event.type, tenant),
    )


# --- what is stored ----------------------------------------------------------------------------------------


def _pack_body(event: PackEvent, shown: dict[str, Any], kind: str, action: str, registry: Registry) -> str:
    """What rules see: the payload, redacted, without its token, with its meaning. `shown` is a copy."""
    if event.resume:  # the member may be null
        shown["resume"] = {name: value for name, value in shown["resume"].items() if name != "token"}
    seen = registry.redactor.tree(shown)
    meaning = {"kind": kind, "action": action}
    if isinstance(event, PackApprovalRequested) and event.expires_at is None:
        meaning["expiresAt"] = rfc3339(_expiry(event, registry))  # the reader is told when it is too late
    body, token = canonical(seen | meaning), _searched_token(event)
    spelled = _spelled(token) if token is not None else ()
    if any(_in_json(one) in body for one in spelled):
        body = canonical(_without_token(seen, spelled) | meaning)
    return body.decode()


def _expiry(event: PackApprovalRequested, registry: Registry) -> Instant:
    """When the approval expires: as the event says, else by `approvals.default_ttl`."""
    if event.expires_at is not None:
        return event.expires_at
    return event.occurred_at + registry.settings.approvals.default_ttl


def _without_token(seen: Mapping[str, Any], spelled: Sequence[str]) -> dict[str, Any]:
    hidden = {name: _without(value, spelled) for name, value in seen.items()}
    # The contract's own names mean what they mean, whatever the token is.
    return {_without(n, spelled) if n.startswith("x-") else n: v for n, v in hidden.items()}


def _without(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return reduce(lambda text, secret: text.replace(secret, HIDDEN), secrets, value)
    if isinstance(value, Mapping):
        return {_without(k, secrets): _without(v, secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [_without(v, secrets) for v in value]
    return value


# --- what the event does to its approval or hold -----------------------------------------------------------


def _subject(
    event: PackEvent, registry: Registry, now: Instant, row: Event
) -> tuple[ApprovalKey | IncidentKey | None, Callable[[Any], Advance]]:
    """What the event is about, and what it does to that."""
    key, shared = row.approval_key, registry.clients.shares
    if isinstance(event, PackApprovalRequested):
        request = _request(event, row, registry)
        return key, lambda stored: on_requested(stored, row, request, now, shared)
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
