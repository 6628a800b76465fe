"""The `telegram` channel: one `sendMessage` of the Bot API, and, where it is asked for, what people answer.

Vendor's rules: https://core.telegram.org/bots/api#editmessagetext,
https://core.telegram.org/bots/api#replyparameters (a message that is gone need not refuse the reply),
https://core.telegram.org/bots/api#responseparameters (`retry_after`, seconds, and `migrate_to_chat_id`),
https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this (20 a minute to one group;
to one person it is one a second).
"""

from __future__ import annotations

import json
import re
from typing import Any

from notifyd.plugin import (
    Answer,
    ChannelContext,
    ChannelType,
    InboundRequest,
    InboundResponse,
    Inbox,
    Message,
    PermanentError,
    Reason,
    Receipt,
    check_response,
    hide,
    hookimpl,
    post,
)
from notifyd_telegram.answers import AnswersTaken, poll, receive
from notifyd_telegram.config import Answers, TelegramConfig, is_chat
from notifyd_telegram.payload import payload

__all__ = ["Answers", "TelegramChannel", "TelegramConfig", "notifyd_channel_types", "payload"]

_NUMBER = re.compile(r'"result"\s*:\s*\{\s*"message_id"\s*:\s*([0-9]+)')
"""Where the number of a message stands in the answer, whose end may be cut off."""
_OF = "/"
_UNCHANGED = "message is not modified"


class TelegramChannel:
    def __init__(self, config: TelegramConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        chat = self._chat_of(message)
        answer = await self._call("sendMessage", payload(message, chat) | _reply(message, chat))
        number = _NUMBER.search(answer.text)
        receipt = self._checked(answer)
        return Receipt(status=receipt.status, ref=f"{chat}{_OF}{number[1]}" if number else "")

    async def edit(self, ref: str, message: Message) -> Receipt:
        """Put `message` in the place of the one that was sent. One that says so already is as it should be."""
        chat, _, number = ref.rpartition(_OF)
        if not is_chat(chat) or not number.isdecimal():
            raise PermanentError("this names no message of Telegram's", reason=Reason.NOT_FOUND)
        answer = await self._call("editMessageText", payload(message, chat) | {"message_id": int(number)})
        if _UNCHANGED in str(answer.json.get("description", "")):
            return Receipt("it says so already", status=answer.status)
        return self._checked(answer)

    async def _call(self, method: str, body: dict[str, Any]) -> Answer:
        return await post(self._context.http, self._config.method_url(method), json.dumps(body).encode())

    def _checked(self, answer: Answer) -> Receipt:
        error = answer.json
        return check_response(
            _status(answer),
            answer.headers,
            hide(answer.text, [self._config.bot_token]),
            now=self._context.clock(),
            retry_after=_parameter(error, "retry_after"),
            said=_reason(error),
        )

    def _chat_of(self, message: Message) -> str:
        chat = self._config.chat_id or message.recipient or ""
        if not is_chat(chat):
            raise PermanentError("the recipient's address is not a chat id", reason=Reason.NOT_FOUND)
        return chat

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _reply(message: Message, chat: str) -> dict[str, Any]:
    """What makes it a reply to the message that it follows, if that is in the same chat, and still there."""
    of, _, number = message.follows.rpartition(_OF)
    if of != chat or not number.isdecimal():
        return {}
    return {"reply_parameters": {"message_id": int(number), "allow_sending_without_reply": True}}


def _status(answer: Answer) -> int:
    """The status that counts: where `ok` is false in an answer with 200, it is `error_code`.

    The API documents `ok` as its verdict and gives `error_code` beside it
    (https://core.telegram.org/bots/api#making-requests). Where no body came the status stands alone.
    """
    if answer.status != 200 or answer.json.get("ok") is not False:
        return answer.status
    code = answer.json.get("error_code")
    return code if isinstance(code, int) and 400 <= code < 600 else 400


def _reason(error: dict[str, Any]) -> str:
    """What Telegram says; of a group that has become a supergroup, what its chat id is now."""
    said, moved = str(error.get("description", "")), _parameter(error, "migrate_to_chat_id")
    return f"{said} (its chat id is now {moved})" if isinstance(moved, int) else said


def _parameter(error: dict[str, Any], name: str) -> object:
    """What an error tells for programs, as it came."""
    parameters = error.get("parameters")
    return parameters.get(name) if isinstance(parameters, dict) else None


class PollingChannel(TelegramChannel):
    """Asks Telegram what was answered, so that nobody has to reach the daemon."""

    async def listen(self, inbox: Inbox) -> None:
        await poll(self._config, self._context, AnswersTaken(self._config, self._context), inbox)


class CalledChannel(TelegramChannel):
    """Is called by Telegram, which `setWebhook` has told where."""

    def __init__(self, config: TelegramConfig, context: ChannelContext) -> None:
        super().__init__(config, context)
        self._answers = AnswersTaken(config, context)

    async def receive(self, request: InboundRequest) -> InboundResponse:
        return await receive(self._config, self._answers, request)


_CHANNELS = {Answers.OFF: TelegramChannel, Answers.POLL: PollingChannel, Answers.WEBHOOK: CalledChannel}


def _open(config: TelegramConfig, context: ChannelContext) -> TelegramChannel:
    return _CHANNELS[config.answers](config, context)


def _personal(config: TelegramConfig) -> bool:
    return config.chat_id is None


def _answers(config: TelegramConfig) -> bool:
    return config.answers is not Answers.OFF


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    kind = ChannelType("telegram", TelegramConfig, _open, _personal, "20/m", addressed=True, answers=_answers)
    return (kind,)
