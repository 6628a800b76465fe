"""Whole daemons on MongoDB: from an event to the callback that resumes the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pymongo
import pytest

from notifyd.config.settings import StoreDriver
from notifyd.registry.discovery import discover
from notifyd.service.app import running
from tests.daemon import CALLBACK, CONFIG, Clock, Daemon, Inbox, settings
from tests.mongodb import MongoServer
from tests.sinks import HttpSink, Received
from tests.waiting import until_async


@asynccontextmanager
async def node(url: str, driver: StoreDriver, name: str, runner: HttpSink) -> AsyncIterator[Daemon]:
    """A daemon that is one node of the service whose database is at `url`."""
    store = f'[store]\nurl = "{url}"\ndriver = "{driver}"\ntimeout = "20s"\n'
    text = CONFIG.replace("[server]", f'[server]\nnode = "{name}"').replace(CALLBACK, runner.url) + store
    inbox, clock = Inbox(), Clock()
    discovered = discover(extra=[inbox])
    async with (
        running(settings(text, discovered), discovered, clock=clock) as app,
        aiohttp.ClientSession() as session,
    ):
        yield Daemon(app, text, clock, inbox, discovered, session)


async def approve(notifyd: Daemon, asked: dict[str, str], actor: str) -> None:
    path = "/notifications/pack-approvals/{runId}/{approvalId}".format_map(asked)
    named = {key: asked[key] for key in ("tenant", "runId", "approvalId", "planHash")}
    answer = await notifyd.signed(f"{path}/ack", named | {"decision": "approved", "actor": actor})
    assert answer.status == 200, answer.text


def callbacks(runner: HttpSink) -> list[Received]:
    return [one for one in runner.received if one.path == "/resume"]


@pytest.mark.parametrize("driver", StoreDriver)
async def test_an_event_is_told_decided_on_another_node_and_its_run_resumed_once(
    mongo_server: MongoServer, driver: StoreDriver
) -> None:
    url = mongo_server.database()
    async with AsyncExitStack() as stack:
        runner = await stack.enter_async_context(HttpSink())
        first = await stack.enter_async_context(node(url, driver, "first", runner))
        second = await stack.enter_async_context(node(url, driver, "second", runner))
        resume = {"callbackUrl": f"{runner.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
        asked = await first.ask(resume=resume)
        repeated = await second.signed("/notifications/pack-approvals", asked)
        assert repeated.status == 200
        await first.link("alice@acme.example")
        await first.link("bob@acme.example")
        await approve(second, asked, "alice@acme.example")
        await runner.wait(1)
        assert runner.documents[0]["data"]["resumeToken"] == resume["token"]

        async def delivered() -> bool:
            shown = await first.approval(asked)
            return bool(shown["status"] == "approved" and shown["resume"]["status"] == "delivered")

        await until_async(delivered)
        assert len(callbacks(runner)) == 1
        assert len(first.inbox.messages) == 2
        assert second.inbox.messages == []
        names = [one["name"] for one in (await first.get("/api/v1/audit")).json["items"]]
        for name in ("requested", "acknowledged"):
            assert names.count(f"pack.approval.{name}") == 1
        assert names.count("resume.delivered") == 1


async def test_a_node_whose_name_another_process_has_taken_ends_itself(
    mongo_server: MongoServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = mongo_server.database()
    async with AsyncExitStack() as stack:
        runner = await stack.enter_async_context(HttpSink())
        first = await stack.enter_async_context(node(url, StoreDriver.PYMONGO, "first", runner))
        second = await stack.enter_async_context(node(url, StoreDriver.PYMONGO, "second", runner))
        database: pymongo.AsyncMongoClient[dict[str, Any]]
        async with pymongo.AsyncMongoClient(url) as database:
            names: Any = database.get_default_database().nodes
            await names.update_one({"_id": "first"}, {"$set": {"life": "another"}})
        await asyncio.wait_for(first.app.failed, 15)
        assert "another process lives as node 'first'" in caplog.text
        assert not second.app.failed.done()
