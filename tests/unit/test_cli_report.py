"""`koprogo report` and `koprogo compare`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from koprogo_deploy.cli import report
from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs import store
from tests.made_runs import BEGAN, made_run

app = typer.Typer()
report.register(app)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    for number in range(2):
        for label, p50 in (("before", 3.0), ("after", 4.0)):
            began = BEGAN + 100 * number + 50 * (label == "after")
            name = f"{label}-20261125T03{number}{'5' if label == 'after' else '0'}00Z"
            store.save(made_run(rate=20, seconds=12, seed=number, p50=p50, began=began, id=name))
    return tmp_path / "sandbox"


def ran(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, Refusal), result.output
    return str(result.exception)


def test_the_latest_runs_page_is_written_beside_its_file(kept: Path) -> None:
    page = kept / "after-20261125T031500Z.html"
    assert str(page) in ran("report")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(store.listed()) == 4, "a report is no run"


def test_several_runs_are_one_page(kept: Path) -> None:
    assert "report of 2 runs" in ran("report", "before-")
    assert (kept / "before-20261125T031000Z-and-1-more.html").exists()


def test_it_is_written_where_one_says(kept: Path, tmp_path: Path) -> None:
    ran("report", "latest", "--out", str(tmp_path / "x.html"))
    assert (tmp_path / "x.html").exists()
    assert "No such file or directory" in refused("report", "-o", str(tmp_path / "no" / "x.html"))


def test_markdown_and_json_are_printed(kept: Path) -> None:
    assert ran("report", "--format", "markdown").startswith("## after-20261125T031500Z")
    assert json.loads(ran("report", "-f", "json"))["runs"][0]["id"] == "after-20261125T031500Z"
    assert not list(kept.glob("*.html"))


def test_what_cannot_be_shown_is_refused(kept: Path) -> None:
    assert "no such run or file" in refused("report", "nothing")
    assert "leave out --format" in refused("report", "-f", "json", "--open")
    assert "no such run or file" in refused("report", "--env", "production")


def test_open_hands_the_page_to_the_browser(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    ran("report", "--open")
    assert opened == [(kept / "after-20261125T031500Z.html").resolve().as_uri()]


def test_compare_prints_a_table_or_is_for_machines(kept: Path, tmp_path: Path) -> None:
    assert "too few runs to tell" in ran("compare", "before", "after")
    assert json.loads(ran("compare", "x=before", "after", "--json"))["labels"] == ["x", "after"]
    assert ran("compare", "before", "after", "--markdown").startswith("> ⚠️ too few runs")
    ran("compare", "original", "after", "--out", str(tmp_path / "c.md"))
    assert "| 752 |" in (tmp_path / "c.md").read_text(encoding="utf-8")
    assert "give one of the two" in refused("compare", "before", "after", "--json", "--markdown")
