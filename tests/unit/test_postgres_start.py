"""The script that Postgres' container starts with: a cluster the first time, and no password."""

from __future__ import annotations

import subprocess
from pathlib import Path

from koprogo_deploy import render
from tests import project


def started(tmp_path: Path, **variables: str) -> str:
    """What the script calls, with an initdb and a server that only say so."""
    script = tmp_path / "start.sh"
    script.write_text(render.template("scripts/postgres.sh"))
    calls = tmp_path / "calls"
    for name in ("initdb", "postgres"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\nexec >> {calls}\necho "{name} $*"\nenv | grep ^POSTGRES_PASSWORD=\n:\n'
        )
        program.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "PGDATA": str(tmp_path / "data"),
        "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_password",
        "POSTGRES_INITDB_ARGS": "--auth-local=peer --auth-host=scram-sha-256",
        **variables,
    }
    command = ["/bin/sh", str(script), "postgres", "-c", "config_file=/etc/x"]
    subprocess.run(command, check=True, env=environment)
    return calls.read_text()


def test_the_first_start_makes_the_cluster_with_the_password_from_its_file(tmp_path: Path) -> None:
    assert started(tmp_path) == (
        f"initdb -D {tmp_path}/data --username=postgres --pwfile=/run/secrets/postgres_password "
        "--auth-local=peer --auth-host=scram-sha-256\npostgres -c config_file=/etc/x\n"
    )


def test_every_other_start_is_the_server_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/PG_VERSION").write_text("17\n")
    assert started(tmp_path) == "postgres -c config_file=/etc/x\n"


def test_the_images_own_entry_point_is_not_in_between() -> None:
    # It would export the password to the server for good.
    definition = project.release(project.settings()).definitions["postgres"]
    assert definition["entrypoint"] == ["/bin/sh", "/etc/postgresql/start.sh"]
    assert definition["command"][0] == "postgres"
