"""Refused calls reach the audit trail, bounded, without delaying an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import define, field

from notifyd.errors import StoreError
from notifyd.metrics import Metrics
from notifyd.model import SECOND, AuditName, AuditRecord, Instant, Principal, Via
from notifyd.web.problems import Problem
from notifyd.web.refusals import Refusals
from tests.waiting import until

WRONG = Problem(401, "signature_invalid", "The signature is not valid", "it does not match")
NO_SCOPE = Problem(403, "scope_missing", "A scope is missing", "this needs another")


@define
class Trail:
    """As much of a store as takes audit records, and a clock. `gate` holds the writes back."""

    now: Instant = 0
    fails: bool = False
    gate: asyncio.Event = field(factory=asyncio.Event)
    records: list[AuditRecord] = field(factory=list)
    metrics: Metrics = field(factory=Metrics)

    def clock(self) -> Instant:
        return self.now

    async def write_audit(self, records: list[AuditRecord]) -> None:
        await self.gate.wait()
        if self.fails:
            raise StoreError("the disk is full")
        self.records += records


def refusals(trail: Any) -> Refusals:
    return Refusals(trail, trail.clock, trail.metrics)


def principal(name: str, *tenants: str) -> Principal:
    return Principal(name, Via.CLIENT, frozenset(), frozenset(), tenants)


async def finish(trail: Trail, noted: Refusals) -> list[AuditRecord]:
    trail.gate.set()
    await noted.aclose()
    return trail.records


async def test_a_refusal_says_who_where_why_and_from_where() -> None:
    trail = Trail()
    noted = refusals(trail)
    noted.note(NO_SCOPE, principal("reader", "acme"), "", "/api/v1/audit", "192.0.2.1", "cid-1")
    assert trail.records == []  # not written in the caller's time
    (record,) = await finish(trail, noted)
    assert (record.name, record.tenant, record.actor) == (AuditName.AUTH_REFUSED, "acme", "client:reader")
    assert record.correlation_id == "cid-1"
    assert record.data == {
        "code": "scope_missing",
        "where": "/api/v1/audit",
        "address": "192.0.2.1",
        "count": 1,
    }


async def test_each_code_that_a_caller_can_be_refused_with_is_counted_from_zero() -> None:
    trail = Trail()
    refusals(trail)
    counted = trail.metrics.registry.get_sample_value
    for code in ("unauthenticated", "signature_invalid", "forbidden", "scope_missing", "address_not_allowed"):
        assert counted("notifyd_auth_refused_total", {"code": code}) == 0, code
    assert counted("notifyd_auth_refused_total", {"code": "not_found"}) is None


async def test_a_storm_is_one_record_a_second_for_each_client_and_code() -> None:
    trail = Trail()
    noted = refusals(trail)
    for _ in range(1000):
        noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid")
        noted.note(NO_SCOPE, principal("reader", "acme"), "", "/x", "192.0.2.1", "cid")
    trail.now += SECOND
    noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid")
    records = await finish(trail, noted)
    assert [(r.data["code"], r.data["count"]) for r in records] == [
        ("signature_invalid", 1),
        ("scope_missing", 1),
        ("signature_invalid", 1000),
        ("scope_missing", 999),
    ]
    assert len({record.id for record in records}) == 4
    counted = trail.metrics.registry.get_sample_value
    assert counted("notifyd_auth_refused_total", {"code": "signature_invalid"}) == 1001


async def test_how_often_is_told_within_two_seconds_though_no_further_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifyd.web.refusals.INTERVAL", 1000)  # a millisecond
    trail = Trail()
    trail.gate.set()
    noted = refusals(trail)
    for _ in range(1000):
        noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid")
    await until(lambda: len(trail.records) == 2)
    assert [record.data["count"] for record in trail.records] == [1, 999]
    assert len(await finish(trail, noted)) == 2


async def test_a_clock_that_was_set_back_hides_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    trail = Trail()
    noted = refusals(trail)
    noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid")
    trail.now -= 3600 * SECOND
    noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid")
    assert len(caplog.messages) == 2
    await finish(trail, noted)


@pytest.mark.parametrize("who", [None, principal("operator", "acme", "globex"), principal("idle")])
async def test_what_belongs_to_no_one_tenant_is_the_daemons_affair(who: Principal | None) -> None:
    trail = Trail()
    noted = refusals(trail)
    noted.note(WRONG, who, "", "/x", "192.0.2.1", "cid")
    (record,) = await finish(trail, noted)
    assert record.tenant == ""


async def test_a_store_that_fails_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    trail = Trail(fails=True)
    noted = refusals(trail)
    noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid")
    assert await finish(trail, noted) == []
    assert "the disk is full" in caplog.text


async def test_a_line_names_the_client_that_a_caller_says_it_is_and_why_it_was_refused_how_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trail = Trail()
    noted = refusals(trail)
    late = Problem(401, "signature_invalid", "The signature is not valid", "it is too old")
    for _ in range(3):
        noted.note(late, None, "task-runner", "/x", "192.0.2.1", "cid-1")
        noted.note(WRONG, None, "", "/x", "192.0.2.1", "cid-2")
        trail.now += SECOND // 2
    records = await finish(trail, noted)
    assert caplog.messages == [
        "refused unknown (says it is task-runner) at 192.0.2.1 on /x: signature_invalid: it is too old",
        "refused unknown at 192.0.2.1 on /x: signature_invalid: it does not match",
        "refused unknown (says it is task-runner) at 192.0.2.1 on /x, 2 times: signature_invalid: it is too old",
        "refused unknown at 192.0.2.1 on /x, 2 times: signature_invalid: it does not match",
    ]
    assert [record.data.get("claims") for record in records] == ["task-runner", None, "task-runner", None]
