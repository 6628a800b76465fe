"""`[plugins.NAME]`: what a plugin itself is configured with, from its hook to its channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import frozen
from click.testing import CliRunner

from notifyd.cli import check
from notifyd.config import load as config
from notifyd.config.changes import changes
from notifyd.config.describe import as_toml, describe, secrets
from notifyd.config.settings import Settings
from notifyd.errors import ConfigError
from notifyd.plugin import (
    SECOND,
    ChannelContext,
    ChannelType,
    Duration,
    Message,
    PluginConfig,
    Receipt,
    Secret,
    Size,
    hookimpl,
)
from notifyd.registry.discovery import Discovered, discover
from notifyd.registry.registry import open_registry

SEAL = 'keys.seal = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]\n'
CHANNEL = '[channels.on-call]\ntype = "pager"\n'
ACCOUNT = '[plugins.pager]\nkey = "${PAGER_KEY}"\n'
TEN_SECONDS = Duration(10 * SECOND)
ONE_KIB = Size(1024)


@frozen
class Account:
    """The account with the vendor."""

    key: Secret
    patience: Duration = TEN_SECONDS
    largest: Size = ONE_KIB


@frozen
class Mild:
    patience: Duration = TEN_SECONDS


@frozen
class NoOptions:
    pass


class Pager:
    def __init__(self, _config: object, context: ChannelContext) -> None:
        self.account = context.plugin

    async def send(self, message: Message) -> Receipt:
        return Receipt()

    async def aclose(self) -> None:
        pass


def plugin(*configs: Any, name: str = "pager", **hooks: Callable[[], Any]) -> SimpleNamespace:
    types = [ChannelType(name, NoOptions, Pager)]
    return SimpleNamespace(
        __name__=name,
        notifyd_channel_types=hookimpl(lambda: types),
        notifyd_plugin_config=hookimpl(lambda: [PluginConfig(one) for one in configs]),
        **hooks,
    )


def found(*plugins: object) -> Discovered:
    return discover(group="no-such-group", extra=plugins)


PAGER = found(plugin(Account))


def load(text: str, discovered: Discovered = PAGER) -> Settings:
    return config.reads(SEAL + text, discovered.brought, {"PAGER_KEY": "a key of the account"}).whole()


def faults(text: str, discovered: Discovered = PAGER) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, discovered)
    return [str(fault) for fault in caught.value.faults]


async def account(text: str, discovered: Discovered = PAGER) -> Any:
    opened = await open_registry(load(text, discovered), discovered, lambda: 0)
    await opened.aclose()
    channel: Any = opened.channels["on-call"].channel
    return channel.account


async def test_a_channel_gets_the_record_of_its_plugin() -> None:
    more = 'patience = "2m"\nlargest = "2KiB"\n'
    given = await account(CHANNEL + ACCOUNT + more)
    assert given == Account(Secret("a key of the account"), Duration(120 * SECOND), Size(2048))


async def test_without_the_table_it_has_the_defaults() -> None:
    assert await account(CHANNEL, found(plugin(Mild))) == Mild()


async def test_a_plugin_without_options_of_its_own_gets_none() -> None:
    assert await account(CHANNEL, found(plugin())) is None


async def test_a_channel_whose_plugin_lacks_what_is_required_is_a_fault_and_an_unused_plugin_is_none() -> (
    None
):
    load("")
    with pytest.raises(ConfigError) as caught:
        await account(CHANNEL)
    (fault,) = caught.value.faults
    assert str(fault) == "channels.on-call: needs [plugins.pager], which has options that are required"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[plugins.pager]\n", ["plugins.pager.key: is required"]),
        (ACCOUNT + "patience = 10\n", ["plugins.pager.patience: must be a string, not an integer"]),
        (
            ACCOUNT + 'pateince = "1s"\n',
            ['plugins.pager.pateince: is not a known key; did you mean "patience"?'],
        ),
        ("plugins = 7\n", ["plugins: must be a table, not an integer"]),
        ("plugins.pager = 7\n", ["plugins.pager: must be a table, not an integer"]),
        (
            "[plugins.slack]\n",
            [
                'plugins.slack: no plugin "slack" is installed: install notifyd-slack; '
                "those that take options: pager"
            ],
        ),
        (
            "[plugins.pagr]\n",
            [
                'plugins.pagr: no plugin "pagr" is installed: install the distribution that brings it; '
                'did you mean "pager"?'
            ],
        ),
    ],
)
def test_a_table_is_as_strict_as_a_channels(text: str, told: list[str]) -> None:
    assert faults(text) == told


def test_a_table_for_a_plugin_that_takes_nothing_says_so() -> None:
    told = ['plugins.pager: the plugin "pager" takes no options of its own']
    assert faults("[plugins.pager]\n", found(plugin())) == told


def test_a_placeholder_that_leads_nowhere_is_one_fault() -> None:
    assert faults('[plugins.pager]\nkey = "${cred:pager}"\n')[0].startswith("plugins.pager.key: ")
    assert len(faults('[plugins.pager]\nkey = "${PAGER_CEY}"\n')) == 1


def test_its_secrets_are_hidden_and_known_to_the_redactor() -> None:
    settings = load(ACCOUNT)
    shown = as_toml(describe(settings))
    assert '[plugins.pager]\nkey = "***"\npatience = "10s"' in shown
    assert "a key of the account" in [secret.reveal() for secret in secrets(settings)]


def test_a_reload_names_what_changed_there() -> None:
    assert changes(load(ACCOUNT), load(ACCOUNT + 'patience = "1m"\n')) == ["~ plugins.pager.patience"]


# --- the hook ----------------------------------------------------------------------------------------------


class NoAttrs:
    pass


@frozen
class Odd:
    what: object


@pytest.mark.parametrize(
    ("configs", "told"),
    [
        ([NoAttrs], "PluginConfig: config must be an attrs class, not the class NoAttrs"),
        ([Odd], "PluginConfig: Odd.what has a type that no option can have"),
        ([Mild, Mild], "options pager is already brought by the plugin pager"),
    ],
)
def test_what_is_no_class_of_options_is_named(configs: list[Any], told: str) -> None:
    (fault,) = found(plugin(*configs)).faults
    assert told in str(fault)


# --- the commands ------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *args: str, discovered: Discovered = PAGER) -> Any:
    monkeypatch.setattr("notifyd.registry.discovery.discover", lambda: discovered)
    command = check.plugins if args[0] == "show" else check.check_config
    return CliRunner().invoke(command, args[args[0] != "show" :])


def test_its_options_are_shown_beside_those_of_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(monkeypatch, "show", "pager").output
    assert "[plugins.pager]\nThe account with the vendor." in text
    told = json.loads(run(monkeypatch, "show", "pager", "--json").output)
    assert [one["name"] for one in told["plugin"]["options"]] == ["key", "patience", "largest"]
    assert told["plugin"]["options"][1]["kind"] == "a duration, such as 10s"
    alone = found(
        SimpleNamespace(__name__="only", notifyd_plugin_config=hookimpl(lambda: [PluginConfig(Mild)]))
    )
    assert "[plugins.only]" in run(monkeypatch, "show", "only", discovered=alone).output


def test_check_config_tells_a_fault_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text(SEAL + "[plugins.pager]\nkey = 7\n")
    result = run(monkeypatch, "check", "--config", str(path))
    assert result.exit_code == 1
    assert f"{path}:3: plugins.pager.key: must be a string" in result.output
