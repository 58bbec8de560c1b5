"""Ask the database as the read-only observer, over SSH: one script in, lines of JSON out."""

from __future__ import annotations

import json
import re
from typing import Any

from koprogo_deploy import remote
from koprogo_deploy.door import Environment
from koprogo_deploy.operations.shell import observer_psql
from koprogo_deploy.problems import Problem, Refusal

# psql's standard error is in the answer, too: say of a collation's new version, on each connect.
_WARNING = re.compile(r"\A(?:(?:psql: )?(?:WARNING|NOTICE|DETAIL|HINT|LOG): .*\n)+")
_LITERAL = re.compile(r"E?'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL | re.IGNORECASE)


def ask(environment: Environment, script: str) -> list[Any]:
    """What the queries of a psql script give: each prints one JSON value.

    Raises:
        Refusal: the host cannot be reached, or the database refuses; with its own words.
    """
    # Both streams and the exit code in one answer: ssh's own failures stay told apart.
    command = f'sudo -n {observer_psql()} 2>&1; echo "exit $?"'
    output, _, code = remote.run(environment, command, script).rstrip().rpartition("exit ")
    if code != "0":
        raise Refusal(f"Database on {environment.host}", [_problem(output)])
    return [json.loads(value) for value in _values(output)]


def _values(output: str) -> list[str]:
    # json_agg and EXPLAIN break lines inside a value; a value of ours begins at a line's start.
    decoder, values, rest = json.JSONDecoder(), [], _WARNING.sub("", output).strip()
    while rest:
        _, end = decoder.raw_decode(rest)
        values.append(rest[:end])
        rest = rest[end:].strip()
    return values


def _problem(output: str) -> Problem:
    said = next((line for line in output.splitlines() if re.search("ERROR|FATAL|rror", line)), "")
    fix = ""
    if re.search(r"role .* does not exist|no pg_hba.conf entry|Peer authentication", output):
        fix = "the role comes with a deploy: pyinfra inventories/… deploys/full.py"
    elif "pg_stat_statements" in output:
        fix = "the extension comes with a deploy: pyinfra inventories/… deploys/full.py"
    elif "is not running" in output or "No such container" in output:
        fix = "Postgres does not run: koprogo debug logs postgres"
    elif "statement timeout" in output or "lock timeout" in output:
        fix = "it took too long and was cut off, so as not to be a burden: koprogo debug locks"
    elif "too many connections" in output:
        fix = "other sessions of the observer are open: a koprogo monitor, or one that hangs"
    return Problem("koprogo_observer", said.strip() or output.strip() or "no answer", fix)


def literal(text: str) -> str:
    """A text as an SQL literal.

    Raises:
        ValueError: it holds a NUL, which no text of Postgres does.
    """
    if "\0" in text:
        raise ValueError("a text with a NUL")
    quoted = "'" + text.replace("'", "''") + "'"
    return f"E{quoted.replace(chr(92), chr(92) * 2)}" if "\\" in text else quoted


def without_literals(sql: str) -> str:
    """SQL without the texts in it: they may be people's data, or a password.

    pg_stat_statements keeps the constants of utility statements, such as ALTER ROLE … PASSWORD.
    """
    return _LITERAL.sub("'…'", sql)


def one_line(sql: str) -> str:
    """SQL on one line, without its comments' and indentation's white space, and without texts."""
    return " ".join(without_literals(sql).split())
