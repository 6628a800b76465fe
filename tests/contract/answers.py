"""What goes out over HTTP, as records that exist for their types: answers, the callback, the notification.

`web.answers` and the modules that answer write the documents; a test holds what they write to these records. A
member with a default may be missing, every other is always there. Members may be added to any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from attrs import frozen

from notifyd.errors import Reason
from notifyd.flow.lane import BreakerState
from notifyd.levels import LogLevel
from notifyd.model import (
    AttemptOutcome,
    AuditName,
    Level,
    Outcome,
    ResumeStatus,
    SilenceState,
    State,
    Status,
    Via,
    Wait,
)
from notifyd.wire.events import Decision, InputKind, MessageWish, Step, Time


class End(StrEnum):
    """How an approval ended that owes the one who asked a callback."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@frozen(kw_only=True)
class Accepted:
    """The event is durable. A duplicate is given the first answer again."""

    event_id: str
    tenant: str
    run_id: str = ""
    approval_id: str = ""
    round: int = 0
    outcome: Outcome
    correlation_id: str


@frozen
class AcceptedBatch:
    """Every event of the batch is durable; the answers are in its order."""

    items: tuple[Accepted, ...]


@frozen
class GroupProgress:
    """How many approvals a group requires, and who counts in it."""

    name: str
    required: int
    received: int
    actors: tuple[str, ...]


@frozen
class Progress:
    """How many approvals are required, and how many distinct actors have approved.

    `groups` is there where the request has `approvalGroups`. What they have no room for does not count.
    """

    required: int
    received: int
    groups: tuple[GroupProgress, ...] = ()


# --- decisions ---------------------------------------------------------------------------------------------


@frozen
class Decided:
    """The decision that was recorded. `undoUntil` is there where what it sets off waits, until then."""

    decision_hash: str
    actor: str
    decided_at: Time
    undo_until: Time | None = None


@frozen
class AckResume:
    """How the callback stands, and the resume token, sealed for the client that posted the request."""

    status: ResumeStatus
    delivery_id: str | None
    token: str | None


@frozen
class AckAnswer:
    """The state at the time of the decision; the same decision again is answered with the same bytes."""

    run_id: str
    approval_id: str
    status: Status
    decision: Decided
    approvals: Progress
    resume: AckResume
    correlation_id: str


@frozen
class DecisionData:
    """How the approval ended. `actors` are all who decided so in its round: nobody, where it expired.

    `groups` is there where the request has `approvalGroups`, and `breakGlass` where it ended whatever its quorum;
    `inputs` where it was approved and the request asks for any. `onBehalfOf` is there where one of `actors` is a
    deputy: for whom each of them decided. `via` is there where one of `actors` has signed in to decide by a link:
    the way in which each of them decided. `receiptHash`, the SHA-256 of the receipt's bytes, is there where
    `keys.sign` has a key.
    """

    tenant: str
    run_id: str
    approval_id: str
    plan_hash: str
    decision: End
    decision_hash: str
    actors: tuple[str, ...]
    comment: str
    decided_at: Time
    correlation_id: str
    resume_token: str
    groups: tuple[GroupProgress, ...] = ()
    break_glass: bool = False
    inputs: Mapping[str, Any] | None = None
    on_behalf_of: Mapping[str, str] | None = None
    via: Mapping[str, Via] | None = None
    receipt_hash: str = ""


@frozen(kw_only=True)
class DecisionCallback:
    """What is posted to the request's `resume.callbackUrl`, with the token in clear for who issued it."""

    type: Literal["pack.approval.decided"] = "pack.approval.decided"
    timestamp: Time
    data: DecisionData


@frozen
class EnvelopeSignature:
    """An Ed25519 signature in base64, and the `kid` of its public key in the key set."""

    keyid: str
    sig: str


@frozen
class ReceiptEnvelope:
    """A DSSE envelope around an in-toto Statement in base64; `receipt.md` tells its fields."""

    payload_type: Literal["application/vnd.in-toto+json"]
    payload: str
    signatures: tuple[EnvelopeSignature, ...]


# --- reading -----------------------------------------------------------------------------------------------


@frozen
class RecordedDecision:
    """One actor's decision, as it is kept with the approval. `groups` are those that the actor may count in."""

    decision: Decision
    actor: str
    comment: str
    decided_at: Time
    decision_hash: str
    round: int
    via: Via
    groups: tuple[str, ...]
    break_glass: bool
    inputs: Mapping[str, Any]
    on_behalf_of: str | None


