"""What a CEL expression refers to, and its parts, read from its text without evaluating it.

For expressions that are known to parse. CEL is described at https://cel.dev.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

if TYPE_CHECKING:
    import cel

EVENT: Final = "event"
"""The one variable an expression has."""

_TYPE_NAMES: Final = frozenset(
    {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"}
)
BINDING_MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
MACROS: Final = BINDING_MACROS | {"has"}
_LITERALS: Final = frozenset({"true", "false", "null", "in"})
_RESERVED: Final = frozenset(
    {
        *("as", "break", "const", "continue", "else", "for", "function", "if", "import"),
        *("let", "loop", "namespace", "package", "return", "var", "void", "while"),
    }
)
"""Names that the language keeps: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax"""

KEPT: Final = _RESERVED | _LITERALS | MACROS | _TYPE_NAMES | {EVENT}
"""Names that no function can have: an expression that calls it does not parse, or means something else."""

_TOKEN: Final = re.compile(
    r"""
      (?P<comment>//[^\n]*)
    | (?P<string>
        (?:[rR][bB]?|[bB][rR])(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\n]*"|'[^'\n]*')
      | [bB]?(?:\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3}
              |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    | (?P<number>\d\w*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<mark>\S)
    """,
    re.VERBOSE | re.ASCII,
)


@frozen
class Token:
    text: str
    at: int
    is_name: bool


_END: Final = Token("", -1, is_name=False)


def tokens_of(text: str) -> list[Token]:
    return [
        Token(m.group(), m.start(), m.lastgroup == "name")
        for m in _TOKEN.finditer(text)
        if m.lastgroup != "comment"
    ]


@frozen
class Call:
    """A call of the function `name`, dotted where a bare name stands before it; `given`: arguments in brackets."""

    name: str
    at: int
    given: int
    of_value: bool  # a value or a namespace stands before the dot


@frozen
class Source:
    """What an expression refers to: free variables with their places, calls, and `event`'s members."""

    text: str
    variables: tuple[tuple[str, int], ...]
    calls: tuple[Call, ...]
    bound: frozenset[str]
    members: frozenset[str] | None

    @classmethod
    def scan(cls, text: str) -> Source:
        """What an expression refers to. It must be one that parses."""
        scanner = _Scanner(text)
        scanner.run()
        return cls(
            text,
            tuple(scanner.variables),
            tuple(scanner.calls),
            frozenset(scanner.bound),
            None if scanner.whole else frozenset(scanner.members),
        )

    def unknown_variables(self, program: cel.Program, known: frozenset[str]) -> Iterator[str]:
        """A fault for each variable but `event`; `known` are functions, whose namespaces are no variables."""
        if MACROS.intersection(program.functions()):
            return  # a macro that was not expanded has bound nothing: a fault of its own, told elsewhere
        namespaces = {name.partition(".")[0] for name in known if "." in name}
        allowed = _TYPE_NAMES | namespaces | {EVENT}
        for name, at in self.variables:
            if name not in allowed:
                yield f"{place(self.text, at)}: unknown variable `{name}`: a rule sees only `event`"
        seen = allowed | self.bound | {name for name, _ in self.variables}
        for name in program.variables():
            if name not in seen:
                yield f"unknown variable `{name}`: a rule sees only `event`"

    def unknown_functions(self, program: cel.Program, known: frozenset[str]) -> Iterator[str]:
        """A fault for each function that is not `known`, and each macro with the wrong arguments."""
        # A macro that the parser did not expand, for the wrong number of arguments, is left as a function.
        unexpanded = MACROS.intersection(program.functions())
        for call in self.calls:
            plain = call.name.rpartition(".")[2]
            if plain in unexpanded:
                yield f"{place(self.text, call.at)}: `{plain}` does not take these arguments"
            elif not known & {call.name, plain} and plain not in MACROS:
                yield f"{place(self.text, call.at)}: unknown function `{plain}`"

    def misfits(self, functions: Mapping[str, Callable[..., Any]]) -> Iterator[str]:
        """A fault for each call of one of `functions` with more or fewer arguments than it takes.

        The value before a dot is the first one (`x.f(y)` is `f(x, y)`), a namespace is none.
        """
        for call in self.calls:
            plain = call.name.rpartition(".")[2]
            name = call.name if call.name in functions else plain
            if name not in functions:
                continue
            given = call.given + (call.of_value and name == plain)
            if (taken := _taken(functions[name])) is not None and given not in taken:
                yield f"{place(self.text, call.at)}: `{name}` takes {_counted(taken)}, and {given} here"


def _taken(function: Callable[..., Any]) -> range | None:
    """How many arguments by position a function takes; None where it does not tell, as some built in do not."""
    try:
        parameters = signature(function).parameters.values()
    except ValueError:
        return None
    placed = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    rest = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    fewest = sum(one.default is one.empty for one in placed)
    return range(fewest, sys.maxsize if rest else len(placed) + 1)


def by_keyword_alone(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function needs and that no rule can give, as it gives all by position."""
    try:
        parameters = signature(function).parameters.values()
    except ValueError:
        return []
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]


def _counted(taken: range) -> str:
    if taken.stop == sys.maxsize:
        return f"{taken.start} or more arguments"
    if len(taken) > 1:
        return f"{taken.start} to {taken.stop - 1} arguments"
    return f"{taken.start} argument{'s' * (taken.start != 1)}"


def conjuncts(when: str) -> list[str]:
    """The parts that `&&` joins at the top; the whole where anything weaker joins them."""
    starts, depth = [0], 0
    marks = (m for m in _TOKEN.finditer(when) if m.lastgroup == "mark")
    for mark, after in pairwise([*marks, None]):
        if mark is None:
            break
        text = mark.group()
        depth += (text in "([{") - (text in ")]}")
        if depth == 0 and text in "|?":
            return [when]
        if depth == 0 and text == "&" and after and after.start() == mark.end() and after.group() == "&":
            starts.append(after.end())
    ends = [*(start - 2 for start in starts[1:]), len(when)]
    return [when[start:end] for start, end in zip(starts, ends, strict=True)]


class _Scanner:
    """One pass over the tokens of an expression that is known to parse."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens_of(text)
        self._scopes: list[str | None] = []  # per open bracket, the variable its macro binds
        self.variables: list[tuple[str, int]] = []
        self.calls: list[Call] = []
        self.bound: set[str] = set()
        self.members: set[str] = set()
        self.whole = False

    def run(self) -> None:
        for index, token in enumerate(self._tokens):
            if token.text in ("(", "[", "{"):
                self._scopes.append(self._binds(index))
            elif token.text in (")", "]", "}") and self._scopes:
                self._scopes.pop()
            elif token.is_name and token.text not in _LITERALS:
                self._name(index, token)

    def _at(self, index: int) -> Token:
        return self._tokens[index] if 0 <= index < len(self._tokens) else _END

    def _binds(self, index: int) -> str | None:
        """The variable that `.macro(NAME, …` binds inside the bracket at `index`."""
        macro, name = self._at(index - 1), self._at(index + 1)
        if macro.text not in BINDING_MACROS or self._at(index - 2).text != ".":
            return None
        if not name.is_name or self._at(index + 2).text != ",":
            return None
        self.bound.add(name.text)
        return name.text

    def _name(self, index: int, token: Token) -> None:
        member = self._at(index - 1).text == "."
        if self._at(index + 1).text == "(":
            name = self._dotted(index) if member else token.text
            self.calls.append(Call(name, token.at, self._arguments(index + 1), member))
        elif not member and token.text not in self._scopes:
            self.variables.append((token.text, token.at))
            if token.text == EVENT:
                self._member(index)

    def _arguments(self, bracket: int) -> int:
        """How many stand in the brackets that open at `bracket`."""
        if self._at(bracket + 1).text == ")":
            return 0
        count, depth = 1, 0
        for token in self._tokens[bracket:]:
            depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
            count += token.text == "," and depth == 1
            if not depth:
                break
        return count

    def _dotted(self, index: int) -> str:
        """`namespace.name` where a bare name stands before the dot, else the name alone."""
        name, before = self._at(index).text, self._at(index - 2)
        plain = before.is_name and self._at(index - 3).text != "." and before.text not in self._scopes
        return f"{before.text}.{name}" if plain else name

    def _member(self, index: int) -> None:
        """Notes which member of `event` is read at `index`, or that all of them are."""
        mark, key, after = (self._at(index + step) for step in (1, 2, 3))
        if mark.text == "." and key.is_name and after.text != "(":
            self.members.add(key.text)
        elif mark.text == "[" and after.text == "]" and re.fullmatch(r"""(["'])[^"'\\]+\1""", key.text):
            self.members.add(key.text[1:-1])
        else:
            self.whole = True


_EQUALS: Final = r"""\s*==\s*(["'])(?P<text>[^"'\\\n]*)\1\s*"""
_KIND: Final = re.compile(r"\s*event\s*\.\s*kind" + _EQUALS, re.ASCII).fullmatch
_TENANT: Final = re.compile(r"\s*event\s*\.\s*tenant\s*\.\s*id" + _EQUALS, re.ASCII).fullmatch


def kind_of(when: str) -> str | None:
    """The event kind that a part joined by `&&` compares with, None where no part does.

    An event of another kind makes the whole false, whatever the other parts are: in CEL `false && error` is false
    (https://github.com/google/cel-spec/blob/master/doc/langdef.md#logical-operators).
    """
    return _compared(_KIND, when)


def tenant_of(when: str) -> str | None:
    """The same for the tenant's id."""
    return _compared(_TENANT, when)


def _compared(member: Callable[[str], re.Match[str] | None], when: str) -> str | None:
    found = map(member, conjuncts(when))
    return next((match["text"] for match in found if match), None)


def place(when: str, at: int) -> str:
    """Line and column of offset `at`, counted from 1."""
    line = when.count("\n", 0, at) + 1
    return f"line {line}, column {at - when.rfind(chr(10), 0, at)}"
