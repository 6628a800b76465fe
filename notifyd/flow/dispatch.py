"""Lanes at work: take due deliveries, attempt them, record how they end. The only caller of `send`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeAlias, TypeVar

from attrs import evolve

from notifyd import correlation
from notifyd.errors import (
    Reason,
    SealError,
    StoppingError,
    StoreError,
    UndecodableRowError,
)
from notifyd.flow.attempt import Result, attempt, conclude, nothing_to_change, too_old
from notifyd.flow.buttons import still_asks
from notifyd.flow.follows import followed
from notifyd.flow.lane import Job, Lane, LaneSnapshot
from notifyd.flow.leases import Leases
from notifyd.flow.memory import KEPT, Memory, Share
from notifyd.flow.queues import Insert, PlanningQueue, Ready
from notifyd.flow.tally import Tally
from notifyd.flow.telling import tell_attempt, tell_failure, tell_hold
from notifyd.flow.waiting import Waiting
from notifyd.levels import Complaint
from notifyd.metrics import Metrics
from notifyd.model import (
    RESUME_CHANNEL,
    SECOND,
    Attempt,
    Clock,
    Delivery,
    Event,
    Instant,
    Message,
    State,
    Wait,
    wait_in,
)
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.security.envelope import unwrap
from notifyd.store import AttemptRecord, Store, waits_for
from notifyd.text import counted
from notifyd.tracing import NO_TRACER, Tracer

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_TICK: Final = 1.0
"""Seconds between looks at the store for what memory does not know of: replays, old leases, other nodes."""

_ORDER_RECHECK: Final = (SECOND // 2, 15 * SECOND)
"""While an earlier message of its approval is on the way, a delivery is looked at again after a quarter of its
age, within these bounds: many that wait for long cost little."""

_UNUSABLE: Final = (5 * SECOND, 60 * SECOND)
"""The same for one whose channel has another type by now, or which nothing can sign."""

_REFUSED: Final = 15 * SECOND
"""How long a delivery steps back whose receiver's address `egress` does not allow. The breaker spares the rest."""

_CLAIM: Final = 256
"""How many rows are claimed at once."""

_RECOUNT: Final = 10.0
"""Seconds between countings of the open deliveries: a step whose answer was lost, or another node that died,
may have left some that this node does not know of."""

_LAST_WORDS: Final = 1.0
"""Seconds that attempts are given to end once they are cancelled: a channel may not let itself be."""

CallbackEnded: TypeAlias = Callable[[Delivery, State, Reason | None, Instant], Awaitable[Event | None]]


