"""A person's list: what waits for them, soonest end first, several decided at once, and nobody else's."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from notifyd.errors import StoreError
from notifyd.flow import mine as asking
from notifyd.security.links import Links, MineLink
from notifyd.security.secrets import Keyring
from notifyd.web.pages import mine
from notifyd.wire.codec import rfc3339
from tests.daemon import CONFIG, Answer, Daemon, daemon
from tests.integration.test_web_page import ALICE, BOB, decide, look, parsed, sealed, status
from tests.waiting import until_async

PUBLIC = "https://notifyd.acme.example"
HOUR = 3600 * 1_000_000
PLAN_B = "sha256:" + "b" * 64


async def ask(notifyd: Daemon, name: str, hours: int = 24, **more: Any) -> dict[str, Any]:
    """A request with a title of its own, which ends in so many hours."""
    message = {"template": "pack-approval", "title": f"Deploy {name}"}
    ends = rfc3339(notifyd.clock() + hours * HOUR)
    return await notifyd.ask(runId=f"run-{name}", message=message, expiresAt=ends, **more)


async def list_of(notifyd: Daemon, recipient: str = ALICE) -> str:
    """The path of the list in the first message to `recipient`."""
    await notifyd.link(recipient)
    urls = [one.actions[-1].url for one in notifyd.inbox.messages if one.recipient == recipient]
    assert urls[0].startswith(f"{PUBLIC}/approvals/mine/")
    return urls[0].removeprefix(PUBLIC)


def made(notifyd: Daemon, links: Links | None = None, **changes: Any) -> str:
    """The path of a list's link that says what a test wants."""
    says: dict[str, Any] = {"tenant": "acme", "recipient": ALICE, "expires_at": notifyd.clock() + HOUR}
    return "/approvals/" + (links or notifyd.app._current().links).seal(MineLink(**says | changes))


def titles(answer: Answer) -> list[str]:
    """What is listed, in its order."""
    found = re.findall(r'<h2 id="item\d+" dir="auto">(.*?)</h2>', answer.text)
    return [re.sub("<[^>]*>", "", one).strip() for one in found]


def items(answer: Answer) -> list[str]:
    """What can be selected, and on a page that asks again what was."""
    return [str(named["value"]) for tag, named in parsed(answer).tags if named.get("name") == "item"]


async def post(notifyd: Daemon, path: str, form: dict[str, str], chosen: Sequence[str] = ()) -> Answer:
    body = urlencode([*form.items(), *(("item", one) for one in chosen)])
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return await notifyd.call("POST", path, data=body, headers=headers)


async def send(notifyd: Daemon, path: str, *, chosen: Sequence[str] | None = None, **form: str) -> Answer:
    """Look at the list, select `chosen`, by default all, and press a button."""
    page = await look(notifyd, path)
    form = parsed(page).hidden | {"decision": "approved", "comment": ""} | form
    return await post(notifyd, path, form, items(page) if chosen is None else chosen)


def pressed(answer: Answer) -> list[str | None]:
    """What the buttons that decide send."""
    return [one for one in parsed(answer).buttons if one != "deputy"]


def results(answer: Answer) -> list[str]:
    found = re.search(r'<ul class="results">(.*?)</ul>', answer.text)
    return [re.sub("<[^>]*>", "", one) for one in re.findall("<li.*?</li>", found[1])] if found else []


def typed(answer: Answer) -> str:
    found = re.search(r"<textarea[^>]*>([^<]*)</textarea>|<blockquote[^>]*>([^<]*)<", answer.text)
    return (found[1] or found[2] or "") if found else ""


# --- looking -----------------------------------------------------------------------------------------------


async def test_what_ends_first_comes_first_and_each_leads_to_its_own_page(notifyd: Daemon) -> None:
    for name, hours in (("late", 40), ("soon", 2), ("later", 90), ("next", 20)):
        await ask(notifyd, name, hours)
    answer = await look(notifyd, await list_of(notifyd))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert titles(answer) == ["Deploy soon", "Deploy next", "Deploy late", "Deploy later"]
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    leads = [str(named["href"]) for tag, named in parsed(answer).tags if tag == "a"]
    assert leads[0].startswith("../")
    page = await look(notifyd, "/approvals/" + leads[0].removeprefix("../"))
    assert "Deploy soon" in page.text
    assert parsed(page).buttons == ["approved", "rejected"]


