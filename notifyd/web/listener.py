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

log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""

_TURN: Final = 64
"""Connections that are accepted before others get a turn."""

_PAUSE: Final = 1.0
"""Seconds without accepting after the system had no room for one more."""

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
    """Serves what connects to `sockets` by the protocols that `server` makes; it closes the sockets in the end.

    `tls` gives the context in force, None for plain HTTP.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        server: Callable[[], asyncio.Protocol],
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._sockets = sockets
        self._server = server
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._resumption: asyncio.TimerHandle | None = None
        for one in sockets:
            one.setblocking(False)
        self._resume()

    async def aclose(self) -> None:
        """Accept no more, and give up on handshakes under way. Open connections are the server's affair."""
        self._pause()
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
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # nobody waits, or has gone away meanwhile
            except OSError as error:
                log.error("accepting connections pauses for %g s: %s", _PAUSE, error.strerror)
                self._pause()
                self._resumption = self._loop.call_later(_PAUSE, self._resume)
                return
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(partial(self._opened, connection))

    def _opened(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():  # before its first step, perhaps
            connection.close()

    async def _open(self, connection: socket.socket) -> None:
        tls = self._tls()
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(
                self._server, connection, ssl=tls, ssl_handshake_timeout=_HANDSHAKE if tls else None
            )
        except OSError as error:  # of which a failed handshake is one, and TimeoutError
            connection.close()
            log.info("a connection was not opened: %s", error)


def _close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()
