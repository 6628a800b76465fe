"""The contract as a validator of its own: what it takes, by a library that knows nothing of notifyd."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from jsonschema_rs import Draft202012Validator

from tests.contract.files import SHIPPED

DOCUMENT: Final[Any] = json.loads((SHIPPED / "openapi.json").read_bytes())
"""The contract as it is served."""


def _is_date_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value.upper()).tzinfo is not None
    except ValueError:
        return False


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
    return Draft202012Validator(root, formats={"date-time": _is_date_time}, validate_formats=True)


def faults(name: str, value: Any, *, strict: bool = False) -> list[str]:
    """What is wrong with `value` by the schema of that name; with `strict`, what it does not name as well."""
    return faults_by({"$ref": f"#/components/schemas/{name}"}, value, strict=strict)


def faults_by(schema: Mapping[str, Any], value: Any, *, strict: bool = False) -> list[str]:
    validator = _validator(json.dumps(schema), strict=strict)
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]


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
