"""Calling a running notifyd over HTTP, one request after another, as the commands do."""

from __future__ import annotations

import json
import re
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import urlencode, urlsplit

from attrs import field, frozen

from notifyd.errors import NotifydError
from notifyd.hosts import ascii_host
from notifyd.security.secrets import Secret
from notifyd.security.signing import sign

EVENTS: Final = "/api/v1/events"
PACK_EVENTS: Final = "/notifications/pack-approvals"
DEAD: Final = "/api/v1/dead"
DELIVERIES: Final = "/api/v1/deliveries"
CHANNELS: Final = "/api/v1/channels"
INCIDENTS: Final = "/api/v1/incidents"
SILENCES: Final = "/api/v1/silences"
AUDIT: Final = "/api/v1/audit"
AUDIT_SEALS: Final = "/api/v1/audit/seals"
KEY_SET: Final = "/.well-known/notifyd/jwks.json"
PURGE: Final = "/api/v1/purge"
KEYS: Final = "/api/v1/keys"
RESEAL: Final = "/api/v1/keys/reseal"
LOG_LEVEL: Final = "/api/v1/log-level"
READY: Final = "/readyz"

_TIMEOUT: Final = 30.0
_LARGEST: Final = 32 * 1024 * 1024
_PAGE: Final = "200"


class UnreachableError(NotifydError):
    """Nobody answered, or what answered does not speak HTTP, or is no notifyd."""

    code = "unreachable"


class RefusedError(NotifydError):
    """The service answered, and not with success. `answer` tells why."""

    code = "refused"

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.summary)
        self.answer = answer


@frozen
class Answer:
    """`document` is the body as JSON, None where it is none."""

    status: int
    reason: str
    document: Any = None
    tag: str = ""  # its ETag

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def problem(self) -> Mapping[str, Any]:
        """The problem document (RFC 9457) of a notifyd; empty where there is none."""
        found = self.document if isinstance(self.document, dict) and not self.ok else {}
        return found if isinstance(found.get("code"), str) else {}

    @property
    def summary(self) -> str:
        """One line: status, code, and what is wrong."""
        problem = self.problem
        if not problem:
            return f"{self.status} {self.reason}: not an answer of notifyd"
        # Where faults are listed, the detail only counts them.
        said = problem.get("title") if "errors" in problem else problem.get("detail") or problem.get("title")
        return f"{self.status} {problem['code']}: {said}"

    @property
    def faults(self) -> tuple[str, ...]:
        """Each fault of the request with its JSON pointer."""
        listed = self.problem.get("errors")
        faults = listed if isinstance(listed, list) else []
        return tuple(
            f"{fault.get('pointer') or '(document)'}: {fault.get('message')}"
            for fault in faults
            if isinstance(fault, dict)
        )


class _Members(dict[str, Any]):
    """An object of an answer. One that lacks what notifyd answers is somebody else's, or another version's."""

    def __init__(self, members: Mapping[str, Any], url: str) -> None:
        super().__init__(members)
        self._url = url

    def __missing__(self, name: str) -> NoReturn:
        raise UnreachableError(
            f"what answers at {self._url} is no notifyd, or one of another version: its answer has no {name!r}"
        )


@frozen
class Bearer:
    """A caller with an API token."""

    token: Secret

    def headers(self, body: bytes) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token.reveal()}"}


@frozen
class Signer:
    """A caller who signs bodies, by Standard Webhooks."""

    client: str
    secret: Secret

    def headers(self, body: bytes) -> dict[str, str]:
        signed = sign([self.secret], uuid.uuid4().hex, int(time.time()), body)
        return signed | {"X-Notifyd-Client": self.client}


@frozen
class Anybody:
    """A caller of what is open to all."""

    def headers(self, body: bytes) -> dict[str, str]:
        del body
        return {}


Credentials: TypeAlias = Bearer | Signer | Anybody


