"""Collections, their indexes, and how an older database becomes a newer one.

Unique indexes begin with the tenant, which is the shard key. Indexes over queues are partial: a document that
is done leaves them. TTL indexes are for what nobody can want to keep longer: whether an event, approval, incident,
delivery or audit line may go depends on other documents and on the configuration, so that age alone cannot say.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from attrs import frozen
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from notifyd.errors import StoreMissingError, StoreOutdatedError, StoreUnusableError
from notifyd.store.mongo.driver import Connection, Document, Keys

_log = logging.getLogger("notifyd.store")

CLAIMABLE: Final[Mapping[str, Any]] = {"claim_at": {"$gte": 0}}
"""Documents of a queue. Every query of a queue has this condition, which a partial index needs to be used."""

HELD: Final[Mapping[str, Any]] = {"window": {"$gt": ""}}
"""Deliveries that wait in a window."""

REMEMBERED: Final = timedelta(days=1)
"""How long a node that is gone is remembered."""

QUEUE: Final = "queue"
"""The index that a queue is claimed by."""


@frozen
class Index:
    collection: str
    name: str
    keys: Keys
    options: Mapping[str, Any]


def _index(collection: str, name: str, *keys: str, **options: Any) -> Index:
    return Index(collection, name, [(key, 1) for key in keys], options)


def _unique(collection: str, *keys: str) -> Index:
    return _index(collection, "key", *keys, unique=True)


def _partial(collection: str, name: str, where: Mapping[str, Any], *keys: str) -> Index:
    return _index(collection, name, *keys, partialFilterExpression=where)


_APPROVAL: Final = ("tenant", "run_id", "approval_id")
_DECIDED: Final = (*_APPROVAL, "round", "decisions")

LISTED: Final = _index("deliveries", "by_channel", "tenant", "channel", "state", "position")
"""Beside the one by state: a list of all channels would have to merge as many stretches as there are."""

DECISIONS: Final = _unique("decisions", *_APPROVAL, "decision_hash")

EFFECTS: Final = (
    _partial("pack_approvals", "effects_due", {"effects_due_at": {"$gte": 0}}, "effects_due_at"),
    _partial("pack_approvals", "dead_effects", {"dead_effects": {"$gt": 0}}, "tenant", "position"),
)

TIMED: Final = _partial(
    "pack_approvals", "timed", {"status": "pending", "timer_at": {"$gte": 0}}, "status", "timer_at"
)

INCIDENTS: Final = _index("incidents", "listed", "tenant", "open", "position")

SILENCES: Final = (
    _unique("silences", "tenant", "id"),
    _index("silences", "listed", "tenant", "position"),
    _index("silences", "live", "ends_at"),
)

DEPUTIES: Final = (
    _unique("deputies", "tenant", "id"),
    _index("deputies", "live", "over_at"),
)

AGES: Final = (
    _index("events", "by_age", "received_at", "_id"),
    _partial("pack_approvals", "by_age", {"ended_at": {"$gt": 0}}, "ended_at", "_id"),
    _partial("incidents", "by_age", {"closed_at": {"$gt": 0}}, "closed_at", "_id"),
    _partial("deliveries", "by_age", {"ended_at": {"$gt": 0}}, "ended_at", "_id"),
    _index("audit", "by_age", "at", "_id"),
)

AUDIT_SEALS: Final = (
    _index("audit", "by_seal", "seal", "tenant", "_id"),
    _unique("audit_seals", "tenant", "number"),
)

ANSWERED: Final = _partial("deliveries", "answered", {"answer_ref": {"$gt": ""}}, "answer_ref")

COPIES: Final = _partial("deliveries", "copies", {"answer_ref": {"$gt": ""}}, *_APPROVAL, "position")

FORGOTTEN: Final = _index("nodes", "ttl", "forgotten_at", expireAfterSeconds=0)

INDEXES: Final = (
    _unique("events", "tenant", "key"),
    _partial("events", QUEUE, CLAIMABLE, "claim_at", "position"),
    _unique("pack_approvals", *_APPROVAL),
    _index("pack_approvals", "by_status", "tenant", "status", "position"),
    _partial("pack_approvals", "due", {"status": "pending"}, "status", "expires_at"),
    *EFFECTS,
    TIMED,
    DECISIONS,
    _unique("incidents", *_APPROVAL, "policy_id"),
    INCIDENTS,
    *SILENCES,
    *DEPUTIES,
    _unique("deliveries", "tenant", "id"),
    _index("deliveries", "by_state", "tenant", "state", "position"),
    LISTED,
    _partial("deliveries", QUEUE, CLAIMABLE, "lane", "claim_at", "position"),
    _partial("deliveries", "flows", CLAIMABLE, "lane", "tenant", "rule", "claim_at", "position"),
    _partial("deliveries", "order", CLAIMABLE, *_APPROVAL, "seq"),
    _partial("deliveries", "window", HELD, "tenant", "window", "window_start"),
    _partial("deliveries", "closing", HELD, "next_attempt_at"),
    _partial("deliveries", "ahead", HELD, "window_start"),
    _partial("deliveries", "budget", {"budget": {"$gt": ""}}, "tenant", "budget", "created_at"),
    _partial("deliveries", "dead", {"state": "dead"}, "state", "channel"),
    ANSWERED,
    COPIES,
    _unique("audit", "tenant", "id"),
    _index("audit", "by_tenant", "tenant", "position"),
    _index("audit", "by_run", "tenant", "run_id", "position"),
    _unique("timers", "tenant", "window"),
    _index("timers", "ttl", "ends", expireAfterSeconds=0),
    FORGOTTEN,
    *AGES,
    *AUDIT_SEALS,
)

_VERSION: Final = {"_id": "schema"}
_COLLECTION: Final = "schema"

Migration: TypeAlias = Callable[[Connection], Awaitable[None]]


async def create_indexes(connection: Connection, indexes: Sequence[Index]) -> None:
    """Create those that are not there yet, with one command for each collection."""
    models: defaultdict[str, list[IndexModel]] = defaultdict(list)
    for index in indexes:
        models[index.collection].append(IndexModel(index.keys, name=index.name, **index.options))
    for collection, wanted in models.items():
        await connection.collection(collection).create_indexes(wanted)


async def _first(connection: Connection) -> None:
    await create_indexes(connection, INDEXES)


async def _second(connection: Connection) -> None:
    await create_indexes(connection, AGES)


async def _third(connection: Connection) -> None:
    """Nodes that were gone before they had a time to be forgotten at are given one."""
    await create_indexes(connection, [FORGOTTEN])
    later = (await connection.hello())["localTime"] + REMEMBERED
    await connection.collection(FORGOTTEN.collection).update_many(
        {"forgotten_at": None}, {"$set": {"forgotten_at": later}}
    )


async def _fourth(connection: Connection) -> None:
    """A delivery's lease number is called its fencing token."""
    await connection.collection("deliveries").update_many(
        {"lease_number": {"$exists": True}}, {"$rename": {"lease_number": "fencing_token"}}
    )


