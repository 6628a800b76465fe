"""A TOML file as plain values, or what is wrong with it in the words of whoever has to mend it.

A parser says where it gave up, in the terms of its own rules. What is told here is what is written there, and what
to write instead. No message repeats a value: it may be a secret.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import tomli

from notifyd.config.lines import opened_last, repeated
from notifyd.errors import ConfigError, Fault

_BOM: Final = "\ufeff"
_QUOTES: Final = frozenset("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u00ab\u00bb\u00b4`")
_CONFLICT: Final = ("<<<<<<<", "=======", ">>>>>>>")
_QUOTE: Final = (
    'text stands in quotes, and so does what has a unit or a colon, such as "30s" or "127.0.0.1:8686"'
)
_UNREADABLE: Final[Mapping[type[OSError], str]] = {
    FileNotFoundError: "--config, or NOTIFYD_CONFIG, says where it is",
    IsADirectoryError: "name the file in it",
    PermissionError: "read it as root, or as the user of the service",
}


def read_text(path: Path) -> str:
    """The text of a file. Raises `ConfigError` with one fault, at its path or at a line and column of it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        todo = next((f": {todo}" for kind, todo in _UNREADABLE.items() if isinstance(error, kind)), "")
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}{todo}")]) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError([Fault(str(path), "is UTF-16: save it as UTF-8")])
    try:
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        message = f"the byte 0x{content[error.start]:02X} is no UTF-8: save the file as UTF-8"
        raise ConfigError([_fault(str(path), before, len(before), message)]) from None


def document(text: str, source: str) -> dict[str, Any]:
    """The values of a text. Raises `ConfigError` with the first fault of its syntax, at `SOURCE:LINE:COLUMN`."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        at, message = _explained(error.msg, error.doc, error.pos)
        raise ConfigError([_fault(source, error.doc, at, message)]) from None
    except RecursionError:
        raise ConfigError([Fault(source, "has tables or arrays that are nested too deeply")]) from None
    except ValueError as error:  # a number with more digits than Python reads
        raise ConfigError([Fault(source, f"is no TOML: {error}")]) from None


def _fault(source: str, text: str, at: int, message: str) -> Fault:
    before = text[:at]
    column = at - (before.rfind("\n") + 1) + 1
    return Fault(f"{source}:{before.count(chr(10)) + 1}:{column}", message)


def _explained(told: str, text: str, at: int) -> tuple[int, str]:
    """Where the fault begins and what it is, of what the parser told of the place `at`."""
    odd = _odd_character(text, at)
    if odd:
        return at, odd
    for beginning, explain in _EXPLANATIONS.items():
        if told.startswith(beginning):
            return explain(text, at)
    return at, f"is no TOML: {told}"


def _odd_character(text: str, at: int) -> str | None:
    """What is wrong with one that looks like another, or like nothing."""
    one = text[at : at + 1]
    if not one or one == "\n":
        return None
    named = f"the character U+{ord(one):04X}"
    name = unicodedata.name(one, "")
    if one == _BOM and at == 0:
        return "the file begins with a byte order mark: save it as UTF-8 without one"
    if one in _QUOTES:
        return f"{named} ({name}) is no quote to TOML: write \" or '"
    if unicodedata.category(one) in ("Zs", "Zl", "Zp", "Cf") and one != " ":
        return f"{named} ({name}) looks like a space, or like nothing: remove it, or write a plain space"
    if unicodedata.category(one) == "Cc" and one != "\t":
        return f"{named} is a control character, which TOML has nowhere: remove it"
    return None


def _again(text: str, at: int) -> tuple[int, str]:
    found = repeated(text[:at])
    if found.by == found.key:
        told = f"`{found.key}` is written a second time: it is in line {found.line} already; keep one or join them"
    else:
        told = f"`{found.by}` was written in one piece in line {found.line}: put `{found.key}` there"
    return found.start, told


def _no_statement(text: str, at: int) -> tuple[int, str]:
    if text.startswith(_CONFLICT, at):
        return at, "this line is left from a merge: settle which of the two sides counts"
    if text[at] == "=":
        return at, "before the = a key is missing"
    if text[at] == "{":
        return at, "a table begins with its name in brackets: [server]; the file is TOML, not JSON"
    return at, "a line is KEY = VALUE, a table's name in brackets, or a comment, which begins with #"


def _no_equals_sign(text: str, at: int) -> tuple[int, str]:
    if text[at : at + 1] == ":":
        return at, "between a key and its value stands =, not a colon"
    return at, "behind a key stands =, and its value; a key with a space or another sign stands in quotes"


def _no_value(text: str, at: int) -> tuple[int, str]:
    rest = text[at:].partition("\n")[0].partition("#")[0].strip()
    if not rest or rest in ",]}":
        return at, "a value is missing here"
    if rest.lower() in ("true", "false"):
        return at, f"write {rest.lower()} in small letters"
    if rest.lower() in ("yes", "no", "on", "off"):
        return at, "write true or false"
    if rest.lower() in ("null", "none", "nil"):
        return at, "TOML has no value for nothing: leave the key out"
    return at, _QUOTE


def _more_on_the_line(text: str, at: int) -> tuple[int, str]:
    if text[text.rfind("\n", 0, at) + 1 : at].lstrip().startswith("["):
        return at, "behind a table's name in brackets the line ends; one of several is written [[NAME]]"
    return at, f"the line has to end here: each key has one of its own, and {_QUOTE}"


def _text_not_closed(text: str, at: int) -> tuple[int, str]:
    return (
        at,
        "a text is closed on its own line, by the quote it begins with; for several lines it takes three",
    )


def _text_never_closed(text: str, at: int) -> tuple[int, str]:
    long = [place for quotes in ('"""', "'''") if (place := text.rfind(quotes)) >= 0]
    begins = max(long) if long else max(text.rfind('"'), text.rfind("'"))
    return begins, "the text that begins here is never closed"


