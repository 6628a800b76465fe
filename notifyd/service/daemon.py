"""The daemon as a process: start, signals, reload, and an end within ten seconds."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import linecache
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from notifyd import __version__
from notifyd.config.describe import secrets
from notifyd.config.load import read
from notifyd.config.settings import Settings
from notifyd.errors import ConfigError, NotifydError
from notifyd.levels import LogLevel, get_level, toggle_debug
from notifyd.metrics import Metrics
from notifyd.registry.discovery import Discovered, discover
from notifyd.registry.registry import Registry
from notifyd.service import reloads
from notifyd.service.app import App, running
from notifyd.service.logs import Redaction, logging_to
from notifyd.service.signals import signals_heard
from notifyd.service.systemd import Notifier, inherited_socket
from notifyd.service.threads import still_running
from notifyd.text import counted
from notifyd.tracing import NO_TRACER, Tracer

log = logging.getLogger(__name__)

_LOOK_UP_THREADS: Final = 128
"""One half of them look names up. A name that hangs keeps one for as long as the system's resolver tries."""

_PATIENCE: Final = 9.5
"""Seconds from the first signal to the end of the process, whatever still holds it up: all is durable."""

_LAST_WORDS: Final = 0.5
"""Seconds that tasks, and then threads, which plugins have left running are given to end."""

_TELLING: Final = 2.0
"""Seconds in which the fault of a start is told."""

_COLLECTOR: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""https://opentelemetry.io/docs/specs/otel/protocol/exporter/"""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

_INTERRUPTED: Final = 128 + signal.SIGINT


