"""The steps over `deliveries`: the queue and the ledger in one collection.

A row can be claimed once its `claim_at` has come: the time it is due or, while it is leased, the lease's end. A
row that has ended, or waits in a window, has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import asdict, evolve

from notifyd.errors import Reason
from notifyd.model import SILENCED, ApprovalKey, Delivery, Instant, State, Wait
from notifyd.store import (
    MAX_ATTEMPTS_KEPT,
    MAX_COPIES,
    NO_MESSAGE,
    AttemptRecord,
    CollectionName,
    DeliveryFilter,
    LaneBacklog,
    Page,
    Waits,
    waits_for,
)
from notifyd.store.mongo import claims, reading, windows
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.claims import Queue, Wanted
from notifyd.store.mongo.documents import document_of, part_of
from notifyd.store.mongo.driver import Document
from notifyd.store.mongo.paging import newest_first
from notifyd.store.mongo.schema import CLAIMABLE, HELD, QUEUE

NOT_CLAIMABLE: Final = {"claim_at": "", "set_from": "", "claim": ""}
OPEN: Final = [State.PENDING.value, State.SENDING.value]
FREED: Final[Mapping[str, Any]] = {"lease_until": 0, "state": State.PENDING.value}
CHANGED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "state": lambda value: isinstance(value, str) and value in OPEN,
    "fencing_token": lambda value: isinstance(value, int),
}
"""What claiming changes of a record, and what that may be before."""

_BACKLOG: Final = ("lane", "channel", "tenant")
"""What the backlog is counted by."""

_KEYS_OF: Final[Mapping[Wait, Document]] = {
    Wait.WINDOW: {"$gt": "", "$lt": SILENCED},  # every other key is a derived id, in hex
    Wait.SILENCE: {"$gte": SILENCED},
}
"""Which windows hold a delivery for what, by their keys."""

_NO_LEASE: Final[Mapping[str, Any]] = {"lease_owner": None, "lease_until": 0}


def by_id(tenant: str, delivery_id: str) -> Document:
    return {"tenant": tenant, "id": delivery_id}


def _due(delivery: Delivery, next_attempt_at: Instant) -> Document:
    """The queue's fields of an open row without a lease."""
    at = next_attempt_at if next_attempt_at <= delivery.deadline else delivery.created_at
    return {"claim_at": at, "set_from": at - (delivery.deadline - delivery.created_at)}


def document(base: Base, delivery: Delivery) -> Document:
    row = {**document_of(delivery), "position": base.positions.next()}
    if not delivery.state.open or delivery.window is not None:
        return row
    if delivery.lease_owner is not None:
        return row | base.lease(delivery.lease_until)
    return row | _due(delivery, delivery.next_attempt_at)


# --- queue -------------------------------------------------------------------------------------------------


async def insert(base: Base, deliveries: Sequence[Delivery]) -> frozenset[str]:
    """Insert the rows that are not there yet; answer their ids.

    Those that wait in a window go into it in a transaction; the others together with what comes at once.
    """
    free = [row for row in deliveries if row.window is None]
    held = [row for row in deliveries if row.window is not None]
    fresh = await base.new_deliveries.insert([document(base, row) for row in free]) if free else []
    if held:
        async with base.turn("windows"):
            fresh += await base.transact(partial(_insert_held, rows=held))
    return frozenset(row.id for row, new in zip(free + held, fresh, strict=True) if new)


async def _insert_held(base: Base, rows: Sequence[Delivery]) -> list[bool]:
    return await insert_within(base, await windows.join(base, rows))


async def insert_within(base: Base, rows: Sequence[Delivery]) -> list[bool]:
    """Insert the rows that are not there yet, in a transaction; for each: was it new?"""
    return await base.deliveries.insert_missing([document(base, row) for row in rows], "tenant", "id")


async def claim_due(base: Base, queue: Queue, wanted: Wanted, owner: str, until: Instant) -> list[Delivery]:
    lease = {"lease_owner": owner, "lease_until": until, **base.lease(until)}
    counted = {"fencing_token": 1}  # nosec B105 # how often it was claimed
    change = {"$set": {"state": State.PENDING.value, **lease}, "$inc": counted}
    return await claims.claim(queue, Delivery, wanted, change)


