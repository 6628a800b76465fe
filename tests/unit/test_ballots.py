"""The approval machine, as decisions move it: every state with every ballot, and the order of the checks."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest
import rfc8785
from attrs import evolve

from notifyd.approval.ballots import (
    Ballot,
    Canonical,
    ballot_hash,
    cast,
    check_ballot,
    check_grants,
    earlier_answer,
    expire,
    may_repeat_superseded,
)
from notifyd.approval.effects import owed_row
from notifyd.approval.rounds import Request, on_requested
from notifyd.errors import GrantMissingError, InvalidError, NotifydError
from notifyd.model import (
    Approval,
    AuditName,
    AuditRecord,
    Choice,
    Decision,
    EffectKind,
    Event,
    Group,
    ResumeStatus,
    Status,
    Via,
)
from notifyd.security.actors import Actors
from tests.store.makers import HOUR, MINUTE, NOW, approval, event, nobody

PLAN = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
ALICE, BOB, CI = "alice@acme.example", "bob@acme.example", "ci@acme.example"
REQUEST = orjson.dumps(
    {"type": "PackApprovalRequested", "planHash": PLAN, "labels": {"environment": "production"}}
).decode()


def ballot(**changes: Any) -> Ballot:
    """Alice approves the plan."""
    given = Ballot(
        tenant="acme",
        run_id="run-1",
        approval_id="deploy",
        choice=Choice.APPROVED,
        plan_hash=PLAN,
        actor=ALICE,
        comment="looks good",
        via=Via.CLIENT,
        client="console",
        grants=frozenset({"Packs.Approve", "prod"}),
        correlation_id="corr-ballot",
    )
    return evolve(given, **changes)


def rejects(**changes: Any) -> Ballot:
    return ballot(choice=Choice.REJECTED, **changes)


# --- states ------------------------------------------------------------------------------------------------


def pending(**changes: Any) -> Approval:
    given = {"plan_hash": PLAN, "required_grants": ("Packs.Approve", "prod"), "request": REQUEST}
    return approval(**{**given, **changes})


def replanned(stored: Approval, plan: str, number: int) -> Approval:
    """`stored` with another round opened for `plan`."""
    wanted = Request(
        plan_hash=plan,
        required_grants=stored.required_grants,
        required_approvals=stored.required_approvals,
        requested_by=stored.requested_by,
        expires_at=NOW + HOUR,
        callback_url="https://runner.acme.example/resume",
        sealed_token="sealed",
    )
    asking = event(f"round-{number}", occurred_at=NOW + number, body=REQUEST)
    after = on_requested(stored, asking, wanted, NOW, nobody).subject
    assert isinstance(after, Approval)
    return after


def superseded(stored: Approval, given: Ballot) -> list[Decision]:
    """What the store has of earlier rounds: in round 1 Alice has voted."""
    if not may_repeat_superseded(stored, given):
        return []
    return [d for d in VOTED.decisions if (d.actor, d.plan_hash) == (given.actor, given.plan_hash)]


def timed_out(stored: Approval) -> Approval:
    after = expire(evolve(stored, expires_at=NOW), NOW)
    assert after is not None
    return after


VOTED = cast(pending(required_approvals=2), ballot(message_id="msg-1"), NOW - MINUTE)
"""Two must approve, Alice has, by a signed request."""

STATES: dict[str, Approval] = {
    "pending": pending(),
    "pending for two": pending(required_approvals=2),
    "voted": VOTED,
    "overdue": evolve(VOTED, expires_at=NOW),
    "approved": cast(pending(), ballot(), NOW - MINUTE),
    "rejected": cast(pending(), rejects(), NOW - MINUTE),
    "expired": timed_out(VOTED),
    "cancelled": evolve(VOTED, version=9, status=Status.CANCELLED, ended_at=NOW, ended_by=CI),
    "replanned": replanned(VOTED, OTHER, 2),  # round 2 is for the other plan
    "returned": replanned(replanned(VOTED, OTHER, 2), PLAN, 3),  # round 3 is for the first plan again
}

# --- ballots -----------------------------------------------------------------------------------------------

BALLOTS: dict[str, Ballot] = {
    "alice approves": ballot(),
    "alice approves, in other words": ballot(comment="again", correlation_id="corr-2", via=Via.JWT),
    "alice rejects": rejects(),
    "bob approves": ballot(actor=BOB),
    "bob rejects": rejects(actor=BOB),
    "the requester approves": ballot(actor=CI),
    "bob, without a grant": ballot(actor=BOB, grants=frozenset({"Packs.Approve"})),
    "alice, without a grant": ballot(grants=frozenset()),
    "bob approves the other plan": ballot(actor=BOB, plan_hash=OTHER),
    "alice's request that was captured": ballot(message_id="msg-1"),
    "alice's request, captured by a client of the same ids": ballot(message_id="msg-1", client="other"),
    "alice's other request": ballot(message_id="msg-2"),
    "alice's other request of the same id": rejects(message_id="msg-1"),
    "alice approves round 2": ballot(round=2, plan_hash=OTHER),
    "alice approves round 3": ballot(round=3),
    "alice by the link of round 1": ballot(via=Via.LINK, round=1),
    "bob by the link of round 1": ballot(via=Via.LINK, actor=BOB, round=1),
    "bob by the link of round 2": ballot(via=Via.LINK, actor=BOB, round=2, plan_hash=OTHER),
}

ENDED = ("approved", "rejected", "cancelled", "expired")


def verdict(stored: Approval, given: Ballot, *, allow_self: bool = False, canonical: Canonical = str) -> str:
    """What becomes of a ballot, taken through the checks as a decision is."""
    try:
        check_grants(stored, given)
        if earlier_answer(stored, given, superseded(stored, given)) is not None:
            return "repeat"
        check_ballot(stored, given, NOW, allow_self=allow_self, canonical=canonical)
    except NotifydError as error:
        return error.code
    return cast(stored, given, NOW).status.value


def row(pending: str, two: str, voted: str, **others: str) -> dict[str, str]:
    """By state: the first three, all that have ended or will, and what others differ in."""
    closed = {"overdue": "expired", "expired": "expired"}
    closed |= dict.fromkeys(("approved", "rejected", "cancelled"), "already_decided")
    return {"pending": pending, "pending for two": two, "voted": voted} | closed | others


UNNAMED = "invalid_event"  # the round is to be named

REPEATED = dict.fromkeys(("voted", "overdue", "approved", "expired", "cancelled"), "repeat")

APPROVES = row("approved", "pending", **REPEATED, replanned="repeat", returned=UNNAMED)

TABLE: dict[str, dict[str, str]] = {
    "alice approves": APPROVES,
    "alice approves, in other words": APPROVES,
    "alice rejects": row(
        "rejected",
        "rejected",
        "already_voted",
        rejected="repeat",
        replanned="plan_changed",
        returned=UNNAMED,
    ),
    "bob approves": row("approved", "pending", "approved", replanned="plan_changed", returned=UNNAMED),
    "bob rejects": row("rejected", "rejected", "rejected", replanned="plan_changed", returned=UNNAMED),
    "the requester approves": row(
        "self_approval", "self_approval", "self_approval", replanned="plan_changed", returned=UNNAMED
    ),
    "bob, without a grant": dict.fromkeys(STATES, "grant_missing"),
    "alice, without a grant": dict.fromkeys(STATES, "grant_missing"),
    "bob approves the other plan": row(
        "plan_changed", "plan_changed", "plan_changed", replanned=UNNAMED, returned="plan_changed"
    ),
    "alice's request that was captured": APPROVES | {"returned": "repeat"},
    "alice's request, captured by a client of the same ids": APPROVES,
    "alice's other request": APPROVES,
    "alice's other request of the same id": row(
        "rejected",
        "rejected",
        "already_voted",
        rejected="repeat",
        replanned="plan_changed",
        returned=UNNAMED,
    ),
    "alice approves round 2": row(
        "plan_changed", "plan_changed", "plan_changed", replanned="pending", returned="plan_changed"
    ),
    "alice approves round 3": row(
        "plan_changed", "plan_changed", "plan_changed", replanned="plan_changed", returned="pending"
    ),
    "alice by the link of round 1": row(
        "approved", "pending", **REPEATED, replanned="repeat", returned="repeat"
    ),
    "bob by the link of round 1": row(
        "approved", "pending", "approved", replanned="plan_changed", returned="plan_changed"
    ),
    "bob by the link of round 2": row(
        "plan_changed", "plan_changed", "plan_changed", replanned="pending", returned="plan_changed"
    ),
}


def test_the_table_speaks_of_every_pair() -> None:
    assert TABLE.keys() == BALLOTS.keys()
    assert all(told.keys() == STATES.keys() for told in TABLE.values())


@pytest.mark.parametrize(("name", "state"), [(name, state) for name in BALLOTS for state in STATES])
def test_each_ballot_meets_in_each_state_what_the_table_says(name: str, state: str) -> None:
    assert verdict(STATES[state], BALLOTS[name]) == TABLE[name][state]


# --- the order of the checks -------------------------------------------------------------------------------

OVERDUE = evolve(VOTED, expires_at=NOW)

FIRST_OF_TWO: dict[str, tuple[Approval, Ballot, str]] = {
    "a missing grant before a repeat": (VOTED, ballot(grants=frozenset()), "grant_missing"),
    "a repeat before the end": (STATES["cancelled"], ballot(), "repeat"),
    "a repeat before the expiry": (STATES["expired"], ballot(), "repeat"),
    "a repeat before the clock": (OVERDUE, ballot(), "repeat"),
    "a repeat before the plan": (STATES["replanned"], ballot(), "repeat"),
    "the end before the clock": (
        evolve(STATES["approved"], expires_at=NOW),
        ballot(actor=BOB),
        "already_decided",
    ),
    "the end before the plan": (STATES["approved"], ballot(plan_hash=OTHER), "already_decided"),
    "the clock before the plan": (OVERDUE, ballot(plan_hash=OTHER), "expired"),
    "the plan before the round": (STATES["returned"], ballot(actor=BOB, plan_hash=OTHER), "plan_changed"),
    "the round before the requester": (STATES["returned"], ballot(actor=CI), UNNAMED),
    "the plan before the requester": (pending(), ballot(actor=CI, plan_hash=OTHER), "plan_changed"),
    "the plan before another choice": (VOTED, rejects(plan_hash=OTHER), "plan_changed"),
    "the requester before another choice": (
        cast(pending(required_approvals=2), ballot(actor=CI), NOW),
        rejects(actor=CI),
        "self_approval",
    ),
}


@pytest.mark.parametrize("name", FIRST_OF_TWO)
def test_of_two_things_that_stand_against_a_ballot_the_first_in_the_contract_is_told(name: str) -> None:
    stored, given, told = FIRST_OF_TWO[name]
    assert verdict(stored, given) == told


def test_the_requester_may_decide_where_the_config_allows_it() -> None:
    assert verdict(pending(), ballot(actor=CI), allow_self=True) == "approved"


RENAMED = Actors({ALICE: ["u02slack", "alice@old.example"]}).canonical
"""Names that were not known to be Alice's when the request and the first decision came."""


