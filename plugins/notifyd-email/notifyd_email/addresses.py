"""Mail addresses: read from a configuration or a message, and written in one form."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from notifyd.plugin import ascii_host

ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
"""RFC 5322, 3.2.3: what an atom is made of, as the inside of a character class."""

TEXT_LIMIT: Final = 500
LOCAL_LIMIT: Final = 64  # octets: RFC 5321, 4.5.3.1.1

# RFC 5321's Dot-string or Quoted-string; RFC 6531 adds what is not ASCII.
_ATOM: Final = rf"[\u0080-\U0010ffff{ATEXT}]+"
_LOCAL: Final = re.compile(rf'{_ATOM}(\.{_ATOM})*|"(?:[ !#-\[\]-~]|\\[ -~])*"')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@frozen
class Mailbox:
    """An address that can stand in a header and on the wire. `domain` is in its ASCII form."""

    name: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        return f"{self.local}@{self.domain}"


def mailbox(text: str) -> Mailbox:
    """The one address in `text`, which may be `Name <address>`. Raises ValueError where there is none.

    The name may hold any printable character; quotes, angle brackets and @ stand in a quoted name only, as
    they are more likely a second address, or a slip.
    """
    text = text.strip()
    named = text.endswith(">")
    name, _, address = text.removesuffix(">").rpartition("<") if named else ("", "", text)
    local, _, domain = address.rpartition("@")
    try:
        if not text.isprintable() or len(text) > TEXT_LIMIT:
            raise ValueError
        return Mailbox(_name(name.strip()), _local(local), _domain(domain))
    except ValueError:
        raise ValueError("not one e-mail address") from None


def _name(text: str) -> str:
    if quoted := _QUOTED.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if re.search(r'["<>@]', text):
        raise ValueError
    return text


def _local(text: str) -> str:
    local = unicodedata.normalize("NFC", text)  # RFC 6532, 3.1
    if not _LOCAL.fullmatch(local) or len(local.encode()) > LOCAL_LIMIT:
        raise ValueError
    return local


def _domain(text: str) -> str:
    """A domain name, or an address in brackets (RFC 5321, 4.1.3)."""
    if not text.startswith("["):
        if ":" in text or text.endswith("."):
            raise ValueError
        return ascii_host(text)
    literal = text.removeprefix("[").removesuffix("]")
    if literal.upper().startswith("IPV6:"):
        return f"[IPv6:{IPv6Address(literal[5:])}]"
    return f"[{IPv4Address(literal)}]"
