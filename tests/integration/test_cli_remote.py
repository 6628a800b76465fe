"""The commands that call a running service: send, ack, channels, deliveries."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from notifyd.errors import PermanentError
from notifyd.wire.codec import rfc3339
from tests import events
from tests.command import Result
from tests.daemon import CONFIG, SECRETS, TOKENS, Daemon
from tests.forked import notifyd as run
from tests.sinks import HttpSink, Reply
from tests.waiting import until_async

RUNNER: Final = {"NOTIFYD_CLIENT": "task-runner", "NOTIFYD_SECRET": SECRETS["task-runner"].reveal()}
OPERATOR: Final = {"NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}


async def send(url: str, document: Any, *options: str, **environ: str) -> Result:
    """`notifyd send -`, with the document on standard input."""
    given = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await run("send", "-", "--url", url, *options, environ=environ or RUNNER, given=given)


async def operate(notifyd: Daemon, *arguments: object) -> Result:
    return await run(*arguments, "--url", notifyd.url, environ=OPERATOR)


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_ctrl_c_ends_a_command_by_130_and_a_line() -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "notifyd", "wait", "run-1", "deploy", "--url", url),
            env={**os.environ, **OPERATOR},
            stderr=asyncio.subprocess.PIPE,
            # As on a terminal: tests that run in the background inherit that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        await asked.wait()
        process.send_signal(signal.SIGINT)
        _, told = await process.communicate()
    assert (process.returncode, told.decode()) == (130, "notifyd: interrupted\n")


# --- send ---------------------------------------------------------------------------------------------------


async def test_send_posts_a_signed_event_and_prints_the_answer(notifyd: Daemon, tmp_path: Path) -> None:
    event = notifyd.requested()
    file = tmp_path / "event.json"
    _write(file, json.dumps(event))
    result = await run("send", file, "--url", notifyd.url, environ=RUNNER)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "accepted"
    assert ["eventId", event["eventId"]] in [line.split() for line in lines]
    assert (await notifyd.approval(event))["status"] == "pending"


async def test_an_event_sent_twice_is_accepted_before_and_no_failure(notifyd: Daemon) -> None:
    event = notifyd.requested()
    assert (await send(notifyd.url, event)).code == 0
    again = await send(notifyd.url, event)
    assert again.code == 0
    assert again.stdout.startswith("accepted before")


async def test_send_signs_with_a_secret_of_the_configuration(notifyd: Daemon, tmp_path: Path) -> None:
    config = tmp_path / "here.toml"
    _write(config, CONFIG.replace('type = "inbox"', 'type = "log"').replace("to = ", "#to = "))
    environ = {"SECRET_TASK_RUNNER": SECRETS["task-runner"].reveal()}
    environ |= {f"HASH_{n}": "sha256:" + "0" * 63 + str(i) for i, n in enumerate(_CLIENTS)}
    environ |= {"SECRET_OUTSIDER": SECRETS["outsider"].reveal()}
    options = ("--client", "task-runner", "--config", str(config))
    assert (await send(notifyd.url, notifyd.requested(), *options, **environ)).code == 0
    unknown = await send(notifyd.url, {}, "--client", "nobody", "--config", str(config), **environ)
    assert unknown.code == 1
    assert 'there is no client "nobody"; there are: operator, outsider, reader, task-runner' in unknown.stderr
    silent = await send(notifyd.url, {}, "--client", "reader", "--config", str(config), **environ)
    assert silent.code == 1
    assert "auth.clients.reader.hmac_secrets" in silent.stderr


_CLIENTS: Final = ("TASK_RUNNER", "READER", "OPERATOR", "OUTSIDER")


@pytest.mark.parametrize("batch", [False, True], ids=["one", "a batch"])
async def test_send_posts_cloud_events_with_a_token(batch: bool, notifyd: Daemon) -> None:
    event = events.cloud_event(at=notifyd.clock(), tenant="acme")
    result = await send(notifyd.url, [event] if batch else event, "--json", **OPERATOR)
    assert result.code == 0, result.stderr
    assert "correlationId" in (result.json["items"][0] if batch else result.json)


async def test_each_fault_of_an_event_is_named_by_its_pointer(notifyd: Daemon) -> None:
    event = notifyd.requested() | {"runId": "not an id", "planHash": 7}
    result = await send(notifyd.url, event)
    assert (result.code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("notifyd: 422 invalid_event: ")
    assert {line.split()[1] for line in lines[1:3]} == {"/planHash:", "/runId:"}
    assert "correlation id" in lines[3]


async def test_a_problem_is_printed_as_json_where_that_is_asked_for(notifyd: Daemon) -> None:
    result = await send(notifyd.url, {"type": "Unknown"}, "--json")
    assert result.code == 1
    assert result.json["code"] == "invalid_event"


async def test_a_wrong_secret_is_refused_and_not_shown(notifyd: Daemon) -> None:
    wrong = SECRETS["outsider"].reveal()
    environ = {"NOTIFYD_CLIENT": "task-runner", "NOTIFYD_SECRET": wrong}
    result = await send(notifyd.url, notifyd.requested(), **environ)
    assert result.code == 1
    assert result.stderr.startswith("notifyd: 401 signature_invalid: ")
    assert wrong not in result.stderr


async def test_what_is_not_json_is_not_sent(notifyd: Daemon) -> None:
    result = await send(notifyd.url, b"{oops")
    assert result.code == 1
    assert result.stderr.startswith("notifyd: <stdin> is not JSON: ")


async def test_an_array_without_an_event_is_not_called_accepted() -> None:
    result = await send(nobody(), [])
    assert (result.code, result.stderr) == (1, "notifyd: <stdin> holds no event\n")


async def test_a_service_that_is_not_running_is_one_line() -> None:
    url = nobody()
    result = await send(url, {})
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == f"notifyd: {url} does not answer: Connection refused\n"


async def test_an_answer_that_is_not_notifyds_is_named_as_such() -> None:
    async with HttpSink([Reply(502, "<h1>Bad Gateway\x1b[31m</h1>")]) as proxy:
        result = await send(proxy.url, {})
    assert result.code == 1
    assert result.stderr == "notifyd: 502 Bad Gateway: not an answer of notifyd\n"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<h1>Welcome</h1>",
        "null",
        "[]",
        "5",
        "{}",
        '{"status": 1}',
        '{"items": 5}',
        '{"items": [{}]}',
        "[" * 9999,
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("channels", "list"),
        ("approvals", "show", "run-1", "deploy"),
        ("deliveries", "retry", "--all"),
        ("log-level",),
        ("wait", "run-1", "deploy"),
        ("send", "-"),
        ("audit", "verify"),
    ],
    ids=" ".join,
)
async def test_a_success_of_somebody_else_is_none_and_no_traceback(
    command: tuple[str, ...], answer: str
) -> None:
    async with HttpSink([Reply(200, answer)] * 2) as somebody:
        result = await run(*command, "--url", somebody.url, environ=OPERATOR, given=b"[{}]")
    assert result.code == 1
    assert result.stderr.startswith(f"notifyd: what answers at {somebody.url} is no notifyd")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "problem",
    ['{"errors": ["no such page"]}', '{"code": {}, "errors": 5}', '{"code": 7, "errors": [7]}', "[1]"],
)
async def test_a_problem_of_somebody_else_is_named_as_such(problem: str) -> None:
    async with HttpSink([Reply(404, problem)]) as somebody:
        result = await run("log-level", "--json", "--url", somebody.url, environ=OPERATOR)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == "notifyd: 404 Not Found: not an answer of notifyd\n"


async def test_a_bulk_retry_of_an_empty_channel_or_id_is_not_one_of_all() -> None:
    for arguments in (("", "--all"), ("--channel", "", "--all"), ("--channel", ""), ("",)):
        result = await run("deliveries", "retry", *arguments, "--url", nobody(), environ=OPERATOR)
        assert result.code == 2


async def test_a_redirect_is_not_followed_because_credentials_would_go_with_it() -> None:
    async with HttpSink() as elsewhere, HttpSink([Reply(307, "", {"Location": elsewhere.url})]) as proxy:
        result = await send(proxy.url, {}, NOTIFYD_TOKEN="a-token-of-mine")
        assert result.code == 1
        assert not elsewhere.received


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFYD_NONE": ""}, "say who is calling"),
        ({"NOTIFYD_CLIENT": "task-runner", "NOTIFYD_SECRET": "plain"}, "NOTIFYD_SECRET: a signing secret"),
        ({"NOTIFYD_TOKEN": "t", "NOTIFYD_URL": "ftp://here"}, "must be an http or https address"),
    ],
    ids=["no credentials", "a secret of no form", "an address of no kind"],
)
async def test_wrong_usage_of_send_exits_with_2(environ: dict[str, str], said: str) -> None:
    result = await run("send", "-", environ={"NOTIFYD_URL": "http://127.0.0.1:9"} | environ, given=b"{}")
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr


async def test_without_an_address_the_configuration_says_where_the_service_listens(tmp_path: Path) -> None:
    config, url = tmp_path / "here.toml", nobody()
    _write(
        config, f'[server]\nlisten = "0.0.0.0:{url.rpartition(":")[2]}"\npublic_url = "https://n.example"\n'
    )
    result = await run("send", "-", "--config", config, environ=RUNNER, given=b"{}")
    assert result.stderr == f"notifyd: {url} does not answer: Connection refused\n"


# --- ack ----------------------------------------------------------------------------------------------------


def ballot(event: dict[str, Any], *options: str) -> list[str]:
    named = ["--decision", "approved", "--plan-hash", event["planHash"]]
    return ["ack", event["runId"], event["approvalId"], *named, *options]


async def test_ack_decides_with_a_signature_and_prints_the_answer_without_the_token(notifyd: Daemon) -> None:
    event = await notifyd.ask()
    options = ("--tenant", "acme", "--actor", "alice@acme.example", "--comment", "looks good")
    result = await run(*ballot(event, *options), "--url", notifyd.url, environ=RUNNER)
    assert (result.code, result.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert shown["status"] == "approved"
    assert shown["decision.actor"] == "alice@acme.example"
    assert "resume.token" not in shown
    (decision,) = (await notifyd.approval(event))["decisions"]
    assert decision["comment"] == "looks good"


async def test_ack_fills_in_what_the_request_asks_for_as_json_or_else_as_text(notifyd: Daemon) -> None:
    inputs = [{"name": name, "type": kind} for name, kind in (("n", "number"), ("t", "text"), ("s", "text"))]
    event = await notifyd.ask(inputs=inputs)
    filled_in = ("--input", "n=3", "--input", "t=v7=x", "--input", 's="8"')
    result = await run(*ballot(event, "--tenant", "acme", *filled_in), "--url", notifyd.url, environ=RUNNER)
    assert result.code == 0, result.stderr
    shown = await notifyd.approval(event)
    assert shown["inputs"]["effective"] == {"n": 3, "t": "v7=x", "s": "8"}


async def test_ack_takes_no_input_without_a_name(notifyd: Daemon) -> None:
    options = ("--tenant", "acme", "--input", "3")
    result = await run(*ballot(notifyd.requested(), *options), "--url", notifyd.url, environ=RUNNER)
    assert (result.code, "is not NAME=VALUE" in result.stderr) == (2, True)


async def test_ack_asks_to_break_the_glass_which_takes_its_grant(notifyd: Daemon) -> None:
    options = ("--tenant", "acme", "--break-glass", "--comment", "The shop is down.")
    result = await run(*ballot(await notifyd.ask(), *options), "--url", notifyd.url, environ=RUNNER)
    assert (result.code, "Packs.BreakGlass" in result.stderr) == (1, True)


async def test_ack_decides_with_a_token_as_the_client_itself(notifyd: Daemon) -> None:
    event = await notifyd.ask()
    environ = {"NOTIFYD_TOKEN": TOKENS["task-runner"], "NOTIFYD_URL": notifyd.url}
    result = await run(*ballot(event), "--json", environ=environ)
    assert result.code == 0, result.stderr
    assert result.json["decision"]["actor"] == "client:task-runner"


async def test_a_decision_on_another_plan_is_refused_with_its_reason(notifyd: Daemon) -> None:
    event = await notifyd.ask() | {"planHash": "sha256:" + "0" * 64}
    result = await run(*ballot(event, "--tenant", "acme"), "--url", notifyd.url, environ=RUNNER)
    assert result.code == 1
    assert result.stderr.startswith("notifyd: 409 plan_changed: ")


async def test_a_signed_decision_must_name_its_tenant(notifyd: Daemon) -> None:
    event = notifyd.requested()
    result = await run(*ballot(event), "--url", notifyd.url, environ=RUNNER)
    assert result.code == 2
    assert "--tenant" in result.stderr


# --- channels -----------------------------------------------------------------------------------------------


async def test_channels_list_shows_name_and_type(notifyd: Daemon) -> None:
    result = await operate(notifyd, "channels", "list")
    assert result.code == 0, result.stderr
    assert ["inbox", "inbox"] in [line.split("\t")[:2] for line in result.stdout.splitlines()]
    listed = await operate(notifyd, "channels", "list", "--json")
    assert [item["name"] for item in listed.json] == ["inbox"]


async def test_channels_test_sends_a_message_through_the_channel(notifyd: Daemon) -> None:
    result = await operate(notifyd, "channels", "test", "inbox", "--recipient", "alice@acme.example")
    assert (result.code, result.stderr) == (0, "")
    (message,) = notifyd.inbox.messages
    assert message.recipient == "alice@acme.example"


async def test_a_channel_that_does_not_get_through_fails_the_test_with_its_own_error(notifyd: Daemon) -> None:
    notifyd.inbox.fault = PermanentError("the mailbox is full")
    result = await operate(notifyd, "channels", "test", "inbox", "--recipient", "alice@acme.example")
    assert result.code == 1
    assert "502" in result.stderr
    assert "the mailbox is full" in result.stderr


async def test_a_channel_that_is_not_there_is_not_found(notifyd: Daemon) -> None:
    result = await operate(notifyd, "channels", "test", "no/such channel")
    assert result.code == 1
    assert result.stderr.startswith("notifyd: 404 not_found: ")


# --- deliveries ---------------------------------------------------------------------------------------------


async def dead(notifyd: Daemon, count: int) -> list[str]:
    """So many dead deliveries, by their ids; two to each request."""
    notifyd.inbox.fault = PermanentError("the mailbox is full")
    for number in range(count // 2):
        await notifyd.ask(runId=f"run-{number}")

    async def all_dead() -> list[Any]:
        items: list[Any] = (await notifyd.get("/api/v1/deliveries?state=dead")).json["items"]
        return items if len(items) == count else []

    found = await until_async(all_dead)
    notifyd.inbox.fault = None
    return [item["id"] for item in found]


async def test_approvals_list_shows_each_and_takes_filters(notifyd: Daemon) -> None:
    for run_id in ("run-1", "run-2"):
        await notifyd.ask(runId=run_id)
    result = await operate(notifyd, "approvals", "list", "--status", "pending", "--run", "run-2")
    head, row = (line.split("\t") for line in result.stdout.splitlines())
    assert head == ["requestedAt", "status", "expiresAt", "runId", "approvalId"]
    assert (row[1], row[3:]) == ("pending", ["run-2", "deploy-prod"])
    assert len((await operate(notifyd, "approvals", "list", "--json")).json) == 2
    assert len((await operate(notifyd, "approvals", "list", "--limit", 1, "--json")).json) == 1
    assert (await operate(notifyd, "approvals", "list", "--status", "expired", "--json")).json == []


async def test_approvals_show_has_the_decisions_and_the_history(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    which = (asked["runId"], asked["approvalId"])
    options = ("--tenant", "acme", "--actor", "alice@acme.example", "--comment", "looks right")
    await run(*ballot(asked, *options), "--url", notifyd.url, environ=RUNNER)
    shown = await operate(notifyd, "approvals", "show", *which)
    assert (shown.code, shown.stderr) == (0, "")
    assert "looks right" in shown.stdout
    assert "pack.approval.requested" in shown.stdout
    as_json = (await operate(notifyd, "approvals", "show", *which, "--json")).json
    assert as_json["history"][0]["name"] == "pack.approval.requested"
    assert [one["comment"] for one in as_json["decisions"]] == ["looks right"]
    missing = await operate(notifyd, "approvals", "show", "nobody", "asked")
    assert (missing.code, "not_found" in missing.stderr) == (1, True)


async def test_incidents_list_shows_each_of_the_callers_tenant_and_takes_filters(notifyd: Daemon) -> None:
    for run_id in ("run-1", "run-2"):
        held = events.load("hold-en") | {"runId": run_id, "eventId": run_id}
        held["occurredAt"] = rfc3339(notifyd.clock())
        assert (await notifyd.signed("/notifications/pack-approvals", held)).status == 202
    result = await operate(notifyd, "incidents", "list", "--run", "run-2")
    head, row = (line.split("\t") for line in result.stdout.splitlines())
    assert head == ["opened", "closed", "policy", "about", "messages"]
    assert row[1:4] == ["", held["policy"]["id"], f"run-2/{held['approvalId']}"]
    assert len((await operate(notifyd, "incidents", "list", "--open", "--json")).json) == 2
    assert (await operate(notifyd, "incidents", "list", "--closed", "--json")).json == []
    assert (await notifyd.get("/api/v1/incidents", "outsider")).json["items"] == []


async def test_deliveries_list_shows_each_and_takes_filters(notifyd: Daemon) -> None:
    ids = await dead(notifyd, 4)
    result = await operate(notifyd, "deliveries", "list", "--state", "dead", "--limit", 3)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["created", "state", "to", "about", "why", "id"]
    assert len(rows) == 4
    assert rows[1][1:5] == [
        "dead",
        "inbox bob@acme.example",
        "pack.approval requested run-1/deploy-prod",
        "rejected",
    ]
    assert {row[-1] for row in rows[1:]} <= set(ids)
    none = await operate(notifyd, "deliveries", "list", "--state", "sent", "--channel", "inbox", "--json")
    assert none.json == []


async def test_deliveries_show_has_the_attempts(notifyd: Daemon) -> None:
    id_, _ = await dead(notifyd, 2)
    result = await operate(notifyd, "deliveries", "show", id_)
    assert result.code == 0
    assert "the mailbox is full" in result.stdout
    shown = await operate(notifyd, "deliveries", "show", id_, "--json")
    assert shown.json["id"] == id_
    assert len(shown.json["attempts"]) == 1
    assert (await operate(notifyd, "deliveries", "show", id_[:12], "--json")).json["id"] == id_
    missing = await operate(notifyd, "deliveries", "show", "0" * 64)
    assert missing.code == 1
    assert missing.stderr.startswith("notifyd: 404 not_found: ")


async def sent(notifyd: Daemon, count: int) -> None:
    async def enough() -> bool:
        return len((await notifyd.get("/api/v1/deliveries?state=sent")).json["items"]) == count

    await until_async(enough)


async def test_deliveries_retry_sends_one_again(notifyd: Daemon) -> None:
    id_, other = await dead(notifyd, 2)
    result = await operate(notifyd, "deliveries", "retry", id_)
    assert (result.code, result.stdout) == (0, "1 to be sent again\n")
    await sent(notifyd, 1)
    again = await operate(notifyd, "deliveries", "retry", id_)
    assert again.code == 1
    assert again.stderr.startswith("notifyd: 409 not_retryable: ")
    assert (await operate(notifyd, "deliveries", "retry", other, "--json")).json == {
        "retried": [other],
        "refused": [],
    }


@pytest.mark.parametrize("which", [["--all"], ["--channel", "inbox"]], ids=["all", "a channel's"])
async def test_deliveries_retry_sends_all_dead_ones_again(which: list[str], notifyd: Daemon) -> None:
    ids = await dead(notifyd, 4)
    result = await operate(notifyd, "deliveries", "retry", *which, "--json")
    assert result.code == 0, result.stderr
    assert set(result.json["retried"]) == set(ids)
    await sent(notifyd, 4)


@asynccontextmanager
async def ledger(retry: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A service with the dead deliveries a and b, at the address given. `retry` answers for one of them."""

    async def listed(request: web.Request) -> web.Response:
        first = "cursor" not in request.query
        items = [{"id": "a"}] if first else [{"id": "b"}]
        return web.json_response({"items": items, "nextCursor": "next" if first else None})

    app = web.Application()
    app.router.add_get("/api/v1/deliveries", listed)
    app.router.add_post("/api/v1/deliveries/{id}/retry", retry)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


