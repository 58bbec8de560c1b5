"""A major version of Postgres: what is decided, and that clusters change places whole."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import maintenance, major, status
from koprogo_deploy.data import dump, hashes, live, scratch, upgrade
from koprogo_deploy.data.host import MB, Config, Failed
from koprogo_deploy.facts.stack import parse_stack
from koprogo_deploy.journal import Journal
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.operations import upgrade as operation
from koprogo_deploy.plan.wanted import dynamic_hash
from tests import project

SETTINGS = project.settings()
RELEASE = project.release(SETTINGS)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROLE = {
    "attributes": [True],
    "connections": -1,
    "password": "ab",
    "memberships": [],
    "settings": [],
}


def held(**rows: int) -> dict[str, Any]:
    return {f"public.{name}": {"rows": n, "hash": f"{n:064x}"} for name, n in rows.items()}


# --- decisions -----------------------------------------------------------------------------------


def test_the_newest_kept_cluster_sorts_last_whatever_its_version() -> None:
    names = [
        upgrade.kept_name(NOW, 9),
        upgrade.kept_name(NOW + timedelta(seconds=1), 17),
        upgrade.kept_name(NOW + timedelta(days=1), 15),
    ]
    assert names == sorted(names)
    assert names[0] == "koprogo_before_20260102t030405_9"


def test_a_cluster_that_is_not_the_same_is_told_by_what_differs() -> None:
    old = {"tables": held(users=2, units=3), "roles": {"koprogo": ROLE, "anna": ROLE}}
    assert upgrade.different(old, old, (["index a"], ["index a"])) == []
    other = {**ROLE, "password": "cd", "settings": [" work_mem=1MB"]}
    new = {"tables": held(users=2, units=4), "roles": {"koprogo": other}}
    assert upgrade.different(old, new, (["index a"], ["index b"])) == [
        "table public.units differs (3 rows, 4 found)",
        "role anna is in the old one alone",
        "role koprogo differs in its password",
        "role koprogo differs in its settings",
        "index a is missing",
        "index b is not in the old one",
    ]


def test_sessions_are_no_loss_and_everything_else_is() -> None:
    assert upgrade.lost({"public.refresh_tokens": 4}) == {}
    assert upgrade.lost({"public.refresh_tokens": 4, "public.users": 0}) == {"public.users": 0}


def test_going_back_is_refused_with_the_count_where_it_loses_something() -> None:
    about = {"major": 15, "until": "2026-01-02T03:04:05+00:00"}
    assert major.refuses_back(SETTINGS, {**about, "since": {}, "lost": []}) == ""
    since = {"public.owners": 2, "public.users": 0, "public.refresh_tokens": 1}
    told = major.refuses_back(SETTINGS, {**about, "since": since, "lost": ["public.owners"]})
    assert told == (
        "going back to Postgres 15 leaves behind what was written since 2026-01-02 03:04 UTC, and "
        "not in it: owners +2; refresh_tokens +1; changed without a row more or less: users "
        "(rows). The cluster that has it would be kept. If that is meant: pyinfra "
        "inventories/production.py deploys/postgres_upgrade.py --data upgrade=back_anyway"
    )


def test_data_of_another_version_is_told_with_the_way() -> None:
    assert major.other(SETTINGS, "") is None
    assert major.other(SETTINGS, str(SETTINGS.postgres_major)) is None
    what, fix = major.other(SETTINGS, "18") or ("", "")
    assert what == "the data is of Postgres 18, the image of 17"
    assert "a lower version cannot read it" in fix
    assert "--data upgrade=back" in fix


def test_an_upgrade_changes_postgres_alone() -> None:
    live = {"specs": RELEASE.specs, "dynamic": dynamic_hash(RELEASE)}
    newer = project.release(project.settings(postgres_settings={"work_mem": "5MB"}))
    assert newer.specs != RELEASE.specs
    assert major.beside_postgres(live, newer) == ""
    other = project.release(project.settings(backend_memory="129MB", frontend_memory="33MB"))
    assert major.beside_postgres(live, other) == "backend, frontend"
    routes = project.release(project.settings(login_limit_per_minute=11))
    assert major.beside_postgres(live, routes) == "the proxy's routes"


def test_the_old_one_is_deployed_again_by_its_digest() -> None:
    kept = {"major": 15, "requested": "docker.io/library/postgres:15.8", "image": "x@sha256:ab"}
    assert major.deployed_with(kept) == {
        "postgres_image": "docker.io/library/postgres:15.8@sha256:ab",
        "postgres_major": 15,
    }
    again = {**kept, "requested": "docker.io/library/postgres:15.8@sha256:ab"}
    assert major.deployed_with(again) == major.deployed_with(kept)


def test_an_image_whose_tag_says_another_version_is_refused_at_the_door(tmp_path: Path) -> None:
    made = project.Project.make(tmp_path)
    assert made.open(postgres_image="docker.io/library/postgres:17-alpine")
    assert made.open(postgres_image="docker.io/library/postgres:bookworm-20260101")
    told = made.refusal(postgres_image="docker.io/library/postgres:18.1-trixie")
    assert "17, and postgres_image is of 18 by its tag" in told
    assert "deploys/postgres_upgrade.py" in told


# --- clusters that change places -----------------------------------------------------------------


class Host:
    """Commands that a change runs, one of which may fail; clusters are real directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.volume = root / "volume" / "_data"
        self.ran: list[str] = []
        self.fails = ""
        self.config = Config(root, "production", 192 * MB)
        self.cluster(self.volume, 15)

    def cluster(self, directory: Path, version: int) -> None:
        directory.mkdir(parents=True)
        (directory / "PG_VERSION").write_text(f"{version}\n")

    def release(self, name: str, version: int) -> None:
        directory = self.root / "releases" / name
        directory.mkdir(parents=True)
        image = {"postgres": f"postgres@sha256:{version}"}
        told = {"id": name, "images": image, "requested": {"postgres": f"postgres:{version}"}}
        told["values"] = {"postgres_major": version}
        (directory / "manifest.json").write_text(json.dumps(told))

    def run(self, *command: str, stdin: str | None = None) -> str:
        line = " ".join(command)
        if command[:3] == ("docker", "volume", "inspect"):
            return f"{self.volume}\n"
        self.ran.append(line)
        if self.fails and self.fails in line:
            raise Failed(f"{self.fails} failed")
        return ""

    def sql(self, container: str, text: str, database: str = "") -> str:
        self.ran.append(f"sql {text.strip()[:30]}")
        return "{}"

    @property
    def there(self) -> dict[str, int]:
        """Version of each cluster, by its directory's name."""
        found = (d for d in self.volume.parent.iterdir() if d.is_dir())
        return {d.name: upgrade.version_of(d) for d in found}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    (tmp_path / "data").mkdir()
    made.release("old", 15)
    made.release("new", 17)
    (tmp_path / "current").symlink_to("releases/old")
    monkeypatch.setattr(upgrade, "run", made.run)
    monkeypatch.setattr(live, "run", made.run)
    monkeypatch.setattr(upgrade, "sql", made.sql)
    monkeypatch.setattr(upgrade, "owner_sql", made.sql)
    monkeypatch.setattr(live, "guarded", lambda _: "$2b$08$hash")
    monkeypatch.setattr(live, "guard", lambda kept: made.run("guard", kept))
    monkeypatch.setattr(upgrade, "objects", lambda _container: [])
    monkeypatch.setattr(live, "backends", lambda: ["koprogo-backend-blue-1"])
    monkeypatch.setattr(live, "until_healthy", lambda names: made.run("healthy", *names))
    monkeypatch.setattr(scratch, "down", lambda _config: [])
    monkeypatch.setattr(hashes, "tables", lambda _container: held(users=2))
    dumped = {"tables": held(users=2)}
    monkeypatch.setattr(dump, "dump", lambda file, **_: file.write_text("dump") and dumped)
    monkeypatch.setattr(dump, "restore", lambda file, container: made.run("restore", container))
    yield made


