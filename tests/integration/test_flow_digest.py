"""Closing windows over a real store: what is counted, and what a step that fails in between leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from notifyd.errors import ConfigError, StoreError
from notifyd.model import Delivery, State
from notifyd.plugin import ChannelType
from notifyd.render.render import DIGEST_LISTED
from notifyd.security.links import MineLink
from notifyd.store import Window
from tests import events
from tests.fakes import Channels, NoOptions
from tests.flows import Flow, flow
from tests.waiting import until_async

GROUPED = """
[channels.team]
type = "fake"

[[rules]]
name = "stages"
when = 'event.kind == "task.done"'
channels = ["team"]
group_by = ["data.run"]
group_wait = "30s"
"""


async def hold(way: Flow, count: int, run: str = "run-1") -> list[Delivery]:
    """Events of one group; the ledger, once they are planned."""
    before = len(await way.deliveries())
    for _ in range(count):
        await way.cloud(events.cloud_event(at=way.clock(), data={"run": run}))
    return await until_async(lambda: _planned(way, before + count))


async def close(way: Flow) -> int:
    """What the daemon does once a second."""
    return await way.app._digests.sweep()


def telling(rows: list[Delivery]) -> list[Delivery]:
    return [row for row in rows if row.action == "digest"]


async def test_a_window_is_closed_a_second_late_and_counts_what_was_planned_before_its_end(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, GROUPED) as way:
        (first, _) = await hold(way, 2)
        way.turn(30)
        assert await close(way) == 0
        late = evolve(first, id="late", created_at=first.next_attempt_at - 1, window_start=way.clock())
        await way.store.insert_deliveries(None, [late])
        way.turn(1)
        assert await close(way) == 1
        (message,) = await way.messages(1)
        assert message.event["count"] == 3
        assert (await way.delivery("late")).folded_into == message.id


async def test_many_requests_make_several_digests_in_one_look_and_the_last_is_sent_as_itself(
    tmp_path: Path,
) -> None:
    asking = GROUPED.replace("task.done", "pack.approval").replace("data.run", "kind")
    asking += '[resume]\nallowed_origins = ["https://runner.acme.example"]\n'
    async with flow(tmp_path, asking) as way:
        for number in range(2 * DIGEST_LISTED + 1):
            await way.ask(runId=f"run-{number}")
        rows = await until_async(lambda: _planned(way, 2 * DIGEST_LISTED + 1))
        way.turn(31)
        assert await close(way) == 1
        messages = await way.messages(3)
        assert [message.event.get("count", 1) for message in messages] == [DIGEST_LISTED, DIGEST_LISTED, 1]
        assert messages[2].id in {row.id for row in rows}, "one as itself"
        assert await close(way) == 0


async def _planned(way: Flow, count: int) -> list[Delivery]:
    rows = await way.deliveries()
    return rows if len(rows) == count else []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["due_windows", "window_rows", "delivery", "fold"])
async def test_a_store_that_fails_at_any_step_leaves_one_digest_for_all(
    step: str, after: bool, tmp_path: Path
) -> None:
    async with flow(tmp_path, GROUPED) as way:
        await hold(way, 3)
        way.turn(31)
        way.store.fail(step, after=after)
        with pytest.raises(StoreError):
            await close(way)
        await close(way)
        assert await close(way) == 0
        rows = await way.deliveries()
        (digest,) = telling(rows)
        assert [row.folded_into for row in rows if row.state is State.FOLDED] == [digest.id] * 3
    async with flow(tmp_path, GROUPED, clock=way.clock, channels=way.channels) as again:
        again.turn(120)
        assert (await again.becomes(digest.id, State.SENT)).tries == 1
        assert [message.event["count"] for message in await again.messages(1)] == [3]
        assert len(again.channel().received) == 1


async def test_a_folding_that_was_broken_off_goes_on_with_the_digest_it_had(tmp_path: Path) -> None:
    async with flow(tmp_path, GROUPED, start=False) as way:
        way.start("plan")
        await hold(way, 3)
        way.turn(31)
        fold = way.store._store.fold

        async def broken(window: Window, digest: Delivery, ids: Any) -> int:
            (first, *_) = await way.store.window_rows(window, 1)
            await fold(window, digest, [first.id])
            raise StoreError("in the middle")

        way.store._store.fold = broken  # type: ignore[method-assign]
        with pytest.raises(StoreError):
            await close(way)
        way.store._store.fold = fold  # type: ignore[method-assign]
        (begun,) = telling(await way.deliveries())

        assert await close(way) == 1
        (digest,) = telling(await way.deliveries())
        assert digest.message == begun.message
        rows = [row for row in await way.deliveries() if row.action != "digest"]
        assert [(row.state, row.folded_into) for row in rows] == [(State.FOLDED, begun.id)] * 3


async def test_a_message_that_was_alone_is_not_sent_once_its_digest_tells_of_it(tmp_path: Path) -> None:
    async with flow(tmp_path, GROUPED, start=False) as way:
        way.start("plan")
        rows = await hold(way, 2)
        way.turn(31)
        fold = way.store._store.fold

        async def broken(window: Window, digest: Delivery, ids: Any) -> int:
            await fold(window, digest, [rows[0].id])
            raise StoreError("before the last")

        way.store._store.fold = broken  # type: ignore[method-assign]
        with pytest.raises(StoreError):
            await close(way)
        way.store._store.fold = fold  # type: ignore[method-assign]
        await close(way)
        states = [row.state for row in await way.deliveries()]
        assert sorted(states) == [State.FOLDED, State.FOLDED, State.PENDING]


async def test_a_window_that_cannot_be_closed_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, GROUPED) as way:
        await hold(way, 2, "run-1")
        way.turn(1)
        await hold(way, 2, "run-2")
        way.turn(31)
        rows, asked = way.store._store.window_rows, []

        async def faulty(window: Window, limit: int) -> list[Delivery]:
            asked.append(window.start)
            if window.start == min(asked):
                raise RuntimeError("a fault of this window")
            return await rows(window, limit)

        way.store._store.window_rows = faulty  # type: ignore[method-assign]
        assert await close(way) == 1
        assert "cannot be closed" in caplog.text
        assert (await way.messages(1))[0].event["count"] == 2
        way.store._store.window_rows = rows  # type: ignore[method-assign]
        assert await close(way) == 1
        assert len(await way.messages(2)) == 2


async def test_what_cannot_be_read_is_counted_and_the_rest_is_listed(tmp_path: Path) -> None:
    async with flow(tmp_path, GROUPED) as way:
        (first, _) = await hold(way, 2)
        broken = evolve(first, id="broken", sealed=True, message="under a key that is gone")
        await way.store.insert_deliveries(None, [broken])
        way.turn(31)
        await close(way)
        (message,) = await way.messages(1)
        assert message.event["count"] == 3
        assert len(message.event["items"]) == 2


async def test_a_digest_is_made_again_from_the_same_window_alike(tmp_path: Path) -> None:
    told = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        async with flow(tmp_path / name, GROUPED) as way:
            for number in range(2):
                given = events.cloud_event(at=way.clock(), data={"run": "run-1"}, id=f"event-{number}")
                await way.cloud(given)

            async def planned(way: Flow = way) -> bool:
                return len(await way.deliveries()) == 2

            await until_async(planned)
            way.turn(40)
            await close(way)
            told.append((await way.messages(1))[0])
    assert told[0] == told[1]


# --- a channel that sends a body of its template's own form ------------------------------------------------

FORMS = {
    "ticket.en.txt": "{% block title %}t{% endblock %}"
    '{% block body %}{"one": {{ event.id|tojson }}}{% endblock %}',
    "ticket-digest.en.txt": "{% block title %}t{% endblock %}"
    '{% block body %}{"count": {{ digest.count }}, "rule": {{ digest.rule|tojson }}}{% endblock %}',
    "broken-digest.en.txt": "{% block title %}t{% endblock %}{% block body %}{{ 1 // 0 }}{% endblock %}",
}


def bodied() -> Channels:
    """With a type `bodied`, whose receiver takes what the operator's template writes and nothing else."""
    channels = Channels()
    of_its_own = ChannelType("bodied", NoOptions, channels.open, own_body=lambda _config: "application/json")
    channels.more["bodied"] = of_its_own
    return channels


