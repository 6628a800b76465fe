"""The rules of a configuration as compiled CEL predicates: which of them an event matches, and why.

Pure: nothing is read or written after `RuleBook.compile`. CEL is described at https://cel.dev; the library
evaluates `when` with one variable, `event`. All that can be known from the text alone (syntax, unknown
variables and functions) is found when the book is compiled; a field that this event lacks shows at run time,
makes its rule not match, and is named in `Matches.errors`. So does a rule that would cost too much on this event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, Final

from attrs import evolve, field, frozen

from notifyd.config.faults import of_rule
from notifyd.config.settings import Rule
from notifyd.errors import ConfigError, Fault
from notifyd.rules.cost import LIMIT, CostError, Estimate, Region, read
from notifyd.rules.evaluator import cel
from notifyd.rules.expression import EVENT, Source, conjuncts, kind_of, place, tenant_of
from notifyd.text import fit

MAX_LENGTH: Final = 4000
"""Characters of a `when`. The parser recurses on the C stack, which a very long expression would exhaust."""

_TENANTS: Final = 1024
"""For how many pairs of a kind and a tenant the rules that can match are kept."""

_DETAIL_LIMIT: Final = 300
_EXCERPT: Final = 40  # characters shown on either side of a fault

NATIVE_FUNCTIONS: Final = frozenset(
    {
        *("size", "contains", "startsWith", "endsWith", "matches", "dyn", "type"),
        *("string", "bytes", "double", "int", "uint", "timestamp", "duration"),
        *("getFullYear", "getMonth", "getDayOfMonth", "getDayOfYear", "getDate", "getDayOfWeek"),
        *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
        *("optional.of", "optional.none", "optional.ofNonZeroValue", "hasValue", "value", "orValue", "or"),
    }
)
"""The functions the library has of its own. It can name those an expression calls, not those it knows."""


@frozen
class Matches:
    """The rules an event matches, in order, and the names of those that could not be evaluated."""

    rules: tuple[Rule, ...]
    errors: tuple[str, ...]


class Verdict(StrEnum):
    MATCHED = "matched"
    NOT_MATCHED = "not_matched"
    ERROR = "error"  # counts as not matched
    NOT_REACHED = "not_reached"  # an earlier rule matched and has `stop`


@frozen
class Explanation:
    """What one rule made of an event; `detail` says why it could not be evaluated, or which part did not hold."""

    rule: Rule
    verdict: Verdict
    detail: str = ""


@frozen
class _Compiled:
    """`members` are the top-level members of `event` that the rule reads; None where it takes it whole.

    `kind` is the one kind of event that can match, None where there may be several, and `tenant` the one tenant
    whose events can; `by_kind` says that the rule asks for nothing but the kind. `region` is what its cost is
    estimated by, None where no event makes that worth knowing.
    """

    rule: Rule
    program: cel.Program
    members: frozenset[str] | None
    kind: str | None
    tenant: str | None
    by_kind: bool
    region: Region | None

    def excludes(self, kind: object, tenant: object) -> bool:
        """Is it known without evaluating it that no event of these matches? What is no text tells nothing."""
        other_kind = self.kind is not None and self.kind != kind and type(kind) is str
        return other_kind or (self.tenant is not None and self.tenant != tenant and type(tenant) is str)


@frozen
class RuleBook:
    """The compiled rules of one configuration. Immutable, and safe to share between threads."""

    _rules: tuple[_Compiled, ...]
    _functions: Mapping[str, Callable[..., Any]]
    _members: frozenset[str]
    _by_kind: Mapping[str | None, tuple[_Compiled, ...]]
    _of_tenant: Callable[[str | None, str], tuple[_Compiled, ...]] = field(eq=False, repr=False)

    @property
    def foreign(self) -> bool:
        """May a rule call a plugin's function, which may take any time?"""
        return bool(self._functions)

    @classmethod
    def compile(cls, rules: Sequence[Rule], functions: Mapping[str, Callable[..., Any]]) -> RuleBook:
        """Compiles every `when`. Raises `ConfigError` with all that is wrong with all of them."""
        compiled: list[_Compiled] = []
        faults: list[Fault] = []
        for rule in rules:
            try:
                compiled.append(_compile(rule, functions))
            except _BadExpressionError as error:
                faults += [Fault(f"{of_rule(rule.name)}.when", message) for message in error.messages]
        if faults:
            raise ConfigError(faults)
        guarded = {name: _guard(name, function) for name, function in functions.items()}
        return cls._of(tuple(compiled), guarded)

    @classmethod
    def joined(cls, books: Sequence[RuleBook]) -> RuleBook:
        """The rules of one book or more, which were compiled with the same functions, in order."""
        rules = tuple(one for book in books for one in book._rules)  # noqa: SLF001 - of this class
        return cls._of(rules, books[0]._functions)  # noqa: SLF001 - of this class

    @classmethod
    def _of(cls, rules: tuple[_Compiled, ...], functions: Mapping[str, Callable[..., Any]]) -> RuleBook:
        members = frozenset().union(*(one.members or () for one in rules))
        by_kind = _by_kind(rules)
        of_tenant = lru_cache(maxsize=_TENANTS)(partial(_of_tenant, by_kind))
        return cls(rules, functions, members, by_kind, of_tenant)

    def concern(self, kind: str, tenant: str | None = None) -> bool:
        """Can any rule match an event of this kind, and of this tenant where one is given?"""
        return bool(self._able(kind, tenant))

    def _able(self, kind: object, tenant: object) -> tuple[_Compiled, ...]:
        """The rules that can match such an event, in order: but for those that `_Compiled.excludes`."""
        if type(kind) is not str:
            return self._rules
        named = kind if kind in self._by_kind else None
        return self._of_tenant(named, tenant) if type(tenant) is str else self._by_kind[named]

    def match(self, event: Mapping[str, Any]) -> Matches:
        """The rules that `event` matches; a matching rule with `stop` ends the list. Never raises."""
        matched: list[Rule] = []
        errors: list[str] = []
        for found in self._walk(self._able(event.get("kind"), _tenant_in(event)), event):
            if found.verdict is Verdict.MATCHED:
                matched.append(found.rule)
            elif found.verdict is Verdict.ERROR:
                errors.append(found.rule.name)
        return Matches(tuple(matched), tuple(errors))

    def possible(self, known: Mapping[str, Any]) -> Iterator[Rule]:
        """The rules that can match an event with these members, whatever it has besides.

        One cannot where a part of it that `&&` joins reads nothing else of the event, and is false.
        """
        context = cel.Context({EVENT: dict(known)}, dict(self._functions))
        return (one.rule for one in self._rules if not _is_excluded(one.rule.when, known, context))

    def explain(self, event: Mapping[str, Any]) -> tuple[Explanation, ...]:
        """What every rule makes of `event`, in order, those behind a `stop` too."""
        context = cel.Context({EVENT: dict(event)}, dict(self._functions))
        reached = tuple(_reasoned(found, context) for found in self._walk(self._rules, event))
        rest = self._rules[len(reached) :]
        return reached + tuple(Explanation(one.rule, Verdict.NOT_REACHED) for one in rest)

    def _walk(self, rules: Sequence[_Compiled], event: Mapping[str, Any]) -> Iterator[Explanation]:
        views = _Views(event, self._members, self._functions)
        kind, tenant = event.get("kind"), _tenant_in(event)
        for one in rules:
            if one.excludes(kind, tenant):
                found = Explanation(one.rule, Verdict.NOT_MATCHED)
            elif one.by_kind and type(kind) is str:
                found = Explanation(one.rule, Verdict.MATCHED)
            else:
                found = _evaluate(one, views)
            yield found
            if one.rule.stop and found.verdict is Verdict.MATCHED:
                return


