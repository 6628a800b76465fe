"""The `Store` protocol: what notifyd asks of a database.

Each operation is one idempotent step, named for what it means: what it writes is written whole or not at all.
Repeating any operation changes nothing.

A row that does not decode is left as it is, and set aside: claims and lists pass over it, and a step that is
about that very row raises `UndecodableRowError`. It is logged once, counted, and tried again from time to time.

In: a step of the flow with its records. Out: the step made durable, or what is stored.

Every operation may raise `StoreError`: the step may or may not have happened, and may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from attrs import evolve, frozen

from notifyd.errors import Reason
from notifyd.model import (
    SECOND,
    Approval,
    ApprovalKey,
    Attempt,
    AuditRecord,
    Decision,
    Delivery,
    Event,
    Incident,
    IncidentKey,
    Instant,
    Outcome,
    OwnDeputy,
    PlanEntry,
    ResumeStatus,
    Silence,
    State,
    Status,
    Wait,
)
from notifyd.store.upkeep import (
    SEALED,
    SEALS,
    Aged,
    ChannelState,
    CollectionName,
    Job,
    LegalHold,
    Place,
    Purged,
    SealedAudit,
    SealedRow,
    SealKeys,
    SetAsideRow,
    Stored,
    StoredEvent,
    Turn,
    Upkeep,
    Usage,
)

__all__ = [
    "CHECKPOINT",
    "MAX_ATTEMPTS_KEPT",
    "MAX_COPIES",
    "NO_MESSAGE",
    "PAGE_BYTES",
    "PAGE_LOOKS",
    "PLAN_LEASE",
    "SEALED",
    "SEALS",
    "WINDOW_AHEAD",
    "Advance",
    "Aged",
    "Append",
    "Appended",
    "ApprovalFilter",
    "AttemptRecord",
    "AuditFilter",
    "ChannelState",
    "CollectionName",
    "CommitObserver",
    "DeliveryFilter",
    "EffectCounts",
    "IncidentFilter",
    "Job",
    "LaneBacklog",
    "LegalHold",
    "Page",
    "Place",
    "PlanFixed",
    "Planned",
    "Purged",
    "SealKeys",
    "SealedAudit",
    "SealedRow",
    "SetAsideRow",
    "Store",
    "Stored",
    "StoredEvent",
    "Subject",
    "Turn",
    "Upkeep",
    "Usage",
    "Waits",
    "Window",
    "append_as_is",
    "parted",
    "refused",
    "waits_for",
]

Subject: TypeAlias = Approval | Incident

PLAN_LEASE: Final = 60 * SECOND
"""How long the planning of an event is left to the node that accepted it, where nothing else is said."""


@frozen
class Advance:
    """What an event does to its subject: the answer of a pure function, applied by the store in one write.

    `subject` None leaves the stored one as it is. `audit` is written with the event. `body` is what rules and
    templates see where that is more than the event itself brings. `superseded` is what was decided in a round that
    the event ends: from then on it stands beside its approval.
    """

    subject: Subject | None
    outcome: Outcome
    notify: bool
    version: int = 0
    round: int = 0
    audit: tuple[AuditRecord, ...] = ()
    body: str | None = None
    superseded: tuple[Decision, ...] = ()

    def accept(self, event: Event) -> Event:
        """`event` as it is stored: with what it did."""
        notify = self.notify and event.notify  # what concerns no rule has no plan, whatever it did
        did = self.outcome, notify, self.version, self.round
        if self.body is None and did == (event.outcome, event.notify, event.version, event.round):
            return event
        return evolve(
            event,
            body=event.body if self.body is None else self.body,
            outcome=self.outcome,
            notify=notify,
            version=self.version,
            round=self.round,
        )


def parted(approval: Approval) -> tuple[Approval, tuple[Decision, ...]]:
    """An approval of an export as it is stored, and what was decided in its earlier rounds."""
    earlier = tuple(one for one in approval.decisions if one.round != approval.round)
    present = tuple(one for one in approval.decisions if one.round == approval.round)
    return evolve(approval, decisions=present), earlier


@frozen
class Append:
    """An event to make durable. `advance` and `same` are pure and may be called more than once.

    `advance` sees the stored subject, and `same` the first event under this one's key: is it this very event?
    """

    event: Event
    subject: ApprovalKey | IncidentKey | None
    advance: Callable[[Any], Advance]  # given what is stored under `subject`: that record, or None
    leased: bool = True  # this node plans it from memory; False leaves it to whoever claims it next
    lease: Instant = PLAN_LEASE  # how long others leave it to this node, from `received_at` on (microseconds)
    same: Callable[[Event], bool] = lambda _: True

    @property
    def key(self) -> tuple[str, str]:
        return self.event.tenant, self.event.key


def append_as_is(
    event: Event,
    *,
    leased: bool = True,
    lease: Instant = PLAN_LEASE,
    same: Callable[[Event], bool] = lambda _: True,
) -> Append:
    """An event about neither an approval nor a hold, or one of notifyd's own: it changes nothing but itself."""
    if event.outcome is Outcome.ACCEPTED and not event.version and not event.round:
        return Append(event, None, _accepted, leased, lease, same)
    advance = Advance(None, event.outcome, event.notify, event.version, event.round)
    return Append(event, None, lambda _: advance, leased, lease, same)


