"""The records that travel through notifyd, frozen.

Times are integer microseconds since 1970-01-01T00:00:00Z (`Instant`); only the edges (HTTP, templates) speak
RFC 3339. Payloads are canonical JSON text; a record is stored as the text its field holds, never as a tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NewType, TypeAlias

from attrs import evolve, field, frozen

from notifyd.errors import Reason

Instant: TypeAlias = int
"""Microseconds since the epoch, UTC."""

Clock: TypeAlias = Callable[[], Instant]
"""Tells the time. Injected everywhere, so that a test can turn it."""

SECOND: Final = 1_000_000


def wall_clock() -> Instant:
    """The machine's own `Clock`."""
    return time.time_ns() // 1000


Duration = NewType("Duration", int)
"""The type of an option: microseconds, written as a whole number and one of `ms s m h d`."""

Size = NewType("Size", int)
"""The type of an option: bytes, written as a whole number and `KiB` or `MiB`."""

APPROVAL_KIND: Final = "pack.approval"
POLICY_KIND: Final = "pack.policy"
"""The kinds of Task Runner's events: about an approval, and about a policy's hold."""

RESUME_CHANNEL: Final = "resume"
"""The channel name every resume callback is recorded under. No configured channel may bear it."""
FORWARDERS: Final = "resume."
"""How the channel of a forwarder is named, before the forwarder's own name: no other channel's name has a dot."""


GATE: Final = "gate:"
"""How a gate is named as a client, and the address to which the ends of its approvals go. No URL that may be
called begins like this, and no other client's name."""

GATE_ANSWER: Final = "answered"
"""The action of the delivery by which a gate is sent the end of an approval that it asked for."""


@frozen
class Gate:
    """A gate's channel, and its type when it asked."""

    channel: str
    type: str

    @property
    def client(self) -> str:
        return GATE + self.channel.removeprefix(FORWARDERS)

    @property
    def address(self) -> str:
        """What stands in place of a callback's URL."""
        return f"{self.client}?type={self.type}"

    @classmethod
    def at(cls, address: str | None) -> Gate | None:
        """The gate that has this address; None where it is a callback's URL, or there is none."""
        if address is None or not address.startswith(GATE):
            return None
        name, _, type_ = address.removeprefix(GATE).partition("?type=")
        return cls(FORWARDERS + name, type_)


# --- events ------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What accepting an event did to its approval or incident."""

    OPENED = "opened"  # a new approval (round 1) or incident
    NEW_ROUND = "new_round"  # pending, another plan: decisions cleared, people told
    ENDED = "ended"  # the first end, by an Updated or a Released event
    EXPIRED = "expired"  # expiresAt already past: recorded as expired, nobody is asked
    RECORDED = "recorded"  # nothing changed, nothing is sent
    ACCEPTED = "accepted"  # an event about neither an approval nor a hold


@frozen
class ApprovalKey:
    tenant: str
    run_id: str
    approval_id: str


@frozen
class IncidentKey:
    tenant: str
    run_id: str
    approval_id: str
    policy_id: str


@frozen
class PlanEntry:
    """One notification that an event sets off: fixed once, whatever is reloaded afterwards."""

    delivery_id: str
    rule: str
    channel: str
    channel_type: str
    recipient: (
        str | None
    )  # a person of the rule's `to`, or an address of its `lists`; None: the channel itself
    personal: bool  # True where `recipient` is a person, whose link may decide
    template: str
    locale: str
    on_behalf_of: str | None = None  # the person for whom `recipient` stands in
    edits: str | None = None  # the id of the delivery whose message is changed, where this sends no other


@frozen
class Event:
    """An accepted event, as stored: redacted, and without the resume token.

    `key` is the derived id, unique with `tenant`. `event_id` is the sender's own. `body` is canonical JSON of
    what rules see as `event`: the payload with `kind`, `action` and `tenant`.
    """

    tenant: str
    key: str
    event_id: str
    kind: str
    action: str
    occurred_at: Instant
    received_at: Instant
    body: str
    content_id: str  # "<key id>:<hex HMAC-SHA-256>" of the body as it came; "" for notifyd's own events
    client: str  # who posted it; "notifyd" for its own events
    correlation_id: str
    run_id: str | None = None
    approval_id: str | None = None
    outcome: Outcome = Outcome.ACCEPTED
    notify: bool = True  # False: recorded only, never planned
    version: int = (
        0  # of the approval or incident, from the write that accepted the event; a delivery's `seq`
    )
    round: int = 0
    plan: tuple[PlanEntry, ...] | None = None  # None until fixed

    @property
    def approval_key(self) -> ApprovalKey | None:
        if self.run_id is None or self.approval_id is None:
            return None
        return ApprovalKey(self.tenant, self.run_id, self.approval_id)


