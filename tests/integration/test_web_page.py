"""The approver's page: it shows what a link is about, decides as its recipient, and does nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from notifyd.errors import StoreError
from notifyd.model import Level, Message
from notifyd.security.links import Link, Links
from notifyd.security.secrets import Keyring
from notifyd.web.pages import csrf
from tests import events
from tests.daemon import CONFIG, Answer, Daemon, daemon, until
from tests.waiting import until_async

ALICE, BOB = "alice@acme.example", "bob@acme.example"


class _Fields(HTMLParser):
    """The form's hidden fields, and every tag there is."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.buttons: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if named.get("type") == "hidden":
            self.hidden[str(named["name"])] = str(named["value"])
        if tag == "button":
            self.buttons.append(named.get("value"))


def parsed(answer: Answer) -> _Fields:
    fields = _Fields()
    fields.feed(answer.text)
    return fields


def badge(answer: Answer) -> str:
    found = re.search(r'class="badge (\w+)"', answer.text)
    assert found is not None, answer.text
    return found[1]


async def look(notifyd: Daemon, path: str, **headers: str) -> Answer:
    return await notifyd.get(path, None, **headers)


async def submit(notifyd: Daemon, path: str, form: dict[str, str], **headers: str) -> Answer:
    return await notifyd.call("POST", path, data=form, headers=headers)


async def decide(notifyd: Daemon, path: str, decision: str = "approved", comment: str = "") -> Answer:
    """Look at the page, fill in its form and send it, as a person does."""
    form = parsed(await look(notifyd, path)).hidden
    return await submit(notifyd, path, form | {"confirmed": "1", "decision": decision, "comment": comment})


async def status(notifyd: Daemon, asked: dict[str, Any]) -> Any:
    return (await notifyd.approval(asked))["status"]


def sealed(notifyd: Daemon, asked: dict[str, Any], links: Links | None = None, **changes: Any) -> str:
    """The path of a link that says what a test wants."""
    says: dict[str, Any] = {
        "tenant": "acme",
        "run_id": asked["runId"],
        "approval_id": asked["approvalId"],
        "round": 1,
        "plan_hash": asked["planHash"],
        "recipient": ALICE,
        "rule": "approvals",
        "expires_at": notifyd.clock() + 3600 * 1_000_000,
    }
    return "/approvals/" + (links or notifyd.app._current().links).seal(Link(**says | changes))


# --- looking -----------------------------------------------------------------------------------------------


