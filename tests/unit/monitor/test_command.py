"""`koprogo monitor`: what it prints, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pytest
from typer.testing import CliRunner

import koprogo_deploy.monitor
from koprogo_deploy import door
from koprogo_deploy.cli.app import app
from koprogo_deploy.problems import Refusal
from koprogo_deploy.runs.sample import PostgresSample, Sample, TraefikSample
from tests.project import Project
from tests.unit.monitor import samples

WELL = samples.sample()
ALERT = samples.with_container("backend", samples.container(cpu=95))
BLIND = samples.sample(postgres=PostgresSample(), unread={"postgres": "not connected"})
NO_PROXY = samples.sample(traefik=TraefikSample(), unread={"traefik": "no answer on 8082"})
RAISED = samples.with_container("backend", samples.container(cpu=50))


class Fake:
    """A monitor whose samples are there already."""

    given: tuple[Sample, ...] = ()
    fails = ""
    ready = True

    def __init__(
        self, environment: object, interval: float, on_sample: Callable[[Sample], None]
    ) -> None:
        self.samples = list(self.given)
        self.problem = self.fails
        self.running = False
        for sample in self.samples:
            on_sample(sample)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float) -> bool:
        return self.ready


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, project: Project) -> Callable[..., Any]:
    def with_samples(*arguments: str, given: tuple[Sample, ...], **how: Any) -> Any:
        fake = type("Fake", (Fake,), {"given": given, **how})
        monkeypatch.setattr(koprogo_deploy.monitor, "Monitor", fake)
        opened = project.open()
        monkeypatch.setattr(door, "open_environment", lambda *_: opened)
        return CliRunner().invoke(app, ["monitor", *arguments])

    return with_samples


@pytest.mark.parametrize(
    ("sample", "code"), [(WELL, 0), (RAISED, 0), (ALERT, 1), (BLIND, 1), (NO_PROXY, 1)]
)
def test_once_exits_1_on_an_alert_and_on_what_it_could_not_see(
    run: Callable[..., Any], sample: Sample, code: int
) -> None:
    done = run("--once", given=(samples.sample(), sample))
    assert done.exit_code == code
    assert "backend" in done.output


def test_json_lines_are_samples(run: Callable[..., Any]) -> None:
    done = run("--json", given=(WELL, ALERT))
    assert [Sample.model_validate_json(line) for line in done.output.splitlines()] == [WELL, ALERT]


def test_without_a_terminal_each_look_is_a_line_and_a_summary_ends_it(
    run: Callable[..., Any],
) -> None:
    done = run(given=(WELL, ALERT, WELL))
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert sum(" | " in line for line in lines) == 3
    assert "2 samples" in lines
    assert any(line.startswith("backend CPU") for line in lines)


def test_a_lost_connection_ends_it_with_1(run: Callable[..., Any]) -> None:
    done = run(given=(WELL, WELL), fails="connection lost after 34 s: reset")
    assert done.exit_code == 1
    assert "connection lost after 34 s" in done.output


def test_a_host_that_cannot_be_watched_is_refused_with_the_reason(
    run: Callable[..., Any],
) -> None:
    done = run(given=(), ready=False, fails="python3 is missing on the host")
    assert isinstance(done.exception, Refusal)
    assert "python3 is missing on the host" in str(done.exception)
