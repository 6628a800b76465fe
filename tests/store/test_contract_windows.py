"""What any store does with deliveries that are held back: they wait in windows and leave together."""

from __future__ import annotations

import asyncio

from attrs import evolve

from notifyd.model import SECOND, Delivery, State
from notifyd.store import NO_MESSAGE, WINDOW_AHEAD, DeliveryFilter, Page, Store, Window
from tests.store.conftest import Reopen
from tests.store.makers import HOUR, MINUTE, NODE, NOW, TENANT, delivery, ended, get, insert, leased

CLOSES = NOW + MINUTE


def held(delivery_id: str, **changes: object) -> Delivery:
    """A delivery that opens the window "w", or joins it."""
    given = delivery(delivery_id, window="w", window_start=NOW, next_attempt_at=CLOSES)
    return evolve(given, **changes)  # type: ignore[arg-type]


def window(count: int, **changes: object) -> Window:
    given = Window(TENANT, "w", NOW, CLOSES, "slack", "slack", count)
    return evolve(given, **changes)  # type: ignore[arg-type]


async def claim_ids(store: Store, now: int) -> list[str]:
    return [d.id for d in await store.claim_due("slack", NODE, now, now + MINUTE, 10)]


async def ids_in(store: Store, given: Window, limit: int = 10) -> list[str]:
    return [d.id for d in await store.window_rows(given, limit)]


# --- holding back ------------------------------------------------------------------------------------------


async def test_no_claim_takes_a_held_row_even_when_its_window_has_closed(store: Store) -> None:
    await insert(store, held("d1"))
    assert await claim_ids(store, NOW) == []
    assert await claim_ids(store, CLOSES + HOUR) == []
    assert await store.claim_due("slack", NODE, NOW + 48 * HOUR, NOW + 49 * HOUR, 10, overdue_only=True) == []


async def test_a_row_joins_the_window_that_is_open_under_its_key(store: Store) -> None:
    await insert(store, held("d1"))
    later = {"created_at": NOW + SECOND, "window_start": NOW + SECOND, "next_attempt_at": CLOSES + SECOND}
    await insert(store, held("d2", **later))
    joined = await get(store, held("d2"))
    assert (joined.window_start, joined.next_attempt_at) == (NOW, CLOSES)


async def test_a_row_that_comes_after_the_close_opens_a_window_of_its_own(store: Store) -> None:
    await insert(store, held("d1"))
    after = held("d2", created_at=CLOSES, window_start=CLOSES, next_attempt_at=CLOSES + MINUTE)
    await insert(store, after)
    assert await get(store, after) == after
    assert await store.due_windows(CLOSES + MINUTE, 10) == [
        window(1),
        window(1, start=CLOSES, closes_at=CLOSES + MINUTE),
    ]


async def test_windows_of_another_key_or_tenant_are_other_windows(store: Store) -> None:
    await insert(store, held("d1"))
    other = {"window_start": NOW + 1, "next_attempt_at": CLOSES + 1}
    for given in (held("d2", window="other", **other), held("d3", tenant="globex", **other)):
        await insert(store, given)
        assert await get(store, given) == given


async def test_a_held_row_is_listed_as_pending(store: Store) -> None:
    await insert(store, held("d1"))
    found, _ = await store.deliveries(TENANT, DeliveryFilter(State.PENDING), Page())
    assert found == [held("d1", message=NO_MESSAGE)]


# --- closing -----------------------------------------------------------------------------------------------


async def test_windows_are_due_when_they_close_the_longest_due_first(store: Store) -> None:
    await insert(store, held("d1"), held("d2"), held("e1", window="v", next_attempt_at=CLOSES - 1))
    assert await store.due_windows(CLOSES - 2, 10) == []
    due = await store.due_windows(CLOSES, 10)
    assert due == [window(1, key="v", closes_at=CLOSES - 1), window(2)]
    assert await store.due_windows(CLOSES, 1) == due[:1]


async def test_a_window_opened_by_a_clock_that_was_set_back_since_is_due(store: Store) -> None:
    ahead = NOW + HOUR
    await insert(store, held("d1", created_at=ahead, window_start=ahead, next_attempt_at=ahead + MINUTE))
    await insert(store, held("d2", window="v", window_start=NOW + WINDOW_AHEAD, next_attempt_at=NOW + HOUR))
    assert await store.due_windows(NOW, 10) == [window(1, start=ahead, closes_at=ahead + MINUTE)]


async def test_windows_survive_a_restart(store: Store, reopen: Reopen) -> None:
    await insert(store, held("d1"))
    assert await (await reopen()).due_windows(CLOSES, 10) == [window(1)]


async def test_a_window_s_rows_are_answered_oldest_first_up_to_the_limit(store: Store) -> None:
    await insert(store, *(held(f"d{n}") for n in range(4)), delivery("free"), held("x", window="other"))
    assert await ids_in(store, window(4)) == ["d0", "d1", "d2", "d3"]
    assert await ids_in(store, window(4), limit=2) == ["d0", "d1"]


