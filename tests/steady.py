"""Events at a steady rate, whatever becomes of them: the load that a restart is under.

async with steady(url, "task-runner", secret, rate=200) as load:
    ...  # restart what answers at `url`
assert not load.lost
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson
from attrs import define, field

from notifyd.security.secrets import Secret
from notifyd.security.signing import sign

_PATIENCE: Final = aiohttp.ClientTimeout(total=60)
_TRIES: Final = 10


@define
class Load:
    """What came of the events: `answers` by status, the ids that got a 202, and what was `lost`, by why.

    An answer that says `Retry-After` is heeded, as the contract asks of callers, and the event sent again.
    """

    answers: Counter[int] = field(factory=Counter)
    accepted: set[str] = field(factory=set)
    lost: Counter[str] = field(factory=Counter)
    slowest: float = 0.0


@asynccontextmanager
async def steady(url: str, client: str, secret: str, *, rate: float) -> AsyncIterator[Load]:
    """Post `rate` events a second while the block runs, each over its own connection; then await the answers."""
    load, end = Load(), asyncio.Event()
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=_PATIENCE) as session:
        caller = _Caller(session, f"{url}/api/v1/events", client, Secret(secret), load)
        sending = asyncio.create_task(_send(caller, 1 / rate, end))
        try:
            yield load
        finally:
            end.set()
            await sending


async def _send(caller: _Caller, pause: float, end: asyncio.Event) -> None:
    due = time.monotonic()
    async with asyncio.TaskGroup() as under_way:
        while not end.is_set():
            under_way.create_task(caller.post(uuid.uuid4().hex))
            due = max(due + pause, time.monotonic())  # no crowd of its own after this process stood still
            await asyncio.sleep(due - time.monotonic())


@define
class _Caller:
    session: aiohttp.ClientSession
    url: str
    client: str
    secret: Secret
    load: Load

    async def post(self, event: str) -> None:
        begun = time.monotonic()
        try:
            why = await self._until_taken(event)
        except (aiohttp.ClientError, TimeoutError) as error:
            why = repr(error)
        if why:
            self.load.lost[why] += 1
        else:
            self.load.accepted.add(event)
        self.load.slowest = max(self.load.slowest, time.monotonic() - begun)

    async def _until_taken(self, event: str) -> str:
        """Why it was not taken, if it was not."""
        document = {"specversion": "1.0", "id": event, "source": "/steady", "type": "example.steady"}
        document["tenant"] = "acme"
        body = orjson.dumps(document)
        for _ in range(_TRIES):
            headers = sign([self.secret], uuid.uuid4().hex, int(time.time()), body)
            headers |= {"X-Notifyd-Client": self.client, "Content-Type": "application/cloudevents+json"}
            async with self.session.post(self.url, data=body, headers=headers) as answer:
                self.load.answers[answer.status] += 1
                if answer.status == 202:
                    return ""
                after = answer.headers.get("Retry-After")
            if after is None:
                return f"status {answer.status}"
            await asyncio.sleep(float(after))
        return f"status {answer.status}, {_TRIES} times"


async def _main(url: str, client: str, secret: str, rate: str) -> None:
    """As a process of its own: until its standard input ends; what came of it goes to standard output."""
    async with steady(url, client, secret, rate=float(rate)) as load:
        await asyncio.to_thread(sys.stdin.read)
    told = {"accepted": sorted(load.accepted), "answers": load.answers, "lost": load.lost}
    print(json.dumps(told | {"slowest": load.slowest}))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
