"""What any store does with approvals and the audit trail."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from notifyd.model import AuditName, Group, Input, InputType, Status
from notifyd.store import PAGE_BYTES, ApprovalFilter, AuditFilter, EffectCounts, Page, Store
from notifyd.store.mongo import paging as mongo_paging
from notifyd.store.sqlite import paging as sqlite_paging
from tests.store.makers import (
    HOUR,
    MINUTE,
    NOW,
    TENANT,
    approval,
    audit_record,
    decision,
    effect,
    find_approval,
    open_approval,
)


async def test_an_unknown_approval_is_none(store: Store) -> None:
    assert await store.approval(approval().key) is None


async def test_an_approval_is_replaced_over_the_version_before_it_only(store: Store) -> None:
    await open_approval(store, approval())
    decided = approval(version=2, status=Status.APPROVED, ended_at=NOW, effects=(effect("x1"),))
    assert await store.replace_approval(decided)
    assert not await store.replace_approval(approval(version=2, status=Status.REJECTED))
    assert not await store.replace_approval(approval(version=4))
    assert await find_approval(store) == decided


async def test_an_approval_keeps_its_groups_and_a_decision_those_it_may_count_in(store: Store) -> None:
    groups = (Group("Security", "Packs.Approve.Security", 1), Group("Operations", "ops", 2))
    asked = approval(groups=groups, required_approvals=3)
    await open_approval(store, asked)
    voted = evolve(asked, version=2, decisions=(decision(groups=("Security", "Operations")),))
    assert await store.replace_approval(voted)
    assert await find_approval(store) == voted


async def test_an_approval_keeps_what_it_asks_for_and_a_decision_what_it_fills_in(store: Store) -> None:
    replicas = Input("replicas", "Replicas", InputType.NUMBER, True, None, (), 2**53)
    share = Input("share", "Share", InputType.NUMBER, False, None, (), 0.5)
    region = Input("region", "Region", InputType.CHOICE, False, None, ("eu", "us"), "eu")
    version = Input("$version.x", "Version", InputType.TEXT, False, r"v\d+", (), None)
    asked = approval(inputs=(replicas, share, region, version))
    await open_approval(store, asked)
    filled_in = {"replicas": 3, "share": 0.25, "region": "us", "$version.x": "v1", "drain": True}
    voted = evolve(asked, version=2, decisions=(decision(inputs=filled_in),))
    assert await store.replace_approval(voted)
    assert await find_approval(store) == voted


async def test_replacing_an_unknown_approval_is_refused(store: Store) -> None:
    assert not await store.replace_approval(approval(version=1))
    assert not await store.replace_approval(approval(version=2))
    assert await store.approval(approval().key) is None


async def test_repeating_a_replacement_that_was_done_is_done(store: Store) -> None:
    await open_approval(store, approval())
    assert await store.replace_approval(approval(version=2, status=Status.APPROVED))
    assert await store.replace_approval(approval(version=2, status=Status.APPROVED))


async def test_of_many_that_replace_a_version_one_wins(store: Store) -> None:
    await open_approval(store, approval())
    rivals = [approval(version=2, ended_by=f"rival-{n}") for n in range(10)]
    won = await asyncio.gather(*map(store.replace_approval, rivals))
    assert won.count(True) == 1
    assert (await find_approval(store)).ended_by == f"rival-{won.index(True)}"


async def test_pending_approvals_whose_time_has_come_are_due_the_longest_first(store: Store) -> None:
    for number, minutes in enumerate((3, 1, 2, 5)):
        await open_approval(store, approval(run_id=f"run-{number}", expires_at=NOW + minutes))
    await open_approval(store, approval(run_id="ended", status=Status.APPROVED, expires_at=NOW))
    await open_approval(store, approval(run_id="endless", expires_at=None))
    assert [a.run_id for a in await store.due_approvals(NOW + 3, 10)] == ["run-1", "run-2", "run-0"]
    assert [a.run_id for a in await store.due_approvals(NOW + 3, 2)] == ["run-1", "run-2"]


async def test_an_approval_owes_until_its_last_effect_is_completed(store: Store) -> None:
    await open_approval(store, approval(effects=(effect("x1"), effect("x2"))))
    await open_approval(store, approval(run_id="run-2"))
    assert [a.run_id for a in await store.owing_approvals(NOW, 10)] == ["run-1"]
    await store.complete_effect(approval().key, "x1")
    (owing,) = await store.owing_approvals(NOW, 10)
    assert owing.effects == (effect("x2"),)
    await store.complete_effect(approval().key, "x2")
    assert await store.owing_approvals(NOW, 10) == []


async def test_effects_are_due_in_the_order_of_their_next_attempts_and_dead_ones_never(store: Store) -> None:
    later = evolve(effect("x1"), next_attempt_at=NOW + MINUTE, tries=1, fault="no key")
    dead = evolve(effect("x2"), dead_at=NOW, tries=12, fault="no key")
    await open_approval(store, approval(run_id="later", effects=(later, dead)))
    await open_approval(store, approval(run_id="now", effects=(effect("x3"),)))
    await open_approval(store, approval(run_id="dead", effects=(dead,)))
    assert [a.run_id for a in await store.owing_approvals(NOW, 10)] == ["now"]
    assert [a.run_id for a in await store.owing_approvals(NOW + MINUTE, 10)] == ["now", "later"]
    assert [a.run_id for a in await store.owing_approvals(NOW + MINUTE, 1)] == ["now"]
    assert await store.effect_counts() == EffectCounts(owing=2, dead=2)


async def test_an_effect_that_is_due_beyond_the_horizon_is_due_behind_the_others(store: Store) -> None:
    for run_id, at in (("far", NOW + 60 * MINUTE), ("near", NOW + MINUTE), ("now", 0)):
        owed = evolve(effect(f"x-{run_id}"), next_attempt_at=at)
        await open_approval(store, approval(run_id=run_id, effects=(owed,)))
    horizon = NOW + 2 * MINUTE
    assert [a.run_id for a in await store.owing_approvals(NOW, 10, horizon=horizon)] == ["now", "far"]
    assert [a.run_id for a in await store.owing_approvals(NOW, 1, horizon=horizon)] == ["now"]


async def test_dead_effects_are_listed_and_found_by_tenant(store: Store) -> None:
    dead = evolve(effect("x1"), dead_at=NOW)
    for run in ("a", "b"):
        own = evolve(dead, id=f"x-{run}")
        await open_approval(store, approval(run_id=run, effects=(own, effect("live"))))
    await open_approval(store, approval(tenant="globex", run_id="c", effects=(dead,)))
    first, after = await store.with_dead_effects(TENANT, Page(1))
    rest, end = await store.with_dead_effects(TENANT, Page(1, after))
    assert [one.run_id for one in (*first, *rest)] == ["b", "a"]
    assert end is None
    found = await store.with_dead_effect(TENANT, "x-a")
    assert found is not None
    assert found.run_id == "a"
    assert await store.with_dead_effect(TENANT, "live") is None
    assert await store.with_dead_effect("globex", "x-a") is None


async def test_completing_an_effect_twice_or_an_unknown_one_changes_nothing(store: Store) -> None:
    await open_approval(store, approval(effects=(effect("x1"), effect("x2"))))
    await store.complete_effect(approval().key, "x1")
    before = await find_approval(store)
    await store.complete_effect(approval().key, "x1")
    await store.complete_effect(approval(run_id="unknown").key, "x1")
    assert await find_approval(store) == before


async def test_completing_counts_as_a_write_so_that_it_cannot_be_undone_unseen(store: Store) -> None:
    await open_approval(store, approval(effects=(effect("x1"),)))
    await store.complete_effect(approval().key, "x1")
    assert (await find_approval(store)).version == 2
    assert not await store.replace_approval(approval(version=2, effects=(effect("x1"),), ended_by="late"))


async def test_approvals_are_listed_by_tenant_status_and_run_newest_first(store: Store) -> None:
    for number in range(4):
        await open_approval(store, approval(run_id=f"run-{number}"))
    await open_approval(store, approval(run_id="run-0", approval_id="second", status=Status.APPROVED))
    await open_approval(store, approval(tenant="globex"))

    async def listed(where: ApprovalFilter, tenant: str = TENANT) -> list[tuple[str, str]]:
        return [(a.run_id, a.approval_id) for a in (await store.approvals(tenant, where, Page()))[0]]

    assert [run for run, _ in await listed(ApprovalFilter())] == ["run-0", "run-3", "run-2", "run-1", "run-0"]
    assert await listed(ApprovalFilter(Status.APPROVED)) == [("run-0", "second")]
    assert await listed(ApprovalFilter(run_id="run-0")) == [("run-0", "second"), ("run-0", "deploy")]
    assert await listed(ApprovalFilter(Status.PENDING, "run-0")) == [("run-0", "deploy")]
    assert await listed(ApprovalFilter(), "globex") == [("run-1", "deploy")]
    assert await listed(ApprovalFilter(), "nobody") == []


async def test_a_list_of_approvals_goes_on_page_by_page(store: Store) -> None:
    for number in range(5):
        await open_approval(store, approval(run_id=f"run-{number}"))
    found, after = await store.approvals(TENANT, ApprovalFilter(Status.PENDING), Page(3))
    assert [a.run_id for a in found] == ["run-4", "run-3", "run-2"]
    found, after = await store.approvals(TENANT, ApprovalFilter(Status.PENDING), Page(3, after))
    assert [a.run_id for a in found] == ["run-1", "run-0"]
    assert after is None


async def test_a_page_ends_where_its_rows_are_large_and_has_one_at_least(store: Store) -> None:
    for run, size in (("small", 0.0), ("large", 0.6), ("large too", 0.6), ("larger than a page", 1.5)):
        request = f'{{"x":"{"x" * int(size * PAGE_BYTES)}"}}'
        await open_approval(store, approval(run_id=run, request=request))
    pages, after = list[list[str]](), None
    while not pages or after is not None:
        found, after = await store.approvals(TENANT, ApprovalFilter(), Page(50, after))
        pages.append([one.run_id for one in found])
    assert pages == [["larger than a page"], ["large too"], ["large", "small"]]


async def test_pending_approvals_are_counted_by_tenant(store: Store) -> None:
    await open_approval(store, approval())
    await open_approval(store, approval(run_id="run-2", expires_at=NOW + HOUR))
    await open_approval(store, approval(run_id="run-3", status=Status.REJECTED))
    await open_approval(store, approval(tenant="globex"))
    assert await store.outstanding() == {TENANT: 2, "globex": 1}


async def test_an_audit_record_written_twice_is_kept_once(store: Store) -> None:
    await store.write_audit([audit_record("a1"), audit_record("a2", name=AuditName.EXPIRED, run_id=None)])
    await store.write_audit([audit_record("a1", actor="another"), audit_record("a3", tenant="")])
    records, after = await store.audit(TENANT, AuditFilter(), Page())
    assert records == [audit_record("a2", name=AuditName.EXPIRED, run_id=None), audit_record("a1")]
    assert after is None


async def test_the_audit_trail_is_listed_by_tenant_run_and_approval(store: Store) -> None:
    await store.write_audit(
        [
            audit_record("a1"),
            audit_record("a2", run_id="run-2"),
            audit_record("a3", approval_id="second"),
            audit_record("a4", tenant="globex"),
            audit_record("a5"),
        ]
    )

    async def listed(where: AuditFilter, page: Page | None = None) -> list[str]:
        return [r.id for r in (await store.audit(TENANT, where, page or Page()))[0]]

    assert await listed(AuditFilter()) == ["a5", "a3", "a2", "a1"]
    assert await listed(AuditFilter("run-1")) == ["a5", "a3", "a1"]
    assert await listed(AuditFilter("run-1", "deploy")) == ["a5", "a1"]
    _, after = await store.audit(TENANT, AuditFilter("run-1"), Page(2))
    assert await listed(AuditFilter("run-1"), Page(2, after)) == ["a1"]


async def test_lines_of_approvals_of_one_name_are_found_a_stretch_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for paging in (sqlite_paging, mongo_paging):
        monkeypatch.setattr(paging, "PAGE_LOOKS", 4)
    names = ["deploy", "deploy", "deploy", *["other"] * 9, "deploy"]
    await store.write_audit(
        [audit_record(f"a{n}", run_id=f"run-{n}", approval_id=name) for n, name in enumerate(names)]
    )
    pages, after = list[list[str]](), None
    while not pages or after is not None:
        records, after = await store.audit(TENANT, AuditFilter(None, "deploy"), Page(2, after))
        pages.append([one.id for one in records])
    assert pages == [["a12"], [], ["a2", "a1"], ["a0"]]


async def test_the_versions_of_several_approvals_are_read_at_once(store: Store) -> None:
    one, other = approval(), approval(approval_id="other")
    missing = approval(approval_id="missing").key
    await open_approval(store, one)
    await open_approval(store, other)
    assert await store.replace_approval(evolve(one, version=2))
    assert await store.approval_versions([one.key, other.key, missing]) == {one.key: 2, other.key: 1}
    assert await store.approval_versions([]) == {}


async def test_pending_approvals_that_a_timer_is_to_look_at_are_found_the_longest_due_first(
    store: Store,
) -> None:
    for number, at in enumerate((3, 1, 2, 5)):
        await open_approval(store, approval(run_id=f"run-{number}", timer_at=NOW + at, timed_until=NOW))
    await open_approval(store, approval(run_id="ended", status=Status.APPROVED, timer_at=NOW))
    await open_approval(store, approval(run_id="never"))
    found = await store.timed_approvals(NOW + 3, 10)
    assert [a.run_id for a in found] == ["run-1", "run-2", "run-0"]
    assert [a.timed_until for a in found] == [NOW] * 3
    assert [a.run_id for a in await store.timed_approvals(NOW + 3, 2)] == ["run-1", "run-2"]


async def test_waking_makes_each_pending_approval_due_and_beats_a_write_that_began_before(
    store: Store,
) -> None:
    pending = await open_approval(store, approval(timer_at=NOW + HOUR))
    await open_approval(store, approval(run_id="ended", status=Status.APPROVED))
    await store.wake_timers()
    await store.wake_timers()
    assert not await store.replace_approval(evolve(pending, version=2, required_approvals=2))
    assert [(a.run_id, a.version) for a in await store.timed_approvals(NOW, 10)] == [("run-1", 2)]
