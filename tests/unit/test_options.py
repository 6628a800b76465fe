"""The options of a type, as `notifyd plugins show` and the pages of docs/channels tell them."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import attrs
import pytest
from attrs import field, frozen
from click.testing import CliRunner

from notifyd.cli.check import plugins
from notifyd.config import settings
from notifyd.config.settings import COMMON_OPTIONS
from notifyd.config.structure import options_of
from notifyd.plugin import CaFile, ChannelType, Secret
from notifyd.registry.discovery import discover
from notifyd.registry.options import Option, about, options
from tests import option_pages
from tests.channel_pages import FOLDER, pages


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@frozen
class Config:
    """What it is for."""

    url: Secret
    from_: str = "a"
    colour: Colour = Colour.RED
    tags: tuple[str, ...] = ("x", "y")
    headers: dict[str, Secret] = field(factory=dict)
    quick: bool = True
    ca: CaFile | None = None
    count: int | None = None


KIND = ChannelType("mine", Config, lambda config, context: None, rate_limit="3/m")  # type: ignore[arg-type, return-value]


def test_each_option_is_told_with_its_kind_and_default() -> None:
    assert about(Config) == "What it is for."
    assert options(KIND) == [
        Option("url", "text, kept secret", None),
        Option("from", "text", '"a"'),
        Option("colour", 'one of "red", "green"', '"red"'),
        Option("tags", "a list: text", '["x", "y"]'),
        Option("headers", "a table: text, kept secret", "{}"),
        Option("quick", "true or false", "true"),
        Option("ca", "the path of a PEM file", "none"),
        Option("count", "a whole number", "none"),
        Option("rate_limit", "a rate, such as 1/s", '"3/m"'),
        Option("concurrency", "a whole number", "4"),
        Option("timeout", "a duration, such as 10s", '"10s"'),
    ]


def test_every_type_has_its_page_as_it_is_and_no_other_has_one() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    assert written == pages(discover()), "make contract writes them anew"


def shown(*arguments: str) -> Any:
    return CliRunner().invoke(plugins, arguments)


@pytest.mark.parametrize("name", ["discord", "email", "nats"])
def test_the_command_prints_all_options_of_a_type(name: str) -> None:
    found = discover()
    kind = (found.channel_types | found.forwarder_types)[name]  # type: ignore[operator]
    printed = json.loads(shown("show", name, "--json").output)
    assert [one["name"] for one in printed["options"]] == [*options_of(kind.config), *COMMON_OPTIONS]
    text = shown("show", name).output
    assert all(option in text for option in options_of(kind.config))
    assert "required" in text


def test_a_type_that_is_not_there_is_named_with_those_that_are() -> None:
    result = shown("show", "slcak")
    assert result.exit_code == 1
    assert 'no plugin brings the type "slcak"; installed are: apprise' in result.output


def test_without_a_type_the_plugins_are_listed() -> None:
    result = shown()
    assert result.exit_code == 0
    assert "notifyd-slack" in result.output


# --- the tables of docs/configuration.md ----------------------------------------------------------------------


def test_the_tables_of_the_page_on_configuration_are_as_make_contract_writes_them() -> None:
    assert option_pages.PAGE.read_text(encoding="utf-8").endswith("\n\n" + option_pages.written())


def test_every_option_that_a_file_may_hold_is_in_the_tables() -> None:
    """Each record of the settings has a table, but for those that a channel's type fills in."""
    told = set(option_pages.sections().values())
    records = {one for one in vars(settings).values() if isinstance(one, type) and attrs.has(one)}
    ours = {one for one in records if one.__module__ == settings.__name__}
    assert ours - told == {settings.Settings, settings.ChannelSettings}


def test_no_table_shows_the_name_of_a_class() -> None:
    kinds = [line.split(" | ")[1] for line in option_pages.written().splitlines() if line.startswith("| `")]
    assert [kind for kind in kinds if kind[0].isupper()] == []
