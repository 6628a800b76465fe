"""One lane: what waits for a channel in memory, and what decides when the next may go.

Nothing here does I/O or reads a clock: times come in as `Instant`, waits go out in seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Final, TypeAlias

from attrs import Factory, define, field, frozen

from notifyd.config.settings import Backoff, Rate
from notifyd.errors import Reason
from notifyd.flow.memory import Share, delivery_size
from notifyd.flow.waiting import Waiting
from notifyd.levels import Seldom
from notifyd.model import HELD_IN_WINDOWS, SECOND, Attempt, AttemptOutcome, Delivery, Instant, Message, Wait

BREAKER_THRESHOLD: Final = 5
"""Consecutive transient failures that open a lane's breaker."""

BREAKER_INTERVAL: Final = 5 * SECOND
"""How long an open breaker waits before each probe."""

CAPACITY: Final = 4000
"""How many deliveries a lane keeps in memory. The rest waits in the store."""

CLAIMED: Final = 3000
"""Up to how many of them a lane claims from the store: the rest is for tenants who bring something new."""

TENANT_CAPACITY: Final = 2000
FLOW_CAPACITY: Final = 1000
"""How many of them may belong to one tenant, and to one of its rules, so that no one fills the lane alone."""

Flow: TypeAlias = tuple[str, str]


@define(eq=False)
class Job:
    """A leased delivery. `message` is None where it has to be read back from the row; `size` is bytes in memory.

    `renewed` is until when its lease was renewed, 0 where it never was. `started` is when its attempt began;
    `shown` says that the store shows it as being sent.
    """

    delivery: Delivery
    message: Message | None = None
    renewed: Instant = 0
    started: Instant = 0
    shown: bool = False
    size: int = field(
        default=Factory(
            lambda self: delivery_size(self.delivery, parsed=self.message is not None), takes_self=True
        )
    )

    @property
    def flow(self) -> Flow:
        return self.delivery.tenant, self.delivery.rule

    @property
    def leased_until(self) -> Instant:
        return max(self.delivery.lease_until, self.renewed)


def retry_delay(tries: int, backoff: Backoff, retry_after: float | None, randomness: random.Random) -> int:
    """Microseconds to wait after the `tries`th failure.

    Exponential with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    What the receiver asked for, in seconds, counts between the schedule's step and its ceiling.
    """
    step: int = min(backoff.first * 2 ** min(tries - 1, 40), backoff.ceiling)
    if retry_after is not None:
        return int(max(step, min(retry_after * SECOND, backoff.ceiling)))
    return int(randomness.uniform(0, step))


class TokenBucket:
    """Lets `rate` through on average, and at once no more than a second's worth (at least one)."""

    def __init__(self, rate: Rate, now: Instant) -> None:
        self.rate = rate
        self._capacity = max(1.0, rate.per_second)
        self._tokens = self._capacity
        self._at = now

    def wait(self, now: Instant, share: int = 1) -> float:
        """Seconds until a token is there, 0 where one is. `share` nodes divide the rate among them."""
        per_second = self.rate.per_second / share
        self._capacity = max(1.0, per_second)
        # A clock set back gives nothing and takes nothing.
        self._tokens = min(self._capacity, self._tokens + max(0, now - self._at) * per_second / SECOND)
        self._at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / per_second

    def take(self) -> None:
        self._tokens -= 1

    def give_back(self) -> None:
        self._tokens = min(self._capacity, self._tokens + 1)


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # one probe is out, or the next attempt will be one


class Breaker:
    """Closed, open, half-open with one probe at a time (https://martinfowler.com/bliki/CircuitBreaker.html)."""

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at: Instant | None = None
        self._probing = False

    @property
    def open(self) -> bool:
        return self._retry_at is not None

    def state(self, now: Instant) -> BreakerState:
        if self._retry_at is None:
            return BreakerState.CLOSED
        half_open = self._probing or self.wait(now) == 0
        return BreakerState.HALF_OPEN if half_open else BreakerState.OPEN

    def wait(self, now: Instant) -> float:
        """Seconds until an attempt may go, 0 for now. While a probe is out, until it should have ended."""
        if self._retry_at is None:
            return 0.0
        if self._probing:
            return BREAKER_INTERVAL / SECOND
        # A clock set back must not keep the breaker open for longer than its interval.
        self._retry_at = min(self._retry_at, now + BREAKER_INTERVAL)
        return max(0, self._retry_at - now) / SECOND

    def started(self) -> None:
        self._probing = self.open

    def abandoned(self) -> None:
        """The attempt that was started told nothing about the channel."""
        self._probing = False

    def succeeded(self) -> None:
        self._failures, self._retry_at, self._probing = 0, None, False

    def failed(self, now: Instant) -> None:
        self._failures += 1
        self._probing = False
        if self._failures >= BREAKER_THRESHOLD:
            self._retry_at = now + BREAKER_INTERVAL


