"""Two nodes, each a process of its own, on one database: one killed, one paused, one cut off."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.chaos.nodes import CONCURRENCY, IMPATIENT, Service, answers_readyz, delivery_id, ledger, service
from tests.chaos.proxy import Proxy
from tests.mongodb import MongoServer
from tests.waiting import until, until_async

pytestmark = pytest.mark.long


async def under_way(both: Service) -> set[str]:
    """Post to both while nobody is answered; the ids that `b` is sending, with as many waiting behind."""
    both.sink.gate.clear()
    await both.post(both.b, *(f"b{n}" for n in range(2 * CONCURRENCY)))
    await until(lambda: len(both.sink.received) == CONCURRENCY)
    sending = set(both.seen)
    await both.post(both.a, *(f"a{n}" for n in range(2 * CONCURRENCY)))
    await until(lambda: len(both.sink.received) == 2 * CONCURRENCY)

    async def planned() -> bool:
        return await ledger(both.a) == both.expected

    await until_async(planned)
    return sending


async def test_what_a_killed_node_leaves_the_other_sends_and_it_comes_back_under_its_name(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, *[mongo_server.database()] * 2) as both:
        sending = await under_way(both)
        await both.b.kill()
        both.sink.gate.set()
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() == sending, "what was under way at the kill comes again, and nothing else"
        await both.b.start()
        await both.post(both.b, "later")
        await both.all_seen()
        assert both.repeated() == sending


async def test_a_node_that_was_paused_past_its_leases_sends_nothing_that_another_has_sent(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, *[mongo_server.database()] * 2) as both:
        sending = await under_way(both)
        both.b.signal(signal.SIGSTOP)
        both.sink.gate.set()
        await both.all_seen()
        await both.all_sent()
        both.b.signal(signal.SIGCONT)
        await both.post(both.b, *(f"later{n}" for n in range(2 * CONCURRENCY)))
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() == sending, "only what it was sending when it was paused"


async def test_a_node_that_loses_its_database_takes_nothing_and_recovers_by_itself(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with Proxy(database) as proxy, service(tmp_path, database, proxy.url, patience=IMPATIENT) as both:
        await under_way(both)
        of_b = {delivery_id(f"b{n}") for n in range(2 * CONCURRENCY)}
        proxy.cut()
        both.sink.gate.set()
        await until_async(lambda: answers_readyz(both.b, 503))
        refused = await both.try_post(both.b, "refused")
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert await answers_readyz(both.a, 200)
        await both.all_sent()
        proxy.mend()
        await until_async(lambda: answers_readyz(both.b, 200))
        await both.post(both.b, "later")
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() <= of_b, "what it sent and could not record, the other sends again"
