"""The benchmark of releases: the rival's stack is ours but for the proxy's way to find it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bench import release
from bench.figures import Figures
from tests import project

SETTINGS = project.settings()
RENDERED = project.release(SETTINGS)
COMPOSE = yaml.safe_load(RENDERED.files["compose.yaml"])
ASKED = {"domain": "api.example.org"}


def backend(compose: dict[str, Any]) -> str:
    (name,) = [name for name in compose["services"] if name.startswith("backend-")]
    return str(name)


@pytest.mark.parametrize("draining", ["", "yes"])
def test_the_rivals_backend_is_ours_but_for_image_labels_and_its_way_to_drain(
    draining: str,
) -> None:
    ours = COMPOSE["services"][backend(COMPOSE)]
    made = release.rival(COMPOSE, backend(COMPOSE), {**ASKED, "draining": draining})
    theirs = made["services"][release.SERVICE]
    changed = {key for key in ours | theirs if ours.get(key) != theirs.get(key)}
    assert changed == {"image", "labels"} | ({"healthcheck"} if draining else set())
    assert ("docker-rollout.pre-stop-hook" in theirs["labels"]) == bool(draining)
    assert "ports" not in theirs and "container_name" not in theirs, "docker-rollout's own caveats"
    if draining:
        assert theirs["healthcheck"]["test"].startswith("test ! -f /tmp/drain && curl ")
    assert yaml.safe_load(RENDERED.files["compose.yaml"]) == COMPOSE, "ours is left as it is"
    for kind in ("networks", "volumes"):
        assert made[kind]
        assert all(each["external"] for each in made[kind].values())


def run(way: str, took: float, lost: int) -> dict[str, Any]:
    return {
        "way": way, "seconds": took, "requests": 500, "lost": lost, "to the switch": 5.0,
        "how": {"5xx": lost} if lost else {}, "writes acknowledged": 50,
        "writes not there once": [],
    }  # fmt: skip


def notes(ours: float, lost: int) -> str:
    found = [run(release.OURS, ours, lost), run(release.COMPOSE, 10, 40)]
    found += [run(release.ROLLOUT, 12, 9), run(release.DRAINED, 30, 0)]
    figures = Figures("", "", ())
    release.report(found, figures)
    assert [row[3] for row in figures.rows] == [
        f"{count} ({count}–{count})" for count in (lost, 40, 9, 0)
    ]
    return "\n".join(figures.notes)


def test_the_verdict_is_by_the_quickest_rival_and_by_every_lost_request() -> None:
    said = notes(12.0, 0)
    assert "the quickest (compose up --wait): 1.20, holds" in said
    assert "ours loses no request: holds" in said
    said = notes(12.1, 1)
    assert ": 1.21, MISSED" in said
    assert "ours loses no request: MISSED" in said
