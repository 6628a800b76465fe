"""Who a caller is: every proof is judged alone, all must agree, and a stranger learns nothing."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from notifyd.config.settings import Auth, Client, Jwt, KeySource, Scope
from notifyd.errors import (
    NotifydError,
    SignatureInvalidError,
    SignatureRequiredError,
    TenantMismatchError,
    UnauthenticatedError,
)
from notifyd.model import SECOND, Principal, Via
from notifyd.registry.credentials import build_clients
from notifyd.registry.tokens import Tokens
from notifyd.security.jwt import KeySet
from notifyd.security.secrets import Secret
from notifyd.security.signing import sign
from notifyd.web.auth import Call, Caller, Signature, claimed_tenant, identify, named_tenant
from tests.issuer import AUDIENCE, ISSUER, jwks, token

NOW = 1_790_000_000
BODY = b'{"tenant":{"id":"acme"}}'


def secret(letter: str) -> Secret:
    return Secret("whsec_" + base64.b64encode(letter.encode() * 32).decode())


def token_hash(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


CLIENTS = build_clients(
    Auth(
        clients={
            "runner": Client(
                hmac_secrets=(secret("a"), secret("b")),
                token_hashes=(token_hash("runner-token"), token_hash("runner-old-token")),
                scopes=(Scope.INGEST,),
                grants=("Packs.Deploy",),
                tenants=("acme",),
            ),
            "reader": Client(token_hashes=(token_hash("reader-token"),), tenants=("acme",)),
        }
    )
)


TOKENS = Tokens(Jwt(ISSUER, AUDIENCE, KeySource("keys.json", KeySet.parse(jwks()))))


def call(headers: Mapping[str, str], body: bytes = BODY, tokens: Tokens = TOKENS) -> Call:
    return Call(CIMultiDictProxy(CIMultiDict(headers)), body, CLIENTS, NOW * SECOND, 300 * SECOND, tokens)


def signed(letter: str = "a", client: str = "runner", at: int = NOW, body: bytes = BODY) -> dict[str, str]:
    return sign([secret(letter)], "msg_1", at, body) | {"X-Notifyd-Client": client}


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize("letter", ["a", "b"])
def test_each_of_a_clients_secrets_proves_it(letter: str) -> None:
    principal = identify(call(signed(letter)), Signature.REQUIRED)
    assert (principal.name, principal.signed, principal.via) == ("runner", True, Via.CLIENT)


@pytest.mark.parametrize("text", ["runner-token", "runner-old-token"])
def test_each_of_a_clients_tokens_proves_it_unsigned(text: str) -> None:
    principal = identify(call(bearer(text)), Signature.REFUSED)
    assert (principal.name, principal.signed) == ("runner", False)


def test_the_grants_held_are_those_configured_and_the_scopes() -> None:
    principal = identify(call(bearer("runner-token")), Signature.TAKEN)
    assert principal.grants == {"Packs.Deploy", "Notifier.Events:Write"}


WRONG = {
    "another's secret": signed("c"),
    "a changed body": signed(body=BODY + b" "),
    "a name without secrets": signed(client="reader"),
    "an unknown name": signed(client="nobody"),
    "the name in other letters": signed(client="Runner"),
    "another scheme's signature": signed() | {"webhook-signature": "v1a,AAAA"},
    "an empty signature": signed() | {"webhook-signature": ""},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_every_wrong_signature_is_refused_with_the_same_words(headers: Mapping[str, str]) -> None:
    with pytest.raises(SignatureInvalidError) as refused:
        identify(call(headers), Signature.REQUIRED)
    assert refused.value.detail == "webhook-signature does not match the body under any valid secret"


@pytest.mark.parametrize("name", [{}, {"X-Notifyd-Client": ""}])
def test_a_signed_body_without_x_notifyd_client_is_told_so(name: dict[str, str]) -> None:
    unnamed = {k: v for k, v in signed().items() if k != "X-Notifyd-Client"}
    with pytest.raises(SignatureInvalidError, match="X-Notifyd-Client is missing"):
        identify(call(unnamed | name), Signature.REQUIRED)


@pytest.mark.parametrize(("drift", "told"), [(-3600, "3600 s behind"), (7200, "7200 s ahead of")])
def test_a_client_with_a_wrong_clock_is_told_so(drift: int, told: str) -> None:
    with pytest.raises(SignatureInvalidError, match=f"outside the tolerance of 300 s: it is {told}"):
        identify(call(signed(at=NOW + drift)), Signature.REQUIRED)


def test_an_unknown_name_is_checked_against_as_many_keys_as_a_client_with_one() -> None:
    assert len(CLIENTS.keys_of("nobody")) == len(CLIENTS.keys_of("reader")) == 1
    assert CLIENTS.keys_of("nobody")[0] not in CLIENTS.keys_of("runner")


@pytest.mark.parametrize("at", [NOW - 301, NOW + 301])
def test_a_timestamp_outside_the_tolerance_is_refused_either_way(at: int) -> None:
    with pytest.raises(SignatureInvalidError, match="outside the tolerance"):
        identify(call(signed(at=at)), Signature.REQUIRED)


@pytest.mark.parametrize("at", [NOW - 300, NOW + 300])
def test_a_timestamp_within_the_tolerance_is_taken(at: int) -> None:
    assert identify(call(signed(at=at)), Signature.REQUIRED).name == "runner"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer nonsense",
        "Bearer ",
        "Bearer",
        "",
        "Basic cnVubmVyOnRva2Vu",
        "runner-token",
        "Bearer r\udce9ader",
    ],
)
def test_what_is_no_known_token_is_refused(authorization: str) -> None:
    with pytest.raises(UnauthenticatedError, match="the bearer token is not valid"):
        identify(call({"Authorization": authorization}), Signature.TAKEN)


# --- JWT -------------------------------------------------------------------------------------------------


def jwt(**claims: Any) -> dict[str, str]:
    said = {
        "scope": "Packs.Approve Notifier.Events:Write",
        "tenant": ["acme", "globex"],
        "grants": ["Packs.Ship"],
    }
    return bearer(token(NOW, **said | claims))


def test_a_jwt_is_a_client_of_its_own_made_of_its_claims() -> None:
    found = identify(call(jwt(client_id="portal")), Signature.TAKEN)
    assert (found.name, found.via, found.signed) == ("jwt:portal", Via.JWT, False)
    assert found.actor == "alice@acme.example"
    assert found.tenants == ("acme", "globex")


def test_a_jwt_under_a_clients_name_is_not_that_client() -> None:
    assert identify(call(jwt(client_id="runner")), Signature.TAKEN).name == "jwt:runner"


def test_a_jwt_alone_is_not_enough_where_a_signature_is_required() -> None:
    with pytest.raises(SignatureRequiredError):
        identify(call(jwt(client_id="runner")), Signature.REQUIRED)


def test_without_auth_jwt_no_jwt_is_valid() -> None:
    with pytest.raises(UnauthenticatedError, match="the bearer token is not valid"):
        identify(call(jwt(), tokens=Tokens()), Signature.TAKEN)


def test_beside_a_signature_a_jwt_names_the_actor_with_the_rights_that_both_have() -> None:
    found = identify(call(signed() | jwt(client_id="runner")), Signature.REQUIRED)
    assert (found.name, found.via, found.signed) == ("runner", Via.JWT, True)
    assert found.actor == "alice@acme.example"
    assert found.scopes == {"Notifier.Events:Write"}
    assert found.grants == {"Notifier.Events:Write", "Packs.Ship"}
    assert (found.tenants, found.act_as) == (("acme",), ())


@pytest.mark.parametrize(
    "claims", [{"client_id": "reader"}, {"azp": "reader"}, {}, {"client_id": "jwt:runner"}]
)
def test_beside_a_signature_a_jwt_of_another_client_is_refused(claims: dict[str, str]) -> None:
    with pytest.raises(UnauthenticatedError, match="different clients"):
        identify(call(signed() | jwt(**claims)), Signature.TAKEN)


def test_beside_a_good_signature_a_forged_jwt_is_refused() -> None:
    good = jwt(client_id="runner")["Authorization"]
    with pytest.raises(UnauthenticatedError, match="not valid"):
        identify(call(signed() | {"Authorization": good[:-4] + "AAAA"}), Signature.TAKEN)


def test_a_token_is_not_its_hash() -> None:
    with pytest.raises(UnauthenticatedError):
        identify(call(bearer(token_hash("reader-token"))), Signature.REFUSED)


def test_a_bearer_alone_is_not_enough_where_a_signature_is_required() -> None:
    with pytest.raises(SignatureRequiredError):
        identify(call(bearer("runner-token")), Signature.REQUIRED)


def test_nothing_presented_is_refused() -> None:
    for signature in Signature:
        with pytest.raises(UnauthenticatedError):
            identify(call({}), signature)


def test_two_proofs_of_one_client_are_taken() -> None:
    principal = identify(call(signed() | bearer("runner-token")), Signature.TAKEN)
    assert (principal.name, principal.signed) == ("runner", True)


BROKEN_PAIRS = {
    "different clients": signed() | bearer("reader-token"),
    "a wrong token": signed() | bearer("nonsense"),
    "a wrong signature": signed("c") | bearer("runner-token"),
}


@pytest.mark.parametrize("headers", BROKEN_PAIRS.values(), ids=BROKEN_PAIRS.keys())
def test_of_two_proofs_both_must_hold_for_one_client(headers: Mapping[str, str]) -> None:
    with pytest.raises(UnauthenticatedError):
        identify(call(headers), Signature.TAKEN)


def test_a_signature_is_refused_where_it_would_cover_nothing() -> None:
    with pytest.raises(UnauthenticatedError, match="covers a body"):
        identify(call(signed(body=b"") | bearer("runner-token"), b""), Signature.REFUSED)


def test_no_refusal_repeats_what_was_presented() -> None:
    for headers in (*WRONG.values(), *BROKEN_PAIRS.values(), bearer("hunter2-token")):
        with pytest.raises(NotifydError) as refused:
            identify(call(headers), Signature.TAKEN)
        told = repr(refused.value)
        assert not any(value in told for value in headers.values() if len(value) > 3)


def test_keys_and_hashes_are_not_shown() -> None:
    assert "aaaa" not in repr(CLIENTS)
    assert repr(hashlib.sha256(b"reader-token").digest()) not in repr(CLIENTS)


@pytest.mark.parametrize("text", ["sha256:12", "sha256:" + "zz" * 32, "ab" * 32])
def test_a_token_hash_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hash|hex"):
        build_clients(Auth(clients={"a": Client(token_hashes=(text,))}))


# --- the tenant ------------------------------------------------------------------------------------------


def principal(*tenants: str) -> Principal:
    return Principal("runner", Via.CLIENT, frozenset(), frozenset(), tenants)


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize("name", ["X-Notifyd-Tenant", "x-stellaops-tenant"])
def test_either_header_names_the_tenant(name: str) -> None:
    assert named_tenant(headers((name, "acme")), principal("acme", "globex")) == "acme"


def test_both_headers_may_be_sent_where_they_agree() -> None:
    both = headers(("X-Notifyd-Tenant", "acme"), ("X-StellaOps-Tenant", "acme"))
    assert named_tenant(both, principal("acme")) == "acme"


@pytest.mark.parametrize(
    "pairs",
    [
        (("X-Notifyd-Tenant", "acme"), ("X-StellaOps-Tenant", "globex")),
        (("X-Notifyd-Tenant", "acme"), ("X-Notifyd-Tenant", "globex")),
        (("X-Notifyd-Tenant", "initech"),),
        (("X-Notifyd-Tenant", ""),),
    ],
)
def test_headers_that_disagree_or_name_anothers_tenant_are_refused(
    pairs: tuple[tuple[str, str], ...],
) -> None:
    with pytest.raises(TenantMismatchError):
        named_tenant(headers(*pairs), principal("acme", "globex"))


def caller(tenant: str | None, *tenants: str) -> Caller:
    # A caller's tenant needs nothing of the configuration.
    return Caller(None, principal(*tenants), signed=False, alone=False, tenant=tenant)  # type: ignore[arg-type]


def test_the_one_tenant_of_a_client_is_implied() -> None:
    assert caller(None, "acme").only_tenant() == "acme"


@pytest.mark.parametrize("tenants", [("acme", "globex"), ()])
def test_a_client_with_several_tenants_or_none_must_name_one(tenants: tuple[str, ...]) -> None:
    with pytest.raises(TenantMismatchError, match="X-Notifyd-Tenant"):
        caller(None, *tenants).only_tenant()


def test_a_body_names_one_of_the_callers_tenants_and_the_headers_one() -> None:
    caller("acme", "acme", "globex").claim("acme")
    caller(None, "acme", "globex").claim("globex")
    for refused in (caller("acme", "acme", "globex"), caller(None, "acme")):
        with pytest.raises(TenantMismatchError):
            refused.claim("globex")


@pytest.mark.parametrize("document", [None, 1, [], {}, {"tenant": "acme"}, {"tenant": None}, {"tenant": {}}])
def test_a_body_without_a_tenant_claims_none_and_is_left_to_validation(document: object) -> None:
    assert claimed_tenant(document) is None
    caller("acme", "acme").claim(claimed_tenant(document))


def test_finding_a_token_among_many_is_quick() -> None:
    many = {f"client-{i}": Client(token_hashes=(token_hash(str(i)),)) for i in range(1000)}
    clients = build_clients(Auth(clients=many))
    began = time.perf_counter()
    found = clients.by_token("999")
    assert found is not None
    assert found.principal.name == "client-999"
    assert time.perf_counter() - began < 0.1
