"""What schemathesis makes of the served contract is answered as the contract says, and never by a 500."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from notifyd.render.render import TemplateSet
from notifyd.web import attempts
from notifyd.wire.codec import rfc3339
from tests.daemon import CALLBACK, Daemon, bearer, daemon

_load_once = cache(TemplateSet.load)

CONFORMS: Final = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]

EXAMPLES: Final = 3
"""Of each operation."""


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TemplateSet, "load", _load_once)
    monkeypatch.setattr(attempts, "BURST", 1e9)


def read(served: Any) -> list[Any]:
    """The operations of a contract; it takes seconds."""
    found: Any = schemathesis.openapi.from_dict(served).get_all_operations()
    return [operation.ok() for operation in found]


def plausible(notifyd: Daemon, body: Any) -> Any:
    """`body` with what notifyd can judge only by itself: the tenant, the time, where to call back."""
    if not isinstance(body, dict):
        return body
    now = rfc3339(notifyd.clock())
    if isinstance(body.get("tenant"), dict):
        body["tenant"]["id"] = "acme"
    elif "tenant" in body:
        body["tenant"] = "acme"
    for name in {"occurredAt", "time"} & body.keys():
        body[name] = now
    body.pop("expiresAt", None)
    if isinstance(body.get("resume"), dict):
        body["resume"]["callbackUrl"] = f"{CALLBACK}/resume"
    return body


def known(notifyd: Daemon, signs: bool) -> Callable[[Any], Any]:
    """Adds to a prepared request what proves a client that may do what it asks for."""

    def prove(prepared: Any) -> Any:
        body = prepared.body or b""
        body = body.encode() if isinstance(body, str) else body
        for name in ("X-StellaOps-Tenant", "webhook-signature", "Authorization"):
            prepared.headers.pop(name, None)
        proof = notifyd.signature(body) if signs else bearer("operator")
        prepared.headers.update(proof | {"X-Notifyd-Tenant": "acme"})
        return prepared

    return prove


@pytest.mark.usefixtures("_quick")
async def test_what_the_contract_allows_is_answered_as_the_contract_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon(tmp_path) as notifyd:
        served = (await notifyd.get("/openapi.json", None)).json
        operations = await asyncio.to_thread(read, served)
        assert len(operations) > 20
        found: set[int] = set()
        for operation in operations:
            signs = operation.label.startswith("POST /notifications/")

            def send(case: Any) -> None:
                case.body = plausible(notifyd, case.body)
                auth = known(notifyd, signs)  # noqa: B023 - called in this turn
                answer = case.call(base_url=notifyd.url, auth=auth, allow_redirects=False, timeout=10)
                case.validate_response(answer, checks=CONFORMS)
                found.add(answer.status_code)

            modest = settings(
                max_examples=EXAMPLES,
                database=None,
                derandomize=True,  # few examples, so that the same few are tried each time
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            drawn = given(case=operation.as_strategy())
            await asyncio.to_thread(modest(drawn(send)))
        assert {200, 404} <= found  # some come as far as the store
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