def serve(path: Path, level: LogLevel, *, abandon_sealed: bool = False) -> int:
    """Run until a signal, or until a step breaks; the exit code, 0 or 1. Logs to standard output.

    Raises what keeps the service from starting: `ConfigError`, `StoreError`, `StoreInUseError`, OSError.
    """
    redaction, metrics = Redaction(), Metrics()
    _raise_descriptors()
    with (
        closing(Notifier.from_environ()) as notifier,
        logging_to(1, level, redaction, metrics.log_lines_dropped.inc),
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        daemon = Daemon(path, redaction, notifier, metrics)
        try:
            code = runner.run(daemon.run(abandon_sealed=abandon_sealed))
        except BaseException as error:
            notifier.status(_cannot_start(error))
            daemon.end_soon()
            raise
        runner.run(_end_strays(code))
        daemon.end_threads()
    return code


def _cannot_start(error: BaseException) -> str:
    faults: Sequence[object] = error.faults if isinstance(error, ConfigError) else (error,)
    more = f", and {counted(len(faults) - 1, 'fault')} more" if len(faults) > 1 else ""
    return f"Cannot start: {faults[0]}{more}"


def _raise_descriptors() -> None:
    """Take as many file descriptors as may be had: where few are usual, it is for programs that use `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _end_strays(code: int) -> None:
    """Cancel what plugins have left running. Where that does not end, end without it: all is durable."""
    strays = asyncio.all_tasks() - {asyncio.current_task()}
    for task in strays:
        task.cancel()
    if strays and (await asyncio.wait(strays, timeout=_LAST_WORDS))[1]:
        _end_now(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    # Half of libuv's threads look names up, of which it makes four: two names that hang kept all others waiting.
    # It reads the number at the first look-up.
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(_LOOK_UP_THREADS))
    import uvloop

    return uvloop.new_event_loop


def _rest_collector() -> None:
    """Leave what the start has made out of every garbage collection, and collect less often from now on.

    An event is a few hundred objects without cycles, which counting frees at once; searching them, and all that
    waits in memory, for cycles took a third of the time of a saturated daemon.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def _return_memory() -> None:
    """Give back what only the start needed, where the C library can: some 3 MB.

    The source lines are those of the methods that attrs has made, kept for tracebacks.
    """
    linecache.clearcache()
    with suppress(AttributeError, OSError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


class Daemon:
    """One life of the service, under the configuration at `path`."""

    def __init__(self, path: Path, redaction: Redaction, notifier: Notifier, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._redaction = redaction
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._stopping = False
        self._reload = asyncio.Event()
        self._code = 0
        self._threads = frozenset(threading.enumerate())
        self._registry: Callable[[], Registry] | None = None
        # A thread, in case the loop is stuck. Never called off: plugins may hold up the interpreter's own end too.
        self._deadline = threading.Timer(_PATIENCE, lambda: _end_now(self._code))
        self._deadline.daemon = True

    async def run(self, *, abandon_sealed: bool = False) -> int:
        """The exit code. Raises as `serve` does."""
        with signals_heard(_SIGNALS, partial(self._on_signal, asyncio.get_running_loop())):
            return await self._run(abandon_sealed=abandon_sealed)

    async def _run(self, *, abandon_sealed: bool) -> int:
        settings, discovered = self._load()
        listener = _listener(settings)
        log.info("notifyd %s starts with %s", __version__, self._path)
        with tracer_from_environ(settings.server.node) as tracer:
            async with running(
                settings,
                discovered,
                listener=listener,
                abandon_sealed=abandon_sealed,
                metrics=self._metrics,
                tracer=tracer,
            ) as app:
                self._registry = app.registry
                _rest_collector()
                _return_memory()
                await self._live(app)
        log.info("stopped")
        return self._code

    def end_soon(self) -> None:
        """Where a start has failed and plugins' threads go on: leave only the time to tell the fault."""
        if still_running(self._threads, self._registry, 0):
            last = threading.Timer(_TELLING, _end_now, (1,))
            last.daemon = True
            last.start()

    def end_threads(self) -> None:
        """Where a plugin's threads go on, name them and end without them: an interpreter would wait for them."""
        stuck = still_running(self._threads, self._registry, _LAST_WORDS)
        for one in stuck:
            log.warning("left running: %s", one)
        if stuck:
            _end_now(self._code)

    def _load(self) -> tuple[Settings, Discovered]:
        """Raises `ConfigError`."""
        discovered = discover()
        for fault in discovered.faults:
            log.error("%s", fault)
        for line in discovered.upgraded:
            log.warning("%s", line)
        settings = read(self._path, discovered.brought).whole()
        # Before anything is done with them, so that not even a fault in doing it can show them.
        self._redaction.learn(secrets(settings))
        return settings, discovered

    # -- its life -----------------------------------------------------------------------------------------

    async def _live(self, app: App) -> None:
        """From ready to a signal, or to a broken step."""
        status = "Listening on {} port {}".format(*app.address)
        self._notifier.ready(status)
        app.failed.add_done_callback(lambda _: self._begin_stop(1))
        helpers = [asyncio.create_task(step) for step in (self._notifier.watch(), self._reloads(app, status))]
        try:
            await self._stop.wait()
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        self._notifier.stopping("Finishing the attempts under way")

    def _on_signal(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        """On a thread: what the loop has to do it is told, and may never come to."""
        if number is signal.SIGHUP:
            loop.call_soon_threadsafe(self._reload.set)
        elif number is signal.SIGUSR1:
            before = get_level()
            toggle_debug()
            log.warning("the log's level is %s, and was %s: SIGUSR1 asked for it", get_level(), before)
        elif not self._stopping:
            log.info("stopping on %s", number.name)
            self._set_deadline()
            loop.call_soon_threadsafe(self._begin_stop, 0)
        elif number is signal.SIGINT:
            _end_now(_INTERRUPTED)

    def _begin_stop(self, code: int) -> None:
        self._code = max(code, self._code)
        self._set_deadline()
        self._stop.set()

    def _set_deadline(self) -> None:
        """From the first word of a stop on, whoever gives it."""
        self._stopping = True
        with suppress(RuntimeError):  # it runs already
            self._deadline.start()

    # -- reload -------------------------------------------------------------------------------------------

    async def _reloads(self, app: App, status: str) -> None:
        """Reload at each SIGHUP, one after the other; those that come during a reload are one more."""
        record = reloads.Record(reloads.folder())
        while True:
            await self._reload.wait()
            self._reload.clear()
            record.begin()
            self._notifier.reloading()
            taken = await self._reload_once(app)
            self._notifier.ready(status if taken else f"{status}; the last reload was refused, see the log")
            record.end(taken=taken)  # last: whoever waits for it goes on once the manager knows

    async def _reload_once(self, app: App) -> bool:
        loading = asyncio.get_running_loop().run_in_executor(None, self._load)
        await asyncio.wait([loading])
        try:
            return await app.reload(loading.result, str(self._path))
        except NotifydError as error:
            log.error("%s is reloaded, and not on record: %s", self._path, error)
            return True
        except Exception:
            log.exception("%s is not reloaded", self._path)
            return False


def _listener(settings: Settings) -> socket.socket | None:
    """The socket that systemd has opened, if it has. Raises OSError where it cannot be used."""
    listener = inherited_socket()
    if listener is not None:
        host, port = listener.getsockname()[:2]
        said = settings.server.listen
        if (host, port) != (said.host, said.port):
            log.warning("systemd listens on %s port %s, and server.listen says %s", host, port, said)
    return listener


def tracer_from_environ(node: str) -> AbstractContextManager[Tracer]:
    """What the environment asks for: nothing of OpenTelemetry is imported unless it names a collector."""
    asked = any(os.environ.get(name) for name in _COLLECTOR)
    if not asked or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return nullcontext(NO_TRACER)
    try:
        from notifyd.service.telemetry import exporting

        return exporting(node)
    except ImportError:
        log.warning("%s is set, and no span is recorded: install notifyd-server[otel]", _COLLECTOR[0])
    except (ValueError, OSError) as error:
        # Without its text: a setting that is refused may be the one with the collector's token.
        log.warning("no span is recorded: the settings OTEL_* are refused with %s", type(error).__name__)
    return nullcontext(NO_TRACER)


def _end_now(code: int) -> None:
    """End without another step. What is not finished is durable, and taken up at the next start."""
    log.warning("ending at once, with work under way")
    logging.shutdown()
    os._exit(code)
