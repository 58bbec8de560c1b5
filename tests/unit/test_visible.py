"""Foreign text: what a terminal, a log of a pipeline or a browser would act on is spelled out."""

from __future__ import annotations

import ast
import io
import json
import logging
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from koprogo_deploy import door, journal, status
from koprogo_deploy.cli import releases
from koprogo_deploy.debug import logs, show
from koprogo_deploy.operations.visibly import Visible
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import Screen
from koprogo_deploy.visible import beside_colours, everywhere, in_json, quoted, visible

# An escape to the clipboard, a C1 control, a mark that turns a line, tags, commands of a pipeline.
NASTY = (
    "\x1b]52;c;ZXZpbA==\x07", "\x9b31m", "a\u202eb", "\u2066x\u2069", "\u200b", "\U000e0041",
    "\x7f", "\x00", "\r over", "\u2028", "\ud800", "\u3164", "[/x]", "[red]", "[/]",
    "::add-mask::x", "  ::stop-commands::t", "a ::error file=x,line=1::m", "##[group]", "##vso[x]y",
)  # fmt: skip
foreign = st.one_of(
    st.text(st.characters(), max_size=40), st.lists(st.sampled_from(NASTY)).map("".join)
)


def acts(text: str) -> bool:
    """Whether something reads it as more than characters; written apart from what is tested."""
    bad = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
    if any(unicodedata.category(c) in bad for c in text if c not in "\n\t"):
        return True
    for line in text.splitlines():
        head, _, rest = line.lstrip().partition("::")
        if not head and rest[:1].isascii() and rest[:1].isalpha():
            return True
    return "##[" in text or "##vso[" in text


@settings(max_examples=60, deadline=None)
@given(foreign)
@example("\r\n")
@example("a\u00a0b\u202fc é ⚠️ – …")
def test_nothing_acts_and_twice_is_once(text: str) -> None:
    for lines in (False, True):
        shown = visible(text, lines=lines)
        assert not acts(shown)
        assert visible(shown, lines=lines) == shown
        shown.encode()
    assert "\n" not in visible(text)
    assert visible(text, lines=True).count("\n") == text.count("\n")


def test_what_people_write_stays() -> None:
    for text in (
        "Élodie Müller, 3 × 4 m² – “5 %” …", "1\u202f234,50\u00a0€", "⚠️ ✓ ▲", "\\x1b", "[::1]:443",
        "koprogo::handlers::auth: 200", "::1", "::/0", "see #[x]", "a:: b",
    ):  # fmt: skip
        assert visible(text) == text


def test_it_is_spelled_so_that_it_can_be_found() -> None:
    assert visible("\x1b[2J\u202e\U000e0001\r\n") == "\\x1b[2J\\u202e\\U000e0001\\r\\n"
    assert visible("  ::error::x") == "  \\x3a:error::x"
    assert quoted("one\n::error::\x1b") == "| one\n| \\x3a:error::\\x1b"
    own = "\x1b[31mhost\x1b[0m \x1b[8mhidden\x1b]52;c;x\x07"
    assert beside_colours(own) == "\x1b[31mhost\x1b[0m \\x1b[8mhidden\\x1b]52;c;x\\x07"


@settings(max_examples=60, deadline=None)
@given(st.recursive(foreign | st.integers(), lambda each: st.lists(each) | st.dictionaries(
    foreign, each), max_leaves=5))  # fmt: skip
def test_json_means_the_same_and_shows_it(value: Any) -> None:
    text = in_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn") for c in text)
    assert not acts(json.dumps(everywhere(value), ensure_ascii=False).replace("\\n", " "))


def printed(*things: Any, **options: Any) -> str:
    stream = io.StringIO()
    screen = Screen(file=stream, width=200, **options)
    for each in things:
        screen.print(each)
    return stream.getvalue()


@settings(max_examples=60, deadline=None)
@given(foreign)
def test_a_screen_shows_whatever_it_is_given(text: str) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    table.add_row(Text(text, "red"))
    out = printed(text, Text(text), table)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in out if c not in "\n\t")


def test_a_screen_keeps_its_own_colours() -> None:
    assert printed(Text("\x1b[2Jx", "red"), force_terminal=True) == "\x1b[31m\\x1b[2Jx\x1b[0m\n"


def nasty_journal(word: str) -> journal.Journal:
    line = journal.entry(
        "run", at=word, run=word, outcome=word, release=word, by=word, why=word, reason=word,
        step=word, seconds=1.0,
    )  # fmt: skip
    entries = [json.loads(line)]
    return journal.Journal(entries, [word], [], journal.FIRST)


