"""Each fault of the table: what is broken on purpose while events come, and how it is mended as an operator would.

A fault ends only when it was met: a caller was refused, a receiver turned away, a process has died.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.chaos.crashing import turn
from tests.chaos.stage import Act, Fault, Node, Stage
from tests.chaos.strangers import DUE, add_strangers
from tests.command import notifyd
from tests.corruption import corrupt_tree
from tests.waiting import until, until_async

HOUR: Final = 3600
STOPS_WITHIN: Final = 10.0
"""Seconds."""

STEPS: Final = (
    ("append_all", 5),  # events
    ("fix_plans", 5),  # their plans, with their messages
    ("record", 50),  # a message was sent
    ("append", 2),  # a request for approval
    ("replace_approval", 2),  # a decision
    ("write_audit", 2),  # its effects
    ("insert_deliveries", 2),
    ("complete_effect", 3),
)
"""The steps of the store that this load takes, and at which call of each life it is killed."""


async def killed(stage: Stage) -> None:
    async for _ in stage.moments():
        await stage.node.kill()
        await stage.node.start()


async def killed_at_each_step(stage: Stage) -> None:
    for _ in range(stage.rounds):
        for (step, nth), side in itertools.product(STEPS, ("before", "after")):
            if stage.over:
                break
            await stage.node.kill()
            await stage.node.start(step, str(nth), side)
            await until(lambda: not stage.node.alive, 120)
            stage.times += 1
    await stage.node.start()


async def disk_full(stage: Stage) -> None:
    assert stage.disk is not None
    async for _ in stage.moments():
        stage.disk.fill(stage.node.pid)
        assert stage.disk.fault in (await stage.told(503)).json["detail"]
        await stage.refused_more()
        stage.disk.free(stage.node.pid)


async def connections_cut(stage: Stage) -> None:
    """Callers do not hear whether they were accepted, and the daemon not whether it was."""
    assert stage.callers is not None
    async for _ in stage.moments():
        for proxy in (stage.callers, stage.receivers):
            before = proxy.turned_away
            proxy.cut()
            # The breaker may open by what was under way alone: then one probe comes in half a minute.
            await until(lambda proxy=proxy, before=before: proxy.turned_away > before, 120)  # type: ignore[misc]
            proxy.mend()


async def slow_peers(stage: Stage) -> None:
    """Receivers that answer later than the channel waits, and callers that never finish what they say."""

    async def dawdle(request: web.BaseRequest) -> None:
        await asyncio.sleep(3)

    async for _ in stage.moments():
        callers = [await asyncio.open_connection("127.0.0.1", stage.node.port) for _ in range(20)]
        for _, writer in callers:
            writer.write(b"POST /api/v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n[")
        before = stage.sink.troubled
        stage.sink.trouble = dawdle
        await until(lambda before=before: stage.sink.troubled >= before + 20)  # type: ignore[misc]
        stage.sink.trouble = None
        for _, writer in callers:
            writer.close()


async def receiver_dead(stage: Stage) -> None:
    """From the first moment to the last, and what was accepted meanwhile has come by the other channel."""
    async for number in stage.moments():
        if number == 0:
            stage.receivers.cut()
    await until(lambda: stage.receivers.turned_away > 0)
    stage.receivers.mend()


async def clock_wrong(stage: Stage) -> None:
    """Ahead, right, behind, right: each time it jumps by two hours."""
    async for number in stage.moments():
        turn(stage.node.folder, (2 * HOUR, 0, -2 * HOUR, 0)[number % 4])
    turn(stage.node.folder, 0)


async def file_moved(stage: Stage) -> None:
    """The file, and by turns its folder."""
    async for number in stage.moments():
        path = stage.node.database if number % 2 == 0 else stage.node.database.parent
        aside = path.with_name("aside")
        path.rename(aside)
        await _refuses(stage, "not in its place")
        aside.rename(path)


async def file_deleted(stage: Stage) -> None:
    """What the process has still open is copied, and put back."""
    async for _ in stage.moments():
        database = stage.node.database
        database.unlink()
        await _refuses(stage, "not in its place")
        rescued = await asyncio.to_thread(_open_still, stage.node.pid, database)
        await stage.node.kill()
        await asyncio.to_thread(_put_in_place, rescued, database)
        await stage.node.start()


def _open_still(pid: int, deleted: Path) -> bytes:
    files = Path(f"/proc/{pid}/fd").iterdir()
    return next(link.read_bytes() for link in files if str(link.readlink()) == f"{deleted} (deleted)")


def _put_in_place(content: bytes, database: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    database.write_bytes(content)


async def page_corrupt(stage: Stage) -> None:
    """One of an index that only a sweep and requests for approval use; all rows are taken into a new file."""
    async for _ in stage.moments():
        node = stage.node
        await node.kill()
        await asyncio.to_thread(corrupt_tree, node.database, "approvals_due")
        await node.launch()
        await _refuses(stage, "the file is corrupt")
        await node.kill()
        await _move_rows(node)
        await node.start()


async def _refuses(stage: Stage, why: str) -> None:
    """Callers are told why, and the node is not ready."""
    assert why in (await stage.told(503)).json["detail"]
    await stage.refused_more()
    await until_async(lambda: stage.node.answers_readyz(503))


async def _move_rows(node: Node) -> None:
    """As the runbook says."""
    rows = node.folder / "rows.jsonl"
    for command in (("export", str(rows)), ("import", "--create", str(rows))):
        done = await notifyd(*command, "--config", str(node.calls.config_path), environ=node.environ)
        assert done.code == 0, done.stderr
        for path in node.database.parent.glob("notifyd.db*") if command[0] == "export" else [rows]:
            path.unlink()


async def node_killed(stage: Stage) -> None:
    """Each in turn, while the others go on."""
    async for number in stage.moments():
        node = stage.nodes[number % len(stage.nodes)]
        await node.kill()
        assert await stage.all_come()
        await node.start()


async def node_paused(stage: Stage) -> None:
    """Each in turn, for longer than its leases last."""
    async for number in stage.moments():
        node = stage.nodes[number % len(stage.nodes)]
        os.kill(node.pid, signal.SIGSTOP)
        assert await stage.all_come()
        os.kill(node.pid, signal.SIGCONT)


async def rows_unreadable(stage: Stage) -> None:
    """A row in every table that cannot be read: what is due is met, and everything else goes on."""
    node = stage.node
    async for number in stage.moments():
        await node.kill()
        await asyncio.to_thread(add_strangers, node.database, number)
        await node.start()
        for table in DUE:
            await until_async(partial(_sets_aside, node, table, number + 1), 120)


async def _sets_aside(node: Node, table: str, rows: int) -> bool:
    return await node.calls.metric("notifyd_undecodable_rows", table=table) == rows


async def plugin_never_returns(stage: Stage) -> None:
    """A channel is deaf to its cancellation, and the daemon is told to stop: it ends in its ten seconds."""
    node = stage.node
    async for _ in stage.moments():
        await until(node.reached.exists)
        began = time.monotonic()
        assert await node.stop() == 0
        assert time.monotonic() - began < STOPS_WITHIN
        node.reached.unlink()
        await node.start()


def _on_mongodb(act: Act) -> Fault:
    """Two nodes. The MongoDB of the tests takes some dozens of writes a second."""
    return Fault(act, events=300, every=100, nodes=2, batch=5, window=50, concurrency=2)


FAULTS: Final[Mapping[str, Fault]] = {
    "killed (SIGKILL) at any moment": Fault(killed, events=450_000, every=2_500),
    "killed before and after each step of the store": Fault(killed_at_each_step, events=60_000, every=5_000),
    "disk full": Fault(disk_full, events=70_000, small_disk=True),
    "connections cut, to the daemon and to the receiver": Fault(
        connections_cut, events=60_000, every=10_000, direct=(), through=("hook",), called_through=True
    ),
    "receivers and callers slow": Fault(slow_peers, events=60_000, every=10_000),
    "one of two receivers dead": Fault(receiver_dead, events=40_000, every=20_000, through=("other",)),
    "clock two hours ahead, and two behind": Fault(clock_wrong, events=140_000),
    "database moved, and put back": Fault(file_moved, events=110_000),
    "database deleted, and rescued": Fault(file_deleted, events=40_000),
    "page corrupt, and the rows exported": Fault(page_corrupt, events=30_000, every=10_000),
    "rows of a stranger in every table": Fault(rows_unreadable, events=40_000),
    "a plugin that never returns": Fault(plugin_never_returns, events=10_000, every=2_500, never=True),
    "one of two nodes on MongoDB killed": _on_mongodb(node_killed),
    "one of two nodes on MongoDB paused": _on_mongodb(node_paused),
}
"""By their names in the table, with what a full run gives them."""
