"""The channel: each message as one page to a team."""

from __future__ import annotations

import json
from collections.abc import Mapping

from attrs import field, frozen

from notifyd.plugin import (
    Answer,
    ChannelContext,
    Level,
    Message,
    Receipt,
    Secret,
    check_response,
    clean,
    fit,
    http_url,
    one_line,
    post,
)

SUMMARY_LIMIT = 120
DETAILS_LIMIT = 2000
URGENT = (Level.WARNING, Level.ERROR)


@frozen
class PagerConfig:
    """The options of a channel with `type = "pager"`. What is a `Secret` is never shown anywhere."""

    url: Secret = field(validator=http_url)
    key: Secret
    team: str = "everyone"


class PagerChannel:
    def __init__(self, config: PagerConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        """One attempt. Raises `TransientError` where trying again can help, `PermanentError` where it cannot."""
        return self.checked(await self.call("", payload(message, self._config.team)))

    async def call(self, path: str, body: Mapping[str, object]) -> Answer:
        url = Secret(self._config.url.reveal() + path)
        headers = {"x-pager-key": self._config.key}
        return await post(self._context.http, url, json.dumps(body).encode(), headers)

    def checked(self, answer: Answer) -> Receipt:
        """The verdict, with the wait and the reason that this vendor tells in the body."""
        return check_response(
            answer.status,
            answer.headers,
            answer.text,
            now=self._context.clock(),
            retry_after=answer.json.get("wait"),
            said=str(answer.json.get("error", "")),
        )

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def payload(message: Message, team: str) -> dict[str, object]:
    """The request's body: a pure function of message and config, so that a retry sends the same bytes."""
    return {
        "key": message.id,
        "team": team,
        "urgent": message.level in URGENT,
        "summary": fit(one_line(message.title), SUMMARY_LIMIT),
        "details": fit(clean(message.body), DETAILS_LIMIT),
        "facts": [f"{one_line(fact.name)}: {one_line(fact.value)}" for fact in message.fields],
        "links": [link.url for link in message.actions],
    }
