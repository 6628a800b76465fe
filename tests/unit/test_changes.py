"""What a reload changes is told by key, and no value with it."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import field, frozen

from notifyd.config.brought import Brought
from notifyd.config.changes import changes
from notifyd.config.load import reads
from notifyd.config.settings import Settings
from notifyd.plugin import Channel, ChannelContext, ChannelType, Secret
from tests.unit.test_config import SEAL_KEY


@frozen
class Config:
    url: Secret
    headers: dict[str, Secret] = field(factory=dict)
    nick: str | None = None


def never(config: Any, context: ChannelContext) -> Channel:
    raise AssertionError("nothing is sent here")


TYPES = {name: ChannelType(name, Config, never) for name in ("hook", "horn")}
BASE = f"""
[keys]
seal = ["{SEAL_KEY}"]
[channels.team]
type = "hook"
url = "https://hooks.acme.example/secret-1"
rate_limit = "1/s"
[[rules]]
name = "one"
when = "true"
channels = ["team"]
[[rules]]
name = "two"
when = "true"
channels = ["team"]
[notifications]
on_task_done = ["team"]
[recipients."alice@acme.example"]
locale = "de"
"""


def read(text: str) -> Settings:
    return reads(text, Brought(TYPES)).whole()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("secret-1", "secret-2", ["~ channels.team.url"]),
        ('rate_limit = "1/s"', 'rate_limit = "2/s"', ["~ channels.team.rate_limit"]),
        ('rate_limit = "1/s"', "", ["- channels.team.rate_limit"]),
        ('rate_limit = "1/s"', 'rate_limit = "1/s"\nnick = "n"', ["+ channels.team.nick"]),
        ('type = "hook"', 'type = "horn"', ["~ channels.team.type"]),
        ('name = "two"', 'name = "three"', ["+ rules.three", "- rules.two"]),
        ('name = "one"\nwhen = "true"', 'name = "one"\nwhen = "false"', ["~ rules.one.when"]),
        (
            'on_task_done = ["team"]',
            'on_task_failed = ["team"]',
            ["- notifications.on_task_done", "+ notifications.on_task_failed"],
        ),
        ('locale = "de"', 'locale = "fr"', ['~ recipients."alice@acme.example".locale']),
        ("[notifications]", '[dispatch]\nbackoff = "2s..9m"\n[notifications]', ["~ dispatch.backoff"]),
        ("[notifications]", '[retention]\naudit = "10d"\n[notifications]', ["~ retention.audit"]),
        (
            "[notifications]",
            '[channels.ops]\ntype = "hook"\nurl = "https://acme.example/secret-3"\n[notifications]',
            ["+ channels.ops"],
        ),
        (
            'rate_limit = "1/s"',
            'rate_limit = "1/s"\nheaders = {X-Key = "secret-4"}',
            ["+ channels.team.headers.X-Key"],
        ),
    ],
)
def test_what_differs_is_told_by_its_key(before: str, after: str, told: list[str]) -> None:
    assert before in BASE
    assert changes(read(BASE), read(BASE.replace(before, after))) == told


def test_the_same_text_read_again_differs_in_nothing() -> None:
    assert changes(read(BASE), read(BASE)) == []
