"""The approver's link: what it says, and that nobody else can make one say it."""

from __future__ import annotations

import re

import orjson
import pytest
from attrs import asdict, evolve
from hypothesis import given
from hypothesis import strategies as st

from notifyd.errors import SealError
from notifyd.security.links import MINE, Link, Links, MineLink
from notifyd.security.secrets import Keyring
from tests.store.makers import HOUR, NOW

PLAN = "sha256:" + "a" * 64
LINK = Link("acme", "run-1", "deploy", 2, PLAN, "alice@acme.example", "approvals", NOW + HOUR)
KEYRING = Keyring([b"k" * 32])
LINKS = Links(KEYRING, "https://notify.acme.example/base")

texts = st.text(st.characters(codec="utf-8"), max_size=30)
links = st.builds(
    Link,
    tenant=texts,
    run_id=texts,
    approval_id=texts,
    round=st.integers(1, 1000),
    plan_hash=texts,
    recipient=st.none() | texts,
    rule=texts,
    expires_at=st.integers(0, 2**53),
    on_behalf_of=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
)


@given(links)
def test_a_sealed_link_says_what_was_sealed(link: Link) -> None:
    assert LINKS.read(LINKS.seal(link)) == link


def test_a_link_that_only_shows_names_nobody() -> None:
    assert LINKS.read(LINKS.seal(evolve(LINK, recipient=None))).recipient is None


def test_a_link_of_a_deputy_names_both_and_others_read_as_before_there_were_any() -> None:
    assert (
        LINKS.read(LINKS.seal(evolve(LINK, on_behalf_of="bob@acme.example"))).on_behalf_of
        == "bob@acme.example"
    )
    said = orjson.loads(KEYRING.open("approval-link", LINKS.seal(LINK)))
    assert said == list(asdict(LINK).values())[:-1]
    assert LINKS.read(LINKS.seal(LINK)) == LINK


def test_a_links_url_holds_nothing_that_its_reader_may_not_see() -> None:
    url = LINKS.url(LINKS.seal(LINK))
    assert re.fullmatch(r"https://notify\.acme\.example/base/approvals/[A-Za-z0-9._-]+", url)
    for said in ("acme", "run-1", "alice", "approvals"):
        assert said not in url.rpartition("/")[2]


def test_a_link_is_short_enough_for_a_mail_and_for_a_request_line() -> None:
    longest = Link("t" * 200, "r" * 200, "a" * 200, 9, PLAN, "x" * 200 + "@acme.example", "r" * 100, NOW)
    assert len(LINKS.url(LINKS.seal(longest))) < 2048


def test_a_link_knows_its_approval() -> None:
    assert (LINK.key.tenant, LINK.key.run_id, LINK.key.approval_id) == ("acme", "run-1", "deploy")


def test_sealing_a_link_twice_gives_two_tokens() -> None:
    assert LINKS.seal(LINK) != LINKS.seal(LINK)


def test_an_expired_link_still_says_what_it_said() -> None:
    assert LINKS.read(LINKS.seal(evolve(LINK, expires_at=0))).expires_at == 0


def test_a_link_under_a_dropped_key_does_not_open() -> None:
    with pytest.raises(SealError, match="no longer configured"):
        Links(Keyring([b"n" * 32]), "").read(LINKS.seal(LINK))


@pytest.mark.parametrize("plaintext", [b"[]", b"{}", b"null", b"1", b"not json", b"[1,2]", b'"text"'])
def test_a_link_of_another_version_does_not_open(plaintext: bytes) -> None:
    with pytest.raises(SealError):
        LINKS.read(KEYRING.seal("approval-link", plaintext))


def test_a_token_that_was_sealed_for_another_use_is_no_link() -> None:
    with pytest.raises(SealError):
        LINKS.read(KEYRING.seal("message", b'["acme","run-1","deploy",2,"","alice","approvals",0]'))


@pytest.mark.parametrize("token", ["", "x", "....", "../../etc/passwd", "é" * 10, "a" * 9000])
def test_what_is_no_link_does_not_open(token: str) -> None:
    with pytest.raises(SealError):
        LINKS.read(token)


# --- of a person's list ------------------------------------------------------------------------------------

LIST = MineLink("acme", "alice@acme.example", NOW + HOUR)


def test_a_link_to_a_list_says_what_was_sealed_and_is_known_by_its_address() -> None:
    path = LINKS.seal(LIST)
    assert path.startswith(MINE)
    assert LINKS.read_path(path) == LINKS.read_mine(path.removeprefix(MINE)) == LIST
    assert LINKS.read_path(LINKS.seal(LINK)) == LINK
    assert (LINKS.is_mine(LINKS.url(path)), LINKS.is_mine(LINKS.url(LINKS.seal(LINK)))) == (True, False)


def test_neither_kind_of_link_opens_as_the_other() -> None:
    with pytest.raises(SealError):
        LINKS.read(LINKS.seal(LIST).removeprefix(MINE))
    with pytest.raises(SealError):
        LINKS.read_mine(LINKS.seal(LINK))


def test_a_sign_in_for_a_list_is_for_no_approval() -> None:
    assert LIST.subject == ["acme", "alice@acme.example"]
    assert LINK.subject == ["acme", "run-1", "deploy", 2, PLAN]