@frozen
class AskedInput:
    """Something that approvers are asked to fill in."""

    name: str
    label: str
    type: InputKind
    required: bool
    pattern: str | None
    choices: tuple[str, ...]


@frozen
class Inputs:
    """What is asked, the defaults that were proposed, and what was filled in: null until somebody approves."""

    asked: tuple[AskedInput, ...]
    proposed: Mapping[str, Any]
    effective: Mapping[str, Any] | None


@frozen
class ApprovalResume:
    """How the callback stands; `deliveryId` is its line of the ledger."""

    status: ResumeStatus
    delivery_id: str | None
    reason: Reason | None


@frozen(kw_only=True)
class Approval:
    """An approval as it is now. `decisions` are those of all rounds, in order.

    `inputs` is there where the request asks for any, and `undoable` while a decision can still be taken back.
    """

    tenant: str
    run_id: str
    approval_id: str
    pack_id: str | None
    status: Status
    round: int
    plan_hash: str
    required_grants: tuple[str, ...]
    requested_by: str
    requested_at: Time
    expires_at: Time | None
    ended_at: Time | None
    ended_by: str | None
    approvals: Progress
    decisions: tuple[RecordedDecision, ...]
    resume: ApprovalResume
    steps: tuple[Step, ...]
    labels: Mapping[str, str]
    message: MessageWish
    correlation_id: str
    inputs: Inputs | None = None
    undoable: bool = False


@frozen
class AuditRecord:
    """One line of the audit trail. `data` holds small facts for the reader."""

    id: str
    tenant: str
    name: AuditName
    at: Time
    actor: str
    correlation_id: str
    run_id: str | None
    approval_id: str | None
    data: Mapping[str, Any]


@frozen(kw_only=True)
class ApprovalWithHistory(Approval):
    """An approval with the newest lines of its audit trail, oldest first."""

    history: tuple[AuditRecord, ...]


@frozen
class Attempt:
    """One try to deliver. `excerpt` is a redacted piece of what the receiver answered."""

    at: Time
    duration_ms: float
    outcome: AttemptOutcome
    reason: Reason | None
    status: int | None
    detail: str
    excerpt: str


@frozen(kw_only=True)
class Delivery:
    """One message to one channel and recipient, with its newest attempts."""

    id: str
    tenant: str
    state: State
    channel: str
    rule: str
    recipient: str | None
    kind: str
    action: str
    run_id: str | None
    approval_id: str | None
    seq: int
    attempts: tuple[Attempt, ...]
    tries: int
    next_attempt_at: Time | None
    created_at: Time
    ended_at: Time | None
    reason: Reason | None
    waits_for: Wait | None
    folded_into: str | None
    correlation_id: str


@frozen(kw_only=True)
class Incident:
    """A policy's hold of a run. `messages` and `labels` are those of the event that moved it last."""

    tenant: str
    run_id: str
    approval_id: str
    policy_id: str
    open: bool
    opened_at: Time | None
    closed_at: Time | None
    occurred_at: Time
    messages: tuple[str, ...]
    labels: Mapping[str, str]


@frozen(kw_only=True)
class Silence:
    """What an operator holds back for a time. `endedAt` and `endedBy` are there where it was ended early."""

    id: str
    tenant: str
    when: str
    reason: str
    author: str
    approvals: bool
    state: SilenceState
    created_at: Time
    starts_at: Time
    ends_at: Time
    ended_at: Time | None
    ended_by: str | None


class DeadKind(StrEnum):
    EFFECT = "effect"
    DELIVERY = "delivery"


@frozen(kw_only=True)
class Dead:
    """Something notifyd has given up: an effect that an approval owes, or a delivery."""

    id: str
    what: DeadKind
    name: str
    run_id: str | None
    approval_id: str | None
    tries: int
    reason: Reason
    fault: str
    ended_at: Time
    correlation_id: str


@frozen
class DeadRetried:
    """What is tried again."""

    id: str
    what: DeadKind


@frozen
class Lane:
    """A channel's queue: what waits, what is being sent, and its breaker."""

    backlog: int
    running: int
    breaker: BreakerState


@frozen
class LastSuccess:
    """The last attempt that succeeded in this life of the daemon."""

    at: Time


@frozen
class LastFailure:
    """The last attempt that failed in this life of the daemon."""

    at: Time
    reason: Reason | None
    detail: str


@frozen(kw_only=True)
class Channel:
    """A configured channel, and how it stands. Never what it holds secret."""

    name: str
    type: str
    plugin: str | None
    version: str | None
    personal: bool
    rate_limit: str | None
    concurrency: int
    timeout: str
    lane: Lane
    last_success: LastSuccess | None
    last_failure: LastFailure | None


