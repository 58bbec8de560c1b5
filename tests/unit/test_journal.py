"""The journal: each line follows the one before it, and nobody can pretend otherwise."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FunctionCommand, StringCommand

from koprogo_deploy import direct, journal
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.operations import context, record, step
from koprogo_deploy.pyinfra_adapter import commands
from koprogo_deploy.pyinfra_adapter.events import Step
from tests import project


def append(root: Path, **values: object) -> None:
    subprocess.run(
        ["sh", "-c", journal.append_command(str(root))],
        input=journal.entry("run", **values),
        text=True,
        check=True,
        timeout=20,
    )


def file(root: Path) -> Path:
    return root / journal.FILE


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for number in range(4):
        append(tmp_path, number=number, why='quoted "é\\n" and $HOME, %s')
    return tmp_path


def test_lines_are_chained_by_hash_and_readable_by_root_alone(written: Path) -> None:
    lines = file(written).read_bytes().splitlines()
    found = journal.read(file(written).read_bytes())
    assert [entry["number"] for entry in found.entries] == [0, 1, 2, 3]
    assert found.entries[0]["why"] == 'quoted "é\\n" and $HOME, %s'
    assert found.entries[0]["prev"] == journal.FIRST
    assert found.entries[2]["prev"] == hashlib.sha256(lines[1]).hexdigest()
    assert found.head == hashlib.sha256(lines[3]).hexdigest()
    assert (found.broken, found.torn) == ([], [])
    assert file(written).stat().st_mode & 0o777 == 0o600


def test_an_empty_journal_is_whole() -> None:
    assert journal.read(b"") == journal.Journal([], [], [], journal.FIRST)


def test_a_changed_line_is_told_by_the_one_after_it(written: Path) -> None:
    content = file(written).read_bytes()
    found = journal.read(content.replace(b'"number":1', b'"number":7'))
    assert len(found.broken) == 1
    assert "line 3 does not follow line 2: line 2 was changed" in found.broken[0]


def test_a_line_taken_out_leaves_a_gap(written: Path) -> None:
    lines = file(written).read_bytes().splitlines(keepends=True)
    assert (
        "line 3 does not follow line 2" in journal.read(b"".join(lines[:2] + lines[3:])).broken[0]
    )
    assert journal.read(b"".join(lines[1:])).broken == [
        "line 1 is not the first one that was written"
    ]
    assert len(journal.read(b"".join([lines[0], lines[2], lines[1], lines[3]])).broken) == 3


def test_a_line_that_is_no_json_breaks_the_chain(written: Path) -> None:
    lines = file(written).read_bytes().splitlines(keepends=True)
    found = journal.read(b"".join([*lines[:2], b"\0\0\xff\n", *lines[2:]]))
    assert found.broken[0] == "line 3 is not JSON"
    assert len(found.broken) == 2


@pytest.mark.parametrize("rest", [b'{"prev":"12', b"\0\0\0\0", b"\xff"])
def test_a_torn_last_line_is_told_and_closed_by_the_next(written: Path, rest: bytes) -> None:
    with file(written).open("ab") as stream:
        stream.write(rest)
    found = journal.read(file(written).read_bytes())
    assert (found.broken, found.torn, len(found.entries)) == ([], [5], 4)
    append(written, number=5)
    append(written, number=6)
    found = journal.read(file(written).read_bytes())
    assert found.broken == []
    assert [entry["number"] for entry in found.entries if "number" in entry][-2:] == [5, 6]
    assert found.torn == [5]


def test_a_line_that_lacks_nothing_but_its_end_counts(written: Path) -> None:
    file(written).write_bytes(file(written).read_bytes().rstrip(b"\n"))
    append(written, number=4)
    found = journal.read(file(written).read_bytes())
    assert (found.broken, found.torn) == ([], [])
    assert [entry["number"] for entry in found.entries] == [0, 1, 2, 3, 4]


def test_a_torn_line_excuses_no_gap(written: Path) -> None:
    with file(written).open("ab") as stream:
        stream.write(b'{"prev":"12')
    append(written, number=5)
    lines = file(written).read_bytes().splitlines(keepends=True)
    assert journal.read(b"".join(lines[:4] + lines[5:])).broken != []


def test_many_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    command = ["sh", "-c", journal.append_command(str(tmp_path))]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(8)]
    for number, writer in enumerate(writers):
        assert writer.stdin
        writer.stdin.write(journal.entry("gate", number=number, padding="x" * 3000))
        writer.stdin.close()
    assert [writer.wait(20) for writer in writers] == [0] * 8
    found = journal.read(file(tmp_path).read_bytes())
    assert sorted(entry["number"] for entry in found.entries) == list(range(8))
    assert found.broken == []


def test_what_is_none_is_left_out() -> None:
    assert json.loads(journal.entry("run", why=None, by="a")) == {"kind": "run", "by": "a"}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "anna@laptop"),
        ({"SUDO_USER": "bert"}, "bert@laptop"),
        ({"GITHUB_ACTOR": "carl", "SUDO_USER": "x"}, "carl by GitHub Actions"),
        ({"GITLAB_USER_LOGIN": "dora"}, "dora by GitLab CI"),
    ],
)
def test_who(variables: dict[str, str], told: str) -> None:
    assert journal.who(variables, "anna", "laptop") == told


def test_why() -> None:
    actions = {"GITHUB_RUN_ID": "7", "GITHUB_REPOSITORY": "a/b"}
    assert journal.why(None, {}, "") == ""
    assert journal.why(None, {}, "Mend it") == "commit: Mend it"
    assert journal.why("because\nof this", {}, "Mend it") == "because of this"
    url = "https://github.com/a/b/actions/runs/7"
    assert journal.why(None, actions, "Mend it") == f"commit: Mend it; {url}"
    assert journal.why("x" * 999, {}, "") == "x" * 300


def test_outcome() -> None:
    def serving(current: str, candidate: str = "", dynamic: str = "") -> StackState:
        two = ({"id": i, "dynamic": i} if i else None for i in (current, candidate))
        return StackState(current=next(two), candidate=next(two), dynamic=dynamic or current)

    nothing, one, two = StackState(), serving("r1"), serving("r2")
    assert record.outcome(one, two, back=False) == "deployed"
    assert record.outcome(nothing, one, back=False) == "deployed"
    assert record.outcome(one, one, back=False) == "done"
    assert record.outcome(nothing, nothing, back=False) == "done"
    assert record.outcome(two, one, back=True) == "rolled back"
    assert record.outcome(one, one, back=True) == "done"
    cut_after_the_switch = serving("r1", "r2", "r2")
    assert record.outcome(cut_after_the_switch, two, back=False) == "deployed"
    assert record.outcome(cut_after_the_switch, one, back=True) == "rolled back"


# --- a run that failed ---------------------------------------------------------------------------


class Failed:
    """A run that failed on a host, and the line that it writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.applied = "1:true"
        self.lines: list[dict[str, Any]] = []
        self.found = StackState(
            current={"id": "r1", "dynamic": "d1", "images": {}, "settings": "s"},
            dynamic="d1",
            migrations={"r1": ["1_a.sql"]},
        )
        environment = SimpleNamespace(settings=project.settings(), secrets=project.SECRETS)
        monkeypatch.setattr(context, "current", lambda: environment)
        monkeypatch.setattr(record, "look", lambda *_, **__: {"migrations": self.applied})
        monkeypatch.setattr(record, "stack", lambda _: self.found)
        monkeypatch.setattr(record, "host", SimpleNamespace(run_shell_command=self.run, name="h"))
        monkeypatch.setattr(record.Recorder, "steps", [])
        monkeypatch.setattr(record.Recorder, "notes", {})
        self.said: list[str] = []
        monkeypatch.setattr(record, "said", self.said)

    def run(self, _: object, _stdin: str) -> tuple[bool, None]:
        self.lines.append(json.loads(_stdin))
        return True, None

    @property
    def line(self) -> dict[str, Any]:
        named = SimpleNamespace(names=["Migrate | Start the backend"])
        run = SimpleNamespace(get_op_meta=lambda _: named)
        record.Recorder().step_failed(Step(run, "hash"), None)
        return self.lines[-1]


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> Failed:
    return Failed(monkeypatch)


