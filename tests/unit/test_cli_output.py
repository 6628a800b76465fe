"""What commands print for people, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, datetime

import pytest

from notifyd.cli.common import Failure, print_json
from notifyd.cli.output import print_members, print_table, shown_time
from notifyd.cli.remote import refusal
from notifyd.client import Answer, RefusedError
from notifyd.text import counted

HOSTILE = "[bold]x[/bold] \x1b[31mred\nline two\ttab"


def test_in_a_pipe_a_table_is_one_line_of_tab_separated_values_for_each_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("name", "count", "note"), [("hook", 3, None), ("mail", 0, HOSTILE)])
    assert capsys.readouterr().out.splitlines() == [
        "name\tcount\tnote",
        "hook\t3\t",
        "mail\t0\t[bold]x[/bold] [31mred line two tab",
    ]


def test_on_a_terminal_a_table_has_a_head_and_shows_text_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(("name", "note"), [("hook", HOSTILE), ("long", "0123456789" * 8)])
    shown = capsys.readouterr().out
    assert "name" in shown.splitlines()[1]
    assert "[bold]x[/bold] [31mred line two tab" in shown
    assert "\x1b[31m" not in shown
    # Folded, and nothing of it lost.
    assert "".join(shown.split()).endswith("0123456789" * 8)


def test_on_a_terminal_of_80_columns_ids_are_cut_and_times_short_and_in_a_pipe_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    id_, at, long_ago = "0123456789abcdef" * 4, f"{now:%Y-%m-%dT%H:%M:%S}.123456Z", "1999-12-31T23:59:59Z"
    columns = ("created", "ended", "about", "why", "id")
    rows = [(at, long_ago, "pack.approval requested run-0042/deploy-production", "retry: timeout", id_)]
    print_table(columns, rows)
    assert capsys.readouterr().out.splitlines()[1].split("\t") == list(rows[0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(columns, rows)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, shown)) <= 80
    (row,) = (line for line in shown if id_[:12] in line)
    assert row.split()[:3] == [f"{now:%m-%d}", f"{now:%H:%M:%S}", "1999-12-31"]
    assert row.split()[-1] == id_[:12]


def test_a_time_among_other_words_is_whole_in_a_pipe_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_time("1999-12-31T23:59:59.123Z") == "1999-12-31T23:59:59.123Z"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert shown_time("1999-12-31T23:59:59.123Z") == "1999-12-31"


def test_what_is_true_or_false_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_members({"ok": True, "cut": {"off": False}})
    assert capsys.readouterr().out == "ok       yes\ncut.off  no\n"


def test_on_a_terminal_of_80_columns_a_short_word_stays_whole_where_its_neighbours_are_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    at, when = "1999-12-31T23:59:59Z", 'event.kind == "task.done" && event.labels.environment == "production"'
    columns = ("starts", "ends", "state", "when", "reason", "author", "id")
    print_table(columns, [(at, at, "in_force", when, "a release freeze", "client:operator", "0123abcd" * 8)])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert " in_force " in shown
    assert max(map(len, shown.splitlines())) <= 80


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def shown_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


def test_on_a_terminal_a_long_head_over_short_cells_is_folded_and_both_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch)
    columns = ("key", "use", "approvals in need", "approvals ended", "deliveries in need", "deliveries ended")
    print_table(columns, [("c49fc0de", "seals", 1, 0, 2, 0)])
    lines = shown_lines(capsys)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert any(line.split() == ["c49fc0de", "seals", "1", "0", "2", "0"] for line in lines)


def test_on_a_terminal_a_reason_stays_whole_where_there_is_room_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch)
    at, about = "1999-12-31T23:59:59Z", "pack.approval requested run-0042/deploy-production"
    rows = [
        (at, "pending", "post alice@acme.example", about, why, "0123abcd" * 8)
        for why in ("breaker_open", "retry until 11-29 19:54:22: timeout")
    ]
    print_table(("created", "state", "to", "about", "why", "id"), rows)
    lines = shown_lines(capsys)
    assert max(map(len, lines)) <= 80
    assert any(" breaker_open " in line for line in lines)


def test_a_column_without_a_head_is_one_like_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch)
    print_table(("check", "", "to do"), [("store", "ok", ""), ("clock", "error", "set it, by NTP " * 9)])
    lines = shown_lines(capsys)
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:2] == ["clock", "error"] for line in lines)


@pytest.mark.parametrize("name", ["notification.sent", "pack.approval.acknowledged"])
def test_on_a_terminal_a_table_that_is_cut_has_a_line_for_each_row_and_its_other_columns_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    terminal(monkeypatch)
    row = ("1999-12-31T23:59:59Z", name, "client:task-runner", "run-0042/deploy-prod", "outcome=opened " * 9)
    print_table(("at", "name", "actor", "about", "facts"), [row] * 3, cut=("actor", "about", "facts"))
    lines = [line for line in shown_lines(capsys) if line.strip()]
    assert len(lines) == 2 + 3
    assert max(map(len, lines)) <= 80
    assert all(line.split()[:2] == ["1999-12-31", name] and "…" in line for line in lines[2:])


@pytest.mark.parametrize(("encoding", "plain"), [("utf-8", False), ("iso-8859-1", True), ("ascii", True)])
def test_what_is_printed_as_json_is_json_in_any_encoding_of_standard_output(
    monkeypatch: pytest.MonkeyPatch, encoding: str, plain: bool
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, write_through=True))
    print_json({"title": "Grüße 承認 😀"})
    written = raw.getvalue()
    assert written.isascii() == plain
    assert json.loads(written) == {"title": "Grüße 承認 😀"}


def test_a_count_agrees_with_its_noun() -> None:
    assert [counted(n, "rule") for n in (0, 1, 2)] == ["0 rules", "1 rule", "2 rules"]
    assert [counted(n, "delivery waits", "deliveries wait") for n in (1, 2)] == [
        "1 delivery waits",
        "2 deliveries wait",
    ]


def test_a_refusal_for_want_of_a_tenant_says_which_option_names_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = {"code": "tenant_mismatch", "detail": "name it in X-Notifyd-Tenant", "correlationId": "c1"}
    refusal(RefusedError(Answer(403, "Forbidden", problem))).show()
    assert capsys.readouterr().err.splitlines() == [
        "notifyd: 403 tenant_mismatch: name it in X-Notifyd-Tenant",
        "notifyd: --tenant, or NOTIFYD_TENANT, says which tenant is meant",
        "notifyd: correlation id c1",
    ]


def test_members_are_shown_one_a_line_and_nested_ones_by_their_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_members(
        {
            "status": "approved",
            "decision": {"actor": HOSTILE},
            "endedAt": None,
            "labels": [],
            "grants": ["Packs.Approve", "Deploy"],
            "steps": [{"id": "deploy"}],
        }
    )
    assert capsys.readouterr().out.splitlines() == [
        "status          approved",
        "decision.actor  [bold]x[/bold] [31mred line two tab",
        "grants          Packs.Approve, Deploy",
        'steps           {"id": "deploy"}',
    ]


def test_a_failure_is_one_line_for_each_reason_and_steers_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Failure("first", HOSTILE).show()
    assert capsys.readouterr().err.splitlines() == [
        "notifyd: first",
        "notifyd: [bold]x[/bold] [31mred line two\ttab",
    ]
