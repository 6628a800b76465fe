"""Restarts by the socket under load, as systemd makes them: nobody is refused, and no request is lost."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.e2e.test_daemon_process import activated
from tests.process import CLIENT, SECRET, configure
from tests.steady import steady

pytestmark = pytest.mark.long

RATE: Final = 100
"""Events a second: those of a start that takes ten seconds, on a slow machine, still fit into the backlog."""

LIVES: Final = 5


async def served(url: str) -> None:
    async with aiohttp.ClientSession() as caller, caller.get(f"{url}/readyz") as answer:
        assert answer.status == 200


async def test_restarts_under_load_refuse_nothing_and_lose_nothing(tmp_path: Path) -> None:
    configure(tmp_path / "notifyd.toml", "")
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as systemds:
        url = "http://{}:{}".format(*systemds.getsockname())
        async with AsyncExitStack() as callers:
            load = await callers.enter_async_context(steady(url, CLIENT, SECRET, rate=RATE))
            for life in range(LIVES):
                async with activated(tmp_path, systemds) as process:
                    await served(url)
                    if life == LIVES - 1:
                        await callers.aclose()  # all have their answers before the last one ends
                    process.terminate()
                    await process.communicate()
                    assert process.returncode == 0
    assert not load.lost
    assert load.answers == {202: len(load.accepted)}
