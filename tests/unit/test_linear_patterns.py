"""Every regular expression of the tree takes time in proportion to the text, whatever the text is.

The source is walked for patterns. From each one, texts are made that are hostile to it: what its repetitions take,
again and again, before an end that does not fit. For a text eight times as long a linear pattern takes eight times
as long; one that begins anew at each place takes sixty-four times.
"""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined, unused-ignore]
from re import _parser as parser  # type: ignore[attr-defined, unused-ignore]
from typing import Any, Final, TypeAlias

import pytest
import regex
from attrs import frozen

from notifyd.render.render import TemplateSet

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = (ROOT / "notifyd", *sorted((ROOT / "plugins").glob("*/notifyd_*")))

FUNCTIONS: Final = {"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"}
ANCHORED: Final = {"match", "fullmatch"}

MADE_AT_RUN_TIME: Final = {
    (
        "notifyd.wire.records",
        "pattern",
    ),  # the patterns given to `matching`, which are collected where they stand
    ("notifyd.security.redact", "'|'.join(map(re.escape, self._values))"),  # words as they are
    ("notifyd.security.names", "f'[{each}]*'"),  # one set of characters
}

LENGTHS: Final = (18, 100, 500, 4_000)
QUICK: Final = 0.004
"""Seconds of processor time. On the longest text, what is quadratic takes many times as long."""

TIMES: Final = 24
"""How many times longer than the one before the longest may take: between 8, if linear, and 64, if quadratic."""

Node: TypeAlias = tuple[Any, Any]


# --- collecting --------------------------------------------------------------------------------------------


@frozen
class Found:
    """A pattern, where it stands, and whether it is looked for at each place of a text."""

    place: str
    pattern: Any
    searched: bool


@frozen
class Module:
    path: Path
    tree: ast.Module

    @property
    def name(self) -> str:
        folder = next(folder for folder in FOLDERS if self.path.is_relative_to(folder))
        parts = self.path.relative_to(folder.parent).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")

    def anchored(self, name: str) -> bool:
        """Is `name` used for nothing but matching from the beginning?"""
        uses = [n for n in ast.walk(self.tree) if isinstance(n, ast.Name) and n.id == name and is_read(n)]
        return set(uses) <= {use for node in ast.walk(self.tree) for use in matched_from_the_beginning(node)}


def matched_from_the_beginning(node: ast.AST) -> list[ast.expr]:
    """The pattern of `PATTERN.fullmatch`, or of the one function of ours that does so with what it is given."""
    match node:
        case ast.Attribute(value=pattern, attr=attr) if attr in ANCHORED:
            return [pattern]
        case ast.Call(func=ast.Name(id="_matching"), args=[pattern, *_]):
            return [pattern]
    return []


def is_read(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def collected() -> Sequence[Found]:
    """It takes seconds, and so it waits for the test: each process of a run imports this file."""
    files = [path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))]
    return [found for path in files for found in collected_in(path)]


def collected_in(path: Path) -> Iterator[Found]:
    module = Module(path, ast.parse(path.read_text(encoding="utf-8")))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and node.args and (function := function_of(node)):
            yield from found_in(module, node, function)


