"""Collecting faults with their dotted paths, so that all of them are told at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeGuard

from notifyd.config.units import parse_name
from notifyd.errors import Fault


def dotted(prefix: str, step: str | int) -> str:
    """`prefix` and one step more: `rules` and 2 give `rules[2]`; a key that TOML would quote is quoted."""
    if isinstance(step, int):
        return f"{prefix}[{step}]"
    name = step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step, ensure_ascii=False)
    return f"{prefix}.{name}" if prefix else name


def of_rule(name: str) -> str:
    """The path of the rule of that name, which tells a reader more than its place among the others."""
    return dotted("rules", name)


def by_name(rules: object) -> Callable[[str], str]:
    """What makes of a path `rules[2].when`, into `rules` as they were written, one with the rule's name.

    A rule without a name of its own keeps its place: the path has to lead to one.
    """
    tables = rules if isinstance(rules, list) else []
    named: dict[str, str] = {}
    for index, table in enumerate(tables):
        name = table.get("name") if isinstance(table, dict) else None
        if _is_name(name) and of_rule(name) not in named.values():
            named[dotted("rules", index)] = of_rule(name)

    def rename(pointer: str) -> str:
        rule, bracket, rest = pointer.partition("]")
        return named.get(rule + bracket, rule + bracket) + rest

    return rename


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _is_name(name: object) -> TypeGuard[str]:
    try:
        return isinstance(name, str) and bool(parse_name(name))
    except ValueError:
        return False


class Findings:
    """The faults found so far, and the path at which this part of the search stands."""

    def __init__(self, path: str = "", found: dict[Fault, None] | None = None) -> None:
        self.path = path
        self._found: dict[Fault, None] = {} if found is None else found

    def under(self, *steps: str | int) -> Findings:
        """The same collection, further down."""
        path = self.path
        for step in steps:
            path = dotted(path, step)
        return Findings(path, self._found)

    def at(self, path: str) -> Findings:
        """The same collection, at a whole path."""
        return Findings(path, self._found)

    def add(self, message: str) -> None:
        """A fault at this path. The same fault is kept once."""
        self._found[Fault(self.path, message)] = None

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._found)

    def is_in(self, path: str) -> bool:
        """Is this place at `path`, or further down?"""
        return self.path == path or self.path.startswith((f"{path}.", f"{path}["))

    @property
    def has_faults(self) -> bool:
        """Is there a fault at this path, or further down?"""
        down = (f"{self.path}.", f"{self.path}[")
        return any(fault.pointer == self.path or fault.pointer.startswith(down) for fault in self._found)

    @property
    def pointers(self) -> frozenset[str]:
        return frozenset(fault.pointer for fault in self._found)

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Turns a ValueError in the block into a fault at this path."""
        try:
            yield
        except ValueError as error:
            self.add(str(error))
