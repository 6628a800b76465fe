"""What a request asks for, as fields of the page's form: shown, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from notifyd.approval.inputs import MAX_TEXT, proposed, settled
from notifyd.errors import NotifydError
from notifyd.model import Approval, Input, InputType
from notifyd.wire import codec

PREFIX: Final = "input."
"""What the name of such a field begins with."""


@frozen
class FormField:
    """`value` is what the form sends for it: of a box that is not ticked "". `fixed`: to be confirmed only."""

    name: str
    label: str
    type: str
    required: bool
    choices: Sequence[str]
    value: str
    fixed: bool
    faulty: bool
    max_length: int = MAX_TEXT


def sent_fields(form: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The fields of a form by the names of their inputs."""
    return {name.removeprefix(PREFIX): value[0] for name, value in form.items() if name.startswith(PREFIX)}


def values_of(inputs: Sequence[Input], sent: Mapping[str, str]) -> dict[str, Any]:
    """What was filled in. An empty field has no value, and one that cannot be read is left to be refused."""
    return {one.name: _value(one, sent.get(one.name, "")) for one in inputs}


def _value(one: Input, text: str) -> Any:
    if one.type is InputType.BOOLEAN:
        return bool(text)
    if one.type is not InputType.NUMBER or not text:
        return text or None
    try:
        return codec.loads(text.strip().encode())
    except NotifydError:
        return text


def form_fields(
    approval: Approval, sent: Mapping[str, str] | None, faulty: frozenset[str]
) -> Iterator[FormField]:
    """The fields with what was `sent` before, else with what is proposed, or what others have filled in."""
    fixed = settled(approval)
    values = proposed(approval.inputs) if fixed is None else fixed
    for one in approval.inputs:
        filled_in = sent is not None and fixed is None
        value = (sent or {}).get(one.name, "") if filled_in else _text(values.get(one.name))
        yield FormField(
            name=PREFIX + one.name,
            label=one.label,
            type=one.type.value,
            required=one.required,
            choices=one.choices,
            value=value,
            fixed=fixed is not None,
            faulty=one.name in faulty,
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else ""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)
