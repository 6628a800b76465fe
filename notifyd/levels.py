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