@pytest.mark.parametrize("word", NASTY)
def test_history_and_status_show_it_and_take_no_tag(word: str) -> None:
    stream = io.StringIO()
    screen = Screen(file=stream, width=400)
    releases.show_history(screen, nasty_journal(word), 20)
    found: dict[str, Any] = {
        "asked": True, "outside": [{"name": word, "path": "/", "problem": word, "days": None}],
        "well": False, "problems": [word], "advice": [word], "notes": [word], "release": word,
        "since": {"at": "2026-01-01T00:00:00+00:00", "by": word, "why": word}, "last": None,
        "running": word, "data": {}, "disk": {"free": 1, "size": 2, "at": word},
        "services": {
            "backend": {
                "state": word, "health": word, "up": None, "wrong": word, "image": word,
                "asked": word, "colour": word,
            }
        },
        "kept": [{"id": word, "made": word, "by": word, "bad": word}],
    }  # fmt: skip
    releases.show_status(screen, word, found)
    shown = visible(word)
    assert stream.getvalue().count(shown.strip()) >= 10
    assert not any(acts(line) for line in stream.getvalue().splitlines())


@pytest.mark.parametrize("word", NASTY)
def test_a_containers_lines_stand_behind_a_bar(word: str) -> None:
    entry = logs.Entry(datetime.now(UTC), "backend-blue", "info", word, more=[word])
    out = printed(*show.log_entry(entry))
    head, more = out.splitlines()
    assert more.lstrip().startswith("| ")
    assert not acts(out)
    assert head


@pytest.mark.parametrize("word", NASTY)
def test_a_refusal_shows_what_a_host_said(word: str) -> None:
    text = str(Refusal("Host", [Problem("ssh", word, word)]))
    assert not acts(text)
    assert visible(word).strip() in text


@pytest.mark.parametrize("word", NASTY)
def test_a_runs_log_shows_what_a_host_said(word: str) -> None:
    record = logging.LogRecord("pyinfra", 20, "", 1, "    %s %d %s", (word, 3, OSError(word)), None)
    assert Visible().filter(record)
    assert not acts(record.getMessage())
    plain = logging.LogRecord("pyinfra", 20, "", 1, f"\x1b[31m[host]\x1b[0m {word}", (), None)
    Visible().filter(plain)
    assert not acts(plain.getMessage().replace("\x1b[31m", "").replace("\x1b[0m", ""))


def test_status_is_not_forged_by_a_line_break() -> None:
    trouble = status.Trouble("one\n  all is well", "do")
    assert visible(trouble.what) == "one\\n  all is well"


# Programs that run on the host and print for us to read.
ON_HOST = ("on_host/", "data/", "monitor/probe/", "debug/on_host.py", "facts/details.py")


def writes(node: ast.AST) -> str:
    """What a call writes to a terminal with, past `screen`; empty if it does not."""
    if not isinstance(node, ast.Call):
        return ""
    name = ast.unparse(node.func)
    if name in ("print", "Console", "rich.print") or name.endswith((".echo", ".secho")):
        return name
    return name if name.endswith(("stdout.write", "stderr.write", "buffer.write")) else ""


def test_every_way_to_a_terminal_goes_through_the_screen() -> None:
    root = door.ROOT / "koprogo_deploy"
    found = [
        f"{path.relative_to(root)}:{node.lineno}: {name}"  # type: ignore[attr-defined]
        for path in sorted(root.rglob("*.py"))
        if not str(path.relative_to(root)).startswith((*ON_HOST, "screen.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if (name := writes(node))
    ]
    # The one that pyinfra's own output passes through.
    assert [each.partition(":")[0] for each in found] == ["operations/visibly.py"]


@pytest.mark.parametrize(
    "line",
    [
        "print(x)", "typer.echo(x)", "sys.stderr.write(x)", "Console()", "click.secho(x)",
        "sys.stdout.buffer.write(x)",
    ],
)  # fmt: skip
def test_the_walk_sees_such_a_way(line: str) -> None:
    assert any(writes(node) for node in ast.walk(ast.parse(line)))


def test_every_log_of_a_container_that_a_run_shows_stands_behind_a_bar() -> None:
    root = door.ROOT / "koprogo_deploy" / "operations"
    lines = [line for path in root.glob("*.py") for line in path.read_text().splitlines()]
    shown = [line for line in lines if "docker logs --tail" in line]
    assert len(shown) == 3
    assert all("sed 's/^/    | /' >&2" in line for line in shown)


def test_pages_are_rendered_visibly(tmp_path: Path) -> None:
    from koprogo_deploy.dashboard import app
    from koprogo_deploy.report import page

    for jinja in (app._templates, page._jinja()):
        template = jinja.from_string("{{ word }}|{{ mark }}")
        from markupsafe import Markup

        assert template.render(word="<\u202e\x1b", mark=Markup("<b>")) == "&lt;\\u202e\\x1b|<b>"
