"""The documentation is true: its examples run, its tables are complete."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import pytest
import tomli
from aiohttp.web import RouteDef
from attrs import frozen
from markdown_it import MarkdownIt

from notifyd.cli import COMMANDS
from notifyd.cli.expect import read_expectations
from notifyd.config import load as config
from notifyd.config.load import as_toml
from notifyd.metrics import Metrics
from notifyd.model import Outcome
from notifyd.render.render import TemplateSet
from notifyd.render.sandbox import CONTEXT_NAMES, FILTERS
from notifyd.rules.rules import RuleBook
from notifyd.security.resume_token import seal_for
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes, sign, verify
from notifyd.web import (
    approvals,
    channels,
    dead,
    deliveries,
    incidents,
    ingest,
    keys,
    log_level,
    ops,
    pages,
    problems,
    purge,
    silences,
)
from notifyd.wire import events as wire
from tests.daemon import installed
from tests.unit.test_conf_file import ENVIRON, SIGNING_SECRET, findable

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
INTERNAL_NAMES: Final = {"formats"}
"""What the sandbox passes to its own filters, and no template has a use for."""

# What examples may refer to, where they do not bring it themselves.
AROUND: Final = """
keys.seal = ["${NOTIFYD_SEAL_KEY}"]
[channels.release-mail]
type = "email"
host = "smtp.acme.example"
from = "notifyd@acme.example"
[channels.team-slack]
type = "slack"
webhook_url = "https://hooks.slack.com/services/T0/B0/x"
[channels.build-hook]
type = "webhook"
url = "${BUILD_HOOK_URL}"
"""


@frozen
class Example:
    """A fenced block: where it begins, what it says it is, and its text."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks() -> Iterator[Example]:
    for page in PAGES:
        if page.name == "plugins.md":
            continue  # its tutorial is run as a whole, by tests/e2e/test_plugin_tutorial.py
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
            if token.type == "fence" and token.map:
                yield Example(page, token.map[0] + 1, token.info.strip(), token.content)


EXAMPLES: Final = list(blocks())