@pytest.mark.parametrize(
    ("requester", "actor"),
    [("u02slack", ALICE), (ALICE, "u02slack"), ("alice@old.example", "u02slack"), (ALICE, ALICE)],
)
def test_the_requester_is_known_by_names_that_the_config_has_since_learned(
    requester: str, actor: str
) -> None:
    asked = pending(requested_by=requester)
    assert verdict(asked, ballot(actor=actor), canonical=RENAMED) == "self_approval"
    assert verdict(asked, ballot(actor=BOB), canonical=RENAMED) == "approved"
    assert verdict(asked, ballot(actor=actor), canonical=RENAMED, allow_self=True) == "approved"


def test_nobody_votes_a_second_time_under_a_name_that_the_config_has_since_learned() -> None:
    voted = cast(pending(required_approvals=2), ballot(actor="u02slack"), NOW - MINUTE)
    assert verdict(voted, ballot(actor=ALICE)) == "approved"
    assert verdict(voted, ballot(actor=ALICE), canonical=RENAMED) == "already_voted"
    assert verdict(voted, ballot(actor=BOB), canonical=RENAMED) == "approved"


def test_the_missing_grants_are_named_and_the_ones_held_are_not() -> None:
    with pytest.raises(GrantMissingError, match=r"grants prod, ops$"):
        check_grants(
            pending(required_grants=("Packs.Approve", "prod", "ops")),
            ballot(grants=frozenset({"Packs.Approve"})),
        )


