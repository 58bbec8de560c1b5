"""The package sources that the box inherits: the same before and after the first apt-get update."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox import machine

LISTING = """\
'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_InRelease 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' a 0
'http://mirror.example/debian/dists/bookworm/main/binary-all/Packages.xz' b 0
'http://mirror.example/debian/dists/bookworm/contrib/binary-amd64/Packages.xz' c 0
'http://mirror.example/debian/dists/bookworm-updates/main/binary-amd64/Packages.xz' d 0
'http://mirror.example/security/dists/bookworm-security/main/binary-amd64/Packages.xz' e 0
'http://mirror.example/debian/dists/bookworm-backports/main/binary-amd64/Packages.xz' f 0
'https://packages.example/node/dists/nodistro/main/binary-amd64/Packages.gz' g 0
"""


def test_the_machines_own_mirrors_serve_the_box() -> None:
    assert machine.trixie_sources(LISTING, "bookworm").splitlines() == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]


@pytest.mark.parametrize(("listing", "own"), [("", "bookworm"), (LISTING, ""), (LISTING, "sid")])
def test_without_debian_mirrors_here_debians_own_are_taken(listing: str, own: str) -> None:
    assert "deb http://deb.debian.org/debian trixie main" in machine.trixie_sources(listing, own)


def test_the_answer_needs_no_package_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new machine has none until something runs `apt-get update`, which the first deploy does."""
    configuration = tmp_path / "apt.conf"
    listed = tmp_path / "sources.list"
    listed.write_text("deb http://mirror.example/debian bookworm main\n")
    configuration.write_text(
        f'Dir::Etc::sourcelist "{listed}"; Dir::Etc::sourceparts "/dev/null";\n'
        'APT::Architecture "amd64"; APT::Architectures { "amd64"; };\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    monkeypatch.setattr(machine, "codename", lambda: "bookworm")
    if subprocess.run(["which", "apt-get"], capture_output=True).returncode:
        pytest.skip("no apt here")
    assert machine.sources() == "deb http://mirror.example/debian trixie main\n"
