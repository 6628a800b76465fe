"""What a decision or an expiry sets off, made durable effect by effect: audit line, notice, signed callback."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson
from attrs import evolve

from notifyd import correlation
from notifyd.approval.effects import bury, let_go, owed_row, put_off, revive, within
from notifyd.approval.notices import own_event
from notifyd.approval.quorum import progress
from notifyd.approval.receipts import receipt_hash
from notifyd.config.settings import ChannelSettings
from notifyd.errors import (
    NoSigningKeyError,
    NotFoundError,
    NotifydError,
    Reason,
    StoreError,
    UndecodableRowError,
)
from notifyd.flow.lane import retry_delay
from notifyd.flow.measures import measure_end
from notifyd.flow.queues import DispatchQueue, PlanningQueue, Ready
from notifyd.flow.receipts import receipt_of
from notifyd.metrics import Metrics
from notifyd.model import (
    APPROVAL_KIND,
    GATE_ANSWER,
    RESUME_CHANNEL,
    SECOND,
    Approval,
    ApprovalKey,
    AuditRecord,
    Choice,
    Clock,
    Decision,
    Delivery,
    Effect,
    EffectKind,
    Event,
    Instant,
    Message,
    ResumeStatus,
    State,
    Status,
    Via,
)
from notifyd.registry.egress import origin_of
from notifyd.registry.registry import Registry
from notifyd.security import resume_token
from notifyd.security.envelope import wrap
from notifyd.store import Store, append_as_is
from notifyd.text import one_line
from notifyd.tracing import trace_in
from notifyd.wire.codec import derived_id, rfc3339

log = logging.getLogger(__name__)

_BATCH: Final = 100

_SOONEST: Final = SECOND
"""How long at least an effect that failed is left alone: the sweep would find it again at once."""

_FAULT: Final = 200
"""Characters kept of why an effect failed."""


class Effects:
    """Settles what approvals owe: at once for the decisions of this node, by sweep for what was left over.

    An effect that fails is put off, with the backoff of deliveries, and after `dispatch.max_attempts` is dead:
    listed, counted, and taken up again by hand. Events it raises go to `planning_queue`, callbacks to
    `dispatch_queue`.
    """

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        dispatch_queue: DispatchQueue,
        metrics: Metrics,
        clock: Clock,
        randomness: random.Random | None = None,
    ) -> None:
        self._store = store
        self._current = current
        self._planning_queue = planning_queue
        self._dispatch_queue = dispatch_queue
        self._metrics = metrics
        self._clock = clock
        self._randomness = randomness or random.Random()  # nosec B311 # noqa: S311 - jitter, not a secret
        self._queue: asyncio.Queue[Approval] = asyncio.Queue(_BATCH)

    def offer(self, approval: Approval) -> None:
        """Settle this soon. Where memory is full the sweep finds it."""
        if not self._queue.full():
            self._queue.put_nowait(approval)

    async def run(self) -> None:
        """Settle what is offered, until cancelled."""
        while True:
            approval = await self._queue.get()
            correlation.current.set(approval.correlation_id)  # of this task alone
            try:
                await self.settle(approval)
            except (StoreError, UndecodableRowError) as error:
                log.warning("effects of %s/%s wait: %s", approval.run_id, approval.approval_id, error)

    async def sweep(self) -> int:
        """Settle or put off all that is due; answers for how many approvals it did. Raises `StoreError`."""
        total = 0
        while True:
            now = self._clock()
            owing = await self._store.owing_approvals(now, _BATCH, horizon=self._horizon(now))
            for approval in owing:
                # Since it was found the store may have set it aside.
                with suppress(UndecodableRowError), correlation.about(approval.correlation_id):
                    await self.settle(approval)
            total += len(owing)
            if len(owing) < _BATCH:
                return total

    async def settle(self, approval: Approval) -> None:
        """Do each effect that is due, then complete it. Doing one again makes the same row under the same id.

        One that fails holds up none of the others. Raises `StoreError` where the store takes no word of that
        either, and `UndecodableRowError`; then the effect is due as it was.
        """
        now = self._clock()
        approval = within(approval, self._horizon(now))
        if any(effect.waits_with and effect.next_attempt_at <= now for effect in approval.effects):
            freed = await self._let_go(approval, now)
            if freed is None:
                return  # it was taken back, or another write came between: the sweep comes again
            approval = freed
        for effect in approval.effects:
            if effect.dead or effect.next_attempt_at > now:
                continue
            try:
                await self._do(approval, effect)
                await self._store.complete_effect(approval.key, effect.id)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not hold up the others
                await self._put_off(approval, effect, error)

    def _horizon(self, now: Instant) -> Instant:
        """Until when an effect is put off at the furthest, with a minute for another node's clock."""
        settings = self._current().settings
        furthest: int = max(settings.dispatch.backoff.ceiling, settings.approvals.undo, _SOONEST)
        return now + furthest + 60 * SECOND

    async def _let_go(self, approval: Approval, now: Instant) -> Approval | None:
        """Write that what is due can no longer be taken back: either this write or the taking back comes first."""
        freed = evolve(let_go(approval, now), version=approval.version + 1)
        if not await self._store.replace_approval(freed):
            return None
        last = approval.decisions[-1].decision_hash if approval.decisions else ""
        if freed.status.ended and any(e.waits_with == last for e in approval.effects):
            measure_end(self._metrics, freed)
        return freed

    async def count(self) -> None:
        """Bring the gauges up to date."""
        counts = await self._store.effect_counts()
        self._metrics.owing_approvals.set(counts.owing)
        self._metrics.dead_effects.set(counts.dead)

    async def retry(self, tenant: str, effect_id: str) -> None:
        """Take up a dead effect again, its tries at zero. Raises `NotFoundError` where there is none."""
        found = await self._store.with_dead_effect(tenant, effect_id)
        if found is None:
            raise NotFoundError(f"no dead effect {effect_id!r}")
        revived = await self._change(found.key, effect_id, lambda approval: revive(approval, effect_id))
        if revived is not None:
            self.offer(revived)
        await self.count()

    async def _put_off(self, approval: Approval, effect: Effect, error: Exception) -> None:
        settings, now = self._current().settings.dispatch, self._clock()
        tries, fault = effect.tries + 1, self._fault(error)
        wait = retry_delay(tries, settings.backoff, None, self._randomness)
        later = evolve(effect, tries=tries, fault=fault, next_attempt_at=now + max(wait, _SOONEST))
        dead = tries >= settings.max_attempts
        log.log(
            logging.ERROR if dead else logging.WARNING,
            "the %s effect %s of %s/%s %s: %s",
            *(effect.kind.value, effect.id, approval.run_id, approval.approval_id),
            "is dead" if dead else "waits",
            fault,
            exc_info=None if isinstance(error, NotifydError) else error,
        )
        await self._change(
            approval.key,
            effect.id,
            lambda stored: bury(stored, later, now) if dead else put_off(stored, later),
        )
        if dead:
            await self.count()

    async def _change(
        self, key: ApprovalKey, effect_id: str, change: Callable[[Approval], Approval]
    ) -> Approval | None:
        """Write what `change` makes of the stored approval; None where the effect is completed already."""
        while True:
            stored = await self._store.approval(key)
            if stored is None or all(one.id != effect_id for one in stored.effects):
                return None
            changed = change(stored)
            if await self._store.replace_approval(changed):
                return changed

    def _fault(self, error: Exception) -> str:
        """Why an effect failed, for its reader: of what nobody foresaw the type alone, which holds no secret."""
        text = error.detail if isinstance(error, NotifydError) else type(error).__name__
        return one_line(self._current().redactor.text(text))[:_FAULT]

    async def _do(self, approval: Approval, effect: Effect) -> None:
        if effect.kind is EffectKind.RESUME:
            await self._queue_end(approval, effect)
            return
        row = owed_row(effect)
        if isinstance(row, AuditRecord):
            await self._store.write_audit([row])
            return
        lease = self._current().settings.dispatch.lease
        appended = await self._store.append(append_as_is(row, lease=lease))
        if appended.fresh:
            self._planning_queue.offer(appended.event)

    async def _queue_end(self, approval: Approval, effect: Effect) -> None:
        """The callback or the gate's answer, where one is owed, and what each forwarder is sent."""
        registry, now = self._current(), self._clock()
        with suppress(NoSigningKeyError, NotFoundError):  # asked for anew since
            receipt = await receipt_of(approval.key, self._store, registry)
            approval = evolve(approval, receipt=receipt)
        forwarders = registry.settings.resume.forwarders.values()
        ready = [_forward(approval, effect, one, registry, now) for one in forwarders if not one.type.gate]
        if approval.resume_delivery == effect.id:
            ready.append(_answer(approval, effect, registry, now))
        if ready:
            await self._dispatch_queue.enqueue(ready, partial(self._store.insert_deliveries, None))


