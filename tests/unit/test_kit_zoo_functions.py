"""The kit for functions of rules: sound ones pass, and each broken one is told of by the test that it breaks."""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import re
import secrets
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from notifyd.plugin import RuleFunction, hookimpl
from notifyd.testing import RuleFunctionConformance as Kit

# --- sound ones ---------------------------------------------------------------------------------------------


def is_release(name: object) -> bool:
    return isinstance(name, str) and name.startswith("v")


def smallest(first: Any, *others: Any) -> Any:
    return min((one for one in (first, *others) if isinstance(one, str)), default=None)


def share_of(text: object, percent: object = 50) -> list[Any]:
    return [str(text)[:9], {"percent": percent if isinstance(percent, int) else None}, 0.5]


@functools.lru_cache
def known(text: str) -> bool:
    return text in {"one", "two"}


SOUND: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "one argument": (is_release, {"calls": [("v1",), ("1",)]}),
    "any number of arguments": (smallest, {"calls": [("a",), ("b", "a", "c")], "variadic": True}),
    "a default": (share_of, {"calls": [("a",), ("a", 7)]}),
    "no argument": (lambda: 7, {"calls": [()]}),
    "a partial": (functools.partial(share_of, percent=7), {"calls": [("a",)]}),
    "a cache": (known, {"calls": [("one",)], "refuses": (TypeError,)}),
    "a refusal": (
        lambda text: int(text) > 7,
        {"calls": [("8",)], "refuses": (TypeError, ValueError, OverflowError)},
    ),
}


def kit_of(function: Any, name: str = "kept", **members: Any) -> Kit:
    members = {"calls": [("v1", "Zurich")], "patience": 0.3} | members
    given = function if isinstance(function, RuleFunction) else RuleFunction(name, function)
    kit: Kit = type("KitOfOne", (Kit,), {"function": given, **members})()
    return kit


def checks() -> list[str]:
    return [name for name in vars(Kit) if name.startswith("test_")]


@pytest.mark.parametrize("sound", SOUND)
async def test_a_sound_function_passes(sound: str) -> None:
    function, members = SOUND[sound]
    for check in checks():
        await getattr(kit_of(function, **members), check)()


# --- broken ones, each in one respect -----------------------------------------------------------------------


SEEN: set[Any] = set()
COUNTS = [0]
HERE = Path(__file__)


def is_new(a: Any, b: Any) -> bool:
    new = repr((a, b)) not in SEEN
    SEEN.add(repr((a, b)))
    return new


def every_other(a: Any, b: Any) -> bool:
    COUNTS[0] += 1
    return COUNTS[0] % 2 == 0


def sorts_in_place(a: Any, b: list[Any]) -> int:
    b.sort(key=repr)
    return len(b)


def marks(a: Any, b: Any) -> bool:
    if isinstance(b, dict):
        b["seen"] = True
    return True


def prints(a: Any, b: Any) -> bool:
    print("looking at", a)
    return True


def logs(a: Any, b: Any) -> bool:
    logging.getLogger("plugin").debug("looking at %s", a)
    return True


def warns(a: Any, b: Any) -> bool:
    warnings.warn(f"odd: {a}", stacklevel=1)
    return True


def sleeps(a: Any, b: Any) -> bool:
    time.sleep(0.0001)
    return True


def reads_a_file(a: Any, b: Any) -> bool:
    return "x" in HERE.read_text()


def never_ends(a: Any, b: Any) -> bool:
    while True:
        pass


def backtracks(a: Any, b: Any) -> bool:
    return re.fullmatch(r"(a|a)+b", str(a)) is not None


def squares(a: Any, b: Any) -> bool:
    return sum(x == y for x in str(a)[:4000] for y in str(a)[:4000]) > 7


async def waits(a: Any, b: Any) -> bool:
    return True


def yields(a: Any, b: Any) -> Any:
    yield True


class Waits:
    async def __call__(self, a: Any, b: Any) -> bool:
        return True


def at_night(a: Any, b: Any) -> bool:
    return datetime.now(UTC).hour < 6


def on_a_sunday(a: Any, b: Any) -> bool:
    return time.localtime().tm_wday == 6


def of_this_zone(a: Any, b: Any) -> str:
    return datetime(2026, 6, 1, 12, tzinfo=UTC).astimezone().isoformat()


def by_keyword(a: Any, *, b: Any) -> bool:
    return True


def of_any(*all_of_them: Any) -> bool:
    return True


DAEMON = "test_the_daemon_takes_it"
ARITY = "test_rules_call_it_with_as_many_arguments_as_it_takes"
VALUES = "test_it_gives_values_that_rules_know"
RAISES = "test_it_raises_nothing_whatever_an_event_holds"
CHANGES = "test_it_changes_nothing_that_it_is_given"
SAME = "test_the_same_arguments_give_the_same_answer"
CLOCK = "test_it_asks_no_clock"
CHANCE = "test_it_draws_no_chance"
ENVIRONMENT = "test_it_reads_no_environment"
BLOCKS = "test_it_blocks_nothing"
QUICK = "test_it_is_quick"
SHOWS = "test_it_prints_and_logs_nothing"

