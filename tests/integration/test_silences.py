"""Silences: what they hold, and that all of it is told when they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from notifyd.errors import StoreError, TooManySilencesError
from notifyd.flow import silences
from notifyd.flow.silences import Silences
from notifyd.model import SECOND, AuditName, Instant, Silence, State, Wait
from notifyd.registry.registry import Registry
from notifyd.store import AuditFilter, Page
from tests import events
from tests.fakes import Channels, TurnableClock
from tests.flows import RULES, TASK_RULE, Flow, flow
from tests.waiting import until_async

HOUR = 3600
BOTH = RULES + TASK_RULE


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Flow]:
    async with flow(tmp_path, BOTH) as one:
        yield one


def silence(way: Flow, **changes: Any) -> Silence:
    """One of the cluster a for an hour from now."""
    now = way.clock()
    given = Silence(
        tenant="acme",
        id="0" * 64,
        predicate='event.data.cluster == "a"',
        reason="maintenance",
        author="client:console",
        created_at=now,
        starts_at=now,
        ends_at=now + HOUR * SECOND,
        approvals=False,
    )
    return evolve(given, **changes)


async def add(way: Flow, **changes: Any) -> Silence:
    given = silence(way, **changes)
    await way.app._silences.add(given, "corr-silence")
    return given


async def test_one_more_silence_is_compiled_and_no_others(way: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    await add(way)
    compiled, anew = list[str](), silences._book_of

    def counted(given: Silence, registry: Registry) -> Any:
        compiled.append(given.id)
        return anew(given, registry)

    monkeypatch.setattr(silences, "_book_of", counted)
    await add(way, tenant="globex", id="1" * 64)
    await add(way, tenant="globex", id="2" * 64)
    await way.app._silences.end("globex", "1" * 64, "client:console", "corr")
    assert compiled == ["1" * 64, "2" * 64]
    await done(way, "a")
    await held(way, 1)
    assert await way.reload(BOTH)
    await way.app._silences.refresh()
    assert sorted(compiled[2:]) == ["0" * 64, "2" * 64], "a configuration may bring other functions"


async def done(way: Flow, cluster: str, count: int = 1) -> None:
    for _ in range(count):
        await way.cloud(events.cloud_event(at=way.clock(), data={"cluster": cluster}))


async def held(way: Flow, count: int) -> None:
    async def enough() -> bool:
        rows = await way.deliveries(state=State.PENDING)
        return len([row for row in rows if way.app._dispatcher.wait_of(row) is Wait.SILENCE]) == count

    await until_async(enough)


async def close(way: Flow) -> None:
    """What the daemon does once a second, and the second that a window is given to settle."""
    await way.app._silences.refresh()
    way.turn(2)
    await way.app._digests.sweep()


async def test_what_a_silence_matches_is_held_and_told_at_its_end_as_one_digest(way: Flow) -> None:
    await add(way)
    await done(way, "a", 3)
    await done(way, "b")
    (told,) = await way.messages(1)
    assert told.event["data"] == {"cluster": "b"}
    await held(way, 3)
    way.turn(HOUR)
    await close(way)
    digest = (await way.messages(2))[1]
    assert (digest.event["action"], digest.event["count"]) == ("digest", 3)
    await done(way, "a")
    assert (await way.messages(3))[2].event["data"] == {"cluster": "a"}


async def test_what_waits_for_the_end_of_a_silence_is_counted_as_such(way: Flow) -> None:
    await add(way)
    await done(way, "a", 2)
    await held(way, 2)
    assert {one.why: one.count for one in await way.store.waits(way.clock())} == {Wait.SILENCE: 2}
    assert way.metric("notifyd_silences") == 1


async def test_a_silence_that_is_ended_early_lets_go_at_once_and_is_ended_once(way: Flow) -> None:
    given = await add(way)
    await done(way, "a")
    await held(way, 1)
    ended = await way.app._silences.end("acme", given.id, "alice@acme.example", "corr-end")
    assert ended is not None
    assert (ended.ended_at, ended.ended_by) == (way.clock(), "alice@acme.example")
    await close(way)
    (told,) = await way.messages(1)
    assert told.event["data"] == {"cluster": "a"}
    assert await way.app._silences.end("acme", given.id, "bob@acme.example", "corr-again") == ended
    assert await way.app._silences.end("globex", given.id, "eve@globex.example", "corr-other") is None
    lines, _ = await way.store.audit("acme", AuditFilter(), Page())
    told_of = [(line.name, line.actor) for line in lines if line.name.startswith("silence")]
    assert told_of == [
        (AuditName.SILENCE_ENDED, "alice@acme.example"),
        (AuditName.SILENCE_ADDED, "client:console"),
    ]


async def test_a_node_that_has_not_heard_of_the_end_holds_no_longer_than_until_it_has(way: Flow) -> None:
    given = await add(way)
    other = Silences(store=way.store, current=way.current, metrics=way.app._metrics, clock=way.clock)
    await other.end("acme", given.id, "alice@acme.example", "corr-end")
    await done(way, "a")
    await held(way, 1)
    await close(way)
    assert len(await way.messages(1)) == 1


async def test_what_a_node_held_that_was_cut_off_at_the_end_is_told_in_a_minute(
    way: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await add(way)
    other = Silences(store=way.store, current=way.current, metrics=way.app._metrics, clock=way.clock)
    await other.end("acme", given.id, "alice@acme.example", "corr-end")
    way.turn(600)
    await done(way, "a")  # this node has not heard of the end
    await held(way, 1)
    asked = []
    close_windows = way.store.close_windows

    async def counted(*of: Any) -> None:
        asked.append(of)
        await close_windows(*of)

    monkeypatch.setattr(way.store, "close_windows", counted)
    for _ in range(60):  # that many seconds of the daemon's
        await way.app._silences.refresh()
    assert len(asked) == 1, "what has ended long ago costs next to nothing"
    await close(way)
    assert len(await way.messages(1)) == 1


@pytest.mark.parametrize("approvals", [False, True])
async def test_a_clock_that_is_set_back_lets_nothing_out_of_a_silence_in_force(
    way: Flow, approvals: bool
) -> None:
    begun = way.clock() - HOUR * SECOND
    await add(way, predicate="true", approvals=approvals, starts_at=begun, created_at=begun)
    await (way.ask() if approvals else done(way, "a"))
    await held(way, 1)
    way.turn(-1800)
    await close(way)
    await held(way, 1)
    way.turn(1800 + HOUR)
    await close(way)
    assert len(await way.messages(1)) == 1


async def test_another_node_holds_once_it_has_looked(way: Flow) -> None:
    other = Silences(store=way.store, current=way.current, metrics=way.app._metrics, clock=way.clock)
    await other.add(silence(way), "corr-silence")
    await way.app._silences.refresh()
    await done(way, "a")
    await held(way, 1)


async def test_approvals_are_exempt_unless_they_are_named(way: Flow) -> None:
    await add(way, predicate="true")
    await way.ask(runId="run-1")
    (told,) = await way.messages(1)
    assert told.event["runId"] == "run-1"
    await add(way, id="1" * 64, predicate='event.kind == "pack.approval"', approvals=True)
    await way.ask(runId="run-2")
    await way.ask(runId="run-3")
    await held(way, 2)
    way.turn(HOUR)
    await close(way)
    digest = (await way.messages(2))[1]
    assert len(digest.actions) == 2, "each request with a link of its own"


async def test_a_maintenance_window_holds_from_its_start_on(way: Flow) -> None:
    await add(way, starts_at=way.clock() + 60 * SECOND)
    await done(way, "a")
    assert len(await way.messages(1)) == 1
    way.turn(60)
    await done(way, "a")
    await held(way, 1)


async def test_a_silence_that_began_at_once_holds_by_a_clock_that_is_set_back_too(way: Flow) -> None:
    await add(way)
    await done(way, "a")
    await held(way, 1)
    way.turn(-HOUR)
    await close(way)
    await done(way, "a")
    await held(way, 2)
    assert way.metric("notifyd_silences") == 1


async def test_of_several_silences_the_one_that_ends_last_holds(way: Flow) -> None:
    await add(way)
    longer = await add(way, id="1" * 64, ends_at=way.clock() + 2 * HOUR * SECOND)
    await done(way, "a")
    await held(way, 1)
    (row,) = await way.deliveries()
    assert row.next_attempt_at == longer.ends_at


async def test_a_silence_holds_over_a_restart_and_tells_afterwards(tmp_path: Path) -> None:
    clock, channels = TurnableClock(), Channels()
    async with flow(tmp_path, BOTH, clock=clock, channels=channels) as way:
        await add(way)
        await done(way, "a")
        await held(way, 1)
    async with flow(tmp_path, BOTH, clock=clock, channels=channels) as way:
        await way.app._silences.refresh()
        await done(way, "a")
        await held(way, 2)
        way.turn(HOUR)
        await close(way)
        (digest,) = await way.messages(1)
        assert digest.event["count"] == 2


async def test_a_silence_is_of_its_tenant_alone(way: Flow) -> None:
    await add(way, tenant="globex")
    await done(way, "a")
    assert len(await way.messages(1)) == 1


async def test_a_predicate_that_fails_on_an_event_or_compiles_no_more_holds_nothing(
    way: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    await add(way, predicate="event.data.none == 1")
    await add(way, id="1" * 64, predicate="gone(event)")
    await done(way, "a")
    assert len(await way.messages(1)) == 1
    assert "unknown function" in caplog.text


async def test_a_silence_that_cannot_be_tried_on_an_event_is_told_of_once(
    way: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "notifyd")
    await add(way, predicate="event.knd == 'task.done'")
    await done(way, "a", 3)
    await way.messages(3)
    told = [line for line in caplog.messages if line.startswith("silence ")]
    assert told == [
        f"silence {'0' * 64} of tenant acme holds nothing of an event of kind task.done: the event has no 'knd'"
    ]


async def test_a_tenant_has_so_many_silences_and_no_more(way: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silences, "MAX_LIVE", 1)
    await add(way)
    with pytest.raises(TooManySilencesError):
        await add(way, id="1" * 64)
    await add(way, tenant="globex")
    way.turn(HOUR)
    await way.app._silences.refresh()
    await add(way, id="1" * 64)


async def test_silences_that_are_added_or_ended_at_once_are_taken_over_together(
    way: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read and compiled all that there were: a thousand of ten tenants took more than five minutes."""
    read: list[int] = []
    compiled: list[Any] = []
    book, live = silences._book, way.store.live_silences

    async def counted(now: Instant) -> list[Silence]:
        found: list[Silence] = await live(now)
        read.append(len(found))
        return found

    monkeypatch.setattr(way.store, "live_silences", counted)

    def compiling(*of: Any) -> Any:
        compiled.append(of)
        return book(*of)

    monkeypatch.setattr(silences, "_book", compiling)
    ids = [f"{number:064x}" for number in range(90)]
    await asyncio.gather(*(add(way, id=id_, predicate=f'event.kind == "{id_}"') for id_ in ids))
    assert read[-1] == 90
    assert len(read) <= 3
    assert len(compiled) == 90
    await add(way, id="f" * 64, predicate='event.kind == "task.done"')
    assert len(compiled) == 91
    await asyncio.gather(*(way.app._silences.end("acme", id_, "client:ops", "corr-end") for id_ in ids))
    assert len(read) <= 7
    assert len(compiled) == 91
    await done(way, "a")
    await held(way, 1)  # the one that is left still holds


async def test_a_tenant_has_no_more_silences_where_they_are_added_at_once(
    way: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silences, "MAX_LIVE", 10)
    adding = (add(way, id=f"{number:064x}") for number in range(30))
    ends = await asyncio.gather(*adding, return_exceptions=True)
    assert [type(end) for end in ends].count(Silence) == 10
    assert [type(end) for end in ends].count(TooManySilencesError) == 20


async def test_a_refresh_that_fails_is_made_up_for_by_the_next(
    way: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = way.store.live_silences
    faults = [StoreError("gone")]

    async def failing(now: Instant) -> list[Silence]:
        await asyncio.sleep(0)
        if faults:
            raise faults.pop()
        found: list[Silence] = await live(now)
        return found

    monkeypatch.setattr(way.store, "live_silences", failing)
    refreshes = (way.app._silences.refresh() for _ in range(3))
    ends = await asyncio.gather(*refreshes, return_exceptions=True)
    assert [type(end) for end in ends] == [StoreError, int, int]
