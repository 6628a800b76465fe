"""Placeholders in a configuration's strings, resolved before anything else looks at them.

`${VAR}`, `${VAR:-default}` (where the variable is unset or empty), `${file:PATH}` and `${cred:NAME}`, a file
of systemd's `$CREDENTIALS_DIRECTORY`. One newline at a file's end is dropped; an empty file is refused.
`$${` stands for `${` itself. What a placeholder gives is taken as it is, and not searched for placeholders again.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from notifyd.config.faults import Findings
from notifyd.security.secrets import HIDDEN

_PLACEHOLDER: Final = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}|\$\{")
_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_CREDENTIAL: Final = re.compile(r"(?!\.{1,2}\Z)[^/\x00]{1,255}")
_WORD: Final = re.compile(r"[A-Za-z0-9_+=-]{6,}")
_SHORTEST: Final = 4

MAX_FILE: Final = 1024 * 1024
"""Bytes of a file that a placeholder may name: a secret, not a log."""


class Revealed:
    """Text that no error may show: what came out of the environment and of files, and every secret."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def add(self, text: str) -> str:
        self._texts.add(text)
        return text

    def hide(self, message: str) -> str:
        """`message` without any of the texts. Those of less than four characters hide nothing."""
        return self._without(message, self._texts)

    def hide_parts(self, message: str) -> str:
        """The same, and without their longer words: for a message that others have made from a value."""
        words = {word for text in self._texts for word in _WORD.findall(text)}
        quoted = {repr(text)[1:-1] for text in self._texts}
        return self._without(message, self._texts | quoted | words)

    @staticmethod
    def _without(message: str, texts: Iterable[str]) -> str:
        for text in sorted(texts, key=len, reverse=True):
            if len(text) >= _SHORTEST:
                message = message.replace(text, HIDDEN)
        return message


def named_files(document: object, environ: Mapping[str, str], base: Path) -> Iterator[Path]:
    """The files that the placeholders in a document's strings name, whether they are there or not."""
    yield from (base / name for name in _named(document, "file"))
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder:
        yield from (Path(folder) / name for name in named_credentials(document))


def named_credentials(document: object) -> Iterator[str]:
    """The credentials that the placeholders in a document's strings name."""
    return _named(document, "cred")


def _named(value: object, kind: str) -> Iterator[str]:
    match value:
        case str():
            parts = ((found[2] or "").partition(":") for found in _PLACEHOLDER.finditer(value))
            yield from (name for word, _, name in parts if word == kind)
        case dict():
            for item in value.values():
                yield from _named(item, kind)
        case list():
            for item in value:
                yield from _named(item, kind)


@frozen
class Resolver:
    """Where placeholders get their values. `base` is what a relative path in `${file:…}` starts from."""

    environ: Mapping[str, str]
    base: Path
    revealed: Revealed = field(factory=Revealed)

    def resolve(self, value: object, findings: Findings) -> object:
        """`value` with every string in it resolved; a string that cannot be becomes None, its fault added."""
        match value:
            case str():
                return self._text(value, findings)
            case dict():
                return {key: self._at(key, item, findings) for key, item in value.items()}
            case list():
                return [self._at(index, item, findings) for index, item in enumerate(value)]
            case _:
                return value

    def _at(self, step: str | int, value: object, findings: Findings) -> object:
        return self.resolve(value, findings.under(step))

    def _text(self, text: str, findings: Findings) -> str | None:
        if "${" not in text:
            return text
        try:
            result = _PLACEHOLDER.sub(self._one, text)
        except ValueError as error:
            findings.add(str(error))
            return None
        return self.revealed.add(result)

    def _one(self, found: re.Match[str]) -> str:
        if found[1]:
            return "${"
        if found[2] is None:
            raise ValueError('a placeholder is not closed; "$${" stands for "${" itself')
        kind, colon, name = found[2].partition(":")
        if colon and kind == "file":
            return self.revealed.add(self._file(self.base / name, f"the file {name}"))
        if colon and kind == "cred":
            return self.revealed.add(self._credential(name))
        return self._variable(found[2])

    def _variable(self, text: str) -> str:
        found = _VARIABLE.fullmatch(text)
        if not found:
            raise ValueError("a placeholder is ${VAR}, ${VAR:-default}, ${file:PATH} or ${cred:NAME}")
        name, default = found.groups()
        if default is not None:
            return self.revealed.add(self.environ[name]) if self.environ.get(name) else str(default)
        if name not in self.environ:
            raise ValueError(f"the environment variable {name} is not set")
        return self.revealed.add(self.environ[name])

    def _credential(self, name: str) -> str:
        if not _CREDENTIAL.fullmatch(name):
            raise ValueError("a credential's name is a file name, without a slash")
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ValueError(f"the credential {name} needs $CREDENTIALS_DIRECTORY, which systemd sets")
        return self._file(Path(folder) / name, f"the credential {name}")

    @staticmethod
    def _file(path: Path, what: str) -> str:
        try:
            content = _beginning(path)
            text = content.decode()
        except OSError as error:
            raise ValueError(f"{what} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{what} is not UTF-8 text") from None
        if len(content) > MAX_FILE:
            raise ValueError(f"{what} is larger than {MAX_FILE} bytes")
        text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
        if not text:  # as whoever replaces a file leaves it for a moment
            raise ValueError(f"{what} is empty")
        return text


def _beginning(path: Path) -> bytes:
    """What a file holds, or the first bytes that are too many. Raises OSError.

    Nothing is read of a pipe or a device: a reload that waits for somebody to write there would be the last one.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(MAX_FILE + 1)
