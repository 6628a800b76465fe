"""The daemon as a process: its start, its signals, what it tells its manager, and what it never says."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from notifyd.model import wall_clock
from notifyd.security.secrets import key_id
from tests import events
from tests.e2e.databases import Database
from tests.forked import notifyd
from tests.mongodb import MongoServer
from tests.ports import free_port
from tests.process import (
    SEAL_KEY,
    SECRET,
    TOKEN,
    configure,
    daemon_process,
    environ_of,
    toml,
)
from tests.sinks import HttpSink, MailSink, Received, Reply
from tests.waiting import until, until_async

RESUME_TOKEN: Final = "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"
CALLBACK: Final = "http://127.0.0.1:9"
"""Where decisions would go: nobody listens there."""
EVERYTHING: Final = '[[rules]]\nname = "everything"\nwhen = "true"\nchannels = ["hook"]\n'


def hook(url: str, **options: str) -> str:
    """A webhook channel, and a rule that sends it everything."""
    more = "".join(f"{name} = {toml(value)}\n" for name, value in options.items())
    return f'[channels.hook]\ntype = "webhook"\nurl = {toml(url)}\n{more}{EVERYTHING}{resume_to(CALLBACK)}'


def resume_to(origin: str) -> str:
    return f"[resume]\nallowed_origins = [{toml(origin)}]\n"


def requested(**overrides: Any) -> dict[str, Any]:
    resume = {"callbackUrl": f"{CALLBACK}/resume", "token": RESUME_TOKEN}
    return events.requested(at=wall_clock(), **{"resume": resume} | overrides)


@pytest.fixture
async def sink() -> Any:
    async with HttpSink() as sink:
        yield sink


# --- start and stop -----------------------------------------------------------------------------------------


async def test_a_started_daemon_is_healthy_and_ready_and_sigterm_ends_it_with_0(
    database: Database, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path, "", store=database.url, python=sys.executable) as daemon:
        assert (await daemon.call("GET", "/healthz")).json == {"status": "ok"}
        assert (await daemon.call("GET", "/readyz")).json == {"status": "ready"}
        assert await daemon.stop() == 0
        assert daemon.stderr == b""
        assert [line["message"] for line in daemon.logs][-2:] == ["stopping on SIGTERM", "stopped"]


async def test_sigint_ends_it_with_0_too(tmp_path: Path) -> None:
    async with daemon_process(tmp_path, "") as daemon:
        daemon.signal(signal.SIGINT)
        assert await daemon.wait() == 0


async def test_an_attempt_under_way_ends_before_the_daemon_does(
    sink: HttpSink, database: Database, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path, hook(sink.url), store=database.url) as daemon:
        sink.gate.clear()
        event = requested()
        assert (await daemon.send(event)).status == 202
        await sink.wait()
        daemon.signal(signal.SIGTERM)

        async def refuses() -> bool:
            return (await daemon.call("GET", "/readyz")).status == 503

        await until_async(refuses)
        sink.gate.set()
        assert await daemon.wait() == 0
        await daemon.start()
        (delivery,) = (await daemon.get("/api/v1/deliveries")).json["items"]
        assert (delivery["state"], delivery["tries"]) == ("sent", 1)
        assert len(sink.received) == 1


@pytest.mark.long
async def test_an_attempt_that_does_not_end_is_given_up_within_ten_seconds_and_made_again(
    sink: HttpSink, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path, hook(sink.url, timeout="60s")) as daemon:
        sink.gate.clear()
        assert (await daemon.send(requested())).status == 202
        await sink.wait()
        begun = time.monotonic()
        assert await daemon.stop() == 0
        assert time.monotonic() - begun < 10
        sink.gate.set()
        await daemon.start()
        first, again = await sink.wait(2)
        assert first.headers["webhook-id"] == again.headers["webhook-id"]


async def test_a_second_sigint_ends_it_at_once(sink: HttpSink, tmp_path: Path) -> None:
    async with daemon_process(tmp_path, hook(sink.url)) as daemon:
        sink.gate.clear()
        assert (await daemon.send(requested())).status == 202
        await sink.wait()
        daemon.signal(signal.SIGINT)
        await daemon.logged("stopping on SIGINT")
        begun = time.monotonic()
        daemon.signal(signal.SIGINT)
        assert await daemon.wait() == 130
        assert time.monotonic() - begun < 3


async def test_a_broken_step_ends_the_daemon_with_1_and_a_log_line(tmp_path: Path) -> None:
    """So that its manager starts it anew, instead of a daemon that accepts and never sends."""
    configure(tmp_path / "notifyd.toml", "")
    code = (
        "from notifyd.flow.planner import Planner\n"
        f"async def broken(self): raise RuntimeError('this breaks, by {SECRET}')\n"
        "Planner.run = broken\n"
        "from notifyd.cli import main; main()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "serve", "--config", str(tmp_path / "notifyd.toml")),
        env=environ_of(tmp_path, free_port()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        stdout, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"the step 'plan' has broken" in stdout
    assert b"RuntimeError: this breaks, by" in stdout
    assert SECRET.encode() not in stdout + stderr


# --- what keeps it from starting ----------------------------------------------------------------------------


async def serve(folder: Path, port: int, store: str = "") -> tuple[int, str]:
    """`notifyd serve` until it gives up: the exit code, and standard error."""
    options = ("--config", folder / "notifyd.toml")
    result = await notifyd("serve", *options, environ=environ_of(folder, port, store))
    return result.code, result.stderr


async def test_a_store_that_is_in_use_is_one_line(tmp_path: Path) -> None:
    """SQLite alone has a lock on its file. A MongoDB is there for many; a name in it is for one."""
    async with daemon_process(tmp_path, "") as daemon:
        code, said = await serve(tmp_path, free_port())
        assert code == 1
        assert said.startswith(f"notifyd: cannot start: {daemon.database}: in use by process {daemon.pid}")
        assert len(said.splitlines()) == 1


async def test_a_name_that_is_in_use_is_one_line(mongo_server: MongoServer, tmp_path: Path) -> None:
    """By default it is the host's with the address that is listened on. An SQLite file has one process at most."""
    url = mongo_server.database()
    async with daemon_process(tmp_path, "", store=url) as daemon:
        code, said = await serve(tmp_path, daemon.port, url)
        assert code == 1
        assert said.startswith("notifyd: cannot start: MongoDB database notifyd_test_")
        name = f"{socket.gethostname()}/127.0.0.1:{daemon.port}"
        assert f": another process lives as node '{name}'; " in said
        assert len(said.splitlines()) == 1


