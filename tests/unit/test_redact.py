"""What names itself a secret, and configured secrets wherever they stand, are hidden; all else stays."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.security.redact import MIN_SEARCHED, Redactor, names_secret
from notifyd.security.secrets import Secret
from tests import events

_SECRET = 'Hq7"vT2\\xK9 wZ&ü'


@pytest.mark.parametrize(
    "key",
    [
        "token", "Token", "TOKEN", "tokens", "token2", "2tokens", "apiToken", "api_token",
        "api-token", "APIToken", "accessTokenV2", "resume.token", "secret", "clientSecret",
        "client_secrets", "password", "db_password", "DB-PASSWORD", "smtpPassword", "passphrase",
        "passwd", "user_pwd", "PGPASSWD", "Authorization", "Proxy-Authorization", "Cookie",
        "set-cookie", "cookies", "credential", "awsCredentials", "api_key", "apiKey", "X-Api-Key",
        "APIKEY", "apikeys", "private_key", "privateKeys", "access-key-id", "signingKey", "ssh_key",
        "db_pass", "redis_pass", "sessionId", "jwt", "bearer", "accesstoken", "ToKeN", "kennwort",
    ],
)  # fmt: skip
def test_a_key_with_a_secrets_word_names_a_secret(key: str) -> None:
    assert names_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "", "key", "keys", "tokenizer", "tokenized", "secretary", "monkey", "keyboard",
        "authorizationless", "turnkey", "passwordless", "cookiecutter", "pass", "passRate",
        "testsPass", "first_pass", "compass", "bypass", "planHash", "runId", "approvalId",
        "requiredGrants", "author", "authority", "title", "publicKey", "primary_key", "i18nKey",
        "credo", "session", "id", "Schlüssel", "api", "api_keyboard", "monkey_api",
    ],
)  # fmt: skip
def test_other_keys_do_not(key: str) -> None:
    assert not names_secret(key)


def test_members_named_for_a_secret_are_hidden_at_any_depth_whatever_they_hold() -> None:
    tree = {
        "labels": {"db_password": "hunter2", "team": "payments"},
        "parameters": [{"apiToken": {"nested": [1, 2]}}, {"token": None, "count": 3}],
    }
    assert Redactor().tree(tree) == {
        "labels": {"db_password": "***", "team": "payments"},
        "parameters": [{"apiToken": "***"}, {"token": "***", "count": 3}],
    }


def test_a_tree_is_copied_and_the_original_left_alone() -> None:
    original = {"a": {"token": "t", "b": [1, {"c": "d"}]}}
    before = json.dumps(original)
    copy = Redactor().tree(original)
    copy["a"]["b"][1]["c"] = "changed"
    assert json.dumps(original) == before


@pytest.mark.parametrize("name", events.NAMES)
def test_an_event_without_secrets_names_keeps_every_other_member(name: str) -> None:
    document = events.load(name)
    assert Redactor([Secret("not in any event")]).tree(document) == _by_hand(document)


def _by_hand(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: "***" if k in {"token", "apiToken", "db_password"} else _by_hand(v) for k, v in value.items()
        }
    return [_by_hand(item) for item in value] if isinstance(value, list) else value


def test_a_configured_value_is_hidden_in_strings_and_in_names() -> None:
    tree = {"note": f"it is {_SECRET}, twice: {_SECRET}", _SECRET: [[_SECRET]], "n": 1}
    assert Redactor([Secret(_SECRET)]).tree(tree) == {
        "note": "it is ***, twice: ***",
        "***": [["***"]],
        "n": 1,
    }


def test_a_configured_value_is_hidden_in_a_tuple_too() -> None:
    tree = {"pair": (1, f"it is {_SECRET}"), "pairs": [({"deep": (_SECRET,)},)]}
    assert Redactor([Secret(_SECRET)]).tree(tree) == {
        "pair": [1, "it is ***"],
        "pairs": [[{"deep": ["***"]}]],
    }


def test_a_long_name_that_a_sender_chose_is_judged_as_any_and_not_remembered() -> None:
    name = "x" * 10_000 + "_token"
    tree, held = {name: "t"}, sys.getrefcount(name)
    assert Redactor().tree(tree) == {"x" * 10_000 + "_token": "***"}
    assert sys.getrefcount(name) == held


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.builds(lambda a, b: a + _SECRET + b, st.text(), st.text()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_tree_keeps_a_configured_value(tree: Any) -> None:
    assert _SECRET not in repr(_strings(Redactor([Secret("other secret"), Secret(_SECRET)]).tree(tree)))
    assert not any(_SECRET in text for text in _strings(Redactor([Secret(_SECRET)]).tree(tree)))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for member in value.values() for text in _strings(member))]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def test_a_secret_object_in_a_tree_is_hidden() -> None:
    assert Redactor().tree({"plain": Secret("x"), "pair": (1, Secret("y"))}) == {
        "plain": "***",
        "pair": [1, "***"],
    }


def test_the_longer_of_two_values_is_hidden_whole() -> None:
    redactor = Redactor([Secret("abcdef"), Secret("abcdefghij")])
    assert redactor.text("abcdefghij abcdef") == "*** ***"


@pytest.mark.parametrize("value", ["", "a", "x" * (MIN_SEARCHED - 1)])
def test_a_value_too_short_to_search_for_shreds_no_text(value: str) -> None:
    assert Redactor([Secret(value)]).text("an axe, xxxxx and all") == "an axe, xxxxx and all"


@pytest.mark.parametrize(
    "spelling",
    [
        _SECRET,
        json.dumps(_SECRET)[1:-1],
        json.dumps(_SECRET, ensure_ascii=False)[1:-1],
        "Hq7%22vT2%5CxK9%20wZ%26%C3%BC",
        "Hq7%22vT2%5CxK9+wZ%26%C3%BC",
    ],
)
def test_a_value_is_found_as_json_and_urls_spell_it(spelling: str) -> None:
    assert Redactor([Secret(_SECRET)]).text(f"<{spelling}>") == "<***>"


def test_a_signing_secret_is_found_without_its_prefix() -> None:
    assert Redactor([Secret("whsec_QUJDREVGR0hJSktM")]).text("key QUJDREVGR0hJSktM") == "key ***"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("GET /approvals/eyJhbGciOiJkaXIifQ..abc_-1.x 200", "GET /approvals/… 200"),
        ("https://n.example/approvals/eyJhbGciOiJkaXIifQ?x=1", "https://n.example/approvals/…?x=1"),
        ("Authorization: Bearer abc.def-ghi\nHost: x", "Authorization: ***\nHost: x"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: ***"),
        ("Set-Cookie: sid=1; Path=/", "Set-Cookie: ***"),
        ("sent Bearer abc.def-ghi and failed", "sent Bearer *** and failed"),
        ("secret whsec_QUJDREVGR0hJSktM= is bad", "secret whsec_*** is bad"),
        ("https://user:pass@host.example/x", "https://***@host.example/x"),
        ("https://x.example/?api_key=abc&page=2", "https://x.example/?api_key=***&page=2"),
        ('{"access_token": "a\\"b", "n": 1}', '{"access_token": "***", "n": 1}'),
        ('{"token":12345,"n":1}', '{"token":***,"n":1}'),
        ('{"token":"cut off', '{"token":"***"'),
        ("{'password': 'x y'}", "{'password': '***'}"),
        ('"{\\"token\\": \\"abc\\", \\"n\\": 1}"', '"{\\"token\\": \\"***\\", \\"n\\": 1}"'),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ("password: hunter2", "password: ***"),
    ],
)
def test_what_has_the_form_of_a_credential_is_hidden_in_a_text(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the receiver answered 503",
        "token: expired",
        "/resume/token: must be a string, not a number",
        "channels.mail.password: is required",
        "GET /notifications/pack-approvals/run-0042/deploy-production-eu 200",
        "GET /approvals/x 404",
        "https://hooks.example/a?page=2&limit=3",
        '{"tokenizer": "abc", "title": "Deploy"}',
        "alice@acme.example approved; the bearer of bad news",
        "12 tests pass: 3 skipped",
    ],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Redactor([Secret("configured-secret")]).text(text) == text


@given(st.text(), st.text())
def test_no_text_keeps_a_configured_value(before: str, after: str) -> None:
    assert _SECRET not in Redactor([Secret(_SECRET)]).text(before + _SECRET + after)


@pytest.mark.parametrize(
    "piece", ['"token":"', "a=", "password: ", "://", "/approvals/", '\\"', "x-", "Bearer "]
)
def test_a_long_hostile_text_takes_no_more_than_its_length(piece: str) -> None:
    """Were any pattern to try every split of the text, this would not end within the test's time."""
    assert Redactor([Secret("configured-secret")]).text(piece * 20_000)


@pytest.mark.parametrize("kept", range(MIN_SEARCHED, len(_SECRET) + 1))
def test_a_value_that_a_texts_end_cuts_through_is_hidden(kept: int) -> None:
    redactor = Redactor([Secret("another-one"), Secret(_SECRET)])
    assert redactor.text("answered: " + _SECRET[:kept], cut=True) == "answered: ***"
    assert redactor.text("answered: " + _SECRET[:kept] + ".", cut=True) == redactor.text(
        "answered: " + _SECRET[:kept] + "."
    )


def test_a_redactor_does_not_print_what_it_knows() -> None:
    assert _SECRET not in repr(Redactor([Secret(_SECRET)]))
