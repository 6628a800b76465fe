"""Every query of the dashboard has data, once a daemon has done a little of everything."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from notifyd.model import SECOND, wall_clock
from notifyd.wire.codec import rfc3339
from tests import events
from tests.ports import free_port
from tests.process import CLIENT, DaemonProcess, daemon_process
from tests.sinks import HttpSink, Reply
from tests.unit.test_monitoring import ALERTS, JOB, PANELS, PROMETHEUS, Selector, selectors
from tests.waiting import until_async

pytestmark = pytest.mark.long

QUERIES: Final = {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
VARIABLES: Final = {"$instance": ".*", "$channel": ".*", "$__rate_interval": "1m"}

CONFIG: Final = """
[resume]
allowed_origins = ["{url}"]
[dispatch]
max_attempts = 1
[drill]
channels = ["hook", "broken"]
[channels.hook]
type = "webhook"
url = "{url}/notify"
[channels.broken]
type = "webhook"
url = "{url}/broken"
[[rules]]
name = "everything"
when = "true"
channels = ["hook", "broken"]
[[rules]]
name = "cannot-be-tried"
when = 'event.noSuchField.deeper == "x"'
channels = ["hook"]
"""


class Receiver(HttpSink):
    """Takes what goes to one channel, and refuses what goes to the other."""

    async def choose(self, received: Any) -> Reply:
        return Reply(404) if received.path == "/broken" else Reply()


async def do_everything(daemon: DaemonProcess, url: str) -> None:
    """Events taken and refused, a decision, deliveries sent and dead, a silence and what it holds, drills."""
    resume = {"callbackUrl": f"{url}/resume", "token": "resume-token-of-the-runner"}
    asked = events.requested(at=wall_clock(), runId="dashboard", resume=resume)
    assert (await daemon.send(asked)).status == 202
    assert (await daemon.send(asked)).status == 200
    assert (await daemon.ack(asked)).status == 200
    assert (await daemon.call("GET", "/api/v1/channels", headers={"X-Notifyd-Client": CLIENT})).status == 401
    end = rfc3339(wall_clock() + 3600 * SECOND)
    silence = {"when": 'event.kind == "quiet"', "reason": "to see it held", "endsAt": end}
    assert (await daemon.post("/api/v1/silences", silence)).status == 200
    for number, kind in enumerate(("loud", "quiet")):
        event = {
            "specversion": "1.0",
            "id": f"{number}",
            "source": "/dashboard",
            "type": kind,
            "tenant": "acme",
        }
        assert (await daemon.send(event, "/api/v1/events")).status == 202


async def settled(daemon: DaemonProcess) -> bool:
    """Has all that was set off come to its end, or to its wait?"""
    wanted = (
        ("notifyd_deliveries_total", {"channel": "hook", "outcome": "sent"}),
        ("notifyd_deliveries_total", {"channel": "broken", "outcome": "dead"}),
        ("notifyd_held", {"channel": "hook", "why": "silence"}),
        ("notifyd_drills_total", {"channel": "hook", "outcome": "sent"}),
        ("notifyd_drills_total", {"channel": "broken", "outcome": "failed"}),
    )
    return all([await daemon.metric(name, **labels) for name, labels in wanted])


def series(text: str) -> list[tuple[str, dict[str, str]]]:
    """All samples of a scrape, with the labels that Prometheus adds."""
    target = {"job": JOB, "instance": "here"}
    found = [
        (sample.name, sample.labels | target)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    return [*found, ("up", target)]


def there(asked: Selector, scraped: list[tuple[str, dict[str, str]]]) -> bool:
    """Is there a series of the name with the values that are asked for? What is excluded is not looked at."""
    return any(
        name == asked.metric
        and all(label in labels for label, _ in asked.matchers)
        and all(re.fullmatch(value, labels[label]) for label, value in asked.matchers if label != "outcome")
        for name, labels in scraped
    )


@asynccontextmanager
async def prometheus(program: str, target: str, folder: Path) -> AsyncIterator[str]:
    """Debian's Prometheus with the rules and the job of conf/, which scrapes each second: its URL."""
    job = yaml.safe_load((PROMETHEUS / "scrape.yml").read_text())["scrape_configs"][0]
    job |= {"scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    config = {"scrape_configs": [job], "rule_files": [str(PROMETHEUS / "notifyd.rules.yml")]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def evaluated(session: aiohttp.ClientSession, url: str, expr: str) -> list[Any]:
    """What an expression gives now; nothing where Prometheus does not answer yet."""
    try:
        async with session.get(f"{url}/api/v1/query", params={"query": expr}) as answer:
            if answer.status == 503:
                return []  # it reads its storage still
            document = await answer.json()
    except aiohttp.ClientConnectionError:
        return []
    assert document["status"] == "success", (expr, document)
    result: list[Any] = document["data"]["result"]
    return result


def as_asked(expr: str) -> str:
    """With the dashboard's variables filled in, and without the threshold under which a panel is empty."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return re.sub(r" > 0\b", "", expr)


async def test_every_query_has_data_on_a_live_scrape(tmp_path: Path) -> None:
    async with Receiver() as sink, daemon_process(tmp_path, CONFIG.format(url=sink.url)) as daemon:
        await do_everything(daemon, sink.url)
        await until_async(lambda: settled(daemon), 60)
        scraped = series((await daemon.call("GET", "/metrics")).text)
        for name, expr in QUERIES.items() | {(name, alert["expr"]) for name, alert in ALERTS.items()}:
            for asked in selectors(as_asked(expr)):
                assert there(asked, scraped), f"{name}: {asked}"
        for program in filter(None, [shutil.which("prometheus")]):  # where it is installed
            async with prometheus(program, f"127.0.0.1:{daemon.port}", tmp_path) as url:
                await every_query_gives_something(daemon.session, url)


async def every_query_gives_something(session: aiohttp.ClientSession, url: str) -> None:
    scrapes = 'count_over_time(up{job="notifyd"}[1m]) >= 4'
    await until_async(lambda: evaluated(session, url, scrapes), 60)
    empty = [name for name, expr in QUERIES.items() if not await evaluated(session, url, as_asked(expr))]
    assert empty == []
    async with session.get(f"{url}/api/v1/rules") as answer:
        (group, *more) = (await answer.json())["data"]["groups"]
    rules = [rule for one in (group, *more) for rule in one["rules"]]
    assert {rule["name"] for rule in rules} >= set(ALERTS)
    assert not any(rule.get("lastError") for rule in rules)
