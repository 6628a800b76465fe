"""The channel types of notifyd itself, and who brings them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from notifyd.config.faults import listed

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
    remedy = f"install {FIRST_PARTY[name]}" if name in FIRST_PARTY else f"installed are: {listed(types)}"
    return f'no plugin brings the type "{name}"; {remedy}'
