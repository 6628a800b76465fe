"""Who is calling a machine endpoint, and may they: one `Principal`, by one ordered list of checks.

The order is: the address (see `edge`), a client certificate, a signature or a bearer token, the scope, the
tenant, the body. Whoever fails an earlier check learns nothing of a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import reduce
from typing import Any, Final, TypeAlias

from aiohttp import hdrs, web
from attrs import evolve, frozen
from multidict import CIMultiDictProxy, istr

from notifyd.config.settings import Scope
from notifyd.errors import (
    ActorNotAllowedError,
    CertificateInvalidError,
    ScopeMissingError,
    SignatureInvalidError,
    SignatureRequiredError,
    TenantMismatchError,
    UnauthenticatedError,
)
from notifyd.model import SECOND, Clock, Instant, Principal, Via
from notifyd.registry.credentials import Clients
from notifyd.registry.registry import Registry
from notifyd.registry.tokens import Tokens
from notifyd.security import certificates
from notifyd.security.signing import SIGNATURE_HEADER, check_head, verify
from notifyd.web.addresses import GATE
from notifyd.web.body import read_body
from notifyd.web.http import connection_of
from notifyd.web.services import SERVICES

CLIENT_HEADER: Final = istr("X-Notifyd-Client")
TENANT_HEADERS: Final = (istr("X-Notifyd-Tenant"), istr("X-StellaOps-Tenant"))

PRINCIPAL: Final = web.RequestKey("PRINCIPAL", Principal)
"""Where a request keeps its principal, once known."""


class Signature(Enum):
    """What an endpoint makes of a signature. It covers the body alone, so most have no use for one."""

    REFUSED = "refused"
    TAKEN = "taken"
    REQUIRED = "required"


@frozen
class Call:
    """What a proof of identity is judged by. `tolerance` in microseconds. `certificate` is the caller's own."""

    headers: CIMultiDictProxy[str]
    body: bytes
    clients: Clients
    now: Instant
    tolerance: int
    tokens: Tokens
    certificate: certificates.Peer | None = None


def _by_certificate(call: Call) -> Principal | None:
    """A TLS client certificate, which the handshake has verified."""
    if call.certificate is None:
        return None
    if certificates.expired(call.certificate, call.now / SECOND):
        raise CertificateInvalidError("the client certificate has expired since the connection was made")
    client = call.clients.by_certificate(certificates.presented(call.certificate))
    if client is None:
        raise CertificateInvalidError(
            "the names in the client certificate are those of no client, or of several"
        )
    return client.signed


def _by_signature(call: Call) -> Principal | None:
    """Standard Webhooks, with the client's name beside it."""
    if SIGNATURE_HEADER not in call.headers:
        return None
    name = _signer(call)
    # An unknown client takes the same way, against keys nobody has: it looks like a wrong signature.
    keys = call.clients.keys_of(name)
    verify(keys, call.headers, call.body, call.now / SECOND, call.tolerance / SECOND)
    client = call.clients.named.get(name)
    if client is None:
        raise SignatureInvalidError("webhook-signature does not match the body under any valid secret")
    return client.signed


def _by_bearer(call: Call) -> Principal | None:
    """An API token, kept in the config as its hash, or a JWT."""
    token = bearer_token(call.headers)
    if token is None:
        return None
    client = call.clients.by_token(token)
    return client.principal if client is not None else call.tokens.principal(token, call.now, call.tolerance)


def _signer(call: Call) -> str:
    """Whose signature it is said to be. Raises `SignatureInvalidError`."""
    name = call.headers.get(CLIENT_HEADER)
    if not name:
        raise SignatureInvalidError(f"{CLIENT_HEADER} is missing: it names the client that signs")
    return name


def bearer_token(headers: CIMultiDictProxy[str]) -> str | None:
    """What `Authorization` holds, "" for another scheme's; None where there is none."""
    offered = headers.get(hdrs.AUTHORIZATION)
    if offered is None:
        return None
    scheme, _, token = offered.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


SESSION_COOKIES: Final = ("__Host-notifyd-console", "notifyd-console")
"""The console's session: by https, and by http on this machine, where browsers take no name of the first kind."""


def session_text(request: web.Request) -> str:
    """The console's session as a browser sends it, sealed; "" for none."""
    return next((request.cookies[name] for name in SESSION_COOKIES if name in request.cookies), "")


Way: TypeAlias = Callable[[Call], Principal | None]

WAYS: Final[Sequence[Way]] = (_by_certificate, _by_signature, _by_bearer)
"""The ways to be known, in order. Each gives None where a request does not try it, raises where it fails."""


def identify(call: Call, signature: Signature) -> Principal:
    """The one client that everything presented proves. Raises `UnauthenticatedError`."""
    if signature is Signature.REFUSED and SIGNATURE_HEADER in call.headers:
        raise UnauthenticatedError(f"a signature covers a body and nothing else: here, {_OTHERWISE}")
    proofs = [principal for way in WAYS if (principal := way(call)) is not None]
    if signature is Signature.REQUIRED and not any(principal.signed for principal in proofs):
        raise SignatureRequiredError(
            f"sign the body (Standard Webhooks) and name yourself in {CLIENT_HEADER}, or show a client certificate"
        )
    if not proofs:
        raise UnauthenticatedError(_OTHERWISE if signature is Signature.REFUSED else _NO_PROOF)
    return reduce(_together, proofs)


def _together(one: Principal, other: Principal) -> Principal:
    """Both, of one client. Beside a client's own proof a JWT names who acts for it, with the rights both have."""
    if other.via is not Via.JWT and one.name == other.name:
        return one
    if other.name != f"jwt:{one.name}":
        raise UnauthenticatedError(
            "certificate, signature and token, as far as they are here, prove different clients"
        )
    return evolve(
        other,
        name=one.name,
        signed=one.signed,
        scopes=one.scopes & other.scopes,
        grants=other.grants - (other.scopes - one.scopes),
        tenants=tuple(tenant for tenant in one.tenants if tenant in other.tenants),
    )


