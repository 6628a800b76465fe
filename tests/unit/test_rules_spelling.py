"""Members of an event that a `when` misspells."""

from __future__ import annotations

import pytest

from notifyd.rules.spelling import misspelt, misspelt_path


@pytest.mark.parametrize(
    ("when", "meant"),
    [
        ("event.kindd == 'x'", "event.kind"),
        ("event.planhash == 'x'", "event.planHash"),
        ("event.runID == 'x' && event.runID != 'y'", "event.runId"),
        ("event.lables.environment == 'x'", "event.labels"),
        ("has(event.stepps)", "event.steps"),
        ("event.tenant.projct == 'x'", "event.tenant.project"),
        ("event.steps.exists(s, s.id == event.runid)", "event.runId"),
    ],
)
def test_a_member_that_is_nearly_a_known_one_is_told_of_once(when: str, meant: str) -> None:
    [told] = misspelt(when)
    assert told.endswith(f"did you mean `{meant}`?")


@pytest.mark.parametrize(
    "when",
    [
        "event.urgent",
        "event.timer.step == '2h' && event.resume.status == 'failed'",
        "event.labels.kindd == 'x' && event.parameters.runid == 'y' && event.data.sourc == 'z'",
        "event.steps.exists(step, step.idd == 'x')",
        "event.changes.steps.added != []",
        "event.dataschema == 'x' && event.datacontenttype == 'y'",
    ],
)
def test_what_a_sender_may_have_chosen_is_left_alone(when: str) -> None:
    assert list(misspelt(when)) == []


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("runid", "did you mean `runId`?"),
        ("tenant.projct", "did you mean `tenant.project`?"),
        ("lables.environment", "did you mean `labels`?"),
        ("event.runId", "a path begins within the event: write `runId`"),
        ("runId.number", "`runId` is a single value: it has no `number`"),
    ],
)
def test_a_path_into_the_event_that_leads_nowhere_is_told_of(path: str, told: str) -> None:
    [found] = misspelt_path(path)
    assert found.endswith(told)


@pytest.mark.parametrize("path", ["runId", "labels.kindd", "tenant.id", "region", "data.runid", "policy.id"])
def test_a_path_that_may_lead_somewhere_is_left_alone(path: str) -> None:
    assert list(misspelt_path(path)) == []
