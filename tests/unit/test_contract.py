"""The published contract is what the records say, and what it says is what the parsers do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml
from aiohttp.web import RouteDef
from attrs import frozen
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from notifyd.cli import cli
from notifyd.cli.contract import FORMATS
from notifyd.errors import InvalidError
from notifyd.web import (
    approvals,
    channels,
    dead,
    deliveries,
    inbound,
    incidents,
    ingest,
    keys,
    log_level,
    ops,
    pages,
    problems,
    purge,
    signed_in,
    silences,
)
from notifyd.web.auth import Signature
from notifyd.web.pages import mine
from notifyd.wire import codec
from notifyd.wire import events as wire
from notifyd.wire.records import structure
from tests import events, openapi
from tests.contract import answers
from tests.contract.document import RECORDS, RETRIED, types
from tests.contract.files import FILES, SHIPPED, SHOWN
from tests.contract.operations import OPERATIONS
from tests.contract.shapes import Kind, known_types, members_of, shape_of
from tests.contract.texts import TEXTS
from tests.openapi import DOCUMENT

PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
    "PackEvent": wire.parse_pack_event,
    **dict.fromkeys(wire.PACK_EVENTS, wire.parse_pack_event),
    "CloudEvent": wire.parse_cloud_event,
    "AckRequest": wire.parse_ack,
    "TrialRequest": lambda read: structure(read, channels.TrialRequest),
    "SilenceRequest": lambda read: structure(read, silences.SilenceRequest),
    "PurgeRequest": lambda read: structure(read, purge.PurgeRequest),
    "ResealRequest": lambda read: structure(read, keys.ResealRequest),
    "LogLevelRequest": lambda read: structure(read, log_level.LogLevelRequest),
}
"""Who reads what comes in, by its schema."""


def shipped(name: str) -> str:
    return (SHIPPED / name).read_text(encoding="utf-8")


def accepted(name: str, value: Any) -> bool:
    try:
        PARSERS[name](codec.loads(orjson.dumps(value)))
    except InvalidError:
        return False
    return True


# --- what is published -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_is_what_the_records_make_now(name: str) -> None:
    """If this fails, run `make contract` and look at the difference."""
    assert shipped(name) == FILES[name]()


@pytest.mark.parametrize("name", FORMATS.values())
def test_a_file_that_readers_are_shown_is_the_one_that_is_shipped(name: str) -> None:
    assert (SHOWN / name).read_text(encoding="utf-8") == shipped(name)


def test_every_file_has_a_maker_and_all_but_the_one_that_is_served_a_format_of_the_command() -> None:
    assert {*FORMATS.values(), "openapi.json"} == set(FILES) == {path.name for path in SHIPPED.iterdir()}


def test_the_yaml_says_what_is_served() -> None:
    assert yaml.safe_load((SHOWN / "openapi.yaml").read_text(encoding="utf-8")) == DOCUMENT


def test_the_document_is_valid_openapi() -> None:
    from openapi_spec_validator import (
        validate,
    )  # its import takes seconds, and each process collects this file

    validate(DOCUMENT)


def test_every_schema_names_its_type_in_both_languages() -> None:
    found = dict(openapi.schemas(DOCUMENT))
    bare = [
        at
        for at, schema in found.items()
        if "$ref" not in schema
        and schema != {"type": "null"}
        and not {"x-go-type", "x-cs-type"} <= schema.keys()
    ]
    assert len(found) > 300
    assert bare == []


def test_every_schema_is_used() -> None:
    text = orjson.dumps(DOCUMENT).decode()
    unused = [
        name
        for name in DOCUMENT["components"]["schemas"]
        if f'"$ref":"#/components/schemas/{name}"' not in text
    ]
    assert unused == []


def test_the_texts_are_of_members_that_are_there_and_tell_of_everything_that_comes_in() -> None:
    records = {shape.name: shape for shape in types() if shape.kind is Kind.RECORD}
    records["PackEvent"] = shape_of(wire.PackEvent)
    members = {f"{name}.{member.name}" for name, shape in records.items() for member in members_of(shape)}
    assert set(TEXTS) - members == set()
    silent = [
        f"{shape.name}.{member.name}"
        for shape in types()
        if shape.cls is not None and shape.cls.__module__ != answers.__name__
        for member in members_of(shape)
        if not member.text
    ]
    assert silent == []


# --- operations --------------------------------------------------------------------------------------------


def served() -> Iterator[tuple[str, str]]:
    for module in (
        approvals,
        channels,
        dead,
        deliveries,
        inbound,
        incidents,
        ingest,
        keys,
        log_level,
        ops,
        pages,
        mine,
        purge,
        signed_in,
        silences,
    ):
        for route in module.routes:
            assert isinstance(route, RouteDef)
            path = re.sub(r"_(\w)(?=[^/]*\})", lambda found: found[1].upper(), route.path)
            yield route.method.lower(), path


def test_the_operations_are_the_routes() -> None:
    told = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == set(served())
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS) == len(told)


def test_every_code_but_the_bases_is_told_of_by_an_operation() -> None:
    told = {fault.code for operation in OPERATIONS for fault in operation.faults}
    bases = {"conflict"}  # stands for its subclasses, and is never raised itself
    assert told == {kind.code for kind in problems.MEANINGS} - bases


def test_every_answer_that_is_refused_says_whether_to_send_again() -> None:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            refused = {int(s): answer for s, answer in operation["responses"].items() if int(s) >= 400}
            assert {s: answer["x-retry"] for s, answer in refused.items()} == {
                s: s in RETRIED for s in refused
            }


def test_what_to_send_again_is_what_the_page_on_events_says() -> None:
    page = (SHOWN.parent / "events.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (\d{3}) \|[^|]*\| (yes|no) \|$", page, re.MULTILINE))
    acknowledgement = DOCUMENT["x-acknowledgement"]
    assert {status for status, again in table.items() if again == "yes"} == {*acknowledgement["retry"]} - {
        "504"
    }
    assert {status for status, again in table.items() if again == "no"} == set(acknowledgement["final"])


def test_what_needs_a_signature_takes_no_bearer_alone() -> None:
    for operation in OPERATIONS:
        ways = DOCUMENT["paths"][operation.path][operation.method]["security"]
        alone = {next(iter(way)) for way in ways if len(way) == 1}
        assert (
            alone
            == {
                Signature.REQUIRED: {"signature", "certificate"},
                Signature.TAKEN: {"signature", "certificate", "bearer"},
                Signature.REFUSED: {"certificate", "bearer"} if operation.scope else set(),
            }[operation.signature]
        )


# --- examples ----------------------------------------------------------------------------------------------

EXAMPLES: Final = {path.stem: path for path in sorted((SHOWN / "examples").glob("*.json"))}


def test_everything_that_comes_in_or_goes_out_has_an_example() -> None:
    parts = {"Approval", "AuditRecord", "Channel", "SealedAudit"}  # shown inside of others
    assert set(EXAMPLES) == {cls.__name__ for cls in RECORDS} - parts


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_its_schema_says(name: str) -> None:
    assert openapi.faults(name, json.loads(EXAMPLES[name].read_bytes()), strict=True) == []


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() & PARSERS.keys()))
def test_an_example_is_accepted(name: str) -> None:
    PARSERS[name](codec.loads(EXAMPLES[name].read_bytes()))


@pytest.mark.parametrize("name", events.PACK_EVENTS)
def test_the_tests_own_events_of_task_runner_keep_the_contract(name: str) -> None:
    assert openapi.faults("PackEvent", events.load(name)) == []


@pytest.mark.parametrize("name", events.CLOUD_EVENTS)
def test_the_tests_own_cloud_events_keep_the_contract(name: str) -> None:
    assert openapi.faults("CloudEvent", events.load(name)) == []


# --- the parsers and the schemas agree ---------------------------------------------------------------------

HASH: Final = "sha256:" + "0a" * 32
ACK: Final = {"decision": "approved", "planHash": HASH}
CLOUD: Final = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def changed(base: dict[str, Any], **members: Any) -> dict[str, Any]:
    """`base` with `members`; what is set to Ellipsis is left out."""
    return {name: value for name, value in (base | members).items() if value is not ...}


def numbered(table: list[tuple[str, Any]]) -> pytest.MarkDecorator:
    ids = [f"{name}-{number}" for number, (name, _) in enumerate(table)]
    return pytest.mark.parametrize(("name", "value"), table, ids=ids)


REQUESTED: Final = events.load("requested-en")
NO_OBJECTS: Final[tuple[Any, ...]] = (None, [], "text", 1, True)
NO_EXTENSIONS: Final[tuple[Any, ...]] = (1.5, [], {}, 2**31, -(2**31) - 1, "x" * 16_385)
REFUSED: Final[list[tuple[str, Any]]] = [
    *((name, value) for name in PARSERS for value in NO_OBJECTS),
    *(("PackEvent", changed(REQUESTED, **{name: ...})) for name in ("type", "eventId", "planHash", "resume")),
    *(
        ("PackEvent", changed(REQUESTED, eventId=value))
        for value in ("", "..", "a b", "ä", "x" * 201, "a\n", 7, None)
    ),
    *(("PackEvent", changed(REQUESTED, packId=value)) for value in ("", ".", "a b", "x" * 201)),
    *(
        ("PackEvent", changed(REQUESTED, planHash=value))
        for value in ("", HASH + "\n", HASH.upper(), HASH + "0")
    ),
    *(
        ("PackEvent", changed(REQUESTED, requiredApprovals=value))
        for value in (0, 101, -1, True, 1.5, "1", None)
    ),
    *(
        ("PackEvent", changed(REQUESTED, occurredAt=value))
        for value in ("yesterday", "2026-11-04", "2026-11-04T09:30:00", "2026-02-30T00:00:00Z", 1, None)
    ),
    ("PackEvent", changed(REQUESTED, expiresAt="2026-11-04T09:30:60Z")),
    ("PackEvent", changed(REQUESTED, expiresAt="2026-11-04T09:30:00.0000000001Z")),
    ("PackEvent", changed(REQUESTED, type="PackApprovalrequested")),
    ("PackEvent", changed(REQUESTED, colour="red")),
    ("PackEvent", changed(REQUESTED, X_trace=1)),
    ("PackEvent", changed(REQUESTED, status="approved", decidedBy="x")),
    ("PackEvent", changed(REQUESTED, tenant={"id": "acme", "name": "Acme"})),
    ("PackEvent", changed(REQUESTED, tenant="acme")),
    ("PackEvent", changed(REQUESTED, requiredGrants=[""])),
    ("PackEvent", changed(REQUESTED, requiredGrants="Packs.Approve")),
    ("PackEvent", changed(REQUESTED, steps=[{"name": "no id"}])),
    ("PackEvent", changed(REQUESTED, steps=[{"id": "a"}] * 1001)),
    ("PackEvent", changed(REQUESTED, labels={"replicas": 3})),
    ("PackEvent", changed(REQUESTED, message={"title": "x" * 16_385})),
    ("PackEvent", changed(REQUESTED, message=None)),
    ("PackEvent", changed(REQUESTED, resume=None)),
    ("PackEvent", changed(REQUESTED, resume={"callbackUrl": "https://a.example", "token": ""})),
    ("PackEvent", changed(REQUESTED, policy={"id": "a", "messages": None})),
    ("PackEvent", changed(events.load("updated-approved"), status="pending")),
    ("PackEvent", changed(events.load("updated-approved"), decidedBy="")),
    ("PackEvent", changed(events.load("hold-en"), policy=...)),
    ("PackEvent", changed(events.load("hold-en"), policy=None)),
    ("PackEvent", changed(events.load("released-en"), policy={"id": ""})),
    *(("AckRequest", changed(ACK, decision=value)) for value in ("approve", "", None, ...)),
    *(
        ("AckRequest", changed(ACK, **member))
        for member in ({"actor": ""}, {"round": 0}, {"round": 1.5}, {"rounds": 1}, {"tenant": "acme"})
    ),
    *(("CloudEvent", changed(CLOUD, specversion=value)) for value in ("0.3", "1", 1.0, None, ...)),
    *(
        ("CloudEvent", changed(CLOUD, type=value))
        for value in ("pack.approval", "pack.policy", "", None, ...)
    ),
    *(
        ("CloudEvent", changed(CLOUD, data_base64=value))
        for value in ("?", "AA", "AAA", "A===", "AA=A", "ÄÄÄÄ", 1)
    ),
    ("CloudEvent", changed(CLOUD, data=1, data_base64="")),
    *(
        ("CloudEvent", changed(CLOUD, **{name: "x"}))
        for name in ("Upper", "a_b", "a-b", "x-a", "", "ä", "x" * 101)
    ),
    *(("CloudEvent", changed(CLOUD, ext=value)) for value in NO_EXTENSIONS),
    *(("CloudEvent", changed(CLOUD, tenant=value)) for value in ("", "..", 1)),
    ("TrialRequest", {"recipient": 1}),
    ("SilenceRequest", {"when": "true", "reason": "r"}),
    ("SilenceRequest", {"when": "true", "reason": "r", "endsAt": "2026-11-04T10:00:00Z", "approvals": 1}),
    ("TrialRequest", {"to": "x"}),
    ("PurgeRequest", {"dryRun": "yes"}),
    ("PurgeRequest", {"dryRun": None}),
    ("ResealRequest", {"cursor": 1}),
    ("LogLevelRequest", {"level": "loud"}),
    ("LogLevelRequest", {}),
]


@numbered(REFUSED)
def test_what_the_parsers_refuse_the_schema_refuses(name: str, value: Any) -> None:
    assert not accepted(name, value)
    assert openapi.faults(name, value)


TAKEN: Final[list[tuple[str, Any]]] = [
    ("PackEvent", changed(REQUESTED, **{"x-trace": {"any": [1]}})),
    ("PackEvent", changed(REQUESTED, packId=None, requestedBy=None, expiresAt=None, policy=None)),
    ("PackEvent", changed(REQUESTED, message={"locale": "no tag at all", "title": None})),
    ("PackEvent", changed(REQUESTED, occurredAt="2026-11-04t09:30:00.123456789+01:00")),
    ("PackEvent", changed(REQUESTED, packId="pkg:a/b@c", eventId="..a")),
    ("PackEvent", changed(events.load("hold-en"), resume=None)),
    ("AckRequest", changed(ACK, round=2**31 - 1)),
    ("AckRequest", changed(ACK, round=None, actor=None, comment=None, tenant=None, runId=None)),
    ("CloudEvent", changed(CLOUD, data=None, data_base64="QUI=")),
    ("CloudEvent", changed(CLOUD, data={"a": [1.5]}, ext=-(2**31), other=True, more="x")),
    ("CloudEvent", changed(CLOUD, subject=None, time=None, tenant=None, ext=None)),
    ("TrialRequest", {}),
    ("SilenceRequest", {"when": "true", "reason": "r", "endsAt": "2026-11-04T10:00:00Z"}),
    ("PurgeRequest", {"dryRun": True, "cursor": None, "x-why": 1}),
    ("ResealRequest", {"cursor": "abc"}),
    ("LogLevelRequest", {"level": "debug"}),
]


@numbered(TAKEN)
def test_what_the_parsers_take_the_schema_takes(name: str, value: Any) -> None:
    assert accepted(name, value)
    assert openapi.faults(name, value) == []


ODD: Final = st.sampled_from(
    [
        *(
            None,
            "",
            ".",
            "a",
            "A.b_c:d@e+f-g/",
            "x" * 200,
            "x" * 201,
            HASH,
            HASH + "\n",
            "2026-11-04T09:30:00Z",
        ),
        *("approved", "pending", "1.0", "QUI=", "a\u200b", "\u0661", 0, 1, 100, 101, True, 0.5),
        *([], [""], ["a"], [1], [{"id": "a"}]),
        *({}, {"id": "a"}, {"id": ""}, {"a": "b"}, {"a": 1}, {"id": "a", "messages": ["b"]}),
    ]
)
"""Values that some member takes and others do not. An integer with a fraction, as 1.0, is left out: JSON Schema
looks at numbers, and the parsers at how they are written."""

MADE_OF: Final = {
    **{name: ("PackEvent", events.load(name)) for name in ("requested-en", "updated-approved", "hold-en")},
    "ack": ("AckRequest", {**ACK, "tenant": {"id": "acme"}, "runId": "r", "approvalId": "a", "actor": "x"}),
    "cloudevent": ("CloudEvent", {**CLOUD, "subject": "s", "data": 1, "tenant": "acme", "ext": 1}),
}


@pytest.mark.parametrize("made_of", MADE_OF)
@given(data=st.data())
def test_parsers_and_schemas_agree_on_any_document(made_of: str, data: st.DataObject) -> None:
    name, base = MADE_OF[made_of]
    names = st.sampled_from([*base, "x-a", "colour"])
    changes = data.draw(st.dictionaries(names, st.one_of(ODD, st.just(...)), max_size=3))
    if name == "CloudEvent":  # null counts as left out, whatever the name
        changes = {member: value for member, value in changes.items() if value is not None}
    value = changed(base, **changes)
    assert accepted(name, value) is (openapi.faults(name, value) == [])


# --- models ------------------------------------------------------------------------------------------------


def balanced(text: str) -> bool:
    stack: list[str] = []
    for sign in re.findall(r"[(){}\[\]]", re.sub(r"//.*|\"[^\"\n]*\"|`[^`\n]*`", "", text)):
        if sign in "({[":
            stack.append(sign)
        elif not stack or stack.pop() + sign not in ("()", "{}", "[]"):
            return False
    return not stack


def test_the_go_models_are_balanced_and_declare_each_name_once() -> None:
    text = (SHOWN / "models.go").read_text(encoding="utf-8")
    assert balanced(text)
    declared = re.findall(r"^(?:type|const) (\w+)", text, re.MULTILINE)
    declared += [
        name
        for block in re.findall(r"const \(\n(.*?)\n\)", text, re.S)
        for name in re.findall(r"^\t(\w+)", block, re.M)
    ]
    assert len(declared) > 100
    assert sorted(declared) == sorted(set(declared))
    for struct in re.findall(r"struct \{\n(.*?)\n\}", text, re.DOTALL):
        fields = re.findall(r"^\t(\w+)", struct, re.MULTILINE)
        assert len(set(fields)) == len(fields)


def test_the_go_models_name_no_type_that_is_not_there() -> None:
    text = (SHOWN / "models.go").read_text(encoding="utf-8")
    known = set(re.findall(r"^type (\w+)", text, re.MULTILINE)) | {
        "string",
        "int64",
        "float64",
        "bool",
        "any",
    }
    used = re.findall(r"^\t\w+ +(?:\*|\[\]|map\[string\])*([\w.]+) +`json", text, re.MULTILINE)
    assert used
    assert set(used) - known == {"time.Time"}


def test_the_csharp_models_are_balanced_and_declare_each_name_once() -> None:
    text = (SHOWN / "Models.cs").read_text(encoding="utf-8")
    assert balanced(text)
    declared = re.findall(r"^public (?:sealed record|enum|interface) (\w+)", text, re.MULTILINE)
    assert len(declared) > 50
    assert sorted(declared) == sorted(set(declared))
    for name, body in re.findall(r"^public (?:sealed record|enum) (\w+)[^{]*\{\n(.*?)^\}", text, re.M | re.S):
        members = re.findall(r"^    (?:public .*?(\w+) \{ get|\[JsonString.*\] (\w+),)", body, re.MULTILINE)
        names = [one or other for one, other in members]
        assert names
        assert len(set(names)) == len(names)
        assert name not in names  # C# has no member that is named as its type


def test_the_csharp_models_name_no_type_that_is_not_there() -> None:
    text = (SHOWN / "Models.cs").read_text(encoding="utf-8")
    known = set(re.findall(r"^public (?:sealed record|enum|interface) (\w+)", text, re.MULTILINE))
    library = {"string", "long", "double", "bool", "DateTimeOffset", "JsonElement"}
    library |= {"IReadOnlyList", "IReadOnlyDictionary", "IDictionary"}
    used = {
        word
        for kind in re.findall(r"public (?:required )?(\S.*?) \w+ \{ get", text)
        for word in re.findall(r"\w+", kind)
    }
    assert used - library <= known


def test_the_languages_types_of_the_schemas_are_those_of_the_models() -> None:
    go, csharp = ((SHOWN / name).read_text(encoding="utf-8") for name in ("models.go", "Models.cs"))
    records = [shape for shape in types() if shape.kind in (Kind.RECORD, Kind.ENUMERATION)]
    schemas = DOCUMENT["components"]["schemas"]
    for shape in records:
        assert (schemas[shape.name]["x-go-type"], schemas[shape.name]["x-cs-type"]) == (
            shape.name,
            shape.name,
        )
        assert re.search(rf"^type {shape.name} ", go, re.MULTILINE)
        assert re.search(rf"^public (?:sealed record|enum) {shape.name}\b", csharp, re.MULTILINE)
        for member in members_of(shape):
            assert f'json:"{member.name}' in go
            assert f'[JsonPropertyName("{member.name}")]' in csharp


# --- its parts ---------------------------------------------------------------------------------------------


def test_a_type_that_the_contract_has_no_form_for_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="no form for <class 'bytes'>"):
        shape_of(bytes)


def test_two_types_cannot_share_a_name() -> None:
    @frozen
    class Tenant:
        other: str

    with pytest.raises(TypeError, match="two types of the contract are named Tenant"):
        known_types([wire.AckRequest, Tenant])


# --- the command -------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["contract", *arguments])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_prints_a_format(name: str) -> None:
    assert run("--format", name) == (0, shipped(FORMATS[name]))


def test_the_command_prints_openapi_unless_told_otherwise() -> None:
    assert run() == (0, shipped("openapi.yaml"))


def test_the_command_prints_the_document_as_json() -> None:
    code, output = run("--json")
    assert (code, json.loads(output)) == (0, DOCUMENT)


def test_the_command_writes_all_files_into_a_folder_that_need_not_exist(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "contract"
    code, output = run("--out", str(folder))
    assert code == 0
    assert output.split() == [str(folder / name) for name in FORMATS.values()]
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == {
        name: shipped(name) for name in FORMATS.values()
    }


def test_the_command_writes_one_file_where_one_is_asked_for(tmp_path: Path) -> None:
    assert run("--format", "go", "--out", str(tmp_path)) == (0, f"{tmp_path / 'models.go'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["models.go"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models.go").mkdir()
    code, output = run("--format", "go", "--out", str(tmp_path))
    assert code == 1
    assert output == f"notifyd: {tmp_path / 'models.go'}: Is a directory\n"


@pytest.mark.parametrize("arguments", [("--json", "--format", "go"), ("--json", "--out", ".")])
def test_json_goes_with_the_document_only(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2