def _not_closed(text: str, at: int) -> tuple[int, str]:
    mark, line = opened_last(text[:at])
    what, close = ("array", "]") if mark == "[" else ("table", "}")
    return at, f"the {what} that begins in line {line} lacks a comma between two of its parts, or its {close}"


def _name_not_closed(text: str, at: int) -> tuple[int, str]:
    return at, (
        "a table's name ends with as many ] as it begins with [; all but letters, digits, _ and -"
        ' stands in quotes: [recipients."alice@acme.example"]'
    )


def _said(message: str) -> Callable[[str, int], tuple[int, str]]:
    return lambda _, at: (at, message)


_BACKSLASH: Final = (
    r"in double quotes a backslash begins an escape: write \\, or put the text into single quotes"
)

_EXPLANATIONS: Final[Mapping[str, Callable[[str, int], tuple[int, str]]]] = {
    "Cannot ": _again,
    "Duplicate inline table key": _again,
    "Invalid statement": _no_statement,
    "Expected '=' after": _no_equals_sign,
    "Invalid value": _no_value,
    "Expected newline or end": _more_on_the_line,
    "Illegal character": _text_not_closed,
    "Found invalid character": _text_not_closed,
    "Unterminated string": _text_never_closed,
    "Expected \"'": _text_never_closed,
    "Unclosed ": _not_closed,
    "Expected ']": _name_not_closed,
    "Invalid initial character": _said(
        "a key is missing here: letters, digits, _ and -, or anything in quotes"
    ),
    "Unescaped '\\'": _said(_BACKSLASH),
    "Invalid hex value": _said(_BACKSLASH),
    "Escaped character": _said(_BACKSLASH),
    "Invalid date": _said("there is no such date"),
}
"""What the parser's messages begin with, and what is said instead. One that is not here is told as it is."""
