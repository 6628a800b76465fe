"""What any store remembers of the keys that seal its rows, and which rows are under which."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from attrs import evolve

from notifyd.flow.reseal import Reseal, Resealed, key_uses
from notifyd.model import ApprovalKey, Message, State, Status
from notifyd.security import resume_token
from notifyd.security.envelope import unwrap, wrap
from notifyd.security.links import Link, Links
from notifyd.security.secrets import Keyring, Secret, sealed_under
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


async def test_two_reseals_at_once_move_all_that_opens_and_undo_nothing(store: Store) -> None:
    keyring = Keyring([b"2" * 32, b"1" * 32])
    registry: Any = SimpleNamespace(keyring=keyring, links=Links(keyring, "https://notify.acme.example"))
    given = [approval(run_id=f"r{n}", sealed_token=resume_token.keep(OLD, Secret(f"t{n}"))) for n in range(3)]
    for one in given:
        await open_approval(store, one)
    link = Link(TENANT, "r1", "deploy", 1, "", "alice@acme.example", "approvals", 1)
    url = registry.links.url(Links(OLD, "").seal(link))
    message = wrap(Message("d1", "title", url, html=f"<a href='{url}'>"), OLD, sealed=True)
    lost = Keyring([b"3" * 32]).seal("message", b"{}")
    to_alice = {"recipient": "alice@acme.example", "sealed": True}
    await insert(store, delivery("d1", message=message, **to_alice))
    await insert(store, delivery("d2", message=lost, **to_alice))

    async def all_of_it() -> list[Resealed]:
        return [batch async for batch in Reseal(store=store, current=lambda: registry).batches()]

    decided = evolve(given[0], version=2, status=Status.APPROVED, ended_at=1)
    first, second, won = await asyncio.gather(all_of_it(), all_of_it(), store.replace_approval(decided))
    assert [batch.unreadable for batch in (*first, *second)] == [0, 1, 0, 1]
    assert sum(batch.moved for batch in (*first, *second)) >= 4
    for number, one in enumerate(given):
        found = await store.approval(one.key)
        assert found is not None
        assert sealed_under(found.sealed_token or "") == keyring.sealing_id
        assert resume_token.reveal(NEW, found.sealed_token or "") == Secret(f"t{number}")
        assert found.status is (Status.APPROVED if number == 0 and won else Status.PENDING)
    row = await store.delivery(TENANT, "d1")
    assert row is not None
    moved = unwrap(row.message, NEW, sealed=True)
    assert Links(NEW, "").read(moved.body.rpartition("/")[2]) == link
    assert moved.html == f"<a href='{moved.body}'>"
    assert await store.delivery(TENANT, "d2") == delivery("d2", message=lost, **to_alice)
    assert (await key_uses(store)).keys() == {keyring.sealing_id, sealed_under(lost)}
