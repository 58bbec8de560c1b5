"""The entry point of the sandbox's Postgres image, with programs that write down how they ran."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parents[2] / "sandbox/images/postgres/entrypoint"
INITDB = """#!/bin/sh
for word; do case "$word" in --pgdata=*) to="${word#--pgdata=}" ;; esac; done
[ ! -e "$LOG/fails" ] || { mkdir "$to"; touch "$to/PG_VERSION"; exit 1; }
printf '%s\\n' "$@" > "$LOG/initdb"
cat > "$LOG/password"
mkdir -p "$to/base/1"
for name in PG_VERSION pg_hba.conf postgresql.conf; do echo "$name of initdb" > "$to/$name"; done
"""
SERVER = """#!/bin/sh
printf '%s\\n' "${0##*/}" "$@" > "$LOG/server"
env > "$LOG/environment"
"""
SECRET = "s3cret with 'quotes' and $dollar"


@dataclass(frozen=True)
class Image:
    """A folder for the volume, and one for what was seen."""

    data: Path
    log: Path

    def start(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", ENTRYPOINT, *words],
            env={
                "PATH": f"{self.log}/bin:{os.environ['PATH']}", "LOG": str(self.log),
                "PGDATA": str(self.data), **environment,
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def read(self, name: str) -> str:
        return (self.log / name).read_text()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.data.iterdir())


@pytest.fixture
def image(tmp_path: Path) -> Image:
    made = Image(tmp_path / "data", tmp_path / "log")
    made.data.mkdir()
    (made.log / "bin").mkdir(parents=True)
    for name, text in {"initdb": INITDB, "postgres": SERVER, "other": SERVER}.items():
        program = made.log / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return made


CLUSTER = ["PG_VERSION", "base", "pg_hba.conf", "postgresql.conf"]


@pytest.mark.parametrize("by", ["file", "variable"])
def test_an_empty_volume_gets_a_cluster_and_the_server_no_password(image: Image, by: str) -> None:
    file = image.log / "secret"
    file.write_text(SECRET)
    given = {"POSTGRES_PASSWORD_FILE": str(file)} if by == "file" else {"POSTGRES_PASSWORD": SECRET}
    done = image.start(
        "postgres", "-c", "config_file=/a b", POSTGRES_INITDB_ARGS="--data-checksums -g", **given
    )
    assert done.returncode == 0, done.stderr
    assert image.read("password").rstrip("\n") == SECRET
    words = image.read("initdb").splitlines()
    assert {"--username=postgres", "--pwfile=/dev/stdin"} <= set(words)
    assert words[-2:] == ["--data-checksums", "-g"], "what is asked for has the last word"
    assert SECRET not in image.read("initdb")
    assert image.read("server").splitlines() == ["postgres", "-c", "config_file=/a b"]
    assert "POSTGRES_" not in image.read("environment")
    assert SECRET not in image.read("environment")
    assert image.files() == CLUSTER
    assert image.data.stat().st_mode & 0o777 == 0o700
    assert "host all all samenet scram-sha-256\n" in (image.data / "pg_hba.conf").read_text()
    assert "listen_addresses = '*'\n" in (image.data / "postgresql.conf").read_text()


def test_a_cluster_that_is_there_is_left_alone_and_needs_no_password(image: Image) -> None:
    (image.data / "PG_VERSION").write_text("17\n")
    assert image.start("postgres", "-c", "a=b").returncode == 0
    assert not (image.log / "initdb").exists()
    assert image.files() == ["PG_VERSION"]
    assert image.start("postgres", POSTGRES_PASSWORD=SECRET).returncode == 0
    assert SECRET not in image.read("environment")


def test_another_program_makes_no_cluster(image: Image) -> None:
    assert image.start("other", "word").returncode == 0
    assert image.read("server").splitlines() == ["other", "word"]
    assert image.files() == []


def test_what_a_killed_first_start_left_is_made_anew_or_ended(image: Image) -> None:
    (image.log / "fails").touch()
    done = image.start("postgres", POSTGRES_PASSWORD=SECRET)
    assert done.returncode != 0
    assert not (image.log / "server").exists()
    assert image.files() == [".half"], "a cluster that is not whole is not taken for one"
    (image.log / "fails").unlink()
    assert image.start("postgres", POSTGRES_PASSWORD=SECRET).returncode == 0
    assert image.files() == CLUSTER

    # Killed while the files moved: the rest follows.
    whole = image.data / ".whole"
    whole.mkdir()
    for name in ("PG_VERSION", "pg_hba.conf"):
        (image.data / name).rename(whole / name)
    (image.log / "initdb").unlink()
    assert image.start("postgres").returncode == 0
    assert image.files() == CLUSTER
    assert not (image.log / "initdb").exists()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "needs POSTGRES_PASSWORD_FILE"),
        ({"POSTGRES_PASSWORD": "a", "POSTGRES_PASSWORD_FILE": "/b"}, "both set"),
        ({"POSTGRES_PASSWORD_FILE": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_new_cluster_without_a_password_is_refused(
    image: Image, environment: dict[str, str], told: str
) -> None:
    done = image.start("postgres", **environment)
    assert done.returncode != 0
    assert told in done.stderr
    assert image.files() == []
    assert not (image.log / "server").exists()


def test_a_folder_with_something_else_in_it_is_refused(image: Image) -> None:
    (image.data / "lost+found").mkdir()
    (image.data / "precious").touch()
    done = image.start("postgres", POSTGRES_PASSWORD=SECRET)
    assert done.returncode != 0
    assert "not empty: precious" in done.stderr
    assert image.files() == ["lost+found", "precious"]
