"""Other programs with the same sink and as many events, where they are installed: `make bench-peers`."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec
from typing import Final

import aiohttp
import orjson

from tests.bench.harness import SERVER_CORE, Bench, Row, arrivals, figure, process, sink_state
from tests.ports import free_port

_ALERTMANAGER: Final = "prometheus-alertmanager"
_CONFIG: Final = """
route: {{receiver: sink, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: sink, webhook_configs: [{{url: '{sink}/hook', send_resolved: false}}]}}]
"""


async def peers(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    if shutil.which(_ALERTMANAGER):
        rows.append(Row("Alertmanager, alerts delivered /s", await _alertmanager(bench)))
    if find_spec("apprise") is not None:
        few = str(max(200, bench.count // 20))
        made = float(await figure(SERVER_CORE, "apprise", bench.sink, few, "64"))
        rows.append(Row("Apprise, notifications /s", made))
    return rows


async def _alertmanager(bench: Bench) -> float:
    folder, port = bench.room("alertmanager"), free_port()
    (folder / "config.yml").write_text(_CONFIG.format(sink=bench.sink))
    url = f"http://127.0.0.1:{port}"
    command = [_ALERTMANAGER, f"--config.file={folder}/config.yml", f"--storage.path={folder}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    before = (await sink_state(bench.sink))["count"]
    async with process(SERVER_CORE, *command), aiohttp.ClientSession() as session:
        await _ready(session, url)
        began = time.time()
        for first in range(0, bench.count, 100):
            alerts = [{"labels": {"alertname": "bench", "n": str(n)}} for n in range(first, first + 100)]
            headers = {"Content-Type": "application/json"}
            async with session.post(
                url + "/api/v2/alerts", data=orjson.dumps(alerts), headers=headers
            ) as answer:
                answer.raise_for_status()
        arrived = await arrivals(bench.sink, before + bench.count)
    return bench.count / (arrived - began)


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        try:
            async with session.get(url + "/-/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            continue
