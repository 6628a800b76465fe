"""JWTs as bearers: what their claims allow, and how the keys that judge them come, stay and go."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field

from notifyd.errors import ConfigError
from notifyd.registry import published as reading
from tests.authority import Authority
from tests.daemon import CONFIG, Answer, Daemon, Inbox, daemon, discovered_with, settings, until
from tests.issuer import AUDIENCE, ISSUER, jwks, key_for, signed, token

PACK = "/notifications/pack-approvals"
CHANNELS = "/api/v1/channels"


def config(source: str, more: str = "") -> str:
    jwt = f'[auth.jwt]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks = "{source}"\n{more}\n'
    return CONFIG.replace("[auth.actors]", f"{jwt}[auth.actors]")


def jwt(**claims: Any) -> str:
    said = {"client_id": "portal", "scope": "Packs.Approve Notifier.Read", "tenant": "acme"}
    return token(time.time(), **said | claims)


async def read(notifyd: Daemon, text: str) -> Answer:
    return await notifyd.get(CHANNELS, None, Authorization=f"Bearer {text}")


@pytest.fixture
async def notifyd(tmp_path: Path) -> AsyncIterator[Daemon]:
    (tmp_path / "keys.json").write_text(jwks())
    async with daemon(tmp_path, config(str(tmp_path / "keys.json"))) as running:
        yield running


# --- what claims allow ---------------------------------------------------------------------------------------


async def test_scope_and_tenant_are_those_of_the_claims(notifyd: Daemon) -> None:
    assert (await read(notifyd, jwt())).status == 200
    assert (await read(notifyd, jwt(scope="Packs.Approve"))).json["code"] == "scope_missing"
    other = await notifyd.get(PACK, None, Authorization=f"Bearer {jwt()}", X_Notifyd_Tenant="globex")
    assert other.json["code"] == "tenant_mismatch"
    none = await notifyd.get(PACK, None, Authorization=f"Bearer {jwt(tenant=None)}")
    assert none.json["code"] == "tenant_mismatch"


async def ack(notifyd: Daemon, text: str, **members: Any) -> Answer:
    document = await notifyd.ask(requiredGrants=["Packs.Ship"])
    body = {"decision": "approved", "planHash": document["planHash"]} | members
    path = "{}/{runId}/{approvalId}/ack".format(PACK, **document)
    return await notifyd.call("POST", path, json=body, headers={"Authorization": f"Bearer {text}"})


async def test_a_person_decides_as_the_actor_of_the_token_with_its_grants(notifyd: Daemon) -> None:
    answer = await ack(notifyd, jwt(sub="00u1ab", grants=["Packs.Ship"]))
    assert (answer.status, answer.json["decision"]["actor"]) == (200, "alice@acme.example")
    approval = await notifyd.approval(answer.json)
    assert approval["decisions"][0]["via"] == "jwt"


async def test_a_token_without_the_grant_does_not_decide(notifyd: Daemon) -> None:
    assert (await ack(notifyd, jwt())).json["code"] == "grant_missing"


async def test_a_token_decides_for_nobody_else(notifyd: Daemon) -> None:
    allowed = jwt(grants=["Packs.Ship"])
    assert (await ack(notifyd, allowed, actor="bob@acme.example")).json["code"] == "actor_not_allowed"


async def test_pack_events_take_no_token_alone(notifyd: Daemon) -> None:
    text = jwt(client_id="task-runner", scope="Notifier.Events:Write")
    answer = await notifyd.call(
        "POST", PACK, json=notifyd.requested(), headers={"Authorization": f"Bearer {text}"}
    )
    assert (answer.status, answer.json["code"]) == (401, "signature_required")
    both = await notifyd.signed(PACK, notifyd.requested(), Authorization=f"Bearer {text}")
    assert both.status == 202


async def test_an_expired_token_is_told_so_by_the_services_clock(notifyd: Daemon) -> None:
    text = jwt()
    notifyd.clock.turn(3600)
    answer = await read(notifyd, text)
    assert (answer.status, answer.json["detail"]) == (401, "the token has expired")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


# --- keys at an address --------------------------------------------------------------------------------------


@define
class Published:
    """What an issuer's server answers, and how often it was asked. `held` keeps it from answering."""

    body: str
    status: int = 200
    asked: int = 0
    held: asyncio.Event = field(factory=asyncio.Event)

    async def answer(self, _: web.BaseRequest) -> web.Response:
        self.asked += 1
        await self.held.wait()
        return web.Response(text=self.body, status=self.status, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def publishing(folder: Path, body: str) -> AsyncIterator[tuple[Published, str]]:
    """A server of keys, and the configuration that reads them there."""
    authority, published = Authority(), Published(body)
    published.held.set()
    runner = web.ServerRunner(web.Server(published.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server(folder)).start()
    ca = f'[egress]\ntls_ca = "{authority.write(folder / "ca.pem")}"'
    try:
        address = f"https://127.0.0.1:{runner.addresses[0][1]}/keys"
        yield published, config(address).replace("[egress]", ca)
    finally:
        published.held.set()
        await runner.cleanup()


OLD, NEW = key_for("ES256"), key_for("EdDSA")


def by_new() -> str:
    return jwt(algorithm="EdDSA")


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are read as often as it is asked for."""
    monkeypatch.setattr(reading, "PAUSE", 0.0)


async def test_keys_are_read_when_the_first_token_comes_and_then_kept(tmp_path: Path) -> None:
    async with publishing(tmp_path, jwks()) as (published, text), daemon(tmp_path, text) as notifyd:
        assert published.asked == 0
        answers = await asyncio.gather(*(read(notifyd, jwt()) for _ in range(5)))
        assert [answer.status for answer in answers] == [200] * 5
        assert published.asked == 1


async def test_an_unknown_key_id_has_the_keys_read_again(tmp_path: Path, pause: None) -> None:
    async with publishing(tmp_path, jwks(OLD)) as (published, text), daemon(tmp_path, text) as notifyd:
        assert (await read(notifyd, jwt())).status == 200
        published.body = jwks(NEW)
        assert (await read(notifyd, by_new())).status == 200
        assert (await read(notifyd, jwt())).status == 401  # the issuer has withdrawn it
        assert published.asked == 3


async def test_a_flood_of_unknown_key_ids_reads_the_keys_once(tmp_path: Path) -> None:
    async with publishing(tmp_path, jwks()) as (published, text), daemon(tmp_path, text) as notifyd:
        assert (await read(notifyd, jwt())).status == 200
        forged = [signed({"alg": "ES256", "kid": f"k{n}"}, {}, OLD) for n in range(50)]
        answers = await asyncio.gather(*(read(notifyd, text) for text in forged))
        assert {answer.status for answer in answers} == {401}
        assert published.asked == 1


async def test_old_keys_are_read_again_without_anybody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: None
) -> None:
    async with publishing(tmp_path, jwks()) as (published, text), daemon(tmp_path, text) as notifyd:
        assert (await read(notifyd, jwt())).status == 200
        monkeypatch.setattr(reading, "LIFE", 0.0)
        published.held.clear()
        assert (await read(notifyd, jwt())).status == 200


FAULTY = {
    "an error": (500, jwks()),
    "a redirect": (302, jwks()),
    "no key set": (200, "<html>"),
    "no usable key": (200, '{"keys": []}'),
    "too much": (200, jwks() + " " * 1024 * 1024),
}


@pytest.mark.parametrize(("status", "body"), FAULTY.values(), ids=FAULTY)
async def test_a_source_that_is_down_leaves_the_keys_in_force(
    tmp_path: Path, pause: None, status: int, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing(tmp_path, jwks(OLD)) as (published, text), daemon(tmp_path, text) as notifyd:
        assert (await read(notifyd, jwt())).status == 200
        published.status, published.body = status, body
        answer = await read(notifyd, by_new())
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
        assert (await read(notifyd, jwt())).status == 200
        await notifyd.reload(notifyd.text)
        assert (await read(notifyd, jwt())).status == 200
    assert "what was read before stays in force" in caplog.text


async def test_without_any_keys_a_token_is_to_come_again_and_all_else_goes_on(tmp_path: Path) -> None:
    async with daemon(tmp_path, config("https://127.0.0.1:9/keys")) as notifyd:
        answer = await read(notifyd, jwt())
        assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        assert (await notifyd.get(CHANNELS)).status == 200
        assert (await notifyd.get("/healthz", None)).status == 200


async def test_an_api_token_waits_for_no_keys(tmp_path: Path) -> None:
    async with publishing(tmp_path, jwks()) as (published, text), daemon(tmp_path, text) as notifyd:
        published.held.clear()
        assert (await notifyd.get(CHANNELS)).status == 200
        assert (await read(notifyd, "notifyd_guess")).status == 401
        assert published.asked == 0


async def test_an_issuer_on_a_private_address_needs_leave(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with publishing(tmp_path, jwks()) as (published, text):
        closed = text.replace('allow_private = ["127.0.0.0/8"]', "")
        async with daemon(tmp_path, closed) as notifyd:
            assert (await read(notifyd, jwt())).status == 503
        assert published.asked == 0


async def test_the_end_does_not_wait_for_keys(tmp_path: Path) -> None:
    async with publishing(tmp_path, jwks()) as (published, text):
        async with asyncio.timeout(10), daemon(tmp_path, text) as notifyd:
            published.held.clear()
            asking = asyncio.create_task(read(notifyd, jwt()))
            await until(lambda: published.asked)
        with pytest.raises((Exception, asyncio.CancelledError)):
            await asking


# --- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://login.acme.example/keys", "must be an https address without a fragment, or a file"),
        ("https://login.acme.example/keys#x", "must be an https address without a fragment, or a file"),
        ("https://user:pass@login.acme.example/keys", "must be an http or https address"),
        ("nowhere.json", "nowhere.json cannot be read: No such file or directory"),
        ("odd.json", "odd.json is not a JSON Web Key Set"),
        ("pipe.json", "pipe.json is not a file"),
        ("empty.json", "empty.json holds no key for RS256, PS256, ES256 or EdDSA"),
    ],
)
def test_a_source_that_is_none_is_a_fault(
    tmp_path: Path, source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.json").write_text("odd")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "empty.json").write_text('{"keys": []}')
    with pytest.raises(ConfigError) as caught:
        settings(config(source), discovered_with([Inbox()]))
    (fault,) = caught.value.faults
    assert fault.pointer == "auth.jwt.jwks"
    assert fault.message.startswith(message)
