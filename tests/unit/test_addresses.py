"""The allowlists hold for where a call came from; a forwarded address is believed of trusted proxies only."""

from __future__ import annotations

import ssl
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from notifyd.config.settings import Network, Server
from notifyd.web.addresses import Gate, parse
from notifyd.web.problems import AddressNotAllowedError


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


class _Transport:
    """As much of a transport as tells where a request came from."""

    def __init__(self, peer: str) -> None:
        self._facts = {"peername": (peer, 40000)}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._facts.get(name, default)


def request(peer: str, *headers: tuple[str, str], tls: bool = False) -> Any:
    context = ssl.create_default_context() if tls else None
    return make_mocked_request(
        "GET", "/", CIMultiDict(headers), transport=_Transport(peer), sslcontext=context
    )


PROXIED = Gate(
    Server(
        ip_allowlist=networks("203.0.113.0/24", "2001:db8::/32"),
        metrics_allowlist=networks("198.51.100.7/32"),
        trusted_proxies=networks("10.0.0.0/8"),
    )
)


@pytest.mark.parametrize("peer", ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1"])
def test_an_allowed_address_is_admitted(peer: str) -> None:
    PROXIED.admit(PROXIED.caller_text(request(peer)))


@pytest.mark.parametrize("peer", ["203.0.114.1", "2001:db9::1", "::ffff:192.0.2.1", "", "/run/notifyd.sock"])
def test_any_other_is_refused(peer: str) -> None:
    with pytest.raises(AddressNotAllowedError):
        PROXIED.admit(PROXIED.caller_text(request(peer)))


def test_the_metrics_have_an_allowlist_of_their_own() -> None:
    PROXIED.admit(PROXIED.caller_text(request("198.51.100.7")), metrics=True)
    with pytest.raises(AddressNotAllowedError):
        PROXIED.admit(PROXIED.caller_text(request("203.0.113.9")), metrics=True)


def test_an_empty_allowlist_admits_nobody() -> None:
    with pytest.raises(AddressNotAllowedError):
        Gate(Server(ip_allowlist=())).admit("127.0.0.1")


FORWARDED = {
    "by the proxy": (["203.0.113.9"], "203.0.113.9"),
    "over two proxies": (["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
    "with what the caller wrote before": (["198.51.100.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
    "in two headers": (["198.51.100.7", "203.0.113.9"], "203.0.113.9"),
    "among proxies only": (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    "not at all": ([], "10.0.0.1"),
    "as nonsense": (["203.0.113.9, unknown"], None),
}


@pytest.mark.parametrize(("forwarded", "caller"), FORWARDED.values(), ids=FORWARDED.keys())
def test_behind_a_trusted_proxy_the_nearest_hop_that_is_none_is_the_caller(
    forwarded: list[str], caller: str | None
) -> None:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    found = PROXIED.caller(request("10.0.0.1", *headers))
    assert (str(found) if found else None) == caller


def test_a_strangers_forwarded_address_is_not_believed() -> None:
    for gate in (PROXIED, Gate(Server())):
        assert str(gate.caller(request("192.0.2.1", ("X-Forwarded-For", "127.0.0.1")))) == "192.0.2.1"


PRIVATE = {
    "loopback": (request("127.0.0.1"), True),
    "loopback by IPv6": (request("::1"), True),
    "TLS": (request("192.0.2.1", tls=True), True),
    "plain HTTP from afar": (request("192.0.2.1"), False),
    "plain HTTP that claims a proxy's TLS": (request("192.0.2.1", ("X-Forwarded-Proto", "https")), False),
    "a local proxy nobody told of": (request("127.0.0.1", ("X-Forwarded-For", "192.0.2.1")), False),
    "a trusted proxy with TLS": (request("10.0.0.1", ("X-Forwarded-Proto", "https")), True),
    "a trusted proxy without": (request("10.0.0.1", ("X-Forwarded-Proto", "http")), False),
    "a trusted proxy that does not say": (request("10.0.0.1"), False),
}


@pytest.mark.parametrize(("asked", "private"), PRIVATE.values(), ids=PRIVATE.keys())
def test_an_answer_travels_privately_over_tls_or_loopback_only(asked: Any, private: bool) -> None:
    assert PROXIED.private(asked) is private


def test_an_ipv4_address_in_ipv6_is_what_it_is() -> None:
    assert str(parse("::ffff:127.0.0.1")) == "127.0.0.1"
    assert parse("localhost") is None
