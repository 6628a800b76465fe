"""From which addresses a request may come, and which address it came from behind proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from aiohttp import web

from notifyd.config.settings import Network, Server
from notifyd.web.problems import AddressNotAllowedError

Address: TypeAlias = IPv4Address | IPv6Address

_FORWARDING: Final = ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via")


@lru_cache(maxsize=4096)
def parse(text: str) -> Address | None:
    """The address in `text`, an IPv4 address written as IPv6 as what it is; None where there is none."""
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Gate:
    """One `[server]` section's allowlists and proxies, with the verdicts on recent addresses kept."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._machine = lru_cache(maxsize=4096)(_text_within(server.ip_allowlist))
        self._metrics = lru_cache(maxsize=4096)(_text_within(server.metrics_allowlist))
        self._trusted = lru_cache(maxsize=4096)(_within(server.trusted_proxies))

    def caller(self, request: web.BaseRequest) -> Address | None:
        """Who called: the peer, or, where that is a trusted proxy, the nearest hop that is not.

        Hops further away were written by whoever called, and prove nothing. None where it is not an IP address.
        """
        peer = parse(request.remote or "")
        if not self.is_proxy(peer):
            return peer
        hops = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        return self._nearest_stranger([peer, *(parse(hop) for hop in hops if hop.strip())])

    def caller_text(self, request: web.BaseRequest) -> str:
        """What `parse` reads as `caller`. A text is hashed once, an address each time that it is looked up."""
        if self.server.trusted_proxies and self.from_proxy(request):
            return str(self.caller(request))
        return request.remote or ""

    def from_proxy(self, request: web.BaseRequest) -> bool:
        """Is the peer a trusted proxy, which calls for somebody else?"""
        return bool(self.server.trusted_proxies) and self.is_proxy(parse(request.remote or ""))

    def is_proxy(self, address: Address | None) -> bool:
        return bool(self.server.trusted_proxies) and self._trusted(address)

    def _nearest_stranger(self, hops: Sequence[Address | None]) -> Address | None:
        forwarded = hops[1:] or hops
        return next((hop for hop in reversed(forwarded) if not self._trusted(hop)), forwarded[0])

    def admit(self, caller: str, *, metrics: bool = False) -> None:
        """`caller` is what `caller_text` gives. Raises `AddressNotAllowedError`."""
        if not (self._metrics if metrics else self._machine)(caller):
            known = parse(caller) or "an unknown address"
            raise AddressNotAllowedError(f"calls from {known} are not allowed here")

    def private(self, request: web.BaseRequest) -> bool:
        """Can nobody read the answer on its way: TLS as far as it is known, or loopback?"""
        peer = parse(request.remote or "")
        if self.from_proxy(request):
            # Entries further to the left were written by whoever called the proxy, and prove nothing.
            own = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2]
            return own.strip().lower() == "https"
        unforwarded = not any(name in request.headers for name in _FORWARDING)
        return request.secure or (peer is not None and peer.is_loopback and unforwarded)


class CurrentGate:
    """The gate of the configuration in force, built anew only when that changes."""

    def __init__(self, server: Callable[[], Server]) -> None:
        self._server = server
        self._gate = Gate(server())

    def __call__(self) -> Gate:
        return self.of(self._server())

    def of(self, server: Server) -> Gate:
        """The gate of `server`, which is in force."""
        if self._gate.server is not server:
            self._gate = Gate(server)
        return self._gate


CURRENT_GATE: Final = web.AppKey("CURRENT_GATE", CurrentGate)

GATE: Final = web.RequestKey("GATE", Gate)
"""Where a request keeps the gate it has passed."""


def _within(networks: Iterable[Network]) -> Callable[[Address | None], bool]:
    known = tuple(networks)
    return lambda address: address is not None and any(address in network for network in known)


def _text_within(networks: Iterable[Network]) -> Callable[[str], bool]:
    within = _within(networks)
    return lambda text: within(parse(text))
