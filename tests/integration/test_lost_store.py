"""A store that is lost or corrupt under a whole daemon: callers are refused, and what was accepted is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifyd.errors import StoreUnusableError
from tests import events
from tests.corruption import corrupt_tree
from tests.daemon import CONFIG, Answer, Daemon, daemon, until
from tests.waiting import until_async

TEXT = (
    CONFIG
    + """
[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["inbox"]
to = ["alice@acme.example"]
"""
)
pytestmark = pytest.mark.usefixtures("often")


async def post(one: Daemon) -> Answer:
    event = events.cloud_event(at=one.clock())
    return await one.post("/api/v1/events", event, "operator", x_notifyd_tenant="acme")


async def is_refused(one: Daemon) -> bool:
    """503 with a time to come back at, what is wrong and what to do; and the daemon lives and is not ready."""
    answer = await post(one)
    if answer.status == 202:
        return False
    assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) >= 10
    assert "notifyd.db" in answer.json["detail"]
    assert (await one.get("/healthz", None)).status == 200

    async def tells() -> bool:
        ready = await one.get("/readyz", None)
        return ready.status == 503 and ready.json["detail"] == answer.json["detail"]

    await until_async(tells)
    return True


async def test_while_the_file_is_elsewhere_no_event_is_taken_and_once_it_is_back_all_goes_on(
    tmp_path: Path,
) -> None:
    async with daemon(tmp_path, TEXT) as one:
        assert (await post(one)).status == 202
        await until(lambda: one.inbox.messages)
        (tmp_path / "notifyd.db").rename(tmp_path / "elsewhere.db")
        assert await is_refused(one)
        (tmp_path / "elsewhere.db").rename(tmp_path / "notifyd.db")
        assert (await post(one)).status == 202
        await until_async(lambda: is_ready(one))
        await until(lambda: len(one.inbox.messages) >= 2)  # and what was committed as it went


async def is_ready(one: Daemon) -> bool:
    return (await one.get("/readyz", None)).status == 200


@pytest.mark.parametrize("name", ["approvals_due", "deliveries_closing"])
async def test_a_corrupt_page_that_only_a_sweep_meets_ends_the_taking_of_events(
    tmp_path: Path, name: str
) -> None:
    """No event without an approval has to do with these indexes."""
    async with daemon(tmp_path, TEXT) as one:
        assert (await post(one)).status == 202
    corrupt_tree(tmp_path / "notifyd.db", name)
    async with daemon(tmp_path, TEXT) as one:
        await until_async(lambda: is_refused(one))
        assert await is_refused(one)


@pytest.mark.parametrize("name", ["store", "approvals_owing", "deliveries_dead"])
async def test_a_start_that_meets_a_corrupt_page_fails(tmp_path: Path, name: str) -> None:
    async with daemon(tmp_path, TEXT):
        pass
    corrupt_tree(tmp_path / "notifyd.db", name)
    with pytest.raises(StoreUnusableError, match=r"notifyd\.db: the file is corrupt: restore a backup"):
        async with daemon(tmp_path, TEXT):
            pass
