"""What the gallery shows is whole: two programs other than Python's read each mail, and find its words."""

from __future__ import annotations

from functools import cache

import pytest

from notifyd.text import one_line
from tests.gallery.cells import LOCALES, SHOWN, Cell, cells
from tests.mail_readers import by_mailparse, by_postal_mime

WANTED = [(name, locale) for locale in LOCALES for name in (*SHOWN, "digest")]


@cache
def shown() -> dict[tuple[str, str], Cell]:
    return {(cell.name, cell.locale): cell for cell in cells()}


def test_every_event_is_shown_in_every_locale() -> None:
    assert shown().keys() == set(WANTED)


@pytest.mark.parametrize(("name", "locale"), WANTED)
def test_a_mail_and_the_chats_say_what_the_message_says(name: str, locale: str) -> None:
    cell = shown()[name, locale]
    message = cell.message
    for read in (by_mailparse, by_postal_mime):
        *_, subject, plain, page = read(cell.mail)
        assert subject
        assert all(action.url in plain and action.url in page for action in message.actions)
        assert all(one_line(field.value) in plain for field in message.fields)
    for action in message.actions:
        # A log shows no link, and an end resolves an alert, which has shown it. What does not fit is counted.
        chats = {type_: text for type_, text in cell.sent.items() if type_ not in ("log", "pagerduty")}
        assert all(action.url in text or "… (+" in text for text in chats.values())
    assert max(map(len, cell.mail.split(b"\r\n"))) <= 998  # RFC 5322, 2.1.1
    assert len(cell.mail) < 102_400  # beyond it Gmail cuts a mail
