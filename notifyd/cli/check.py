"""`notifyd check-config` and `notifyd plugins`: what would be, without running anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from notifyd.cli.common import (
    Failure,
    config_option,
    fault_lines,
    json_option,
    needless_config_option,
    not_ok,
    print_json,
)
from notifyd.cli.output import print_table
from notifyd.errors import ConfigError, Fault

if TYPE_CHECKING:
    from notifyd.config.settings import Settings
    from notifyd.registry.discovery import Discovered


@click.command("check-config")
@config_option
@json_option
def check_config(config_path: Path, as_json: bool) -> None:
    """Check the configuration, and print what was understood, secrets as ***.

    Whatever would keep the service from starting with it is a fault: rules, templates and channels are made
    ready as for a start. Exits with 1 where there are faults. What can hardly be meant is a warning. A broken
    plugin is named, and is no fault of a configuration that does not need it.
    """
    from notifyd.config.describe import as_toml, describe
    from notifyd.config.doubts import doubts
    from notifyd.config.load import load
    from notifyd.registry.discovery import discover

    discovered = discover()
    try:
        settings = load(config_path, discovered.channel_types, forwarders=discovered.forwarder_types)
        left_out = asyncio.run(_try_out(settings, discovered))
    except ConfigError as error:
        _print_faults(config_path, error, discovered, as_json)
        raise not_ok() from None
    described, doubted = describe(settings), doubts(settings)
    if as_json:
        more = {"warnings": _json(doubted), "templateFaults": _json(left_out)}
        print_json({"ok": True, "config": described, **_plugin_faults(discovered), **more})
    else:
        _warn(discovered)
        for line in fault_lines(config_path, doubted):
            click.echo(f"warning: {line}", err=True)
        click.echo(as_toml(described), nl=False)


async def _try_out(settings: Settings, discovered: Discovered) -> tuple[Fault, ...]:
    """Build all that the service would build, and say what it would leave out. Raises `ConfigError`."""
    from notifyd.registry.registry import open_registry
    from notifyd.store.open import check_url

    check_url(settings.store.url)
    registry = await open_registry(settings, discovered, lambda: time.time_ns() // 1000)
    await registry.aclose()
    return registry.templates.left_out


def _print_faults(path: Path, error: ConfigError, discovered: Discovered, as_json: bool) -> None:
    if as_json:
        print_json({"ok": False, "faults": _json(error.faults), **_plugin_faults(discovered)})
    else:
        _warn(discovered)
        for line in fault_lines(path, error.faults):
            click.echo(line, err=True)


def _json(faults: Sequence[Fault]) -> list[dict[str, str]]:
    return [{"pointer": fault.pointer, "message": fault.message} for fault in faults]


def _plugin_faults(discovered: Discovered) -> dict[str, Any]:
    return {"pluginFaults": [{"plugin": fault.plugin, "message": str(fault)} for fault in discovered.faults]}


def _warn(discovered: Discovered) -> None:
    for fault in discovered.faults:
        click.echo(str(fault), err=True)


@click.group(invoke_without_command=True)
@needless_config_option
@json_option
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List the installed plugins and what each provides. Exits with 1 where one is broken."""
    if context.invoked_subcommand is None:
        _list_plugins(as_json)


@plugins.command("show")
@click.argument("type_name", metavar="TYPE")
@needless_config_option
@json_option
def show_type(type_name: str, as_json: bool) -> None:
    """Print the options of a channel's TYPE, or a forwarder's. Exits with 1 where no plugin brings it."""
    from notifyd.registry.discovery import discover
    from notifyd.registry.options import about, options

    discovered = discover()
    types = {**discovered.forwarder_types, **discovered.channel_types}
    if type_name not in types:
        raise Failure(f'no plugin brings the type "{type_name}"; installed are: {", ".join(sorted(types))}')
    found = options(types[type_name])
    if as_json:
        rows = [attrs.asdict(one) | {"required": one.default is None} for one in found]
        print_json({"type": type_name, "about": about(types[type_name]), "options": rows})
        return
    click.echo(about(types[type_name]) + "\n")
    print_table(
        ("option", "value", "default"),
        [(one.name, one.kind, "required" if one.default is None else one.default) for one in found],
    )


def _list_plugins(as_json: bool) -> None:
    from notifyd.registry.discovery import discover

    discovered = discover()
    if as_json:
        print_json({"plugins": [attrs.asdict(p) for p in discovered.plugins], **_plugin_faults(discovered)})
    else:
        rows = [(p.name, p.distribution, p.version, ", ".join(p.provides)) for p in discovered.plugins]
        print_table(("plugin", "distribution", "version", "provides"), rows)
        _warn(discovered)
    if discovered.faults:
        raise not_ok()
