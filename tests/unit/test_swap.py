"""What is restored and what is live change places: whole, whatever fails or is cut, and once."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from koprogo_deploy.data import backup, live
from koprogo_deploy.data.host import DATABASE, MB, SWAP, UPGRADE, Config, Failed

BLUE = "koprogo-backend-blue-1"
LIVE, RESTORED = "the live data", "the backup's data"


ALIVE = 1_000_000


class Cut(BaseException):
    """The host loses its power, or the command is killed."""


class Host:
    """Postgres' databases and the containers; the uploads' directories are real ones.

    `dies` at so many commands from now; `fails` those that it says yes to.
    """

    def __init__(self, root: Path) -> None:
        self.config = Config(root, "production", 192 * MB)
        self.volume = root / "volumes" / "_data"
        self.databases = {DATABASE: LIVE}
        self.closed: set[str] = set()  # databases that allow no connection
        self.containers = {BLUE: "running"}
        self.ran: list[str] = []
        self.dies = ALIVE
        self.fails: Callable[[str], bool] = lambda _line: False
        (root / "data").mkdir()
        self.uploads(self.volume, LIVE)
        (root / "current").mkdir()
        self.serves("blue")

    def serves(self, colour: str) -> None:
        told = json.dumps({"colours": {"backend": colour}})
        (self.config.root / "current/manifest.json").write_text(told)

    def uploads(self, directory: Path, content: str) -> None:
        directory.mkdir(parents=True)
        (directory / "file").write_text(content)

    def restored(self, name: str = live.NEW, content: str = RESTORED) -> None:
        """As `prepare` leaves it."""
        self.databases[name] = content
        self.uploads(self.volume.parent / name, content)
        (self.config.root / live.COMPARED).touch()

    def swap_is_cut(self, at: int, before: str = "") -> None:
        """At its so manieth command."""
        self.dies = at
        with pytest.raises(Cut):
            live.swap(self.config, before)
        self.dies = ALIVE

    def step(self, line: str) -> None:
        self.ran.append(line)
        self.dies -= 1
        if self.dies <= 0:  # and nothing that cleans up gets through
            raise Cut
        if self.fails(line):
            raise Failed(f"{line.split()[0]} failed")

    def run(self, *command: str) -> str:
        self.step(" ".join(command))
        match command[1], command[-1]:
            case "stop", _:
                self.containers |= {n: "exited" for n in command if n in self.containers}
            case "start", _:
                for name in command[2:]:
                    if name not in self.containers:
                        raise Failed(f"no such container: {name}")
                    self.containers[name] = "running"
            case "ps", _:
                every = "-a" in command
                return "\n".join(n for n, s in self.containers.items() if every or s == "running")
        return ""

    def sql(self, _container: str, text: str, _database: str) -> str:
        self.step(f"sql {' '.join(text.split())[:60]}")
        if text == live._LIST:
            return json.dumps([[n, 10] for n in sorted(self.databases) if n != DATABASE])
        for name, allowed in re.findall(r'DATABASE "(\w+)" ALLOW_CONNECTIONS (\w+)', text):
            (self.closed.discard if allowed == "true" else self.closed.add)(name)
        if "RENAME" in text:
            self.step("sql RENAME")  # what was before it is done
        for name, new in re.findall(r'DATABASE "(\w+)" RENAME TO "(\w+)"', text):
            self.databases[new] = self.databases.pop(name)
            if name in self.closed:
                self.closed = self.closed - {name} | {new}
        for name in re.findall(r'DROP DATABASE "(\w+)"', text):
            del self.databases[name]
        return ""

    def held(self) -> dict[str, str]:
        """Content of each database, which is that of the uploads of its name."""
        names = {d.name: (d / "file").read_text() for d in self.volume.parent.iterdir()}
        assert names == {("_data" if n == DATABASE else n): c for n, c in self.databases.items()}
        assert self.closed == set()
        assert not (self.config.root / SWAP).exists()
        return dict(self.databases)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(live, "run", made.run)
    monkeypatch.setattr(live, "sql", made.sql)
    monkeypatch.setattr(live, "until_healthy", lambda names: made.step(f"healthy {names}"))
    monkeypatch.setattr(live, "sync", lambda _path: None)
    monkeypatch.setattr(backup, "volume", lambda: made.volume)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    seconds = itertools.count()  # no two swaps are of one second
    monkeypatch.setattr(live, "old_name", lambda _now: f"{live.OLD}20260102t{next(seconds):06}")
    return made


def test_what_was_restored_serves_and_what_served_is_kept_and_back_again(host: Host) -> None:
    host.restored()
    old = live.swap(host.config)["old"]
    assert host.held() == {DATABASE: RESTORED, old: LIVE}
    assert host.containers == {BLUE: "running"}
    live.swap(host.config, before=live.NEWEST)
    assert host.held()[DATABASE] == LIVE
    assert live.drop_old(host.config)["dropped"]
    assert host.held() == {DATABASE: LIVE}


def test_only_what_was_compared_serves(host: Host) -> None:
    host.restored()
    (host.config.root / live.COMPARED).unlink()
    with pytest.raises(Failed, match="nothing is restored beside what is live, and compared"):
        live.swap(host.config)
    assert host.held()[DATABASE] == LIVE


def test_a_swap_that_is_cut_at_any_step_is_over_after_the_next_command(
    tmp_path: Path, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever database is live then, its own uploads are, and the other one is kept."""
    host.restored()
    live.swap(host.config)
    outcomes = set()
    for step in range(1, len(host.ran) + 1):
        shutil.rmtree(host.volume.parent)
        host.uploads(host.volume, LIVE)
        host.databases, host.ran = {DATABASE: LIVE}, []
        host.restored()
        host.swap_is_cut(step)
        began = (host.config.root / SWAP).exists()
        renamed = host.databases[DATABASE] == RESTORED
        assert (live.finish(host.config) is not None) == began
        found = host.held()
        assert sorted(found.values()) == sorted([LIVE, RESTORED])
        assert (found[DATABASE] == RESTORED) == renamed, "what is live stays so"
        assert host.containers == {BLUE: "running"}
        assert ("is ended" in capsys.readouterr().err) == (began and renamed)
        outcomes.add(renamed)
    assert outcomes == {True, False}


