"""The loader: what it understands, every fault at once with its path, and no secret in any message."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Callable, Mapping
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import Converter, evolve, field, frozen, make_class, validators

from notifyd.config import load as config
from notifyd.config.brought import Brought
from notifyd.config.settings import Keys, LinkMode, QuietHours, Recipient, Rule, Scope, Settings, StoreDriver
from notifyd.config.units import Backoff, Duration, Listen, Rate, Size
from notifyd.errors import ConfigError
from notifyd.plugin import ChannelType, Secret

SEAL_KEY = base64.b64encode(bytes(range(32))).decode()
SIGNING_SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
TOKEN_HASH = "sha256:" + "0a" * 32
KEYS = f'[keys]\nseal = ["{SEAL_KEY}"]\n'
SECOND = 1_000_000


class Tone(StrEnum):
    CALM = "calm"
    LOUD = "loud"


@frozen
class HookConfig:
    url: Secret
    from_: str = "notifyd"
    port: int = field(default=80, validator=[validators.ge(1), validators.le(65535)])
    ratio: float = 0.5
    verify: bool = True
    tone: Tone = Tone.CALM
    mode: Literal["plain", "rich"] = "plain"
    nick: str | None = None
    wait: Duration = Duration(0)
    limit: Size = Size(1024)
    folder: Path = Path("state")
    tags: tuple[str, ...] = ()
    headers: Mapping[str, Secret] = field(factory=dict)
    path: str = field(default="/")
    user: str = field(default="")
    password: Secret | None = field(default=None, repr=False)

    @path.validator
    def _path_begins_with_slash(self, attribute: object, value: str) -> None:
        if not value.startswith("/"):
            raise ValueError(f"must begin with a slash, unlike {value}")

    @password.validator
    def _password_needs_user(self, attribute: object, value: Secret | None) -> None:
        if value is not None and not self.user:
            raise ValueError("needs a user")


@frozen
class PagerConfig:
    first: int | None = None
    second: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.first is not None and self.second is not None:
            raise ValueError("first and second exclude each other")


@frozen
class RoomConfig:
    room: str | None = None


def _never_opened(options: Any, context: Any) -> Any:
    raise AssertionError("loading a configuration opens no channel")


TYPES = {
    "hook": ChannelType("hook", HookConfig, _never_opened),
    "mail": ChannelType("mail", PagerConfig, _never_opened, personal=True),
    "chat": ChannelType("chat", PagerConfig, _never_opened, rate_limit="1/s"),
    "direct": ChannelType(
        "direct", RoomConfig, _never_opened, personal=lambda config: config.room is None, addressed=True
    ),
}
BROUGHT = Brought(TYPES)
CHANNELS = """
[channels.hook]
type = "hook"
url = "https://hook.example/"
[channels.mail]
type = "mail"
"""


def load(
    text: str,
    *,
    keys: str = KEYS,
    environ: Mapping[str, str] | None = None,
    brought: Brought = BROUGHT,
    base: Path = Path(),
) -> Settings:
    return config.reads(keys + text, brought, environ or {}, base=base).whole()


def faults(text: str, **options: Any) -> dict[str, str]:
    """What is wrong with a text, by path."""
    with pytest.raises(ConfigError) as caught:
        load(text, **options)
    found = {fault.pointer: fault.message for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults), "a path has one fault"
    return found


def hook(options: str) -> HookConfig:
    """The options of a channel of the type `hook`."""
    settings = load(f'[channels.x]\ntype = "hook"\nurl = "u"\n{options}')
    options_record = settings.channels["x"].config
    assert isinstance(options_record, HookConfig)
    return options_record


def hook_faults(options: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    found = faults(f'[channels.x]\ntype = "hook"\nurl = "u"\n{options}', environ=environ)
    return {pointer.removeprefix("channels.x."): message for pointer, message in found.items()}


# --- what is understood -------------------------------------------------------------------------------------


def test_an_empty_file_but_for_a_key_gives_the_defaults() -> None:
    settings = load("")
    defaults = Settings()
    assert settings.keys == Keys((bytes(range(32)),))  # type: ignore[arg-type]  # a SealKey is bytes
    assert settings.server.node == f"{socket.gethostname()}/127.0.0.1:8686"
    assert settings.server.public_url == "http://127.0.0.1:8686"
    server = evolve(settings.server, node="", public_url="")
    assert evolve(settings, keys=Keys(), server=server) == defaults


def test_every_section_is_structured_into_its_record() -> None:
    settings = load(
        f"""
        [server]
        listen = "[::1]:0"
        node = "n1"
        public_url = "https://Notify.Example:443/base/"
        max_body = "1MiB"
        ip_allowlist = ["10.0.0.0/8", "fd00::/8"]
        [store]
        url = "sqlite:////var/lib/notifyd.db"
        timeout = "500ms"
        driver = "pymongo"
        [auth]
        clock_tolerance = "1m"
        [auth.actors]
        "alice@acme.example" = ["00u1ab"]
        [auth.clients.task-runner]
        hmac_secrets = ["{SIGNING_SECRET}"]
        token_hashes = ["{TOKEN_HASH.upper().replace("SHA", "sha")}"]
        scopes = ["Packs.Approve", "Notifier.Events:Write"]
        act_as = ["*@acme.example"]
        tenants = ["acme"]
        [recipients."alice@acme.example"]
        locale = "de-ch"
        zone = "Europe/Zurich"
        [dispatch]
        backoff = "500ms..1h"
        [resume]
        allowed_origins = ["https://Runner.acme.example:443", "http://[::1]:8080"]
        [egress]
        allow_private = ["10.1.0.0/16", "Runner.internal", "10.9.9.9"]
        [approvals]
        links = "view"
        allow_self_approval = true
        [retention]
        events = "2d"
        """
    )
    assert settings.server.listen == Listen("::1", 0)
    assert settings.server.node == "n1"
    assert settings.server.public_url == "https://notify.example/base"
    assert settings.server.max_body == 1024 * 1024
    assert settings.server.ip_allowlist == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.store.timeout == SECOND / 2
    assert settings.store.driver is StoreDriver.PYMONGO
    client = settings.auth.clients["task-runner"]
    assert client.hmac_secrets == (Secret(SIGNING_SECRET),)
    assert client.token_hashes == (TOKEN_HASH,)
    assert client.scopes == (Scope.APPROVE, Scope.INGEST)
    assert settings.auth.actors == {"alice@acme.example": ("00u1ab",)}
    assert settings.recipients == {"alice@acme.example": Recipient("de-CH", "Europe/Zurich")}
    assert settings.dispatch.backoff == Backoff(Duration(SECOND // 2), Duration(3600 * SECOND))
    assert settings.resume.allowed_origins == ("https://runner.acme.example", "http://[::1]:8080")
    private = (ip_network("10.1.0.0/16"), "runner.internal", ip_network("10.9.9.9/32"))
    assert settings.egress.allow_private == private
    assert settings.approvals.links is LinkMode.VIEW
    assert settings.retention.events == 2 * 86400 * SECOND


def test_a_rule_has_all_its_options() -> None:
    settings = load(
        CHANNELS
        + """
        [[rules]]
        name = "r-1.a"
        when = "true"
        channels = ["hook", "mail"]
        to = ["alice@acme.example"]
        lists = ["team@acme.example"]
        template = "pack-approval"
        locale = "de-CH"
        grants = []
        stop = true
        group_by = ["runId", "labels.environment"]
        group_wait = "30s"
        throttle = "100/1h"
        quiet_hours = {from = "22:00", to = "07:00", zone = "Europe/Zurich"}
        """
    )
    assert settings.rules == (
        Rule(
            name="r-1.a",
            when="true",
            channels=("hook", "mail"),
            to=("alice@acme.example",),
            lists=("team@acme.example",),
            template="pack-approval",
            locale="de-CH",
            grants=(),
            stop=True,
            group_by=("runId", "labels.environment"),
            group_wait=Duration(30 * SECOND),
            throttle=Rate(100, Duration(3600 * SECOND)),
            quiet_hours=QuietHours("22:00", "07:00", "Europe/Zurich"),
        ),
    )


def test_the_notifications_shorthand_becomes_rules_behind_the_others() -> None:
    settings = load(
        CHANNELS
        + """
        [notifications]
        on_task_done = ["hook"]
        on_a_b_c = ["hook"]
        [[rules]]
        name = "first"
        when = "true"
        channels = ["hook"]
        """
    )
    first, *rest = settings.rules
    assert first.name == "first"
    assert rest == [
        Rule("notifications.on_task_done", 'event.kind == "task.done"', ("hook",)),
        Rule("notifications.on_a_b_c", 'event.kind == "a.b.c"', ("hook",)),
    ]


def test_a_channels_options_become_its_types_record() -> None:
    found = hook(
        """
        from = "someone"
        port = 8080
        ratio = 2
        verify = false
        tone = "loud"
        mode = "rich"
        nick = "n"
        wait = "3s"
        limit = "2KiB"
        tags = ["a", "b"]
        user = "u"
        password = "p"
        headers = {"X-Team" = "t"}
        """
    )
    assert found == HookConfig(
        url=Secret("u"),
        from_="someone",
        port=8080,
        ratio=2.0,
        verify=False,
        tone=Tone.LOUD,
        mode="rich",
        nick="n",
        wait=Duration(3 * SECOND),
        limit=Size(2048),
        folder=Path("state"),
        tags=("a", "b"),
        headers={"X-Team": Secret("t")},
        user="u",
        password=Secret("p"),
    )


def test_a_channel_has_its_types_rate_limit_unless_it_names_its_own() -> None:
    settings = load(
        """
        [channels.a]
        type = "chat"
        [channels.b]
        type = "chat"
        rate_limit = "30/m"
        concurrency = 1
        timeout = "1s"
        [channels.c]
        type = "mail"
        """
    )
    assert settings.channels["a"].rate_limit == Rate(1, Duration(SECOND))
    assert settings.channels["b"].rate_limit == Rate(30, Duration(60 * SECOND))
    assert settings.channels["b"].rate_limit.per_second == 0.5
    assert settings.channels["b"].concurrency == 1
    assert settings.channels["b"].timeout == SECOND
    assert settings.channels["c"].rate_limit is None


def test_relative_paths_start_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "key").write_text(SEAL_KEY + "\n")
    file = tmp_path / "notifyd.toml"
    file.write_text('keys.seal = ["${file:key}"]\n[templates]\ndirs = ["templates"]\n')
    settings = config.read(file, BROUGHT, {}).whole()
    assert settings.templates.dirs == (tmp_path / "templates",)
    assert settings.keys.seal == (bytes(range(32)),)


# --- placeholders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${VAR}", "value"),
        ("a ${VAR} b ${VAR}", "a value b value"),
        ("${NONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${NONE:-}", ""),
        ("${NONE:-with:-more}", "with:-more"),
        ("${EMPTY}", ""),
        ("${VAR:-default}", "value"),
        ("$${VAR}", "${VAR}"),
        ("$$${VAR}", "$${VAR}"),
        ("$VAR", "$VAR"),
        ("${NESTED}", "${VAR}"),
        ("${cred:token}", "from systemd"),
        ("${file:plain}", "first\nsecond\n"),
    ],
)
def test_placeholders_are_resolved_in_every_string(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from systemd\n")
    (tmp_path / "plain").write_text("first\nsecond\n\n")
    environ = {"VAR": "value", "EMPTY": "", "NESTED": "${VAR}", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    literal = json.dumps(text)
    more = f'[channels.x]\ntype = "hook"\nurl = "u"\nnick = {literal}\ntags = [{literal}]\n'
    settings = load(more, environ=environ, base=tmp_path)
    assert settings.channels["x"].config.nick == expected
    assert settings.channels["x"].config.tags == (expected,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("${file:/nowhere/key}", "the file /nowhere/key cannot be read: No such file or directory"),
        ("${cred:token}", "the credential token needs $CREDENTIALS_DIRECTORY, which systemd sets"),
        ("${cred:../token}", "a credential's name is a file name, without a slash"),
        ("${cred:..}", "a credential's name is a file name, without a slash"),
        ("${cred:}", "a credential's name is a file name, without a slash"),
        ("${VAR", 'a placeholder is not closed; "$${" stands for "${" itself'),
        ("${}", "a placeholder is ${VAR}, ${VAR:-default}, ${file:PATH} or ${cred:NAME}"),
        ("${vault:secret}", "a placeholder is ${VAR}, ${VAR:-default}, ${file:PATH} or ${cred:NAME}"),
        ("${VAR-default}", "a placeholder is ${VAR}, ${VAR:-default}, ${file:PATH} or ${cred:NAME}"),
    ],
)
def test_a_placeholder_that_gives_nothing_names_itself_and_the_key(text: str, message: str) -> None:
    assert hook_faults(f"nick = '{text}'") == {"nick": message}


def test_a_missing_variable_is_the_only_fault_of_its_value() -> None:
    found = faults(
        """
        [server]
        listen = "${A}"
        [auth.clients.c]
        hmac_secrets = ["${B}"]
        scopes = ["${C}"]
        [channels.x]
        type = "${D}"
        """,
        keys='[keys]\nseal = ["${E}"]',
    )
    assert found == {
        "server.listen": "the environment variable A is not set",
        "auth.clients.c.hmac_secrets[0]": "the environment variable B is not set",
        "auth.clients.c.scopes[0]": "the environment variable C is not set",
        "channels.x.type": "the environment variable D is not set",
        "keys.seal[0]": "the environment variable E is not set",
    }


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_file_is_refused_as_it_may_be_about_to_be_written(content: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(content, newline="")
    assert hook_faults(f'nick = "${{file:{tmp_path}/key}}"') == {"nick": f"the file {tmp_path}/key is empty"}


@pytest.mark.parametrize(
    ("make", "why"),
    [(os.mkfifo, "it is no regular file"), (os.mkdir, "Is a directory")],
    ids=["pipe", "folder"],
)
def test_what_is_no_file_is_refused_and_not_waited_for(
    make: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    make(tmp_path / "key")
    message = f"the file {tmp_path}/key cannot be read: {why}"
    assert hook_faults(f'nick = "${{file:{tmp_path}/key}}"') == {"nick": message}


def test_a_file_in_another_encoding_or_of_any_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("ä".encode("latin-1"))
    (tmp_path / "large").write_bytes(b"x" * (1024 * 1024 + 1))
    found = hook_faults(f'nick = "${{file:{tmp_path}/latin}}"\nfrom = "${{file:{tmp_path}/large}}"')
    assert found["nick"].endswith("is not UTF-8 text")
    assert found["from"].endswith("is larger than 1048576 bytes")


# --- nothing is coerced -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('port = "2"', "must be an integer, not a string"),
        ("port = 2.0", "must be an integer, not a float"),
        ("port = true", "must be an integer, not a boolean"),
        ("from = 2", "must be a string, not an integer"),
        ("from = ['x']", "must be a string, not an array"),
        ('verify = "false"', "must be a boolean, not a string"),
        ("verify = 1", "must be a boolean, not an integer"),
        ('ratio = "0.5"', "must be a finite number, not a string"),
        ("ratio = nan", "must be a finite number, not a float"),
        ("ratio = true", "must be a finite number, not a boolean"),
        ('tags = "a"', "must be an array, not a string"),
        ("tags = {}", "must be an array, not a table"),
        ('headers = "a"', "must be a table, not a string"),
        ("wait = 3", "must be a string, not an integer"),
        ("nick = 1979-05-27", "must be a string, not a date"),
        ("folder = 07:32:00", "must be a string, not a time"),
        ('tone = "LOUD"', 'must be one of "calm", "loud"'),
        ('mode = "html"', 'must be one of "plain", "rich"'),
        ("mode = 1", 'must be one of "plain", "rich"'),
    ],
)
def test_a_value_of_another_type_is_refused(options: str, message: str) -> None:
    assert hook_faults(options) == {options.partition(" ")[0]: message}


def test_faults_in_arrays_and_tables_are_named_to_the_entry() -> None:
    found = hook_faults('tags = ["a", 1, 2]\nheaders = {"X-Team" = 1, "a b" = ""}')
    assert found == {
        "tags[1]": "must be a string, not an integer",
        "tags[2]": "must be a string, not an integer",
        "headers.X-Team": "must be a string, not an integer",
        'headers."a b"': "must not be empty",
    }


@pytest.mark.parametrize(
    "text", ["30", "30 s", "-1s", "1.5h", "s", "1w", "", "１s", "30S", "1s ", "99999999d"]
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str) -> None:
    assert set(hook_faults(f'wait = "{text}"')) == {"wait"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("0s", 0), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800)]
)
def test_durations_are_microseconds(text: str, seconds: float) -> None:
    assert hook(f'wait = "{text}"').wait == seconds * SECOND


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "listen", '"8686"'),
        ("server", "listen", '"127.0.0.1:70000"'),
        ("server", "listen", '"::1:80"'),
        ("server", "listen", '"[127.0.0.1]:80"'),
        ("server", "listen", '"http://x:80"'),
        ("server", "listen", '"*:80"'),
        ("server", "listen", '"[1::2::3]:80"'),
        ("server", "node", '""'),
        ("server", "public_url", '"ftp://x"'),
        ("server", "public_url", '"https://"'),
        ("server", "public_url", '"https://x/?a"'),
        ("server", "public_url", '"https://x/#a"'),
        ("server", "public_url", '"https://user@x/"'),
        ("server", "public_url", '"https://x:0"'),
        ("server", "public_url", '"https://x/a b"'),
        ("server", "max_body", '"0KiB"'),
        ("server", "max_body", '"256"'),
        ("server", "max_body", '"256KB"'),
        ("server", "max_body", '"1024MiB"'),
        ("store", "url", '"postgres://x"'),
        ("store", "url", '"sqlite://x"'),
        ("store", "timeout", '"0s"'),
        ("store", "driver", '"mongoose"'),
        ("auth", "clock_tolerance", '"0s"'),
        ("auth", "clock_tolerance", '"2d"'),
        ("dispatch", "max_attempts", "0"),
        ("dispatch", "max_attempts", "-1"),
        ("dispatch", "max_age", '"0s"'),
        ("dispatch", "backoff", '"1s"'),
        ("dispatch", "backoff", '"2s..1s"'),
        ("dispatch", "backoff", '"0s..1s"'),
        ("dispatch", "lease", '"0ms"'),
        ("dispatch", "max_backlog", "0"),
        ("approvals", "links", '"on"'),
        ("approvals", "link_ttl", '"0d"'),
        ("approvals", "return_resume_token", '"clear"'),
        ("retention", "audit", '"0d"'),
        ("retention", "hold_label", '"=legal"'),
        ("templates", "default_locale", '"german"'),
        ("templates", "default_locale", '"xx"'),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_its_path(section: str, key: str, value: str) -> None:
    assert set(faults(f"[{section}]\n{key} = {value}")) == {f"{section}.{key}"}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "ip_allowlist", "10.0.0.1/8"),
        ("server", "trusted_proxies", "proxy.example"),
        ("egress", "allow_private", "10.0.0.1/8"),
        ("egress", "allow_private", "bad host"),
        ("egress", "allow_private", "*.example"),
        ("egress", "allow_private", "https://x"),
        ("resume", "allowed_origins", "https://x/"),
        ("resume", "allowed_origins", "https://x/path"),
        ("resume", "allowed_origins", "https://*.x"),
        ("resume", "allowed_origins", "runner.example"),
        ("resume", "allowed_origins", "https://u:p@x"),
        ("resume", "secrets", "not-a-secret"),
        ("resume", "secrets", "whsec_c2hvcnQ="),
        ("templates", "dirs", "/nowhere/at/all"),
    ],
)
def test_a_fault_in_a_list_is_named_by_its_place(section: str, key: str, value: str) -> None:
    assert set(faults(f'[{section}]\n{key} = ["{value}"]')) == {f"{section}.{key}[0]"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", '"no spaces"'),
        ("name", f'"{"x" * 101}"'),
        ("when", '" "'),
        ("template", '"../secrets"'),
        ("locale", '"de_CH"'),
        ("throttle", '"0/s"'),
        ("throttle", '"1/0s"'),
        ("throttle", '"1/d"'),
        ("throttle", '"1 / s"'),
        ("stop", '"yes"'),
    ],
)
def test_a_rules_option_that_makes_no_sense_is_refused(key: str, value: str) -> None:
    options = {"name": '"r"', "when": '"true"', "channels": '["hook"]'} | {key: value}
    lines = "\n".join(f"{k} = {v}" for k, v in options.items())
    at = "rules[0]" if key == "name" else "rules.r"
    assert set(faults(f"{CHANNELS}[[rules]]\n{lines}")) == {f"{at}.{key}"}


@pytest.mark.parametrize(
    ("hours", "key"),
    [
        ('from = "22:00", to = "7:00", zone = "UTC"', "to"),
        ('from = "24:00", to = "07:00", zone = "UTC"', "from"),
        ('from = "22:00", to = "07:00", zone = "Mars/Base"', "zone"),
        ('from = "22:00", to = "07:00", zone = "../etc/passwd"', "zone"),
        ('from = "22:00", to = "07:00", zone = ""', "zone"),
        ('from = "22:00", to = "07:00"', "zone"),
        ('from = "22:00", to = "22:00", zone = "UTC"', "to"),
    ],
)
def test_quiet_hours_are_two_times_and_a_zone(hours: str, key: str) -> None:
    rule = f'[[rules]]\nname = "r"\nwhen = "true"\nchannels = ["hook"]\nquiet_hours = {{{hours}}}'
    assert set(faults(CHANNELS + rule)) == {f"rules.r.quiet_hours.{key}"}


# --- every fault at once ------------------------------------------------------------------------------------


def test_every_fault_is_reported_at_once_with_its_full_path() -> None:
    found = faults(
        """
        sever = {}
        [server]
        lisen = "127.0.0.1:1"
        [server.tls]
        cret = "x"
        [auth.jwt]
        isuer = "x"
        [auth.clients.task-runner]
        scopes = ["Packs.Aprove"]
        hmac_secrets = ["${SECRET}"]
        [channels.team-slack]
        type = "hook"
        [channels.other]
        type = "slak"
        [channels.mail]
        type = "mail"
        [[rules]]
        name = "a"
        when = "true"
        channels = ["team-slack", "nobody"]
        [[rules]]
        name = "a"
        when = "true"
        channels = ["team-slack"]
        [[rules]]
        name = "c"
        channels = ["nowhere"]
        [notifications]
        on_task_done = ["nobody"]
        """,
        keys="",
    )
    scopes = (
        '"Notifier.Events:Write", "Packs.Approve", "Packs.BreakGlass", "Notifier.Read", "Notifier.Operate"'
    )
    channels = "there are: mail, other, team-slack"
    assert found == {
        "auth.clients.task-runner.hmac_secrets[0]": "the environment variable SECRET is not set",
        "sever": 'is not a known key; did you mean "server"?',
        "server.lisen": 'is not a known key; did you mean "listen"?',
        "server.tls.cret": 'is not a known key; did you mean "cert"?',
        "auth.jwt.isuer": 'is not a known key; did you mean "issuer"?',
        "auth.jwt.audience": "is required",
        "auth.jwt.jwks": "is required",
        "auth.clients.task-runner.scopes[0]": f"must be one of {scopes}",
        "channels.team-slack.url": "is required",
        "channels.other.type": 'no plugin brings the type "slak"; installed are: chat, direct, hook, mail; '
        'did you mean "slack"?',
        "rules.c.when": "is required",
        "keys.seal": 'needs at least one key; "notifyd keygen" makes one',
        "rules.a.channels[1]": f'there is no channel "nobody"; {channels}',
        "rules[1].name": "is the name of an earlier rule too",
        "rules.c.channels[0]": f'there is no channel "nowhere"; {channels}',
        "notifications.on_task_done[0]": f'there is no channel "nobody"; {channels}',
    }


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        (
            'drill = {interval = "1s", channels = ["nope"], to = "a@b.example"}',
            {"drill.interval", "drill.channels[0]"},
        ),
        (
            'approvals = {links = "maybe", proof = "sign-in", breakglass_to = ["a@b.example", "a@b.example"]}',
            {"approvals.links", "approvals.proof", "approvals.breakglass_to[1]", "approvals.breakglass_to"},
        ),
        (
            'templates = {dirs = ["nowhere"], default_locale = "?", unknown = 1}',
            {"templates.dirs[0]", "templates.default_locale", "templates.unknown"},
        ),
        # What a faulty key would have told is not told in its place.
        (
            'channels.m.type = "mail"\ndrill = {channels = ["m"], to = 1}\n',
            {"drill.to"},
        ),
        (
            'channels.m.type = "mail"\ndrill = {channels = ["m"], to = "${NO_SUCH}"}\n',
            {"drill.to"},
        ),
    ],
)
def test_a_faulty_key_of_a_section_hides_no_fault_of_another(text: str, pointers: set[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.reads(f'{text}\nkeys.seal = ["{SEAL_KEY}"]', BROUGHT, {}).whole()
    told = [fault.pointer for fault in caught.value.faults if not fault.pointer.startswith("channels")]
    assert set(told) == pointers
    assert len(told) == len(pointers)


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("server = 1", "server"),
        ("channels = 1", "channels"),
        ("channels.a = 1", "channels.a"),
        ("rules = 1", "rules"),
        ("rules = [1]", "rules[0]"),
        ("rules = {}", "rules"),
        ("auth = 1", "auth"),
        ("auth.clients = 1", "auth.clients"),
        ("auth.clients.a = 1", "auth.clients.a"),
        ("auth.actors.a = 1", "auth.actors.a"),
        ("recipients = []", "recipients"),
        ('recipients."a@b" = 1', 'recipients."a@b"'),
        ("notifications = 1", "notifications"),
        ("notifications.on_a = 1", "notifications.on_a"),
        ("notifications.on_a = [1]", "notifications.on_a[0]"),
    ],
)
def test_a_part_of_the_wrong_shape_is_a_fault_like_any_other(text: str, pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.reads(f'{text}\nkeys.seal = ["{SEAL_KEY}"]', BROUGHT, {}).whole()
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


# --- a channel's own rules ----------------------------------------------------------------------------------


def test_a_type_of_notifyd_that_is_not_installed_says_what_to_install() -> None:
    found = faults('[channels.a]\ntype = "github"')
    assert found == {"channels.a.type": 'no plugin brings the type "github"; install notifyd-github'}


def test_a_type_that_belongs_in_another_table_says_in_which() -> None:
    brought = Brought(TYPES, {"github": ChannelType("github", TYPES["hook"].config, _never_opened)})
    found = faults('[channels.a]\ntype = "github"\n[resume.forwarders.b]\ntype = "chat"', brought=brought)
    here = "here there are: chat, direct, hook, mail"
    assert found == {
        "channels.a.type": f'"github" is a type of [resume.forwarders.NAME]; {here}',
        "resume.forwarders.b.type": '"chat" is a type of [channels.NAME]; here there are: github',
    }


def test_a_types_validators_speak_at_their_fields_all_at_once() -> None:
    assert hook_faults('port = 0\npath = "x"\npassword = "p"') == {
        "port": "'port' must be >= 1: 0",
        "path": "must begin with a slash, unlike x",
        "password": "needs a user",
    }


def test_a_types_word_on_the_whole_is_at_the_channel() -> None:
    found = faults('[channels.x]\ntype = "mail"\nfirst = 1\nsecond = 2')
    assert found == {"channels.x": "first and second exclude each other"}


def test_validators_see_what_converters_made_of_a_value() -> None:
    def with_plain(value: str, record: Any) -> str:
        return value + str(record.plain)

    aware = Converter(with_plain, takes_self=True)
    options: dict[str, Any] = {
        "plain": field(type=str, converter=str.strip, validator=validators.max_len(2)),
        "aware": field(type=str, converter=aware, validator=validators.in_(["xab"])),
    }
    converting = make_class("Converting", options)

    types = {"converting": ChannelType("converting", converting, _never_opened)}
    text = f'{KEYS}[channels.x]\ntype = "converting"\nplain = " ab "\naware = '
    assert config.reads(text + '"x"', Brought(types), {}).whole().channels["x"].config == converting(
        "ab", "x"
    )
    with pytest.raises(ConfigError) as caught:
        config.reads(text + '"y"', Brought(types), {}).whole()
    assert [fault.pointer for fault in caught.value.faults] == ["channels.x.aware"]


def test_a_type_that_fails_to_make_its_record_is_a_fault_of_the_channel() -> None:
    def no_default() -> str:
        raise KeyError("nothing to start from")

    @frozen
    class Failing:
        value: str = field(factory=no_default)

    types = {"failing": ChannelType("failing", Failing, _never_opened)}
    with pytest.raises(ConfigError, match=r"channels\.x: KeyError: nothing to start from"):
        config.reads(f'{KEYS}[channels.x]\ntype = "failing"', Brought(types), {}).whole()


def test_unknown_options_of_a_channel_are_named_beside_other_faults() -> None:
    found = hook_faults('timout = "1s"\npasword = "x"\nconcurrency = 0\nrate_limit = "fast"')
    assert found == {
        "timout": 'is not a known key; did you mean "timeout"?',
        "pasword": 'is not a known key; did you mean "password"?',
        "concurrency": "must be from 1 to 1000",
        "rate_limit": 'must be a rate, such as "1/s", "30/m" or "100/1h"',
    }


def test_a_channel_without_a_type_is_told_which_there_are() -> None:
    found = faults("[channels.x]\n[channels.y]\ntype = 1")
    assert found == {
        "channels.x.type": "is required; installed are: chat, direct, hook, mail",
        "channels.y.type": "must be a string, not an integer",
    }


@pytest.mark.parametrize("name", ["Slack", "-x", "a b", "x" * 64, "a.b", ""])
def test_a_channels_name_is_lower_case_letters_digits_and_dashes(name: str) -> None:
    (pointer,) = faults(f'[channels."{name}"]\ntype = "mail"')
    assert pointer.startswith("channels.")


def test_no_channel_is_called_resume() -> None:
    assert set(faults('[channels.resume]\ntype = "mail"')) == {"channels.resume"}


@frozen
class BoundConfig:
    mode: str = field(default="a", validator=validators.in_(("a", "b")))
    name: str = field(default="x", validator=validators.matches_re("[a-z]"))


def test_what_attrs_own_validators_refuse_is_told_without_the_value() -> None:
    types = {"bound": ChannelType("bound", BoundConfig, _never_opened)}
    with pytest.raises(ConfigError) as caught:
        config.reads(
            KEYS + '[channels.x]\ntype = "bound"\nmode = "hunter2"\nname = "hunter3"\n', Brought(types), {}
        ).whole()
    assert {fault.pointer: fault.message for fault in caught.value.faults} == {
        "channels.x.mode": 'must be one of "a", "b"',
        "channels.x.name": "must match the pattern [a-z]",
    }


# --- what must agree ----------------------------------------------------------------------------------------


def rule_faults(options: str) -> dict[str, str]:
    found = faults(f'{CHANNELS}[[rules]]\nname = "r"\nwhen = "true"\n{options}')
    return {pointer.removeprefix("rules.r."): message for pointer, message in found.items()}


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ("channels = []", "channels"),
        ('channels = ["hook", "hook"]', "channels[1]"),
        ('channels = ["hook"]\nto = ["a@b.example"]', "to"),
        ('channels = ["hook"]\nlists = ["a@b.example"]', "lists"),
        ('channels = ["hook", "mail"]', "to"),
        ('channels = ["mail"]\nto = ["a@b.example", "A <a@B.example>"]', "to[1]"),
        ('channels = ["mail"]\nto = ["a"]', "to[0]"),
        ('channels = ["mail"]\nto = ["a@b.example, c@d.example"]', "to[0]"),
        ('channels = ["mail"]\nto = ["а@b.example"]', "to[0]"),  # a Cyrillic letter alone
        ('channels = ["mail"]\nto = [" "]', "to[0]"),
        ('channels = ["mail"]\nto = ["a\\nb"]', "to[0]"),
        ('channels = ["hook"]\ngroup_wait = "1s"', "group_wait"),
        ('channels = ["hook"]\ngroup_by = ["runId"]', "group_by"),
        ('channels = ["hook"]\ngroup_by = ["a b"]\ngroup_wait = "1s"', "group_by[0]"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(options: str, pointer: str) -> None:
    assert set(rule_faults(options)) == {pointer}


def test_what_depends_on_an_unknown_channel_is_not_guessed_at() -> None:
    assert set(rule_faults('channels = ["nobody"]\nto = ["a@b.example"]')) == {"channels[0]"}


@pytest.mark.parametrize("key", ["task_done", "on_", "on", "on_a__b", "on_a.b", "ON_a"])
def test_the_shorthands_key_begins_with_on(key: str) -> None:
    (pointer,) = faults(f'{CHANNELS}[notifications]\n"{key}" = ["hook"]')
    assert pointer.startswith("notifications.")


def test_the_shorthand_cannot_reach_named_people_nor_take_a_rules_name() -> None:
    found = faults(
        CHANNELS
        + """
        [notifications]
        on_a = ["mail"]
        on_b = ["hook"]
        [[rules]]
        name = "notifications.on_b"
        when = "true"
        channels = ["hook"]
        """
    )
    assert set(found) == {"notifications.on_a[0]", "notifications.on_b"}


def test_a_client_that_nobody_can_be_is_refused_and_so_is_a_token_of_two() -> None:
    found = faults(
        f"""
        [auth.clients.nobody]
        [auth.clients.one]
        token_hashes = ["{TOKEN_HASH}"]
        [auth.clients.two]
        token_hashes = ["{TOKEN_HASH}"]
        [auth.clients."a b"]
        token_hashes = ["sha256:{"1" * 64}"]
        """
    )
    assert set(found) == {"auth.clients.nobody", "auth.clients.two.token_hashes[0]", 'auth.clients."a b"'}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token_hashes", "0a" * 32),
        ("token_hashes", "sha256:xyz"),
        ("hmac_secrets", "plain"),
        ("tenants", "a b"),
        ("tenants", ".."),
        ("grants", ""),
        ("act_as", ""),
    ],
)
def test_a_clients_lists_are_checked_entry_by_entry(key: str, value: str) -> None:
    found = faults(f'[auth.clients.c]\n{key} = ["{value}"]')
    assert f"auth.clients.c.{key}[0]" in found


def test_a_client_shares_with_other_clients_that_there_are() -> None:
    secret = f'token_hashes = ["{TOKEN_HASH}"]'
    found = faults(f'[auth.clients.a]\n{secret}\nshares = ["a", "b", "c"]\n[auth.clients.b]\nshares = ["a"]')
    assert found["auth.clients.a.shares[0]"] == 'there is no other client "a"; there are: b'
    assert "auth.clients.a.shares[2]" in found
    assert not {"auth.clients.a.shares[1]", "auth.clients.b.shares[0]"} & set(found)


def test_one_alias_names_one_person() -> None:
    found = faults(
        """
        [auth.actors]
        "alice@acme.example" = ["u1", "Shared"]
        "bruno@acme.example" = ["shared", "ALICE@acme.example"]
        "BRUNO@acme.example" = []
        """
    )
    assert set(found) == {
        'auth.actors."bruno@acme.example"[0]',
        'auth.actors."bruno@acme.example"[1]',
        'auth.actors."BRUNO@acme.example"',
    }


def test_recipients_that_differ_in_case_alone_are_one_person() -> None:
    found = faults('[recipients."a@b.example"]\n[recipients."A@b.example"]')
    assert set(found) == {'recipients."A@b.example"'}


BY_ADDRESS = """
[channels.direct]
type = "direct"
[[rules]]
name = "r"
when = "true"
channels = ["direct"]
to = ["alice@acme.example", "BOB@acme.example"]
[recipients."alice@acme.example"]
addresses = {direct = "4711"}
"""


def test_whoever_is_named_over_channels_that_need_an_address_has_one() -> None:
    assert faults(BY_ADDRESS) == {"rules.r.to[1]": "has no address for direct in [recipients]"}
    bob = '[recipients."bob@acme.example"]\naddresses = {direct = "4712", mail = "bob@home.example"}'
    assert load(BY_ADDRESS + bob).recipients["bob@acme.example"].addresses["mail"] == "bob@home.example"
    # Over mail everybody can be reached, by their name.
    assert load(BY_ADDRESS.replace('["direct"]', '["direct", "mail"]') + CHANNELS).rules[0].to


def test_a_channel_may_reach_named_people_by_its_options() -> None:
    shared = BY_ADDRESS.replace('type = "direct"', 'type = "direct"\nroom = "ops"')
    assert faults(shared) == {"rules.r.to": "needs a channel that reaches named people, such as email"}


def test_an_address_is_of_a_known_type_and_of_one_person() -> None:
    one, other = '[recipients."a@b.example"]', '[recipients."c@d.example"]'
    found = faults(f'{one}\naddresses = {{mail = "x", fax = "1"}}\n{other}\naddresses = {{mail = "x"}}')
    assert found == {
        'recipients."a@b.example".addresses.fax': 'no plugin brings the type "fax"; installed are: '
        "chat, direct, hook, mail",
        'recipients."c@d.example".addresses.mail': 'is the address of "a@b.example" too',
    }


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])  # noqa: S104 - nothing is bound
def test_who_listens_everywhere_says_where_links_lead(host: str) -> None:
    listen = f'[server]\nlisten = "{host}:8686"\n'
    assert set(faults(listen)) == {"server.public_url"}
    assert load(f'{listen}public_url = "https://n.example"').server.public_url == "https://n.example"


@pytest.mark.parametrize("host", ["localhost", "notify.acme.example", "[::1]", "192.0.2.1"])
def test_who_listens_at_one_address_needs_no_public_url(host: str) -> None:
    server = load(f'[server]\nlisten = "{host}:0"').server
    assert server.public_url == f"http://{host}:0"
    assert str(server.listen) == f"{host}:0"


def test_seal_keys_are_32_bytes_and_differ() -> None:
    short = base64.b64encode(b"x" * 16).decode()
    found = faults("", keys=f'[keys]\nseal = ["{SEAL_KEY}", "{short}", "?", 1]')
    assert set(found) == {"keys.seal[1]", "keys.seal[2]", "keys.seal[3]"}
    assert set(faults("", keys=f'[keys]\nseal = ["{SEAL_KEY}", "{SEAL_KEY}"]')) == {"keys.seal[1]"}
    assert set(faults("", keys="keys.seal = []")) == {"keys.seal"}


# --- secrets ------------------------------------------------------------------------------------------------

HIDDEN_VALUE = "hunter2-sensitive-value"


@pytest.mark.parametrize(
    "text",
    [
        '[server]\nlisten = "${S}"',
        '[server]\npublic_url = "${S}"',
        '[server]\nmax_body = "${S}"',
        '[server]\nip_allowlist = ["${S}"]',
        '[store]\nurl = "${S}"',
        '[auth.clients.c]\nhmac_secrets = ["${S}"]',
        '[auth.clients.c]\nhmac_secrets = ["whsec_${S}"]',
        '[auth.clients.c]\ntoken_hashes = ["${S}"]',
        '[auth.clients.c]\nscopes = ["${S}"]',
        '[channels.x]\ntype = "${S}"',
        '[channels.x]\ntype = "hook"\nurl = "u"\npath = "${S}"',
        '[channels.x]\ntype = "hook"\nurl = "u"\npath = "x/${S}/y"',
        '[channels.x]\ntype = "hook"\nurl = "u"\nport = "${S}"',
        '[[rules]]\nname = "${S}!"\nwhen = "true"\nchannels = ["${S}"]',
        '[approvals]\nlinks = "${S}"',
        '[dispatch]\nbackoff = "${S}"',
        '[resume]\nallowed_origins = ["${S}"]',
        '[egress]\nallow_private = ["${S}!"]',
        '[templates]\ndirs = ["${S}"]\ndefault_locale = "${S}"',
    ],
)
def test_no_error_shows_what_a_placeholder_gave(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, environ={"S": HIDDEN_VALUE})
    assert "hunter2" not in str(caught.value)
    assert "sensitive" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.faults)


def test_no_error_shows_a_secret_that_stands_in_the_file() -> None:
    @frozen
    class Telling:
        token: Secret

        def __attrs_post_init__(self) -> None:
            raise ValueError(f"the token {self.token.reveal()!r} is refused")

    types = {"telling": ChannelType("telling", Telling, _never_opened)}
    with pytest.raises(ConfigError) as caught:
        config.reads(
            f'{KEYS}[channels.x]\ntype = "telling"\ntoken = "{HIDDEN_VALUE}"', Brought(types), {}
        ).whole()
    assert str(caught.value) == "channels.x: the token '***' is refused"


def test_no_print_of_settings_shows_a_secret() -> None:
    settings = load(
        f"""
        [store]
        url = "mongodb://user:{HIDDEN_VALUE}@host/db"
        [channels.x]
        type = "hook"
        url = "https://{HIDDEN_VALUE}/"
        [resume]
        secrets = ["{SIGNING_SECRET}"]
        """
    )
    printed = (
        repr(settings) + config.as_toml(config.describe(settings)) + json.dumps(config.describe(settings))
    )
    for secret in config.secrets(settings):
        assert secret.reveal() not in printed


def test_secrets_lists_every_configured_secret_once() -> None:
    settings = load(
        f"""
        [store]
        url = "mongodb://user:mongo-pw@one,two/db"
        [auth.clients.c]
        hmac_secrets = ["{SIGNING_SECRET}"]
        [resume]
        secrets = ["{SIGNING_SECRET}"]
        [channels.x]
        type = "hook"
        url = "${{URL}}"
        user = "u"
        password = "pw"
        headers = {{"X-Key" = "key"}}
        """,
        environ={"URL": "https://secret.example/"},
    )
    texts = [secret.reveal() for secret in config.secrets(settings)]
    assert len(texts) == len(set(texts))
    assert set(texts) == {
        "mongo-pw",
        SEAL_KEY,
        SIGNING_SECRET,
        "https://secret.example/",
        "pw",
        "key",
    }


# --- told back ----------------------------------------------------------------------------------------------

FULL = """
[server]
listen = "127.0.0.1:9000"
node = "n"
[store]
url = "sqlite:///x.db"
[auth.actors]
"alice@acme.example" = ["00u1ab"]
[channels.chat]
type = "chat"
rate_limit = "100/6h"
first = 3
timeout = "90s"
[channels.mail]
type = "mail"
[[rules]]
name = "r"
when = 'event.kind == "x" && event.title == "a\\"b"'
channels = ["chat", "mail"]
to = ["alice@acme.example"]
group_by = ["runId"]
group_wait = "30s"
quiet_hours = {from = "22:00", to = "07:00", zone = "Europe/Zurich"}
[notifications]
on_task_done = ["chat"]
[recipients."alice@acme.example"]
locale = "de-CH"
[egress]
allow_private = ["10.0.0.0/8", "runner.internal"]
"""


def test_the_description_is_plain_data_as_an_operator_writes_it() -> None:
    tree = config.describe(load(FULL))
    assert json.loads(json.dumps(tree)) == tree
    assert tree["keys"] == {"seal": ["***"], "sign": []}
    assert tree["server"]["max_body"] == "256KiB"
    assert tree["dispatch"]["backoff"] == "1s..15m"
    assert tree["channels"]["chat"] == {
        "type": "chat",
        "first": 3,
        "rate_limit": "100/6h",
        "concurrency": 4,
        "timeout": "90s",
    }
    assert [rule["name"] for rule in tree["rules"]] == ["r"]
    assert tree["rules"][0]["quiet_hours"] == {"from": "22:00", "to": "07:00", "zone": "Europe/Zurich"}
    assert tree["notifications"] == {"on_task_done": ["chat"]}
    assert tree["egress"]["allow_private"] == ["10.0.0.0/8", "runner.internal"]


def test_the_description_as_toml_loads_as_the_same_settings() -> None:
    settings = load(FULL)
    text = config.as_toml(config.describe(settings)).replace('"***"', f'"{SEAL_KEY}"')
    assert config.reads(text, BROUGHT, {}).whole() == settings


def test_what_only_a_restart_can_change_is_named() -> None:
    old = load("")
    assert config.frozen_changes(old, load("[dispatch]\nmax_attempts = 3")) == []
    new = load(
        '[server]\nlisten = "127.0.0.1:1"\nnode = "n"\n[store]\nurl = "sqlite:///x.db"\n'
        '[dispatch]\nclock_skew = "1s"'
    )
    changed = ["server.listen", "server.node", "store.url", "dispatch.clock_skew"]
    assert config.frozen_changes(old, new) == changed


def test_whom_break_glass_is_told_to_needs_a_channel_that_reaches_people_and_no_name_twice() -> None:
    told = '[approvals]\nbreakglass_to = ["Ciso@acme.example", "ciso@ACME.example"]\n'
    assert faults(told) == {
        "approvals.breakglass_to[1]": "is named twice",
        "approvals.breakglass_to": "needs a channel that reaches named people, such as email",
    }


def deputies(**others: str) -> str:
    return "\n".join(
        f'[recipients."{name}@acme.example"]\ndeputy = {{{text}}}' for name, text in others.items()
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (deputies(alice='to = "Alice@ACME.example", from = 2026-12-20, until = 2026-12-20'), ["to"]),
        (deputies(alice='to = "bob@acme.example", from = 2026-12-20, until = 2026-12-19'), ["until"]),
        (
            deputies(alice='to = "bob@acme.example", from = 2026-12-20T08:00:00, until = "soon"'),
            ["from", "until"],
        ),
        (deputies(alice='to = "", from = 2026-12-20'), ["to", "until"]),
    ],
)
def test_a_deputy_is_another_person_for_days_that_there_are(text: str, told: list[str]) -> None:
    found = faults(text)
    assert [path.rpartition(".")[2] for path in found] == told


def test_a_deputy_has_none_of_their_own_on_the_same_days() -> None:
    alice = 'to = "bob@acme.example", from = 2026-12-20, until = 2027-01-06'
    for until, refused in (("2027-01-05", False), ("2027-01-06", True)):
        bob = f'to = "alice@acme.example", from = {until}, until = 2027-01-20'
        text = deputies(alice=alice, bob=bob.replace("2027-01-05", "2027-01-07"))
        if refused:
            assert {path.rpartition(".")[0][-6:] for path in faults(text)} == {"deputy"}
        else:
            assert load(text).recipients["bob@acme.example"].deputy is not None


# --- the console -------------------------------------------------------------------------------------------

OIDC = '[auth.oidc]\nissuer = "https://login.example"\nclient_id = "n"\nclient_secret = "s"\n'


def test_the_console_is_off_and_a_person_may_only_look_unless_it_is_said_otherwise() -> None:
    text = f'{OIDC}[console.operators."alice@acme.example"]\ntenants = ["acme"]\n'
    console = load(text).console
    assert (load("").console.enabled, console.enabled) == (False, False)
    assert console.operators["alice@acme.example"].scopes == (Scope.READ,)


def test_the_console_wants_a_way_to_it_that_nobody_listens_to() -> None:
    enabled, fault = "[console]\nenabled = true\n", "needs an https address in server.public_url"
    for url in ("https://notifyd.example", "http://127.0.0.1:8686"):
        assert load(f'[server]\npublic_url = "{url}"\n{enabled}').console.enabled
    assert load(enabled).console.enabled  # it listens on this machine alone
    assert faults(f'[server]\npublic_url = "http://notifyd.example"\n{enabled}') == {"console.enabled": fault}


def test_an_operator_has_a_name_of_their_own_a_tenant_and_a_place_to_sign_in() -> None:
    at = "console.operators."
    aliases = '[auth.actors]\n"alice@acme.example" = ["00u1ab"]\n'
    one = '[console.operators.{}]\ntenants = ["acme"]\n'.format
    assert faults(one('"a@b.example"')) == {f'{at}"a@b.example"': "needs [auth.oidc]: where people sign in"}
    found = faults(f"{OIDC}{aliases}{one('00u1ab')}{one(chr(34) + 'Alice@acme.example' + chr(34))}")
    assert found == {f'{at}"Alice@acme.example"': 'is the same person as "00u1ab"'}
    (unfit,) = faults(OIDC + one('"ali\\u200bce"'))  # an invisible character
    assert unfit.startswith(at)
    found = faults(f'{OIDC}[console.operators.ann]\nscopes = ["Notifier.Operate"]\n')
    assert found == {
        f"{at}ann.scopes": 'needs "Notifier.Read" to look at anything',
        f"{at}ann.tenants": "needs at least one tenant, else there is nothing to see",
    }
