"""Records from documents: attrs classes made of JSON values, strictly, with every fault at once.

A fault has a JSON pointer (RFC 6901) and a message for people, which does not repeat what the document holds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import attrs
from attrs import field, frozen
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from notifyd.errors import Fault, InvalidError
from notifyd.security.secrets import Secret

MAX_FAULTS: Final = 100
"""How many faults are reported of one document; one more says that there were more."""

_NAME_SHOWN: Final = 100

_T = TypeVar("_T")


def pointer(*segments: str | int) -> str:
    """A JSON pointer. A long member name is cut: a pointer is for people and goes into logs."""
    return "".join("/" + _shown(str(s)).replace("~", "~0").replace("/", "~1") for s in segments)


def _shown(name: str) -> str:
    return name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "…"


def invalid(faults: Iterable[Fault]) -> InvalidError:
    """The error for `faults`, of which a bounded number is kept."""
    found = list(faults)
    rest = len(found) - MAX_FAULTS
    if rest > 0:
        found[MAX_FAULTS:] = [Fault("", f"and {rest} more faults")]
    return InvalidError(found)


@frozen(eq=False)
class Check:
    """How a member is read, as `Annotated[TYPE, Check(parse)]`.

    `parse` takes the JSON value and gives the record's; it raises ValueError with a message such as "must be
    an even number", which must not repeat the value. `schema` says what it takes, in JSON Schema (2020-12):
    the published contract is made of it.
    """

    parse: Callable[[Any], Any]
    schema: Mapping[str, Any] = field(factory=dict)


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


# --- single values -----------------------------------------------------------------------------------------

_KINDS: Final[Mapping[type, str]] = {
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
    kind = _KINDS[type(value)]
    return ValueError(f"must be {what}" if what == kind else f"must be {what}, not {kind}")


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


def listed(choices: Iterable[str]) -> str:
    """`a, b or c`."""
    *head, last = choices
    return f"{', '.join(head)} or {last}" if head else last


def one_of(choices: Iterable[_T]) -> Callable[[Any], _T]:
    """A parser of one of some strings, such as an enumeration's members."""
    by_name = {str(choice): choice for choice in choices}
    refusal = f"must be {listed(by_name)}"

    def parse(value: Any) -> _T:
        if type(value) is not str or value not in by_name:
            raise ValueError(refusal)
        return by_name[value]

    return parse


def choice(choices: Iterable[Any]) -> Check:
    """One of some strings, such as an enumeration's members."""
    names = list(choices)
    return Check(one_of(names), {"type": "string", "enum": [str(name) for name in names]})


def matching(pattern: str, form: str, *, max_length: int | None = None) -> Check:
    """A string that `pattern` matches as a whole; `form` says in words what it must be.

    The contract publishes the pattern: keep to what the regular expressions of Python, ECMA-262 and RE2 share.
    """
    matches = re.compile(pattern).fullmatch
    longest = sys.maxsize if max_length is None else max_length

    def parse(value: Any) -> str:
        if type(value) is not str or len(value) > longest or not matches(value):
            string(value)
            raise ValueError(f"must be {form}")
        return value

    bound = {} if max_length is None else {"maxLength": max_length}
    return Check(parse, {"type": "string", "description": form, "pattern": f"^(?:{pattern})$", **bound})


