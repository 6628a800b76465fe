"""The status line is the verdict: what a receiver does after it, against raw sockets, changes nothing."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final

import aiohttp
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from notifyd.errors import Reason, TransientError
from notifyd.heads import read_head
from notifyd.post import ANSWER_LIMIT, Answer, check_response, post
from notifyd.registry.egress import Guard, open_session
from notifyd.security.secrets import Secret
from notifyd.testing import NOW
from tests.receivers import ENDINGS, HEAD, Then, receiver


async def answered(*writes: bytes, then: Then = Then.HOLD) -> Answer:
    """What `post` makes of it, through the session that channels have."""
    async with receiver(*writes, then=then) as url, open_session(Guard(("127.0.0.1",))) as http:
        return await post(http, Secret(url), b"{}")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifyd.post.ANSWER_TIME", 0.05)


async def verdicts(status: int, then: Then) -> dict[str, tuple[int, str | None]]:
    """Status and `Retry-After` of the answer, for each of the endings."""

    async def one(name: str, head: bytes, *rest: bytes) -> tuple[str, tuple[int, str | None]]:
        answer = await answered(HEAD % status + head, *rest, then=then)
        return name, (answer.status, answer.headers.get("Retry-After"))

    return dict(await asyncio.gather(*(one(name, *ending) for name, ending in ENDINGS.items())))


@pytest.mark.parametrize("then", Then)
@pytest.mark.parametrize("status", [101, 200, 204, 302, 429, 500])
async def test_whatever_follows_the_status_line_changes_nothing(status: int, then: Then) -> None:
    assert await verdicts(status, then) == dict.fromkeys(ENDINGS, (status, "7"))


def test_the_same_holds_on_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(verdicts(200, Then.HOLD))
    assert found == dict.fromkeys(ENDINGS, (200, "7"))


async def test_the_same_holds_for_a_session_of_somebody_elses() -> None:
    both = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with receiver(both) as url, aiohttp.ClientSession() as http:
        assert (await post(http, Secret(url), b"{}")).status == 200


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 202 Accepted\r\n",
        b"HTTP/1.1 202\r\n",
        b"HTTP/1.1 202 \r\n",
        b"HTTP/1.1 202 \xe4\x00 202 HTTP/1.1\r\n",
        b"HTTP/1.1 202 OK\n",
        b"HTTP/1.0 202 OK\r\n",
        b"HTTP/2 202 OK\r\n",
        b"http/1.1 202 ok\r\n",
        b"HTTP/1.1   202\tOK\r\n",
        b"\r\n\r\nHTTP/1.1 202 OK\r\n",
    ],
)
async def test_a_status_line_may_be_odd(line: bytes) -> None:
    answer = await answered(line + b"\r\nok", then=Then.CLOSE)
    assert answer.status == 202


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"220 mail\r\n",
    ],
)
@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET])
async def test_without_a_status_line_the_receiver_is_tried_again(line: bytes, then: Then) -> None:
    with pytest.raises(TransientError) as caught:
        await answered(line, then=then)
    assert caught.value.reason is Reason.NETWORK


INTERIM: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nRetry-After: 99\r\n\r\n"


@pytest.mark.parametrize("ending", ["no length", "both lengths"])
@pytest.mark.parametrize("count", [1, 3000])
async def test_interim_answers_are_passed_over_however_many(count: int, ending: str) -> None:
    head, *rest = ENDINGS[ending]
    answer = await answered(INTERIM * count, HEAD % 200 + head, *rest)
    assert (answer.status, answer.headers["Retry-After"]) == (200, "7")


async def test_an_interim_answer_alone_is_none() -> None:
    with pytest.raises(TransientError):
        await answered(INTERIM, b"HTTP/1.1 100 Continue\r\n", then=Then.CLOSE)


@pytest.mark.parametrize("writes", [HEAD % 200 + b"\r\n", HEAD % 200], ids=["in the body", "in the head"])
async def test_a_cancellation_comes_too_late_once_the_status_is_known(
    writes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.post.ANSWER_TIME", 60.0)
    async with asyncio.timeout(0.3):
        answer = await answered(writes)
    assert answer.status == 200
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_sessions_timeout_comes_too_late_as_well() -> None:
    timeout = aiohttp.ClientTimeout(total=0.3)
    async with receiver(HEAD % 200) as url, aiohttp.ClientSession(timeout=timeout) as http:
        assert (await post(http, Secret(url), b"{}")).status == 200


@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET])
async def test_a_head_that_breaks_off_has_a_status(then: Then) -> None:
    answer = await answered(HEAD % 503, b"X-Half: ", b"y", then=then)
    assert (answer.status, dict(answer.headers)) == (503, {"Retry-After": "7"})


@pytest.mark.filterwarnings("ignore:Sending a large body")  # which is meant here
async def test_an_answer_may_come_before_the_request_has_been_read() -> None:
    async with receiver(HEAD % 413 + b"Content-Length: 0\r\n\r\n") as url, aiohttp.ClientSession() as http:
        answer = await post(http, Secret(url), b"{}" + b" " * 20_000_000)
    assert answer.status == 413


async def test_a_compressed_body_is_not_opened() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    head = HEAD % 500 + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    answer = await answered(head + bomb)
    assert (answer.status, answer.text) == (500, "")


async def test_of_a_body_that_does_not_end_what_came_is_kept() -> None:
    answer = await answered(HEAD % 500 + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n")
    with pytest.raises(TransientError) as caught:
        check_response(answer.status, answer.headers, answer.text, now=NOW)
    assert (caught.value.excerpt, caught.value.retry_after) == ("busy", 7.0)


async def test_a_body_without_end_is_read_to_its_bound_only() -> None:
    answer = await answered(HEAD % 200 + b"\r\n", *[b"x" * 1000] * 100)
    assert len(answer.text) == ANSWER_LIMIT


async def test_a_connection_is_used_again_after_a_sound_answer() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(INTERIM + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = Secret(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with server, aiohttp.ClientSession() as http:
        assert [(await post(http, url, b"{}")).text for _ in range(3)] == ["ok"] * 3
    assert connections == 1


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_make_the_reading_of_a_head_fail(data: bytes, begun: bool) -> None:
    head = read_head(b"HTTP/1.1 200 OK\r\n" * begun + data)
    assert head is not None or not begun
