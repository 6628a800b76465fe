"""JSON is read strictly, written canonically, and instants keep their microseconds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import assume, example, given
from hypothesis import strategies as st

from notifyd.errors import Fault, InvalidError, MalformedError
from notifyd.wire.codec import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_ITEMS,
    MAX_STRING,
    canonical,
    derived_id,
    loads,
    parse_instant,
    rfc3339,
)

# JSON as `loads` gives it. The reference writer takes ±2^53 only as floats, so integers stay below.
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER + 1, MAX_INTEGER - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS
)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXTS, inner, max_size=5),
    max_leaves=25,
)


def _faults(raw: bytes) -> list[Fault]:
    with pytest.raises(InvalidError) as caught:
        loads(raw)
    return list(caught.value.faults)


# --- reading -----------------------------------------------------------------------------------------------


@given(
    _JSON,
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\n: ")]),
)
def test_any_json_is_read_whatever_its_layout(
    value: Any, indent: int | None, ascii_only: bool, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=separators)
    assert loads(text.encode()) == value


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1"),
        (b'{"a": 1,}', "line 1, column 8"),
        (b'{\n  "a": tru}', "line 2"),
        (b'{"a": NaN}', "line 1, column 7"),
        (b'{"a": Infinity}', "line 1, column 7"),
        (b'{"a": 01}', "line 1"),
        (b"{'a': 1}", "line 1, column 2"),
        (b'"\xff"', "line 1"),
        (b'"\xed\xa0\x80"', "line 1"),
        (b'"\\ud800"', "line 1"),
        (b'"a\nb"', "line 1"),
        (b"\xef\xbb\xbf{}", "line 1, column 1"),
        (b"{} {}", "line 1, column 4"),
    ],
)
def test_what_is_not_json_is_malformed_with_its_place(raw: bytes, place: str) -> None:
    with pytest.raises(MalformedError, match="is not JSON") as caught:
        loads(raw)
    assert place in caught.value.detail


@pytest.mark.parametrize("bound", [MAX_INTEGER, -MAX_INTEGER])
def test_an_integer_at_the_bound_is_read_exactly(bound: int) -> None:
    assert loads(b'{"n":%d}' % bound) == {"n": bound}


@pytest.mark.parametrize(
    "digits", ["9007199254740993", "-9007199254740993", "18446744073709551616", "1" + "0" * 300]
)
def test_an_integer_beyond_the_bound_is_refused_with_its_pointer(digits: str) -> None:
    raw = b'{"parameters": {"list": [1, %s]}}' % digits.encode()
    assert _faults(raw) == [Fault("/parameters/list/1", "must not be an integer beyond 2^53")]


@pytest.mark.parametrize("number", [b"1e400", b"-1" + b"0" * 5000])
def test_a_number_beyond_a_double_is_refused_with_its_place(number: bytes) -> None:
    assert _faults(b'{"a": %s}' % number) == [
        Fault("", "must not hold a number beyond the range of a double (line 1, column 7)")
    ]


def test_digits_in_a_string_are_no_integer() -> None:
    assert loads(b'{"account":"98765432109876543210"}') == {"account": "98765432109876543210"}


def test_a_large_number_with_an_exponent_is_a_double() -> None:
    assert loads(b"[1e300, 12345678901234567890.5]") == [1e300, 12345678901234567890.5]


def test_strings_and_names_are_bounded() -> None:
    longest = "ü" * MAX_STRING
    assert loads(json.dumps({longest: longest}, ensure_ascii=False).encode()) == {longest: longest}
    raw = json.dumps({"a": [longest + "x"], longest + "y": 1}).encode()
    assert [fault.message for fault in _faults(raw)] == [
        f"must not have a name longer than {MAX_STRING} characters",
        f"must not be longer than {MAX_STRING} characters",
    ]


def test_a_fault_does_not_repeat_a_long_name_or_text() -> None:
    raw = json.dumps({"n" * 20_000: "t" * 20_000}).encode()
    for fault in _faults(raw):
        assert len(fault.pointer) < 120
        assert len(fault.message) < 120


@pytest.mark.parametrize("layout", ["[%s]", '{"a": [%s]}'])
def test_arrays_are_bounded(layout: str) -> None:
    full = ",".join(["1"] * MAX_ITEMS)
    assert loads((layout % full).encode())
    assert [fault.message for fault in _faults((layout % (full + ",1")).encode())] == [
        f"must not have more than {MAX_ITEMS} items"
    ]


def test_objects_are_bounded() -> None:
    members = {f"m{number}": number for number in range(MAX_ITEMS)}
    assert loads(json.dumps(members).encode()) == members
    assert _faults(json.dumps({"labels": members | {"more": 1}}).encode()) == [
        Fault("/labels", f"must not have more than {MAX_ITEMS} members")
    ]


def test_nesting_is_bounded() -> None:
    assert loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert _faults(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}") == [
        Fault("/a" + "/0" * (MAX_DEPTH - 1), f"must not nest deeper than {MAX_DEPTH}")
    ]


@pytest.mark.parametrize("depth", [1_000, 1_100, 100_000])
def test_nesting_beyond_what_any_reader_takes_is_refused_too(depth: int) -> None:
    assert "nest deeper" in _faults(b"[" * depth + b"]" * depth)[0].message


def test_many_brackets_side_by_side_are_not_depth() -> None:
    assert loads(b"[" + b",".join([b"[]"] * 100) + b"]") == [[]] * 100


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"a":1,"a":1}', "/a"),
        (b'{"a" : 1, "b": {"c/d":1,"c/d":2}}', "/b/c~1d"),
        (b'{"a":1,"\\u0061":2}', "/a"),
        (b'[{"a":1}, {"a"\n:1,\t"a"\t:1}]', "/1/a"),
        # A colon within a string would make up for the lost member, were strings not counted alike.
        (b'{"a":":","a":2}', "/a"),
        (b'{"a":"\\u0022:","a":"\\":"}', "/a"),
    ],
)
def test_a_name_given_twice_is_refused(raw: bytes, pointer: str) -> None:
    assert Fault(pointer, "must not be given twice") in _faults(raw)


_SPACES = st.text(" \t\n\r", max_size=2)


@given(
    st.dictionaries(_TEXTS, _LEAVES, min_size=1, max_size=4),
    st.data(),
)
def test_a_name_given_twice_is_refused_wherever_it_stands(
    members: dict[str, Any], data: st.DataObject
) -> None:
    pairs = list(members.items())
    pairs.insert(
        data.draw(st.integers(0, len(pairs))), (data.draw(st.sampled_from(pairs))[0], data.draw(_LEAVES))
    )
    written = [
        json.dumps(name) + data.draw(_SPACES) + ":" + data.draw(_SPACES) + json.dumps(value)
        for name, value in pairs
    ]
    assert any(
        fault.message == "must not be given twice" for fault in _faults(f"{{{','.join(written)}}}".encode())
    )


def test_all_faults_of_a_document_come_at_once() -> None:
    raw = b'{"a": [99999999999999999, {"b": 1, "b": 2}], "c": "%s"}' % (b"x" * 20_000)
    assert [fault.pointer for fault in _faults(raw)] == ["/a/0", "/a/1/b", "/c"]


def test_the_number_of_faults_reported_is_bounded() -> None:
    faults = _faults(b"[" + b",".join([b"99999999999999999"] * 500) + b"]")
    assert len(faults) == 101
    assert faults[-1].message == "and 400 more faults"


# --- writing -----------------------------------------------------------------------------------------------


@given(_JSON)
@example({"\ufb33": 1, "\U0001f600": 2, "\r": 3, "1": 4, "\u0080": 5, "ö": 6, "\u20ac": 7})
@example({"a": "\U0001f600", "\ufb33": '\x7f\x80\u2028\u2029\\"/'})
@example([333333333.33333329, 1e30, 4.50, 2e-3, 1e-27, -0.0, 1e21, 1e20, 5e-324, 0.1, 1e-7, 1e-6])
@example("".join(map(chr, range(0x100))))
def test_canonical_writes_what_the_reference_writer_writes(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


def test_canonical_escapes_every_character_as_the_reference_writer_does() -> None:
    every = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    assert canonical(every) == canonical([every, 0.5])[1:-5] == rfc8785.dumps(every)


def test_canonical_gives_the_standards_own_example() -> None:
    # RFC 8785, section 3.2.2 and 3.2.3
    document = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert (
        canonical(document)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


@given(_JSON)
@example([1e17, 2.0**60, -(2.0**69), 1e20, 1e21, 1e22, 9007199254740994.0])
def test_what_is_canonical_stays_the_same_when_read_and_written_again(value: Any) -> None:
    assert canonical(orjson.loads(canonical(value))) == canonical(value)


@pytest.mark.parametrize(
    "value", [{"n": MAX_INTEGER}, [-MAX_INTEGER, 0.5], (MAX_INTEGER, {"ö\U0001f600": 1})]
)
def test_canonical_writes_an_integer_at_the_bound(value: Any) -> None:
    assert str(MAX_INTEGER) in canonical(value).decode()
    assert loads(canonical(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        MAX_INTEGER + 1,
        -(2**60),
        2**70,
        10**400,
        "\ud800",
        {"\ud800": 1},
        {1: 2},
        {1, 2},
        b"bytes",
    ],
)
def test_canonical_refuses_what_is_not_json(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical(value)


def test_a_derived_id_is_the_hash_of_the_canonical_array() -> None:
    expected = hashlib.sha256(b'["event","acme","e-1",2]').hexdigest()
    assert derived_id("event", "acme", "e-1", 2) == expected


@given(st.lists(_TEXTS, min_size=2, max_size=4), st.lists(_TEXTS, min_size=2, max_size=4))
def test_different_parts_never_join_to_one_id(one: list[str], other: list[str]) -> None:
    assume(one != other)
    assert derived_id(*one) != derived_id(*other)


# --- instants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:01.123456789Z", 1_123_456),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T18:30:00-05:30", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 00:00:00-00:00", 0),
        ("1969-12-31T23:59:59.999Z", -1_000),
        ("2024-02-29T12:00:00Z", 1_709_208_000_000_000),
    ],
)
def test_rfc_3339_is_read_to_the_microsecond(text: str, instant: int) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1709208000",
        "2024-02-29",
        "2024-02-29T12:00:00",
        "2024-02-29T12:00Z",
        "2024-02-29T12Z",
        "20240229T120000Z",
        "2024-W09-4T12:00:00Z",
        "2024-02-29T12:00:00+0100",
        "2024-02-29T12:00:00+01",
        "2024-02-29T12:00:00,5Z",
        "2024-02-29T12:00:00.Z",
        "2024-02-29T12:00:00Z\n",
        " 2024-02-29T12:00:00Z",
        "２０２４-02-29T12:00:00Z",
    ],
)
def test_other_forms_of_time_are_refused_with_the_form_to_use(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_instant(text)


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29T12:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T23:59:60Z",
        "2024-01-01T00:00:00+24:00",
        "0000-01-01T00:00:00Z",
    ],
)
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time that exists"):
        parse_instant(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_utc_cannot_write_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        parse_instant(text)


@given(st.integers(parse_instant("0001-01-01T00:00:00Z"), parse_instant("9999-12-31T23:59:59.999999Z")))
def test_an_instant_written_is_read_as_the_same(instant: int) -> None:
    assert parse_instant(rfc3339(instant)) == instant


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000, "1970-01-01T00:00:01.500Z"),
        (1_500_001, "1970-01-01T00:00:01.500001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_an_instant_is_written_in_utc_as_short_as_is_exact(instant: int, text: str) -> None:
    assert rfc3339(instant) == text