def between(low: int, high: int) -> Check:
    """An integer from `low` to `high`."""

    def parse(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be an integer from {low} to {high}")
        return value

    return Check(parse, {"type": "integer", "minimum": low, "maximum": high})


# --- the converters ----------------------------------------------------------------------------------------

# cattrs writes the code that makes a record. The quick converter stops at the first fault; the thorough one,
# asked only where the quick one stopped, goes on and gathers them all.
_Hook = Callable[[Any, Any], Any]


def _faults_of(error: Exception, at: str) -> list[Fault]:
    if isinstance(error, InvalidError):
        return [Fault(at + fault.pointer, fault.message) for fault in error.faults]
    if isinstance(error, KeyError):
        return [Fault(at, "is required")]
    if isinstance(error, ValueError):
        return [Fault(at, str(error))]
    raise error


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


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _hook_of(converter: Converter, kind: Any) -> _Hook:
    """The converter's own, but for an enumeration of strings, which it would take for a string."""
    return _parse_hook(one_of(kind)) if _is_enum(kind) else converter.get_structure_hook(kind)


def _array_hook(converter: Converter, kind: Any) -> _Hook:
    item = get_args(kind)[0]
    hook = _hook_of(converter, item)
    thorough = converter.detailed_validation

    def structure_array(value: Any, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise expected("an array", value)
        return tuple(
            _each(enumerate(value), hook, item) if thorough else [hook(each, item) for each in value]
        )

    return structure_array


def _object_hook(converter: Converter, kind: Any) -> _Hook:
    item = get_args(kind)[1]
    hook = None if item is Any else _hook_of(converter, item)
    thorough = converter.detailed_validation

    def structure_object(value: Any, _: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected("an object", value)
        if hook is None:
            return value
        if thorough:
            return dict(zip(value, _each(value.items(), hook, item), strict=True))
        return {key: hook(each, item) for key, each in value.items()}

    return structure_object


def _optional_hook(converter: Converter, kind: Any) -> _Hook:
    item = next(each for each in get_args(kind) if each is not type(None))
    hook = _hook_of(converter, item)
    return lambda value, _: None if value is None else hook(value, item)


def _record_hook(converter: Converter, cls: Any) -> _Hook:
    attributes = attrs.fields(attrs.resolve_types(cls))
    names = {attribute.name: wire_name(attribute) for attribute in attributes}
    known = frozenset(names.values())
    named: dict[str, Any] = {
        one.name: override(
            rename=names[one.name], struct_hook=_hook_of(converter, one.type) if _is_enum(one.type) else None
        )
        for one in attributes
    }
    make = make_dict_structure_fn(cls, converter, **named)

    def structure_record(value: Any, _: Any) -> Any:
        if type(value) is not dict:
            raise expected("an object", value)
        faults = [] if value.keys() <= known else _unknown_members(value, known)
        try:
            record = make(value, cls)
        except ClassValidationError as group:
            faults += _attribute_faults(group, names)
        if faults:
            raise InvalidError(faults)
        return record

    return structure_record


def _unknown_members(document: dict[str, Any], known: frozenset[str]) -> list[Fault]:
    unknown = (name for name in document if name not in known and not name.startswith("x-"))
    return [Fault(pointer(name), "is not a known member") for name in unknown]


def _attribute_faults(group: ClassValidationError, names: Mapping[str, str]) -> list[Fault]:
    noted, others = group.group_exceptions()
    for other in others:  # nothing a document can cause
        raise other
    return [fault for error, note in noted for fault in _faults_of(error, pointer(names[note.name]))]


def _check_of(kind: Any) -> Check | None:
    return next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Check)), None)


def _parse_hook(parse: Callable[[Any], Any]) -> _Hook:
    return lambda value, _: parse(value)


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
        converter.register_structure_hook(kind, _parse_hook(parse))
    factories: tuple[tuple[Callable[[Any], bool], Callable[[Converter, Any], _Hook]], ...] = (
        (lambda kind: get_origin(kind) is tuple, _array_hook),
        (lambda kind: get_origin(kind) is Mapping, _object_hook),
        (lambda kind: type(None) in get_args(kind), _optional_hook),
        (attrs.has, _record_hook),
        (
            lambda kind: _check_of(kind) is not None,
            lambda _, kind: _parse_hook(cast(Check, _check_of(kind)).parse),
        ),
    )
    for applies, make in factories:
        converter.register_structure_hook_factory(applies, partial(make, converter))
    return converter


_QUICK: Final = _converter(thorough=False)
_THOROUGH: Final = _converter(thorough=True)
