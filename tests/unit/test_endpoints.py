"""Whom a configuration has notifyd call: each URL of an option, however a plugin's class holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from attrs import field, frozen
from attrs.validators import and_, deep_iterable, deep_mapping, min_len, optional

from notifyd.cli.endpoints import endpoints
from notifyd.config.brought import Brought
from notifyd.config.load import reads
from notifyd.plugin import ChannelType, Secret, http_url
from tests.process import SEAL_KEY


@frozen
class ManyConfig:
    one: Secret = field(validator=http_url)
    perhaps: Secret | None = field(default=None, validator=optional(http_url))
    each: tuple[Secret, ...] = field(default=(), validator=and_(min_len(0), deep_iterable(http_url)))
    named: Mapping[str, Secret] = field(factory=dict, validator=deep_mapping(min_len(1), http_url))
    other: str = field(default="https://x.example", validator=min_len(1))


def _never_opened(options: Any, context: Any) -> Any:
    raise AssertionError("nothing is opened to see whom it calls")


TEXT: Final = f"""
keys.seal = ["{SEAL_KEY}"]
[channels.many]
type = "many"
one = "https://one.example"
each = ["https://two.example", "http://three.example:8080"]
named = {{"a.b" = "https://four.example"}}
"""


@pytest.mark.parametrize("perhaps", ["", 'perhaps = "https://five.example"'])
def test_each_url_of_a_channel_has_its_key_host_and_port(perhaps: str) -> None:
    brought = Brought({"many": ChannelType("many", ManyConfig, _never_opened)})
    settings = reads(TEXT + perhaps, brought, {}).whole()
    found = {one.key.removeprefix("channels.many."): (one.host, one.port) for one in endpoints(settings)}
    assert found == {
        "one": ("one.example", 443),
        "each[0]": ("two.example", 443),
        "each[1]": ("three.example", 8080),
        'named."a.b"': ("four.example", 443),
    } | ({"perhaps": ("five.example", 443)} if perhaps else {})
