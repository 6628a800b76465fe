"""The conformance kit for gates: a gate that conforms passes, and each fault that matters is named."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import define, frozen

from notifyd.plugin import (
    ChannelContext,
    ChannelType,
    InboundRequest,
    InboundResponse,
    Message,
    PermanentError,
    Receipt,
    Secret,
    check_response,
    post,
)
from notifyd.testing import NOW, GateConformance, sample_end
from tests import events

PROOF = "a secret that both sides know"
ASKED = {
    name: value
    for name, value in events.requested(at=NOW, resume={"token": "door 7"}).items()
    if name not in ("tenant", "eventId")
}


@frozen
class Config:
    url: Secret
    secret: Secret


@define(eq=False)
class Good:
    """The smallest gate that conforms."""

    config: Config
    context: ChannelContext

    async def receive(self, request: InboundRequest) -> InboundResponse:
        if not self.proved(request):
            return InboundResponse(401, "the signature is missing or wrong")
        try:
            await request.ask(self.event(json.loads(request.body)))
        except PermanentError as error:
            return InboundResponse(422, error.detail)
        return InboundResponse(202)

    def proved(self, request: InboundRequest) -> bool:
        return hmac.compare_digest(request.headers.get("x-proof", ""), proof(request.body))

    def event(self, called: Mapping[str, Any]) -> dict[str, Any]:
        return {"eventId": f"door:{called['door']}", **ASKED}

    async def send(self, message: Message) -> Receipt:
        try:
            data = json.loads(message.body)["data"]
            told = self.told(data) | {"door": data["resumeToken"]}
        except (ValueError, KeyError, TypeError):
            raise PermanentError("no end of what a door asked") from None
        answer = await post(self.context.http, self.config.url, json.dumps(told).encode())
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock())

    def told(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"open": data["decision"] == "approved", "why": data["comment"]}

    async def aclose(self) -> None:
        pass


def proof(body: bytes) -> str:
    return hmac.new(PROOF.encode(), body, "sha256").hexdigest()


class Kit(GateConformance):
    message = sample_end("door 7")

    def __init__(self, opens: type[Good], gate: bool = True) -> None:
        self.kind = ChannelType("door", Config, opens, gate=gate)

    @property
    def channel_type(self) -> ChannelType:  # type: ignore[override]
        return self.kind

    def config(self, url: str) -> Config:
        return Config(Secret(url), Secret(PROOF))

    def call(self) -> tuple[Mapping[str, str], bytes]:
        body = b'{"door": 7}'
        return {"x-proof": proof(body)}, body


class Believes(Good):
    def proved(self, request: InboundRequest) -> bool:
        return True


class BelievesTheHeader(Good):
    def proved(self, request: InboundRequest) -> bool:
        return "x-proof" in request.headers


class Counts(Good):
    count = 0

    def event(self, called: Mapping[str, Any]) -> dict[str, Any]:
        Counts.count += 1
        return super().event(called) | {"eventId": f"door:{Counts.count}"}


class NamesTenant(Good):
    def event(self, called: Mapping[str, Any]) -> dict[str, Any]:
        return super().event(called) | {"tenant": {"id": "globex"}}


class BreaksContract(Good):
    def event(self, called: Mapping[str, Any]) -> dict[str, Any]:
        return super().event(called) | {"planHash": "7"}


class Forgets(Good):
    def event(self, called: Mapping[str, Any]) -> dict[str, Any]:
        return super().event(called) | {"resume": {"token": "another"}}


class AnswersAnyway(Good):
    async def receive(self, request: InboundRequest) -> InboundResponse:
        try:
            return await super().receive(request)
        except Exception:  # noqa: BLE001 - the fault under test
            return InboundResponse(202)


class SaysWhat(Good):
    async def receive(self, request: InboundRequest) -> InboundResponse:
        answer = await super().receive(request)
        return InboundResponse(answer.status, answer.body + self.config.secret.reveal())


class OpensOnSilence(Good):
    def told(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"open": data["decision"] != "rejected", "why": data["comment"]}


class TellsAnything(Good):
    async def send(self, message: Message) -> Receipt:
        await post(self.context.http, self.config.url, message.body.encode())
        return Receipt()


TESTS = {name: test for name, test in vars(GateConformance).items() if name.startswith("test_")}


@pytest.mark.parametrize("name", TESTS)
async def test_a_gate_that_conforms_passes(name: str) -> None:
    await TESTS[name](Kit(Good))


@pytest.mark.parametrize(
    ("opens", "test", "complaint"),
    [
        (Believes, "without_proof", "hands? in|asks for an approval"),
        (BelievesTheHeader, "without_proof", "asks for an approval"),
        (Counts, "genuine", "asked twice"),
        (NamesTenant, "genuine", "names a tenant"),
        (BreaksContract, "genuine", "/planHash"),
        (Forgets, "genuine", "not the one that is handed in"),
        (AnswersAnyway, "recorded_now", "nobody would call again"),
        (SaysWhat, "for_good_is_answered", "a secret is shown"),
        (OpensOnSilence, "only_an_approval", "told as one"),
        (TellsAnything, "no_end_of_its_own", "DID NOT RAISE"),
        (TellsAnything, "status_decides", "400 must lead to"),
    ],
)
async def test_a_gate_with_a_fault_is_named(opens: type[Good], test: str, complaint: str) -> None:
    (found,) = (one for name, one in TESTS.items() if test in name)
    with pytest.raises((pytest.fail.Exception, AssertionError), match=complaint):
        await found(Kit(opens))


async def test_a_type_that_is_no_gate_is_named() -> None:
    with pytest.raises(pytest.fail.Exception, match="does not say that it is a gate"):
        await TESTS["test_it_opens_as_a_gate"](Kit(Good, gate=False))
