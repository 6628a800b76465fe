"""What goes over the wire: writes wait for the majority and its journal, reads see what a majority has."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, Final

import pytest
from attrs import define, field
from pymongo.monitoring import CommandListener, CommandStartedEvent

from notifyd.config.settings import StoreDriver
from notifyd.model import Approval, Outcome, State, Status
from notifyd.store import Advance, ApprovalFilter, AuditFilter, DeliveryFilter, IncidentFilter, Page, Store
from notifyd.store.mongo import driver as driver_module
from notifyd.store.mongo import open_mongo
from notifyd.store.mongo.schema import INDEXES
from tests.mongodb import MongoServer
from tests.store.makers import NODE, TENANT, TurnableClock, append_of, approval, audit_record, event
from tests.store.operations import every_operation

_WRITES: Final = frozenset({"insert", "update", "delete", "createIndexes", "dropIndexes"})
_READS: Final = frozenset({"find", "aggregate", "count"})
_ENDS: Final = frozenset({"commitTransaction", "abortTransaction"})
_NEITHER: Final = frozenset(
    {"dbStats", "hello", "ismaster", "getMore", "listCollections", "killSessions", "endSessions", "ping"}
)
_DURABLE: Final = {"w": "majority", "j": True}


@define
class Wire(CommandListener):
    """Notes the commands that a driver sends."""

    sent: list[dict[str, Any]] = field(factory=list)

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append({"name": event.command_name, **event.command})

    def succeeded(self, event: object) -> None:
        """Nothing to note."""

    def failed(self, event: object) -> None:
        """Nothing to note."""

    def named(self, names: frozenset[str], *, within: bool | None = None) -> list[dict[str, Any]]:
        """The commands of these names; those of transactions (`within`), the others, or both."""
        found = [one for one in self.sent if one["name"] in names]
        return found if within is None else [one for one in found if ("autocommit" in one) is within]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    listening, connected = Wire(), driver_module._client

    def client(url: str, driver: StoreDriver, options: dict[str, Any]) -> Any:
        return connected(url, driver, {**options, "event_listeners": [listening]})

    monkeypatch.setattr(driver_module, "_client", client)
    return listening


@pytest.mark.parametrize("driver", StoreDriver)
async def test_every_write_is_durable_and_every_read_is_of_what_a_majority_has(
    mongo_server: MongoServer, wire: Wire, driver: StoreDriver
) -> None:
    store = await open_mongo(
        mongo_server.database(), node=NODE, clock=TurnableClock(), timeout=20, driver=driver
    )
    await every_operation(store)
    await store.aclose()
    assert {one["name"] for one in wire.sent} <= _WRITES | _READS | _ENDS | _NEITHER
    writes, reads = wire.named(_WRITES, within=False), wire.named(_READS, within=False)
    assert {one["name"] for one in writes} == _WRITES
    assert {one["name"] for one in reads} >= {"find", "aggregate"}
    assert [one for one in writes if one.get("writeConcern") != _DURABLE] == []
    assert [one for one in reads if one.get("readConcern", {}).get("level") != "majority"] == []
    assert [
        one for one in reads if one.get("$readPreference", {"mode": "primary"})["mode"] != "primary"
    ] == []


@pytest.mark.parametrize("driver", StoreDriver)
async def test_a_transaction_reads_one_snapshot_and_is_durable_when_it_is_committed(
    mongo_server: MongoServer, wire: Wire, driver: StoreDriver
) -> None:
    store = await open_mongo(
        mongo_server.database(), node=NODE, clock=TurnableClock(), timeout=20, driver=driver
    )
    await every_operation(store)
    await store.aclose()
    within = wire.named(_WRITES | _READS, within=True)
    firsts = [one for one in within if "startTransaction" in one]
    commits = wire.named(frozenset({"commitTransaction"}))
    assert len(commits) >= 6
    assert len(firsts) == len(commits)
    assert {one["name"] for one in within} == {"find", "update", "delete"}
    assert [one for one in firsts if one.get("readConcern", {}).get("level") != "snapshot"] == []
    assert [one for one in commits if one.get("writeConcern") != _DURABLE] == []
    written = {one["update"] for one in within if one["name"] == "update"}
    assert written == {
        *("events", "pack_approvals", "decisions", "incidents", "deliveries", "audit", "timers"),
        *("audit_seals", "silences", "deputies"),
    }


def _given(advance: Advance, stored: Approval | None) -> Advance:
    del stored
    return advance


async def test_an_approval_is_opened_by_five_commands_and_moved_by_six(
    mongo_server: MongoServer, wire: Wire
) -> None:
    store = await open_mongo(mongo_server.database(), node=NODE, clock=TurnableClock(), timeout=20)
    moved = approval(version=2, round=2)
    opens = Advance(approval(), Outcome.OPENED, True, 1, 1, (audit_record("a1"),))
    moves = Advance(moved, Outcome.NEW_ROUND, True, 2, 2, (audit_record("a2"),))
    sent = []
    for key, advance in (("a", opens), ("b", moves)):
        wire.sent.clear()
        await store.append(append_of(event(key), partial(_given, advance)))
        sent.append([one["name"] for one in wire.sent])
    writes = ["update", "update", "update", "commitTransaction"]
    assert sent == [["find", *writes], ["find", "find", *writes]]
    await store.aclose()


async def every_list(store: Store) -> None:
    """Ask for a later page of each list, by each combination of the filters that it takes."""
    page = Page(5, 2**60)
    for state, channel in product((None, *State), (None, "slack")):
        await store.deliveries(TENANT, DeliveryFilter(state, channel), page)
    for status, run_id in product((None, *Status), (None, "run-1")):
        await store.approvals(TENANT, ApprovalFilter(status, run_id), page)
    for run_id, approval_id in product((None, "run-1"), (None, "deploy")):
        await store.audit(TENANT, AuditFilter(run_id, approval_id), page)
    for is_open, run_id in product((None, True, False), (None, "run-1")):
        await store.incidents(TENANT, IncidentFilter(is_open, run_id), page)
    await store.with_dead_effects(TENANT, page)


@pytest.mark.parametrize("driver", StoreDriver)
async def test_every_list_names_the_index_that_has_its_order_and_ends_in_time(
    mongo_server: MongoServer, wire: Wire, driver: StoreDriver
) -> None:
    store = await open_mongo(
        mongo_server.database(), node=NODE, clock=TurnableClock(), timeout=20, driver=driver
    )
    wire.sent.clear()
    await every_list(store)
    asked = wire.named(frozenset({"find"}))
    assert len(asked) == 12 + 12 + 4 + 6 + 1 + 1  # one looks how far it may go
    for query in asked:
        assert 0 < query["maxTimeMS"] <= 20_000
        (index,) = (i for i in INDEXES if (i.collection, i.name) == (query["find"], query["hint"]))
        keys = [key for key, _ in index.keys]
        before = keys[: keys.index("position")] if "position" in keys else ["tenant", "run_id"]
        assert [key for key in before if key not in query["filter"]] == [], query
        explained = {name: query[name] for name in ("find", "filter", "sort", "hint")}
        plan = await store._base.connection.database.command({"explain": explained})
        assert f"'indexName': '{index.name}'" in str(plan["queryPlanner"]["winningPlan"])
    await store.aclose()
