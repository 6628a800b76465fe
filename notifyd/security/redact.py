"""Redaction: what names itself a secret, and every configured secret's value, is written as `***`.

Applied to stored events, messages, logs, the audit, error texts and stored answers of receivers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache, reduce
from typing import Any, Final
from urllib.parse import quote, quote_plus

import orjson
from ahocorasick_rs import BytesAhoCorasick

from notifyd.security.echoes import Pieces, in_any_reading
from notifyd.security.secrets import HIDDEN, Secret
from notifyd.security.signing import PREFIX

MIN_SEARCHED: Final = 6
"""Values shorter than this are not searched for: they occur in ordinary words, and would shred texts."""

# --- names -------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORDS: Final = _words(
    "authorization bearer cookie credential jwe jwt kennwort passcode passphrase passwd password passwort"
    " pw pwd secret token"
)
_BEFORE_KEY: Final = _words(
    "access account api auth encryption hmac master private seal secret service session shared signing ssh"
)
# `pass` alone is more often a result ("12 pass") than a password.
_BEFORE_PASS: Final = _words(
    "admin auth database db email ftp http imap ldap login mail mongo proxy redis root smtp sql ssh user"
)
_PHRASES: Final = (
    {(word, "key") for word in _BEFORE_KEY} | {(word, "pass") for word in _BEFORE_PASS} | {("session", "id")}
)
# Two words that somebody wrote as one, such as `apikey` and `accesstoken`.
_GLUED: Final = {first + second for first, second in _PHRASES} | {
    first + second
    for first in _words(
        "access api auth bearer bot client csrf db id mysql oauth pg refresh resume session user webhook xsrf"
    )
    for second in ("passwd", "password", "secret", "token")
}
_SECRETS: Final = _WORDS | _GLUED
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_RUN: Final = re.compile(r"[A-Za-z]+")


def names_secret(key: str) -> bool:
    """Does a whole word of `key` (snake, kebab or camel case), or a phrase such as `api key`, name a secret?

    `db_password`, `apiToken`, `X-Api-Key` and `tokens2` do; `tokenizer`, `secretary` and `monkey` do not.
    """
    return _remembered(key) if len(key) <= _REMEMBERED else _names_secret(key)


def _names_secret(key: str) -> bool:
    return any(_tells(words) for words in (_WORD.findall(key), _RUN.findall(key)))


_remembered: Final = lru_cache(maxsize=1024)(_names_secret)
_REMEMBERED: Final = 500
"""Up to how many characters of names are remembered: senders choose them, and must not fill the memory."""


def _tells(words: list[str]) -> bool:
    words = [word.lower() for word in words]
    singular = [_singular(word) for word in words]
    return not (_SECRETS.isdisjoint(singular) and _PHRASES.isdisjoint(zip(words, singular[1:], strict=False)))


def _singular(word: str) -> str:
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


# --- texts -------------------------------------------------------------------------------------------------

_LINK: Final = re.compile(r"(/approvals/(?:mine/)?)[A-Za-z0-9_.~%-]{16,}")
_SIGNING_SECRET: Final = re.compile(rf"{PREFIX}[A-Za-z0-9+/_-]+=*")
_SCHEME: Final = re.compile(r"\b(Bearer|Basic)(\s+)[A-Za-z0-9._~+/-]{6,}=*", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(://)[^\s/@?#]+@")
_HEADER: Final = re.compile(r"\b((?:Proxy-)?Authorization|(?:Set-)?Cookie)(\s*:\s*)[^\r\n]+", re.IGNORECASE)
_JSON_MEMBER: Final = re.compile(
    r'(?P<head>(?P<quote>\\?["\'])(?P<key>[\w.-]{1,100})(?P=quote)\s*:\s*)'
    r'(?P<value>"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\\"(?:[^"\\]|\\[^"])*\\"|\'[^\']*\'|[^\s,}\]]+)'
)
_PAIR: Final = re.compile(
    r'(?P<head>(?<![\w./-])(?P<key>[\w.-]{1,100})=)(?P<value>"[^"]*"|[^\s&;,"\'<>)\]}]+)'
)
_FIELD: Final = re.compile(r"(?P<head>(?<![\w./-])(?P<key>[\w-]{1,100}):[ \t]+)(?P<value>\S+)")
# A bare `token: expired` is prose; a name of several parts, or one that is only a password's, is a field.
_FIELD_WORDS: Final = frozenset({"password", "passphrase", "passwd", "passwort", "pwd"})


def _mask_member(match: re.Match[str]) -> str:
    if not names_secret(match["key"]):
        return match[0]
    value = match["value"]
    mark = value[:2] if value.startswith("\\") else value[:1] if value[:1] in "\"'" else ""
    return f"{match['head']}{mark}{HIDDEN}{mark}"


def _mask_field(match: re.Match[str]) -> str:
    key = match["key"]
    compound = "-" in key or "_" in key or key.lower() in _FIELD_WORDS
    return f"{match['head']}{HIDDEN}" if compound and names_secret(key) else match[0]


_RULES: Final[tuple[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    # a cheap test, what to look for, what to write
    ("/approvals/", _LINK, r"\1…"),
    (PREFIX, _SIGNING_SECRET, PREFIX + HIDDEN),
    ("", _HEADER, rf"\1\2{HIDDEN}"),
    ("", _SCHEME, rf"\1\2{HIDDEN}"),
    ("@", _USERINFO, rf"\1{HIDDEN}@"),
    (":", _JSON_MEMBER, _mask_member),
    ("=", _PAIR, _mask_member),
    (": ", _FIELD, _mask_field),
)


def spellings(value: str) -> set[str]:
    """A value as it is, and as JSON, a URL and a form write it."""
    in_json = (json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    in_urls = (quote(value, safe, errors="replace") for safe in ("", "/"))
    found = {value, *in_json, *in_urls, quote_plus(value, errors="replace"), value.removeprefix(PREFIX)}
    return {spelling for spelling in found if len(spelling) >= MIN_SEARCHED}


def spelled(value: str) -> Sequence[str]:
    """How a secret that no config names may be written where it does not belong: the longest first.

    Nothing of one that is too short to search for: it would shred ids and texts.
    """
    if len(value) < MIN_SEARCHED:
        return ()
    return (value,) if _WRITTEN_ALIKE(value) else sorted(spellings(value), key=len, reverse=True)


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets` hidden."""
    return reduce(lambda shown, secret: shown.replace(secret, HIDDEN), secrets, text)