def test_one_that_was_cut_before_its_rename_is_not_made_days_later(host: Host) -> None:
    """A reboot while the backend stopped; the site was brought up again, and written to."""
    host.restored()
    commands = enumerate(_ran(host), start=1)
    host.swap_is_cut(next(n for n, line in commands if line.startswith("docker stop")))
    host.containers[BLUE] = "running"
    host.databases[DATABASE] = "days of work"
    (host.volume / "file").write_text("days of work")
    host.ran = []
    with pytest.raises(Failed, match=r"renamed is forgotten.*Nothing was dropped"):
        live.drop_old(host.config)
    assert host.held()[DATABASE] == "days of work"
    assert not any(line.startswith("docker stop") for line in host.ran), "the site stays up"
    live.drop_old(host.config)
    assert host.held() == {DATABASE: "days of work"}


def _ran(host: Host) -> list[str]:
    """The commands of a swap, which is taken back again."""
    live.swap(host.config)
    live.swap(host.config, before=live.NEWEST)
    [other] = [name for name in host.databases if name != DATABASE]
    host.databases[live.NEW] = host.databases.pop(other)
    (host.volume.parent / other).rename(host.volume.parent / live.NEW)
    (host.config.root / live.COMPARED).touch()
    found, host.ran = host.ran, []
    return found


def test_what_a_cut_swap_has_just_put_aside_is_not_dropped(host: Host) -> None:
    host.restored()
    host.swap_is_cut(_ran(host).index("sql RENAME") + 2)
    with pytest.raises(Failed, match=r"what served before it is kept as koprogo_before_.*Nothing"):
        live.drop_old(host.config)
    assert host.held()[DATABASE] == RESTORED
    assert LIVE in host.databases.values()


@pytest.mark.parametrize("fails", ["docker stop", "sql RENAME", "docker start", "healthy"])
def test_whatever_fails_once_what_served_before_serves_again(host: Host, fails: str) -> None:
    host.restored()
    _once(host, fails)
    with pytest.raises(Failed, match="What served before serves again"):
        live.swap(host.config)
    assert host.held() == {DATABASE: LIVE, live.NEW: RESTORED}
    assert host.containers == {BLUE: "running"}


def test_uploads_that_cannot_be_renamed_bring_the_database_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.restored()
    rename, left = Path.rename, [1]

    def once(path: Path, target: Path) -> Path:
        if path.name == live.NEW and left and left.pop():
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(Failed, match=r"uploads cannot be renamed.*serves again"):
        live.swap(host.config)
    assert host.held() == {DATABASE: LIVE, live.NEW: RESTORED}


def test_postgres_that_starts_again_in_the_midst_is_waited_for(host: Host) -> None:
    host.restored()
    away = [5]

    def fails(line: str) -> bool:
        if line == "sql RENAME":
            away.append(1)
        if len(away) > 1 and away[0] and line.startswith("sql"):
            away[0] -= 1
            return True
        return False

    host.fails = fails
    with pytest.raises(Failed, match="serves again"):
        live.swap(host.config)
    assert host.held() == {DATABASE: LIVE, live.NEW: RESTORED}
    assert host.containers == {BLUE: "running"}


