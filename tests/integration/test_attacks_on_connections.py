"""Floods of connections, bodies and guesses, scaled down: each test bears the name of an attack that worked."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from notifyd.web import attempts, connections
from notifyd.web.edge import ONCE
from tests.daemon import CONFIG, Daemon, daemon
from tests.process import DaemonProcess, daemon_process
from tests.waiting import until, until_async

PACK = "/notifications/pack-approvals"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEALTH_ONCE = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Line:
    """One connection of an attacker, from one of the loopback's addresses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address: tuple[str, int], source: str = "127.0.0.1") -> Line:
        return cls(*await asyncio.open_connection(*address, local_addr=(source, 0)))

    async def send(self, *pieces: bytes) -> None:
        """As much as is taken before the other side hangs up."""
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
        except ConnectionError:
            return

    async def answer(self) -> bytes:
        """All that comes until the other side hangs up, or a whole short answer."""
        try:
            return await self.reader.read(64 * 1024)
        except ConnectionError:
            return b""

    async def closed(self) -> bool:
        return not await self.answer()

    def close(self) -> None:
        self.writer.transport.abort()


async def exchange(address: tuple[str, int], *pieces: bytes, source: str = "127.0.0.1") -> bytes:
    line = await Line.open(address, source)
    try:
        async with asyncio.timeout(10):
            await line.send(*pieces)
            answer = b""
            while piece := await line.answer():
                answer += piece
            return answer
    finally:
        line.close()


def close_all(lines: Iterable[Line]) -> None:
    for line in lines:
        line.close()


def server(options: str) -> str:
    return CONFIG.replace("[server]", f"[server]\n{options}")


# --- broken HTTP -------------------------------------------------------------------------------------------

BROKEN = {
    "HTTP/0.9": b"GET /approvals/secret-link\r\n\r\n",
    "no HTTP": b"\x00\xff secret-link\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nsecret-link\r\n\r\n",
    "a method nobody knows": b"SECRET-LINK / HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a version of another wire": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: secret-link\r\n\r\n",
    "two types": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: secret-link\r\n\r\n",
    "no host": b"GET /approvals/secret-link HTTP/1.1\r\n\r\n",
}


@pytest.fixture
async def notifyd(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path) as running:
        yield running


def is_discreet(answer: bytes) -> bool:
    """Does it name no version and quote nothing?"""
    return not re.search(rb"aiohttp|python/|secret-link|traceback", answer, re.I)


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_broken_http_and_http_0_9_get_a_problem_document_that_quotes_nothing(
    notifyd: Daemon, raw: bytes
) -> None:
    answer = await exchange(notifyd.app.address, raw)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b"application/problem+json" in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = orjson.loads(body)
    assert problem["code"] == "malformed_request"
    assert problem["detail"]
    assert f"X-Correlation-ID: {problem['correlationId']}".encode() in head
    assert is_discreet(answer)
    told = (await notifyd.get("/metrics", None)).text
    assert 'notifyd_http_requests_total{route="other",status="400"} 1.0' in told


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", PACK])
@pytest.mark.parametrize("expected", ["foo", "secret-link", "100-continue, foo"])
async def test_expect_foo_gets_a_problem_document_that_quotes_nothing(
    notifyd: Daemon, path: str, expected: str
) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: {expected}\r\n\r\n"
    answer = await exchange(notifyd.app.address, head.encode())
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b'"code":"expectation_failed"' in answer
    assert is_discreet(answer)


async def test_every_answer_names_no_version(notifyd: Daemon) -> None:
    for raw in (
        HEALTH_ONCE,
        HEALTH_ONCE.replace(b"/healthz", b"/nowhere"),
        HEALTH_ONCE.replace(b"GET", b"PUT"),
    ):
        answer = await exchange(notifyd.app.address, raw)
        assert b"\r\nServer: notifyd\r\n" in answer
        assert is_discreet(answer)


async def test_headers_that_never_end_are_refused(notifyd: Daemon) -> None:
    endless = [b"GET / HTTP/1.1\r\nHost: x\r\n", *(b"X-%d: %s\r\n" % (n, b"x" * 4000) for n in range(100))]
    answer = await exchange(notifyd.app.address, *endless)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


