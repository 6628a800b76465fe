"""OpenID Connect: what a provider says of itself, and whom the ID token of one sign-in proves.

https://openid.net/specs/openid-connect-discovery-1_0.html, https://openid.net/specs/openid-connect-core-1_0.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlencode, urlsplit

from attrs import frozen

from notifyd.errors import UnauthenticatedError
from notifyd.security.jwt import actor_of

DISCOVERY: Final = "/.well-known/openid-configuration"
"""What follows the issuer in the address of the provider's description."""

_BASIC, _POST = "client_secret_basic", "client_secret_post"


def parse_address(text: str) -> str:
    """An address of a provider: https, or http on this machine, for tests. Raises ValueError."""
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.username is None and parts.port != 0 and not parts.fragment
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or not text.isascii() or any(c in text for c in ' \\"<>'):
        raise ValueError('must be an https address, such as "https://login.acme.example"')
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts)):
        raise ValueError("must be an https address; plain http leads to this machine only")
    return text


def is_loopback(parts: SplitResult) -> bool:
    """Does an address lead to this very machine, whatever a resolver says?"""
    host = parts.hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@frozen
class Metadata:
    """Where a provider's endpoints are. `basic`: a client names itself by HTTP Basic, else in the form."""

    basic: bool
    authorization: str
    token: str
    keys: str

    @classmethod
    def parse(cls, text: bytes, issuer: str) -> Self:
        """Raises ValueError where `text` is no description of `issuer`, or of a provider that is not usable."""
        try:
            document = json.loads(text)
            methods = document.get("token_endpoint_auth_methods_supported", [_BASIC])
            addresses = [document[name] for name in _ENDPOINTS]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError("is not a description of an OpenID provider") from None
        if document.get("issuer") != issuer:
            raise ValueError("describes another issuer")
        if not all(isinstance(address, str) for address in addresses):
            raise ValueError("names an endpoint that is no address")
        if not isinstance(methods, list) or not {_BASIC, _POST} & {m for m in methods if isinstance(m, str)}:
            raise ValueError(f"takes neither {_BASIC} nor {_POST}")
        return cls(_BASIC in methods, *map(parse_address, addresses))


_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


def with_query(address: str, parameters: Mapping[str, str]) -> str:
    """`address` with `parameters` beside those that it has."""
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(parameters)}"


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier (RFC 7636, section 4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def name_of(claims: Mapping[str, Any], *, client: str, nonce: str, claim: str) -> str:
    """Whom the verified ID token of the sign-in with `nonce` proves, as `claim` says it.

    Raises `UnauthenticatedError` where it was issued for another sign-in or another client too (Core, 3.1.3.7),
    or names nobody.
    """
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise UnauthenticatedError("the ID token belongs to another sign-in")
    if claims.get("aud") not in (client, [client]) or claims.get("azp", client) != client:
        raise UnauthenticatedError("the ID token is for another client too")
    name = actor_of(claims, claim)
    if not name:
        raise UnauthenticatedError(f"the ID token has no {claim}, or an address that is not verified")
    return name
