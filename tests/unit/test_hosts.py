"""Host names in the one form in which they are compared and called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.client import is_address
from notifyd.config.units import (
    parse_listen,
    parse_network_or_host,
    parse_origin,
    parse_public_url,
    parse_store_url,
)
from notifyd.hosts import ascii_host
from notifyd.plugin import Secret, http_url

EXAMPLES = {
    # IDNA 2003, which is Python's codec, gives another domain for each of the first four.
    "faß.example": "xn--fa-hia.example",
    "βόλος.example": "xn--nxasmm1c.example",
    "نامه\u200cای.example": "xn--mgba3gch31f060k.example",
    "ශ්\u200dරී.example": "xn--10cl1a0b660p.example",
    "Bücher.Example": "xn--bcher-kva.example",
    "例え。テスト": "xn--r8jz45g.xn--zckzah",
    "ＡＣＭＥ.example": "acme.example",
    "XN--FA-HIA.example": "xn--fa-hia.example",
    "task_runner": "task_runner",
    "Runner.internal.": "runner.internal.",
    "192.0.2.1": "192.0.2.1",
    "2001:DB8:0::1": "2001:db8::1",
}


@pytest.mark.parametrize(("text", "host"), EXAMPLES.items())
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert ascii_host(text) == host
    assert ascii_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "-a", "a b", "a/b", "a@b", "a\n", "[::1]", "::1%", "1:2", "x" * 64, "a." * 130,
        "☃.example", "a／b.example", "a＠b.example", "a：1.example", "ａ＿ｂ.example",
        "\u202e.example", "אa.example", "é" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        ascii_host(text)


@given(st.text(max_size=40))
def test_what_is_taken_is_plain_and_taken_again(text: str) -> None:
    try:
        host = ascii_host(text)
    except ValueError:
        return
    assert host.isascii()
    assert host.isprintable()
    assert not set(host) & set(" /@?#[]\\")
    assert ascii_host(host) == host


def test_the_configuration_reads_hosts_in_this_form() -> None:
    assert parse_origin("https://Faß.example") == "https://xn--fa-hia.example"
    assert parse_public_url("https://faß.example/x") == "https://xn--fa-hia.example/x"
    assert parse_network_or_host("Faß.example") == "xn--fa-hia.example"
    assert parse_listen("faß.example:8686").host == "xn--fa-hia.example"
    assert parse_store_url("mongodb://ü:ß@faß.example:27017,b.example/n?x=ß") == (
        "mongodb://ü:ß@xn--fa-hia.example:27017,b.example/n?x=ß"
    )


@pytest.mark.parametrize("url", ["https://☃.example/x", "https://a／b.example"])
def test_a_url_with_no_valid_host_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        http_url(None, None, Secret(url))
    assert not is_address(url)
