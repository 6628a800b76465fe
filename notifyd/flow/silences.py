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


_HEARD: Final = 5 * MINUTE
"""Within this time of an early end every node has heard of it, unless it was cut off from the store."""

_TURNS: Final = 60
"""Of how many refreshes one looks again for what a node that was cut off has held since."""


@frozen
class _Compiled:
    """A tenant's silences, and one book of their predicates, which share the bound on cost.

    `made_from` are those that are not ended, `silences` those of them that compile.
    """

    made_from: Sequence[Silence]
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
        self._live: tuple[Silence, ...] = ()
        self._compiled_with: Registry | None = None
        self._by_tenant: Mapping[str, _Compiled] = {}
        self._turn = 0
        self._told: set[str] = set()

    async def refresh(self) -> int:
        """Take over what other nodes have added or ended, and let go of what ended early. Raises `StoreError`."""
        async with self._refreshing:  # what is read first must not be taken over last
            now = self._clock()
            await self._take_over(tuple(await self._store.live_silences(now)))
        self._metrics.silences.set(sum(one.in_force(now) for one in self._live))
        self._turn += 1
        for place, one in enumerate(self._live):
            if self._may_hold_more(place, one, now):
                await self._store.close_windows(one.tenant, _first_key(one), _last_key(one), now)
        return 0

    def _may_hold_more(self, place: int, one: Silence, now: Instant) -> bool:
        """Is it to be looked at whether a node that had not heard of its early end has held something since?"""
        if one.ended_at is None:
            return False
        return now - one.ended_at < _HEARD or (self._turn + place) % _TURNS == 0

    async def _take_over(self, live: tuple[Silence, ...]) -> None:
        registry = self._current()
        if live != self._live or registry is not self._compiled_with:
            # In a thread, as a hundred predicates take the compiler a fifth of a second.
            known = self._by_tenant if registry is self._compiled_with else {}
            self._by_tenant = await asyncio.to_thread(_compiled, live, registry, known)
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
        if len(self.of(silence.tenant)) >= MAX_LIVE:
            raise TooManySilencesError(f"a tenant may have {MAX_LIVE} silences that are not over")
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
        _book([predicate], ["silence"], registry)
    except ConfigError as error:
        return tuple(fault.message for fault in error.faults)
    return ()


def _book(predicates: Sequence[str], names: Sequence[str], registry: Registry) -> RuleBook:
    rules = [Rule(name=name, when=when, channels=()) for name, when in zip(names, predicates, strict=True)]
    return RuleBook.compile(rules, registry.discovered.rule_functions)


def _compiled(
    live: Sequence[Silence], registry: Registry, known: Mapping[str, _Compiled]
) -> Mapping[str, _Compiled]:
    """Those that are not ended, by tenant. What is `known` of a tenant stays where its silences are the same."""
    found: defaultdict[str, list[Silence]] = defaultdict(list)
    for one in live:
        if one.ended_at is None:
            found[one.tenant].append(one)
    return {
        tenant: known[tenant]
        if tenant in known and known[tenant].made_from == silences
        else _compiled_anew(silences, registry)
        for tenant, silences in found.items()
    }


def _compiled_anew(silences: Sequence[Silence], registry: Registry) -> _Compiled:
    """One that does not compile with this configuration holds nothing."""
    good = dict[str, Silence]()
    for one in silences:
        if faults := predicate_faults(one.predicate, registry):
            log.warning("silence %s of tenant %s holds nothing: %s", one.id, one.tenant, "; ".join(faults))
        else:
            good[one.id] = one
    return _Compiled(silences, good, _book([one.predicate for one in good.values()], list(good), registry))


def _first_key(silence: Silence) -> str:
    return f"{SILENCED}{silence.id}:"


def _last_key(silence: Silence) -> str:
    """Above every key that begins as the first does."""
    return f"{SILENCED}{silence.id};"
