"""HTTPS and client certificates: who is proved by one, and what a reload changes for whom."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import orjson
import pytest
import uvloop
from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from notifyd.errors import ConfigError
from notifyd.registry.registry import open_registry
from tests.authority import LOOPBACK, PEM, Authority
from tests.daemon import CONFIG, Answer, Daemon, Inbox, bearer, daemon, discovered_with, settings
from tests.fakes import TurnableClock

PACK = "/notifications/pack-approvals"
UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE
RUNNER = x509.DNSName("runner.acme.example")
CLIENTS = CONFIG.replace(
    "[auth.clients.task-runner]",
    """[auth.clients.task-runner]
certificate_names = ["runner.acme.example", "spiffe://acme.example/runner", "runner@acme.example",
                     "Task Runner"]""",
)


def text_of(folder: Path, more: str = "", clients: str = CLIENTS) -> str:
    tls = f"""
[server.tls]
cert = "{folder / "server.pem"}"
key = "{folder / "server.key"}"
client_ca = "{folder / "ca.pem"}"
"""
    return clients.replace("[keys]", f"{more}{tls}\n[keys]")


@define
class Secured:
    """A notifyd behind HTTPS, with the authority of its clients."""

    notifyd: Daemon
    authority: Authority
    folder: Path

    async def call(self, method: str, path: str, tls: ssl.SSLContext | None = None, **request: Any) -> Answer:
        url = self.notifyd.url.replace("http:", "https:") + path
        trusted = tls or self.authority.trusting()
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, ssl=trusted, **request) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    async def post(self, document: Any, tls: ssl.SSLContext | None = None, **headers: str) -> Answer:
        body = orjson.dumps(document)
        sent = {"Content-Type": "application/json"} | headers
        return await self.call("POST", PACK, tls, data=body, headers=sent)

    def shown(self, *names: x509.GeneralName, common: str = "") -> ssl.SSLContext:
        return self.authority.client(self.folder, *names, common=common)


@asynccontextmanager
async def secured(folder: Path, more: str = "", clients: str = CLIENTS) -> AsyncIterator[Secured]:
    authority = Authority()
    authority.issue(folder / "server", LOOPBACK)
    authority.write(folder / "ca.pem")
    async with daemon(folder, text_of(folder, more, clients)) as notifyd:
        yield Secured(notifyd, authority, folder)


async def one_way(folder: Path) -> tuple[int, int]:
    """The statuses of a pack event under a certificate, and of one under none."""
    async with secured(folder) as service:
        proved = await service.post(service.notifyd.requested(), service.shown(RUNNER))
        return proved.status, (await service.post(service.notifyd.requested())).status


async def test_a_client_certificate_is_a_proof_of_its_own_for_pack_events(tmp_path: Path) -> None:
    assert await one_way(tmp_path) == (202, 401)


def test_on_the_daemons_own_loop_too(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(one_way(tmp_path)) == (202, 401)


Names: TypeAlias = tuple[list[x509.GeneralName], str]

NAMED: dict[str, Names] = {
    "a DNS name": ([RUNNER], ""),
    "a DNS name in other letters": ([x509.DNSName("RUNNER.acme.example")], ""),
    "a URI": ([x509.UniformResourceIdentifier("spiffe://acme.example/runner")], ""),
    "a mail address": ([x509.RFC822Name("runner@ACME.example")], ""),
    "one name of several": ([x509.DNSName("other.example"), RUNNER], ""),
    "a common name alone": ([], "Task Runner"),
    "a common name that is a host's": ([], "Runner.acme.example"),
}
UNNAMED: dict[str, Names] = {
    "no name at all": ([], ""),
    "a common name beside an alternative one": ([x509.DNSName("other.example")], "Task Runner"),
    "a wildcard": ([x509.DNSName("*.acme.example")], ""),
    "a subdomain": ([x509.DNSName("a.runner.acme.example")], ""),
    "the name as another kind": ([x509.UniformResourceIdentifier("runner.acme.example")], ""),
    "an address as another kind": ([x509.UniformResourceIdentifier("runner@acme.example")], ""),
    "a mailbox in other letters": ([x509.RFC822Name("Runner@acme.example")], ""),
    "a URI in other letters": ([x509.UniformResourceIdentifier("spiffe://acme.example/Runner")], ""),
}


async def test_a_certificate_proves_by_its_alternative_names_and_else_by_its_common_name(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as service:

        async def status(names: list[x509.GeneralName], common: str) -> int:
            shown = service.shown(*names, common=common)
            answer = await service.call("GET", "/api/v1/channels", shown)
            # It may not read: so it is known.
            return 200 if answer.json["code"] == "scope_missing" else answer.status

        assert {name: await status(*one) for name, one in NAMED.items()} == dict.fromkeys(NAMED, 200)
        assert {name: await status(*one) for name, one in UNNAMED.items()} == dict.fromkeys(UNNAMED, 401)


async def test_an_approvers_browser_needs_no_certificate(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        await service.post(service.notifyd.requested(), service.shown(RUNNER))
        page = await service.call("GET", await service.notifyd.link())
        assert (page.status, "Deploy" in page.text) == (200, True)


async def test_a_certificate_and_a_signature_must_prove_one_client(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        notifyd, document = service.notifyd, service.notifyd.requested()
        body, shown = orjson.dumps(document), service.shown(RUNNER)
        assert (await service.post(document, shown, **notifyd.signature(body))).status == 202
        for client in ("outsider", "nobody"):
            signature = notifyd.signature(body, "outsider") | {"X-Notifyd-Client": client}
            assert (await service.post(document, shown, **signature)).status == 401
        stranger = service.shown(x509.DNSName("stranger.example"))
        answer = await service.post(document, stranger, **notifyd.signature(body))
        assert (answer.status, answer.json["code"]) == (401, "certificate_invalid")


async def test_a_certificate_and_a_token_must_prove_one_client(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        document, shown = service.notifyd.requested(), service.shown(RUNNER)
        assert (await service.post(document, shown, **bearer("task-runner"))).status == 202
        assert (await service.post(document, shown, **bearer("outsider"))).status == 401
        assert (await service.post(document, shown, Authorization="Bearer guess")).status == 401


async def test_a_certificate_needs_no_tenant_in_the_body_and_takes_binary_cloudevents(tmp_path: Path) -> None:
    event = {"specversion": "1.0", "id": "e-1", "source": "//ci", "type": "task.done"}
    async with secured(tmp_path) as service:
        sent = {f"ce-{name}": value for name, value in event.items()} | {"Content-Type": "text/plain"}
        answer = await service.call("POST", "/api/v1/events", service.shown(RUNNER), data=b"x", headers=sent)
        assert answer.status == 202, answer.text


async def test_a_certificate_of_an_unknown_authority_gets_no_connection(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        stranger = service.authority.trusting()
        stranger.load_cert_chain(*Authority("Stranger").issue(tmp_path / "stranger", RUNNER))
        with pytest.raises(aiohttp.ClientError):
            await service.post(service.notifyd.requested(), stranger)
        assert (await service.call("GET", "/healthz")).status == 200


async def test_the_certificate_of_a_trusted_proxy_proves_no_client(tmp_path: Path) -> None:
    async with secured(tmp_path, 'trusted_proxies = ["127.0.0.0/8"]\n') as service:
        document, shown = service.notifyd.requested(), service.shown(RUNNER)
        assert (await service.post(document, shown)).status == 401
        signature = service.notifyd.signature(orjson.dumps(document))
        assert (await service.post(document, shown, **signature)).status == 202


async def test_tls_below_1_2_is_refused(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        old = service.authority.trusting()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(aiohttp.ClientError):
            await service.call("GET", "/healthz", old)


async def test_plain_http_gets_no_answer_that_would_be_one(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        reader, writer = await asyncio.open_connection(*service.notifyd.app.address)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in await reader.read()
        writer.close()


# --- reload ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def kept(service: Secured, tls: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that keeps one connection."""
    connector = aiohttp.TCPConnector(limit=1, ssl=tls)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def fingerprint(service: Secured) -> bytes:
    """The certificate that a new connection is shown, whoever has signed it."""
    _, writer = await asyncio.open_connection(*service.notifyd.app.address, ssl=UNCHECKED)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


