"""The public door for plugin authors: all that a plugin may import from notifyd is in `__all__` here.

A plugin is a distribution with an entry point in the group `notifyd`, naming a module (or object) that bears
functions marked `@hookimpl`. Hooks are synchronous and called at start and reload only; afterwards the daemon
awaits the plain objects they gave.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import aiohttp
import pluggy
from attrs import field, frozen

from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.hosts import ascii_host
from notifyd.mailbox import Mailbox, mailbox
from notifyd.model import SECOND, Action, Button, Clock, Duration, Field, Level, Message, Receipt, Size
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
    "Ask",
    "Button",
    "CaFile",
    "Channel",
    "ChannelContext",
    "ChannelType",
    "Duration",
    "Editing",
    "Field",
    "InboundRequest",
    "InboundResponse",
    "Inbox",
    "Level",
    "Listening",
    "Mailbox",
    "Message",
    "PermanentError",
    "PluginConfig",
    "Reaction",
    "ReactionReply",
    "Reason",
    "Receipt",
    "Receiving",
    "RuleFunction",
    "Secret",
    "Size",
    "State",
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
    "notifyd_plugin_config",
    "notifyd_resume_forwarders",
    "notifyd_rule_functions",
    "notifyd_template_sources",
    "one_line",
    "post",
    "sign",
    "units",
]

API_VERSION: Final = 2
"""The newest version of this module: 2 has answers, `Editing`, `State` and addresses. A plugin may state the one
it is written for as `notifyd_api = 2`; those for version 1 go on working."""

EDITING_SINCE: Final = 2


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


class State(Protocol):
    """What a channel keeps over a restart, such as a cursor or an OAuth token: a few texts by name, sealed at
    rest.

    A name has 1 to 64 of the characters `A-Z a-z 0-9 . _ -`, a value 16 KiB of UTF-8 at most, and a channel 1,000
    names, else ValueError. Raises `TransientError` where the store does not answer, and while the service has not
    started. All nodes that share a store share it.
    """

    async def get(self, name: str) -> str | None: ...

    async def set(self, name: str, value: str) -> None: ...

    async def delete(self, name: str) -> None: ...


_STATE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATE_SIZE: Final = 16 * 1024
_STATES: Final = 1000


def check_state(name: object, value: object = "") -> None:
    """Raises ValueError for what no `State` keeps. No message shows a value."""
    if not isinstance(name, str) or not _STATE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a state: 1 to 64 of A-Z a-z 0-9 . _ -")
    if not isinstance(value, str):
        raise ValueError(f"the state {name!r} is a text, and not a value of type {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the state {name!r} has half a character, which has no UTF-8") from None
    if size > _STATE_SIZE:
        raise ValueError(f"the state {name!r} is larger than 16 KiB")


def check_room(name: str, kept: Collection[str]) -> None:
    """Raises ValueError where `name` would be one too many beside the names that are `kept`."""
    if name not in kept and len(kept) >= _STATES:
        raise ValueError(
            f"the state {name!r} is one too many: the channel has {_STATES}, delete another first"
        )


class MemoryState:
    """A `State` that is gone with the process: what a context has outside of the service."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    async def get(self, name: str) -> str | None:
        check_state(name)
        return self._kept.get(name)

    async def set(self, name: str, value: str) -> None:
        check_state(name, value)
        check_room(name, self._kept)
        self._kept[name] = value

    async def delete(self, name: str) -> None:
        check_state(name)
        self._kept.pop(name, None)


@frozen
class Reaction:
    """What somebody did with a message at their vendor's: pressed one of its buttons, or replied to it.

    `actor_ref` is who, as the vendor knows them: the daemon looks for the person who has it among their
    `addresses` in `[recipients]`, so a channel must have it from the vendor and not from the message. `action` and
    `ref` are those of the `Button`; `text` is what they wrote, as the reason.
    """

    actor_ref: str
    action: str
    ref: str
    text: str = ""


@frozen
class ReactionReply:
    """What the daemon says to a `Reaction`: `text`, plain and in their language, is for the one who reacted.

    `recorded` says that it counts. `asks_reason` says that it would with a `text`: ask for it, and hand the same
    reaction in again with it.
    """

    text: str
    recorded: bool = False
    asks_reason: bool = False


Inbox: TypeAlias = Callable[[Reaction], Awaitable[ReactionReply]]
"""Where a channel hands in a reaction: who it is and what they may do is checked there. The same one may be handed
in again, and changes nothing. Raises `TransientError` where it cannot be recorded now: hand it in again later."""


Ask: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Where a gate hands in an event: when it returns, the event is durable.

