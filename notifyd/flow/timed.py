"""Who gets a reminder or an escalation, and what comes after that. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from attrs import evolve

from notifyd.approval.timers import Timed
from notifyd.config.settings import Escalation, Rule
from notifyd.config.units import show_duration
from notifyd.flow.audience import Reader, audience, audiences, have_voted, is_own_request
from notifyd.model import APPROVAL_KIND, Event
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry


def is_timed(event: Event) -> bool:
    """Has a timer raised it? Then it is for the rule whose timer it was, and no other rule is asked."""
    return event.kind == APPROVAL_KIND and event.action in tuple(Timed)


def timed_audience(
    event: Event, seen: Mapping[str, Any], registry: Registry
) -> Iterator[tuple[Rule, OpenChannel, Reader]]:
    """Rule, channel and reader of each message. A rule that is gone sends none.

    Nobody is told who has voted in this round, or who has asked for it and so does not decide; nor is a deputy of
    such a person.
    """
    rule = registry.rule(seen["timer"]["rule"])
    if rule is None:
        return
    if event.action == Timed.REMINDED:
        reached = audiences(rule, event, registry)
    else:
        reached = escalated_audience(rule, [(rule.name, seen["timer"]["step"])], event, seen, registry)
    for channel, reader in reached:
        asked_for_it = any(is_own_request(event, seen, person, registry) for person in reader.people)
        if not asked_for_it and not have_voted(seen, reader.people, registry):
            yield rule, channel, reader


def escalated_audience(
    rule: Rule, taken: Collection[tuple[str, str]], event: Event, seen: Mapping[str, Any], registry: Registry
) -> Iterator[tuple[OpenChannel, Reader]]:
    """Whom those steps of `rule` have asked that are among `taken`, each by its rule's name and its own."""
    for step in rule.escalate:
        if (rule.name, show_duration(step.after)) in taken:
            yield from _of_step(rule, step, event, seen, registry)


def _of_step(
    rule: Rule, step: Escalation, event: Event, seen: Mapping[str, Any], registry: Registry
) -> Iterator[tuple[OpenChannel, Reader]]:
    """Over the channels of the step, whoever was not asked before, by any rule or an earlier step."""
    before = [one for one in rule.escalate if one.after < step.after]
    asked, told = _asked_before(before, seen, registry)
    others = evolve(rule, to=step.to, lists=())
    for channel in (registry.channels[name] for name in step.channels):
        if channel.personal or channel.name not in told:
            for reader in audience(others, channel, event, registry):
                if asked.isdisjoint(map(registry.actors.canonical, reader.people)):
                    yield channel, reader


def _asked_before(
    steps: list[Escalation], seen: Mapping[str, Any], registry: Registry
) -> tuple[set[str], set[str]]:
    """Canonical names of the people, and the channels, that were asked."""
    rules = registry.rules.match({**seen, "action": "requested"}).rules
    asking: list[Rule | Escalation] = [*rules, *steps]
    people = {registry.actors.canonical(person) for one in asking for person in one.to}
    return people, {name for one in asking for name in one.channels}
