"""Log lines, read back from a real pipe."""

from __future__ import annotations

import json
import logging
import os
import pty
import sys
import threading
import tty
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from notifyd import correlation
from notifyd.levels import LogLevel, get_level, set_level, toggle_debug
from notifyd.security.secrets import Secret
from notifyd.service.logs import Redaction, Writer, logging_to

SECRET = "hunter2-hunter2"
LINK = "https://notify.acme.example/approvals/eyJhbGciOiJkaXIi..abcdefghijklmnop"


class Lines(list[dict[str, Any]]):
    """The log lines of one block, there once it has ended."""


@contextmanager
def logged(path: Path, level: LogLevel = LogLevel.INFO, secrets: tuple[str, ...] = ()) -> Iterator[Lines]:
    redaction, lines = Redaction(), Lines()
    redaction.learn(map(Secret, secrets))
    with path.open("wb") as file, logging_to(file.fileno(), level, redaction):
        yield lines
    lines += map(json.loads, path.read_text().splitlines())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


log = logging.getLogger("notifyd.test")


def test_a_line_is_an_object_with_time_level_logger_and_message(path: Path) -> None:
    with logged(path) as lines:
        log.info("accepted %d of %s", 3, "four")
    (line,) = lines
    assert line["time"].endswith("Z")
    assert line | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "notifyd.test",
        "message": "accepted 3 of four",
    }


def test_the_level_is_the_least_that_is_logged(path: Path) -> None:
    with logged(path, LogLevel.WARNING) as lines:
        log.info("not this")
        log.warning("this")
    assert [line["message"] for line in lines] == ["this"]


def test_a_line_bears_the_correlation_id_of_the_request_it_was_written_in(path: Path) -> None:
    with logged(path) as lines:
        log.info("before")
        token = correlation.current.set("cid-1")
        log.info("during")
        correlation.current.reset(token)
    assert [line.get("correlationId") for line in lines] == [None, "cid-1"]


def test_an_exception_is_one_member_of_the_line(path: Path) -> None:
    with logged(path) as lines:
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            log.exception("failed")
    assert "Traceback" in lines[0]["exception"]
    assert "first\nsecond" in lines[0]["exception"]


def test_neither_message_nor_traceback_nor_correlation_id_shows_a_secret_or_a_link(path: Path) -> None:
    with logged(path, secrets=(SECRET,)) as lines:
        correlation_token = correlation.current.set(SECRET)
        try:
            raise ValueError(f"{SECRET} at {LINK}")
        except ValueError:
            log.exception("%s at %s", SECRET, LINK)
        correlation.current.reset(correlation_token)
    text = json.dumps(lines)
    assert SECRET not in text
    assert "abcdefghijklmnop" not in text
    assert "***" in lines[0]["message"]
    assert "/approvals/…" in lines[0]["exception"]


def test_a_secret_that_a_reload_has_dropped_is_hidden_still() -> None:
    redaction = Redaction()
    redaction.learn([Secret(SECRET)])
    redaction.learn([Secret("another-secret")])
    assert redaction(f"{SECRET} another-secret") == "*** ***"


def test_text_that_is_no_unicode_is_a_json_escape(path: Path) -> None:
    with logged(path) as lines:
        log.info("file %s, Zürich", "\udcff")
    assert lines[0]["message"] == "file \udcff, Zürich"


def test_a_line_with_wrong_arguments_names_its_logger_and_shows_none_of_them(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(path) as lines:
        log.info("%d", "top secret")
        log.info("the next")
    assert [line["message"] for line in lines] == [
        "a line of notifyd.test cannot be written: TypeError",
        "the next",
    ]
    assert "top secret" not in "".join(capsys.readouterr())


def test_an_exception_whose_text_raises_does_not_end_the_log(path: Path) -> None:
    class OddError(Exception):
        def __repr__(self) -> str:
            raise RuntimeError

        __str__ = __repr__

    class OddFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.exc_info:
                raise OddError
            return super().format(record)

    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.setFormatter(OddFormatter())
        writer.handle(log.makeRecord("notifyd.test", 40, "", 0, "odd", (), (OddError, OddError(), None)))
        writer.handle(log.makeRecord("notifyd.test", 40, "", 0, "next", (), None))
        writer.close()
    assert path.read_text().splitlines() == ["a line of notifyd.test cannot be written: OddError", "next"]


def test_warnings_and_exceptions_that_nobody_caught_are_lines_too(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("in a thread")

    with logged(path) as lines:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=broken, name="worker")
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("at the top"), None)
        sys.unraisablehook(_unraisable())
    assert "DeprecationWarning: old" in lines[0]["message"]
    assert lines[1]["message"] == "the thread worker has broken"
    assert "RuntimeError: in a thread" in lines[1]["exception"]
    assert "ValueError: at the top" in lines[2]["exception"]
    assert "in a finaliser" in lines[3]["message"]
    assert capsys.readouterr() == ("", "")


def _unraisable() -> Any:
    class Args:
        exc_value, err_msg = ValueError("late"), "in a finaliser"

    return Args()


def test_logging_is_as_before_once_the_block_has_ended(path: Path) -> None:
    root = logging.getLogger()
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    before = (root.level, logging.getLogger("notifyd").level, list(root.handlers))
    with logged(path, LogLevel.DEBUG):
        assert get_level() is LogLevel.DEBUG
    assert before == (root.level, logging.getLogger("notifyd").level, root.handlers)
    assert hooks == (sys.excepthook, threading.excepthook, sys.unraisablehook)


