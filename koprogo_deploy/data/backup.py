"""A backup: dump, uploads and the manifest that fits, in the repository and read back. The drill.

All three lie in one directory beside the uploads' volume, whose files are linked, not copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from koprogo_deploy import database, journal
from koprogo_deploy.data import dump, hashes, repository, scratch
from koprogo_deploy.data.host import INCOMING, MB, POSTGRES, Config, Failed, run, settled, sql

UPLOADS = "koprogo_uploads"
DUMP = "database.dump"
MANIFEST = "manifest.json"
FILES = "uploads/"
_CHUNK = 1 << 20
_HOUR = 3600  # a snapshot's time is somewhat after that of its uploads
_EMPTY = 16 * MB  # of a database without data


def applied(container: str) -> list[str]:
    """Versions of the migrations of a server's database.

    Raises:
        Failed: something else stands in the place of their table.
    """
    found = database.parse_migrations(sql(container, database.MIGRATIONS_SQL))
    if not all(version.isdigit() for version in found):
        raise Failed("public._sqlx_migrations is not the table that the application makes")
    return list(found)


def volume() -> Path:
    """Where the uploads lie on the host."""
    return Path(run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", UPLOADS).strip())


def stage_directory() -> Path:
    """Where a backup is put together: on the volume's own file system, for links to be possible."""
    return volume().parent / "backup"


@contextlib.contextmanager
def staged() -> Iterator[Path]:
    """An empty stage, which goes again however it ends."""
    stage = stage_directory()
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """The same files under another directory, as hard links: no copy, no room, one moment.

    Those that were linked there earlier stay. What is not an upload yet stays out: it changes while
    it is read.
    """
    target.mkdir(mode=0o700, exist_ok=True)
    for folder, folders, files in os.walk(source):
        if Path(folder) == source and INCOMING in folders:
            folders.remove(INCOMING)
        here = target / Path(folder).relative_to(source)
        for name in folders:
            if not (Path(folder) / name).is_symlink():
                (here / name).mkdir(mode=0o700, exist_ok=True)
        for name in [*files, *(n for n in folders if (Path(folder) / n).is_symlink())]:
            # One that the application deleted a moment ago is no part of this backup.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(Path(folder) / name, here / name, follow_symlinks=False)


