"""Mail addresses: read from a configuration, an event or a message, and written in one form."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from notifyd.hosts import ascii_host

TEXT_LIMIT: Final = 500
LOCAL_LIMIT: Final = 64  # octets: RFC 5321, 4.5.3.1.1

# RFC 5321's Dot-string or Quoted-string; RFC 6531 adds what is not ASCII.
_ATOM: Final = r"[\u0080-\U0010ffffA-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED_STRING: Final = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])*"')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@frozen
class Mailbox:
    """An address that can stand in a header and on the wire. `domain` is in its ASCII form.

    `local` is quoted only where it has to be.
    """

    name: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        return f"{self.local}@{self.domain}"


def mailbox(text: str) -> Mailbox:
    """The one address in `text`, which may be `Name <address>`. Raises ValueError where there is none.

    The name may hold any printable character; quotes, angle brackets and @ stand in a quoted name only, as
    they are more likely a second address, or a slip. Comments of the address (RFC 5322, 3.2.2) are left out.
    """
    text = text.strip(" ")
    try:
        if not text.isprintable() or len(text) > TEXT_LIMIT:
            raise ValueError
        name, address = _parts(text)
        return _read(_name(name), address)
    except ValueError:
        raise ValueError(_FAULT) from None


def bare_mailbox(text: str) -> Mailbox:
    """The address in `text` as `mailbox` reads it, without a name, whatever that holds. Raises ValueError."""
    try:
        return _read("", _parts(text)[1])
    except ValueError:
        raise ValueError(_FAULT) from None


_FAULT: Final = "not one e-mail address"


def _read(name: str, address: str) -> Mailbox:
    local, _, domain = address.rpartition("@")
    return Mailbox(name, _local(local), _domain(domain))


def _parts(text: str) -> tuple[str, str]:
    """Name and address, the address without brackets and comments."""
    name, bracket, address = text.rpartition("<")
    if bracket and (address := _without_comments(address)).endswith(">"):
        return name.strip(" "), address[:-1]
    return "", _without_comments(text)


def _without_comments(text: str) -> str:
    kept: list[str] = []
    depth, quoted, escaped = 0, False, False
    for sign in text:
        if not depth and (quoted or sign != "("):
            kept.append(sign)
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == '"' and not depth:
            quoted = not quoted
        elif sign == "(" and not quoted:
            depth += 1
        elif sign == ")" and depth:
            depth -= 1
    if depth:
        raise ValueError
    return "".join(kept).strip(" ")


def _name(text: str) -> str:
    if quoted := _QUOTED.fullmatch(text):
        return _unescaped(quoted[1])
    if re.search(r'["<>@]', text):
        raise ValueError
    return text


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _local(text: str) -> str:
    local = unicodedata.normalize("NFC", text)  # RFC 6532, 3.1
    if _QUOTED_STRING.fullmatch(local) and _DOT_STRING.fullmatch(plain := _unescaped(local[1:-1])):
        local = plain  # the same local part: RFC 5321, 4.1.2
    if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise ValueError
    if len(local.encode()) > LOCAL_LIMIT:
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
