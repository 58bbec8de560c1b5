"""Nothing changed, so nothing happens."""

from __future__ import annotations

from tests.integration.rig import Rig


def test_second_deploy_changes_nothing(rig: Rig) -> None:
    files, started = rig.files(), rig.started()
    run = rig.converge()
    asked = run.output.count("--> Starting operation:")
    assert (run.changed, run.unchanged) == ([], asked), run.output
    assert asked > 10
    assert rig.started() == started
    assert rig.touched(files) == {}
    assert run.seconds < 30


def test_dry_run_of_nothing_says_nothing(rig: Rig) -> None:
    files = rig.files()
    run = rig.deploy("--dry")
    assert run.code == 0
    assert run.would_change == []
    assert rig.touched(files) == {}


def test_dry_run_of_a_change_names_what_it_touches_and_touches_nothing(rig: Rig) -> None:
    files, started = rig.files(), rig.started()
    run = rig.deploy("--dry", frontend_memory="40MB")
    assert run.would_change == [
        "Release | Push the release",
        "Cut over | Run frontend and Traefik",
        "Cut over | Switch to the release",
        "Settle | Let the release count",
    ]
    assert rig.touched(files) == {}
    assert rig.started() == started


def test_stage_alone_changes_nothing_either(rig: Rig) -> None:
    for stage in ("host", "engine", "release", "migrate", "cutover", "seed", "verify", "settle"):
        run = rig.deploy(deploy=stage)
        assert (run.code, run.changed) == (0, []), run.output