def function_of(call: ast.Call) -> str | None:
    """Which function of `re` or `regex` is called, or of ours that takes a pattern."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="re" | "regex"), attr=attr) if attr in FUNCTIONS:
            return attr
        case ast.Name(id="matching"):
            return "fullmatch"
    return None


def found_in(module: Module, call: ast.Call, function: str) -> Iterator[Found]:
    text = ast.unparse(call.args[0])
    if (module.name, text) in MADE_AT_RUN_TIME:
        return
    namespace = vars(importlib.import_module(module.name))
    made = call if function == "compile" else ast.Call(compiling(call), [call.args[0], *flags_of(call)], [])
    compiled = eval(  # noqa: S307 - the tree's own source
        compile(ast.fix_missing_locations(ast.Expression(made)), "<pattern>", "eval"),
        {"re": re, "regex": regex, **namespace},
    )
    searched = not anchored(module, call) if function == "compile" else function not in ANCHORED
    yield Found(f"{module.path.relative_to(ROOT)}:{call.lineno}", compiled, searched)


def compiling(call: ast.Call) -> ast.expr:
    library = call.func.value if isinstance(call.func, ast.Attribute) else ast.Name("re", ast.Load())
    return ast.Attribute(library, "compile", ast.Load())


def flags_of(call: ast.Call) -> list[ast.expr]:
    return [keyword.value for keyword in call.keywords if keyword.arg == "flags"]


def anchored(module: Module, call: ast.Call) -> bool:
    """Is what this call compiles only ever matched from the beginning of a text?"""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.value is call:
            return node.attr in ANCHORED
        if isinstance(node, ast.AnnAssign) and node.value is call and isinstance(node.target, ast.Name):
            return module.anchored(node.target.id)
    return False


# --- hostile texts -----------------------------------------------------------------------------------------

ENDS: Final = ("", "\x00", "\n!")
ANY: Final = " a0.\n\\\"'<>/=-_:;&%@#?()[]{}\t*"


def hostile(pattern: Any, length: int) -> Iterator[str]:
    for prefix, body in pumps(pattern):
        for end in ENDS:
            yield prefix + body * (length // len(body)) + end
            if prefix:
                yield (prefix + body) * (length // len(prefix + body)) + end


def pumps(pattern: Any) -> set[tuple[str, str]]:
    """What stands before a repetition, and what is repeated."""
    found = {("", sign) for sign in ANY}
    if isinstance(pattern, re.Pattern):
        source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
        for choice in range(3):
            groups: dict[int, str] = {}
            nodes = parser.parse(source, pattern.flags & ~re.UNICODE)
            found |= set(repetitions(list(nodes), "", choice, groups))
    return {(prefix, body) for prefix, body in found if body}


def repetitions(
    nodes: list[Node], before: str, choice: int, groups: dict[int, str]
) -> Iterator[tuple[str, str]]:
    for code, value in nodes:
        for part in inside(code, value):
            yield from repetitions(part, before, choice, groups)
        if code in REPEATS and value[1] > 50:
            yield before, sample(list(value[2]), choice, groups)
        before += sample([(code, value)], choice, groups)


REPEATS: Final = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


def inside(code: Any, value: Any) -> list[list[Node]]:
    if code is op.SUBPATTERN:
        return [list(value[3])]
    if code is op.BRANCH:
        return [list(branch) for branch in value[1]]
    if code in REPEATS:
        return [list(value[2])]
    if code in (op.ASSERT, op.ASSERT_NOT):
        return [list(value[1])]
    return [list(value)] if code is op.ATOMIC_GROUP else []


def sample(nodes: list[Node], choice: int, groups: dict[int, str]) -> str:
    """A text that `nodes` match; another for each `choice`, as far as there are others."""
    text = ""
    for code, value in nodes:
        if code is op.LITERAL:
            text += chr(value)
        elif code in (op.NOT_LITERAL, op.ANY, op.IN):
            text += pick(code, value, choice)
        elif code in REPEATS:
            text += sample(list(value[2]), choice, groups) * max(value[0], 1 if value[1] else 0)
        elif code is op.GROUPREF:
            text += groups.get(value, "")
        elif code is op.BRANCH:
            text += sample(list(value[1][choice % len(value[1])]), choice, groups)
        elif parts := inside(code, value) if code not in (op.ASSERT, op.ASSERT_NOT) else []:
            text += sample(parts[0], choice, groups)
            if code is op.SUBPATTERN and value[0]:
                groups[value[0]] = text
    return text


def pick(code: Any, value: Any, choice: int) -> str:
    """One of the characters that a set takes."""
    if code is op.IN:
        shown = "".join(shown_item(*item) for item in value)
    else:
        shown = "" if code is op.ANY else f"^{re.escape(chr(value))}"
    fits = [
        sign
        for sign in "a0Z. \"\\-_/=:\n<é'" + few_of(value if code is op.IN else ())
        if matches(shown, sign)
    ]
    return fits[choice % len(fits)] if fits else ""


def matches(shown: str, sign: str) -> bool:
    return sign != "\n" if not shown else re.fullmatch(f"[{shown}]", sign) is not None


def shown_item(code: Any, value: Any) -> str:
    if code is op.NEGATE:
        return "^"
    if code is op.LITERAL:
        return re.escape(chr(value))
    if code is op.RANGE:
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[str(value).rpartition("_")[2]]
    return f"\\{letter.upper() if '_NOT_' in str(value) else letter}"


def few_of(items: Iterable[Node]) -> str:
    ends = (
        value if code is op.RANGE else (value,) for code, value in items if code in (op.RANGE, op.LITERAL)
    )
    return "".join(chr(end) for pair in ends for end in pair)


# --- measuring ---------------------------------------------------------------------------------------------


def seconds(found: Found, text: str) -> float:
    subject: Any = text.encode("latin-1", "replace") if isinstance(found.pattern.pattern, bytes) else text
    started = time.thread_time()
    if found.searched:
        for _ in found.pattern.finditer(subject):
            pass
    else:
        found.pattern.fullmatch(subject)
        found.pattern.match(subject)
    return time.thread_time() - started


def is_linear(found: Found, texts: Sequence[str]) -> bool:
    """Judged by the longest text, unless a shorter one tells already, as the longest would never end then."""
    *smaller, short, long = texts
    if any(
        min(seconds(found, text) for _ in range(3)) > QUICK
        for text in smaller
        if seconds(found, text) > QUICK
    ):
        return False
    if seconds(found, short) > 2 * QUICK and min(seconds(found, short) for _ in range(3)) > 2 * QUICK:
        return False
    if seconds(found, long) < QUICK:
        return True
    taken = min(seconds(found, long) for _ in range(3))
    return taken < QUICK or taken < TIMES * min(seconds(found, short) for _ in range(9))


def superlinear(found: Found) -> str | None:
    """A hostile text on which a pattern takes too long, shortened; None where there is none."""
    texts = zip(*(hostile(found.pattern, length) for length in LENGTHS), strict=True)
    return next((ascii(of_all[0]) for of_all in texts if not is_linear(found, of_all)), None)


def rendering(templates: TemplateSet, blanks: int) -> float:
    """Seconds of processor time that a message takes whose text has so many blanks within a line."""
    event = {"kind": "pack.approval", "action": "requested", "message": {"summary": f"a \n{' ' * blanks}b"}}
    started = time.thread_time()
    templates.render("pack-approval", "en", event=event)
    return time.thread_time() - started


def test_blanks_within_a_line_of_a_summary_do_not_stop_the_loop() -> None:
    ours = TemplateSet.load((), (), "en")
    shorter = min(rendering(ours, 500) for _ in range(5))
    assert min(rendering(ours, 16_000) for _ in range(3)) < TIMES * shorter


def test_every_pattern_takes_time_in_proportion_to_the_text() -> None:
    found = collected()
    assert len(found) > 80
    assert {each.place.split("/")[0] for each in found} == {"notifyd", "plugins"}
    assert {each.place: text for each in found if (text := superlinear(each))} == {}


@pytest.mark.parametrize("quadratic", [r"[ \t]+$", r"\s+,", r"a*a*b", r"(?:a|a)+b"])
def test_a_pattern_that_is_not_linear_is_found_out(quadratic: str) -> None:
    assert superlinear(Found("here", re.compile(quadratic, re.MULTILINE | re.DOTALL), searched=True))
