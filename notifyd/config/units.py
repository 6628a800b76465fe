"""The typed values a configuration is made of, and how each is written as text: parsed and shown again.

A parser raises ValueError with a sentence for the operator. The sentence never repeats the value, which may
be a secret put into the wrong place.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NewType, Self, TypeAlias
from zoneinfo import ZoneInfo

from attrs import field, frozen
from babel import Locale, UnknownLocaleError

from notifyd.config.windows import Window
from notifyd.hosts import ascii_host
from notifyd.mailbox import mailbox
from notifyd.model import Duration as Duration
from notifyd.model import Size as Size
from notifyd.security import certificates
from notifyd.security.jwt import KeySet
from notifyd.security.names import canonical_name
from notifyd.security.oidc import parse_address
from notifyd.security.secrets import HIDDEN, Secret
from notifyd.security.signing import secret_bytes, signing_key
from notifyd.trust import CaFile

SealKey = NewType("SealKey", bytes)
"""32 bytes, written in standard base64. Never printed."""


@frozen
class KeySource:
    """A JSON Web Key Set: an https address, or a file, with the keys that it held when the configuration was read.

    `keys` is None for an address.
    """

    at: str
    keys: KeySet | None = field(default=None, repr=False)

    @classmethod
    def read(cls, text: str, base: Path) -> Self:
        """Raises ValueError where the address is no https, or the file no key set."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            return cls(parse_key_address(text))
        path = base / Path(text).expanduser()
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise ValueError("is not a file")
            return cls(str(path), KeySet.parse(path.read_bytes()))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None


Network: TypeAlias = IPv4Network | IPv6Network

MILLISECOND: Final = Duration(1_000)
SECOND: Final = Duration(1_000_000)
MINUTE: Final = Duration(60 * SECOND)
HOUR: Final = Duration(60 * MINUTE)
DAY: Final = Duration(24 * HOUR)

DURATIONS: Final[Mapping[str, Duration]] = MappingProxyType(
    {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}
)
SIZES: Final[Mapping[str, Size]] = MappingProxyType({"MiB": Size(1024 * 1024), "KiB": Size(1024)})
LONGEST: Final = Duration(36_500 * DAY)
LARGEST: Final = Size(1024 * SIZES["MiB"])


@frozen
class Rate:
    """So many per so long, written `N/s`, `N/m`, `N/h`, or with a number before the unit, `100/1h`."""

    count: int
    per: Duration

    @property
    def per_second(self) -> float:
        return self.count * SECOND / self.per


@frozen
class Moment:
    """A time in the life of an approval: `2h` after it was asked for, or `30m before expiry`."""

    span: Duration
    before_expiry: bool = False


@frozen
class Backoff:
    """The first step and the ceiling of a retry schedule, written `1s..15m`."""

    first: Duration
    ceiling: Duration


