"""Trial: a new colour answers as it should before it has traffic, and the old one still does.

Asked directly by the containers' addresses. A release that does not is put away: nothing was
routed, so nobody noticed.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, direct, seed
from koprogo_deploy.facts.stack import Database, StackState
from koprogo_deploy.operations import context, on_host
from koprogo_deploy.operations.looks import look, only_looking
from koprogo_deploy.operations.migrate import answered, stack, target
from koprogo_deploy.operations.record import about, note
from koprogo_deploy.operations.routes import (
    not_marked,
    postgres_ready,
    put_away_command,
    to_blame,
)
from koprogo_deploy.operations.shell import container
from koprogo_deploy.operations.step import step
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import Settings

AGAIN = 2  # seconds: a hiccup of the host is no fault of a release
_untried: list[str] = []  # what no backend could be asked
_ill_before: list[str] = []  # what the serving release failed at before its schema changed


def login() -> dict[str, Any] | None:
    """The login that every colour has to accept, as far as the database has one of ours."""
    environment = context.current()
    settings = environment.settings
    # By name, for an empty answer is no answer about a seed.
    there = answered(seed.STATE_SQL, owner=True) if settings.seed_enabled else {}
    guard = answered(database.migrations_query()).get("guard")
    return direct.login(settings, environment.secrets, there.get("password_told"), guard)


def reader() -> tuple[dict[str, Any] | None, list[str]]:
    """What a tenant of the data that is there has to see, None where there is none; what is wrong.

    That its rows cannot be counted is no word of there being none: an image's migration may have
    taken a column away. It counts as a failure of the backend that is asked.
    """
    answer = look(Database, query=database.tenant_query(), owner=True)
    if answer or not state.is_executing:
        return direct.reader(answer), []
    return None, [direct.UNCOUNTED]


def failures(**services: str) -> tuple[list[str], list[str]]:
    """What containers fail at when they are asked directly, and the end of their logs.

    Args:
        services: Compose's name by `backend` or `frontend`.
    """
    asked: dict[str, Any] = {service: container(name) for service, name in services.items()}
    asked["login"] = login()
    asked["reader"], uncounted = reader() if "backend" in services else (None, [])
    if "backend" in services:
        _untried[:] = direct.untried(asked["login"], asked["reader"])
    with only_looking():
        answer = on_host.run("ask", asked)
    return [*answer["failures"], *uncounted], answer["log"]


def fails_twice(**services: str) -> tuple[list[str], list[str]]:
    """As `failures`, asked once more where there are any."""
    found = failures(**services)
    if not found[0]:
        return found
    logger.warning("    asked again in %s s: %s", AGAIN, direct.on_one_line(found[0]))
    time.sleep(AGAIN)
    return failures(**services)


def unrouted(found: StackState) -> dict[str, str]:
    """Compose's names of the target's colours that have no traffic yet; none on a new host."""
    if found.live is None or found.target is None:
        return {}
    live = container_names(found.live["colours"])
    new = container_names(found.target["colours"])
    return {service: name for service, name in new.items() if name != live[service]}


def host_to_blame(found: StackState, service: str, wrong: list[str]) -> str:
    """Why a new colour that fails is not to blame for it; empty where it is.

    Args:
        found: what is deployed.
        service: `backend` or `frontend`.
        wrong: what the new one fails at.
    """
    identity = target(found)["id"]
    script = f"{{ {to_blame()}; }} && {postgres_ready()}"
    with only_looking():
        ok, _ = host.run_shell_command(StringCommand(f"sudo -n sh -c {shlex.quote(script)}"))
    if not ok:
        return not_marked(identity)
    if found.live is None or newer(found):
        return ""  # on a schema that was migrated since, what serves may fail as well
    live = container_names(found.live["colours"])[service]
    if set(wrong) <= set(failures(**{service: live})[0]):
        return (
            f"release {identity} is not marked as bad: {found.live['id']}, which serves, fails "
            "alike, so that it is the host's or the data's. Run it again once this is mended"
        )
    return ""


def put_away(
    settings: Settings, found: StackState, failed: Mapping[str, Any], why: str
) -> Iterator[str]:
    """Stop and mark a release that has no traffic; what serves goes on serving."""
    assert found.live is not None
    reason = f"not routed {context.minute()}: {why}"
    back = context.going_back() is not None
    yield put_away_command(settings, found.live, failed, reason, unmark=back)
    note(outcome="failed", **about(dict(failed), found))


def serving(found: StackState) -> str:
    """Compose's name of the backend that serves; empty if none does."""
    if found.live is None:
        return ""
    name = container_names(found.live["colours"])["backend"]
    running = found.containers.get(name)
    return name if running and running.serving else ""