async def callback_ended(
    store: Store, delivery: Delivery, state: State, reason: Reason | None, at: Instant
) -> Event | None:
    """The event that rules see when a callback has been delivered, or never will be."""
    key = delivery.approval_key
    try:
        approval = await store.approval(key) if key else None
    except UndecodableRowError:
        return None  # nobody can be told of what cannot be read; the callback has ended all the same
    if approval is None:
        return None
    sent = state is State.SENT
    status = ResumeStatus.DELIVERED if sent else ResumeStatus.FAILED
    facts: dict[str, Any] = {
        "status": approval.status.value,
        "round": approval.round,
        "approvals": progress(approval),
        "resume": {"status": status.value, **_fault_of(delivery, reason)},
        **_deciding(approval),
    }
    return own_event(
        approval,
        "resumed" if sent else "resume_failed",
        at,
        correlation_id=delivery.correlation_id,
        facts=facts,
        version=delivery.seq + 1,
        # A row that was retried by hand has lost its place in the order, and may fail a second time.
        life=0 if delivery.seq else delivery.fencing_token,
    )


def _fault_of(delivery: Delivery, reason: Reason | None) -> dict[str, Any]:
    """The reason of a failed callback, and the status of the last answer where there was one."""
    if reason is None:
        return {}
    answered = delivery.attempts[-1].status if delivery.attempts else None
    return {"reason": reason.value} | ({"answered": answered} if answered else {})


