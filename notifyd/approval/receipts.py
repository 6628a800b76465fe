"""The receipt of an approval's end: what it says. `docs/contract/receipt.md` tells it field by field.

An in-toto Statement, version 1 (https://github.com/in-toto/attestation/tree/main/spec/v1), in its canonical form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from attrs import frozen

from notifyd.approval.notices import NOTIFYD
from notifyd.model import Approval, Decision, Status
from notifyd.security.dsse import EnvelopeError, opened
from notifyd.security.jwt import KeySet
from notifyd.wire.audit import Seal
from notifyd.wire.codec import canonical, rfc3339

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:notifyd:approval:v1"

_ALGORITHM: Final = "sha256"


def statement(approval: Approval, head: Seal | None) -> bytes:
    """What is signed about an approval that has ended. `head` is the newest seal over its tenant's audit trail."""
    _, _, digest = approval.plan_hash.partition(":")
    subject = {"name": f"{approval.run_id}/{approval.approval_id}", "digest": {_ALGORITHM: digest}}
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": PREDICATE_TYPE,
            "predicate": _predicate(approval) | {"auditHead": _head(head)},
        }
    )


def _predicate(approval: Approval) -> dict[str, Any]:
    return {
        "tenant": approval.tenant,
        "runId": approval.run_id,
        "approvalId": approval.approval_id,
        "round": approval.round,
        "status": approval.status.value,
        "endedAt": rfc3339(approval.ended_at or 0),
        "endedBy": approval.ended_by or "",
        "way": _way(approval),
        "requestedBy": approval.requested_by,
        "requestedAt": rfc3339(approval.requested_at),
        "client": approval.client,
        "eventId": orjson.loads(approval.request).get("eventId"),
        "requiredApprovals": approval.required_approvals,
        "decisions": [_decision(one) for one in approval.decisions],
    }


def _head(seal: Seal | None) -> dict[str, Any] | None:
    return None if seal is None else {"number": seal.number, "digest": {_ALGORITHM: seal.hash}}


def _way(approval: Approval) -> str:
    """How it ended: by the way of the last vote, by the clock, or by an event of the system that asked."""
    if approval.status is Status.EXPIRED and approval.ended_by == NOTIFYD:
        return "clock"
    last = approval.decisions[-1] if approval.decisions else None
    voted = last is not None and (last.actor, last.decided_at) == (approval.ended_by, approval.ended_at)
    return last.via.value if voted and last is not None else "event"


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.choice.value,
        "decisionHash": decision.decision_hash,
        "actor": decision.actor,
        "onBehalfOf": decision.on_behalf_of or None,
        "decidedAt": rfc3339(decision.decided_at),
        "way": decision.via.value,
        "client": decision.client,
        "reason": _digest(decision.comment.encode()),
        "inputs": _digest(canonical(dict(decision.inputs)) if decision.inputs else b""),
        "groups": list(decision.groups),
        "breakGlass": decision.break_glass,
    }


def _digest(said: bytes) -> dict[str, str] | None:
    """The SHA-256 of a text, in place of it: a receipt travels further than what people wrote for each other."""
    return {_ALGORITHM: hashlib.sha256(said).hexdigest()} if said else None


def receipt_hash(receipt: str) -> str:
    """The hash by which a callback names its receipt."""
    return f"{_ALGORITHM}:{hashlib.sha256(receipt.encode()).hexdigest()}"


@frozen
class Proved:
    """What a receipt proves, and the ids of the keys that have signed it."""

    statement: Mapping[str, Any]
    keys: tuple[str, ...]


def prove(receipt: str | bytes, keys: KeySet) -> Proved:
    """What a receipt says, once `keys` have shown that it is theirs. Raises `EnvelopeError`."""
    envelope = opened(receipt, PAYLOAD_TYPE, keys)
    said = json.loads(envelope.payload)
    if (said.get("_type"), said.get("predicateType")) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise EnvelopeError(f"it is signed, and is no receipt: its predicateType is not {PREDICATE_TYPE}")
    return Proved(said, envelope.keys)
