"""`proof = "sign-in"`: a link shows, and only its recipient, signed in for this very plan, decides by it."""

from __future__ import annotations

import asyncio
import html
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from attrs import frozen
from joserfc import jws
from joserfc.jwk import OctKey, RSAKey

from notifyd.errors import ConfigError
from notifyd.registry import provider as at_work
from notifyd.registry import published
from notifyd.web.pages import csrf
from tests.daemon import CONFIG, Answer, Daemon, Inbox, daemon, discovered_with, settings
from tests.integration.test_web_page import ALICE, parsed, sealed, status
from tests.issuer import KEYS, jwks, key_for, part
from tests.provider import CLIENT, OUTSIDE, SECRET, Browser, OpenIdProvider, id_token, provider
from tests.waiting import until_async

MALLORY = "mallory@acme.example"
PLAN_B = "sha256:" + "b" * 64


def config(issuer: str, proof: str = '[approvals]\nproof = "sign-in"\n', more: str = "") -> str:
    oidc = f'[auth.oidc]\nissuer = "{issuer}"\nclient_id = "{CLIENT}"\nclient_secret = "{SECRET}"\n{more}\n'
    return CONFIG.replace("[auth.actors]", f"{oidc}[auth.actors]") + proof


@frozen
class Place:
    """A notifyd whose approvers sign in at `provider`, and a browser."""

    notifyd: Daemon
    provider: OpenIdProvider
    browser: Browser

    async def begin(self, path: str, comment: str = "", browser: Browser | None = None) -> str:
        """Press the button for signing in: the provider's address."""
        browser = browser or self.browser
        form = parsed(await browser.get(path)).hidden
        answer = await browser.post(path, form | {"decision": "sign-in", "comment": comment})
        assert answer.status == 200, answer.text
        refresh = answer.headers["Refresh"].removeprefix("0; url=")
        assert [named["href"] for tag, named in parsed(answer).tags if tag == "a"] == [refresh]
        return refresh

    async def sign_in(
        self, path: str, email: str = ALICE, comment: str = "", browser: Browser | None = None
    ) -> Answer:
        """The whole way there and back: what the link's page shows then."""
        browser = browser or self.browser
        back = self.provider.sign_in(await self.begin(path, comment, browser), email)
        return await self.come_back(back, path, browser)

    async def come_back(self, back: str, path: str, browser: Browser | None = None) -> Answer:
        browser = browser or self.browser
        answer = await browser.get(back.removeprefix(OUTSIDE), "cross-site")
        assert answer.status == 303, answer.text
        token, _, query = answer.headers["Location"].partition("?")
        assert f"/approvals/{token}" == path
        return await browser.get(f"{path}?{query}" if query else path, "cross-site")

    async def decide(self, path: str, browser: Browser | None = None, **form: str) -> Answer:
        browser = browser or self.browser
        hidden = parsed(await browser.get(path)).hidden
        return await browser.post(
            path, hidden | {"decision": "approved", "comment": "", "confirmed": "1"} | form
        )


@pytest.fixture
async def place(tmp_path: Path, templates_once: None) -> AsyncIterator[Place]:
    async with provider() as running, daemon(tmp_path, config(running.url)) as notifyd:
        yield Place(notifyd, running, Browser(notifyd))


def signed_out(answer: Answer) -> bool:
    """Does a page offer a sign-in, and nothing else?"""
    return set(parsed(answer).buttons) == {"sign-in"}


def signed_in(answer: Answer) -> bool:
    return parsed(answer).buttons == ["approved", "rejected"]


# --- a person's list -------------------------------------------------------------------------------------------


async def mine(place: Place) -> str:
    await place.notifyd.link()
    message = next(one for one in place.notifyd.inbox.messages if one.recipient == ALICE)
    return message.actions[-1].url.removeprefix(OUTSIDE)


