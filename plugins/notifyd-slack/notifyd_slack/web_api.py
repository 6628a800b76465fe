"""Calls of Slack's Web API, and what its answers mean.

Vendor's rules: https://docs.slack.dev/apis/web-api (the token in a header, JSON with its charset, `ok` as the
verdict in an answer with status 200), https://docs.slack.dev/apis/web-api/rate-limits (429 with `Retry-After`),
https://docs.slack.dev/reference/methods/chat.postMessage and https://docs.slack.dev/reference/methods/chat.update
(their errors).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from notifyd.plugin import Answer, ChannelContext, Receipt, Secret, check_response, hide, post
from notifyd_slack.config import SlackConfig

_ERROR_CODE: Final = re.compile(r"[a-z_]{3,60}")
_NOT_OK: Final = re.compile(r'\s*\{\s*"ok"\s*:\s*false\b')
_ERROR: Final = re.compile(r'"error"\s*:\s*"([^"\\]*)"')
"""Where the verdict and its reason stand in an answer, whose end may be cut off: it names each block at fault."""

_TOKENS_FAULT: Final = (
    *("not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired", "no_permission"),
    *("missing_scope", "not_allowed_token_type", "access_denied", "ekm_access_denied", "org_login_required"),
    *("team_access_not_granted", "restricted_action", "restricted_action_read_only_channel"),
    *("restricted_action_thread_only_channel", "restricted_action_non_threadable_channel"),
    *("not_in_channel", "two_factor_setup_required", "cant_update_message", "edit_window_closed"),
)
_NOBODY_THERE: Final = (
    *("channel_not_found", "is_archived", "user_not_found", "user_disabled", "cannot_dm_bot"),
    *("message_not_found", "thread_not_found", "messages_tab_disabled"),
)
_TOO_LARGE: Final = ("msg_too_long", "msg_blocks_too_long", "metadata_too_large")
_LATER: Final = (
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
    "external_channel_migrating",
    "update_failed",
)
_TOO_OFTEN: Final = ("ratelimited", "rate_limited", "message_limit_exceeded")

_STATUSES: Final[Mapping[str, int]] = {
    **dict.fromkeys(_TOKENS_FAULT, 403),
    **dict.fromkeys(_NOBODY_THERE, 404),
    **dict.fromkeys(_TOO_LARGE, 413),
    **dict.fromkeys(_TOO_OFTEN, 429),
    **dict.fromkeys(_LATER, 503),
}
"""The status that says the same as an error of Slack's; what is not here is a refusal of what was sent, 400."""


async def call(
    config: SlackConfig, context: ChannelContext, method: str, body: Mapping[str, Any], token: Secret | None
) -> Answer:
    """Raises `TransientError` where nobody answers. `token` is the bot's, or the app's for Socket Mode."""
    bearer = Secret(f"Bearer {token.reveal()}") if token else Secret("")
    kind = "application/json; charset=utf-8"
    headers: dict[str, str | Secret] = {"authorization": bearer, "content-type": kind}
    base, mark, query = config.api_url.reveal().partition("#")[0].partition("?")
    url = Secret(f"{base.rstrip('/')}/{method}{mark}{query}")
    answer = await post(context.http, url, json.dumps(body).encode(), headers)
    return Answer(answer.status, answer.headers, hide(answer.text, [token] if token else []))


def checked(answer: Answer, context: ChannelContext) -> Receipt:
    """The verdict on an answer: a receipt, else the error to raise, raised."""
    found = _ERROR.search(answer.text)
    error = found[1] if found else ""
    said = error if _ERROR_CODE.fullmatch(error) else ""
    status = _status(answer, error)
    return check_response(status, answer.headers, answer.text, now=context.clock(), said=said)


def _status(answer: Answer, error: str) -> int:
    """The status that counts. Where no body came, that of the status line stands alone."""
    if answer.status != 200 or not _NOT_OK.match(answer.text):
        return answer.status
    return _STATUSES.get(error, 400)
