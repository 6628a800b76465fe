"""What a member of a record is, read from its annotation once for the schemas and for both languages."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from enum import Enum, StrEnum, auto
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import attrs
from attrs import evolve, field, frozen

from notifyd.security.secrets import Secret
from notifyd.wire import events
from notifyd.wire.records import Check, wire_name
from tests.contract.texts import member_text


class Kind(Enum):
    STRING = auto()
    INTEGER = auto()
    NUMBER = auto()
    BOOLEAN = auto()
    TIME = auto()
    CONSTANT = auto()
    ENUMERATION = auto()
    ARRAY = auto()
    OBJECT = auto()
    RECORD = auto()
    ANY = auto()


@frozen
class Shape:
    """One type of the contract. `name` is that of its schema, "" for one that has none of its own.

    `facts` are what JSON Schema says of it beyond its kind; `choices` a constant's or an enumeration's values;
    `item` what an array or an object holds; `cls` a record's or an enumeration's class.
    """

    kind: Kind
    name: str = ""
    nullable: bool = False
    facts: Mapping[str, Any] = field(factory=dict)
    choices: tuple[str, ...] = ()
    item: Shape | None = None
    cls: type[Any] | None = None


@frozen
class Member:
    """A member of a record, by its name on the wire. One that is not required may be left out."""

    name: str
    shape: Shape
    required: bool
    default: int | None
    text: str = ""


NAMES: Final[Mapping[Any, str]] = {
    alias: name for name, alias in vars(events).items() if get_origin(alias) is Annotated
}
"""The forms of strings and numbers that the records of `notifyd.wire.events` give a name."""

_PLAIN: Final[Mapping[Any, Shape]] = {
    str: Shape(Kind.STRING),
    int: Shape(Kind.INTEGER),
    float: Shape(Kind.NUMBER),
    bool: Shape(Kind.BOOLEAN),
    Any: Shape(Kind.ANY),
    Secret: Shape(Kind.STRING, facts={"minLength": 1, "format": "password"}),
}


def shape_of(kind: Any) -> Shape:
    """Raises TypeError for an annotation that the contract cannot tell of."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return evolve(shape_of(inner), nullable=True)
    if origin is Annotated:
        return _checked(kind, arguments[1])
    if origin is Literal:
        return Shape(Kind.CONSTANT, choices=arguments)
    if origin is tuple:
        return Shape(Kind.ARRAY, item=shape_of(arguments[0]))
    if origin is Mapping:
        return Shape(Kind.OBJECT, item=shape_of(arguments[1]))
    return _class_shape(kind)


def _class_shape(kind: Any) -> Shape:
    if attrs.has(kind):
        return Shape(Kind.RECORD, kind.__name__, cls=kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return Shape(Kind.ENUMERATION, kind.__name__, choices=tuple(kind), cls=kind)
    raise TypeError(f"the contract has no form for {kind}")


_CHECKED: Final = {"string": Kind.STRING, "integer": Kind.INTEGER}


def _checked(kind: Any, check: Check) -> Shape:
    facts = {name: value for name, value in check.schema.items() if name not in ("type", "enum")}
    choices = tuple(check.schema.get("enum", ()))
    if choices:
        what = Kind.ENUMERATION
    elif check.schema.get("format") == "date-time":
        what = Kind.TIME
    else:
        what = _CHECKED[check.schema["type"]]
    return Shape(what, NAMES.get(kind, ""), facts=facts, choices=choices)


def members_of(shape: Shape) -> list[Member]:
    """A record's members in order, constants first; none of what is no record.

    What is required has no default, or is a constant.
    """
    if shape.kind is not Kind.RECORD or shape.cls is None:
        return []
    return sorted(_members(shape.cls), key=lambda member: member.shape.kind is not Kind.CONSTANT)


def _members(cls: type[Any]) -> Iterator[Member]:
    for attribute in attrs.fields(attrs.resolve_types(cls)):
        if (name := wire_name(attribute)) == "-":
            continue
        shape = shape_of(attribute.type)
        required = attribute.default is attrs.NOTHING or shape.kind is Kind.CONSTANT
        default = attribute.default if type(attribute.default) is int else None
        yield Member(name, shape, required, default, member_text(cls, name))


def text_of(shape: Shape) -> str:
    """What a record or an enumeration is, each paragraph in one line: its class's own docstring."""
    own = vars(shape.cls).get("__doc__") if shape.cls is not None else None
    if own:
        paragraphs = inspect.cleandoc(own).split("\n\n")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return "One of these values." if shape.cls is None else "One of these values; more may follow."


def known_types(roots: list[type[Any]]) -> list[Shape]:
    """Every record and enumeration that `roots` lead to, each once, in the order they are met."""
    found: dict[str, Shape] = {}

    def visit(shape: Shape) -> None:
        if shape.item is not None:
            visit(shape.item)
        if not shape.name:
            return
        if shape.name in found:
            if found[shape.name].cls is not shape.cls:
                raise TypeError(f"two types of the contract are named {shape.name}")
            return
        found[shape.name] = evolve(shape, nullable=False)
        for member in members_of(shape):
            visit(member.shape)

    for root in roots:
        visit(shape_of(root))
    return list(found.values())
