"""What comes in over HTTP, as frozen records, validated in full: Task Runner's events, acks, CloudEvents.

The records' docstrings and types are the contract's source. A member that is not required may be left out;
one whose type allows None may also be null.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs
from attrs import field, frozen

from notifyd import codec
from notifyd.errors import Fault, InvalidError
from notifyd.model import APPROVAL_KIND, POLICY_KIND, Choice, Instant, Status
from notifyd.records import Check, expected, listed, one_of, string, wire_name
from notifyd.secrets import Secret

MAX_BATCH: Final = 100
"""How many CloudEvents one batch may hold."""

# --- members -----------------------------------------------------------------------------------------------

_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:@+-]{1,200}")
_PACK_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:@+/-]{1,200}")
_PLAN_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LOCALE: Final = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,4}")


def _id(value: Any) -> str:
    if type(value) is not str or not _ID.fullmatch(value):
        raise _mismatch(value, "1 to 200 characters of A-Z a-z 0-9 . _ : @ + - and not dots alone")
    return value


def _pack_id(value: Any) -> str:
    if type(value) is not str or not _PACK_ID.fullmatch(value):
        raise _mismatch(value, "1 to 200 characters of A-Z a-z 0-9 . _ : @ + - / and not dots alone")
    return value


def _plan_hash(value: Any) -> str:
    if type(value) is not str or not _PLAN_HASH.fullmatch(value):
        raise _mismatch(value, "sha256: and 64 lower-case hexadecimal digits")
    return value


def _mismatch(value: Any, form: str) -> ValueError:
    string(value)
    return ValueError(f"must be {form}")


def _text(value: Any) -> str:
    if type(value) is not str or not value:
        string(value)
        raise ValueError("must not be empty")
    return value


def _instant(value: Any) -> Instant:
    return codec.parse_instant(string(value))


def _locale(value: Any) -> str | None:
    return str(value) if _LOCALE.fullmatch(string(value)) else None


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 100:
        raise ValueError("must be an integer from 1 to 100")
    return value


Id: TypeAlias = Annotated[str, Check(_id)]
PackId: TypeAlias = Annotated[str, Check(_pack_id)]
PlanHash: TypeAlias = Annotated[str, Check(_plan_hash)]
Text: TypeAlias = Annotated[str, Check(_text)]
Time: TypeAlias = Annotated[Instant, Check(_instant)]
Count: TypeAlias = Annotated[int, Check(_count)]
EndStatus: TypeAlias = Annotated[Status, Check(one_of(s for s in Status if s.ended))]
Decision: TypeAlias = Annotated[Choice, Check(one_of(Choice))]

Locale: TypeAlias = Annotated[str, Check(_locale)]
"""A wish: what does not look like a BCP 47 tag is read as no wish."""


@frozen
class Tenant:
    id: Id
    project: str | None = None


@frozen
class Step:
    id: Text
    name: str | None = None


@frozen
class MessageWish:
    """What the sender would have people told: a template's name, a locale, and texts of its own."""

    template: str | None = None
    locale: Locale | None = None
    title: str | None = None
    summary: str | None = None


@frozen
class Policy:
    id: Text
    version: str | None = None
    messages: tuple[str, ...] = ()


@frozen
class Resume:
    callback_url: Text
    token: Secret


# --- Task Runner's events ----------------------------------------------------------------------------------


@frozen(kw_only=True)
class PackEvent:
    """What the four types have in common."""

    type: str
    event_id: Id
    occurred_at: Time
    tenant: Tenant
    run_id: Id
    approval_id: Id
    plan_hash: PlanHash
    pack_id: PackId | None = None
    required_grants: tuple[Text, ...] = ()
    required_approvals: Count = 1
    steps: tuple[Step, ...] = ()
    requested_by: Text | None = None
    expires_at: Time | None = None
    message: MessageWish = MessageWish()
    labels: Mapping[str, str] = field(factory=dict)
    parameters: Mapping[str, Any] = field(factory=dict)
    policy: Policy | None = None
    resume: Resume | None = None


