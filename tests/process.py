"""The daemon as a process of its own, and a caller's side of it.

async with daemon_process(tmp_path, CHANNELS_AND_RULES) as daemon:
    answer = await daemon.send(events.requested(at=now()))
    await daemon.kill()
    await daemon.start()
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from attrs import define, field, frozen
from prometheus_client.parser import text_string_to_metric_families

from notifyd.security.secrets import Secret
from notifyd.security.signing import sign
from tests.forked import COMMANDS, for_the_interpreter
from tests.forks import Forked
from tests.ports import free_port
from tests.waiting import until, until_async

CLIENT: Final = "task-runner"
SECRET: Final = "whsec_" + base64.b64encode(b"what the task runner signs with").decode()
TOKEN: Final = "nt_token-of-the-operator-0123456789"
SEAL_KEY: Final = base64.b64encode(b"the key that seals all in tests.").decode()
TENANT: Final = "acme"

_BASE: Final = {
    "[server]": 'listen = "127.0.0.1:${NOTIFYD_PORT}"',
    "[store]": 'url = "${NOTIFYD_STORE}"',
    "[keys]": 'seal = ["${NOTIFYD_SEAL_KEY}"]',
    "[egress]": 'allow_private = ["127.0.0.0/8"]',
    "[auth.clients.task-runner]": """\
hmac_secrets = ["${NOTIFYD_SECRET}"]
scopes = ["Notifier.Events:Write", "Packs.Approve"]
act_as = ["*@acme.example"]
tenants = ["acme"]""",
    "[auth.clients.operator]": """\
