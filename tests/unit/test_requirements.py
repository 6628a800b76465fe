"""The lock in `requirements/` has all that is declared, for each Python, in a form that pip checks by hashes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
PROJECTS: Final = (ROOT, *sorted((ROOT / "plugins").glob("notifyd-*")))
LOCKS: Final = ("production", "build", "dev")
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")


def project(folder: Path) -> dict[str, Any]:
    with (folder / "pyproject.toml").open("rb") as file:
        read: dict[str, Any] = tomllib.load(file)
    return read


def entries(lock: str) -> list[str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def locked(lock: str, python: str) -> dict[str, str]:
    """The version of each package that pip would take from this file."""
    found: dict[str, str] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.partition(" \\\n")[0])
        if applies(requirement, python):
            (version,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = version.version
    return found


def applies(requirement: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def needs(folder: Path) -> Iterator[str]:
    read = project(folder)
    yield from read["build-system"]["requires"]
    yield from read["project"]["dependencies"]
    for extra in read["project"].get("optional-dependencies", {}).values():
        yield from extra


def missing(declared: list[str], lock: dict[str, str], python: str) -> list[str]:
    requirements = [Requirement(one) for one in declared]
    return [
        str(one)
        for one in requirements
        if applies(one, python)
        and canonicalize_name(one.name) != "notifyd-server"
        and not one.specifier.contains(lock.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_all_that_a_distribution_declares_is_locked(folder: Path, python: str) -> None:
    assert missing(list(needs(folder)), locked("dev", python), python) == []
    runs_with = project(folder)["project"]["dependencies"]
    assert missing(runs_with, locked("production", python), python) == []
    built_with = project(folder)["build-system"]["requires"]
    assert missing(built_with, locked("build", python), python) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_production_has_the_versions_that_the_tests_ran_with(python: str) -> None:
    tested = locked("dev", python).items()
    assert locked("production", python).items() <= tested
    assert locked("build", python).items() <= tested


@pytest.mark.parametrize("lock", LOCKS)
def test_each_entry_is_a_version_with_hashes_and_names_no_place(lock: str) -> None:
    entry = re.compile(r"[a-z0-9-]+==[\w.+]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [one for one in entries(lock) if not entry.fullmatch(one.strip())] == []


def test_the_bill_of_materials_names_each_package_that_is_locked_with_its_hashes(tmp_path: Path) -> None:
    # What it needs is installed: this very environment. Its own validation would take seconds.
    make = ["make", "-s", "-o", ".venv/.installed", "sbom", f"BIN={Path(sys.executable).parent}"]
    subprocess.run([*make, f"BUILD={tmp_path}", "SBOM_OPTIONS=--no-validate"], cwd=ROOT, check=True)
    bill = json.loads((tmp_path / "sbom.json").read_bytes())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "notifyd-server")
    named = {(one["name"], one["version"]): hashes(one) for one in bill["components"]}
    wanted = {}
    for entry in entries("production"):
        (version,) = (requirement := Requirement(entry.partition(" \\\n")[0])).specifier
        wanted[requirement.name, version.version] = set(re.findall(r"--hash=sha256:(\w+)", entry))
    assert named == wanted


def hashes(component: dict[str, Any]) -> set[str]:
    told = (one["hashes"] for one in component["externalReferences"])
    return {one["content"] for several in told for one in several}
