"""`make contract` writes the tables of docs/configuration.md too: every option, from the settings' records.

What each is for is what conf/notifyd.toml says of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from notifyd.config import settings
from notifyd.config.settings import Settings
from notifyd.config.structure import options_of
from notifyd.registry.options import Option, described
from tests.markdown import cell, plain

PAGE: Final = Path(__file__).parents[1] / "docs" / "configuration.md"
HEADING: Final = "## Every option"

ENTRIES: Final[Mapping[str, type[Any]]] = {
    "server.tls": settings.Tls,
    "auth.clients.NAME": settings.Client,
    "auth.jwt": settings.Jwt,
    "auth.oidc": settings.Oidc,
    "console.operators.NAME": settings.Operator,
    "rules": settings.Rule,
    "rules.quiet_hours": settings.QuietHours,
    "rules.escalate": settings.Escalation,
    "recipients.NAME": settings.Recipient,
    "recipients.NAME.deputy": settings.Deputy,
}
"""The tables inside of sections, and those of which there are many."""


CONF: Final = Path(__file__).parents[1] / "conf" / "notifyd.toml"
HEADER: Final = re.compile(r"#?\[+([\w.]+?)(\.task-runner|\.bus|\.\"[^\"]*\")?\]+$")
OPTION: Final = re.compile(r"#?(\w+) = ")


def meanings() -> Mapping[tuple[str, str], str]:
    """The comment on each option and table, by the table around it and its name; one may be on several options."""
    found: dict[tuple[str, str], str] = {}
    table, comment, is_told = "", "", False
    for line in CONF.read_text(encoding="utf-8").splitlines():
        if header := HEADER.match(line):
            parent, _, name = header[1].rpartition(".")
            found[parent, name], comment = comment, ""
            table = header[1] + (".NAME" if header[2] else "")
        elif option := OPTION.match(line):
            found[table, option[1]], is_told = comment, True
        elif line.startswith("# "):
            comment, is_told = ("" if is_told else f"{comment} ") + line[2:], False
        else:
            comment = ""
    return {name: text.strip() for name, text in found.items()}


def sections() -> Mapping[str, type[Any]]:
    """Each table by its name, as the file writes it."""
    fields = attrs.fields_dict(attrs.resolve_types(Settings))
    plain = {name: a.type for name, a in fields.items() if a.type is not None and attrs.has(a.type)}
    return {**plain, **ENTRIES}


def written() -> str:
    """The part of the page from `HEADING` to its end."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEADING
    yield ""
    yield "As `conf/notifyd.toml` shows them, where restart means that an option takes effect at the next start."
    yield "A channel takes the options of its type: see [channels](channels.md), and `notifyd plugins show TYPE`."
    yield "`[notifications]` holds `on_task_done = [...]`, in short a rule about the kind `task.done`."
    told = meanings()
    for name, record in sorted(sections().items()):
        table = "[[rules]]" if name == "rules" else f"[{name}]"
        parent, _, last = name.removesuffix(".NAME").rpartition(".")
        about = told.get((parent, last), "")
        yield from (
            "",
            f"### `{table}`",
            *(["", plain(about)] if about else []),
            "",
            "| option | value | default | is for |",
            "|---|---|---|---|",
        )
        for option in described(options_of(record)):
            meaning = cell(plain(told.get((name, option.name), "")))
            yield f"| `{option.name}` | {option.kind} | {_default(option)} | {meaning} |"
    yield ""


def _default(option: Option) -> str:
    if option.default is None:
        return "required"
    return option.default if option.default == "none" else f"`{option.default}`"


def write() -> None:
    """That part anew; the rest of the page is written by hand."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(rf"(?ms)^{HEADING}$.*", "", text) + written(), encoding="utf-8")