def test_what_serves_and_would_not_start_again_is_told_with_the_two_ways(failed: Failed) -> None:
    assert "cannot_restart" not in failed.line
    failed.applied = "1:true 2:true"
    told = failed.line["cannot_restart"]
    assert told.startswith("the database has 1 migration(s) that release r1 lacks (2): it serves")
    assert "(1) an image that has these migrations" in told
    assert "production.py deploys/rollback.py --data release=r1 says what" in told
    failed.found = StackState()
    assert "cannot_restart" not in failed.line, "nothing serves"


def test_the_line_is_written_also_where_the_database_cannot_be_asked(
    failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(*_: object, **__: object) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(record, "look", hangs)
    assert failed.line["outcome"] == "failed"


def test_many_migrations_are_counted_and_a_few_named() -> None:
    told = direct.lacks("r1", ["2", "3", "4", "5"])
    assert "has 4 migration(s) that release r1 lacks (2, 3, 4 …)" in told
    assert direct.lacks("r1", []) == ""


def test_why_a_command_failed_is_in_its_line_without_a_secret(failed: Failed) -> None:
    assert "reason" not in failed.line
    secret = project.SECRETS["SEED_PASSWORD"]
    failed.said.append(f"backend-green did not come up: {secret}\nmore")
    assert failed.line["reason"] == "backend-green did not come up: (secret)"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], ""),
        (["", "  "], ""),
        (
            [
                "backend-green did not come up: its container is: exited. Last lines of its log:",
                "    boom",
                "release r2 gets no traffic and is marked as bad; r1 serves",
            ],
            "backend-green did not come up: its container is: exited",
        ),
        (
            ['time="…" level=warning msg="x"', "Error response from daemon: manifest unknown"],
            "Error response from daemon: manifest unknown",
        ),
        (["    no room: 1 MB free", "    of 2 MB"], "of 2 MB"),
        (["x" * 999], "x" * 300 + "…"),
    ],
)
def test_why_a_command_failed_is_what_it_says_first(lines: list[str], why: str) -> None:
    assert step.why_failed(lines) == why


