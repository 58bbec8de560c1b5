"""The deploy carries out its plan: that release is pushed, unless somebody changed the host."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import render
from koprogo_deploy.door import Environment
from koprogo_deploy.operations import context, notes, planning, release
from koprogo_deploy.settings import Settings
from tests import project
from tests.unit import seen_hosts as hosts
from tests.unit.seen_hosts import Hosts
from tests.unit.test_plan_made import NEW_DIGEST, TUNED, WITH_NEW_IMAGE, new_image

Run = Callable[..., "Stage"]


class Stage:
    """A run on a made-up host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, host: Hosts, settings: Settings) -> None:
        self.host, self.said, self.noops = host, [], []  # type: ignore[var-annotated]
        self.environment = Environment(settings, project.SECRETS, "203.0.113.7", {})
        there = SimpleNamespace(name="vps", noop=self.noops.append)
        self.state = SimpleNamespace(is_executing=True)
        logger = SimpleNamespace(info=lambda form, *words: self.said.append(form % words))
        for module in (planning, release):
            monkeypatch.setattr(module, "host", there)
            monkeypatch.setattr(module, "state", self.state)
            monkeypatch.setattr(module, "look", self.look)
        monkeypatch.setattr(planning, "logger", logger)
        monkeypatch.setattr(context, "host", there)
        monkeypatch.setattr(context, "state", self.state)
        monkeypatch.setattr(context, "current", lambda: self.environment)
        monkeypatch.setattr(context, "secret_sets", lambda e: project.sets(e.settings, e.secrets))
        monkeypatch.setattr(context, "revision", lambda: "0123456789ab")
        for kept in (planning._decided, planning._shown, context._planned, notes.notes):
            kept.clear()

    def look(self, fact: type, **arguments: Any) -> Any:
        return self.host.look(fact, **arguments)

    def plan(self) -> None:
        assert list(_inner(planning.planned)) == []

    def push(self) -> list[Any]:
        return list(_inner(release.release_pushed))


def _inner(step: Any) -> Any:
    return step._inner.__wrapped__()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def made(host: Hosts, settings: Settings = hosts.BASE) -> Stage:
        return Stage(monkeypatch, host, settings)

    return made


def pushed(command: Any) -> dict[str, str]:
    """Files of the archive on a command's standard input."""
    packed = gzip.decompress(base64.b64decode(command.connector_arguments["_stdin"]))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {m.name: tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]


def test_the_release_of_the_plan_is_pushed_and_not_one_that_is_rendered_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = run(new_image(), WITH_NEW_IMAGE)
    stage.plan()
    assert stage.said[0].strip() == "backend switches to green; traefik, postgres, frontend stay"
    planned = planning.of_this_run().plan

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("rendered again")

    monkeypatch.setattr(render, "render", again)
    pull, push = stage.push()
    assert NEW_DIGEST in str(pull)
    files = pushed(push)
    manifest = files.pop("manifest.json")
    assert f'"hash": "{planned.release.hash}"' in manifest
    identity = manifest.split('"id": "')[1].split('"')[0]
    assert f"release {identity}." in files["compose.yaml"]
    files["compose.yaml"] = files["compose.yaml"].replace(f"release {identity}.", "release .")
    assert {path: render.short_hash(text) for path, text in files.items()} == planned.release.files
    assert notes.notes["plan"]["kind"] == list(planned.duration.kind)


def test_nothing_to_do_is_nothing_pushed(run: Run) -> None:
    stage = run(hosts.serving())
    stage.plan()
    assert stage.push() == []
    assert stage.noops == ["nothing to do", "release r1 is what is asked for"]


def test_somebody_who_changes_the_host_meanwhile_stops_the_push(run: Run) -> None:
    stage = run(hosts.serving(), TUNED)
    stage.plan()
    other = {**hosts.live_manifest(), "id": "r2"}
    stage.host = replace(stage.host, stack=replace(stage.host.stack, candidate=other))
    with pytest.raises(OperationError, match="pushed release: none -> r2") as stopped:
        stage.push()
    assert "The release was not pushed; what serves goes on" in str(stopped.value)


def test_what_the_run_did_itself_does_not_stop_it(run: Run) -> None:
    stage = run(hosts.serving(), TUNED)
    stage.plan()
    own = planning.of_this_run().plan.release.secrets.values()
    stack = replace(stage.host.stack, secrets={*stage.host.stack.secrets, *own})
    machine = replace(stage.host.machine, files={}, packages=set())
    stage.host = replace(stage.host, stack=stack, machine=machine)
    assert len(stage.push()) == 1


def test_the_plan_shown_before_the_question_is_the_one_that_is_carried_out(run: Run) -> None:
    stage = run(hosts.serving(), TUNED)
    stage.state.is_executing = False
    stage.plan()
    shown, said = planning.of_this_run().plan, list(stage.said)
    assert said
    stage.state.is_executing = True
    stage.plan()
    assert planning.of_this_run().plan is shown
    assert stage.said == said, "it is not said twice"

    stage.host = replace(stage.host, stack=replace(stage.host.stack, dynamic="x"))
    with pytest.raises(OperationError, match="the host changed since: routes: "):
        stage.plan()


