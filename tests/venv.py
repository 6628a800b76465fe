"""Virtual environments of a test's own, filled with no network."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from attrs import frozen


@frozen
class Venv:
    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        return packages

    def run(self, *args: str, cwd: Path | None = None) -> str:
        """What `python ARGS` prints. AssertionError with all of it where that fails."""
        done = subprocess.run(
            [self.python, *args],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, project: Path) -> None:
        """Build and install a project with pip; what it depends on is there already."""
        self.run(
            "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", str(project)
        )


def empty_venv(folder: Path) -> Venv:
    """An environment with nothing in it, not even pip."""
    venv.create(folder, with_pip=False)
    return Venv(folder)


def fresh_venv(folder: Path) -> Venv:
    """An environment that has all that this one has."""
    made = empty_venv(folder)
    # As a folder of its own, so that the editable installs in it count too.
    here = sysconfig.get_path("purelib", scheme=sysconfig.get_default_scheme(), vars={"base": sys.prefix})
    (made.packages / "beside.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return made
