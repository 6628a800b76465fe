"""What a template may cost: every way to ask for more than there is ends in an error that names the template."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from time import thread_time
from typing import Any, Final

import pytest

import notifyd
from notifyd.errors import RenderError
from notifyd.render import blocks, bounds
from notifyd.render.bounds import METER, Meter, TooMuchError
from notifyd.render.render import TemplateSet
from notifyd.samples import costly
from notifyd.wire.codec import MAX_ITEMS

STEPS: Final = [{"id": f"s{n}", "name": f"Step {n}"} for n in range(MAX_ITEMS)]
EVENT: Final[Mapping[str, Any]] = {
    "kind": "x",
    "steps": STEPS,
    "text": "x" * 16_000,
    "lines": "\n" * 16_000,
    "comments": "<!--" * 4_000,
}


def written(folder: Path, body: str) -> TemplateSet:
    (folder / "thing.en.txt").write_text(
        f"{{% block title %}}t{{% endblock %}}{{% block body %}}{body}{{% endblock %}}"
    )
    return TemplateSet.load([], [folder], "en")


def doubled(made: str, use: str, first: str = "'ab'") -> str:
    grow = f"{{% for i in range(60) %}}{{% set ns.x = {made} %}}{{% endfor %}}"
    return f"{{% set ns = namespace(x={first}) %}}{grow}{{% set used = {use} %}}"


def nested(over: str, deep: int, inside: str = "") -> str:
    return f"{{% for a in {over} %}}" * deep + inside + "{% endfor %}" * deep


ATTACKS: Final = {
    # Loops.
    "range nests": nested("range(1000)", 3),
    "range nests that print": nested("range(1000)", 2, "{{ a }}"),
    "loops over 1,000 steps four deep": nested("event.steps", 4),
    "loops over a dict": nested("event.steps", 2, nested("event.items()", 1)),
    "short loops, many deep": nested("[1, 2, 3, 4]", 15),
    "loops that print much": nested("event.steps", 2, "words " * 2_000),
    "loop recursion": "{% for a in [1, 2] recursive %}"
    "{% if loop.depth < 40 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
    "loop recursion over steps": "{% for a in event.steps recursive %}"
    "{% if loop.depth < 4 %}{{ loop(event.steps) }}{% endif %}{% endfor %}",
    "macro recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "joins in loops": nested("range(1000)", 2, "{{ range(1000)|join(',') }}"),
    "a slow filter in loops": nested("range(1000)", 2, "{{ event|value }}"),
    "a slow comparison in loops": nested("range(1000)", 2, "{{ event.steps == event.steps[:] }}"),
    "a search in loops": "{% set l = (range(1000)|list) * 100 %}" + nested("range(1000)", 2, "{{ -1 in l }}"),
    "a search by a filter": "{% set l = (range(1000)|list) * 500 %}{{ l|select('in', event.text)|list|length }}",
    "a path of 100,000 names": "{% set p = 'a.' * 100000 %}{{ event.steps|map(attribute=p)|list|length }}",
    # Texts.
    "%1000000000d": "{{ '%1000000000d' % 1 }}",
    "%1000000000d as a filter": "{{ '%1000000000d'|format(1) }}",
    "%*d": "{{ '%*d' % (1000000000, 1) }}",
    "%.1000000000f": "{{ '%.1000000000f' % 1.0 }}",
    "%(a)1000000000d": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "%(a%b)1000000000d": "{{ '%(a%b)1000000000d' % {'a%b': 1} }}",
    "%(a(b)c)1000000000d": "{{ '%(a(b)c)1000000000d' % {'a(b)c': 1} }}",
    "10,000 formats": "{{ ('%s' * 10000) % ([event.text] * 10) }}",
    "{:1000000000}": "{{ '{:1000000000}'.format(1) }}",
    "{a:1000000000}": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "'x' * 10**9": "{{ 'x' * 10**9 }}",
    "10**9 * 'x'": "{{ 10**9 * 'x' }}",
    "center(10**9)": "{{ 'x'|center(10**9) }}",
    "center, worked out when compiled": "{{ 'x'|center(1000000000) }}",
    "a method of that kind": "{{ 'x'.ljust(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ event.lines|indent(100000) }}",
    "replace": "{{ event.text|replace('x', event.text) }}",
    "the method replace": "{{ event.text.replace('x', event.text) }}",
    "translate": "{{ event.text.translate({120: event.text}) }}",
    "join": "{{ event.steps|map(attribute='id')|join(event.text) }}",
    "the method join": "{{ event.text.join(event.text) }}",
    "tojson's indentation": "{{ event.steps|tojson(indent=10**6) }}",
    "tojson's indentation, deep": doubled("[ns.x]", "ns.x", "event.steps") + "{{ ns.x|tojson(indent=16) }}",
    "wordwrap": "{{ (event.text * 60)|wordwrap(1) }}",
    "striptags": "{{ (event.comments * 60)|striptags }}",
    "trim": "{{ (event.text * 60)|trim(event.text) }}",
    "strip": "{{ (event.text * 60).strip(event.text) }}",
    "~ doubles": doubled("ns.x ~ ns.x", "1"),
    "+ doubles": doubled("ns.x + ns.x", "1"),
    "a block doubles": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    # Numbers and lists.
    "a power": "{{ 10**(10**10) }}",
    "a product": doubled("ns.x * ns.x", "1", "2"),
    "round": "{{ 1.5|round(10**9, 'ceil') }}",
    "to_bytes": "{{ (1).to_bytes(10**9) }}",
    "[1] * 10**9": "{{ [1] * 10**9 }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "slice": "{{ [1]|slice(10**9, 'x')|list }}",
    "sum of lists": "{{ ([[1]] * 100000)|sum(start=[]) }}",
    "lists of lists": doubled("[ns.x, ns.x]", "ns.x|string"),
    "tuples of tuples": doubled("(ns.x, ns.x)", "ns.x == 1"),
    "objects of objects": doubled("{'a': ns.x, 'b': ns.x}", "ns.x|tojson"),
    "lists by a filter": doubled("range(9)|map(attribute='no', default=ns.x)|list", "ns.x|string"),
    "lists by batch": doubled("[1]|batch(9, ns.x)|list", "ns.x|string"),
    "lists by fromkeys": doubled("{}['fromkeys'](range(9), ns.x)", "ns.x|string"),
    "lists by a function": doubled("cycler(ns.x, ns.x).items", "ns.x|string"),
    "lists by a macro's arguments": "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}"
    "{% else %}{{ varargs }}{% endif %}{% endmacro %}{{ m(60) }}",
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the bounds, so that reaching them takes a tenth of the time."""
    monkeypatch.setattr(bounds, "MAX_STEPS", 20_000)
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(bounds, "LONGEST", 120_000)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_template_that_asks_for_too_much_fails_by_name_soon_and_in_little_memory(
    tmp_path: Path, body: str
) -> None:
    templates = written(tmp_path, body)
    began, memory = thread_time(), _peak()
    with pytest.raises(RenderError, match=r"template thing\.en\.txt:\d+, locale en: TooMuchError: "):
        templates.render("thing", "en", event=EVENT)
    assert thread_time() - began < 5
    assert _peak() - memory < 100


