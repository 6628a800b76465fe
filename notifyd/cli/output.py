"""Printing for people: a table on a terminal, lines of tab-separated values where another program reads.

On a terminal derived ids are cut, as commands take their beginnings, and times short; in a pipe both are whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from notifyd.text import one_line

ID_SHOWN: Final = 12
"""How many characters of a derived id are shown: of a million ids hardly ever two begin with the same."""

WORD: Final = 10
"""How long a word may be, such as a state, that is never folded."""

_DERIVED_ID: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_TIME: Final = re.compile(r"(\d{4})-(\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z").fullmatch


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

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(columns):
        short = all(_is_short(row[number]) for row in cells)
        table.add_column(name, no_wrap=short, overflow="ellipsis" if short else "fold")
    for row in cells:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    Console().print(table)


def _is_short(cell: str) -> bool:
    """Is it better whole: a word such as a state, or what is cut already?"""
    return _shown(cell) != cell or (len(cell) <= WORD and " " not in cell)


def _shown(cell: str) -> str:
    """A derived id by its beginning, and a time as `short_time` has it."""
    return cell[:ID_SHOWN] if _DERIVED_ID(cell) else short_time(cell)


def short_time(text: str) -> str:
    """A time, in UTC, to the second, or as a date where it is of another year; any other text as it is."""
    found = _TIME(text)
    if found is None:
        return text
    year, day, time, _ = found.groups()
    return f"{day} {time}" if int(year) == datetime.now(UTC).year else f"{year}-{day}"


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
