"""Accepting events: from a validated one to a durable one, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson
from attrs import evolve, frozen

from notifyd.errors import (
    EventIdConflictError,
    Fault,
    FaultsError,
    InvalidError,
    NotifydError,
    TooOldError,
)
from notifyd.flow.arrival import Arrival, Posted, cloud_row, member_faults, pack_row, subject_of, token_faults
from notifyd.flow.queues import Admission, AppendQueue, PlanningQueue
from notifyd.metrics import EVENT_REFUSALS, Metrics
from notifyd.model import APPROVAL_KIND, Clock, Event, Gate, Instant, Outcome, Principal, Status
from notifyd.registry.egress import callback_fault
from notifyd.registry.registry import Registry
from notifyd.security.secrets import EVENT_CONTENT, Keyring
from notifyd.store import Append, Appended, Store, append_as_is
from notifyd.tracing import NO_TRACE, Trace
from notifyd.wire.codec import Document, event_key, parse_instant, pointer
from notifyd.wire.events import CloudEvent, PackEvent, sound_part

_ENDS: Final = frozenset({Outcome.ENDED, Outcome.EXPIRED})


@frozen
class Accepted:
    """`fresh`: 202, else 200 with the first answer again. `answer` is the response's body."""

    fresh: bool
    answer: Mapping[str, Any]


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
        read = Document.of(document)
        same = partial(_same, read.text, registry.keyring)
        faults = [
            *member_faults(event, document, registry),
            *_callback_faults(event, principal, registry),
            *token_faults(event, read.text, correlation_id),
        ]
        if faults or not _timely(event.occurred_at, registry, now):
            key = event_key(event.tenant.id, event.event_id)
            if not await self._knows(event.tenant.id, key, same):
                raise _refusal(faults, [("/occurredAt", event.occurred_at)], registry, now)
        arrival = Arrival(principal.name, correlation_id, now, registry, trace)
        row = pack_row(event, read, arrival)
        subject, advance = subject_of(event, row, registry)
        lease = registry.settings.dispatch.lease
        return await self._append(Append(row, subject, advance, lease=lease, same=same))

    def all_faults(self, error: InvalidError, document: Any, principal: Principal) -> InvalidError:
        """`error`, which the reading of a pack event has raised, with what else is wrong with it."""
        event = sound_part(document, error.faults)
        if event is None:
            return error
        registry = self._current()
        faults = [*member_faults(event, document, registry), *_callback_faults(event, principal, registry)]
        found = _refusal(faults, [("/occurredAt", event.occurred_at)], registry, self._clock()).faults
        told = tuple(f"{fault.pointer}/" for fault in error.faults)
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
        wanted = _cloud_append(Posted(event, Document.of(document), tenant), arrival)
        if event.time is not None and not _timely(event.time, registry, now):
            await self._check_times([("/time", wanted)], registry, now)
        return await self._append(wanted)

    def time_faults(self, documents: Sequence[tuple[str, Mapping[str, Any]]]) -> Sequence[Fault]:
        """What is wrong with the times of CloudEvents that may be wrong otherwise, each with its place."""
        times: list[tuple[str, Instant]] = []
        for base, document in documents:
            if type(document.get("time")) is str:
                with suppress(ValueError):  # which the reading of the event tells
                    times.append((f"{base}/time", parse_instant(document["time"])))
        return _refusal((), times, self._current(), self._clock()).faults

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
        wrong = [(at, one) for at, one in timed if not _timely(one.event.occurred_at, registry, now)]
        new = [
            (at, one.event.occurred_at)
            for at, one in wrong
            if not await self._knows(one.event.tenant, one.event.key, one.same)
        ]
        if new:
            raise _refusal((), new, registry, now)

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
    same = partial(_same, posted.document.text, registry.keyring)
    return append_as_is(cloud_row(posted, arrival), lease=registry.settings.dispatch.lease, same=same)


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


def _timely(time: Instant, registry: Registry, now: Instant) -> bool:
    settings = registry.settings
    return now - settings.retention.events <= time <= now + settings.auth.clock_tolerance


def _refusal(
    faults: Sequence[Fault], times: Sequence[tuple[str, Instant]], registry: Registry, now: Instant
) -> FaultsError:
    """One error with all faults, those of `times` with their places first.

    A batch with an event of the future can never be taken; else one that is too old gives the error its name.
    """
    wrong = [(at, time > now) for at, time in times if not _timely(time, registry, now)]
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
