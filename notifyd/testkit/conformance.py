"""The conformance kit: what must be true of every channel, as a test class to inherit."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import aiohttp
import attrs
import pytest
import time_machine
from attrs import evolve

from notifyd.plugin import (
    Action,
    Channel,
    ChannelType,
    Field,
    Listening,
    Message,
    PermanentError,
    Receipt,
    Receiving,
    TransientError,
)
from notifyd.testkit.bounds import PATIENCE, PROMPT, demand, settled, unblocked, within
from notifyd.testkit.leaks import all_that_is_shown, leaks
from notifyd.testkit.plugins import examined, plugin_of
from notifyd.testkit.receivers import Received, Receiver, Sink
from notifyd.testkit.samples import (
    HOSTILE,
    LINK,
    LONG,
    MARKUP,
    NOW,
    SECOND_LINK,
    opened,
    sample_message,
)
from notifyd.testkit.secrecy import plain_secrets
from notifyd.testkit.traces import Surroundings, more_than

_RATE: Final = re.compile(r"[1-9][0-9]*/[smh]")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")
_COMMON: Final = frozenset({"type", "rate_limit", "concurrency", "timeout"})
_REF_LIMIT: Final = 500
_HALF_A_CHARACTER: Final = re.compile(r"[\ud800-\udfff]")
_HALF_AN_ENTITY: Final = re.compile(r"&(?:#x?[0-9a-f]*|[a-z]+)(?![0-9a-z;=])")
_SPACE: Final = re.compile(r"\s+")
_UNSEEN: Final = re.compile("[\u200b\u200c\u200d\u2060\ufeff]")
_STEP: Final = timedelta(days=25, hours=7, minutes=13, seconds=7)
_MICROSECOND: Final = timedelta(microseconds=1)
_MOMENTS: Final = tuple(number * _STEP for number in range(7))
"""How much later one message is sent again: every day of the week comes, and every part of a day."""

_PARAGRAPHS: Final = "\n\n".join(f"Paragraph {number} tells a little more of it." for number in range(1, 9))
"""A text of which every channel has room for the whole."""


@pytest.mark.asyncio
class ChannelConformance:
    """What must be true of every channel. Subclass it as `class TestMine(ChannelConformance)`."""

    channel_type: ClassVar[ChannelType]
    message: ClassVar[Message] = sample_message()

    plugin: ClassVar[Any] = None
    """What `[plugins.NAME]` makes, where the plugin has a `PluginConfig`."""

    hooks: ClassVar[object | None] = None
    """The module, or object, that bears the hooks: looked for in the config's package where it is None."""

    patience: ClassVar[float] = PATIENCE
    """Seconds within which the channel must have ended what it was told to do."""

    receiver_loggers: ClassVar[frozenset[str]] = frozenset({"aiohttp.server"})
    """Loggers of the receiver, which may well write down what it was sent."""

    plain_options: ClassVar[frozenset[str]] = frozenset()
    """Options that sound secret, or hold a long URL, and are public all the same."""

    varying_headers: ClassVar[frozenset[str]] = frozenset()
    """Headers, in lower case, that two sends of one message may differ in, such as a signature's time."""

    unshown: ClassVar[frozenset[str]] = frozenset()
    """What of a message its readers cannot be shown, of `body`, `fields` and `actions`. Say why beside it."""

    def config(self, url: str) -> Any:
        """A config, with a value for each secret, of a channel that sends to `url`."""
        raise NotImplementedError

    def receiver(self) -> AbstractAsyncContextManager[Receiver]:
        """What the channel sends to: an HTTP server unless this is overridden."""
        return Sink()

    def readable(self, received: Received) -> str:
        """What a reader sees of what was sent, links too: every string of a JSON body unless this is overridden.

        Where the vendor's syntax escapes, take it out here: the kit compares with what the message says.
        """
        return "\n".join(_strings(json.loads(received.body)))

    def opened(self, config: object, **options: Any) -> AbstractAsyncContextManager[Channel]:
        """The channel of this type and config, which has to open and to close in time."""
        return opened(self.channel_type, config, plugin=self.plugin, patience=self.patience, **options)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[tuple[Receiver, Channel]]:
        """A receiver, and a channel that sends to it."""
        async with (
            self.receiver() as receiver,
            self.opened(self.config(receiver.url)) as channel,
        ):
            yield receiver, channel

    async def send(self, channel: Channel, message: Message | None = None) -> Receipt:
        """One send, which blocks nothing and ends in time."""
        with unblocked(channel):
            return await self._attempt(channel, message or self.message)

    async def _attempt(self, channel: Channel, message: Message) -> Receipt:
        return await within(self.patience, channel.send(message), "send")

    # --- its shape ------------------------------------------------------------------------------------------

    async def test_its_type_has_the_documented_shape(self) -> None:
        kind = self.channel_type
        demand(
            _NAME.fullmatch(kind.name), f"the type's name {kind.name!r} is not lower-case words with hyphens"
        )
        demand(attrs.has(kind.config), "config is not an attrs class")
        taken = _COMMON & {attribute.name for attribute in attrs.fields(kind.config)}
        demand(not taken, f"every channel has these options already: {', '.join(sorted(taken))}")
        demand(kind.rate_limit is None or _RATE.fullmatch(kind.rate_limit), "rate_limit is not such as '1/s'")

    async def test_the_daemon_takes_its_plugin(self) -> None:
        found = examined(self.hooks or plugin_of(self.channel_type))
        demand(not found.faults, f"the daemon refuses it: {'; '.join(map(str, found.faults))}")
        types = {*found.channel_types, *found.forwarder_types}
        demand(self.channel_type.name in types, "the plugin's hooks do not give this type")

    async def test_what_is_secret_has_the_type_of_a_secret(self) -> None:
        async with self.at_work() as (receiver, channel):
            await self.send(channel)
            config, headers = self.config(receiver.url), receiver.received[0].headers
        plain = plain_secrets(self.channel_type.config, config, headers) - self.plain_options
        demand(
            not plain, f"these hold secrets and are shown in errors and logs: {sorted(plain)}; use `Secret`"
        )

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

    async def test_it_opens_and_closes_in_time(self) -> None:
        async with self.at_work():
            pass

    async def test_it_may_be_closed_twice(self) -> None:
        http = aiohttp.ClientSession()
        async with (
            self.receiver() as receiver,
            self.opened(self.config(receiver.url), http=http) as channel,
        ):
            await self.send(channel)
            for _ in range(2):
                await within(self.patience, channel.aclose(), "aclose")
            demand(not http.closed, "aclose closed the context's session, which the daemon closes")

    async def test_it_leaves_nothing_behind(self) -> None:
        before, kept = Surroundings.now(), list[Channel]()
        await self._come_and_gone(kept)  # what a first use loads, and keeps for good, does not count
        more = await self._come_and_gone(kept)
        demand(not more, f"each time that it is opened, used and closed it leaves behind: {', '.join(more)}")
        changed = before.changed()
        demand(not changed, f"it changed what the whole process shares: {', '.join(changed)}")

    async def _come_and_gone(self, kept: list[Channel]) -> list[str]:
        """What is left of a channel that has sent, failed and closed.

        It is in `kept` for as long as is counted: what nobody holds any more Python would close itself.
        """
        async with self.receiver() as receiver:
            config, count = self.config(receiver.url), more_than()
            async with self.opened(config) as channel:
                kept.append(channel)
                receiver.hangs_up = True
                with suppress(TransientError, PermanentError):
                    await self.send(channel)
                receiver.hangs_up = False
                await self.send(channel)
            await settled(lambda: not count(), PROMPT)
            return count()

    # --- what it sends --------------------------------------------------------------------------------------

    async def test_it_takes_a_message_and_gives_a_receipt(self) -> None:
        async with self.at_work() as (receiver, channel):
            receipt = await self.send(channel)
        demand(isinstance(receipt, Receipt), f"send gave {type(receipt).__name__}, not a Receipt")
        demand(len(receiver.received) == 1, f"{len(receiver.received)} things were sent for one message")
        text = self.readable(receiver.received[0])
        demand(self.message.title in text, "the title does not reach the reader")
        _check_receipt(receipt)

    async def test_all_of_a_message_reaches_the_reader(self) -> None:
        message = evolve(
            self.message,
            body=f"{self.message.body}\n\n{_PARAGRAPHS}",
            fields=(Field("Heron", "otter"), Field("Heron", "weasel"), Field("Lynx", "badger")),
            actions=(Action("Narwhal", LINK), Action("Ocelot", SECOND_LINK)),
        )
        async with self.at_work() as (receiver, channel):
            await self.send(channel, message)
        for part, lost in self._lost(receiver.received[0], message).items():
            demand(not lost, f"of the {part} this is lost: {lost}")

    def _lost(self, received: Received, message: Message) -> dict[str, list[str]]:
        """What of the message is not to be seen in what was sent, by its part; what is `unshown` is not lost."""
        shown = _plain(self.readable(received))
        return {
            part: [piece for piece in pieces if _plain(piece) not in shown]
            for part, pieces in _pieces(message).items()
            if part not in self.unshown
        }

    async def test_the_same_message_is_sent_as_the_same_bytes(self) -> None:
        async with self.receiver() as receiver:
            for later in _MOMENTS:
                await self._send_at(receiver, datetime.now(UTC) + later, NOW + later // _MICROSECOND)
        first, *others = (self._fixed(received) for received in receiver.received)
        for part, value in first.items():
            demand(
                all(value == again[part] for again in others),
                f"two sends of one message differ in their {part}: what is sent may depend on it and the config"
                " only, and on no clock and no chance",
            )

    async def _send_at(self, receiver: Receiver, real: datetime, clock: int) -> None:
        with time_machine.travel(real):
            async with self.opened(self.config(receiver.url), clock=lambda: clock) as channel:
                await self.send(channel)

    def _fixed(self, received: Received) -> dict[str, object]:
        """What may not differ of what was sent, by its name."""
        headers = {name.lower(): value for name, value in received.headers.items()}
        kept = {name: value for name, value in headers.items() if name not in self.varying_headers}
        return {"method": received.method, "path": received.path, **kept, "body": received.body}

    async def test_what_is_sent_depends_on_no_earlier_message(self) -> None:
        other = evolve(
            self.message, id="e" * 64, title="Earlier", body="Of before.", fields=(Field("Was", "there"),)
        )
        async with self.receiver() as receiver:
            for messages in ((other, other, self.message), (self.message,)):
                async with self.opened(self.config(receiver.url)) as channel:
                    for message in messages:
                        await self.send(channel, message)
        *_, after, alone = (self._fixed(received) for received in receiver.received)
        demand(
            after == alone,
            "a message is sent otherwise after another one: keep nothing from one to the next, but in"
            " `context.state`",
        )

    async def test_it_changes_nothing_of_the_message(self) -> None:
        message = evolve(self.message, event=copy.deepcopy(dict(self.message.event)))
        before = copy.deepcopy(message)
        async with self.at_work() as (_, channel):
            await self.send(channel, message)
        demand(message == before, "send changed the message, which a retry and other channels send too")

    async def test_hostile_text_reaches_the_reader_and_breaks_nothing(self) -> None:
        async with self.at_work() as (receiver, channel):
            for number, text in enumerate(HOSTILE):
                word = f"zebra{number}"
                told = f"{word} {text} end"
                fields, actions = (Field(told, told),), (Action(told, LINK),)
                message = evolve(
                    self.message, title=told, body=told, fields=fields, actions=actions, locale=text
                )
                await self.send(channel, message)
                demand(word in self.readable(receiver.received[-1]), f"this text does not arrive: {told!r}")

    async def test_markup_in_a_text_is_shown_and_not_obeyed(self) -> None:
        async with self.at_work() as (receiver, channel):
            for text in MARKUP:
                await self.send(channel, evolve(self.message, title=text, body=text))
                shown = _plain(self.readable(receiver.received[-1]))
                demand(text in shown, f"its readers see something else than {text!r}: {shown!r}")

    async def test_a_long_text_is_cut_between_characters(self) -> None:
        async with self.at_work() as (receiver, channel):
            for text in LONG:
                await self.send(channel, evolve(self.message, title=text, body=text))
                shown = self.readable(receiver.received[-1])
                for half in (_HALF_A_CHARACTER, _HALF_AN_ENTITY):
                    cut = half.search(shown)
                    demand(
                        not cut,
                        f"a long text is cut inside a character: {cut and shown[cut.start() - 9 :][:20]!r}",
                    )

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
                await self.send(channel, message)
                self.readable(receiver.received[-1])

    async def test_sends_at_once_do_not_mix(self) -> None:
        words = [f"giraffe{number}x" for number in range(8)]
        messages = [evolve(self.message, id=word, title=word, body=word) for word in words]
        async with self.at_work() as (receiver, channel):
            with unblocked(channel):
                await asyncio.gather(*(self._attempt(channel, message) for message in messages))
        texts = [self.readable(received) for received in receiver.received]
        found = sorted(w for w in words for text in texts if w in text)
        demand(found == words, "messages sent at the same time were lost or mixed")

    async def test_nothing_shows_a_secret_where_all_goes_well(self) -> None:
        with all_that_is_shown(self.receiver_loggers) as lines:
            async with self.receiver() as receiver:
                config = self.config(receiver.url)
                receiver.reply = evolve(receiver.reply, body=Received.echo)
                async with self.opened(config) as channel:
                    shown = [repr(config), repr(channel), str(await self.send(channel))]
        no_secret_in([*shown, *lines], config)
        for text in (*shown, *lines):
            demand(LINK not in text, f"a link that decides is shown in {text!r}")


def no_secret_in(texts: list[str], config: object) -> None:
    """None in any of them, nor in all together: lines that follow one another may hold a piece each."""
    lines = "\n".join(dict.fromkeys(line for text in texts for line in text.splitlines()))
    if leaks(lines, config):
        shown = next((text for text in texts if leaks(text, config)), lines)
        demand(False, f"a secret is shown in {shown!r}")


def _check_receipt(receipt: Any) -> None:
    """Its attributes are what their types say, which nothing has checked so far."""
    demand(isinstance(receipt.detail, str), "the receipt's detail is no text")
    demand(receipt.status is None or type(receipt.status) is int, "the receipt's status is no number")
    fit = isinstance(receipt.ref, str) and len(receipt.ref) <= _REF_LIMIT and receipt.ref.isprintable()
    demand(
        fit, f"the receipt's ref is not a text of at most {_REF_LIMIT} printable characters: it is not kept"
    )


def _pieces(message: Message) -> dict[str, list[str]]:
    """What has to be seen of it."""
    return {
        "body": message.body.splitlines(),
        "fields": [text for fact in message.fields for text in (fact.name, fact.value)],
        "actions": [action.url for action in message.actions],
    }


def _plain(text: str) -> str:
    """On one line, without what nobody sees: channels break lines, and break marks up, as vendors need it."""
    return _SPACE.sub(" ", _UNSEEN.sub("", text))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
