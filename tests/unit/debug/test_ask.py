"""Asking the database: what it answers, what it refuses, and texts that must not be shown."""

from __future__ import annotations

import pytest

from koprogo_deploy import remote
from koprogo_deploy.debug import ask
from koprogo_deploy.door import Environment
from koprogo_deploy.problems import Refusal
from tests import project

ENVIRONMENT = Environment(project.settings(), project.SECRETS, "host", {})


def answer(monkeypatch: pytest.MonkeyPatch, output: str) -> list[str]:
    """Make the host answer so; the commands it gets are kept."""
    commands: list[str] = []

    def run(environment: Environment, command: str, stdin: str = "") -> str:
        commands.append(command)
        return output

    monkeypatch.setattr(remote, "run", run)
    return commands


def test_each_query_gives_a_value_whatever_lines_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = answer(monkeypatch, '{"a": 1,\n "b": [2]}\n[\n  {}\n]\n"exit 3"\nexit 0\n')
    assert ask.ask(ENVIRONMENT, "SELECT 1") == [{"a": 1, "b": [2]}, [{}], "exit 3"]
    assert "-U koprogo_observer" in commands[0]
    assert "-U postgres" not in commands[0]


def test_what_the_server_warns_of_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an image with another C library, on each connect."""
    warning = (
        'WARNING:  database "koprogo_db" has a collation version mismatch\n'
        "DETAIL:  The database was created using collation version 2.36.\n"
        "HINT:  Rebuild all objects in this database.\n"
    )
    answer(monkeypatch, f'{warning}[{{"a": 1}}]\n"WARNING: not one"\nexit 0\n')
    assert ask.ask(ENVIRONMENT, "SELECT 1") == [[{"a": 1}], "WARNING: not one"]


@pytest.mark.parametrize(
    ("output", "fix"),
    [
        ('psql: error: FATAL:  role "koprogo_observer" does not exist', "deploy"),
        ("psql: error: FATAL:  no pg_hba.conf entry for host", "deploy"),
        ("Error response from daemon: container x is not running", "logs postgres"),
        ("ERROR:  canceling statement due to statement timeout", "locks"),
        ("psql: error: FATAL:  too many connections for role", "monitor"),
    ],
)
def test_what_the_database_refuses_is_said_in_its_words_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, output: str, fix: str
) -> None:
    answer(monkeypatch, f"{output}\nexit 2\n")
    with pytest.raises(Refusal) as refusal:
        ask.ask(ENVIRONMENT, "SELECT 1")
    assert output in str(refusal.value)
    assert fix in refusal.value.problems[0].fix


def test_no_answer_is_no_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "")
    with pytest.raises(Refusal, match="no answer"):
        ask.ask(ENVIRONMENT, "SELECT 1")


@pytest.mark.parametrize(
    ("text", "written"),
    [("small-0", "'small-0'"), ("L'Orée", "'L''Orée'"), ("\\'; DROP", "E'\\\\''; DROP'")],
)
def test_a_name_from_the_command_line_stays_a_text(text: str, written: str) -> None:
    assert ask.literal(text) == written


def test_a_text_has_no_nul() -> None:
    with pytest.raises(ValueError, match="NUL"):
        ask.literal("a\0b")


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT $1 FROM units WHERE id = $2", "SELECT $1 FROM units WHERE id = $2"),
        ("ALTER ROLE koprogo PASSWORD 'it''s a secret'", "ALTER ROLE koprogo PASSWORD '…'"),
        ("DO $$ BEGIN secret; END $$", "DO '…'"),
        ("DO $x$ secret $$ more $x$", "DO '…'"),
        ("SET a = E'secret'", "SET a = '…'"),
        ('SELECT "column" FROM t', 'SELECT "column" FROM t'),
    ],
)
def test_statements_are_shown_without_their_texts(sql: str, shown: str) -> None:
    assert ask.without_literals(sql) == shown


def test_a_statement_is_shown_on_one_line() -> None:
    assert ask.one_line("SELECT a,\n       b\n\tFROM t") == "SELECT a, b FROM t"
