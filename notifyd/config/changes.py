"""What a reload changes: the keys that differ between two configurations, and none of their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import attrs

from notifyd.config import units
from notifyd.config.faults import dotted
from notifyd.config.settings import ChannelSettings, Settings
from notifyd.config.structure import option_key


def changes(old: Settings, new: Settings) -> list[str]:
    """`+ KEY` for what was added, `- KEY` for what is gone, `~ KEY` for what has another value, by key."""
    found = set(_differences(_tables(old), _tables(new), ""))
    return sorted(found, key=lambda change: (change[2:], change))


def _tables(settings: Settings) -> dict[str, Any]:
    """The sections as the file has them: rules by their names, and the shorthand for some where it is written."""
    tables = _options(settings)
    shorthand = {f"notifications.{key}" for key in settings.notifications}
    tables["rules"] = {rule.name: rule for rule in settings.rules if rule.name not in shorthand}
    return tables


def _options(record: Any) -> dict[str, Any]:
    """A table's options by their keys, without those that are not set."""
    if isinstance(record, ChannelSettings):
        common = {a.name: getattr(record, a.name) for a in attrs.fields(ChannelSettings)}
        common |= {"name": None, "type": record.type.name, "config": None}
        return {key: value for key, value in (common | _options(record.config)).items() if value is not None}
    return {
        option_key(a): value
        for a in attrs.fields(type(record))
        if a.init and (value := getattr(record, a.name)) is not None
    }


def _differences(old: Any, new: Any, at: str) -> Iterator[str]:
    if old == new:
        return
    before, after = _as_table(old), _as_table(new)
    if before is None or after is None:
        yield f"~ {at}"
        return
    yield from (f"- {dotted(at, key)}" for key in before.keys() - after.keys())
    yield from (f"+ {dotted(at, key)}" for key in after.keys() - before.keys())
    yield from chain.from_iterable(
        _differences(before[key], after[key], dotted(at, key)) for key in before.keys() & after.keys()
    )


def _as_table(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    # What an operator writes as one value, such as a rate, is one.
    return _options(value) if attrs.has(type(value)) and units.show(value) is value else None
