"""JSON in and out: strict reading, canonical writing, derived ids, instants, and records from documents.

Pure functions. Whatever is wrong with a document is reported at once, each fault with its JSON pointer
(RFC 6901), and no message repeats what the document holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Self

import orjson
import rfc8785
from attrs import frozen

from notifyd.errors import Fault, InvalidError, MalformedError
from notifyd.model import Instant
from notifyd.wire.records import Check, invalid, pointer, structure

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_ITEMS",
    "MAX_STRING",
    "RFC3339",
    "Check",
    "Document",
    "canonical",
    "derived_id",
    "invalid",
    "loads",
    "parse_instant",
    "pointer",
    "rfc3339",
    "structure",
]

MAX_INTEGER: Final = 2**53
"""The largest integer read, either sign: beyond it not every reader of JSON sees the same number."""

MAX_STRING: Final = 16_384
"""How many characters a string or a member's name may have."""

MAX_ITEMS: Final = 1_000
"""How many items an array and how many members an object may have."""

MAX_DEPTH: Final = 32
"""How deep arrays and objects may nest."""


# --- reading -----------------------------------------------------------------------------------------------

# orjson is quick, but reads a very long integer as a float, keeps the last of two members with one name, and
# knows no bounds. Scans of the raw bytes, as quick, show that a document is beyond suspicion; only where they
# do not, the exact and slow reading follows.
_ALIKE: Final = bytes.maketrans(b"123456789\t\n\r", b"000000000   ")
_LONG_NUMBER: Final = b"0" * len(str(MAX_INTEGER))
# orjson refuses some JSON for its own bounds, in words that change with its releases: the text tells which it was.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[{}\]]")
_NUMBER: Final = re.compile(rb"[0-9][0-9.eE+-]*")


def loads(raw: bytes) -> Any:
    """Read one JSON text strictly (RFC 8259, and I-JSON's rules of RFC 7493 on names, numbers and Unicode).

    Raises `MalformedError`, with line and column, for what is not JSON or not UTF-8, NaN, and lone
    surrogates; `InvalidError`, with every fault, for integers beyond ±2^53, names given twice, and what
    exceeds `MAX_STRING`, `MAX_ITEMS` or `MAX_DEPTH`. A number with a fraction or an exponent is a double.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        if message := _beyond_reading(raw):
            raise InvalidError([Fault("", f"{message} ({where})")]) from None
        raise MalformedError(f"the body is not JSON in UTF-8: {error.msg} ({where})") from None
    if not _beyond_suspicion(raw, value):
        _inspect(raw, value)
    return value


def _beyond_reading(raw: bytes) -> str | None:
    """The fault of a text that orjson refuses, whether or not it is JSON."""
    bare = _STRING.sub(b'""', raw)
    depth = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return f"must not nest deeper than {MAX_DEPTH}"
    if any(_is_infinite(number) for number in _NUMBER.findall(bare)):
        return "must not hold a number beyond the range of a double"
    return None


def _is_infinite(number: bytes) -> bool:
    try:
        return math.isinf(float(number))
    except ValueError:
        return False


def _beyond_suspicion(raw: bytes, value: Any) -> bool:
    alike = raw.translate(_ALIKE)
    return (
        len(raw) <= MAX_STRING
        and raw.count(b",") < MAX_ITEMS
        and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH
        and _LONG_NUMBER not in alike
        and (orjson.dumps(value) == raw or _no_name_twice(alike, value))
    )


def _no_name_twice(alike: bytes, value: Any) -> bool:
    """Is it certain that no member name is repeated? False means unknown.

    Where no space stands before a colon, every member shows as `":`; a string's content may show so too. orjson
    keeps one member of each name: as many `":` as members kept means that no name was repeated.
    """
    return b" :" not in alike and alike.count(b'":') == _count_members(value)


def _count_members(value: Any) -> int:
    count, nodes = 0, [value]
    for node in nodes:  # grows while it is walked
        kind = type(node)
        if kind is dict:
            count += len(node)
            nodes += node.values()
        elif kind is list:
            nodes += node
    return count


class _Members(list[tuple[str, Any]]):
    """An object as written: every member, in order."""


def _inspect(raw: bytes, value: Any) -> None:
    if deep := _too_deep(value, ()):
        raise InvalidError([Fault(pointer(*deep), f"must not nest deeper than {MAX_DEPTH}")])
    # The depth is bounded by now, so that neither the standard reader nor the walk can exhaust the stack.
    exact = json.loads(raw.decode(), object_pairs_hook=_Members, parse_int=_exact)
    faults: list[Fault] = []
    _find_faults(exact, (), faults)
    if faults:
        raise invalid(faults)


def _exact(digits: str) -> int:
    # Python refuses to convert thousands of digits; twenty are enough to see that it is too large.
    return int(digits[:20])


def _too_deep(value: Any, path: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """Where nesting first exceeds the bound."""
    if not isinstance(value, dict | list):
        return None
    if len(path) == MAX_DEPTH:
        return path
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        if deep := _too_deep(child, (*path, key)):
            return deep
    return None


def _find_faults(value: Any, path: tuple[str | int, ...], faults: list[Fault]) -> None:
    def fault(message: str) -> None:
        faults.append(Fault(pointer(*path), message))

    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        fault("must not be an integer beyond 2^53")
    elif isinstance(value, str) and len(value) > MAX_STRING:
        fault(f"must not be longer than {MAX_STRING} characters")
    elif isinstance(value, list):
        kind = "members" if isinstance(value, _Members) else "items"
        if len(value) > MAX_ITEMS:
            fault(f"must not have more than {MAX_ITEMS} {kind}")
            return
        if isinstance(value, _Members):
            faults.extend(_name_faults(value, path))
        for key, child in value if isinstance(value, _Members) else enumerate(value):
            _find_faults(child, (*path, key), faults)


def _name_faults(members: _Members, path: tuple[str | int, ...]) -> Iterable[Fault]:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            yield Fault(pointer(*path, name), "must not be given twice")
        elif len(name) > MAX_STRING:
            yield Fault(pointer(*path, name), f"must not have a name longer than {MAX_STRING} characters")
        seen.add(name)


# --- writing -----------------------------------------------------------------------------------------------


def canonical(value: Any, *, plain: bool = False) -> bytes:
    """The JSON Canonicalization Scheme's bytes (RFC 8785) of a JSON value. Raises ValueError for another.

    `plain`: it is known to hold only what orjson writes as JCS does, see `Document`.

    orjson escapes strings as JCS does, and alone writes the same bytes where there is no float, whose format
    differs, and no character beyond U+FFFF in a name: it sorts names by code point, JCS by UTF-16 unit.
    """
    try:
        if plain or _is_plain(value):
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            if text.isascii() or text == text.translate(None, _FOUR_BYTES):
                return text
        return orjson.dumps(_ordered(value))
    except TypeError as error:
        raise ValueError(f"not a JSON value: {error}") from None


_FOUR_BYTES: Final = bytes(range(0xF0, 0xF5))
"""What a character beyond U+FFFF begins with in UTF-8."""


def _is_plain(value: Any) -> bool:
    """Does `value` hold only what orjson writes as JCS does, apart from the order of names?"""
    nodes = [value]
    for node in nodes:  # grows while it is walked
        kind = type(node)
        if kind is str or kind is bool or node is None:
            continue
        if kind is dict:
            nodes += node.values()
        elif kind is list or kind is tuple:
            nodes += node
        elif kind is not int or not -MAX_INTEGER <= node <= MAX_INTEGER:
            return False
    return True


@frozen
class Document:
    """A JSON object that was read, and its canonical text. `plain` is for what is made of it: see `canonical`."""

    members: Mapping[str, Any]
    text: bytes
    plain: bool

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Self:
        plain = _is_plain(members)
        return cls(members, canonical(members, plain=plain), plain)


def _ordered(value: Any) -> Any:
    """`value` with its names in JCS's order and its doubles as JCS writes them."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value, key=_utf16)}
    if isinstance(value, int):  # a boolean too
        return value if -MAX_INTEGER <= value <= MAX_INTEGER else orjson.Fragment(_large(value))
    if isinstance(value, float):
        return orjson.Fragment(rfc8785.dumps(value))
    if isinstance(value, _ARRAYS):
        return [_ordered(item) for item in value]
    raise TypeError(type(value).__name__)


