"""Which tokens prove somebody, and every way of making one that must not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import ECKey, OctKey, OKPKey

from notifyd.config.settings import Scope
from notifyd.errors import UnauthenticatedError
from notifyd.model import Principal, Via
from notifyd.security.jwt import (
    ALGORITHMS,
    INVALID,
    ClaimNames,
    Expected,
    KeySet,
    principal_of,
    read_header,
    verify,
)
from tests.issuer import AUDIENCE, ISSUER, KEYS, jwks, key_for, part, signed, token

NOW = 1_793_782_200.0
TOLERANCE = 300
ALL = KeySet.parse(jwks())


def claims_of(text: str, keys: KeySet = ALL, now: float = NOW) -> Any:
    return verify(text, keys, Expected(ISSUER, AUDIENCE, now, TOLERANCE))


def refusal(text: str, keys: KeySet = ALL) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        claims_of(text, keys)
    assert not text or text not in repr(refused.value)
    return refused.value.detail


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_token_of_each_algorithm_is_taken(algorithm: str) -> None:
    assert claims_of(token(NOW, algorithm))["sub"] == "alice@acme.example"


def test_the_algorithms_are_those_four() -> None:
    assert sorted(ALGORITHMS) == ["ES256", "EdDSA", "PS256", "RS256"]


EC = {"alg": "ES256", "kid": "ec"}
GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mallory", "exp": NOW + 300}
PEM = key_for("RS256").public_key.public_bytes(  # type: ignore[union-attr]
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
HEADER, PAYLOAD, SIGNATURE = token(NOW).split(".")
OTHER = ECKey.generate_key("P-256", {"kid": "ec"})

FORGED = {
    "no algorithm": signed({"alg": "none", "kid": "rsa"}, GOOD, None),
    "no algorithm, spelt otherwise": signed({"alg": "nOnE", "kid": "rsa"}, GOOD, None),
    "a list of algorithms": f"{part({'alg': ['ES256'], 'kid': 'ec'})}.{PAYLOAD}.{SIGNATURE}",
    "no signature": f"{HEADER}.{PAYLOAD}.",
    "a symmetric key made of the public one": signed(
        {"alg": "HS256", "kid": "rsa"}, GOOD, OctKey.import_key(base64.b64encode(PEM))
    ),
    "a symmetric key made of the key's own numbers": signed(
        {"alg": "HS256", "kid": "rsa"}, GOOD, OctKey.import_key(jwks(key_for("RS256")))
    ),
    "another key under a known id": signed(EC, GOOD, OTHER),
    "a key of its own in the header": signed(EC | {"jwk": OTHER.as_dict(private=False)}, GOOD, OTHER),
    "the address of its own key in the header": signed(
        EC | {"jku": "https://mallory.example/jwks"}, GOOD, OTHER
    ),
    "an unknown id": signed({"alg": "ES256", "kid": "nobody"}, GOOD, key_for("ES256")),
    "an algorithm for another kind of key": signed({"alg": "ES256", "kid": "rsa"}, GOOD, key_for("ES256")),
    "an algorithm that is not taken": signed({"alg": "RS512", "kid": "rsa"}, GOOD, key_for("RS256")),
    "other claims under the same signature": f"{HEADER}.{part(GOOD)}.{SIGNATURE}",
    "another header over the same signature": f"{part({'alg': 'ES256', 'kid': 'ec'})}.{PAYLOAD}.{SIGNATURE}",
    "a critical extension": signed(EC | {"crit": ["exp"], "exp": 1}, GOOD, key_for("ES256")),
    "an unencoded payload": signed(EC | {"b64": True}, GOOD, key_for("ES256")),
    "a token for another end": signed(EC | {"typ": "logout+jwt"}, GOOD, key_for("ES256")),
    "a type that is no text": signed(EC | {"typ": ["JWT"]}, GOOD, key_for("ES256")),
    "an id that is no text": signed(EC, GOOD, key_for("ES256")).replace(
        part(EC), part({"alg": "ES256", "kid": 1})
    ),
    "junk inside the encoding": token(NOW).replace(".", "!.", 1),
    "an encrypted token": f"{HEADER}.a.b.c.d",
    "a header that nests": f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.{PAYLOAD}.{SIGNATURE}",
    "an empty part": f".{PAYLOAD}.{SIGNATURE}",
    "nothing": "",
    "two dots": "..",
    "no ASCII": "é.é.é",
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_a_forged_token_is_refused_with_the_same_words_whatever_is_wrong(text: str) -> None:
    assert refusal(text) == INVALID


def test_a_changed_bit_anywhere_is_refused() -> None:
    text = token(NOW)
    for at in range(0, len(text), 7):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(UnauthenticatedError):
            claims_of(changed)


WRONG = {
    "another issuer": ({"iss": "https://mallory.example"}, "another issuer"),
    "no issuer": ({"iss": None}, "another issuer"),
    "an issuer in a list": ({"iss": [ISSUER]}, "another issuer"),
    "another audience": ({"aud": "payroll"}, "another audience"),
    "other audiences": ({"aud": ["payroll", "notifyd2"]}, "another audience"),
    "an audience that begins alike": ({"aud": "notifyd.example"}, "another audience"),
    "no audience": ({"aud": None}, "another audience"),
    "no end": ({"exp": None}, "no exp"),
    "an end in the past": ({"exp": NOW - 301}, "has expired"),
    "an end at the edge": ({"exp": NOW - 300}, "has expired"),
    "an end that is text": ({"exp": str(NOW + 300)}, "seconds since 1970"),
    "an end that is true": ({"exp": True}, "seconds since 1970"),
    "an end without end": ({"exp": float("inf")}, "seconds since 1970"),
    "an end that is no number": ({"exp": float("nan")}, "seconds since 1970"),
    "an end beyond all time": ({"exp": 10**400}, "seconds since 1970"),
    "a beginning in the future": ({"nbf": NOW + 301}, "not valid yet"),
    "a beginning that is text": ({"nbf": "now"}, "seconds since 1970"),
    "made in the future": ({"iat": NOW + 301}, "not valid yet"),
}


@pytest.mark.parametrize(("claims", "told"), WRONG.values(), ids=WRONG)
def test_a_signed_token_that_does_not_hold_here_is_told_why(claims: dict[str, Any], told: str) -> None:
    assert told in refusal(token(NOW, **claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 299},
        {"nbf": NOW + 300},
        {"iat": NOW + 300},
        {"iat": None},
        {"aud": ["payroll", AUDIENCE]},
        {"exp": NOW + 0.5},
    ],
)
def test_both_clocks_may_differ_by_the_tolerance(claims: dict[str, Any]) -> None:
    assert claims_of(token(NOW, **claims))


@pytest.mark.parametrize("payload", [b"[]", b'"text"', b"not json", b"[" * 5000, b"\xff"])
def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    assert "another issuer" in refusal(signed(EC, payload, key_for("ES256")))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_the_types_of_access_tokens_are_taken(kind: str | None) -> None:
    header = EC | ({"typ": kind} if kind else {})
    assert claims_of(signed(header, GOOD, key_for("ES256")))


def test_a_header_may_hold_what_nobody_here_knows() -> None:
    header = EC | {"x5t": "abc", "nonce": "n"}
    assert claims_of(signed(header, GOOD, key_for("ES256")))


# --- key sets ------------------------------------------------------------------------------------------------


def test_a_token_without_an_id_is_judged_by_the_only_key_for_its_algorithm() -> None:
    text = signed({"alg": "ES256"}, GOOD, key_for("ES256"))
    assert claims_of(text)
    two = KeySet.parse(jwks(key_for("ES256"), ECKey.generate_key("P-256", {"kid": "second"})))
    assert refusal(text, two) == INVALID


def test_keys_with_one_id_are_told_apart_by_their_kind() -> None:
    rsa, ec = (dict(key_for(alg).as_dict(private=False)) | {"kid": "one"} for alg in ("RS256", "ES256"))
    keys = KeySet.parse(json.dumps({"keys": [rsa, ec]}))
    for alg in ("RS256", "ES256"):
        assert claims_of(signed({"alg": alg, "kid": "one"}, GOOD, key_for(alg)), keys)


def entry(algorithm: str = "ES256", **more: Any) -> dict[str, Any]:
    return dict(key_for(algorithm).as_dict(private=False)) | more


UNUSABLE = {
    "for encryption": entry(use="enc"),
    "for signing alone": entry(key_ops=["sign"]),
    "for another algorithm": entry(alg="ES512"),
    "symmetric": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "x"},
    "on another curve": dict(ECKey.generate_key("P-384").as_dict(private=False)),
    "for agreement": dict(OKPKey.generate_key("X25519").as_dict(private=False)),
    "too short": entry("RS256", n=base64.urlsafe_b64encode(b"\xff" * 128).decode().rstrip("=")),
    "not on its curve": entry(x="AAAA"),
    "without a part": {"kty": "EC", "crv": "P-256", "kid": "ec"},
    "with an odd id": entry(kid=1),
    "with an odd kind": entry(kty=["EC"]),
    "with an odd curve": entry(crv={}),
    "with an odd algorithm": entry(alg=["ES256"]),
    "with odd operations": entry(key_ops=1),
    "with an odd number": entry("RS256", n=1),
    "no object": "a key",
}


@pytest.mark.parametrize("one", UNUSABLE.values(), ids=UNUSABLE)
def test_a_key_that_cannot_verify_is_passed_over(one: Any) -> None:
    with pytest.raises(ValueError, match="holds no key for"):
        KeySet.parse(json.dumps({"keys": [one]}))
    assert len(KeySet.parse(json.dumps({"keys": [one, entry(kid="good")]})).keys) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": {}}', "[" * 5000, '{"keys": [' + "1," * 100 + "1]}"]
)
def test_what_is_no_key_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="JSON Web Key Set"):
        KeySet.parse(text)


def test_a_private_key_by_mistake_in_the_set_is_not_kept() -> None:
    keys = KeySet.parse(json.dumps({"keys": [dict(KEYS["ES256"].as_dict(private=True))]}))
    assert not keys.keys[0].key.is_private
    assert claims_of(token(NOW), keys)


# --- whom a token proves --------------------------------------------------------------------------------------

NAMES = ClaimNames("tenant", "grants", "sub")


def principal(**claims: Any) -> Principal:
    return proved(claims, NAMES)


def proved(claims: Mapping[str, Any], names: ClaimNames) -> Principal:
    return principal_of({"sub": "alice", **claims}, names, [scope.value for scope in Scope])


def test_claims_become_a_principal() -> None:
    found = principal(
        client_id="portal",
        scope="openid Packs.Approve Notifier.Read",
        tenant="acme",
        grants=["Packs.Deploy"],
    )
    assert (found.name, found.via, found.actor) == ("jwt:portal", Via.JWT, "alice")
    assert found.scopes == {"Packs.Approve", "Notifier.Read"}
    assert found.grants == {"Packs.Approve", "Notifier.Read", "Packs.Deploy"}
    assert (found.tenants, found.act_as, found.signed) == (("acme",), (), False)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"client_id": "a", "azp": "b"}, "jwt:a"),
        ({"azp": "b"}, "jwt:b"),
        ({}, "jwt:alice"),
    ],
)
def test_the_client_is_client_id_or_azp_or_the_subject(claims: dict[str, str], name: str) -> None:
    assert principal(**claims).name == name


@pytest.mark.parametrize("claims", [{"client_id": ""}, {"client_id": 1}, {"sub": None}, {"sub": ["alice"]}])
def test_a_token_without_a_client_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError, match="names no client"):
        principal(**claims)


@pytest.mark.parametrize(
    "scopes", [{"scope": "Packs.Approve"}, {"scp": ["Packs.Approve"]}, {"scp": "Packs.Approve"}]
)
def test_scopes_are_a_text_or_a_list(scopes: dict[str, Any]) -> None:
    assert principal(**scopes).scopes == {"Packs.Approve"}


@pytest.mark.parametrize("tenant", [None, "", 1, [], [1], {"acme": 1}])
def test_a_token_that_names_no_tenant_has_none(tenant: Any) -> None:
    assert principal(tenant=tenant).tenants == ()


def test_the_claims_are_those_that_are_configured() -> None:
    names = ClaimNames("https://acme.example/tenants", "roles", "email")
    claims = {
        "https://acme.example/tenants": ["acme", "globex", "acme"],
        "roles": ["Packs.Deploy"],
        "email": "alice@acme.example",
        "email_verified": True,
        "tenant": "initech",
        "grants": ["Packs.Approve"],
    }
    found = proved(claims, names)
    assert found.tenants == ("acme", "globex")
    assert found.grants == {"Packs.Deploy"}
    assert found.actor == "alice@acme.example"


@pytest.mark.parametrize("verified", [False, "true", None, 0])
def test_an_address_that_nobody_verified_is_no_actor(verified: Any) -> None:
    claims = {"email": "alice@acme.example", "email_verified": verified}
    assert proved(claims, ClaimNames("t", "g", "email")).actor == ""


def test_a_header_is_read_before_anything_is_proved_and_proves_nothing() -> None:
    assert read_header(token(NOW)) is not None
    assert read_header("notifyd_api-token") is None
