"""Secrets of an environment: the 0600 file `.env.<environment>`, generated, read and checked.

Values never appear in a message, a repr or a log; see `Secrets.__repr__`.
"""

from __future__ import annotations

import os
import re
import secrets as random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from koprogo_deploy.problems import Problem

MINIMUM_LENGTH = 32
MINIMUM_LETTERS = 8  # different ones; 32 random digits have fewer once in thousands of millions


@dataclass(frozen=True)
class Wanted:
    """A secret that an environment must have, and what it is for."""

    name: str
    purpose: str


WANTED = (
    Wanted("POSTGRES_PASSWORD", "Postgres superuser; used once, when the data directory is made"),
    Wanted("DATABASE_PASSWORD", "the backend's login to Postgres"),
    Wanted("JWT_SECRET", "signs the access tokens; a new one logs everybody out"),
    Wanted("TOTP_ENCRYPTION_KEY", "newer KoproGo images: encrypts two-factor secrets"),
    Wanted("METRICS_AUTH_TOKEN", "newer KoproGo images: bearer token of /metrics"),
    Wanted("SUPERADMIN_PASSWORD", "admin@koprogo.com, in place of its public password"),
    Wanted("SEED_PASSWORD", "the three seeded logins, admin@small.be and so on"),
    Wanted("BACKUP_PASSWORD", "encrypts the backups; without it nobody can read one, ever"),
)
# Given by hand where KoproGo's newer images use them; passed to the backend when present.
# Issued by somebody else, most of them: those have whatever length and letters they have.
FROM_OTHERS = (
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "SMTP_PASSWORD",
    "MQTT_PASSWORD",
    "LINKY_CLIENT_SECRET",
    "BOINC_RPC_PASSWORD",
    "SENTRY_DSN",
)
OPTIONAL = (*FROM_OTHERS, "ENERGY_ENCRYPTION_MASTER_KEY")

# Issued by the storage, for backup_repository = "s3:…".
ISSUED = ("BACKUP_S3_ACCESS_KEY", "BACKUP_S3_SECRET_KEY")

_PUBLIC_DEFAULTS = (
    "koprogo123",
    "admin123",
    "syndic123",
    "owner123",
    "comptable123",
    "changeme",
    "minioadmin",
    "password",
    "super-secret-key-change-in-production",
    "change-in-production",
    "change-me",
    "your-secret",
)
_SAFE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, repr=False)
class Secrets:
    """The secrets of one environment, by name."""

    values: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self.values))})"


def path_for(environment: str, root: Path) -> Path:
    """The secrets file of an environment."""
    return root / f".env.{environment}"


def initialise(environment: str, root: Path) -> Path:
    """Write `.env.<environment>` with freshly generated values, mode 0600.

    Raises:
        FileExistsError: the file is there; it is never overwritten.
    """
    path = path_for(environment, root)
    lines = [
        f"# Secrets of {environment}: keep a copy where you keep passwords, never in git.",
        "# Hexadecimal, so that neither Compose nor a database URL mangles them.",
        *_generated(WANTED),
    ]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def _generated(wanted: Iterable[Wanted]) -> list[str]:
    lines = []
    for each in wanted:
        lines += ["", f"# {each.purpose}", f"{each.name}={random.token_hex(32)}"]
    return lines


def complete(environment: str, root: Path) -> list[str]:
    """Append generated values for secrets that a file lacks, as after an upgrade.

    Returns:
        Their names. What is in the file already stays as it is.
    """
    path = path_for(environment, root)
    there = dotenv_values(path, interpolate=False)
    missing = [wanted for wanted in WANTED if wanted.name not in there]
    if missing:
        before = path.read_text(encoding="utf-8")
        gap = "" if before.endswith("\n") or not before else "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(gap + "\n".join(_generated(missing)) + "\n")
    return [wanted.name for wanted in missing]