@frozen
class Client:
    """`url` is where the service is, `tenant` the one that is meant where the caller has several.

    A redirect is not followed, since credentials would go with it, and no proxy is used. `trust` checks the
    certificate of an https address; None goes by the system's authorities.
    """

    url: str
    credentials: Credentials
    tenant: str = ""
    timeout: float = field(default=_TIMEOUT, kw_only=True)
    trust: ssl.SSLContext | None = field(default=None, kw_only=True)

    def get(self, path: str, **query: str) -> Any:
        """The document at `path`. Raises `UnreachableError`, `RefusedError`."""
        return self._succeed("GET", f"{path}?{urlencode(query)}" if query else path)

    def changed(self, path: str, tag: str, seconds: int) -> Answer:
        """What is at `path` once it is not what `tag` names, or 304 after `seconds`; with the tag "", at once.

        Raises `UnreachableError`, `RefusedError`.
        """
        known = {"If-None-Match": tag} if tag else {}
        return self._succeed_with("GET", f"{path}?wait={seconds if tag else 0}s", b"", "", known)

    def items(self, path: str, **where: str | None) -> Iterator[Any]:
        """All items of a list, page after page. What `where` has no text for is not asked for."""
        query = {"limit": _PAGE} | {name: text for name, text in where.items() if text}
        cursor: Mapping[str, str] = {}
        while True:
            page = self.get(path, **query, **cursor)
            yield from page["items"]
            if page["nextCursor"] is None:
                return
            cursor = {"cursor": page["nextCursor"]}

    def post(self, path: str, body: bytes = b"", content_type: str = "application/json") -> Answer:
        """What POST answers, if it is success. Raises `UnreachableError`, `RefusedError`."""
        return self._succeed_with("POST", path, body, content_type)

    def delete(self, path: str) -> Answer:
        """What DELETE answers, if it is success. Raises `UnreachableError`, `RefusedError`."""
        return self._succeed_with("DELETE", path, b"", "")

    def _succeed(self, method: str, path: str) -> Any:
        return self._succeed_with(method, path, b"", "").document

    def _succeed_with(
        self, method: str, path: str, body: bytes, content_type: str, more: Mapping[str, str] | None = None
    ) -> Answer:
        headers = {"Accept": "application/json", **self.credentials.headers(body), **(more or {})}
        if body:
            headers["Content-Type"] = content_type
        if self.tenant:
            headers["X-Notifyd-Tenant"] = self.tenant
        answer = self._exchange(method, path, body, headers)
        if not answer.ok and not (more and answer.status == HTTPStatus.NOT_MODIFIED):
            raise RefusedError(answer)
        if answer.ok and not _is_fitting(answer.document):
            raise UnreachableError(f"what answers at {self.url} is no notifyd: is that the right address?")
        return answer

    def _exchange(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        base = urlsplit(self.url)
        connection = self._connection(base.scheme, ascii_host(base.hostname or ""), base.port)
        try:
            connection.request(method, base.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            raw = response.read(_LARGEST)
        except TimeoutError:
            raise UnreachableError(f"{self.url} gives no answer in {self.timeout:g} s") from None
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"{self.url} does not answer: {_said(error)}") from None
        finally:
            connection.close()
        return Answer(
            response.status, response.reason, _parse(raw, self.url), response.headers.get("ETag", "")
        )

    def _connection(self, scheme: str, host: str, port: int | None) -> HTTPConnection:
        if scheme == "https":
            trust = self.trust or ssl.create_default_context()
            return HTTPSConnection(host, port, timeout=self.timeout, context=trust)
        return HTTPConnection(host, port, timeout=self.timeout)


def is_address(url: str) -> bool:
    """Is this an http or https address that a `Client` can call? Not one with a password: it would be shown."""
    try:
        parts = urlsplit(url)
        _ = parts.port, ascii_host(parts.hostname or "")
    except ValueError:
        return False
    return bool(re.fullmatch(r"https?", parts.scheme) and not parts.query and "@" not in parts.netloc)


def _is_fitting(document: Any) -> bool:
    """Is it an object, as each answer of notifyd is, and a list where it says that it is one?"""
    return isinstance(document, dict) and isinstance(document.get("items", []), list)


def _parse(raw: bytes, url: str) -> Any:
    try:
        return json.loads(raw, object_hook=lambda members: _Members(members, url))
    except (ValueError, RecursionError):
        return None


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {str(error.reason or error).replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
