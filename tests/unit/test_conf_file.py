"""The configuration files that are shipped: complete, at their defaults, loading with the plugins at hand."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import tomli

from notifyd.config import load as config
from notifyd.config.settings import (
    COMMON_OPTIONS,
    Client,
    Deputy,
    Jwt,
    Oidc,
    Operator,
    QuietHours,
    Recipient,
    Rule,
    Settings,
    Tls,
)
from notifyd.config.structure import options_of
from notifyd.rules.rules import RuleBook
from tests.daemon import installed
from tests.github_api import pem

CONF: Final = Path(__file__).parents[2] / "conf"
CA: Final = Path(__file__).parents[1] / "data" / "ca.pem"
FILE: Final = CONF / "notifyd.toml"
SIGNING_SECRET: Final = "whsec_" + base64.b64encode(b"s" * 32).decode()
ENVIRON: Final = {
    "NOTIFYD_SEAL_KEY": base64.b64encode(b"k" * 32).decode(),
    "TASK_RUNNER_SECRET": SIGNING_SECRET,
    "BUILD_HOOK_URL": "https://hook.example/build",
    "BUILD_HOOK_SECRET": SIGNING_SECRET,
    "AUDIT_HOOK_URL": "https://hook.example/audit",
    "AUDIT_HOOK_SECRET": SIGNING_SECRET,
    "HOOK_URL": "https://hook.example/",
    "HOOK_SECRET": SIGNING_SECRET,
    "TELEGRAM_BOT_TOKEN": "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
    "SLACK_BOT_TOKEN": "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy",
    "SLACK_APP_TOKEN": "xapp-1-A0123456789-1234567890123-0123456789abcdef0123456789abcdef",
    "OPERATOR_TOKEN_HASH": "sha256:" + "0" * 64,
    "SMTP_PASSWORD": "a password",
    "OIDC_CLIENT_SECRET": "a secret",
    "GITHUB_APP_KEY": pem(),
    "GITHUB_WEBHOOK_SECRET": "a secret",
}
SECTIONS: Final = tuple(
    name
    for name, attribute in attrs.fields_dict(attrs.resolve_types(Settings)).items()
    if attrs.has(attribute.type or object)
)
# These have no fixed default to show: one is made of the host's name, the others have none.
WITHOUT_DEFAULT: Final = {
    "server.node",
    "keys.seal",
    "auth.actors",
    "auth.clients",
    "console.operators",
    "egress.tls_ca",
    "heartbeat.url",
    "drill.to",
} | {f"server.tls.{key}" for key in ("cert", "key", "client_ca")}


def uncommented(text: str) -> str:
    """Every option as if it were set: a line that begins "#" and no space is one."""
    return re.sub(r"(?m)^#(?=[^\s#])", "", text)


def commented_options() -> Iterator[tuple[str, str]]:
    """Section and line of each option of a section, as it stands in the file."""
    section = ""
    for line in FILE.read_text().splitlines():
        if header := re.fullmatch(r"#?\[+([a-z]+(?:\.tls)?)[^]]*\]+", line):
            section = header[1] if line.startswith("[") else ""
        elif section and re.match(r"#[a-z]", line):
            yield section, line.removeprefix("#")


def findable(text: str) -> str:
    """A configuration with the files that its examples name at places where a test has them."""
    return text.replace("/etc/notifyd/ca.pem", str(CA)).replace("${cred:github-app-key}", "${GITHUB_APP_KEY}")


def load(text: str) -> Settings:
    return config.reads(findable(text), installed().brought, ENVIRON).whole()


def test_the_file_as_it_is_shipped_is_all_defaults() -> None:
    settings = config.read(FILE, installed().brought, ENVIRON).whole()
    keys = "[keys]\nseal = ['${NOTIFYD_SEAL_KEY}']\n"
    assert settings == load(keys)


@pytest.mark.parametrize(("section", "line"), list(commented_options()))
def test_each_option_is_shown_at_its_default(section: str, line: str) -> None:
    key = line.split(" ")[0]
    needed = {"server.tls": 'cert = "cert.pem"\n'}.get(section, "") if key != "cert" else ""
    seal = "seal = ['${NOTIFYD_SEAL_KEY}']\n"
    above = f"[keys]\n{seal}" if section == "keys" else f"keys.{seal}[{section}]\n{needed}"
    settings = load(above + line)
    bare = load("keys.seal = ['${NOTIFYD_SEAL_KEY}']")
    if f"{section}.{key}" not in WITHOUT_DEFAULT:
        option = attrgetter(f"{section}.{key}")
        assert option(settings) == option(bare)


def test_every_option_of_every_section_is_in_the_file() -> None:
    document = tomli.loads(uncommented(FILE.read_text()))
    for section in SECTIONS:
        kind: Any = attrs.fields_dict(Settings)[section].type
        assert set(document[section]) == set(options_of(kind)), section
    assert set(document) == set(attrs.fields_dict(Settings))


@pytest.mark.parametrize(
    ("path", "record"),
    [
        (["server", "tls"], Tls),
        (["auth", "jwt"], Jwt),
        (["auth", "oidc"], Oidc),
        (["console", "operators", "alice@acme.example"], Operator),
        (["auth", "clients", "task-runner"], Client),
        (["rules", 0], Rule),
        (["rules", 0, "quiet_hours"], QuietHours),
        (["recipients", "alice@acme.example"], Recipient),
        (["recipients", "alice@acme.example", "deputy"], Deputy),
    ],
)
def test_every_option_of_an_entry_is_in_the_file(path: list[str | int], record: type[Any]) -> None:
    entry: Any = tomli.loads(uncommented(FILE.read_text()))
    for step in path:
        entry = entry[step]
    assert set(entry) == set(options_of(record))


def test_every_option_of_the_channels_shown_is_in_the_file() -> None:
    document = tomli.loads(uncommented(FILE.read_text()))
    shown = {table["type"]: table for table in document["channels"].values()}
    assert set(shown) == {"webhook", "email"}
    for name, table in shown.items():
        for option in options_of(installed().channel_types[name].config):
            # `secrets` excludes `secret` and so stands in the comment beside it.
            assert option in table or re.search(rf"(?m)^# .*\b{option} = ", FILE.read_text()), option
    assert set(COMMON_OPTIONS) <= set(shown["webhook"])


def test_the_file_loads_with_every_option_set() -> None:
    settings = load(uncommented(FILE.read_text()))
    assert set(settings.channels) == {"build-hook", "release-mail"}
    assert [rule.name for rule in settings.rules] == ["approvals", "notifications.on_task_done"]
    RuleBook.compile(settings.rules, {})


def test_an_option_of_a_rule_or_client_that_has_a_default_is_told_by_it() -> None:
    settings = load(uncommented(FILE.read_text()))
    fields = attrs.fields_dict(Rule)
    assert settings.rules[0].grants == fields["grants"].default
    assert settings.rules[0].stop == fields["stop"].default
    channel = settings.channels["build-hook"]
    bare = attrs.fields_dict(type(channel))
    assert (channel.concurrency, channel.timeout) == (bare["concurrency"].default, bare["timeout"].default)


@pytest.mark.parametrize(
    ("name", "channels", "rules"),
    [
        ("minimal", {"hook": "webhook"}, ["everything"]),
        (
            "demo",
            {"release-mail": "email", "chat-bridge": "webhook"},
            ["production-approvals", "follow-along"],
        ),
        (
            "pack-approvals",
            {"release-mail": "email", "audit-hook": "webhook"},
            ["production-approvals", "follow-along"],
        ),
    ],
)
def test_the_examples_load_and_their_rules_compile(
    name: str, channels: Mapping[str, str], rules: list[str]
) -> None:
    file = CONF / "examples" / f"{name}.toml"
    settings = config.read(file, installed().brought, ENVIRON).whole()
    assert {key: channel.type.name for key, channel in settings.channels.items()} == channels
    assert [rule.name for rule in settings.rules] == rules
    RuleBook.compile(settings.rules, {})


def test_every_example_is_tested() -> None:
    tested = {"minimal", "pack-approvals", "demo", "compose"}  # the last by test_containers
    assert {file.stem for file in (CONF / "examples").glob("*.toml")} == tested


@pytest.mark.parametrize("name", ["minimal", "pack-approvals", "demo"])
def test_an_example_says_which_variables_it_needs(name: str) -> None:
    text = (CONF / "examples" / f"{name}.toml").read_text()
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for variable in re.findall(r"\$\{([A-Z_]+)\}", text):
        assert variable in head
