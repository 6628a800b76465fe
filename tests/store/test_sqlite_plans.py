"""How SQLite looks things up: each query of the way of an event searches an index, none walks a table."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import Reason
from notifyd.model import AuditSeal, State, Status
from notifyd.store import (
    Aged,
    ApprovalFilter,
    AuditFilter,
    CollectionName,
    DeliveryFilter,
    IncidentFilter,
    LegalHold,
    Page,
    Window,
)
from notifyd.store.aside import SetAside
from notifyd.store.sqlite import (
    approvals,
    audit,
    audit_seals,
    deliveries,
    deputies,
    events,
    moving,
    retention,
    silences,
    windows,
)
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.schema import migrate
from tests.store.makers import (
    HOUR,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    decision,
    delivery,
    ended,
    event,
    leased,
    opening,
    planned,
)

Query = Callable[[Database], Any]

WINDOW = Window(TENANT, "w", NOW, NOW, "slack", "slack", 1)


class Recorder(Database):
    """A connection that keeps the statements it is given, with their values bound as they were."""

    given: list[tuple[str, Any]]

    def execute(self, statement: str, values: Any = (), /) -> sqlite3.Cursor:
        self.given.append((statement, values))
        return super().execute(statement, values)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Recorder]:
    db = Recorder(tmp_path / "notifyd.db", isolation_level=None)
    db.given = []
    db.aside = SetAside()
    migrate(db, tmp_path)
    yield db
    db.close()


def plan_of(db: Recorder, query: Query) -> list[str]:
    """The lines of every statement's plan that tell of a table."""
    db.given.clear()
    query(db)
    tables = [step for step in explained(db) if step.startswith(("SEARCH", "SCAN"))]
    ours = (
        "json_each",
        "SCAN label",
        "SCAN shown",
        "SCAN (subquery",
        "SCAN CONSTANT ROW",
    )  # lists of values, and no tables
    return [step for step in tables if not any(one in step for one in ours)]


def explained(db: Recorder) -> list[str]:
    """Every line of the plans of what was given."""
    given = [one for one in db.given if not one[0].startswith(("BEGIN", "ROLLBACK", "EXPLAIN"))]
    explain = "EXPLAIN QUERY PLAN "
    return [row[3] for text, values in given for row in db.execute(explain + text, values).fetchall()]


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


def reviving_unrendered(db: Database) -> None:
    deliveries.insert(db, 1, [delivery(state=State.DEAD, reason=Reason.RENDER_FAILED)])
    assert deliveries.revive(db, TENANT, "d1", NOW, NOW + HOUR, "the message")


def search_audit(run_id: str | None, approval_id: str | None) -> Query:
    return lambda db: audit.search(db, TENANT, AuditFilter(run_id, approval_id), Page(after=9))


LISTS: dict[str, tuple[Query, str]] = {
    **{
        f"deliveries by {state} and {channel}": (search_deliveries(state, channel), "deliveries_listed")
        for state in (None, *State)
        for channel in (None, "slack", "unknown")
    },
    **{
        f"approvals by {status}": (search_approvals(status), "approvals_listed") for status in (None, *Status)
    },
    **{
        f"approvals by {status} of a run": (search_approvals(status, "run-1"), "approvals_key")
        for status in (None, *Status)
    },
    "incidents": (
        lambda db: approvals.incidents(db, TENANT, IncidentFilter(), Page(after=9)),
        "incidents_listed",
    ),
    "silences": (lambda db: silences.search(db, TENANT, Page(after=9)), "silences_listed"),
    "audit": (search_audit(None, None), "audit_by_tenant"),
    "audit of a run": (search_audit("run-1", None), "audit_by_run"),
    "audit of an approval": (search_audit("run-1", "deploy"), "audit_by_run"),
    "audit of an approval's name": (search_audit(None, "deploy"), "audit_by_tenant"),
    "dead effects": (
        lambda db: approvals.with_dead_effects(db, TENANT, Page(after=9)),
        "approvals_dead_effects",
    ),
    "a dead effect": (
        lambda db: approvals.with_dead_effect(db, TENANT, "x1"),
        "approvals_dead_effects",
    ),
}
"""Each list, by each combination of the filters that it takes, and the index that it walks."""

SORTED = {name for name in LISTS if name.endswith("of a run")}
"""Lists of one run, whose rowids are sorted: an index has them in the order of the run's approvals."""


def sealing(db: Database) -> None:
    audit.write(db, [audit_record()])
    assert audit_seals.add(db, AuditSeal(TENANT, 1, "{}"), [audit_record()])
    audit_seals.following(db, TENANT, 0)