async def test_the_page_shows_the_plan_and_a_form(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    answer = await look(notifyd, await notifyd.link())
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for shown in (
        asked["message"]["title"],
        asked["message"]["summary"],
        *(asked[name] for name in ("runId", "approvalId", "packId", "planHash", "requestedBy")),
        asked["tenant"]["id"],
        asked["tenant"]["project"],
        *(step["name"] for step in asked["steps"]),
        *asked["labels"].values(),
        asked["parameters"]["region"],
        *asked["policy"]["messages"],
        "0 of 1 approvals",
        "alice@acme.example",
    ):
        assert shown in answer.text
    assert badge(answer) == "pending"
    assert parsed(answer).buttons == ["approved", "rejected"]
    assert asked["resume"]["token"] not in answer.text
    assert asked["resume"]["callbackUrl"] not in answer.text


async def test_looking_changes_nothing_however_often_and_by_whom(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    for method in ("GET", "HEAD", "GET"):
        for query in ("", "?decision=approved", "?decision=approved&csrf=x"):
            answer = await notifyd.call(method, path + query, headers={"User-Agent": "mail scanner"})
            assert answer.status == 200
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await notifyd.call(method, path)).status == 405
    shown = await notifyd.approval(asked)
    assert (shown["status"], shown["decisions"]) == ("pending", [])


async def test_the_page_can_do_nothing_but_what_it_shows(notifyd: Daemon) -> None:
    await notifyd.ask()
    for path in (await notifyd.link(), "/approvals/nonsense"):
        headers = (await look(notifyd, path)).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert policy.endswith("form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Robots-Tag"] == "noindex, nofollow"


async def test_hostile_text_stays_text(notifyd: Daemon) -> None:
    hostile = events.fresh("requested-hostile", at=notifyd.clock())
    hostile["resume"] = notifyd.requested()["resume"]
    answer = await notifyd.signed("/notifications/pack-approvals", hostile)
    assert answer.status == 202, answer.text
    page = await look(notifyd, sealed(notifyd, hostile))
    assert page.status == 200
    tags = {tag for tag, _ in parsed(page).tags}
    assert not tags & {"script", "img", "a", "b", "i", "link", "iframe", "svg"}
    assert not any(name.startswith("on") for _, named in parsed(page).tags for name in named)
    assert not set(page.text) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u0000\u0007\u001b")
    assert "hunter2-hostile" not in page.text  # a label named db_password


async def test_the_page_speaks_the_recipients_language_else_the_browsers_else_the_default(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask()

    async def language(path: str, wish: str = "") -> str | None:
        page = parsed(await look(notifyd, path, Accept_Language=wish))
        return next(named["lang"] for tag, named in page.tags if tag == "html")

    assert await language(await notifyd.link(BOB), "it, en") == "de-CH"
    assert await language(await notifyd.link(ALICE), "it, de-AT;q=0.8, en;q=0.5") == "de-AT"
    assert await language(await notifyd.link(ALICE), "en;q=0.2, de;q=0, xx, *;q=x") == "en"
    assert await language(sealed(notifyd, asked, recipient=None), "it") == "en"
    assert await language("/approvals/nonsense", "de") == "de"


async def test_every_field_of_the_form_has_a_label_and_every_section_a_name(notifyd: Daemon) -> None:
    await notifyd.ask()
    page = parsed(await look(notifyd, await notifyd.link()))
    labelled = {named.get("for") for tag, named in page.tags if tag == "label"}
    assert {named.get("id") for tag, named in page.tags if tag == "textarea"} == labelled
    sections = [named for tag, named in page.tags if tag in ("section", "form")]
    assert all("aria-label" in named or "aria-labelledby" in named for named in sections)
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in page.tags].count("h1") == 1


# --- deciding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approved", "rejected"])
async def test_a_decision_is_recorded_as_the_recipients_and_then_shown(
    notifyd: Daemon, decision: str
) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    answer = await decide(notifyd, path, decision, "looks\r\nright")
    assert (answer.status, answer.headers["Location"]) == (303, path.removeprefix("/approvals/"))
    page = await look(notifyd, path)
    assert badge(page) == decision
    assert parsed(page).buttons == []
    (recorded,) = (await notifyd.approval(asked))["decisions"]
    assert (recorded["decision"], recorded["actor"], recorded["comment"], recorded["via"]) == (
        decision,
        ALICE,
        "looks\nright",
        "link",
    )


async def test_sending_a_form_twice_is_one_decision(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden | {"confirmed": "1", "decision": "approved"}
    answers = await asyncio.gather(*(submit(notifyd, path, form) for _ in range(3)))
    assert [answer.status for answer in answers] == [303, 303, 303]
    assert len((await notifyd.approval(asked))["decisions"]) == 1


async def test_while_others_are_missing_the_page_says_so(notifyd: Daemon) -> None:
    await notifyd.ask(requiredApprovals=2)
    path = await notifyd.link()
    await decide(notifyd, path)
    page = await look(notifyd, path)
    assert badge(page) == "pending"
    assert "1 of 2 approvals" in page.text
    assert "You have approved this plan" in page.text
    assert parsed(page).buttons == []
    assert (await decide(notifyd, await notifyd.link(BOB))).status == 303
    assert badge(await look(notifyd, path)) == "approved"


async def test_the_page_tells_which_group_is_missing(notifyd: Daemon) -> None:
    groups = [
        {"name": "Security", "grant": "Packs.Approve", "required": 1},
        {"name": "Operations", "grant": "Ops.Approve", "required": 1},
    ]
    await notifyd.ask(approvalGroups=groups)
    path = await notifyd.link()
    assert (await decide(notifyd, path)).status == 303
    page = re.sub(r"<[^>]+>", "", (await look(notifyd, path)).text)
    assert "Security: 1 of 1 approvalsOperations: 0 of 1 approvals still missing" in page
    assert "alice@acme.example: approved; Operations: still missing" in page  # on the first screen


async def test_a_link_whose_rule_confers_no_groups_grant_only_shows(notifyd: Daemon) -> None:
    await notifyd.ask(approvalGroups=[{"name": "Operations", "grant": "Ops.Approve", "required": 1}])
    page = await look(notifyd, await notifyd.link())
    assert parsed(page).buttons == []
    assert "no longer entitles you" in page.text


GLASS = CONFIG.replace(
    'to = ["alice@acme.example", "bob@acme.example"]',
    'to = ["alice@acme.example", "bob@acme.example"]\ngrants = ["Packs.Approve", "Packs.BreakGlass"]',
).replace("[resume]", '[approvals]\nbreakglass_to = ["ciso@acme.example", "bob@acme.example"]\n\n[resume]')


@pytest.fixture
async def glass(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A notifyd whose rule confers `Packs.BreakGlass`."""
    folder = tmp_path / "glass"
    folder.mkdir()
    async with daemon(folder, GLASS) as running:
        yield running


async def test_the_page_offers_to_break_the_glass_only_where_the_rule_confers_it(
    notifyd: Daemon, glass: Daemon
) -> None:
    for running, offered in ((notifyd, False), (glass, True)):
        await running.ask(requiredApprovals=2)
        page = parsed(await look(running, await running.link()))
        assert ("breakGlass" in page.hidden) is offered
        assert any(named.get("class") == "glass" for _, named in page.tags) is offered


async def test_breaking_the_glass_takes_a_reason_and_the_box(glass: Daemon) -> None:
    asked = await glass.ask(requiredApprovals=2)
    path = await glass.link()
    form = parsed(await look(glass, path)).hidden | {"decision": "approved"}
    unsure = await submit(glass, path, form | {"comment": "The shop is down."})
    assert (unsure.status, "tick the box" in unsure.text) == (422, True)
    assert "The shop is down.</textarea>" in unsure.text
    silent = await submit(glass, path, form | {"confirmed": "1", "comment": " "})
    assert (silent.status, "say why nobody can wait" in silent.text) == (422, True)
    assert await status(glass, asked) == "pending"
    done = await submit(glass, path, form | {"confirmed": "1", "comment": "The shop is down."})
    assert (done.status, await status(glass, asked)) == (303, "approved")
    assert "by break-glass" in (await look(glass, path)).text


async def test_who_has_approved_may_still_break_the_glass_on_the_page(glass: Daemon) -> None:
    asked = await glass.ask(requiredApprovals=3)
    path = await glass.link()
    form = parsed(await look(glass, path)).hidden | {"decision": "approved"}
    del form["breakGlass"]
    assert (await submit(glass, path, form | {"confirmed": "1"})).status == 303
    voted = parsed(await look(glass, path))
    assert voted.buttons == ["approved"]
    broken = voted.hidden | {"decision": "approved", "confirmed": "1", "comment": "The shop is down."}
    assert (await submit(glass, path, broken)).status == 303
    assert await status(glass, asked) == "approved"


async def test_that_the_glass_was_broken_is_told_to_all_who_were_asked_and_to_whom_the_config_names(
    glass: Daemon,
) -> None:
    asked = await glass.ask(requiredApprovals=3)
    path = await glass.link()
    form = parsed(await look(glass, path)).hidden
    broken = form | {"decision": "approved", "confirmed": "1", "comment": "The shop is down."}
    assert (await submit(glass, path, broken)).status == 303

    def told() -> list[Message]:
        return [one for one in glass.inbox.messages if one.event["action"] == "acknowledged"]

    await until(lambda: len(told()) == 2)
    assert {one.recipient for one in told()} == {BOB, "ciso@acme.example"}
    to_ciso = next(one for one in told() if one.recipient != BOB)
    assert to_ciso.title.startswith("Approved by break-glass: ")
    assert (to_ciso.level, "The shop is down." in to_ciso.body) == (Level.WARNING, True)

    async def audited() -> Any:
        history = (await glass.approval(asked))["history"]
        return next((one for one in history if one["name"] == "pack.approval.overridden"), None)

    record = await until_async(audited)
    assert (record["actor"], record["data"]["comment"]) == (ALICE, "The shop is down.")
    metrics = (await glass.get("/metrics", None)).text
    assert "notifyd_approvals_overridden_total 1.0" in metrics


INPUTS = [
    {"name": "version", "label": "<b>Version</b>", "type": "text", "pattern": "v[0-9]+", "required": True},
    {"name": "replicas", "label": "Replicas", "type": "number", "default": 3},
    {"name": "region", "label": "Region", "type": "choice", "choices": ["eu", "us"], "default": "eu"},
    {"name": "drain", "label": "Drain first", "type": "boolean", "default": True},
]


async def test_the_page_asks_for_what_is_to_be_filled_in_and_takes_it(notifyd: Daemon) -> None:
    asked = await notifyd.ask(inputs=INPUTS, requiredApprovals=2)
    path = await notifyd.link()
    page = await look(notifyd, path)
    assert "&lt;b&gt;Version&lt;/b&gt;" in page.text
    fields = {str(named["name"]): named for _, named in parsed(page).tags if "name" in named}
    assert fields["input.replicas"]["value"] == "3"
    assert "checked" in fields["input.drain"]
    form = parsed(page).hidden | {"confirmed": "1", "decision": "approved", "comment": "fine"}
    wrong = await submit(
        notifyd, path, form | {"input.version": "7", "input.replicas": "many", "input.region": "us"}
    )
    assert wrong.status == 422
    assert "please check what you filled in for &lt;b&gt;Version&lt;/b&gt;, Replicas" in wrong.text
    assert 'value="many"' in wrong.text
    assert "fine</textarea>" in wrong.text
    right = form | {"input.version": "v7", "input.replicas": "", "input.region": "us"}
    assert (await submit(notifyd, path, right)).status == 303
    shown = await notifyd.approval(asked)
    assert shown["inputs"]["effective"] == {"version": "v7", "region": "us", "drain": False}


async def test_the_next_approver_confirms_what_was_filled_in_and_not_what_was_there_before(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask(inputs=INPUTS, requiredApprovals=2)
    alice, bob = await notifyd.link(), await notifyd.link(BOB)
    sure = {"confirmed": "1", "decision": "approved"}
    old = parsed(await look(notifyd, bob)).hidden | sure | {"input.version": "v8"}
    form = parsed(await look(notifyd, alice)).hidden | sure
    assert (await submit(notifyd, alice, form | {"input.version": "v7"})).status == 303
    late = await submit(notifyd, bob, old)
    assert late.status == 409
    assert "Inzwischen hat jemand andere Eingaben gemacht" in late.text
    assert parsed(late).hidden["input.version"] == "v7"
    assert (await decide(notifyd, bob)).status == 303
    assert await status(notifyd, asked) == "approved"


async def test_what_is_filled_in_is_carried_through_the_page_that_asks_again(notifyd: Daemon) -> None:
    asked = await notifyd.ask(inputs=INPUTS)
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden | {"decision": "approved", "input.region": "us"}
    wrong = await submit(notifyd, path, form | {"input.version": "7"})
    assert (wrong.status, "please check what you filled in" in wrong.text) == (422, True)
    asking = parsed(await submit(notifyd, path, form | {"input.version": "v7"})).hidden
    assert (await submit(notifyd, path, asking | {"decision": "approved"})).status == 303
    shown = await notifyd.approval(asked)
    assert shown["inputs"]["effective"] == {"version": "v7", "region": "us", "drain": False}


async def test_a_rejection_needs_nothing_to_be_filled_in(notifyd: Daemon) -> None:
    asked = await notifyd.ask(inputs=INPUTS)
    assert (await decide(notifyd, await notifyd.link(), "rejected", "not now")).status == 303
    assert await status(notifyd, asked) == "rejected"


BRUNO = "bruno@acme.example"


def away(first: str, last: str) -> str:
    """Alice is away, and Bruno stands in for her."""
    deputy = f'deputy = {{to = "{BRUNO}", from = {first}, until = {last}}}'
    return f'{CONFIG}\n[recipients."{ALICE}"]\nzone = "Asia/Tokyo"\n{deputy}\n'


AWAY, BACK = away("2000-01-01", "2999-12-31"), away("2000-01-01", "2000-01-02")


@pytest.fixture
async def covered(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, AWAY) as running:
        yield running


async def test_a_deputy_has_a_link_of_their_own_and_decides_as_themselves_for_the_person(
    covered: Daemon,
) -> None:
    asked = await covered.ask(requiredApprovals=2)
    path = await covered.link(BRUNO)
    (message,) = (one for one in covered.inbox.messages if one.recipient == BRUNO)
    assert "You stand in for alice@acme.example. The links are personal" in message.body
    page = await look(covered, path)
    assert "You stand in for alice@acme.example." in page.text
    assert "It is recorded as bruno@acme.example" in page.text
    asking = await submit(covered, path, parsed(page).hidden | {"decision": "approved"})
    assert "You stand in for alice@acme.example." in asking.text
    assert (await decide(covered, path)).status == 303
    (decision,) = (await covered.approval(asked))["decisions"]
    assert (decision["actor"], decision["onBehalfOf"]) == (BRUNO, ALICE)
    own = await look(covered, await covered.link(ALICE))
    assert (parsed(own).buttons, badge(own)) == ([], "pending")
    assert "<bdi>bruno@acme.example</bdi> (for alice@acme.example)" in own.text
    assert "one has decided this already" in own.text
    assert (await decide(covered, await covered.link(BOB))).status == 303
    assert await status(covered, asked) == "approved"


async def test_a_deputys_link_decides_no_more_once_the_person_has_or_is_back(covered: Daemon) -> None:
    asked = await covered.ask(requiredApprovals=2)
    path = await covered.link(BRUNO)
    form = parsed(await look(covered, path)).hidden | {"decision": "approved"}
    await covered.reload(BACK)
    assert "no longer entitles you" in (await look(covered, path)).text
    assert (await submit(covered, path, form)).status == 403
    await covered.reload(AWAY)
    assert (await decide(covered, await covered.link(ALICE))).status == 303
    late = await submit(covered, path, form)
    assert (late.status, await status(covered, asked)) == (409, "pending")


async def test_the_deputy_of_who_asked_decides_nothing_and_one_who_asked_decides_for_nobody(
    covered: Daemon,
) -> None:
    for requester in (ALICE, BRUNO):
        asked = await covered.ask(requestedBy=requester, runId=f"run-{requester[:5]}")
        path = await covered.link(BRUNO, number=int(requester == BRUNO))
        page = await look(covered, path)
        assert (parsed(page).buttons, "somebody else has to decide" in page.text) == ([], True)
        assert await status(covered, asked) == "pending"


async def test_nobody_has_a_deputy_on_other_days(tmp_path: Path) -> None:
    async with daemon(tmp_path, BACK) as running:
        await running.ask()
        await running.link(ALICE)
        assert {one.recipient for one in running.inbox.messages} <= {ALICE, BOB}


async def test_deciding_otherwise_afterwards_is_refused_on_the_page(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden
    await submit(notifyd, path, form | {"confirmed": "1", "decision": "approved"})
    typed = {"confirmed": "1", "decision": "rejected", "comment": "I was wrong."}
    answer = await submit(notifyd, path, form | typed)
    assert (answer.status, badge(answer)) == (409, "pending")
    assert "you have already decided otherwise" in answer.text
    assert await status(notifyd, asked) == "pending"


async def test_a_decision_after_the_end_is_refused_and_the_page_shows_the_end(notifyd: Daemon) -> None:
    await notifyd.ask()
    alice, bob = await notifyd.link(ALICE), await notifyd.link(BOB)
    form = parsed(await look(notifyd, bob)).hidden
    await decide(notifyd, alice, "rejected", "not now")
    answer = await submit(notifyd, bob, form | {"confirmed": "1", "decision": "approved"})
    assert (answer.status, badge(answer)) == (409, "rejected")
    assert ALICE in answer.text


async def test_the_first_screen_says_what_counts_and_folds_the_rest(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    path = await notifyd.link(BOB)
    await decide(notifyd, await notifyd.link(ALICE))
    page = (await look(notifyd, path)).text
    first, _, rest = page.partition("</header>")
    for shown in (
        asked["labels"]["environment"],
        asked["message"]["title"],
        *asked["policy"]["messages"],
        f"Angefragt von {asked['requestedBy']}",
        "Endet in 23 Stunden, 59 Minuten (",
        "1 von 2 Freigaben; ",
        "alice@acme.example",
        "als Nächstes Sie",
    ):
        assert shown in first
    folded = rest[rest.index("<details>") : rest.index("</details>")]
    for hidden in (asked["planHash"], asked["runId"], asked["approvalId"], "Packs.Approve"):
        assert hidden in folded
        assert page.count(hidden) == folded.count(hidden)


async def test_only_a_text_without_end_scrolls_and_then_the_keyboard_reaches_it(notifyd: Daemon) -> None:
    endless = {"title": "T", "summary": "line\n" * 40}
    await notifyd.ask(message=endless, parameters={"short": "x", "huge": "y" * 4000, "n" * 400: "1"})
    page = parsed(await look(notifyd, await notifyd.link()))
    scrolls = [named for _, named in page.tags if "long" in (named.get("class") or "").split()]
    assert len(scrolls) == 3
    assert all(named.get("tabindex") == "0" for named in scrolls)


async def test_a_new_round_says_what_has_changed_and_which_votes_are_void(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2, parameters={"replicas": 3, "old": "x", "same": [1]})
    path = await notifyd.link()
    await decide(notifyd, path, comment="fine with three")
    notifyd.clock.turn(1)
    steps = [{"id": "deploy", "name": "Deploy twice"}, {"id": "test", "name": "<i>Test</i>"}]
    await notifyd.ask(
        planHash="sha256:" + "ab" * 32,
        requiredApprovals=2,
        steps=steps,
        parameters={"replicas": 6, "new": {"a": 1}, "same": [1]},
    )
    old = await look(notifyd, path)
    assert badge(old) == "superseded"
    (newer,) = (named["href"] for tag, named in parsed(old).tags if tag == "a")
    text = re.sub(r"<[^>]+>", "", (await look(notifyd, f"/approvals/{newer}")).text)
    for shown in (
        "New: &lt;i&gt;Test&lt;/i&gt;",
        "Removed: Migrate the ledger schema",
        "Changed: Deploy to production → Deploy twice",
        "New: new: {&#34;a&#34;: 1}",
        "Removed: old",
        "Changed: replicas: 3 → 6",
        "No longer counts, decided by: alice@acme.example",
        "in round 1, no longer counts",
        "by link",
        "fine with three",
    ):
        assert shown in text, text
    assert (await decide(notifyd, f"/approvals/{newer}")).status == 303
    link = await notifyd.link(number=1)
    message = next(one for one in notifyd.inbox.messages if any(link in a.url for a in one.actions))
    for told in ("- changed: replicas: 3 → 6", "- removed: old", "No longer counts, decided by: alice@"):
        assert told in message.body, message.body
    assert asked["planHash"] not in text


async def test_the_addresses_that_a_request_names_are_links_on_the_page(notifyd: Daemon) -> None:
    run = {"rel": "run", "href": "https://runner.acme.example/runs/42?a=1&b=2"}
    await notifyd.ask(links=[run, {"rel": "x", "href": "https://a.example", "title": "<b>Diff</b>"}])
    page = await look(notifyd, await notifyd.link())
    assert [named["href"] for tag, named in parsed(page).tags if tag == "a"] == [
        run["href"],
        "https://a.example",
    ]
    assert "&lt;b&gt;Diff&lt;/b&gt;</a>" in page.text
    assert ">Run</a>" in page.text


async def test_a_superseded_link_that_names_nobody_leads_nowhere(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    notifyd.clock.turn(1)
    await notifyd.ask(planHash="sha256:" + "ab" * 32)
    old = await look(notifyd, sealed(notifyd, asked, recipient=None))
    assert (badge(old), [tag for tag, _ in parsed(old).tags if tag == "a"]) == ("superseded", [])


SMALL_AND_LARGE = (
    CONFIG.replace(
        'event.action == "requested"\'', 'event.action == "requested" && event.parameters.amount < 100\''
    )
    + """
[[rules]]
name = "large"
when = 'event.kind == "pack.approval" && event.action == "requested" && event.parameters.amount >= 100'
channels = ["inbox"]
to = ["bob@acme.example", "carol@acme.example"]
"""
)


async def test_a_superseded_link_leads_nobody_to_a_plan_that_they_are_not_asked_about(tmp_path: Path) -> None:
    async with daemon(tmp_path, SMALL_AND_LARGE) as notifyd:
        asked = await notifyd.ask(parameters={"amount": 5})
        paths = [await notifyd.link(), await notifyd.link(BOB)]
        notifyd.clock.turn(1)
        await notifyd.ask(planHash="sha256:" + "ab" * 32, parameters={"amount": 5000})
        links = [
            [named["href"] for tag, named in parsed(await look(notifyd, path)).tags if tag == "a"]
            for path in paths
        ]
        assert [len(found) for found in links] == [0, 1]
        assert (
            await decide(notifyd, f"/approvals/{links[1][0]}")
        ).status == 303  # bob is asked by another rule
        assert (await notifyd.approval(asked))["decisions"][0]["actor"] == BOB


async def test_a_newer_plan_supersedes_a_link_and_is_not_shown_through_it(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    old = await notifyd.link()
    form = parsed(await look(notifyd, old)).hidden
    notifyd.clock.turn(1)
    message = asked["message"] | {"title": "The newer plan"}
    newer = await notifyd.ask(planHash="sha256:" + "ab" * 32, message=message)
    page = await look(notifyd, old)
    assert (page.status, badge(page)) == (200, "superseded")
    assert "The newer plan" not in page.text
    assert newer["planHash"] not in page.text
    answer = await submit(notifyd, old, form | {"confirmed": "1", "decision": "approved"})
    assert (answer.status, badge(answer)) == (409, "superseded")
    new = await look(notifyd, await notifyd.link(number=1))
    assert (badge(new), "The newer plan" in new.text) == ("pending", True)


async def test_an_expired_approval_shows_as_expired_by_the_clock(notifyd: Daemon) -> None:
    await notifyd.ask()
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden
    notifyd.clock.turn(25 * 3600)
    page = await look(notifyd, path)
    assert (badge(page), parsed(page).buttons) == ("expired", [])
    assert (
        await submit(notifyd, path, form | {"confirmed": "1", "decision": "approved"})
    ).status == 403  # the form's time, too


async def test_the_page_of_an_approval_that_is_over_tells_whether_the_one_who_asked_has_heard(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    assert "data-resume" not in (await look(notifyd, path)).text
    notifyd.clock.turn(25 * 3600)

    async def shown(status: str) -> bool:
        return f'data-resume="{status}"' in (await look(notifyd, path)).text

    async def queued() -> Any:
        return (await notifyd.get("/api/v1/deliveries?channel=resume")).json["items"]

    await until_async(lambda: shown("queued"))
    await until_async(queued)
    notifyd.clock.turn(8 * 86400)  # nobody listens at the callback's address, and its time runs out
    path = sealed(notifyd, asked)
    await until_async(lambda: shown("failed"))
    page = (await look(notifyd, path)).text
    assert 'class="note alert" role="status" data-resume="failed">The system that asked was not told.' in page
    assert (await notifyd.approval(asked))["resume"]["status"] == "failed"


async def test_a_cancelled_approval_says_by_whom(notifyd: Daemon) -> None:
    await notifyd.ask()
    path = await notifyd.link()
    await notifyd.signed(
        "/notifications/pack-approvals",
        events.updated("cancelled", at=notifyd.clock(), decidedBy="carol@acme.example"),
    )
    page = await look(notifyd, path)
    assert badge(page) == "cancelled"
    assert "carol@acme.example" in page.text


# --- two steps ---------------------------------------------------------------------------------------------


async def first_step(notifyd: Daemon, path: str, decision: str, comment: str = "") -> Answer:
    form = parsed(await look(notifyd, path)).hidden
    return await submit(notifyd, path, form | {"decision": decision, "comment": comment, "x-more": "kept"})


@pytest.mark.parametrize(
    ("needed", "decision", "effect"),
    [
        (1, "approved", "the last approval that is missing: the plan runs at once"),
        (3, "approved", "still needs approvals: 2."),
        (3, "rejected", "ends the request for everybody"),
    ],
)
async def test_what_a_decision_does_is_told_before_it_is_recorded(
    notifyd: Daemon, needed: int, decision: str, effect: str
) -> None:
    asked = await notifyd.ask(requiredApprovals=needed)
    path = await notifyd.link()
    told = await first_step(notifyd, path, decision, "seen <b>twice</b>")
    assert (told.status, effect in told.text, asked["message"]["title"] in told.text) == (200, True, True)
    assert "seen &lt;b&gt;twice&lt;/b&gt;</textarea>" in told.text
    assert (await notifyd.approval(asked))["decisions"] == []
    form = parsed(told)
    assert (form.hidden["confirmed"], form.hidden["x-more"], form.buttons) == ("1", "kept", [decision, "1"])
    done = await submit(notifyd, path, form.hidden | {"decision": decision, "comment": "seen twice"})
    assert done.status == 303
    assert len((await notifyd.approval(asked))["decisions"]) == 1


async def test_the_way_back_from_the_second_step_keeps_the_comment(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    told = await first_step(notifyd, path, "approved", "first words")
    back = await submit(notifyd, path, parsed(told).hidden | {"back": "1", "comment": "better words"})
    assert (back.status, parsed(back).buttons) == (200, ["approved", "rejected"])
    assert "better words</textarea>" in back.text
    assert (await notifyd.approval(asked))["decisions"] == []


async def test_to_reject_takes_a_reason_unless_the_rule_says_otherwise(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    told = parsed(await first_step(notifyd, path, "rejected"))
    assert "required" in next(named for tag, named in told.tags if tag == "textarea")
    silent = await submit(notifyd, path, told.hidden | {"decision": "rejected", "comment": " \r\n"})
    assert (silent.status, "please give a reason" in silent.text) == (422, True)
    assert parsed(silent).hidden["confirmed"] == "1"
    assert await status(notifyd, asked) == "pending"
    lenient = notifyd.text.replace('name = "approvals"', 'name = "approvals"\nrequire_reason = ["approved"]')
    await notifyd.reload(lenient)
    assert (await decide(notifyd, path)).status == 422
    assert (await decide(notifyd, path, "rejected")).status == 303
    assert await status(notifyd, asked) == "rejected"


# --- taking back -------------------------------------------------------------------------------------------

UNDO = '\n[approvals]\nundo = "10m"\n'


async def test_a_decision_can_be_taken_back_until_its_effects_come(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    await notifyd.reload(notifyd.text + UNDO)
    assert "can be taken back for 10 minutes" in (await look(notifyd, path)).text
    form = parsed(await look(notifyd, path)).hidden
    assert (await submit(notifyd, path, form | {"decision": "approved"})).status == 303
    page = await look(notifyd, path)
    assert (badge(page), parsed(page).buttons) == ("approved", ["1"])
    assert "take your decision back for another" in page.text
    taken = {"csrf": parsed(page).hidden["csrf"], "takeBack": "1"}
    others = await notifyd.link(BOB)
    assert (await submit(notifyd, others, taken)).status == 403
    assert (await submit(notifyd, path, taken)).status == 303
    assert (await submit(notifyd, path, taken)).status == 409
    assert badge(await look(notifyd, path)) == "pending"
    assert (await notifyd.approval(asked))["decisions"] == []

    async def names() -> Any:
        history = (await notifyd.approval(asked))["history"]
        names = {one["name"] for one in history} - {"notification.sent"}
        return names == {"pack.approval.requested", "pack.approval.taken_back"}

    await until_async(names)
    form = parsed(await look(notifyd, path)).hidden | {"comment": "no"}
    assert (await submit(notifyd, path, form | {"decision": "rejected"})).status == 303


async def test_what_a_decision_sets_off_comes_once_it_can_no_longer_be_taken_back(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    await notifyd.reload(notifyd.text + UNDO)
    body = {"decision": "approved", "planHash": asked["planHash"], "actor": ALICE}
    ack = f"/notifications/pack-approvals/{asked['runId']}/{asked['approvalId']}/ack"
    answer = await notifyd.post(ack, body, "task-runner")
    assert answer.json["decision"]["undoUntil"] > answer.json["decision"]["decidedAt"]
    page = await look(notifyd, path)
    late = {"csrf": parsed(page).hidden["csrf"], "takeBack": "1"}
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert (await notifyd.get("/api/v1/deliveries?channel=resume")).json["items"] == []
    ended = 'notifyd_approvals_ended_total{status="approved"} 1.0'
    assert ended not in (await notifyd.get("/metrics", None)).text
    notifyd.clock.turn(601)

    async def queued() -> Any:
        return (await notifyd.get("/api/v1/deliveries?channel=resume")).json["items"]

    await until_async(queued)
    assert ended in (await notifyd.get("/metrics", None)).text
    answer = await submit(notifyd, path, late)
    assert (answer.status, "too late" in answer.text) == (409, True)
    assert await status(notifyd, asked) == "approved"


async def test_what_waits_outlives_the_daemon_and_can_be_taken_back_after_a_restart(tmp_path: Path) -> None:
    async with daemon(tmp_path, CONFIG + UNDO) as first:
        asked = await first.ask(requiredApprovals=2)
        paths = [await first.link(), await first.link(BOB)]
        for path in paths:
            assert (await decide(first, path)).status == 303
        assert await status(first, asked) == "approved"
    async with daemon(tmp_path, CONFIG + UNDO) as second:
        taken = {"csrf": parsed(await look(second, paths[0])).hidden["csrf"], "takeBack": "1"}
        assert (await submit(second, paths[0], taken)).status == 303
        assert await status(second, asked) == "pending"
        second.clock.turn(601)

        async def told() -> Any:
            history = (await second.approval(asked))["history"]
            return [one["actor"] for one in history if one["name"] == "pack.approval.acknowledged"]

        assert await until_async(told) == [BOB]


# --- links that only show ----------------------------------------------------------------------------------


async def post_without_form(notifyd: Daemon, path: str) -> Answer:
    """A decision with a CSRF token that holds, from a page that has no form."""
    token = path.removeprefix("/approvals/")
    issued = csrf.issue(notifyd.app._current().keyring, token, notifyd.clock())
    return await submit(notifyd, path, {"csrf": issued, "decision": "approved"})


async def refuses(notifyd: Daemon, asked: dict[str, Any], path: str, words: str) -> None:
    page = await look(notifyd, path)
    assert (page.status, parsed(page).buttons) == (200, [])
    assert words in page.text
    answer = await post_without_form(notifyd, path)
    assert answer.status == 403
    assert (await notifyd.approval(asked))["decisions"] == []


async def test_a_link_without_a_recipient_shows_and_does_not_decide(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    await refuses(
        notifyd, asked, sealed(notifyd, asked, recipient=None), "Only an approver&#39;s personal link"
    )


async def test_links_that_are_set_to_show_do_not_decide(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    await notifyd.reload(notifyd.text + '\n[approvals]\nlinks = "view"\n')
    await refuses(notifyd, asked, path, "Only an approver&#39;s personal link")


NO_LONGER = {
    "a rule that is gone": ('name = "approvals"', 'name = "others"'),
    "a rule that confers nothing": ('name = "approvals"', 'name = "approvals"\ngrants = []'),
    "a rule that names others by now": ('to = ["alice@acme.example", ', "to = ["),
}


@pytest.mark.parametrize(("old", "new"), NO_LONGER.values(), ids=NO_LONGER.keys())
async def test_what_a_rule_no_longer_confers_a_link_cannot_decide(
    notifyd: Daemon, old: str, new: str
) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    await notifyd.reload(notifyd.text.replace(old, new))
    await refuses(notifyd, asked, path, "no longer entitles you")


async def test_a_rule_that_confers_too_little_cannot_decide(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredGrants=["Packs.Approve", "Packs.Release"])
    await refuses(notifyd, asked, await notifyd.link(), "no longer entitles you")


async def test_who_asked_does_not_decide(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requestedBy="00U1AB")  # alice, by another of her names
    path = await notifyd.link()
    page = await look(notifyd, path)
    assert (parsed(page).buttons, "somebody else has to decide" in page.text) == ([], True)
    assert (await post_without_form(notifyd, path)).status == 403
    assert await status(notifyd, asked) == "pending"


# --- links that show nothing -------------------------------------------------------------------------------


async def shows_nothing(notifyd: Daemon, asked: dict[str, Any], path: str, status: int) -> None:
    for answer in (
        await look(notifyd, path),
        await submit(notifyd, path, {"confirmed": "1", "decision": "approved"}),
    ):
        assert answer.status == status
        assert answer.headers["Content-Type"].startswith("text/html")
        for hidden in (asked["runId"], asked["approvalId"], asked["message"]["title"], "acme"):
            assert hidden not in answer.text


async def test_a_link_whose_time_is_over_shows_nothing(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    await shows_nothing(notifyd, asked, sealed(notifyd, asked, expires_at=notifyd.clock()), 410)


async def test_a_link_that_does_not_open_shows_nothing(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    for broken in ("/approvals/nonsense", path[:-4] + "AAAA", path + "A", "/approvals/" + "x" * 4000):
        await shows_nothing(notifyd, asked, broken, 404)


async def test_a_link_under_a_dropped_key_shows_nothing(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    links = Links(Keyring([b"a key of 32 bytes, since dropped"]), "")
    await shows_nothing(notifyd, asked, sealed(notifyd, asked, links=links), 404)


async def test_a_link_to_what_is_gone_shows_nothing(notifyd: Daemon) -> None:
    asked = notifyd.requested()
    await shows_nothing(notifyd, asked, sealed(notifyd, asked), 404)


async def test_links_that_are_off_show_nothing(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    await notifyd.reload(notifyd.text + '\n[approvals]\nlinks = "off"\n')
    await shows_nothing(notifyd, asked, path, 404)


# --- forgery -----------------------------------------------------------------------------------------------


async def test_a_form_without_a_token_or_with_a_forged_or_another_links_decides_nothing(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    others = parsed(await look(notifyd, await notifyd.link(BOB))).hidden["csrf"]
    own = parsed(await look(notifyd, path)).hidden["csrf"]
    stamp, _, identity = own.partition(".")
    forged = (
        "",
        "x",
        ".",
        others,
        f"{int(stamp) + 1}.{identity}",
        f"{stamp}.{identity[:-1]}",
        "²." + identity,
    )
    for token in forged:
        answer = await submit(notifyd, path, {"csrf": token, "decision": "approved"})
        assert (answer.status, badge(answer)) == (403, "pending")
    assert await status(notifyd, asked) == "pending"


async def test_a_form_that_was_open_too_long_is_refused_and_keeps_its_comment(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden | {
        "confirmed": "1",
        "decision": "approved",
        "comment": "kept <b>words</b>",
    }
    notifyd.clock.turn(12 * 3600 + 2)
    answer = await submit(notifyd, path, form)
    assert answer.status == 403
    assert "kept &lt;b&gt;words&lt;/b&gt;</textarea>" in answer.text
    again = parsed(answer).hidden | {"confirmed": "1", "decision": "approved"}
    assert (await submit(notifyd, path, again)).status == 303
    assert await status(notifyd, asked) == "approved"


@pytest.mark.parametrize(
    "more",
    ["decision=rejected", "decision=approved", "csrf=x", "confirmed=1", "comment=%ff", "comment=%ED%A0%80"],
)
async def test_a_form_with_a_field_twice_or_that_is_no_text_decides_nothing(
    notifyd: Daemon, more: str
) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    form = {
        "csrf": parsed(await look(notifyd, path)).hidden["csrf"],
        "decision": "approved",
        "confirmed": "1",
    }
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await notifyd.call("POST", path, data=f"{urlencode(form)}&{more}", headers=kind)
    assert (answer.status, await status(notifyd, asked)) == (400, "pending")


FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a sibling": {"Sec-Fetch-Site": "same-site"},
    "another origin": {"Origin": "https://evil.example"},
    "another port": {"Origin": "https://notifyd.acme.example:8443"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
async def test_a_form_sent_from_elsewhere_is_refused(notifyd: Daemon, headers: dict[str, str]) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden | {"confirmed": "1", "decision": "approved"}
    assert (await submit(notifyd, path, form, **headers)).status == 403
    assert await status(notifyd, asked) == "pending"


@pytest.mark.parametrize("origin", ["null", "https://notifyd.acme.example"])
async def test_a_form_sent_from_its_own_page_is_taken(notifyd: Daemon, origin: str) -> None:
    await notifyd.ask()
    path = await notifyd.link()
    form = parsed(await look(notifyd, path)).hidden | {"confirmed": "1", "decision": "approved"}
    answer = await submit(notifyd, path, form, **{"Sec-Fetch-Site": "same-origin", "Origin": origin})
    assert answer.status == 303


UNREADABLE = {
    "no choice": ({}, 422),
    "another choice": ({"decision": "maybe"}, 422),
    "too long a comment": ({"decision": "approved", "comment": "x" * 2001}, 422),
}


@pytest.mark.parametrize(("fields", "answered"), UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_form_filled_in_wrongly_is_shown_again(
    notifyd: Daemon, fields: dict[str, str], answered: int
) -> None:
    asked = await notifyd.ask()
    path = await notifyd.link()
    answer = await submit(notifyd, path, parsed(await look(notifyd, path)).hidden | fields)
    assert (answer.status, parsed(answer).buttons) == (answered, ["approved", "rejected"])
    assert 'role="alert"' in answer.text
    assert await status(notifyd, asked) == "pending"


async def test_what_is_no_form_is_refused_as_a_page(notifyd: Daemon) -> None:
    await notifyd.ask()
    path = await notifyd.link()
    form = "application/x-www-form-urlencoded"
    for media, body, answered in (
        ("application/json", b'{"decision": "approved"}', 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        (form, b"&".join(b"a=1" for _ in range(40)), 400),
        (form, b"decision=\xff\xfe", 400),
        (form, b"x" * (256 * 1024 + 1), 413),
    ):
        answer = await notifyd.call("POST", path, data=body, headers={"Content-Type": media})
        assert (answer.status, answer.headers["Content-Type"]) == (answered, "text/html; charset=utf-8")
        assert "Content-Security-Policy" in answer.headers


async def test_a_store_that_fails_is_a_page_to_try_again(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await notifyd.ask()
    path = await notifyd.link()

    async def locked(*_: object) -> None:
        raise StoreError("the file is locked")

    monkeypatch.setattr(notifyd.app._store, "approval", locked)
    answer = await look(notifyd, path)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "try again" in answer.text
    assert "locked" not in answer.text