The event is one of Task Runner's, as the contract has it, without `tenant`, which the configuration names, and
without `resume.callbackUrl`: the end comes back to `send`. It is checked like one that is posted, and the same one
may be handed in again. Raises `PermanentError` where it breaks the contract, or where its `eventId` is known with
another content, and `TransientError` where nothing can be recorded now: hand it in again later.
"""


async def _no_gate(event: Mapping[str, Any]) -> None:
    raise PermanentError("only a gate hands in events")


@frozen
class InboundRequest:
    """A vendor's POST to `/channels/NAME/inbound`. `query` is as it was sent; `headers` have names in lower case.

    Anybody can send one: nothing may be done before the vendor's own proof, a signature or a secret, has held.
    `inbox` is for the reactions that a channel is told of, `ask` for what a gate is asked to let through.
    """

    headers: Mapping[str, str]
    query: str
    body: bytes
    inbox: Inbox
    ask: Ask = _no_gate


@frozen
class InboundResponse:
    """What the vendor is answered: 16 KiB at most, as text, JSON or XML."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain"


@runtime_checkable
class Listening(Protocol):
    """A channel that is told of reactions by a connection of its own, so that nobody has to reach the daemon.

    `listen` is called on one node at a time and goes on for ever: where it ends or raises it is called again,
    later each time. It is cancelled when the service stops, the configuration changes or another node takes over,
    and then ends at once.
    """

    async def listen(self, inbox: Inbox) -> None: ...


@runtime_checkable
class Editing(Protocol):
    """A channel that can change what it has sent: `ref` is that of the receipt, `message` what is to stand there.

    When an approval ends, each of its messages is changed to tell the end, without buttons. It is a delivery like
    any: one attempt, tried again by the daemon, perhaps twice. Raises as `send` does.
    """

    async def edit(self, ref: str, message: Message) -> Receipt: ...


@runtime_checkable
class Receiving(Protocol):
    """A channel whose vendor calls the daemon. `receive` has the channel's `timeout`."""

    async def receive(self, request: InboundRequest) -> InboundResponse: ...


@frozen
class ChannelContext:
    """What a channel is opened with. It never sees the store, the config or another channel.

    `http` is shared, keeps connections, follows no redirects unless asked, and refuses private addresses that
    `egress.allow_private` does not name. `clock` gives microseconds since the epoch. `signatures(message_id,
    timestamp, body)` gives notifyd's own signatures, for `sign`: `v1a` under `keys.sign`, none without such a key.
    `plugin` is the plugin's own record, of its `PluginConfig`.
    """

    name: str
    http: aiohttp.ClientSession
    logger: logging.Logger
    clock: Clock
    signatures: Callable[[str, int, bytes], Sequence[str]] = lambda _id, _timestamp, _body: ()
    state: State = field(factory=MemoryState)
    plugin: Any = None


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
    programs read it and not people, who are spared what they know already. `answers` says that people can decide
    by its messages, always or with some configs: then these have `buttons`, the channel is `Listening` or
    `Receiving`, and a rule's `to` names whose reactions count, over a channel that is not personal too. Without
    `fields` its messages have none, nor has their `html`, for a channel that shows them nowhere: they are a third
    of a message's work.

    `gate` is for a type that `notifyd_resume_forwarders` brings: its channels are `Receiving`, at
    `/channels/resume.NAME/inbound`, and `ask` for approvals for another system. Each is sent the ends of its own
    approvals, and of no others, as that system's answer: like a callback, it is what `resume` tells of.
    """

    name: str
    config: type[Any]
    open: Callable[[Any, ChannelContext], Channel | Awaitable[Channel]]
    personal: bool | Callable[[Any], bool] = False
    rate_limit: str | None = None
    own_body: Callable[[Any], str | None] | None = None
    for_programs: bool = False
    addressed: bool = False
    answers: bool | Callable[[Any], bool] = False
    gate: bool = False
    fields: bool = True


@frozen
class PluginConfig:
    """What `[plugins.NAME]` takes, NAME being the plugin's in `notifyd plugins`: the fields of an attrs class.

    Each of the plugin's channels and forwarders gets the record as `context.plugin`. Without the table it has the
    defaults; where an option is required, a channel of the plugin needs the table.
    """

    config: type[Any]


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
    sealed for the client that asked; its `id` is the same at every attempt. A `gate` is sent the ends of what it
    asked for, with its own `resumeToken` in clear, and nothing else.
    """
    return ()


@_hookspec
def notifyd_plugin_config() -> Iterable[PluginConfig]:
    """What the plugin itself is configured with: one `PluginConfig`, or none."""
    return ()


@_hookspec
def notifyd_template_sources() -> Iterable[TemplateSource]:
    """Folders of templates this plugin brings."""
    return ()


@_hookspec
def notifyd_rule_functions() -> Iterable[RuleFunction]:
    """Functions for `when` that this plugin brings."""
    return ()
