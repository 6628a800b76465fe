"""What an event did when it was accepted, it did once: repeating it changes nothing, whatever is new since."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from notifyd.model import Approval, Event, Outcome
from notifyd.store import Advance, Append, AuditFilter, Page, Planned, Store
from tests.store.makers import (
    HOUR,
    MINUTE,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    event,
    find_approval,
    open_approval,
)

LATER = NOW + HOUR


def overtaking(given: Event) -> Append:
    """Opens a round where the approval is in a later one than the first; in the first it is only recorded."""

    def advance(stored: Approval) -> Advance:
        audit = (audit_record(f"audit-{given.key}", data={"round": stored.round}),)
        if stored.round == 1:
            return Advance(None, Outcome.RECORDED, False, stored.version, stored.round, audit)
        moved = evolve(stored, version=stored.version + 1, round=stored.round + 1)
        return Advance(moved, Outcome.NEW_ROUND, True, moved.version, moved.round, audit)

    return append_of(given, advance)


async def next_round(store: Store) -> Approval:
    """Another event opens the second round."""
    moved = approval(version=2, round=2)
    await store.append(append_of(event("c"), lambda _: Advance(moved, Outcome.NEW_ROUND, True, 2, 2)))
    return moved


async def plan_all(store: Store, now: int = LATER) -> list[str]:
    """What a sweep of the planner claims, planned."""
    claimed = await store.claim_unplanned(NODE, now, now + MINUTE, 100)
    await store.fix_plans([Planned(one, (), ()) for one in claimed])
    return sorted(one.key for one in claimed)


async def written(store: Store) -> Any:
    return [(line.id, line.data) for line in (await store.audit(TENANT, AuditFilter(), Page()))[0]]


async def test_an_event_that_was_recorded_is_not_acted_on_when_it_comes_again(store: Store) -> None:
    await open_approval(store, approval())
    first = await store.append(overtaking(event("b")))
    assert (first.fresh, first.event.outcome) == (True, Outcome.RECORDED)
    moved = await next_round(store)
    again = await store.append(overtaking(event("b")))
    assert (again.fresh, again.event) == (False, first.event)
    assert await find_approval(store) == moved
    assert await written(store) == [("audit-b", {"round": 1})]


async def test_an_event_that_was_recorded_is_not_acted_on_by_a_sweep(store: Store) -> None:
    await open_approval(store, approval())
    first = await store.append(overtaking(event("b")))
    moved = await next_round(store)
    assert await plan_all(store) == ["c", "open-acme-run-1-deploy"]
    assert await plan_all(store, LATER + HOUR) == []
    assert (await store.append(overtaking(event("b")))).event == first.event
    assert await find_approval(store) == moved
    assert await written(store) == [("audit-b", {"round": 1})]


async def test_an_event_that_acted_does_not_act_again_on_what_another_made_of_it(store: Store) -> None:
    await open_approval(store, approval(round=2))
    first = await store.append(overtaking(event("b")))
    assert (first.event.outcome, first.event.round) == (Outcome.NEW_ROUND, 3)
    assert await store.replace_approval(approval(version=3, round=4))
    assert (await store.append(overtaking(event("b")))).event == first.event
    await plan_all(store)
    assert await find_approval(store) == approval(version=3, round=4)


async def test_an_event_is_known_when_it_comes_again_though_its_approval_is_not_stored(store: Store) -> None:
    def recorded(stored: Approval | None) -> Advance:
        assert stored is None
        return Advance(None, Outcome.RECORDED, False, 1, 1, (audit_record(),))

    first = await store.append(append_of(event("b"), recorded))
    again = await store.append(append_of(event("b", correlation_id="another"), recorded))
    assert (first.fresh, again.fresh) == (True, False)
    assert again.event == first.event
    assert len(await written(store)) == 1
