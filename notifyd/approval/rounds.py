"""Requested and Updated events: how an approval opens, opens a later round, and is ended from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from notifyd.approval.changes import with_changes
from notifyd.approval.effects import (
    expiry_hash,
    hasten,
    let_go,
    owing_callback,
    owing_expiry_notice,
    owing_forwards,
)
from notifyd.approval.notices import NOTIFYD, over
from notifyd.model import (
    Approval,
    ApprovalKey,
    AuditName,
    AuditRecord,
    Decision,
    Event,
    Group,
    Input,
    Instant,
    Outcome,
    Status,
)
from notifyd.store import Advance, Subject
from notifyd.wire.codec import derived_id

_SILENT: Final = frozenset({Outcome.EXPIRED, Outcome.RECORDED})
"""Outcomes that people are not told of."""


Shared: TypeAlias = Callable[[str, str], bool]
"""Given an approval's client and another: does the first let the second act on what is its own?"""


@frozen
class Request:
    """A PackApprovalRequested made ready: actors canonical, the token sealed, defaults applied."""

    plan_hash: str
    required_grants: tuple[str, ...]
    required_approvals: int
    requested_by: str
    expires_at: Instant
    callback_url: str
    sealed_token: str
    groups: tuple[Group, ...] = ()
    inputs: tuple[Input, ...] = ()
    timer_at: Instant | None = None


@frozen
class Update:
    """A PackApprovalUpdated: the other side says how the approval ended."""

    status: Status
    decided_by: str
    plan_hash: str


def on_requested(
    stored: Approval | None, event: Event, request: Request, now: Instant, shared: Shared
) -> Advance:
    """Open round 1, open a later round, or only record. An approval that is over stays so.

    An approval past its expiry at `now` counts as over; the timer ends it, with all that this sets off.
    An approval belongs to the client that made it: a request from another client is only recorded. The end of one
    that was never asked for, told by a client that has no say over it, keeps nobody from asking.
    """
    if stored is None:
        return _open_round(event, request, now, before=None)
    if not stored.requested and not _may(event.client, stored.belongs_to, shared):
        return _open_round(event, request, now, before=stored)
    if not _may(stored.belongs_to, event.client, shared):
        return recorded(event, stored.version, stored.round, AuditName.REQUESTED, belongsTo=stored.belongs_to)
    if stored.status.ended or stored.overdue(now):
        return _too_late(stored, event, AuditName.REQUESTED)
    if event.occurred_at <= stored.heard_at:
        return recorded(event, stored.version, stored.round, AuditName.REQUESTED)
    if request.plan_hash == stored.plan_hash:
        return _asked_again(stored, event)
    return _open_round(event, request, now, before=stored)


def _may(owner: str, client: str, shared: Shared) -> bool:
    return owner in ("", client) or shared(owner, client)


def _asked_again(stored: Approval, event: Event) -> Advance:
    """Record the repeat, so that a request that is older and comes late cannot open a round."""
    heard = evolve(stored, version=stored.version + 1, heard_again_at=event.occurred_at)
    return evolve(recorded(event, heard.version, heard.round, AuditName.REQUESTED), subject=heard)


def _too_late(stored: Approval, event: Event, name: AuditName) -> Advance:
    """It has ended. What ended it can no longer be taken back: the event found the end, and is not heard again."""
    if not stored.undoable:
        return _unheard(stored, event, name)
    final = evolve(hasten(stored), version=stored.version + 1)
    return evolve(recorded(event, final.version, final.round, name), subject=final)


def _unheard(stored: Approval, event: Event, name: AuditName) -> Advance:
    return recorded(event, stored.version, stored.round, name)


def _open_round(event: Event, request: Request, now: Instant, *, before: Approval | None) -> Advance:
    asked = before is not None and before.requested
    version = before.version + 1 if before else 1
    round_ = before.round + 1 if before and asked else 1
    stillborn = request.expires_at <= now
    outcome = Outcome.EXPIRED if stillborn else Outcome.NEW_ROUND if asked else Outcome.OPENED
    key = approval_key_of(event)
    superseded = before.decisions if before else ()
    body = with_changes(before.request, event.body, superseded) if before and asked else event.body
    approval = Approval(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        version=version,
        round=round_,
        status=Status.EXPIRED if stillborn else Status.PENDING,
        plan_hash=request.plan_hash,
        required_grants=request.required_grants,
        required_approvals=request.required_approvals,
        requested_by=request.requested_by,
        client=event.client,
        requested_at=event.occurred_at,
        created_at=before.created_at if before else event.received_at,
        expires_at=request.expires_at,
        callback_url=request.callback_url,
        sealed_token=request.sealed_token,
        correlation_id=event.correlation_id,
        request=body,
        ended_at=now if stillborn else None,
        ended_by=NOTIFYD if stillborn else None,
        effects=let_go(before).effects if before else (),
        owner=before.belongs_to if before and asked else event.client,
        groups=request.groups,
        inputs=request.inputs,
        timer_at=request.timer_at,
    )
    if stillborn:
        approval = _over_at_once(approval, now, asked=asked)
    audit = _requested_audit(event, outcome, round_)
    return moved(approval, outcome, audit, body=body if asked else None, superseded=superseded)


