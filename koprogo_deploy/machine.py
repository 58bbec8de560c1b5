"""What has to be on the machine: packages, files, accounts. Pure; the stages bring it about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from koprogo_deploy import accounts, backups
from koprogo_deploy.data.host import CLIENTS, DEPLOY_WAIT, RUN
from koprogo_deploy.data.repository import is_local
from koprogo_deploy.files import RemoteFile
from koprogo_deploy.render import template
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import show_size

SWAP_FILE = "/swapfile"
CONTAINER_UNITS = "/etc/systemd/system/docker-.scope.d/50-koprogo.conf"
RUN_FILE = "/etc/tmpfiles.d/koprogo.conf"
BINARY_UNIT = "/etc/systemd/system/koprogo-traefik-binary.service"

# Modules that koprogo-data needs on the host, as they stand in the package.
DATA_MODULES = (
    "__init__",
    "database",
    "journal",
    *(f"data/{name}" for name in ("__init__", "backup", "dump", "hashes", "host", "live")),
    *(f"data/{name}" for name in ("main", "repository", "scratch", "tree", "upgrade")),
    *(f"on_host/{name}" for name in ("__init__", "ask")),
)
TIMERS = tuple(f"koprogo-{kind}.timer" for kind in backups.KINDS)
SECRETS_OF_BACKUPS = ("password", "ssh_key", "known_hosts", "s3.json")
_PACKAGE = Path(__file__).resolve().parent

# Docker Engine and Compose v2 of the distribution, by system and version: those we deploy to.
# Debian 12 has only the retired Compose in Python.
ENGINE_PACKAGES = {
    ("debian", "13"): ("docker-cli", "docker-compose", "docker.io", "iptables"),
    ("ubuntu", "24.04"): ("docker-compose-v2", "docker.io"),
}

DAEMON = {
    # json-file never deletes; local compresses and caps.
    "log-driver": "local",
    "log-opts": {"max-size": "10m", "max-file": "3"},
    # An engine upgrade or restart leaves the containers running.
    "live-restore": True,
    # No process a published port, and clients keep their address.
    "userland-proxy": False,
    "no-new-privileges": True,
    "icc": False,
    "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 16384, "Hard": 16384}},
}


def packages(settings: Settings) -> list[str]:
    """Packages of the host stage, from the distribution."""
    wanted = ["ca-certificates", "curl", "iproute2", "procps", "python3", "restic", "vmtouch"]
    if (settings.backup_repository or "").startswith("sftp:"):
        wanted.append("openssh-client")
    if settings.unattended_upgrades:
        wanted.append("unattended-upgrades")
    if settings.time_synchronisation:
        wanted.append("systemd-timesyncd")
    if settings.admin_users:
        wanted.append("sudo")
    return sorted({*wanted, *settings.extra_packages})


def host_files(settings: Settings) -> list[RemoteFile]:
    """Configuration files of the host stage."""
    journal = show_size(settings.journald_limit).removesuffix("B")
    files = [
        RemoteFile(
            "/etc/sysctl.d/60-koprogo.conf", template("host/sysctl.conf", sysctl=settings.sysctl)
        ),
        RemoteFile(
            "/etc/systemd/journald.conf.d/60-koprogo.conf",
            template("host/journald.conf", limit=journal),
        ),
        sshd_file(),
        RemoteFile(RUN_FILE, template("host/tmpfiles.conf", run=RUN)),
    ]
    if settings.unattended_upgrades:
        files.append(RemoteFile("/etc/apt/apt.conf.d/60-koprogo", template("host/apt.conf")))
    for name, keys in sorted(settings.admin_users.items()):
        sudo = f"{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"
        files.append(RemoteFile(f"{accounts.SUDOERS}{name}", sudo, "440"))
        files.append(RemoteFile(f"{accounts.KEYS}/{name}", "".join(f"{k}\n" for k in keys)))
    return files + data_files(settings)


def sshd_file() -> RemoteFile:
    """sshd's configuration: keys only, and for managed accounts those of ours alone."""
    text = template("host/sshd.conf", group=accounts.GROUP, keys=accounts.KEYS)
    return RemoteFile(accounts.SSHD_FILE, text)


def daemon_file() -> RemoteFile:
    """The engine's configuration."""
    return RemoteFile("/etc/docker/daemon.json", json.dumps(DAEMON, indent=2) + "\n")


def container_units_file() -> RemoteFile:
    """What systemd is told of every container's unit, so that it leaves Docker's limit alone."""
    return RemoteFile(CONTAINER_UNITS, template("systemd/docker-.scope"))


def binary_files(settings: Settings) -> list[RemoteFile]:
    """The unit that keeps Traefik's binary in memory, and its script."""
    root = settings.install_root
    return [
        RemoteFile(BINARY_UNIT, template("systemd/koprogo-traefik-binary.service", root=root)),
        RemoteFile(
            f"{root}/bin/traefik-binary", template("scripts/traefik-binary.sh", root=root), "755"
        ),
    ]


