"""The tables, and how an older file becomes a newer one.

Rowid tables with narrow unique indexes: a row's body never takes part in a search, so a body must not sit in
the tree that is searched. What changes often lives apart from what is written once: `planning` beside `events`,
`messages` beside `deliveries`. `due_at` and `life` are this module's own: see `deliveries.py`.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, Error, connect
from typing import Final
from zlib import crc32

from notifyd.errors import StoreOutdatedError, StoreUnusableError

_log = logging.getLogger("notifyd.store")

APPLICATION_ID: Final = 0x6E746664
"""Marks a file as notifyd's: "ntfd", in the header's application id (https://www.sqlite.org/fileformat2.html)."""

_FIRST: Final = """
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    life INTEGER NOT NULL,       -- grows at every opening; a lease of an earlier life is void
    probed_at INTEGER NOT NULL
);
INSERT INTO store (id, life, probed_at) VALUES (1, 0, 0);

CREATE TABLE events (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, key TEXT NOT NULL, event_id TEXT NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
    occurred_at INTEGER NOT NULL, received_at INTEGER NOT NULL, body TEXT NOT NULL, content_id TEXT NOT NULL,
    client TEXT NOT NULL, correlation_id TEXT NOT NULL, run_id TEXT, approval_id TEXT, outcome TEXT NOT NULL,
    notify INTEGER NOT NULL, version INTEGER NOT NULL, round INTEGER NOT NULL
);
CREATE UNIQUE INDEX events_key ON events (tenant, key);

CREATE TABLE plans (event INTEGER PRIMARY KEY, plan TEXT NOT NULL);
CREATE TABLE planning (               -- the events whose planning is not finished
    event INTEGER PRIMARY KEY, life INTEGER NOT NULL, until INTEGER NOT NULL
);

CREATE TABLE approvals (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, run_id TEXT NOT NULL, approval_id TEXT NOT NULL, version INTEGER NOT NULL,
    round INTEGER NOT NULL, status TEXT NOT NULL, plan_hash TEXT NOT NULL, required_grants TEXT NOT NULL,
    required_approvals INTEGER NOT NULL, requested_by TEXT NOT NULL, client TEXT NOT NULL,
    requested_at INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, callback_url TEXT,
    sealed_token TEXT, correlation_id TEXT NOT NULL, request TEXT NOT NULL, decisions TEXT NOT NULL,
    ended_at INTEGER, ended_by TEXT, resume TEXT NOT NULL, resume_delivery TEXT, applied TEXT NOT NULL,
    effects TEXT NOT NULL
);
CREATE UNIQUE INDEX approvals_key ON approvals (tenant, run_id, approval_id);
CREATE INDEX approvals_by_tenant ON approvals (tenant);
CREATE INDEX approvals_pending ON approvals (tenant) WHERE status = 'pending';
CREATE INDEX approvals_due ON approvals (expires_at) WHERE status = 'pending';
CREATE INDEX approvals_owing ON approvals (version) WHERE effects <> '[]';

CREATE TABLE incidents (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, run_id TEXT NOT NULL, approval_id TEXT NOT NULL, policy_id TEXT NOT NULL,
    version INTEGER NOT NULL, open INTEGER NOT NULL, occurred_at INTEGER NOT NULL, opened_at INTEGER,
    closed_at INTEGER, request TEXT NOT NULL, applied TEXT NOT NULL
);
CREATE UNIQUE INDEX incidents_key ON incidents (tenant, run_id, approval_id, policy_id);

CREATE TABLE deliveries (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, id TEXT NOT NULL, event_key TEXT NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
    rule TEXT NOT NULL, channel TEXT NOT NULL, channel_type TEXT NOT NULL, lane TEXT NOT NULL, recipient TEXT,
    sealed INTEGER NOT NULL, correlation_id TEXT NOT NULL, created_at INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL, deadline INTEGER NOT NULL, run_id TEXT, approval_id TEXT,
    seq INTEGER NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, attempts TEXT NOT NULL,
    ended_at INTEGER, reason TEXT, lease_owner TEXT, lease_until INTEGER NOT NULL,
    lease_number INTEGER NOT NULL, folded_into TEXT, window TEXT, window_start INTEGER NOT NULL, budget TEXT,
    due_at INTEGER,              -- when an open delivery is due; NULL once it has ended, or while it is held
    life INTEGER NOT NULL        -- the life of the store that gave the lease; 0 for none
);
CREATE UNIQUE INDEX deliveries_id ON deliveries (tenant, id);
CREATE INDEX deliveries_by_tenant ON deliveries (tenant);
CREATE INDEX deliveries_due ON deliveries (lane, tenant, rule, due_at, life, lease_until, deadline)
    WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_order ON deliveries (tenant, run_id, approval_id, seq)
    WHERE due_at IS NOT NULL AND run_id IS NOT NULL;
CREATE INDEX deliveries_window ON deliveries (tenant, window, next_attempt_at) WHERE window IS NOT NULL;
CREATE INDEX deliveries_closing ON deliveries (next_attempt_at, window_start) WHERE window IS NOT NULL;
CREATE INDEX deliveries_budget ON deliveries (tenant, budget, created_at) WHERE budget IS NOT NULL;
CREATE INDEX deliveries_open ON deliveries (tenant) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_dead ON deliveries (tenant, channel) WHERE state = 'dead';

CREATE TABLE messages (delivery INTEGER PRIMARY KEY, message TEXT NOT NULL);

CREATE TABLE audit (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, actor TEXT NOT NULL,
    correlation_id TEXT NOT NULL, run_id TEXT, approval_id TEXT, data TEXT NOT NULL
);
CREATE UNIQUE INDEX audit_id ON audit (tenant, id);
CREATE INDEX audit_by_tenant ON audit (tenant);
CREATE INDEX audit_by_run ON audit (tenant, run_id, approval_id) WHERE run_id IS NOT NULL;
"""

_SECOND: Final = """
CREATE INDEX events_by_age ON events (received_at);
CREATE INDEX approvals_by_age ON approvals (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX incidents_by_age ON incidents (closed_at) WHERE open = 0;
CREATE INDEX deliveries_by_age ON deliveries (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX audit_by_age ON audit (at);
"""

_KEYS_OF: Final = """
CREATE TABLE {0}_keys (hash INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (hash, row)) WITHOUT ROWID;
INSERT INTO {0}_keys (hash, row) SELECT key_hash({1}), rowid FROM {0} INDEXED BY {2} ORDER BY 1, 2;
INSERT INTO key_marks (name, row) SELECT '{0}', coalesce(max(rowid), 0) FROM {0};
DROP INDEX {2};
"""
_THIRD: Final = "\n".join(
    [
        "CREATE TABLE key_marks (name TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;",
        _KEYS_OF.format("events", "key", "events_key"),
        _KEYS_OF.format("deliveries", "id", "deliveries_id"),
        _KEYS_OF.format("audit", "id", "audit_id"),
    ]
)

_FOURTH: Final = "ALTER TABLE deliveries RENAME COLUMN lease_number TO fencing_token;"


def short_key(key: str) -> str:
    """What the unique indexes hold of a derived id, as SQL over a parameter or a column.

    Half of a hex SHA-256, which is 128 bits; an id of any other form whole.
    """
    derived = f"length({key}) = 64 AND {key} NOT GLOB '*[^0-9a-f]*'"
    return f"CASE WHEN {derived} THEN substr({key}, 1, 32) ELSE {key} END"


_INDEX_OF: Final = """
ALTER TABLE {0} ADD COLUMN short_key TEXT AS ({1}) VIRTUAL;
CREATE UNIQUE INDEX {2} ON {0} (tenant, short_key);
DROP TABLE {0}_keys;
"""
_FIFTH: Final = "\n".join(
    [
        _INDEX_OF.format("events", short_key("key"), "events_key"),
        _INDEX_OF.format("deliveries", short_key("id"), "deliveries_id"),
        _INDEX_OF.format("audit", short_key("id"), "audit_id"),
        "DROP TABLE key_marks;",
    ]
)

# In the order of time, so that a new line goes where the last one went. A line that is written again has one time.
_SIXTH: Final = """
DROP INDEX audit_id;
CREATE UNIQUE INDEX audit_id ON audit (tenant, at, short_key);
"""

_SEVENTH: Final = """
ALTER TABLE approvals ADD COLUMN effects_due_at INTEGER;  -- NULL where none is owed
ALTER TABLE approvals ADD COLUMN dead_effects INTEGER NOT NULL DEFAULT 0;
UPDATE approvals SET effects_due_at = 0 WHERE effects <> '[]';
DROP INDEX approvals_owing;
CREATE INDEX approvals_owing ON approvals (effects_due_at) WHERE effects_due_at IS NOT NULL;
CREATE INDEX approvals_dead_effects ON approvals (tenant) WHERE dead_effects > 0;
"""

# The ids of the keys of keys.seal that rows may be sealed under, as JSON; NULL where they were never noted.
_EIGHTH: Final = "ALTER TABLE store ADD COLUMN seal_keys TEXT;"

_NINTH: Final = "ALTER TABLE approvals ADD COLUMN owner TEXT NOT NULL DEFAULT '';"

# By which contents of events are told apart that came under earlier keys: sealed, as JSON, by key id.
_TENTH: Final = "ALTER TABLE store ADD COLUMN identity_keys TEXT NOT NULL DEFAULT '{}';"

# What lists are read by: one index for all filters of a list, whose rows are in the order of their rowids for each
# channel and state, or status. See `paging.py`.
_ELEVENTH: Final = """
DROP INDEX deliveries_by_tenant;
DROP INDEX deliveries_open;
CREATE INDEX deliveries_listed ON deliveries (tenant, channel, state);
DROP INDEX approvals_by_tenant;
DROP INDEX approvals_pending;
CREATE INDEX approvals_listed ON approvals (tenant, status);
"""

_IF_JSON: Final = "CASE WHEN json_valid({0}) THEN {0} ELSE '[]' END"
"""A column whose text json_each takes, whatever it holds: one row must not end a migration."""

# What was decided in earlier rounds gets a table of its own. Which events an approval or an incident has been
# through is not kept beside the events any more: an approval keeps when its plan was last asked for.
_ROUNDS: Final = """
CREATE TABLE decisions (              -- those of earlier rounds, oldest first
    rowid INTEGER PRIMARY KEY,
    approval INTEGER NOT NULL, actor TEXT NOT NULL, plan_hash TEXT NOT NULL, decision TEXT NOT NULL
);
INSERT INTO decisions (approval, actor, plan_hash, decision)
SELECT approvals.rowid, json_extract(value, '$.actor'), json_extract(value, '$.plan_hash'), value
FROM approvals, json_each({decisions}) WHERE {earlier} ORDER BY approvals.rowid, key;
CREATE INDEX decisions_superseded ON decisions (approval, actor, plan_hash);
UPDATE approvals SET decisions = (
    SELECT json_group_array(CASE WHEN type = 'object' THEN json(value) ELSE value END)
    FROM json_each(decisions) WHERE NOT {earlier}
)
WHERE rowid IN (SELECT approval FROM decisions);
ALTER TABLE approvals ADD COLUMN heard_again_at INTEGER NOT NULL DEFAULT 0;
UPDATE approvals SET heard_again_at = (
    SELECT max(coalesce(json_extract(value, '$.occurred_at'), 0)) FROM json_each({applied})
    WHERE type = 'object' AND json_extract(value, '$.round') = round
)
WHERE EXISTS (
    SELECT 1 FROM json_each({applied}) WHERE type = 'object'
    AND json_extract(value, '$.round') = round AND json_extract(value, '$.occurred_at') > requested_at
);
ALTER TABLE approvals DROP COLUMN applied;
ALTER TABLE incidents DROP COLUMN applied;
"""
_TWELFTH: Final = _ROUNDS.format(
    decisions=_IF_JSON.format("decisions"),
    applied=_IF_JSON.format("applied"),
    # A decision that has no actor or plan stays where it is: its approval is set aside.
    earlier="""coalesce(CASE WHEN type = 'object' THEN json_extract(value, '$.round') <> round
    AND json_extract(value, '$.actor') IS NOT NULL AND json_extract(value, '$.plan_hash') IS NOT NULL END, 0)""",
)

# An older notifyd would not count by groups.
_THIRTEENTH: Final = "ALTER TABLE approvals ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';"

# An older notifyd would approve without what was to be filled in.
_FOURTEENTH: Final = "ALTER TABLE approvals ADD COLUMN inputs TEXT NOT NULL DEFAULT '[]';"

_FIFTEENTH: Final = """
ALTER TABLE approvals ADD COLUMN timer_at INTEGER;  -- NULL where no reminder or escalation is to come
ALTER TABLE approvals ADD COLUMN timed_until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX approvals_timed ON approvals (timer_at) WHERE status = 'pending' AND timer_at IS NOT NULL;
"""

_SIXTEENTH: Final = "ALTER TABLE approvals ADD COLUMN receipt TEXT NOT NULL DEFAULT '';"

# A line of the audit trail bears the number of the seal over it, 0 until there is one.
_SEVENTEENTH: Final = """
ALTER TABLE audit ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
CREATE INDEX audit_sealed ON audit (seal, tenant);
CREATE TABLE audit_seals (
    rowid INTEGER PRIMARY KEY, tenant TEXT NOT NULL, number INTEGER NOT NULL, envelope TEXT NOT NULL
);
CREATE UNIQUE INDEX audit_seals_key ON audit_seals (tenant, number);
"""

_EIGHTEENTH: Final = "CREATE INDEX incidents_listed ON incidents (tenant, open);"

_NINETEENTH: Final = """
ALTER TABLE deliveries ADD COLUMN answer_ref TEXT;  -- NULL where it takes no answers
CREATE INDEX deliveries_answered ON deliveries (answer_ref) WHERE answer_ref IS NOT NULL;
CREATE TABLE channel_state (
    channel TEXT NOT NULL, name TEXT NOT NULL, sealed TEXT NOT NULL, PRIMARY KEY (channel, name)
) WITHOUT ROWID;
"""

_TWENTIETH: Final = """
ALTER TABLE deliveries ADD COLUMN edits TEXT;
CREATE INDEX deliveries_copies ON deliveries (tenant, run_id, approval_id) WHERE answer_ref IS NOT NULL;
"""

_TWENTY_FIRST: Final = """
CREATE TABLE silences (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, id TEXT NOT NULL, predicate TEXT NOT NULL, reason TEXT NOT NULL, author TEXT NOT NULL,
    created_at INTEGER NOT NULL, starts_at INTEGER NOT NULL, ends_at INTEGER NOT NULL,
    approvals INTEGER NOT NULL, ended_at INTEGER, ended_by TEXT
);
CREATE UNIQUE INDEX silences_id ON silences (tenant, id);
CREATE INDEX silences_listed ON silences (tenant);
CREATE INDEX silences_live ON silences (ends_at);
"""

_TWENTY_SECOND: Final = """
CREATE TABLE deputies (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, id TEXT NOT NULL, person TEXT NOT NULL, deputy TEXT NOT NULL,
    first TEXT NOT NULL, last TEXT NOT NULL, proved INTEGER NOT NULL,
    created_at INTEGER NOT NULL, over_at INTEGER NOT NULL, ended_at INTEGER
);
CREATE UNIQUE INDEX deputies_id ON deputies (tenant, id);
CREATE INDEX deputies_live ON deputies (over_at);
"""

MIGRATIONS: Final[tuple[str, ...]] = (
    _FIRST,
    _SECOND,
    _THIRD,
    _FOURTH,
    _FIFTH,
    _SIXTH,
    _SEVENTH,
    _EIGHTH,
    _NINTH,
    _TENTH,
    _ELEVENTH,
    _TWELFTH,
    _THIRTEENTH,
    _FOURTEENTH,
    _FIFTEENTH,
    _SIXTEENTH,
    _SEVENTEENTH,
    _EIGHTEENTH,
    _NINETEENTH,
    _TWENTIETH,
    _TWENTY_FIRST,
    _TWENTY_SECOND,
)
"""Scripts, oldest first; the file's `user_version` counts those it has been through. Only ever append."""


_FORGET: Final = "DELETE FROM {0} WHERE {1} > (SELECT coalesce(max(rowid), 0) FROM {2})"
FORGET_STRAYS: Final = (
    _FORGET.format("planning", "event", "events"),
    _FORGET.format("plans", "event", "events"),
    _FORGET.format("decisions", "approval", "approvals"),
)
"""Remove the parts of rows that are not there: a row that comes would be given them by its number."""


def check_version(path: Path, upgrade: bool) -> None:
    """Raises as `migrate` does, before anything is written: opened to write, the file would take up its log.

    Raises `StoreOutdatedError` too, for an earlier schema unless it may be upgraded.
    """
    with closing(connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        version = _version(db, path, len(MIGRATIONS))
    if 0 < version < len(MIGRATIONS) and not upgrade:
        raise StoreOutdatedError(path, version, len(MIGRATIONS))


def migrate(db: Connection, path: object, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring the file to the newest schema, each step in a transaction of its own.

    Raises `StoreUnusableError` for a file that a newer notifyd wrote, or that is another program's.
    """
    db.create_function("key_hash", 1, _key_hash, deterministic=True)
    version = _version(db, path, len(migrations))
    for number, script in enumerate(migrations[version:], start=version + 1):
        _step(db, number, script)
    if 0 < version < len(migrations):
        _log.warning("%s: schema %d is now %d, and nothing changes it back", path, version, len(migrations))


def check_shape(db: Connection, path: object) -> None:
    """Raises `StoreUnusableError` where a table or an index of the newest schema is not there."""
    whole = connect(":memory:")
    migrate(whole, path)
    lacking = sorted(_shape(whole) - _shape(db))
    whole.close()
    if lacking:
        raise StoreUnusableError(
            f"{path}: lacks {', '.join(lacking)}: another program has changed it, restore a backup"
        )


def _shape(db: Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master")}


def _key_hash(key: str) -> int:
    """What schemas 3 and 4 looked a key up by."""
    try:
        return int(key[-12:], 16) & (1 << 48) - 1
    except ValueError:
        return crc32(key.encode()) << 16


def _version(db: Connection, path: object, known: int) -> int:
    """The schema's. Raises `StoreUnusableError` for one above `known`, and for another program's file."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and owner != APPLICATION_ID:
        raise StoreUnusableError(f"{path}: an SQLite database, but not one of notifyd's")
    if version > known:
        raise StoreUnusableError(
            f"{path}: written by a newer notifyd (schema {version}; this one knows {known}): "
            "install that version, or restore a backup"
        )
    return version


def _step(db: Connection, number: int, script: str) -> None:
    marks = f"PRAGMA user_version = {number}; PRAGMA application_id = {APPLICATION_ID};"
    try:
        db.executescript(f"BEGIN IMMEDIATE; {script}; {marks} COMMIT;")
    except Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
