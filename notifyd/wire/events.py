"""What comes in over HTTP, as frozen records, validated in full: Task Runner's events, acks, CloudEvents.

The records' docstrings and types are the contract's source. A member that is not required may be left out;
one whose type allows None may also be null.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs
from attrs import field, frozen

from notifyd.errors import Fault, InvalidError
from notifyd.model import APPROVAL_KIND, POLICY_KIND, Choice, InputType, Instant, Status
from notifyd.security.secrets import Secret
from notifyd.wire import codec
from notifyd.wire.records import Check, between, choice, expected, listed, matching, string, wire_name

MAX_BATCH: Final = 100
"""How many CloudEvents one batch may hold."""

MAX_APPROVALS: Final = 100
"""How many people an approval may require."""

MAX_GROUPS: Final = 20
"""How many groups an approval may require people of."""

MAX_LINKS: Final = 10
"""How many addresses a request may show."""

# --- members -----------------------------------------------------------------------------------------------

_LOCALE: Final = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,4}")


def _text(value: Any, _: Any = None) -> str:
    if type(value) is not str or not value:
        string(value)
        raise ValueError("must not be empty")
    return value


def _instant(value: Any, _: Any = None) -> Instant:
    return codec.parse_instant(string(value))


def _locale(value: Any, _: Any = None) -> str | None:
    return str(value) if _LOCALE.fullmatch(string(value)) else None


_ID_FORM: Final = "1 to 200 characters of A-Z a-z 0-9 . _ : @ + - and not dots alone"
_PACK_ID_FORM: Final = "1 to 200 characters of A-Z a-z 0-9 . _ : @ + - / and not dots alone"

Id: TypeAlias = Annotated[str, matching(r"\.*[A-Za-z0-9_:@+-][A-Za-z0-9._:@+-]*", _ID_FORM, max_length=200)]
PackId: TypeAlias = Annotated[
    str, matching(r"\.*[A-Za-z0-9_:@+/-][A-Za-z0-9._:@+/-]*", _PACK_ID_FORM, max_length=200)
]
PlanHash: TypeAlias = Annotated[
    str, matching("sha256:[0-9a-f]{64}", "sha256: and 64 lower-case hexadecimal digits")
]
Text: TypeAlias = Annotated[str, Check(_text, {"type": "string", "minLength": 1})]
Time: TypeAlias = Annotated[
    Instant, Check(_instant, {"type": "string", "format": "date-time", "pattern": f"^{codec.RFC3339}$"})
]
Count: TypeAlias = Annotated[int, between(1, MAX_APPROVALS)]
GroupName: TypeAlias = Annotated[
    str, matching(r"[^\x00-\x1f\x7f]{1,100}", "1 to 100 characters, none of them a control character")
]
LinkRel: TypeAlias = Annotated[
    str, matching("[a-z][a-z0-9.-]{0,39}", "a small letter, and up to 39 of a-z 0-9 . -")
]
LinkHref: TypeAlias = Annotated[
    str,
    matching(
        r"https://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][!#-;=?-\[\]_a-z~]*)?",
        "an https address of up to 2,048 ASCII characters, without a user's name",
        max_length=2048,
    ),
]
LinkTitle: TypeAlias = Annotated[
    str, matching(r"[^\x00-\x1f\x7f]{1,200}", "1 to 200 characters, none of them a control character")
]
Round: TypeAlias = Annotated[int, between(1, 2**31 - 1)]
InputName: TypeAlias = Annotated[
    str, matching("[A-Za-z_][A-Za-z0-9_-]{0,63}", "a letter or _, and up to 63 of A-Z a-z 0-9 _ -")
]
InputKind: TypeAlias = Annotated[InputType, choice(InputType)]
InputPattern: TypeAlias = Annotated[
    str, matching(".{1,200}", "1 to 200 characters, none of them a line break")
]
InputChoice: TypeAlias = Annotated[
    str, matching(r"[^\x00-\x1f\x7f]{1,200}", "1 to 200 characters, none of them a control character")
]
EndStatus: TypeAlias = Annotated[Status, choice(s for s in Status if s.ended)]
Decision: TypeAlias = Annotated[Choice, choice(Choice)]

Locale: TypeAlias = Annotated[
    str,
    Check(_locale, {"type": "string", "description": "A wish: what is no BCP 47 tag is read as no wish."}),
]


@frozen
class Tenant:
    """The owner of the run. `project` is for rules and readers."""

    id: Id
    project: str | None = None


@frozen
class Step:
    """One step of the plan that waits."""

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
    """The policy that asks for approval, or holds a run, and what it has to say."""

    id: Text
    version: str | None = None
    messages: tuple[str, ...] = ()


@frozen
class Resume:
    """Where the decision is to be posted, and the secret that the runner wants back with it."""

    callback_url: Text
    token: Secret


@frozen
class ApprovalInput:
    """Something that people are asked to fill in as they approve. `label` is by default the name."""

    name: InputName
    type: InputKind
    label: Text | None = None
    required: bool = False
    pattern: InputPattern | None = None
    choices: tuple[InputChoice, ...] = ()
    default: Any = None


@frozen
class ApprovalGroup:
    """`required` distinct people who hold `grant` must approve. One person counts in one group only."""

    name: GroupName
    grant: Text
    required: Count


@frozen
class EventLink:
    """An address that readers may want: of the run (`rel` is `run`), of a dashboard, of the change."""

    rel: LinkRel
    href: LinkHref
    title: LinkTitle | None = None


# --- Task Runner's events ----------------------------------------------------------------------------------


@frozen(kw_only=True)
class PackEvent:
    """What Task Runner's events have in common."""

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
    approval_groups: tuple[ApprovalGroup, ...] = ()
    inputs: tuple[ApprovalInput, ...] = ()
    links: tuple[EventLink, ...] = ()
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