@frozen(kw_only=True)
class PackApprovalRequested(PackEvent):
    """People are asked to approve a plan."""

    type: Literal["PackApprovalRequested"] = "PackApprovalRequested"
    resume: Resume


@frozen(kw_only=True)
class PackApprovalUpdated(PackEvent):
    """An approval ended elsewhere."""

    type: Literal["PackApprovalUpdated"] = "PackApprovalUpdated"
    status: EndStatus
    decided_by: Text


@frozen(kw_only=True)
class PackPolicyHold(PackEvent):
    """A policy stopped a run."""

    type: Literal["PackPolicyHold"] = "PackPolicyHold"
    policy: Policy


@frozen(kw_only=True)
class PackPolicyReleased(PackEvent):
    """A policy lets a run go on."""

    type: Literal["PackPolicyReleased"] = "PackPolicyReleased"
    policy: Policy


PACK_EVENTS: Final[Mapping[str, type[PackEvent]]] = {
    cls.__name__: cls
    for cls in (PackApprovalRequested, PackApprovalUpdated, PackPolicyHold, PackPolicyReleased)
}
"""The records by `type`."""

_TYPES: Final = listed(PACK_EVENTS)
_OWN_MEMBERS: Final = frozenset({"status", "decidedBy"})


def parse_pack_event(document: Any) -> PackEvent:
    """The record of one of Task Runner's events. Raises `InvalidError` with every fault."""
    if type(document) is not dict:
        raise InvalidError([Fault("", str(expected("an object", document)))])
    cls = PACK_EVENTS.get(document["type"]) if type(document.get("type")) is str else None
    if cls is None:
        raise codec.invalid(_faults_without_type(document))
    return codec.structure(document, cls)


def _faults_without_type(document: dict[str, Any]) -> list[Fault]:
    """The type's own fault, and those of the members that every type has."""
    common = {name: value for name, value in document.items() if name not in _OWN_MEMBERS} | {"type": ""}
    faults = [Fault("/type", "is required" if "type" not in document else f"must be {_TYPES}")]
    try:
        codec.structure(common, PackEvent)
    except InvalidError as error:
        faults += error.faults
    return faults


# --- decisions ---------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class AckRequest:
    """The body of an ack. `tenant`, `run_id` and `approval_id` are required where a signature covers it."""

    decision: Decision
    plan_hash: PlanHash
    actor: Text | None = None
    comment: str | None = None
    tenant: Tenant | None = None
    run_id: Id | None = None
    approval_id: Id | None = None


def parse_ack(document: Any) -> AckRequest:
    """The record of an ack's body. Raises `InvalidError` with every fault."""
    return codec.structure(document, AckRequest)


# --- CloudEvents 1.0 ---------------------------------------------------------------------------------------

_EXTENSION_NAME: Final = re.compile(r"[a-z0-9]{1,100}")
_RESERVED_KINDS: Final = frozenset({APPROVAL_KIND, POLICY_KIND})


def _kind(value: Any) -> str:
    if _text(value) in _RESERVED_KINDS:
        raise ValueError("must not be a kind that Task Runner's events have")
    return str(value)


def _base64(value: Any) -> str:
    try:
        base64.b64decode(string(value), validate=True)
    except binascii.Error:
        raise ValueError("must be base64") from None
    return str(value)


@frozen(kw_only=True)
class CloudEvent:
    """One event in the JSON format (https://github.com/cloudevents/spec, version 1.0.2).

    `data_base64` is kept as it came. `extensions` are the attributes that the specification does not name
    (strings, booleans and integers), without `tenant`. An attribute that is null counts as left out.
    """

    specversion: Annotated[str, Check(one_of(["1.0"]))]
    id: Text
    source: Text
    type: Annotated[str, Check(_kind)]
    subject: Text | None = None
    time: Time | None = None
    datacontenttype: Text | None = None
    dataschema: Text | None = None
    data: Any = None
    data_base64: Annotated[str, Check(_base64)] | None = field(default=None, metadata={"wire": "data_base64"})
    tenant: Id | None = None
    extensions: Mapping[str, Any] = field(factory=dict, metadata={"wire": "-"})


