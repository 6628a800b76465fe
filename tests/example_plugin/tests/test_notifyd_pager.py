"""The `pager` plugin: its channels under notifyd's conformance kit, and what is its own."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from notifyd_pager import notifyd_channel_types, notifyd_rule_functions, notifyd_template_sources
from notifyd_pager.channel import PagerConfig, payload
from notifyd_pager.hours import in_office_hours

from notifyd.plugin import Level, Secret
from notifyd.testing import (
    AnsweringConformance,
    EditingConformance,
    HttpConformance,
    Reply,
    RuleFunctionConformance,
    TemplatePackageConformance,
    sample_message,
)

PAGER, DUTY = notifyd_channel_types()
(IN_OFFICE_HOURS,) = notifyd_rule_functions()
(TEMPLATES,) = notifyd_template_sources()
RELEASE = {
    "kind": "release.published",
    "tenant": {"id": "acme"},
    "occurredAt": "2026-11-20T09:30:00Z",
    "data": {"name": "Payments", "version": "3.1", "notes": "Faster, and in Romansh."},
}


class TestPager(HttpConformance):
    channel_type = PAGER
    throttled = Reply(429, json.dumps({"error": "too_many_pages", "wait": 7}))

    def config(self, url: str) -> PagerConfig:
        return PagerConfig(url=Secret(url + "/v1/a-secret-in-the-path"), key=Secret("only-for-the-tests"))


class TestDuty(TestPager, AnsweringConformance, EditingConformance):
    channel_type = DUTY
    accepted = Reply(200, json.dumps({"page": "p-7"}))
    told = Reply(
        200,
        json.dumps(
            {"id": "41", "by": "U7", "action": "approved", "ref": AnsweringConformance.ref, "reason": ""}
        ),
    )


class TestInOfficeHours(RuleFunctionConformance):
    function = IN_OFFICE_HOURS
    calls = (("2026-11-20T08:00:00Z", "Europe/Zurich"),)


class TestTemplates(TemplatePackageConformance):
    source = TEMPLATES
    events = MappingProxyType({"release": [RELEASE]})


@pytest.mark.parametrize(
    ("level", "urgent"), [(Level.INFO, False), (Level.SUCCESS, False), (Level.ERROR, True)]
)
def test_only_what_is_wrong_is_urgent(level: Level, urgent: bool) -> None:
    page = payload(sample_message(level=level), "release")
    assert (page["urgent"], page["team"]) == (urgent, "release")


@pytest.mark.parametrize(
    ("at", "zone", "within"),
    [
        ("2026-11-20T08:00:00Z", "Europe/Zurich", True),
        ("2026-11-20T07:59:59Z", "Europe/Zurich", False),
        ("2026-11-20T16:00:00Z", "Europe/Zurich", False),
        ("2026-11-21T10:00:00Z", "Europe/Zurich", False),
        ("2026-11-20T16:00:00.5+00:00", "America/New_York", True),
        ("2026-11-20T08:00:00", "Europe/Zurich", False),
        ("2026-11-20T08:00:00Z", "Europe", False),
    ],
)
def test_office_hours_are_those_of_the_zone(at: str, zone: str, within: bool) -> None:
    assert in_office_hours(at, zone) is within
