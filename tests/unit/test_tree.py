"""A tree that an attacker owns: whatever is done to its names, nothing outside of it changes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from koprogo_deploy.data import hashes, tree
from koprogo_deploy.data.host import MB, Failed

ODD = os.fsdecode(b"\xff\xfe\n\x1b[31m * '\"\\")


class Box:
    """The uploads' volume, the stage, and a directory outside that only root may write to."""

    def __init__(self, root: Path) -> None:
        self.volume, self.stage, self.outside = root / "_data", root / "stage", root / "outside"
        for each in (self.volume, self.outside, self.outside / "d"):
            each.mkdir()
        (self.outside / "secret").write_text("of the host's")
        (self.outside / "d/secret").write_text("of the host's")
        self.before = self.look(self.outside)

    @staticmethod
    def look(directory: Path) -> list[tuple[str, int, int, bytes]]:
        """Every entry below a directory: path, kind and mode, names of the file, content."""
        found = []
        for path in sorted(directory.rglob("*")):
            there = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(there.st_mode) else b""
            links = there.st_nlink if content else 0
            found.append((str(path.relative_to(directory)), there.st_mode, links, content))
        return found

    def link(self) -> tree.LeftOut:
        """One pass, as a backup makes two."""
        left = tree.LeftOut()
        tree.link(self.volume, self.stage, left, outside=(".incoming",))
        return left

    def staged(self) -> dict[str, str]:
        """What is in the stage: files and their content. Nothing of the host's, and no link."""
        found = {}
        for name, mode, _, content in self.look(self.stage):
            assert stat.S_ISDIR(mode) or stat.S_ISREG(mode), name
            assert b"of the host's" not in content, name
            if stat.S_ISREG(mode):
                found[name] = content.decode()
        return found

    def unharmed(self) -> bool:
        """Whether nothing outside changed: no name more or less, no other content, mode or link."""
        return self.look(self.outside) == self.before


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    assert made.unharmed()


def as_directory(at: Path) -> None:
    (at / "d").mkdir(parents=True)
    (at / "planted").write_text("evil")
    (at / "d/planted").write_text("evil")


def as_file(at: Path) -> None:
    at.write_text("evil")


def as_link_out(at: Path) -> None:
    at.symlink_to(_root(at) / "outside")


def as_link_to_a_secret(at: Path) -> None:
    at.symlink_to(_root(at) / "outside/secret")


def as_relative_link(at: Path) -> None:
    at.symlink_to(os.path.relpath(_root(at) / "outside", at.parent))


def as_pipe(at: Path) -> None:
    os.mkfifo(at)


def _root(at: Path) -> Path:
    return next(each for each in at.parents if (each / "outside").is_dir())


def gone(at: Path) -> None:
    """Take away whatever is there."""
    if at.is_dir() and not at.is_symlink():
        shutil.rmtree(at)
    else:
        at.unlink()


FORMS = [as_directory, as_file, as_link_out, as_link_to_a_secret, as_relative_link, as_pipe]
PLACES = ["a", "b/c/d/a", f"{ODD}/{ODD}"]


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_whatever_a_name_becomes_between_the_passes_nothing_is_planted(
    box: Box, first: Callable[[Path], None], second: Callable[[Path], None], place: str
) -> None:
    """A link of the first pass was taken for a directory in the second one, and followed."""
    at = box.volume / place
    at.parent.mkdir(parents=True, exist_ok=True)
    (at.parent / "honest").write_text("a document")
    first(at)
    box.link()
    gone(at)
    second(at)
    left = box.link()
    found = box.staged()
    assert found[os.path.join(os.path.dirname(place), "honest")] == "a document"  # noqa: PTH118, PTH120
    if "link" in second.__name__ or second is as_pipe:
        assert place in left.why
    elif (first is as_file) == (second is as_file):
        assert left.why == {}
    assert box.unharmed()


@pytest.mark.parametrize("place", ["a", "b/c/a"])
@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", [as_directory, as_file])
def test_a_name_that_changes_after_it_was_looked_at_is_not_followed(
    box: Box,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[Path], None],
    second: Callable[[Path], None],
    place: str,
) -> None:
    at = box.volume / place
    at.parent.mkdir(parents=True, exist_ok=True)
    first(at)
    judge = tree.unfit
    swaps: list[str] = []

    def swapped(found: os.stat_result, device: int, path: str, depth: int) -> str:
        if path == place:
            at.rename(box.volume.parent / f"aside{len(swaps)}")
            second(at)
            swaps.append(path)
        return judge(found, device, path, depth)

    monkeypatch.setattr(tree, "unfit", swapped)
    box.link()
    box.link()
    assert len(swaps) == 2
    box.staged()


