"""The shape of a configuration, section by section: frozen records without behaviour.

`config.load` is the only way to a `Settings` that came from a file. Names are those of the TOML keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, NewType, TypeAlias

from attrs import field, frozen

from notifyd.plugin import ChannelType
from notifyd.secrets import Secret

Duration = NewType("Duration", int)
"""Microseconds, written as a whole number and one of `ms s m h d`."""

Size = NewType("Size", int)
"""Bytes, written as a whole number and `KiB` or `MiB`."""

SealKey = NewType("SealKey", bytes)
"""32 bytes, written in standard base64. Never printed."""

Network: TypeAlias = IPv4Network | IPv6Network

_MINUTE = 60 * 1_000_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


@frozen
class Rate:
    """So many per so long, written `N/s`, `N/m`, `N/h`, or with a number before the unit, `100/1h`."""

    count: int
    per: Duration

    @property
    def per_second(self) -> float:
        return self.count * 1_000_000 / self.per


@frozen
class Backoff:
    """The first step and the ceiling of a retry schedule, written `1s..15m`."""

    first: Duration
    ceiling: Duration


class Scope(StrEnum):
    """What a client may do: ingest, decide, read, and operate (test, retry, purge)."""

    INGEST = "Notifier.Events:Write"
    APPROVE = "Packs.Approve"
    READ = "Notifier.Read"
    OPERATE = "Notifier.Operate"


class LinkMode(StrEnum):
    DECIDE = "decide"
    VIEW = "view"
    OFF = "off"


class ResumeTokenMode(StrEnum):
    SEALED = "sealed"
    PLAIN = "plain"


@frozen
class Listen:
    """Where to listen, written `host:port`; an IPv6 address in brackets. Port 0 picks a free one."""

    host: str
    port: int


LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@frozen
class Server:
    listen: Listen = Listen("127.0.0.1", 8686)
    node: str = ""  # the loader fills it: "<hostname>/<listen>"
    public_url: str = ""  # the loader fills it: "http://<listen>"
    max_body: Size = Size(256 * 1024)
    ip_allowlist: tuple[Network, ...] = LOOPBACK
    metrics_allowlist: tuple[Network, ...] = LOOPBACK
    trusted_proxies: tuple[Network, ...] = ()


@frozen
class StoreSettings:
    url: str = "sqlite:///./notifyd.db"
    timeout: Duration = Duration(2_000_000)


@frozen
class Client:
    """A program that may call. `token_hashes` are `sha256:<64 hex>` of its API tokens."""

    hmac_secrets: tuple[Secret, ...] = ()
    token_hashes: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = ()
    grants: tuple[str, ...] = ()
    act_as: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()


@frozen
class Auth:
    clock_tolerance: Duration = Duration(5 * _MINUTE)
    actors: Mapping[str, tuple[str, ...]] = field(factory=dict)
    clients: Mapping[str, Client] = field(factory=dict)


@frozen
class Keys:
    seal: tuple[SealKey, ...] = field(default=(), repr=False)


@frozen
class ChannelSettings:
    """One `[channels.NAME]`: the common options, and `config`, the type's own attrs record."""

    name: str
    type: ChannelType
    config: Any = field(repr=False)
    rate_limit: Rate | None = None
    concurrency: int = 4
    timeout: Duration = Duration(10_000_000)


@frozen
class QuietHours:
    """Local wall-clock times `HH:MM`; `from_` after `to` spans midnight."""

    from_: str
    to: str
    zone: str


@frozen
class Rule:
    name: str
    when: str
    channels: tuple[str, ...]
    to: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    template: str | None = None
    locale: str | None = None
    grants: tuple[str, ...] = (Scope.APPROVE.value,)
    stop: bool = False
    group_by: tuple[str, ...] = ()
    group_wait: Duration | None = None
    throttle: Rate | None = None
    quiet_hours: QuietHours | None = None


@frozen
class Recipient:
    locale: str | None = None
    zone: str | None = None


@frozen
class Dispatch:
    max_attempts: int = 12
    max_age: Duration = Duration(_DAY)
    backoff: Backoff = Backoff(Duration(1_000_000), Duration(15 * _MINUTE))
    lease: Duration = Duration(_MINUTE)
    clock_skew: Duration = Duration(5_000_000)
    max_backlog: int = 100_000


@frozen
class Resume:
    allowed_origins: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    max_age: Duration = Duration(7 * _DAY)


@frozen
class Egress:
    """Private addresses that may be called: networks, and host names whatever they resolve to."""

    allow_private: tuple[Network | str, ...] = ()


@frozen
class Templates:
    dirs: tuple[Path, ...] = ()
    default_locale: str = "en"


@frozen
class Approvals:
    links: LinkMode = LinkMode.DECIDE
    link_ttl: Duration = Duration(7 * _DAY)
    default_ttl: Duration = Duration(7 * _DAY)
    allow_self_approval: bool = False
    return_resume_token: ResumeTokenMode = ResumeTokenMode.SEALED


@frozen
class Retention:
    approvals: Duration = Duration(90 * _DAY)
    events: Duration = Duration(30 * _DAY)
    deliveries: Duration = Duration(30 * _DAY)
    incidents: Duration = Duration(90 * _DAY)
    audit: Duration = Duration(365 * _DAY)
    hold_label: str = ""


@frozen
class Settings:
    """A whole configuration. `rules` holds the shorthand of `[notifications]` too, as ordinary rules."""

    server: Server = Server()
    store: StoreSettings = StoreSettings()
    auth: Auth = Auth()
    keys: Keys = Keys()
    channels: Mapping[str, ChannelSettings] = field(factory=dict)
    rules: tuple[Rule, ...] = ()
    recipients: Mapping[str, Recipient] = field(factory=dict)
    notifications: Mapping[str, tuple[str, ...]] = field(factory=dict)
    dispatch: Dispatch = Dispatch()
    resume: Resume = Resume()
    egress: Egress = Egress()
    templates: Templates = Templates()
    approvals: Approvals = Approvals()
    retention: Retention = Retention()
