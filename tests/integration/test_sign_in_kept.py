"""What a sign-in must not change or lose: what was typed, who may undo or override, and what is told of it."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd.security.sign_in import SignedIn, open_draft, open_sealed
from tests.daemon import CALLBACK, Answer, daemon
from tests.integration.test_sign_in import (
    MALLORY,
    Place,
    config,
    nothing_decided,
    signed_in,
    signed_out,
    text_area,
)
from tests.integration.test_web_page import ALICE, BOB, INPUTS, parsed, status
from tests.provider import Browser, provider
from tests.sinks import HttpSink
from tests.waiting import until, until_async

TYPED = {"input.version": "v7 & <more>", "input.region": "us", "input.replicas": "12"}
REASON = "The shop is down."


@pytest.fixture
async def place(tmp_path: Path, templates_once: None) -> AsyncIterator[Place]:
    """Its decisions can be taken back for 10 minutes, and its rule confers the right to break the glass."""
    text = '[approvals]\nproof = "sign-in"\nundo = "10m"\n'
    async with provider() as running:
        glass = config(running.url, text).replace(
            "[recipients.", 'grants = ["Packs.Approve", "Packs.BreakGlass"]\n\n[recipients.'
        )
        async with daemon(tmp_path, glass) as notifyd:
            yield Place(notifyd, running, Browser(notifyd))


async def come_back(place: Place, path: str, form: dict[str, str], email: str = ALICE) -> Answer:
    """Send `form` to begin a sign-in, and end it: the page then."""
    begun = await place.browser.post(path, form | {"decision": "sign-in"})
    assert begun.status == 200, begun.text
    address = begun.headers["Refresh"].removeprefix("0; url=")
    return await place.come_back(place.provider.sign_in(address, email), path)


def filled_in(answer: Answer) -> dict[str, str]:
    """What stands in the fields, and what is chosen of a list."""
    page = parsed(answer)
    fields = {str(named["name"]): named.get("value") or "" for tag, named in page.tags if tag == "input"}
    chosen = re.findall(r"<option selected>(.*?)</option>", answer.text)
    return {name: fields[name] for name in TYPED if name in fields} | {
        "input.region": chosen[0] if chosen else ""
    }


def letters(number: int) -> str:
    """Letters that no packing makes much shorter."""
    chosen = random.Random(number)  # noqa: S311 - letters, not a secret
    return "".join(chr(chosen.randrange(0x20000, 0x2A6DF)) for _ in range(number))


async def approve(place: Place, path: str, **more: str) -> int:
    """Vote, with what the page's form has, and not with what the one for breaking the glass has."""
    csrf = parsed(await place.browser.get(path)).hidden["csrf"]
    return (await place.browser.post(path, {"csrf": csrf, "decision": "approved"} | more)).status


# --- what was typed ----------------------------------------------------------------------------------------


async def test_what_was_filled_in_survives_the_sign_in(place: Place) -> None:
    asked = await place.notifyd.ask(inputs=INPUTS)
    path = await place.notifyd.link()
    form = parsed(await place.browser.get(path)).hidden | TYPED | {"comment": "as we said"}
    answer = await come_back(place, path, form)
    assert (text_area(answer), filled_in(answer)) == ("as we said", TYPED)
    assert "checked" not in {name for _, named in parsed(answer).tags for name in named}  # it was unticked
    assert await approve(place, path, **TYPED | {"input.version": "v7"}) == 303
    shown = await place.notifyd.approval(asked)
    assert shown["inputs"]["effective"] == {"version": "v7", "replicas": 12, "region": "us", "drain": False}
    assert not [name for name, _ in place.browser.cookies if "draft" in name]


async def test_a_sign_in_that_ended_while_the_form_was_open_loses_nothing_that_was_filled_in(
    place: Place,
) -> None:
    await place.notifyd.ask(inputs=INPUTS)
    path = await place.notifyd.link()
    form = parsed(await place.sign_in(path)).hidden
    place.notifyd.clock.turn(901)
    refused = await place.browser.post(path, form | TYPED | {"decision": "approved"})
    assert (refused.status, filled_in(refused)) == (403, TYPED)
    answer = await come_back(place, path, parsed(refused).hidden | TYPED)
    assert filled_in(answer) == TYPED


