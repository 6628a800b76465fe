"""How much evaluating a CEL expression on an event can cost, before it is evaluated.

The library that evaluates has no bound of its own, so the bound is put on what it is given: the text is read into
the loops it makes, and an event's sizes are put into them. One unit is about 0.1 µs of a processor: the copy of a
number or of a short text. The estimate is the same for the same event on every machine.

What it knows of the library, found by measuring: reading `event.a.b` copies all of `event.a`; `map` and `filter`
copy the list they make anew for each element they add; a pattern is compiled each time. Where a size is not known
it takes the largest there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from notifyd.rules.evaluator import cel
from notifyd.rules.expression import BINDING_MACROS, EVENT, Token, tokens_of

LIMIT: Final = 2_000_000
"""What all rules together may cost on one event: 0.2 s of a processor at most, and far less as a rule."""

DEEPEST: Final = 2
"""How many loops may stand in one another."""

_TOKEN_COST: Final = 5
_CHARACTERS: Final = 128
"""Characters of a text that cost as much as one unit."""

_FEW_TOKENS: Final = 200
"""With so few and no loop, an expression costs little: each can copy or compare the whole event once."""

_COPYING: Final = frozenset({"map", "filter"})
_CLOSED_BY: Final = {"(": ")", "[": "]", "{": "}"}


class CostError(Exception):
    """Evaluating would cost more than may be spent."""


@frozen
class Path:
    """A variable and the members read of it, such as `event.steps`."""

    root: str
    members: tuple[str, ...]


@define
class Region:
    """A part of an expression that is evaluated equally often: the whole, or the body of a loop."""

    tokens: int = 0
    patterns: int = 0
    """What its regular expressions cost to compile."""
    paths: list[Path] = field(factory=list)
    loops: list[Loop] = field(factory=list)

    @property
    def varies(self) -> bool:
        """Can an event make it costly?"""
        return bool(self.loops or self.patterns or self.tokens > _FEW_TOKENS)

    def all_paths(self) -> Iterator[Path]:
        """Its own, and those of the bodies of its loops."""
        yield from self.paths
        for loop in self.loops:
            yield from loop.body.all_paths()


@define
class Loop:
    """`over.macro(variable, body)`. `over` is None where it is neither a path nor what another loop gave."""

    macro: str
    variable: str
    over: Path | Loop | None
    at: int
    body: Region = field(factory=Region)


# --- reading the text ----------------------------------------------------------------------------------------


@frozen
class Bad:
    """A part that is refused on any event, and its place in the text."""

    at: int
    message: str


def read(when: str) -> tuple[Region, list[Bad]]:
    """The loops of an expression that is known to parse, and what is too costly on any event."""
    reader = _Reader(tokens_of(when))
    reader.run()
    return reader.top, reader.bad


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._open: list[Loop | None] = []  # per open bracket, the loop whose body it holds
        self._ends: dict[int, Path | Loop] = {}  # what ends with the token at this place
        self.top = Region()
        self.bad: list[Bad] = []

    def run(self) -> None:
        for index, token in enumerate(self._tokens):
            if token.text in _CLOSED_BY:
                self._enter(index)
            elif token.text in _CLOSED_BY.values():
                self._leave(index)
            elif token.text not in (".", ","):
                self._region().tokens += 1 + len(token.text) // _CHARACTERS
                self._read(index, token)

    def _text(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""

    def _loops(self) -> list[Loop]:
        return [loop for loop in self._open if loop is not None]

    def _region(self) -> Region:
        loops = self._loops()
        return loops[-1].body if loops else self.top

    def _enter(self, index: int) -> None:
        macro = self._text(index - 1)
        loop = None
        if macro in BINDING_MACROS and self._text(index - 2) == "." and self._text(index + 2) == ",":
            loop = Loop(macro, self._text(index + 1), self._ends.get(index - 3), self._tokens[index - 1].at)
            self._region().loops.append(loop)
            if len(self._loops()) >= DEEPEST:
                self.bad.append(Bad(loop.at, f"loops stand more than {DEEPEST} deep in one another"))
        self._open.append(loop)

    def _leave(self, index: int) -> None:
        loop = self._open.pop() if self._open else None
        if loop is not None and loop.macro in _COPYING:
            self._ends[index] = loop

    def _read(self, index: int, token: Token) -> None:
        if token.is_name and self._text(index - 1) != "." and self._text(index + 1) != "(":
            self._path(index, token)
        if token.text == "matches" and self._text(index + 1) == "(":
            self._pattern(index, token)

    def _path(self, index: int, token: Token) -> None:
        members: list[str] = []
        while found := self._member(index):
            name, index = found
            members.append(name)
        path = self._ends[index] = Path(token.text, tuple(members))
        self._region().paths.append(path)

    def _member(self, index: int) -> tuple[str, int] | None:
        """The member read behind the token at `index`, and the token that ends it."""
        mark, name, after = (self._text(index + step) for step in (1, 2, 3))
        if mark == "." and name and after != "(":
            return name, index + 2
        if mark == "[" and after == "]" and re.fullmatch(r"""(["'])[^"'\\]*\1""", name):
            return name[1:-1], index + 3
        return None

    def _pattern(self, index: int, token: Token) -> None:
        pattern, after = self._text(index + 2), self._text(index + 3)
        if after != ")" or not re.match(r"""[bB]?[rR]?[bB]?["']""", pattern):
            self.bad.append(Bad(token.at, "written `text.matches('pattern')`, with the pattern in quotes"))
            return
        cost = _pattern_cost(pattern)
        self._region().patterns += cost
        if cost > LIMIT:
            self.bad.append(Bad(token.at, "this pattern is too costly"))
        elif fault := _pattern_fault(pattern):
            self.bad.append(Bad(token.at, f"this pattern is no regular expression: {fault}"))


def _pattern_fault(pattern: str) -> str:
    """What is wrong with a pattern, in the library's words; "" for nothing. It is compiled at its first match."""
    try:
        cel.compile(f'"".matches({pattern})').execute(cel.Context({}, {}))
    except (RuntimeError, ValueError) as error:
        told = str(error).rpartition("\nerror: ")[2]
        return " ".join(told.partition(". Check function")[0].split())
    return ""


_CLASS: Final = re.compile(r"\\[wWpP]|\\[dDsSbB]|\[\^|\.|\[")
_CLASS_COST: Final = {"w": 5000, "p": 5000, ".": 600, "^": 600, "[": 0}
_REPEATED: Final = re.compile(r"\{(?:\d*,)?(\d{1,7})")


def _pattern_cost(pattern: str) -> int:
    """The cost of compiling a pattern, as measured.

    Unicode classes are large, a counted repetition is compiled as often as it counts, and `(?i)` folds each.
    """
    folded = re.search(r"\(\?[a-zA-Z]*i", pattern) is not None
    cost = 20 + 10 * len(pattern)
    for match in _CLASS.finditer(pattern):
        cost += _CLASS_COST.get(match.group()[-1].lower(), 1000) + (4000 if folded else 0)
    for match in _REPEATED.finditer(pattern):
        cost *= max(1, int(match[1]))
        if cost > LIMIT:
            break
    return cost * (10 if folded else 1)


# --- an event put into it --------------------------------------------------------------------------------------


@frozen
class _Many:
    """A list: how many elements, and the size of the largest."""

    count: int
    each: int


@frozen
class _Values:
    """What the variables of a region hold. `sizes` is of those that a loop binds: that of the largest element."""

    event: Mapping[str, Any]
    sizes: Mapping[str, int]
    longest: int
    total: int


class Estimate:
    """The sizes of one event, measured when the first expression with a loop or a pattern asks."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._event = event
        self._sizes: dict[int, int] = {}
        self._loops: dict[int, tuple[int, _Many]] = {}
        self._lengths: list[int] = [0]
        self._total: int | None = None

    def of(self, region: Region) -> int:
        if self._total is None:
            self._total = self._size(self._event)
        values = _Values(self._event, {}, max(self._lengths), self._total)
        return self._region(region, values)[0]

    def _region(self, region: Region, values: _Values) -> tuple[int, int]:
        """The cost of evaluating a region once, and the largest size of its result."""
        read = given = 0
        for path in region.paths:
            copied, size = self._path(path, values)
            read += copied
            given += size
        cost = region.tokens * _TOKEN_COST + 2 * read + given
        cost += region.patterns * (1 + given // 50)
        for loop in region.loops:
            spent, many = self._loop(loop, values)
            cost += spent
            given += many.count * many.each
        return cost, given + region.tokens

    def _loop(self, loop: Loop, values: _Values) -> tuple[int, _Many]:
        """The cost of a loop, and the list that it gives."""
        known = self._loops.get(id(loop))
        if known is None:
            known = self._loops[id(loop)] = self._measure(loop, values)
        return known

    def _measure(self, loop: Loop, values: _Values) -> tuple[int, _Many]:
        many = self._over(loop.over, values)
        sizes = {**values.sizes, loop.variable: many.each}
        cost, size = self._region(loop.body, _Values(values.event, sizes, values.longest, values.total))
        cost = many.count * (cost + many.each + _TOKEN_COST)
        if loop.macro not in _COPYING:
            return cost, _Many(1, 1)
        made = _Many(many.count, size if loop.macro == "map" else many.each)
        return cost + many.count * many.count * made.each // 2, made

    def _over(self, over: Path | Loop | None, values: _Values) -> _Many:
        if isinstance(over, Loop):
            return self._loop(over, values)[1]
        if over is not None and over.root in values.sizes:
            size = values.sizes[over.root]
            return _Many(min(size, values.longest), size)
        if over is not None and over.root == EVENT:
            return self._many(self._follow(over)[-1])
        return _Many(values.longest + values.total, values.total)

    def _path(self, path: Path, values: _Values) -> tuple[int, int]:
        """The cost of reading a path, and the size of its value."""
        if path.root in values.sizes:
            return values.sizes[path.root] * len(path.members), values.sizes[path.root]
        if path.root != EVENT:
            return 0, 1
        followed = self._follow(path)
        return sum(map(self._size, followed[1:-1])), self._size(followed[-1])

    def _follow(self, path: Path) -> list[Any]:
        """The values along a path, `event` first, as far as they exist."""
        followed: list[Any] = [self._event]
        for name in path.members:
            here = followed[-1]
            if not isinstance(here, Mapping):
                break
            followed.append(here.get(name))
        return followed

    def _many(self, value: Any) -> _Many:
        if isinstance(value, Mapping):
            return _Many(len(value), max((self._size(key) for key in value), default=0))
        if isinstance(value, list):
            return _Many(len(value), max(map(self._size, value), default=0))
        return _Many(0, 0)

    def _size(self, value: Any) -> int:
        """The size of a value: one unit for each value in it, more for long texts.

        Cached by identity: `value` lives as long as the event.
        """
        if isinstance(value, str):
            return 1 + len(value) // _CHARACTERS
        if not isinstance(value, Mapping | list):
            return 1
        known = self._sizes.get(id(value))
        if known is None:
            self._lengths.append(len(value))
            known = self._sizes[id(value)] = 1 + sum(map(self._size, _inside(value)))
        return known


def _inside(value: Mapping[str, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value
        yield from value.values()
    else:
        yield from value
