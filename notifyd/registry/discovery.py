"""Finding plugins, and holding each to the shape of the hooks before anything of it is used.

Entry points are loaded one by one, and every plugin has a pluggy manager of its own for as long as it is
looked at: what is wrong with one is named and takes nothing else down. Nothing here outlives a call, but for the
versions of the modules that this process has imported, which it cannot replace.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError
from typing import Any, Final

import pluggy
from attrs import field, frozen

import notifyd.plugin
from notifyd.config.brought import Brought
from notifyd.config.first_party import FIRST_PARTY
from notifyd.config.structure import did_you_mean
from notifyd.errors import PluginError
from notifyd.plugin import API_VERSION, ChannelType, PluginConfig, RuleFunction, TemplateSource
from notifyd.registry.shapes import described, said, wrong_item

GROUP: Final = "notifyd"

_TYPES_HOOK: Final = "notifyd_channel_types"
_FORWARDERS_HOOK: Final = "notifyd_resume_forwarders"
_TEMPLATES_HOOK: Final = "notifyd_template_sources"
_FUNCTIONS_HOOK: Final = "notifyd_rule_functions"
_CONFIG_HOOK: Final = "notifyd_plugin_config"
HOOKS: Final[Mapping[str, type[Any]]] = {
    _CONFIG_HOOK: PluginConfig,
    _TYPES_HOOK: ChannelType,
    _FORWARDERS_HOOK: ChannelType,
    _TEMPLATES_HOOK: TemplateSource,
    _FUNCTIONS_HOOK: RuleFunction,
}

_imported: Final[dict[str, str]] = {}
"""The version of each plugin's module that this process runs: an upgrade does not replace what is imported."""


@frozen
class PluginInfo:
    """A plugin that loaded. `provides` names what it brings, such as `channel webhook`; `version` is the one that
    runs, also where another was installed since it was imported. `api` is the version of `notifyd.plugin` that it
    is written for."""

    name: str
    distribution: str
    version: str
    provides: tuple[str, ...]
    api: int = API_VERSION


@frozen
class Discovered:
    """All that the plugins bring, and what was wrong with any of them. `upgraded` says of each plugin that was
    upgraded under the running process which version waits for a restart. `configs` are the options of plugins
    themselves, by their names."""

    channel_types: Mapping[str, ChannelType]
    forwarder_types: Mapping[str, ChannelType]
    template_sources: tuple[TemplateSource, ...]
    rule_functions: Mapping[str, Callable[..., Any]]
    plugins: tuple[PluginInfo, ...]
    faults: tuple[PluginError, ...]
    upgraded: tuple[str, ...] = ()
    configs: Mapping[str, type[Any]] = field(factory=dict)

    def provider_of(self, channel_type: str, kind: str = "channel") -> PluginInfo | None:
        """The plugin that brings a channel type, or a type of the `kind` forwarder."""
        provided = f"{kind} {channel_type}"
        return next((plugin for plugin in self.plugins if provided in plugin.provides), None)

    @property
    def brought(self) -> Brought:
        """What a configuration may name."""
        own = {plugin.name: self.configs.get(plugin.name) for plugin in self.plugins}
        return Brought(self.channel_types, self.forwarder_types, own)


def discover(*, group: str = GROUP, extra: Iterable[object] = ()) -> Discovered:
    """Load every plugin: `extra` objects first, then installed entry points by distribution and name, those of
    notifyd itself before those of others.

    Never raises for what a plugin does: each fault is in `faults`, named, with its cause. Where two plugins
    bring the same name, the earlier keeps it.
    """
    search = _Search()
    for thing in extra:
        search.add(_Candidate(_name_of(thing), "-", "-", thing))
    for found in _entry_points(group, search.faults):
        search.load(found)
    return search.result()


def examine(plugin: object, distribution: str = "-") -> Discovered:
    """What one plugin brings, and what is wrong with it, as though `distribution` had been installed alone."""
    search = _Search()
    search.add(_Candidate(_name_of(plugin), distribution, "-", plugin))
    return search.result()


# --- what is installed --------------------------------------------------------------------------------------


@frozen
class _Installed:
    distribution: str
    version: str
    entry_point: EntryPoint


@frozen
class _Candidate:
    """A plugin's object, loaded and not yet looked at."""

    name: str
    distribution: str
    version: str
    plugin: object

    @property
    def label(self) -> str:
        """What a fault calls it."""
        return self.name if self.distribution == "-" else f"{self.name} ({self.distribution})"


def _entry_points(group: str, faults: list[PluginError]) -> list[_Installed]:
    """Every entry point of the group, sorted. A distribution that is shadowed on the path counts once.

    Only the distributions that have the group are looked at more closely: reading what one says of itself takes
    half a millisecond, and there may be hundreds.
    """
    found: dict[str, list[_Installed]] = {}
    for distribution in importlib.metadata.distributions():
        if not _concerns_us(distribution, group):
            continue
        name = distribution.name or "unknown"
        key = _normalised(name)
        if key not in found:
            found[key] = list(_of_distribution(_first_on_path(name, distribution), name, group, faults))
    everything = (entry for entries in found.values() for entry in entries)
    return sorted(everything, key=_rank)


