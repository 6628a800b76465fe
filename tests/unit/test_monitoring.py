"""The alerts and the dashboard ask for what is measured, agree with each other, and lead to the runbook."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final

import pytest
import tomli
import yaml
from attrs import frozen
from prometheus_client import CollectorRegistry

from notifyd.config.settings import Listen, Server
from notifyd.errors import ATTEMPT_REASONS
from notifyd.metrics import Metrics
from notifyd.model import RESUME_CHANNEL, AttemptOutcome, Outcome, State
from tests.markdown import ROOT, sections

PROMETHEUS: Final = ROOT / "conf" / "prometheus"
JOB: Final = "notifyd"

TARGET: Final = frozenset({"job", "instance"})
"""Labels that Prometheus itself adds to everything it reads."""

OPERATORS: Final = frozenset({"and", "or", "unless"})
GROUPING: Final = r"\b(?:by|on)\s*\(([^)]*)\)"
MATCHER: Final = r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"'
BRACES: Final = r'(\{(?:"[^"]*"|[^}"])*\})'


def load(name: str) -> Any:
    return yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))


ALERTS: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule for group in load("notifyd.rules.yml")["groups"] for rule in group["rules"]
}
DASHBOARD: Final[dict[str, Any]] = json.loads(
    (ROOT / "conf/grafana/notifyd.json").read_text(encoding="utf-8")
)
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

each_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))
each_panel = pytest.mark.parametrize(
    "panel", PANELS, ids=[f"{panel['id']}-{panel['title']}" for panel in PANELS]
)


# --- PromQL ------------------------------------------------------------------------------------------------


@frozen
class Selector:
    """A metric in an expression, with its matchers as (label, value)."""

    metric: str
    matchers: tuple[tuple[str, str], ...]


def selectors(expr: str) -> Iterator[Selector]:
    """Every series an expression asks for: each name that is no function, no keyword and no label."""
    bare = re.sub(GROUPING + r"|\[[^\]]*\]|\boffset \w+", "", expr)
    for name, braces, call in re.findall(r"\b([A-Za-z_]\w*)" + BRACES + r"?(\s*\()?", bare):
        if not call and name not in OPERATORS:
            yield Selector(name, tuple(re.findall(MATCHER, braces)))


def grouped(expr: str) -> set[str]:
    return {label.strip() for labels in re.findall(GROUPING, expr) for label in labels.split(",")}


def queries() -> Iterator[tuple[str, str]]:
    for name, alert in ALERTS.items():
        yield name, alert["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']}-{target['refId']}", target["expr"]


each_query = pytest.mark.parametrize(
    "expr", [pytest.param(expr, id=name.replace(" ", "-")) for name, expr in queries()]
)


def exported() -> dict[str, frozenset[str]]:
    """Every series that `/metrics` has, and `up`, with its labels."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    found = {"up": TARGET}
    for family in registry.collect():
        for sample in family.samples:
            found[sample.name] = TARGET | sample.labels.keys()
    for metric in vars(metrics).values():
        labels = getattr(metric, "_labelnames", None)
        if labels is not None:
            suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
            for suffix in suffixes[metric._type]:
                own = {*labels, "le"} if suffix == "_bucket" else labels
                found[metric._name + suffix] = TARGET.union(own)
    return found


SERIES: Final[Mapping[str, frozenset[str]]] = exported()


def test_an_expression_is_taken_apart() -> None:
    """Else the tests below would pass over what they are to look at."""
    expr = 'sum by (job, le) (rate(a_bucket{x="1", y!~"b|{c"}[5m])) / 2 unless on (job) d offset 15m > 0'
    assert list(selectors(expr)) == [Selector("a_bucket", (("x", "1"), ("y", "b|{c"))), Selector("d", ())]
    assert grouped(expr) == {"job", "le"}


@each_query
def test_a_query_asks_for_series_that_are_there_by_labels_they_have(expr: str) -> None:
    asked = list(selectors(expr))
    assert asked
    for one in asked:
        assert one.metric in SERIES
        assert {label for label, _ in one.matchers} <= SERIES[one.metric]
    assert grouped(expr) <= frozenset().union(*(SERIES[one.metric] for one in asked))


