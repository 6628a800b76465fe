"""Planning over a real store: whom an event reaches, in which words, and that a plan is fixed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve

from notifyd.config.units import DAY
from notifyd.errors import NotRetryableError, Reason
from notifyd.flow.plan import make_plan, make_ready, view
from notifyd.flow.queues import Ready
from notifyd.model import SECOND, AuditName, Delivery, Event, Instant, Level, Message, PlanEntry, State
from notifyd.plugin import ChannelType
from notifyd.security.envelope import unwrap
from notifyd.security.links import Link, MineLink
from notifyd.store import PlanFixed, Planned
from notifyd.wire.codec import rfc3339
from tests import events
from tests.fakes import NOW, Channels, NoOptions, TurnableClock, registry
from tests.flows import RULES, TASKS, Flow, flow
from tests.store.makers import event
from tests.waiting import until, until_async

PEOPLE = """
[resume]
allowed_origins = ["https://runner.acme.example"]

[channels.team]
type = "fake"

[channels.mail]
type = "person"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval"'
channels = ["team", "mail"]
to = ["alice@acme.example", "bob@acme.example"]
lists = ["ops@acme.example"]
locale = "de"

[recipients."bob@acme.example"]
locale = "en-GB"
zone = "Europe/London"
"""


def link_in(way: Flow, text: str) -> Link:
    return way.current().links.read(text.rpartition("/")[2])


# --- whom it reaches ---------------------------------------------------------------------------------------


async def test_people_are_written_to_at_their_address_and_decide_by_their_name(tmp_path: Path) -> None:
    channels = Channels()
    channels.more["direct"] = ChannelType("direct", NoOptions, channels.open, personal=True, addressed=True)
    text = PEOPLE.replace('type = "fake"', 'type = "direct"').replace("lists =", "#") + (
        'addresses = {direct = "4711", person = "bob@home.example"}'
    )
    async with flow(tmp_path, text, channels=channels) as way:
        await way.ask()
        (direct,) = await way.messages(1)
        mails = await way.messages(2, "mail")
        assert direct.recipient == "4711"  # Alice has no address there
        assert {mail.recipient for mail in mails} == {"alice@acme.example", "bob@home.example"}
        assert link_in(way, direct.actions[0].url).recipient == "bob@acme.example"
        assert {row.recipient for row in await way.deliveries()} == {"alice@acme.example", "bob@acme.example"}


async def test_a_request_fans_out_to_people_and_lists_with_one_link_each(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        document = await way.ask()
        (shared,) = await way.messages(1)
        personal = {message.recipient: message for message in await way.messages(3, "mail")}
        assert shared.recipient is None
        assert personal.keys() == {"alice@acme.example", "bob@acme.example", "ops@acme.example"}
        links = {r: link_in(way, m.actions[0].url) for r, m in [*personal.items(), (None, shared)]}
        decides = {r: link.recipient for r, link in links.items()}
        assert decides == {
            "alice@acme.example": "alice@acme.example",
            "bob@acme.example": "bob@acme.example",
            "ops@acme.example": None,
            None: None,
        }
        assert len({m.actions[0].url for m in (shared, *personal.values())}) == 4
        link = links["alice@acme.example"]
        assert (link.tenant, link.run_id, link.approval_id) == ("acme", "run-0042", "deploy-prod")
        assert (link.round, link.plan_hash, link.rule) == (1, document["planHash"], "approvals")
        assert link.expires_at == way.clock() + 7 * DAY


def by_recipient(way: Flow, messages: list[Message]) -> dict[str | None, str | None]:
    """To whom each went, and as whom its link decides."""
    return {m.recipient: link_in(way, m.actions[0].url).recipient for m in messages}


async def test_an_end_shows_and_nobody_gets_a_message_about_their_own_vote(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        document = await way.ask()
        await way.messages(3, "mail")
        await way.decide(document)
        later = (await way.messages(5, "mail"))[3:]
        assert by_recipient(way, later) == {"bob@acme.example": None, "ops@acme.example": None}


async def test_a_vote_that_does_not_end_it_asks_those_who_have_not_voted(tmp_path: Path) -> None:
    people = PEOPLE.replace('"bob@acme.example"]\nlists', '"bob@acme.example", "carol@acme.example"]\nlists')
    async with flow(tmp_path, people) as way:
        document = await way.ask(requiredApprovals=3)
        await way.messages(4, "mail")
        await way.decide(document)
        second = (await way.messages(7, "mail"))[4:]
        bob, carol, ops = "bob@acme.example", "carol@acme.example", "ops@acme.example"
        assert by_recipient(way, second) == {bob: bob, carol: carol, ops: None}
        asked = next(message for message in second if message.recipient == bob)
        assert (asked.actions[0].label, asked.title[:16]) == ("Review and decide", "1 of 3 approvals")
        assert any(field.lead for field in asked.fields)  # the deadline
        await way.decide(document, actor=bob)
        third = (await way.messages(10, "mail"))[7:]
        assert by_recipient(way, third) == {"alice@acme.example": None, carol: carol, ops: None}


async def test_who_asked_is_told_that_somebody_else_decides(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        await way.ask(requestedBy="Bob@acme.example")
        mails = {message.recipient: message for message in await way.messages(3, "mail")}
        own = mails["bob@acme.example"]
        assert "You asked for this approval, so somebody else decides." in own.body
        assert own.actions[0].label == "View the plan"
        assert "Wer sie hat, kann entscheiden" in mails["alice@acme.example"].body


@pytest.mark.parametrize(("mode", "links"), [("decide", 1), ("view", 1), ("off", 0)])
async def test_the_config_says_what_links_can_do(tmp_path: Path, mode: str, links: int) -> None:
    async with flow(tmp_path, PEOPLE + f'[approvals]\nlinks = "{mode}"\n') as way:
        await way.ask()
        mails = await way.messages(3, "mail")
        is_mine = way.current().links.is_mine
        urls = [[action.url for action in message.actions] for message in mails]
        assert [len([url for url in one if not is_mine(url)]) for one in urls] == [links] * 3
        deciders = {link_in(way, one[0]).recipient for one in urls if one}
        assert (deciders - {None} != set()) is (mode == "decide")
        # A list of addresses is no person.
        lists = {m.recipient for m, one in zip(mails, urls, strict=True) if any(map(is_mine, one))}
        assert lists == ({"alice@acme.example", "bob@acme.example"} if mode == "decide" else set())


async def test_each_message_to_a_person_leads_to_their_own_list(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        document = await way.ask(requestedBy="bob@acme.example", requiredApprovals=2)
        await way.messages(3, "mail")
        await way.decide(document)
        ttl = way.current().settings.approvals.link_ttl
        mails = [m for m in await way.messages(5, "mail") if m.recipient != "ops@acme.example"]
        for message in mails:
            found = way.current().links.read_path(message.actions[-1].url.partition("/approvals/")[2])
            assert isinstance(found, MineLink)
            assert (found.tenant, found.recipient) == ("acme", message.recipient)
            assert found.expires_at == NOW + ttl
            assert message.actions[-1].label in (
                "All that waits for your decision",
                "Alles, was auf Ihre Entscheidung wartet",
            )
            assert "forward" in message.body or "weiterleiten" in message.body


async def test_a_message_with_a_link_is_sealed_at_rest_and_one_without_is_not(tmp_path: Path) -> None:
    held = """
