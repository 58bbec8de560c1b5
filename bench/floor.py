"""What the deploys are measured against: plain shell scripts, each sent over one SSH connection.

They are the least that leads to the same end: no decisions, no checks on the way, no way back.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from datetime import UTC, datetime

import bcrypt

from koprogo_deploy import connection, database, door, render, seed
from koprogo_deploy.facts.host import Host
from koprogo_deploy.facts.stack import Database, Stack
from koprogo_deploy.files import RemoteFile, archive
from koprogo_deploy.machine import (
    ENGINE_PACKAGES,
    binary_files,
    compared,
    container_units_file,
    daemon_file,
    host_files,
    image_note,
    packages,
)
from koprogo_deploy.operations import context, release
from koprogo_deploy.operations.host import APT
from koprogo_deploy.operations.shell import psql
from koprogo_deploy.plan.wanted import Wanted
from koprogo_deploy.pyinfra_adapter import commands
from koprogo_deploy.settings import SERVICES, SWITCHED
from sandbox import standin

RELEASE = "20000101T000000Z-floor"


def script_command(environment: door.Environment, on_host: str) -> list[str]:
    """OpenSSH with a connection of its own, that no run before it left open."""
    config = str(connection.ssh_config_file(environment))
    alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    return ["ssh", "-F", config, *alone, environment.host, on_host]


# apt and docker would read on from the script if it came by standard input.
RUN_SCRIPT = "sudo -n sh -c 'umask 077; cat > /run/floor.sh; exec sh /run/floor.sh < /dev/null'"


def cold_script(environment: door.Environment) -> str:
    """From a fresh machine to KoproGo with its data: packages, files, images, up, SQL."""
    settings = environment.settings
    root = settings.install_root
    sets = context.secret_sets(environment)
    images = {service: settings.image(service) for service in SERVICES}
    made = render.render(settings, sets, images, dict.fromkeys(SWITCHED, "blue"), RELEASE)
    wanted = ENGINE_PACKAGES["debian", "13"]
    now = datetime.now(UTC)
    hashed = bcrypt.hashpw(environment.secrets["SEED_PASSWORD"].encode(), bcrypt.gensalt(12))
    data = seed.generate(settings.seed_number, settings.seed_scale, hashed.decode(), now.date())
    guard = bcrypt.hashpw(environment.secrets["SUPERADMIN_PASSWORD"].encode(), bcrypt.gensalt(8))
    verifier = database.scram_verifier(environment.secrets["DATABASE_PASSWORD"])
    login = database.login_name(render.secret_directories(sets)["backend"])
    roles = database.login_sql(login, verifier) + database.DATABASE_SQL
    rows = database.EXTENSION_SQL + database.guard_sql(guard.decode()) + seed.insert_sql(data)
    pulls = "\n".join(
        f'docker pull -q {shlex.quote(image)} & jobs="$jobs $!"'
        for image in sorted(images.values())
    )
    compose = f"docker compose --progress quiet -f {root}/current/compose.yaml up -d --wait"
    install = " ".join(sorted({*packages(settings), *wanted}))
    return f"""set -eu; umask 022
base64 -d <<'FILES' | tar -xzpf - --same-owner -C /
{archive(_files(environment, made, now))}FILES
{APT} update
{APT} install --no-install-recommends {install}
sysctl -q -p /etc/sysctl.d/60-koprogo.conf
systemctl restart systemd-journald
systemctl reload ssh
timedatectl set-timezone {settings.timezone}
jobs=
{pulls}
for job in $jobs; do wait $job; done
cd {root}; ln -s releases/{RELEASE} current
chmod 700 secrets secrets/*; mkdir -p traefik/acme
bin/traefik-binary find; systemctl daemon-reload
systemctl enable --now koprogo-traefik-binary.service
{compose} postgres
{psql("postgres")} <<'SQL'
{roles}
SQL
{compose}
{psql()} <<'SQL' >/dev/null
{rows}
SQL
"""


def _files(environment: door.Environment, made: render.Release, now: datetime) -> list[RemoteFile]:
    settings = environment.settings
    root = settings.install_root
    files = [*host_files(settings), daemon_file(), container_units_file()]
    files += binary_files(settings)
    files.append(image_note(settings, made.images["traefik"]))
    files.append(
        RemoteFile(f"{root}/traefik/dynamic/dynamic.yaml", made.files["traefik/dynamic.yaml"])
    )
    sets = context.secret_sets(environment)
    for service, directory in render.secret_directories(sets).items():
        files += [
            RemoteFile(f"{root}/secrets/{directory}/{name}", text, "400", render.USERS[service])
            for name, text in sets[service].items()
        ]
    for service, directory in release.config_directories(made).items():
        files += [
            RemoteFile(f"{root}/config/{directory}/{name.rpartition('/')[2]}", made.files[name])
            for name in release.CONFIG_FILES[service]
        ]
    wanted = Wanted(made, "", made.hash)
    about = release.manifest(wanted, environment, RELEASE, now)
    # As they lie in the stand-in's image; a deploy reads them from there.
    migrations = "".join(f"{name}\n" for name in standin.migrations())
    kept = {**made.files, "manifest.json": json.dumps(about), "migrations.txt": migrations}
    files += [RemoteFile(f"{root}/releases/{RELEASE}/{name}", text) for name, text in kept.items()]
    return files


def look_script(environment: door.Environment) -> str:
    """Everything a deploy looks at on the host, in one go: the very commands of its facts."""
    settings = environment.settings
    looks = [
        Host().command(**compared(settings)),
        Stack().command(root=settings.install_root),
        Database().command(query=database.ROLE_QUERY, database="postgres"),
        Database().command(query=database.migrations_query()),
        Database().command(query=seed.STATE_SQL),
    ]
    return "\n".join(f"(\n{commands.text(look)}\n)" for look in looks) + "\n"


def seen(output: str) -> str:
    """Digest of what `look_script` printed, but for what changes by itself."""
    moving = ("clock\t", "disk\t")
    kept = [line for line in output.splitlines() if not line.startswith(moving)]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()