async def test_a_reload_shows_the_new_certificate_and_drops_no_connection(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        reader, writer = await asyncio.open_connection(*service.notifyd.app.address, ssl=UNCHECKED)

        async def status() -> bytes:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            head, answer = await reader.readline(), b""
            while not answer.endswith(b"}"):
                answer += await reader.read(1)
            return head

        before = await fingerprint(service)
        assert await status() == b"HTTP/1.1 200 OK\r\n"
        service.authority.issue(tmp_path / "server", LOOPBACK)
        assert await fingerprint(service) == before
        await service.notifyd.reload(service.notifyd.text)
        assert await fingerprint(service) != before
        assert await status() == b"HTTP/1.1 200 OK\r\n"
        writer.close()


async def test_a_reload_with_a_broken_certificate_keeps_the_old_and_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with secured(tmp_path) as service:
        before = await fingerprint(service)
        (tmp_path / "server.pem").write_text("half a file")
        notifyd = service.notifyd
        assert not await notifyd.app.reload(
            lambda: (settings(notifyd.text, notifyd.discovered), notifyd.discovered)
        )
        assert await fingerprint(service) == before
    assert f"server.tls.cert: {tmp_path / 'server.pem'} holds no certificate in PEM" in caplog.text


async def test_a_connection_under_authorities_that_a_reload_replaced_proves_nobody(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        old = service.shown(RUNNER)
        async with kept(service, old) as session:
            url = service.notifyd.url.replace("http:", "https:") + "/api/v1/channels"
            async with session.get(url) as answer:
                assert answer.status == 403
            Authority("Another").write(tmp_path / "ca.pem")
            await service.notifyd.reload(service.notifyd.text)
            async with session.get(url) as answer:
                assert (await answer.json())["code"] == "certificate_invalid"
                assert answer.headers["Connection"] == "close"
        # Nor does a session that such a connection has left behind.
        with pytest.raises(aiohttp.ClientError):
            await service.call("GET", "/api/v1/channels", old)


async def test_a_connection_that_outlives_its_certificate_proves_nobody(tmp_path: Path) -> None:
    async with secured(tmp_path) as service, kept(service, service.shown(RUNNER)) as session:
        url = service.notifyd.url.replace("http:", "https:") + "/api/v1/channels"
        async with session.get(url) as answer:
            assert answer.status == 403
        service.notifyd.clock.turn(timedelta(days=2).total_seconds())
        async with session.get(url) as answer:
            assert (await answer.json())["code"] == "certificate_invalid"


async def test_a_reload_turns_tls_on_and_off_for_new_connections(tmp_path: Path) -> None:
    async with secured(tmp_path) as service:
        encrypted, plain = service.notifyd.text, CONFIG
        await service.notifyd.reload(plain)
        assert (await service.notifyd.get("/healthz", None)).status == 200
        await service.notifyd.reload(encrypted)
        assert (await service.call("GET", "/healthz")).status == 200


# --- files with faults -------------------------------------------------------------------------------------


async def faults(folder: Path, text: str) -> dict[str, str]:
    plugins = discovered_with([Inbox()])
    with pytest.raises(ConfigError) as caught:
        await open_registry(settings(text, plugins), plugins, TurnableClock())
    return {fault.pointer: fault.message.replace(str(folder), "") for fault in caught.value.faults}


async def test_each_fault_of_a_file_is_named_with_its_option(tmp_path: Path) -> None:
    authority = Authority()
    text, cert, key = text_of(tmp_path), tmp_path / "server.pem", tmp_path / "server.key"

    def fresh() -> None:
        authority.write(tmp_path / "ca.pem")
        authority.issue(tmp_path / "server", LOOPBACK)

    fresh()
    cert.unlink()
    missing = "/server.pem cannot be read: No such file or directory"
    assert await faults(tmp_path, text) == {"server.tls.cert": missing}
    fresh()
    key.write_bytes(authority.issue(tmp_path / "other", LOOPBACK)[1].read_bytes())
    assert await faults(tmp_path, text) == {"server.tls.key": "/server.key is not the key of the certificate"}
    fresh()
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    unread = "/server.key holds no private key in PEM that can be read without a password"
    assert await faults(tmp_path, text) == {"server.tls.key": unread}
    fresh()
    (tmp_path / "ca.pem").write_text("nothing")
    assert await faults(tmp_path, text) == {"server.tls.client_ca": "/ca.pem holds no certificate in PEM"}


async def test_a_key_may_stand_in_the_certificates_file(tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.issue(tmp_path / "server", LOOPBACK)
    authority.write(tmp_path / "ca.pem")
    cert.write_bytes(cert.read_bytes() + key.read_bytes())
    text = text_of(tmp_path).replace(f'key = "{key}"\n', "")
    async with daemon(tmp_path, text) as notifyd:
        service = Secured(notifyd, authority, tmp_path)
        assert (await service.call("GET", "/healthz")).status == 200


INCONSISTENT = {
    "a key without a certificate": ('[server.tls]\nkey = "k.pem"', "", "server.tls.key"),
    "names without authorities": (
        "",
        'certificate_names = ["runner.acme.example"]',
        "auth.clients.task-runner.certificate_names",
    ),
    "a pattern": (
        "",
        'certificate_names = ["*.acme.example"]',
        "auth.clients.task-runner.certificate_names[0]",
    ),
}


@pytest.mark.parametrize(("tls", "names", "pointer"), INCONSISTENT.values(), ids=INCONSISTENT)
def test_what_does_not_agree_is_a_fault(tls: str, names: str, pointer: str) -> None:
    client = f"[auth.clients.task-runner]\n{names}"
    text = CONFIG.replace("[auth.clients.task-runner]", client).replace("[keys]", f"{tls}\n[keys]")
    with pytest.raises(ConfigError) as caught:
        settings(text, discovered_with([Inbox()]))
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_name_proves_one_client(tmp_path: Path) -> None:
    Authority().write(tmp_path / "ca.pem")
    twice = CLIENTS.replace(
        "[auth.clients.outsider]", '[auth.clients.outsider]\ncertificate_names = ["Runner.ACME.example"]'
    )
    with pytest.raises(ConfigError) as caught:
        settings(text_of(tmp_path, clients=twice), discovered_with([Inbox()]))
    assert {str(fault) for fault in caught.value.faults} == {
        'auth.clients.outsider.certificate_names[0]: proves the client "task-runner" too'
    }


def test_a_service_with_a_certificate_calls_itself_https(tmp_path: Path) -> None:
    Authority().write(tmp_path / "ca.pem")
    text = text_of(tmp_path).replace('public_url = "https://notifyd.acme.example"', "")
    assert settings(text, discovered_with([Inbox()])).server.public_url == "https://127.0.0.1:0"