@frozen
class Listen:
    """Where to listen, written `host:port`; an IPv6 address in brackets. Port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def everywhere(self) -> bool:
        """Is this every address of the machine, and so none that a link could name?"""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


# --- constraints, put on a field by `Annotated` -------------------------------------------------------------


@frozen
class Text:
    """`Annotated[str, Text(parse)]`: a string that `parse` takes, in the form it gives back."""

    parse: Callable[[str], str]


def parse_signing_secret(secret: Secret) -> Secret:
    secret_bytes(secret)
    return secret


def parse_signing_key(secret: Secret) -> Secret:
    signing_key(secret)
    return secret


@frozen
class Signing:
    """`Annotated[Secret, Signing()]`: a secret written `whsec_<base64>`; or as another `parse` takes it."""

    parse: Callable[[Secret], Secret] = parse_signing_secret


@frozen
class Bounds:
    """`Annotated[int, Bounds(low, high)]`, and the same for `Duration` and `Size`; both ends are allowed."""

    low: int
    high: int

    def check(self, value: int, show: Callable[[Any], str] = str) -> None:
        """Raises ValueError where `value` lies outside; `show` writes the bounds as the operator would."""
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {show(self.low)} to {show(self.high)}")


# --- durations, sizes, rates ------------------------------------------------------------------------------

_DURATION: Final = re.compile(r"(\d{1,15})(ms|s|m|h|d)", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12})(KiB|MiB)", re.ASCII)
_RATE: Final = re.compile(r"(\d{1,9})/(\d{0,9})(s|m|h)", re.ASCII)


def parse_duration(text: str) -> Duration:
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError('must be a duration, a whole number and one of ms s m h d, such as "30s"')
    value = Duration(int(found[1]) * DURATIONS[found[2]])
    if value > LONGEST:
        raise ValueError(f"must be at most {show_duration(LONGEST)}")
    return value


def show_duration(value: Duration) -> str:
    """In the largest unit that divides it."""
    unit = next(u for u in DURATIONS if value % DURATIONS[u] == 0) if value else "s"
    return f"{value // DURATIONS[unit]}{unit}"


_BEFORE_EXPIRY: Final = " before expiry"


def parse_moment(text: str) -> Moment:
    try:
        moment = Moment(parse_duration(text.removesuffix(_BEFORE_EXPIRY)), text.endswith(_BEFORE_EXPIRY))
    except ValueError:
        raise ValueError(
            'must be a duration after the request, such as "2h", or "30m before expiry"'
        ) from None
    if not moment.span:
        raise ValueError("must be above zero")
    return moment


def show_moment(moment: Moment) -> str:
    return show_duration(moment.span) + (_BEFORE_EXPIRY if moment.before_expiry else "")


def parse_size(text: str) -> Size:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError('must be a size, a whole number and KiB or MiB, such as "256KiB"')
    value = Size(int(found[1]) * SIZES[found[2]])
    if value > LARGEST:
        raise ValueError(f"must be at most {show_size(LARGEST)}")
    return value


def show_size(value: Size) -> str:
    unit = next(u for u in SIZES if u == "KiB" or (value and value % SIZES[u] == 0))
    return f"{value // SIZES[unit]}{unit}"


def parse_rate(text: str) -> Rate:
    found = _RATE.fullmatch(text)
    if not found:
        raise ValueError('must be a rate, such as "1/s", "30/m" or "100/1h"')
    count, per = int(found[1]), Duration(int(found[2] or 1) * DURATIONS[found[3]])
    if count < 1 or not SECOND <= per <= 366 * DAY:
        raise ValueError("must be at least one per some time, of a year at most")
    return Rate(count, per)


def show_rate(rate: Rate) -> str:
    unit = next((u for u in "hms" if DURATIONS[u] == rate.per), None)
    return f"{rate.count}/{unit or _show_period(rate.per)}"


def _show_period(per: Duration) -> str:
    unit = next(u for u in "hms" if per % DURATIONS[u] == 0)
    return f"{per // DURATIONS[unit]}{unit}"


def parse_backoff(text: str) -> Backoff:
    first, dots, ceiling = text.partition("..")
    if not dots:
        raise ValueError('must be the first step and the ceiling of the waits, such as "1s..15m"')
    backoff = Backoff(parse_duration(first), parse_duration(ceiling))
    if not 0 < backoff.first <= backoff.ceiling:
        raise ValueError("the first step must be above zero and not above the ceiling")
    return backoff


def show_backoff(backoff: Backoff) -> str:
    return f"{show_duration(backoff.first)}..{show_duration(backoff.ceiling)}"


# --- where things are -------------------------------------------------------------------------------------

_LISTEN: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:\s]+)):(\d{1,5})", re.ASCII)
_SQLITE: Final = re.compile(r"sqlite:///[^?#]+")
_MONGODB: Final = re.compile(r"(mongodb(?:\+srv)?://(?:[^/\s]*@)?)([^/?@\s]+)((?:/\S*)?)")
_DEFAULT_PORTS: Final = MappingProxyType({"http": 80, "https": 443})


def parse_listen(text: str) -> Listen:
    found = _LISTEN.fullmatch(text)
    if not found or int(found[3]) > 65535:
        raise ValueError('must be host:port, such as "127.0.0.1:8686" or "[::1]:8686"')
    if found[1]:
        return Listen(_ipv6(found[1]), int(found[3]))
    return Listen(
        _host(found[2], "the part before the port must be an address or a host name"), int(found[3])
    )


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError("what stands in brackets must be an IPv6 address") from None


def parse_network(text: str) -> Network:
    try:
        wide = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError('must be an IP network, such as "10.0.0.0/8" or "::1/128"') from None
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f'has bits set beyond its prefix: write "{wide}"') from None


def parse_network_or_host(text: str) -> Network | str:
    """A network, or a host name in its ASCII form."""
    if "/" in text or ":" in text or re.fullmatch("[0-9.]+", text):
        return parse_network(text)
    return _host(text, "must be an IP network or a host name")


def parse_origin(text: str) -> str:
    """`scheme://host[:port]` in lower case and ASCII, without the scheme's own port (RFC 6454, section 6.2)."""
    origin, rest = _split_origin(text)
    if rest:
        raise ValueError("must be scheme://host or scheme://host:port and nothing more")
    return origin


