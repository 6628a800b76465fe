"""What comes in over HTTP is accepted or refused as the contract says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from notifyd.errors import InvalidError, MalformedError
from notifyd.model import Choice, Status
from notifyd.security.redact import Redactor
from notifyd.security.secrets import Secret
from notifyd.wire import codec
from notifyd.wire import events as wire
from notifyd.wire.records import wire_name
from tests import events

AT = codec.parse_instant("2026-11-04T09:30:00Z")
PLAN_HASH = "sha256:" + "0a" * 32


def _faults(document: Any) -> dict[str, str]:
    with pytest.raises(InvalidError) as caught:
        wire.parse_pack_event(document)
    faults = {fault.pointer: fault.message for fault in caught.value.faults}
    assert len(faults) == len(caught.value.faults), "a fault was told twice"
    return faults


def _without(document: dict[str, Any], path: str) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    if rest:
        return document | {head: _without(document[head], rest)}
    return {name: value for name, value in document.items() if name != head}


# --- the examples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", events.PACK_EVENTS)
def test_each_example_of_task_runners_events_is_accepted(name: str) -> None:
    event = wire.parse_pack_event(codec.loads(events.raw(name)))
    assert type(event).__name__ == event.type == events.load(name)["type"]


@pytest.mark.parametrize("name", events.CLOUD_EVENTS)
def test_each_example_of_a_cloud_event_is_accepted(name: str) -> None:
    event = wire.parse_cloud_event(codec.loads(events.raw(name)))
    assert event.type == events.load(name)["type"]


def test_the_examples_cover_every_type_and_every_end() -> None:
    documents = [events.load(name) for name in events.PACK_EVENTS]
    assert {document["type"] for document in documents} == set(wire.PACK_EVENTS)
    assert {document["status"] for document in documents if "status" in document} == {
        status for status in Status if status.ended
    }


def test_the_examples_have_ids_of_their_own() -> None:
    ids = [events.load(name)["eventId"] for name in events.PACK_EVENTS]
    assert len(set(ids)) == len(ids) >= 14


def test_the_hostile_example_keeps_its_texts_to_the_letter() -> None:
    document = events.load("requested-hostile")
    event = wire.parse_pack_event(document)
    assert event.message.title == document["message"]["title"]
    assert event.labels == document["labels"]
    assert [step.id for step in event.steps] == [step["id"] for step in document["steps"]]
    assert event.message.locale is None
    assert event.message.title is not None
    for character in ("\u202e", "\u2028", "\u0000", "\U0001f680", "<!channel>", "<script>"):
        assert character in event.message.title


@pytest.mark.parametrize("name", events.NAMES)
def test_each_example_is_read_and_written_redacted_in_canonical_form(name: str) -> None:
    document = codec.loads(events.raw(name))
    text = codec.canonical(Redactor().tree(document))
    assert codec.canonical(codec.loads(text)) == text
    token = document.get("resume", {}).get("token")
    assert token is None or json.dumps(token, ensure_ascii=False) not in text.decode()


def test_a_fresh_event_has_an_id_and_times_of_its_own() -> None:
    one, other = events.requested(at=AT), events.requested(at=AT, requiredApprovals=2, policy=None)
    assert one["eventId"] != other["eventId"]
    event = wire.parse_pack_event(other)
    assert (event.occurred_at, event.required_approvals, event.policy) == (AT, 2, None)
    assert event.expires_at is not None
    assert event.expires_at > AT


@pytest.mark.parametrize("status", ["approved", "rejected", "expired", "cancelled"])
def test_a_fresh_end_is_of_the_approval_that_was_asked_for(status: str) -> None:
    asked = wire.parse_pack_event(events.requested(at=AT))
    ended = wire.parse_pack_event(events.updated(status, at=AT))
    assert isinstance(ended, wire.PackApprovalUpdated)
    assert ended.status == status
    assert (ended.tenant.id, ended.run_id, ended.approval_id) == (
        asked.tenant.id,
        asked.run_id,
        asked.approval_id,
    )


def test_a_fresh_hold_and_its_release_are_of_one_policy() -> None:
    held, released = (wire.parse_pack_event(make(at=AT)) for make in (events.held, events.released))
    assert held.policy is not None
    assert released.policy is not None
    assert (held.run_id, held.approval_id, held.policy.id) == (
        released.run_id,
        released.approval_id,
        released.policy.id,
    )


def test_a_fresh_cloud_event_has_an_id_and_a_time_of_its_own() -> None:
    one, other = (wire.parse_cloud_event(events.cloud_event(at=AT)) for _ in range(2))
    assert one.id != other.id
    assert one.time == AT


# --- Task Runner's events ----------------------------------------------------------------------------------


def test_an_event_becomes_a_record_with_every_member() -> None:
    event = wire.parse_pack_event(codec.loads(events.raw("requested-en")))
    assert event == wire.PackApprovalRequested(
        event_id="5f0c2a6e-8d41-4b57-9c1e-000000000001",
        occurred_at=AT,
        tenant=wire.Tenant("acme", "payments"),
        run_id="run-0042",
        approval_id="deploy-prod",
        plan_hash="sha256:" + "3fa9" * 16,
        pack_id="pkg:oci/acme/payments@v3",
        required_grants=("Packs.Approve",),
        required_approvals=1,
        steps=(
            wire.Step("migrate", "Migrate the ledger schema"),
            wire.Step("deploy", "Deploy to production"),
        ),
        requested_by="ci@acme.example",
        expires_at=codec.parse_instant("2026-11-05T09:30:00Z"),
        message=wire.MessageWish(
            "pack-approval",
            "en",
            "Deploy payments v3 to production",
            "Version 3 adds instant transfers. The ledger schema changes;"
            " a rollback takes about ten minutes.",
        ),
        labels={"environment": "production", "team": "payments"},
        parameters={"replicas": 3, "region": "eu-central-1", "canary": {"enabled": True, "percent": 10}},
        policy=wire.Policy(
            "prod-deploy", "1.2.3", ("Production changes need one approval from the payments team.",)
        ),
        resume=wire.Resume(
            "https://runner.acme.example/resume/run-0042", Secret("rt_3yQ8Jv1nTz5kWc7pXe2mRb9d")
        ),
    )


def test_what_is_left_out_has_its_default() -> None:
    event = wire.parse_pack_event(events.load("requested-minimal"))
    assert (event.required_grants, event.required_approvals, event.steps) == ((), 1, ())
    assert (event.message, event.labels, event.parameters) == (wire.MessageWish(), {}, {})
    assert (event.pack_id, event.requested_by, event.expires_at, event.policy) == (None, None, None, None)


_COMMON = ["eventId", "occurredAt", "tenant", "tenant.id", "runId", "approvalId", "planHash"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(("requested-en", path) for path in [*_COMMON, "resume", "resume.callbackUrl", "resume.token"]),
        *(("updated-approved", path) for path in [*_COMMON, "status", "decidedBy"]),
        *(("hold-en", path) for path in [*_COMMON, "policy", "policy.id"]),
        *(("released-en", path) for path in [*_COMMON, "policy", "policy.id"]),
    ],
)
def test_each_required_member_is_required(name: str, path: str) -> None:
    assert _faults(_without(events.load(name), path)) == {"/" + path.replace(".", "/"): "is required"}


@pytest.mark.parametrize("name", events.PACK_EVENTS)
def test_every_other_member_can_be_left_out(name: str) -> None:
    document = events.load(name)
    required = {path.partition(".")[0] for path in _COMMON} | {"type", "status", "decidedBy"}
    required |= {"resume"} if document["type"] == "PackApprovalRequested" else {"policy"}
    for member in document.keys() - required:
        wire.parse_pack_event(_without(document, member))


@pytest.mark.parametrize("document", [None, [], "PackApprovalRequested", 1, True])
def test_an_event_is_an_object(document: Any) -> None:
    assert _faults(document)[""].startswith("must be an object, not ")


def test_an_empty_object_tells_all_that_is_required_of_any_event() -> None:
    required = ["/type", "/eventId", "/occurredAt", "/tenant", "/runId", "/approvalId", "/planHash"]
    assert _faults({}) == dict.fromkeys(required, "is required")


@pytest.mark.parametrize(
    "value", ["", "packApprovalRequested", "PackApprovalRequested ", None, 1, ["PackPolicyHold"]]
)
def test_an_unknown_type_is_refused_with_the_four_there_are(value: Any) -> None:
    assert _faults(events.load("updated-approved") | {"type": value, "oops": 1}) == {
        "/type": "must be PackApprovalRequested, PackApprovalUpdated, PackPolicyHold or PackPolicyReleased",
        "/oops": "is not a known member",
    }


_BAD_IDS = [
    "",
    "a b",
    "a/b",
    "ä",
    "a\n",
    "a\0",
    ".",
    "..",
    "." * 200,
    "x" * 201,
    "a,b",
    "<a>",
    "a\u200b",
    "١",
]
_GOOD_IDS = ["a", "0", "x" * 200, "...a", "a..", "A.b_c:d@e+f-g", "-", "_", ":"]


@pytest.mark.parametrize("member", ["eventId", "runId", "approvalId", "packId"])
def test_ids_are_of_their_alphabet(member: str) -> None:
    for good in _GOOD_IDS:
        wire.parse_pack_event(events.requested(at=AT, **{member: good}))
    for bad in [*_BAD_IDS, 7]:
        if (member, bad) != ("packId", "a/b"):
            assert list(_faults(events.requested(at=AT, **{member: bad}))) == [f"/{member}"]


@pytest.mark.parametrize("bad", _BAD_IDS)
def test_a_tenants_id_is_of_the_same_alphabet(bad: str) -> None:
    assert list(_faults(events.requested(at=AT, tenant={"id": bad}))) == ["/tenant/id"]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "SHA256:" + "a" * 64,
        "sha256:" + "g" * 64,
        PLAN_HASH + "\n",
    ],
)
def test_a_plan_hash_is_of_its_form(bad: str) -> None:
    assert list(_faults(events.requested(at=AT, planHash=bad))) == ["/planHash"]


@pytest.mark.parametrize("value", [0, 101, -1, True, 1.0, "1"])
def test_required_approvals_are_an_integer_from_1_to_100(value: Any) -> None:
    assert _faults(events.requested(at=AT, requiredApprovals=value)) == {
        "/requiredApprovals": "must be an integer from 1 to 100"
    }
    assert wire.parse_pack_event(events.requested(at=AT, requiredApprovals=100)).required_approvals == 100


@pytest.mark.parametrize("member", ["occurredAt", "expiresAt"])
@pytest.mark.parametrize(
    "value", ["yesterday", "2026-11-04", "2026-11-04T09:30:00", 1793784600, "2026-02-30T00:00:00Z"]
)
def test_times_are_rfc_3339(member: str, value: Any) -> None:
    assert list(_faults(events.requested(at=AT, **{member: value}))) == [f"/{member}"]


@pytest.mark.parametrize("status", ["pending", "Approved", "", None, 1])
def test_an_update_tells_an_end(status: Any) -> None:
    document = events.load("updated-approved") | {"status": status}
    assert _faults(document) == {"/status": "must be approved, rejected, expired or cancelled"}


@pytest.mark.parametrize("name", ["requested-en", "hold-en", "released-en"])
def test_status_belongs_to_an_update_only(name: str) -> None:
    document = events.load(name) | {"status": "approved", "decidedBy": "x"}
    assert _faults(document) == {"/status": "is not a known member", "/decidedBy": "is not a known member"}


@pytest.mark.parametrize(
    ("locale", "read"),
    [
        ("de-CH", "de-CH"),
        ("de_CH", "de_CH"),
        ("en", "en"),
        ("zh-Hant-TW", "zh-Hant-TW"),
        ("", None),
        ("../x", None),
        ("d", None),
        ("de-" + "x" * 5000, None),
        ("de-CH\n", None),
        (None, None),
    ],
)
def test_a_locale_that_is_none_is_no_wish_and_no_fault(locale: str | None, read: str | None) -> None:
    event = wire.parse_pack_event(events.requested(at=AT, message={"locale": locale}))
    assert event.message.locale == read


def test_unknown_members_are_refused_by_name_and_x_ones_are_not() -> None:
    document = events.requested(at=AT, oops=1, **{"x-trace": {"any": 1}})
    document["tenant"] = {"id": "acme", "name": "Acme", "x-cost-centre": 7}
    assert _faults(document) == {"/oops": "is not a known member", "/tenant/name": "is not a known member"}


def test_a_fault_never_tells_the_resume_token() -> None:
    document = events.requested(
        at=AT, resume={"callbackUrl": "", "token": "rt_0123456789", "tokn": "rt_0123456789"}
    )
    with pytest.raises(InvalidError) as caught:
        wire.parse_pack_event(document)
    assert "rt_0123456789" not in str(caught.value)
    assert "rt_0123456789" not in repr(wire.parse_pack_event(events.requested(at=AT)))


def _members_of(cls: Any) -> list[str]:
    return [wire_name(attribute) for attribute in attrs.fields(attrs.resolve_types(cls))]


@pytest.mark.parametrize("cls", wire.PACK_EVENTS.values())
def test_no_member_of_an_event_takes_a_value_of_every_kind(cls: type[wire.PackEvent]) -> None:
    """A member that took a string, a number, an array and an object alike would not be checked at all."""
    name = next(name for name in events.PACK_EVENTS if events.load(name)["type"] == cls.__name__)
    odd: tuple[Any, ...] = ("", 0.5, [[]], {"?": 0})
    for member in _members_of(cls):
        refused = [value for value in odd if _refused(events.load(name) | {member: value})]
        assert len(refused) >= 3, member


def _refused(document: dict[str, Any]) -> bool:
    try:
        wire.parse_pack_event(document)
    except InvalidError:
        return True
    return False


# --- decisions ---------------------------------------------------------------------------------------------


def test_an_ack_becomes_a_record() -> None:
    document = {
        "decision": "approved",
        "planHash": PLAN_HASH,
        "actor": "alice@acme.example",
        "comment": "",
        "tenant": {"id": "acme"},
        "runId": "run-0042",
        "approvalId": "deploy-prod",
    }
    assert wire.parse_ack(document) == wire.AckRequest(
        decision=Choice.APPROVED,
        plan_hash=PLAN_HASH,
        actor="alice@acme.example",
        comment="",
        tenant=wire.Tenant("acme"),
        run_id="run-0042",
        approval_id="deploy-prod",
    )
    assert wire.parse_ack({"decision": "rejected", "planHash": PLAN_HASH}).actor is None


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({}, {"/decision", "/planHash"}),
        ({"decision": "approve", "planHash": PLAN_HASH}, {"/decision"}),
        ({"decision": "approved", "planHash": PLAN_HASH, "actor": ""}, {"/actor"}),
        ({"decision": "approved", "planHash": PLAN_HASH, "rounds": 1}, {"/rounds"}),
        ({"decision": "approved", "planHash": PLAN_HASH, "round": "1"}, {"/round"}),
        ({"decision": "approved", "planHash": PLAN_HASH, "tenant": "acme"}, {"/tenant"}),
        (
            {"decision": True, "planHash": None, "runId": "..", "comment": 1},
            {"/decision", "/planHash", "/runId", "/comment"},
        ),
        ([], {""}),
    ],
)
def test_an_ack_that_breaks_the_contract_is_refused(document: Any, pointers: set[str]) -> None:
    with pytest.raises(InvalidError) as caught:
        wire.parse_ack(document)
    assert {fault.pointer for fault in caught.value.faults} == pointers


# --- CloudEvents -------------------------------------------------------------------------------------------

_CLOUD = {"specversion": "1.0", "id": "1", "source": "urn:acme:x", "type": "task.done"}


def _cloud_faults(document: Any) -> dict[str, str]:
    with pytest.raises(InvalidError) as caught:
        wire.parse_cloud_event(document)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_a_cloud_event_becomes_a_record_with_its_extensions() -> None:
    event = wire.parse_cloud_event(events.load("cloudevent-task-done"))
    assert event == wire.CloudEvent(
        specversion="1.0",
        id="task-7781",
        source="/runner/eu-1",
        type="task.done",
        subject="nightly-backup",
        time=codec.parse_instant("2026-11-04T03:12:45.5Z"),
        datacontenttype="application/json",
        data={"task": "nightly-backup", "seconds": 731, "result": "ok"},
        tenant="acme",
        extensions={"priority": 2, "retried": False},
    )


@pytest.mark.parametrize("member", ["specversion", "id", "source", "type"])
def test_a_cloud_event_has_its_required_attributes(member: str) -> None:
    assert _cloud_faults(_without(_CLOUD, member)) == {f"/{member}": "is required"}
    assert list(_cloud_faults(_CLOUD | {member: None})) == [f"/{member}"]
    assert list(_cloud_faults(_CLOUD | {member: ""})) == [f"/{member}"]


def test_a_null_attribute_counts_as_left_out() -> None:
    nulls = dict.fromkeys(
        ["subject", "time", "datacontenttype", "dataschema", "data", "data_base64", "tenant", "ext"]
    )
    assert wire.parse_cloud_event(_CLOUD | nulls) == wire.parse_cloud_event(_CLOUD)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", 1.0),
        ("time", "yesterday"),
        ("subject", ""),
        ("tenant", "a b"),
        ("tenant", {"id": "acme"}),
        ("data_base64", "a=b"),
        ("data_base64", 1),
        ("data_base64", "ä"),
        ("type", "pack.approval"),
        ("type", "pack.policy"),
        ("ext", 1.5),
        ("ext", 2**31),
        ("ext", {}),
        ("ext", ["a"]),
        ("Ext", "a"),
        ("x-ext", "a"),
        ("my_ext", "a"),
        ("-", "a"),
        ("extensions", {}),
        ("e" * 101, "a"),
    ],
)
def test_a_cloud_event_that_breaks_the_specification_is_refused(member: str, value: Any) -> None:
    assert list(_cloud_faults(_CLOUD | {member: value})) == [codec.pointer(member)]


@pytest.mark.parametrize("value", ["", "text", True, False, 0, -(2**31), 2**31 - 1])
def test_an_extension_is_a_string_a_boolean_or_an_integer(value: Any) -> None:
    assert wire.parse_cloud_event(_CLOUD | {"ext": value}).extensions == {"ext": value}


def test_a_cloud_event_carries_data_in_one_form_only() -> None:
    assert _cloud_faults(_CLOUD | {"data": 0, "data_base64": "AA=="}) == {
        "/data_base64": "must not be given together with data"
    }


def test_all_faults_of_a_cloud_event_come_at_once() -> None:
    document = {"specversion": "2", "id": 7, "Bad": 1, "time": "x", "data": 1, "data_base64": "AA=="}
    assert set(_cloud_faults(document)) == {
        "/specversion",
        "/id",
        "/source",
        "/type",
        "/Bad",
        "/time",
        "/data_base64",
    }


@pytest.mark.parametrize("data", [False, 0, "", [], {}, "text", {"a": [1, None]}])
def test_data_is_any_json(data: Any) -> None:
    assert wire.parse_cloud_event(_CLOUD | {"data": data}).data == data


def test_a_batch_is_a_list_of_at_most_a_hundred() -> None:
    assert wire.parse_cloud_events([]) == ()
    assert len(wire.parse_cloud_events([_CLOUD] * wire.MAX_BATCH)) == wire.MAX_BATCH
    for refused in ([_CLOUD] * (wire.MAX_BATCH + 1), _CLOUD, None, "x"):
        with pytest.raises(InvalidError):
            wire.parse_cloud_events(refused)


def test_the_faults_of_a_batch_tell_the_event() -> None:
    with pytest.raises(InvalidError) as caught:
        wire.parse_cloud_events(
            [_CLOUD, _without(_CLOUD, "id"), 7, _CLOUD | {"Bad": 1, "data": 1, "data_base64": ""}]
        )
    assert [fault.pointer for fault in caught.value.faults] == ["/1/id", "/2", "/3/Bad", "/3/data_base64"]


_HEADERS = {
    "CE-SpecVersion": "1.0",
    "ce-id": "1",
    "ce-source": "/a%20b/%C3%BC",
    "Ce-Type": "task.done",
    "ce-tenant": "acme",
    "ce-priority": "2",
    "Host": "notifyd.example",
}


def _from_headers(headers: Mapping[str, str], body: bytes) -> wire.CloudEvent:
    return wire.parse_cloud_event(wire.structured_form(headers, body))


def test_an_event_in_binary_mode_is_read_from_its_headers() -> None:
    event = _from_headers(_HEADERS | {"Content-Type": "application/json; charset=utf-8"}, b'{"a": 1}')
    assert event == wire.CloudEvent(
        specversion="1.0",
        id="1",
        source="/a b/ü",
        type="task.done",
        datacontenttype="application/json; charset=utf-8",
        data={"a": 1},
        tenant="acme",
        extensions={"priority": "2"},
    )


@pytest.mark.parametrize(
    ("content_type", "body", "member", "value"),
    [
        ("application/vnd.acme+json", b"[1]", "data", [1]),
        ("Application/JSON", b"null", "data", None),
        ("text/plain", "grüezi".encode(), "data", "grüezi"),
        ("text/plain; charset=latin-1", b"gr\xfcezi", "data_base64", "Z3L8ZXpp"),
        ("application/octet-stream", b"\x00\xff", "data_base64", "AP8="),
        ("application/xml", b"<a/>", "data_base64", "PGEvPg=="),
        (None, b"{}", "data", {}),
    ],
)
def test_binary_data_becomes_what_it_is_in_structured_mode(
    content_type: str | None, body: bytes, member: str, value: Any
) -> None:
    headers = _HEADERS | ({"content-type": content_type} if content_type else {})
    document = wire.structured_form(headers, body)
    assert document[member] == value
    assert document.get("datacontenttype") == content_type
    wire.parse_cloud_event(document)


def test_an_event_in_binary_mode_needs_no_body() -> None:
    assert _from_headers(_HEADERS, b"").data is None


def test_binary_data_that_is_not_the_json_it_says_is_malformed() -> None:
    with pytest.raises(MalformedError):
        _from_headers(_HEADERS | {"content-type": "application/json"}, b"{")


@pytest.mark.parametrize(
    ("header", "value", "pointer"),
    [
        ("ce-source", "%FF", "/source"),
        ("ce-subject", "a\udcff", "/subject"),
        ("Content-Type", "a/b; c=\udcff", "/datacontenttype"),
        ("ce-my-ext", "x", "/my-ext"),
        ("ce-data_base64", "?", "/data_base64"),
    ],
)
def test_headers_that_are_no_attributes_are_refused(header: str, value: str, pointer: str) -> None:
    headers: Mapping[str, str] = _HEADERS | {header: value}
    with pytest.raises(InvalidError) as caught:
        _from_headers(headers, b"")
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
