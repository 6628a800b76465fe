"""What the gallery shows is whole: a program other than Python's reads each mail, and each has its words."""

from __future__ import annotations

from functools import cache

import fast_mail_parser
import pytest

from notifyd.text import one_line
from tests.gallery.cells import LOCALES, SHOWN, Cell, cells

WANTED = [(name, locale) for locale in LOCALES for name in (*SHOWN, "digest")]


@cache
def shown() -> dict[tuple[str, str], Cell]:
    return {(cell.name, cell.locale): cell for cell in cells()}


def test_every_event_is_shown_in_every_locale() -> None:
    assert shown().keys() == set(WANTED)


@pytest.mark.parametrize(("name", "locale"), WANTED)
def test_a_mail_and_the_chats_say_what_the_message_says(name: str, locale: str) -> None:
    cell = shown()[name, locale]
    read, message = fast_mail_parser.parse_email(cell.mail), cell.message
    (plain,), (page,) = read.text_plain, read.text_html
    for action in message.actions:
        assert action.url in plain
        assert action.url in page
        # A log shows no link, and an end resolves an alert, which has shown it. What does not fit is counted.
        chats = {type_: text for type_, text in cell.sent.items() if type_ not in ("log", "pagerduty")}
        assert all(action.url in text or "… (+" in text for text in chats.values())
    for field in message.fields:
        assert one_line(field.value) in plain
    assert max(map(len, cell.mail.split(b"\r\n"))) <= 998  # RFC 5322, 2.1.1
    assert len(cell.mail) < 102_400  # beyond it Gmail cuts a mail