def remember_ill(found: StackState) -> None:
    """Before the schema changes: what the serving release fails at already is no news later."""
    _ill_before.clear()
    if name := serving(found):
        _ill_before.extend(failures(backend=name)[0])
    if _ill_before:
        told = direct.on_one_line(_ill_before)
        logger.warning("    the release that serves is not well as it is: %s", told)


def newer(found: StackState) -> list[str]:
    """Migrations of the database that the image of the serving release lacks."""
    if found.live is None or found.live["id"] == target(found)["id"]:
        return []
    answer = answered(database.migrations_query())
    applied = database.parse_migrations(answer.get("migrations"))
    live = database.versions(found.migrations.get(found.live["id"], []))
    return direct.newer_than(live, applied)


def colour_answers(service: str) -> Iterator[str]:
    """Ask a new colour; put its release away if it does not answer as it should."""
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings)
    names = unrouted(found)
    if service not in names:
        host.noop(f"no new {service}")
        return
    wrong, log = fails_twice(**{service: names[service]})
    note(**{f"unrouted_{service}": direct.on_one_line(wrong) or "passed"})
    if not wrong:
        if service == "backend":
            if _untried:
                note(untried=list(_untried))
            for told in _untried:
                logger.warning("    not tried: %s", told)
        host.noop(f"the new {service} answers as it should")
        return
    _show(wrong, log)
    manifest = target(found)
    if reason := host_to_blame(found, service, wrong):
        raise OperationError(f"the new {service} fails: {direct.on_one_line(wrong)}. {reason}")
    old = _of_the_old(found) if service == "backend" else ""
    why = f"its new {service} fails: {direct.on_one_line(wrong)}"
    yield from put_away(settings, found, manifest, why)
    live = found.live["id"] if found.live else ""
    raise OperationError(
        f"release {manifest['id']} gets no traffic: {direct.on_one_line(wrong)}. {live} serves as "
        f"before{old}. What the new one logged is above, and in docker logs "
        f"{container(names[service])}. It is not deployed again as it is: change something, or "
        "give --data retry_bad_release=true"
    )


def _of_the_old(found: StackState) -> str:
    if not newer(found):
        return ""
    wrong = failures(backend=serving(found))[0] if serving(found) else ["it does not run"]
    told = f"fails there: {direct.on_one_line(wrong)}" if wrong else "passes its smoke test there"
    return f", on the schema that the new one migrated, and {told}"


def _show(wrong: list[str], log: list[str]) -> None:
    for line in wrong:
        logger.error("    %s", line)
    for line in log:
        logger.error("    | %s", line)


@step
def new_backend_answers() -> Iterator[str]:
    """The smoke test of the new backend, before it has any traffic."""
    yield from colour_answers("backend")


@step
def new_frontend_answers() -> Iterator[str]:
    """The new frontend serves a page, before it has any traffic."""
    yield from colour_answers("frontend")


@step
def serving_backend_answers() -> Iterator[str]:
    """What serves works on the schema that was migrated under it; else the new one is not routed.

    From the migration to the switch the old release runs on the new schema: a migration that only
    adds (expand) does not disturb it; what it takes away (contract) belongs to a later release.
    """
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings)
    newly, name = newer(found), serving(found)
    if not newly or not name:
        host.noop("no migration that the serving release does not know")
        return
    wrong, log = fails_twice(backend=name)
    note(serving_backend=direct.on_one_line(wrong) or "passed")
    if not wrong:
        host.noop(f"what serves answers as before, with {len(newly)} migrations more")
        return
    if _ill_before or settings.retry_bad_release:
        why = "it failed before" if _ill_before else "retry_bad_release is given"
        logger.warning("    what serves fails on the new schema (%s): %s", why, "; ".join(wrong))
        host.noop("the switch is the way out")
        return
    _show(wrong, log)
    manifest = target(found)
    if reason := host_to_blame(found, "backend", wrong):
        raise OperationError(f"what serves fails: {direct.on_one_line(wrong)}. {reason}")
    live = found.live["id"] if found.live else ""
    why = f"its migration breaks {live}: {direct.on_one_line(wrong)}"
    yield from put_away(settings, found, manifest, why)
    raise OperationError(
        f"the migration of release {manifest['id']} broke {live}, which serves: "
        f"{direct.on_one_line(wrong)}. The new one was not routed. It passes on the new schema "
        "itself, so the quickest way out is forward: deploys/full.py --data "
        "retry_bad_release=true. The way back is the dump of before: deploys/rollback.py --data "
        f"release={live} says what that would lose. Next time: a migration that only adds, and "
        "what takes away in a later release"
    )


@deploy("Migrate")
def trial_stage() -> None:
    """Smoke tests of what has no traffic yet, and of what serves on the new schema."""
    new_backend_answers(name="Smoke-test the new backend, unrouted")
    serving_backend_answers(name="Smoke-test what serves on the new schema")