def _deciding(approval: Approval) -> dict[str, Any]:
    """The decision that ended it, as the notice of that decision has it, but for what was said with it."""
    if approval.status not in (Status.APPROVED, Status.REJECTED) or not approval.decisions:
        return {}
    last = approval.decisions[-1]
    told = {"decision": last.choice.value, "actor": last.actor, "decidedAt": rfc3339(last.decided_at)}
    return {"decision": told | _override(last)}


def _override(decision: Decision) -> dict[str, Any]:
    return {"breakGlass": True} if decision.break_glass else {}


def _stood_in(approval: Approval, actors: Sequence[str]) -> dict[str, Any]:
    """For whom each of `actors` who is a deputy decided; nothing where none is."""
    deputies = {d.actor: d.on_behalf_of for d in approval.decisions if d.on_behalf_of and d.actor in actors}
    return {"onBehalfOf": deputies} if deputies else {}


def _ways(approval: Approval, actors: Sequence[str]) -> dict[str, Any]:
    """In which way each of `actors` decided; nothing where none has signed in for it."""
    ways = {d.actor: d.via for d in approval.decisions if d.actor in actors}
    return {"via": ways} if Via.SIGN_IN in ways.values() else {}


# --- the callback itself -----------------------------------------------------------------------------------


def callback_message(approval: Approval, effect: Effect, registry: Registry) -> Message:
    """The callback's body, a pure function of the approval that has ended. Raises `SealError`."""
    token = resume_token.reveal(registry.keyring, approval.sealed_token or "")
    return Message(
        id=effect.id,
        title="",
        body=_told(approval, effect, token.reveal()),
        recipient=approval.callback_url,
        event=_about(approval),
    )


def _about(approval: Approval) -> dict[str, Any]:
    """Whose it is, and the trace of the event that asked."""
    trace = trace_in(orjson.loads(approval.request))
    return {"client": approval.client, "correlationId": approval.correlation_id, **trace}