async def renew_leases(
    base: Base, deliveries: Sequence[Delivery], until: Instant, *, sending: bool
) -> frozenset[str]:
    """One update for all rows of a tenant whose leases have the same number: nearly always one or two."""
    groups: defaultdict[tuple[str, str, int], list[str]] = defaultdict(list)
    for row in deliveries:
        if row.lease_owner is not None:
            groups[row.tenant, row.lease_owner, row.fencing_token].append(row.id)
    renewed = {"lease_until": until, **base.lease(until)}
    change = {"$set": renewed | ({"state": State.SENDING.value} if sending else {})}
    held: set[str] = set()
    for (tenant, owner, number), ids in groups.items():
        ours = {"tenant": tenant, "id": {"$in": ids}, "lease_owner": owner, "fencing_token": number}
        count = await base.deliveries.update_many({**ours, **CLAIMABLE}, change)
        if count == len(ids):
            held.update(ids)
        elif count:
            found = await base.deliveries.find({**ours, **CLAIMABLE}, fields=["id"])
            held.update(one["id"] for one in found)
    return frozenset(held)


def _ours(delivery: Delivery) -> Document:
    """The condition that a row is open, and leased as `delivery` says."""
    lease = {"lease_owner": delivery.lease_owner, "fencing_token": delivery.fencing_token}
    return {**by_id(delivery.tenant, delivery.id), **lease, **CLAIMABLE}


async def release(base: Base, deliveries: Sequence[Delivery]) -> None:
    leased = [row for row in deliveries if row.lease_owner is not None]
    if leased:
        await base.deliveries.update_each([(_ours(row), _released(row)) for row in leased])


def _released(delivery: Delivery) -> Document:
    at = delivery.next_attempt_at
    reason = None if delivery.reason is None else delivery.reason.value
    state = {"state": State.PENDING.value, "next_attempt_at": at, "reason": reason}
    return {"$set": {**state, **_NO_LEASE, **_due(delivery, at)}}


async def record_end(base: Base, given: AttemptRecord) -> bool:
    """Write the end of an attempt, or, where the lease was lost, the attempt alone.

    A repetition of a record that was written is True again, and changes nothing.
    """
    if given.delivery.lease_owner is not None and await base.deliveries.update_one(
        _ours(given.delivery), _ended(given)
    ):
        return True
    return await _keep_attempt(base, given)


async def record_ends(base: Base, given: Sequence[AttemptRecord]) -> bool:
    """Write the ends of attempts, in a transaction. False where a lease was lost: then it has to be undone."""
    changes = [(_ours(one.delivery), _ended(one)) for one in given]
    return await base.deliveries.update_each(changes) == len(changes)


def _was_written(row: Delivery, given: AttemptRecord) -> bool:
    kept = given.attempt is None or given.attempt in row.attempts
    same_number = row.fencing_token == given.delivery.fencing_token
    return kept and same_number and row.lease_owner is None and row.state is given.state


def _ended(given: AttemptRecord) -> Document:
    fields: Document = {
        "state": given.state.value,
        "next_attempt_at": given.next_attempt_at,
        "ended_at": given.ended_at,
        "reason": None if given.reason is None else given.reason.value,
        "folded_into": given.delivery.folded_into,
        **_NO_LEASE,
    }
    change: Document = {} if given.attempt is None else {"$inc": {"tries": 1}, "$push": _pushed(given)}
    if given.state.open:
        return change | {"$set": fields | _due(given.delivery, given.next_attempt_at)}
    return change | {"$set": fields, "$unset": NOT_CLAIMABLE}


def _pushed(given: AttemptRecord) -> Document:
    items = [] if given.attempt is None else [part_of(given.attempt)]
    return {"attempts": {"$each": items, "$slice": -MAX_ATTEMPTS_KEPT}}


async def _keep_attempt(base: Base, given: AttemptRecord) -> bool:
    one = by_id(given.delivery.tenant, given.delivery.id)
    row = await find(base, given.delivery.tenant, given.delivery.id)
    if row is None or _was_written(row, given):
        return row is not None
    if given.attempt is not None:
        missing = {**one, "attempts": {"$ne": part_of(given.attempt)}}
        await base.deliveries.update_one(missing, {"$push": _pushed(given)})
    return False


async def has_earlier(base: Base, delivery: Delivery) -> bool:
    where = {
        "tenant": delivery.tenant,
        "run_id": delivery.run_id,
        "approval_id": delivery.approval_id,
        "seq": {"$gt": 0, "$lt": delivery.seq},
        "channel": delivery.channel,
        "recipient": delivery.recipient,
        **CLAIMABLE,
    }
    others = reading.without(where, base.aside.places(CollectionName.DELIVERIES))
    return bool(await base.deliveries.find(others, fields=["id"], limit=1))


async def backlog(base: Base) -> list[LaneBacklog]:
    while True:
        found = await _backlog(base)
        odd = [one for one in found if not _is_readable(one)]
        if not odd:
            return [LaneBacklog(**one["_id"], waiting=one["waiting"], oldest=one["oldest"]) for one in found]
        for one in odd:  # in no lane that anybody would look for
            where = {**CLAIMABLE, **{name: one["_id"].get(name) for name in _BACKLOG}}
            reading.some(base, Delivery, await base.deliveries.find(where))