_ACCEPTED: Final = Advance(None, Outcome.ACCEPTED, notify=True)  # which no event needs of its own


def _accepted(_: Any) -> Advance:
    return _ACCEPTED


@frozen
class Appended:
    """`event` as stored: the first one under its key, with the outcome of its own acceptance."""

    event: Event
    fresh: bool


def refused(appends: Sequence[Append], stored: Mapping[tuple[str, str], Event]) -> list[Appended]:
    """What `append_all` answers where it writes nothing, given what is stored; empty where it is to write."""
    first = dict(stored)
    answer = [Appended(first.setdefault(one.key, one.event), fresh=False) for one in appends]
    pairs = zip(appends, answer, strict=True)
    same = all(found.event is one.event or one.same(found.event) for one, found in pairs)
    return [] if same else answer


@frozen
class Planned:
    """A plan to fix on an event, with the deliveries made from it, leased or not as each row says."""

    event: Event
    plan: tuple[PlanEntry, ...]
    deliveries: tuple[Delivery, ...]


@frozen
class PlanFixed:
    """`plan` is the one in force. Where another came first, `inserted` is empty and the caller plans from it."""

    plan: tuple[PlanEntry, ...]
    won: bool
    inserted: frozenset[str]


@frozen
class AttemptRecord:
    """The end of one attempt, conditional on the lease: owner and number must still be the row's.

    `state` is what the delivery becomes. `audit` and `event` are what its end sets off (a delivery's audit
    line; the `resumed` or `resume_failed` event). `resume`, for a callback, is what the approval's resume status
    becomes. All three are written with the end, or not at all: where the lease was lost, how the delivery ends
    is for its new holder to say. Planning `event` is left to this node for as long as the delivery was.
    """

    delivery: Delivery  # as leased
    attempt: Attempt | None  # None: dead without an attempt (max_age)
    state: State
    next_attempt_at: Instant
    ended_at: Instant | None
    reason: Reason | None
    audit: tuple[AuditRecord, ...] = ()
    event: Event | None = None
    resume: ResumeStatus | None = None


@frozen
class LaneBacklog:
    """How many open deliveries of a tenant wait in a lane, and when the oldest of them was created."""

    lane: str
    channel: str
    tenant: str
    waiting: int
    oldest: Instant


@frozen
class Waits:
    """How many open deliveries of a lane wait in the store, and for what: `waits_for` of each."""

    lane: str
    channel: str
    why: Wait
    count: int


_BY_REASON: Final = {
    Reason.CHANNEL_MISSING.value: Wait.CHANNEL_MISSING,
    Reason.EGRESS_REFUSED.value: Wait.EGRESS_REFUSED,
    Reason.SECRET_MISSING.value: Wait.SECRET_MISSING,
}


def waits_for(reason: str | None, tries: int) -> Wait:
    """What an open delivery, which is in no window and due later, waits for."""
    if reason is not None and reason in _BY_REASON:
        return _BY_REASON[reason]
    return Wait.RETRY if tries else Wait.ORDER


@frozen
class EffectCounts:
    """Approvals with effects that are owed, and with effects that are dead. One may be among both."""

    owing: int
    dead: int


@frozen
class Page:
    """Where a list goes on. `after` is the position in the newest-first order that the last page ended at."""

    limit: int = 50
    after: int | None = None


@frozen
class DeliveryFilter:
    state: State | None = None
    channel: str | None = None


@frozen
class ApprovalFilter:
    status: Status | None = None
    run_id: str | None = None


@frozen
class IncidentFilter:
    open: bool | None = None
    run_id: str | None = None


@frozen
class AuditFilter:
    run_id: str | None = None
    approval_id: str | None = None


