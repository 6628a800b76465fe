"""Standard Webhooks signatures, both ways."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey
from multidict import CIMultiDict

from notifyd.errors import SignatureInvalidError
from notifyd.security.secrets import Secret
from notifyd.security.signing import (
    SigningKeys,
    public_text,
    secret_bytes,
    sign,
    signature,
    signing_key,
    verify,
)

# The example that the Standard Webhooks libraries publish (https://github.com/standard-webhooks,
# the test "sign function works" of each of them).
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

KEY = secret_bytes(SECRET)
OTHER = Secret("whsec_" + base64.b64encode(b"another secret, of 32 bytes too.").decode())
TOLERANCE = 300.0


def headers(**changes: str) -> CIMultiDict[str]:
    """The example's, as a server reads them: whatever the capitals."""
    given = CIMultiDict(
        {"Webhook-Id": ID, "Webhook-Timestamp": str(TIMESTAMP), "Webhook-Signature": SIGNATURE}
    )
    given.update({name.replace("_", "-"): value for name, value in changes.items()})
    return given


def check(given: CIMultiDict[str], *, body: bytes = BODY, now: float = TIMESTAMP) -> None:
    verify([KEY], given, body, now, TOLERANCE)


def test_the_published_example_is_signed_alike() -> None:
    assert signature(KEY, ID, TIMESTAMP, BODY) == SIGNATURE
    assert sign([SECRET], ID, TIMESTAMP, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": SIGNATURE,
    }


def test_the_published_example_verifies() -> None:
    check(headers())


def test_each_valid_secret_signs_and_any_of_them_verifies() -> None:
    signed = sign([OTHER, SECRET], ID, TIMESTAMP, BODY)
    assert signed["webhook-signature"].split(" ")[1] == SIGNATURE
    for secret in (OTHER, SECRET):
        verify([secret_bytes(secret)], signed, BODY, TIMESTAMP, TOLERANCE)
    verify([b"x" * 32, KEY], signed, BODY, TIMESTAMP, TOLERANCE)


@given(st.binary(max_size=200), st.text(st.characters(codec="ascii"), min_size=1), st.integers(0, 10**11))
def test_what_is_signed_verifies_and_with_one_byte_more_does_not(body: bytes, name: str, at: int) -> None:
    signed = sign([SECRET], name, at, body)
    verify([KEY], signed, body, at, TOLERANCE)
    with pytest.raises(SignatureInvalidError):
        verify([KEY], signed, body + b" ", at, TOLERANCE)


@pytest.mark.parametrize("drift", [-300, 0, 300])
def test_a_timestamp_within_the_tolerance_is_taken_either_way(drift: int) -> None:
    check(headers(), now=TIMESTAMP + drift)


@pytest.mark.parametrize("drift", [-301, 300.5, 86400])
def test_a_timestamp_outside_the_tolerance_is_refused_and_said_to_be_the_cause(drift: float) -> None:
    with pytest.raises(SignatureInvalidError, match="tolerance"):
        check(headers(), now=TIMESTAMP + drift)


@pytest.mark.parametrize(
    "stamp", ["", "now", "1614265330.5", "-1", "+1614265330", " 1614265330", "١٦١٤٢٦٥٣٣٠", "9" * 400]
)
def test_a_timestamp_that_is_not_whole_seconds_is_refused(stamp: str) -> None:
    with pytest.raises(SignatureInvalidError, match="required"):
        check(headers(webhook_timestamp=stamp))


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(name: str) -> None:
    given = headers()
    del given[name]
    with pytest.raises(SignatureInvalidError):
        check(given)


@pytest.mark.parametrize(
    "offered",
    [
        "",
        "v1,",
        "v1",
        SIGNATURE.removeprefix("v1,"),
        SIGNATURE.replace("v1,", "v2,"),
        SIGNATURE.replace("v1,", "v1a,"),
        SIGNATURE.removesuffix("="),
        SIGNATURE.lower(),
        SIGNATURE + ",",
        "v1,ünsinn",
        " ".join(["v1,no"] * 8 + [SIGNATURE]),  # more than anybody sends are not looked at
    ],
)
def test_a_signature_that_is_not_this_very_one_is_refused(offered: str) -> None:
    with pytest.raises(SignatureInvalidError):
        check(headers(webhook_signature=offered))


def test_a_valid_signature_among_others_is_found() -> None:
    check(headers(webhook_signature=f"v2,future v1,{'A' * 43}= {SIGNATURE}"))


@pytest.mark.parametrize("changes", [{"webhook_id": "msg_other"}, {"webhook_timestamp": str(TIMESTAMP + 1)}])
def test_a_signature_covers_the_id_and_the_time(changes: dict[str, str]) -> None:
    with pytest.raises(SignatureInvalidError):
        check(headers(**changes))


