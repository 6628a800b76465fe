"""`notifyd doctor` on installations that are each broken in one way: it names what is, and says what to do."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from attrs import define

from notifyd.cli import doctor_network, doctor_store
from notifyd.cli.doctor import examine
from notifyd.cli.finding import Finding
from notifyd.config.units import SealKey
from notifyd.model import wall_clock
from notifyd.security.secrets import Keyring
from notifyd.store import SealKeys
from notifyd.store.sqlite import open_sqlite
from tests.authority import LOOPBACK, Authority
from tests.forked import notifyd
from tests.ports import free_port
from tests.process import SEAL_KEY, SECRET

USER: Final = pwd.getpwuid(os.getuid()).pw_name

OWN_MOUNTS: Final = ("unshare", "--map-root-user", "--mount")
"""A command that follows may mount what no other process sees."""

CONFIG: Final = """
[server]
listen = "127.0.0.1:{port}"
[store]
url = "sqlite:///./notifyd.db"
[keys]
seal = ["{key}"]
[auth.clients.runner]
hmac_secrets = ["${{cred:runner}}"]
[channels.log]
type = "log"
[[rules]]
name = "all"
when = "true"
channels = ["log"]
"""
SERVICE: Final = """
[Service]
ExecStart=/bin/sh serve --config {folder}/notifyd.toml
User={user}
WorkingDirectory={folder}
ProtectSystem=strict
ReadWritePaths=-{folder}
LoadCredential=runner:{folder}/runner
LimitNOFILE=65536
"""
SOCKET: Final = """
[Socket]
ListenStream=127.0.0.1:{port}
"""


@define
class Installation:
    """Everything in one folder, sound until a test breaks it."""

    folder: Path
    port: int

    @property
    def config(self) -> Path:
        return self.folder / "notifyd.toml"

    def write(self) -> None:
        (self.folder / "runner").write_text(SECRET)
        (self.folder / "runner").chmod(0o600)
        for name, text in (
            ("notifyd.toml", CONFIG),
            ("notifyd.service", SERVICE),
            ("notifyd.socket", SOCKET),
        ):
            path = self.folder / name
            path.write_text(text.format(port=self.port, key=SEAL_KEY, folder=self.folder, user=USER))
            path.chmod(0o640)

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def add(self, toml: str) -> None:
        self.config.write_text(self.config.read_text() + toml)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    async def examined(self) -> list[Finding]:
        return await examine(self.config, [self.folder])

    async def wrong(self) -> list[tuple[str, str]]:
        """What is an error, as check and detail."""
        findings = await self.examined()
        assert all(one.todo for one in findings if one.level != "ok"), "each says what to do"
        return [(one.check, one.detail) for one in findings if one.level == "error"]


@pytest.fixture
async def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path, free_port())
    made.write()
    store = await open_sqlite(tmp_path / "notifyd.db", node="before", clock=wall_clock)
    await store.note_seal_keys(SealKeys(frozenset(Keyring([SealKey(base64.b64decode(SEAL_KEY))]).ids)))
    await store.aclose()
    return made


async def test_a_sound_installation_has_nothing_wrong(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")  # a relative path of the database starts where the service runs
    findings = await installation.examined()
    # Disk and writes may be what they are here.
    assert {one.level for one in findings if one.check not in ("disk", "store")} == {"ok"}
    assert {one.check for one in findings} >= {
        *(
            "version",
            "config",
            "plugins",
            "credentials",
            "units",
            "descriptors",
            "disk",
            "store",
            "rows",
            "clock",
        )
    }


def taken(at: Installation) -> socket.socket:
    at.remove("notifyd.socket")
    return socket.create_server(("127.0.0.1", at.port))


def at_a_low_port(at: Installation) -> None:
    at.remove("notifyd.socket")
    at.change("notifyd.toml", f":{at.port}", ":1021")


def overwritten(at: Installation) -> None:
    (at.folder / "notifyd.db").write_bytes(b"not a database" * 1000)


def without_its_log(at: Installation) -> None:
    (at.folder / "elsewhere").mkdir()
    (at.folder / "notifyd.db").rename(at.folder / "elsewhere" / "notifyd.db")
    (at.folder / "notifyd.db-wal").write_bytes(b"x" * 100)


BROKEN: Final[dict[str, tuple[Callable[[Installation], Any], str, str]]] = {
    "a key that does not exist": (
        lambda at: at.change("notifyd.toml", "[store]", "[store]\nulr = 1"),
        "config",
        'notifyd.toml:5: store.ulr: is not a known key; did you mean "url"?',
    ),
    "a channel whose plugin is not installed": (
        lambda at: at.change("notifyd.toml", '"log"\n[[', '"pigeon"\n[['),
        "config",
        'no plugin brings the type "pigeon"; installed are: apprise',
    ),
    "a rule that matches nothing": (
        lambda at: at.change("notifyd.toml", '"true"', '"event.runId"'),
        "config",
        "`event.runId` is a string",
    ),
    "a configuration that anybody may write": (
        lambda at: at.config.chmod(0o666),
        "permissions",
        "anybody may write",
    ),
    "a database of another user": (
        lambda at: at.change("notifyd.service", f"User={USER}", "User=nobody"),
        "owners",
        "and the service is nobody's",
    ),
    "a user that does not exist": (
        lambda at: at.change("notifyd.service", f"User={USER}", "User=no-such-user"),
        "units",
        "there is no user no-such-user",
    ),
    "a program that is not there": (
        lambda at: at.change("notifyd.service", "/bin/sh", "/opt/no/such/notifyd"),
        "units",
        "ExecStart names no program that is there: /opt/no/such/notifyd",
    ),
    "a socket at another address": (
        lambda at: at.change(
            "notifyd.socket", "ListenStream=127.0.0.1:", "ListenStream=\nListenStream=0.0.0.0:"
        ),
        "units",
        "and server.listen says 127.0.0.1:",
    ),
    "a credential that the service is not given": (
        lambda at: at.change("notifyd.service", "LoadCredential=runner", "LoadCredential=other"),
        "credentials",
        "gives no credential runner",
    ),
    "a credential without its file": (
        lambda at: at.remove("runner"),
        "credentials",
        "for the credential runner is not there",
    ),
    "a database where the service may not write": (
        lambda at: at.change("notifyd.service", "ReadWritePaths=-", "ReadWritePaths=/srv"),
        "units",
        "and the database is in",
    ),
    "a low port without a socket": (
        at_a_low_port,
        "units",
        "server.listen has the port 1021",
    ),
    "a file that is no database": (overwritten, "store", "notifyd.db"),
    "a log without its database": (without_its_log, "store", "notifyd.db"),
    "a folder that is not there": (
        lambda at: at.change("notifyd.toml", "./notifyd.db", "./no/notifyd.db"),
        "config",
        "/no is not there",
    ),
    "a key that rows need": (
        lambda at: at.change("notifyd.toml", SEAL_KEY, "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="),
        "keys",
        "which keys.seal has not",
    ),
    "an address that something else has": (taken, "listen", "Address already in use"),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_is_broken_is_named(broken: str, installation: Installation) -> None:
    spoil, check, detail = BROKEN[broken]
    held = spoil(installation)
    try:
        wrong = await installation.wrong()
    finally:
        if isinstance(held, socket.socket):
            held.close()
    assert any(found == check and detail in told for found, told in wrong), wrong
    # Whatever else is told follows from it.
    assert {found for found, _ in wrong} <= {check, "config", "disk"}, wrong


async def test_a_database_of_another_user_is_named_with_each_of_its_files(installation: Installation) -> None:
    (installation.folder / "notifyd.db.copy").touch()
    installation.change("notifyd.service", f"User={USER}", "User=nobody")
    named = {detail.split()[0] for check, detail in await installation.wrong() if check == "owners"}
    assert {str(installation.folder), str(installation.folder / "notifyd.db")} <= named
    assert str(installation.folder / "notifyd.db.copy") not in named


@pytest.mark.parametrize(
    ("free", "level"), [(0, "error"), (100 << 20, "warning"), (4 << 30, "ok")], ids=["full", "low", "roomy"]
)
async def test_a_full_disk_is_wrong_and_one_that_fills_is_told_of(
    free: int, level: str, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(installation.folder)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (disk,) = (one for one in await installation.examined() if one.check == "disk")
    assert (disk.level, f"{free >> 20} MiB free" in disk.detail) == (level, True)


async def run(*command: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)


READ_ONLY: Final = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" &&
exec "$2" -m notifyd doctor --json --config "$1/notifyd.toml" --unit-dir "$1"
"""