GROUPS = (Group("security", "sec", 1), Group("operations", "ops", 1))


def test_who_holds_no_groups_grant_is_refused_and_told_the_grants_there_are() -> None:
    asked = pending(groups=GROUPS, required_approvals=2)
    held = frozenset({"Packs.Approve", "prod"})
    with pytest.raises(GrantMissingError, match=r"one of its groups: sec, ops$"):
        check_grants(asked, ballot(grants=held))
    check_grants(asked, ballot(grants=held | {"ops"}))


def test_a_decision_keeps_the_groups_that_its_actor_could_count_in_then() -> None:
    asked = pending(groups=GROUPS, required_approvals=2)
    one = cast(asked, ballot(grants=frozenset({"Packs.Approve", "prod", "sec"})), NOW)
    assert (one.status, one.decisions[-1].groups) == (Status.PENDING, ("security",))
    same = cast(one, ballot(actor=BOB, grants=frozenset({"Packs.Approve", "prod", "sec"})), NOW)
    assert same.status is Status.PENDING
    other = cast(one, ballot(actor=BOB, grants=frozenset({"Packs.Approve", "prod", "sec", "ops"})), NOW)
    assert (other.status, other.decisions[-1].groups) == (Status.APPROVED, ("security", "operations"))


# --- break-glass -------------------------------------------------------------------------------------------

