"""The strict converter for TOML: tables into attrs records, nothing coerced, every fault with its path.

A table's key is the attribute's name without a trailing underscore (`from` for `from_`). No message of this
module shows a value; what a record's own validators say is scrubbed by the caller, who knows the secrets.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError

from notifyd.config import units
from notifyd.config.faults import Findings
from notifyd.config.units import Bounds, Duration, Network, SealKey, Signing, Size, Text
from notifyd.security.secrets import Secret

T = TypeVar("T")
Hook: TypeAlias = Callable[[Any, Any], Any]
Steps: TypeAlias = tuple[str | int, ...]


class StructureError(Exception):
    """What is wrong with a value: each fault with the steps that lead to it from there."""

    def __init__(self, faults: Iterable[tuple[Steps, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(message for _, message in self.faults))


class Structurer:
    """One strict converter. `base` is what relative paths start from.

    Each secret is told to `reveal`, and `hide` then takes it out of what a record's own validators say.
    """

    def __init__(
        self,
        base: Path = Path(),
        reveal: Callable[[str], object] = lambda text: None,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._base, self._reveal, self._hide = base, reveal, hide
        self._converter = Converter()
        self._register()

    def into(self, value: object, kind: Any, findings: Findings) -> Any:
        """`value` as a `kind`; None where it has faults, which are added to `findings`."""
        try:
            return self._hook(kind)(value, kind)
        except StructureError as error:
            for steps, message in error.faults:
                findings.under(*steps).add(message)
            return None

    def check_class(self, cls: type[Any]) -> None:
        """Can tables become `cls`? Raises TypeError that names the field which cannot."""
        try:
            attributes = attrs.fields(attrs.resolve_types(cls))
        except NameError as error:
            raise TypeError(f"{cls.__name__} has an annotation that cannot be resolved: {error}") from error
        for attribute in attributes:
            try:
                self._hook(attribute.type or object)
            except StructureHandlerNotFoundError:
                text = f"{cls.__name__}.{attribute.name} has a type that no option can have: {attribute.type}"
                raise TypeError(text) from None

    def _hook(self, kind: Any) -> Hook:
        if isinstance(kind, type) and issubclass(kind, Enum):  # cattrs would take a StrEnum for a str
            return _enumeration(kind)
        return self._converter.get_structure_hook(kind)

    def _register(self) -> None:
        leaves: dict[Any, Callable[[Any], Any]] = {
            str: _string,
            int: _integer,
            float: _float,
            bool: _boolean,
            Secret: self._secret,
            Path: lambda value: self._base / Path(_string(value)).expanduser(),
            Duration: _from_text(units.parse_duration),
            Size: _from_text(units.parse_size),
            SealKey: _from_text(units.parse_seal_key),
            units.Rate: _from_text(units.parse_rate),
            units.Backoff: _from_text(units.parse_backoff),
            units.Listen: _from_text(units.parse_listen),
            Network: _from_text(units.parse_network),
            Network | str: _from_text(units.parse_network_or_host),
        }
        factories: list[tuple[Callable[[Any], bool], Callable[[Any], Hook]]] = [
            (lambda kind: True, _unsupported),
            (attrs.has, self._record),
            (lambda kind: get_origin(kind) in _ARRAYS, self._array),
            (lambda kind: get_origin(kind) in _TABLES, self._table),
            (lambda kind: get_origin(kind) in (Union, types.UnionType), self._optional),
            (lambda kind: get_origin(kind) is Literal, _literal),
            (lambda kind: get_origin(kind) is Annotated, self._annotated),
            (lambda kind: kind in leaves, lambda kind: _leaf(leaves[kind])),
        ]
        for applies, factory in factories:
            self._converter.register_structure_hook_factory(applies, factory)
        for kind, parse in leaves.items():
            if isinstance(kind, type):  # cattrs looks for a class among its own, coercing hooks first
                self._converter.register_structure_hook(kind, _leaf(parse))

    def _secret(self, value: Any) -> Secret:
        if not _string(value):
            raise ValueError("must not be empty")
        self._reveal(value)
        return Secret(value)

    def _annotated(self, kind: Any) -> Hook:
        inner, *marks = get_args(kind)
        hook = self._hook(inner)

        def structure(value: Any, _: Any) -> Any:
            result = hook(value, inner)
            with _as_fault():
                for mark in marks:
                    result = _constrain(result, mark, inner)
            return result

        return structure

    def _optional(self, kind: Any) -> Hook:
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        return self._hook(inner[0]) if len(inner) == 1 else _unsupported(kind)

    def _array(self, kind: Any) -> Hook:
        item, *rest = get_args(kind)
        if rest not in ([], [Ellipsis]):
            return _unsupported(kind)
        hook, make = self._hook(item), _ARRAYS[get_origin(kind)]

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise StructureError([((), must_be("an array", value))])
            gathered = _Gathered()
            for index, element in enumerate(value):
                gathered.take(index, hook, element, item)
            return make(gathered.done())

        return structure

    def _table(self, kind: Any) -> Hook:
        key, item = get_args(kind)
        if key is not str:
            return _unsupported(kind)
        hook = self._hook(item)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise StructureError([((), must_be("a table", value))])
            gathered = _Gathered()
            for name, element in value.items():
                gathered.take(name, hook, element, item)
            return dict(zip(value, gathered.done(), strict=True))

        return structure

    def _record(self, cls: Any) -> Hook:
        options = options_of(cls)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise StructureError([((), must_be("a table", value))])
            gathered = _Gathered()
            for key in sorted(value.keys() - options.keys()):
                gathered.fault((key,), unknown_key(key, options))
            given = [attribute for key, attribute in options.items() if key in value]
            for attribute in given:
                gathered.take(
                    option_key(attribute),
                    self._hook(attribute.type),
                    value[option_key(attribute)],
                    attribute.type,
                )
            for key, attribute in options.items():
                if key not in value and attribute.default is attrs.NOTHING:
                    gathered.fault((key,), "is required")
            results = gathered.done()
            return self._build(cls, {a.name: result for a, result in zip(given, results, strict=True)})

        return structure

    def _build(self, cls: type[Any], given: Mapping[str, Any]) -> Any:
        aliases = {a.name: a.alias or a.name for a in attrs.fields(cls)}
        try:
            return cls(**{aliases[name]: value for name, value in given.items()})
        except Exception as error:  # noqa: BLE001 - a plugin's class may raise anything; it becomes a fault
            whole = StructureError([((), self._hide(_reason(error)))])
        try:
            found = [((key,), self._hide(_reason(error))) for key, error in _failed_validators(cls, given)]
        except Exception:  # noqa: BLE001 - a default or converter raised, as it did above
            raise whole from None
        raise StructureError(found) if found else whole


def options_of(cls: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The keys that a table for `cls` may have."""
    attributes = attrs.fields(attrs.resolve_types(cls))
    return {option_key(a): a for a in attributes if a.init}


