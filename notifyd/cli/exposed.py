"""Files of an installation that anybody on the machine may write."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from notifyd.config.lines import values
from notifyd.config.placeholders import named_files
from notifyd.config.settings import Settings
from notifyd.store.open import sqlite_path
from notifyd.trust import CaFile


def exposed(path: Path, settings: Settings | None) -> Iterator[Path]:
    """Each file by which whoever may write it decides what the service does, and which anybody may write.

    A folder is one of them: its files can be replaced, but for one with the sticky bit. Without `settings` only
    what the text of the configuration at `path` names is known.
    """
    for file in dict.fromkeys(_files(path, settings)):
        try:
            mode = file.stat().st_mode
        except OSError:
            continue  # what needs it has told of it, or it is made later
        replaceable = not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)
        if mode & stat.S_IWOTH and replaceable:
            yield file


def _files(path: Path, settings: Settings | None) -> Iterator[Path]:
    named = named_files(_document(path), os.environ, path.parent)
    for file in (path, *named, *(_of_settings(settings) if settings else ())):
        yield from (file.parent, file)
    for folder in settings.templates.dirs if settings else ():
        yield from (folder, *folder.rglob("*"))


def _document(path: Path) -> object:
    try:
        return values(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # which loading tells of


def _of_settings(settings: Settings) -> Iterator[Path]:
    jwt = settings.auth.jwt
    if jwt and jwt.jwks.keys is not None:
        yield Path(jwt.jwks.at)
    if settings.store.url.startswith("sqlite"):
        yield sqlite_path(settings.store.url)
    for record in (settings.server.tls, settings.egress, *_configs(settings)):
        for attribute in attrs.fields(type(record)):
            value = getattr(record, attribute.name)
            if isinstance(value, Path | CaFile):
                yield value if isinstance(value, Path) else value.path


def _configs(settings: Settings) -> Iterator[Any]:
    for channel in (*settings.channels.values(), *settings.resume.forwarders.values()):
        yield channel.config
