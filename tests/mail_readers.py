"""Two programs that read mail and are not Python's own: postal-mime, in JavaScript, and mailparse, in Rust."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import fast_mail_parser
import quickjs

Person: TypeAlias = tuple[str, str]
"""A name and an address."""

Read: TypeAlias = tuple[list[Person], list[Person], list[Person], str, str, str]
"""From, To, Reply-To, Subject, the plain text, the HTML."""

_POSTAL_MIME: Final = Path(__file__).parent / "data" / "postal-mime"


def by_postal_mime(content: bytes) -> Read:
    engine = _postal_mime()
    engine.eval(f'parse("{content.hex()}")')
    while engine.execute_pending_job():
        pass
    mail = json.loads(engine.eval("outcome"))["mail"]
    people = [[(p["name"], p["address"]) for p in mail.get(key, [])] for key in ("to", "replyTo")]
    sender = (mail["from"]["name"], mail["from"]["address"])
    return [sender], people[0], people[1], mail["subject"], mail["text"], mail.get("html", "")


@cache
def _postal_mime() -> Any:
    engine = quickjs.Context()
    sources = {path.stem: path.read_text(encoding="utf-8") for path in _POSTAL_MIME.glob("*.js")}
    engine.eval(f"globalThis.sources = {json.dumps(sources)}")
    engine.eval(sources["host"])
    return engine


def by_mailparse(content: bytes) -> Read:
    mail = fast_mail_parser.parse_email(content)
    assert not mail.warnings
    sender = [] if mail.from_ is None else [mail.from_]
    people = [
        [(p.display_name or "", p.address) for p in found] for found in (sender, mail.to, mail.reply_to)
    ]
    return people[0], people[1], people[2], mail.subject, "".join(mail.text_plain), "".join(mail.text_html)
