"""The contract as a validator of its own: what it takes, by a library that knows nothing of notifyd."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from tests.contract.files import SHIPPED

DOCUMENT: Final[Any] = json.loads((SHIPPED / "openapi.json").read_bytes())
"""The contract as it is served."""

_FORMATS: Final = FormatChecker(formats=())


def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value.upper()).tzinfo is not None


_FORMATS.checks("date-time", raises=ValueError)(_is_date_time)


def _pattern(_: Any, pattern: str, instance: object, schema: object) -> Iterator[ValidationError]:
    """By ECMA-262, `$` is the end of the text; in Python a line feed may follow."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"does not match {pattern}")


_Validator: Final = extend(Draft202012Validator, {"pattern": _pattern})


def closed(node: Any) -> Any:
    """A copy in which no object may have members that the contract does not name."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    copied = {name: closed(item) for name, item in node.items()}
    if "properties" in copied and copied.get("type") == "object":
        copied.setdefault("additionalProperties", False)
    return copied


@cache
def _components(*, strict: bool) -> Any:
    schemas = copy.deepcopy(DOCUMENT["components"]["schemas"])
    return {"schemas": closed(schemas) if strict else schemas}


@cache
def _validator(schema: str, *, strict: bool) -> Any:
    root = json.loads(schema) | {"components": _components(strict=strict)}
    return _Validator(root, format_checker=_FORMATS)


def faults(name: str, value: Any, *, strict: bool = False) -> list[str]:
    """What is wrong with `value` by the schema of that name; with `strict`, what it does not name as well."""
    return faults_by({"$ref": f"#/components/schemas/{name}"}, value, strict=strict)


def faults_by(schema: Mapping[str, Any], value: Any, *, strict: bool = False) -> list[str]:
    validator = _validator(json.dumps(schema), strict=strict)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


_SCHEMA_AT: Final = re.compile(
    r"/(schema|items|additionalProperties|(schemas|properties|patternProperties)/[^/]*|(oneOf|anyOf)/\d+)$"
)


def schemas(node: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema object below `node`, by its place, but for those that only say what a value is not."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from schemas(item, f"{at}/{index}")
    elif isinstance(node, dict):
        if _SCHEMA_AT.search(at):
            yield at, node
        for name in node.keys() - {"not"}:
            item = node[name]
            yield from schemas(item, f"{at}/{name.replace('/', '~1')}")
