"""What a channel's table may say, told from its type's attrs class: for `notifyd plugins show`, and the docs."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping
from datetime import date
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin

import attrs
from attrs import evolve, frozen

from notifyd.config.describe import bare, plain
from notifyd.config.settings import ChannelSettings, Rate, common_options
from notifyd.config.structure import options_of
from notifyd.config.units import Backoff, Duration, KeySource, Listen, Moment, SealKey, Size
from notifyd.config.windows import Window
from notifyd.plugin import ChannelType
from notifyd.security.secrets import Secret
from notifyd.trust import CaFile


@frozen
class Option:
    """`kind` says in words what its value is. `default` as it would be written; None where it is required."""

    name: str
    kind: str
    default: str | None


def options(channel_type: ChannelType) -> list[Option]:
    """The type's own options, then those that every channel has."""
    own, every = options_of(channel_type.config), options_of(ChannelSettings)
    found = described({**own, **{name: every[name] for name in common_options(channel_type)}})
    return [_adapted(one, channel_type) for one in found]


def described(attributes: Mapping[str, attrs.Attribute[Any]]) -> list[Option]:
    """Options as they are declared, in words, by their keys."""
    return [_option(name, one) for name, one in attributes.items()]


def _adapted(option: Option, channel_type: ChannelType) -> Option:
    """With the type's own rate limit for its default; only a gate has a tenant, and needs one."""
    if option.name == "tenant" and channel_type.gate:
        return evolve(option, default=None)
    if option.name != "rate_limit" or channel_type.rate_limit is None:
        return option
    return evolve(option, default=f'"{channel_type.rate_limit}"')


def about(config: type[Any]) -> str:
    """What its author says of the options."""
    return inspect.cleandoc(config.__doc__ or "")


def _option(name: str, attribute: attrs.Attribute[Any]) -> Option:
    return Option(name, kind_of(attribute.type), _default(attribute))


def _default(attribute: attrs.Attribute[Any]) -> str | None:
    value: Any = attribute.default
    if value is attrs.NOTHING:
        return None
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type] # a class, which attrs types as a function
        return "by the others" if value.takes_self else _written(value.factory(), attribute.type)
    return _written(value, attribute.type)


def _written(value: Any, kind: Any) -> str:
    """A default as it stands in TOML, "none" for what is not set. A secret that everybody knows is shown."""
    if value is None:
        return "none"
    shown = value.reveal() if isinstance(value, Secret) else plain(value, kind)
    return (
        shown.isoformat() if isinstance(shown, date) else json.dumps(shown, ensure_ascii=False, default=str)
    )


_KINDS: Final[Mapping[Any, str]] = {
    str: "text",
    Secret: "text, kept secret",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Duration: "a duration, such as 10s",
    Size: "a size, such as 256KiB",
    Path: "a path",
    CaFile: "the path of a PEM file",
    Rate: "a rate, such as 1/s",
    Backoff: "two durations, such as 1s..15m",
    Listen: "host:port",
    IPv4Network: "a network, such as 10.0.0.0/8",
    IPv6Network: "a network, such as 10.0.0.0/8",
    KeySource: "an https address, or a path",
    SealKey: "32 bytes in base64, kept secret",
    Moment: "a time, such as 2h, or 30m before expiry",
    Window: "hours, such as Mon-Thu 09:00-16:00 Europe/Zurich",
    date: "a date",
}


def kind_of(kind: Any) -> str:
    """What a value of this type is, in words."""
    kind = bare(kind)
    if kind in _KINDS:
        return _KINDS[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind_of(one) for one in inner if one is not type(None)))
    if origin in (tuple, frozenset):
        return f"a list: {kind_of(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a table: {kind_of(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(f'"{one.value}"' for one in kind)
    if isinstance(kind, type) and attrs.has(kind):
        return "a table of its own"
    return str(getattr(kind, "__name__", kind))
