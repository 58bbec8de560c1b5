"""What the page is told, and what it may start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy.dashboard import desk as desks
from koprogo_deploy.dashboard.jobs import Job, Plan, Result
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs import store
from tests import made_runs
from tests.unit.dashboard.conftest import Bench, python, seeded

EVIL = "<img src=x onerror=alert(1)>"


def finished(made: Bench, within: float = 20.0) -> dict[str, Any]:
    """The job at its end, as the page is told."""
    deadline = time.monotonic() + within
    job = made.desk.jobs.job
    assert job is not None
    while job.running:
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job.show()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Programs print their command line instead of running; these are the lines."""
    lines: list[list[str]] = []

    def program(name: str) -> str:
        lines.append([name])
        return "/bin/echo"

    monkeypatch.setattr(desks, "program", program)
    return lines


def test_production_says_so_at_once(bench: Callable[..., Bench]) -> None:
    text = bench("production").client.get("/").text
    assert '<header class="careful production">' in text
    assert "PRODUCTION" in text
    assert 'data-careful="yes"' in text
    assert 'class="careful' not in bench("sandbox").client.get("/").text


@pytest.mark.parametrize("what", ["generate", "clear", "load"])
@pytest.mark.parametrize("name", ["", "prod", "Production", "sandbox"])
def test_a_wrong_name_starts_nothing(
    bench: Callable[..., Bench], started: list[list[str]], what: str, name: str
) -> None:
    made = bench("production", seed_enabled=True)
    answer = made.post(what=what, name=name, profile="light")
    assert answer.status_code == 403
    assert "Nothing was started" in answer.json()["problem"]
    assert made.desk.jobs.job is None
    assert started == []


def test_the_right_name_runs_what_a_person_would_have_typed(
    bench: Callable[..., Bench], started: list[list[str]]
) -> None:
    made = bench()
    assert made.post(what="clear", name="sandbox").status_code == 202
    job = finished(made)
    assert job["lines"] == ["seed clear sandbox --yes sandbox"]
    assert job["result"]["words"].startswith("Nothing seeded is left")
    assert made.post(what="generate", name="sandbox").status_code == 202
    assert finished(made)["lines"] == ["inventories/sandbox.py deploys/seed.py -y"]
    answer = made.post(what="load", name="sandbox", profile="light", rate=50, seconds=10)
    assert answer.status_code == 202
    assert finished(made)["lines"] == ["load light --env sandbox --json --rate 50 --seconds 10"]
    assert [line[0] for line in started] == ["koprogo", "pyinfra", "koprogo"]


