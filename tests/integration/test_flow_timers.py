"""Reminders and escalations: who is told what, once, and when they stop."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import StoreError
from notifyd.flow.mine import asked_of
from notifyd.flow.remind import Timers
from notifyd.model import SECOND, Message, Status
from notifyd.security.links import MineLink
from notifyd.wire.codec import rfc3339
from tests.flows import Flow, flow
from tests.waiting import until, until_async

HOUR = 3600.0
CONFIG = """
[resume]
allowed_origins = ["https://runner.acme.example"]
[channels.team]
type = "fake"
[channels.mail]
type = "person"
[channels.ops]
type = "fake"
[channels.night]
type = "person"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["mail", "team"]
to = ["alice@acme.example", "bob@acme.example"]
remind = ["2h", "30m before expiry"]
escalate = [{after = "1h", channels = ["ops", "team", "night"], to = ["carol@acme.example", "dora@acme.example"]}]
quiet_hours = {from = "00:00", to = "23:59", zone = "UTC"}
throttle = "1/1h"

[[rules]]
name = "everything"
when = 'event.kind == "pack.approval"'
channels = ["mail"]
to = ["dora@acme.example"]
grants = []
"""
DORA = "dora@acme.example"


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Flow]:
    async with flow(tmp_path, CONFIG) as running:
        yield running


async def ask(way: Flow, **overrides: Any) -> dict[str, Any]:
    """A request that expires in four hours, told to everybody."""
    sent = len(way.channel("team").received)
    asked = await way.ask(**{"expiresAt": rfc3339(way.clock() + int(4 * HOUR * SECOND))} | overrides)
    await until(lambda: len(way.channel("team").received) > sent)
    await until(lambda: len(way.channel("mail").received) >= 3)
    return asked


LEFT = """
SELECT (SELECT count(*) FROM approvals WHERE effects <> '[]') + (SELECT count(*) FROM planning)
+ (SELECT count(*) FROM deliveries WHERE state IN ('pending', 'sending') AND channel <> 'resume')
"""


def left(way: Flow) -> int:
    """How much is owed, to be planned or to be sent yet, but for callbacks."""
    with contextlib.closing(sqlite3.connect(vars(way.store)["_store"]._path)) as db:
        (count,) = db.execute(LEFT).fetchone()
    return int(count)


async def later(way: Flow, hours: float) -> None:
    """Turn the clock, and let what is due be taken, sent, and sent for good."""
    await until(lambda: not left(way))
    way.turn(hours * HOUR)
    await way.app._timers.sweep()
    await way.sweep()

    await until(lambda: not left(way))


def told(way: Flow, action: str, channel: str = "mail") -> list[Message]:
    return [one for one in way.channel(channel).received if one.event["action"] == action]


async def test_those_who_were_asked_are_reminded_with_the_time_that_is_left(way: Flow) -> None:
    await ask(way)
    await later(way, 2)
    reminders = told(way, "reminded")
    assert sorted(one.recipient or "" for one in reminders) == ["alice@acme.example", "bob@acme.example"]
    assert all("Reminder, 2 hours left" in one.title for one in reminders)
    assert all("Time left to decide: 2 hours" in one.body for one in reminders)
    assert all(one.actions[0].label == "Review and decide" for one in reminders)
    (shared,) = told(way, "reminded", "team")
    assert shared.actions[0].label == "View the plan"
    await later(way, 1.5)
    assert len(told(way, "reminded")) == 4
    assert len({one.id for one in told(way, "reminded")}) == 4


async def test_an_escalation_asks_those_who_were_not_asked_with_links_of_their_own(way: Flow) -> None:
    asked = await ask(way)
    await later(way, 1)
    (carol,) = told(way, "escalated", "night")  # dora was asked by another rule
    assert carol.recipient == "carol@acme.example"
    assert "Still waiting after 1 hour" in carol.title
    assert "more people are asked now" in carol.body
    assert len(told(way, "escalated", "ops")) == 1
    assert told(way, "escalated", "team") == told(way, "escalated") == []
    link = way.current().links.read(carol.actions[0].url.rpartition("/")[2])
    assert (link.recipient, link.rule) == ("carol@acme.example", "approvals")
    assert link.plan_hash == asked["planHash"]


async def test_who_has_voted_or_asked_is_not_reminded(way: Flow) -> None:
    asked = await ask(way, requiredApprovals=2, requestedBy="bob@acme.example")
    await way.decide(asked)
    await later(way, 2)
    assert told(way, "reminded") == []
    assert len(told(way, "reminded", "team")) == 1


async def test_an_end_stops_the_timers_and_a_new_round_starts_them_anew(way: Flow) -> None:
    asked = await ask(way)
    way.turn(1.5 * HOUR)
    expires = rfc3339(way.clock() + int(4 * HOUR * SECOND))
    again = await ask(way, planHash="sha256:" + "b" * 64, expiresAt=expires)
    await later(way, 0.75)  # 2.25 hours after the first round, 0.75 after the second
    assert told(way, "reminded") == told(way, "escalated", "ops") == []
    await later(way, 0.25)
    assert [one.event["round"] for one in told(way, "escalated", "ops")] == [2]
    await way.decide(again, round=2)
    await later(way, 2)
    assert told(way, "reminded") == []
    assert (await way.approval(asked)).status is Status.APPROVED


async def test_two_nodes_that_look_at_once_send_one_message(way: Flow) -> None:
    await ask(way)
    way.turn(2 * HOUR)
    shared: dict[str, Any] = {"store": way.store, "current": way.current, "effect_queue": way.app._effects}
    shared |= {"metrics": way.metrics}
    nodes = [Timers(**shared, clock=way.clock), Timers(**shared, clock=lambda: way.clock() + SECOND)]
    written = await asyncio.gather(*(node.sweep() for node in nodes))
    assert sum(written) == 1
    await later(way, 0)
    assert [len(told(way, "reminded", name)) for name in ("team", "mail")] == [1, 2]
    assert len(told(way, "escalated", "ops")) == 1


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("replace_approval", False),
        ("replace_approval", True),
        ("append", True),
        ("complete_effect", False),
        ("fix_plans", False),
    ],
)
async def test_a_step_that_fails_half_way_is_finished_and_sent_once(
    way: Flow, step: str, after: bool
) -> None:
    await ask(way)
    way.turn(1 * HOUR)
    way.store.fail(step, after=after)

    async def sent() -> bool:
        with contextlib.suppress(StoreError):  # the daemon's sweeps wait for the store, and come again
            await way.app._timers.sweep()
            await way.sweep()
        way.turn(1)  # and in time past the leases of what was cut short
        return bool(told(way, "escalated", "ops"))

    await until_async(sent)
    await later(way, 0.05)
    assert len({one.id for one in told(way, "escalated", "ops")}) == 1


async def test_after_a_restart_what_became_due_meanwhile_is_sent_and_nothing_twice(tmp_path: Path) -> None:
    async with flow(tmp_path, CONFIG) as first:
        await ask(first)
        await later(first, 1)
        assert len(told(first, "escalated", "ops")) == 1
    first.clock.turn(HOUR)
    async with flow(tmp_path, CONFIG, clock=first.clock) as second:
        await later(second, 0)
        await until(lambda: len(told(second, "reminded")) == 2)
        assert told(second, "escalated", "ops") == []


async def test_timers_that_a_reload_brings_hold_for_what_waits_already(tmp_path: Path) -> None:
    bare = "\n".join(line for line in CONFIG.splitlines() if not line.startswith(("remind", "escalate")))
    async with flow(tmp_path, bare) as way:
        await ask(way)
        await later(way, 1.9)
        assert await way.reload(
            CONFIG.replace('"2h", ', '"2h", "3h", ').replace('after = "1h"', 'after = "110m"')
        )
        await later(way, 0.2)
        assert len(told(way, "reminded")) == 2
        assert len(told(way, "escalated", "ops")) == 1
        assert await way.reload(bare)
        await later(way, 1)
        assert len(told(way, "reminded")) == 2


async def test_a_link_lives_as_long_as_its_approval_at_least(tmp_path: Path) -> None:
    async with flow(tmp_path, CONFIG + '[approvals]\nlink_ttl = "1h"\n') as way:
        asked = await ask(way)
        mails = [one for one in way.channel("mail").received if one.recipient != DORA]
        for mail in mails:
            link = way.current().links.read(mail.actions[0].url.rpartition("/")[2])
            assert rfc3339(link.expires_at) == asked["expiresAt"]


ALWAYS = "\n".join(
    line.replace(' && event.action == "requested"', "")
    for line in CONFIG.splitlines()
    if not line.startswith(("quiet_hours", "throttle"))
)
CAROL = "carol@acme.example"


def heard(way: Flow, name: str = "night") -> list[tuple[str, str | None]]:
    """What a channel of the escalation alone has told, and whom."""
    return [(one.event["action"], one.recipient) for one in way.channel(name).received]


async def test_whom_an_escalation_asked_is_told_of_all_that_comes_later_as_those_asked_first(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, ALWAYS) as way:
        asked = await ask(way, requiredApprovals=2)
        await later(way, 0.5)
        await way.decide(asked)
        await later(way, 0.1)
        assert heard(way) == []  # nobody has asked her yet
        await later(way, 0.4)
        again = await way.ask(planHash="sha256:" + "b" * 64, expiresAt=asked["expiresAt"])
        await later(way, 0.1)
        assert heard(way) == [("escalated", CAROL), ("requested", CAROL)]
        link = way.current().links.read(way.channel("night").received[-1].actions[0].url.rpartition("/")[2])
        assert (link.recipient, link.round) == (CAROL, 2)
        mine = MineLink("acme", CAROL, link.expires_at)
        (waiting,), _ = await asked_of(mine, way.current(), way.app._store, way.clock())
        assert [one.round for one in waiting.links] == [2]
        await way.decide(again, round=2)
        await later(way, 0.1)
        assert heard(way)[2:] == [("acknowledged", CAROL)]
        assert [action for action, _ in heard(way, "ops")] == ["escalated", "requested", "acknowledged"]


async def test_who_decides_by_an_escalation_is_not_told_of_it_and_the_end_stays_with_its_rule(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, CONFIG) as way:
        asked = await ask(way)
        await later(way, 1)
        await way.decide(asked)
        await later(way, 0.1)
        assert heard(way) == [("escalated", CAROL)]  # its rule tells nobody of ends
    (tmp_path / "own").mkdir()
    async with flow(tmp_path / "own", ALWAYS) as way:
        asked = await ask(way)
        await later(way, 1)
        await way.decide(asked, actor=CAROL)
        await later(way, 0.1)
        assert heard(way) == [("escalated", CAROL)]


async def test_each_step_is_counted_and_has_its_line_in_the_audit_trail(way: Flow) -> None:
    await ask(way)
    await later(way, 3.5)  # the escalation and both reminders, in one look
    lines = [one for one in await way.audit() if one.name.value.endswith(("reminded", "escalated"))]
    assert {(one.name.value, one.data["rule"], one.data["step"]) for one in lines} == {
        ("pack.approval.escalated", "approvals", "1h"),
        ("pack.approval.reminded", "approvals", "2h"),
        ("pack.approval.reminded", "approvals", "30m before expiry"),
    }
    assert {(one.actor, one.run_id, one.data["round"]) for one in lines} == {("notifyd", "run-0042", 1)}
    assert way.metric("notifyd_approval_timer_steps_total", action="reminded") == 2
    assert way.metric("notifyd_approval_timer_steps_total", action="escalated") == 1
