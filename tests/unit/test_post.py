"""One POST and the verdict on its answer, against real sockets."""

from __future__ import annotations

import asyncio
import socket
import traceback
from base64 import b64encode
from random import Random
from typing import Final

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifyd.config.units import Backoff, Duration
from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.flow.lane import retry_delay
from notifyd.model import SECOND, Receipt
from notifyd.post import (
    ANSWER_LIMIT,
    RETRY_AFTER_CLAMP,
    Answer,
    check_response,
    exact_url,
    hide,
    http_url,
    post,
)
from notifyd.registry.egress import Guard, open_session
from notifyd.security.secrets import Secret
from notifyd.testing import NOW, Reply, Sink

PATH = "/services/T000/B000/a-long-secret-token"


async def test_the_answer_holds_status_headers_and_text() -> None:
    async with Sink() as sink, aiohttp.ClientSession() as http:
        sink.reply = Reply(418, "teapot", {"X-Pot": "short"})
        answer = await post(http, Secret(sink.url + PATH), b"{}", {"x-key": Secret("hidden-header")})
    assert (answer.status, answer.text, answer.headers["x-pot"]) == (418, "teapot", "short")
    (request,) = sink.received
    assert (request.path, request.body, request.headers["x-key"]) == (PATH, b"{}", "hidden-header")


async def test_what_the_answer_repeats_of_the_requests_secrets_is_hidden() -> None:
    async with Sink() as sink, aiohttp.ClientSession() as http:
        url = Secret(sink.url + PATH + "?sig=another%20long%20secret")
        sink.reply = Reply(404, f"{url.reveal()} {PATH} another long secret hidden-header")
        answer = await post(http, url, b"{}", {"x-key": Secret("hidden-header")})
    assert answer.text == "*** /services/T000/B000/*** *** ***"


async def test_only_the_beginning_of_an_answer_is_read() -> None:
    async with Sink() as sink, aiohttp.ClientSession() as http:
        sink.reply = Reply(200, "x" * 1_000_000)
        answer = await post(http, Secret(sink.url), b"{}")
    assert len(answer.text) == ANSWER_LIMIT


async def test_a_body_that_breaks_off_leaves_the_status_as_the_verdict() -> None:
    async def half_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as http:
        answer = await post(http, Secret(f"http://127.0.0.1:{port}/"), b"{}")
    assert (answer.status, answer.text) == (200, "half")


async def test_a_refused_connection_is_transient_and_shows_no_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with aiohttp.ClientSession() as http:
        with pytest.raises(TransientError) as caught:
            await post(http, Secret(f"http://127.0.0.1:{port}{PATH}"), b"{}")
    assert caught.value.reason is Reason.NETWORK
    assert caught.value.detail == "the receiver cannot be reached: Connection refused"
    assert "a-long-secret-token" not in "".join(traceback.format_exception(caught.value))


async def test_an_address_that_egress_forbids_is_transient() -> None:
    async with Sink() as sink, open_session(Guard(())) as http:
        with pytest.raises(TransientError) as caught:
            await post(http, Secret(sink.url + PATH), b"{}")
    assert caught.value.reason is Reason.EGRESS_REFUSED
    assert sink.received == []


async def test_a_timeout_of_the_session_is_transient() -> None:
    async with Sink() as sink, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as http:
        sink.silent = True
        with pytest.raises(TransientError) as caught:
            await post(http, Secret(sink.url), b"{}")
    assert caught.value.reason is Reason.TIMEOUT


async def test_a_name_that_does_not_resolve_is_transient() -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(TransientError, match="does not resolve"):
            await post(http, Secret("http://nowhere.invalid/x"), b"{}")


