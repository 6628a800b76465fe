"""Every fault has its place in HTTP, and an unforeseen one tells nothing."""

from __future__ import annotations

import orjson
import pytest
from aiohttp import web

import notifyd.web  # noqa: F401 - so that every class of faults is known
from notifyd import errors
from notifyd.errors import Fault, NotifydError
from notifyd.web.problems import MEANINGS, InvalidQueryError, describe, meaning, respond

NEVER_IN_HTTP = {
    errors.FaultsError,  # a base, never raised itself
    errors.ConfigError,
    errors.StoreInUseError,
    errors.StoreMissingError,
    errors.StoreOutdatedError,
    errors.ArchiveError,
    errors.SealError,
    errors.PluginError,
    errors.DeliveryError,
    errors.TransientError,
    errors.PermanentError,
    errors.RenderError,
}
"""Raised at start-up, at a reload, by a channel, a template or an import. One that leaks is our own fault: 500."""

STATUS = {
    "malformed_json": 400,
    "invalid_query": 400,
    "invalid_cursor": 400,
    "unauthenticated": 401,
    "signature_required": 401,
    "signature_invalid": 401,
    "certificate_invalid": 401,
    "invalid_header": 400,
    "expectation_failed": 417,
    "too_many_requests": 429,
    "forbidden": 403,
    "scope_missing": 403,
    "tenant_mismatch": 403,
    "actor_not_allowed": 403,
    "grant_missing": 403,
    "self_approval": 403,
    "address_not_allowed": 403,
    "not_found": 404,
    "request_timeout": 408,
    "conflict": 409,
    "event_id_conflict": 409,
    "already_decided": 409,
    "expired": 409,
    "plan_changed": 409,
    "already_voted": 409,
    "window_closed": 409,
    "inputs_differ": 409,
    "not_retryable": 409,
    "link_expired": 410,
    "too_large": 413,
    "no_signing_key": 409,
    "sign_in_over": 400,
    "unsupported_media_type": 415,
    "invalid_event": 422,
    "too_old": 422,
    "overloaded": 429,
    "too_many_waiting": 429,
    "too_many_silences": 409,
    "backlog_full": 503,
    "internal": 500,
    "undecodable_row": 500,
    "channel_failed": 502,
    "unavailable": 503,
    "store_unavailable": 503,
    "list_timeout": 503,
    "job_taken": 503,
}


def everything(base: type[NotifydError] = NotifydError) -> set[type[NotifydError]]:
    return {base, *(kind for direct in base.__subclasses__() for kind in everything(direct))}


COMMANDS = ("notifyd.client", "notifyd.cli", "notifyd.demo", "notifyd.preview")
"""Modules that the daemon never loads, though another test of this process may have."""


def notifyds_own() -> set[type[NotifydError]]:
    return {
        kind
        for kind in everything()
        if kind.__module__.startswith("notifyd.")
        and not kind.__module__.startswith(COMMANDS)
        and not kind.__name__.startswith("_")
    }


def test_every_fault_that_can_reach_http_stands_in_the_table_itself() -> None:
    assert notifyds_own() - set(MEANINGS) == NEVER_IN_HTTP


def test_each_code_has_the_status_the_contract_gives_it() -> None:
    assert {kind.code: what.status for kind, what in MEANINGS.items()} == STATUS


def test_a_fault_that_should_not_reach_http_is_a_500() -> None:
    assert {meaning(kind).status for kind in NEVER_IN_HTTP} == {500}


@pytest.mark.parametrize(
    "error", [RuntimeError("db password is hunter2"), KeyError("hunter2"), errors.SealError("hunter2")]
)
def test_an_unforeseen_exception_tells_the_caller_nothing(error: Exception) -> None:
    problem = describe(error)
    assert (problem.status, problem.code) == (500, "internal")
    assert "hunter2" not in str(problem)
    assert problem.document("cid-1")["detail"]


def test_a_document_names_type_title_status_code_detail_and_correlation_id() -> None:
    response = respond(describe(errors.NotFoundError("no such approval")), "cid-1")
    assert response.content_type == "application/problem+json"
    assert response.headers["X-Correlation-ID"] == "cid-1"
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {
        "type": "urn:notifyd:problem:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "no such approval",
        "code": "not_found",
        "correlationId": "cid-1",
    }


def test_every_fault_of_an_input_is_listed_by_its_pointer() -> None:
    faults = [Fault("/runId", "is required"), Fault("/steps/0/id", "must be a string, not null")]
    document = describe(errors.InvalidError(faults)).document("cid-1")
    assert document["errors"] == [
        {"pointer": "/runId", "message": "is required"},
        {"pointer": "/steps/0/id", "message": "must be a string, not null"},
    ]
    assert document["detail"] == "2 faults, see errors"


def test_detail_and_faults_pass_the_redactor() -> None:
    def redact(text: str) -> str:
        return text.replace("hunter2", "***")

    shown = str(describe(errors.NotFoundError("no hunter2")).document("c", redact))
    shown += str(describe(InvalidQueryError([Fault("hunter2", "not hunter2")])).document("c", redact))
    assert "hunter2" not in shown
    assert shown.count("***") == 3


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.2, "2"), (60, "60")])
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    for error in (errors.StoreError, errors.OverloadedError, errors.UnavailableError):
        assert describe(error("wait", retry_after=seconds)).headers["Retry-After"] == header


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPNotFound(), 404, "not_found"),
        (web.HTTPRequestEntityTooLarge(10), 413, "too_large"),
        (web.HTTPUnsupportedMediaType(), 415, "unsupported_media_type"),
        (web.HTTPExpectationFailed(), 417, "expectation_failed"),
        (web.HTTPBadRequest(), 400, "malformed_request"),
        (web.HTTPGone(), 410, "http_error"),
    ],
)
def test_aiohttps_own_exceptions_are_problems_too(error: web.HTTPException, status: int, code: str) -> None:
    problem = describe(error)
    assert (problem.status, problem.code) == (status, code)
    assert problem.document("cid-1")["detail"]


def test_a_wrong_method_is_answered_with_the_right_ones() -> None:
    problem = describe(web.HTTPMethodNotAllowed("PUT", ["GET", "POST"]))
    assert (problem.code, problem.headers["Allow"]) == ("method_not_allowed", "GET,POST")


def test_a_401_says_how_to_be_known() -> None:
    assert describe(errors.UnauthenticatedError("who?")).headers["WWW-Authenticate"].startswith("Bearer ")
    for signature in (errors.SignatureRequiredError("x"), errors.SignatureInvalidError("x")):
        assert describe(signature).headers["WWW-Authenticate"].startswith("Standard-Webhooks ")