def release(config: Config) -> dict[str, Any]:
    """What of the serving release's manifest belongs to a backup."""
    try:
        text = (config.root / "current/manifest.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Failed("no release serves yet, so there is nothing to back up") from None
    found = json.loads(text)
    return {name: found[name] for name in ("id", "images", "requested", "made", "settings")}


def image_migrations(config: Config) -> set[str]:
    """Migrations of the serving release's backend image."""
    names = (config.root / "current/migrations.txt").read_text(encoding="utf-8").split()
    return database.versions(names)


def backup(config: Config, staged_now: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Make a backup, read it back whole, and let go what the rule does not keep.

    Args:
        config: where the repository is.
        staged_now: called when all of it is on the stage: from then on the database and what
            serves may change.

    Raises:
        Failed: it could not be made, or does not read back; then it is no backup and is gone. Also
            while an upgrade or a swap that was cut is not ended: whose data is live is not settled.
    """
    began = time.monotonic()
    settled(config)
    scratch.down(config)  # one that was cut shares our line of memory
    serving = release(config)
    fresh = repository.ensure(config)
    with staged() as stage:
        made = datetime.now(UTC)
        # Before and after: one that is deleted meanwhile has its row in the dump, and so has one
        # that came just before it.
        link(volume(), stage / FILES)
        dumped = dump.dump(stage / DUMP, compress=0, hashed=True)
        link(volume(), stage / FILES)
        manifest = {
            "format": 1,
            "environment": config.environment,
            "made": made.isoformat(timespec="seconds"),
            "release": serving,
            "postgres": sql(POSTGRES, "SHOW server_version"),
            "migrations": sorted(applied(POSTGRES), key=int),
            "dump": {"bytes": dumped["bytes"], "sha256": dumped["sha256"]},
            "database": {"bytes": dumped["database"]},
            "tables": dumped["tables"],
            "uploads": hashes.files(stage / FILES),
        }
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        staged_now()
        if repository.is_local(config.backup["repository"]):
            room_for(config, stage, dumped["bytes"])
        try:
            stored = repository.store(config, stage, serving["id"])
        except Failed:
            (stage / DUMP).unlink()  # the repository may be on this disk, and tidying needs room
            with contextlib.suppress(Failed):
                repository.tidy(config)
            raise
    try:
        problems = differences(manifest, read(config, stored))
    except Failed as error:
        problems = [str(error)]
    if problems:
        with contextlib.suppress(Failed):
            repository.discard(config, stored["id"])
        raise Failed(f"it does not read back as it was written: {told(problems)}")
    repository.forget(config)
    return {
        "backup": stored["id"][:8],
        "repository": config.backup["repository"],
        "new_repository": fresh or None,
        "release": serving["id"],
        "dump": dumped["bytes"],
        "rows": sum(table["rows"] for table in manifest["tables"].values()),
        "uploads": len(manifest["uploads"]),
        "uploads_bytes": uploads_bytes(manifest),
        "added": stored["added"],
        "seconds": round(time.monotonic() - began, 1),
    }


def room_for(config: Config, stage: Path, dumped: int) -> None:
    """Refuse a backup that a repository on this host has no room for.

    Raises:
        Failed: it has not, with the numbers.
    """
    place, known = Path(config.backup["repository"]), repository.snapshots(config)
    since = datetime.fromisoformat(known[-1]["time"]).timestamp() if known else 0.0
    # Postgres goes on on its own disk alone.
    stays = dump.STAYS_FREE if place.stat().st_dev == stage.stat().st_dev else 0
    dump.room(place, dumped + newer(stage / FILES, since - _HOUR), "the backup", stays)


def newer(directory: Path, since: float) -> int:
    """Bytes of the files below a directory that were written after a time: those of before are in
    the repository already.
    """
    found = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            file = (Path(folder) / name).lstat()
            found += file.st_size if file.st_mtime > since else 0
    return found


def told(problems: list[str], most: int = 3) -> str:
    """The first few of them, and how many more."""
    more = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {more} more" if more > 0 else "")


def read(
    config: Config,
    snapshot: dict[str, Any],
    dump_to: Path | None = None,
    files_to: Path | None = None,
) -> dict[str, Any]:
    """Read every byte of a snapshot from the repository.

    Args:
        config: where that is.
        snapshot: which one.
        dump_to: a file to keep the dump in.
        files_to: a directory to keep the uploads in, with their owners and modes.

    Returns:
        `manifest`, and `dump` and `uploads` hashed as they were read.

    Raises:
        Failed: it cannot be read to its end.
    """
    found: dict[str, Any] = {"manifest": None, "dump": None, "uploads": {}}
    with repository.Reader(config, snapshot) as pipe:
        try:
            with tarfile.open(fileobj=pipe, mode="r|") as tar:
                for entry in tar:
                    tar.members = []  # type: ignore[attr-defined] # or it keeps every one
                    _entry(tar, entry, found, dump_to, files_to)
        except tarfile.TarError as error:
            raise Failed(f"the backup ends before its end: {error}") from None
    return found


def _entry(
    tar: tarfile.TarFile,
    entry: tarfile.TarInfo,
    found: dict[str, Any],
    dump_to: Path | None,
    files_to: Path | None,
) -> None:
    name = entry.name.lstrip("/")
    if name == MANIFEST:
        content = tar.extractfile(entry)
        try:
            found["manifest"] = json.loads(content.read()) if content else None
        except ValueError:
            raise Failed("its manifest is not readable") from None
    elif name == DUMP:
        found["dump"] = _keep(tar, entry, dump_to)
    elif name.startswith(FILES) and (entry.isreg() or entry.issym()):
        name = name.removeprefix(FILES)
        target = inside_of(files_to, name) if files_to else None
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
        if entry.issym():
            found["uploads"][name] = {"link": entry.linkname}
            if target:
                target.symlink_to(entry.linkname)
        else:
            found["uploads"][name] = _keep(tar, entry, target)
        if target:
            os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
            if not entry.issym():
                target.chmod(entry.mode & 0o777)


def inside_of(directory: Path, name: str) -> Path:
    """Where an upload goes; never outside of the directory, whatever its name."""
    path = directory / name
    if ".." in path.parts or Path(name).is_absolute():
        raise Failed(f"the backup has an upload called {name!r}, which is refused")
    return path


def _keep(tar: tarfile.TarFile, entry: tarfile.TarInfo, to: Path | None) -> dict[str, Any]:
    digest, length, content = hashlib.sha256(), 0, tar.extractfile(entry)
    assert content is not None
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(to.open("wb")) if to else None
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            length += len(chunk)
            if file:
                file.write(chunk)
        if file:
            file.flush()
            os.fsync(file.fileno())
    return {"bytes": length, "sha256": digest.hexdigest()}


def differences(manifest: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """How what was read differs from what was to be there; empty when it is the same. Pure."""
    problems = []
    if found["manifest"] != manifest:
        problems.append(
            "the manifest is missing" if not found["manifest"] else "the manifest differs"
        )
    if found["dump"] != manifest["dump"]:
        problems.append("the dump is missing" if not found["dump"] else "the dump differs")
    return problems + hashes.differences(manifest["uploads"], found["uploads"], "upload")


def uploads_bytes(manifest: dict[str, Any]) -> int:
    """Bytes of a backup's uploads. Pure."""
    return sum(each.get("bytes", 0) for each in manifest["uploads"].values())


def needs(manifest: dict[str, Any], uploads: bool) -> int:
    """Bytes that a backup takes at most while it is restored: its dump, the database that this
    becomes, as much WAL, and its uploads. Pure.

    Args:
        manifest: the backup's. An older one does not say how large the database was: a dump holds
            no index, and an empty database is some MB.
        uploads: whether they are wanted.
    """
    dumped = int(manifest["dump"]["bytes"])
    whole = manifest.get("database", {}).get("bytes") or 2 * dumped + _EMPTY
    return dumped + 2 * int(whole) + (uploads_bytes(manifest) if uploads else 0)


def fetch(
    config: Config, asked: str, dump_to: Path, files_to: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A backup from the repository, each byte of it compared with its manifest.

    Args:
        config: where the repository is.
        asked: `latest`, or the beginning of an id.
        dump_to: where its dump goes.
        files_to: where its uploads go, if they are wanted.

    Returns:
        The snapshot, and the manifest.

    Raises:
        Failed: there is none, no room for it, or it is damaged.
    """
    snapshot = repository.find(repository.snapshots(config), asked)
    try:
        need = needs(json.loads(repository.content(config, snapshot, MANIFEST)), bool(files_to))
    except (ValueError, KeyError, TypeError):
        raise Failed(f"the manifest of backup {snapshot['short_id']} is not readable") from None
    dump.room(dump_to.parent, need, f"backup {snapshot['short_id']}, restored,")
    found = read(config, snapshot, dump_to, files_to)
    manifest = found["manifest"]
    if manifest is None:
        raise Failed(f"backup {snapshot['short_id']} has no manifest")
    if problems := differences(manifest, found):
        raise Failed(f"backup {snapshot['short_id']} is damaged: {told(problems)}")
    return snapshot, manifest


def fits(config: Config, manifest: dict[str, Any]) -> None:
    """Whether the serving release can run on a backup's schema.

    Raises:
        Failed: its backend would not start.
    """
    applied = dict.fromkeys(manifest["migrations"], True)
    if reason := database.cannot_start(applied, image_migrations(config)):
        raise Failed(f"the serving release does not fit the backup: {reason}")


def drill(config: Config, _staged: object = None) -> dict[str, Any]:
    """Prove the newest backup: restore it into a scratch server, compare every hash, have a backend
    like the serving one come up on it, and ask that for its lists. All the while no deploy may run:
    its second colour would need the memory.

    Raises:
        Failed: it is not what it should be; says how.
    """
    began = time.monotonic()
    settled(config)
    scratch.down(config)
    repository.check(config)
    with staged() as stage:
        snapshot, manifest = fetch(config, "latest", stage / DUMP)
        fits(config, manifest)
        # From here on restic is gone: the server takes its share of the memory.
        try:
            scratch.up(config)
            dump.restore(stage / DUMP)
            found = hashes.tables(scratch.NAME)
            there = sorted(applied(scratch.NAME), key=int)
            up = scratch.try_backend(config, backend(config))
            wrong = scratch.ask_backend()
        finally:
            scratch.down(config)
    problems = hashes.differences(manifest["tables"], found, "table")
    if there != manifest["migrations"]:
        problems.append("its migrations are not those of the manifest")
    if problems:
        raise Failed(f"backup {snapshot['short_id']} does not restore: {told(problems)}")
    if wrong:
        raise Failed(
            f"backup {snapshot['short_id']} is as it was made, and a backend on it fails: "
            f"{told(wrong)}"
        )
    return {
        "backup": snapshot["short_id"],
        "made": manifest["made"],
        "tables": len(found),
        "rows": sum(table["rows"] for table in found.values()),
        "uploads": len(manifest["uploads"]),
        "backend_up": round(up, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def backend(config: Config) -> str:
    """Name of the serving release's backend container."""
    text = (config.root / "current/manifest.json").read_text(encoding="utf-8")
    return f"koprogo-backend-{json.loads(text)['colours']['backend']}-1"


def write_down(config: Config, kind: str, by: str, **values: Any) -> None:  # noqa: ANN401
    """Append a line to the journal, chained as a deploy's are."""
    line = journal.entry(
        kind, at=datetime.now(UTC).isoformat(timespec="seconds"), by=by, run=kind, **values
    )
    run("sh", "-c", journal.append_command(str(config.root)), stdin=line)


def clean(config: Config, kind: str) -> None:
    """What one that was killed left behind goes."""
    shutil.rmtree(stage_directory(), ignore_errors=True)
    if kind == "drill":
        scratch.down(config)
