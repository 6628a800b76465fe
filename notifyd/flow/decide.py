"""Recording a decision: load, check in the contract's order, write once, answer the same bytes for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson
from attrs import evolve

from notifyd.approval.ballots import (
    Ballot,
    cast,
    check_ballot,
    check_grants,
    earlier_answer,
    may_repeat_superseded,
)
from notifyd.approval.quorum import progress
from notifyd.approval.undo import take_back, undoable_by
from notifyd.config.settings import ResumeTokenMode
from notifyd.errors import ConflictError, Fault, InvalidError, NotFoundError, SealError, StoreError
from notifyd.flow.measures import measure_end, measure_pending
from notifyd.flow.queues import EffectQueue
from notifyd.flow.reasons import lacks_reason
from notifyd.flow.spans import decide_span, take_back_span
from notifyd.flow.windows import check_window
from notifyd.metrics import Metrics
from notifyd.model import Approval, ApprovalKey, Clock, Decision
from notifyd.registry.registry import Registry
from notifyd.security import resume_token
from notifyd.security.redact import spelled, without
from notifyd.store import Store
from notifyd.tracing import NO_TRACE, NO_TRACER, Trace, Tracer
from notifyd.wire.codec import pointer, rfc3339

_RACES: Final = 20
"""How often a decision may lose to another write on the same approval, by another node or an effect that is
completed, before the caller is asked to wait."""


class Decisions:
    """Approvals that owe new effects go to `effect_queue`."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        effect_queue: EffectQueue,
        metrics: Metrics,
        clock: Clock,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._store = store
        self._current = current
        self._effect_queue = effect_queue
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._turns: WeakValueDictionary[ApprovalKey, asyncio.Lock] = WeakValueDictionary()

    async def decide(self, ballot: Ballot, *, private: bool = False, caller: Trace = NO_TRACE) -> bytes:
        """Record `ballot` and answer the response body; a repeat is answered with the first one's.

        `private` says that nobody can read along (TLS, or loopback): only then may the token go in clear,
        where `approvals.return_resume_token` asks for it. `caller` is the trace of the request, for a link.

        Raises `NotFoundError`, `GrantMissingError`, `AlreadyDecidedError`, `ExpiredError`, `PlanChangedError`,
        `InvalidError`, `SelfApprovalError`, `AlreadyVotedError`, `WindowClosedError` or `StoreError`.
        """
        # One after the other: a hundred who came at once would race a hundred times a hundred times.
        async with self._turns.setdefault(ballot.key, asyncio.Lock()):
            approval = await self._load(ballot.key)
            with decide_span(self._tracer, approval, ballot, caller) as span:
                for _ in range(_RACES):
                    check_grants(approval, ballot)
                    earlier = earlier_answer(approval, ballot, await self._superseded(approval, ballot))
                    answer = earlier.answer if earlier else await self._record(approval, ballot)
                    if answer is not None:
                        span.note({"notifyd.outcome": "repeated" if earlier else "recorded"})
                        return self._opened(answer, approval, private)
                    approval = await self._load(ballot.key)
                raise StoreError("too many decisions on this approval at once")

    async def _load(self, key: ApprovalKey) -> Approval:
        approval = await self._store.approval(key)
        if approval is None:
            raise NotFoundError(f"no approval {key.approval_id!r} in run {key.run_id!r}")
        return approval

    async def _superseded(self, approval: Approval, ballot: Ballot) -> Sequence[Decision]:
        if not may_repeat_superseded(approval, ballot):
            return ()
        return await self._store.superseded_by(ballot.key, ballot.actor, ballot.plan_hash)

    async def _record(self, approval: Approval, ballot: Ballot) -> str | None:
        """The answer, once it is durable; None where another write came between."""
        registry, now = self._current(), self._clock()
        allow_self = registry.settings.approvals.allow_self_approval
        check_ballot(
            approval,
            ballot,
            now,
            allow_self=allow_self,
            canonical=registry.actors.canonical,
            lacks_reason=await lacks_reason(approval, ballot, registry, self._store),
        )
        await check_window(approval, ballot, registry, self._store, now)
        token = _token_of(approval, registry) if ballot.comment or ballot.inputs else ()
        _check_secrets(ballot, registry, token)
        ballot = evolve(ballot, comment=without(ballot.comment, token))
        counted = cast(approval, ballot, now, registry.settings.approvals.undo)
        answer = _answer(counted, registry.token_for_client(counted), ballot.correlation_id)
        decision = evolve(counted.decisions[-1], answer=answer)
        written = evolve(counted, decisions=(*counted.decisions[:-1], decision))
        if not await self._store.replace_approval(written):
            return None
        measure_pending(self._metrics, approval, written)
        if written.status.ended and not decision.undo_until:
            measure_end(self._metrics, written)
        self._effect_queue.offer(written)
        return answer

    async def take_back(
        self, key: ApprovalKey, actor: str, *, correlation_id: str, caller: Trace = NO_TRACE
    ) -> None:
        """Undo the last decision of `actor`, while its effects wait. `caller` is the trace of the request.

        Raises `NotFoundError`, `ConflictError` where there is none that can be taken back, or `StoreError`.
        """
        canonical = self._current().actors.canonical
        approval = await self._load(key)
        with take_back_span(self._tracer, approval, caller) as span:
            for _ in range(_RACES):
                now = self._clock()
                decision = undoable_by(approval, actor, now, canonical)
                if decision is None:
                    raise ConflictError("there is no decision that could still be taken back")
                undone = take_back(approval, decision, now, correlation_id=correlation_id)
                if await self._store.replace_approval(undone):
                    measure_pending(self._metrics, approval, undone)
                    span.note({"notifyd.outcome": "recorded"})
                    self._effect_queue.offer(undone)
                    return
                approval = await self._load(key)
            raise StoreError("too many decisions on this approval at once")

    def _opened(self, answer: str, approval: Approval, private: bool) -> bytes:
        """The answer as it goes out: with the token in clear where the config and the way allow it."""
        registry = self._current()
        plain = registry.settings.approvals.return_resume_token is ResumeTokenMode.PLAIN and private
        # What a gate keeps as its token is for the gate alone.
        if not plain or approval.sealed_token is None or approval.gate:
            return answer.encode()
        document = orjson.loads(answer)
        if document["resume"]["deliveryId"] is not None:
            token = resume_token.reveal(registry.keyring, approval.sealed_token)
            document["resume"]["token"] = token.reveal()
        return orjson.dumps(document)


