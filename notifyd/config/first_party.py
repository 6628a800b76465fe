"""The channel types of notifyd itself, and who brings them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from notifyd.config.faults import listed
from notifyd.config.structure import did_you_mean

FIRST_PARTY: Final[Mapping[str, str]] = {
    name: f"notifyd-{name}"
    for name in (
        *("apprise", "discord", "email", "github", "google-chat", "log", "mattermost", "nats", "ntfy"),
        *("pagerduty", "slack", "teams", "telegram", "webhook"),
    )
}
"""The distribution that alone may bring each: what is configured for a channel, its secrets too, is handed to
whoever brings its type. The names of entry points are kept likewise."""


def no_such_type(name: str, types: Collection[str]) -> str:
    """That no plugin brings the type, and what to do: install the distribution that does, or choose of `types`."""
    if name in FIRST_PARTY:
        return f'no plugin brings the type "{name}"; install {FIRST_PARTY[name]}'
    near = did_you_mean(name, sorted({*FIRST_PARTY, *types}))
    return f'no plugin brings the type "{name}"; installed are: {listed(types)}{near}'


def no_such_plugin(name: str, plugins: Mapping[str, object | None]) -> str:
    """Why `[plugins.NAME]` cannot be: `plugins` are those that are installed, with what they take, if anything."""
    if name in plugins:
        return f'the plugin "{name}" takes no options of its own'
    taking = [one for one, options in plugins.items() if options is not None]
    near = did_you_mean(name, taking) or (f"; those that take options: {listed(taking)}" if taking else "")
    needed = FIRST_PARTY.get(name, "the distribution that brings it")
    return f'no plugin "{name}" is installed: install {needed}{near}'