@pytest.mark.parametrize("level", LogLevel)
def test_the_level_can_be_changed_and_is_told(path: Path, level: LogLevel) -> None:
    with logged(path) as lines:
        set_level(level)
        assert get_level() is level
        for one in LogLevel:
            log.log(getattr(logging, one.name), "%s", one.value)
    assert [line["message"] for line in lines] == list(LogLevel)[list(LogLevel).index(level) :]


@pytest.mark.parametrize(
    ("start", "asked", "back"),
    [
        (LogLevel.WARNING, (), LogLevel.WARNING),
        (LogLevel.INFO, (LogLevel.WARNING, LogLevel.DEBUG), LogLevel.WARNING),
        (LogLevel.DEBUG, (), LogLevel.INFO),
    ],
)
def test_after_debug_lines_the_level_is_the_one_before_whoever_asked_for_them(
    path: Path, start: LogLevel, asked: tuple[LogLevel, ...], back: LogLevel
) -> None:
    with logged(path, start):
        for level in asked:
            set_level(level)
        if get_level() is not LogLevel.DEBUG:
            toggle_debug()
        assert get_level() is LogLevel.DEBUG
        toggle_debug()
        assert get_level() is back


def test_at_debug_libraries_show_no_more_than_at_info(path: Path) -> None:
    driver = logging.getLogger("pymongo.command")
    with logged(path, LogLevel.DEBUG) as lines:
        driver.debug("the document")
        driver.info("connected")
    assert [line["message"] for line in lines] == ["connected"]


# --- a terminal ----------------------------------------------------------------------------------------------


def on_a_terminal(say: Callable[[], None], secrets: tuple[str, ...] = ()) -> str:
    """What `say` logs, as a terminal is given it."""
    redaction = Redaction()
    redaction.learn(map(Secret, secrets))
    master, slave = pty.openpty()
    tty.setraw(slave)  # else the terminal itself writes each newline as two characters
    try:
        with logging_to(slave, LogLevel.INFO, redaction):
            say()
        return os.read(master, 65536).decode()
    finally:
        os.close(slave)
        os.close(master)


def test_on_a_terminal_a_line_is_text_with_its_correlation_id() -> None:
    def say() -> None:
        token = correlation.current.set("cid-1")
        log.warning("the disk of %s is full", "acme")
        correlation.current.reset(token)

    time, _, rest = on_a_terminal(say).partition(" ")
    assert time.endswith("Z")
    assert rest == "warning  notifyd.test: the disk of acme is full [cid-1]\n"


def test_on_a_terminal_an_exception_follows_its_line() -> None:
    def say() -> None:
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("failed")

    first, second, *_, last = on_a_terminal(say).splitlines()
    assert first.endswith("notifyd.test: failed")
    assert (second, last) == ("Traceback (most recent call last):", "ValueError: why")


def test_on_a_terminal_nothing_steers_it_makes_a_second_line_or_shows_a_secret() -> None:
    def say() -> None:
        try:
            raise ValueError(f"\x1b[2J{SECRET}")
        except ValueError:
            log.exception("a\r\nb\x1b]0;title\x07 %s", SECRET)

    text = on_a_terminal(say, (SECRET,))
    assert "a b]0;title ***\nTraceback" in text
    assert not {"\x1b", "\x07", "\r"} & set(text)
    assert SECRET not in text


# --- a reader who does not read ------------------------------------------------------------------------------


def record(text: str) -> logging.LogRecord:
    return log.makeRecord("notifyd.test", logging.INFO, "", 0, text, (), None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # a test has closed it


def fill(end: int) -> int:
    """Write until the pipe takes no more; how many bytes it took."""
    os.set_blocking(end, False)
    written = 0
    try:
        while True:
            written += os.write(end, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(end, True)
    return written


def drain(end: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(end, size - len(data))
    return data


def test_nobody_waits_for_a_reader_who_has_stopped_and_what_is_lost_is_counted(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stuffing = fill(writer)
    told: list[int] = []
    handler = Writer(writer, capacity=5, on_lost=told.append)
    for number in range(50):
        handler.handle(record(f"line {number}"))
    assert handler.lost == sum(told) > 0
    drain(reader, stuffing)
    # The thread goes on. What it says then has the lines that were kept, and the number of those that were not.
    handler.handle(record("last"))
    handler.close()
    os.close(writer)
    with os.fdopen(os.dup(reader)) as rest:
        lines = rest.read().splitlines()
    kept = [line for line in lines if line.startswith("line ")]
    lost = sum(int(line.split()[0]) for line in lines if "log lines are lost" in line)
    assert len(kept) + lost == 50 or (len(kept) + lost == 51 and "last" not in lines)
    assert kept[0] == "line 0"


def test_the_end_does_not_wait_for_a_reader_who_has_stopped(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.service.logs._FLUSH", 0.05)
    reader, writer = pipe
    stuffing = fill(writer)
    handler = Writer(writer)
    handler.handle(record("waits"))
    handler.close()
    drain(reader, stuffing)  # so that the thread ends, and not before


def test_a_pipe_without_a_reader_does_not_stop_the_process(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    handler = Writer(writer)
    handler.handle(record("to nobody"))
    handler.close()
    assert handler.lost == 1


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    handler = Writer(writer)
    text = "x" * 300_000  # more than a pipe holds
    handler.handle(record(text))
    assert drain(reader, len(text)) == text.encode()
    handler.close()
    assert handler.lost == 0
