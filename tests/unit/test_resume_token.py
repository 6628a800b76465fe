"""The resume token: sealed at rest, and sealed anew for the client that issued it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from notifyd.errors import SealError
from notifyd.security.resume_token import keep, reveal, seal_for
from notifyd.security.secrets import Keyring, Secret

TOKEN = Secret("rt_3yQ8Jv1nTz5kWc7pXe2mRb9d-ü")
KEY = b"the runner's secret of 32 bytes."
CLIENT = Secret("whsec_" + base64.b64encode(KEY).decode())


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_what_the_database_holds_is_sealed_and_opens_to_the_token() -> None:
    kept = keep(Keyring([b"k" * 32]), TOKEN)
    assert TOKEN.reveal() not in kept
    assert reveal(Keyring([b"n" * 32, b"k" * 32]), kept) == TOKEN


def test_without_its_key_the_token_is_gone() -> None:
    with pytest.raises(SealError):
        reveal(Keyring([b"n" * 32]), keep(Keyring([b"k" * 32]), TOKEN))


def test_the_client_opens_its_token_with_its_own_secret_alone() -> None:
    """As the contract tells a client to: HKDF-SHA-256 of the secret's bytes, label `resume-token`."""
    head, key, iv, text, tag = seal_for(CLIENT, TOKEN).split(".")
    assert json.loads(decoded(head)) == {"alg": "dir", "enc": "A256GCM"}
    assert key == ""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"resume-token").derive(KEY)
    opened = AESGCM(derived).decrypt(decoded(iv), decoded(text) + decoded(tag), head.encode())
    assert opened.decode() == TOKEN.reveal()


def test_another_clients_secret_does_not_open_it() -> None:
    other = Keyring([b"another secret, of 32 bytes too."])
    with pytest.raises(SealError):
        other.open("resume-token", seal_for(CLIENT, TOKEN))