token_hashes = ["${NOTIFYD_TOKEN_HASH}"]
scopes = ["Notifier.Events:Write", "Notifier.Read", "Notifier.Operate", "Packs.Approve"]
tenants = ["acme"]""",
}
"""The sections a daemon is given where its configuration has none of the name. The caller and the operator
are `CLIENT`, who signs with `SECRET`, and whoever bears `TOKEN`.
"""

_ATTEMPTS: Final = 5
_START: Final = 60.0


@frozen
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@define
class DaemonProcess:
    """A `notifyd serve`. What it has printed in all its lives is in `stdout` and `stderr`."""

    folder: Path
    session: aiohttp.ClientSession
    port: int
    store: str = ""
    environ: Mapping[str, str] = field(factory=dict)
    options: tuple[str, ...] = ()
    python: str = ""
    process: asyncio.subprocess.Process | Forked | None = None
    stdout: bytearray = field(factory=bytearray)
    stderr: bytearray = field(factory=bytearray)
    _readers: list[asyncio.Task[None]] = field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def config_path(self) -> Path:
        return self.folder / "notifyd.toml"

    @property
    def database(self) -> Path:
        return self.folder / "notifyd.db"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def logs(self) -> list[dict[str, Any]]:
        """Every whole line of standard output, read as JSON."""
        text, _, _ = bytes(self.stdout).rpartition(b"\n")
        return [orjson.loads(line) for line in text.splitlines()]

    # -- its life -----------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Start the process, and return before it is ready."""
        out, stdout = os.pipe()
        err, stderr = os.pipe()
        try:
            self.process = await self._process(stdout, stderr)
        finally:
            os.close(stdout)
            os.close(stderr)
        self._readers = [
            asyncio.create_task(_read(out, self.stdout)),
            asyncio.create_task(_read(err, self.stderr)),
        ]

    async def _process(self, stdout: int, stderr: int) -> asyncio.subprocess.Process | Forked:
        arguments = ("serve", "--config", str(self.config_path), *self.options)
        environ = environ_of(self.folder, self.port, self.store) | dict(self.environ)
        if not self.python and not for_the_interpreter(self.environ):
            nothing = os.open(os.devnull, os.O_RDONLY)
            try:
                return await COMMANDS.start(arguments, environ, (nothing, stdout, stderr))
            finally:
                os.close(nothing)
        command = (self.python or sys.executable, "-m", "notifyd", *arguments)
        return await asyncio.create_subprocess_exec(*command, env=environ, stdout=stdout, stderr=stderr)

    async def begin(self) -> None:
        """Start it for the first time, on another port where the one found free has been taken since."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self.start()
            except AssertionError as error:
                if "address already in use" not in str(error).lower():
                    raise
                self.port = free_port()
        return await self.start()

    async def start(self) -> None:
        """Start the process, again on the same port and folder if it has ended, until it is ready."""
        await self.launch()
        if await until_async(self._ready_or_ended, _START) == "ended":
            raise AssertionError(f"the daemon has ended: {self.stderr.decode()}{self.stdout.decode()}")

    async def _ready_or_ended(self) -> str:
        if self.process is None or self.process.returncode is not None:
            await self.wait()
            return "ended"
        try:
            return "ready" if (await self.call("GET", "/readyz")).status == 200 else ""
        except aiohttp.ClientError:
            return ""

    async def wait(self) -> int:
        """Its exit code, once it has ended and all it has printed is read."""
        assert self.process is not None
        code = await asyncio.wait_for(self.process.wait(), 20)
        await asyncio.gather(*self._readers)
        return code

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def logged(self, part: str, **members: Any) -> dict[str, Any]:
        """The first log line that has `part` in its message, and these members, once there is one."""

        def found() -> dict[str, Any] | None:
            fits = (line for line in self.logs if part in line["message"] and line.items() >= members.items())
            return next(fits, None)

        line = await until(found)
        assert line is not None
        return line

    # -- calls --------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, **request: Any) -> Answer:
        """AssertionError with what the daemon has logged of it where that is a fault of its own."""
        async with self.session.request(
            method, self.url + path, allow_redirects=False, **request
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        if answer.status == 500:
            raise AssertionError(await self.logged("", correlationId=answer.json["correlationId"]))
        return answer

    async def get(self, path: str, **query: str) -> Answer:
        """As the operator."""
        return await self.call("GET", path, params=query, headers={"Authorization": f"Bearer {TOKEN}"})

    async def post(self, path: str, document: Any) -> Answer:
        """As the operator, with a token."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        return await self.call("POST", path, data=orjson.dumps(document), headers=headers)

    async def send(self, document: Any, path: str = "/notifications/pack-approvals") -> Answer:
        """As the task runner, with a signature."""
        body = orjson.dumps(document)
        signed = sign([Secret(SECRET)], uuid.uuid4().hex, int(time.time()), body)
        headers = signed | {"X-Notifyd-Client": CLIENT, "Content-Type": "application/json"}
        return await self.call("POST", path, data=body, headers=headers)

    async def ack(self, event: Mapping[str, Any], decision: str = "approved", **members: Any) -> Answer:
        """Decide what `event` asks for, as the task runner, on behalf of alice@acme.example."""
        same = {name: event[name] for name in ("tenant", "runId", "approvalId", "planHash")}
        ballot = same | {"decision": decision, "actor": "alice@acme.example"} | members
        return await self.send(
            ballot, f"/notifications/pack-approvals/{event['runId']}/{event['approvalId']}/ack"
        )

    async def metric(self, name: str, **labels: str) -> float | None:
        """A sample's value, None where there is no such sample."""
        text = (await self.call("GET", "/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels.items() >= labels.items():
                    return float(sample.value)
        return None


@asynccontextmanager
async def daemon_process(
    folder: Path,
    config: str,
    *,
    store: str = "",
    environ: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    python: str = "",
    start: bool = True,
) -> AsyncIterator[DaemonProcess]:
    """A daemon in `folder`, ready unless `start` is false, and ended with the block if it lives that long.

    `config` is TOML: channels, rules, and whatever differs from the sections it gets by default. `store` is the
    URL of its database, by default of a file in `folder`. The daemon is forked from a process that has its imports
    done, unless `python` names an interpreter to start, or `environ` tells one something.
    """
    async with aiohttp.ClientSession() as session:
        daemon = DaemonProcess(folder, session, free_port(), store, environ or {}, options, python)
        configure(daemon.config_path, config)
        try:
            if start:
                await daemon.begin()
            yield daemon
        finally:
            if daemon.process is not None:
                if daemon.process.returncode is None:
                    daemon.process.kill()
                await daemon.wait()


def configure(path: Path, config: str) -> None:
    """Write a configuration file, with the sections that `config` leaves out."""
    missing = (f"{head}\n{body}\n" for head, body in _BASE.items() if head not in config)
    path.write_text("\n".join([config, *missing]))


def environ_of(folder: Path, port: int, store: str = "") -> dict[str, str]:
    """The environment that the default sections refer to, and this process's own without notifyd's.

    `store` is a URL, by default that of a file in `folder`.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFYD_", "NOTIFY_"))}
    return own | {
        "NOTIFYD_STORE": store or f"sqlite:///{folder}/notifyd.db",
        "NOTIFYD_PORT": str(port),
        "NOTIFYD_SEAL_KEY": SEAL_KEY,
        "NOTIFYD_SECRET": SECRET,
        "NOTIFYD_TOKEN_HASH": "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest(),
    }


def toml(value: Any) -> str:
    """A string or a list of strings as TOML."""
    return json.dumps(value)


async def _read(file: int, into: bytearray) -> None:
    stream = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(stream)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(file, "rb", 0))
    while data := await stream.read(65536):
        into += data
