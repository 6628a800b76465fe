"""Collecting faults with their dotted paths, so that all of them are told at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from notifyd.errors import Fault


def dotted(prefix: str, step: str | int) -> str:
    """`prefix` and one step more: `rules` and 2 give `rules[2]`; a key that TOML would quote is quoted."""
    if isinstance(step, int):
        return f"{prefix}[{step}]"
    name = step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step, ensure_ascii=False)
    return f"{prefix}.{name}" if prefix else name


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

    def add(self, message: str) -> None:
        """A fault at this path. The same fault is kept once."""
        self._found[Fault(self.path, message)] = None

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._found)

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
