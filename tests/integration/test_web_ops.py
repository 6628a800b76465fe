"""What operators see over HTTP: the ledger, channels, the audit trail, metrics and health."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from notifyd.plugin import PermanentError, TransientError
from notifyd.web import create_app, pages
from tests.daemon import SECRETS, TOKENS, Answer, Daemon, until


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    return answer.status, answer.json["code"]


async def listed(notifyd: Daemon, path: str, enough: int = 1) -> list[Any]:
    """The items of a list, once there are enough."""
    async with asyncio.timeout(10):
        while True:
            items: list[Any] = (await notifyd.get(path)).json["items"]
            if len(items) >= enough:
                return items


# --- the ledger --------------------------------------------------------------------------------------------


async def test_a_delivery_is_listed_without_body_link_or_token(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    link = await notifyd.link()
    rows = await listed(notifyd, "/api/v1/deliveries?state=sent&channel=inbox", 2)
    assert {row["recipient"] for row in rows} == {"alice@acme.example", "bob@acme.example"}
    row = rows[0]
    assert (row["rule"], row["kind"], row["action"]) == ("approvals", "pack.approval", "requested")
    assert (row["runId"], row["approvalId"], row["seq"]) == (asked["runId"], asked["approvalId"], 1)
    assert [attempt["outcome"] for attempt in row["attempts"]] == ["sent"]
    assert (row["nextAttemptAt"], row["reason"]) == (None, None)
    one = await notifyd.get(f"/api/v1/deliveries/{row['id']}")
    assert one.json == row
    for hidden in (link, asked["resume"]["token"], asked["message"]["summary"]):
        assert hidden not in one.text


async def test_another_tenants_delivery_is_not_found_nor_retried(notifyd: Daemon) -> None:
    await notifyd.ask()
    (row, *_) = await listed(notifyd, "/api/v1/deliveries")
    assert problem(await notifyd.get(f"/api/v1/deliveries/{row['id']}", "outsider")) == (404, "not_found")
    retry = await notifyd.post(f"/api/v1/deliveries/{row['id']}/retry", None, "outsider")
    assert problem(retry) == (404, "not_found")


async def test_a_dead_delivery_is_retried_by_hand_and_no_other(notifyd: Daemon) -> None:
    notifyd.inbox.fault = PermanentError("no such mailbox")
    await notifyd.ask()
    (row, *_) = await listed(notifyd, "/api/v1/deliveries?state=dead", 2)
    assert row["reason"] == "rejected"
    notifyd.inbox.fault = None
    path = f"/api/v1/deliveries/{row['id']}/retry"
    assert problem(await notifyd.post(path, None, "reader")) == (403, "scope_missing")
    revived = await notifyd.post(path, None, "operator", X_Notifyd_Tenant="acme")
    assert (revived.status, revived.json["state"], revived.json["tries"]) == (200, "pending", 0)
    (sent,) = await listed(notifyd, "/api/v1/deliveries?state=sent")
    assert sent["id"] == row["id"]
    again = await notifyd.post(path, None, "operator", X_Notifyd_Tenant="acme")
    assert problem(again) == (409, "not_retryable")


async def test_a_delivery_that_waits_for_a_channel_which_is_gone_says_so(notifyd: Daemon) -> None:
    notifyd.inbox.fault = TransientError("not now")
    await notifyd.ask()
    await listed(notifyd, "/api/v1/deliveries?state=pending", 2)
    moved = notifyd.text.replace("[channels.inbox]", "[channels.mailbox]").replace('["inbox"]', '["mailbox"]')
    await notifyd.reload(moved)
    (row, *_) = await listed(notifyd, "/api/v1/deliveries?state=pending", 2)
    assert (row["channel"], row["reason"]) == ("inbox", "channel_missing")
    assert row["nextAttemptAt"] is not None


# --- channels ----------------------------------------------------------------------------------------------


async def test_channels_are_listed_by_name_and_type_without_notifyds_own(notifyd: Daemon) -> None:
    answer = await notifyd.get("/api/v1/channels", "operator")
    assert [(item["name"], item["type"]) for item in answer.json["items"]] == [("inbox", "inbox")]
    assert problem(await notifyd.get("/api/v1/channels", None)) == (401, "unauthenticated")


# --- the audit trail ---------------------------------------------------------------------------------------


async def test_the_audit_trail_is_filtered_by_tenant_and_run(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    await notifyd.ask(runId="run-0043")
    rows = await listed(notifyd, f"/api/v1/audit?runId={asked['runId']}", 3)
    assert {row["runId"] for row in rows} == {"run-0042"}
    assert {row["name"] for row in rows} == {"pack.approval.requested", "notification.sent"}
    assert (await notifyd.get("/api/v1/audit", "outsider")).json["items"] == []


async def test_a_refused_call_of_a_known_client_is_in_its_tenants_trail(notifyd: Daemon) -> None:
    for _ in range(5):
        await notifyd.get("/notifications/pack-approvals", "task-runner", X_Correlation_ID="probe-1")
    (row,) = await listed(notifyd, "/api/v1/audit")
    assert (row["name"], row["actor"], row["correlationId"]) == (
        "auth.refused",
        "client:task-runner",
        "probe-1",
    )
    assert row["data"] == {
        "code": "scope_missing",
        "where": "/notifications/pack-approvals",
        "address": "127.0.0.1",
        "count": 1,
    }
    notifyd.clock.turn(2)
    await notifyd.get("/notifications/pack-approvals", "task-runner")
    newest, _ = await listed(notifyd, "/api/v1/audit", 2)
    assert newest["data"]["count"] == 5  # the four not written, and this one


async def test_a_stranger_writes_in_no_tenants_trail(notifyd: Daemon) -> None:
    answer = await notifyd.signed("/notifications/pack-approvals", {}, **{"webhook-signature": "v1,AAAA"})
    assert answer.status == 401
    assert (await notifyd.get("/api/v1/audit")).json["items"] == []


# --- metrics and health ------------------------------------------------------------------------------------


async def test_metrics_are_in_prometheus_text_or_openmetrics(notifyd: Daemon) -> None:
    plain = await notifyd.get("/metrics", None)
    modern = await notifyd.get("/metrics", None, Accept="application/openmetrics-text; version=1.0.0")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
    assert "notifyd_build_info" in plain.text
    assert modern.text.endswith("# EOF\n")


async def test_health_and_readiness_are_open_to_all(notifyd: Daemon) -> None:
    assert (await notifyd.get("/healthz", None)).json == {"status": "ok"}
    assert (await notifyd.get("/readyz", None)).json == {"status": "ready"}


async def test_a_daemon_that_is_stopping_is_not_ready_and_goes_on_being_read(notifyd: Daemon) -> None:
    await notifyd.ask()
    page = await notifyd.link()
    await notifyd.app.drain()
    assert problem(await notifyd.get("/readyz", None)) == (503, "unavailable")
    for path in ("/healthz", "/metrics", "/api/v1/deliveries", "/notifications/pack-approvals", page):
        assert (await notifyd.get(path)).status == 200


async def test_a_daemon_that_is_stopping_takes_on_no_work_at_all(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    page = await notifyd.link()
    posts = [
        (resource.canonical, route.method)
        for resource in create_app(notifyd.app._services).router.resources()
        for route in resource
        if route.method not in ("GET", "HEAD", "OPTIONS")
    ]
    assert len(posts) >= 7
    await notifyd.app.drain()
    names = {
        "run_id": asked["runId"],
        "approval_id": asked["approvalId"],
        "id": "d1",
        "name": "inbox",
        "link": "x",
    }
    for path, method in posts:
        url = page if path == pages.PATH else path.format_map(names)
        answer = await notifyd.call(method, url)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5"), path
    again = await notifyd.signed("/notifications/pack-approvals", notifyd.requested(runId="run-late"))
    assert problem(again) == (503, "unavailable")
    assert (await notifyd.get("/notifications/pack-approvals?runId=run-late")).json["items"] == []


# --- every answer ------------------------------------------------------------------------------------------


async def test_every_answer_has_a_correlation_id_taken_from_the_request_where_it_is_sane(
    notifyd: Daemon,
) -> None:
    async def answered(path: str, offered: str) -> str:
        return (await notifyd.get(path, None, X_Correlation_ID=offered)).headers["X-Correlation-ID"]

    for path in ("/healthz", "/nowhere", "/notifications/pack-approvals", "/approvals/nonsense", "/metrics"):
        assert await answered(path, "trace-7:a/b=") == "trace-7:a/b="
        for unfit in ("", "two words", "<script>", "x" * 129, "é"):
            made = await answered(path, unfit)
            assert made not in ("", unfit)
            assert len(made) == 32


async def test_what_aiohttp_refuses_is_a_problem_too(notifyd: Daemon) -> None:
    assert problem(await notifyd.get("/nowhere", None)) == (404, "not_found")
    wrong = await notifyd.call("PUT", "/notifications/pack-approvals")
    assert problem(wrong) == (405, "method_not_allowed")
    assert set(wrong.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


async def test_an_unforeseen_exception_is_logged_with_the_resource_and_tells_the_caller_nothing(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("no such table: approvals")

    monkeypatch.setattr(notifyd.app._store, "approvals", broken)
    answer = await notifyd.get("/notifications/pack-approvals")
    assert problem(answer) == (500, "internal")
    assert "table" not in answer.text
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.getMessage() == "/notifications/pack-approvals failed"
    assert record.exc_info is not None


async def test_nothing_tells_which_server_this_is_or_may_be_kept(notifyd: Daemon) -> None:
    for path in ("/healthz", "/nowhere", "/notifications/pack-approvals", "/approvals/nonsense"):
        headers = (await notifyd.get(path)).headers
        assert headers["Server"] == "notifyd"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_no_token_or_secret_shows_in_a_log(notifyd: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    asked = await notifyd.ask()
    await notifyd.get(await notifyd.link(), None)
    await notifyd.get("/api/v1/audit", "task-runner")
    await notifyd.get("/approvals/eyJhbGciOiJkaXIifQ..secret-link", None)
    await until(lambda: len(notifyd.inbox.messages) == 2)
    links = {action.url.rsplit("/")[-1] for message in notifyd.inbox.messages for action in message.actions}
    secrets = {secret.reveal() for secret in SECRETS.values()} | set(TOKENS.values()) | links
    for hidden in secrets | {asked["resume"]["token"], "secret-link"}:
        assert hidden not in caplog.text


async def test_requests_are_counted_by_declared_path_and_status_and_readiness_is_exported(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(name: str, **labels: str) -> float | None:
        return notifyd.app._metrics.registry.get_sample_value(name, labels)

    assert sample("notifyd_http_requests_total", route="/approvals/{link}", status="500") == 0
    await notifyd.get("/approvals/no-such-link", None)
    await notifyd.get("/nowhere/at/all", None)
    assert sample("notifyd_http_requests_total", route="/approvals/{link}", status="404") == 1
    assert sample("notifyd_http_requests_total", route="other", status="404") == 1
    assert "notifyd_ready 1.0" in (await notifyd.get("/metrics", None)).text
    notifyd.app._draining = True
    assert "notifyd_ready 0.0" in (await notifyd.get("/metrics", None)).text
