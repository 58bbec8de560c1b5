"""The journal on the host: a line of JSON for each run, chained by hash. Pure.

Each line holds the SHA-256 of the line before it, so that a line changed, added or taken out in
the middle is noticed. Lines cut off the end are not: whoever needs that keeps the newest hash
elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FILE = "journal.jsonl"
FIRST = "0" * 64  # what the first line follows
_LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Journal:
    """A journal as it was read.

    Attributes:
        entries: the lines' values, oldest first, each with its number in the file as `line`.
        broken: what is wrong with the chain, and where; empty when it holds.
        torn: numbers of lines that a loss of power or a full disk cut short.
        head: SHA-256 of the last line; the next one has to hold it.
    """

    entries: list[dict[str, Any]]
    broken: list[str]
    torn: list[int]
    head: str

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Deploys and rollbacks, without what else is written down."""
        return [entry for entry in self.entries if entry.get("kind") == "run"]


def entry(kind: str, **values: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Text of a line before it is chained: ASCII, without a line break.

    Args:
        kind: `run`, `gate` or `maintenance`.
        values: by name; those that are None are left out.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return json.dumps({"kind": kind, **given}, separators=(",", ":"))


def append_command(root: str) -> str:
    """Shell command that chains the `entry` on its standard input to the journal.

    Line and file are on disk when it ends. A last line that was cut short is closed, and the new
    line says so.
    """
    return f"""set -eu; umask 077
f={shlex.quote(f"{root}/{FILE}")}
read -r entry || [ -n "$entry" ]
[ -d "${{f%/*}}" ] || mkdir -m 755 -p "${{f%/*}}"
exec 9>>"$f"
flock -w 10 9 || {{ echo "somebody else writes to $f" >&2; exit 1; }}
prev={FIRST}; close=; torn=
if [ -s "$f" ]; then
  [ "$(tail -c 1 "$f" | od -An -tx1)" = " 0a" ] || {{ close='\\n'; torn='"torn":true,'; }}
  prev=$(tail -n 1 "$f" | tr -d '\\n' | sha256sum | cut -c1-64)
fi
printf "$close"'{{"prev":"%s",%s%s\\n' "$prev" "$torn" "${{entry#?}}" >&9
sync "$f" "${{f%/*}}" """


def read(content: bytes) -> Journal:
    """Read a journal and follow its chain from the first line to the last."""
    lines = content.split(b"\n")
    unfinished = lines.pop()
    entries: list[dict[str, Any]] = []
    broken: list[str] = []
    torn: list[int] = []
    unexplained: list[int] = []
    before = FIRST
    for number, line in enumerate(lines, start=1):
        found = _parse(line)
        if found is None:
            unexplained.append(number)
        else:
            if found.get("torn"):
                torn += unexplained
                unexplained = []
            broken += [f"line {n} is not JSON" for n in unexplained]
            unexplained = []
            if found.get("prev") != before:
                broken.append(_gap(number))
            entries.append({**found, "line": number})
        before = hashlib.sha256(line).hexdigest()
    broken += [f"line {n} is not JSON" for n in unexplained]
    if unfinished:
        torn.append(len(lines) + 1)
        before = hashlib.sha256(unfinished).hexdigest()
    return Journal(entries, broken, torn, before)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _gap(number: int) -> str:
    if number == 1:
        return "line 1 is not the first one that was written"
    return (
        f"line {number} does not follow line {number - 1}: "
        f"line {number - 1} was changed, or lines between them were added or taken out"
    )


def who(variables: Mapping[str, str], user: str, machine: str) -> str:
    """Who deploys: a person and a machine, or the person that a pipeline runs for.

    Args:
        variables: the environment's variables.
        user: the account that runs this.
        machine: the name of the machine it runs on.
    """
    if actor := variables.get("GITHUB_ACTOR"):
        return f"{actor} by GitHub Actions"
    if actor := variables.get("GITLAB_USER_LOGIN"):
        return f"{actor} by GitLab CI"
    return f"{variables.get('SUDO_USER') or user}@{machine}"


def why(reason: str | None, variables: Mapping[str, str], subject: str) -> str:
    """Why a run is made: the reason that was given, else the newest commit's subject.

    Args:
        reason: of `--data reason="…"`.
        variables: the environment's variables; a pipeline's address is added.
        subject: first line of the checkout's newest commit; empty without git.
    """
    run = variables.get("CI_PIPELINE_URL", "")
    if "GITHUB_RUN_ID" in variables:
        server = variables.get("GITHUB_SERVER_URL", "https://github.com")
        repository = variables.get("GITHUB_REPOSITORY", "")
        run = f"{server}/{repository}/actions/runs/{variables['GITHUB_RUN_ID']}"
    words = reason or (f"commit: {subject}" if subject else "")
    printable = "".join(c if c.isprintable() else " " for c in words)[:_LONGEST]
    return "; ".join(part for part in (printable, run) if part)
