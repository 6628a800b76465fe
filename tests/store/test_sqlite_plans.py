"""How SQLite looks things up: each query of the way of an event searches an index, none walks a table."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import Reason
from notifyd.model import State, Status
from notifyd.store import (
    Aged,
    ApprovalFilter,
    AuditFilter,
    CollectionName,
    DeliveryFilter,
    LegalHold,
    Page,
    Window,
)
from notifyd.store.sqlite import approvals, audit, deliveries, events, moving, retention, windows
from notifyd.store.sqlite.schema import migrate
from tests.store.makers import (
    HOUR,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    delivery,
    ended,
    event,
    leased,
    opening,
    planned,
)

Query = Callable[[sqlite3.Connection], Any]

WINDOW = Window(TENANT, "w", NOW, NOW, "slack", "slack", 1)


class Recorder(sqlite3.Connection):
    """A connection that keeps the statements it is given, with their values bound as they were."""

    given: list[tuple[str, Any]]

    def execute(self, statement: str, values: Any = (), /) -> sqlite3.Cursor:
        self.given.append((statement, values))
        return super().execute(statement, values)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Recorder]:
    db = Recorder(tmp_path / "notifyd.db", isolation_level=None)
    db.given = []
    migrate(db, tmp_path)
    yield db
    db.close()


def plan_of(db: Recorder, query: Query) -> list[str]:
    """The lines of every statement's plan that tell of a table."""
    db.given.clear()
    query(db)
    steps = []
    for statement, values in list(db.given):
        steps += [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()]
    tables = [step for step in steps if step.startswith(("SEARCH", "SCAN"))]
    ours = ("json_each", "SCAN label", "SCAN CONSTANT ROW")  # lists of values, and no tables
    return [step for step in tables if not any(one in step for one in ours)]


def search_deliveries(state: State | None, channel: str | None = None) -> Query:
    return lambda db: deliveries.search(db, TENANT, DeliveryFilter(state, channel), Page(after=9))


def search_approvals(status: Status | None, run_id: str | None = None) -> Query:
    return lambda db: approvals.search(db, TENANT, ApprovalFilter(status, run_id), Page(after=9))


def looking_for_old(collection: CollectionName, label: str = "") -> Query:
    aged = Aged(collection, NOW, LegalHold.parse(label))
    return lambda db: retention.candidates(db, aged, 10, "9:9")


def removing_old(collection: CollectionName, label: str = "") -> Query:
    found = [retention.Candidate(1, NOW, True)]
    return lambda db: retention.remove(db, Aged(collection, NOW, LegalHold.parse(label)), found)


def dumping(collection: CollectionName) -> Query:
    return lambda db: moving.dump(db, collection, "9", 10)


def reviving_unrendered(db: sqlite3.Connection) -> None:
    deliveries.insert(db, 1, [delivery(state=State.DEAD, reason=Reason.RENDER_FAILED)])
    assert deliveries.revive(db, TENANT, "d1", NOW, NOW + HOUR, "the message")


