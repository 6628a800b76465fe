"""The conformance kit: what must be true of a channel, as test classes to inherit."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, ClassVar, Final

import aiohttp
import attrs
import pytest
from attrs import evolve
from blockbuster import blockbuster_ctx

from notifyd.errors import DeliveryError
from notifyd.plugin import (
    SECOND,
    Action,
    Channel,
    ChannelType,
    Field,
    Listening,
    Message,
    PermanentError,
    Reason,
    Receipt,
    Receiving,
    TransientError,
)
from notifyd.testkit.leaks import all_of, captured_logs, leaks
from notifyd.testkit.receivers import Received, Receiver, Reply, Sink
from notifyd.testkit.samples import HOSTILE, LINK, NOW, opened, sample_message

PATIENCE: Final = 5.0
"""Seconds within which a channel under test must have ended what it was told to end."""

Verdict = type[TransientError] | type[PermanentError] | None
"""What an answer must lead to; None for a receipt."""

_RATE: Final = re.compile(r"[1-9][0-9]*/[smh]")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")
_COMMON: Final = frozenset({"type", "rate_limit", "concurrency", "timeout"})


def demand(condition: object, complaint: str) -> None:
    if not condition:
        pytest.fail(complaint, pytrace=False)


def _unblocked(channel: Channel) -> AbstractContextManager[object]:
    """Here a call of the channel that blocks the event loop raises `blockbuster.BlockingError`.

    One at a time: of two that overlap, the one that ends last would put the other's patches back for good.
    """
    return blockbuster_ctx(sys.modules[type(channel).__module__])


async def send_once(channel: Channel, message: Message) -> Receipt:
    with _unblocked(channel):
        return await _attempt(channel, message)


async def _attempt(channel: Channel, message: Message) -> Receipt:
    async with asyncio.timeout(PATIENCE):
        return await channel.send(message)


@pytest.mark.asyncio
class ChannelConformance:
    """What must be true of every channel. Subclass it as `class TestMine(ChannelConformance)`."""

    channel_type: ClassVar[ChannelType]
    message: ClassVar[Message] = sample_message()

    plugin: ClassVar[Any] = None
    """What `[plugins.NAME]` makes, where the plugin has a `PluginConfig`."""

    receiver_loggers: ClassVar[frozenset[str]] = frozenset({"aiohttp.server"})
    """Loggers of the receiver, which may well write down what it was sent."""

    def config(self, url: str) -> Any:
        """A config, with a value for each secret, of a channel that sends to `url`."""
        raise NotImplementedError

    def receiver(self) -> AbstractAsyncContextManager[Receiver]:
        """What the channel sends to: an HTTP server unless this is overridden."""
        return Sink()

    def readable(self, received: Received) -> str:
        """What a reader sees of what was sent: every string of a JSON body unless this is overridden."""
        return "\n".join(_strings(json.loads(received.body)))

    def opened(self, config: object, **more: Any) -> AbstractAsyncContextManager[Channel]:
        """The channel of a config, with the plugin's own record."""
        return opened(self.channel_type, config, plugin=self.plugin, **more)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[tuple[Receiver, Channel]]:
        """A receiver, and a channel that sends to it."""
        async with (
            self.receiver() as receiver,
            self.opened(self.config(receiver.url)) as channel,
        ):
            yield receiver, channel

    async def test_its_type_has_the_documented_shape(self) -> None:
        kind = self.channel_type
        demand(
            _NAME.fullmatch(kind.name), f"the type's name {kind.name!r} is not lower-case words with hyphens"
        )
        demand(attrs.has(kind.config), "config is not an attrs class")
        taken = _COMMON & {attribute.name for attribute in attrs.fields(kind.config)}
        demand(not taken, f"every channel has these options already: {', '.join(sorted(taken))}")
        demand(kind.rate_limit is None or _RATE.fullmatch(kind.rate_limit), "rate_limit is not such as '1/s'")

    async def test_its_config_is_frozen(self) -> None:
        async with self.receiver() as receiver:
            config = self.config(receiver.url)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            config.anything = "changed"

    async def test_it_opens_as_a_channel(self) -> None:
        async with self.at_work() as (_, channel):
            demand(isinstance(channel, Channel), "open gave an object without send and aclose")
            demand(inspect.iscoroutinefunction(channel.send), "send is not an async function")
            demand(inspect.iscoroutinefunction(channel.aclose), "aclose is not an async function")
        answers, hears = self._answers(), isinstance(channel, Listening | Receiving)
        demand(hears or not answers, "its type answers, and the channel has neither listen nor receive")
        demand(
            answers or not hears,
            "the channel has listen or receive, and its type does not answer with this config",
        )

    def _answers(self) -> bool:
        """Does the type say that people can answer, with this config?"""
        told = self.channel_type.answers
        return bool(told(self.config("http://127.0.0.1:9"))) if callable(told) else told

    async def test_it_takes_a_message_and_gives_a_receipt(self) -> None:
        async with self.at_work() as (receiver, channel):
            receipt = await send_once(channel, self.message)
        demand(isinstance(receipt, Receipt), f"send gave {type(receipt).__name__}, not a Receipt")
        demand(len(receiver.received) == 1, f"{len(receiver.received)} things were sent for one message")
        text = self.readable(receiver.received[0])
        demand(self.message.title in text, "the title does not reach the reader")

    async def test_the_same_message_is_sent_as_the_same_bytes(self) -> None:
        async with self.receiver() as receiver:
            for clock in (lambda: NOW, lambda: NOW + 3600 * SECOND):
                async with self.opened(self.config(receiver.url), clock=clock) as channel:
                    await send_once(channel, self.message)
        first, again = (received.body for received in receiver.received)
        demand(
            first == again,
            "two sends of one message differ: what is sent may depend on it and the config only",
        )

    async def test_hostile_text_reaches_the_reader_and_breaks_nothing(self) -> None:
        async with self.at_work() as (receiver, channel):
            for number, text in enumerate(HOSTILE):
                word = f"zebra{number}"
                told = f"{word} {text} end"
                fields, actions = (Field(told, told),), (Action(told, LINK),)
                message = evolve(
                    self.message, title=told, body=told, fields=fields, actions=actions, locale=text
                )
                await send_once(channel, message)
                demand(word in self.readable(receiver.received[-1]), f"this text does not arrive: {told!r}")

    async def test_a_message_may_be_empty_or_huge(self) -> None:
        words = "word & <tag> " * 200
        empty = evolve(self.message, title="", body="", fields=(), actions=(), event={}, html=None)
        huge = evolve(
            self.message,
            title=words * 10,
            body=words * 40,
            fields=tuple(Field(f"{n} {words}", words) for n in range(60)),
            actions=tuple(Action(f"{n} {words}", f"{LINK}{n}") for n in range(60)),
        )
        async with self.at_work() as (receiver, channel):
            for message in (empty, huge):
                await send_once(channel, message)
                self.readable(receiver.received[-1])

    async def test_sends_at_once_do_not_mix(self) -> None:
        words = [f"giraffe{number}x" for number in range(8)]
        async with self.at_work() as (receiver, channel):
            with _unblocked(channel):
                await asyncio.gather(
                    *(_attempt(channel, evolve(self.message, id=w, title=w, body=w)) for w in words)
                )
        texts = [self.readable(received) for received in receiver.received]
        found = sorted(w for w in words for text in texts if w in text)
        demand(found == words, "messages sent at the same time were lost or mixed")

    async def test_it_may_be_closed_twice(self) -> None:
        async with self.at_work() as (_, channel):
            await send_once(channel, self.message)
            await channel.aclose()
            await channel.aclose()

    async def test_nothing_shows_a_secret_where_all_goes_well(self) -> None:
        with captured_logs(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
                receiver.reply = evolve(receiver.reply, body=Received.echo)
                async with self.opened(config) as channel:
                    shown = [repr(config), repr(channel), str(await send_once(channel, self.message))]
        for text in (*shown, *lines):
            demand(not leaks(text, config), f"a secret is shown in {text!r}")
            demand(LINK not in text, f"a link that decides is shown in {text!r}")


@pytest.mark.asyncio
class NetworkConformance(ChannelConformance):
    """What must be true of a channel that sends to a server, beside all that is true of any."""

    verdicts: ClassVar[Mapping[int, Verdict]]
    """What each status of the receiver's protocol must lead to."""

    async def attempt(self, channel: Channel) -> DeliveryError | None:
        """The verdict on one send; any other exception than the two documented ones fails the test."""
        try:
            await send_once(channel, self.message)
        except (TransientError, PermanentError) as error:
            return error
        except Exception as error:
            name = type(error).__name__
            raise AssertionError(f"send raised {name}, neither TransientError nor PermanentError") from error
        return None

    async def test_the_status_decides_on_a_retry(self) -> None:
        async with self.at_work() as (receiver, channel):
            for status, verdict in self.verdicts.items():
                receiver.reply = Reply(status, "said")
                error = await self.attempt(channel)
                given = None if error is None else type(error)
                demand(given is verdict, f"{status} must lead to {verdict}, and led to {given}: {error}")

    async def test_an_unreachable_receiver_is_transient(self) -> None:
        async with self.receiver() as receiver:
            config = self.config(receiver.url)
        async with self.opened(config) as channel:
            error = await self.attempt(channel)
        demand(isinstance(error, TransientError), f"a refused connection led to {error!r}")

    async def test_a_receiver_that_hangs_up_is_transient(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.hangs_up = True
            error = await self.attempt(channel)
        demand(isinstance(error, TransientError), f"a connection cut before the answer led to {error!r}")

    async def test_a_send_that_is_cancelled_ends_at_once(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.silent = True
            task = asyncio.create_task(channel.send(self.message))
            await asyncio.wait_for(receiver.arrived.wait(), PATIENCE)
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE)
            demand(
                task.cancelled(), "send swallowed its cancellation, or went on: the lane cannot time it out"
            )

    async def test_no_failure_shows_a_secret(self) -> None:
        with captured_logs(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
                async with self.opened(config) as channel:
                    shown = [text async for text in self._failures(receiver, channel)]
            async with self.opened(config) as channel:  # the receiver is gone
                shown.append(all_of(await self.attempt(channel) or AssertionError()))
        for text in (*shown, *lines):
            demand(not leaks(text, config), f"a secret is shown in {text!r}")
        for line in lines:
            demand(LINK not in line, f"a link that decides is logged: {line!r}")

    async def _failures(self, receiver: Receiver, channel: Channel) -> AsyncIterator[str]:
        """All that can be seen of each failure of a receiver that prints every request into its answer."""
        for status in (status for status, verdict in self.verdicts.items() if verdict is not None):
            receiver.reply = Reply(status, Received.echo)
            error = await self.attempt(channel)
            yield all_of(error) if error else ""
        receiver.hangs_up = True
        error = await self.attempt(channel)
        yield all_of(error) if error else ""


@pytest.mark.asyncio
class HttpConformance(NetworkConformance):
    """What must be true of a channel that posts through the context's session, beside all of the above."""

    verdicts: ClassVar[Mapping[int, Verdict]] = {
        200: None,
        204: None,
        302: PermanentError,
        400: PermanentError,
        401: PermanentError,
        403: PermanentError,
        404: PermanentError,
        408: TransientError,
        410: PermanentError,
        413: PermanentError,
        425: TransientError,
        429: TransientError,
        500: TransientError,
        502: TransientError,
        503: TransientError,
        504: TransientError,
    }
    throttled: ClassVar[Reply] = Reply(429, "slow down", {"Retry-After": "7"})
    """How this vendor asks to wait for seven seconds."""

    async def test_it_waits_as_long_as_the_receiver_asks(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.reply = self.throttled
            error = await self.attempt(channel)
        demand(isinstance(error, TransientError), f"being asked to wait led to {error!r}")
        demand(getattr(error, "retry_after", None) == 7.0, "the seconds asked for are not in retry_after")

    async def test_a_redirect_is_not_followed(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.reply = Reply(307, "", {"Location": receiver.url + "/elsewhere"})
            error = await self.attempt(channel)
        demand(isinstance(error, PermanentError), f"a redirect led to {error!r}")
        demand(len(receiver.received) == 1, "a redirect was followed to where nobody configured it")

    async def test_an_answer_that_never_comes_is_transient(self) -> None:
        async with self.receiver() as receiver:
            receiver.silent = True
            http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2))
            async with self.opened(self.config(receiver.url), http=http) as channel:
                error = await self.attempt(channel)
        demand(isinstance(error, TransientError), f"a session's timeout led to {error!r}")
        demand(error is not None and error.reason is Reason.TIMEOUT, "its reason is not `timeout`")

    async def test_of_a_long_answer_only_the_beginning_is_kept(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.reply = Reply(400, "x" * 1_000_000)
            error = await self.attempt(channel)
        demand(
            error is not None and len(all_of(error)) < 20_000,
            "a receiver can make an error as long as it likes",
        )


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
