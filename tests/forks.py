"""Processes that are forked from one that has imported what they run: each starts without what a start costs.

    forks = ForkServer("tests.some_module")
    process = await forks.start(["an", "argument"], environ, (stdin, stdout, stderr))
    code = await process.wait()

The module has a function `load()`, which imports all it can, starts no thread, and gives a function without
arguments: what a process is to run, with its arguments in `sys.argv`. Each is a process as any other, to be
killed and waited for. What happens in an interpreter's start has to be shown with one that is started.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from attrs import define, field

ROOT: Final = Path(__file__).parents[1]
LARGEST: Final = 1 << 17
"""Bytes of a request: arguments and an environment."""


@define
class Forked:
    """A process that was forked. Its `returncode` is as `subprocess.Popen` gives it, None while it lives."""

    pid: int
    _status: int
    returncode: int | None = None
    _ended: asyncio.Event = field(factory=asyncio.Event)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Until it has ended and is reaped."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def watch(self) -> None:
        """Learn of its end, in the loop that runs."""
        asyncio.get_running_loop().add_reader(self._status, self._told)

    def _told(self) -> None:
        asyncio.get_running_loop().remove_reader(self._status)
        self.returncode = int(os.read(self._status, 16))
        os.close(self._status)
        self._ended.set()


@define
class ForkServer:
    """The process that others are forked from, which the first of them starts."""

    module: str
    _parent: subprocess.Popen[bytes] | None = None
    _channel: socket.socket | None = None
    _turn: threading.Lock = field(factory=threading.Lock)

    async def start(
        self, arguments: Sequence[str], environ: Mapping[str, str], files: tuple[int, int, int]
    ) -> Forked:
        """Fork one with these arguments, this environment, and `files` as its standard ones."""
        request = json.dumps([list(arguments), dict(environ), str(Path.cwd())]).encode()
        forked = await asyncio.to_thread(self._start, request, files)
        forked.watch()
        return forked

    def _start(self, request: bytes, files: tuple[int, int, int]) -> Forked:
        with self._turn:
            channel = self._channel or self._open()
            status, told = os.pipe()
            socket.send_fds(channel, [request], [*files, told])
            os.close(told)
            return Forked(int(channel.recv(LARGEST)), status)

    def _open(self) -> socket.socket:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        SERVERS.append(self)
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", self.module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )
        return self._channel

    def close(self) -> None:
        """End the process that others are forked from."""
        if self._channel is not None and self._parent is not None:
            self._channel.close()
            self._parent.wait(30)
        self._channel = self._parent = None


SERVERS: Final[list[ForkServer]] = []
"""Those that were started: `tests/conftest.py` ends them."""


# --- the process that is forked ----------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Fork for each request until there are no more. Returns in a child, to run what it was forked for."""
    told_by: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(told_by)
        if channel.fileno() not in ready:
            continue
        request, files, _, _ = socket.recv_fds(channel, LARGEST, 4)
        if not request:
            _end(told_by)
        *standard, told = files
        pid = os.fork()
        if not pid:
            _forget(channel, woken, wake, told, *told_by.values())
            return _become(json.loads(request), standard)
        for file in standard:
            os.close(file)
        told_by[pid] = told
        channel.send(b"%d" % pid)


def _end(told_by: dict[int, int]) -> NoReturn:
    """With all that are left: nobody knows of them any more."""
    for pid in told_by:
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def _forget(channel: socket.socket, *files: int) -> None:
    """Be a process that forks none."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel.close()
    for file in files:
        os.close(file)


def _reap(told_by: dict[int, int]) -> None:
    """Tell how those ended that have."""
    while told_by:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        told = told_by.pop(pid)
        try:
            os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
        except BrokenPipeError:
            print(f"nobody waits for {pid}", file=sys.stderr)
        os.close(told)


def _become(request: tuple[list[str], dict[str, str], str], standard: list[int]) -> None:
    arguments, environ, folder = request
    sys.argv[1:] = arguments
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.chdir(folder)
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)


def _main(module: str, channel: int) -> None:
    run: Callable[[], object] = importlib.import_module(module).load()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=channel) as requests:
        serve(requests)
    run()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
