"""Loading a configuration: one TOML file, checked as a whole, into frozen records.

TOML is read, placeholders are resolved, each part is structured strictly, and what the parts say of one
another is checked. Then there is a `Settings`, or every fault is raised at once.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import attrs

from notifyd.config import units
from notifyd.config.consistency import Draft, Kind, check, public_url
from notifyd.config.describe import as_toml, describe, secrets
from notifyd.config.faults import Findings, by_name, listed
from notifyd.config.first_party import no_such_plugin, no_such_type
from notifyd.config.placeholders import Resolver
from notifyd.config.settings import (
    Approvals,
    Auth,
    ChannelSettings,
    Client,
    Console,
    Dispatch,
    Drill,
    Egress,
    Heartbeat,
    Keys,
    Recipient,
    Resume,
    Retention,
    Rule,
    Server,
    Settings,
    StoreSettings,
    Templates,
    common_options,
)
from notifyd.config.structure import Structurer, must_be, options_of, unknown_key
from notifyd.config.syntax import document, read_text
from notifyd.errors import ConfigError, Fault
from notifyd.model import FORWARDERS
from notifyd.plugin import ChannelType

__all__ = ["FROZEN", "as_toml", "describe", "frozen_changes", "load", "load_server", "loads", "secrets"]

FROZEN: Final = (
    "server.listen",
    "server.node",
    "store.url",
    "store.timeout",
    "store.driver",
    "dispatch.clock_skew",
)
"""What only a restart can change."""

NOTHING: Final[Mapping[str, ChannelType]] = {}
NO_PLUGINS: Final[Mapping[str, type[Any] | None]] = {}

_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "server": Server,
    "store": StoreSettings,
    "keys": Keys,
    "dispatch": Dispatch,
    "egress": Egress,
    "heartbeat": Heartbeat,
    "console": Console,
    "drill": Drill,
    "templates": Templates,
    "approvals": Approvals,
    "retention": Retention,
}

_APART: Final = ("drill", "templates", "approvals", "console")
"""Sections whose keys can be checked one without another: nothing is missing because a key is left out."""


def load(
    path: Path,
    types: Mapping[str, ChannelType],
    *,
    forwarders: Mapping[str, ChannelType] = NOTHING,
    plugins: Mapping[str, type[Any] | None] = NO_PLUGINS,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Read and check the file at `path`. Relative paths in it start from its folder.

    `types` and `forwarders` are those that plugins bring for channels, and for `resume.forwarders`; `plugins` what
    each plugin itself takes, None where it takes nothing.

    Raises `ConfigError` with every fault. A file that cannot be read has one, at its path; one that is not
    TOML has one at `PATH:LINE:COLUMN`.
    """
    return loads(
        read_text(path),
        types,
        forwarders=forwarders,
        plugins=plugins,
        environ=environ,
        base=path.parent,
        source=str(path),
    )


def loads(
    text: str,
    types: Mapping[str, ChannelType],
    *,
    forwarders: Mapping[str, ChannelType] = NOTHING,
    plugins: Mapping[str, type[Any] | None] = NO_PLUGINS,
    environ: Mapping[str, str] = os.environ,
    base: Path = Path(),
    source: str = "config",
) -> Settings:
    """The same for a text. `source` is what a syntax error calls it. Raises `ConfigError`."""
    raw = document(text, source)
    if not raw:
        raise ConfigError([Fault(source, "has no key at all: restore it, or begin with conf/notifyd.toml")])
    resolver, unresolved, findings = Resolver(environ, base), Findings(), Findings()
    resolved = resolver.resolve(raw, unresolved)
    revealed = resolver.revealed
    settings = _Reader(
        resolved, types, forwarders, plugins, Structurer(base, revealed.add, revealed.hide_parts), findings
    ).read()
    # A value that could not be resolved is missing here, which is no second fault.
    rest = [fault for fault in findings.faults if fault.pointer not in unresolved.pointers]
    faults = [*unresolved.faults, *(Fault(f.pointer, revealed.hide(f.message)) for f in rest)]
    if faults or settings is None:
        rename = by_name(raw.get("rules"))
        raise ConfigError(Fault(rename(fault.pointer), fault.message) for fault in faults)
    return settings