async def _fifth(connection: Connection) -> None:
    """Approvals and incidents carry no events any more: those of acceptances that broke off are inserted."""
    for name in ("pack_approvals", "incidents"):
        subjects = connection.collection(name)
        for one in await subjects.find({"accepting.at": {"$gt": 0}}, fields=["accepting"]):
            for position, note in enumerate(one["accepting"]):
                await _finish(connection, note, note["at"] << 10 | position)
            done = {"accepting": {"key": {"$in": [note["key"] for note in one["accepting"]]}}}
            await subjects.update_one({"_id": one["_id"]}, {"$pull": done})
        await subjects.update_many({"accepting": []}, {"$unset": {"accepting": ""}})
        await subjects.drop_index("accepting")


async def _finish(connection: Connection, note: Document, position: int) -> None:
    audit, events = connection.collection("audit"), connection.collection("events")
    await audit.insert_missing([{**line, "position": position} for line in note["audit"]], "tenant", "id")
    due = {"claim_at": 0, "set_from": 0} if note["event"]["notify"] else {}
    await events.insert_missing([{**note["event"], "position": position, **due}], "tenant", "key")


async def _sixth(connection: Connection) -> None:
    """What approvals owe is found by when it is due."""
    await create_indexes(connection, EFFECTS)
    approvals = connection.collection("pack_approvals")
    undated = {"effects.id": {"$gt": ""}, "effects_due_at": {"$exists": False}}
    await approvals.update_many(undated, {"$set": {"effects_due_at": 0}})
    await approvals.drop_index("owing")


async def _seventh(connection: Connection) -> None:
    """Deliveries are listed by channel."""
    await create_indexes(connection, [LISTED])


async def _eighth(connection: Connection) -> None:
    """What was decided in earlier rounds gets a collection of its own.

    Which events an approval or an incident has been through is not kept beside the events any more: an approval
    that is pending keeps when its plan was last asked for.
    """
    await create_indexes(connection, [DECISIONS])
    approvals = connection.collection("pack_approvals")
    for one in await approvals.find({"round": {"$gt": 1}, "decisions.round": {"$gt": 0}}, fields=_DECIDED):
        await _part(connection, one)
    asked = {"status": "pending", "applied.occurred_at": {"$gt": 0}}
    for one in await approvals.find(asked, fields=["round", "applied"]):
        here = (done for done in _documents(one["applied"]) if done.get("round") == one.get("round"))
        heard = (done.get("occurred_at") for done in here)
        newest = max((at for at in heard if isinstance(at, int)), default=0)
        still = {"_id": one["_id"], "applied": one["applied"]}
        await approvals.update_one(still, {"$set": {"heard_again_at": newest}})
    for name in ("pack_approvals", "incidents"):
        having = {"applied": {"$exists": True}}
        await connection.collection(name).update_many(having, {"$unset": {"applied": ""}})


