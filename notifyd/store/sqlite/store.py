"""The store over one SQLite file: each operation hands a step to the writer or a query to the readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar, cast

from attrs import evolve, frozen

from notifyd.errors import StoreError
from notifyd.model import (
    Approval,
    ApprovalKey,
    AuditRecord,
    AuditSeal,
    Clock,
    Decision,
    Delivery,
    Event,
    Incident,
    Instant,
    OwnDeputy,
    Silence,
)
from notifyd.store import (
    Aged,
    Append,
    Appended,
    ApprovalFilter,
    AttemptRecord,
    AuditFilter,
    ChannelState,
    CollectionName,
    DeliveryFilter,
    EffectCounts,
    IncidentFilter,
    LaneBacklog,
    Page,
    PlanFixed,
    Planned,
    Purged,
    SealedAudit,
    SealedRow,
    SealKeys,
    SetAsideRow,
    Stored,
    Turn,
    Usage,
    Waits,
    Window,
)
from notifyd.store.sqlite import approvals as approval_steps
from notifyd.store.sqlite import aside as aside_steps
from notifyd.store.sqlite import audit as audit_steps
from notifyd.store.sqlite import audit_seals as seal_steps
from notifyd.store.sqlite import channel_state as state_steps
from notifyd.store.sqlite import deliveries as delivery_steps
from notifyd.store.sqlite import deputies as deputy_steps
from notifyd.store.sqlite import events as event_steps
from notifyd.store.sqlite import moving as moving_steps
from notifyd.store.sqlite import retention as retention_steps
from notifyd.store.sqlite import sealed as sealed_steps
from notifyd.store.sqlite import silences as silence_steps
from notifyd.store.sqlite import windows as window_steps
from notifyd.store.sqlite.copier import Copier
from notifyd.store.sqlite.files import Database, FileLock, usage
from notifyd.store.sqlite.guard import FileGuard
from notifyd.store.sqlite.readers import Readers
from notifyd.store.sqlite.writer import GroupWriter

T = TypeVar("T")

_CHUNK: Final = 32
"""How many of a call's rows are one step: a long call must not hold the event loop for longer than others."""

_RENEWED: Final = 256
"""How many leases are one step: some 3 ms."""

_RENEWALS: Final = 3
"""How many of these steps are handed in at once: on a slow disk each commit takes longer than they do."""


@frozen
class Parts:
    """What opening the file gives."""

    path: Path
    lock: FileLock
    db: Database
    guard: FileGuard
    copier: Copier
    readers: Readers
    lists: Readers
    surveys: Readers
    timeout: float
    life: int


