"""Handing a message to Apprise, in a thread of its own pool."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import apprise

from notifyd.plugin import (
    Level,
    Message,
    PermanentError,
    Reason,
    Receipt,
    Secret,
    TransientError,
    check_response,
    clean,
    fit,
    hide,
    listed,
    one_line,
)
from notifyd_apprise import AppriseConfig

WORKERS: Final = 4
_TITLE_MARKS: Final = 16
"""Characters that Apprise may put around a title, such as `<b>` and a line's end."""

_TYPES: Final = {
    Level.INFO: apprise.NotifyType.INFO,
    Level.SUCCESS: apprise.NotifyType.SUCCESS,
    Level.WARNING: apprise.NotifyType.WARNING,
    Level.ERROR: apprise.NotifyType.FAILURE,
}
_TALKATIVE: Final = ("apprise", "urllib3.connectionpool")
"""Loggers that write the URLs they call."""

_MENTION: Final = re.compile(r"(?<!\w)@(?=\w)|<(?=[@!#&])|\](?=[(\[])")
"""What begins a mention, or the address behind a link's text, in chats to which Apprise hands a text as it is:
Discord, Mattermost, Zulip."""
_JOINER: Final = "\u2060"
"""Not seen, and no part of either: not every service shows the backslash of an escape as none."""

_STATUS: Final = re.compile(r"\berror=([1-5][0-9]{2})\b")
"""How Apprise's services tell in their log lines what they were answered; it is nowhere else."""


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
        self._services: list[apprise.Apprise] = []
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="apprise")
        self._calls: set[Future[Any]] = set()
        self._is_closed = False
        self._discretion = _Discretion(config.urls)
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self._discretion)
        for number, url in enumerate(config.urls):
            service = apprise.Apprise(asset=asset)
            if not service.add(url.reveal()):
                self._close()
                raise ValueError(f"urls[{number}] is not a URL that Apprise knows")
            if "overflow=" not in url.reveal():
                service[0].overflow_mode = apprise.OverflowMode.TRUNCATE  # else what is too long is refused
            self._services.append(service)

    async def send(self, message: Message) -> Receipt:
        call = self._pool.submit(self._notify, message)
        self._calls.add(call)
        call.add_done_callback(self._ended)
        failed = await asyncio.wrap_future(call)
        if failed:
            # One that may still succeed makes all of them worth another try.
            raise next((one for one in failed if isinstance(one, TransientError)), failed[0])
        return Receipt()

    def _notify(self, message: Message) -> list[TransientError | PermanentError]:
        """Tell each service; why those failed that did."""
        verdicts = (_notify_one(service, message) for service in self._services)
        return [verdict for verdict in verdicts if verdict is not None]

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        # Not waiting: a thread that still talks to a service ends by that service's own timeout.
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._is_closed = True
        self._talk_freely()

    def _ended(self, call: Future[Any]) -> None:
        self._calls.discard(call)
        self._talk_freely()

    def _talk_freely(self) -> None:
        """Let the loggers go once nothing of this channel is said any more."""
        if self._is_closed and not self._calls:
            for name in _TALKATIVE:
                logging.getLogger(name).removeFilter(self._discretion)


def _notify_one(service: apprise.Apprise, message: Message) -> TransientError | PermanentError | None:
    title = defused(one_line(message.title))
    with service.notify(
        title=title,
        body=body(message, _room(service[0], title)),
        notify_type=_TYPES[message.level],
        body_format=apprise.NotifyFormat.TEXT,
    ) as result:
        return None if result else _verdict([entry.message for entry in result.logs()])


def defused(text: str) -> str:
    """Text that mentions nobody, and in which no words lead elsewhere than they say. Addresses of mails stay."""
    return _MENTION.sub(lambda found: found[0] + _JOINER, text)


def _room(service: apprise.NotifyBase, title: str) -> int:
    """Characters that a body may have; where a service has no titles Apprise puts the title above it."""
    if service.overflow_mode is not apprise.OverflowMode.TRUNCATE:
        return sys.maxsize  # what is too long is several messages, as the operator wishes
    return int(service.body_maxlen) - (len(title) + _TITLE_MARKS if service.title_maxlen <= 0 else 0)


def _verdict(told: list[str]) -> TransientError | PermanentError:
    """By the last status that the service was answered with, where Apprise tells it; else transient."""
    for status in _STATUS.findall(" ".join(told))[-1:]:
        try:
            check_response(int(status), {}, now=0)
        except (TransientError, PermanentError) as error:
            return error
    return TransientError("Apprise could not notify a service", reason=Reason.CHANNEL_FAULT)


def body(message: Message, room: int) -> str:
    """Text, fields and links in at most `room` characters. Apprise escapes for some services.

    Links are whole, as many as fit into three quarters of it, and those that do not are counted.
    """
    lines = (f"{defused(one_line(one.label))}: {one_line(one.url)}" for one in message.actions)
    shown = listed(lines, len(message.actions), room * 3 // 4, lambda line: len(line) + 1)
    links = "\n".join(shown)
    facts = "\n".join(f"{one_line(fact.name)}: {one_line(fact.value)}" for fact in message.fields)
    text = "\n\n".join(block for block in (clean(message.body).strip(), facts) if block)
    blocks = (fit(text, room - len(links) - 2, escape=defused), links)
    return "\n\n".join(block for block in blocks if block) or defused(one_line(message.title)) or "…"
