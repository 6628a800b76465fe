"""Is a `when` true or false? CEL checks no types before it evaluates, so it is tried on examples.

What an event may hold that no example does (labels, parameters, members of its own) is tried as a value of each
kind. A part that gives a boolean on any of them may be one; where it gives something else on some, and a boolean
on none, it cannot. So `event.runId` and `size(event.steps)` are found, and `event.parameters.force` is left alone.
So is found what can be evaluated on none of them because of the kinds it puts together, such as `event.kind > 3`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from notifyd.rules.cost import Path, read
from notifyd.rules.evaluator import cel
from notifyd.rules.expression import EVENT, MACROS, Source, conjuncts, kind_of

_OF_ANY_KIND: Final[tuple[Any, ...]] = (True, "text", 1, 1.5, ["text"], {"key": "text"})
_LABELS: Final = "labels"
"""The member whose own members are text."""
_OPEN: Final = frozenset({_LABELS, "parameters", "data"})
"""The members whose own members are whatever the sender chose."""

_NO_OVERLOAD: Final = re.compile(
    "No such overload|Unsupported operation|Unexpected type|Undefined variable or function"
).match
"""How the library says that an operation, or a function, is not defined for values of these kinds."""

_EXTENSION: Final = re.compile("[a-z0-9]+").fullmatch
"""The names of attributes of CloudEvents (https://github.com/cloudevents/spec, naming conventions)."""

_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a map",
    type(None): "null",
}


def no_boolean(when: str, examples: Iterable[Mapping[str, Any]], native: frozenset[str]) -> Iterator[str]:
    """A fault for each part joined by `&&` that gives no boolean on any of `examples`, and something else on some.

    So is one for each that is not defined for the kinds of what it reads: it fails on every event.

    `native` are the functions that may be called: what a plugin's own give is not looked at. `when` must compile.
    """
    kind = kind_of(when)
    concerned = [_emptied(one) for one in examples if kind in (None, one["kind"])] or [{"kind": kind}]
    for part in dict.fromkeys(map(str.strip, conjuncts(when))):
        called = {call.name.rpartition(".")[2] for call in Source.scan(part).calls}
        if not called <= native | MACROS:
            continue
        gave = _gives(part, concerned)
        shown = " ".join(part.split())
        if gave <= {_Undefined} and gave:
            yield f"`{shown}` fails on every event: it compares or calls what is of another kind"
        elif bool not in gave and (kinds := gave - {_Undefined}):
            told = " or ".join(sorted({_NAMES.get(each, "no boolean") for each in kinds}))
            yield f"`{shown}` is {told}: a rule is either true or false"


def _emptied(event: Mapping[str, Any]) -> dict[str, Any]:
    """`event` without what its sender chose: another's may be of another kind."""
    return {key: {} if key in _OPEN else value for key, value in event.items()}


class _Undefined:
    """What stands for the type of what cannot be evaluated, whatever the values of these kinds are."""


def _gives(part: str, examples: Sequence[Mapping[str, Any]]) -> set[type]:
    """The types of what `part` gives on the examples that it can be evaluated on, up to the first boolean.

    `_Undefined` is among them only where everything the part reads is in the examples: what a sender chose may be
    of a kind that was not tried.
    """
    program, paths = cel.compile(part), list(read(part)[0].all_paths())
    certain = not _lacking(examples, paths) and not _may_differ(examples, paths)
    gave: set[type] = set()
    for event in _filled(examples, paths):
        # The library raises several kinds of errors where a part cannot be evaluated on an event.
        with suppress(Exception):
            try:
                gave.add(type(program.execute(cel.Context({EVENT: event}, {}))))
            except (TypeError, RuntimeError) as error:
                if certain and _NO_OVERLOAD(str(error)):
                    gave.add(_Undefined)
        if bool in gave:
            break
    return gave


def _filled(examples: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The examples, with a value of each kind where `paths` lead to what they lack and an event may have."""
    lacking = _lacking(examples, paths)
    for example in examples:
        for value in _OF_ANY_KIND[: None if lacking else 1]:
            event = dict(example)
            for members in lacking:
                _put(event, members, "text" if members[0] == _LABELS else value)
            yield event


def _may_differ(examples: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> bool:
    """Can a CloudEvent bring a member of a kind of its own by the name of one that other events have?"""
    read_of_event = {path.members[0] for path in paths if path.root == EVENT and path.members}
    partly = (name for name in read_of_event if not all(name in example for example in examples))
    return any(_EXTENSION(name) for name in partly) and any("source" in example for example in examples)


def _lacking(examples: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> list[tuple[str, ...]]:
    """The members that `paths` lead to, and that no example has."""
    known = frozenset().union(*examples)
    wanted = [path.members for path in paths if path.root == EVENT and path.members]
    return [one for one in wanted if one[0] not in known or (one[0] in _OPEN and len(one) > 1)]


def _put(event: dict[str, Any], members: Sequence[str], value: object) -> None:
    """Set what `members` lead to, where nothing is there."""
    *way, last = members
    here = event
    for name in way:
        inner = here.get(name)
        here[name] = here = dict(inner) if isinstance(inner, dict) else {}
    here.setdefault(last, value)