def load_server(path: Path, environ: Mapping[str, str] = os.environ) -> Server:
    """`[server]` of the file at `path`, and no other table: for whoever looks for a service that runs.

    A fault elsewhere in the file, or a secret that cannot be read here, says nothing about a running service.
    Raises `ConfigError`.
    """
    raw = document(read_text(path), str(path))
    resolver, findings = Resolver(environ, path.parent), Findings()
    at = findings.under("server")
    table = resolver.resolve(raw.get("server", {}), at)
    revealed = resolver.revealed
    structurer = Structurer(path.parent, revealed.add, revealed.hide_parts)
    # A value that could not be resolved is missing, which is no second fault.
    server = None if findings.faults else structurer.into(table, Server, at)
    if findings.faults or server is None:
        raise ConfigError(Fault(fault.pointer, revealed.hide(fault.message)) for fault in findings.faults)
    return _with_defaults(server)


def frozen_changes(old: Settings, new: Settings) -> list[str]:
    """The keys that differ and cannot change in a running service."""
    return [key for key in FROZEN if attrgetter(key)(old) != attrgetter(key)(new)]


class _Reader:
    """One pass over a resolved document."""

    def __init__(
        self,
        raw: Any,
        types: Mapping[str, ChannelType],
        forwarders: Mapping[str, ChannelType],
        plugins: Mapping[str, type[Any] | None],
        structurer: Structurer,
        findings: Findings,
    ) -> None:
        self._raw: Mapping[str, Any] = raw
        self._types = types
        self._forwarder_types = forwarders
        self._plugin_configs = plugins
        self._structurer = structurer
        self._findings = findings

    def read(self) -> Settings | None:
        """The settings; None where there are faults."""
        known = attrs.fields_dict(Settings)
        for key in sorted(self._raw.keys() - known.keys()):
            self._findings.under(key).add(unknown_key(key, known))
        sections = {name: self._section(name, cls) for name, cls in _SECTIONS.items()}
        channels = self._channels()
        recipients, plugins = self._each(Recipient, "recipients"), self._plugins()
        auth, clients = self._auth()
        resume, forwarders = self._resume()
        (rules, faulty), shorthand = self._rules(), self._shorthand()
        draft = Draft(
            server=sections["server"],
            auth=auth,
            clients=clients,
            keys=sections["keys"],
            resume=resume,
            forwarders=forwarders,
            channel_types=self._kinds(channels),
            types=self._types,
            rules=rules,
            faulty=faulty,
            rule_channels=self._rule_channels(),
            shorthand=shorthand,
            recipients=recipients,
            **{name: sections[name] or self._readable(name) for name in _APART},
        )
        self._check(draft)
        if self._findings.faults:
            return None
        sections |= {
            "auth": attrs.evolve(auth, clients=clients),
            "resume": attrs.evolve(resume, forwarders=forwarders),
            "server": _with_defaults(sections["server"]),
        }
        return Settings(
            **sections,
            channels=channels,
            recipients=recipients,
            plugins=plugins,
            rules=(*filter(None, rules), *shorthand.values()),
            notifications={key: rule.channels for key, rule in shorthand.items()},
        )

    def _check(self, draft: Draft) -> None:
        """Adds what does not agree, but for keys that a section is checked without: there it follows from that."""
        found = Findings()
        check(draft, found)
        left_out = {at.path for name in _APART for at in self._faulty(name)}
        for fault in found.faults:
            at = self._findings.at(fault.pointer)
            if not any(at.is_in(key) for key in left_out):
                at.add(fault.message)

    def _faulty(self, name: str) -> list[Findings]:
        table, at = self._raw.get(name, {}), self._findings.under(name)
        keys = table if isinstance(table, dict) else ()
        return [at.under(key) for key in keys if at.under(key).has_faults]

    def _readable(self, name: str) -> Any:
        """A section without those of its keys that have faults, so that the others are checked all the same."""
        faulty, at = {one.path for one in self._faulty(name)}, self._findings.under(name)
        table = self._table(name)
        sound = {key: value for key, value in table.items() if at.under(key).path not in faulty}
        return self._structurer.into(sound, _SECTIONS[name], Findings())

    def _section(self, name: str, cls: type[Any]) -> Any:
        return self._structurer.into(self._raw.get(name, {}), cls, self._findings.under(name))

    def _table(self, name: str) -> Mapping[str, Any]:
        """A table of tables, as it was written; empty, with a fault, where it is none."""
        table = self._raw.get(name, {})
        if isinstance(table, dict):
            return table
        self._findings.under(name).add(must_be("a table", table))
        return {}

    def _each(self, cls: Any, *path: str) -> dict[str, Any]:
        """Every entry of a table as a `cls`, so that one with a fault leaves the others to be checked."""
        at, table = self._findings.under(*path), self._raw
        for step in path:
            table = table.get(step, {})
        if not isinstance(table, dict):
            at.add(must_be("a table", table))
            return {}
        return {name: self._structurer.into(value, cls, at.under(name)) for name, value in table.items()}

    def _auth(self) -> tuple[Any, dict[str, Any]]:
        table = self._table("auth")
        own = {key: value for key, value in table.items() if key != "clients"}
        auth = self._structurer.into(own, Auth, self._findings.under("auth"))
        return auth, self._each(Client, "auth", "clients") if table else {}

    def _resume(self) -> tuple[Any, dict[str, Any]]:
        table, at = self._table("resume"), self._findings.under("resume")
        own = {key: value for key, value in table.items() if key != "forwarders"}
        named = table.get("forwarders", {})
        if not isinstance(named, dict):
            at.under("forwarders").add(must_be("a table", named))
            named = {}
        forwarders = {
            name: self._channel(FORWARDERS + name, one, self._forwarder_types, at.under("forwarders", name))
            for name, one in named.items()
        }
        return self._structurer.into(own, Resume, at), forwarders

    def _plugins(self) -> dict[str, Any]:
        """The record of each plugin that takes options; without its table at its defaults, where all have one."""
        at, tables = self._findings.under("plugins"), self._table("plugins")
        for name in sorted(tables.keys()):
            if self._plugin_configs.get(name) is None:
                at.under(name).add(no_such_plugin(name, self._plugin_configs))
        found = {
            name: self._structurer.into(
                tables.get(name, {}), config, at.under(name) if name in tables else Findings()
            )
            for name, config in self._plugin_configs.items()
            if config is not None
        }
        return {name: record for name, record in found.items() if record is not None}

    def _channels(self) -> dict[str, Any]:
        return {
            name: self._channel(name, table, self._types, self._findings.under("channels", name))
            for name, table in self._table("channels").items()
        }

    def _kinds(self, channels: Mapping[str, ChannelSettings | None]) -> dict[str, Kind | None]:
        return {name: self._kind(name, channel) for name, channel in channels.items()}

    def _kind(self, name: str, channel: ChannelSettings | None) -> Kind | None:
        """What is known of a channel's type, also where its options have faults of their own."""
        kind = self._type_of(self._table("channels")[name], self._types)
        if kind is None:
            return None
        depends = callable(kind.personal) or callable(kind.answers)
        if channel is None:
            return (
                None if depends else Kind(kind.name, bool(kind.personal), kind.addressed, bool(kind.answers))
            )
        try:
            return Kind(kind.name, channel.personal, kind.addressed, channel.answers)
        except Exception as error:  # noqa: BLE001 - whatever a plugin's own function does
            fault = f"its type's personal or answers raises {type(error).__name__}"
            self._findings.under("channels", name).add(fault)
            return None

    @staticmethod
    def _type_of(table: object, types: Mapping[str, ChannelType]) -> ChannelType | None:
        name = table.get("type") if isinstance(table, dict) else None
        return types.get(name) if isinstance(name, str) else None

    def _channel(
        self, name: str, table: object, types: Mapping[str, ChannelType], at: Findings
    ) -> ChannelSettings | None:
        if not isinstance(table, dict):
            at.add(must_be("a table", table))
            return None
        kind = self._type_of(table, types)
        if kind is None:
            at.under("type").add(self._no_such_type(table, types))
            return None
        own = options_of(kind.config)
        for key in sorted(table.keys() - {"type", *common_options(kind), *own}):
            at.under(key).add(unknown_key(key, (*common_options(kind), *own)))
        config = self._structurer.into({key: table[key] for key in own if key in table}, kind.config, at)
        common = self._common(table, kind, at)
        if kind.gate and "tenant" not in table:
            at.under("tenant").add("is required: whose approvals the gate asks for")
        return None if config is None else ChannelSettings(name=name, type=kind, config=config, **common)

    def _no_such_type(self, table: Mapping[str, Any], types: Mapping[str, ChannelType]) -> str:
        if "type" not in table:
            return f"is required; installed are: {listed(types)}"
        if not isinstance(table["type"], str):
            return must_be("a string", table["type"])
        for others, elsewhere in ((self._types, "channels"), (self._forwarder_types, "resume.forwarders")):
            if table["type"] in others:
                return f'"{table["type"]}" is a type of [{elsewhere}.NAME]; here there are: {listed(types)}'
        return no_such_type(table["type"], types)

    def _common(self, table: Mapping[str, Any], kind: ChannelType, at: Findings) -> dict[str, Any]:
        fields = attrs.fields_dict(attrs.resolve_types(ChannelSettings))
        limit = {"rate_limit": units.parse_rate(kind.rate_limit)} if kind.rate_limit else {}
        return limit | {
            key: self._structurer.into(table[key], fields[key].type, at.under(key))
            for key in common_options(kind)
            if key in table
        }

    def _rules(self) -> tuple[tuple[Rule | None, ...], tuple[frozenset[str], ...]]:
        """Each rule as far as it can be read, and which of its keys cannot."""
        rules, at = self._raw.get("rules", []), self._findings.under("rules")
        if not isinstance(rules, list):
            at.add(must_be("an array of tables, [[rules]]", rules))
            return (), ()
        read = [self._rule(rule, at.under(index)) for index, rule in enumerate(rules)]
        return tuple(rule for rule, _ in read), tuple(faulty for _, faulty in read)

    def _rule(self, table: object, at: Findings) -> tuple[Rule | None, frozenset[str]]:
        rule: Rule | None = self._structurer.into(table, Rule, at)
        if rule is not None or not isinstance(table, dict):
            return rule, frozenset()
        faulty = frozenset(key for key in (*table, *_NEEDED) if at.under(key).has_faults)
        rest = {key: value for key, value in table.items() if key not in faulty}
        return self._structurer.into({**_NEEDED, **rest}, Rule, Findings()), faulty

    def _rule_channels(self) -> tuple[Any, ...]:
        """Each rule's channels alone: they are checked even where the rule has a fault elsewhere."""
        rules = self._raw.get("rules", [])
        tables = rules if isinstance(rules, list) else []
        named = (table.get("channels") if isinstance(table, dict) else None for table in tables)
        # A fault in the names themselves is found with the rule's own.
        return tuple(self._structurer.into(names, tuple[str, ...], Findings()) for names in named)

    def _shorthand(self) -> dict[str, Any]:
        """`on_a_b_c = [...]` as a rule for the kind `a.b.c`."""
        rules: dict[str, Rule | None] = {}
        for key, channels in self._each(tuple[str, ...], "notifications").items():
            found = _SHORTHAND.fullmatch(key)
            if not found:
                self._findings.under("notifications", key).add(
                    "must be on_ and the event's kind, its dots written _: on_task_done is task.done"
                )
            usable = found is not None and channels is not None
            rules[key] = _shorthand_rule(key, found[1], channels) if found and usable else None
        return rules


_NEEDED: Final[Mapping[str, Any]] = {"name": "another", "when": "true", "channels": []}
"""What stands for the keys that a rule has to have, so that the rest of it can be checked without them."""

_SHORTHAND: Final = re.compile(r"on_([A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)")


def _shorthand_rule(key: str, kind: str, channels: tuple[str, ...]) -> Rule:
    when = f'event.kind == "{kind.replace("_", ".")}"'
    return Rule(name=f"notifications.{key}", when=when, channels=channels)


def _with_defaults(server: Server) -> Server:
    """What follows from where the server listens."""
    node = server.node or f"{socket.gethostname()}/{server.listen}"
    return attrs.evolve(server, node=node, public_url=public_url(server))
