"""One pass over a document whose placeholders are resolved: settings as far as they go, and every fault."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs

from notifyd.config import units
from notifyd.config.brought import Brought
from notifyd.config.consistency import Draft, Kind, check, public_url
from notifyd.config.faults import Findings, Told, by_name, dotted, listed
from notifyd.config.first_party import no_such_plugin, no_such_type
from notifyd.config.partly import NEEDED, partly
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
from notifyd.model import FORWARDERS
from notifyd.plugin import ChannelType

T = TypeVar("T")

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

_OF_A_DRAFT: Final = ("server", "keys", "drill", "templates", "approvals", "console")


class Reader:
    """Adds what it finds to `findings`, which has what could not be resolved."""

    def __init__(self, raw: Any, brought: Brought, structurer: Structurer, findings: Findings) -> None:
        self._raw: Mapping[str, Any] = raw
        self._brought = brought
        self._structurer = structurer
        self._findings = findings

    def read(self) -> Settings:
        """The settings as far as they go; what there are no faults of is whole."""
        known = attrs.fields_dict(Settings)
        for key in sorted(self._raw.keys() - known.keys()):
            self._findings.under(key).add(unknown_key(key, known))
        sections = {
            name: self._partly(self._table(name), cls, self._findings.under(name))
            for name, cls in _SECTIONS.items()
        }
        channels = self._channels()
        recipients, plugins = self._each(Recipient, "recipients"), self._plugins()
        auth, clients = self._auth()
        resume, forwarders = self._resume()
        rules, shorthand = self._rules(), self._shorthand()
        kinds = self._kinds(channels)
        told = Told(self._findings.faults)
        draft = Draft(
            **{name: sections[name] for name in _OF_A_DRAFT},
            auth=auth,
            clients=clients,
            resume=resume,
            forwarders=forwarders,
            channel_types=kinds,
            types=self._brought.channels,
            rules=rules,
            shorthand=shorthand,
            recipients=recipients,
            told=told,
        )
        self._check(draft)
        return Settings(
            **sections | {"server": with_defaults(sections["server"])},
            auth=attrs.evolve(auth, clients=_there(clients)),
            resume=attrs.evolve(resume, forwarders=_there(forwarders)),
            channels=_there(channels),
            recipients=_there(recipients),
            plugins=plugins,
            rules=(*self._placed(rules), *_there(shorthand).values()),
            notifications={key: rule.channels for key, rule in _there(shorthand).items()},
        )

    def _check(self, draft: Draft) -> None:
        """Adds what does not agree, but for a key that has a fault of its own."""
        found = Findings()
        check(draft, found)
        for fault in found.faults:
            if not draft.told.has(fault.pointer):
                self._findings.at(fault.pointer).add(fault.message)

    def _partly(self, value: object, cls: Any, at: Findings) -> Any:
        return partly(self._structurer, value, cls, at)

    def _table(self, *path: str) -> Mapping[str, Any]:
        """A table, as it was written; empty, with a fault, where it is none."""
        table: Any = self._raw
        for step in path:
            table = table.get(step, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict):
            return table
        self._findings.under(*path).add(must_be("a table", table))
        return {}

    def _each(self, cls: Any, *path: str) -> dict[str, Any]:
        """Every entry of a table as a `cls`; None for one that is none at all."""
        at = self._findings.under(*path)
        return {name: self._partly(value, cls, at.under(name)) for name, value in self._table(*path).items()}

    def _auth(self) -> tuple[Any, dict[str, Any]]:
        own = {key: value for key, value in self._table("auth").items() if key != "clients"}
        return self._partly(own, Auth, self._findings.under("auth")), self._each(Client, "auth", "clients")

    def _resume(self) -> tuple[Any, dict[str, Any]]:
        at = self._findings.under("resume")
        own = {key: value for key, value in self._table("resume").items() if key != "forwarders"}
        forwarders = {
            name: self._channel(
                FORWARDERS + name, one, self._brought.forwarders, at.under("forwarders", name)
            )
            for name, one in self._table("resume", "forwarders").items()
        }
        return self._partly(own, Resume, at), forwarders

    def _plugins(self) -> dict[str, Any]:
        """The record of each plugin that takes options; without its table at its defaults, where all have one."""
        at, tables = self._findings.under("plugins"), self._table("plugins")
        for name in sorted(tables.keys()):
            if self._brought.plugins.get(name) is None:
                at.under(name).add(no_such_plugin(name, self._brought.plugins))
        found = {
            name: self._structurer.into(
                tables.get(name, {}), config, at.under(name) if name in tables else Findings()
            )
            for name, config in self._brought.plugins.items()
            if config is not None
        }
        return {name: record for name, record in found.items() if record is not None}

    def _channels(self) -> dict[str, Any]:
        return {
            name: self._channel(name, table, self._brought.channels, self._findings.under("channels", name))
            for name, table in self._table("channels").items()
        }

    def _kinds(self, channels: Mapping[str, ChannelSettings | None]) -> dict[str, Kind | None]:
        return {name: self._kind(name, channel) for name, channel in channels.items()}

    def _kind(self, name: str, channel: ChannelSettings | None) -> Kind | None:
        """What is known of a channel's type, also where its options have faults of their own."""
        kind = self._type_of(self._table("channels")[name], self._brought.channels)
        if kind is None:
            return None
        depends = callable(kind.personal) or callable(kind.answers)
        if channel is None or self._findings.under("channels", name).has_faults:
            return (
                None if depends else Kind(kind.name, bool(kind.personal), kind.addressed, bool(kind.answers))
            )
        try:
            return Kind(kind.name, channel.personal, kind.addressed, channel.answers)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin's own function does
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
        config = self._partly({key: table[key] for key in own if key in table}, kind.config, at)
        common = self._common(table, kind, at)
        if kind.gate and "tenant" not in table:
            at.under("tenant").add("is required: whose approvals the gate asks for")
        return None if config is None else ChannelSettings(name=name, type=kind, config=config, **common)

    def _no_such_type(self, table: Mapping[str, Any], types: Mapping[str, ChannelType]) -> str:
        if "type" not in table:
            return f"is required; installed are: {listed(types)}"
        if not isinstance(table["type"], str):
            return must_be("a string", table["type"])
        tables = {"channels": self._brought.channels, "resume.forwarders": self._brought.forwarders}
        for elsewhere, others in tables.items():
            if table["type"] in others:
                return f'"{table["type"]}" is a type of [{elsewhere}.NAME]; here there are: {listed(types)}'
        return no_such_type(table["type"], types)

    def _common(self, table: Mapping[str, Any], kind: ChannelType, at: Findings) -> dict[str, Any]:
        fields = attrs.fields_dict(attrs.resolve_types(ChannelSettings))
        limit = {"rate_limit": units.parse_rate(kind.rate_limit)} if kind.rate_limit else {}
        read = {
            key: self._structurer.into(table[key], fields[key].type, at.under(key))
            for key in common_options(kind)
            if key in table
        }
        return limit | {key: value for key, value in read.items() if value is not None}

    def _rules(self) -> tuple[Rule | None, ...]:
        """Each rule as far as it goes."""
        rules, at = self._raw.get("rules", []), self._findings.under("rules")
        if not isinstance(rules, list):
            at.add(must_be("an array of tables, [[rules]]", rules))
            return ()
        return tuple(
            partly(self._structurer, rule, Rule, at.under(index), NEEDED) for index, rule in enumerate(rules)
        )

    def _placed(self, rules: Iterable[Rule | None]) -> Iterator[Rule]:
        """Those that can be read: one without a name of its own has its place for a name."""
        rename = by_name(self._raw.get("rules"))
        for index, rule in enumerate(rules):
            place = dotted("rules", index)
            if rule is not None:
                yield attrs.evolve(rule, name=place) if rename(place) == place else rule

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


_SHORTHAND: Final = re.compile(r"on_([A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)")


def _shorthand_rule(key: str, kind: str, channels: tuple[str, ...]) -> Rule:
    when = f'event.kind == "{kind.replace("_", ".")}"'
    return Rule(name=f"notifications.{key}", when=when, channels=channels)


def with_defaults(server: Server) -> Server:
    """What follows from where the server listens."""
    node = server.node or f"{socket.gethostname()}/{server.listen}"
    return attrs.evolve(server, node=node, public_url=public_url(server))


def _there(records: Mapping[str, T | None]) -> dict[str, T]:
    return {name: record for name, record in records.items() if record is not None}
