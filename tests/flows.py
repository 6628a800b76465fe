"""The steps of the way joined as the daemon joins them, over a real store, without HTTP and on a test's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import orjson
from attrs import define, evolve, field

from notifyd.approval.ballots import Ballot
from notifyd.errors import StoreError
from notifyd.flow.ingest import Accepted
from notifyd.metrics import Metrics
from notifyd.model import (
    SECOND,
    Approval,
    ApprovalKey,
    AuditRecord,
    Choice,
    Delivery,
    Event,
    Principal,
    State,
    Via,
)
from notifyd.plugin import Message
from notifyd.registry.registry import Current, open_registry
from notifyd.service.app import App
from notifyd.store import AuditFilter, DeliveryFilter, Page, Store
from notifyd.wire import events as wire
from tests import events
from tests.fakes import (
    SEAL_KEY,
    TOKEN,
    Channels,
    ScriptedChannel,
    TurnableClock,
    discovered,
    principal,
    settings,
    sqlite,
)
from tests.waiting import until, until_async

RULES = """
[resume]
allowed_origins = ["https://runner.acme.example"]

[channels.team]
type = "fake"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["team"]
"""
"""One shared channel, told of each request."""

TASK_RULE = """
[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["team"]
"""
TASKS = f"""
[channels.team]
type = "fake"
{TASK_RULE}"""
"""The same channel, told of each task."""


class FailingStore:
    """A store whose named operations fail the next so many times, before or after they are done.

    `asked` has the names of those that were begun, `calls` of those that have ended.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.failures: dict[str, int] = {}
        self.after = False
        self.asked: list[str] = []
        self.calls: list[str] = []

    def fail(self, operation: str, times: int = 1, *, after: bool = False) -> None:
        self.failures[operation], self.after = times, after

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            fails = self.failures.get(name, 0)
            self.failures[name] = max(0, fails - 1)
            self.asked.append(name)
            try:
                if fails and not self.after:
                    raise StoreError(f"{name} fails, as the test wants it to")
                result = await operation(*args, **options)
                if fails:
                    raise StoreError(f"the answer of {name} is lost, as the test wants it to be")
                return result
            finally:
                self.calls.append(name)

        return call


@define(eq=False)
class Flow:
    """One life of the steps. What is not started runs where a test calls it."""

    app: App
    store: FailingStore
    current: Current
    metrics: Metrics
    clock: TurnableClock
    channels: Channels
    tasks: list[asyncio.Task[None]] = field(factory=list)

    # -- what comes in ------------------------------------------------------------------------------------

    async def post(
        self, document: dict[str, Any], *, by: Principal | None = None, correlation_id: str = "corr-1"
    ) -> Accepted:
        """One of Task Runner's events, as the web hands it on."""
        event = wire.parse_pack_event(document)
        ingest = self.app._services.ingest
        return await ingest.pack_event(event, document, by or principal(), correlation_id)

    async def ask(self, **overrides: Any) -> dict[str, Any]:
        """A request for approval that occurs now; what was posted."""
        document = self.requested(**overrides)
        assert (await self.post(document)).fresh
        return document

    def requested(self, **overrides: Any) -> dict[str, Any]:
        return events.requested(at=self.clock(), **{"resume": self.resume()} | overrides)

    def resume(self, url: str = "https://runner.acme.example/resume/run-0042") -> dict[str, str]:
        return {"callbackUrl": url, "token": TOKEN.reveal()}

    async def cloud(self, document: dict[str, Any], tenant: str = "acme") -> Accepted:
        event = wire.parse_cloud_event(document)
        ingest = self.app._services.ingest
        return await ingest.cloud_event(event, document, tenant, principal(), "corr-cloud")

    def ballot(self, document: dict[str, Any], **changes: Any) -> Ballot:
        """Alice approves what `document` asks for."""
        given = Ballot(
            tenant=document["tenant"]["id"],
            run_id=document["runId"],
            approval_id=document["approvalId"],
            choice=Choice.APPROVED,
            plan_hash=document["planHash"],
            actor="alice@acme.example",
            comment="looks good",
            via=Via.CLIENT,
            client="console",
            grants=frozenset({"Packs.Approve"}),
            correlation_id="corr-ballot",
        )
        return evolve(given, **changes)

    async def decide(self, document: dict[str, Any], **changes: Any) -> dict[str, Any]:
        answer: dict[str, Any] = orjson.loads(await self.decide_raw(document, **changes))
        return answer

    async def decide_raw(self, document: dict[str, Any], **changes: Any) -> bytes:
        return await self.app._services.decisions.decide(self.ballot(document, **changes))

    # -- what goes on -------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Run the named steps, or all of them, as tasks."""
        steps = {
            "dispatch": self.app._dispatcher.run,
            "plan": self.app._planner.run,
            "effects": self.app._effects.run,
        }
        for name in names or steps:
            self.tasks.append(asyncio.create_task(steps[name](), name=name))

    async def sweep(self) -> None:
        """What the daemon does once a second, until it finds nothing."""
        for sweep in (
            self.app._planner.sweep,
            self.app._effects.sweep,
            self.app._expiry.sweep,
            self.app._effects.sweep,
            self.app._planner.sweep,
        ):
            await sweep()

    def turn(self, seconds: float) -> None:
        """Turn the clock, and have the dispatcher look at it."""
        self.clock.turn(seconds)
        self.app._dispatcher.wake()

    async def stop(self) -> None:
        await self.app.drain()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def reload(self, text: str) -> bool:
        found = discovered(self.channels)
        return await self.app.reload(lambda: (settings(text, self.channels), found))

    # -- what came of it ----------------------------------------------------------------------------------

    def channel(self, name: str = "team") -> ScriptedChannel:
        return self.channels.of(name)

    async def messages(self, count: int, name: str = "team") -> list[Message]:
        """The first `count` messages that a channel was given, as soon as they are there."""
        await until(lambda: len(self.channel(name).received) >= count)
        return self.channel(name).received[:count]

    async def deliveries(self, tenant: str = "acme", **where: Any) -> list[Delivery]:
        """The ledger, oldest first, each delivery with its message."""
        found, _ = await self.store.deliveries(tenant, DeliveryFilter(**where), Page(limit=1000))
        return [await self.delivery(one.id, tenant) for one in reversed(found)]

    async def delivery(self, delivery_id: str, tenant: str = "acme") -> Delivery:
        found: Delivery | None = await self.store.delivery(tenant, delivery_id)
        assert found is not None
        return found

    async def becomes(self, delivery_id: str, *states: State, seconds: float = 10) -> Delivery:
        """The delivery, once it is in one of `states`."""

        async def found() -> Delivery | None:
            row = await self.delivery(delivery_id)
            return row if row.state in states else None

        return cast(Delivery, await until_async(found, seconds))

    async def ended(self, count: int, seconds: float = 10) -> list[Delivery]:
        """All deliveries, once `count` of them have ended."""

        async def found() -> list[Delivery] | None:
            rows = await self.deliveries()
            return rows if sum(not row.state.open for row in rows) >= count else None

        return cast(list[Delivery], await until_async(found, seconds))

    async def approval(self, document: dict[str, Any]) -> Approval:
        key = ApprovalKey(document["tenant"]["id"], document["runId"], document["approvalId"])
        found: Approval | None = await self.store.approval(key)
        assert found is not None
        return found

    async def audit(self, tenant: str = "acme") -> list[AuditRecord]:
        """The trail, oldest first."""
        found, _ = await self.store.audit(tenant, AuditFilter(), Page(limit=1000))
        return list(reversed(found))

    async def unplanned(self) -> list[Event]:
        """The events that are to be planned. The look leases them."""
        later = self.clock() + 600 * SECOND
        found: list[Event] = await self.store.claim_unplanned("test", later, later + 1, 1000)
        return found

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def flow(
    folder: Path,
    text: str = RULES,
    *,
    channels: Channels | None = None,
    clock: TurnableClock | None = None,
    start: bool = True,
    seal_key: bytes = SEAL_KEY,
) -> AsyncIterator[Flow]:
    """The steps over the store in `folder`, running unless `start` is False; drained and closed at the end."""
    channels, clock, metrics = channels or Channels(), clock or TurnableClock(), Metrics()
    sealed = settings(text, channels, seal_key)
    current = Current(await open_registry(sealed, discovered(channels), clock))
    store = FailingStore(await sqlite(folder, clock))
    app = App(current, cast(Store, store), metrics, clock)
    running = Flow(app, store, current, metrics, clock, channels)
    app._note_config()
    await app._dispatcher.open()
    if start:
        running.start()
    try:
        yield running
    finally:
        await running.stop()
        await store.aclose()
        await current.aclose()


def stored_bytes(folder: Path) -> bytes:
    """All that is on disk of a database, its log included."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("notifyd.db*")))
