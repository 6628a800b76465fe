"""The `slack` channel: Block Kit by one POST to an incoming webhook, or by an app's bot, who can be answered.

Vendor's rules: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks (the request and its
errors), https://docs.slack.dev/apis/web-api/rate-limits (one message a second to a channel, `Retry-After`).
"""

from __future__ import annotations

import json
import re
from typing import Final

from notifyd.plugin import (
    ChannelContext,
    ChannelType,
    Message,
    Receipt,
    Secret,
    check_response,
    hookimpl,
    post,
)
from notifyd_slack.bot import BotChannel, CalledChannel, SocketModeChannel
from notifyd_slack.config import SlackConfig
from notifyd_slack.payload import escape, payload

__all__ = ["BotChannel", "SlackChannel", "SlackConfig", "escape", "notifyd_channel_types", "payload"]

_ERROR_CODE: Final = re.compile(r"[a-z_]{3,60}")


class SlackChannel:
    """Posts to an incoming webhook, which tells nothing of what it made of a message."""

    def __init__(self, config: SlackConfig, context: ChannelContext) -> None:
        self._url = config.webhook_url or Secret("")
        self._context = context

    async def send(self, message: Message) -> Receipt:
        body = json.dumps(payload(message)).encode()
        answer = await post(self._context.http, self._url, body)
        # An error is one word, such as channel_is_archived; anything else is no Slack that speaks.
        said = answer.text.strip() if _ERROR_CODE.fullmatch(answer.text.strip()) else ""
        now = self._context.clock()
        return check_response(answer.status, answer.headers, answer.text, now=now, said=said)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _open(config: SlackConfig, context: ChannelContext) -> SlackChannel | BotChannel:
    if config.app_token is not None:
        return SocketModeChannel(config, context)
    if config.signing_secret is not None:
        return CalledChannel(config, context)
    return SlackChannel(config, context) if config.webhook_url else BotChannel(config, context)


def _personal(config: SlackConfig) -> bool:
    return config.personal


def _answers(config: SlackConfig) -> bool:
    return config.answers


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    kind = ChannelType("slack", SlackConfig, _open, _personal, "1/s", addressed=True, answers=_answers)
    return (kind,)
