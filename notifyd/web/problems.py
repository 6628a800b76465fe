"""The one place where exceptions become HTTP: problem documents by RFC 9457."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from aiohttp.web_exceptions import HTTPException
from attrs import field, frozen
from multidict import istr

from notifyd import correlation, errors
from notifyd.errors import Fault, FaultsError, ForbiddenError, NotifydError
from notifyd.text import counted

CONTENT_TYPE: Final = "application/problem+json"


class InvalidQueryError(FaultsError):
    """A query parameter that is unknown, repeated or out of range. `faults[].pointer` is its name."""

    code = "invalid_query"


class InvalidCursorError(NotifydError):
    """A cursor that was not given out for this tenant and filter."""

    code = "invalid_cursor"


class SlowBodyError(NotifydError):
    """The body did not arrive in time."""

    code = "request_timeout"


class SignInOverError(NotifydError):
    """This browser has begun no such sign-in, or it is over (HTTP 400)."""

    code = "sign_in_over"


class LinkExpiredError(NotifydError):
    """An approver's link whose time is over."""

    code = "link_expired"


class AddressNotAllowedError(ForbiddenError):
    """The caller's address is outside the allowlist."""

    code = "address_not_allowed"


class InvalidHeaderError(NotifydError):
    """A header that may stand once stands twice, is no text, or asks for what is not offered."""

    code = "invalid_header"


class ExpectationError(NotifydError):
    """`Expect` asks for something else than `100-continue`."""

    code = "expectation_failed"


class TooManyError(errors.UnavailableError):
    """This caller has too many connections or requests."""

    code = "too_many_requests"


class UnheardError(TooManyError):
    """This caller has failed to prove itself too often to be heard."""


@frozen
class Meaning:
    """What a class of faults is in HTTP. `silent`: its own words stay in the log."""

    status: int
    title: str
    headers: Mapping[str, str] = field(factory=dict)
    silent: bool = False


_ASK_TOKEN: Final = {"WWW-Authenticate": 'Bearer realm="notifyd"'}
_ASK_SIGNATURE: Final = {"WWW-Authenticate": 'Standard-Webhooks realm="notifyd"'}

MEANINGS: Final[Mapping[type[NotifydError], Meaning]] = {
    errors.MalformedError: Meaning(400, "The body cannot be read"),
    errors.InvalidError: Meaning(422, "The body breaks the contract"),
    errors.TooOldError: Meaning(422, "The event is too old"),
    InvalidQueryError: Meaning(400, "The query is not valid"),
    InvalidCursorError: Meaning(400, "The cursor is not valid here"),
    InvalidHeaderError: Meaning(400, "A header is not valid", {"Connection": "close"}),
    errors.UnauthenticatedError: Meaning(401, "The caller is not known", _ASK_TOKEN),
    errors.SignatureRequiredError: Meaning(401, "A signature is required", _ASK_SIGNATURE),
    errors.SignatureInvalidError: Meaning(401, "The signature is not valid", _ASK_SIGNATURE),
    # Its connection is closed, so that the next shows a certificate anew.
    errors.CertificateInvalidError: Meaning(
        401, "The client certificate proves no client here", _ASK_TOKEN | {"Connection": "close"}
    ),
    errors.ForbiddenError: Meaning(403, "The caller may not do this"),
    errors.ScopeMissingError: Meaning(403, "A scope is missing"),
    errors.TenantMismatchError: Meaning(403, "The tenant does not match"),
    errors.ActorNotAllowedError: Meaning(403, "The actor is not allowed"),
    errors.GrantMissingError: Meaning(403, "A grant is missing"),
    errors.SelfApprovalError: Meaning(403, "Nobody approves what they asked for"),
    AddressNotAllowedError: Meaning(403, "The address is not allowed"),
    errors.NotFoundError: Meaning(404, "Not found"),
    SlowBodyError: Meaning(408, "The body came too slowly", {"Connection": "close"}),
    errors.ConflictError: Meaning(409, "The request contradicts what is stored"),
    errors.EventIdConflictError: Meaning(409, "The event id is taken"),
    errors.AlreadyDecidedError: Meaning(409, "Already decided"),
    errors.ExpiredError: Meaning(409, "The approval has expired"),
    errors.PlanChangedError: Meaning(409, "The plan has changed"),
    errors.AlreadyVotedError: Meaning(409, "This actor has decided otherwise"),
    errors.WindowClosedError: Meaning(409, "Not an hour to approve in"),
    errors.InputsDifferError: Meaning(409, "Somebody has filled in something else"),
    errors.NoSigningKeyError: Meaning(409, "There is no key to sign with"),
    errors.TooManySilencesError: Meaning(409, "There are too many silences"),
    errors.NotRetryableError: Meaning(409, "The delivery cannot be retried"),
    SignInOverError: Meaning(400, "The sign-in is over"),
    LinkExpiredError: Meaning(410, "The link has expired"),
    errors.TooLargeError: Meaning(413, "The body is too large"),
    errors.UnsupportedMediaError: Meaning(415, "The media type is not supported"),
    ExpectationError: Meaning(417, "The expectation is not met"),
    TooManyError: Meaning(429, "Too many requests"),
    UnheardError: Meaning(429, "Too many requests"),
    errors.OverloadedError: Meaning(429, "Too much of this tenant's is waiting"),
    errors.TooManyWaitingError: Meaning(429, "Too many requests of this client wait"),
    errors.ChannelFailedError: Meaning(502, "The channel did not take the message"),
    errors.UnavailableError: Meaning(503, "Not available now"),
    errors.BacklogFullError: Meaning(503, "Too much is waiting"),
    errors.StoppingError: Meaning(503, "Not available now"),
    errors.StoreError: Meaning(503, "The store is not available"),
    errors.StoreUnusableError: Meaning(503, "The store is not available"),
    errors.ListTimeoutError: Meaning(503, "The list took too long"),
    errors.JobTakenError: Meaning(503, "Another node is at it"),
    errors.UndecodableRowError: Meaning(500, "What is stored cannot be read"),
    NotifydError: Meaning(500, "Something went wrong here", silent=True),
}
"""Each class stands for its subclasses, unless they stand here themselves."""

