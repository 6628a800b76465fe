"""The approval machine, as arriving events and the timer move it: every state with every input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.approval.ballots import Ballot, cast, check_ballot, check_grants, expire
from notifyd.approval.quorum import assigned, progress
from notifyd.approval.rounds import Request, Shared, Update, on_requested, on_updated
from notifyd.errors import NotifydError
from notifyd.model import (
    SECOND,
    Approval,
    AuditName,
    Choice,
    EffectKind,
    Event,
    Group,
    Instant,
    Outcome,
    ResumeStatus,
    Status,
    Via,
)
from notifyd.store import Advance
from tests.store.makers import HOUR, MINUTE, NOW, anybody, approval, event, nobody

PLAN = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
OPENED_AT = NOW - MINUTE
LATER = NOW - SECOND
EARLIER = NOW - HOUR

# --- states ------------------------------------------------------------------------------------------------


def pending(**changes: Any) -> Approval:
    given = {"plan_hash": PLAN, "requested_at": OPENED_AT, **changes}
    return approval(**given)


def ended(status: Status) -> Approval:
    return pending(version=2, status=status, ended_at=NOW - SECOND, ended_by="alice@acme.example")


def asked_again(at: Instant) -> Approval:
    """Pending, and the same plan was asked for again at `at`."""
    return pending(version=2, heard_again_at=at)


STATES: dict[str, Approval | None] = {
    "none": None,
    "pending": pending(),
    "asked again": asked_again(LATER),
    "overdue": pending(expires_at=NOW),  # past its expiry by the clock, the timer has not come yet
    **{status.value: ended(status) for status in Status if status.ended},
}

# --- inputs ------------------------------------------------------------------------------------------------


def request(**changes: Any) -> Request:
    wanted = Request(
        plan_hash=PLAN,
        required_grants=("Packs.Approve",),
        required_approvals=1,
        requested_by="ci@acme.example",
        expires_at=NOW + HOUR,
        callback_url="https://runner.acme.example/resume",
        sealed_token="sealed anew",
    )
    return evolve(wanted, **changes)


def asked(occurred_at: Instant, **changes: Any) -> Callable[[Approval | None], Advance]:
    asking = event("new", occurred_at=occurred_at)
    return lambda stored: on_requested(stored, asking, request(**changes), NOW, nobody)


def told(status: Status) -> Callable[[Approval | None], Advance]:
    telling = event("new", action="updated", occurred_at=LATER)
    return lambda stored: on_updated(stored, telling, Update(status, "bob@acme.example", OTHER), nobody)


INPUTS: dict[str, Callable[[Approval | None], Advance]] = {
    "same plan, later": asked(LATER),
    "same plan, same time": asked(OPENED_AT),
    "same plan, latest": asked(NOW),
    "other plan, later": asked(LATER, plan_hash=OTHER),
    "other plan, latest": asked(NOW, plan_hash=OTHER),
    "other plan, same time": asked(OPENED_AT, plan_hash=OTHER),
    "other plan, earlier": asked(EARLIER, plan_hash=OTHER),
    "same plan, expired": asked(LATER, expires_at=NOW),
    "other plan, later, expired": asked(LATER, plan_hash=OTHER, expires_at=NOW),
    "approved": told(Status.APPROVED),
    "rejected": told(Status.REJECTED),
    "expired": told(Status.EXPIRED),
    "cancelled": told(Status.CANCELLED),
}

# --- what each does to each --------------------------------------------------------------------------------


@frozen
class Does:
    """The outcome, and, where the stored approval changes, its status, round and version."""

    outcome: Outcome
    status: Status | None = None
    round: int = 1
    version: int = 2


RECORDED = Does(Outcome.RECORDED)
HEARD = Does(Outcome.RECORDED, Status.PENDING)
STILLBORN = Does(Outcome.EXPIRED, Status.EXPIRED, version=1)
OPENS = Does(Outcome.OPENED, Status.PENDING, version=1)
NEW_ROUND = Does(Outcome.NEW_ROUND, Status.PENDING, round=2)
SUPERSEDED = Does(Outcome.EXPIRED, Status.EXPIRED, round=2)


def third(does: Does) -> Does:
    """The same to an approval that has been written twice."""
    return evolve(does, version=3)


def _ends(status: Status) -> dict[str, Does]:
    ends = Does(Outcome.ENDED, status)
    return {"none": evolve(ends, version=1), "pending": ends, "asked again": third(ends), "overdue": ends}


TABLE: dict[str, dict[str, Does]] = {
    "same plan, later": {"none": OPENS, "pending": HEARD},
    "same plan, same time": {"none": OPENS},
    "same plan, latest": {"none": OPENS, "pending": HEARD, "asked again": third(HEARD)},
    "other plan, later": {"none": OPENS, "pending": NEW_ROUND},
    "other plan, latest": {"none": OPENS, "pending": NEW_ROUND, "asked again": third(NEW_ROUND)},
    "other plan, same time": {"none": OPENS},
    "other plan, earlier": {"none": OPENS},
    "same plan, expired": {"none": STILLBORN, "pending": HEARD},
    "other plan, later, expired": {"none": STILLBORN, "pending": SUPERSEDED},
    "approved": _ends(Status.APPROVED),
    "rejected": _ends(Status.REJECTED),
    "expired": _ends(Status.EXPIRED),
    "cancelled": _ends(Status.CANCELLED),
}
"""By input and state; what is not listed leaves the approval as it is. So do all of them once it has ended."""

PAIRS = [(name, state) for name in INPUTS for state in STATES]


@pytest.mark.parametrize(("name", "state"), PAIRS)
def test_each_event_does_to_each_state_what_the_table_says(name: str, state: str) -> None:
    stored, does = STATES[state], TABLE[name].get(state, RECORDED)
    advance = INPUTS[name](stored)
    assert advance.outcome is does.outcome
    assert advance.notify is (does.outcome not in (Outcome.RECORDED, Outcome.EXPIRED))
    if does.status is None:
        assert advance.subject is None
        assert stored is not None
        assert (advance.version, advance.round) == (stored.version, stored.round)
        return
    after = advance.subject
    assert isinstance(after, Approval)
    assert (after.status, after.round, after.version) == (does.status, does.round, does.version)
    assert (advance.version, advance.round) == (after.version, after.round)
    ends = {"expired": "notifyd", "ended": "bob@acme.example"}
    assert after.ended_by == ends.get(advance.outcome)
    assert (after.ended_at is not None) is after.status.ended


@pytest.mark.parametrize(("name", "state"), PAIRS)
def test_an_event_that_comes_again_as_if_it_were_new_changes_nothing(name: str, state: str) -> None:
    first = INPUTS[name](STATES[state])
    after = STATES[state] if first.subject is None else first.subject
    again = INPUTS[name](after if isinstance(after, Approval) else None)
    assert (again.subject, again.outcome, again.notify) == (None, Outcome.RECORDED, False)


@pytest.mark.parametrize(("name", "state"), PAIRS)
def test_every_event_leaves_lines_in_the_audit_trail_told_apart_by_their_ids(name: str, state: str) -> None:
    advance = INPUTS[name](STATES[state])
    stillborn = {AuditName.REQUESTED, AuditName.EXPIRED}
    updated = name in {status.value for status in Status}
    lone = {AuditName.UPDATED} if updated else {AuditName.REQUESTED}
    assert {line.name for line in advance.audit} == (stillborn if advance.outcome == "expired" else lone)
    assert len({line.id for line in advance.audit}) == len(advance.audit)
    assert all(line.actor == "client:task-runner" and line.tenant == "acme" for line in advance.audit)


# --- what a round carries ----------------------------------------------------------------------------------


def subject(advance: Advance) -> Approval:
    assert isinstance(advance.subject, Approval)
    return advance.subject


def test_a_new_round_takes_the_new_requests_terms_and_leaves_earlier_decisions_to_the_history() -> None:
    voted = cast(pending(required_approvals=2), ballot(), NOW)
    asking = event("new", occurred_at=LATER, correlation_id="corr-new", client="other-runner")
    wanted = request(
        plan_hash=OTHER,
        required_approvals=3,
        required_grants=("Packs.Approve", "prod"),
        requested_by="eve@acme.example",
        callback_url="https://runner.acme.example/other",
        expires_at=NOW + 2 * HOUR,
    )
    advance = on_requested(voted, asking, wanted, NOW, anybody)
    after = subject(advance)
    assert (after.plan_hash, after.required_approvals, after.requested_by) == (OTHER, 3, "eve@acme.example")
    assert (after.required_grants, after.expires_at) == (("Packs.Approve", "prod"), NOW + 2 * HOUR)
    assert (after.callback_url, after.sealed_token) == (wanted.callback_url, "sealed anew")
    assert (after.client, after.correlation_id, after.requested_at) == ("other-runner", "corr-new", LATER)
    assert after.created_at == voted.created_at
    assert (progress(after)["received"], after.decisions) == (0, ())
    assert advance.superseded == voted.decisions != ()
    assert after.effects == voted.effects


# --- the latest request ------------------------------------------------------------------------------------


def test_a_plan_that_was_asked_for_again_since_is_not_overtaken_by_an_older_request() -> None:
    opened = subject(on_requested(None, event("first", occurred_at=NOW - 5), request(), NOW, nobody))
    heard = subject(on_requested(opened, event("again", occurred_at=NOW - 1), request(), NOW, nobody))
    late = on_requested(heard, event("late", occurred_at=NOW - 3), request(plan_hash=OTHER), NOW, nobody)
    assert (late.subject, late.outcome, late.version) == (None, Outcome.RECORDED, 2)


def test_asking_again_moves_nothing_but_when_the_plan_was_last_heard_of() -> None:
    voted = cast(pending(required_approvals=2), ballot(), NOW)
    again = request(expires_at=NOW + 9 * HOUR, required_approvals=1, callback_url="https://other.example/")
    heard = subject(on_requested(voted, event("again", occurred_at=LATER), again, NOW, nobody))
    assert heard.heard_at == LATER > voted.heard_at == OPENED_AT
    assert evolve(heard, version=voted.version, heard_again_at=0) == voted
    assert heard.version == voted.version + 1, "a write that others have to see"


def test_a_request_of_an_earlier_round_does_not_count_as_word_of_the_present_one() -> None:
    replanned = on_requested(
        asked_again(LATER), event("new", occurred_at=NOW), request(plan_hash=OTHER), NOW, nobody
    )
    assert subject(replanned).heard_at == NOW


@given(st.permutations(range(6)), st.lists(st.sampled_from((PLAN, OTHER)), min_size=6, max_size=6))
def test_in_whatever_order_requests_come_the_latest_has_its_plan(order: list[int], plans: list[str]) -> None:
    stored: Approval | None = None
    for number in order:
        asking = event(f"event-{number}", occurred_at=NOW - 10 + number)
        advance = on_requested(stored, asking, request(plan_hash=plans[number]), NOW, nobody)
        stored = subject(advance) if advance.subject is not None else stored
    assert stored is not None
    assert (stored.plan_hash, stored.heard_at) == (plans[5], NOW - 5)


@pytest.mark.parametrize("plan", [PLAN, OTHER])
def test_a_request_past_the_expiry_is_recorded_and_leaves_the_end_to_the_timer(plan: str) -> None:
    overdue = pending(expires_at=NOW)
    wanted = request(plan_hash=plan)
    late = on_requested(overdue, event("late", occurred_at=LATER), wanted, NOW, nobody)
    assert (late.subject, late.outcome, late.notify) == (None, Outcome.RECORDED, False)
    assert (late.version, late.round) == (overdue.version, overdue.round)
    assert expire(overdue, NOW) is not None
    in_time = on_requested(overdue, event("late", occurred_at=LATER), wanted, NOW - 1, nobody)
    assert subject(in_time).status is Status.PENDING


def test_a_first_round_that_comes_expired_owes_an_answer_and_no_notice() -> None:
    after = subject(INPUTS["same plan, expired"](None))
    assert [effect.kind for effect in after.effects] == [EffectKind.RESUME]
    assert (after.resume, after.resume_delivery) == (ResumeStatus.QUEUED, after.effects[0].id)


def test_a_later_round_that_comes_expired_owes_a_notice_to_those_who_were_asked_before() -> None:
    after = subject(INPUTS["other plan, later, expired"](STATES["pending"]))
    notice, _ = after.effects
    assert [effect.kind for effect in after.effects] == [EffectKind.NOTICE, EffectKind.RESUME]
    assert (notice.data["action"], notice.data["round"], notice.data["version"]) == ("expired", 2, 2)
    assert after.resume is ResumeStatus.QUEUED


# --- updates -----------------------------------------------------------------------------------------------


def test_an_update_is_seen_over_what_was_asked_with_its_own_members_on_top() -> None:
    asked = pending(request='{"labels":{"environment":"production"},"status":"?","type":"Requested"}')
    telling = event("new", action="updated", occurred_at=LATER, body='{"status":"approved","type":"Updated"}')
    advance = on_updated(asked, telling, Update(Status.APPROVED, "bob@acme.example", OTHER), nobody)
    seen = '{"labels":{"environment":"production"},"status":"approved","type":"Updated"}'
    assert advance.body == seen
    assert subject(advance).request == asked.request


def test_an_update_of_an_unknown_approval_creates_it_without_anything_to_resume() -> None:
    created = subject(INPUTS["approved"](None))
    assert (created.callback_url, created.sealed_token, created.expires_at) == (None, None, None)
    assert (created.plan_hash, created.ended_by) == (OTHER, "bob@acme.example")
    assert [effect.kind for effect in created.effects] == [EffectKind.RESUME]


def test_a_request_that_comes_after_its_update_finds_it_ended() -> None:
    created = subject(INPUTS["cancelled"](None))
    late = on_requested(created, event("late", occurred_at=NOW), request(), NOW, nobody)
    assert (late.subject, late.outcome) == (None, Outcome.RECORDED)


# --- whose it is -------------------------------------------------------------------------------------------


def asked_by(client: str, stored: Approval | None, shared: Shared = nobody, **changes: Any) -> Advance:
    asking = event(f"asked-by-{client}", occurred_at=LATER, client=client)
    return on_requested(stored, asking, request(plan_hash=OTHER, **changes), NOW, shared)


def told_by(client: str, stored: Approval | None, shared: Shared = nobody) -> Advance:
    telling = event(f"told-by-{client}", action="updated", occurred_at=LATER, client=client)
    return on_updated(stored, telling, Update(Status.CANCELLED, "eve@acme.example", PLAN), shared)


@pytest.mark.parametrize("act", [asked_by, told_by])
def test_another_client_moves_nothing_and_the_audit_says_whose_it_is(act: Callable[..., Advance]) -> None:
    advance = act("stranger", pending())
    assert (advance.subject, advance.outcome, advance.notify) == (None, Outcome.RECORDED, False)
    assert [(line.actor, line.data["belongsTo"]) for line in advance.audit] == [
        ("client:stranger", "task-runner")
    ]
    same_plan = act("stranger", pending(plan_hash=OTHER))
    assert same_plan.subject is None, "nor does it say when the plan was last asked for"


def test_a_client_that_is_let_in_opens_a_round_which_is_the_first_ones_still() -> None:
    def lets_friend_in(owner: str, client: str) -> bool:
        return (owner, client) == ("task-runner", "friend")

    replanned = subject(asked_by("friend", pending(), lets_friend_in))
    assert (replanned.round, replanned.client, replanned.belongs_to) == (2, "friend", "task-runner")
    assert subject(told_by("task-runner", replanned, lets_friend_in)).status is Status.CANCELLED
    assert subject(told_by("friend", replanned, lets_friend_in)).status is Status.CANCELLED
    assert told_by("stranger", replanned, lets_friend_in).subject is None


def test_what_an_older_version_left_without_a_client_anybody_may_end() -> None:
    assert subject(told_by("stranger", pending(client=""))).status is Status.CANCELLED


def test_the_end_that_a_stranger_tells_of_an_approval_to_come_keeps_nobody_from_asking() -> None:
    foretold = subject(told_by("stranger", None))
    advance = asked_by("task-runner", foretold)
    asked = subject(advance)
    assert (advance.outcome, advance.notify, asked.status) == (Outcome.OPENED, True, Status.PENDING)
    assert (asked.round, asked.version, asked.belongs_to) == (1, foretold.version + 1, "task-runner")
    assert (asked.ended_at, asked.ended_by) == (None, None)
    assert asked_by("task-runner", foretold, anybody).subject is None, "a friend's word counts"


def test_an_end_by_update_names_who_ended_it_and_owes_no_callback() -> None:
    after = subject(INPUTS["rejected"](pending()))
    assert (after.ended_by, after.ended_at) == ("bob@acme.example", NOW)
    assert (after.resume, after.resume_delivery) == ("none", None)
    assert [effect.kind for effect in after.effects] == [EffectKind.RESUME], "for forwarders"


# --- the timer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [pending(), *(ended(status) for status in Status if status.ended)])
def test_the_timer_leaves_alone_what_is_not_due_or_has_ended(stored: Approval) -> None:
    assert expire(stored, NOW) is None
    assert expire(evolve(stored, expires_at=None), NOW + HOUR) is None


def test_the_timer_ends_what_is_pending_past_its_expiry() -> None:
    after = expire(pending(expires_at=NOW), NOW)
    assert after is not None
    assert (after.status, after.version) == (Status.EXPIRED, 2)
    assert (after.ended_by, after.ended_at) == ("notifyd", NOW)


def test_the_timer_comes_at_the_very_instant_and_not_before() -> None:
    assert expire(pending(expires_at=NOW), NOW - 1) is None
    assert expire(pending(expires_at=NOW), NOW) is not None


def test_an_expiry_owes_a_line_a_notice_and_an_answer_that_tell_the_time_it_was_due() -> None:
    late = expire(pending(expires_at=NOW - HOUR), NOW)
    assert late is not None
    assert [effect.kind for effect in late.effects] == ["audit", "notice", "resume"]
    assert late == expire(pending(expires_at=NOW - HOUR), NOW + HOUR)


# --- any order of anything ---------------------------------------------------------------------------------


def ballot(actor: str = "alice@acme.example", choice: Choice = Choice.APPROVED, plan: str = PLAN) -> Ballot:
    return Ballot(
        tenant="acme",
        run_id="run-1",
        approval_id="deploy",
        choice=choice,
        plan_hash=plan,
        actor=actor,
        comment="why",
        via=Via.CLIENT,
        client="console",
        grants=frozenset({"Packs.Approve"}),
        correlation_id="corr-ballot",
    )


ACTORS = ("alice@acme.example", "bob@acme.example", "carol@acme.example", "ci@acme.example")
PLANS = (PLAN, OTHER)


@frozen
class Step:
    """One input at random; `at` is the clock in minutes after `NOW`."""

    kind: str
    at: int
    occurred_at: int
    plan: str
    quorum: int
    groups: tuple[Group, ...]
    grants: frozenset[str]
    break_glass: bool
    on_behalf_of: str
    actor: str
    choice: Choice
    status: Status


OPS, SECURITY = Group("ops", "Ops", 1), Group("security", "Security", 1)

steps = st.builds(
    Step,
    kind=st.sampled_from(("requested", "updated", "ballot", "ballot", "ballot", "timer")),
    at=st.integers(0, 90),
    occurred_at=st.integers(-90, 0),
    plan=st.sampled_from(PLANS),
    quorum=st.integers(1, 3),
    groups=st.sampled_from(((), (OPS,), (OPS, SECURITY))),
    grants=st.sets(st.sampled_from(("Ops", "Security", "Packs.BreakGlass")), min_size=1).map(frozenset),
    break_glass=st.sampled_from((False, False, True)),
    on_behalf_of=st.sampled_from(("", *ACTORS)),
    actor=st.sampled_from(ACTORS),
    choice=st.sampled_from(Choice),
    status=st.sampled_from([status for status in Status if status.ended]),
)


def apply(stored: Approval | None, step: Step, arrival: Event) -> Approval | None:
    now = NOW + step.at * MINUTE
    if step.kind == "requested":
        quorum = max(step.quorum, len(step.groups))
        wanted = request(plan_hash=step.plan, required_approvals=quorum, groups=step.groups)
        advance = on_requested(stored, arrival, wanted, now, nobody)
    elif step.kind == "updated":
        advance = on_updated(stored, arrival, Update(step.status, step.actor, step.plan), nobody)
    else:
        return _alone(stored, step, now)
    return stored if advance.subject is None else subject(advance)


def _alone(stored: Approval | None, step: Step, now: Instant) -> Approval | None:
    """What needs an approval to be there: the timer and ballots."""
    if stored is None:
        return None
    if step.kind == "timer":
        return expire(stored, now) or stored
    given = evolve(
        ballot(step.actor, step.choice, step.plan),
        grants=step.grants | {"Packs.Approve"},
        break_glass=step.break_glass,
        on_behalf_of=step.on_behalf_of if step.on_behalf_of != step.actor else "",
    )
    try:
        check_grants(stored, given)
        check_ballot(stored, given, now, allow_self=False, canonical=str)
    except NotifydError:
        return stored
    return cast(stored, given, now)


@settings(max_examples=300)
@given(st.lists(steps, max_size=25))
def test_whatever_happens_in_whatever_order_the_machine_keeps_its_promises(sequence: list[Step]) -> None:
    stored: Approval | None = None
    for number, step in enumerate(sequence):
        arrival = event(f"event-{number}", occurred_at=NOW + step.occurred_at * MINUTE)
        after = apply(stored, step, arrival)
        if stored is not None and after is not None:
            keeps_promises(stored, after)
        if step.kind in ("requested", "updated"):
            assert apply(after, step, arrival) == after
        stored = after


def keeps_promises(before: Approval, after: Approval) -> None:
    assert after.version == before.version + (after != before)
    if before.status.ended:
        assert after == before
    assert after.round in (before.round, before.round + 1)
    assert after.heard_at >= before.heard_at
    if after.round == before.round:
        assert after.decisions[: len(before.decisions)] == before.decisions
    assert {d.round for d in after.decisions} <= {after.round}
    received = progress(after)["received"]
    ordinary = [p for d in after.decisions if not d.break_glass for p in (d.actor, d.on_behalf_of) if p]
    assert received <= len({d.actor for d in after.decisions})
    assert len(ordinary) == len(set(ordinary))
    broken = [d for d in after.decisions if d.break_glass]
    assert broken == list(after.decisions[-1:])[: len(broken)]
    assert all(after.requested_by not in (d.actor, d.on_behalf_of) for d in after.decisions)
    if broken:
        assert after.status is Status.APPROVED
    assert len({d.decision_hash for d in after.decisions}) == len(after.decisions)
    ids = [effect.id for effect in after.effects]
    assert len(set(ids)) == len(ids)
    voted = after.status is Status.APPROVED and before.status is Status.PENDING and after.resume_delivery
    if voted and not broken:
        assert received == after.required_approvals
        approvers = {d.actor: d.groups for d in after.decisions}
        filled = assigned(after.groups, approvers)
        assert all(len(filled[group.name]) == group.required for group in after.groups)
    assert (after.ended_at is not None) is after.status.ended
    assert (after.resume_delivery is not None) is (after.resume != "none")
