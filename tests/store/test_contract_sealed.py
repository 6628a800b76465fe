"""What any store remembers of the keys that seal its rows, and which rows are under which."""

from __future__ import annotations

from attrs import evolve

from notifyd.model import ApprovalKey, State, Status
from notifyd.security.secrets import Keyring
from notifyd.store import CollectionName, SealedRow, SealKeys, Store
from tests.store.conftest import Reopen
from tests.store.makers import TENANT, approval, delivery, effect, ended, insert, leased, open_approval

OLD, NEW = Keyring([b"1" * 32]), Keyring([b"2" * 32])
APPROVALS, DELIVERIES = CollectionName.APPROVALS, CollectionName.DELIVERIES


def sealed(keyring: Keyring) -> str:
    return keyring.seal("test", b"a text")


def header(keyring: Keyring) -> str:
    return sealed(keyring).partition(".")[0]


async def all_of(store: Store, collection: CollectionName, limit: int) -> list[SealedRow]:
    found: list[SealedRow] = []
    after: str | None = ""
    while after is not None:
        rows, after = await store.sealed_rows(collection, after, limit)
        assert len(rows) <= limit
        found += rows
    return found


async def test_keys_that_were_never_noted_are_unknown_and_not_none(store: Store, reopen: Reopen) -> None:
    assert await store.seal_keys() == SealKeys(None, {})
    await store.note_seal_keys(SealKeys(frozenset()))
    assert await (await reopen()).seal_keys() == SealKeys(frozenset(), {})


async def test_the_keys_noted_last_are_remembered_and_no_others(store: Store, reopen: Reopen) -> None:
    await store.note_seal_keys(SealKeys(frozenset({"aa", "bb"}), {"aa": "x", "bb": "y"}))
    last = SealKeys(frozenset({"bb", "cc"}), {"aa": "z"})
    await store.note_seal_keys(last)
    assert await (await reopen()).seal_keys() == last


async def test_every_sealed_row_is_found_with_its_key_and_whether_it_needs_it(store: Store) -> None:
    ended_one = {"status": Status.APPROVED, "ended_at": 1}
    for number, (keyring, changes) in enumerate(
        [
            (OLD, {}),
            (OLD, {**ended_one, "effects": (effect("x1"),)}),
            (OLD, {**ended_one, "effects": (evolve(effect("x2"), dead_at=1),)}),
            (OLD, ended_one),
            (NEW, {}),
        ]
    ):
        await open_approval(store, approval(run_id=f"r{number}", sealed_token=sealed(keyring), **changes))
    await open_approval(store, approval(run_id="none", sealed_token=None))
    old = {"message": sealed(OLD), "sealed": True}
    await insert(
        store, leased("sent", **old), leased("dead", **old), delivery("open", **old), delivery("clear")
    )
    await store.record(ended(leased("sent", **old)))
    await store.record(ended(leased("dead", **old), State.DEAD))
    for limit in (1, 2, 100):
        rows = await all_of(store, APPROVALS, limit)
        assert [(row.ids[0], row.header, row.needed) for row in rows] == [
            ("r0", header(OLD), True),
            ("r1", header(OLD), True),
            ("r2", header(OLD), True),
            ("r3", header(OLD), False),
            ("r4", header(NEW), True),
        ]
        assert await store.approval(ApprovalKey(rows[0].tenant, *rows[0].ids)) is not None
        assert sorted(await all_of(store, DELIVERIES, limit), key=lambda row: row.ids) == [
            SealedRow(TENANT, ("dead",), header(OLD), True),
            SealedRow(TENANT, ("open",), header(OLD), True),
            SealedRow(TENANT, ("sent",), header(OLD), False),
        ]


async def test_a_message_is_replaced_only_where_it_is_still_the_one_that_was_read(store: Store) -> None:
    row = delivery(message=sealed(OLD), sealed=True)
    await insert(store, row)
    fresh, late = sealed(NEW), sealed(NEW)
    assert await store.replace_message(row, fresh)
    assert not await store.replace_message(row, late)
    assert not await store.replace_message(evolve(row, tenant="globex"), late)
    assert not await store.replace_message(evolve(row, id="none"), late)
    assert await store.delivery(row.tenant, row.id) == evolve(row, message=fresh)
