"""A configuration tried out: all that a start would build is built, and what could never work is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
from attrs import frozen

from notifyd import samples
from notifyd.cli.doctor_machine import own_certificate
from notifyd.cli.endpoints import endpoints
from notifyd.cli.exposed import exposed
from notifyd.cli.finding import OK
from notifyd.config.doubts import doubts
from notifyd.config.faults import Told, dotted, of_rule
from notifyd.config.load import Reading
from notifyd.config.settings import Auth, ChannelSettings, Rule, SealKey, Settings, Templates, Tls
from notifyd.config.structure import did_you_mean
from notifyd.errors import ConfigError, Fault
from notifyd.model import wall_clock
from notifyd.registry.discovery import Discovered
from notifyd.registry.egress import Guard, callback_fault, literal_fault
from notifyd.registry.registry import load_templates, open_registry
from notifyd.rules.booleans import no_boolean
from notifyd.rules.rules import NATIVE_FUNCTIONS, faults_of
from notifyd.rules.spelling import misspelt, misspelt_path
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


async def try_out(path: Path, reading: Reading, discovered: Discovered) -> Trial:
    """Build all that the service would build with the configuration at `path`, and send nothing.

    Raises `ConfigError` with what keeps it from starting, and what could never work once it runs: the faults of
    `reading`, and what is wrong with the rest.
    """
    settings, told = reading.settings, reading.told
    found = [*_addresses(settings, told), *_store(settings)]
    sound = {rule.name for rule in settings.rules if not faults_of(rule.when, discovered.rule_functions)}
    found += [fault for rule in settings.rules if rule.name in sound for fault in _no_boolean(rule)]
    try:
        registry = await open_registry(_openable(reading, discovered), discovered, wall_clock)
    except ConfigError as error:
        found += error.faults
        names = await asyncio.to_thread(_template_names, settings, discovered)
    else:
        await registry.aclose()
        names = registry.templates.names
    if told.knows("templates.dirs"):
        found += _templates(settings, names)
    # What follows from a fault that is told of is none of its own.
    if faults := [*reading.faults, *(fault for fault in found if not told.has(fault.pointer))]:
        raise ConfigError(dict.fromkeys(faults))
    writable = (
        Fault(str(file), f"anybody may write it: chmod o-w {file}") for file in exposed(path, settings)
    )
    doubted = (
        *_spelling(settings),
        *doubts(settings),
        *_lasting(settings),
        *samples.costly(registry.templates),
    )
    return Trial(doubted, tuple(writable), registry.templates.left_out)


def _openable(reading: Reading, discovered: Discovered) -> Settings:
    """Settings that can be opened, without what has faults."""
    settings, told = reading.settings, reading.told
    if not reading.faults:
        return settings
    channels = _sound("channels", settings.channels, told, discovered)
    rules = [
        attrs.evolve(rule, channels=tuple(name for name in rule.channels if name in channels))
        for rule in settings.rules
    ]
    forwarders = _sound("resume.forwarders", settings.resume.forwarders, told, discovered)
    pair = told.knows("server.tls.cert", "server.tls.key")
    server = settings.server if pair else attrs.evolve(settings.server, tls=Tls())
    return attrs.evolve(
        settings,
        server=server,
        auth=Auth(),
        keys=attrs.evolve(settings.keys, seal=settings.keys.seal or (SealKey(bytes(32)),)),
        channels=channels,
        rules=tuple(rules),
        resume=attrs.evolve(settings.resume, forwarders=forwarders),
    )


def _sound(
    table: str, channels: Mapping[str, ChannelSettings], told: Told, discovered: Discovered
) -> dict[str, ChannelSettings]:
    """Those without a fault of their own, or of the plugin that brings them."""
    kind = "channel" if table == "channels" else "forwarder"
    found = {}
    for name, channel in channels.items():
        plugin = discovered.provider_of(channel.type.name, kind)
        own = dotted("plugins", plugin.name) if plugin else "plugins"
        if told.knows(dotted(table, name)) and not told.has(own) and told.knows(own):
            found[name] = channel
    return found


def _template_names(settings: Settings, discovered: Discovered) -> tuple[str, ...]:
    """The names of all templates, those of operators that do not compile too."""
    own = {
        file.name.partition(".")[0] for folder in settings.templates.dirs for file in folder.glob("*.*.txt")
    }
    shipped = load_templates(attrs.evolve(settings, templates=Templates()), discovered)
    return tuple(sorted({*own, *shipped.names}))


def _templates(settings: Settings, names: Sequence[str]) -> Iterator[Fault]:
    for rule in settings.rules:
        if rule.template and rule.template not in names:
            hint = did_you_mean(rule.template, names) or f"; there are: {', '.join(names)}"
            yield Fault(f"{of_rule(rule.name)}.template", f'there is no template "{rule.template}"{hint}')


def _no_boolean(rule: Rule) -> Iterator[Fault]:
    for message in no_boolean(rule.when, tuple(samples.events()), NATIVE_FUNCTIONS):
        yield Fault(f"{of_rule(rule.name)}.when", message)


def _spelling(settings: Settings) -> Iterator[Fault]:
    for rule in settings.rules:
        for message in misspelt(rule.when):
            yield Fault(f"{of_rule(rule.name)}.when", message)
        for index, path in enumerate(rule.group_by):
            for message in misspelt_path(path):
                yield Fault(f"{of_rule(rule.name)}.group_by[{index}]", message)


def _lasting(settings: Settings) -> Iterator[Fault]:
    if settings.server.tls.cert:
        found = own_certificate(settings.server.tls.cert)
        if found.level != OK:
            yield Fault("server.tls.cert", f"{found.detail.removeprefix('server.tls.cert: ')}: {found.todo}")


def _addresses(settings: Settings, told: Told) -> Iterator[Fault]:
    if not told.knows("egress.allow_private"):
        return
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