def test_2xx_is_a_receipt() -> None:
    assert check_response(202, {}, "body", now=NOW) == Receipt(status=202)


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (302, PermanentError, Reason.REJECTED),
        (400, PermanentError, Reason.REJECTED),
        (401, PermanentError, Reason.UNAUTHORIZED),
        (403, PermanentError, Reason.UNAUTHORIZED),
        (404, PermanentError, Reason.NOT_FOUND),
        (408, TransientError, Reason.TIMEOUT),
        (410, PermanentError, Reason.NOT_FOUND),
        (413, PermanentError, Reason.TOO_LARGE),
        (425, TransientError, Reason.THROTTLED),
        (429, TransientError, Reason.THROTTLED),
        (500, TransientError, Reason.SERVER_ERROR),
        (599, TransientError, Reason.SERVER_ERROR),
    ],
)
def test_every_other_status_is_one_of_the_two_errors(
    status: int, kind: type[TransientError | PermanentError], reason: Reason
) -> None:
    with pytest.raises(kind) as caught:
        check_response(status, {}, "y" * 1000, now=NOW, said="no\nsuch  thing")
    error = caught.value
    assert (error.reason, error.status, len(error.excerpt)) == (reason, status, 500)
    assert error.detail == f"the receiver answered {status}: no such thing"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("2.128", 2.128),
        ("Mon, 21 Sep 2026 14:14:20 GMT", 60.0),
        ("Mon, 21 Sep 2026 14:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 20, RETRY_AFTER_CLAMP),
        ("9" * 4000, RETRY_AFTER_CLAMP),
        ("0" * 4000 + "3", 3.0),
        ("Mon, 21 Sep 9999 14:00:00 GMT", RETRY_AFTER_CLAMP),
        ("Mon, 21 Sep 2026 14:14:20 +9999999999", None),
        ("Mon, 21 Sep 2026 14:14:20 -0000", 60.0),
        ("Monday, 21-Sep-26 14:14:20 GMT", 60.0),
        ("Mon Sep 21 14:14:20 2026", 60.0),
        ("", None),
        ("²", None),
        ("Mon, 99 Sep 2026 14:14:20 GMT", None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(header: str, seconds: float | None) -> None:
    with pytest.raises(TransientError) as caught:
        check_response(503, {"Retry-After": header}, now=NOW)
    assert caught.value.retry_after == seconds


def test_a_vendors_own_form_wins_over_the_header() -> None:
    with pytest.raises(TransientError) as caught:
        check_response(429, {"Retry-After": "9"}, now=NOW + SECOND, retry_after=0.5)
    assert caught.value.retry_after == 0.5


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(7, 7.0), (64.57, 64.57), ("7", 7.0), (10**400, RETRY_AFTER_CLAMP), (1e300, RETRY_AFTER_CLAMP)],
)
def test_a_vendors_wait_is_taken_as_a_number_or_its_text(given: object, seconds: float) -> None:
    with pytest.raises(TransientError) as caught:
        check_response(429, {}, now=NOW, retry_after=given)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "nonsense",
    [-1.0, -(10**400), float("nan"), float("inf"), True, "soon", "-3", "nan", "1e3", [], {"in": 3}],
)
def test_a_vendors_wait_that_is_no_time_is_passed_over(nonsense: object) -> None:
    with pytest.raises(TransientError) as caught:
        check_response(429, {"Retry-After": "9"}, now=NOW, retry_after=nonsense)
    assert caught.value.retry_after == 9.0


DATES: Final = st.from_regex(
    r"[A-Z][a-z]{2,8},? [0-9]{1,5}[ -][A-Z][a-z]{2}[ -][0-9]{1,6} "
    r"[0-9]{1,3}(:[0-9]{1,3}){1,2} (GMT|[+-]?[0-9]{1,40})?"
)
ANY_TEXT: Final = st.text(st.characters(exclude_categories=())) | st.from_regex(r"[0-9.,+eE-]*") | DATES
ANY_JSON: Final = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.lists(st.integers())


@example("Mon, 21 Sep 2026 14:14:20 +" + "9" * 4000, None, 429, 1)
@given(ANY_TEXT, ANY_JSON, st.sampled_from([408, 425, 429, 500, 503]), st.integers(1, 2000))
def test_whatever_a_receiver_says_of_waiting_the_wait_is_within_the_schedule(
    header: str, vendors: object, status: int, tries: int
) -> None:
    backoff = Backoff(Duration(SECOND), Duration(900 * SECOND))
    with pytest.raises(TransientError) as caught:
        check_response(status, {"Retry-After": header}, now=NOW, retry_after=vendors)
    asked = caught.value.retry_after
    assert asked is None or 0 <= asked <= RETRY_AFTER_CLAMP
    step = min(SECOND * 2 ** min(tries - 1, 40), 900 * SECOND)
    wait = retry_delay(tries, backoff, asked, Random(1))  # noqa: S311 - no secret
    assert (0 if asked is None else step) <= wait <= 900 * SECOND


