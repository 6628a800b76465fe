"""What `notifyd doctor` looks at on the machine: files and their owners, credentials, units, descriptors."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import attrs

from notifyd.cli.exposed import exposed
from notifyd.cli.finding import ERROR, OK, WARNING, Finding
from notifyd.cli.units import Unit
from notifyd.config.describe import secrets
from notifyd.config.lines import values
from notifyd.config.placeholders import named_credentials, named_files
from notifyd.config.settings import Listen, Settings
from notifyd.config.units import parse_listen
from notifyd.store.open import sqlite_path
from notifyd.web.connections import DESCRIPTORS

_RUNNING: Final = Path("/run/credentials/notifyd.service")
"""Where systemd keeps the credentials of the service while it runs."""

_SOON: Final = timedelta(days=14)
"""A certificate that ends within this has to be renewed by now."""


_OWN: Final = ("", "-wal", "-shm", ".lock")
"""What the names of a database's files end with: a copy beside them may be anybody's."""

_ANY: Final = 1 << 30
"""More descriptors than anything needs."""


# --- credentials ----------------------------------------------------------------------------------------------


@contextmanager
def given_credentials(service: Unit | None) -> Iterator[Mapping[str, str]]:
    """An environment with the credentials that the service has, as far as they can be read here."""
    if "CREDENTIALS_DIRECTORY" in os.environ or service is None:
        yield os.environ
    elif os.access(_RUNNING, os.R_OK | os.X_OK):
        yield {**os.environ, "CREDENTIALS_DIRECTORY": str(_RUNNING)}
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name, source in service.credentials.items():
                if source is not None and "/" not in name:
                    (Path(folder) / name).symlink_to(source)
            yield {**os.environ, "CREDENTIALS_DIRECTORY": folder}


def credentials(path: Path, service: Unit | None) -> Iterator[Finding]:
    """Is each `${cred:NAME}` given to the service, from a file that is there?"""
    if service is None:
        return
    try:
        document = values(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # which loading tells of
    given = service.credentials
    for name in dict.fromkeys(named_credentials(document)):
        source = given.get(name)
        if name not in given:
            todo = f"add LoadCredential={name}:FILE, then systemctl daemon-reload"
            yield Finding("credentials", ERROR, f"{service.path} gives no credential {name}", todo)
        elif source is not None and not _is_there(source):
            yield Finding("credentials", ERROR, f"{source} for the credential {name} is not there", "make it")
        else:
            yield Finding("credentials", OK, name)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # as far as can be known


def at_home(settings: Settings, service: Unit | None) -> Settings:
    """The same with the database where the service looks for it: a relative path starts where it runs."""
    home = Path((service.last("WorkingDirectory") if service else None) or "")
    if not settings.store.url.startswith("sqlite") or not home.is_dir():
        return settings
    url = f"sqlite:///{home / sqlite_path(settings.store.url)}"
    return attrs.evolve(settings, store=attrs.evolve(settings.store, url=url))


# --- files and owners -----------------------------------------------------------------------------------------


def files(path: Path, settings: Settings | None, service: Unit | None) -> Iterator[Finding]:
    """Who may write, and who may read, what decides about the service."""
    for one in exposed(path, settings):
        yield Finding("permissions", ERROR, f"anybody may write {one}", f"chmod o-w {one}")
    if settings is None:
        return
    for one in dict.fromkeys(_with_secrets(path, settings, service)):
        if _mode(one) & stat.S_IROTH:
            detail = f"anybody may read {one}, which holds secrets"
            yield Finding("permissions", WARNING, detail, f"chmod o-r {one}")
    yield from _owners(settings, service)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _with_secrets(path: Path, settings: Settings, service: Unit | None) -> Iterator[Path]:
    text = path.read_text(encoding="utf-8")
    if any(secret.reveal() in text for secret in secrets(settings)):
        yield path
    yield from named_files(values(text), os.environ, path.parent)
    yield from (source for source in (service.credentials.values() if service else ()) if source)
    if settings.server.tls.key:
        yield settings.server.tls.key


def _owners(settings: Settings, service: Unit | None) -> Iterator[Finding]:
    """Does the database belong to whom the service runs as, and may it be written?"""
    if not settings.store.url.startswith("sqlite"):
        return
    path = sqlite_path(settings.store.url)
    user = _user(service)
    files = (path.parent, *(path.with_name(f"{path.name}{suffix}") for suffix in _OWN))
    there = [one for one in files if one.exists()]
    wanted = user.pw_uid if user else there[0].stat().st_uid if there else 0
    for one in there:
        owner = one.stat().st_uid
        if owner != wanted:
            detail = f"{one} belongs to {_name(owner)}, and the service is {_name(wanted)}'s"
            yield Finding("owners", ERROR, detail, f"chown {_name(wanted)} {one}")
    if there and not os.access(there[0], os.W_OK) and wanted == os.getuid():
        read_only = os.statvfs(there[0]).f_flag & os.ST_RDONLY
        todo = f"mount -o remount,rw the disk of {there[0]}" if read_only else f"chmod u+w {there[0]}"
        yield Finding("owners", ERROR, f"{there[0]} cannot be written", todo)


def _user(service: Unit | None) -> pwd.struct_passwd | None:
    name = service.last("User") if service else None
    try:
        return pwd.getpwnam(name) if name else None
    except KeyError:
        return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- units ----------------------------------------------------------------------------------------------------


def unit_files(
    path: Path, settings: Settings | None, service: Unit | None, listener: Unit | None
) -> Iterator[Finding]:
    """Do systemd's units say the same as the configuration?"""
    if service is None and listener is None:
        yield Finding("units", OK, "no notifyd.service is installed")
        return
    wrong = [
        *(_of_service(path, service) if service else ()),
        *(_of_socket(settings, listener) if settings and listener else ()),
        *(_written(settings, service) if settings and service else ()),
        *(_low_port(settings, service) if settings and service and not listener else ()),
    ]
    yield from wrong or [Finding("units", OK, ", ".join(str(u.path) for u in (service, listener) if u))]


