"""When reminders and escalations are due, what a configuration may say of them, and what it can hardly mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from attrs import evolve

from notifyd.approval.timers import first_due, steps, take_steps
from notifyd.config.doubts import doubts
from notifyd.config.settings import Escalation, Rule
from notifyd.config.units import Duration, parse_moment, show_moment
from notifyd.errors import ConfigError
from notifyd.model import EffectKind
from notifyd.wire.codec import rfc3339
from tests.fakes import Channels, settings
from tests.store.makers import HOUR, MINUTE, NOW, approval, decision

RULE = Rule(
    name="approvals",
    when="true",
    channels=("mail",),
    remind=(parse_moment("2h"), parse_moment("30m before expiry")),
    escalate=(Escalation(Duration(HOUR), ("ops",)),),
)
WAITING = approval(requested_at=NOW, created_at=NOW, expires_at=NOW + 4 * HOUR, timer_at=NOW + HOUR)


def test_the_steps_of_a_round_are_in_order_and_count_from_its_opening_and_its_expiry() -> None:
    found = steps([RULE], NOW, NOW + 4 * HOUR)
    assert [(step.action.value, step.name, step.due_at - NOW) for step in found] == [
        ("escalated", "1h", HOUR),
        ("reminded", "2h", 2 * HOUR),
        ("reminded", "30m before expiry", 4 * HOUR - 30 * MINUTE),
    ]
    assert first_due([RULE], NOW, NOW + 4 * HOUR) == NOW + HOUR


def test_what_would_come_before_the_request_or_at_its_end_or_later_never_comes() -> None:
    assert steps([RULE], NOW, NOW + 10 * MINUTE) == []
    assert [step.name for step in steps([RULE], NOW, NOW + HOUR)] == ["30m before expiry"]
    assert first_due([RULE], NOW, NOW + 10 * MINUTE) is None
    assert [step.name for step in steps([RULE], NOW, None)] == ["1h", "2h"]


def events_of(looked: Any) -> list[dict[str, Any]]:
    return [dict(effect.data) for effect in looked.effects if effect.kind is EffectKind.NOTICE]


def test_each_step_is_taken_once_and_its_event_has_one_id_whenever_it_is_made() -> None:
    early = take_steps(WAITING, [RULE], NOW + HOUR)
    (escalated,) = events_of(early)
    assert (escalated["action"], early.timer_at) == ("escalated", NOW + 2 * HOUR)
    assert take_steps(early, [RULE], NOW + HOUR + MINUTE).effects == early.effects
    late = take_steps(WAITING, [RULE], NOW + 2 * HOUR + MINUTE)
    assert [one["action"] for one in events_of(late)] == ["escalated", "reminded"]
    assert events_of(late)[0]["key"] == escalated["key"]
    assert events_of(late)[1]["key"] != escalated["key"]
    assert events_of(take_steps(evolve(WAITING, round=2), [RULE], NOW + HOUR))[0]["key"] != escalated["key"]


def test_an_event_tells_since_when_it_waits_how_long_is_left_and_who_has_voted() -> None:
    voted = evolve(WAITING, decisions=(decision("alice@acme.example"),), required_approvals=2)
    (event,) = events_of(take_steps(voted, [RULE], NOW + HOUR + 1))
    body = orjson.loads(event["body"])
    assert body["timer"] == {
        "rule": "approvals",
        "step": "1h",
        "since": rfc3339(NOW),
        "waited": 3600,
        "left": 3 * 3600,
    }
    assert body["approvals"]["actors"] == ["alice@acme.example"]


def test_a_changed_rule_counts_from_the_next_look_and_nothing_is_sent_twice_or_made_up_for() -> None:
    looked = take_steps(WAITING, [RULE], NOW + 2 * HOUR)
    sooner = evolve(RULE, remind=(parse_moment("90m"), parse_moment("3h")), escalate=())
    again = take_steps(looked, [sooner], NOW + 2 * HOUR + MINUTE)
    assert again.effects == looked.effects
    assert again.timer_at == NOW + 3 * HOUR
    assert take_steps(looked, [], NOW + 2 * HOUR + MINUTE).timer_at is None


@pytest.mark.parametrize("text", ["2h", "30m before expiry", "1d", "90s before expiry"])
def test_a_moment_is_shown_as_it_is_written(text: str) -> None:
    assert show_moment(parse_moment(text)) == text


@pytest.mark.parametrize(
    "text", ["", "soon", "2", "2h after expiry", "before expiry", "-2h", "0s", "30m  before expiry"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be (a duration|above zero)"):
        parse_moment(text)


CONFIG = """
[channels.team]
type = "fake"
[channels.mail]
type = "person"

[[rules]]
name = "approvals"
when = "true"
channels = ["mail"]
to = ["alice@acme.example"]
"""


@pytest.mark.parametrize(
    ("lines", "pointer", "message"),
    [
        ('remind = ["2h", "120m"]', "remind[1]", "is the same time as an earlier one"),
        ('remind = ["soon"]', "remind[0]", "must be a duration after the request"),
        (
            'escalate = [{after = "1h", channels = ["pager"]}]',
            "escalate[0].channels[0]",
            "there is no channel",
        ),
        ('escalate = [{after = "1h", channels = []}]', "escalate[0].channels", "must name at least one"),
        ('escalate = [{after = "1h"}]', "escalate[0].channels", "is required"),
        ('escalate = [{after = "0s", channels = ["team"]}]', "escalate[0].after", "must be from"),
        (
            'escalate = [{after = "1h", channels = ["team"], to = ["bob@acme.example"]}]',
            "escalate[0].to",
            "needs a channel that reaches named people",
        ),
        ('escalate = [{after = "1h", channels = ["mail"]}]', "escalate[0].to", "is required"),
        (
            'escalate = [{after = "1h", channels = ["mail"], to = ["Alice <alice@acme.example>"]}]',
            "escalate[0].to[0]",
            "is asked by the rule itself",
        ),
        (
            'escalate = [{after = "1h", channels = ["mail"], to = ["bob@acme.example", "BOB@acme.example"]}]',
            "escalate[0].to[1]",
            "is named twice",
        ),
        (
            'escalate = [{after = "1h", channels = ["team"]}, {after = "60m", channels = ["team"]}]',
            "escalate[1].after",
            "is the same time as an earlier one",
        ),
        ('window = "always"', "window", "must be days, hours and a time zone"),
    ],
)
def test_a_rule_whose_timers_or_hours_make_no_sense_is_refused(
    lines: str, pointer: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(CONFIG + lines, Channels())
    assert [fault.pointer for fault in raised.value.faults] == [f"rules.approvals.{pointer}"]
    assert message in raised.value.faults[0].message


def test_a_timer_that_no_approval_of_the_default_length_lives_to_see_is_doubted() -> None:
    lines = 'remind = ["5m", "30m before expiry"]\nescalate = [{after = "10m", channels = ["team"]}]\n'
    read = settings(CONFIG + lines + '[approvals]\ndefault_ttl = "10m"\n', Channels())
    assert [doubt.pointer for doubt in doubts(read)] == [
        "rules.approvals.remind[1]",
        "rules.approvals.escalate[0].after",
    ]
    assert "approvals.default_ttl is 10m" in doubts(read)[0].message
    assert doubts(settings(CONFIG + lines, Channels())) == []
