"""Whether a host can be deployed to at all: its system, memory, disk, clock and data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from koprogo_deploy import accounts, budget, cut, major
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.facts.releases import Image
from koprogo_deploy.facts.stack import StackState, repository, unreadable
from koprogo_deploy.machine import ENGINE_PACKAGES
from koprogo_deploy.plan.wanted import to_pull
from koprogo_deploy.problems import Problem
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
    """What a release needs on the disk, in bytes, by what for.

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
) -> list[Problem]:
    """What about the host stands against a deploy.

    Args:
        state: the host's facts.
        settings: what the environment asks for.
        now: seconds since 1970 by our own clock.
        needs: what the release needs on the disk.
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
    for folder in state.loose:
        fix = f"on the host: chown root:root {folder}; chmod go-w {folder}; or choose another place"
        problems.append(Problem("install_root", f"others than root may write in {folder}", fix))
    skew = abs(state.clock - now)
    if skew > _CLOCK_TOLERANCE:
        fix = "timedatectl on the host; certificates and tokens depend on the clock"
        problems.append(Problem("clock", f"{skew} s away from this machine's", fix))
    return problems


def login_problems(
    settings: Settings, state: HostState, arrival: accounts.Arrival
) -> list[Problem]:
    """What of accounts and SSH would lock somebody out.

    Args:
        settings: what the environment asks for.
        state: the host's facts.
        arrival: how this run came to the host.
    """
    return accounts.problems(
        settings.admin_users,
        state.accounts,
        state.connected,
        arrival,
        own_keys=state.own_keys,
        closed=accounts.SSHD_FILE in state.files,
    )


def no_room(free: int, needs: Mapping[str, int]) -> str:
    """Why the disk is too full, with the numbers; empty if it is not. Sizes in bytes."""
    needed = sum(needs.values())
    if free >= needed:
        return ""
    parts = ", ".join(f"{megabytes(size)} {what}" for what, size in needs.items())
    return f"{megabytes(free)} free, and {megabytes(needed)} needed: {parts}"


def data_problems(
    settings: Settings, state: HostState, stack: StackState, upgrading: bool = False
) -> list[Problem]:
    """What about the data and the releases on the host stands against a deploy.

    Args:
        settings: what the environment asks for.
        state: the host's facts.
        stack: what is deployed.
        upgrading: the run is there to bring the data to another version of Postgres.
    """
    problems = []
    if not upgrading and (wrong := major.other(settings, state.postgres_version)):
        problems.append(Problem("postgres_major", *wrong))
    if stack.upgrade and not upgrading:
        what = "an upgrade of Postgres is under way, or was cut"
        fix = f"{major.command(settings)} ends it, or takes it back"
        problems.append(Problem("postgres", what, fix))
    if stack.unreadable:
        problems.append(unreadable())
    return problems


def cut_problems(settings: Settings, found: StackState, does: str = "") -> list[Problem]:
    """A restore or a rollback with its data that was cut, and that this run does not end.

    Args:
        settings: with what was asked for.
        found: what is deployed.
        does: what the run does to the data.
    """
    there = cut.found(found, settings.environment)
    if there is None:
        return []
    returns = does != cut.RETURN or settings.restore_dump
    if returns and cut.ended(there, does, settings.release):
        return []
    what = f"{there.what} is under way, or was cut: the data is in between, or not verified"
    return [Problem("data", what, f"this ends it: {there.ends}")]
