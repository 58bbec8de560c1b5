"""Back to a kept release by command: the road of a deploy, and nothing undoes it by itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from koprogo_deploy import remote
from tests.integration.rig import Rig, Run, Watch, end, load, said

# A release of its own each time: one that was left stays marked.
NOW = time.time_ns()
SWITCH = "Cut over | Switch to the release"


def another(number: int) -> dict[str, Any]:
    """Values of a release in which backend and frontend are others."""
    run = {"TEST_RUN": f"{NOW}-{number}"}
    return {"backend_environment": run, "frontend_memory": f"{36 + number}MB"}


def line(rig: Rig) -> dict[str, Any]:
    return remote.journal_of(rig.environment).runs[-1]


def mark(rig: Rig, release: str) -> str:
    return rig.on_host(f"cat /opt/koprogo/releases/{release}/bad 2>/dev/null; true")


def times(line: dict[str, Any], run: Run) -> str:
    """How long a rollback took, for a person who reads the test's output."""
    switch = next(step for step in line["steps"] if step["name"] == SWITCH)
    return (
        f"{switch['at'] + switch['seconds']:.1f} s to the switch, {line['seconds']:.1f} s to the "
        f"end, {run.seconds:.1f} s with pyinfra's own start"
    )


@pytest.fixture(scope="module")
def changed(rig: Rig) -> Iterator[Rig]:
    """The rig; whatever release the tests end with, group data's serves in the end."""
    yield rig
    rig.converge()


@pytest.mark.faults
def test_a_rollback_loses_no_request_and_nothing_brings_the_left_release_back(
    changed: Rig,
) -> None:
    rig, before = changed, changed.manifest()["id"]
    rig.converge(**another(1))
    left = rig.manifest()["id"]
    assert rig.deploy("--dry", deploy="rollback").would_change == [
        "Roll back | Choose the release",
        "Migrate | Start the backend unrouted and verify its migrations",
        "Cut over | Run frontend and Traefik",
        SWITCH,
        "Settle | Let the release count",
    ]
    with Watch(rig, pause=0.01) as watch:
        run = rig.deploy(deploy="rollback", reason="too slow")
    assert run.code == 0, run.output
    assert watch.failures == []
    assert watch.answered > 100
    assert rig.manifest()["id"] == before
    assert rig.leftovers() == []
    assert mark(rig, left).startswith(f"rolled back by {rig.manifest()['by']} at ")
    assert "too slow" in mark(rig, left)
    written = line(rig)
    assert (written["outcome"], written["run"]) == ("rolled back", "rollback")
    assert (written["before"], written["serves"], written["why"]) == (left, before, "too slow")
    assert written["smoke"]["passed"]
    print(times(written, run), f"; {watch.answered} requests")

    refused = rig.deploy(**another(1))
    assert refused.code == 1, refused.output
    assert "this very release was rolled back by " in refused.output
    assert "Starting operation: Migrate" not in refused.output
    assert rig.manifest()["id"] == before
    assert rig.converge().changed == [], "group data of the release that serves again"


def test_a_migration_between_is_refused_before_anything_is_touched(changed: Rig) -> None:
    rig, started, files = changed, changed.started(), changed.files()
    version = "29990101000000"  # no image has it
    rig.sql(f"INSERT INTO _sqlx_migrations VALUES ({version}, 'x', now(), true, '\\x00', 0);")
    try:
        releases = rig.on_host("ls /opt/koprogo/releases").split()
        # The newest: an older one may be of other secrets, which is said first.
        other = max(release for release in releases if release != rig.manifest()["id"])
        run = rig.deploy(deploy="rollback", release=other, retry_bad_release=True)
    finally:
        rig.sql(f"DELETE FROM _sqlx_migrations WHERE version = {version};")
    assert run.code == 1, run.output
    assert "a migration stands between" in run.output
    assert version in run.output
    assert "There are two ways" in run.output
    assert rig.started() == started
    assert set(rig.touched(files)) <= {"/opt/koprogo/journal.jsonl"}


