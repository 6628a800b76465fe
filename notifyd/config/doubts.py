"""What a configuration says that can hardly be meant. It is taken all the same, with a warning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from notifyd.config.faults import dotted, of_rule
from notifyd.config.settings import Rule, Settings
from notifyd.config.units import DAY, show_duration, show_moment
from notifyd.errors import Fault
from notifyd.security.actors import Actors
from notifyd.security.signing import secret_bytes

_SHORT: Final = DAY
"""A retention below this is rather a slip of the unit: `1m` is a minute."""


_VARIETY: Final = 8
"""A random key of 24 bytes has more different ones than this but once in 10^20."""

_TYPED: Final = "has so few different bytes that it can be guessed; one that cannot is made by"

_SHOWN: Final = frozenset(
    {
        "sha256:" + "0" * 64,
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    }
)
"""Hashes that `conf/` and the guides show: the second is that of the word test, a token that anybody can send."""


def doubts(settings: Settings) -> list[Fault]:
    """Each with its key."""
    timers = (doubt for rule in settings.rules for doubt in _timers(rule, settings))
    return [
        *timers,
        *_unused_channels(settings),
        *_unused_recipients(settings),
        *_unreached_deputies(settings),
        *_retention(settings),
        *_guessable(settings),
    ]


def _timers(rule: Rule, settings: Settings) -> Iterator[Fault]:
    """A timer that no approval of the default length lives to see."""
    at, ttl = of_rule(rule.name), settings.approvals.default_ttl
    never = f"never comes for an approval without expiresAt: approvals.default_ttl is {show_duration(ttl)}"
    for index, moment in enumerate(rule.remind):
        if moment.span >= ttl:
            yield Fault(f"{at}.remind[{index}]", f"{show_moment(moment)} {never}")
    for index, step in enumerate(rule.escalate):
        if step.after >= ttl:
            yield Fault(f"{at}.escalate[{index}].after", f"{show_duration(step.after)} {never}")


def _unused_channels(settings: Settings) -> Iterator[Fault]:
    used = {name for rule in settings.rules for name in rule.channels}
    used |= {name for rule in settings.rules for step in rule.escalate for name in step.channels}
    for name, channel in settings.channels.items():
        tells_of_overrides = channel.personal and settings.approvals.breakglass_to
        if name not in used and not tells_of_overrides:
            yield Fault(dotted("channels", name), "no rule names this channel")


def _unused_recipients(settings: Settings) -> Iterator[Fault]:
    canonical = Actors(settings.auth.actors).canonical
    written = set(map(canonical, _readers(settings)))
    for name in settings.recipients:
        if canonical(name) not in written:
            yield Fault(dotted("recipients", name), "nothing is sent to this recipient: no rule names it")


def _unreached_deputies(settings: Settings) -> Iterator[Fault]:
    """Who stands in for a person, and has no address on any channel by which a rule reaches that person."""
    canonical = Actors(settings.auth.actors).canonical
    addresses = {canonical(name): one.addresses for name, one in settings.recipients.items()}
    for name, recipient in settings.recipients.items():
        if recipient.deputy is None:
            continue
        has = addresses.get(canonical(recipient.deputy.to), {})
        for rule in settings.rules:
            ways = [one for channel in rule.channels if (one := settings.channels[channel]).personal]
            missed = ways and all(way.type.addressed and way.type.name not in has for way in ways)
            if missed and canonical(name) in map(canonical, rule.to):
                types = " or ".join(sorted({way.type.name for way in ways}))
                text = f'has no address for {types} in [recipients], so that rule "{rule.name}" does not ask them'
                yield Fault(f"{dotted('recipients', name)}.deputy.to", text)


def _readers(settings: Settings) -> Iterator[str]:
    """Everybody to whom something may be sent, by any of their names."""
    yield from settings.approvals.breakglass_to
    yield from filter(None, [settings.drill.to])
    for rule in settings.rules:
        yield from (*rule.people, *rule.lists)
    yield from (known.deputy.to for known in settings.recipients.values() if known.deputy)


def _retention(settings: Settings) -> Iterator[Fault]:
    kept = attrs.asdict(settings.retention, filter=lambda attribute, _: attribute.name != "hold_label")
    for key, span in kept.items():
        if span < _SHORT:
            yield Fault(f"retention.{key}", f"removes for good what is older than {show_duration(span)}")


def _guessable(settings: Settings) -> Iterator[Fault]:
    """Secrets that an example shows, or that somebody has typed rather than made."""
    for index, key in enumerate(settings.keys.seal):
        if len(set(key)) < _VARIETY:
            yield Fault(f"keys.seal[{index}]", f"{_TYPED} notifyd keygen")
    for name, client in settings.auth.clients.items():
        at = dotted("auth.clients", name)
        for index, secret in enumerate(client.hmac_secrets):
            if len(set(secret_bytes(secret))) < _VARIETY:
                yield Fault(f"{at}.hmac_secrets[{index}]", f"{_TYPED} notifyd keygen")
        for index, token in enumerate(client.token_hashes):
            if token in _SHOWN:
                yield Fault(
                    f"{at}.token_hashes[{index}]", "is that of an example: notifyd keygen --token makes one"
                )