@pytest.mark.parametrize("text", ["[" * 4000, '{"a":' * 700, "9" * 4096, '{"a": NaN}', "\ud800", ""])
def test_an_answers_json_is_an_object_whatever_came(text: str) -> None:
    assert isinstance(Answer(200, {}, text).json, dict)


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://h/a?sp=%2Fa%2Fb", "/a?sp=%2Fa%2Fb", "h"),
        ("https://h", "/", "h"),
        ("https://h?x", "/?x", "h"),
        ("https://h/a?", "/a?", "h"),
        ("https://h/a/./../b//c", "/a/./../b//c", "h"),
        ("https://h/%zz%", "/%zz%", "h"),
        ("https://h/a?b?c#d?e", "/a?b?c", "h"),
        ("https://h/<>\"{}|^`[]'", "/<>\"{}|^`[]'", "h"),
        ("https://h/a@b:c", "/a@b:c", "h"),
        ("https://h/ä?ö=%C3", "/%C3%A4?%C3%B6=%C3", "h"),
        ("HTTPS://H.Example:8443/X", "/X", "h.example:8443"),
        ("https://faß.example/", "/", "xn--fa-hia.example"),
        ("https://u%40:p%2F@h/x", "/x", "u%40:p%2F@h"),
        ("https://[::1]:8080/x", "/x", "[::1]:8080"),
    ],
)
def test_a_url_is_requested_as_it_is_written(url: str, target: str, authority: str) -> None:
    exact = exact_url(url)
    assert (exact.raw_path_qs, exact.raw_authority) == (target, authority)


@given(st.from_regex(r"/[\x21\x22\x24-\x7e]*", fullmatch=True))
def test_any_target_of_printable_ascii_stays_as_it_is(target: str) -> None:
    assert exact_url("https://h.example" + target + "#x").raw_path_qs == target


async def test_a_user_and_password_in_a_url_are_sent_as_basic_authentication() -> None:
    async with Sink() as sink, aiohttp.ClientSession() as http:
        await post(http, Secret(sink.url.replace("//", "//us%40er:p%3Ass@") + "/a%2Fb"), b"{}")
    assert sink.received[0].headers["authorization"] == "Basic " + b64encode(b"us@er:p:ss").decode()


async def test_what_is_no_url_is_a_permanent_error_that_does_not_show_it() -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(PermanentError) as caught:
            await post(http, Secret("https://h:x/" + PATH), b"{}")
    assert PATH not in "".join(traceback.format_exception(caught.value))


def test_hiding_takes_long_pieces_of_a_url_and_leaves_its_words() -> None:
    secret = Secret("https://user:long-password@hooks.example/services/T0/abcdefghijkl")
    shown = hide("long-password at hooks.example/services/T0/abcdefghijkl as user", [secret, Secret("")])
    assert shown == "*** at hooks.example/services/T0/*** as user"


def test_hiding_takes_the_host_of_a_url_whose_scheme_is_a_services_own() -> None:
    assert hide("sent to T1JJ3T3L2ABC", [Secret("slack://T1JJ3T3L2ABC/x")]) == "sent to ***"


@pytest.mark.parametrize("url", ["https://a.example/x", "http://127.0.0.1:8080", "https://[::1]/"])
def test_an_http_url_is_accepted(url: str) -> None:
    http_url(None, None, Secret(url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example/x",
        "ftp://a.example",
        "https://",
        "http://a:0/",
        "http://a:x/",
        "http://[::/",
        "http://a b/",
        "http://a%3Ab:c@a/",
        "http://a:%E2%82%AC@a/",
        "http://a/\n",
    ],
)
def test_anything_else_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL with a host") as caught:
        http_url(None, None, Secret(url))
    assert not url or url not in str(caught.value)
