"""kill -9 in the middle of a reseal: what was moved is moved, and asking again moves the rest."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from notifyd.security.secrets import key_id
from tests.chaos.test_kill_between_steps import CONFIG, runner
from tests.waiting import until_async

pytestmark = pytest.mark.long

OLD, NEW = b"0" * 32, b"1" * 32
COUNT = 5
OPERATING = CONFIG.replace('"Notifier.Read"', '"Notifier.Read", "Notifier.Operate"').replace(
    'backoff = "50ms..500ms"', 'backoff = "1h..1h"'
)
ROTATED = OPERATING.replace('["{seal}"]', f'["{base64.b64encode(NEW).decode()}", "{{seal}}"]')


@pytest.mark.parametrize(
    ("step", "nth", "side", "moved_before"),
    [("replace_approval", 3, "after", 3), ("replace_message", 1, "before", COUNT)],
)
async def test_a_reseal_goes_on_where_a_kill_has_cut_it_short(
    step: str, nth: int, side: str, moved_before: int, tmp_path: Path
) -> None:
    async with runner(tmp_path, config=OPERATING) as one:
        for number in range(COUNT):
            await one.call(
                "POST",
                "/notifications/pack-approvals",
                one.event | {"runId": f"run-{number}", "eventId": f"event-{number}"},
            )
        await until_async(partial(one.all_sent, COUNT), seconds=45)  # none is left that a kill could hold up

    async with runner(tmp_path, step, str(nth), side, config=ROTATED) as one:
        answer = await one.call("POST", "/api/v1/keys/reseal")
        assert one.starts == 2, "the daemon was not killed"
        assert answer["nextCursor"] is None
        keys: list[dict[str, Any]] = (await one.call("GET", "/api/v1/keys"))["keys"]
    assert answer["moved"]["approvals"] <= COUNT - moved_before
    assert {key["id"]: key["needed"] for key in keys} == {
        key_id(NEW): {"approvals": COUNT, "deliveries": 0},
        key_id(OLD): {"approvals": 0, "deliveries": 0},
    }
