"""The public door for plugin authors: all that a plugin may import from notifyd is in `__all__` here.

A plugin is a distribution with an entry point in the group `notifyd`, naming a module (or object) that bears
functions marked `@hookimpl`. Hooks are synchronous and called at start and reload only; afterwards the daemon
awaits the plain objects they gave.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol, runtime_checkable

import aiohttp
import pluggy
from attrs import frozen

from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.model import SECOND, Action, Clock, Field, Level, Message, Receipt
from notifyd.secrets import Secret
from notifyd.signing import sign

__all__ = [
    "API_VERSION",
    "Action",
    "Channel",
    "ChannelContext",
    "ChannelType",
    "Field",
    "Level",
    "Message",
    "PermanentError",
    "Reason",
    "Receipt",
    "RuleFunction",
    "Secret",
    "TemplateSource",
    "TransientError",
    "check_response",
    "hookimpl",
    "notifyd_channel_types",
    "notifyd_rule_functions",
    "notifyd_template_sources",
    "sign",
]

API_VERSION: Final = 1
"""The major version of this module. A plugin may state the one it is written for as `notifyd_api = 1`."""

EXCERPT_LIMIT: Final = 500
"""How many characters of a receiver's answer are kept with an attempt."""


@runtime_checkable
class Channel(Protocol):
    """What `ChannelType.open` gives: one method that sends, and a verdict by exception.

    `send` does one attempt: no retries, no waiting for rate limits, no state from one message to the next. It
    returns when the receiver has taken the message, raises `TransientError` where trying again can help and
    `PermanentError` where it cannot; anything else it raises counts as a transient fault of the channel. It is
    cancelled when the channel's `timeout` is over. `aclose` is called once the last send has ended, perhaps
    twice.
    """

    async def send(self, message: Message) -> Receipt: ...

    async def aclose(self) -> None: ...


@frozen
class ChannelContext:
    """What a channel is opened with. It never sees the store, the config or another channel.

    `http` is shared, keeps connections, follows no redirects unless asked, and refuses private addresses that
    `egress.allow_private` does not name. `clock` gives microseconds since the epoch.
    """

    name: str
    http: aiohttp.ClientSession
    logger: logging.Logger
    clock: Clock


@frozen
class ChannelType:
    """A `type` that `[channels.NAME]` can have.

    `config` is an attrs class; its fields are the options a channel of this type takes beside the common
    `rate_limit`, `concurrency` and `timeout`. `open(config, context)` gives a `Channel`, plainly or by
    awaiting; a vendor's package is imported there, not before. `personal` says that a message reaches one named
    person, so that the rule's `to` fans out over it. `rate_limit` is the vendor's own, such as "1/s"; None for
    none.
    """

    name: str
    config: type[Any]
    open: Callable[[Any, ChannelContext], Channel | Awaitable[Channel]]
    personal: bool = False
    rate_limit: str | None = None


@frozen
class TemplateSource:
    """A folder of templates inside a package, as `importlib.resources` finds it.

    Files are named `NAME.LOCALE.txt` and `NAME.LOCALE.html`, see the templates guide. A later source does not
    replace a template of an earlier one; the operator's `templates.dirs` come first of all.
    """

    package: str
    path: str = "templates"


@frozen
class RuleFunction:
    """A function that `when` can call by `name`. It must be pure, quick, and give a CEL value."""

    name: str
    function: Callable[..., Any]


_hookspec = pluggy.HookspecMarker("notifyd")
hookimpl = pluggy.HookimplMarker("notifyd")


@_hookspec
def notifyd_channel_types() -> Iterable[ChannelType]:
    """The channel types this plugin brings."""
    return ()


@_hookspec
def notifyd_template_sources() -> Iterable[TemplateSource]:
    """Folders of templates this plugin brings."""
    return ()


@_hookspec
def notifyd_rule_functions() -> Iterable[RuleFunction]:
    """Functions for `when` that this plugin brings."""
    return ()


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
    status: int, headers: Mapping[str, str], body: str = "", *, now: int, retry_after: float | None = None
) -> Receipt:
    """The verdict on an HTTP answer: a receipt for 2xx, else the error to raise, raised.

    408, 425, 429 and 5xx are transient, everything else permanent (a redirect too: following one would send
    the message where nobody configured it). `body` is kept as an excerpt. `now` is the context's clock;
    `retry_after` (seconds) is a vendor's own form and wins over the `Retry-After` header (RFC 9110, 10.2.3).
    """
    if 200 <= status < 300:
        return Receipt(status=status)
    default = _Verdict(status >= 500, Reason.SERVER_ERROR if status >= 500 else Reason.REJECTED)
    verdict = _VERDICTS.get(status, default)
    detail, excerpt = f"the receiver answered {status}", body[:EXCERPT_LIMIT]
    if not verdict.transient:
        raise PermanentError(detail, reason=verdict.reason, status=status, excerpt=excerpt)
    if retry_after is None:
        retry_after = _retry_after(headers.get("Retry-After", ""), now)
    raise TransientError(
        detail, reason=verdict.reason, retry_after=retry_after, status=status, excerpt=excerpt
    )


def _retry_after(value: str, now: int) -> float | None:
    """Seconds to wait, from either form of the header; None where it is absent or neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now / SECOND)
    except ValueError:
        return None