[[rules]]
name = "holds"
when = 'event.kind == "pack.policy"'
channels = ["team"]
"""
    async with flow(tmp_path, PEOPLE + held) as way:
        await way.ask()
        await way.post(events.held(at=way.clock()))
        rows = await way.ended(5)
        sealed = {row.rule: row for row in rows}
        assert (sealed["approvals"].sealed, sealed["holds"].sealed) == (True, False)
        assert "title" not in sealed["approvals"].message
        assert orjson.loads(sealed["holds"].message)["title"]
        again = unwrap(sealed["approvals"].message, way.current().keyring, sealed=True)
        assert again.id == sealed["approvals"].id


async def test_whoever_is_named_as_a_person_and_on_a_list_gets_one_message_and_decides(
    tmp_path: Path,
) -> None:
    rules = PEOPLE.replace('lists = ["ops@acme.example"]', 'lists = ["alice@acme.example"]')
    async with flow(tmp_path, rules) as way:
        await way.ask()
        await way.ended(3)
        mails = await way.messages(2, "mail")
        assert sorted(str(m.recipient) for m in mails) == ["alice@acme.example", "bob@acme.example"]
        assert all(link_in(way, m.actions[0].url).recipient for m in mails)
        assert len(way.channel("mail").received) == 2


async def test_a_rule_that_stops_keeps_later_rules_from_the_event(tmp_path: Path) -> None:
    both = RULES + RULES[RULES.index("[[rules]]") :].replace('"approvals"', '"second"')
    async with flow(tmp_path, both) as way:
        await way.ask()
        assert {row.rule for row in await way.ended(2)} == {"approvals", "second"}
    async with flow(tmp_path, both.replace('name = "approvals"', 'name = "approvals"\nstop = true')) as way:
        await way.ask(runId="run-2")
        rows = [row for row in await way.ended(3) if row.run_id == "run-2"]
        assert {row.rule for row in rows} == {"approvals"}


async def test_a_rule_that_an_event_cannot_be_tried_on_does_not_match_and_is_counted(tmp_path: Path) -> None:
    broken = (
        RULES
        + """
