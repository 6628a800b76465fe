"""The `log` channel: each message as one line of JSON in the daemon's own log, for development.

A log is read by more people than a message is for, so a link that decides is not written: its address ends
in `/approvals/…`.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Final

from attrs import frozen

from notifyd.plugin import ChannelContext, ChannelType, Level, Message, Receipt, clean, fit, hookimpl

BODY_LIMIT: Final = 4000
FIELDS_LIMIT: Final = 50

_LEVELS: Final = {
    Level.INFO: logging.INFO,
    Level.SUCCESS: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
_LINK: Final = re.compile(r"/approvals/[^\s\"'<>]+")


@frozen
class LogConfig:
    """There is nothing to set."""


class LogChannel:
    def __init__(self, config: LogConfig, context: ChannelContext) -> None:
        self._logger = context.logger

    async def send(self, message: Message) -> Receipt:
        self._logger.log(_LEVELS[message.level], "%s", line(message))
        return Receipt(detail="logged")

    async def aclose(self) -> None:
        """Nothing is held."""


def line(message: Message) -> str:
    """One line, a pure function of the message: JSON holds no bare newline."""
    shown = {
        "id": message.id,
        "level": message.level,
        "locale": _shown(message.locale),
        "recipient": message.recipient,
        "title": _shown(message.title),
        "body": _shown(message.body),
        "fields": [f"{_shown(fact.name)}: {_shown(fact.value)}" for fact in message.fields[:FIELDS_LIMIT]],
        "links": [f"{_shown(link.label)}: {_shown(link.url)}" for link in message.actions[:FIELDS_LIMIT]],
    }
    return json.dumps(shown, ensure_ascii=False)


def _shown(text: str) -> str:
    return fit(_LINK.sub("/approvals/…", clean(text)), BODY_LIMIT)


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("log", LogConfig, LogChannel, for_programs=True),)
