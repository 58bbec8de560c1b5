"""Rendered files against `tests/golden`: a change of output is seen in review, line by line."""

from __future__ import annotations

import pytest

from koprogo_deploy import render
from tests import project
from tests.project import ROOT

GOLDEN = ROOT / "tests" / "golden"
ENVIRONMENTS = ("production", "sandbox")


def rendered(environment: str) -> dict[str, str]:
    asked = project.settings(environment, **pinned(environment))
    images, sets = project.digests(asked), project.sets(asked)
    return render.render(asked, sets, images, project.COLOURS, "20260101T000000Z-00000000").files


def pinned(environment: str) -> dict[str, str]:
    # The sandbox's tags are hashes of its own build files.
    registry = "registry.koprogo.test:5000"
    images = {
        "traefik_image": f"{registry}/library/traefik:3.7.15-0",
        "postgres_image": f"{registry}/library/postgres:17-0",
        "backend_image": f"{registry}/koprogo/backend:0",
        "frontend_image": f"{registry}/koprogo/frontend:0",
    }
    return images if environment == "sandbox" else {}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_rendered_files_are_the_golden_ones(
    environment: str, request: pytest.FixtureRequest
) -> None:
    folder, files = GOLDEN / environment, rendered(environment)
    if request.config.getoption("--update-golden"):
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        for path in known(environment) - set(files):
            (folder / path).unlink()
    assert known(environment) == set(files), "another set of files; if it is meant: make golden"
    for path, text in sorted(files.items()):
        golden = (folder / path).read_text(encoding="utf-8")
        assert text == golden, f"{environment}/{path} is rendered otherwise; if meant: make golden"


def known(environment: str) -> set[str]:
    folder = GOLDEN / environment
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