[[rules]]
name = "broken"
when = 'event.labels.team.size == "payments"'
channels = ["team"]
"""
    )
    async with flow(tmp_path, broken) as way:
        await way.ask()
        assert [row.rule for row in await way.ended(1)] == ["approvals"]
        assert way.metric("notifyd_rule_errors_total", rule="broken") == 1


async def test_an_event_that_no_rule_matches_is_planned_once_and_for_all(tmp_path: Path) -> None:
    async with flow(tmp_path, RULES) as way:
        await way.ask()
        await way.messages(1)
        calls = way.store.calls.count("fix_plans")
        await way.post(events.updated(at=way.clock()))
        await until(lambda: way.store.calls.count("fix_plans") > calls)
        assert way.app._planner._planning_queue.waiting.total == 0
        assert (await way.unplanned(), len(await way.deliveries())) == ([], 1)


async def test_an_event_of_a_kind_that_no_rule_names_never_waits_for_a_plan(tmp_path: Path) -> None:
    async with flow(tmp_path, RULES, start=False) as way:
        for accepted in (
            await way.post(events.held(at=way.clock())),
            await way.cloud(events.cloud_event(at=way.clock())),
        ):
            assert accepted.fresh
        assert way.app._planner._planning_queue.waiting.total == 0
        assert await way.unplanned() == []
        await way.ask()
        assert [event.kind for event in await way.unplanned()] == ["pack.approval"]


# --- in which words ----------------------------------------------------------------------------------------


async def test_the_locale_is_the_recipients_then_the_rules_then_the_events_then_the_default(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        await way.ask(message={"locale": "en"})
        mails = {m.recipient: m.locale for m in await way.messages(3, "mail")}
        assert mails == {
            "alice@acme.example": "de",
            "bob@acme.example": "en-GB",
            "ops@acme.example": "de",
        }
    async with flow(tmp_path, PEOPLE.replace('locale = "de"\n', "")) as way:
        await way.ask(runId="run-2", message={"locale": "de-CH"})
        (shared,) = await way.messages(1)
        assert shared.locale == "de-CH"
        await way.ask(runId="run-3", message={})
        assert (await way.messages(2))[1].locale == "en"


@pytest.mark.parametrize("wish", ["it", "xx-unknown", "not a locale!", ""])
async def test_a_locale_that_nobody_writes_in_falls_back_to_the_default(tmp_path: Path, wish: str) -> None:
    async with flow(tmp_path) as way:
        await way.ask(message={"locale": wish})
        (message,) = await way.messages(1)
        assert message.locale == "en"


async def test_a_template_that_nobody_ships_falls_back_and_is_counted(tmp_path: Path) -> None:
    async with flow(tmp_path) as way:
        await way.ask(message={"template": "acme-fancy"})
        (message,) = await way.messages(1)
        assert "Deploy" in message.title or message.title
        assert way.metric("notifyd_template_fallbacks_total") == 1
        await way.ask(runId="run-2", message={"template": "event"})
        await way.messages(2)
        assert way.metric("notifyd_template_fallbacks_total") == 1


async def plan_of(
    text: str, at: Instant = NOW, channels: Channels | None = None, **changes: Any
) -> tuple[PlanEntry, ...]:
    async with registry(text, channels) as current:
        body = {"kind": "pack.approval", "action": "requested", "planHash": "sha256:00"} | changes
        given = event("e1", body=orjson.dumps(body).decode(), action=body["action"], occurred_at=at)
        seen = view(given)
        return make_plan(given, seen, current.rules.match(seen).rules, current)


async def test_a_senders_wish_does_not_put_prose_where_a_receiver_wants_data() -> None:
    channels = Channels()
    data = ChannelType("data", NoOptions, channels.open, own_body=lambda _config: "application/json")
    channels.more["data"] = data
    text = RULES.replace('type = "fake"', 'type = "data"') + 'template = "pack-policy"\n'
    (entry,) = await plan_of(text, channels=channels, message={"template": "event"})
    assert entry.template == "pack-policy"


@pytest.mark.parametrize(("waited", "told"), [(60, 0), (61, 4)])
async def test_that_the_runner_was_told_is_news_only_a_minute_after_the_decision(
    waited: int, told: int
) -> None:
    decision = {"decision": "approved", "actor": "eve@acme.example", "decidedAt": rfc3339(NOW)}
    facts: dict[str, Any] = {"action": "resumed", "status": "approved", "decision": decision}
    assert len(await plan_of(PEOPLE, at=NOW + waited * SECOND, **facts)) == told


async def test_that_the_runner_was_told_reaches_those_who_heard_of_no_decision() -> None:
    decision = {"decision": "approved", "actor": "eve@acme.example", "decidedAt": rfc3339(NOW)}
    rule = PEOPLE.replace('event.kind == "pack.approval"', 'event.action == "resumed"')
    assert len(await plan_of(rule, at=NOW, action="resumed", status="approved", decision=decision)) == 4


@pytest.mark.parametrize(
    ("wish", "rule", "used"),
    [
        ("event", None, "event"),
        ("event", "pack-policy", "event"),
        ("nowhere", "pack-policy", "pack-policy"),
        ("nowhere", None, "pack-approval"),
        (None, "pack-policy", "pack-policy"),
        (None, None, "pack-approval"),
    ],
)
async def test_the_template_is_the_events_then_the_rules_then_the_kinds(
    wish: str | None, rule: str | None, used: str
) -> None:
    text = RULES + (f'template = "{rule}"\n' if rule else "")
    (entry,) = await plan_of(text, message={"template": wish} if wish else {})
    assert entry.template == used


async def test_a_plan_names_its_deliveries_by_event_rule_channel_and_recipient_alone() -> None:
    first, again = await plan_of(PEOPLE), await plan_of(PEOPLE)
    assert first == again
    assert len({entry.delivery_id for entry in first}) == len(first) == 4


async def test_times_in_a_message_are_the_recipients_and_come_from_the_event(tmp_path: Path) -> None:
    clock = TurnableClock()
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    document = events.load("requested-en") | {"occurredAt": rfc3339(NOW)}
    first = await _mail_of(folders[0], clock, document)
    clock.turn(7)
    assert await _mail_of(folders[1], clock, document) == first


async def _mail_of(folder: Path, clock: TurnableClock, document: dict[str, Any]) -> dict[str, Any]:
    """The mail that one and the same event gives, but for its link."""
    async with flow(folder, PEOPLE + '[approvals]\nlinks = "off"\n', clock=clock) as way:
        await way.post(document | {"resume": way.resume()})
        mails = {m.recipient: m for m in await way.messages(3, "mail")}
        return {str(r): (m.id, m.title, m.body, m.html, m.fields) for r, m in mails.items()}


async def test_a_channel_that_shows_no_fields_gets_messages_without(tmp_path: Path) -> None:
    channels = Channels()
    channels.more["terse"] = ChannelType("terse", NoOptions, channels.open, fields=False)
    more = '[channels.bare]\ntype = "terse"\n' + RULES.replace('["team"]', '["team", "bare"]')
    async with flow(tmp_path, more, channels=channels) as way:
        await way.ask()
        (full,), (bare,) = await way.messages(1, "team"), await way.messages(1, "bare")
        assert full.fields
        assert bare == evolve(full, id=bare.id, fields=(), actions=bare.actions)


async def test_a_message_that_cannot_be_rendered_is_dead_from_the_start_and_told(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "broken.en.txt").write_text(
        "{% block title %}{{ event.labels.environment / 0 }}{% endblock %}{% block body %}x{% endblock %}"
    )
    text = RULES + f'template = "broken"\n[templates]\ndirs = ["{templates}"]\n'
    async with flow(tmp_path, text) as way:
        await way.ask(message={})
        (row,) = await way.ended(1)
        assert (row.state, row.reason) == (State.DEAD, Reason.RENDER_FAILED)
        await until(lambda: way.metric("notifyd_dead_letters", channel="team") == 1)
        assert way.metric("notifyd_deliveries_total", channel="team", outcome="dead") == 1
        with pytest.raises(NotRetryableError, match=r"still cannot be rendered: template broken\.en\.txt:1"):
            await way.app._services.replays.retry("acme", row.id)
        assert await way.delivery(row.id) == row

        async def told() -> bool:
            return AuditName.NOTIFICATION_DEAD in {line.name for line in await way.audit()}

        await until_async(told)
        assert way.channel().received == []


# --- once --------------------------------------------------------------------------------------------------


async def test_a_plan_that_was_fixed_outlives_the_rules_it_was_made_from(tmp_path: Path) -> None:
    """A node fixes a plan and dies before it has inserted a delivery; the next has other rules."""
    clock = TurnableClock()
    async with flow(tmp_path, PEOPLE, clock=clock, start=False) as way:
        await way.ask()
        (accepted,) = await way.unplanned()
        async with registry(PEOPLE) as old:
            seen = view(accepted)
            plan = make_plan(accepted, seen, old.rules.match(seen).rules, old)
        fixed = evolve(accepted, plan=plan)
        other = PEOPLE.replace('to = ["alice@acme.example", "bob@acme.example"]', 'to = ["eve@acme.example"]')
        assert await way.reload(other)
        way.start("dispatch")
        await way.app._planner._finish(fixed, way.current())
        rows = await way.ended(4)
        assert {row.id for row in rows} == {entry.delivery_id for entry in plan}
        assert {row.recipient for row in rows} == {
            None,
            "alice@acme.example",
            "bob@acme.example",
            "ops@acme.example",
        }


async def test_two_that_plan_one_event_under_two_configurations_agree_on_the_first_plan(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, PEOPLE, start=False) as way:
        await way.ask()
        (accepted,) = await way.unplanned()
        await way.app._planner._plan([accepted])
        before = {row.id for row in await way.deliveries()}
        assert await way.reload(PEOPLE.replace("bob@acme.example", "eve@acme.example"))
        await way.app._planner._plan([accepted])
        assert {row.id for row in await way.deliveries()} == before
        assert len(before) == 4


async def test_planning_again_sends_nothing_twice(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        await way.ask()
        await way.ended(4)
        (accepted,) = [await _event_of(way)]
        for _ in range(3):
            await way.app._planner._guarded([accepted])
        assert len(await way.ended(4)) == 4
        assert (len(way.channel().received), len(way.channel("mail").received)) == (1, 3)


async def _event_of(way: Flow) -> Event:
    """The event of the first delivery, as it was accepted."""
    (row, *_) = await way.deliveries()
    document = unwrap(row.message, way.current().keyring, sealed=row.sealed).event
    body = {name: value for name, value in document.items() if name not in ("round", "correlationId")}
    return event(
        row.event_key,
        body=orjson.dumps(body).decode(),
        occurred_at=way.clock(),
        run_id="run-0042",
        approval_id="deploy-prod",
        version=1,
        round=1,
    )


async def test_an_event_accepted_by_a_life_that_ended_is_planned_by_the_next(tmp_path: Path) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, clock=clock, start=False) as way:
        await way.ask()
    async with flow(tmp_path, clock=clock) as way:
        await way.app._planner.sweep()
        assert [row.state for row in await way.ended(1)] == [State.SENT]


async def test_a_store_that_fails_while_planning_is_asked_again(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        way.store.fail("fix_plans", times=1)
        await way.ask()
        way.start()
        assert [row.state for row in await way.ended(1)] == [State.SENT]


async def test_a_planner_that_loses_the_stores_answer_sends_once(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        way.store.fail("fix_plans", times=1, after=True)
        await way.ask()
        way.start()
        await until(lambda: way.store.calls.count("fix_plans") == 2)
        (row,) = await way.ended(1)  # before its lease ends
        assert row.state is State.SENT
        # As it was stored, and not as it was rendered the second time, with another link.
        (sent,) = way.channel().received
        assert sent.actions == unwrap(row.message, way.current().keyring, sealed=row.sealed).actions


async def test_an_event_that_is_planned_twice_spends_once_from_a_budget(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS + 'throttle = "2/1h"\n', start=False) as way:
        await way.cloud(events.cloud_event(at=way.clock()))
        (accepted,) = await way.app._planner._planning_queue.take(1, 1)
        for _ in range(2):
            assert await way.app._planner._guarded([accepted])
        way.start()
        await way.cloud(events.cloud_event(at=way.clock()))
        assert [row.state for row in await way.ended(2)] == [State.SENT] * 2


async def test_a_delivery_whose_insert_is_not_answered_yet_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with flow(tmp_path, start=False) as way:
        await way.ask()
        (accepted,) = await way.app._planner._planning_queue.take(1, 1)
        fix_plans, late, inserted = way.store.fix_plans, asyncio.Event(), asyncio.Event()

        async def answered_late(planned: Any) -> Any:
            fixed = await fix_plans(planned)
            inserted.set()
            await late.wait()
            return fixed

        monkeypatch.setattr(way.store, "fix_plans", answered_late, raising=False)
        first = asyncio.create_task(way.app._planner._guarded([accepted]))
        await inserted.wait()
        monkeypatch.setattr(way.store, "fix_plans", fix_plans)
        await way.app._planner._guarded([accepted])
        late.set()
        assert await first
        way.start()
        assert [row.state for row in await way.ended(1)] == [State.SENT]
        assert len(way.channel().received) == 1


async def test_a_delivery_that_two_inserts_have_under_way_is_sent_once(tmp_path: Path) -> None:
    """An event came twice at once: one planned it to store it with its plan, the other planned it behind."""
    async with flow(tmp_path, TASKS, start=False) as way:
        await way.cloud(events.cloud_event(at=way.clock()))
        (accepted,) = await way.app._planner._planning_queue.take(1, 1)
        ready: dict[str, Ready] = {}
        await way.app._planner._drafts.plan(accepted, way.current(), way.clock(), ready)
        stored, late = asyncio.Event(), asyncio.Event()

        async def nothing_new(_: Sequence[Delivery]) -> frozenset[str]:
            await stored.wait()
            return frozenset()

        async def long(queued: Sequence[Delivery]) -> frozenset[str]:
            inserted: frozenset[str] = await way.store.insert_deliveries(None, queued)
            stored.set()
            await late.wait()  # for the rest of its rows
            return inserted

        enqueue = way.app._dispatcher.enqueue
        first = asyncio.create_task(enqueue(tuple(ready.values()), nothing_new))
        await asyncio.sleep(0)
        second = asyncio.create_task(enqueue(tuple(ready.values()), long))
        await first
        assert "release" not in way.store.calls
        late.set()
        await second
        way.start()
        assert [row.state for row in await way.ended(1)] == [State.SENT]
        assert len(way.channel().received) == 1


async def test_an_event_that_cannot_be_planned_holds_up_none_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, start=False) as way:
        await way.ask(runId="run-1")
        poison = event("poison", body="this is no JSON")
        way.app._planner._planning_queue.offer(poison)
        await way.ask(runId="run-2")
        way.start()
        rows = await way.ended(2)
        assert {row.run_id for row in rows} == {"run-1", "run-2"}
        assert "sender-poison cannot be planned" in caplog.text


async def test_many_events_are_planned_in_the_order_they_came(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        await asyncio.gather(*(way.ask(runId=f"run-{number:03}") for number in range(200)))
        way.start()
        rows = await way.ended(200)
        assert len({row.id for row in rows}) == 200
        assert len(set(way.channel().ids)) == 200


class InTurns:
    """Stands for a function, and notes the turn of the event loop of each call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._turn = 0
        self._taken: list[int] = []

    def __call__(self, *args: Any) -> Any:
        self._taken.append(self._turn)
        return self._function(*args)

    async def until(self, calls: int) -> list[int]:
        while len(self._taken) < calls:
            await asyncio.sleep(0)
            self._turn += 1
        return self._taken


