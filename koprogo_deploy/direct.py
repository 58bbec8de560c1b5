"""What a colour is asked directly, without the front door, and by whose login. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import bcrypt

from koprogo_deploy import database
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import Settings

PUBLIC_PASSWORD = "admin123"  # noqa: S105 - KoproGo's own, for the logins that its endpoint makes
SUPERADMIN = database.SUPERADMIN
UNCOUNTED = (
    "a tenant's lists: Postgres gives an error for their rows, so a table or its organization_id "
    "may be gone; docker logs koprogo-postgres-1"
)


@dataclass(frozen=True)
class Tenant:
    """A seeded organisation: its login, and rows that there are at least."""

    email: str
    buildings: int
    owners: int


TENANTS = (
    Tenant("admin@small.be", 5, 20),
    Tenant("admin@medium.be", 8, 40),
    Tenant("admin@large.be", 10, 66),
)


def seed_password(settings: Settings, secrets: Secrets) -> str:
    """Of the seeded logins."""
    return PUBLIC_PASSWORD if settings.seed_via == "api" else secrets["SEED_PASSWORD"]


def login(
    settings: Settings, secrets: Secrets, seeded: str | None, guarded: str | None
) -> dict[str, Any] | None:
    """The login that a backend has to accept: a tenant's if one is seeded, else the superadmin's.

    One that is not in the database, or has another password there, says nothing of a release.

    Args:
        settings: whether there is a seed, and a guard.
        secrets: the passwords.
        seeded: what `database.digest` tells of the first seeded login's hash; None without.
        guarded: the same of the superadmin's.
    """
    if settings.seed_enabled and is_told(seed_password(settings, secrets), seeded):
        first = TENANTS[0]
        lists = {"/buildings": first.buildings, "/owners": first.owners, "/units": 30}
        password = seed_password(settings, secrets)
        return {
            "email": first.email,
            "password": password,
            "lists": {**lists, "/expenses": 10},
        }
    password = secrets["SUPERADMIN_PASSWORD"]
    if settings.superadmin_guard and is_told(password, guarded):
        return {"email": SUPERADMIN, "password": password, "lists": {"/buildings": 0}}
    return None


def reader(tenant: Mapping[str, Any]) -> dict[str, Any] | None:
    """The lists that a backend has to show to a tenant of real data; None where there is none.

    No row is made for it and nobody's password is known: the program on the host signs a token
    with the backend's own secret, for an organisation that is there, reads, and lets it end. So a
    tenant sees nothing of it. An image that cannot read a kind of row answers an empty list.

    Args:
        tenant: what `database.tenant_query` answered.
    """
    if not tenant.get("organization"):
        return None
    # Others write and delete meanwhile, so that about as many rows are enough; one is not none.
    least = {path: (rows + 1) // 2 for path, rows in tenant["rows"].items()}
    return {"organization": tenant["organization"], "lists": least}


def untried(login: object, reader: Mapping[str, Any] | None) -> list[str]:
    """What a run could not try, in words; a person has to know that nobody looked.

    Args:
        login: what `login` gave.
        reader: what `reader` gave.
    """
    found = []
    if login is None:
        found.append("no login was tried: no seed, and no superadmin's password of ours")
    if reader is None:
        found.append("no tenant's list was tried: there is no organisation in the database")
    elif empty := [path for path, rows in reader["lists"].items() if not rows]:
        found.append(f"nobody has a row to show in {', '.join(empty)}: an answer, and no more")
    return found


@cache
def is_told(password: str, found: str | None) -> bool:
    """Whether a hash of which this is told (`database.digest`) is one of the password.

    Kept for the run: a quarter of a second of CPU, and a run asks more than once.
    """
    try:
        again = bcrypt.hashpw(password.encode(), (found or "")[:29].encode())
    except ValueError:
        return False  # no hash of bcrypt's
    return hmac.compare_digest(database.told(again.decode()), found or "")


def on_one_line(failures: list[str], longest: int = 300) -> str:
    """What failed, for a mark or the journal."""
    words = " ".join("; ".join(failures).split())
    return words if len(words) <= longest else f"{words[:longest]}…"


def newer_than(image: set[str], applied: Mapping[str, bool]) -> list[str]:
    """Migrations of the database that a release does not know.

    What serves runs on the newer schema; what is started on it does not come up.

    Args:
        image: those of its image.
        applied: those of the database.
    """
    return sorted(set(applied) - image)


def lacking(found: StackState, applied: Mapping[str, bool]) -> list[str]:
    """Migrations of the database that what serves lacks; none where its own are not known.

    Args:
        found: what is deployed.
        applied: those of the database.
    """
    known = database.versions(found.migrations.get(found.live["id"], [])) if found.live else set()
    return newer_than(known, applied) if known else []


def lacks(release: str, newer: Sequence[str]) -> str:
    """What is said of a release that serves on a schema which its image does not know.

    Args:
        release: its id.
        newer: what `newer_than` found; nothing is said where it found none.
    """
    if not newer:
        return ""
    shown = f"{', '.join(newer[:3])}{' …' if len(newer) > 3 else ''}"
    return (
        f"the database has {len(newer)} migration(s) that release {release} lacks ({shown}): it "
        "serves, and would not start again, as after a reboot"
    )


def ways_out(release: str, environment: str) -> str:
    """How a release comes to serve that the schema fits.

    Args:
        release: id of the one that serves.
        environment: for the commands.
    """
    return (
        "there are two ways: (1) an image that has these migrations and not the fault, with "
        "deploys/full.py; (2) the dump of before them: "
        f"pyinfra inventories/{environment}.py deploys/rollback.py --data release={release} says "
        "what that would lose"
    )
