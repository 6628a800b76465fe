"""A stand-in for Slack's Web API and Socket Mode, as https://docs.slack.dev has them, on a port of its own."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from typing import Any, Final, Self
from urllib.parse import urlencode

from aiohttp import WSMsgType, web

from notifyd.testkit.receivers import serve

BOT_TOKEN: Final = "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"
APP_TOKEN: Final = "xapp-1-A0123456789-1234567890123-0123456789abcdef0123456789abcdef"
SIGNING_SECRET: Final = "8f742231b10e8888abcd99ddd56785a5"
CHANNEL: Final = "C0123456789"

_BLOCKS: Final = 50
_IDS: Final = 255
_VALUE: Final = 2000


class SlackApi:
    """`async with SlackApi() as slack`. People press by `pressed`, submit by `submitted`; `happens` tells it."""

    def __init__(self) -> None:
        self.base = ""
        self.sent: list[dict[str, Any]] = []  # each message as it stands, with its channel and ts
        self.told: list[dict[str, Any]] = []  # what only one person sees
        self.views: list[dict[str, Any]] = []  # the dialogs that were opened
        self.acks: list[dict[str, Any]] = []  # the acknowledgements, as they came
        self.opened: list[str] = []  # under which prefix each connection was asked for
        self.fails: dict[str, str] = {}  # by method: the error that it is refused with
        self.sockets: list[tuple[str, web.WebSocketResponse]] = []  # those that are open, oldest first
        self._tickets: dict[str, str] = {}
        self._triggers: dict[str, float] = {}
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{prefix}/{method}", self._call)
        app.router.add_get("/link", self._link)
        self._runner, self.base = await serve(app, shutdown_timeout=0.1)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*(socket.close() for _, socket in self.sockets))
        await self._runner.cleanup()

    def url(self, prefix: str = "api") -> str:
        """What stands for https://slack.com/api: another for each who calls, to tell them apart."""
        return f"{self.base}/{prefix}"

    # -- what people do -----------------------------------------------------------------------------------

    def pressed(self, message: dict[str, Any], user: str, label: str) -> dict[str, Any]:
        """The interaction of a button that `user` presses."""
        (button,) = (one for one in buttons(message) if one["text"]["text"] == label)
        trigger = f"{next(self._numbers)}.98474.70b9d3dc"
        self._triggers[trigger] = time.monotonic()
        channel = message["channel"]
        return {
            "type": "block_actions",
            "user": {"id": user, "username": "ann", "team_id": "T0"},
            "api_app_id": "A0123456789",
            "token": "a-verification-token-that-nobody-checks",
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": channel},
            "trigger_id": trigger,
            "team": {"id": "T0", "domain": "acme"},
            "channel": {"id": channel, "name": "ops"},
            "response_url": f"{self.base}/actions/T0/1/x",
            "actions": [{**button, "block_id": "b1", "action_ts": "1548426417.840180"}],
        }

    def submitted(self, view: dict[str, Any], user: str, text: str) -> dict[str, Any]:
        """The interaction of a dialog that `user` submits."""
        (block,) = view["blocks"]
        value = {block["element"]["action_id"]: {"type": "plain_text_input", "value": text or None}}
        state = {"values": {block["block_id"]: value}}
        return {"type": "view_submission", "user": {"id": user}, "view": {**view, "state": state}}

    async def happens(self, interaction: dict[str, Any]) -> str:
        """Told over the newest connection. The id of the envelope."""
        envelope_id = f"envelope-{next(self._numbers)}"
        await self.tells(envelope_id, interaction)
        return envelope_id

    async def tells(self, envelope_id: str, interaction: dict[str, Any], *, socket: int = -1) -> None:
        envelope = {
            "envelope_id": envelope_id,
            "type": "interactive",
            "accepts_response_payload": interaction["type"] == "view_submission",
            "payload": interaction,
        }
        await self.sockets[socket][1].send_json(envelope)

    def acked(self, envelope_id: str) -> dict[str, Any] | None:
        return next((one for one in self.acks if one["envelope_id"] == envelope_id), None)

    # -- what an app calls --------------------------------------------------------------------------------

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        token = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        if method in self.fails:
            return web.json_response({"ok": False, "error": self.fails[method]})
        body = await request.json()
        if method == "apps.connections.open":
            return web.json_response({"ok": True, "url": self._ticket(request.match_info["prefix"])})
        answer = getattr(self, "_" + method.replace(".", "_"))(body)
        if isinstance(answer, str):
            return web.json_response({"ok": False, "error": answer})
        return web.json_response({"ok": True, **answer})

    def _chat_postMessage(self, body: dict[str, Any]) -> Any:  # noqa: N802 - a method's own name
        if (fault := _fault(body)) is not None:
            return fault
        threads = [one["ts"] for one in self.sent]
        if body.get("thread_ts", "") not in ("", *threads):
            return "thread_not_found"
        # To a person is into the direct message with them, which has an id of its own.
        channel = body["channel"].replace("U", "D", 1) if body["channel"][0] in "UW" else body["channel"]
        ts = f"15034{next(self._numbers):05}.000247"
        self.sent.append({**body, "channel": channel, "to": body["channel"], "ts": ts})
        return {"channel": channel, "ts": ts, "message": {"text": body["text"], "blocks": body["blocks"]}}

    def _chat_update(self, body: dict[str, Any]) -> Any:
        if (fault := _fault(body)) is not None:
            return fault
        found = [one for one in self.sent if (one["channel"], one["ts"]) == (body["channel"], body["ts"])]
        if not found:
            return "message_not_found" if body["channel"][0] in "CDG" else "channel_not_found"
        found[0].update(body)
        return {"channel": body["channel"], "ts": body["ts"], "text": body["text"]}

    def _chat_postEphemeral(self, body: dict[str, Any]) -> Any:  # noqa: N802 - a method's own name
        if (fault := _fault(body)) is not None:
            return fault
        self.told.append(body)
        return {"message_ts": "1502210682.580145"}

    def _views_open(self, body: dict[str, Any]) -> Any:
        at = self._triggers.pop(body["trigger_id"], None)
        if at is None or time.monotonic() - at > 3:
            return "expired_trigger_id"
        view = body["view"]
        short = (view["title"], view["submit"])
        if any(len(one["text"]) not in range(1, 25) for one in short) or len(view["private_metadata"]) > 3000:
            return "invalid_arguments"
        self.views.append(view)
        return {"view": {"id": "VMHU10V25"}}

    # -- Socket Mode --------------------------------------------------------------------------------------

    def _ticket(self, prefix: str) -> str:
        ticket = f"ticket-{next(self._numbers)}-of-a-connection"
        self._tickets[ticket] = prefix
        self.opened.append(prefix)
        return f"{self.base.replace('http', 'ws')}/link?ticket={ticket}&app_id=A0123456789"

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        prefix = self._tickets.pop(request.query["ticket"])  # a URL serves once
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "hello", "num_connections": len(self.sockets) + 1})
        self.sockets.append((prefix, socket))
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self.acks.append(json.loads(frame.data))
        finally:
            self.sockets.remove((prefix, socket))
        return socket


def buttons(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The buttons of a message."""
    rows = (block["elements"] for block in message["blocks"] if block["type"] == "actions")
    return [one for row in rows for one in row]


def signed(
    interaction: dict[str, Any], at: float, secret: str = SIGNING_SECRET
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of Slack's own call with it."""
    body = urlencode({"payload": json.dumps(interaction)}).encode()
    base = f"v0:{int(at)}:".encode() + body
    signature = "v0=" + hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()
    return body, {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": str(int(at)),
        "X-Slack-Signature": signature,
    }


def _fault(body: dict[str, Any]) -> str | None:
    """What Slack would say to a message that it does not take."""
    if len(body["blocks"]) > _BLOCKS or not body["text"]:
        return "invalid_blocks"
    pressed = buttons(body)
    names = [one["action_id"] for one in pressed]
    if len(set(names)) < len(names) or any(len(name) > _IDS for name in names):
        return "invalid_blocks"
    if any(len(one.get("value", "")) > _VALUE for one in pressed):
        return "invalid_blocks"
    return None
