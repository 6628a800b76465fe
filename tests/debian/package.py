"""The tree of the package for Debian, and the package made of it, the same bytes for the same commit.

A virtual environment knows its own path, which is in `pyvenv.cfg` and in the first line of each program. It is
made in a folder of the build, and those are written for /opt/notifyd, where it is installed.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from pathlib import Path
from typing import Final

from attrs import frozen
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from notifyd import __version__
from notifyd.cli import cli
from tests.debian import manual

ROOT: Final = Path(__file__).parents[2]
OWN: Final = ROOT / "conf" / "debian"
HOME: Final = Path("/opt/notifyd")
REVISION: Final = "1"
VERSION: Final = f"{__version__}-{REVISION}"
SCRIPTS: Final = ("postinst", "prerm", "postrm")

FILES: Final = {
    "systemd/notifyd.service": "lib/systemd/system/notifyd.service",
    "systemd/notifyd.socket": "lib/systemd/system/notifyd.socket",
    "systemd/notifyd.sysusers": "usr/lib/sysusers.d/notifyd.conf",
    "systemd/notifyd.tmpfiles": "usr/lib/tmpfiles.d/notifyd.conf",
    "conf/debian/notifyd.toml": "etc/notifyd/notifyd.toml",
    "conf/debian/copyright": "usr/share/doc/notifyd/copyright",
    "conf/debian/lintian-overrides": "usr/share/lintian/overrides/notifyd",
    "conf/notifyd.toml": "usr/share/doc/notifyd/examples/notifyd.toml",
}
"""What is taken from the checkout, and its place below the root."""

COMPLETION: Final[dict[str, type[ShellComplete]]] = {
    "usr/share/bash-completion/completions/notifyd": BashComplete,
    "usr/share/zsh/vendor-completions/_notifyd": ZshComplete,
    "usr/share/fish/vendor_completions.d/notifyd.fish": FishComplete,
}

_MODES: Final = {"etc/notifyd": 0o750, "etc/notifyd/notifyd.toml": 0o640}
"""Closed from the moment of unpacking on; the group comes by systemd-tmpfiles."""

_CONTROL: Final = """\
Package: notifyd
Version: {version}
Section: net
Priority: optional
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: python3 (>= {python}), python3 (<< {next}), libc6 (>= {libc}), libgcc-s1, libstdc++6, systemd (>= 252)
Recommends: ca-certificates
Suggests: sqlite3
Description: notification and approval daemon
 notifyd turns events into notifications that people act on, and turns what
 they decide back into a call to the system that asked. Nothing is
 acknowledged before it is durable.
 .
 It comes with the libraries that it was tested with, in a virtual environment
 of its own, and takes nothing from the network when it is installed.
