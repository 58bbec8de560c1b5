"""The licence: the file, what the package says of itself, and what the README says."""

from __future__ import annotations

import tomllib

from koprogo_deploy import door


def test_the_package_says_the_licence_that_lies_beside_it() -> None:
    project = tomllib.loads((door.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["license"] == "MIT"
    (name,) = project["license-files"]
    first, _, owner, *_ = (door.ROOT / name).read_text("utf-8").splitlines()
    assert (first, owner) == ("MIT License", "Copyright (c) 2026 The koprogo-deploy authors")
    assert f"({name})" in (door.ROOT / "README.md").read_text("utf-8")
