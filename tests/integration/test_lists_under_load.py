"""Lists that do not end: who asks for them is told so in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from notifyd.store.sqlite import SqliteStore, deliveries
from tests.daemon import Daemon

LISTS = "/api/v1/deliveries?channel=unknown"


def itself(store: Any) -> Any:
    """The store behind those who count and note what it is asked."""
    while "_store" in vars(store):
        store = vars(store)["_store"]
    return store


async def test_while_lists_do_not_end_an_event_is_sent_and_its_approver_sees_the_page(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, gate = itself(notifyd.app._store), threading.Event()
    assert isinstance(store, SqliteStore)
    store._timeout = 60.0
    monkeypatch.setattr(deliveries, "search", lambda *_: ([], None) if gate.wait(60) else None)
    lists = [asyncio.create_task(notifyd.get(LISTS)) for _ in range(40)]
    asked = await notifyd.ask()
    page = await notifyd.get(await notifyd.link(), None)
    assert (page.status, asked["planHash"] in page.text) == (200, True)
    assert (await notifyd.get("/readyz", None)).status == 200
    assert not [one for one in lists if one.done()]

    store._timeout = 0.05
    late = await notifyd.get(LISTS)
    assert (late.status, late.json["code"], late.headers["Retry-After"]) == (503, "list_timeout", "5")
    gate.set()
    assert [(await one).json for one in lists] == [{"items": [], "nextCursor": None}] * 40
