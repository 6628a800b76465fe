"""The parts of the conformance kit for channels that send to a server, and for those that do it by HTTP."""

from __future__ import annotations

import asyncio
import email.message
import email.utils
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import aiohttp
import pytest
from attrs import evolve

from notifyd.errors import DeliveryError
from notifyd.plugin import SECOND, Channel, PermanentError, Reason, TransientError
from notifyd.testkit.bounds import PROMPT, demand, settled, within
from notifyd.testkit.conformance import ChannelConformance, no_secret_in
from notifyd.testkit.leaks import all_of, all_that_is_shown
from notifyd.testkit.receivers import Received, Receiver, Reply
from notifyd.testkit.samples import LINK, NOW

Verdict = type[TransientError] | type[PermanentError] | None
"""What an answer must lead to; None for a receipt."""

_SHAPES: Final = ("", "[]", "null", "7", '"text"', '{"error": null}', '{"error": {"message": 7}}', "{" * 5000)
"""Bodies that no vendor documents, and that a proxy or a new release sends all the same."""

_TOKEN_ENDED: Final = 401
"""A channel with an access token may ask for a new one here, and send once more."""

_KEYS: Final = ("idempotency", "dedup", "message-id", "msg-id", "request-id", "webhook-id")
"""Pieces of the names of headers by which a receiver knows a repeat."""


@pytest.mark.asyncio
class NetworkConformance(ChannelConformance):
    """What must be true of a channel that sends to a server, beside all that is true of any."""

    verdicts: ClassVar[Mapping[int, Verdict]]
    """What each status of the receiver's protocol must lead to."""

    async def attempt(self, channel: Channel) -> DeliveryError | None:
        """The verdict on one send; any other exception than the two documented ones fails the test."""
        try:
            await self.send(channel)
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

    async def test_a_failed_send_was_one_attempt(self) -> None:
        async with self.at_work() as (receiver, channel):
            for status, verdict in self.verdicts.items():
                if verdict is None or status == _TOKEN_ENDED:
                    continue
                receiver.received.clear()
                receiver.reply = Reply(status, "said")
                await self.attempt(channel)
                tries = len(receiver.received)
                demand(
                    tries <= 1, f"at {status} it tried {tries} times: the daemon tries again, by its schedule"
                )

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
        tries = len(receiver.received)
        demand(tries <= 1, f"at a connection that is cut it tried {tries} times: the daemon tries again")

    async def test_a_send_that_is_cancelled_ends_at_once(self) -> None:
        async with self.at_work() as (receiver, channel):
            receiver.silent = True
            with _offspring() as tasks:
                task = asyncio.create_task(channel.send(self.message))
                tasks.add(task)
                await within(self.patience, receiver.arrived.wait(), "what send has to send")
                task.cancel()
                await asyncio.wait({task}, timeout=PROMPT)
            demand(
                task.cancelled(), "send swallowed its cancellation, or went on: the lane cannot time it out"
            )
            over = await settled(lambda: all(one.done() for one in tasks), PROMPT)
            demand(over, "send was cancelled, and goes on in a task of its own")

    async def test_no_failure_shows_a_secret(self) -> None:
        with all_that_is_shown(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
                async with self.opened(config) as channel:
                    shown = [text async for text in self._failures(receiver, channel)]
            async with self.opened(config) as channel:  # the receiver is gone
                shown.append(all_of(await self.attempt(channel) or AssertionError()))
        no_secret_in([*shown, *lines], config)
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

    async def test_a_wait_until_a_date_is_understood(self) -> None:
        date = email.utils.formatdate(NOW / SECOND + 7, usegmt=True)
        async with self.at_work() as (receiver, channel):
            for value, seconds in ((date, 7.0), ("7", 7.0), ("soon", None)):
                receiver.reply = Reply(503, "later", {"Retry-After": value})
                error = await self.attempt(channel)
                given = getattr(error, "retry_after", None)
                demand(
                    isinstance(error, TransientError) and given == seconds,
                    f"`Retry-After: {value}` must be a wait of {seconds} seconds by the context's clock, and is"
                    f" {given}",
                )

    async def test_an_answer_of_another_shape_is_judged_by_its_status(self) -> None:
        async with self.at_work() as (receiver, channel):
            for status, verdict in ((400, PermanentError), (500, TransientError)):
                for body in _SHAPES:
                    receiver.reply = Reply(status, body, {"Content-Type": "application/json"})
                    error = await self.attempt(channel)
                    demand(
                        isinstance(error, verdict), f"{status} with the body {body[:50]!r} led to {error!r}"
                    )
            for body in _SHAPES:
                receiver.reply = Reply(200, body, {"Content-Type": "application/json"})
                await self.attempt(channel)

    async def test_an_answer_without_end_is_not_read_to_its_end(self) -> None:
        async with self.at_work() as (receiver, channel):
            for status in (200, 500):
                receiver.reply = Reply(status, "x" * 65_536, endless=True)
                await self.attempt(channel)

    async def test_it_sends_through_the_session_of_its_context(self) -> None:
        requests: list[object] = []

        async def noted(*about: object) -> None:
            requests.append(about)

        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(noted)
        async with self.receiver() as receiver:
            http = aiohttp.ClientSession(trace_configs=[trace])
            async with self.opened(self.config(receiver.url), http=http) as channel:
                await self.send(channel)
        demand(
            len(requests) == len(receiver.received),
            "it does not send through `context.http`, which keeps to the operator's egress rules and timeouts",
        )

    async def test_what_is_sent_is_what_its_content_type_says(self) -> None:
        message = evolve(self.message, title="Zürich — 漢字 " + self.message.title)
        async with self.at_work() as (receiver, channel):
            await self.send(channel, message)
        (received,) = receiver.received
        if not received.body:
            return
        said = email.message.Message()
        said["content-type"] = received.headers.get("Content-Type", "")
        kind, charset = said.get_content_type(), said.get_content_charset("utf-8")
        demand(received.headers.get("Content-Type"), "what is sent has no content type")
        try:
            text = received.body.decode(charset)
        except (UnicodeDecodeError, LookupError):
            demand(
                False,
                f"what is sent is not in {charset}, which its content type says or leaves to be assumed",
            )
        demand(
            _is_json(text) or not kind.endswith("json"),
            f"what is sent is no JSON, and its content type is {kind}",
        )
        demand(
            kind.endswith("json") or not text.startswith("{") or not _is_json(text),
            f"what is sent is JSON, and its content type is {kind}",
        )

    async def test_a_key_against_repeats_is_the_messages_own(self) -> None:
        async with self.at_work() as (receiver, channel):
            for one in ("a" * 64, "b" * 64):
                await self.send(channel, evolve(self.message, id=one))
        first, second = (
            {name.lower(): value for name, value in r.headers.items()} for r in receiver.received
        )
        for name in (name for name in first if any(key in name for key in _KEYS)):
            demand(
                first[name] != second.get(name),
                f"two messages have one {name}: the receiver would take the second for a repeat, and drop it",
            )


@contextmanager
def _offspring() -> Iterator[set[asyncio.Task[Any]]]:
    """Tasks, to which those are added that one of them starts meanwhile."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[Any]]()
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        if asyncio.current_task() in tasks:
            tasks.add(task)
        return task

    loop.set_task_factory(make)
    try:
        yield tasks
    finally:
        loop.set_task_factory(before)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