_ARRAYS: Final = (list, tuple)


def _utf16(name: str) -> bytes:
    return str.encode(name, "utf-16-be", "surrogatepass")  # a surrogate is refused when it is written


def _large(number: int) -> bytes:
    """An integer beyond 2^53 is taken only as JCS itself writes a double, such as 10^17: texts read back."""
    text = b"%d" % number if abs(number) < 10**21 else b""
    if not text or rfc8785.dumps(float(number)) != text:
        raise ValueError("an integer beyond 2^53 is not the same number to every reader")
    return text


def derived_id(purpose: str, tenant: str, *parts: str | int) -> str:
    """Hex SHA-256 over the JCS array `[purpose, tenant, ...]`: the same parts always make the same id."""
    named = [purpose, tenant, *parts]
    try:
        # Without floats and objects orjson writes as JCS does, and this option refuses what is not within 2^53.
        text = orjson.dumps(named, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:
        text = canonical(named)
    return hashlib.sha256(text).hexdigest()


def event_key(tenant: str, event_id: str) -> str:
    """The key that one of Task Runner's events is stored under."""
    return derived_id("event", tenant, event_id)


# --- instants ----------------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MIN: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MAX: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
RFC3339: Final = (
    "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
"""The form of a time, in the part of regular expressions that Python and ECMA-262 share."""

_RFC3339: Final = re.compile(RFC3339)


def parse_instant(text: str) -> Instant:
    """Microseconds since the epoch, from RFC 3339 only; finer fractions are cut. Raises ValueError.

    A leap second (`:60`) is refused, as the clock has none.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-11-04T09:30:00Z")
    try:
        instant = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
    except ValueError:
        raise ValueError("must be a time that exists") from None
    if not _MIN <= instant <= _MAX:
        raise ValueError("must be within the years 1 to 9999 in UTC")
    return instant


def rfc3339(instant: Instant) -> str:
    """UTC with `Z`: whole seconds, else milliseconds where they are exact, else microseconds."""
    seconds, fraction = divmod(instant, 1_000_000)
    if not fraction:
        return _whole(seconds) + "Z"
    digits = f"{fraction:06d}" if fraction % 1_000 else f"{fraction // 1_000:03d}"
    return f"{_whole(seconds)}.{digits}Z"


@lru_cache(maxsize=64)
def _whole(seconds: int) -> str:
    """Date and time to the second, cached: most instants share a few seconds."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00")
