"""The `teams` channel: one POST to a workflow's webhook, as an Adaptive Card.

Vendor's rules, below https://learn.microsoft.com:
`/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using` (the request; 4 requests in a second
and 60 in 30 seconds; a connector may report a fault with status 200),
`/connectors/teams` (28 KB in all), `/adaptive-cards/schema-explorer/text-run` (a run's text is no Markdown),
`/adaptive-cards/authoring-cards/text-features` (what looks like `{{DATE(…)}}` is shown as a date),
`/microsoftteams/platform/task-modules-and-cards/cards/cards-reference` (six actions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Final

from attrs import field, frozen

from notifyd.plugin import (
    Action,
    Answer,
    ChannelContext,
    ChannelType,
    Field,
    Level,
    Message,
    Receipt,
    Secret,
    check_response,
    clean,
    fit,
    hookimpl,
    http_url,
    leading,
    one_line,
    post,
    units,
)

ELLIPSIS: Final = "…"
SIZE_LIMIT: Final = 28_000
ACTIONS_LIMIT: Final = 6
FIELDS_LIMIT: Final = 20
TITLE_LIMIT: Final = 250
NAME_LIMIT: Final = 80
VALUE_LIMIT: Final = 300
LABEL_LIMIT: Final = 80
LISTED_LABEL_LIMIT: Final = 120
_LINK_OVERHEAD: Final = 140
"""Characters of JSON around a listed link."""
URL_LIMIT: Final = 2048
LINKS_ROOM: Final = 5000
LISTED_ROOM: Final = 7000
"""Of links that are listed, since they are more than there may be actions: those of a digest."""
BODY_LIMIT: Final = 6000
LINES_LIMIT: Final = 40
SHARES: Final = (1, 2, 4, 10)
"""By how much body and fields may be divided: the first of these that keeps the request within its limit."""

_COLOURS: Final = {
    Level.INFO: "accent",
    Level.SUCCESS: "good",
    Level.WARNING: "warning",
    Level.ERROR: "attention",
}
_FUNCTION: Final = re.compile(r"(?<=\{)(?=\{(?:DATE|TIME)\()", re.IGNORECASE)
"""Between the braces that begin one of the two functions of a card."""
_INNER_STATUS: Final = re.compile(r"endpoint returned HTTP error ([0-9]{3})")


@frozen
class TeamsConfig:
    """`webhook_url` is that of a workflow with the trigger "When a Teams webhook request is received"."""

    webhook_url: Secret = field(validator=http_url)


class TeamsChannel:
    def __init__(self, config: TeamsConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        answer = await post(self._context.http, self._config.webhook_url, payload(message))
        now = self._context.clock()
        return check_response(_status(answer), answer.headers, answer.text, now=now, said=_error_code(answer))

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _status(answer: Answer) -> int:
    """The status that counts: a connector may say 200 and tell of the real one in its text."""
    inner = _INNER_STATUS.search(answer.text)
    return int(inner[1]) if inner and answer.status == 200 else answer.status


def _error_code(answer: Answer) -> str:
    """`error.code` of a workflow's answer, such as WorkflowTriggerIsNotEnabled."""
    error = answer.json.get("error")
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def payload(message: Message) -> bytes:
    """The request's body, a pure function of the message, with as much of its text as fits."""
    for share in SHARES:
        text = json.dumps(_envelope(message, share), ensure_ascii=False, separators=(",", ":"))
        # Microsoft counts kilobytes and does not say of which encoding.
        if max(len(text.encode()), 2 * units(text)) <= SIZE_LIMIT:
            break
    return text.encode()


def _envelope(message: Message, share: int) -> dict[str, Any]:
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": list(_body(message, share)),
        "actions": _actions(message),
        "msteams": {"width": "Full"},
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def _body(message: Message, share: int) -> Iterator[dict[str, Any]]:
    title = fit(one_line(message.title), TITLE_LIMIT) or ELLIPSIS
    yield _runs(_run(title, weight="bolder", size="large", color=_COLOURS[message.level]))
    for line in _lines(message.body, share):
        yield _runs(_run(line), spacing="small")
    if _listed(message):
        yield from _links(message.actions)
    elif left := len(message.actions) - len(_actions(message)):
        yield _runs(_run(f"{ELLIPSIS} (+{left})"), spacing="small")
    for fact in message.fields[: FIELDS_LIMIT // share]:
        yield _fact(fact)


def _listed(message: Message) -> bool:
    return len(message.actions) > ACTIONS_LIMIT


def _links(actions: Sequence[Action]) -> Iterator[dict[str, Any]]:
    """A line for each link, as far as they fit; a last one counts the rest."""
    usable = takewhile(lambda link: 0 < units(link.url) <= URL_LIMIT, actions)
    titled = ((fit(one_line(link.label), LISTED_LABEL_LIMIT) or ELLIPSIS, link.url) for link in usable)
    shown = leading(titled, LISTED_ROOM, lambda one: units(one[0]) + units(one[1]) + _LINK_OVERHEAD)
    for title, url in shown:
        opening = {"type": "Action.OpenUrl", "url": url}
        yield _runs({**_run(f"• {title}"), "selectAction": opening}, spacing="small")
    if left := len(actions) - len(shown):
        yield _runs(_run(f"{ELLIPSIS} (+{left})"), spacing="small")


def _lines(text: str, share: int) -> list[str]:
    """A run cannot hold a newline, so each line is a block."""
    lines = [line for line in clean(text).split("\n") if line.strip()]
    if len(lines) > LINES_LIMIT // share:
        lines = [*lines[: LINES_LIMIT // share], ELLIPSIS]
    return [line for line in fit("\n".join(lines), BODY_LIMIT // share).split("\n") if line]


def _fact(fact: Field) -> dict[str, Any]:
    name = _run(fit(one_line(fact.name), NAME_LIMIT) + ": ", weight="bolder")
    return _runs(name, _run(fit(one_line(fact.value), VALUE_LIMIT)), spacing="small")


def _run(text: str, **style: str) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **style}


def _runs(*runs: dict[str, Any], **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [part for run in runs for part in _parts(run)], **style}


def _parts(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The run, in two where its text would be taken for a function: a function lies in one run."""
    return ({**run, "text": text} for text in _FUNCTION.split(run["text"]))


def _actions(message: Message) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    room = LINKS_ROOM
    for link in () if _listed(message) else message.actions:
        if not 0 < units(link.url) <= min(URL_LIMIT, room):
            continue
        room -= units(link.url)
        title = fit(one_line(link.label), LABEL_LIMIT) or ELLIPSIS
        shown.append({"type": "Action.OpenUrl", "title": title, "url": link.url})
    return shown


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("teams", TeamsConfig, TeamsChannel, rate_limit="2/s"),)
