"""Durable queues in Python whose jobs post to the sink, in an environment of their own: `make bench-peers`.

    python tests/bench/queues.py work|put NAME WHERE SINK COUNT

`work` takes jobs until it is told to stop. `put` hands in so many, prints when it began once each is durable, and
ends. WHERE is the address of a Redis, or a file for SQLite. Nothing of notifyd is imported here.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

WORKERS: Final = 8
"""Threads of a queue that works in threads: more were slower, on one core."""
PRODUCERS: Final = 32
JOBS: Final = 64
BODY: Final = "x" * 1500

_local = threading.local()


def post(sink: str, body: str) -> None:
    """Over a connection that the thread keeps."""
    if not hasattr(_local, "connection"):
        _local.connection = HTTPConnection(urlsplit(sink).netloc)
    _local.connection.request("POST", "/hook", body)
    _local.connection.getresponse().read()


def _job(sink: str) -> Callable[[str], None]:
    def job(body: str) -> None:
        post(sink, body)

    return job


def _in_threads(put: Callable[[], object], count: int) -> None:
    with ThreadPoolExecutor(PRODUCERS) as pool:
        for done in [pool.submit(put) for _ in range(count)]:
            done.result()


class Celery:
    """Acknowledges a job once it is done."""

    def __init__(self, where: str, sink: str) -> None:
        self._app = importlib.import_module("celery").Celery("bench", broker=where)
        self._app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True)
        self._post = self._app.task(name="post")(_job(sink))

    def work(self) -> None:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR")
        self._app.worker_main(["worker", "--pool=threads", f"--concurrency={WORKERS}", *quiet])

    def put(self, count: int) -> None:
        _in_threads(lambda: self._post.delay(BODY), count)


class Dramatiq:
    """Acknowledges a job once it is done."""

    def __init__(self, where: str, sink: str) -> None:
        self._dramatiq = importlib.import_module("dramatiq")
        brokers = importlib.import_module("dramatiq.brokers.redis")
        self._broker = brokers.RedisBroker(url=where)
        self._dramatiq.set_broker(self._broker)
        self._post = self._dramatiq.actor(_job(sink), actor_name="post")

    def work(self) -> None:
        self._dramatiq.Worker(self._broker, worker_threads=WORKERS).start()
        threading.Event().wait()

    def put(self, count: int) -> None:
        _in_threads(lambda: self._post.send(BODY), count)


class Huey:
    """Takes a job out of its file before it is done: one that was begun is lost with its worker."""

    def __init__(self, where: str, sink: str) -> None:
        self._huey = importlib.import_module("huey").SqliteHuey(filename=where, results=False, fsync=True)
        self._post = self._huey.task(name="post")(_job(sink))

    def work(self) -> None:
        self._huey.create_consumer(workers=WORKERS, initial_delay=0.01, max_delay=0.01).run()

    def put(self, count: int) -> None:
        _in_threads(lambda: self._post(BODY), count)


class Arq:
    """Keeps a job in Redis until it is done."""

    def __init__(self, where: str, sink: str) -> None:
        self._arq = importlib.import_module("arq")
        self._redis = importlib.import_module("arq.connections").RedisSettings.from_dsn(where)
        self._sink = sink

    def work(self) -> None:
        functions = [importlib.import_module("arq.worker").func(self._post, name="post", keep_result=0)]
        self._arq.Worker(
            functions,
            redis_settings=self._redis,
            max_jobs=JOBS,
            poll_delay=0.01,
            on_startup=self._open,
        ).run()

    async def _open(self, context: dict[str, Any]) -> None:
        context["session"] = importlib.import_module("aiohttp").ClientSession()

    async def _post(self, context: dict[str, Any], body: str) -> None:
        async with context["session"].post(self._sink + "/hook", data=body) as answer:
            await answer.read()

    def put(self, count: int) -> None:
        asyncio.run(self._put(count))

    async def _put(self, count: int) -> None:
        redis = await self._arq.create_pool(self._redis)
        await _each(count, lambda: redis.enqueue_job("post", BODY))
        await redis.aclose()


async def _each(count: int, put: Callable[[], Awaitable[object]]) -> None:
    left = iter(range(count))

    async def producer() -> None:
        for _ in left:
            await put()

    await asyncio.gather(*(producer() for _ in range(PRODUCERS)))


QUEUES: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "celery": Celery,
    "dramatiq": Dramatiq,
    "arq": Arq,
    "huey": Huey,
}

if __name__ == "__main__":
    _, what, name, where, sink, count = sys.argv
    queue = QUEUES[name](where, sink)
    if what == "work":
        queue.work()
    else:
        began = time.time()
        queue.put(int(count))
        print(began, flush=True)
