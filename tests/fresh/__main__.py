"""`make fresh-install`: follow the page on a fresh Debian, then see whether the service does as the page says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from tests.fresh.machine import Machine, booted, missing
from tests.fresh.page import OPERATIONS, blocks
from tests.fresh.receiver import PORT

URL: Final = "http://127.0.0.1:8686"
RATE: Final = 200
CONFIG: Final = "/etc/notifyd/notifyd.toml"
FAULT: Final = '[[rules]]\nname = "everything else"\n'

_EXPORTED: Final = "/run/exported"
_PATIENCE: Final = 60.0

# What the page asks the reader to put in, for this machine: its receiver is on the machine itself.
_TOKEN: Final = re.compile(r"^(\S+)\ntoken_hashes = \[\"(sha256:[0-9a-f]{64})\"\]$", re.MULTILINE)
_ZEROS: Final = "sha256:" + "0" * 64
_RECEIVER: Final = "https://receiver.acme.example/notify"
_BEFORE_RULES: Final = '[egress]\nallow_private = ["127.0.0.0/8"]\n[[rules]]\n'


class BrokenError(Exception):
    """A command of the page, or what the page says of the service, did not hold."""


@define
class Reader:
    """Somebody who follows the page in one shell: what is exported stays, and what is printed is put in."""

    machine: Machine
    accepted: set[str] = field(factory=set)
    put_in: dict[str, str] = field(
        factory=lambda: {_RECEIVER: f"http://127.0.0.1:{PORT}/notify", "[[rules]]\n": _BEFORE_RULES}
    )

    def follow(self, commands: str) -> str:
        """Run a block as the page has it, but for what the reader puts in. `BrokenError` where a command fails."""
        for shown, own in self.put_in.items():
            commands = commands.replace(shown, own)
        printed = self.run(commands)
        if token := _TOKEN.search(printed):
            self.put_in |= {"NOTIFYD_TOKEN=...": f"NOTIFYD_TOKEN={token[1]}", _ZEROS: token[2]}
        return printed

    def run(self, commands: str) -> str:
        """What commands print. `BrokenError` where one fails."""
        code, printed = self.try_to(commands)
        if code:
            raise BrokenError(f"{commands}\nended with {code}:\n{printed}")
        return printed

    def try_to(self, commands: str) -> tuple[int, str]:
        kept = f"[ ! -e {_EXPORTED} ] || . {_EXPORTED}\nset -euo pipefail\n"
        done = self.machine.inside("bash", "-c", f"{kept}{commands}\nexport -p > {_EXPORTED}", environ={})
        return done.returncode, done.stdout

    def until(self, commands: str) -> None:
        """Wait until commands succeed."""
        end = time.monotonic() + _PATIENCE
        while (result := self.try_to(commands))[0]:
            if time.monotonic() > end:
                raise BrokenError(f"{commands}\ndoes not come true:\n{result[1]}")
            time.sleep(0.2)


# --- what the page promises ----------------------------------------------------------------------------------


def it_runs_by_its_socket_and_is_scraped(reader: Reader) -> None:
    reader.run("systemctl is-active notifyd.service notifyd.socket prometheus.service")
    reader.run(f"curl --silent --fail {URL}/metrics | promtool check metrics")


def it_refuses_nothing_while_it_reloads_and_restarts(reader: Reader) -> None:
    secret = reader.run("cat /etc/notifyd/credentials/task-runner-secret").strip()
    load = reader.machine.beside("tests.steady", URL, "task-runner", secret, str(RATE))
    for label in range(5):
        reader.run(f"sed -i '/^# reload/d; $a # reload {label}' {CONFIG} && systemctl reload notifyd")
    a_refused_reload_fails_and_changes_nothing(reader)
    for _ in range(3):
        reader.run("systemctl restart notifyd.service")
    told = _end(load)
    print(f"    {len(told['accepted'])} events accepted, the slowest in {told['slowest']:.1f} s", end="; ")
    print(f"answers {told['answers']}, lost {told['lost']}")
    if told["lost"] or not told["accepted"]:
        raise BrokenError(f"lost: {told['lost']}")
    reader.accepted |= set(told["accepted"])


def a_refused_reload_fails_and_changes_nothing(reader: Reader) -> None:
    reader.run(f"cp -p {CONFIG} /root/sound.toml && printf %s {shlex.quote(FAULT)} >> {CONFIG}")
    code, _ = reader.try_to("systemctl reload notifyd")
    if code == 0:
        raise BrokenError("systemctl reload has taken a configuration with a fault")
    reader.run(f"cp -p /root/sound.toml {CONFIG} && systemctl reload notifyd && systemctl is-active notifyd")


def a_call_starts_it(reader: Reader) -> None:
    reader.run(f"systemctl stop notifyd.service && curl --silent --fail {URL}/readyz")
    reader.run("systemctl is-active notifyd.service")


def a_fault_at_a_restart_leaves_the_socket_and_a_waiting_call_is_served(reader: Reader) -> None:
    reader.run(f"printf '%s\\n' '[nonsense]' >> {CONFIG}")
    code, _ = reader.try_to("systemctl restart notifyd.service")
    if code == 0:
        raise BrokenError("systemctl restart has taken a configuration with a fault")
    reader.run("systemctl is-active notifyd.socket")
    reader.run("systemctl show --property ExecMainStatus notifyd.service | grep -x ExecMainStatus=3")
    reader.run(f"sed -i '/nonsense/d' {CONFIG}")
    reader.run(f"curl --silent --fail --max-time 60 {URL}/readyz")


PROMISES: Final[tuple[Callable[[Reader], None], ...]] = (
    it_runs_by_its_socket_and_is_scraped,
    it_refuses_nothing_while_it_reloads_and_restarts,
    a_call_starts_it,
    a_fault_at_a_restart_leaves_the_socket_and_a_waiting_call_is_served,
)


def main(folder: Path) -> int:
    """0 where the page is true."""
    if why := missing():
        sys.exit(f"make fresh-install: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    with booted(folder) as machine:
        receiver = machine.beside("tests.fresh.receiver")
        reader = Reader(machine)
        try:
            _follow(reader)
            for promise in PROMISES:
                promise(reader)
                print(f"ok  {promise.__name__.replace('_', ' ')}")
            _everything_is_delivered(reader)
        except BrokenError as broken:
            print(f"FAILED {broken}", file=sys.stderr)
            print(reader.try_to("journalctl --no-pager --lines=40 --unit=notifyd")[1], file=sys.stderr)
            return 1
        finally:
            receiver.communicate()
    return 0


def _follow(reader: Reader) -> None:
    for block in blocks(OPERATIONS.read_text(encoding="utf-8")):
        first = block.commands.splitlines()[0]
        if block.why_not:
            print(f"--  {OPERATIONS.name}:{block.line}: {first}: not run: {block.why_not}")
        else:
            reader.follow(block.commands)
            print(f"ok  {OPERATIONS.name}:{block.line}: {first}", flush=True)


def _everything_is_delivered(reader: Reader) -> None:
    """Each event that was accepted under load, some time after the last start took up what was left."""
    end = time.monotonic() + _PATIENCE
    while untold := reader.accepted - set(
        json.loads(reader.run(f"curl --silent http://127.0.0.1:{PORT}/told"))
    ):
        if time.monotonic() > end:
            raise BrokenError(f"{len(untold)} events that were accepted were not delivered")
        time.sleep(0.5)
    print(f"ok  {len(reader.accepted)} events that were accepted under load were delivered")


def _end(process: subprocess.Popen[str]) -> Any:
    """What a process told when its standard input ended."""
    out, _ = process.communicate()
    if process.returncode:
        raise BrokenError(f"{process.args!r} ended with {process.returncode}")
    return json.loads(out)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/fresh")))
