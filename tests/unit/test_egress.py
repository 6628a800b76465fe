"""The egress guard: what may be called, judged by text, by address, and by real sockets."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field
from yarl import URL

from notifyd import __version__
from notifyd.config.settings import LOOPBACK
from notifyd.config.units import parse_network_or_host, parse_origin
from notifyd.errors import Reason, TransientError
from notifyd.post import post
from notifyd.registry.egress import (
    EgressRefusedError,
    Guard,
    callback_fault,
    is_public,
    open_session,
    origin_of,
)
from notifyd.security.secrets import Secret
from notifyd.testkit.receivers import Reply, Sink

# --- addresses ---------------------------------------------------------------------------------------------

PUBLIC = (
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
)

PRIVATE = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback, all of the network",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private, the last",
    "192.168.1.1": "private",
    "169.254.169.254": "the metadata service of clouds",
    "169.254.0.1": "link-local",
    "100.64.0.1": "shared by a carrier's customers (RFC 6598)",
    "100.127.255.255": "the same, the last",
    "0.0.0.0": "unspecified: this machine",  # noqa: S104 - refused, not bound to
    "0.1.2.3": "this network",
    "192.0.0.1": "for protocols",
    "192.0.2.1": "documentation",
    "198.18.0.1": "benchmarks",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast, of a site",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible, long deprecated",
    "::ffff:127.0.0.1": "mapped",
    "::ffff:169.254.169.254": "mapped",
    "::ffff:0:127.0.0.1": "translated (RFC 2765)",
    "64:ff9b::127.0.0.1": "NAT64",
    "64:ff9b::a9fe:a9fe": "NAT64 of the metadata service",
    "64:ff9b:1::a00:1": "NAT64 of a network's own (RFC 8215)",
    "2002:7f00:1::1": "6to4 of loopback",
    "2002:a00:1::1": "6to4 of a private address",
    "2001::1": "Teredo",
    "2001:db8::1": "documentation",
    "100::1": "discarded",
    "fc00::1": "unique local",
    "fd00:ec2::254": "the metadata service, by IPv6",
    "fe80::1": "link-local",
    "fec0::1": "site-local, deprecated",
    "ff02::1": "multicast",
    "ff0e::1": "multicast, global",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_called(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert Guard(()).allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_everyones_may_not_be_called(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not Guard(()).allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::"])
def test_a_network_the_operator_named_may_be_called_in_whatever_form_it_is_written(address: str) -> None:
    guard = Guard([parse_network_or_host("10.1.0.0/16")])
    assert guard.allows(ipaddress.ip_address(address))
    assert not guard.allows(ipaddress.ip_address("10.2.0.1"))


def test_a_host_the_operator_named_may_be_private_and_other_names_of_its_address_may_not() -> None:
    guard, address = Guard([parse_network_or_host("Runner.Internal")]), ipaddress.ip_address("10.0.0.5")
    assert guard.may_call(address, "runner.internal")
    assert guard.may_call(address, "RUNNER.internal.")
    assert not guard.may_call(address, "other.internal")
    assert not guard.may_call(address, "10.0.0.5")


def test_what_must_not_cross_the_open_network_goes_to_private_addresses_only() -> None:
    guard = Guard([parse_network_or_host("10.0.0.0/8"), "runner.internal"])
    public, private = ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("192.168.0.1")
    assert guard.may_call(ipaddress.ip_address("10.0.0.1"), "any", private_only=True)
    assert guard.may_call(private, "runner.internal", private_only=True)
    assert not guard.may_call(public, "runner.internal", private_only=True)
    assert not guard.may_call(private, "any", private_only=True)


# --- callback URLs, by their text --------------------------------------------------------------------------

ORIGINS = tuple(
    parse_origin(text)
    for text in (
        "https://runner.acme.example",
        "https://runner.acme.example:8443",
        "http://10.0.0.5:8080",
        "http://8.8.8.8",
        "https://169.254.169.254",
        "https://[::ffff:127.0.0.1]",
        "https://[2002:7f00:1::]",
        "https://8.8.8.8",
        "https://10.0.0.5",
        "https://2130706433",
        "https://0177.0.0.1",
        "https://0x7f.1",
        "https://127.1",
        "http://runner.internal",
        "https://läufer.example",
        "https://fass.example",
        "https://faß.test",
        "https://xn--fass-8g3b.example",
    )
)
GUARD = Guard([parse_network_or_host("10.0.0.0/8")])

GOOD = (
    "https://runner.acme.example/resume/run-0042?x=1",
    "https://runner.acme.example",
    "https://runner.acme.example:443/",
    "HTTPS://Runner.ACME.Example/resume",
    "https://runner.acme.example:8443/resume",
    "https://8.8.8.8/",
    "https://10.0.0.5/",
    "http://10.0.0.5:8080/resume",
    "http://runner.internal/resume",
    "https://Läufer.example/resume",
    "https://xn--lufer-gra.example/resume",
    "https://faß.test/resume",
)

BAD = {
    "https://runner.acme.example:444/": "origin",
    "https://runner.acme.example./": "origin",
    "https://runner.acme.example.evil.example/": "origin",
    "https://evil.example/https://runner.acme.example": "origin",
    "https://evil.example#https://runner.acme.example": "origin",
    "http://runner.acme.example/": "origin",
    "http://runner.acme.example:443/": "origin",
    "https://runner.acme.example%2eevil.example/": "absolute",
    "https://alice@runner.acme.example/": "user name",
    "https://alice:pw@runner.acme.example/": "user name",
    "https://runner.acme.example@evil.example/": "user name",
    "https://:pw@runner.acme.example/": "user name",
    "https://runner.acme.example\\@evil.example/": "backslashes",
    "https://runner.acme.example\\.evil.example/": "backslashes",
    "ftp://runner.acme.example/": "https URL",
    "file:///etc/passwd": "absolute",
    "javascript:alert(1)": "absolute",
    "//runner.acme.example/": "absolute",
    "/resume": "absolute",
    "runner.acme.example": "absolute",
    "https://": "absolute",
    "https://runner.acme.example:99999/": "absolute",
    "https://runner.acme.example\n.evil.example/": "control",
    "https://runner.acme.example/a b": "spaces",
    "https://runner.acme.example/\r\nX-Evil: 1": "control",
    "https://runner.acme.example/\x00": "control",
    "https://faß.example/": "origin",
    "https://fass.test/": "origin",
    "https://faß☃.example/": "absolute",
    "http://8.8.8.8/": "plain http",
    "https://169.254.169.254/": "not public",
    "https://[::ffff:127.0.0.1]/": "not public",
    "https://[::ffff:7f00:1]/": "not public",
    "https://[2002:7f00:1::]/": "not public",
    "https://2130706433/": "decimal numbers",
    "https://0177.0.0.1/": "decimal numbers",
    "https://0x7f.1/": "decimal numbers",
    "https://127.1/": "decimal numbers",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_callback_to_an_allowed_origin_is_taken(url: str) -> None:
    assert callback_fault(url, ORIGINS, GUARD) is None


@pytest.mark.parametrize("url", BAD)
def test_a_callback_that_is_none_is_refused_for_the_reason_it_is(url: str) -> None:
    assert BAD[url] in (callback_fault(url, ORIGINS, GUARD) or "")


def test_without_allowed_origins_no_callback_is_taken() -> None:
    assert callback_fault("https://runner.acme.example/", (), GUARD)


def test_no_fault_repeats_a_password_or_a_path() -> None:
    for url in ("https://alice:s3cret@runner.acme.example/", "https://evil.example/s3cret?t=s3cret"):
        assert "s3cret" not in (callback_fault(url, ORIGINS, GUARD) or "s3cret")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Runner.acme.example:443/a", "https://runner.acme.example"),
        ("http://runner:80", "http://runner"),
        ("http://runner:8080/x?y", "http://runner:8080"),
        ("https://bücher.example/", "https://xn--bcher-kva.example"),
        ("https://[::1]:443/", "https://[::1]"),
    ],
)
def test_an_origin_is_scheme_host_and_a_port_that_is_not_the_schemes_own(url: str, origin: str) -> None:
    assert origin_of(url) == origin


# --- real sockets ------------------------------------------------------------------------------------------


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


def refused(error: BaseException) -> bool:
    causes = (error, error.__cause__, getattr(error, "os_error", None))
    return any(isinstance(cause, EgressRefusedError) for cause in causes)


async def test_a_session_does_not_open_a_socket_to_a_private_address(sink: Sink) -> None:
    async with open_session(Guard(())) as http:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await http.get(sink.url)
    assert refused(caught.value)
    assert not sink.received


async def test_a_refusal_is_transient_and_names_no_address(sink: Sink) -> None:
    async with open_session(Guard(())) as http:
        with pytest.raises(TransientError) as caught:
            await post(http, Secret(sink.url), b"{}")
    assert caught.value.reason is Reason.EGRESS_REFUSED
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("private_only", [False, True])
async def test_a_session_reaches_a_private_address_that_is_allowed(sink: Sink, private_only: bool) -> None:
    async with open_session(Guard(LOOPBACK), private_only=private_only) as http:
        answer = await post(http, Secret(sink.url), b"{}")
    assert answer.status == 200
    assert len(sink.received) == 1


async def test_a_redirect_to_somewhere_else_is_not_followed(sink: Sink) -> None:
    async with Sink() as elsewhere, open_session(Guard(LOOPBACK)) as http:
        sink.reply = Reply(307, headers={"Location": elsewhere.url})
        answer = await post(http, Secret(sink.url), b"{}")
    assert answer.status == 307
    assert not elsewhere.received


async def test_a_redirect_that_is_followed_is_guarded_like_any_call(sink: Sink) -> None:
    port = URL(sink.url).port
    sink.reply = Reply(302, headers={"Location": f"http://127.0.0.1:{port}/again"})
    resolver = FakeResolver({"runner.internal": [["127.0.0.1"]]})
    async with open_session(Guard(["runner.internal"]), resolver=resolver) as http:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await http.get(f"http://runner.internal:{port}/")
    assert refused(caught.value)
    assert len(sink.received) == 1


# --- names -------------------------------------------------------------------------------------------------


@define
class FakeResolver(AbstractResolver):
    """Answers each look-up of a name with the next of its lists of addresses, and the last for ever."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        known = self.answers[host]
        addresses = known.pop(0) if len(known) > 1 else known[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_name_that_turns_private_after_it_was_looked_at_gains_nothing(sink: Sink) -> None:
    resolver = FakeResolver({"rebound.example": [["8.8.8.8"], ["127.0.0.1"]]})
    (looked_at,) = await resolver.resolve("rebound.example")
    assert is_public(ipaddress.ip_address(looked_at["host"]))
    async with open_session(Guard(()), resolver=resolver) as http:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await http.get(f"http://rebound.example:{URL(sink.url).port}/")
    assert refused(caught.value)
    assert not sink.received


async def test_the_address_that_is_called_is_the_one_that_was_checked(sink: Sink) -> None:
    resolver = FakeResolver({"runner.example": [["10.0.0.1", "127.0.0.1", "169.254.169.254"]]})
    async with open_session(Guard(LOOPBACK), resolver=resolver) as http:
        answer = await post(http, Secret(f"http://runner.example:{URL(sink.url).port}/"), b"{}")
    assert answer.status == 200
    assert resolver.asked == ["runner.example"]


async def test_a_name_of_private_addresses_only_is_refused(sink: Sink) -> None:
    resolver = FakeResolver({"inside.example": [["10.0.0.1", "127.0.0.1"]]})
    async with open_session(Guard(()), resolver=resolver) as http:
        with pytest.raises(TransientError) as caught:
            await post(http, Secret(f"http://inside.example:{URL(sink.url).port}/"), b"{}")
    assert caught.value.reason is Reason.EGRESS_REFUSED


async def test_a_named_host_lends_its_permission_to_no_other_name_of_its_address(sink: Sink) -> None:
    port = URL(sink.url).port
    resolver = FakeResolver({name: [["127.0.0.1"]] for name in ("runner.internal", "evil.example")})
    async with open_session(Guard(["runner.internal"]), resolver=resolver) as http:
        assert (await post(http, Secret(f"http://runner.internal:{port}/"), b"{}")).status == 200
        for other in (f"http://evil.example:{port}/", f"http://127.0.0.1:{port}/"):
            with pytest.raises(TransientError):
                await post(http, Secret(other), b"{}")
    assert len(sink.received) == 1


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "0x7f.0.0.1", "127.1"])
async def test_a_number_that_a_resolver_reads_as_loopback_does_not_get_there(sink: Sink, host: str) -> None:
    async with open_session(Guard(())) as http:
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://{host}:{URL(sink.url).port}/")
    assert not sink.received


async def test_a_session_keeps_no_cookies(sink: Sink) -> None:
    sink.reply = Reply(headers={"Set-Cookie": "session=1"})
    async with open_session(Guard(LOOPBACK)) as http:
        await post(http, Secret(sink.url), b"{}")
        await post(http, Secret(sink.url), b"{}")
    assert "Cookie" not in sink.received[1].headers


async def test_a_call_says_who_calls_and_asks_for_nothing_that_depends_on_what_is_installed(
    sink: Sink,
) -> None:
    async with open_session(Guard(LOOPBACK)) as http:
        await post(http, Secret(sink.url), b"{}")
    headers = dict(sink.received[0].headers)
    for of_this_call in ("Host", "Content-Length"):
        del headers[of_this_call]
    assert headers == {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"notifyd/{__version__}",
    }
