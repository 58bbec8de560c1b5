"""A service without a memory limit never reaches a host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from koprogo_deploy import door, render
from koprogo_deploy.problems import Refusal
from tests import project


def test_every_service_of_ours_has_a_limit() -> None:
    assert render.unlimited_services(project.settings()) == []


def test_a_service_without_one_is_refused_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(render.TEMPLATES, tmp_path / "templates")
    compose = tmp_path / "templates" / "compose.yaml.j2"
    text = compose.read_text()
    name = "frontend-{{ colours.frontend }}:"
    head, found, tail = text.partition(name)
    assert found
    compose.write_text(head + found + tail.replace('{{ bounds("frontend") }}\n', "", 1))
    monkeypatch.setattr(render, "TEMPLATES", tmp_path / "templates")
    values = {k: door._Value(v, "here") for k, v in project.values().items()}
    settings, problems = door.check(values, "production")
    assert settings is None
    assert "frontend-blue has no memory limit" in str(Refusal("Settings", problems))
    assert "templates/compose.yaml.j2" in str(Refusal("Settings", problems))
