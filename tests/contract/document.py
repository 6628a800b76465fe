"""The OpenAPI 3.1 document: the operations, the schemas, and what a caller may rely on."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import cache
from itertools import combinations, groupby
from typing import Any, Final

from notifyd import __version__, correlation
from notifyd.config.settings import Scope
from notifyd.errors import UnauthenticatedError, UnavailableError
from notifyd.security.signing import SIGNATURE_HEADER
from notifyd.web import problems
from notifyd.web.auth import CLIENT_HEADER, TENANT_HEADERS, Signature
from notifyd.web.body import JSON
from notifyd.web.channels import TrialRequest
from notifyd.web.keys import ResealRequest
from notifyd.web.lists import DEFAULT_LIMIT, MAX_LIMIT
from notifyd.web.log_level import LogLevelRequest
from notifyd.web.purge import PurgeRequest
from notifyd.web.silences import SilenceRequest
from notifyd.wire import codec
from notifyd.wire.events import MAX_BATCH, PACK_EVENTS, AckRequest, CloudEvent
from tests.contract import answers
from tests.contract.operations import HTML, OPERATIONS, Answer, Faults, Operation, Query
from tests.contract.schemas import Schema, array_of, components, reference
from tests.contract.shapes import Shape, known_types

RECORDS: Final[tuple[type[Any], ...]] = (
    *PACK_EVENTS.values(),
    *(CloudEvent, AckRequest, TrialRequest, PurgeRequest, ResealRequest, LogLevelRequest),
    *(answers.Accepted, answers.AcceptedBatch, answers.AckAnswer, answers.DecisionCallback),
    answers.ReceiptEnvelope,
    *(
        answers.Approval,
        answers.ApprovalWithHistory,
        answers.Delivery,
        answers.Dead,
        answers.DeadRetried,
        answers.AuditRecord,
        answers.SealedAudit,
        answers.Channel,
    ),
    *(
        answers.ApprovalPage,
        answers.DeliveryPage,
        answers.DeadPage,
        answers.AuditPage,
        answers.SealedAuditPage,
        answers.ChannelPage,
    ),
    *(answers.Incident, answers.IncidentPage, SilenceRequest, answers.Silence, answers.SilencePage),
    *(answers.ChannelTest, answers.PurgeAnswer, answers.SealKeyList, answers.ResealAnswer, answers.Health),
    *(answers.LogLevelAnswer, answers.KeySet, answers.Problem, answers.Notification),
)
"""What comes in and goes out. What they lead to is in the contract too."""

RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
"""The statuses after which the same request may do better; 504 is a proxy's. Every other refusal is final."""

_TEXT: Final = {"type": "string", "x-go-type": "string", "x-cs-type": "string"}
_WHOLE: Final = {"type": "integer", "x-go-type": "int64", "x-cs-type": "long"}
_INFO: Final = f"""\
notifyd takes events, tells people, and posts what they decide back to the system that asked.

Errors are `application/problem+json` (RFC 9457) with a stable `code`; the codes an operation knows stand at its \
answers as `x-codes`. `x-retry` says whether the same request may do better later: then wait for a random time \
between zero and a limit that doubles with each failure (full jitter), and not less than `Retry-After` says. \
A path that does not exist is 404, a method that a path does not take is 405.

JSON is UTF-8. Strings have up to {codec.MAX_STRING:,} characters, arrays and objects up to {codec.MAX_ITEMS:,} \
members, {codec.MAX_DEPTH} levels of nesting. A name may not come twice in one object. Integers go up to 2^53, \
and are written without fraction or exponent. Members may be added to answers: ignore what you do not know."""


def types() -> list[Shape]:
    """Every type of the contract, in the order in which the records lead to them."""
    return known_types(list(RECORDS))