async def test_what_is_too_long_to_be_kept_stays_on_the_page_and_nothing_begins(place: Place) -> None:
    text, value = letters(2000), letters(1000)
    await place.notifyd.ask(inputs=INPUTS)
    path = await place.notifyd.link()
    form = parsed(await place.browser.get(path)).hidden | {"comment": text, "input.version": value}
    answer = await place.browser.post(path, form | {"decision": "sign-in"})
    assert (answer.status, "too long to be kept" in answer.text) == (422, True)
    assert (text_area(answer), value in answer.text) == (text, True)
    assert "Refresh" not in answer.headers
    assert not place.browser.cookies


async def test_cookies_fit_one_header_whatever_the_ids(place: Place) -> None:
    text = letters(2000)
    await place.notifyd.ask(runId="r" * 200, approvalId="a" * 200)
    path = await place.notifyd.link()
    assert text_area(await place.sign_in(path, comment=text)) == text


async def test_no_cookie_holds_anything_that_the_provider_has_issued(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    await place.sign_in(path, comment="as we said")
    keyring, now = place.notifyd.app.registry().keyring, place.notifyd.clock()
    sealed = {name: cookie.value for (name, _), cookie in place.browser.cookies.items()}
    signed_in = open_sealed(keyring, SignedIn, sealed["__Secure-notifyd-signed-in"], now)
    draft = open_draft(keyring, path.removeprefix("/approvals/"), sealed["__Secure-notifyd-draft-0"])
    assert (signed_in and signed_in.name, draft.comment) == (ALICE, "as we said")
    assert len(sealed) == 2
    (code, token) = place.provider.issued
    assert not [one for one in (code, *token.split(".")) if one in f"{signed_in}{draft}"]


# --- who may take back, and break the glass ----------------------------------------------------------------


async def test_neither_a_forwarded_link_nor_another_person_takes_a_decision_back(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    stranger = Place(place.notifyd, place.provider, Browser(place.notifyd))
    others = await place.notifyd.link(BOB)
    bob = parsed(await stranger.sign_in(others, BOB)).hidden["csrf"]
    await place.sign_in(path)
    assert await approve(place, path) == 303
    taken = {"csrf": parsed(await place.browser.get(path)).hidden["csrf"], "takeBack": "1"}
    assert signed_out(await stranger.browser.get(path))
    own = {"csrf": parsed(await stranger.browser.get(path)).hidden["csrf"], "takeBack": "1"}
    for form in (taken, own, own | {"decision": "approved"}):
        assert (await stranger.browser.post(path, form)).status == 403
    assert signed_out(await stranger.sign_in(path, MALLORY))
    own["csrf"] = parsed(await stranger.browser.get(path)).hidden["csrf"]
    assert (await stranger.browser.post(path, own)).status == 403
    own["csrf"] = bob
    assert (await stranger.browser.post(others, own)).status == 409  # signed in, and not who decided
    assert await status(place.notifyd, asked) == "approved"
    assert (await place.browser.post(path, taken)).status == 303
    await nothing_decided(place, asked)


async def test_neither_a_forwarded_link_nor_another_person_breaks_the_glass(place: Place) -> None:
    asked = await place.notifyd.ask(requiredApprovals=2)
    path = await place.notifyd.link()
    broken = {"breakGlass": "1", "confirmed": "1", "comment": REASON, "decision": "approved"}
    shown = parsed(await place.browser.get(path))
    assert "breakGlass" not in shown.hidden
    for email in (None, MALLORY, BOB):
        if email is not None:
            assert signed_out(await place.sign_in(path, email))
        csrf = parsed(await place.browser.get(path)).hidden["csrf"]
        assert (await place.browser.post(path, broken | {"csrf": csrf})).status == 403
    await nothing_decided(place, asked)
    kept = await place.browser.post(path, broken | {"csrf": csrf})
    # What was written to break the glass comes along as that, and is not half a decision of another kind.
    answer = await come_back(place, path, parsed(kept).hidden | {"comment": REASON})
    assert '<details class="glass" open>' in answer.text
    assert f"{REASON}</textarea>" in answer.text
    csrf = parsed(answer).hidden["csrf"]
    assert (await place.browser.post(path, broken | {"csrf": csrf})).status == 303
    (decision,) = (await place.notifyd.approval(asked))["decisions"]
    assert (decision["actor"], decision["via"], decision["breakGlass"]) == (ALICE, "sign-in", True)


# --- what is told of it ------------------------------------------------------------------------------------


async def test_the_message_says_that_one_signs_in_and_not_that_whoever_has_the_link_decides(
    place: Place,
) -> None:
    await place.notifyd.ask()
    await place.notifyd.link(BOB)
    await until(lambda: len(place.notifyd.inbox.messages) == 2)
    said = {message.recipient: message.body for message in place.notifyd.inbox.messages}
    assert "Only you can decide: the page asks you to sign in." in said[ALICE]
    assert "Entscheiden können nur Sie: Die Seite fordert Sie auf, sich anzumelden." in said[BOB]
    assert "can decide. Please" not in said[ALICE]


async def test_a_message_warns_where_its_link_to_the_list_leads_to_what_takes_no_sign_in(
    place: Place,
) -> None:
    by_link = '[[rules]]\nname = "other"\nwhen = "false"\nchannels = ["inbox"]\nproof = "link"\nto = ["%s"]\n'
    await place.notifyd.reload(place.notifyd.text + by_link % ALICE)
    await place.notifyd.ask()
    await place.notifyd.link(BOB)
    await until(lambda: len(place.notifyd.inbox.messages) == 2)
    said = {message.recipient: message.body for message in place.notifyd.inbox.messages}
    assert "whoever has them can decide" in said[ALICE]
    assert "Entscheiden können nur Sie" in said[BOB]


async def test_audit_callback_and_receipt_tell_that_somebody_had_signed_in(
    tmp_path: Path, templates_once: None
) -> None:
    key = base64.b64encode(b"a seed of 32 bytes for receipts.").decode()
    async with provider() as running, HttpSink() as runner:
        text = config(running.url).replace(CALLBACK, runner.url)
        text = text.replace("[keys]", f'[keys]\nsign = ["whsk_{key}"]')
        async with daemon(tmp_path, text) as notifyd:
            place = Place(notifyd, running, Browser(notifyd))
            asked = await notifyd.ask(
                requiredApprovals=2, resume={"callbackUrl": f"{runner.url}/resume", "token": "rt_1"}
            )
            ack = f"/notifications/pack-approvals/{asked['runId']}/{asked['approvalId']}/ack"
            by_program = {"decision": "approved", "planHash": asked["planHash"], "actor": BOB}
            assert (await notifyd.post(ack, by_program, "task-runner")).status == 200
            path = await notifyd.link()
            assert signed_in(await place.sign_in(path))
            assert (await place.decide(path)).status == 303
            await until(lambda: runner.received)
            ways = {BOB: "client", ALICE: "sign-in"}
            assert orjson.loads(runner.received[0].body)["data"]["via"] == ways

            async def audited() -> bool:
                history = (await notifyd.approval(asked))["history"]
                records = [one for one in history if one["name"] == "pack.approval.acknowledged"]
                return {one["actor"]: one["data"]["via"] for one in records} == ways

            await until_async(audited)
            receipt = await notifyd.get(ack.removesuffix("ack") + "receipt")
    assert {one["actor"]: one["way"] for one in predicate(receipt)["decisions"]} == ways
    assert predicate(receipt)["way"] == "sign-in"


def predicate(receipt: Answer) -> Any:
    return orjson.loads(base64.b64decode(receipt.json["payload"]))["predicate"]