# --- headers that are read once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "private"),
    [
        ("https", True),
        ("https, http", False),
        ("http, https", True),
        ("HTTPS", True),
        ("http", False),
        ("", False),
    ],
)
async def test_x_forwarded_proto_https_http_is_what_the_trusted_proxy_says(
    tmp_path: Path, forwarded: str, private: bool
) -> None:
    text = server('trusted_proxies = ["127.0.0.0/8"]') + '\n[approvals]\nreturn_resume_token = "plain"\n'
    async with daemon(tmp_path, text) as notifyd:
        headers = {"X_Forwarded_For": "127.0.0.1", "X_Forwarded_Proto": forwarded}
        document = await notifyd.ask()
        path = "{}/{runId}/{approvalId}/ack".format(PACK, **document)
        ballot = {"decision": "approved", "planHash": document["planHash"]}
        answer = await notifyd.post(path, ballot, "task-runner", **headers)
        assert answer.status == 200, answer.text
        assert (answer.json["resume"]["token"] == document["resume"]["token"]) is private


@pytest.mark.parametrize("name", [*sorted(ONCE), "ce-id", "ce-x"])
async def test_a_header_of_which_one_is_read_is_refused_twice(notifyd: Daemon, name: str) -> None:
    head = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{name}: a\r\n{name.upper()}: b\r\n\r\n"
    answer = await exchange(notifyd.app.address, head.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_header"' in answer


async def test_headers_that_are_lists_may_stand_twice(notifyd: Daemon) -> None:
    head = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: a/b\r\nAccept: c/d\r\n\r\n"
    assert (await exchange(notifyd.app.address, head.encode())).startswith(b"HTTP/1.1 200 ")


# --- upgrades ------------------------------------------------------------------------------------------------

UPGRADE = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def test_an_upgrade_is_refused_and_its_connection_closed(notifyd: Daemon) -> None:
    answer = await exchange(notifyd.app.address, UPGRADE, b"\0" * 100_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert is_discreet(answer)
    assert (await exchange(notifyd.app.address, UPGRADE)).startswith(b"HTTP/1.1 400 ")


async def test_an_offer_of_h2c_is_passed_over(notifyd: Daemon) -> None:
    """Java's client makes it with each request over plain HTTP."""
    head = (
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n"
    )
    assert (await exchange(notifyd.app.address, head.encode())).startswith(b"HTTP/1.1 200 ")


# --- bodies of the unknown -----------------------------------------------------------------------------------


def body_head(path: str, size: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/approvals/x", ["Content-Type: application/x-www-form-urlencoded"], 404),
        (PACK, [], 401),
        (PACK, ["Authorization: Bearer guess"], 401),
        (PACK, ["X-Notifyd-Client: task-runner", "webhook-signature: v1,x"], 401),
        ("/api/v1/events", ["webhook-id: a", "webhook-timestamp: 1", "webhook-signature: v1,x"], 401),
        ("/api/v1/purge", ["Authorization: Bearer guess"], 401),
        (f"{PACK}/run/approval/ack", [], 401),
    ],
)
async def test_a_body_is_asked_for_only_where_link_or_identity_are_plausible(
    notifyd: Daemon, path: str, more: list[str], status: int
) -> None:
    """The answer comes although not one byte of the body does, and nobody says that it may come."""
    line = await Line.open(notifyd.app.address)
    await line.send(body_head(path, 250_000, "Expect: 100-continue", *more))
    assert (await line.answer()).startswith(b"HTTP/1.1 %d " % status)
    line.close()


async def test_who_waits_to_be_told_to_go_on_is_told_once_it_may_be_somebody(notifyd: Daemon) -> None:
    answer = await notifyd.call(
        "POST",
        "/api/v1/purge",
        data=b'{"dryRun": true}',
        headers={"Authorization": "Bearer token-of-operator", "Content-Type": "application/json"},
        expect100=True,
    )
    assert answer.status == 200


async def test_bodies_on_their_way_in_are_bounded_together(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.web.body.IN_FLIGHT", 300_000)
    async with daemon_with_little_intake(notifyd) as address:
        head = body_head(
            "/api/v1/purge",
            200_000,
            "Authorization: Bearer token-of-operator",
            "Content-Type: application/json",
        )
        first, second = await Line.open(address), await Line.open(address)
        await first.send(head.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert b"100 Continue" in await first.answer()
        await second.send(head)
        assert (await second.answer()).startswith(b"HTTP/1.1 503 ")
        await first.send(b"{}" + b" " * 199_998)
        assert (await first.answer()).startswith(b"HTTP/1.1 200 ")
        close_all([first, second])


@asynccontextmanager
async def daemon_with_little_intake(notifyd: Daemon) -> AsyncIterator[tuple[str, int]]:
    from notifyd.web import create_app, listening_sockets, serving
    from notifyd.web.body import INTAKE, Intake

    app = create_app(notifyd.app._services)
    app[INTAKE] = Intake(300_000)
    (listening,) = await listening_sockets("127.0.0.1", 0)
    address = listening.getsockname()
    async with serving(app, [listening], lingering=0.1):
        yield address


# --- too many ------------------------------------------------------------------------------------------------


async def test_idle_connections_of_one_address_make_way_for_its_newest(tmp_path: Path) -> None:
    async with daemon(tmp_path, server("max_connections_per_client = 5")) as notifyd:
        address = notifyd.app.address
        idle = [await Line.open(address, "127.0.0.2") for _ in range(5)]
        other = await Line.open(address, "127.0.0.3")
        newest = await Line.open(address, "127.0.0.2")
        await newest.send(HEALTH)
        assert (await newest.answer()).startswith(b"HTTP/1.1 200 ")
        assert await idle[0].closed()
        await other.send(HEALTH)
        assert (await other.answer()).startswith(b"HTTP/1.1 200 ")
        close_all([*idle, other, newest])


async def test_8000_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    async with daemon(tmp_path, server("max_connections = 20")) as notifyd:
        address = notifyd.app.address
        idle = [await Line.open(address, f"127.0.1.{n % 100 + 1}") for n in range(80)]
        for _ in range(3):
            assert (await exchange(address, HEALTH_ONCE)).startswith(b"HTTP/1.1 200 ")
        assert (await notifyd.get("/api/v1/channels")).status == 200
        samples = (await notifyd.get("/metrics", None)).text
        assert float(re.findall(r"^notifyd_connections (\S+)", samples, re.M)[0]) <= 20
        close_all(idle)


@asynccontextmanager
async def busy(notifyd: Daemon, count: int, source: str) -> AsyncIterator[list[Line]]:
    """Connections whose requests are under way: they are known, and their bodies come slowly."""
    head = body_head(
        "/api/v1/purge", 10, "Authorization: Bearer token-of-operator", "Content-Type: application/json"
    )
    lines = [await Line.open(notifyd.app.address, source) for _ in range(count)]
    for line in lines:
        await line.send(head.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert b"100 Continue" in await line.answer()
    yield lines
    close_all(lines)


async def test_with_every_place_busy_the_probes_are_answered_and_others_told(tmp_path: Path) -> None:
    text = server("max_connections = 4")
    async with daemon(tmp_path, text) as notifyd, busy(notifyd, 4, "127.0.0.2"):
        address = notifyd.app.address
        for path in (b"/healthz", b"/readyz", b"/metrics"):
            answer = await exchange(address, HEALTH.replace(b"/healthz", path))
            assert answer.startswith(b"HTTP/1.1 200 ")
        refused = await exchange(address, HEALTH.replace(b"/healthz", b"/openapi.json"))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in refused


async def test_with_all_its_connections_busy_an_address_is_told_and_others_are_served(tmp_path: Path) -> None:
    text = server("max_connections_per_client = 4")
    async with daemon(tmp_path, text) as notifyd, busy(notifyd, 4, "127.0.0.2"):
        address, ask = notifyd.app.address, HEALTH.replace(b"/healthz", b"/openapi.json")
        refused = await exchange(address, ask, source="127.0.0.2")
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b'"code":"too_many_requests"' in refused
        other = await Line.open(address, "127.0.0.3")
        await other.send(ask)
        assert (await other.answer()).startswith(b"HTTP/1.1 200 ")
        other.close()


async def test_the_surplus_is_bounded_too_and_does_not_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SURPLUS_LIFE", 0.2)
    text = server("max_connections = 2")
    async with daemon(tmp_path, text) as notifyd, busy(notifyd, 2, "127.0.0.2"):
        silent = [await Line.open(notifyd.app.address) for _ in range(connections.SURPLUS + 1)]
        assert await silent[-1].closed()
        assert await silent[0].closed()

        async def answered() -> bool:
            return (await exchange(notifyd.app.address, HEALTH)).startswith(b"HTTP/1.1 200 ")

        await until_async(answered)
        close_all(silent)


async def test_requests_under_way_are_bounded_behind_a_proxy_by_the_address_it_tells(tmp_path: Path) -> None:
    text = server(
        'max_requests_per_client = 2\ntrusted_proxies = ["127.0.0.0/8"]\nip_allowlist = ["192.0.2.0/24"]'
    )
    async with daemon(tmp_path, text) as notifyd:
        head = body_head(
            "/api/v1/purge",
            10,
            "Authorization: Bearer token-of-operator",
            "Content-Type: application/json",
            "X-Forwarded-For: 192.0.2.7",
            "Expect: 100-continue",
        )
        lines = [await Line.open(notifyd.app.address) for _ in range(3)]
        for line in lines:
            await line.send(head)
        answers = [await line.answer() for line in lines]
        assert sorted(answer[:12] for answer in answers) == [b"HTTP/1.1 100"] * 2 + [b"HTTP/1.1 429"]
        assert (await notifyd.get("/api/v1/channels", X_Forwarded_For="192.0.2.8")).status == 200
        close_all(lines)


async def test_the_limits_follow_a_reload(tmp_path: Path) -> None:
    async with daemon(tmp_path, server("max_connections = 4")) as notifyd:
        await notifyd.reload(notifyd.text.replace("max_connections = 4", "max_connections = 1"))
        async with busy(notifyd, 1, "127.0.0.2"):
            refused = await exchange(notifyd.app.address, HEALTH.replace(b"/healthz", b"/openapi.json"))
            assert refused.startswith(b"HTTP/1.1 503 ")


# --- guesses -------------------------------------------------------------------------------------------------


async def statuses(notifyd: Daemon, token: str, count: int, source: str) -> list[int]:
    connector = aiohttp.TCPConnector(local_addr=(source, 0), limit=8)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> int:
            headers = {"Authorization": f"Bearer {token}{number if token == 'guess' else ''}"}
            async with session.get(f"{notifyd.url}/api/v1/channels", headers=headers) as answer:
                return answer.status

        return list(await asyncio.gather(*map(one, range(count))))


async def test_24312_token_guesses_are_soon_refused_unheard(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attempts, "RATE", 0.01)
    assert (await notifyd.get("/api/v1/channels")).status == 200
    found = await statuses(notifyd, "guess", 300, "127.0.0.1")
    assert set(found) == {401, 429}
    assert found.count(401) <= attempts.BURST + 8  # those that were under way
    assert (
        "refused unknown at 127.0.0.1 on /api/v1/channels: too_many_requests: too many failed proofs"
        in caplog.text
    )
    # A right guess is not heard either; a token that was right before is, and so are other addresses.
    assert await statuses(notifyd, "token-of-operator", 1, "127.0.0.1") == [429]
    assert (await notifyd.get("/api/v1/channels")).status == 200
    assert await statuses(notifyd, "token-of-operator", 1, "127.0.0.2") == [200]
    assert (await notifyd.signed(PACK, notifyd.requested())).status == 202
    assert (await notifyd.get("/healthz", None)).status == 200


async def test_guessed_signatures_shut_out_nobody_else(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "RATE", 0.01)
    monkeypatch.setattr(attempts, "BURST", 5.0)
    body = b"{}"
    forged = notifyd.signature(body, "outsider") | {"X-Notifyd-Client": "task-runner"}
    found = [(await notifyd.call("POST", PACK, data=body, headers=forged)).status for _ in range(8)]
    assert found == [401] * 5 + [429] * 3
    assert (await notifyd.signed("/api/v1/events", cloud_event(), "outsider")).status == 202
    assert (await notifyd.get("/api/v1/channels")).status == 200


def cloud_event() -> dict[str, str]:
    return {"specversion": "1.0", "id": "e-1", "source": "//ci", "type": "task.done", "tenant": "globex"}


async def test_a_caller_who_has_guessed_too_often_is_told_when_to_come_again(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "BURST", 1.0)
    assert (await notifyd.get("/api/v1/channels", None, Authorization="Bearer guess")).status == 401

    async def heard_again() -> bool:
        answer = await notifyd.get("/api/v1/channels", None, Authorization="Bearer guess")
        assert answer.status == 401 or answer.headers["Retry-After"] == "1"
        return answer.status == 401

    await until_async(heard_again)


# --- memory and descriptors ----------------------------------------------------------------------------------


def peak(process: DaemonProcess) -> int:
    """The most memory that a daemon has held since it was last asked, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024


def descriptors(process: DaemonProcess) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


ZEROS = [b"\0" * 250_000] * 4
FLOODS = {
    "an upgrade, then zeros": [UPGRADE, *ZEROS],
    "raw garbage": [b"\xff\0garbage" * 30_000],
    "a body to a link that is none": [
        body_head("/approvals/x", 500_000, "Content-Type: application/x-www-form-urlencoded"),
        b"x" * 250_000,
    ],
    "a body under a signature that is none": [
        body_head(PACK, 500_000, "X-Notifyd-Client: task-runner", "webhook-signature: v1,x"),
        b"x" * 250_000,
    ],
    "headers without end": [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        *(b"X: " + b"x" * 8000 + b"\r\n" for _ in range(30)),
    ],
    "requests without waiting for answers": [HEALTH * 4000],
}
"""What each of many connections sends. A quarter of a megabyte for each of them was more than 50 MB."""


async def test_floods_of_upgrades_garbage_and_bodies_take_no_memory(tmp_path: Path) -> None:
    async with daemon_process(tmp_path, "") as process:
        address = ("127.0.0.1", process.port)
        grown = {}
        for name, pieces in FLOODS.items():
            peak(process)
            before = peak(process)  # what it holds now: the first has set the mark back
            lines = [await Line.open(address, f"127.0.2.{n % 5 + 1}") for n in range(200)]
            await asyncio.gather(*(line.send(*pieces[:1]) for line in lines))
            async with asyncio.timeout(30):
                await asyncio.gather(*(_push(line, pieces[1:]) for line in lines))
            assert (await process.call("GET", "/healthz")).status == 200
            grown[name] = peak(process) - before
            close_all(lines)
        assert {name: size for name, size in grown.items() if size > 30} == {}


async def _push(line: Line, pieces: list[bytes]) -> None:
    """Send as much as is taken within a moment: who is not read any more would wait."""
    try:
        async with asyncio.timeout(1):
            await line.send(*pieces)
    except TimeoutError:
        return


async def test_descriptors_used_up_pause_accepting_and_leave_readiness_and_the_rest(tmp_path: Path) -> None:
    async with daemon_process(tmp_path, "") as process:
        address = ("127.0.0.1", process.port)
        kept = await Line.open(address)
        await kept.send(HEALTH)
        assert (await kept.answer()).startswith(b"HTTP/1.1 200 ")
        used = descriptors(process)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 10, hard))
        idle = [await Line.open(address, "127.0.0.2") for _ in range(40)]
        await process.logged("accepting connections pauses until there is room: Too many open files")

        async def ready() -> bool:
            return (await exchange(address, HEALTH_ONCE.replace(b"/healthz", b"/readyz"))).startswith(
                b"HTTP/1.1 200 "
            )

        await until_async(ready)
        assert await until(lambda: descriptors(process) <= used + 10)
        close_all([*idle, kept])