def test_one_job_at_a_time(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    monkeypatch.setattr(desks, "program", lambda name: "/bin/cat")  # fails at once
    code = python("import time; print('here', flush=True); time.sleep(60)")
    monkeypatch.setattr(desks.Desk, "_clear", lambda self: Plan("clear", "Clear it", code, _never))
    assert made.post(what="clear", name="sandbox").status_code == 202
    second = made.post(what="load", name="sandbox", profile="light")
    assert second.status_code == 409
    assert second.json() == {"problem": "one thing at a time; still running: Clear it"}
    assert made.post("/jobs/cancel", number=7).status_code == 409
    assert made.post("/jobs/cancel", number=1).status_code == 202
    assert finished(made)["state"] == "stopped"
    assert made.post("/jobs/cancel", number=1).status_code == 409


async def _never(job: Job) -> Result:
    return Result(False, "stopped")


@pytest.mark.parametrize(
    "body",
    [
        {"what": "drop", "name": "sandbox"},
        {"what": "load", "name": "sandbox", "profile": "light", "rate": 0},
        {"what": "load", "name": "sandbox", "profile": "light", "rate": "5; reboot"},
        {"what": "load", "name": "sandbox", "profile": "light", "url": "https://example.be"},
        {"what": "clear"},
        {"what": "clear", "name": "sandbox" * 2000},
    ],
)
def test_what_makes_no_sense_is_refused(
    bench: Callable[..., Bench], started: list[list[str]], body: dict[str, Any]
) -> None:
    made = bench()
    assert made.post(**body).status_code == 400
    assert started == []


def test_a_profile_that_does_not_exist_is_refused(
    bench: Callable[..., Bench], started: list[list[str]]
) -> None:
    answer = bench().post(what="load", name="sandbox", profile="--url=https://example.be")
    assert answer.status_code == 409
    assert "no profile" in answer.json()["problem"]
    assert started == []


def test_no_seed_where_the_environment_does_not_ask_for_it(
    bench: Callable[..., Bench], started: list[list[str]]
) -> None:
    made = bench("production")
    found = made.client.get("/facts/seed").json()
    assert "seed_enabled is off for production" in found["cannot_generate"]
    answer = made.post(what="generate", name="production")
    assert (answer.status_code, started) == (409, [])


def test_success_is_what_the_database_holds(
    bench: Callable[..., Bench], started: list[list[str]]
) -> None:
    made = bench()
    made.desk.look_at_seed = lambda _: seeded(organizations=1, buildings=4)
    made.post(what="clear", name="sandbox")
    job = finished(made)
    assert job["state"] == "failed"
    assert "Still there: 1 organizations, 4 buildings" in job["result"]["words"]


def test_a_host_that_is_not_seen_is_said_everywhere(bench: Callable[..., Bench]) -> None:
    made = bench()

    def gone(_: object) -> Any:
        raise Refusal("Host vps", [Problem("ssh", f"no route to {EVIL}", "try: koprogo ssh")])

    made.desk.look_at_stack = made.desk.look_at_seed = gone
    for name in ("release", "seed"):
        answer = made.client.get(f"/facts/{name}")
        assert answer.status_code == 200
        assert "no route to" in answer.json()["problem"]
        assert answer.headers["content-type"] == "application/json"


def test_runs_are_listed_newest_first_and_opened_by_their_whole_id(
    bench: Callable[..., Bench], runs_folder: Path
) -> None:
    for number, profile in enumerate(("light", "realistic")):
        run = made_runs.made_run(seconds=5)
        run = run.model_copy(
            update={
                "id": f"{profile}-2026112{number}T000000Z", "profile": profile,
                "environment": "sandbox",
            }
        )  # fmt: skip
        store.save(run)
    (runs_folder / "sandbox" / "spoilt-20261125T000000Z.json").write_text("{")
    made = bench()
    found = made.client.get("/facts/measured").json()
    assert [row["id"].partition("-")[0] for row in found["runs"]] == [
        "spoilt", "realistic", "light",
    ]  # fmt: skip
    assert "problem" in found["runs"][0]
    answer = made.client.get("/runs/light-20261120T000000Z")
    assert answer.text == "<h1>the report</h1>"
    assert [run.profile for run in made.reported] == ["light"]
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "connect-src" not in policy  # nothing but default-src 'none'
    for other in ("light", "..%2f..%2fetc%2fpasswd", "latest", "spoilt-20261125T000000Z"):
        assert made.client.get(f"/runs/{other}").status_code == 404
    assert len(made.reported) == 1


def test_static_files_are_those_and_no_others(bench: Callable[..., Bench]) -> None:
    client = bench().client
    assert client.get("/static/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("..%2fapp.py", "%2e%2e/app.py", "nothing.js", "../pages/page.html"):
        assert client.get(f"/static/{path}").status_code == 404


def test_plotly_comes_from_its_own_package(bench: Callable[..., Bench]) -> None:
    client = bench().client
    answer = client.get("/static/plotly.js")
    assert "plotly.js v" in answer.text[:100]
    # It writes no style of its own where it finds a style sheet marked so.
    marks = 'href="/static/style.css" id="plotly.js-style-global" class="no-inline-styles"'
    assert marks in client.get("/").text
    assert "plotly.js-style-" in answer.text and "no-inline-styles" in answer.text
    assert ".main-svg" in client.get("/static/style.css").text


def test_names_are_data_and_never_markup() -> None:
    # The page writes text nodes only: no sink for HTML in any of its scripts.
    folder = Path(desks.__file__).with_name("static")
    scripts = list(folder.glob("*.js"))
    assert {"page.js"} <= {script.name for script in scripts}
    for script in scripts:
        text = script.read_text()
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in text, f"{script.name}: {sink}"


def test_what_is_written_into_the_page_itself_is_escaped(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.desk.profiles = {EVIL: EVIL}
    text = made.client.get("/").text
    assert EVIL not in text
    assert "&lt;img src=x" in text


def test_the_json_of_a_host_that_lies_stays_json(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.desk.look_at_seed = lambda _: seeded(organizations=3)
    answer = made.client.get("/facts/seed", headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.text)["counts"][0] == ["organizations", 3]


def test_a_run_that_could_not_be_done_says_why(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusing = tmp_path / "koprogo"
    refusing.write_text(
        '#!/bin/sh\necho \'{"event": "failed", "text": "x"}\'\n'
        "echo 'Settings of sandbox: 1 problem. Nothing was touched.' >&2\n"
        "echo '  1. domain: missing' >&2\nexit 2\n"
    )
    refusing.chmod(0o755)
    monkeypatch.setattr(desks, "program", lambda name: str(refusing))
    made = bench()
    assert made.post(what="load", name="sandbox", profile="light").status_code == 202
    job = finished(made)
    assert job["state"] == "failed"
    assert job["result"] == {
        "good": False,
        "run": "",
        "words": "No run was kept.\nSettings of sandbox: 1 problem. Nothing was touched.\n"
        "  1. domain: missing",
    }
