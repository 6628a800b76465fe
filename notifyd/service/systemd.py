"""systemd's two protocols: telling it how things stand, and taking over a socket that listens already.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html: datagrams of `NAME=value` lines to the
socket in `$NOTIFY_SOCKET`. Without one, nothing is told.
https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html: `$LISTEN_FDS` descriptors from 3 on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

log = logging.getLogger(__name__)

_SECOND: Final = 1_000_000
_FIRST_FD: Final = 3


class Notifier:
    """Never raises and never waits: a service works on where its manager does not listen.

    Its socket is kept, because a service that has used up its file descriptors still lives, and has to say so.
    """

    def __init__(self, address: str = "", *, watchdog: float = 0.0) -> None:
        """`address` is a path, or `@` and a name in the abstract namespace; "" tells nobody.

        `watchdog` is the time in seconds within which the manager wants to hear that the loop turns; 0: never.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._silent = not address.startswith(("/", "@"))
        self._watchdog = watchdog
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def close(self) -> None:
        """Tell nothing more."""
        self._silent = True
        self._socket.close()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        timeout = environ.get("WATCHDOG_USEC", "")
        watchdog = int(timeout) / _SECOND if ours and timeout.isascii() and timeout.isdigit() else 0.0
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog=watchdog)

    def ready(self, status: str) -> None:
        """The service works; also the end of a reload."""
        self._tell(READY="1", STATUS=status)

    def status(self, status: str) -> None:
        """Only a word, shown by `systemctl status`, also of a service that has failed."""
        self._tell(STATUS=status)

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(RELOADING="1", MONOTONIC_USEC=str(now), STATUS="Reloading the configuration")

    def stopping(self, status: str) -> None:
        self._tell(STOPPING="1", STATUS=status)

    async def watch(self) -> None:
        """Tell again and again, from the loop, that it turns. Ends at once where nobody asks for that."""
        while self._watchdog:
            self._tell(WATCHDOG="1")
            await asyncio.sleep(self._watchdog / 3)

    def _tell(self, **fields: str) -> None:
        if self._silent:
            return
        message = "".join(f"{name}={_one_line(value)}\n" for name, value in fields.items())
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", ", ".join(fields), error.strerror)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def inherited_socket(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The listening TCP socket that systemd has opened for this process, None where it has opened none.

    Raises OSError where it has passed on something else.
    """
    count = environ.get("LISTEN_FDS", "0")
    if environ.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return None
    if count != "1":
        raise OSError(f"systemd passes on {count} sockets, and there is use for one")
    given = socket.socket(fileno=_FIRST_FD)
    given.set_inheritable(False)
    listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if given.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        given.close()
        raise OSError("the socket that systemd passes on is not a listening TCP socket")
    return given
