"""Release: everything that was rendered, pushed as one directory, checked before it counts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import render
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.stack import ImageDigests, Stack
from koprogo_deploy.files import RemoteFile, archive, unpack_command
from koprogo_deploy.operations import context, planning
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.shell import little_room
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan.wanted import (
    Wanted,
    dynamic_hash,
    refused,
    wanted_release,
)
from koprogo_deploy.settings import SERVICES, Settings
from koprogo_deploy.units import MB

CONFIG_FILES = {
    "traefik": ("traefik/traefik.yaml",),
    "postgres": ("postgres/postgresql.conf", "postgres/pg_hba.conf", "postgres/pg_ident.conf"),
    "backend": ("backend/start.sh",),
    "frontend": ("frontend/config.js",),
}
ROOM = 1 * MB  # for the files of a release


def manifest(
    wanted: Wanted, environment: Environment, identity: str, made: datetime
) -> dict[str, Any]:
    """What is remembered of a release, beside its files."""
    settings, release = environment.settings, wanted.release
    return {
        "id": identity,
        "made": made.isoformat(timespec="seconds"),
        "by": context.who(),
        "revision": context.revision(),
        "environment": settings.environment,
        "hash": release.hash,
        "content": wanted.content,
        "settings": settings.hash,
        "seed": {"number": settings.seed_number, "scale": settings.seed_scale}
        if settings.seed_enabled
        else None,
        "requested": {service: settings.image(service) for service in SERVICES},
        "images": release.images,
        "colours": release.colours,
        "specs": release.specs,
        "definitions": release.definitions,
        "dynamic": dynamic_hash(release),
        "values": settings.of_release,
    }


@step
def secrets_pushed() -> Iterator[StringCommand]:
    """Secret files in directories named by their content, readable by their container alone.

    They travel by standard input only: pyinfra's own uploads pass through /tmp, world-readable.
    """
    environment = context.current()
    sets = context.secret_sets(environment)
    root = environment.settings.install_root
    found = look(Stack, root=root)
    directories = render.secret_directories(sets)
    missing = {s: d for s, d in directories.items() if d not in found.secrets}
    if not missing:
        host.noop("the secrets are there")
        return
    files = [
        RemoteFile(f"{directory}/{name}", content, "400", render.USERS[service])
        for service, directory in missing.items()
        for name, content in sorted(sets[service].items())
    ]
    moves = " && ".join(f"mv -T new/{d} {d} && chmod 700 {d}" for d in missing.values())
    yield StringCommand(
        f"umask 077 && mkdir -p {root} && chmod 755 {root} && mkdir -p {root}/secrets && "
        f"cd {root}/secrets && rm -rf new && mkdir new && {unpack_command('new')} && "
        f"{on_disk('new')} && {moves} && rmdir new && sync .",
        _stdin=archive(files),
    )


@step
def release_pushed() -> Iterator[StringCommand | str]:
    """Push the release of the plan, unless the host has it already."""
    environment = context.current()
    settings, root = environment.settings, environment.settings.install_root
    decided = planning.of_this_run()
    wanted, unresolved = decided.seen.wanted, decided.plan.images.unresolved
    found = look(Stack, root=root)
    if state.is_executing and not decided.plan.nothing:
        planning.still_holds(decided, found)
    if not wanted.exists:
        context.plan(manifest(wanted, environment, "planned", datetime.now(UTC)))
    elif wanted.exists == "current" and found.candidate and found.current:
        context.plan(found.current)
    if unresolved:
        # Nobody could say beforehand what these tags mean: a new host has no engine to ask.
        asked = tuple(settings.image(service) for service in unresolved)
        yield pull_command(sorted(set(asked)), settings.image_pull_timeout)
        images = {**wanted.release.images, **_resolved(settings, unresolved, asked)}
        sets = context.secret_sets(environment)
        wanted = wanted_release(environment, sets, images, found)
    if wanted.exists == "current" and not found.candidate:
        host.noop(f"release {found.current['id'] if found.current else ''} is what is asked for")
        return
    why_not = refused(found, wanted)
    if why_not and not settings.retry_bad_release:
        raise OperationError(why_not)
    if wanted.exists == "candidate":
        host.noop("the release was pushed by an earlier run that did not finish")
        return
    if wanted.exists == "current":
        yield f"rm -f {root}/candidate"
        return
    pull = [wanted.release.images[s] for s in decided.plan.images.pull if s not in unresolved]
    if pull:
        yield pull_command(sorted(set(pull)), settings.image_pull_timeout)
    if found.candidate and found.live is found.candidate:
        yield promote_command(root, found.candidate["id"])
    made = datetime.now(UTC)
    identity = f"{made:%Y%m%dT%H%M%SZ}-{wanted.release.hash[:8]}"
    release = render.named(wanted.release, identity)
    about = manifest(replace(wanted, release=release), environment, identity, made)
    yield push(settings, identity, release, about)


def _resolved(
    settings: Settings, services: tuple[str, ...], asked: tuple[str, ...]
) -> dict[str, str]:
    """Digest references of images that were just pulled by their tags."""
    digests = look(ImageDigests, references=asked)
    found = {}
    for service in services:
        reference = settings.image(service)
        if reference not in digests:
            raise OperationError(f"{reference} has no digest on the host after the pull")
        found[service] = digests[reference]
    return found


def push(
    settings: Settings, identity: str, release: render.Release, about: dict[str, Any]
) -> StringCommand:
    """The command that brings a release and its manifest to the host, as candidate."""
    files = [RemoteFile(path, text) for path, text in sorted(release.files.items())]
    files.append(RemoteFile("manifest.json", json.dumps(about, indent=1) + "\n"))
    command = push_command(settings.install_root, identity, release, settings.image_pull_timeout)
    return StringCommand(command, _stdin=archive(files))


def pull(reference: str, seconds: int) -> str:
    """Shell command that pulls an image; fails, and says why, also where it takes too long.

    Args:
        reference: the image.
        seconds: how long at most.
    """
    slow = (
        f"cannot pull {reference}: not there after {seconds} s, so the registry or the line to it "
        "is slow. Layers that came whole are kept: run it again, or give "
        "--data image_pull_timeout=30min"
    )
    wrong = (
        f"cannot pull {reference}: the engine says why above. Is the tag or digest right, and does "
        f"its registry answer? On the host: sudo docker pull {reference}"
    )
    return (
        f"{{ timeout -k 5 {seconds} docker pull -q {shlex.quote(reference)} >/dev/null || "
        f"if [ $? = 124 ]; then echo {shlex.quote(slow)} >&2; exit 1; "
        f"else {little_room()}; echo {shlex.quote(wrong)} >&2; exit 1; fi; }}"
    )


def pull_command(references: list[str], seconds: int) -> str:
    """Pull images side by side; fail, and say which, if one fails."""
    pulls = "\n".join(f'( {pull(r, seconds)} ) & jobs="$jobs $!"' for r in references)
    return f'jobs=""\n{pulls}\nbad=0; for job in $jobs; do wait "$job" || bad=1; done; exit $bad'


def promote_command(root: str, identity: str) -> str:
    """Move `current` to a release that serves already, by an atomic rename."""
    return (
        f"set -e; cd {root}; ln -sfn releases/{identity} current.new; "
        f"mv -T current.new current; date +%s.%N > releases/{identity}/served; sync . "
        f"releases/{identity}/served; rm -f candidate releases/{identity}/bad"
    )


def push_command(root: str, identity: str, release: render.Release, seconds: int) -> str:
    """Unpack a release beside the others, check it, and only then let it count.

    What is mounted is copied to content-addressed directories, each by an atomic rename. One that
    fails takes its own room back; a run that was cut leaves an `.incoming` directory, which the
    next one removes.

    Args:
        root: where releases lie.
        identity: the release's.
        release: its files.
        seconds: for an image that the host lacks, at most.
    """
    lines = [
        "set -eu; umask 022",
        room(root, ROOM),
        f"cd {root}; mkdir -p releases config traefik/dynamic traefik/acme",
        f"chown {render.USERS['traefik']}:{render.USERS['traefik']} traefik/acme",
        "chmod 700 traefik/acme; rm -rf releases/.incoming-* config/.incoming-*",
        f"new=releases/.incoming-{identity}; mkdir $new",
        "trap 'rm -rf $new config/.incoming-*' EXIT",
        unpack_command("$new"),
    ]
    for service, directory in config_directories(release).items():
        files = " ".join(f"$new/{file}" for file in CONFIG_FILES[service])
        lines.append(
            f"if [ ! -d config/{directory} ]; then mkdir config/.incoming-{service}; "
            f"cp {files} config/.incoming-{service}/; {on_disk(f'config/.incoming-{service}')}; "
            f"mv -T config/.incoming-{service} config/{directory}; fi"
        )
    lines.append(have_images(release.images.values(), seconds))
    # The backend migrates at boot; its image carries a copy of the files it embeds.
    backend = shlex.quote(release.images["backend"])
    lines += [
        f"docker run --rm --network none --memory 64m --entrypoint ls {backend} -1 "
        "/app/migrations > $new/migrations.txt",
        "docker compose --progress quiet -f $new/compose.yaml config -q",
        on_disk("$new"),
        f"mv -T $new releases/{identity}; sync config releases",
        f"ln -sfn releases/{identity} candidate.new; mv -T candidate.new candidate; sync .",
    ]
    return "\n".join(lines)


def on_disk(directory: str) -> str:
    """Shell command after which a directory's files survive a loss of power: before its rename.

    A rename may be on the disk before the contents are; then the files are there, and empty.
    """
    return f"find {directory} -depth -exec sync {{}} +"


def room(directory: str, needed: int) -> str:
    """Shell command that fails, and says the numbers, where a directory has too little room.

    Args:
        directory: on the file system in question.
        needed: bytes.
    """
    needs = f"kB free, and {needed // 1024} kB needed"
    return (
        f"free=$(df -Pk {shlex.quote(directory)} | awk 'NR==2 {{print $4}}'); "
        f'[ "$free" -ge {needed // 1024} ] || '
        f'{{ echo "no room in {directory}: $free {needs}. '
        'Make room: df -h, docker system df, a lower releases_kept" >&2; exit 1; }'
    )


def have_images(references: Iterable[str], seconds: int) -> str:
    """Shell commands that pull each image that the host lacks, within so many seconds each."""
    return "\n".join(
        f"docker image inspect {shlex.quote(ref)} >/dev/null 2>&1 || {pull(ref, seconds)}"
        for ref in sorted(set(references))
    )


def config_directories(release: render.Release) -> dict[str, str]:
    """Content-addressed directory of each service's configuration, as compose.yaml mounts it.

    A release of before a service had any is left as it is.
    """
    directories = {}
    for service in CONFIG_FILES:
        volumes = release.definitions[service].get("volumes", ())
        for source in (v.partition(":")[0] for v in volumes if "/config/" in v):
            directories[service] = source.partition("/config/")[2].partition("/")[0]
    return directories


@deploy("Release")
def release_stage() -> None:
    """Secrets and release on the host; nothing runs differently yet."""
    secrets_pushed(name="Push the secrets")
    release_pushed(name="Push the release")
