"""What every step of the store works with: the collections, this node's name and clocks, its list positions."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from attrs import define, evolve, field, frozen
from bson import ObjectId

from notifyd.model import SECOND, Clock, Instant
from notifyd.store.aside import SetAside
from notifyd.store.mongo.driver import Collection, Connection, Document
from notifyd.store.mongo.inserts import Inserter

LEASE_CEILING: Final = 3600 * SECOND
"""No lease is given for longer (microseconds). One that ends further ahead is a wrong clock's."""

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - as the driver gives times: UTC, without a zone
_CHECK_EVERY: Final = 10.0
_SALT_BITS: Final = 10

_log = logging.getLogger("notifyd.store")

T = TypeVar("T")


def date_of(at: Instant) -> datetime:
    """A time as TTL indexes read it, in whole seconds."""
    return datetime.fromtimestamp(at // SECOND, UTC)


@define(eq=False)
class Positions:
    """Where new documents stand in lists: by this node's clock, and always above this node's last.

    A position has the microseconds in its upper bits, and below them a number of this life's own, so that two
    nodes hardly ever give the same one.
    """

    clock: Clock
    _salt: int = field(factory=lambda: secrets.randbits(_SALT_BITS))
    _last: int = 0

    def next(self) -> int:
        self._last = max(self._last + (1 << _SALT_BITS), self.clock() << _SALT_BITS | self._salt)
        return self._last


@define(eq=False)
class Ids:
    """The `_id`s of rows that are restored, always above this node's last: the driver's own count wraps round."""

    _last: int = 0

    def next(self) -> ObjectId:
        self._last = max(self._last + 1, int.from_bytes(ObjectId().binary, "big"))
        return ObjectId(self._last.to_bytes(12, "big"))


@define(eq=False)
class ServerClock:
    """How far this node's clock is from the database's, which is the one that nodes compare leases by.

    `tolerance` is how far (microseconds); None trusts this node's clock, for a database with one node.
    """

    read: Callable[[], Awaitable[Document]]  # the server's answer to hello
    clock: Clock
    tolerance: Instant | None
    offset: Instant = 0
    _checked: float = float("-inf")  # monotonic seconds
    _trusted: bool = True

    async def trusted(self) -> bool:
        """May this node claim? Not while its clock is off by more than the tolerance."""
        if time.monotonic() - self._checked >= _CHECK_EVERY:
            await self.measure()
        return self._trusted

    async def right(self) -> bool:
        """As `trusted`, by a comparison that is made now: for what cannot be taken back."""
        await self.measure()
        return self._trusted

    async def measure(self) -> None:
        """Compare the clocks now."""
        if self.tolerance is not None:
            await self._measure(self.tolerance)

    async def _measure(self, tolerance: Instant) -> None:
        before = self.clock()
        answer = await self.read()
        ours = (before + self.clock()) // 2
        self.offset = ours - (answer["localTime"] - _EPOCH) // timedelta(microseconds=1)
        self._checked = time.monotonic()
        trusted = abs(self.offset) <= tolerance
        if trusted != self._trusted:
            _log.log(
                logging.INFO if trusted else logging.ERROR,
                "this host's clock is %.1f s from the database's: %s",
                self.offset / SECOND,
                "claiming again" if trusted else "nothing is claimed or ended by it until it is right",
            )
        self._trusted = trusted

    def by_server(self, at: Instant) -> Instant:
        """What the database's clock shows when this node's shows `at`."""
        return at - self.offset

    def now(self) -> Instant:
        """The time by the database's clock."""
        return self.by_server(self.clock())

    def lease_end(self, until: Instant) -> Instant:
        """When others may take what this node holds until `until`, by a clock that is off by the tolerance."""
        return self.by_server(until) + (self.tolerance or 0)


@frozen
class Base:
    connection: Connection
    node: str
    clock: Clock
    server_clock: ServerClock
    positions: Positions
    ids: Ids
    events: Collection
    approvals: Collection
    decisions: Collection
    incidents: Collection
    deliveries: Collection
    timers: Collection
    nodes: Collection
    jobs: Collection
    channel_state: Collection
    audit: Collection
    audit_seals: Collection
    silences: Collection
    deputies: Collection
    new_events: Inserter
    new_deliveries: Inserter
    new_audit: Inserter
    aside: SetAside
    _turns: WeakValueDictionary[Hashable, asyncio.Lock] = field(factory=WeakValueDictionary)
    # This process, among those that have had the node's name.
    life: str = field(factory=lambda: secrets.token_hex(16))

    @classmethod
    def of(
        cls, connection: Connection, node: str, clock: Clock, skew: Instant | None, aside: SetAside
    ) -> Base:
        def collection(name: str) -> Collection:
            return connection.collection(name)

        def inserter(name: str) -> Inserter:
            return Inserter(collection(name), connection.name)

        return cls(
            connection=connection,
            node=node,
            clock=clock,
            server_clock=ServerClock(connection.hello, clock, skew),
            positions=Positions(clock),
            ids=Ids(),
            events=collection("events"),
            approvals=collection("pack_approvals"),
            decisions=collection("decisions"),
            incidents=collection("incidents"),
            deliveries=collection("deliveries"),
            timers=collection("timers"),
            nodes=collection("nodes"),
            jobs=collection("jobs"),
            channel_state=collection("channel_state"),
            audit=collection("audit"),
            audit_seals=collection("audit_seals"),
            silences=collection("silences"),
            deputies=collection("deputies"),
            new_events=inserter("events"),
            new_deliveries=inserter("deliveries"),
            new_audit=inserter("audit"),
            aside=aside,
        )

    def lease(self, until: Instant) -> dict[str, Any]:
        """The fields of a lease of this node's until then."""
        end = self.server_clock.lease_end(until)
        return {"claim_at": end, "set_from": end - LEASE_CEILING}

    async def transact(self, step: Callable[[Base], Awaitable[T]]) -> T:
        """Run `step` in a transaction, given this with its collections in it: see `Connection.transact`.

        The inserters stay outside: what they group has a commit of its own.
        """
        return await self.connection.transact(lambda session: step(self._within(session)))

    def turn(self, subject: Hashable) -> asyncio.Lock:
        """This node's transactions about one subject take turns: all but one would only have to be tried again."""
        return self._turns.setdefault(subject, asyncio.Lock())

    def _within(self, session: Any) -> Base:
        return evolve(
            self,
            events=self.events.within(session),
            approvals=self.approvals.within(session),
            decisions=self.decisions.within(session),
            incidents=self.incidents.within(session),
            deliveries=self.deliveries.within(session),
            timers=self.timers.within(session),
            audit=self.audit.within(session),
            audit_seals=self.audit_seals.within(session),
            silences=self.silences.within(session),
            deputies=self.deputies.within(session),
        )

    async def settled(self) -> None:
        """Nothing that was handed in is under way any more."""
        for inserter in (self.new_events, self.new_deliveries, self.new_audit):
            await inserter.settled()
        await self.connection.settled()