class Dispatcher:
    """Owns the lanes of this node. `waiting` counts the open deliveries of all lanes, by tenant.

    `callback_ended` gives the event that the end of a resume callback raises, which goes to `planning_queue`
    once it is durable. `nodes` counts those alive, which divide each channel's rate limit among them.
    """

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        callback_ended: CallbackEnded,
        planning_queue: PlanningQueue,
        metrics: Metrics,
        clock: Clock,
        node: str,
        memory: Memory,
        nodes: Callable[[], int] = lambda: 1,
        randomness: random.Random | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._store = store
        self._current = current
        self._callback_ended = callback_ended
        self._planning_queue = planning_queue
        self._metrics = metrics
        self._tally = Tally(metrics)
        self._complaint = Complaint(log)
        self._leases = Leases(store=store, current=current, clock=clock, node=node)
        self._clock = clock
        self._node = node
        self._nodes = nodes
        self._known_nodes = 1
        self._randomness = randomness or random.Random()  # nosec B311 # noqa: S311 - jitter, not a secret
        self._tracer = tracer
        self._memory = memory
        self.waiting = Waiting()
        self._lanes: dict[str, Lane] = {}
        self._arriving: list[set[str]] = []  # leased, and on their way into the store, of each insert
        self._tasks: dict[asyncio.Task[Any], OpenChannel] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._counted = time.monotonic()

    # -- what comes in ------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Open deliveries, over all lanes."""
        return self.waiting.total

    def seconds_for(self, count: float) -> float:
        """How long so many deliveries take to go out, by how fast they do at present."""
        return self._tally.seconds_for(count)

    async def enqueue(self, ready: Sequence[Ready], insert: Insert) -> None:
        """See `queues.DispatchQueue`."""
        with ExitStack() as reserved:
            jobs = [self._reserved(one, reserved) for one in ready]
            leased = {job.delivery.id for job in jobs if job.delivery.lease_owner is not None}
            self._arriving.append(leased)
            reserved.callback(self._arriving.remove, leased)
            new = await insert([job.delivery for job in jobs])
        self._take([job for job in jobs if job.delivery.id in new])
        # What another insert has under way may be new there, and is taken or given back at its end.
        if there := leased.difference(new, *self._arriving):
            await self._give_back([job.delivery for job in jobs if job.delivery.id in there])

    async def _give_back(self, there: Sequence[Delivery]) -> None:
        """Of rows that were there already, give back those that this node has leased and does not hold.

        It has inserted them before, and the store's answer was lost: nobody would send them until the lease ends.
        They are claimed, and not sent from here: what was rendered now has other links than the row.
        """
        leased = await self._leases.given(there)
        unheld = leased.difference(*(lane.held() for lane in self._lanes.values())) if leased else leased
        lost = [row for row in there if row.id in unheld]
        await self._store.release(lost)
        for row in lost:
            self.look(row.lane, row.channel, row.tenant, 1)

    def _reserved(self, ready: Ready, reserved: ExitStack) -> Job:
        """Leased to this node where its lane has room in memory, which is kept for it until `reserved` ends."""
        keep = self._memory.ample and len(ready.delivery.message) <= KEPT
        job = Job(ready.delivery, ready.message if keep else None)
        lane = self._lane(ready.delivery)
        if self._draining or not lane.takes(job):
            return job
        lane.share.add(job.size)
        reserved.callback(lane.share.add, -job.size)
        return Job(self._leases.give(job.delivery), job.message, size=job.size)

    def look(self, lane: str, channel: str, tenant: str, count: int) -> None:
        """See `queues.DispatchQueue`."""
        known = self._known(lane, channel)
        known.waiting.add(tenant, count)
        self._due(known, self._clock())

    def _take(self, jobs: Sequence[Job]) -> None:
        """Rows that this node's insert reported as new: the leased ones are dispatched from memory."""
        lanes = {}
        for job in jobs:
            lane = lanes[job.delivery.lane] = self._lane(job.delivery)
            if not lane.backlog:
                lane.oldest = job.delivery.created_at
            lane.waiting.add(job.delivery.tenant)
            if job.delivery.lease_owner is not None:
                lane.queue.push(job)
        for lane in lanes.values():
            self._pump(lane)

    async def try_out(self, channel: OpenChannel, message: Message) -> Attempt:
        """Send `message` at once, past the queue, the limits and the ledger. Raises `StoppingError`."""
        if self._draining:
            raise StoppingError
        # One of the tasks, so that a reload leaves the channel open until it has ended.
        return (await self._begin(channel, self._make_attempt(channel, message))).attempt

    def _begin(self, channel: OpenChannel, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks[task] = channel
        task.add_done_callback(self._tasks.pop)
        return task

    def snapshot(self, channel: str) -> LaneSnapshot:
        """How the lane of a configured channel stands now."""
        return self._lanes.get(channel, Lane(channel, channel)).snapshot(self._clock())

    def wait_of(self, delivery: Delivery) -> Wait | None:
        """What a delivery waits for, as far as this node can tell; None where it is being sent, or has ended."""
        lane = self._lanes.get(delivery.lane, Lane(delivery.lane, delivery.channel))
        if delivery.state is not State.PENDING or delivery.id in lane.running:
            return None
        if delivery.window is not None:
            return wait_in(delivery.window)
        if (barred := self._barred(lane)) is not None:
            return barred
        if self._current().channel(delivery.channel, delivery.channel_type) is None:
            return Wait.CHANNEL_MISSING
        if delivery.next_attempt_at > self._clock():
            return waits_for(delivery.reason, delivery.tries)
        return lane.holding(self._clock(), self._nodes())

    # -- the loop -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Learn from the store what is waiting. Loads counts only, however much it is."""
        await self._count()
        for channel, dead in (await self._store.dead_letters()).items():
            self._metrics.dead_letters.labels(channel).set(dead)

    async def _count(self) -> None:
        counted: dict[str, dict[str, int]] = {}
        oldest: dict[str, Instant] = {}
        waits: defaultdict[str, Counter[Wait]] = defaultdict(Counter)
        for found in await self._store.waits(self._clock()):
            self._known(found.lane, found.channel)
            waits[found.lane][found.why] += found.count
        for one in await self._store.backlog():
            self._known(one.lane, one.channel)
            counted.setdefault(one.lane, {})[one.tenant] = one.waiting
            oldest[one.lane] = min(one.oldest, oldest.get(one.lane, one.oldest))
        for lane in self._lanes.values():
            lane.recount(counted.get(lane.name, {}))
            lane.oldest = oldest.get(lane.name)
            lane.waits = waits[lane.name]
        self._counted = time.monotonic()

    async def run(self) -> None:
        """Refill the lanes from the store and keep leases, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._look_after()
                self._complaint.over()
            except StoreError as error:
                self._complaint.repeat(f"dispatching waits for the store: {error}")
                await asyncio.sleep(_TICK)
            self._tally.report(self._lanes.values(), self._current().channels, self._held_by, self._clock())
            self._metrics.unplanned.set(self._planning_queue.waiting.total)
            await self._sleep()

    async def _look_after(self) -> None:
        live = self._nodes()
        # A node that has died leaves deliveries that this one does not know of.
        if live < self._known_nodes or time.monotonic() - self._counted >= _RECOUNT:
            await self._count()
        self._known_nodes = live
        for lane in list(self._lanes.values()):
            await self._refill(lane)
        await self._leases.keep(self._lanes.values())

    def wake(self) -> None:
        """Look at every lane now: the configuration has changed."""
        self._wake.set()

    async def settled(self, channels: Collection[OpenChannel]) -> None:
        """Wait until the attempts by these channels have ended, which are not in force any more."""
        if tasks := [task for task, used in self._tasks.items() if any(used is one for one in channels)]:
            await asyncio.wait(tasks)

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._pause()):
                await self._wake.wait()
        except TimeoutError:
            return

    def _pause(self) -> float:
        """Seconds until a lane that has room for it has something due in the store, a tick at most."""
        lanes = [] if self._draining else self._lanes.values()
        due = [lane.due for lane in lanes if lane.due is not None and lane.beyond_memory and lane.room()]
        return min(max(0, min(due) - self._clock()) / SECOND, _TICK) if due else _TICK

    async def _refill(self, lane: Lane) -> None:
        """Bring due rows of a lane into memory, if it has room, and move what can move."""
        if self._draining:
            return
        channel, now = self._channel_of(lane), self._clock()
        tell_hold(lane, self._fault_of(lane))
        if channel is None and lane.queue:
            await self._store.release([job.delivery for job in lane.queue.clear()])
        if self._memory.excess:
            await self._store.release([job.delivery for job in lane.queue.drop(self._memory.excess)])
        room = min(lane.room(), _CLAIM)
        if lane.beyond_memory and room:
            if lane.due is not None and lane.due <= now:
                lane.due = None
            rows = await self._store.claim_due(
                lane.name,
                self._node,
                now,
                self._leases.end(now),
                room,
                held=lane.held(),
                overdue_only=channel is None,
                horizon=now + self._furthest(),
                size=lane.room_in_bytes,
            )
            await self._bring(lane, rows, channel)
        self._pump(lane)

    async def _bring(self, lane: Lane, rows: Sequence[Delivery], channel: OpenChannel | None) -> None:
        if self._draining:
            await self._store.release(rows)
        elif channel is None:
            # Nobody is there to send them, and their time is over.
            await asyncio.gather(*(self._expire(lane, row) for row in rows))
        else:
            for row in rows:
                lane.queue.push(Job(row))

    async def _expire(self, lane: Lane, row: Delivery) -> None:
        with correlation.about(row.correlation_id):
            await self._record(lane, too_old(row, self._clock()))

    # -- attempts -----------------------------------------------------------------------------------------

    def _pump(self, lane: Lane) -> None:
        """Start as many attempts as the lane's limits allow now; where it must wait, come back then."""
        channel = self._channel_of(lane)
        if channel is None or self._draining:
            return
        lane.limit(channel.rate_limit, self._clock())
        while (job := self._next(lane, channel)) is not None:
            self._begin(channel, self._work(lane, job, channel))

    def _next(self, lane: Lane, channel: OpenChannel) -> Job | None:
        """The next job, started, as far as the lane's limits allow one now."""
        if not lane.queue or len(lane.running) >= channel.concurrency:
            return None
        now = self._clock()
        wait = lane.wait(now, self._nodes())
        if wait > 0:
            self._pump_later(lane, wait)
            return None
        return lane.start(now)

    def _pump_later(self, lane: Lane, wait: float) -> None:
        if lane.timer is None:
            lane.timer = asyncio.get_running_loop().call_later(wait, self._pump_again, lane)

    def _pump_again(self, lane: Lane) -> None:
        lane.timer = None
        self._pump(lane)

    async def _work(self, lane: Lane, job: Job, channel: OpenChannel) -> None:
        """Attempt `job`, and then what comes after it: a task for each would take more time."""
        following: Job | None = job
        while following is not None:
            job = following
            correlation.current.set(job.delivery.correlation_id)  # of this task alone
            try:
                await self._attempt(lane, job, channel)
            except Exception:
                # Its lease runs out, and it is tried again: whatever this is, it holds up nothing else.
                log.exception("delivery %s cannot be dealt with", job.delivery.id)
                lane.abandon(job)
            finally:
                lane.finish(job)
            following = self._go_on(lane, channel)

    def _go_on(self, lane: Lane, channel: OpenChannel) -> Job | None:
        """What the task of an attempt that has ended does next, as long as its channel is the lane's.

        Else `settled` would wait for it as long as there is something to send.
        """
        same = not self._draining and self._channel_of(lane) is channel
        job = self._next(lane, channel) if same else None
        self._pump(lane)
        if lane.beyond_memory and not lane.queue:
            self._wake.set()
        return job

    async def _attempt(self, lane: Lane, job: Job, channel: OpenChannel) -> None:
        delivery, registry = job.delivery, self._current()
        if delivery.deadline <= self._clock():
            lane.abandon(job)
            await self._record(lane, too_old(delivery, self._clock()))
            return
        if channel.type != delivery.channel_type:
            fault = (
                f"deliveries were planned for the type {delivery.channel_type}, and it is {channel.type} now"
            )
            await self._put_off_for(Reason.CHANNEL_MISSING, fault, lane, job)
            return
        if await self._must_wait(delivery):
            await self._put_off(lane, job, self._quarter(delivery, _ORDER_RECHECK))
            return
        message = job.message or await self._read_back(delivery, registry)
        if message is None:
            await self._put_off(lane, job, self._quarter(delivery, _UNUSABLE))
            return
        if delivery.channel == RESUME_CHANNEL and not registry.signs_callbacks(message.event["client"]):
            fault = f"nothing signs the callbacks of client {message.event['client']}"
            await self._put_off_for(Reason.SECRET_MISSING, fault, lane, job)
            return
        if not await self._still_ours(lane, job, channel):
            lane.abandon(job)
            return
        if self._channel_of(lane) is not channel:
            # A reload came in between: what it took back is not used any more.
            await self._put_off(lane, job, 0)
            return
        await self._send(lane, delivery, message, channel)

    async def _send(self, lane: Lane, delivery: Delivery, message: Message, channel: OpenChannel) -> None:
        registry = self._current()
        if delivery.edits is None:
            if channel.edits:
                ref = await self._patiently(lambda: followed(delivery, self._store))
                message = evolve(message, follows=ref)
            if message.buttons and not await self._patiently(
                lambda: still_asks(delivery, message, self._store, self._clock())
            ):
                message = evolve(message, buttons=())
            result = await self._make_attempt(channel, message)
        else:
            result = await self._edit(delivery.tenant, delivery.edits, message, channel)
        now = self._clock()
        lane.judge(result.attempt, now)
        tell_attempt(lane, delivery.id, result.attempt)
        if result.attempt.reason is Reason.EGRESS_REFUSED:
            self._tally.attempt(delivery, result.attempt)
            await self._step_back(lane, delivery, _REFUSED, Reason.EGRESS_REFUSED)
            return
        record = conclude(delivery, result, registry.settings.dispatch, now, self._randomness)
        await self._record(lane, record)

    async def _edit(self, tenant: str, edits: str, message: Message, channel: OpenChannel) -> Result:
        """Change what another delivery has sent: it is over by now, since this one comes after it."""
        try:
            sent = await self._patiently(lambda: self._store.delivery(tenant, edits))
        except UndecodableRowError:
            sent = None
        ref = sent.sent_ref if sent else ""
        if not (ref and channel.edits):
            return nothing_to_change(self._clock())
        return await self._make_attempt(channel, message, edits=ref)

    async def _make_attempt(
        self, channel: OpenChannel, message: Message, *, edits: str | None = None
    ) -> Result:
        redactor = self._current().redactor
        return await attempt(channel, message, self._clock, redactor, edits=edits, tracer=self._tracer)

    async def _still_ours(self, lane: Lane, job: Job, channel: OpenChannel) -> bool:
        """Is the row leased for the time of an attempt? Where its renewal is overdue, only the store can tell."""
        if self._leases.suffices(lane, job, channel.timeout):
            return True
        await self._patiently(lambda: self._leases.show([job], [lane]))
        return lane.holds(job, self._clock())

    async def _must_wait(self, delivery: Delivery) -> bool:
        """Is an earlier message of the same approval, channel and recipient still on the way?"""
        ordered = delivery.seq > 1 and delivery.channel != RESUME_CHANNEL
        return ordered and await self._patiently(lambda: self._store.has_earlier(delivery))

    def _quarter(self, delivery: Delivery, bounds: tuple[int, int]) -> int:
        """A quarter of a delivery's age, within `bounds`."""
        least, most = bounds
        return max(least, min((self._clock() - delivery.created_at) // 4, most))

    async def _read_back(self, delivery: Delivery, registry: Registry) -> Message | None:
        """The message that the row holds; None, and set aside, where that cannot be read."""
        try:
            return unwrap(delivery.message, registry.keyring, sealed=delivery.sealed)
        except SealError as error:
            fault = f"message: {error.detail}"
            await self._patiently(lambda: self._store.set_aside(delivery, fault))
            return None

    async def _put_off_for(self, reason: Reason, fault: str, lane: Lane, job: Job) -> None:
        """Nothing of this kind can be sent before the configuration changes."""
        tell_failure(lane, reason, fault)
        await self._put_off(lane, job, self._quarter(job.delivery, _UNUSABLE), reason)

    async def _put_off(self, lane: Lane, job: Job, wait: int, reason: Reason | None = None) -> None:
        """Give a job back that was started, and never reached the channel."""
        lane.abandon(job)
        await self._step_back(lane, job.delivery, wait, reason)

    async def _step_back(
        self, lane: Lane, delivery: Delivery, wait: int, reason: Reason | None = None
    ) -> None:
        due = min(self._clock() + wait, delivery.deadline)
        later = evolve(delivery, next_attempt_at=due, reason=reason)
        await self._patiently(lambda: self._store.release([later]))
        self._due(lane, due)

    # -- ends ---------------------------------------------------------------------------------------------

    async def _record(self, lane: Lane, record: AttemptRecord) -> None:
        delivery = record.delivery
        if record.resume is not None and record.ended_at is not None:
            ended_at, state, reason = record.ended_at, record.state, record.reason
            attempts = (*delivery.attempts, record.attempt) if record.attempt else delivery.attempts
            tried = evolve(delivery, attempts=attempts)
            event = await self._patiently(lambda: self._callback_ended(tried, state, reason, ended_at))
            record = evolve(record, event=event)
        kept = await self._patiently(lambda: self._store.record(record))
        if record.attempt is not None:
            self._tally.attempt(delivery, record.attempt)
        if kept and record.state is State.PENDING:
            self._due(lane, record.next_attempt_at)
        elif kept:
            lane.waiting.add(delivery.tenant, -1)
            self._tally.end(delivery, record, self._clock())
        if kept and record.event is not None:
            self._planning_queue.offer(record.event)

    async def _patiently(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat a step until the store takes it: what was sent is not sent again for want of a record."""
        wait = 0.1
        while True:
            try:
                return await step()
            except StoreError as error:
                log.debug("a delivery's record waits for the store: %s", error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)

    def _due(self, lane: Lane, at: Instant) -> None:
        """Remember when the store has a row of this lane to give back."""
        if lane.due is None or at < lane.due:
            lane.due = at
            self._wake.set()

    # -- helpers ------------------------------------------------------------------------------------------

    def _lane(self, delivery: Delivery) -> Lane:
        return self._known(delivery.lane, delivery.channel)

    def _known(self, name: str, channel: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = Lane(name, channel, Share(self._memory), waiting=Waiting(self.waiting))
            self._lanes[name] = lane
        return lane

    def _channel_of(self, lane: Lane) -> OpenChannel | None:
        """The channel of a lane; None where there is none, or nothing may be sent by it now."""
        registry = self._current()
        return None if registry.lane_fault(lane.name) else registry.channels.get(lane.channel)

    def _held_by(self, lane: Lane) -> Counter[Wait]:
        return lane.held_by(self._barred(lane), self._clock(), self._nodes())

    def _barred(self, lane: Lane) -> Wait | None:
        """Why nothing of a lane can go."""
        if self._channel_of(lane) is not None:
            return None
        return Wait.NOT_ALLOWED if lane.channel == RESUME_CHANNEL else Wait.CHANNEL_MISSING

    def _fault_of(self, lane: Lane) -> str:
        """Why the configuration lets nothing of this lane go; "" where it does."""
        registry = self._current()
        gone = "" if lane.channel in registry.channels else f"there is no channel {lane.channel} any more"
        return registry.lane_fault(lane.name) or gone

    def _furthest(self) -> int:
        """How far ahead of its own clock a node puts off a delivery, with a minute for its clock's fault."""
        ceiling: int = self._current().settings.dispatch.backoff.ceiling
        return max(ceiling, *_UNUSABLE) + 60 * SECOND

    # -- the end ------------------------------------------------------------------------------------------

    async def drain(self, patience: float) -> None:
        """Start nothing new, let what runs end for `patience` seconds, and give every other lease back."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for lane in self._lanes.values():
            if lane.running:
                running = counted(len(lane.running), "attempt is", "attempts are")
                log.warning("channel %s: %s cut short by the end", lane.channel, running)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        left = [job.delivery for lane in self._lanes.values() for job in lane.queue.clear()]
        try:
            await self._store.release(left)
        except StoreError as error:
            kept = counted(len(left), "delivery keeps its lease", "deliveries keep their leases")
            log.warning("%s until the lease ends: %s", kept, error)
