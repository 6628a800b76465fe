"""Where in a TOML text each key stands: parsers of TOML give values without their places.

For a text that is known to parse, or as much of one as does, so that tokens are all there is to tell apart
(https://toml.io/en/v1.0.0).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import tomli
from attrs import frozen

from notifyd.config.faults import by_name, dotted
from notifyd.errors import Fault

_TOKEN: Final = re.compile(
    r"""
      (?P<skipped>[ \t\r]+|\#[^\n]*)
    | (?P<text>\"{3}(?:\\[\s\S]|[^\\])*?\"{3,5}|'{3}[\s\S]*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    | (?P<bare>[^\s\[\]{},=.#"']+)
    | (?P<mark>[\s\S])
    """,
    re.VERBOSE,
)
_ENDS: Final = frozenset({"\n", ",", "]", "}"})

Steps: TypeAlias = tuple[str | int, ...]


def placed(path: Path, faults: Iterable[Fault]) -> list[tuple[int | None, Fault]]:
    """Each fault of the configuration at `path` with the line of its key, or of the table that lacks it, in order.

    None where neither is in the file. A fault of the file's syntax names its line itself, behind the path.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        lines = {}
    found = [(_own_line(fault, path) or _nearest(fault.pointer, lines), fault) for fault in faults]
    return sorted(found, key=lambda one: one[0] or math.inf)


def _own_line(fault: Fault, path: Path) -> int | None:
    place = fault.pointer.removeprefix(f"{path}:") if is_of_file(fault, path) else ""
    return int(place.partition(":")[0]) if place and place != fault.pointer else None


def is_of_file(fault: Fault, path: Path) -> bool:
    """Does its pointer name the file at `path`, with line and column perhaps, and no key?"""
    return f"{fault.pointer}:".startswith(f"{path}:")


def values(text: str) -> dict[str, Any]:
    """The values of a TOML text. Raises ValueError for what is none, or is nested too deeply to be read."""
    try:
        return tomli.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def lines_of(text: str) -> Mapping[str, int]:
    """The line of each key and each item of an array, by its path. Raises ValueError for what is no TOML."""
    rename = by_name(values(text).get("rules"))
    found = _Reader(text).read()
    return {rename(_path(steps)): line for steps, line in found.items()}


def repeated(text: str) -> Repeated:
    """Of a text that ends behind a key which may not be there again. Raises ValueError for one without a key."""
    reader = _Reader(text)
    with suppress(IndexError):  # the text ends within the statement
        reader.read()
    key, again = reader.latest
    for length in range(len(key), 0, -1):
        found = reader.first.get(key[:length])
        if found and found.start < again.start:
            return Repeated(_path(key), again.start, _path(key[:length]), found.line)
    raise ValueError("no key of the text is there twice")


def opened_last(text: str) -> tuple[str, int]:
    """The bracket that is still open at the end of a text, and its line."""
    opened: list[_Token] = []
    for token in _tokens(text):
        if token.text in ("[", "{"):
            opened.append(token)
        elif token.text in ("]", "}"):
            opened.pop()
    return opened[-1].text, opened[-1].line


def _path(steps: Steps) -> str:
    path = ""
    for step in steps:
        path = dotted(path, step)
    return path


def _nearest(pointer: str, lines: Mapping[str, int]) -> int | None:
    above = [key for key in lines if pointer == key or pointer.startswith((f"{key}.", f"{key}["))]
    return lines[max(above, key=len)] if above else None


@frozen
class _Token:
    kind: str
    text: str
    start: int
    line: int


@frozen
class Repeated:
    """A key, where it begins, and what of an earlier `line` is in its way: itself, or what it would be in."""

    key: str
    start: int
    by: str
    line: int


class _Reader:
    """One pass over the tokens of a text."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._tables: dict[Steps, int] = {}  # arrays of tables, and how many there are so far
        self.first: dict[Steps, _Token] = {}
        self.latest: tuple[Steps, _Token] = (), _Token("", "", 0, 1)

    def read(self) -> dict[Steps, int]:
        table: Steps = ()
        while self._next < len(self._tokens):
            if self._skip("\n"):
                continue
            table = self._header() if self._here() == "[" else self._pair(table)
        return {steps: token.line for steps, token in self.first.items()}

    def _here(self) -> str:
        return self._tokens[self._next].text if self._next < len(self._tokens) else "\n"

    def _skip(self, mark: str) -> bool:
        found = self._next < len(self._tokens) and self._here() == mark
        self._next += found
        return found

    def _header(self) -> Steps:
        """`[a.b]` or `[[a.b]]`: the table that the pairs behind it are in."""
        self._skip("[")
        many = self._skip("[")
        token = self._tokens[self._next]
        *way, last = self._key()
        parent = self._resolved((), way, token)
        self.latest = (*parent, last), token
        if many:
            self._tables[*parent, last] = self._tables.get((*parent, last), 0) + 1
        table = self._resolved(parent, [last], token)
        while not self._skip("\n") and self._next < len(self._tokens):
            self._next += 1
        return table

    def _resolved(self, table: Steps, key: list[str], token: _Token) -> Steps:
        """The table that `key`, at `token`, leads to from `table`: of an array of tables, the last so far."""
        for step in key:
            table = (*table, step)
            self.first.setdefault(table, token)
            if table in self._tables:
                table = (*table, self._tables[table] - 1)
                self.first.setdefault(table, token)
        return table

    def _key(self) -> list[str]:
        key = [self._name()]
        while self._skip("."):
            key.append(self._name())
        return key

    def _name(self) -> str:
        token = self._tokens[self._next]
        self._next += 1
        return str(tomli.loads(f"key = {token.text}")["key"]) if token.kind == "text" else token.text

    def _pair(self, table: Steps) -> Steps:
        """`a.b = value`. Gives back the table that it is in."""
        token, at = self._tokens[self._next], table
        for name in self._key():
            at = (*at, name)
            self.first.setdefault(at, token)
        self.latest = at, token
        self._skip("=")
        self._value(at)
        self.latest = at, token
        return table

    def _value(self, at: Steps) -> None:
        if self._skip("["):
            self._array(at)
        elif self._skip("{"):
            self._inline_table(at)
        else:
            while self._here() not in _ENDS:
                self._next += 1

    def _array(self, at: Steps) -> None:
        index = 0
        while not self._skip("]"):
            if self._skip("\n") or self._skip(","):
                continue
            self.first[(*at, index)] = self._tokens[self._next]
            self._value((*at, index))
            index += 1

    def _inline_table(self, at: Steps) -> None:
        while not self._skip("}"):
            if not (self._skip("\n") or self._skip(",")):
                self._pair(at)


def _tokens(text: str) -> Iterable[_Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        if found.lastgroup != "skipped":
            yield _Token(found.lastgroup or "", found.group(), found.start(), line)
        line += found.group().count("\n")