MALFORMED: Final = ("malformed_request", "what came is not a request of HTTP/1.0 or HTTP/1.1")
"""Code and detail of a request that cannot be read."""

_HTTP: Final[Mapping[int, tuple[str, str]]] = {
    400: MALFORMED,
    404: (errors.NotFoundError.code, "nothing is served under this path"),
    405: ("method_not_allowed", "this path takes other methods, see Allow"),
    413: (errors.TooLargeError.code, "the body is larger than server.max_body"),
    415: (errors.UnsupportedMediaError.code, "the body is not of a media type that is read here"),
    417: (ExpectationError.code, "nothing but 100-continue is expected"),
}
"""Code and detail of what aiohttp refuses by itself, by status."""

IN_THE_LOG: Final = "the log of the service tells what went wrong, under this correlation id"
"""The detail of a fault whose own words are not the caller's to read."""

ALWAYS: Final = {
    hdrs.SERVER: "notifyd",
    hdrs.CACHE_CONTROL: "no-store",
    istr("X-Content-Type-Options"): "nosniff",
}
"""Headers of every answer. Without the first, aiohttp tells its own version and Python's."""

_FAILED: Final = MEANINGS[NotifydError]


@frozen
class Problem:
    """A fault as HTTP tells it, before it is written as JSON or as a page."""

    status: int
    code: str
    title: str
    detail: str
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(factory=dict)

    def document(self, correlation_id: str, redact: Callable[[str], str] = str) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": f"urn:notifyd:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "correlationId": correlation_id,
            "detail": redact(self.detail),
        }
        if self.faults:
            document["errors"] = [
                {"pointer": redact(fault.pointer), "message": redact(fault.message)} for fault in self.faults
            ]
        return document


def meaning(kind: type[BaseException]) -> Meaning:
    """What an exception class is in HTTP; anything unforeseen is a 500."""
    return next((MEANINGS[base] for base in kind.__mro__ if base in MEANINGS), _FAILED)


def describe(error: Exception) -> Problem:
    """The problem an exception is. One that was not raised on purpose tells the caller nothing."""
    if isinstance(error, HTTPException):
        return _from_aiohttp(error)
    what = meaning(type(error))
    if not isinstance(error, NotifydError) or what.silent:
        return Problem(what.status, NotifydError.code, what.title, IN_THE_LOG)
    headers = what.headers
    if isinstance(error, errors.UnavailableError):
        headers = {**headers, "Retry-After": str(max(1, math.ceil(error.retry_after)))}
    faults = error.faults if isinstance(error, FaultsError | errors.EventIdConflictError) else ()
    detail = f"{counted(len(faults), 'fault')}, see errors" if faults else error.detail
    return Problem(what.status, error.code, what.title, detail, faults, headers)


def _from_aiohttp(error: HTTPException) -> Problem:
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    code, detail = _HTTP.get(error.status, ("http_error", error.reason))
    return Problem(error.status, code, error.reason, detail, headers=headers)


def respond(problem: Problem, correlation_id: str, redact: Callable[[str], str] = str) -> web.Response:
    """The problem document as an answer, under its correlation id."""
    response = web.Response(
        status=problem.status,
        body=orjson.dumps(problem.document(correlation_id, redact)),
        content_type=CONTENT_TYPE,
        headers={correlation.HEADER: correlation_id, **problem.headers},
    )
    if hdrs.CONNECTION in problem.headers:
        response.force_close()
    return response