class FairQueue:
    """First in, first out within a flow; between tenants each in turn, and so between the rules of a tenant.

    What it holds counts in `share`.
    """

    def __init__(self, share: Share | None = None) -> None:
        self._share = share or Share()
        self._tenants: OrderedDict[str, OrderedDict[str, deque[Job]]] = OrderedDict()
        self._waiting = Waiting()
        self._held: Counter[Flow | str] = Counter()  # bytes of each flow, and of each tenant

    def __len__(self) -> int:
        return self._waiting.total

    def __iter__(self) -> Iterator[Job]:
        return (job for rules in self._tenants.values() for jobs in rules.values() for job in jobs)

    def waiting(self, tenant: str, rule: str | None = None) -> int:
        """How many of a tenant, or of one of its rules."""
        if rule is None:
            return self._waiting.of(tenant)
        rules = self._tenants.get(tenant)
        return len(rules[rule]) if rules and rule in rules else 0

    def held(self, whose: Flow | str) -> int:
        """Bytes of a flow, or of a tenant."""
        return self._held[whose]

    def push(self, job: Job) -> None:
        tenant, rule = job.flow
        self._tenants.setdefault(tenant, OrderedDict()).setdefault(rule, deque()).append(job)
        self._count(job, 1)

    def pop(self) -> Job:
        tenant, rules = next(iter(self._tenants.items()))
        rule, jobs = next(iter(rules.items()))
        job = jobs.popleft()
        rules.move_to_end(rule)
        self._tenants.move_to_end(tenant)
        self._count(job, -1)
        return job

    def drop(self, size: int) -> list[Job]:
        """Take out what came last, of each flow in turn, until it makes `size` bytes or is all there is."""
        dropped: list[Job] = []
        while self._tenants and size > 0:
            tenant, rules = next(reversed(self._tenants.items()))
            rule, jobs = next(reversed(rules.items()))
            job = jobs.pop()
            rules.move_to_end(rule, last=False)
            self._tenants.move_to_end(tenant, last=False)
            self._count(job, -1)
            dropped.append(job)
            size -= job.size
        return dropped

    def _count(self, job: Job, change: int) -> None:
        tenant, rule = job.flow
        self._waiting.add(tenant, change)
        self._share.add(change * job.size)
        for whose in (tenant, job.flow):
            self._held[whose] += change * job.size
        rules = self._tenants[tenant]
        if not rules[rule]:
            del rules[rule], self._held[job.flow]
        if not rules:
            del self._tenants[tenant], self._held[tenant]

    def renew(self, asked: Collection[str], held: Collection[str], until: Instant) -> None:
        """Of the deliveries asked about, those that are held are leased until then; forget the others."""
        lost = set(asked).difference(held)
        for job in self if not lost else self.clear():
            if job.delivery.id in held:
                job.renewed = until
            if lost and job.delivery.id not in lost:
                self.push(job)

    def clear(self) -> list[Job]:
        jobs = list(self)
        self._tenants.clear()
        self._held.clear()
        self._waiting.reset({})
        self._share.add(-sum(job.size for job in jobs))
        return jobs


@frozen
class LaneSnapshot:
    """How a lane stands. The last attempts are those of this life of the daemon."""

    backlog: int
    running: int
    breaker: BreakerState
    last_success: Attempt | None
    last_failure: Attempt | None


@define
class Told:
    """What the log has said of a lane: the detail of each kind of failure since the last success."""

    failures: dict[Reason, str] = field(factory=dict)
    seldom: Seldom = field(factory=Seldom)
    open: bool = False
    held: str = ""


