"""What systemd is told, read from a real datagram socket."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from notifyd.service.systemd import Notifier
from tests.waiting import until


class Manager:
    """systemd's side of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)

    def messages(self) -> list[dict[str, str]]:
        """All that has been told since the last look."""
        told: list[dict[str, str]] = []
        while True:
            try:
                lines = self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return told
            told.append(dict(line.split("=", 1) for line in lines))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(path: str) -> Iterator[Manager]:
    manager = Manager(path)
    yield manager
    manager.socket.close()


def test_ready_comes_with_a_status_of_one_line(manager: Manager, path: str) -> None:
    with closing(Notifier(path)) as notifier:
        notifier.ready("Listening on\nport 1")
    assert manager.messages() == [{"READY": "1", "STATUS": "Listening on port 1"}]


def test_a_reload_tells_the_monotonic_time_in_microseconds(manager: Manager, path: str) -> None:
    before = time.monotonic_ns() // 1000
    with closing(Notifier(path)) as notifier:
        notifier.reloading()
    (told,) = manager.messages()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_stopping_is_told(manager: Manager, path: str) -> None:
    with closing(Notifier(path)) as notifier:
        notifier.stopping("draining")
    assert manager.messages() == [{"STOPPING": "1", "STATUS": "draining"}]


def test_an_address_with_an_at_sign_is_in_the_abstract_namespace() -> None:
    name = f"notifyd-test-{secrets.token_hex(8)}"
    manager = Manager("\0" + name)
    with closing(Notifier("@" + name)) as notifier:
        notifier.ready("here")
    assert manager.messages() == [{"READY": "1", "STATUS": "here"}]
    manager.socket.close()


def test_without_a_manager_nothing_is_told_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    with closing(Notifier.from_environ({})) as notifier:
        notifier.ready("alone")
    assert not caplog.records


def test_a_manager_that_is_gone_is_a_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), closing(Notifier(path)) as notifier:
        notifier.ready("here")
    assert "the service manager was not told READY, STATUS: No such file" in caplog.text


def test_descriptors_used_up_the_watchdog_still_hears(manager: Manager, path: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(Notifier(path)) as notifier:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            notifier.ready("full")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert manager.messages() == [{"READY": "1", "STATUS": "full"}]


async def test_the_watchdog_hears_more_often_than_it_asks_for(manager: Manager, path: str) -> None:
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "90000", "WATCHDOG_PID": str(os.getpid())}
    heard: list[float] = []

    def hear() -> bool:
        heard.extend(time.monotonic() for message in manager.messages() if message == {"WATCHDOG": "1"})
        return len(heard) >= 3

    with closing(Notifier.from_environ(environ)) as notifier:
        watching = asyncio.create_task(notifier.watch())
        await until(hear)
        watching.cancel()
    assert heard[2] - heard[0] < 2 * 0.09


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "90000", "WATCHDOG_PID": "1"},
    ],
    ids=["not asked", "never", "not a number", "another process"],
)
async def test_a_watchdog_that_is_not_ours_hears_nothing(
    environ: dict[str, str], manager: Manager, path: str
) -> None:
    with closing(Notifier.from_environ({"NOTIFY_SOCKET": path, **environ})) as notifier:
        await notifier.watch()
    assert manager.messages() == []
