"""What any store does with deliveries: the queue, its leases, the end of attempts, the ledger."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

from attrs import evolve

from notifyd.errors import Reason
from notifyd.model import RESUME_CHANNEL, SECOND, AttemptOutcome, Delivery, Event, ResumeStatus, State, Wait
from notifyd.store import (
    MAX_ATTEMPTS_KEPT,
    NO_MESSAGE,
    AuditFilter,
    DeliveryFilter,
    LaneBacklog,
    Page,
    Store,
)
from tests.store.conftest import Reopen
from tests.store.makers import (
    HOUR,
    MINUTE,
    NODE,
    NOW,
    TENANT,
    approval,
    attempt,
    audit_record,
    delivery,
    ended,
    event,
    find_approval,
    get,
    insert,
    leased,
    open_approval,
    retried,
    sent,
)


async def claim(store: Store, now: int = NOW, limit: int = 10, **more: Any) -> list[Delivery]:
    return await store.claim_due("slack", NODE, now, now + MINUTE, limit, **more)


async def claim_ids(store: Store, now: int = NOW, limit: int = 10, **more: Any) -> list[str]:
    return [d.id for d in await claim(store, now, limit, **more)]


async def claim_one(store: Store, given: Delivery) -> Delivery:
    """Insert a delivery and lease it."""
    await insert(store, given)
    (claimed,) = await claim(store)
    return claimed


# --- claiming ----------------------------------------------------------------------------------------------


async def test_a_due_delivery_is_claimed_with_a_lease_of_a_new_number(store: Store) -> None:
    claimed = await claim_one(store, delivery())
    lease: dict[str, Any] = {"lease_owner": NODE, "lease_until": NOW + MINUTE, "fencing_token": 1}
    assert claimed == delivery(**lease)
    assert await get(store, claimed) == claimed
    assert await claim(store) == []


async def test_a_lease_that_is_over_is_claimed_with_the_next_number(store: Store) -> None:
    await claim_one(store, delivery())
    (again,) = await claim(store, NOW + MINUTE)
    assert again.fencing_token == 2
    assert again.lease_until == NOW + 2 * MINUTE


async def test_a_delivery_that_was_being_sent_is_pending_when_it_is_claimed(store: Store) -> None:
    claimed = await claim_one(store, delivery())
    await store.renew_leases([claimed], NOW + MINUTE, sending=True)
    (again,) = await claim(store, NOW + MINUTE)
    assert again.state is State.PENDING


async def test_the_longest_due_are_claimed_first_up_to_the_limit(store: Store) -> None:
    await insert(store, *(delivery(f"d{n}", next_attempt_at=NOW - n * SECOND) for n in (2, 5, 1, 4, 3)))
    assert await claim_ids(store, limit=3) == ["d5", "d4", "d3"]
    assert await claim_ids(store, limit=3) == ["d2", "d1"]


async def test_no_more_is_claimed_than_has_so_many_bytes_of_messages_but_for_the_first(store: Store) -> None:
    texts = ["é" * 500, "x" * 1000, "x" * 10, "x" * 1000]
    await insert(
        store,
        *(delivery(f"d{n}", next_attempt_at=NOW - SECOND + n, message=text) for n, text in enumerate(texts)),
    )
    assert await claim_ids(store, size=2009) == ["d0", "d1"]
    assert await claim_ids(store, size=0) == ["d2"]
    assert await claim_ids(store, size=0) == ["d3"]
    assert await claim_ids(store, size=0) == []


async def test_only_the_lane_asked_for_is_claimed(store: Store) -> None:
    await insert(store, delivery("d1"), delivery("d2", channel="mail", lane="mail"))
    assert await claim_ids(store) == ["d1"]


async def test_a_delivery_is_not_claimed_before_it_is_due(store: Store) -> None:
    await insert(store, delivery(next_attempt_at=NOW + MINUTE))
    assert await claim(store, NOW + MINUTE - 1) == []
    assert await claim_ids(store, NOW + MINUTE) == ["d1"]


async def test_a_delivery_whose_next_attempt_is_after_its_deadline_is_due(store: Store) -> None:
    await insert(store, delivery(next_attempt_at=NOW + 30 * MINUTE, deadline=NOW + 10 * MINUTE))
    assert await claim_ids(store) == ["d1"]


async def test_a_delivery_stamped_by_a_clock_gone_wrong_is_due(store: Store) -> None:
    ahead = NOW + 1000 * 24 * HOUR
    wrong = delivery("d1", created_at=ahead, next_attempt_at=ahead + HOUR, deadline=ahead + 24 * HOUR)
    await insert(store, wrong, delivery("d2"), delivery("d3", next_attempt_at=NOW + 12 * HOUR))
    assert await claim_ids(store) == ["d1", "d2"]


async def test_a_delivery_due_after_the_horizon_is_due_as_no_step_could_have_set_it(store: Store) -> None:
    await insert(
        store, delivery("d1", next_attempt_at=NOW + HOUR), delivery("d2", next_attempt_at=NOW + MINUTE)
    )
    assert await claim_ids(store, horizon=NOW + HOUR) == []
    assert await claim_ids(store, horizon=NOW + MINUTE) == ["d1"]


async def test_each_tenant_and_rule_has_its_share_of_a_claim(store: Store) -> None:
    waiting = [delivery(f"a{n:02}", next_attempt_at=NOW - HOUR + n) for n in range(50)]
    late = [delivery("b1", tenant="globex"), delivery("b2", tenant="globex"), delivery("c1", rule="other")]
    await insert(store, *waiting, *late)
    claimed = await claim_ids(store, limit=8)
    assert {"b1", "b2", "c1"} <= set(claimed)
    assert [one for one in claimed if one.startswith("a")] == ["a00", "a01", "a02", "a03", "a04"]


async def test_a_tenant_with_many_rules_has_no_more_of_a_claim_than_one_with_a_single_rule(
    store: Store,
) -> None:
    many = [delivery(f"a{n:02}", rule=f"rule-{n}", next_attempt_at=NOW - HOUR) for n in range(20)]
    late = [delivery(f"b{n}", tenant="globex") for n in range(4)]
    await insert(store, *many, *late)
    claimed = await claim_ids(store, limit=8)
    assert sorted(one for one in claimed if one.startswith("b")) == ["b0", "b1", "b2", "b3"]
    assert len(claimed) == 8


async def test_who_comes_last_by_name_is_not_last_where_a_claim_takes_one(store: Store) -> None:
    flood = [delivery(f"a{n:02}", next_attempt_at=NOW - HOUR) for n in range(30)]
    later = [delivery(f"l{n}", tenant="initech", next_attempt_at=NOW + HOUR) for n in range(3)]
    await insert(store, *flood, *later, delivery("z", tenant="zeta"))
    claimed: list[str] = []
    while "z" not in claimed:
        (one,) = await claim_ids(store, limit=1)  # never nothing, though some have nothing that is due
        claimed.append(one)
    assert len(claimed) < 25


async def test_a_lease_stamped_by_a_clock_gone_wrong_is_void(store: Store) -> None:
    await insert(store, leased(lease_until=NOW + 1000 * 24 * HOUR))
    assert await claim_ids(store) == ["d1"]


async def test_overdue_only_claims_those_past_their_deadline_alone(store: Store) -> None:
    await insert(
        store,
        delivery("late", next_attempt_at=NOW - HOUR, deadline=NOW - MINUTE),
        delivery("due"),
        delivery("just", deadline=NOW),
        delivery("retry", next_attempt_at=NOW + HOUR),
    )
    assert await claim_ids(store, overdue_only=True) == ["late", "just"]


async def test_held_rows_are_passed_over_though_their_lease_is_over(store: Store) -> None:
    await insert(store, delivery("d1"), delivery("d2"), delivery("d3"))
    assert await claim_ids(store, held={"d1", "d3"}) == ["d2"]


async def test_a_delivery_inserted_with_a_lease_is_not_claimed_before_its_end(store: Store) -> None:
    await insert(store, leased())
    assert await claim(store, NOW + MINUTE - 1) == []
    assert await claim_ids(store, NOW + MINUTE) == ["d1"]


async def test_leases_are_void_after_a_restart(store: Store, reopen: Reopen) -> None:
    await insert(store, leased("d1"), delivery("d2"))
    await claim(store)
    again = await reopen()
    assert sorted(await claim_ids(again)) == ["d1", "d2"]


async def test_a_lease_of_an_earlier_life_neither_holds_nor_records(store: Store, reopen: Reopen) -> None:
    claimed = await claim_one(store, delivery())
    again = await reopen()
    assert await again.renew_leases([claimed], NOW + HOUR, sending=True) == frozenset()
    assert not await again.record(ended(claimed))
    assert (await get(again, claimed)).state is State.PENDING


async def test_of_many_that_claim_at_once_each_delivery_goes_to_one(store: Store) -> None:
    await insert(store, *(delivery(f"d{n}") for n in range(20)))
    claimed = await asyncio.gather(*(claim_ids(store, limit=5) for _ in range(10)))
    ids = [one for batch in claimed for one in batch]
    assert len(ids) == len(set(ids)) <= 20


async def test_ended_deliveries_are_not_claimed(store: Store) -> None:
    await insert(store, delivery("d1", state=State.FOLDED, folded_into="digest"), leased("d2"), leased("d3"))
    await store.record(ended(leased("d2")))
    await store.record(ended(leased("d3"), State.DEAD))
    assert await claim(store, NOW + 48 * HOUR) == []


# --- holding and releasing ---------------------------------------------------------------------------------


async def test_holding_renews_the_lease_and_shows_the_row_as_sending(store: Store) -> None:
    claimed = await claim_one(store, delivery())
    assert await store.renew_leases([claimed], NOW + HOUR, sending=True) == {"d1"}
    assert await get(store, claimed) == evolve(claimed, state=State.SENDING, lease_until=NOW + HOUR)
    assert await claim(store, NOW + 2 * MINUTE) == []


async def test_holding_a_row_that_waits_in_memory_leaves_it_pending(store: Store) -> None:
    claimed = await claim_one(store, delivery())
    assert await store.renew_leases([claimed], NOW + HOUR, sending=False) == {"d1"}
    assert await get(store, claimed) == evolve(claimed, lease_until=NOW + HOUR)


async def test_holding_answers_only_the_rows_still_held(store: Store) -> None:
    await insert(store, *(leased(f"d{n}") for n in range(100)), leased("lost"), leased("ended"))
    await store.record(ended(leased("ended")))
    stranger = leased("lost", fencing_token=7)
    held = await store.renew_leases(
        [*(leased(f"d{n}") for n in range(100)), stranger, leased("ended"), leased("unknown")],
        NOW + HOUR,
        sending=True,
    )
    assert held == {f"d{n}" for n in range(100)}


async def test_a_released_row_can_be_claimed_when_it_is_due(store: Store) -> None:
    claimed = await claim_one(store, delivery())
    await store.renew_leases([claimed], NOW + HOUR, sending=True)
    waiting = evolve(claimed, next_attempt_at=NOW + MINUTE, reason=Reason.CHANNEL_MISSING)
    await store.release([waiting])
    assert await get(store, claimed) == delivery(
        next_attempt_at=NOW + MINUTE, reason=Reason.CHANNEL_MISSING, fencing_token=1
    )
    assert await claim(store, NOW + MINUTE - 1) == []
    assert await claim_ids(store, NOW + MINUTE) == ["d1"]


async def test_releasing_a_lease_that_was_lost_changes_nothing(store: Store) -> None:
    claimed = await claim_one(store, delivery())
    (again,) = await claim(store, NOW + MINUTE)
    await store.release([claimed])
    assert await get(store, claimed) == again


# --- recording ---------------------------------------------------------------------------------------------


async def test_a_sent_delivery_ends_with_its_attempt_and_without_a_lease(store: Store) -> None:
    await insert(store, leased())
    assert await store.record(ended(leased()))
    expected = delivery(state=State.SENT, tries=1, attempts=(sent(),), ended_at=NOW, fencing_token=1)
    assert await get(store, leased()) == expected


async def test_a_transient_fault_leaves_the_delivery_due_at_its_next_attempt(store: Store) -> None:
    await insert(store, leased())
    assert await store.record(retried(leased(), NOW + MINUTE))
    found = await get(store, leased())
    assert found.state is State.PENDING
    assert found.tries == 1
    assert found.reason is Reason.SERVER_ERROR
    assert found.attempts == (attempt(),)
    assert await claim(store, NOW + MINUTE - 1) == []
    assert await claim_ids(store, NOW + MINUTE) == ["d1"]


async def test_a_delivery_can_die_without_an_attempt(store: Store) -> None:
    await insert(store, leased())
    assert await store.record(ended(leased(), State.DEAD, attempt=None, reason=Reason.MAX_AGE))
    found = await get(store, leased())
    assert (found.state, found.tries, found.attempts) == (State.DEAD, 0, ())
    assert found.reason is Reason.MAX_AGE


async def test_only_the_newest_attempts_are_kept_and_every_try_is_counted(store: Store) -> None:
    await insert(store, delivery())
    for number in range(MAX_ATTEMPTS_KEPT + 5):
        (claimed,) = await claim(store, NOW + number)
        await store.record(retried(claimed, NOW + number + 1, attempt=attempt(NOW + number)))
    found = await get(store, delivery())
    assert [a.at - NOW for a in found.attempts] == list(range(5, MAX_ATTEMPTS_KEPT + 5))
    assert found.tries == MAX_ATTEMPTS_KEPT + 5


async def test_who_lost_the_lease_records_the_attempt_and_nothing_else(store: Store) -> None:
    await open_approval(store, approval(resume_delivery="d1"))
    first = await claim_one(store, delivery())
    (second,) = await claim(store, NOW + MINUTE)
    late = ended(first, audit=(audit_record(),), event=event("resumed"), resume=ResumeStatus.DELIVERED)
    assert not await store.record(late)
    assert await get(store, first) == evolve(second, attempts=(sent(),))
    assert (await store.audit(TENANT, AuditFilter(), Page()))[0] == []
    assert await store.event(TENANT, "resumed") is None
    assert await find_approval(store) == approval(resume_delivery="d1")


async def test_of_two_that_end_a_delivery_the_holder_of_the_lease_says_how(store: Store) -> None:
    """The audit trail would else tell of one delivery that it was sent and that it is dead."""
    await open_approval(store, approval(resume_delivery="d1"))
    first = await claim_one(store, delivery())
    (second,) = await claim(store, NOW + MINUTE)
    dead = ended(second, State.DEAD, audit=(audit_record("dead"),), event=event("failed"))
    assert await store.record(evolve(dead, resume=ResumeStatus.FAILED))
    late = ended(first, audit=(audit_record("sent"),), event=event("resumed"), resume=ResumeStatus.DELIVERED)
    for _ in range(2):
        assert not await store.record(late)
    found = await get(store, first)
    assert (found.state, found.tries) == (State.DEAD, 1)
    assert {one.outcome for one in found.attempts} == {AttemptOutcome.PERMANENT, AttemptOutcome.SENT}
    assert [one.id for one in (await store.audit(TENANT, AuditFilter(), Page()))[0]] == ["dead"]
    assert await store.event(TENANT, "resumed") is None
    assert (await find_approval(store)).resume is ResumeStatus.FAILED


async def test_recording_twice_changes_nothing_and_answers_the_same(store: Store) -> None:
    await open_approval(store, approval(resume_delivery="d1"))
    await insert(store, leased())
    record = ended(leased(), audit=(audit_record(),), event=event("resumed"), resume=ResumeStatus.DELIVERED)
    assert await store.record(record)
    before = await get(store, leased()), await find_approval(store)
    assert await store.record(record)
    assert (await get(store, leased()), await find_approval(store)) == before
    assert len((await store.audit(TENANT, AuditFilter(), Page()))[0]) == 1


async def test_a_lost_attempt_recorded_twice_is_kept_once(store: Store) -> None:
    first = await claim_one(store, delivery())
    await claim(store, NOW + MINUTE)
    assert not await store.record(ended(first))
    assert not await store.record(ended(first))
    assert (await get(store, first)).attempts == (sent(),)


async def test_the_end_of_a_callback_is_told_to_its_approval(store: Store) -> None:
    await open_approval(store, approval(resume=ResumeStatus.QUEUED, resume_delivery="d1"))
    await insert(store, leased())
    await store.record(ended(leased(), resume=ResumeStatus.DELIVERED))
    found = await find_approval(store)
    assert found.resume is ResumeStatus.DELIVERED
    assert found.version == 2


async def test_the_end_of_another_delivery_is_not_told_to_the_approval(store: Store) -> None:
    await open_approval(store, approval(resume=ResumeStatus.QUEUED, resume_delivery="other"))
    await insert(store, leased())
    await store.record(ended(leased(), resume=ResumeStatus.DELIVERED))
    assert await find_approval(store) == approval(resume=ResumeStatus.QUEUED, resume_delivery="other")


async def test_the_event_of_an_end_waits_for_planning_like_an_accepted_one(store: Store) -> None:
    await insert(store, leased())
    resumed: Event = event("resumed", received_at=NOW)
    await store.record(ended(leased(), event=resumed))
    assert await store.claim_unplanned(NODE, NOW + 1, NOW + MINUTE, 10) == []
    assert await store.claim_unplanned(NODE, NOW + HOUR, NOW + 2 * HOUR, 10) == [resumed]


async def test_recording_the_end_of_an_unknown_delivery_is_a_lost_lease(store: Store) -> None:
    assert not await store.record(ended(leased("gone"), audit=(audit_record(),)))
    assert (await store.audit(TENANT, AuditFilter(), Page()))[0] == []


# --- order -------------------------------------------------------------------------------------------------


async def test_an_earlier_message_of_the_same_approval_is_waited_for_until_it_ends(store: Store) -> None:
    first, second = leased("d1", seq=1), leased("d2", seq=2)
    await insert(store, first, second)
    assert await store.has_earlier(second)
    assert not await store.has_earlier(first)
    await store.record(ended(first))
    assert not await store.has_earlier(second)


async def test_another_channel_recipient_or_approval_is_not_waited_for(store: Store) -> None:
    await insert(
        store,
        delivery("d1", channel="mail", lane="mail"),
        delivery("d2", recipient="alice@acme.example"),
        delivery("d3", run_id="run-2"),
        delivery("d4", tenant="globex"),
        delivery("d5", run_id=None, approval_id=None),
    )
    assert not await store.has_earlier(delivery("d9", seq=9))
    assert await store.has_earlier(delivery("d9", seq=9, recipient="alice@acme.example"))


async def test_a_delivery_about_no_approval_waits_for_none(store: Store) -> None:
    await insert(store, delivery("d1", run_id=None, approval_id=None))
    assert not await store.has_earlier(delivery("d2", run_id=None, approval_id=None, seq=5))


# --- ledger ------------------------------------------------------------------------------------------------


async def test_the_backlog_counts_open_deliveries_by_lane_and_tenant_and_knows_the_oldest(
    store: Store,
) -> None:
    lane = "resume:https://runner.acme.example"
    await insert(
        store,
        leased("d0", created_at=NOW - HOUR),
        delivery("d1", created_at=NOW - MINUTE),
        leased("d2"),
        delivery("d3", tenant="globex"),
        delivery("d4", channel=RESUME_CHANNEL, lane=lane),
        delivery("held", created_at=NOW - HOUR, window="w", window_start=NOW, next_attempt_at=NOW + HOUR),
    )
    await store.record(ended(leased("d0", created_at=NOW - HOUR)))
    backlog = sorted(await store.backlog(), key=lambda one: (one.lane, one.tenant))
    assert backlog == [
        LaneBacklog(lane, RESUME_CHANNEL, TENANT, 1, NOW),
        LaneBacklog("slack", "slack", TENANT, 2, NOW - MINUTE),
        LaneBacklog("slack", "slack", "globex", 1, NOW),
    ]


async def test_a_delivery_of_another_tenant_is_not_there(store: Store) -> None:
    await insert(store, delivery())
    assert await store.delivery("globex", "d1") is None
    assert await store.deliveries("globex", DeliveryFilter(), Page()) == ([], None)


async def test_deliveries_are_listed_newest_first_page_by_page(store: Store) -> None:
    for number in range(7):
        await insert(store, delivery(f"d{number}"), delivery(f"x{number}", tenant="globex"))
    pages, after = [], None
    for _ in range(3):
        found, after = await store.deliveries(TENANT, DeliveryFilter(), Page(3, after))
        pages.append([d.id for d in found])
    assert pages == [["d6", "d5", "d4"], ["d3", "d2", "d1"], ["d0"]]
    assert after is None


async def test_a_page_that_ends_with_the_list_names_no_further_one(store: Store) -> None:
    await insert(store, *(delivery(f"d{n}") for n in range(3)))
    assert (await store.deliveries(TENANT, DeliveryFilter(), Page(3)))[1] is None


async def test_a_page_goes_on_where_it_ended_though_rows_came_since(store: Store) -> None:
    await insert(store, *(delivery(f"d{n}") for n in range(4)))
    _, after = await store.deliveries(TENANT, DeliveryFilter(), Page(2))
    await insert(store, delivery("new"))
    found, _ = await store.deliveries(TENANT, DeliveryFilter(), Page(2, after))
    assert [d.id for d in found] == ["d1", "d0"]


async def test_deliveries_are_listed_by_state_and_channel(store: Store) -> None:
    await insert(store, *(leased(f"d{n}") for n in range(4)), leased("m0", channel="mail", lane="mail"))
    await store.renew_leases([leased("d1")], NOW + MINUTE, sending=True)
    await store.record(ended(leased("d2")))
    await store.record(ended(leased("d3"), State.DEAD))
    await store.record(ended(leased("m0", channel="mail", lane="mail"), State.DEAD))
    await insert(store, delivery("f0", state=State.FOLDED, folded_into="digest"))

    async def listed(state: State | None, channel: str | None = None) -> list[str]:
        return [d.id for d in (await store.deliveries(TENANT, DeliveryFilter(state, channel), Page()))[0]]

    assert await listed(State.PENDING) == ["d0"]
    assert await listed(State.SENDING) == ["d1"]
    assert await listed(State.SENT) == ["d2"]
    assert await listed(State.DEAD) == ["m0", "d3"]
    assert await listed(State.DEAD, "mail") == ["m0"]
    assert await listed(State.FOLDED) == ["f0"]
    assert await listed(None, "mail") == ["m0"]


async def test_deliveries_of_many_channels_and_states_are_listed_in_one_order(store: Store) -> None:
    rows = [
        delivery(f"d{number}", channel=channel, state=state)
        for number, (channel, state) in enumerate(product(["b", "a", "c"], State))
    ]
    await insert(store, *rows)
    newest = list(reversed(rows))
    for state, channel in product([None, *State], [None, "a", "b", "c", "unknown"]):
        wanted = [d.id for d in newest if state in (None, d.state) and channel in (None, d.channel)]
        found, after = list[str](), None
        for _ in range(len(wanted) // 2 + 1):
            page, after = await store.deliveries(TENANT, DeliveryFilter(state, channel), Page(2, after))
            found += [d.id for d in page]
            if after is None:
                break
        assert (found, after) == (wanted, None), (state, channel)


async def test_a_list_comes_without_messages(store: Store) -> None:
    await insert(store, delivery())
    (found,), _ = await store.deliveries(TENANT, DeliveryFilter(), Page())
    assert found == evolve(delivery(), message=NO_MESSAGE)


async def test_dead_letters_are_counted_by_channel_over_all_tenants(store: Store) -> None:
    dead = [leased("d1"), leased("d2", tenant="globex"), leased("m1", channel="mail", lane="mail")]
    await insert(store, *dead, leased("d3"))
    for row in dead:
        await store.record(ended(row, State.DEAD))
    assert await store.dead_letters() == {"slack": 2, "mail": 1}


async def test_what_is_not_due_yet_is_counted_by_what_it_waits_for(store: Store) -> None:
    gone, order = leased("d3", channel="mail", lane="mail"), leased("d4")
    held = [delivery(f"w{n}", window="0a", window_start=NOW, next_attempt_at=NOW + MINUTE) for n in range(2)]
    await insert(store, leased("d1"), leased("d2"), gone, order, delivery("due"), *held)
    await store.record(retried(leased("d1"), NOW + HOUR))
    await store.record(ended(leased("d2"), State.DEAD))
    await store.release([evolve(gone, next_attempt_at=NOW + MINUTE, reason=Reason.CHANNEL_MISSING)])
    await store.release([evolve(order, next_attempt_at=NOW + MINUTE)])
    counted = {(one.lane, one.channel, one.why): one.count for one in await store.waits(NOW)}
    assert counted == {
        ("slack", "slack", Wait.RETRY): 1,
        ("mail", "mail", Wait.CHANNEL_MISSING): 1,
        ("slack", "slack", Wait.ORDER): 1,
        ("slack", "slack", Wait.WINDOW): 2,
    }


async def test_a_store_tells_what_it_takes(store: Store) -> None:
    usage = await store.usage()
    assert "database" in usage.parts
    assert min(usage.parts.values()) >= 0
    assert usage.disk_free is None or usage.disk_free > 0


async def test_a_dead_delivery_is_revived_as_new_outside_the_order(store: Store) -> None:
    await insert(store, leased(), leased("d2", seq=2))
    await store.record(ended(leased(), State.DEAD))
    dead = await get(store, leased())
    later = NOW + 48 * HOUR
    revived = await store.revive(TENANT, "d1", later, later + HOUR)
    fresh: dict[str, Any] = {"tries": 0, "seq": 0, "ended_at": None, "reason": None}
    assert revived == evolve(dead, state=State.PENDING, next_attempt_at=later, deadline=later + HOUR, **fresh)
    assert not await store.has_earlier(leased("d2", seq=2))
    assert await claim_ids(store, later, limit=1) == ["d2"]
    assert await claim_ids(store, later) == ["d1"]


async def test_only_a_dead_delivery_of_the_tenant_is_revived(store: Store) -> None:
    await insert(store, delivery("d1"), leased("d2"), leased("d3"))
    await store.record(ended(leased("d2")))
    await store.record(ended(leased("d3"), State.DEAD))
    for tenant, one in ((TENANT, "d1"), (TENANT, "d2"), ("globex", "d3"), (TENANT, "gone")):
        assert await store.revive(tenant, one, NOW, NOW + HOUR) is None


def unrendered(**changes: Any) -> Delivery:
    """A row that is dead from the start, as its message could not be rendered."""
    end: dict[str, Any] = {"state": State.DEAD, "ended_at": NOW, "reason": Reason.RENDER_FAILED}
    return delivery(message="{}", **{**end, **changes})


async def test_a_delivery_without_a_message_is_revived_with_the_one_that_is_given(store: Store) -> None:
    await insert(store, unrendered())
    revived = await store.revive(TENANT, "d1", NOW + 1, NOW + HOUR, message="eyJ.new", sealed=True)
    fresh: dict[str, Any] = {"ended_at": None, "reason": None, "seq": 0, "deadline": NOW + HOUR}
    assert revived == delivery(message="eyJ.new", sealed=True, next_attempt_at=NOW + 1, **fresh)
    assert await get(store, delivery()) == revived
    (claimed,) = await store.claim_due("slack", NODE, NOW + 1, NOW + MINUTE, 10)
    assert (claimed.message, claimed.sealed) == ("eyJ.new", True)


async def test_a_message_is_given_to_none_but_those_without_and_none_of_those_leaves_without(
    store: Store,
) -> None:
    await insert(store, unrendered(), leased("d2"))
    await store.record(ended(leased("d2"), State.DEAD))
    rendered = await get(store, delivery("d2"))
    assert await store.revive(TENANT, "d1", NOW, NOW + HOUR) is None
    assert await store.revive(TENANT, "d2", NOW, NOW + HOUR, message="other", sealed=True) is None
    assert await get(store, delivery("d1")) == unrendered()
    assert await get(store, delivery("d2")) == rendered


async def test_of_several_messages_for_one_delivery_one_is_written(store: Store) -> None:
    await insert(store, unrendered())
    texts = [f"eyJ.{n}" for n in range(4)]
    answers = await asyncio.gather(
        *(store.revive(TENANT, "d1", NOW, NOW + HOUR, message=text, sealed=True) for text in texts)
    )
    (won,) = [row for row in answers if row is not None]
    assert won.message in texts
    assert await get(store, delivery()) == won


async def test_a_node_that_is_alone_counts_one(store: Store) -> None:
    for _ in range(2):
        assert await store.beat(NOW, NOW + HOUR) == 1
