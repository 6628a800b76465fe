"""Which options hold a secret, and have not the type of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import attrs

from notifyd.config.structure import options_of
from notifyd.post import pieces_of
from notifyd.security.redact import names_secret
from notifyd.testkit.leaks import shows


def plain_secrets(kind: type[Any], config: object, headers: Mapping[str, str]) -> set[str]:
    """Options of plain text that are named as a secret, hold a long URL, or travel as a secret in `headers`."""
    return {*_named(kind), *_valued(config, [text for name, text in headers.items() if names_secret(name)])}


def _named(kind: type[Any]) -> Iterator[str]:
    """By its name, in tables of its own too."""
    for name, attribute in options_of(kind).items():
        if names_secret(name) and _is_text(attribute.type):
            yield name
        for inner in (attribute.type, *get_args(attribute.type)):
            if isinstance(inner, type) and attrs.has(inner):
                yield from (f"{name}.{one}" for one in _named(inner))


def _is_text(hint: Any) -> bool:
    return hint is str or any(_is_text(inner) for inner in get_args(hint))


def _valued(config: Any, sent: list[str]) -> Iterator[str]:
    """By its value."""
    for name, attribute in options_of(type(config)).items():
        for text in _texts(getattr(config, attribute.name)):
            url_holds_more = "://" in text and len(list(pieces_of(text))) > 1
            if url_holds_more or any(len(text) >= 6 and shows(one, text) for one in sent):
                yield name


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from _texts(item)
