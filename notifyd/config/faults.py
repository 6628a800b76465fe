"""Collecting faults with their dotted paths, so that all of them are told at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeGuard

from notifyd.config.units import parse_name
from notifyd.errors import Fault


def dotted(prefix: str, step: str | int) -> str:
    """`prefix` and one step more: `rules` and 2 give `rules[2]`; a key that TOML would quote is quoted."""
    if isinstance(step, int):
        return f"{prefix}[{step}]"
    name = step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step, ensure_ascii=False)
    return f"{prefix}.{name}" if prefix else name


def of_rule(name: str) -> str:
    """The path of the rule of that name, which tells a reader more than its place among the others.

    One that has no name of its own goes by its place, and has that for a name: `rules[2]`.
    """
    return name if name.startswith("rules[") else dotted("rules", name)


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


def _leads(above: str, to: str) -> bool:
    """Is the path `to` at `above`, or further down?"""
    return to == above or to.startswith((f"{above}.", f"{above}["))


NO_KEY: Final = "is not a known key"
_MISSPELT: Final = re.compile(rf'{NO_KEY}; did you mean "([^"]+)"\?')


def meant(fault: Fault) -> str | None:
    """The path of the key that a misspelt one stands for; None where it is not one, or near to none."""
    found = _MISSPELT.fullmatch(fault.message)
    return dotted(fault.pointer.rpartition(".")[0], found[1]) if found else None


class Told:
    """The paths that faults were found at, and those of keys that are misspelt."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        listed = tuple(faults)
        self._paths = {fault.pointer for fault in listed} | set(filter(None, map(meant, listed)))

    def knows(self, *paths: str) -> bool:
        """Can all that is at these paths be read, and what is below them?"""
        return not any(_leads(told, path) or _leads(path, told) for told in self._paths for path in paths)

    def has(self, path: str) -> bool:
        """Is there a fault of this key itself, of what it is in, or of an item in it?"""
        return any(_leads(told, path) or told.startswith(f"{path}[") for told in self._paths)


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

    def each(self, keys: Iterable[str]) -> list[str]:
        """The paths of some keys at this place."""
        return [self.under(key).path for key in keys]

    def at(self, path: str) -> Findings:
        """The same collection, at a whole path."""
        return Findings(path, self._found)

    def add(self, message: str) -> None:
        """A fault at this path. The same fault is kept once."""
        self._found[Fault(self.path, message)] = None

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._found)

    @property
    def has_faults(self) -> bool:
        """Is there a fault at this path, or further down?"""
        return any(_leads(self.path, fault.pointer) for fault in self._found)

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
