"""Deliveries that could not be rendered: once the template is mended, a retry by hand renders and sends them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from notifyd.config.units import DAY
from notifyd.errors import NotRetryableError, Reason
from notifyd.flow.plan import rendered_again
from notifyd.model import Delivery, Event, State
from notifyd.security.links import Link
from notifyd.store import Aged, CollectionName
from tests import events
from tests.daemon import CONFIG, TOKENS, Daemon, daemon
from tests.flows import Flow, flow, stored_bytes
from tests.forked import notifyd
from tests.waiting import until, until_async

ALICE = "alice@acme.example"
BROKEN = "{% block title %}{{ 1 / 0 }}{% endblock %}{% block body %}x{% endblock %}"
MENDED = "{% block title %}Mended{% endblock %}{% block body %}{{ link }}{% endblock %}"


class Template:
    """A template that a rule names, as an operator writes it."""

    def __init__(self, folder: Path, name: str = "ours") -> None:
        self._folder = folder / "templates"
        self._folder.mkdir(exist_ok=True)
        self._file = self._folder / f"{name}.en.txt"
        self.write(BROKEN)

    def write(self, text: str) -> None:
        self._file.write_text(text)

    @property
    def config(self) -> str:
        return f"""
[resume]
allowed_origins = ["https://runner.acme.example"]
[channels.mail]
type = "person"
[templates]
dirs = ["{self._folder}"]
[approvals]
link_ttl = "7d"
[[rules]]
name = "ours"
when = 'event.action == "requested" || event.kind == "task.done"'
channels = ["mail"]
to = ["{ALICE}"]
template = "ours"
"""


@pytest.fixture
def template(tmp_path: Path) -> Template:
    return Template(tmp_path)


async def asked(way: Flow) -> Delivery:
    """Alice is asked, in words that cannot be rendered."""
    await way.ask(message={})
    (row,) = await way.ended(1)
    assert (row.state, row.reason) == (State.DEAD, Reason.RENDER_FAILED)
    return row


async def mend(way: Flow, template: Template) -> None:
    template.write(MENDED)
    assert await way.reload(template.config)


async def retry(way: Flow, row: Delivery) -> Delivery:
    return await way.app._services.replays.retry(row.tenant, row.id)


def queued(way: Flow) -> tuple[float, float]:
    names = "notifyd_approval_notifications_queued_total", "notifyd_approval_notifications_sent_total"
    return way.metric(names[0]), way.metric(names[1])


async def test_it_is_rendered_by_the_mended_template_and_sent_under_its_own_id(
    tmp_path: Path, template: Template
) -> None:
    async with flow(tmp_path, template.config) as way:
        row = await asked(way)
        assert queued(way) == (0, 0)
        await mend(way, template)
        revived = await retry(way, row)
        assert (revived.state, revived.reason, revived.sealed) == (State.PENDING, None, True)
        (message,) = await way.messages(1, "mail")
        assert (message.id, message.title, message.recipient) == (row.id, "Mended", ALICE)
        sent = await way.becomes(row.id, State.SENT)
        assert (sent.tries, sent.correlation_id) == (1, row.correlation_id)
        await until(lambda: queued(way) == (1, 1))
        assert way.metric("notifyd_dead_letters", channel="mail") == 0
        with pytest.raises(NotRetryableError, match="is sent, not dead"):
            await retry(way, row)


async def test_its_link_is_the_one_that_would_have_been_made_at_first_and_is_stored_sealed(
    tmp_path: Path, template: Template
) -> None:
    async with flow(tmp_path, template.config) as way:
        occurred = way.clock()
        row = await asked(way)
        way.turn(3 * DAY / 1_000_000)
        await mend(way, template)
        await retry(way, row)
        (message,) = await way.messages(1, "mail")
        token = message.body.strip().rpartition("/")[2]
        link = way.current().links.read(token)
        approval = await way.approval(
            {"tenant": {"id": "acme"}, "runId": link.run_id, "approvalId": "deploy-prod"}
        )
        assert link == Link(
            "acme", approval.run_id, "deploy-prod", 1, approval.plan_hash, ALICE, "ours", occurred + 7 * DAY
        )
    assert token.encode() not in stored_bytes(tmp_path)


async def test_what_was_rendered_is_the_message_of_every_later_try(
    tmp_path: Path, template: Template
) -> None:
    async with flow(tmp_path, template.config) as way:
        row = await asked(way)
        await mend(way, template)
        way.channel("mail").script = [PermissionError("not now")] * 12
        first = await retry(way, row)
        await way.messages(1, "mail")
        template.write(MENDED.replace("Mended", "Other"))
        assert await way.reload(template.config)
        way.channel("mail").script.clear()
        way.turn(60)
        await way.becomes(row.id, State.SENT)
        assert (await way.delivery(row.id)).message == first.message
        assert {message.body for message in way.channel("mail").received} == {
            way.channel("mail").received[0].body
        }


async def test_of_two_operators_at_once_one_renders_it_and_one_link_goes_out(
    tmp_path: Path, template: Template
) -> None:
    async with flow(tmp_path, template.config) as way:
        row = await asked(way)
        await mend(way, template)
        answers = await asyncio.gather(retry(way, row), retry(way, row), return_exceptions=True)
        (revived,) = [one for one in answers if isinstance(one, Delivery)]
        (refused,) = [one for one in answers if isinstance(one, NotRetryableError)]
        assert refused.detail == f"delivery {row.id!r} is dead no more"
        await way.becomes(row.id, State.SENT)
        assert len(way.channel("mail").received) == 1
        assert (await way.delivery(row.id)).message == revived.message
        await until(lambda: queued(way) == (1, 1))


async def test_one_that_fails_still_is_refused_by_the_fault_s_name_and_stays_as_it_is(
    tmp_path: Path, template: Template
) -> None:
    async with flow(tmp_path, template.config) as way:
        row = await asked(way)
        fault = "still cannot be rendered: template ours.en.txt:1, locale en: ZeroDivisionError"
        with pytest.raises(NotRetryableError, match=fault):
            await retry(way, row)
        assert await way.delivery(row.id) == row
        assert queued(way) == (0, 0)
        assert way.metric("notifyd_dead_letters", channel="mail") == 1


async def test_one_whose_event_is_gone_is_refused(tmp_path: Path, template: Template) -> None:
    async with flow(tmp_path, template.config) as way:
        await way.cloud(events.cloud_event(at=way.clock()))
        (row,) = await way.ended(1)
        assert (await way.store.purge(Aged(CollectionName.EVENTS, way.clock() + DAY), 10)).removed == 1
        await mend(way, template)
        with pytest.raises(NotRetryableError, match="its event is not kept any more"):
            await retry(way, row)
        assert await way.delivery(row.id) == row


async def test_one_that_the_event_s_plan_no_longer_names_is_refused(
    tmp_path: Path, template: Template
) -> None:
    """The event was removed, and sent again under other rules."""
    async with flow(tmp_path, template.config) as way:
        row = await asked(way)
        event: Event | None = await way.store.event(row.tenant, row.event_key)
        assert event is not None
        for plan in ((), None):
            with pytest.raises(NotRetryableError, match="not in the plan of its event any more"):
                rendered_again(row, evolve(event, plan=plan), way.current())


async def test_the_rules_of_today_change_neither_its_recipient_nor_its_channel(
    tmp_path: Path, template: Template
) -> None:
    async with flow(tmp_path, template.config) as way:
        row = await asked(way)
        template.write(MENDED)
        assert await way.reload(template.config.replace(ALICE, "eve@acme.example"))
        await retry(way, row)
        (message,) = await way.messages(1, "mail")
        assert message.recipient == ALICE


# --- over HTTP ---------------------------------------------------------------------------------------------


def two_rules(folder: Path) -> str:
    kinds = "".join(
        f"""
