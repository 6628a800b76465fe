"""JSON values as YAML 1.2 in block style, for people to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from textwrap import wrap
from typing import Any, Final

_WIDTH: Final = 100

# What is neither a number, a date, a boolean nor null to any reader of YAML 1.1 or 1.2, and holds no sign of
# its own. All else is quoted as in JSON, whose strings YAML takes as they are.
_PLAIN: Final = re.compile(r"[A-Za-z/$][A-Za-z0-9 _./()<>+-]*[A-Za-z0-9.)>]|[A-Za-z]")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

# What JSON takes as it is, and YAML 1.1 or 1.2 takes for the end of a line or not at all.
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

# What folding gives back as it was: single spaces between words, and none at the ends of a line.
_LINE: Final = re.compile("[!-~]+(?: [!-~]+)*")


def to_yaml(document: Any) -> str:
    return "".join(f"{line.rstrip(' ')}\n" for line in _lines(document))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _entry(f"{_scalar(name)}:", item)
    elif isinstance(value, list) and value:
        for item in value:
            short = _in_line(item)
            first, *rest = _lines(item) if short is None else [short]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(head: str, item: Any) -> Iterator[str]:
    if (short := _in_line(item)) is not None:
        yield f"{head} {short}"
    elif isinstance(item, dict | list) and item:
        yield head
        yield from (f"  {line}" for line in _lines(item))
    elif isinstance(item, str) and len(item) > _WIDTH and _folds(item):
        yield f"{head} >-"
        yield from (f"  {line}" for line in _folded(item))
    else:
        yield f"{head} {_scalar(item)}"


def _in_line(value: Any) -> str | None:
    """A reference, or a short list of single values, in one line; None for anything else."""
    if isinstance(value, dict) and list(value) == ["$ref"]:
        return f"{{$ref: {_scalar(value['$ref'])}}}"
    if isinstance(value, list) and value and not any(isinstance(item, dict | list) for item in value):
        text = f"[{', '.join(map(_scalar, value))}]"
        return text if len(text) <= _WIDTH else None
    return None


def _folds(text: str) -> bool:
    lines = text.split("\n")
    return bool(lines[0] and lines[-1]) and all(not line or _LINE.fullmatch(line) for line in lines)


def _folded(text: str) -> Iterator[str]:
    """A line's end reads as a space; one more empty line than there are reads as so many ends of lines."""
    for number, paragraph in enumerate(text.split("\n")):
        if number:
            yield ""
        yield from wrap(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
