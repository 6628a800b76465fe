"""A channel that writes as an app's bot, so that it can change what it has written and answer in threads.

Vendor's rules: https://docs.slack.dev/reference/methods/chat.postMessage (a member's ID as the channel is a direct
message; `thread_ts`), https://docs.slack.dev/reference/methods/chat.update (that it takes the ID of the direct
message, `D…`, and not the person's).
"""

from __future__ import annotations

import re
from typing import Any, Final

from notifyd.plugin import (
    Answer,
    ChannelContext,
    InboundRequest,
    InboundResponse,
    Inbox,
    Message,
    PermanentError,
    Reason,
    Receipt,
)
from notifyd_slack.answers import Answers
from notifyd_slack.config import SlackConfig, is_member
from notifyd_slack.endpoint import receive
from notifyd_slack.payload import payload
from notifyd_slack.socket_mode import SocketMode
from notifyd_slack.web_api import call, checked

_REF: Final = re.compile(r"([CDG][A-Z0-9]{2,30})/([0-9]{1,20}\.[0-9]{1,10})")
_CHANNEL: Final = re.compile(r'"channel"\s*:\s*"([CDG][A-Z0-9]{2,30})"')
_TS: Final = re.compile(r'"ts"\s*:\s*"([0-9]{1,20}\.[0-9]{1,10})"')
"""Where channel and number of a message stand in an answer, whose end may be cut off."""
_UPDATED: Final = ("text", "blocks")


class BotChannel:
    def __init__(self, config: SlackConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        channel = self._channel_of(message)
        body = payload(message) | {"channel": channel} | _thread(message)
        answer = await self._call("chat.postMessage", body)
        receipt = checked(answer, self._context)
        return Receipt(status=receipt.status, ref=_ref(answer))

    async def edit(self, ref: str, message: Message) -> Receipt:
        """Put `message` in the place of the one that was sent. A thread below it stays."""
        found = _REF.fullmatch(ref)
        if found is None:
            raise PermanentError("this names no message of Slack's", reason=Reason.NOT_FOUND)
        whole = payload(message)
        told = {name: whole[name] for name in _UPDATED}
        answer = await self._call("chat.update", {"channel": found[1], "ts": found[2], **told})
        return checked(answer, self._context)

    async def _call(self, method: str, body: dict[str, Any]) -> Answer:
        return await call(self._config, self._context, method, body, self._config.bot_token)

    def _channel_of(self, message: Message) -> str:
        if self._config.channel_id is not None:
            return self._config.channel_id
        if not is_member(message.recipient or ""):
            raise PermanentError("the recipient's address is not a member's ID", reason=Reason.NOT_FOUND)
        return str(message.recipient)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _ref(answer: Answer) -> str:
    channel, ts = _CHANNEL.search(answer.text), _TS.search(answer.text)
    return f"{channel[1]}/{ts[1]}" if channel and ts else ""


def _thread(message: Message) -> dict[str, str]:
    """Where the message goes: below the one that it follows, if there is one."""
    found = _REF.fullmatch(message.follows)
    return {"thread_ts": found[2]} if found else {}


class SocketModeChannel(BotChannel):
    """Is told of answers over a connection of its own, so that nobody has to reach the daemon."""

    async def listen(self, inbox: Inbox) -> None:
        answers = Answers(self._config, self._context)
        await SocketMode(self._config, self._context, answers).listen(inbox)


class CalledChannel(BotChannel):
    """Is called by Slack, at the app's Request URL."""

    def __init__(self, config: SlackConfig, context: ChannelContext) -> None:
        super().__init__(config, context)
        self._answers = Answers(config, context)

    async def receive(self, request: InboundRequest) -> InboundResponse:
        return await receive(self._config, self._context, self._answers, request)
