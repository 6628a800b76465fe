"""The composition root: the one place that joins the steps. Build, start, reload by one swap, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from notifyd import samples
from notifyd.approval.notices import NOTIFYD
from notifyd.config.changes import changes
from notifyd.config.lines import is_of_file, placed
from notifyd.config.load import frozen_changes
from notifyd.config.settings import Settings
from notifyd.errors import ConfigError, StoppingError, StoreError
from notifyd.flow.admission import SharedBacklog
from notifyd.flow.at_once import AtOnce
from notifyd.flow.decide import Decisions
from notifyd.flow.deputies import Deputies
from notifyd.flow.digest import Digests
from notifyd.flow.dispatch import Dispatcher
from notifyd.flow.drafts import Drafts
from notifyd.flow.drill import Drills
from notifyd.flow.effects import Effects
from notifyd.flow.expire import Expiry
from notifyd.flow.ingest import Ingest
from notifyd.flow.listen import Listeners
from notifyd.flow.memory import Memory, Share
from notifyd.flow.nodes import BEAT, Nodes
from notifyd.flow.plan import rendered_again
from notifyd.flow.planner import Planner
from notifyd.flow.queues import PlanningQueue
from notifyd.flow.react import Reactions
from notifyd.flow.remind import Timers
from notifyd.flow.replay import Replays
from notifyd.flow.reseal import Reseal
from notifyd.flow.resume import callback_ended
from notifyd.flow.retention import Retention
from notifyd.flow.seal import AuditSealing
from notifyd.flow.silences import Silences
from notifyd.flow.storm import Budgets
from notifyd.flow.watch import LOOK, Watches
from notifyd.levels import Complaint
from notifyd.metrics import Metrics
from notifyd.model import SECOND, AuditName, AuditRecord, Clock, wall_clock
from notifyd.registry.discovery import Discovered
from notifyd.registry.registry import Current, Registry, open_registry
from notifyd.service.heartbeat import Heartbeat
from notifyd.service.keys import agree_on_keys
from notifyd.service.watchdog import Watchdog
from notifyd.store import CHECKPOINT, Store
from notifyd.store.open import StoreOptions, open_store
from notifyd.store.watched import STEPS, counted, watched
from notifyd.tracing import NO_TRACER, Tracer
from notifyd.web import create_app, listening_sockets, serving
from notifyd.web.listener import Listener
from notifyd.web.services import LastReload, Services
from notifyd.wire.codec import derived_id

log = logging.getLogger(__name__)

_DRAIN: Final = 7.0
"""Seconds that attempts under way are given at the end, so that the whole stop fits into 10."""

_SETTLING: Final = 4.0
"""Of these, seconds for requests that are under way at a socket of the manager's, before anything is refused."""

_LAST_WORDS: Final = 1.0
"""Seconds that channels of an earlier configuration are given to close at the end."""

_SWEEP: Final = 1.0
"""Seconds between the sweeps for what a node that died, or a full queue, has left over."""

_COUNT: Final = 30.0
"""Seconds between countings of the pending approvals."""

_SEALING: Final = 10.0
"""Seconds between the sweeps that seal the audit trail."""

_DRILL: Final = 10.0
"""Seconds between looks for channels that a fire drill is due for."""

_RETENTION: Final = 3600.0
_RETENTION_FIRST: Final = 60.0
"""Seconds between removals by age, and from the start to the first."""

OpenStore: TypeAlias = Callable[[Settings, Metrics, Clock], Awaitable[Store]]


async def open_configured_store(settings: Settings, metrics: Metrics, clock: Clock) -> Store:
    return await open_store(
        settings.store.url,
        StoreOptions(
            node=settings.server.node,
            clock=clock,
            create=settings.store.create,
            timeout=settings.store.timeout / SECOND,
            observer=metrics,
            clock_skew=settings.dispatch.clock_skew / SECOND,
            driver=settings.store.driver,
        ),
    )