async def test_others_have_their_turn_between_the_events_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.flow.planner._TURN", 0.0)
    async with flow(tmp_path, start=False) as way:
        await asyncio.gather(*(way.ask(runId=f"run-{number:03}") for number in range(30)))
        monkeypatch.setattr("notifyd.flow.drafts.make_plan", noted := InTurns(make_plan))
        way.start()
        taken = await noted.until(30)
        assert taken == sorted(set(taken)), "two were planned in one turn"


async def test_others_have_their_turn_between_the_messages_of_one_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.flow.drafts._TURN", 0.0)
    async with flow(tmp_path, PEOPLE, start=False) as way:
        await way.ask()
        monkeypatch.setattr("notifyd.flow.drafts.make_ready", noted := InTurns(make_ready))
        way.start()
        taken = await noted.until(4)
        assert taken == sorted(set(taken)), "two were rendered in one turn"
        assert len(await way.ended(4)) == 4


async def test_events_with_very_many_messages_are_made_durable_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.flow.planner._MESSAGES", 4)
    async with flow(tmp_path, PEOPLE, start=False) as way:
        await asyncio.gather(*(way.ask(runId=f"run-{number}") for number in range(3)))
        fixed, fix = list[int](), way.store._store.fix_plans

        async def counted(planned: Sequence[Planned]) -> Sequence[PlanFixed]:
            fixed.append(sum(len(one.deliveries) for one in planned))
            return await fix(planned)

        monkeypatch.setattr(way.store._store, "fix_plans", counted)
        way.start()
        assert len(await way.ended(12)) == 12
        assert fixed == [4, 4, 4]


