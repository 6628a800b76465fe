"""What a store does over the years: let go of what is old, and give all it has to another store.

Each operation is idempotent, works on a bounded number of rows, and answers where to go on, so that whoever
asks decides how long to go on and how much room to leave to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from attrs import field, frozen

from notifyd.model import Approval, AuditRecord, AuditSeal, Delivery, Event, Incident, Instant


class CollectionName(StrEnum):
    """All that a store keeps, in the order in which it is purged and moved."""

    EVENTS = "events"
    APPROVALS = "approvals"
    INCIDENTS = "incidents"
    DELIVERIES = "deliveries"
    AUDIT = "audit"


@frozen
class StoredEvent:
    """An event with its plan. `planned`: nobody need plan it any more, or it was never to be."""

    event: Event
    planned: bool


Stored: TypeAlias = StoredEvent | Approval | Incident | Delivery | AuditRecord | AuditSeal


@frozen
class LegalHold:
    """A legal hold: what carries the label `key`, with `value` unless that is None, is not removed.

    The label stands in the `labels` of the event that an approval's present round, or an incident, was made
    from. It holds that approval with its incidents, and their events, deliveries and audit.
    """

    key: str
    value: str | None = None

    @classmethod
    def parse(cls, text: str) -> LegalHold | None:
        """From `retention.hold_label`: `key` or `key=value`, "" for none."""
        key, equals, value = text.partition("=")
        return cls(key, value if equals else None) if key else None


@frozen
class Aged:
    """What age may remove of a collection: what was over before `before`.

    An approval is over at its end, an incident at its release, a delivery when it is sent, dead or folded; an
    event and an audit record when they come. What is not over is never removed, however old it is. Kept, too:

    - an event that occurred later, or whose planning is not finished, or whose approval is pending or owes
      effects;
    - an approval that owes effects, or waits for its callback;
    - an incident of which an event spoke later;
    - a delivery whose event is not finished with planning, or whose approval owes effects: making that row
      again must find it there;
    - whatever `hold` holds.
    """

    collection: CollectionName
    before: Instant
    hold: LegalHold | None = None


@frozen
class Purged:
    """What one call did: how many rows were old enough, and how many of them it removed, or would have.

    `seconds` is how long its write kept other writes waiting. `after` is where to go on, None at the end.
    """

    examined: int
    removed: int
    seconds: float
    after: str | None


@frozen
class Place:
    """Where work on several collections goes on. `after` is an answer of the store."""

    collection: CollectionName
    after: str = ""

    def next(self, after: str | None, order: Sequence[CollectionName]) -> Place | None:
        """The place after a call that answered `after`; None at the end of the last collection of `order`."""
        if after is not None:
            return Place(self.collection, after)
        rest = order[order.index(self.collection) + 1 :]
        return Place(rest[0]) if rest else None


SEALED: Final = (CollectionName.APPROVALS, CollectionName.DELIVERIES)
"""The collections with sealed texts: an approval's resume token, a delivery's message."""


SEALS: Final = "seals:"
"""What the place in a dump of the audit trail begins with, where the seals over it come."""


@frozen
class SealedRow:
    """A row that holds a sealed text. `ids` tell it from others of its tenant: of an approval, run and approval.

    `header` is the text's part before its first dot, the protected header of a compact JWE (RFC 7516), which names
    the key. `needed`: an approval that is pending or owes effects, a delivery that is open or dead.
    """

    tenant: str
    ids: tuple[str, ...]
    header: str
    needed: bool


@frozen
class ChannelState:
    """What a channel keeps under a name of its own: a sealed text, a compact JWE."""

    channel: str
    name: str
    sealed: str


@frozen
class SealKeys:
    """The keys of `keys.seal`, by their ids, that rows may be sealed under; None where they were never noted.

    `identity_keys` is what `Keyring.keep_identity_keys` gives, of these and of earlier ones.
    """

    ids: frozenset[str] | None = None
    identity_keys: Mapping[str, str] = field(factory=dict)


@frozen
class SetAsideRow:
    """A row that is set aside. `place` is where it is: the row's number, or the document's `_id`.

    `name` is its key as far as that can be told, and `fault` what is wrong with it, without what it holds.
    `table` is a collection's name, or "decisions" for those of earlier rounds.
    """

    table: str
    place: str
    name: str
    fault: str

    def __str__(self) -> str:
        return f"{self.table} row {self.place} ({self.name}): {self.fault}"


@frozen
class Usage:
    """What a store takes, in bytes: `parts` by what for, and `disk_free` what is left to it, None if unknown."""

    parts: Mapping[str, int]
    disk_free: int | None


class Job(StrEnum):
    """Work that one node at a time does for all that share the store."""

    RETENTION = "retention"
    AUDIT_SEALS = "audit-seals"
    DRILL = "drill"


@frozen
class SealedAudit:
    """An audit seal, and the records that bear its number, in the order in which they are stored."""

    seal: AuditSeal
    records: tuple[AuditRecord, ...]


@frozen
class Turn:
    """Whose a job is. `node` has it or, where it need not be done again yet, had it last; "" if unknown."""

    mine: bool
    node: str = ""


class Upkeep(Protocol):
    """The part of the `Store` protocol that this module's text is about."""

    async def purge(self, aged: Aged, limit: int, after: str = "", *, dry_run: bool = False) -> Purged:
        """Remove up to `limit` rows, the longest over first, from `after` on, where an earlier call ended.

        It looks at no more than `limit` rows either, so that rows which are kept cost a call no more than
        others. Raises ValueError for an `after` that is no answer of this store.
        """
        ...

    async def forget_deputies(self, before: Instant) -> int:
        """Remove the deputies whom people have named, and whose last day was over before then; how many it was."""
        ...

    async def claim_job(
        self, job: str, now: Instant, until: Instant, *, unless_done_since: Instant | None = None
    ) -> Turn:
        """Lease `job`, one of `Job` or any other name, to this node until then, or renew its lease, unless another
        node has it.

        Nor is it leased where it was done at `unless_done_since` or later. A store that one process owns gives it
        always; one that nodes share gives nothing to a node whose clock is off.
        """
        ...

    async def end_job(self, job: str, done_at: Instant | None = None) -> None:
        """Give the lease back, if this node has it. `done_at` is when the job was done, None where it was not."""
        ...

    async def tenants_with_unsealed_audit(self) -> list[str]:
        """The tenants with audit records that no seal is over, "" among them."""
        ...

    async def unsealed_audit(self, tenant: str, limit: int) -> list[AuditRecord]:
        """Up to `limit` audit records that no seal is over, in the order in which they are stored."""
        ...

    async def newest_audit_seal(self, tenant: str) -> AuditSeal | None: ...

    async def next_audit_seal(self, tenant: str, number: int) -> SealedAudit | None:
        """The first seal of a tenant's chain whose number is above `number`."""
        ...

    async def stray_audit(self, tenant: str, limit: int) -> list[AuditRecord]:
        """Up to `limit` records that bear the number of a seal which is not there."""
        ...

    async def add_audit_seal(self, seal: AuditSeal, records: Sequence[AuditRecord]) -> bool:
        """Write `seal`, and its number to `records`, of its tenant.

        False, and nothing is written, where the number is taken, or a record is sealed already or gone.
        """
        ...

    async def drop_audit_seals(self, tenant: str, before: int) -> None:
        """Remove the seals of a tenant's chain whose numbers are below `before`."""
        ...

    async def tenants_with_audit(self, before: Instant) -> list[str]:
        """The tenants that have audit records from before then."""
        ...

    async def count(self, collection: CollectionName) -> int:
        """How many rows there are, for a progress bar: it may be out by what is being written."""
        ...

    async def dump(
        self, collection: CollectionName, after: str, limit: int
    ) -> tuple[list[Stored], str | None]:
        """Up to `limit` rows from `after` on, oldest first, and where to go on, None at the end.

        Leases stay behind: a delivery comes as one that nobody holds. An approval comes with the decisions of all
        its rounds. Behind the audit records come the seals over them. Raises ValueError as `purge` does.
        """
        ...

    async def restore(self, rows: Sequence[Stored]) -> int:
        """Insert the rows that are not there yet, in this order; answers how many. What is there stays.

        A seal that is new is over those of its records that are there.
        """
        ...

    async def seal_keys(self) -> SealKeys:
        """What was noted last."""
        ...

    async def note_seal_keys(self, keys: SealKeys) -> None:
        """Remember these, and no others, as the keys that rows may be sealed under."""
        ...

    async def channel_states(self) -> list[ChannelState]:
        """All that is kept for channels: few, and small."""
        ...

    async def sealed_rows(
        self, collection: CollectionName, after: str, limit: int
    ) -> tuple[list[SealedRow], str | None]:
        """Look at up to `limit` rows from `after` on, oldest first, and answer those that hold a sealed text.

        With it goes where to go on, None at the end. Raises ValueError as `purge` does.
        """
        ...

    async def replace_message(self, delivery: Delivery, message: str) -> bool:
        """Write `message` in place of the one that `delivery` has. False where another is stored by now."""
        ...

    async def set_aside(self, row: Event | Approval | Delivery, fault: str) -> bool:
        """Set aside a row that decodes and that a step can do nothing with; for minutes, if that is not repeated.

        `fault` says why in one line, without what the row holds. False where the row is set aside already.
        """
        ...

    async def undecodable(self) -> list[SetAsideRow]:
        """The rows that are set aside: those that were found not to decode, and those noted by `set_aside`.

        Some are looked at again, so that the list forgets what has been repaired, or removed.
        """
        ...

    async def usage(self) -> Usage:
        """What the store takes on its disk."""
        ...

    async def openings(self) -> int | None:
        """How often this store has been opened. None where others may have it open at the same time."""
        ...
