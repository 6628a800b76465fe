"""A Debian made by mmdebstrap and booted by systemd-nspawn, with a network of its own that leads nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[2]
CHECKOUT: Final = "/root/notifyd"

NEEDED: Final = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
"""Programs this takes, and the Debian packages they are in."""

PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "ca-certificates"),
    *(
        "python3-venv",
        "curl",
        "sqlite3",
        "prometheus",
    ),  # the page's; apt-get then finds them without a network
)
_TRACES: Final = ("opentelemetry-api", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk")
_BOOT: Final = 60.0
_ENVIRON: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def missing() -> str:
    """What has to be there first, else nothing."""
    if os.geteuid() != 0:
        return "this boots a Debian, which takes root"
    absent = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    return f"apt-get install {' '.join(absent)}" if absent else ""


@frozen
class Machine:
    """A machine that runs: `leader` is its process 1, as seen from here."""

    leader: int

    def inside(self, *command: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """A command that sees the machine alone, from the checkout; its two outputs are one."""
        enter = [*self._enter(), "--mount", "--uts", "--ipc", "--pid", "--root", f"--wdns={CHECKOUT}"]
        return subprocess.run(
            [*enter, *command],
            env=_ENVIRON | dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def beside(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """A module of this checkout, run with the machine's network."""
        command = [*self._enter(), sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.leader), "--net"]


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine that has nothing of notifyd but a checkout. What took a network to make stays in `folder`."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _run("tar", "--extract", "--directory", root, "--file", _debian(folder / "debian.tar"))
    _furnish(root, _wheels(folder / "wheels"))
    boot = ["systemd-nspawn", "--boot", "--private-network", "--register=no", "--keep-unit", "--quiet"]
    with (folder / "console.log").open("w") as console:
        nspawn = subprocess.Popen(
            [*boot, "--console=pipe", "--kill-signal=SIGRTMIN+3", f"--directory={root}"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        try:
            yield _ready(nspawn)
        finally:
            nspawn.terminate()  # a clean end, by the signal above
            try:
                nspawn.wait(_BOOT)
            except subprocess.TimeoutExpired:
                nspawn.kill()


def _ready(nspawn: subprocess.Popen[bytes]) -> Machine:
    end = time.monotonic() + _BOOT
    while time.monotonic() < end and nspawn.poll() is None:
        with suppress(ValueError):
            children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text()
            machine = Machine(int(children.split()[0] if children else ""))
            up = machine.inside("systemctl", "is-system-running", "--wait", environ={})
            if up.stdout.strip() in (
                "running",
                "degraded",
            ):  # degraded: what a container has no use for failed
                return machine
        time.sleep(0.2)
    raise RuntimeError("the machine does not boot: see console.log")


def _debian(archive: Path) -> Path:
    if not archive.exists():
        packages = f"--include={','.join(PACKAGES)}"
        made = archive.with_suffix(".new.tar")
        _run("mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", made)
        made.rename(archive)
    return archive


def _wheels(folder: Path) -> Path:
    """What pip installs there, taken from where pip finds it here."""
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--dest",
        folder,
    ]
    lock = ROOT / "requirements"
    locked: list[str | Path] = ["-r", lock / "production.txt", "-r", lock / "build.txt"]
    _run(*pip, "--require-hashes", *locked)
    if not list(folder.glob("opentelemetry_sdk*")):
        _run(*pip, *_TRACES)
    return folder


def _furnish(root: Path, wheels: Path) -> None:
    """The checkout, and pip's configuration, which leads to the wheels: what a site has in its own mirror."""
    shutil.copytree(wheels, root / "srv" / "wheels")
    (root / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n")
    (root / "etc" / "hostname").write_text("fresh\n")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)  # noqa: S607
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = root / CHECKOUT.lstrip("/") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)
