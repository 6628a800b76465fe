"""One form for each name: what differs in spelling is one person, what a reader cannot tell apart is refused."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifyd.security.names import canonical_name, name_fault

ALICE = "alice@acme.example"

SPELLINGS = {
    ALICE: [
        "Alice@ACME.example",
        " alice@acme.example ",
        "Alice <alice@acme.example>",
        "<alice@acme.example>",
        '"Mallory\r\n" <alice@acme.example>',
        '"alice"@acme.example',
        '"\\a\\l\\i\\c\\e"@acme.example',
        "alice@acme.example(ops)",
        "alice(the (very) boss)@(at)acme.example",
        "ａｌｉｃｅ＠ａｃｍｅ.example",
        "alice@acme。example",
        "alice@ac\u00adme.example",
    ],
    "zoë@xn--mnchen-3ya.example": [
        "Zoe\u0308@München.example",
        "zoë@mu\u0308nchen.example",
        "ZOË@XN--MNCHEN-3YA.EXAMPLE",
    ],
    "straße@xn--fa-hia.example": ["Straße@Faß.example"],
    "ångström": ["\u212bngström", "A\u030angstro\u0308m"],
    "почта@xn--e1afmkfd.xn--p1ai": ["Почта@ПРИМЕР.рф"],
    "山田たろう": ["山田たろう"],
    "kelvin": ["\u212aelvin"],
    "أحمد": ["أحمد"],
    "client:console": ["Client:Console", "ｃlient：console"],
    "00u1ab": ["00U1AB"],
    "jane doe": ["Jane  Doe"],
    "@alice": ["＠Alice"],
}


@pytest.mark.parametrize(
    ("name", "spelling"), [(n, s) for n, spellings in SPELLINGS.items() for s in spellings]
)
def test_what_differs_only_in_spelling_is_one_name(name: str, spelling: str) -> None:
    assert canonical_name(spelling) == name
    assert canonical_name(name) == name


REFUSED = {
    "zero-width": ["ali\u200bce", "ali\u200cce@acme.example", "alice\u2060", "\ufeffalice"],
    "soft hyphen": ["ali\u00adce", "ali\u00adce@acme.example"],
    "bidi marks": ["\u202ealice", "alice\u200f@acme.example", "\u2066alice\u2069"],
    "control": [
        "alice\n",
        "alice@acme.example\n",
        "alice\r\n@acme.example",
        "ali\x00ce",
        "ali\u0085ce@acme.example",
    ],
    "space": ["ali\u00a0ce", "alice\u2003", "alice @acme.example"],
    "compatibility": ["ﬁona", "ⅷ", "𝐚lice", "ⓐlice", "alice﹫acme.example"],
    "mixed scripts": [
        "аlice",
        "аlice@acme.example",
        "alice@аcme.example",
        "alicе",
        "αlice",
        "ali٣",
        "имя.name",
    ],
    "confusables": [
        "ѕсоре",
        "ѕсоре@acme.example",
        "alıce",
        "ɑlice@acme.example",
        "ооо1",
        "alice@ѕсоре.example",
    ],
    "marks": ["ali\u0307ce", "a\u0338lice", "alice\u0336", "alice\u20e3", "alice\ufe0f"],
    "scripts of no living use": ["ꮯꮮꭵꮯꭼ", "ⲁⲗⲓⲥⲉ", "ꓮꓡꓲꓚꓰ"],
    "no mailbox": [
        "a@b@c.example",
        "alice@",
        "alice@acme..example",
        "alice@acme.example.",
        '"a b"@acme.example',
        "a@b, c@d",
    ],
    "nothing": ["", " ", "x" * 501],
}


@pytest.mark.parametrize("name", [name for names in REFUSED.values() for name in names])
def test_a_name_that_a_reader_cannot_tell_from_another_is_refused(name: str) -> None:
    fault = name_fault(name)
    assert fault
    assert not name.strip() or name not in fault


def test_a_letter_that_only_looks_like_one_of_ascii_may_stand_among_others() -> None:
    assert canonical_name("ışık") == "ışık"
    assert canonical_name("сорока") == "сорока"
    assert canonical_name("γιάννης") == "γιάννης"


@given(
    st.text(st.characters(codec="utf-8"), max_size=30)
    | st.from_regex(r"\A[a-zß-ÿа-яｱ-ﾝ.@]{1,12}@[a-zß-ÿ]{1,9}\Z")
)
@example("İ@acme.example")
@example("ΣΊΣΥΦΟΣ")
def test_a_canonical_name_is_its_own_whatever_normal_form_it_comes_in(name: str) -> None:
    forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    if name_fault(name) is None:
        known = canonical_name(name)
        assert {canonical_name(form) for form in [*forms, known]} == {known}
        assert unicodedata.is_normalized("NFC", known)
