"""What `notifyd doctor` looks at on the way to others: names, addresses, certificates, and their clocks.

A connection is made to each, and no message is sent over it: an HTTP server gets a HEAD of its root, a mail server
STARTTLS.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from statistics import median
from typing import Any, Final

from attrs import frozen

from notifyd import __version__
from notifyd.cli.doctor_machine import ending
from notifyd.cli.endpoints import Endpoint, endpoints
from notifyd.cli.finding import ERROR, OK, WARNING, Finding
from notifyd.config.faults import dotted
from notifyd.config.settings import Settings
from notifyd.model import SECOND
from notifyd.registry.egress import Guard
from notifyd.text import counted
from notifyd.trust import CaFile

_PATIENCE: Final = 5.0
"""Seconds for each look-up, and for each connection."""
_DRIFT: Final = 5.0
"""Seconds by which a clock may be off before it is worth a word: what others say is late by their answer's way."""


@frozen
class _Reached:
    """What was found on the way to one endpoint, and its clock less this machine's, in seconds, where it told."""

    findings: Sequence[Finding]
    ahead: float | None = None


async def network(settings: Settings) -> list[Finding]:
    """All endpoints at once, each within its own time."""
    guard = Guard(settings.egress.allow_private)
    reached = await asyncio.gather(*(_reach(one, guard, settings) for one in endpoints(settings)))
    ahead = [one.ahead for one in reached if one.ahead is not None]
    found = [finding for one in reached for finding in one.findings]
    return [*found, *_unchecked(settings), *_clock(ahead, settings)]


def _unchecked(settings: Settings) -> Iterator[Finding]:
    """The channels whose type has no option that doctor could look up, such as one that only logs."""
    looked_at = [one.key for one in endpoints(settings)]
    channels = {dotted("channels", name): one for name, one in settings.channels.items()}
    channels |= {dotted("resume.forwarders", name): one for name, one in settings.resume.forwarders.items()}
    for at, channel in channels.items():
        if not any(key.startswith(f"{at}.") for key in looked_at):
            detail = f"{at}: not looked at: the options of the type {channel.type.name} name no host"
            yield Finding("connect", OK, detail)


def _clock(ahead: Sequence[float], settings: Settings) -> Iterator[Finding]:
    """Is this machine's clock that of the others? The one in the middle counts, as theirs may be wrong too."""
    if not ahead:
        yield Finding("clock", OK, "not compared: no HTTP server that a channel calls has told its time")
        return
    off = median(ahead)
    others = counted(len(ahead), "HTTP server says", "HTTP servers say")
    detail = f"{abs(off):.0f} s {'behind' if off > 0 else 'ahead of'} what {others}"
    if abs(off) * SECOND > settings.auth.clock_tolerance:
        yield Finding("clock", ERROR, f"{detail}: signatures are refused", "set the clock, by NTP")
    elif abs(off) > _DRIFT:
        yield Finding("clock", WARNING, detail, "set the clock, by NTP")
    else:
        yield Finding("clock", OK, "as others have it")


async def _reach(endpoint: Endpoint, guard: Guard, settings: Settings) -> _Reached:
    where = f"{endpoint.key}: {endpoint.host}"
    try:
        async with asyncio.timeout(_PATIENCE):
            addresses = await _resolved(endpoint)
    except (OSError, TimeoutError, UnicodeError) as error:
        detail = f"{where} has no address: {_said(error)}"
        return _Reached([Finding("dns", ERROR, detail, "correct the name, or look at /etc/resolv.conf")])
    refused = [
        one for one in addresses if endpoint.url and not guard.may_call(ip_address(one), endpoint.host)
    ]
    if refused:
        detail = f"{where} is {refused[0]}, which egress refuses"
        return _Reached([Finding("egress", ERROR, detail, "name it in egress.allow_private, if it is meant")])
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _connected(endpoint, settings)
    except ssl.SSLCertVerificationError as error:
        detail = f"{where}: the certificate is refused: {error.verify_message}"
        return _Reached([Finding("tls", ERROR, detail, "renew it there, or name its authority: tls_ca")])
    except (OSError, TimeoutError, smtplib.SMTPException) as error:
        detail = f"{where} port {endpoint.port} cannot be reached: {_said(error)}"
        return _Reached([Finding("connect", ERROR, detail, "look at the network, the firewall and the port")])


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {_PATIENCE:g} s"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__


async def _resolved(endpoint: Endpoint) -> list[str]:
    """Its addresses. The look-up has a thread of its own, which nobody waits for: in a pool, one that hangs would
    hold up those behind it, and the end of the command."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Any]] = loop.create_future()

    def end(how: Callable[[Any], None], what: object) -> None:
        if not done.done():  # it is where nobody waits for it any more
            how(what)

    def tell(how: Callable[[Any], None], what: object) -> None:
        with suppress(RuntimeError):  # the command has ended
            loop.call_soon_threadsafe(end, how, what)

    def look_up() -> None:
        try:
            tell(done.set_result, socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            tell(done.set_exception, error)

    threading.Thread(target=look_up, name=f"look-up of {endpoint.key}", daemon=True).start()
    found = await done
    return [str(where[0]).partition("%")[0] for *_, where in found]


async def _connected(endpoint: Endpoint, settings: Settings) -> _Reached:
    context = await asyncio.to_thread(_trusting, endpoint.ca or settings.egress.tls_ca)
    if endpoint.tls == "starttls":
        certificate = await asyncio.to_thread(_starttls, endpoint, context)
        return _Reached([_lasting(endpoint, certificate)])
    reader, writer = await asyncio.open_connection(
        endpoint.host, endpoint.port, ssl=context if endpoint.tls == "tls" else None
    )
    try:
        certificate = writer.get_extra_info("peercert")
        ahead = await _time_of(endpoint, reader, writer) if endpoint.url else None
    finally:
        writer.close()
    return _Reached([_lasting(endpoint, certificate)], ahead)


def _trusting(ca: CaFile | None) -> ssl.SSLContext:
    return ca.context() if ca else ssl.create_default_context()


def _starttls(endpoint: Endpoint, context: ssl.SSLContext) -> Any:
    with smtplib.SMTP(endpoint.host, endpoint.port, timeout=_PATIENCE) as server:
        server.starttls(context=context)
        return server.sock.getpeercert() if isinstance(server.sock, ssl.SSLSocket) else None


def _lasting(endpoint: Endpoint, certificate: Any) -> Finding:
    if not certificate:
        return Finding("connect", OK, f"{endpoint.key}: {endpoint.host} port {endpoint.port}")
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    return ending(f"{endpoint.key}: {endpoint.host}", end)


async def _time_of(
    endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> float | None:
    """The server's clock less this machine's, in seconds, by its `Date` (RFC 9110, 6.6.1); None without one."""
    head = f"HEAD / HTTP/1.1\r\nHost: {endpoint.host}\r\nUser-Agent: notifyd/{__version__}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").splitlines()
        dates = [line.partition(":")[2] for line in lines if line.lower().startswith("date:")]
        return parsedate_to_datetime(dates[0].strip()).timestamp() - time.time() if dates else None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
        return None  # it is no HTTP server's business to tell
