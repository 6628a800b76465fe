"""The kit for channels that hear answers or change what they sent: each broken one fails its test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from attrs import evolve

from notifyd.plugin import (
    SECOND,
    InboundRequest,
    InboundResponse,
    Inbox,
    Message,
    PermanentError,
    Reaction,
    Receipt,
    Secret,
    TransientError,
    check_response,
    post,
)
from notifyd.testing import NOW, AnsweringConformance, EditingConformance, Reply
from tests.unit.kit_zoo import Kit, Sound, kind_of

# --- answers ------------------------------------------------------------------------------------------------


class Answering(Sound):
    """The smallest channel that conforms and hears answers by both ways."""

    def payload(self, message: Message) -> bytes:
        lines = json.loads(super().payload(message))["lines"]
        return json.dumps({"lines": [*lines, *(f"{b.label} {b.ref}" for b in message.buttons)]}).encode()

    async def listen(self, inbox: Inbox) -> None:
        seen = await self.context.state.get("seen") or ""
        while True:
            answer = await post(self.context.http, self.config.url, json.dumps({"after": seen}).encode())
            if not answer.json.get("id"):
                raise TransientError("an odd answer", status=answer.status)
            seen = await self.take(answer.json, inbox)

    async def take(self, told: dict[str, str], inbox: Inbox) -> str:
        await inbox(Reaction(told["by"], told["action"], told["ref"]))
        await self.context.state.set("seen", told["id"])
        return told["id"]

    async def receive(self, request: InboundRequest) -> InboundResponse:
        if not self.proved(request.headers, request.body):
            return InboundResponse(401)
        told = json.loads(request.body)
        await request.inbox(Reaction(told["by"], told["action"], told["ref"]))
        return InboundResponse()

    def proved(self, headers: Mapping[str, str], body: bytes) -> bool:
        return self.signed(headers, body) and self.fresh(headers)

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        return hmac.compare_digest(signature(headers.get("at", ""), body), headers.get("signature", ""))

    def fresh(self, headers: Mapping[str, str]) -> bool:
        return abs(self.context.clock() / SECOND - int(headers["at"])) < 300


def signature(at: str, body: bytes) -> str:
    return hmac.new(b"the vendor's secret", at.encode() + body, hashlib.sha256).hexdigest()


TOLD = {"id": "41", "by": "U7", "action": "approved", "ref": AnsweringConformance.ref}


class AnsweringKit(Kit, AnsweringConformance):
    told = Reply(200, json.dumps(TOLD))

    def call(self) -> tuple[Mapping[str, str], bytes]:
        at, body = str(NOW // SECOND), json.dumps(TOLD).encode()
        return {"at": at, "signature": signature(at, body)}, body


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


class Spins(Answering):
    """Asks again where it does not understand the answer."""

    async def listen(self, inbox: Inbox) -> None:
        while True:
            with contextlib.suppress(TransientError):
                await super().listen(inbox)


class Insists(Answering):
    """Asks again where the vendor has a fault."""

    async def listen(self, inbox: Inbox) -> None:
        while True:
            try:
                return await super().listen(inbox)
            except TransientError as error:
                if (error.status or 0) < 500:
                    raise


class LeavesATask(Answering):
    async def listen(self, inbox: Inbox) -> None:
        self.beat = asyncio.create_task(asyncio.Event().wait())
        await super().listen(inbox)


class LeavesAConnection(Answering):
    """Opens one of its own, which nobody closes."""

    left: ClassVar[list[socket.socket]] = []

    async def listen(self, inbox: Inbox) -> None:
        address = urlsplit(self.config.url.reveal())
        own = await asyncio.to_thread(socket.create_connection, (address.hostname, address.port))
        self.left.append(own)
        await super().listen(inbox)


class Deaf(Answering):
    """Never hands anything in."""

    async def take(self, told: dict[str, str], inbox: Inbox) -> str:
        return told["id"]


class Mishears(Answering):
    async def take(self, told: dict[str, str], inbox: Inbox) -> str:
        return await super().take(told | {"action": "rejected"}, inbox)


class Loses(Answering):
    """Keeps the cursor before the answer is recorded."""

    async def take(self, told: dict[str, str], inbox: Inbox) -> str:
        await self.context.state.set("seen", told["id"])
        return await super().take(told, inbox)


class Forgets(Answering):
    """Keeps the cursor where a restart loses it."""

    async def take(self, told: dict[str, str], inbox: Inbox) -> str:
        await inbox(Reaction(told["by"], told["action"], told["ref"]))
        return told["id"]


class Unsigned(Answering):
    """Looks at the time only."""

    def proved(self, headers: Mapping[str, str], body: bytes) -> bool:
        return "at" in headers and self.fresh(headers)


class Bodiless(Answering):
    """Proves that the headers belong together, and not the body."""

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        return super().signed(headers, json.dumps(TOLD).encode())


class Prefixed(Answering):
    """Compares as much of the signature as was sent."""

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        return signature(headers.get("at", ""), body).startswith(headers.get("signature", "none"))


class Timeless(Answering):
    """Takes a call however old it is."""

    def fresh(self, headers: Mapping[str, str]) -> bool:
        return True


class Wary(Answering):
    """Refuses what is genuine."""

    def proved(self, headers: Mapping[str, str], body: bytes) -> bool:
        return False


class Mixes(Answering):
    """Hands in another reaction where the vendor calls again."""

    calls = 0

    async def receive(self, request: InboundRequest) -> InboundResponse:
        if not self.proved(request.headers, request.body):
            return InboundResponse(401)
        self.calls += 1
        await request.inbox(Reaction(f"U{self.calls}", "approved", TOLD["ref"]))
        return InboundResponse()


class Once(Answering):
    """Counts a call as seen before it is recorded, and answers as if it were."""

    async def receive(self, request: InboundRequest) -> InboundResponse:
        with contextlib.suppress(TransientError):
            return await super().receive(request)
        return InboundResponse()


class Shows(Answering):
    async def listen(self, inbox: Inbox) -> None:
        raise TransientError(f"cannot reach {self.config.url.reveal()}")


BUTTON = AnsweringConformance.test_a_button_reaches_the_reader_with_what_names_the_message
CANCELLED = AnsweringConformance.test_listening_that_is_cancelled_ends_at_once_and_leaves_nothing_behind
PAUSE = AnsweringConformance.test_a_vendor_that_answers_at_once_and_oddly_is_not_asked_without_a_pause
ONCE = AnsweringConformance.test_what_was_not_recorded_is_asked_for_again_and_what_was_is_not
NOBODY = AnsweringConformance.test_listening_to_nobody_ends_with_an_error_and_shows_no_secret
PROOF = AnsweringConformance.test_a_call_without_the_vendors_proof_is_refused_and_hands_in_nothing
GENUINE = AnsweringConformance.test_a_genuine_call_hands_in_what_was_done_and_the_same_once_more
OLD = AnsweringConformance.test_a_call_that_was_made_long_ago_is_refused
NOT_NOW = AnsweringConformance.test_a_call_that_cannot_be_recorded_now_is_not_answered_as_taken
OPENS = AnsweringConformance.test_it_opens_as_a_channel


@pytest.mark.parametrize(
    "test", [BUTTON, CANCELLED, NOBODY, PAUSE, ONCE, GENUINE, PROOF, OLD, NOT_NOW, OPENS]
)
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
        (LeavesATask, True, CANCELLED, "leaves behind: .*running tasks"),
        (LeavesAConnection, True, CANCELLED, "leaves behind: .*open descriptors"),
        (Spins, True, PAUSE, "asks without a pause"),
        (Insists, True, PAUSE, "asks without a pause where Reply\\(status=500"),
        (Deaf, True, ONCE, "nothing is handed in"),
        (Mishears, True, ONCE, "somebody has approved, and it is"),
        (Loses, True, ONCE, "not asked for again"),
        (Forgets, True, ONCE, "asked for again after a restart"),
        (Unsigned, True, PROOF, "handed in that nobody did"),
        (Bodiless, True, PROOF, "handed in that nobody did"),
        (Prefixed, True, PROOF, "handed in that nobody did"),
        (Timeless, True, OLD, "handed in that nobody did"),
        (Wary, True, GENUINE, "a genuine call is answered 401"),
        (Mixes, True, GENUINE, "hands in another reaction"),
        (Once, True, NOT_NOW, "200 for what is not recorded"),
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
    while LeavesAConnection.left:
        LeavesAConnection.left.pop().close()


class Editing(Answering):
    """The smallest channel that conforms and changes what it sent."""

    async def send(self, message: Message) -> Receipt:
        await super().send(message)
        return Receipt(ref="note-7")

    async def edit(self, ref: str, message: Message) -> Receipt:
        return await self.change(ref, self.payload(message))

    async def change(self, ref: str, body: bytes) -> Receipt:
        url = Secret(f"{self.config.url.reveal()}/{ref}")
        answer = await post(self.context.http, url, body)
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock())


class EditingKit(Kit, EditingConformance):
    pass


class Unnamed(Editing):
    send = Sound.send


class Anew(Editing):
    """The reader has two messages then."""

    async def edit(self, ref: str, message: Message) -> Receipt:
        return await Sound.send(self, message)


class Stale(Editing):
    """Says what the message said before."""

    async def edit(self, ref: str, message: Message) -> Receipt:
        return await super().edit(ref, evolve(message, title="Approval needed: Deploy to production"))


class Curt(Editing):
    """Tells the title of the end only."""

    async def edit(self, ref: str, message: Message) -> Receipt:
        return await super().edit(ref, evolve(message, body=""))


class Factless(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        return await super().edit(ref, evolve(message, fields=()))


class KeepsButtons(Editing):
    async def send(self, message: Message) -> Receipt:
        self.buttons = message.buttons
        return await super().send(message)

    async def edit(self, ref: str, message: Message) -> Receipt:
        return await super().edit(ref, evolve(message, buttons=self.buttons))


class Empties(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        return await self.change(ref, b"{}")


class Counts(Editing):
    """Sends another change each time."""

    number = 0

    async def edit(self, ref: str, message: Message) -> Receipt:
        self.number += 1
        return await super().edit(ref, evolve(message, title=f"{message.title} ({self.number})"))


class DeletesFirst(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        await self.change(ref, b"{}")
        return await super().edit(ref, message)


class GivesUp(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        with contextlib.suppress(TransientError):
            return await super().edit(ref, message)
        return Receipt()


class Blind(Editing):
    """Looks at no status."""

    async def change(self, ref: str, body: bytes) -> Receipt:
        await post(self.context.http, self.config.url, body)
        return Receipt()


class Hopes(Editing):
    """Would try for ever to change what is gone."""

    async def edit(self, ref: str, message: Message) -> Receipt:
        try:
            return await super().edit(ref, message)
        except PermanentError as error:
            raise TransientError("not changed yet", status=error.status) from None


class Despairs(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        try:
            return await super().edit(ref, message)
        except TransientError:
            raise PermanentError("not changed") from None


class Retries(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        with contextlib.suppress(TransientError):
            return await super().edit(ref, message)
        return await super().edit(ref, message)


class Tells(Editing):
    """Shows the token in an error."""

    async def edit(self, ref: str, message: Message) -> Receipt:
        try:
            return await super().edit(ref, message)
        except PermanentError:
            raise PermanentError(f"not changed with {self.config.token.reveal()}") from None


class Lasts(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        with contextlib.suppress(asyncio.CancelledError):
            return await super().edit(ref, message)
        return Receipt()


CHANGED = EditingConformance.test_a_receipt_names_what_was_sent_and_that_is_what_is_changed
WHOLE = EditingConformance.test_all_of_the_end_reaches_the_reader_and_the_buttons_go
STATUS = EditingConformance.test_the_status_decides_on_another_try_at_a_change
LATER = EditingConformance.test_a_vendor_that_is_away_can_be_asked_to_change_it_later
ENDS = EditingConformance.test_a_change_that_is_cancelled_ends_at_once


@pytest.mark.parametrize("test", [CHANGED, WHOLE, STATUS, LATER, ENDS])
async def test_a_channel_that_changes_what_it_sent_passes(test: Any) -> None:
    await test(EditingKit.of(kind_of(Editing)))


@pytest.mark.parametrize(
    ("channel", "test", "complaint"),
    [
        (Sound, CHANGED, "the channel has no edit"),
        (Unnamed, CHANGED, "the receipt has no ref"),
        (Anew, CHANGED, "it sends the whole message anew"),
        (Counts, CHANGED, "two changes of one message differ"),
        (DeletesFirst, CHANGED, "a change is not one request"),
        (Stale, WHOLE, "the change does not reach the reader"),
        (Empties, WHOLE, "the change does not reach the reader"),
        (Curt, WHOLE, "of the body of the change this is lost"),
        (Factless, WHOLE, "of the fields of the change this is lost"),
        (KeepsButtons, WHOLE, "has its buttons still"),
        (Blind, STATUS, "302 to a change must lead to .*PermanentError.* and led to None"),
        (Hopes, STATUS, "302 to a change must lead to .*PermanentError.*TransientError"),
        (Despairs, STATUS, "408 to a change must lead to .*TransientError.*PermanentError"),
        (Retries, STATUS, "at 408 it tried to change it 2 times"),
        (Tells, STATUS, "a secret is shown"),
        (GivesUp, LATER, "a vendor that is away led to None"),
        (Lasts, ENDS, "edit swallowed its cancellation"),
    ],
)
async def test_a_channel_that_changes_badly_is_named(channel: type[Sound], test: Any, complaint: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=complaint):
        await test(EditingKit.of(kind_of(channel)))