"""


@frozen
class Build:
    """`python` is the system's own, which the package runs with; `at` the moment that its files bear."""

    folder: Path
    python: Path
    at: datetime
    maintainer: str

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def package(self, target: Path) -> Path:
        """Make everything anew, and the package in the folder `target`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._environment(self._wheels())
        self._files()
        self._even()
        made = target / f"notifyd_{VERSION}_{self._architecture()}.deb"
        target.mkdir(parents=True, exist_ok=True)
        environ = os.environ | {"SOURCE_DATE_EPOCH": str(self._epoch)}
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", self.root, made, environ=environ)
        return made

    def _wheels(self) -> Path:
        """What the lock names, each checked by its hash, and notifyd with its plugins, as wheels."""
        wheels, builder = self.folder / "wheels", self._venv("builder")
        hashed = ("--require-hashes", "--no-deps")
        pip(builder, "install", *hashed, "-r", ROOT / "requirements/build.txt")
        making = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels)
        pip(builder, *making, "--require-hashes", "-r", ROOT / "requirements/production.txt")
        pip(builder, *making, ROOT, *sorted((ROOT / "plugins").glob("notifyd-*")))
        return wheels

    def _venv(self, name: str) -> Path:
        run(self.python, "-m", "venv", "--without-pip", self.folder / name)
        return self.folder / name / "bin" / "python"

    def _environment(self, wheels: Path) -> None:
        """/opt/notifyd: the wheels, by name and with no index, so that no path of the build is on record."""
        named = ["==".join(one.name.split("-")[:2]) for one in sorted(wheels.glob("*.whl"))]
        pip(
            self._venv(f"root{HOME}"),
            *("install", "--no-index", "--find-links", wheels, "--no-deps", "--no-compile", *named),
        )
        home = self.root / HOME.relative_to("/")
        for one in (home / "bin").iterdir():
            if one.name != "notifyd" and not one.is_symlink():
                one.unlink()  # what activates the environment, and the commands of libraries
        shutil.rmtree(home / "include", ignore_errors=True)
        for path in (home / "bin" / "notifyd", home / "pyvenv.cfg"):
            said = path.read_text(encoding="utf-8").replace(str(home), str(HOME))
            path.write_text(re.sub(r"^command = .*\n", "", said, flags=re.MULTILINE), encoding="utf-8")

    def _files(self) -> None:
        for source, place in FILES.items():
            self._write(place, (ROOT / source).read_bytes())
        for place in COMPLETION:
            self._write(place, completion(place).encode())
        for name, said in manual.pages(self.at):
            self._zipped(f"usr/share/man/man{name[-1]}/{name}", said.encode())
        self._zipped("usr/share/doc/notifyd/changelog", (ROOT / "CHANGELOG.md").read_bytes())
        self._zipped("usr/share/doc/notifyd/changelog.Debian", self._changelog().encode())
        (self.root / "usr/bin").mkdir(parents=True)
        (self.root / "usr/bin/notifyd").symlink_to(HOME / "bin" / "notifyd")

    def _even(self) -> None:
        """Modes and times that do not depend on who builds, bytecode, and what dpkg has to know."""
        paths = sorted(self.root.rglob("*"))
        for path in paths:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            os.utime(path, (self._epoch, self._epoch), follow_symlinks=False)
        lib = self.root / HOME.relative_to("/") / "lib"
        # Bytecode names its source, with the time that the source has in the package.
        run(self.python, "-m", "compileall", "-q", "-s", self.root, "-p", "/", lib)
        self._refuse_own_path()
        self._control()
        for place, mode in _MODES.items():
            (self.root / place).chmod(mode)

    def _refuse_own_path(self) -> None:
        own = str(self.folder).encode()
        left = [path for path in _regular(self.root) if own in path.read_bytes()]
        if left:
            raise SystemExit(f"the path of the build is left in {', '.join(map(str, left))}")

    def _control(self) -> None:
        files = list(_regular(self.root))
        major, minor = self._said("import sys; print(*sys.version_info[:2])").split()
        control = _CONTROL.format(
            version=VERSION,
            architecture=self._architecture(),
            maintainer=self.maintainer,
            size=sum(-(-path.stat().st_size // 1024) for path in files),
            python=f"{major}.{minor}",
            next=f"{major}.{int(minor) + 1}",
            libc=".".join(map(str, libc(self.root))),
        )
        sums = (f"{_md5(one)}  {one.relative_to(self.root)}\n" for one in files)
        self._write("DEBIAN/md5sums", "".join(sums).encode())
        self._write("DEBIAN/control", control.encode())
        self._write("DEBIAN/conffiles", b"/etc/notifyd/notifyd.toml\n")
        for name in SCRIPTS:
            self._write(f"DEBIAN/{name}", (OWN / name).read_bytes())
            (self.root / "DEBIAN" / name).chmod(0o755)

    def _changelog(self) -> str:
        said = "  * The changes of each version are in changelog.gz."
        signed = f" -- {self.maintainer}  {format_datetime(self.at)}"
        return f"notifyd ({VERSION}) unstable; urgency=medium\n\n{said}\n\n{signed}\n"

    def _architecture(self) -> str:
        return run("dpkg", "--print-architecture").strip()

    def _said(self, code: str) -> str:
        return run(self.python, "-c", code)

    @property
    def _epoch(self) -> int:
        return int(self.at.timestamp())

    def _zipped(self, place: str, data: bytes) -> None:
        self._write(f"{place}.gz", gzip.compress(data, mtime=0))

    def _write(self, place: str, data: bytes) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)


def completion(place: str) -> str:
    """What a shell completes by, as `_NOTIFYD_COMPLETE=..._source notifyd` prints it."""
    return f"{COMPLETION[place](cli, {}, 'notifyd', '_NOTIFYD_COMPLETE').source()}\n"


def libc(root: Path) -> tuple[int, int]:
    """The C library that the wheels ask for: manylinux names it in their tags (PEP 600)."""
    tags = [tag for wheel in root.rglob("*.dist-info/WHEEL") for tag in _lowest(wheel.read_text())]
    return max(tags, default=(2, 17))


def _lowest(wheel: str) -> Iterator[tuple[int, int]]:
    found = [(int(one), int(two)) for one, two in re.findall(r"manylinux_(\d+)_(\d+)_", wheel)]
    yield from [min(found)] if found else []


def _md5(path: Path) -> str:
    """dpkg's own sums, by which "dpkg --verify" finds what was changed."""
    return md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _regular(root: Path) -> Iterable[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def epoch(environ: dict[str, str]) -> datetime:
    """SOURCE_DATE_EPOCH, else the moment of the commit: https://reproducible-builds.org/specs/source-date-epoch/."""
    said = environ.get("SOURCE_DATE_EPOCH") or run("git", "-C", ROOT, "log", "-1", "--format=%ct")
    return datetime.fromtimestamp(int(said), UTC)


def pip(python: Path, *arguments: object) -> None:
    """The pip of this environment, at work on that of `python`."""
    run(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", python, *arguments)


def run(*command: object, environ: dict[str, str] | None = None) -> str:
    """What a program prints. Its complaints go to the terminal, and one that fails ends the build."""
    words: Sequence[str] = list(map(str, command))
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environ, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]} fails with {done.returncode}: {done.stdout}")
    return done.stdout
