"""Printing for people: a table on a terminal, lines of tab-separated values where another program reads.

On a terminal derived ids are cut, as commands take their beginnings, and times short; in a pipe both are whole.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any, Final

import click
from attrs import frozen

from notifyd.text import one_line

ID_SHOWN: Final = 12
"""How many characters of a derived id are shown: of a million ids hardly ever two begin with the same."""

WORD: Final = 16
"""Up to how many characters a word, such as a state or a reason, is kept whole while there is room elsewhere."""

_SHORT: Final = 10
"""How long a word may be that is kept whole wherever it stands."""

_CUT: Final = 8
"""How narrow a column becomes at most, whose cells are folded or cut."""

_DERIVED_ID: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_TIME: Final = re.compile(r"(\d{4})-(\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z").fullmatch


def on_terminal() -> bool:
    return sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, cut: Collection[str] = ()) -> None:
    """The cells' text is shown as it is: what an event or a receiver put there cannot steer a terminal.

    On a terminal long cells are folded. With `cut` a row takes one line: the cells of those columns are cut, the
    others whole.
    """
    cells = [[_text(cell) for cell in row] for row in rows]
    if not on_terminal():
        for row in [list(columns), *cells]:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    made = [_column(name, [row[number] for row in cells], cut) for number, name in enumerate(columns)]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for column, width in zip(made, _widths(made, console.width - 2 * len(made)), strict=True):
        head = "\n".join(wrap(column.name, max(width, 1)))
        table.add_column(
            head, width=width, no_wrap=column.one_line, overflow="ellipsis" if column.one_line else "fold"
        )
    for row in cells:
        table.add_row(*(Text(short(cell)) for cell in row))
    console.print(table)


@frozen
class _Column:
    """How wide its text is, and how narrow it may become: at first, and where that is not enough."""

    name: str
    one_line: bool
    natural: int
    least: int
    last: int


def _column(name: str, cells: Sequence[str], cut: Collection[str]) -> _Column:
    from rich.cells import cell_len

    head = max(map(cell_len, name.split()), default=0)
    widest = max((cell_len(short(cell)) for cell in cells), default=0)
    natural = max(widest, cell_len(name))
    if name in cut:
        return _Column(name, True, natural, max(head, min(natural, _CUT)), 1)
    if cut or all(map(_is_short, cells)):
        return _Column(name, True, natural, max(head, widest), max(head, widest))
    words = max(min(cell_len(word), WORD) for cell in cells for word in short(cell).split() or [""])
    return _Column(name, False, natural, max(head, words), max(head, min(natural, _CUT)))


def _widths(columns: Sequence[_Column], room: int) -> list[int]:
    """The widest give way first."""
    widths = [column.natural for column in columns]
    for floors in ([column.least for column in columns], [column.last for column in columns]):
        while sum(widths) > room:
            loose = [(widths[n], -n) for n in range(len(widths)) if widths[n] > floors[n]]
            if not loose:
                break
            widths[-max(loose)[1]] -= 1
    return widths


def _is_short(cell: str) -> bool:
    """Is it better whole: a word such as a state, or what is cut already?"""
    return short(cell) != cell or (len(cell) <= _SHORT and " " not in cell)


def short(cell: str) -> str:
    """A derived id by its beginning, and a time as `short_time` has it."""
    return cell[:ID_SHOWN] if _DERIVED_ID(cell) else short_time(cell)


def short_time(text: str) -> str:
    """A time, in UTC, to the second, or as a date where it is of another year; any other text as it is."""
    found = _TIME(text)
    if found is None:
        return text
    year, day, time, _ = found.groups()
    return f"{day} {time}" if int(year) == datetime.now(UTC).year else f"{year}-{day}"


def shown_time(text: str) -> str:
    """A time that stands among other words, as in a cell of its own: short on a terminal, else whole."""
    return short_time(text) if on_terminal() else text


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
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
        elif isinstance(value, list):
            if value:
                yield prefix + name, ", ".join(map(_item, value))
        elif value is not None:
            yield prefix + name, value


def _item(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
