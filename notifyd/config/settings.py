"""The shape of a configuration, section by section: frozen records without behaviour.

`load.load` is the only way to a `Settings` that came from a file. Names are those of the TOML keys. What an
`Annotated` field says beside its type is held by the loader alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from attrs import field, frozen
from attrs.validators import optional

from notifyd.config import units
from notifyd.config.units import (
    DAY,
    HOUR,
    LARGEST,
    LONGEST,
    MILLISECOND,
    MINUTE,
    SECOND,
    SIZES,
    Backoff,
    Bounds,
    Duration,
    KeySource,
    Listen,
    Moment,
    Network,
    Rate,
    SealKey,
    Signing,
    Size,
    Text,
)
from notifyd.config.windows import Window
from notifyd.model import Choice
from notifyd.plugin import ChannelType
from notifyd.post import http_url
from notifyd.security.secrets import Secret
from notifyd.trust import CaFile

__all__ = [
    "COMMON_OPTIONS",
    "LOOPBACK",
    "Approvals",
    "Auth",
    "Backoff",
    "ChannelSettings",
    "Client",
    "Console",
    "Dispatch",
    "Drill",
    "Duration",
    "Egress",
    "Escalation",
    "Jwt",
    "KeySource",
    "Keys",
    "LinkMode",
    "Listen",
    "Moment",
    "Network",
    "Oidc",
    "Operator",
    "Proof",
    "QuietHours",
    "Rate",
    "Recipient",
    "Resume",
    "ResumeTokenMode",
    "Retention",
    "Rule",
    "Scope",
    "SealKey",
    "Server",
    "Settings",
    "Size",
    "StoreDriver",
    "StoreSettings",
    "Templates",
    "Tls",
]

Span: TypeAlias = Annotated[Duration, Bounds(MILLISECOND, LONGEST)]
"""A duration that zero would make senseless."""

SigningSecret: TypeAlias = Annotated[Secret, Signing()]
SigningKey: TypeAlias = Annotated[Secret, Signing(units.parse_signing_key)]
Line: TypeAlias = Annotated[str, Text(units.parse_line)]
Locale: TypeAlias = Annotated[str, Text(units.parse_locale)]
Zone: TypeAlias = Annotated[str, Text(units.parse_zone)]
TimeOfDay: TypeAlias = Annotated[str, Text(units.parse_time)]


class Scope(StrEnum):
    """What a client may do: ingest, decide, read, and operate (test, retry, purge)."""

    INGEST = "Notifier.Events:Write"
    APPROVE = "Packs.Approve"
    BREAK_GLASS = "Packs.BreakGlass"
    READ = "Notifier.Read"
    OPERATE = "Notifier.Operate"


class LinkMode(StrEnum):
    DECIDE = "decide"
    VIEW = "view"
    OFF = "off"


class Proof(StrEnum):
    """What shows that whoever decides by a link is its recipient: having the link, or a sign-in beside it."""

    LINK = "link"
    SIGN_IN = "sign-in"


class ResumeTokenMode(StrEnum):
    SEALED = "sealed"
    PLAIN = "plain"


class StoreDriver(StrEnum):
    """The package that speaks with MongoDB: PyMongo's own asynchronous client, or motor (ended in May 2026)."""

    PYMONGO = "pymongo"
    MOTOR = "motor"


@frozen
class Tls:
    """HTTPS. `cert` and `key` are PEM files; a `cert` that holds the key too needs no `key`.

    `client_ca` are the authorities whose certificates prove clients.
    """

    cert: Path | None = None
    key: Path | None = None
    client_ca: CaFile | None = None


LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@frozen
class Server:
    listen: Listen = Listen("127.0.0.1", 8686)
    node: Line = ""  # the loader fills it: "<hostname>/<listen>"
    public_url: Annotated[str, Text(units.parse_public_url)] = ""  # the loader fills it: "http://<listen>"
    max_body: Annotated[Size, Bounds(SIZES["KiB"], 64 * SIZES["MiB"])] = Size(256 * 1024)
    ip_allowlist: tuple[Network, ...] = LOOPBACK
    metrics_allowlist: tuple[Network, ...] = LOOPBACK
    trusted_proxies: tuple[Network, ...] = ()
    max_connections: Annotated[int, Bounds(1, 1_000_000)] = 2000
    max_connections_per_client: Annotated[int, Bounds(1, 1_000_000)] = 256
    max_requests_per_client: Annotated[int, Bounds(1, 1_000_000)] = 256
    tls: Tls = Tls()