@frozen(kw_only=True)
class ChannelTest:
    """The test message was taken."""

    channel: str
    status: Literal["sent"] = "sent"
    duration_ms: float
    detail: str


@frozen
class ApprovalPage:
    """Approvals; `nextCursor` goes on with the list, null at its end."""

    items: tuple[Approval, ...]
    next_cursor: str | None


@frozen
class IncidentPage:
    """Incidents, newest first; `nextCursor` goes on with the list, null at its end."""

    items: tuple[Incident, ...]
    next_cursor: str | None


@frozen
class SilencePage:
    """Silences, newest first; `nextCursor` goes on with the list, null at its end."""

    items: tuple[Silence, ...]
    next_cursor: str | None


@frozen
class DeliveryPage:
    """Deliveries, newest first; `nextCursor` goes on with the list, null at its end."""

    items: tuple[Delivery, ...]
    next_cursor: str | None


@frozen
class DeadPage:
    """Dead effects, then dead deliveries; `nextCursor` goes on with the list, null at its end."""

    items: tuple[Dead, ...]
    next_cursor: str | None


@frozen
class AuditPage:
    """The audit trail, newest first; `nextCursor` goes on with the list, null at its end."""

    items: tuple[AuditRecord, ...]
    next_cursor: str | None


@frozen
class SealedAudit:
    """A seal over the audit trail and the records under it. Both are null for records whose seal is not there.

    `envelope` is a DSSE envelope as JSON text; `docs/contract/audit.md` tells what it holds.
    """

    number: int | None
    envelope: str | None
    records: tuple[AuditRecord, ...]


@frozen
class SealedAuditPage:
    """A chain from its start; `nextCursor` goes on with the list, null at its end."""

    items: tuple[SealedAudit, ...]
    next_cursor: str | None


@frozen
class ChannelPage:
    """All channels by name, so `nextCursor` is always null."""

    items: tuple[Channel, ...]
    next_cursor: str | None


@frozen
class PurgeAnswer:
    """How many rows this request has removed, or would have, by collection."""

    dry_run: bool
    removed: Mapping[str, int]
    next_cursor: str | None


class KeyRole(StrEnum):
    """`seals`: the first key of `keys.seal`. `opens`: another of them. `missing`: only rows name it."""

    SEALS = "seals"
    OPENS = "opens"
    MISSING = "missing"


@frozen
class SealKey:
    """A key that seals stored rows, and how many rows are under it, by collection."""

    id: str
    use: KeyRole
    needed: Mapping[str, int]
    ended: Mapping[str, int]


@frozen
class SealKeyList:
    """The configured keys in their order, then those that only rows name."""

    keys: tuple[SealKey, ...]


@frozen
class ResealAnswer:
    """How many rows this request has moved to the first key, and how many do not open, by collection."""

    key: str
    moved: Mapping[str, int]
    unreadable: Mapping[str, int]
    next_cursor: str | None


@frozen
class LogLevelAnswer:
    """The least that this node logs."""

    level: LogLevel


@frozen
class Health:
    """That there is an answer is what counts."""

    status: str


@frozen
class JsonWebKey:
    """A public key (RFC 7517, RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


@frozen
class KeySet:
    """The public keys of what notifyd signs by `v1a`. The first one signs."""

    keys: tuple[JsonWebKey, ...]


# --- problems ----------------------------------------------------------------------------------------------


@frozen
class Fault:
    """One thing wrong with the request. `pointer` is a JSON pointer (RFC 6901), or a query parameter's name."""

    pointer: str
    message: str


@frozen(kw_only=True)
class Problem:
    """Why a request was refused (RFC 9457). `code` is stable; `errors` lists every fault of a body at once."""

    type: str
    title: str
    status: int
    code: str
    correlation_id: str
    detail: str
    errors: tuple[Fault, ...] = ()


# --- the webhook channel -----------------------------------------------------------------------------------


@frozen
class NotificationText:
    """The message as its template wrote it for this reader."""

    title: str
    body: str
    level: Level
    locale: str


@frozen
class NotificationLink:
    """A link that a reader can follow, such as the approver's page."""

    label: str
    url: str


@frozen
class NotificationData:
    """The redacted event as rules see it, what is told of it, and where to go."""

    event: Mapping[str, Any]
    message: NotificationText
    links: tuple[NotificationLink, ...]


@frozen
class Notification:
    """What a channel of type `webhook` posts. `type` is the event's kind and action, joined by a point."""

    type: str
    timestamp: Time | None
    data: NotificationData