EVERY = frozenset({"Packs.Approve", "prod", "Packs.BreakGlass"})


def breaks(**changes: Any) -> Ballot:
    return ballot(**{"break_glass": True, "grants": EVERY, **changes})


def test_breaking_the_glass_ends_an_approval_whatever_its_quorum_and_groups() -> None:
    asked = pending(required_approvals=9, groups=GROUPS)
    after = cast(asked, breaks(), NOW)
    assert (after.status, after.ended_by, after.resume) == (Status.APPROVED, ALICE, ResumeStatus.QUEUED)
    record, notice = (owed_row(effect) for effect in after.effects[:2])
    assert isinstance(record, AuditRecord)
    assert (record.name, record.data["comment"]) == (AuditName.OVERRIDDEN, "looks good")
    assert isinstance(notice, Event)
    assert orjson.loads(notice.body)["decision"]["breakGlass"] is True


BROKEN: dict[str, tuple[Approval, Ballot, str]] = {
    "with the grant": (pending(required_approvals=2), breaks(), "approved"),
    "in no group": (pending(groups=GROUPS, required_approvals=2), breaks(), "approved"),
    "without the grant": (pending(), breaks(grants=EVERY - {"Packs.BreakGlass"}), "grant_missing"),
    "without a grant that all need": (pending(), breaks(grants=EVERY - {"prod"}), "grant_missing"),
    "without a comment": (pending(), breaks(comment=" "), "invalid_event"),
    "with a comment that nobody sees": (pending(), breaks(comment="\u200b"), "invalid_event"),
    "to reject": (pending(), breaks(choice=Choice.REJECTED), "invalid_event"),
    "by who asked": (pending(), breaks(actor=CI), "self_approval"),
    "by who has approved": (VOTED, breaks(), "approved"),
    "after the end": (STATES["rejected"], breaks(), "already_decided"),
    "after the expiry": (STATES["overdue"], breaks(), "expired"),
    "of another plan": (pending(), breaks(plan_hash=OTHER), "plan_changed"),
    "again": (cast(VOTED, breaks(), NOW), breaks(comment="in other words"), "repeat"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_glass_is_broken_by_whom_the_contract_says_and_as_it_says(name: str) -> None:
    stored, given, told = BROKEN[name]
    assert verdict(stored, given) == told


def test_who_asked_breaks_no_glass_even_where_the_config_lets_them_approve() -> None:
    assert verdict(pending(), breaks(actor=CI), allow_self=True) == "self_approval"


def test_everything_that_a_broken_glass_lacks_is_told_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        check_ballot(
            STATES["returned"],
            breaks(choice=Choice.REJECTED, comment=""),
            NOW,
            allow_self=False,
            canonical=str,
        )
    assert [fault.pointer for fault in caught.value.faults] == ["/round", "/breakGlass", "/comment"]


def test_breaking_the_glass_is_another_decision_than_approving() -> None:
    parts: Any = ["acme", "run-1", "deploy", 1, PLAN, "approved", ALICE, {"breakGlass": True}]
    assert ballot_hash(pending(), breaks(), 1, {}) == hashlib.sha256(rfc8785.dumps(parts)).hexdigest()
    assert ballot_hash(pending(), breaks(), 1, {}) != ballot_hash(pending(), ballot(), 1, {})


# --- deputies ----------------------------------------------------------------------------------------------

CAROL = "carol@acme.example"
STOOD_IN = cast(pending(required_approvals=3), ballot(actor=BOB, on_behalf_of=ALICE), NOW - MINUTE)

DEPUTIES: dict[str, tuple[Approval, Ballot, str]] = {
    "for somebody": (pending(), ballot(actor=BOB, on_behalf_of=ALICE), "approved"),
    "for who asked": (pending(), ballot(actor=BOB, on_behalf_of=CI), "self_approval"),
    "who asked, for somebody": (pending(), ballot(actor=CI, on_behalf_of=ALICE), "self_approval"),
    "for who has decided": (VOTED, ballot(actor=BOB, on_behalf_of=ALICE), "already_voted"),
    "who has decided, for somebody": (VOTED, ballot(on_behalf_of=CAROL), "already_voted"),
    "for who has, by name of old": (VOTED, ballot(actor=BOB, on_behalf_of="u02slack"), "already_voted"),
    "again": (STOOD_IN, ballot(actor=BOB, on_behalf_of=ALICE), "repeat"),
    "beside the one they stood in for": (STOOD_IN, ballot(), "already_voted"),
    "as themselves too": (STOOD_IN, ballot(actor=BOB), "already_voted"),
    "for another too": (STOOD_IN, ballot(actor=BOB, on_behalf_of=CAROL), "already_voted"),
    "and another deputy for the same": (STOOD_IN, ballot(actor=CAROL, on_behalf_of=ALICE), "already_voted"),
    "and somebody else": (STOOD_IN, ballot(actor=CAROL), "pending"),
}


@pytest.mark.parametrize("name", DEPUTIES)
def test_a_person_and_a_deputy_decide_once(name: str) -> None:
    stored, given, told = DEPUTIES[name]
    assert verdict(stored, given, canonical=RENAMED) == told


def test_a_deputys_decision_names_both_and_is_another_than_their_own() -> None:
    parts: Any = ["acme", "run-1", "deploy", 1, PLAN, "approved", BOB, {"onBehalfOf": ALICE}]
    (decision,) = STOOD_IN.decisions
    assert decision.decision_hash == hashlib.sha256(rfc8785.dumps(parts)).hexdigest()
    record, notice = (owed_row(effect) for effect in STOOD_IN.effects)
    assert isinstance(record, AuditRecord)
    assert (record.actor, record.data["onBehalfOf"]) == (BOB, ALICE)
    assert isinstance(notice, Event)
    told = orjson.loads(notice.body)
    assert (told["decision"]["onBehalfOf"], told["approvals"]["actors"]) == (ALICE, [BOB, ALICE])


# --- identity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [ALICE, "client:console", 'Zoë 👩\u200d🚀 \\ " \u2028'])
@pytest.mark.parametrize("choice", Choice)
def test_a_decisions_hash_is_that_of_the_array_the_contract_names(actor: str, choice: Choice) -> None:
    parts: list[str | int] = ["acme", "run-1", "deploy", 2, PLAN, choice.value, actor]
    expected = hashlib.sha256(rfc8785.dumps(parts)).hexdigest()
    assert ballot_hash(pending(), ballot(actor=actor, choice=choice), 2, {}) == expected
    recorded = cast(pending(round=2), ballot(actor=actor, choice=choice), NOW).decisions[-1]
    assert recorded.decision_hash == expected


def test_no_two_parts_of_the_identity_can_be_shifted_into_one_another() -> None:
    one = ballot_hash(pending(run_id="run", approval_id="1deploy"), ballot(), 1, {})
    assert one != ballot_hash(pending(run_id="run1", approval_id="deploy"), ballot(), 1, {})


# --- what a ballot leaves ----------------------------------------------------------------------------------


def test_a_recorded_decision_keeps_all_that_tells_who_how_and_when() -> None:
    given = ballot(via=Via.LINK, client="", round=1)
    recorded = cast(pending(), given, NOW).decisions[-1]
    assert (recorded.actor, recorded.choice, recorded.comment) == (ALICE, Choice.APPROVED, "looks good")
    assert (recorded.decided_at, recorded.round, recorded.plan_hash) == (NOW, 1, PLAN)
    assert (recorded.via, recorded.client, recorded.correlation_id) == (Via.LINK, "", "corr-ballot")


def test_the_last_needed_approval_ends_the_approval_and_queues_one_callback() -> None:
    after = cast(VOTED, ballot(actor=BOB), NOW)
    assert (after.status, after.ended_by, after.ended_at) == (Status.APPROVED, BOB, NOW)
    assert after.resume is ResumeStatus.QUEUED
    (resume,) = (effect for effect in after.effects if effect.kind is EffectKind.RESUME)
    assert resume.id == after.resume_delivery
    assert resume.data == {"decisionHash": after.decisions[-1].decision_hash, "version": after.version}


def test_one_rejection_ends_the_approval_whatever_the_quorum() -> None:
    after = cast(pending(required_approvals=9), rejects(), NOW)
    assert (after.status, after.resume) == (Status.REJECTED, ResumeStatus.QUEUED)


def test_an_approval_that_is_not_the_last_owes_a_notice_and_a_line_and_no_callback() -> None:
    assert [effect.kind for effect in VOTED.effects] == [EffectKind.AUDIT, EffectKind.NOTICE]
    assert (VOTED.resume, VOTED.resume_delivery) == (ResumeStatus.NONE, None)


def test_an_approval_without_a_callback_is_told_to_forwarders_alone() -> None:
    after = cast(pending(callback_url=None, sealed_token=None), ballot(), NOW)
    assert (after.status, after.resume, after.resume_delivery) == (Status.APPROVED, ResumeStatus.NONE, None)
    assert EffectKind.RESUME in {effect.kind for effect in after.effects}


def test_each_decision_owes_effects_of_its_own() -> None:
    after = cast(VOTED, ballot(actor=BOB), NOW)
    ids = [effect.id for effect in after.effects]
    assert len(set(ids)) == len(ids) == 5


def rows(after: Approval) -> dict[str, AuditRecord | Event]:
    """The rows that are owed, as they come out of a store: their data read back from JSON."""
    owed = [e for e in after.effects if e.kind is not EffectKind.RESUME]
    return {e.kind.value: owed_row(evolve(e, data=orjson.loads(orjson.dumps(e.data)))) for e in owed}


def test_the_owed_notice_tells_rules_of_the_request_and_the_decision() -> None:
    notice = rows(cast(pending(required_approvals=2), ballot(), NOW))["notice"]
    assert isinstance(notice, Event)
    body = orjson.loads(notice.body)
    assert (notice.kind, notice.action, notice.version) == ("pack.approval", "acknowledged", 2)
    assert (body["kind"], body["action"], body["eventId"]) == ("pack.approval", "acknowledged", notice.key)
    assert body["labels"] == {"environment": "production"}
    assert "type" not in body
    assert body["decision"]["actor"] == ALICE
    assert body["decision"]["comment"] == "looks good"
    assert body["approvals"] == {"required": 2, "received": 1, "actors": [ALICE]}
    assert body["status"] == "pending"


def test_the_owed_audit_line_names_the_actor_and_the_way_and_repeats_no_comment() -> None:
    line = rows(cast(pending(), ballot(via=Via.LINK), NOW))["audit"]
    assert isinstance(line, AuditRecord)
    assert (line.name, line.actor, line.at) == (AuditName.ACKNOWLEDGED, ALICE, NOW)
    assert (line.data["via"], line.data["decision"]) == ("link", "approved")
    assert "comment" not in line.data


def test_what_is_owed_is_the_same_row_each_time_it_is_made() -> None:
    assert rows(cast(pending(), ballot(), NOW)) == rows(cast(pending(), ballot(), NOW))
    assert rows(timed_out(pending())) == rows(timed_out(pending()))


def test_the_notice_of_an_expiry_tells_how_many_had_approved() -> None:
    notice = [owed_row(e) for e in timed_out(VOTED).effects if e.kind is EffectKind.NOTICE][-1]
    assert isinstance(notice, Event)
    assert notice.action == "expired"
    assert orjson.loads(notice.body)["approvals"] == {"required": 2, "received": 1}


def test_an_expiry_owes_the_callback_of_a_decision_by_nobody() -> None:
    after = timed_out(VOTED)
    parts: list[str | int] = ["acme", "run-1", "deploy", 1, PLAN, "expired", ""]
    resume = after.effects[-1]
    assert (resume.kind, resume.id) == (EffectKind.RESUME, after.resume_delivery)
    assert resume.data == {
        "decisionHash": hashlib.sha256(rfc8785.dumps(parts)).hexdigest(),
        "version": after.version,
    }
    assert after.resume is ResumeStatus.QUEUED


def test_an_expiry_without_a_callback_is_told_to_forwarders_alone() -> None:
    after = timed_out(pending(callback_url=None, sealed_token=None))
    assert (after.status, after.resume, after.resume_delivery) == (Status.EXPIRED, ResumeStatus.NONE, None)
    assert [effect.kind for effect in after.effects] == [
        EffectKind.AUDIT,
        EffectKind.NOTICE,
        EffectKind.RESUME,
    ]
