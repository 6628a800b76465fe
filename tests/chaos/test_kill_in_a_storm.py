"""kill -9 around every step of what storm control holds back, then a restart: each message once, by one id, all
told, and no budget refilled.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pytest

from notifyd.model import wall_clock
from tests import events
from tests.chaos import crashing
from tests.chaos.crashing import turn
from tests.chaos.test_kill_between_steps import CONFIG, Runner, runner
from tests.integration.test_storms import quiet_around
from tests.waiting import until, until_async

pytestmark = pytest.mark.long

HOUR = 3600
LATE = 1

Rows: TypeAlias = dict[str, list[dict[str, Any]]]
"""The ledger's rows by state."""


@pytest.fixture(autouse=True)
def _quick_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, "supervise", supervise)


async def supervise(one: Runner, *crash_at: str) -> None:
    """As `Runner` does, with daemons that are forked and look often for what is due."""
    while True:
        where = crash_at if one.starts == 0 else ()
        one.starts += 1
        process: Any = await crashing.start(one.folder, *where, often=True)
        one.process = process
        await process.wait()


def config(options: str) -> str:
    """One rule with these options, for one channel."""
    rule = f"""
[[rules]]
name = "stages"
when = 'event.kind == "task.done"'
channels = ["hook"]
{options}
"""
    return CONFIG.partition("[[rules]]")[0] + rule.replace("{", "{{").replace("}", "}}")


GROUPED = config('group_by = ["data.run"]\ngroup_wait = "1h"')

POINTS = [
    ("append_planned", 1, "after"),  # an event, with its plan and its delivery that is held
    ("fold", 1, "before"),
    ("fold", 1, "after"),  # the digest, with what it stands for
    ("let_go", 1, "before"),
    ("let_go", 1, "after"),  # the message that was alone in its window
    ("record", 1, "after"),  # the digest or the single message was sent
]
RUNS = ("run-1", "run-1", "run-1", "run-2")


def messages(one: Runner) -> dict[str, set[bytes]]:
    """What came under each id."""
    seen: dict[str, set[bytes]] = {}
    for received in one.sink.received:
        seen.setdefault(received.headers["webhook-id"], set()).add(received.body)
    return seen


async def ledger(one: Runner) -> Rows:
    """The deliveries, all at one moment."""
    rows: Rows = {}
    for row in (await one.call("GET", "/api/v1/deliveries?limit=200"))["items"]:
        rows.setdefault(row["state"], []).append(row)
    return rows


async def until_rows(one: Runner, **expected: int) -> Rows:
    """The ledger, once it has so many rows of each state, and no others."""

    async def as_expected() -> Rows | None:
        rows = await ledger(one)
        return rows if {state: len(found) for state, found in rows.items()} == expected else None

    return await until_async(as_expected, 45) or {}


async def all_told(one: Runner, *, sent: int, folded: int = 0) -> list[int]:
    """Wait until the ledger says so, and see that what was received and the audit trail say the same.

    Answers how many events each message tells of.
    """
    rows = await until_rows(one, sent=sent, **({"folded": folded} if folded else {}))
    received = messages(one)
    assert {len(bodies) for bodies in received.values()} == {1}, "a repeat is the same message"
    assert received.keys() == {row["id"] for row in rows["sent"]}
    counts = {id_: _count(next(iter(bodies))) for id_, bodies in received.items()}
    folds = Counter(row["foldedInto"] for row in rows.get("folded", []))
    assert folds == {id_: count for id_, count in counts.items() if count > 1}
    assert await one.audit() == ["notification.sent"] * sent
    return sorted(counts.values())


async def post(one: Runner, run: str = "run-1") -> None:
    event = events.cloud_event(at=wall_clock(), tenant="acme", data={"run": run})
    await one.call("POST", "/api/v1/events", event)


async def post_one_by_one(one: Runner, count: int) -> None:
    """Each is planned before the next comes, so that the steps of the way can be counted."""
    for number in range(1, count + 1):
        await post(one)
        await until_planned(one, number)


async def until_planned(one: Runner, count: int) -> None:
    async def planned() -> bool:
        return sum(map(len, (await ledger(one)).values())) == count

    await until_async(planned, 45)


