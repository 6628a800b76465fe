"""Who a person is, and who may decide as whom."""

from __future__ import annotations

from typing import Any

import pytest

from notifyd.errors import ActorNotAllowedError
from notifyd.model import Principal, Via
from notifyd.security.actors import Actors

ALICE, BOB = "alice@acme.example", "bob@acme.example"
ACTORS = Actors({"Alice@ACME.example": ["00u1ab", "U02SLACK", "ALICE@old.example"], BOB: ["client:bobs-cli"]})


def client(name: str = "console", *act_as: str) -> Principal:
    return _principal(name, Via.CLIENT, act_as=act_as)


def token(name: str) -> Principal:
    return _principal("jwt:portal", Via.JWT, act_as=("*",), actor=name)


def _principal(name: str, via: Via, **more: Any) -> Principal:
    return Principal(name, via, scopes=frozenset(), grants=frozenset(), tenants=("acme",), **more)


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alias", ["00u1ab", "00U1AB", "u02slack", "alice@OLD.example", ALICE, " Alice@acme.example"]
)
def test_an_alias_in_any_spelling_is_the_person(alias: str) -> None:
    assert ACTORS.canonical(alias) == ALICE


@pytest.mark.parametrize("name", ["", "ali\u200bce", "аlice@acme.example", "not a@mailbox@x", "x" * 501])
def test_what_is_not_fit_for_a_name_is_nobody_elses_and_decides_nothing(name: str) -> None:
    assert ACTORS.canonical(name) == name
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(client("console", "*"), name)
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(token(name), None)


# --- who may decide as whom --------------------------------------------------------------------------------


def test_a_machine_client_decides_as_itself() -> None:
    assert ACTORS.of(client("Console"), None) == "client:console"
    assert ACTORS.of(client(), "client:console") == "client:console"
    assert ACTORS.of(client(), "CLIENT:Console") == "client:console"


def test_a_client_that_the_config_calls_a_person_is_that_person() -> None:
    assert ACTORS.of(client("bobs-cli"), None) == BOB
    assert ACTORS.of(client("bobs-cli"), "Bob@acme.example") == BOB


def test_a_client_decides_as_a_name_that_its_globs_allow() -> None:
    assert ACTORS.of(client("console", "*@ACME.example"), "Alice@Acme.Example") == ALICE
    assert ACTORS.of(client("console", "*@faß.example"), "Ü@FAß.example") == "ü@xn--fa-hia.example"
    assert ACTORS.of(client("console", "*@acme.example"), "U02SLACK") == ALICE
    assert ACTORS.of(client("console", "nobody", "a?ice@*"), ALICE) == ALICE


@pytest.mark.parametrize("globs", [(), ("",), ("*@other.example",), ("alice",), ("U02SLACK",)])
def test_a_client_decides_as_nobody_else(globs: tuple[str, ...]) -> None:
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(client("console", *globs), ALICE)


def test_an_alias_of_somebody_else_does_not_slip_through_a_glob() -> None:
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(client("console", "*@old.example"), "alice@old.example")


@pytest.mark.parametrize("claimed", ["client:other", "Client:Other", " client:other"])
def test_no_glob_lends_a_client_another_clients_name(claimed: str) -> None:
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(client("console", "*", "client:*"), claimed)


def test_a_token_that_names_nobody_decides_as_nobody() -> None:
    for claimed in (None, ALICE, "client:jwt:portal"):
        with pytest.raises(ActorNotAllowedError):
            ACTORS.of(token(""), claimed)


def test_a_token_is_its_own_actor() -> None:
    assert ACTORS.of(token("00u1ab"), None) == ALICE
    assert ACTORS.of(token("00u1ab"), "alice@acme.example") == ALICE
    assert ACTORS.of(token("carol@acme.example"), "Carol@acme.example") == "carol@acme.example"


def test_a_token_decides_as_nobody_else_whatever_its_globs() -> None:
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(token("00u1ab"), BOB)


@pytest.mark.parametrize("name", ["client:console", "CLIENT:console", "client:bobs-cli"])
def test_a_token_with_a_machine_clients_name_is_not_that_client(name: str) -> None:
    with pytest.raises(ActorNotAllowedError):
        ACTORS.of(token(name), None)


def test_a_refusal_does_not_repeat_the_name_that_was_claimed() -> None:
    with pytest.raises(ActorNotAllowedError) as caught:
        ACTORS.of(client(), "mallory@evil.example")
    assert "mallory" not in str(caught.value)
