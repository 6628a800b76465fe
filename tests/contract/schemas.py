"""JSON Schemas (2020-12) of the contract's types, each with the name its type has in Go and in C#."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from notifyd.wire import codec
from notifyd.wire.events import EXTENSION_NAME, EXTENSION_RANGE, PACK_EVENTS
from tests.contract import answers
from tests.contract.csharp import csharp_type
from tests.contract.golang import go_type
from tests.contract.shapes import Kind, Member, Shape, members_of, text_of

Schema = dict[str, Any]

_JSON_TYPES: Final[Mapping[Kind, str]] = {
    Kind.STRING: "string",
    Kind.TIME: "string",
    Kind.CONSTANT: "string",
    Kind.ENUMERATION: "string",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.BOOLEAN: "boolean",
    Kind.ARRAY: "array",
    Kind.OBJECT: "object",
    Kind.RECORD: "object",
}


def components(types: Iterable[Shape]) -> dict[str, Schema]:
    """The schemas of `types` by name, and those of the unions beside them."""
    found = {shape.name: _definition(shape) for shape in types}
    found["PackEvent"] = _pack_event()
    found["CloudEvent"] = _cloud_event(found["CloudEvent"])
    return dict(sorted(found.items()))


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def array_of(name: str, longest: int) -> Schema:
    return {
        "type": "array",
        "items": reference(name),
        "maxItems": longest,
        "x-go-type": f"[]{name}",
        "x-cs-type": f"IReadOnlyList<{name}>",
    }


# --- one type ----------------------------------------------------------------------------------------------


def _definition(shape: Shape) -> Schema:
    """What stands under a schema's own name."""
    if shape.kind is Kind.RECORD and shape.cls is not None:
        return _record(shape, bounded=shape.cls.__module__ != answers.__name__)
    text = {"description": text_of(shape)} if shape.kind is Kind.ENUMERATION else {}
    return text | _plain(shape, bounded=True)


def _record(shape: Shape, *, bounded: bool) -> Schema:
    """`bounded`: it comes in, and is checked; what only goes out may get new members."""
    members = members_of(shape)
    schema: Schema = {
        "description": text_of(shape),
        "type": "object",
        "required": [member.name for member in members if member.required],
        "properties": {member.name: _member(member, bounded=bounded) for member in members},
    }
    if bounded:
        schema |= {
            "patternProperties": {"^x-": _anything()},
            "additionalProperties": False,
            "maxProperties": codec.MAX_ITEMS,
        }
    return schema | _languages(shape)


def _member(member: Member, *, bounded: bool) -> Schema:
    # In words: of a member with the keyword `default`, generators for callers make one that has to be given.
    default = f"By default {member.default}." if bounded and member.default is not None else ""
    told = " ".join(filter(None, (member.text, default)))
    text = {"description": told} if told else {}
    return text | _schema(member.shape, bounded=bounded) | text


def _schema(shape: Shape, *, bounded: bool) -> Schema:
    """A type where it is used: by reference where it has a name."""
    if not shape.name:
        return _plain(shape, bounded=bounded)
    if not shape.nullable:
        return reference(shape.name)
    return {"anyOf": [reference(shape.name), {"type": "null"}], **_languages(shape)}


def _plain(shape: Shape, *, bounded: bool) -> Schema:
    if shape.kind is Kind.ANY:
        return _anything()
    kind = _JSON_TYPES[shape.kind]
    schema: Schema = {"type": [kind, "null"] if shape.nullable else kind, **shape.facts}
    if shape.kind is Kind.CONSTANT:
        schema["const"] = shape.choices[0]
    elif shape.choices:
        schema["enum"] = [str(choice) for choice in shape.choices]
    if shape.item is not None:
        schema["items" if kind == "array" else "additionalProperties"] = _schema(shape.item, bounded=bounded)
    if bounded:
        schema |= {name: most for name, most in _BOUNDS.get(shape.kind, {}).items() if name not in schema}
    return schema | _languages(shape)


_BOUNDS: Final[Mapping[Kind, Schema]] = {
    Kind.STRING: {"maxLength": codec.MAX_STRING},
    Kind.ARRAY: {"maxItems": codec.MAX_ITEMS},
    Kind.OBJECT: {"maxProperties": codec.MAX_ITEMS},
}
"""What holds for anything that is read, see `codec.loads`."""


def _languages(shape: Shape) -> Schema:
    return {"x-go-type": go_type(shape), "x-cs-type": csharp_type(shape)}


def _anything() -> Schema:
    return {"description": "Any JSON value.", **_languages(Shape(Kind.ANY))}


# --- what a record's annotations do not say ----------------------------------------------------------------


def _pack_event() -> Schema:
    return {
        "description": "One of Task Runner's four events, by its `type`.",
        "oneOf": [reference(name) for name in PACK_EVENTS],
        "discriminator": {
            "propertyName": "type",
            "mapping": {name: reference(name)["$ref"] for name in PACK_EVENTS},
        },
        "x-go-type": "PackEvent",
        "x-cs-type": "IPackEvent",
    }


def _given(name: str) -> Schema:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


_NAMES_BEYOND: Final = "data_base64"
"""The one attribute that CloudEvents itself names against its own rule for names."""


def _cloud_event(record: Schema) -> Schema:
    """An extension is an attribute as any other, and no member begins with x-."""
    del record["patternProperties"]
    return record | _CLOUD_EVENT


_CLOUD_EVENT: Final[Schema] = {
    "propertyNames": {"pattern": f"^(?:{EXTENSION_NAME}|{_NAMES_BEYOND})$"},
    "additionalProperties": {
        "description": "An extension attribute.",
        "type": ["string", "boolean", "integer", "null"],
        "minimum": EXTENSION_RANGE[0],
        "maximum": EXTENSION_RANGE[1],
        "maxLength": codec.MAX_STRING,
        "x-go-type": "any",
        "x-cs-type": "JsonElement",
    },
    "not": {"allOf": [_given("data"), _given("data_base64")]},
}
