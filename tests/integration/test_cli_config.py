"""The commands that need no running service: check-config, plugins, keygen, and help."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest
import tomli

from notifyd.cli import COMMANDS
from notifyd.security.secrets import Secret
from notifyd.security.signing import public_text, secret_bytes, signing_key
from tests import events
from tests.forked import notifyd
from tests.process import SEAL_KEY, SECRET

GOOD: Final = f"""
[keys]
seal = ["{SEAL_KEY}"]

[auth.clients.task-runner]
hmac_secrets = ["{SECRET}"]
scopes = ["Notifier.Events:Write"]
tenants = ["acme"]

[channels.hook]
type = "webhook"
url = "https://hook.acme.example/in/the-path-is-secret"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval"'
channels = ["hook"]
"""


def write(path: Path, text: str) -> None:
    path.write_text(text)


def config_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "notifyd.toml"
    path.write_text(GOOD)
    return path


def test_a_command_whose_output_finds_no_room_says_so_in_a_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "notifyd", "contract"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["notifyd: standard output: No space left on device"]


async def test_what_the_encoding_of_standard_output_lacks_is_shown_by_its_number(config: Path) -> None:
    asked = ("render", "pack-approval", "-", "--locale", "ja", "--config", config)
    shown = await notifyd(*asked, environ={"PYTHONIOENCODING": "ascii"}, given=events.raw("requested-en"))
    assert shown.code == 0, shown.stderr
    assert "\\u" in shown.stdout


@pytest.fixture
def broken_plugin(tmp_path: Path) -> dict[str, str]:
    """An environment in which a plugin is installed that cannot be imported."""
    site = tmp_path / "site"
    info = site / "notifyd_broken-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "broken_channel.py").write_text("import no_such_module_anywhere\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notifyd-broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[notifyd]\nbroken = broken_channel\n")
    return {"PYTHONPATH": str(site)}


# --- check-config -------------------------------------------------------------------------------------------


async def test_check_config_prints_what_it_understood_and_no_secret(config: Path) -> None:
    result = await notifyd("check-config", "--config", config)
    assert (result.code, result.stderr) == (0, "")
    understood = tomli.loads(result.stdout)
    assert understood["server"]["listen"] == "127.0.0.1:8686"
    assert understood["auth"]["clients"]["task-runner"]["hmac_secrets"] == ["***"]
    for secret in (SEAL_KEY, SECRET, "the-path-is-secret"):
        assert secret not in result.stdout


async def test_check_config_prints_json(config: Path) -> None:
    result = await notifyd("check-config", "--config", config, "--json")
    assert result.code == 0
    assert result.json["ok"] is True
    assert result.json["config"]["channels"]["hook"]["type"] == "webhook"


async def test_check_config_takes_its_file_from_the_environment(config: Path) -> None:
    result = await notifyd("check-config", environ={"NOTIFYD_CONFIG": str(config)})
    assert result.code == 0


async def test_check_config_names_every_fault_with_file_and_path(config: Path) -> None:
    write(config, GOOD.replace('type = "webhook"', 'type = "carrier-pigeon"') + "\n[serve]\n")
    result = await notifyd("check-config", "--config", config)
    assert (result.code, result.stdout) == (1, "")
    faults = result.stderr.splitlines()
    assert any(line.startswith(f"{config}:11: channels.hook.type: no plugin brings") for line in faults)
    assert any(line.startswith(f"{config}:19: serve: ") for line in faults)


MANY_IN_ONE_TABLE: Final = """
[channels.hook]
type = "webhook"
url = "nowhere"
secret = 1
[[rules]]
name = "approvals"
when = 'event.kind =='
channels = ["hook", "nobody"]
template = 3
group_by = ["runId"]
remind = ["1h",
  "60m"]