[[rules]]
name = "{name}"
when = 'event.kind == "task.{name}"'
channels = ["inbox"]
to = ["{ALICE}"]
template = "{name}"
"""
        for name in ("one", "two")
    )
    return CONFIG + kinds + f'[templates]\ndirs = ["{folder}/templates"]\n'


async def post(one: Daemon, kind: str) -> None:
    event = events.cloud_event(at=one.clock()) | {"type": kind}
    headers = {"X-Notifyd-Tenant": "acme", "Content_Type": "application/cloudevents+json"}
    answer = await one.post("/api/v1/events", event, "operator", **headers)
    assert answer.status == 202, answer.text


async def listed(one: Daemon, state: str, count: int) -> list[dict[str, Any]]:
    async def found() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await one.get(f"/api/v1/deliveries?state={state}")).json["items"]
        return items if len(items) == count else []

    rows: list[dict[str, Any]] = await until_async(found)
    return rows


@pytest.mark.parametrize("which", [["--all"], ["--channel", "inbox"]], ids=["all", "a channel's"])
async def test_a_retry_of_many_sends_what_is_mended_and_tells_of_what_is_not(
    which: list[str], tmp_path: Path
) -> None:
    mended = Template(tmp_path, "one")
    Template(tmp_path, "two")
    async with daemon(tmp_path, two_rules(tmp_path)) as one:
        for kind in ("task.one", "task.two"):
            await post(one, kind)
        rows = {row["rule"]: row["id"] for row in await listed(one, "dead", 2)}
        mended.write(MENDED)
        await one.reload(one.text)
        environ = {"NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}
        result = await notifyd("deliveries", "retry", *which, "--json", "--url", one.url, environ=environ)
        assert result.code == 1
        assert result.json["retried"] == [rows["one"]]
        (refused,) = result.json["refused"]
        assert refused["id"] == rows["two"]
        assert refused["message"].startswith("409 not_retryable: ")
        assert "still cannot be rendered: template two.en.txt:1" in refused["message"]
        (sent,) = await listed(one, "sent", 1)
        assert (sent["id"], sent["reason"]) == (rows["one"], None)
        assert [message.title for message in one.inbox.messages] == ["Mended"]
        (dead,) = await listed(one, "dead", 1)
        assert (dead["id"], dead["reason"]) == (rows["two"], "render_failed")
