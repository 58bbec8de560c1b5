"""Preflight: the host is one we can deploy to, before anything on it is touched."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import budget, maintenance, major
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.facts.releases import Image, Images
from koprogo_deploy.facts.stack import StackState, repository, unreadable
from koprogo_deploy.machine import ENGINE_PACKAGES
from koprogo_deploy.operations import context, take_back
from koprogo_deploy.operations.lock import one_at_a_time
from koprogo_deploy.operations.looks import look, machine_now, watch_commands
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.progress import show_progress
from koprogo_deploy.operations.record import begin, listen
from koprogo_deploy.operations.step import step
from koprogo_deploy.operations.wire import tune_connection
from koprogo_deploy.plan.wanted import to_pull
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import MB, megabytes

_ENGINE = 600 * MB  # Docker Engine and Compose, their packages included
_NEW_IMAGE = 600 * MB  # one of which nothing is known, its archive included
_ARCHIVE = 1.5  # an image while it is pulled: unpacked, and layers that are not yet
_RELEASE = 1 * MB
STAYS_FREE = 500 * MB  # logs, WAL, temporary files
_CLOCK_TOLERANCE = 60


def disk_needs(
    settings: Settings, state: HostState, stack: StackState, images: Iterable[Image]
) -> dict[str, int]:
    """What a release needs on the disk, in bytes, by what for. Pure.

    Args:
        settings: name the images.
        state: the host's facts.
        stack: what is deployed; images that its manifests name are there.
        images: those on the host, for the size of the one that a new one replaces.
    """
    needs = {"to stay free": STAYS_FREE, "the release": _RELEASE}
    if not stack.docker:
        needs["Docker Engine"] = _ENGINE
    if state.database and "backend" in to_pull(settings, stack):
        # It may bring migrations: they are rehearsed on a copy, and the database is dumped.
        needs["a copy of the database"] = needs["a dump of it, at most"] = state.database
    sizes = {name: image.size for image in images for name in image.names}
    for service in to_pull(settings, stack):
        old = (stack.live or {"images": {}})["images"].get(service, "")
        name = f"{repository(old)}@{old.partition('@')[2]}"
        size = sizes.get(old) or sizes.get(name)
        what = "image, sized as the present one" if size else "image, size unknown"
        needs[f"{service} {what}"] = int(size * _ARCHIVE) if size else _NEW_IMAGE
    return needs


def host_problems(
    state: HostState,
    settings: Settings,
    now: int,
    needs: Mapping[str, int],
    upgrading: bool = False,
) -> list[Problem]:
    """What about the host stands against a deploy. Pure.

    Args:
        state: the host's facts.
        settings: what the environment asks for.
        now: seconds since 1970 by our own clock.
        needs: what the release needs on the disk.
        upgrading: the run is there to bring the data to another version of Postgres.
    """
    problems = []
    if (state.os, state.os_version) not in ENGINE_PACKAGES:
        known = ", ".join(f"{name} {version}" for name, version in sorted(ENGINE_PACKAGES))
        problems.append(Problem("operating system", f"{state.os} {state.os_version}", known))
    proven = budget.against(budget.budget(settings), state.memory)
    if not proven.fits:
        fix = "lower a limit in group data, or take a bigger VPS"
        problems.append(Problem("memory", f"the budget {budget.overrun(proven)}", fix))
    if what := no_room(state.disk_free, needs):
        fix = "make room: journalctl --vacuum-size=100M, docker image ls, a lower releases_kept"
        problems.append(Problem("disk", what, fix))
    skew = abs(state.clock - now)
    if skew > _CLOCK_TOLERANCE:
        fix = "timedatectl on the host; certificates and tokens depend on the clock"
        problems.append(Problem("clock", f"{skew} s away from this machine's", fix))
    if not upgrading and (wrong := major.other(settings, state.postgres_version)):
        problems.append(Problem("postgres_major", *wrong))
    return problems


def no_room(free: int, needs: Mapping[str, int]) -> str:
    """Why the disk is too full, with the numbers; empty if it is not. Sizes in bytes."""
    needed = sum(needs.values())
    if free >= needed:
        return ""
    parts = ", ".join(f"{megabytes(size)} {what}" for what, size in needs.items())
    return f"{megabytes(free)} free, and {megabytes(needed)} needed: {parts}"


@step
def host_is_acceptable(upgrading: bool = False) -> Iterator[str]:
    """Refuse a host that the budget, the engine or the data do not fit. Changes nothing."""
    settings = context.current().settings
    state = machine_now()
    found = stack(settings)
    # A new host has no engine to ask yet.
    images = look(Images) if found.docker and to_pull(settings, found) else []
    needs = disk_needs(settings, state, found, images)
    problems = host_problems(state, settings, int(time.time()), needs, upgrading)
    if found.upgrade and not upgrading:
        what = "an upgrade of Postgres is under way, or was cut"
        fix = f"{major.command(settings)} ends it, or takes it back"
        problems.append(Problem("postgres", what, fix))
    if found.unreadable:
        problems.append(unreadable())
    if problems:
        raise OperationError(f"\n{Refusal(f'Host {host.name}', problems)}")
    begin(found)
    host.noop(f"{state.os} {state.os_version}, {state.memory // MB} MB: the budget fits")
    return
    yield  # an operation is a generator; this one has no command


@step
def maintenance_lets_us_pass(upgrading: bool = False) -> Iterator[str]:
    """While maintenance is on the smoke tests have to pass by it: refuse where they cannot."""
    settings = context.current().settings
    found = stack(settings).maintenance
    if not found:
        host.noop("no maintenance is on")
        return
    import httpx  # seldom needed, and slow to import

    from koprogo_deploy.outside import Outside

    wanted = maintenance.parse(found)
    if settings.restore_dump and wanted.message == maintenance.RETURNING:
        host.noop("a rollback that was cut left the maintenance page; this one ends it")
        return
    if upgrading and wanted.message == maintenance.UPGRADING:
        host.noop("an upgrade that was cut left the maintenance page; this one ends it")
        return
    with Outside(settings, timeout=5) as outside:
        try:
            answer = outside.api.get("/health")
            # One that a deploy which was cut left behind is taken away by this one.
            closed = maintenance.ours(answer.headers) and not stack(settings).restarting
        except httpx.HTTPError:
            closed = False  # nothing answers: that is not the page, and the deploy may mend it
    if closed:
        name = settings.environment
        problem = Problem(
            "maintenance",
            f"{maintenance.told(wanted)}. This machine does not, so the smoke tests would fail",
            f"koprogo maintenance on {name} --allow ADDRESS, or koprogo maintenance off {name}",
        )
        raise OperationError(f"\n{Refusal(f'Host {host.name}', [problem])}")
    logger.warning("    %s; this machine passes", maintenance.told(wanted))
    host.noop("this machine passes by the maintenance page")
    return
    yield


@deploy("Preflight")
def preflight(upgrading: bool = False) -> None:
    """Settings, secrets, budget and host are acceptable; nothing is touched.

    Args:
        upgrading: the run brings the data to another version of Postgres, or ends one that did.
    """
    show_progress()
    take_back.listen()
    listen()
    tune_connection()
    watch_commands()
    context.current()
    one_at_a_time(name="Be the only deploy")
    host_is_acceptable(name="Check the host", upgrading=upgrading)
    maintenance_lets_us_pass(name="Check for maintenance", upgrading=upgrading)
