"""What a `when` gives, as far as it can be known without the events to come."""

from __future__ import annotations

import pytest

from notifyd import samples
from notifyd.rules.booleans import no_boolean
from notifyd.rules.rules import NATIVE_FUNCTIONS


def told(when: str) -> list[str]:
    return list(no_boolean(when, samples.events(), NATIVE_FUNCTIONS))


@pytest.mark.parametrize(
    ("when", "part", "kind"),
    [
        ("'yes'", "'yes'", "a string"),
        ("1 + 2", "1 + 2", "a number"),
        ("null", "null", "null"),
        ("event", "event", "a map"),
        ("event.runId", "event.runId", "a string"),
        ("event.requiredApprovals", "event.requiredApprovals", "a number"),
        ("event.labels", "event.labels", "a map"),
        ("event.labels.production", "event.labels.production", "a string"),
        ('event["labels"]["x"]', 'event["labels"]["x"]', "a string"),
        ("size(event.parameters.hosts)", "size(event.parameters.hosts)", "a number"),
        ("event.steps.filter(s, s.id == 'x')", "event.steps.filter(s, s.id == 'x')", "a list"),
        ("event.kind == 'pack.approval' && event.tenant.id", "event.tenant.id", "a string"),
        ("event.kind == 'build.done' && event.data.name + '!'", "event.data.name + '!'", "a string"),
        ("event.runId == 'x' ? 'yes' : 'no'", "event.runId == 'x' ? 'yes' : 'no'", "a string"),
    ],
)
def test_a_part_that_gives_no_boolean_whatever_comes_is_named(when: str, part: str, kind: str) -> None:
    assert told(when) == [f"`{part}` is {kind}: a rule is either true or false"]


@pytest.mark.parametrize(
    "when",
    [
        "true",
        "event.parameters.force",
        "event.parameters.replicas > 3 || event.parameters.replicas == 'many'",
        "event.kind == 'build.done' && event.data.ok",
        "event.urgent",
        "!event.parameters.dry_run && has(event.labels.team)",
        "event.steps.exists(s, s.name.contains('ledger'))",
        "dyn(event.runId) in ['a', 'b']",
        "event.kind == 'task.done' ? event.data.failed : false",
        "event.source.matches('^/task')",
        "of_a_plugin(event.runId)",
        "event.runId == 'x' // a comment",
    ],
)
def test_what_may_be_true_or_false_is_left_alone(when: str) -> None:
    assert told(when) == []


@pytest.mark.parametrize(
    "part",
    [
        "event.kind > 3",
        "!event.kind",
        "'a' < 1",
        "event.kind.startsWith(1)",
        "event.kind.nope == 'x'",
        "event.kind + 1 == 2",
        "event.runId > 3",
        "event.occurredAt < timestamp('2026-01-01T00:00:00Z')",
        "[1, 2].exists(x, x)",
        "size(1) == 1",
    ],
)
def test_a_part_that_fails_on_every_event_is_named(part: str) -> None:
    fault = f"`{part}` fails on every event: it compares or calls what is of another kind"
    assert told(part) == [fault]
    assert told(f"event.kind == 'pack.approval' && {part}") == [fault]


@pytest.mark.parametrize("part", ["event.steps.id == 'x'", "event.steps.exists(s, s.name > 3)"])
def test_what_an_attribute_of_another_kind_may_be_called_is_judged_for_a_known_kind_alone(part: str) -> None:
    assert told(part) == []
    assert len(told(f"event.kind == 'pack.approval' && {part}")) == 1


@pytest.mark.parametrize(
    "when",
    [
        "event.data.items[0].name > 3",
        "event.parameters.when < timestamp('2026-01-01T00:00:00Z')",
        "int(event.runId) > 3",
        "timestamp(event.subject) < timestamp('2026-01-01T00:00:00Z')",
        "event.steps[7].id == 'x'",
        "1 / (event.round - 1) > 0",
        "event.message.nope == 'x'",
        "event.urgency > 3",
    ],
)
def test_a_part_that_fails_for_the_values_of_the_examples_alone_is_left_alone(when: str) -> None:
    assert told(when) == []


def test_each_part_is_told_once() -> None:
    assert len(told("event.runId && event.kind && event.runId")) == 2
