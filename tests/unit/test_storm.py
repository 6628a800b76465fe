"""What is held back, until when, and with what."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from attrs import define, evolve, field

from notifyd.config.settings import QuietHours, Rate, Rule
from notifyd.config.units import HOUR, Duration
from notifyd.config.windows import Window
from notifyd.flow.storm import Budgets, Deferral, budget_key, deferral_of, group_of, is_request, quiet_until
from notifyd.model import SECOND, Instant
from tests.store.makers import NOW, TENANT, event, plan_entry

MINUTE = Duration(60 * SECOND)
NIGHT = QuietHours("22:00", "07:00", "Europe/Zurich")
ENTRY = plan_entry()


def at(text: str, zone: str = "Europe/Zurich", fold: int = 0) -> Instant:
    """A wall-clock time; `fold=1` is the second of two that read the same."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(local.timestamp()) * SECOND


# --- quiet hours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-06-10 21:59", None),
        ("2026-06-10 22:00", "2026-06-11 07:00"),
        ("2026-06-10 23:59", "2026-06-11 07:00"),
        ("2026-06-11 00:00", "2026-06-11 07:00"),
        ("2026-06-11 06:59", "2026-06-11 07:00"),
        ("2026-06-11 07:00", None),
        ("2026-12-31 23:00", "2027-01-01 07:00"),
    ],
)
def test_a_night_s_quiet_ends_in_the_morning_that_follows(now: str, until: str | None) -> None:
    assert quiet_until(NIGHT, at(now)) == (at(until) if until else None)


@pytest.mark.parametrize(
    ("now", "quiet"), [("11:59", False), ("12:00", True), ("13:29", True), ("13:30", False), ("23:00", False)]
)
def test_quiet_hours_may_lie_within_a_day(now: str, quiet: bool) -> None:
    lunch = QuietHours("12:00", "13:30", "Europe/Zurich")
    expected = at("2026-06-10 13:30") if quiet else None
    assert quiet_until(lunch, at(f"2026-06-10 {now}")) == expected


def test_quiet_hours_follow_the_clocks_of_their_zone() -> None:
    now = at("2026-06-10 23:00", "Europe/Zurich")
    assert quiet_until(evolve(NIGHT, zone="America/New_York"), now) is None
    assert quiet_until(evolve(NIGHT, zone="Asia/Tokyo"), now) == at("2026-06-11 07:00", "Asia/Tokyo")
    assert quiet_until(evolve(NIGHT, zone="Asia/Kolkata"), now) == at("2026-06-11 07:00", "Asia/Kolkata")


def test_a_night_in_which_the_clocks_go_forward_is_an_hour_shorter() -> None:
    began = at("2026-03-28 22:00")
    assert quiet_until(NIGHT, began) == at("2026-03-29 07:00") == began + 8 * HOUR


def test_a_night_in_which_the_clocks_go_back_is_an_hour_longer() -> None:
    began = at("2026-10-24 22:00")
    assert quiet_until(NIGHT, began) == at("2026-10-25 07:00") == began + 10 * HOUR


def test_an_end_that_the_clocks_leave_out_is_the_end_of_the_gap() -> None:
    early = evolve(NIGHT, to="02:30")
    assert quiet_until(early, at("2026-03-29 01:10")) == at("2026-03-29 03:00")
    assert quiet_until(early, at("2026-03-29 03:00")) is None


def test_an_end_that_the_clocks_show_twice_ends_the_quiet_the_first_time() -> None:
    early = evolve(NIGHT, to="02:30")
    assert quiet_until(early, at("2026-10-25 01:00")) == at("2026-10-25 02:30")
    assert quiet_until(early, at("2026-10-25 02:40")) is None
    assert quiet_until(early, at("2026-10-25 02:10", fold=1)) is None


def test_a_beginning_that_the_clocks_show_twice_begins_the_quiet_the_first_time() -> None:
    late = evolve(NIGHT, from_="02:30")
    assert quiet_until(late, at("2026-10-25 02:29")) is None
    assert quiet_until(late, at("2026-10-25 02:30")) == at("2026-10-25 07:00")
    assert quiet_until(late, at("2026-10-25 02:10", fold=1)) == at("2026-10-25 07:00")


def test_a_beginning_that_the_clocks_leave_out_is_the_end_of_the_gap() -> None:
    late = evolve(NIGHT, from_="02:30")
    assert quiet_until(late, at("2026-03-29 01:59:59")) is None
    assert quiet_until(late, at("2026-03-29 03:00")) == at("2026-03-29 07:00")


@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("to", ["01:30", "02:00", "02:15", "03:00"])
def test_at_a_year_s_changes_quiet_ends_later_is_over_then_and_agrees_with_a_window(
    zone: str, to: str
) -> None:
    quiet, window = QuietHours("00:45", to, zone), Window.parse(f"00:45-{to} {zone}")
    for change in ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"):
        start = at(f"{change} 00:00", zone)
        for minute in range(0, 300, 5):
            now = start + minute * MINUTE
            until = quiet_until(quiet, now)
            assert until is None or now < until <= now + 4 * HOUR
            assert until is None or quiet_until(quiet, until) is None
            assert (until is not None) == (window.opens_at(now) == now)


