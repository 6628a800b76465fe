"""What any store does with the decisions of earlier rounds: they stand beside their approval, and go with it."""

from __future__ import annotations

from attrs import evolve

from notifyd.model import Approval, ApprovalKey, Decision, Outcome, Status
from notifyd.store import Advance, Aged, Append, CollectionName, Store
from tests.store.makers import HOUR, NOW, approval, decision, event, find_approval, open_approval

ALICE, BOB = "alice@acme.example", "bob@acme.example"
APPROVALS = CollectionName.APPROVALS


async def next_round(store: Store, stored: Approval) -> Approval:
    """Another round of `stored`, for a plan of its own; what was decided so far is superseded."""
    number = stored.round + 1
    after = evolve(
        stored, version=stored.version + 1, round=number, plan_hash=f"sha256:{number:02}", decisions=()
    )
    advance = Advance(after, Outcome.NEW_ROUND, True, after.version, after.round, superseded=stored.decisions)
    key = f"round-{stored.run_id}-{number}"
    await store.append(Append(event(key, run_id=stored.run_id), stored.key, lambda _: advance))
    return after


async def voted(store: Store, stored: Approval, *actors: str) -> Approval:
    made = tuple(decision(a, round=stored.round, plan_hash=stored.plan_hash) for a in actors)
    after = evolve(stored, version=stored.version + 1, decisions=(*stored.decisions, *made))
    assert await store.replace_approval(after)
    return after


async def three_rounds(store: Store, run_id: str = "run-1") -> tuple[Approval, list[Decision]]:
    """An approval in its third round, and all that was decided before it."""
    first = await voted(store, await open_approval(store, approval(run_id=run_id)), ALICE, BOB)
    second = await voted(store, await next_round(store, first), ALICE)
    third = await voted(store, await next_round(store, second), BOB)
    return third, [*first.decisions, *second.decisions]


async def test_an_approval_has_the_decisions_of_its_round_and_beside_it_those_of_earlier_ones(
    store: Store,
) -> None:
    third, earlier = await three_rounds(store)
    assert await find_approval(store) == third
    assert [one.round for one in third.decisions] == [3]
    assert await store.superseded(third.key, 10) == earlier
    assert await store.superseded(third.key, 2) == earlier[1:], "the newest, in order"


async def test_what_a_person_decided_on_a_plan_is_found_and_nothing_of_others(store: Store) -> None:
    third, earlier = await three_rounds(store)
    await three_rounds(store, "run-2")
    assert await store.superseded_by(third.key, ALICE, "sha256:00") == earlier[:1]
    assert await store.superseded_by(third.key, ALICE, "sha256:02") == earlier[2:]
    assert await store.superseded_by(third.key, BOB, "sha256:02") == []
    assert await store.superseded_by(third.key, BOB, "sha256:03") == [], "that is of the present round"
    other = ApprovalKey("globex", third.run_id, third.approval_id)
    assert await store.superseded(other, 10) == await store.superseded_by(other, ALICE, "sha256:00") == []


async def test_a_round_that_nobody_voted_in_leaves_nothing(store: Store) -> None:
    second = await next_round(store, await open_approval(store, approval()))
    assert await store.superseded(second.key, 10) == []


async def test_an_export_has_the_decisions_of_all_rounds_and_an_import_parts_them_again(store: Store) -> None:
    third, earlier = await three_rounds(store)
    (row,), _ = await store.dump(APPROVALS, "", 10)
    assert row == evolve(third, decisions=(*earlier, *third.decisions))
    assert isinstance(row, Approval)
    moved = evolve(row, run_id="moved")
    assert [await store.restore([moved]), await store.restore([moved])] == [1, 0]
    assert await find_approval(store, moved.key) == evolve(third, run_id="moved")
    assert await store.superseded(moved.key, 10) == earlier
    assert await store.superseded_by(moved.key, ALICE, "sha256:02") == earlier[2:]


async def test_they_go_with_their_approval_and_no_other_s_do(store: Store) -> None:
    third, earlier = await three_rounds(store)
    kept, _ = await three_rounds(store, "run-2")
    over = evolve(third, version=third.version + 1, status=Status.APPROVED, ended_at=NOW)
    assert await store.replace_approval(over)
    assert (await store.purge(Aged(APPROVALS, NOW), 10)).removed == 0
    assert await store.superseded(third.key, 10) == earlier
    assert (await store.purge(Aged(APPROVALS, NOW + HOUR), 10)).removed == 1
    assert await store.superseded(third.key, 10) == []
    assert [one.round for one in await store.superseded(kept.key, 10)] == [1, 1, 2]
    await store.restore([approval()])
    assert await store.superseded(third.key, 10) == [], "nor has one that comes later under its key"