@frozen
class StoreSettings:
    url: Annotated[str, Text(units.parse_store_url)] = field(
        default="sqlite:///./notifyd.db", repr=units.hide_password
    )
    create: bool = True  # make an empty store where there is none
    timeout: Span = Duration(2 * SECOND)
    driver: StoreDriver = StoreDriver.PYMONGO  # for MongoDB


@frozen
class Client:
    """A program that may call. `token_hashes` are `sha256:<64 hex>` of its API tokens.

    `certificate_names` are DNS names, URIs or mail addresses of its certificates. `shares` names clients that may
    open rounds of its approvals, and end them.
    """

    hmac_secrets: tuple[SigningSecret, ...] = ()
    certificate_names: tuple[Annotated[str, Text(units.parse_certificate_name)], ...] = ()
    token_hashes: tuple[Annotated[str, Text(units.parse_token_hash)], ...] = ()
    scopes: tuple[Scope, ...] = ()
    grants: tuple[Line, ...] = ()
    act_as: tuple[Line, ...] = ()
    tenants: tuple[Annotated[str, Text(units.parse_identifier)], ...] = ()
    shares: tuple[str, ...] = ()


@frozen
class Jwt:
    """Tokens of one issuer as bearers. `jwks` is where its public keys are."""

    issuer: Line
    audience: Line
    jwks: KeySource
    tenant_claim: Line = "tenant"
    grants_claim: Line = "grants"
    actor_claim: Line = "sub"


@frozen
class Oidc:
    """The OpenID provider that approvers sign in at. `actor_claim` names the person in its ID tokens."""

    issuer: Annotated[str, Text(units.parse_issuer)]
    client_id: Line
    client_secret: Secret
    actor_claim: Line = "email"


@frozen
class Auth:
    clock_tolerance: Annotated[Duration, Bounds(SECOND, DAY)] = Duration(5 * MINUTE)
    actors: Mapping[str, tuple[Line, ...]] = field(factory=dict)
    clients: Mapping[str, Client] = field(factory=dict)
    jwt: Jwt | None = None
    oidc: Oidc | None = None


@frozen
class Keys:
    seal: tuple[SealKey, ...] = field(default=(), repr=False)
    sign: tuple[SigningKey, ...] = ()


COMMON_OPTIONS: Final = ("rate_limit", "concurrency", "timeout")
"""What every channel takes beside `type` and its type's own options."""


def common_options(kind: ChannelType) -> tuple[str, ...]:
    """The same for the channels of a type: a gate takes `tenant` too."""
    return ("tenant", *COMMON_OPTIONS) if kind.gate else COMMON_OPTIONS


@frozen
class ChannelSettings:
    """One `[channels.NAME]`: the common options, and `config`, the type's own attrs record.

    `tenant` is whose approvals a gate asks for; "" for what is no gate.
    """

    name: str
    type: ChannelType
    config: Any = field(repr=False)
    rate_limit: Rate | None = None
    concurrency: Annotated[int, Bounds(1, 1000)] = 4
    timeout: Annotated[Duration, Bounds(MILLISECOND, HOUR)] = Duration(10 * SECOND)
    tenant: Annotated[str, Text(units.parse_identifier)] = ""

    @property
    def personal(self) -> bool:
        """Does each of its messages reach one named person?"""
        return self._holds(self.type.personal)

    @property
    def answers(self) -> bool:
        """Can people decide by its messages?"""
        return self._holds(self.type.answers)

    def _holds(self, told: bool | Callable[[Any], bool]) -> bool:
        return bool(told(self.config)) if callable(told) else told


@frozen
class QuietHours:
    """Local wall-clock times `HH:MM`; `from_` after `to` spans midnight."""

    from_: TimeOfDay
    to: TimeOfDay
    zone: Zone


@frozen
class Escalation:
    """Who else is asked once an approval has waited for so long."""

    after: Span
    channels: tuple[str, ...]
    to: tuple[Annotated[str, Text(units.parse_person)], ...] = ()


@frozen
class Rule:
    name: Annotated[str, Text(units.parse_name)]
    when: Annotated[str, Text(units.parse_when)]
    channels: tuple[str, ...]
    to: tuple[Annotated[str, Text(units.parse_person)], ...] = ()
    lists: tuple[Line, ...] = ()
    template: Annotated[str, Text(units.parse_template)] | None = None
    locale: Locale | None = None
    grants: tuple[Line, ...] = (Scope.APPROVE.value,)
    proof: Proof | None = None  # None: that of [approvals]
    stop: bool = False
    group_by: tuple[Annotated[str, Text(units.parse_event_path)], ...] = ()
    group_wait: Span | None = None
    throttle: Rate | None = None
    quiet_hours: QuietHours | None = None
    window: Window | None = None
    require_reason: tuple[Choice, ...] | None = None
    remind: tuple[Moment, ...] = ()
    escalate: tuple[Escalation, ...] = ()

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody whom it asks, at once or by an escalation, as the file names them."""
        return (*self.to, *(name for step in self.escalate for name in step.to))


@frozen
class Deputy:
    """Who stands in for a person, from the first day to the last, both included, in that person's zone."""

    to: Annotated[str, Text(units.parse_person)]
    from_: date
    until: date


