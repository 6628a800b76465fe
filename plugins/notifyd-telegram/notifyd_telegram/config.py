"""The options of a channel with `type = "telegram"`."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import attrs
from attrs import field, frozen

from notifyd.plugin import Secret, http_url

_TOKEN: Final = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_CHAT: Final = re.compile(r"-?[0-9]+|@[A-Za-z0-9_]+")


def _is_token(config: TelegramConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _TOKEN.fullmatch(value.reveal()):
        raise ValueError("not a bot token, which is written <number>:<letters and digits>")


def is_chat(text: str) -> bool:
    return _CHAT.fullmatch(text) is not None


def _is_chat(config: TelegramConfig, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and not is_chat(value):
        raise ValueError('not a chat id: write "-1001234567890", or "@name" for a public channel')


def _is_secret(
    config: TelegramConfig, attribute: attrs.Attribute[Secret | None], value: Secret | None
) -> None:
    if value is not None and not _SECRET.fullmatch(value.reveal()):
        raise ValueError("not a secret token, which has 1 to 256 of the characters A-Z a-z 0-9 _ -")


class Answers(StrEnum):
    """How the bot is told what people do with its messages."""

    OFF = "off"
    POLL = "poll"
    WEBHOOK = "webhook"


@frozen
class TelegramConfig:
    """`chat_id` is a number in quotes, or `@name`. Without one the channel writes to each person of a rule's `to`,
    at their `telegram` address in `[recipients]`: their user id, once they have started a chat with the bot.
    `api_url` is for a Bot API server of one's own.

    With `answers = "poll"` messages have buttons that decide, and notifyd asks Telegram for what was pressed. With
    `"webhook"` Telegram calls `server.public_url` + `/channels/NAME/inbound`, as `setWebhook` was told with
    `webhook_secret` for its `secret_token`.
    """

    bot_token: Secret = field(validator=_is_token)
    chat_id: str | None = field(default=None, validator=_is_chat)
    api_url: Secret = field(default=Secret("https://api.telegram.org"), validator=http_url)

    answers: Answers = Answers.OFF
    webhook_secret: Secret | None = field(default=None, validator=_is_secret)

    def __attrs_post_init__(self) -> None:
        if (self.answers is Answers.WEBHOOK) != (self.webhook_secret is not None):
            raise ValueError('answers = "webhook" and webhook_secret go together')

    def method_url(self, method: str) -> Secret:
        """The URL of one method of the Bot API, which holds the bot's token."""
        base, mark, query = self.api_url.reveal().partition("#")[0].partition("?")
        return Secret(f"{base.rstrip('/')}/bot{self.bot_token.reveal()}/{method}{mark}{query}")
