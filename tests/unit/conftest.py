"""What the unit tests share: a project in a folder of its own, and `--update-golden`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import Project


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the files of tests/golden anew"
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path)
