"""Where the webhook of the fresh machine leads: it says at /told which events it was told of."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from aiohttp import web

PORT: Final = 9000


async def _main() -> None:
    told: set[str] = set()

    async def take(request: web.Request) -> web.Response:
        event = (await request.json())["data"]["event"]
        told.add(str(event.get("id")))  # that of a CloudEvent; a test message has none
        return web.Response()

    async def tell(_: web.Request) -> web.Response:
        return web.json_response(sorted(told))

    app = web.Application()
    app.router.add_get("/told", tell)
    app.router.add_post("/notify", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main())
