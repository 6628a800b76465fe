"""Silences, as every store keeps them."""

from __future__ import annotations

from typing import Any

from notifyd.model import SILENCED, AuditName, AuditRecord, Instant, Silence
from notifyd.store import AuditFilter, Page, Store
from tests.store.conftest import Reopen
from tests.store.makers import HOUR, NOW, TENANT, delivery, insert, silence

FIRST, LAST = f"{SILENCED}s1:", f"{SILENCED}s1;"


def line(name: AuditName, id_: str, at: Instant = NOW) -> AuditRecord:
    return AuditRecord(f"{name}-{id_}", TENANT, name, at, "alice@acme.example", "corr")


async def add(store: Store, given: Silence, forget: Instant = 0) -> None:
    await store.add_silence(given, line(AuditName.SILENCE_ADDED, given.id), forget)


async def names(store: Store) -> list[AuditName]:
    lines, _ = await store.audit(TENANT, AuditFilter(), Page())
    return [one.name for one in lines]


async def test_a_silence_is_kept_once_with_its_line_of_the_audit_trail(store: Store, reopen: Reopen) -> None:
    await add(store, silence())
    await add(store, silence())
    again = await reopen()
    assert await again.silences(TENANT, Page()) == ([silence()], None)
    assert await names(again) == [AuditName.SILENCE_ADDED]


async def test_silences_are_listed_newest_first_in_pages_of_their_tenant(store: Store) -> None:
    for number in range(3):
        await add(store, silence(f"s{number}"))
    await add(store, silence("s9", tenant="globex"))
    first, after = await store.silences(TENANT, Page(2))
    rest, end = await store.silences(TENANT, Page(2, after))
    assert [one.id for one in (*first, *rest)] == ["s2", "s1", "s0"]
    assert end is None


async def test_a_silence_ends_once_and_is_live_until_it_was_to_end(store: Store) -> None:
    await add(store, silence())
    await add(store, silence("s2", tenant="globex", ends_at=NOW + 2 * HOUR))
    ended = await store.end_silence(TENANT, "s1", NOW + 5, line(AuditName.SILENCE_ENDED, "s1", NOW + 5))
    assert ended == silence(ended_at=NOW + 5, ended_by="alice@acme.example")
    assert (
        await store.end_silence(TENANT, "s1", NOW + 9, line(AuditName.SILENCE_ENDED, "s1", NOW + 9)) == ended
    )
    assert await store.end_silence(TENANT, "s2", NOW, line(AuditName.SILENCE_ENDED, "s2")) is None
    added = AuditName.SILENCE_ADDED
    assert await names(store) == [AuditName.SILENCE_ENDED, added, added]
    assert [one.id for one in await store.live_silences(NOW + HOUR - 1)] == ["s1", "s2"]
    assert [one.id for one in await store.live_silences(NOW + HOUR)] == ["s2"]


async def test_one_that_is_over_is_not_ended_and_forgotten_when_it_is_old_enough(store: Store) -> None:
    await add(store, silence())
    over = await store.end_silence(TENANT, "s1", NOW + HOUR, line(AuditName.SILENCE_ENDED, "s1"))
    assert over == silence()
    await add(store, silence("s2", ends_at=NOW + 3 * HOUR), forget=NOW + HOUR)
    assert len((await store.silences(TENANT, Page()))[0]) == 2
    await add(store, silence("s3", ends_at=NOW + 3 * HOUR), forget=NOW + HOUR + 1)
    assert [one.id for one in (await store.silences(TENANT, Page()))[0]] == ["s3", "s2"]


async def test_the_windows_of_a_silence_close_earlier_and_no_others(store: Store) -> None:
    def held(id_: str, window: str, **changes: Any) -> Any:
        return delivery(id_, window=window, window_start=NOW, next_attempt_at=NOW + HOUR, **changes)

    await insert(
        store,
        held("d1", f"{FIRST}a"),
        held("d2", f"{FIRST}b"),
        held("d3", f"{SILENCED}s2:a"),
        held("d4", "f" * 64),
        held("d5", f"{FIRST}a", tenant="globex"),
    )
    assert await store.due_windows(NOW + 1, 9) == []
    for _ in range(2):
        await store.close_windows(TENANT, FIRST, LAST, NOW + 1)
    assert {one.key for one in await store.due_windows(NOW + 1, 9)} == {f"{FIRST}a", f"{FIRST}b"}
    await insert(store, held("d6", f"{FIRST}a", created_at=NOW + 2))
    assert {one.key for one in await store.due_windows(NOW + 1, 9)} == {f"{FIRST}a", f"{FIRST}b"}
    await store.close_windows(TENANT, FIRST, LAST, NOW + 3)
    assert sum(one.count for one in await store.due_windows(NOW + 3, 9)) == 3
