"""The deputies whom people name for the days on which they are away: whom they may, and how nodes hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from attrs import frozen

from notifyd.config.units import DAY, HOUR
from notifyd.model import SECOND, AuditName, AuditRecord, Clock, Instant, OwnDeputy
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.wire.codec import derived_id

MAX_LIVE: Final = 3
"""How many deputies of a person may be in force or to come in a tenant."""

MAX_A_DAY: Final = 20
"""How many a person may name in 24 hours, those that were ended again among them."""

LONGEST: Final = 366
"""How many days ahead the last day may be."""


class Refusal(StrEnum):
    """Why somebody does not become a deputy."""

    SIGN_IN = "sign_in"  # the person has to sign in first
    DAYS = "days"  # not days, or over, or too far ahead
    LONG = "long"  # a link alone gives nobody more days than it has itself
    SELF = "self"
    NOBODY = "nobody"  # no rule asks anybody of that name
    AWAY = "away"  # they have a deputy themself on some of these days
    TAKEN = "taken"  # the person has one already on some of these days
    MANY = "many"


@frozen
class Wish:
    """Whom `person` wants to stand in for them, from one day to another, both included, in their zone.

    `request` tells this wish from an equal one that is made later. `signed_in`: the person has proved who they
    are.
    """

    tenant: str
    person: str
    deputy: str
    first: date
    last: date
    signed_in: bool
    request: str


def days_by_link(registry: Registry) -> int:
    """For how many days a deputy may be named by a link alone."""
    return max(1, registry.settings.approvals.link_ttl // DAY)


class Deputies:
    """The deputies of all tenants: `refresh` gives those that the store has to every registry of this node."""

    def __init__(self, *, store: Store, current: Callable[[], Registry], clock: Clock) -> None:
        self._store = store
        self._current = current
        self._clock = clock
        self._turn = asyncio.Lock()
        self._live: Sequence[OwnDeputy] = ()

    async def refresh(self) -> int:
        """Take over what other nodes have added or ended. Raises `StoreError`."""
        async with self._turn:  # what is read first must not be taken over last
            await self._take_over()
        return 0

    async def _take_over(self) -> None:
        self._live = await self._store.live_deputies(self._clock())
        self._current().deputies.take_over(self._live)

    async def add(self, wish: Wish, correlation_id: str) -> Refusal | None:
        """Have it stand, unless it is refused. Done again it changes nothing. Raises `StoreError`."""
        async with self._turn:
            await self._take_over()
            registry, now = self._current(), self._clock()
            deputy = _deputy(wish, registry, now)
            if any(one.id == deputy.id for one in self._live):
                return None
            refusal = _refusal(wish, deputy, self._live, registry, now)
            if refusal is None:
                facts = {"proof": "sign-in" if wish.signed_in else "link"}
                await self._store.add_deputy(
                    deputy, _audit(deputy, AuditName.DEPUTY_SET, now, correlation_id, facts)
                )
                await self._take_over()
            return refusal

    async def end(self, tenant: str, person: str, deputy_id: str, correlation_id: str) -> None:
        """End one that `person` has named; where there is none, nothing is done. Raises `StoreError`."""
        async with self._turn:
            await self._take_over()
            named = self._current().deputies.of(tenant, person)
            deputy = next((one for one in named if one.id == deputy_id), None)
            if deputy is not None:
                now = self._clock()
                record = _audit(deputy, AuditName.DEPUTY_ENDED, now, correlation_id, {})
                await self._store.end_deputy(tenant, deputy_id, now, record)
                await self._take_over()


def _deputy(wish: Wish, registry: Registry, now: Instant) -> OwnDeputy:
    canonical = registry.actors.canonical
    person, deputy = canonical(wish.person), canonical(wish.deputy)
    first, last = wish.first.isoformat(), wish.last.isoformat()
    return OwnDeputy(
        tenant=wish.tenant,
        id=derived_id("deputy", wish.tenant, person, deputy, first, last, wish.request),
        person=person,
        deputy=deputy,
        first=first,
        last=last,
        proved=wish.signed_in,
        created_at=now,
        over_at=_over(wish.last),
    )


def _over(day: date) -> Instant:
    """When `day` is over in the last zone that has it, UTC-12."""
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return round(begins.timestamp()) * SECOND + DAY + 12 * HOUR


def _refusal(
    wish: Wish, deputy: OwnDeputy, live: Iterable[OwnDeputy], registry: Registry, now: Instant
) -> Refusal | None:
    return (
        _of_days(wish, registry, now)
        or _of_person(wish, deputy, registry)
        or _of_others(wish, deputy, [one for one in live if one.tenant == wish.tenant], registry, now)
    )


def _of_days(wish: Wish, registry: Registry, now: Instant) -> Refusal | None:
    if registry.provider is not None and not wish.signed_in:
        return Refusal.SIGN_IN
    today = registry.day(wish.person, now)
    if not today <= wish.first <= wish.last <= today + timedelta(days=LONGEST):
        return Refusal.DAYS
    length = (wish.last - wish.first).days + 1
    return Refusal.LONG if not wish.signed_in and length > days_by_link(registry) else None


def _of_person(wish: Wish, deputy: OwnDeputy, registry: Registry) -> Refusal | None:
    if deputy.deputy == deputy.person:
        return Refusal.SELF
    return None if deputy.deputy in registry.approvers(wish.tenant) else Refusal.NOBODY


def _of_others(
    wish: Wish, deputy: OwnDeputy, live: Sequence[OwnDeputy], registry: Registry, now: Instant
) -> Refusal | None:
    if _has_one(deputy.deputy, wish, live, registry):
        return Refusal.AWAY
    if _has_one(deputy.person, wish, live, registry):
        return Refusal.TAKEN
    named = [one for one in live if one.person == deputy.person]
    lately = sum(one.created_at > now - DAY for one in named)
    many = lately >= MAX_A_DAY or sum(one.ended_at is None for one in named) >= MAX_LIVE
    return Refusal.MANY if many else None


def _has_one(person: str, wish: Wish, live: Iterable[OwnDeputy], registry: Registry) -> bool:
    """Has `person` a deputy on any of these days, by the configuration or by their own will?"""
    configured = registry.recipient(person).deputy
    if configured is not None and configured.from_ <= wish.last and wish.first <= configured.until:
        return True
    first, last = wish.first.isoformat(), wish.last.isoformat()
    own = (one for one in live if one.person == person and one.ended_at is None)
    return any(one.first <= last and first <= one.last for one in own)


def _audit(
    deputy: OwnDeputy, name: AuditName, at: Instant, correlation_id: str, facts: Mapping[str, Any]
) -> AuditRecord:
    days = {"from": deputy.first, "until": deputy.last}
    return AuditRecord(
        id=derived_id("audit", deputy.tenant, name.value, deputy.id),
        tenant=deputy.tenant,
        name=name,
        at=at,
        actor=deputy.person,
        correlation_id=correlation_id,
        data={"deputyId": deputy.id, "deputy": deputy.deputy, **days, **facts},
    )
