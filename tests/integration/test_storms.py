"""Storms on a running notifyd: what is held, folded and let go, and what its ledger and numbers say then."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from notifyd.model import SECOND, Level, Message
from notifyd.testing import Sink
from tests import events
from tests.daemon import CALLBACK, CONFIG, Clock, Daemon, Inbox, daemon
from tests.waiting import until, until_async

pytestmark = pytest.mark.usefixtures("often")

HOUR = 3600
LATE = 1
"""Seconds from a window's end to its closing, for what is planned just before the end."""

BASE = CONFIG.partition("[[rules]]")[0]
EVERY_EVENT = 'event.kind == "task.done" || event.kind == "pack.approval"'
FULL = "1/24h"


def config(options: str, when: str = EVERY_EVENT, base: str = BASE) -> str:
    """One rule with these options, to one person."""
    return f"""{base}
[[rules]]
name = "stages"
when = '{when}'
channels = ["inbox"]
to = ["alice@acme.example"]
{options}
"""


def quiet_around(now: datetime) -> str:
    """Quiet hours that began an hour ago and end in an hour."""
    begins, ends = (f"{now + timedelta(hours=step):%H:%M}" for step in (-1, 1))
    return f'quiet_hours = {{from = "{begins}", to = "{ends}", zone = "UTC"}}'


@asynccontextmanager
async def running(folder: Path, options: str, **more: Any) -> AsyncIterator[Daemon]:
    async with daemon(folder, config(options), **more) as one:
        yield one


async def post(one: Daemon, count: int, **data: Any) -> None:
    """Events of a stage that is done, a hundred at once."""
    for start in range(0, count, 100):
        batch = [events.cloud_event(at=one.clock(), data=data) for _ in range(min(100, count - start))]
        headers = {"X-Notifyd-Tenant": "acme", "Content_Type": "application/cloudevents-batch+json"}
        answer = await one.post("/api/v1/events", batch, "operator", **headers)
        assert answer.status == 202, answer.text


async def ledger(one: Daemon, state: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await one.get(f"/api/v1/deliveries?limit=200&state={state}&cursor={cursor}")).json
        items += page["items"]
        if page["nextCursor"] is None:
            return items
        cursor = page["nextCursor"]


async def states(one: Daemon) -> Counter[str]:
    return Counter(item["state"] for item in await ledger(one))


async def until_states(one: Daemon, **expected: int) -> None:
    async def as_expected() -> bool:
        return await states(one) == Counter(expected)

    await until_async(as_expected)


