"""What was removed by age cannot come back: by then it is too old to be accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notifyd.config.units import DAY, MINUTE
from notifyd.errors import TooOldError
from notifyd.model import Instant
from notifyd.service import app
from notifyd.store import CollectionName
from notifyd.wire.codec import rfc3339
from tests import events
from tests.daemon import Clock, daemon
from tests.fakes import sqlite
from tests.flows import RULES, Flow, flow
from tests.store.makers import audit_record
from tests.waiting import until_async

SHORT = RULES + '\n[retention]\nevents = "2d"\napprovals = "1d"\nincidents = "1d"\n'


async def again(way: Flow, document: dict[str, Any], *, behind: Instant = 0) -> str:
    """What becomes of an event that is sent again, to a node whose clock is so far behind."""
    way.clock.now -= behind
    try:
        accepted = await (way.cloud(document) if "specversion" in document else way.post(document))
        return "new" if accepted.fresh else "known"
    except TooOldError:
        return "too old"
    finally:
        way.clock.now += behind


async def settle(way: Flow) -> None:
    """Plan and do what is left over, once the leases of the steps that do not run here are past."""
    way.clock.now += 2 * MINUTE
    await way.sweep()


@pytest.mark.parametrize(
    "occurred",
    [
        pytest.param(-2 * DAY + MINUTE, id="late", marks=pytest.mark.long),
        pytest.param(-DAY, id="a day", marks=pytest.mark.long),
        pytest.param(0, id="now"),
        pytest.param(5 * MINUTE, id="ahead"),
    ],
)
async def test_an_event_is_known_until_it_is_too_old_by_any_node_s_clock(
    tmp_path: Path, occurred: Instant
) -> None:
    async with flow(tmp_path, SHORT, start=False) as way:
        start = way.clock()
        document = events.cloud_event(at=start + occurred)
        assert await again(way, document) == "new"
        await settle(way)
        # From before the first moment at which it may be refused, to after the last one that keeps it.
        way.clock.now = max(start, start + occurred + 2 * DAY - 3 * MINUTE)
        seen = []
        while await way.store.count(CollectionName.EVENTS):
            seen.append(await again(way, document))
            await way.app._retention.sweep()
            for behind in (0, 5 * MINUTE):
                assert await again(way, document, behind=behind) in {"known", "too old"}
            way.clock.now += MINUTE
            assert way.clock() < start + 5 * DAY
        assert "new" not in seen
        assert await again(way, document, behind=5 * MINUTE) == "too old"


async def test_an_approval_that_was_removed_is_not_opened_anew_by_an_event_from_before_its_end(
    tmp_path: Path,
) -> None:
    """The Updated event overtook the request, which is sent only after `retention.approvals`."""
    async with flow(tmp_path, SHORT, start=False) as way:
        late = way.requested()
        ended = events.updated(at=way.clock(), runId=late["runId"], approvalId=late["approvalId"])
        assert await again(way, ended) == "new"
        way.clock.now += 2 * DAY - 3 * MINUTE
        await settle(way)
        await way.app._retention.sweep()
        assert (await way.post(late)).answer["outcome"] == "recorded"
        way.clock.now += 10 * MINUTE
        await way.app._retention.sweep()
        assert await way.store.count(CollectionName.APPROVALS) == 0
        late["eventId"] = "another"
        assert await again(way, late) == "too old"


async def test_a_hold_that_was_removed_is_not_opened_anew_by_an_event_from_before_its_release(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, SHORT, start=False) as way:
        late = events.held(at=way.clock() - MINUTE)
        same = {name: late[name] for name in ("runId", "approvalId", "policy")}
        assert await again(way, events.released(at=way.clock(), **same)) == "new"
        way.clock.now += 2 * DAY - 4 * MINUTE
        await settle(way)
        await way.app._retention.sweep()
        assert (await way.post(late)).answer["outcome"] == "recorded"
        way.clock.now += 10 * MINUTE
        await way.app._retention.sweep()
        assert await way.store.count(CollectionName.INCIDENTS) == 0
        late["eventId"] = "another"
        assert await again(way, late) == "too old"


async def test_the_events_of_a_pending_approval_stay_however_old_they_are(tmp_path: Path) -> None:
    async with flow(tmp_path, SHORT, start=False) as way:
        document = await way.ask(expiresAt=rfc3339(way.clock() + 90 * DAY))
        await settle(way)
        way.clock.now += 30 * DAY
        await way.app._retention.sweep()
        assert await way.store.count(CollectionName.EVENTS) == 1
        await way.decide(document)
        await settle(way)
        way.clock.now += 3 * DAY
        await settle(way)
        await way.app._retention.sweep()
        assert await way.store.count(CollectionName.EVENTS) == 0


async def test_a_service_removes_what_is_old_soon_after_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    store = await sqlite(tmp_path, clock)
    await store.restore([audit_record("old", at=clock() - 400 * DAY), audit_record("new", at=clock())])
    await store.aclose()
    monkeypatch.setattr(app, "_RETENTION_FIRST", 0.0)
    async with daemon(tmp_path) as notifyd:
        left = notifyd.app._store.count

        async def removed() -> bool:
            return await left(CollectionName.AUDIT) == 1

        await until_async(removed)
        metrics = (await notifyd.call("GET", "/metrics")).text
        assert 'notifyd_purged_total{collection="audit"} 1.0' in metrics
