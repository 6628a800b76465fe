"""The programs that may call, made ready for each request: keys decoded once, hashes as bytes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import evolve, field, frozen

from notifyd.config.settings import Auth, Client
from notifyd.model import Principal, Via
from notifyd.security import certificates
from notifyd.security.signing import secret_bytes

_HASH_PREFIX: Final = "sha256:"


@frozen
class KnownClient:
    """A configured client: whom it proves to be by a token (`principal`), and whom by a certificate or by a
    signature made with one of `keys` (`signed`)."""

    principal: Principal
    signed: Principal
    keys: tuple[bytes, ...] = field(repr=False)
    shares: frozenset[str] = frozenset()


@frozen
class Clients:
    """All configured clients.

    `stranger_keys` are checked where the named client has none of its own, so that an unknown name costs and
    says the same as a wrong signature.
    """

    named: Mapping[str, KnownClient]
    stranger_keys: tuple[bytes, ...] = field(factory=lambda: (secrets.token_bytes(32),), repr=False)
    _tokens: tuple[tuple[bytes, KnownClient], ...] = field(default=(), repr=False)
    _certificates: Mapping[certificates.Name, KnownClient] = field(factory=dict)

    def keys_of(self, name: str) -> tuple[bytes, ...]:
        client = self.named.get(name)
        return (client.keys if client else ()) or self.stranger_keys

    def shares(self, owner: str, client: str) -> bool:
        """Does `owner` let `client` act on the approvals that are its own?"""
        known = self.named.get(owner)
        return known is not None and client in known.shares

    def by_token(self, token: str) -> KnownClient | None:
        """Whose API token this is."""
        return self.by_digest(digest_of(token))

    def by_digest(self, digest: bytes) -> KnownClient | None:
        """Whose API token has this SHA-256. Every hash is compared, whichever matches."""
        found = None
        for known, client in self._tokens:
            if hmac.compare_digest(known, digest):
                found = client
        return found

    def by_certificate(self, names: Iterable[certificates.Name]) -> KnownClient | None:
        """Whose certificate proves these names. None where that is nobody, or more than one client."""
        found = {c.principal.name: c for name in names if (c := self._certificates.get(name)) is not None}
        return next(iter(found.values())) if len(found) == 1 else None


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def build_clients(auth: Auth) -> Clients:
    """Raises ValueError where a secret or a hash is not written as the config demands."""
    named = {name: _known(name, client) for name, client in auth.clients.items()}
    tokens = ((_digest(text), named[name]) for name, c in auth.clients.items() for text in c.token_hashes)
    bearers = {
        one: named[name]
        for name, client in auth.clients.items()
        for text in client.certificate_names
        for one in certificates.wanted(text)
    }
    return Clients(named, tokens=tuple(tokens), certificates=bearers)


def _known(name: str, client: Client) -> KnownClient:
    scopes = frozenset(scope.value for scope in client.scopes)
    principal = Principal(
        name=name,
        via=Via.CLIENT,
        scopes=scopes,
        grants=scopes | frozenset(client.grants),
        tenants=client.tenants,
        act_as=client.act_as,
    )
    keys = tuple(secret_bytes(secret) for secret in client.hmac_secrets)
    return KnownClient(principal, evolve(principal, signed=True), keys, frozenset(client.shares))


def _digest(text: str) -> bytes:
    if not text.startswith(_HASH_PREFIX):
        raise ValueError(f"a token hash is written {_HASH_PREFIX}<64 hex>")
    digest = bytes.fromhex(text.removeprefix(_HASH_PREFIX))
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("a token hash holds 32 bytes")
    return digest
