"""Facts about the releases that are kept on the host, and about its images."""

from __future__ import annotations

import base64
import io
import json
import shlex
import tarfile
from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase, StringCommand

from koprogo_deploy.facts.stack import parse_manifest

FILES = ("compose.yaml", "traefik", "postgres", "backend", "frontend")  # what was rendered


def packed(directory: str) -> str:
    """Shell that prints a release's rendered files as one archive; old ones have fewer.

    Args:
        directory: the release's, quoted.
    """
    names = " ".join(FILES)
    return f"{{ cd {directory} && tar -cz $(ls -d {names} 2>/dev/null); }}"


@dataclass(frozen=True)
class Kept:
    """A release on the host: its manifest, and the migration files of its image."""

    manifest: dict[str, Any]
    migrations: list[str]


class Releases(FactBase[dict[str, Kept]]):
    """Every kept release by its id; without those whose manifest cannot be read."""

    def command(self, root: str) -> StringCommand:
        """Reads two small files of each."""
        return StringCommand(
            f"root={shlex.quote(root)}\n"
            r"""
for release in "$root"/releases/*/; do
  [ -f "$release/manifest.json" ] || continue
  printf '%s\t%s\n' "$(tr '\n' ' ' < "$release/migrations.txt" 2>/dev/null)" \
    "$(tr -d '\n' < "$release/manifest.json")"
done
true"""
        )

    def process(self, output: list[str]) -> dict[str, Kept]:
        """A line for each."""
        found = {}
        for line in output:
            migrations, _, text = line.partition("\t")
            if manifest := parse_manifest(text):
                found[manifest["id"]] = Kept(manifest, migrations.split())
        return found


class ReleaseFiles(FactBase[dict[str, str]]):
    """The rendered files of one release, by their path in it."""

    def command(self, root: str, release: str) -> StringCommand:
        """One archive, as text."""
        directory = shlex.quote(f"{root}/releases/{release}")
        return StringCommand(f"{packed(directory)} | base64")

    def process(self, output: list[str]) -> dict[str, str]:
        """Unpack it."""
        packed = io.BytesIO(base64.b64decode("".join(output)))
        files = {}
        with tarfile.open(fileobj=packed) as tar:
            for member in tar:
                if content := tar.extractfile(member):
                    files[member.name] = content.read().decode()
        return files


class Dumps(FactBase[dict[str, dict[str, Any]]]):
    """What is known of each dump that was made before a migration, by the release that migrated.

    `release`; `before`, the one that served; `at`, ISO time from which on nothing is in it;
    `applied`, the migrations in it; `bytes`, `seconds`, `sha256`.
    """

    def command(self, root: str) -> StringCommand:
        """Reads a small file of each; one without its dump counts for nothing."""
        return StringCommand(
            f"cd {shlex.quote(f'{root}/dumps')} 2>/dev/null || exit 0\n"
            'for f in *.json; do [ -f "${f%.json}.dump" ] && tr -d "\\n" < "$f" && echo; done; true'
        )

    def process(self, output: list[str]) -> dict[str, dict[str, Any]]:
        """A line for each."""
        return {told["release"]: told for told in map(json.loads, output)}


@dataclass(frozen=True)
class Image:
    """An image on the host: what it is called (`name:tag`, `name@sha256:…`), and its size."""

    names: tuple[str, ...]
    size: int


class Images(FactBase[list[Image]]):
    """Every image on the host; none where there is no engine."""

    @staticmethod
    def default() -> list[Image]:
        """An engine that was just installed has no image to print of."""
        return []

    def command(self) -> StringCommand:
        """One inspect for all."""
        return StringCommand(
            "docker image ls -q --no-trunc 2>/dev/null | sort -u | xargs -r docker image inspect "
            "--format '{{.Size}} {{json .RepoTags}} {{json .RepoDigests}}'; true"
        )

    def process(self, output: list[str]) -> list[Image]:
        """A line for each."""
        found = []
        for line in output:
            size, rest = line.split(" ", 1)
            tags, end = json.JSONDecoder().raw_decode(rest)
            digests = json.loads(rest[end:])
            found.append(Image((*(tags or ()), *(digests or ())), int(size)))
        return found
