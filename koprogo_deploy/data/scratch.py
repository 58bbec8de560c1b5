"""The scratch server: a throw-away Postgres beside the real one, for rehearsals and drills."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from koprogo_deploy import database
from koprogo_deploy.data.host import (
    DATABASE,
    POSTGRES,
    Config,
    Failed,
    inside,
    owner_sql,
    run,
    sql,
)

NAME = "koprogo-scratch-1"
BACKEND = "koprogo-scratch-backend-1"
NETWORK = "koprogo-scratch"
USER = 999  # of the server, as of the real one
SECRETS = "/run/secrets/"  # in a backend's container
START_TIMEOUT = 300  # seconds; making an empty data directory on one busy CPU takes ten

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

# Below the install root: what a run mounts, made for that run and thrown away with it. The real
# secrets are none of a copy's business: what a copy signs, the real one would take.
FILES = "data/scratch"
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"  # what any of KoproGo's secrets may be made of
# As the real server's, but for the superuser's and the observer's: nobody else works here.
ACCESS = {
    "pg_hba.conf": """local   all         postgres           peer
local   all         koprogo            peer map=owner
host    koprogo_db  koprogo,+koprogo   samenet  scram-sha-256
""",
    "pg_ident.conf": "owner   postgres   koprogo\n",
}
# The image's entry point would want a password of the superuser, who has none here.
_START = """initdb -D "$PGDATA" -U postgres --auth-local=peer --auth-host=reject >/dev/null
exec "$@\""""

_ANY = ", ".join(
    f"'/{name}', (SELECT count(*) FROM (SELECT 1 FROM public.{name} LIMIT 1) AS one)"  # noqa: S608
    for name in ("buildings", "expenses", "owners", "units")
)


def password() -> str:
    """One that only a copy knows."""
    return "".join(secrets.choice(ALPHABET) for _ in range(64))


def password_sql(email: str, password_hash: str) -> str:
    """Give a login of a copy another password; one JSON object of it and its lists, if it is there.

    The hash is no constant of a statement: the copy's server has a log, too.
    """
    return f"""CREATE TEMP TABLE given (password_hash text);
COPY given FROM STDIN;
{password_hash}
\\.
UPDATE public.users SET password_hash = given.password_hash FROM pg_temp.given
 WHERE lower(email) = {database.literal(email)}
RETURNING json_build_object('email', email, 'lists', json_build_object({_ANY}));
"""  # noqa: S608 - names of ours


def bcrypt(password: str) -> str:
    """A bcrypt hash, by the host's own libcrypt, which every login there needs.

    Raises:
        Failed: it does not know bcrypt.
    """
    try:
        library = ctypes.CDLL("libcrypt.so.1")
    except OSError as error:
        raise Failed(f"no password can be made for a copy: {error}") from None
    for function in (library.crypt, library.crypt_gensalt):
        function.restype = ctypes.c_char_p
    library.crypt_gensalt.argtypes = (
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_int,
    )
    salt = library.crypt_gensalt(b"$2b$", 5, os.urandom(16), 16)
    hashed = library.crypt(password.encode(), salt) if salt else None
    if not hashed or not hashed.startswith(b"$2b$"):
        raise Failed("no password can be made for a copy: libcrypt does not know bcrypt")
    return str(hashed.decode())


def files(config: Config, names: Iterable[str], owner: int, folder: str) -> Path:
    """A directory of throw-away secrets under the names of real ones, for one user alone.

    Args:
        config: for the install root.
        names: of files.
        owner: uid that reads them.
        folder: which one of a run.
    """
    directory = config.root / FILES / folder
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        file = directory / name
        file.write_text(password(), encoding="ascii")
        os.chown(file, owner, owner)
        file.chmod(0o400)
    return directory