async def test_what_was_planned_is_counted_as_queued_and_what_was_sent_as_sent(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        await way.ask()
        await way.ended(4)
        assert way.metric("notifyd_approval_notifications_queued_total") == 4
        await until(
            lambda: way.metric("notifyd_approval_notifications_sent_total") == 4
        )  # it follows the record
        assert way.metric("notifyd_delivery_seconds_count", channel="mail") == 3


async def test_a_new_round_has_links_of_its_own(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        await way.ask()
        await way.messages(3, "mail")
        way.turn(1)
        await way.ask(planHash="sha256:" + "b" * 64)
        later = (await way.messages(6, "mail"))[3:]
        rounds = {link_in(way, message.actions[0].url).round for message in later}
        assert rounds == {2}


@pytest.mark.parametrize(
    ("make", "level"),
    [(events.held, Level.WARNING), (events.released, Level.SUCCESS)],
)
async def test_a_hold_and_its_release_reach_people_in_their_own_words(
    tmp_path: Path, make: Any, level: Level
) -> None:
    text = RULES.replace(' && event.action == "requested"', "").replace("pack.approval", "pack.policy")
    async with flow(tmp_path, text) as way:
        await way.post(make(at=way.clock()))
        (message,) = await way.messages(1)
        assert message.level is level
        assert message.actions == ()


async def test_an_events_own_expiry_is_written_in_the_readers_words(tmp_path: Path) -> None:
    async with flow(tmp_path, PEOPLE) as way:
        await way.ask(expiresAt=rfc3339(way.clock() + DAY))
        mails = {m.recipient: m for m in await way.messages(3, "mail")}
        assert mails["alice@acme.example"].body != mails["bob@acme.example"].body


def test_the_fakes_offer_a_shared_and_a_personal_type() -> None:
    kinds = {name: kind.personal for name, kind in Channels().types.items()}
    assert kinds == {"fake": False, "other": False, "person": True, "post": False}
