"""A page's form as it comes back, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web
from attrs import frozen

from notifyd.errors import (
    AlreadyVotedError,
    ConflictError,
    InputsDifferError,
    InvalidError,
    MalformedError,
    UnsupportedMediaError,
    WindowClosedError,
)
from notifyd.web.body import read_body
from notifyd.web.services import SERVICES

SIGN_IN: Final = "sign-in"
"""What a form's button sends where the reader has to sign in before anything can be decided."""

_FORM: Final = "application/x-www-form-urlencoded"


@frozen
class Alert:
    """Why nothing was recorded: the answer's status, the name of the text, and the inputs that will not do."""

    status: int
    name: str
    inputs: frozenset[str] = frozenset()


async def read_fields(request: web.Request, most: int, several: str = "") -> Mapping[str, list[str]]:
    """The form's fields, `most` at most, each there once but for the one named `several`.

    Raises `UnsupportedMediaError`, `MalformedError`, and as `read_body` does.
    """
    if request.content_type != _FORM:
        raise UnsupportedMediaError(f"send {_FORM}")
    body = await read_body(request, request.app[SERVICES].current().settings.server.max_body)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError:
        raise MalformedError("the form is not readable") from None
    if any(len(values) > 1 for name, values in fields.items() if name != several):
        raise MalformedError("the form has a field twice")  # which of them its sender has seen is unknown
    return fields


def inputs_of(error: InvalidError) -> frozenset[str]:
    """The names of the inputs that were refused: the form gives all else that a decision needs."""
    return frozenset(fault.pointer.rpartition("/")[2] for fault in error.faults)


def alert_of(error: Exception) -> str:
    """The name of the text that tells why a ballot was refused."""
    if isinstance(error, AlreadyVotedError):
        return "already_voted"
    if isinstance(error, WindowClosedError):
        return "window"
    if isinstance(error, InputsDifferError):
        return "inputs_differ"
    return "late" if isinstance(error, ConflictError) else "refused"
