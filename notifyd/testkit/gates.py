"""The part of the conformance kit for gates: they ask for another system, and tell it the ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Final

import orjson
import pytest

from notifyd.errors import FaultsError, MalformedError
from notifyd.model import Gate
from notifyd.plugin import (
    Ask,
    Channel,
    ChannelType,
    InboundRequest,
    InboundResponse,
    Message,
    PermanentError,
    Reaction,
    ReactionReply,
    Receipt,
    Receiving,
    TransientError,
)
from notifyd.testkit.bounds import PATIENCE, answered, demand
from notifyd.testkit.leaks import all_of, captured_logs, leaks
from notifyd.testkit.network import Verdict
from notifyd.testkit.receivers import Received, Receiver, Reply, Sink
from notifyd.testkit.samples import HOSTILE, opened, sample_end
from notifyd.wire.codec import loads
from notifyd.wire.events import parse_pack_event

_JUNK: Final = (b"", b"no JSON", b"{}", b"[]", b"null", b"\xff\x00")


@pytest.mark.asyncio
class GateConformance:
    """What must be true of every gate. Subclass it as `class TestMine(GateConformance)`.

    `call` gives a genuine call of the other system, and `message` is an end of what it asks: `sample_end` with the
    token that the gate hands in. Each end is told by one request: where a gate asks for something beside it, such
    as a token of its own, its `receiver` answers that and leaves it out of `received`.
    """

    channel_type: ClassVar[ChannelType]
    message: ClassVar[Message]
    verdicts: ClassVar[Mapping[int, Verdict]] = {
        200: None,
        400: PermanentError,
        404: PermanentError,
        429: TransientError,
        500: TransientError,
        503: TransientError,
    }
    """What each status of the other system must lead to."""

    plugin: ClassVar[Any] = None
    """What `[plugins.NAME]` makes, where the plugin has a `PluginConfig`."""

    receiver_loggers: ClassVar[frozenset[str]] = frozenset({"aiohttp.server"})
    """Loggers of the receiver, which may well write down what it was sent."""

    def config(self, url: str) -> Any:
        """A config, with a value for each secret, of a gate that answers at `url`."""
        raise NotImplementedError

    def call(self) -> tuple[Mapping[str, str], bytes]:
        """The headers, by names in lower case, and the body of a genuine call, proof and all."""
        raise NotImplementedError

    def receiver(self) -> AbstractAsyncContextManager[Receiver]:
        """The other system, as far as the gate calls it: an HTTP server unless this is overridden."""
        return Sink()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[tuple[Receiver, Channel]]:
        """The other system, and a gate that answers it."""
        async with (
            self.receiver() as receiver,
            opened(self.channel_type, self.config(receiver.url), plugin=self.plugin) as channel,
        ):
            yield receiver, channel

    async def test_it_opens_as_a_gate(self) -> None:
        demand(self.channel_type.gate, "its type does not say that it is a gate")
        async with self.at_work() as (_, channel):
            demand(isinstance(channel, Channel), "open gave an object without send and aclose")
            demand(isinstance(channel, Receiving), "the channel has no receive: nobody could call the gate")
            await channel.aclose()

    # --- what it is asked ----------------------------------------------------------------------------------

    async def test_a_genuine_call_asks_by_an_event_of_the_contract_and_by_the_same_one_again(self) -> None:
        events: list[Mapping[str, Any]] = []

        async def ask(event: Mapping[str, Any]) -> None:
            events.append(event)

        async with self.at_work() as (_, channel):
            for _ in range(2):
                answer = await self._called(channel, ask)
                demand(
                    200 <= answer.status < 300, f"a genuine call is answered {answer.status}: {answer.body}"
                )
        demand(len(events) == 2, f"two calls handed in {len(events)} events")
        first, again = events
        demand(first == again, "the same call again asks by another event: people would be asked twice")
        _check(first)
        kept = json.loads(self.message.body)["data"]["resumeToken"]
        demand(first["resume"]["token"] == kept, "the token in `message` is not the one that is handed in")

    async def test_a_call_without_proof_or_with_another_body_than_was_proved_asks_nothing(self) -> None:
        headers, body = self.call()
        changed = body[:-1] + bytes([body[-1] ^ 1])
        calls = [({}, body), (headers, body + b" "), (headers, changed), *(({}, junk) for junk in _JUNK)]
        async with self.at_work() as (_, channel):
            for given, sent in calls:
                answer = await self._called(channel, _nothing, given, sent)
                demand(
                    400 <= answer.status < 500, f"{answer.status} for a call that proves nothing: {sent!r}"
                )

    async def test_what_cannot_be_recorded_now_is_not_answered_as_taken(self) -> None:
        async with self.at_work() as (_, channel):
            try:
                answer = await self._called(channel, _away)
            except TransientError:
                return
        demand(answer.status >= 500, f"{answer.status} for what is not recorded: nobody would call again")

    async def test_what_is_refused_for_good_is_answered_so_and_shows_no_secret(self) -> None:
        with captured_logs(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
                async with opened(self.channel_type, config, plugin=self.plugin) as channel:
                    answer = await self._called(channel, _refused)
        demand(400 <= answer.status < 500, f"{answer.status} for what is refused for good")
        _no_secret_in([answer.body, *lines], config)

    # --- what it tells -------------------------------------------------------------------------------------

    async def test_only_an_approval_is_told_as_one(self) -> None:
        async with self.at_work() as (receiver, channel):
            for decision in ("approved", "rejected", "expired"):
                await _told(channel, self._end(decision=decision))
        demand(len(receiver.received) == 3, "an end is not told by one request")
        approved, *others = (one.body for one in receiver.received)
        demand(approved not in others, "an end that is no approval is told as one")

    async def test_the_same_end_is_told_by_the_same_bytes(self) -> None:
        async with self.at_work() as (receiver, channel):
            for _ in range(2):
                await _told(channel, self.message)
        first, again = (one.body for one in receiver.received)
        demand(first == again, "two attempts at one end differ")

    async def test_what_is_no_end_of_its_own_is_refused_for_good(self) -> None:
        async with self.at_work() as (receiver, channel):
            for body in ("", "{}", "[]", json.dumps({"data": {"decision": "approved"}})):
                with pytest.raises(PermanentError):
                    await _told(channel, Message(id="a" * 64, title="", body=body))
        demand(not receiver.received, "something was told of an end that it did not ask for")

    async def test_whatever_is_said_with_a_decision_comes_through(self) -> None:
        async with self.at_work() as (receiver, channel):
            for said in ("", *HOSTILE, "word & <tag> " * 2000):
                await _told(channel, self._end(comment=said, actors=[f"{said[:99]}@acme.example"]))
        demand(
            len(receiver.received) == len(HOSTILE) + 2, "a decision was not told for what was said with it"
        )

    async def test_the_status_decides_on_a_retry(self) -> None:
        for status, verdict in self.verdicts.items():
            async with self.at_work() as (receiver, channel):
                receiver.reply = Reply(status, "said")
                error = await _attempted(channel, self.message)
            given = None if error is None else type(error)
            demand(given is verdict, f"{status} must lead to {verdict}, and led to {given}: {error}")

    async def test_a_system_that_is_away_or_hangs_up_is_worth_another_try(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.hangs_up = True
            cut = await _attempted(channel, self.message)
        async with opened(self.channel_type, self.config(receiver.url), plugin=self.plugin) as channel:
            refused = await _attempted(channel, self.message)
        for error in (cut, refused):
            demand(isinstance(error, TransientError), f"a system that is away led to {error!r}")

    async def test_telling_that_is_cancelled_ends_at_once(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.silent = True
            task = asyncio.create_task(channel.send(self.message))
            await asyncio.wait_for(receiver.arrived.wait(), PATIENCE)
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE)
            demand(task.cancelled(), "send swallowed its cancellation, or went on")

    async def test_nothing_shows_a_secret(self) -> None:
        with captured_logs(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
                async with opened(self.channel_type, config, plugin=self.plugin) as channel:
                    shown = [repr(config), repr(channel)]
                    for status in self.verdicts:
                        receiver.reply = Reply(status, Received.echo)
                        error = await _attempted(channel, self.message)
                        shown.append(all_of(error) if error else "")
        _no_secret_in([*shown, *lines], config)

    def _end(self, **data: Any) -> Message:
        return sample_end(json.loads(self.message.body)["data"]["resumeToken"], **data)

    async def _called(
        self, channel: Channel, ask: Ask, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> InboundResponse:
        """What is answered to the genuine call, or to one with other headers and another body."""
        genuine = self.call()
        given = (genuine[0] if headers is None else headers), (genuine[1] if body is None else body)
        if not isinstance(channel, Receiving):
            pytest.fail("the channel has no receive: nobody could call the gate", pytrace=False)
        return await answered(channel, InboundRequest(given[0], "", given[1], _nobody, ask))


async def _told(channel: Channel, end: Message) -> Receipt:
    async with asyncio.timeout(PATIENCE):
        receipt = await channel.send(end)
    demand(isinstance(receipt, Receipt), f"send gave {type(receipt).__name__}, not a Receipt")
    return receipt


async def _attempted(channel: Channel, end: Message) -> TransientError | PermanentError | None:
    """The verdict on telling it; any other exception than the two documented ones fails the test."""
    try:
        await _told(channel, end)
    except (TransientError, PermanentError) as error:
        return error
    except Exception as error:
        name = type(error).__name__
        raise AssertionError(f"send raised {name}, neither TransientError nor PermanentError") from error
    return None


def _no_secret_in(texts: list[str], config: object) -> None:
    for text in texts:
        demand(not leaks(text, config), f"a secret is shown in {text!r}")


def _check(event: Mapping[str, Any]) -> None:
    """Would the daemon take it, with what it fills in?"""
    demand("tenant" not in event, "the event names a tenant, which is the configuration's")
    try:
        document = loads(orjson.dumps(dict(event)))
        document["tenant"] = {"id": "acme"}
        document["resume"]["callbackUrl"] = Gate("resume.under-test", "gate").address
        parse_pack_event(document)
    except (FaultsError, MalformedError, TypeError, KeyError) as error:
        pytest.fail(f"the event is not as the contract has it: {error}", pytrace=False)


async def _nobody(reaction: Reaction) -> ReactionReply:
    pytest.fail(f"a reaction was handed in that nobody had: {reaction!r}", pytrace=False)


async def _nothing(event: Mapping[str, Any]) -> None:
    pytest.fail("a call that proves nothing asks for an approval", pytrace=False)


async def _away(event: Mapping[str, Any]) -> None:
    raise TransientError("nothing can be recorded now")


async def _refused(event: Mapping[str, Any]) -> None:
    raise PermanentError("the event is not taken: /planHash: must be sha256: and 64 digits")
