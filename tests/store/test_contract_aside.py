"""Rows that do not decode: what is about them says so, everything else goes on, and they stay as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import evolve

from notifyd.errors import UndecodableRowError
from notifyd.model import Approval, ApprovalKey, ResumeStatus, State, Status
from notifyd.store import (
    SEALS,
    Aged,
    Append,
    ApprovalFilter,
    AuditFilter,
    CollectionName,
    DeliveryFilter,
    LegalHold,
    Page,
    Store,
)
from notifyd.store.aside import KEYS
from tests.spoiling import GONE, NO_UTF8, Spoiler
from tests.store.conftest import Deployment
from tests.store.makers import (
    HOUR,
    MINUTE,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    delivery,
    effect,
    ended,
    event,
    find_approval,
    get,
    incident,
    insert,
    leased,
    open_approval,
    open_incident,
    opening,
    planned,
)
from tests.store.test_contract_rounds import ALICE, BOB, three_rounds

DELIVERIES, EVENTS = CollectionName.DELIVERIES, CollectionName.EVENTS
APPROVALS, INCIDENTS, AUDIT = CollectionName.APPROVALS, CollectionName.INCIDENTS, CollectionName.AUDIT

LATER = NOW + HOUR

Faults = list[tuple[str, Any]]

ANY: dict[CollectionName, Faults] = {
    DELIVERIES: [
        ("reason", "of_the_future"),
        ("state", "of_the_future"),
        ("created_at", "soon"),
        ("deadline", 2**62),
        ("seq", 1.5),
        ("message", b"\x00\xff"),
        ("channel", b"\x00\xff"),
        ("lane", b"\x00\xff"),
        ("rule", b"\x00\xff"),
        ("correlation_id", b"\x00\xff"),
    ],
    EVENTS: [
        ("outcome", "of_the_future"),
        ("body", "{trunca"),
        ("body", "[]"),
        ("body", b"{}"),
        ("occurred_at", "soon"),
        ("received_at", 10**18),
        ("version", "first"),
    ],
    APPROVALS: [
        ("status", "of_the_future"),
        ("resume", "of_the_future"),
        ("request", "[]"),
        ("requested_at", "soon"),
        ("round", "first"),
        ("plan_hash", b"\x00\xff"),
    ],
    INCIDENTS: [("request", "{trunca"), ("opened_at", "soon"), ("open", 7)],
    AUDIT: [
        ("name", "of_the_future"),
        ("data", "[]"),
        ("data", "{trunca"),
        ("at", 10**18),
        ("actor", b"\x00\xff"),
    ],
}
SQLITE: dict[CollectionName, Faults] = {
    DELIVERIES: [
        ("attempts", "{trunca"),
        ("attempts", '{"at": 1}'),
        ("attempts", '[{"at": 1}]'),
        ("rule", NO_UTF8),
        ("lane", NO_UTF8),
        ("channel", NO_UTF8),
        ("message", NO_UTF8),
        ("message", GONE),
        ("sealed", 7),
    ],
    EVENTS: [("plan", "{trunca"), ("plan", "[{}]"), ("plan", b"[]"), ("body", NO_UTF8), ("kind", NO_UTF8)],
    APPROVALS: [
        ("effects", '[{"id": "1", "kind": "of_the_future", "data": {}}]'),
        ("decisions", "[1]"),
        ("required_grants", '"Packs.Approve"'),
        ("client", NO_UTF8),
    ],
    INCIDENTS: [("request", NO_UTF8)],
    AUDIT: [("actor", NO_UTF8)],
}
MONGO: dict[CollectionName, Faults] = {
    DELIVERIES: [
        ("attempts", [{"at": 1}]),
        ("attempts", None),
        ("fencing_token", "first"),
        ("message", None),
        ("message", GONE),
        ("lane", GONE),
        ("rule", GONE),
        ("rule", 5),
        ("sealed", 7),
    ],
    EVENTS: [("plan", "soon"), ("plan", [{}]), ("body", None), ("body", GONE), ("kind", GONE)],
    APPROVALS: [
        ("effects", [{"id": "1", "kind": "of_the_future", "data": "{}"}]),
        ("effects", [{"id": "1", "kind": "audit", "data": "{trunca"}]),
        ("decisions", [1]),
        ("required_grants", "Packs.Approve"),
        ("client", None),
        ("version", 1.5),
    ],
    INCIDENTS: [("request", GONE)],
    AUDIT: [("actor", GONE)],
}


@pytest.fixture
def spoiler(deployment: Deployment, store: Store) -> Spoiler:
    return Spoiler(deployment.url)


def faults(spoiler: Spoiler, collection: CollectionName) -> Faults:
    return ANY[collection] + (SQLITE if spoiler.sqlite else MONGO)[collection]


async def aside(store: Store, collection: CollectionName) -> list[str]:
    """The rows of a collection that are set aside."""
    return sorted(str(row) for row in await store.undecodable() if row.table == collection)


def named(told: str, *parts: str) -> bool:
    return all(part in told for part in parts) and "of_the_future" not in told and "trunca" not in told


# --- every table -------------------------------------------------------------------------------------------


async def test_deliveries_that_do_not_decode_are_left_as_they_are_and_all_others_are_claimed(
    store: Store, spoiler: Spoiler, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {f"bad-{number}": fault for number, fault in enumerate(faults(spoiler, DELIVERIES))}
    good = [f"good-{number}" for number in range(5)]
    for number, name in enumerate([*bad, *good]):  # what cannot be read comes first
        await insert(store, delivery(name, next_attempt_at=NOW + number, approval_id=name))
    kept = {}
    for name, (member, value) in bad.items():
        spoiler.spoil(DELIVERIES, {"id": name}, member, value)
        kept[name] = spoiler.value(DELIVERIES, {"id": name}, member)

    assert {one.lane for one in await store.backlog()} == {"slack"}
    assert sorted([row async for row in claimed(store)]) == good
    assert [one.waiting for one in await store.backlog()] == [len(good)]
    listed, after = await store.deliveries(TENANT, DeliveryFilter(), Page(200))
    unread = [name for name, (member, _) in bad.items() if member == "message"]
    assert (sorted(row.id for row in listed), after) == (sorted(unread + good), None)
    for name, (member, _) in bad.items():
        with pytest.raises(UndecodableRowError) as told:
            await store.delivery(TENANT, name)
        assert named(told.value.detail, "deliveries row ", f"(tenant acme, id {name})", member)
        assert spoiler.value(DELIVERIES, {"id": name}, member) == kept[name]
    assert len(await aside(store, DELIVERIES)) == len(bad)
    lines = [line for line in caplog.messages if line.startswith("set aside: deliveries")]
    assert len(lines) == len(bad) == len({*lines})


async def test_a_delivery_that_is_repaired_is_claimed_and_one_that_is_removed_is_forgotten(
    store: Store, spoiler: Spoiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("repaired", "removed"):
        await insert(store, delivery(name))
        spoiler.spoil(DELIVERIES, {"id": name}, "reason", "of_the_future")
    assert [row async for row in claimed(store)] == []
    assert len(await aside(store, DELIVERIES)) == 2
    spoiler.spoil(DELIVERIES, {"id": "repaired"}, "reason", None)
    spoiler.remove(DELIVERIES, {"id": "removed"})
    with monkeypatch.context() as soon:
        soon.setattr("notifyd.store.aside.AGAIN", 0)
        assert await aside(store, DELIVERIES) == []
    assert [row async for row in claimed(store, LATER + 2 * HOUR)] == ["repaired"]


async def test_a_row_that_a_step_can_do_nothing_with_is_passed_over_for_a_while_and_then_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await insert(store, delivery("odd"), delivery("good", approval_id="other"))
    await store.append(append_of(event()))
    await open_approval(store, approval(expires_at=NOW))
    for row in (delivery("odd"), event(), approval()):
        assert await store.set_aside(row, "is odd")
        assert not await store.set_aside(row, "is odd")
    assert await store.set_aside(delivery("nowhere"), "is odd")
    assert [row async for row in claimed(store)] == ["good"]
    assert await store.due_approvals(LATER, 10) == []
    assert [one.key for one in await store.claim_unplanned(NODE, LATER, LATER + HOUR, 10)] != ["e1"]
    assert len([line for line in caplog.messages if line.endswith("is odd")]) == 3
    assert await store.delivery(TENANT, "odd")  # reading it is not what goes wrong
    listed, _ = await store.deliveries(TENANT, DeliveryFilter(), Page())
    assert {row.id for row in listed} == {"odd", "good"}
    assert len(await store.undecodable()) == 3
    monkeypatch.setattr("notifyd.store.aside.AGAIN", 0)
    assert await store.undecodable() == []


async def test_what_waits_behind_a_delivery_that_does_not_decode_waits_no_longer(
    store: Store, spoiler: Spoiler
) -> None:
    await insert(store, delivery("first", seq=1), delivery("second", seq=2))
    spoiler.spoil(DELIVERIES, {"id": "first"}, "reason", "of_the_future")
    second = delivery("second", seq=2)
    assert await store.has_earlier(second)
    assert [row async for row in claimed(store)] == ["second"]
    assert not await store.has_earlier(second)


async def test_a_window_is_closed_without_the_rows_that_do_not_decode(store: Store, spoiler: Spoiler) -> None:
    held = {"window": "w", "window_start": NOW, "next_attempt_at": NOW + MINUTE}
    names = ["reason", "channel", "next_attempt_at", "window_start", "good", "better"]
    await insert(store, *(delivery(name, **held) for name in names))
    await insert(store, delivery("alone", **held | {"window": "of its own"}))
    spoiler.spoil(DELIVERIES, {"id": "reason"}, "reason", "of_the_future")
    spoiler.spoil(DELIVERIES, {"id": "channel"}, "channel", b"\xff")
    spoiler.spoil(DELIVERIES, {"id": "next_attempt_at"}, "next_attempt_at", "soon")
    spoiler.spoil(DELIVERIES, {"id": "window_start"}, "window_start", "soon")
    spoiler.spoil(DELIVERIES, {"id": "alone"}, "message", b"\xff")
    await insert(store, delivery("joined", **held))
    assert (await store.delivery(TENANT, "joined")) == delivery("joined", **held)

    (window,) = await store.due_windows(LATER, 10)
    assert (window.key, window.start, window.closes_at) == ("w", NOW, NOW + MINUTE)
    rows = await store.window_rows(window, 10)
    assert [row.id for row in rows] == ["good", "better", "joined"]
    assert await store.fold(window, delivery("digest"), None) == 3
    assert await store.due_windows(LATER, 10) == []
    assert spoiler.value(DELIVERIES, {"id": "reason"}, "state") == "pending"


async def test_a_budget_is_counted_without_what_is_no_time(store: Store, spoiler: Spoiler) -> None:
    await insert(store, delivery("good", budget="b"), delivery("bad", budget="b"))
    spoiler.spoil(DELIVERIES, {"id": "bad"}, "created_at", "soon")
    assert await store.spent(TENANT, "b", NOW - HOUR, 10) == [NOW]


async def test_events_that_do_not_decode_are_planned_by_nobody_and_all_others_are(
    store: Store, spoiler: Spoiler
) -> None:
    bad = {f"bad-{number}": fault for number, fault in enumerate(faults(spoiler, EVENTS))}
    good = [f"good-{number}" for number in range(5)]
    for name in (*bad, *good):
        await store.append(append_of(event(name)))
    for name, (member, value) in bad.items():
        if member == "plan":
            await store.fix_plans([planned(event(name))])
        spoiler.spoil(EVENTS, {"key": name}, member, value)

    unplanned = []
    while found := await store.claim_unplanned(NODE, LATER, LATER + HOUR, 3, size=10**6):
        unplanned += [one.key for one in found]
    assert sorted(unplanned) == good
    for name, (member, _) in bad.items():
        with pytest.raises(UndecodableRowError) as told:
            await store.event(TENANT, name)
        assert named(told.value.detail, "events row ", f"(tenant acme, key {name})", member)
        with pytest.raises(UndecodableRowError):  # it is known: whether it is the same nobody can say
            await store.append(append_of(event(name)))
        with pytest.raises(UndecodableRowError):
            await store.append_all([append_of(event("fresh")), append_of(event(name))])
    assert await store.event(TENANT, "fresh") is None
    assert len(await aside(store, EVENTS)) == len(bad)


async def test_approvals_that_do_not_decode_are_never_overwritten_and_all_others_end(
    store: Store, spoiler: Spoiler
) -> None:
    bad = {f"bad-{number}": fault for number, fault in enumerate(faults(spoiler, APPROVALS))}
    good = [f"good-{number}" for number in range(3)]
    for name in (*bad, *good):
        owing = {"effects": (evolve(effect("n"), dead_at=NOW), effect("m"))}
        await open_approval(store, approval(approval_id=name, expires_at=NOW, **owing))
    kept = {}
    for name, (member, value) in bad.items():
        spoiler.spoil(APPROVALS, {"approval_id": name}, member, value)
        kept[name] = spoiler.value(APPROVALS, {"approval_id": name}, member)

    for found in (await store.due_approvals(LATER, 2), await store.owing_approvals(LATER, 2)):
        assert {one.approval_id for one in found} <= {*good}
        assert found
    for listed in (
        await store.approvals(TENANT, ApprovalFilter(), Page(200)),
        await store.approvals(TENANT, ApprovalFilter(Status.PENDING, "run-1"), Page(200)),
        await store.with_dead_effects(TENANT, Page(200)),
    ):
        assert sorted(one.approval_id for one in listed[0]) == good
    for name, (member, _) in bad.items():
        key = ApprovalKey(TENANT, "run-1", name)
        with pytest.raises(UndecodableRowError) as told:
            await store.approval(key)
        assert named(told.value.detail, "approvals row ", f"run_id run-1, approval_id {name}", member)
        again = Append(event("again", approval_id=name), key, lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
        with pytest.raises(UndecodableRowError):
            await store.append(again)
        with pytest.raises(UndecodableRowError):
            await store.complete_effect(key, "m")
        assert spoiler.value(APPROVALS, {"approval_id": name}, member) == kept[name]
    assert await store.event(TENANT, "again") is None
    assert sum((await store.outstanding()).values()) == len(good) + sum(
        m != "status" for m, _ in bad.values()
    )
    assert len(await aside(store, APPROVALS)) == len(bad)


async def test_votes_of_earlier_rounds_that_do_not_decode_are_left_out_and_never_repeated(
    store: Store, spoiler: Spoiler
) -> None:
    third, earlier = await three_rounds(store)
    fault = ("decision", "{trunca") if spoiler.sqlite else ("choice", "of_the_future")
    spoiler.spoil("decisions", {"actor": BOB}, *fault)
    assert await store.superseded(third.key, 10) == [one for one in earlier if one.actor != BOB]
    assert await store.superseded_by(third.key, ALICE, "sha256:00") == earlier[:1]
    with pytest.raises(UndecodableRowError) as told:
        await store.superseded_by(third.key, BOB, "sha256:00")
    assert named(told.value.detail, "decisions row ", "run_id run-1", f"actor {BOB}", fault[0])
    assert await find_approval(store) == third
    (row,), _ = await store.dump(APPROVALS, "", 10)
    assert isinstance(row, Approval)
    assert [one.actor for one in row.decisions] == [ALICE, ALICE, BOB]


async def test_a_callback_ends_though_its_approval_does_not_decode_and_that_learns_of_it(
    store: Store, spoiler: Spoiler
) -> None:
    waiting = {"resume": ResumeStatus.QUEUED, "resume_delivery": "d1"}
    await open_approval(store, approval(**waiting))
    await insert(store, leased())
    spoiler.spoil(APPROVALS, {"run_id": "run-1"}, "request", "{trunca")
    record = evolve(ended(leased()), resume=ResumeStatus.DELIVERED, audit=(audit_record(),))
    assert await store.record(record)
    assert await store.record(record)
    assert (await get(store, leased())).state is State.SENT
    spoiler.spoil(APPROVALS, {"run_id": "run-1"}, "request", "{}")
    found = await store.approval(approval().key)
    assert found == approval(resume=ResumeStatus.DELIVERED, resume_delivery="d1", version=2)


async def test_incidents_that_do_not_decode_are_never_overwritten(store: Store, spoiler: Spoiler) -> None:
    for number, (member, value) in enumerate(faults(spoiler, INCIDENTS)):
        given = incident(approval_id=f"bad-{number}")
        await open_incident(store, given, f"e{number}")
        spoiler.spoil(INCIDENTS, {"approval_id": given.approval_id}, member, value)
        kept = spoiler.value(INCIDENTS, {"approval_id": given.approval_id}, member)
        with pytest.raises(UndecodableRowError) as told:
            await open_incident(store, given, f"again-{number}")
        assert named(told.value.detail, "incidents row ", f"{given.approval_id}, policy_id prod", member)
        assert spoiler.value(INCIDENTS, {"approval_id": given.approval_id}, member) == kept
    assert len(await aside(store, INCIDENTS)) == len(faults(spoiler, INCIDENTS))


async def test_the_trail_is_shown_without_the_lines_that_do_not_decode(
    store: Store, spoiler: Spoiler
) -> None:
    bad = faults(spoiler, AUDIT)
    await store.write_audit([audit_record(f"bad-{number}") for number in range(len(bad))])
    await store.write_audit([audit_record("good")])
    for number, (member, value) in enumerate(bad):
        spoiler.spoil(AUDIT, {"id": f"bad-{number}"}, member, value)
    for where in (AuditFilter(), AuditFilter("run-1", "deploy")):
        shown, after = await store.audit(TENANT, where, Page(200))
        assert ([record.id for record in shown], after) == (["good"], None)
    first, after = await store.audit(TENANT, AuditFilter(), Page(1))
    assert [record.id for record in first] == ["good"]
    assert (await store.audit(TENANT, AuditFilter(), Page(1, after)))[0] == []
    await store.write_audit([audit_record("bad-0")])
    assert len(await aside(store, AUDIT)) == len(bad)


# --- upkeep ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", CollectionName)
async def test_an_export_has_all_rows_but_those_that_do_not_decode_and_names_these(
    store: Store, spoiler: Spoiler, collection: CollectionName
) -> None:
    key = await one_of_each(store, spoiler, collection)
    rows, after = await store.dump(collection, "", 100)
    assert len(rows) == 1
    assert after == (SEALS if collection is CollectionName.AUDIT else None)
    assert (await store.dump(collection, "", 1))[1] is not None
    (told,) = await aside(store, collection)
    assert key in told


async def one_of_each(store: Store, spoiler: Spoiler, collection: CollectionName) -> str:
    """A good row of a collection, and a bad one: the bad one's key."""
    for name in ("good", "bad"):
        await store.append(append_of(event(name), opening(approval(approval_id=name))))
        await open_incident(store, incident(approval_id=name), f"hold-{name}")
        await insert(store, delivery(name))
        await store.write_audit([audit_record(name)])
    if collection is EVENTS:
        for name in ("hold-good", "hold-bad"):
            spoiler.remove(EVENTS, {"key": name})
    member, value = faults(spoiler, collection)[0]
    column = KEYS[collection][-1] if collection not in (APPROVALS, INCIDENTS) else "approval_id"
    spoiler.spoil(collection, {column: "bad"}, member, value)
    return "bad"