async def test_a_port_that_is_taken_is_one_line_and_leaves_the_store_to_the_next(
    database: Database, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path, "", store=database.url, start=False) as daemon:
        with socket.create_server(("127.0.0.1", daemon.port)):
            code, said = await serve(tmp_path, daemon.port, database.url)
        assert code == 1
        assert "address already in use" in said.lower()
        assert str(daemon.port) in said
        assert len(said.splitlines()) == 1
        await daemon.start()
        assert not any("has not stopped cleanly" in line["message"] for line in daemon.logs)


async def test_a_start_makes_no_store_where_the_configuration_forbids_it(
    database: Database, tmp_path: Path
) -> None:
    configure_in(tmp_path, '[store]\nurl = "${NOTIFYD_STORE}"\ncreate = false\n')
    code, said = await serve(tmp_path, free_port(), database.url)
    assert code == 1
    assert ": no store is there: restore it, or correct store.url" in said
    assert len(said.splitlines()) == 1
    async with daemon_process(tmp_path, "", store=database.url) as daemon:
        await daemon.logged("no store was there, an empty one is made", level="warning")
    async with daemon_process(
        tmp_path, '[store]\nurl = "${NOTIFYD_STORE}"\ncreate = false\n', store=database.url
    ) as daemon:
        assert not any("no store was there" in line["message"] for line in daemon.logs)


async def test_a_store_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    """That can be said of SQLite's file only."""
    configure_in(tmp_path, "")
    write(tmp_path / "notifyd.db", "this is no database, " * 1000)
    code, said = await serve(tmp_path, free_port())
    assert code == 3, "its manager is not to start it again"
    assert said.startswith(f"notifyd: cannot start: {tmp_path / 'notifyd.db'}: ")
    assert len(said.splitlines()) == 1


async def test_a_database_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """MongoDB's part: an embedded store has no server."""
    url = f"mongodb://127.0.0.1:{free_port()}/notifyd"
    configure_in(tmp_path, f'[store]\nurl = "{url}"\ntimeout = "200ms"\n')
    code, said = await serve(tmp_path, free_port())
    assert code == 1
    assert said.startswith("notifyd: cannot start: MongoDB database notifyd: ")
    assert len(said.splitlines()) == 1


