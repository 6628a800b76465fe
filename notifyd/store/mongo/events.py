"""Accepting and planning: the steps over `events`.

An event about an approval or a hold is accepted in one transaction: what it does to its subject, its audit lines,
and the event. Any other event changes nothing but itself, and is inserted together with others that come at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Final, TypeAlias

from bson import ObjectId

from notifyd.errors import NotFoundError, StoreError
from notifyd.model import ApprovalKey, Event, IncidentKey, Instant, PlanEntry
from notifyd.store import Advance, Append, Appended, PlanFixed, Planned, Subject, refused
from notifyd.store.mongo import approvals, audit, claims, deliveries, reading
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.claims import Queue, Wanted
from notifyd.store.mongo.documents import document_of, part_of
from notifyd.store.mongo.driver import Document

_PLANNED: Final = {"$unset": {"claim_at": "", "set_from": "", "claim": "", "lease_owner": ""}}


Plan: TypeAlias = tuple[PlanEntry, ...]


def _key(event: Event) -> tuple[str, str]:
    return event.tenant, event.key


def _by_key(event: Event) -> Document:
    return {"tenant": event.tenant, "key": event.key}


async def find(base: Base, tenant: str, key: str) -> Event | None:
    """The event that is stored under a key."""
    return reading.one(base, Event, await base.events.find_one({"tenant": tenant, "key": key}))


def _document(base: Base, event: Event, leased_until: Instant | None) -> Document:
    """An event with its planning due; until then it is this node's to plan."""
    document = {**document_of(event), "position": base.positions.next()}
    if event.notify and leased_until is not None:
        return document | {"lease_owner": base.node, **base.lease(leased_until)}
    return document | {"claim_at": 0, "set_from": 0} if event.notify else document


async def insert_within(base: Base, event: Event, leased_until: Instant | None) -> bool:
    """Insert an event, if its key is new, in a transaction: was it?"""
    (fresh,) = await base.events.insert_missing([_document(base, event, leased_until)], "tenant", "key")
    return fresh


async def append(base: Base, request: Append) -> Appended:
    if request.subject is not None:
        async with base.turn(request.subject):
            return await base.transact(partial(_append_within, request=request, subject=request.subject))
    advance = request.advance(None)
    accepted = advance.accept(request.event)
    await audit.write(base, advance.audit)
    (fresh,) = await base.new_events.insert([_document(base, accepted, _leased_until(request))])
    first = accepted if fresh else await find(base, *_key(accepted))
    if first is None:
        raise StoreError("the event was removed while it was being accepted")
    return Appended(first, fresh)


async def _append_within(base: Base, request: Append, subject: ApprovalKey | IncidentKey) -> Appended:
    stored = await approvals.find_subject(base, subject)
    first = None if stored is None else await find(base, *_key(request.event))
    if first is not None:
        return Appended(first, fresh=False)
    advance = request.advance(stored)
    accepted = advance.accept(request.event)
    # Where there is no subject it is looked for only here: nearly every key is new.
    if not await insert_within(base, accepted, _leased_until(request)):
        first = await find(base, *_key(accepted))
        if first is None:
            raise StoreError("the event was removed while it was being accepted")
        return Appended(first, fresh=False)
    await _write(base, stored, advance)
    return Appended(accepted, fresh=True)


async def _advanced(base: Base, request: Append, subject: ApprovalKey | IncidentKey | None) -> Event:
    """The event as it is accepted; what it does to its subject is written."""
    stored = None if subject is None else await approvals.find_subject(base, subject)
    advance = request.advance(stored)
    await _write(base, stored, advance)
    return advance.accept(request.event)


async def _write(base: Base, stored: Subject | None, advance: Advance) -> None:
    if advance.subject is not None:
        await approvals.put(base, stored, advance.subject, advance.superseded)
    await audit.write_within(base, advance.audit)


async def append_all(base: Base, requests: Sequence[Append]) -> list[Appended]:
    return await base.transact(partial(_append_all_within, requests=requests)) if requests else []


async def _append_all_within(base: Base, requests: Sequence[Append]) -> list[Appended]:
    first = await _stored(base, [request.event for request in requests])
    answer = refused(requests, first)
    if answer:
        return answer
    documents = []
    for request in requests:
        fresh = request.key not in first
        if fresh:
            first[request.key] = await _advanced(base, request, request.subject)
            documents.append(_document(base, first[request.key], _leased_until(request)))
        answer.append(Appended(first[request.key], fresh))
    await base.events.insert_missing(documents, "tenant", "key")
    return answer


async def _stored(base: Base, events: Sequence[Event]) -> dict[tuple[str, str], Event]:
    """Those that are stored already, by their keys."""
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        keys[event.tenant].append(event.key)
    found = [
        await base.events.find({"tenant": tenant, "key": {"$in": some}}) for tenant, some in keys.items()
    ]
    stored = (reading.one(base, Event, document) for documents in found for document in documents)
    return {_key(event): event for event in stored if event is not None}


def _leased_until(request: Append) -> Instant | None:
    return request.event.received_at + request.lease if request.leased else None


# --- planning ----------------------------------------------------------------------------------------------


async def claim_unplanned(
    base: Base, queue: Queue, owner: str, now: Instant, until: Instant, limit: int, size: int | None
) -> list[Event]:
    change = {"$set": {"lease_owner": owner, **base.lease(until)}}
    return await claims.claim(queue, Event, Wanted({}, now, limit, size=size, text="body"), change)


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


async def _plans(base: Base, events: Sequence[Event]) -> dict[tuple[str, str], tuple[ObjectId | None, Plan]]:
    """By an event's key: the mark of who planned it, and the plan."""
    found: dict[tuple[str, str], tuple[ObjectId | None, Plan]] = {}
    for tenant, keys in _by_tenant(events).items():
        where = {"tenant": tenant, "key": {"$in": keys}}
        for document in await base.events.find(where):
            event = reading.one(base, Event, document)
            if event is not None:
                found[_key(event)] = (document.get("planned"), event.plan or ())
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
