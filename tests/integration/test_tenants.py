"""A tenant that floods is slowed down, and a quiet one beside it does not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifyd.errors import BacklogFullError, OverloadedError, TransientError
from notifyd.flow import lane, queues
from notifyd.flow.arrival import Posted
from notifyd.wire.codec import Document
from notifyd.wire.events import parse_cloud_event
from tests import events
from tests.fakes import Gate, principal
from tests.flows import Flow, flow
from tests.waiting import until

LANE = """
[channels.team]
type = "fake"
concurrency = 1

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["team"]
"""


async def post(way: Flow, tenant: str, count: int = 1) -> None:
    for _ in range(count):
        assert (await way.cloud(events.cloud_event(at=way.clock()), tenant)).fresh


async def until_refused(way: Flow, tenant: str) -> tuple[int, Exception]:
    """How many events of a tenant were taken, and what the next one was told."""
    for taken in range(1000):
        try:
            await post(way, tenant)
        except (OverloadedError, BacklogFullError) as error:
            return taken, error
    raise AssertionError("nothing is ever refused")


def refused(way: Flow, code: str) -> float:
    return way.metric("notifyd_events_total", kind="task.done", outcome=code)


async def test_who_fills_the_backlog_is_refused_and_others_have_their_share_of_it_as_well(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, LANE + "[dispatch]\nmax_backlog = 12\n", start=False) as way:
        assert (refused(way, "overloaded"), refused(way, "backlog_full")) == (0, 0)
        taken, error = await until_refused(way, "acme")
        assert (taken, type(error)) == (12, OverloadedError)
        assert [(await until_refused(way, tenant))[0] for tenant in ("globex", "initech")] == [6, 4]
        taken, error = await until_refused(way, "hooli")
        assert (taken, type(error)) == (2, BacklogFullError)
        assert (refused(way, "overloaded"), refused(way, "backlog_full")) == (3, 1)


async def test_a_batch_that_is_refused_counts_each_of_its_events(tmp_path: Path) -> None:
    async with flow(tmp_path, LANE + "[dispatch]\nmax_backlog = 2\n", start=False) as way:
        await post(way, "acme", 2)
        documents = [events.cloud_event(at=way.clock()) for _ in range(3)]
        batch = [Posted(parse_cloud_event(one), Document.of(one), "acme") for one in documents]
        with pytest.raises(OverloadedError):
            await way.app._services.ingest.cloud_events(batch, principal(), "corr")
        assert refused(way, "overloaded") == 3


async def test_shares_are_reckoned_by_what_waits_in_lanes_too_and_over_a_restart(tmp_path: Path) -> None:
    text = LANE + "[dispatch]\nmax_backlog = 10\n"
    async with flow(tmp_path, text) as way:
        way.channel().script = [TransientError("not now")] * 100
        await post(way, "acme", 8)
        await post(way, "globex", 2)
        await until(lambda: way.app._dispatcher.backlog == 10)
        with pytest.raises(OverloadedError):
            await post(way, "acme")
        await post(way, "globex")
        await until(lambda: way.app._dispatcher.backlog == 11)
    async with flow(tmp_path, text, start=False) as way:
        waiting = way.app._dispatcher.waiting
        assert (waiting.of("acme"), waiting.of("globex")) == (8, 3)
        with pytest.raises(OverloadedError):
            await post(way, "acme")
        await post(way, "globex")


@pytest.mark.parametrize("memory", ["ample", "of few rows", "of few bytes"])
async def test_a_message_of_a_quiet_tenant_goes_out_next_however_many_of_another_wait(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = LANE
    if memory == "of few rows":
        for name, count in (("CAPACITY", 8), ("CLAIMED", 6), ("TENANT_CAPACITY", 4), ("FLOW_CAPACITY", 4)):
            monkeypatch.setattr(lane, name, count)
        monkeypatch.setattr(queues, "TENANT_PLANNING_CAPACITY", 4)
        monkeypatch.setattr(queues, "PLANNING_CAPACITY", 8)
    if memory == "of few bytes":
        text += '[dispatch]\nmemory = "1MiB"\n'
    async with flow(tmp_path, text) as way:
        gate = Gate()
        way.channel().script = [gate]
        large = {"data": {"text": "x" * 15_000}} if memory == "of few bytes" else {}
        for _ in range(60):
            await way.cloud(events.cloud_event(at=way.clock(), **large), "acme")
        await until(lambda: gate.waiting == 1 and way.app._dispatcher.backlog == 60)
        await post(way, "globex")
        await until(lambda: way.app._dispatcher.backlog == 61)
        gate.open()
        told = [message.event["tenant"]["id"] for message in await way.messages(61)]
        # One is under way, and one may have been let go with it.
        assert told.index("globex") <= 2
