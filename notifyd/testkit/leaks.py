"""Looking for secrets where none may be."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from notifyd.plugin import Secret
from notifyd.post import pieces_of


def secrets_in(value: Any) -> Iterator[Secret]:
    """Every `Secret` in a config, however deep."""
    if isinstance(value, Secret):
        yield value
    elif attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            yield from secrets_in(getattr(value, attribute.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from secrets_in(item)


def leaks(text: str, config: object) -> list[str]:
    """The pieces of the config's secrets that `text` shows."""
    return [piece for secret in secrets_in(config) for piece in pieces_of(secret.reveal()) if piece in text]


def all_of(error: BaseException) -> str:
    """All that a log, a ledger or a traceback could show of an error."""
    shown = [str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error))]
    shown += [str(value) for value in vars(error).values()]
    return "\n".join(shown)


class _Logs(logging.Handler):
    """Collects the records of all loggers but some, formatted."""

    def __init__(self, ignored: Container[str]) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._ignored = ignored

    def emit(self, record: logging.LogRecord) -> None:
        if record.name not in self._ignored:
            self.lines.append(self.format(record))


@contextmanager
def captured_logs(ignored: Container[str] = ()) -> Iterator[list[str]]:
    """What is logged meanwhile, at any level, by any logger that is not `ignored`."""
    handler, root = _Logs(ignored), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
