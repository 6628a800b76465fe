"""Two nodes, each a process of its own, on one database: one killed, one paused, one cut off."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.chaos.nodes import CONCURRENCY, Service, delivery_id, ledger, service
from tests.mongodb import MongoServer
from tests.process import DaemonProcess
from tests.waiting import until, until_async


async def under_way(both: Service) -> set[str]:
    """Post to both while nobody is answered; the ids that `b` is sending, with as many waiting behind."""
    both.sink.gate.clear()
    await both.post(both.b, *(f"b{n}" for n in range(2 * CONCURRENCY)))
    await until(lambda: len(both.sink.received) == CONCURRENCY)
    sending = set(both.seen)
    await both.post(both.a, *(f"a{n}" for n in range(2 * CONCURRENCY)))
    await until(lambda: len(both.sink.received) == 2 * CONCURRENCY)

    async def planned() -> bool:
        return await ledger(both.a) == both.expected

    await until_async(planned)
    return sending


async def test_what_a_killed_node_leaves_the_other_sends_and_it_comes_back_under_its_name(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, *[mongo_server.database()] * 2) as both:
        sending = await under_way(both)
        await both.b.kill()
        both.sink.gate.set()
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() == sending, "what was under way at the kill comes again, and nothing else"
        await both.b.start()
        await both.post(both.b, "later")
        await both.all_seen()
        assert both.repeated() == sending


async def test_a_node_that_was_paused_past_its_leases_sends_nothing_that_another_has_sent(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    async with service(tmp_path, *[mongo_server.database()] * 2) as both:
        sending = await under_way(both)
        both.b.signal(signal.SIGSTOP)
        both.sink.gate.set()
        await both.all_seen()
        await both.all_sent()
        both.b.signal(signal.SIGCONT)
        await both.post(both.b, *(f"later{n}" for n in range(2 * CONCURRENCY)))
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() == sending, "only what it was sending when it was paused"


# --- cut off -----------------------------------------------------------------------------------------------


class Proxy:
    """Stands between a node and its database: `async with Proxy(url) as proxy`. `cut` drops all there is."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        # Else the driver asks the server for its address, and goes there.
        direct = self._target._replace(netloc=f"127.0.0.1:{port}", query="directConnection=true")
        return str(urlunsplit(direct))

    def cut(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.close()

    def mend(self) -> None:
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.close()
            return
        onward, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._open |= {writer, back}
        await asyncio.gather(_pipe(reader, back), _pipe(onward, writer))
        self._open -= {writer, back}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


async def answers_readyz(daemon: DaemonProcess, status: int) -> bool:
    return (await daemon.call("GET", "/readyz")).status == status


async def test_a_node_that_loses_its_database_takes_nothing_and_recovers_by_itself(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with Proxy(database) as proxy, service(tmp_path, database, proxy.url) as both:
        await under_way(both)
        of_b = {delivery_id(f"b{n}") for n in range(2 * CONCURRENCY)}
        proxy.cut()
        both.sink.gate.set()
        await until_async(lambda: answers_readyz(both.b, 503))
        refused = await both.try_post(both.b, "refused")
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert await answers_readyz(both.a, 200)
        await both.all_sent()
        proxy.mend()
        await until_async(lambda: answers_readyz(both.b, 200))
        await both.post(both.b, "later")
        await both.all_seen()
        await both.all_sent()
        assert both.repeated() <= of_b, "what it sent and could not record, the other sends again"
