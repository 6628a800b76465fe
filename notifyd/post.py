"""Sending one HTTP request and judging its answer: what every channel that posts has in common.

No error raised here shows the URL it was sent to, because a URL may hold a secret.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import ssl
import string
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from attrs import frozen
from multidict import CIMultiDict
from yarl import URL

from notifyd import tracing
from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.heads import HEAD_LIMIT, forgive, status_counts
from notifyd.hosts import ascii_host
from notifyd.model import SECOND, Receipt
from notifyd.security.secrets import HIDDEN, Secret
from notifyd.text import fit, json_object, one_line

EXCERPT_LIMIT: Final = 500
"""How many characters of a receiver's answer are kept with an attempt."""

ANSWER_LIMIT: Final = 4096
"""How many bytes of a receiver's answer are read."""

ANSWER_TIME: Final = 1.0
"""Seconds that the body of an answer may take to come, once its status is known."""

RETRY_AFTER_CLAMP: Final = 1e9
"""Seconds: beyond any wait that is granted. A receiver that asks for more asks for this."""

_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")  # with a fraction, as some services send it

_TARGET: Final = re.compile(r"[^:/?#]+://[^/?#]*([^#]*)")


@lru_cache(maxsize=256)
def exact_url(text: str) -> URL:
    """The URL to request for an http or https URL: byte for byte, but for a host that is not ASCII.

    Spelling counts where it is signed, or where `%2F` is not `/`, so nothing is normalised. Only characters that
    no request can carry are percent-encoded (RFC 3986, 2.1), and the fragment, which is never sent, is left out.
    Raises ValueError, which does not show the URL.
    """
    parts, found = urlsplit(text), _TARGET.match(text)
    # User and password are sent as Basic authentication, in Latin-1; a name with a colon cannot be (RFC 7617, 2).
    login, _ = (unquote(part or "").encode("latin-1") for part in (parts.username, parts.password))
    if parts.scheme not in ("http", "https") or found is None or parts.port == 0 or b":" in login:
        raise ValueError("not an http or https URL with a host")
    user, at, _ = parts.netloc.rpartition("@")
    host = ascii_host(parts.hostname or "")
    port = "" if parts.port is None else f":{parts.port}"
    path, mark, query = _carried(found[1]).partition("?")
    return URL.build(
        scheme=parts.scheme,
        authority=_carried(user) + at + (f"[{host}]" if ":" in host else host) + port,
        path=(path or "/") + ("" if query else mark),
        query_string=query,
        encoded=True,
    )


def _carried(text: str) -> str:
    return quote(text, safe=string.punctuation)


def http_url(instance: object, attribute: object, value: Secret) -> None:
    """An attrs validator for a field that holds an http or https URL. Its ValueError does not show it."""
    text = value.reveal()
    try:
        good = text.isprintable() and " " not in text and bool(exact_url(text))
    except ValueError:
        good = False
    if not good:
        raise ValueError("not an http or https URL with a host")


@frozen
class _Verdict:
    transient: bool
    reason: Reason


_VERDICTS: Final[Mapping[int, _Verdict]] = {
    401: _Verdict(False, Reason.UNAUTHORIZED),
    403: _Verdict(False, Reason.UNAUTHORIZED),
    404: _Verdict(False, Reason.NOT_FOUND),
    408: _Verdict(True, Reason.TIMEOUT),
    410: _Verdict(False, Reason.NOT_FOUND),
    413: _Verdict(False, Reason.TOO_LARGE),
    425: _Verdict(True, Reason.THROTTLED),
    429: _Verdict(True, Reason.THROTTLED),
}


def check_response(
    status: int,
    headers: Mapping[str, str],
    body: str = "",
    *,
    now: int,
    retry_after: object = None,
    said: str = "",
) -> Receipt:
    """The verdict on an HTTP answer: a receipt for 2xx, else the error to raise, raised.

    408, 425, 429 and 5xx are transient, everything else permanent (a redirect too: following one would send
    the message where nobody configured it). `body` is kept as an excerpt. `now` is the context's clock;
    `retry_after` (seconds, a number or its text) is a vendor's own form, as it came, and wins over the
    `Retry-After` header (RFC 9110, 10.2.3) where it is a time at all; `said` is the vendor's own short reason,
    such as `channel_is_archived`.
    """
    if 200 <= status < 300:
        return Receipt(status=status)
    default = _Verdict(status >= 500, Reason.SERVER_ERROR if status >= 500 else Reason.REJECTED)
    verdict = _VERDICTS.get(status, default)
    detail = f"the receiver answered {status}" + (f": {fit(one_line(said), 120)}" if said else "")
    excerpt = body[:EXCERPT_LIMIT]
    if not verdict.transient:
        raise PermanentError(detail, reason=verdict.reason, status=status, excerpt=excerpt)
    wait = _seconds(retry_after)
    if wait is None:
        wait = _retry_after(headers.get("Retry-After", ""), now)
    raise TransientError(detail, reason=verdict.reason, retry_after=wait, status=status, excerpt=excerpt)


def _seconds(value: object) -> float | None:
    """A wait as it came, clamped; None where it is no time."""
    if isinstance(value, str):
        return min(float(value), RETRY_AFTER_CLAMP) if _SECONDS.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(min(value, RETRY_AFTER_CLAMP))


def _retry_after(value: str, now: int) -> float | None:
    """Seconds to wait, from either form of the header; None where it is absent or neither."""
    value = value.strip()
    return _seconds(value) if _SECONDS.fullmatch(value) else _until(value, now)


