"""`make contract` writes docs/channels/ too: a page for each type of channel and forwarder, from the type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from notifyd.plugin import ChannelType
from notifyd.registry.discovery import Discovered
from notifyd.registry.options import Option, about, options

FOLDER: Final = Path(__file__).parents[1] / "docs" / "channels"

_HEAD: Final = """# {name}

`[{table}]` with `type = "{name}"`, from the plugin `notifyd-{name}`. `notifyd plugins show {name}` prints this.

{about}

| option | value | default |
|---|---|---|
{rows}
"""


def pages(discovered: Discovered) -> Mapping[str, str]:
    """The pages by the names of their files."""
    channels = {name: _page(kind, "channels.NAME") for name, kind in discovered.channel_types.items()}
    forwarders = {
        name: _page(kind, "resume.forwarders.NAME") for name, kind in discovered.forwarder_types.items()
    }
    return {f"{name}.md": page for name, page in {**channels, **forwarders}.items()}


def _page(kind: ChannelType, table: str) -> str:
    found = options(kind)
    rows = "\n".join(f"| `{one.name}` | {one.kind} | {_default(one)} |" for one in found)
    return _HEAD.format(name=kind.name, table=table, about=about(kind.config), rows=rows)


def _default(option: Option) -> str:
    if option.default is None:
        return "required"
    return option.default if option.default == "none" else f"`{option.default}`"


def write(discovered: Discovered) -> None:
    """All pages anew."""
    for name, page in pages(discovered).items():
        (FOLDER / name).write_text(page, encoding="utf-8")
