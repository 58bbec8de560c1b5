"""Markdown for a pull request and JSON for machines say what the page says."""

from __future__ import annotations

import json

from koprogo_deploy import report
from koprogo_deploy.objectives import judge
from koprogo_deploy.runs.model import Run
from tests.made_runs import Stretch, made_run
from tests.project import settings


def judged(run: Run) -> Run:
    run.verdict = judge(run, settings("sandbox"))
    return run


def test_markdown_begins_with_the_verdict_and_lists_objectives_and_requests() -> None:
    text = report.markdown([judged(made_run(seconds=70, p50=60))])
    assert text.startswith("## realistic-20261125T034000Z: ❌ Missed\n")
    assert "| ❌ | P50 | < 30 ms |" in text
    assert "| P99 (ours) |" in text
    assert "| GET /buildings |" in text and "| all | 15400 | 15400 | 0.00% |" in text
    assert "@sha256:" in text


def test_every_table_row_has_as_many_cells_as_its_head() -> None:
    run = judged(made_run(seconds=20, errors={"5xx": 3}))
    run.phases[0].endpoints[0].name = "GET /a|b"
    width, rows = None, 0
    for line in report.markdown([run, run]).splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = line.replace("\\|", "").count("|")
        assert cells == (width or cells), line
        width, rows = cells, rows + 1
    assert rows > 20


def test_markdown_makes_no_tag_or_link_of_what_a_file_says() -> None:
    run = made_run(seconds=5, revision="<b>&amp;", environment="[x](javascript:1)")
    text = report.markdown([run])
    assert "<b>" not in text and "&lt;b>&amp;amp;" in text
    assert "\\[x\\](javascript:1)" in text


def test_json_has_the_same_content_with_stable_keys() -> None:
    stretches = [Stretch("warm-up", 20, 10, judged=False), Stretch("realistic", 220, 70)]
    made = json.loads(report.as_json([judged(made_run(stretches=stretches))]))
    assert made["format"] == 1
    (run,) = made["runs"]
    assert set(run) >= {
        "id", "profile", "environment", "url", "began", "seconds", "command", "revision", "result",
        "headline", "problems", "objectives", "totals", "phases", "containers", "generator",
        "machine", "deployed", "cleanup", "unread", "unwatched",
    }  # fmt: skip
    assert run["result"] == "passed" and run["began"] == "2026-11-25T03:40:00Z"
    assert [phase["judged"] for phase in run["phases"]] == [False, True]
    assert run["totals"]["count"]["sent"] == 220 * 70, "a warm-up is not counted"
    assert run["containers"]["traefik"]["memory_limit"] == 80 * 1024 * 1024
    assert "samples" not in run


def test_json_says_null_where_nothing_was_read() -> None:
    run = json.loads(report.as_json([made_run(seconds=20, monitor=False)]))["runs"][0]
    assert run["totals"]["load_max"] is None
    assert run["unwatched"] == "the run was made without a monitor"
