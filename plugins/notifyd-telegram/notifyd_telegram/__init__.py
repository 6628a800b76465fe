"""The `telegram` channel: one `sendMessage` of the Bot API.

Vendor's rules: https://core.telegram.org/bots/api#sendmessage (the request and its length),
https://core.telegram.org/bots/api#html-style (escaping),
https://core.telegram.org/bots/api#inlinekeyboardbutton (link buttons),
https://core.telegram.org/bots/api#responseparameters (`retry_after`, seconds),
https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this (20 a minute to one group;
to one person it is one a second).
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from notifyd.plugin import (
    Action,
    Answer,
    ChannelContext,
    ChannelType,
    Field,
    Level,
    Message,
    PermanentError,
    Reason,
    Receipt,
    Secret,
    check_response,
    clean,
    fit,
    hide,
    hookimpl,
    http_url,
    leading,
    one_line,
    post,
    units,
)

TEXT_LIMIT: Final = 4096
TITLE_LIMIT: Final = 256
FIELDS_LIMIT: Final = 20
FIELDS_ROOM: Final = 1500
BUTTONS_LIMIT: Final = 5
"""More than a handful, such as those of a digest, read better as a list of links."""
LINKS_LIMIT: Final = 50
LINKS_ROOM: Final = 2500
LABEL_LIMIT: Final = 64
LISTED_LABEL_LIMIT: Final = 180

_MARKS: Final = {Level.INFO: "ℹ️", Level.SUCCESS: "✅", Level.WARNING: "⚠️", Level.ERROR: "❌"}
_TOKEN: Final = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")
_CHAT: Final = re.compile(r"-?[0-9]+|@[A-Za-z0-9_]+")


def _is_token(config: TelegramConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _TOKEN.fullmatch(value.reveal()):
        raise ValueError("not a bot token, which is written <number>:<letters and digits>")


def _is_chat(config: TelegramConfig, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and not _CHAT.fullmatch(value):
        raise ValueError('not a chat id: write "-1001234567890", or "@name" for a public channel')


@frozen
class TelegramConfig:
    """`chat_id` is a number in quotes, or `@name`. Without one the channel writes to each person of a rule's `to`,
    at their `telegram` address in `[recipients]`: their user id, once they have started a chat with the bot.
    `api_url` is for a Bot API server of one's own.
    """

    bot_token: Secret = field(validator=_is_token)
    chat_id: str | None = field(default=None, validator=_is_chat)
    api_url: Secret = field(default=Secret("https://api.telegram.org"), validator=http_url)

    @property
    def method_url(self) -> Secret:
        base, mark, query = self.api_url.reveal().partition("#")[0].partition("?")
        return Secret(f"{base.rstrip('/')}/bot{self.bot_token.reveal()}/sendMessage{mark}{query}")


class TelegramChannel:
    def __init__(self, config: TelegramConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        body = json.dumps(payload(message, self._chat_of(message))).encode()
        answer = await post(self._context.http, self._config.method_url, body)
        text = hide(answer.text, [self._config.bot_token])
        error = answer.json
        return check_response(
            _status(answer),
            answer.headers,
            text,
            now=self._context.clock(),
            retry_after=_wait(error),
            said=str(error.get("description", "")),
        )

    def _chat_of(self, message: Message) -> str:
        chat = self._config.chat_id or message.recipient or ""
        if not _CHAT.fullmatch(chat):
            raise PermanentError("the recipient's address is not a chat id", reason=Reason.NOT_FOUND)
        return chat

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _status(answer: Answer) -> int:
    """The status that counts: where `ok` is false in an answer with 200, it is `error_code`.

    The API documents `ok` as its verdict and gives `error_code` beside it
    (https://core.telegram.org/bots/api#making-requests). Where no body came the status stands alone.
    """
    if answer.status != 200 or answer.json.get("ok") is not False:
        return answer.status
    code = answer.json.get("error_code")
    return code if isinstance(code, int) and 400 <= code < 600 else 400


def _wait(error: dict[str, Any]) -> object:
    """The seconds to wait, as they came."""
    parameters = error.get("parameters")
    return parameters.get("retry_after") if isinstance(parameters, dict) else None


def escape(text: str) -> str:
    """Text inside Telegram's HTML, which knows these three entities and the quotation mark."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def payload(message: Message, chat_id: str) -> dict[str, Any]:
    """The request's body, a pure function of message and config. No previews: they would open the links."""
    body: dict[str, Any] = {
        "chat_id": chat_id,
        "text": _text(message),
        "parse_mode": "HTML",
        "link_preview_options": {"is_disabled": True},
    }
    buttons = [action for action in message.actions if _may_be_button(action)]
    if buttons and not _listed(message):
        rows = [[{"text": _label(action), "url": action.url}] for action in buttons]
        body["reply_markup"] = {"inline_keyboard": rows}
    return body


def _text(message: Message) -> str:
    """Title, body, fields, and the links that cannot be buttons, in that order."""
    title = fit(one_line(message.title), TITLE_LIMIT, escape=escape)
    head = f"{_MARKS[message.level]} <b>{title}</b>" if title else _MARKS[message.level]
    facts = _facts(message.fields[:FIELDS_LIMIT])
    if _listed(message):
        links, shown = _links(message.actions)
        more = ""
    else:
        links = _plain_links(message.actions)
        shown, more = units(links), _more(message.actions)
    room = TEXT_LIMIT - units(head) - units(facts) - shown - 6
    body = fit(clean(message.body).strip(), room, escape=escape, more=more)
    tail = (links, facts) if _listed(message) else (facts, links)
    return "\n\n".join(block for block in (head, body, *tail) if block)


def _listed(message: Message) -> bool:
    return len(message.actions) > BUTTONS_LIMIT


def _links(actions: tuple[Action, ...]) -> tuple[str, int]:
    """A list of links, as many as fit, and its length as Telegram counts it: an address does not count."""
    lines, used = [], 0
    for action in actions[:LINKS_LIMIT]:
        label = _label(action, LISTED_LABEL_LIMIT, escaped=True)
        used += units(label) + 3
        if used > LINKS_ROOM:
            break
        lines.append(f'• <a href="{escape(one_line(action.url))}">{label}</a>')
    if len(lines) < len(actions):
        lines.append(f"… (+{len(actions) - len(lines)})")
    return "\n".join(lines), used + 12


def _facts(fields: tuple[Field, ...]) -> str:
    return "\n".join(leading(map(_fact, fields), FIELDS_ROOM, lambda line: units(line) + 1))


def _fact(fact: Field) -> str:
    name = fit(one_line(fact.name), 100, escape=escape)
    value = fit(one_line(fact.value), 300, escape=escape)
    return f"<b>{name}</b>: {value}"


def _may_be_button(action: Action) -> bool:
    """Telegram refuses a whole message for a button whose URL has a host without a dot, such as localhost."""
    try:
        parts = urlsplit(action.url)
        return parts.scheme in ("http", "https") and "." in (parts.hostname or "")
    except ValueError:
        return False


def _plain_links(actions: tuple[Action, ...]) -> str:
    lines = [f"{_label(action, escaped=True)}: {escape(one_line(action.url))}" for action in actions[:3]]
    links = [line for line, action in zip(lines, actions, strict=False) if not _may_be_button(action)]
    return "\n".join(line for line in links if units(line) <= 500)


def _label(action: Action, limit: int = LABEL_LIMIT, *, escaped: bool = False) -> str:
    return fit(one_line(action.label), limit, escape=escape if escaped else str) or "…"


def _more(actions: tuple[Action, ...]) -> str:
    """A link to the whole text, which follows where it is cut."""
    first = next((action for action in actions if _may_be_button(action)), None)
    return f' <a href="{escape(first.url)}">{_label(first, escaped=True)}</a>' if first else ""


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    def personal(config: TelegramConfig) -> bool:
        return config.chat_id is None

    return (
        ChannelType(
            "telegram", TelegramConfig, TelegramChannel, personal=personal, addressed=True, rate_limit="20/m"
        ),
    )
