"""What people are told who answer a message where it is: `replies.toml`, by language and name."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping
from typing import Final

import tomli

from notifyd.render.locales import parse_locale

REPLIES: Final[Mapping[str, Mapping[str, str]]] = tomli.loads(
    importlib.resources.files(__package__).joinpath("replies.toml").read_text("utf-8")
)
"""By language, then by name. `{…}` is filled in by `str.format`."""

_BUILT_IN: Final = "en"


def reply(name: str, wishes: Iterable[str | None], **values: object) -> str:
    """The text of a name in the first of the locales wished for whose language there is, else in English."""
    locales = (parse_locale(wish) for wish in wishes if wish)
    spoken = (locale.language for locale in locales if locale and locale.language in REPLIES)
    return REPLIES[next(spoken, _BUILT_IN)][name].format(**values)
