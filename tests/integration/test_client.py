"""The HTTP client of the commands, against real servers that behave and that do not."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from notifyd.client import Bearer, Client, RefusedError, Signer, UnreachableError, is_address
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes, verify
from tests.process import SECRET
from tests.sinks import HttpSink, Reply

TOKEN = "a-token-that-is-secret"


def client(url: str, **options: Any) -> Client:
    return Client(url, Bearer(Secret(TOKEN)), **options)


async def test_a_bearer_sends_token_and_tenant_under_the_services_own_path() -> None:
    async with HttpSink([Reply(200, '{"a": 1}')]) as sink:
        found = await asyncio.to_thread(
            client(f"{sink.url}/behind/a/proxy/", tenant="acme").get, "/x", b="c d"
        )
    (received,) = sink.received
    assert found == {"a": 1}
    assert (received.method, received.path) == ("GET", "/behind/a/proxy/x?b=c+d")
    assert received.headers["Authorization"] == f"Bearer {TOKEN}"
    assert received.headers["X-Notifyd-Tenant"] == "acme"


async def test_a_signer_signs_the_body_and_names_itself() -> None:
    async with HttpSink([Reply(200, "{}")]) as sink:
        signer = Client(sink.url, Signer("task-runner", Secret(SECRET)))
        await asyncio.to_thread(signer.post, "/x", b'{"a": 1}')
    (received,) = sink.received
    stamp = int(received.headers["webhook-timestamp"])
    verify([secret_bytes(Secret(SECRET))], received.headers, received.body, stamp, 1)
    assert received.headers["X-Notifyd-Client"] == "task-runner"
    assert received.headers["Content-Type"] == "application/json"


async def test_a_list_is_read_page_after_page() -> None:
    pages = [
        Reply(200, '{"items": [1, 2], "nextCursor": "go/on"}'),
        Reply(200, '{"items": [3], "nextCursor": null}'),
    ]
    async with HttpSink(pages) as sink:
        items = await asyncio.to_thread(lambda: list(client(sink.url).items("/x", state="dead")))
    assert items == [1, 2, 3]
    assert [one.path for one in sink.received] == [
        "/x?limit=200&state=dead",
        "/x?limit=200&state=dead&cursor=go%2Fon",
    ]


async def test_a_server_that_gives_no_answer_is_waited_for_no_longer_than_the_timeout() -> None:
    async with HttpSink() as sink:
        sink.silent = True
        with pytest.raises(UnreachableError, match=r"gives no answer in 0\.2 s"):
            await asyncio.to_thread(client(sink.url, timeout=0.2).get, "/x")


async def test_a_connection_that_breaks_off_is_no_answer() -> None:
    async with HttpSink() as sink:
        sink.hangs_up = True
        with pytest.raises(UnreachableError, match="does not answer"):
            await asyncio.to_thread(client(sink.url).get, "/x")


async def test_a_refusal_keeps_the_whole_answer() -> None:
    problem = '{"code": "invalid_event", "title": "Broken", "errors": [{"pointer": "", "message": "odd"}]}'
    async with HttpSink([Reply(422, problem)]) as sink:
        with pytest.raises(RefusedError) as caught:
            await asyncio.to_thread(client(sink.url).get, "/x")
    assert caught.value.answer.status == 422
    assert caught.value.answer.summary == "422 invalid_event: Broken"
    assert caught.value.answer.faults == ("(document): odd",)


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self_signed(tmp_path)).start()
    port = runner.addresses[0][1]
    try:
        with pytest.raises(UnreachableError, match="its certificate is not trusted: ") as caught:
            await asyncio.to_thread(client(f"https://127.0.0.1:{port}").get, "/x")
    finally:
        await runner.cleanup()
    assert TOKEN not in str(caught.value)


def self_signed(folder: Path) -> ssl.SSLContext:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    span = (now - timedelta(days=1), now + timedelta(days=1))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *span)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://127.0.0.1:8686", True),
        ("https://notify.acme.example/prefix/", True),
        ("http://[::1]:8686", True),
        ("ftp://host", False),
        ("127.0.0.1:8686", False),
        ("http://", False),
        ("http://host:port", False),
        ("http://host/?query", False),
        ("https://user:password@host", False),
        ("", False),
    ],
)
def test_an_address_is_http_or_https_with_a_host_and_no_query(url: str, good: bool) -> None:
    assert is_address(url) is good
