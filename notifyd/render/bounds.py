"""What rendering a message may cost: its steps are counted, and nothing that a template makes is too long.

Whoever writes a template, and whoever sends an event, can ask for more than there is: a loop over a loop, a width
of a billion, a list that doubles. Python cannot be stopped inside one operation. So what could grow beyond all
measure is measured before, every value that a template makes is measured after, and each round, call and filter is
a step. Steps are the same on every machine; the time is a second bound, for single steps that are slow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from functools import wraps
from time import thread_time
from typing import Any, Final, TypeAlias

from jinja2 import nodes, pass_context, pass_eval_context
from jinja2.filters import do_int
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from jinja2.visitor import NodeTransformer

MAX_STEPS: Final = 200_000
"""Rounds, calls, filters and operators in one text or page; long values count as several."""

MAX_SECONDS: Final = 0.5
"""Of a processor, for one message: for templates whose single steps are slow."""

LONGEST: Final = 1_200_000
"""Characters and elements of any value that a template makes. A body that is data, of 1 MiB, has room."""

UNITS_PER_STEP: Final = 64
"""Of a value's size."""

_STEPS_UNCHECKED: Final = 128
_STEPS_PER_CHECK: Final = 64
_FEW_ROUNDS: Final = 16
_FEW_PARTS: Final = 200
_CHOSEN_PER_STEP: Final = 8
_INCLUDE_STEPS: Final = 20
_LARGEST_ARGUMENT: Final = 100_000
_LONGEST_SLOW: Final = 20_000
_MAX_BITS: Final = 4096
_MAX_INDENT: Final = 16


_LISTS: Final = (list, tuple)

_Filter: TypeAlias = Callable[..., Any]


class TooMuchError(Exception):
    """A template asks for more than a message may cost."""


class Meter:
    """What one message has taken so far. The clock is read once it has taken many steps: most take few."""

    __slots__ = ("check_at", "deadline", "steps")

    def __init__(self) -> None:
        self.steps, self.check_at, self.deadline = 0, _STEPS_UNCHECKED, 0.0

    def check(self) -> None:
        if self.steps > MAX_STEPS:
            raise TooMuchError(f"takes more than {MAX_STEPS:,} steps: loops, calls, filters and long texts")
        now = thread_time()
        self.deadline = self.deadline or now + MAX_SECONDS
        if now > self.deadline:
            raise TooMuchError(f"takes more than {MAX_SECONDS:g} s of a processor")
        self.check_at = self.steps + _STEPS_PER_CHECK


METER: Final[ContextVar[Meter | None]] = ContextVar("meter", default=None)
"""Of the message that is rendered. None outside, as where a file is compiled: then only sizes are bounded."""


def spend(steps: int = 1) -> None:
    """Raises `TooMuchError` where a message has taken too many, or too long."""
    meter = METER.get()
    if meter is not None:
        meter.steps += steps
        if meter.steps > meter.check_at:
            meter.check()


def check_size(size: int) -> None:
    if size > LONGEST:
        raise TooMuchError(f"makes a text or a list of more than {LONGEST:,} characters or elements")


def weight(value: Any) -> int:
    """How many characters and elements it takes to write a value out. Raises `TooMuchError` beyond `LONGEST`.

    What stands in a list twice counts twice: a few lists in one another can be more than any memory.
    """
    total, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, dict):
            total += len(one)
            left += one
            left += one.values()
        elif isinstance(one, _LISTS):
            total += len(one)
            left += one
        else:
            total += 1
        if total > LONGEST:
            check_size(total)
    return total


