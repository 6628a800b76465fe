"""What a store holds into records, strictly: nothing is coerced, and a fault names the member and not its content.

A record's members stand under their attributes' names. Those that it does not know are passed over: a store adds
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import attrs
import orjson

from notifyd.wire import strict
from notifyd.wire.strict import Hook, Members, Parse, Strict, StructureError

T = TypeVar("T")

_SOONEST: Final = -62_135_596_800_000_000
_LATEST: Final = 253_402_300_799_999_999
"""The times that RFC 3339 can tell, years 1 to 9999, in microseconds. Every other number is smaller by far."""

_SHOWN: Final = 3
"""How many faults of a row are told."""

_KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "text",
    bytes: "bytes",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class DecodeError(ValueError):
    """What is wrong with a row. The text is for people, and repeats nothing of what the row holds."""


def json_of(text: Any) -> Any:
    """What JSON text stands for. Raises ValueError."""
    if type(text) is not str:
        raise ValueError(strict.refusal("JSON text", text, _KINDS))
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("must be JSON") from None


def object_of(text: Any) -> dict[str, Any]:
    """The object that JSON text stands for. Raises ValueError."""
    found = json_of(text)
    if type(found) is not dict:
        raise ValueError(strict.refusal("a JSON object", found, _KINDS))
    return found


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(strict.refusal("text", value, _KINDS))
    if not value.isascii():
        _check_encodable(value)
    return value


def _check_encodable(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):  # BSON has an integer of its own
        raise ValueError(strict.refusal("an integer", value, _KINDS))
    if not _SOONEST <= value <= _LATEST:
        raise ValueError("must be a number that a time can be")
    return int(value)


def _number(value: Any) -> float:
    if type(value) is not float:
        return float(_integer(value))
    return value


class _Records(Strict):
    kinds: ClassVar[Mapping[type, str]] = _KINDS

    def __init__(self, *, thorough: bool) -> None:
        leaves: dict[Any, Parse] = {str: _text, int: _integer, float: _number, Any: lambda value: value}
        super().__init__(leaves, thorough=thorough)

    def members(self, cls: type[Any]) -> Members:
        return {attribute.name: attribute for attribute in attrs.fields(attrs.resolve_types(cls))}

    def unknown(self, name: str, members: Members) -> str | None:
        return None

    def choice(self, choices: Mapping[Any, Any]) -> Hook:
        return strict.one_of(choices, "has a value that this notifyd does not know")

    def annotated(self, kind: Any) -> Hook:
        raise NotImplementedError("no stored record has one")


class _Documents(_Records):
    """As `_Records`, with open-ended mappings as JSON text."""

    def _object(self, kind: Any) -> Hook:
        return lambda text, _: object_of(text)


class Decoder:
    """Makes records. `mappings_are_text`: an open-ended mapping is JSON text wherever it stands."""

    def __init__(self, *, mappings_are_text: bool = False) -> None:
        make = _Documents if mappings_are_text else _Records
        self._quick, self._thorough = make(thorough=False), make(thorough=True)

    def record(self, members: Mapping[str, Any], kind: type[T], objects: Iterable[str] = ()) -> T:
        """`objects` names the members that must be JSON objects, as text. Raises `DecodeError`."""
        try:
            record = self._quick.record(members, kind)
            for name in objects:
                object_of(members[name])
        except (ValueError, StructureError):
            raise DecodeError(self._told(members, kind, objects)) from None
        return record

    def _told(self, members: Mapping[str, Any], kind: type[Any], objects: Iterable[str]) -> str:
        found = list(_faults(lambda: self._thorough.record(members, kind)))
        for name in objects:
            found += [f"{name} {fault}" for fault in _faults(lambda: object_of(members.get(name)))]  # noqa: B023 - called at once
        return "; ".join(dict.fromkeys(found[:_SHOWN]))


def _faults(parse: Callable[[], object]) -> Iterable[str]:
    try:
        parse()
    except (ValueError, StructureError) as error:
        return [
            ".".join(map(str, steps)) + f" {fault}" if steps else fault
            for steps, fault in strict.faults_of(error)
        ]
    return ()