def test_a_stage_that_holds_a_link_already_is_not_left_by_it(box: Box) -> None:
    as_directory(box.volume / "a")
    box.stage.mkdir()
    (box.stage / "a").symlink_to(box.outside)
    assert "a" in box.link().why


def test_a_thread_that_changes_names_all_the_time_plants_nothing(box: Box) -> None:
    over = threading.Event()

    def attack() -> None:
        at = box.volume / "a"
        while not over.is_set():
            for form in (as_link_out, as_directory, as_link_to_a_secret, as_file):
                with contextlib.suppress(OSError):
                    form(at)
                with contextlib.suppress(OSError):
                    gone(at)

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        for number in range(200):
            box.stage = box.stage.with_name(f"stage{number}")
            box.link()
            box.link()
            box.staged()
    finally:
        over.set()
        thread.join()


# --- what is linked, and what is not --------------------------------------------------------------


def test_uploads_are_linked_not_copied(box: Box) -> None:
    (box.volume / "é/deep").mkdir(parents=True)
    (box.volume / "é/deep/a").write_text("x")
    (box.volume / "top").write_text("y")
    (box.volume / ".incoming").mkdir()
    (box.volume / ".incoming/.tmpAb3").write_text("half of it")
    (box.volume / "é/.incoming").write_text("somebody's own")
    assert box.link().told() == ""
    assert (box.stage / "é/deep/a").stat().st_ino == (box.volume / "é/deep/a").stat().st_ino
    (box.volume / "top").unlink()
    assert box.staged() == {"top": "y", "é/deep/a": "x", "é/.incoming": "somebody's own"}


def test_uploads_of_before_and_after_the_dump_are_in_the_backup(box: Box) -> None:
    """Its database holds rows of both: of what was deleted meanwhile, and of what had just come."""
    (box.volume / "a").mkdir()
    (box.volume / "a/deleted").write_text("x")
    (box.volume / "a/stays").write_text("y")
    box.link()
    (box.volume / "a/deleted").unlink()
    (box.volume / "a/new").write_text("z")
    (box.volume / "b").mkdir()
    (box.volume / "b/new").write_text("z")
    assert box.link().why == {}
    assert sorted(box.staged()) == ["a/deleted", "a/new", "a/stays", "b/new"]


def test_what_koprogo_does_not_make_stays_out_and_is_told(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box.volume / "honest").write_text("a document")
    (box.volume / "to a file").symlink_to("honest")
    (box.volume / "to nothing").symlink_to("nowhere")
    os.mkfifo(box.volume / "pipe")
    monkeypatch.chdir(box.volume)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("plug")
    with (box.volume / "holes").open("wb") as file:
        file.truncate(1 << 40)
    deep = box.volume.joinpath(*["d"] * tree.DEEPEST)
    deep.mkdir(parents=True)
    (deep / "too deep").write_text("x")
    long = box.volume.joinpath(*["e" * 250] * 4)
    long.mkdir(parents=True)
    (long / ("f" * 200)).write_text("x")
    left = box.link()
    assert box.staged() == {"honest": "a document"}
    assert {os.path.basename(path): why for path, why in left.why.items()} == {  # noqa: PTH119
        "to a file": "a symbolic link",
        "to nothing": "a symbolic link",
        "pipe": "a pipe",
        "plug": "a socket",
        "holes": "a file that is mostly holes",
        "too deep": "too deep in directories",
        "f" * 200: "too deep in directories",
    }
    assert left.told().startswith("left out of the uploads, 7: ")
    assert left.told().endswith("; and 4 more")


