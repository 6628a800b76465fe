"""A row is as large after thousands of events as after a few, and so an event costs the same."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from attrs import evolve

from notifyd.approval.ballots import Ballot, cast, earlier_answer
from notifyd.approval.holds import on_hold, on_released
from notifyd.approval.rounds import Request, on_requested
from notifyd.model import Approval, Choice, IncidentKey, Via
from notifyd.store import Advance, Append
from notifyd.store.sqlite import SqliteStore, open_sqlite
from notifyd.store.sqlite.rows import sql
from tests.store.makers import HOUR, NODE, NOW, TENANT, TurnableClock, approval, event, nobody

TOGGLES, ROUNDS = 3000, 500


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock())
    yield store
    await store.aclose()


def size(folder: Path, table: str) -> int:
    """The characters of all rows of a table."""
    with closing(sqlite3.connect(folder / "notifyd.db")) as db:
        return sum(len(str(value)) for row in db.execute(sql("SELECT * FROM", table)) for value in row)


async def toggled(store: SqliteStore, numbers: range) -> float:
    """Hold and release by turns; the processor time that an event took, in seconds."""
    subject = IncidentKey(TENANT, "run-1", "deploy", "prod")

    def append(number: int) -> Append:
        given = event(f"toggle-{number:05}", kind="pack.policy", occurred_at=NOW + number)
        machine = on_released if number % 2 else on_hold
        return Append(given, subject, lambda stored: machine(stored, given, "prod"))

    began = process_time()
    done = await asyncio.gather(*(store.append(append(number)) for number in numbers))
    assert all(one.fresh and one.event.notify for one in done)
    return (process_time() - began) / len(numbers)


@pytest.mark.long
async def test_three_thousand_toggles_of_a_hold_leave_its_row_and_its_events_as_they_were(
    store: SqliteStore, tmp_path: Path
) -> None:
    early = [await toggled(store, range(n * 200, n * 200 + 200)) for n in range(3)]
    small = size(tmp_path, "incidents")
    await toggled(store, range(600, TOGGLES - 600))
    late = [await toggled(store, range(n, n + 200)) for n in range(TOGGLES - 600, TOGGLES, 200)]
    assert abs(size(tmp_path, "incidents") - small) <= 4, "but for the digits of its version"
    assert min(late) < 2 * min(early)


def asking(number: int) -> tuple[Callable[[Any], Advance], str]:
    plan = f"sha256:{number:064}"
    wanted = Request(plan, ("Packs.Approve",), 2, "ci@acme.example", NOW + HOUR, "https://runner", "sealed")
    given = event(f"round-{number:05}", occurred_at=NOW + number)
    return (lambda stored: on_requested(stored, given, wanted, NOW, nobody)), plan


def ballot(plan: str, number: int) -> Ballot:
    """Alice's first vote of two, as a signed ack that names its round."""
    return Ballot(
        *(TENANT, "run-1", "deploy", Choice.APPROVED, plan, "alice@acme.example", "", Via.CLIENT, "console"),
        grants=frozenset({"Packs.Approve"}),
        correlation_id="corr",
        round=number,
        message_id=f"msg-{number}",
    )


async def a_round(store: SqliteStore, number: int) -> Approval:
    """A request for another plan, and a vote on it, whose effects are done."""
    advance, plan = asking(number)
    await store.append(Append(event(f"round-{number:05}", occurred_at=NOW + number), approval().key, advance))
    stored = await store.approval(approval().key)
    assert stored is not None
    counted = cast(stored, ballot(plan, number), NOW)
    answered = evolve(counted.decisions[-1], answer=f'{{"the answer of": {number}}}')
    voted = evolve(counted, decisions=(*counted.decisions[:-1], answered), effects=())
    assert await store.replace_approval(voted)
    return voted


@pytest.mark.long
async def test_five_hundred_rounds_leave_an_approval_as_small_and_every_first_answer_is_given_again(
    store: SqliteStore, tmp_path: Path
) -> None:
    times, small = list[float](), 0
    for number in range(1, ROUNDS + 1):
        began = process_time()
        stored = await a_round(store, number)
        times.append(process_time() - began)
        if number == 10:
            small = size(tmp_path, "approvals")
    assert stored.round == ROUNDS
    assert abs(size(tmp_path, "approvals") - small) <= 12, "but for the digits of what is counted"
    assert sum(sorted(times[-50:])[:25]) < 2 * sum(sorted(times[:50])[:25])
    for number in (1, 250, 499):
        given = ballot(asking(number)[1], number)
        for repeated in (given, evolve(given, round=None), evolve(given, round=None, message_id="")):
            found = await store.superseded_by(approval().key, repeated.actor, repeated.plan_hash)
            decision = earlier_answer(stored, repeated, found)
            assert decision is not None
            assert decision.answer == f'{{"the answer of": {number}}}'
