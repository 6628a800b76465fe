"""The chains over the audit trail, as any store keeps them."""

from __future__ import annotations

from notifyd.model import AuditSeal
from notifyd.store import Aged, CollectionName, Store
from tests.store.conftest import Open
from tests.store.makers import MINUTE, NOW, TENANT, audit_record


def seal(number: int, tenant: str = TENANT) -> AuditSeal:
    return AuditSeal(tenant, number, f'{{"number": {number}}}')


async def written(store: Store, *names: str, tenant: str = TENANT) -> list[str]:
    records = [audit_record(name, tenant=tenant, at=NOW - place) for place, name in enumerate(names)]
    await store.write_audit(records)
    return await unsealed(store, tenant)


async def unsealed(store: Store, tenant: str = TENANT, limit: int = 9) -> list[str]:
    return [one.id for one in await store.unsealed_audit(tenant, limit)]


async def test_what_is_unsealed_comes_in_the_order_in_which_it_was_stored_not_in_that_of_its_times(
    store: Store,
) -> None:
    assert await store.tenants_with_unsealed_audit() == []
    assert await written(store, "c", "a", "b") == ["c", "a", "b"]
    assert await written(store, "x", tenant="") == ["x"]
    assert await unsealed(store, limit=2) == ["c", "a"]
    assert sorted(await store.tenants_with_unsealed_audit()) == ["", TENANT]


async def test_a_seal_is_over_its_records_and_the_next_over_what_came_late(store: Store) -> None:
    await written(store, "a", "b")
    assert await store.add_audit_seal(seal(1), await store.unsealed_audit(TENANT, 9))
    assert await unsealed(store) == []
    await store.write_audit([audit_record("late", at=NOW - MINUTE)])
    assert await store.add_audit_seal(seal(2), await store.unsealed_audit(TENANT, 9))
    first, second = await store.next_audit_seal(TENANT, 0), await store.next_audit_seal(TENANT, 1)
    assert first is not None
    assert second is not None
    assert (first.seal, [one.id for one in first.records]) == (seal(1), ["a", "b"])
    assert (second.seal, [one.id for one in second.records]) == (seal(2), ["late"])
    assert await store.next_audit_seal(TENANT, 2) is None
    assert await store.newest_audit_seal(TENANT) == seal(2)


async def test_a_number_is_taken_once_in_each_chain_and_the_second_writes_nothing(store: Store) -> None:
    await written(store, "a")
    await written(store, "b", tenant="globex")
    mine, other = await store.unsealed_audit(TENANT, 9), await store.unsealed_audit("globex", 9)
    assert await store.add_audit_seal(seal(1), ())
    assert not await store.add_audit_seal(AuditSeal(TENANT, 1, "{}"), mine)
    assert await unsealed(store) == ["a"]
    assert await store.newest_audit_seal(TENANT) == seal(1)
    assert await store.add_audit_seal(seal(1, "globex"), other)


async def test_a_record_that_is_sealed_or_gone_is_sealed_by_nobody_else(store: Store) -> None:
    await written(store, "a", "b")
    both = await store.unsealed_audit(TENANT, 9)
    assert await store.add_audit_seal(seal(1), both[:1])
    assert not await store.add_audit_seal(seal(2), both)
    assert await unsealed(store) == ["b"]
    await store.purge(Aged(CollectionName.AUDIT, NOW + MINUTE), 9)
    assert not await store.add_audit_seal(seal(2), both[1:])
    assert await store.newest_audit_seal(TENANT) == seal(1)


async def test_records_whose_seal_is_not_there_are_strays(store: Store) -> None:
    await written(store, "a", "b")
    for number, record in enumerate(await store.unsealed_audit(TENANT, 9), start=1):
        assert await store.add_audit_seal(seal(number), [record])
    assert await store.stray_audit(TENANT, 9) == []
    await store.drop_audit_seals(TENANT, 2)
    assert [one.id for one in await store.stray_audit(TENANT, 9)] == ["a"]
    assert await store.add_audit_seal(seal(1, "globex"), ())
    await store.drop_audit_seals(TENANT, 3)
    assert [one.id for one in await store.stray_audit(TENANT, 9)] == ["a", "b"]
    assert await store.newest_audit_seal(TENANT) is None
    assert await store.newest_audit_seal("globex") == seal(1, "globex")


async def test_tenants_are_known_by_the_age_of_their_records(store: Store) -> None:
    await store.write_audit([audit_record("a", at=NOW), audit_record("b", at=NOW - MINUTE, tenant="")])
    assert await store.tenants_with_audit(NOW - MINUTE) == []
    assert await store.tenants_with_audit(NOW) == [""]
    assert sorted(await store.tenants_with_audit(NOW + 1)) == ["", TENANT]


async def test_of_two_nodes_that_seal_the_same_records_one_does(node: Open) -> None:
    one, other = await node("one"), await node("other")
    await one.write_audit([audit_record("a")])
    records = await other.unsealed_audit(TENANT, 9)
    assert await one.add_audit_seal(seal(1), records)
    assert not await other.add_audit_seal(seal(1), records)
    assert not await other.add_audit_seal(seal(2), records)
    assert await other.newest_audit_seal(TENANT) == seal(1)
