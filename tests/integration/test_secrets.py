"""The hunt: new secrets are pushed with all of pyinfra's output on, while another user of the host
reads what it can; afterwards they are looked for wherever a host keeps things.
"""

from __future__ import annotations

import json
import re
import secrets as random
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import connection, database, secrets
from koprogo_deploy.render import container_names
from tests.integration.rig import ROOT, Rig
from tests.integration.traffic import Stream, Traffic, told, where

USER = "hunter"
STOP = "/run/hunt-stop"

# As another user, without end: command lines, environments, /tmp, and whatever a deploy leaves
# open to others. Keeps what it read; the secrets are looked for outside.
_HUNTER = r"""
import glob, json, os, pathlib, sys
seen, rounds, denied = set(), 0, set()
def read(path):
    try:
        with open(path, "rb") as file:
            seen.add(file.read(1 << 20).decode(errors="replace"))
    except OSError:
        denied.add(path)
print("ready", flush=True)
while not os.path.exists("STOP"):
    rounds += 1
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            read(f"/proc/{entry}/cmdline")
            read(f"/proc/{entry}/environ")
    for top in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/run/koprogo"):
        for directory, _, files in os.walk(top):
            for name in files:
                read(os.path.join(directory, name))
    if rounds % 20 == 1:
        for directory, _, files in os.walk("/opt/koprogo"):
            for name in files:
                read(os.path.join(directory, name))
print(json.dumps({"rounds": rounds, "seen": sorted(seen)}))
"""

# As root, afterwards. The values come by standard input and are named, never shown.
_SEARCH = r"""
import json, os, pathlib, subprocess, sys
values = json.load(sys.stdin)
found, looked = [], 0
def look(where, data, readers=lambda name: False):
    global looked
    looked += 1
    found.extend([name, where] for name, value in values.items()
                 if value.encode() in data and not readers(name))
def run(*command):
    look(" ".join(command)[:80], subprocess.run(command, capture_output=True).stdout)
ids = subprocess.check_output(["docker", "ps", "-aq"], text=True).split()
images = subprocess.check_output(["docker", "images", "-q"], text=True).split()
run("journalctl", "--no-pager", "-o", "export")
run("docker", "inspect", *ids)
run("docker", "compose", "-f", "/opt/koprogo/current/compose.yaml", "config")
for each in ids:
    look(f"logs of {each}", subprocess.run(["docker", "logs", each], stdout=subprocess.PIPE,
                                           stderr=subprocess.STDOUT).stdout)
for each in images:
    run("docker", "history", "--no-trunc", each)
    run("docker", "inspect", each)
for top in ("/opt/koprogo", "/etc", "/home", "/root", "/tmp", "/var/tmp", "/var/log", "/run",
            "/dev/shm", "/var/lib/docker"):
    for directory, folders, files in os.walk(top):
        # The one place where they belong, as files and as a container sees them.
        folders[:] = [f for f in folders if os.path.join(directory, f) not in
                      ("/opt/koprogo/secrets", "/opt/koprogo/data/backup",
                       "/var/lib/docker/overlay2", "/run/docker/netns")]
        for name in files:
            path = pathlib.Path(directory, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 64 << 20:
                try:
                    look(str(path), path.read_bytes())
                except OSError:
                    pass
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        look(f"{process}/cmdline", (process / "cmdline").read_bytes())
        # Only root and the same user read these: the readers of a secret may have it there. The
        # images take theirs from the environment, KoproGo's by our script, Postgres' by its own.
        environment, user = (process / "environ").read_bytes(), process.stat().st_uid
        readers = lambda name: False
        if user == 1000 and b"SERVER_PORT=8080" in environment:
            readers = lambda name: name != "TLS" and "SEED_" not in name and "SUPER" not in name
        if user == 999 and b"PGDATA=" in environment:
            readers = lambda name: name.endswith("POSTGRES_PASSWORD")
        look(f"{process}/environ", environment, readers)
    except OSError:
        pass
print(json.dumps({"found": found, "looked": looked}))
"""


def rotate(*names: str) -> None:
    """Give these secrets new values, as an operator would: in the file."""
    path = secrets.path_for("sandbox", ROOT)
    text = path.read_text()
    for name in names:
        text, replaced = re.subn(
            rf"^{name}=.*$", f"{name}={random.token_hex(32)}", text, flags=re.MULTILINE
        )
        assert replaced == 1
    path.write_text(text)


