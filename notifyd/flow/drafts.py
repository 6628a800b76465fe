"""An event's plan and deliveries before they are durable: rules matched, messages rendered, some held back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from notifyd.errors import RenderError
from notifyd.flow.asking import escalations_of
from notifyd.flow.attempt import unrendered
from notifyd.flow.audience import is_override
from notifyd.flow.plan import edits_of, is_end, make_plan, make_ready, stillborn, view, wishes
from notifyd.flow.queues import Ready
from notifyd.flow.silences import Silences, silence_deferral
from notifyd.flow.spans import in_plan_span
from notifyd.flow.storm import Budgets, Deferral, budget_key, deferral_of, is_request
from notifyd.flow.timed import is_timed
from notifyd.metrics import Metrics
from notifyd.model import APPROVAL_KIND, Delivery, Event, PlanEntry, State
from notifyd.registry.registry import Registry
from notifyd.store import Planned, Store
from notifyd.text import counted
from notifyd.tracing import NO_TRACER, Tracer

log = logging.getLogger(__name__)

_TURN: Final = 0.005
"""Seconds of rendering the messages of one event, after which others get their turn."""


class Drafts:
    """Plans and renders events, whichever step makes them durable then."""

    def __init__(
        self,
        *,
        store: Store,
        budgets: Budgets,
        silences: Silences,
        metrics: Metrics,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._silences = silences
        self._metrics = metrics
        self._tracer = tracer

    async def plan(self, event: Event, registry: Registry, now: int, ready: dict[str, Ready]) -> Planned:
        """The plan, unless one is fixed, and its deliveries; those to be sent now are put into `ready`."""
        always = event.kind == APPROVAL_KIND and (registry.settings.approvals.breakglass_to or registry.edits)
        if event.plan is None and not (always or registry.rules.concern(event.kind, event.tenant)):
            return Planned(event, (), ())
        seen = view(event)
        return await in_plan_span(self._tracer, seen, self._planned(event, seen, registry, now, ready))

    async def _planned(
        self,
        event: Event,
        seen: Mapping[str, Any],
        registry: Registry,
        now: int,
        ready: dict[str, Ready],
    ) -> Planned:
        plan = event.plan
        if plan is None:
            matches = registry.rules.match(seen)
            for name in matches.errors:
                self._metrics.rule_errors.labels(name).inc()
            rules = registry.settings.rules if is_override(event, seen) else matches.rules
            taken = await escalations_of(event, rules, self._store)
            plan = make_plan(event, seen, matches.rules, registry, taken)
            if registry.edits and is_end(event, seen) and event.approval_key is not None:
                plan += edits_of(event, seen, await self._store.copies(event.approval_key), registry)
            wish = wishes(seen).get("template")
            if log.isEnabledFor(logging.DEBUG):
                log.debug(
                    "event %s: the rules %s make %s",
                    event.event_id,
                    [rule.name for rule in matches.rules],
                    counted(len(plan), "delivery", "deliveries"),
                )
            if wish is not None:
                self._metrics.template_fallbacks.inc(sum(entry.template != wish for entry in plan))
        return Planned(event, plan, await self.render(event, plan, seen, registry, now, ready))

    async def render(
        self,
        event: Event,
        plan: Sequence[PlanEntry],
        seen: Mapping[str, Any],
        registry: Registry,
        now: int,
        ready: dict[str, Ready],
    ) -> tuple[Delivery, ...]:
        """A delivery for each entry of `plan`: dead if it cannot be rendered, in a window if it has to wait."""
        rows, turn = [], time.perf_counter()
        silence = None if is_override(event, seen) else self._silences.holding(event, seen)
        for entry in plan:
            if time.perf_counter() - turn >= _TURN:
                await asyncio.sleep(0)
                turn = time.perf_counter()
            try:
                made = make_ready(event, entry, seen, registry, now)
            except RenderError as error:
                log.error("delivery %s cannot be rendered: %s", entry.delivery_id, error)
                rows.append(stillborn(event, entry, registry, now))
                continue
            if silence is not None:
                row = _held(made.delivery, silence_deferral(silence, entry, event), registry)
            else:
                row = await self._deferred(made.delivery, entry, event, seen, registry)
            if row.window is None:
                ready[row.id] = Ready(row, made.message)
            rows.append(row)
        return tuple(rows)

    async def _deferred(
        self, row: Delivery, entry: PlanEntry, event: Event, seen: Mapping[str, Any], registry: Registry
    ) -> Delivery:
        """`row` as it is, or deferred to the end of a window where its rule's storm control says so."""
        rule, now = registry.rule(entry.rule), row.created_at
        if rule is None or entry.edits or is_override(event, seen) or is_timed(event):
            return row
        throttled = rule.throttle if not is_request(event.kind, event.action) else None
        if throttled:
            row = evolve(row, budget=budget_key(event.tenant, entry))
            await self._budgets.load(event.tenant, row.budget or "", throttled, now)
        deferral = deferral_of(rule, entry, event, seen, self._budgets, now)
        if deferral is not None:
            return _held(row, deferral, registry)
        if row.budget is not None:
            self._budgets.spend(row.budget, now)
        return row

    async def count(self, new: Sequence[Delivery]) -> None:
        """Tell of deliveries that have become durable. Raises `StoreError`."""
        # What is deferred is queued when its window closes: as itself, or as a part of its digest.
        queued = (row for row in new if not row.edits and row.window is None and row.state is State.PENDING)
        self._metrics.approvals_queued.inc(sum(row.kind == APPROVAL_KIND for row in queued))
        await self._tell_of_dead([row for row in new if row.state is State.DEAD])

    async def _tell_of_dead(self, rows: Sequence[Delivery]) -> None:
        for row in rows:
            self._metrics.deliveries.labels(row.channel, row.state.value).inc()
            self._metrics.dead_letters.labels(row.channel).inc()
        if rows:
            await self._store.write_audit([unrendered(row, row.created_at) for row in rows])


def _held(row: Delivery, deferral: Deferral, registry: Registry) -> Delivery:
    """`row`, held in a window. Holding back takes none of its time."""
    until = deferral.closes_at
    return evolve(
        row,
        window=deferral.key,
        window_start=row.created_at,
        next_attempt_at=until,
        deadline=until + registry.settings.dispatch.max_age,
    )


def with_leases(planned: Sequence[Planned], queued: Sequence[Delivery]) -> list[Planned]:
    """`planned`, its deliveries leased as they are in `queued`."""
    leased = {row.id: row for row in queued}
    return [
        evolve(one, deliveries=tuple(leased.get(row.id, row) for row in one.deliveries))
        if one.deliveries
        else one
        for one in planned
    ]
