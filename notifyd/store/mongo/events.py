"""Accepting and planning: the steps over `events`.

Accepting an event about an approval or incident takes three durable writes: the subject, the audit lines, and
the event itself. The first one decides, also where the event is only recorded and changes nothing: it depends on
the version that was looked at, and carries the other two writes in `accepting`. What a broken acceptance leaves is
finished as it was decided, by its repetition or by a sweep, whatever has become of the subject since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from attrs import evolve, frozen
from bson import ObjectId

from notifyd.errors import NotFoundError, StoreError
from notifyd.model import AuditRecord, Event, Instant, PlanEntry
from notifyd.store import Advance, Append, Appended, PlanFixed, Planned
from notifyd.store.mongo import approvals, audit, deliveries
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.claims import Queue, Wanted
from notifyd.store.mongo.documents import document_of, part_of, record_of
from notifyd.store.mongo.driver import Collection, Document

_SWEPT: Final = 1000
"""How many subjects a sweep looks at: as many as a node accepts in the second between two."""

_PLANNED: Final = {"$unset": {"claim_at": "", "set_from": "", "claim": "", "lease_owner": ""}}


Plan: TypeAlias = tuple[PlanEntry, ...]


def _key(event: Event) -> tuple[str, str]:
    return event.tenant, event.key


def _by_key(event: Event) -> Document:
    return {"tenant": event.tenant, "key": event.key}


async def find(base: Base, tenant: str, key: str) -> Event | None:
    """The event that is stored under a key."""
    document = await base.events.find_one({"tenant": tenant, "key": key})
    return None if document is None else record_of(document, Event)


async def insert(base: Base, event: Event, leased_until: Instant | None) -> bool:
    """Insert an event, if its key is new, with its planning due; until then it is this node's to plan."""
    document = {**document_of(event), "position": base.positions.next()}
    if event.notify and leased_until is not None:
        document |= {"lease_owner": base.node, **base.lease(leased_until)}
    elif event.notify:
        document |= {"claim_at": 0, "set_from": 0}
    (fresh,) = await base.new_events.insert([document])
    return fresh


@frozen
class Acceptance:
    """An event as it is accepted, and the audit lines of that."""

    event: Event
    audit: tuple[AuditRecord, ...]

    @classmethod
    def of(cls, event: Event, advance: Advance) -> Acceptance:
        accepted = evolve(
            event,
            outcome=advance.outcome,
            notify=advance.notify,
            version=advance.version,
            round=advance.round,
        )
        return cls(accepted, advance.audit)


async def append(base: Base, request: Append) -> Appended:
    accepted = await _decided(base, request)
    if isinstance(accepted, Event):
        return Appended(accepted, fresh=False)
    leased_until = request.event.received_at + request.lease if request.leased else None
    if await _finish_accepting(base, accepted, leased_until):
        return Appended(accepted.event, fresh=True)
    first = await find(base, *_key(request.event))
    if first is None:
        raise StoreError("the event was removed while it was being accepted")
    return Appended(first, fresh=False)


async def _decided(base: Base, request: Append) -> Acceptance | Event:
    """Let the subject decide what the event does to it; or answer the event that is stored under its key."""
    event = request.event
    if request.subject is None:
        return Acceptance.of(event, request.advance(None))
    for _ in range(approvals.RACES):
        # In this order: whoever decides after the subject was looked at is seen by the write that depends on it.
        stored = await approvals.find_subject(base, request.subject)
        first = await find(base, *_key(event))
        if first is not None:
            return first
        known = stored.note_of(event.key)
        if known is not None:
            return _noted(known)
        advance = request.advance(stored.subject)
        accepted = Acceptance.of(event, advance)
        if stored.subject is None and advance.subject is None:
            return accepted
        if await approvals.move(base, stored.subject, advance.subject, accepting=_note(base, accepted)):
            return accepted
    raise StoreError("too many writes to this approval at once")


def _note(base: Base, accepted: Acceptance) -> Document:
    """What a subject carries of an event about it, so that its acceptance can be finished from it."""
    return {
        "key": accepted.event.key,
        "at": base.clock(),
        "event": document_of(accepted.event),
        "audit": [document_of(record) for record in accepted.audit],
    }


def _noted(note: Document) -> Acceptance:
    """The acceptance that a subject carries."""
    return Acceptance(
        record_of(note["event"], Event), tuple(record_of(line, AuditRecord) for line in note["audit"])
    )


async def _finish_accepting(base: Base, accepted: Acceptance, leased_until: Instant | None) -> bool:
    """Insert what the acceptance of an event adds; was the event new?"""
    await audit.write(base, accepted.audit)
    return await insert(base, accepted.event, leased_until)


