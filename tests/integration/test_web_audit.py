"""The audit trail over HTTP and by its command: a tenant's own, and what concerns no tenant."""

from __future__ import annotations

from typing import Any

from tests.daemon import TOKENS, Daemon
from tests.forked import notifyd as run
from tests.integration.test_web_approvals import ONE, problem
from tests.waiting import until_async

AUDIT = "/api/v1/audit"


async def refused(notifyd: Daemon) -> Any:
    """What an operator is shown of a stranger that was refused."""
    assert problem(await notifyd.get(ONE, None)) == (401, "unauthenticated")

    async def shown() -> Any:
        return (await notifyd.get(f"{AUDIT}?untenanted=true", "operator")).json["items"]

    return await until_async(shown)


async def test_an_operator_reads_what_concerns_no_tenant_without_naming_one(notifyd: Daemon) -> None:
    await notifyd.ask()
    (record,) = await refused(notifyd)
    assert (record["name"], record["actor"], record["data"]["code"]) == (
        "auth.refused",
        "",
        "unauthenticated",
    )
    own = (await notifyd.get(AUDIT)).json["items"]
    assert "auth.refused" not in [one["name"] for one in own]


async def test_who_only_reads_is_not_shown_what_concerns_no_tenant(notifyd: Daemon) -> None:
    assert problem(await notifyd.get(f"{AUDIT}?untenanted=true")) == (403, "scope_missing")
    assert problem(await notifyd.get(f"{AUDIT}?untenanted=no", "operator")) == (400, "invalid_query")
    assert (await notifyd.get(f"{AUDIT}?untenanted=")).status == 200


async def test_a_cursor_of_the_one_list_is_none_of_the_other(notifyd: Daemon) -> None:
    for number in range(2):
        await notifyd.ask(runId=f"run-{number}")
    cursor = (await notifyd.get(f"{AUDIT}?limit=1", "operator", X_Notifyd_Tenant="acme")).json["nextCursor"]
    other = await notifyd.get(f"{AUDIT}?limit=1&untenanted=true&cursor={cursor}", "operator")
    assert problem(other) == (400, "invalid_cursor")


async def test_the_command_lists_a_run_and_what_concerns_no_tenant(notifyd: Daemon) -> None:
    await notifyd.ask()
    await notifyd.ask(runId="run-2")
    await refused(notifyd)
    environ = {"NOTIFYD_URL": notifyd.url, "NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}
    listed = await run("audit", "list", "--run", "run-2", "--json", environ=environ)
    assert {one["runId"] for one in listed.json} == {"run-2"}
    assert "pack.approval.requested" in [one["name"] for one in listed.json]
    untenanted = await run("audit", "list", "--untenanted", environ=environ)
    assert (untenanted.code, "auth.refused" in untenanted.stdout) == (0, True)
