"""A message as the body of `sendMessage`.

Vendor's rules: https://core.telegram.org/bots/api#sendmessage (the request and its length),
https://core.telegram.org/bots/api#html-style (escaping),
https://core.telegram.org/bots/api#inlinekeyboardbutton (link buttons, and those that hand back 64 bytes).
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from notifyd.plugin import Action, Button, Field, Level, Message, clean, fit, leading, listed, one_line, units

TEXT_LIMIT: Final = 4096
TITLE_LIMIT: Final = 256
FIELDS_LIMIT: Final = 20
FIELDS_ROOM: Final = 1500
BUTTONS_LIMIT: Final = 5
"""More than a handful, such as those of a digest, read better as a list of links."""
LINKS_LIMIT: Final = 50
LINKS_ROOM: Final = 2500
PLAIN_LINKS_ROOM: Final = 2000
LABEL_LIMIT: Final = 64
LISTED_LABEL_LIMIT: Final = 180

_MARKS: Final = {Level.INFO: "ℹ️", Level.SUCCESS: "✅", Level.WARNING: "⚠️", Level.ERROR: "❌"}
_ENTITY: Final = re.compile(
    r"https?://[\w-]+(?:\.[\w-]+)+(?::[0-9]+)?(?:[/?#][\w./?&=%+~#:@!*,;$-]*)?"
    r"|(?<!\w)(?P<mark>[@#$]|(?<![/<>])/)(?=\w)"
)
"""An address, which stays as it is, or what begins a mention, a hashtag, a cashtag or a command: clients make
links of them (https://core.telegram.org/bots/api#messageentity), and a mention rings."""
_JOINER: Final = "\u2060"
"""Not seen, and no part of a name: none of these can be escaped."""

_LETTERS: Final = {"approved": "a", "rejected": "r"}


def callback_data(action: str, ref: str) -> str:
    """What a button hands back: 34 of the 64 bytes that it may be."""
    return f"{_LETTERS[action]}:{ref}"


def escape(text: str) -> str:
    """Text that Telegram shows as it is written: no tag, and nobody is mentioned. Addresses stay links."""
    return _entities(_ENTITY.sub(lambda found: found[0] + (_JOINER if found["mark"] else ""), text))


def _entities(text: str) -> str:
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
    rows = [[_decider(button) for button in message.buttons]] if message.buttons else []
    if not _listed(message):
        links = [action for action in message.actions if _may_be_button(action)]
        rows += [[{"text": _label(action), "url": action.url}] for action in links]
    if rows:
        body["reply_markup"] = {"inline_keyboard": rows}
    return body


def _decider(button: Button) -> dict[str, str]:
    label = fit(one_line(button.label), LABEL_LIMIT) or "…"
    return {"text": label, "callback_data": callback_data(button.action, button.ref)}


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
        lines.append(f'• <a href="{_entities(one_line(action.url))}">{label}</a>')
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
    """Those that cannot be buttons, as far as they fit; a last line counts the rest."""
    links = [action for action in actions if not _may_be_button(action)]
    lines = (f"{_label(action, escaped=True)}: {_entities(one_line(action.url))}" for action in links)
    return "\n".join(listed(lines, len(links), PLAIN_LINKS_ROOM, lambda line: units(line) + 1))


def _label(action: Action, limit: int = LABEL_LIMIT, *, escaped: bool = False) -> str:
    return fit(one_line(action.label), limit, escape=escape if escaped else str) or "…"


def _more(actions: tuple[Action, ...]) -> str:
    """A link to the whole text, which follows where it is cut."""
    first = next((action for action in actions if _may_be_button(action)), None)
    return f' <a href="{_entities(first.url)}">{_label(first, escaped=True)}</a>' if first else ""