def test_postgres_that_does_not_come_back_leaves_a_backend_and_a_swap_to_be_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.restored()
    monkeypatch.setattr(live, "START_TIMEOUT", 0.01)
    down = [False]

    def fails(line: str) -> bool:
        down[0] |= line.startswith("docker stop")
        return down[0] and line.startswith("sql")

    host.fails = fails
    with pytest.raises(Failed, match=r"not put back: sql failed\. The next .* ends it"):
        live.swap(host.config)
    assert host.containers == {BLUE: "running"}
    host.fails = lambda _line: False
    live.finish(host.config)
    assert host.held()[DATABASE] == LIVE


def _once(host: Host, what: str) -> None:
    left = [what]

    def fails(line: str) -> bool:
        return bool(left) and line.startswith(what) and bool(left.pop())

    host.fails = fails


def _cut_after_rename(host: Host) -> None:
    host.restored()
    host.swap_is_cut(_ran(host).index("sql RENAME") + 2)


def test_a_backend_that_does_not_come_up_on_it_has_what_served_before_again(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing that was live is where the next restore would remove it."""
    _cut_after_rename(host)
    _once(host, "healthy")
    ended = live.finish(host.config)
    assert ended
    assert not ended["swapped"]
    assert "taken back, since healthy failed" in capsys.readouterr().err
    found = host.held()
    assert found[DATABASE] == LIVE
    assert live.NEW not in found
    assert RESTORED in found.values()


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "does not start"])
def test_no_command_fails_for_ever_for_a_backend(
    host: Host, gone: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _cut_after_rename(host)
    if gone:
        host.containers = {}
    host.fails = lambda line: line.startswith("healthy") and not gone
    assert live.finish(host.config)
    assert host.held()[DATABASE] == (RESTORED if gone else LIVE)
    assert ("; but healthy failed" in capsys.readouterr().err) != gone
    assert live.finish(host.config) is None


def test_a_release_that_came_meanwhile_serves_alone(host: Host) -> None:
    _cut_after_rename(host)
    host.containers = {BLUE: "exited", "koprogo-backend-green-1": "running"}
    host.serves("green")
    live.finish(host.config)
    assert host.containers[BLUE] == "exited", "an old one may not know the schema"
    assert host.held()[DATABASE] == RESTORED


@pytest.mark.parametrize("make", [backup.backup, backup.drill])
@pytest.mark.parametrize(
    ("file", "told"),
    [
        (UPGRADE, r"an upgrade was cut: deploys/postgres_upgrade\.py ends it"),
        (SWAP, r"a restore was cut: deploys/restore\.py --data backup=drop_old ends it"),
    ],
)
def test_what_was_cut_is_neither_backed_up_nor_drilled_before_it_is_ended(
    host: Host, make: Callable[[Config], object], file: str, told: str
) -> None:
    (host.config.root / file).write_text("{}")
    with pytest.raises(Failed, match=told):
        make(host.config)
    assert host.ran == []


def test_after_two_restores_the_first_state_is_reached_by_its_name(host: Host) -> None:
    host.restored()
    first = live.swap(host.config)["old"]
    host.restored(content="another backup's")
    second = live.swap(host.config)["old"]
    assert host.held() == {DATABASE: "another backup's", first: LIVE, second: RESTORED}
    told = f"no koprogo_before_1t1 is kept here; what served before restores: {first}, {second}"
    with pytest.raises(Failed, match=told):
        live.swap(host.config, "koprogo_before_1t1")
    live.swap(host.config, first)
    assert host.held()[DATABASE] == LIVE
    assert first not in host.held()


def test_only_what_served_before_is_taken_by_name() -> None:
    assert live.kept(live.NEWEST, ["koprogo_before_1t1", "koprogo_before_2t1", live.NEW]) == (
        "koprogo_before_2t1"
    )
    for name in (live.NEW, "koprogo_before_1t1; DROP", "postgres"):
        with pytest.raises(Failed, match="is kept here"):
            live.kept(name, ["koprogo_before_1t1", live.NEW])
    with pytest.raises(Failed, match="nothing that served before a restore is kept here"):
        live.kept(live.NEWEST, [live.NEW])


@pytest.mark.parametrize("by_name", [False, True])
def test_the_same_command_again_after_a_cut_does_not_take_it_back(
    host: Host, by_name: bool
) -> None:
    host.restored()
    live.swap(host.config)
    host.ran = []
    live.swap(host.config, live.NEWEST)
    steps = len(host.ran)
    for step in range(1, steps + 1):
        live.swap(host.config, live.NEWEST)
        assert host.held()[DATABASE] == RESTORED
        [other] = [name for name in host.databases if name != DATABASE]
        asked = other if by_name else live.NEWEST
        host.swap_is_cut(step, asked)
        told = live.swap(host.config, asked)
        assert host.held() == {DATABASE: LIVE, told["old"]: RESTORED}


def test_a_restore_that_was_cut_can_be_taken_back_at_once(host: Host) -> None:
    _cut_after_rename(host)
    live.swap(host.config, live.NEWEST)
    assert host.held()[DATABASE] == LIVE
