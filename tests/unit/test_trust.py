"""Files of certificate authorities: what is taken from them, and how one that is none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from notifyd.config import load as config
from notifyd.config.describe import describe, secrets
from notifyd.errors import ConfigError
from notifyd.registry.discovery import discover
from notifyd.trust import CaFile
from tests.authority import Authority

AUTHORITY = Authority()

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read: No such file or directory"),
    "a folder": (Path.mkdir, "is not a file"),
    "below a file": (lambda path: path.parent.joinpath("x").touch(), "cannot be read: No such file"),
    "empty": (Path.touch, "holds no certificate in PEM"),
    "text": (lambda path: path.write_text("trust me"), "holds no certificate in PEM"),
    "DER": (lambda path: path.write_bytes(b"\x30\x82\x01\x00" * 100), "holds no certificate in PEM"),
    "cut": (lambda path: path.write_bytes(AUTHORITY.pem[:300]), "holds no certificate in PEM"),
    "broken": (
        lambda path: path.write_bytes(AUTHORITY.pem.replace(b"M", b"!", 1)),
        "holds a certificate that cannot be read",
    ),
    "no certificate inside": (
        lambda path: path.write_bytes(b"-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----"),
        "holds a certificate that cannot be read",
    ),
    "not ASCII inside": (
        lambda path: path.write_bytes(AUTHORITY.pem.replace(b"M", b"\xff", 1)),
        "holds a certificate that cannot be read",
    ),
}


@pytest.mark.parametrize(("make", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_cannot_be_trusted_is_a_fault_that_names_it(
    make: Callable[[Path], object], fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    make(path)
    with pytest.raises(ValueError, match=rf"^{path} {fault}"):
        CaFile.read(path)


def test_a_file_may_hold_several_certificates_comments_and_what_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    secret = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    path.write_bytes("# Größte Autorität\n".encode() + AUTHORITY.pem + secret + Authority("Another").pem)
    found = CaFile.read(path)
    assert "PRIVATE" not in found.certificates
    names = {str(known["subject"]) for known in found.context().get_ca_certs()}
    assert sum("An authority" in name or "Another" in name for name in names) == 2
    assert len(names) >= 2
    assert "BEGIN" not in repr(found)


def test_what_is_trusted_comes_beside_the_systems_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority("The system").write(tmp_path / "system.pem")))
    found = CaFile.read(AUTHORITY.write(tmp_path / "ca.pem"))
    subjects = str([known["subject"] for known in found.context().get_ca_certs()])
    assert "The system" in subjects
    assert "An authority" in subjects


def test_a_file_that_changed_is_another_value(tmp_path: Path) -> None:
    path = AUTHORITY.write(tmp_path / "ca.pem")
    before = CaFile.read(path)
    assert before == CaFile.read(path)
    Authority().write(path)
    assert before != CaFile.read(path)


CONFIG = """
[egress]
tls_ca = "{file}"
[channels.hook]
type = "webhook"
url = "https://hook.example/"
tls_ca = "{file}"
[channels.mail]
type = "email"
host = "smtp.acme.example"
from = "notifyd@acme.example"
tls_ca = "{file}"
"""
PLACES = ("channels.hook.tls_ca", "channels.mail.tls_ca", "egress.tls_ca")


def test_a_configuration_names_each_missing_file_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "notifyd.toml"
    file.write_text(CONFIG.format(file="nowhere.pem"))
    with pytest.raises(ConfigError) as caught:
        config.read(file, discover().brought, {}).whole()
    wrong = {fault.pointer: fault.message for fault in caught.value.faults}
    missing = f"{tmp_path / 'nowhere.pem'} cannot be read: No such file or directory"
    assert {place: wrong.get(place) for place in PLACES} == dict.fromkeys(PLACES, missing)


def test_a_relative_path_starts_from_the_configurations_folder_and_is_told_back(tmp_path: Path) -> None:
    path = AUTHORITY.write(tmp_path / "ca.pem")
    file = tmp_path / "notifyd.toml"
    file.write_text(CONFIG.format(file="ca.pem") + f"[keys]\nseal = ['{'A' * 43}=']\n")
    settings = config.read(file, discover().brought, {}).whole()
    told = describe(settings)
    assert told["egress"]["tls_ca"] == told["channels"]["hook"]["tls_ca"] == str(path)
    assert told["channels"]["mail"]["tls_ca"] == str(path)
    assert not any("CERTIFICATE" in secret.reveal() for secret in secrets(settings))
