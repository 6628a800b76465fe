"""Documents into attrs records, strictly: nothing is coerced, and every fault is told with its place.

`notifyd.wire.records` reads JSON by it and `notifyd.config.structure` TOML. A notation is a subclass of `Strict`
that says what members are called, how single values are read, and which unknown members are refused.
"""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import attrs
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn, override

from notifyd.security.secrets import Secret

T = TypeVar("T")
Parse: TypeAlias = Callable[[Any], Any]
"""Reads one value. Raises ValueError with a message that does not repeat it."""

Hook: TypeAlias = Callable[[Any, Any], Any]
"""`Parse` as cattrs calls it, with the type as a second argument. Also raises `StructureError`."""

T_co = TypeVar("T_co", covariant=True)


class Leaf(Protocol[T_co]):
    """Both, with no use for the type: to wrap each reader in a hook would cost a call for each value."""

    def __call__(self, value: Any, kind: Any = None, /) -> T_co: ...


Steps: TypeAlias = tuple[str | int, ...]
"""The names and indexes that lead from a value to a part of it."""

Members: TypeAlias = "Mapping[str, attrs.Attribute[Any]]"
"""A record's attributes by their names in the notation."""


class StructureError(Exception):
    """What is wrong with the parts of a value: each fault with the steps that lead to it from there."""

    def __init__(self, faults: Iterable[tuple[Steps, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(message for _, message in self.faults))


def faults_of(error: ValueError | StructureError) -> tuple[tuple[Steps, str], ...]:
    return error.faults if isinstance(error, StructureError) else (((), str(error)),)


# --- single values -----------------------------------------------------------------------------------------


def refusal(what: str, value: object, kinds: Mapping[type, str]) -> str:
    """`must be WHAT, not KIND`, without the value; `kinds` names the types that a notation has."""
    kind = kinds.get(type(value), "this")
    return f"must be {what}" if what == kind else f"must be {what}, not {kind}"


def exactly(kind: type[T], what: str, kinds: Mapping[type, str]) -> Leaf[T]:
    """A parser of exactly this type: a boolean is no integer, and text is neither."""

    def parse(value: Any, _: Any = None) -> T:
        if type(value) is not kind:
            raise ValueError(refusal(what, value, kinds))
        return value

    return parse


def one_of(choices: Mapping[Any, T], refused: str) -> Leaf[T]:
    """A parser of one of some plain values, each given what it means. 1 is neither `1.0` nor `true`."""
    known: dict[type, dict[Any, T]] = {}
    for choice, meant in choices.items():
        known.setdefault(type(choice), {})[choice] = meant

    def parse(value: Any, _: Any = None) -> T:
        alike = known.get(type(value))
        if alike is None or value not in alike:
            raise ValueError(refused)
        return alike[value]

    return parse


# --- the converter -----------------------------------------------------------------------------------------

_ARRAYS: Final[Mapping[Any, Callable[[Sequence[Any]], Any]]] = {
    tuple: tuple,
    list: list,
    Sequence: tuple,
    frozenset: frozenset,
}
_OBJECTS: Final = frozenset({Mapping, dict})
_UNIONS: Final = frozenset({Union, types.UnionType})


class Strict(ABC):
    """A converter that coerces nothing.

    A `thorough` one goes on after a fault and gathers them all. One that is not stops at the first, does not say
    where it is, and is several times as quick: cattrs writes code for each record.
    """

    kinds: ClassVar[Mapping[type, str]]
    """What the notation calls its types, such as "an array"."""

    def __init__(self, leaves: Mapping[Any, Parse], *, thorough: bool = True) -> None:
        """`leaves` are the types of single values, beside strings, integers, booleans and secrets."""
        self._string = exactly(str, "a string", self.kinds)
        self._thorough = thorough
        self._converter = Converter(detailed_validation=False)
        self._record_hook: Callable[[Any], Hook] = lru_cache(maxsize=None)(self._converter.get_structure_hook)
        common: dict[Any, Hook] = {
            str: self._string,
            int: exactly(int, "an integer", self.kinds),
            bool: exactly(bool, "a boolean", self.kinds),
            Secret: _hook(self.secret),
        }
        self._register(common | {kind: _hook(parse) for kind, parse in leaves.items()})

    def record(self, document: Any, cls: type[T]) -> T:
        """Raises ValueError or `StructureError`."""
        return cast(T, self._record_hook(cls)(document, cls))

    def hook(self, kind: Any) -> Hook:
        """What makes a `kind`. Raises `StructureHandlerNotFoundError` for a type that no document can become."""
        if _is_enum(kind):  # cattrs would take an enumeration of strings for a string
            return self.choice({member.value: member for member in kind})
        return self._converter.get_structure_hook(kind)

    # --- what a notation decides

    @abstractmethod
    def members(self, cls: type[Any]) -> Members: ...

    @abstractmethod
    def unknown(self, name: str, members: Members) -> str | None:
        """What is wrong with a member that a record does not have; None where it is let through."""

    @abstractmethod
    def choice(self, choices: Mapping[Any, Any]) -> Hook:
        """`one_of`, in the notation's words."""

    @abstractmethod
    def annotated(self, kind: Any) -> Hook: ...

    def secret(self, value: Any) -> Secret:
        if not self._string(value):
            raise ValueError("must not be empty")
        return Secret(value)

    def build(self, cls: type[Any], given: Mapping[str, Any]) -> Any:
        """The record made of values by attribute name. Raises `StructureError`."""
        aliases = {attribute.name: attribute.alias or attribute.name for attribute in attrs.fields(cls)}
        return cls(**{aliases[name]: value for name, value in given.items()})

    def refusals(self, cls: type[Any], given: Mapping[str, Any]) -> Iterable[tuple[Steps, str]]:
        """What a record would refuse of the values that have no fault of their own, where others have."""
        return ()

    # --- what they share

    def _register(self, leaves: Mapping[Any, Hook]) -> None:
        factories: list[tuple[Callable[[Any], bool], Callable[[Any], Hook]]] = [
            (lambda kind: True, _unsupported),
            (attrs.has, self._record if self._thorough else self._quick_record),
            (lambda kind: get_origin(kind) in _ARRAYS, self._array),
            (lambda kind: get_origin(kind) in _OBJECTS, self._object),
            (lambda kind: get_origin(kind) in _UNIONS, self._optional),
            (lambda kind: get_origin(kind) is Literal, self._literal),
            (lambda kind: get_origin(kind) is Annotated, self.annotated),
            (lambda kind: kind in leaves, lambda kind: leaves[kind]),
        ]
        for applies, factory in factories:
            self._converter.register_structure_hook_factory(applies, factory)
        for kind, hook in leaves.items():
            if isinstance(kind, type):  # cattrs looks for a class among its own, coercing hooks first
                self._converter.register_structure_hook(kind, hook)

    def _literal(self, kind: Any) -> Hook:
        return self.choice({value: value for value in get_args(kind)})

    def _optional(self, kind: Any) -> Hook:
        inner = [each for each in get_args(kind) if each is not type(None)]
        if len(inner) != 1:
            return _unsupported(kind)
        item, hook = inner[0], self.hook(inner[0])
        return lambda value, _: None if value is None else hook(value, item)

    def _array(self, kind: Any) -> Hook:
        item, *rest = get_args(kind)
        if rest not in ([], [Ellipsis]):
            return _unsupported(kind)
        hook, make, thorough = self.hook(item), _ARRAYS[get_origin(kind)], self._thorough

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise ValueError(refusal(self.kinds[list], value, self.kinds))
            if not thorough:
                return make([hook(each, item) for each in value])
            gathered = _Gathered()
            for index, each in enumerate(value):
                gathered.take(index, hook, each, item)
            return make(gathered.done())

        return structure

    def _object(self, kind: Any) -> Hook:
        key, item = get_args(kind)
        if key is not str:
            return _unsupported(kind)
        hook, thorough = self.hook(item), self._thorough

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise self._no_object(value)
            if item is Any:
                return value
            if not thorough:
                return {name: hook(each, item) for name, each in value.items()}
            gathered = _Gathered()
            for name, each in value.items():
                gathered.take(name, hook, each, item)
            return dict(zip(value, gathered.done(), strict=True))

        return structure

    def _record(self, cls: Any) -> Hook:
        members = self.members(cls)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise self._no_object(value)
            gathered, given = _Gathered(), dict[str, Any]()
            for name in value:
                if name not in members and (message := self.unknown(name, members)):
                    gathered.refuse(name, message)
            for name, attribute in members.items():
                if name in value:
                    if gathered.take(name, self.hook(attribute.type), value[name], attribute.type):
                        given[attribute.name] = gathered.results[-1]
                elif attribute.default is attrs.NOTHING:
                    gathered.refuse(name, "is required")
            if gathered.faults:
                raise StructureError([*gathered.faults, *self.refusals(cls, given)])
            return self.build(cls, given)

        return structure

    def _quick_record(self, cls: Any) -> Hook:
        members = self.members(cls)
        make = make_dict_structure_fn(
            cls, self._converter, **{one.name: self._renamed(name, one) for name, one in members.items()}
        )
        known = frozenset(members)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise self._no_object(value)
            if not value.keys() <= known:
                for name in value.keys() - known:
                    if message := self.unknown(name, members):
                        raise ValueError(message)
            try:
                return make(value, cls)
            except KeyError:
                raise ValueError("is required") from None

        return structure

    def _renamed(self, name: str, attribute: attrs.Attribute[Any]) -> Any:
        return override(
            rename=name, struct_hook=self.hook(attribute.type) if _is_enum(attribute.type) else None
        )

    def _no_object(self, value: object) -> ValueError:
        return ValueError(refusal(self.kinds[dict], value, self.kinds))


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _hook(parse: Parse) -> Hook:
    return lambda value, _: parse(value)


def _unsupported(kind: Any) -> Hook:
    raise StructureHandlerNotFoundError(f"no document can become the type {kind}", type_=kind)


class _Gathered:
    """Results of a value's parts, and the faults of those that gave none."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.faults: list[tuple[Steps, str]] = []

    def refuse(self, step: str, message: str) -> None:
        self.faults.append(((step,), message))

    def take(self, step: str | int, hook: Hook, value: object, kind: Any) -> bool:
        """Is there a result?"""
        try:
            self.results.append(hook(value, kind))
        except (ValueError, StructureError) as error:
            self.faults.extend(((step, *steps), message) for steps, message in faults_of(error))
            return False
        return True

    def done(self) -> list[Any]:
        """All results. Raises `StructureError` where any part had a fault."""
        if self.faults:
            raise StructureError(self.faults)
        return self.results