[[rules]]
when = 'unknown'
channels = ["hook"]
"""


async def test_all_faults_of_one_table_are_told_at_once_each_with_its_line(config: Path) -> None:
    write(config, GOOD.partition("[channels.hook]")[0] + MANY_IN_ONE_TABLE)
    result = await notifyd("check-config", "--config", config, "--json")
    lines = config_lines(config)
    assert {fault["pointer"]: lines[fault["line"] - 1] for fault in result.json["faults"]} == {
        "channels.hook.url": 'url = "nowhere"',
        "channels.hook.secret": "secret = 1",
        "rules.approvals.when": "when = 'event.kind =='",
        "rules.approvals.channels[1]": 'channels = ["hook", "nobody"]',
        "rules.approvals.template": "template = 3",
        "rules.approvals.group_by": 'group_by = ["runId"]',
        "rules.approvals.remind[1]": '  "60m"]',
        "rules[1].name": "[[rules]]",
        "rules[1].when": "when = 'unknown'",
    }
    assert len(result.json["faults"]) == 9


async def test_what_does_not_compile_and_what_does_not_open_is_told_at_once(config: Path) -> None:
    private = GOOD.replace("hook.acme.example", "10.0.0.1") + '[server.tls]\ncert = "missing.pem"\n'
    for when in ("no_such", "event.runId"):
        write(config, private.replace('event.kind == "pack.approval"', when))
        result = await notifyd("check-config", "--config", config, "--json")
        assert {fault["pointer"] for fault in result.json["faults"]} == {
            "rules.approvals.when",
            "server.tls.cert",
            "channels.hook.url",
        }


async def test_a_when_that_is_no_boolean_is_told_beside_faults_of_other_keys(config: Path) -> None:
    write(config, GOOD.replace('event.kind == "pack.approval"', "event.runId") + "[serve]\n")
    result = await notifyd("check-config", "--config", config, "--json")
    assert [fault["pointer"] for fault in result.json["faults"]] == ["rules.approvals.when", "serve"]


async def test_check_config_gives_faults_as_json(config: Path) -> None:
    write(config, GOOD + "\n[serve]\n")
    result = await notifyd("check-config", "--config", config, "--json")
    assert result.code == 1
    assert result.json["ok"] is False
    assert [fault["pointer"] for fault in result.json["faults"]] == ["serve"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (('event.kind == "pack.approval"', "event.kind =="), "rules.approvals.when"),
        (("[keys]", '[store]\nurl = "sqlite:///"\n[keys]'), "store.url"),
        (("[keys]", '[store]\nurl = "sqlite:///folder/"\n[keys]'), "store.url"),
    ],
    ids=["a rule that does not compile", "a store of no kind", "a store that is a folder"],
)
async def test_check_config_refuses_what_a_start_would_refuse(
    change: tuple[str, str], pointer: str, config: Path
) -> None:
    write(config, GOOD.replace(*change))
    result = await notifyd("check-config", "--config", config)
    assert result.code == 1
    assert re.search(rf"^{config}:\d+: {pointer}: ", result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        (
            ("channels = [", 'template = "pack-aproval"\nchannels = ['),
            "rules.approvals.template",
            "pack-approval",
        ),
        (
            ('event.kind == "pack.approval"', "event.runId"),
            "rules.approvals.when",
            "`event.runId` is a string",
        ),
        (
            ("https://hook.acme.example", "https://127.0.0.1"),
            "channels.hook.url",
            "its address is not public",
        ),
        (
            ("https://hook.acme.example", "https://localhost"),
            "channels.hook.url",
            "its address is not public",
        ),
        (("https://hook.acme.example", "https://0x7f.1"), "channels.hook.url", "its address is not public"),
        (("[keys]", '[heartbeat]\nurl = "http://10.1.2.3"\n[keys]'), "heartbeat.url", "is not public"),
        (
            ("[keys]", '[resume]\nallowed_origins = ["https://[fd00::1]"]\n[keys]'),
            "resume.allowed_origins[0]",
            "is not public",
        ),
        (
            ("[keys]", '[store]\nurl = "sqlite:////no/such/place.db"\n[keys]'),
            "store.url",
            "the folder /no/such",
        ),
        (("[keys]", '[store]\nurl = "sqlite:////usr"\n[keys]'), "store.url", "/usr is a folder"),
        (
            ("[keys]", '[store]\nurl = "mongodb://host:xx/notifications"\n[keys]'),
            "store.url",
            "is no URL of a MongoDB database",
        ),
        (
            ('event.kind == "pack.approval"', "event.kind > 3"),
            "rules.approvals.when",
            "`event.kind > 3` fails on every event",
        ),
    ],
)
async def test_check_config_refuses_what_could_never_work(
    change: tuple[str, str], pointer: str, message: str, config: Path
) -> None:
    write(config, GOOD.replace(*change))
    result = await notifyd("check-config", "--config", config, "--json")
    assert result.code == 1
    assert [fault["pointer"] for fault in result.json["faults"]] == [pointer]
    assert message in result.json["faults"][0]["message"]


async def test_check_config_takes_a_private_address_that_egress_allows(config: Path) -> None:
    allowed = '[egress]\nallow_private = ["127.0.0.0/8", "localhost"]\n'
    for address in ("127.0.0.1", "localhost"):
        write(config, GOOD.replace("hook.acme.example", address) + allowed)
        assert (await notifyd("check-config", "--config", config)).code == 0


async def test_check_config_ends_with_ok_and_what_there_is(config: Path) -> None:
    last = (await notifyd("check-config", "--config", config)).stdout.splitlines()[-1]
    assert last == "# OK: 1 rule, 1 channel, 1 client, 0 recipients, 0 warnings"


DOUBTFUL: Final = {
    "rules.spelt.when": '[[rules]]\nname = "spelt"\nwhen = "event.kindd == 1"\nchannels = ["hook"]',
    "rules.spelt.group_by[1]": 'group_by = ["labels.x", "runid"]\ngroup_wait = "30s"',
    "channels.spare": '[channels.spare]\ntype = "log"',
    'recipients."bob@acme.example"': '[recipients."bob@acme.example"]',
    "retention.audit": '[retention]\naudit = "1m"',
    "auth.clients.typed.hmac_secrets[0]": "[auth.clients.typed]\n"
    f'hmac_secrets = ["whsec_{base64.b64encode(b"a" * 32).decode()}"]',
    "auth.clients.shown.token_hashes[0]": "[auth.clients.shown]\n"
    f'token_hashes = ["sha256:{hashlib.sha256(b"test").hexdigest()}"]',
}


async def test_check_config_warns_of_what_can_hardly_be_meant_and_strict_refuses_it(config: Path) -> None:
    write(config, GOOD + "\n".join(DOUBTFUL.values()))
    open_to_all(config)
    result = await notifyd("check-config", "--config", config, "--json")
    assert result.code == 0
    assert [one["pointer"] for one in result.json["warnings"]] == [*DOUBTFUL, str(config)]
    strict = await notifyd("check-config", "--config", config, "--strict")
    assert strict.code == 1
    assert "# OK" not in strict.stdout
    assert strict.stderr.count("warning: ") == len(DOUBTFUL) + 1
    assert strict.stderr.splitlines()[-1] == f"not ok: {len(DOUBTFUL) + 1} warnings, and --strict takes none"
    assert (await notifyd("check-config", "--config", config, "--strict", "--json")).json["ok"] is False


@pytest.mark.parametrize("name", ["texts", "texts/pack-approval.en.txt", "secret"])
async def test_check_config_warns_of_each_file_that_anybody_may_write(
    name: str, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "pack-approval.en.txt").write_text(
        "{% block title %}x{% endblock %}{% block body %}y{% endblock %}"
    )
    (tmp_path / "secret").write_text(SECRET)
    named = GOOD.replace(f'"{SECRET}"', '"${file:secret}"')
    write(config, named + '[templates]\ndirs = ["texts"]\n')
    assert (await notifyd("check-config", "--config", config, "--strict")).code == 0
    open_to_all(tmp_path / name)
    result = await notifyd("check-config", "--config", config, "--strict")
    assert (result.code, result.stderr.count("anybody may write it: chmod o-w")) == (1, 1)
    assert str(tmp_path / name) in result.stderr


async def test_check_config_refuses_a_template_that_does_not_compile(config: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "pack-approval.en.txt").write_text("{% if %}")
    write(config, GOOD + '\n[templates]\ndirs = ["texts"]\n')
    result = await notifyd("check-config", "--config", config)
    assert result.code == 1
    assert "pack-approval.en.txt" in result.stderr


@pytest.mark.parametrize("text", ["x = " + "[" * 2000 + "]" * 2000, "a." * 2000 + "b = 1"])
async def test_a_file_that_is_nested_too_deeply_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notifyd.toml"
    write(path, text)
    fault = f"{path}: has tables or arrays that are nested too deeply"
    result = await notifyd("check-config", "--config", path)
    assert (result.code, result.stderr) == (1, f"{fault}\n")
    examined = await notifyd("doctor", "--json", "--config", path)
    assert (examined.code, examined.stderr) == (1, "")
    assert fault in [finding["detail"] for finding in examined.json["findings"]]


async def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    result = await notifyd("check-config", "--config", missing)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == (
        f"{missing}: cannot be read: No such file or directory: --config, or NOTIFYD_CONFIG, says where it is\n"
    )


async def test_a_broken_plugin_is_named_and_does_not_fail_a_configuration_without_it(
    config: Path, broken_plugin: dict[str, str]
) -> None:
    result = await notifyd("check-config", "--config", config, environ=broken_plugin)
    assert result.code == 0
    assert "broken (notifyd-broken)" in result.stderr
    assert "no_such_module_anywhere" in result.stderr


async def test_a_bad_template_of_an_installed_package_is_named_and_fails_no_configuration(
    config: Path, broken_plugin: dict[str, str]
) -> None:
    site = Path(broken_plugin["PYTHONPATH"])
    (site / "broken_channel.py").unlink()
    package = site / "broken_channel"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from notifyd.plugin import TemplateSource, hookimpl\n"
        "@hookimpl\ndef notifyd_template_sources():\n    return [TemplateSource('broken_channel')]\n"
    )
    (package / "templates" / "event.en.txt").write_text("\n{{ never")
    result = await notifyd("check-config", "--config", config, "--json", environ=broken_plugin)
    assert result.code == 0
    (fault,) = result.json["templateFaults"]
    assert fault["pointer"] == "broken_channel/templates/event.en.txt:2"
    assert f"a plugin's template is left out: {fault['pointer']}" in result.stderr


async def test_check_config_warns_of_a_template_that_costs_too_much(config: Path, tmp_path: Path) -> None:
    nested = "{% for a in range(1000) %}" * 3 + "{% endfor %}" * 3
    folder = tmp_path / "templates"
    folder.mkdir()
    write(
        folder / "slow.en.txt",
        f"{{% block title %}}t{{% endblock %}}{{% block body %}}\n{nested}{{% endblock %}}",
    )
    write(config, GOOD + f'[templates]\ndirs = ["{folder}"]\n')
    result = await notifyd("check-config", "--config", config)
    assert result.code == 0
    assert "slow.en.txt:2" in result.stderr
    assert "costs too much: takes more than 200,000 steps" in result.stderr


# --- plugins ------------------------------------------------------------------------------------------------


async def test_plugins_lists_each_with_what_it_provides() -> None:
    result = await notifyd("plugins")
    assert result.code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["plugin", "distribution", "version", "provides"]
    assert ["webhook", "notifyd-webhook", "0.1.0", "channel webhook"] in rows


async def test_plugins_names_a_broken_one_and_fails(broken_plugin: dict[str, str]) -> None:
    result = await notifyd("plugins", "--json", environ=broken_plugin)
    assert result.code == 1
    assert "webhook" in {plugin["name"] for plugin in result.json["plugins"]}
    (fault,) = result.json["pluginFaults"]
    assert fault["plugin"] == "broken (notifyd-broken)"
    assert "no_such_module_anywhere" in fault["message"]


# --- keygen -------------------------------------------------------------------------------------------------


async def test_keygen_makes_a_seal_key_that_is_new_each_time() -> None:
    first, second = await notifyd("keygen"), await notifyd("keygen")
    assert len(base64.b64decode(first.stdout, validate=False)) == 32
    assert first.stdout != second.stdout


async def test_keygen_makes_a_signing_secret() -> None:
    result = await notifyd("keygen", "--hmac")
    assert len(secret_bytes(Secret(result.stdout.strip()))) == 32


async def test_keygen_makes_a_signing_key_and_its_public_one() -> None:
    key, public = (await notifyd("keygen", "--sign")).stdout.split()
    assert public_text(signing_key(Secret(key))) == public


async def test_keygen_makes_a_token_and_the_line_for_the_configuration() -> None:
    result = await notifyd("keygen", "--token")
    token, line = result.stdout.splitlines()
    assert line == f'token_hashes = ["sha256:{hashlib.sha256(token.encode()).hexdigest()}"]'


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ([], ["sealKey"]),
        (["--hmac"], ["hmacSecret"]),
        (["--token"], ["token", "tokenHash"]),
        (["--sign"], ["signKey", "publicKey"]),
    ],
)
async def test_keygen_prints_json(option: list[str], names: list[str]) -> None:
    assert list((await notifyd("keygen", "--json", *option)).json) == names


# --- the command line itself --------------------------------------------------------------------------------


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), group


EVERY: Final = dict(pair for name, entry in COMMANDS.items() for pair in commands(entry.load(), (name,)))


@pytest.mark.parametrize("name", EVERY)
def test_every_command_takes_a_configuration_and_tells_what_it_is_for(name: str) -> None:
    options = {option for parameter in EVERY[name].params for option in parameter.opts}
    assert "--config" in options
    assert EVERY[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_found_under_its_own_name(name: str) -> None:
    assert COMMANDS[name].load().name == name


async def test_wrong_usage_exits_with_2() -> None:
    for arguments in (["no-such-command"], ["serve", "--no-such-option"], ["serve", "--log-level", "loud"]):
        result = await notifyd(*arguments)
        assert (result.code, result.stdout) == (2, "")
        assert "Usage: notifyd" in result.stderr


async def test_help_and_version_are_there() -> None:
    listed = (await notifyd("--help")).stdout
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in COMMANDS)
    assert re.fullmatch(r"notifyd, version \d+\.\d+\.\d+\n", (await notifyd("--version")).stdout)


def test_help_and_calls_to_a_service_load_neither_the_daemon_nor_its_libraries() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from notifyd.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(cli, ['send', '--help']).exit_code == 0\n"
        "heavy = {'aiohttp', 'babel', 'cel', 'jinja2', 'motor', 'notifyd.service', 'pluggy', 'rich', 'uvloop'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
