"""Backups as the settings want them: where to, when, and when an old one is too old. Pure."""

from __future__ import annotations

from typing import Any

from koprogo_deploy.data.repository import is_local, storage
from koprogo_deploy.journal import Journal
from koprogo_deploy.problems import Problem
from koprogo_deploy.render import UPLOADS, backend_environment
from koprogo_deploy.secrets import ISSUED, Secrets
from koprogo_deploy.settings import Settings

KINDS = ("backup", "drill")
JITTER = "10min"  # RandomizedDelaySec of the timers
_LATE = 6 * 3600  # seconds that a backup may be late before somebody has to look
_WEEK = 7 * 86400
_DAY = 86400


def place(settings: Settings) -> str:
    """The repository as restic takes it; on the host itself where the settings name none."""
    return settings.backup_repository or f"{settings.install_root}/backups"


def off_site(settings: Settings) -> bool:
    """Whether a backup outlives the host, as far as its address tells."""
    return not is_local(place(settings))


def not_off_site(settings: Settings) -> str:
    """What to say while it does not; empty if it does."""
    if off_site(settings):
        return ""
    return (
        f"backups go to {place(settings)} on the host itself, and are lost with it: set "
        'backup_repository to "sftp:user@host:/path" or "s3:https://host/bucket"'
    )


def unsaved(settings: Settings) -> str:
    """What to say of documents that no backup holds, as they lie elsewhere; empty if they do not.

    A backup is made nevertheless: without it the database would have none either.
    """
    variables = backend_environment(settings)
    provider, place = variables["STORAGE_PROVIDER"], variables["UPLOAD_DIR"]
    if provider != "local":
        where = f"STORAGE_PROVIDER = {provider} in backend_environment keeps them in a storage"
        return f"no backup holds the documents: {where} of its own. Back that up by itself"
    if place.rstrip("/") != UPLOADS and not place.startswith(f"{UPLOADS}/"):
        where = f"UPLOAD_DIR = {place} in backend_environment lies outside the volume {UPLOADS}"
        return f"no backup holds the documents: {where}. Leave it out"
    return ""


def warnings(settings: Settings) -> list[str]:
    """What an operator has to know of every backup, a line each."""
    return [each for each in (not_off_site(settings), unsaved(settings)) if each]


def known_host(settings: Settings) -> str:
    """Line of known_hosts for the storage; empty where it is not reached over SSH."""
    target = storage(place(settings))
    if target is None or not settings.backup_host_key:
        return ""
    _, host, port = target
    return f"{host if port == '22' else f'[{host}]:{port}'} {settings.backup_host_key}\n"


def missing_secrets(settings: Settings, kept: Secrets) -> list[Problem]:
    """Secrets that the repository needs and that are not in the file."""
    if not (settings.backup_repository or "").startswith("s3:"):
        return []
    where, fix = f".env.{settings.environment}", 'backup_repository = "s3:…" needs it; add it'
    return [Problem(where, f"{name} is missing", fix) for name in ISSUED if name not in kept.values]


def s3_variables(kept: Secrets) -> dict[str, str]:
    """What restic reads for S3-compatible storage."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {
        name: kept[issued]
        for name, issued in zip(names, ISSUED, strict=True)
        if issued in kept.values
    }


def longest(settings: Settings) -> dict[str, int]:
    """Seconds after which the newest backup, and the newest drill, are too old."""
    minutes = sorted(int(t[:2]) * 60 + int(t[3:]) for t in settings.backup_schedule)
    gaps = [
        (after - before) % 1440 or 1440
        for before, after in zip(minutes, [*minutes[1:], minutes[0]], strict=True)
    ]
    return {"backup": max(gaps) * 60 + _LATE, "drill": _WEEK + _DAY}


def newest(journal: Journal, kind: str, outcome: str = "") -> dict[str, Any] | None:
    """The newest line of a kind, or of those with an outcome."""
    found = [
        entry
        for entry in journal.entries
        if entry.get("kind") == kind and outcome in ("", entry.get("outcome"))
    ]
    return found[-1] if found else None
