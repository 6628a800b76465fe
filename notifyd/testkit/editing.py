"""The part of the conformance kit for channels that change what they sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

import pytest
from attrs import evolve

from notifyd.plugin import Action, Button, Channel, Editing, Field, Message, PermanentError, TransientError
from notifyd.testkit.bounds import PROMPT, demand, within
from notifyd.testkit.conformance import ChannelConformance
from notifyd.testkit.leaks import all_of, leaks
from notifyd.testkit.receivers import Received, Reply
from notifyd.testkit.samples import LINK, REF


@pytest.mark.asyncio
class EditingConformance(ChannelConformance):
    """What must be true of a channel that can change what it has sent, beside what is true of any."""

    accepted: ClassVar[Reply] = Reply()
    """The vendor's answer to a message that it takes, as documented, and to a change."""

    def _end(self) -> Message:
        """What the message is changed to: no buttons, and all else of it other than it was."""
        return evolve(
            self.message,
            id="f" * 64,
            title="Walrus",
            body="The end.\nOf the ferret.",
            fields=(Field("Heron", "otter"),),
            actions=(Action("Narwhal", LINK),),
            buttons=(),
        )

    async def test_a_receipt_names_what_was_sent_and_that_is_what_is_changed(self) -> None:
        end = self._end()
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            ref = await self._sent(channel)
            for _ in range(2):
                await self._change(channel, ref, end)
            await self.send(channel, end)
        demand(len(receiver.received) == 4, "a change is not one request")
        _, changed, again, anew = receiver.received
        demand(
            changed.body == again.body,
            "two changes of one message differ: what is sent may depend on it only",
        )
        demand(
            (changed.method, changed.path, changed.body) != (anew.method, anew.path, anew.body),
            "it sends the whole message anew: its reader has two, and the first has its buttons still",
        )

    async def test_all_of_the_end_reaches_the_reader_and_the_buttons_go(self) -> None:
        buttons = (Button("Lynx", "approved", REF), Button("Badger", "rejected", REF))
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            ref = await self._sent(channel, evolve(self.message, buttons=buttons))
            await self._change(channel, ref, self._end())
        changed = receiver.received[-1]
        demand("Walrus" in self.readable(changed), "the change does not reach the reader")
        for part, lost in self._lost(changed, self._end()).items():
            demand(not lost, f"of the {part} of the change this is lost: {lost}")
        demand(REF.encode() not in changed.body, "a message that tells the end has its buttons still")

    async def test_the_status_decides_on_another_try_at_a_change(self) -> None:
        verdicts: Mapping[int, type[Exception] | None] = getattr(
            self, "verdicts", {}
        )  # the network's have some
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            ref, config = await self._sent(channel), self.config(receiver.url)
            for status, verdict in verdicts.items():
                if verdict is None:
                    continue
                receiver.received.clear()
                receiver.reply = Reply(status, Received.echo)
                error = await self._attempted(channel, ref)
                given = None if error is None else type(error)
                demand(given is verdict, f"{status} to a change must lead to {verdict}, and led to {given}")
                tries = len(receiver.received)
                demand(tries <= 1, f"at {status} it tried to change it {tries} times: the daemon tries again")
                demand(error is None or not leaks(all_of(error), config), f"a secret is shown in {error!r}")

    async def test_a_vendor_that_is_away_can_be_asked_to_change_it_later(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            ref = await self._sent(channel)
            receiver.hangs_up = True
            error = await self._attempted(channel, ref)
        demand(isinstance(error, TransientError), f"a vendor that is away led to {error!r}")

    async def test_a_change_that_is_cancelled_ends_at_once(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.accepted
            ref = await self._sent(channel)
            receiver.silent = True
            receiver.arrived.clear()
            task = asyncio.create_task(self._change(channel, ref, self._end()))
            await within(self.patience, receiver.arrived.wait(), "what edit has to send")
            task.cancel()
            await asyncio.wait({task}, timeout=PROMPT)
            demand(task.cancelled(), "edit swallowed its cancellation, or went on")

    async def _sent(self, channel: Channel, message: Message | None = None) -> str:
        """What its receipt calls a message that was sent."""
        demand(isinstance(channel, Editing), "the channel has no edit")
        receipt = await self.send(channel, message)
        demand(receipt.ref, "the receipt has no ref: what was sent could not be changed")
        return receipt.ref

    async def _attempted(self, channel: Channel, ref: str) -> TransientError | PermanentError | None:
        """The verdict on a change; any other exception than the two documented ones fails the test."""
        try:
            await self._change(channel, ref, self._end())
        except (TransientError, PermanentError) as error:
            return error
        except Exception as error:
            name = type(error).__name__
            raise AssertionError(f"edit raised {name}, neither TransientError nor PermanentError") from error
        return None

    async def _change(self, channel: Channel, ref: str, message: Message) -> None:
        if isinstance(channel, Editing):
            async with asyncio.timeout(self.patience):
                await channel.edit(ref, message)
