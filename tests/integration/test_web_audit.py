"""The audit trail over HTTP and by its commands: a tenant's own, and what concerns no tenant; and its seals."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import audit_reader
from tests.daemon import TOKENS, Daemon, daemon
from tests.forked import notifyd as run
from tests.integration.test_own_signatures import OLD, config
from tests.integration.test_web_approvals import ONE, problem
from tests.store.makers import audit_record
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


# --- seals -------------------------------------------------------------------------------------------------

SEALS = f"{AUDIT}/seals"


def operating(notifyd: Daemon) -> dict[str, str]:
    return {"NOTIFYD_URL": notifyd.url, "NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}


async def sealed(notifyd: Daemon, *names: str, tenant: str = "acme") -> None:
    """Records of these names, under seals."""
    await notifyd.app._store.write_audit([audit_record(name, tenant=tenant) for name in names])
    await notifyd.app._sealing.sweep()


async def names(notifyd: Daemon, path: str = SEALS, client: str = "reader") -> list[str]:
    items = (await notifyd.get(path, client)).json["items"]
    return [record["id"] for item in items for record in item["records"]]


def tamper(folder: Path, statement: str) -> None:
    """As another program does, behind the service's back."""
    with closing(sqlite3.connect(folder / "notifyd.db")) as db, db:
        db.execute(statement)


async def test_seals_are_read_from_the_start_page_by_page_by_tenant(notifyd: Daemon) -> None:
    await sealed(notifyd, "a", "b")
    await sealed(notifyd, "c")
    await sealed(notifyd, "x", tenant="globex")
    first = (await notifyd.get(f"{SEALS}?limit=1")).json
    assert first["items"][0]["number"] == 1
    rest = await names(notifyd, f"{SEALS}?cursor={first['nextCursor']}")
    assert [one["id"] for one in first["items"][0]["records"]] + rest == ["a", "b", "c"]
    assert await names(notifyd, SEALS, "outsider") == ["x"]
    assert problem(await notifyd.get(f"{SEALS}?untenanted=true")) == (403, "scope_missing")


async def test_a_trail_that_nobody_touched_is_verified_with_the_service_s_own_keys(tmp_path: Path) -> None:
    async with daemon(tmp_path, config("http://127.0.0.1:9", OLD)) as notifyd:
        await sealed(notifyd, "a", "b")
        result = await run("audit", "verify", "--json", environ=operating(notifyd))
        assert (result.code, result.json["ok"], result.json["records"], result.json["faults"]) == (
            0,
            True,
            2,
            [],
        )
        assert result.json["signedTo"] == result.json["seals"]
        exported = (await run("audit", "export", environ=operating(notifyd))).stdout.splitlines()
        jwks = (await notifyd.get("/.well-known/notifyd/jwks.json", None)).json
        assert audit_reader.check(exported, jwks) == 2
        with pytest.raises(ValueError, match="not what was sealed"):
            audit_reader.check([line.replace("ci@acme", "mallory@acme") for line in exported], jwks)
        kept = result.json["head"]
        again = await run("audit", "verify", "--head", kept, environ=operating(notifyd))
        assert (again.code, kept in again.stdout) == (0, True)
        refused = await run("audit", "verify", "--head", "1:00", environ=operating(notifyd))
        assert (refused.code, "seal 1:00 is not in the chain" in refused.stdout) == (1, True)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE id = 'b'", "record b was changed"),
        (
            "DELETE FROM audit WHERE id = 'a'",
            "record a of 2027-01-15T08:00:00Z is missing, or cannot be read",
        ),
        ("UPDATE audit SET rowid = rowid + 100 WHERE id = 'a'", "record b stands where a was"),
        ("UPDATE audit SET seal = 9 WHERE id = 'c'", "record c is under a seal that is not there"),
    ],
)
async def test_the_command_tells_what_was_done_to_which_record(
    notifyd: Daemon, tmp_path: Path, statement: str, told: str
) -> None:
    await sealed(notifyd, "a", "b", "c")
    tamper(tmp_path, statement)
    result = await run("audit", "verify", environ=operating(notifyd))
    assert (result.code, told in result.stdout) == (1, True), result.stdout


async def test_an_export_is_json_lines_that_can_be_checked_without_the_service(
    notifyd: Daemon, tmp_path: Path
) -> None:
    await sealed(notifyd, "a", "b")
    await sealed(notifyd, "c")
    exported = await run("audit", "export", environ=operating(notifyd))
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [line["id"] for line in lines if "id" in line] == ["a", "b", "c"]
    (trail := tmp_path / "audit.jsonl").write_text(exported.stdout)
    assert (await run("audit", "verify", trail, "--json")).json["records"] == 3
    first, second = (place for place, line in enumerate(lines) if line.get("id") in ("a", "c"))
    lines[first], lines[second] = lines[second], lines[first]
    trail.write_text("".join(json.dumps(line) + "\n" for line in lines))
    moved = await run("audit", "verify", trail)
    assert moved.code == 1
    assert "record c is not among those that were sealed" in moved.stdout
    trail.write_text("[]\n")
    refused = await run("audit", "verify", trail)
    assert (refused.code, "line 1: is no line of an export" in refused.stderr) == (1, True)


async def test_what_concerns_no_tenant_has_a_chain_of_its_own(notifyd: Daemon) -> None:
    await refused(notifyd)
    await notifyd.app._sealing.sweep()
    exported = await run("audit", "export", "--untenanted", environ=operating(notifyd))
    assert "auth.refused" in exported.stdout
    assert (await run("audit", "verify", "--untenanted", environ=operating(notifyd))).code == 0


async def test_a_head_that_is_none_is_a_usage_error(notifyd: Daemon) -> None:
    result = await run("audit", "verify", "--head", "newest", environ=operating(notifyd))
    assert (result.code, "NUMBER:HASH" in result.stderr) == (2, True)