@pytest.mark.parametrize("command", [" false ", StringCommand("false", _stdin="x")])
def test_what_a_failing_command_says_is_heard_and_nothing_else_of_it_is_other(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(step, "said", heard)
    ran: list[Any] = []

    def run(command: StringCommand, **how: Any) -> tuple[bool, Any]:
        ran.append((command.get_raw_value(), how.get("_stdin")))
        return len(ran) > 1, SimpleNamespace(stderr_lines=["no space left"])

    state = SimpleNamespace(print_output=False, print_input=False)
    for _ in range(2):
        commands.heard(command, step._note).execute(
            state, SimpleNamespace(run_shell_command=run), {}
        )
    assert heard == ["no space left"], "one that succeeds says nothing"
    stdin = None if isinstance(command, str) else "x"
    assert ran == [("false", stdin)] * 2
    other = FunctionCommand(print, [], {})
    assert commands.heard(other, step._note) is other


# --- heads that are kept elsewhere ---------------------------------------------------------------


def kept(root: Path, where: str = "backup b") -> journal.Head:
    """As a backup keeps it, and as it comes back from the backup's tags."""
    tag = journal.read(file(root).read_bytes()).kept_head.tag
    head = journal.head_of(["koprogo", "release:r1", tag], where)
    assert head is not None
    return head


def rewritten(lines: list[bytes], **changes: str) -> bytes:
    """What root of the host can make: all of it chained anew, and the chain holds."""
    before, content = journal.FIRST, b""
    for line in lines:
        values = {**json.loads(line), "prev": before, **changes}
        text = json.dumps(values, separators=(",", ":")).encode()
        before = hashlib.sha256(text).hexdigest()
        content += text + b"\n"
    assert journal.read(content).broken == []
    return content


def test_a_head_that_was_kept_is_in_a_journal_that_went_on(written: Path) -> None:
    heads = [kept(written)]
    append(written, number=4)
    found = journal.read(file(written).read_bytes())
    assert journal.missing_heads(found, [*heads, kept(written)]) == []
    assert journal.missing_heads(found, [journal.Head("", 0, found.head[:32])]) == []


def test_a_tail_that_was_cut_and_a_tail_that_was_written_anew_are_found(written: Path) -> None:
    head = kept(written)
    lines = file(written).read_bytes().splitlines(keepends=True)
    cut = journal.read(b"".join(lines[:3]))
    assert cut.broken == [], "its chain cannot show it"
    [told] = journal.missing_heads(cut, [head])
    assert told.startswith("backup b keeps line 4 (")
    assert told.endswith("there were 4 lines then, and there are 3")
    more = journal.read(rewritten([*lines[:3], lines[0], lines[0]]))
    [told] = journal.missing_heads(more, [head])
    assert "journal that began otherwise" in told or "was changed" in told
    file(written).write_bytes(b"".join(lines[:3]))
    append(written, number=9)
    [told] = journal.missing_heads(journal.read(file(written).read_bytes()), [head])
    assert told.endswith("that line was changed, or one before it")


def test_a_journal_that_was_begun_anew_is_told_as_such(written: Path) -> None:
    head = kept(written)
    lines = file(written).read_bytes().splitlines()
    anew = journal.read(rewritten(lines, by="nobody"))
    [told] = journal.missing_heads(anew, [head, head])
    assert told.startswith("2 kept elsewhere (backup b the newest) are of a journal that began")
    assert journal.missing_heads(journal.read(b""), [head]) != []


def test_what_an_older_or_an_empty_host_kept_is_no_head(tmp_path: Path) -> None:
    assert journal.head_of(["koprogo", "release:r1", "audit:x", "audit:a:b:c"], "b") is None
    empty = journal.head_of([journal.read(b"").kept_head.tag], "b")
    assert empty is not None
    append(tmp_path, number=1)
    assert journal.missing_heads(journal.read(file(tmp_path).read_bytes()), [empty]) == []


def test_whoever_appends_is_told_the_new_head(written: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", journal.append_command(str(written))],
        input=journal.entry("run", number=4), text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = journal.read(file(written).read_bytes())
    assert journal.written(f"sudo: a warning\n{done.stdout}") == (5, found.head)
    with pytest.raises(ValueError, match="did not say"):
        journal.written("")


def test_a_head_that_was_given_does_not_stand_for_the_backups(written: Path) -> None:
    found = journal.read(file(written).read_bytes())
    given = [journal.Head("", 0, found.head, "the run whose head was given")]
    empty = journal.Head(journal.FIRST[:16], 0, journal.FIRST, "the first backup")
    assert journal.compared(found, given, None) == journal.Compared([], 1, 0, "")
    for kept_by_backups in ([], [empty]):
        seen = journal.compared(found, given, kept_by_backups)
        assert seen.compared == 1, "a head of before the first line compares with nothing"
        assert seen.missing == [
            "no backup keeps a head of this journal yet, so nothing could be compared"
        ]
    assert journal.compared(found, given, [empty, kept(written)]).compared == 2


def test_what_a_host_before_this_one_kept_is_explained_by_its_recovery(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for root in (old, new):
        root.mkdir()
    append(old, number=1)
    append(new, run="recover", at="2026-01-02T00:00:00+00:00", by="anna", outcome="deployed")
    found = journal.read(file(new).read_bytes())
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    before = replace(kept(old, "backup a of 2026-01-01"), at=noon)
    seen = journal.compared(found, [], [before, kept(new)])
    assert (seen.missing, seen.compared, seen.before) == ([], 1, 1)
    assert seen.explained == (
        "1 kept elsewhere (backup a of 2026-01-01 the newest) are of a host before this one: "
        "line 1 says that anna recovered this one on 2026-01-02T00:00. Is that so?"
    )
    # Nothing of its own was kept yet.
    assert "nothing could be compared" in journal.compared(found, [], [before]).missing[0]
    later = replace(before, at=noon + 86400)
    assert "began otherwise" in journal.compared(found, [], [later, kept(new)]).missing[0]
    deployed = journal.read(rewritten(file(new).read_bytes().splitlines(), run="full"))
    assert "began otherwise" in journal.compared(deployed, [], [before]).missing[0]
