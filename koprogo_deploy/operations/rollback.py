"""Going back by command: a kept release serves again.

It takes the road of a deploy: the kept release becomes the candidate, and the same
stages bring it up, switch to it, verify it and let it count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, logger
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, direct, door, render
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.releases import Dumps, Kept, ReleaseFiles, Releases
from koprogo_deploy.facts.stack import Database, StackState
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.release import have_images, promote_command, push
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan import services, words
from koprogo_deploy.plan.model import Service
from koprogo_deploy.plan.wanted import dynamic_hash
from koprogo_deploy.problems import Refusal
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import megabytes

INTERRUPTION = {
    "traefik": "nothing answers for a moment while the proxy restarts",
    "postgres": "everybody gets 503 with Retry-After for a moment while Postgres restarts",
}


def choose(state: StackState, kept: Mapping[str, Kept], asked: str | None, retry: bool) -> Kept:
    """The release to go back to. Pure.

    Args:
        state: what is deployed.
        kept: the releases on the host.
        asked: id of the one that was asked for; None for the one that served before.
        retry: take one that is marked as bad, if it was asked for.

    Raises:
        OperationError: there is no such release, or it is marked as bad.
    """
    if state.live is None:
        raise OperationError("nothing is deployed, so there is nothing to go back from")
    serving = state.live["id"]
    if asked is not None:
        if asked not in kept:
            raise OperationError(f"there is no release {asked} here. Kept: {', '.join(kept)}")
        if asked != serving and asked in state.marked and not retry:
            raise OperationError(
                f"release {asked} is marked as bad: {state.marked[asked]}. "
                "To try it nevertheless: --data retry_bad_release=true"
            )
        return kept[asked]
    if state.current and state.live is state.candidate and state.current["id"] in state.marked:
        return kept[serving]  # a rollback that was cut after the switch: it is ended
    others = [i for i in kept if i != serving and i not in state.marked]
    if not others:
        raise OperationError(
            f"no kept release served before {serving} and is not marked as bad. "
            f"Kept: {', '.join(kept)}; name one: --data release=ID"
        )
    # One that never served comes last; of those the newest.
    return kept[max(others, key=lambda i: (state.served.get(i, 0.0), i))]


def cannot_go_back(
    to: Kept,
    live: Mapping[str, Any],
    secrets: Mapping[str, str],
    root: str,
    earlier: Mapping[str, str] | None = None,
) -> str:
    """Why a kept release cannot serve again, whatever the schema is; empty if it can. Pure.

    Args:
        to: the kept release.
        live: manifest of the serving one.
        secrets: directory of each service's secrets as they are today.
        root: where the secrets lie.
        earlier: the same directories as releases of before call them.
    """
    known = [*secrets.items(), *(earlier or {}).items()]
    identity = to.manifest["id"]
    old = {s: set(d.get("secrets", ())) for s, d in to.manifest["definitions"].items()}
    changed = sorted(
        service
        for service, files in old.items()
        if not all(
            any(f.startswith(f"{root}/secrets/{name}/") for s, name in known if s == service)
            for f in files
        )
    )
    if changed:
        return (
            f"secrets of {', '.join(changed)} changed since release {identity} was made, and it "
            "would run with the old ones. Write what it had into group data, then deploys/full.py"
        )
    before, now = (m.get("values", {}).get("postgres_major") for m in (to.manifest, live))
    if before and now and before != now:
        return f"release {identity} is of Postgres {before}, and the data is of Postgres {now}"
    return ""


def between(to: Kept, applied: Mapping[str, bool]) -> list[str]:
    """Migrations of the database that a kept release lacks: its backend would not start. Pure."""
    return direct.newer_than(database.versions(to.migrations), applied)


def fitting_dump(to: Kept, dumps: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The newest dump whose schema a kept release can start on; None if there is none. Pure."""
    known = database.versions(to.migrations)
    fitting = [dump for dump in dumps.values() if set(dump["applied"]) <= known]
    return max(fitting, key=lambda dump: dump["at"], default=None)


def two_ways(
    to: Kept,
    missing: list[str],
    dump: Mapping[str, Any] | None,
    lost: Mapping[str, str | None],
    settings: Settings,
) -> str:
    """What stands between, and how one gets back nevertheless. Pure.

    Args:
        to: the kept release.
        missing: migrations that it lacks.
        dump: the one to restore; None if there is none.
        lost: what was written since it, as `database.written_since` answers.
        settings: for the commands.
    """
    identity = to.manifest["id"]
    told = (
        f"a migration stands between: the database has {len(missing)} that release {identity} "
        f"lacks ({', '.join(missing)}), so its backend would not start. There are two ways: "
        "(1) deploy an image that has these migrations and not the fault: write its tag as "
        "backend_image in group data, then deploys/full.py; (2) restore the dump that was made "
        "before the migration"
    )
    if dump is None:
        return f"{told}; but no dump is kept that fits, so today the first way is the only one"
    run = f"pyinfra inventories/{settings.environment}.py deploys/rollback.py"
    at = dump["at"][:19].replace("T", " ")
    return (
        f"{told}: {run} --data release={identity} --data restore_dump=true. It is of {at} UTC, "
        f"{megabytes(dump['bytes'])}. {database.lost_told(lost)}"
    )


def going_back(manifest: Mapping[str, Any], does: Sequence[Service]) -> list[str]:
    """What a rollback does, in a few lines, before it does it. Pure.

    Args:
        manifest: of the kept release.
        does: what happens to each service.
    """
    lines = [f"back to release {manifest['id']}, made {manifest['made']} by {manifest['by']}"]
    lines.append(words.services(does))
    lines += [f"{each.name}: {', '.join(each.reasons)}" for each in does if each.reasons]
    told = [INTERRUPTION[s.name] for s in does if s.action != "keep" and s.name in INTERRUPTION]
    return [*lines, f"requests: {'; '.join(told) or 'none is lost'}"]