async def metric(one: Daemon, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families((await one.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == name and sample.labels.items() >= labels.items():
                return sample.value
    return 0.0


async def arrived(one: Daemon, count: int) -> list[Message]:
    await until(lambda: len(one.inbox.messages) >= count)
    return one.inbox.messages


async def at_rest(one: Daemon, count: int, **expected: int) -> None:
    """So many messages in all, the ledger as expected, and no more to come."""
    await until_states(one, **expected)
    assert len(one.inbox.messages) == count
    assert len({message.id for message in one.inbox.messages}) == count
    await until_async(lambda: _is(one, "notifyd_backlog", 0.0))


async def _is(one: Daemon, name: str, value: float) -> bool:
    return await metric(one, name, channel="inbox") == value


def digests(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.event["action"] == "digest"]


# --- throttle ----------------------------------------------------------------------------------------------


async def test_of_a_thousand_events_a_hundred_are_told_and_then_one_summary_of_the_rest(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, 'throttle = "100/1h"') as one:
        await post(one, 1000)
        await arrived(one, 100)
        await at_rest(one, 100, sent=100, pending=900)

        one.clock.turn(HOUR + LATE)
        summary = (await arrived(one, 101))[100]
        assert summary.event["count"] == 900
        assert len(summary.event["items"]) == 12
        assert summary.title == "900 messages: stages"
        assert "and 888 more" in summary.body
        await at_rest(one, 101, sent=101, folded=900)
        assert {item["foldedInto"] for item in await ledger(one, "folded")} == {summary.id}
        assert await metric(one, "notifyd_deliveries_total", channel="inbox", outcome="folded") == 900
        assert await metric(one, "notifyd_deliveries_total", channel="inbox", outcome="sent") == 101
        told = (await one.get("/api/v1/audit?limit=200")).json["items"]
        assert Counter(line["name"] for line in told) == {"notification.sent": 101}
        assert summary.id in {line["data"]["deliveryId"] for line in told}

        await post(one, 1)  # the hour of the first hundred is over
        await at_rest(one, 102, sent=102, folded=900)


async def test_in_a_storm_that_goes_on_the_summary_has_the_first_room_there_is(tmp_path: Path) -> None:
    async with running(tmp_path, 'throttle = "3/1h"') as one:
        await post(one, 5)
        await at_rest(one, 3, sent=3, pending=2)
        one.clock.turn(HOUR + LATE)
        await post(one, 5)
        await at_rest(one, 6, sent=6, pending=3, folded=2)
        assert [message.event["count"] for message in digests(one.inbox.messages)] == [2]
        one.clock.turn(HOUR + LATE)
        await at_rest(one, 7, sent=7, folded=5)


async def test_a_restart_neither_refills_a_budget_nor_forgets_what_is_held(tmp_path: Path) -> None:
    clock, inbox = Clock(), Inbox()
    options = 'throttle = "10/1h"'
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        await post(one, 6)
        await at_rest(one, 6, sent=6)
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        await post(one, 6)
        await at_rest(one, 10, sent=10, pending=2)
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        await post(one, 1)
        await at_rest(one, 10, sent=10, pending=3)
        clock.turn(HOUR + LATE)
        assert (await arrived(one, 11))[10].event["count"] == 3
        await at_rest(one, 11, sent=11, folded=3)


async def test_one_that_waited_alone_has_spent_as_it_left_also_after_a_restart(tmp_path: Path) -> None:
    clock, inbox = Clock(), Inbox()
    options = 'throttle = "1/1h"'
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        await post(one, 1)
        await at_rest(one, 1, sent=1)
        await post(one, 1)  # it waits for an hour, and leaves as itself
        await at_rest(one, 1, sent=1, pending=1)
        clock.turn(HOUR + 2)
        await at_rest(one, 2, sent=2)
        clock.turn(HOUR / 2)
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        await post(one, 1)
        await at_rest(one, 2, sent=2, pending=1)
        clock.turn(HOUR / 2)
        await at_rest(one, 3, sent=3)
        assert digests(inbox.messages) == []


# --- groups ------------------------------------------------------------------------------------------------

BY_RUN = 'group_by = ["data.run"]\ngroup_wait = "30s"'


async def test_each_group_is_one_digest_and_a_single_message_goes_as_itself(tmp_path: Path) -> None:
    async with running(tmp_path, BY_RUN) as one:
        await post(one, 30, run="run-1")
        await post(one, 5, run="run-2", level="error")
        await post(one, 1, run="run-3")
        await at_rest(one, 0, pending=36)
        assert await metric(one, "notifyd_backlog", channel="inbox") == 0

        one.clock.turn(30 + LATE)
        messages = await arrived(one, 3)
        await at_rest(one, 3, sent=3, folded=35)
        assert sorted(message.event["count"] for message in digests(messages)) == [5, 30]
        (single,) = [message for message in messages if message.event["action"] != "digest"]
        assert single.event["data"] == {"run": "run-3"}
        loud = next(message for message in messages if message.event.get("count") == 5)
        assert loud.level is Level.ERROR
        assert loud.body.count("\n- ") == 5
        assert all(len(message.id) == 64 for message in messages)


async def test_a_group_s_next_window_is_another_digest(tmp_path: Path) -> None:
    async with running(tmp_path, BY_RUN) as one:
        for sent in (1, 2):
            await post(one, 2, run="run-1")
            await until_states(one, pending=2, **({"sent": sent - 1, "folded": 2} if sent > 1 else {}))
            one.clock.turn(30 + LATE)
            await arrived(one, sent)
        await at_rest(one, 2, sent=2, folded=4)


async def test_every_request_of_a_storm_is_listed_with_a_link_of_its_own(tmp_path: Path) -> None:
    options = f"""group_by = ["kind"]
group_wait = "30s"
throttle = "{FULL}"
quiet_hours = {{from = "00:00", to = "23:59", zone = "UTC"}}"""
    async with running(tmp_path, options) as one:
        for number in range(45):
            await one.ask(runId=f"run-{number}")
        await at_rest(one, 0, pending=45)
        assert await metric(one, "notifyd_approval_notifications_queued_total") == 0

        one.clock.turn(30 + LATE)
        messages = digests(await arrived(one, 4))
        assert sorted(message.event["count"] for message in messages) == [9, 12, 12, 12]
        links = [item["link"] for message in messages for item in message.event["items"]]
        assert len(set(links)) == 45
        for message in messages:
            mine, *shown = [(action.label, action.url) for action in message.actions]
            assert mine[1].startswith("https://notifyd.acme.example/approvals/mine/")
            assert shown == [(item["title"], item["link"]) for item in message.event["items"]]
            assert message.title == f"{len(shown)} approvals needed"
            assert all(item["link"] in (message.html or "") for item in message.event["items"])
        pages = [await one.get(link.removeprefix("https://notifyd.acme.example"), None) for link in links]
        assert {page.status for page in pages} == {200}
        assert sum("run-44" in page.text for page in pages) == 1
        await at_rest(one, 4, sent=4, folded=45)
        assert await metric(one, "notifyd_approval_notifications_queued_total") == 4
        assert await metric(one, "notifyd_approval_notifications_sent_total") == 4
        text = orjson.dumps(await ledger(one)).decode() + (await one.get("/api/v1/audit?limit=200")).text
        assert "/approvals/" not in text


# --- quiet hours -------------------------------------------------------------------------------------------


async def test_quiet_hours_hold_what_can_wait_and_tell_it_as_one_when_they_are_over(tmp_path: Path) -> None:
    clock, inbox = Clock(), Inbox()
    options = quiet_around(datetime.now(UTC)) + '\n[dispatch]\nmax_age = "5s"'
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        await post(one, 3)
        await one.ask()  # somebody is waited for
        (asked,) = await arrived(one, 1)
        assert asked.event["action"] == "requested"
        await at_rest(one, 1, sent=1, pending=3)
    async with running(tmp_path, options, clock=clock, inbox=inbox) as one:
        one.clock.turn(30 * 60)
        await post(one, 1)
        await at_rest(one, 1, sent=1, pending=4)
        one.clock.turn(45 * 60)
        assert (await arrived(one, 2))[1].event["count"] == 4
        await at_rest(one, 2, sent=2, folded=4)


async def test_a_summary_that_falls_into_quiet_hours_waits_for_their_end(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    options = f"{quiet_around(soon + timedelta(hours=1))}\n{BY_RUN.replace('30s', '90m')}"
    async with running(tmp_path, options) as one:
        await post(one, 2, run="run-1")
        await until_states(one, pending=2)
        closes = (await ledger(one))[0]["nextAttemptAt"]
        one.clock.turn(100 * 60)

        async def postponed() -> bool:
            return bool((await ledger(one))[0]["nextAttemptAt"] > closes)

        await until_async(postponed)
        assert one.inbox.messages == []
        one.clock.turn(100 * 60)
        assert (await arrived(one, 1))[0].event["count"] == 2


# --- what nothing holds back -------------------------------------------------------------------------------


async def test_a_resume_callback_is_neither_held_nor_throttled_nor_folded(tmp_path: Path) -> None:
    options = f"""group_by = ["kind"]
group_wait = "1h"
throttle = "{FULL}"
quiet_hours = {{from = "00:00", to = "23:59", zone = "UTC"}}"""
    async with Sink() as sink:
        text = config(options, "true", BASE.replace(CALLBACK, sink.url))
        async with daemon(tmp_path, text) as one:
            resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            for number in range(3):
                asked = await one.ask(runId=f"run-{number}", resume=resume)
                same = {name: asked[name] for name in ("tenant", "runId", "approvalId", "planHash")}
                ballot = same | {"decision": "approved", "actor": "alice@acme.example"}
                path = "/notifications/pack-approvals/{runId}/{approvalId}/ack".format_map(asked)
                assert (await one.signed(path, ballot)).status == 200
            await until(lambda: len(sink.received) == 3)
            assert one.inbox.messages == []


# --- trouble -----------------------------------------------------------------------------------------------


async def test_what_is_held_leaves_though_its_rule_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path, BY_RUN) as one:
        await post(one, 3, run="run-1")
        await until_states(one, pending=3)
        await one.reload(one.text.replace('name = "stages"', 'name = "other"'))
        one.clock.turn(30 + LATE)
        assert (await arrived(one, 1))[0].event["count"] == 3
        await at_rest(one, 1, sent=1, folded=3)


async def test_a_digest_whose_template_fails_is_still_one_message(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    text = "{% block title %}{{ event.count / 0 }}{% endblock %}{% block body %}{% endblock %}"
    (templates / "digest.en.txt").write_text(text)
    async with running(tmp_path, BY_RUN + f'\n[templates]\ndirs = ["{templates}"]') as one:
        await post(one, 3, run="run-1")
        await until_states(one, pending=3)
        one.clock.turn(30 + LATE)
        (message,) = await arrived(one, 1)
        assert message.title == "3 × stages"
        assert message.body.count("- ") == 3
        await at_rest(one, 1, sent=1, folded=3)


async def test_windows_close_though_the_clock_was_set_back_an_hour(tmp_path: Path) -> None:
    clock = Clock(turned=HOUR * SECOND)
    async with running(tmp_path, BY_RUN, clock=clock) as one:
        await post(one, 3, run="run-1")
        await until_states(one, pending=3)
        clock.turn(-HOUR)
        assert (await arrived(one, 1))[0].event["count"] == 3
