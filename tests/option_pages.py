"""`make contract` writes the tables of docs/configuration.md too: every option, from the settings' records."""

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
    yield "`conf/notifyd.toml` says what each is for. A channel takes the options of its type: see its page, from"
    yield "[here](index.md), and `notifyd plugins show TYPE`. `[notifications]` holds `on_task_done = [...]`,"
    yield "in short a rule about the kind `task.done`."
    for name, record in sorted(sections().items()):
        table = "[[rules]]" if name == "rules" else f"[{name}]"
        yield from ("", f"### `{table}`", "", "| option | value | default |", "|---|---|---|")
        for option in described(options_of(record)):
            yield f"| `{option.name}` | {option.kind} | {_default(option)} |"
    yield ""


def _default(option: Option) -> str:
    if option.default is None:
        return "required"
    return option.default if option.default == "none" else f"`{option.default}`"


def write() -> None:
    """That part anew; the rest of the page is written by hand."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(rf"(?ms)^{HEADING}$.*", "", text) + written(), encoding="utf-8")