BROKEN: dict[str, tuple[Any, str, str]] = {
    "an async function": (waits, DAEMON, "must not be async"),
    "an object with an async call": (Waits(), DAEMON, "must not be async"),
    "a generator": (yields, DAEMON, "return its value, and not yield"),
    "an argument by keyword alone": (by_keyword, DAEMON, "needs b by keyword"),
    "no function": (7, DAEMON, "must be callable"),
    "a name that CEL keeps": (
        RuleFunction("namespace", max),
        DAEMON,
        "has this name for something of its own",
    ),
    "the name of a macro": (RuleFunction("exists", max), DAEMON, "has this name for something of its own"),
    "the name of a function of CEL's": (
        RuleFunction("size", len),
        DAEMON,
        "has this name for something of its own",
    ),
    "the name of a type": (RuleFunction("list", len), DAEMON, "has this name for something of its own"),
    "the name of the variable": (
        RuleFunction("event", len),
        DAEMON,
        "has this name for something of its own",
    ),
    "a name with a hyphen": (RuleFunction("is-new", len), DAEMON, "is an identifier"),
    "fewer arguments": (lambda a: True, ARITY, "takes 1 argument, and 2 here"),
    "more arguments": (lambda a, b, c: True, ARITY, "takes 3 arguments, and 2 here"),
    "any number of arguments": (of_any, ARITY, "say `variadic = True`"),
    "no signature": (max, ARITY, "say `variadic = True`"),
    "a set": (lambda a, b: {1}, VALUES, "a value of type set"),
    "a tuple": (lambda a, b: (a, b), VALUES, "a value of type tuple"),
    "a Decimal": (lambda a, b: Decimal(1), VALUES, "a value of type Decimal"),
    "a time": (lambda a, b: datetime(2026, 1, 1, tzinfo=UTC), VALUES, "a value of type datetime"),
    "a long number": (lambda a, b: 2**64, VALUES, "an int of more than 64 bits"),
    "a set inside a list": (lambda a, b: [[{1}]], VALUES, "a value of type set"),
    "numbers as keys": (lambda a, b: {1: 2}, VALUES, "keys that are no str"),
    "a coroutine": (lambda a, b: functools.partial(waits, a, b), VALUES, "a value of type partial"),
    "half a character": (lambda a, b: "\ud800", VALUES, "a rule that calls it so fails"),
    "an odd value at a missing member": (lambda a, b: a if a else {1}, VALUES, "a value of type set"),
    "an error at another type": (lambda a, b: a.startswith("v"), RAISES, "raised AttributeError"),
    "an error at another text": (
        lambda a, b: b[0] == "Z" if isinstance(b, str) else 0,
        RAISES,
        "IndexError",
    ),
    "an error at what is no JSON": (
        lambda a, b: str(a) == "v1" or json.loads(str(a)),
        RAISES,
        "JSONDecodeError",
    ),
    "the end of the process": (lambda a, b: sys.exit(3), RAISES, "SystemExit"),
    "a list sorted in place": (
        kit_of(sorts_in_place, calls=[("a", [2, 1])]),
        CHANGES,
        "changed its arguments",
    ),
    "a mark in an object": (kit_of(marks, calls=[("a", {"b": 1})]), CHANGES, "changed its arguments"),
    "a memory of what it has seen": (is_new, SAME, "it keeps something"),
    "a counter": (every_other, SAME, "it keeps something"),
    "a nonce": (lambda a, b: str(uuid.uuid4()), SAME, "it keeps something, or draws"),
    "the hour": (at_night, CLOCK, "asks a clock"),
    "the day of the week": (on_a_sunday, CLOCK, "asks a clock"),
    "the machine's zone": (of_this_zone, CLOCK, "time zone"),
    "a lot": (lambda a, b: random.getrandbits(64) == 7, CHANCE, "draws at random"),
    "a secret lot": (lambda a, b: secrets.randbelow(10**9) == 7, CHANCE, "draws at random"),
    "a lot by a uuid": (lambda a, b: uuid.uuid4().int == 7, CHANCE, "draws at random"),
    "a hash": (lambda a, b: hash(a) % 10**6, CHANCE, "take hashlib"),
    "an id": (lambda a, b: id(HERE) % 10**6, CHANCE, "take hashlib"),
    "a variable of the environment": (lambda a, b: os.getenv("STAGE", ""), ENVIRONMENT, r"\(STAGE\)"),
    "a needed variable": (lambda a, b: "PATH" in os.environ, ENVIRONMENT, r"\(PATH\)"),
    "a sleep": (sleeps, BLOCKS, r"Blocking call to time\.sleep"),
    "a file": (reads_a_file, BLOCKS, "Blocking call to"),
    "no end": (never_ends, QUICK, "holds the event loop"),
    "a pattern that backtracks": (backtracks, QUICK, "holds the event loop"),
    "a loop in a loop": (squares, QUICK, "of a processor|holds the event loop"),
    "a print": (prints, SHOWS, "looking at"),
    "a log": (logs, SHOWS, "looking at"),
    "a warning": (warns, SHOWS, "odd: "),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_the_kit_tells(broken: str) -> None:
    given, check, complaint = BROKEN[broken]
    kit = given if isinstance(given, Kit) else kit_of(given)
    with pytest.raises((pytest.fail.Exception, Exception), match=complaint):
        await getattr(kit, check)()


async def test_the_kit_tells_of_a_function_that_no_hook_gives() -> None:
    hooks = SimpleNamespace(notifyd_rule_functions=hookimpl(lambda: [RuleFunction("other", is_release)]))
    with pytest.raises(pytest.fail.Exception, match="do not give a function 'kept'"):
        await kit_of(is_release, hooks=hooks).test_the_daemon_takes_it()


async def test_the_kit_tells_of_calls_that_nobody_named() -> None:
    with pytest.raises(pytest.fail.Exception, match="there is nothing to test it with"):
        await getattr(kit_of(is_release, calls=[]), ARITY)()


def test_the_zoo_has_every_test_of_the_kit_at_work() -> None:
    assert set(checks()) == {check for _, check, _ in BROKEN.values()}