def data_files(settings: Settings) -> list[RemoteFile]:
    """`koprogo-data`: the program, the modules it is made of, and its settings."""
    root = settings.install_root
    backup = {
        "repository": backups.place(settings),
        "keep_daily": settings.backup_keep_daily,
        "keep_weekly": settings.backup_keep_weekly,
        "keep_monthly": settings.backup_keep_monthly,
        "timeout": settings.backup_timeout,
        "list_timeout": settings.backup_list_timeout,
        "wait": settings.backup_wait,
        "unsaved": backups.unsaved(settings),
    }
    values = {
        "environment": settings.environment,
        "memory": settings.backup_memory,
        "backup": backup,
    }
    modules = [
        RemoteFile(
            f"{root}/data/lib/{_PACKAGE.name}/{name}.py",
            (_PACKAGE / f"{name}.py").read_text(encoding="utf-8"),
        )
        for name in DATA_MODULES
    ]
    return [
        *modules,
        RemoteFile(f"{root}/data/settings.json", json.dumps(values, indent=1) + "\n"),
        RemoteFile(f"{root}/bin/koprogo-data", template("scripts/koprogo-data.py"), "755"),
    ]


def backup_units(settings: Settings) -> list[RemoteFile]:
    """Services and timers of backups and drills."""
    day, time = settings.backup_drill_schedule.split()
    calendars = {
        "backup": [f"*-*-* {time}:00" for time in settings.backup_schedule],
        "drill": [f"{day} *-*-* {time}:00"],
    }
    what = {"backup": "Back up KoproGo's data", "drill": "Prove KoproGo's newest backup"}
    files = []
    for kind in backups.KINDS:
        values = {"kind": kind, "what": what[kind], "root": settings.install_root}
        place = backups.place(settings)
        local = place if is_local(place) else ""
        in_a_home = local.startswith(("/home/", "/root/", "/run/user/"))
        unit = f"/etc/systemd/system/koprogo-{kind}"
        # A deploy to wait for, and restic some times over: of these each is bounded by itself.
        longest = DEPLOY_WAIT + 4 * settings.backup_timeout
        service = template(
            "systemd/koprogo-data.service",
            memory=CLIENTS,
            longest=longest,
            repository=local,
            # Hidden, what is in there could not be written to either.
            home="read-only" if in_a_home else "yes",
            **values,
        )
        timer = template(
            "systemd/koprogo-data.timer",
            calendars=calendars[kind],
            jitter=backups.JITTER,
            **values,
        )
        files += [RemoteFile(f"{unit}.service", service), RemoteFile(f"{unit}.timer", timer)]
    return files


def backup_secrets(settings: Settings, kept: Secrets, ssh_key: str) -> list[RemoteFile]:
    """What the repository is opened with: files of root's, no container's.

    Args:
        settings: say where it is.
        kept: the environment's secrets.
        ssh_key: private key for `sftp:`; empty for other places.
    """
    contents = {
        "password": f"{kept['BACKUP_PASSWORD']}\n",
        "ssh_key": ssh_key,
        "known_hosts": backups.known_host(settings),
        "s3.json": json.dumps(s3) if (s3 := backups.s3_variables(kept)) else "",
    }
    return [
        RemoteFile(path, contents[name], "400")
        for name, path in zip(SECRETS_OF_BACKUPS, backup_secret_paths(settings), strict=True)
        if contents[name]
    ]


def backup_secret_paths(settings: Settings) -> list[str]:
    """Where those files lie, whether this repository needs each or not."""
    return [f"{settings.install_root}/data/backup/{name}" for name in SECRETS_OF_BACKUPS]


def image_note(settings: Settings, image: str = "") -> RemoteFile:
    """The file that tells the unit's script which image Traefik runs from."""
    return RemoteFile(f"{settings.install_root}/traefik/image", f"{image}\n")


def compared(settings: Settings) -> dict[str, Any]:
    """What the stages compare, as the host fact is asked for it: all of it in one look."""
    files = [
        *host_files(settings),
        daemon_file(),
        container_units_file(),
        *binary_files(settings),
        image_note(settings),
        *backup_units(settings),
    ]
    engine = {name for names in ENGINE_PACKAGES.values() for name in names}
    return {
        "files": (*(file.path for file in files), *backup_secret_paths(settings)),
        "packages": tuple(sorted({*packages(settings), *engine})),
        "sysctl": tuple(settings.sysctl),
        "units": ("docker.service", *TIMERS),
        "users": tuple(settings.admin_users),
        "patterns": accounts.FILES,
        "root": settings.install_root,
    }
