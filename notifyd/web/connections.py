"""The connections that are open: how many there may be, from whom, and how much each may send before it is heard.

Nobody is proved when a connection opens, so what one costs is bounded by its caller's address. Where there is no
room, the connection that has been idle longest makes way. Where none is idle, a few more are taken on even so: to
tell callers that there are too many, and to answer whoever watches the service.
"""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final, cast

from attrs import define, field

from notifyd.security.certificates import Peer
from notifyd.web.addresses import Address, Gate

SURPLUS: Final = 32
"""Connections that are taken on where there is no room: each for one request, and for `SURPLUS_LIFE` seconds."""

SURPLUS_LIFE: Final = 2.0

DESCRIPTORS: Final = 128
"""File descriptors that are left for the database, for channels, and for `SURPLUS`."""

_FEWEST: Final = 16
"""Connections that there may be on however few descriptors."""

HEAD: Final = 64 * 1024
"""Bytes that a request line and its headers may have together."""

PIECE: Final = 16 * 1024
"""Bytes that are read at a time: the event loop's own way would be a quarter of a megabyte for each connection."""

_HEAD_PIECE: Final = 4 * 1024
"""Bytes of a head that are read at a time: a fault in it takes ten times as much memory."""

_TURN: Final = 0.01
"""Seconds from one piece of a head to the next, in which the server finds out whether it is HTTP at all."""

LINGER: Final = 1024 * 1024
"""Bytes of an unread body that are let in and dropped after its refusal: many callers read only then."""

_STUCK: Final = 10.0
"""Seconds after which a connection whose answer, or whose request, is not read counts as idle."""

_ANY: Final = 2**60

_PIECE: Final = memoryview(bytearray(PIECE))
"""What every connection is read into: the bytes are copied before the loop turns to another."""

_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n"
    b"Server: notifyd\r\n\r\n"
)


def descriptor_bound() -> int:
    """How many connections the process has file descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FEWEST, soft - DESCRIPTORS) if soft != resource.RLIM_INFINITY else 1_000_000


class Surplus(Enum):
    """Why there was no room for a connection."""

    CLIENT = "client"  # its address has as many as it may have
    SERVER = "server"  # all have together


@define(eq=False)
class Known:
    """An address's connections: how many, and those that are idle, the longest first."""

    count: int = 0
    idle: OrderedDict[Place, None] = field(factory=OrderedDict)


@define(eq=False)
class Place:
    """One connection's. `close` ends it, whatever it does. With a `surplus` it has one request, of few kinds."""

    address: Address | None
    known: Known
    surplus: Surplus | None
    close: Callable[[], object]
    idle_since: float
    unread: Callable[[], bool] = lambda: False  # is there an answer that the caller does not read?
    asking: Callable[[], bool] = lambda: False  # has the caller sent what is still to be read here?
    left: bool = False


class Door:
    """Who may come in. `gate` gives the bounds in force, `now` seconds that only go forward.

    The connections of a trusted proxy are many people's, and bounded by `max_connections` alone.
    """

    def __init__(self, gate: Callable[[], Gate], now: Callable[[], float]) -> None:
        self._gate = gate
        self._now = now
        self._known: dict[Address | None, Known] = {}
        self._idle: OrderedDict[Place, None] = OrderedDict()
        self._surplus: set[Place] = set()
        self._owed: set[Place] = set()
        self._settled = asyncio.Event()
        self._ordinary = 0
        self.closing = False

    @property
    def count(self) -> int:
        """How many connections are open."""
        return self._ordinary + len(self._surplus)

    @property
    def owed(self) -> int:
        """How many connections have had no answer to their request, or have sent none yet."""
        return len(self._owed)

    @property
    def under_way(self) -> int:
        """How many connections have a request under way."""
        return self._ordinary - len(self._idle)

    async def settle(self, patience: float) -> None:
        """From now on an answer is a connection's last. Waits `patience` seconds at most, until each has had one.

        Who has just connected has a request on its way, which would be lost with the connection.
        """
        self.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._owed:
                    self._settled.clear()
                    await self._settled.wait()

    def enter(self, address: Address | None, close: Callable[[], object]) -> Place | None:
        """A place for a new connection; None where there is none even among the surplus."""
        surplus = self._surplus_of(address)
        if surplus and len(self._surplus) >= SURPLUS:
            return None
        known = self._known.setdefault(address, Known())
        known.count += 1
        place = Place(address, known, surplus, close, self._now())
        self._owed.add(place)
        if surplus:
            self._surplus.add(place)
        else:
            self._ordinary += 1
            self._rest(place)
        return place

    def leave(self, place: Place) -> None:
        """It is closed, or was never opened. Safe to call twice."""
        if place.left:
            return
        self.busy(place)
        self._paid(place)
        place.left = True
        if place in self._surplus:
            self._surplus.remove(place)
        else:
            self._ordinary -= 1
        place.known.count -= 1
        if not place.known.count:
            del self._known[place.address]

    def busy(self, place: Place) -> None:
        """It has a request under way: it makes way for nobody."""
        if place.left:
            return
        self._owed.add(place)
        self._idle.pop(place, None)
        place.known.idle.pop(place, None)

    def idle(self, place: Place) -> None:
        """Its request has ended."""
        self._paid(place)
        if not place.surplus and not place.left:
            place.idle_since = self._now()
            self._rest(place)

    def make_room(self) -> None:
        """Close some that are idle, as the system has no room for another."""
        for _ in range(SURPLUS):
            if not self._evict(self._idle):
                return

    def _paid(self, place: Place) -> None:
        self._owed.discard(place)
        if not self._owed:
            self._settled.set()

    def _rest(self, place: Place) -> None:
        self._idle[place] = None
        place.known.idle[place] = None

    def _surplus_of(self, address: Address | None) -> Surplus | None:
        """Why there is no room for another of this address, None where there is, or room could be made."""
        gate, known = self._gate(), self._known.get(address)
        crowd = known is not None and known.count >= gate.server.max_connections_per_client
        if known is not None and crowd and not gate.is_proxy(address):
            return None if self._evict(known.idle) else Surplus.CLIENT
        if self._ordinary >= min(gate.server.max_connections, descriptor_bound()):
            return None if self._evict(self._idle) else Surplus.SERVER
        return None

    def _evict(self, resting: OrderedDict[Place, None]) -> bool:
        """Close the one that has been idle longest; False where there is none."""
        for place in resting:
            idle = not place.unread() and not place.asking()
            if idle or self._now() - place.idle_since > _STUCK:
                self.busy(place)  # in the middle of being closed, it is not found again
                place.close()
                return True
        return False