async def test_every_fault_of_the_configuration_is_named(tmp_path: Path) -> None:
    """No store is opened then, of whatever kind."""
    configure_in(tmp_path, '[servers]\n[channels.hook]\ntype = "pigeon"\n')
    code, said = await serve(tmp_path, free_port())
    assert code == 3  # its manager is not to try again
    lines = said.splitlines()
    path = tmp_path / "notifyd.toml"
    assert any(line.startswith(f"notifyd: {path}:1: servers: ") for line in lines)
    assert any(line.startswith(f"notifyd: {path}:3: channels.hook.type: ") for line in lines)


def configure_in(folder: Path, config: str) -> None:
    folder.mkdir(exist_ok=True)
    configure(folder / "notifyd.toml", config)


def write(path: Path, text: str) -> None:
    path.write_text(text)


# --- reload -------------------------------------------------------------------------------------------------


async def test_sighup_takes_a_changed_configuration(sink: HttpSink, tmp_path: Path) -> None:
    async with daemon_process(tmp_path, hook(sink.url + "/before")) as daemon:
        reloaded = "notifyd_config_last_reload_success_timestamp_seconds"
        started = await daemon.metric(reloaded)
        configure(daemon.config_path, hook(sink.url + "/after"))
        daemon.signal(signal.SIGHUP)
        await daemon.logged("notifyd.toml is reloaded")
        assert await daemon.metric("notifyd_config_last_reload_successful") == 1
        assert (await daemon.metric(reloaded) or 0) > (started or 0)
        assert (await daemon.send(requested())).status == 202
        (received,) = await sink.wait()
        assert received.path == "/after"


async def test_an_invalid_configuration_changes_nothing_and_is_named_with_its_faults(
    sink: HttpSink, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path, hook(sink.url)) as daemon:
        good = hook(sink.url)
        configure(daemon.config_path, good.replace("webhook", "pigeon") + f'[serve]\nx = "{SEAL_KEY}"\n')
        daemon.signal(signal.SIGHUP)
        for fault in ("channels.hook.type: no plugin brings", "serve: "):
            await daemon.logged(f"{daemon.config_path} is not reloaded: {fault}", level="error")
        assert await daemon.metric("notifyd_config_last_reload_successful") == 0
        assert (await daemon.send(requested())).status == 202
        await sink.wait()
        configure(daemon.config_path, good)
        daemon.signal(signal.SIGHUP)
        await daemon.logged("notifyd.toml is reloaded")
        assert await daemon.metric("notifyd_config_last_reload_successful") == 1


async def test_what_cannot_change_while_it_runs_is_named_in_a_warning(tmp_path: Path) -> None:
    async with daemon_process(tmp_path, "") as daemon:
        other = f'[server]\nlisten = "127.0.0.1:{free_port()}"\n'
        configure(daemon.config_path, other)
        daemon.signal(signal.SIGHUP)
        warning = await daemon.logged("server.listen", level="warning")
        assert "restart" in warning["message"]
        assert (await daemon.call("GET", "/readyz")).status == 200


async def test_reloads_that_come_together_are_all_heeded(sink: HttpSink, tmp_path: Path) -> None:
    """The last configuration is in force, however many signals came while one before was being loaded."""
    async with daemon_process(tmp_path, hook(sink.url + "/0")) as daemon:
        for number in range(1, 6):
            configure(daemon.config_path, hook(f"{sink.url}/{number}"))
            daemon.signal(signal.SIGHUP)

        async def newest() -> bool:
            assert (await daemon.send(requested(runId=f"run-{len(sink.received)}"))).status == 202
            received = await sink.wait(len(sink.received) + 1)
            return received[-1].path == "/5"

        await until_async(newest)


# --- the log's level -----------------------------------------------------------------------------------------


async def test_sigusr1_turns_debug_lines_on_and_off_again(tmp_path: Path) -> None:
    async with daemon_process(tmp_path, "") as daemon:
        daemon.signal(signal.SIGUSR1)
        await daemon.logged("the log's level is debug, and was info", level="warning")
        daemon.signal(signal.SIGUSR1)
        await daemon.logged("the log's level is info, and was debug", level="warning")
        assert (await daemon.call("GET", "/readyz")).status == 200


# --- what the service manager hears -------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as heard:
        heard.bind(str(tmp_path / "notify"))
        yield heard


class Told(list[dict[str, str]]):
    """All messages so far, read on at each look."""

    def __init__(self, manager: socket.socket) -> None:
        super().__init__()
        self._manager = manager

    def have(self, count: int, field: str) -> bool:
        while True:
            try:
                lines = self._manager.recv(4096).decode().splitlines()
            except BlockingIOError:
                break
            self.append(dict(line.split("=", 1) for line in lines))
        return sum(field in message for message in self) >= count


