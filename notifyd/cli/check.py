"""`notifyd check-config` and `notifyd plugins`: what would be, without running anything."""

from __future__ import annotations

import asyncio
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
from notifyd.text import counted

if TYPE_CHECKING:
    from notifyd.cli.trial import Trial
    from notifyd.config.settings import Settings
    from notifyd.registry.discovery import Discovered
    from notifyd.registry.options import Option


@click.command("check-config")
@config_option
@json_option
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings.")
def check_config(config_path: Path, as_json: bool, strict: bool) -> None:
    """Check the configuration, and print what was understood, secrets as ***; at its end, OK and what there is.

    Whatever would keep the service from starting with it is a fault: rules, templates and channels are made
    ready as for a start. So is what could never work. Exits with 1 where there are faults. What can hardly be
    meant is a warning. A broken plugin is named, and is no fault of a configuration that does not need it.
    """
    from notifyd.cli.trial import try_out
    from notifyd.config.load import read
    from notifyd.registry.discovery import discover

    discovered = discover()
    try:
        reading = read(config_path, discovered.brought)
        trial = asyncio.run(try_out(config_path, reading, discovered))
    except ConfigError as error:
        _print_faults(config_path, error, discovered, as_json)
        raise not_ok() from None
    settings = reading.settings
    doubted = len(trial.warnings) + len(trial.left_out) + len(discovered.faults)
    refused = strict and doubted > 0
    if as_json:
        _print_understood(config_path, settings, trial, discovered, ok=not refused)
    else:
        _tell(config_path, settings, trial, discovered, doubted, refused)
    if refused:
        raise not_ok()


def _print_understood(
    path: Path, settings: Settings, trial: Trial, discovered: Discovered, *, ok: bool
) -> None:
    from notifyd.config.describe import describe

    told = {"warnings": _json(path, trial.warnings), "templateFaults": _json(path, trial.left_out)}
    print_json({"ok": ok, "config": describe(settings), **_plugin_faults(discovered), **told})


def _tell(
    path: Path, settings: Settings, trial: Trial, discovered: Discovered, doubted: int, refused: bool
) -> None:
    from notifyd.config.describe import as_toml, describe

    _warn(discovered)
    for line in fault_lines(path, trial.warnings):
        click.echo(f"warning: {line}", err=True)
    click.echo(as_toml(describe(settings)), nl=False)
    if refused:
        click.echo(f"not ok: {counted(doubted, 'warning')}, and --strict takes none", err=True)
    else:
        click.echo(f"# OK: {_summary(settings, doubted)}")  # a comment: what stands before it is TOML


def _summary(settings: Settings, warnings: int) -> str:
    """What there is, as far as a glance can tell that the right file was read."""
    counts = {
        "rule": len(settings.rules),
        "channel": len(settings.channels),
        "client": len(settings.auth.clients),
        "recipient": len(settings.recipients),
        "warning": warnings,
    }
    return ", ".join(counted(count, what) for what, count in counts.items())


def _print_faults(path: Path, error: ConfigError, discovered: Discovered, as_json: bool) -> None:
    if as_json:
        print_json({"ok": False, "faults": _json(path, error.faults), **_plugin_faults(discovered)})
    else:
        _warn(discovered)
        for line in fault_lines(path, error.faults):
            click.echo(line, err=True)


def _json(path: Path, faults: Sequence[Fault]) -> list[dict[str, Any]]:
    from notifyd.config.lines import placed

    found = placed(path, faults)
    return [{"pointer": fault.pointer, "line": line, "message": fault.message} for line, fault in found]


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
@click.argument("name", metavar="TYPE")
@needless_config_option
@json_option
def show_type(name: str, as_json: bool) -> None:
    """Print the options of a channel's TYPE, or a forwarder's, and those of a plugin of that name itself.

    Exits with 1 where there is neither.
    """
    from notifyd.config.first_party import no_such_type
    from notifyd.config.structure import options_of
    from notifyd.registry.discovery import discover
    from notifyd.registry.options import about, described, options

    discovered = discover()
    types = {**discovered.forwarder_types, **discovered.channel_types}
    kind, own = types.get(name), discovered.configs.get(name)
    if kind is None and own is None:
        raise Failure(no_such_type(name, types))
    of_type, of_plugin = options(kind) if kind else [], described(options_of(own)) if own else []
    if as_json:
        told = {"type": name, "about": about(kind.config), "options": _rows(of_type)} if kind else {}
        itself = {"name": name, "about": about(own), "options": _rows(of_plugin)} if own else None
        print_json({**told, "plugin": itself})
        return
    if kind:
        _print_options(about(kind.config), of_type)
    if own:
        _print_options(f"[plugins.{name}]\n{about(own)}", of_plugin)


def _rows(found: Sequence[Option]) -> list[dict[str, Any]]:
    return [attrs.asdict(one) | {"required": one.default is None} for one in found]


def _print_options(head: str, found: Sequence[Option]) -> None:
    click.echo(head + "\n")
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
