"""Channels opened by their plugins, and closed again, whatever a plugin does then."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeAlias

import aiohttp
from attrs import field, frozen

from notifyd.config.settings import ChannelSettings, Rate, Settings
from notifyd.errors import Fault
from notifyd.levels import Seldom
from notifyd.model import RESUME_CHANNEL, SECOND, Clock
from notifyd.plugin import EDITING_SINCE, Channel, ChannelContext, Editing, Listening, Receiving
from notifyd.registry.callback import CallbackChannel
from notifyd.registry.discovery import Discovered
from notifyd.registry.state import States
from notifyd.security.redact import Redactor
from notifyd.security.secrets import Keyring, Secret
from notifyd.security.signing import SigningKeys

log = logging.getLogger(__name__)

Sessions: TypeAlias = Callable[..., aiohttp.ClientSession]
"""`open_session` with what holds for all of them."""

_CALLBACK_CONCURRENCY = 4
_CALLBACK_TIMEOUT = 10.0

_LISTENING = 2
"""Connections that a channel which takes answers has for them."""

_OPEN_TIMEOUT = 30.0
_CLOSE_TIMEOUT = 5.0
"""Seconds that a channel is given to open, and to close."""


@frozen
class OpenChannel:
    """A channel ready to send, with the limits of its lane. `timeout` in seconds.

    `own_body`: the media type of the body that the rule's template wrote, where that is all it sends. `tenant` is
    whose approvals it asks for where it is a gate, else "". `strays` are attempts that went on when they were
    cancelled, and were left behind, `stray_calls` a vendor's calls that did; each of `calls` ends with one.
    `seldom` is for what the log says of the plugin's faults.
    """

    name: str
    type: str
    personal: bool
    channel: Channel
    concurrency: int
    timeout: float
    rate_limit: Rate | None = None
    own_body: str | None = None
    for_programs: bool = False
    addressed: bool = False
    answers: bool = False
    edits: bool = False
    tenant: str = ""
    fields: bool = True
    strays: set[asyncio.Task[object]] = field(factory=set, eq=False, repr=False)
    calls: set[asyncio.Future[None]] = field(factory=set, eq=False, repr=False)
    stray_calls: set[asyncio.Task[object]] = field(factory=set, eq=False, repr=False)
    seldom: Seldom = field(factory=Seldom, eq=False, repr=False)


def is_ours(error: BaseException) -> bool:
    """Is it notifyd that ends a call of a channel, and not something that the channel raised?"""
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    return cancelled or isinstance(error, GeneratorExit)


@frozen
class Means:
    """What channels are opened with."""

    sessions: Sessions
    clock: Clock
    signing: SigningKeys
    keyring: Keyring
    states: States
    redactor: Redactor


async def open_channels(
    settings: Settings,
    discovered: Discovered,
    means: Means,
    resources: AsyncExitStack,
    faults: list[Fault],
) -> dict[str, OpenChannel]:
    """All channels that open. What is wrong with the others is added to `faults`."""
    opened = {RESUME_CHANNEL: await _open_callbacks(settings, means, resources)}
    named = {f"channels.{name}": channel for name, channel in settings.channels.items()}
    named |= {f"resume.forwarders.{name}": one for name, one in settings.resume.forwarders.items()}
    for key, channel in named.items():
        await asyncio.sleep(0)  # opening one need not wait for anything, and a reload opens all
        kind = "channel" if key.startswith("channels.") else "forwarder"
        plugin = discovered.provider_of(channel.type.name, kind)
        own = settings.plugins.get(plugin.name) if plugin else None
        if plugin and own is None and plugin.name in discovered.configs:
            faults.append(Fault(key, f"needs [plugins.{plugin.name}], which has options that are required"))
            continue
        try:
            edits = plugin is None or plugin.api >= EDITING_SINCE
            opened[channel.name] = await _open_channel(channel, own, means, resources, edits=edits)
        except BaseException as error:
            if is_ours(error):
                raise
            # A plugin may raise anything, SystemExit too; it is named and reported.
            detail = means.redactor.text(str(error))
            faults.append(Fault(key, f"does not open: {type(error).__name__}: {detail}"))
    return opened


async def _open_channel(
    settings: ChannelSettings, plugin: object, means: Means, resources: AsyncExitStack, *, edits: bool
) -> OpenChannel:
    """`edits` says that its plugin knows of `Editing`: what an earlier one calls `edit` is a matter of its own."""
    # A session of its own for each channel: a lane that hangs uses up no neighbour's connections.
    timeout = settings.timeout / SECOND
    session = await resources.enter_async_context(
        # The attempt's own timeout comes first. Listening and answering take connections beside those of sending.
        means.sessions(limit=settings.concurrency + _LISTENING * settings.answers, timeout=timeout + 1)
    )
    logger = logging.getLogger(f"notifyd.channel.{settings.name}")
    state = means.states.of(settings.name, settings.type.name, means.keyring)
    context = ChannelContext(
        settings.name, session, logger, means.clock, means.signing.signatures, state, plugin
    )
    opened = settings.type.open(settings.config, context)
    if inspect.isawaitable(opened):
        async with asyncio.timeout(_OPEN_TIMEOUT):
            opened = await opened
    if isinstance(opened, type):
        raise TypeError(f"open gives the class {opened.__name__}, and no object of it")
    if not isinstance(opened, Channel):
        raise TypeError(f"open gives {type(opened).__name__}, which lacks send or aclose")
    resources.push_async_callback(_close_channel, settings.name, opened)
    _check_ears(settings, opened)
    return OpenChannel(
        settings.name,
        settings.type.name,
        settings.personal,
        opened,
        settings.concurrency,
        timeout,
        settings.rate_limit,
        _own_body(settings),
        settings.type.for_programs,
        settings.type.addressed,
        settings.answers,
        edits and isinstance(opened, Editing),
        settings.tenant,
        settings.type.fields,
    )


def _own_body(settings: ChannelSettings) -> str | None:
    given: object = settings.type.own_body(settings.config) if settings.type.own_body else None
    if given is None or isinstance(given, str):
        return given
    raise TypeError(f"own_body gives {type(given).__name__}, which is no media type")


def _check_ears(settings: ChannelSettings, opened: Channel) -> None:
    """Raises TypeError for a channel that cannot be told what its type says it is."""
    kind = type(opened).__name__
    if settings.answers and not isinstance(opened, Listening | Receiving):
        raise TypeError(f"open gives {kind}, whose type answers and which lacks listen and receive")
    if settings.type.gate and not isinstance(opened, Receiving):
        raise TypeError(f"open gives {kind}, whose type is a gate and which lacks receive")


async def _close_channel(name: str, channel: Channel) -> None:
    """Close it, whatever it does: the others are to be closed too."""
    # In a task of its own, because it may be deaf to a cancellation.
    task = asyncio.create_task(_closed(name, channel))
    await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT)
    if not task.done():
        task.cancel()
        log.error("channel %s does not close within %g s", name, _CLOSE_TIMEOUT)


async def _closed(name: str, channel: Channel) -> None:
    try:
        await channel.aclose()
    except BaseException as error:
        if is_ours(error):
            raise
        log.exception("channel %s does not close: %s", name, type(error).__name__)


def callback_secrets(settings: Settings, client: str) -> Sequence[Secret]:
    """By default all that the client has: while one is replaced, it may know either."""
    known = settings.auth.clients.get(client)
    return settings.resume.secrets or (known.hmac_secrets if known else ())


async def _open_callbacks(settings: Settings, means: Means, resources: AsyncExitStack) -> OpenChannel:
    public = await resources.enter_async_context(means.sessions())
    private = await resources.enter_async_context(means.sessions(private_only=True))
    secrets_of = partial(callback_secrets, settings)
    channel = CallbackChannel(public, private, means.clock, secrets_of, means.signing)
    return OpenChannel(
        RESUME_CHANNEL, RESUME_CHANNEL, False, channel, _CALLBACK_CONCURRENCY, _CALLBACK_TIMEOUT
    )
