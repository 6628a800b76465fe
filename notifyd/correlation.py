"""The correlation id of a request: taken from the caller or made, on every answer and in every log line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from multidict import istr

HEADER: Final = istr("X-Correlation-ID")

current: Final[ContextVar[str]] = ContextVar("correlation_id", default="")
"""The id of what is under way: a request, or what follows from one; "" for all else. Each task has its own."""

FORM: Final = "[A-Za-z0-9._:@+/=-]{1,128}"
"""What an id that a caller offers looks like, as a regular expression."""

_SANE: Final = re.compile(FORM).fullmatch


def begin(offered: str | None) -> str:
    """Make `offered` the current id where it is sane, else a new one."""
    chosen = offered if offered and _SANE(offered) else os.urandom(16).hex()
    current.set(chosen)
    return chosen


@contextmanager
def about(correlation_id: str) -> Iterator[None]:
    """What is logged in the block belongs to the request of this id."""
    token = current.set(correlation_id)
    try:
        yield
    finally:
        current.reset(token)