def start_command(image: str, memory: int, access: Path) -> list[str]:
    """Command line that starts the server.

    It is called `postgres` on a network of its own, so that a backend finds it where it looks for
    the real one, and cannot find that. No password is in it, nor in the server: its superuser
    works by the socket, inside.

    Args:
        image: a Postgres image.
        memory: bytes, at most.
        access: directory of `ACCESS`.
    """
    within = "/etc/koprogo-scratch"
    own = {"hba_file": f"{within}/pg_hba.conf", "ident_file": f"{within}/pg_ident.conf"}
    settings = [
        word for name, value in {**_SERVER, **own}.items() for word in ("-c", f"{name}={value}")
    ]
    return [
        *("docker", "run", "-d", "--name", NAME, "--pull", "never"),
        *("--network", NETWORK, "--network-alias", "postgres"),
        *("--memory", str(memory), "--memory-swap", str(memory), "--cpu-shares", "128"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--pids-limit", "128"),
        *("--user", f"{USER}:{USER}", "--read-only", "--shm-size", "64m"),
        *("--mount", "type=volume,dst=/var/lib/postgresql/data"),
        *("-v", f"{access}:{within}:ro"),
        *("--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev"),  # noqa: S108
        *("--tmpfs", "/run/postgresql:size=1m,uid=999,gid=999,mode=0775"),
        *("-e", "PGDATA=/var/lib/postgresql/data"),
        *("--entrypoint", "/bin/sh", image, "-euc", _START, "sh", "postgres"),
        *("-c", "listen_addresses=*", *settings),
    ]


def up(config: Config, image: str = "", passwords: bool = False) -> dict[str, Any]:
    """Start the server afresh, with the real one's roles and an empty database.

    Args:
        config: for the memory limit.
        image: a Postgres image; that of the running real server if empty.
        passwords: the roles have their real ones: they are to be compared, and nobody logs in.

    Raises:
        Failed: it does not come up; nothing of it is left.
    """
    down(config)
    began = time.monotonic()
    image = image or run("docker", "inspect", "-f", "{{.Config.Image}}", POSTGRES).strip()
    try:
        run("docker", "network", "create", "--internal", NETWORK)
        access = config.root / FILES / "access"
        access.mkdir(mode=0o755, parents=True)
        access.parent.chmod(0o700)
        access.chmod(0o755)
        for name, text in ACCESS.items():
            (access / name).write_text(text, encoding="ascii")
            (access / name).chmod(0o444)
        run(*start_command(image, config.scratch_memory, access))
        _wait(image)
        # Hashes may be in there: it goes from one server to the other by pipe alone.
        roles = json.loads(sql(POSTGRES, database.roles_query(passwords), "postgres"))
        made = f"{database.roles_sql(roles)}{database.OWNER_LOGIN_SQL}"
        sql(NAME, database.unlogged(made), "postgres")
        sql(NAME, database.DATABASE_SQL, "postgres")
    except BaseException:
        down(config)
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


def secrets_of(live: dict[str, Any]) -> list[str]:
    """Names of the secret files that a backend's container mounts. Pure."""
    places = (mount["Destination"] for mount in live["Mounts"] if mount["Type"] == "bind")
    return sorted(place.removeprefix(SECRETS) for place in places if place.startswith(SECRETS))


def backend_command(live: dict[str, Any], mounted: Path) -> list[str]:
    """Command line that starts a backend like the live one, on the scratch server. Pure.

    The same image and settings; secrets of its own in place of the real ones; no uploads.

    Args:
        live: `docker inspect` of the live backend's container.
        mounted: directory of its secrets, under the names of the real ones.
    """
    asked, limits = live["Config"], live["HostConfig"]
    program, *words = (asked["Entrypoint"] or []) + (asked["Cmd"] or [])
    options = [word for each in asked["Env"] for word in ("-e", each)]
    for mount in live["Mounts"]:
        place = mount["Destination"]
        if mount["Type"] == "bind" and not place.startswith(SECRETS):
            options += ["-v", f"{mount['Source']}:{place}:ro"]
        elif mount["Type"] != "bind":
            options += ["--tmpfs", f"{place}:size=16m,mode=1777"]
    for name in secrets_of(live):
        options += ["-v", f"{mounted / name}:{SECRETS}{name}:ro"]
    return [
        *("docker", "run", "-d", "--name", BACKEND, "--pull", "never", "--network", NETWORK),
        *("--memory", str(limits["Memory"]), "--memory-swap", str(limits["Memory"])),
        *("--cpu-shares", "128", "--cap-drop", "ALL", "--pids-limit", "128", "--read-only"),
        *("--security-opt", "no-new-privileges:true", "--user", asked["User"]),
        *("--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev"),  # noqa: S108
        *options,
        *("--entrypoint", program, asked["Image"], *words),
    ]


def let_in(config: Config, login: str, names: Iterable[str], owner: int) -> Path:
    """Secrets for a backend on the scratch server, of which one is its password there.

    Args:
        config: for the install root.
        login: role that the backend logs in as.
        names: of the secret files that it reads.
        owner: uid that it runs as.

    Returns:
        Their directory.
    """
    made = files(config, names, owner, "backend")
    verifier = database.scram_verifier((made / "database_password").read_text(encoding="ascii"))
    sql(NAME, database.login_sql(login, verifier), "postgres")
    # KoproGo gives its superadmin a public password at each start, and the copy's network can be
    # reached from the host: with people's data behind it, it never works here either.
    guard(bcrypt(password()))
    return made


def guard(password_hash: str) -> None:
    """Have the copy keep this as its superadmin's password, whoever writes to it."""
    sql(NAME, database.guard_sql(password_hash))


def try_backend(config: Config, live: str) -> float:
    """Have a backend like the live one come up on the scratch server's data; after how long.

    It migrates and writes at its start, so it does not come up on data that it cannot use.

    Raises:
        Failed: it does not, with its last words.
    """
    began = time.monotonic()
    found = json.loads(run("docker", "inspect", live))[0]
    variables = dict(each.split("=", 1) for each in found["Config"]["Env"])
    login = variables.get(database.USER, database.OWNER)
    owner = int(found["Config"]["User"].partition(":")[0])
    run(*backend_command(found, let_in(config, login, secrets_of(found), owner)))
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

    login = known_login(database.SUPERADMIN)
    return ask.failures((ask.address(BACKEND), 8080), None, login)


def known_login(email: str) -> dict[str, Any] | None:
    """A login of the copy with a password that only this run knows; None if it has no such login.

    The real ones are none of a copy's business, nor the host's.
    """
    made = password()
    hashed = bcrypt(made)
    if email.lower() == database.SUPERADMIN:
        guard(hashed)
    found = owner_sql(NAME, password_sql(email, hashed))
    return {**json.loads(found), "password": made} if found else None


def down(config: Config) -> list[str]:
    """Remove the server with its volume, its network and its files; what was there, by name."""
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
    shutil.rmtree(config.root / FILES, ignore_errors=True)
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