async def test_a_database_on_a_disk_that_was_mounted_read_only_is_named(installation: Installation) -> None:
    if (await run(*OWN_MOUNTS, "true")).returncode:
        return  # nothing may be mounted here
    command = [*OWN_MOUNTS, "sh", "-c", READ_ONLY, "sh", str(installation.folder), sys.executable]
    found = await run(*command)
    errors = [one for one in json.loads(found.stdout)["findings"] if one["level"] == "error"]
    assert found.returncode == 1
    told = {one["check"]: (one["detail"], one["todo"]) for one in errors}
    assert told["store"][0].endswith("Read-only file system")
    assert told["owners"][1].startswith("mount ")


@pytest.mark.parametrize("broken", ["a database of another user", "a socket at another address"])
async def test_a_program_reads_the_same_and_the_exit_code_says_so(
    broken: str, installation: Installation
) -> None:
    spoil, check, detail = BROKEN[broken]
    arguments = ("doctor", "--json", "--config", installation.config, "--unit-dir", installation.folder)
    sound = await notifyd(*arguments)
    assert sound.code == 0, sound.stdout
    spoil(installation)
    found = await notifyd(*arguments)
    errors = [one for one in json.loads(found.stdout)["findings"] if one["level"] == "error"]
    assert found.code == 1
    assert any(one["check"] == check and detail in one["detail"] and one["todo"] for one in errors)