def _token_of(approval: Approval, registry: Registry) -> Sequence[str]:
    """How the request's resume token, which no config names, may be written in what is said of it."""
    if approval.sealed_token is None:
        return ()
    try:
        return spelled(resume_token.reveal(registry.keyring, approval.sealed_token).reveal())
    except SealError:
        return ()  # its key was given up


def _check_secrets(ballot: Ballot, registry: Registry, token: Sequence[str]) -> None:
    """What is filled in is kept, shown and sent as it is. Raises `InvalidError`."""
    redacted = registry.redactor.tree(dict(ballot.inputs))
    faults = [
        Fault(pointer("inputs", name), "must not hold a secret")
        for name, value in ballot.inputs.items()
        if redacted.get(name) != value or (isinstance(value, str) and without(value, token) != value)
    ]
    if faults:
        raise InvalidError(faults)


def _answer(approval: Approval, token: str | None, correlation_id: str) -> str:
    """The state at this time, as the contract has it."""
    decision = approval.decisions[-1]
    document: dict[str, Any] = {
        "runId": approval.run_id,
        "approvalId": approval.approval_id,
        "status": approval.status.value,
        "decision": {
            "decisionHash": decision.decision_hash,
            "actor": decision.actor,
            "decidedAt": rfc3339(decision.decided_at),
            **({"undoUntil": rfc3339(decision.undo_until)} if decision.undo_until else {}),
        },
        "approvals": progress(approval),
        "resume": {
            "status": approval.resume.value,
            "deliveryId": approval.resume_delivery,
            "token": token,
        },
        "correlationId": correlation_id,
    }
    return orjson.dumps(document).decode()
