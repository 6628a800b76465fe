"""What people do with the bot's messages: buttons pressed, reasons given, by long polling or by Telegram's own
call.

Vendor's rules: https://core.telegram.org/bots/api#getupdates (offset, timeout, and that no webhook may be set),
https://core.telegram.org/bots/api#setwebhook (`secret_token` and its header),
https://core.telegram.org/bots/api#callbackquery, https://core.telegram.org/bots/api#answercallbackquery (200
characters), https://core.telegram.org/bots/api#forcereply (whom `selective` means).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from notifyd.plugin import (
    ChannelContext,
    InboundRequest,
    InboundResponse,
    Inbox,
    PermanentError,
    Reaction,
    ReactionReply,
    TransientError,
    check_response,
    clean,
    fit,
    hide,
    one_line,
    post,
)
from notifyd_telegram.config import TelegramConfig
from notifyd_telegram.payload import escape

POLL_SECONDS: Final = 25
"""For how long a poll waits at Telegram for something to come."""
_PATIENCE: Final = 15.0
"""Seconds that a poll may take beyond that."""
_AT_ONCE: Final = 20
_SIZE_LIMIT: Final = 1024 * 1024
_TOLD_LIMIT: Final = 200
_NAME_LIMIT: Final = 64
_QUESTIONS: Final = 50
"""How many questions for a reason may be open; the oldest are forgotten."""
_OFFSET: Final = "offset"
_ASKED: Final = "questions"
_SECRET_HEADER: Final = "x-telegram-bot-api-secret-token"  # noqa: S105 - a header's name
_KINDS: Final = ("callback_query", "message")

_ACTIONS: Final = {"a": "approved", "r": "rejected"}
_DATA: Final = re.compile("([ar]):([0-9a-f]{32})")


class AnswersTaken:
    """Hands in what an update says, and tells whoever did it what became of it."""

    def __init__(self, config: TelegramConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context
        self._asking = asyncio.Lock()

    async def take(self, update: Mapping[str, Any], inbox: Inbox) -> None:
        """Raises `TransientError` where it has to come again."""
        pressed, said = _object(update, "callback_query"), _object(update, "message")
        if pressed:
            await self._pressed(pressed, inbox)
        elif said:
            await self._said(said, inbox)

    async def _pressed(self, query: Mapping[str, Any], inbox: Inbox) -> None:
        found = _DATA.fullmatch(str(query.get("data")))
        who = _object(query, "from")
        if found is None or "id" not in who:
            return
        reaction = Reaction(str(who["id"]), _ACTIONS[found[1]], found[2])
        answer = await inbox(reaction)
        if answer.asks_reason:
            await self._ask(query, who, reaction, answer)
        told = {"text": fit(answer.text, _TOLD_LIMIT), "show_alert": not answer.recorded}
        await self._call("answerCallbackQuery", {"callback_query_id": str(query.get("id")), **told})

    async def _ask(
        self, query: Mapping[str, Any], who: Mapping[str, Any], reaction: Reaction, answer: ReactionReply
    ) -> None:
        """Ask for the reason where the button was pressed, of the one who pressed it."""
        chat = _object(_object(query, "message"), "chat").get("id")
        name = fit(one_line(str(who.get("first_name", ""))), _NAME_LIMIT, escape=escape) or "?"
        mention = f'<a href="tg://user?id={escape(reaction.actor_ref)}">{name}</a>'
        asked = await self._call(
            "sendMessage",
            {
                "chat_id": chat,
                "text": f"{mention}: {escape(answer.text)}",
                "parse_mode": "HTML",
                "reply_markup": {"force_reply": True, "selective": True},
            },
        )
        number = _object(asked, "result").get("message_id")
        if number is not None:
            async with self._asking:
                open_ = await self._open_questions()
                open_[f"{chat}:{number}"] = [reaction.actor_ref, reaction.action, reaction.ref]
                await self._keep(open_)

    async def _said(self, message: Mapping[str, Any], inbox: Inbox) -> None:
        """A reply to a question of ours, by the one who was asked; whatever else is said is nobody's business."""
        chat = _object(message, "chat").get("id")
        question = f"{chat}:{_object(message, 'reply_to_message').get('message_id')}"
        who, text = str(_object(message, "from").get("id")), clean(str(message.get("text", ""))).strip()
        asked = (await self._open_questions()).get(question)
        if asked is None or asked[0] != who or not text:
            return
        answer = await inbox(Reaction(asked[0], asked[1], asked[2], text))
        reply = {"message_id": message.get("message_id"), "allow_sending_without_reply": True}
        await self._call("sendMessage", {"chat_id": chat, "text": answer.text, "reply_parameters": reply})
        if answer.recorded:
            async with self._asking:
                open_ = await self._open_questions()
                open_.pop(question, None)
                await self._keep(open_)

    async def _open_questions(self) -> dict[str, list[str]]:
        """Who was asked for a reason, for which action and message, by the chat and the question's number."""
        found: dict[str, list[str]] = json.loads(await self._context.state.get(_ASKED) or "{}")
        return found

    async def _keep(self, questions: dict[str, list[str]]) -> None:
        newest = dict(list(questions.items())[-_QUESTIONS:])
        await self._context.state.set(_ASKED, json.dumps(newest))

    async def _call(self, method: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer; nothing where there is none: what was decided stands, whether it could be told or not."""
        try:
            answer = await post(
                self._context.http, self._config.method_url(method), json.dumps(body).encode()
            )
            text = hide(answer.text, [self._config.bot_token])
            check_response(answer.status, answer.headers, text, now=self._context.clock())
        except (TransientError, PermanentError) as error:
            self._context.logger.warning("Telegram does not take %s: %s", method, error)
            return {}
        return answer.json


async def poll(config: TelegramConfig, context: ChannelContext, answers: AnswersTaken, inbox: Inbox) -> None:
    """Ask for updates for ever: what was taken never again, over restarts too. Raises `TransientError`."""
    offset = int(await context.state.get(_OFFSET) or 0)
    while True:
        for update in await _updates(config, context, offset):
            await answers.take(update, inbox)
            offset = int(update["update_id"]) + 1
            await context.state.set(_OFFSET, str(offset))


async def _updates(config: TelegramConfig, context: ChannelContext, offset: int) -> list[dict[str, Any]]:
    asked = {"offset": offset, "limit": _AT_ONCE, "timeout": POLL_SECONDS, "allowed_updates": _KINDS}
    url = config.method_url("getUpdates").reveal()
    timeout = aiohttp.ClientTimeout(total=POLL_SECONDS + _PATIENCE)
    try:
        async with context.http.post(url, json=asked, timeout=timeout, allow_redirects=False) as response:
            body = await response.content.read(_SIZE_LIMIT)
            status = response.status
            while (more := await response.content.read(_SIZE_LIMIT)) and len(body) < _SIZE_LIMIT:
                body += more
    except (aiohttp.ClientError, TimeoutError, OSError) as error:  # whose texts have the URL
        raise TransientError(f"Telegram cannot be asked: {type(error).__name__}") from None
    return _read(body, status)


def _read(body: bytes, status: int) -> list[dict[str, Any]]:
    """Raises `TransientError` with Telegram's own words: 409 is another that polls, or a webhook that is set."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("ok") is not True:
        said = document.get("description") if isinstance(document, dict) else ""
        raise TransientError(f"Telegram answers {status}: {said}", status=status)
    found = document.get("result")
    updates = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [one for one in updates if isinstance(one.get("update_id"), int)]


async def receive(config: TelegramConfig, answers: AnswersTaken, request: InboundRequest) -> InboundResponse:
    """Telegram's own call with one update. Raises `TransientError`: it calls again."""
    secret = config.webhook_secret.reveal() if config.webhook_secret else ""
    given = request.headers.get(_SECRET_HEADER, "")
    if not secret or not hmac.compare_digest(given.encode(errors="replace"), secret.encode()):
        return InboundResponse(401, "the secret token is not the one of this channel")
    try:
        update = json.loads(request.body)
    except ValueError:
        update = None
    if not isinstance(update, dict):
        return InboundResponse(400, "not an update")
    await answers.take(update, request.inbox)
    return InboundResponse()


def _object(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that is an object; an empty one where it is none."""
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}