async def test_few_descriptors_are_told_of(installation: Installation) -> None:
    installation.change("notifyd.service", "LimitNOFILE=65536", "LimitNOFILE=256:512")
    (found,) = (one for one in await installation.examined() if one.check == "descriptors")
    assert (found.level, found.detail.split()[0]) == ("warning", "512")


async def test_secrets_that_anybody_may_read_are_told_of(installation: Installation) -> None:
    installation.config.chmod(0o644)
    (installation.folder / "runner").chmod(0o644)
    found = [one for one in await installation.examined() if one.check == "permissions"]
    assert [one.level for one in found] == ["warning", "warning"]
    assert all("which holds secrets" in one.detail for one in found)


async def test_a_database_from_a_later_time_tells_of_a_clock_that_went_back(
    installation: Installation,
) -> None:
    later = time.time() + 7200
    os.utime(installation.folder / "notifyd.db", (later, later))
    (found,) = doctor_store._identity(installation.folder / "notifyd.db")
    assert (found.check, found.level) == ("clock", "warning")


async def test_a_database_that_was_deleted_under_a_process_is_named_with_it(
    installation: Installation,
) -> None:
    with (installation.folder / "notifyd.db").open("rb"):
        installation.remove("notifyd.db")
        wrong = await installation.wrong()
    assert wrong == [
        (
            "store",
            f"the process {os.getpid()} has a notifyd.db open that is no longer in {installation.folder}",
        )
    ]


async def test_drop_ins_count_and_an_empty_value_takes_back(installation: Installation) -> None:
    drop_ins = installation.folder / "notifyd.service.d"
    drop_ins.mkdir()
    (drop_ins / "limits.conf").write_text("[Service]\nLoadCredential=\n# LoadCredential=runner:/x\n")
    assert [check for check, _ in await installation.wrong()] == ["config", "credentials"]


# --- the way to a channel -------------------------------------------------------------------------------------


