"""A configuration told back: as a tree of plain values, as TOML, and as the list of secrets it holds."""

from __future__ import annotations

import base64
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

import attrs
import tomli_w

from notifyd.config import units
from notifyd.config.settings import ChannelSettings, Settings, common_options
from notifyd.config.structure import option_key
from notifyd.config.units import Duration, Size
from notifyd.security.secrets import HIDDEN, Secret


def describe(settings: Settings) -> dict[str, Any]:
    """All that was understood, as TOML or JSON can hold it.

    Options that are not set are left out, secrets are `***`, durations and sizes as an operator writes them.
    """
    tree: dict[str, Any] = plain(settings, Settings)
    tree["channels"] = {name: _channel(channel) for name, channel in settings.channels.items()}
    forwarders = settings.resume.forwarders.items()
    tree["resume"]["forwarders"] = {name: _channel(one) for name, one in forwarders}
    shorthand = {f"notifications.{key}" for key in settings.notifications}
    tree["rules"] = [rule for rule in tree["rules"] if rule["name"] not in shorthand]
    return tree


def secrets(settings: Settings) -> list[Secret]:
    """Every secret value, each once, seal keys in base64: what a redactor must know."""
    return [Secret(text) for text in dict.fromkeys(_secret_texts(settings)) if text]


def _channel(channel: ChannelSettings) -> dict[str, Any]:
    common = plain(attrs.evolve(channel, config=None), ChannelSettings)
    config = plain(channel.config, type(channel.config))
    return {
        "type": channel.type.name,
        **config,
        **{key: common[key] for key in common_options(channel.type) if key in common},
    }


def plain(value: Any, kind: Any) -> Any:
    """An option's value of type `kind` as TOML or JSON can hold it; a secret is `***`."""
    kind = bare(kind)
    if isinstance(value, Secret | bytes):
        return HIDDEN
    if attrs.has(type(value)) and units.show(value) is value:
        return _record(value)
    if isinstance(value, Mapping):
        item = (*get_args(kind), Any, Any)[1]
        return {key: plain(entry, item) for key, entry in value.items()}
    if isinstance(value, tuple | list | frozenset):
        item = (*get_args(kind), Any)[0]
        entries = [plain(entry, item) for entry in value]
        return sorted(entries, key=str) if isinstance(value, frozenset) else entries
    return _leaf(value, kind)


def _record(record: Any) -> dict[str, Any]:
    attributes = attrs.fields(attrs.resolve_types(type(record)))
    return {
        option_key(a): plain(value, a.type)
        for a in attributes
        if a.init and (value := getattr(record, a.name)) is not None
    }


def _leaf(value: Any, kind: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if kind in _SHOW:
        return _SHOW[kind](value)
    if isinstance(value, str):
        return units.hide_password(str(value))
    return str(value) if isinstance(value, Path) else units.show(value)


_SHOW: Final[Mapping[Any, Callable[[Any], str]]] = {
    Duration: units.show_duration,
    Size: units.show_size,
}


def bare(kind: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        return bare(inner[0]) if len(inner) == 1 else kind
    return kind


def _secret_texts(value: Any) -> Iterator[str]:
    match value:
        case Secret():
            yield value.reveal()
        case bytes():
            yield base64.b64encode(value).decode()
        case str():
            yield units.url_password(value)
        case Mapping():
            for entry in value.values():
                yield from _secret_texts(entry)
        case tuple() | list() | frozenset():
            for entry in value:
                yield from _secret_texts(entry)
        case _ if attrs.has(type(value)):
            for attribute in attrs.fields(type(value)):
                yield from _secret_texts(getattr(value, attribute.name))


def as_toml(tree: Mapping[str, Any]) -> str:
    """What `describe` gives, as TOML."""
    return tomli_w.dumps(tree)
