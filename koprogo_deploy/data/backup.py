"""A backup: dump, uploads and the manifest that fits, in the repository and read back. The drill.

All three lie in one directory beside the uploads' volume, whose files are linked, not copied. Who
runs in the backend owns every name in that volume: `tree` never follows one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from koprogo_deploy import database, journal
from koprogo_deploy.data import dump, hashes, repository, scratch, tree
from koprogo_deploy.data.host import INCOMING, MB, POSTGRES, Config, Failed, run, settled, sql

UPLOADS = "koprogo_uploads"
DUMP = "database.dump"
MANIFEST = "manifest.json"
FILES = "uploads/"
_CHUNK = 1 << 20
_HOUR = 3600  # a snapshot's time is somewhat after that of its uploads
_EMPTY = 16 * MB  # of a database without data
_HELD = "somebody keeps it from being read"


def applied(container: str) -> list[str]:
    """Versions of the migrations of a server's database.

    Raises:
        Failed: something else stands in the place of their table.
    """
    printed = database.answer(sql(container, database.MIGRATIONS_SQL))
    found = database.parse_migrations(printed.get("migrations"))
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
    tree.remove(stage)
    stage.mkdir(mode=0o700)
    try:
        yield stage
    finally:
        with contextlib.suppress(Failed):
            tree.remove(stage)


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
    left = tree.LeftOut()
    with staged() as stage:
        made = datetime.now(UTC)
        # Before and after: one that is deleted meanwhile has its row in the dump, and so has one
        # that came just before it.
        tree.link(volume(), stage / FILES, left, (INCOMING,), config.memory)
        dumped = dump.dump(stage / DUMP, compress=0, hashed=True)
        tree.link(volume(), stage / FILES, left, (INCOMING,), config.memory)
        head = audit_head(config)
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
            "uploads": hashed(stage / FILES, left),
            "journal": {"first": head.first, "lines": head.lines, "head": head.head},
        }
        staged_now()
        stored = stored_whole(config, stage, manifest, left, head.tag)
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
        "warnings": manifest["warnings"] or None,
        "added": stored["added"],
        "seconds": round(time.monotonic() - began, 1),
    }


def hashed(uploads: Path, left: tree.LeftOut) -> dict[str, Any]:
    """Bytes and hash of every staged upload; one that somebody keeps from being read goes."""
    held: list[str] = []
    found = hashes.files(uploads, held.append)
    for name in held:
        left.add(name, _HELD)
        (uploads / name).unlink()
    return found


def warnings(config: Config, left: tree.LeftOut) -> list[str]:
    """What a backup does not hold, each in a line; empty when it holds everything. Pure."""
    return [each for each in (config.backup.get("unsaved", ""), left.told()) if each]


def stored_whole(
    config: Config, stage: Path, manifest: dict[str, Any], left: tree.LeftOut, *tags: str
) -> dict[str, Any]:
    """Have what is staged in the repository, and read every byte of it back.

    An upload is the application's own file: between our hash and restic's look it may change, or
    get an attribute that restic cannot give back. Then it is copied, which nobody changes, and all
    is stored once more: nothing that is done to the files has every backup fail.

    Args:
        config: where the repository is.
        stage: dump and uploads.
        manifest: of them; what is said of an upload that changed is set right.
        left: what stays out.
        tags: of the snapshot, besides its own.

    Returns:
        The snapshot.

    Raises:
        Failed: it cannot be stored, or does not read back; then it is gone from the repository.
    """
    bad = ""
    try:
        for last in (False, True):
            stored = _stored(config, stage, manifest, left, *tags)
            if bad:
                repository.discard(config, bad)
            bad = stored["id"]
            problems, doubtful = read_back(config, stored, manifest)
            if not problems:
                bad = ""
                return stored
            if last or not doubtful:
                break
            copied(stage, doubtful, manifest, left)
    finally:
        if bad:
            with contextlib.suppress(Failed):
                repository.discard(config, bad)
    raise Failed(f"it does not read back as it was written: {told(problems)}")


def _stored(
    config: Config, stage: Path, manifest: dict[str, Any], left: tree.LeftOut, *tags: str
) -> dict[str, Any]:
    manifest["warnings"] = warnings(config, left)
    (stage / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    if repository.is_local(config.backup["repository"]):
        room_for(config, stage, manifest["dump"]["bytes"])
    try:
        return repository.store(config, stage, manifest["release"]["id"], *tags)
    except Failed:
        (stage / DUMP).unlink()  # the repository may be on this disk, and tidying needs room
        with contextlib.suppress(Failed):
            repository.tidy(config)
        raise


def read_back(
    config: Config, stored: dict[str, Any], manifest: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """What is wrong with a snapshot, and the uploads whose doing that may be alone."""
    try:
        found = read(config, stored, wanted=manifest)
    except Failed as error:
        return [str(error)], list(manifest["uploads"])
    problems, changed = differences(manifest, found), moved(manifest, found)
    return problems, changed if len(changed) == len(problems) else []


def moved(manifest: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Uploads that are in the repository with another content than they had when they were hashed:
    restic gives back what it read or says that it cannot, so it read something else. Pure.
    """
    return [
        name
        for name, wanted in manifest["uploads"].items()
        if found["uploads"].get(name, wanted) != wanted
    ]


