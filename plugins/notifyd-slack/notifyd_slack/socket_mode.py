"""Socket Mode: Slack tells of what people do over a connection that the channel opens.

Vendor's rules: https://docs.slack.dev/apis/events-api/using-socket-mode (each envelope is acknowledged by its id,
with a payload where a dialog is answered; a `disconnect` says that the connection is refreshed; several
connections of one app share what comes),
https://docs.slack.dev/reference/methods/apps.connections.open (a URL that serves once, and is a secret).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from notifyd.plugin import ChannelContext, Inbox, ReactionReply, Secret, TransientError
from notifyd_slack.answers import Act, Answers, act_of, object_in, read_object, response
from notifyd_slack.config import SlackConfig
from notifyd_slack.web_api import call, checked

_URL: Final = re.compile("wss?://.+")
_HEARTBEAT: Final = 20.0
"""Seconds between two pings of ours: without an answer the connection is dead."""
_CLOSING: Final = 1.0
"""Seconds that Slack is given to agree to the end of a connection."""
_STEADY: Final = 10.0
"""Seconds between two refreshes. More often they are no refreshes, and the daemon makes its pauses."""
_AT_ONCE: Final = 20
"""How many interactions are looked at at a time."""


class SocketMode:
    def __init__(self, config: SlackConfig, context: ChannelContext, answers: Answers) -> None:
        self._config = config
        self._context = context
        self._answers = answers

    async def listen(self, inbox: Inbox) -> None:
        """Hear for ever: a connection that Slack refreshes is read on until it ends, beside the new one.

        Raises `TransientError` where a connection cannot be opened or breaks off, `PermanentError` where the token
        is refused.
        """
        lines: set[asyncio.Task[None]] = set()
        refreshed = -_STEADY
        clock = asyncio.get_running_loop().time
        try:
            while True:
                refresh = asyncio.Event()
                lines.add(asyncio.create_task(self._line(inbox, refresh)))
                await _until(refresh, lines)
                if clock() - refreshed < _STEADY:
                    raise TransientError("Slack refreshes the connection all the time")
                refreshed = clock()
        finally:
            for line in lines:
                line.cancel()
            await asyncio.gather(*lines, return_exceptions=True)

    async def _line(self, inbox: Inbox, refresh: asyncio.Event) -> None:
        """One connection, from its opening to its end."""
        url = await self._open()
        try:
            async with self._context.http.ws_connect(
                url.reveal(),
                heartbeat=_HEARTBEAT,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING),
            ) as socket:
                await _Line(self._answers, self._context, socket, inbox, refresh).read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:  # whose texts have the URL
            raise TransientError(f"Slack cannot be listened to: {type(error).__name__}") from None
        if not refresh.is_set():
            raise TransientError("Slack has closed the connection")

    async def _open(self) -> Secret:
        answer = await call(self._config, self._context, "apps.connections.open", {}, self._config.app_token)
        checked(answer, self._context)
        url = str(answer.json.get("url", ""))
        if not _URL.fullmatch(url) or (url.startswith("ws:") and _is_https(self._config)):
            raise TransientError("Slack gives no address to listen at")
        return Secret(url)


class _Line:
    """Reads one connection. `refresh` is set once Slack says that another is to be opened."""

    def __init__(
        self,
        answers: Answers,
        context: ChannelContext,
        socket: aiohttp.ClientWebSocketResponse,
        inbox: Inbox,
        refresh: asyncio.Event,
    ) -> None:
        self._answers = answers
        self._context = context
        self._socket = socket
        self._inbox = inbox
        self._refresh = refresh
        self._at_work: set[asyncio.Task[None]] = set()

    async def read(self) -> None:
        try:
            async for frame in self._socket:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    await self._came(read_object(frame.data))
        finally:
            for task in self._at_work:
                task.cancel()
            await asyncio.gather(*self._at_work, return_exceptions=True)

    async def _came(self, envelope: Mapping[str, Any]) -> None:
        if envelope.get("type") == "disconnect":
            if envelope.get("reason") == "link_disabled":
                raise TransientError("Socket Mode is turned off for this app")
            self._refresh.set()
        elif isinstance(envelope.get("envelope_id"), str):
            if len(self._at_work) >= _AT_ONCE:
                await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._take(envelope["envelope_id"], envelope))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)

    async def _take(self, number: str, envelope: Mapping[str, Any]) -> None:
        """Acknowledge an envelope once it is recorded: of one that is not, Slack tells that it did not work."""
        act = act_of(object_in(envelope, "payload")) if envelope.get("type") == "interactive" else None
        if act is None:
            await self._acknowledge(number, {})
            return
        reply = await self._heard(act)
        if reply is not None:
            await self._acknowledge(number, response(act, reply))
            await self._answers.tell(act, reply)

    async def _heard(self, act: Act) -> ReactionReply | None:
        try:
            return await self._answers.hear(act, self._inbox)
        except TransientError as error:
            self._context.logger.warning("an answer could not be recorded: %s", error)
            return None

    async def _acknowledge(self, number: str, told: Mapping[str, Any]) -> None:
        payload = {"payload": told} if told else {}
        try:
            await self._socket.send_str(json.dumps({"envelope_id": number, **payload}))
        except (aiohttp.ClientError, OSError) as error:
            self._context.logger.warning("Slack could not be answered: %s", type(error).__name__)


async def _until(refresh: asyncio.Event, lines: set[asyncio.Task[None]]) -> None:
    """Wait until a connection is to be replaced. Raises what ends one of them."""
    waiting = asyncio.create_task(refresh.wait())
    try:
        while not refresh.is_set():
            ended, _ = await asyncio.wait({waiting, *lines}, return_when=asyncio.FIRST_COMPLETED)
            for line in lines & ended:
                lines.discard(line)
                line.result()
    finally:
        waiting.cancel()


def _is_https(config: SlackConfig) -> bool:
    return config.api_url.reveal().lower().startswith("https:")
