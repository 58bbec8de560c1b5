"""Settle: the verified release counts, and what served before it goes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from pyinfra import host
from pyinfra.api import deploy

from koprogo_deploy.operations import context
from koprogo_deploy.operations.migrate import stack, target
from koprogo_deploy.operations.release import promote_command
from koprogo_deploy.operations.shell import container
from koprogo_deploy.operations.step import step
from koprogo_deploy.render import container_names


@step
def settled() -> Iterator[str]:
    """`current` moves; then the old colours and the oldest releases go."""
    settings = context.current().settings
    state = stack(settings)
    manifest, root = target(state), settings.install_root
    steps = []
    if state.candidate or context.planned():
        steps.append(promote_command(root, manifest["id"]))
    leftovers = old_containers(state.containers, manifest)
    if leftovers:
        names = " ".join(shlex.quote(container(name)) for name in leftovers)
        # Time for the requests they are at.
        steps.append(f"docker stop -t 35 {names} >/dev/null; docker rm {names} >/dev/null")
    gone = unused(state.releases, manifest["id"], settings.releases_kept)
    if gone:
        steps.append(prune_command(root, gone))
    yield from steps
    if not steps:
        host.noop(f"release {manifest['id']} counts, and nothing of another one runs")


def old_containers(containers: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """Compose services of the project that the release does not have: the old colours."""
    return sorted(set(containers) - set(container_names(manifest["colours"]).values()))


def unused(releases: list[str], current: str, kept: int) -> list[str]:
    """Ids of the oldest releases beyond the number to keep; never the current one."""
    real = [r for r in releases if not r.startswith(".")]
    others = [r for r in real if r != current]
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


@deploy("Settle")
def settle_stage() -> None:
    """The release counts; what served before it goes."""
    settled(name="Let the release count")
