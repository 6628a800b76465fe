"""What the application's handlers work with, put together by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from aiohttp import web
from attrs import frozen

from notifyd.config.settings import Settings
from notifyd.flow.decide import Decisions
from notifyd.flow.deputies import Deputies
from notifyd.flow.dispatch import Dispatcher
from notifyd.flow.effects import Effects
from notifyd.flow.ingest import Ingest
from notifyd.flow.react import Reactions
from notifyd.flow.replay import Replays
from notifyd.flow.reseal import Reseal
from notifyd.flow.retention import Retention
from notifyd.flow.silences import Silences
from notifyd.flow.watch import Watches
from notifyd.metrics import Metrics
from notifyd.model import Clock, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.tracing import Tracer


@frozen
class LastReload:
    """The latest reload of this life of the daemon. `told` are the keys it changed or, refused, its faults.

    `before` is what was in force before the latest one that was taken.
    """

    at: Instant
    taken: bool
    told: tuple[str, ...]
    before: Settings | None = None


@frozen
class Services:
    """`current` gives the registry in force, asked once for each request.

    `ready` raises where the daemon cannot do its work; `draining` is true once it is being stopped. `examples` are
    of the events that rules see.
    """

    current: Callable[[], Registry]
    store: Store
    ingest: Ingest
    decisions: Decisions
    reactions: Reactions
    effects: Effects
    dispatcher: Dispatcher
    replays: Replays
    retention: Retention
    reseal: Reseal
    watches: Watches
    silences: Silences
    deputies: Deputies
    metrics: Metrics
    tracer: Tracer
    clock: Clock
    ready: Callable[[], Awaitable[None]]
    draining: Callable[[], bool]
    reloaded: Callable[[], LastReload | None]
    examples: Callable[[], Iterable[Mapping[str, Any]]]


SERVICES: Final = web.AppKey("SERVICES", Services)
