"""The operators' console: who gets in, what they see, and that a button does what the API does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import pytest
from multidict import CIMultiDictProxy

from notifyd.errors import StoreError
from notifyd.plugin import PermanentError
from notifyd.web.auth import SESSION_COOKIES
from notifyd.web.console import overview
from tests import events
from tests.daemon import CONFIG, SECRETS, TOKENS, Answer, Daemon, bearer, daemon
from tests.integration.test_web_page import parsed
from tests.provider import CLIENT, SECRET, OpenIdProvider, provider
from tests.waiting import until, until_async

ALICE = "alice@acme.example"
CONSOLE = CONFIG + "\n[console]\nenabled = true\n"


class Browser:
    """Keeps its cookies, and says of each request where it comes from."""

    def __init__(self, notifyd: Daemon) -> None:
        self.notifyd = notifyd
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, site: str = "same-origin") -> Answer:
        return await self._call("GET", path, site)

    async def post(self, path: str, form: Mapping[str, str], site: str = "same-origin") -> Answer:
        return await self._call("POST", path, site, data=dict(form))

    async def _call(self, method: str, path: str, site: str, **more: Any) -> Answer:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"Cookie": cookie} if cookie and site != "cross-site" else {}
        answer = await self.notifyd.call(method, path, headers={"Sec-Fetch-Site": site} | sent, **more)
        for header in cast(CIMultiDictProxy[str], answer.headers).getall("Set-Cookie", []):
            name, _, value = header.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer

    async def sign_in(self, client: str = "operator", **form: str) -> Answer:
        hidden = parsed(await self.get("/console/sign-in")).hidden
        return await self.post("/console/sign-in", hidden | {"token": TOKENS[client]} | form)

    async def press(self, page: str, action: str, **form: str) -> Answer:
        """Send the form of `page` that leads to `action`."""
        return await self.post(action, parsed(await self.get(page)).hidden | form)


@pytest.fixture
async def notifyd(tmp_path: Path, templates_once: None) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path, CONSOLE) as running:
        yield running


@pytest.fixture
async def browser(notifyd: Daemon) -> Browser:
    browser = Browser(notifyd)
    assert (await browser.sign_in()).status == 303
    return browser


async def dead_one(notifyd: Daemon) -> dict[str, Any]:
    """A delivery to Alice that has been given up."""
    notifyd.inbox.fault = PermanentError("the door is shut")
    await notifyd.ask()
    found: list[dict[str, Any]] = []

    async def dead() -> bool:
        found[:] = (await notifyd.get("/api/v1/deliveries?state=dead")).json["items"]
        return len(found) == 2

    await until_async(dead)
    notifyd.inbox.fault = None
    return next(one for one in found if one["recipient"] == ALICE)


# --- who gets in -----------------------------------------------------------------------------------------------


async def test_there_is_no_console_unless_it_is_enabled(tmp_path: Path, templates_once: None) -> None:
    async with daemon(tmp_path) as notifyd:
        browser = Browser(notifyd)
        for path in ("/console/", "/console/sign-in", "/console/deliveries"):
            assert (await browser.get(path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/console/nope", 404),
        ("GET", "/console/deliveries/a/b/c", 404),
        ("GET", "/console/channels/team/test", 405),
        ("POST", "/console/audit", 405),
        ("GET", "/approvals/some/where/else", 404),
    ],
)
async def test_a_path_for_people_that_leads_nowhere_answers_a_page(
    method: str, path: str, status: int, notifyd: Daemon
) -> None:
    answer = await notifyd.call(method, path)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert (await notifyd.call(method, "/api/v1/nope")).headers["Content-Type"] == "application/problem+json"


async def test_who_is_not_signed_in_is_led_to_where_one_does_and_then_to_the_page(notifyd: Daemon) -> None:
    browser = Browser(notifyd)
    answer = await browser.get("/console/deliveries/abc")
    assert (answer.status, answer.headers["Location"]) == (303, "../sign-in?next=deliveries/abc")
    form = parsed(await browser.get("/console/sign-in?next=deliveries/abc")).hidden
    assert form["next"] == "deliveries/abc"
    assert (await browser.sign_in(next="deliveries/abc")).headers["Location"] == "./deliveries/abc"


async def test_signing_in_leads_nowhere_but_to_the_console(notifyd: Daemon) -> None:
    for elsewhere in ("//evil.example", "https://evil.example", "../x", "javascript:1", "/x", "x\r\ny"):
        assert (await Browser(notifyd).sign_in(next=elsewhere)).headers["Location"] == "./", elsewhere


async def test_a_token_signs_in_by_a_cookie_that_no_script_and_no_other_site_has(notifyd: Daemon) -> None:
    browser = Browser(notifyd)
    answer = await browser.sign_in()
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-notifyd-console=")
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=3600"} <= set(cookie.split("; "))
    assert TOKENS["operator"] not in cookie
    page = await browser.get("/console/")
    assert page.status == 200
    assert "client:operator" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"


async def test_a_token_of_nobody_or_without_the_scope_does_not_sign_in(notifyd: Daemon) -> None:
    browser = Browser(notifyd)
    wrong = await browser.sign_in(token="no-token")
    assert (wrong.status, "this is no client&#39;s API token" in wrong.text) == (401, True)
    assert "WWW-Authenticate" not in wrong.headers  # else the browser asks by a window of its own
    unfit = await browser.sign_in("task-runner")
    assert (unfit.status, "Notifier.Read" in unfit.text) == (403, True)
    assert SESSION_COOKIES[0] not in browser.cookies


async def test_guesses_of_tokens_are_bounded_and_who_is_signed_in_goes_on(
    notifyd: Daemon, browser: Browser
) -> None:
    assert (await browser.get("/console/")).status == 200
    assert (await notifyd.get("/api/v1/channels")).status == 200  # this token is known from here on
    stranger = Browser(notifyd)
    form = parsed(await stranger.get("/console/sign-in")).hidden
    guesses = (stranger.post("/console/sign-in", form | {"token": f"guess {n}"}) for n in range(150))
    assert {answer.status for answer in await asyncio.gather(*guesses)} == {401, 429}
    assert (await browser.get("/console/")).status == 200
    # Who is signed in, and bears a token that is known, guesses no faster.
    assert (await notifyd.get("/api/v1/channels")).status == 200
    sent = {"Cookie": "; ".join(f"{name}={text}" for name, text in browser.cookies.items())}
    guess = form | {"token": "another guess"}
    more = [
        notifyd.call("POST", "/console/sign-in", headers=bearer("reader") | sent, data=guess)
        for _ in range(20)
    ]
    assert 429 in {answer.status for answer in await asyncio.gather(*more)}


async def test_a_session_ends_by_itself_with_its_token_and_at_once_when_one_signs_out(
    notifyd: Daemon, browser: Browser
) -> None:
    other = Browser(notifyd)
    await other.sign_in()
    kept = dict(browser.cookies)
    assert (await browser.press("/console/", "/console/sign-out")).headers["Location"] == "./sign-in"
    browser.cookies = kept  # a copy of the cookie is worth nothing either
    assert (await browser.get("/console/")).status == 303
    assert (await other.get("/console/")).status == 200
    notifyd.clock.turn(3601)
    assert (await other.get("/console/")).status == 303


async def test_a_session_ends_when_a_reload_takes_its_token_away(notifyd: Daemon, browser: Browser) -> None:
    await notifyd.reload(notifyd.text.replace("${HASH_OPERATOR}", "sha256:" + "0" * 64))
    assert (await browser.get("/console/")).status == 303


async def test_a_cookie_that_was_changed_or_sealed_for_something_else_is_none(
    notifyd: Daemon, browser: Browser
) -> None:
    (name,) = browser.cookies
    for text in (browser.cookies[name][:-3] + "AAA", "x", notifyd.app.registry().keyring.seal("x", b"[]")):
        browser.cookies[name] = text
        assert (await browser.get("/console/")).status == 303


async def test_a_link_from_elsewhere_leads_to_the_page_once_the_browser_shows_the_session(
    browser: Browser,
) -> None:
    answer = await browser.get("/console/deliveries?state=dead", "cross-site")
    assert (answer.status, answer.headers["Refresh"]) == (200, "0; url=./deliveries?state=dead")
    assert (await browser.get("/console/deliveries?state=dead")).status == 200


# --- a person at the provider ------------------------------------------------------------------------------------


OPERATORS = f"""
[console.operators."{ALICE}"]
scopes = ["Notifier.Read", "Notifier.Operate"]
tenants = ["acme"]
"""


async def by_provider(browser: Browser, running: OpenIdProvider, email: str, wanted: str = "") -> Answer:
    """The whole way there and back: the answer that leads on from there."""
    hidden = parsed(await browser.get(f"/console/sign-in?next={wanted}")).hidden
    leaving = await browser.post("/console/sign-in", hidden | {"provider": "1"})
    back = running.sign_in(leaving.headers["Refresh"].removeprefix("0; url="), email)
    parts = urlsplit(back)
    return await browser.get(f"{parts.path}?{parts.query}")


@pytest.fixture
async def issuing() -> AsyncIterator[OpenIdProvider]:
    async with provider() as running:
        yield running


@pytest.fixture
async def with_oidc(tmp_path: Path, templates_once: None, issuing: OpenIdProvider) -> AsyncIterator[Daemon]:
    oidc = f'[auth.oidc]\nissuer = "{issuing.url}"\nclient_id = "{CLIENT}"\nclient_secret = "{SECRET}"\n'
    text = CONSOLE.replace("[auth.actors]", f"{oidc}[auth.actors]") + OPERATORS
    async with daemon(tmp_path, text) as running:
        yield running


async def test_an_operator_signs_in_at_the_provider_and_acts_by_name(
    with_oidc: Daemon, issuing: OpenIdProvider
) -> None:
    browser = Browser(with_oidc)
    answer = await by_provider(browser, issuing, "Alice@acme.example", "dead")
    assert (answer.status, answer.headers["Location"]) == (303, "../console/dead")
    cookies = cast(CIMultiDictProxy[str], answer.headers).getall("Set-Cookie")
    assert [one for one in cookies if "SameSite=Strict" in one and one.startswith(SESSION_COOKIES[0])]
    one = await dead_one(with_oidc)
    page = await browser.get("/console/dead")
    assert (page.status, ALICE in page.text) == (200, True)
    assert (await browser.press("/console/dead", f"/console/dead/{one['id']}/retry")).status == 303
    (told,) = [r for r in (await with_oidc.get("/api/v1/audit")).json["items"] if "retried" in r["name"]]
    assert (told["name"], told["actor"]) == ("delivery.retried", ALICE)
    assert told["data"] == {"deliveryId": one["id"], "channel": "inbox"}
    await with_oidc.reload(with_oidc.text.replace(OPERATORS, ""))
    assert (await browser.get("/console/")).status == 303


async def test_who_is_no_operator_does_not_get_in(with_oidc: Daemon, issuing: OpenIdProvider) -> None:
    browser = Browser(with_oidc)
    answer = await by_provider(browser, issuing, "mallory@acme.example")
    location = answer.headers["Location"]
    assert dict(parse_qsl(urlsplit(location).query)) == {"sign_in": "failed"}
    assert "is no operator" in (await browser.get(location.removeprefix(".."))).text
    assert (await browser.get("/console/")).status == 303


# --- what they see -----------------------------------------------------------------------------------------------


async def test_the_first_page_says_that_nothing_is_wrong_and_then_what_is(
    notifyd: Daemon, browser: Browser
) -> None:
    assert "Nothing is wrong now" in (await browser.get("/console/")).text
    await dead_one(notifyd)
    page = (await browser.get("/console/")).text
    assert "1 thing is wrong now" in page
    assert page.index("Dead letters", page.index("<table")) < page.index("Readiness")
    refused = notifyd.text.replace("enabled = true", "enabled = 1")
    with pytest.raises(AssertionError):
        await notifyd.reload(refused)
    page = (await browser.get("/console/")).text
    assert "2 things are wrong now" in page
    assert "console.enabled" in page


async def test_the_first_page_is_shown_though_the_store_fails_or_hangs(
    notifyd: Daemon, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreError("the disk is gone")

    async def hangs(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(overview, "PATIENCE", 0.1)
    for step, how in {"incidents": fails, "with_dead_effects": hangs}.items():
        monkeypatch.setattr(type(notifyd.app._store), step, how, raising=False)
    page = await browser.get("/console/")
    assert page.status == 200
    for told in ("cannot be told: the disk is gone", "cannot be told: no answer in"):
        assert told in page.text


async def test_deliveries_are_listed_filtered_and_shown_with_their_attempts(
    notifyd: Daemon, browser: Browser
) -> None:
    one = await dead_one(notifyd)
    listed = await browser.get("/console/deliveries?state=dead&channel=")
    assert one["id"] in listed.text
    assert one["id"] not in (await browser.get("/console/deliveries?state=sent")).text
    assert (await browser.get("/console/deliveries?state=none")).status == 400
    page = await browser.get(f"/console/deliveries/{one['id']}")
    assert "the door is shut" in page.text
    assert (await browser.get("/console/deliveries/unknown")).status == 404


async def test_a_list_goes_on_behind_its_last_line(notifyd: Daemon, browser: Browser) -> None:
    await dead_one(notifyd)
    first = await browser.get("/console/deliveries?state=dead&limit=1")
    more = re.search(r'href="(\?[^"]*cursor=[^"]*)"', first.text)
    assert more is not None
    second = await browser.get("/console/deliveries" + more[1].replace("&amp;", "&"))
    assert second.status == 200
    ids = [re.findall(r"deliveries/([0-9a-f]{64})", page.text) for page in (first, second)]
    assert ids[0] != ids[1]


async def test_a_tenants_operator_sees_and_retries_nothing_of_another(notifyd: Daemon) -> None:
    one = await dead_one(notifyd)
    outsider = Browser(notifyd)
    await outsider.sign_in("outsider")
    for path in ("/console/", "/console/deliveries", "/console/dead"):
        page = (await outsider.get(path)).text
        assert one["id"] not in page
        assert one["runId"] not in page
    assert "Nothing is wrong now" in (await outsider.get("/console/")).text
    assert (await outsider.get(f"/console/deliveries/{one['id']}")).status == 404
    retried = await outsider.press("/console/dead", f"/console/dead/{one['id']}/retry")
    assert retried.status == 404


async def test_an_operator_of_several_tenants_looks_at_one_at_a_time(
    notifyd: Daemon, browser: Browser
) -> None:
    one = await dead_one(notifyd)
    assert one["id"] in (await browser.get("/console/dead")).text
    await browser.press("/console/", "/console/tenant", tenant="globex")
    assert one["id"] not in (await browser.get("/console/dead")).text
    await browser.press("/console/", "/console/tenant", tenant="unknown")
    assert one["id"] not in (await browser.get("/console/dead")).text


# --- what they do ------------------------------------------------------------------------------------------------


async def test_retry_sends_a_dead_delivery_again_and_says_so(notifyd: Daemon, browser: Browser) -> None:
    one = await dead_one(notifyd)
    answer = await browser.press("/console/dead", f"/console/dead/{one['id']}/retry")
    assert (answer.status, answer.headers["Location"]) == (303, "../../dead?done=retried")
    assert "It is tried again." in (await browser.get("/console/dead?done=retried")).text
    await until(lambda: [message.recipient for message in notifyd.inbox.messages] == [ALICE])
    again = await browser.press("/console/dead", f"/console/dead/{one['id']}/retry")
    assert (again.status, "not dead" in again.text) == (409, True)


async def test_who_may_only_read_has_no_button_and_is_refused(notifyd: Daemon) -> None:
    one = await dead_one(notifyd)
    reader = Browser(notifyd)
    await reader.sign_in("reader")
    page = await reader.get("/console/dead")
    assert (one["id"] in page.text, "/retry" in page.text) == (True, False)
    assert (await reader.press("/console/dead", f"/console/dead/{one['id']}/retry")).status == 403


async def test_a_form_from_elsewhere_or_of_another_session_does_nothing(
    notifyd: Daemon, browser: Browser
) -> None:
    one = await dead_one(notifyd)
    path = f"/console/dead/{one['id']}/retry"
    form = parsed(await browser.get("/console/dead")).hidden
    assert (await browser.post(path, {})).status == 403
    assert (await browser.post(path, form, "same-site")).status == 403
    assert (await browser.post(path, form, "cross-site")).status == 303  # without the cookie: to the sign-in
    other = Browser(notifyd)
    await other.sign_in()
    assert (await other.post(path, form)).status == 403
    assert (await notifyd.get(f"/api/v1/deliveries/{one['id']}")).json["state"] == "dead"
    assert notifyd.inbox.messages == []


# --- approvals, incidents, the audit trail -----------------------------------------------------------------------


async def test_an_approval_is_shown_with_its_decisions_and_history_and_without_its_token(
    notifyd: Daemon, browser: Browser
) -> None:
    asked = await notifyd.ask(message={"title": "Deploy <b>now</b>", "summary": "It\nis time."})
    listed = await browser.get("/console/approvals?status=pending")
    where = f"approvals/{asked['runId']}/{asked['approvalId']}"
    assert f'href="{where}"' in listed.text
    assert "Deploy &lt;b&gt;now&lt;/b&gt;" in listed.text
    assert asked["runId"] not in (await browser.get("/console/approvals?status=rejected")).text
    ballot = {name: asked[name] for name in ("tenant", "runId", "approvalId", "planHash")}
    ballot |= {"decision": "rejected", "actor": ALICE, "comment": "Not before the audit."}
    path = "/notifications/pack-approvals/{runId}/{approvalId}/ack".format_map(asked)
    assert (await notifyd.signed(path, ballot)).status == 200
    page = (await browser.get(f"/console/{where}")).text
    for text in ("Not before the audit.", ALICE, asked["planHash"], "pack.approval.requested"):
        assert text in page, text
    assert asked["resume"]["token"] not in page
    assert (await browser.get(f"/console/approvals/{asked['runId']}/other")).status == 404


async def test_an_open_incident_is_told_on_the_first_page_and_listed(
    notifyd: Daemon, browser: Browser
) -> None:
    hold = events.held(at=notifyd.clock())
    assert (await notifyd.signed("/notifications/pack-approvals", hold)).status == 202
    overview = (await browser.get("/console/")).text
    assert "1 thing is wrong now" in overview
    page = (await browser.get("/console/incidents?open=true&runId=")).text
    assert hold["policy"]["id"] in page
    assert hold["policy"]["id"] not in (await browser.get("/console/incidents?open=false")).text


async def test_the_audit_trail_of_no_tenant_is_for_operators(notifyd: Daemon, browser: Browser) -> None:
    await Browser(notifyd).sign_in(token="a guess")

    async def told() -> bool:
        page = await browser.get("/console/audit?untenanted=true")
        return page.status == 200 and "auth.refused" in page.text

    await until_async(told)
    assert "auth.refused" not in (await browser.get("/console/audit?runId=")).text
    reader = Browser(notifyd)
    await reader.sign_in("reader")
    assert (await reader.get("/console/audit?untenanted=true")).status == 403


async def test_no_list_shows_another_tenants(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    hold = events.held(at=notifyd.clock())
    await notifyd.signed("/notifications/pack-approvals", hold)
    outsider = Browser(notifyd)
    await outsider.sign_in("outsider")
    for path in ("approvals", "incidents", "audit", "silences"):
        page = await outsider.get(f"/console/{path}")
        assert (page.status, asked["runId"] in page.text, hold["runId"] in page.text) == (200, False, False)
    page = await outsider.get(f"/console/approvals/{asked['runId']}/{asked['approvalId']}")
    assert page.status == 404


# --- silences ----------------------------------------------------------------------------------------------------


async def test_a_silence_is_added_listed_and_expired_under_the_operators_name(
    notifyd: Daemon, browser: Browser
) -> None:
    form = {"when": 'event.kind == "task.done"', "reason": "maintenance of zrh-1", "for": "90m"}
    answer = await browser.press("/console/silences", "/console/silences", **form)
    assert (answer.status, answer.headers["Location"]) == (303, "./silences?done=silenced")
    (told,) = (await notifyd.get("/api/v1/silences")).json["items"]
    assert (told["reason"], told["author"], told["approvals"]) == (form["reason"], "client:operator", False)
    page = (await browser.get("/console/silences?done=silenced")).text
    assert "The silence is set." in page
    assert form["reason"] in page
    assert "Silences in force" in (await browser.get("/console/")).text
    await browser.press("/console/silences", f"/console/silences/{told['id']}/expire")
    (ended,) = (await notifyd.get("/api/v1/silences")).json["items"]
    assert (ended["state"], ended["endedBy"]) == ("over", "client:operator")


async def test_a_silence_that_cannot_be_is_told_with_every_fault_and_what_was_typed(browser: Browser) -> None:
    form = {"when": "event.x ==", "reason": " ", "for": "2h", "approvals": "1"}
    page = await browser.press("/console/silences", "/console/silences", **form)
    assert page.status == 422
    assert "event.x ==</textarea>" in page.text
    assert "What it holds: " in page.text
    assert "Why: must be a text" in page.text
    assert " checked" in page.text
    for wrong in ({"for": "soon"}, {"from": "soon"}):
        page = await browser.press("/console/silences", "/console/silences", **form | wrong)
        assert (page.status, "soon" in page.text) == (422, True)


async def test_a_maintenance_window_begins_when_the_browser_says_in_utc(
    notifyd: Daemon, browser: Browser
) -> None:
    form = {"when": "true", "reason": "window", "for": "1h", "from": "2030-01-02T03:04"}
    notifyd.clock.turn(datetime(2030, 1, 1, tzinfo=UTC).timestamp() - time.time())
    await browser.sign_in()
    assert (await browser.press("/console/silences", "/console/silences", **form)).status == 303
    (told,) = (await notifyd.get("/api/v1/silences")).json["items"]
    assert (told["startsAt"][:16], told["endsAt"][:16]) == ("2030-01-02T03:04", "2030-01-02T04:04")


# --- channels, and the configuration -----------------------------------------------------------------------------


async def test_a_channel_is_tested_or_tells_in_its_own_words_why_not(
    notifyd: Daemon, browser: Browser
) -> None:
    test = "/console/channels/inbox/test"
    page = (await browser.get("/console/channels")).text
    assert test.removeprefix("/console/") in page
    sent = await browser.press("/console/channels", test, recipient=ALICE)
    assert (sent.status, sent.headers["Location"]) == (303, "../../channels?done=tested")
    assert [one.recipient for one in notifyd.inbox.messages] == [ALICE]
    notifyd.inbox.fault = PermanentError("the door is shut")
    failed = await browser.press("/console/channels", test, recipient=ALICE)
    assert (failed.status, "the door is shut" in failed.text) == (502, True)
    nobody = await browser.press("/console/channels", test, recipient=" ")
    assert (nobody.status, "writes to a person" in nobody.text) == (422, True)
    assert (await browser.press("/console/channels", "/console/channels/x/test")).status == 404
    told = (await notifyd.get("/api/v1/audit?untenanted=true", "operator", X_Notifyd_Tenant="acme")).json
    tests = [(one["actor"], one["data"]) for one in told["items"] if one["name"] == "channel.tested"]
    outcomes = [{"channel": "inbox", "outcome": outcome} for outcome in ("permanent", "sent")]
    assert tests == [("client:operator", one) for one in outcomes]


async def test_the_configuration_is_for_operators_of_all_tenants_that_it_names_and_shows_no_secret(
    notifyd: Daemon, browser: Browser
) -> None:
    page = await browser.get("/console/configuration")
    assert page.status == 200
    assert "[auth.clients.outsider]" in page.text
    for secret in SECRETS.values():
        assert secret.reveal() not in page.text
    assert "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" not in page.text
    for client in ("reader", "outsider"):
        other = Browser(notifyd)
        await other.sign_in(client)
        assert (await other.get("/console/configuration")).status == 403


async def test_the_configuration_tells_what_the_last_reload_changed_and_why_one_was_refused(
    notifyd: Daemon, browser: Browser
) -> None:
    assert "There was none since the start." in (await browser.get("/console/configuration")).text
    await notifyd.reload(notifyd.text.replace('locale = "de-CH"', 'locale = "fr-CH"'))
    page = (await browser.get("/console/configuration")).text
    assert "~ recipients." in page
    assert "-locale = &#34;de-CH&#34;" in page
    assert "+locale = &#34;fr-CH&#34;" in page
    with pytest.raises(AssertionError):
        await notifyd.reload(notifyd.text.replace("enabled = true", "enabled = 1"))
    page = (await browser.get("/console/configuration")).text
    assert "console.enabled" in page
    assert "+locale = &#34;fr-CH&#34;" in page


# --- pages that keep themselves up to date -----------------------------------------------------------------------


async def test_only_its_own_script_may_run_on_a_page_that_keeps_itself_up_to_date(browser: Browser) -> None:
    page = await browser.get("/console/")
    script = re.search(r'<script type="module">(.*?)</script>', page.text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"]
    assert f"script-src 'sha256-{digest}'; connect-src 'self'; " in policy
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    still = await browser.get("/console/configuration")
    assert "<script" not in still.text
    assert "script-src" not in still.headers["Content-Security-Policy"]
