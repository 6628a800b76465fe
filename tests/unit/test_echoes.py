"""What repeats a secret is known for it, however it is written."""

from __future__ import annotations

import base64
import html
import json
import quopri
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.security.redact import Redactor
from notifyd.security.secrets import Secret

TOKEN = "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"
LINK = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..8q1Zr-0vKx_w2sLt.Yb3nUeQ7-mWc5xPoH_dA1.kJ9fT2"

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "percent, every character": lambda text: "".join(f"%{ord(sign):02x}" for sign in text),
    "percent, some characters": lambda text: text.replace("3", "%33").replace("e", "%65"),
    "percent twice": lambda text: quote("".join(f"%{ord(sign):02X}" for sign in text)),
    "JSON": lambda text: json.dumps("".join(f"\\u{ord(sign):04x}" for sign in text)),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"token": text.replace("_", "\\u005f")})),
    "entities": lambda text: "".join(f"&#{ord(sign)};" for sign in text),
    "hexadecimal entities": lambda text: "".join(f"&#x{ord(sign):x};" for sign in text),
    "named entities": lambda text: html.escape(text).replace("_", "&lowbar;"),
    "base64 of 1": lambda text: base64.b64encode(b"a" + text.encode()).decode(),
    "base64 of 2": lambda text: base64.b64encode(b"ab" + text.encode() + b"c").decode(),
    "base64 of 3": lambda text: base64.b64encode(b"abc" + text.encode()).decode(),
    "base64 in a word": lambda text: "said:x" + base64.urlsafe_b64encode(text.encode()).decode() + "y",
    "base64 in lines": lambda text: base64.encodebytes((text * 3).encode()).decode(),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "base64, percent": lambda text: quote(base64.b64encode(text.encode()), safe=""),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, one digit before": lambda text: "0x0" + text.encode().hex().upper(),
    "hexadecimal, in pairs": lambda text: text.encode().hex(":"),
    "hexadecimal, as a list": lambda text: ", ".join(f"0x{byte:02X}" for byte in text.encode()),
    "a list of bytes": lambda text: json.dumps({"type": "Buffer", "data": list(text.encode())}),
    "bytes as Go prints them": lambda text: str(list(text.encode())).replace(",", ""),
    "octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "base64 as a list of bytes": lambda text: str(list(base64.b64encode(text.encode()))),
    "quoted-printable": lambda text: (
        quopri.encodestring(text.encode(), quotetabs=True).decode().replace("3", "=33")
    ),
    "with spaces": " ".join,
    "upper case": str.upper,
}


@pytest.mark.parametrize("secret", [TOKEN, LINK])
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_a_secret_is_known_in_any_encoding(secret: str, encode: Callable[[str], str]) -> None:
    text = f'HTTP 400: {{"got": "{encode(secret)}"}} is not understood'
    assert Redactor().echoed(text, [secret])
    assert Redactor([Secret(secret)]).echoed(text)
    assert not Redactor().echoed(text)


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_what_is_no_secret_is_kept_in_any_encoding(encode: Callable[[str], str]) -> None:
    ordinary = (
        "The service is down for maintenance until 04:00 UTC; see https://status.acme.example/incidents"
    )
    secrets = [Secret(TOKEN), Secret("https://hooks.acme.example/services/T00000000/XXXXXXXXXXXXXXXXXXXX")]
    assert not Redactor(secrets).echoed(encode(ordinary), [LINK])
    assert not Redactor(secrets).echoed("POST https://hooks.acme.example/services/ failed")


def test_a_piece_of_a_secret_is_as_good_as_the_whole() -> None:
    assert Redactor().echoed(f"...{TOKEN[5:20]}", [TOKEN])
    assert not Redactor().echoed(f"...{TOKEN[5:12]}", [TOKEN])
    assert Redactor([Secret("hunter22")]).echoed("aHVudGVyMjIK is the password")


@given(st.text(max_size=300) | st.text("%&#x;\\u=aA0/+ ", max_size=300))
def test_any_text_is_judged(text: str) -> None:
    assert Redactor([Secret("vvvvvvvvvvvv")]).echoed(text + " vvvvvvvvvvvv")
    Redactor([Secret("v" * 40)]).echoed(text, ["w" * 40])
