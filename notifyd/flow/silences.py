"""Silences: what an operator has held back for a time, by a predicate over events.

What a silence holds waits in a window of its own for each rule, channel and recipient. When the silence ends it is
told as at the end of quiet hours: one message as itself, several as a digest. Nothing is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from notifyd.config.settings import Rule
from notifyd.config.units import MINUTE
from notifyd.errors import ConfigError, TooManySilencesError
from notifyd.flow.storm import Deferral, is_request, window_key
from notifyd.metrics import Metrics
from notifyd.model import (
    APPROVAL_KIND,
    SILENCED,
    AuditName,
    AuditRecord,
    Clock,
    Event,
    Instant,
    PlanEntry,
    Silence,
)
from notifyd.registry.registry import Registry
from notifyd.rules.rules import RuleBook, Verdict
from notifyd.store import Store
from notifyd.wire.codec import derived_id, rfc3339

log = logging.getLogger(__name__)

MAX_LIVE = 100
"""How many silences of a tenant may be in force or to come: each is asked about each of its events."""


_AT_ONCE: Final = 100
"""Of how many silences at once the windows are closed, so that a thousand that end together take few commits."""

_HEARD: Final = 5 * MINUTE
"""Within this time of an early end every node has heard of it, unless it was cut off from the store."""

_TURNS: Final = 60
"""Of how many refreshes one looks again for what a node that was cut off has held since."""


@frozen
class _Compiled:
    """A tenant's silences, and one book of their predicates, which share the bound on cost."""

    silences: Mapping[str, Silence]
    book: RuleBook


class Silences:
    """The silences of all tenants that are not over, as this node knows them: `refresh` asks the store."""

    def __init__(
        self, *, store: Store, current: Callable[[], Registry], metrics: Metrics, clock: Clock
    ) -> None:
        self._store = store
        self._current = current
        self._metrics = metrics
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._asked = 0
        self._answered = 0
        self._adding: defaultdict[str, set[str]] = defaultdict(set)
        self._live: tuple[Silence, ...] = ()
        self._compiled_with: Registry | None = None
        self._books: Mapping[str, RuleBook | None] = {}
        self._by_tenant: Mapping[str, _Compiled] = {}
        self._turn = 0
        self._told: set[str] = set()

    async def refresh(self) -> int:
        """Take over what other nodes have added or ended, and let go of what ended early. Raises `StoreError`.

        Who asks while one is under way waits for the next, which answers all of them at once.
        """
        self._asked += 1
        mine = self._asked
        async with self._refreshing:  # what is read first must not be taken over last
            if self._answered < mine:
                answers = self._asked
                await self._refresh()
                self._answered = answers
        return 0

    async def _refresh(self) -> None:
        now = self._clock()
        await self._take_over(tuple(await self._store.live_silences(now)))
        self._metrics.silences.set(sum(one.in_force(now) for one in self._live))
        self._turn += 1
        letting_go = [one for place, one in enumerate(self._live) if self._may_hold_more(place, one, now)]
        for first in range(0, len(letting_go), _AT_ONCE):
            some = letting_go[first : first + _AT_ONCE]
            close = self._store.close_windows
            await asyncio.gather(*(close(one.tenant, _first_key(one), _last_key(one), now) for one in some))

    def _may_hold_more(self, place: int, one: Silence, now: Instant) -> bool:
        """Is it to be looked at whether a node that had not heard of its early end has held something since?"""
        if one.ended_at is None:
            return False
        return now - one.ended_at < _HEARD or (self._turn + place) % _TURNS == 0

    async def _take_over(self, live: tuple[Silence, ...]) -> None:
        registry = self._current()
        if live != self._live or registry is not self._compiled_with:
            known = self._books if registry is self._compiled_with else {}
            # In a thread, as a hundred predicates take the compiler a fifth of a second.
            self._books, self._by_tenant = await asyncio.to_thread(_compiled, live, known, registry)
            self._live, self._compiled_with = live, registry
            self._told &= {one.id for one in live}

    def of(self, tenant: str) -> list[Silence]:
        """Those of a tenant that are in force or to come, oldest first."""
        now = self._clock()
        return [
            one for one in self._live if one.tenant == tenant and one.ended_at is None and one.ends_at > now
        ]

    def holding(self, event: Event, seen: Mapping[str, Any]) -> Silence | None:
        """The silence that holds what an event sets off: of several the one that ends last."""
        compiled = self._by_tenant.get(event.tenant)
        if compiled is None:
            return None
        now, matches = self._clock(), compiled.book.match(seen)
        if not self._told.issuperset(matches.errors):
            self._tell(compiled, event, seen)
        matching = (compiled.silences[rule.name] for rule in matches.rules)
        holding = [
            one for one in matching if one.in_force(now) and (one.approvals or event.kind != APPROVAL_KIND)
        ]
        return max(holding, key=lambda one: (one.ends_at, one.id), default=None)

    def _tell(self, compiled: _Compiled, event: Event, seen: Mapping[str, Any]) -> None:
        """The first time that each silence cannot be tried on an event: whoever added it expects it to hold."""
        for one in compiled.book.explain(seen):
            if one.verdict is Verdict.ERROR and one.rule.name not in self._told:
                self._told.add(one.rule.name)
                log.info(
                    "silence %s of tenant %s holds nothing of an event of kind %s: %s",
                    *(one.rule.name, event.tenant, event.kind, one.detail),
                )

    def held_until(self, tenant: str, window: str) -> Instant | None:
        """When the silence ends that holds a window, by its key; None where no silence in force does."""
        now = self._clock()
        holding = (one for one in self._live if one.tenant == tenant and window.startswith(_first_key(one)))
        return next((one.ends_at for one in holding if one.in_force(now)), None)

    async def add(self, silence: Silence, correlation_id: str) -> None:
        """Raises `TooManySilencesError`, `StoreError`."""
        adding = self._adding[silence.tenant]
        if len(adding.union(one.id for one in self.of(silence.tenant))) >= MAX_LIVE:
            raise TooManySilencesError(f"a tenant may have {MAX_LIVE} silences that are not over")
        adding.add(silence.id)
        try:
            await self._add(silence, correlation_id)
        finally:
            adding.discard(silence.id)

    async def _add(self, silence: Silence, correlation_id: str) -> None:
        facts = {"silenceId": silence.id, "when": silence.predicate, "reason": silence.reason}
        times = {"startsAt": rfc3339(silence.starts_at), "endsAt": rfc3339(silence.ends_at)}
        record = self._audit(silence, AuditName.SILENCE_ADDED, silence.author, correlation_id, facts | times)
        forget = self._clock() - self._current().settings.retention.audit
        await self._store.add_silence(silence, record, forget)
        await self.refresh()

    async def end(self, tenant: str, silence_id: str, by: str, correlation_id: str) -> Silence | None:
        """The silence as it is then, also where it was over before; None where there is none."""
        now = self._clock()
        record = AuditRecord(
            id=derived_id("audit", tenant, AuditName.SILENCE_ENDED.value, silence_id),
            tenant=tenant,
            name=AuditName.SILENCE_ENDED,
            at=now,
            actor=by,
            correlation_id=correlation_id,
            data={"silenceId": silence_id},
        )
        ended = await self._store.end_silence(tenant, silence_id, now, record)
        await self.refresh()
        return ended

    def _audit(
        self, silence: Silence, name: AuditName, actor: str, correlation_id: str, facts: Mapping[str, Any]
    ) -> AuditRecord:
        return AuditRecord(
            id=derived_id("audit", silence.tenant, name.value, silence.id),
            tenant=silence.tenant,
            name=name,
            at=silence.created_at,
            actor=actor,
            correlation_id=correlation_id,
            data=facts,
        )


