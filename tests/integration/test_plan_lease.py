"""Planning what a node has accepted is left to it for `dispatch.lease`, as all that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notifyd.model import SECOND
from notifyd.store import Append, Appended
from tests import events
from tests.flows import RULES, Flow, flow

LEASE = RULES + '\n[dispatch]\nlease = "7s"\n'


def spied(way: Flow, monkeypatch: pytest.MonkeyPatch) -> list[Append]:
    """What the store is asked to append from now on."""
    asked: list[Append] = []
    append: Any = way.store.append

    async def spy(request: Append) -> Appended:
        asked.append(request)
        appended: Appended = await append(request)
        return appended

    monkeypatch.setattr(way.store, "append", spy, raising=False)
    return asked


async def test_each_event_is_leased_for_as_long_as_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with flow(tmp_path, LEASE, start=False) as way:
        asked = spied(way, monkeypatch)
        document = await way.ask()
        await way.cloud(events.cloud_event(at=way.clock()))
        await way.decide(document)
        await way.sweep()  # settles the decision, whose notice is an event too
        kinds = [(one.event.kind, one.event.action) for one in asked]
        assert kinds[0] == ("pack.approval", "requested")
        assert ("pack.approval", "acknowledged") in kinds
        assert len(kinds) == 3
        assert {one.lease for one in asked} == {7 * SECOND}
