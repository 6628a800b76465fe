"""A deputy whom a person names on their own list: who it may be, what it takes, and what they may then do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from notifyd.flow import deputies as flow
from notifyd.model import SECOND
from tests.daemon import CONFIG, Answer, Daemon, daemon
from tests.integration.test_sign_in import MALLORY, Place, config, mine
from tests.integration.test_web_mine import ask, list_of, made, post, send, titles
from tests.integration.test_web_page import ALICE, BOB, look, parsed
from tests.provider import Browser, provider
from tests.waiting import until_async

BRUNO, ZOE = "bruno@acme.example", "zoe@globex.example"
DAY = 24 * 3600.0
RULES = f"""
[[rules]]
name = "others"
when = 'event.kind == "pack.approval" && event.labels.team == "others"'
channels = ["inbox"]
to = ["{BRUNO}"]

[[rules]]
name = "globex"
when = 'event.tenant.id == "globex" && event.kind == "pack.approval"'
channels = ["inbox"]
to = ["{ZOE}"]

[[rules]]
name = "told"
when = 'event.kind == "pack.approval"'
channels = ["inbox"]
to = ["reader@acme.example"]
grants = []

[recipients."{ALICE}"]
zone = "Asia/Tokyo"
"""
ONE = CONFIG.replace(f', "{BOB}"', "")


@pytest.fixture
async def way(tmp_path: Path, templates_once: None) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, ONE + RULES) as running:
        yield running


def today(way: Daemon) -> date:
    """The day that it is for Alice, nine hours before UTC."""
    return (datetime.fromtimestamp(way.clock() / SECOND, UTC) + timedelta(hours=9)).date()


async def name(
    way: Daemon, who: str = BRUNO, first: int = 0, last: int = 3, *, path: str = "", csrf: str | None = None
) -> Answer:
    """Fill in the form of Alice's list, with days counted from today, and press its button."""
    path, day = path or made(way), today(way)
    days = {"first": f"{day + timedelta(days=first)}", "last": f"{day + timedelta(days=last)}"}
    token = parsed(await look(way, path)).hidden["csrf"] if csrf is None else csrf
    return await post(way, path, {"csrf": token, "decision": "deputy", "deputy": who} | days)


def named(answer: Answer) -> list[str]:
    """Those whom the page says to stand in."""
    return re.findall(r"([^\s>]+) stands in for you from", answer.text)


async def end(way: Daemon, path: str = "") -> Answer:
    path = path or made(way)
    form = parsed(await look(way, path)).hidden
    sent = {"csrf": form["csrf"], "deputy_id": form["deputy_id"], "decision": "end-deputy"}
    return await post(way, path, sent)


async def trail(way: Daemon) -> list[dict[str, Any]]:
    """The lines about deputies, oldest first."""
    lines = (await way.get("/api/v1/audit")).json["items"]
    return [one for one in reversed(lines) if one["name"].startswith("deputy.")]


async def test_a_deputy_is_sent_what_the_person_is_and_decides_as_themself_for_them(way: Daemon) -> None:
    answer = await name(way)
    assert (answer.status, answer.headers["Location"].startswith("ey")) == (303, True)
    assert named(await look(way, made(way))) == [BRUNO]
    asked = await ask(way, "a")
    path = await list_of(way, BRUNO)
    page = await look(way, path)
    assert titles(page) == ["Deploy a"]
    assert f"You stand in for {ALICE}." in page.text
    assert (await send(way, path, confirmed="1")).status == 200
    (decision,) = (await way.approval(asked))["decisions"]
    assert (decision["actor"], decision["onBehalfOf"]) == (BRUNO, ALICE)


async def test_what_the_person_or_the_deputy_has_asked_for_the_deputy_does_not_decide(way: Daemon) -> None:
    await name(way)
    await ask(way, "hers", requestedBy=ALICE)
    await ask(way, "his", requestedBy=BRUNO)
    await ask(way, "open")
    assert titles(await look(way, await list_of(way, BRUNO))) == ["Deploy open"]


async def test_both_ends_are_in_the_audit_trail_and_an_ended_deputy_decides_no_more(way: Daemon) -> None:
    await name(way)
    await ask(way, "a")
    path = await list_of(way, BRUNO)
    assert titles(await look(way, path)) == ["Deploy a"]
    assert (await end(way)).status == 303
    assert named(await look(way, made(way))) == []
    assert titles(await look(way, path)) == []
    set_, ended = await trail(way)
    assert (set_["name"], ended["name"]) == ("deputy.set", "deputy.ended")
    assert {one["actor"] for one in (set_, ended)} == {ALICE}
    assert (set_["data"]["deputy"], set_["data"]["proof"]) == (BRUNO, "link")
    assert set_["data"]["from"] == today(way).isoformat()