def test_files_of_holes_are_kept_up_to_what_can_be_read(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that compresses has such files of its own."""
    monkeypatch.setattr(tree, "SPARSE_ALL", 5 * MB)
    for number in range(3):
        with (box.volume / str(number)).open("wb") as file:
            file.truncate(2 * MB)
    assert list(box.link().why.values()) == ["a file that is mostly holes"]
    assert len(box.staged()) == 2


def test_an_odd_name_is_no_reason_and_is_shown_harmlessly(box: Box) -> None:
    (box.volume / ODD).write_text("x")
    assert box.link().why == {}
    assert hashes.files(box.stage).keys() == {ODD}
    (box.volume / f"{ODD}2").symlink_to("x")
    told = box.link().told()
    assert told.isprintable()
    assert told.isascii()
    assert r"\udcff\udcfe\n\x1b[31m" in told
    [line] = hashes.differences({ODD: {}}, {}, "upload")
    assert line.isprintable()


def test_a_tree_without_an_end_is_neither_followed_nor_kept(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deeper than a path may be long, and than Python's stack."""
    monkeypatch.chdir(box.volume)
    for _ in range(1200):
        Path("dd").mkdir()
        os.chdir("dd")
    monkeypatch.undo()
    (box.volume / "honest").write_text("x")
    assert list(box.link().why.values()) == ["too deep in directories"]
    assert box.staged() == {"honest": "x"}
    assert tree.size(box.volume) >= 1200 * 512
    tree.remove(box.volume)
    assert not box.volume.exists()


def test_more_files_than_there_is_memory_for_make_no_backup_of_some_of_them(box: Box) -> None:
    for number in range(9):
        (box.volume / str(number)).write_text("x")
    tree.link(box.volume, box.stage, memory=9 * tree.EACH)
    with pytest.raises(Failed, match=r"more than 8 files and directories.* backup_memory"):
        tree.link(box.volume, box.stage, memory=8 * tree.EACH)


def test_of_what_stays_out_no_more_is_remembered_than_can_be() -> None:
    left = tree.LeftOut()
    for number in range(5000):
        left.add(f"{number:05}", "a symbolic link")
    assert left.told() == (
        "left out of the uploads, 1000 or more: 00000 (a symbolic link); 00001 (a symbolic link); "
        "00002 (a symbolic link); and 997 more"
    )


def test_a_fault_of_the_disk_s_is_not_taken_for_an_entry_that_stays_out(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box.volume / "a").write_text("x")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        box.link()


# --- copies ---------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """An upload, and the link to it in the stage."""
    upload, staged = tmp_path / "upload", tmp_path / "staged"
    upload.write_text("as it was")
    upload.chmod(0o4755)
    os.utime(upload, (1000, 1000))
    os.link(upload, staged)
    return upload, staged


def test_a_copy_is_of_that_moment_and_nobody_s_but_ours(linked: tuple[Path, Path]) -> None:
    upload, staged = linked
    found = tree.own_copy(staged, staged.with_name("part"))
    upload.write_text("something else, and longer")
    assert staged.read_text() == "as it was"
    assert found == hashes.files(staged.parent)["staged"]
    assert stat.S_IMODE(staged.stat().st_mode) == 0o755
    assert staged.stat().st_mtime == 1000
    assert not staged.with_name("part").exists()


def test_a_file_under_somebody_s_lease_is_not_waited_for(linked: tuple[Path, Path]) -> None:
    upload, staged = linked
    kept = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with upload.open("r+") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            held: list[str] = []
            assert "staged" not in hashes.files(staged.parent, held.append)
            assert sorted(held) == ["staged", "upload"]
            with pytest.raises(BlockingIOError):
                hashes.files(staged.parent)
            assert tree.own_copy(staged, staged.with_name("part")) is None
    finally:
        signal.signal(signal.SIGIO, kept)


# --- what is restored -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "a//x", "a/./x", "", ".", "a/", "x/" * 300 + "x"]
)
def test_a_path_that_leads_elsewhere_is_refused(box: Box, name: str) -> None:
    with pytest.raises(Failed, match="which is refused"), tree.created(box.volume, name):
        pass
    assert list(box.volume.iterdir()) == []


@pytest.mark.parametrize("name", ["out/x", "out", "b/out/x", "file/x", "file", "b"])
def test_nothing_is_written_through_or_over_what_is_there(box: Box, name: str) -> None:
    (box.volume / "b").mkdir()
    (box.volume / "file").write_text("x")
    for folder in (box.volume, box.volume / "b"):
        (folder / "out").symlink_to(box.outside)
    with pytest.raises(Failed, match="twice"), tree.created(box.volume, name):
        pass
    assert (box.volume / "file").read_text() == "x"


def test_what_is_restored_belongs_to_whom_the_live_one_does(box: Box) -> None:
    with tree.created(box.volume, "a/b") as file:
        os.fchmod(file, 0o640)
    box.stage.mkdir()
    box.stage.chmod(0o750)  # whatever the umask is
    if os.getuid() == 0:
        os.chown(box.stage, 1000, 1001)
    tree.own(box.volume, box.stage)
    owner = (box.stage.stat().st_uid, box.stage.stat().st_gid)
    for path, mode in ((box.volume, 0o750), (box.volume / "a", 0o750), (box.volume / "a/b", 0o640)):
        there = path.stat()
        assert (stat.S_IMODE(there.st_mode), (there.st_uid, there.st_gid)) == (mode, owner)


def test_a_small_file_that_was_replaced_is_neither_shown_nor_waited_for(box: Box) -> None:
    file = box.volume / "PG_VERSION"
    file.write_text("17\n")
    assert tree.first_line(file) == "17"
    for form in (as_link_to_a_secret, as_pipe, as_directory):
        gone(file)
        form(file)
        with pytest.raises(OSError, match=r"Too many|no regular file") as raised:
            tree.first_line(file)
        assert "of the host" not in str(raised.value)