async def _backlog(base: Base) -> list[Document]:
    waiting = {
        "_id": {name: f"${name}" for name in _BACKLOG},
        "waiting": {"$sum": 1},
        "oldest": {"$min": "$created_at"},
    }
    decodable = reading.without(CLAIMABLE, base.aside.undecodable(CollectionName.DELIVERIES))
    return await base.deliveries.aggregate({"$match": decodable}, {"$group": waiting}, hint=QUEUE)


async def waits(base: Base, now: Instant) -> list[Waits]:
    aside = base.aside.undecodable(CollectionName.DELIVERIES)
    ahead = reading.without({**CLAIMABLE, "lease_owner": None, "next_attempt_at": {"$gt": now}}, aside)
    by = ("lane", "channel", "reason", "tries")
    count = {"$sum": 1}
    later = await base.deliveries.aggregate(
        {"$match": ahead}, {"$group": {"_id": {name: f"${name}" for name in by}, "count": count}}, hint=QUEUE
    )
    windowed = {
        why: await base.deliveries.aggregate(
            {"$match": reading.without({**HELD, "window": keys}, aside)},
            {"$group": {"_id": {"lane": "$lane", "channel": "$channel"}, "count": count}},
        )
        for why, keys in _KEYS_OF.items()
    }
    return [
        *(_waits(one, waits_for(one["_id"].get("reason"), one["_id"].get("tries"))) for one in later),
        *(_waits(one, why) for why, found in windowed.items() for one in found),
    ]


def _waits(one: Document, why: Wait) -> Waits:
    return Waits(one["_id"].get("lane"), one["_id"].get("channel"), why, one["count"])


def _is_readable(one: Document) -> bool:
    names = (one["_id"].get(name) for name in _BACKLOG)
    return all(isinstance(name, str) for name in names) and isinstance(one["oldest"], int)


# --- ledger ------------------------------------------------------------------------------------------------


async def find(base: Base, tenant: str, delivery_id: str) -> Delivery | None:
    return reading.one(base, Delivery, await base.deliveries.find_one(by_id(tenant, delivery_id)))


async def answered(base: Base, ref: str) -> Delivery | None:
    return reading.one(base, Delivery, await base.deliveries.find_one({"answer_ref": ref}))


async def copies(base: Base, key: ApprovalKey) -> list[Delivery]:
    where = {**asdict(key), "answer_ref": {"$gt": ""}}
    found = await base.deliveries.find(where, sort=[("position", -1)], limit=MAX_COPIES)
    return reading.some(base, Delivery, found)


async def search(
    base: Base, tenant: str, where: DeliveryFilter, page: Page
) -> tuple[list[Delivery], int | None]:
    states = tuple(State) if where.state is None else (where.state,)
    terms = {
        "tenant": tenant,
        "channel": where.channel,
        "state": {"$in": [state.value for state in states]},
    }
    hint = "by_state" if where.channel is None else "by_channel"
    found, after = await newest_first(base.deliveries, terms, page, hint, fields={"message": 0})
    listed = ({**document, "message": NO_MESSAGE} for document in found)
    return reading.some(base, Delivery, listed, whole=False), after


async def revive(
    base: Base,
    tenant: str,
    delivery_id: str,
    now: Instant,
    deadline: Instant,
    given: tuple[str, bool] | None = None,
) -> Delivery | None:
    """Put a dead row back into the queue, outside the order of its approval's messages (`seq` 0).

    `given` is the message of a row that has none, and whether it is sealed.
    """
    dead = await find(base, tenant, delivery_id)
    if dead is None or dead.state is not State.DEAD:
        return None
    fresh: Document = {"tries": 0, "seq": 0, "ended_at": None, "reason": None, "deadline": deadline}
    queued = {**_NO_LEASE, **_due(evolve(dead, deadline=deadline), now), "next_attempt_at": now}
    without = Reason.RENDER_FAILED.value
    where = {**by_id(tenant, delivery_id), "state": State.DEAD.value, "reason": {"$ne": without}}
    if given is not None:
        where["reason"] = without
        fresh |= {"message": given[0], "sealed": given[1]}
    if not await base.deliveries.update_one(
        where, {"$set": {"state": State.PENDING.value, **fresh, **queued}}
    ):
        return None
    return await find(base, tenant, delivery_id)


async def dead_letters(base: Base) -> dict[str, int]:
    counted = await base.deliveries.aggregate(
        {"$match": {"state": State.DEAD.value}}, {"$group": {"_id": "$channel", "dead": {"$sum": 1}}}
    )
    return {one["_id"]: one["dead"] for one in counted}