async def _part(connection: Connection, approval: Document) -> None:
    """Move an approval's decisions of earlier rounds out of it: what does not look like one stays."""
    of, number = {name: approval.get(name) for name in _APPROVAL}, approval["round"]
    earlier = [one for one in _documents(approval["decisions"]) if _is_earlier(one, number)]
    documents = [{**of, **decision, "position": place} for place, decision in enumerate(earlier)]
    await connection.collection(DECISIONS.collection).insert_missing(documents, *_APPROVAL, "decision_hash")
    over = {"round": {"$lt": number}, "decision_hash": {"$in": [one["decision_hash"] for one in earlier]}}
    await connection.collection("pack_approvals").update_one(
        {"_id": approval["_id"]}, {"$pull": {"decisions": over}}
    )


def _documents(values: Any) -> list[Document]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _is_earlier(decision: Document, number: Any) -> bool:
    round_, named = decision.get("round"), isinstance(decision.get("decision_hash"), str)
    return named and isinstance(round_, int) and round_ < number


async def _ninth(connection: Connection) -> None:
    """Approvals may have groups. An older notifyd would not count by them, and refuses this version."""


async def _tenth(connection: Connection) -> None:
    """Approvals may have inputs. An older notifyd would approve without them, and refuses this version."""


async def _eleventh(connection: Connection) -> None:
    """Approvals are found by when a reminder or an escalation may be due."""
    await create_indexes(connection, [TIMED])


async def _twelfth(connection: Connection) -> None:
    """Seals are over the audit trail."""
    await create_indexes(connection, AUDIT_SEALS)


async def _thirteenth(connection: Connection) -> None:
    """Incidents are listed."""
    await create_indexes(connection, [INCIDENTS])


async def _fourteenth(connection: Connection) -> None:
    """Deliveries are found by what people's answers call them."""
    await create_indexes(connection, [ANSWERED])


async def _fifteenth(connection: Connection) -> None:
    """The messages of an approval are found that can be changed later."""
    await create_indexes(connection, [COPIES])


async def _sixteenth(connection: Connection) -> None:
    """Operators may hold notifications back for a time."""
    await create_indexes(connection, SILENCES)


async def _seventeenth(connection: Connection) -> None:
    """People may name a deputy of their own."""
    await create_indexes(connection, DEPUTIES)


MIGRATIONS: Final[tuple[Migration, ...]] = (
    _first,
    _second,
    _third,
    _fourth,
    _fifth,
    _sixth,
    _seventh,
    _eighth,
    _ninth,
    _tenth,
    _eleventh,
    _twelfth,
    _thirteenth,
    _fourteenth,
    _fifteenth,
    _sixteenth,
    _seventeenth,
)
"""Oldest first; the version document counts those the database has been through. Only ever append.

Several nodes may run one at the same time, and one that stopped half-way is run again: each is idempotent.
"""


async def migrate(
    connection: Connection,
    migrations: tuple[Migration, ...] = MIGRATIONS,
    *,
    create: bool = True,
    upgrade: bool = True,
) -> None:
    """Bring the database to the newest schema.

    Raises `StoreUnusableError` for one that a newer notifyd wrote, `StoreMissingError` for one that holds no
    store where `create` is false, and `StoreOutdatedError` for one of an earlier notifyd where `upgrade` is false.
    """
    version = await _version(connection)
    if not version:
        if not create:
            raise StoreMissingError(f"MongoDB database {connection.name}")
        _log.warning("MongoDB database %s: no store was there, an empty one is made", connection.name)
    if version > len(migrations):
        raise StoreUnusableError(
            f"MongoDB database {connection.name}: written by a newer notifyd (schema {version}; this one knows "
            f"{len(migrations)}): install that version, or restore a backup"
        )
    outdated = 0 < version < len(migrations)
    if outdated and not upgrade:
        raise StoreOutdatedError(f"MongoDB database {connection.name}", version, len(migrations))
    for number, migration in enumerate(migrations[version:], start=version + 1):
        await migration(connection)
        await _mark(connection, number)
    if outdated:
        change = version, len(migrations)
        _log.warning(
            "MongoDB database %s: schema %d is now %d, and nothing changes it back", connection.name, *change
        )


async def check_there(connection: Connection) -> None:
    """Raises `StoreUnusableError` where a collection is gone.

    The server makes one that was dropped anew at the next write, without the indexes that keep ids single.
    """
    lacking = {index.collection for index in INDEXES} | {_COLLECTION}
    lacking -= await connection.collection_names()
    if lacking:
        raise StoreUnusableError(
            f"MongoDB database {connection.name}: lacks {', '.join(sorted(lacking))}, which was there: "
            "restore the database, or restart every node to begin an empty one"
        )


async def _version(connection: Connection) -> int:
    found = await connection.collection(_COLLECTION).find_one(_VERSION)
    version = 0 if found is None else found.get("version")
    if not isinstance(version, int):
        raise StoreUnusableError(f"MongoDB database {connection.name}: its schema's version is no number")
    return version


async def _mark(connection: Connection, number: int) -> None:
    """Count a migration, once, whichever node is first."""
    try:
        await connection.collection(_COLLECTION).update_one(
            {**_VERSION, "version": {"$lt": number}}, {"$set": {"version": number}}, upsert=True
        )
    except DuplicateKeyError:
        return  # another node has counted it
