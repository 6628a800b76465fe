"""Printing for people: a table on a terminal, lines of tab-separated values where another program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from notifyd.text import one_line


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The cells' text is shown as it is: what an event or a receiver put there cannot steer a terminal."""
    cells = [[_text(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(columns), *cells]:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold")
    for row in cells:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


def _text(cell: object) -> str:
    return "" if cell is None else one_line(str(cell))


def print_members(members: Mapping[str, Any]) -> None:
    """One name and value a line; nested values as `outer.inner`."""
    flat = dict(_flat(members, ""))
    width = max(map(len, flat), default=0)
    for name, value in flat.items():
        click.echo(f"{name:<{width}}  {_text(value)}")


def _flat(members: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            yield prefix + name, value