def of(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", [e for e in EXAMPLES if e.kind == kind], ids=str)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


# --- examples ----------------------------------------------------------------------------------------------


def test_every_example_is_of_a_kind_that_is_checked() -> None:
    known = {
        "toml",
        "toml expected",
        "json",
        "json event",
        "json ack",
        "json cloudevent",
        "jinja",
        "python",
        "console",
        "sh",  # of the operations page: test_operations_page.py
    }
    assert {str(e): e.kind for e in EXAMPLES if e.kind not in known} == {}


@of("toml")
def test_a_toml_example_loads_and_its_rules_compile(example: Example) -> None:
    document = tomli.loads(AROUND) | (own := tomli.loads(example.text))
    document["channels"] = tomli.loads(AROUND)["channels"] | own.get("channels", {})
    settings = config.reads(findable(as_toml(document)), installed().brought, ENVIRON).whole()
    RuleBook.compile(settings.rules, {})


@of("toml expected")
def test_an_example_of_expectations_can_be_read(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(example.text, encoding="utf-8")
    for event in tomli.loads(example.text)["events"]:
        (tmp_path / event["file"]).parent.mkdir(exist_ok=True)
        (tmp_path / event["file"]).touch()
    assert read_expectations(path)


@of("json")
def test_a_json_example_is_json(example: Example) -> None:
    assert json.loads(example.text)


@of("json event")
def test_an_event_keeps_the_contract(example: Example) -> None:
    """The parsers raise with every fault there is."""
    wire.parse_pack_event(json.loads(example.text))


@of("json ack")
def test_a_decision_keeps_the_contract(example: Example) -> None:
    wire.parse_ack(json.loads(example.text))


@of("json cloudevent")
def test_a_cloudevent_keeps_the_contract(example: Example) -> None:
    wire.parse_cloud_event(json.loads(example.text))


def namespace(name: str) -> dict[str, Any]:
    """What the Python examples of a page define, run one after the other."""
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        if example.kind == "python" and example.page.name == f"{name}.md":
            exec(compile(example.text, str(example), "exec"), names)  # noqa: S102 - our own documentation
    return names


def test_python_examples_stand_where_they_are_run() -> None:
    assert {e.page.name for e in EXAMPLES if e.kind == "python"} == {"events.md", "decisions.md"}


def test_the_signing_example_makes_what_notifyd_verifies() -> None:
    body = b'{"a": 1}'
    headers = namespace("events")["signed_headers"]("task-runner", SIGNING_SECRET, body)
    verify([secret_bytes(Secret(SIGNING_SECRET))], headers, body, time.time(), 60)
    assert headers["X-Notifyd-Client"] == "task-runner"


def test_the_waiting_example_honours_retry_after_and_its_ceiling() -> None:
    wait_before = namespace("events")["wait_before"]
    assert all(0 <= wait_before(attempt, None) <= 60 for attempt in range(1, 50))
    assert wait_before(1, "7") >= 7


def test_the_verifying_example_takes_what_notifyd_signs_and_nothing_else() -> None:
    check, body = namespace("decisions")["verify"], b'{"type": "pack.approval.decided"}'
    headers = sign([Secret(SIGNING_SECRET)], "an-id", int(time.time()), body)
    check(headers, body, [SIGNING_SECRET])
    with pytest.raises(ValueError, match="does not match"):
        check(headers, body + b" ", [SIGNING_SECRET])
    with pytest.raises(ValueError, match="too far"):
        check(headers | {"webhook-timestamp": "1"}, body, [SIGNING_SECRET])


def test_the_example_opens_a_sealed_resume_token() -> None:
    sealed = seal_for(Secret(SIGNING_SECRET), Secret("known to the runner"))
    assert namespace("decisions")["open_resume_token"](sealed, SIGNING_SECRET) == "known to the runner"


def test_the_templates_shown_render(tmp_path: Path) -> None:
    shown = [e.text for e in EXAMPLES if e.kind == "jinja"]
    names = ("release.en.txt", "pack-approval.en.txt", "event.en.txt")
    for name, text in zip(names, shown, strict=True):
        assert f"`{name}`" in page("templates")
        (tmp_path / name).write_text(text, encoding="utf-8")
    templates = TemplateSet.load([], [tmp_path], "en", ["pagerduty"])
    data = {"name": "Payments", "notes": "Faster.", "version": "3", "downloads": 12345}
    event = {"kind": "release", "occurredAt": "2026-11-04T09:30:00Z", "data": data}
    release = templates.render("release", "en", event=event, link="https://acme.example/")
    assert (release.title, release.body, release.actions[0].label) == ("Payments is out", "Faster.", "Open")
    assert ("Downloads", "12,345") in [(field.name, field.value) for field in release.fields]
    request = {
        "kind": "pack.approval",
        "action": "requested",
        "labels": {"environment": "test"},
        "runId": "r",
    }
    assert templates.render("pack-approval", "en", event=request).title.startswith("[test] ")
    told = {"kind": "alert", "data": {"message": "Down.\nSince nine."}}
    assert templates.render("event", "en", event=told, channel_type="pagerduty").body == "Down. Since nine."


# --- tables that must be complete --------------------------------------------------------------------------


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = text.split(f"## {heading}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def test_the_problem_codes_are_all_there_with_their_status() -> None:
    known = {(meaning.status, cls.code) for cls, meaning in problems.MEANINGS.items()} | {
        (400, "malformed_request"),
        (405, "method_not_allowed"),
    }
    told = {
        (int(status), code)
        for status, codes, _ in rows(page("events"), "When it is refused")
        if status.isdigit()
        for code in quoted(codes)
    }
    assert told == known


def test_the_outcomes_are_all_there() -> None:
    sentence = re.search(r"`outcome` is ([^.]+)\.", page("events"))
    assert sentence
    assert {outcome.value for outcome in Outcome} <= quoted(sentence[1])


def test_the_metrics_are_all_there_with_their_labels() -> None:
    told = {cells[0].strip("`") for cells in rows(page("operations"), "Metrics")}
    known = set()
    for metric in vars(Metrics()).values():
        labels = getattr(metric, "_labelnames", None)
        if labels is not None:
            suffix = "_total" if metric._type == "counter" else ""
            known.add(metric._name + suffix + (f"{{{','.join(labels)}}}" if labels else ""))
    assert told == known | {"notifyd_build_info{version}"}


def endpoints() -> Iterator[str]:
    for module in (
        approvals,
        channels,
        dead,
        deliveries,
        incidents,
        ingest,
        keys,
        log_level,
        ops,
        pages,
        purge,
        silences,
    ):
        for route in module.routes:
            assert isinstance(route, RouteDef)
            yield re.sub(r"\{(\w+)\}", lambda match: f"{{{camel(match[1])}}}", route.path)


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def test_every_endpoint_is_told_of() -> None:
    told = "\n".join(page(name) for name in ("events", "decisions", "operations"))
    assert [path for path in endpoints() if path not in told] == []


def commands() -> Iterator[str]:
    for name, entry in COMMANDS.items():
        command = entry.load()
        if isinstance(command, click.Group):
            yield from (f"{name} {sub}" for sub in command.commands)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name


def test_the_commands_are_all_there() -> None:
    shown = [cells[0].strip("`").split() for cells in rows(page("operations"), "Commands")]
    told = {" ".join(word for word in words[1:] if word.islower()) for words in shown}
    assert told == set(commands())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_no_command_that_does_not_exist(path: Path) -> None:
    named = re.findall(r"(?:^ {4}|`)notifyd ([a-z][a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(COMMANDS)


def test_the_make_targets_named_are_all_the_targets_there_are() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    named = {
        target
        for path in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"run", "test", "lint", "help"} <= named <= targets


def test_what_a_template_sees_is_all_there() -> None:
    names = {name for cells in rows(page("templates"), "What a template sees") for name in quoted(cells[0])}
    assert names == CONTEXT_NAMES - INTERNAL_NAMES
    filters = {
        name.partition("(")[0]
        for cells in rows(page("templates"), "Filters, beside Jinja's own")
        for name in quoted(cells[0])
    }
    assert filters == set(FILTERS)


def test_each_promise_of_the_page_on_security_names_tests_that_exist() -> None:
    tables = re.findall(r"^\|.+\| shown by \|\n\|[-|]+\|\n((?:\|.+\n)+)", page("security"), re.MULTILINE)
    promises = [line for table in tables for line in table.splitlines()]
    assert len(promises) == sum(line.startswith("| ") for line in page("security").splitlines()) - len(tables)
    for promise in promises:
        named = re.findall(r"`(\w+\.py)::(\w+)`", promise.rpartition(" | ")[2])
        assert named, promise
        assert [one for one in named if not defined(*one)] == []


def defined(file: str, name: str) -> bool:
    """Is there a test of that name in a file of that name?"""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file))
    return any(f"def {name}(" in text for text in texts)