@pytest.fixture
def hunter(rig: Rig) -> Any:
    """Another user of the host, reading all the while; call it to stop and get what it saw."""
    rig.on_host(f"id {USER} >/dev/null 2>&1 || useradd --system {USER}; rm -f {STOP}")
    script = shlex.quote(_HUNTER.replace("STOP", STOP))
    process = subprocess.Popen(
        connection.ssh_command(rig.environment, f"sudo -n -u {USER} python3 -c {script}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"

    def stop() -> dict[str, Any]:
        rig.on_host(f"touch {STOP}")
        output, _ = process.communicate(timeout=60)
        result: dict[str, Any] = json.loads(output)
        return result

    yield stop
    rig.on_host(f"touch {STOP}")
    process.wait(timeout=30)
    rig.on_host(f"userdel {USER}; rm -f {STOP}")


def test_secrets_appear_nowhere_but_in_their_files(rig: Rig, hunter: Any) -> None:
    old = dict(rig.environment.secrets.values)
    rotate(*(name for name in old if name != "POSTGRES_PASSWORD"))
    run = rig.deploy("-vvv", "--debug", "--diff")
    decoy = random.token_hex(32)  # proves that hunter and search find what is there
    rig.on_host(f"logger {decoy}; sleep 0.5")
    seen = hunter()
    assert run.code == 0, "the deploy failed"  # its output is not shown: it may hold what leaked
    assert {"Release | Push the secrets", "Seed | Seed the realistic data"} <= set(run.changed)

    environment = rig.environment
    key = (ROOT / str(environment.settings.tls_key)).read_text().splitlines()[1]
    values = environment.secrets.values | {f"old {k}": v for k, v in old.items()} | {"TLS": key}
    leaked = [name for name, value in values.items() if value in run.output]
    assert leaked == [], "in pyinfra's output"
    log = Path(ROOT / "pyinfra-debug.log")
    assert not log.exists() or not any(v in log.read_text() for v in values.values())

    texts = "\0".join(seen["seen"])
    print(f"{seen['rounds']} rounds as another user, {len(seen['seen'])} different texts")
    assert decoy in texts, "the hunter saw no command of ours"
    leaked = [name for name, value in values.items() if value in texts]
    assert leaked == [], "read by another user"

    given = json.dumps(values | {"decoy": decoy})
    search = json.loads(rig.on_host(f"python3 -c {shlex.quote(_SEARCH)}", stdin=given, within=180))
    print(f"{search['looked']} places searched")
    assert search["looked"] > 500
    decoys = [found for found in search["found"] if found[0] == "decoy"]
    assert decoys, "the search did not find what was logged"
    assert search["found"] == decoys
    assert rig.leftovers() == []


def test_rotated_secrets_are_in_force_and_old_ones_go(rig: Rig) -> None:
    from koprogo_deploy.outside import Outside

    old = rig.environment.secrets["SEED_PASSWORD"]
    rotate("SEED_PASSWORD")
    run = rig.converge()
    assert run.changed == ["Seed | Seed the realistic data"], run.output
    with Outside(rig.environment.settings) as outside:
        assert outside.login("admin@small.be", old).status_code == 401
        new = rig.environment.secrets["SEED_PASSWORD"]
        assert outside.login("admin@small.be", new).status_code == 200


STREAMS = (Stream("write", 10), Stream("write", 5, kept=False), Stream("read", 10))


def logins(rig: Rig) -> set[str]:
    """Roles that a backend can log in to the database as."""
    return set(json.loads(rig.sql(database.LOGINS_QUERY)))


@pytest.mark.slow
def test_a_rotated_database_password_leaves_either_colour_its_own(rig: Rig) -> None:
    rig.converge()
    serving = rig.manifest()
    names = container_names(serving["colours"])
    rotate("DATABASE_PASSWORD")
    failed = rig.deploy(backend_command=["/bin/false"])
    assert failed.code == 1, failed.output
    assert rig.manifest()["id"] == serving["id"]
    assert logins(rig) > {database.login_of(serving)}
    # What serves has to log in anew, with the old password.
    rig.on_host(f"docker restart koprogo-{names['backend']}-1")
    rig.wait_until_healthy(within=60, only=names)
    with Traffic(where(rig.environment), STREAMS) as traffic:
        time.sleep(3)
        run = rig.deploy()
        time.sleep(3)
    print(told(traffic))
    try:
        assert run.code == 0, run.output[-4000:]
        assert traffic.lost == []
        assert traffic.accounted(rig.sql) == []
    finally:
        traffic.clean(rig.sql, rig.on_host)
    assert logins(rig) == {database.login_of(rig.manifest())}
    assert rig.leftovers() == []
    assert rig.deploy("--dry").would_change == []