class SqliteStore:
    """Implements `notifyd.store.Store`. Made by `open_sqlite`, used and closed on the same event loop."""

    def __init__(self, parts: Parts, writer: GroupWriter, worker: ThreadPoolExecutor, clock: Clock) -> None:
        self._path = parts.path
        self._lock = parts.lock
        self._guard = parts.guard
        self._readers = parts.readers
        self._lists = parts.lists
        self._surveys = parts.surveys
        self._timeout = parts.timeout
        self._life = parts.life
        self._aside = parts.db.aside
        self._writer = writer
        self._worker = worker
        self._clock = clock
        self._closing: asyncio.Task[None] | None = None

    # -- accepting and planning ---------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        return await self._writer.submit(lambda db: event_steps.append(db, self._life, append))

    async def append_planned(self, append: Append, planned: Planned) -> tuple[Appended, PlanFixed | None]:
        appended, fixed = await self._writer.submit(
            lambda db: event_steps.append_planned(db, self._life, append, planned)
        )
        return appended, fixed and await self._with_rest(planned, fixed)

    async def append_all(self, appends: Sequence[Append]) -> list[Appended]:
        return await self._writer.submit(lambda db: event_steps.append_all(db, self._life, appends))

    async def event(self, tenant: str, key: str) -> Event | None:
        return await self._read(lambda db: event_steps.find(db, tenant, key))

    async def claim_unplanned(
        self, owner: str, now: Instant, until: Instant, limit: int, *, size: int | None = None
    ) -> list[Event]:
        del owner  # one process owns the file, so a lease needs no name
        unplanned = partial(event_steps.unplanned, life=self._life, now=now, limit=limit, size=size)
        claim = partial(event_steps.claim_unplanned, life=self._life, now=now, until=until)
        return await self._claim(unplanned, claim)

    async def _claim(self, look: Callable[[Database], list[int]], claim: Callable[..., list[T]]) -> list[T]:
        """Claim what `look` finds; look again where all of that has been set aside."""
        while True:
            found = self._aside.found
            candidates = await self._read(look)
            steps = (partial(claim, candidates=chunk) for chunk in _chunks(candidates))
            claimed = list(chain.from_iterable(await self._write_all(steps)))
            if claimed or self._aside.found == found:
                return claimed

    async def fix_plans(self, planned: Sequence[Planned]) -> list[PlanFixed]:
        fix = partial(event_steps.fix_plans, life=self._life)
        steps = (partial(fix, planned=some) for some in _few_rows(planned))
        fixed = chain.from_iterable(await self._write_all(steps))
        return [await self._with_rest(one, done) for one, done in zip(planned, fixed, strict=True)]

    async def _with_rest(self, planned: Planned, fixed: PlanFixed) -> PlanFixed:
        """Insert the deliveries of a plan that its own step has left over."""
        rest = planned.deliveries[delivery_steps.AT_ONCE :]
        if not (rest and fixed.won):
            return fixed
        return evolve(fixed, inserted=fixed.inserted | await self.insert_deliveries(planned.event, rest))

    async def insert_deliveries(self, event: Event | None, deliveries: Sequence[Delivery]) -> frozenset[str]:
        *others, last = _chunks(deliveries, delivery_steps.AT_ONCE) if deliveries else [()]
        inserted = [
            await self._writer.submit(partial(self._insert, event=None, rows=chunk)) for chunk in others
        ]
        inserted.append(await self._writer.submit(partial(self._insert, event=event, rows=last)))
        return frozenset().union(*inserted)

    def _insert(self, db: Database, event: Event | None, rows: Sequence[Delivery]) -> frozenset[str]:
        inserted = delivery_steps.insert(db, self._life, rows)
        if event is not None:
            event_steps.finish(db, event)
        return inserted

    # -- dispatching --------------------------------------------------------------------------------------

    async def backlog(self) -> list[LaneBacklog]:
        return await self._survey(delivery_steps.backlog)

    async def waits(self, now: Instant) -> list[Waits]:
        return await self._survey(lambda db: delivery_steps.waits(db, now))

    async def claim_due(
        self,
        lane: str,
        owner: str,
        now: Instant,
        until: Instant,
        limit: int,
        *,
        held: Collection[str] = (),
        overdue_only: bool = False,
        horizon: Instant | None = None,
        size: int | None = None,
    ) -> list[Delivery]:
        def due(db: Database) -> list[int]:
            return delivery_steps.due(db, self._life, lane, now, limit, held, overdue_only, horizon, size)

        claim = partial(
            delivery_steps.claim, life=self._life, owner=owner, now=now, until=until, horizon=horizon
        )
        return await self._claim(due, claim)

    async def renew_leases(
        self, deliveries: Sequence[Delivery], until: Instant, *, sending: bool
    ) -> frozenset[str]:
        renew = partial(delivery_steps.renew_leases, life=self._life, until=until, sending=sending)
        steps = [partial(renew, deliveries=chunk) for chunk in _chunks(deliveries, _RENEWED)]
        # As many as make a commit, so that what is written meanwhile waits for those and not for all.
        held = [one for some in _chunks(steps, _RENEWALS) for one in await self._write_all(iter(some))]
        return frozenset().union(*held)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        steps = (partial(delivery_steps.release, life=self._life, deliveries=c) for c in _chunks(deliveries))
        await self._write_all(steps)

    async def record(self, record: AttemptRecord) -> bool:
        return await self._writer.submit(lambda db: self._record(db, record))

    def _record(self, db: Database, record: AttemptRecord) -> bool:
        if not delivery_steps.record(db, self._life, record):
            return False
        audit_steps.write(db, record.audit)
        if record.event is not None:
            event_steps.insert(db, self._life, record.event, record.delivery.lease_until)
        if record.resume is not None:
            approval_steps.set_resume(db, record.delivery, record.resume)
        return True

    async def has_earlier(self, delivery: Delivery) -> bool:
        if delivery.run_id is None or delivery.seq <= 1:
            return False
        return await self._read(lambda db: delivery_steps.has_earlier(db, delivery))

    # -- storm control ------------------------------------------------------------------------------------

    async def spent(self, tenant: str, budget: str, since: Instant, limit: int) -> list[Instant]:
        return await self._read(lambda db: window_steps.spent(db, tenant, budget, since, limit))

    async def due_windows(self, now: Instant, limit: int) -> list[Window]:
        return await self._read(lambda db: window_steps.due(db, now, limit))

    async def window_rows(self, window: Window, limit: int) -> list[Delivery]:
        return await self._read(lambda db: window_steps.held(db, window, limit))

    async def fold(self, window: Window, digest: Delivery, ids: Collection[str] | None) -> int:
        now = self._clock()
        return await self._change_window(
            lambda db: window_steps.fold(db, self._life, window, digest, ids, now)
        )

    async def let_go(self, window: Window) -> int:
        now = self._clock()
        return await self._change_window(lambda db: window_steps.let_go(db, window, now))

    async def postpone(self, window: Window, closes_at: Instant) -> None:
        await self._change_window(lambda db: window_steps.postpone(db, window, closes_at))

    async def close_windows(self, tenant: str, first: str, last: str, at: Instant) -> None:
        after: str | None = first
        while after is not None:
            step = partial(silence_steps.close_windows, tenant=tenant, after=after, last=last, at=at)
            after = await self._writer.submit(step)

    async def _change_window(self, step: Callable[[Database], int]) -> int:
        return await self._repeat(step, window_steps.AT_ONCE)

    async def _repeat(self, step: Callable[[Database], int], at_once: int) -> int:
        """Repeat a step that changes up to so many rows until there are no more; how many it was."""
        total = 0
        while True:
            changed = await self._writer.submit(step)
            total += changed
            if changed < at_once:
                return total

    # -- silences -----------------------------------------------------------------------------------------

    async def add_silence(self, silence: Silence, record: AuditRecord, forget: Instant) -> None:
        await self._writer.submit(lambda db: silence_steps.add(db, silence, record, forget))

    async def end_silence(
        self, tenant: str, silence_id: str, at: Instant, record: AuditRecord
    ) -> Silence | None:
        return await self._writer.submit(lambda db: silence_steps.end(db, tenant, silence_id, at, record))

    async def silences(self, tenant: str, page: Page) -> tuple[list[Silence], int | None]:
        return await self._list(lambda db: silence_steps.search(db, tenant, page))

    async def live_silences(self, now: Instant) -> list[Silence]:
        return await self._read(lambda db: silence_steps.live(db, now))

    # -- deputies -----------------------------------------------------------------------------------------

    async def add_deputy(self, deputy: OwnDeputy, record: AuditRecord) -> None:
        await self._writer.submit(lambda db: deputy_steps.add(db, deputy, record))

    async def end_deputy(self, tenant: str, deputy_id: str, at: Instant, record: AuditRecord) -> None:
        await self._writer.submit(lambda db: deputy_steps.end(db, tenant, deputy_id, at, record))

    async def live_deputies(self, now: Instant) -> list[OwnDeputy]:
        return await self._read(lambda db: deputy_steps.live(db, now))

    async def forget_deputies(self, before: Instant) -> int:
        return await self._repeat(lambda db: deputy_steps.forget(db, before), window_steps.AT_ONCE)

    # -- approvals ----------------------------------------------------------------------------------------

    async def approval(self, key: ApprovalKey) -> Approval | None:
        return await self._read(lambda db: approval_steps.find(db, key))

    async def approval_versions(self, keys: Collection[ApprovalKey]) -> dict[ApprovalKey, int]:
        return await self._read(lambda db: approval_steps.versions(db, keys))

    async def superseded(self, key: ApprovalKey, limit: int) -> list[Decision]:
        return await self._list(lambda db: approval_steps.superseded(db, key, limit))

    async def superseded_by(self, key: ApprovalKey, actor: str, plan_hash: str) -> list[Decision]:
        return await self._read(lambda db: approval_steps.superseded_by(db, key, actor, plan_hash))

    async def replace_approval(self, approval: Approval) -> bool:
        return await self._writer.submit(lambda db: approval_steps.replace(db, approval))

    async def due_approvals(self, now: Instant, limit: int) -> list[Approval]:
        return await self._read(lambda db: approval_steps.due(db, now, limit))

    async def timed_approvals(self, now: Instant, limit: int) -> list[Approval]:
        return await self._read(lambda db: approval_steps.timed(db, now, limit))

    async def wake_timers(self) -> None:
        await self._writer.submit(lambda _: None)  # what was handed in before is to be found
        for chunk in _chunks(await self._survey(approval_steps.pending), window_steps.AT_ONCE):
            await self._writer.submit(partial(approval_steps.wake_timers, found=chunk))

    async def owing_approvals(
        self, now: Instant, limit: int, *, horizon: Instant | None = None
    ) -> list[Approval]:
        due = await self._read(lambda db: approval_steps.owing(db, now, limit))
        if horizon is None or len(due) >= limit:
            return due
        after = max(now, horizon)
        return due + await self._read(lambda db: approval_steps.owing_far(db, after, limit - len(due)))

    async def effect_counts(self) -> EffectCounts:
        return await self._survey(approval_steps.effect_counts)

    async def with_dead_effects(self, tenant: str, page: Page) -> tuple[list[Approval], int | None]:
        return await self._list(lambda db: approval_steps.with_dead_effects(db, tenant, page))

    async def with_dead_effect(self, tenant: str, effect_id: str) -> Approval | None:
        return await self._survey(lambda db: approval_steps.with_dead_effect(db, tenant, effect_id))

    async def complete_effect(self, key: ApprovalKey, effect_id: str) -> None:
        await self._writer.submit(lambda db: approval_steps.complete_effect(db, key, effect_id))

    async def approvals(
        self, tenant: str, where: ApprovalFilter, page: Page
    ) -> tuple[list[Approval], int | None]:
        return await self._list(lambda db: approval_steps.search(db, tenant, where, page))

    async def outstanding(self) -> dict[str, int]:
        return await self._survey(approval_steps.outstanding)

    # -- incidents ----------------------------------------------------------------------------------------

    async def incidents(
        self, tenant: str, where: IncidentFilter, page: Page
    ) -> tuple[list[Incident], int | None]:
        return await self._list(lambda db: approval_steps.incidents(db, tenant, where, page))

    # -- the ledger ---------------------------------------------------------------------------------------

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None:
        return await self._read(lambda db: delivery_steps.find(db, tenant, delivery_id))

    async def deliveries(
        self, tenant: str, where: DeliveryFilter, page: Page
    ) -> tuple[list[Delivery], int | None]:
        return await self._list(lambda db: delivery_steps.search(db, tenant, where, page))

    async def revive(
        self,
        tenant: str,
        delivery_id: str,
        now: Instant,
        deadline: Instant,
        *,
        message: str | None = None,
        sealed: bool = False,
    ) -> Delivery | None:
        return await self._writer.submit(
            lambda db: delivery_steps.revive(db, tenant, delivery_id, now, deadline, message, sealed)
        )

    async def dead_letters(self) -> dict[str, int]:
        return await self._survey(delivery_steps.dead_letters)

    async def answered(self, ref: str) -> Delivery | None:
        return await self._read(lambda db: delivery_steps.answered(db, ref))

    async def copies(self, key: ApprovalKey) -> list[Delivery]:
        return await self._read(lambda db: delivery_steps.copies(db, key))

    # -- what channels keep -------------------------------------------------------------------------------

    async def channel_state(self, channel: str, name: str) -> ChannelState | None:
        return await self._read(lambda db: state_steps.find(db, channel, name))

    async def keep_channel_state(self, state: ChannelState, before: str | None = None) -> bool:
        return await self._writer.submit(lambda db: state_steps.keep(db, state, before))

    async def drop_channel_state(self, channel: str, name: str) -> None:
        await self._writer.submit(lambda db: state_steps.drop(db, channel, name))

    async def channel_states(self) -> list[ChannelState]:
        return await self._survey(state_steps.every)

    # -- audit --------------------------------------------------------------------------------------------

    async def write_audit(self, records: Sequence[AuditRecord]) -> None:
        await self._writer.submit(lambda db: audit_steps.write(db, records))

    async def audit(
        self, tenant: str, where: AuditFilter, page: Page
    ) -> tuple[list[AuditRecord], int | None]:
        return await self._list(lambda db: audit_steps.search(db, tenant, where, page))

    async def tenants_with_unsealed_audit(self) -> list[str]:
        return await self._survey(seal_steps.unsealed_tenants)

    async def unsealed_audit(self, tenant: str, limit: int) -> list[AuditRecord]:
        return await self._survey(lambda db: seal_steps.unsealed(db, tenant, limit))

    async def newest_audit_seal(self, tenant: str) -> AuditSeal | None:
        return await self._read(lambda db: seal_steps.newest(db, tenant))

    async def next_audit_seal(self, tenant: str, number: int) -> SealedAudit | None:
        return await self._list(lambda db: seal_steps.following(db, tenant, number))

    async def stray_audit(self, tenant: str, limit: int) -> list[AuditRecord]:
        return await self._list(lambda db: seal_steps.strays(db, tenant, limit))

    async def add_audit_seal(self, seal: AuditSeal, records: Sequence[AuditRecord]) -> bool:
        try:
            return await self._writer.submit(lambda db: seal_steps.add(db, seal, records))
        except seal_steps.NotUnsealedError:
            return False

    async def drop_audit_seals(self, tenant: str, before: int) -> None:
        await self._repeat(lambda db: seal_steps.drop(db, tenant, before), seal_steps.DROPPED_AT_ONCE)

    async def tenants_with_audit(self, before: Instant) -> list[str]:
        return await self._survey(lambda db: seal_steps.tenants(db, before))

    # -- upkeep -------------------------------------------------------------------------------------------

    async def purge(self, aged: Aged, limit: int, after: str = "", *, dry_run: bool = False) -> Purged:
        found = await self._survey(lambda db: retention_steps.candidates(db, aged, limit, after))
        wanted = sum(one.removable for one in found)
        if dry_run or not wanted:
            done, removed, seconds = len(found), wanted, 0.0
        else:
            warm = await self._survey(lambda db: retention_steps.warm(db, aged, found))
            removal = await self._writer.submit(lambda db: retention_steps.remove(db, aged, warm))
            done, removed, seconds = removal.done, removal.removed, perf_counter() - removal.began
        ended = done == len(found) < limit
        return Purged(done, removed, seconds, None if ended else found[done - 1].mark)

    async def claim_job(
        self, job: str, now: Instant, until: Instant, *, unless_done_since: Instant | None = None
    ) -> Turn:
        del job, now, until, unless_done_since
        return Turn(mine=True)  # one process owns the file

    async def end_job(self, job: str, done_at: Instant | None = None) -> None:
        del job, done_at

    async def count(self, collection: CollectionName) -> int:
        return await self._survey(lambda db: moving_steps.count(db, collection))

    async def dump(
        self, collection: CollectionName, after: str, limit: int
    ) -> tuple[list[Stored], str | None]:
        return await self._survey(lambda db: moving_steps.dump(db, collection, after, limit))

    async def restore(self, rows: Sequence[Stored]) -> int:
        steps = (partial(moving_steps.restore, given=chunk) for chunk in _chunks(rows))
        return sum(await self._write_all(steps))

    async def seal_keys(self) -> SealKeys:
        return await self._survey(sealed_steps.noted)

    async def note_seal_keys(self, keys: SealKeys) -> None:
        await self._writer.submit(lambda db: sealed_steps.note(db, keys))

    async def sealed_rows(
        self, collection: CollectionName, after: str, limit: int
    ) -> tuple[list[SealedRow], str | None]:
        return await self._survey(lambda db: sealed_steps.page(db, collection, after, limit))

    async def replace_message(self, delivery: Delivery, message: str) -> bool:
        return await self._writer.submit(lambda db: sealed_steps.replace(db, delivery, message))

    async def set_aside(self, row: Event | Approval | Delivery, fault: str) -> bool:
        return await self._read(lambda db: aside_steps.note(db, row, fault))

    async def undecodable(self) -> list[SetAsideRow]:
        await self._survey(aside_steps.look_again)
        return self._aside.rows()

    async def usage(self) -> Usage:
        return await self._survey(lambda _: usage(self._path))

    async def openings(self) -> int | None:
        return self._life

    # -- the store itself ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        await self._writer.submit(
            lambda db: db.execute("UPDATE store SET probed_at = ?", (self._clock(),)).rowcount
        )

    async def beat(self, now: Instant, until: Instant) -> int:
        del now, until
        return 1  # one process owns the file

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            for readers in (self._readers, self._lists, self._surveys):
                await loop.run_in_executor(self._worker, readers.close)
            await self._writer.aclose()
        finally:
            self._worker.shutdown(wait=False)
            self._guard.close()
            self._lock.release()

    async def _read(self, query: Callable[[Database], T]) -> T:
        """A look-up that the way of an event, a decision or the approver's page waits for."""
        self._check_open()
        return await self._readers.run(query)

    async def _list(self, query: Callable[[Database], T]) -> T:
        """A page of a list, which anybody with the scope may ask for as often as they like."""
        self._check_open()
        return await self._lists.run_within(self._timeout, query)

    async def _survey(self, query: Callable[[Database], T]) -> T:
        """Counts, retention and moving, which may take as long as there are rows."""
        self._check_open()
        return await self._surveys.run(query)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreError(f"{self._path}: the store is closed")

    async def _write_all(self, steps: Iterator[Callable[[Database], T]]) -> list[T]:
        """Hand in all the steps, and wait for every one of them even if one fails."""
        results = await asyncio.gather(*map(self._writer.submit, steps), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast(list[T], results)


def _chunks(rows: Sequence[T], size: int = _CHUNK) -> Iterator[Sequence[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _few_rows(planned: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Parts that are one step each, by the deliveries that it inserts."""
    some, rows = list[Planned](), 0
    for one in planned:
        some.append(one)
        rows += len(one.deliveries)
        if rows >= delivery_steps.AT_ONCE or len(some) == _CHUNK:
            yield some
            some, rows = [], 0
    if some:
        yield some
