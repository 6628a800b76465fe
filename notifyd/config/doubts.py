"""What a configuration says that can hardly be meant. It is taken all the same, with a warning."""

from __future__ import annotations

from collections.abc import Iterator

from notifyd.config.settings import Rule, Settings
from notifyd.config.units import show_duration, show_moment
from notifyd.errors import Fault


def doubts(settings: Settings) -> list[Fault]:
    """Each with its key."""
    own = [rule for rule in settings.rules if rule.name not in _shorthand(settings)]
    return [doubt for index, rule in enumerate(own) for doubt in _timers(rule, f"rules[{index}]", settings)]


def _shorthand(settings: Settings) -> set[str]:
    return {f"notifications.{key}" for key in settings.notifications}


def _timers(rule: Rule, at: str, settings: Settings) -> Iterator[Fault]:
    """A timer that no approval of the default length lives to see."""
    ttl = settings.approvals.default_ttl
    never = f"never comes for an approval without expiresAt: approvals.default_ttl is {show_duration(ttl)}"
    for index, moment in enumerate(rule.remind):
        if moment.span >= ttl:
            yield Fault(f"{at}.remind[{index}]", f"{show_moment(moment)} {never}")
    for index, step in enumerate(rule.escalate):
        if step.after >= ttl:
            yield Fault(f"{at}.escalate[{index}].after", f"{show_duration(step.after)} {never}")
