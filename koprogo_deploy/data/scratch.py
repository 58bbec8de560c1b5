"""The scratch server: a throw-away Postgres beside the real one, for rehearsals and drills."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterable
from typing import Any

from koprogo_deploy import database
from koprogo_deploy.data.host import DATABASE, POSTGRES, Config, Failed, inside, run, sql

NAME = "koprogo-scratch-1"
BACKEND = "koprogo-scratch-backend-1"
NETWORK = "koprogo-scratch"
START_TIMEOUT = 90  # seconds; making an empty data directory on one busy CPU takes ten

# Its data is worth nothing, so nothing waits for the disk; small, to leave room in its limit.
_SERVER = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "maintenance_work_mem": "16MB",
    "max_connections": "30",
    "max_parallel_maintenance_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "shared_buffers": "32MB",
    "synchronous_commit": "off",
    "wal_level": "minimal",
}

# Of the superadmin in a copy, which only its host reaches and which is thrown away: the real
# passwords are none of the host's business.
PASSWORD = "of-a-copy-that-is-thrown-away"  # noqa: S105
HASH = "$2b$08$X5phyJvVIF2UyE6x4gx5DeVuY43ytBNBFwB2UAcKzDj1QkzIO9aDa"
_ANY = ", ".join(
    f"'/{name}', (SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT 1) AS one)"  # noqa: S608
    for name in ("buildings", "expenses", "owners", "units")
)
_LOGIN = f"""
UPDATE users SET password_hash = '{HASH}' WHERE lower(email) = 'admin@koprogo.com'
RETURNING json_build_object('email', email, 'password', '{PASSWORD}',
                            'lists', json_build_object({_ANY}))"""  # noqa: S608 - names of ours


def start_command(image: str, memory: int) -> list[str]:
    """Command line that starts the server.

    It is called `postgres` on a network of its own, so that a backend finds it where it looks for
    the real one, and cannot find that.

    Args:
        image: a Postgres image.
        memory: bytes, at most.
    """
    environment = {
        "PGDATA": "/var/lib/postgresql/data",
        "POSTGRES_INITDB_ARGS": "--auth-local=peer --auth-host=scram-sha-256",
        # The entry point wants one; it is taken away again as soon as the server answers.
        "POSTGRES_PASSWORD": secrets.token_hex(16),
    }
    options = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    settings = [word for name, value in _SERVER.items() for word in ("-c", f"{name}={value}")]
    return [
        *("docker", "run", "-d", "--name", NAME, "--pull", "never"),
        *("--network", NETWORK, "--network-alias", "postgres"),
        *("--memory", str(memory), "--memory-swap", str(memory), "--cpu-shares", "128"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--pids-limit", "128"),
        *("--user", "999:999", "--read-only", "--shm-size", "64m"),
        *("--mount", "type=volume,dst=/var/lib/postgresql/data"),
        *("--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev"),  # noqa: S108
        *("--tmpfs", "/run/postgresql:size=1m,uid=999,gid=999,mode=0775"),
        *options,
        *(image, "postgres", *settings),
    ]


def roles_sql(dumped: str) -> str:
    """The roles of `pg_dumpall --roles-only`, without the superuser that every server has. Pure."""
    kept = ("CREATE ROLE ", "ALTER ROLE ", "GRANT ")
    own = ("CREATE ROLE postgres;", "ALTER ROLE postgres ")
    lines = (line for line in dumped.splitlines() if line.startswith(kept))
    return "".join(f"{line}\n" for line in lines if not line.startswith(own))


def up(config: Config, image: str = "") -> dict[str, Any]:
    """Start the server afresh, with the real one's roles and an empty database.

    Args:
        config: for the memory limit.
        image: a Postgres image; that of the running real server if empty.

    Raises:
        Failed: it does not come up; nothing of it is left.
    """
    down()
    began = time.monotonic()
    image = image or run("docker", "inspect", "-f", "{{.Config.Image}}", POSTGRES).strip()
    try:
        run("docker", "network", "create", "--internal", NETWORK)
        run(*start_command(image, config.scratch_memory))
        _wait(image)
        # A password hash is in there: it goes from one server to the other by pipe alone.
        dumped = run(*inside(POSTGRES, "pg_dumpall", "--roles-only", "-U", "postgres"))
        sql(NAME, f"ALTER ROLE postgres PASSWORD NULL;\n{roles_sql(dumped)}", "postgres")
        sql(NAME, database.DATABASE_SQL, "postgres")
    except BaseException:
        down()
        raise
    return {
        "container": NAME,
        "network": NETWORK,
        "host": "postgres",
        "database": DATABASE,
        "image": image,
        "memory": config.scratch_memory,
        "seconds": round(time.monotonic() - began, 1),
    }


def _wait(image: str) -> None:
    end = time.monotonic() + START_TIMEOUT
    # Over TCP: while it is made, the server listens on its socket alone.
    ready = ("pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres")
    while True:
        with contextlib.suppress(Failed):
            run(*inside(NAME, *ready))
            return
        state = run("docker", "inspect", "-f", "{{.State.Status}}", NAME).strip()
        if state != "running" or time.monotonic() > end:
            said = run("sh", "-c", f"docker logs --tail 5 {NAME} 2>&1").strip().splitlines()
            raise Failed(f"the scratch server ({image}) is {state}: {' | '.join(said)}")
        time.sleep(0.2)


def backend_command(live: dict[str, Any]) -> list[str]:
    """Command line that starts a backend like the live one, on the scratch server. Pure.

    The same image, settings and secret files, which are mounted; no uploads of its own.

    Args:
        live: `docker inspect` of the live backend's container.
    """
    asked, limits = live["Config"], live["HostConfig"]
    program, *words = (asked["Entrypoint"] or []) + (asked["Cmd"] or [])
    options = [word for each in asked["Env"] for word in ("-e", each)]
    for mount in live["Mounts"]:
        place = mount["Destination"]
        if mount["Type"] == "bind":
            options += ["-v", f"{mount['Source']}:{place}:ro"]
        else:
            options += ["--tmpfs", f"{place}:size=16m,mode=1777"]
    return [
        *("docker", "run", "-d", "--name", BACKEND, "--pull", "never", "--network", NETWORK),
        *("--memory", str(limits["Memory"]), "--memory-swap", str(limits["Memory"])),
        *("--cpu-shares", "128", "--cap-drop", "ALL", "--pids-limit", "128", "--read-only"),
        *("--security-opt", "no-new-privileges:true", "--user", asked["User"]),
        *("--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev"),  # noqa: S108
        *options,
        *("--entrypoint", program, asked["Image"], *words),
    ]


def try_backend(live: str) -> float:
    """Have a backend like the live one come up on the scratch server's data; after how long.

    It migrates and writes at its start, so it does not come up on data that it cannot use.

    Raises:
        Failed: it does not, with its last words.
    """
    began = time.monotonic()
    found = json.loads(run("docker", "inspect", live))[0]
    run(*backend_command(found))
    healthy = found["Config"]["Healthcheck"]["Test"][1:]
    while True:
        with contextlib.suppress(Failed):
            run(*inside(BACKEND, *healthy))
            return time.monotonic() - began
        state = run("docker", "inspect", "-f", "{{.State.Status}}", BACKEND).strip()
        if state != "running" or time.monotonic() > began + START_TIMEOUT:
            said = run("sh", "-c", f"docker logs --tail 5 {BACKEND} 2>&1").strip().splitlines()
            raise Failed(f"the backend does not come up on it: {' | '.join(said)}")
        time.sleep(0.2)


def ask_backend() -> list[str]:
    """What the backend on the scratch server fails at, asked as a new colour is: health, strangers,
    a login, its lists; nothing if all is well. Changes the copy.
    """
    from koprogo_deploy.on_host import ask  # some MB, which a backup has no use for

    sql(NAME, database.UNGUARD_SQL)  # it would keep the superadmin's real password
    found = sql(NAME, _LOGIN)
    return ask.failures((ask.address(BACKEND), 8080), None, json.loads(found) if found else None)


def down() -> list[str]:
    """Remove the server with its volume and its network; what was there, by name."""
    found = []
    for name in (BACKEND, NAME):
        if _exists("container", name):
            run("docker", "rm", "-f", "-v", name)
            found.append(name)
    if _exists("network", NETWORK):
        for name in _attached():
            # Of a rehearsal that was cut: the network cannot go before it.
            run("docker", "network", "disconnect", "-f", NETWORK, name)
        run("docker", "network", "rm", NETWORK)
        found.append(NETWORK)
    return found


_LIST = {
    "container": ("docker", "ps", "-a", "--format", "{{.Names}}"),
    "network": ("docker", "network", "ls", "--format", "{{.Name}}"),
}


def _exists(kind: str, name: str) -> bool:
    return name in run(*_LIST[kind]).split()


def _attached() -> Iterable[str]:
    look = "{{range .Containers}}{{.Name}} {{end}}"
    return run("docker", "network", "inspect", "-f", look, NETWORK).split()
