"""The kit for channels that hear answers or change what they sent: each broken one fails its test."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from attrs import evolve

from notifyd.plugin import (
    InboundRequest,
    InboundResponse,
    Inbox,
    Message,
    Reaction,
    Receipt,
    TransientError,
    check_response,
    post,
)
from notifyd.testing import AnsweringConformance, EditingConformance
from tests.unit.kit_zoo import Kit, Sound, kind_of

# --- answers ------------------------------------------------------------------------------------------------


class Answering(Sound):
    """The smallest channel that conforms and hears answers by both ways."""

    proof = "the-vendors-proof"

    def payload(self, message: Message) -> bytes:
        lines = json.loads(super().payload(message))["lines"]
        return json.dumps({"lines": [*lines, *(f"{b.label} {b.ref}" for b in message.buttons)]}).encode()

    async def listen(self, inbox: Inbox) -> None:
        while True:
            await post(self.context.http, self.config.url, b"{}")

    async def receive(self, request: InboundRequest) -> InboundResponse:
        return InboundResponse(200 if request.headers.get("proof") == self.proof else 401)


class AnsweringKit(Kit, AnsweringConformance):
    pass


class Dumb(Answering):
    payload = Sound.payload


class Nameless(Answering):
    def payload(self, message: Message) -> bytes:
        return json.dumps(
            {"lines": [message.title, message.body, *(b.label for b in message.buttons)]}
        ).encode()


class Repeats(Answering):
    """Names in one message what another had."""

    def payload(self, message: Message) -> bytes:
        self.before = getattr(self, "before", []) + [f"{b.label} {b.ref}" for b in message.buttons]
        return json.dumps({"lines": [message.title, message.body, *self.before]}).encode()


class Clings(Answering):
    async def listen(self, inbox: Inbox) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await super().listen(inbox)
                return
            return


class Believes(Answering):
    async def receive(self, request: InboundRequest) -> InboundResponse:
        return InboundResponse()


class HandsIn(Answering):
    async def receive(self, request: InboundRequest) -> InboundResponse:
        await request.inbox(Reaction("U1", "approved", "0" * 32))
        return InboundResponse(401)


class Crashes(Answering):
    async def listen(self, inbox: Inbox) -> None:
        raise KeyError("update_id")


class Shows(Answering):
    async def listen(self, inbox: Inbox) -> None:
        raise TransientError(f"cannot reach {self.config.url.reveal()}")


BUTTON = AnsweringConformance.test_a_button_reaches_the_reader_with_what_names_the_message
CANCELLED = AnsweringConformance.test_listening_that_is_cancelled_ends_at_once
NOBODY = AnsweringConformance.test_listening_to_nobody_ends_with_an_error_and_shows_no_secret
PROOF = AnsweringConformance.test_a_call_without_the_vendors_proof_is_refused_and_hands_in_nothing
OPENS = AnsweringConformance.test_it_opens_as_a_channel


@pytest.mark.parametrize("test", [BUTTON, CANCELLED, NOBODY, PROOF, OPENS])
async def test_a_channel_that_hears_answers_as_it_should_passes(test: Any) -> None:
    await test(AnsweringKit.of(kind_of(Answering, answers=True)))


@pytest.mark.parametrize(
    ("channel", "answers", "test", "complaint"),
    [
        (Dumb, True, BUTTON, "the button 'Walrus' does not reach the reader"),
        (Nameless, True, BUTTON, "does not name the message"),
        (Repeats, True, BUTTON, "names one that had some"),
        (Clings, True, CANCELLED, "listen swallowed its cancellation"),
        (Believes, True, PROOF, "200 for a call that proves nothing"),
        (HandsIn, True, PROOF, "handed in that nobody did"),
        (Crashes, True, NOBODY, "listen raised KeyError"),
        (Shows, True, NOBODY, "a secret is shown"),
        (Sound, True, OPENS, "has neither listen nor receive"),
        (Answering, False, OPENS, "its type does not answer"),
    ],
)
async def test_a_channel_that_hears_answers_badly_is_named(
    channel: type[Sound], answers: bool, test: Any, complaint: str
) -> None:
    with pytest.raises((pytest.fail.Exception, AssertionError), match=complaint):
        await test(AnsweringKit.of(kind_of(channel, answers=answers)))


class Editing(Sound):
    """The smallest channel that conforms and changes what it sent."""

    async def send(self, message: Message) -> Receipt:
        await super().send(message)
        return Receipt(ref="note-7")

    async def edit(self, ref: str, message: Message) -> Receipt:
        body = json.dumps({"ref": ref, "line": message.title}).encode()
        answer = await post(self.context.http, self.config.url, body)
        return check_response(answer.status, answer.headers, now=self.context.clock())


class EditingKit(Kit, EditingConformance):
    pass


class Unnamed(Editing):
    send = Sound.send


class Anew(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        return await Sound.send(self, evolve(message, title="Approval needed: Deploy to production"))


class Empties(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        await post(self.context.http, self.config.url, b"{}")
        return Receipt()


class GivesUp(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        with contextlib.suppress(TransientError):
            return await super().edit(ref, message)
        return Receipt()


CHANGED = EditingConformance.test_a_receipt_names_what_was_sent_and_that_is_what_is_changed
LATER = EditingConformance.test_a_vendor_that_is_away_can_be_asked_to_change_it_later


@pytest.mark.parametrize("test", [CHANGED, LATER])
async def test_a_channel_that_changes_what_it_sent_passes(test: Any) -> None:
    await test(EditingKit.of(kind_of(Editing)))


@pytest.mark.parametrize(
    ("channel", "test", "complaint"),
    [
        (Sound, CHANGED, "the channel has no edit"),
        (Unnamed, CHANGED, "the receipt has no ref"),
        (Anew, CHANGED, "the change does not reach the reader"),
        (Empties, CHANGED, "the change does not reach the reader"),
        (GivesUp, LATER, "DID NOT RAISE"),
    ],
)
async def test_a_channel_that_changes_badly_is_named(channel: type[Sound], test: Any, complaint: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=complaint):
        await test(EditingKit.of(kind_of(channel)))