def parse_public_url(text: str) -> str:
    """An http or https address without query and fragment; a slash at its end is dropped."""
    origin, rest = _split_origin(text)
    if not re.fullmatch(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?", rest):
        raise ValueError("must not have a query, a fragment or characters that a path cannot hold")
    return (origin + rest).rstrip("/")


def parse_key_address(text: str) -> str:
    """An https address without userinfo and fragment."""
    origin, rest = _split_origin(text)
    if not origin.startswith("https:") or "#" in rest or not rest.isprintable() or " " in rest:
        raise ValueError("must be an https address without a fragment, or a file")
    return origin + rest


def parse_issuer(text: str) -> str:
    """An OpenID provider's issuer, as its tokens say it: https, or http on this machine, without a query."""
    if "?" in parse_address(text):
        raise ValueError("must not have a query")
    return text


def _split_origin(text: str) -> tuple[str, str]:
    """The origin in its normal form, and all that follows it."""
    found = re.fullmatch(
        r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::(\d{1,5}))?([/?#].*)?", text, re.I | re.A
    )
    if not found:
        raise ValueError('must be an http or https address, such as "https://runner.acme.example"')
    scheme, host, port = found[1].lower(), found[2], int(found[3] or 0)
    if host.startswith("["):
        host = f"[{_ipv6(host[1:-1])}]"
    else:
        host = _host(host, "its host is neither an address nor a host name")
    if found[3] and not 0 < port <= 65535:
        raise ValueError("its port must be from 1 to 65535")
    suffix = f":{port}" if port and port != _DEFAULT_PORTS[scheme] else ""
    return f"{scheme}://{host}{suffix}", found[4] or ""


def parse_store_url(text: str) -> str:
    """The URL as it is, but for the hosts of a MongoDB, which a driver would read by an older IDNA."""
    found = _MONGODB.fullmatch(text)
    if not found and not _SQLITE.fullmatch(text):
        raise ValueError('must be "sqlite:///PATH" or "mongodb://HOST/DATABASE"')
    return found[1] + ",".join(map(_member, found[2].split(","))) + found[3] if found else text


def _member(text: str) -> str:
    """One `host[:port]` of a replica set."""
    host, colon, port = text.partition(":")
    return text if text.isascii() else f"{_host(host, 'names a host that is no host name')}{colon}{port}"


def _host(text: str, fault: str) -> str:
    try:
        return ascii_host(text)
    except ValueError:
        raise ValueError(fault) from None


def url_password(url: str) -> str:
    """The password in a URL's authority, "" where it has none."""
    found = re.match(r"[a-z][a-z0-9+.-]*://[^/@:]*:([^/]*)@", url, re.I)
    return found[1] if found else ""


def hide_password(url: str) -> str:
    """`url` with `***` for its password."""
    password = url_password(url)
    return url.replace(f":{password}@", f":{HIDDEN}@") if password else url


# --- secrets and keys -------------------------------------------------------------------------------------


def parse_seal_key(text: str) -> SealKey:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be 32 bytes in standard base64") from None
    if len(key) != 32:
        raise ValueError(f"must be 32 bytes in standard base64, these are {len(key)}")
    return SealKey(key)


def parse_token_hash(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", text):
        raise ValueError('must be "sha256:" and the 64 hexadecimal digits of the token\'s SHA-256')
    return text.lower()


def parse_certificate_name(text: str) -> str:
    certificates.wanted(parse_line(text))
    return text


# --- names ------------------------------------------------------------------------------------------------

CHANNEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_IDENTIFIER: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:@+-]{1,200}")
_TEMPLATE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _matching(pattern: re.Pattern[str], sentence: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(sentence)
        return text

    return parse


parse_name = _matching(_NAME, "must be 1 to 100 of the characters A-Z a-z 0-9 . _ -")
parse_channel_name = _matching(
    CHANNEL_NAME, "must be 1 to 63 of the characters a-z 0-9 _ - and begin with a letter or a digit"
)
parse_identifier = _matching(
    _IDENTIFIER, "must be 1 to 200 of the characters A-Z a-z 0-9 . _ : @ + - and not dots alone"
)
parse_template = _matching(_TEMPLATE, "must be 1 to 100 of the characters a-z 0-9 _ -")
parse_event_path = _matching(_PATH, 'must be a path into the event, such as "runId" or "labels.environment"')
parse_time = _matching(_TIME, 'must be a time of day, such as "22:00"')


def parse_line(text: str) -> str:
    """One line of text that shows something: a person, an address, a grant."""
    if not text.strip() or text != text.strip() or len(text) > 1000 or _UNPRINTABLE.search(text):
        raise ValueError("must be one line of text, not empty, without spaces around it")
    return text


def parse_person(text: str) -> str:
    """The mailbox of one person, perhaps with a name: `Alice <alice@acme.example>`."""
    mailbox(parse_line(text))
    canonical_name(text)
    return text


def parse_label(text: str) -> str:
    """`key` or `key=value`, or nothing."""
    if text.startswith("="):
        raise ValueError('must be a label, "key" or "key=value"')
    return parse_line(text) if text else text


def parse_locale(text: str) -> str:
    """A BCP 47 tag that CLDR knows, in its usual capitals."""
    try:
        if not _LOCALE.fullmatch(text):
            raise ValueError
        return str(Locale.parse(text, sep="-")).replace("_", "-")
    except (ValueError, UnknownLocaleError):
        raise ValueError('must be a locale, such as "en" or "de-CH"') from None


def parse_when(text: str) -> str:
    if not text.strip():
        raise ValueError('must be a CEL expression; "true" matches every event')
    return text


def parse_zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (KeyError, ValueError, OSError):
        raise ValueError('must be a time zone, such as "Europe/Zurich"') from None


def show(value: object) -> object:
    """A typed value as a configuration writes it, everything else as it is. Durations and sizes are plain
    integers at run time, so their type must be known: `show_duration`, `show_size`."""
    match value:
        case Rate():
            return show_rate(value)
        case Backoff():
            return show_backoff(value)
        case CaFile():
            return str(value.path)
        case KeySource():
            return value.at
        case Moment():
            return show_moment(value)
        case Window():
            return value.text
        case Listen() | IPv4Network() | IPv6Network() | StrEnum():
            return str(value)
        case _:
            return value
