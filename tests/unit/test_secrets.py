"""The Secret type, and sealing."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle

import pytest
from attrs import asdict, frozen
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from notifyd.errors import SealError
from notifyd.security.secrets import Keyring, Secret, decrypt, derive_key, encrypt, key_id, sealed_under

OLD, NEW = b"o" * 32, b"n" * 32
VALUE = "correct horse battery staple"


def part(token: str, number: int) -> bytes:
    text = token.split(".")[number]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def token_with(header: object, rest: str = "..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA") -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=") + rest


# --- Secret ------------------------------------------------------------------------------------------------


@frozen
class _Holder:
    secret: Secret


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(VALUE)),
        repr(Secret(VALUE)),
        f"{Secret(VALUE)}",
        f"{Secret(VALUE)!r:>40}",
        f"{Secret(VALUE):>40}",
        "%s %r" % (Secret(VALUE), Secret(VALUE)),  # noqa: UP031 - the way under test
        repr([Secret(VALUE)]),
        repr(_Holder(Secret(VALUE))),
        str(asdict(_Holder(Secret(VALUE)))),
    ],
)
def test_no_way_to_print_a_secret_shows_it(shown: str) -> None:
    assert VALUE not in shown
    assert "***" in shown


def test_a_secret_that_is_logged_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("notifyd.test").warning("sending with %s", Secret(VALUE))
    assert caplog.messages == ["sending with ***"]


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_does_not_leave_by_a_serialiser(leave: object) -> None:
    assert callable(leave)
    with pytest.raises(TypeError) as caught:
        leave(Secret(VALUE))
    assert VALUE not in str(caught.value)


def test_secrets_are_equal_by_what_they_hold_and_to_no_string() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert len({Secret(VALUE), Secret(VALUE), Secret("other")}) == 2
    assert Secret(VALUE) != VALUE
    assert not Secret("")


# --- keys and tokens ---------------------------------------------------------------------------------------


def test_a_key_for_a_use_is_hkdf_of_the_master_key_with_the_label() -> None:
    expected = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"message").derive(OLD)
    assert derive_key(OLD, "message") == expected
    assert derive_key(OLD, "message") != derive_key(OLD, "resume-token")


def test_what_is_sealed_is_a_jwe_that_any_library_opens_with_the_derived_key() -> None:
    token = Keyring([OLD]).seal("message", b"hello")
    header, key, iv, text, tag = (part(token, number) for number in range(5))
    assert json.loads(header) == {"alg": "dir", "enc": "A256GCM", "kid": key_id(OLD)}
    assert key == b""
    additional = token.split(".")[0].encode()
    assert AESGCM(derive_key(OLD, "message")).decrypt(iv, text + tag, additional) == b"hello"


@given(st.binary(max_size=300))
def test_what_is_sealed_opens_to_the_same_bytes(plaintext: bytes) -> None:
    keyring = Keyring([OLD])
    assert keyring.open("message", keyring.seal("message", plaintext)) == plaintext


@given(st.binary(max_size=300), st.sampled_from(["", "abcd1234"]))
def test_what_is_sealed_joserfc_opens_and_what_it_seals_opens(plaintext: bytes, kid: str) -> None:
    key, header = OctKey.import_key(OLD), {"alg": "dir", "enc": "A256GCM"} | ({"kid": kid} if kid else {})
    opened = jwe.decrypt_compact(encrypt(OLD, plaintext, kid), key, algorithms=["dir", "A256GCM"])
    assert (opened.plaintext, opened.headers()) == (plaintext, header)
    assert (
        decrypt(OLD, jwe.encrypt_compact(header, plaintext, key, algorithms=["dir", "A256GCM"])) == plaintext
    )


@pytest.mark.parametrize("end", [0, 4, 6, 21])
def test_what_is_sealed_does_not_open_where_its_text_ends_elsewhere(end: int) -> None:
    token = encrypt(OLD, b"hello")
    both = part(token, 3) + part(token, 4)
    parts = (base64.urlsafe_b64encode(one).decode().rstrip("=") for one in (both[:end], both[end:]))
    with pytest.raises(SealError):
        decrypt(OLD, ".".join((*token.split(".")[:3], *parts)))


def test_what_is_sealed_opens_however_large_it_is() -> None:
    keyring = Keyring([OLD])
    large = b"x" * 1_000_000
    assert keyring.open("message", keyring.seal("message", large)) == large


def test_sealing_twice_gives_two_tokens() -> None:
    keyring = Keyring([OLD])
    assert keyring.seal("message", b"hello") != keyring.seal("message", b"hello")


def test_the_first_key_seals_and_all_keys_open() -> None:
    before = Keyring([OLD]).seal("message", b"hello")
    rotated = Keyring([NEW, OLD])
    assert rotated.open("message", before) == b"hello"
    assert sealed_under(rotated.seal("message", b"hello")) == key_id(NEW)
    assert rotated.ids == (key_id(NEW), key_id(OLD))


def test_a_dropped_key_is_told_from_a_broken_seal() -> None:
    token = Keyring([OLD]).seal("message", b"hello")
    with pytest.raises(SealError, match="no longer configured"):
        Keyring([NEW]).open("message", token)


def test_what_is_sealed_for_one_use_does_not_open_for_another() -> None:
    keyring = Keyring([OLD])
    with pytest.raises(SealError, match="does not open"):
        keyring.open("approval-link", keyring.seal("message", b"hello"))


def test_a_keyring_needs_a_key() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Keyring([])


def test_a_key_id_tells_nothing_of_its_key_and_differs_from_others() -> None:
    assert len(key_id(OLD)) == 8
    assert key_id(OLD) != key_id(NEW)
    assert key_id(OLD) not in OLD.hex()


@given(st.data())
def test_a_token_changed_in_any_place_does_not_open(data: st.DataObject) -> None:
    token = Keyring([OLD]).seal("message", b"approve this plan")
    place = data.draw(st.integers(0, len(token) - 2))  # the last character has bits that nobody reads
    other = data.draw(st.sampled_from("ABCDwxyz0189-_.=+/ é\x00").filter(lambda char: char != token[place]))
    with pytest.raises(SealError):
        Keyring([OLD]).open("message", token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "....",
        "not a token",
        "é....",
        "\ud800....",
        "a" * 100_000,
        "." * 100_000,
        token_with([]),
        token_with(None),
        token_with({"kid": 1}),
        token_with({"kid": {"kid": key_id(OLD)}}),
        token_with({"alg": "dir", "enc": "A256GCM", "kid": {}}),
        token_with({"alg": "dir", "enc": "A256GCM", "kid": None}),
        base64.urlsafe_b64encode(b"[" * 5000).decode() + "....",
    ],
)
def test_what_is_no_token_has_no_key_id_and_does_not_open(token: str) -> None:
    assert sealed_under(token) != key_id(OLD)
    with pytest.raises(SealError):
        Keyring([OLD]).open("message", token)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": "none"},
        {"alg": "none", "enc": "A256GCM"},
        {"alg": "dir", "enc": "none"},
        {"alg": "dir", "enc": "A128GCM"},
        {"alg": "dir", "enc": "A256CBC-HS512"},
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "dir", "enc": "A256GCM", "crit": ["exp"], "exp": 1},
        {"alg": "A256KW", "enc": "A256GCM"},
        {"alg": "RSA-OAEP", "enc": "A256GCM"},
        {"alg": "ECDH-ES", "enc": "A256GCM", "epk": {}},
        {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2s": "AAAA", "p2c": 100_000_000},
        {"alg": 1, "enc": []},
    ],
)
def test_a_token_that_names_another_way_of_sealing_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(SealError):
        Keyring([OLD]).open("message", token_with(header | {"kid": key_id(OLD)}))


def test_no_seal_error_shows_what_was_sealed_or_the_key() -> None:
    token = encrypt(OLD, VALUE.encode())
    with pytest.raises(SealError) as caught:
        decrypt(NEW, token)
    assert VALUE not in str(caught.value)
    assert token not in str(caught.value)


# --- content identities ------------------------------------------------------------------------------------


def test_an_identity_tells_equal_contents_and_names_its_key() -> None:
    keyring = Keyring([OLD])
    identity = keyring.identify("event-content", b"{}")
    assert identity.partition(":")[0] == key_id(OLD)
    assert keyring.same("event-content", b"{}", identity)
    assert not keyring.same("event-content", b"[]", identity)
    assert not keyring.same("other-use", b"{}", identity)


def test_an_identity_of_before_a_rotation_is_recognised_while_its_key_is_kept() -> None:
    identity = Keyring([OLD]).identify("event-content", b"{}")
    assert Keyring([NEW, OLD]).same("event-content", b"{}", identity)
    assert not Keyring([NEW]).same("event-content", b"{}", identity)
    assert Keyring([NEW, OLD]).comparable(identity)
    assert not Keyring([NEW]).comparable(identity)


@pytest.mark.parametrize("identity", ["", ":", "nonsense", f"{key_id(OLD)}:", f"{key_id(OLD)}:00"])
def test_what_is_no_identity_is_the_same_as_nothing(identity: str) -> None:
    assert not Keyring([OLD]).same("event-content", b"{}", identity)
