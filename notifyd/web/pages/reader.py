"""Who reads a page: in which language, with which formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import hdrs, web
from attrs import frozen

from notifyd.registry.registry import Registry
from notifyd.render.locales import Formats, formats_for, parse_locale, tag_of
from notifyd.web.pages.texts import TEXTS

_MAX_WISHES: Final = 10


@frozen
class Reader:
    """`tag` is the BCP 47 tag of the page, `texts` the words of its language."""

    tag: str
    texts: Mapping[str, str]
    formats: Formats


def reader_of(request: web.Request, registry: Registry, recipient: str | None = None) -> Reader:
    """By the recipient's own locale, else by what the browser asks for, else by the default."""
    wishes = (
        registry.recipient(recipient).locale or "",
        *_wishes(request.headers.get(hdrs.ACCEPT_LANGUAGE, "")),
        registry.settings.templates.default_locale,
        "en",
    )
    tag, texts = next(found for found in map(_spoken, wishes) if found is not None)
    return Reader(tag, texts, formats_for(tag, registry.zone(recipient)))


def _spoken(wish: str) -> tuple[str, Mapping[str, str]] | None:
    locale = parse_locale(wish)
    texts = TEXTS.get(locale.language) if locale else None
    return (tag_of(locale), texts) if locale and texts else None


def _wishes(header: str) -> Iterator[str]:
    """The tags of `Accept-Language` (RFC 9110, 12.5.4), most wanted first."""
    weighed = []
    for wish in header.split(",")[:_MAX_WISHES]:
        tag, _, parameter = wish.partition(";")
        weighed.append((_weight(parameter), tag.strip()))
    return (tag for weight, tag in sorted(weighed, key=lambda w: -w[0]) if weight > 0)


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