_OTHERWISE: Final = "send a bearer token, or show a client certificate"
_NO_PROOF: Final = f"sign the body (Standard Webhooks), {_OTHERWISE}"


@frozen
class Caller:
    """A known principal with the scope it needs, under the configuration in force at its request."""

    registry: Registry
    principal: Principal
    signed: bool  # a signature covers the body, so that all that decides meaning must be in the body
    alone: bool  # nothing but that signature proves who is calling
    tenant: str | None  # as the headers name it, and one of the principal's

    def require(self, scope: Scope) -> None:
        """Check a scope beside the one that the operation needs. Raises `ScopeMissingError`."""
        _require(self.principal, scope)

    @property
    def author(self) -> str:
        """Who did what is recorded: the person that a token or a sign-in names, else the client."""
        try:
            return self.registry.actors.of(self.principal, None)
        except ActorNotAllowedError:
            return self.principal.name

    def only_tenant(self) -> str:
        """The tenant of a request whose body names none. Raises `TenantMismatchError`."""
        if self.tenant is not None:
            return self.tenant
        if len(self.principal.tenants) != 1:
            raise TenantMismatchError(f"this client has not one tenant: name it in {TENANT_HEADERS[0]}")
        return self.principal.tenants[0]

    def claim(self, tenant: Any) -> None:
        """Check the tenant that a body names, before the body is. Raises `TenantMismatchError`.

        A tenant that is not a string is a fault of the body, told when the body is checked.
        """
        if not isinstance(tenant, str):
            return
        if self.tenant is not None and self.tenant != tenant:
            raise TenantMismatchError("the header and the body name different tenants")
        if tenant not in self.principal.tenants:
            raise TenantMismatchError("the body's tenant is not one of this client's")


async def receive(
    request: web.Request, scope: Scope, signature: Signature = Signature.REFUSED
) -> tuple[bytes, Caller]:
    """Read the body of a caller who is known, or whose signature at least may be one, and know the caller.

    Raises as `authorize` and `read_body` do.
    """
    services = request.app[SERVICES]
    registry = services.current()
    limit = registry.settings.server.max_body
    if signature is Signature.REFUSED or SIGNATURE_HEADER not in request.headers:
        caller = _authorize(registry, services.clock, request, scope, b"", signature)
        return await read_body(request, limit), caller
    if not request.content.is_eof():
        _screen(_call(registry, services.clock, request, b""))
    body = await read_body(request, limit)
    return body, _authorize(services.current(), services.clock, request, scope, body, signature)


def _screen(call: Call) -> None:
    """What can be refused of a signed request before its body is there. Raises `UnauthenticatedError`."""
    _signer(call)
    check_head(call.headers, call.now / SECOND, call.tolerance / SECOND)
    for way in (_by_certificate, _by_bearer):
        way(call)


def authorize(request: web.Request, scope: Scope) -> Caller:
    """Know the caller, and check scope and the tenant its headers name.

    Raises `UnauthenticatedError`, `ScopeMissingError`, `TenantMismatchError`.
    """
    services = request.app[SERVICES]
    return _authorize(services.current(), services.clock, request, scope, b"", Signature.REFUSED)


def _authorize(
    registry: Registry, clock: Clock, request: web.Request, scope: Scope, body: bytes, signature: Signature
) -> Caller:
    headers = request.headers
    call = _call(registry, clock, request, body)
    principal = identify(call, signature)
    request[PRINCIPAL] = principal
    _require(principal, scope)
    signed = SIGNATURE_HEADER in headers
    alone = signed and call.certificate is None and hdrs.AUTHORIZATION not in headers
    return Caller(registry, principal, signed, alone, named_tenant(headers, principal))


def _call(registry: Registry, clock: Clock, request: web.Request, body: bytes) -> Call:
    now = clock()
    tolerance, certificate = registry.settings.auth.clock_tolerance, certificate_of(request, registry)
    return Call(request.headers, body, registry.clients, now, tolerance, registry.tokens, certificate)


def _require(principal: Principal, scope: Scope) -> None:
    if str(scope) not in principal.scopes:
        raise ScopeMissingError(f"this needs the scope {scope.value}")


def certificate_of(request: web.Request, registry: Registry) -> certificates.Peer | None:
    """The caller's verified certificate; None where it showed none, or is a proxy, which calls for others.

    Raises `CertificateInvalidError` where authorities have verified it that a reload has replaced.
    """
    peer = connection_of(request).certificate
    if not peer or request[GATE].from_proxy(request):
        return None
    context = request.get_extra_info("sslcontext")
    if registry.tls is None or context.client_ca != registry.tls.client_ca:
        raise CertificateInvalidError("the authorities of clients have changed since the connection was made")
    return peer


def named_tenant(headers: CIMultiDictProxy[str], principal: Principal) -> str | None:
    own, other = TENANT_HEADERS
    if own not in headers and other not in headers:
        return None
    named = {tenant for header in TENANT_HEADERS for tenant in headers.getall(header, ())}
    if len(named) > 1:
        raise TenantMismatchError(f"{' and '.join(TENANT_HEADERS)} name different tenants")
    if not named <= set(principal.tenants):
        raise TenantMismatchError("the header's tenant is not one of this client's")
    return named.pop()


def claimed_tenant(document: Any) -> Any:
    """`tenant.id` of a body not yet checked, whatever it is; None where there is none."""
    tenant = document.get("tenant") if isinstance(document, dict) else None
    return tenant.get("id") if isinstance(tenant, dict) else None