def test_one_key_signs_message_after_message_each_as_if_it_were_the_first() -> None:
    for number in range(3):
        body = b"%d" % number
        expected = hmac.new(KEY, b"msg_1.%d.%s" % (TIMESTAMP, body), hashlib.sha256).digest()
        assert signature(KEY, "msg_1", TIMESTAMP, body) == "v1," + base64.b64encode(expected).decode()


def test_without_a_secret_nothing_verifies() -> None:
    with pytest.raises(SignatureInvalidError):
        verify([], headers(), BODY, TIMESTAMP, TOLERANCE)


@pytest.mark.parametrize(
    "value",
    [
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_?MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        "whsec_" + base64.b64encode(b"s" * 23).decode(),
        "whsec_" + base64.b64encode(b"s" * 65).decode(),
        "WHSEC_" + base64.b64encode(b"s" * 32).decode(),
    ],
)
def test_what_is_no_signing_secret_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_|24 to 64") as caught:
        secret_bytes(Secret(value))
    assert value.removeprefix("whsec_")[:8] not in str(caught.value) or value == "whsec_"


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_signing_secret_of_any_allowed_length_is_taken(length: int) -> None:
    assert secret_bytes(Secret("whsec_" + base64.b64encode(b"s" * length).decode())) == b"s" * length


# --- asymmetric ----------------------------------------------------------------------------------------------

# The first test of RFC 8032, section 7.1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def whsk(held: bytes) -> Secret:
    return Secret("whsk_" + base64.b64encode(held).decode())


KEYS = SigningKeys([whsk(SEED), whsk(b"s" * 32)])


def test_the_first_key_signs_and_its_public_key_verifies() -> None:
    (made,) = KEYS.signatures(ID, TIMESTAMP, BODY)
    version, _, encoded = made.partition(",")
    assert version == "v1a"
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(
        base64.b64decode(encoded, validate=True), f"{ID}.{TIMESTAMP}.".encode() + BODY
    )


def test_both_kinds_of_signatures_stand_beside_each_other() -> None:
    own = KEYS.signatures(ID, TIMESTAMP, BODY)
    signed = sign([SECRET, OTHER], ID, TIMESTAMP, BODY, own)
    assert [one.partition(",")[0] for one in signed["webhook-signature"].split(" ")] == ["v1", "v1", "v1a"]
    verify([KEY], signed, BODY, TIMESTAMP, TOLERANCE)
    assert sign([], ID, TIMESTAMP, BODY, own)["webhook-signature"] == own[0]


def test_a_public_key_proves_no_caller() -> None:
    """A signature that anybody could have copied from what notifyd sends is none of a client's."""
    signed = sign([], ID, TIMESTAMP, BODY, KEYS.signatures(ID, TIMESTAMP, BODY))
    for key in (SEED, PUBLIC):
        with pytest.raises(SignatureInvalidError):
            verify([key], signed, BODY, TIMESTAMP, TOLERANCE)


def test_all_keys_are_published_and_nothing_private() -> None:
    first, second = KEYS.jwks()["keys"]
    # RFC 8037, appendix A, has the same key and its thumbprint.
    assert first == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "use": "sig",
        "alg": "EdDSA",
    }
    assert OKPKey.import_key(dict(second)).thumbprint() == second["kid"]
    assert SigningKeys().jwks() == {"keys": []}
    assert "whsk" not in repr(KEYS)


def test_a_key_may_come_with_its_public_key_as_others_write_it() -> None:
    assert public_text(signing_key(whsk(SEED + PUBLIC))) == "whpk_" + base64.b64encode(PUBLIC).decode()


def test_a_key_may_be_written_as_those_of_keys_seal() -> None:
    assert public_text(signing_key(Secret(base64.b64encode(SEED).decode()))) == public_text(
        signing_key(whsk(SEED))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("whsec_" + base64.b64encode(SEED).decode(), "is written whsk_"),
        ("whpk_" + base64.b64encode(PUBLIC).decode(), "is written whsk_"),
        ("whsk_!", "is written whsk_"),
        ("whsk_é", "is written whsk_"),
        (whsk(SEED[:31]).reveal(), "holds 32 bytes"),
        (whsk(SEED + PUBLIC[:31]).reveal(), "holds 32 bytes"),
        (whsk(SEED + SEED).reveal(), "that of another"),
    ],
)
def test_what_is_no_signing_key_is_refused_without_repeating_it(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        signing_key(Secret(text))
    assert text not in str(refused.value)