async def test_a_form_that_is_sent_twice_names_one_deputy_and_not_anew_once_that_is_ended(
    way: Daemon,
) -> None:
    path = made(way)
    csrf = parsed(await look(way, path)).hidden["csrf"]
    for _ in range(2):
        assert (await name(way, path=path, csrf=csrf)).status == 303
    assert named(await look(way, path)) == [BRUNO]
    await end(way, path)
    assert (await name(way, path=path, csrf=csrf)).status == 303
    assert named(await look(way, path)) == []
    assert len(await trail(way)) == 2


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"who": ALICE}, "somebody else"),
    ({"who": "00u1ab"}, "somebody else"),  # one of her own names
    ({"who": "nobody@acme.example"}, "nobody with this address"),
    ({"who": "reader@acme.example"}, "nobody with this address"),  # is told, and never asked
    ({"who": ZOE}, "nobody with this address"),  # of another tenant
    ({"who": "a\u200bb"}, "nobody with this address"),
    ({"first": -1}, "from today on"),
    ({"first": 2, "last": 1}, "from today on"),
    ({"first": 366, "last": 367}, "from today on"),
    ({"last": 7}, "the days are more than 7"),
]


async def test_who_cannot_stand_in_and_days_that_are_none_are_refused_and_the_form_stays_open(
    way: Daemon,
) -> None:
    answers = [(await name(way, **given), words) for given, words in REFUSED]
    for days in (("soon", ""), ("2027-1-1", "2027-1-2"), ("20270101", "20270102"), ("", "")):
        path = made(way)
        form = {"csrf": parsed(await look(way, path)).hidden["csrf"], "decision": "deputy", "deputy": BRUNO}
        answers.append((await post(way, path, form | {"first": days[0], "last": days[1]}), "from today on"))
    for answer, words in answers:
        assert (answer.status, words in answer.text, "<details open>" in answer.text) == (422, True, True)
    assert named(await look(way, made(way))) == []
    assert await trail(way) == []


async def test_nobody_stands_in_for_who_is_away_and_there_is_one_deputy_a_day(way: Daemon) -> None:
    await name(way, first=2, last=4)
    assert (await name(way, first=4, last=5)).status == 409
    assert (await name(way, first=5, last=6)).status == 303
    brunos = made(way, recipient=BRUNO)
    assert "a deputy of their own" in (await name(way, ALICE, 2, 2, path=brunos)).text
    assert (await name(way, ALICE, 0, 1, path=brunos)).status == 303
    assert (await name(way, first=7, last=7)).status == 303
    assert "named too many" in (await name(way, first=9, last=9)).text


