"""The plugin that a channel type under test belongs to, as the daemon would take it."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import entry_points
from types import SimpleNamespace

from notifyd.plugin import ChannelType, hookimpl
from notifyd.registry.discovery import GROUP, HOOKS, examine


def plugin_of(channel_type: ChannelType) -> object:
    """The module with its hooks: its config's, or the nearest above. Where there is none, one with this type."""
    name = channel_type.config.__module__
    while name:
        module = sys.modules.get(name)
        if any(hasattr(module, hook) for hook in HOOKS):
            return module
        name = name.rpartition(".")[0]
    return SimpleNamespace(notifyd_channel_types=hookimpl(lambda: [channel_type]))


def examined(plugin: object) -> tuple[list[str], set[str]]:
    """What is wrong with a plugin, and the names of its channel types and forwarders."""
    found = examine(plugin, _distributions().get(getattr(plugin, "__name__", ""), "-"))
    return [str(fault) for fault in found.faults], {*found.channel_types, *found.forwarder_types}


@lru_cache(maxsize=1)
def _distributions() -> dict[str, str]:
    """The installed distribution whose entry point names a module, by the module."""
    return {point.module: point.dist.name for point in entry_points(group=GROUP) if point.dist is not None}
