"""Ends of attempts on MongoDB: those that are recorded at once share transactions, and each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout, OperationFailure

from notifyd.errors import StoreError
from notifyd.model import State
from notifyd.store import AttemptRecord, AuditFilter, Page
from notifyd.store.mongo import MongoStore
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.deliveries import record_ends
from tests.store.conftest import Open
from tests.store.makers import TENANT, audit_record, ended, get, insert, leased

COUNT = 20
_TOGETHER = "notifyd.store.mongo.deliveries.record_ends"


def ids() -> list[str]:
    return [f"d{number:02}" for number in range(COUNT)]


def end(delivery_id: str, **lease: Any) -> AttemptRecord:
    return ended(leased(delivery_id, **lease), audit=(audit_record(f"audit-{delivery_id}"),))


async def filled(node: Open, **options: Any) -> MongoStore:
    store = await node("a", **options)
    for one in ids():
        await insert(store, leased(one))
    return store


async def lines(store: MongoStore) -> list[str]:
    page = Page(2 * COUNT)
    return sorted(line.id for line in (await store.audit(TENANT, AuditFilter(), page))[0])


async def states(store: MongoStore) -> list[State]:
    return [(await get(store, leased(one))).state for one in ids()]


async def test_ends_that_are_recorded_at_once_share_a_transaction(node: Open) -> None:
    store = await filled(node)
    sizes: list[int] = []

    async def spied(base: Base, records: Sequence[AttemptRecord]) -> bool:
        sizes.append(len(records))
        return await record_ends(base, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_TOGETHER, spied)
        assert await asyncio.gather(*(store.record(end(one)) for one in ids())) == [True] * COUNT
    assert sizes == [COUNT]
    assert await states(store) == [State.SENT] * COUNT
    assert await lines(store) == [f"audit-{one}" for one in ids()]


async def test_an_end_whose_lease_was_lost_keeps_its_attempt_alone_and_holds_up_no_other(node: Open) -> None:
    store = await filled(node)
    records = [end("d00", fencing_token=7), *(end(one) for one in ids()[1:])]
    kept = await asyncio.gather(*map(store.record, records))
    assert kept == [False] + [True] * (COUNT - 1)
    row = await get(store, leased("d00"))
    assert (row.state, len(row.attempts)) == (State.PENDING, 1)
    assert await lines(store) == [f"audit-{one}" for one in ids()[1:]]


async def test_an_end_that_is_recorded_again_is_one_end(node: Open) -> None:
    store = await filled(node)
    given_up = asyncio.ensure_future(store.record(end("d00")))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await store.record(end("d00"))
    assert await asyncio.gather(*(store.record(end(one)) for one in ids())) == [True] * COUNT
    assert [len((await get(store, leased(one))).attempts) for one in ids()] == [1] * COUNT
    assert await lines(store) == [f"audit-{one}" for one in ids()]


async def test_where_one_of_them_cannot_be_written_the_others_are(node: Open) -> None:
    store = await filled(node)

    async def refused(*_: object) -> bool:
        raise OperationFailure("the document would be too large", 17419)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_TOGETHER, refused)
        assert await asyncio.gather(*(store.record(end(one)) for one in ids())) == [True] * COUNT
    assert await states(store) == [State.SENT] * COUNT


async def test_a_store_that_is_too_slow_for_so_many_is_asked_for_fewer_at_once(node: Open) -> None:
    store = await filled(node)
    sizes: list[int] = []

    async def slow(base: Base, records: Sequence[AttemptRecord]) -> bool:
        sizes.append(len(records))
        if len(records) > 6:
            raise ExecutionTimeout("operation exceeded time limit", 50)
        return await record_ends(base, records)

    async def recorded(delivery_id: str) -> bool:
        while True:
            try:
                return await store.record(end(delivery_id))
            except StoreError:
                await asyncio.sleep(0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_TOGETHER, slow)
        assert await asyncio.gather(*map(recorded, ids())) == [True] * COUNT
    assert sizes[0] == COUNT
    assert max(sizes[1:]) <= COUNT // 2
    assert await states(store) == [State.SENT] * COUNT
