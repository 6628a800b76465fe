"""Approvals over HTTP: reading them, and deciding one by a machine's call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests import events
from tests.daemon import CALLBACK, SECRETS, Answer, Daemon
from tests.waiting import until_async

PACK = "/notifications/pack-approvals"
ONE = f"{PACK}/run-0042/deploy-prod"
ACK = f"{ONE}/ack"


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    return answer.status, answer.json["code"]


def ack(asked: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A body that decides on what was asked, complete enough to be signed."""
    body = {"decision": "approved", "planHash": asked["planHash"], "actor": "alice@acme.example"}
    body |= {"tenant": {"id": "acme"}, "runId": asked["runId"], "approvalId": asked["approvalId"]}
    return {name: value for name, value in (body | members).items() if value is not None}


# --- reading -----------------------------------------------------------------------------------------------


async def test_an_approval_is_shown_with_what_was_asked_and_without_its_token(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    answer = await notifyd.get(ONE)
    shown = answer.json
    for member in (
        "runId",
        "approvalId",
        "packId",
        "planHash",
        "requiredGrants",
        "steps",
        "labels",
        "message",
    ):
        assert shown[member] == asked[member]
    assert (shown["tenant"], shown["status"], shown["round"]) == ("acme", "pending", 1)
    assert shown["approvals"] == {"required": 1, "received": 0}
    assert shown["resume"] == {"status": "none", "deliveryId": None, "reason": None}
    assert asked["resume"]["token"] not in answer.text
    assert "sealed" not in answer.text


async def test_the_history_of_an_approval_is_its_audit_trail_oldest_first(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    await notifyd.signed(ACK, ack(asked))

    names: list[str] = []
    async with asyncio.timeout(10):
        while "pack.approval.acknowledged" not in names:
            names = [record["name"] for record in (await notifyd.approval(asked))["history"]]
    assert names[0] == "pack.approval.requested"


async def test_an_approval_is_shown_with_the_decisions_of_all_its_rounds_in_order(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    await notifyd.signed(ACK, ack(asked))
    notifyd.clock.turn(1)
    again = await notifyd.ask(requiredApprovals=2, planHash="sha256:" + "b" * 64)
    await notifyd.signed(ACK, ack(again, actor="bob@acme.example", round=2))
    shown = await notifyd.approval(asked)
    assert [(d["actor"], d["round"]) for d in shown["decisions"]] == [
        ("alice@acme.example", 1),
        ("bob@acme.example", 2),
    ]
    assert shown["approvals"] == {"required": 2, "received": 1}
    (listed,) = (await notifyd.get(PACK)).json["items"]
    assert [d["round"] for d in listed["decisions"]] == [2]


async def test_another_tenants_approval_is_not_found(notifyd: Daemon) -> None:
    await notifyd.ask()
    own = await notifyd.get(ONE, "operator", X_Notifyd_Tenant="acme")
    assert own.status == 200
    assert problem(await notifyd.get(ONE, "outsider")) == (404, "not_found")
    assert problem(await notifyd.get(ONE, "operator", X_Notifyd_Tenant="globex")) == (404, "not_found")
    assert problem(await notifyd.get(ONE, "outsider", X_Notifyd_Tenant="acme")) == (403, "tenant_mismatch")
    assert (await notifyd.get(PACK, "outsider")).json == {"items": [], "nextCursor": None}


async def test_a_caller_with_several_tenants_must_name_one(notifyd: Daemon) -> None:
    for path in (PACK, ONE, "/api/v1/deliveries", "/api/v1/incidents", "/api/v1/audit"):
        assert problem(await notifyd.get(path, "operator")) == (403, "tenant_mismatch")


@pytest.mark.parametrize(
    "path",
    [PACK, ONE, "/api/v1/deliveries", "/api/v1/deliveries/x", "/api/v1/incidents", "/api/v1/audit"],
)
async def test_reading_takes_a_token_with_the_scope(notifyd: Daemon, path: str) -> None:
    assert problem(await notifyd.get(path, None)) == (401, "unauthenticated")
    assert problem(await notifyd.get(path, "task-runner")) == (403, "scope_missing")


async def test_the_list_is_filtered_and_goes_on_by_cursor(notifyd: Daemon) -> None:
    for number in range(5):
        await notifyd.ask(runId=f"run-{number}")
    await notifyd.ask(runId="run-0", approvalId="other")
    first = (await notifyd.get(f"{PACK}?limit=4")).json
    rest = (await notifyd.get(f"{PACK}?limit=4&cursor={first['nextCursor']}")).json
    runs = [item["runId"] for item in first["items"] + rest["items"]]
    assert runs == ["run-0", "run-4", "run-3", "run-2", "run-1", "run-0"]
    assert rest["nextCursor"] is None
    one_run = (await notifyd.get(f"{PACK}?runId=run-0&status=pending&limit=&cursor=")).json["items"]
    assert [item["approvalId"] for item in one_run] == ["other", "deploy-prod"]
    assert (await notifyd.get(f"{PACK}?status=approved")).json["items"] == []


async def test_a_cursor_is_bound_to_its_list_tenant_and_filter(notifyd: Daemon) -> None:
    for number in range(3):
        await notifyd.ask(runId=f"run-{number}")
    cursor = (await notifyd.get(f"{PACK}?limit=1")).json["nextCursor"]
    assert (await notifyd.get(f"{PACK}?limit=2&cursor={cursor}")).status == 200
    elsewhere = [
        await notifyd.get(f"{PACK}?status=pending&cursor={cursor}"),
        await notifyd.get(f"/api/v1/audit?cursor={cursor}"),
        await notifyd.get(f"{PACK}?cursor={cursor}", "outsider"),
        await notifyd.get(f"{PACK}?cursor={cursor[:-2]}AA"),
        await notifyd.get(f"{PACK}?cursor=MTIz"),
        await notifyd.get(f"{PACK}?cursor=*"),
        await notifyd.get(f"{PACK}?cursor=%C3%A9"),
        await notifyd.get(f"{PACK}?cursor={'9' * 5000}"),
    ]
    assert {problem(answer) for answer in elsewhere} == {(400, "invalid_cursor")}


async def test_every_fault_of_a_query_is_named(notifyd: Daemon) -> None:
    answer = await notifyd.get(f"{PACK}?limit=0&status=done&run_id=x&runId=a&runId=b")
    assert problem(answer) == (400, "invalid_query")
    assert {fault["pointer"] for fault in answer.json["errors"]} == {"limit", "status", "run_id", "runId"}
    for limit in ("201", "-1", "1.5", "²", "99999999999"):
        assert problem(await notifyd.get(f"{PACK}?limit={limit}")) == (400, "invalid_query")


# --- deciding ----------------------------------------------------------------------------------------------


async def test_a_signed_decision_is_recorded_and_its_repeat_answers_the_same_bytes(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    first = await notifyd.signed(ACK, ack(asked, comment="fine"))
    again = await notifyd.signed(ACK, ack(asked, comment="other words"))
    assert (first.status, first.json["status"]) == (200, "approved")
    assert first.json["decision"]["actor"] == "alice@acme.example"
    assert again.body == first.body
    shown = await notifyd.approval(asked)
    assert [(d["decision"], d["actor"], d["comment"], d["via"]) for d in shown["decisions"]] == [
        ("approved", "alice@acme.example", "fine", "client")
    ]


async def test_a_token_decides_without_repeating_the_path(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    body = {"decision": "rejected", "planHash": asked["planHash"], "comment": "not today"}
    answer = await notifyd.post(ACK, body, "task-runner")
    assert answer.json["status"] == "rejected"
    assert answer.json["decision"]["actor"] == "client:task-runner"


async def test_a_program_gives_the_reason_that_a_decision_needs(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    for silent in ({}, {"comment": " \n"}, {"comment": "\u3164\u200b"}):
        answer = await notifyd.signed(ACK, ack(asked, decision="rejected", **silent))
        assert (answer.status, [fault["pointer"] for fault in answer.json["errors"]]) == (422, ["/comment"])
    own = notifyd.text.replace('name = "approvals"', 'name = "approvals"\nrequire_reason = ["approved"]')
    await notifyd.reload(own)
    answer = await notifyd.signed(ACK, ack(asked))
    assert (answer.status, [fault["pointer"] for fault in answer.json["errors"]]) == (422, ["/comment"])
    assert (await notifyd.signed(ACK, ack(asked, comment="seen"))).status == 200
    said = await notifyd.signed(ACK, ack(asked, decision="rejected"))
    assert (said.status, said.json["code"]) == (409, "already_voted")
    rejected = await notifyd.signed(ACK, ack(asked, decision="rejected", actor="bob@acme.example"))
    assert rejected.json["status"] == "rejected"


INCOMPLETE = {
    "tenant": ["/tenant/id"],
    "runId": ["/runId"],
    "approvalId": ["/approvalId"],
}


@pytest.mark.parametrize(("member", "pointers"), INCOMPLETE.items(), ids=INCOMPLETE.keys())
async def test_a_signed_decision_must_say_in_the_body_what_it_is_about(
    notifyd: Daemon, member: str, pointers: list[str]
) -> None:
    asked = await notifyd.ask()
    answer = await notifyd.signed(ACK, ack(asked, **{member: None}), X_Notifyd_Tenant="acme")
    assert problem(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == pointers
    assert (await notifyd.approval(asked))["status"] == "pending"


async def test_every_fault_of_a_decision_is_named(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    wrong = {
        "decision": "maybe",
        "actor": "al\u200bice",
        "onBehalfOf": "",
        "runId": "run-0043",
        "colour": "red",
    }
    answer = await notifyd.signed(ACK, ack(asked, approvalId=None, **wrong))
    assert problem(answer) == (422, "invalid_event")
    assert sorted(fault["pointer"] for fault in answer.json["errors"]) == [
        "/actor",
        "/approvalId",
        "/colour",
        "/decision",
        "/onBehalfOf",
        "/runId",
    ]


async def test_a_signed_decision_is_not_taken_on_another_path(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    other = await notifyd.ask(runId="run-0043")
    answer = await notifyd.signed(f"{PACK}/run-0043/deploy-prod/ack", ack(asked))
    assert problem(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/runId"]
    assert (await notifyd.approval(other))["status"] == "pending"


async def test_a_decision_in_anothers_tenant_is_refused(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    foreign = ack(asked, tenant={"id": "globex"})
    assert problem(await notifyd.signed(ACK, foreign)) == (403, "tenant_mismatch")
    assert problem(await notifyd.signed(ACK, ack(asked), X_Notifyd_Tenant="globex")) == (
        403,
        "tenant_mismatch",
    )
    assert problem(await notifyd.signed(ACK, foreign | {"actor": "client:outsider"}, "outsider")) == (
        404,
        "not_found",
    )
    assert problem(await notifyd.signed(ACK, ack(asked), "outsider")) == (403, "tenant_mismatch")


async def test_an_actor_outside_the_clients_reach_is_refused(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    answer = await notifyd.signed(ACK, ack(asked, actor="mallory@evil.example"))
    assert problem(answer) == (403, "actor_not_allowed")


async def test_a_client_without_the_scope_does_not_decide(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    body = {"decision": "approved", "planHash": asked["planHash"]}
    assert problem(await notifyd.post(ACK, body, "reader")) == (403, "scope_missing")


async def test_a_missing_grant_is_refused(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredGrants=["Packs.Approve", "Packs.Release"])
    assert problem(await notifyd.signed(ACK, ack(asked))) == (403, "grant_missing")


GROUPS = [
    {"name": "Security", "grant": "Packs.Approve", "required": 1},
    {"name": "Operations", "grant": "Ops.Approve", "required": 1},
]


async def test_groups_are_shown_with_who_counts_in_them(notifyd: Daemon) -> None:
    asked = await notifyd.ask(approvalGroups=GROUPS)
    answer = (await notifyd.signed(ACK, ack(asked))).json
    told = [{"name": "Security", "required": 1, "received": 1, "actors": ["alice@acme.example"]}]
    told += [{"name": "Operations", "required": 1, "received": 0, "actors": []}]
    assert (answer["status"], answer["approvals"]) == (
        "pending",
        {"required": 2, "received": 1, "groups": told},
    )
    shown = await notifyd.approval(asked)
    assert shown["approvals"]["groups"] == told
    assert [one["groups"] for one in shown["decisions"]] == [["Security"]]
    full = await notifyd.signed(ACK, ack(asked, actor="bob@acme.example"))
    assert full.json["approvals"] == answer["approvals"]  # the other group is missing still


async def test_who_holds_no_groups_grant_does_not_decide(notifyd: Daemon) -> None:
    asked = await notifyd.ask(approvalGroups=GROUPS[1:])
    assert problem(await notifyd.signed(ACK, ack(asked))) == (403, "grant_missing")


async def test_every_fault_of_groups_is_named(notifyd: Daemon) -> None:
    twice = [GROUPS[0], GROUPS[0] | {"name": "SECURITY", "required": 100}]
    document = notifyd.requested(approvalGroups=twice, requestedBy="\u200b")
    answer = await notifyd.signed(PACK, document)
    assert problem(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == [
        "/requestedBy",
        "/approvalGroups",
        "/approvalGroups/1/name",
    ]
    alike = [GROUPS[0] | {"name": name} for name in ("Security ", "\u200bSecurity", "Security", "\u3164")]
    answer = await notifyd.signed(PACK, notifyd.requested(approvalGroups=alike))
    assert [fault["pointer"] for fault in answer.json["errors"]] == [
        f"/approvalGroups/{number}/name" for number in (1, 2, 3)
    ]
    many = [GROUPS[0] | {"name": f"group {number}"} for number in range(21)]
    answer = await notifyd.signed(PACK, notifyd.requested(approvalGroups=many))
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/approvalGroups"]


INPUTS = [
    {"name": "version", "label": "Version", "type": "text", "pattern": "v[0-9]+", "required": True},
    {"name": "replicas", "type": "number", "default": 3},
]


async def test_what_is_filled_in_is_checked_kept_and_shown_apart_from_what_was_proposed(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask(inputs=INPUTS, requiredApprovals=2)
    before = (await notifyd.approval(asked))["inputs"]
    assert [one["label"] for one in before["asked"]] == ["Version", "replicas"]
    assert (before["proposed"], before["effective"]) == ({"replicas": 3}, None)
    answer = await notifyd.signed(ACK, ack(asked, inputs={"replicas": "x", "colour": "red"}))
    assert problem(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == [
        "/inputs/colour",
        "/inputs/version",
        "/inputs/replicas",
    ]
    assert (await notifyd.signed(ACK, ack(asked, inputs={"version": "v7"}))).status == 200
    after = await notifyd.approval(asked)
    assert after["inputs"]["effective"] == {"version": "v7", "replicas": 3}
    assert after["decisions"][0]["inputs"] == {"version": "v7", "replicas": 3}
    other = ack(asked, actor="bob@acme.example", inputs={"version": "v8"})
    assert problem(await notifyd.signed(ACK, other)) == (409, "inputs_differ")
    same = other | {"inputs": {"version": "v7"}}
    assert (await notifyd.signed(ACK, same)).json["status"] == "approved"


async def test_a_secret_is_neither_asked_for_nor_filled_in(notifyd: Daemon) -> None:
    secret = SECRETS["task-runner"].reveal()
    asked = await notifyd.ask(inputs=[INPUTS[0], {"name": "note", "type": "text"}])
    answer = await notifyd.signed(ACK, ack(asked, inputs={"version": "v1", "note": secret}))
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/inputs/note"]
    named = [{"name": "db_password", "type": "text"}, {"name": "note", "type": "text", "default": secret}]
    answer = await notifyd.signed(PACK, notifyd.requested(inputs=named, runId="run-2"))
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/inputs/0/name", "/inputs/1"]
    token = notifyd.requested()["resume"]["token"]
    held = [{"name": "note", "type": "text", "label": f"say {token}"}]
    answer = await notifyd.signed(PACK, notifyd.requested(inputs=held, runId="run-2"))
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/inputs"]


async def test_a_pattern_that_cannot_be_checked_safely_is_refused(notifyd: Daemon) -> None:
    unsafe = [INPUTS[0] | {"pattern": "(?=v)v"}]
    answer = await notifyd.signed(PACK, notifyd.requested(inputs=unsafe))
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/inputs/0/pattern"]


async def test_a_program_says_for_whom_a_deputy_decides_and_is_refused_on_other_days(
    notifyd: Daemon,
) -> None:
    deputy = (
        '\n[recipients."alice@acme.example"]\ndeputy = {to = "carol@acme.example", from = %s, until = %s}\n'
    )
    asked = await notifyd.ask()
    body = ack(asked, actor="carol@acme.example", onBehalfOf="Alice@acme.example")
    await notifyd.reload(notifyd.text + deputy % ("2000-01-01", "2000-01-02"))
    assert problem(await notifyd.signed(ACK, body)) == (403, "actor_not_allowed")
    await notifyd.reload(notifyd.text + deputy % ("2000-01-01", "2999-01-02"))
    other = body | {"actor": "bob@acme.example"}
    assert problem(await notifyd.signed(ACK, other)) == (403, "actor_not_allowed")
    assert (await notifyd.signed(ACK, body)).json["status"] == "approved"
    (decision,) = (await notifyd.approval(asked))["decisions"]
    assert (decision["actor"], decision["onBehalfOf"]) == ("carol@acme.example", "alice@acme.example")


async def test_what_stands_in_the_way_of_a_decision_is_a_conflict(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    changed = ack(asked, planHash="sha256:" + "0" * 64)
    assert problem(await notifyd.signed(ACK, changed)) == (409, "plan_changed")
    assert problem(await notifyd.signed(ACK, ack(asked, actor="ci@acme.example"))) == (403, "self_approval")
    assert (await notifyd.signed(ACK, ack(asked))).status == 200
    assert problem(await notifyd.signed(ACK, ack(asked, decision="rejected"))) == (409, "already_voted")
    assert (await notifyd.signed(ACK, ack(asked, actor="bob@acme.example"))).json["status"] == "approved"
    late = ack(asked, actor="carol@acme.example")
    assert problem(await notifyd.signed(ACK, late)) == (409, "already_decided")


async def test_an_expired_approval_is_a_conflict(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    notifyd.clock.turn(25 * 3600)
    assert problem(await notifyd.signed(ACK, ack(asked))) == (409, "expired")


async def test_an_unknown_approval_is_not_found(notifyd: Daemon) -> None:
    asked = events.requested(at=notifyd.clock())
    assert problem(await notifyd.signed(ACK, ack(asked))) == (404, "not_found")


async def test_every_fault_of_a_decision_is_named_by_its_pointer(notifyd: Daemon) -> None:
    answer = await notifyd.post(ACK, {"decision": "maybe", "extra": 1}, "task-runner")
    assert problem(answer) == (422, "invalid_event")
    assert {fault["pointer"] for fault in answer.json["errors"]} == {"/decision", "/planHash", "/extra"}


async def test_a_comment_loses_configured_secrets_before_it_is_kept(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    secret = SECRETS["outsider"].reveal()
    assert (await notifyd.signed(ACK, ack(asked, comment=f"key: {secret}!"))).status == 200
    assert (await notifyd.approval(asked))["decisions"][0]["comment"] == "key: ***!"


async def test_the_token_is_returned_in_clear_over_loopback_where_the_config_asks_for_it(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask()
    await notifyd.reload(notifyd.text + '\n[approvals]\nreturn_resume_token = "plain"\n')
    direct = await notifyd.signed(ACK, ack(asked))
    relayed = await notifyd.signed(ACK, ack(asked), X_Forwarded_For="192.0.2.1")
    assert direct.json["resume"]["token"] == asked["resume"]["token"]
    assert asked["resume"]["token"] not in relayed.text


async def test_a_correlation_id_of_the_callers_is_kept_with_the_decision(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    answer = await notifyd.signed(ACK, ack(asked), X_Correlation_ID="trace-7")
    assert (answer.headers["X-Correlation-ID"], answer.json["correlationId"]) == ("trace-7", "trace-7")


async def test_an_approval_and_its_page_tell_why_a_callback_waits(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    page = await notifyd.link()
    await notifyd.reload(notifyd.text.replace(f'["{CALLBACK}"]', '["https://elsewhere.example"]'))
    assert (await notifyd.signed(ACK, ack(asked))).status == 200
    await until_async(lambda: told(notifyd, asked))
    ledger = (await notifyd.get("/api/v1/deliveries?channel=resume")).json["items"]
    assert [(row["state"], row["reason"], row["attempts"]) for row in ledger] == [
        ("pending", "not_allowed", [])
    ]
    assert "(not_allowed)" in (await notifyd.get(page, None)).text


async def told(notifyd: Daemon, asked: dict[str, Any]) -> bool:
    return bool((await notifyd.approval(asked))["resume"]["reason"] == "not_allowed")
