"""What a server's answer means: its reply code (RFC 5321, 4.2) and its enhanced status code (RFC 3463).

The words are those of IANA's registry, "SMTP Enhanced Status Codes" (RFC 5248).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import frozen

from notifyd.plugin import Reason

# At the beginning of a line; some servers put a "#" before it.
_ENHANCED: Final = re.compile(r"^#?([245])\.(\d{1,3}\.\d{1,3})(?![\d.])", re.MULTILINE)

_WORDS: Final[Mapping[str, str]] = {
    "1.0": "other address status",
    "1.1": "bad destination mailbox address",
    "1.2": "bad destination system address",
    "1.3": "bad destination mailbox address syntax",
    "1.4": "destination mailbox address ambiguous",
    "1.5": "destination address valid",
    "1.6": "destination mailbox has moved, no forwarding address",
    "1.7": "bad sender's mailbox address syntax",
    "1.8": "bad sender's system address",
    "1.9": "message relayed to non-compliant mailer",
    "1.10": "recipient address has null MX",
    "2.0": "other or undefined mailbox status",
    "2.1": "mailbox disabled, not accepting messages",
    "2.2": "mailbox full",
    "2.3": "message length exceeds administrative limit",
    "2.4": "mailing list expansion problem",
    "3.0": "other or undefined mail system status",
    "3.1": "mail system full",
    "3.2": "system not accepting network messages",
    "3.3": "system not capable of selected features",
    "3.4": "message too big for system",
    "3.5": "system incorrectly configured",
    "3.6": "requested priority was changed",
    "4.0": "other or undefined network or routing status",
    "4.1": "no answer from host",
    "4.2": "bad connection",
    "4.3": "directory server failure",
    "4.4": "unable to route",
    "4.5": "mail system congestion",
    "4.6": "routing loop detected",
    "4.7": "delivery time expired",
    "5.0": "other or undefined protocol status",
    "5.1": "invalid command",
    "5.2": "syntax error",
    "5.3": "too many recipients",
    "5.4": "invalid command arguments",
    "5.5": "wrong protocol version",
    "5.6": "authentication exchange line is too long",
    "6.0": "other or undefined media error",
    "6.1": "media not supported",
    "6.2": "conversion required and prohibited",
    "6.3": "conversion required but not supported",
    "6.4": "conversion with loss performed",
    "6.5": "conversion failed",
    "6.6": "message content not available",
    "6.7": "non-ASCII addresses not permitted for that sender or recipient",
    "6.8": "UTF-8 string reply is required, but not permitted by the SMTP client",
    "6.9": "UTF-8 header message cannot be transferred to one or more recipients",
    "6.10": "UTF-8 string reply is required, but not permitted by the SMTP client",
    "7.0": "other or undefined security status",
    "7.1": "delivery not authorized, message refused",
    "7.2": "mailing list expansion prohibited",
    "7.3": "security conversion required but not possible",
    "7.4": "security features not supported",
    "7.5": "cryptographic failure",
    "7.6": "cryptographic algorithm not supported",
    "7.7": "message integrity failure",
    "7.8": "authentication credentials invalid",
    "7.9": "authentication mechanism is too weak",
    "7.10": "encryption needed",
    "7.11": "encryption required for requested authentication mechanism",
    "7.12": "a password transition is needed",
    "7.13": "user account disabled",
    "7.14": "trust relationship required",
    "7.15": "priority level is too low",
    "7.16": "message is too big for the specified priority",
    "7.17": "mailbox owner has changed",
    "7.18": "domain owner has changed",
    "7.19": "RRVS test cannot be completed",
    "7.20": "no passing DKIM signature found",
    "7.21": "no acceptable DKIM signature found",
    "7.22": "no valid author-matched DKIM signature found",
    "7.23": "SPF validation failed",
    "7.24": "SPF validation error",
    "7.25": "reverse DNS validation failed",
    "7.26": "multiple authentication checks failed",
    "7.27": "sender address has null MX",
    "7.28": "mail flood detected",
    "7.29": "ARC validation failure",
    "7.30": "REQUIRETLS support required",
}

_PASSING: Final = frozenset({"2.2", "3.1", "4.1", "4.2", "4.3", "4.5", "4.7"})
"""What RFC 3463 knows as transient only, whatever the class in which a server reports it."""

_LOGIN: Final = frozenset({530, 534, 535, 538})  # RFC 4954, 6, and RFC 3207, 4

_PERMANENT: Final[Mapping[str, Reason]] = {
    **dict.fromkeys(("1.0", "1.1", "1.2", "1.3", "1.4", "1.6", "1.10", "2.1"), Reason.NOT_FOUND),
    **dict.fromkeys(("7.17", "7.18"), Reason.NOT_FOUND),
    **dict.fromkeys(("2.3", "3.4", "7.16"), Reason.TOO_LARGE),
    **dict.fromkeys(("7.8", "7.9", "7.11", "7.12", "7.13", "7.14"), Reason.UNAUTHORIZED),
    **dict.fromkeys(("3.3", "6.7", "6.8", "6.9", "6.10"), Reason.UNSUPPORTED),
    **dict.fromkeys(("7.3", "7.4", "7.6", "7.30"), Reason.UNSUPPORTED),
}
"""By detail; any other of subject 7, security and policy, is `policy`, and all else `rejected`."""

_PERMANENT_REPLIES: Final[Mapping[int, Reason]] = {
    523: Reason.TOO_LARGE,
    552: Reason.TOO_LARGE,
    556: Reason.NOT_FOUND,  # RFC 7504, 4
}
"""Where no detail tells more."""

_TRANSIENT: Final[Mapping[str, Reason]] = {
    "2.2": Reason.MAILBOX_FULL,
    "3.2": Reason.THROTTLED,
    "4.5": Reason.THROTTLED,
    "5.3": Reason.THROTTLED,
}
"""By detail; subject 7 is `throttled` (greylisting, too much in too short a time), and all else `server_error`."""


class About(Enum):
    """Which command an answer was given to."""

    SENDER = "MAIL"
    RECIPIENT = "RCPT"
    OTHER = "any other, and the greeting"


@frozen
class Answer:
    """What a server said, and what it means. `said` is the code and its words, for a person."""

    transient: bool
    reason: Reason
    said: str


def read(code: int, text: str, about: About = About.OTHER) -> Answer:
    """The meaning of a reply `code` (4yz or 5yz) with the lines of its `text`.

    Of several lines the first with an enhanced code counts (RFC 2034, 4). A server that breaks the protocol
    may give another class in it: then the reply code has the word.
    """
    found = _ENHANCED.search(text)
    detail = ".".join(str(int(number)) for number in found[2].split(".")) if found else ""
    said = f"{code} {found[1]}.{detail}" if found else f"{code}"
    if not detail and code == 552 and about is About.RECIPIENT:
        detail = "2.2"  # RFC 5321, 4.2.3: the size of a message is judged elsewhere
    words = f" ({_WORDS[detail]})" if detail in _WORDS else ""
    transient = code < 500 or detail in _PASSING
    reason = _transient(code, detail) if transient else _permanent(code, detail, about)
    return Answer(transient, reason, said + words)


def _transient(code: int, detail: str) -> Reason:
    if detail.startswith("7.") and code != 454:  # RFC 4954: the server cannot check a password at the moment
        return Reason.THROTTLED
    return _TRANSIENT.get(detail, Reason.SERVER_ERROR)


def _permanent(code: int, detail: str, about: About) -> Reason:
    if code in _LOGIN:
        return Reason.UNAUTHORIZED
    if about is About.SENDER and detail.startswith("1."):
        return Reason.REJECTED  # it is the sender's address that is bad
    if detail in _PERMANENT:
        return _PERMANENT[detail]
    if detail.startswith("7."):
        return Reason.POLICY
    vague = not detail or detail.endswith(".0")
    return _PERMANENT_REPLIES.get(code, Reason.REJECTED) if vague else Reason.REJECTED
