"""The command `notifyd` as a process, as a person or a script runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from attrs import frozen


@frozen
class Result:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


async def notifyd(
    *arguments: object, environ: Mapping[str, str] | None = None, given: bytes | None = None
) -> Result:
    """Run `notifyd` to its end, with `given` on standard input and no variable of notifyd's but `environ`'s."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFYD_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifyd", *map(str, arguments)),
        env=own | dict(environ or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, stdout.decode(), stderr.decode())
