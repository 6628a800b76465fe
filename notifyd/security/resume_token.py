"""The resume token: sealed at rest, and sealed anew for the client that issued it."""

from __future__ import annotations

from typing import Final

from notifyd.security.secrets import Keyring, Secret, derive_key, encrypt
from notifyd.security.signing import secret_bytes

_AT_REST: Final = "resume-token-at-rest"
CLIENT_LABEL: Final = "resume-token"
"""The HKDF label of the key that a client opens its token with (see the contract)."""


def keep(keyring: Keyring, token: Secret) -> str:
    """What the database holds."""
    return keyring.seal(_AT_REST, token.reveal().encode())


def reveal(keyring: Keyring, kept: str) -> Secret:
    """Raises `SealError` where the key was dropped."""
    return Secret(keyring.open(_AT_REST, kept).decode())


def seal_for(client_secret: Secret, token: Secret) -> str:
    """A compact JWE, `dir` with `A256GCM`, under HKDF-SHA-256 of the client's signing key.

    Raises ValueError as `secret_bytes` does.
    """
    return encrypt(derive_key(secret_bytes(client_secret), CLIENT_LABEL), token.reveal().encode())


def keep_anew(keyring: Keyring, kept: str) -> str:
    """The same under the first key. Raises `SealError`."""
    return keep(keyring, reveal(keyring, kept))
