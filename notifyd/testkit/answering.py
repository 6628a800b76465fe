"""The part of the conformance kit for channels whose messages people answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import ClassVar, Final

import pytest
from attrs import define, evolve, field

from notifyd.plugin import (
    SECOND,
    Button,
    Channel,
    InboundRequest,
    InboundResponse,
    Inbox,
    Listening,
    MemoryState,
    PermanentError,
    Reaction,
    ReactionReply,
    Receiving,
    TransientError,
)
from notifyd.testkit.bounds import PATIENCE, PROMPT, answered, demand, settled, within
from notifyd.testkit.conformance import ChannelConformance
from notifyd.testkit.leaks import all_of, captured_logs, leaks
from notifyd.testkit.receivers import Receiver, Reply
from notifyd.testkit.samples import NOW, REF
from notifyd.testkit.traces import more_than

_ODD: Final = (Reply(200, "no JSON"), Reply(200, "{}"), Reply(500, "said"))
"""What a vendor may answer at once, and go on answering."""
_MANY: Final = 25
_A_WHILE: Final = 2.0
"""So many requests within so many seconds are a loop without a pause."""
_LATER: Final = 86_400 * SECOND


@define
class _People:
    """An inbox, and what was handed in. `away`: nothing can be recorded."""

    away: bool = False
    reactions: list[Reaction] = field(factory=list)

    async def __call__(self, reaction: Reaction) -> ReactionReply:
        self.reactions.append(reaction)
        if self.away:
            raise TransientError("nothing can be recorded now")
        return ReactionReply("Thank you.", recorded=True)

    def check(self, ref: str) -> None:
        """Was it what the vendor tells of in the kit?"""
        demand(self.reactions, "the vendor tells that somebody has approved, and nothing is handed in")
        for one in self.reactions:
            demand(one.actor_ref, "the reaction does not say who it was")
            demand((one.action, one.ref) == ("approved", ref), f"somebody has approved, and it is {one!r}")


@pytest.mark.asyncio
class AnsweringConformance(ChannelConformance):
    """What must be true of a channel whose messages people can answer, beside what is true of any."""

    ref: ClassVar[str] = REF
    """What names the message that is answered in `told` and `call`."""

    told: ClassVar[Reply | None] = None
    """For a channel that polls: the vendor's answer by which somebody approves `ref`. None for another."""

    covered: ClassVar[frozenset[str]] = frozenset({"body", "time"})
    """What the proof of a call covers: fewer for a vendor whose proof is a secret alone, or has no time."""

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

    def call(self) -> tuple[Mapping[str, str], bytes]:
        """For a channel with `receive`: a genuine call, at `NOW`, by which somebody approves `ref`.

        Its body, and of its headers, by names in lower case, those that are its proof.
        """
        raise NotImplementedError

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

    # --- a connection that is kept -------------------------------------------------------------------------

    async def test_listening_that_is_cancelled_ends_at_once_and_leaves_nothing_behind(self) -> None:
        kept: list[Channel] = []
        await self._listened(kept)  # what a first use loads, and keeps for good, does not count
        more = await self._listened(kept)
        demand(not more, f"each time that listen is cancelled it leaves behind: {', '.join(more)}")

    async def _listened(self, kept: list[Channel]) -> list[str]:
        """What is left of a channel that has listened, was cancelled and closed: it is in `kept` meanwhile."""
        count = more_than()
        async with self.at_work() as (receiver, channel):
            kept.append(channel)
            if isinstance(channel, Listening):
                receiver.silent = True
                task = asyncio.create_task(channel.listen(_nobody))
                await within(self.patience, receiver.arrived.wait(), "what listen asks the vendor")
                task.cancel()
                await asyncio.wait({task}, timeout=PROMPT)
                demand(
                    task.cancelled(),
                    "listen swallowed its cancellation, or went on: no other node could take over",
                )
        await settled(lambda: not count(), PROMPT)
        return count()

    async def test_listening_to_nobody_ends_with_an_error_and_shows_no_secret(self) -> None:
        with captured_logs(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
            async with self.opened(config) as channel:
                shown = [await _ended(channel)]
        for text in (*shown, *lines):
            demand(not leaks(text, config), f"a secret is shown in {text!r}")

    async def test_a_vendor_that_answers_at_once_and_oddly_is_not_asked_without_a_pause(self) -> None:
        for reply in _ODD:
            async with self.at_work() as (receiver, channel):
                receiver.reply = reply
                async with _listening(channel, _nobody) as task:
                    busy = receiver.received
                    await settled(lambda: task.done() or len(busy) >= _MANY, _A_WHILE)  # noqa: B023 - at once
                    demand(len(busy) < _MANY, f"listen asks without a pause where {reply!r} comes at once")

    async def test_what_was_not_recorded_is_asked_for_again_and_what_was_is_not(self) -> None:
        if self.told is None:
            return
        state = MemoryState()
        async with self.receiver() as receiver:
            receiver.reply = self.told
            first = await self._asked(receiver, state, _People(away=True))
            again = await self._asked(receiver, state, _People())
            after = await self._asked(receiver, state, _People())
        demand(
            again == first,
            "what could not be recorded is not asked for again: keep the cursor once the inbox has taken it",
        )
        demand(
            after != first,
            "what was recorded is asked for again after a restart: keep the cursor in `context.state`",
        )

    async def _asked(self, receiver: Receiver, state: MemoryState, people: _People) -> dict[str, object]:
        """What a channel asks first, with what one before it has kept, while the vendor tells of one answer."""
        receiver.received.clear()
        async with (
            self.opened(self.config(receiver.url), state=state) as channel,
            _listening(channel, people) as task,
        ):
            await settled(
                lambda: task.done() or len(people.reactions) > 1 or len(receiver.received) >= _MANY,
                self.patience,
            )
        people.check(self.ref)
        return self._fixed(receiver.received[0])

    # --- calls of the vendor's -----------------------------------------------------------------------------

    async def test_a_genuine_call_hands_in_what_was_done_and_the_same_once_more(self) -> None:
        people = _People()
        async with self.at_work() as (_, channel):
            if not isinstance(channel, Receiving):
                return
            for _ in range(2):
                answer = await self._called(channel, people, self.call())
                demand(200 <= answer.status < 300, f"a genuine call is answered {answer.status}")
        people.check(self.ref)
        demand(len(people.reactions) == 2, f"two calls handed in {len(people.reactions)} reactions")
        demand(people.reactions[0] == people.reactions[1], "the same call hands in another reaction")

    async def test_a_call_without_the_vendors_proof_is_refused_and_hands_in_nothing(self) -> None:
        async with self.at_work() as (_, channel):
            if not isinstance(channel, Receiving):
                return
            for headers, body in (*(({}, junk) for junk in self.junk), *self._forged()):
                await self._refused(channel, headers, body)

    def _forged(self) -> list[tuple[Mapping[str, str], bytes]]:
        """A genuine call, with one thing changed in each."""
        headers, body = self.call()
        less = [{other: text for other, text in headers.items() if other != name} for name in headers]
        wrong = [
            {**headers, name: other}
            for name, text in headers.items()
            for other in ("", text[:-1], _other(text))
        ]
        forged: list[tuple[Mapping[str, str], bytes]] = [(given, body) for given in (*less, *wrong)]
        if "body" in self.covered:
            changed = body[:-1] + bytes([body[-1] ^ 1])
            forged += [(headers, body + b" "), (headers, changed), *((headers, junk) for junk in self.junk)]
        return forged

    async def test_a_call_that_was_made_long_ago_is_refused(self) -> None:
        if "time" not in self.covered:
            return
        for clock in (NOW + _LATER, NOW - _LATER):
            async with (
                self.receiver() as receiver,
                self.opened(self.config(receiver.url), clock=lambda: clock) as channel,  # noqa: B023 - at once
            ):
                if isinstance(channel, Receiving):
                    await self._refused(channel, *self.call())

    async def test_a_call_that_cannot_be_recorded_now_is_not_answered_as_taken(self) -> None:
        async with self.at_work() as (_, channel):
            if not isinstance(channel, Receiving):
                return
            with suppress(TransientError):
                answer = await self._called(channel, _People(away=True), self.call())
                demand(
                    answer.status >= 500,
                    f"{answer.status} for what is not recorded: the vendor would not call again",
                )

    async def _refused(self, channel: Receiving, headers: Mapping[str, str], body: bytes) -> None:
        answer = await self._called(channel, _nobody, (headers, body))
        demand(
            400 <= answer.status < 500, f"{answer.status} for a call that proves nothing: {headers} {body!r}"
        )

    async def _called(
        self, channel: Receiving, inbox: Inbox, call: tuple[Mapping[str, str], bytes]
    ) -> InboundResponse:
        return await answered(channel, InboundRequest(call[0], "", call[1], inbox), self.patience)


def _other(text: str) -> str:
    return text[:-1] + ("0" if text[-1:] != "0" else "1")


async def _nobody(reaction: Reaction) -> ReactionReply:
    pytest.fail(f"something was handed in that nobody did: {reaction!r}", pytrace=False)


@asynccontextmanager
async def _listening(channel: Channel, inbox: Inbox) -> AsyncIterator[asyncio.Task[str]]:
    """A task in which it listens, if it does, ended with the block."""
    task = asyncio.create_task(_listen(channel, inbox))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=PROMPT)
    if task.done() and not task.cancelled():
        task.result()


async def _listen(channel: Channel, inbox: Inbox) -> str:
    """All that can be seen of how listening ends."""
    try:
        if isinstance(channel, Listening):
            await channel.listen(inbox)
    except (TransientError, PermanentError) as error:
        return all_of(error)
    except Exception as error:
        name = type(error).__name__
        raise AssertionError(f"listen raised {name}, neither TransientError nor PermanentError") from error
    return ""


async def _ended(channel: Channel) -> str:
    """The same where nobody is there."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await _listen(channel, _nobody)
    except TimeoutError:
        pytest.fail("listen goes on where nobody is there, and its node never hears of it", pytrace=False)