@frozen
class Recipient:
    """How one person, named as in `to`, likes to read, and who decides for them while they are away.

    `addresses` are where they are, by the type of a channel; without one their name is their address.
    """

    locale: Locale | None = None
    zone: Zone | None = None
    addresses: Mapping[str, Line] = field(factory=dict)
    deputy: Deputy | None = None


@frozen
class Dispatch:
    max_attempts: Annotated[int, Bounds(1, 1000)] = 12
    max_age: Span = DAY
    backoff: Backoff = Backoff(SECOND, Duration(15 * MINUTE))
    lease: Span = MINUTE
    clock_skew: Annotated[Duration, Bounds(0, HOUR)] = Duration(5 * SECOND)
    max_backlog: Annotated[int, Bounds(1, 100_000_000)] = 100_000
    memory: Annotated[Size, Bounds(SIZES["MiB"], LARGEST)] = Size(256 * SIZES["MiB"])


@frozen
class Resume:
    """`forwarders` are sent every end of an approval too, each by a type of its own."""

    allowed_origins: tuple[Annotated[str, Text(units.parse_origin)], ...] = ()
    secrets: tuple[SigningSecret, ...] = ()
    max_age: Span = Duration(7 * DAY)
    forwarders: Mapping[str, ChannelSettings] = field(factory=dict)


@frozen
class Egress:
    """`allow_private` are private addresses that may be called: networks, and host names whatever they resolve to.

    `tls_ca` are authorities that are trusted for every HTTPS call, beside the system's.
    """

    allow_private: tuple[Network | str, ...] = ()
    tls_ca: CaFile | None = None


@frozen
class Heartbeat:
    """`url` is called once in each `interval` while all is well; without it nobody is."""

    url: Secret | None = field(default=None, validator=optional(http_url))
    interval: Annotated[Duration, Bounds(SECOND, DAY)] = Duration(60 * SECOND)


@frozen
class Operator:
    """A person who may sign in to the console, at [auth.oidc]: with which scopes, for which tenants."""

    scopes: tuple[Scope, ...] = (Scope.READ,)
    tenants: tuple[Annotated[str, Text(units.parse_identifier)], ...] = ()


@frozen
class Console:
    """The pages at /console. `operators` are by their names; a client's API token signs in too."""

    enabled: bool = False
    operators: Mapping[str, Operator] = field(factory=dict)


@frozen
class Drill:
    """`channels` are sent a test message once in each `interval`; `to` is who gets it where they reach people."""

    channels: tuple[str, ...] = ()
    interval: Annotated[Duration, Bounds(MINUTE, LONGEST)] = Duration(DAY)
    to: Annotated[str, Text(units.parse_person)] | None = None


@frozen
class Templates:
    dirs: tuple[Path, ...] = ()
    default_locale: Locale = "en"


@frozen
class Approvals:
    links: LinkMode = LinkMode.DECIDE
    proof: Proof = Proof.LINK
    link_ttl: Span = Duration(7 * DAY)
    default_ttl: Span = Duration(7 * DAY)
    allow_self_approval: bool = False
    return_resume_token: ResumeTokenMode = ResumeTokenMode.SEALED
    require_reason: tuple[Choice, ...] = (Choice.REJECTED,)
    undo: Annotated[Duration, Bounds(0, HOUR)] = Duration(0)
    breakglass_to: tuple[Annotated[str, Text(units.parse_person)], ...] = ()


@frozen
class Retention:
    approvals: Span = Duration(90 * DAY)
    events: Span = Duration(30 * DAY)
    deliveries: Span = Duration(30 * DAY)
    incidents: Span = Duration(90 * DAY)
    audit: Span = Duration(365 * DAY)
    hold_label: Annotated[str, Text(units.parse_label)] = ""


@frozen
class Settings:
    """A whole configuration. `rules` holds the shorthand of `[notifications]` too, as ordinary rules.

    `plugins` are the records of plugins themselves, by their names.
    """

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
    heartbeat: Heartbeat = Heartbeat()
    console: Console = Console()
    drill: Drill = Drill()
    templates: Templates = Templates()
    approvals: Approvals = Approvals()
    retention: Retention = Retention()
    plugins: Mapping[str, Any] = field(factory=dict)
