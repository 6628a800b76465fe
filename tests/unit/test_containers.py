"""The image and the composition agree with the files they take and with the configuration that they start."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from notifyd.cli import COMMANDS
from notifyd.config import load as config
from notifyd.registry.discovery import discover

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = (ROOT / "Containerfile").read_text()
COMPOSITION: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: Final = COMPOSITION["services"]
CONFIGURATION: Final = ROOT / "conf" / "examples" / "compose.toml"


def copied() -> list[str]:
    """The paths that the image takes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", IMAGE, re.MULTILINE)
    return [path for line in lines for path in line.split()[:-1]]


def test_what_the_image_takes_is_there_and_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line[0] == "!"}
    assert copied()
    for path in copied():
        assert (ROOT / path).exists()
        assert any(Path(path).match(one) or path.rstrip("/") == one for one in let_in), path


def test_the_image_installs_by_hashes_and_runs_as_a_user_without_rights() -> None:
    assert "--require-hashes -r requirements/production.txt -r requirements/build.txt" in IMAGE
    assert re.findall(r"^USER (.+)$", IMAGE, re.MULTILINE) == ["8686:8686"]
    assert re.findall(r"^ENTRYPOINT (.+)$", IMAGE, re.MULTILINE) == ['["notifyd"]']


def test_the_health_check_asks_by_the_configuration_that_the_image_starts_with() -> None:
    (words,) = re.findall(r"^HEALTHCHECK .* CMD (.+)$", IMAGE, re.MULTILINE)
    program, command, *arguments = json.loads(words)
    assert program == "notifyd"
    checked = COMMANDS[command].load().make_context(command, arguments).params
    (started,) = re.findall(r"^CMD (.+)$", IMAGE, re.MULTILINE)
    serve, *options = json.loads(started)
    assert COMMANDS[serve].load().make_context(serve, options).params["config_path"] == checked["config_path"]
    (patience,) = re.findall(r"--timeout=(\d+)s", IMAGE)
    assert checked["timeout"] < int(patience)


def test_what_the_composition_mounts_is_there() -> None:
    mounted = [mount for one in SERVICES.values() for mount in one["volumes"] if mount.startswith("./")]
    assert len(mounted) == 2
    for mount in mounted:
        source, _, mode = mount.split(":")
        assert (ROOT / source).is_file()
        assert mode == "ro"


def test_every_service_of_the_composition_has_as_few_rights_as_it_needs() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_its_configuration_loads_with_its_secrets_and_lets_its_network_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = set(SERVICES["notifyd"]["secrets"])
    assert set(re.findall(r"\$\{cred:([a-z-]+)\}", CONFIGURATION.read_text())) == named
    for name in named:
        (tmp_path / name).write_text(("whsec_" if name.endswith("secret") else "") + "A" * 43 + "=")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = config.read(CONFIGURATION, discover().brought, environ).whole()
    (network,) = COMPOSITION["networks"]["default"]["ipam"]["config"]
    assert ip_network(network["subnet"]) in settings.server.ip_allowlist
    assert ip_network(network["subnet"]) in settings.server.metrics_allowlist
    port = settings.server.listen.port
    assert SERVICES["notifyd"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"notifyd:{port}" in COMPOSITION["configs"]["prometheus"]["content"]
