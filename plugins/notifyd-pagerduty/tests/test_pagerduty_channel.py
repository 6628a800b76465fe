"""The pagerduty channel: its events within PagerDuty's limits, and PagerDuty's recorded answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aioresponses import aioresponses
from attrs import evolve
from notifyd_pagerduty import PagerdutyConfig, notifyd_channel_types, payload

from notifyd.plugin import Action, Field, Level, Message, PermanentError, Reason, Secret, TransientError
from notifyd.testing import HOSTILE, LINK, HttpConformance, RecordedResponse, opened, sample_message

(PAGERDUTY,) = notifyd_channel_types()
KEY = "6pXe2mRb9d3yQ8Jv1nTz5kWc7Xe2mRb9"
URL = "https://events.pagerduty.com/v2/enqueue"


class TestPagerduty(HttpConformance):
    channel_type = PAGERDUTY

    def config(self, url: str) -> PagerdutyConfig:
        return PagerdutyConfig(routing_key=Secret(KEY), api_url=Secret(url))


def accepted(message: Message) -> dict[str, Any]:
    """The event, after the limits of PagerDuty's documentation have been checked."""
    body = payload(message)
    assert len(json.dumps(body).encode()) <= 512_000
    assert 0 < len(body["dedup_key"]) <= 255
    if body["event_action"] == "trigger":
        alert = body["payload"]
        assert 0 < len(alert["summary"]) <= 1024
        assert alert["source"]
        assert alert["severity"] in ("critical", "error", "warning", "info")
    return body


def about(kind: str, action: str, **members: Any) -> Message:
    message = sample_message()
    return evolve(message, event={**message.event, "kind": kind, "action": action, **members})


def test_a_request_triggers_an_alert_with_its_facts_and_links() -> None:
    message = sample_message()
    body = accepted(message)
    assert body["event_action"] == "trigger"
    assert body["links"] == [{"href": LINK, "text": "Review and decide"}]
    assert body["payload"] == {
        "summary": message.title,
        "source": "acme/run-0042",
        "severity": "warning",
        "timestamp": "2026-09-21T14:00:00Z",
        "custom_details": {
            "Environment": "production",
            "Requested by": "ci@acme.example",
            "text": message.body,
        },
    }


def test_facts_of_one_name_are_all_told() -> None:
    fields = (Field("Environment", "production"), Field("Environment", "staging"), Field("text", "a label"))
    details = accepted(sample_message(fields=fields, body="The text."))["payload"]["custom_details"]
    assert details == {"Environment": "production\nstaging", "text": "a label\nThe text."}


def test_a_hold_triggers_and_its_release_resolves_the_same_alert() -> None:
    held = accepted(about("pack.policy", "hold", policy={"id": "freeze"}))
    other = accepted(about("pack.policy", "hold", policy={"id": "budget"}))
    released = accepted(about("pack.policy", "released", policy={"id": "freeze"}))
    assert (held["event_action"], released) == (
        "trigger",
        {"event_action": "resolve", "dedup_key": held["dedup_key"]},
    )
    assert other["dedup_key"] != held["dedup_key"]


@pytest.mark.parametrize(
    ("action", "status", "does"),
    [
        ("requested", "pending", "trigger"),
        ("acknowledged", "pending", "trigger"),
        ("acknowledged", "approved", "resolve"),
        ("updated", "cancelled", "resolve"),
        ("expired", "expired", "resolve"),
        ("resumed", "approved", "resolve"),
    ],
)
def test_an_approval_is_one_alert_until_it_has_ended(action: str, status: str, does: str) -> None:
    body = accepted(about("pack.approval", action, status=status))
    assert (body["event_action"], body["dedup_key"]) == (does, payload(sample_message())["dedup_key"])


def test_a_callback_that_failed_is_an_alert_of_its_own() -> None:
    body = accepted(about("pack.approval", "resume_failed", status="approved"))
    assert body["event_action"] == "trigger"
    assert body["dedup_key"] != payload(sample_message())["dedup_key"]


def test_a_fire_drill_calls_nobody() -> None:
    body = accepted(evolve(sample_message(), event={"channel": "on-call", "drill": True}))
    assert body == {"event_action": "resolve", "dedup_key": sample_message().id}


def test_any_other_event_is_an_alert_of_its_own() -> None:
    message = evolve(sample_message(), event={"kind": "task.done", "action": "", "tenant": "acme"})
    body = accepted(message)
    assert (body["event_action"], body["dedup_key"]) == ("trigger", message.id)
    assert body["payload"]["source"] == "acme/task.done"


def test_each_level_but_success_has_a_severity_of_its_own() -> None:
    severities = {level: payload(sample_message(level=level))["payload"]["severity"] for level in Level}
    assert severities[Level.SUCCESS] == severities[Level.INFO] == "info"
    assert len(set(severities.values())) == 3


@pytest.mark.parametrize("text", [*HOSTILE, "fish & chips " * 5000, "漢" * 20_000, ""])
def test_any_text_stays_within_the_limits(text: str) -> None:
    fields = tuple(Field(f"{number} {text}", text) for number in range(100))
    actions = tuple(Action(text, f"{LINK}{number}") for number in range(100))
    accepted(sample_message(title=text, body=text, fields=fields, actions=actions))
    accepted(sample_message(title=text, body=text, fields=fields, actions=actions, event={}))


async def answer(**recorded: Any) -> None:
    with aioresponses() as server:
        server.post(URL, response_class=RecordedResponse, **recorded)
        async with opened(PAGERDUTY, PagerdutyConfig(routing_key=Secret(KEY))) as channel:
            await channel.send(sample_message())
        ((_, (request,)),) = server.requests.items()
        assert json.loads(request.kwargs["data"]) == {"routing_key": KEY, **payload(sample_message())}


async def test_pagerduty_says_that_it_has_the_event() -> None:
    await answer(status=202, payload={"status": "success", "message": "Event processed", "dedup_key": "k"})


async def test_pagerdutys_own_errors_are_named() -> None:
    fault = {
        "status": "invalid event",
        "message": "Event object is invalid",
        "errors": ["Invalid routing key"],
    }
    with pytest.raises(PermanentError, match="400: Event object is invalid: Invalid routing key") as refused:
        await answer(status=400, payload=fault)
    assert refused.value.reason is Reason.REJECTED
    with pytest.raises(TransientError):
        await answer(status=429, body="")


@pytest.mark.parametrize("key", ["", "short", "with spaces in between it", "ä" * 32])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not an integration key"):
        PagerdutyConfig(routing_key=Secret(key))
