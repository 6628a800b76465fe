"""The deputies whom people have named, as every store keeps them."""

from __future__ import annotations

from attrs import evolve

from notifyd.model import AuditName, AuditRecord, Instant, OwnDeputy
from notifyd.store import AuditFilter, Page, Store
from tests.store.conftest import Reopen
from tests.store.makers import HOUR, NOW, TENANT, own_deputy


def line(name: AuditName, id_: str, at: Instant = NOW) -> AuditRecord:
    return AuditRecord(f"{name}-{id_}", TENANT, name, at, "alice@acme.example", "corr")


async def add(store: Store, given: OwnDeputy) -> None:
    await store.add_deputy(given, line(AuditName.DEPUTY_SET, given.id))


async def end(store: Store, id_: str, at: Instant, tenant: str = TENANT) -> None:
    await store.end_deputy(tenant, id_, at, line(AuditName.DEPUTY_ENDED, id_, at))


async def names(store: Store) -> list[AuditName]:
    lines, _ = await store.audit(TENANT, AuditFilter(), Page())
    return [one.name for one in lines]


async def test_a_deputy_is_kept_once_with_its_line_of_the_audit_trail(store: Store, reopen: Reopen) -> None:
    for _ in range(2):
        await add(store, own_deputy())
        await add(store, own_deputy("p2", proved=False))
    again = await reopen()
    assert await again.live_deputies(NOW) == [own_deputy(), own_deputy("p2", proved=False)]
    assert await names(again) == [AuditName.DEPUTY_SET] * 2


async def test_a_deputy_ends_once_in_its_tenant_and_is_told_of_until_it_would_have_been_over(
    store: Store,
) -> None:
    await add(store, own_deputy())
    await add(store, own_deputy(tenant="globex"))
    await end(store, "p1", NOW + 5)
    await end(store, "p1", NOW + 9)
    assert await store.live_deputies(NOW + HOUR - 1) == [
        evolve(own_deputy(), ended_at=NOW + 5),
        own_deputy(tenant="globex"),
    ]
    assert await store.live_deputies(NOW + HOUR) == []
    assert await names(store) == [AuditName.DEPUTY_ENDED, AuditName.DEPUTY_SET]


async def test_one_that_is_over_does_not_end_and_is_forgotten_when_it_is_old_enough(store: Store) -> None:
    await add(store, own_deputy())
    await add(store, own_deputy("p2", over_at=NOW + 2 * HOUR))
    await end(store, "p1", NOW + HOUR)
    assert await names(store) == [AuditName.DEPUTY_SET] * 2
    assert await store.forget_deputies(NOW + HOUR) == 0
    assert await store.forget_deputies(NOW + HOUR + 1) == 1
    assert [one.id for one in await store.live_deputies(0)] == ["p2"]
