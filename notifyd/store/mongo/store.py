"""The store over one MongoDB database, which several nodes may share: each operation in its time, or an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from collections.abc import Collection as Ids
from typing import Any, Final, TypeVar

import pymongo
from pymongo.errors import ExecutionTimeout, PyMongoError

from notifyd.config.settings import StoreDriver
from notifyd.errors import ListTimeoutError, StoreError, StoreUnusableError
from notifyd.model import (
    SECOND,
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
    CommitObserver,
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
from notifyd.store.aside import SetAside
from notifyd.store.mongo import approvals as approval_steps
from notifyd.store.mongo import audit as audit_steps
from notifyd.store.mongo import audit_seals as seal_steps
from notifyd.store.mongo import channel_state as state_steps
from notifyd.store.mongo import deliveries as delivery_steps
from notifyd.store.mongo import deputies as deputy_steps
from notifyd.store.mongo import digests, reading
from notifyd.store.mongo import events as event_steps
from notifyd.store.mongo import jobs as job_steps
from notifyd.store.mongo import moving as moving_steps
from notifyd.store.mongo import nodes as node_steps
from notifyd.store.mongo import retention as retention_steps
from notifyd.store.mongo import sealed as sealed_steps
from notifyd.store.mongo import silences as silence_steps
from notifyd.store.mongo import windows as window_steps
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.claims import Queue, Wanted
from notifyd.store.mongo.driver import Connection, connect, store_error
from notifyd.store.mongo.ends import Ends
from notifyd.store.mongo.schema import check_there, migrate

T = TypeVar("T")

_log = logging.getLogger("notifyd.store")

_LOST_LOCK: Final = "Lock is not acquired"
"""What a cancellation, and so a timeout, becomes where PyMongo's asynchronous client is waiting for a server: the
lock that it waits with is not its own then (https://jira.mongodb.org/browse/PYTHON-5167)."""

_DRIVER_SHARE: Final = 0.9
"""Of an operation's time, what the driver has to give up by itself, which leaves its connections in order."""

_LISTS: Final = 4
"""How many lists are read at once."""

_START_UP: Final = 600.0
"""How long building indexes over an existing database may take, in seconds."""


class MongoStore:
    """Implements `notifyd.store.Store`. Made by `open_mongo`, used and closed on the same event loop."""

    def __init__(self, base: Base, timeout: float) -> None:
        self._base = base
        self._timeout = timeout
        self._events = Queue(base, CollectionName.EVENTS)
        self._deliveries = Queue(base, CollectionName.DELIVERIES, delivery_steps.FREED)
        self._ends = Ends(base)
        self._gone: StoreUnusableError | None = None
        self._failing = False
        self._lists = asyncio.Semaphore(_LISTS)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: asyncio.Task[None] | None = None

    # -- accepting and planning ---------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        return await self._run(event_steps.append(self._base, append))

    async def append_planned(self, append: Append, planned: Planned) -> tuple[Appended, PlanFixed | None]:
        del planned  # a second write, for which no sender needs to wait
        return await self.append(append), None

    async def append_all(self, appends: Sequence[Append]) -> list[Appended]:
        return await self._run(event_steps.append_all(self._base, appends))

    async def event(self, tenant: str, key: str) -> Event | None:
        return await self._run(event_steps.find(self._base, tenant, key))

    async def claim_unplanned(
        self, owner: str, now: Instant, until: Instant, limit: int, *, size: int | None = None
    ) -> list[Event]:
        return await self._run(self._claim_unplanned(owner, now, until, limit, size))

    async def _claim_unplanned(
        self, owner: str, now: Instant, until: Instant, limit: int, size: int | None
    ) -> list[Event]:
        if not await self._base.server_clock.trusted():
            return []
        return await event_steps.claim_unplanned(self._base, self._events, owner, now, until, limit, size)

    async def fix_plans(self, planned: Sequence[Planned]) -> list[PlanFixed]:
        return await self._run(event_steps.fix_plans(self._base, planned))

    async def insert_deliveries(self, event: Event | None, deliveries: Sequence[Delivery]) -> frozenset[str]:
        return await self._run(self._insert(event, deliveries))

    async def _insert(self, event: Event | None, rows: Sequence[Delivery]) -> frozenset[str]:
        inserted = await delivery_steps.insert(self._base, rows)
        if event is not None:
            await event_steps.finish(self._base, [event])
        return inserted

    # -- dispatching --------------------------------------------------------------------------------------

    async def backlog(self) -> list[LaneBacklog]:
        return await self._run(delivery_steps.backlog(self._base))

    async def waits(self, now: Instant) -> list[Waits]:
        return await self._run(delivery_steps.waits(self._base, now))

    async def claim_due(
        self,
        lane: str,
        owner: str,
        now: Instant,
        until: Instant,
        limit: int,
        *,
        held: Ids[str] = (),
        overdue_only: bool = False,
        horizon: Instant | None = None,
        size: int | None = None,
    ) -> list[Delivery]:
        where: dict[str, Any] = {"lane": lane}
        if overdue_only:
            where["deadline"] = {"$lte": now}
        wanted = Wanted(
            *(where, now, limit, held, horizon, overdue_only),
            in_turn=True,
            part=lane,
            size=size,
            text="message",
            changed=delivery_steps.CHANGED,
        )
        return await self._run(self._claim_due(wanted, owner, until))

    async def _claim_due(self, wanted: Wanted, owner: str, until: Instant) -> list[Delivery]:
        if not await self._base.server_clock.trusted():
            return []
        return await delivery_steps.claim_due(self._base, self._deliveries, wanted, owner, until)

    async def renew_leases(
        self, deliveries: Sequence[Delivery], until: Instant, *, sending: bool
    ) -> frozenset[str]:
        return await self._run(delivery_steps.renew_leases(self._base, deliveries, until, sending=sending))

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._run(delivery_steps.release(self._base, deliveries))

    async def record(self, record: AttemptRecord) -> bool:
        return await self._run(self._ends.record(record))

    async def has_earlier(self, delivery: Delivery) -> bool:
        if delivery.run_id is None or delivery.seq <= 1:
            return False
        return await self._run(delivery_steps.has_earlier(self._base, delivery))

    # -- storm control ------------------------------------------------------------------------------------

    async def spent(self, tenant: str, budget: str, since: Instant, limit: int) -> list[Instant]:
        return await self._run(window_steps.spent(self._base, tenant, budget, since, limit))

    async def due_windows(self, now: Instant, limit: int) -> list[Window]:
        return await self._run(self._timely(window_steps.due(self._base, now, limit)))

    async def window_rows(self, window: Window, limit: int) -> list[Delivery]:
        return await self._run(window_steps.rows(self._base, window, limit))

    async def fold(self, window: Window, digest: Delivery, ids: Ids[str] | None) -> int:
        return await self._run(digests.fold(self._base, window, digest, ids, self._base.clock()))

    async def let_go(self, window: Window) -> int:
        return await self._run(window_steps.let_go(self._base, window, self._base.clock()))

    async def postpone(self, window: Window, closes_at: Instant) -> None:
        await self._run(window_steps.postpone(self._base, window, closes_at))

    async def close_windows(self, tenant: str, first: str, last: str, at: Instant) -> None:
        await self._run(silence_steps.close_windows(self._base, tenant, first, last, at))

    # -- silences -----------------------------------------------------------------------------------------

    async def add_silence(self, silence: Silence, record: AuditRecord, forget: Instant) -> None:
        await self._run(silence_steps.add(self._base, silence, record, forget))

    async def end_silence(
        self, tenant: str, silence_id: str, at: Instant, record: AuditRecord
    ) -> Silence | None:
        return await self._run(silence_steps.end(self._base, tenant, silence_id, at, record))

    async def silences(self, tenant: str, page: Page) -> tuple[list[Silence], int | None]:
        return await self._list(lambda: silence_steps.search(self._base, tenant, page))

    async def live_silences(self, now: Instant) -> list[Silence]:
        return await self._run(silence_steps.live(self._base, now))

    # -- deputies -----------------------------------------------------------------------------------------

    async def add_deputy(self, deputy: OwnDeputy, record: AuditRecord) -> None:
        await self._run(deputy_steps.add(self._base, deputy, record))

    async def end_deputy(self, tenant: str, deputy_id: str, at: Instant, record: AuditRecord) -> None:
        await self._run(deputy_steps.end(self._base, tenant, deputy_id, at, record))

    async def live_deputies(self, now: Instant) -> list[OwnDeputy]:
        return await self._run(deputy_steps.live(self._base, now))

    async def forget_deputies(self, before: Instant) -> int:
        return await self._run(deputy_steps.forget(self._base, before))

    # -- approvals ----------------------------------------------------------------------------------------

    async def approval(self, key: ApprovalKey) -> Approval | None:
        return await self._run(approval_steps.find(self._base, key))

    async def approval_versions(self, keys: Ids[ApprovalKey]) -> dict[ApprovalKey, int]:
        return await self._run(approval_steps.versions(self._base, keys))

    async def superseded(self, key: ApprovalKey, limit: int) -> list[Decision]:
        return await self._list(lambda: approval_steps.superseded(self._base, key, limit))

    async def superseded_by(self, key: ApprovalKey, actor: str, plan_hash: str) -> list[Decision]:
        return await self._run(approval_steps.superseded_by(self._base, key, actor, plan_hash))

    async def replace_approval(self, approval: Approval) -> bool:
        return await self._run(approval_steps.replace(self._base, approval))

    async def due_approvals(self, now: Instant, limit: int) -> list[Approval]:
        return await self._run(self._timely(approval_steps.due(self._base, now, limit)))

    async def timed_approvals(self, now: Instant, limit: int) -> list[Approval]:
        return await self._run(self._timely(approval_steps.timed(self._base, now, limit)))

    async def _timely(self, finding: Coroutine[Any, Any, list[T]]) -> list[T]:
        """What is found to be due; nothing by a clock that is wrong, as an end cannot be taken back."""
        due = await finding
        return due if not due or await self._base.server_clock.right() else []

    async def wake_timers(self) -> None:
        await self._run(approval_steps.wake_timers(self._base))

    async def owing_approvals(
        self, now: Instant, limit: int, *, horizon: Instant | None = None
    ) -> list[Approval]:
        due = await self._run(self._timely(approval_steps.owing(self._base, now, limit)))
        if horizon is None or len(due) >= limit:
            return due
        far = approval_steps.owing_far(self._base, max(now, horizon), limit - len(due))
        return due + await self._run(self._timely(far))

    async def effect_counts(self) -> EffectCounts:
        return await self._run(approval_steps.effect_counts(self._base))

    async def with_dead_effects(self, tenant: str, page: Page) -> tuple[list[Approval], int | None]:
        return await self._list(lambda: approval_steps.with_dead_effects(self._base, tenant, page))

    async def with_dead_effect(self, tenant: str, effect_id: str) -> Approval | None:
        return await self._run(approval_steps.with_dead_effect(self._base, tenant, effect_id))

    async def complete_effect(self, key: ApprovalKey, effect_id: str) -> None:
        await self._run(approval_steps.complete_effect(self._base, key, effect_id))

    async def approvals(
        self, tenant: str, where: ApprovalFilter, page: Page
    ) -> tuple[list[Approval], int | None]:
        return await self._list(lambda: approval_steps.search(self._base, tenant, where, page))

    async def outstanding(self) -> dict[str, int]:
        return await self._run(approval_steps.outstanding(self._base))

    # -- incidents ----------------------------------------------------------------------------------------

    async def incidents(
        self, tenant: str, where: IncidentFilter, page: Page
    ) -> tuple[list[Incident], int | None]:
        return await self._list(lambda: approval_steps.incidents(self._base, tenant, where, page))

    # -- the ledger ---------------------------------------------------------------------------------------

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None:
        return await self._run(delivery_steps.find(self._base, tenant, delivery_id))

    async def deliveries(
        self, tenant: str, where: DeliveryFilter, page: Page
    ) -> tuple[list[Delivery], int | None]:
        return await self._list(lambda: delivery_steps.search(self._base, tenant, where, page))

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
        given = None if message is None else (message, sealed)
        return await self._run(delivery_steps.revive(self._base, tenant, delivery_id, now, deadline, given))

    async def dead_letters(self) -> dict[str, int]:
        return await self._run(delivery_steps.dead_letters(self._base))

    async def answered(self, ref: str) -> Delivery | None:
        return await self._run(delivery_steps.answered(self._base, ref))

    async def copies(self, key: ApprovalKey) -> list[Delivery]:
        return await self._run(delivery_steps.copies(self._base, key))

    # -- what channels keep -------------------------------------------------------------------------------

    async def channel_state(self, channel: str, name: str) -> ChannelState | None:
        return await self._run(state_steps.find(self._base, channel, name))

    async def keep_channel_state(self, state: ChannelState, before: str | None = None) -> bool:
        return await self._run(state_steps.keep(self._base, state, before))

    async def drop_channel_state(self, channel: str, name: str) -> None:
        await self._run(state_steps.drop(self._base, channel, name))

    async def channel_states(self) -> list[ChannelState]:
        return await self._run(state_steps.every(self._base))

    # -- audit --------------------------------------------------------------------------------------------

    async def write_audit(self, records: Sequence[AuditRecord]) -> None:
        await self._run(audit_steps.write(self._base, records))

    async def audit(
        self, tenant: str, where: AuditFilter, page: Page
    ) -> tuple[list[AuditRecord], int | None]:
        return await self._list(lambda: audit_steps.search(self._base, tenant, where, page))

    async def tenants_with_unsealed_audit(self) -> list[str]:
        return await self._run(seal_steps.unsealed_tenants(self._base))

    async def unsealed_audit(self, tenant: str, limit: int) -> list[AuditRecord]:
        return await self._run(seal_steps.unsealed(self._base, tenant, limit))

    async def newest_audit_seal(self, tenant: str) -> AuditSeal | None:
        return await self._run(seal_steps.newest(self._base, tenant))

    async def next_audit_seal(self, tenant: str, number: int) -> SealedAudit | None:
        return await self._list(lambda: seal_steps.following(self._base, tenant, number))

    async def stray_audit(self, tenant: str, limit: int) -> list[AuditRecord]:
        return await self._list(lambda: seal_steps.strays(self._base, tenant, limit))

    async def add_audit_seal(self, seal: AuditSeal, records: Sequence[AuditRecord]) -> bool:
        return await self._run(seal_steps.add(self._base, seal, records))

    async def drop_audit_seals(self, tenant: str, before: int) -> None:
        await self._run(seal_steps.drop(self._base, tenant, before))

    async def tenants_with_audit(self, before: Instant) -> list[str]:
        return await self._run(seal_steps.tenants(self._base, before))

    # -- upkeep -------------------------------------------------------------------------------------------

    async def purge(self, aged: Aged, limit: int, after: str = "", *, dry_run: bool = False) -> Purged:
        return await self._run(retention_steps.purge(self._base, aged, limit, after, dry_run=dry_run))

    async def claim_job(
        self, job: str, now: Instant, until: Instant, *, unless_done_since: Instant | None = None
    ) -> Turn:
        return await self._run(job_steps.claim(self._base, job, now, until, unless_done_since))

    async def end_job(self, job: str, done_at: Instant | None = None) -> None:
        await self._run(job_steps.end(self._base, job, done_at))

    async def count(self, collection: CollectionName) -> int:
        return await self._run(reading.collection_of(self._base, collection).count())

    async def dump(
        self, collection: CollectionName, after: str, limit: int
    ) -> tuple[list[Stored], str | None]:
        return await self._run(moving_steps.dump(self._base, collection, after, limit))

    async def restore(self, rows: Sequence[Stored]) -> int:
        return await self._run(moving_steps.restore(self._base, rows))

    async def seal_keys(self) -> SealKeys:
        return await self._run(sealed_steps.noted(self._base))

    async def note_seal_keys(self, keys: SealKeys) -> None:
        await self._run(sealed_steps.note(self._base, keys))

    async def sealed_rows(
        self, collection: CollectionName, after: str, limit: int
    ) -> tuple[list[SealedRow], str | None]:
        return await self._run(sealed_steps.page(self._base, collection, after, limit))

    async def replace_message(self, delivery: Delivery, message: str) -> bool:
        return await self._run(sealed_steps.replace(self._base, delivery, message))

    async def set_aside(self, row: Event | Approval | Delivery, fault: str) -> bool:
        return await self._run(reading.note(self._base, row, fault))

    async def undecodable(self) -> list[SetAsideRow]:
        await self._run(reading.look_again(self._base))
        return self._base.aside.rows()

    async def usage(self) -> Usage:
        return await self._run(self._base.connection.usage())

    async def openings(self) -> int | None:
        return None

    # -- the store itself ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        await self._look()
        await self._run(node_steps.probe(self._base))

    async def beat(self, now: Instant, until: Instant) -> int:
        """Being called every second, it logs once that nothing can be written, and once that it can again."""
        try:
            await self._look()
            live = await self._run(node_steps.beat(self._base, now, until))
        except StoreError as fault:
            if not self._failing and not isinstance(fault, StoreUnusableError):
                _log.error("%s; until it answers no event is taken", fault.detail)
                self._failing = True
            raise
        if self._failing:
            _log.warning("MongoDB database %s: answers again", self._base.connection.name)
            self._failing = False
        return live

    async def _look(self) -> None:
        """Refuse every operation while the database, or a collection of it, is gone. Raises `StoreError`."""
        try:
            await self._operate(check_there(self._base.connection))
        except StoreUnusableError as fault:
            if self._gone is None:
                _log.critical("%s; until then no event is taken", fault)
            self._gone = fault
            raise
        if self._gone is not None:
            _log.warning("MongoDB database %s: is there again", self._base.connection.name)
            self._gone = None

    async def begin(self) -> None:
        """Take this node's name, and end the leases of its earlier life. Called once, before anything else.

        Raises `StoreInUseError` where another process lives under the name.
        """
        await node_steps.begin(self._base)
        await self._events.void(self._base.node, {})
        await self._deliveries.void(self._base.node, {"state": {"$in": delivery_steps.OPEN}})
        await job_steps.void(self._base)

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._idle.wait()
        await self._ends.settled()
        await self._base.settled()
        await self._leave()
        await self._base.connection.aclose()

    async def _leave(self) -> None:
        try:
            await self._in_time(node_steps.leave(self._base))
        except (PyMongoError, TimeoutError) as error:
            fault = store_error(self._base.connection.name, error)
            _log.warning("this node counts as alive for some seconds more: %s", fault.detail)

    async def _list(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A page of a list. Only some are read at a time: the driver's connections are for everybody."""
        try:
            return await self._run(self._in_turn(step))
        except StoreError as error:
            if isinstance(error.__cause__, ExecutionTimeout | TimeoutError):
                raise ListTimeoutError from error
            raise

    async def _in_turn(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._lists:
            return await step()

    async def _run(self, step: Coroutine[Any, Any, T]) -> T:
        """Run an operation within the timeout, and tell whatever keeps it from its end as a `StoreError`."""
        if self._gone is not None:
            step.close()
            raise StoreUnusableError(self._gone.detail)
        return await self._operate(step)

    async def _operate(self, step: Coroutine[Any, Any, T]) -> T:
        if self._closing is not None:
            step.close()
            raise StoreError(f"MongoDB database {self._base.connection.name}: the store is closed")
        self._running += 1
        self._idle.clear()
        try:
            return await self._in_time(step)
        except (PyMongoError, TimeoutError) as error:
            raise store_error(self._base.connection.name, error) from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _in_time(self, step: Coroutine[Any, Any, T]) -> T:
        """`step` within the timeout. Raises PyMongoError, TimeoutError."""
        try:
            with pymongo.timeout(self._timeout * _DRIVER_SHARE):
                async with asyncio.timeout(self._timeout):
                    return await step
        except RuntimeError as error:
            if str(error) != _LOST_LOCK:
                raise
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error
            raise TimeoutError from error


async def open_mongo(
    url: str,
    *,
    node: str,
    clock: Clock,
    create: bool = True,
    upgrade: bool = True,
    timeout: float = 2.0,
    clock_skew: float | None = None,
    driver: StoreDriver = StoreDriver.PYMONGO,
    observer: CommitObserver | None = None,
) -> MongoStore:
    """Open the database that `url` names, for this node; the leases of its earlier life are void.

    `node` must be this daemon's own name among those that share the database. `timeout` is how long one
    operation may take, `clock_skew` how far this host's clock may be from the database's, both in seconds;
    None, for a database that no other node uses, trusts this host's clock. `create`
    lets a database that holds no store become one, `upgrade` one of an earlier notifyd get the newest schema.

    Raises `ConfigError` for a URL that names no database, `StoreMissingError` where it holds no store and may
    not become one, `StoreOutdatedError` where its schema is older and may not be changed, `StoreInUseError` where
    another process lives as `node`, and `StoreError` where the database cannot be used.
    """
    connection = await connect(url, driver, timeout=timeout, observer=observer)
    skew = None if clock_skew is None else int(clock_skew * SECOND)
    store = MongoStore(Base.of(connection, node, clock, skew, SetAside(observer)), timeout)
    try:
        await _start(connection, store, create, upgrade)
    except BaseException:
        await connection.aclose()
        raise
    return store


async def _start(connection: Connection, store: MongoStore, create: bool, upgrade: bool) -> None:
    try:
        await connection.open_sessions()
        with pymongo.timeout(_START_UP):
            await migrate(connection, create=create, upgrade=upgrade)
            await store.begin()
    except PyMongoError as error:
        raise store_error(connection.name, error) from error