# --- groups ------------------------------------------------------------------------------------------------


def rule(**options: Any) -> Rule:
    return Rule(name="approvals", when="true", channels=("slack",), **options)


def test_a_group_is_the_values_at_its_paths() -> None:
    grouped = rule(group_by=("runId", "labels.environment", "parameters.replicas"))
    seen = {"runId": "run-1", "labels": {"environment": "prod"}, "parameters": {"replicas": 3}}
    assert group_of(grouped, seen) == ['"run-1"', '"prod"', "3"]


def test_what_is_not_there_is_one_group_and_no_other_value_is_like_it() -> None:
    grouped = rule(group_by=("a.b",))
    documents: list[dict[str, Any]] = [{}, {"a": None}, {"a": "text"}, {"a": {"b": None}}, {"a": [1]}]
    assert {tuple(group_of(grouped, one)) for one in documents} == {("",)}
    values: list[Any] = ["", "1", 1, True, "true", [1], {"x": 1}]
    assert len({tuple(group_of(grouped, {"a": {"b": one}})) for one in values}) == len(values)


# --- budgets -----------------------------------------------------------------------------------------------

RATE = Rate(3, HOUR)


@define
class Ledger:
    """The one operation of a store that budgets need. `meanwhile` happens while it is under way."""

    times: list[Instant] = field(factory=list)
    asked: int = 0
    meanwhile: Any = None

    async def spent(self, tenant: str, budget: str, since: Instant, limit: int) -> list[Instant]:
        self.asked += 1
        found = sorted((one for one in self.times if one > since), reverse=True)[:limit]
        if self.meanwhile:
            step, self.meanwhile = self.meanwhile, None
            await step()
        return found


async def budgets(*times: Instant, now: Instant = NOW) -> Budgets:
    ledger: Any = Ledger(list(times))
    loaded = Budgets(ledger)
    await loaded.load(TENANT, "b", RATE, now)
    return loaded


async def test_a_budget_lets_so_many_through_in_any_such_time() -> None:
    budget = await budgets()
    for step in range(3):
        assert budget.full_until("b", RATE, NOW + step) is None
        budget.spend("b", NOW + step)
    assert budget.full_until("b", RATE, NOW + 3) == NOW + HOUR
    assert budget.full_until("b", RATE, NOW + HOUR - 1) == NOW + HOUR
    assert budget.full_until("b", RATE, NOW + HOUR) is None
    budget.spend("b", NOW + HOUR)
    assert budget.full_until("b", RATE, NOW + HOUR) == NOW + HOUR + 1


async def test_nodes_divide_a_budget_and_each_has_one_at_least() -> None:
    nodes, ledger = [2], Ledger()
    budget = Budgets(ledger, lambda: nodes[0])  # type: ignore[arg-type]
    await budget.load(TENANT, "b", Rate(5, HOUR), NOW)
    budget.spend("b", NOW)
    assert budget.full_until("b", Rate(5, HOUR), NOW) is None
    budget.spend("b", NOW + 1)
    assert budget.full_until("b", Rate(5, HOUR), NOW + 2) == NOW + HOUR
    nodes[0] = 9
    assert budget.full_until("b", Rate(5, HOUR), NOW + HOUR) == NOW + 1 + HOUR
    assert budget.full_until("b", Rate(5, HOUR), NOW + 1 + HOUR) is None
    nodes[0] = 1
    assert budget.full_until("b", Rate(5, HOUR), NOW + 2) is None


async def test_what_was_spent_before_a_restart_is_spent() -> None:
    assert (await budgets(NOW - 1, NOW - 2, NOW - 3)).full_until("b", RATE, NOW) == NOW - 3 + HOUR
    assert (await budgets(NOW - 1, NOW - 2, NOW - HOUR)).full_until("b", RATE, NOW) is None
    many = await budgets(*(NOW - n for n in range(1, 9)))
    assert many.full_until("b", RATE, NOW) == NOW - 3 + HOUR


async def test_a_clock_set_back_does_not_keep_a_budget_full() -> None:
    budget = await budgets()
    for step in range(3):
        budget.spend("b", NOW + 10 * HOUR + step)
    assert budget.full_until("b", RATE, NOW) is None


async def test_the_first_room_in_a_budget_is_the_digest_s() -> None:
    budget = await budgets(NOW - 1, NOW - 2, NOW - 3)
    budget.owe("b")
    free = NOW - 3 + HOUR
    assert budget.full_until("b", RATE, free) == NOW - 2 + HOUR
    assert budget.full_until("b", RATE, free, digest=True) is None
    budget.settle("b", free)
    assert budget.full_until("b", RATE, free) == NOW - 2 + HOUR
    assert budget.full_until("b", RATE, NOW - 2 + HOUR) is None


