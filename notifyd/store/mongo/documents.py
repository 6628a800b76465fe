"""Records to documents and back.

A document holds a record's fields under their own names; times are 64-bit integers (microseconds). Open-ended
mappings and payloads are JSON text: MongoDB would read meaning into a key such as `$set` or `a.b`. Beside them
stand the store's own fields, which reading a record passes over:

    position   where the document stands in lists, newest first
    claim_at   from when it may be claimed: due, or the end of its lease; absent where there is nothing to claim
    set_from   the earliest time at which anybody can have set that `claim_at`: further ahead, it is not meant
    claim      which claim took it
    planned    which planner fixed an event's plan
    effects_due_at, dead_effects    of an approval's effects: when the next is due, how many are dead
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, get_origin

import attrs
import orjson
from cattrs import Converter

from notifyd.model import Approval, AuditRecord, Decision, Delivery, Event, Incident, OwnDeputy, Silence
from notifyd.store.decode import Decoder
from notifyd.store.mongo.driver import Document

T = TypeVar("T")


def _converter() -> Converter:
    converter = Converter()
    converter.register_unstructure_hook_factory(_is_mapping, lambda _: lambda value: _text(value))
    return converter


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping


def _text(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()


_CONVERTER: Final = _converter()
_DECODER: Final = Decoder(mappings_are_text=True)
_OBJECTS: Final[Mapping[type[Any], tuple[str, ...]]] = {
    Event: ("body",),
    Approval: ("request",),
    Incident: ("request",),
}
"""The members that are a JSON object as text."""


def document_of(
    record: Event | Approval | Decision | Incident | Delivery | AuditRecord | Silence | OwnDeputy,
) -> Document:
    document: Document = _CONVERTER.unstructure(record)
    if isinstance(record, Approval):
        document |= {"effects_due_at": record.effects_due_at, "dead_effects": len(record.dead_effects)}
    return document


def part_of(value: attrs.AttrsInstance) -> Document:
    """A record that is part of a document: an attempt, a plan's entry."""
    part: Document = _CONVERTER.unstructure(value)
    return part


def record_of(document: Document, kind: type[T]) -> T:
    """Raises `DecodeError`."""
    return _DECODER.record(document, kind, _OBJECTS.get(kind, ()))
