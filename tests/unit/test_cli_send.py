"""`notifyd send --now`: an example as if it happened now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from notifyd.cli.events import _stamped
from notifyd.wire.events import parse_cloud_event, parse_pack_event
from tests import events

NOW = datetime(2027, 3, 4, 5, 6, 7, 890_000, UTC)


def test_a_pack_event_begins_now_and_ends_as_much_later_as_it_did() -> None:
    document = events.load("requested-en") | {
        "occurredAt": "2026-11-04T10:30:00+01:00",
        "expiresAt": "2026-11-05T09:45:00Z",
    }
    stamped = _stamped(document, NOW)
    assert (stamped["occurredAt"], stamped["expiresAt"]) == (
        "2027-03-04T05:06:07.890Z",
        "2027-03-05T05:21:07.890Z",
    )
    changed = {"eventId", "occurredAt", "expiresAt"}
    assert {key for key in document if document[key] != stamped[key]} == changed
    parse_pack_event(stamped)


def test_each_time_it_has_another_id() -> None:
    document = events.load("requested-en")
    assert len({_stamped(document, NOW)["eventId"] for _ in range(3)} | {document["eventId"]}) == 4


def test_cloud_events_are_stamped_one_by_one() -> None:
    document = events.load("cloudevent-task-done")
    one, other = _stamped([document, document], NOW)
    assert one["id"] != other["id"]
    assert one["time"] == other["time"] == "2027-03-04T05:06:07.890Z"
    parse_cloud_event(one)


@pytest.mark.parametrize("ends", ["soon", "2026-11-05", "2026-11-05T09:45:00", 7, None])
def test_what_is_no_time_is_left_for_the_service_to_refuse(ends: Any) -> None:
    assert _stamped(events.load("requested-en") | {"expiresAt": ends}, NOW)["expiresAt"] == ends


@pytest.mark.parametrize("document", [7, "text", None])
def test_what_is_no_event_stays_as_it_is(document: Any) -> None:
    assert _stamped(document, NOW) == document