def up(host: Host) -> dict[str, Any]:
    host.cluster(host.volume.parent / upgrade.NEW, 17)
    return upgrade.change(host.config, "new")


def test_the_new_one_serves_and_the_old_one_is_kept_once_it_is_verified(host: Host) -> None:
    made = up(host)
    assert (made["from"], made["to"], made["rows"]) == (15, 17, 2)
    assert host.there == {"_data": 17, made["kept"]: 15}
    assert host.ran.index("docker stop -t 35 koprogo-backend-blue-1") < host.ran.index(
        "docker stop -t 60 koprogo-postgres-1"
    )
    [compose] = [line for line in host.ran if "compose" in line]
    assert f"{host.root}/releases/new/compose.yaml up" in compose
    assert upgrade.resume(host.config)["was"] == upgrade.SERVING
    with pytest.raises(Failed, match="an upgrade was cut"):
        upgrade.change(host.config, "new")
    kept = upgrade.done(host.config)
    assert (kept["major"], kept["requested"]) == (15, "postgres:15")
    assert upgrade.kept() == [made["kept"]]
    assert not (host.volume.parent / upgrade.DUMP).exists()
    assert upgrade.resume(host.config) == {"was": "settled"}


@pytest.mark.parametrize(
    "fails", ["stop -t 60", "releases/new", "restore", "docker start", "healthy koprogo-backend"]
)
def test_whatever_fails_the_old_one_serves_again(host: Host, fails: str) -> None:
    host.fails = fails
    original = host.run

    def once(*command: str, stdin: str | None = None) -> str:
        try:
            return original(*command, stdin=stdin)
        except Failed:
            host.fails = ""
            raise

    host.run = once  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        for module in (upgrade, live):
            patch.setattr(module, "run", once)
        patch.setattr(live, "until_healthy", lambda names: once("healthy", *names))
        patch.setattr(dump, "restore", lambda file, container: once("restore", container))
        with pytest.raises(Failed, match=r"failed\. Postgres 15 serves again, as before"):
            up(host)
    assert host.there == {"_data": 15}
    assert list(host.volume.parent.iterdir()) == [host.volume]
    assert upgrade.state(host.config) is None
    assert [line for line in host.ran if "compose" in line][-1].count("releases/old") == 1
    assert host.ran[-1] == "healthy koprogo-backend-blue-1"


