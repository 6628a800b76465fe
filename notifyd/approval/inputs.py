"""The inputs that a request asks its approvers for: checks of their definition and of the answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import asdict

from notifyd.errors import Fault
from notifyd.model import Approval, Choice, Input, InputType
from notifyd.rules.patterns import is_pattern, matches_whole
from notifyd.text import blank, clean
from notifyd.wire.records import pointer

MAX_INPUTS: Final = 20
MAX_PATTERNS: Final = 10
"""Compiling one may take a tenth of a second."""

MAX_CHOICES: Final = 50
MAX_TEXT: Final = 1_000
"""Characters of a text that is filled in."""


# --- what is asked -----------------------------------------------------------------------------------------


def definition_faults(inputs: Sequence[Input]) -> Iterator[Fault]:
    """Every fault of the definition of `inputs`."""
    if len(inputs) > MAX_INPUTS:
        yield Fault("/inputs", f"must not have more than {MAX_INPUTS} items")
        return
    if sum(one.pattern is not None for one in inputs) > MAX_PATTERNS:
        yield Fault("/inputs", f"must not have more than {MAX_PATTERNS} patterns")
        return
    seen: set[str] = set()
    for index, one in enumerate(inputs):
        if one.name in seen:
            yield Fault(pointer("inputs", index, "name"), "is the name of an earlier input too")
        seen.add(one.name)
        for member, fault in _faults_of(one):
            yield Fault(pointer("inputs", index, member), fault)


def _faults_of(one: Input) -> Iterator[tuple[str, str]]:
    """Members with what is wrong with each."""
    bad_pattern = one.pattern is not None and not is_pattern(one.pattern)
    if bad_pattern:
        yield (
            "pattern",
            "must be a regular expression of RE2's syntax, without look-around or back-references",
        )
    if one.pattern is not None and one.type is not InputType.TEXT:
        yield "pattern", "goes with the type text only"
    if one.choices and one.type is not InputType.CHOICE:
        yield "choices", "goes with the type choice only"
    if one.type is InputType.CHOICE and not 1 <= len(one.choices) <= MAX_CHOICES:
        yield "choices", f"must have 1 to {MAX_CHOICES} items"
    if len(set(one.choices)) < len(one.choices):
        yield "choices", "must not have an item twice"
    if one.default is not None and not bad_pattern and (fault := _value_fault(one, one.default)):
        yield "default", fault


# --- what is filled in -------------------------------------------------------------------------------------


def proposed(inputs: Sequence[Input]) -> dict[str, Any]:
    """The defaults, by name."""
    return {one.name: one.default for one in inputs if one.default is not None}


def effective(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `base`. Null and empty text are no value, and keep a default from standing in."""
    return {name: value for name, value in {**base, **given}.items() if value is not None and value != ""}


def settled(approval: Approval) -> Mapping[str, Any] | None:
    """The inputs of the first who approved this round, which others confirm; None where nobody has."""
    approved = (d.inputs for d in approval.decisions if d.choice is Choice.APPROVED)
    return next(approved, None) if approval.inputs else None


def value_faults(inputs: Sequence[Input], given: Mapping[str, Any]) -> Iterator[Fault]:
    """Every fault of the given values, with defaults for those left out."""
    for name in sorted(given.keys() - {one.name for one in inputs}):
        yield Fault(pointer("inputs", name), "is not asked for")
    values = effective(proposed(inputs), given)
    for one in inputs:
        value = values.get(one.name)
        missing = value is None or (isinstance(value, str) and blank(value))
        if fault := "is required" if one.required and missing else _value_fault(one, value):
            yield Fault(pointer("inputs", one.name), fault)


def _value_fault(one: Input, value: Any) -> str:
    """The fault of a value, "" where there is none."""
    if value is None:
        return ""
    if one.type is InputType.TEXT:
        return _text_fault(one, value)
    if one.type is InputType.NUMBER:
        return "must be a number" if isinstance(value, bool) or not isinstance(value, int | float) else ""
    if one.type is InputType.BOOLEAN:
        return "" if isinstance(value, bool) else "must be true or false"
    return "" if isinstance(value, str) and value in one.choices else "must be one of the choices"


def _text_fault(one: Input, value: Any) -> str:
    if not isinstance(value, str):
        return "must be a string"
    if len(value) > MAX_TEXT or "\n" in value or clean(value) != value:
        return f"must be one line of at most {MAX_TEXT} characters"
    if one.pattern is not None and not matches_whole(one.pattern, value):
        return "must match the pattern"
    return ""


# --- as they go out ----------------------------------------------------------------------------------------


def inputs_json(approval: Approval) -> dict[str, Any]:
    """The inputs asked for, their proposed and their effective values; nothing where none are asked for."""
    if not approval.inputs:
        return {}
    asked = [{k: v for k, v in asdict(one).items() if k != "default"} for one in approval.inputs]
    told = {"asked": asked, "proposed": proposed(approval.inputs), "effective": settled(approval)}
    return {"inputs": told}
