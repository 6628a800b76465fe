"""Logging: lines on standard output, written by a thread of its own, redacted.

On a terminal they are text, elsewhere one JSON object each, with the members `time` (RFC 3339), `level`, `logger`,
`message`, and where there is one `correlationId` and `exception`. A line is built and written behind the caller,
who never waits for whoever reads the output.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

from notifyd import correlation
from notifyd.levels import OURS, LogLevel, set_level
from notifyd.model import SECOND
from notifyd.security.redact import Redactor
from notifyd.security.secrets import Secret
from notifyd.text import clean, one_line
from notifyd.wire.codec import rfc3339

_QUEUE: Final = 10_000
"""Lines that may wait for a slow reader. More are dropped and counted: memory has an end."""

_BATCH: Final = 200
"""Lines in one write at most."""

_FLUSH: Final = 1.0
"""Seconds that the last lines are given when the process ends."""

Redact: TypeAlias = Callable[[str], str]
OnLost: TypeAlias = Callable[[int], None]


class Redaction:
    """Hides every secret that any configuration of this process has held, the one before a reload included."""

    def __init__(self) -> None:
        self._known: set[Secret] = set()
        self._redactor = Redactor()

    def learn(self, secrets: Iterable[Secret]) -> None:
        self._known.update(secrets)
        self._redactor = Redactor(self._known)

    def __call__(self, text: str) -> str:
        return self._redactor.text(text)


class Formatter(logging.Formatter):
    """What all formats say of a record, each of its texts redacted."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def members(self, record: logging.LogRecord) -> dict[str, str]:
        members = {
            "time": rfc3339(int(record.created * SECOND)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        if correlation_id := getattr(record, "correlation_id", ""):
            members["correlationId"] = self._redact(correlation_id)
        if exception := self._exception(record):
            members["exception"] = self._redact(exception)
        return members

    def _exception(self, record: logging.LogRecord) -> str:
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return "\n".join(filter(None, (record.exc_text, record.stack_info)))


class JsonFormatter(Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.members(record), ensure_ascii=False)


class TextFormatter(Formatter):
    """A record as a line for people, and below it its exception. Nothing in it steers the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        said = self.members(record)
        line = f"{said['time']} {said['level']:8} {said['logger']}: {one_line(said['message'])}"
        if "correlationId" in said:
            line += f" [{said['correlationId']}]"
        return "\n".join([line, *filter(None, [clean(said.get("exception", ""))])])


class Writer(logging.Handler):
    """Hands records to a thread, which formats them and writes them to a file descriptor.

    It writes past Python's buffers, so that a reader who has stopped reading cannot hold up the end of the
    process. `lost` counts the lines that nobody will read, until the log tells of them; `on_lost` is told of each.
    """

    def __init__(self, fd: int, *, capacity: int = _QUEUE, on_lost: OnLost = lambda _: None) -> None:
        super().__init__()
        self.lost = 0
        self._on_lost = on_lost
        self._counting = threading.Lock()
        self._fd = fd
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._queue.put_nowait(_frozen(record))
        except queue.Full:
            self._add_lost(1)
        except Exception as error:  # noqa: BLE001 - a caller's arguments; the usual answer would print them
            self.emit(_unwritable(record, error))

    def close(self) -> None:
        """Give what waits a last moment. Safe to call twice."""
        with suppress(queue.Full):  # then the reader has stopped long ago
            self._queue.put(None, timeout=_FLUSH)
            self._thread.join(_FLUSH)
        super().close()

    def _add_lost(self, lines: int) -> None:
        with self._counting:
            self.lost += lines
        self._on_lost(lines)

    def _take_lost(self) -> int:
        with self._counting:
            lost, self.lost = self.lost, 0
        return lost

    def _run(self) -> None:
        ended = False
        while not ended:
            records = [self._queue.get()]
            with suppress(queue.Empty):
                while len(records) < _BATCH:
                    records.append(self._queue.get_nowait())
            ended = None in records
            self._write([record for record in records if record is not None])

    def _write(self, records: list[logging.LogRecord]) -> None:
        if lost := self._take_lost():
            records.append(_notice(f"{lost} log lines are lost: their reader is too slow"))
        text = "".join(self._line(record) + "\n" for record in records)
        try:
            # What is not Unicode stays a JSON escape.
            _write_all(self._fd, text.encode(errors="backslashreplace"))
        except OSError:
            self._add_lost(len(records))

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:  # noqa: BLE001 - an exception's own text may raise anything
            return self.format(_unwritable(record, error))


def _frozen(record: logging.LogRecord) -> logging.LogRecord:
    """The record with all that may change, or is known on this thread alone, taken down."""
    record = copy.copy(record)
    record.message = record.msg = record.getMessage()
    record.args = None
    record.correlation_id = correlation.current.get()
    return record


def _notice(message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)


def _unwritable(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    return _notice(f"a line of {record.name} cannot be written: {type(error).__name__}")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # somebody else's end of this pipe or terminal made it so
            select.select([], [fd], [])


# --- the whole process --------------------------------------------------------------------------------------


@contextmanager
def logging_to(fd: int, level: LogLevel, redact: Redact, on_lost: OnLost = lambda _: None) -> Iterator[None]:
    """Log everything at `level` and above: warnings and what nobody caught included.

    `on_lost` is told, from any thread, how many lines nobody will read.
    """
    writer = Writer(fd, on_lost=on_lost)
    writer.setFormatter(TextFormatter(redact) if os.isatty(fd) else JsonFormatter(redact))
    root, ours = logging.getLogger(), logging.getLogger(OURS)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    before = root.level, ours.level, list(root.handlers)
    root.handlers[:] = [writer]
    set_level(level)
    logging.captureWarnings(True)
    sys.excepthook, threading.excepthook, sys.unraisablehook = _uncaught, _in_thread, _unraisable
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(False)
        root.handlers[:] = before[2]
        ours.setLevel(before[1])
        root.setLevel(before[0])
        writer.close()


_log: Final = logging.getLogger("notifyd")


def _uncaught(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    _log.critical("an exception was not caught", exc_info=(kind, error, traceback))


def _in_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "?"
    if args.exc_value is not None:
        _log.critical("the thread %s has broken", name, exc_info=args.exc_value)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    _log.error("an exception could not be raised: %s", args.err_msg, exc_info=args.exc_value)
