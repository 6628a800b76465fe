"""Slack's own call with what people did, proved by its signature.

Vendor's rules: https://docs.slack.dev/authentication/verifying-requests-from-slack (what is signed, and that a
request older than five minutes is none),
https://docs.slack.dev/interactivity/handling-user-interaction (a form with one field, `payload`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Final
from urllib.parse import parse_qs

from notifyd.plugin import SECOND, ChannelContext, InboundRequest, InboundResponse
from notifyd_slack.answers import Answers, act_of, read_object, response
from notifyd_slack.config import SlackConfig

TOLERANCE: Final = 5 * 60
"""Seconds between a request's time and ours."""

_TIME: Final = re.compile("[0-9]{1,12}")


async def receive(
    config: SlackConfig, context: ChannelContext, answers: Answers, request: InboundRequest
) -> InboundResponse:
    """Raises `TransientError` where nothing could be recorded."""
    if not _is_slacks(config, context, request):
        return InboundResponse(401, "the signature is not the one of this channel's app, or not of now")
    form = parse_qs(request.body.decode(errors="replace"), max_num_fields=100)
    interaction = read_object(form.get("payload", [""])[0])
    if not interaction:
        return InboundResponse(400, "not an interaction")
    act = act_of(interaction)
    if act is None:
        return InboundResponse()
    reply = await answers.hear(act, request.inbox)
    await answers.tell(act, reply)
    told = response(act, reply)
    return InboundResponse(200, json.dumps(told), "application/json") if told else InboundResponse()


def _is_slacks(config: SlackConfig, context: ChannelContext, request: InboundRequest) -> bool:
    at = request.headers.get("x-slack-request-timestamp", "")
    given = request.headers.get("x-slack-signature", "").encode(errors="replace")
    if config.signing_secret is None or not _TIME.fullmatch(at):
        return False
    signed = b"v0:" + at.encode() + b":" + request.body
    due = "v0=" + hmac.new(config.signing_secret.reveal().encode(), signed, hashlib.sha256).hexdigest()
    fresh = abs(context.clock() / SECOND - int(at)) <= TOLERANCE
    return hmac.compare_digest(given, due.encode()) and fresh
