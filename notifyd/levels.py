"""What of the log is written: a level that can change while the process runs.

What notifyd itself says is below the logger `notifyd`. All else (drivers, HTTP, plugins' vendors) never says less
than an info: at debug they would show the documents and addresses that they handle.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Final

OURS: Final = "notifyd"
"""The logger above all of notifyd's own."""


class LogLevel(StrEnum):
    """The least that is written, by the names of the standard library."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def set_level(level: LogLevel) -> None:
    """From now on, in all threads."""
    number: int = getattr(logging, level.name)
    logging.getLogger().setLevel(max(number, logging.INFO))
    logging.getLogger(OURS).setLevel(number)


def get_level() -> LogLevel:
    """The level in force."""
    number = logging.getLogger(OURS).getEffectiveLevel()
    return next((one for one in LogLevel if getattr(logging, one.name) >= number), LogLevel.CRITICAL)


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