async def test_rows_that_do_not_decode_are_removed_by_age_and_forgotten(
    store: Store, spoiler: Spoiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = delivery("old", state=State.DEAD, ended_at=NOW)
    await insert(store, over)
    spoiler.spoil(DELIVERIES, {"id": "old"}, "reason", "of_the_future")
    assert await store.deliveries(TENANT, DeliveryFilter(State.DEAD), Page()) == ([], None)
    assert (await store.purge(Aged(DELIVERIES, LATER), 10)).removed == 1
    monkeypatch.setattr("notifyd.store.aside.AGAIN", 0)
    assert await store.undecodable() == []


async def test_a_legal_hold_keeps_what_belongs_to_an_approval_whose_labels_cannot_be_read(
    store: Store, spoiler: Spoiler
) -> None:
    for name in ("bad", "free"):
        over = {"approval_id": name, "status": Status.APPROVED, "ended_at": NOW}
        await open_approval(store, approval(**over))
    spoiler.spoil(APPROVALS, {"approval_id": "bad"}, "request", "{trunca")
    hold = LegalHold.parse("keep")
    assert (await store.purge(Aged(APPROVALS, LATER, hold), 10)).removed == 1
    assert spoiler.value(APPROVALS, {"approval_id": "bad"}, "status") == "approved"
    assert (await store.purge(Aged(APPROVALS, LATER), 10)).removed == 1


async def test_keys_are_counted_past_texts_that_are_none(store: Store, spoiler: Spoiler) -> None:
    await insert(store, delivery("bad", sealed=True), delivery("good", sealed=True, message="head.rest"))
    spoiler.spoil(DELIVERIES, {"id": "bad"}, "message", b"\xff.\xff")
    await open_approval(store, approval())
    spoiler.spoil(APPROVALS, {"run_id": "run-1"}, "sealed_token", b"\xff.\xff")
    for collection, headers in ((DELIVERIES, ["head"]), (APPROVALS, [])):
        rows, _ = await store.sealed_rows(collection, "", 10)
        assert [row.header for row in rows] == headers


async def claimed(store: Store, now: int = LATER) -> AsyncIterator[str]:
    """Claim what is due, in small batches, until there is no more."""
    while rows := await store.claim_due("slack", NODE, now, now + MINUTE, 3, horizon=now + HOUR, size=10**6):
        for row in rows:
            yield row.id
