"""The log channel: one line for a message, and no link in it that decides."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from notifyd_log import LogConfig, line, notifyd_channel_types

from notifyd.plugin import Action, Field, Level
from notifyd.testing import (
    HOSTILE,
    LINK,
    ChannelConformance,
    Received,
    Receiver,
    Reply,
    opened,
    sample_message,
)

(LOG,) = notifyd_channel_types()
LOGGER = "notifyd.channel.under-test"


class LogReader(logging.Handler):
    """Receives what is logged, as the kit's receiver."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.url = ""
        self.received: list[Received] = []
        self.reply = Reply()
        self.arrived = asyncio.Event()
        self.silent = False
        self.hangs_up = False
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.received.append(Received(record.getMessage().encode()))
        self.levels.append(record.levelno)


@asynccontextmanager
async def reading() -> AsyncIterator[LogReader]:
    reader, logger = LogReader(), logging.getLogger(LOGGER)
    logger.addHandler(reader)
    logger.setLevel(logging.DEBUG)
    try:
        yield reader
    finally:
        logger.removeHandler(reader)


class TestLog(ChannelConformance):
    channel_type = LOG
    unshown = frozenset({"actions"})  # a log is read by more people than a link is for

    def receiver(self) -> AbstractAsyncContextManager[Receiver]:
        return reading()

    def config(self, url: str) -> LogConfig:
        return LogConfig()


def test_a_line_holds_the_message_and_its_links_without_what_decides() -> None:
    message = sample_message(body=f"see {LINK} or http://a.example/approvals/x?y=z.")
    assert json.loads(line(message)) == {
        "id": message.id,
        "level": "warning",
        "locale": "en",
        "recipient": None,
        "title": message.title,
        "body": "see https://notify.acme.example/approvals/… or http://a.example/approvals/…",
        "fields": ["Environment: production", "Requested by: ci@acme.example"],
        "links": ["Review and decide: https://notify.acme.example/approvals/…"],
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_one_line_of_json(text: str) -> None:
    fields, actions = (Field(text, text),), (Action(text, text),)
    shown = line(sample_message(title=text, body=text, fields=fields, actions=actions))
    assert len(shown.splitlines()) == 1
    assert not set(shown) & {"\x00", "\x1b", "\u202e", "\ud800"}
    json.loads(shown)


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        (Level.INFO, logging.INFO),
        (Level.SUCCESS, logging.INFO),
        (Level.WARNING, logging.WARNING),
        (Level.ERROR, logging.ERROR),
    ],
)
async def test_the_level_of_the_message_is_that_of_the_line(level: Level, logged: int) -> None:
    async with reading() as reader, opened(LOG, LogConfig()) as channel:
        await channel.send(sample_message(level=level))
    assert reader.levels == [logged]