def option_key(attribute: attrs.Attribute[Any]) -> str:
    return (attribute.alias or attribute.name).removesuffix("_")


def unknown_key(key: str, known: Iterable[str]) -> str:
    return "is not a known key" + did_you_mean(key, known)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest of `known`; nothing where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


_KINDS: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
    datetime: "a date",
    date: "a date",
    time: "a time",
}

_ARRAYS: Final[Mapping[Any, Callable[[Sequence[Any]], Any]]] = {
    tuple: tuple,
    list: list,
    Sequence: tuple,
    frozenset: frozenset,
}
_TABLES: Final = frozenset({Mapping, dict})


def must_be(what: str, value: object) -> str:
    return f"must be {what}, not {_KINDS.get(type(value), 'this')}"


class _Gathered:
    """Results of a record's, array's or table's parts, and the faults of those that gave none."""

    def __init__(self) -> None:
        self._results: list[Any] = []
        self._faults: list[tuple[Steps, str]] = []

    def fault(self, steps: Steps, message: str) -> None:
        self._faults.append((steps, message))

    def take(self, step: str | int, hook: Hook, value: object, kind: Any) -> None:
        try:
            self._results.append(hook(value, kind))
        except StructureError as error:
            self._faults.extend(((step, *steps), message) for steps, message in error.faults)

    def done(self) -> list[Any]:
        """All results. Raises `StructureError` where any part had a fault."""
        if self._faults:
            raise StructureError(self._faults)
        return self._results


