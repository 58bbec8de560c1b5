"""Facts about the deployed stack: releases, containers, images, database."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from pyinfra.api import FactBase, StringCommand

from koprogo_deploy.data.host import INCOMING
from koprogo_deploy.database import answer
from koprogo_deploy.operations.shell import owner_psql
from koprogo_deploy.operations.shell import psql as psql_of_superuser
from koprogo_deploy.problems import Problem

_INSPECT = (
    '{"id":{{json .ID}},"service":{{json (index .Config.Labels "com.docker.compose.service")}},'
    '"spec":{{json (index .Config.Labels "koprogo.spec")}},"status":{{json .State.Status}},'
    '"health":{{if .State.Health}}{{json .State.Health.Status}}{{else}}""{{end}},'
    '"started":{{json .State.StartedAt}}}'
)


@dataclass(frozen=True)
class Container:
    """A container of the project: its Compose service, spec label, status and health."""

    id: str
    service: str
    spec: str
    status: str
    health: str
    started: str

    @property
    def serving(self) -> bool:
        """Running, and healthy if it has a healthcheck."""
        return self.status == "running" and self.health in ("", "healthy")


def not_serving(container: Container | None) -> str:
    """Why a container answers nobody, in words; empty if it serves."""
    if container is None:
        return "has no container"
    if container.serving:
        return ""
    return f"is {container.status}" + (f", {container.health}" if container.health else "")


@dataclass
class StackState:
    """What is deployed.

    Attributes:
        docker: whether the engine answers.
        current, candidate: manifests of the serving release and of one that was pushed and does
            not serve yet; None where there is none.
        releases: ids of all kept releases, oldest first.
        config, secrets: names of the content-addressed directories there.
        dynamic: SHA-256 of Traefik's dynamic file as it lies on the host.
        containers: by Compose service name.
        migrations: migration files of the release's image, by release id.
        binary_unit: state of the unit that keeps Traefik's binary in memory.
        bad: reason by hash of each release that was taken back or left; also by the hash that it
            has whatever its colours.
        marked: the same reasons by the release's id.
        maintenance: first line of the maintenance page's file, JSON; empty while it is off.
        dumps: ids of the releases before whose migrations the database was dumped, oldest first.
        torn_dumps: names of files of dumps that were killed.
        rehearsal: a run was killed or cut off while it rehearsed migrations.
        restarting: the page that a deploy puts up while it restarts Postgres is there.
        upgrade: what an upgrade of Postgres wrote down that was cut or is under way; else None.
        restoring: what a restore wrote down whose swap was cut or is under way; else None.
        returning: the same of a rollback with its data.
        clusters: what is known of each cluster that served before an upgrade, oldest first.
        served: when each release began to serve last, in seconds since 1970, by id.
        unreadable: there is a serving release, and its manifest cannot be read.
    """

    docker: bool = False
    current: dict[str, Any] | None = None
    candidate: dict[str, Any] | None = None
    releases: list[str] = field(default_factory=list)
    config: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    dynamic: str = ""
    containers: dict[str, Container] = field(default_factory=dict)
    migrations: dict[str, list[str]] = field(default_factory=dict)
    binary_unit: str = ""
    bad: dict[str, str] = field(default_factory=dict)
    marked: dict[str, str] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)
    maintenance: str = ""
    dumps: list[str] = field(default_factory=list)
    torn_dumps: list[str] = field(default_factory=list)
    rehearsal: bool = False
    restarting: bool = False
    upgrade: dict[str, Any] | None = None
    restoring: dict[str, Any] | None = None
    returning: dict[str, Any] | None = None
    clusters: list[dict[str, Any]] = field(default_factory=list)
    unreadable: bool = False

    @property
    def live(self) -> dict[str, Any] | None:
        """The release that requests go to: `current`, or a candidate that a run which was cut
        had switched to before it could move `current`.
        """
        switched = self.candidate and self.dynamic == self.candidate["dynamic"]
        if switched and not (self.current and self.dynamic == self.current["dynamic"]):
            return self.candidate
        return self.current

    @property
    def target(self) -> dict[str, Any] | None:
        """The release that the stages after `release` work on."""
        return self.candidate or self.current


class Stack(FactBase[StackState]):
    """Gather `StackState` in one remote command."""

    def command(self, root: str) -> StringCommand:
        """Reads files below `root`, and the engine where there is one."""
        return StringCommand(
            f"root={shlex.quote(root)}\n"
            r"""
