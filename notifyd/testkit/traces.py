"""What a channel may leave behind: open descriptors, threads, tasks, and changes to what the process shares."""

from __future__ import annotations

import asyncio
import locale
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from attrs import asdict, frozen

_DESCRIPTORS: Final = Path("/dev/fd")
_EXECUTOR: Final = "asyncio_"
"""How the threads are named that `asyncio.to_thread` keeps for later."""


def more_than() -> Callable[[], list[str]]:
    """A function that says of what there is more than now, in the running loop and its process."""
    before = _counts()

    def more() -> list[str]:
        found = {what: now - before[what] for what, now in _counts().items()}
        return [f"{count} {what}" for what, count in found.items() if count > 0]

    return more


def _counts() -> dict[str, int]:
    threads = [one for one in threading.enumerate() if not one.name.startswith(_EXECUTOR)]
    return {
        "open descriptors (sockets or files)": sum(1 for _ in _DESCRIPTORS.iterdir())
        if _DESCRIPTORS.is_dir()
        else 0,
        "running threads": len(threads),
        "running tasks": len(asyncio.all_tasks()),
    }


@frozen
class Surroundings:
    """What a process has once, and every channel in it shares."""

    environment: Mapping[str, str]
    folder: str
    locale: str
    socket_timeout: float | None
    signals: Mapping[int, object]
    import_path: tuple[str, ...]
    log_level: int
    log_handlers: tuple[logging.Handler, ...]
    logging_disabled: int
    exception_handler: object

    @classmethod
    def now(cls) -> Self:
        root = logging.getLogger()
        return cls(
            environment=dict(os.environ),
            folder=str(Path.cwd()),
            locale=locale.setlocale(locale.LC_ALL),
            socket_timeout=socket.getdefaulttimeout(),
            signals={number: signal.getsignal(number) for number in signal.valid_signals()},
            import_path=tuple(sys.path),
            log_level=root.level,
            log_handlers=tuple(root.handlers),
            logging_disabled=root.manager.disable,
            exception_handler=asyncio.get_running_loop().get_exception_handler(),
        )

    def changed(self) -> list[str]:
        """The names of what is different now."""
        now = asdict(self.now(), recurse=False)
        return [
            name.replace("_", " ")
            for name, value in asdict(self, recurse=False).items()
            if now[name] != value
        ]
