"""The plugin that a channel type, a rule function or a folder of templates under test belongs to."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import entry_points
from types import SimpleNamespace

import notifyd.plugin
from notifyd.plugin import ChannelType, hookimpl
from notifyd.registry.discovery import GROUP, HOOKS, Discovered, examine


def plugin_of(channel_type: ChannelType) -> object:
    """The plugin that brings a channel type: looked for from its config's module."""
    return plugin_near(channel_type.config.__module__, "notifyd_channel_types", channel_type)


def plugin_near(name: str, hook: str, item: object) -> object:
    """The module with hooks that is called `name`, or the nearest above. Where there is none, one with `item`."""
    while name:
        module = sys.modules.get(name)
        # `from notifyd.plugin import *` brings the hooks' names, and none of the module's own.
        if any(getattr(module, one, None) not in (None, getattr(notifyd.plugin, one)) for one in HOOKS):
            return module
        name = name.rpartition(".")[0]
    return SimpleNamespace(**{hook: hookimpl(lambda: [item])})


def examined(plugin: object) -> Discovered:
    """What a plugin brings, and what is wrong with it, as the daemon takes it."""
    return examine(plugin, _distributions().get(getattr(plugin, "__name__", ""), "-"))


@lru_cache(maxsize=1)
def _distributions() -> dict[str, str]:
    """The installed distribution whose entry point names a module, by the module."""
    return {point.module: point.dist.name for point in entry_points(group=GROUP) if point.dist is not None}
