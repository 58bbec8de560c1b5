"""Trees that a container writes to: linked, measured and deleted so that nothing in them can lead
out of them.

Who runs in the container owns every name in there and may change it at any moment. So a name is
opened once, relative to the open directory above it, and never as a link; what it is follows from
that descriptor, and whatever is done is done with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koprogo_deploy.data.host import MB, Failed, run

# KoproGo makes two directories above a file; and what is much deeper no program can name any more.
DEEPEST = 16  # directories above each other
LONGEST = 1024  # bytes of a path
# Of the backup's memory for each file and directory: it takes 1.3 kB until the backup is done, and
# restic, the hashes and the dump need theirs. 25 000 of them in 192 MB, which is the default.
EACH = 8000
# Of files that are mostly holes, as a file system that compresses has, too: reading more than that
# takes for ever, and costs whoever made them nothing.
SPARSE = 64 * MB  # bytes of one; KoproGo takes uploads of 50 MB
SPARSE_ALL = 4096 * MB
_NAMED = 1000  # of what stays out
_PARTS = 256  # of a path in a backup: one that an earlier version made may be deeper than `DEEPEST`
_CHUNK = 1 << 20

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A fifo, or a file under a lease of somebody's, would keep an ordinary open waiting.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# What somebody can bring about in there: it costs the entry, and not the backup.
_THEIRS = {
    errno.ELOOP: "changed while it was linked",
    errno.ENOTDIR: "changed while it was linked",
    errno.EXDEV: "on another file system",
    errno.EMLINK: "a file of too many names",
}


def shown(name: str) -> str:
    """A foreign name or text for a person: control characters, marks of direction and odd bytes are
    visible. Pure.
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


@contextlib.contextmanager
def opened(name: str | Path, flags: int, at: int | None = None, mode: int = 0o600) -> Iterator[int]:
    """A descriptor while it is needed.

    Args:
        name: of the entry.
        flags: of open(2).
        at: descriptor of the directory above it.
        mode: of a file that is made.
    """
    descriptor = os.open(name, flags, mode, dir_fd=at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass
class LeftOut:
    """What of a tree is in no backup, and why, by its path in there; of many, the first ones."""

    why: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, why: str) -> None:
        """Remember one; what is known already stays as it is."""
        if len(self.why) < _NAMED:
            self.why.setdefault(path, why)

    def told(self, most: int = 3) -> str:
        """In a line, for a person; empty where nothing stays out. Pure."""
        if not self.why:
            return ""
        each = [f"{shown(path)} ({why})" for path, why in sorted(self.why.items())[:most]]
        more = len(self.why) - len(each)
        number = f"{_NAMED} or more" if len(self.why) == _NAMED else str(len(self.why))
        tail = f"; and {more} more" if more else ""
        return f"left out of the uploads, {number}: {'; '.join(each)}{tail}"


@dataclass
class _Linking:
    device: int
    outside: Collection[str]
    left: LeftOut
    most: int
    entries: int = 0
    sparse: int = 0


def link(
    source: Path,
    target: Path,
    left: LeftOut | None = None,
    outside: Collection[str] = (),
    memory: int = 192 * MB,
) -> None:
    """The regular files of a tree under another directory, as hard links: no copy, no room, one
    moment. Those that were linked there earlier stay.

    Args:
        source: may change meanwhile, in any way.
        target: a directory, made if need be, below which nobody else may write.
        left: gets what stays out: anything but files and directories, and what no program of
            KoproGo's makes.
        outside: paths in the source that do not belong to it.
        memory: bytes that a backup may take.

    Raises:
        Failed: there are more files than it has memory for. A backup of some of them is none.
        OSError: not of a kind that somebody brings about in the source.
    """
    target.mkdir(mode=0o700, exist_ok=True)
    with opened(source, _DIRECTORY) as here, opened(target, _DIRECTORY) as there:
        left = left if left is not None else LeftOut()
        linking = _Linking(os.fstat(here).st_dev, outside, left, memory // EACH)
        _link_all(linking, here, there, "", 0)


def _link_all(linking: _Linking, here: int, there: int, below: str, depth: int) -> None:
    with os.scandir(here) as entries:
        for each in entries:
            path = f"{below}{each.name}"
            if path in linking.outside:
                continue
            try:
                why = _link_one(linking, here, there, each.name, path, depth)
            except FileNotFoundError:
                continue  # the application deleted it a moment ago: no part of this backup
            except OSError as error:
                if error.errno not in _THEIRS:
                    raise
                why = _THEIRS[error.errno]
            if why:
                linking.left.add(path, why)


def _link_one(linking: _Linking, here: int, there: int, name: str, path: str, depth: int) -> str:
    """Link an entry of an open directory into another one; why it stays out, or nothing."""
    with opened(name, _LOOK, here) as entry:
        found = os.fstat(entry)
        if why := unfit(found, linking.device, path, depth):
            return why
        linking.entries += 1
        if linking.entries > linking.most:
            raise Failed(
                f"the uploads hold more than {linking.most} files and directories, and the line of "
                "backups in the budget has memory for no more: set backup_memory higher, and deploy"
            )
        if stat.S_ISREG(found.st_mode):
            if found.st_size >= max(MB, 1024 * found.st_blocks):
                linking.sparse += found.st_size
                if found.st_size > SPARSE or linking.sparse > SPARSE_ALL:
                    return "a file that is mostly holes"
            # The very file that was looked at, whatever has its name by now.
            try:
                os.link(f"/proc/self/fd/{entry}", name, dst_dir_fd=there, follow_symlinks=True)
            except FileExistsError:
                linked = os.stat(name, dir_fd=there, follow_symlinks=False)
                return "" if stat.S_ISREG(linked.st_mode) else _THEIRS[errno.ENOTDIR]
            return ""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=there)
        with opened(".", _DIRECTORY, entry) as inner, opened(name, _DIRECTORY, there) as below:
            _link_all(linking, inner, below, f"{path}/", depth + 1)
    return ""