async def test_folding_inserts_the_digest_and_ends_the_rows_it_stands_for(store: Store) -> None:
    await insert(store, held("d1"), held("d2"))
    digest = delivery("digest", seq=0)
    assert await store.fold(window(2), digest, None) == 2
    assert await get(store, digest) == digest
    folded = await get(store, held("d1"))
    assert (folded.state, folded.folded_into) == (State.FOLDED, "digest")
    assert await store.due_windows(CLOSES, 10) == []
    assert await claim_ids(store, CLOSES) == ["digest"]


async def test_folding_some_leaves_the_others_held(store: Store) -> None:
    await insert(store, held("d1"), held("d2"), held("d3"))
    assert await store.fold(window(3), delivery("digest"), {"d1", "d3", "unknown"}) == 2
    assert await ids_in(store, window(1)) == ["d2"]


async def test_folding_again_folds_what_is_left_into_the_same_digest(store: Store) -> None:
    await insert(store, held("d1"), held("d2"))
    digest = delivery("digest", seq=0)
    await store.fold(window(2), digest, {"d1"})
    assert await store.fold(window(2), evolve(digest, message="other"), None) == 1
    assert await store.fold(window(2), digest, None) == 0
    assert (await get(store, digest)).message == digest.message
    assert (await get(store, held("d2"))).folded_into == "digest"


async def test_rows_that_are_let_go_are_due_each_as_itself(store: Store) -> None:
    await insert(store, held("d1"), held("d2"))
    assert await store.let_go(window(1)) == 2
    assert await store.let_go(window(1)) == 0
    assert sorted(await claim_ids(store, CLOSES)) == ["d1", "d2"]
    assert await store.due_windows(CLOSES, 10) == []


async def test_a_postponed_window_closes_later_and_takes_what_comes_meanwhile(store: Store) -> None:
    await insert(store, held("d1"))
    await store.postpone(window(1), CLOSES + HOUR)
    await insert(store, held("d2", created_at=CLOSES, window_start=CLOSES, next_attempt_at=CLOSES + MINUTE))
    assert await store.due_windows(CLOSES + MINUTE, 10) == []
    assert await store.due_windows(CLOSES + HOUR, 10) == [window(2, closes_at=CLOSES + HOUR)]


async def test_of_rows_that_come_at_once_all_are_in_one_window(store: Store) -> None:
    rows = [held(f"d{n}", window_start=NOW + n, next_attempt_at=CLOSES + n) for n in range(10)]
    await asyncio.gather(*(insert(store, row) for row in rows))
    (one,) = await store.due_windows(CLOSES + HOUR, 10)
    assert one.count == 10


# --- budgets -----------------------------------------------------------------------------------------------


async def test_what_spent_from_a_budget_is_counted_newest_first(store: Store) -> None:
    await insert(
        store,
        *(delivery(f"d{n}", budget="b", created_at=NOW + n) for n in range(4)),
        delivery("other", budget="c", created_at=NOW + 2),
        delivery("theirs", tenant="globex", budget="b", created_at=NOW + 2),
        delivery("none", created_at=NOW + 2),
    )
    assert await store.spent(TENANT, "b", NOW, 10) == [NOW + 3, NOW + 2, NOW + 1]
    assert await store.spent(TENANT, "b", NOW, 2) == [NOW + 3, NOW + 2]


async def test_what_was_let_go_has_spent_when_it_was_let_go_also_after_a_restart(
    store: Store, reopen: Reopen
) -> None:
    """The store's clock says `NOW`."""
    began = {"created_at": NOW - 2 * HOUR, "window_start": NOW - 2 * HOUR, "next_attempt_at": NOW - HOUR}
    await insert(store, held("lone", budget="b", **began))
    await insert(store, delivery("sent", budget="b", created_at=NOW - MINUTE))
    assert await store.spent(TENANT, "b", NOW - HOUR, 10) == [NOW - MINUTE]
    assert await store.let_go(window(1, start=NOW - 2 * HOUR, closes_at=NOW - HOUR)) == 1
    assert await store.spent(TENANT, "b", NOW - HOUR, 10) == [NOW, NOW - MINUTE]
    store = await reopen()
    assert await store.spent(TENANT, "b", NOW - HOUR, 10) == [NOW, NOW - MINUTE]
    assert (await get(store, held("lone"))).created_at == NOW


async def test_what_was_sent_has_spent_and_what_is_held_or_folded_has_not(store: Store) -> None:
    await insert(store, leased("sent", budget="b"), held("held", budget="b"), held("folded", budget="b"))
    await store.record(ended(leased("sent", budget="b")))
    await store.fold(window(2), delivery("digest"), {"folded"})
    assert await store.spent(TENANT, "b", NOW - 1, 10) == [NOW]
