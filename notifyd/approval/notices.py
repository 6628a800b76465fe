"""What notifyd itself has to say about an approval: events for its rules, and lines for the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from notifyd.model import APPROVAL_KIND, Approval, ApprovalKey, AuditName, AuditRecord, Event, Instant
from notifyd.wire.codec import canonical, derived_id, rfc3339

NOTIFYD: Final = "notifyd"
"""The client and actor of what the daemon does by itself."""


def over(request: str, body: str) -> str:
    """A later event's body over the members of the request that it is about: its own come first.

    Both are canonical JSON, and so is the result; doing it again changes nothing.
    """
    return canonical(orjson.loads(request) | orjson.loads(body)).decode()


def step_key(key: ApprovalKey, round_: int, action: str, step: tuple[str, ...]) -> str:
    """The key of the one event of that `step` in a round."""
    return derived_id("notice", key.tenant, key.run_id, key.approval_id, round_, action, *step)


def own_event(
    approval: Approval,
    action: str,
    at: Instant,
    *,
    correlation_id: str,
    facts: Mapping[str, Any],
    version: int | None = None,
    life: int = 0,
    step: tuple[str, ...] = (),
) -> Event:
    """An event notifyd raises about an approval: the request's payload, and what has happened since.

    `life` tells events apart that a replay by hand raises of the same version. Of one with a `step` there is one
    in a round, whatever the version is then.
    """
    version = approval.version if version is None else version
    about = (approval.run_id, approval.approval_id, approval.round, action)
    key = (
        step_key(approval.key, approval.round, action, step)
        if step
        else derived_id("notice", approval.tenant, *about, version, life)
    )
    payload = orjson.loads(approval.request)
    payload.pop("type", None)
    payload |= {"kind": APPROVAL_KIND, "action": action, "eventId": key, "occurredAt": rfc3339(at), **facts}
    return Event(
        tenant=approval.tenant,
        key=key,
        event_id=key,
        kind=APPROVAL_KIND,
        action=action,
        occurred_at=at,
        received_at=at,
        body=canonical(payload).decode(),
        content_id="",
        client=NOTIFYD,
        correlation_id=correlation_id,
        run_id=approval.run_id,
        approval_id=approval.approval_id,
        version=version,
        round=approval.round,
    )


def own_audit(
    approval: Approval,
    name: AuditName,
    at: Instant,
    *,
    actor: str,
    correlation_id: str,
    data: Mapping[str, Any],
    step: tuple[str, ...] = (),
) -> AuditRecord:
    """Of a line with a `step` there is one in a round, else one of its name for each version."""
    place: tuple[str | int, ...] = (approval.round, name, *step) if step else (approval.version, name)
    return AuditRecord(
        id=derived_id("audit", approval.tenant, approval.run_id, approval.approval_id, *place),
        tenant=approval.tenant,
        name=name,
        at=at,
        actor=actor,
        correlation_id=correlation_id,
        run_id=approval.run_id,
        approval_id=approval.approval_id,
        data=data,
    )
