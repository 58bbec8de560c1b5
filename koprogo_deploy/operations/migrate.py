"""Migrate: the new image comes up beside the old one, unrouted, and brings the schema with it.

KoproGo migrates at boot; its port opens only afterwards, so healthy means migrated. That is then
verified from outside, in the database.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import bcrypt
from pyinfra import host, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, direct, maintenance
from koprogo_deploy.facts.stack import Database, Stack, StackState
from koprogo_deploy.operations import context, interrupt
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.notes import about, note
from koprogo_deploy.operations.routes import (
    POSTGRES_TIMEOUT,
    given_up,
    or_put_away,
    put_away_command,
    to_blame,
    traefik_answers,
)
from koprogo_deploy.operations.shell import compose_up, owner_psql, psql, wait_until_healthy
from koprogo_deploy.operations.step import step
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import SWITCHED, Settings

SETTLE = 2  # seconds that a new colour must stay healthy before it gets traffic


def release_directory(settings: Settings, found: StackState) -> str:
    """Where the release lies that is being worked on."""
    return f"{settings.install_root}/releases/{target(found)['id']}"


def target(found: StackState) -> dict[str, Any]:
    """Manifest of the release that is being worked on.

    Raises:
        OperationError: nothing was ever pushed.
    """
    manifest = context.planned() or found.target
    if manifest is None:
        raise OperationError("no release on the host; run deploys/full.py or deploys/release.py")
    return manifest


def as_wanted(found: StackState, service: str) -> bool:
    """Whether a service of the target release runs, healthy, with the definition it should have."""
    manifest = target(found)
    container = found.containers.get(container_names(manifest["colours"])[service])
    return bool(container and container.serving and container.spec == manifest["specs"][service])


def bring_up(settings: Settings, found: StackState, seconds: int, *services: str) -> str:
    """Start services of the target release together, and wait until each is healthy.

    One that has the right definition and does not serve is started afresh. A new colour that
    fails is stopped again.
    """
    manifest = target(found)
    names = {s: container_names(manifest["colours"])[s] for s in services}
    live = set(container_names(found.live["colours"]).values()) if found.live else set()

    def stuck(service: str) -> bool:
        there = found.containers.get(names[service])
        return bool(there and there.spec == manifest["specs"][service] and not there.serving)

    fresh = any(stuck(service) for service in services)
    lines = [compose_up(release_directory(settings, found), *names.values(), fresh=fresh)]
    for service, name in names.items():
        # Where nothing is live there is no traffic to protect; the smoke tests look a moment later.
        settle = SETTLE if service in SWITCHED and found.live else 0
        stop = name not in live
        answers = traefik_answers(settings) if service == "traefik" else ":"
        lines.append(
            wait_until_healthy(name, seconds, settle=settle, stop_failed=stop, answers=answers)
        )
    return "\n".join(lines)


def stack(settings: Settings) -> StackState:
    """The stack fact of the current host."""
    found: StackState = look(Stack, root=settings.install_root)
    return found


def answered(query: str, owner: bool = False) -> dict[str, Any]:
    """What the application's database answers; an empty database answers too.

    Args:
        query: gives one JSON object.
        owner: ask as the application's role, as what reads its rows must.

    Raises:
        OperationError: a run that is at it gets no answer, which says nothing of what is there.
            While changes are only detected there may be no database yet.
    """
    answer: dict[str, Any] = look(Database, query=query, owner=owner)
    if not answer and state.is_executing:
        raise OperationError(
            "Postgres does not answer, so nobody knows what the database holds, and nothing was "
            "done to it: docker logs koprogo-postgres-1, then run it again"
        )
    return answer


@step
def postgres_runs() -> Iterator[StringCommand | str]:
    """Postgres runs as the release says, with the role its backend logs in as, and the database."""
    environment = context.current()
    found = stack(environment.settings)
    settings = environment.settings
    if not as_wanted(found, "postgres"):
        up = or_back(settings, found, bring_up(settings, found, POSTGRES_TIMEOUT, "postgres"))
        restart = interrupt.behind_the_page(settings, found, up)
        note(**about(target(found), found))
        yield interrupt.timed(f"set -e\n{restart}", "postgres", "503 with Retry-After")
    elif found.restarting:
        # A run was cut off while it was up, and its host did not get to take it away.
        yield f"rm -f {maintenance.file(settings.install_root, maintenance.RESTART)}"
    else:
        host.noop("Postgres runs as the release says")
    roles = look(Database, query=database.ROLE_QUERY, database="postgres")
    if not roles:
        raise OperationError("Postgres runs but does not answer: docker logs koprogo-postgres-1")
    password, login = environment.secrets["DATABASE_PASSWORD"], database.login_of(target(found))
    if not database.scram_is_told(password, roles["logins"].get(login)):
        sql = database.login_sql(login, database.scram_verifier(password))
        yield StringCommand(psql("postgres"), _stdin=sql)
    elif not roles["owner"]:
        yield StringCommand(psql("postgres"), _stdin=database.OWNER_LOGIN_SQL)
    if not roles["database"]:
        yield StringCommand(psql("postgres"), _stdin=database.DATABASE_SQL)


def or_back(settings: Settings, found: StackState, up: str) -> str:
    """Bring Postgres up as the target release says; if that fails, as the serving one does.

    Then the release is marked as bad, unless the host is to blame, and the command fails: what
    served goes on serving.
    """
    live, manifest = found.live, target(found)
    if live is None or live["specs"]["postgres"] == manifest["specs"]["postgres"]:
        return up
    root = settings.install_root
    mark = f"Postgres did not come up with it {context.minute()}"
    back = context.going_back() is not None
    told = f"Postgres is started again as in release {live['id']}, and that serves on"
    return f"""set +e; ( set -e
{up}
); failed=$?; set -e
if [ "$failed" != 0 ]; then
  if {to_blame()}; then
{given_up(root, live, manifest, mark, back)}
  fi
  {compose_up(f"{root}/releases/{live['id']}", "postgres")}
  {wait_until_healthy("postgres", POSTGRES_TIMEOUT)}
  echo {shlex.quote(told)} >&2
  exit 1
