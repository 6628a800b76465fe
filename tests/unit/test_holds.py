"""The hold machine: every state with every event, and any order of arrival."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.approval.holds import on_hold, on_released
from notifyd.model import AuditName, Event, Incident, Instant, Outcome
from notifyd.store import Advance
from tests.store.makers import MINUTE, NOW, event

Machine = Callable[[Incident | None, Event, str], Advance]


def arriving(machine: Machine, key: str, minute: int) -> Callable[[Incident | None], Advance]:
    given = event(key, kind="pack.policy", occurred_at=at(minute), body=f'{{"from":"{key}"}}')
    return lambda stored: machine(stored, given, "prod")


def at(minute: int) -> Instant:
    return NOW + minute * MINUTE


def subject(advance: Advance) -> Incident:
    assert isinstance(advance.subject, Incident)
    return advance.subject


OPEN = subject(arriving(on_hold, "first", 0)(None))
CLOSED = subject(arriving(on_released, "second", 1)(OPEN))
NEVER_OPENED = subject(arriving(on_released, "first", 1)(None))

STATES: dict[str, Incident | None] = {
    "none": None,
    "open": OPEN,
    "closed": CLOSED,
    "never opened": NEVER_OPENED,
}

INPUTS: dict[str, Callable[[Incident | None], Advance]] = {
    "hold, later": arriving(on_hold, "new", 5),
    "hold, earlier": arriving(on_hold, "new", -5),
    "released, later": arriving(on_released, "new", 5),
    "released, earlier": arriving(on_released, "new", -5),
}


@frozen
class Does:
    """The outcome, and, where the stored incident changes, whether it is open and its version."""

    outcome: Outcome
    open: bool | None = None
    version: int = 0


RECORDED = Does(Outcome.RECORDED)

TABLE: dict[str, dict[str, Does]] = {
    "hold, later": {
        "none": Does(Outcome.OPENED, True, 1),
        "open": Does(Outcome.RECORDED, True, 2),
        "closed": Does(Outcome.OPENED, True, 3),
        "never opened": Does(Outcome.OPENED, True, 2),
    },
    "hold, earlier": {
        "none": Does(Outcome.OPENED, True, 1),
        "open": RECORDED,
        "closed": RECORDED,
        "never opened": RECORDED,
    },
    "released, later": {
        "none": Does(Outcome.ENDED, False, 1),
        "open": Does(Outcome.ENDED, False, 2),
        "closed": Does(Outcome.RECORDED, False, 3),
        "never opened": Does(Outcome.RECORDED, False, 2),
    },
    "released, earlier": {
        "none": Does(Outcome.ENDED, False, 1),
        "open": RECORDED,
        "closed": RECORDED,
        "never opened": RECORDED,
    },
}

PAIRS = [(name, state) for name in INPUTS for state in STATES]


@pytest.mark.parametrize(("name", "state"), PAIRS)
def test_each_event_does_to_each_state_what_the_table_says(name: str, state: str) -> None:
    does, advance = TABLE[name][state], INPUTS[name](STATES[state])
    assert advance.outcome is does.outcome
    assert advance.notify is (does.outcome is not Outcome.RECORDED)
    assert advance.round == 0
    assert (advance.subject is None) is (does.open is None)
    if does.open is not None:
        after = subject(advance)
        assert (after.open, after.version, advance.version) == (does.open, does.version, does.version)


@pytest.mark.parametrize(("name", "state"), PAIRS)
def test_an_event_that_comes_again_as_if_it_were_new_changes_nothing(name: str, state: str) -> None:
    first = INPUTS[name](STATES[state])
    after = STATES[state] if first.subject is None else subject(first)
    again = INPUTS[name](after)
    assert (again.subject, again.outcome, again.notify) == (None, Outcome.RECORDED, False)


def test_an_incident_tells_when_it_was_opened_and_closed() -> None:
    assert (OPEN.opened_at, OPEN.closed_at) == (NOW, None)
    assert (CLOSED.opened_at, CLOSED.closed_at) == (NOW, NOW)
    assert (NEVER_OPENED.opened_at, NEVER_OPENED.closed_at) == (None, NOW)
    assert CLOSED.request == '{"from":"second"}'


def test_the_audit_names_the_event_its_policy_and_what_it_did() -> None:
    (line,) = INPUTS["hold, later"](CLOSED).audit
    assert (line.name, line.data["policy"], line.data["outcome"]) == (AuditName.HOLD, "prod", "opened")
    (line,) = INPUTS["released, earlier"](OPEN).audit
    assert (line.name, line.data["policy"], line.data["outcome"]) == (AuditName.RELEASED, "prod", "recorded")


def test_a_repeated_hold_that_comes_before_a_late_release_keeps_the_incident_open() -> None:
    repeated = subject(arriving(on_hold, "again", 5)(OPEN))
    late = arriving(on_released, "late", 3)(repeated)
    assert (late.subject, late.outcome) == (None, Outcome.RECORDED)


events_in_time = st.lists(st.sampled_from((on_hold, on_released)), min_size=1, max_size=5)


def test_a_release_is_seen_over_what_its_hold_said_with_its_own_members_on_top() -> None:
    hold = event("h", kind="pack.policy", occurred_at=at(0), body='{"labels":{"a":"b"},"type":"Hold"}')
    release = event("r", kind="pack.policy", occurred_at=at(1), body='{"type":"Released"}')
    opened = subject(on_hold(None, hold, "prod"))
    advance = on_released(opened, release, "prod")
    assert advance.body == subject(advance).request == '{"labels":{"a":"b"},"type":"Released"}'
    bare = event("h2", kind="pack.policy", occurred_at=at(2), body='{"type":"Hold"}')
    assert on_hold(subject(advance), bare, "prod").body == bare.body, "a new hold says what it says"


@settings(max_examples=60)
@given(events_in_time)
def test_whatever_the_order_of_arrival_the_latest_event_decides(machines: list[Machine]) -> None:
    arrivals = [arriving(machine, f"e{minute}", minute) for minute, machine in enumerate(machines)]
    for order in itertools.permutations(arrivals):
        stored: Incident | None = None
        for arrive in order:
            advance = arrive(stored)
            after = stored if advance.subject is None else subject(advance)
            assert after is not None
            assert after.version == (stored.version if stored else 0) + (advance.subject is not None)
            stored = after
        assert stored is not None
        assert stored.open is (machines[-1] is on_hold)