@cache
def document() -> Mapping[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "notifyd",
            "version": __version__,
            "description": _INFO,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "x-acknowledgement": _acknowledgement(),
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in OPERATIONS)],
        "paths": _paths(),
        "webhooks": {"notification": {"post": _notification()}},
        "components": {
            "schemas": components(types()),
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


def _acknowledgement() -> dict[str, list[str]]:
    statuses = {meaning.status for meaning in problems.MEANINGS.values()} | {405}
    return {
        "done": ["2xx"],
        "final": [str(status) for status in sorted(statuses - RETRIED)],
        "retry": [str(status) for status in sorted(RETRIED)],
    }


# --- operations --------------------------------------------------------------------------------------------


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return paths


def _operation(operation: Operation) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text,
        "security": _security(operation),
        "parameters": _parameters(operation),
        "requestBody": _request_body(operation),
        "responses": _responses(operation),
        "callbacks": _CALLBACKS if operation.callback else None,
    }
    return {name: part for name, part in parts.items() if part or name == "security"}


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    """Each entry is enough; one with two schemes needs both, for the same client."""
    if operation.scope is None:
        return []
    scopes = [operation.scope.value]
    signed, shown, bearer = {"signature": scopes}, {"certificate": scopes}, {"bearer": scopes}
    alone = {
        Signature.REQUIRED: [signed, shown],
        Signature.TAKEN: [signed, shown, bearer],
        Signature.REFUSED: [shown, bearer],
    }[operation.signature]
    known = [shown, bearer] if operation.signature is Signature.REFUSED else [signed, shown, bearer]
    several = [dict(ChainMap(*ways)) for count in (2, 3) for ways in combinations(known, count)]
    return alone + several


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [segment[1:-1] for segment in operation.path.split("/") if segment.startswith("{")]
    found = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    found += [_query(query) for query in operation.query]
    shared = [*(("limit", "cursor") if operation.paged else ())]
    if operation.tagged:
        shared.append("known")
    if operation.scope is not None:
        shared += ["tenant", "stellaOpsTenant"]
    if operation.signature is not Signature.REFUSED:
        shared += ["client", "webhookId", "webhookTimestamp"]
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in [*shared, "correlationId"]]


def _query(query: Query) -> dict[str, Any]:
    schema = reference(query.choices.__name__) if query.choices else _TEXT
    return {"name": query.name, "in": "query", "description": query.text, "schema": schema}


def _request_body(operation: Operation) -> dict[str, Any] | None:
    if not operation.body:
        return None
    return {"required": operation.body_required, "content": _content(operation.body)}


def _content(schemas: Mapping[str, str]) -> dict[str, Any]:
    return {media: {"schema": _schema(name)} if name else {} for media, name in schemas.items()}


def _schema(name: str) -> Schema:
    """`A|B` is either, `A[]` a batch."""
    if name.endswith("[]"):
        return array_of(name[:-2], MAX_BATCH)
    if "|" not in name:
        return reference(name)
    either = [reference(one) for one in name.split("|")]
    return {"oneOf": either, "x-go-type": "any", "x-cs-type": "JsonElement"}


# --- answers -----------------------------------------------------------------------------------------------


def _responses(operation: Operation) -> dict[str, Any]:
    refuse = _refusal_page if operation.tag == "pages" else _refusal
    found = {str(status): _success(answer, operation.tagged) for status, answer in operation.answers.items()}
    return found | {
        str(status): refuse(status, tuple(faults))
        for status, faults in groupby(operation.faults, lambda fault: problems.meaning(fault).status)
    }


def _success(answer: Answer, tagged: bool) -> dict[str, Any]:
    headers = {"X-Correlation-ID": _header("correlationId")}
    if tagged:
        headers["ETag"] = _header("tag")
    elif not answer.content:
        headers["Location"] = _header("location")
    content = {"content": _content(answer.content)} if answer.content else {}
    return {"description": answer.text, "headers": headers, **content}


def _refusal(status: int, faults: Faults) -> dict[str, Any]:
    headers = {"X-Correlation-ID": _header("correlationId")}
    if any(issubclass(fault, UnavailableError) for fault in faults):
        headers["Retry-After"] = _header("retryAfter")
    if any(issubclass(fault, UnauthenticatedError) for fault in faults):
        headers["WWW-Authenticate"] = _header("authenticate")
    told = "; ".join(f"`{fault.code}`: {problems.meaning(fault).title}" for fault in faults)
    return {
        "description": f"{told}.",
        "headers": headers,
        "content": {problems.CONTENT_TYPE: {"schema": reference("Problem")}},
        "x-codes": [fault.code for fault in faults],
        "x-retry": status in RETRIED,
    }


def _refusal_page(status: int, faults: Faults) -> dict[str, Any]:
    """A page for people has no code."""
    refusal = _refusal(status, faults)
    told = "; ".join(problems.meaning(fault).title for fault in faults)
    del refusal["x-codes"]
    return refusal | {"description": f"{told}.", "content": {HTML: {}}}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


# --- what notifyd calls ------------------------------------------------------------------------------------

_TAKEN: Final = {
    "2XX": {"description": "Taken. It is not sent again."},
    "408": {"description": "Sent again."},
    "425": {"description": "Sent again."},
    "429": {"description": "Sent again, after `Retry-After` where there is one."},
    "5XX": {"description": "Sent again, after `Retry-After` where there is one."},
    "default": {"description": "Final: it is dead, and can be sent again by hand."},
}