def silence_deferral(silence: Silence, entry: PlanEntry, event: Event) -> Deferral:
    """The window that a silence holds a delivery in. A request, which has a link, is in none with others."""
    group = "requests" if is_request(event.kind, event.action) else ""
    return Deferral(
        _first_key(silence) + window_key("silence", silence.tenant, entry, group), silence.ends_at
    )


def predicate_faults(predicate: str, registry: Registry) -> tuple[str, ...]:
    """What is wrong with a predicate, told as of a rule's `when`."""
    try:
        _book(predicate, "silence", registry)
    except ConfigError as error:
        return tuple(fault.message for fault in error.faults)
    return ()


def _book(predicate: str, name: str, registry: Registry) -> RuleBook:
    rule = Rule(name=name, when=predicate, channels=())
    return RuleBook.compile([rule], registry.discovered.rule_functions)


def _compiled(
    live: Sequence[Silence], known: Mapping[str, RuleBook | None], registry: Registry
) -> tuple[Mapping[str, RuleBook | None], Mapping[str, _Compiled]]:
    """The book of each silence that is not ended, by its id, and those of a tenant joined. `known` are of before.

    One that does not compile with this configuration has no book, and holds nothing.
    """
    books: dict[str, RuleBook | None] = {}
    found: defaultdict[str, dict[Silence, RuleBook]] = defaultdict(dict)
    for one in live:
        if one.ended_at is None:
            book = books[one.id] = known[one.id] if one.id in known else _book_of(one, registry)
            if book is not None:
                found[one.tenant][one] = book
    return books, {
        tenant: _Compiled({one.id: one for one in mine}, RuleBook.joined(list(mine.values())))
        for tenant, mine in found.items()
    }


def _book_of(silence: Silence, registry: Registry) -> RuleBook | None:
    try:
        return _book(silence.predicate, silence.id, registry)
    except ConfigError as error:
        faults = "; ".join(fault.message for fault in error.faults)
        log.warning("silence %s of tenant %s holds nothing: %s", silence.id, silence.tenant, faults)
        return None


def _first_key(silence: Silence) -> str:
    return f"{SILENCED}{silence.id}:"


def _last_key(silence: Silence) -> str:
    """Above every key that begins as the first does."""
    return f"{SILENCED}{silence.id};"
