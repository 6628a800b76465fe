"""kill -9 around every step of a window that closes, then a restart: each message once, by one id, all told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd.app import wall_clock
from tests import events
from tests.chaos.test_kill_between_steps import CONFIG, Runner, runner
from tests.waiting import until, until_async

GROUPED = (
    CONFIG.partition("[[rules]]")[0]
    + """
[[rules]]
name = "stages"
when = 'event.kind == "task.done"'
channels = ["hook"]
group_by = ["data.run"]
group_wait = "700ms"
"""
)

POINTS = [
    ("fix_plans", 1, "after"),  # a plan, with its delivery that is held
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


async def items(one: Runner, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await one.call("GET", f"/api/v1/deliveries?state={state}"))["items"]
    return found


async def ended(one: Runner) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """The rows that were sent and that were folded, once each of the storm's events is among them."""
    sent, folded = await items(one, "sent"), await items(one, "folded")
    told = [row for row in sent if row["action"] != "digest"] + folded
    return (sent, folded) if len(told) == len(RUNS) and not await items(one, "pending") else None


@pytest.mark.parametrize(("step", "nth", "side"), POINTS)
async def test_a_window_is_told_whole_and_once_whenever_the_daemon_is_killed(
    step: str, nth: int, side: str, tmp_path: Path
) -> None:
    async with runner(tmp_path, step, str(nth), side, config=GROUPED) as one:
        for run in RUNS:
            event = events.cloud_event(at=wall_clock(), tenant="acme", data={"run": run})
            await one.call("POST", "/api/v1/events", event)
        await until(lambda: one.starts == 2, 45)
        await until_async(lambda: _is(one), 45)
        sent, folded = await ended(one) or ([], [])
        told = messages(one)
        assert {len(bodies) for bodies in told.values()} == {1}, "a repeat is the same message"
        assert told.keys() == {row["id"] for row in sent}
        counts = {id_: _count(bodies.pop()) for id_, bodies in told.items()}
        assert sum(counts.values()) == len(RUNS)
        folds = Counter(row["foldedInto"] for row in folded)
        assert folds == {id_: count for id_, count in counts.items() if count > 1}
        assert await one.audit() == ["notification.sent"] * len(sent)


async def _is(one: Runner) -> bool:
    return await ended(one) is not None


def _count(body: bytes) -> int:
    """How many events a message tells of."""
    event = orjson.loads(body)["data"]["event"]
    return int(event["count"]) if event.get("action") == "digest" else 1
