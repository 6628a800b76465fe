"""Records from documents: attrs classes made of JSON values, strictly, with every fault at once.

A fault has a JSON pointer (RFC 6901) and a message for people, which does not repeat what the document holds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import attrs
from attrs import field, frozen

from notifyd.errors import Fault, InvalidError
from notifyd.wire import strict
from notifyd.wire.strict import Hook, Leaf, Members, Strict, StructureError

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

    `parse` takes the JSON value, and the type beside it, and gives the record's; it raises ValueError with a
    message such as "must be an even number", which must not repeat the value. `schema` says what it takes, in JSON
    Schema (2020-12): the published contract is made of it.
    """

    parse: Leaf[Any]
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
        return _QUICK.record(document, cls)
    except (ValueError, StructureError):
        pass  # what it was, and what else there is, the thorough converter tells
    try:
        return _THOROUGH.record(document, cls)
    except (ValueError, StructureError) as error:
        found = strict.faults_of(error)
        raise invalid(Fault(base + pointer(*steps), message) for steps, message in found) from None


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
    return ValueError(strict.refusal(what, value, _KINDS))


string: Final = strict.exactly(str, "a string", _KINDS)


def _number(value: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise expected("a number", value)
    return float(value)


def listed(choices: Iterable[str]) -> str:
    """`a, b or c`."""
    *head, last = choices
    return f"{', '.join(head)} or {last}" if head else last


def one_of(choices: Iterable[_T]) -> Leaf[_T]:
    """A parser of one of some strings, such as an enumeration's members."""
    by_name = {str(choice): choice for choice in choices}
    return strict.one_of(by_name, f"must be {listed(by_name)}")


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

    def parse(value: Any, _: Any = None) -> str:
        if type(value) is not str or len(value) > longest or not matches(value):
            string(value)
            raise ValueError(f"must be {form}")
        return value

    bound = {} if max_length is None else {"maxLength": max_length}
    return Check(parse, {"type": "string", "description": form, "pattern": f"^(?:{pattern})$", **bound})


def between(low: int, high: int) -> Check:
    """An integer from `low` to `high`."""

    def parse(value: Any, _: Any = None) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be an integer from {low} to {high}")
        return value

    return Check(parse, {"type": "integer", "minimum": low, "maximum": high})


# --- the converters ----------------------------------------------------------------------------------------


class _Json(Strict):
    """JSON: camelCase, null where an attribute may be None, members beginning `x-` let through."""

    kinds = _KINDS

    def __init__(self, *, thorough: bool) -> None:
        super().__init__({float: _number, Any: lambda value: value}, thorough=thorough)

    def members(self, cls: type[Any]) -> Members:
        return {wire_name(attribute): attribute for attribute in attrs.fields(attrs.resolve_types(cls))}

    def unknown(self, name: str, members: Members) -> str | None:
        return None if name.startswith("x-") else "is not a known member"

    def choice(self, choices: Mapping[Any, Any]) -> Hook:
        return strict.one_of(choices, f"must be {listed(map(str, choices))}")

    def annotated(self, kind: Any) -> Hook:
        return next(mark.parse for mark in kind.__metadata__ if isinstance(mark, Check))


_QUICK: Final = _Json(thorough=False)
_THOROUGH: Final = _Json(thorough=True)
