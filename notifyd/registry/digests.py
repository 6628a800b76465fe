"""Which template a digest is written with: one that the channel it goes to can send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from notifyd.config.faults import of_rule
from notifyd.config.settings import Rule
from notifyd.errors import Fault
from notifyd.render.render import TemplateSet

CHANNEL_TEST: Final = "channel-test"
"""The template of a test message."""

DIGEST: Final = "digest"
"""The common template, a text; `NAME-digest` writes the digests of a rule whose template is NAME."""

_GROUPING: Final = ("group_by", "throttle", "quiet_hours")
"""The options by which a rule makes digests."""


class Bodied(Protocol):
    """What is asked of a channel: the media type of its rule's template, where all it sends is such a body."""

    @property
    def own_body(self) -> str | None: ...


def own_digest(rule: Rule, templates: TemplateSet) -> str | None:
    """The template that writes this rule's digests in the form of its messages, if there is one."""
    name = f"{rule.template}-{DIGEST}"
    return name if rule.template and templates.knows(name) else None


def digest_faults(
    rules: Sequence[Rule], channels: Mapping[str, Bodied], templates: TemplateSet
) -> Iterator[Fault]:
    """Where a rule groups, and has no digest that each of its channels, of those that are open, can send."""
    for rule in rules:
        bodied = [name for name in rule.channels if name in channels and channels[name].own_body]
        if bodied and own_digest(rule, templates) is None:
            given = (option for option in _GROUPING if getattr(rule, option))
            yield from (Fault(f"{of_rule(rule.name)}.{option}", _fault(bodied[0], rule)) for option in given)


def _fault(channel: str, rule: Rule) -> str:
    wanted = (
        f'the template "{rule.template}-{DIGEST}"'
        if rule.template
        else f'a template NAME and "NAME-{DIGEST}"'
    )
    return (
        f'makes digests, and the channel "{channel}" sends a body of its template\'s own form, which the digest'
        f" of notifyd has not: the rule needs {wanted} in templates.dirs, or does without this"
    )