def _of_service(path: Path, service: Unit) -> Iterator[Finding]:
    command = service.command
    if not command or shutil.which(command[0]) is None:
        detail = f"{service.path}: ExecStart names no program that is there: {command[0] if command else ''}"
        yield Finding("units", ERROR, detail, "install notifyd there, or correct ExecStart")
    config = next((Path(after) for word, after in pairwise(command) if word == "--config"), None)
    if config is not None and config.resolve() != path.resolve():
        detail = f"{service.path} starts with {config}, and this is {path}"
        yield Finding("units", WARNING, detail, f"notifyd doctor --config {config}")
    name = service.last("User")
    if name and _user(service) is None:
        todo = "systemd-sysusers, with notifyd.sysusers in /usr/lib/sysusers.d/notifyd.conf"
        yield Finding("units", ERROR, f"{service.path}: there is no user {name}", todo)


def _of_socket(settings: Settings, listener: Unit) -> Iterator[Finding]:
    said, wanted = settings.server.listen, listener.all("ListenStream")
    if [_listen(one) for one in wanted] != [said]:
        detail = f"{listener.path} listens on {', '.join(wanted) or 'nothing'}, and server.listen says {said}"
        todo = f"write ListenStream={said}, then systemctl daemon-reload and restart notifyd.socket"
        yield Finding("units", ERROR, detail, todo)


def _listen(text: str) -> Listen | None:
    """An address of `ListenStream`; a port alone is every address."""
    try:
        return Listen("::", int(text)) if text.isdecimal() else parse_listen(text)
    except ValueError:
        return None


def _written(settings: Settings, service: Unit) -> Iterator[Finding]:
    """May the service write where the database is to be? `ProtectSystem=strict` leaves it what is named."""
    if service.last("ProtectSystem") != "strict" or not settings.store.url.startswith("sqlite"):
        return
    place = (Path(service.last("WorkingDirectory") or "/") / sqlite_path(settings.store.url)).parent
    words = [word for value in service.all("StateDirectory") for word in value.split()]
    allowed = [Path("/var/lib") / word.partition(":")[0] for word in words]
    allowed += [Path(word.lstrip("-+")) for value in service.all("ReadWritePaths") for word in value.split()]
    if not any(place.is_relative_to(folder) for folder in allowed):
        named = ", ".join(map(str, allowed)) or "nowhere"
        detail = f"{service.path} lets the service write to {named}, and the database is in {place}"
        yield Finding("units", ERROR, detail, f"add ReadWritePaths={place}, or move the database")


def _low_port(settings: Settings, service: Unit) -> Iterator[Finding]:
    port = settings.server.listen.port
    if 0 < port < 1024 and "CAP_NET_BIND_SERVICE" not in " ".join(service.all("AmbientCapabilities")):
        detail = f"server.listen has the port {port}, which {service.path} may not open"
        yield Finding("units", ERROR, detail, "install notifyd.socket, which opens it for the service")


# --- the machine ----------------------------------------------------------------------------------------------


def machine(settings: Settings, service: Unit | None) -> Iterator[Finding]:
    """What the machine gives the service, and how long its certificate lasts."""
    yield _descriptors(settings, service)
    if settings.server.tls.cert:
        yield own_certificate(settings.server.tls.cert)


def _descriptors(settings: Settings, service: Unit | None) -> Finding:
    wanted, limit = settings.server.max_connections + DESCRIPTORS, _limit(service)
    if limit >= wanted:
        return Finding("descriptors", OK, f"{limit} may be open, {wanted} are needed")
    detail = f"{limit} may be open, and server.max_connections needs {wanted}: fewer connections are taken"
    return Finding("descriptors", WARNING, detail, f"LimitNOFILE={wanted} in notifyd.service, or ulimit -n")


def _limit(service: Unit | None) -> int:
    """The hard limit, which is what the service takes."""
    said = (service.last("LimitNOFILE") or "").rpartition(":")[2] if service else ""
    if said.isdecimal():
        return int(said)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _ANY if hard == resource.RLIM_INFINITY or said == "infinity" else hard


def own_certificate(path: Path) -> Finding:
    """How long the service's own certificate is still good."""
    from cryptography import x509

    try:
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        return Finding("tls", ERROR, f"server.tls.cert: {error}", f"look at {path}")
    return ending("server.tls.cert", end)


def ending(whose: str, end: datetime) -> Finding:
    """How long a certificate is still good."""
    left = end - datetime.now(UTC)
    detail = f"{whose}: the certificate {'ended' if left < timedelta() else 'ends'} on {end:%Y-%m-%d}"
    if left < timedelta():
        return Finding("tls", ERROR, detail, "renew it")
    return Finding("tls", WARNING, detail, "renew it soon") if left < _SOON else Finding("tls", OK, detail)