@pytest.mark.parametrize(("step", "nth", "side"), POINTS)
async def test_a_window_is_told_whole_and_once_whenever_the_daemon_is_killed(
    step: str, nth: int, side: str, tmp_path: Path
) -> None:
    async with runner(tmp_path, step, str(nth), side, config=GROUPED) as one:
        for number, run in enumerate(RUNS, 1):
            await post(one, run)
            await until_planned(one, number)
        turn(tmp_path, HOUR + LATE)
        await until(lambda: one.starts == 2, 45)
        assert await all_told(one, sent=2, folded=3) == [1, 3]


# --- a throttle --------------------------------------------------------------------------------------------

THROTTLED = config('throttle = "2/1h"')

SPENT = [
    ("fix_plans", 2, "after"),  # a plan, with the delivery that spends the last of the budget
    ("fix_plans", 3, "after"),  # a plan, with the first delivery that is held
    ("record", 1, "before"),  # a message was sent that spent from the budget
]
SUMMARY = [
    ("fold", 1, "before"),
    ("fold", 1, "after"),  # the summary, with what it stands for
    ("record", 3, "before"),  # the summary was sent
]


@pytest.mark.parametrize(("step", "nth", "side"), [*SPENT, *SUMMARY])
async def test_a_throttle_lets_as_many_through_and_sums_up_the_rest_once_whenever_the_daemon_is_killed(
    step: str, nth: int, side: str, tmp_path: Path
) -> None:
    async with runner(tmp_path, step, str(nth), side, config=THROTTLED) as one:
        await post_one_by_one(one, 5)
        await until_rows(one, sent=2, pending=3)
        assert one.starts == (2 if (step, nth, side) in SPENT else 1)
        assert len(messages(one)) == 2

        turn(tmp_path, HOUR + LATE)
        await until(lambda: one.starts == 2, 45)
        assert await all_told(one, sent=3, folded=3) == [1, 1, 3]


async def test_what_was_alone_over_the_budget_goes_as_itself_though_the_daemon_is_killed_when_it_is_let_go(
    tmp_path: Path,
) -> None:
    async with runner(tmp_path, "let_go", "1", "after", config=THROTTLED) as one:
        await post_one_by_one(one, 3)
        turn(tmp_path, HOUR + LATE)
        await until(lambda: one.starts == 2, 45)
        assert await all_told(one, sent=3) == [1, 1, 1]


async def test_a_daemon_that_is_killed_after_each_event_lets_no_more_through_than_one_that_lives(
    tmp_path: Path,
) -> None:
    async with runner(tmp_path, config=THROTTLED) as one:
        for life in range(1, 5):
            await post(one)
            await until_planned(one, life)
            if life < 4:
                await killed(one)
        await until_rows(one, sent=2, pending=2)
        assert len(messages(one)) == 2
        turn(tmp_path, HOUR + LATE)
        assert await all_told(one, sent=3, folded=2) == [1, 1, 2]


async def killed(one: Runner) -> None:
    """kill -9, and the next life has begun."""
    assert one.process is not None
    starts = one.starts
    one.process.kill()
    await until(lambda: one.starts == starts + 1, 45)


# --- quiet hours -------------------------------------------------------------------------------------------

QUIET = [
    ("append_planned", 1, "after"),  # an event, with its plan and its delivery that is held
    ("fold", 1, "before"),
    ("fold", 1, "after"),
    ("record", 1, "before"),  # the digest was sent
]


@pytest.mark.parametrize(("step", "nth", "side"), QUIET)
async def test_what_quiet_hours_hold_is_one_digest_when_they_are_over_whenever_the_daemon_is_killed(
    step: str, nth: int, side: str, tmp_path: Path
) -> None:
    quiet = config(quiet_around(datetime.now(UTC)))
    async with runner(tmp_path, step, str(nth), side, config=quiet) as one:
        await post_one_by_one(one, 3)
        await until_rows(one, pending=3)
        assert one.sink.received == []

        turn(tmp_path, HOUR + LATE)
        await until(lambda: one.starts == 2, 45)
        assert await all_told(one, sent=1, folded=3) == [3]


def _count(body: bytes) -> int:
    """How many events a message tells of."""
    event = orjson.loads(body)["data"]["event"]
    return int(event["count"]) if event.get("action") == "digest" else 1
