"""A daemon that one tenant floods goes on serving another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from notifyd.model import wall_clock
from tests import events
from tests.process import TOKEN, Answer, DaemonProcess, daemon_process, toml
from tests.sinks import HttpSink
from tests.waiting import until_async

FLOODED: Final = 100


def config(sink: HttpSink) -> str:
    return f"""
[dispatch]
max_backlog = {FLOODED}
[auth.clients.operator]
token_hashes = ["${{NOTIFYD_TOKEN_HASH}}"]
scopes = ["Notifier.Events:Write", "Notifier.Read"]
tenants = ["acme", "globex"]
[channels.hook]
type = "webhook"
url = {toml(sink.url)}
concurrency = 1
timeout = "60s"
[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["hook"]
"""


async def post(daemon: DaemonProcess, tenant: str) -> Answer:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    event = events.cloud_event(at=wall_clock(), tenant=tenant)
    return await daemon.call("POST", "/api/v1/events", json=event, headers=headers)


async def test_a_flooding_tenant_gets_429_and_a_quiet_one_is_served_next(tmp_path: Path) -> None:
    async with HttpSink() as sink, daemon_process(tmp_path, config(sink)) as daemon:
        sink.gate.clear()
        answers = await asyncio.gather(*(post(daemon, "acme") for _ in range(3 * FLOODED)))
        refused = [one for one in answers if one.status != 202]
        assert {one.status for one in refused} == {429}
        assert {one.json["code"] for one in refused} == {"overloaded"}
        assert all(1 <= int(one.headers["Retry-After"]) <= 60 for one in refused)
        accepted = len(answers) - len(refused)

        async def queued() -> bool:
            return await daemon.metric("notifyd_backlog", channel="hook") == accepted

        await until_async(queued)
        assert (await post(daemon, "acme")).status == 429
        assert (await post(daemon, "globex")).status == 202

        async def all_queued() -> bool:
            return await daemon.metric("notifyd_backlog", channel="hook") == accepted + 1

        await until_async(all_queued)
        sink.gate.set()
        told = await sink.wait(accepted + 1)
        tenants = [document["data"]["event"]["tenant"]["id"] for document in sink.documents]
        assert tenants.index("globex") <= 2
        assert len({one.headers["webhook-id"] for one in told}) == accepted + 1
        overloaded = await daemon.metric("notifyd_events_total", kind="task.done", outcome="overloaded")
        assert overloaded == len(refused) + 1
        assert (await post(daemon, "acme")).status == 202