@define(eq=False)
class Lane:
    """A channel's queue and its limits. They outlive a reload; the channel itself is looked up each time.

    `waiting` counts the lane's open deliveries, in memory or not, and `oldest` is when the oldest of them was
    created, as last counted. `due` is when the store may have one to give back, as far as this node knows.
    `waits` is what its deliveries wait for in the store, as last counted; `backlog` leaves out those in a window.
    """

    name: str
    channel: str
    share: Share = field(factory=Share)
    queue: FairQueue = field(default=Factory(lambda self: FairQueue(self.share), takes_self=True))
    running: dict[str, Job] = field(factory=dict)
    breaker: Breaker = field(factory=Breaker)
    bucket: TokenBucket | None = None
    waiting: Waiting = field(factory=Waiting)
    oldest: Instant | None = None
    waits: Mapping[Wait, int] = field(factory=dict)
    due: Instant | None = None
    timer: asyncio.TimerHandle | None = None
    last_success: Attempt | None = None
    last_failure: Attempt | None = None
    told: Told = field(factory=Told)

    def snapshot(self, now: Instant) -> LaneSnapshot:
        state = self.breaker.state(now)
        return LaneSnapshot(self.backlog, len(self.running), state, self.last_success, self.last_failure)

    def judge(self, made: Attempt, now: Instant) -> None:
        """Let the breaker learn from an attempt.

        A permanent failure is a message's fault, not the channel's, and a full mailbox its owner's.
        """
        if made.outcome is AttemptOutcome.TRANSIENT and made.reason is not Reason.MAILBOX_FULL:
            self.breaker.failed(now)
        else:
            self.breaker.succeeded()
        if made.outcome is AttemptOutcome.SENT:
            self.last_success = made
        else:
            self.last_failure = made

    @property
    def backlog(self) -> int:
        return self.waiting.total

    def held_by(self, blocked: Wait | None, now: Instant, share: int = 1) -> Counter[Wait]:
        """What its deliveries wait for. `blocked`: none of them can go at all, and for that reason.

        What neither the store nor a limit holds is waiting for those before it.
        """
        windowed = {why: self.waits.get(why, 0) for why in HELD_IN_WINDOWS}
        if blocked is not None:
            return Counter({blocked: self.backlog, **windowed})
        held = Counter(self.waits)
        ready = max(0, self.backlog - len(self.running) - (held.total() - sum(windowed.values())))
        held[self.holding(now, share)] += ready
        return held

    def holding(self, now: Instant, share: int) -> Wait:
        """What holds a delivery that is due."""
        if self.breaker.open:
            return Wait.BREAKER_OPEN
        full = self.bucket is not None and self.bucket.wait(now, share) > 0
        return Wait.RATE_LIMIT if full else Wait.CONCURRENCY

    def room(self) -> int:
        """How many more jobs may be claimed: as they come at least one, for there to be something to do."""
        fits = self.room_in_bytes > 0 or not self.in_memory
        return max(0, CLAIMED - self.in_memory) if fits else 0

    @property
    def room_in_bytes(self) -> int:
        """For what is claimed. As much as the lane holds stays free, for tenants who bring something new."""
        return max(0, self.share.room - self.share.held)

    def takes(self, job: Job) -> bool:
        """Does this new job fit into memory beside the others, and beside those of its tenant and of its flow?"""
        if not self.in_memory:
            return True
        tenant, rule = job.flow
        rows = min(
            CAPACITY - self.in_memory,
            TENANT_CAPACITY - self.queue.waiting(tenant),
            FLOW_CAPACITY - self.queue.waiting(tenant, rule),
        )
        held = self.queue.held(tenant) + self.queue.held(job.flow)
        return rows > 0 and self.share.room - held >= job.size

    def show(self, ids: Collection[str], until: Instant) -> None:
        """Note which running attempts the store shows as being sent, leased until then."""
        for id_ in self.running.keys() & set(ids):
            job = self.running[id_]
            job.shown, job.renewed = True, until

    def holds(self, job: Job, until: Instant) -> bool:
        """Does the lease of a job that was started last until then?"""
        return self.running.get(job.delivery.id, job).leased_until >= until

    def held(self) -> set[str]:
        return {job.delivery.id for job in self.queue} | self.running.keys()

    @property
    def in_memory(self) -> int:
        return len(self.queue) + len(self.running)

    def recount(self, stored: Mapping[str, int]) -> None:
        """Open deliveries by tenant, as the store counts them; what has come since is in memory."""
        here = Counter(job.delivery.tenant for job in (*self.queue, *self.running.values()))
        self.waiting.reset({tenant: max(stored.get(tenant, 0), here[tenant]) for tenant in {*stored, *here}})

    @property
    def beyond_memory(self) -> bool:
        """Has the store more of this lane than memory holds?"""
        return self.backlog > self.in_memory

    def limit(self, rate: Rate | None, now: Instant) -> None:
        """Take on the rate that is configured now; an unchanged one keeps its tokens."""
        if rate is None:
            self.bucket = None
        elif self.bucket is None or self.bucket.rate != rate:
            self.bucket = TokenBucket(rate, now)

    def wait(self, now: Instant, share: int = 1) -> float:
        """Seconds until the next attempt may start, 0 for now. `share` nodes divide the rate among them.

        Waiting spends no attempts.
        """
        return max(self.breaker.wait(now), self.bucket.wait(now, share) if self.bucket else 0.0)

    def start(self, now: Instant) -> Job:
        """The next job, with its token spent."""
        job = self.queue.pop()
        job.started = now
        self.running[job.delivery.id] = job
        self.share.add(job.size)
        self.breaker.started()
        if self.bucket:
            self.bucket.take()
        return job

    def finish(self, job: Job) -> None:
        """An attempt is over, whatever came of it. Saying it again changes nothing."""
        if self.running.pop(job.delivery.id, None) is not None:
            self.share.add(-job.size)

    def abandon(self, job: Job) -> None:
        """An attempt that never reached the channel: its token goes back, and the breaker learns nothing."""
        self.finish(job)
        self.breaker.abandoned()
        if self.bucket:
            self.bucket.give_back()