def formed(folder: Path, template: str = "ticket", grouping: str = "", type_: str = "bodied") -> str:
    """The configuration of a rule with that template, over templates that write JSON."""
    forms = folder / "templates"
    forms.mkdir(exist_ok=True)
    for name, text in (
        FORMS | {"broken.en.txt": FORMS["ticket.en.txt"], "lone.en.txt": FORMS["ticket.en.txt"]}
    ).items():
        (forms / name).write_text(text)
    rule = GROUPED.replace('type = "fake"', f'type = "{type_}"').partition("group_by")[0]
    wanted = f'template = "{template}"\n' if template else ""
    return f'[templates]\ndirs = ["{forms}"]\n{rule}{wanted}{grouping}\n'


BY_RUN = 'group_by = ["data.run"]\ngroup_wait = "30s"'


async def test_a_digest_is_written_in_the_form_of_the_channel_it_goes_to(tmp_path: Path) -> None:
    async with flow(tmp_path, formed(tmp_path, grouping=BY_RUN), channels=bodied()) as way:
        await hold(way, 3)
        way.turn(31)
        await close(way)
        (message,) = await way.messages(1)
        assert json.loads(message.body) == {"count": 3, "rule": "stages"}


@pytest.mark.parametrize(
    ("option", "grouping"),
    [
        ("group_by", BY_RUN),
        ("throttle", 'throttle = "1/h"'),
        ("quiet_hours", 'quiet_hours = {from = "22:00", to = "07:00", zone = "UTC"}'),
    ],
)
@pytest.mark.parametrize(("template", "wanted"), [("lone", '"lone-digest"'), ("", '"NAME-digest"')])
async def test_a_rule_that_groups_for_a_channel_that_can_send_no_digest_is_refused(
    option: str, grouping: str, template: str, wanted: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with flow(tmp_path, formed(tmp_path, template, grouping), channels=bodied()):
            pass
    (fault,) = caught.value.faults
    assert fault.pointer == f"rules.stages.{option}"
    assert "team" in fault.message
    assert wanted in fault.message


async def test_a_rule_that_does_not_group_needs_no_digest(tmp_path: Path) -> None:
    async with flow(tmp_path, formed(tmp_path, "lone"), channels=bodied()) as way:
        (row,) = await hold(way, 1)
        assert (await way.becomes(row.id, State.SENT)).folded_into is None


@pytest.mark.parametrize("template", ["broken", "lone"])
async def test_where_no_digest_can_be_written_in_its_form_each_message_goes_as_itself(
    template: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, formed(tmp_path, "broken", BY_RUN), channels=bodied()) as way:
        await hold(way, 3)
        if template == "lone":  # the digest's template is taken away, and with it the grouping
            assert await way.reload(formed(tmp_path, "lone"))
        way.turn(31)
        await close(way)
        bodies = [json.loads(message.body) for message in await way.messages(3)]
        assert all("one" in body for body in bodies)
        assert telling(await way.deliveries()) == []


async def test_a_rules_own_digest_is_written_for_every_channel(tmp_path: Path) -> None:
    async with flow(tmp_path, formed(tmp_path, grouping=BY_RUN, type_="fake")) as way:
        await hold(way, 2)
        way.turn(31)
        await close(way)
        (message,) = await way.messages(1)
        assert json.loads(message.body)["count"] == 2


FOR_ALICE = """
[channels.mail]
type = "person"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval"'
channels = ["mail"]
to = ["alice@acme.example"]
lists = ["ops@acme.example"]
group_by = ["kind"]
group_wait = "30s"

[resume]
allowed_origins = ["https://runner.acme.example"]
"""


async def test_a_digest_leads_a_person_to_all_that_waits_for_them_and_a_list_of_addresses_nowhere(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, FOR_ALICE) as way:
        for number in range(2):
            await way.ask(runId=f"run-{number}")

        async def planned() -> bool:
            return len(await way.deliveries()) == 4

        await until_async(planned)
        way.turn(31)
        await close(way)
        sent = {message.recipient: message for message in await way.messages(2, "mail")}
        links, hers = way.current().links, sent["alice@acme.example"]
        found = links.read_path(hers.actions[0].url.partition("/approvals/")[2])
        assert isinstance(found, MineLink)
        assert (found.tenant, found.recipient) == ("acme", "alice@acme.example")
        assert len(hers.actions) == len(hers.event["items"]) + 1 == 3
        assert not any(links.is_mine(action.url) for action in sent["ops@acme.example"].actions)
        assert not any(links.is_mine(one["link"]) for one in hers.event["items"])