async def test_looking_at_a_list_changes_nothing(notifyd: Daemon) -> None:
    asked = await ask(notifyd, "one")
    path = await list_of(notifyd)
    for query in ("", "?decision=approved&item=x"):
        assert (await look(notifyd, path + query)).status == 200
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await notifyd.call(method, path)).status == 405
    assert await status(notifyd, asked) == "pending"


async def test_a_list_is_read_in_its_owners_language(notifyd: Daemon) -> None:
    await ask(notifyd, "one")
    german = await look(notifyd, await list_of(notifyd, BOB))
    assert '<html lang="de-CH"' in german.text
    assert "Wartet auf Ihre Entscheidung" in german.text


async def test_who_asked_never_finds_it_on_a_list(notifyd: Daemon) -> None:
    asked = await ask(notifyd, "own", requestedBy="00u1ab")  # one of Alice's names
    await ask(notifyd, "other")
    answer = await look(notifyd, await list_of(notifyd))
    assert titles(answer) == ["Deploy other"]
    own = sealed(notifyd, asked)
    refused = await send(notifyd, await list_of(notifyd), chosen=[own.removeprefix("/approvals/")])
    assert (refused.status, "Deploy own" in results(refused)[0]) == (403, True)
    assert await status(notifyd, asked) == "pending"


async def test_what_one_has_decided_and_what_has_ended_is_not_listed_any_more(notifyd: Daemon) -> None:
    voted = await ask(notifyd, "voted", requiredApprovals=2)
    ended = await ask(notifyd, "ended")
    await ask(notifyd, "open")
    path = await list_of(notifyd)
    for asked in (voted, ended):
        assert (await decide(notifyd, sealed(notifyd, asked))).status == 303
    assert titles(await look(notifyd, path)) == ["Deploy open"]
    assert titles(await look(notifyd, await list_of(notifyd, BOB))) == ["Deploy voted", "Deploy open"]


async def test_a_rule_that_names_somebody_else_by_now_lists_nothing(notifyd: Daemon) -> None:
    await ask(notifyd, "one")
    path = await list_of(notifyd)
    await notifyd.reload(CONFIG.replace(f'"{ALICE}", "{BOB}"', f'"{BOB}"'))
    answer = await look(notifyd, path)
    assert "Nothing waits for your decision right now." in answer.text
    assert parsed(answer).buttons == []


async def test_what_matches_a_rule_only_since_nobody_was_asked_is_not_listed(notifyd: Daemon) -> None:
    await notifyd.reload(CONFIG.replace('event.action == "requested"', 'event.labels.environment == "none"'))
    await ask(notifyd, "unasked")
    await notifyd.reload(CONFIG)
    await ask(notifyd, "asked")
    assert titles(await look(notifyd, await list_of(notifyd))) == ["Deploy asked"]


# --- whose link it is --------------------------------------------------------------------------------------


async def test_a_link_that_is_none_shows_nothing(notifyd: Daemon) -> None:
    asked = await ask(notifyd, "one")
    single = sealed(notifyd, asked).rpartition("/")[2]
    theirs = (await list_of(notifyd)).rpartition("/")[2]
    forged = made(notifyd, Links(Keyring([b"x" * 32]), PUBLIC))
    tampered = f"/approvals/mine/{theirs[:-2]}{'AA' if theirs[-2:] != 'AA' else 'BB'}"
    for path in ("/approvals/mine/x", f"/approvals/mine/{single}", f"/approvals/{theirs}", forged, tampered):
        for answer in (await look(notifyd, path), await post(notifyd, path, {"decision": "approved"})):
            assert (answer.status, "Deploy" in answer.text) == (404, False)
            assert "This link is not valid" in answer.text


async def test_a_link_is_over_at_its_time_and_shows_nothing_then(notifyd: Daemon) -> None:
    await ask(notifyd, "one")
    path = made(notifyd, expires_at=notifyd.clock())
    answer = await look(notifyd, path)
    assert (answer.status, "Deploy" in answer.text) == (410, False)
    assert (await post(notifyd, path, {"decision": "approved"})).status == 410