async def test_a_digest_that_waits_for_a_budget_of_one_keeps_it() -> None:
    ledger: Any = Ledger()
    budget, one = Budgets(ledger), Rate(1, HOUR)
    await budget.load(TENANT, "b", one, NOW)
    budget.owe("b")
    assert budget.full_until("b", one, NOW) == NOW + HOUR
    assert budget.full_until("b", one, NOW, digest=True) is None


async def test_a_budget_is_read_once_and_again_after_a_failed_write() -> None:
    ledger: Any = Ledger()
    budget = Budgets(ledger)
    for _ in range(3):
        await budget.load(TENANT, "b", RATE, NOW)
        budget.spend("b", NOW)
    assert ledger.asked == 1
    budget.forget()
    await budget.load(TENANT, "b", RATE, NOW)
    assert ledger.asked == 2
    assert budget.full_until("b", RATE, NOW) is None


async def test_what_is_spent_while_the_budget_is_read_is_not_forgotten() -> None:
    ledger: Any = Ledger()
    budget = Budgets(ledger)

    async def meanwhile() -> None:
        await budget.load(TENANT, "b", Rate(1, HOUR), NOW)
        budget.spend("b", NOW)

    ledger.meanwhile = meanwhile
    await budget.load(TENANT, "b", Rate(1, HOUR), NOW)
    assert budget.full_until("b", Rate(1, HOUR), NOW) == NOW + HOUR


# --- what is held ------------------------------------------------------------------------------------------

STAGE = event(kind="stage.complete", action="", run_id=None, approval_id=None)
REQUEST = event()
DECIDED = event(action="acknowledged")
QUIET_NOW = at("2026-06-10 23:00")
LOUD_NOW = at("2026-06-10 12:00")
FULL = Rate(1, HOUR)
SEEN = {"runId": "run-1"}


async def hold(
    given: Rule, one: Any = STAGE, now: Instant = LOUD_NOW, *, full: bool = False
) -> Deferral | None:
    ledger: Any = Ledger([now] if full else [])
    loaded = Budgets(ledger)
    await loaded.load(TENANT, budget_key(TENANT, ENTRY), FULL, now)
    return deferral_of(given, ENTRY, one, SEEN, loaded, now)


async def closes_at(given: Rule, one: Any = STAGE, now: Instant = LOUD_NOW, *, full: bool = False) -> Any:
    found = await hold(given, one, now, full=full)
    return found and found.closes_at


def test_only_a_request_for_approval_waits_for_an_answer() -> None:
    assert is_request("pack.approval", "requested")
    assert not is_request("pack.approval", "acknowledged")
    assert not is_request("task.done", "requested")


async def test_a_rule_without_storm_control_holds_nothing() -> None:
    assert await hold(rule(), now=QUIET_NOW, full=True) is None


async def test_quiet_hours_come_before_groups_and_groups_before_throttle() -> None:
    group: dict[str, Any] = {"group_by": ("runId",), "group_wait": Duration(30 * SECOND)}
    every = rule(**group, throttle=FULL, quiet_hours=NIGHT)
    assert await closes_at(every, now=QUIET_NOW, full=True) == at("2026-06-11 07:00")
    assert await closes_at(every, full=True) == LOUD_NOW + 30 * SECOND
    assert await closes_at(rule(throttle=FULL, quiet_hours=NIGHT), full=True) == LOUD_NOW + HOUR
    assert await closes_at(rule(throttle=FULL, quiet_hours=NIGHT)) is None


async def test_a_request_is_exempt_from_quiet_hours_and_throttle() -> None:
    held = rule(throttle=FULL, quiet_hours=NIGHT)
    assert await hold(held, REQUEST, QUIET_NOW, full=True) is None
    assert await hold(held, DECIDED, QUIET_NOW, full=True) is not None


async def test_requests_are_grouped_with_requests_alone() -> None:
    grouped = rule(group_by=("runId",), group_wait=MINUTE, throttle=FULL, quiet_hours=NIGHT)
    asked, told = await hold(grouped, REQUEST, QUIET_NOW), await hold(rule(**_group()), DECIDED)
    assert asked is not None
    assert told is not None
    assert asked.closes_at == QUIET_NOW + MINUTE
    assert asked.key != told.key


def _group() -> dict[str, Any]:
    return {"group_by": ("runId",), "group_wait": MINUTE}


async def test_each_tenant_rule_channel_type_recipient_and_group_has_windows_of_its_own() -> None:
    entries = [
        ENTRY,
        evolve(ENTRY, rule="other"),
        evolve(ENTRY, channel="mail"),
        evolve(ENTRY, channel_type="email"),
        evolve(ENTRY, recipient="alice@acme.example"),
    ]
    given, none = rule(**_group()), Budgets(Ledger())  # type: ignore[arg-type]
    windows = [deferral_of(given, entry, STAGE, SEEN, none, NOW) for entry in entries]
    windows.append(deferral_of(given, ENTRY, evolve(STAGE, tenant="globex"), SEEN, none, NOW))
    windows.append(deferral_of(given, ENTRY, STAGE, {"runId": "run-2"}, none, NOW))
    assert len({one.key for one in windows if one is not None}) == 7
