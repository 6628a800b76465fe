"""Header fields as they go over the wire: the syntax and folding of RFC 5322, the encoded words of RFC 2047.

Pure. The standard library's folder is not used, because it changes texts, and differently in each version of
Python (see docs/adr/0014-mail-headers.md).
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from notifyd.plugin import Mailbox

LINE_LIMIT: Final = 76
"""Of a line with encoded words (RFC 2047, 2); two fewer than RFC 5322 wants of any line."""

WORD_LIMIT: Final = 75
"""Of an encoded word, with its frame."""

PLAIN_LIMIT: Final = 60
"""Of a word that stays as it is: beside the longest name of a header such a word needs no line of its own."""

_FRAME: Final = len("=?utf-8?q??=")

# RFC 5322, 3.2.3: what an atom is made of.
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+( [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# What may stand for itself in an encoded word of a phrase, the strictest place for one (RFC 2047, 5).
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")


def text_field(name: str, text: str) -> bytes:
    """A field of unstructured text, such as Subject."""
    words = text.split(" ")
    return _field(name, words if not text or _plain(words) else _encoded(text, len(name) + 2))


def address_field(name: str, mailbox: Mailbox) -> bytes:
    """A field with one address. One that is not ASCII is for SMTPUTF8 (RFC 6532), its name is ASCII even so."""
    if not mailbox.name:
        return _field(name, [mailbox.address])
    return _field(name, [*_phrase(mailbox.name, len(name) + 2), f"<{mailbox.address}>"])


def token_field(name: str, *tokens: str) -> bytes:
    """A field whose parts go out as they are, such as ids: nothing in them is folded or encoded."""
    return _field(name, tokens)


def _field(name: str, tokens: Iterable[str]) -> bytes:
    """`tokens`, a space apart, on lines that are broken between them; the first line is never left empty."""
    first, *rest = tokens
    lines = [f"{name}: {first}"]
    for token in rest:
        if len(lines[-1]) + 1 + len(token) <= LINE_LIMIT:
            lines[-1] += f" {token}"
        else:
            lines.append(f" {token}")
    return "\r\n".join(lines).encode() + b"\r\n"


def _plain(words: Sequence[str]) -> bool:
    """Can these words, a space apart, stand as they are, and is none taken for an encoded one?"""
    return all(0 < len(w) <= PLAIN_LIMIT and w.isascii() and w.isprintable() and "=?" not in w for w in words)


def _phrase(name: str, start: int) -> list[str]:
    """A display name: as it is where it is made of atoms, else quoted, else in encoded words."""
    words = name.split(" ")
    if _plain(words) and _ATOMS.fullmatch(name):
        return words
    if _plain(words) and len(name) <= PLAIN_LIMIT:
        return ['"' + re.sub(r'(["\\])', r"\\\1", name) + '"']
    return _encoded(name, start)


def _encoded(text: str, start: int) -> list[str]:
    """`text` in encoded words, the first of which begins at column `start`.

    The spaces of the text are inside the words, as those between two words are dropped where they are read.
    What is one to the eye is not cut, unless it is too long for a word.
    """
    encode, marker = _encoding(text)
    room = LINE_LIMIT - start - _FRAME
    pieces = [p for whole in _clusters(text) for p in ([whole] if len(encode(whole)) <= room else whole)]
    words, chunk = list[str](), ""
    for piece in pieces:
        if chunk and len(encode(chunk + piece)) > room:
            words.append(chunk)
            chunk, room = "", WORD_LIMIT - _FRAME
        chunk += piece
    return [f"=?utf-8?{marker}?{encode(word)}?=" for word in (*words, chunk)]


def _encoding(text: str) -> tuple[Callable[[str], str], str]:
    """The shorter of the two encodings and its letter."""
    return (_q, "q") if len(_q(text)) <= len(_b(text)) else (_b, "b")


def _q(text: str) -> str:
    return "".join(_q_octet(octet) for octet in text.encode())


def _q_octet(octet: int) -> str:
    return "_" if octet == 0x20 else chr(octet) if octet in _SAFE else f"={octet:02X}"


def _b(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _clusters(text: str) -> Iterator[str]:
    """Characters, each with all that belongs to it."""
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or not _joined(text[end - 1], text[end]):
            yield text[start:end]
            start = end


def _joined(left: str, right: str) -> bool:
    """Are two characters likely one to the eye: an accent, a joiner, a skin tone, half of a flag?"""
    joiner, tones, flags = "\u200d", ("\U0001f3fb", "\U0001f3ff"), ("\U0001f1e6", "\U0001f1ff")
    if joiner in (left, right) or unicodedata.category(right).startswith("M"):
        return True
    return tones[0] <= right <= tones[1] or (flags[0] <= left <= flags[1] and flags[0] <= right <= flags[1])
