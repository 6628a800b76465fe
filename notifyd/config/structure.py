"""TOML tables into attrs records, strictly: its keys, units, secrets, and the validators of plugins' classes.

A table's key is the attribute's name without a trailing underscore (`from` for `from_`). No message of this
module shows a value; what a record's own validators say is scrubbed by the caller, who knows the secrets.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import attrs
from cattrs.errors import StructureHandlerNotFoundError

from notifyd.config import units
from notifyd.config.faults import NO_KEY, Findings
from notifyd.config.units import Bounds, Duration, Network, SealKey, Signing, Size, Text
from notifyd.config.windows import Window
from notifyd.security.secrets import Secret
from notifyd.trust import CaFile
from notifyd.wire import strict
from notifyd.wire.strict import Hook, Members, Steps, Strict, StructureError

T = TypeVar("T")

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


class Structurer(Strict):
    """The strict converter of TOML. `base` is what relative paths start from.

    Each secret is told to `reveal`, and `hide` then takes it out of what a record's own validators say.
    """

    kinds = _KINDS

    def __init__(
        self,
        base: Path = Path(),
        reveal: Callable[[str], object] = lambda text: None,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._reveal, self._hide = reveal, hide
        super().__init__(
            {
                float: _float,
                date: _date,
                Path: lambda value: base / Path(_string(value)).expanduser(),
                CaFile: lambda value: CaFile.read(base / Path(_string(value)).expanduser()),
                units.KeySource: lambda value: units.KeySource.read(_string(value), base),
                Duration: _from_text(units.parse_duration),
                Size: _from_text(units.parse_size),
                SealKey: _from_text(units.parse_seal_key),
                units.Rate: _from_text(units.parse_rate),
                units.Backoff: _from_text(units.parse_backoff),
                units.Moment: _from_text(units.parse_moment),
                Window: _from_text(Window.parse),
                units.Listen: _from_text(units.parse_listen),
                Network: _from_text(units.parse_network),
                Network | str: _from_text(units.parse_network_or_host),
            }
        )

    def into(self, value: object, kind: Any, findings: Findings) -> Any:
        """`value` as a `kind`; None where it has faults, which are added to `findings`."""
        try:
            return self.hook(kind)(value, kind)
        except (ValueError, StructureError) as error:
            for steps, message in strict.faults_of(error):
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
                self.hook(attribute.type or object)
            except StructureHandlerNotFoundError:
                text = f"{cls.__name__}.{attribute.name} has a type that no option can have: {attribute.type}"
                raise TypeError(text) from None

    def members(self, cls: type[Any]) -> Members:
        return options_of(cls)

    def unknown(self, name: str, members: Members) -> str:
        return unknown_key(name, members)

    def choice(self, choices: Mapping[Any, Any]) -> Hook:
        offered = ", ".join(map(_quoted, choices))
        return strict.one_of(choices, f"must be one of {offered}")

    def secret(self, value: Any) -> Secret:
        found = super().secret(value)
        self._reveal(value)
        return found

    def annotated(self, kind: Any) -> Hook:
        inner, *marks = get_args(kind)
        hook = self.hook(inner)

        def structure(value: Any, _: Any) -> Any:
            result = hook(value, inner)
            for mark in marks:
                result = _constrain(result, mark, inner)
            return result

        return structure

    def build(self, cls: type[Any], given: Mapping[str, Any]) -> Any:
        try:
            return super().build(cls, given)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's class may raise anything
            whole = StructureError([((), self._hide(_reason(error)))])
        try:
            found = [((key,), self._hide(_reason(error))) for key, error in _failed_validators(cls, given)]
        except (Exception, SystemExit):  # noqa: BLE001 - a default or converter raised, as it did above
            raise whole from None
        raise StructureError(found) if found else whole

    def refusals(self, cls: type[Any], given: Mapping[str, Any]) -> Iterator[tuple[Steps, str]]:
        with suppress(Exception, SystemExit):  # a converter raised
            for key, error in _failed_validators(cls, given, partly=True):
                yield (key,), self._hide(_reason(error))


def options_of(cls: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The keys that a table for `cls` may have."""
    attributes = attrs.fields(attrs.resolve_types(cls))
    return {option_key(a): a for a in attributes if a.init}


def option_key(attribute: attrs.Attribute[Any]) -> str:
    return (attribute.alias or attribute.name).removesuffix("_")


def unknown_key(key: str, known: Iterable[str]) -> str:
    return NO_KEY + did_you_mean(key, known)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest of `known`; nothing where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def must_be(what: str, value: object) -> str:
    return strict.refusal(what, value, _KINDS)


# --- one value --------------------------------------------------------------------------------------------


_string: Final = strict.exactly(str, "a string", _KINDS)


def _from_text(parse: Callable[[str], T]) -> Callable[[Any], T]:
    return lambda value: parse(_string(value))


def _float(value: Any) -> float:
    """A float, or an integer, which TOML writes for a whole number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(must_be("a finite number", value))
    return float(value)


def _date(value: Any) -> date:
    if type(value) is not date:
        raise ValueError("must be a date without a time, such as 2026-12-20")
    return value


def _constrain(value: Any, mark: object, kind: Any) -> Any:
    match mark:
        case Text(parse) | Signing(parse):
            return parse(value)
        case Bounds():
            mark.check(value, _SHOW.get(kind, str))
    return value


_SHOW: Final[Mapping[Any, Callable[[Any], str]]] = {
    Duration: units.show_duration,
    Size: units.show_size,
}


# --- a record ---------------------------------------------------------------------------------------------


def _failed_validators(
    cls: type[Any], given: Mapping[str, Any], *, partly: bool = False
) -> Iterator[tuple[str, BaseException]]:
    """The keys whose validators refuse, where attrs itself stops at the first.

    With `partly`, those of what is given alone, as far as they can be asked without the rest.
    """
    record = object.__new__(cls)
    asked = [one for one in attrs.fields(cls) if one.name in given] if partly else attrs.fields(cls)
    for attribute in asked:
        value = given[attribute.name] if attribute.name in given else _default(attribute, record)
        object.__setattr__(record, attribute.name, _converted(attribute, record, value))
    for attribute in asked:
        try:
            if attribute.validator is not None:
                attribute.validator(record, attribute, getattr(record, attribute.name))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's validator may raise anything
            if not partly or isinstance(error, ValueError):
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


def _reason(error: BaseException) -> str:
    """The sentence of a validator. Those of attrs itself show the value, and so are told in words of our own."""
    match error.args:
        case (str(), attrs.Attribute(), re.Pattern() as pattern, _):
            return f"must match the pattern {pattern.pattern}"
        case (str(), attrs.Attribute(), type() as kind, _):
            return f"must be a {kind.__name__}"
        case (str(), attrs.Attribute(), tuple() | frozenset() as choices, _):
            return f"must be one of {', '.join(map(_quoted, choices))}"
    text = str(error.args[0] if error.args else "") or type(error).__name__
    return text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"


def _quoted(choice: object) -> str:
    return f'"{choice}"' if isinstance(choice, str) else str(choice)