async def test_a_list_shows_what_asks_for_a_sign_in_once_its_person_has_signed_in(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await mine(place)
    title = asked["message"]["title"]
    before = await place.browser.get(path)
    assert (signed_out(before), title in before.text) == (True, False)
    other = await place.sign_in(path, MALLORY)
    assert (signed_out(other), title in other.text) == (True, False)
    assert f"You are signed in as {MALLORY}." in other.text
    listed = await place.sign_in(path)
    assert (parsed(listed).buttons, title in listed.text) == (["deputy", "approved"], True)
    single = await place.browser.get(await place.notifyd.link())
    assert signed_out(single)  # the sign-in is for the list
    fields = parsed(listed)
    (item,) = (str(named["value"]) for _, named in fields.tags if named.get("name") == "item")
    form = fields.hidden | {"decision": "approved", "comment": "", "confirmed": "1", "item": item}
    elsewhere = await Browser(place.notifyd).post(path, form)  # with the link, and without the cookie
    assert (elsewhere.status, await status(place.notifyd, asked)) == (403, "pending")
    assert (await place.browser.post(path, form)).status == 200
    (recorded,) = (await place.notifyd.approval(asked))["decisions"]
    assert (recorded["actor"], recorded["via"]) == (ALICE, "sign-in")


async def test_a_list_says_that_a_sign_in_did_not_succeed(place: Place) -> None:
    await place.notifyd.ask()
    path = await mine(place)
    back = place.provider.sign_in(await place.begin(path), ALICE)
    state = parse_qs(urlsplit(back).query)["state"][0]
    refused = f"{OUTSIDE}/approvals/signed-in?" + urlencode({"state": state, "error": "access_denied"})
    answer = await place.come_back(refused, path)
    assert "The sign-in did not succeed" in answer.text


# --- the way as it is meant ------------------------------------------------------------------------------------


async def test_the_recipient_signs_in_and_decides_for_exactly_this_plan(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    before = await place.browser.get(path)
    assert signed_out(before)
    assert asked["message"]["title"] in before.text
    assert f"Only {ALICE} can decide by this link" in before.text
    assert signed_in(await place.sign_in(path))
    assert (await place.decide(path, comment="read it")).status == 303
    shown = await place.notifyd.approval(asked)
    (recorded,) = shown["decisions"]
    assert (recorded["actor"], recorded["via"], recorded["comment"]) == (ALICE, "sign-in", "read it")

    async def audited() -> bool:
        lines = (await place.notifyd.approval(asked))["history"]
        return any(line["data"].get("via") == "sign-in" and line["actor"] == ALICE for line in lines)

    await until_async(audited)


async def test_a_person_is_known_by_an_alias_too(tmp_path: Path, templates_once: None) -> None:
    async with (
        provider() as running,
        daemon(tmp_path, config(running.url, more='actor_claim = "sub"')) as notifyd,
    ):
        place = Place(notifyd, running, Browser(notifyd))
        await notifyd.ask()
        running.claims["sub"] = "00U1AB"
        assert signed_in(await place.sign_in(await notifyd.link(), MALLORY))


async def test_a_rule_asks_for_a_sign_in_where_others_do_not(tmp_path: Path, templates_once: None) -> None:
    async with provider() as running:
        text = config(running.url, proof="").replace(
            'name = "approvals"', 'name = "approvals"\nproof = "sign-in"'
        )
        async with daemon(tmp_path, text) as notifyd:
            place = Place(notifyd, running, Browser(notifyd))
            await notifyd.ask()
            path = await notifyd.link()
            assert signed_out(await place.browser.get(path))
            await notifyd.reload(text.replace('proof = "sign-in"', 'proof = "link"'))
            assert signed_in(await place.browser.get(path))


@pytest.mark.parametrize("kind", ["latin", "any letters there are"])
async def test_a_typed_comment_survives_the_sign_in(place: Place, kind: str) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    letters = random.Random(1)  # noqa: S311 - letters, not a secret
    comment = {
        "latin": "Looks good, but\nwatch <the> migration & tell Bob.",
        "any letters there are": "".join(chr(letters.randrange(0x20000, 0x2A6DF)) for _ in range(2000)),
    }[kind]
    answer = await place.sign_in(path, comment=comment)
    assert text_area(answer) == comment
    assert (await place.decide(path, comment=comment)).status == 303
    assert (await place.notifyd.approval(asked))["decisions"][0]["comment"] == comment
    assert not [name for name, _ in place.browser.cookies if "draft" in name]


def text_area(answer: Answer) -> str:
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", answer.text, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


async def test_a_sign_in_that_ended_while_the_form_was_open_loses_no_comment(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    form = parsed(await place.sign_in(path)).hidden
    place.notifyd.clock.turn(901)
    answer = await place.browser.post(path, form | {"decision": "approved", "comment": "typed slowly"})
    assert answer.status == 403
    assert "please sign in first" in answer.text
    assert signed_out(answer)
    assert text_area(answer) == "typed slowly"
    assert await status(place.notifyd, asked) == "pending"


async def test_the_provider_is_told_who_it_should_be_and_asks_anew_after_somebody_else(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    first = dict(parse_qsl(urlsplit(await place.begin(path)).query))
    assert first["login_hint"] == ALICE
    assert "prompt" not in first
    await place.sign_in(path, MALLORY)
    assert dict(parse_qsl(urlsplit(await place.begin(path)).query))["prompt"] == "login"


async def test_two_sign_ins_at_once_do_not_disturb_each_other(place: Place) -> None:
    await place.notifyd.ask()
    await place.notifyd.ask(approvalId="second", eventId="00000000-0000-4000-8000-000000000002")
    one, other = await place.notifyd.link(), await place.notifyd.link(number=1)
    first, second = await place.begin(one), await place.begin(other)
    assert signed_in(await place.come_back(place.provider.sign_in(second, ALICE), other))
    assert signed_in(await place.come_back(place.provider.sign_in(first, ALICE), one))


async def test_a_client_that_names_itself_in_the_form_does_so(place: Place) -> None:
    place.provider.description["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    await place.notifyd.ask()
    assert signed_in(await place.sign_in(await place.notifyd.link()))


async def test_without_a_sign_in_to_make_there_are_no_cookies(notifyd: Daemon) -> None:
    await notifyd.ask()
    browser, path = Browser(notifyd), await notifyd.link()
    form = parsed(await browser.get(path)).hidden
    await browser.post(path, form | {"decision": "sign-in"})
    await browser.post(path, form | {"decision": "approved"})
    assert browser.cookies == {}


# --- the provider is down, slow, or says no --------------------------------------------------------------------


async def test_a_provider_that_is_down_is_told_in_words_and_nothing_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "PAUSE", 0.0)
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    place.provider.description["issuer"] = "https://somebody.example"
    form = parsed(await place.browser.get(path)).hidden
    answer = await place.browser.post(path, form | {"decision": "sign-in", "comment": "my words"})
    assert answer.status == 503
    assert "the sign-in service does not answer" in answer.text
    assert text_area(answer) == "my words"
    del place.provider.description["issuer"]
    assert signed_in(await place.sign_in(path))
    assert await status(place.notifyd, asked) == "pending"


async def test_a_provider_that_fails_between_is_told_in_words_and_the_comment_is_kept(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    place.provider.status = 503
    answer = await place.sign_in(path, comment="my words")
    assert "the sign-in service does not answer" in answer.text
    assert signed_out(answer)
    assert text_area(answer) == "my words"


async def test_a_provider_that_is_slow_is_not_waited_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_work, "TIMEOUT", 0.2)
    await place.notifyd.ask()
    path = await place.notifyd.link()
    back = place.provider.sign_in(await place.begin(path), ALICE)
    place.provider.held.clear()
    async with asyncio.timeout(5):
        assert "the sign-in service does not answer" in (await place.come_back(back, path)).text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("access_denied", "The sign-in did not succeed"),
        ("temporarily_unavailable", "the sign-in service does not answer"),
    ],
)
async def test_a_provider_that_refuses_is_told_in_words(place: Place, error: str, told: str) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    state = parse_qs(urlsplit(await place.begin(path)).query)["state"][0]
    answer = await place.come_back(f"/approvals/signed-in?error={error}&state={state}", path)
    assert told in answer.text
    assert signed_out(answer)


async def test_a_sign_in_that_took_too_long_is_over(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    back = place.provider.sign_in(await place.begin(path), ALICE)
    place.notifyd.clock.turn(601)
    answer = await place.browser.get(back.removeprefix(OUTSIDE))
    assert (answer.status, "This sign-in is over" in answer.text) == (400, True)


# --- attacks ---------------------------------------------------------------------------------------------------


async def nothing_decided(place: Place, asked: dict[str, Any]) -> None:
    shown = await place.notifyd.approval(asked)
    assert (shown["status"], shown["decisions"]) == ("pending", [])


async def test_a_forwarded_link_decides_nothing(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    registry = place.notifyd.app.registry()
    token = path.removeprefix("/approvals/")
    for bound in (token, f"{token}/{ALICE}"):
        forged = {"csrf": csrf.issue(registry.keyring, bound, place.notifyd.clock()), "decision": "approved"}
        assert (await place.browser.post(path, forged)).status == 403
    answer = await place.sign_in(path, MALLORY)
    assert signed_out(answer)
    assert f"You are signed in as {MALLORY}. Only {ALICE} can decide" in answer.text
    assert (await place.decide(path)).status == 403
    assert (await place.decide(path, decision="rejected")).status == 403
    await nothing_decided(place, asked)


async def test_a_forwarded_link_does_not_repeat_what_its_recipient_has_decided(place: Place) -> None:
    asked = await place.notifyd.ask(requiredApprovals=2)
    path = await place.notifyd.link()
    await place.sign_in(path)
    assert (await place.decide(path)).status == 303
    stranger = Browser(place.notifyd)
    token = path.removeprefix("/approvals/")
    form = {"csrf": csrf.issue(place.notifyd.app.registry().keyring, token, place.notifyd.clock())}
    again = form | {"decision": "approved", "confirmed": "1"}
    assert (await stranger.post(path, again)).status == 403
    assert len((await place.notifyd.approval(asked))["decisions"]) == 1


async def test_an_address_that_the_provider_has_not_verified_is_nobodys(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    place.provider.claims["email_verified"] = False
    assert signed_out(await place.sign_in(path))
    assert (await place.decide(path)).status == 403
    await nothing_decided(place, asked)


async def test_a_replayed_state_is_refused(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    back = place.provider.sign_in(await place.begin(path), ALICE).removeprefix(OUTSIDE)
    kept = dict(place.browser.cookies)
    assert (await place.browser.get(back)).status == 303
    asked = len(place.provider.paths)
    assert (await place.browser.get(back)).status == 400
    assert len(place.provider.paths) == asked
    # Whoever kept the cookie too has a code that the provider has taken back.
    thief = Browser(place.notifyd, kept)
    assert (await thief.get(back)).headers["Location"].endswith("?sign_in=failed")
    assert signed_out(await thief.get(path))


async def test_a_sign_in_for_a_swapped_approval_decides_nothing(place: Place) -> None:
    await place.notifyd.ask()
    other = await place.notifyd.ask(approvalId="second", eventId="00000000-0000-4000-8000-000000000002")
    one, two = await place.notifyd.link(), await place.notifyd.link(number=1)
    await place.sign_in(one)
    swapped = Browser(place.notifyd, {(name, two): m for (name, _), m in place.browser.cookies.items()})
    assert signed_out(await swapped.get(two))
    assert (await place.decide(two, swapped)).status == 403
    await nothing_decided(place, other)


async def test_a_sign_in_for_another_round_decides_nothing(place: Place) -> None:
    asked = await place.notifyd.ask()
    path = await place.notifyd.link()
    await place.sign_in(path)
    place.notifyd.clock.turn(1)
    await place.notifyd.ask(planHash=PLAN_B, eventId="00000000-0000-4000-8000-000000000002")
    newer = await place.notifyd.link(number=1)
    moved = Browser(place.notifyd, {(name, newer): m for (name, _), m in place.browser.cookies.items()})
    assert signed_out(await moved.get(newer))
    assert (await place.decide(newer, moved)).status == 403
    same_plan = sealed(place.notifyd, asked, round=2)
    assert not parsed(await place.browser.get(same_plan)).buttons
    await nothing_decided(place, asked)


def none_alg(claims: Any) -> str:
    return f"{part({'alg': 'none'})}.{part(claims)}."


def by_public_key(claims: Any) -> str:
    """HS256 under the provider's public key, which everybody knows."""
    key = OctKey.import_key(jwks(key_for("RS256")).encode())
    return jws.serialize_compact({"alg": "HS256", "kid": "rsa"}, part(claims), key, algorithms=["HS256"])


def by_nobodys_key(claims: Any) -> str:
    return id_token(claims, key=RSAKey.generate_key(2048, {"kid": "rsa"}))


FORGED: dict[str, tuple[dict[str, Any], Callable[[Any], str] | None]] = {
    "an id token of another audience": ({"aud": "wiki"}, None),
    "an id token for another audience beside ours": ({"aud": [CLIENT, "wiki"]}, None),
    "an id token of another party": ({"azp": "wiki"}, None),
    "an id token of another issuer": ({"iss": "https://login.acme.example"}, None),
    "alg none": ({}, none_alg),
    "a symmetric key made of a public one": ({}, by_public_key),
    "a key that is not the provider's": ({}, by_nobodys_key),
    "the nonce of another sign-in": ({"nonce": "n" * 43}, None),
    "no nonce": ({"nonce": None}, None),
    "an id token that has expired": ({"exp": 1_000_000_000}, None),
    "an id token without an end": ({"exp": None}, None),
    "nobody": ({"email": None}, None),
    "a name that is none": ({"email": {"$ne": ""}}, None),
    "an answer with an id token that is none": ({}, lambda _: "none"),
}


@pytest.mark.parametrize(("claims", "sign"), FORGED.values(), ids=FORGED)
async def test_a_forged_id_token_signs_nobody_in(
    place: Place, claims: dict[str, Any], sign: Callable[[Any], str] | None
) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    place.provider.claims |= claims
    place.provider.sign = sign or place.provider.sign
    answer = await place.sign_in(path)
    assert "The sign-in did not succeed" in answer.text
    assert signed_out(answer)
    assert (await place.decide(path)).status == 403
    await nothing_decided(place, asked)


@pytest.mark.parametrize("algorithm", [*KEYS, "PS256"])
async def test_each_algorithm_that_bearers_may_have_signs_in(place: Place, algorithm: str) -> None:
    await place.notifyd.ask()
    place.provider.sign = lambda claims: id_token(claims, algorithm)
    assert signed_in(await place.sign_in(await place.notifyd.link()))


async def test_an_open_redirect_is_not_to_be_had(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    back = place.provider.sign_in(await place.begin(path), ALICE).removeprefix(OUTSIDE)
    more = urlencode(
        {"redirect_uri": "https://evil.example", "next": "//evil.example", "link": "//evil.example"}
    )
    answer = await place.browser.get(f"{back}&{more}")
    assert f"/approvals/{answer.headers['Location']}" == path
    shown = await place.browser.get(f"{path}?sign_in=//evil.example")
    assert "evil.example" not in shown.text


async def test_csrf_on_the_callback_signs_nobody_in(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    attacker, victim = Browser(place.notifyd), Browser(place.notifyd)
    back = place.provider.sign_in(await place.begin(path, browser=attacker), MALLORY).removeprefix(OUTSIDE)
    asked = len(place.provider.paths)
    assert (await victim.get(back, "cross-site")).status == 400
    own = await place.begin(path, browser=victim)
    for state in ("", "x", "é", dict(parse_qsl(urlsplit(own).query))["state"][:-1] + "x"):
        query = urlencode({"code": "code-0", "state": state})
        assert (await victim.get(f"/approvals/signed-in?{query}", "cross-site")).status == 400
    assert (await victim.get(f"{back}&{urlsplit(back).query}", "cross-site")).status == 400
    assert len(place.provider.paths) == asked
    assert victim.sent_to(path) == {}


async def test_a_form_of_another_site_decides_nothing_for_who_is_signed_in(place: Place) -> None:
    asked, path = await place.notifyd.ask(), await place.notifyd.link()
    attacker = Browser(place.notifyd)
    stolen = parsed(await attacker.get(path)).hidden
    await place.sign_in(path)
    for site in ("cross-site", "same-site", "same-origin"):
        assert (await place.browser.post(path, stolen | {"decision": "approved"}, site)).status == 403
        assert (await place.browser.post(path, stolen | {"decision": "sign-in"}, site)).status in (403, 422)
    await nothing_decided(place, asked)


async def test_a_sign_in_under_another_provider_than_the_configured_one_is_over(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    await place.sign_in(path)
    await place.notifyd.reload(place.notifyd.text.replace(place.provider.url, "https://login.acme.example"))
    assert signed_out(await place.browser.get(path))


async def test_an_answer_that_names_another_issuer_is_refused(place: Place) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    back = place.provider.sign_in(await place.begin(path), ALICE)
    assert signed_out(await place.come_back(f"{back}&iss=https%3A%2F%2Fevil.example", path))


@pytest.mark.parametrize("more", ["iss=x&iss=y", "error=a&error=b", "code=x", "x=1&x=2"])
async def test_an_answer_with_a_parameter_twice_is_refused(place: Place, more: str) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    back = place.provider.sign_in(await place.begin(path), ALICE)
    asked = len(place.provider.paths)
    assert signed_out(await place.come_back(f"{back}&{more}", path))
    assert len(place.provider.paths) == asked


async def test_neither_code_nor_secret_nor_link_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await place.notifyd.ask()
    path = await place.notifyd.link()
    place.provider.status = 500
    await place.sign_in(path)
    place.provider.status, place.provider.claims["aud"] = 200, "wiki"
    await place.sign_in(path)
    assert "a sign-in has to wait" in caplog.text
    assert "a sign-in has failed: the token is for another audience" in caplog.text
    for secret in ("code-", SECRET, path.removeprefix("/approvals/")):
        assert secret not in caplog.text


async def test_the_callback_is_open_to_every_address_and_asks_no_provider_for_a_stranger(
    tmp_path: Path, templates_once: None
) -> None:
    async with provider() as running:
        text = config(running.url).replace("[server]", '[server]\nip_allowlist = ["192.0.2.0/24"]')
        async with daemon(tmp_path, text) as notifyd:
            assert (await notifyd.get("/approvals/signed-in?code=x&state=y", None)).status == 400
            assert (await notifyd.call("HEAD", "/approvals/signed-in?code=x&state=y")).status == 404
        assert running.paths == []


# --- configuration -----------------------------------------------------------------------------------------------


def faults(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        settings(text, discovered_with([Inbox()]))
    return [(fault.pointer, fault.message) for fault in caught.value.faults]


def test_a_proof_by_sign_in_needs_a_provider() -> None:
    needs = "needs [auth.oidc]: where people sign in"
    assert faults(CONFIG + '[approvals]\nproof = "sign-in"\n') == [("approvals.proof", needs)]
    rule = CONFIG.replace('name = "approvals"', 'name = "approvals"\nproof = "sign-in"')
    assert faults(rule) == [("rules.approvals.proof", needs)]


@pytest.mark.parametrize(
    ("server", "fine"),
    [
        ('public_url = "http://notifyd.acme.example"', False),
        ('public_url = "http://127.0.0.1:8686"', True),
        ('public_url = "http://[::1]:8686"', True),
        ('public_url = "http://localhost:8686"', True),
        ('public_url = "http://localhost.evil.example"', False),
        ('public_url = "https://notifyd.acme.example/n"', True),
        ("", True),
    ],
)
def test_a_proof_by_sign_in_needs_https_but_on_this_machine(server: str, fine: bool) -> None:
    text = config("https://login.acme.example").replace(f'public_url = "{OUTSIDE}"', server)
    if fine:
        settings(text, discovered_with([Inbox()]))
    else:
        assert faults(text) == [("approvals.proof", "needs an https address in server.public_url")]


@pytest.mark.parametrize(
    ("issuer", "told"),
    [
        ("http://login.acme.example", "plain http leads to this machine only"),
        ("http://127.0.0.1.evil.example", "plain http leads to this machine only"),
        ("login.acme.example", "must be an https address"),
        ("https://user:pass@login.acme.example", "must be an https address"),
        ("https://login.acme.example#x", "must be an https address"),
        ("https://login.acme.example?x=1", "must not have a query"),
        ("ftp://login.acme.example", "must be an https address"),
        ("https://login.acme.example:99999", "must be an https address"),
    ],
)
def test_an_issuer_that_is_none_is_a_fault(issuer: str, told: str) -> None:
    ((pointer, message),) = faults(config(issuer))
    assert (pointer, told in message) == ("auth.oidc.issuer", True)
