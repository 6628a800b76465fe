"""For every channel that posts, and for the callback, the status line is the verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from notifyd_discord import DiscordChannel, DiscordConfig
from notifyd_google_chat import GoogleChatChannel, GoogleChatConfig
from notifyd_mattermost import MattermostChannel, MattermostConfig
from notifyd_ntfy import NtfyChannel, NtfyConfig
from notifyd_pagerduty import PagerdutyChannel, PagerdutyConfig
from notifyd_slack import SlackChannel, SlackConfig
from notifyd_teams import TeamsChannel, TeamsConfig
from notifyd_telegram import TelegramChannel, TelegramConfig
from notifyd_webhook import WebhookChannel, WebhookConfig

from notifyd.flow.attempt import Result, attempt
from notifyd.model import AttemptOutcome, Message
from notifyd.plugin import Channel, ChannelContext, Secret
from notifyd.registry.callback import CallbackChannel
from notifyd.registry.egress import Guard, open_session
from notifyd.security.redact import Redactor
from notifyd.security.signing import SigningKeys
from tests.daemon import CONFIG, daemon
from tests.fakes import TurnableClock, open_channel
from tests.receivers import ENDINGS, HEAD, receiver

SIGNING: Final = (Secret("whsec_" + "c2VjcmV0" * 4),)

CHANNELS: Final[dict[str, Callable[[str, ChannelContext], Channel]]] = {
    "webhook": lambda url, context: WebhookChannel(WebhookConfig(url=Secret(url)), context),
    "slack": lambda url, context: SlackChannel(SlackConfig(webhook_url=Secret(url)), context),
    "discord": lambda url, context: DiscordChannel(DiscordConfig(webhook_url=Secret(url)), context),
    "teams": lambda url, context: TeamsChannel(TeamsConfig(webhook_url=Secret(url)), context),
    "google-chat": lambda url, context: GoogleChatChannel(GoogleChatConfig(webhook_url=Secret(url)), context),
    "mattermost": lambda url, context: MattermostChannel(MattermostConfig(webhook_url=Secret(url)), context),
    "ntfy": lambda url, context: NtfyChannel(NtfyConfig(topic=Secret("t"), url=Secret(url)), context),
    "pagerduty": lambda url, context: PagerdutyChannel(
        PagerdutyConfig(routing_key=Secret("k" * 32), api_url=Secret(url)), context
    ),
    "telegram": lambda url, context: TelegramChannel(
        TelegramConfig(bot_token=Secret("1:a"), chat_id="1", api_url=Secret(url)), context
    ),
    "callback": lambda url, context: CallbackChannel(
        context.http, context.http, context.clock, lambda client: SIGNING, SigningKeys()
    ),
}


async def tried(
    name: str, timeout: float, *writes: bytes, path: str = "", heads: list[bytes] | None = None
) -> Result:
    """An attempt of the channel at a receiver that writes this and then holds the connection."""
    clock = TurnableClock()
    async with receiver(*writes, heads=heads) as base, open_session(Guard(("127.0.0.1",))) as http:
        url = base + path
        channel = CHANNELS[name](url, ChannelContext(name, http, logging.getLogger("test"), clock))
        event = {"client": "task-runner", "correlationId": "c-1"}
        message = Message(id="m-1", title="Title", body="Body", recipient=url, event=event)
        return await attempt(open_channel(channel, timeout=timeout), message, clock, Redactor())


@pytest.mark.parametrize("name", CHANNELS)
async def test_a_message_that_was_taken_is_sent_whatever_follows(name: str) -> None:
    results = await asyncio.gather(*(tried(name, 5, HEAD % 200 + e[0], *e[1:]) for e in ENDINGS.values()))
    outcomes = {ending: result.attempt.outcome for ending, result in zip(ENDINGS, results, strict=True)}
    assert outcomes == dict.fromkeys(ENDINGS, AttemptOutcome.SENT)


@pytest.mark.parametrize("name", CHANNELS)
async def test_a_request_to_wait_is_heard_whatever_follows(name: str) -> None:
    results = await asyncio.gather(*(tried(name, 5, HEAD % 429 + e[0], *e[1:]) for e in ENDINGS.values()))
    waits = {
        ending: (result.attempt.outcome, result.attempt.status, result.retry_after)
        for ending, result in zip(ENDINGS, results, strict=True)
    }
    assert waits == dict.fromkeys(ENDINGS, (AttemptOutcome.TRANSIENT, 429, 7.0))


@pytest.mark.parametrize("name", CHANNELS)
async def test_the_time_of_a_channel_may_end_while_it_reads_on(name: str) -> None:
    result = await tried(name, 0.5, HEAD % 200 + b"\r\n")
    assert (result.attempt.outcome, result.attempt.status) == (AttemptOutcome.SENT, 200)


async def test_a_channel_test_tells_the_same(tmp_path: Path) -> None:
    async with receiver(HEAD % 200 + b"\r\nok") as url:
        hook = "\n".join(["[channels.hook]", 'type = "webhook"', f'url = "{url}"', 'timeout = "500ms"'])
        async with daemon(tmp_path, CONFIG + hook) as notifyd:
            answer = await notifyd.post("/api/v1/channels/hook/test", {}, "operator")
    assert (answer.status, answer.json["status"]) == (200, "sent")


@pytest.mark.parametrize("name", CHANNELS)
async def test_a_url_goes_out_byte_for_byte(name: str) -> None:
    heads: list[bytes] = []
    path = "a%2Fb/../c;d=%7e/?sp=%2Fa%2Fb&&sig=x+y%20z==&empty=&%zz"
    await tried(name, 5, HEAD % 200 + b"Content-Length: 0\r\n\r\n", path=path + "#fragment", heads=heads)
    target = heads[0].split(b" ")[1].decode()
    ours = {"discord": path + "&wait=true", "telegram": path.replace("/?", "/bot1:a/sendMessage?")}
    assert target == "/" + ours.get(name, path)
