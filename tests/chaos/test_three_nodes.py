"""Three nodes, each a process of its own, on one database: killed, paused and cut off while events go to all, and
a decision that all of them see.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from notifyd.model import wall_clock
from tests import events
from tests.chaos.nodes import (
    CONCURRENCY,
    IMPATIENT,
    Service,
    answers_readyz,
    ledger,
    node,
    sent_by,
    service,
    webhook_id,
)
from tests.chaos.proxy import Proxy
from tests.mongodb import MongoServer
from tests.process import Answer, DaemonProcess
from tests.waiting import until, until_async

pytestmark = pytest.mark.long

PACE: Final = 0.05
"""Seconds between two events."""

WAITING: Final = 3 * CONCURRENCY
"""Webhooks that nobody has begun to send, of all nodes, when one fails."""

ANSWERED: Final = 1.0
"""Seconds that a balancer waits for a node's answer."""


async def test_three_nodes_killed_in_turn_lose_nothing_and_repeat_only_what_the_killed_one_was_sending(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, *[mongo_server.database()] * 3) as three:
        explained: Counter[str] = Counter()
        async with events_to_all(three):
            for name in three.nodes:
                explained.update(await killed_and_back(three, name))
        await all_came(three, explained)
        assert len(three.repeated()) >= 3 * CONCURRENCY, "what was under way at a kill comes again"
        assert sorted(run for run, _ in callbacks(three)) == ["a", "b", "c"]


async def test_one_of_three_nodes_paused_then_one_cut_off_lose_nothing_and_repeat_only_what_they_were_sending(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    direct = (database, database)
    async with Proxy(database) as proxy, service(tmp_path, *direct, proxy.url, patience=IMPATIENT) as three:
        explained: Counter[str] = Counter()
        async with events_to_all(three):
            explained.update(await paused_and_woken(three, "b"))
            explained.update(await cut_off_and_back(three, "c", proxy))
        await all_came(three, explained)


async def all_came(three: Service, explained: Counter[str]) -> None:
    """Each webhook once, and again at most as often as is `explained`: a node that was sending it failed."""
    await three.all_seen()
    await three.all_sent()
    assert three.seen.keys() == three.expected
    unexplained = three.seen - Counter(three.expected) - explained
    assert not unexplained


# --- events to all ------------------------------------------------------------------------------------------


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
        async with asyncio.timeout(ANSWERED):
            answer = await three.try_post(daemon, name)
    except (aiohttp.ClientError, TimeoutError):
        return False
    if answer.status == 503:
        return False
    three.taken(answer, name)
    return True


async def within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


# --- one that fails -----------------------------------------------------------------------------------------


async def killed_and_back(three: Service, name: str) -> set[str]:
    """Kill a node that is sending, and wait until others have sent that and it takes part again.

    Meanwhile an approval that it has accepted is decided on another. Gives the webhook ids that it had begun to
    send and not recorded as sent.
    """
    victim, other, third = in_turn(three, name)
    asked = request(three, name)
    assert (await victim.send(asked)).status == 202
    unanswered = await busy(three, name)
    await victim.kill()
    unrecorded = await sent_and_not_recorded(three, name, other)
    assert unanswered <= unrecorded
    three.sink.gate.set()
    started = asyncio.create_task(victim.start())
    await decided(three, asked, on=other, seen_by=third)
    await started
    await until(lambda: unanswered <= three.repeated())
    await takes_part(three, name)
    await shows_decided(victim, asked)
    return unrecorded


async def paused_and_woken(three: Service, name: str) -> set[str]:
    """The same with a node that is stopped until others have sent all it had, what was waiting there too."""
    victim, other, _ = in_turn(three, name)
    unanswered = await busy(three, name)
    victim.signal(signal.SIGSTOP)
    unrecorded = await sent_and_not_recorded(three, name, other)
    assert unanswered <= unrecorded
    accepted_by_now = set(three.expected)
    three.sink.gate.set()
    await until_async(lambda: recorded(other, accepted_by_now))
    assert unanswered <= three.repeated()
    victim.signal(signal.SIGCONT)
    await takes_part(three, name)
    return unrecorded


async def cut_off_and_back(three: Service, name: str, proxy: Proxy) -> set[str]:
    """The same with a node whose way to the database is cut, until it has seen that and others have its work.

    It goes on with what it holds a lease for, and cannot record it.
    """
    victim, other, _ = in_turn(three, name)
    await busy(three, name)
    cut = len(three.sink.received)
    proxy.cut()
    unrecorded = await sent_and_not_recorded(three, name, other)
    three.sink.gate.set()
    await until_async(lambda: answers_readyz(victim, 503))
    await until_async(lambda: recorded(other, unrecorded))
    proxy.mend()
    await until_async(lambda: answers_readyz(victim, 200))
    unrecorded.update(by(three, name, cut))
    await takes_part(three, name)
    return unrecorded


async def busy(three: Service, name: str) -> set[str]:
    """Let nobody be answered; the webhook ids that the node is sending, once it may send no more and more wait."""
    first = len(three.sink.received)
    three.sink.gate.clear()
    sending = await until(lambda: enough(by(three, name, first)))
    await until(lambda: len(three.expected - three.seen.keys()) >= WAITING)
    return set(sending)


def enough(ids: list[str]) -> list[str]:
    return ids if len(ids) == CONCURRENCY else []


async def sent_and_not_recorded(three: Service, name: str, other: DaemonProcess) -> set[str]:
    return set(by(three, name)) - await ledger(other, state="sent")


async def recorded(daemon: DaemonProcess, ids: set[str]) -> bool:
    return ids <= await ledger(daemon, state="sent")


async def takes_part(three: Service, name: str) -> None:
    first = len(three.sink.received)
    await until(lambda: by(three, name, first))


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


async def shown(daemon: DaemonProcess, asked: dict[str, Any]) -> Any:
    """The approval as this node shows it."""
    answer = await daemon.get(f"/notifications/pack-approvals/{asked['runId']}/{asked['approvalId']}")
    assert answer.status == 200, answer.text
    return answer.json


def callbacks(three: Service) -> list[tuple[str, str]]:
    """The run and the decision of each."""
    bodies = [orjson.loads(one.body)["data"] for one in three.sink.received if one.path == "/resume"]
    return [(body["runId"], body["decision"]) for body in bodies]


async def decided(three: Service, asked: dict[str, Any], on: DaemonProcess, seen_by: DaemonProcess) -> None:
    """Approve on one node; the other knows at once, and the run is resumed."""
    assert (await on.ack(asked)).status == 200
    await shows_decided(seen_by, asked)

    async def delivered() -> bool:
        return bool((await shown(seen_by, asked))["resume"]["status"] == "delivered")

    await until_async(delivered)
    assert callbacks(three).count((asked["runId"], "approved")) == 1


async def shows_decided(daemon: DaemonProcess, asked: dict[str, Any]) -> None:
    assert (await shown(daemon, asked))["status"] == "approved"
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
        *(
            daemon.ack(asked, choice, actor=f"{who}@acme.example", comment="seen")
            for daemon, who, choice in voters
        )
    )
    assert sorted(answer.status for answer in answers) == [200, 409, 409]
    (status,) = {(await shown(daemon, asked))["status"] for daemon in three.nodes.values()}
    await until(lambda: ("run-2", status) in callbacks(three))
