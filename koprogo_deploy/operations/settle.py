"""Settle: the verified release counts, and what served before it goes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyinfra import host, logger
from pyinfra import state as pyinfra_state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database
from koprogo_deploy.facts.releases import Image, Images, Kept, Releases
from koprogo_deploy.facts.stack import Database, StackState, not_serving, repository
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.migrate import stack, target
from koprogo_deploy.operations.release import promote_command
from koprogo_deploy.operations.shell import psql, stop
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan.services import old_containers
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import SERVICES
from koprogo_deploy.units import megabytes


@step
def settled() -> Iterator[StringCommand | str]:
    """`current` moves; then the old colours, their passwords and the oldest releases go."""
    settings = context.current().settings
    state = stack(settings)
    manifest, root = target(state), settings.install_root
    if pyinfra_state.is_executing and (reason := does_not_serve(state, manifest)):
        raise OperationError(
            f"release {manifest['id']} does not count yet, for {reason}; nothing was removed. "
            "deploys/full.py ends what was begun"
        )
    steps: list[StringCommand | str] = []
    if state.candidate or context.planned():
        steps.append(promote_command(root, manifest["id"]))
    leftovers = old_containers(state.containers, manifest["colours"])
    if leftovers:
        steps.append(f"set -e\n{stop(*leftovers, remove=True)}")
    roles = look(Database, query=database.ROLE_QUERY, database="postgres")
    if logins := unused_logins(roles.get("logins", {}), manifest):
        steps.append(StringCommand(psql(), _stdin=database.no_login_sql(logins)))
    gone = unused(state.releases, manifest["id"], settings.releases_kept, before(state, manifest))
    kept: dict[str, Kept] = look(Releases, root=root) if steps or gone else {}
    if gone:
        steps.append(prune_command(root, gone))
    if dumps := state.dumps[: -settings.releases_kept]:
        steps.append(prune_dumps_command(root, dumps))
    if state.torn_dumps:
        steps.append(f"set -e; cd {root}/dumps; rm -f {shlex.join(state.torn_dumps)}")
    yield from steps
    if not steps:
        host.noop(f"release {manifest['id']} counts, and nothing of another one runs")
    elif pyinfra_state.is_executing:
        _prune_images(kept, gone, state.clusters)


def _prune_images(
    kept: Mapping[str, Kept], gone: list[str], clusters: Iterable[Mapping[str, Any]]
) -> None:
    """Remove images that no kept release or cluster needs; a failure fails no deploy."""
    needed = [kept[release].manifest for release in kept if release not in gone]
    needed += [{"images": {"postgres": cluster["image"]}} for cluster in clusters]
    names = unused_images(look(Images), needed, [each.manifest for each in kept.values()])
    freed = 0
    if names:
        command = f"sudo -n sh -c {shlex.quote(remove_images_command(names))}"
        ok, output = host.run_shell_command(StringCommand(command))
        if not ok:
            logger.warning("    images stay that no release needs: %s", output.stderr)
        sizes = [int(line) for line in output.stdout_lines if line.isdigit()]
        freed = sizes[0] - sizes[-1] if len(sizes) > 1 else 0
    if gone or names:
        logger.info(
            "    removed: %s and %s; %s freed",
            _count(len(gone), "old release"),
            _count(len(names), "name of an unused image", "names of unused images"),
            megabytes(freed),
        )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def does_not_serve(state: StackState, manifest: Mapping[str, Any]) -> str:
    """Why a release is not what serves, such as one that a run left which was cut before the
    switch; empty if it is. Pure.
    """
    if state.dynamic != manifest["dynamic"]:
        return "requests do not go to it"
    names = container_names(manifest["colours"])
    # Routes alone do not tell: one that differs in Postgres has those of what serves.
    for service in SERVICES:
        container = state.containers.get(names[service])
        if why := not_serving(container):
            return f"its {service} {why}"
        if container and container.spec != manifest["specs"][service]:
            return f"another {service} runs than it says"
    return ""


def before(state: StackState, manifest: dict[str, Any]) -> str:
    """Id of the release that a rollback would go to by itself; empty if there is none."""
    others = {
        release: moment
        for release, moment in state.served.items()
        if release != manifest["id"] and release not in state.marked
    }
    return max(others, key=lambda release: others[release], default="")


def unused_logins(logins: Iterable[str], manifest: Mapping[str, Any]) -> list[str]:
    """Roles that a backend of another release logged in as. Pure."""
    return sorted(set(logins) - {database.login_of(manifest)})


def unused_images(
    images: Iterable[Image],
    needed: Iterable[Mapping[str, Any]],
    known: Iterable[Mapping[str, Any]],
) -> list[str]:
    """Names of images of ours that no kept release needs.

    Only of repositories that a manifest names: whatever else is on the host is somebody else's.

    Args:
        images: those on the host.
        needed: manifests of the releases that stay.
        known: manifests of all releases, also of those that go.
    """
    ours = {
        repository(image)
        for manifest in known
        for image in (*manifest["images"].values(), *manifest["requested"].values())
    }
    digests = {
        (repository(image), image.partition("@")[2])
        for manifest in needed
        for image in manifest["images"].values()
    }
    gone = []
    for image in images:
        if any((repository(name), name.partition("@")[2]) in digests for name in image.names):
            continue
        gone += [name for name in image.names if repository(name) in ours]
    return gone


def remove_images_command(names: list[str]) -> str:
    """Remove images by their names; prints what all images take before and after, in bytes.

    Not forced: an image that a container uses stays.
    """
    size = (
        "curl -s -m 20 --unix-socket /var/run/docker.sock "
        "'http://localhost/system/df?type=image' | grep -o '\"LayersSize\":[0-9]*' | cut -d: -f2"
    )
    return (
        f"{size}\ndocker image rm {shlex.join(names)} >/dev/null; failed=$?\n{size}\nexit $failed"
    )


def unused(releases: list[str], current: str, kept: int, before: str = "") -> list[str]:
    """Ids of the oldest releases beyond the number to keep.

    Never the current one, nor the one that served before it: many that failed do not push out
    the way back.
    """
    real = [r for r in releases if not r.startswith(".")]
    others = [r for r in real if r not in (current, before)]
    return others[: max(0, len(real) - kept)]


def prune_command(root: str, gone: list[str]) -> str:
    """Remove old releases, and config and secret directories that no kept release mounts."""
    names = " ".join(shlex.quote(f"releases/{r}") for r in gone)
    return f"""set -e; cd {root}; rm -rf {names}
for kind in config secrets; do
  for directory in $kind/*; do
    grep -qsF "{root}/$directory" releases/*/compose.yaml || rm -rf "$directory"
  done
done"""


def prune_dumps_command(root: str, gone: list[str]) -> str:
    """Remove dumps of before a migration, by the release that migrated."""
    names = shlex.join(f"{release}.{kind}" for release in gone for kind in ("dump", "json"))
    return f"set -e; cd {root}/dumps; rm -f {names}"


@deploy("Settle")
def settle_stage() -> None:
    """The release counts; what served before it goes."""
    settled(name="Let the release count")
