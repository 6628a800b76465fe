"""The egress guard: which addresses notifyd may call.

The address that is checked is the one a socket is opened for, after any look-up: a name that resolves to a
public address when it is looked at and to a private one when it is called (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from notifyd.settings import Network

Address: TypeAlias = IPv4Address | IPv6Address

_CGNAT: Final = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598: shared, neither private nor global


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
    if address in ipaddress.ip_network("64:ff9b::/96"):  # RFC 6052
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    effective = _effective(address)
    return effective.is_global and not effective.is_multicast


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


class _NamedHosts(AbstractResolver):
    """Resolves as usual, and remembers the addresses of hosts that the operator named."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = DefaultResolver()
        self.addresses: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if self._guard.allows_host(host):
            self.addresses.update(entry["host"] for entry in found)
        return found

    async def close(self) -> None:
        await self._inner.close()


def open_session(
    guard: Guard, *, private_only: bool = False, limit: int = 100, timeout: float = 60.0
) -> aiohttp.ClientSession:
    """A client session that opens sockets to allowed addresses only; it keeps connections and no cookies.

    `private_only` leaves public addresses out: for what must not cross the open network in clear. A refusal is
    an `EgressRefusedError` in the chain of aiohttp's own connection error. `timeout` in seconds, for a request.
    """
    resolver = _NamedHosts(guard)

    def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = info
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        private = guard.allows_private(address) or str(where[0]) in resolver.addresses
        if not private and (private_only or not is_public(address)):
            raise EgressRefusedError("the address is not public and egress.allow_private does not name it")
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(
        limit=limit, resolver=resolver, socket_factory=open_socket, keepalive_timeout=30
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
        auto_decompress=True,
        trust_env=False,
    )


def origin_of(url: URL) -> str:
    """`scheme://host[:port]`, the port only where it is not the scheme's own."""
    return str(url.origin())


def callback_fault(text: str, allowed_origins: Sequence[str], guard: Guard) -> str | None:
    """What is wrong with a callback URL, found without any look-up; None where nothing is.

    Checked: that it parses, its scheme, no userinfo, no fragment, a literal address, and the exact origin.
    """
    try:
        url = URL(text)
        origin = origin_of(url)
    except ValueError:
        return "must be an absolute http or https URL"
    if url.scheme not in ("http", "https"):
        return "must be an https URL, or http to an allowed private address"
    if url.user is not None or url.password is not None:
        return "must not carry a user name or password"
    if origin not in {origin_of(URL(allowed)) for allowed in allowed_origins}:
        return f"its origin {origin} is not one of resume.allowed_origins"
    try:
        address = ipaddress.ip_address(url.host or "")
    except ValueError:
        return None  # a name: the address it resolves to is checked when it is called
    if url.scheme == "http" and not guard.allows_private(address):
        return "plain http is allowed to an address that egress.allow_private names only"
    return (
        None
        if guard.allows(address)
        else "its address is not public and egress.allow_private does not name it"
    )