async def test_a_list_holds_one_tenants_requests_for_one_person(notifyd: Daemon) -> None:
    asked = await ask(notifyd, "one")
    for path in (made(notifyd, tenant="globex"), made(notifyd, recipient="carol@acme.example")):
        answer = await look(notifyd, path)
        assert (answer.status, titles(answer), pressed(answer)) == (200, [], [])
    bobs, globex = sealed(notifyd, asked, recipient=BOB), sealed(notifyd, asked, tenant="globex")
    over, nobodys = sealed(notifyd, asked, expires_at=0), sealed(notifyd, asked, recipient=None)
    for foreign in (bobs, globex, over, nobodys, "/approvals/nonsense"):
        chosen = [foreign.removeprefix("/approvals/"), sealed(notifyd, asked).removeprefix("/approvals/")]
        refused = await send(notifyd, await list_of(notifyd), chosen=chosen, confirmed="1")
        assert refused.status == 403
    assert await status(notifyd, asked) == "pending"


async def test_a_form_of_another_list_decides_nothing(notifyd: Daemon) -> None:
    asked = await ask(notifyd, "one")
    own, other = await list_of(notifyd), await list_of(notifyd, BOB)
    page = await look(notifyd, own)
    foreign = parsed(await look(notifyd, other)).hidden["csrf"]
    for csrf in (foreign, "", "0.x"):
        form = {"csrf": csrf, "decision": "approved", "comment": "keep me", "confirmed": "1"}
        answer = await post(notifyd, own, form, items(page))
        assert (answer.status, typed(answer)) == (403, "keep me")
    assert await status(notifyd, asked) == "pending"


async def test_links_that_only_show_lead_to_no_list(notifyd: Daemon) -> None:
    await ask(notifyd, "one")
    path = await list_of(notifyd)
    for mode in ("view", "off"):
        await notifyd.reload(CONFIG + f'[approvals]\nlinks = "{mode}"\n')
        assert (await look(notifyd, path)).status == 404


