"""Members of an event that a `when` misspells."""

from __future__ import annotations

import pytest

from notifyd.rules.spelling import misspelt


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
