"""Certificate authorities of one's own, trusted beside the system's."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final, Self

from attrs import field, frozen

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_SIZE_LIMIT: Final = 4 * 1024 * 1024


@frozen
class CaFile:
    """A PEM file of certificates, as it was when the configuration was read.

    As the type of an option it is written as the file's path.
    """

    path: Path
    certificates: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ValueError that names the file. Anything in it but certificates is passed over."""
        try:
            if path.exists() and not path.is_file():
                raise ValueError(f"{path} is not a file")
            with path.open("rb") as file:
                found = _CERTIFICATE.findall(file.read(_SIZE_LIMIT))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        made = cls(path, b"\n".join(found).decode("ascii", "replace"))
        made._check()
        return made

    def _check(self) -> None:
        if not self.certificates:
            raise ValueError(f"{self.path} holds no certificate in PEM")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=self.certificates)
        except (ssl.SSLError, TypeError, ValueError):  # of which depends on what is in it
            raise ValueError(f"{self.path} holds a certificate that cannot be read") from None

    def context(self) -> ssl.SSLContext:
        """A client's context that trusts these and the system's. Reads files, so it belongs off the loop."""
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self.certificates)
        return context


def trusting_only(cert: Path) -> ssl.SSLContext:
    """A client's context that takes the first certificate in `cert`, under any name, and no other one.

    For calls to one's own service where it listens: its certificate is for the name that others call it by. Raises
    ValueError that names the file.
    """
    certificates = CaFile.read(cert).certificates
    leaf = _CERTIFICATE.findall(certificates.encode())[0].decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=leaf)
    return context


def trusting_anything() -> ssl.SSLContext:
    """A client's context that checks no certificate: for what holds no secret, on one's own machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