class Connection(asyncio.BufferedProtocol):
    """Between a transport and the HTTP server's protocol: it bounds what is read before somebody wants it.

    A head comes piece by piece, and is refused where it does not end within `HEAD`. While a request is handled, as
    much again may come behind it, and more once somebody reads its body. At the end of a grant reading pauses.
    """

    def __init__(self, http: asyncio.Protocol, place: Place, door: Door) -> None:
        self.place = place
        self._http: asyncio.Protocol | None = http
        self._door = door
        self._grant, self._head = _HEAD_PIECE, HEAD
        self._paused = self._handling = self._shut = False
        self.certificate: Peer | None = None  # the caller's, which the handshake has verified
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- what the HTTP server tells ------------------------------------------------------------------------

    @property
    def last(self) -> bool:
        """Is the next answer the last one here?"""
        return self.place.surplus is not None or self._door.closing

    def begin(self) -> None:
        """A request is being handled."""
        self._handling = True
        self._door.busy(self.place)
        self._let_in(HEAD)

    def end(self, *, unread: bool) -> None:
        """It has been answered; `unread`: without all of its body."""
        self._handling, self._head = False, HEAD
        self._door.idle(self.place)
        self._let_in(LINGER if unread else _HEAD_PIECE)

    def let_in(self) -> None:
        """Somebody reads the request's body from here on, and bounds it."""
        self._let_in(_ANY)

    def shut(self) -> None:
        """Stop reading: what follows is not HTTP."""
        self._shut = True
        if self._transport is not None:
            self._transport.pause_reading()

    def _let_in(self, size: int) -> None:
        self._grant = size
        if self._paused and not self._shut and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # -- what the transport tells ------------------------------------------------------------------------------

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, made)
        self.certificate = transport.get_extra_info("peercert")
        self.place.close = transport.abort
        self.place.unread = lambda: transport.get_write_buffer_size() > 0
        if self.place.surplus:
            self._timer = asyncio.get_running_loop().call_later(SURPLUS_LIFE, transport.abort)
        if self._http is not None:
            self._http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        http, self._http, self._transport = self._http, None, None
        # Whatever leads back to here: what was read would wait for the collector.
        self.place.close = self.place.unread = self.place.asking = _nothing
        if self._timer is not None:
            self._timer.cancel()
        self._door.leave(self.place)
        if http is not None:
            http.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _PIECE[: min(max(self._grant, 1), PIECE)]

    def buffer_updated(self, nbytes: int) -> None:
        self._grant -= nbytes
        if self._http is not None and not self._shut:
            self._http.data_received(bytes(_PIECE[:nbytes]))
        # Each time, because the server resumes reading when what it holds is used up.
        if (self._grant <= 0 or self._shut) and self._transport is not None:
            self._pause(self._transport)

    def _pause(self, transport: asyncio.Transport) -> None:
        transport.pause_reading()
        if not self._paused:
            self._paused = True
            asyncio.get_running_loop().call_later(_TURN, self._go_on)

    def _go_on(self) -> None:
        """Read the next piece of a head, or refuse it."""
        if not self._paused or self._handling or self._shut or self._transport is None:
            return
        self._head -= _HEAD_PIECE
        if self._head > 0:
            self._let_in(_HEAD_PIECE)
        else:
            self._transport.write(_TOO_LONG)
            self._transport.close()

    def eof_received(self) -> bool | None:
        return self._http.eof_received() if self._http is not None else None

    def pause_writing(self) -> None:
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        if self._http is not None:
            self._http.resume_writing()


def _nothing() -> bool:
    return False
