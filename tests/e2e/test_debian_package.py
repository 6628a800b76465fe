"""The package for Debian, built and started as it is installed, where the tools for it are: it takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.debian.package import ROOT, VERSION, run

STARTED: Final = """set -e
mount --bind "$1/opt" /opt
ip link set lo up
cp "$1/etc/notifyd/notifyd.toml" .
/opt/notifyd/bin/notifyd keygen > seal-key
/opt/notifyd/bin/notifyd check-config | tail -n 1
/opt/notifyd/bin/notifyd serve > log 2>&1 &
service=$!
until /opt/notifyd/bin/notifyd ready 2> unready; do kill -0 $service; done
kill $service
wait $service
"""
"""As root of name spaces of its own: no network but the loopback, and /opt is the package's."""


LIFE: Final = """set -e
for folder in etc usr var opt; do
    mkdir -p /mnt/$folder/upper /mnt/$folder/work
    mount -t overlay none -o lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work /$folder
done
dpkg --force-depends --install "$1"
test "$(stat -c %a:%U:%G /etc/notifyd/notifyd.toml)" = 640:root:notifyd
test "$(stat -c %a:%U:%G /etc/notifyd/credentials)" = 700:root:root
notifyd keygen > /etc/notifyd/credentials/seal-key
CREDENTIALS_DIRECTORY=/etc/notifyd/credentials notifyd check-config | tail -n 1
echo '# mine' >> /etc/notifyd/notifyd.toml
install -d -o notifyd -g notifyd /var/lib/notifyd
touch /var/lib/notifyd/notifyd.db
dpkg --force-depends --install "$1"
dpkg --remove notifyd
test ! -e /opt/notifyd
test ! -e /usr/bin/notifyd
test "$(tail -n 1 /etc/notifyd/notifyd.toml)" = '# mine'
test -e /etc/notifyd/credentials/seal-key
test -e /var/lib/notifyd/notifyd.db
dpkg --purge notifyd
test ! -e /etc/notifyd
test ! -e /var/lib/notifyd
id notifyd
"""
"""As root, with folders that take what dpkg writes and are gone afterwards."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """The package; None where the tools for it are not there."""
    if not all(map(shutil.which, ("dpkg-deb", "unshare", "ip"))):
        yield None
        return
    folder = tmp_path_factory.mktemp("deb")
    run(sys.executable, "-m", "tests.debian", "deb", folder, environ=dict(os.environ))
    yield from folder.glob("*.deb")


pytestmark = [pytest.mark.long, pytest.mark.timeout(1800), pytest.mark.xdist_group("debian")]


def test_the_package_runs_where_it_is_installed_with_no_network(made: Path | None, tmp_path: Path) -> None:
    if made is None:
        return
    assert run("dpkg-deb", "--field", made, "Version").strip() == VERSION
    installed, here = tmp_path / "root", tmp_path / "here"
    run("dpkg-deb", "-x", made, installed)
    assert str(ROOT).encode() not in (installed / "opt/notifyd/bin/notifyd").read_bytes()
    here.mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "CREDENTIALS_DIRECTORY": str(here),
        "NOTIFYD_CONFIG": "notifyd.toml",
    }
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "--net",
        "bash",
        "-c",
        STARTED,
        "bash",
        str(installed),
    ]
    done = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK: 1 rule, 1 channel" in done.stdout
    assert done.stdout.endswith("ready\n")


def test_dpkg_installs_upgrades_removes_and_purges_it(made: Path | None) -> None:
    if made is None or os.geteuid() != 0 or not shutil.which("systemd-sysusers"):
        return
    command = [
        "unshare",
        "--mount",
        "--net",
        "bash",
        "-c",
        f"mount -t tmpfs none /mnt\n{LIFE}",
        "bash",
        str(made),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK: 1 rule, 1 channel" in done.stdout
