"""Lists in pages: the query that asks for one, and the cursor to the next.

A cursor is bound to its list, tenant and filter: with any other it is refused, so that a position in one list
is never read as one in another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from aiohttp import web
from attrs import frozen
from multidict import MultiMapping

from notifyd.errors import Fault
from notifyd.security.secrets import Keyring
from notifyd.store import Page
from notifyd.web.answers import json_answer
from notifyd.web.auth import Caller
from notifyd.web.problems import InvalidCursorError, InvalidQueryError
from notifyd.wire.codec import canonical

MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 50

_LABEL: Final = "list-cursor"

Parser: TypeAlias = Callable[[str], Any]
"""From a parameter's text to a filter's value. Raises ValueError whose text says what it must be."""


def choice_of(kind: type[StrEnum]) -> Parser:
    """A parser of an enumeration's values."""

    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be one of {', '.join(kind)}") from None

    return parse


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def read_query(query: MultiMapping[str], parsers: Mapping[str, Parser]) -> dict[str, Any]:
    """The parameters given, parsed; an empty one counts as left out. Raises `InvalidQueryError`."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name in dict.fromkeys(query):
        try:
            if text := _single(query, name, parsers):
                values[name] = parsers[name](text)
        except ValueError as error:
            faults.append(Fault(name[:100], str(error)))
    if faults:
        raise InvalidQueryError(faults)
    return values


def _single(query: MultiMapping[str], name: str, parsers: Mapping[str, Parser]) -> str:
    if name not in parsers:
        raise ValueError(f"is not known here: there are {', '.join(parsers)}")
    text, *more = query.getall(name)
    if more:
        raise ValueError("must not be given twice")
    return text


@frozen
class Found:
    """One page of a list as it is told. `cursor` leads to the next one, None at the end."""

    items: list[dict[str, Any]]
    cursor: str | None = None

    def answer(self) -> web.Response:
        return json_answer({"items": self.items, "nextCursor": self.cursor})


@frozen
class Listing:
    """One page of one tenant's list, as asked for. `values` holds the filters given, by parameter."""

    tenant: str
    values: Mapping[str, Any]
    page: Page
    _binding: Mapping[str, Any]
    _keyring: Keyring

    @classmethod
    def read(
        cls,
        request: web.Request,
        caller: Caller,
        parsers: Mapping[str, Parser],
        *,
        tenant: str | None = None,
        query: MultiMapping[str] | None = None,
    ) -> Listing:
        """`tenant` is the caller's, and `query` the request's, if not given.

        Raises `InvalidQueryError`, `InvalidCursorError`, `TenantMismatchError`.
        """
        tenant, keyring = caller.only_tenant() if tenant is None else tenant, caller.registry.keyring
        query = request.query if query is None else query
        values = read_query(query, {**parsers, "limit": _limit, "cursor": str})
        limit, cursor = values.pop("limit", DEFAULT_LIMIT), values.pop("cursor", None)
        binding = {"list": request.path, "tenant": tenant, "filter": values}
        after = None if cursor is None else _open(keyring, binding, cursor)
        return cls(tenant, values, Page(limit, after), binding, keyring)

    def found(self, items: list[dict[str, Any]], after: int | None) -> Found:
        """`after` is where the store says the list goes on, None at its end."""
        return Found(items, None if after is None else _seal(self._keyring, self._binding, after))


def _content(binding: Mapping[str, Any], after: int) -> bytes:
    return canonical({**binding, "after": str(after)})


def _seal(keyring: Keyring, binding: Mapping[str, Any], after: int) -> str:
    identity = keyring.identify(_LABEL, _content(binding, after))
    return base64.urlsafe_b64encode(f"{after}/{identity}".encode()).decode().rstrip("=")


def _open(keyring: Keyring, binding: Mapping[str, Any], cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position, _, identity = text.partition("/")
        after = int(position)
    except (binascii.Error, ValueError):
        raise _refused() from None
    if not keyring.same(_LABEL, _content(binding, after), identity):
        raise _refused()
    return after


def _refused() -> InvalidCursorError:
    return InvalidCursorError("a cursor goes on with the list, tenant and filter it was given out for")
