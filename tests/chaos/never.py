"""A plugin that never returns from where it is told not to: a channel type `never`, a rule function, templates."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PLUGIN: Final = """
import asyncio
import os
import pathlib
import threading
from attrs import frozen
from notifyd.plugin import ChannelType, Receipt, RuleFunction, hookimpl

PLACE, FORM = os.environ["NEVER"].split()


@frozen
class NoOptions:
    pass


def block():
    pathlib.Path(os.environ["REACHED"]).touch()
    while True:
        threading.Event().wait()


async def never():
    pathlib.Path(os.environ["REACHED"]).touch()
    if FORM == "blocking":
        block()
    if FORM == "thread":
        await asyncio.to_thread(block)
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            pass


class Channel:
    async def send(self, message):
        if PLACE == "send":
            await never()
        return Receipt()

    async def aclose(self):
        if PLACE == "aclose":
            await never()


async def open_channel(config, context):
    if PLACE == "open":
        await never()
    return Channel()


def rule(kind):
    if PLACE == "rule":
        block()
    return True


@hookimpl
def notifyd_channel_types():
    return [ChannelType("never", NoOptions, open_channel)]


@hookimpl
def notifyd_rule_functions():
    return [RuleFunction("never", rule)]


@hookimpl
def notifyd_template_sources():
    if PLACE == "templates":
        block()
    return []
"""


def install(folder: Path) -> None:
    """A distribution as pip would leave it, for whoever has `folder` on the path."""
    info = folder / "never_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "never_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: never-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[notifyd]\nnever = never_plugin\n")


def environ(packages: Path, place: str, form: str, reached: Path) -> dict[str, str]:
    """For a daemon that is to meet what `install` put into `packages`.

    It does not return from `place`: "send aclose open rule templates". `form`: "deaf" to its cancellation,
    "blocking" the thread, or waiting for a "thread" that blocks. It makes the file `reached` there.
    """
    return {"PYTHONPATH": str(packages), "NEVER": f"{place} {form}", "REACHED": str(reached)}
