"""Going back by command: to which release, whether it can, and in which colours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import database, render
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.releases import Image, Images, Kept, ReleaseFiles, Releases
from koprogo_deploy.facts.stack import Container, Database, Stack, StackState, parse_stack
from koprogo_deploy.operations import context, rollback
from koprogo_deploy.plan import services, wanted
from koprogo_deploy.settings import NOT_OF_RELEASE, Settings
from tests import project

BASE = project.settings()
BASE_RELEASE = project.release(BASE)
SECRETS = render.secret_directories(project.sets(BASE))
ROOT = BASE.install_root


def about(identity: str, settings: Settings = BASE, **colours: str) -> dict[str, Any]:
    rendered = project.release(settings, **colours)
    return {
        "id": identity,
        "hash": rendered.hash,
        "content": project.release(settings).hash,
        "specs": rendered.specs,
        "colours": rendered.colours,
        "definitions": rendered.definitions,
        "images": rendered.images,
        "dynamic": wanted.dynamic_hash(rendered),
        "requested": {s: settings.image(s) for s in rendered.images},
        "values": settings.of_release,
    }


def kept(identity: str, *migrations: str, **more: Any) -> Kept:
    return Kept({**about(identity), **more}, [f"{m}_x.sql" for m in migrations])


KEPT = {i: kept(i, "1", "2") for i in ("r1", "r2", "r3", "r4")}


def state(current: str = "r4", **more: Any) -> StackState:
    served = {"r1": 1.0, "r2": 2.0, "r4": 4.0}
    values = {"current": {**KEPT[current].manifest, "dynamic": current}, "dynamic": current}
    return StackState(**{"served": served, **values, **more})


def chosen(found: StackState, asked: str | None = None, retry: bool = False) -> str:
    return str(rollback.choose(found, KEPT, asked, retry).manifest["id"])


def test_what_it_does_is_said_before_it_does_it() -> None:
    old = about("r1", project.settings(frontend_memory="40MB", traefik_memory="96MB"))
    old |= {"made": "2026-11-20T10:00:00+00:00", "by": "anna@laptop"}
    release = render.of_manifest({**old, "colours": {"backend": "blue", "frontend": "green"}})
    serving = {
        name: Container("0", name, BASE_RELEASE.specs[service], "running", "healthy", "")
        for service, name in render.container_names(BASE_RELEASE.colours).items()
    }
    does = services.changes(about("r2"), release, old["requested"], serving)
    assert rollback.going_back(old, does) == [
        "back to release r1, made 2026-11-20T10:00:00+00:00 by anna@laptop",
        "traefik is recreated; frontend switches to green; postgres, backend stay",
        "traefik: environment.GOMEMLIMIT: 60MiB -> 72MiB, mem_limit: 80MB -> 96MB, "
        "memswap_limit: 80MB -> 96MB",
        "frontend: mem_limit: 32MB -> 40MB, memswap_limit: 32MB -> 40MB",
        "requests: nothing answers for a moment while the proxy restarts",
    ]
    does = [each.model_copy(update={"action": "keep"}) for each in does]
    assert rollback.going_back(old, does)[-1] == "requests: none is lost"


# --- which ---------------------------------------------------------------------------------------


def test_by_itself_it_goes_to_the_one_that_served_before_and_not_to_one_that_never_did() -> None:
    assert chosen(state()) == "r2"
    assert chosen(state(marked={"r2": "rolled back by anna"})) == "r1"
    assert chosen(state(served={"r1": 3.0, "r2": 2.0, "r4": 4.0})) == "r1", "by when, not by age"
    after_going_back = state("r2", served={"r2": 9.0, "r4": 4.0, "r1": 1.0}, marked={"r4": "bad"})
    assert chosen(after_going_back) == "r1"


def test_releases_of_before_this_was_noted_are_taken_by_age() -> None:
    assert chosen(state(served={"r4": 4.0})) == "r3"


def test_any_kept_release_can_be_asked_for() -> None:
    assert chosen(state(), "r1") == "r1"
    assert chosen(state(), "r3") == "r3"
    assert chosen(state(marked={"r1": "smoke"}), "r1", retry=True) == "r1"
    with pytest.raises(OperationError, match=r"no release r9 here. Kept: r1, r2, r3, r4"):
        chosen(state(), "r9")
    with pytest.raises(OperationError, match=r"r1 is marked as bad: smoke. .*retry_bad_release"):
        chosen(state(marked={"r1": "smoke"}), "r1")


def test_where_there_is_nothing_to_go_back_to_it_says_so() -> None:
    with pytest.raises(OperationError, match="nothing is deployed"):
        chosen(StackState())
    everything_bad = dict.fromkeys(("r1", "r2", "r3"), "bad")
    with pytest.raises(OperationError, match="no kept release served before r4"):
        chosen(state(marked=everything_bad))


def test_a_rollback_that_was_cut_after_the_switch_is_ended() -> None:
    candidate = {**KEPT["r2"].manifest, "dynamic": "r2"}
    cut = state(candidate=candidate, dynamic="r2", marked={"r4": "rolled back by anna"})
    assert chosen(cut) == "r2"


def test_a_deploy_that_was_cut_after_the_switch_goes_back_to_what_counts() -> None:
    candidate = {**KEPT["r3"].manifest, "dynamic": "r3"}
    assert chosen(state(candidate=candidate, dynamic="r3")) == "r4"


# --- whether -------------------------------------------------------------------------------------


def why_not(to: Kept, **secrets: str) -> str:
    return rollback.cannot_go_back(to, about("r4"), {**SECRETS, **secrets}, ROOT)


def test_a_release_of_before_has_its_secrets_under_their_earlier_names() -> None:
    sets = project.sets(BASE)
    earlier = render.earlier_directories(sets)
    old = project.release(BASE).definitions
    for definition in old.values():
        files = definition.get("secrets", [])
        definition["secrets"] = [
            file.replace(SECRETS[service], earlier[service])
            for file in files
            for service in SECRETS
            if f"/{SECRETS[service]}/" in file
        ]
    to = Kept({**KEPT["r3"].manifest, "definitions": old}, [])
    assert rollback.cannot_go_back(to, about("r4"), SECRETS, ROOT, earlier) == ""
    assert "secrets of postgres changed" in rollback.cannot_go_back(to, about("r4"), SECRETS, ROOT)
    other = {**earlier, "postgres": "postgres-000000000000"}
    assert rollback.cannot_go_back(to, about("r4"), SECRETS, ROOT, other) != ""


def missing(to: Kept, *applied: str) -> list[str]:
    return rollback.between(to, dict.fromkeys(applied, True))


def test_a_release_with_all_migrations_can_serve_again() -> None:
    assert missing(kept("r1", "1", "2"), "1", "2") == []
    assert missing(kept("r1", "1", "2", "3"), "1", "2") == [], "it knows more: it brings them"
    assert why_not(kept("r1", "1", "2")) == ""


def test_back_dated_migrations_are_compared_one_by_one() -> None:
    assert missing(kept("r1", "2", "3"), "1", "2") == ["1"]


def dumped(release: str, *applied: str, at: str = "2026-01-01T10:00:00.000+00:00") -> Any:
    return {"release": release, "applied": list(applied), "at": at, "bytes": 3 * 1024**2}


def test_the_dump_to_restore_is_the_newest_that_the_release_can_start_on() -> None:
    dumps = {
        "r2": dumped("r2", "1", at="2026-01-01T10:00:00.000+00:00"),
        "r3": dumped("r3", "1", "2", at="2026-01-02T10:00:00.000+00:00"),
        "r4": dumped("r4", "1", "2", "3", at="2026-01-03T10:00:00.000+00:00"),
    }
    assert rollback.fitting_dump(kept("r1", "1", "2"), dumps) == dumps["r3"]
    assert rollback.fitting_dump(kept("r1", "1", "4"), dumps) == dumps["r2"]
    assert rollback.fitting_dump(kept("r1", "4"), dumps) is None
    assert rollback.fitting_dump(kept("r1", "1"), {}) is None


def test_a_migration_between_is_refused_with_the_two_ways() -> None:
    counted = {"buildings": "2:1", "expenses": "0:0", "owners": "5:", "tags": None}
    told = rollback.two_ways(kept("r1", "1"), ["2"], dumped("r2", "1"), counted, BASE)
    assert "a migration stands between: the database has 1 that release r1 lacks (2)" in told
    assert "(1) deploy an image" in told
    assert "backend_image" in told
    run = "pyinfra inventories/production.py deploys/rollback.py"
    assert f"{run} --data release=r1 --data restore_dump=true. " in told
    assert "It is of 2026-01-01 10:00:00 UTC, 3 MB" in told
    assert "Lost would be, since then: buildings 2 new, 1 changed; owners 5 new (" in told
    assert "nor the tables without created_at: tags)" in told


def test_without_a_dump_it_says_so() -> None:
    told = rollback.two_ways(kept("r1", "1"), ["2"], None, {}, BASE)
    assert told.endswith("but no dump is kept that fits, so today the first way is the only one")


def test_nothing_written_since_is_said_with_how_it_was_counted() -> None:
    told = database.lost_told({"buildings": "0:0", "refresh_tokens": "0:"})
    assert told.startswith("Nothing new since then (counted now, by created_at and updated_at; ")
    assert told.endswith("rows deleted since are not counted)")


def test_changed_secrets_are_not_brought_back() -> None:
    assert why_not(kept("r1", "1", "2"), backend="backend-other").startswith(
        "secrets of backend changed since release r1"
    )


def test_another_major_version_of_postgres_is_refused() -> None:
    old = kept("r1", "1", "2", values={**BASE.of_release, "postgres_major": 16})
    assert why_not(old) == "release r1 is of Postgres 16, and the data is of Postgres 17"
    unsaid = kept("r1", "1", "2")
    del unsaid.manifest["values"]
    assert why_not(unsaid) == "", "an old manifest does not say"


# --- how -----------------------------------------------------------------------------------------


def test_in_other_colours_it_is_the_release_that_would_be_rendered_in_them() -> None:
    blue = render.render(BASE, project.sets(BASE), project.digests(BASE), project.COLOURS, "r1")
    colours = {"backend": "green", "frontend": "blue"}
    again = render.recoloured(about("r1"), blue.files, colours, "r9")
    wanted = render.render(BASE, project.sets(BASE), project.digests(BASE), colours, "r9")
    assert again == wanted


def test_settings_of_a_release_make_the_same_settings_again() -> None:
    values = json.loads(json.dumps(BASE.of_release))
    assert Settings.model_validate({**project.values(), **values}) == BASE
    assert set(Settings.model_fields) > NOT_OF_RELEASE
    assert {"release", "reason"} <= NOT_OF_RELEASE
    changed = project.settings(frontend_memory="40MB", backend_start_timeout="2min")
    assert changed.of_release["frontend_memory"] == "40MB"
    assert Settings.model_validate({**project.values(), **changed.of_release}) == changed


def test_what_was_asked_for_in_one_run_is_no_part_of_the_settings_hash() -> None:
    assert project.settings(reason="because", release="r1").hash == BASE.hash


# --- that nothing brings it back -----------------------------------------------------------------


def refused(found: StackState, settings: Settings = BASE) -> str:
    environment = Environment(settings, project.SECRETS, "host", {})
    release = wanted.wanted_release(
        environment, project.sets(settings), project.digests(settings), found
    )
    return wanted.refused(found, release)


def test_a_release_that_was_left_is_not_deployed_again_whatever_its_colours() -> None:
    left, other = about("r2", backend="green"), project.settings(backend_memory="129MB")
    back = about("r1", other, backend="blue")
    by_hash = StackState(current=back, bad={left["hash"]: "rolled back by anna at noon"})
    assert refused(by_hash).startswith("this very release was rolled back by anna at noon.")
    assert left["content"] != left["hash"]
    by_content = StackState(current=back, bad={left["content"]: "smoke tests failed"})
    assert "was taken back: smoke tests failed" in refused(by_content)
    assert refused(by_content, project.settings(backend_memory="130MB")) == ""


def test_a_deploy_does_not_undo_a_rollback_that_was_cut_after_the_switch() -> None:
    left = about("r2", backend="green")
    to = about("r1", project.settings(backend_memory="129MB"), backend="blue")
    bad = {left["hash"]: "rolled back by anna"}
    cut = StackState(current=left, candidate=to, dynamic=to["dynamic"], bad=bad)
    assert refused(cut).startswith("this very release was rolled back by anna")
    assert refused(StackState(current=left, dynamic=left["dynamic"], bad=bad)) == ""


# --- what becomes of a candidate -----------------------------------------------------------------


def begun(
    monkeypatch: pytest.MonkeyPatch, found: StackState, asked: str
) -> tuple[list[str], context.GoingBack]:
    """Commands of a rollback's first step, and what its later stages know."""
    environment = Environment(project.settings(release=asked), project.SECRETS, "host", {})
    there = SimpleNamespace(name="vps", noop=lambda _: None)
    looks: dict[Any, Any] = {Releases: KEPT, Database: {"migrations": "1:true 2:true"}}
    monkeypatch.setattr(rollback, "host", there)
    monkeypatch.setattr(rollback, "stack", lambda _: found)
    monkeypatch.setattr(rollback, "look", lambda fact, **_: looks[fact])
    monkeypatch.setattr(rollback, "_old_settings", lambda *_: {})
    monkeypatch.setattr(context, "host", there)
    monkeypatch.setattr(context, "current", lambda: environment)
    monkeypatch.setattr(context, "secret_sets", lambda _: project.sets(BASE))
    commands = list(rollback.kept_release_is_candidate._inner.__wrapped__())  # type: ignore[attr-defined]
    return [str(each) for each in commands], context._going_back.pop("vps")