def copied(stage: Path, names: list[str], manifest: dict[str, Any], left: tree.LeftOut) -> None:
    """Have copies of some uploads on the stage instead of links; without room for them, or where
    somebody keeps one from being read, they stay out of the backup.
    """
    uploads = stage / FILES
    files = {name: uploads / name for name in names}
    room = True
    try:
        need = sum(file.stat().st_size for file in files.values())
        dump.room(stage, need, "a copy of the uploads that change")
    except Failed:
        room = False
    for name, file in files.items():
        found = tree.own_copy(file, stage / "copy") if room else None
        if found:
            manifest["uploads"][name] = found
        else:
            left.add(name, _HELD if room else "it changed meanwhile, and there is no room to copy")
            file.unlink()
            del manifest["uploads"][name]


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
    wanted: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Read every byte of a snapshot from the repository.

    Args:
        config: where that is.
        snapshot: which one.
        dump_to: a file to keep the dump in.
        files_to: a directory to keep the uploads in, with their modes.
        wanted: the manifest, if it is known: what is equal to it takes no memory again.

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
                    if wanted is not None:
                        _share(found, wanted, entry.name.lstrip("/").removeprefix(FILES))
        except tarfile.TarError as error:
            raise Failed(f"the backup ends before its end: {error}") from None
    return found


def _share(found: dict[str, Any], wanted: dict[str, Any], name: str) -> None:
    if name == MANIFEST and found["manifest"] == wanted:
        found["manifest"] = wanted
    if name in found["uploads"] and found["uploads"][name] == wanted["uploads"].get(name):
        found["uploads"][name] = wanted["uploads"][name]


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
        if not entry.isreg():
            raise Failed("its dump is no file, which is refused")
        with dump_to.open("wb") if dump_to else contextlib.nullcontext() as file:
            found["dump"] = _keep(tar, entry, file)
    elif name.startswith(FILES) and not entry.isdir():  # directories are made as files need them
        _upload(tar, entry, name.removeprefix(FILES), found["uploads"], files_to)


def _upload(
    tar: tarfile.TarFile,
    entry: tarfile.TarInfo,
    name: str,
    found: dict[str, Any],
    files_to: Path | None,
) -> None:
    """An upload of a snapshot: only files are ever made, of root's until all is compared."""
    above = tree.parts(name)
    if any("/".join(above[:depth]) in found for depth in range(1, len(above) + 1)):
        raise Failed(f"the backup has upload {tree.shown(name)} twice, or below one: refused")
    if entry.issym():
        # An earlier version had links in its backups: compared with the manifest, never made.
        found[name] = {"link": entry.linkname}
    elif entry.isreg():
        with contextlib.ExitStack() as stack:
            file = None
            if files_to:
                descriptor = stack.enter_context(tree.created(files_to, name))
                os.fchmod(descriptor, entry.mode & 0o777)  # none that gives rights
                file = stack.enter_context(open(descriptor, "wb", closefd=False))
            found[name] = _keep(tar, entry, file)
    elif not entry.isfifo():  # of an earlier version, too: in no manifest, and never made
        raise Failed(f"the backup has an upload {tree.shown(name)} that is no file: refused")


def only_files(uploads: dict[str, Any]) -> dict[str, Any]:
    """Of a manifest's uploads, those that a restore makes: older ones list links as well. Pure."""
    return {name: each for name, each in uploads.items() if "link" not in each}


def _keep(tar: tarfile.TarFile, entry: tarfile.TarInfo, file: IO[bytes] | None) -> dict[str, Any]:
    digest, length, content = hashlib.sha256(), 0, tar.extractfile(entry)
    assert content is not None
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


def audit_head(config: Config) -> journal.Head:
    """The end of the journal as it is now: a backup keeps it where root of this host may not be."""
    try:
        content = (config.root / journal.FILE).read_bytes()
    except FileNotFoundError:
        content = b""
    return journal.read(content).kept_head


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
    with contextlib.suppress(Failed):
        tree.remove(stage_directory())
    if kind == "drill":
        scratch.down(config)