def unfit(found: os.stat_result, device: int, path: str, depth: int) -> str:
    """Why an entry of the uploads stays out of a backup; empty if it does not. Pure.

    Args:
        found: what it is.
        device: of the whole tree.
        path: where in there.
        depth: directories of the tree above it.
    """
    for is_kind, what in _KINDS:
        if is_kind(found.st_mode):
            return what
    if found.st_dev != device:
        return "on another file system"
    if depth >= DEEPEST or len(os.fsencode(path)) > LONGEST:
        return "too deep in directories"
    return ""


def own_copy(file: Path, scratch: Path) -> dict[str, Any] | None:
    """Put a copy in place of a hard link, so that whoever has the file can change it no more.

    Args:
        file: the link; below directories of ours alone.
        scratch: a name beside it, for what is not whole yet.

    Returns:
        Bytes and SHA-256 of the copy; None where somebody keeps it from being read.
    """
    try:
        with opened(file, _READ) as source, opened(scratch, _NEW) as copy:
            there, digest, length = os.fstat(source), hashlib.sha256(), 0
            # No further than it was long: it may grow as fast as it is read.
            with open(copy, "wb", closefd=False) as written:
                while chunk := os.read(source, min(_CHUNK, there.st_size - length)):
                    digest.update(chunk)
                    length += len(chunk)
                    written.write(chunk)
            os.fchmod(copy, there.st_mode & 0o777)
            os.utime(copy, ns=(there.st_atime_ns, there.st_mtime_ns))
        scratch.rename(file)
    except BlockingIOError:
        return None
    finally:
        scratch.unlink(missing_ok=True)
    return {"bytes": length, "sha256": digest.hexdigest()}


@contextlib.contextmanager
def reading(name: str | Path, at: int | None = None) -> Iterator[int | None]:
    """A regular file for reading, without waiting for anybody; None if it is anything else.

    Args:
        name: of the file.
        at: descriptor of the directory above it.

    Raises:
        BlockingIOError: a lease of somebody's would have to be waited for.
    """
    with opened(name, _READ, at) as file:
        yield file if stat.S_ISREG(os.fstat(file).st_mode) else None


@contextlib.contextmanager
def created(directory: Path, name: str) -> Iterator[int]:
    """A new file below a directory, and those on the way to it; no name leads elsewhere.

    Args:
        directory: there already.
        name: path of the file in there.

    Raises:
        Failed: the path is refused, or something is there already.
    """
    *folders, last = parts(name)
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(opened(directory, _DIRECTORY))
        try:
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o700, dir_fd=here)
                here = stack.enter_context(opened(folder, _DIRECTORY, here))
            file = stack.enter_context(opened(last, _NEW, here))
        except (FileExistsError, NotADirectoryError):
            raise Failed(f"the backup has upload {shown(name)} twice, which is refused") from None
        yield file


def parts(name: str) -> list[str]:
    """The components of a path that stays below where it begins. Pure.

    Raises:
        Failed: it does not, or is not the plain form.
    """
    found = name.split("/")
    if len(found) > _PARTS or any(each in ("", ".", "..") or "\0" in each for each in found):
        raise Failed(f"the backup has an upload called {shown(name)}, which is refused")
    return found


def own(directory: Path, like: Path) -> None:
    """Everything below a directory, and itself, belongs to whom another one belongs to; directories
    get its mode as well.
    """
    there = like.stat()
    for _, _, files, at in os.fwalk(directory):
        os.fchown(at, there.st_uid, there.st_gid)
        os.fchmod(at, there.st_mode & 0o777)
        for name in files:
            os.chown(name, there.st_uid, there.st_gid, dir_fd=at, follow_symlinks=False)


def size(directory: Path) -> int:
    """Bytes that a tree takes on the disk."""
    return int(run("du", "-sB1", "--", str(directory)).split()[0])


def remove(directory: Path) -> None:
    """Delete a tree, however deep it is. Nothing happens where there is none.

    Raises:
        Failed: something of it stays.
    """
    # rmtree gives up on a tree that is deeper than Python's stack.
    run("rm", "-rf", "--one-file-system", "--", str(directory))


def regular(directory: Path) -> Iterator[tuple[str, int]]:
    """Path of every file below a directory that nobody else writes to, and a descriptor of the
    directory that it is in. Links and the like are passed over.
    """
    for folder, _, names, at in os.fwalk(directory):
        below = os.path.relpath(folder, directory)
        for name in sorted(names):
            if stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                yield name if below == "." else f"{below}/{name}", at


def first_line(file: Path, most: int = 64) -> str:
    """The first line of a small text file that a container may have replaced by anything.

    Raises:
        OSError: it is not there, or is no file.
        ValueError: it is no text.
    """
    with reading(file) as content:
        if content is None:
            raise OSError(errno.EINVAL, "no regular file", str(file))
        return os.read(content, most).decode("ascii").partition("\n")[0]