for which in current candidate; do
  [ -f "$root/$which/manifest.json" ] &&
    printf '%s\t%s\n' "$which" "$(tr -d '\n' < "$root/$which/manifest.json")"
  [ -f "$root/$which/migrations.txt" ] && printf 'migrations\t%s\t%s\n' \
    "$(basename "$(readlink -f "$root/$which")")" "$(tr '\n' ' ' < "$root/$which/migrations.txt")"
done
for kind in releases config secrets dumps; do
  [ -d "$root/$kind" ] && printf "$kind\t%s\n" "$(ls "$root/$kind" | tr '\n' ' ')"
done
for mark in "$root"/releases/*/bad; do
  [ -f "$mark" ] || continue
  hashes=$(sed -n 's/^ "\(hash\|content\)": "\(.*\)",$/\2/p' "${mark%/bad}/manifest.json")
  id=${mark%/bad}
  printf 'bad\t%s\t%s\t%s\n' "${id##*/}" "$(echo $hashes)" "$(head -n 1 "$mark")"
done
for mark in "$root"/releases/*/served; do
  [ -f "$mark" ] || continue
  id=${mark%/served}; printf 'served\t%s\t%s\n' "${id##*/}" "$(cat "$mark")"
done
[ -f "$root/traefik/dynamic/dynamic.yaml" ] &&
  printf 'dynamic\t%s\n' "$(sha256sum < "$root/traefik/dynamic/dynamic.yaml" | cut -c1-64)"
[ -e "$root/rehearsal" ] && printf 'rehearsal\tcut\n'
page=$root/traefik/dynamic/maintenance.yaml
[ -f "$page" ] && printf 'maintenance\t%s\n' "$(head -n 1 "$page" | cut -c3-)"
[ -f "$root/traefik/dynamic/restart.yaml" ] && printf 'restarting\tyes\n'
for what in upgrade restore return; do
  [ -f "$root/data/$what.json" ] && printf '%s\t%s\n' "$what" "$(cat "$root/data/$what.json")"
done
for note in /var/lib/docker/volumes/koprogo_postgres_data/koprogo_before_*.json; do
  [ -f "$note" ] && printf 'cluster\t%s\n' "$(head -n 1 "$note")"
done
printf 'unit\t%s\n' "$(systemctl is-active koprogo-traefik-binary.service 2>/dev/null)"
if ids=$(docker ps -aq --filter label=com.docker.compose.project=koprogo 2>/dev/null); then
  printf 'docker\tyes\n'
  [ -n "$ids" ] && docker inspect --format '"""
            + _INSPECT
            + r"""' $ids | sed 's/^/container\t/'
fi
true"""
        )

    def process(self, output: list[str]) -> StackState:
        """Parse the lines."""
        return parse_stack(output)


def parse_manifest(text: str) -> dict[str, Any] | None:
    """A release's manifest; None where it is empty or cut short, as by a loss of power."""
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return found


def unreadable() -> Problem:
    """What is wrong where the serving release's manifest cannot be read, and the way out."""
    what = "is empty or cut short, so nobody can say what serves; it goes on serving"
    fix = (
        "on the host, in install_root: ls -l releases/*/manifest.json, then ln -sfn releases/ID "
        "current with one that is whole, and deploys/full.py"
    )
    return Problem("current/manifest.json", what, fix)


def parse_stack(lines: list[str]) -> StackState:
    """Read the output of `Stack`."""
    state = StackState()
    for line in lines:
        key, _, value = line.partition("\t")
        match key:
            case "current":
                state.current = parse_manifest(value)
                state.unreadable = state.current is None
            case "candidate":
                # One that cannot be read never served: it is pushed again.
                state.candidate = parse_manifest(value)
            case "migrations":
                release, _, names = value.partition("\t")
                state.migrations[release] = names.split()
            case "releases":
                state.releases = sorted(value.split())
            case "config":
                state.config = set(value.split())
            case "secrets":
                state.secrets = set(value.split())
            case "dumps":
                found = (name for name in value.split() if name.endswith(".dump"))
                state.dumps = sorted(name.removesuffix(".dump") for name in found)
                state.torn_dumps = [name for name in value.split() if name.endswith(".part")]
            case "rehearsal":
                state.rehearsal = True
            case "dynamic":
                state.dynamic = value
            case "maintenance":
                state.maintenance = value
            case "restarting":
                state.restarting = True
            case "upgrade":
                state.upgrade = json.loads(value)
            case "restore":
                state.restoring = json.loads(value)
            case "return":
                state.returning = json.loads(value)
            case "cluster":
                state.clusters.append(json.loads(value))
            case "unit":
                state.binary_unit = value
            case "bad":
                release, _, rest = value.partition("\t")
                hashes, _, reason = rest.partition("\t")
                reason = reason or "marked, and the reason was lost"
                state.marked[release] = reason
                state.bad.update(dict.fromkeys(hashes.split(), reason))
            case "served":
                release, _, moment = value.partition("\t")
                if moment:
                    state.served[release] = float(moment)
            case "docker":
                state.docker = True
            case "container":
                container = Container(**json.loads(value))
                state.containers[container.service] = container
            case _:
                raise ValueError(f"unexpected output of the stack fact: {line!r}")
    return state


