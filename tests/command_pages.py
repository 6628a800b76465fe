"""`make contract` writes docs/commands.md too: every command with its options, from what `--help` is made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from attrs import frozen

from notifyd.cli import COMMANDS, cli
from tests.markdown import cell, plain

PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"

_HEAD: Final = """# Commands

Every command with its options, as `notifyd COMMAND --help` prints them. [Operations](operations.md#commands) has
them at a glance.

| exit code | means |
|---|---|
| 0 | ok |
| 1 | what was asked about is not ok; the reason is on standard error |
| 2 | wrong usage: an unknown command or option, a value that is none, or a faulty file of expectations |
| 3 | of `serve` alone: another start would end likewise |
| 130 | Ctrl-C ended the command |

All take `--help`, and `--config PATH`, the configuration file: by default the one that `NOTIFYD_CONFIG` names,
else `/etc/notifyd/notifyd.toml`.
"""
EVERYWHERE: Final = ("--config", "-h")
"""What the head of the page says once."""


@frozen
class Outline:
    """One command: its words, its usage, its help in paragraphs, and its options as (how it is written, help)."""

    name: str
    usage: str
    about: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def outline() -> Iterator[Outline]:
    """Each command that does something by itself, in the order of `notifyd --help`."""
    root = click.Context(cli, info_name="notifyd", **cli.context_settings)
    for name, entry in COMMANDS.items():
        yield from _outlines(entry.load(), name, root)


def _outlines(command: click.Command, name: str, parent: click.Context) -> Iterator[Outline]:
    context = click.Context(command, info_name=name, parent=parent)
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield _outline(command, context)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            if found := command.get_command(context, inner):
                yield from _outlines(found, inner, context)


def _outline(command: click.Command, context: click.Context) -> Outline:
    options = (one for one in command.get_params(context) if isinstance(one, click.Option))
    records = (option.get_help_record(context) for option in options)
    return Outline(
        context.command_path,
        " ".join([context.command_path, *command.collect_usage_pieces(context)]),
        tuple(" ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n")),
        tuple((written, " ".join(told.split())) for written, told in filter(None, records)),
    )


def page() -> str:
    return "\n".join([_HEAD, *(line for one in outline() for line in _lines(one))])


def _lines(one: Outline) -> Iterator[str]:
    yield from (f"## {one.name}", "", f"    {one.usage}", "")
    for paragraph in one.about:
        yield from (plain(paragraph), "")
    if rows := [option for option in one.options if not option[0].startswith(EVERYWHERE)]:
        yield from ("| option | does |", "|---|---|")
        yield from (f"| `{cell(written)}` | {cell(plain(told))} |" for written, told in rows)
        yield ""


def write() -> None:
    PAGE.write_text(page(), encoding="utf-8")
