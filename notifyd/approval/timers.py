"""Reminders and escalations of an approval that waits: when each is due, and what it sets off. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

from attrs import evolve, frozen

from notifyd.approval.effects import owing
from notifyd.approval.notices import NOTIFYD, own_audit, own_event
from notifyd.approval.quorum import progress
from notifyd.config.settings import Rule
from notifyd.config.units import show_duration, show_moment
from notifyd.model import SECOND, Approval, AuditName, AuditRecord, Event, Instant
from notifyd.wire.codec import rfc3339

_MINUTE: Final = 60


class Timed(StrEnum):
    """The actions of the events that a timer raises."""

    REMINDED = "reminded"  # those are told again whom the rule has asked
    ESCALATED = "escalated"  # others are asked, whom the rule's `escalate` names


_AUDITED: Final = {Timed.REMINDED: AuditName.REMINDED, Timed.ESCALATED: AuditName.ESCALATED}


@frozen
class Step:
    """One timer of a rule. `name` is its time as the configuration writes it, and names it within its rule."""

    rule: str
    action: Timed
    name: str
    due_at: Instant


def opened_at(approval: Approval) -> Instant:
    """What the times of a round count from: its request, or when the approval came, if that is later."""
    return max(approval.created_at, approval.requested_at)


def steps(rules: Iterable[Rule], opened: Instant, expires_at: Instant | None) -> list[Step]:
    """The timers of a round that `rules` have asked for, in order: those before its opening or after its end are
    left out."""
    timed = [rule for rule in rules if rule.remind or rule.escalate]
    if not timed:
        return []
    found = (step for rule in timed for step in _of_rule(rule, opened, expires_at))
    within = (
        step for step in found if opened < step.due_at and (expires_at is None or step.due_at < expires_at)
    )
    return sorted(within, key=attrgetter("due_at"))


def _of_rule(rule: Rule, opened: Instant, expires_at: Instant | None) -> Iterator[Step]:
    for moment in rule.remind:
        if not moment.before_expiry:
            yield Step(rule.name, Timed.REMINDED, show_moment(moment), opened + moment.span)
        elif expires_at is not None:
            yield Step(rule.name, Timed.REMINDED, show_moment(moment), expires_at - moment.span)
    for escalation in rule.escalate:
        yield Step(rule.name, Timed.ESCALATED, show_duration(escalation.after), opened + escalation.after)


def first_due(rules: Iterable[Rule], opened: Instant, expires_at: Instant | None) -> Instant | None:
    """When the first timer of any of `rules` is due, None where none ever is."""
    return next((step.due_at for step in steps(rules, opened, expires_at)), None)


def due_steps(approval: Approval, rules: Sequence[Rule], now: Instant) -> list[Step]:
    """What is due by now and was not when the approval was last looked at."""
    all_steps = steps(rules, opened_at(approval), approval.expires_at)
    return [step for step in all_steps if approval.timed_until < step.due_at <= now]


def take_steps(approval: Approval, rules: Sequence[Rule], now: Instant) -> Approval:
    """`approval`, owing the events and audit lines of what is due now, and knowing when to look again.

    `rules` are those that asked in this round, as they are configured now.
    """
    all_steps = steps(rules, opened_at(approval), approval.expires_at)
    looked = evolve(
        approval,
        version=approval.version + 1,
        timer_at=next((step.due_at for step in all_steps if step.due_at > now), None),
        timed_until=now,
    )
    due = due_steps(approval, rules, now)
    lines = (_line_of(looked, step, now) for step in due)
    return owing(looked, *lines, *(_event_of(looked, step, now) for step in due))


def _line_of(approval: Approval, step: Step, now: Instant) -> AuditRecord:
    return own_audit(
        approval,
        _AUDITED[step.action],
        now,
        actor=NOTIFYD,
        correlation_id=approval.correlation_id,
        data={"rule": step.rule, "step": step.name, "round": approval.round},
        step=(step.rule, step.name),
    )


def _event_of(approval: Approval, step: Step, now: Instant) -> Event:
    """Its id is made of rule, approval, round and step: whoever comes to it again makes the same."""
    voters = [decision.actor for decision in approval.decisions]
    facts: dict[str, Any] = {
        "status": approval.status.value,
        "round": approval.round,
        "approvals": progress(approval) | {"actors": voters},
        "timer": {
            "rule": step.rule,
            "step": step.name,
            "since": rfc3339(approval.requested_at),
            "waited": _seconds(now - approval.requested_at),
            "left": _seconds((approval.expires_at or now) - now),
        },
    }
    return own_event(
        approval,
        step.action.value,
        now,
        correlation_id=approval.correlation_id,
        facts=facts,
        step=(step.rule, step.name),
    )


def _seconds(span: Instant) -> int:
    """`span` in seconds, rounded to whole minutes from two minutes on."""
    seconds = max(0, round(span / SECOND))
    return seconds if seconds < 2 * _MINUTE else round(seconds / _MINUTE) * _MINUTE


def escalated_to(rule: Rule, approval: Approval) -> Iterator[str]:
    """Whom the escalations of `rule` name that have been due in this round."""
    opened = opened_at(approval)
    return (name for one in rule.escalate if opened + one.after <= approval.timed_until for name in one.to)