def _until(value: str, now: int) -> float | None:
    """Seconds until an HTTP date (RFC 9110, 5.6.7), 0 where it has passed."""
    try:
        date = parsedate_to_datetime(value)
        # Without a zone, as in the form of asctime, it is UTC, and not the time of this machine.
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):  # what email.utils makes of nonsense
        return None
    return min(max(0.0, at - now / SECOND), RETRY_AFTER_CLAMP)


@frozen
class Answer:
    """What a receiver answered: its first 4 KiB as `text`, in which the request's own secrets are hidden."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> dict[str, Any]:
        """The text as a JSON object; empty where it is none."""
        return json_object(self.text)


async def post(
    http: aiohttp.ClientSession,
    url: Secret,
    body: bytes,
    headers: Mapping[str, str | Secret] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one POST through the context's `http`, follow no redirect, and read a bounded answer.

    The URL goes out as it is written, see `exact_url`, with the trace of the message that is being sent.
    `body` is JSON unless `headers` name another `content-type`. `tls` says whom to trust, in place of the
    session's own authorities. The status is the verdict: an answer counts as soon as its status line is there,
    and its text is what came of the body within `ANSWER_TIME`, empty where it is encoded. Raises `TransientError`
    where the receiver cannot be reached or gives no status, or where `egress` forbids it, `PermanentError` where
    the URL is none. Neither shows the URL.
    """
    secrets = [url]
    plain = CIMultiDict({"content-type": "application/json", "accept-encoding": "identity"})
    plain.update(tracing.current.get())
    for name, value in (headers or {}).items():
        if isinstance(value, Secret):
            secrets.append(value)
            plain[name] = value.reveal()
        else:
            plain[name] = value
    try:
        async with http.post(
            _address(url),
            data=body,
            headers=plain,
            allow_redirects=False,
            auto_decompress=False,  # with it aiohttp refuses an answer whose encoding it does not know
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            middlewares=(status_counts,),
            ssl=tls or True,
        ) as response:
            text = await _bounded_text(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # Without its cause: aiohttp's errors show the URL, and a URL may hold a secret.
        raise _fault(error) from None
    return Answer(response.status, response.headers, hide(text, secrets))


def _address(url: Secret) -> URL:
    try:
        return exact_url(url.reveal())
    except ValueError:
        raise PermanentError("the receiver has no http or https URL with a host") from None


async def _bounded_text(response: aiohttp.ClientResponse) -> str:
    body, content = b"", response.content
    try:
        if content.is_eof():  # as most answers are, with their head: nothing to wait for
            body = content.read_nowait(ANSWER_LIMIT)
        else:
            async with asyncio.timeout(ANSWER_TIME):
                while len(body) < ANSWER_LIMIT and not content.at_eof():
                    body += await content.read(ANSWER_LIMIT - len(body))
    except (aiohttp.ClientError, HttpProcessingError, OSError, asyncio.CancelledError) as error:
        # A body that breaks off or does not end changes nothing: the status is known. Nor does a cancellation,
        # with which the channel's time ends: a retry would send twice.
        forgive(error)
    encoded = response.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
    return "" if encoded else body.decode(errors="replace")


def hide(text: str, secrets: Iterable[Secret]) -> str:
    """`text` with each of `secrets` as `***`: whole, and each long piece of one that is a URL."""
    if not text:
        return text
    pieces = {piece for secret in secrets for piece in _pieces(secret)}
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, HIDDEN)
    return text


@lru_cache(maxsize=256)
def _pieces(secret: Secret) -> tuple[str, ...]:
    return tuple(pieces_of(secret.reveal()))


def pieces_of(secret: str) -> Iterator[str]:
    """What must not be seen of a secret: the whole, and where it is a URL its long pieces too."""
    if secret:
        yield secret
    if "://" not in secret:
        return
    parts = urlsplit(secret)
    values = (pair.partition("=")[2] for pair in parts.query.split("&"))
    # Where the scheme is a service's own (Apprise writes such URLs) what stands for the host is often a token.
    host = "" if parts.scheme in ("http", "https") else parts.netloc.rpartition("@")[2]
    for piece in (*parts.path.split("/"), *values, parts.username or "", parts.password or "", host):
        # Shorter ones are words such as "hooks" and "services", and hiding them would blind the reader.
        if len(piece) >= 10:
            yield from (piece, unquote(piece), unquote_plus(piece))


def _fault(error: Exception) -> TransientError:
    """The verdict on a request that got no answer, in words that never hold its URL."""
    if any(getattr(cause, "egress_refused", False) for cause in _causes(error)):
        return TransientError(
            "the receiver's address is private or link-local, and egress.allow_private does not name it",
            reason=Reason.EGRESS_REFUSED,
        )
    if isinstance(error, TimeoutError):
        return TransientError("the receiver gave no answer in time", reason=Reason.TIMEOUT)
    return TransientError(f"the receiver cannot be reached: {_kind(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and all that it came from; aiohttp keeps a connect's fault as `os_error`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__


_CERTIFICATES: Final = {10: "has expired", 62: "is for another host name", 64: "is for another address"}
"""What is wrong with a certificate, by OpenSSL's number (X509_V_ERR_...)."""


def _kind(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", 0)
        return f"its certificate {_CERTIFICATES.get(code, 'is not trusted')}"
    if isinstance(error, aiohttp.ClientSSLError):  # whose number is none of the system's
        return "it speaks no TLS that suits"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
