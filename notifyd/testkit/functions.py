"""The part of the conformance kit for functions of rules: quick, pure, and fit for whatever an event holds."""

from __future__ import annotations

import builtins
import copy
import gc
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from time import thread_time
from typing import Any, ClassVar, Final
from unittest import mock
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import time_machine
from blockbuster import BlockingError

from notifyd.config.settings import Rule
from notifyd.errors import ConfigError
from notifyd.plugin import RuleFunction
from notifyd.rules.rules import RuleBook, Verdict
from notifyd.testkit.bounds import demand, not_held, unblocked
from notifyd.testkit.leaks import all_that_is_shown
from notifyd.testkit.plugins import examined, plugin_near
from notifyd.testkit.samples import HOSTILE

QUICK: Final = 0.05
"""Seconds of a processor that one call may take: all rules together have 0.2 for an event."""

_LONGEST: Final = 16_384  # characters of a text in an event
_TIMES: Final = 24  # how often a call is repeated, and at how many times and zones
_STEP: Final = timedelta(days=25, hours=7, minutes=13)  # so that every weekday, month and hour comes
_ZONES: Final = (ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/St_Johns"))

_ODD: Final = (
    *(None, True, 0, -1, 2**62, 1e308, "", "  ", [], [None], [[1], {"a": []}], {}, {"a": None}),
    *(text for text in HOSTILE if text.isprintable() or text.isascii()),
)
"""What an event can hold where a function expects something else."""

_LONG: Final = tuple((unit * _LONGEST)[:_LONGEST] for unit in ("a", "0", " ", "a.", "a@", "((", '\\"', "\n"))


@pytest.mark.asyncio
class RuleFunctionConformance:
    """What must be true of every function for rules. Subclass it as `class TestMine(RuleFunctionConformance)`."""

    function: ClassVar[RuleFunction]

    calls: ClassVar[Sequence[tuple[Any, ...]]]
    """The arguments of calls as rules make them: one at least, of each number of arguments that it takes."""

    refuses: ClassVar[tuple[type[Exception], ...]] = ()
    """What it raises on purpose for a value that it cannot use: the rule then counts as one that failed."""

    variadic: ClassVar[bool] = False
    """Does it take any number of arguments on purpose? Then no rule with too few is found when it is loaded."""

    hooks: ClassVar[object | None] = None
    """The module, or object, that bears the hooks: looked for in the function's package where it is None."""

    patience: ClassVar[float] = 2.0
    """Seconds after which a call that has not ended is ended by force."""

    def call(self, arguments: Sequence[Any]) -> Any:
        """What it gives for copies of these, or None where it refuses them on purpose."""
        with not_held(self.patience, f"{self.function.name}{shown(arguments)}"):
            try:
                return self.function.function(*copy.deepcopy(arguments))
            except self.refuses:
                return None
            except BlockingError:
                raise
            except (Exception, SystemExit) as error:
                raise AssertionError(
                    f"{self.function.name}{shown(arguments)} raised {type(error).__name__}: an event can hold"
                    " anything, so give a value such as false, or name the error in `refuses`"
                ) from error

    def odd_calls(self, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Each call with one of its arguments replaced by each of `values`."""
        for arguments in self.calls:
            for place in range(len(arguments)):
                yield from ((*arguments[:place], odd, *arguments[place + 1 :]) for odd in values)

    # --- its shape ------------------------------------------------------------------------------------------

    async def test_the_daemon_takes_it(self) -> None:
        given = self.function
        module = _plain(given.function).__module__ or ""
        found = examined(self.hooks or plugin_near(module, "notifyd_rule_functions", given))
        demand(not found.faults, f"the daemon refuses it: {'; '.join(map(str, found.faults))}")
        demand(
            given.name in found.rule_functions, f"the plugin's hooks do not give a function {given.name!r}"
        )

    async def test_rules_call_it_with_as_many_arguments_as_it_takes(self) -> None:
        demand(self.calls, "there is nothing to test it with: name the arguments of a call in `calls`")
        for arguments in self.calls:
            faults = self._faults(len(arguments))
            demand(not faults, f"a rule with the call {shown(arguments)} is refused: {'; '.join(faults)}")
        more = max(map(len, self.calls)) + 16
        demand(
            self.variadic or self._faults(more),
            f"a rule that gives it {more} arguments is not refused: a signature without `*` lets notifyd find"
            " what a rule forgets; if it takes any number on purpose, say `variadic = True`",
        )

    def _book(self, count: int) -> RuleBook:
        given = ", ".join(f"event.x{number}" for number in range(count))
        when = f"size([{self.function.name}({given})]) == 1"
        return RuleBook.compile([Rule("kit", when, ())], {self.function.name: self.function.function})

    def _faults(self, count: int) -> list[str]:
        """What the daemon finds wrong with a rule that gives so many arguments."""
        try:
            self._book(count)
        except ConfigError as error:
            return [str(fault) for fault in error.faults]
        return []

    # --- what it gives --------------------------------------------------------------------------------------

    async def test_it_gives_values_that_rules_know(self) -> None:
        for arguments in (*self.calls, *self.odd_calls(_ODD)):
            wrong = misfit(self.call(arguments))
            demand(
                not wrong,
                f"{self.function.name}{shown(arguments)} gives {wrong}: give a str, int of 64 bits, float, bool,"
                " None, or a list or dict of these",
            )
        for arguments in self.calls:
            event = {f"x{number}": value for number, value in enumerate(arguments)}
            (made,) = self._book(len(arguments)).explain(event)
            demand(made.verdict is Verdict.MATCHED, f"a rule that calls it so fails: {made.detail}")

    async def test_it_raises_nothing_whatever_an_event_holds(self) -> None:
        for arguments in (*self.calls, *self.odd_calls(_ODD)):
            self.call(arguments)

    async def test_it_changes_nothing_that_it_is_given(self) -> None:
        for arguments in (*self.calls, *self.odd_calls(_ODD)):
            given = copy.deepcopy(arguments)
            with suppress(Exception):  # found by another test
                self.function.function(*given)
            demand(
                repr(given) == repr(arguments),
                f"it changed its arguments {shown(arguments)}: copy them first",
            )

    # --- a function of its arguments ------------------------------------------------------------------------

    async def test_the_same_arguments_give_the_same_answer(self) -> None:
        for arguments in (*self.calls, *self.odd_calls([f"new {uuid4()}"])):
            self._same(
                arguments, [self.call(arguments) for _ in range(_TIMES)], "it keeps something, or draws"
            )

    async def test_it_asks_no_clock(self) -> None:
        for arguments in self.calls:
            answers = []
            for number in range(_TIMES):
                moment = datetime.now(UTC) + number * _STEP
                with time_machine.travel(moment.astimezone(_ZONES[number % 2]), tick=False):
                    answers.append(self.call(arguments))
            self._same(
                arguments,
                answers,
                "it asks a clock, or the machine's time zone: take the event's time, such as `event.occurredAt`",
            )

    async def test_it_draws_no_chance(self) -> None:
        for arguments in self.calls:
            before, drawn = random.getstate(), list[str]()
            with _chance(drawn):
                answers = [self.call(arguments)]
            demand(
                not drawn and random.getstate() == before, "it draws at random: an event is judged once more"
            )
            with _salted(0x5DEECE66D):
                answers.append(self.call(arguments))
            self._same(
                arguments, answers, "it uses hash() or id(), which differ in every process: take hashlib"
            )

    async def test_it_reads_no_environment(self) -> None:
        for arguments in self.calls:
            self.call(arguments)  # what a first use loads does not count
            read: list[str] = []
            with mock.patch.object(os, "environ", _Watched(os.environ, read)):
                self.call(arguments)
            demand(not read, f"it reads the environment ({', '.join(read)}): take it as an argument")

    def _same(self, arguments: Sequence[Any], answers: list[Any], why: str) -> None:
        first = repr(answers[0])
        other = next((repr(answer) for answer in answers if repr(answer) != first), None)
        demand(
            other is None,
            f"{self.function.name}{shown(arguments)} gives {first} and then {other}: {why}",
        )

    # --- what it costs and shows ----------------------------------------------------------------------------

    async def test_it_blocks_nothing(self) -> None:
        code = _plain(self.function.function)
        module = sys.modules.get(getattr(code, "__module__", None) or "")
        for arguments in self.calls:
            self.call(arguments)  # what a first use loads does not count
            with unblocked(code) if getattr(module, "__file__", None) else nullcontext():
                self.call(arguments)

    async def test_it_is_quick(self) -> None:
        for arguments in self.calls:
            self.call(arguments)  # what a first use loads does not count
        for arguments in (*self.calls, *self.odd_calls(_LONG)):
            with _uncollected():
                before = thread_time()
                self.call(arguments)
                taken = thread_time() - before
            demand(
                taken <= QUICK,
                f"{self.function.name}{shown(arguments)} takes {taken:.2g} s of a processor: {QUICK:g} at most",
            )

    async def test_it_prints_and_logs_nothing(self) -> None:
        with all_that_is_shown() as lines:
            for arguments in (*self.calls, *self.odd_calls(_ODD)):
                self.call(arguments)
        demand(not lines, f"it prints, logs or warns, and with it what an event holds: {lines[:1]}")


def shown(arguments: Sequence[Any]) -> str:
    """A call's arguments, in brackets and not too long."""
    return (
        f"({', '.join(repr(one) if len(repr(one)) <= 60 else repr(one)[:57] + '...' for one in arguments)})"
    )


def misfit(value: Any) -> str:
    """What of a value CEL has no place for, or has another one for; "" where there is nothing."""
    if isinstance(value, bool | str | float | None):
        return ""
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**63 else "an int of more than 64 bits"
    if isinstance(value, Mapping):
        odd = next((misfit(item) for item in value.values() if misfit(item)), "")
        return odd if all(isinstance(key, str) for key in value) else "a dict with keys that are no str"
    if isinstance(value, list):
        return next((misfit(item) for item in value if misfit(item)), "")
    return f"a value of type {type(value).__name__}"


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is called, behind what `functools.partial` adds."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__name__") else type(function)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Here no garbage of others is collected, which would count as the function's own time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _chance(drawn: list[str]) -> Iterator[None]:
    """Notes here what is drawn from the operating system, by `secrets` and `uuid` too."""
    urandom = os.urandom

    def noted(size: int) -> bytes:
        drawn.append("urandom")
        return urandom(size)

    with mock.patch.object(os, "urandom", noted), mock.patch.object(random, "_urandom", noted):
        yield


@contextmanager
def _salted(salt: int) -> Iterator[None]:
    """`hash` and `id` as another process might give them."""
    hash_, id_ = hash, id
    with (
        mock.patch.object(builtins, "hash", lambda value: hash_(value) ^ salt),
        mock.patch.object(builtins, "id", lambda value: id_(value) ^ salt),
    ):
        yield


class _Watched(dict[str, str]):
    """The environment, which notes what is read of it."""

    def __init__(self, environ: Mapping[str, str], read: list[str]) -> None:
        super().__init__(environ)
        self._read = read

    def __getitem__(self, name: str) -> str:
        self._read.append(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.append(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self._read.append(str(name))
        return super().__contains__(name)
