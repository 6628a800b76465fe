"""A disk that is full for a while: callers are told to come back, and nothing that was acknowledged is lost."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import orjson
import pytest
from attrs import define, field

from notifyd.testing import Sink
from tests import events
from tests.process import Answer, DaemonProcess, daemon_process
from tests.waiting import until, until_async

CONFIG: Final = """
[store]
url = "sqlite:///{folder}/notifyd.db"
[channels.hook]
type = "webhook"
url = "{url}/hook"
[[rules]]
name = "all"
when = 'event.kind == "task.done"'
channels = ["hook"]
"""
PADDING: Final = "x" * 10_000


class Disk(Protocol):
    """Where the database is. It can be filled, and have room again."""

    folder: Path
    fault: str

    def fill(self, daemon: DaemonProcess) -> None: ...

    def free(self, daemon: DaemonProcess) -> None: ...


@define
class SmallDisk:
    """A file system of its own, in memory. A file that takes up the rest fills it."""

    folder: Path
    fault: str = "the disk is full"

    def fill(self, daemon: DaemonProcess) -> None:
        with pytest.raises(OSError, match="No space left"):
            _write_for_ever(self.folder / "ballast")

    def free(self, daemon: DaemonProcess) -> None:
        (self.folder / "ballast").unlink()


def _write_for_ever(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@define
class LimitedFiles:
    """No file of the daemon's may grow beyond the largest there is."""

    folder: Path
    fault: str = "I/O error"
    limits: tuple[int, int] = field(factory=lambda: resource.getrlimit(resource.RLIMIT_FSIZE))

    def fill(self, daemon: DaemonProcess) -> None:
        largest = max(path.stat().st_size for path in self.folder.glob("notifyd.db*"))
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (largest, self.limits[1]))

    def free(self, daemon: DaemonProcess) -> None:
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, self.limits)


@pytest.fixture(params=["disk", "files"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A disk that is full, where one may be mounted, and files that may not grow."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "files" or not _mount(folder):
        yield LimitedFiles(folder)
        return
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - its place differs


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


async def post(daemon: DaemonProcess) -> tuple[str, Answer]:
    event = events.cloud_event(at=time.time_ns() // 1000, data={"padding": PADDING})
    return event["id"], await daemon.post("/api/v1/events", event)


async def post_until(daemon: DaemonProcess, status: int, accepted: set[str]) -> Answer:
    """Post one event after the other until one is answered so; those accepted are added to `accepted`."""

    async def once() -> Answer | None:
        id_, answer = await post(daemon)
        assert answer.status in (202, 503), answer.text
        if answer.status == 202:
            accepted.add(id_)
        return answer if answer.status == status else None

    answer = await until_async(once, 30)
    assert answer is not None
    return answer


def told(sink: Sink) -> set[str]:
    """The ids of the events that messages came about."""
    return {event_id(received.body) for received in sink.received}


def event_id(body: bytes) -> str:
    return str(orjson.loads(body)["data"]["event"]["id"])


async def test_a_full_disk_refuses_events_keeps_those_accepted_and_works_again_with_room(
    tmp_path: Path, disk: Disk
) -> None:
    accepted: set[str] = set()
    async with Sink() as sink:
        config = CONFIG.format(folder=disk.folder, url=sink.url)
        async with daemon_process(tmp_path, config) as daemon:
            for _ in range(5):
                await post_until(daemon, 202, accepted)
            disk.fill(daemon)
            refused = await post_until(daemon, 503, accepted)
            assert refused.json["code"] == "store_unavailable"
            assert int(refused.headers["Retry-After"]) >= 1
            assert disk.fault in refused.json["detail"]
            assert (await daemon.call("GET", "/healthz")).status == 200

            disk.free(daemon)
            await post_until(daemon, 202, accepted)
            await until_async(lambda: _is_ready(daemon))
            await until(lambda: accepted <= told(sink), 30)
            assert daemon.process is not None
            assert daemon.process.returncode is None
            by_id = {(r.headers["webhook-id"], r.body) for r in sink.received}
            assert len(by_id) == len({id_ for id_, _ in by_id})


async def _is_ready(daemon: DaemonProcess) -> bool:
    return (await daemon.call("GET", "/readyz")).status == 200