@pytest.mark.slow
def test_two_releases_back_the_colours_are_taken_and_images_of_nobody_go(changed: Rig) -> None:
    """Blue, green, blue: the one to go back to has the colours that serve."""
    rig, first = changed, changed.manifest()
    ours = first["requested"]["backend"].rpartition(":")[0]
    for name in (f"{ours}:unused", "somebody/elses:1"):
        content = "cd $(mktemp -d) && head -c 20000000 /dev/urandom > content && tar -c content"
        rig.on_host(f"{content} | docker import - {name}")
    run = rig.converge(**another(2))
    freed = re.search(r"1 name of an unused image; (\d+) MB freed", run.output)
    assert freed, run.output
    assert int(freed[1]) >= 19
    images = rig.on_host("docker image ls --format '{{.Repository}}:{{.Tag}}'").split()
    assert f"{ours}:unused" not in images
    assert "somebody/elses:1" in images
    rig.on_host("docker image rm somebody/elses:1")

    rig.converge(**another(3))
    assert rig.manifest()["colours"] == first["colours"]
    with Watch(rig) as watch:
        run = rig.deploy(deploy="rollback", release=first["id"])
    assert run.code == 0, run.output
    assert watch.failures == []
    serving = rig.manifest()
    assert serving["again"] == first["id"]
    assert set(serving["colours"].items()) & set(first["colours"].items()) == set()
    assert serving["specs"] == first["specs"]
    assert rig.leftovers() == []
    assert rig.converge().changed == [], "the very release that group data asks for"


@pytest.mark.slow
def test_a_rollback_under_full_load_loses_no_request(changed: Rig) -> None:
    """A closed loop takes all that the one CPU has left."""
    rig = changed
    rig.converge(**another(5))
    with Watch(rig) as watch, ThreadPoolExecutor() as pool:
        background = pool.submit(load, rig, 4, 30)
        time.sleep(0.5)
        run = rig.deploy(deploy="rollback")
        seen = background.result()
    assert run.code == 0, run.output
    assert (watch.failures, seen.failures) == ([], [])
    assert run.seconds < seen.seconds, "the load lasted from the first step to the last"
    assert seen.answered > 5000
    print(times(line(rig), run), f"; {seen.answered + watch.answered} requests")
    rig.converge(**another(5), retry_bad_release=True)
    assert rig.converge(**another(5)).changed == [], "tried again on purpose, it counts"


@pytest.mark.slow
def test_a_rollback_that_was_cut_after_the_switch_is_not_undone_and_is_ended(
    changed: Rig,
) -> None:
    rig, before = changed, changed.manifest()["id"]
    rig.converge(**another(4))
    left = rig.manifest()["id"]
    with Watch(rig) as watch:
        process = rig.start(deploy="rollback")
        said(process, "Starting operation: Verify")
        end(process)
        process.wait()
        undone = rig.deploy(**another(4))
        ended = rig.deploy(deploy="rollback")
    assert undone.code == 1, undone.output
    assert "rolled back by" in undone.output
    assert ended.code == 0, ended.output
    assert watch.failures == []
    assert (rig.manifest()["id"], line(rig)["outcome"]) == (before, "rolled back")
    assert mark(rig, left)
    assert rig.leftovers() == []
    assert remote.journal_of(rig.environment).broken == []


@pytest.mark.slow
def test_a_rollback_to_a_release_that_does_not_work_is_taken_back(changed: Rig) -> None:
    rig = changed
    rig.converge()  # whatever the tests before left serving
    before = rig.manifest()["id"]
    broken = {"STANDIN_FAULTS": "errors_percent=7", "TEST_RUN": f"{NOW}"}
    assert rig.deploy(backend_environment=broken).code == 1
    releases = rig.on_host("grep -l errors_percent /opt/koprogo/releases/*/compose.yaml").split()
    bad = releases[-1].split("/")[-2]
    refused = rig.deploy(deploy="rollback", release=bad)
    assert refused.code == 1
    assert f"release {bad} is marked as bad: smoke tests failed" in refused.output
    with Watch(rig) as watch:
        run = rig.deploy(deploy="rollback", release=bad, retry_bad_release=True)
    assert run.code == 1, run.output
    assert f"release {bad} was taken back; {before} serves again" in run.output
    assert watch.failures == []
    assert mark(rig, before) == "", "the release that serves is not the bad one"
    assert line(rig)["outcome"] == "taken back"
    # What was stopped, and kept for its logs, goes.
    assert rig.converge().changed == ["Settle | Let the release count"]
    assert rig.leftovers() == []
