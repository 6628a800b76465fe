"""What the gallery shows: each event, in each locale, as each first-party channel sends it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import notifyd_discord
import notifyd_google_chat
import notifyd_log
import notifyd_mattermost
import notifyd_ntfy
import notifyd_pagerduty
import notifyd_slack
import notifyd_teams
import notifyd_telegram
import notifyd_webhook
from attrs import frozen
from notifyd_apprise.channel import body as apprise_body
from notifyd_email.mail import Letterhead, compose

from notifyd.model import SECOND, Level, Message
from notifyd.plugin import Mailbox
from notifyd.render.render import Digest, DigestItem
from tests.unit.test_templates import EVENTS, START, templates

LOCALES: Final = ("en", "de-CH", "fr", "es", "ja")
SHOWN: Final = (
    "requested-en",
    "requested-quorum",
    "requested-hostile",
    "new-round",
    "approved-by-some",
    "approved",
    "rejected",
    "expired",
    "updated-cancelled",
    "resumed",
    "resume-failed",
    "hold-en",
    "released-en",
)
"""Of the events that the tests know, those that read differently."""

_ZONES: Final[Mapping[str, str]] = {"ja": "Asia/Tokyo", "en": "America/New_York"}
_LINK: Final = "https://notifyd.acme.example/approvals/" + "x" * 316
_MINE: Final = "https://notifyd.acme.example/approvals/mine/" + "y" * 190
_HEAD: Final = Letterhead(Mailbox("notifyd", "notifyd", "acme.example"), "release-mail")
_ALICE: Final = Mailbox("Alice", "alice", "acme.example")


@frozen
class Cell:
    """One message in one locale: what each channel sends for it, as text, by the channel's type."""

    name: str
    locale: str
    message: Message
    mail: bytes
    sent: Mapping[str, str]


def cells() -> Iterator[Cell]:
    for locale in LOCALES:
        for name in SHOWN:
            yield _cell(name, locale, EVENTS[name], None)
        yield _cell("digest", locale, {"kind": "pack.approval", "action": "digest"}, _digest())


def _digest() -> Digest:
    items = [DigestItem(f"Approval needed: deploy {n}", f"{_LINK}{n:02}", Level.WARNING) for n in range(12)]
    return Digest(12, tuple(items), START, START + 30 * SECOND, "approvals", requests=True)


def _cell(name: str, locale: str, event: Mapping[str, Any], digest: Digest | None) -> Cell:
    asked = event.get("action") == "requested" or name == "approved-by-some"
    rendered = templates().render(
        _template(event, digest),
        locale,
        event=event,
        zone=_ZONES.get(locale, "Europe/Zurich"),
        link=None if digest else _LINK,
        mine=_MINE if event["kind"] == "pack.approval" else None,
        can_decide=asked,
        digest=digest,
    )
    message = rendered.message(f"gallery-{name}-{locale}", "alice@acme.example", event)
    sent = {type_: write(message) for type_, write in CHANNELS.items()}
    return Cell(name, locale, message, compose(message, _HEAD, _ALICE, START).content, sent)


def _template(event: Mapping[str, Any], digest: Digest | None) -> str:
    return "digest" if digest else "pack-policy" if event["kind"] == "pack.policy" else "pack-approval"


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


CHANNELS: Final[Mapping[str, Callable[[Message], str]]] = {
    "slack": lambda message: _pretty(notifyd_slack.payload(message)),
    "discord": lambda message: _pretty(notifyd_discord.payload(message)),
    "teams": lambda message: _pretty(json.loads(notifyd_teams.payload(message))),
    "google-chat": lambda message: _pretty(json.loads(notifyd_google_chat.payload(message))),
    "mattermost": lambda message: _pretty(notifyd_mattermost.payload(message)),
    "ntfy": lambda message: _pretty(notifyd_ntfy.payload(message)),
    "pagerduty": lambda message: _pretty(notifyd_pagerduty.payload(message)),
    "telegram": lambda message: _pretty(notifyd_telegram.payload(message, "-1001")),
    "apprise": lambda message: apprise_body(message, 4096),
    "webhook": lambda message: _pretty(json.loads(notifyd_webhook.payload(message))),
    "log": notifyd_log.line,
}
"""By type, what a channel sends for a message; the mail is bytes, and apart."""
