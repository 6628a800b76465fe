"""The page's own words, in each language there is: `words/LANGUAGE.toml`. A test keeps the languages in step."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping
from typing import Any, Final

import tomli


def _read() -> Iterator[tuple[str, Mapping[str, str]]]:
    folder = importlib.resources.files(__package__).joinpath("words")
    for file in folder.iterdir():
        yield file.name.removesuffix(".toml"), dict(_flat(tomli.loads(file.read_text("utf-8"))))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield prefix + name, value


TEXTS: Final[Mapping[str, Mapping[str, str]]] = dict(_read())
"""By language, then by name, as `state.voted`. `{…}` is filled in by `str.format`."""