fi"""


@step
def backend_migrated() -> Iterator[StringCommand | str]:
    """The release's backend is healthy and unrouted, and the schema is the one of its image."""
    environment = context.current()
    settings = environment.settings
    found = stack(settings)
    manifest = target(found)
    up = bring_up(settings, found, settings.backend_start_timeout, "backend")
    up = f"set -e\n{or_put_away(settings, found, manifest, 'backend', up)}"
    if context.planned():
        # Its image's migrations are known when it was pushed.
        if not as_wanted(found, "backend"):
            yield up
        return
    image = database.versions(found.migrations.get(manifest["id"], []))
    if not image:
        raise OperationError(
            f"the image {manifest['images']['backend']} has no files in /app/migrations, so its "
            "migration set is unknown; is it a KoproGo backend?"
        )
    before = answered(database.migrations_query())
    reason = database.cannot_start(database.parse_migrations(before.get("migrations")), image)
    if reason:
        raise OperationError(f"the backend of release {manifest['id']} cannot start: {reason}")
    if as_wanted(found, "backend"):
        host.noop("the backend of the release is healthy")
    else:
        note(**about(manifest, found))
        yield up
    after = answered(database.migrations_query())
    if not after.get("statements"):
        yield StringCommand(psql(), _stdin=database.EXTENSION_SQL)
    sql = _guard(environment.secrets["SUPERADMIN_PASSWORD"], settings.superadmin_guard, after)
    if sql:
        applied = f" && {owner_psql()} -c {shlex.quote(database.GUARDED_SQL)}"
        yield StringCommand(f"{psql()}{applied if settings.superadmin_guard else ''}", _stdin=sql)
    if database.observer_problems(after):
        yield StringCommand(psql(), _stdin=database.observer_sql(after))
        again = answered(database.migrations_query())
        if wrong := database.observer_problems(again):
            raise OperationError("; ".join(wrong))
    problems = database.not_migrated({**after, "statements": True}, image)
    if problems:
        why = f"not migrated: {'; '.join(problems)}"
        live = stack(settings).live
        if live and live["specs"]["backend"] != manifest["specs"]["backend"]:
            back = context.going_back() is not None
            yield put_away_command(
                settings, live, manifest, f"not routed {context.minute()}: {why}", back
            )
        raise OperationError(f"release {manifest['id']} is {why}")


def _guard(password: str, wanted: bool, found: dict[str, Any]) -> str:
    if not wanted:
        return database.UNGUARD_SQL if found.get("guard") else ""
    if found.get("trust", {}).get("guard") and direct.is_told(password, found.get("guard")):
        return ""
    # The password is 256 random bits; a slow hash would protect nothing.
    return database.guard_sql(bcrypt.hashpw(password.encode(), bcrypt.gensalt(8)).decode())


@deploy("Migrate")
def postgres_stage() -> None:
    """Database server, role, database."""
    postgres_runs(name="Run Postgres")


@deploy("Migrate")
def migrate_stage() -> None:
    """The new backend is up and not routed yet, and the schema is its own."""
    backend_migrated(name="Start the backend unrouted and verify its migrations")
