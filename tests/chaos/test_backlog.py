"""A long backlog: it delays neither the start nor whoever comes after it, and memory does not hold it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import define, evolve, field

from notifyd.model import SECOND, Delivery, Message, Receipt, wall_clock
from notifyd.security.envelope import wrap
from notifyd.security.secrets import Keyring
from notifyd.store.sqlite import open_sqlite
from notifyd.testing import Sink
from tests import events
from tests.daemon import CONFIG, Inbox, daemon
from tests.process import DaemonProcess, daemon_process
from tests.store.makers import delivery
from tests.waiting import until, until_async

pytestmark = pytest.mark.long

PENDING: Final = 100_000
BUSY: Final = 5_000
DAY: Final = 24 * 3600 * SECOND

HOOK: Final = """
[channels.hook]
type = "webhook"
url = "{url}/hook"
[[rules]]
name = "all"
when = 'event.kind == "task.done"'
channels = ["hook"]
"""
INBOX: Final = (
    CONFIG.partition("[[rules]]")[0]
    + """
[[rules]]
name = "stages"
when = 'event.kind == "task.done"'
channels = ["inbox"]
to = ["alice@acme.example"]
"""
)


def waiting(channel: str, type_: str) -> Delivery:
    """A delivery that has been due for a minute, of a kilobyte."""
    message = Message(id="d0", title="A stage is done", body="x" * 1000, event={"kind": "task.done"})
    now = wall_clock()
    return delivery(
        "d0",
        kind="task.done",
        rule="busy",
        channel=channel,
        channel_type=type_,
        lane=channel,
        message=wrap(message, Keyring((bytes(32),)), sealed=False),
        created_at=now - 60 * SECOND,
        next_attempt_at=now - 60 * SECOND,
        deadline=now + DAY,
        run_id=None,
        approval_id=None,
        seq=0,
    )


async def fill(path: Path, given: Delivery, count: int) -> None:
    """A database with `given` and copies of it under other ids, `count` in all."""
    store = await open_sqlite(path, node="before", clock=wall_clock)
    await store.insert_deliveries(None, [given])
    await store.aclose()
    db = sqlite3.connect(path)
    names = [row[1] for row in db.execute("PRAGMA table_info(deliveries)") if row[1] != "rowid"]
    copied = ", ".join("printf('%032x%032x', n, n)" if name == "id" else name for name in names)
    with db:
        db.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "  # noqa: S608
            f"INSERT INTO deliveries ({', '.join(names)}) SELECT {copied} FROM numbers, deliveries",
            (count - 1,),
        )
        db.execute(
            "INSERT INTO messages SELECT d.rowid, m.message FROM deliveries d, messages m WHERE d.rowid > 1"
        )
    db.close()


# --- the start ---------------------------------------------------------------------------------------------


def processor_seconds(pid: int) -> float:
    """Time on a processor, user's and system's (proc(5)): what a busy machine beside does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def started(daemon: DaemonProcess) -> float:
    await daemon.start()
    return processor_seconds(daemon.pid)


async def test_a_start_with_a_hundred_thousand_pending_is_as_quick_and_loads_few_of_them(
    tmp_path: Path,
) -> None:
    async with Sink() as sink:
        sink.silent = True
        text = HOOK.format(url=sink.url)
        empty, full = tmp_path / "empty", tmp_path / "full"
        for folder in (empty, full):
            folder.mkdir()
        await fill(full / "notifyd.db", waiting("hook", "webhook"), PENDING)
        async with (
            daemon_process(empty, text, start=False, python=sys.executable) as idle,
            daemon_process(full, text, start=False, python=sys.executable) as busy,
        ):
            before, after = await started(idle), await started(busy)
            await until(lambda: len(sink.received) == 4, 60)

            async def counted() -> bool:
                return await busy.metric("notifyd_backlog", channel="hook") == PENDING

            await until_async(counted, 60)
            grown = resident_mib(busy.pid) - resident_mib(idle.pid)
            print(f"{PENDING} pending: ready {after - before:+.2f} s, {grown:+.0f} MiB")
            assert after - before < 2
            assert grown < 60


# --- fairness ----------------------------------------------------------------------------------------------


@define
class GatedInbox(Inbox):
    gate: asyncio.Event = field(factory=asyncio.Event)

    async def send(self, message: Message) -> Receipt:
        await self.gate.wait()
        return await super().send(message)


async def test_thousands_that_wait_do_not_starve_another_tenant_or_rule_of_their_lane(tmp_path: Path) -> None:
    row = evolve(waiting("inbox", "inbox"), recipient="alice@acme.example")
    await fill(tmp_path / "notifyd.db", row, BUSY)
    inbox = GatedInbox()
    async with daemon(tmp_path, INBOX, inbox=inbox) as one:
        for tenant in ("acme", "globex"):
            event = events.cloud_event(at=one.clock(), tenant=tenant, data={"by": tenant})
            answer = await one.post("/api/v1/events", event, "operator", **{"X-Notifyd-Tenant": tenant})
            assert answer.status == 202

        async def planned() -> bool:
            metrics = (await one.get("/metrics")).text
            return f'notifyd_backlog{{channel="inbox"}} {BUSY + 2:.1f}' in metrics

        await until_async(planned)
        inbox.gate.set()
        await until(lambda: len(places(inbox)) == 2, 60)
        print("behind", places(inbox), "of", BUSY)
        assert max(places(inbox).values()) < BUSY // 10


def places(inbox: Inbox) -> dict[str, int]:
    """After how many others each latecomer's message came."""
    found: dict[str, Any] = {}
    for place, message in enumerate(inbox.messages):
        by = message.event.get("data", {}).get("by")
        if by is not None:
            found[by] = place
    return found
