"""The conformance kit finds what it says it finds: each test of it fails for a channel that deserves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import Any, ClassVar, cast

import aiohttp
import attrs
import pytest
from attrs import evolve
from blockbuster import BlockingError

from notifyd.plugin import (
    ChannelContext,
    ChannelType,
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
from notifyd.testing import AnsweringConformance, EditingConformance, HttpConformance


@attrs.frozen
class Config:
    url: Secret
    token: Secret


class Good:
    """The smallest channel that conforms. The bad ones differ from it in one respect each."""

    def __init__(self, config: Config, context: ChannelContext) -> None:
        self.config, self.context = config, context

    def payload(self, message: Message) -> bytes:
        lines = [message.title, message.body, *(f.value for f in message.fields)]
        return json.dumps({"lines": lines}).encode()

    async def send(self, message: Message) -> Receipt:
        headers = {"authorization": self.config.token}
        answer = await post(self.context.http, self.config.url, self.payload(message), headers)
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock())

    async def aclose(self) -> None:
        pass


class Kit(HttpConformance):
    def __init__(self, kind: ChannelType) -> None:
        self.kind = kind

    @property
    def channel_type(self) -> ChannelType:  # type: ignore[override]
        return self.kind

    def config(self, url: str) -> Any:
        return self.kind.config(url=Secret(url + "/hook/long-secret-path"), token=Secret("long-secret-token"))


class TestGood(HttpConformance):
    channel_type: ClassVar[ChannelType] = ChannelType("good", Config, Good, rate_limit="1/s")

    def config(self, url: str) -> Config:
        return Config(url=Secret(url + "/hook/long-secret-path"), token=Secret("long-secret-token"))


class TellsTime(Good):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"title": message.title, "at": self.context.clock()}).encode()


class BreaksOnSurrogates(Good):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"title": message.title}, ensure_ascii=False).encode()


class DropsTheText(Good):
    def payload(self, message: Message) -> bytes:
        return b'{"text": "something happened"}'


class SendsTwice(Good):
    async def send(self, message: Message) -> Receipt:
        await super().send(message)
        return await super().send(message)


class GivesNothing(Good):
    async def send(self, message: Message) -> Any:
        await super().send(message)


class Remembers(Good):
    """Keeps the message on itself between two awaits, so that sends at once mix."""

    async def send(self, message: Message) -> Receipt:
        self.message = message
        await asyncio.sleep(0)
        return await super().send(self.message)


class Blocks(Good):
    async def send(self, message: Message) -> Receipt:
        time.sleep(0.001)  # noqa: ASYNC251 - the fault under test
        return await super().send(message)


class SwallowsCancellation(Good):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except asyncio.CancelledError:
            raise TransientError("it took too long") from None


class NeverGivesUp(Good):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except PermanentError as error:
            raise TransientError(error.detail) from None


class GivesUpAtOnce(Good):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError as error:
            raise PermanentError(error.detail) from None


class Follows(Good):
    async def send(self, message: Message) -> Receipt:
        async with self.context.http.post(self.config.url.reveal(), data=self.payload(message)) as response:
            return check_response(response.status, response.headers, now=self.context.clock())


class ShowsItsUrl(Good):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError as error:
            raise TransientError(f"{self.config.url.reveal()}: {error.detail}") from None


class ShowsTheAnswer(Good):
    async def send(self, message: Message) -> Receipt:
        headers = {"authorization": self.config.token.reveal()}
        body, url = self.payload(message), self.config.url.reveal()
        try:
            async with self.context.http.post(url, data=body, headers=headers) as response:
                return check_response(response.status, response.headers, await response.text(), now=0)
        except aiohttp.ClientError:
            raise TransientError("the network failed") from None


class LogsTheLink(Good):
    async def send(self, message: Message) -> Receipt:
        logging.getLogger("careless").debug("sending %s", message.actions)
        return await super().send(message)


class ClosesOnce(Good):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


FAULTS: list[tuple[type[Good], str]] = [
    (TellsTime, "test_the_same_message_is_sent_as_the_same_bytes"),
    (BreaksOnSurrogates, "test_hostile_text_reaches_the_reader_and_breaks_nothing"),
    (DropsTheText, "test_it_takes_a_message_and_gives_a_receipt"),
    (DropsTheText, "test_hostile_text_reaches_the_reader_and_breaks_nothing"),
    (SendsTwice, "test_it_takes_a_message_and_gives_a_receipt"),
    (GivesNothing, "test_it_takes_a_message_and_gives_a_receipt"),
    (Remembers, "test_sends_at_once_do_not_mix"),
    (SwallowsCancellation, "test_a_send_that_is_cancelled_ends_at_once"),
    (NeverGivesUp, "test_the_status_decides_on_a_retry"),
    (GivesUpAtOnce, "test_the_status_decides_on_a_retry"),
    (GivesUpAtOnce, "test_an_unreachable_receiver_is_transient"),
    (GivesUpAtOnce, "test_a_receiver_that_hangs_up_is_transient"),
    (GivesUpAtOnce, "test_it_waits_as_long_as_the_receiver_asks"),
    (GivesUpAtOnce, "test_an_answer_that_never_comes_is_transient"),
    (Follows, "test_a_redirect_is_not_followed"),
    (ShowsItsUrl, "test_no_failure_shows_a_secret"),
    (ShowsTheAnswer, "test_no_failure_shows_a_secret"),
    (LogsTheLink, "test_nothing_shows_a_secret_where_all_goes_well"),
]


@pytest.mark.parametrize(("channel", "test"), FAULTS)
async def test_the_kit_fails_a_channel_that(channel: type[Good], test: str) -> None:
    kit = Kit(ChannelType("bad", Config, channel))
    with pytest.raises((pytest.fail.Exception, AssertionError, UnicodeEncodeError)):
        await getattr(kit, test)()


async def test_the_kit_names_the_call_that_blocks() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        await Kit(ChannelType("bad", Config, Blocks)).test_it_takes_a_message_and_gives_a_receipt()


async def test_the_kit_fails_a_channel_that_cannot_be_closed_twice() -> None:
    with pytest.raises(RuntimeError, match="closed already"):
        await Kit(ChannelType("bad", Config, ClosesOnce)).test_it_may_be_closed_twice()


@attrs.define(slots=False)
class Mutable:
    url: Secret
    token: Secret


async def test_the_kit_fails_a_config_that_is_not_frozen() -> None:
    with pytest.raises(pytest.fail.Exception):
        await Kit(ChannelType("bad", Mutable, Good)).test_its_config_is_frozen()


@attrs.frozen
class Greedy:
    url: Secret
    token: Secret
    timeout: float = 1.0


@pytest.mark.parametrize(
    "kind",
    [
        ChannelType("Bad Name", Config, Good),
        ChannelType("bad", dict, Good),
        ChannelType("bad", Greedy, Good),
        ChannelType("bad", Config, Good, rate_limit="often"),
    ],
)
async def test_the_kit_fails_a_type_of_another_shape(kind: ChannelType) -> None:
    with pytest.raises(pytest.fail.Exception):
        await Kit(kind).test_its_type_has_the_documented_shape()


async def test_the_kit_fails_what_is_no_channel() -> None:
    class Closes:
        def __init__(self, *arguments: object) -> None: ...

        async def aclose(self) -> None: ...

    with pytest.raises(pytest.fail.Exception, match="without send"):
        await Kit(ChannelType("bad", Config, cast("type[Good]", Closes))).test_it_opens_as_a_channel()


async def test_sends_at_once_leave_nothing_patched_behind() -> None:
    before = time.sleep
    await TestGood().test_sends_at_once_do_not_mix()
    assert time.sleep is before


# --- answers ------------------------------------------------------------------------------------------------


class Answering(Good):
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
    payload = Good.payload


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
    await test(AnsweringKit(ChannelType("good", Config, Answering, answers=True)))


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
        (Good, True, OPENS, "has neither listen nor receive"),
        (Answering, False, OPENS, "its type does not answer"),
    ],
)
async def test_a_channel_that_hears_answers_badly_is_named(
    channel: type[Good], answers: bool, test: Any, complaint: str
) -> None:
    with pytest.raises((pytest.fail.Exception, AssertionError), match=complaint):
        await test(AnsweringKit(ChannelType("bad", Config, channel, answers=answers)))


class Editing(Good):
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
    send = Good.send


class Anew(Editing):
    async def edit(self, ref: str, message: Message) -> Receipt:
        return await Good.send(self, evolve(message, title="Approval needed: Deploy to production"))


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
    await test(EditingKit(ChannelType("good", Config, Editing)))


@pytest.mark.parametrize(
    ("channel", "test", "complaint"),
    [
        (Good, CHANGED, "the channel has no edit"),
        (Unnamed, CHANGED, "the receipt has no ref"),
        (Anew, CHANGED, "the change does not reach the reader"),
        (Empties, CHANGED, "the change does not reach the reader"),
        (GivesUp, LATER, "DID NOT RAISE"),
    ],
)
async def test_a_channel_that_changes_badly_is_named(channel: type[Good], test: Any, complaint: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=complaint):
        await test(EditingKit(ChannelType("bad", Config, channel)))
