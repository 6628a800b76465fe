"""What a decision or an expiry sets off, made durable effect by effect: audit line, notice, signed callback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson

from notifyd.approval.effects import owed_row
from notifyd.approval.notices import own_event, progress
from notifyd.errors import Reason, SealError, StoreError
from notifyd.flow.queues import DispatchQueue, PlanningQueue, Ready
from notifyd.model import (
    APPROVAL_KIND,
    RESUME_CHANNEL,
    Approval,
    AuditRecord,
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
)
from notifyd.registry.egress import origin_of
from notifyd.registry.registry import Registry
from notifyd.security import resume_token
from notifyd.security.envelope import wrap
from notifyd.store import Store, append_as_is
from notifyd.wire.codec import rfc3339

log = logging.getLogger(__name__)

_BATCH: Final = 100


class Effects:
    """Settles what approvals owe: at once for the decisions of this node, by sweep for what was left over.

    Events it raises go to `planning_queue`, callbacks to `dispatch_queue`.
    """

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        dispatch_queue: DispatchQueue,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._planning_queue = planning_queue
        self._dispatch_queue = dispatch_queue
        self._clock = clock
        self._queue: asyncio.Queue[Approval] = asyncio.Queue(_BATCH)

    def offer(self, approval: Approval) -> None:
        """Settle this soon. Where memory is full the sweep finds it."""
        if not self._queue.full():
            self._queue.put_nowait(approval)

    async def run(self) -> None:
        """Settle what is offered, until cancelled."""
        while True:
            await self._guarded(await self._queue.get())

    async def sweep(self) -> int:
        """Settle what is owed, as long as that gets on; answers for how many approvals it did."""
        total = 0
        while True:
            owing = await self._store.owing_approvals(_BATCH)
            settled = sum([await self._guarded(approval) for approval in owing])
            total += settled
            if len(owing) < _BATCH or not settled:
                return total

    async def _guarded(self, approval: Approval) -> bool:
        """One approval whose effects cannot be settled now holds up none of the others."""
        try:
            await self.settle(approval)
            return True
        except (StoreError, SealError) as error:
            log.warning("effects of %s/%s wait: %s", approval.run_id, approval.approval_id, error)
        except Exception:
            log.exception("effects of %s/%s cannot be settled", approval.run_id, approval.approval_id)
        return False

    async def settle(self, approval: Approval) -> None:
        """Do each effect, then complete it. Doing one again makes the same row under the same id."""
        for effect in approval.effects:
            await self._do(approval, effect)
            await self._store.complete_effect(approval.key, effect.id)

    async def _do(self, approval: Approval, effect: Effect) -> None:
        if effect.kind is EffectKind.RESUME:
            await self._queue_callback(approval, effect)
            return
        row = owed_row(effect)
        if isinstance(row, AuditRecord):
            await self._store.write_audit([row])
            return
        lease = self._current().settings.dispatch.lease
        appended = await self._store.append(append_as_is(row, lease=lease))
        if appended.fresh:
            self._planning_queue.offer(appended.event)

    async def _queue_callback(self, approval: Approval, effect: Effect) -> None:
        registry = self._current()
        message = callback_message(approval, effect, registry)
        row = _callback_delivery(approval, effect, message, registry, self._clock())
        await self._dispatch_queue.enqueue(
            [Ready(row, message)], partial(self._store.insert_deliveries, None)
        )


async def callback_ended(
    store: Store, delivery: Delivery, state: State, reason: Reason | None, at: Instant
) -> Event | None:
    """The event that rules see when a callback has been delivered, or never will be."""
    key = delivery.approval_key
    approval = await store.approval(key) if key else None
    if approval is None:
        return None
    sent = state is State.SENT
    status = ResumeStatus.DELIVERED if sent else ResumeStatus.FAILED
    resume = {"status": status.value} | ({"reason": reason.value} if reason else {})
    facts: dict[str, Any] = {
        "status": approval.status.value,
        "round": approval.round,
        "approvals": progress(approval),
        "resume": resume,
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


# --- the callback itself -----------------------------------------------------------------------------------


def callback_message(approval: Approval, effect: Effect, registry: Registry) -> Message:
    """The callback's body, a pure function of the approval that has ended. Raises `SealError`."""
    ended_at, end = _end(approval, effect.data["decisionHash"])
    token = resume_token.reveal(registry.keyring, approval.sealed_token or "")
    about = {"tenant": approval.tenant, "runId": approval.run_id, "approvalId": approval.approval_id}
    data = about | end | {"decidedAt": rfc3339(ended_at), "correlationId": approval.correlation_id}
    body = {
        "type": "pack.approval.decided",
        "timestamp": rfc3339(ended_at),
        "data": data | {"resumeToken": token.reveal()},
    }
    return Message(
        id=effect.id,
        title="",
        body=orjson.dumps(body).decode(),
        recipient=approval.callback_url,
        event={"client": approval.client, "correlationId": approval.correlation_id},
    )


def _end(approval: Approval, decision_hash: str) -> tuple[Instant, dict[str, Any]]:
    """When and how it ended: by the decision of that hash or, where nobody decided in time, by the clock."""
    if approval.status is Status.EXPIRED:
        plan, decision, actors, comment = approval.plan_hash, approval.status.value, [], ""
        ended_at = approval.ended_at or 0
    else:
        last = next(d for d in approval.decisions if d.decision_hash == decision_hash)
        plan, decision, comment = last.plan_hash, last.choice.value, last.comment
        ended_at, actors = last.decided_at, _actors(approval, last)
    return ended_at, {
        "planHash": plan,
        "decision": decision,
        "decisionHash": decision_hash,
        "actors": actors,
        "comment": comment,
    }


def _actors(approval: Approval, decision: Decision) -> list[str]:
    """Who decided so in its round, in order."""
    same = (d.actor for d in approval.decisions if d.round == decision.round and d.choice is decision.choice)
    return list(dict.fromkeys(same))


def _callback_delivery(
    approval: Approval, effect: Effect, message: Message, registry: Registry, now: Instant
) -> Delivery:
    origin = origin_of(approval.callback_url or "")
    return Delivery(
        id=effect.id,
        tenant=approval.tenant,
        event_key="",
        kind=APPROVAL_KIND,
        action="decided",
        rule="",
        channel=RESUME_CHANNEL,
        channel_type=RESUME_CHANNEL,
        lane=f"{RESUME_CHANNEL}:{origin}",
        recipient=None,
        # Always sealed: it holds the token in clear.
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
