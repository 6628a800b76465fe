"""What any store remembers of the keys that seal its rows, and counts of them."""

from __future__ import annotations

from notifyd.model import State, Status
from notifyd.security.secrets import Keyring
from notifyd.store import CollectionName, SealedRows, Store
from tests.store.conftest import Reopen
from tests.store.makers import approval, delivery, effect, ended, insert, leased, open_approval

OLD, NEW = Keyring([b"1" * 32]), Keyring([b"2" * 32])


def sealed(keyring: Keyring) -> str:
    return keyring.seal("test", b"a text")


def header(keyring: Keyring) -> str:
    return sealed(keyring).partition(".")[0]


async def test_keys_that_were_never_noted_are_unknown_and_not_none(store: Store, reopen: Reopen) -> None:
    assert await store.known_seal_keys() is None
    await store.note_seal_keys([])
    assert await (await reopen()).known_seal_keys() == frozenset()


async def test_the_keys_noted_last_are_remembered_and_no_others(store: Store, reopen: Reopen) -> None:
    await store.note_seal_keys(["aa", "bb"])
    await store.note_seal_keys(["bb", "cc"])
    assert await (await reopen()).known_seal_keys() == frozenset({"bb", "cc"})


async def test_sealed_rows_are_counted_by_key_and_by_need(store: Store) -> None:
    ended_one = {"status": Status.APPROVED, "ended_at": 1}
    for number, (keyring, changes) in enumerate(
        [
            (OLD, {}),
            (OLD, {**ended_one, "effects": (effect("x1"),)}),
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
    rows = {
        (one.collection.value, "old" if one.header == header(OLD) else "new", one.needed): one.rows
        for one in await store.sealed_by_key()
    }
    assert rows == {
        ("approvals", "old", True): 2,
        ("approvals", "old", False): 1,
        ("approvals", "new", True): 1,
        ("deliveries", "old", True): 2,
        ("deliveries", "old", False): 1,
    }


async def test_a_header_names_its_key_and_an_empty_store_has_none(store: Store) -> None:
    assert await store.sealed_by_key() == []
    await insert(store, delivery(message=sealed(NEW), sealed=True))
    assert await store.sealed_by_key() == [SealedRows(CollectionName.DELIVERIES, header(NEW), True, 1)]
