"""An event that comes while nothing waits is one step: with its plan and its deliveries, or as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import EventIdConflictError, StoreError
from notifyd.model import State
from tests import events
from tests.flows import TASKS, Flow, flow
from tests.waiting import until


@asynccontextmanager
async def resting(folder: Path, text: str = TASKS) -> AsyncIterator[Flow]:
    """Steps that run, and have nothing to do."""
    async with flow(folder, text) as way:
        await until(lambda: way.app._planner._planning_queue.idle)
        yield way


def done(way: Flow, **changes: Any) -> dict[str, Any]:
    return events.cloud_event(at=way.clock(), **changes)


async def test_its_plan_and_deliveries_are_durable_with_it(tmp_path: Path) -> None:
    async with resting(tmp_path) as way:
        assert (await way.cloud(done(way))).fresh
        assert "append" not in way.store.calls
        assert [row.state for row in await way.ended(1)] == [State.SENT]
        assert way.metric("notifyd_events_total", kind="task.done", outcome="accepted") == 1
        assert "fix_plans" not in way.store.calls


async def test_the_next_life_sends_what_one_that_ended_with_the_write_could_not(tmp_path: Path) -> None:
    async with resting(tmp_path) as way:
        way.store.fail("append_planned", after=True)  # nobody hears that it was written
        with pytest.raises(StoreError):
            await way.cloud(done(way))
        assert not way.channel().received
    async with flow(tmp_path, TASKS) as way:
        assert [row.state for row in await way.ended(1)] == [State.SENT]


async def test_where_the_write_fails_nothing_is_sent_and_it_can_be_sent_again(tmp_path: Path) -> None:
    async with resting(tmp_path) as way:
        document = done(way)
        way.store.fail("append_planned")
        with pytest.raises(StoreError):
            await way.cloud(document)
        assert not await way.deliveries()
        assert (await way.cloud(document)).fresh
        await way.ended(1)
        assert len(way.channel().received) == 1


async def test_a_repetition_is_a_duplicate_or_a_conflict_and_sends_nothing(tmp_path: Path) -> None:
    async with resting(tmp_path) as way:
        document = done(way)
        await way.cloud(document)
        await way.ended(1)
        await until(lambda: way.app._planner._planning_queue.idle)
        assert not (await way.cloud(document)).fresh
        with pytest.raises(EventIdConflictError):
            await way.cloud(document | {"data": {"other": True}})
        assert way.store.calls.count("append_planned") == 3
        assert len(await way.deliveries()) == len(way.channel().received) == 1


async def test_of_several_at_once_the_first_alone_is_planned_ahead(tmp_path: Path) -> None:
    async with resting(tmp_path) as way:
        await asyncio.gather(*(way.cloud(done(way)) for _ in range(5)))
        assert way.store.calls.count("append_planned") == 1
        assert len(await way.ended(5)) == len(way.channel().received) == 5


async def test_what_waits_already_comes_first(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS, start=False) as way:
        await way.cloud(done(way))
        way.start()
        await way.cloud(done(way))
        assert len(await way.ended(2)) == 2
        assert "append_planned" not in way.store.calls


async def test_a_repetition_spends_from_no_budget(tmp_path: Path) -> None:
    async with resting(tmp_path, TASKS + 'throttle = "1/1m"\n') as way:
        document = done(way)
        for _ in range(3):
            await way.cloud(document)
        assert [row.state for row in await way.ended(1)] == [State.SENT]
        assert "append_planned" not in way.store.calls


async def test_an_event_that_cannot_be_planned_is_taken_and_told_of_by_the_planner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with resting(tmp_path) as way:
        monkeypatch.setattr("notifyd.flow.drafts.make_plan", _breaks)
        assert (await way.cloud(done(way))).fresh
        await until(lambda: "cannot be planned" in caplog.text)
        await until(lambda: "set_aside" in way.store.calls)


def _breaks(*_: object) -> None:
    raise ZeroDivisionError


async def test_a_store_that_would_take_two_writes_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resting(tmp_path) as way:

        async def apart(append: Any, _planned: object) -> Any:
            return await way.store._store.append(append), None

        monkeypatch.setattr(way.store._store, "append_planned", apart)
        for count in (1, 2):
            await way.cloud(done(way))
            await way.ended(count)
            await until(lambda: way.app._planner._planning_queue.idle)
        assert way.store.calls.count("append_planned") == 1
        assert way.store.calls.count("fix_plans") == 2
