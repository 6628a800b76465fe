"""The command line. A command's module is imported when the command is called, and no earlier.

In: a command line. Out: text or JSON on standard output, and an exit code: 0 ok, 1 not ok, 2 wrong usage;
of `serve` also 3: a second start would end likewise, by a fault of the configuration or a store that is corrupt.
"""

from __future__ import annotations

import errno
import importlib
import io
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from attrs import frozen

from notifyd import __version__
from notifyd.errors import NotifydError

__all__ = ["COMMANDS", "cli", "main"]


@frozen
class Entry:
    """Where a command is found, `module:name`, and the line that the list of commands has on it."""

    target: str
    summary: str

    def load(self) -> click.Command:
        module, _, name = self.target.partition(":")
        command = getattr(importlib.import_module(f"notifyd.cli.{module}"), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"notifyd.cli.{self.target} is not a command")
        return command


COMMANDS: Final[Mapping[str, Entry]] = {
    "serve": Entry("serve:serve", "Run the service."),
    "demo": Entry("demo:demo", "Start a service and play one approval from event to resume."),
    "doctor": Entry("doctor:doctor", "Look for what is wrong, and say what to do."),
    "check-config": Entry("check:check_config", "Check the configuration."),
    "plugins": Entry("check:plugins", "List the installed plugins."),
    "channels": Entry("operate:channels", "List or test channels."),
    "route": Entry("preview:route", "Show what an event would set off."),
    "render": Entry("preview:render", "Write an event with a template."),
    "templates": Entry("templates:templates", "List templates, or print one."),
    "send": Entry("events:send", "Post an event to a running service."),
    "ack": Entry("events:ack", "Decide an approval."),
    "wait": Entry("wait:wait", "Wait until an approval has ended."),
    "receipt": Entry("receipt:receipt", "Check a receipt of an approval's end."),
    "audit": Entry("audit:audit", "Look at the audit trail."),
    "approvals": Entry("approvals:approvals", "Look at approvals."),
    "incidents": Entry("incidents:incidents", "Look at what policies hold."),
    "silence": Entry("silence:silence", "Hold notifications back for a time."),
    "deliveries": Entry("operate:deliveries", "Look at deliveries, and send dead ones again."),
    "dead": Entry("dead:dead", "Look at dead effects and deliveries, and try one again."),
    "keys": Entry("keys:keys", "Show which rows need which key, and move them to the first."),
    "ready": Entry("ready:ready", "Ask a running service whether it is ready."),
    "reload": Entry("reload:reload", "Have the service of this machine read its configuration again."),
    "log-level": Entry("log_level:log_level", "Show or change what a running service logs."),
    "purge": Entry("upkeep:purge", "Remove what is older than the configuration keeps."),
    "export": Entry("upkeep:export", "Write all that a store has to a file."),
    "import": Entry("upkeep:import_", "Take an exported file into a store."),
    "contract": Entry(
        "contract:contract", "Print what callers are promised: OpenAPI, and models in Go and C#."
    ),
    "new-plugin": Entry("new_plugin:new_plugin", "Write a plugin project to begin with."),
    "keygen": Entry("keygen:keygen", "Make a key, a secret or a token."),
}


class LazyGroup(click.Group):
    """Knows its commands by `COMMANDS`, so that help on all imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return COMMANDS[cmd_name].load() if cmd_name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C ends a command as it does any program's: by 128 and the signal's number, which is no answer.

        What a command finds odd about an answer while it prints it is a failure like any of calling.
        """
        try:
            return super().invoke(ctx)
        except NotifydError as error:
            if error.code != "unreachable":  # by its code: most commands do without the client
                raise
            from notifyd.cli.common import Failure

            raise Failure(error.detail) from None
        except KeyboardInterrupt:
            click.echo("notifyd: interrupted", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="notifyd")
def cli() -> None:
    """Events in, notifications out, decisions back to the system that asked."""


def main() -> None:
    """Run the command that the arguments name, and exit: 0 ok, 1 what was asked about is not ok, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")  # what its encoding lacks is shown by its number
    try:
        cli.main(prog_name="notifyd")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"notifyd: {error.filename or 'standard output'}: {error.strerror}")
