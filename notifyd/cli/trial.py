"""A configuration tried out: all that a start would build is built, and what could never work is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import tomli
from attrs import frozen

from notifyd import samples
from notifyd.cli.endpoints import endpoints
from notifyd.cli.exposed import exposed
from notifyd.config.doubts import doubts
from notifyd.config.faults import by_name, of_rule
from notifyd.config.settings import Rule, Settings
from notifyd.config.structure import did_you_mean
from notifyd.errors import ConfigError, Fault
from notifyd.registry.discovery import Discovered
from notifyd.registry.egress import Guard, callback_fault, literal_fault
from notifyd.registry.registry import open_registry
from notifyd.render.render import TemplateSet
from notifyd.rules.booleans import no_boolean
from notifyd.rules.rules import NATIVE_FUNCTIONS, faults_of
from notifyd.rules.spelling import misspelt
from notifyd.store.open import check_url, sqlite_path


@frozen
class Trial:
    """A configuration that a service can run with: what can hardly be meant in it, and what it does without."""

    doubts: tuple[Fault, ...]
    exposed: tuple[Fault, ...]
    left_out: tuple[Fault, ...]

    @property
    def warnings(self) -> tuple[Fault, ...]:
        return self.doubts + self.exposed


async def try_out(path: Path, settings: Settings, discovered: Discovered) -> Trial:
    """Build all that the service would build with the configuration at `path`, and send nothing.

    Raises `ConfigError` with what would keep it from starting, and with what could never work once it runs.
    """
    faults = [*_addresses(settings), *_store(settings)]
    sound = {rule.name for rule in settings.rules if not faults_of(rule.when, discovered.rule_functions)}
    faults += [fault for rule in settings.rules if rule.name in sound for fault in _no_boolean(rule)]
    try:
        registry = await open_registry(settings, discovered, lambda: time.time_ns() // 1000)
    except ConfigError as error:
        raise ConfigError([*error.faults, *faults]) from None
    await registry.aclose()
    if faults := [*_templates(settings, registry.templates), *faults]:
        raise ConfigError(faults)
    writable = (
        Fault(str(file), f"anybody may write it: chmod o-w {file}") for file in exposed(path, settings)
    )
    doubted = (*_spelling(settings), *doubts(settings), *samples.costly(registry.templates))
    return Trial(doubted, tuple(writable), registry.templates.left_out)


def when_faults(path: Path, discovered: Discovered) -> list[Fault]:
    """What is wrong with the rules' expressions in a file that has other faults, and so gives no rules."""
    try:
        rules = tomli.loads(path.read_text(encoding="utf-8")).get("rules")
    except (OSError, ValueError):
        return []  # which is the other fault
    rename = by_name(rules)
    written = {
        rename(f"rules[{index}].when"): rule["when"]
        for index, rule in enumerate(rules if isinstance(rules, list) else [])
        if isinstance(rule, dict) and _is_readable(rule.get("when"))
    }
    functions = discovered.rule_functions
    return [
        Fault(key, message)
        for key, when in written.items()
        for message in faults_of(when, functions) or _judged(when)
    ]


def _is_readable(when: object) -> bool:
    """Of one that is empty, or no text, loading has told."""
    return isinstance(when, str) and bool(when.strip()) and "${" not in when


def _templates(settings: Settings, templates: TemplateSet) -> Iterator[Fault]:
    for rule in settings.rules:
        if rule.template and not templates.knows(rule.template):
            hint = (
                did_you_mean(rule.template, templates.names) or f"; there are: {', '.join(templates.names)}"
            )
            yield Fault(f"{of_rule(rule.name)}.template", f'there is no template "{rule.template}"{hint}')


def _no_boolean(rule: Rule) -> Iterator[Fault]:
    yield from (Fault(f"{of_rule(rule.name)}.when", message) for message in _judged(rule.when))


def _judged(when: str) -> Iterator[str]:
    return no_boolean(when, tuple(samples.events()), NATIVE_FUNCTIONS)


def _spelling(settings: Settings) -> Iterator[Fault]:
    for rule in settings.rules:
        for message in misspelt(rule.when):
            yield Fault(f"{of_rule(rule.name)}.when", message)


def _addresses(settings: Settings) -> Iterator[Fault]:
    guard, origins = Guard(settings.egress.allow_private), settings.resume.allowed_origins
    faults = {one.key: literal_fault(one.url.reveal(), guard) for one in endpoints(settings) if one.url}
    for index, origin in enumerate(origins):
        faults[f"resume.allowed_origins[{index}]"] = callback_fault(origin, origins, guard)
    yield from (Fault(key, fault) for key, fault in faults.items() if fault)


def _store(settings: Settings) -> Iterator[Fault]:
    try:
        check_url(settings.store.url)
    except ConfigError as error:
        yield from error.faults
        return
    if not settings.store.url.startswith("sqlite"):
        return
    path = sqlite_path(settings.store.url)
    with suppress(PermissionError):  # whoever runs the service may look into it
        if path.is_dir():
            yield Fault("store.url", f"{path} is a folder, and the database a file")
        if not path.parent.is_dir():
            yield Fault("store.url", f"the folder {path.parent} is not there")
