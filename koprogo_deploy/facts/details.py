"""Facts that only a plan with changes needs: contents, a registry's word, migrations, journal."""

from __future__ import annotations

import base64
import gzip
import io
import json
import shlex
import tarfile
from dataclasses import dataclass, field
from typing import Any

from pyinfra.api import FactBase, StringCommand

from koprogo_deploy.facts.releases import packed
from koprogo_deploy.facts.stack import digest_reference
from koprogo_deploy.journal import FILE as JOURNAL

JOURNAL_LINES = 300  # of the newest, for how long things took

# The files of a directory as a container of the image would see them, read from its layers: no
# container is made. Arguments: the directory; standard input: `docker image inspect`'s GraphDriver.
_IN_LAYERS = r"""
import json, os, stat, sys
driver = json.load(sys.stdin)
data = driver.get("Data") or {}
if driver.get("Name") != "overlay2" or "UpperDir" not in data:
    sys.exit(1)
layers = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
def gone(path):
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
def opaque(path):
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
names, hidden = set(), set()
for layer in layers:
    path, last = layer, False
    for part in sys.argv[1].strip("/").split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            sys.exit(1)  # it points into the image; followed here, it would point into the host
        last = last or gone(path) or opaque(path)
    if os.path.isdir(path):
        for name in os.listdir(path):
            if gone(os.path.join(path, name)):
                hidden.add(name)
            elif name not in hidden:
                names.add(name)
    if last:
        break
print(" ".join(sorted(names)))
"""


class Resolved(FactBase[dict[str, str]]):
    """Digest reference of each image, as its registry says now; those it does not know are absent.

    Asked through the engine, with its own certificates and proxies; nothing is pulled.
    """

    def command(self, references: tuple[str, ...]) -> StringCommand:
        """One request each, side by side."""
        asks = "\n".join(
            f"( printf '%s\\t%s\\n' {shlex.quote(ref)} \"$(curl -s -m 20 "
            "--unix-socket /var/run/docker.sock "
            f"{shlex.quote(f'http://localhost/distribution/{ref}/json')} | tr -d '\\n')\" ) &"
            for ref in references
        )
        return StringCommand(f"{asks}\nwait; true")

    def process(self, output: list[str]) -> dict[str, str]:
        """Keep what has a digest."""
        found = {}
        for line in output:
            reference, _, answer = line.partition("\t")
            try:
                digest = json.loads(answer)["Descriptor"]["digest"]
            except (ValueError, KeyError, TypeError):
                continue
            found[reference] = digest_reference(reference, f"@{digest}")
        return found


@dataclass(frozen=True)
class Details:
    """What is read only where something changes.

    Attributes:
        files: text of the files asked for, by path; those that are not there are absent.
        release: rendered files of the release asked for, by their path in it.
        images: references that are on the host, of those asked for.
        migrations: files in /app/migrations of the image asked for; None: not known.
        journal: newest lines of the journal that can be read, oldest first.
    """

    files: dict[str, str] = field(default_factory=dict)
    release: dict[str, str] = field(default_factory=dict)
    images: frozenset[str] = frozenset()
    migrations: tuple[str, ...] | None = None
    journal: tuple[dict[str, Any], ...] = ()


class DetailsFact(FactBase[Details]):
    """Gather `Details` in one remote command."""

    @staticmethod
    def default() -> Details:
        """A new host has none of it to tell."""
        return Details()

    def command(
        self,
        root: str,
        files: tuple[str, ...] = (),
        release: str = "",
        images: tuple[str, ...] = (),
        backend: str = "",
    ) -> StringCommand:
        """Reads files, and asks the engine for images; changes nothing."""
        lines = [f"root={shlex.quote(root)}"]
        if files:
            lines.append(
                f'for f in {shlex.join(files)}; do [ -f "$f" ] && '
                'printf \'file\\t%s\\t%s\\n\' "$f" "$(base64 -w0 < "$f")"; done'
            )
        if release:
            directory = f'"$root"/releases/{shlex.quote(release)}'
            lines.append(f"printf 'release\\t%s\\n' \"$({packed(directory)} | base64 -w0)\"")
        if images:
            lines.append(
                f'for i in {shlex.join(images)}; do docker image inspect "$i" >/dev/null 2>&1 && '
                "printf 'image\\t%s\\n' \"$i\"; done"
            )
        if backend:
            lines.append(
                "printf 'migrations\\t%s\\n' \"$(docker image inspect --format "
                f"'{{{{json .GraphDriver}}}}' {shlex.quote(backend)} 2>/dev/null | "
                f'python3 -c {shlex.quote(_IN_LAYERS)} /app/migrations 2>/dev/null)"'
            )
        lines.append(
            f"[ -f \"$root/{JOURNAL}\" ] && printf 'journal\\t%s\\n' "
            f'"$(tail -n {JOURNAL_LINES} "$root/{JOURNAL}" | gzip -c | base64 -w0)"'
        )
        return StringCommand("\n".join(lines) + "\ntrue")

    def process(self, output: list[str]) -> Details:
        """Unpack each line."""
        files: dict[str, str] = {}
        release: dict[str, str] = {}
        images: set[str] = set()
        migrations: tuple[str, ...] | None = None
        journal: list[dict[str, Any]] = []
        for line in output:
            key, *values = line.split("\t")
            match key:
                case "file":
                    files[values[0]] = base64.b64decode(values[1]).decode("utf-8", "replace")
                case "release":
                    release = _unpacked(values[0])
                case "image":
                    images.add(values[0])
                case "migrations":
                    migrations = tuple(values[0].split()) or None
                case "journal":
                    journal = _entries(gzip.decompress(base64.b64decode(values[0])))
                case _:
                    raise ValueError(f"unexpected output of the details fact: {line[:80]!r}")
        return Details(files, release, frozenset(images), migrations, tuple(journal))


def _unpacked(packed: str) -> dict[str, str]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as tar:
        for member in tar:
            if content := tar.extractfile(member):
                files[member.name] = content.read().decode()
    return files


def _entries(lines: bytes) -> list[dict[str, Any]]:
    found = []
    for line in lines.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut short; koprogo history says so
        if isinstance(entry, dict):
            found.append(entry)
    return found