@contextmanager
def _as_fault() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise StructureError([((), str(error))]) from None


# --- one value --------------------------------------------------------------------------------------------


def _leaf(parse: Callable[[Any], Any]) -> Hook:
    def structure(value: Any, _: Any) -> Any:
        with _as_fault():
            return parse(value)

    return structure


def _from_text(parse: Callable[[str], T]) -> Callable[[Any], T]:
    return lambda value: parse(_string(value))


def _typed(kind: type[T], what: str) -> Callable[[Any], T]:
    """Exactly this type: a bool is no int, an int no bool, and text neither."""

    def check(value: Any) -> T:
        if type(value) is not kind:
            raise ValueError(must_be(what, value))
        return value

    return check


_string = _typed(str, "a string")
_integer = _typed(int, "an integer")
_boolean = _typed(bool, "a boolean")


def _float(value: Any) -> float:
    """A float, or an integer, which TOML writes for a whole number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(must_be("a finite number", value))
    return float(value)


def _constrain(value: Any, mark: object, kind: Any) -> Any:
    match mark:
        case Text(parse):
            return parse(value)
        case Signing():
            return units.parse_signing_secret(value)
        case Bounds():
            mark.check(value, _SHOW.get(kind, str))
    return value


_SHOW: Final[Mapping[Any, Callable[[Any], str]]] = {
    Duration: units.show_duration,
    Size: units.show_size,
}


def _literal(kind: Any) -> Hook:
    return _one_of({value: value for value in get_args(kind)})


def _enumeration(kind: Any) -> Hook:
    return _one_of({member.value: member for member in kind})


def _one_of(choices: Mapping[Any, Any]) -> Hook:
    offered = ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)

    def parse(value: Any) -> Any:
        for choice, meant in choices.items():
            if type(choice) is type(value) and choice == value:
                return meant
        raise ValueError(f"must be one of {offered}")

    return _leaf(parse)


def _unsupported(kind: Any) -> Hook:
    raise StructureHandlerNotFoundError(f"no option can have the type {kind}", type_=kind)


# --- a record ---------------------------------------------------------------------------------------------


def _failed_validators(cls: type[Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Exception]]:
    """The keys whose validators refuse, where attrs itself stops at the first."""
    record = object.__new__(cls)
    for attribute in attrs.fields(cls):
        value = given[attribute.name] if attribute.name in given else _default(attribute, record)
        object.__setattr__(record, attribute.name, _converted(attribute, record, value))
    for attribute in attrs.fields(cls):
        try:
            if attribute.validator is not None:
                attribute.validator(record, attribute, getattr(record, attribute.name))
        except Exception as error:  # noqa: BLE001 - a plugin's validator may raise anything; it becomes a fault
            yield option_key(attribute), error


def _default(attribute: attrs.Attribute[Any], record: object) -> Any:
    default: Any = attribute.default
    if not hasattr(default, "takes_self"):
        return default
    return default.factory(record) if default.takes_self else default.factory()


def _converted(attribute: attrs.Attribute[Any], record: object, value: Any) -> Any:
    convert: Any = attribute.converter
    if convert is None:
        return value
    if not hasattr(convert, "takes_self"):
        return convert(value)
    extra = [*([record] if convert.takes_self else []), *([attribute] if convert.takes_field else [])]
    return convert.converter(value, *extra)


def _reason(error: Exception) -> str:
    """The sentence of a validator. attrs' own carry the attribute and the value as further arguments."""
    text = str(error.args[0] if error.args else "") or type(error).__name__
    return text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"