def _rank(entry: _Installed) -> tuple[bool, str, str]:
    own = _normalised(entry.distribution) in FIRST_PARTY.values()
    return not own, entry.distribution.lower(), entry.entry_point.name


def _normalised(distribution: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _reserved(name: str, distribution: str) -> str | None:
    """The distribution that a type or an entry point belongs to, where it is another than this one."""
    owner = FIRST_PARTY.get(name)
    return owner if owner != _normalised(distribution) else None


def _concerns_us(distribution: Distribution, group: str) -> bool:
    """Has it the group, or a file that cannot be read, which is then told of?"""
    try:
        return f"[{group}]" in (distribution.read_text("entry_points.txt") or "")
    except (OSError, ValueError):
        return True


def _first_on_path(name: str, distribution: Distribution) -> Distribution:
    """The one of that name which Python finds first. It may have nothing for notifyd, and still counts."""
    try:
        return importlib.metadata.distribution(name)
    except PackageNotFoundError:
        return distribution  # its folder is not named as it says


def _of_distribution(
    distribution: Distribution, name: str, group: str, faults: list[PluginError]
) -> Iterator[_Installed]:
    try:
        for entry_point in distribution.entry_points.select(group=group):
            yield _Installed(name, distribution.version or "unknown", entry_point)
    except Exception as error:  # noqa: BLE001 - a file that somebody else's build has written
        faults.append(_fault(name, f"its entry_points.txt cannot be read: {said(error)}", error))


def _name_of(thing: object) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _fault(label: str, detail: str, cause: BaseException | None = None) -> PluginError:
    fault = PluginError(label, detail)
    fault.__cause__ = cause
    return fault


# --- one pass over all of them ------------------------------------------------------------------------------


class _Search:
    """What has been found so far, and who brought it."""

    def __init__(self) -> None:
        self.faults: list[PluginError] = []
        self._upgraded: list[str] = []
        self._plugins: list[PluginInfo] = []
        self._owners: dict[tuple[str, str], str] = {}
        self._entries: dict[str, str] = {}
        self._types: dict[str, ChannelType] = {}
        self._forwarders: dict[str, ChannelType] = {}
        self._templates: list[TemplateSource] = []
        self._functions: dict[str, Callable[..., Any]] = {}
        self._configs: dict[str, type[Any]] = {}

    def result(self) -> Discovered:
        return Discovered(
            channel_types=self._types,
            forwarder_types=self._forwarders,
            template_sources=tuple(self._templates),
            rule_functions=self._functions,
            plugins=tuple(self._plugins),
            faults=tuple(self.faults),
            upgraded=tuple(self._upgraded),
            configs=self._configs,
        )

    def load(self, found: _Installed) -> None:
        """Import one entry point's object. An import may end in anything, SystemExit included."""
        name = found.entry_point.name
        label = f"{name} ({found.distribution})"
        if owner := _reserved(name, found.distribution):
            self.faults.append(
                _fault(label, f'the entry point "{name}" is the distribution "{owner}"\'s own')
            )
            return
        owner = self._entries.setdefault(name, found.distribution)
        if owner != found.distribution:
            self.faults.append(
                _fault(label, f'the distribution "{owner}" has an entry point "{name}" already')
            )
            return
        if found.entry_point.module not in sys.modules:
            _imported[found.entry_point.module] = found.version
        try:
            plugin = found.entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin's module runs any code at import
            self.faults.append(_fault(label, f"cannot be imported: {said(error)}", error))
            return
        version = _imported.get(found.entry_point.module, found.version)
        if version != found.version:
            self._upgraded.append(
                f"plugin {label!r}: version {found.version} is installed, {version} runs until a restart"
            )
        self.add(_Candidate(name, found.distribution, version, plugin))

    def add(self, candidate: _Candidate) -> None:
        """Take what a plugin brings, as far as it keeps to the hooks' shapes."""
        wrong = _wrong_version(candidate.plugin)
        if wrong:
            self.faults.append(_fault(candidate.label, wrong))
            return
        provides: list[str] = []
        for hook, item in _brought(candidate, self.faults):
            refusal = self._refusal(candidate, hook, item)
            if refusal:
                self.faults.append(_fault(candidate.label, f"{hook}: {refusal}"))
            else:
                provides.append(self._take(candidate, hook, item))
        self._plugins.append(
            PluginInfo(
                candidate.name,
                candidate.distribution,
                candidate.version,
                tuple(provides),
                getattr(candidate.plugin, "notifyd_api", API_VERSION),
            )
        )

    def _refusal(self, candidate: _Candidate, hook: str, item: object) -> str | None:
        expected = HOOKS[hook]
        if not isinstance(item, expected):
            return f"gives {described(item)} where a {expected.__name__} belongs"
        wrong = wrong_item(item)
        if wrong:
            return wrong
        if isinstance(item, ChannelType) and item.gate and hook != _FORWARDERS_HOOK:
            return f'ChannelType "{item.name}": a gate is brought by {_FORWARDERS_HOOK}'
        identity = _identity(candidate, hook, item)
        if isinstance(item, ChannelType) and (reserved := _reserved(item.name, candidate.distribution)):
            return f'{" ".join(identity)} is the distribution "{reserved}"\'s own'
        owner = self._owners.get(identity)
        return f"{' '.join(identity)} is already brought by the plugin {owner}" if owner else None

    def _take(self, candidate: _Candidate, hook: str, item: object) -> str:
        identity = _identity(candidate, hook, item)
        self._owners[identity] = candidate.label
        match item:
            case ChannelType() if hook == _FORWARDERS_HOOK:
                self._forwarders[item.name] = item
            case ChannelType():
                self._types[item.name] = item
            case TemplateSource():
                self._templates.append(item)
            case RuleFunction():
                self._functions[item.name] = item.function
            case PluginConfig():
                self._configs[candidate.name] = item.config
        return " ".join(identity)


def _identity(candidate: _Candidate, hook: str, item: object) -> tuple[str, str]:
    """What no two plugins may both bring."""
    match item:
        case ChannelType() if hook == _FORWARDERS_HOOK:
            return "forwarder", item.name
        case ChannelType():
            return "channel", item.name
        case RuleFunction():
            return "function", item.name
        case TemplateSource():
            return "templates", f"{item.package}/{item.path}"
        case PluginConfig():
            return "options", candidate.name
        case _:
            raise TypeError(f"no hook gives a {type(item).__name__}")


def _wrong_version(plugin: object) -> str | None:
    try:
        version = getattr(plugin, "notifyd_api", API_VERSION)
    except Exception as error:  # noqa: BLE001 - a property of the plugin's own
        return f"notifyd_api raises {said(error)}"
    if type(version) is not int:
        return f"notifyd_api must be an integer, such as {API_VERSION}, not {described(version)}"
    if not 1 <= version <= API_VERSION:
        return f"is written for version {version} of notifyd.plugin, and this notifyd has 1 to {API_VERSION}"
    return None


# --- one plugin's hooks -------------------------------------------------------------------------------------


def _brought(candidate: _Candidate, faults: list[PluginError]) -> Iterator[tuple[str, object]]:
    """Each thing the plugin's hooks give, with the hook's name; a fault for each hook that is wrong."""
    for caller in _hooks(candidate, faults):
        for implementation in caller.get_hookimpls():
            try:
                items = _call(caller, implementation)
            except _HookError as error:
                faults.append(_fault(candidate.label, f"{caller.name}: {error}", error.__cause__))
            else:
                yield from ((caller.name, item) for item in items)


def _hooks(candidate: _Candidate, faults: list[PluginError]) -> list[pluggy.HookCaller]:
    """The plugin's hooks as pluggy sees them."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(notifyd.plugin)
    try:
        manager.register(candidate.plugin, candidate.name)
    except Exception as error:  # noqa: BLE001 - registering reads every attribute the object has
        faults.append(_fault(candidate.label, f"breaks the hooks' shape: {said(error)}", error))
        return []
    callers = manager.get_hookcallers(candidate.plugin) or []
    unmarked = _unmarked(candidate.plugin)
    faults.extend(_fault(candidate.label, text) for text in unmarked)
    if not callers and not unmarked:
        faults.append(_fault(candidate.label, "has no function marked @hookimpl"))
    return callers


class _HookError(Exception):
    """A hook that is not, or does not give, what it should."""


def _unmarked(plugin: object) -> list[str]:
    """Functions that bear a hook's name and were not marked, which pluggy passes over in silence."""
    return [
        f"{name} is not marked @hookimpl"
        for name in HOOKS
        if inspect.isroutine(found := getattr(plugin, name, None))
        and not hasattr(found, f"{GROUP}_impl")
        and found is not getattr(notifyd.plugin, name)  # which `from notifyd.plugin import *` brings
    ]


def _call(caller: pluggy.HookCaller, implementation: pluggy.HookImpl) -> list[object]:
    """The items a hook gives. Called alone: in pluggy one that raises discards the results of all others."""
    function = implementation.function
    if not caller.has_spec() and implementation.optionalhook:
        return []  # written for a later notifyd too
    if not caller.has_spec():
        raise _HookError(f"there is no such hook{did_you_mean(caller.name, HOOKS)}")
    if implementation.wrapper or implementation.hookwrapper:
        raise _HookError("must not be a wrapper: each plugin's hooks are called alone")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _HookError("must not be async: hooks are called before there is an event loop")
    try:
        given = function()
        if inspect.isawaitable(given):
            _close(given)
            raise _HookError("gives an awaitable: hooks are synchronous")
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise _HookError(
                f"gives {described(given)} where a list of {HOOKS[caller.name].__name__} belongs"
            )
        return list(given)
    except (_HookError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _HookError(f"raises {said(error)}") from error


def _close(awaitable: object) -> None:
    """So that Python does not warn of a coroutine nobody awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