def _old_settings(environment: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    known = set(Settings.model_fields)
    values = {k: v for k, v in manifest.get("values", {}).items() if k in known}
    try:
        door.open_environment(environment, {**values, **context.overrides()})
    except Refusal as refusal:
        raise OperationError(
            f"the settings of release {manifest['id']} are not accepted any more:\n{refusal}"
        ) from None
    return values


@step
def kept_release_is_candidate() -> Iterator[StringCommand | str]:
    """The kept release becomes the one that the next stages work on; else refuse."""
    environment = context.current()
    settings, root = environment.settings, environment.settings.install_root
    state = stack(settings)
    kept: dict[str, Kept] = look(Releases, root=root)
    to = choose(state, kept, settings.release, settings.retry_bad_release)
    live, manifest = state.live or {}, to.manifest
    dump = _dump_to_return(environment, state, kept, to)
    _begin(settings, state, manifest, dump)
    if live["id"] == manifest["id"]:
        context.plan(manifest)
        logger.info("    release %s serves already", manifest["id"])
        if state.candidate and state.candidate["id"] != manifest["id"]:
            yield f"rm -f {root}/candidate"  # a run that was cut left it, and it never served
        else:
            host.noop("it serves already")
        return
    images = have_images(manifest["images"].values(), settings.image_pull_timeout)
    there = f"set -e; cd {root}\n{images}"
    if state.current and manifest["id"] == state.current["id"]:
        context.plan(manifest)  # what was switched to and does not count yet is left
        yield f"{there}\nrm -f candidate"
        return
    if state.live is state.candidate:
        yield promote_command(root, live["id"])
    colours = render.choose_colours(manifest["specs"], live["specs"], live["colours"])
    release = replace(render.of_manifest(manifest), colours=colours)
    does = services.changes(live, release, manifest["requested"], state.containers)
    for told in going_back(manifest, does):
        logger.info("    %s", told)
    if colours != manifest["colours"]:
        yield _pushed_again(settings, manifest, colours)
        return
    context.plan(manifest)
    if state.candidate and state.candidate["id"] == manifest["id"]:
        host.noop(f"release {manifest['id']} was made ready by an earlier run")
        return
    link = f"ln -sfn releases/{manifest['id']} candidate.new; mv -T candidate.new candidate"
    yield f"{there}\n{link}"


def _dump_to_return(
    environment: Environment, state: StackState, kept: Mapping[str, Kept], to: Kept
) -> str:
    """Id of the release whose dump has to serve again; empty where the data stays.

    Raises:
        OperationError: the kept release cannot serve again, or not with the data as it is.
    """
    settings, live = environment.settings, state.live or {}
    root, no = settings.install_root, f"no rollback to release {to.manifest['id']}"
    sets = context.secret_sets(environment)
    secrets, earlier = render.secret_directories(sets), render.earlier_directories(sets)
    if reason := cannot_go_back(to, live, secrets, root, earlier):
        raise OperationError(f"{no}: {reason}")
    found = database.parse_migrations(
        look(Database, query=database.migrations_query()).get("migrations")
    )
    # Where the database does not answer, what serves tells what it has.
    applied = found or dict.fromkeys(database.versions(kept[live["id"]].migrations), True)
    missing = between(to, applied)
    if not missing:
        return ""
    dump = fitting_dump(to, look(Dumps, root=root) if state.dumps else {})
    lost = look(Database, query=database.written_since(dump["at"]), owner=True) if dump else {}
    if dump is None or not settings.restore_dump:
        raise OperationError(f"{no}: {two_ways(to, missing, dump, lost, settings)}")
    logger.warning("    the data is of %s again. %s", dump["at"], database.lost_told(lost))
    return str(dump["release"])


def _begin(settings: Settings, state: StackState, manifest: Mapping[str, Any], dump: str) -> None:
    """Have the stages of this run work as a rollback to this release."""
    live = state.live or {}
    left = state.current if live["id"] == manifest["id"] else live
    left_id = left["id"] if left and left["id"] != manifest["id"] else ""
    why = f": {settings.reason}" if settings.reason else ""
    mark = f"rolled back by {context.who()} at {context.minute()}{why}"
    old = _old_settings(settings.environment, manifest)
    context.go_back(context.GoingBack(left_id, mark, old, dump, dict(live)))


def _pushed_again(
    settings: Settings, manifest: Mapping[str, Any], colours: dict[str, str]
) -> StringCommand:
    """Push the same release in other colours, its own being taken."""
    made = datetime.now(UTC)
    identity = f"{made:%Y%m%dT%H%M%SZ}-{manifest['hash'][:8]}"
    files = look(ReleaseFiles, root=settings.install_root, release=manifest["id"])
    again = render.recoloured(manifest, files, colours, identity)
    about = {
        **manifest,
        "id": identity,
        "made": made.isoformat(timespec="seconds"),
        "by": context.who(),
        "hash": again.hash,
        "colours": again.colours,
        "dynamic": dynamic_hash(again),
        "again": manifest["id"],
    }
    context.plan(about)
    return push(settings, identity, again, about)


@deploy("Roll back")
def rollback_stage() -> None:
    """A kept release is chosen, and becomes the candidate; nothing runs differently yet."""
    kept_release_is_candidate(name="Choose the release")
