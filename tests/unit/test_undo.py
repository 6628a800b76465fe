"""Decisions that are taken back while their effects wait: what is left is as if they had not been made."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from notifyd.approval.ballots import cast, expire
from notifyd.approval.effects import let_go, owed_row
from notifyd.approval.rounds import Update, on_updated
from notifyd.approval.undo import take_back, undoable_by
from notifyd.model import Approval, AuditName, AuditRecord, EffectKind, Event, ResumeStatus, Status
from tests.store.makers import NOW, event, nobody
from tests.unit.test_ballots import ALICE, BOB, OTHER, ballot, pending, rejects, replanned

UNDO = 10_000_000
LATER = NOW + 3_000_000


def undone(approval: Approval, actor: str = ALICE, now: int = LATER) -> Approval:
    decision = undoable_by(approval, actor, now, str)
    assert decision is not None
    return take_back(approval, decision, now, correlation_id="corr-undo")


def rows(approval: Approval) -> list[AuditRecord | Event]:
    return [owed_row(e) for e in approval.effects if e.kind is not EffectKind.RESUME]


def for_two(**changes: Any) -> Approval:
    return cast(pending(required_approvals=2, **changes), ballot(), NOW, UNDO)


def test_the_effects_of_a_decision_wait_until_it_can_no_longer_be_taken_back() -> None:
    voted = cast(pending(), ballot(), NOW, UNDO)
    assert voted.status is Status.APPROVED
    assert {e.next_attempt_at for e in voted.effects} == {NOW + UNDO}
    assert voted.undoable == {voted.decisions[0].decision_hash}
    assert cast(pending(), ballot(), NOW).undoable == frozenset()


def test_breaking_the_glass_waits_for_nothing() -> None:
    assert cast(pending(required_approvals=3), ballot(break_glass=True), NOW, UNDO).undoable == frozenset()


def test_a_decision_that_is_taken_back_leaves_one_line_in_the_audit_trail_and_nothing_else() -> None:
    before = pending()
    after = undone(cast(before, ballot(), NOW, UNDO))
    (record,) = rows(after)
    assert isinstance(record, AuditRecord)
    assert (record.name, record.actor, record.data["decision"]) == (AuditName.TAKEN_BACK, ALICE, "approved")
    assert evolve(after, version=before.version, effects=()) == before


def test_whoever_took_a_decision_back_may_decide_again_and_otherwise() -> None:
    again = cast(undone(cast(pending(), ballot(), NOW, UNDO)), rejects(), LATER, UNDO)
    assert (again.status, len(again.decisions)) == (Status.REJECTED, 1)


def test_decisions_that_came_after_it_are_counted_anew() -> None:
    ended = cast(for_two(), ballot(actor=BOB), NOW + 1, UNDO)
    assert (ended.status, ended.resume) == (Status.APPROVED, ResumeStatus.QUEUED)
    after = undone(ended)
    assert (after.status, after.resume, [d.actor for d in after.decisions]) == ("pending", "none", [BOB])
    assert (after.version, after.ended_at, after.resume_delivery) == (ended.version + 1, None, None)
    told = next(row for row in rows(after) if isinstance(row, Event))
    assert '"received":1' in told.body
    assert '"status":"pending"' in told.body
    assert told.version == ended.version
    assert len({e.id for e in after.effects}) == len(after.effects) == 3


def test_only_ones_own_decision_and_only_in_time_can_be_taken_back() -> None:
    voted = for_two()
    assert undoable_by(voted, BOB, LATER, str) is None
    assert undoable_by(voted, ALICE, NOW + UNDO, str) is None
    assert undoable_by(let_go(voted, NOW + UNDO), ALICE, LATER, str) is None


def test_what_came_after_it_and_has_taken_effect_keeps_a_decision() -> None:
    ended = cast(for_two(), ballot(actor=BOB), NOW + 1)
    assert undoable_by(ended, ALICE, LATER, str) is None


def test_what_takes_effect_at_once_makes_final_what_came_before_it() -> None:
    broken = cast(for_two(), ballot(actor=BOB, break_glass=True), NOW + 1, UNDO)
    without_undo = cast(for_two(), ballot(actor=BOB), NOW + 1)
    shorter = cast(for_two(), ballot(actor=BOB), NOW + 1, UNDO // 10)
    for ended in (broken, without_undo, let_go(shorter, NOW + 1 + UNDO // 10)):
        assert (ended.status, ended.undoable) == (Status.APPROVED, frozenset())
        assert {e.next_attempt_at for e in ended.effects} == {0}
    assert let_go(shorter, NOW + UNDO // 10).undoable == shorter.undoable


def test_a_signed_request_is_not_taken_back_since_it_could_be_sent_again() -> None:
    assert undoable_by(cast(pending(), ballot(message_id="msg-1"), NOW, UNDO), ALICE, LATER, str) is None


def test_whatever_else_moves_the_approval_makes_its_decisions_final() -> None:
    voted = for_two(expires_at=NOW + 1)
    expired = expire(voted, LATER)
    update = Update(status=Status.CANCELLED, decided_by="ci", plan_hash=voted.plan_hash)
    cancelled = on_updated(voted, event("update"), update, nobody).subject
    for moved in (expired, cancelled, replanned(voted, OTHER, 2)):
        assert isinstance(moved, Approval)
        assert moved.undoable == frozenset()
        assert {e.next_attempt_at for e in moved.effects} == {0}


def test_an_end_from_outside_that_came_too_late_is_not_forgotten_by_taking_back() -> None:
    ended = cast(pending(), ballot(), NOW, UNDO)
    update = Update(status=Status.CANCELLED, decided_by="ci", plan_hash=ended.plan_hash)
    after = on_updated(ended, event("update"), update, nobody).subject
    assert isinstance(after, Approval)
    assert (after.status, after.version, after.undoable) == ("approved", ended.version + 1, frozenset())
