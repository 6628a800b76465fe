"""JSON in and out: strict reading, canonical writing, derived ids, instants, and records from documents.

Pure functions. Whatever is wrong with a document is reported at once, each fault with its JSON pointer
(RFC 6901), and no message repeats what the document holds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import attrs
import orjson
import rfc8785
from attrs import frozen
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from notifyd.errors import Fault, InvalidError, MalformedError
from notifyd.model import Instant
from notifyd.secrets import Secret

MAX_INTEGER: Final = 2**53
"""The largest integer read, either sign: beyond it not every reader of JSON sees the same number."""

MAX_STRING: Final = 16_384
"""How many characters a string or a member's name may have."""

MAX_ITEMS: Final = 1_000
"""How many items an array and how many members an object may have."""

MAX_DEPTH: Final = 32
"""How deep arrays and objects may nest."""

MAX_FAULTS: Final = 100
"""How many faults are reported of one document; one more says that there were more."""

_T = TypeVar("_T")


def pointer(*segments: str | int) -> str:
    """A JSON pointer. A long member name is cut: a pointer is for people and goes into logs."""
    return "".join("/" + _clip(str(s)).replace("~", "~0").replace("/", "~1") for s in segments)


def _clip(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def invalid(faults: Iterable[Fault]) -> InvalidError:
    """The error for `faults`, of which a bounded number is kept."""
    found = list(faults)
    rest = len(found) - MAX_FAULTS
    if rest > 0:
        found[MAX_FAULTS:] = [Fault("", f"and {rest} more faults")]
    return InvalidError(found)


# --- reading -----------------------------------------------------------------------------------------------

# orjson is quick, but reads a very long integer as a float, keeps the last of two members with one name, and
# knows no bounds. Scans of the raw bytes, as quick, show that a document is beyond suspicion; only where they
# do not, the exact and slow reading follows.
_DIGITS: Final = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_LONG_NUMBER: Final = b"0" * len(str(MAX_INTEGER))
_SPACED_COLONS: Final = (b" :", b"\n:", b"\r:", b"\t:")
# What orjson calls its own bound on nesting, by version.
_TOO_DEEP: Final = frozenset({"depth limit exceeded", "Recursion limit reached"})


def loads(raw: bytes) -> Any:
    """Read one JSON text strictly (RFC 8259, and I-JSON's rules of RFC 7493 on names, numbers and Unicode).

    Raises `MalformedError`, with line and column, for what is not JSON or not UTF-8, NaN, and lone
    surrogates; `InvalidError`, with every fault, for integers beyond ±2^53, names given twice, and what
    exceeds `MAX_STRING`, `MAX_ITEMS` or `MAX_DEPTH`.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if error.msg in _TOO_DEEP:
            raise InvalidError([Fault("", f"must not nest deeper than {MAX_DEPTH}")]) from None
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedError(f"the body is not JSON in UTF-8: {error.msg} ({where})") from None
    if not _beyond_suspicion(raw, value):
        _inspect(raw, value)
    return value


def _beyond_suspicion(raw: bytes, value: Any) -> bool:
    return (
        len(raw) <= MAX_STRING
        and raw.count(b",") < MAX_ITEMS
        and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH
        and _LONG_NUMBER not in raw.translate(_DIGITS)
        # With no space before a colon, every member of the text shows as `":`, and so may a string; where the
        # count is that of the members kept, no name came twice.
        and not any(map(raw.__contains__, _SPACED_COLONS))
        and raw.count(b'":') == _count_members(value)
    )


def _count_members(value: Any) -> int:
    count, nodes = 0, [value]
    for node in nodes:  # grows while it is walked
        kind = type(node)
        if kind is dict:
            count += len(node)
            nodes.extend(node.values())
        elif kind is list:
            nodes.extend(node)
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


def canonical(value: Any) -> bytes:
    """The JSON Canonicalization Scheme's bytes (RFC 8785) of a JSON value. Raises ValueError for another.

    orjson writes the same bytes, many times faster, where there is no float (its number format differs) and
    every member's name is ASCII (it sorts by code point, JCS by UTF-16 unit).
    """
    if _is_plain(value):
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # a lone surrogate: the other writer says so
            pass
    return rfc8785.dumps(value)


def _is_plain(value: Any) -> bool:
    nodes = [value]
    for node in nodes:  # grows while it is walked
        kind = type(node)
        if kind is str or kind is bool or node is None:
            continue
        if kind is dict:
            if not all(type(key) is str and key.isascii() for key in node):
                return False
            nodes.extend(node.values())
        elif kind is list or kind is tuple:
            nodes.extend(node)
        elif kind is not int or not -MAX_INTEGER < node < MAX_INTEGER:
            return False
    return True


def derived_id(purpose: str, tenant: str, *parts: str | int) -> str:
    """Hex SHA-256 over the JCS array `[purpose, tenant, ...]`: the same parts always make the same id."""
    return hashlib.sha256(canonical([purpose, tenant, *parts])).hexdigest()


# --- instants ----------------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MIN: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MAX: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


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
    fraction = instant % 1_000_000
    precision = "microseconds" if fraction % 1_000 else "milliseconds" if fraction else "seconds"
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment.isoformat(timespec=precision).removesuffix("+00:00") + "Z"


# --- records from documents --------------------------------------------------------------------------------


@frozen
class Check:
    """How a member is read, as `Annotated[TYPE, Check(parse)]`.

    `parse` takes the JSON value and gives the record's; it raises ValueError with a message such as "must be
    an even number", which must not repeat the value.
    """

    parse: Callable[[Any], Any]


def wire_name(attribute: attrs.Attribute[Any]) -> str:
    """The member's name: the attribute's in camelCase, or `metadata["wire"]`."""
    head, *tail = attribute.name.split("_")
    return str(attribute.metadata.get("wire") or head + "".join(word.capitalize() for word in tail))


def structure(document: Any, cls: type[_T], base: str = "") -> _T:
    """Make the attrs class `cls` of a JSON document, strictly; pointers in faults begin with `base`.

    Nothing is coerced. A member the class does not know is refused by name, unless it begins `x-`. A member
    whose attribute may be None may be null. Raises `InvalidError` with every fault.
    """
    try:
        return _QUICK.structure(document, cls)
    except (ValueError, KeyError, InvalidError):
        pass  # what it was, and what else there is, the thorough converter tells
    try:
        return _THOROUGH.structure(document, cls)
    except (ValueError, InvalidError) as error:
        raise invalid(_faults_of(error, base)) from None


_JSON_KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def expected(what: str, value: Any) -> ValueError:
    """`must be WHAT, not KIND`, without the value."""
    found = _JSON_KINDS.get(type(value), "something else")
    return ValueError(f"must be {what}, not {'a fraction' if isinstance(value, float) else found}")


def string(value: Any) -> str:
    if type(value) is not str:
        raise expected("a string", value)
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise expected("an integer", value)
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise expected("a boolean", value)
    return value


def _number(value: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise expected("a number", value)
    return float(value)


def _secret(value: Any) -> Secret:
    if not string(value):
        raise ValueError("must not be empty")
    return Secret(value)


def one_of(choices: Iterable[_T]) -> Callable[[Any], _T]:
    """A parser of one of some strings, such as an enumeration's members."""
    by_name = {str(choice): choice for choice in choices}
    refusal = "must be " + " or ".join(filter(None, [", ".join([*by_name][:-1]), [*by_name][-1]]))

    def parse(value: Any) -> _T:
        if type(value) is not str or value not in by_name:
            raise ValueError(refusal)
        return by_name[value]

    return parse


def _faults_of(error: Exception, at: str) -> list[Fault]:
    if isinstance(error, InvalidError):
        return [Fault(at + fault.pointer, fault.message) for fault in error.faults]
    if isinstance(error, KeyError):
        return [Fault(at, "is required")]
    if isinstance(error, ValueError):
        return [Fault(at, str(error))]
    raise error


_Hook = Callable[[Any, Any], Any]


def _each(pairs: Iterable[tuple[str | int, Any]], hook: _Hook, kind: Any) -> list[Any]:
    """The items, structured; or every item's faults."""
    done: list[Any] = []
    faults: list[Fault] = []
    for key, item in pairs:
        try:
            done.append(hook(item, kind))
        except (ValueError, InvalidError) as error:
            faults += _faults_of(error, pointer(key))
    if faults:
        raise InvalidError(faults)
    return done


def _array_hook(converter: Converter) -> Callable[[Any], _Hook]:
    def factory(kind: Any) -> _Hook:
        item = get_args(kind)[0]
        hook = converter.get_structure_hook(item)

        def structure_array(value: Any, _: Any) -> tuple[Any, ...]:
            if type(value) is not list:
                raise expected("an array", value)
            return tuple(_each(enumerate(value), hook, item)) if value else ()

        return structure_array

    return factory


def _object_hook(converter: Converter) -> Callable[[Any], _Hook]:
    def factory(kind: Any) -> _Hook:
        item = get_args(kind)[1]
        hook = None if item is Any else converter.get_structure_hook(item)

        def structure_object(value: Any, _: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise expected("an object", value)
            return value if hook is None else dict(zip(value, _each(value.items(), hook, item), strict=True))

        return structure_object

    return factory


def _record_hook(converter: Converter) -> Callable[[Any], _Hook]:
    def factory(cls: Any) -> _Hook:
        attributes = attrs.fields(attrs.resolve_types(cls))
        names = {attribute.name: wire_name(attribute) for attribute in attributes}
        known = frozenset(names.values())
        renamed: dict[str, Any] = {name: override(rename=wire) for name, wire in names.items()}
        make = make_dict_structure_fn(cls, converter, **renamed)

        def structure_record(value: Any, _: Any) -> Any:
            if type(value) is not dict:
                raise expected("an object", value)
            if value.keys() <= known:
                unknown = []
            else:
                unknown = [name for name in value if name not in known and not name.startswith("x-")]
            faults = [Fault(pointer(name), "is not a known member") for name in unknown]
            try:
                record = make(value, cls)
            except ClassValidationError as group:
                faults += _attribute_faults(group, names)
            if faults:
                raise InvalidError(faults)
            return record

        return structure_record

    return factory


def _attribute_faults(group: ClassValidationError, names: Mapping[str, str]) -> list[Fault]:
    noted, others = group.group_exceptions()
    for other in others:  # nothing a document can cause
        raise other
    return [fault for error, note in noted for fault in _faults_of(error, pointer(names[note.name]))]


def _check_of(kind: Any) -> Check | None:
    return next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Check)), None)


def _hook(parse: Callable[[Any], Any]) -> _Hook:
    return lambda value, _: parse(value)


def _checked(kind: Any) -> _Hook:
    return _hook(cast(Check, _check_of(kind)).parse)


def _converter(*, thorough: bool) -> Converter:
    converter = Converter(detailed_validation=thorough)
    primitives: dict[type[Any], Callable[[Any], Any]] = {
        str: string,
        int: _integer,
        bool: _boolean,
        float: _number,
        Secret: _secret,
    }
    for kind, parse in primitives.items():
        converter.register_structure_hook(kind, _hook(parse))
    for origins, hook in (((tuple,), _array_hook), ((Mapping, dict), _object_hook)):
        converter.register_structure_hook_factory(_origin_in(*origins), hook(converter))
    converter.register_structure_hook_factory(attrs.has, _record_hook(converter))
    converter.register_structure_hook_factory(lambda kind: _check_of(kind) is not None, _checked)
    return converter


def _origin_in(*origins: type) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) in origins


_QUICK: Final = _converter(thorough=False)
_THOROUGH: Final = _converter(thorough=True)