def test_a_label_is_matched_with_values_that_it_takes() -> None:
    taken = {
        "notifyd_events_total": {
            *Outcome,
            "duplicate",
            "conflict",
            "overloaded",
            "backlog_full",
            "store_unavailable",
        },
        "notifyd_deliveries_total": {*State},
        "notifyd_delivery_attempts_total": {AttemptOutcome.SENT, *ATTEMPT_REASONS},
        "notifyd_drills_total": {"sent", "failed"},
    }
    for name, expr in queries():
        for one in selectors(expr):
            for label, value in one.matchers:
                if label == "outcome":
                    assert set(value.split("|")) <= {str(known) for known in taken[one.metric]}, name
                elif label == "channel":
                    assert value in {RESUME_CHANNEL, "$channel"}, name
                elif label == "job":
                    assert value == JOB, name


# --- alerts ------------------------------------------------------------------------------------------------


@each_alert
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert page == "docs/runbook.md"
    assert f"`{alert['alert']}`" in sections(ROOT / page)[anchor], (
        "whoever searches for its name finds the entry"
    )


@each_alert
def test_an_alert_tells_labels_that_its_result_has(alert: dict[str, Any]) -> None:
    first, *_ = selectors(alert["expr"])
    kept = grouped(alert["expr"]) or SERIES[first.metric]
    told = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
    assert told <= kept


def test_every_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    for case in load("notifyd.test.yml")["tests"]:
        for test in case["alert_rule_test"]:
            (fires if test["exp_alerts"] else quiet).add(test["alertname"])
    assert fires == quiet == set(ALERTS)


def test_the_job_reads_the_default_address_under_the_name_that_the_rules_ask_for() -> None:
    (job,) = load("scrape.yml")["scrape_configs"]
    assert job["job_name"] == JOB
    default: Listen = Server().listen
    assert job["static_configs"] == [{"targets": [f"{default.host}:{default.port}"]}]


def test_what_reads_these_files_in_the_tests_is_installed_with_them() -> None:
    dev = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    assert any(requirement.startswith("PyYAML") for requirement in dev)


# --- dashboard ---------------------------------------------------------------------------------------------


def test_a_panel_has_an_id_of_its_own() -> None:
    counted = Counter(panel["id"] for panel in DASHBOARD["panels"])
    assert [one for one, count in counted.items() if count > 1] == []


def test_panels_lie_within_the_grid_and_not_upon_each_other() -> None:
    def apart(a: dict[str, int], b: dict[str, int]) -> bool:
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        return beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]

    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    for one, other in combinations(DASHBOARD["panels"], 2):
        assert apart(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


@each_panel
def test_a_panel_has_a_unit_a_description_and_a_legend(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"].endswith(".")
    assert all(target["legendFormat"] for target in panel["targets"])


@each_panel
def test_a_panel_names_only_alerts_that_exist_and_draws_the_thresholds_of_those(
    panel: dict[str, Any],
) -> None:
    named = re.findall(r"Notifyd\w+", panel["description"])
    assert set(named) <= set(ALERTS)
    if panel["fieldConfig"]["defaults"].get("custom", {}).get("thresholdsStyle", {}).get("mode") == "line":
        (alert,) = named
        *_, limit = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        compared = re.findall(r">=? ([\d.]+)", ALERTS[alert]["expr"])
        assert float(limit["value"]) in map(float, compared)


def test_the_dashboard_belongs_to_no_installation() -> None:
    """It takes its data from the source that is chosen, and has no number of a database."""
    assert DASHBOARD["id"] is None
    source, *others = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["current"]) == ("datasource", "datasource", {})
    assert [one["name"] for one in others] == ["instance", "channel"]
    used = re.findall(r'"uid": "([^"]*)"', json.dumps([DASHBOARD["panels"], others]))
    assert set(used) == {"${datasource}"}


def test_a_variable_is_filled_from_a_label_that_is_there() -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert match
        assert match[2] in SERIES[match[1]]


@each_query
def test_a_variable_that_is_used_is_there(expr: str) -> None:
    own = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", expr)) <= own | {"__rate_interval"}