@frozen
class Window:
    """Deliveries held back together: pending rows with one `window` and `window_start`, due at `closes_at`."""

    tenant: str
    key: str
    start: Instant
    closes_at: Instant
    lane: str
    channel: str
    count: int


WINDOW_AHEAD = 60 * SECOND
"""How much later than now a window may have begun, by another node's clock."""

MAX_COPIES: Final = 200
"""How many messages of an approval are told of at once."""

MAX_ATTEMPTS_KEPT = 20
"""How many of a delivery's attempts a row keeps: the newest."""

PAGE_BYTES: Final = 2 * 1024 * 1024
"""About how much text a page holds: a row that is larger by itself is a page of its own."""

PAGE_LOOKS: Final = 10_000
"""How many rows a page looks at where a filter has no index."""

NO_MESSAGE: Final = ""
"""What stands for the message of a delivery in a list."""


CHECKPOINT: Final = "checkpoint"
"""The step of emptying SQLite's write-ahead log into the database."""


class CommitObserver(Protocol):
    """Told of what goes on in the database, from any thread."""

    def commit(self, seconds: float, rows: int) -> None:
        """A write was durable after so many seconds, and carried so many steps."""
        ...

    def store_error(self, step: str) -> None:
        """The store did not do what it has to do unasked: `CHECKPOINT`."""
        ...

    def undecodable(self, table: str, rows: int) -> None:
        """So many rows of a collection are set aside now."""
        ...


