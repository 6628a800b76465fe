"""Records are made of documents strictly, and every fault is told with its pointer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from attrs import field, frozen
from cattrs.errors import StructureHandlerNotFoundError

from notifyd.errors import Fault, InvalidError
from notifyd.security.secrets import Secret
from notifyd.wire.records import MAX_FAULTS, Check, invalid, listed, one_of, pointer, string, structure


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def _even(value: Any, _: Any = None) -> int:
    if type(value) is not int or value % 2:
        raise ValueError("must be an even number")
    return value


@frozen
class Wheel:
    size: int
    spoke_count: Annotated[int, Check(_even)] = 32


@frozen(kw_only=True)
class Cart:
    owner: str
    colour: Annotated[Colour, Check(one_of(Colour))] = Colour.RED
    inside: Colour = Colour.RED
    stripe: Colour | None = None
    dots: tuple[Colour, ...] = ()
    wheels: tuple[Wheel, ...] = ()
    locked: bool = False
    weight: float = 1.0
    key: Secret | None = None
    spare: Wheel | None = None
    tags: Mapping[str, str] = field(factory=dict)
    wheels_by_place: Mapping[str, Wheel] = field(factory=dict)
    anything: Any = None
    free: Mapping[str, Any] = field(factory=dict)
    odd_name: str = field(default="", metadata={"wire": "odd_name"})


def _faults(document: Any, base: str = "") -> set[tuple[str, str]]:
    with pytest.raises(InvalidError) as caught:
        structure(document, Cart, base)
    assert len(set(caught.value.faults)) == len(caught.value.faults)
    return {(fault.pointer, fault.message) for fault in caught.value.faults}


def test_a_document_in_camel_case_becomes_a_record() -> None:
    document = {
        "owner": "ann",
        "colour": "blue",
        "wheels": [{"size": 20}, {"size": 26, "spokeCount": 36}],
        "locked": True,
        "weight": 2,
        "key": "k3y",
        "spare": {"size": 20},
        "tags": {"a": "b"},
        "wheelsByPlace": {"left": {"size": 1}},
        "anything": [1, {"x": None}],
        "free": {"x": [1]},
        "odd_name": "kept",
    }
    assert structure(document, Cart) == Cart(
        owner="ann",
        colour=Colour.BLUE,
        wheels=(Wheel(20), Wheel(26, 36)),
        locked=True,
        weight=2.0,
        key=Secret("k3y"),
        spare=Wheel(20),
        tags={"a": "b"},
        wheels_by_place={"left": Wheel(1)},
        anything=[1, {"x": None}],
        free={"x": [1]},
        odd_name="kept",
    )


def test_what_may_be_none_may_be_null_or_left_out() -> None:
    assert structure({"owner": "ann", "spare": None, "key": None}, Cart) == structure({"owner": "ann"}, Cart)


def test_a_member_that_is_an_enumeration_s_is_made_one_wherever_it_stands() -> None:
    document = {"owner": "ann", "inside": "blue", "stripe": "red", "dots": ["red", "blue"]}
    cart = structure(document, Cart)
    assert [cart.inside, cart.stripe, *cart.dots] == [Colour.BLUE, Colour.RED, Colour.RED, Colour.BLUE]
    assert {type(one) for one in (cart.inside, cart.stripe, *cart.dots)} == {Colour}


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("owner", 2, "must be a string, not a number"),
        ("owner", True, "must be a string, not a boolean"),
        ("owner", None, "must be a string, not null"),
        ("owner", ["ann"], "must be a string, not an array"),
        ("locked", "false", "must be a boolean, not a string"),
        ("locked", 0, "must be a boolean, not a number"),
        ("weight", "1.5", "must be a number, not a string"),
        ("weight", True, "must be a number, not a boolean"),
        ("key", 1, "must be a string, not a number"),
        ("key", "", "must not be empty"),
        ("colour", "green", "must be red or blue"),
        ("colour", {}, "must be red or blue"),
        ("inside", "green", "must be red or blue"),
        ("stripe", 3, "must be red or blue"),
        ("spare", [], "must be an object, not an array"),
        ("wheels", {}, "must be an array, not an object"),
        ("wheels", "ab", "must be an array, not a string"),
        ("wheels", None, "must be an array, not null"),
        ("tags", ["a"], "must be an object, not an array"),
        ("free", None, "must be an object, not null"),
    ],
)
def test_nothing_is_coerced(member: str, value: Any, message: str) -> None:
    assert _faults({"owner": "ann"} | {member: value}) == {(f"/{member}", message)}


@pytest.mark.parametrize("value", [1.0, 1.5, True, "1", None])
def test_an_integer_is_nothing_but_an_integer(value: Any) -> None:
    [(where, message)] = _faults({"owner": "ann", "spare": {"size": value}})
    assert where == "/spare/size"
    assert message.startswith("must be an integer, not ")


def test_every_fault_is_told_at_once() -> None:
    document = {
        "colour": "green",
        "wheels": [{"size": "big"}, 7, {"spokeCount": 3, "flat": True}],
        "tags": {"a": 1, "b/c": None},
        "wheelsByPlace": {"left~": {}, "right": {"size": 1}},
        "wheels_by_place": {},
        "Owner": "ann",
    }
    assert _faults(document) == {
        ("/owner", "is required"),
        ("/Owner", "is not a known member"),
        ("/wheels_by_place", "is not a known member"),
        ("/colour", "must be red or blue"),
        ("/wheels/0/size", "must be an integer, not a string"),
        ("/wheels/1", "must be an object, not a number"),
        ("/wheels/2/size", "is required"),
        ("/wheels/2/spokeCount", "must be an even number"),
        ("/wheels/2/flat", "is not a known member"),
        ("/tags/a", "must be a string, not a number"),
        ("/tags/b~1c", "must be a string, not null"),
        ("/wheelsByPlace/left~0/size", "is required"),
    }


def test_faults_come_in_the_order_of_the_document_and_then_of_the_record() -> None:
    document = {"zeta": 1, "tags": 1, "alpha": 1, "wheels": 1}
    with pytest.raises(InvalidError) as caught:
        structure(document, Cart)
    assert [fault.pointer for fault in caught.value.faults] == [
        "/zeta",
        "/alpha",
        "/owner",
        "/wheels",
        "/tags",
    ]


@frozen
class Sheet:
    printed_on: date


def test_a_type_that_no_document_can_become_is_refused_and_not_coerced() -> None:
    with pytest.raises(StructureHandlerNotFoundError, match=r"can become the type <class 'datetime\.date'>"):
        structure({"printedOn": 0}, Sheet)


@frozen
class Dial:
    level: Literal[False, 1, 2, "off"]


@pytest.mark.parametrize("level", [False, 1, 2, "off"])
def test_one_of_some_values_is_taken_as_it_is(level: object) -> None:
    assert structure({"level": level}, Dial).level is level


@pytest.mark.parametrize("level", [True, 0, 1.0, "1", None, [], {}])
def test_a_value_that_only_equals_one_of_them_is_not_one(level: object) -> None:
    with pytest.raises(InvalidError) as caught:
        structure({"level": level}, Dial)
    assert caught.value.faults == (Fault("/level", "must be False, 1, 2 or off"),)


def test_members_beginning_x_are_let_through_everywhere() -> None:
    document = {"owner": "ann", "x-trace": 1, "x-": None, "spare": {"size": 1, "x-maker": {}}}
    assert structure(document, Cart).spare == Wheel(1)


@pytest.mark.parametrize("name", ["X-Trace", "xtrace", "x", "_x-"])
def test_only_x_and_a_hyphen_let_a_member_through(name: str) -> None:
    assert _faults({"owner": "ann", name: 1}) == {(f"/{name}", "is not a known member")}


def test_pointers_begin_with_the_base() -> None:
    assert _faults({}, "/3") == {("/3/owner", "is required")}
    assert _faults(None, "/3") == {("/3", "must be an object, not null")}


def test_a_fault_does_not_repeat_what_the_document_holds() -> None:
    document = {"owner": ["s3cret-value"], "colour": "s3cret-value", "key": {"s3cret": "s3cret-value"}}
    with pytest.raises(InvalidError) as caught:
        structure(document, Cart)
    assert "s3cret" not in str(caught.value)


def test_the_number_of_faults_is_bounded() -> None:
    assert len(_faults({f"unknown{number}": 1 for number in range(500)})) == MAX_FAULTS + 1
    assert invalid([Fault("/a", "b")] * 3).faults == (Fault("/a", "b"),) * 3


def _broken(value: Any, _: Any = None) -> int:
    return int(value.nonsense)


@frozen
class Broken:
    member: Annotated[int, Check(_broken)]
    other: int = 0


@pytest.mark.parametrize("document", [{"member": 1}, {"other": "x", "member": 1}])
def test_an_error_in_a_parser_itself_is_not_taken_for_a_fault(document: dict[str, Any]) -> None:
    with pytest.raises(AttributeError):
        structure(document, Broken)


def test_a_pointer_escapes_and_cuts_names() -> None:
    assert pointer() == ""
    assert pointer("a/b", 0, "~c", "") == "/a~1b/0/~0c/"
    assert pointer("n" * 20_000) == "/" + "n" * 100 + "…"


def test_choices_are_listed_as_prose() -> None:
    assert [listed(choices) for choices in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a or b",
        "a, b or c",
    ]


def test_string_gives_strings_back() -> None:
    assert string("text") == "text"
