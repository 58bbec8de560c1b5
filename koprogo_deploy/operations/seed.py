"""Seed: the realistic data, where the environment asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import bcrypt
from pyinfra import host
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import seed
from koprogo_deploy.direct import PUBLIC_PASSWORD, SUPERADMIN
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.stack import Database
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.migrate import stack, target
from koprogo_deploy.operations.shell import container, owner_psql
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan import seeding
from koprogo_deploy.render import container_names

# The token goes to curl by its standard input: an argument could be read in the process list.
_API_SEED = r"""
set -e
read -r login
base="http://$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' \
  CONTAINER | awk '{print $1}'):8080/api/v1"
answer=$(printf '%s' "$login" | curl -sS -m 30 -H 'Content-Type: application/json' -d @- \
  "$base/auth/login")
token=$(printf '%s' "$answer" | sed -n 's/.*"token":"\([^"]*\)".*/\1/p')
[ -n "$token" ] || { echo 'the superadmin cannot log in: SUPERADMIN_PASSWORD?' >&2; exit 1; }
out=$(printf 'header = "Authorization: Bearer %s"\n' "$token" |
  curl -sS -m 300 -K - -w '\n%{http_code}' -X POST "$base/seed/realistic")
[ "$(printf '%s' "$out" | tail -n 1)" = 200 ] || {
  echo "POST /seed/realistic: $out" >&2
  echo 'this KoproGo revision may have no working endpoint; set seed_via = "sql"' >&2; exit 1; }
"""


@step
def seeded() -> Iterator[StringCommand]:
    """The realistic data is there; a second run changes nothing."""
    environment = context.current()
    settings = environment.settings
    raw = look(Database, query=seed.STATE_SQL, owner=True)
    if context.planned() and not raw:
        yield StringCommand(owner_psql())  # on a new host the database comes with the release
        return
    if not raw:
        raise OperationError("no database to seed; run deploys/migrate.py first")
    decision = seeding.decide(environment, raw)
    if decision is seeding.LATER:
        raise OperationError(seed.NO_TABLES.message)
    if decision.action == "refuse":
        raise OperationError(decision.message)
    if not decision.changes:
        host.noop(decision.message)
        return
    if settings.seed_via == "api":
        yield _by_api(environment)
        return
    password = environment.secrets["SEED_PASSWORD"].encode()
    hashed = bcrypt.hashpw(password, bcrypt.gensalt(12)).decode()
    if decision.action == "password":
        yield StringCommand(f"{owner_psql()} >/dev/null", _stdin=seed.password_sql(hashed))
        return
    today = datetime.now(UTC).date()
    data = seed.generate(settings.seed_number, settings.seed_scale, hashed, today)
    yield StringCommand(f"{owner_psql()} >/dev/null", _stdin=seed.insert_sql(data))


def _by_api(environment: Environment) -> StringCommand:
    settings = environment.settings
    found = stack(settings)
    # Not by one that a cut run left, and that does not serve.
    names = container_names((found.live or target(found))["colours"])
    password = PUBLIC_PASSWORD
    if settings.superadmin_guard:
        password = environment.secrets["SUPERADMIN_PASSWORD"]
    login = json.dumps({"email": SUPERADMIN, "password": password})
    return StringCommand(_API_SEED.replace("CONTAINER", container(names["backend"])), _stdin=login)


@step
def seed_cleared() -> Iterator[StringCommand]:
    """Remove seeded organisations with all that belongs to them, and nothing else."""
    yield StringCommand(owner_psql(), _stdin=seed.clear_sql())


@deploy("Seed")
def seed_stage() -> None:
    """The realistic seed, if `seed_enabled`."""
    if context.current().settings.seed_enabled:
        seeded(name="Seed the realistic data")
