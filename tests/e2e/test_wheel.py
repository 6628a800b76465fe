"""The server's wheel, installed with what it declares and nothing else, runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Final
from zipfile import Path as ZipPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from notifyd.model import wall_clock
from tests import events
from tests.process import configure, daemon_process, environ_of
from tests.venv import Venv, empty_venv

ROOT: Final = Path(__file__).parents[2]
CALLBACK: Final = "http://127.0.0.1:9"
ALONE: Final = {"PYTHONSAFEPATH": "1"}
"""What is imported is what is installed, and not the checkout in which the tests run."""

WANTING: Final = (
    "notifyd.demo",
    "notifyd.testing",
    "notifyd.testkit",
    "notifyd.__main__",
    "notifyd.service.telemetry",
)
IMPORT_ALL: Final = f"""
import importlib, pkgutil, motor.motor_asyncio, notifyd, uvloop
for module in pkgutil.walk_packages(notifyd.__path__, "notifyd."):
    if not module.name.startswith({WANTING}):
        importlib.import_module(module.name)
"""
"""Every module but those that want an extra."""


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    """An environment with the wheel and what it declares, lent by the environment of the tests.

    pip itself finds whether that is enough: it has no index here, and refuses a wheel that lacks a requirement.
    """
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    made = empty_venv(tmp_path / "venv")
    for lent in required_by(metadata(wheel)):
        lend(lent, made.packages)
    pip("--python", made.python, "install", "--no-index", wheel)
    return made


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def metadata(wheel: Path) -> Distribution:
    name, version, *_ = wheel.name.split("-")
    return PathDistribution(ZipPath(str(wheel), f"{name}-{version}.dist-info/"))


def required_by(one: Distribution) -> Iterator[Distribution]:
    """What it requires, what that requires, and so on."""
    seen: set[tuple[str, str]] = set()
    todo = needs(one, "")
    for need in todo:  # grows while it is walked
        for extra in ("", *need.extras):
            if (key := (canonicalize_name(need.name), extra)) not in seen:
                seen.add(key)
                todo += needs(distribution(need.name), extra)
    yield from (distribution(name) for name in {name for name, _ in seen})


def needs(one: Distribution, extra: str) -> list[Requirement]:
    read = [Requirement(text) for text in one.requires or ()]
    return [need for need in read if need.marker is None or need.marker.evaluate({"extra": extra})]


def lend(one: Distribution, packages: Path) -> None:
    for name in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
        if not (packages / name).exists():
            (packages / name).symlink_to(str(one.locate_file(name)))


@pytest.mark.long
async def test_the_wheel_runs_with_no_more_than_it_declares(venv: Venv, tmp_path: Path) -> None:
    venv.run("-c", IMPORT_ALL, cwd=tmp_path)
    config = tmp_path / "notifyd.toml"
    configure(config, f'[resume]\nallowed_origins = ["{CALLBACK}"]\n')
    check = await asyncio.create_subprocess_exec(
        *(str(venv.folder / "bin" / "notifyd"), "check-config", "--config", str(config)),
        env=environ_of(tmp_path, 8080) | ALONE,
    )
    assert await check.wait() == 0
    async with daemon_process(tmp_path, config.read_text(), python=venv.python, environ=ALONE) as daemon:
        resume = {"callbackUrl": f"{CALLBACK}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
        assert (await daemon.send(events.requested(at=wall_clock(), resume=resume))).status == 202
        assert await daemon.stop() == 0
        assert daemon.stderr == b""