@asynccontextmanager
async def web_server(context: ssl.SSLContext, off: float = 0) -> AsyncIterator[int]:
    """An HTTPS server on the loopback whose clock is `off` seconds ahead: its port."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(f"{request.method} {request.path}")
        return web.Response(headers={"Date": formatdate(time.time() + off, usegmt=True)})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
    assert set(seen) <= {"HEAD /"}, "nothing is sent"


def hook(url: str, allowed: str = '"127.0.0.0/8"') -> str:
    channel = f'[channels.hook]\ntype = "webhook"\nurl = "{url}"\n'
    rule = '[[rules]]\nname = "hooked"\nwhen = "true"\nchannels = ["hook"]\n'
    return f"{channel}{rule}[egress]\nallow_private = [{allowed}]\n"


@pytest.mark.parametrize(
    ("off", "level", "detail"),
    [(0, "ok", "as others have it"), (60, "warning", "60 s behind"), (-3600, "error", "3600 s ahead of")],
)
async def test_the_clock_is_compared_with_those_of_others(
    off: float, level: str, detail: str, installation: Installation
) -> None:
    authority = Authority()
    authority.write(installation.folder / "ca.pem")
    async with web_server(authority.server(installation.folder), off) as port:
        installation.add(hook(f"https://127.0.0.1:{port}/in/secret") + 'tls_ca = "ca.pem"\n')
        findings = await installation.examined()
    (clock,) = (one for one in findings if one.check == "clock")
    assert clock.level == level
    assert detail.partition(" ")[2] in clock.detail
    (tls,) = (one for one in findings if one.check == "tls")
    assert (tls.level, tls.todo) == ("warning", "renew it soon")
    assert tls.detail.startswith("channels.hook.url: 127.0.0.1: the certificate ends on ")
    assert not any("secret" in one.detail for one in findings)


async def test_a_certificate_that_nobody_trusts_is_named(installation: Installation) -> None:
    async with web_server(Authority().server(installation.folder)) as port:
        installation.add(hook(f"https://127.0.0.1:{port}/"))
        ((check, detail),) = await installation.wrong()
    assert check == "tls"
    assert detail.startswith("channels.hook.url: 127.0.0.1: the certificate is refused: ")


async def test_a_channel_where_nobody_listens_is_named(installation: Installation) -> None:
    installation.add(hook(f"http://127.0.0.1:{free_port()}/"))
    ((check, detail),) = await installation.wrong()
    assert check == "connect"
    assert detail.startswith("channels.hook.url: 127.0.0.1 port ")


@pytest.mark.parametrize(
    ("answer", "check", "detail"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "dns", "Name or service not known"),
        ("10.1.2.3", "egress", "hook.acme.example is 10.1.2.3, which egress refuses"),
    ],
)
async def test_a_name_that_leads_nowhere_or_where_egress_refuses_is_named(
    answer: Exception | str,
    check: str,
    detail: str,
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def looked_up(host: Any, *given: Any, **more: Any) -> Any:
        if host != "hook.acme.example":
            return real(host, *given, **more)
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, 443))]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    installation.add(hook("https://hook.acme.example/"))
    ((found, told),) = await installation.wrong()
    assert found == check
    assert detail in told


async def test_a_look_up_that_hangs_holds_up_no_other(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a pool has threads hang until the last has been looked up."""
    looked_up_last = threading.Event()

    def looked_up(host: Any, *given: Any, **more: Any) -> Any:
        if host.startswith("slow"):
            looked_up_last.wait()
        if host.startswith("last"):
            looked_up_last.set()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(doctor_network, "_PATIENCE", 60.0)
    names = [*(f"slow{number}" for number in range(40)), "last"]
    installation.add(
        "".join(
            f'[channels.{name}]\ntype = "webhook"\nurl = "https://{name}.acme.example/"\n' for name in names
        )
    )
    try:
        found = [detail for check, detail in await installation.wrong() if check == "dns"]
    finally:
        looked_up_last.set()
    assert [one.rpartition(": ")[2] for one in found] == ["Name or service not known"] * len(names)


async def test_a_channel_that_cannot_be_looked_at_is_named(installation: Installation) -> None:
    found = [one.detail for one in await installation.examined() if one.check == "connect"]
    assert found == ["channels.log: not looked at: the options of the type log name no host"]


async def test_a_database_that_a_process_elsewhere_has_open_is_told_with_what_to_do(
    installation: Installation,
) -> None:
    store = await open_sqlite(installation.folder / "notifyd.db", node="other", clock=wall_clock)
    try:
        ((check, detail),) = await installation.wrong()
    finally:
        await store.aclose()
    assert check == "service"
    assert "in use by" in detail
    assert "it may run with another configuration" in detail


async def test_what_can_be_read_of_a_configuration_with_faults_is_looked_at(
    installation: Installation,
) -> None:
    installation.add('[channels.dead]\ntype = "webhook"\nurl = "http://127.0.0.1:1/"\n[nothing]\n')
    installation.add('[egress]\nallow_private = ["127.0.0.0/8"]\n')
    (installation.folder / "notifyd.db").write_bytes(b"not a database" * 1000)
    assert [check for check, _ in await installation.wrong()] == ["config", "store", "connect"]


async def test_a_mail_servers_certificate_is_seen_behind_starttls(installation: Installation) -> None:
    authority = Authority()
    authority.write(installation.folder / "ca.pem")
    context = authority.server(installation.folder)
    server = Controller(object(), hostname="127.0.0.1", port=free_port(), tls_context=context)
    server.start()
    try:
        installation.add(
            f"""
[channels.mail]
type = "email"
host = "127.0.0.1"
port = {server.port}
from = "notifyd@acme.example"
tls_ca = "ca.pem"
[[rules]]
name = "mailed"
when = "true"
channels = ["mail"]
to = ["alice@acme.example"]
"""
        )
        (tls,) = (one for one in await installation.examined() if one.check == "tls")
    finally:
        server.stop()
    assert tls.detail.startswith("channels.mail.host: 127.0.0.1: the certificate ends on ")


async def test_the_services_own_certificate_is_looked_at(installation: Installation) -> None:
    Authority().issue(installation.folder / "own", LOOPBACK, life=timedelta(seconds=-1))
    installation.change("notifyd.toml", "[store]", '[server.tls]\ncert = "own.pem"\nkey = "own.key"\n[store]')
    ((check, detail),) = await installation.wrong()
    assert check == "tls"
    assert detail.startswith("server.tls.cert: the certificate ended on ")
