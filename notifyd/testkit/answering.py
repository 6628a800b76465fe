"""The parts of the conformance kit for channels that people answer, or that change what they sent."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

import pytest
from attrs import evolve

from notifyd.plugin import (
    Button,
    Editing,
    InboundRequest,
    InboundResponse,
    Listening,
    Message,
    PermanentError,
    Reaction,
    ReactionReply,
    Receipt,
    Receiving,
    TransientError,
)
from notifyd.testkit.bounds import PATIENCE, demand
from notifyd.testkit.conformance import ChannelConformance
from notifyd.testkit.leaks import all_of, captured_logs, leaks
from notifyd.testkit.receivers import Reply


@pytest.mark.asyncio
class AnsweringConformance(ChannelConformance):
    """What must be true of a channel whose messages people can answer, beside what is true of any."""

    junk: ClassVar[tuple[bytes, ...]] = (
        b"",
        b"no JSON",
        b"{}",
        b"[]",
        b"null",
        b'{"actor": "U1"}',
        b"\xff\x00",
    )
    """Bodies that anybody might send to `receive`."""

    async def test_a_button_reaches_the_reader_with_what_names_the_message(self) -> None:
        buttons = (Button("Walrus", "approved", REF), Button("Ferret", "rejected", REF))
        async with self.at_work() as (receiver, channel):
            await self.send(channel, evolve(self.message, buttons=buttons))
            await self.send(channel, self.message)
        pressed, plain = receiver.received
        for button in buttons:
            demand(
                button.label in self.readable(pressed),
                f"the button {button.label!r} does not reach the reader",
            )
        demand(
            REF.encode() in pressed.body,
            "what is sent does not name the message: nobody could press its buttons",
        )
        demand(REF.encode() not in plain.body, "a message without buttons names one that had some")

    async def test_listening_that_is_cancelled_ends_at_once(self) -> None:
        async with self.at_work() as (receiver, channel):
            if not isinstance(channel, Listening):
                return
            receiver.silent = True
            task = asyncio.create_task(channel.listen(_nobody))
            await asyncio.wait_for(receiver.arrived.wait(), PATIENCE)
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE)
            demand(
                task.cancelled(),
                "listen swallowed its cancellation, or went on: no other node could take over",
            )

    async def test_listening_to_nobody_ends_with_an_error_and_shows_no_secret(self) -> None:
        with captured_logs(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
            async with self.opened(config) as channel:
                shown = [await _ended(channel)] if isinstance(channel, Listening) else []
        for text in (*shown, *lines):
            demand(not leaks(text, config), f"a secret is shown in {text!r}")

    async def test_a_call_without_the_vendors_proof_is_refused_and_hands_in_nothing(self) -> None:
        async with self.at_work() as (_, channel):
            if not isinstance(channel, Receiving):
                return
            for body in self.junk:
                answer = await channel.receive(InboundRequest({}, "", body, _nobody))
                demand(isinstance(answer, InboundResponse), f"receive gave {type(answer).__name__}")
                demand(
                    400 <= answer.status < 500, f"{answer.status} for a call that proves nothing: {body!r}"
                )


@pytest.mark.asyncio
class EditingConformance(ChannelConformance):
    """What must be true of a channel that can change what it has sent, beside what is true of any."""

    accepted: ClassVar[Reply] = Reply()
    """The vendor's answer to a message that it takes, as documented, and to a change."""

    async def test_a_receipt_names_what_was_sent_and_that_is_what_is_changed(self) -> None:
        told = evolve(self.message, id="f" * 64, title="Walrus", body="The end.", buttons=())
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            demand(isinstance(channel, Editing), "the channel has no edit")
            receipt = await self.send(channel, self.message)
            demand(receipt.ref, "the receipt has no ref: what was sent could not be changed")
            if isinstance(channel, Editing):
                for _ in range(2):
                    await _changed(channel, receipt.ref, told)
        demand(len(receiver.received) == 3, "a change is not one request")
        sent, changed, again = receiver.received
        demand(
            changed.body == again.body,
            "two changes of one message differ: what is sent may depend on it only",
        )
        demand(told.title in self.readable(changed), "the change does not reach the reader")
        demand(
            (changed.method, changed.path, changed.body) != (sent.method, sent.path, sent.body),
            "it sends anew",
        )

    async def test_a_vendor_that_is_away_can_be_asked_to_change_it_later(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            receipt = await self.send(channel, self.message)
            receiver.hangs_up = True
            if isinstance(channel, Editing):
                with pytest.raises(TransientError):
                    await _changed(channel, receipt.ref, self.message)


async def _changed(channel: Editing, ref: str, message: Message) -> Receipt:
    async with asyncio.timeout(PATIENCE):
        return await channel.edit(ref, message)


REF: Final = "0123456789abcdef0123456789abcdef"
"""What names a message of the kit."""


async def _nobody(reaction: Reaction) -> ReactionReply:
    pytest.fail(f"something was handed in that nobody did: {reaction!r}", pytrace=False)


async def _ended(channel: Listening) -> str:
    """All that can be seen of how listening ends where nobody is there."""
    try:
        async with asyncio.timeout(PATIENCE):
            await channel.listen(_nobody)
    except (TransientError, PermanentError) as error:
        return all_of(error)
    except TimeoutError:
        demand(False, "listen goes on where nobody is there, and its node never hears of it")
    except Exception as error:
        name = type(error).__name__
        raise AssertionError(f"listen raised {name}, neither TransientError nor PermanentError") from error
    return ""