_ATTRIBUTES: Final = frozenset(wire_name(a) for a in attrs.fields(CloudEvent)) - {"-"}
_REQUIRED: Final = frozenset({"specversion", "id", "source", "type"})


def parse_cloud_event(document: Any, base: str = "") -> CloudEvent:
    """The record of an event in structured mode. Raises `InvalidError` with every fault, below `base`."""
    if type(document) is not dict:
        raise InvalidError([Fault(base, str(expected("an object", document)))])
    core = {k: v for k, v in document.items() if k in _ATTRIBUTES and (v is not None or k in _REQUIRED)}
    extensions = {k: v for k, v in document.items() if k not in _ATTRIBUTES and v is not None}
    faults = [
        Fault(base + codec.pointer(k), fault) for k, v in extensions.items() if (fault := _refuse(k, v))
    ]
    if "data" in core and "data_base64" in core:
        faults.append(Fault(base + "/data_base64", "must not be given together with data"))
    try:
        event = codec.structure(core, CloudEvent, base)
    except InvalidError as error:
        faults += error.faults
    if faults:
        raise codec.invalid(faults)
    return attrs.evolve(event, extensions=extensions) if extensions else event


def _refuse(name: str, value: Any) -> str | None:
    if not _EXTENSION_NAME.fullmatch(name):
        return "is not a known member: an extension's name is lower-case letters and digits"
    if type(value) is int and -(2**31) <= value < 2**31:
        return None
    if type(value) not in (str, bool):
        return "must be a string, a boolean or an integer of 32 bits"
    return None


def parse_cloud_events(document: Any) -> tuple[CloudEvent, ...]:
    """The records of a batch. Raises `InvalidError` with every fault of every event."""
    if type(document) is not list:
        raise InvalidError([Fault("", str(expected("an array", document)))])
    if len(document) > MAX_BATCH:
        raise InvalidError([Fault("", f"must not hold more than {MAX_BATCH} events")])
    events: list[CloudEvent] = []
    faults: list[Fault] = []
    for index, member in enumerate(document):
        try:
            events.append(parse_cloud_event(member, codec.pointer(index)))
        except InvalidError as error:
            faults += error.faults
    if faults:
        raise codec.invalid(faults)
    return tuple(events)


def structured_form(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """An event in binary mode (HTTP binding 1.0.2, section 3.1) as the document it is in structured mode.

    Data is a JSON value where `Content-Type` is JSON or missing, text where it is `text/*` in UTF-8, else
    base64. Raises `MalformedError` or `InvalidError` where the body is not the JSON it is said to be.
    """
    document: dict[str, Any] = {}
    for name, value in headers.items():
        if (lower := name.lower()).startswith("ce-"):
            document[lower[3:]] = _header_text(value, lower[3:])
    content_type = next((v for k, v in headers.items() if k.lower() == "content-type"), None)
    if content_type is not None:
        document["datacontenttype"] = _header_text(content_type, "datacontenttype")
    if body:
        name, data = _data(content_type or "application/json", body)
        document[name] = data
    return document


def _header_text(value: str, name: str) -> str:
    """A header's value, percent-decoded (section 3.1.3.2)."""
    try:
        return unquote_to_bytes(value).decode() if "%" in value else value.encode().decode()
    except UnicodeError:
        raise InvalidError([Fault(codec.pointer(name), "must be UTF-8, percent-encoded")]) from None


def _data(content_type: str, body: bytes) -> tuple[str, Any]:
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        return "data", codec.loads(body)
    if media.startswith("text/"):
        try:
            return "data", body.decode()
        except UnicodeDecodeError:
            pass  # another charset: kept as the bytes it is
    return "data_base64", base64.b64encode(body).decode()


def cloud_event_from_headers(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The record of an event in binary mode. Raises as `structured_form` and `parse_cloud_event` do."""
    return parse_cloud_event(structured_form(headers, body))
