"""The nats forwarder, against a real server: what is published, once, and what each fault leads to."""

from __future__ import annotations

import asyncio
import json
import shutil
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import evolve
from nats.aio.client import Client
from nats.errors import Error
from notifyd_nats import NatsConfig, notifyd_resume_forwarders

from notifyd.plugin import Message, PermanentError, Reason, Secret, TransientError
from notifyd.testing import opened
from tests.ports import free_port
from tests.waiting import until_async

(NATS,) = notifyd_resume_forwarders()
SERVER: Final = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or "nats-server"
BODY: Final = {"type": "pack.approval.decided", "data": {"runId": "run-0042", "decision": "approved"}}
MESSAGE: Final = Message(id="5f0c3c2b", title="", body=json.dumps(BODY), event={"client": "task-runner"})
CONFIG: Final = """
listen: "127.0.0.1:{port}"
max_payload: 10KB
jetstream {{ store_dir: "{folder}", sync_interval: always }}
authorization {{ users: [
    {{ user: notifyd, password: "pXe2mRb9d", permissions: {{ publish: ["notifyd.>", "$JS.>", "_INBOX.>"] }} }}
    {{ user: admin, password: "admin" }}
] }}
"""


class Bus:
    """A server of its own, with the stream NOTIFYD."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: asyncio.subprocess.Process | None = None

    def url(self, login: str = "notifyd:pXe2mRb9d") -> str:
        return f"nats://{login}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        path = self._folder / "nats.conf"
        path.write_text(CONFIG.format(port=self._port, folder=self._folder))
        nothing = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            SERVER, "-c", str(path), stdout=nothing, stderr=nothing
        )
        await until_async(self._answers)

    async def _answers(self) -> bool:
        try:
            async with self.admin():
                return True
        except (OSError, Error):
            return False

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        client = Client()
        try:
            await client.connect(
                self.url("admin:admin"), max_reconnect_attempts=1, reconnect_time_wait=0, error_cb=_nothing
            )
            yield client.jetstream()
        finally:
            await client.close()

    async def make_stream(self, **changes: Any) -> None:
        async with self.admin() as stream:
            await stream.add_stream(**{"name": "NOTIFYD", "subjects": ["notifyd.resume"]} | changes)

    async def published(self) -> list[tuple[str, dict[str, Any]]]:
        """Of each message its id and its body, oldest first."""
        async with self.admin() as stream:
            last = (await stream.stream_info("NOTIFYD")).state.last_seq
            found = [await stream.get_msg("NOTIFYD", number) for number in range(1, last + 1)]
        return [(one.headers["Nats-Msg-Id"], json.loads(one.data)) for one in found]

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def _nothing(error: Exception) -> None:
    pass


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    bus = Bus(tmp_path)
    await bus.start()
    yield bus
    await bus.kill()


def config(url: str, **changes: Any) -> NatsConfig:
    return evolve(NatsConfig(servers=(Secret(url),)), **changes)


async def test_an_end_is_published_once_however_often_it_is_sent(bus: Bus) -> None:
    await bus.make_stream()
    async with opened(NATS, config(bus.url())) as forwarder:
        await asyncio.gather(*(forwarder.send(MESSAGE) for _ in range(3)))
        await forwarder.send(evolve(MESSAGE, id="other"))
    assert await bus.published() == [("5f0c3c2b", BODY), ("other", BODY)]


async def test_what_was_acknowledged_survives_the_server_and_the_next_send_finds_it_again(bus: Bus) -> None:
    await bus.make_stream()
    async with opened(NATS, config(bus.url())) as forwarder:
        await forwarder.send(MESSAGE)
        await bus.kill()
        with pytest.raises(TransientError):
            await forwarder.send(evolve(MESSAGE, id="second"))
        await bus.start()
        await forwarder.send(evolve(MESSAGE, id="second"))
    assert [id_ for id_, _ in await bus.published()] == ["5f0c3c2b", "second"]


async def test_a_stream_that_is_not_there_yet_is_waited_for(bus: Bus) -> None:
    async with opened(NATS, config(bus.url())) as forwarder:
        with pytest.raises(TransientError, match="no stream has the subject"):
            await forwarder.send(MESSAGE)
        await bus.make_stream()
        await forwarder.send(MESSAGE)


async def test_another_streams_subject_is_refused_for_good(bus: Bus) -> None:
    await bus.make_stream(name="OTHER")
    async with opened(NATS, config(bus.url())) as forwarder:
        with pytest.raises(PermanentError, match="expected stream does not match"):
            await forwarder.send(MESSAGE)


async def test_a_message_that_is_too_large_is_refused_for_good(bus: Bus) -> None:
    await bus.make_stream()
    async with opened(NATS, config(bus.url())) as forwarder:
        with pytest.raises(PermanentError) as refused:
            await forwarder.send(evolve(MESSAGE, body="x" * 20_000))
    assert refused.value.reason is Reason.TOO_LARGE


async def test_a_wrong_password_is_named_and_not_shown(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(NATS, config(bus.url("notifyd:guessed"))) as forwarder:
        with pytest.raises((PermanentError, TransientError)) as refused:
            await forwarder.send(MESSAGE)
    assert "guessed" not in str(refused.value) + caplog.text


async def test_nothing_that_listens_is_transient() -> None:
    async with opened(NATS, config(f"nats://127.0.0.1:{free_port()}")) as forwarder:
        with pytest.raises(TransientError, match="does not answer"):
            await forwarder.send(MESSAGE)


async def test_a_send_that_is_cancelled_leaves_the_next_one_a_connection(bus: Bus) -> None:
    await bus.make_stream()
    async with opened(NATS, config(bus.url())) as forwarder:
        task = asyncio.create_task(forwarder.send(MESSAGE))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await forwarder.send(MESSAGE)
        await forwarder.aclose()
        await forwarder.aclose()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"servers": ()}, "at least one server"),
        ({"servers": (Secret("http://a"),)}, "not a server's URL"),
        ({"subject": "a.*"}, "not a subject"),
        ({"subject": ""}, "not a subject"),
        ({"stream": "a.b"}, "not a stream's name"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        config("nats://127.0.0.1", **changes)
