"""JSON Web Tokens as bearers (RFC 7519, RFC 8725): which keys verify one, what it has to say, and whom it proves.

joserfc verifies the signature. Which key and which algorithm it may use is decided here, by the key's own kind: a
token names neither "none" nor an algorithm under which a public key would be a shared secret.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import field, frozen

from notifyd.errors import UnauthenticatedError
from notifyd.model import Principal, Via
from notifyd.text import json_object

if TYPE_CHECKING:
    from notifyd.security.jose import PublicKey

_RSA_BITS: Final = 2048
"""The least that RFC 7518, section 3.3, allows for RS256."""

_LATEST: Final = 2**53

INVALID: Final = "the bearer token is not valid"
"""What is said of a token whose signature does not hold, whatever the reason."""

_KEYS_LIMIT: Final = 100

_TYPES: Final = frozenset({"jwt", "at+jwt"})
"""`typ` of an access token (RFC 9068) or of a JWT as such; it may be left out. Other kinds serve other ends."""


# --- keys ----------------------------------------------------------------------------------------------------


@frozen
class VerifyingKey:
    """A public key, its id if it has one, and the algorithms that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey = field(repr=False, eq=False)


@frozen
class KeySet:
    keys: tuple[VerifyingKey, ...] = ()

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """The keys of a JWK Set (RFC 7517) that can verify a signature; others are passed over.

        Raises ValueError where `text` is none, or holds none of them.
        """
        try:
            document = json.loads(text)
            given = document["keys"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("is not a JSON Web Key Set") from None
        if not isinstance(given, list) or len(given) > _KEYS_LIMIT:
            raise ValueError(f"is not a JSON Web Key Set of at most {_KEYS_LIMIT} keys")
        keys = tuple(key for entry in given if (key := _verifying_key(entry)) is not None)
        if not keys:
            raise ValueError("holds no key for RS256, PS256, ES256 or EdDSA")
        return cls(keys)

    def knows(self, kid: str) -> bool:
        return any(key.kid == kid for key in self.keys)

    def choose(self, kid: str | None, algorithm: str) -> VerifyingKey | None:
        """The one key that a token's header may mean: by its id, or as the only one for the algorithm."""
        fit = [key for key in self.keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return fit[0] if len(fit) == 1 else None


def _verifying_key(entry: Any) -> VerifyingKey | None:
    """None for a key of another kind or use, for one that is too weak, and for what is none."""
    try:
        return _read_key(entry)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _read_key(entry: Mapping[str, Any]) -> VerifyingKey | None:
    """Private members are not read. Raises whatever an odd document brings about."""
    kid = entry.get("kid")
    kind = (entry["kty"], None if entry["kty"] == "RSA" else entry["crv"])
    algorithms, members = _KINDS[kind]
    algorithms &= {entry["alg"]} if "alg" in entry else algorithms
    usable = (
        algorithms and _may_verify(entry) and isinstance(kid, str | None) and not _short(entry.get("n", ""))
    )
    if not usable:
        return None
    from notifyd.security import jose

    return VerifyingKey(kid, algorithms, jose.public_key({name: entry[name] for name in members}))


def _short(modulus: str) -> bool:
    """Is it that of a weak key of RSA? Other keys have an empty one."""
    number = int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)))
    return 0 < number.bit_length() < _RSA_BITS


def _may_verify(entry: Mapping[str, Any]) -> bool:
    return entry.get("use", "sig") == "sig" and "verify" in entry.get("key_ops", ["verify"])


_KINDS: Final[Mapping[tuple[Any, Any], tuple[frozenset[str], Sequence[str]]]] = {
    ("RSA", None): (frozenset({"RS256", "PS256"}), ("kty", "n", "e")),
    ("EC", "P-256"): (frozenset({"ES256"}), ("kty", "crv", "x", "y")),
    ("OKP", "Ed25519"): (frozenset({"EdDSA"}), ("kty", "crv", "x")),
}
"""By type and curve: the algorithms, and the members that make such a key."""

ALGORITHMS: Final = frozenset[str]().union(*(algorithms for algorithms, _ in _KINDS.values()))


# --- tokens --------------------------------------------------------------------------------------------------


@frozen
class Header:
    """What a token says of its own signature."""

    algorithm: str
    kid: str | None


