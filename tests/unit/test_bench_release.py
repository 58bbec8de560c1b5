"""The benchmark of releases: the rival's stack is ours but for the proxy's way to find it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench import release
from bench.figures import Figures
from koprogo_deploy.problems import Refusal
from tests import project

SETTINGS = project.settings()
RENDERED = project.release(SETTINGS)
COMPOSE = yaml.safe_load(RENDERED.files["compose.yaml"])
ASKED = {"domain": "api.example.org"}
PLUGIN = "#!/usr/bin/env bash\n[ $1 = docker-cli-plugin-metadata ] && exit\n"
SCRIPT = release.Script(Path("/elsewhere/docker-rollout"), PLUGIN)


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


def measured(ours: float, lost: int) -> list[dict[str, Any]]:
    found = [run(release.OURS, ours, lost), run(release.COMPOSE, 10, 40)]
    return [*found, run(release.ROLLOUT, 12, 9), run(release.DRAINED, 30, 0)]


def notes(ours: float, lost: int) -> str:
    figures = Figures("", "", ())
    release.report(measured(ours, lost), figures, SCRIPT)
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


def test_without_the_rivals_script_its_rows_are_left_out_and_the_table_says_so() -> None:
    figures = Figures("", "", ())
    release.report(measured(12.0, 0), figures, None)
    assert [row[0] for row in figures.rows] == [release.OURS, release.COMPOSE]
    assert figures.notes[0].startswith("docker-rollout was not measured")
    assert "--docker-rollout FILE" in figures.notes[0]
    assert "wowu/docker-rollout" in figures.notes[0]
    release.report(measured(12.0, 0), figures, SCRIPT)
    assert f"sha256 {SCRIPT.sha256}" in "".join(figures.notes)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "names no shell"),
        (b"docker-cli-plugin-metadata", "names no shell"),
        (b"#!/usr/bin/python3\ndocker-cli-plugin-metadata", "names no shell"),
        (b"#!/bin/sh\necho hello\n", "is no plugin of Docker's command line"),
        (b"\x7fELF\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_script_is_refused_before_anything_is_touched(
    content: bytes | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object) -> list[dict[str, Any]]:
        raise AssertionError("it went on")

    file, finished = tmp_path / "docker-rollout", tmp_path / "kept" / "0-0.json"
    if content is not None:
        file.write_bytes(content)
    finished.parent.mkdir()
    finished.write_text("{}")
    monkeypatch.setattr(release, "_measure", touched)
    monkeypatch.setattr(release, "KEPT", finished.parent)
    done = CliRunner().invoke(release.app, ["--docker-rollout", str(file)])
    assert done.exit_code == 1
    assert finished.exists(), "earlier measurements are kept"
    with pytest.raises(Refusal, match=told):
        release.read_script(file)


@pytest.mark.parametrize("shell", ["/bin/sh", "/usr/bin/env bash", "/bin/bash -e"])
def test_a_plugin_in_any_shell_is_taken(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "anything"
    file.write_text(f"#!{shell}\n# docker-cli-plugin-metadata\n")
    assert release.read_script(file).text == file.read_text()


def test_a_folder_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="Is a directory"):
        release.read_script(tmp_path)


def test_measurements_of_another_script_are_not_mixed_with_this_ones() -> None:
    kept = [{"way": release.OURS}, {"way": release.ROLLOUT, "script": SCRIPT.sha256}]
    assert release.other_scripts(kept, SCRIPT) == []
    assert release.other_scripts([*kept, {"way": release.DRAINED}], SCRIPT) == ["not known"]
    kept.append({"way": release.DRAINED, "script": "aa"})
    assert release.other_scripts(kept, SCRIPT) == ["aa"]
    assert release.other_scripts(kept, None) == [], "its rows are left out"
