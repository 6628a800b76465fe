"""What a running notifyd answers, and what it calls, is what the contract says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from notifyd.config.settings import Scope
from notifyd.plugin import PermanentError
from notifyd.render.render import TemplateSet
from notifyd.testing import Received
from notifyd.web.auth import Signature
from tests import events, openapi
from tests.contract.operations import OPERATIONS, Operation
from tests.daemon import CALLBACK, CONFIG, Answer, Daemon, bearer, daemon
from tests.openapi import DOCUMENT
from tests.sinks import HttpSink
from tests.waiting import until_async

PACK: Final = "/notifications/pack-approvals"
ONE: Final = f"{PACK}/run-0042/deploy-prod"
RELEASE: Final = """
[channels.hook]
type = "webhook"
url = "{url}/hook"

[[rules]]
name = "hooked"
when = 'event.kind == "pack.approval"'
channels = ["hook"]
"""

_load_once = cache(TemplateSet.load)


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    async with HttpSink() as receiver:
        yield receiver


@pytest.fixture
async def notifyd(sink: HttpSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """One that sends to `sink`: the decision to `/resume`, notifications to `/hook`."""
    monkeypatch.setattr(TemplateSet, "load", _load_once)
    text = CONFIG.replace(CALLBACK, sink.url) + RELEASE.format(url=sink.url)
    async with daemon(tmp_path, text) as running:
        yield running


def operation_of(id_: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.id == id_)


def check(id_: str, answer: Answer, status: int) -> Answer:
    """Hold an answer to what its operation says: status, headers, media type, schema and code."""
    operation = operation_of(id_)
    told = DOCUMENT["paths"][operation.path][operation.method]["responses"]
    assert answer.status == status, answer.text
    assert str(status) in told, f"{id_} does not tell of {status}"
    for name, header in told[str(status)]["headers"].items():
        required = name in ("X-Correlation-ID", "WWW-Authenticate", "Location")
        assert name in answer.headers or not required, (header, answer.headers)
    content = told[str(status)].get("content", {})
    if not content:
        return answer
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in content
    if schema := content[media].get("schema"):
        assert openapi.faults_by(schema, answer.json, strict=True) == []
    if "x-codes" in told[str(status)]:
        assert answer.json["code"] in told[str(status)]["x-codes"]
    return answer


def asked(notifyd: Daemon, sink: HttpSink, **overrides: Any) -> dict[str, Any]:
    resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
    return notifyd.requested(**{"resume": resume} | overrides)


def ack(document: dict[str, Any], **members: Any) -> dict[str, Any]:
    body = {"decision": "approved", "planHash": document["planHash"], "actor": "alice@acme.example"}
    body |= {"tenant": {"id": "acme"}, "runId": document["runId"], "approvalId": document["approvalId"]}
    return body | members


# --- answers -----------------------------------------------------------------------------------------------


async def test_the_contract_is_served_to_anybody(notifyd: Daemon) -> None:
    answer = await notifyd.get("/openapi.json", None)
    check("getContract", answer, 200)
    assert answer.json == DOCUMENT


async def test_an_approval_from_request_to_callback_keeps_the_contract(
    notifyd: Daemon, sink: HttpSink
) -> None:
    document = asked(notifyd, sink)
    check("postPackEvent", await notifyd.signed(PACK, document), 202)
    check("postPackEvent", await notifyd.signed(PACK, document), 200)
    check("getApproval", await notifyd.get(ONE), 200)
    check("postAck", await notifyd.signed(f"{ONE}/ack", ack(document)), 200)

    def on(path: str) -> Any:
        return lambda received: received.path == path

    (decided,) = await sink.wait(1, on("/resume"))
    check_call("DecisionCallback", decided, decided_headers())
    (told, *_) = await sink.wait(2, on("/hook"))
    check_call("Notification", told, ["webhook-id", "webhook-timestamp"])

    async def delivered() -> bool:
        return bool((await notifyd.get(ONE)).json["resume"]["status"] == "delivered")

    await until_async(delivered)
    shown = check("getApproval", await notifyd.get(ONE), 200).json
    assert shown["decisions"]
    assert shown["history"]
    check("listApprovals", await notifyd.get(f"{PACK}?limit=1"), 200)
    await notifyd.signed(PACK, events.load("hold-en") | {"occurredAt": document["occurredAt"]})
    (held,) = check("listIncidents", await notifyd.get("/api/v1/incidents?open=true"), 200).json["items"]
    assert (held["open"], held["closedAt"]) == (True, None)
    ledger = check("listDeliveries", await notifyd.get("/api/v1/deliveries"), 200).json["items"]
    assert any(delivery["attempts"] for delivery in ledger)
    check("getDelivery", await notifyd.get(f"/api/v1/deliveries/{ledger[0]['id']}"), 200)
    assert check("listAudit", await notifyd.get("/api/v1/audit"), 200).json["items"]
    await notifyd.app._sealing.sweep()
    assert check("listAuditSeals", await notifyd.get("/api/v1/audit/seals"), 200).json["items"]
    assert check("listChannels", await notifyd.get("/api/v1/channels"), 200).json["items"][0]["lastSuccess"]


def decided_headers() -> list[str]:
    operation = DOCUMENT["paths"][PACK]["post"]["callbacks"]["decided"]["{$request.body#/resume/callbackUrl}"]
    return [one["name"] for one in operation["post"]["parameters"] if one["required"]]


def check_call(name: str, received: Received, headers: list[str]) -> None:
    """Hold what notifyd sent to what the contract says."""
    assert openapi.faults(name, orjson.loads(received.body), strict=True) == []
    assert received.headers["Content-Type"].partition(";")[0] == "application/json"
    assert [header for header in headers if header not in received.headers] == []


@pytest.mark.parametrize("name", ["updated-approved", "hold-en", "released-en"])
async def test_the_answers_to_the_other_events_keep_the_contract(notifyd: Daemon, name: str) -> None:
    answer = await notifyd.signed(PACK, events.fresh(name, at=notifyd.clock()))
    check("postPackEvent", answer, 202)
    if name == "updated-approved":
        check("getApproval", await notifyd.get(ONE), 200)


async def test_the_answers_to_cloud_events_keep_the_contract(notifyd: Daemon) -> None:
    one = events.cloud_event(at=notifyd.clock())
    path, batch = "/api/v1/events", {"Content-Type": "application/cloudevents-batch+json"}
    check("postCloudEvents", await notifyd.post(path, one, "operator"), 202)
    check("postCloudEvents", await notifyd.post(path, one, "operator"), 200)
    headers = bearer("operator") | batch
    check("postCloudEvents", await notifyd.call("POST", path, data=orjson.dumps([one]), headers=headers), 200)
    two = [one, events.cloud_event(at=notifyd.clock())]
    check("postCloudEvents", await notifyd.call("POST", path, data=orjson.dumps(two), headers=headers), 202)
    binary = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "/s", "ce-type": "t", "ce-tenant": "acme"}
    binary |= bearer("operator") | {"Content-Type": "text/plain"}
    check("postCloudEvents", await notifyd.call("POST", path, data=b"text", headers=binary), 202)


async def test_a_dead_delivery_that_is_sent_again_keeps_the_contract(notifyd: Daemon) -> None:
    notifyd.inbox.fault = PermanentError("nobody lives here")
    acme = {"x_notifyd_tenant": "acme"}
    await notifyd.ask(resume={"callbackUrl": f"{callback(notifyd)}/resume", "token": "rt_3yQ8Jv1nTz5kWc7p"})

    async def dead() -> Any:
        return (await notifyd.get("/api/v1/deliveries?state=dead")).json["items"]

    (delivery, *_) = await until_async(dead)
    page = check("listDeliveries", await notifyd.get("/api/v1/deliveries?state=dead&limit=1"), 200).json
    assert page["items"][0]["reason"]
    notifyd.inbox.fault = None
    path = f"/api/v1/deliveries/{delivery['id']}/retry"
    check("retryDelivery", await notifyd.call("POST", path, headers=headers_of("operator", acme)), 200)

    async def sent() -> bool:
        return bool((await notifyd.get(path.removesuffix("/retry"))).json["state"] == "sent")

    await until_async(sent)
    check("retryDelivery", await notifyd.call("POST", path, headers=headers_of("operator", acme)), 409)
    failed = check("listChannels", await notifyd.get("/api/v1/channels"), 200).json["items"]
    assert next(one for one in failed if one["name"] == "inbox")["lastFailure"]


def callback(notifyd: Daemon) -> str:
    found = re.search(r'allowed_origins = \["([^"]+)"\]', notifyd.text)
    assert found
    return found[1]


def headers_of(client: str, more: dict[str, str]) -> dict[str, str]:
    return bearer(client) | {name.replace("_", "-"): value for name, value in more.items()}


async def test_what_operators_ask_keeps_the_contract(notifyd: Daemon) -> None:
    path, body = "/api/v1/channels/inbox/test", {"recipient": "alice@acme.example"}
    check("testChannel", await notifyd.post(path, body, "operator"), 200)
    notifyd.inbox.fault = PermanentError("nobody lives here")
    check("testChannel", await notifyd.post(path, body, "operator"), 502)
    check("testChannel", await notifyd.post(path, {}, "operator"), 422)
    check("testChannel", await notifyd.post("/api/v1/channels/none/test", {}, "operator"), 404)
    check("purge", await notifyd.post("/api/v1/purge", {"dryRun": True}, "operator"), 200)
    check("purge", await notifyd.post("/api/v1/purge", {"cursor": "made up"}, "operator"), 400)
    check("listSealKeys", await notifyd.get("/api/v1/keys", "operator"), 200)
    check("reseal", await notifyd.post("/api/v1/keys/reseal", {}, "operator"), 200)
    check("reseal", await notifyd.post("/api/v1/keys/reseal", {"cursor": "made up"}, "operator"), 400)
    check("getHealth", await notifyd.get("/healthz", None), 200)
    check("getReadiness", await notifyd.get("/readyz", None), 200)
    check("getMetrics", await notifyd.get("/metrics", None), 200)
    openmetrics = await notifyd.get("/metrics", None, accept="application/openmetrics-text")
    check("getMetrics", openmetrics, 200)


async def test_the_approvers_page_keeps_the_contract(notifyd: Daemon, sink: HttpSink) -> None:
    await notifyd.signed(PACK, asked(notifyd, sink))
    link = await notifyd.link()
    for path, name in (("/", "getHome"), ("/approvals", "getApprovalsHome")):
        home = check(name, await notifyd.get(path, None, Accept="text/html,*/*;q=0.8"), 200)
        assert "open the link in the message" in home.text
        assert "Content-Security-Policy" in home.headers
        check(name, await notifyd.get(path, None), 404)
    page = check("getApprovalPage", await notifyd.get(link, None), 200)
    check("getApprovalPage", await notifyd.get("/approvals/none", None), 404)
    check("postApprovalPage", await notifyd.call("POST", link, data={"csrf": "forged"}), 403)
    check("postApprovalPage", await notifyd.call("POST", link, data=b"{}"), 415)
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found
    form = {"csrf": found[1], "decision": "approved", "comment": ""}
    check("postApprovalPage", await notifyd.call("POST", link, data={**form, "decision": "maybe"}), 422)
    check("postApprovalPage", await notifyd.call("POST", link, data=form), 200)
    check("postApprovalPage", await notifyd.call("POST", link, data={**form, "confirmed": "1"}), 303)
    notifyd.clock.turn(3600 * 24 * 8)
    check("getApprovalPage", await notifyd.get(link, None), 410)


# --- refusals ----------------------------------------------------------------------------------------------


async def test_what_is_wrong_with_an_event_is_told_as_the_contract_says(
    notifyd: Daemon, sink: HttpSink
) -> None:
    document = asked(notifyd, sink)
    await notifyd.signed(PACK, document)
    for changes, status in (
        ({"runId": ".."}, 422),
        ({"occurredAt": "2020-01-01T00:00:00Z", "eventId": "old"}, 422),
        ({"requestedBy": "someone else"}, 409),
        ({"tenant": {"id": "globex"}}, 403),
    ):
        check("postPackEvent", await notifyd.signed(PACK, document | changes), status)
    check("postPackEvent", await notifyd.signed(PACK, b"{"), 400)
    check("postPackEvent", await notifyd.signed(PACK, b" " * 300_000), 413)
    check("postPackEvent", await notifyd.signed(PACK, document, content_type="text/plain"), 415)
    check("postPackEvent", await notifyd.post(PACK, document, "task-runner"), 401)
    check("postPackEvent", await notifyd.signed(PACK, document, webhook_signature="v1,AAAA"), 401)


async def test_what_stands_against_a_decision_is_told_as_the_contract_says(
    notifyd: Daemon, sink: HttpSink
) -> None:
    document = asked(notifyd, sink, requiredApprovals=2)
    await notifyd.signed(PACK, document)
    path = f"{ONE}/ack"
    for members, status in (
        ({"actor": "mallory@globex.example"}, 403),
        ({"actor": "ci@acme.example"}, 403),
        ({"planHash": "sha256:" + "0" * 64}, 409),
        ({"decision": "maybe"}, 422),
        ({"runId": "another"}, 422),
    ):
        check("postAck", await notifyd.signed(path, ack(document, **members)), status)
    elsewhere = ack(document, runId="none")
    check("postAck", await notifyd.signed(f"{PACK}/none/deploy-prod/ack", elsewhere), 404)
    assert check("postAck", await notifyd.signed(path, ack(document)), 200).json["resume"]["token"] is None
    check("postAck", await notifyd.signed(path, ack(document, decision="rejected")), 409)


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.scope], ids=lambda one: one.id)
async def test_nobody_unknown_or_without_the_scope_is_let_in(notifyd: Daemon, operation: Operation) -> None:
    path = re.sub(r"\{\w+\}", "x", operation.path)
    check(operation.id, await notifyd.call(operation.method.upper(), path), 401)
    if operation.signature is Signature.REQUIRED:
        return
    other = "reader" if operation.scope is not Scope.READ else "task-runner"
    answer = await notifyd.call(operation.method.upper(), path, headers=bearer(other))
    assert check(operation.id, answer, 403).json["code"] == "scope_missing"


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.paged], ids=lambda one: one.id)
async def test_a_query_that_is_wrong_is_told_as_the_contract_says(
    notifyd: Daemon, operation: Operation
) -> None:
    check(operation.id, await notifyd.get(f"{operation.path}?limit=0"), 400)
    check(operation.id, await notifyd.get(f"{operation.path}?cursor=made-up"), 400)
    told = DOCUMENT["paths"][operation.path]["get"]["parameters"]
    names = [parameter["name"] for parameter in told if parameter.get("in") == "query"]
    refused = (await notifyd.get(f"{operation.path}?unknown=1")).json["errors"][0]["message"]
    assert refused == f"is not known here: there are {', '.join([*names, 'limit', 'cursor'])}"


@pytest.mark.parametrize("id_", ["getApproval", "getDelivery"])
async def test_what_is_not_there_is_told_as_the_contract_says(notifyd: Daemon, id_: str) -> None:
    path = re.sub(r"\{\w+\}", "none", operation_of(id_).path)
    check(id_, await notifyd.get(path), 404)
