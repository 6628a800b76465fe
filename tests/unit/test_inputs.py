"""What approvers are asked to fill in: what may be asked, what will do, and what it does to a decision."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from typing import Any

import pytest
import rfc8785
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.approval.ballots import Ballot, ballot_hash, cast, check_ballot, earlier_answer
from notifyd.approval.inputs import (
    MAX_TEXT,
    definition_faults,
    effective,
    proposed,
    settled,
    value_faults,
)
from notifyd.errors import InputsDifferError, InvalidError, NotifydError
from notifyd.model import Approval, Choice, Input, InputType, Status, Via
from notifyd.rules.patterns import is_pattern, matches_whole
from tests.store.makers import NOW, approval

PLAN = "sha256:" + "a" * 64


def asked(name: str, type_: str = "text", **changes: Any) -> Input:
    given = Input(name, name, InputType(type_), required=False, pattern=None, choices=(), default=None)
    return evolve(given, **changes)


VERSION = asked("version", pattern=r"v\d+", required=True)
REPLICAS = asked("replicas", "number", default=3)
REGION = asked("region", "choice", choices=("eu", "us"), default="eu")
DRAIN = asked("drain", "boolean")
ALL = (VERSION, REPLICAS, REGION, DRAIN)


def pointers(faults: Any) -> list[str]:
    return [fault.pointer for fault in faults]


# --- what may be asked -------------------------------------------------------------------------------------

REFUSED = {
    "a pattern of a number": (asked("a", "number", pattern="1"), "pattern"),
    "choices of a text": (asked("a", choices=("x",)), "choices"),
    "a choice of nothing": (asked("a", "choice"), "choices"),
    "a choice of too much": (asked("a", "choice", choices=tuple(map(str, range(51)))), "choices"),
    "a choice twice": (asked("a", "choice", choices=("x", "x")), "choices"),
    "a default that is not a choice": (asked("a", "choice", choices=("x",), default="y"), "default"),
    "a default of another type": (asked("a", "number", default="3"), "default"),
    "a number that is true": (asked("a", "number", default=True), "default"),
    "a boolean that is a number": (asked("a", "boolean", default=1), "default"),
    "a default that does not match": (asked("a", pattern="b", default="a"), "default"),
    "a default of several lines": (asked("a", default="a\nb"), "default"),
    "a default that is too long": (asked("a", default="a" * (MAX_TEXT + 1)), "default"),
    "an object": (asked("a", default={"b": 1}), "default"),
    "a pattern that is none": (asked("a", pattern="("), "pattern"),
    "a pattern that leaves its group": (asked("a", pattern="a)|(?:b"), "pattern"),
    "look-ahead": (asked("a", pattern="(?=a)a"), "pattern"),
    "a back-reference": (asked("a", pattern=r"(a)\1"), "pattern"),
    "a pattern that grows too large": (asked("a", pattern=r"(\w{200}){200}"), "pattern"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_refused_with_its_place(name: str) -> None:
    one, member = REFUSED[name]
    assert pointers(definition_faults((asked("first"), one))) == [f"/inputs/1/{member}"]


def test_what_can_be_asked_is_taken_and_names_differ() -> None:
    assert pointers(definition_faults(ALL)) == []
    assert pointers(definition_faults((VERSION, VERSION))) == ["/inputs/1/name"]
    assert pointers(definition_faults([asked(f"a{n}") for n in range(21)])) == ["/inputs"]
    assert pointers(definition_faults([asked(f"a{n}", pattern="a") for n in range(11)])) == ["/inputs"]


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(a|a)*b", r"(.*a){20}b", r"(?:a?){100}a{100}b"])
def test_a_pattern_that_would_take_for_ever_elsewhere_takes_no_time(pattern: str) -> None:
    assert is_pattern(pattern)
    started = time.thread_time()
    assert not matches_whole(pattern, "a" * MAX_TEXT)
    assert time.thread_time() - started < 1


def test_a_pattern_has_to_match_all_of_a_text() -> None:
    assert matches_whole("a|ab", "ab")
    assert not matches_whole("a", "ab")
    assert not matches_whole("(?m)^a$", "a\nb")


# --- what will do ------------------------------------------------------------------------------------------


def test_every_fault_of_what_is_filled_in_is_told_at_once() -> None:
    given = {"version": "x", "replicas": "3", "region": "asia", "drain": "yes", "other": 1}
    assert pointers(value_faults(ALL, given)) == [
        "/inputs/other",
        "/inputs/version",
        "/inputs/replicas",
        "/inputs/region",
        "/inputs/drain",
    ]
    assert pointers(value_faults(ALL, {})) == ["/inputs/version"]
    assert pointers(value_faults(ALL, {"version": ""})) == ["/inputs/version"]


@pytest.mark.parametrize("value", [3, 3.5, -1, 0])
def test_a_number_may_have_a_fraction(value: float) -> None:
    assert pointers(value_faults((REPLICAS,), {"replicas": value})) == []


def test_a_default_stands_in_for_what_is_left_out_and_not_for_null() -> None:
    assert effective(proposed(ALL), {"version": "v1"}) == {"version": "v1", "replicas": 3, "region": "eu"}
    given = {"version": "v1", "replicas": None, "region": ""}
    assert effective(proposed(ALL), given) == {"version": "v1"}


# --- what it does to a decision ----------------------------------------------------------------------------


def pending(**changes: Any) -> Approval:
    return approval(**{"plan_hash": PLAN, "inputs": ALL, "required_approvals": 2, **changes})


def ballot(actor: str = "alice@acme.example", choice: Choice = Choice.APPROVED, **inputs: Any) -> Ballot:
    return Ballot(
        tenant="acme",
        run_id="run-1",
        approval_id="deploy",
        choice=choice,
        plan_hash=PLAN,
        actor=actor,
        comment="",
        via=Via.CLIENT,
        client="console",
        grants=frozenset({"Packs.Approve"}),
        correlation_id="corr",
        inputs=inputs,
    )


def check(stored: Approval, given: Ballot) -> None:
    check_ballot(stored, given, NOW, allow_self=False, canonical=str)


ONE = cast(pending(), ballot(version="v1"), NOW)
BOB = "bob@acme.example"


def test_what_is_filled_in_is_part_of_the_identity_of_an_approval() -> None:
    filled_in = {"version": "v1", "replicas": 3, "region": "eu"}
    parts: Any = ["acme", "run-1", "deploy", 1, PLAN, "approved", "alice@acme.example", {"inputs": filled_in}]
    (decision,) = ONE.decisions
    assert decision.decision_hash == hashlib.sha256(rfc8785.dumps(parts)).hexdigest()
    assert (decision.inputs, settled(ONE)) == (filled_in, filled_in)


def test_an_approval_of_what_asks_for_nothing_has_the_ordinary_identity() -> None:
    parts: Any = ["acme", "run-1", "deploy", 1, PLAN, "approved", "alice@acme.example"]
    expected = hashlib.sha256(rfc8785.dumps(parts)).hexdigest()
    assert ballot_hash(pending(inputs=()), ballot(), 1, {}) == expected


def test_others_confirm_what_the_first_has_filled_in() -> None:
    check(ONE, ballot(BOB, version="v1", replicas=3.0))
    for other in ({"version": "v2"}, {"version": "v1", "replicas": 4}, {"version": "v1", "drain": False}):
        with pytest.raises(InputsDifferError):
            check(ONE, ballot(BOB, **other))
    assert cast(ONE, ballot(BOB, version="v1"), NOW).status is Status.APPROVED


def test_a_rejection_fills_in_nothing() -> None:
    check(ONE, ballot(BOB, Choice.REJECTED))
    assert cast(ONE, ballot(BOB, Choice.REJECTED), NOW).decisions[-1].inputs == {}
    with pytest.raises(InvalidError) as caught:
        check(ONE, ballot(BOB, Choice.REJECTED, version="v1"))
    assert pointers(caught.value.faults) == ["/inputs"]


def test_what_will_not_do_is_refused_beside_the_missing_round() -> None:
    with pytest.raises(InvalidError) as caught:
        check(pending(round=2), ballot(version="x", drain=1))
    assert pointers(caught.value.faults) == ["/round", "/inputs/version", "/inputs/drain"]


@pytest.mark.parametrize("nothing", ["", " ", "\u200b", None])
def test_what_is_required_is_not_filled_in_with_what_nobody_sees(nothing: str | None) -> None:
    name = evolve(asked("name"), required=True)
    assert [fault.pointer for fault in value_faults([name], {"name": nothing})] == ["/inputs/name"]


def test_the_same_decision_again_is_known_by_what_it_fills_in_and_after_a_change_of_what_is_asked() -> None:
    assert earlier_answer(ONE, ballot(version="v1")) == ONE.decisions[0]
    assert earlier_answer(ONE, ballot(version="v1", region="eu")) == ONE.decisions[0]
    assert earlier_answer(ONE, ballot(version="v2")) is None
    later = evolve(pending(inputs=()), round=2, plan_hash="sha256:" + "b" * 64)
    assert earlier_answer(later, ballot(version="v1"), ONE.decisions) == ONE.decisions[0]
    assert earlier_answer(later, ballot(version="v2"), ONE.decisions) is None


ACTORS = ("alice@acme.example", BOB, "carol@acme.example")
ballots = st.builds(
    lambda actor, choice, version, drain: ballot(actor, choice, version=version, drain=drain),
    st.sampled_from(ACTORS),
    st.sampled_from((Choice.APPROVED, Choice.APPROVED, Choice.REJECTED)),
    st.sampled_from(("v1", "v2", "x", None)),
    st.sampled_from((True, None)),
)


@settings(max_examples=100)
@given(st.lists(ballots, max_size=8))
def test_all_who_approve_a_round_have_filled_in_the_same_and_what_will_do(sequence: list[Ballot]) -> None:
    stored = pending(required_approvals=3)
    for one in sequence:
        with suppress(NotifydError):  # what is refused changes nothing
            check(stored, one if one.choice is Choice.APPROVED else evolve(one, inputs={}))
            stored = cast(stored, one, NOW)
    filled_in = [d.inputs for d in stored.decisions if d.choice is Choice.APPROVED]
    assert all(inputs == settled(stored) for inputs in filled_in)
    assert all(not list(value_faults(ALL, inputs)) for inputs in filled_in)
    assert all(d.inputs == {} for d in stored.decisions if d.choice is Choice.REJECTED)
