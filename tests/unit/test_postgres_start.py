"""The script that Postgres' container starts with: a cluster the first time, and no password."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from koprogo_deploy import render
from tests import project

INITDB = """#!/bin/sh
echo "initdb $*" >> "$CALLS"
env | grep ^POSTGRES_PASSWORD= >> "$CALLS"
mkdir -p "$2" && echo 17 > "$2/PG_VERSION"
[ ! -e "$CALLS.kill" ] || kill -9 $PPID $$
mkdir -p "$2/base/1" && touch "$2/postgresql.conf"
"""
SERVER = """#!/bin/sh
echo "postgres $*" >> "$CALLS"
env | grep ^POSTGRES_PASSWORD= >> "$CALLS"
:
"""
RUNS = "postgres -c config_file=/etc/x\n"
CLUSTER = ["PG_VERSION", "base", "postgresql.conf"]


@dataclass(frozen=True)
class Container:
    """A folder for the volume, and programs that say how they were called."""

    at: Path

    @property
    def data(self) -> Path:
        return self.at / "data"

    def start(self) -> subprocess.CompletedProcess[str]:
        environment = {
            "CALLS": str(self.at / "calls"),
            "PATH": f"{self.at}:/usr/bin:/bin",
            "PGDATA": str(self.data),
            "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_password",
            "POSTGRES_INITDB_ARGS": "--auth-local=peer --auth-host=scram-sha-256",
        }
        command = ["/bin/sh", str(self.at / "start.sh"), "postgres", "-c", "config_file=/etc/x"]
        return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)

    def calls(self) -> str:
        calls = self.at / "calls"
        return calls.read_text() if calls.exists() else ""

    def files(self) -> list[str]:
        return sorted(path.name for path in self.data.iterdir())


@pytest.fixture
def container(tmp_path: Path) -> Container:
    (tmp_path / "start.sh").write_text(render.template("scripts/postgres.sh"))
    for name, text in {"initdb": INITDB, "postgres": SERVER}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return Container(tmp_path)


def test_the_first_start_makes_the_cluster_with_the_password_from_its_file(
    container: Container,
) -> None:
    assert container.start().returncode == 0
    assert container.calls() == (
        f"initdb -D {container.data}/.half --username=postgres "
        "--pwfile=/run/secrets/postgres_password "
        f"--auth-local=peer --auth-host=scram-sha-256\n{RUNS}"
    )
    assert container.files() == CLUSTER
    assert container.data.stat().st_mode & 0o777 == 0o700, "as the server wants it"


def test_every_other_start_is_the_server_alone(container: Container) -> None:
    container.data.mkdir()
    (container.data / "PG_VERSION").write_text("17\n")
    assert container.start().returncode == 0
    assert container.calls() == RUNS


def test_a_start_after_a_kill_finds_a_whole_cluster_or_none(container: Container) -> None:
    (container.at / "calls.kill").touch()
    assert container.start().returncode == -signal.SIGKILL
    assert container.files() == [".half"], "what initdb left is not taken for a cluster"
    (container.at / "calls.kill").unlink()
    assert container.start().returncode == 0
    assert container.files() == CLUSTER

    # Killed while the files moved: the rest follows.
    whole = container.data / ".whole"
    whole.mkdir()
    for name in ("PG_VERSION", "postgresql.conf"):
        (container.data / name).rename(whole / name)
    (container.at / "calls").unlink()
    assert container.start().returncode == 0
    assert container.files() == CLUSTER
    assert container.calls() == RUNS


def test_somebody_elses_folder_is_left_alone(container: Container) -> None:
    (container.data / "lost+found").mkdir(parents=True)
    (container.data / "pgdata").mkdir()
    done = container.start()
    assert done.returncode == 1
    assert "not empty: " in done.stderr
    assert "/pgdata" in done.stderr
    assert container.calls() == ""
    (container.data / "pgdata").rmdir()
    assert container.start().returncode == 0, "a file system of its own has lost+found"


def test_the_images_own_entry_point_is_not_in_between() -> None:
    # It would export the password to the server for good.
    definition = project.release(project.settings()).definitions["postgres"]
    assert definition["entrypoint"] == ["/bin/sh", "/etc/postgresql/start.sh"]
    assert definition["command"][0] == "postgres"
