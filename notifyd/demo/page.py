"""Reading HTML as far as a person does who follows a link and fills in a form."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """`links` are its addresses, `fields` the values that its form sends, `buttons` those of its buttons."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("input", "textarea") and "name" in values:
            self.fields[values["name"]] = values.get("value", "")
        elif tag == "button":
            self.buttons.append(values.get("value", ""))