HOT: dict[str, tuple[Query, set[str]]] = {
    "answered": (lambda db: deliveries.answered(db, "0" * 32), {"deliveries_answered"}),
    "copies": (lambda db: deliveries.copies(db, approval().key), {"deliveries_copies"}),
    "append": (
        lambda db: events.append(db, 1, append_of(event(), opening(approval()))),
        {"approvals_key"},
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
    "superseded": (lambda db: approvals.superseded(db, approval().key, 5), {"decisions_superseded"}),
    "superseded_by": (
        lambda db: approvals.superseded_by(db, approval().key, "alice@acme.example", "sha256:00"),
        {"decisions_superseded", "approvals_key"},
    ),
    "supersede": (lambda db: approvals.supersede(db, approval().key, [decision()]), {"approvals_key"}),
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
    "outstanding": (approvals.outstanding, {"approvals_listed"}),
    "silences in force": (lambda db: silences.live(db, NOW), {"silences_live"}),
    "end a silence": (lambda db: silences.end(db, TENANT, "s1", NOW, audit_record()), {"silences_id"}),
    "deputies that are not over": (lambda db: deputies.live(db, NOW), {"deputies_live"}),
    "end a deputy": (lambda db: deputies.end(db, TENANT, "p1", NOW, audit_record()), {"deputies_id"}),
    "forget deputies": (lambda db: deputies.forget(db, NOW), {"deputies_live"}),
    "unsealed tenants": (audit_seals.unsealed_tenants, {"audit_sealed"}),
    "unsealed": (lambda db: audit_seals.unsealed(db, TENANT, 10), {"audit_sealed"}),
    "newest seal": (lambda db: audit_seals.newest(db, TENANT), {"audit_seals_key"}),
    "strays": (lambda db: audit_seals.strays(db, TENANT, 9), {"audit_sealed", "audit_seals_key"}),
    "seal": (sealing, {"audit_id", "audit_seals_key", "audit_sealed"}),
    "drop seals": (lambda db: audit_seals.drop(db, TENANT, 1), {"audit_seals_key"}),
    "tenants by age": (lambda db: audit_seals.tenants(db, NOW), {"audit_by_age"}),
    **{name: (query, {index}) for name, (query, index) in LISTS.items()},
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


def test_a_line_is_marked_as_sealed_by_its_whole_key_however_many_are_of_its_time(db: Recorder) -> None:
    steps = plan_of(db, sealing)
    assert "SEARCH audit USING INDEX audit_id (tenant=? AND at=? AND short_key=?)" in steps


@pytest.mark.parametrize("collection", CollectionName)
def test_looking_for_what_is_old_goes_on_among_rows_of_one_age_where_it_was(
    db: Recorder, collection: CollectionName
) -> None:
    first, *_ = plan_of(db, looking_for_old(collection))
    assert f"INDEX {collection}_by_age (" in first
    assert first.endswith("=? AND rowid>?)")


@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_its_index_newest_first_and_no_row_that_it_does_not_show(
    db: Recorder, name: str
) -> None:
    query, index = LISTS[name]
    deliveries.insert(db, 1, [delivery(f"d-{state}", state=state) for state in State])
    steps = [step for step in plan_of(db, query) if "rowid=?" not in step]
    assert steps
    assert all(step.startswith("SEARCH") and index in step for step in steps), steps
    sorts = [step for step in explained(db) if "TEMP B-TREE" in step]
    assert bool(sorts) == (name in SORTED), sorts


SMALL: dict[str, tuple[Query, str]] = {
    "backlog": (deliveries.backlog, "deliveries_due"),
    "waits": (lambda db: deliveries.waits(db, NOW), "deliveries_due"),
    "dead_letters": (deliveries.dead_letters, "deliveries_dead"),
    "owing_approvals": (lambda db: approvals.owing(db, NOW, 10), "approvals_owing"),
    "owing_far": (lambda db: approvals.owing_far(db, NOW, 10), "approvals_owing"),
    "timed_approvals": (lambda db: approvals.timed(db, NOW, 10), "approvals_timed"),
    "effect_counts": (approvals.effect_counts, "approvals_dead_effects"),
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
    assert indexes == used


def test_claiming_leases_by_rowid(db: Recorder) -> None:
    deliveries.insert(db, 1, [delivery()])
    steps = plan_of(db, lambda db: deliveries.claim(db, 1, NODE, NOW, NOW + HOUR, [1]))
    assert {step.split(" USING ")[1].removesuffix(" LEFT-JOIN") for step in steps} == {
        "INTEGER PRIMARY KEY (rowid=?)"
    }
