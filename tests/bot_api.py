"""A stand-in for Telegram's Bot API, as https://core.telegram.org/bots/api documents it, on a port of its own."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final, Self

from aiohttp import web

from notifyd.testkit.receivers import serve

TOKEN: Final = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
CALLBACK_DATA: Final = 64
ALERT: Final = 200


class BotApi:
    """`async with BotApi() as telegram`. People press buttons by `press` and write by `say`."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[dict[str, Any]] = []  # each message as it was sent, with its message_id
        self.told: list[dict[str, Any]] = []  # the answers to callback queries
        self.polls: list[int] = []  # the offsets that were asked for
        self.fails: dict[str, tuple[int, str]] = {}  # by method: how it is refused
        self._updates: list[dict[str, Any]] = []
        self._numbers = itertools.count(700)
        self._came = asyncio.Event()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(f"/bot{TOKEN}/{{method}}", self._call)
        self._runner, self.url = await serve(app)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        self._came.set()
        await self._runner.cleanup()

    # -- what people do -----------------------------------------------------------------------------------

    def pressed(self, message: dict[str, Any], user: int, label: str) -> dict[str, Any]:
        """The update of a button that `user` presses."""
        rows = message["reply_markup"]["inline_keyboard"]
        (button,) = (one for row in rows for one in row if one["text"] == label)
        return self.made(message, user, button["callback_data"])

    def made(self, message: dict[str, Any], user: int, data: str) -> dict[str, Any]:
        """The update of a button that hands back `data`, whether the message has one or not."""
        number = next(self._numbers)
        query = {
            "id": f"query-{number}",
            "from": {"id": user, "is_bot": False, "first_name": "<Ann>"},
            "message": {"message_id": message["message_id"], "chat": {"id": int(message["chat_id"])}},
            "data": data,
        }
        return {"update_id": number, "callback_query": query}

    def said(self, to: dict[str, Any], user: int, text: str) -> dict[str, Any]:
        """The update of a reply that `user` writes to a message."""
        number, chat = next(self._numbers), {"id": int(to["chat_id"])}
        message = {
            "message_id": number,
            "from": {"id": user, "is_bot": False, "first_name": "Ann"},
            "chat": chat,
            "reply_to_message": {"message_id": to["message_id"], "chat": chat},
            "text": text,
        }
        return {"update_id": number, "message": message}

    def happens(self, update: dict[str, Any]) -> None:
        """It is there for the next poll."""
        self._updates.append(update)
        self._came.set()

    # -- what a bot calls ---------------------------------------------------------------------------------

    async def _call(self, request: web.Request) -> web.Response:
        method, body = request.match_info["method"], await request.json()
        if method in self.fails:
            code, description = self.fails[method]
            refusal = {"ok": False, "error_code": code, "description": description}
            return web.json_response(refusal, status=code)
        result = await getattr(self, f"_{method}")(body)
        if isinstance(result, str):
            refusal = {"ok": False, "error_code": 400, "description": f"Bad Request: {result}"}
            return web.json_response(refusal, status=400)
        return web.json_response({"ok": True, "result": result})

    async def _sendMessage(self, body: dict[str, Any]) -> Any:  # noqa: N802 - a method's own name
        keyboard = body.get("reply_markup", {}).get("inline_keyboard", [])
        for button in (one for row in keyboard for one in row):
            if len(button.get("callback_data", "x").encode()) not in range(1, CALLBACK_DATA + 1):
                return "BUTTON_DATA_INVALID"
            if ("url" in button) == ("callback_data" in button):
                return "a button has exactly one of the optional fields"
        message = {**body, "message_id": next(self._numbers)}
        self.sent.append(message)
        return {"message_id": message["message_id"], "chat": {"id": body["chat_id"]}, "text": body["text"]}

    async def _editMessageText(self, body: dict[str, Any]) -> Any:  # noqa: N802 - a method's own name
        found = [one for one in self.sent if one["message_id"] == body["message_id"]]
        if not found or found[0]["chat_id"] != body["chat_id"]:
            return "message to edit not found"
        if (body["text"], body.get("reply_markup")) == (found[0]["text"], found[0].get("reply_markup")):
            return "message is not modified: specified new message content and reply markup are the same"
        found[0].pop("reply_markup", None)
        found[0].update(body)
        return True

    async def _answerCallbackQuery(self, body: dict[str, Any]) -> Any:  # noqa: N802 - a method's own name
        if len(body.get("text", "")) > ALERT:
            return "MESSAGE_TOO_LONG"
        self.told.append(body)
        return True

    async def _getUpdates(self, body: dict[str, Any]) -> Any:  # noqa: N802 - a method's own name
        self.polls.append(body["offset"])
        self._updates = [one for one in self._updates if one["update_id"] >= body["offset"]]
        if not self._updates and not self._closing.is_set():
            self._came.clear()
            await asyncio.wait([asyncio.ensure_future(self._came.wait())], timeout=body["timeout"])
        return self._updates[: body["limit"]]