def read(environment: str, root: Path) -> tuple[Secrets | None, list[Problem]]:
    """Read and check the secrets of an environment.

    Returns:
        The secrets, or None, and every problem found. Messages never hold a value.
    """
    path = path_for(environment, root)
    where = path.name
    if not path.is_file():
        fix = f"make it with: koprogo secrets init {environment}"
        return None, [Problem(where, "the secrets file is missing", fix)]
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        fix = "put the file itself there, as the user who deploys"
        return None, [Problem(where, "is a link, or belongs to somebody else", fix)]
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        fix = f"chmod 600 {where}"
        return None, [Problem(where, f"others may read it (mode {mode:04o})", fix)]
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return None, [Problem(where, f"cannot be read: {error.strerror}", "make it your own file")]
    except UnicodeDecodeError:
        return None, [Problem(where, "is not a text file in UTF-8", "write it again as plain text")]
    problems = _malformed_lines(text, where)
    values = {k: v for k, v in dotenv_values(path, interpolate=False).items() if v is not None}
    known = {wanted.name for wanted in WANTED} | {*OPTIONAL, *ISSUED}
    problems += [
        Problem(where, f"{name} is not a secret of KoproGo", _nearest(name, known))
        for name in values
        if name not in known
    ]
    for wanted in WANTED:
        if wanted.name not in values:
            fix = (
                f"koprogo secrets init {environment} adds what is missing, and changes nothing else"
            )
            problems.append(Problem(where, f"{wanted.name} is missing", fix))
    for name, value in values.items():
        if name not in known:
            continue  # its strength is not what is wrong with it
        weak = _of_others if name in (*ISSUED, *FROM_OTHERS) else _weak
        problems += weak(name, value, where)
    problems += _equal({name: value for name, value in values.items() if name in known}, where)
    return (None, problems) if problems else (Secrets(values), [])


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    if close:
        return f"did you mean {close[0]}?"
    return "take the line out; a variable that is no secret goes into backend_environment"


def _malformed_lines(text: str, where: str) -> list[Problem]:
    problems, seen = [], set()
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = re.fullmatch(r"(?:export\s+)?([A-Z][A-Z0-9_]*)=(\S*)", stripped)
        if not match:
            fix = "write NAME=value, no spaces around =, no quotes"
            problems.append(Problem(f"{where} line {number}", "not a NAME=value line", fix))
        elif match[1] in seen:
            problems.append(
                Problem(f"{where} line {number}", f"{match[1]} stands twice", "keep one of them")
            )
        else:
            seen.add(match[1])
    return problems


def _of_others(name: str, value: str, where: str) -> list[Problem]:
    if not value:
        return [Problem(where, f"{name} is empty", "write what was issued to you")]
    if value.lower() in _PUBLIC_DEFAULTS:
        fix = "have another one issued, and write that"
        return [Problem(where, f"{name} is a publicly known default", fix)]
    if not value.isprintable():
        fix = "write it again, as it was issued"
        return [Problem(where, f"{name} has a control character", fix)]
    return []


def _repeats(value: str) -> bool:
    """Whether it is one piece again and again."""
    return value in (value + value)[1:-1]


def _equal(values: Mapping[str, str], where: str) -> list[Problem]:
    """Two names with one value: whoever learns the one has the other. Those of others may be."""
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        if value and name not in (*ISSUED, *FROM_OTHERS):
            by_value.setdefault(value, []).append(name)
    fix = "generate one for each: openssl rand -hex 32"
    return [
        Problem(where, f"{' and '.join(names)} have one value", fix)
        for names in by_value.values()
        if len(names) > 1
    ]


def _weak(name: str, value: str, where: str) -> list[Problem]:
    renew = "generate one: openssl rand -hex 32"
    if not value:
        return [Problem(where, f"{name} is empty", renew)]
    if any(default in value.lower() for default in _PUBLIC_DEFAULTS):
        return [Problem(where, f"{name} is a publicly known default", renew)]
    if len(value) < MINIMUM_LENGTH:
        why = f"{name} is shorter than {MINIMUM_LENGTH} characters ({len(value)})"
        return [Problem(where, why, renew)]
    if not _SAFE.fullmatch(value):
        why = f"{name} has characters that Compose or a URL mangles"
        return [Problem(where, why, f"letters, digits and _ . - only; {renew}")]
    if name == "TOTP_ENCRYPTION_KEY" and not re.fullmatch("[0-9a-f]{64}", value):
        return [Problem(where, f"{name} must be 64 hexadecimal digits", renew)]
    if len(set(value)) < MINIMUM_LETTERS or _repeats(value):
        return [Problem(where, f"{name} is a pattern, and can be guessed", renew)]
    return []