HOT: dict[str, tuple[Query, set[str]]] = {
    "append": (
        lambda db: events.append(db, 1, append_of(event(), opening(approval()))),
        {"events_key", "approvals_key"},
    ),
    "fix_plan": (
        lambda db: events.fix_plans(db, 1, [planned(event(), delivery())]),
        {"events_key"},
    ),
    "record": (lambda db: deliveries.record(db, 1, ended(leased())), {"deliveries_id"}),
    "renew_leases": (
        lambda db: deliveries.renew_leases(db, 1, [leased()], NOW, sending=True),
        {"deliveries_id"},
    ),
    "release": (lambda db: deliveries.release(db, 1, [leased()]), {"deliveries_id"}),
    "due": (
        lambda db: deliveries.due(db, 1, "slack", NOW, 10, ["d1"], overdue_only=False),
        {"deliveries_due"},
    ),
    "overdue": (
        lambda db: deliveries.due(db, 1, "slack", NOW, 10, ["d1"], overdue_only=True),
        {"deliveries_due"},
    ),
    "has_earlier": (lambda db: deliveries.has_earlier(db, delivery(seq=3)), {"deliveries_order"}),
    "delivery": (lambda db: deliveries.find(db, TENANT, "d1"), {"deliveries_id"}),
    "revive": (lambda db: deliveries.revive(db, TENANT, "d1", NOW, NOW + HOUR), {"deliveries_id"}),
    "revive unrendered": (reviving_unrendered, {"deliveries_id"}),
    "event": (lambda db: events.find(db, TENANT, "e1"), {"events_key"}),
    "insert held": (lambda db: deliveries.insert(db, 1, [delivery(window="w")]), {"deliveries_window"}),
    "due_windows": (lambda db: windows.due(db, NOW, 10), {"deliveries_closing"}),
    "window_rows": (lambda db: windows.held(db, WINDOW, 10), {"deliveries_window"}),
    "fold": (lambda db: windows.fold(db, 1, WINDOW, delivery("digest"), ["d1"], NOW), {"deliveries_window"}),
    "let_go": (lambda db: windows.let_go(db, WINDOW, NOW), {"deliveries_window"}),
    "postpone": (lambda db: windows.postpone(db, WINDOW, NOW + HOUR), {"deliveries_window"}),
    "spent": (lambda db: windows.spent(db, TENANT, "b", NOW, 10), {"deliveries_budget"}),
    "replace_approval": (lambda db: approvals.replace(db, approval(version=2)), {"approvals_key"}),
    "complete_effect": (lambda db: approvals.complete_effect(db, approval().key, "x"), {"approvals_key"}),
    "due_approvals": (lambda db: approvals.due(db, NOW, 10), {"approvals_due"}),
    "deliveries": (search_deliveries(None), {"deliveries_by_tenant"}),
    "deliveries sent": (search_deliveries(State.SENT, "slack"), {"deliveries_by_tenant"}),
    "deliveries dead": (search_deliveries(State.DEAD, "slack"), {"deliveries_dead"}),
    "deliveries pending": (search_deliveries(State.PENDING), {"deliveries_open"}),
    "deliveries sending": (search_deliveries(State.SENDING, "slack"), {"deliveries_open"}),
    "approvals": (search_approvals(None), {"approvals_by_tenant"}),
    "approvals pending": (search_approvals(Status.PENDING), {"approvals_pending"}),
    "approvals of a run": (search_approvals(None, "run-1"), {"approvals_key"}),
    "audit": (lambda db: audit.search(db, TENANT, AuditFilter(), Page(after=9)), {"audit_by_tenant"}),
    "audit of a run": (
        lambda db: audit.search(db, TENANT, AuditFilter("run-1", "deploy"), Page(after=9)),
        {"audit_by_run"},
    ),
    **{f"old {one}": (looking_for_old(one), {f"{one}_by_age"}) for one in CollectionName},
    **{
        f"old {one} but those held": (looking_for_old(one, "case=1"), {f"{one}_by_age", "approvals_key"})
        for one in CollectionName
    },
    **{f"remove {one}": (removing_old(one, "case=1"), {"incidents_key"}) for one in CollectionName},
    "remove a delivery": (removing_old(CollectionName.DELIVERIES), {"events_key"}),
    **{f"dump {one}": (dumping(one), set[str]()) for one in CollectionName},
}
"""What is looked up, and the indexes it must go through."""


@pytest.mark.parametrize("name", HOT)
def test_a_look_up_searches_its_index(db: Recorder, name: str) -> None:
    query, indexes = HOT[name]
    if name == "fix_plan":
        events.append(db, 1, append_of(event()))
    steps = plan_of(db, query)
    assert not [step for step in steps if step.startswith("SCAN")]
    used = {index for index in indexes for step in steps if f"INDEX {index} " in f"{step} "}
    assert used == indexes, steps


SMALL: dict[str, tuple[Query, str]] = {
    "backlog": (deliveries.backlog, "deliveries_due"),
    "dead_letters": (deliveries.dead_letters, "deliveries_dead"),
    "outstanding": (approvals.outstanding, "approvals_pending"),
    "owing_approvals": (lambda db: approvals.owing(db, NOW, 10), "approvals_owing"),
    "effect_counts": (approvals.effect_counts, "approvals_dead_effects"),
    "with_dead_effects": (
        lambda db: approvals.with_dead_effects(db, "acme", Page()),
        "approvals_dead_effects",
    ),
}
"""What walks the index over only the rows that are open, dead, pending or owing, never the table."""


@pytest.mark.parametrize("name", SMALL)
def test_a_count_walks_only_the_index_over_what_it_counts(db: Recorder, name: str) -> None:
    query, index = SMALL[name]
    steps = plan_of(db, query)
    assert [step for step in steps if f"INDEX {index}" in step], steps
    assert not [
        step for step in steps if step.startswith("SCAN") and "INDEX" not in step and "every" not in step
    ]


def test_the_queue_of_unplanned_events_is_walked_alone(db: Recorder) -> None:
    assert plan_of(db, lambda db: events.unplanned(db, 1, NOW, 10)) == ["SCAN planning"]


def test_every_index_is_one_that_a_look_up_uses(db: Recorder) -> None:
    events.append(db, 1, append_of(event()))
    indexes = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    used = set().union(*(wanted for _, wanted in HOT.values()), {index for _, index in SMALL.values()})
    assert indexes == used | {"audit_id"}  # which inserts alone look into, and a plan does not tell


def test_claiming_leases_by_rowid(db: Recorder) -> None:
    deliveries.insert(db, 1, [delivery()])
    steps = plan_of(db, lambda db: deliveries.claim(db, 1, NODE, NOW, NOW + HOUR, [1]))
    assert {step.split(" USING ")[1] for step in steps} == {"INTEGER PRIMARY KEY (rowid=?)"}
