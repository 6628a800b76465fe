"""The differences between a new round and the one before, and the votes they make void. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from notifyd.model import Decision
from notifyd.wire.codec import canonical


def with_changes(before: str, request: str, void: Sequence[Decision]) -> str:
    """`request` with a member `changes`: what it asks for otherwise than the request `before`.

    All are canonical JSON. `steps` and `parameters` each have `added`, `removed` and `changed`, whose items have a
    `name` (of a step, its id) and what it was `before` and is `after`: a step's name, a parameter's value. `void`
    are the actors whose decisions no longer count.
    """
    old, new = orjson.loads(before), orjson.loads(request)
    changes = {
        "steps": _compared(_steps(old), _steps(new)),
        "parameters": _compared(old.get("parameters") or {}, new.get("parameters") or {}),
        "void": list(dict.fromkeys(decision.actor for decision in void)),
    }
    return canonical(new | {"changes": changes}).decode()


def _steps(request: Mapping[str, Any]) -> dict[str, Any]:
    """The steps by their ids, as people know them."""
    return {step["id"]: step.get("name") or step["id"] for step in request.get("steps") or ()}


def _compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "added": [{"name": name, "after": new[name]} for name in new if name not in old],
        "removed": [{"name": name, "before": old[name]} for name in old if name not in new],
        "changed": [
            {"name": name, "before": old[name], "after": new[name]}
            for name in new
            if name in old and old[name] != new[name]
        ],
    }
