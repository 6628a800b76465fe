"""A deployment that waits at GitHub, from its webhook to the answer, against a stand-in that speaks its API."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from notifyd.model import SECOND
from notifyd.testing import Reply
from tests.daemon import CONFIG, Answer, Clock, Daemon, daemon
from tests.flows import stored_bytes
from tests.github_api import APP_ID, RUN, WEBHOOK_SECRET, GithubApi, payload, pem, webhook
from tests.process import DaemonProcess, daemon_process
from tests.sinks import HttpSink
from tests.waiting import until, until_async

pytestmark = pytest.mark.usefixtures("templates_once")
PATH: Final = "/channels/resume.deployments/inbound"
RUN_ID, APPROVAL_ID = f"deployments:{RUN}", "deployment:1127"
APPROVAL: Final = f"/notifications/pack-approvals/{RUN_ID}/{APPROVAL_ID}"


def gate(api: GithubApi) -> str:
    return f"""
[resume.forwarders.deployments]
type = "github"
tenant = "acme"
app_id = "{APP_ID}"
private_key = '''{pem()}'''
webhook_secrets = ["{WEBHOOK_SECRET}"]
repositories = ["acme/*"]
api_url = "{api.url}"
"""


async def delivered(notifyd: Daemon | DaemonProcess, document: Any) -> int:
    headers, body = webhook(document)
    status: int = (await notifyd.call("POST", PATH, data=body, headers=headers)).status
    return status


async def asked(notifyd: Daemon | DaemonProcess) -> dict[str, Any]:
    """The approval as whoever decides it names it."""
    answer: Any = await notifyd.get(APPROVAL)
    request = {"runId": RUN_ID, "approvalId": APPROVAL_ID, "tenant": {"id": "acme"}}
    return request | {"planHash": answer.json["planHash"]}


async def resumed(notifyd: Daemon | DaemonProcess, status: str = "delivered") -> Any:
    async def found() -> Any:
        approval: Any = (await notifyd.get(APPROVAL)).json
        return approval if approval["resume"]["status"] == status else None

    return await until_async(found)


async def decide(notifyd: Daemon, decision: str, **members: Any) -> Answer:
    ballot = await asked(notifyd) | {"decision": decision, "actor": "alice@acme.example"} | members
    return await notifyd.signed(f"{APPROVAL}/ack", ballot)


async def test_a_job_that_waits_is_asked_about_and_github_is_told_once(tmp_path: Path) -> None:
    async with GithubApi() as api, daemon(tmp_path, CONFIG + gate(api)) as notifyd:
        document = payload()
        assert [await delivered(notifyd, document) for _ in range(2)] == [202, 202]
        await until(lambda: len(notifyd.inbox.messages) == 2)
        message = notifyd.inbox.messages[0]
        assert "Deploy acme/payments to production" in message.title
        assert f"https://github.com/acme/payments/actions/runs/{RUN}" in str(message.actions + message.fields)
        assert "github:octocat" in message.body
        for _ in range(2):
            assert (await decide(notifyd, "approved", comment="go")).status == 200
        assert (await resumed(notifyd))["status"] == "approved"
        assert len(api.received) == 1
    assert api.decided == {
        (RUN, "production"): {
            "environment_name": "production",
            "state": "approved",
            "comment": "Approved by alice@\u2060acme.example: go",
        }
    }
    assert len(notifyd.inbox.messages) == 2


async def test_a_rejection_is_told_with_its_reason_and_one_that_waits_too_long_is_rejected(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with (
        GithubApi(lambda: clock() / SECOND) as api,
        daemon(tmp_path, CONFIG + gate(api), clock=clock) as notifyd,
    ):
        await delivered(notifyd, payload())
        await decide(notifyd, "rejected", comment="not on Fridays")
        await resumed(notifyd)
        assert api.decided.pop((RUN, "production"))["comment"].endswith(": not on Fridays")
        late = payload(environment="staging")
        await delivered(notifyd, late | {"deployment": late["deployment"] | {"id": 1128}})
        clock.turn(8 * 86400)
        await until(lambda: api.decided)
    told = api.decided[RUN, "staging"]
    assert told["state"] == "rejected"
    assert told["comment"].startswith("Rejected: nobody decided until 20")


async def test_what_github_refuses_is_dead_told_and_replayed(tmp_path: Path) -> None:
    async with GithubApi() as api, daemon(tmp_path, CONFIG + gate(api)) as notifyd:
        api.token_reply = Reply(404, '{"message": "Not Found"}')
        await delivered(notifyd, payload())
        await decide(notifyd, "approved")
        await resumed(notifyd, "failed")
        found = await notifyd.get("/api/v1/deliveries?state=dead", "operator", x_notifyd_tenant="acme")
        (dead,) = found.json["items"]
        assert (dead["channel"], dead["attempts"][-1]["reason"]) == ("resume.deployments", "not_found")
        api.token_reply = None
        path = f"/api/v1/deliveries/{dead['id']}/retry"
        assert (await notifyd.post(path, {}, "operator", x_notifyd_tenant="acme")).status == 200
        await resumed(notifyd)
    assert list(api.decided) == [(RUN, "production")]


async def test_neither_a_kill_before_the_message_nor_one_during_the_answer_loses_it_or_tells_twice(
    tmp_path: Path,
) -> None:
    async with GithubApi() as api, HttpSink() as people:
        rules = f"""
[channels.people]
type = "webhook"
url = "{people.url}"

[[rules]]
name = "deployments"
when = 'event.kind == "pack.approval" && event.action == "requested" && event.labels.environment == "production"'
channels = ["people"]
"""
        async with daemon_process(tmp_path, rules + gate(api)) as notifyd:
            assert await delivered(notifyd, payload()) == 202
            await notifyd.kill()
            await notifyd.start()
            await until(lambda: people.received)
            api.held = True
            assert (await notifyd.ack(await asked(notifyd), comment="go")).status == 200
            await until(lambda: api.received)
            await notifyd.kill()
            api.held = False
            await notifyd.start()
            await resumed(notifyd)
            secrets = (pem().splitlines()[3], WEBHOOK_SECRET, "ghs_", "eyJ")
            told = (notifyd.stdout + notifyd.stderr).decode()
            stored = stored_bytes(tmp_path)
    assert [given["state"] for given in api.decided.values()] == ["approved"]
    assert [secret for secret in secrets if secret in told] == []
    assert b"ghs_" not in stored
    assert len(api.received) == 2
