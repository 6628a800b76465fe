"""What the server takes at most, from whom, and what becomes of requests that break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from notifyd.web import create_app, listening_sockets, serving
from tests.daemon import Daemon

PACK = "/notifications/pack-approvals"


@asynccontextmanager
async def served(notifyd: Daemon, body_timeout: float = 10.0) -> AsyncIterator[tuple[str, int]]:
    """The same services behind a server with bounds of its own."""
    (listening,) = await listening_sockets("127.0.0.1", 0)
    address = listening.getsockname()
    async with serving(
        create_app(notifyd.app._services, body_timeout=body_timeout), [listening], lingering=0.1
    ):
        yield address


async def exchange(address: tuple[str, int], raw: bytes, *, then_close: bool = False) -> bytes:
    """Send bytes, and give all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(raw)
    await writer.drain()
    if then_close:
        writer.close()
        return b""
    answer = await reader.read()
    writer.close()
    return answer


def head(notifyd: Daemon, body: bytes, length: int | str, *more: str) -> bytes:
    """The head of a signed POST that says it has `length` bytes to come."""
    lines = [f"POST {PACK} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json", *more]
    lines += [f"{name}: {value}" for name, value in notifyd.signature(body).items()]
    lines.append("Transfer-Encoding: chunked" if length == "chunked" else f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def stored(notifyd: Daemon) -> int:
    return len((await notifyd.get(PACK)).json["items"])


async def test_a_body_that_does_not_come_in_time_is_a_408(notifyd: Daemon) -> None:
    body = orjson.dumps(notifyd.requested())
    async with served(notifyd, body_timeout=0.05) as address:
        answer = await exchange(address, head(notifyd, body, len(body)) + body[:100])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    assert b"X-Correlation-ID: " in answer
    assert await stored(notifyd) == 0


async def test_a_body_that_comes_in_pieces_within_the_time_is_taken(notifyd: Daemon) -> None:
    body = orjson.dumps(notifyd.requested())
    async with served(notifyd) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(head(notifyd, body, len(body)))
        for at in range(0, len(body), 200):
            writer.write(body[at : at + 200])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 202 ")
        writer.close()


async def test_a_caller_that_goes_away_halfway_leaves_nothing_and_no_error(
    notifyd: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    body = orjson.dumps(notifyd.requested())
    async with served(notifyd) as address:
        await exchange(address, head(notifyd, body, len(body)) + body[:100], then_close=True)
    assert await stored(notifyd) == 0
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


async def test_an_announced_size_beyond_the_limit_is_refused_before_it_comes(notifyd: Daemon) -> None:
    async with served(notifyd) as address:
        answer = await asyncio.wait_for(exchange(address, head(notifyd, b"", 10**9)), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer


async def test_a_size_that_is_not_announced_is_bounded_too(notifyd: Daemon) -> None:
    piece = b"1000\r\n" + b" " * 4096 + b"\r\n"
    async with served(notifyd) as address:
        raw = head(notifyd, b"", "chunked") + piece * 65 + b"0\r\n\r\n"
        answer = await asyncio.wait_for(exchange(address, raw), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_the_size_limit_follows_a_reload(notifyd: Daemon) -> None:
    await notifyd.reload(notifyd.text.replace("[server]", '[server]\nmax_body = "1KiB"'))
    body = orjson.dumps(notifyd.requested())
    assert len(body) > 1024
    assert (await notifyd.signed(PACK, body)).status == 413


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /approvals/secret-link HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /approvals/secret-link" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nCookie: secret-link" + b"x" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n"
        + b"".join(b"X-%d: secret-link\r\n" % n for n in range(200))
        + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01secret-link\r\n\r\n",
    ],
    ids=["no header", "long line", "long header", "many headers", "TLS"],
)
async def test_what_is_no_http_is_refused_and_not_quoted_in_the_log(
    notifyd: Daemon, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with served(notifyd) as address:
        answer = await asyncio.wait_for(exchange(address, raw), 5)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer[:100]
    assert "secret-link" not in caplog.text


# --- from whom ---------------------------------------------------------------------------------------------


async def test_the_allowlist_guards_machine_endpoints_and_no_others(notifyd: Daemon) -> None:
    await notifyd.ask()
    page = await notifyd.link()
    await notifyd.reload(notifyd.text.replace("[server]", '[server]\nip_allowlist = ["192.0.2.0/24"]'))
    for path in (PACK, "/api/v1/channels", "/api/v1/audit", "/api/v1/deliveries", "/nowhere"):
        answer = await notifyd.get(path)
        assert (answer.status, answer.json["code"]) == (403, "address_not_allowed")
    answer = await notifyd.signed(PACK, notifyd.requested())
    assert answer.json["code"] == "address_not_allowed"
    for path in (page, "/healthz", "/readyz", "/metrics"):
        assert (await notifyd.get(path, None)).status == 200


async def test_the_metrics_have_an_allowlist_of_their_own(notifyd: Daemon) -> None:
    await notifyd.reload(notifyd.text.replace("[server]", '[server]\nmetrics_allowlist = ["192.0.2.0/24"]'))
    assert (await notifyd.get("/metrics", None)).json["code"] == "address_not_allowed"
    assert (await notifyd.get(PACK)).status == 200


async def test_behind_a_trusted_proxy_the_forwarded_address_counts(notifyd: Daemon) -> None:
    await notifyd.reload(
        notifyd.text.replace(
            "[server]", '[server]\nip_allowlist = ["192.0.2.0/24"]\ntrusted_proxies = ["127.0.0.0/8"]'
        )
    )
    assert (await notifyd.get(PACK, X_Forwarded_For="192.0.2.7")).status == 200
    assert (await notifyd.get(PACK, X_Forwarded_For="192.0.2.7, 198.51.100.1")).status == 403
    assert (await notifyd.get(PACK)).status == 403


async def test_a_refused_address_learns_nothing_of_its_credentials(notifyd: Daemon) -> None:
    await notifyd.reload(notifyd.text.replace("[server]", '[server]\nip_allowlist = ["192.0.2.0/24"]'))
    right, wrong = await notifyd.get(PACK), await notifyd.get(PACK, None, Authorization="Bearer nonsense")
    assert {k: v for k, v in right.json.items() if k != "correlationId"} == {
        k: v for k, v in wrong.json.items() if k != "correlationId"
    }


async def test_a_slow_caller_does_not_hold_up_the_end(notifyd: Daemon) -> None:
    async with asyncio.timeout(5):
        async with served(notifyd) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(head(notifyd, b"", 100, "Expect: 100-continue"))
            await reader.readuntil(b"\r\n\r\n")  # its handler waits for the body now
        assert await reader.read() == b""
        writer.close()
