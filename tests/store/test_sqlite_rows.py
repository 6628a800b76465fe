"""Records survive the way into a row and back, whatever they hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from inspect import get_annotations
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.errors import Reason
from notifyd.model import (
    Approval,
    Attempt,
    AttemptOutcome,
    AuditName,
    AuditRecord,
    Choice,
    Decision,
    Delivery,
    Effect,
    EffectKind,
    Event,
    Group,
    Incident,
    Input,
    InputType,
    Outcome,
    PlanEntry,
    ResumeStatus,
    State,
    Status,
    Via,
)
from notifyd.store.sqlite import rows
from tests.store.makers import delivery

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
maybe_text = st.none() | text
whole = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)  # years 1 to 9999, in microseconds
maybe_whole = st.none() | whole
flag = st.booleans()
json = st.recursive(
    st.none() | flag | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
data = st.dictionaries(text, json, max_size=3)
objects_as_text = data.map(lambda members: orjson.dumps(members).decode())


def few(record: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(record, max_size=3).map(tuple)


plan_entries = st.builds(PlanEntry, text, text, text, text, maybe_text, flag, text, text)
decisions = st.builds(
    Decision,
    text,
    text,
    st.sampled_from(Choice),
    text,
    whole,
    whole,
    text,
    st.sampled_from(Via),
    text,
    text,
    text,
)
effects = st.builds(Effect, text, st.sampled_from(EffectKind), data)
attempts = st.builds(
    Attempt,
    whole,
    st.floats(0, 1e9),
    st.sampled_from(AttemptOutcome),
    st.none() | st.sampled_from(Reason),
    st.none() | st.integers(100, 599),
    text,
    text,
)

BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": text,
    "str | None": maybe_text,
    "Instant": whole,
    "Instant | None": maybe_whole,
    "int": whole,
    "bool": flag,
    "tuple[str, ...]": few(text),
    "tuple[PlanEntry, ...] | None": st.none() | few(plan_entries),
    "tuple[Decision, ...]": few(decisions),
    "tuple[Effect, ...]": few(effects),
    "tuple[Attempt, ...]": few(attempts),
    "tuple[Group, ...]": few(st.builds(Group, text, text, whole)),
    "tuple[Input, ...]": few(
        st.builds(Input, text, text, st.sampled_from(InputType), flag, maybe_text, few(text), json)
    ),
    "Mapping[str, Any]": data,
    "Outcome": st.sampled_from(Outcome),
    "Status": st.sampled_from(Status),
    "State": st.sampled_from(State),
    "ResumeStatus": st.sampled_from(ResumeStatus),
    "Reason | None": st.none() | st.sampled_from(Reason),
    "AuditName": st.sampled_from(AuditName),
}
"""How to make a value of each type that a stored record's field can have."""


def records(record: type[Any]) -> st.SearchStrategy[Any]:
    """Records with every field given, so that one that is not stored is noticed."""
    annotations = get_annotations(record)
    by_name = {name: BY_TYPE[annotations[name]] for name in attrs.fields_dict(record)}
    objects = {name: objects_as_text for name in ("body", "request") if name in by_name}
    return st.builds(record, **by_name | objects)


def through_sqlite(row: rows.Row) -> rows.Row:
    """The row as SQLite gives it back."""
    db = sqlite3.connect(":memory:")
    back: rows.Row = db.execute(f"SELECT {', '.join('?' * len(row))}", row).fetchone()
    db.close()
    return back


def with_plan(event: Event) -> rows.Row:
    return (*rows.event_row(event), None if event.plan is None else rows.plan_text(event.plan))


def with_message(delivery: Delivery) -> rows.Row:
    return (*rows.delivery_row(delivery), delivery.message)


def read_back(approval: Approval) -> rows.Row:
    """The columns that are read: those to search by follow them."""
    return rows.approval_row(approval)[: len(rows.APPROVAL)]


NAMES = ("event", "approval", "incident", "delivery", "audit")
KINDS: list[tuple[type[Any], Callable[[Any], rows.Row], Callable[[rows.Row], Any], tuple[str, ...]]] = [
    (Event, with_plan, rows.EVENTS.decode, (*rows.EVENT, "plan")),
    (Approval, read_back, rows.APPROVALS.decode, rows.APPROVAL),
    (Incident, rows.incident_row, rows.INCIDENTS.decode, rows.INCIDENT),
    (Delivery, with_message, rows.DELIVERIES.decode, (*rows.DELIVERY, "message")),
    (AuditRecord, rows.audit_row, rows.AUDITS.decode, rows.AUDIT),
]


@pytest.mark.parametrize(("record", "row_of", "record_of", "columns"), KINDS, ids=NAMES)
@given(data=st.data())
def test_a_record_comes_back_from_its_row_as_it_was(
    record: type[Any],
    row_of: Callable[[Any], rows.Row],
    record_of: Callable[[rows.Row], Any],
    columns: tuple[str, ...],
    data: st.DataObject,
) -> None:
    given_record = data.draw(records(record))
    back = record_of(through_sqlite(row_of(given_record)))
    assert back == given_record
    assert [type(value) for value in attrs.astuple(back, recurse=False)] == [
        type(value) for value in attrs.astuple(given_record, recurse=False)
    ]


@pytest.mark.parametrize(("record", "columns"), [(kind[0], kind[3]) for kind in KINDS])
def test_a_row_has_a_column_for_every_field(record: type[Any], columns: tuple[str, ...]) -> None:
    assert sorted(columns) == sorted(field.name for field in attrs.fields(record))


@given(attempts)
def test_an_attempt_is_recognised_among_those_of_a_row(attempt: Attempt) -> None:
    row = dict(zip(rows.DELIVERY, rows.delivery_row(_with(attempt)), strict=True))
    assert orjson.loads(row["attempts"]) == [rows.attempt_item(attempt)]


def _with(attempt: Attempt) -> Delivery:
    return delivery(attempts=(attempt,))
