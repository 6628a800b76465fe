"""What goes out: the records as JSON, in camelCase, without bodies, links or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from notifyd.approval.inputs import inputs_json
from notifyd.approval.quorum import progress
from notifyd.errors import Reason
from notifyd.model import Approval, Attempt, Decision, Delivery, Instant, State, Wait
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.wire.codec import rfc3339


def json_answer(document: Any, status: int = 200) -> web.Response:
    return json_bytes(orjson.dumps(document), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def approval_json(
    approval: Approval, waits: Reason | None = None, superseded: Sequence[Decision] = ()
) -> dict[str, Any]:
    """`waits` is why its callback waits or has failed, and `superseded` what was decided in earlier rounds, where
    that was looked up."""
    request = orjson.loads(approval.request)
    return {
        "tenant": approval.tenant,
        "runId": approval.run_id,
        "approvalId": approval.approval_id,
        "packId": request.get("packId"),
        "status": approval.status.value,
        "round": approval.round,
        "planHash": approval.plan_hash,
        "requiredGrants": approval.required_grants,
        "requestedBy": approval.requested_by,
        "requestedAt": rfc3339(approval.requested_at),
        "expiresAt": instant_json(approval.expires_at),
        "endedAt": instant_json(approval.ended_at),
        "endedBy": approval.ended_by,
        "approvals": progress(approval),
        "decisions": [_decision_json(one) for one in (*superseded, *approval.decisions)],
        "resume": {
            "status": approval.resume.value,
            "deliveryId": approval.resume_delivery,
            "reason": waits.value if waits else None,
        },
        "steps": request.get("steps", []),
        "labels": request.get("labels", {}),
        "message": request.get("message", {}),
        "correlationId": approval.correlation_id,
        **inputs_json(approval),
        **({"undoable": True} if approval.undoable else {}),
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.choice.value,
        "actor": decision.actor,
        "comment": decision.comment,
        "decidedAt": rfc3339(decision.decided_at),
        "decisionHash": decision.decision_hash,
        "round": decision.round,
        "via": decision.via.value,
        "groups": decision.groups,
        "breakGlass": decision.break_glass,
        "inputs": decision.inputs,
        "onBehalfOf": decision.on_behalf_of or None,
    }


def delivery_json(delivery: Delivery, registry: Registry, waits: Wait | None) -> dict[str, Any]:
    """`waits` is what it waits for: see `Dispatcher.wait_of`."""
    return {
        "id": delivery.id,
        "tenant": delivery.tenant,
        "state": delivery.state.value,
        "channel": delivery.channel,
        "rule": delivery.rule,
        "recipient": delivery.recipient,
        "kind": delivery.kind,
        "action": delivery.action,
        "runId": delivery.run_id,
        "approvalId": delivery.approval_id,
        "seq": delivery.seq,
        "attempts": [_attempt_json(attempt) for attempt in delivery.attempts],
        "tries": delivery.tries,
        "nextAttemptAt": rfc3339(delivery.next_attempt_at) if delivery.state.open else None,
        "createdAt": rfc3339(delivery.created_at),
        "endedAt": instant_json(delivery.ended_at),
        "reason": _reason(delivery, registry),
        "waitsFor": waits.value if waits else None,
        "foldedInto": delivery.folded_into,
        "correlationId": delivery.correlation_id,
    }


async def callback_reason(approval: Approval, store: Store, registry: Registry) -> Reason | None:
    """Why an approval's callback waits, or has failed. Raises `StoreError`."""
    callback = await callback_of(approval, store)
    return reason_of(callback, registry) if callback else None


async def callback_of(approval: Approval, store: Store) -> Delivery | None:
    """The callback that tells of an approval's end, once it is queued. Raises `StoreError`."""
    if approval.resume_delivery is None:
        return None
    return await store.delivery(approval.tenant, approval.resume_delivery)


def reason_of(delivery: Delivery, registry: Registry) -> Reason | None:
    """Why it is as it is: one that waits for what the configuration does not have, or allow, says so."""
    if delivery.state is not State.PENDING:
        return delivery.reason
    if registry.lane_fault(delivery.lane):
        return Reason.NOT_ALLOWED
    if registry.channel(delivery.channel, delivery.channel_type) is None:
        return Reason.CHANNEL_MISSING
    return delivery.reason


def _reason(delivery: Delivery, registry: Registry) -> str | None:
    reason = reason_of(delivery, registry)
    return reason.value if reason else None


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": rfc3339(attempt.at),
        "durationMs": attempt.duration_ms,
        "outcome": attempt.outcome.value,
        "reason": attempt.reason.value if attempt.reason else None,
        "status": attempt.status,
        "detail": attempt.detail,
        "excerpt": attempt.excerpt,
    }


def instant_json(instant: Instant | None) -> str | None:
    return None if instant is None else rfc3339(instant)
