"""The journal on the host: a line of JSON for each run, chained by hash. Pure.

Each line holds the SHA-256 of the line before it, so that a line changed, added or taken out in
the middle is noticed. That is all that the chain itself can show. It has no key: whoever is root on
the host may write the whole file anew, or cut its end off, and the chain holds. Such is found by a
head, the hash of the last line, that is kept elsewhere and is not in the chain any more. There are
two such places: each backup (off the host, where its repository is), and the output of each run.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FILE = "journal.jsonl"
FIRST = "0" * 64  # what the first line follows
RECOVER = "recover"  # the run that makes a host from a backup
_WELL = ("deployed", "done")
_LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Head:
    """The end of a journal as it was at some moment, to be kept where its host cannot reach.

    Attributes:
        first: SHA-256 of its first line: which journal it is.
        lines: how many lines it had.
        head: SHA-256 of the last one.
        where: where it was kept, and of when.
        at: the same moment, in seconds since 1970; 0 where nobody knows.
    """

    first: str
    lines: int
    head: str
    where: str = ""
    at: float = 0.0

    @property
    def comparable(self) -> bool:
        """Whether it says anything: one that was kept before there was a line does not."""
        return not self.first or self.lines > 0

    @property
    def tag(self) -> str:
        """For a backup."""
        return f"{_TAG}{self.first[:16]}:{self.lines}:{self.head}"


_TAG = "audit:"


def head_of(tags: Iterable[str], where: str, at: float = 0.0) -> Head | None:
    """The head that a backup's tags keep; None for one of before there were any."""
    for tag in tags:
        parts = tag.removeprefix(_TAG).split(":")
        if tag.startswith(_TAG) and len(parts) == 3 and parts[1].isdigit():
            return Head(parts[0], int(parts[1]), parts[2], where, at)
    return None


def _there(found: Journal, head: Head) -> bool:
    return any(each.startswith(head.head) for each in found.heads)


def _of_another(found: Journal, head: Head) -> bool:
    """Whether a head is not in a journal, and of one with another first line."""
    if not head.first or _there(found, head):
        return False
    return not (found.heads and found.heads[0].startswith(head.first))


def recovered(found: Journal) -> dict[str, Any] | None:
    """The line of the newest run that made this host from a backup of one before it."""
    made = (
        e for e in reversed(found.runs) if e.get("run") == RECOVER and e.get("outcome") in _WELL
    )
    return next(made, None)


def before_recovery(found: Journal, kept: Iterable[Head]) -> list[Head]:
    """Heads of a host before this one, kept before the journal says that this one was made of it.

    Pure. Root of the host can write that line as well: it has to be looked at, and what was kept
    after it is compared like anything else.
    """
    line = recovered(found)
    if line is None:
        return []
    until = datetime.fromisoformat(line["at"]).timestamp()
    others = (each for each in kept if each.comparable and _of_another(found, each))
    return [each for each in others if each.at and each.at < until]


def missing_heads(found: Journal, kept: Iterable[Head]) -> list[str]:
    """Which heads that were kept elsewhere are not in a journal any more, in words. Pure.

    One of a journal with another first line is told as such: of a host before this one, or of this
    one, whose journal was then begun anew; not where a recovery explains it.

    Args:
        found: as it is on the host.
        kept: from elsewhere. One without `first` may be the beginning of a hash.
    """
    kept = list(kept)
    explained = before_recovery(found, kept)
    told, others = [], []
    for each in kept:
        if not each.comparable or _there(found, each) or each in explained:
            continue
        if _of_another(found, each):
            others.append(each.where)
            continue
        cut = each.lines > len(found.heads)
        what = "that line was changed, or one before it"
        if cut:
            what = f"there were {each.lines} lines then, and there are {len(found.heads)}"
        line = f"line {each.lines}" if each.lines else "a line"
        told.append(f"{each.where} keeps {line} ({each.head[:16]}…), which is not there: {what}")
    if others:
        told.append(
            f"{len(others)} kept elsewhere ({others[-1]} the newest) are of a journal that began "
            "otherwise: of a host before this one, or this one's was begun anew"
        )
    return told


@dataclass(frozen=True)
class Compared:
    """What a journal's heads of elsewhere come to.

    Attributes:
        missing: what is wrong, in words; empty where nothing is.
        compared: how many were looked for.
        before: how many are of a host before this one, which a recovery explains.
        explained: that in words; empty where there are none.
    """

    missing: list[str]
    compared: int
    before: int
    explained: str


def compared(found: Journal, given: Sequence[Head], kept: Sequence[Head] | None) -> Compared:
    """Compare a journal with what was kept elsewhere. Pure.

    Args:
        found: as it is on the host.
        given: heads of runs' outputs.
        kept: what the backups keep; None where they were not asked.
    """
    before = before_recovery(found, kept or ())
    looked = [each for each in kept or () if each.comparable and each not in before]
    missing = missing_heads(found, [*given, *looked])
    if kept is not None and not looked:
        missing.append("no backup keeps a head of this journal yet, so nothing could be compared")
    line, words = recovered(found), ""
    if before and line:
        words = (
            f"{len(before)} kept elsewhere ({before[-1].where} the newest) are of a host before "
            f"this one: line {line['line']} says that {line.get('by', 'nobody')} recovered this "
            f"one on {line['at'][:16]}. Is that so?"
        )
    return Compared(missing, len(given) + len(looked), len(before), words)


@dataclass(frozen=True)
class Journal:
    """A journal as it was read.

    Attributes:
        entries: the lines' values, oldest first, each with its number in the file as `line`.
        broken: what is wrong with the chain, and where; empty when it holds.
        torn: numbers of lines that a loss of power or a full disk cut short.
        head: SHA-256 of the last line; the next one has to hold it.
        heads: the same of each line, oldest first: all heads that this file ever had.
    """

    entries: list[dict[str, Any]]
    broken: list[str]
    torn: list[int]
    head: str
    heads: tuple[str, ...] = ()

    @property
    def kept_head(self) -> Head:
        """What is kept elsewhere of it."""
        return Head(self.heads[0] if self.heads else FIRST, len(self.heads), self.head)

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
    line says so. Prints `head`, how many lines there are, and the hash of the last one.
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
sync "$f" "${{f%/*}}"
printf 'head\t%s\t%s\n' "$(wc -l < "$f")" "$(tail -n 1 "$f" | tr -d '\n' | sha256sum | cut -c1-64)"
"""


def written(output: str) -> tuple[int, str]:
    """Number of lines and head, of what `append_command` prints.

    Raises:
        ValueError: it says neither.
    """
    for line in output.splitlines():
        key, *values = line.split("\t")
        if key == "head" and len(values) == 2:
            return int(values[0]), values[1]
    raise ValueError("the host did not say which head its journal has now")


def read(content: bytes) -> Journal:
    """Read a journal and follow its chain from the first line to the last."""
    lines = content.split(b"\n")
    unfinished = lines.pop()
    entries: list[dict[str, Any]] = []
    broken: list[str] = []
    torn: list[int] = []
    unexplained: list[int] = []
    heads: list[str] = []
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
        heads.append(before)
    broken += [f"line {n} is not JSON" for n in unexplained]
    if unfinished:
        torn.append(len(lines) + 1)
        before = hashlib.sha256(unfinished).hexdigest()
        heads.append(before)
    return Journal(entries, broken, torn, before, tuple(heads))


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
