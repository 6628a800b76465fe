"""What is served: each operation with what it takes, what it answers, and every fault it can be refused with.

A test compares this table with the routes of the application.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

from attrs import field, frozen

from notifyd import errors
from notifyd.config.settings import Scope
from notifyd.errors import NotifydError
from notifyd.model import State, Status
from notifyd.web import problems
from notifyd.web.auth import Signature
from notifyd.web.body import JSON
from notifyd.web.ingest import BATCH, STRUCTURED

HTML: Final = "text/html"
FORM: Final = "application/x-www-form-urlencoded"
TEXT: Final = "text/plain"

Faults: TypeAlias = tuple[type[NotifydError], ...]

_ALWAYS: Final[Faults] = (
    *(problems.InvalidHeaderError, problems.ExpectationError, problems.TooManyError),
    *(errors.UnavailableError, NotifydError),
)
_KNOWN: Final[Faults] = (
    *(errors.UnauthenticatedError, errors.CertificateInvalidError, errors.ScopeMissingError),
)
_TENANT: Final[Faults] = (errors.TenantMismatchError,)
_BODY: Final[Faults] = (
    errors.MalformedError,
    errors.InvalidError,
    errors.TooLargeError,
    errors.UnsupportedMediaError,
    problems.SlowBodyError,
)
_LIST: Final[Faults] = (problems.InvalidQueryError, problems.InvalidCursorError, errors.ListTimeoutError)
_STORE: Final[Faults] = (errors.StoreError,)
_ROW: Final[Faults] = (*_STORE, errors.UndecodableRowError)
"""Of what is about one stored row."""
_INGEST: Final[Faults] = (
    *(*_BODY, *_ROW),
    *(errors.TooOldError, errors.EventIdConflictError, errors.OverloadedError, errors.BacklogFullError),
)
_DECIDE: Final[Faults] = (
    *(*_BODY, *_ROW, errors.NotFoundError, errors.GrantMissingError, errors.SelfApprovalError),
    *(errors.AlreadyDecidedError, errors.ExpiredError, errors.PlanChangedError, errors.AlreadyVotedError),
    errors.WindowClosedError,
    errors.InputsDifferError,
)


@frozen
class Query:
    """A parameter of a list."""

    name: str
    text: str
    choices: type[StrEnum] | None = None


@frozen
class Answer:
    """A success: its text, and by media type the schema of the body, "" where it has none to tell of."""

    text: str
    content: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Operation:
    """One method on one path. `body` has schemas by media type, as `Answer.content` has."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    text: str = ""
    scope: Scope | None = None
    signature: Signature = Signature.REFUSED
    query: tuple[Query, ...] = ()
    body: Mapping[str, str] = field(factory=dict)
    body_required: bool = True
    answers: Mapping[int, Answer]
    refusals: Faults = ()
    guarded: bool = True  # by an allowlist of addresses
    paged: bool = False
    callback: bool = False
    tagged: bool = False  # takes If-None-Match, and answers with an ETag

    @property
    def faults(self) -> Faults:
        """Every class of faults it can be refused with, one time each, in the order of their statuses."""
        found = {*self.refusals, *_ALWAYS, *((problems.AddressNotAllowedError,) if self.guarded else ())}
        if self.scope is not None:
            found |= {*_KNOWN, *_TENANT}
        if self.signature is not Signature.REFUSED:
            found |= {errors.SignatureInvalidError}
        if self.signature is Signature.REQUIRED:
            found |= {errors.SignatureRequiredError}
        if self.paged:
            found |= {*_LIST, *_STORE}
        return tuple(sorted(found, key=lambda fault: (problems.meaning(fault).status, fault.code)))


def _page(schema: str) -> Mapping[int, Answer]:
    text = "One page of the list. It may have fewer items than asked for, or none: nextCursor tells of more."
    return {200: Answer(text, {JSON: schema})}


