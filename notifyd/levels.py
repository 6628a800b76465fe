"""What of the log is written: a level that can change while the process runs.

What notifyd itself says is below the logger `notifyd`. All else (drivers, HTTP, plugins' vendors) never says less
than an info: at debug they would show the documents and addresses that they handle.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from attrs import define

OURS: Final = "notifyd"
"""The logger above all of notifyd's own."""


class LogLevel(StrEnum):
    """The least that is written, by the names of the standard library."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@define
class _Quiet:
    """The level before the debug lines, whoever asked for them; info where they come from the start on."""

    level: LogLevel = LogLevel.INFO


_QUIET: Final = _Quiet()


def set_level(level: LogLevel) -> None:
    """From now on, in all threads."""
    if (before := get_level()) is not LogLevel.DEBUG:
        _QUIET.level = before if logging.getLogger(OURS).level else LogLevel.INFO
    number: int = getattr(logging, level.name)
    logging.getLogger().setLevel(max(number, logging.INFO))
    logging.getLogger(OURS).setLevel(number)


def get_level() -> LogLevel:
    """The level in force."""
    number = logging.getLogger(OURS).getEffectiveLevel()
    return next((one for one in LogLevel if getattr(logging, one.name) >= number), LogLevel.CRITICAL)


def toggle_debug() -> None:
    """From any level to debug, and from there to the one before."""
    set_level(_QUIET.level if get_level() is LogLevel.DEBUG else LogLevel.DEBUG)


class Seldom:
    """Lets one line of a kind through in each minute: what comes with every message must not fill the log."""

    PAUSE: Final = 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at: dict[str, float] = {}

    def passes(self, kind: str) -> bool:
        """May a line of this kind be written now? Kinds are few: a fault's type, and no text of it."""
        now = self._clock()
        if now - self._said_at.get(kind, -math.inf) < self.PAUSE:
            return False
        self._said_at[kind] = now
        return True


class Complaint:
    """What a loop would say again at every turn: a warning when it is new, a debug line each further time."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said = ""

    def repeat(self, message: str) -> None:
        self._log.log(logging.DEBUG if message == self._said else logging.WARNING, "%s", message)
        self._said = message

    def over(self) -> None:
        """The next one is new, whatever it says."""
        self._said = ""