_STAND_INS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("eventId", "runId", "approvalId", "decidedBy"), "-"),
    "type": "",
    "occurredAt": "2000-01-01T00:00:00Z",
    "tenant": {"id": "-"},
    "planHash": "sha256:" + 64 * "0",
    "status": "approved",
    "policy": {"id": "-"},
    "resume": dict.fromkeys(("callbackUrl", "token"), "-"),
}
"""What is read in place of a required member that is at fault."""


def sound_part(document: Any, faults: Iterable[Fault]) -> PackEvent | None:
    """An event that has `faults`, without the members at fault or with something in their place.

    So what else is wrong with it can be told together with them. None where too little of it can be read.
    """
    places = [fault.pointer.split("/")[1:] for fault in faults]
    if type(document) is not dict or [] in places:
        return None
    sound = dict(document)
    for name, *inner in places:
        stand_in, given = _STAND_INS.get(name), sound.get(name)
        if type(stand_in) is dict and type(given) is dict:
            sound[name] = {n: v for n, v in given.items() if [n] != inner[:1]} | {
                n: v for n, v in stand_in.items() if [n] == inner[:1]
            }
        elif stand_in is not None:
            sound[name] = stand_in
        else:
            sound.pop(name, None)
    if sound["type"] not in PACK_EVENTS:
        sound = {name: value for name, value in sound.items() if name not in _OWN_MEMBERS}
    try:
        return codec.structure(sound, PACK_EVENTS.get(sound["type"], PackEvent))
    except InvalidError:
        return None


# --- decisions ---------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class AckRequest:
    """A decision. `tenant`, `runId` and `approvalId` are required where the body is signed.

    `round` is required once the approval has had more than one.
    """

    decision: Decision
    plan_hash: PlanHash
    round: Round | None = None
    actor: Text | None = None
    comment: str | None = None
    on_behalf_of: Text | None = None
    break_glass: bool = False
    inputs: Mapping[str, Any] = field(factory=dict)
    tenant: Tenant | None = None
    run_id: Id | None = None
    approval_id: Id | None = None


def parse_ack(document: Any) -> AckRequest:
    """The record of an ack's body. Raises `InvalidError` with every fault."""
    return codec.structure(document, AckRequest)


# --- CloudEvents 1.0 ---------------------------------------------------------------------------------------

EXTENSION_NAME: Final = "[a-z0-9]{1,100}"
EXTENSION_RANGE: Final = (-(2**31), 2**31 - 1)
"""An extension's name, and the integers it may be."""

_EXTENSION_NAME: Final = re.compile(EXTENSION_NAME)
_RESERVED_KINDS: Final = (APPROVAL_KIND, POLICY_KIND)

Base64: TypeAlias = Annotated[
    str,
    matching("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", "base64"),
]


def _kind(value: Any, _: Any = None) -> str:
    if _text(value) in _RESERVED_KINDS:
        raise ValueError("must not be a kind that Task Runner's events have")
    return str(value)


Kind: TypeAlias = Annotated[
    str, Check(_kind, {"type": "string", "minLength": 1, "not": {"enum": list(_RESERVED_KINDS)}})
]


@frozen(kw_only=True)
class CloudEvent:
    """One event in the JSON format (https://github.com/cloudevents/spec, version 1.0.2).

    `data_base64` is kept as it came. Attributes that the specification does not name are extensions: strings,
    booleans and integers; but for `tenant` the record holds them in `extensions`. An attribute that is null
    counts as left out.
    """

    specversion: Annotated[str, choice(["1.0"])]
    id: Text
    source: Text
    type: Kind
    subject: Text | None = None
    time: Time | None = None
    datacontenttype: Text | None = None
    dataschema: Text | None = None
    data: Any = None
    data_base64: Base64 | None = field(default=None, metadata={"wire": "data_base64"})
    tenant: Id | None = None
    extensions: Mapping[str, Any] = field(factory=dict, metadata={"wire": "-"})


_ATTRIBUTES: Final = frozenset(wire_name(a) for a in attrs.fields(CloudEvent)) - {"-"}
_REQUIRED: Final = frozenset({"specversion", "id", "source", "type"})
_NONE: Final[Mapping[str, Any]] = {}


def parse_cloud_event(document: Any, base: str = "") -> CloudEvent:
    """The record of an event in structured mode. Raises `InvalidError` with every fault, below `base`."""
    if type(document) is not dict:
        raise InvalidError([Fault(base, str(expected("an object", document)))])
    core, extensions = document, _NONE
    faults: list[Fault] = []
    if not document.keys() <= _ATTRIBUTES or None in document.values():
        core = {k: v for k, v in document.items() if k in _ATTRIBUTES and (v is not None or k in _REQUIRED)}
        extensions = {k: v for k, v in document.items() if k not in _ATTRIBUTES and v is not None}
        refused = ((name, _refuse(name, value)) for name, value in extensions.items())
        faults = [Fault(base + codec.pointer(name), fault) for name, fault in refused if fault]
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
    if type(value) is int and EXTENSION_RANGE[0] <= value <= EXTENSION_RANGE[1]:
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
