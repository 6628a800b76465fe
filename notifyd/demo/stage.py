"""The demo's stage: the daemon as a process, under a throwaway configuration, and its neighbours."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp
import tomli
from attrs import define, field, frozen

from notifyd.config.load import as_toml
from notifyd.demo.neighbours import Mailbox, SignedSink
from notifyd.security.secrets import Secret
from notifyd.testkit.ports import free_port

HOOK_PATH: Final = "/notifications"
_READY: Final = 20.0
_STOP: Final = 12.0


class StageError(Exception):
    """The stage cannot be set, or falls."""


@frozen
class Props:
    """The secrets of one run, made for it."""

    seal_key: str = field(factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode(), repr=False)
    runner: Secret = field(factory=lambda: _signing_secret())
    hook: Secret = field(factory=lambda: _signing_secret())
    operator: Secret = field(factory=lambda: Secret(secrets.token_urlsafe(32)))
    resume: Secret = field(factory=lambda: Secret("rt_" + secrets.token_urlsafe(24)))

    def environ(self) -> dict[str, str]:
        """What the configuration's placeholders stand for."""
        return {
            "NOTIFYD_SEAL_KEY": self.seal_key,
            "TASK_RUNNER_SECRET": self.runner.reveal(),
            "HOOK_SECRET": self.hook.reveal(),
            "OPERATOR_TOKEN_HASH": "sha256:" + hashlib.sha256(self.operator.reveal().encode()).hexdigest(),
        }

    def values(self) -> list[str]:
        """Everything that must not be found anywhere in clear."""
        made = (self.runner, self.hook, self.operator, self.resume)
        return [self.seal_key, *(secret.reveal().removeprefix("whsec_") for secret in made)]


def _signing_secret() -> Secret:
    return Secret("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())


@define
class Stage:
    """`out` is the folder that stays, `backstage` the one that goes with the demo."""

    out: Path
    backstage: Path
    props: Props
    mailbox: Mailbox
    hook: SignedSink
    runner: SignedSink
    session: aiohttp.ClientSession
    url: str
    process: asyncio.subprocess.Process | None = None

    @property
    def database(self) -> Path:
        return self.backstage / "notifyd.db"

    @property
    def log(self) -> Path:
        return self.out / "notifyd.log"

    @property
    def config(self) -> Path:
        return self.out / "notifyd.toml"

    def write_config(self) -> None:
        """The shipped example, with the addresses of this run in place of its own."""
        tree = tomli.loads(resources.files(__package__).joinpath("demo.toml").read_text("utf-8"))
        tree["server"]["listen"] = self.url.removeprefix("http://")
        tree["store"]["url"] = f"sqlite:///{self.database}"
        tree["channels"]["release-mail"]["port"] = self.mailbox.port
        tree["channels"]["chat-bridge"]["url"] = self.hook.url + HOOK_PATH
        tree["resume"]["allowed_origins"] = [self.runner.url]
        self.config.write_text(as_toml(tree))

    async def start(self) -> None:
        """Start the daemon and wait until it is ready. Raises `StageError`, TimeoutError."""
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "notifyd", "serve", "--config", str(self.config)),
                env={**_own_environ(), **self.props.environ()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends the daemon
            )
        async with asyncio.timeout(_READY):
            while not await self._ready():  # noqa: ASYNC110 - another process becomes ready
                await asyncio.sleep(0.02)

    async def _ready(self) -> bool:
        if self.process is None or self.process.returncode is not None:
            raise StageError(f"the daemon has ended: {self.last_words()}")
        try:
            async with self.session.get(self.url + "/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it has logged nothing"

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            raise StageError("the daemon was never started")
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), _STOP)

    async def clear(self) -> None:
        """Whatever happened, leave no daemon behind."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def look(self, path: str, **query: str) -> Any:
        """What the service tells its operator. Raises `StageError` where that is no success."""
        bearer = {"Authorization": f"Bearer {self.props.operator.reveal()}"}
        async with self.session.get(self.url + path, params=query, headers=bearer) as answer:
            if answer.status != 200:
                raise StageError(f"GET {path} answered {answer.status}: {await answer.text()}")
            return await answer.json()


@asynccontextmanager
async def stage(out: Path) -> AsyncIterator[Stage]:
    """Neighbours that listen, and a configuration; the daemon is not yet started, and is ended with the block."""
    async with AsyncExitStack() as resources:
        props = Props()
        backstage = resources.enter_context(TemporaryDirectory(prefix="notifyd-demo-"))
        one = Stage(
            out=out,
            backstage=Path(backstage),
            props=props,
            mailbox=await resources.enter_async_context(Mailbox()),
            hook=await resources.enter_async_context(SignedSink(props.hook)),
            runner=await resources.enter_async_context(SignedSink(props.runner)),
            session=await resources.enter_async_context(aiohttp.ClientSession()),
            url=f"http://127.0.0.1:{free_port()}",  # known beforehand: it stands in every link
        )
        one.write_config()
        resources.push_async_callback(one.clear)
        yield one


def _own_environ() -> Mapping[str, str]:
    """This process's environment, without what would turn the daemon to something else."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFYD_", "NOTIFY_"))}
