"""The short form of each fault of `make chaos`: what is accepted while something is broken arrives.

Kills at each step of the store, and nodes on MongoDB, have tests of their own beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.chaos.__main__ import HEAD
from tests.chaos.faults import FAULTS, STEPS, killed_at_each_step
from tests.chaos.stage import on_stage
from tests.chaos.test_kill_between_steps import POINTS

pytestmark = pytest.mark.long

EVENTS: Final = 300
SHORT: Final = [
    name for name, fault in FAULTS.items() if fault.act is not killed_at_each_step and fault.nodes == 1
]


@pytest.mark.parametrize("name", SHORT)
async def test_what_is_accepted_while_something_is_broken_arrives(tmp_path: Path, name: str) -> None:
    async with on_stage(tmp_path, FAULTS[name], goal=EVENTS) as stage:
        await stage.play()
        row = stage.row(name)
        assert row.times == 1, "the fault came"
        assert row.accepted >= EVENTS
        assert (row.lost, row.missing) == (0, 0)
        assert row.callbacks > 0
        assert row.repeated <= 2 * stage.fault.concurrency, "only what was under way may come again"


def test_the_steps_of_the_long_form_are_those_of_the_short_one() -> None:
    assert {step for step, _ in STEPS} == {step for step, _ in POINTS} | {"append_all"}


def test_the_published_table_has_each_fault() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    _, _, rest = page.partition("| " + " | ".join(HEAD) + " |\n")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in rest.partition("\n\n")[0].splitlines()[1:]]
    assert rows == [*FAULTS, "all"]