def sized(made: Any) -> Any:
    """What a step has made, once it is known to be bounded."""
    if isinstance(made, str):
        size = len(made)
        check_size(size)
    elif isinstance(made, (dict, *_LISTS)):
        size = weight(made)
    else:
        if isinstance(made, int) and made.bit_length() > _MAX_BITS:
            raise TooMuchError(f"makes a number of more than {_MAX_BITS:,} bits")
        return made
    if size >= UNITS_PER_STEP:
        spend(size // UNITS_PER_STEP)
    return made


class Rounds:
    """What a loop goes through, a step a round."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        for value in self._values:
            spend()
            yield value


def rounds(values: Any) -> Any:
    """The same values, each a step as it is taken; a few at once, as most loops are short."""
    if isinstance(values, (dict, *_LISTS)) and len(values) <= _FEW_ROUNDS:
        spend(len(values))
        return values
    return Rounds(values)


def concat(parts: Iterable[str]) -> str:
    """One text of what a template prints: values, each measured, and the template's own words."""
    texts = list(parts)
    if len(texts) > _FEW_PARTS:
        check_size(sum(map(len, texts)))
    text = "".join(texts)
    if len(text) >= UNITS_PER_STEP:
        check_size(len(text))
        spend(len(text) // UNITS_PER_STEP)
    return text


def dumps(value: Any, *, indent: Any = None, **options: Any) -> str:
    """JSON of a value that is bounded, for the filter `tojson`: its indentation is not."""
    if not indent:
        return json.dumps(value, **options)
    if not isinstance(indent, int) or indent > _MAX_INDENT:
        raise TooMuchError(f"indents by more than {_MAX_INDENT}")
    return concat(json.JSONEncoder(indent=indent, **options).iterencode(value))


# --- what can grow ------------------------------------------------------------------------------------------

_METHODS_LEFT_OUT: Final = frozenset(
    (
        "encode",
        "expandtabs",
        "format",
        "format_map",
        "from_bytes",
        "fromkeys",
        "maketrans",
        "to_bytes",
        "translate",
    )
)
"""Of texts, numbers and objects: each can grow, and a filter does the same where a message needs it at all."""

_FILTERS_LEFT_OUT: Final = frozenset({"pprint", "random", "urlize", "xmlattr"})
"""`random` writes the same event in other words each time, `urlize` makes links of what a sender wrote, and the
others are of no use in a message. All but `random` are slow on long texts."""


def check_attribute(owner: Any, name: str) -> None:
    if name in _METHODS_LEFT_OUT and isinstance(owner, str | int | float | dict):
        raise TooMuchError(f"{name!r} is left out: the filters do the same")


_KEY: Final = re.compile(r"%\([^()]*\)")
_WIDTH: Final = re.compile(r"%[-#0 +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4}))")


def _formatted(pattern: str, *args: Any, **kwargs: Any) -> int:
    """A format of `%`: each of its widths is below 1,000, and no key holds brackets."""
    keyless = _KEY.sub("%", str(pattern).replace("%%", ""))
    if "%(" in keyless or _WIDTH.search(keyless):
        raise TooMuchError(
            "formats with a width of 1,000 or more, or one that is no number, or a key with brackets"
        )
    longest = max(map(weight, (*args, *kwargs.values())), default=0)
    return len(str(pattern)) + str(pattern).count("%") * (1_000 + longest)


def _joined(values: Any, separator: Any = "", *_: Any, **named: Any) -> int:
    count = len(values) if isinstance(values, Sized) else 0
    return weight(values) + count * len(str(named.get("d", separator)))


def _replaced(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    return len(str(text)) + str(text).count(str(old)) * len(str(new))


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    by = len(width) if isinstance(width, str) else int(width)
    return len(str(text)) + (str(text).count("\n") + 1) * by


def _stripped(_text: Any, characters: Any = None, *_: Any, **named: Any) -> int:
    """Each character of the text is looked for among these."""
    return _slow(named.get("chars", characters) or "") * 100


def _slow(text: Any, *_: Any, **__: Any) -> int:
    """Takes the square of a text's length, in the worst case."""
    return len(str(text)) * (LONGEST // _LONGEST_SLOW)


def _added(_values: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, int | float):
        raise TooMuchError("adds up what are no numbers")
    return 0


_GROWTH: Final[Mapping[str, Callable[..., int]]] = {
    "format": _formatted,
    "indent": _indented,
    "join": _joined,
    "replace": _replaced,
    "striptags": _slow,
    "sum": _added,
    "wordwrap": _slow,
    **dict.fromkeys(("trim", "strip", "lstrip", "rstrip"), _stripped),
}
"""By the names of filters and of methods, how long what they make can be, or as how long it shall count."""


def before(name: str, *args: Any, **kwargs: Any) -> None:
    """What a filter, or a method of a text, is about to make. Raises `TooMuchError`."""
    spend()
    for argument in (*args[1:], *kwargs.values()):
        if isinstance(argument, int) and abs(argument) > _LARGEST_ARGUMENT:
            raise TooMuchError(f"gives {name!r} a number over {_LARGEST_ARGUMENT:,}")
    if growth := _GROWTH.get(name):
        check_size(growth(*args, **kwargs))


def before_method(name: str, text: str, *args: Any, **kwargs: Any) -> None:
    before(name, *((args[0], text) if name == "join" and args else (text, *args)), **kwargs)


METERED_OPERATORS: Final = frozenset({"+", "*", "**", "%"})


def before_operator(operator: str, left: Any, right: Any) -> None:
    spend()
    if operator == "%" and isinstance(left, str):
        check_size(_formatted(left, right))
    elif operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(times, int):
                check_size(weight(value) * times)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        check_size(left.bit_length() * abs(right) * (LONGEST // _MAX_BITS))


_PASSING: Final = frozenset({"attr", "count", "d", "default", "first", "items", "last", "length"})
"""Filters that give what they are given, or a part of it, at once."""

_CHOOSING: Final = frozenset({"list", "reject", "rejectattr", "select", "selectattr", "unique"})
"""Filters whose list holds what they are given, once."""


def _bounded_filter(name: str, filter_: _Filter) -> _Filter:
    """The filter of Jinja, as a step that is measured before and after. What would come one by one is a list."""
    if name in _PASSING:
        return filter_
    given = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        made = list(filter_(*args, **kwargs))
        spend(1 + len(made) // _CHOSEN_PER_STEP)
        return made

    @wraps(filter_)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        before(name, *args[given:], **kwargs)
        made = filter_(*args, **kwargs)
        return sized(list(made) if isinstance(made, Iterator) else made)

    return chosen if name in _CHOOSING else bounded


def _weighed(filter_: _Filter) -> _Filter:
    """A filter of ours, which goes over all that it is given and makes no more of it."""
    given = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def weighed(*args: Any, **kwargs: Any) -> Any:
        spend(1 + weight(args[given]) // UNITS_PER_STEP)
        return filter_(*args, **kwargs)

    return weighed


def _whole_number(value: Any, default: Any = 0) -> Any:
    """Jinja's `int` without its base: by a base of 16 a text could be a number of any length."""
    return do_int(value, default)


def bounded_test(test: Any) -> Any:
    @wraps(test)
    def bounded(*args: Any) -> Any:
        spend()
        return test(*args)

    return bounded


# --- what no filter or method makes ---------------------------------------------------------------------------


@pass_context  # so that it is not worked out when a file is compiled
def _rounds(_context: Context, values: Any) -> Any:
    return rounds(values)


@pass_context
def _included(_context: Context, name: Any) -> Any:
    spend(_INCLUDE_STEPS)
    return name


@pass_eval_context
def _concatenated(context: EvalContext, parts: list[Any]) -> str:
    size = weight(parts)
    spend(1 + size // UNITS_PER_STEP)
    return markup_join(parts) if context.autoescape else str_join(parts)


_PLAIN: Final = "plain "
_ROUNDS: Final = "rounds of"
_INCLUDED: Final = "included from"
_CONCATENATED: Final = "concatenated from"
_SIZED: Final = "sized by"


def with_bounds(ours: Mapping[str, _Filter], filters: Mapping[str, _Filter]) -> dict[str, _Filter]:
    """Filters: `ours`, Jinja's `filters` with bounds, and some by names that no template can write."""
    known = {name: one for name, one in filters.items() if name not in _FILTERS_LEFT_OUT}
    bounded = {name: _bounded_filter(name, one) for name, one in known.items()}
    weighed = {name: _weighed(one) for name, one in ours.items()}
    plain = {_PLAIN + name: one for name, one in {**known, **ours}.items()}
    internal: dict[str, _Filter] = {
        _ROUNDS: _rounds,
        _INCLUDED: _included,
        _CONCATENATED: _concatenated,
        _SIZED: sized,
    }
    return {**bounded, "int": _whole_number, **weighed, **plain, **internal}


class Bounding(NodeTransformer):
    """Puts the filters above around what a parsed template loops over, includes, concatenates or lists."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.generic_visit(node)
        match node:
            case nodes.For():
                node.iter = _filtered(node.iter, _ROUNDS)
            case nodes.Include() | nodes.Import() | nodes.FromImport():
                node.template = _filtered(node.template, _INCLUDED)
            case nodes.Concat():
                return _filtered(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATED)
            case nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load") if not _is_constant(node):
                return _filtered(node, _SIZED)
        return node


class Plain(NodeTransformer):
    """For notifyd's own templates, which go once over what an event has: the filters as Jinja brings them."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.generic_visit(node)
        if isinstance(node, nodes.Filter):
            node.name = _PLAIN + node.name
        return node


def _is_constant(node: nodes.Node) -> bool:
    return all(
        isinstance(inner, nodes.Literal | nodes.Pair) and _is_constant(inner)
        for inner in node.iter_child_nodes()
    )


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
