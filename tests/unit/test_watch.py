"""Who waits on one node is woken by what another writes, and the store is asked for all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, cast

import pytest

from notifyd.errors import TooManyWaitingError
from notifyd.flow.watch import MAX_WAITING, Watches
from notifyd.model import ApprovalKey
from notifyd.store import Store

KEY = ApprovalKey("acme", "run-1", "deploy")
OTHER = ApprovalKey("acme", "run-2", "deploy")


class Versions:
    """A store that only knows versions, and what it was asked for."""

    def __init__(self) -> None:
        self.stored: dict[ApprovalKey, int] = {KEY: 1, OTHER: 1}
        self.asked: list[set[ApprovalKey]] = []

    async def approval_versions(self, keys: Collection[ApprovalKey]) -> dict[ApprovalKey, int]:
        self.asked.append(set(keys))
        return {key: self.stored[key] for key in keys if key in self.stored}


def store(versions: Versions) -> Store:
    return cast(Store, versions)


async def test_one_look_asks_for_all_that_is_waited_for_and_wakes_who_waits_for_what_changed() -> None:
    versions, watches = Versions(), Watches(nodes=lambda: 2)
    with watches.place(KEY, "a") as one, watches.place(KEY, "b") as same, watches.place(OTHER, "a") as other:
        await watches.look(store(versions))  # seen for the first time: any of them may have changed
        assert [await place.woken(0) for place in (one, same, other)] == [True, True, True]
        versions.stored[KEY] = 2
        assert await watches.look(store(versions)) == 1
        assert [await place.woken(0) for place in (one, same, other)] == [True, True, False]
    assert versions.asked == [{KEY, OTHER}, {KEY, OTHER}]


@pytest.mark.parametrize("nodes", [1, 2])
async def test_nobody_looks_where_there_is_one_node_or_nobody_waits(nodes: int) -> None:
    versions, watches = Versions(), Watches(nodes=lambda: nodes)
    await watches.look(store(versions))
    if nodes == 1:
        with watches.place(KEY, "a"):
            await watches.look(store(versions))
    assert versions.asked == []


async def test_a_change_between_two_waits_on_a_place_is_kept() -> None:
    watches = Watches(nodes=lambda: 1)
    with watches.place(KEY, "a") as place:
        watches.note(KEY)
        assert await place.woken(30)
        task = asyncio.create_task(place.woken(30))
        await asyncio.sleep(0)
        watches.note(OTHER)
        watches.note(KEY)
        assert await task


async def test_places_are_counted_by_client_and_given_back() -> None:
    watches = Watches(nodes=lambda: 1)
    taken: list[Any] = [watches.place(KEY, "a") for _ in range(MAX_WAITING)]
    for place in taken:
        place.__enter__()
    with pytest.raises(TooManyWaitingError), watches.place(OTHER, "a"):
        pass
    with watches.place(OTHER, "b"):
        assert len(watches) == MAX_WAITING + 1
    for place in taken:
        place.__exit__(None, None, None)
    with watches.place(OTHER, "a"):
        assert len(watches) == 1
