"""Handing a message to Apprise, in a thread of its own pool."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import apprise

from notifyd.plugin import Level, Message, Reason, Receipt, Secret, TransientError, clean, hide, one_line
from notifyd_apprise import AppriseConfig

WORKERS: Final = 4

_TYPES: Final = {
    Level.INFO: apprise.NotifyType.INFO,
    Level.SUCCESS: apprise.NotifyType.SUCCESS,
    Level.WARNING: apprise.NotifyType.WARNING,
    Level.ERROR: apprise.NotifyType.FAILURE,
}
_TALKATIVE: Final = ("apprise", "urllib3.connectionpool")
"""Loggers that write the URLs they call."""


class _Discretion(logging.Filter):
    """Takes a channel's secrets out of what others log, and drops their debug lines, which hold the payload."""

    def __init__(self, secrets: tuple[Secret, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return False
        record.msg, record.args = hide(record.getMessage(), self._secrets), ()
        return True


class AppriseChannel:
    """Raises ValueError where a URL is none that Apprise knows, by its number: a URL holds secrets."""

    def __init__(self, config: AppriseConfig) -> None:
        asset = apprise.AppriseAsset(
            app_id="notifyd",
            app_desc="notifyd",
            async_mode=False,
            secure_logging=True,
            storage_mode=apprise.PersistentStoreMode.MEMORY,  # nothing on the disk
        )
        self._services = apprise.Apprise(asset=asset)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="apprise")
        self._discretion = _Discretion(config.urls)
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self._discretion)
        for number, url in enumerate(config.urls):
            if not self._services.add(url.reveal()):
                self._close()
                raise ValueError(f"urls[{number}] is not a URL that Apprise knows")

    async def send(self, message: Message) -> Receipt:
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._pool, self._notify, message):
            raise TransientError("Apprise could not notify every service", reason=Reason.CHANNEL_FAULT)
        return Receipt()

    def _notify(self, message: Message) -> bool:
        sent = self._services.notify(
            title=one_line(message.title),
            body=body(message),
            notify_type=_TYPES[message.level],
            body_format=apprise.NotifyFormat.TEXT,
        )
        return bool(sent)

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        # Not waiting: a thread that still talks to a service ends by that service's own timeout.
        self._pool.shutdown(wait=False, cancel_futures=True)
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(self._discretion)


def body(message: Message) -> str:
    """Text, fields and links; Apprise cuts it to each service's length and escapes it for each syntax."""
    blocks = [
        clean(message.body).strip(),
        "\n".join(f"{one_line(fact.name)}: {one_line(fact.value)}" for fact in message.fields),
        "\n".join(f"{one_line(action.label)}: {one_line(action.url)}" for action in message.actions),
    ]
    return "\n\n".join(block for block in blocks if block) or one_line(message.title) or "…"