async def test_a_bulk_retry_that_is_cut_short_tells_what_it_has_done() -> None:
    async def retry(request: web.Request) -> web.Response:
        if request.match_info["id"] == "b" and request.transport is not None:
            request.transport.close()
        return web.json_response({})

    async with ledger(retry) as url:
        result = await run("deliveries", "retry", "--all", "--url", url, environ=OPERATOR)
    assert (result.code, result.stdout) == (1, "1 to be sent again\n")
    assert "does not answer" in result.stderr


async def test_a_bulk_retry_goes_on_after_a_refusal_and_tells_of_it() -> None:
    """Somebody else was quicker with the first one."""
    retried: list[str] = []

    async def retry(request: web.Request) -> web.Response:
        retried.append(request.match_info["id"])
        problem = {"code": "not_retryable", "title": "The delivery cannot be retried", "detail": "it is sent"}
        refused = request.match_info["id"] == "a"
        return web.json_response(problem if refused else {}, status=409 if refused else 200)

    async with ledger(retry) as url:
        result = await run("deliveries", "retry", "--all", "--url", url, environ=OPERATOR)
        as_json = await run("deliveries", "retry", "--all", "--json", "--url", url, environ=OPERATOR)
    assert result.code == as_json.code == 1
    assert result.stdout == "1 to be sent again\n"
    assert result.stderr == "notifyd: a: 409 not_retryable: it is sent\n"
    assert as_json.json["refused"] == [{"id": "a", "message": "409 not_retryable: it is sent"}]
    assert retried == ["a", "b"] * 2


@pytest.mark.parametrize("which", [[], ["an-id", "--all"], ["--all", "--channel", "inbox"]])
async def test_a_retry_says_exactly_what_to_retry(which: list[str]) -> None:
    result = await run("deliveries", "retry", *which, "--url", nobody(), environ=OPERATOR)
    assert result.code == 2
    assert "name one delivery" in result.stderr


@pytest.mark.parametrize(
    "command",
    [["channels", "list"], ["approvals", "list"], ["deliveries", "list"], ["deliveries", "show", "x"]],
)
async def test_reading_needs_a_token(command: list[str]) -> None:
    result = await run(*command, "--url", nobody())
    assert result.code == 2
    assert "NOTIFYD_TOKEN" in result.stderr


def _write(path: Path, text: str) -> None:
    path.write_text(text)
