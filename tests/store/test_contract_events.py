"""What any store does with events: accepting them once, and planning them once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from notifyd.errors import StoreError
from notifyd.model import SECOND, Approval, Event, IncidentKey, Outcome, Status
from notifyd.store import (
    Advance,
    Append,
    ApprovalFilter,
    AuditFilter,
    IncidentFilter,
    Page,
    Store,
    append_as_is,
)
from tests.store.conftest import Reopen
from tests.store.makers import (
    HOUR,
    MINUTE,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    delivery,
    ended,
    event,
    find_approval,
    get,
    incident,
    insert,
    leased,
    open_approval,
    open_incident,
    opening,
    planned,
)

LATER = NOW + HOUR


async def claim(store: Store, now: int = LATER, limit: int = 10) -> list[str]:
    return [e.key for e in await store.claim_unplanned(NODE, now, now + MINUTE, limit)]


# --- accepting ---------------------------------------------------------------------------------------------


async def test_an_event_is_stored_with_the_outcome_of_its_acceptance(store: Store) -> None:
    given = event()
    appended = await store.append(
        append_of(given, lambda _: Advance(approval(version=3, round=2), Outcome.NEW_ROUND, True, 3, 2))
    )
    assert appended.fresh
    assert appended.event == evolve(given, outcome=Outcome.NEW_ROUND, notify=True, version=3, round=2)
    again = await store.append(append_of(event(), opening(approval())))
    assert again.event == appended.event


async def test_a_key_that_is_stored_answers_the_first_event_and_changes_nothing(store: Store) -> None:
    await open_approval(store, approval())
    first = await store.append(append_of(event()))

    def never(_: Any) -> Advance:
        raise AssertionError("advanced by a duplicate")

    again = await store.append(append_of(event(body='{"other":true}'), never))
    assert not again.fresh
    assert again.event == first.event
    assert await find_approval(store) == approval()


def append_for(given: Event) -> Append:
    """One that is the same as another where their bodies are."""
    return append_as_is(given, same=lambda stored: stored.body == given.body)


async def test_several_events_are_accepted_in_one_step_and_known_when_they_come_again(store: Store) -> None:
    await store.append(append_of(event("e1")))
    batch = [event("e1"), event("e2"), event("e2", tenant="globex"), event("e2"), event("e3", notify=False)]
    for fresh in ([False, True, True, False, True], [False] * 5):
        appended = await store.append_all([append_for(one) for one in batch])
        assert [one.fresh for one in appended] == fresh
        assert [one.event for one in appended] == batch
    assert sorted(await claim(store)) == ["e1", "e2", "e2"]
    assert await store.append_all([]) == []


@pytest.mark.parametrize("first", [True, False])
async def test_of_several_events_none_is_accepted_where_one_is_known_as_another(
    store: Store, first: bool
) -> None:
    """Known from before, or earlier among them."""
    known, other = event("e2"), event("e2", body='{"other":true}')
    await store.append_all([append_for(known)] if first else [])
    before = await claim(store)
    batch = [event("e1"), *([] if first else [known]), other, event("e3")]
    appended = await store.append_all([append_for(one) for one in batch])
    assert not any(one.fresh for one in appended)
    assert [one.event for one in appended] == [known if one == other else one for one in batch]
    assert await claim(store, LATER + HOUR) == before
    assert await store.event(TENANT, "e1") is None


async def test_several_events_about_an_approval_are_each_accepted_after_the_one_before(store: Store) -> None:
    def next_round(stored: Approval | None) -> Advance:
        version = 1 if stored is None else stored.version + 1
        made = approval(version=version, round=version)
        return Advance(made, Outcome.NEW_ROUND, True, version, version, (audit_record(f"a{version}"),))

    batch = [append_of(event("e1"), next_round), append_of(event("e2"), next_round)]
    for fresh in (True, False):
        appended = await store.append_all(batch)
        assert [(one.fresh, one.event.version) for one in appended] == [(fresh, 1), (fresh, 2)]
    found = await find_approval(store)
    assert found is not None
    assert found.version == 2
    assert len((await store.audit(TENANT, AuditFilter(), Page()))[0]) == 2


async def test_batches_that_share_an_event_and_come_at_once_are_each_taken_whole(store: Store) -> None:
    shared = event("shared")
    batches = [[append_for(event(f"e{n}")), append_for(shared)] for n in range(4)]
    results = await asyncio.gather(*(store.append_all(batch) for batch in batches))
    assert all(first.fresh for first, _ in results)
    assert sum(second.fresh for _, second in results) == 1
    assert len(await claim(store)) == 5


async def test_the_same_key_of_another_tenant_is_another_event(store: Store) -> None:
    assert (await store.append(append_of(event()))).fresh
    assert (await store.append(append_of(event(tenant="globex")))).fresh


async def test_an_event_creates_its_approval_and_audit_in_the_same_step(store: Store) -> None:
    advance = Advance(approval(), Outcome.OPENED, True, 1, 1, (audit_record("a1"), audit_record("a2")))
    await store.append(append_of(event(), lambda _: advance))
    assert await find_approval(store) == approval()
    records, _ = await store.audit(TENANT, AuditFilter(), Page())
    assert [r.id for r in records] == ["a2", "a1"]


async def test_advance_sees_the_stored_approval_and_none_for_an_unknown_one(store: Store) -> None:
    seen: list[Any] = []

    def look(subject: Any) -> Advance:
        seen.append(subject)
        return Advance(None, Outcome.RECORDED, False)

    await store.append(append_of(event("e1"), look))
    await open_approval(store, approval())
    await store.append(append_of(event("e2"), look))
    assert seen == [None, approval()]
    assert await find_approval(store) == approval()


async def test_an_approval_takes_any_number_of_large_events_at_once(store: Store) -> None:
    """Together they are larger than a document of MongoDB may be."""
    await open_approval(store, approval())
    body = "x" * 256 * 1024
    appends = (store.append(append_of(event(f"e{n}", body=body), recording)) for n in range(70))
    assert all(one.fresh for one in await asyncio.gather(*appends))


def recording(stored: Approval) -> Advance:
    return Advance(None, Outcome.RECORDED, False, stored.version, stored.round)


async def test_an_event_that_moves_an_approval_replaces_it(store: Store) -> None:
    await open_approval(store, approval())
    moved = approval(version=2, status=Status.CANCELLED, ended_at=NOW, ended_by="ci")
    await store.append(append_of(event(), lambda _: Advance(moved, Outcome.ENDED, True, 2, 1)))
    assert await find_approval(store) == moved


async def test_an_event_is_stored_with_the_body_that_its_subject_gives_it(store: Store) -> None:
    await open_approval(store, approval())

    def over(stored: Approval) -> Advance:
        return Advance(None, Outcome.ENDED, True, 2, 1, body=stored.request)

    appended = await store.append(append_of(event(body='{"own":1}'), over))
    assert appended.event.body == approval().request
    assert (await store.event(TENANT, appended.event.key)) == appended.event
    again = await store.append(append_of(event(body='{"own":1}'), over))
    assert (again.event, again.fresh) == (appended.event, False)


async def test_a_hold_is_kept_apart_from_the_approval_and_seen_by_the_next_event(store: Store) -> None:
    await open_incident(store, incident())
    closed = incident(version=2, open=False, closed_at=NOW)
    seen: list[Any] = []

    def close(subject: Any) -> Advance:
        seen.append(subject)
        return Advance(closed, Outcome.ENDED, True, 2)

    key = IncidentKey(TENANT, "run-1", "deploy", "prod")
    await store.append(Append(event("e2"), key, close))
    await store.append(Append(event("e3"), key, close))
    assert seen == [incident(), closed]


async def test_incidents_are_listed_newest_first_by_state_and_by_run(store: Store) -> None:
    held = [incident(run_id=f"run-{number}", open=number != 1) for number in range(4)]
    for number, one in enumerate(held):
        await open_incident(store, one, f"hold-{number}")
    await open_incident(store, incident(tenant="globex"), "elsewhere")

    async def listed(**where: Any) -> list[str]:
        runs, after = list[str](), None
        while True:
            page, after = await store.incidents(TENANT, IncidentFilter(**where), Page(2, after))
            runs += [one.run_id for one in page]
            if after is None:
                return runs

    assert await listed() == ["run-3", "run-2", "run-1", "run-0"]
    assert await listed(open=True) == ["run-3", "run-2", "run-0"]
    assert await listed(open=False) == ["run-1"]
    assert await listed(run_id="run-2") == ["run-2"]
    assert await listed(run_id="run-2", open=False) == []
    assert await store.approval(approval().key) is None


async def test_an_advance_that_raises_fails_its_own_caller_and_stores_nothing(store: Store) -> None:
    def broken(_: Any) -> Advance:
        raise LookupError("no such round")

    good = [store.append(append_of(event(f"good-{n}"))) for n in range(5)]
    bad = store.append(append_of(event("bad"), broken))
    *appended, fault = await asyncio.gather(*good, bad, return_exceptions=True)
    assert isinstance(fault, LookupError)
    assert all(not isinstance(a, BaseException) and a.fresh for a in appended)
    assert (await store.append(append_of(event("bad")))).fresh


async def test_of_many_that_append_one_key_at_once_exactly_one_is_fresh(store: Store) -> None:
    appended = await asyncio.gather(*(store.append(append_of(event(body=f'{{"n":{n}}}'))) for n in range(20)))
    assert [a.fresh for a in appended].count(True) == 1
    assert len({a.event.body for a in appended}) == 1


async def test_what_was_accepted_is_there_after_a_restart(store: Store, reopen: Reopen) -> None:
    await open_approval(store, approval())
    again = await reopen()
    assert await find_approval(again) == approval()
    assert [a.run_id for a in (await again.approvals(TENANT, ApprovalFilter(), Page()))[0]] == ["run-1"]


# --- planning ----------------------------------------------------------------------------------------------


async def test_an_accepted_event_is_leased_to_the_node_that_accepted_it(store: Store) -> None:
    await store.append(append_of(event()))
    assert await claim(store, NOW + 1) == []
    assert await claim(store, NOW + 61 * 1_000_000) == ["e1"]


async def test_planning_is_left_to_a_node_for_as_long_as_it_was_leased(store: Store) -> None:
    await store.append(evolve(append_of(event()), lease=7 * SECOND))
    assert await claim(store, NOW + 7 * SECOND - 1) == []
    assert await claim(store, NOW + 7 * SECOND) == ["e1"]


async def test_planning_the_event_of_an_end_is_left_to_a_node_for_as_long_as_the_delivery_was(
    store: Store,
) -> None:
    row = leased(lease_until=NOW + 7 * SECOND)
    await insert(store, row)
    assert await store.record(ended(row, event=event("resumed")))
    assert await claim(store, NOW + 7 * SECOND - 1) == []
    assert await claim(store, NOW + 7 * SECOND) == ["resumed"]


async def test_an_event_that_sets_nothing_off_is_never_planned(store: Store, reopen: Reopen) -> None:
    await store.append(append_of(event(notify=False)))
    assert await claim(store) == []
    assert await claim(await reopen()) == []


async def test_unplanned_events_are_claimed_oldest_first_up_to_the_limit(store: Store) -> None:
    for number in range(5):
        await store.append(append_of(event(f"e{number}")))
    assert await claim(store, limit=3) == ["e0", "e1", "e2"]
    assert await claim(store, limit=3) == ["e3", "e4"]


async def test_no_more_events_are_claimed_than_have_so_many_bytes_but_for_the_first(store: Store) -> None:
    for number, length in enumerate((1000, 1000, 10, 1000)):
        given = event(f"e{number}", body=f'{{"x":"{"x" * (length - 8)}"}}')
        await store.append(append_of(given))
    for size, keys in ((2009, ["e0", "e1"]), (0, ["e2"]), (0, ["e3"]), (0, [])):
        claimed = await store.claim_unplanned(NODE, LATER, LATER + HOUR, 10, size=size)
        assert [one.key for one in claimed] == keys


async def test_a_claimed_event_is_free_again_when_its_lease_is_over(store: Store) -> None:
    await store.append(append_of(event()))
    assert await claim(store) == ["e1"]
    assert await claim(store, LATER + MINUTE - 1) == []
    assert await claim(store, LATER + MINUTE) == ["e1"]


async def test_of_many_that_claim_at_once_each_event_goes_to_one(store: Store) -> None:
    for number in range(10):
        await store.append(append_of(event(f"e{number}")))
    claimed = await asyncio.gather(*(claim(store, limit=4) for _ in range(8)))
    keys = [key for batch in claimed for key in batch]
    assert len(keys) == len(set(keys)) <= 10


async def test_plan_leases_are_void_after_a_restart(store: Store, reopen: Reopen) -> None:
    await store.append(append_of(event()))
    assert await claim(await reopen(), NOW + 1) == ["e1"]


async def test_a_plan_lease_stamped_by_a_clock_gone_wrong_is_void(store: Store) -> None:
    await store.append(append_of(event(received_at=NOW + 365 * 24 * HOUR)))
    assert await claim(store, NOW) == ["e1"]


async def test_fixing_a_plan_inserts_its_deliveries_and_ends_the_planning(store: Store) -> None:
    await store.append(append_of(event()))
    given = planned(event(), delivery("d1"), delivery("d2", channel="mail", lane="mail"))
    (fixed,) = await store.fix_plans([given])
    assert fixed.won
    assert fixed.plan == given.plan
    assert fixed.inserted == {"d1", "d2"}
    assert await get(store, delivery("d1")) == delivery("d1")
    assert await claim(store) == []
    assert (await store.append(append_of(event()))).event.plan == given.plan


async def test_an_event_and_its_plan_are_one_write_or_the_event_is_left_to_plan(store: Store) -> None:
    given = planned(event(), delivery("d1"))
    appended, fixed = await store.append_planned(append_of(event()), given)
    assert appended.fresh
    if fixed is None:  # MongoDB would take a second write
        assert await claim(store) == ["e1"]
        return
    assert fixed.won
    assert fixed.inserted == {"d1"}
    assert await get(store, delivery("d1")) == delivery("d1")
    assert await claim(store) == []
    assert (await store.append(append_of(event()))).event.plan == given.plan


async def test_an_event_that_is_stored_already_gets_no_plan_with_its_repetition(store: Store) -> None:
    await store.append(append_of(event()))
    appended, fixed = await store.append_planned(
        append_of(event(body='{"other":1}')), planned(event(), delivery("d1"))
    )
    assert (appended, fixed) == (await store.append(append_of(event())), None)
    assert await claim(store) == ["e1"]
    assert await store.delivery(TENANT, "d1") is None


async def test_the_first_plan_stays_and_a_later_planner_is_told_it(store: Store) -> None:
    await store.append(append_of(event()))
    first = planned(event(), delivery("d1"))
    await store.fix_plans([first])
    (second,) = await store.fix_plans([planned(event(), delivery("d2"))])
    assert not second.won
    assert second.plan == first.plan
    assert second.inserted == frozenset()
    assert await store.delivery(TENANT, "d2") is None


async def test_an_event_is_found_by_its_key_with_its_plan(store: Store, reopen: Reopen) -> None:
    accepted = (await store.append(append_of(event()))).event
    assert await store.event(TENANT, "e1") == accepted
    plan = planned(event(), delivery())
    await store.fix_plans([plan])
    assert await store.event(TENANT, "e1") == evolve(accepted, plan=plan.plan)
    assert await (await reopen()).event(TENANT, "e1") == evolve(accepted, plan=plan.plan)


async def test_an_event_of_another_tenant_or_key_is_not_found(store: Store) -> None:
    await store.append(append_of(event()))
    for tenant, key in (("globex", "e1"), (TENANT, "e2")):
        assert await store.event(tenant, key) is None


async def test_an_empty_plan_is_a_plan(store: Store) -> None:
    await store.append(append_of(event()))
    assert (await store.fix_plans([planned(event())]))[0].won
    assert await claim(store) == []
    assert (await store.append(append_of(event()))).event.plan == ()


async def test_plans_of_many_events_are_fixed_in_their_order(store: Store) -> None:
    events = [event(f"e{number}") for number in range(100)]
    await asyncio.gather(*(store.append(append_of(e)) for e in events))
    fixed = await store.fix_plans([planned(e, delivery(f"d-{e.key}")) for e in events])
    assert [f.inserted for f in fixed] == [{f"d-{e.key}"} for e in events]


async def test_inserting_deliveries_twice_leaves_one_of_each(store: Store) -> None:
    assert await store.insert_deliveries(None, [delivery("d1")]) == {"d1"}
    changed = delivery("d1", message="other")
    assert await store.insert_deliveries(None, [changed, delivery("d2")]) == {"d2"}
    assert await get(store, delivery("d1")) == delivery("d1")


async def test_inserting_the_deliveries_of_an_event_ends_its_planning(store: Store) -> None:
    await store.append(append_of(event()))
    await store.insert_deliveries(event(), [delivery()])
    assert await claim(store) == []


async def test_a_closed_store_says_so_and_closes_twice(store: Store) -> None:
    await store.append(append_of(event()))
    await asyncio.gather(store.aclose(), store.aclose())
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await store.append(append_of(event("e2")))
    with pytest.raises(StoreError, match="closed"):
        await store.approval(approval().key)


async def test_closing_finishes_what_was_handed_in(store: Store, reopen: Reopen) -> None:
    appends = [asyncio.ensure_future(store.append(append_of(event(f"e{n}")))) for n in range(50)]
    await asyncio.sleep(0)
    await store.aclose()
    assert all(a.fresh for a in await asyncio.gather(*appends))
    assert not (await (await reopen()).append(append_of(event("e49")))).fresh


async def test_a_probe_answers_once_something_is_durable(store: Store) -> None:
    await store.probe()
