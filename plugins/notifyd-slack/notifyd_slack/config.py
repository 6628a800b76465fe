"""The options of a channel with `type = "slack"`."""

from __future__ import annotations

import re
from typing import Final

import attrs
from attrs import field, frozen
from attrs.validators import optional

from notifyd.plugin import Secret, http_url

_BOT_TOKEN: Final = re.compile(r"xoxb-[A-Za-z0-9-]+")
_APP_TOKEN: Final = re.compile(r"xapp-[A-Za-z0-9-]+")
_SIGNING_SECRET: Final = re.compile(r"[A-Za-z0-9]{16,128}")
_CHANNEL: Final = re.compile(r"[CGD][A-Z0-9]{2,30}")
_MEMBER: Final = re.compile(r"[UW][A-Z0-9]{2,30}")


def is_channel(text: str) -> bool:
    """Is it the id of a conversation? A name is none: `chat.update` takes ids only."""
    return _CHANNEL.fullmatch(text) is not None


def is_member(text: str) -> bool:
    """Is it the id of a person?"""
    return _MEMBER.fullmatch(text) is not None


def _is_bot_token(config: SlackConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _BOT_TOKEN.fullmatch(value.reveal()):
        raise ValueError("not a bot token, which begins with xoxb-")


def _is_app_token(config: SlackConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _APP_TOKEN.fullmatch(value.reveal()):
        raise ValueError("not an app-level token, which begins with xapp-")


def _is_signing_secret(config: SlackConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _SIGNING_SECRET.fullmatch(value.reveal()):
        raise ValueError("not a signing secret, which is letters and digits")


def _is_channel(config: SlackConfig, attribute: attrs.Attribute[str], value: str) -> None:
    if not is_channel(value):
        raise ValueError('not a channel\'s ID, which is written "C0123456789"')


@frozen
class SlackConfig:
    """`webhook_url` is the URL that Slack shows when an incoming webhook is added to a channel. Its messages can
    be read, and no more.

    With a `bot_token` in its place (scope `chat:write`) messages are changed when their approval ends, and what
    follows a request goes into the thread below it. `channel_id` is the channel to write to, of which the app has
    to be a member. Without one the channel writes to each person of a rule's `to`, at their `slack` address in
    `[recipients]`: their member ID.

    Messages have buttons that decide where Slack can tell what was pressed. With an `app_token` (scope
    `connections:write`) it does so over Socket Mode, and nobody has to reach the daemon. With the app's
    `signing_secret` it calls `server.public_url` + `/channels/NAME/inbound`, as the app's Request URL for
    interactivity says. An app has one way or the other, and belongs to one channel of notifyd.
    """

    webhook_url: Secret | None = field(default=None, validator=optional(http_url))
    bot_token: Secret | None = field(default=None, validator=optional(_is_bot_token))
    channel_id: str | None = field(default=None, validator=optional(_is_channel))
    app_token: Secret | None = field(default=None, validator=optional(_is_app_token))
    signing_secret: Secret | None = field(default=None, validator=optional(_is_signing_secret))
    api_url: Secret = field(default=Secret("https://slack.com/api"), validator=http_url)

    def __attrs_post_init__(self) -> None:
        if (self.webhook_url is None) == (self.bot_token is None):
            raise ValueError("either webhook_url or bot_token says how to send")
        if self.bot_token is None and (self.channel_id or self.answers):
            raise ValueError("channel_id, app_token and signing_secret go with a bot_token")
        if self.app_token is not None and self.signing_secret is not None:
            raise ValueError("Slack tells of answers either by app_token or by signing_secret")

    @property
    def answers(self) -> bool:
        """Is Slack able to tell what people press?"""
        return self.app_token is not None or self.signing_secret is not None

    @property
    def personal(self) -> bool:
        return self.bot_token is not None and self.channel_id is None
