"""The egress guard: which addresses notifyd may call.

The address that is checked is the one a socket is opened for, after any look-up: a name that resolves to a
public address when it is looked at and to a private one when it is called (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from notifyd import __version__
from notifyd.config.settings import Network
from notifyd.post import exact_url

Address: TypeAlias = IPv4Address | IPv6Address

_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""What IANA gives out as global unicast of IPv6. What lies outside is local, translated, or not in use."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052

_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


class EgressRefusedError(OSError):
    """The address is not one that may be called."""

    egress_refused = True


def _effective(address: Address) -> Address:
    """The IPv4 address an IPv6 form stands for (mapped, 6to4, NAT64), or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    effective = _effective(address)
    unicast = isinstance(effective, IPv4Address) or effective in _UNICAST
    return unicast and effective.is_global and not effective.is_multicast


class Guard:
    """What `egress.allow_private` allows beside public addresses. Immutable."""

    def __init__(self, allow_private: Sequence[Network | str]) -> None:
        self._networks = tuple(n for n in allow_private if not isinstance(n, str))
        self._hosts = frozenset(n.lower().rstrip(".") for n in allow_private if isinstance(n, str))

    def allows_private(self, address: Address) -> bool:
        """Is this a private address that the operator named?"""
        candidates = (address, _effective(address))
        return any(a.version == n.version and a in n for a in candidates for n in self._networks)

    def allows(self, address: Address) -> bool:
        return is_public(address) or self.allows_private(address)

    def allows_host(self, host: str) -> bool:
        """May this name resolve to whatever it does?"""
        return host.lower().rstrip(".") in self._hosts

    def may_call(self, address: Address, host: str, *, private_only: bool = False) -> bool:
        """May a socket be opened to `address`, which `host` resolved to?"""
        public = is_public(address)
        private = self.allows_private(address) or (not public and self.allows_host(host))
        return private or (public and not private_only)


_host: ContextVar[str] = ContextVar("_host", default="")
"""The host of the request that a socket is being opened for."""


class _Connector(aiohttp.TCPConnector):
    """Tells what opens its sockets for which host that is: a middleware would cost every request more."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        token = _host.set(req.url.raw_host or "")
        try:
            return await super().connect(req, traces, timeout)
        finally:
            _host.reset(token)


# aiohttp would name its own and Python's version, and ask for what the decompressors installed beside it can read.
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"notifyd/{__version__}"}


def open_session(
    guard: Guard,
    *,
    private_only: bool = False,
    limit: int = 100,
    timeout: float = 60.0,
    tls: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """A client session that opens sockets to allowed addresses only; it keeps connections and no cookies.

    `private_only` leaves public addresses out: for what must not cross the open network in clear. A refusal is
    an `EgressRefusedError` in the chain of aiohttp's own connection error. `timeout` in seconds, for a request.
    `tls` says whom to trust; without it, the system's authorities.
    """

    def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = info
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if not guard.may_call(address, _host.get(), private_only=private_only):
            raise EgressRefusedError("the address is not public and egress.allow_private does not name it")
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = _Connector(
        limit=limit, resolver=resolver, socket_factory=open_socket, keepalive_timeout=30, ssl=tls or True
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers=_HEADERS,
        auto_decompress=True,  # for servers that compress unasked
        trust_env=False,
    )


def origin_of(url: str) -> str:
    """`scheme://host[:port]`, the port only where it is not the scheme's own. Raises ValueError."""
    return str(exact_url(url).origin())


def callback_fault(text: str, allowed_origins: Sequence[str], guard: Guard) -> str | None:
    """What is wrong with a callback URL, found without any look-up; None where nothing is.

    Checked: that it parses, its scheme, no userinfo, the exact origin, and an address that stands in it.
    """
    # Browsers and some clients take a backslash for a slash, and so another host than yarl's: no URL needs one.
    if not text.isprintable() or " " in text or "\\" in text:
        return "must not hold spaces, backslashes or control characters"
    try:
        url = exact_url(text)
    except ValueError:
        return "must be an absolute http or https URL"
    origin = str(url.origin())
    if url.user is not None or url.password is not None:
        return "must not carry a user name or password"
    if origin not in _origins(tuple(allowed_origins)):
        return f"its origin {origin} is not one of resume.allowed_origins"
    return _address_fault(url.scheme, url.host or "", guard)


@lru_cache(maxsize=8)
def _origins(allowed: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(origin_of, allowed))


def literal_fault(url: str, guard: Guard) -> str | None:
    """Why no request to `url` could be sent, where that is known without a look-up; None where it is not.

    Raises ValueError for what is not a URL.
    """
    host = exact_url(url).host or ""
    address = _literal(host)
    if address is None or guard.may_call(address, host):
        return None
    return "its address is not public and egress.allow_private does not name it"


def _literal(host: str) -> Address | None:
    """The address that is a URL's host, in any form that a resolver takes; `localhost` is one too (RFC 6761)."""
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    if host.rstrip(".").rpartition(".")[2].lower() == "localhost":
        return IPv4Address("127.0.0.1")
    with suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None


@lru_cache(maxsize=1024)
def _address_fault(scheme: str, host: str, guard: Guard) -> str | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A resolver reads 0177.0.0.1, 0x7f.1 and 2130706433 as addresses, and no name ends in a number.
        number = _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])
        # A name: the address it resolves to is checked when it is called.
        return "its address must be written as four decimal numbers" if number else None
    if scheme == "http" and not guard.allows_private(address):
        return "plain http is allowed to an address that egress.allow_private names only"
    if not guard.allows(address):
        return "its address is not public and egress.allow_private does not name it"
    return None