def test_a_kept_plan_is_carried_out_or_refused(run: Run, tmp_path: Path) -> None:
    kept = hosts.plan(hosts.serving(), TUNED)
    file = tmp_path / "plan.json"
    file.write_text(kept.model_dump_json())
    given = project.settings(
        swap=None, postgres_settings={"work_mem": "6MB"}, plan=str(file), reason="as reviewed"
    )
    stage = run(hosts.serving(), given)
    stage.plan()
    decided = planning.of_this_run().plan
    assert (decided.release, decided.services) == (kept.release, kept.services)
    assert len(stage.push()) == 1

    stage.host = replace(stage.host, stack=replace(stage.host.stack, secrets=set()))
    with pytest.raises(OperationError, match="the host changed since: secrets: ") as refused:
        stage.plan()
    assert "Nothing was touched" in str(refused.value)
    other = project.settings(swap=None, postgres_settings={"work_mem": "7MB"}, plan=str(file))
    with pytest.raises(OperationError, match="this checkout: renders"):
        run(hosts.serving(), other).plan()


def test_an_edited_plan_does_not_choose_the_image(run: Run, tmp_path: Path) -> None:
    """Tried at 21d6e63 with a made-up host: another image of a plan's file was deployed."""
    kept = hosts.plan(new_image(), WITH_NEW_IMAGE)
    other = f"{NEW_DIGEST.partition('@')[0]}@sha256:{'e' * 64}"
    foreign = hosts.plan(new_image(), WITH_NEW_IMAGE.model_copy(update={"backend_image": other}))
    assert foreign.release.images["backend"] == other
    edited = foreign.model_copy(
        update={"release": foreign.release.model_copy(update={"requested": kept.release.requested})}
    )
    file = tmp_path / "plan.json"
    file.write_text(edited.model_dump_json())
    asked = WITH_NEW_IMAGE.model_copy(update={"plan": str(file)})
    stage = run(new_image(), asked)
    with pytest.raises(OperationError, match="the image is another one: backend: ") as refused:
        stage.plan()
    assert other in str(refused.value)
    assert stage.host.stack.candidate is None

    file.write_text(kept.model_dump_json())
    stage = run(new_image(), asked)
    stage.plan()
    assert NEW_DIGEST in pushed(stage.push()[-1])["compose.yaml"]


def test_an_edited_plan_decides_nothing_that_is_not_compared(run: Run, tmp_path: Path) -> None:
    kept = hosts.plan(hosts.serving(), TUNED)
    none = kept.duration.model_copy(update={"kind": ()})
    images = kept.images.model_copy(update={"unresolved": ("backend",), "pull": ("nobody",)})
    edited = kept.model_copy(update={"duration": none, "images": images, "services": ()})
    file = tmp_path / "plan.json"
    file.write_text(edited.model_dump_json())
    run(hosts.serving(), TUNED.model_copy(update={"plan": str(file)})).plan()
    decided = planning.of_this_run().plan
    assert (decided.duration, decided.images, decided.services) == (
        kept.duration,
        kept.images,
        kept.services,
    )


def test_an_edited_plan_takes_no_digest_of_a_manifest_out_of_play(run: Run, tmp_path: Path) -> None:
    """All of its hashes fit: they are those of a release whose backend is not resolved."""
    edited = hosts.plan(hosts.serving(), TUNED, images={"backend": TUNED.backend_image})
    file = tmp_path / "plan.json"
    file.write_text(edited.model_dump_json())
    stage = run(hosts.serving(), TUNED.model_copy(update={"plan": str(file)}))
    with pytest.raises(OperationError, match="the image is another one: backend: "):
        stage.plan()


def test_a_plan_that_a_deploy_would_refuse_stops_before_anything_is_touched(run: Run) -> None:
    lacking = new_image(hosts.MIGRATIONS[0])
    with pytest.raises(OperationError, match="the database has 1 migration"):
        run(lacking, WITH_NEW_IMAGE).plan()
    host = hosts.serving()
    release_ = hosts.plan(host, TUNED).release
    bad = replace(host, stack=replace(host.stack, bad={release_.content: "smoke tests failed"}))
    with pytest.raises(OperationError, match="this very release was taken back"):
        run(bad, TUNED).plan()
    again = project.settings(
        swap=None, postgres_settings={"work_mem": "6MB"}, retry_bad_release=True
    )
    run(bad, again).plan()


def test_a_tag_that_only_the_pull_resolves_is_rendered_with_its_digest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = run(replace(new_image(), registry={}), WITH_NEW_IMAGE)
    stage.plan()
    look = stage.host.look

    def after_the_pull(fact: type, **arguments: Any) -> Any:
        if fact.__name__ == "ImageDigests":
            return dict.fromkeys(arguments["references"], NEW_DIGEST)
        return look(fact, **arguments)

    monkeypatch.setattr(release, "look", after_the_pull)
    pull, push = stage.push()
    assert WITH_NEW_IMAGE.backend_image in str(pull)
    assert NEW_DIGEST in pushed(push)["compose.yaml"]