def test_one_that_is_not_the_same_does_not_serve(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "tables", lambda _container: held(users=1))
    told = r"the new cluster is not what .*public\.users differs \(2 rows, 1 found\).*serves again"
    with pytest.raises(Failed, match=told):
        up(host)
    assert host.there == {"_data": 15}


def test_an_old_one_that_does_not_come_up_again_is_remembered(host: Host) -> None:
    host.fails = "compose"
    with pytest.raises(Failed, match="and Postgres 15 does not come up again"):
        up(host)
    cut = upgrade.state(host.config)
    assert cut is not None
    assert cut["phase"] == upgrade.CHANGING
    host.fails = ""
    assert upgrade.resume(host.config) == {"was": "taken back", "serves": "old"}
    assert host.there == {"_data": 15}


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_power_cut_between_the_renames_is_taken_back(host: Host, renamed: int) -> None:
    parent, aside = host.volume.parent, upgrade.kept_name(NOW, 15)
    host.cluster(parent / upgrade.NEW, 17)
    cut = {"phase": upgrade.CHANGING, "back": False, "coming": upgrade.NEW, "aside": aside}
    upgrade.remember(host.config, {**cut, "from": "old", "release": "new", "stopped": []})
    if renamed > 0:
        host.volume.rename(parent / aside)
    if renamed > 1:
        (parent / upgrade.NEW).rename(host.volume)
    assert upgrade.resume(host.config)["was"] == "taken back"
    assert host.there == {"_data": 15}


