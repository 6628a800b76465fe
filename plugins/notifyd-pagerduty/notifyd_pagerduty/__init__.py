"""The `pagerduty` channel: one event of the Events API v2. A hold or a request triggers, its end resolves.

Vendor's rules: https://developer.pagerduty.com/docs/send-alert-event (the request and its members' lengths),
https://developer.pagerduty.com/docs/events-api-v2-overview#response-codes--retry-logic (429 and 5xx are to be
tried again; 512 KB).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
from attrs import field, frozen

from notifyd.plugin import (
    ChannelContext,
    ChannelType,
    Level,
    Message,
    Receipt,
    Secret,
    check_response,
    clean,
    fit,
    hide,
    hookimpl,
    http_url,
    one_line,
    post,
    units,
)

SUMMARY_LIMIT: Final = 1024
SOURCE_LIMIT: Final = 255
BODY_LIMIT: Final = 10_000
FIELDS_LIMIT: Final = 40
NAME_LIMIT: Final = 100
VALUE_LIMIT: Final = 1000
LINKS_LIMIT: Final = 20
LABEL_LIMIT: Final = 200
URL_LIMIT: Final = 2048

_SEVERITIES: Final = {
    Level.INFO: "info",
    Level.SUCCESS: "info",
    Level.WARNING: "warning",
    Level.ERROR: "critical",
}
_KEY: Final = re.compile(r"[0-9A-Za-z]{16,64}")
_PENDING: Final = "pending"
_TEXT: Final = "text"
"""What the message's text is called among its facts."""


def _is_key(config: PagerdutyConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _KEY.fullmatch(value.reveal()):
        raise ValueError("not an integration key, which is 32 letters and digits")


@frozen
class PagerdutyConfig:
    """`routing_key` is a service's integration key. `api_url` is https://events.eu.pagerduty.com in the EU."""

    routing_key: Secret = field(validator=_is_key)
    api_url: Secret = field(default=Secret("https://events.pagerduty.com"), validator=http_url)

    @property
    def enqueue_url(self) -> Secret:
        return Secret(self.api_url.reveal().rstrip("/") + "/v2/enqueue")


class PagerdutyChannel:
    def __init__(self, config: PagerdutyConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        key = {"routing_key": self._config.routing_key.reveal()}
        body = json.dumps({**key, **payload(message)}).encode()
        answer = await post(self._context.http, self._config.enqueue_url, body)
        text = hide(answer.text, [self._config.routing_key])
        said = _reason(answer.json)
        return check_response(answer.status, answer.headers, text, now=self._context.clock(), said=said)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _reason(error: Mapping[str, Any]) -> str:
    """What PagerDuty says, and of what: its `errors` name the members at fault."""
    errors = error.get("errors")
    named = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
    return ": ".join(text for text in (str(error.get("message", "")), named) if text)


def payload(message: Message) -> dict[str, Any]:
    """The request's body but for the key, a pure function of the message."""
    dedup_key = _dedup_key(message)
    if _is_over(message.event):
        return {"event_action": "resolve", "dedup_key": dedup_key}
    actions = [action for action in message.actions if 0 < units(action.url) <= URL_LIMIT]
    return {
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "notifyd",
        "links": [
            {"href": one_line(action.url), "text": fit(one_line(action.label), LABEL_LIMIT) or "…"}
            for action in actions[:LINKS_LIMIT]
        ],
        "payload": _alert(message),
    }


def _alert(message: Message) -> dict[str, Any]:
    event = message.event
    alert = {
        "summary": fit(one_line(message.title), SUMMARY_LIMIT) or "…",
        "source": fit(_source(event), SOURCE_LIMIT) or "notifyd",
        "severity": _SEVERITIES[message.level],
        "custom_details": _details(message),
    }
    if isinstance(occurred := event.get("occurredAt"), str):
        alert["timestamp"] = occurred
    return alert


def _details(message: Message) -> dict[str, str]:
    """Facts and text by name. Those of one name, such as a label's and a built-in one, are told together."""
    told: dict[str, list[str]] = {}
    for fact in message.fields[:FIELDS_LIMIT]:
        told.setdefault(fit(one_line(fact.name), NAME_LIMIT), []).append(
            fit(one_line(fact.value), VALUE_LIMIT)
        )
    told.setdefault(_TEXT, []).append(fit(clean(message.body).strip(), BODY_LIMIT))
    return {name: "\n".join(values) for name, values in told.items()}


def _source(event: Mapping[str, Any]) -> str:
    """Where it is from: the tenant and the run, or the kind of event."""
    tenant = event.get("tenant")
    names = [
        tenant.get("id") if isinstance(tenant, Mapping) else tenant,
        event.get("runId") or event.get("kind"),
    ]
    return "/".join(one_line(str(name)) for name in names if name)


def _is_over(event: Mapping[str, Any]) -> bool:
    """A hold that was released, an approval that is not pending any more, and a run that was told so.

    A fire drill too: an end without a beginning shows that PagerDuty takes the key, and calls nobody.
    """
    if event.get("drill") is True:
        return True
    if event.get("action") in ("hold", "requested", "resume_failed"):
        return False
    if event.get("action") == "released":
        return True
    return event.get("kind") == "pack.approval" and event.get("status", _PENDING) != _PENDING


def _dedup_key(message: Message) -> str:
    """One for all that is told of one approval, or of one hold; else the message's own id."""
    event, tenant, policy = message.event, message.event.get("tenant"), message.event.get("policy")
    if not (event.get("runId") and event.get("approvalId") and isinstance(tenant, Mapping)):
        return message.id
    about = [event.get("kind"), tenant.get("id"), event["runId"], event["approvalId"]]
    if event.get("kind") == "pack.policy" and isinstance(policy, Mapping):
        about.append(policy.get("id"))
    if event.get("action") == "resume_failed":  # nothing that comes later ends it
        about.append("resume_failed")
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("pagerduty", PagerdutyConfig, PagerdutyChannel, rate_limit="2/s"),)
