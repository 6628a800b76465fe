"""What comes in over HTTP is accepted or refused as the contract says."""

from __future__ import annotations

import pytest

from notifyd import codec, wire
from tests import events


@pytest.mark.parametrize("name", events.PACK_EVENTS)
def test_each_example_of_task_runners_events_is_accepted(name: str) -> None:
    event = wire.parse_pack_event(codec.loads(events.raw(name)))
    assert type(event).__name__ == event.type == events.load(name)["type"]


@pytest.mark.parametrize("name", events.CLOUD_EVENTS)
def test_each_example_of_a_cloud_event_is_accepted(name: str) -> None:
    event = wire.parse_cloud_event(codec.loads(events.raw(name)))
    assert event.type == events.load(name)["type"]
