"""Manual pages, made of the commands themselves and of `conf/notifyd.toml`.

Written in the macros of man(7), for groff and mandoc alike: https://man7.org/linux/man-pages/man7/groff_man.7.html
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from inspect import cleandoc
from pathlib import Path
from typing import Final

import click

from notifyd import __version__
from notifyd.cli import cli

CONFIGURATION: Final = Path(__file__).parents[2] / "conf" / "notifyd.toml"

_WIDTH: Final = 78
_COMMANDS_END = """.SH EXIT STATUS
.TP
0
All is well.
.TP
1
What was asked about is not, or there was no answer.
.TP
2
Wrong usage.
.TP
3
Of
.BR notifyd\\-serve (1):
another start would end likewise, by a fault of the configuration or a store that is corrupt.
.SH FILES
.TP
.I /etc/notifyd/notifyd.toml
The configuration, see
.BR notifyd.toml (5).
"""


def pages(at: datetime) -> Iterator[tuple[str, str]]:
    """Each page by the name of its file; `at` is the date that stands below it."""
    yield from _of(cli, "notifyd", None, at)
    yield "notifyd.toml.5", _configuration(at)


def _of(
    command: click.Command, name: str, parent: click.Context | None, at: datetime
) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=name, parent=parent)
    below = _below(context)
    page = context.command_path.replace(" ", "-")
    yield f"{page}.1", "".join(_page(context, page, [one.name or "" for one in below], below, at))
    for one in below:
        yield from _of(one, one.name or "", context, at)


def _below(context: click.Context) -> list[click.Command]:
    group = context.command
    if not isinstance(group, click.Group):
        return []
    found = (group.get_command(context, name) for name in group.list_commands(context))
    return [one for one in found if one is not None and not one.hidden]


def _page(
    context: click.Context, page: str, names: list[str], below: list[click.Command], at: datetime
) -> Iterator[str]:
    command = context.command
    yield _title(page.upper(), 1, at)
    yield ".SH NAME\n" + _filled(f"{page} - {_summary(command)}").replace(
        f"{page} -", f"{plain(page)} \\-", 1
    )
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SH SYNOPSIS\n.B {plain(context.command_path)}\n{plain(usage)}\n"
    yield ".SH DESCRIPTION\n" + paragraphs(command.help or "")
    yield ".SH OPTIONS\n" + "".join(_options(context))
    if below:
        yield ".SH COMMANDS\n"
        for name, one in zip(names, below, strict=True):
            yield f".TP\n.BR {plain(f'{page}-{name}')} (1)\n{_filled(_summary(one) + '.')}"
    if context.parent is None:
        yield _COMMANDS_END
    else:
        above = context.parent.command_path.replace(" ", "-")
        yield f".SH SEE ALSO\n.BR {plain(above)} (1)\n"


def _title(name: str, section: int, at: datetime) -> str:
    return f'.TH "{plain(name)}" {section} {at.astimezone(UTC):%Y-%m-%d} "notifyd {__version__}"\n'


def _summary(command: click.Command) -> str:
    """The first sentence of what it says of itself, whole."""
    return command.get_short_help_str(limit=1000).rstrip(".")


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            names, said = record
            yield f".TP\n.B {plain(names)}\n{_filled(said)}"


def paragraphs(said: str) -> str:
    """What stands between empty lines, each a paragraph; one that begins with a line `\\b` keeps its lines."""
    return ".PP\n".join(map(_paragraph, re.split(r"\n\s*\n", cleandoc(said))))


def _paragraph(said: str) -> str:
    kept = said.removeprefix("\b\n")
    return _filled(said) if kept == said else verbatim(kept.splitlines())


def _filled(said: str) -> str:
    lines = textwrap.wrap(said, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{text(line)}\n" for line in lines)


def verbatim(lines: Iterable[str]) -> str:
    """Lines as they stand."""
    return ".nf\n" + "".join(f"{plain(line)}\n" for line in lines) + ".fi\n"


def text(said: str) -> str:
    """One line of prose: nothing in it is a request or an escape of roff's."""
    escaped = said.replace("\\", "\\e").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    return re.sub(r"^([.'])", r"\\&\1", escaped.replace("~", "\\(ti"))


def plain(said: str) -> str:
    """One line of what is typed: a hyphen is the one of the keyboard, so that it can be copied."""
    return text(said).replace("-", "\\-")


def _configuration(at: datetime) -> str:
    return "".join(
        (
            _title("NOTIFYD.TOML", 5, at),
            ".SH NAME\nnotifyd.toml \\- configuration of notifyd\n",
            ".SH SYNOPSIS\n.I /etc/notifyd/notifyd.toml\n",
            ".SH DESCRIPTION\nEvery option, commented out where it stands at its default.\n",
            ".B notifyd check\\-config\nfinds what is wrong with a file, each fault with its line.\n",
            ".SH OPTIONS\n",
            verbatim(CONFIGURATION.read_text(encoding="utf-8").splitlines()),
            ".SH SEE ALSO\n.BR notifyd (1)\n",
        )
    )