def test_back_to_the_one_that_served_and_what_is_left_is_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = up(host)["kept"]
    upgrade.done(host.config)
    (host.root / "current").unlink()
    (host.root / "current").symlink_to("releases/new")
    assert upgrade.counted()["lost"] == []
    monkeypatch.setattr(hashes, "tables", lambda _container: held(users=2, owners=1))
    assert upgrade.counted()["since"] == {"public.owners": 1}
    with pytest.raises(Failed, match=r"written since: public\.owners\. Postgres 17 serves again"):
        upgrade.change(host.config, "old", back=True)
    assert host.there == {"_data": 17, first: 15}
    made = upgrade.change(host.config, "old", back=True, anyway=True)
    assert host.there == {"_data": 15, made["kept"]: 17}
    upgrade.done(host.config)
    assert upgrade.kept() == [made["kept"]]
    gone = upgrade.drop(host.config)
    assert gone["dropped"] == [made["kept"]]
    assert host.there == {"_data": 15}
    with pytest.raises(Failed, match="no cluster of before an upgrade"):
        upgrade.counted()


def test_what_was_not_verified_is_taken_back_with_the_count(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(host)
    monkeypatch.setattr(hashes, "tables", lambda _container: held(users=3))
    assert upgrade.take_back(host.config) == {"serves": "old", "since": {"public.users": 1}}
    assert host.there == {"_data": 15}


def test_the_maker_sees_the_new_cluster_and_its_secret_alone(host: Host) -> None:
    definition = RELEASE.definitions["postgres"]
    words = upgrade.maker_command(definition, 128 * MB, "initdb")
    mounts = [words[at + 1] for at, word in enumerate(words) if word == "-v"]
    assert mounts[0] == f"{host.volume.parent}/koprogo_new:/var/lib/postgresql/data"
    assert all(mount.endswith(":ro") for mount in mounts[1:])
    assert len(mounts) == 3
    assert words[-3:] == ["--entrypoint", "initdb", RELEASE.images["postgres"]]
    assert tuple(words[words.index("--network") :][:2]) == ("--network", "none")


# --- what is run on the host, and seen of it -----------------------------------------------------


def test_the_scripts_are_shell() -> None:
    page = Maintenance(NOW.isoformat(), "anna", maintenance.UPGRADING, 10, ("203.0.113.7/32",))
    backends = ["koprogo-backend-blue-1"]
    scripts = [
        operation.change_script(SETTINGS, "change --release r1", page, backends),
        operation.change_script(SETTINGS, "change --release r1", None, backends),
        operation.undo_script(SETTINGS, True),
        operation.prepare_script(SETTINGS, "r1"),
    ]
    for script in scripts:
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert "rm -f /opt/koprogo/traefik/dynamic/maintenance.yaml" in scripts[0]
    assert "maintenance.yaml" not in scripts[1], "somebody's own page stays"


def test_what_is_kept_and_what_was_cut_are_seen_and_told() -> None:
    name = upgrade.kept_name(NOW, 15)
    about = {"name": name, "major": 15, "until": NOW.isoformat(), "image": "x@sha256:ab"}
    found = parse_stack(
        ["docker\tyes", f"cluster\t{json.dumps(about)}", 'upgrade\t{"phase": "changing"}']
    )
    assert found.clusters == [about]
    assert found.upgrade == {"phase": "changing"}
    now = status.parse([f"cluster\t{name}\t{48 * MB}", "clock\t1"])
    empty = Journal([], [], [], "")
    [told] = status.notes(found, now, empty)
    assert told.startswith("the Postgres 15 that served until 2026-01-02 03:04 UTC is kept, 48 MB")
    found.current = {"id": "r", "dynamic": "", "colours": RELEASE.colours, "specs": RELEASE.specs}
    assert any(
        "an upgrade of Postgres was cut" in each for each in status.problems(found, now, empty)
    )