class ImageDigests(FactBase[dict[str, str]]):
    """Digest reference (`name@sha256:…`) of each image that is on the host, by what was asked."""

    def command(self, references: tuple[str, ...]) -> StringCommand:
        """One inspect for each reference."""
        words = " ".join(shlex.quote(r) for r in references)
        return StringCommand(
            f"for ref in {words}; do printf '%s\\t%s\\n' \"$ref\" "
            '"$(docker image inspect --format \'{{json .RepoDigests}}\' "$ref" 2>/dev/null)"; done'
        )

    def process(self, output: list[str]) -> dict[str, str]:
        """Keep the digest of the repository that was asked for."""
        found = {}
        for line in output:
            reference, _, digests = line.partition("\t")
            for digest in json.loads(digests or "[]"):
                if same_repository(reference, digest):
                    found[reference] = digest_reference(reference, digest)
        return found


def repository(reference: str) -> str:
    """The repository of an image reference, as the engine writes it.

    The engine leaves out `docker.io/library/`.
    """
    name = reference.partition("@")[0]
    head, _, last = name.rpartition("/")
    name = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    return name.removeprefix("docker.io/").removeprefix("library/")


def same_repository(reference: str, digest: str) -> bool:
    """Whether a RepoDigest belongs to the repository of a reference."""
    return repository(reference) == repository(digest)


def digest_reference(reference: str, digest: str) -> str:
    """The reference by digest, with the registry spelled as in the reference."""
    name = reference.partition("@")[0]
    head, _, last = name.rpartition("/")
    return f"{head}/{last.partition(':')[0]}@{digest.partition('@')[2]}"


UPLOADS = "/var/lib/docker/volumes/koprogo_uploads/_data"


class Uploads(FactBase[tuple[int, int]]):
    """Number and bytes of the uploads; those that are still coming are left out."""

    @staticmethod
    def default() -> tuple[int, int]:
        """A new host has no volume to print of."""
        return 0, 0

    def command(self) -> StringCommand:
        """One `find`; nothing where there is no volume."""
        return StringCommand(
            f"[ ! -d {UPLOADS} ] || find {UPLOADS} -path {UPLOADS}/{INCOMING} -prune -o -type f "
            "-printf '%s\\n' | awk '{n++; bytes += $1} END {printf \"%d\\t%.0f\\n\", n, bytes}'"
        )

    def process(self, output: list[str]) -> tuple[int, int]:
        """Parse the line."""
        number, _, size = output[-1].partition("\t")
        return int(number), int(size)


class Database(FactBase[dict[str, Any]]):
    """The JSON object that a query gives, asked inside the Postgres container.

    Empty where there is no running Postgres or no database yet.
    """

    @staticmethod
    def default() -> dict[str, Any]:
        """A new host has no database to answer."""
        return {}

    def command(
        self, query: str, database: str = "koprogo_db", owner: bool = False
    ) -> StringCommand:
        """One `psql` in the container; the query holds no secret.

        Args:
            query: a script that `database.answer` reads.
            database: to ask.
            owner: as the application's role, as what reads its rows must; else as superuser.
        """
        psql = owner_psql(database) if owner else psql_of_superuser(database)
        # 126: the engine could not start psql, once in thousands; it says so on standard output.
        return StringCommand(
            f"asked={shlex.quote(query)}\n"
            "for again in yes yes no; do\n"
            f"  said=$(printf '%s\\n' \"$asked\" | {psql} 2>/dev/null); code=$?\n"
            "  [ $code = 126 ] && [ $again = yes ] || break\n"
            "  sleep 0.5\n"
            "done\n"
            '[ $code != 0 ] || printf "%s\\n" "$said"'
        )

    def process(self, output: list[str]) -> dict[str, Any]:
        """What `database.answer` reads."""
        return answer("\n".join(output))