def _peak() -> int:
    """In MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.parametrize(
    "body",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ self.body() }}{{ self.body() }}",
        "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    ],
)
def test_what_calls_itself_without_end_is_an_error_of_its_own(tmp_path: Path, body: str) -> None:
    with pytest.raises(RenderError, match="RecursionError"):
        written(tmp_path, body).render("thing", "en", event=EVENT)


@pytest.mark.usefixtures("small")
def test_files_that_include_two_of_the_next_are_bounded(tmp_path: Path) -> None:
    for n in range(40):
        include = f'{{% include "_part{n + 1}.txt" %}}' * 2 if n < 39 else "x"
        (tmp_path / f"_part{n}.txt").write_text(include)
    templates = written(tmp_path, '{% include "_part0.txt" %}')
    with pytest.raises(RenderError, match="TooMuchError"):
        templates.render("thing", "en", event=EVENT)


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("'%05.2f %s 100%%2026' % (1.5, 'a')", "01.50 a 100%2026"),
        ("'%s of %s'|format(1, 2)", "1 of 2"),
        ("' a b '.strip().replace('a', 'c').split(' ')|join('-')", "c-b"),
        ("', '.join(['a', 'b'])", "a, b"),
        ("'x'|center(5) ~ '|'", "  x  |"),
        ("'a\nb'|indent(2)", "a\n  b"),
        ("[3, 1, 2]|sort|reverse|join", "321"),
        ("[1, 2]|map('string')|list|length + [1, 2]|sum", "5"),
        ("event.steps|map(attribute='id')|first ~ event.steps|length", "s01000"),
        ("[1, 2, 3]|batch(2, 0)|list", "[[1, 2], [3, 0]]"),
        ("{'a': [1]}|tojson(indent=1)", '{\n "a": [\n  1\n ]\n}'),
        ("'12'|int + '7'|int(1) + 'x'|int(5)", "24"),
        ("(1, 2)|string ~ none", "(1, 2)None"),
        ("2 ** 10 * 3", "3072"),
        ("[4, 5]|select('in', [5])|list", "[5]"),
    ],
)
def test_what_is_ordinary_stays_as_jinja_has_it(tmp_path: Path, expression: str, printed: str) -> None:
    assert written(tmp_path, f"{{{{ {expression} }}}}").render("thing", "en", event=EVENT).body == printed


def test_loops_know_where_they_are(tmp_path: Path) -> None:
    told = "{{ loop.index }}/{{ loop.length }}{{ '' if loop.last else ' ' }}"
    for over in ("range(20)", "'ab'", "event.steps[:20]", "{'a': 1}.items()", "[1, 2]|select"):
        body = written(tmp_path, f"{{% for x in {over} %}}{told}{{% endfor %}}").render(
            "thing", "en", event=EVENT
        )
        count = len(body.body.split())
        assert body.body == " ".join(f"{n}/{count}" for n in range(1, count + 1))
    assert not written(tmp_path, "{% for x in event.no %}x{% endfor %}").render("thing", "en", event={}).body


def test_a_body_that_is_data_holds_the_largest_event(tmp_path: Path) -> None:
    event = {"kind": "x", "data": {f"n{n}": "é" * 16_000 for n in range(60)}}
    rendered = written(tmp_path, "{{ event|tojson }}").render(
        "thing", "en", event=event, media_type="application/json"
    )
    assert json.loads(rendered.body) == event


MANY: Final = range(MAX_ITEMS)
LARGEST: Final[Mapping[str, Any]] = {
    "runId": "run-1",
    "steps": STEPS,
    "parameters": {f"p{n}": n for n in MANY},
    "labels": {f"l{n}": str(n) for n in MANY},
    "policy": {"id": "p", "messages": [f"Message {n}" for n in MANY]},
    "message": {"title": "lorem ipsum " * 1_000, "summary": "lorem ipsum " * 1_000},
    "data": {f"n{n}": {"a": [n]} for n in MANY},
    "changes": {"steps": {"added": [f"s{n}" for n in MANY], "removed": [f"r{n}" for n in MANY]}},
    "round": 2,
}


def test_copies_of_the_built_in_templates_stay_far_below_the_bounds_on_the_largest_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies, because what is built in is not counted: it goes over an event once, as this shows."""
    for file in (Path(notifyd.__file__).parent / "templates").iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    templates = TemplateSet.load([], [tmp_path], "en")
    meters: list[Meter] = []

    def meter() -> Meter:
        meters.append(Meter())
        return meters[-1]

    monkeypatch.setattr(blocks, "Meter", meter)
    for kind, action in (
        ("pack.approval", "requested"),
        ("pack.approval", "acknowledged"),
        ("pack.policy", "hold"),
        ("task.done", ""),
    ):
        name = kind.replace(".", "-") if kind.startswith("pack") else "event"
        event = {**LARGEST, "kind": kind, "action": action}
        assert templates.render(name, "en", event=event, link="https://n.example/", can_decide=True).html
    assert 1_000 < max(meter.steps for meter in meters) < bounds.MAX_STEPS // 10


def test_a_template_whose_example_costs_too_much_is_told(tmp_path: Path, small: None) -> None:
    templates = written(tmp_path, ATTACKS["range nests"])
    (fault,) = costly(templates)
    assert fault.pointer == "thing.en.txt:1"
    assert "costs too much: takes more than 20,000 steps" in fault.message
    assert not list(costly(TemplateSet.load([], [], "en")))


def test_outside_of_a_message_only_sizes_are_bounded() -> None:
    assert METER.get() is None
    bounds.spend(bounds.MAX_STEPS * 2)
    with pytest.raises(TooMuchError, match="1,200,000"):
        bounds.check_size(bounds.LONGEST + 1)