@asynccontextmanager
async def running(
    settings: Settings,
    discovered: Discovered,
    *,
    clock: Clock = wall_clock,
    open_store: OpenStore = open_configured_store,
    listener: socket.socket | None = None,
    abandon_sealed: bool = False,
    metrics: Metrics | None = None,
    tracer: Tracer = NO_TRACER,
) -> AsyncIterator[App]:
    """A started notifyd, drained and stopped when the block is left.

    `listener` is a socket that listens already, in place of one at `server.listen`; it is closed at the end.
    `abandon_sealed` gives up rows that need a key which is no longer in `keys.seal`. `metrics` is where it counts,
    `tracer` where it records spans.
    Raises `ConfigError`, `StoreError`, `StoreInUseError`, or OSError where the address cannot be had.
    """
    metrics = metrics or Metrics()
    async with AsyncExitStack() as resources:
        current = Current(await open_registry(settings, discovered, clock))
        resources.push_async_callback(current.aclose)
        store = await open_store(settings, metrics, clock)
        resources.push_async_callback(store.aclose)
        await agree_on_keys(store, current().keyring, abandon=abandon_sealed)
        app = App(current, store, metrics, clock, tracer)
        try:
            await app.start(resources, listener)
            yield app
        finally:
            await app.drain()


class App:
    """A running notifyd. `address` is where it listens; `failed` is done once a step has broken."""

    def __init__(
        self, current: Current, store: Store, metrics: Metrics, clock: Clock, tracer: Tracer = NO_TRACER
    ) -> None:
        self._current = current
        self._watches = Watches(nodes=lambda: self._nodes())
        self._store = watched(counted(store, metrics.store_error), self._watches.note)
        self._metrics = metrics
        self._tracer = tracer
        metrics.name_steps((*STEPS, CHECKPOINT))
        self._clock = clock
        current().states.store = self._store  # those of later configurations are the same
        self._draining = False
        self._last_reload: LastReload | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None
        self._handed = False
        self.address: tuple[str, int] = ("", 0)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._join(current().settings.server.node)

    def _join(self, node: str) -> None:
        """Build the steps, each given the next one's door."""
        shared: dict[str, Any] = {"store": self._store, "current": self._current, "clock": self._clock}
        counted = shared | {"metrics": self._metrics}
        self._nodes = Nodes(store=self._store, clock=self._clock)
        memory = Memory(lambda: self._current().settings.dispatch.memory)
        planning: dict[str, Any] = {"planning_queue": PlanningQueue(Share(memory))}
        self._dispatcher = Dispatcher(
            **counted,
            **planning,
            callback_ended=partial(callback_ended, self._store),
            node=node,
            memory=memory,
            nodes=self._nodes,
            tracer=self._tracer,
        )
        budgets = Budgets(self._store, self._nodes)
        sending: dict[str, Any] = {"dispatch_queue": self._dispatcher}
        admission = SharedBacklog(
            current=self._current,
            **planning,
            deliveries=self._dispatcher.waiting,
            seconds_for=self._dispatcher.seconds_for,
        )
        self._silences = Silences(**counted)
        self._deputies = Deputies(**shared)
        drafts = Drafts(
            store=self._store,
            budgets=budgets,
            silences=self._silences,
            metrics=self._metrics,
            tracer=self._tracer,
        )
        stored = shared | planning | sending | {"drafts": drafts}
        self._planner = Planner(**stored, budgets=budgets, node=node)
        self._digests = Digests(
            **counted, **sending, budgets=budgets, silenced_until=self._silences.held_until
        )
        self._effects = Effects(**counted, **planning, **sending)
        self._expiry = Expiry(
            store=self._store, effect_queue=self._effects, metrics=self._metrics, clock=self._clock
        )
        self._timers = Timers(**counted, effect_queue=self._effects)
        self._retention = Retention(
            store=self._store,
            settings=lambda: self._current().settings,
            metrics=self._metrics,
            clock=self._clock,
        )
        self._sealing = AuditSealing(
            store=self._store, settings=lambda: self._current().settings, clock=self._clock
        )
        self._drills = Drills(**counted, send=self._dispatcher.try_out)
        self._heartbeat = Heartbeat(current=self._current, ready=self._ready, clock=self._clock)
        decisions = Decisions(**counted, effect_queue=self._effects, tracer=self._tracer)
        reactions = Reactions(**counted, decide=decisions.decide)
        self._listeners = Listeners(**shared, inbox=reactions.inbox, metrics=self._metrics)
        self._services = Services(
            **counted,
            tracer=self._tracer,
            ingest=Ingest(**counted, **planning, admission=admission, append_queue=AtOnce(**stored)),
            decisions=decisions,
            reactions=reactions,
            effects=self._effects,
            dispatcher=self._dispatcher,
            replays=Replays(**counted, **sending, render=rendered_again),
            retention=self._retention,
            reseal=Reseal(store=self._store, current=self._current),
            watches=self._watches,
            silences=self._silences,
            deputies=self._deputies,
            ready=self._store.probe,
            draining=lambda: self._draining,
            reloaded=lambda: self._last_reload,
            examples=samples.events,
        )

    def registry(self) -> Registry:
        """What is in force."""
        return self._current()

    async def _ready(self) -> None:
        """Raises `StoreError` or `StoppingError` where `/readyz` says that it is not."""
        if self._draining:
            raise StoppingError
        await self._store.probe()

    # -- start and stop -----------------------------------------------------------------------------------

    async def start(self, resources: AsyncExitStack, listener: socket.socket | None = None) -> None:
        """Take up what an earlier life left, start the steps, and listen last."""
        self._note_config()
        await self._nodes.beat()
        await resources.enter_async_context(Watchdog(self._current, self._metrics))
        await self._count()
        await self._silences.refresh()
        await self._deputies.refresh()
        await self._dispatcher.open()
        for name, step in (
            ("sign of life", self._sweep(self._nodes.beat, again=False, every=BEAT)),
            ("heartbeat", self._heartbeat.run()),
            ("dispatch", self._dispatcher.run()),
            ("plan", self._planner.run()),
            ("effects", self._effects.run()),
            ("planning sweep", self._sweep(self._planner.sweep)),
            ("silences", self._sweep(self._silences.refresh, again=False)),
            ("deputies", self._sweep(self._deputies.refresh, again=False)),
            ("digest sweep", self._sweep(self._digests.sweep)),
            ("effects sweep", self._sweep(self._effects.sweep, again=False)),
            ("expiry sweep", self._sweep(self._expiry.sweep, again=False)),
            ("timer sweep", self._sweep(self._timers.sweep, again=False)),
            ("watch", self._sweep(partial(self._watches.look, self._store), again=False, every=LOOK)),
            ("count", self._sweep(self._count, again=False, every=_COUNT)),
            ("drills", self._sweep(self._drills.sweep, again=False, every=_DRILL)),
            ("audit seals", self._sweep(self._sealing.sweep, again=False, every=_SEALING)),
            (
                "retention",
                self._sweep(self._retention.sweep, again=False, every=_RETENTION, first=_RETENTION_FIRST),
            ),
        ):
            resources.push_async_callback(_cancelled, self._supervised(name, step))
        await self._listeners.adjust()
        await self._listen(resources, listener)

    async def _listen(self, resources: AsyncExitStack, listener: socket.socket | None) -> None:
        listen = self._current().settings.server.listen
        sockets = [listener] if listener else await listening_sockets(listen.host, listen.port)
        application = create_app(self._services)
        self._listener = await resources.enter_async_context(
            serving(application, sockets, lambda: self._current().tls)
        )
        self._handed = listener is not None
        self.address = sockets[0].getsockname()[:2]
        log.info("listening on %s port %s", *self.address)

    def _supervised(self, name: str, step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a step for ever. One that breaks ends the daemon, whose manager starts it anew."""
        task = asyncio.create_task(step, name=name)
        task.add_done_callback(self._on_step_end)
        return task

    def _on_step_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.failed.done():
            log.critical("the step %r has broken", task.get_name(), exc_info=task.exception())
            self.failed.set_result(None)

    async def drain(self) -> None:
        """Refuse what is new, let attempts under way end, and give the rest back.

        At a socket that somebody else holds, what is new waits for the next process instead.
        """
        end = asyncio.get_running_loop().time() + _DRAIN
        if self._listener and self._handed:
            await self._listener.settle(_SETTLING)
        self._draining = True
        self._watches.wake_all()
        left = end - asyncio.get_running_loop().time()
        await asyncio.gather(self._listeners.aclose(), self._dispatcher.drain(left))
        if self._closing:
            await asyncio.wait(self._closing, timeout=_LAST_WORDS)

    async def _count(self) -> int:
        """Counted in between as events and decisions come; the store knows of what other nodes do."""
        await self._effects.count()
        await self._store.undecodable()
        usage = await self._store.usage()
        self._metrics.set_usage(usage.parts, usage.disk_free)
        pending = await self._store.outstanding()
        self._metrics.set_outstanding(pending)
        return len(pending)

    async def _sweep(
        self,
        sweep: Callable[[], Awaitable[int]],
        *,
        again: bool = True,
        every: float = _SWEEP,
        first: float = 0.0,
    ) -> None:
        """Find what memory does not know of and is due: plans, windows, effects, expiries, or what is old.

        `again`: at once after a sweep that found something, as what it found is not found twice. `every` and
        `first` are the seconds between sweeps and before the first.
        """
        complaint = Complaint(log)
        await asyncio.sleep(first)
        while True:
            found = 0
            try:
                found = await sweep()
                complaint.over()
            except StoreError as error:
                complaint.repeat(f"sweeping waits for the store: {error}")
            if not (found and again):
                await asyncio.sleep(every)

    # -- reload -------------------------------------------------------------------------------------------

    async def reload(self, load: Callable[[], tuple[Settings, Discovered]], source: str = "config") -> bool:
        """Swap in what `load` gives. Where it, or opening it, fails, only a gauge and the log change.

        `source` is what the log calls the configuration: its file.
        """
        try:
            settings, discovered = load()
            fresh = await self._open(settings, discovered)
        except (ConfigError, StoreError) as error:
            self._metrics.reload_ok.set(0)
            faults = await asyncio.to_thread(_located, source, error)
            before = self._last_reload.before if self._last_reload else None
            self._last_reload = LastReload(self._clock(), taken=False, told=tuple(faults), before=before)
            for fault in faults:
                log.error("%s is not reloaded: %s", source, fault)
            return False
        except Exception:
            self._metrics.reload_ok.set(0)
            raise
        differs = changes(self._current().settings, settings)
        for key in frozen_changes(self._current().settings, settings):
            log.warning("%s cannot change while the service runs: restart it", key)
        self._last_reload = LastReload(self._clock(), True, tuple(differs), self._current().settings)
        old = self._current.swap(fresh)
        self._note_config()
        self._dispatcher.wake()
        await self._listeners.adjust()
        task = asyncio.create_task(self._close_after_use(old))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        await self._store.write_audit([self._reloaded()])
        log.info("%s is reloaded: %s", source, ", ".join(differs) or "no key differs")
        return True

    async def _open(self, settings: Settings, discovered: Discovered) -> Registry:
        """What is to be in force. Raises `ConfigError`, or `StoreError` where its keys cannot be checked."""
        fresh = await open_registry(settings, discovered, self._clock, self._current())
        try:
            before = self._current().keyring
            if fresh.keyring.ids != before.ids:
                await agree_on_keys(self._store, fresh.keyring)
            else:
                fresh.keyring.take_over(before)
        except BaseException:
            await fresh.aclose()
            raise
        return fresh

    async def _close_after_use(self, old: Registry) -> None:
        await self._dispatcher.settled(old.channels.values())
        if calls := [call for channel in old.channels.values() for call in channel.calls]:
            await asyncio.wait(calls)
        await old.aclose()

    def _note_config(self) -> None:
        settings = self._current().settings
        self._metrics.name_kinds(named_kinds(settings))
        self._metrics.name_tenants(one for client in settings.auth.clients.values() for one in client.tenants)
        self._metrics.name_rules({rule.name for rule in settings.rules})
        self._metrics.name_channels(self._current().channels)
        self._metrics.reload_ok.set(1)
        self._metrics.reload_time.set(self._clock() / SECOND)

    def _reloaded(self) -> AuditRecord:
        now = self._clock()
        node = self._current().settings.server.node
        audit_id = derived_id("audit", "", AuditName.CONFIG_RELOADED.value, node, now)
        return AuditRecord(audit_id, "", AuditName.CONFIG_RELOADED, now, NOTIFYD, correlation_id="")


def _located(source: str, error: ConfigError | StoreError) -> list[str]:
    """Each fault, with the line of the configuration that it is in."""
    if not isinstance(error, ConfigError):
        return [str(error)]
    path = Path(source)
    return [
        f"{fault} (line {line})" if line and not is_of_file(fault, path) else str(fault)
        for line, fault in placed(path, error.faults)
    ]


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel until it has ended: `asyncio.wait_for`, which drivers use, can lose a cancellation that meets its end
    (https://github.com/python/cpython/issues/86296)."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)


_KIND: Final = re.compile(r"""event\.kind\s*==\s*["']([^"']{1,100})["']""")


def named_kinds(settings: Settings) -> set[str]:
    """The kinds that rules compare with: those that may be a metric's label."""
    return {kind for rule in settings.rules for kind in _KIND.findall(rule.when)}