def _told(approval: Approval, effect: Effect, token: str | None) -> str:
    """What the one who asked, and forwarders, are told of the end: `pack.approval.decided`, as JSON."""
    ended_at, end = _end(approval, effect.data["decisionHash"])
    about = {"tenant": approval.tenant, "runId": approval.run_id, "approvalId": approval.approval_id}
    data = (
        about
        | end
        | _groups(approval)
        | {"decidedAt": rfc3339(ended_at), "correlationId": approval.correlation_id}
        | ({"receiptHash": receipt_hash(approval.receipt)} if approval.receipt else {})
    )
    body = {
        "type": "pack.approval.decided",
        "timestamp": rfc3339(ended_at),
        "data": data | {"resumeToken": token},
    }
    return orjson.dumps(body).decode()


def _end(approval: Approval, decision_hash: str) -> tuple[Instant, dict[str, Any]]:
    """When and how it ended: by the decision of that hash, by the clock, or by the one who asked."""
    last = next((d for d in approval.decisions if d.decision_hash == decision_hash), None)
    if last is not None:
        plan, decision, comment = last.plan_hash, last.choice.value, last.comment
        ended_at, actors = last.decided_at, _actors(approval, last)
        of_decision = _override(last) | _inputs(approval, last)
    else:
        plan, decision, comment = approval.plan_hash, approval.status.value, ""
        by = approval.ended_by if approval.status is not Status.EXPIRED else None
        ended_at, actors, of_decision = approval.ended_at or 0, [by] if by else [], {}
    return ended_at, {
        "planHash": plan,
        "decision": decision,
        "decisionHash": decision_hash,
        "actors": actors,
        "comment": comment,
        **of_decision,
        **_stood_in(approval, actors),
        **_ways(approval, actors),
    }


def _actors(approval: Approval, decision: Decision) -> list[str]:
    """The people who decided, in order."""
    return list(dict.fromkeys(d.actor for d in approval.decisions if d.choice is decision.choice))


def _groups(approval: Approval) -> dict[str, Any]:
    """The people counted in each group; nothing where there are no groups."""
    counted = progress(approval)
    return {"groups": counted["groups"]} if "groups" in counted else {}


def _inputs(approval: Approval, decision: Decision) -> dict[str, Any]:
    """The effective inputs; nothing where it was not approved, or none were asked for."""
    asked = approval.inputs and decision.choice is Choice.APPROVED
    return {"inputs": decision.inputs} if asked else {}


def _forward(
    approval: Approval, effect: Effect, forwarder: ChannelSettings, registry: Registry, now: Instant
) -> Ready:
    """The same end as one forwarder is sent it: its token is sealed for the client that asked."""
    message = Message(
        id=derived_id("forward", approval.tenant, effect.id, forwarder.name),
        title="",
        body=_told(approval, effect, registry.token_for_client(approval)),
        event=_about(approval),
    )
    row = _end_delivery(approval, effect, message, registry, now)
    return Ready(
        evolve(row, channel=forwarder.name, channel_type=forwarder.type.name, lane=forwarder.name), message
    )


def _answer(approval: Approval, effect: Effect, registry: Registry, now: Instant) -> Ready:
    """What the one who asked is sent: by the callback, or through the gate."""
    message, gate = callback_message(approval, effect, registry), approval.gate
    row = _end_delivery(approval, effect, message, registry, now)
    if gate is not None:
        to_gate = evolve(
            row, action=GATE_ANSWER, channel=gate.channel, channel_type=gate.type, lane=gate.channel
        )
        return Ready(to_gate, message)
    return Ready(evolve(row, lane=f"{RESUME_CHANNEL}:{origin_of(approval.callback_url or '')}"), message)


def _end_delivery(
    approval: Approval, effect: Effect, message: Message, registry: Registry, now: Instant
) -> Delivery:
    return Delivery(
        id=message.id,
        tenant=approval.tenant,
        event_key="",
        kind=APPROVAL_KIND,
        action="decided",
        rule="",
        channel=RESUME_CHANNEL,
        channel_type=RESUME_CHANNEL,
        lane=RESUME_CHANNEL,
        recipient=None,
        # Always sealed: a callback holds the token in clear.
        message=wrap(message, registry.keyring, sealed=True),
        sealed=True,
        correlation_id=approval.correlation_id,
        created_at=now,
        next_attempt_at=now,
        deadline=now + registry.settings.resume.max_age,
        run_id=approval.run_id,
        approval_id=approval.approval_id,
        seq=effect.data["version"],
    )
