"""A MongoDB for tests: SecantusDB, as a process of its own, or the server that an environment variable names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import pytest
from attrs import define

from tests.ports import free_port

SERVER: Final = "NOTIFYD_TEST_MONGODB_URL"
"""Names a real server, as mongodb://127.0.0.1/?replicaSet=rs0. Tests leave databases `notifyd_test_*` there."""

_PROGRAM: Final = (sys.executable, "-m", "tests.secantus_server")
_ROOT: Final = Path(__file__).parents[1]
_START: Final = 30.0


@define
class MongoServer:
    """A server that tests share. Each test takes a database of its own."""

    url: str
    process: subprocess.Popen[bytes] | None = None

    def database(self, name: str = "") -> str:
        """The URL of a database: by default, of one that nobody has used yet."""
        name = name or f"notifyd_test_{uuid.uuid4().hex[:12]}"
        return str(urlunsplit(urlsplit(self.url)._replace(path=f"/{name}")))

    def pause(self) -> None:
        """Let the server answer nothing, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)  # a thread may answer until then

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def secantus(
    port: int | None = None, storage: str = ":memory:", *, standalone: bool = False
) -> Iterator[MongoServer]:
    """A SecantusDB of one's own, which can be told to let commands fail. Python 3.14 and later have no wheel."""
    if sys.version_info >= (3, 14) and find_spec("secantus") is None:
        pytest.skip(f"there is no SecantusDB for this Python: {SERVER} may name a server")
    port = port or free_port()
    command = [*_PROGRAM, "--port", str(port), "--storage-path", storage]
    options = ["--cache-size", "256M", "--log-level", "ERROR", "--enable-test-commands"]
    options += ["--standalone"] * standalone
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, *options], cwd=_ROOT, **quiet)
    try:
        _wait_for(port, process)
        yield MongoServer(f"mongodb://127.0.0.1:{port}/", process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@contextmanager
def server() -> Iterator[MongoServer]:
    """The server to test with."""
    given = os.environ.get(SERVER)
    if given:
        yield MongoServer(given)
        return
    with secantus() as own:
        yield own


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"SecantusDB ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("SecantusDB does not listen")
