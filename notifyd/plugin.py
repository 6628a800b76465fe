"""The public door for plugin authors: all that a plugin may import from notifyd is in `__all__` here.

A plugin is a distribution with an entry point in the group `notifyd`, naming a module (or object) that bears
functions marked `@hookimpl`. Hooks are synchronous and called at start and reload only; afterwards the daemon
awaits the plain objects they gave.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import aiohttp
import pluggy
from attrs import frozen

from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.hosts import ascii_host
from notifyd.mailbox import Mailbox, mailbox
from notifyd.model import SECOND, Action, Clock, Field, Level, Message, Receipt
from notifyd.post import Answer, check_response, hide, http_url, post
from notifyd.security.secrets import Secret
from notifyd.security.signing import sign
from notifyd.text import clean, fit, leading, listed, one_line, units
from notifyd.trust import CaFile

__all__ = [
    "API_VERSION",
    "SECOND",
    "Action",
    "Answer",
    "CaFile",
    "Channel",
    "ChannelContext",
    "ChannelType",
    "Field",
    "Level",
    "Mailbox",
    "Message",
    "PermanentError",
    "Reason",
    "Receipt",
    "RuleFunction",
    "Secret",
    "TemplateSource",
    "TransientError",
    "ascii_host",
    "check_response",
    "clean",
    "fit",
    "hide",
    "hookimpl",
    "http_url",
    "leading",
    "listed",
    "mailbox",
    "notifyd_channel_types",
    "notifyd_resume_forwarders",
    "notifyd_rule_functions",
    "notifyd_template_sources",
    "one_line",
    "post",
    "sign",
    "units",
]

API_VERSION: Final = 1
"""The major version of this module. A plugin may state the one it is written for as `notifyd_api = 1`."""


@runtime_checkable
class Channel(Protocol):
    """What `ChannelType.open` gives: one method that sends, and a verdict by exception.

    `send` does one attempt: no retries, no waiting for rate limits, no state from one message to the next. It
    returns when the receiver has taken the message, raises `TransientError` where trying again can help and
    `PermanentError` where it cannot; anything else it raises counts as a transient fault of the channel. It
    is cancelled when the channel's `timeout` is over. `aclose` is called once the last send has ended,
    perhaps twice.
    """

    async def send(self, message: Message) -> Receipt: ...

    async def aclose(self) -> None: ...


@frozen
class ChannelContext:
    """What a channel is opened with. It never sees the store, the config or another channel.

    `http` is shared, keeps connections, follows no redirects unless asked, and refuses private addresses that
    `egress.allow_private` does not name. `clock` gives microseconds since the epoch. `signatures(message_id,
    timestamp, body)` gives notifyd's own signatures, for `sign`: `v1a` under `keys.sign`, none without such a key.
    """

    name: str
    http: aiohttp.ClientSession
    logger: logging.Logger
    clock: Clock
    signatures: Callable[[str, int, bytes], Sequence[str]] = lambda _id, _timestamp, _body: ()


@frozen
class ChannelType:
    """A `type` that `[channels.NAME]` can have.

    `config` is an attrs class; its fields are the options a channel of this type takes beside the common
    `rate_limit`, `concurrency` and `timeout`. `open(config, context)` gives a `Channel`, plainly or by
    awaiting; a vendor's package is imported there, not before. `personal` says that a message reaches one
    named person, so that the rule's `to` fans out over it: always, or with the configs for which it is called and
    says so. `addressed` says that it needs the person's address in `[recipients]`, which is then the message's
    `recipient`: whoever has none for this type is not reached over it. `rate_limit` is the vendor's own, such as
    "1/s"; None for none. `own_body(config)` gives a media type, such as `application/json`, where all that a
    channel with this config sends is `message.body`, in a form that only the rule's template knows; else None.
    Such a body goes as the template wrote it, and no digest of notifyd's own goes there. `for_programs` says that
    programs read it and not people, who are spared what they know already.
    """

    name: str
    config: type[Any]
    open: Callable[[Any, ChannelContext], Channel | Awaitable[Channel]]
    personal: bool | Callable[[Any], bool] = False
    rate_limit: str | None = None
    own_body: Callable[[Any], str | None] | None = None
    for_programs: bool = False
    addressed: bool = False


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
def notifyd_resume_forwarders() -> Iterable[ChannelType]:
    """The types that `[resume.forwarders.NAME]` can have.

    Each end of an approval is sent through every forwarder that is configured, as a delivery of its own: durable,
    tried again, dead at last. The message's `body` is the JSON of `pack.approval.decided`, with the resume token
    sealed for the client that asked; its `id` is the same at every attempt.
    """
    return ()


@_hookspec
def notifyd_template_sources() -> Iterable[TemplateSource]:
    """Folders of templates this plugin brings."""
    return ()


@_hookspec
def notifyd_rule_functions() -> Iterable[RuleFunction]:
    """Functions for `when` that this plugin brings."""
    return ()
