"""What is wrong now, on one page: it is shown also where the store, or a part of the daemon, does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from math import isnan
from typing import Final, TypeAlias

from aiohttp import web
from attrs import frozen
from multidict import MultiDict

from notifyd.config.units import MINUTE
from notifyd.errors import StoreError, UnavailableError
from notifyd.flow.lane import BreakerState
from notifyd.model import SECOND
from notifyd.web.channels import find_channels
from notifyd.web.console.access import sees_all
from notifyd.web.console.frame import shows
from notifyd.web.console.html import page, write_age, write_size
from notifyd.web.console.session import Visit
from notifyd.web.dead import find_dead
from notifyd.web.incidents import find_incidents
from notifyd.web.lists import Found
from notifyd.web.ops import READINESS
from notifyd.wire.codec import rfc3339

PATIENCE: Final = 2.0
"""Seconds that each line may take."""

OLD: Final = 5 * MINUTE // SECOND
"""Seconds that a delivery may wait before the page says so."""

SCARCE: Final = 1024**3
"""Bytes of free disk below which the page says so."""

routes = web.RouteTableDef()


class State(StrEnum):
    WRONG = "wrong"
    WATCH = "watch"
    GOOD = "good"


@frozen
class Check:
    """One line of the page. `to` is the page below `/console/` with more of it."""

    what: str
    state: State
    text: str
    to: str = ""


Looker: TypeAlias = Callable[[Visit], Awaitable[Check]]


@shows(routes, "")
async def get_overview(visit: Visit) -> web.Response:
    looks = (_told(visit, what, look) for what, look in _LOOKERS.items())
    checks = [*await asyncio.gather(*looks), *_figures(visit)]
    checks.sort(key=lambda check: list(State).index(check.state))  # stable: else in their own order
    return page(
        visit,
        "overview",
        checks=checks,
        wrong=sum(check.state is State.WRONG for check in checks),
        channels=find_channels(visit.services, visit.registry),
    )


async def _told(visit: Visit, what: str, look: Looker) -> Check:
    """What `look` finds or, where that fails or takes too long, that it cannot be told."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await look(visit)
    except TimeoutError:
        return Check(what, State.WRONG, f"cannot be told: no answer in {PATIENCE:.0f} s")
    except (StoreError, UnavailableError) as error:
        return Check(what, State.WRONG, f"cannot be told: {visit.registry.redactor.text(error.detail)}")


async def _readiness(visit: Visit) -> Check:
    try:
        await visit.request.app[READINESS].check()
    except UnavailableError as error:
        return Check("Readiness", State.WRONG, visit.registry.redactor.text(error.detail))
    return Check("Readiness", State.GOOD, "ready")


async def _incidents(visit: Visit) -> Check:
    found = await find_incidents(visit.request, visit.caller, MultiDict(open="true"))
    return _counted("Open incidents", found, "incidents?open=true")


async def _dead(visit: Visit) -> Check:
    found = await find_dead(visit.request, visit.caller, MultiDict())
    return _counted("Dead letters", found, "dead")


def _counted(what: str, found: Found, to: str) -> Check:
    more = " and more" if found.cursor else ""
    state = State.WRONG if found.items else State.GOOD
    return Check(what, state, f"{len(found.items)}{more}" if found.items else "none", to)


async def _silences(visit: Visit) -> Check:
    silences = visit.services.silences.of(visit.caller.only_tenant())
    count = sum(one.in_force(visit.now) for one in silences)
    return Check("Silences in force", State.WATCH if count else State.GOOD, str(count or "none"), "silences")


async def _reload(visit: Visit) -> Check:
    last, to = visit.services.reloaded(), "configuration" if visit.may_operate and sees_all(visit) else ""
    if last is None:
        return Check("Configuration", State.GOOD, "as at the start", to)
    at = rfc3339(last.at)[:19].replace("T", " ")
    if last.taken:
        return Check("Configuration", State.GOOD, f"reloaded at {at}", to)
    told = f": {'; '.join(last.told)}" if sees_all(visit) else ""
    return Check("Configuration", State.WRONG, f"the reload at {at} was refused{told}", to)


_LOOKERS: Final[dict[str, Looker]] = {
    "Readiness": _readiness,
    "Open incidents": _incidents,
    "Dead letters": _dead,
    "Configuration": _reload,
    "Silences in force": _silences,
}


# --- what the metrics tell -----------------------------------------------------------------------------------


def _figures(visit: Visit) -> Iterator[Check]:
    metrics = visit.services.metrics
    yield _breakers(visit)
    waiting = metrics.values("notifyd_oldest_pending_seconds", "channel")
    channel, oldest = max(waiting.items(), key=lambda one: one[1], default=("", 0.0))
    text = f"{write_age(oldest)}, to {channel}" if oldest else "none waits"
    yield Check(
        "Oldest pending", State.WRONG if oldest > OLD else State.GOOD, text, "deliveries?state=pending"
    )
    unplanned = int(metrics.values("notifyd_unplanned_events").get("", 0))
    state = State.WATCH if unplanned else State.GOOD
    yield Check("Unplanned events", state, str(unplanned) if unplanned else "none")
    aside = metrics.values("notifyd_undecodable_rows", "table")
    tables = ", ".join(f"{int(count)} in {table}" for table, count in sorted(aside.items()) if count)
    yield Check("Rows that cannot be read", State.WRONG if tables else State.GOOD, tables or "none")
    yield _disk(metrics.values("notifyd_disk_free_bytes").get("", float("nan")))


def _breakers(visit: Visit) -> Check:
    channels = find_channels(visit.services, visit.registry)
    shut = [one["name"] for one in channels if one["lane"]["breaker"] != BreakerState.CLOSED.value]
    return Check("Open breakers", State.WRONG if shut else State.GOOD, ", ".join(shut) or "none", "channels")


def _disk(free: float) -> Check:
    if isnan(free):
        return Check("Free disk", State.GOOD, "not known here")
    return Check("Free disk", State.WRONG if free < SCARCE else State.GOOD, write_size(free))
