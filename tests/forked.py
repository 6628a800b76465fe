"""The command `notifyd` as a process that has its imports done, which are most of a short command's time.

What a command imports, and when, is shown in fresh interpreters: see `test_cli_config`, `test_start_imports` and
`test_imports`. So is a whole life of the daemon: see `test_daemon_process`, `test_wheel` and `test_demo`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, Final

from tests import command
from tests.command import Result
from tests.forks import ForkServer

AT_THE_START: Final = ("PYTHON", "LANG", "LC_")
"""Variables that begin so are read when an interpreter starts: too late in a process that is forked."""

COMMANDS: Final = ForkServer("tests.forked")


def for_the_interpreter(environ: Mapping[str, str]) -> bool:
    """Does this environment say something to an interpreter that starts?"""
    return any(name.startswith(AT_THE_START) and os.environ.get(name) != environ[name] for name in environ)


async def notifyd(
    *arguments: object, environ: Mapping[str, str] | None = None, given: bytes | None = None
) -> Result:
    """As `tests.command.notifyd`, and that itself where the environment is for the interpreter."""
    wanted = dict(environ or {})
    if for_the_interpreter(wanted):
        return await command.notifyd(*arguments, environ=environ, given=given)
    own = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFYD_")}
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(given or b"")
        stdin.seek(0)
        files = (stdin.fileno(), out.fileno(), err.fileno())
        process = await COMMANDS.start(list(map(str, arguments)), own | wanted, files)
        try:
            async with asyncio.timeout(30):
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Result(code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def load() -> Callable[[], None]:
    """Import what commands and the daemon import, and give what runs the one that `sys.argv` names."""
    import uvloop  # noqa: F401 - as the daemon does

    import notifyd.cli.doctor_network
    import notifyd.cli.doctor_store
    import notifyd.cli.trial
    import notifyd.service.daemon
    import notifyd.store.mongo
    import notifyd.store.sqlite  # noqa: F401 - as the store's opening does
    from notifyd.cli import COMMANDS, main
    from notifyd.registry.discovery import discover
    from notifyd.render.render import TemplateSet

    for entry in COMMANDS.values():
        entry.load()
    TemplateSet.load(discover().template_sources, (), "en")
    return main