async def test_a_lists_link_is_in_no_log_line(
    notifyd: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    await ask(notifyd, "one")
    path = await list_of(notifyd)
    token = path.rpartition("/")[2]
    redactor = notifyd.app._current().redactor
    assert redactor.text(f"sent {PUBLIC}{path} to her") == f"sent {PUBLIC}/approvals/mine/… to her"
    await look(notifyd, path)
    monkeypatch.setattr(notifyd.app._services.store, "approvals", _fails)
    assert (await look(notifyd, path)).status == 500
    assert "/approvals/mine/{link} failed" in caplog.text
    assert token not in caplog.text


async def _fails(*_: Any) -> Any:
    raise RuntimeError("no")


# --- deciding ----------------------------------------------------------------------------------------------


async def test_several_are_decided_on_one_form_once_that_is_confirmed(notifyd: Daemon) -> None:
    asked = [await ask(notifyd, name, hours) for name, hours in (("a", 1), ("b", 2), ("c", 3))]
    path = await list_of(notifyd)
    chosen = items(await look(notifyd, path))[:2]
    again = await send(notifyd, path, chosen=chosen, comment="read both")
    assert (again.status, len(items(again)), typed(again)) == (200, 2, "read both")
    assert "Approve these plans?" in again.text
    assert ("Deploy a" in again.text, "Deploy c" in again.text) == (True, False)
    assert [await status(notifyd, one) for one in asked] == ["pending"] * 3
    form = parsed(again).hidden
    form.pop("item")
    told = await post(notifyd, path, form | {"decision": "approved", "comment": "read both"}, items(again))
    assert (told.status, titles(told), typed(told)) == (200, ["Deploy c"], "")
    assert results(told) == [f"Deploy {name}: your approval is recorded" for name in "ab"]
    for one in asked[:2]:
        (decision,) = (await notifyd.approval(one))["decisions"]
        assert (decision["actor"], decision["comment"], decision["via"]) == (ALICE, "read both", "link")
    repeated = await post(notifyd, path, form | {"decision": "approved"}, items(again))
    assert (repeated.status, results(repeated)) == (200, results(told))
    assert len((await notifyd.approval(asked[0]))["decisions"]) == 1


async def test_one_that_conflicts_is_told_and_the_others_are_recorded(notifyd: Daemon) -> None:
    asked = [await ask(notifyd, name, hours) for name, hours in (("a", 1), ("b", 2), ("c", 3))]
    path = await list_of(notifyd)
    page = await look(notifyd, path)
    form = parsed(page).hidden | {"decision": "approved", "comment": "all fine", "confirmed": "1"}
    assert (await decide(notifyd, sealed(notifyd, asked[1], recipient=BOB), "rejected", "no")).status == 303
    told = await post(notifyd, path, form, items(page))
    assert (told.status, typed(told)) == (409, "all fine")
    recorded = "your approval is recorded"
    assert [one.partition(": ")[2] == recorded for one in results(told)] == [True, False, True]
    assert "Nothing was recorded: the request has changed" in results(told)[1]
    assert [await status(notifyd, one) for one in asked] == ["approved", "rejected", "approved"]


async def test_a_plan_that_came_since_is_not_decided_and_is_listed_unselected(notifyd: Daemon) -> None:
    asked = await ask(notifyd, "a", hours=5)
    path = await list_of(notifyd)
    page = await look(notifyd, path)
    form = parsed(page).hidden | {"decision": "approved", "comment": "the old plan"}
    await ask(notifyd, "a", hours=5, planHash=PLAN_B)
    for step in ({}, {"confirmed": "1"}):
        told = await post(notifyd, path, form | step, items(page))
        assert (told.status, typed(told), titles(told)) == (409, "the old plan", ["Deploy a"])
        assert "Nothing was recorded: the request has changed" in results(told)[0]
        assert ("round 2" in told.text, " checked" in told.text) == (True, False)
    assert await status(notifyd, asked) == "pending"
    assert (await send(notifyd, path, confirmed="1")).status == 200
    assert await status(notifyd, asked) == "approved"


async def test_what_is_written_and_selected_is_there_again_after_a_refusal(notifyd: Daemon) -> None:
    await ask(notifyd, "a")
    path = await list_of(notifyd)
    long = "x" * 2001
    for form, chosen, answered in (
        ({"comment": "keep me"}, [], 422),
        ({"comment": long}, None, 422),
        ({"comment": "keep me", "decision": "maybe"}, None, 422),
        ({"comment": "keep me", "back": "1"}, None, 200),
    ):
        answer = await send(notifyd, path, chosen=chosen, **form)
        assert (answer.status, typed(answer)) == (answered, form["comment"])
        assert (" checked" in answer.text) is (chosen is None)


async def test_a_store_that_fails_between_two_decisions_loses_neither_the_first_nor_the_comment(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [await ask(notifyd, name, hours) for name, hours in (("a", 1), ("b", 2))]
    path = await list_of(notifyd)
    decide_really = notifyd.app._services.decisions.decide

    async def decides(ballot: Any, **given: Any) -> bytes:
        if ballot.run_id == "run-b":
            raise StoreError("no")
        return await decide_really(ballot, **given)

    monkeypatch.setattr(notifyd.app._services.decisions, "decide", decides)
    told = await send(notifyd, path, confirmed="1", comment="both")
    assert (told.status, typed(told)) == (503, "both")
    assert "your approval is recorded" in results(told)[0]
    assert "not available right now" in results(told)[1]
    assert [await status(notifyd, one) for one in asked] == ["approved", "pending"]


async def test_a_store_that_fails_after_the_decisions_does_not_have_the_page_say_they_were_not_recorded(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await ask(notifyd, "a", 1)
    path = await list_of(notifyd)
    services = notifyd.app._services
    list_really, decide_really = services.store.approvals, services.decisions.decide
    down = False

    async def decides(ballot: Any, **given: Any) -> bytes:
        nonlocal down
        answer = await decide_really(ballot, **given)
        down = True
        return answer

    async def lists(*given: Any) -> Any:
        if down:
            raise StoreError("no")
        return await list_really(*given)

    monkeypatch.setattr(services.decisions, "decide", decides)
    monkeypatch.setattr(services.store, "approvals", lists)
    told = await send(notifyd, path, confirmed="1")
    assert (told.status, results(told)) == (200, ["Deploy a: your approval is recorded"])
    assert titles(told) == []
    assert await status(notifyd, asked) == "approved"


async def test_what_needs_a_reason_or_an_input_is_decided_on_its_own_page(notifyd: Daemon) -> None:
    replicas = {"name": "replicas", "label": "Replicas", "type": "number", "required": True}
    filled = await ask(notifyd, "inputs", 1, inputs=[replicas])
    plain = await ask(notifyd, "plain", 2)
    path = await list_of(notifyd)
    page = await look(notifyd, path)
    assert titles(page) == ["Deploy inputs", "Deploy plain"]
    assert (len(items(page)), pressed(page)) == (1, ["approved"])  # to reject needs a reason
    forced = [sealed(notifyd, one).removeprefix("/approvals/") for one in (filled, plain)]
    for confirmed in ({}, {"confirmed": "1"}):
        refused = await send(notifyd, path, chosen=forced, decision="rejected", comment="why", **confirmed)
        assert (refused.status, typed(refused)) == (422, "why")
        assert all("is decided on its own page" in one for one in results(refused))
    approved = await send(notifyd, path, chosen=forced, confirmed="1", comment="why")
    assert (approved.status, typed(approved)) == (422, "why")
    assert [await status(notifyd, one) for one in (filled, plain)] == ["pending", "approved"]


async def test_without_a_reason_to_give_a_list_rejects_too(tmp_path: Path, templates_once: None) -> None:
    async with daemon(tmp_path, CONFIG + "[approvals]\nrequire_reason = []\n") as notifyd:
        asked = await ask(notifyd, "a")
        path = await list_of(notifyd)
        assert pressed(await look(notifyd, path)) == ["approved", "rejected"]
        again = await send(notifyd, path, decision="rejected")
        assert "Reject these plans?" in again.text
        assert (await send(notifyd, path, decision="rejected", confirmed="1")).status == 200
        assert await status(notifyd, asked) == "rejected"


async def test_with_time_to_take_it_back_nothing_is_asked_again(tmp_path: Path, templates_once: None) -> None:
    async with daemon(tmp_path, CONFIG + '[approvals]\nundo = "1h"\n') as notifyd:
        asked = await ask(notifyd, "a")
        told = await send(notifyd, await list_of(notifyd))
        assert (told.status, results(told)) == (200, ["Deploy a: your approval is recorded"])
        assert await status(notifyd, asked) == "approved"
        (lead,) = (str(named["href"]) for tag, named in parsed(told).tags if tag == "a")
        own = "/approvals/" + lead.removeprefix("../")
        form = parsed(await look(notifyd, own)).hidden | {"takeBack": "1"}
        assert (await post(notifyd, own, form)).status == 303
        assert await status(notifyd, asked) == "pending"


async def test_a_deputy_finds_what_waits_for_whom_they_stand_in(tmp_path: Path, templates_once: None) -> None:
    deputy = """
[recipients."alice@acme.example"]
deputy = {to = "dora@acme.example", from = 2020-01-01, until = %s}
"""
    config = CONFIG.replace(f', "{BOB}"', "")
    async with daemon(tmp_path, config + deputy % "2099-01-01") as notifyd:
        asked = await ask(notifyd, "a")
        await ask(notifyd, "hers", requestedBy=ALICE)
        path = await list_of(notifyd, "dora@acme.example")
        page = await look(notifyd, path)
        assert titles(page) == ["Deploy a"]  # nor what she has asked for whom she stands in
        assert f"You stand in for {ALICE}." in page.text
        assert (await send(notifyd, path, confirmed="1")).status == 200
        (decision,) = (await notifyd.approval(asked))["decisions"]
        assert (decision["actor"], decision["onBehalfOf"]) == ("dora@acme.example", ALICE)
        await ask(notifyd, "b")
        await notifyd.reload(config + deputy % "2020-02-01")
        assert titles(await look(notifyd, path)) == []


async def test_whom_a_request_is_escalated_to_finds_it_from_then_on(
    tmp_path: Path, templates_once: None
) -> None:
    escalate = (
        '"bob@acme.example"]\nescalate = [{after = "1ms", channels = ["inbox"], to = ["carol@acme.example"]}]'
    )
    async with daemon(tmp_path, CONFIG.replace('"bob@acme.example"]', escalate, 1)) as notifyd:
        await ask(notifyd, "a")
        path = made(notifyd, recipient="carol@acme.example")

        async def listed() -> bool:
            return titles(await look(notifyd, path)) == ["Deploy a"]

        await until_async(listed)


async def test_no_more_than_a_page_are_shown_and_the_rest_is_counted(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await ask(notifyd, str(number))
    monkeypatch.setattr(mine, "SHOWN", 2)
    page = await look(notifyd, await list_of(notifyd))
    assert len(titles(page)) == 2
    assert "More are waiting: 1." in page.text


async def test_a_list_says_that_not_all_was_looked_through(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(notifyd, "old", 1)
    await ask(notifyd, "new", 2)
    path = await list_of(notifyd)
    assert "only the newest requests were looked through" not in (await look(notifyd, path)).text
    monkeypatch.setattr(asking, "MAX_LOOKED_AT", 1)
    page = await look(notifyd, path)
    assert titles(page) == ["Deploy new"]
    assert "only the newest requests were looked through" in page.text
