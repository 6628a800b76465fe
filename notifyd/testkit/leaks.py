"""Looking for secrets where none may be."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from typing import Any, Final

import attrs

from notifyd.plugin import Secret
from notifyd.post import pieces_of
from notifyd.security.echoes import Pieces, in_any_reading

_SHORTEST: Final = 6
_SHOWN: Final = repr(Secret("hidden"))
"""How secrets are shown. The word in it is in many a secret of a test's, such as `a-secret-token`."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({})))
"""What every log record has; the rest came as `extra`."""


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
    """The pieces of the config's secrets that `text` shows: in clear, base64, hex or escaped, also in part."""
    pieces = tuple(dict.fromkeys(piece for one in secrets_in(config) for piece in pieces_of(one.reveal())))
    return [piece for piece in pieces if shows(text, piece)] if _any(text, pieces) else []


def shows(text: str, secret: str) -> bool:
    """Is it in the text: whole, or in any encoding as much of it as is a leak?"""
    return _any(text, (secret,))


def _any(text: str, secrets: tuple[str, ...]) -> bool:
    return any(secret in text for secret in secrets) or in_any_reading(
        text.replace(_SHOWN, ""), _parts(secrets)
    )


@lru_cache(maxsize=256)
def _parts(secrets: tuple[str, ...]) -> Pieces:
    """What is a leak in any encoding. What must not be seen of a URL is a piece of its own."""
    return Pieces.of([secret for secret in secrets if "://" not in secret], shortest=_SHORTEST)


def all_of(error: BaseException) -> str:
    """All that a log, a ledger or a traceback could show of an error."""
    shown = [str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error))]
    shown += [str(value) for value in vars(error).values()]
    return "\n".join(shown)


@contextmanager
def captured_logs(ignored: Container[str] = ()) -> Iterator[list[str]]:
    """What is logged meanwhile, at any level, by any logger but those `ignored`, past its filters."""
    lines: list[str] = []
    root, handle = logging.getLogger(), logging.Logger.callHandlers
    before = root.level

    def noted(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.name not in ignored:
            lines.append(_told(record))
        handle(logger, record)

    logging.Logger.callHandlers = noted  # type: ignore[method-assign,assignment]
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(before)
        logging.Logger.callHandlers = handle  # type: ignore[method-assign]


def _told(record: logging.LogRecord) -> str:
    """The line with its traceback, and what was given as `extra`, which another formatter may write."""
    extra = [f"{name}={value}" for name, value in vars(record).items() if name not in _STANDARD]
    return " ".join([logging.Formatter().format(record), *extra])


@contextmanager
def all_that_is_shown(ignored: Container[str] = ()) -> Iterator[list[str]]:
    """What is logged, printed or warned of meanwhile."""
    printed = io.StringIO()
    with (
        captured_logs(ignored) as lines,
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        warnings.simplefilter("always")
        try:
            yield lines
        finally:
            lines += [*printed.getvalue().splitlines(), *(str(warning.message) for warning in warned)]
