"""Three nodes, each a process of its own, on one database: each killed in turn while events go to all, and a
decision that all of them see.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from notifyd.app import wall_clock
from tests import events
from tests.chaos.nodes import CONCURRENCY, Service, ledger, node, sent_by, service, webhook_id
from tests.mongodb import MongoServer
from tests.process import Answer, DaemonProcess
from tests.waiting import until, until_async

PACE: Final = 0.05
"""Seconds between two events."""


# --- killed in turn -----------------------------------------------------------------------------------------


async def test_three_nodes_killed_in_turn_lose_nothing_and_repeat_only_what_the_killed_one_was_sending(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    """A webhook comes once, and once more for each time that the node that was sending it was killed."""
    async with service(tmp_path, *[mongo_server.database()] * 3) as three:
        explained: Counter[str] = Counter()
        async with events_to_all(three):
            for name in three.nodes:
                explained.update(await killed_and_back(three, name))
        await three.all_seen()
        await three.all_sent()
        assert three.seen.keys() == three.expected
        assert three.seen <= Counter(three.expected) + explained
        assert len(three.repeated()) >= 3 * CONCURRENCY, "what was under way at a kill comes again"
        assert sorted(run for run, _ in callbacks(three)) == ["a", "b", "c"]


@asynccontextmanager
async def events_to_all(three: Service) -> AsyncIterator[None]:
    """Meanwhile an event goes to each node in turn, as a balancer gives them."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(post_in_turn(three, over))
        try:
            yield
        finally:
            over.set()


async def post_in_turn(three: Service, over: asyncio.Event) -> None:
    """The same event goes to the next node where one does not answer."""
    turns = cycle(three.nodes.values())
    for number in count():
        while not await accepted(three, next(turns), f"event-{number}"):
            pass
        if await within(over, PACE):
            return


async def accepted(three: Service, daemon: DaemonProcess, name: str) -> bool:
    try:
        await three.post(daemon, name)
    except aiohttp.ClientError:
        return False
    return True


async def within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def killed_and_back(three: Service, name: str) -> set[str]:
    """Kill a node that is sending, and wait for what the others make of it, and until it takes part again.

    Gives the webhook ids that it had begun to send and not recorded as sent.
    """
    victim, other, third = in_turn(three, name)
    asked = request(three, name)
    assert (await victim.send(asked)).status == 202
    cut = len(three.sink.received)
    three.sink.gate.clear()
    await until(lambda: len(by(three, name, cut)) == CONCURRENCY)
    await victim.kill()
    unanswered = set(by(three, name, cut))
    unrecorded = set(by(three, name)) - await ledger(other, state="sent")
    assert unanswered <= unrecorded
    three.sink.gate.set()
    begun = asyncio.create_task(victim.start())
    await decided(three, asked, on=other, seen_by=third)
    await begun
    back = len(three.sink.received)
    await until(lambda: unanswered <= three.repeated(), 30)
    await until(lambda: by(three, name, back))
    await shows_decided(victim, asked)
    return unrecorded


def in_turn(three: Service, first: str) -> list[DaemonProcess]:
    names = sorted(three.nodes)
    at = names.index(first)
    return [three.nodes[name] for name in names[at:] + names[:at]]


def by(three: Service, name: str, first: int = 0) -> list[str]:
    """The webhook ids that this node has sent, but for the `first` requests."""
    return [webhook_id(one) for one in three.hooks(first) if sent_by(one) == name]


# --- decided ------------------------------------------------------------------------------------------------


def request(three: Service, run: str) -> dict[str, Any]:
    resume = {"callbackUrl": f"{three.sink.url}/resume", "token": f"rt_of-{run}-3yQ8Jv1nTz5kWc7pXe2mRb9d"}
    return events.requested(at=wall_clock(), runId=run, resume=resume)


def path_of(asked: dict[str, Any]) -> str:
    return f"/notifications/pack-approvals/{asked['runId']}/{asked['approvalId']}"


def callbacks(three: Service) -> list[tuple[str, str]]:
    """The run and the decision of each."""
    bodies = [orjson.loads(one.body)["data"] for one in three.sink.received if one.path == "/resume"]
    return [(body["runId"], body["decision"]) for body in bodies]


async def decided(three: Service, asked: dict[str, Any], on: DaemonProcess, seen_by: DaemonProcess) -> None:
    """Approve on one node; the other knows at once, and the run is resumed."""
    assert (await on.ack(asked)).status == 200
    await shows_decided(seen_by, asked)

    async def delivered() -> bool:
        return bool((await seen_by.get(path_of(asked))).json["resume"]["status"] == "delivered")

    await until_async(delivered)
    assert callbacks(three).count((asked["runId"], "approved")) == 1


async def shows_decided(daemon: DaemonProcess, asked: dict[str, Any]) -> None:
    assert (await daemon.get(path_of(asked))).json["status"] == "approved"
    assert (await daemon.ack(asked)).status == 200, "its repetition is answered as it was"
    for actor in ("alice@acme.example", "bob@acme.example"):
        refused = await daemon.ack(asked, "rejected", actor=actor)
        assert refused.status == 409, refused.text


async def test_a_decision_made_on_one_node_is_seen_on_all_at_once_and_a_name_has_one_node(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with service(tmp_path, *[database] * 3) as three:
        asked = request(three, "run-1")
        answers = [await daemon.send(asked) for daemon in three.nodes.values()]
        assert [answer.status for answer in answers] == [202, 200, 200]
        await decided(three, asked, on=three.b, seen_by=three.nodes["c"])
        await shows_decided(three.a, asked)
        await one_of_three_decides(three)
        async with node(tmp_path, "a", database, three.sink) as second:
            await second.launch()
            assert await second.wait() == 1
            assert "another process lives as node 'a'" in (second.stderr + second.stdout).decode()
        assert sorted(run for run, _ in callbacks(three)) == ["run-1", "run-2"]


async def one_of_three_decides(three: Service) -> None:
    """Three persons decide at the same time, each on another node: the first ends it, for all."""
    asked = request(three, "run-2")
    assert (await three.a.send(asked)).status == 202
    voters = zip(
        three.nodes.values(), ("alice", "bob", "carol"), ("approved", "rejected", "approved"), strict=True
    )
    answers: list[Answer] = await asyncio.gather(
        *(daemon.ack(asked, choice, actor=f"{who}@acme.example") for daemon, who, choice in voters)
    )
    assert sorted(answer.status for answer in answers) == [200, 409, 409]
    (status,) = {(await daemon.get(path_of(asked))).json["status"] for daemon in three.nodes.values()}
    await until(lambda: ("run-2", status) in callbacks(three))
