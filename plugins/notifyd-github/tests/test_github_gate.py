"""The github gate: under notifyd's conformance kit, what it asks, and what it makes of GitHub's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from notifyd_github import GithubConfig, notifyd_resume_forwarders
from notifyd_github.asked import COMMENT_LIMIT, Waiting, answer, escape, event, is_told, waiting
from notifyd_github.gate import GithubGate

from notifyd.plugin import (
    SECOND,
    InboundRequest,
    InboundResponse,
    Message,
    PermanentError,
    Reaction,
    ReactionReply,
    Reason,
    Secret,
    TransientError,
)
from notifyd.testing import NOW, GateConformance, Receiver, Reply, opened, sample_end
from tests.github_api import (
    APP_ID,
    INSTALLATION,
    REPOSITORY,
    RUN,
    WEBHOOK_SECRET,
    GithubApi,
    payload,
    pem,
    webhook,
)

(GITHUB,) = notifyd_resume_forwarders()
ASKS = Waiting(REPOSITORY, RUN, "production", INSTALLATION)
SENT = NOW / SECOND - 60


def config(url: str = "https://api.github.com", **changes: Any) -> GithubConfig:
    given: dict[str, Any] = {
        "app_id": APP_ID,
        "private_key": Secret(pem()),
        "webhook_secrets": (Secret(WEBHOOK_SECRET),),
        "api_url": Secret(url),
    }
    return GithubConfig(**given | changes)


class TestGithub(GateConformance):
    channel_type = GITHUB
    message = sample_end(ASKS.kept())

    def config(self, url: str) -> GithubConfig:
        return config(url)

    def receiver(self) -> AbstractAsyncContextManager[Receiver]:
        return cast(AbstractAsyncContextManager[Receiver], Lenient(lambda: NOW / SECOND))

    def call(self) -> tuple[Mapping[str, str], bytes]:
        return webhook(payload(SENT))


class Lenient(GithubApi):
    """Takes an answer to the same run as often as it comes."""

    async def choose(self, received: Any) -> Reply:
        self.decided.clear()
        return await super().choose(received)


@asynccontextmanager
async def at_work(**changes: Any) -> AsyncIterator[tuple[GithubApi, GithubGate]]:
    async with GithubApi(lambda: NOW / SECOND) as api, opened(GITHUB, config(api.url, **changes)) as gate:
        yield api, cast(GithubGate, gate)


# --- what GitHub asks ---------------------------------------------------------------------------------------


async def nobody(reaction: Reaction) -> ReactionReply:
    raise AssertionError(f"nobody reacted: {reaction}")


async def called(
    gate: GithubGate, headers: Mapping[str, str], body: bytes
) -> tuple[InboundResponse, list[Mapping[str, Any]]]:
    asked: list[Mapping[str, Any]] = []

    async def ask(event: Mapping[str, Any]) -> None:
        asked.append(event)

    return await gate.receive(InboundRequest(headers, "", body, nobody, ask)), asked


async def test_a_waiting_job_asks_with_what_its_readers_and_rules_need() -> None:
    async with at_work() as (_, gate):
        response, (asked,) = await called(gate, *webhook(payload(SENT)))
    assert response.status == 202
    assert asked["runId"] == f"under-test:{RUN}"
    assert (asked["approvalId"], asked["packId"]) == ("deployment:1127", "acme/payments")
    assert (asked["requestedBy"], asked["occurredAt"]) == ("github:octocat", "2026-09-21T14:12:20Z")
    assert asked["labels"] == {"environment": "production", "repository": "acme/payments", "ref": "main"}
    assert asked["links"] == [{"rel": "run", "href": f"https://github.com/acme/payments/actions/runs/{RUN}"}]
    assert Waiting.read(asked["resume"]["token"]) == ASKS


@pytest.mark.parametrize(
    "changes",
    [
        {"x-hub-signature-256": ""},
        {"x-hub-signature-256": "sha256=" + "0" * 64},
        {"x-hub-signature-256": "sha256=\udcfc\u00fc"},
        {"x-hub-signature-256": "sha1=" + "0" * 40},
    ],
)
async def test_a_call_that_its_signature_does_not_cover_asks_nothing(changes: dict[str, str]) -> None:
    headers, body = webhook(payload(SENT))
    async with at_work() as (_, gate):
        response, asked = await called(gate, headers | changes, body)
    assert (response.status, asked) == (401, [])


async def test_while_the_secret_changes_the_old_one_and_the_new_are_taken_and_no_other() -> None:
    secrets = (Secret("the new one"), Secret("the old one"))
    async with at_work(webhook_secrets=secrets) as (_, gate):
        statuses = [
            (await called(gate, *webhook(payload(SENT), secret)))[0].status
            for secret in ("the new one", "the old one", "another", "")
        ]
    assert statuses == [202, 202, 401, 401]


async def test_a_delivery_under_another_id_is_the_same_event_for_nothing_signs_its_id() -> None:
    headers, body = webhook(payload(SENT))
    async with at_work() as (_, gate):
        (first,), (again,) = [
            (await called(gate, headers | {"x-github-delivery": name}, body))[1] for name in ("one", "two")
        ]
    assert first == again


@pytest.mark.parametrize(
    ("event", "changes", "status"),
    [
        ("ping", {}, 200),
        ("deployment", {}, 202),
        ("", {}, 202),
        ("deployment_protection_rule", {"action": "else"}, 202),
    ],
)
async def test_other_events_are_taken_and_ask_nothing(
    event: str, changes: dict[str, Any], status: int
) -> None:
    async with at_work() as (_, gate):
        response, asked = await called(gate, *webhook(payload(SENT, **changes), event=event))
    assert (response.status, asked) == (status, [])


async def test_only_the_repositories_that_are_named_may_ask(caplog: pytest.LogCaptureFixture) -> None:
    for names, status in ((("acme/*",), 202), (("ACME/Payments",), 202), (("acme/pay", "other/*"), 403)):
        async with at_work(repositories=names) as (_, gate):
            response, asked = await called(gate, *webhook(payload(SENT)))
        assert (response.status, len(asked)) == (status, status == 202)
    assert "acme/payments" in caplog.text


BROKEN: tuple[tuple[dict[str, Any], str], ...] = (
    ({"deployment_callback_url": None}, "deployment_callback_url"),
    ({"deployment_callback_url": "https://evil.example/"}, "deployment_callback_url"),
    (
        {"deployment_callback_url": "https://x/repos/acme/other/actions/runs/1/deployment_protection_rule"},
        "not that of a run of this repository",
    ),
    ({"repository": {"full_name": "../.."}}, "OWNER/NAME"),
    ({"repository": {"full_name": "acme/.."}}, "OWNER/NAME"),
    ({"repository": {"full_name": "acme/a b"}}, "OWNER/NAME"),
    ({"repository": []}, "repository.full_name"),
    ({"installation": {"id": "4711"}}, "installation.id"),
    ({"installation": {"id": True}}, "installation.id"),
    ({"installation": None}, "installation.id"),
    ({"environment": ""}, "environment"),
    ({"environment": "e" * 256}, "environment"),
    ({"deployment": {}}, "deployment"),
    ({"sender": None}, "sender.login"),
)


async def test_a_payload_that_cannot_be_used_is_refused_with_the_member() -> None:
    async with at_work() as (_, gate):
        for changes, fault in BROKEN:
            response, asked = await called(gate, *webhook(payload(SENT, **changes)))
            assert (response.status, asked) == (422, []), changes
            assert fault in response.body
        for body in (b"payload=%7B%7D", b"[]", b"[" * 100_000, b"\xff"):
            response, asked = await called(gate, *webhook(body))
            assert (response.status, asked) == (422, [])


def test_an_address_in_the_payload_is_never_called() -> None:
    elsewhere = f"https://evil.example/repos/{REPOSITORY}/actions/runs/7/deployment_protection_rule"
    asks = waiting(payload(SENT, deployment_callback_url=elsewhere))
    assert asks.path == f"/repos/{REPOSITORY}/actions/runs/7/deployment_protection_rule"


def test_what_is_to_be_approved_is_the_commit_of_a_deployment() -> None:
    document = payload(SENT)
    other = document | {"deployment": document["deployment"] | {"sha": "0" * 40}}
    hashes = {event(one, b"", "gate")["planHash"] for one in (document, other)}
    assert len(hashes) == 2


# --- what GitHub is told ------------------------------------------------------------------------------------


def told(**data: Any) -> dict[str, str]:
    return answer(json.loads(sample_end("", **data).body)["data"], ASKS)


@pytest.mark.parametrize(
    ("data", "state", "comment"),
    [
        ({"comment": ""}, "approved", "Approved by alice@\u2060acme.example"),
        (
            {"actors": ["alice", "bob"], "onBehalfOf": {"bob": "carol"}, "comment": "go"},
            "approved",
            "Approved by alice, bob for carol: go",
        ),
        (
            {"actors": ["alice"], "breakGlass": True, "comment": "prod is down"},
            "approved",
            "Approved by alice, past all others (break-glass): prod is down",
        ),
        (
            {"decision": "rejected", "actors": ["bob"], "comment": "not\non Fridays"},
            "rejected",
            "Rejected by bob: not on Fridays",
        ),
        (
            {"decision": "expired", "actors": [], "comment": ""},
            "rejected",
            "Rejected: nobody decided until 2026-09-21T14:10:00Z, when the request expired.",
        ),
    ],
)
def test_each_end_is_told_in_words(data: dict[str, Any], state: str, comment: str) -> None:
    assert told(**data) == {"environment_name": "production", "state": state, "comment": comment}


def test_a_comment_is_no_markdown_mentions_nobody_and_is_as_long_as_github_takes() -> None:
    assert escape("**a** [b](c) <i> &amp; `d`") == r"\*\*a\*\* \[b\](c) \<i\> \&amp; \`d\`"
    assert escape("@acme/ops #12 a @ b") == "@\u2060acme/ops #\u206012 a @ b"
    long = told(comment="*word* " * 500)["comment"]
    assert len(long) <= COMMENT_LIMIT
    assert long.endswith("…")


async def test_an_answer_is_posted_with_a_token_that_is_made_once_for_many() -> None:
    async with at_work() as (api, gate):
        for run in (1, 2, 3):
            await gate.send(sample_end(Waiting(REPOSITORY, run, "production", INSTALLATION).kept()))
        assert [run for run, _ in api.decided] == [1, 2, 3]
        assert api.made == 1


async def test_a_token_is_made_anew_shortly_before_its_end() -> None:
    now = [NOW]
    async with (
        GithubApi(lambda: now[0] / SECOND) as api,
        opened(GITHUB, config(api.url), clock=lambda: now[0]) as gate,
    ):
        for run, minutes in enumerate((0, 54, 2), 1):
            now[0] += minutes * 60 * SECOND
            await gate.send(sample_end(Waiting(REPOSITORY, run, "production", INSTALLATION).kept()))
        assert api.made == 2


async def test_a_kept_token_that_was_revoked_is_made_anew_at_the_next_attempt() -> None:
    async with at_work() as (api, gate):
        await gate.send(sample_end(ASKS.kept()))
        api.decided.clear()
        api.revoke()
        with pytest.raises(TransientError):
            await gate.send(sample_end(ASKS.kept()))
        await gate.send(sample_end(ASKS.kept()))
        assert (len(api.decided), api.made) == (1, 2)


REFUSALS: tuple[tuple[Reply, type[Exception], Reason, float | None], ...] = (
    (Reply(401, '{"message": "Bad credentials"}'), PermanentError, Reason.UNAUTHORIZED, None),
    (Reply(403, '{"message": "Resource not accessible"}'), PermanentError, Reason.UNAUTHORIZED, None),
    (Reply(403, '{"message": "slow"}', {"Retry-After": "9"}), TransientError, Reason.THROTTLED, 9.0),
    (Reply(403, '{"message": "secondary rate limit"}'), TransientError, Reason.THROTTLED, 60.0),
    (
        Reply(429, "", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}),
        TransientError,
        Reason.THROTTLED,
        0.0,
    ),
    (Reply(404, '{"message": "Not Found"}'), PermanentError, Reason.NOT_FOUND, None),
    (Reply(422, '{"message": "nothing waits"}'), PermanentError, Reason.REJECTED, None),
    (Reply(502), TransientError, Reason.SERVER_ERROR, None),
)


@pytest.mark.parametrize("of_token", [False, True])
async def test_each_refusal_has_its_verdict_of_an_answer_and_of_a_token(of_token: bool) -> None:
    async with at_work() as (api, gate):
        for reply, verdict, reason, wait in REFUSALS:
            if of_token:
                api.token_reply = reply
            else:
                api.reply = reply
                await gate._app.forget(INSTALLATION)
            with pytest.raises(verdict) as caught:
                await gate.send(sample_end(ASKS.kept()))
            error: Any = caught.value
            assert (error.reason, getattr(error, "retry_after", None)) == (reason, wait), reply


async def test_a_token_that_is_none_is_worth_another_try_and_is_not_kept() -> None:
    async with at_work() as (api, gate):
        for body in ("", "{}", '{"token": ""}', '{"token": "g\\u00fc"}'):
            api.token_reply = Reply(201, body)
            with pytest.raises(TransientError):
                await gate.send(sample_end(ASKS.kept()))
        api.token_reply = None
        await gate.send(sample_end(ASKS.kept()))
        assert len(api.decided) == 1


async def test_an_answer_that_was_taken_although_nobody_heard_so_is_found_in_the_runs_history() -> None:
    async with at_work() as (api, gate):
        api.losing = True
        with pytest.raises(TransientError):
            await gate.send(sample_end(ASKS.kept()))
        receipt = await gate.send(sample_end(ASKS.kept()))
        assert receipt.detail == "an earlier attempt has told it"
        with pytest.raises(PermanentError) as other:
            await gate.send(sample_end(ASKS.kept(), decision="rejected"))
        assert (other.value.reason, len(api.decided)) == (Reason.REJECTED, 1)


@pytest.mark.parametrize(
    "reviews", [[], [None], [{}], [{"state": "approved", "comment": "c"}], [{"environments": [1, {}]}]]
)
def test_a_history_of_another_shape_tells_nothing(reviews: list[Any]) -> None:
    assert not is_told(reviews, {"environment_name": "production", "state": "approved", "comment": "c"})


async def test_no_refusal_shows_a_token_or_the_key() -> None:
    async with at_work() as (api, gate):
        api.reply = Reply(400, lambda received: received.echo())
        with pytest.raises(PermanentError) as refused:
            await gate.send(sample_end(ASKS.kept()))
        await gate._app.forget(INSTALLATION)
        api.token_reply = Reply(400, lambda received: received.echo())
        with pytest.raises(PermanentError) as unmade:
            await gate.send(sample_end(ASKS.kept()))
    for error in (refused.value, unmade.value):
        assert "Bearer" not in repr(vars(error)) or "***" in repr(vars(error))
        assert "ghs_" not in repr(vars(error))
        assert "eyJ" not in repr(vars(error))


async def test_the_egress_guard_holds_for_the_api_too() -> None:
    class RefusedError(OSError):
        egress_refused = True

    def no_socket(_info: Any) -> Any:
        raise RefusedError

    async with GithubApi() as api:
        connector = aiohttp.TCPConnector(socket_factory=no_socket)
        http = aiohttp.ClientSession(connector=connector)
        async with opened(GITHUB, config(api.url), http=http) as gate:
            with pytest.raises(TransientError) as caught:
                await gate.send(Message(id="a", title="", body=sample_end(ASKS.kept()).body))
    assert caught.value.reason is Reason.EGRESS_REFUSED


# --- the options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"app_id": ""}, "GitHub App"),
        ({"app_id": "a b"}, "GitHub App"),
        ({"private_key": Secret("MIIE-no-key")}, "RSA private key"),
        (
            {"private_key": Secret("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----")},
            "RSA private",
        ),
        ({"webhook_secrets": ()}, "at least one secret"),
        ({"webhook_secrets": (Secret("a"), Secret(""))}, "at least one secret"),
        ({"api_url": Secret("ftp://x")}, "http or https"),
    ],
)
def test_an_option_that_is_wrong_is_told_without_its_secret(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        config(**changes)
    assert "MIIE" not in str(caught.value)