async def test_a_person_names_so_many_in_a_day_at_most(way: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MAX_A_DAY", 2)
    for day in (1, 2):
        assert (await name(way, first=day, last=day)).status == 303
        assert (await end(way)).status == 303
    assert (await name(way)).status == 409
    way.clock.turn(DAY)
    assert (await name(way)).status == 303


async def test_a_form_that_is_not_the_pages_own_names_and_ends_nobody(way: Daemon) -> None:
    other = parsed(await look(way, made(way, recipient=BRUNO))).hidden["csrf"]
    for csrf in ("", "0.x", other):
        assert (await name(way, csrf=csrf)).status == 403
    assert await trail(way) == []
    await name(way)
    brunos = made(way, recipient=BRUNO)
    (set_,) = await trail(way)
    form = {"csrf": parsed(await look(way, brunos)).hidden["csrf"], "decision": "end-deputy"}
    assert (await post(way, brunos, form | {"deputy_id": set_["data"]["deputyId"]})).status == 303
    assert named(await look(way, made(way))) == [BRUNO]  # nobody ends another's


async def test_a_deputy_stands_in_from_the_first_day_to_the_end_of_the_last_in_the_persons_zone(
    way: Daemon,
) -> None:
    registry = way.app.registry

    def stands_in(hours: float) -> bool:
        return registry().is_deputy("acme", BRUNO, "00u1ab", way.clock() + int(hours * 3600 * SECOND))

    await name(way, first=1, last=2)
    now = datetime.fromtimestamp(way.clock() / SECOND, UTC) + timedelta(hours=9)
    left = 24 - (now.hour + now.minute / 60 + now.second / 3600)  # hours of this day in Tokyo
    assert [stands_in(left + hours) for hours in (-0.1, 0.1, 47.9, 48.1)] == [False, True, True, False]
    assert registry().deputy_of("globex", ALICE, way.clock() + int((left + 1) * 3600 * SECOND)) is None


async def test_whom_the_configuration_names_comes_before_and_is_not_overlapped(way: Daemon) -> None:
    await name(way, first=0, last=3)
    day, until = today(way).isoformat(), (today(way) + timedelta(days=1)).isoformat()
    deputy = f'deputy = {{to = "{BOB}", from = {day}, until = {until}}}'
    await way.reload(way.text.replace('zone = "Asia/Tokyo"', f'zone = "Asia/Tokyo"\n{deputy}'))
    registry = way.app.registry()
    assert registry.deputy_of("acme", ALICE, way.clock()) == BOB
    assert registry.deputy_of("acme", ALICE, way.clock() + int(3 * DAY) * SECOND) == BRUNO
    page = await look(way, made(way))
    assert "those who run the service have set this" in page.text
    assert named(page) == [BOB, BRUNO]
    await end(way)
    assert (await name(way, first=1, last=2)).status == 409


async def test_a_deputy_whom_no_rule_asks_any_more_stands_in_for_nobody(way: Daemon) -> None:
    await name(way)
    await way.reload(way.text.replace(f'to = ["{BRUNO}"]', f'to = ["{BOB}"]'))
    assert way.app.registry().deputy_of("acme", ALICE, way.clock()) is None
    assert "does not count at present" in (await look(way, made(way))).text


async def test_a_deputy_outlives_a_restart_and_a_reload(tmp_path: Path, templates_once: None) -> None:
    async with daemon(tmp_path, ONE + RULES) as first:
        await name(first)
    async with daemon(tmp_path, ONE + RULES) as second:
        assert named(await look(second, made(second))) == [BRUNO]
        await second.reload(second.text)
        assert second.app.registry().deputy_of("acme", ALICE, second.clock()) == BRUNO


async def test_what_another_node_has_set_is_known_at_the_next_look(way: Daemon) -> None:
    shared: dict[str, Any] = {"store": way.app._store, "clock": way.clock, "current": way.app.registry}
    there = flow.Deputies(**shared)
    day = today(way)
    wish = flow.Wish("acme", ALICE, BRUNO, day, day, signed_in=False, request="elsewhere")
    way.app.registry().deputies.take_over([])
    assert await there.add(wish, "corr") is None

    async def known() -> bool:
        return way.app.registry().deputy_of("acme", ALICE, way.clock()) == BRUNO

    await until_async(known)


async def test_a_deputy_that_is_over_is_forgotten_with_the_audit_trail(way: Daemon) -> None:
    await name(way)
    way.clock.turn(366 * DAY)
    assert len(await way.app._store.live_deputies(0)) == 1
    way.clock.turn(6 * DAY)
    await way.app._retention.sweep()
    assert await way.app._store.live_deputies(0) == []


async def test_who_is_asked_nothing_names_nobody(way: Daemon) -> None:
    assert "Name a deputy" in (await look(way, made(way))).text
    for nobody in ("carol@acme.example", "reader@acme.example", ZOE):
        assert "Name a deputy" not in (await look(way, made(way, recipient=nobody))).text


# --- with a sign-in --------------------------------------------------------------------------------------------


@pytest.fixture
async def place(tmp_path: Path, templates_once: None) -> AsyncIterator[Place]:
    async with provider() as running, daemon(tmp_path, config(running.url) + RULES) as notifyd:
        yield Place(notifyd, running, Browser(notifyd))


async def test_where_people_can_sign_in_a_link_alone_names_nobody(place: Place) -> None:
    way = place.notifyd
    await way.ask()
    path = await mine(place)
    for who in (None, MALLORY):
        page = await (place.sign_in(path, who) if who else place.browser.get(path))
        assert 'name="deputy"' not in page.text
        form = {"csrf": parsed(page).hidden["csrf"], "decision": "deputy", "deputy": BRUNO}
        day = today(way).isoformat()
        refused = await place.browser.post(path, form | {"first": day, "last": day})
        assert (refused.status, "please sign in first" in refused.text) == (403, True)
    page = await place.sign_in(path)
    form = {"csrf": parsed(page).hidden["csrf"], "decision": "deputy", "deputy": BRUNO}
    last = (today(way) + timedelta(days=30)).isoformat()
    assert (await place.browser.post(path, form | {"first": day, "last": last})).status == 303
    assert way.app.registry().deputy_of("acme", ALICE, way.clock()) == BRUNO
    (set_,) = await trail(way)
    assert set_["data"]["proof"] == "sign-in"
    ending = parsed(await place.browser.get(path)).hidden  # giving power back takes the link alone
    elsewhere = Browser(way)
    csrf = parsed(await elsewhere.get(path)).hidden["csrf"]
    sent = {"csrf": csrf, "deputy_id": ending["deputy_id"], "decision": "end-deputy"}
    assert (await elsewhere.post(path, sent)).status == 303
    assert way.app.registry().deputy_of("acme", ALICE, way.clock()) is None


async def test_who_was_named_by_a_link_alone_counts_no_more_once_people_can_sign_in(
    way: Daemon,
) -> None:
    await name(way)
    oidc = '[auth.oidc]\nissuer = "https://login.acme.example"\nclient_id = "notifyd"\n'
    oidc += 'client_secret = "0123456789abcdef"\n'
    await way.reload(way.text.replace("[auth.actors]", f"{oidc}[auth.actors]"))
    assert way.app.registry().deputy_of("acme", ALICE, way.clock()) is None
    page = await look(way, made(way))
    assert "does not count at present" in page.text
    assert "To name a deputy, sign in as" in page.text
    await end(way)
    assert named(await look(way, made(way))) == []
