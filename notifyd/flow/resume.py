"""The end of an approval, told to the one who asked and to forwarders, and the event that comes of the telling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from attrs import evolve

from notifyd.approval.notices import own_event
from notifyd.approval.quorum import progress
from notifyd.approval.receipts import receipt_hash
from notifyd.config.settings import ChannelSettings
from notifyd.errors import Reason, UndecodableRowError
from notifyd.flow.queues import Ready
from notifyd.model import (
    APPROVAL_KIND,
    GATE_ANSWER,
    RESUME_CHANNEL,
    Approval,
    Choice,
    Decision,
    Delivery,
    Effect,
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
from notifyd.store import Store
from notifyd.tracing import trace_in
from notifyd.wire.codec import derived_id, rfc3339


def answer(approval: Approval, effect: Effect, registry: Registry, now: Instant) -> Ready:
    """What the one who asked is sent: by the callback, or through the gate."""
    message, gate = callback_message(approval, effect, registry), approval.gate
    row = _end_delivery(approval, effect, message, registry, now)
    if gate is not None:
        to_gate = evolve(
            row, action=GATE_ANSWER, channel=gate.channel, channel_type=gate.type, lane=gate.channel
        )
        return Ready(to_gate, message)
    return Ready(evolve(row, lane=f"{RESUME_CHANNEL}:{origin_of(approval.callback_url or '')}"), message)


def forward(
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


# --- once it is told, or never will be ---------------------------------------------------------------------


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
