"""Calls while the service stops: who is connected has an answer, and at a socket of systemd's the rest wait."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

from tests.daemon import CONFIG, TOKENS, Daemon, daemon
from tests.waiting import until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
EVENT = {"specversion": "1.0", "id": "1", "source": "/a", "type": "a.b", "tenant": "acme"}


def posted(event: object) -> bytes:
    body = json.dumps(event).encode()
    head = [
        "POST /api/v1/events HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {TOKENS['task-runner']}",
        "Content-Type: application/cloudevents+json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


class Caller:
    """Connects while the service runs, and asks once it stops."""

    def __init__(self, notifyd: Daemon) -> None:
        assert notifyd.app._listener
        self._door = notifyd.app._listener._door
        self._address = notifyd.app.address

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        await until(lambda: self._door.count == 1)

    async def ask(self, request: bytes) -> bytes:
        """The whole of what comes until the other side hangs up."""
        await until(lambda: self._door.closing)
        self._writer.write(request)
        answer = await self._reader.read()
        self._writer.close()
        return answer


async def test_who_has_connected_before_the_end_has_an_answer_and_is_told_that_it_is_the_last(
    tmp_path: Path,
) -> None:
    async with daemon(tmp_path) as notifyd:
        caller = Caller(notifyd)
        await caller.connect()
        asking = asyncio.create_task(caller.ask(HEALTH))
    answer = await asking
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in answer


async def test_at_a_socket_of_systemds_an_event_is_still_taken_and_who_comes_later_waits(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as systemds:
        async with daemon(tmp_path, listener=systemds.dup()) as notifyd:
            caller = Caller(notifyd)
            await caller.connect()
            asking = asyncio.create_task(caller.ask(posted(EVENT)))
        assert (await asking).startswith(b"HTTP/1.1 202 ")
        reader, writer = await asyncio.open_connection(*systemds.getsockname())
        writer.write(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        async with daemon(tmp_path, listener=systemds.dup()):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_more_callers_than_one_address_may_have_are_served_in_turn_after_a_start(
    tmp_path: Path,
) -> None:
    """All who came during a restart are there at once: those who had to make way lost their requests."""
    count, room = 250, 220
    text = CONFIG.replace("[server]", f"[server]\nmax_connections_per_client = {room}")
    with socket.create_server(("127.0.0.1", 0), backlog=count) as systemds:
        lines = [await asyncio.open_connection(*systemds.getsockname()) for _ in range(count)]
        for _, writer in lines:
            writer.write(HEALTH)
        async with daemon(tmp_path, text, listener=systemds.dup()):
            heads = [await reader.readline() for reader, _ in lines]
            for _, writer in lines:
                writer.close()
    assert set(heads) == {b"HTTP/1.1 200 OK\r\n"}