def test_asked_for_what_serves_it_lets_go_one_that_never_did_and_marks_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run was cut before its switch; its release is not what the next stages work on."""
    cut = state(candidate={**KEPT["r3"].manifest, "dynamic": "r3"})
    commands, going = begun(monkeypatch, cut, "r4")
    assert commands == [f"rm -f {ROOT}/candidate"]
    assert going.left == "", "r4 serves: it is not left"
    assert begun(monkeypatch, state(), "r4")[0] == []


def test_asked_for_what_was_switched_to_it_leaves_what_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = state(candidate={**KEPT["r3"].manifest, "dynamic": "r3"}, dynamic="r3")
    commands, going = begun(monkeypatch, cut, "r3")
    assert (commands, going.left) == ([], "r4")


# --- facts ---------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for identity in ("r1", "r2"):
        directory = tmp_path / "releases" / identity
        for name, text in project.release(BASE).files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        (directory / "manifest.json").write_text(json.dumps(about(identity), indent=1) + "\n")
        (directory / "migrations.txt").write_text("1_a.sql\n2_b.sql\n")
    (tmp_path / "releases/r1/bad").write_text("rolled back by anna: too\tslow\n")
    (tmp_path / "releases/r1/served").write_text("1767225600.123456789\n")
    return tmp_path


def output(command: Any) -> list[str]:
    done = subprocess.run(
        ["sh", "-c", command.get_raw_value()], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_kept_releases_are_read_with_their_migrations(root: Path) -> None:
    found = Releases().process(output(Releases().command(str(root))))
    assert list(found) == ["r1", "r2"]
    assert found["r2"] == Kept(about("r2"), ["1_a.sql", "2_b.sql"])


def test_files_of_a_release_are_read_as_they_were_rendered(root: Path) -> None:
    found = ReleaseFiles().process(output(ReleaseFiles().command(str(root), "r1")))
    assert found == project.release(BASE).files


def test_marks_are_read_by_release_hash_and_content(root: Path) -> None:
    found = parse_stack(output(Stack().command(str(root))))
    assert found.marked == {"r1": "rolled back by anna: too\tslow"}
    assert set(found.bad) == {about("r1")["hash"], about("r1")["content"]}
    assert found.served == {"r1": 1767225600.123456789}


def test_images_are_read_with_all_their_names() -> None:
    lines = ['123 ["a:1","b c:2"] ["a@sha256:0"]', "5 [] null", "6 null []"]
    assert Images().process(lines) == [
        Image(("a:1", "b c:2", "a@sha256:0"), 123),
        Image((), 5),
        Image((), 6),
    ]