def read_header(token: str) -> Header | None:
    """The header of a token that is a JWT such as is taken here; None for anything else. Nothing is proved yet."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    header = _document(parts[0])
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    # Whatever is critical (RFC 7515, section 4.1.11) is understood by nobody here.
    if not isinstance(algorithm, str) or not isinstance(kid, str | None) or not isinstance(kind, str):
        return None
    if algorithm not in ALGORITHMS or "crit" in header or "b64" in header:
        return None
    return Header(algorithm, kid) if kind.lower().removeprefix("application/") in _TYPES else None


def _document(part: str) -> dict[str, Any]:
    """The JSON object in a part of a token; empty where there is none."""
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return {}
    return json_object(decoded)


@frozen
class Expected:
    """What a token must say. Times in seconds since the epoch, `tolerance` in seconds."""

    issuer: str
    audience: str
    now: float
    tolerance: float


def verify(token: str, keys: KeySet, expected: Expected) -> Mapping[str, Any]:
    """The claims of a token that one of `keys` has signed. Raises `UnauthenticatedError`."""
    header = read_header(token)
    key = keys.choose(header.kid, header.algorithm) if header is not None else None
    if header is None or key is None:
        raise UnauthenticatedError(INVALID)
    from notifyd.security import jose  # a key has brought it

    try:
        claims = json_object(jose.verify(token, key.key, header.algorithm))
    except (ValueError, TypeError):
        raise UnauthenticatedError(INVALID) from None
    _check(claims, expected)
    return claims


def _check(claims: Mapping[str, Any], expected: Expected) -> None:
    """Whoever gets here holds a token that the issuer has signed, and may know what is wrong with it."""
    audience = claims.get("aud")
    if claims.get("iss") != expected.issuer:
        raise UnauthenticatedError("the token is from another issuer")
    if expected.audience not in (audience if isinstance(audience, list) else [audience]):
        raise UnauthenticatedError("the token is for another audience")
    if "exp" not in claims:
        raise UnauthenticatedError("the token has no exp, and so no end")
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(type(time) in (int, float) and 0 <= time < _LATEST for time in times.values()):
        raise UnauthenticatedError("exp, nbf and iat of a token are seconds since 1970")
    if not times["exp"] > expected.now - expected.tolerance:
        raise UnauthenticatedError("the token has expired")
    if not max(times.get("nbf", 0), times.get("iat", 0)) <= expected.now + expected.tolerance:
        raise UnauthenticatedError("the token is not valid yet: check both clocks")


# --- principals ----------------------------------------------------------------------------------------------


@frozen
class ClaimNames:
    """Which claims name the tenants, the grants and the actor."""

    tenant: str
    grants: str
    actor: str


def principal_of(claims: Mapping[str, Any], names: ClaimNames, known_scopes: Iterable[str]) -> Principal:
    """Whom a verified token proves. Raises `UnauthenticatedError` where it names nobody.

    Its client is `client_id` (RFC 9068), else `azp` (OpenID Connect), else `sub`. Its scopes are those of `scope`
    (RFC 8693, section 4.2) or `scp` that are known here.
    """
    client = next((claims[name] for name in ("client_id", "azp", "sub") if name in claims), None)
    if not isinstance(client, str) or not client:
        raise UnauthenticatedError("the token names no client: it has neither client_id nor azp nor sub")
    scopes = frozenset(known_scopes) & {*_words(claims.get("scope", claims.get("scp")))}
    grants = claims.get(names.grants)
    return Principal(
        name=f"jwt:{client}",
        via=Via.JWT,
        scopes=scopes,
        grants=scopes | {*_texts(grants)},
        tenants=tuple(dict.fromkeys(_texts(claims.get(names.tenant)))),
        actor=actor_of(claims, names.actor),
    )


def actor_of(claims: Mapping[str, Any], name: str) -> str:
    """ "" where the token names nobody. An address that its issuer has not verified is nobody's."""
    actor = claims.get(name)
    unverified = name == "email" and claims.get("email_verified", True) is not True
    return actor if isinstance(actor, str) and not unverified else ""


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else _texts(value)


def _texts(value: Any) -> list[str]:
    """One text or several, as claims have them."""
    several = value if isinstance(value, list) else [value]
    return [text for text in several if isinstance(text, str) and text]