class Store(Upkeep, Protocol):
    """Lists are newest first and answer the rows with the position to go on from, None at the end.

    A page may end early, even empty, with a position to go on from: see `PAGE_BYTES` and `PAGE_LOOKS`. Lists keep
    nothing but each other waiting, and raise `ListTimeoutError` after the time that the store was opened with.
    """

    # -- accepting ----------------------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        """Make an event durable together with what it does to its approval or incident.

        A key that is stored already answers the stored event, `fresh=False`, and changes nothing.
        """
        ...

    async def append_planned(self, append: Append, planned: Planned) -> tuple[Appended, PlanFixed | None]:
        """As `append` does, and where the event is fresh, in the same write, as `fix_plans` does.

        The plan is None where it was not fixed: the event is not fresh, or the store would take a second write.
        """
        ...

    async def append_all(self, appends: Sequence[Append]) -> list[Appended]:
        """Make several events durable in one step, as `append` does each, or none of them.

        Where the first event under the key of one of them, stored or among them, is not the `same`, nothing is
        written: each answer has the first event under its key, and none is fresh.
        """
        ...

    async def event(self, tenant: str, key: str) -> Event | None:
        """The event that is stored under a key, with its plan where that is fixed."""
        ...

    # -- planning -----------------------------------------------------------------------------------------

    async def claim_unplanned(
        self, owner: str, now: Instant, until: Instant, limit: int, *, size: int | None = None
    ) -> list[Event]:
        """Lease up to `limit` events whose planning is not finished and whose plan lease is over, oldest first.

        `size` is how many bytes their bodies may have in all; the first is taken whatever it has.

        An event that is accepted holds a plan lease of its own for the node that accepted it.
        """
        ...

    async def fix_plans(self, planned: Sequence[Planned]) -> list[PlanFixed]:
        """Fix each event's plan, if none is fixed, and insert its deliveries: then its planning is finished.

        Very many deliveries may take several writes: where one fails, the plan is fixed and planning not finished.
        """
        ...

    async def insert_deliveries(self, event: Event | None, deliveries: Sequence[Delivery]) -> frozenset[str]:
        """Insert the rows that are not there yet, answer their ids, and finish planning `event`, if given."""
        ...

    # -- dispatching --------------------------------------------------------------------------------------

    async def backlog(self) -> list[LaneBacklog]:
        """What waits in each lane of each tenant. Read at start; counted in memory afterwards."""
        ...

    async def waits(self, now: Instant) -> list[Waits]:
        """What is not due yet, or held in a window, by lane and what it waits for."""
        ...

    async def claim_due(
        self,
        lane: str,
        owner: str,
        now: Instant,
        until: Instant,
        limit: int,
        *,
        held: Collection[str] = (),
        overdue_only: bool = False,
        horizon: Instant | None = None,
        size: int | None = None,
    ) -> list[Delivery]:
        """Lease up to `limit` open deliveries of a lane that are due and not leased, the longest due first.

        Rows whose id is in `held` are with this node already and are passed over. A row past its `deadline` is
        always due; `overdue_only` asks for such rows alone. A row due after `horizon`, or further ahead than
        its creation is from its deadline, was stamped by a clock that has been set back since: it is due too.

        Where more are due than `limit`, each tenant has its share, and within it each rule, however long others
        have waited.
        `size` is how many bytes their messages may have in all; the first is taken whatever it has.
        """
        ...

    async def renew_leases(
        self, deliveries: Sequence[Delivery], until: Instant, *, sending: bool
    ) -> frozenset[str]:
        """Renew leases, show the rows as sending if they are, and answer the ids still held."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give leases back unused: the rows stay pending and are due at their `next_attempt_at`."""
        ...

    async def record(self, record: AttemptRecord) -> bool:
        """Record how an attempt ended, with what that sets off, in one step.

        False where the lease was lost: then the attempt is added to the row, and nothing else is written.
        A repetition of a record that was written is True again, and changes nothing.
        """
        ...

    async def has_earlier(self, delivery: Delivery) -> bool:
        """Is a smaller `seq` of the same approval, channel and recipient still open?"""
        ...

    # -- storm control ------------------------------------------------------------------------------------

    # A row that is inserted with a `window` joins the open one under that key, that is: takes the
    # `window_start` and `next_attempt_at` of a held row whose `next_attempt_at` is after its own `created_at`.
    # Where there is none, it opens one with its own. No claim takes a row while it is held.

    async def spent(self, tenant: str, budget: str, since: Instant, limit: int) -> list[Instant]:
        """When the newest `limit` deliveries that spent from `budget` after `since` were created, newest first.

        What is held or folded has not spent; what was let go has, as it was let go.
        """
        ...

    async def due_windows(self, now: Instant, limit: int) -> list[Window]:
        """Windows whose time has come, the longest due first.

        One that began more than `WINDOW_AHEAD` after `now` was opened by a clock that has been set back since:
        its time has come too.
        """
        ...

    async def window_rows(self, window: Window, limit: int) -> list[Delivery]:
        """The rows held in a window, oldest first."""
        ...

    async def fold(self, window: Window, digest: Delivery, ids: Collection[str] | None) -> int:
        """Insert `digest` and mark the rows it stands for as folded into it; answers how many.

        `ids` None means all that are held in the window. Repeating it with the same digest folds what is left.
        """
        ...

    async def let_go(self, window: Window) -> int:
        """Hold the window's rows no longer: they are due at once, each as itself; answers how many.

        Their `created_at` becomes the time of this, as a digest's is: by it they count in their budget.
        """
        ...

    async def postpone(self, window: Window, closes_at: Instant) -> None:
        """Hold the window's rows until `closes_at`; what comes meanwhile joins them."""
        ...

    async def close_windows(self, tenant: str, first: str, last: str, at: Instant) -> None:
        """The windows whose keys are from `first` on and below `last` close at `at`, if they were to later."""
        ...

    # -- silences -----------------------------------------------------------------------------------------

    async def add_silence(self, silence: Silence, record: AuditRecord, forget: Instant) -> None:
        """Insert it with its line of the audit trail, and forget those of all that ended before `forget`."""
        ...

    async def end_silence(
        self, tenant: str, silence_id: str, at: Instant, record: AuditRecord
    ) -> Silence | None:
        """End one that is not over, with a line of the audit trail, by that line's actor; how it is then."""
        ...

    async def silences(self, tenant: str, page: Page) -> tuple[list[Silence], int | None]: ...

    async def live_silences(self, now: Instant) -> list[Silence]:
        """Those of all tenants that were to end after `now`, oldest first, also where they were ended early."""
        ...

    # -- deputies -----------------------------------------------------------------------------------------

    async def add_deputy(self, deputy: OwnDeputy, record: AuditRecord) -> None:
        """Insert it with its line of the audit trail."""
        ...

    async def end_deputy(self, tenant: str, deputy_id: str, at: Instant, record: AuditRecord) -> None:
        """End one that is neither over nor ended, with a line of the audit trail."""
        ...

    async def live_deputies(self, now: Instant) -> list[OwnDeputy]:
        """Those of all tenants that are over after `now`, oldest first, also where they were ended."""
        ...

    # -- approvals ----------------------------------------------------------------------------------------

    async def approval(self, key: ApprovalKey) -> Approval | None: ...

    async def approval_versions(self, keys: Collection[ApprovalKey]) -> dict[ApprovalKey, int]:
        """The versions of those that are there: one query for each tenant."""
        ...

    async def superseded(self, key: ApprovalKey, limit: int) -> list[Decision]:
        """The newest `limit` decisions of an approval's earlier rounds, oldest first."""
        ...

    async def superseded_by(self, key: ApprovalKey, actor: str, plan_hash: str) -> list[Decision]:
        """What `actor` decided on a plan in earlier rounds, oldest first."""
        ...

    async def replace_approval(self, approval: Approval) -> bool:
        """Write `approval` if the stored version is the one before it. False: somebody else was first."""
        ...

    async def due_approvals(self, now: Instant, limit: int) -> list[Approval]:
        """Pending approvals whose `expires_at` has come, the longest due first."""
        ...

    async def timed_approvals(self, now: Instant, limit: int) -> list[Approval]:
        """Pending approvals whose `timer_at` has come, the longest due first."""
        ...

    async def wake_timers(self) -> None:
        """Make every pending approval due to be looked at by its timers."""
        ...

    async def owing_approvals(
        self, now: Instant, limit: int, *, horizon: Instant | None = None
    ) -> list[Approval]:
        """Approvals with an effect that is due, the longest due first. A dead effect is not due.

        One that is due after `horizon` is, behind those: its time is of a clock that has been set back since.
        """
        ...

    async def effect_counts(self) -> EffectCounts:
        """How many approvals owe effects, and how many have dead ones, over all tenants."""
        ...

    async def with_dead_effects(self, tenant: str, page: Page) -> tuple[list[Approval], int | None]: ...

    async def with_dead_effect(self, tenant: str, effect_id: str) -> Approval | None:
        """The approval that has this effect, dead."""
        ...

    async def complete_effect(self, key: ApprovalKey, effect_id: str) -> None:
        """Strike one effect off, whatever the approval's version is by now."""
        ...

    async def approvals(
        self, tenant: str, where: ApprovalFilter, page: Page
    ) -> tuple[list[Approval], int | None]: ...

    async def outstanding(self) -> dict[str, int]:
        """Pending approvals by tenant."""
        ...

    # -- incidents ----------------------------------------------------------------------------------------

    async def incidents(
        self, tenant: str, where: IncidentFilter, page: Page
    ) -> tuple[list[Incident], int | None]: ...

    # -- the ledger ---------------------------------------------------------------------------------------

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None: ...

    async def deliveries(
        self, tenant: str, where: DeliveryFilter, page: Page
    ) -> tuple[list[Delivery], int | None]:
        """Without their messages, which nobody reads in a list: each has `NO_MESSAGE`."""
        ...

    async def revive(
        self,
        tenant: str,
        delivery_id: str,
        now: Instant,
        deadline: Instant,
        *,
        message: str | None = None,
        sealed: bool = False,
    ) -> Delivery | None:
        """Make a dead delivery pending again, its tries at zero. None where it is not dead, or not there.

        `message` is the text of one that could not be rendered (`RENDER_FAILED`), and is written with the rest.
        Such a row is revived with a message only, and any other only without: what was rendered stays.

        A replay stands outside the order of its approval's messages: its `seq` becomes 0.
        """
        ...

    async def dead_letters(self) -> dict[str, int]:
        """Dead deliveries by channel."""
        ...

    async def answered(self, ref: str) -> Delivery | None:
        """The delivery, of whichever tenant, whose `answer_ref` it is."""
        ...

    async def copies(self, key: ApprovalKey) -> list[Delivery]:
        """The messages about an approval that have an `answer_ref`: the newest `MAX_COPIES`, newest first."""
        ...

    # -- what channels keep -------------------------------------------------------------------------------

    async def channel_state(self, channel: str, name: str) -> ChannelState | None: ...

    async def keep_channel_state(self, state: ChannelState, before: str | None = None) -> bool:
        """Write it over whatever is there; with `before`, only where that is still the sealed text, else False."""
        ...

    async def drop_channel_state(self, channel: str, name: str) -> None: ...

    # -- audit --------------------------------------------------------------------------------------------

    async def write_audit(self, records: Sequence[AuditRecord]) -> None: ...

    async def audit(
        self, tenant: str, where: AuditFilter, page: Page
    ) -> tuple[list[AuditRecord], int | None]: ...

    # -- the store itself ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Write something and see it durable, or raise `StoreError`."""
        ...

    async def beat(self, now: Instant, until: Instant) -> int:
        """Show that this node lives, at least `until` then; answers how many nodes live, this one included.

        Raises `StoreInUseError` where another process lives under this node's name.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was handed in, then close: this node lives no longer. Safe to call twice."""
        ...
