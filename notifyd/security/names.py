"""One form for each name of a person or program, in which names are compared.

A mailbox is `local@domain`: its display name, comments and needless quotes are left out, its domain is made of
A-labels. The local part, and any other name, has the form that the PRECIS profile UsernameCaseMapped gives it (RFC
8265, 3.3). What that profile lets pass and a reader cannot tell apart is refused: a name whose letters are of
several scripts (UTS 39, 5.1, single script), and one whose letters all look like ASCII letters but are not all.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

import idna

from notifyd.mailbox import bare_mailbox

if TYPE_CHECKING:
    from precis_i18n.profile import Profile
    from regex import Pattern

# `regex` and `precis_i18n` are imported where a name is not of ASCII alone: together they take 2 MB and 40 ms.

LONGEST: Final = 500
"""Of a name, in characters."""

# The recommended scripts of UAX 31, table 5, and the three writing systems that use several of them.
_SCRIPTS: Final = (
    *("Arabic", "Armenian", "Bengali", "Bopomofo", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek"),
    *("Gujarati", "Gurmukhi", "Han", "Hangul", "Hebrew", "Hiragana", "Kannada", "Katakana", "Khmer", "Lao"),
    *("Latin", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thaana", "Thai", "Tibetan"),
)
_SYSTEMS: Final = (
    *((script,) for script in _SCRIPTS),
    *(("Han", "Bopomofo"), ("Han", "Hiragana", "Katakana"), ("Han", "Hangul")),
)
_LATIN: Final = r"\p{Script=Latin}"
_MARK: Final = r"\p{Script=Inherited}"

# What confusables.txt (UTS 39, revision 15) holds to look like an ASCII letter or digit, of the scripts that do.
_LOOKS_LIKE_ASCII: Final = frozenset(
    "ıɑᴄꬲꬵꞙẝɡᶃƍɪɩǀᴏᴑꬽꭇꭈꜱƽꞟᴜꭎꭒʋᴠɯᴡɣᶌʏỿꭚᴢȣ"  # Latin
    "басԁеҽһіꙇӏјорԛгѕѵѡԝхуү"  # Cyrillic
    "αιϳοσςρᴦυνγ"  # Greek
    "քցհոռօգզսա"  # Armenian
)


@lru_cache(maxsize=1024)
def canonical_name(text: str) -> str:
    """The form in which `text` is compared, which is its own. Raises ValueError where it is not fit for a name."""
    if not text.strip(" ") or len(text) > LONGEST:
        raise ValueError(f"must be a name of at most {LONGEST} characters")
    text = _narrow(text).strip(" ")
    # A handle such as "@alice" is not an address.
    return (
        _mailbox(text) if "@" in text[1:] else " ".join(_enforced(part) for part in text.split(" ") if part)
    )


def name_fault(text: str) -> str | None:
    """Why `text` is not fit for a name, None where it is."""
    try:
        canonical_name(text)
    except ValueError as error:
        return str(error)
    return None


def _narrow(text: str) -> str:
    """Fullwidth and halfwidth forms as what they stand for (RFC 8265, 3.3.2, width mapping)."""
    return "".join(
        unicodedata.normalize("NFKC", sign) if unicodedata.east_asian_width(sign) in "FH" else sign
        for sign in text
    )


def _mailbox(text: str) -> str:
    box = bare_mailbox(text)
    if box.local.startswith('"'):
        raise ValueError("must be a mailbox without quotes")
    for label in box.domain.split("."):
        if label.startswith("xn--"):
            _check_letters(idna.decode(label))
    return f"{_enforced(box.local)}@{box.domain.lower()}"


def _enforced(part: str) -> str:
    if part.isascii() and part.isprintable():
        return part.lower()
    try:
        name = _profile().enforce(part)
    except UnicodeError:
        raise ValueError(
            "must not hold characters that RFC 8265 keeps from names, such as invisible ones"
        ) from None
    if not name.isascii():
        _check_letters(name)
    return name


@cache
def _profile() -> Profile:
    from precis_i18n import get_profile

    return get_profile("UsernameCaseMapped")


def _check_letters(name: str) -> None:
    import regex

    foreign = [sign for sign in name if not sign.isascii() or sign.isalpha()]
    if not any(system.fullmatch("".join(foreign)) for system in _systems()):
        raise ValueError("must not mix scripts, or be of one that names are not written in")
    if regex.search(_LATIN, name) and regex.search(_MARK, name):
        raise ValueError("must not hold marks that are not part of a letter")
    if all(sign.isascii() or sign in _LOOKS_LIKE_ASCII for sign in foreign):
        raise ValueError("must not look like other letters: write it in ASCII")


@cache
def _systems() -> tuple[Pattern[str], ...]:
    import regex

    classes = ("".join(rf"\p{{scx={script}}}" for script in system) for system in _SYSTEMS)
    return tuple(regex.compile(f"[{each}]*") for each in classes)