def _by_kind(rules: Sequence[_Compiled]) -> dict[str | None, tuple[_Compiled, ...]]:
    """For each kind that a rule names the rules that can match it; under None those that name none."""
    return {
        kind: tuple(one for one in rules if one.kind in (kind, None))
        for kind in {None, *(one.kind for one in rules)}
    }


def _of_tenant(
    by_kind: Mapping[str | None, tuple[_Compiled, ...]], kind: str | None, tenant: str
) -> tuple[_Compiled, ...]:
    return tuple(one for one in by_kind[kind] if one.tenant in (tenant, None))


def _tenant_in(event: Mapping[str, Any]) -> object:
    tenant = event.get("tenant")
    return tenant.get("id") if isinstance(tenant, Mapping) else None


class _Views:
    """An event as CEL values, converted once for all rules.

    Converting is what costs: a hundred steps take half a millisecond, evaluating a prepared rule half a
    microsecond. So the rules that name the members they read share a view of these members only.
    """

    def __init__(
        self,
        event: Mapping[str, Any],
        members: frozenset[str],
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._event = event
        self._members = members
        self._functions = dict(functions)
        self._narrow: cel.Context | None = None
        self._whole: cel.Context | None = None
        self._estimate: Estimate | None = None
        self._spent = 0

    def spend(self, region: Region) -> None:
        """Raises `CostError` where evaluating it costs more than the rules before have left."""
        self._estimate = self._estimate or Estimate(self._event)
        cost = self._estimate.of(region)
        if self._spent + cost > LIMIT:
            raise CostError(f"costs {cost:,} units on this event, where {LIMIT - self._spent:,} are left")
        self._spent += cost

    def of(self, members: frozenset[str] | None) -> cel.Context:
        if members is None:
            self._whole = self._whole or self._context(dict(self._event))
            return self._whole
        if self._narrow is None:
            self._narrow = self._context(
                {key: self._event[key] for key in self._members & self._event.keys()}
            )
        return self._narrow

    def _context(self, event: dict[str, Any]) -> cel.Context:
        return cel.Context({EVENT: event}, self._functions)


def _evaluate(one: _Compiled, views: _Views) -> Explanation:
    try:
        if one.region is not None:
            views.spend(one.region)
        result = one.program.execute(views.of(one.members))
    except Exception as error:  # noqa: BLE001 - a plugin's function may raise anything; its rule is counted
        return Explanation(one.rule, Verdict.ERROR, _describe(error))
    if result is True:
        return Explanation(one.rule, Verdict.MATCHED)
    if result is False:
        return Explanation(one.rule, Verdict.NOT_MATCHED)
    return Explanation(one.rule, Verdict.ERROR, f"gave {type(result).__name__}, neither true nor false")


def _reasoned(found: Explanation, context: cel.Context) -> Explanation:
    """The parts joined by `&&` that did not hold, of a rule that did not match."""
    if found.verdict is not Verdict.NOT_MATCHED:
        return found
    for part in conjuncts(found.rule.when):
        try:
            holds = cel.compile(part).execute(context)
        except Exception as error:  # noqa: BLE001 - a plugin's function may raise anything
            return evolve(found, detail=f"`{_on_one_line(part)}`: {_describe(error)}")
        if holds is not True:
            return evolve(found, detail=f"`{_on_one_line(part)}` is false")
    return found


def _is_excluded(when: str, known: Mapping[str, Any], context: cel.Context) -> bool:
    parts = ((part, Source.scan(part).members) for part in conjuncts(when))
    readable = (part for part, members in parts if members is not None and members <= known.keys())
    return any(_is_false(part, context) for part in readable)


def _is_false(part: str, context: cel.Context) -> bool:
    try:
        return cel.compile(part).execute(context) is False
    except Exception:  # noqa: BLE001 - a plugin's function may raise anything: then nobody knows
        return False


def _on_one_line(part: str) -> str:
    return fit(" ".join(part.split()), _DETAIL_LIMIT)


def _describe(error: Exception) -> str:
    """The library's error as one line of bounded length, without its general advice on CEL."""
    if isinstance(error, KeyError):
        return f"the event has no {error.args[0]!r}" if error.args else "a field is missing"
    text = " ".join(str(error).split())
    text = re.split(r"\. (?:CEL does not coerce|Check (?:that|function))", text)[0]
    return text[:_DETAIL_LIMIT]


class _FunctionError(Exception):
    """A plugin's function failed. Carries no text of the event: the library writes it to standard error."""


def _guard(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            raise _FunctionError(f"{name}() raised {type(error).__name__}") from error

    return guarded


class _BadExpressionError(Exception):
    def __init__(self, messages: Iterable[str]) -> None:
        self.messages = tuple(messages)


def _compile(rule: Rule, functions: Mapping[str, Callable[..., Any]]) -> _Compiled:
    """Raises `_BadExpressionError` with all that is wrong with `when`."""
    if len(rule.when) > MAX_LENGTH:
        raise _BadExpressionError([f"longer than {MAX_LENGTH} characters"])
    try:
        program = cel.compile(rule.when)
    except ValueError as error:
        raise _BadExpressionError(_syntax_faults(rule.when, str(error))) from error
    source = Source.scan(rule.when)
    known = NATIVE_FUNCTIONS | functions.keys()
    faults = [
        *source.unknown_variables(program, known),
        *source.unknown_functions(program, known),
        *source.misfits(functions),
    ]
    if faults:
        raise _BadExpressionError(faults)
    region, bad = read(rule.when)
    if bad:
        raise _BadExpressionError(f"{place(rule.when, one.at)}: {one.message}" for one in bad)
    kind, tenant = kind_of(rule.when), tenant_of(rule.when)
    by_kind = kind is not None and len(conjuncts(rule.when)) == 1
    return _Compiled(rule, program, source.members, kind, tenant, by_kind, region if region.varies else None)


def faults_of(when: str, functions: Mapping[str, Callable[..., Any]]) -> tuple[str, ...]:
    """All that is wrong with an expression."""
    try:
        _compile(Rule("", when, ()), functions)
    except _BadExpressionError as error:
        return error.messages
    return ()


def _syntax_faults(when: str, text: str) -> list[str]:
    """One message per syntax fault, with the text at its place, from the library's report."""
    if deep := re.search(r"Recursion limit of \d+ exceeded", text):
        return [f"nested too deep: {deep.group().lower()}"]
    lines = when.splitlines() or [""]
    messages = []
    for reported in text.splitlines():
        _, found, fault = reported.partition("ERROR: <input>:")
        line, _, rest = fault.partition(":")
        column, _, what = rest.partition(": ")
        if not (found and line.isdecimal() and column.isdecimal()):
            continue
        from_ = max(0, int(column) - 1 - _EXCERPT)
        excerpt = lines[min(int(line), len(lines)) - 1][from_ : int(column) + _EXCERPT].strip()
        what = re.sub(r" expecting \{.*\}$", "", what).replace("'<EOF>'", "the end")
        messages.append(f"line {line}, column {column}: {what}, in `{excerpt}`")
    return messages or [" ".join(text.split())[:_DETAIL_LIMIT]]
