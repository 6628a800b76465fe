"""Senders' regular expressions, matched in time linear in the text, for any pattern and any text.

CEL's `matches` is by Rust's `regex`, whose syntax has neither look-around nor references to groups, and which
bounds the size of what a pattern is compiled to (https://docs.rs/regex, "Untrusted input").
"""

from __future__ import annotations

from typing import Final

from notifyd.rules.evaluator import cel

_MATCHES: Final = cel.compile("text.matches(pattern)")


def is_pattern(pattern: str) -> bool:
    """Is `pattern` a valid expression by itself, also without the anchors that are put around it?"""
    try:
        _matches(_whole(pattern), "")
        _matches(pattern, "")
    except RuntimeError:
        return False
    return True


def matches_whole(pattern: str, text: str) -> bool:
    """Does `pattern` match all of `text`? Raises RuntimeError for what is no pattern."""
    return _matches(_whole(pattern), text)


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"


def _matches(pattern: str, text: str) -> bool:
    return bool(_MATCHES.execute(cel.Context({"pattern": pattern, "text": text}, {})))
