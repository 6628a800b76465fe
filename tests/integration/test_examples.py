"""The configurations of `conf/examples`, with every event there is: whom each of them reaches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import pytest

from notifyd.config import load as config
from notifyd.metrics import Metrics
from notifyd.model import State
from notifyd.registry.registry import Current, open_registry
from notifyd.service.app import App
from notifyd.store import Store
from notifyd.wire.codec import derived_id
from tests import events
from tests.daemon import installed
from tests.fakes import Channels, TurnableClock, sqlite
from tests.flows import FailingStore, Flow
from tests.unit.test_conf_file import CONF, ENVIRON
from tests.waiting import until_async

Told: TypeAlias = set[tuple[str, str | None]]
"""Whom an event reaches: each channel, with the person where it is a personal one."""

APPROVERS: Final[Told] = {("release-mail", "alice@acme.example"), ("release-mail", "bruno@acme.example")}
ALICE: Final[Told] = {("release-mail", "alice@acme.example")}
AUDIT: Final[Told] = {("audit-hook", None)}
BRIDGE: Final[Told] = {("chat-bridge", None)}
HOOK: Final[Told] = {("hook", None)}

REQUIRED: Final = frozenset(
    (
        *("type", "eventId", "occurredAt", "tenant", "runId", "approvalId", "planHash"),
        *("resume", "status", "decidedBy", "policy"),
    )
)

EXAMPLES: Final = ("minimal", "pack-approvals", "demo")

PRODUCTION: Final = {
    "requested-en",
    "requested-de",
    "requested-hostile",
    "requested-quorum",
    "requested-replanned",
}
"""The requests whose labels say that they are about production."""


@asynccontextmanager
async def example(folder: Path, name: str) -> AsyncIterator[Flow]:
    """The steps under an example, with the plugins it names; nothing is sent."""
    found, clock, metrics = installed(), TurnableClock(), Metrics()
    clock.turn(6.7 * 3600)  # past the last of the events, as they are in the files
    text = (CONF / "examples" / f"{name}.toml").read_text()
    origins = 'allowed_origins = ["https://runner.acme.example", "http://127.0.0.1:8082"]'
    text = "\n".join(line for line in text.splitlines() if not line.startswith("allowed_origins"))
    text = (
        text.replace("[resume]", f"[resume]\n{origins}")
        if "[resume]" in text
        else f"{text}\n[resume]\n{origins}"
    )
    settings = config.reads(text, found.brought, ENVIRON).whole()
    current = Current(await open_registry(settings, found, clock))
    store = FailingStore(await sqlite(folder, clock))
    way = Flow(App(current, cast(Store, store), metrics, clock), store, current, metrics, clock, Channels())
    way.start("plan")
    try:
        yield way
    finally:
        await way.stop()
        await store.aclose()
        await current.aclose()


async def reached(way: Flow, document: dict[str, Any]) -> Told:
    assert (await way.post(document)).fresh
    tenant, key = document["tenant"]["id"], derived_id("event", document["tenant"]["id"], document["eventId"])

    async def planned() -> bool:
        event = await way.store.event(tenant, key)
        return (
            event.plan is not None or not event.notify
        )  # no rule is for its kind, so that nothing is planned

    await until_async(planned)
    new = [row for row in await way.deliveries() if row.event_key == key]
    assert {row.state for row in new} <= {State.PENDING}, "rendered, and not dead from the start"
    return {(row.channel, row.recipient) for row in new}


def before(name: str) -> list[dict[str, Any]]:
    """What has come before an event of a file, so that it has something to be about."""
    document = events.load(name)
    first = {"PackApprovalUpdated": "requested", "PackPolicyReleased": "hold"}.get(document["type"])
    about = ("runId", "approvalId", "planHash", "tenant")
    if first is None:
        return []
    return [events.load(f"{first}-en") | {member: document[member] for member in about}]


def expected(example: str, name: str, *, alone: bool) -> Told:
    kind, production = name.partition("-")[0], name in PRODUCTION
    approval = kind in ("requested", "updated")
    if kind == "updated":
        production = not alone or events.load(name).get("labels", {}).get("environment") == "production"
    if example == "minimal":
        return HOOK
    if example == "pack-approvals":
        return AUDIT | (APPROVERS if approval and production else set())
    return (BRIDGE if approval else set()) | (ALICE if kind == "requested" and production else set())


def bare(document: Mapping[str, Any]) -> dict[str, Any]:
    """With the members that are required, and no others."""
    return {member: value for member, value in document.items() if member in REQUIRED}


@pytest.mark.parametrize("name", events.PACK_EVENTS)
@pytest.mark.parametrize("example_name", EXAMPLES)
async def test_an_event_reaches_whom_the_example_names(example_name: str, name: str, tmp_path: Path) -> None:
    async with example(tmp_path, example_name) as way:
        assert await reached(way, events.load(name)) == expected(example_name, name, alone=True)


@pytest.mark.parametrize(
    "name", [name for name in events.PACK_EVENTS if name.startswith(("updated", "released"))]
)
@pytest.mark.parametrize("example_name", EXAMPLES)
async def test_a_later_event_reaches_whom_the_first_did_though_it_says_no_more_than_it_must(
    example_name: str, name: str, tmp_path: Path
) -> None:
    async with example(tmp_path, example_name) as way:
        for document in before(name):
            await reached(way, document)
        assert await reached(way, bare(events.load(name))) == expected(example_name, name, alone=False)
