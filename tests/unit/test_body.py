"""A body is read within bounds, and as what it says it is."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from notifyd.errors import MalformedError, TooLargeError, UnsupportedMediaError
from notifyd.web.body import BODY_TIMEOUT, INTAKE, Intake, read_body, read_json
from notifyd.web.problems import SlowBodyError

LIMIT = 16


def request(*pieces: bytes, done: bool = True, broken: Exception | None = None, **headers: str) -> Any:
    content = StreamReader(Mock(), 2**16, loop=asyncio.get_running_loop())
    for piece in pieces:
        content.feed_data(piece)
    if done:
        content.feed_eof()
    if broken is not None:
        content.set_exception(broken)
    app = web.Application()
    app[BODY_TIMEOUT] = 0.01
    app[INTAKE] = Intake()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("POST", "/", named, payload=content, app=app)


async def test_a_body_in_one_piece_or_in_many_is_read_whole() -> None:
    assert await read_body(request(b"12345678"), LIMIT) == b"12345678"
    slow = request(b"1234", done=False)
    asyncio.get_running_loop().call_soon(slow.content.feed_data, b"5678")
    asyncio.get_running_loop().call_soon(slow.content.feed_eof)
    assert await read_body(slow, LIMIT) == b"12345678"
    assert await read_body(request(), LIMIT) == b""


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    assert len(await read_body(request(b"x" * LIMIT), LIMIT)) == LIMIT
    for done in (True, False):
        with pytest.raises(TooLargeError, match="16 bytes"):
            await read_body(request(b"x" * (LIMIT + 1), done=done), LIMIT)


async def test_an_announced_length_is_believed_before_anything_is_read() -> None:
    with pytest.raises(TooLargeError):
        await read_body(request(b"", done=False, Content_Length="17"), LIMIT)


async def test_a_body_that_does_not_end_in_time_is_given_up() -> None:
    with pytest.raises(SlowBodyError):
        await read_body(request(b"1234", done=False), LIMIT)


async def test_a_broken_transfer_is_malformed() -> None:
    with pytest.raises(MalformedError):
        await read_body(request(b"1234", done=False, broken=web.RequestPayloadError("chunk")), LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity", ""])
async def test_a_coded_body_is_refused_as_a_signature_covers_what_was_sent(coding: str) -> None:
    with pytest.raises(UnsupportedMediaError):
        await read_body(request(b"{}", Content_Encoding=coding), LIMIT)


@pytest.mark.parametrize("media", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_read(media: str) -> None:
    assert read_json(request(Content_Type=media), b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("media", ["text/json", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_nothing_else_is(media: str) -> None:
    with pytest.raises(UnsupportedMediaError):
        read_json(request(Content_Type=media), b"{}")