# --- approvals ---------------------------------------------------------------------------------------------


class Status(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self is not Status.PENDING


class Choice(StrEnum):
    """What an approver can say."""

    APPROVED = "approved"
    REJECTED = "rejected"


class Via(StrEnum):
    """The way a decision came in."""

    LINK = "link"
    SIGN_IN = "sign-in"  # by a link, its recipient signed in
    JWT = "jwt"
    CLIENT = "client"
    CHANNEL = "channel"  # by an answer to a message, at the address that its actor has there


@frozen
class Principal:
    """Who is calling a machine endpoint: what every way of being known comes down to.

    `name` is the client's name; of a client that a JWT alone proves, `jwt:` and what the token calls it. `actor`
    is the person that a JWT names. `grants` holds the scopes too.
    """

    name: str
    via: Via
    scopes: frozenset[str]
    grants: frozenset[str]
    tenants: tuple[str, ...]
    act_as: tuple[str, ...] = ()
    signed: bool = False  # proved by an HMAC over this very body, or by a TLS client certificate
    actor: str = ""


@frozen
class Group:
    """So many distinct holders of a grant must approve, each of whom counts in one group only."""

    name: str
    grant: str
    required: int


class InputType(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    CHOICE = "choice"
    BOOLEAN = "boolean"


@frozen
class Input:
    """Something that a request asks its approvers to fill in. `default` is None where none is proposed."""

    name: str
    label: str
    type: InputType
    required: bool
    pattern: str | None
    choices: tuple[str, ...]
    default: Any


@frozen
class Decision:
    """One actor's recorded decision. `answer` is the response body, repeated byte for byte.

    `message_id` is the `webhook-id` of the signed request that it came in, "" where none was signed. `groups` are
    the names of those whose grant the actor held then. `break_glass` ended the approval whatever its quorum.
    `inputs` are what it fills in, the defaults among them. `on_behalf_of` is the person
    for whom the actor stands in.
    """

    decision_hash: str
    actor: str
    choice: Choice
    comment: str
    decided_at: Instant
    round: int
    plan_hash: str
    via: Via
    client: str  # the machine client or token subject that carried it; "" for a link
    correlation_id: str
    answer: str
    message_id: str = ""
    groups: tuple[str, ...] = ()
    break_glass: bool = False
    undo_until: Instant = 0  # until when its actor could take it back; 0 where it took effect at once
    inputs: Mapping[str, Any] = field(factory=dict)
    on_behalf_of: str = ""


def carries_ends(channel: str) -> bool:
    """Does it carry the ends of approvals, back to the one who asked or onward, and no messages for people?"""
    return channel == RESUME_CHANNEL or channel.startswith(FORWARDERS)


class EffectKind(StrEnum):
    """What a change of an approval sets off."""

    AUDIT = "audit"
    NOTICE = "notice"  # an event of notifyd's own, for rules to see
    RESUME = "resume"  # the end of it told: by the signed callback, and by the forwarders


@frozen
class Effect:
    """Something a change of an approval owes, completed once its own row is durable.

    `data` is all that its row is made from, so that doing it twice makes the same row. One that fails is tried
    again at `next_attempt_at`, and after too many `tries` is dead until somebody retries it by hand.

    `waits_with` is the hash of the decision that set it off, while that may be taken back: until
    `next_attempt_at`, and until a write of the approval has let go of it.
    """

    id: str
    kind: EffectKind
    data: Mapping[str, Any]
    next_attempt_at: Instant = 0  # 0: at once
    tries: int = 0  # that failed
    fault: str = ""  # why the last one did: one line, without a secret
    dead_at: Instant | None = None
    waits_with: str = ""

    @property
    def dead(self) -> bool:
        return self.dead_at is not None


class ResumeStatus(StrEnum):
    NONE = "none"
    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"


@frozen
class Approval:
    """An approval in its present round. `version` grows with every write and guards each conditional one.

    What was decided in earlier rounds stands beside it in the store, so that it is as large after many as after
    one. In an export it is with the rest.
    """

    tenant: str
    run_id: str
    approval_id: str
    version: int
    round: int
    status: Status
    plan_hash: str
    required_grants: tuple[str, ...]
    required_approvals: int
    requested_by: str  # canonical actor
    client: str  # the client whose request opened the round, or whose Updated came first
    requested_at: Instant  # the round's occurredAt
    created_at: Instant
    expires_at: Instant | None
    callback_url: str | None
    sealed_token: str | None
    correlation_id: str
    request: str  # canonical JSON of the round's event body, redacted
    decisions: tuple[Decision, ...] = ()  # in order
    ended_at: Instant | None = None
    ended_by: str | None = None
    resume: ResumeStatus = ResumeStatus.NONE
    resume_delivery: str | None = None
    effects: tuple[Effect, ...] = ()
    owner: str = ""  # the client whose event made it; "" in what was written before this was kept
    heard_again_at: Instant = 0  # the occurredAt of the newest request that came for the plan of this round
    groups: tuple[Group, ...] = ()  # what they require together is part of `required_approvals`
    inputs: tuple[Input, ...] = ()  # to be filled in by who approves
    timer_at: Instant | None = None  # when to look whether a reminder or an escalation is due
    timed_until: Instant = 0  # what was due by then has been seen to
    receipt: str = ""  # of its end, once somebody has asked for it; see `approval/receipts.py`

    @property
    def key(self) -> ApprovalKey:
        return ApprovalKey(self.tenant, self.run_id, self.approval_id)

    @property
    def belongs_to(self) -> str:
        """The client whose it is; "" where nobody knows."""
        return self.owner or self.client

    @property
    def requested(self) -> bool:
        """Has a request come? An Updated may have been first, and then nobody was ever asked."""
        return self.callback_url is not None

    @property
    def gate(self) -> Gate | None:
        """The gate that asked; None where a client did, or nobody."""
        return Gate.at(self.callback_url)

    @property
    def heard_at(self) -> Instant:
        """When the newest request for the present plan occurred: another plan's has to be later."""
        return max(self.requested_at, self.heard_again_at)

    def overdue(self, now: Instant) -> bool:
        """Pending, and past its expiry by the clock: it is over, though the timer has not come yet."""
        return not self.status.ended and self.expires_at is not None and self.expires_at <= now

    @property
    def effects_due_at(self) -> Instant | None:
        """When the next of the effects that are owed is due; None where none is, or all are dead."""
        return min([e.next_attempt_at for e in self.effects if not e.dead], default=None)

    @property
    def undoable(self) -> frozenset[str]:
        """The hashes of the decisions whose effects wait, so that they may be taken back."""
        return frozenset(e.waits_with for e in self.effects if e.waits_with and e.next_attempt_at)

    @property
    def dead_effects(self) -> tuple[Effect, ...]:
        return tuple(e for e in self.effects if e.dead)

    def replace_effect(self, effect: Effect) -> Approval:
        return evolve(self, effects=tuple(effect if e.id == effect.id else e for e in self.effects))

    def complete_effect(self, effect_id: str) -> Approval:
        return evolve(self, effects=tuple(e for e in self.effects if e.id != effect_id))


@frozen
class Incident:
    """A policy hold: opened by Hold, closed by Released, ordered by `occurred_at`."""

    tenant: str
    run_id: str
    approval_id: str
    policy_id: str
    version: int
    open: bool
    occurred_at: Instant  # of the last event that moved it
    opened_at: Instant | None
    closed_at: Instant | None
    request: str  # canonical JSON of the last event body, redacted; a release's over its hold's

    @property
    def key(self) -> IncidentKey:
        return IncidentKey(self.tenant, self.run_id, self.approval_id, self.policy_id)


# --- messages and deliveries -------------------------------------------------------------------------------


class Level(StrEnum):
    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Field:
    """A short labelled fact of a message, such as ("Environment", "production"). Plain text, both.

    `lead` is set on what a reader must see first, such as a deadline: a channel may put it above the text. `at` is
    the time that `value` writes out, microseconds since the epoch, for a channel whose clients show it in the
    reader's own zone.
    """

    name: str
    value: str
    lead: bool = False
    at: Instant | None = None


@frozen
class Action:
    """A link a reader can follow, such as the approver's page. `label` is plain text in the reader's language."""

    label: str
    url: str


@frozen
class Button:
    """What a reader can press to decide, on a channel that takes answers. `label` is plain text in their language.

    `action` is `approved` or `rejected`. `ref` is 32 characters of `0-9 a-f`, which name the message and so the
    approval, its round and its plan.
    """

    label: str
    action: str
    ref: str


@frozen
class Message:
    """What a channel is given to send, rendered and fixed: the same bytes and the same id at every retry.

    `title` is one line of plain text, `body` plain text with newlines, `html` a whole HTML document or None,
    `recipient` the address for a personal channel (None: the channel's own audience), `event` the redacted
    event that rules saw. `id` is the delivery's id and is the receiver's key against repeats. `buttons` are there
    only on a channel that takes answers, where the message's reader can decide without the page. `follows` is the
    `ref` of the receipt of the request whose news it tells, "" for none: only for a channel that can change what
    it sent, which may put it into a thread.
    """

    id: str
    title: str
    body: str
    level: Level = Level.INFO
    fields: tuple[Field, ...] = ()
    actions: tuple[Action, ...] = ()
    locale: str = "en"
    html: str | None = None
    recipient: str | None = None
    event: Mapping[str, Any] = field(factory=dict)
    buttons: tuple[Button, ...] = ()
    follows: str = ""


@frozen
class Receipt:
    """A channel's word that the message was taken. `detail` is a short note for the ledger, never a secret.

    `ref` is what the vendor calls what was sent, of at most 500 printable characters: a channel that can change it
    is given it back.
    """

    detail: str = ""
    status: int | None = None
    ref: str = ""


class State(StrEnum):
    # Of a delivery. What is open may become any other: a quick send goes from pending to sent at once. Dead
    # becomes pending by a retry by hand, sent and folded stay. (A docstring would be part of the contract.)
    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"
    FOLDED = "folded"

    @property
    def open(self) -> bool:
        return self in (State.PENDING, State.SENDING)


class Wait(StrEnum):
    """What an open delivery waits for: a closed set, used as the `why` label of `notifyd_held`."""

    SILENCE = "silence"  # the end of an operator's silence
    WINDOW = "window"  # the end of a digest's, a throttle's or the quiet hours' window
    RETRY = "retry"  # its next attempt
    ORDER = "order"  # an earlier message of its approval
    BREAKER_OPEN = "breaker_open"
    RATE_LIMIT = "rate_limit"
    CONCURRENCY = "concurrency"  # others are being sent
    CHANNEL_MISSING = "channel_missing"
    EGRESS_REFUSED = "egress_refused"
    SECRET_MISSING = "secret_missing"  # nosec B105 # noqa: S105 - a reason
    NOT_ALLOWED = "not_allowed"  # the origin of a callback is not in `resume.allowed_origins` any more


SILENCED: Final = "silence:"
"""What the key of a window begins with in which a silence holds deliveries; its id and a colon follow."""

HELD_IN_WINDOWS: Final = (Wait.WINDOW, Wait.SILENCE)


def wait_in(window: str) -> Wait:
    """What a delivery that is held in a window of this key waits for."""
    return Wait.SILENCE if window.startswith(SILENCED) else Wait.WINDOW


class AttemptOutcome(StrEnum):
    SENT = "sent"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


@frozen
class Attempt:
    """One try: when it began, how long it took in milliseconds, and how it ended.

    `excerpt` is a redacted, bounded piece of what the receiver answered, and `ref` what it calls what was sent.
    """

    at: Instant
    duration_ms: float
    outcome: AttemptOutcome
    reason: Reason | None = None
    status: int | None = None
    detail: str = ""
    excerpt: str = ""
    ref: str = ""


@frozen
class Delivery:
    """One message to one channel and recipient, durable until sent or dead.

    `channel` is what people and metrics call it; `lane` is the queue it waits in: the channel's name, or
    `resume:<origin>` for a callback. `message` is JSON text, or a JWE where it carries a link or a token
    (`sealed`). `attempts` is bounded to the newest; `tries` counts since the last start by plan or by hand.
    """

    id: str
    tenant: str
    event_key: str
    kind: str
    action: str
    rule: str
    channel: str
    channel_type: str
    lane: str
    recipient: str | None
    message: str
    sealed: bool
    correlation_id: str
    created_at: Instant
    next_attempt_at: Instant
    deadline: Instant  # dead at this time, however few the attempts
    run_id: str | None = None
    approval_id: str | None = None
    seq: int = 0
    state: State = State.PENDING
    tries: int = 0
    attempts: tuple[Attempt, ...] = ()
    ended_at: Instant | None = None
    reason: Reason | None = None
    lease_owner: str | None = None
    lease_until: Instant = 0
    fencing_token: int = 0
    folded_into: str | None = None
    window: str | None = None  # held in this window until `next_attempt_at`; see `flow/storm.py`
    window_start: Instant = 0
    budget: str | None = None  # the throttle budget it has spent from
    answer_ref: str | None = None  # by which answers name it, where it takes any or can be changed later
    edits: str | None = None  # the id of the delivery whose message it changes to its own

    @property
    def answers_who_asked(self) -> bool:
        """Does it tell the end to the one who asked, by the callback or through a gate?"""
        return self.channel == RESUME_CHANNEL or self.action == GATE_ANSWER

    @property
    def approval_key(self) -> ApprovalKey | None:
        if self.run_id is None or self.approval_id is None:
            return None
        return ApprovalKey(self.tenant, self.run_id, self.approval_id)

    @property
    def sent_ref(self) -> str:
        """What the vendor calls the message that was sent, "" where none was or nobody knows."""
        return next((one.ref for one in reversed(self.attempts) if one.ref), "")


# --- silences ----------------------------------------------------------------------------------------------


class SilenceState(StrEnum):
    TO_COME = "to_come"
    IN_FORCE = "in_force"
    OVER = "over"


@frozen
class Silence:
    """What events that meet `predicate`, CEL over `event`, set off is held from `starts_at` to `ends_at`.

    `approvals`: what is about an approval, too. `ended_at` and `ended_by` are of one that was ended early.
    """

    tenant: str
    id: str
    predicate: str
    reason: str
    author: str
    created_at: Instant
    starts_at: Instant
    ends_at: Instant
    approvals: bool
    ended_at: Instant | None = None
    ended_by: str | None = None

    def state(self, now: Instant) -> SilenceState:
        if self.ended_at is not None or self.ends_at <= now:
            return SilenceState.OVER
        # One that was to begin at once has, also by a clock that has been set back since.
        begun = self.starts_at <= max(now, self.created_at)
        return SilenceState.IN_FORCE if begun else SilenceState.TO_COME

    def in_force(self, now: Instant) -> bool:
        return self.state(now) is SilenceState.IN_FORCE


# --- deputies ----------------------------------------------------------------------------------------------


@frozen
class OwnDeputy:
    """A deputy whom a person has named: `deputy` stands in for `person` from the day `first` to the day `last`.

    Names are canonical, days are `YYYY-MM-DD` in the person's zone. `over_at` is when the last day is over in
    every zone. `proved`: the person had signed in. `ended_at` is of one that the person has ended.
    """

    tenant: str
    id: str
    person: str
    deputy: str
    first: str
    last: str
    proved: bool
    created_at: Instant
    over_at: Instant
    ended_at: Instant | None = None


# --- audit -------------------------------------------------------------------------------------------------


class AuditName(StrEnum):
    REQUESTED = "pack.approval.requested"
    UPDATED = "pack.approval.updated"
    ACKNOWLEDGED = "pack.approval.acknowledged"
    OVERRIDDEN = "pack.approval.overridden"
    TAKEN_BACK = "pack.approval.taken_back"
    EXPIRED = "pack.approval.expired"
    REMINDED = "pack.approval.reminded"
    ESCALATED = "pack.approval.escalated"
    HOLD = "pack.policy.hold"
    RELEASED = "pack.policy.released"
    NOTIFICATION_SENT = "notification.sent"
    NOTIFICATION_DEAD = "notification.dead"
    RESUME_DELIVERED = "resume.delivered"
    RESUME_DEAD = "resume.dead"
    AUTH_REFUSED = "auth.refused"
    SILENCE_ADDED = "silence.added"
    SILENCE_ENDED = "silence.ended"
    DELIVERY_RETRIED = "delivery.retried"
    EFFECT_RETRIED = "effect.retried"
    CHANNEL_TESTED = "channel.tested"
    DEPUTY_SET = "deputy.set"
    DEPUTY_ENDED = "deputy.ended"
    CONFIG_RELOADED = "config.reloaded"


@frozen
class AuditRecord:
    """One line of the audit trail, with a derived id, so that writing it twice leaves one.

    `at` follows from what the id is derived from, or is stored with it: a line that is written again has the same.
    `data` holds small facts for the reader (a decision, a channel, a reason): never a secret, link or body.
    `tenant` is "" for what concerns the daemon as a whole.
    """

    id: str
    tenant: str
    name: AuditName
    at: Instant
    actor: str
    correlation_id: str
    run_id: str | None = None
    approval_id: str | None = None
    data: Mapping[str, Any] = field(factory=dict)


@frozen
class AuditSeal:
    """A link of a tenant's chain over its audit trail: see `wire/chain.py`. Numbers count from 1, without gaps.

    `envelope` is a DSSE envelope as JSON text, and never changes.
    """

    tenant: str
    number: int
    envelope: str
