"""`[server.tls]` as what callers' handshakes are answered with."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from notifyd.config.settings import Tls
from notifyd.errors import ConfigError, Fault
from notifyd.trust import CaFile

if TYPE_CHECKING:
    from cryptography import x509

T = TypeVar("T")

log = logging.getLogger(__name__)


class ServerContext(ssl.SSLContext):
    """A server's context that remembers whose certificates of clients it takes."""

    client_ca: CaFile | None


def server_context(tls: Tls) -> ServerContext | None:
    """None where `tls` names no certificate. Reads files, so it belongs off the loop.

    TLS 1.2 at least. With `client_ca`, a caller may show a certificate, and need not: an approver's browser
    has none. Raises `ConfigError`.
    """
    if tls.cert is None:
        return None
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.client_ca = tls.client_ca
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, tls.cert, tls.key)
    if tls.client_ca is not None:
        context.load_verify_locations(cadata=tls.client_ca.certificates)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    from cryptography import x509  # 50 modules, which a service without TLS does without

    chain = _read("cert", cert, x509.load_pem_x509_certificates, "holds no certificate in PEM")
    _read("key", key or cert, _private_key, "holds no private key in PEM that can be read without a password")
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")  # nosec B106 # none, and not a secret
    except ssl.SSLError as error:
        refused = "is not the key of the certificate" if error.reason == "KEY_VALUES_MISMATCH" else str(error)
        raise _fault("key", f"{key or cert} {refused}") from None
    _warn(cert, chain[0])


def _private_key(pem: bytes) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    load_pem_private_key(pem, password=None)


def _read(option: str, path: Path, parse: Callable[[bytes], T], refused: str) -> T:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise _fault(option, f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):  # the latter where a key is encrypted
        raise _fault(option, f"{path} {refused}") from None


def _fault(option: str, message: str) -> ConfigError:
    return ConfigError([Fault(f"server.tls.{option}", message)])


def _warn(path: Path, certificate: x509.Certificate) -> None:
    """A certificate out of its time is taken: callers refuse it, and a start that does so too helps nobody."""
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= datetime.now(UTC) <= until:
        log.warning("%s is valid from %s to %s, which is not now", path, since, until)
