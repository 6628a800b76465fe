"""`notifyd route --expect FILE`: do events reach the channels and persons that they must, and nobody else?

In: a TOML file of events. Out: what differs, for each event. It is for a pipeline that guards a configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import click
from attrs import field, frozen

from notifyd import preview
from notifyd.cli.common import parse_event
from notifyd.config.faults import Findings
from notifyd.config.structure import Structurer, did_you_mean
from notifyd.config.syntax import document, read_text
from notifyd.errors import ConfigError, Fault, InvalidError, MalformedError
from notifyd.model import Instant
from notifyd.preview import Preview
from notifyd.registry.registry import Registry
from notifyd.text import one_line

Reached: TypeAlias = dict[str, dict[str, Preview]]
"""By channel, and by the canonical names of the persons it writes to."""


def _some(instance: object, attribute: object, value: tuple[Expected, ...]) -> None:
    if not value:  # a file that asks for nothing would look like success
        raise ValueError("must name one event at least")


@frozen
class Expected:
    """An event and whom it must reach: for each channel the persons; none where it writes to its own audience.

    `tenant` is that of a CloudEvent which names none.
    """

    file: Path
    reaches: Mapping[str, tuple[str, ...]]
    tenant: str = ""


@frozen
class Expectations:
    """The whole file."""

    events: tuple[Expected, ...] = field(validator=_some)


@frozen
class Compared:
    """What differs from what one event must do; nothing where all is as expected."""

    event: str
    differences: tuple[str, ...]


def read_expectations(path: Path) -> tuple[Expected, ...]:
    """The events of a file; those it names are sought from its folder. Raises `ConfigError` with every fault."""
    findings = Findings()
    read = document(read_text(path), str(path))
    found: Expectations | None = Structurer(path.parent).into(read, Expectations, findings)
    if found is None:
        raise ConfigError(findings.faults)
    if faults := list(_faults(found.events)):
        raise ConfigError(faults)
    return found.events


def _faults(events: Iterable[Expected]) -> Iterator[Fault]:
    """What a reader of the file could not have meant."""
    seen: dict[tuple[Path, str], int] = {}
    for number, one in enumerate(events):
        at = f"events[{number}]"
        first = seen.setdefault((one.file, one.tenant), number)
        if first != number:
            yield Fault(f"{at}.file", f"is that of events[{first}] already")
        if not one.file.is_file():
            yield Fault(f"{at}.file", f"{one.file} is no file")
        for channel, persons in one.reaches.items():
            for person in sorted({name for name in persons if persons.count(name) > 1}):
                yield Fault(f"{at}.reaches.{channel}", f"names {person} twice")


def compare(expected: Expected, registry: Registry, now: Instant) -> Compared:
    """Match and render the event as the planner would, and tell what differs."""
    try:
        document = parse_event(expected.file.read_bytes())
        event = preview.read_event(document, registry, expected.tenant, now)
        differences = _differences(expected, preview.route(event, registry).previews, registry)
    except OSError as error:
        differences = iter([f"the event cannot be read: {error.strerror}"])
    except InvalidError as error:
        differences = (f"the event is not valid: {fault}" for fault in error.faults)
    except MalformedError as error:
        differences = iter([f"the event cannot be read: {error.detail}"])
    except ValueError as error:
        differences = iter([f"the event is not JSON: {error}"])
    return Compared(str(expected.file), tuple(map(one_line, differences)))


def _differences(expected: Expected, found: Iterable[Preview], registry: Registry) -> Iterator[str]:
    previews = tuple(found)
    reached = _reached(previews, registry)
    for channel in sorted(expected.reaches.keys() | reached.keys()):
        for difference in _of_channel(channel, expected, reached, registry):
            yield f"{channel}: {difference}"
    yield from (f"{one.channel}: cannot be rendered: {one.fault}" for one in previews if one.fault)


def _reached(previews: Iterable[Preview], registry: Registry) -> Reached:
    reached: Reached = {}
    for one in previews:
        persons = {registry.actors.canonical(person): one for person in one.recipients}
        reached.setdefault(one.channel, {}).update(persons)
    return reached


def _of_channel(channel: str, expected: Expected, reached: Reached, registry: Registry) -> Iterator[str]:
    wanted = {registry.actors.canonical(person): person for person in expected.reaches.get(channel, ())}
    found = reached.get(channel, {})
    if channel not in registry.channels:
        yield "there is no such channel" + did_you_mean(channel, registry.channels)
    elif channel not in reached:
        yield f"is not reached, and must tell {_listed(wanted.values())}"
    elif channel not in expected.reaches:
        yield f"is reached, and must not be: it tells {_listed(found)}"
    else:
        yield from (f"does not tell {person}" for name, person in wanted.items() if name not in found)
        surplus = (name for name in found if name not in wanted)
        yield from (f"tells {name} too, by the rule {found[name].rule}" for name in surplus)


def _listed(persons: Iterable[str]) -> str:
    return ", ".join(persons) or "its own audience"


# --- telling -----------------------------------------------------------------------------------------------


def print_compared(all_compared: Iterable[Compared]) -> None:
    for one in all_compared:
        click.echo(f"{'✗' if one.differences else '✓'} {one_line(one.event)}")
        for difference in one.differences:
            click.echo(f"    {difference}")


def compared_json(one: Compared) -> dict[str, Any]:
    return {"event": one.event, "ok": not one.differences, "differences": list(one.differences)}
