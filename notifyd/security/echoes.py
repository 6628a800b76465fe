"""Whether a text repeats a secret, in whatever encoding: what a receiver answers may hold what it was sent.

Letters and digits are compared, without regard to case: what stands between them is often escaped, and differently
each time.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from attrs import frozen

LONGEST_PIECE: Final = 12
"""So many letters and digits in a row of a secret are a leak, or all of it where it has fewer."""

_LEVELS: Final = 3
"""How many encodings, one inside the other, are looked through."""

_OTHERS: Final = re.compile(r"[^0-9A-Za-z]+")
_JSON_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_QUOTED_PRINTABLE: Final = re.compile(r"=([0-9A-Fa-f]{2})|=\r?\n")
_SPACES: Final = re.compile(r"\s+")
_OCTAL: Final = re.compile(r"\\([0-3][0-7]{2})")
_BYTES: Final = re.compile(r"(?<![0-9])[0-9]{1,3}(?:[\s,;]{1,3}[0-9]{1,3}){7,}")
_NUMBER: Final = re.compile(r"[0-9]+")
_BETWEEN_HEX: Final = re.compile(r"(?<=[0-9A-Fa-f]{2})(?:[:.-]|[,;]?0x|[,;])(?=[0-9A-Fa-f]{2})")
_BASE64: Final = re.compile(r"[0-9A-Za-z+/]{12,}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{12,}")
_URLSAFE: Final = str.maketrans("-_", "+/")


@frozen
class Pieces:
    """Pieces of secrets, by their length."""

    by_length: dict[int, frozenset[str]]

    @classmethod
    def of(cls, secrets: Iterable[str], shortest: int) -> Pieces:
        """All pieces of `secrets`, but for those that have fewer than `shortest` letters and digits."""
        found: dict[int, set[str]] = {}
        for secret in map(_skeleton, secrets):
            if len(secret) >= shortest:
                length = min(len(secret), LONGEST_PIECE)
                found.setdefault(length, set()).update(_windows(secret, length))
        return cls({length: frozenset(pieces) for length, pieces in found.items()})

    def are_in(self, skeleton: str) -> bool:
        return any(not pieces.isdisjoint(_windows(skeleton, n)) for n, pieces in self.by_length.items())


def in_any_reading(text: str, *secrets: Pieces) -> bool:
    """Does `text` hold a piece: as it is, or percent-, entity-, JSON-, hex- or base64-encoded?"""
    skeletons = map(_skeleton, _readings(text) if any(one.by_length for one in secrets) else ())
    return any(one.are_in(skeleton) for skeleton in skeletons for one in secrets)


def _skeleton(text: str) -> str:
    return _OTHERS.sub("", text).lower()


def _windows(text: str, length: int) -> Iterator[str]:
    return (text[start : start + length] for start in range(len(text) - length + 1))


def _readings(text: str) -> Iterator[str]:
    """`text`, and what it is where it is read as one encoding or another, and that again."""
    level = {text}
    seen: set[str] = set()
    for _ in range(_LEVELS + 1):
        yield from level
        seen |= level
        level = {decoded for reading in level for decoded in _decoded(reading)} - seen


def _decoded(text: str) -> Iterator[str]:
    yield _without_escapes(text)
    if "=" in text:
        yield _QUOTED_PRINTABLE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "", text)
    if "\\" in text:
        yield _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    yield " ".join(map(_of_numbers, _BYTES.findall(text)))
    # A long text is broken into lines, wherever that is.
    joined = _SPACES.sub("", text)
    yield " ".join(_text(bytes.fromhex(part)) for part in _hex_in(_BETWEEN_HEX.sub("", joined)))
    yield " ".join(_text(base64.b64decode(part)) for part in _base64_in(joined))


def _without_escapes(text: str) -> str:
    """`text` as a URL, HTML and JSON would each read it, one after the other."""
    if "%" in text:
        text = _text(unquote_to_bytes(text.encode(errors="replace")))
    if "&" in text:
        text = html.unescape(text)
    return _JSON_ESCAPE.sub(_unescape, text) if "\\" in text else text


def _of_numbers(text: str) -> str:
    """What a list of bytes in decimal, as some languages print one, spells."""
    return "".join(chr(int(number)) for number in _NUMBER.findall(text))


def _hex_in(text: str) -> Iterator[str]:
    for run in _HEX.findall(text):
        yield from (part[: len(part) & ~1] for part in (run, run[1:]))


def _base64_in(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text.translate(_URLSAFE)):
        # It may begin anywhere: a word before it looks like a part of it.
        yield from (part[: len(part) & ~3] for part in (run, run[1:], run[2:], run[3:]))


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else match[3]


def _text(data: bytes) -> str:
    return data.decode("latin-1")