async def test_systemd_is_told_why_a_start_has_failed(manager: socket.socket, tmp_path: Path) -> None:
    write(tmp_path / "notifyd.toml", '[server]\nlisten = "nowhere"\nport = 1\n')
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    done = await notifyd("serve", "--config", str(tmp_path / "notifyd.toml"), environ=environ)
    told = Told(manager)
    assert told.have(1, "STATUS")
    assert done.code == 3
    assert told[-1]["STATUS"].startswith("Cannot start: ")
    assert " faults more" in told[-1]["STATUS"]


async def test_systemd_is_told_of_readiness_reloads_and_the_end(
    manager: socket.socket, tmp_path: Path
) -> None:
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path)}
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000", **runtime}
    async with daemon_process(tmp_path, "", environ=environ) as daemon:
        told = Told(manager)
        await until(lambda: told.have(1, "READY"))
        assert told[0]["STATUS"] == f"Listening on 127.0.0.1 port {daemon.port}"
        await until(lambda: told.have(3, "WATCHDOG"))
        before = time.monotonic_ns() // 1000
        taken = await notifyd("reload", environ=runtime)
        assert (taken.code, taken.stdout) == (0, "reloaded\n")
        assert told.have(2, "READY")  # before whoever waits is told
        (reloading,) = (message for message in told if "RELOADING" in message)
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        write(daemon.config_path, "[")
        refused_reload = await notifyd("reload", environ=runtime)
        assert (refused_reload.code, "was refused" in refused_reload.stderr) == (1, True)
        assert told.have(3, "READY")
        refused = [message for message in told if "READY" in message][-1]
        assert "the last reload was refused" in refused["STATUS"]
        assert await daemon.stop() == 0
        assert told.have(1, "STOPPING")
        assert [next(iter(message)) for message in told if "WATCHDOG" not in message] == [
            *("READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING")
        ]


