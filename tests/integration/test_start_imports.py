"""A start brings in what its configuration uses and nothing else: it is what a start's time and memory go to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

CONFIG: Final = """
[server]
listen = "127.0.0.1:0"
[store]
url = "sqlite:///{folder}/notifyd.db"
[keys]
seal = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
[channels.hook]
type = "webhook"
url = "https://hooks.acme.example/"
secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
[[rules]]
name = "all"
when = 'event.kind == "pack.approval"'
channels = ["hook"]
"""

MAIL: Final = """
[channels.mail]
type = "email"
host = "mail.acme.example"
from = "notifyd@acme.example"
"""

# The command as a process, which writes down what it has imported once it is ready, and ends.
SERVE: Final = """
import gc, json, os, signal, sys
from pathlib import Path
from notifyd.service.systemd import Notifier
told = Path(sys.argv.pop())
def ready(self, status):
    seen = {"modules": sorted(sys.modules), "collects": gc.isenabled(), "frozen": gc.get_freeze_count()}
    told.write_text(json.dumps(seen))
    os.kill(os.getpid(), signal.SIGTERM)
Notifier.ready = ready
from notifyd.__main__ import main
main()
"""

COMMAND_LINES: Final = {"prompt_toolkit", "pygments", "rich", "typer", "wcwidth"}
"""What CEL's package and notifyd's other commands have for a person at a terminal."""

DRIVERS: Final = {"bson", "gridfs", "motor", "pymongo"}
VENDORS: Final = {"aiosmtplib", "apprise", "requests", "slack_sdk"}
TELEMETRY: Final = {"google", "opentelemetry", "requests"}
UNICODE: Final = {"precis_i18n", "regex"}
"""What names and long texts are checked with that are not of ASCII alone."""
TESTS: Final = {"blockbuster", "pytest", "unittest"}


def start(folder: Path, text: str) -> Any:
    """What `notifyd serve` tells of itself once it is ready."""
    config, told = folder / "notifyd.toml", folder / "told.json"
    config.write_text(text.format(folder=folder))
    process = subprocess.run(
        [sys.executable, "-c", SERVE, "serve", "--config", str(config), str(told)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    return orjson.loads(told.read_bytes())


def packages(told: Any) -> set[str]:
    return {name.partition(".")[0] for name in told["modules"]}


def test_a_start_on_the_embedded_store_imports_no_other_driver_vendor_or_command_line(tmp_path: Path) -> None:
    told = start(tmp_path, CONFIG)
    assert packages(told) & (COMMAND_LINES | DRIVERS | VENDORS | TELEMETRY | UNICODE | TESTS) == set()
    unused = ("notifyd.store.mongo", "notifyd.demo", "notifyd.testkit", "notifyd_email.channel", "cel.cli")
    unopened = ("joserfc", "cryptography.x509")  # nothing that is sealed has been opened
    assert set(told["modules"]).isdisjoint({*unused, *unopened})
    assert "cel.cel" in told["modules"]


def test_a_channel_in_the_configuration_brings_its_vendors_package_and_no_other(tmp_path: Path) -> None:
    """And so the names above are those of packages that a start could bring in."""
    found = packages(start(tmp_path, CONFIG + MAIL))
    assert found & VENDORS == {"aiosmtplib"}


def test_telemetry_is_imported_where_the_environment_names_a_collector_and_a_dead_one_holds_up_no_start_or_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert packages(start(tmp_path, CONFIG)) >= TELEMETRY


def test_the_collector_rests_during_the_start_and_works_from_then_on(tmp_path: Path) -> None:
    told = start(tmp_path, CONFIG)
    assert told["collects"]
    assert told["frozen"] > 10_000
