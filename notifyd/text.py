"""Text made fit for a receiver: cleaned of what no reader should see, and cut where a vendor sets a limit.

And text of others read as JSON, whatever it is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

ELLIPSIS: Final = "…"

# C0 and C1 controls but tab and newline; lone surrogates, which no encoding carries; and the embeddings,
# overrides and isolates that make a line read in another order than it is written (Unicode TR 36, 3.2).
_UNFIT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
_NEWLINES: Final = re.compile("\r\n?|\u2028|\u2029")


def counted(count: int, one: str, many: str = "") -> str:
    """`1 delivery waits`, `3 deliveries wait`; `many` is `one` with an s, if not given."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def clean(text: str) -> str:
    """`text` with newlines as `\\n` and without control, surrogate and reordering characters."""
    if text.replace("\n", "").isprintable():  # most are, and this is quicker to see
        return text
    return _UNFIT.sub("", _NEWLINES.sub("\n", text))


def one_line(text: str) -> str:
    """`clean` text on one line: each run of white space is one space."""
    if text.isprintable() and "  " not in text:  # most are: what follows would change nothing but the ends
        return text.strip()
    return " ".join(clean(" ".join(text.split())).split())


# Letters and a symbol that are drawn as nothing: the fillers of Hangul, and the Braille pattern without dots.
_DRAWN_AS_NOTHING: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")


def blank(text: str) -> bool:
    """Does `text` show a reader nothing: spaces, controls, invisible characters and lone marks at most?"""
    return all(sign in _DRAWN_AS_NOTHING or unicodedata.category(sign)[0] in "CMZ" for sign in text)


def as_read(text: str) -> str:
    """`text` as readers tell it from others: without capitals, runs of space and what is drawn as nothing."""
    signs = (" " if sign.isspace() else sign for sign in text)
    kept = (sign for sign in signs if sign == " " or unicodedata.category(sign)[0] == "M" or not blank(sign))
    return " ".join("".join(kept).casefold().split())


def units(text: str) -> int:
    """Length in UTF-16 code units: the strictest count that any vendor's "characters" can mean."""
    if text.isascii():  # which Python knows without looking
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def fit(text: str, limit: int, *, escape: Callable[[str], str] = str, more: str = "") -> str:
    """`text`, escaped, in at most `limit` UTF-16 code units.

    Where it is too long it is cut before escaping, so that no entity is halved, at the end of a word. An
    ellipsis and `more` follow: `more` is already escaped, such as a link to the whole text, and is left out
    where it would take more than half of the limit.
    """
    whole = escape(text)
    if units(whole) <= limit:
        return whole
    more = more if units(more) <= limit // 2 else ""
    room = limit - len(ELLIPSIS) - units(more)
    # What was cut before may be cut where its own ellipsis stands.
    return escape(_cut(text, _longest(text, room, escape)).rstrip(ELLIPSIS)) + ELLIPSIS + more


def leading(items: Iterable[T], room: int, size: Callable[[T], int]) -> list[T]:
    """The first of `items`, as far as their sizes together are no more than `room`."""
    shown: list[T] = []
    for item in items:
        room -= size(item)
        if room < 0:
            break
        shown.append(item)
    return shown


def listed(lines: Iterable[str], count: int, room: int, size: Callable[[str], int]) -> list[str]:
    """The first of `lines`, as `leading` gives them, and a last one that counts what is left out of `count`."""
    shown = leading(lines, room, size)
    return [*shown, f"{ELLIPSIS} (+{count - len(shown)})"] if len(shown) < count else shown


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that JSON text of anybody's stands for; empty where it is none, however deep it nests."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _longest(text: str, room: int, escape: Callable[[str], str]) -> int:
    """How many characters of `text` fit into `room` once escaped."""
    low, high = 0, min(len(text), max(room, 0))
    if escape is str and text.isascii():
        return high
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if units(escape(text[:middle])) <= room else (low, middle - 1)
    return low


def _cut(text: str, end: int) -> str:
    """The first `end` characters or fewer: to the end of a word, else of a whole visible character."""
    word = max(text.rfind(" ", 0, end + 1), text.rfind("\n", 0, end + 1))
    return text[: word if word >= end // 2 else _boundary(text, end)].rstrip()


def _boundary(text: str, end: int) -> int:
    """The last place at or before `end` where no grapheme cluster is halved (UAX #29): a flag, Hangul, Thai."""
    if end >= len(text) or text.isascii():
        return end
    import regex  # here: most texts are short enough, and the module takes 30 ms to load

    boundary = 0
    for cluster in regex.finditer(r"\X", text):
        if cluster.end() > end:
            break
        boundary = cluster.end()
    return boundary