_WRITTEN_ALIKE: Final = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch
"""A text that JSON, addresses and forms write as it is."""


def _parts(value: str) -> list[str]:
    """What is secret in a value: all of it or, of a URL, what is neither its scheme nor its host."""
    _, url, rest = value.partition("://")
    if not url:
        return [value]
    authority, _, path = rest.partition("/")
    parts = [authority.rpartition("@")[0], *_DELIMITERS.split(path)]
    return [part for part in parts if len(part) >= _LONG_PART]


_DELIMITERS: Final = re.compile("[/?&=#]")
_LONG_PART: Final = 10
"""Shorter parts of a URL are words such as "hooks" and "services"."""


class Redactor:
    """Knows every configured secret; made anew at each reload."""

    def __init__(self, values: Iterable[Secret] = ()) -> None:
        self._secrets = tuple(value.reveal() for value in values)
        known = {spelling for value in self._secrets for spelling in spellings(value)}
        # The longest first, so that a secret that begins with another is hidden whole.
        self._values = tuple(sorted(known, key=lambda value: (-len(value), value)))
        # One pass over a text, however many secrets there are: an event is searched for all of them.
        self._found_in_json = BytesAhoCorasick(
            [_as_json(v)[1:-1] for v in self._values]
        ).find_matches_as_indexes
        self._found_in = BytesAhoCorasick([_as_utf8(v) for v in self._values]).find_matches_as_indexes
        self._pattern = re.compile("|".join(map(re.escape, self._values))) if self._values else None

    def __repr__(self) -> str:
        return f"Redactor({len(self._values)} values)"

    def tree(self, value: Any) -> Any:
        """A JSON value without what its members' names or its strings' contents give away.

        Where that is nothing, as it nearly always is, it is `value` itself.
        """
        if _names_any(value):
            value = _without_named(value)
        # One text for all strings. JSON escapes each character by itself, so what a string holds shows there.
        return self._without_values(value) if self._found_in_json(_as_json(value)) else value

    def text(self, text: str, *, cut: bool = False) -> str:
        """`text` without configured secrets, approvers' links, and what has the form of a credential.

        `cut` says that the text was cut to a length, perhaps in the middle of a secret.
        """
        text = self._hide_values(text)
        if cut:
            text = self._hide_cut_value(text)
        for hint, pattern, replacement in _RULES:
            if hint in text:
                text = pattern.sub(replacement, text)
        return text

    def echoed(self, text: str, carried: Sequence[str] = ()) -> bool:
        """Does `text` still hold a piece of a configured secret, or of one of `carried`, in any encoding?"""
        return in_any_reading(text, self._pieces, Pieces.of(carried, MIN_SEARCHED))

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces.of((part for secret in self._secrets for part in _parts(secret)), MIN_SEARCHED)

    def _hide_values(self, text: str) -> str:
        return self._pattern.sub(HIDDEN, text) if self._pattern and self._found_in(_as_utf8(text)) else text

    def _hide_cut_value(self, text: str) -> str:
        for value in self._values:
            tail = text[-len(value) :]
            for start in range(len(tail) - MIN_SEARCHED + 1) if value[:MIN_SEARCHED] in tail else ():
                if value.startswith(tail[start:]):
                    return text[: len(text) - len(tail) + start] + HIDDEN
        return text

    def _without_values(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._hide_values(value)
        if isinstance(value, dict):
            return {self._hide_values(key): self._without_values(member) for key, member in value.items()}
        if isinstance(value, list | tuple):
            return [self._without_values(item) for item in value]
        return value


def _as_json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits, or half a surrogate pair
        return _as_utf8(json.dumps(value, ensure_ascii=False))


def _as_utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _names_any(value: Any) -> bool:
    """Does the name of any member tell of a secret, or is any value one?"""
    nodes = [value]
    for node in nodes:  # grows while it is walked
        kind = type(node)
        if kind is dict:
            names = tuple(node)
            tells = _any_tells if len("".join(names)) <= _REMEMBERED else _any_tells.__wrapped__
            if tells(names):
                return True
            nodes += node.values()
        elif kind is list or kind is tuple:
            nodes += node
        elif kind is Secret:
            return True
    return False


@lru_cache(maxsize=1024)
def _any_tells(names: tuple[str, ...]) -> bool:
    """Objects of one sort have the same names, mostly in the same order."""
    return any(map(names_secret, names))


def _without_named(value: Any) -> Any:
    """A deep copy without the members whose name tells of a secret."""
    kind = type(value)
    if kind is dict:
        return {key: HIDDEN if names_secret(key) else _without_named(member) for key, member in value.items()}
    if kind is list or kind is tuple:
        return [_without_named(item) for item in value]
    return HIDDEN if kind is Secret else value