ACTIVATED: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": sys.argv[2], "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "notifyd", "serve", "--config", sys.argv[3]])
"""
"""What systemd does between fork and exec, for one socket."""


@asynccontextmanager
async def activated(
    folder: Path, given: socket.socket, *, count: str = "1", store: str = ""
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ACTIVATED, str(given.fileno()), count, str(folder / "notifyd.toml")),
        env=environ_of(folder, free_port(), store),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=[given.fileno()],
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_socket_that_systemd_has_opened_is_served_and_outlives_the_daemon(tmp_path: Path) -> None:
    """So that a restart refuses no connection: those that come meanwhile wait."""
    configure_in(tmp_path, "")
    with socket.create_server(("127.0.0.1", 0)) as systemd:
        url = "http://{}:{}/readyz".format(*systemd.getsockname())
        for _ in range(2):
            async with aiohttp.ClientSession() as caller:
                call = asyncio.create_task(caller.get(url))
                async with activated(tmp_path, systemd) as process:
                    assert (await call).status == 200
                    process.terminate()
                    stdout, _ = await process.communicate()
                    assert process.returncode == 0
        assert b"systemd listens on 127.0.0.1 port" in stdout


@pytest.mark.parametrize(
    ("kind", "count", "said"),
    [
        (socket.SOCK_DGRAM, "1", "is not a listening TCP socket"),
        (socket.SOCK_STREAM, "2", "passes on 2 sockets"),
    ],
    ids=["another kind", "two"],
)
async def test_what_is_no_listening_socket_is_refused(
    kind: socket.SocketKind, count: str, said: str, tmp_path: Path
) -> None:
    """No store is opened then, of whatever kind."""
    configure_in(tmp_path, "")
    with socket.socket(socket.AF_INET, kind) as given:
        async with activated(tmp_path, given, count=count) as process:
            _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.startswith(b"notifyd: cannot start: ")
    assert said.encode() in stderr


# --- what it never says -------------------------------------------------------------------------------------


async def test_a_refused_request_is_logged_with_its_correlation_id(tmp_path: Path) -> None:
    async with daemon_process(tmp_path, "") as daemon:
        headers = {"Authorization": "Bearer nobodys", "X-Correlation-ID": "cid-4711"}
        assert (await daemon.call("GET", "/api/v1/audit", headers=headers)).status == 401
        await daemon.logged("refused", correlationId="cid-4711")


async def test_no_secret_is_in_the_log_or_in_the_database(
    sink: HttpSink, database: Database, tmp_path: Path
) -> None:
    """With everything going wrong that can: signatures, receivers, reloads; at the level that says most."""
    header, path = "header-value-9f8e7d", "path-that-is-a-key-1a2b3c"
    async with MailSink() as mail:
        config = f"""
            [channels.hook]
            type = "webhook"
            url = "{sink.url}/{path}"
            secret = "{SECRET}"
            headers = {{ X-Api-Key = "{header}" }}
            [channels.mail]
            type = "email"
            host = "127.0.0.1"
            port = {mail.port}
            tls = "none"
            from = "notifyd@acme.example"
            [channels.spare-mail]
            type = "email"
            host = "127.0.0.1"
            tls = "none"
            from = "notifyd@acme.example"
            username = "notifyd"
            password = "the-mail-password"
            [[rules]]
            name = "all"
            when = "true"
            channels = ["hook", "mail"]
            to = ["alice@acme.example"]
            [dispatch]
            backoff = "10ms..20ms"
            {resume_to(sink.url)}"""
        options = ("--log-level", "debug")
        async with daemon_process(tmp_path, config, store=database.url, options=options) as daemon:
            sink.script.extend(
                [Reply(503, Received.echo), Reply(500, Received.echo), Reply(400, Received.echo)]
            )
            resume = {"callbackUrl": f"{sink.url}/resume", "token": RESUME_TOKEN}
            event = requested(resume=resume, parameters={"password": "in-the-event-5551212"})
            assert (await daemon.send(event)).status == 202
            await daemon.call("POST", "/notifications/pack-approvals", headers={"webhook-signature": SECRET})
            await daemon.call("GET", "/api/v1/audit", headers={"Authorization": f"Bearer {SECRET}"})
            (mailed,) = await until(lambda: mail.mails)
            link = mailed.get_body(("plain",)).get_content().split("/approvals/")[1].split()[0]  # type: ignore[union-attr]
            await daemon.call("GET", f"/approvals/{link}")
            await daemon.call("POST", f"/approvals/{link}", data={"csrf": "no"})
            await daemon.call("GET", f"/approvals/{link}x")
            await sink.wait(3)
            sink.script.extend([Reply(500, Received.echo)] * 2)
            assert (await daemon.ack(event)).status == 200
            await sink.wait(3 + 2 + 2)  # two were answered with what they had said
            write(daemon.config_path, f'[keys]\nseal = ["{SEAL_KEY}"]\n[auth]\nx = "{SECRET}"\n')
            daemon.signal(signal.SIGHUP)
            await daemon.logged("notifyd.toml is not reloaded")
            assert await daemon.stop() == 0
            said = bytes(daemon.stdout + daemon.stderr)
    stored = database.content()
    assert len(daemon.logs) > 5
    assert b"run-0042" in stored
    secrets = [SECRET.removeprefix("whsec_"), TOKEN, SEAL_KEY, RESUME_TOKEN, header, path, link]
    for secret in (*secrets, "the-mail-password", "in-the-event-5551212"):
        assert secret.encode() not in said, "a secret is in the log"
        assert secret.encode() not in stored, "a secret is in the database"


def test_the_process_of_a_test_is_not_told_what_systemd_told_the_tests() -> None:
    assert "NOTIFY_SOCKET" not in environ_of(Path(os.devnull), 1)


async def test_a_start_without_the_key_of_waiting_callbacks_gives_them_up_only_when_asked(
    database: Database, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path, resume_to(CALLBACK), store=database.url) as daemon:
        for number in range(3):
            event = requested(runId=f"run-{number}", eventId=f"event-{number}")
            assert (await daemon.send(event)).status == 202
            assert (await daemon.ack(event)).status == 200

        async def queued() -> bool:
            callbacks = (await daemon.get("/api/v1/deliveries", channel="resume")).json["items"]
            return len(callbacks) == 3

        await until_async(queued)
        await daemon.stop()
        daemon.environ = {"NOTIFYD_SEAL_KEY": base64.b64encode(b"another key, of 32 bytes as well").decode()}
        await daemon.launch()
        assert await daemon.wait() == 3
        said = daemon.stderr.decode()
        assert f"keys.seal: lacks the key {key_id(base64.b64decode(SEAL_KEY))}, which rows need" in said
        assert "deliveries: 3" in said
        assert len(said.splitlines()) == 1
        daemon.options = ("--abandon-sealed",)
        await daemon.start()
        await daemon.logged("never sent are deliveries: 3", level="warning")
        assert (await daemon.send(event)).status == 200
