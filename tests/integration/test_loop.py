"""The event loop waits for nothing but its sockets: a request is not held up by a file, a lock or a sleep."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from time import thread_time

import pytest
from blockbuster import BlockBuster, BlockingError, blockbuster_ctx

from notifyd.render.render import TemplateSet
from notifyd.testing import Sink
from tests import events
from tests.daemon import CALLBACK, CONFIG, Daemon, daemon, until
from tests.fakes import registry
from tests.flows import RULES, Flow, flow


@pytest.fixture
def watched() -> Iterator[BlockBuster]:
    """From here on a call by notifyd that would block the loop raises.

    What SQLite does on the loop is meant: a step of a group commit takes microseconds there, as its pages are
    in memory, and would take longer to hand to a thread. The commit, which waits for the disk, and every
    query run on threads. So is the first use of a locale or a time zone, which reads its data once for all:
    some milliseconds, for as many locales as templates are written in.
    """
    with blockbuster_ctx("notifyd") as watch:
        for name, function in watch.functions.items():
            if name.startswith("sqlite3."):
                function.can_block_in("notifyd/store/sqlite/writer.py", {"_begin", "_run_batch"})
            else:
                function.can_block_in(
                    "notifyd/render/locales.py", {"parse_locale", "_zone", "__attrs_post_init__"}
                )
        yield watch


async def test_the_watch_sees_what_blocks(watched: BlockBuster, tmp_path: Path) -> None:
    """Else the test below would show nothing."""
    async with registry() as opened:
        with pytest.raises(BlockingError):
            TemplateSet.load((), (tmp_path,), opened.settings.templates.default_locale)


async def test_the_whole_way_blocks_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    async with Sink() as runner:
        text = CONFIG.replace(CALLBACK, runner.url)
        async with daemon(tmp_path, text) as notifyd:
            request.getfixturevalue("watched")
            await _walk(notifyd, runner)
    assert "BlockingError" not in caplog.text


async def _walk(notifyd: Daemon, runner: Sink) -> None:
    resume = {"callbackUrl": f"{runner.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
    document = await notifyd.ask(resume=resume)
    assert (await notifyd.signed("/notifications/pack-approvals", document)).status == 200
    page = await notifyd.link()
    assert (await notifyd.call("GET", page)).status == 200
    assert (await notifyd.call("GET", await notifyd.link("bob@acme.example"))).status == 200
    ballot = {name: document[name] for name in ("tenant", "runId", "approvalId", "planHash")}
    ballot |= {"decision": "approved", "actor": "alice@acme.example"}
    path = "/notifications/pack-approvals/run-0042/deploy-prod"
    assert (await notifyd.signed(path + "/ack", ballot)).status == 200
    await until(lambda: runner.received)
    cloud = events.cloud_event(at=notifyd.clock())
    assert (await notifyd.post("/api/v1/events", cloud, "operator", X_Notifyd_Tenant="acme")).status == 202
    for lists in ("/notifications/pack-approvals", "/api/v1/deliveries", "/api/v1/audit", "/api/v1/channels"):
        assert (await notifyd.get(lists)).status == 200
    for page in ("/healthz", "/readyz", "/metrics"):
        assert (await notifyd.get(page, None)).status == 200


async def test_metrics_are_told_while_plugins_hold_all_threads_of_the_loop(tmp_path: Path) -> None:
    ends = threading.Event()
    async with daemon(tmp_path) as notifyd:
        held = [asyncio.ensure_future(asyncio.to_thread(ends.wait)) for _ in range(64)]
        try:
            async with asyncio.timeout(10):
                assert (await notifyd.get("/metrics", None)).status == 200
        finally:
            ends.set()
            await asyncio.gather(*held)


async def test_a_burst_of_events_leaves_the_loop_free_for_others(tmp_path: Path) -> None:
    """While two hundred events are accepted, planned and sent, nobody else waits long for a turn."""
    async with flow(tmp_path, RULES) as way:
        longest = await _longest_wait_during(way)
    assert longest < 0.3, f"the loop was held for {longest:.3f} s"


async def _longest_wait_during(way: Flow) -> float:
    """Seconds of work that went before the turn of a task which only asks for its turn.

    Of work and not of time: how long a busy machine lets the thread wait is not the daemon's doing.
    """
    burst = asyncio.gather(*(way.ask(runId=f"run-{number}") for number in range(200)))
    longest, before = 0.0, thread_time()
    while not burst.done() or len(way.channel().received) < 200:
        await asyncio.sleep(0)
        now = thread_time()
        longest, before = max(longest, now - before), now
    await burst
    return longest