def _over_at_once(stillborn: Approval, now: Instant, *, asked: bool) -> Approval:
    """A round that came expired. The one who asked is answered; people are told if an earlier round asked them."""
    told = owing_expiry_notice(stillborn, now) if asked else stillborn
    return owing_callback(told, expiry_hash(stillborn))


def _requested_audit(event: Event, outcome: Outcome, round_: int) -> tuple[AuditRecord, ...]:
    stillborn = outcome is Outcome.EXPIRED
    names = (AuditName.REQUESTED, AuditName.EXPIRED) if stillborn else (AuditName.REQUESTED,)
    return tuple(arrival_audit(event, name, outcome=outcome, round=round_) for name in names)


def on_updated(stored: Approval | None, event: Event, update: Update, shared: Shared) -> Advance:
    """The first end wins: end a pending approval, create an unknown one as ended, else only record.

    People are told of the end over what was asked: the update need not repeat it. Another client's approval is
    not ended.
    """
    if stored is not None and stored.status.ended:
        late = _too_late if _may(stored.belongs_to, event.client, shared) else _unheard
        return late(stored, event, AuditName.UPDATED)
    if stored is not None and not _may(stored.belongs_to, event.client, shared):
        return recorded(event, stored.version, stored.round, AuditName.UPDATED, belongsTo=stored.belongs_to)
    before = let_go(stored) if stored else _unknown(event, update)
    approval = owing_forwards(
        evolve(
            before,
            version=before.version + 1,
            status=update.status,
            ended_at=event.received_at,
            ended_by=update.decided_by,
        )
    )
    audit = arrival_audit(event, AuditName.UPDATED, outcome=Outcome.ENDED, status=update.status)
    body = over(stored.request, event.body) if stored else event.body
    return moved(approval, Outcome.ENDED, (audit,), body=body)


def _unknown(event: Event, update: Update) -> Approval:
    """The stand-in for an approval whose request never came."""
    key = approval_key_of(event)
    return Approval(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        version=0,
        round=1,
        status=Status.PENDING,
        plan_hash=update.plan_hash,
        required_grants=(),
        required_approvals=1,
        requested_by="",
        client=event.client,
        requested_at=event.occurred_at,
        created_at=event.received_at,
        expires_at=None,
        callback_url=None,
        sealed_token=None,
        correlation_id=event.correlation_id,
        request=event.body,
        owner=event.client,
    )


# -- what the machines that take arriving events share


def moved(
    subject: Subject,
    outcome: Outcome,
    audit: tuple[AuditRecord, ...],
    *,
    body: str | None = None,
    superseded: tuple[Decision, ...] = (),
) -> Advance:
    """The advance made by an event that changes its subject into `subject`."""
    round_ = subject.round if isinstance(subject, Approval) else 0
    notify = outcome not in _SILENT
    return Advance(subject, outcome, notify, subject.version, round_, audit, body, superseded)


def recorded(event: Event, version: int, round_: int, name: AuditName, **why: Any) -> Advance:
    """The advance of an event that changes nothing."""
    audit = arrival_audit(event, name, outcome=Outcome.RECORDED, round=round_, **why)
    return Advance(None, Outcome.RECORDED, False, version, round_, (audit,))


def approval_key_of(event: Event) -> ApprovalKey:
    key = event.approval_key
    if key is None:
        raise ValueError("a pack event names a run and an approval")
    return key


def arrival_audit(event: Event, name: AuditName, **data: Any) -> AuditRecord:
    return AuditRecord(
        id=derived_id("audit", event.tenant, event.key, str(name)),
        tenant=event.tenant,
        name=name,
        at=event.received_at,
        actor=f"client:{event.client}",
        correlation_id=event.correlation_id,
        run_id=event.run_id,
        approval_id=event.approval_id,
        data={"eventId": event.event_id, **data},
    )
