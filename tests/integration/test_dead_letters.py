"""Dead letters over HTTP: found by filters and page by page, each with what was tried, and sent again by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from notifyd.testing import Reply, Sink
from tests import events
from tests.daemon import CONFIG, Daemon, daemon
from tests.waiting import until_async

COUNT = 30
PAGE = "<h1>Bad</h1> token whsec_c2VjcmV0LW9mLXRoZS1ob29rLW9mLTMyLWJ5dGVzLiE= " + "x" * 5000


def hook(name: str, sink: Sink) -> str:
    return f"""
[channels.{name}]
type = "webhook"
url = "{sink.url}/{name}"
secret = "whsec_c2VjcmV0LW9mLXRoZS1ob29rLW9mLTMyLWJ5dGVzLiE="
[[rules]]
name = "to-{name}"
when = 'event.kind == "task.done"'
channels = ["{name}"]
"""


@pytest.fixture
async def sinks() -> AsyncIterator[tuple[Sink, Sink]]:
    async with Sink() as refusing, Sink() as taking:
        refusing.reply = Reply(400, PAGE)
        yield refusing, taking


@pytest.fixture
async def one(tmp_path: Path, sinks: tuple[Sink, Sink]) -> AsyncIterator[Daemon]:
    """A daemon whose one channel has refused thirty messages that the other has taken."""
    text = CONFIG.partition("[channels.inbox]")[0] + hook("refusing", sinks[0]) + hook("taking", sinks[1])
    async with daemon(tmp_path, text) as started:
        batch = [events.cloud_event(at=started.clock()) for _ in range(COUNT)]
        headers = {"X-Notifyd-Tenant": "acme", "Content_Type": "application/cloudevents-batch+json"}
        assert (await started.post("/api/v1/events", batch, "operator", **headers)).status == 202

        async def ended() -> bool:
            found = [await listed(started, state=state) for state in ("dead", "sent")]
            return [len(items) for items in found] == [COUNT, COUNT]

        await until_async(ended)
        yield started


async def page(daemon: Daemon, **query: str) -> dict[str, Any]:
    answer = await daemon.get("/api/v1/deliveries?" + "&".join(f"{k}={v}" for k, v in query.items()))
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


async def listed(daemon: Daemon, **query: str) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    found = await page(daemon, **query)
    items: list[dict[str, Any]] = found["items"]
    while found["nextCursor"]:
        found = await page(daemon, **query, cursor=found["nextCursor"])
        items += found["items"]
    return items


async def retry(daemon: Daemon, id_: str) -> int:
    path = f"/api/v1/deliveries/{id_}/retry"
    return (await daemon.post(path, None, "operator", **{"X-Notifyd-Tenant": "acme"})).status


async def dead_letters(daemon: Daemon) -> str:
    lines = (await daemon.get("/metrics")).text.splitlines()
    (line,) = [line for line in lines if line.startswith('notifyd_dead_letters{channel="refusing"}')]
    return line.split()[1]


async def test_they_are_found_by_state_and_channel_page_by_page_each_once(one: Daemon) -> None:
    first = await page(one, state="dead", channel="refusing", limit="12")
    assert len(first["items"]) == 12
    items = await listed(one, state="dead", channel="refusing", limit="12")
    assert len({item["id"] for item in items}) == len(items) == COUNT
    assert {(item["state"], item["channel"]) for item in items} == {("dead", "refusing")}
    assert await listed(one, state="dead", channel="taking") == []
    assert len(await listed(one, channel="refusing", limit="7")) == COUNT
    other = f"/api/v1/deliveries?state=sent&cursor={first['nextCursor']}"
    assert (await one.get(other)).json["code"] == "invalid_cursor"


async def test_each_tells_what_was_tried_and_a_bounded_piece_of_the_answer_without_secrets(
    one: Daemon,
) -> None:
    for item in await listed(one, state="dead"):
        assert item["reason"] == "rejected"
        assert item["endedAt"] >= item["createdAt"]
        (attempt,) = item["attempts"]
        assert (attempt["outcome"], attempt["status"], attempt["reason"]) == ("permanent", 400, "rejected")
        assert attempt["durationMs"] > 0
        assert 100 < len(attempt["excerpt"]) <= 1024
        assert "c2VjcmV0" not in attempt["excerpt"]


async def test_one_is_sent_again_by_hand_and_only_while_it_is_dead(
    one: Daemon, sinks: tuple[Sink, Sink]
) -> None:
    (chosen, *_) = await listed(one, state="dead")
    assert await dead_letters(one) == f"{COUNT:.1f}"
    sinks[0].reply = Reply()
    assert await retry(one, chosen["id"]) == 200

    async def sent() -> bool:
        return bool((await one.get(f"/api/v1/deliveries/{chosen['id']}")).json["state"] == "sent")

    await until_async(sent)
    again = (await one.get(f"/api/v1/deliveries/{chosen['id']}")).json
    assert [attempt["status"] for attempt in again["attempts"]] == [400, 200]
    assert sinks[0].received[-1].headers["webhook-id"] == chosen["id"]
    assert await dead_letters(one) == f"{COUNT - 1:.1f}"
    assert await retry(one, chosen["id"]) == 409
    assert await retry(one, "unknown") == 404
