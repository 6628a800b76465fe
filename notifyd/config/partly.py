"""Records of what can be read of a table that has faults, so that one fault hides no other.

A key that has one is left out, or something stands in for it that nothing else is, where the record needs it. Each
check of what must agree asks whether the keys that it reads are known: see `Told.knows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from notifyd.config.faults import Findings
from notifyd.config.structure import Structurer
from notifyd.wire.strict import Steps, StructureError, faults_of

NEEDED: Final[Mapping[str, Any]] = {"name": "unnamed", "when": "true", "channels": [], "after": "1h"}
"""What stands in for the keys that a rule, or an escalation of one, has to have."""


class _UnreadableError(Exception):
    """Nothing can be made of a table or an array."""


def partly(
    structurer: Structurer, value: Any, kind: Any, at: Findings, needed: Mapping[str, Any] | None = None
) -> Any:
    """`value` as a `kind` as far as it goes, None where that is nowhere. Every fault is added at `at`."""
    whole = structurer.into(value, kind, at)
    while whole is None:
        try:
            return structurer.hook(kind)(value, kind)
        except (ValueError, StructureError) as error:
            ways = [way for way, _ in faults_of(error)]
        try:
            value = _without(value, ways, needed or {})
        except _UnreadableError:
            return None
    return whole


def _without(value: Any, ways: Iterable[Steps], needed: Mapping[str, Any]) -> Any:
    for way in ways:
        value = _without_one(value, way, needed)
    return value


def _without_one(value: Any, way: Steps, needed: Mapping[str, Any]) -> Any:
    if not way or not isinstance(value, dict | list):
        raise _UnreadableError
    step, *rest = way
    if isinstance(value, list):
        assert isinstance(step, int)  # noqa: S101  # nosec B101 - what leads into an array
        return [*value[:step], _item(value[step], step, tuple(rest), needed), *value[step + 1 :]]
    if rest and step not in value:
        return value  # as another of its faults had it left out
    if rest:
        try:
            return {**value, step: _without_one(value[step], tuple(rest), needed)}
        except _UnreadableError:
            pass
    others = {key: one for key, one in value.items() if key != step}
    if step in needed and value.get(step) != needed[str(step)]:
        return {**others, step: needed[str(step)]}
    if step not in value:
        raise _UnreadableError  # what it lacks it has to have
    return others


def _item(item: Any, index: int, way: Steps, needed: Mapping[str, Any]) -> Any:
    if way:
        return _without_one(item, way, needed)
    stand_in = f"{index}@unknown.invalid"  # a name, and an address, that nothing has (RFC 6761)
    if item == stand_in:
        raise _UnreadableError
    return stand_in