def _call(summary: str, text: str, schema: str, *, required: bool) -> dict[str, Any]:
    """A call that notifyd makes: signed by Standard Webhooks, `webhook-id` the same over all attempts."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature", str(correlation.HEADER))
    always = ("webhook-id", "webhook-timestamp")
    return {
        "summary": summary,
        "description": text,
        "parameters": [
            {"name": name, "in": "header", "required": required or name in always, "schema": _TEXT}
            for name in names
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": reference(schema)}}},
        "responses": _TAKEN,
    }


def _notification() -> dict[str, Any]:
    return {"operationId": "notification", "security": []} | _call(
        "A message of a channel of type `webhook`",
        "Signed where the channel has a secret (`v1`) or the service a key in `keys.sign` (`v1a`)."
        " `webhook-id` is the delivery's id, the same over all attempts: a"
        " receiver that knows it answers 2xx and does nothing.",
        "Notification",
        required=False,
    )


_CALLBACKS: Final = {
    "decided": {
        "{$request.body#/resume/callbackUrl}": {
            "post": {"operationId": "decided", "security": []}  # it is signed, by no client of ours
            | _call(
                "The decision, to the system that asked",
                "Comes when a decision ends the approval, or when it expires. Signed with `resume.secrets`, by"
                " default with each secret of the client that posted the request (`v1`), and with the first"
                " key of `keys.sign` where there is one (`v1a`). `webhook-id` is the same"
                " over all attempts: a receiver that knows it answers 2xx and does nothing. Redirects are not"
                " followed.",
                "DecisionCallback",
                required=True,
            )
        }
    }
}


# --- what operations share ---------------------------------------------------------------------------------


def _parameter(name: str, place: str, text: str, schema: Schema = _TEXT) -> dict[str, Any]:
    return {"name": name, "in": place, "description": text, "schema": schema}


_PARAMETERS: Final = {
    "limit": _parameter(
        "limit",
        "query",
        "How many items a page has.",
        _WHOLE | {"minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    "cursor": _parameter(
        "cursor", "query", "The `nextCursor` of the page before. It holds for the same tenant and filter."
    ),
    "known": _parameter(
        "If-None-Match", "header", "The `ETag` that the caller has: what it names is answered with 304."
    ),
    "tenant": _parameter(
        str(TENANT_HEADERS[0]),
        "header",
        "The tenant, one of the caller's. Must be what the body says; needed where the body does not name one"
        " and the caller has several.",
    ),
    "stellaOpsTenant": _parameter(
        str(TENANT_HEADERS[1]), "header", f"The same as {TENANT_HEADERS[0]}; both, if sent, must agree."
    ),
    "client": _parameter(str(CLIENT_HEADER), "header", "The client that signs. Required with a signature."),
    "webhookId": _parameter(
        "webhook-id", "header", "The message's id, part of what is signed. Required with a signature."
    ),
    "webhookTimestamp": _parameter(
        "webhook-timestamp",
        "header",
        "Seconds since 1970, part of what is signed; within `auth.clock_tolerance` of the service's clock."
        " Required with a signature.",
    ),
    "correlationId": _parameter(
        str(correlation.HEADER),
        "header",
        "Goes with everything that follows from the request; made where it is missing or odd.",
        _TEXT | {"pattern": f"^{correlation.FORM}$"},
    ),
}

_HEADERS: Final = {
    "correlationId": {
        "description": "The request's, or one that was made.",
        "required": True,
        "schema": _TEXT,
    },
    "retryAfter": {"description": "Seconds to wait at least.", "schema": _WHOLE},
    "authenticate": {"description": "How to prove who is calling.", "schema": _TEXT},
    "tag": {
        "description": "Names the state that is shown, weakly (RFC 9110, section 8.8.3).",
        "schema": _TEXT,
    },
    "location": {"description": "Where to go on.", "schema": _TEXT},
}

_SECURITY: Final = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": str(SIGNATURE_HEADER),
        "description": (
            "Standard Webhooks 1.0.0: `v1,<base64 HMAC-SHA256 of id.timestamp.body>`, with the headers"
            f" `webhook-id` and `webhook-timestamp`, and `{CLIENT_HEADER}` with the client's name. It covers the"
            " body and nothing else."
        ),
    },
    "certificate": {
        "type": "mutualTLS",
        "description": "A TLS client certificate that bears one of the client's `certificate_names`.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "an API token, or a JWT",
        "description": (
            "An API token, or a JWT of the issuer that the service names in `auth.jwt`. Scopes:"
            f" {', '.join(f'`{scope.value}`' for scope in Scope)}."
        ),
    },
}
