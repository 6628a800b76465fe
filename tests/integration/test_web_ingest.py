"""Events over HTTP: what is accepted, and what is refused with nothing stored and nothing sent."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from notifyd.errors import StoreError
from notifyd.model import SECOND
from notifyd.wire.codec import event_key
from tests import events
from tests.daemon import SECRETS, Answer, Daemon, bearer

PACK = "/notifications/pack-approvals"
EVENTS = "/api/v1/events"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


async def stored(notifyd: Daemon, client: str = "reader", **headers: str) -> list[Any]:
    """Everything the ledger of approvals holds."""
    answer = await notifyd.get(PACK, client, **headers)
    return list(answer.json["items"])


def code(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json["correlationId"] == answer.headers["X-Correlation-ID"]
    return answer.status, answer.json["code"]


# --- Task Runner's events ----------------------------------------------------------------------------------


async def test_a_signed_event_is_accepted_and_its_repeat_is_a_duplicate(notifyd: Daemon) -> None:
    document = notifyd.requested()
    first = await notifyd.signed(PACK, document)
    again = await notifyd.signed(PACK, json.dumps(document, indent=4).encode())  # written otherwise
    assert (first.status, again.status) == (202, 200)
    assert first.json == again.json
    assert first.json["outcome"] == "opened"


async def test_the_same_event_id_with_another_content_is_a_conflict(notifyd: Daemon) -> None:
    document = await notifyd.ask()
    answer = await notifyd.signed(PACK, document | {"runId": "run-0043"})
    assert code(answer) == (409, "event_id_conflict")


async def test_the_trace_of_a_request_is_kept_with_its_event(notifyd: Daemon) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "acme=1"}
    document = notifyd.requested()
    assert (await notifyd.signed(PACK, document, **trace)).status == 202
    kept = await notifyd.app._store.event("acme", event_key("acme", document["eventId"]))
    assert kept is not None
    assert trace.items() <= orjson.loads(kept.body).items()


@pytest.mark.parametrize("header", ["X-Notifyd-Tenant", "X-StellaOps-Tenant"])
async def test_the_tenant_in_the_header_must_be_the_bodys(notifyd: Daemon, header: str) -> None:
    right = await notifyd.signed(PACK, notifyd.requested(), **{header: "acme"})
    wrong = await notifyd.signed(PACK, notifyd.requested(), **{header: "globex"})
    assert right.status == 202
    assert code(wrong) == (403, "tenant_mismatch")


async def test_a_tenant_that_is_not_the_callers_is_refused_before_the_body_is_looked_at(
    notifyd: Daemon,
) -> None:
    foreign = {"tenant": {"id": "globex"}, "type": "Nonsense"}
    assert code(await notifyd.signed(PACK, foreign)) == (403, "tenant_mismatch")


async def test_a_bearer_alone_is_not_enough_for_task_runners_events(notifyd: Daemon) -> None:
    answer = await notifyd.post(PACK, notifyd.requested(), "task-runner")
    assert code(answer) == (401, "signature_required")
    assert answer.headers["WWW-Authenticate"].startswith("Standard-Webhooks")


async def test_a_signature_with_a_bearer_needs_both_to_hold(notifyd: Daemon) -> None:
    both = await notifyd.signed(PACK, notifyd.requested(), **bearer("task-runner"))
    other = await notifyd.signed(PACK, notifyd.requested(), **bearer("operator"))
    assert both.status == 202
    assert code(other) == (401, "unauthenticated")


async def test_a_wrong_signature_and_an_unknown_client_are_told_the_same(notifyd: Daemon) -> None:
    body = orjson.dumps(notifyd.requested())
    wrong = await notifyd.signed(PACK, body, **{"webhook-signature": "v1,AAAA"})
    unknown = await notifyd.signed(PACK, body, **{"X-Notifyd-Client": "nobody"})
    for answer in (wrong, unknown):
        assert code(answer) == (401, "signature_invalid")
    assert {k: v for k, v in wrong.json.items() if k != "correlationId"} == {
        k: v for k, v in unknown.json.items() if k != "correlationId"
    }


async def test_a_stale_signature_is_refused(notifyd: Daemon) -> None:
    document = notifyd.requested()
    notifyd.clock.turn(-400)
    old = notifyd.signature(orjson.dumps(document))
    notifyd.clock.turn(400)
    assert code(await notifyd.signed(PACK, document, **old)) == (401, "signature_invalid")


async def test_a_client_without_the_scope_is_refused(notifyd: Daemon) -> None:
    narrow = notifyd.text.replace('"Packs.Approve", "Notifier.Events:Write"]', '"Packs.Approve"]', 1)
    await notifyd.reload(narrow)
    assert code(await notifyd.signed(PACK, notifyd.requested())) == (403, "scope_missing")


BAD = {
    "no JSON": (b"not json", {}, 400, "malformed_json"),
    "nothing": (b"", {}, 400, "malformed_json"),
    "half a document": (b'{"type": "PackApprovalRequested"', {}, 400, "malformed_json"),
    "no object": (b"[]", {}, 422, "invalid_event"),
    "another type": (b'{"type": "Nonsense"}', {}, 422, "invalid_event"),
    "plain text": (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    "a form": (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "compressed": (b"{}", {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    "an integer beyond 2^53": (b'{"n": 9007199254740993}', {}, 422, "invalid_event"),
    "too much": (b" " * (256 * 1024 + 1), {}, 413, "too_large"),
}


@pytest.mark.parametrize(("body", "headers", "status", "why"), BAD.values(), ids=BAD.keys())
async def test_bad_input_is_a_problem_and_nothing_is_stored(
    notifyd: Daemon, body: bytes, headers: dict[str, str], status: int, why: str
) -> None:
    assert code(await notifyd.signed(PACK, body, **headers)) == (status, why)
    assert await stored(notifyd) == []
    assert notifyd.inbox.messages == []


async def test_every_fault_is_named_at_once_by_its_pointer(notifyd: Daemon) -> None:
    document = notifyd.requested(planHash="sha256:short", unknown=1, steps=[{"name": "no id"}])
    del document["runId"]
    answer = await notifyd.signed(PACK, document)
    assert code(answer) == (422, "invalid_event")
    assert {fault["pointer"] for fault in answer.json["errors"]} == {
        "/planHash",
        "/unknown",
        "/steps/0/id",
        "/runId",
    }


async def test_a_problem_does_not_repeat_a_configured_secret(notifyd: Daemon) -> None:
    secret = SECRETS["task-runner"].reveal()
    answer = await notifyd.signed(PACK, notifyd.requested(**{secret: 1}))
    assert answer.json["errors"][0]["pointer"] == "/***"
    assert secret not in answer.text


async def test_what_is_no_event_is_told_with_what_an_event_may_not_be(notifyd: Daemon) -> None:
    """A sender that mends one fault after another needs as many attempts as there are checks."""
    wrong = notifyd.requested(
        occurredAt="2001-01-01T00:00:00Z", requestedBy="al\u200bice", runId="a/b", steps=[1], colour="red"
    )
    del wrong["planHash"]
    wrong["resume"] = {"callbackUrl": "https://evil.example/x"}
    answer = await notifyd.signed(PACK, wrong)
    assert code(answer) == (422, "invalid_event")
    assert sorted(fault["pointer"] for fault in answer.json["errors"]) == [
        "/colour",
        "/occurredAt",
        "/planHash",
        "/requestedBy",
        "/resume/callbackUrl",
        "/resume/token",
        "/runId",
        "/steps/0",
    ]


@pytest.mark.parametrize("typed", [{}, {"type": "Nonsense"}, {"type": 5}])
async def test_the_members_of_an_event_of_no_type_are_judged_all_the_same(
    notifyd: Daemon, typed: dict[str, Any]
) -> None:
    event = {name: value for name, value in notifyd.requested().items() if name != "type"}
    answer = await notifyd.signed(PACK, event | typed | {"requestedBy": "al\u200bice", "status": "approved"})
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/type", "/requestedBy"]


async def test_an_event_from_the_future_or_from_long_ago_is_refused(notifyd: Daemon) -> None:
    now = notifyd.clock()
    ahead = await notifyd.signed(PACK, events.requested(at=now + 600 * SECOND))
    old = await notifyd.signed(PACK, events.requested(at=now - 31 * 86400 * SECOND))
    assert code(ahead) == (422, "invalid_event")
    assert code(old) == (422, "too_old")


async def test_a_store_that_fails_is_a_503_to_try_again(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> None:
        raise StoreError("the disk is full", retry_after=2.5)

    monkeypatch.setattr(notifyd.app._store, "append", full)
    answer = await notifyd.signed(PACK, notifyd.requested())
    assert code(answer) == (503, "store_unavailable")
    assert answer.headers["Retry-After"] == "3"


async def test_the_time_to_a_durable_answer_is_measured(notifyd: Daemon) -> None:
    await notifyd.ask()
    metrics = (await notifyd.get("/metrics", None)).text
    assert "notifyd_ingest_seconds_count 1.0" in metrics


# --- CloudEvents -------------------------------------------------------------------------------------------


def cloud(notifyd: Daemon, **overrides: Any) -> dict[str, Any]:
    return events.cloud_event(at=notifyd.clock(), **{"tenant": "acme"} | overrides)


@pytest.mark.parametrize("media", [STRUCTURED, f"{STRUCTURED}; charset=utf-8", "application/json"])
async def test_a_structured_event_is_accepted_signed_or_with_a_bearer(notifyd: Daemon, media: str) -> None:
    signed = await notifyd.signed(EVENTS, cloud(notifyd), Content_Type=media)
    held = await notifyd.post(EVENTS, cloud(notifyd), "operator", Content_Type=media)
    assert (signed.status, held.status) == (202, 202), (signed.text, held.text)


async def test_a_repeated_cloud_event_is_a_duplicate(notifyd: Daemon) -> None:
    event = cloud(notifyd)
    answers = [await notifyd.signed(EVENTS, event, Content_Type=STRUCTURED) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json == answers[1].json


def binary(client: str | None, **attributes: str) -> dict[str, str]:
    named = {"specversion": "1.0", "id": "1", "source": "/ci", "type": "task.done"} | attributes
    return {f"ce-{name}": value for name, value in named.items()} | bearer(client)


async def test_an_event_in_binary_mode_is_accepted_with_a_bearer(notifyd: Daemon) -> None:
    headers = binary("task-runner") | {"Content-Type": "application/json"}
    answer = await notifyd.call("POST", EVENTS, data=b'{"task": 1}', headers=headers)
    assert answer.status == 202, answer.text
    again = {"specversion": "1.0", "id": "1", "source": "/ci", "type": "task.done"}
    same = again | {"data": {"task": 1}, "datacontenttype": "application/json"}
    assert (await notifyd.post(EVENTS, same, "task-runner")).status == 200


async def test_binary_mode_is_not_taken_on_a_signature_which_covers_no_header(notifyd: Daemon) -> None:
    body = b'{"task": 1}'
    headers = binary(None, tenant="acme") | notifyd.signature(body)
    answer = await notifyd.call("POST", EVENTS, data=body, headers=headers)
    assert code(answer) == (401, "unauthenticated")


async def test_a_signed_cloud_event_must_name_its_tenant_in_the_body(notifyd: Daemon) -> None:
    answer = await notifyd.signed(EVENTS, cloud(notifyd, tenant=None), X_Notifyd_Tenant="acme")
    assert code(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/tenant"]


async def test_with_a_bearer_the_tenant_is_the_attribute_else_the_header_else_the_only_one(
    notifyd: Daemon,
) -> None:
    async def tenant(document: dict[str, Any], client: str, **headers: str) -> Any:
        answer = await notifyd.post(EVENTS, document, client, **headers)
        return answer.json.get("tenant", answer.json.get("code"))

    untold = cloud(notifyd, tenant=None)
    assert await tenant(cloud(notifyd, tenant="globex"), "operator") == "globex"
    assert await tenant(untold, "operator", X_Notifyd_Tenant="globex") == "globex"
    assert await tenant(untold, "task-runner") == "acme"
    assert await tenant(untold, "operator") == "tenant_mismatch"
    assert await tenant(cloud(notifyd), "operator", X_Notifyd_Tenant="globex") == "tenant_mismatch"
    assert await tenant(cloud(notifyd), "outsider") == "tenant_mismatch"


async def test_a_cloud_event_does_not_pass_for_one_of_task_runners(notifyd: Daemon) -> None:
    answer = await notifyd.signed(EVENTS, cloud(notifyd, type="pack.approval"))
    assert code(answer) == (422, "invalid_event")


@pytest.mark.parametrize("media", ["text/plain", "application/xml", "application/octet-stream"])
async def test_another_media_type_without_attributes_is_refused(notifyd: Daemon, media: str) -> None:
    answer = await notifyd.signed(EVENTS, cloud(notifyd), Content_Type=media)
    assert code(answer) == (415, "unsupported_media_type")


# --- batches -----------------------------------------------------------------------------------------------


async def batch(notifyd: Daemon, *documents: Any) -> Answer:
    return await notifyd.signed(EVENTS, list(documents), Content_Type=BATCH)


async def test_a_batch_answers_each_event_and_is_200_once_none_is_new(notifyd: Daemon) -> None:
    first, second = cloud(notifyd), cloud(notifyd)
    one = await batch(notifyd, first)
    both = await batch(notifyd, first, second)
    again = await batch(notifyd, first, second)
    assert [answer.status for answer in (one, both, again)] == [202, 202, 200]
    assert [item["eventId"] for item in again.json["items"]] == [first["id"], second["id"]]
    assert both.json == again.json


async def test_an_empty_batch_is_taken(notifyd: Daemon) -> None:
    answer = await batch(notifyd)
    assert (answer.status, answer.json) == (200, {"items": []})


async def test_nothing_of_a_batch_is_stored_where_one_event_is_invalid(notifyd: Daemon) -> None:
    good = cloud(notifyd)
    answer = await batch(notifyd, good, cloud(notifyd, id=""), cloud(notifyd, tenant=None))
    assert code(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/1/id", "/2/tenant"]
    assert (await batch(notifyd, good)).status == 202


async def test_nothing_of_a_batch_is_stored_where_one_event_is_too_old(notifyd: Daemon) -> None:
    good = cloud(notifyd)
    answer = await batch(notifyd, good, cloud(notifyd, time="2001-01-01T00:00:00Z"))
    assert code(answer) == (422, "too_old")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/1/time"]
    assert (await batch(notifyd, good)).status == 202


async def test_all_that_a_batch_has_at_fault_is_told_together(notifyd: Daemon) -> None:
    answer = await batch(
        notifyd,
        cloud(notifyd),
        cloud(notifyd, type=None, tenant=None),
        cloud(notifyd, time="2001-01-01T00:00:00Z"),
        cloud(notifyd, tenant=None, time="soon"),
        5,
    )
    assert code(answer) == (422, "invalid_event")
    pointers = ["/1/tenant", "/1/type", "/2/time", "/3/tenant", "/3/time", "/4"]
    assert sorted(fault["pointer"] for fault in answer.json["errors"]) == pointers


async def test_the_tenants_missing_from_a_signed_batch_are_named_by_index(notifyd: Daemon) -> None:
    answer = await batch(notifyd, cloud(notifyd), cloud(notifyd, tenant=None))
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/1/tenant"]


async def test_one_foreign_tenant_refuses_a_batch(notifyd: Daemon) -> None:
    assert code(await batch(notifyd, cloud(notifyd), cloud(notifyd, tenant="globex"))) == (
        403,
        "tenant_mismatch",
    )


async def test_a_batch_with_conflicts_names_all_of_them_and_nothing_of_it_is_stored(notifyd: Daemon) -> None:
    known, new, other = cloud(notifyd), cloud(notifyd), cloud(notifyd)
    await batch(notifyd, known)
    answer = await batch(
        notifyd, new, known | {"subject": "changed"}, known, new | {"subject": "changed"}, other
    )
    assert code(answer) == (409, "event_id_conflict")
    assert answer.json["errors"] == [
        {"pointer": "/1/id", "message": f"event '{known['id']}' is known with another content"},
        {"pointer": "/3/id", "message": f"event '{new['id']}' is known with another content"},
    ]
    answers = [await batch(notifyd, one) for one in (new, other, known)]
    assert [one.status for one in answers] == [202, 202, 200]


async def test_an_event_that_is_in_a_batch_twice_is_taken_once(notifyd: Daemon) -> None:
    one = cloud(notifyd)
    for status in (202, 200):
        answer = await batch(notifyd, one, dict(reversed(one.items())))
        assert answer.status == status
        first, second = answer.json["items"]
        assert first == second


async def test_a_batch_of_one_without_an_answer_may_be_sent_again(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, events = notifyd.app._store, [cloud(notifyd) for _ in range(3)]
    append_all = store.append_all

    async def losing(*given: Any) -> Any:
        await append_all(*given)
        raise StoreError("the answer is lost")

    monkeypatch.setattr(store, "append_all", losing)
    assert (await batch(notifyd, *events)).status == 503
    monkeypatch.undo()
    assert (await batch(notifyd, *events)).status == 200


async def test_every_event_of_a_batch_that_is_out_of_time_is_named(notifyd: Daemon) -> None:
    old, ahead = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
    answer = await batch(notifyd, *(cloud(notifyd, time=time) for time in (old, ahead, old)))
    assert code(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/0/time", "/1/time", "/2/time"]


@pytest.mark.parametrize("document", [{}, None, "events"])
async def test_a_batch_is_an_array(notifyd: Daemon, document: object) -> None:
    answer = await notifyd.signed(EVENTS, document, Content_Type=BATCH)
    assert code(answer) == (422, "invalid_event")