# --- acceptances that broke off ----------------------------------------------------------------------------


async def sweep_acceptances(base: Base, before: Instant) -> None:
    """Finish the acceptances from before then that broke off, and forget those that did not."""
    for subjects in (base.approvals, base.incidents):
        old = {"$gt": 0, "$lt": before}
        found = await subjects.find({"accepting.at": old}, fields=["tenant", "accepting"], limit=_SWEPT)
        notes: dict[str, dict[str, Document]] = {}
        for one in found:
            known = notes.setdefault(one["tenant"], {})
            known.update({note["key"]: note for note in one["accepting"] if note["at"] < before})
        for tenant, by_key in notes.items():
            await _settle(base, subjects, tenant, by_key)


async def _settle(base: Base, subjects: Collection, tenant: str, notes: Mapping[str, Document]) -> None:
    keys = list(notes)
    stored = await base.events.find({"tenant": tenant, "key": {"$in": keys}}, fields=["key"])
    for key in notes.keys() - {one["key"] for one in stored}:
        await _finish_accepting(base, _noted(notes[key]), None)
    done = {"$pull": {"accepting": {"key": {"$in": keys}}}}
    await subjects.update_many({"tenant": tenant, "accepting.key": {"$in": keys}}, done)


# --- planning ----------------------------------------------------------------------------------------------


async def claim_unplanned(
    base: Base, queue: Queue, owner: str, now: Instant, until: Instant, limit: int
) -> list[Event]:
    lease = until - now
    await sweep_acceptances(base, now - lease)
    change = {"$set": {"lease_owner": owner, **base.lease(until)}}
    claimed = await queue.claim(Wanted({}, now, limit), change)
    return [record_of(document, Event) for document in claimed]


async def fix_plans(base: Base, planned: Sequence[Planned]) -> list[PlanFixed]:
    """Fix each event's plan if it has none, then insert the deliveries of those that won, all at once."""
    plans = await _fix(base, planned)
    won = [one for one in planned if plans[_key(one.event)] is None]
    inserted = await deliveries.insert(base, [row for one in won for row in one.deliveries])
    await finish(base, [one.event for one in won])
    return [_fixed(one, plans[_key(one.event)], inserted) for one in planned]


def _fixed(planned: Planned, first: Plan | None, inserted: frozenset[str]) -> PlanFixed:
    if first is not None:
        return PlanFixed(first, won=False, inserted=frozenset())
    return PlanFixed(planned.plan, won=True, inserted=inserted & {row.id for row in planned.deliveries})


async def _fix(base: Base, planned: Sequence[Planned]) -> dict[tuple[str, str], Plan | None]:
    """By an event's key: None where this plan is now its own; else the one that was there before."""
    mark = ObjectId()
    changes = [
        (
            {**_by_key(one.event), "plan": None},
            {"$set": {"plan": [part_of(entry) for entry in one.plan], "planned": mark}},
        )
        for one in planned
    ]
    if not changes or await base.events.update_each(changes) == len(changes):
        return dict.fromkeys(_key(one.event) for one in planned)
    found = await _plans(base, [one.event for one in planned])
    plans: dict[tuple[str, str], Plan | None] = {}
    for one in planned:
        key = _key(one.event)
        if key not in found:
            raise NotFoundError(f"no event {one.event.key} of tenant {one.event.tenant} is stored")
        by, plan = found[key]
        plans[key] = None if by == mark else plan
    return plans


async def _plans(base: Base, events: Sequence[Event]) -> dict[tuple[str, str], tuple[ObjectId, Plan]]:
    """By an event's key: the mark of who planned it, and the plan."""
    found: dict[tuple[str, str], tuple[ObjectId, Plan]] = {}
    for tenant, keys in _by_tenant(events).items():
        where = {"tenant": tenant, "key": {"$in": keys}}
        for one in await base.events.find(where, fields=["key", "planned", "plan"]):
            plan = tuple(record_of(entry, PlanEntry) for entry in one["plan"])
            found[tenant, one["key"]] = (one["planned"], plan)
    return found


async def finish(base: Base, events: Sequence[Event]) -> None:
    """The planning of these events is finished: nobody need claim them any more."""
    for tenant, keys in _by_tenant(events).items():
        await base.events.update_many({"tenant": tenant, "key": {"$in": keys}}, _PLANNED)


def _by_tenant(events: Sequence[Event]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for event in events:
        keys.setdefault(event.tenant, []).append(event.key)
    return keys
