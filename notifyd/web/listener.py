"""Where connections come in: one listener accepts them all, and hands each to the HTTP server.

Each handshake takes the certificate in force when it begins, so that a reload concerns new connections only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from notifyd.metrics import Metrics
from notifyd.web.addresses import Address, parse
from notifyd.web.connections import Door, Place

log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""

_TURN: Final = 64
"""Connections that are accepted before others get a turn."""

_MANY: Final = 128
"""Requests under way at which the rest of a crowd waits to be accepted: the bounds are not there for a backlog."""

_BREATH: Final = 0.005
"""Seconds for which a crowd waits at least."""

_FOR_SILENT: Final = 0.05
"""Seconds for which it waits for requests that those before have yet to send, which may send none on purpose."""

_FOR_HEARD: Final = 0.25
"""Seconds for which it waits for requests that are under way, which may be slow on purpose."""

_PAUSE: Final = 0.1
"""Seconds without accepting after the system had no room for one more."""

_TOLD: Final = 10.0
"""Seconds from one line in the log about refused or failed connections to the next."""

_UNREAD: Final = 30_000
"""Milliseconds after which the system ends a connection whose caller takes nothing of what was sent."""

_SETTLING: Final = 1.0
"""Seconds for which the end waits for requests that are under way, or on their way."""

_HANDSHAKE: Final = 10.0
"""Seconds that a TLS handshake may take."""


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`. Raises OSError where one cannot be had, and then leaves none open."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            opened.append(socket.create_server(address, family=family, backlog=_BACKLOG))
    except OSError:
        _close(opened)
        raise
    return opened


class Listener:
    """Serves what connects to `sockets`, and `door` lets in, by `protocol`; it closes the sockets in the end.

    `tls` gives the context in force, None for plain HTTP.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol: Callable[[Place], asyncio.BaseProtocol],
        door: Door,
        tls: Callable[[], ssl.SSLContext | None],
        metrics: Metrics,
    ) -> None:
        self._sockets = sockets
        self._protocol = protocol
        self._door = door
        self._tls = tls
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[bool]] = set()
        self._resumption: asyncio.TimerHandle | None = None
        self._told_at = self._failure_told_at = float("-inf")
        metrics.connections.set_function(lambda: door.count)
        for one in sockets:
            one.setblocking(False)
        self._resume()

    async def settle(self, patience: float = _SETTLING) -> None:
        """Accept no more, and let those who are connected have their answers, for `patience` seconds at most."""
        self._pause()
        await self._door.settle(patience)

    async def aclose(self) -> None:
        """The same, and give up on handshakes under way. What is open then is the server's affair."""
        await self.settle()
        _close(self._sockets)
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        for one in self._sockets:
            self._loop.add_reader(one, self._accept, one)

    def _pause(self) -> None:
        if self._resumption is not None:
            self._resumption.cancel()
        for one in self._sockets:
            self._loop.remove_reader(one)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # nobody waits, or has gone away meanwhile
            except OSError as error:
                self._wait_for_room(error)
                return
            self._admit(connection, parse(str(peer[0])))
        self._pause()
        self._wait_for_those_before(self._loop.time())

    def _wait_for_those_before(self, since: float) -> None:
        """After a restart, all who came meanwhile are there at once, and more than one address may have open."""

        def look() -> None:
            waited = self._loop.time() - since
            heard = self._door.under_way >= _MANY and waited < _FOR_HEARD
            if heard or (self._door.owed >= _MANY and waited < _FOR_SILENT):
                self._wait_for_those_before(since)
            else:
                self._resume()

        self._resumption = self._loop.call_later(_BREATH, look)

    def _wait_for_room(self, error: OSError) -> None:
        """The system has none, of file descriptors perhaps. Whoever waits goes on waiting, and some make way."""
        if self._loop.time() - self._told_at >= _TOLD:
            self._told_at = self._loop.time()
            log.error("accepting connections pauses until there is room: %s", error.strerror)
        self._pause()
        self._resumption = self._loop.call_later(_PAUSE, self._resume)
        self._door.make_room()

    def _admit(self, connection: socket.socket, address: Address | None) -> None:
        opening: list[asyncio.Task[bool]] = []
        place = self._door.enter(address, lambda: opening[0].cancel())
        if place is None or place.surplus:
            self._tell_crowd(place, address)
        if place is None:
            connection.close()
            return
        place.asking = partial(_has_bytes, connection)
        task = self._loop.create_task(self._open(connection, place))
        opening.append(task)
        self._opening.add(task)
        task.add_done_callback(partial(self._opened, connection, place))

    def _tell_crowd(self, place: Place | None, address: Address | None) -> None:
        why = place.surplus.value if place is not None and place.surplus else "closed"
        self._metrics.connections_refused.labels(why).inc()
        if self._loop.time() - self._told_at >= _TOLD:
            self._told_at = self._loop.time()
            log.warning(
                "too many connections, %d now: one more from %s is refused", self._door.count, address
            )

    def _opened(self, connection: socket.socket, place: Place, task: asyncio.Task[bool]) -> None:
        self._opening.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            log.error("a connection was not opened", exc_info=fault)
        if task.cancelled() or fault is not None or not task.result():
            connection.close()
            self._door.leave(place)

    async def _open(self, connection: socket.socket, place: Place) -> bool:
        """Has it become a connection, which leaves by itself?"""
        tls = self._tls()
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD)
            await self._loop.connect_accepted_socket(
                partial(self._protocol, place),
                connection,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE if tls else None,
            )
        except OSError as error:  # of which a failed handshake is one, and TimeoutError
            self._tell_failure(place, error)
            return False
        return True

    def _tell_failure(self, place: Place, error: OSError) -> None:
        if self._loop.time() - self._failure_told_at >= _TOLD:
            self._failure_told_at = self._loop.time()
            log.warning("a connection from %s was not opened: %s", place.address, error)


def _has_bytes(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:  # none, or it is closed
        return False


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()
