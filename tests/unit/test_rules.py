"""Rules: which events match, what is found when a book is compiled, what only an event can show."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import cel
import pytest

from notifyd.config.settings import Rule
from notifyd.errors import ConfigError
from notifyd.rules.rules import MAX_LENGTH, NATIVE_FUNCTIONS, Matches, RuleBook, Verdict, faults_of

EVENT: Mapping[str, Any] = {
    "kind": "pack.approval",
    "action": "requested",
    "tenant": {"id": "acme", "project": "payments"},
    "labels": {"environment": "production"},
    "steps": [{"id": "build", "name": "Build"}, {"id": "deploy", "name": "Deploy"}],
    "occurredAt": "2026-11-02T08:15:30Z",
    "parameters": {"replicas": 3},
    "x-note": None,
}


def rule(when: str, *, name: str = "r", stop: bool = False) -> Rule:
    return Rule(name=name, when=when, channels=("log",), stop=stop)


def book(*rules: Rule, **functions: Callable[..., Any]) -> RuleBook:
    return RuleBook.compile(rules, functions)


def matches(when: str, event: Mapping[str, Any] = EVENT) -> bool:
    found = book(rule(when)).match(event)
    assert not found.errors, book(rule(when)).explain(event)
    return bool(found.rules)


def faults(*whens: str, **functions: Callable[..., Any]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        book(*(rule(when, name=f"r{index}") for index, when in enumerate(whens)), **functions)
    return [(fault.pointer, fault.message) for fault in caught.value.faults]


# --- matching ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "when",
    [
        'event.kind == "pack.approval" && event.labels.environment == "production"',
        'event["kind"] == "pack.approval"',
        "event['kind'].startsWith('pack.')",
        'event.kind.matches("^pack[.]")',
        'event.steps.exists(s, s.id == "deploy") && !event.steps.exists(s, s.id == "destroy")',
        "event.steps.map(s, event.steps.filter(t, t.id == s.id)).size() == 2",
        "size(event.steps) > 1 && event.parameters.replicas == 3",
        'event.tenant.id in ["acme", "globex"]',
        'has(event.labels.environment) && !has(event.labels.region) && "kind" in event',
        "timestamp(event.occurredAt).getHours() == 8",
        'duration("1h") > duration("30m")',
        'event["x-note"] == null && type(event.parameters.replicas) == int',
        'event.exists(key, key == "kind")',
        "[event].exists(e, e.kind == 'pack.approval')",
        "event == event",
        'optional.of(event.kind).orValue("none") == event.kind',
        'event.kind == "pack.approval" // a comment: it\'s "fine"',
        'event // all of it\n  .kind == "pack.approval"',
        'r"\\d" != "event.kind" && b"a" == b"a" && """triple "quoted" text""" != \'\'\'\'\'\'',
        'event.kind == "pack.approval" || event.missing == 1',
        "event.steps.all(event, event.id != '')",
    ],
)
def test_expression_matches(when: str) -> None:
    """What CEL offers works, whether the rule names members of the event or takes it whole."""
    assert matches(when)


@pytest.mark.parametrize(
    "when",
    ['event.kind == "pack.policy"', "false", 'event.labels.environment == "Production"', "has(event.x)"],
)
def test_expression_does_not_match(when: str) -> None:
    assert not matches(when)


def test_rules_match_in_order_and_stop_ends_the_list() -> None:
    rules = [
        rule('event.kind == "other"', name="skipped", stop=True),
        rule("true", name="first"),
        rule('event.kind == "pack.approval"', name="second", stop=True),
        rule("true", name="third"),
    ]
    found = book(*rules).match(EVENT)
    assert [r.name for r in found.rules] == ["first", "second"]
    assert found.rules[1] is rules[2]


@pytest.mark.parametrize(
    ("when", "detail"),
    [
        ('event.nope == "x"', "the event has no 'nope'"),
        ("event.labels.region == 'eu'", "the event has no 'region'"),
        ("event.kind < 1", "No such overload: the operation is not defined for the given operand types"),
        ("event.kind", "gave str, neither true nor false"),
        ("1", "gave int, neither true nor false"),
        ("1 / 0 == 1", "division by zero in CEL expression"),
        ("9223372036854775807 + 1 > 0", "Arithmetic overflow in 'add' on 9223372036854775807 and 1."),
        ("event.steps[9].id == 'x'", "index out of bounds: 9"),
    ],
)
def test_rule_that_cannot_be_evaluated_is_named_and_does_not_match(when: str, detail: str) -> None:
    rules = book(rule(when, name="bad", stop=True), rule("true", name="good"))
    found = rules.match(EVENT)
    assert (found.errors, [r.name for r in found.rules]) == (("bad",), ["good"])
    assert rules.explain(EVENT)[0].detail == detail


def test_value_that_cel_cannot_hold_fails_only_the_rules_that_read_it() -> None:
    event = {"kind": "a", "bad": object()}
    found = book(rule("event.kind == 'a'", name="kind"), rule("'bad' in event", name="whole")).match(event)
    assert ([r.name for r in found.rules], found.errors) == (["kind"], ("whole",))


def test_rules_are_possible_unless_what_is_known_makes_them_false() -> None:
    whens = {
        "any": "true",
        "here": 'event.tenant.id == "acme" && event.labels.environment == "production"',
        "elsewhere": 'event.labels.environment == "production" && event.tenant.id in ["globex"]',
        "either": 'event.tenant.id == "globex" || event.labels.environment == "production"',
        "ends": 'event.kind == "pack.approval" && event.action == "acknowledged"',
        "lacking": "event.tenant.project == 'payments'",
        "whole": "size(event) > 99",
    }
    known = {"kind": "pack.approval", "action": "requested", "tenant": {"id": "acme"}}
    found = book(*(rule(when, name=name) for name, when in whens.items())).possible(known)
    assert [one.name for one in found] == ["any", "here", "either", "lacking", "whole"]


@pytest.mark.parametrize(
    ("when", "detail"),
    [
        (
            'event.kind == "pack.approval" && event.action == "expired"',
            '`event.action == "expired"` is false',
        ),
        ('event.kind == "no" && event.nope == 1', '`event.kind == "no"` is false'),
        ('event.nope == 1 && event.kind == "no"', "`event.nope == 1`: the event has no 'nope'"),
        (
            'event.kind == "no" || event.action == "no"',
            '`event.kind == "no" || event.action == "no"` is false',
        ),
        ('event.kind == "no"\n  || (event.action == "no" && true)', None),
        ('(event.kind == "no" && true)', '`(event.kind == "no" && true)` is false'),
        ('true // always &&\n&& event.kind == "a && b"', '`event.kind == "a && b"` is false'),
        ("[1, 2].exists(n, n > 1 && n < 2)", "`[1, 2].exists(n, n > 1 && n < 2)` is false"),
        ("true ? false && true : true", "`true ? false && true : true` is false"),
        ("false", "`false` is false"),
    ],
)
def test_explain_names_the_part_of_a_conjunction_that_did_not_hold(when: str, detail: str | None) -> None:
    (found,) = book(rule(when)).explain(EVENT)
    assert found.verdict is Verdict.NOT_MATCHED
    assert found.detail == (detail or f"`{' '.join(when.split())}` is false")


def test_explain_tells_what_each_rule_made_of_the_event() -> None:
    rules = book(
        rule("event.nope", name="error"),
        rule("false", name="no"),
        rule("true", name="yes", stop=True),
        rule("event.alsoNope", name="behind"),
        rule("true", name="last"),
    )
    told = [(e.rule.name, e.verdict, bool(e.detail)) for e in rules.explain(EVENT)]
    assert told == [
        ("error", Verdict.ERROR, True),
        ("no", Verdict.NOT_MATCHED, True),
        ("yes", Verdict.MATCHED, False),
        ("behind", Verdict.NOT_REACHED, False),
        ("last", Verdict.NOT_REACHED, False),
    ]


@pytest.mark.parametrize(
    ("when", "concerned"),
    [
        ('event.kind == "task.done"', False),
        ('event.kind == "pack.approval"', True),
        ("has(event.x) && event . kind=='task.done'", False),
        ('event.kind == "task.done" && event.labels.environment == "a" || true', True),
        ('event.kind == "task.done" ? false : true', True),
        ('!(event.kind == "task.done")', True),
        ('event.kind != "task.done"', True),
        ('event.kind == "task" + ".done"', True),
        ('"event.kind == \\"task.done\\"" != ""', True),
        ('event.steps.all(event, event.kind == "task.done" && true)', True),
        (r'event.kind == "task\u002edone"', True),
    ],
)
def test_rule_for_another_kind_is_not_evaluated_and_one_that_may_match_is(when: str, concerned: bool) -> None:
    only = book(rule(when))
    assert only.concern("pack.approval") is concerned
    if not concerned:
        assert only.concern("task.done")
        assert only.match(EVENT) == Matches((), ())


@pytest.mark.parametrize(
    ("when", "concerned"),
    [
        ('event.tenant.id == "globex"', False),
        ("has(event.x) && event . tenant.id=='globex'", False),
        ('event.kind == "pack.approval" && event.tenant.id == "globex"', False),
        ('event.kind == "pack.approval" && event.tenant.id == "acme"', True),
        ('event.tenant.id == "globex" || true', True),
        ('event.tenant.id != "globex"', True),
        ('event.tenant == "globex"', True),
        (r'event.tenant.id == "globe\u0078"', True),
    ],
)
def test_rule_for_another_tenant_is_not_evaluated_and_one_that_may_match_is(
    when: str, concerned: bool
) -> None:
    only = book(rule(when))
    event = {**EVENT, "tenant": {"id": "acme"}}
    assert only.concern("pack.approval", "acme") is concerned
    if not concerned:
        assert only.concern("pack.approval")
        assert only.concern("pack.approval", "globex")
        assert only.match(event) == Matches((), ())
        assert [one.verdict for one in only.explain(event)] == [Verdict.NOT_MATCHED]


def test_rules_of_a_kind_and_a_tenant_match_in_their_order() -> None:
    kind, tenant = 'event.kind == "pack.approval"', 'event.tenant.id == "acme"'
    whens = [kind, "true", tenant, 'event.tenant.id == "globex"', f"{kind} && {tenant}", 'event.kind == "x"']
    rules = book(*(rule(when, name=str(at)) for at, when in enumerate(whens)))
    event = {**EVENT, "tenant": {"id": "acme"}}
    assert [one.name for one in rules.match(event).rules] == ["0", "1", "2", "4"]
    assert [one.name for one in rules.match({**event, "kind": "y"}).rules] == ["1", "2"]
    assert [one.name for one in rules.match({**event, "tenant": {"id": "hooli"}}).rules] == ["0", "1"]


def test_rule_for_a_tenant_is_evaluated_where_the_event_names_none() -> None:
    only = book(rule('event.tenant.id == "acme"'))
    for tenant in ({}, {"id": 1}, "acme", None):
        assert only.match({**EVENT, "tenant": tenant}).rules == ()
    assert only.match({**EVENT, "tenant": {}}).errors == ("r",)


@pytest.mark.parametrize("when", ['event.kind == "pack.approval"', " event . kind=='pack.approval' "])
def test_rule_that_asks_for_a_kind_alone_matches_what_cel_says(when: str) -> None:
    for kind in ("pack.approval", "pack.approval ", "", None, 1):
        event = {"kind": kind}
        assert bool(book(rule(when)).match(event).rules) is (cel.evaluate(when, {"event": event}) is True)
    assert book(rule(when)).match({}).errors == ("r",)


def test_rule_for_another_kind_has_no_errors_whatever_else_it_asks() -> None:
    """In CEL, false and an error is false, on either side."""
    asked: list[Any] = []
    only = book(rule('count(event.no.such) && event.kind == "task.done"'), count=asked.append)
    assert only.match(EVENT).errors == ()
    assert only.match({**EVENT, "kind": "task.done"}).errors == ("r",)
    assert only.match({k: v for k, v in EVENT.items() if k != "kind"}).errors == ("r",)
    assert [one.verdict for one in only.explain(EVENT)] == [Verdict.NOT_MATCHED]


def test_event_is_never_changed() -> None:
    event = {"kind": "a", "list": [1, {"b": 2}]}
    book(rule("event.list.size() == 2"), rule("size(event) == 2")).match(event)
    assert event == {"kind": "a", "list": [1, {"b": 2}]}


def test_book_without_rules_matches_nothing() -> None:
    assert book().match(EVENT).rules == ()
    assert book().explain(EVENT) == ()


# --- functions of plugins ----------------------------------------------------------------------------------


def test_functions_of_plugins_can_be_called_plainly_as_methods_and_by_namespace() -> None:
    functions: dict[str, Callable[..., Any]] = {
        "shout": str.upper,
        "net.local": lambda host: host == "localhost",
    }
    whens = ["shout(event.kind) == 'PACK.APPROVAL'", "event.kind.shout() != ''", "net.local('localhost')"]
    rules = RuleBook.compile([rule(when) for when in whens], functions)
    assert len(rules.match(EVENT).rules) == 3


def test_failing_function_counts_as_error_and_leaks_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def broken(value: str) -> bool:
        raise OSError(f"cannot look up {value}")

    rules = book(rule("broken(event.kind)", name="calls"), broken=broken)
    assert rules.match(EVENT).errors == ("calls",)
    told = rules.explain(EVENT)[0].detail
    assert "broken() raised OSError" in told
    captured = capfd.readouterr()
    assert "pack.approval" not in told + captured.out + captured.err


# --- faults found when the book is compiled ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (
            "event.kind ==",
            "line 1, column 14: Syntax error: mismatched input the end, in `event.kind ==`",
        ),
        (
            "event.kind == 1 &&\n  foo bar",
            "line 2, column 7: Syntax error: extraneous input 'bar' expecting <EOF>, in `foo bar`",
        ),
        ("", "line 1, column 1: Syntax error: mismatched input the end, in ``"),
        ("evnt.kind == 1", "line 1, column 1: unknown variable `evnt`: a rule sees only `event`"),
        ("true ||\n kind == 1", "line 2, column 2: unknown variable `kind`: a rule sees only `event`"),
        (
            "event.steps.exists(s, s.id == 'a') && s.id == 'b'",
            "line 1, column 39: unknown variable `s`: a rule sees only `event`",
        ),
        (
            "[1].map(x, event.steps.map(y, x + z)) == []",
            "line 1, column 35: unknown variable `z`: a rule sees only `event`",
        ),
        (".event.kind == ''", "unknown variable `.event`: a rule sees only `event`"),
        ("event.kind.lowerAscii() == 'x'", "line 1, column 12: unknown function `lowerAscii`"),
        ("false && now() > 1", "line 1, column 10: unknown function `now`"),
        ("event.labels.all(k, v, true)", "line 1, column 14: `all` does not take these arguments"),
        ("1 == 1" + " " * MAX_LENGTH, f"longer than {MAX_LENGTH} characters"),
    ],
)
def test_fault_is_found_at_load_with_its_place(when: str, message: str) -> None:
    assert faults(when) == [("rules.r0.when", message)]


def _in_zone(at: str, zone: str, *, strict: bool = True) -> bool:
    return bool(at and zone and strict)


def _at_most(first: int, second: int = 0, /) -> bool:
    return first <= second


FITTING = (
    "in_zone(event.at, event.zone)",
    "event.at.in_zone(event.zone)",
    "'a'.in_zone('b, (c')",
    "[event.at][0].in_zone([1, 2].size() == 2 ? 'x' : 'y')",
    "acme.in_zone(event.at, event.zone)",
    "event.steps.all(s, s.id.in_zone(s.zone))",
    "at_most(1)",
    "(1).at_most(2)",
    "anything()",
    "anything(1, 2, 3)",
)
MISFITS = {
    "in_zone(event.at)": "line 1, column 1: `in_zone` takes 2 arguments, and 1 here",
    "event.at.in_zone(event.zone, true)": "line 1, column 10: `in_zone` takes 2 arguments, and 3 here",
    "true ||\n event.at.in_zone()": "line 2, column 11: `in_zone` takes 2 arguments, and 1 here",
    "acme.in_zone(event.at)": "line 1, column 6: `acme.in_zone` takes 2 arguments, and 1 here",
    "[1].all(s, in_zone(s, [1, 2], {'a': 3}))": "line 1, column 12: `in_zone` takes 2 arguments, and 3 here",
    "at_most()": "line 1, column 1: `at_most` takes 1 to 2 arguments, and 0 here",
    "at_most(1, 2, 3)": "line 1, column 1: `at_most` takes 1 to 2 arguments, and 3 here",
    "many()": "line 1, column 1: `many` takes 1 or more arguments, and 0 here",
}


def functions() -> dict[str, Callable[..., Any]]:
    return {
        "in_zone": _in_zone,
        "acme.in_zone": _in_zone,
        "at_most": _at_most,
        "anything": lambda *_: True,
        "many": lambda first, *_: bool(first),
    }


@pytest.mark.parametrize("when", FITTING)
def test_a_function_is_called_with_as_many_arguments_as_it_takes(when: str) -> None:
    RuleBook.compile([rule(when)], functions())


@pytest.mark.parametrize("when", MISFITS)
def test_a_call_with_more_or_fewer_arguments_than_a_function_takes_is_a_fault_with_its_place(
    when: str,
) -> None:
    assert faults_of(when, functions()) == (MISFITS[when],)


def test_a_function_that_does_not_tell_what_it_takes_is_called_as_it_is_written() -> None:
    assert faults_of("most(1, 2, 3) == 3", {"most": max}) == ()


def test_all_faults_of_all_rules_are_reported_at_once() -> None:
    found = faults("a == b(1)", "true", "event.x ==", "c.d(event.kind)")
    assert [pointer for pointer, _ in found] == ["rules.r0.when"] * 2 + ["rules.r2.when"] + [
        "rules.r3.when"
    ] * 2
    assert [message.partition(": ")[2].partition("`")[0] for _, message in found] == [
        "unknown variable ",
        "unknown function ",
        "Syntax error: mismatched input the end, in ",
        "unknown variable ",
        "unknown function ",
    ]


def test_longest_deepest_expression_is_refused_or_evaluated_without_exhausting_the_stack() -> None:
    assert matches("!" * (MAX_LENGTH - 4) + "true")
    assert matches("+".join(["1"] * (MAX_LENGTH // 2 - 3)) + ">0")
    too_deep = faults("(" * 1900 + "true" + ")" * 1900)
    assert too_deep == [("rules.r0.when", "nested too deep: recursion limit of 96 exceeded")]


_SAMPLES = ("'a'", "1", "1u", "1.5", "[1]", "timestamp('2026-01-01T00:00:00Z')", "duration('1h')")


@pytest.mark.parametrize("name", sorted(NATIVE_FUNCTIONS))
def test_native_function_is_one_the_library_has(name: str) -> None:
    """Guards the list against a newer library: each name must run with some argument."""
    calls = [f"{name}({a})" for a in ("", *_SAMPLES)] + [f"({a}).{name}()" for a in _SAMPLES]
    calls += [f"({a}).{name}({b})" for a in _SAMPLES for b in _SAMPLES]

    def known(call: str) -> bool:
        try:
            cel.compile(call).execute(cel.Context({}))
        except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            return "Undefined variable or function" not in str(error)
        return True

    assert any(known(call) for call in calls)


# --- cost --------------------------------------------------------------------------------------------------

WIDE: Mapping[str, Any] = {
    **EVENT,
    "steps": [{"id": f"step-{n}", "name": f"Step {n}"} for n in range(1000)],
    "ids": [f"id-{n}" for n in range(1000)],
    "numbers": {f"key-{n}": n for n in range(1000)},
    "texts": ["y" * 16_000] * 15,
    "nested": [{"a": {"b": [1] * 300}}] * 30,
}
MOST = 2.0
"""Seconds of a processor: ten times what the bound allows, and far less than any of these took without it."""


@pytest.mark.parametrize(
    "when",
    [
        "event.steps.map(s, event.ids).size() == 0",
        "event.steps.map(s, s).map(s, s).size() == 0",
        "event.ids.exists(s, event.ids.exists(t, s == t + 'x'))",
        "event.ids.all(a, event['ids'].all(b, a != b + 'x'))",
        "event.ids.exists(s, event.ids.exists(event, s == event + 'x'))",
        "event.ids.exists(s, event . ids // ) , (\n . exists ( t , s == t + 'x' ) )",
        "[1, 2, 3].map(x, event.steps).map(y, y.map(z, z)).size() == 0",
        "(event.ids + event.ids).map(s, event.steps).size() == 0",
        "dyn(event.ids).map(s, event.numbers).size() == 0",
        "event.numbers.map(k, event.numbers.filter(l, l != k)).size() == 0",
        "event.steps.exists(s, string(event.steps) + s.id == '')",
        "event.nested.map(s, event.nested).size() == 0",
        "event.nested.exists(s, s.a.b.exists(t, event.nested == [t]))",
        "event.ids.exists(s, s.matches('\\\\w{20}'))",
        "event.ids.exists(s, s.matches(r'[\\pL\\pN]+'))",
        "event.texts.map(s, event.texts.map(t, s + t + s + t + s + t + s + t)).size() == 0",
        "event == {}" + " || event == {'a': event}" * 150,
    ],
)
def test_attack_by_nested_loops_over_a_thousand_steps_costs_no_more_than_the_bound(when: str) -> None:
    started = time.process_time()
    found = book(rule(when), rule("event.kind == 'pack.approval'", name="simple")).match(WIDE)
    assert time.process_time() - started < MOST
    assert found.errors == ("r",)
    assert [one.name for one in found.rules] == ["simple"]
    (told, _) = book(rule(when), rule("true")).explain(WIDE)
    assert re.fullmatch(r"costs [\d,]+ units on this event, where 2,000,000 are left", told.detail)


@pytest.mark.parametrize(
    "when",
    [
        "event.steps.exists(s, s.id == 'step-999')",
        "event.steps.all(s, has(s.id) && s.id.startsWith('step-') && s.name != '')",
        "event.steps.exists_one(s, s.id == 'step-7')",
        "event.steps.exists(s, s.id.matches('^step-9+$'))",
        "event.numbers.exists(k, k == 'key-7')",
        "'id-7' in event.ids && 'key-7' in event.numbers",
        "event.texts.map(t, t.size()).size() == 15",
        "event.nested.filter(n, n.a.b.size() == 300).size() == 30",
        "event.labels.exists(k, event.steps.exists(s, s.id != k))",
    ],
)
def test_common_loops_over_a_thousand_steps_are_evaluated(when: str) -> None:
    assert matches(when, WIDE)


def test_rules_share_what_an_event_may_cost_and_a_cheap_one_is_evaluated_after_a_costly_one() -> None:
    costly = "event.steps.all(s, 'id-999' in event.ids)"
    found = book(*(rule(costly, name=f"r{n}") for n in range(4)), rule("true", name="cheap")).match(WIDE)
    assert [one.name for one in found.rules] == ["r0", "cheap"]
    assert found.errors == ("r1", "r2", "r3")


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (
            "event.a.exists(x, x.exists(y,\n y.exists(z, z)))",
            "line 2, column 4: loops stand more than 2 deep in one another",
        ),
        (
            "event.kind.matches(event.labels.pattern)",
            "line 1, column 12: written `text.matches('pattern')`, with the pattern in quotes",
        ),
        (
            "matches(event.kind, 'x')",
            "line 1, column 1: written `text.matches('pattern')`, with the pattern in quotes",
        ),
        (r"event.kind.matches('(\\pL{50}){50}')", "line 1, column 12: this pattern is too costly"),
        (
            "true && event.kind.matches('(a')",
            "line 1, column 20: this pattern is no regular expression: unclosed group",
        ),
        (
            r"event.kind.matches(r'(?=a)b')",
            "line 1, column 12: this pattern is no regular expression: "
            "look-around, including look-ahead and look-behind, is not supported",
        ),
    ],
)
def test_what_is_refused_on_any_event_is_found_at_load_with_its_place(when: str, message: str) -> None:
    assert faults(when) == [("rules.r0.when", message)]


# --- speed -------------------------------------------------------------------------------------------------


def test_members_that_no_rule_reads_cost_nothing() -> None:
    """A large event is not converted for a rule that reads its kind only."""
    large = {**EVENT, "data": {f"key-{n}": {"value": [n] * 10} for n in range(2000)}}
    narrow, whole = book(rule("event.kind == 'x'")), book(rule("size(event) == 0"))

    def cost(rules: RuleBook) -> float:
        started = time.perf_counter()
        for _ in range(5):
            rules.match(large)
        return time.perf_counter() - started

    assert cost(narrow) * 10 < cost(whole)


# --- the library -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "imports",
    [
        "from notifyd.rules.evaluator import cel as ours; import cel",
        "import cel; from notifyd.rules.evaluator import cel as ours",
    ],
)
def test_whoever_imports_the_librarys_package_before_or_after_gets_the_same_module(imports: str) -> None:
    code = f"{imports}; assert cel.Program is ours.Program; print(cel.evaluate('1 + 1'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")