_UNTENANTED: Final = Query(
    "untenanted",
    "`true`: in place of a tenant's own, what concerns no tenant, such as refused callers. It takes the scope "
    "`Notifier.Operate` too.",
)
_RUN: Final = Query("runId", "Of this run only.")
_ACCEPTED: Final = "Accepted: durable, and not known before."
_DUPLICATE: Final = "A duplicate: known already, with the same content. The first answer again."
_EVENTS: Final = {JSON: "Accepted|AcceptedBatch"}

OPERATIONS: Final = (
    Operation(
        method="post",
        path="/notifications/pack-approvals",
        id="postPackEvent",
        tag="events",
        summary="Accept one of Task Runner's events",
        text=(
            "A 202 means that the event is on disk, and so is the approval or hold it creates. Sending the same"
            " event again is safe. The body must be signed, or the caller show a client certificate."
        ),
        scope=Scope.INGEST,
        signature=Signature.REQUIRED,
        body={JSON: "PackEvent"},
        answers={
            202: Answer(_ACCEPTED, {JSON: "Accepted"}),
            200: Answer(_DUPLICATE, {JSON: "Accepted"}),
        },
        refusals=_INGEST,
        callback=True,
    ),
    Operation(
        method="get",
        path="/notifications/pack-approvals",
        id="listApprovals",
        tag="approvals",
        summary="List approvals",
        scope=Scope.READ,
        query=(Query("status", "In this status only.", Status), _RUN),
        paged=True,
        answers=_page("ApprovalPage"),
    ),
    Operation(
        method="get",
        path="/notifications/pack-approvals/{runId}/{approvalId}",
        id="getApproval",
        tag="approvals",
        summary="Show an approval with its history",
        text=(
            "With `wait` it is answered once the approval is not what `If-None-Match` names, or after that time;"
            " without the header, once it changes, and at once where it has ended. A change is another status,"
            " round or plan, another vote, or another state of the callback: the `ETag` names these."
        ),
        scope=Scope.READ,
        query=(
            Query(
                "wait",
                "How long to wait for a change at most, up to 60s: a whole number and `ms`, `s` or `m`.",
            ),
        ),
        tagged=True,
        answers={
            200: Answer("The approval as it is now.", {JSON: "ApprovalWithHistory"}),
            304: Answer("It is what `If-None-Match` names.", {}),
        },
        refusals=(
            *(*_ROW, errors.NotFoundError, errors.ListTimeoutError),
            *(errors.TooManyWaitingError, problems.InvalidQueryError),
        ),
    ),
    Operation(
        method="get",
        path="/notifications/pack-approvals/{runId}/{approvalId}/receipt",
        id="getReceipt",
        tag="approvals",
        summary="Show the signed receipt of an approval's end",
        text="The same bytes each time: their SHA-256 is the `receiptHash` of the callback.",
        scope=Scope.READ,
        answers={200: Answer("The receipt.", {JSON: "ReceiptEnvelope"})},
        refusals=(*_ROW, errors.NotFoundError, errors.NoSigningKeyError),
    ),
    Operation(
        method="post",
        path="/notifications/pack-approvals/{runId}/{approvalId}/ack",
        id="postAck",
        tag="approvals",
        summary="Decide an approval",
        text=(
            "Repeating a decision is safe: it is answered with the first answer, byte for byte. A signed body"
            " must also have `tenant.id`, `runId` and `approvalId`, as a signature covers nothing else."
        ),
        scope=Scope.APPROVE,
        signature=Signature.TAKEN,
        body={JSON: "AckRequest"},
        answers={200: Answer("The decision is recorded, or was before.", {JSON: "AckAnswer"})},
        refusals=(*_DECIDE, errors.ActorNotAllowedError),
    ),
    Operation(
        method="post",
        path="/api/v1/events",
        id="postCloudEvents",
        tag="events",
        summary="Accept any other event, as CloudEvents 1.0",
        text=(
            "Structured mode, a batch, or binary mode: the attributes as `ce-` headers, and any media type. Binary"
            " mode takes no signature alone, as that covers no headers. A batch is taken whole or not at all."
        ),
        scope=Scope.INGEST,
        signature=Signature.TAKEN,
        body={STRUCTURED: "CloudEvent", BATCH: "CloudEvent[]", JSON: "CloudEvent", "*/*": ""},
        body_required=False,
        answers={
            202: Answer(f"{_ACCEPTED} Of a batch, at least one.", _EVENTS),
            200: Answer(f"{_DUPLICATE} Of a batch, all of them.", _EVENTS),
        },
        refusals=_INGEST,
    ),
    Operation(
        method="get",
        path="/api/v1/incidents",
        id="listIncidents",
        tag="incidents",
        summary="List what policies hold, or held, newest first",
        scope=Scope.READ,
        query=(Query("open", "`true`: what is held still; `false`: what is released."), _RUN),
        paged=True,
        answers=_page("IncidentPage"),
    ),
    Operation(
        method="get",
        path="/api/v1/silences",
        id="listSilences",
        tag="silences",
        summary="List silences, newest first",
        scope=Scope.READ,
        paged=True,
        answers=_page("SilencePage"),
    ),
    Operation(
        method="post",
        path="/api/v1/silences",
        id="addSilence",
        tag="silences",
        summary="Hold notifications back for a time",
        text=(
            "What events that meet `when` set off is held until the silence ends, and told then. Other nodes hold"
            " it within two seconds."
        ),
        scope=Scope.OPERATE,
        body={JSON: "SilenceRequest"},
        answers={200: Answer("The silence.", {JSON: "Silence"})},
        refusals=(*_BODY, *_STORE, errors.TooManySilencesError),
    ),
    Operation(
        method="delete",
        path="/api/v1/silences/{id}",
        id="endSilence",
        tag="silences",
        summary="End a silence now, and tell what it held",
        text="One that is over stays as it is.",
        scope=Scope.OPERATE,
        answers={200: Answer("The silence as it is then.", {JSON: "Silence"})},
        refusals=(errors.NotFoundError, *_ROW),
    ),
    Operation(
        method="get",
        path="/api/v1/deliveries",
        id="listDeliveries",
        tag="deliveries",
        summary="List deliveries, newest first",
        scope=Scope.READ,
        query=(Query("state", "In this state only.", State), Query("channel", "To this channel only.")),
        paged=True,
        answers=_page("DeliveryPage"),
    ),
    Operation(
        method="get",
        path="/api/v1/deliveries/{id}",
        id="getDelivery",
        tag="deliveries",
        summary="Show a delivery with its attempts",
        scope=Scope.READ,
        answers={200: Answer("The delivery as it is now.", {JSON: "Delivery"})},
        refusals=(errors.NotFoundError, *_ROW),
    ),
    Operation(
        method="post",
        path="/api/v1/deliveries/{id}/retry",
        id="retryDelivery",
        tag="deliveries",
        summary="Send a dead delivery again",
        scope=Scope.OPERATE,
        answers={200: Answer("It is pending again.", {JSON: "Delivery"})},
        refusals=(errors.NotFoundError, errors.NotRetryableError, *_ROW),
    ),
    Operation(
        method="get",
        path="/api/v1/dead",
        id="listDead",
        tag="deliveries",
        summary="List dead effects of approvals, then dead deliveries, each newest first",
        scope=Scope.READ,
        paged=True,
        answers=_page("DeadPage"),
    ),
    Operation(
        method="post",
        path="/api/v1/dead/{id}/retry",
        id="retryDead",
        tag="deliveries",
        summary="Try a dead effect or delivery again",
        scope=Scope.OPERATE,
        answers={200: Answer("It is owed again.", {JSON: "DeadRetried"})},
        refusals=(errors.NotFoundError, errors.NotRetryableError, *_ROW),
    ),
    Operation(
        method="get",
        path="/api/v1/channels",
        id="listChannels",
        tag="channels",
        summary="List the channels, and how each stands",
        scope=Scope.READ,
        answers={200: Answer("All channels, by name.", {JSON: "ChannelPage"})},
    ),
    Operation(
        method="post",
        path="/api/v1/channels/{name}/test",
        id="testChannel",
        tag="channels",
        summary="Send a test message now",
        scope=Scope.OPERATE,
        body={JSON: "TrialRequest"},
        body_required=False,
        answers={200: Answer("The channel took the message.", {JSON: "ChannelTest"})},
        refusals=(*_BODY, errors.NotFoundError, errors.ChannelFailedError, errors.UnavailableError),
    ),
    Operation(
        method="post",
        path="/api/v1/purge",
        id="purge",
        tag="operations",
        summary="Remove what is older than the configuration keeps",
        text="Works for a second; `nextCursor`, sent as `cursor`, goes on.",
        scope=Scope.OPERATE,
        body={JSON: "PurgeRequest"},
        body_required=False,
        answers={200: Answer("What this request has removed.", {JSON: "PurgeAnswer"})},
        refusals=(*_BODY, *_STORE, problems.InvalidCursorError, errors.JobTakenError),
    ),
    Operation(
        method="get",
        path="/api/v1/keys",
        id="listSealKeys",
        tag="operations",
        summary="List the keys of keys.seal, and how many rows need each",
        text="Reads every sealed row of all tenants, which takes seconds where there are many.",
        scope=Scope.OPERATE,
        answers={200: Answer("All keys.", {JSON: "SealKeyList"})},
        refusals=_STORE,
    ),
    Operation(
        method="post",
        path="/api/v1/keys/reseal",
        id="reseal",
        tag="operations",
        summary="Seal rows anew under the first key of keys.seal",
        text="Works for a second; `nextCursor`, sent as `cursor`, goes on. What is moved already is passed over.",
        scope=Scope.OPERATE,
        body={JSON: "ResealRequest"},
        body_required=False,
        answers={200: Answer("What this request has moved.", {JSON: "ResealAnswer"})},
        refusals=(*_BODY, *_STORE, problems.InvalidCursorError),
    ),
    Operation(
        method="get",
        path="/api/v1/log-level",
        id="getLogLevel",
        tag="operations",
        summary="The least that is logged",
        text="Of the node that answers.",
        scope=Scope.OPERATE,
        answers={200: Answer("The level.", {JSON: "LogLevelAnswer"})},
    ),
    Operation(
        method="post",
        path="/api/v1/log-level",
        id="setLogLevel",
        tag="operations",
        summary="Log more, or less",
        text="On the node that answers, until its next start.",
        scope=Scope.OPERATE,
        body={JSON: "LogLevelRequest"},
        answers={200: Answer("The level now.", {JSON: "LogLevelAnswer"})},
        refusals=_BODY,
    ),
    Operation(
        method="get",
        path="/api/v1/audit",
        id="listAudit",
        tag="operations",
        summary="List the audit trail, newest first",
        scope=Scope.READ,
        query=(
            _RUN,
            Query("approvalId", "Of approvals with this id only."),
            _UNTENANTED,
        ),
        paged=True,
        answers=_page("AuditPage"),
    ),
    Operation(
        method="get",
        path="/api/v1/audit/seals",
        id="listAuditSeals",
        tag="operations",
        summary="List the seals over the audit trail, oldest first, with their records",
        text="Up to the newest seal: what was written in the last seconds is not under one yet.",
        scope=Scope.READ,
        query=(_UNTENANTED,),
        paged=True,
        answers=_page("SealedAuditPage"),
    ),
    *(
        Operation(
            method="get",
            path=path,
            id=name,
            tag="operations",
            summary="Tell a person where to look",
            text="For browsers, which accept HTML; programs get 404.",
            answers={200: Answer("The page.", {HTML: ""})},
            refusals=(errors.NotFoundError,),
            guarded=False,
        )
        for path, name in (("/", "getHome"), ("/approvals", "getApprovalsHome"))
    ),
    Operation(
        method="get",
        path="/approvals/{link}",
        id="getApprovalPage",
        tag="pages",
        summary="Show an approver the plan behind a link",
        text="A page for people, and so are its refusals. It changes nothing.",
        answers={200: Answer("The page.", {HTML: ""})},
        refusals=(errors.NotFoundError, problems.LinkExpiredError, *_ROW),
        guarded=False,
    ),
    Operation(
        method="post",
        path="/approvals/{link}",
        id="postApprovalPage",
        tag="pages",
        summary="Decide as the person the link was sent to",
        text="The page's own form, with the token that the page holds. Without `confirmed` nothing is recorded: "
        "the answer says what the decision will do, or leads on to the provider where a sign-in comes first. "
        "Programs decide by the ack.",
        body={FORM: ""},
        answers={
            200: Answer("What the decision will do, to be confirmed.", {HTML: ""}),
            303: Answer("Decided: back to the page."),
        },
        refusals=(*_DECIDE, errors.ForbiddenError, problems.LinkExpiredError),
        guarded=False,
    ),
    Operation(
        method="get",
        path="/approvals/mine/{link}",
        id="getMinePage",
        tag="pages",
        summary="Show a person what waits for their decision",
        text="A page for people, and so are its refusals. It changes nothing.",
        answers={200: Answer("The page.", {HTML: ""})},
        refusals=(errors.NotFoundError, problems.LinkExpiredError, *_ROW),
        guarded=False,
    ),
    Operation(
        method="post",
        path="/approvals/mine/{link}",
        id="postMinePage",
        tag="pages",
        summary="Decide several requests as the person the link was sent to",
        text=(
            "The page's own form. Without `confirmed` nothing is recorded: the answer says what the decisions will"
            " do. What is not recorded is told by the page; its status is the highest of these."
        ),
        body={FORM: ""},
        answers={200: Answer("The decisions are recorded, or to be confirmed.", {HTML: ""})},
        refusals=(*_DECIDE, errors.ForbiddenError, problems.LinkExpiredError),
        guarded=False,
    ),
    Operation(
        method="get",
        path="/approvals/signed-in",
        id="endSignIn",
        tag="pages",
        summary="End an approver's sign-in",
        text="Where the OpenID provider of `[auth.oidc]` sends the browser back to.",
        answers={303: Answer("Back to the page that the sign-in was begun on.")},
        refusals=(problems.SignInOverError,),
        guarded=False,
    ),
    Operation(
        method="post",
        path="/channels/{name}/inbound",
        id="postInbound",
        tag="operations",
        summary="Tell a channel what its vendor has to tell",
        text="For the vendor of a channel that takes answers, and of a gate, as `resume.NAME`. The channel looks "
        "for the vendor's own proof: a signature or a secret. What is sent and answered is the vendor's.",
        body={"*/*": ""},
        answers={200: Answer("Taken.", {TEXT: "", JSON: ""})},
        refusals=(
            *(
                errors.NotFoundError,
                errors.MalformedError,
                errors.TooLargeError,
                errors.UnsupportedMediaError,
            ),
            *(problems.SlowBodyError, errors.ChannelFailedError),
        ),
        guarded=False,
    ),
    Operation(
        method="get",
        path="/healthz",
        id="getHealth",
        tag="operations",
        summary="Is the process alive",
        answers={200: Answer("The event loop turns.", {JSON: "Health"})},
        guarded=False,
    ),
    Operation(
        method="get",
        path="/readyz",
        id="getReadiness",
        tag="operations",
        summary="Can it work",
        answers={200: Answer("The store takes writes.", {JSON: "Health"})},
        refusals=(errors.UnavailableError,),
        guarded=False,
    ),
    Operation(
        method="get",
        path="/metrics",
        id="getMetrics",
        tag="operations",
        summary="Metrics for Prometheus",
        answers={
            200: Answer(
                "The text format, or OpenMetrics where it is asked for.",
                {TEXT: "", "application/openmetrics-text": ""},
            )
        },
    ),
    Operation(
        method="get",
        path="/.well-known/notifyd/jwks.json",
        id="getKeys",
        tag="operations",
        summary="The public keys of what notifyd signs",
        answers={200: Answer("All keys of `keys.sign`, the one that signs first.", {JSON: "KeySet"})},
        guarded=False,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        id="getContract",
        tag="operations",
        summary="This document",
        answers={200: Answer("An OpenAPI 3.1 document.", {JSON: ""})},
        guarded=False,
    ),
)
