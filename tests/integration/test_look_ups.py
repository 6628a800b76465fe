"""Names that do not resolve keep no others waiting."""

from __future__ import annotations

import subprocess
import sys

LOOKS_UP = """
import asyncio, os
from notifyd.service.daemon import _loop_factory

async def threads():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    return len(os.listdir("/proc/self/task"))

with asyncio.Runner(loop_factory=_loop_factory()) as runner:
    print(runner.run(threads()))
"""


def test_a_daemon_looks_many_names_up_at_once() -> None:
    """libuv gives half of its threads to look-ups: of four, two names that hung held up each other channel."""
    done = subprocess.run([sys.executable, "-c", LOOKS_UP], capture_output=True, check=True, text=True)
    assert int(done.stdout) > 128
