"""Calls over TLS: whom they trust, and that TLS changes nothing in the verdict."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from notifyd.errors import TransientError
from notifyd.model import Message
from notifyd.post import post
from notifyd.registry.egress import Guard, open_session
from notifyd.registry.registry import open_registry
from notifyd.security.secrets import Secret
from notifyd.trust import CaFile
from tests.authority import Authority
from tests.daemon import CONFIG, Daemon, Inbox, daemon, discovered_with, settings
from tests.fakes import TurnableClock
from tests.receivers import ENDINGS, HEAD, Then, receiver

ANSWER = HEAD % 200 + b"Content-Length: 2\r\n\r\nok"
GUARD = Guard(("127.0.0.1",))


def hook(url: str, option: str = "") -> str:
    return f'{CONFIG}\n[channels.hook]\ntype = "webhook"\nurl = "{url}"\n{option}\n'


async def tried(notifyd: Daemon) -> tuple[int, str]:
    answer = await notifyd.post("/api/v1/channels/hook/test", {}, "operator")
    return answer.status, answer.json.get("detail", "")


REFUSED = (502, "network: the receiver cannot be reached: its certificate is not trusted")


@pytest.mark.parametrize("place", ["the channel", "egress"])
async def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path, place: str) -> None:
    authority = Authority()
    ca = f'tls_ca = "{authority.write(tmp_path / "ca.pem")}"'
    async with receiver(ANSWER, tls=authority.server(tmp_path)) as url:
        named = hook(url, ca) if place == "the channel" else hook(url).replace("[egress]", f"[egress]\n{ca}")
        assert ca in named
        async with daemon(tmp_path, hook(url)) as notifyd:
            assert await tried(notifyd) == REFUSED
            await notifyd.reload(named)
            assert (await tried(notifyd))[0] == 200


@pytest.mark.parametrize("place", ["the channel", "egress"])
async def test_a_reload_reads_a_file_that_changed(tmp_path: Path, place: str) -> None:
    old, new = Authority("Old"), Authority("New")
    ca = f'tls_ca = "{old.write(tmp_path / "ca.pem")}"'
    async with receiver(ANSWER, tls=new.server(tmp_path)) as url:
        text = hook(url, ca) if place == "the channel" else hook(url).replace("[egress]", f"[egress]\n{ca}")
        async with daemon(tmp_path, text) as notifyd:
            assert await tried(notifyd) == REFUSED
            new.write(tmp_path / "ca.pem")
            await notifyd.reload(text)
            assert (await tried(notifyd))[0] == 200


async def test_a_callback_trusts_what_egress_names(tmp_path: Path) -> None:
    authority = Authority()
    ca = f'[egress]\ntls_ca = "{authority.write(tmp_path / "ca.pem")}"'
    plugins = discovered_with([Inbox()])
    async with receiver(ANSWER, tls=authority.server(tmp_path)) as url:
        current = await open_registry(
            settings(CONFIG.replace("[egress]", ca), plugins), plugins, TurnableClock()
        )
        message = Message(
            id="m-1",
            title="",
            body="{}",
            recipient=url,
            event={"client": "task-runner", "correlationId": "c-1"},
        )
        try:
            receipt = await current.channels["resume"].channel.send(message)
        finally:
            await current.aclose()
    assert receipt.status == 200


async def test_a_name_that_is_not_in_the_certificate_is_refused_under_any_authority(tmp_path: Path) -> None:
    authority = Authority()
    trust = CaFile.read(authority.write(tmp_path / "ca.pem")).context()
    server, guard = authority.server(tmp_path), Guard(("localhost",))
    async with receiver(ANSWER, tls=server) as url, open_session(guard, tls=trust) as http:
        with pytest.raises(TransientError, match="its certificate is for another host name"):
            await post(http, Secret(url.replace("127.0.0.1", "localhost")), b"{}")


SEND = """
import asyncio, sys
from notifyd.post import post
from notifyd.registry.egress import Guard, open_session
from notifyd.security.secrets import Secret

async def main():
    async with open_session(Guard(("127.0.0.1",))) as http:
        print((await post(http, Secret(sys.argv[1]), b"{}")).status)

asyncio.run(main())
"""


async def test_a_receiver_that_speaks_no_tls_is_told_as_that() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, open_session(GUARD) as http:
        url = Secret(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(TransientError, match="it speaks no TLS that suits"):
            await post(http, url, b"{}")


async def test_openssls_environment_variable_is_heard(tmp_path: Path) -> None:
    authority = Authority()
    environ = {**os.environ, "SSL_CERT_FILE": str(authority.write(tmp_path / "ca.pem"))}
    async with receiver(ANSWER, tls=authority.server(tmp_path)) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SEND, url, env=environ, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    assert said.strip() == b"200"


@pytest.mark.parametrize("then", Then)
async def test_over_tls_too_the_status_line_is_the_verdict(
    tmp_path: Path, then: Then, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.post.ANSWER_TIME", 0.05)
    authority = Authority()
    server = authority.server(tmp_path)
    trust = CaFile.read(authority.write(tmp_path / "ca.pem")).context()

    async def one(head: bytes, *rest: bytes) -> int:
        answer = receiver(HEAD % 200 + head, *rest, then=then, tls=server)
        async with answer as url, open_session(GUARD, tls=trust) as http:
            return (await post(http, Secret(url), b"{}")).status

    found = await asyncio.gather(*(one(*ending) for ending in ENDINGS.values()))
    assert dict(zip(ENDINGS, found, strict=True)) == dict.fromkeys(ENDINGS, 200)
