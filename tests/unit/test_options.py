"""The options of a type, as `notifyd plugins show` and the pages of docs/channels tell them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import Factory, evolve, field, frozen
from click.testing import CliRunner

from notifyd.cli.check import plugins
from notifyd.config import settings
from notifyd.config.describe import as_toml, describe
from notifyd.config.settings import COMMON_OPTIONS
from notifyd.config.structure import options_of
from notifyd.plugin import SECOND, CaFile, ChannelType, Duration, Secret, Size
from notifyd.registry.discovery import discover
from notifyd.registry.options import Option, about, described, options
from tests import option_pages
from tests.channel_pages import FOLDER, pages
from tests.fakes import Channels
from tests.fakes import settings as loaded


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


class Tone(Enum):
    """As an author may write it, who knows no StrEnum."""

    SOFT = "soft"
    LOUD = "loud"


class Mood(str, Enum):  # noqa: UP042 - and this
    GOOD = "good"


@frozen
class Inner:
    depth: int = 1
    since: date | None = None


@frozen
class Everything:
    """Each type that docs/plugins.md names."""

    key: Secret
    text: str = "t"
    ratio: float = 0.5
    wait: Duration = Duration(2 * SECOND)  # noqa: RUF009 - as docs/plugins.md has it
    most: Size = Size(1024)  # noqa: RUF009
    folder: Path = Path("desk")
    since: date = date(2026, 12, 20)
    tone: Tone = Tone.SOFT
    mood: Mood = Mood.GOOD
    kinds: frozenset[str] = frozenset({"b", "a", "c"})
    tones: tuple[Tone, ...] = (Tone.LOUD,)
    limits: Mapping[str, int] = field(factory=dict)
    inner: Inner = field(factory=Inner)
    inners: tuple[Inner, ...] = ()
    later: int = field(default=Factory(lambda self: len(self.text), takes_self=True))


def everything() -> Channels:
    return Channels(more={"every": ChannelType("every", Everything, Channels().open)})


def test_every_type_that_an_option_can_have_is_told_with_its_default() -> None:
    told = {one.name: (one.kind, one.default) for one in options(everything().types["every"])}
    assert told["since"] == ("a date", "2026-12-20")
    assert told["tone"] == ('one of "soft", "loud"', '"soft"')
    assert told["mood"] == ('one of "good"', '"good"')
    assert told["kinds"] == ("a list: text", '["a", "b", "c"]')
    assert told["tones"] == ('a list: one of "soft", "loud"', '["loud"]')
    assert told["inner"] == ("a table of its own", '{"depth": 1}')
    assert told["inners"] == ("a list: a table of its own", "[]")
    assert told["later"] == ("a whole number", "by the others")


def test_a_configuration_with_every_type_is_told_back_as_it_can_be_read_again() -> None:
    text = """
[channels.one]
type = "every"
key = "only-for-the-tests"
wait = "1m"
since = 2027-01-06
tone = "loud"
kinds = ["z", "y", "x"]
tones = ["soft", "loud"]
limits = {a = 1}
inner = {depth = 2, since = 2026-11-01}
inners = [{depth = 3}]
"""
    first = loaded(text, everything())
    told = as_toml(describe(first))
    assert "only-for-the-tests" not in told
    channel = as_toml({"channels": describe(first)["channels"]})
    again = loaded(channel, everything()).channels["one"].config
    assert evolve(again, key=first.channels["one"].config.key) == first.channels["one"].config
    assert 'kinds = [\n    "x",\n    "y",\n    "z",\n]' in told


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


def test_the_page_says_what_each_option_is_for() -> None:
    """Those of a table that is written in one line have its comment."""
    told = option_pages.meanings()
    for table, record in option_pages.sections().items():
        around, _, name = table.rpartition(".")
        for option in described(options_of(record)):
            assert told.get((table, option.name)) or told.get((around, name)), f"{table}.{option.name}"


def test_a_comment_is_on_the_options_right_below_it() -> None:
    told = option_pages.meanings()
    assert told["server", "max_body"] == "The largest request body that is read."
    assert told["server", "max_connections"] == told["server", "max_connections_per_client"]
    assert told["auth.clients.NAME", "grants"].startswith("Grants that the client holds")
    assert told["auth", "clients"].startswith("A program that may call.")


def test_no_table_shows_the_name_of_a_class() -> None:
    kinds = [line.split(" | ")[1] for line in option_pages.written().splitlines() if line.startswith("| `")]
    assert [kind for kind in kinds if kind[0].isupper()] == []
