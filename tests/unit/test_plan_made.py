"""What a deploy will do, from what was seen: shown to people, and held against the host later."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from rich.console import Console

from koprogo_deploy import database, maintenance
from koprogo_deploy.cli.plan import show_plan
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.details import Details
from koprogo_deploy.plan import given, seen, text, words
from koprogo_deploy.plan.model import Plan
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.render import secret_directories
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.units import MB
from tests import project
from tests.project import ROOT
from tests.unit import seen_hosts as hosts
from tests.unit.seen_hosts import BASE

GOLDEN = ROOT / "tests" / "golden" / "plan"
NEW = "ghcr.io/gilmry/koprogo/backend:main-1234567"
NEW_DIGEST = f"ghcr.io/gilmry/koprogo/backend@sha256:{'9' * 64}"
TUNED = project.settings(swap=None, postgres_settings={"work_mem": "6MB"})
WITH_NEW_IMAGE = project.settings(swap=None, backend_image=NEW)
OTHER_SECRET = Secrets({**project.SECRETS.values, "JWT_SECRET": "f" * 64})


def new_image(*migrations: str, **more: Any) -> hosts.Hosts:
    """A host that has the new image, with these migrations, and knows its digest."""
    there = hosts.serving()
    images = frozenset({*there.details.images, NEW_DIGEST}) if migrations else there.details.images
    details = replace(there.details, images=images, migrations=migrations or None)
    return replace(there, registry={NEW: NEW_DIGEST}, details=replace(details, **more))


def shown(plan: Plan) -> str:
    """As a terminal of 100 columns has it, without colours."""
    out = io.StringIO()
    show_plan(Console(file=out, width=100, highlight=False), plan)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


CASES = {
    "empty_host": lambda: hosts.plan(hosts.new()),
    "no_change": lambda: hosts.plan(hosts.serving()),
    "new_image": lambda: hosts.plan(new_image(), WITH_NEW_IMAGE),
    "new_image_with_migration": lambda: hosts.plan(
        new_image(*hosts.MIGRATIONS, "20260101000000_add_column.sql"), WITH_NEW_IMAGE
    ),
    "backend_down": lambda: hosts.plan(exited("backend-blue")),
    "postgres_setting": lambda: hosts.plan(hosts.serving(), TUNED),
    "changed_secret": lambda: hosts.plan(hosts.serving(), secrets=OTHER_SECRET),
}


@pytest.mark.parametrize("case", CASES)
def test_plans_read_as_the_golden_ones(case: str, request: pytest.FixtureRequest) -> None:
    told, file = shown(CASES[case]()), GOLDEN / f"{case}.txt"
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(told, encoding="utf-8")
    assert told == file.read_text(encoding="utf-8"), "if this is meant: make golden"


def test_who_else_can_log_in_is_told_whether_or_not_anything_is_done() -> None:
    for settings in (hosts.BASE, TUNED):
        host = hosts.serving()
        known = replace(host, machine=replace(host.machine, other_logins=["anna"]))
        plan = hosts.plan(known, settings)
        assert plan.problems == ()
        assert "anna can log in by ~/.ssh/authorized_keys" in shown(plan)


def actions(plan: Plan) -> dict[str, str]:
    return {service.name: service.action for service in plan.services}


# --- the realistic data --------------------------------------------------------------------------

SEEDS = project.settings(swap=None, seed_enabled=True)
PASSWORD = project.SECRETS["SEED_PASSWORD"].encode()
SEED_ROWS = "Seed 1, scale 1 is to be inserted: 3 organisations."


def seeded(**state: Any) -> Plan:
    host = hosts.serving()
    host.seeded |= state
    return hosts.plan(host, SEEDS)


def hashed(password: bytes) -> str:
    return database.told(bcrypt.hashpw(password, bcrypt.gensalt(4)).decode())


def test_data_that_is_there_is_nothing_to_do() -> None:
    plan = seeded(password_told=hashed(PASSWORD))
    assert (plan.nothing, plan.seed, plan.problems) == (True, "", ())


def test_a_serving_release_that_cannot_be_read_is_no_empty_host() -> None:
    host = hosts.serving()
    host = replace(host, stack=replace(host.stack, current=None, unreadable=True))
    [problem] = hosts.plan(host).problems
    assert problem.startswith("current/manifest.json: is empty or cut short")


def test_what_a_deploy_would_stop_at_is_in_the_plan_also_where_nothing_changes() -> None:
    full = Problem("disk", "1 MB free, and 2 MB needed", "make room")
    plan = hosts.plan(hosts.serving(), refusals=[full])
    assert (plan.nothing, plan.problems) == (True, ("disk: 1 MB free, and 2 MB needed; make room",))
    assert "a deploy would refuse: disk: 1 MB free" in shown(plan)


def test_a_seed_is_in_the_plan_and_in_what_the_plan_rests_on() -> None:
    plan = seeded(organization_ids=[])
    assert (plan.nothing, plan.seed, plan.duration.kind) == (False, SEED_ROWS, ("seed",))
    assert f"seed: {SEED_ROWS}" in words.short(plan)
    assert SEED_ROWS in shown(plan)
    there = seeded(password_told=hashed(PASSWORD))
    assert [p.what for p in given.stale(plan, there)] == ["seed: seed -> nothing"]


def test_another_password_of_the_seeded_logins_is_in_the_plan() -> None:
    assert seeded(password_told=hashed(b"another")).seed == (
        "the seeded logins get the new SEED_PASSWORD"
    )


def test_a_seed_that_cannot_be_is_refused_before_anything_is_touched() -> None:
    [problem] = seeded(organization_ids=[], taken_logins=["admin@small.be"]).problems
    assert problem.startswith("Not seeded: admin@small.be in use.")


def test_a_new_host_is_seeded_once_it_has_tables_and_one_without_a_seed_is_not_asked() -> None:
    assert hosts.plan(hosts.new(), SEEDS).seed == "once the application's tables are there"
    host = hosts.serving()
    host.seeded["organization_ids"] = []
    assert hosts.plan(host).seed == ""


# --- nothing, first, changes ---------------------------------------------------------------------


def test_nothing_to_do_looks_no_further_than_a_deploy_does_anyway() -> None:
    host = hosts.serving()
    plan = hosts.plan(host)
    assert plan.nothing
    assert host.asked == ["Host", "Stack", "Database"]
    assert (plan.files, plan.stops, plan.interruptions, plan.problems) == ((), (), (), ())
    assert words.short(plan) == ["nothing to do"]


def test_a_new_host_gets_everything_and_no_registry_can_be_asked() -> None:
    host = hosts.new()
    plan = hosts.plan(host)
    assert host.asked == ["Host", "Stack", "DetailsFact"]
    assert set(actions(plan).values()) == {"start"}
    assert (
        plan.images.unresolved == plan.images.pull == ("traefik", "postgres", "backend", "frontend")
    )
    assert "docker.io" in plan.machine.packages
    assert "/etc/docker/daemon.json" in plan.machine.files
    assert "/etc/systemd/system/docker-.scope.d/50-koprogo.conf" in plan.machine.files
    assert plan.duration.kind == ("first",)
    assert words.migrations(plan) == "all of the image's, on an empty database"
    assert words.requests(plan) == ["nothing serves yet"]


def exited(name: str) -> hosts.Hosts:
    """A host on which one container of the serving release has ended."""
    there = hosts.serving()
    containers = {
        **there.stack.containers,
        name: replace(there.stack.containers[name], status="exited", health="unhealthy"),
    }
    return replace(there, stack=replace(there.stack, containers=containers))


def test_what_does_not_serve_now_is_said_before_what_a_deploy_interrupts() -> None:
    plan = hosts.plan(exited("backend-blue"))
    assert actions(plan)["backend"] == "restart"
    assert words.requests(plan) == [
        "not all are served as it is: backend-blue is exited, unhealthy",
        "nothing else is interrupted",
    ]
    assert any(line.startswith("requests: not all are served") for line in words.short(plan))
    switched = hosts.plan(exited("backend-blue"), TUNED)
    assert [line.partition(":")[0] for line in words.requests(switched)] == [
        "not all are served as it is",
        "Postgres is recreated in place",
    ]
    there = hosts.serving()
    gone = {n: c for n, c in there.stack.containers.items() if n != "frontend-blue"}
    without = hosts.plan(replace(there, stack=replace(there.stack, containers=gone)))
    assert words.requests(without)[0] == (
        "not all are served as it is: frontend-blue has no container"
    )


def test_the_maintenance_page_is_told_too() -> None:
    page = maintenance.render(
        maintenance.Maintenance("2026-01-01T10:00:00+00:00", "anna", "back soon", 60, ())
    )
    there = hosts.serving()
    first = page.splitlines()[0].removeprefix("# ")
    plan = hosts.plan(replace(there, stack=replace(there.stack, maintenance=first)), TUNED)
    assert (
        'maintenance is on since 2026-01-01 10:00 UTC by anna: "back soon"'
        in (words.requests(plan)[0])
    )


def test_a_new_image_switches_its_service_and_the_old_one_stops_later() -> None:
    host = new_image()
    plan = hosts.plan(host, WITH_NEW_IMAGE)
    assert actions(plan) == {
        "traefik": "keep", "postgres": "keep", "backend": "switch", "frontend": "keep",
    }  # fmt: skip
    backend = plan.service("backend")
    assert (backend.container, backend.colour) == ("backend-green", "green")
    assert plan.stops == ("backend-blue",)
    assert plan.release.images["backend"] == NEW_DIGEST
    assert (plan.images.pull, plan.images.unresolved) == (("backend",), ())
    assert plan.interruptions == ()
    assert plan.migrations.pending is None, "not known before it is pulled"
    assert plan.migrations.rehearsed


def test_a_registry_that_does_not_answer_leaves_the_digest_to_the_pull() -> None:
    plan = hosts.plan(replace(new_image(), registry={}), WITH_NEW_IMAGE)
    assert plan.images.unresolved == ("backend",)
    assert plan.release.images["backend"] == NEW
    assert "its digest is known then" in words.images(plan)


def test_only_what_cannot_be_switched_interrupts_and_only_when_it_changed() -> None:
    assert hosts.plan(new_image(), WITH_NEW_IMAGE).interruptions == ()
    [postgres] = hosts.plan(hosts.serving(), TUNED).interruptions
    assert (postgres.service, postgres.page, postgres.seconds) == ("postgres", True, None)
    other = project.settings(swap=None, traefik_memory="88MB")
    [traefik] = hosts.plan(hosts.serving(), other).interruptions
    assert (traefik.service, traefik.page) == ("traefik", False)
    assert "requests are lost" in words.interruption(traefik)
    assert "none is lost" in words.interruption(postgres)


def test_without_a_proxy_there_is_no_page() -> None:
    host = hosts.serving()
    gone = {k: v for k, v in host.stack.containers.items() if k != "traefik"}
    plan = hosts.plan(replace(host, stack=replace(host.stack, containers=gone)), TUNED)
    assert [(i.service, i.page) for i in plan.interruptions] == [
        ("traefik", False), ("postgres", False),
    ]  # fmt: skip


# --- migrations ----------------------------------------------------------------------------------


def test_pending_migrations_are_a_difference_of_sets() -> None:
    # Back-dated: by the highest version nothing would be pending.
    image = (*hosts.MIGRATIONS, "20240101120000_back_dated.sql")
    plan = hosts.plan(new_image(*image), WITH_NEW_IMAGE)
    assert plan.migrations.pending == ("20240101120000",)
    assert "migrations" in plan.duration.kind
    assert "rehearsed on a copy" in words.migrations(plan)


def test_an_image_that_lacks_an_applied_migration_is_refused_before_anything_is_touched() -> None:
    plan = hosts.plan(new_image(hosts.MIGRATIONS[0]), WITH_NEW_IMAGE)
    [problem] = plan.problems
    assert "the database has 1 migration(s) that the image lacks (20240102000000)" in problem


def test_a_database_that_does_not_run_tells_nothing() -> None:
    host = hosts.serving()
    gone = {k: v for k, v in host.stack.containers.items() if k != "postgres"}
    plan = hosts.plan(replace(host, stack=replace(host.stack, containers=gone)))
    assert plan.migrations.applied is None
    assert actions(plan)["postgres"] == "start"
    assert words.migrations(plan) == "not known, for the database does not answer"


def test_what_the_last_rehearsal_of_the_image_showed_is_told() -> None:
    lock = {"table": "owners", "mode": "AccessExclusiveLock", "seconds": 2.5}
    rehearsal = {"passed": True, "migrations": {"20260101000000": 3.0}, "locks": [lock]}
    line = {
        "kind": "run", "outcome": "failed", "at": "2026-01-01T10:00:00+00:00",
        "images": {"backend": NEW_DIGEST}, "rehearsal": rehearsal,
    }  # fmt: skip
    image = (*hosts.MIGRATIONS, "20260101000000_x.sql")
    plan = hosts.plan(new_image(*image, journal=(line,)), WITH_NEW_IMAGE)
    assert plan.migrations.earlier == (
        "the rehearsal of 2026-01-01T10:00 passed: 3.0 s, owners locked for 2.5 s"
    )


# --- memory --------------------------------------------------------------------------------------


def test_memory_before_during_and_after() -> None:
    plan = hosts.plan(new_image(), WITH_NEW_IMAGE)
    assert plan.memory.during - plan.memory.before == 128 * MB, "the second colour"
    assert plan.memory.after == plan.memory.before
    smaller = hosts.plan(hosts.serving(), project.settings(swap=None, postgres_memory="448MB"))
    assert smaller.memory.during == smaller.memory.before, "the larger of the two counts"
    assert smaller.memory.after == smaller.memory.before - 64 * MB


def test_a_lower_limit_whose_old_one_leaves_no_room_beside_it_is_refused() -> None:
    large = project.settings(swap=None, backend_memory="208MB")
    host = hosts.serving(large)
    host = replace(host, machine=replace(host.machine, memory=1900 * MB))
    plan = hosts.plan(
        host, project.settings(swap=None, backend_memory="144MB", frontend_memory="33MB")
    )
    assert plan.problems
    assert "while the old and the new containers run" in plan.problems[0]


# --- how long ------------------------------------------------------------------------------------


def test_expected_duration_is_the_sum_of_medians_of_runs_of_the_same_kind() -> None:
    kind = hosts.plan(new_image(), WITH_NEW_IMAGE).duration.kind
    assert kind == ("new image", "release", "routes", "switch backend")
    journal = (
        hosts.ran(*kind, seconds=8.0),
        hosts.ran(*kind, seconds=10.0),
        hosts.ran(*kind, seconds=60.0),
        hosts.ran(*kind, seconds=500.0, outcome="failed"),
        hosts.ran("first", seconds=300.0),
        {"kind": "gate", "outcome": "passed"},
    )
    found = hosts.plan(new_image(journal=journal), WITH_NEW_IMAGE).duration
    assert (found.seconds, found.runs) == (12.0, 3)
    assert words.duration(found) == "12 s, by the 3 runs of this kind here"
    unknown = hosts.plan(new_image(), WITH_NEW_IMAGE).duration
    assert words.duration(unknown).startswith("unknown, first time")


def test_interruptions_are_expected_as_they_were_measured_here() -> None:
    host = hosts.serving()
    journal = tuple(hosts.ran("x", interrupted={"postgres": s}) for s in (2.0, 9.0, 3.0))
    host = replace(host, details=replace(host.details, journal=journal))
    [postgres] = hosts.plan(host, TUNED).interruptions
    assert (postgres.seconds, postgres.runs) == (3.0, 3)


# --- secrets -------------------------------------------------------------------------------------


def test_no_secret_is_in_a_plan_whatever_changed() -> None:
    changed = Secrets({name: f"{n + 77:064x}" for n, name in enumerate(project.SECRETS.values)})
    named = project.settings(swap=None, backend_environment={"SMTP_HOST": "mail.koprogo.be"})
    plan = hosts.plan(hosts.serving(), named, changed)
    told = plan.model_dump_json() + shown(plan)
    for value in (*changed.values.values(), *project.SECRETS.values.values()):
        assert value not in told
    assert "mail.koprogo.be" in told
    secret = [file for file in plan.files if file.where == "secrets"]
    assert {(f.path, f.action) for f in secret} == {
        ("secrets/backend", "changed"), ("secrets/postgres", "changed"),
    }  # fmt: skip
    assert "jwt_secret" in secret[1].diff


def test_a_value_that_only_a_mask_tells_apart_is_said_to_change() -> None:
    hide = text.Mask(["old-secret", "new-secret"])
    assert text.unified("a: old-secret\n", "a: new-secret\n", hide) == (
        "a value that is not shown changes: (secret)"
    )


def test_a_file_that_not_everybody_may_read_is_not_shown() -> None:
    settings = project.settings(swap=None, admin_users={"anna": [f"{project.KEY} anna"]})
    plan = hosts.plan(hosts.serving(), settings)
    found = {file.path: file for file in plan.files}
    assert found["/etc/sudoers.d/60-koprogo-anna"].diff == ""
    assert f"+{project.KEY} anna" in found["/etc/ssh/koprogo-keys.d/anna"].diff
    assert "account anna is made" in plan.machine.does


# --- a plan that was made before -----------------------------------------------------------------


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = hosts.plan(new_image(), WITH_NEW_IMAGE)
    file = tmp_path / "plan.json"
    file.write_text(plan.model_dump_json(indent=1))
    environment = Environment(WITH_NEW_IMAGE, project.SECRETS, "203.0.113.7", {})
    again = given.read(str(file), environment)
    assert again == plan
    assert again.fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("not json", "is no plan of this version"),
        ("{}", "is no plan of this version"),
        ('{"format": 99}', "is no plan of this version"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    environment = Environment(BASE, project.SECRETS, "203.0.113.7", {})
    with pytest.raises(Refusal, match=told):
        given.read(str(file), environment)
    with pytest.raises(Refusal, match="No such file"):
        given.read(str(tmp_path / "nowhere.json"), environment)


def test_a_plan_of_another_host_is_refused(tmp_path: Path) -> None:
    plan = hosts.plan(hosts.serving(), TUNED)
    file = tmp_path / "plan.json"
    file.write_text(plan.model_dump_json())
    with pytest.raises(Refusal, match=r"is of production on 203\.0\.113\.7, not of"):
        given.read(str(file), Environment(TUNED, project.SECRETS, "203.0.113.8", {}))


def test_the_same_host_and_checkout_carry_it_out() -> None:
    before = hosts.plan(new_image(), WITH_NEW_IMAGE)
    assert given.stale(before, hosts.plan(new_image(), WITH_NEW_IMAGE)) == []
    unresolved = hosts.plan(replace(new_image(), registry={}), WITH_NEW_IMAGE)
    by_tag = given.by_tag(unresolved, WITH_NEW_IMAGE)
    assert by_tag == {"backend": NEW}
    assert given.stale(unresolved, hosts.plan(new_image(), WITH_NEW_IMAGE, tags=by_tag)) == []


def test_a_tag_that_moved_since_is_told() -> None:
    before = hosts.plan(new_image(), WITH_NEW_IMAGE)
    moved = f"{NEW_DIGEST[:-1]}0"
    now = hosts.plan(replace(new_image(), registry={NEW: moved}), WITH_NEW_IMAGE)
    told = given.stale(before, now)[0]
    assert told.where == "the image is another one"
    assert told.what == f"backend: {NEW} is {moved} now, and the plan has {NEW_DIGEST}"


EVIL = f"evil.example/x/y@sha256:{'e' * 64}"


@pytest.mark.parametrize(
    ("backend", "asked"),
    [
        (EVIL, NEW),
        ("evil.example/x/y:main-17f4460", NEW),
        (f"{NEW}@sha256:{'e' * 64}", NEW),
        (f"{NEW_DIGEST[:-1]}0", f"{NEW}@{NEW_DIGEST.partition('@')[2]}"),
        (NEW, f"{NEW}@{NEW_DIGEST.partition('@')[2]}"),
    ],
)
def test_a_plan_with_a_foreign_image_is_refused_without_a_host(
    tmp_path: Path, backend: str, asked: str
) -> None:
    settings = project.settings(swap=None, backend_image=asked)
    plan = hosts.plan(new_image(), WITH_NEW_IMAGE)
    release = plan.release.model_copy(
        update={"images": {**plan.release.images, "backend": backend}}
    )
    file = tmp_path / "plan.json"
    file.write_text(plan.model_copy(update={"release": release}).model_dump_json())
    environment = Environment(settings, project.SECRETS, "203.0.113.7", {})
    with pytest.raises(Refusal) as refused:
        given.read(str(file), environment)
    assert f"backend is {backend}, and group data asks for {asked}" in str(refused.value)
    lacking = plan.release.model_copy(update={"images": {}})
    file.write_text(plan.model_copy(update={"release": lacking}).model_dump_json())
    with pytest.raises(Refusal, match="images for no service"):
        given.read(str(file), environment)


def other_host(**changes: Any) -> hosts.Hosts:
    host = hosts.serving()
    return replace(host, stack=replace(host.stack, **changes))


def containers(**changes: Any) -> dict[str, Any]:
    found = dict(hosts.serving().stack.containers)
    found["backend-blue"] = replace(found["backend-blue"], **changes)
    return found


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (other_host(candidate=hosts.live_manifest() | {"id": "r2"}), "pushed release: none -> r2"),
        (other_host(current=hosts.live_manifest() | {"id": "r3"}), "serving release: r1 -> r3"),
        (other_host(containers=containers(status="exited")), "containers: backend-blue: "),
        (other_host(containers=containers(spec="x")), "containers: backend-blue: "),
        (other_host(dynamic="x"), "routes: "),
        (other_host(secrets={"backend-old"}), "secrets: backend-old is there now"),
        (other_host(marked={"r0": "bad"}), "releases marked as bad: r0 is there now"),
        (
            hosts.serving(migrations={**hosts.APPLIED, "20250101000000": True}),
            "migrations: 20250101000000 is there now",
        ),
        (
            replace(hosts.serving(), machine=replace(hosts.serving().machine, files={})),
            "files of the machine: ",
        ),
    ],
)
def test_a_host_that_changed_since_is_told_part_by_part(now: hosts.Hosts, told: str) -> None:
    before = hosts.plan(hosts.serving(), TUNED)
    found = given.stale(before, hosts.plan(now, TUNED, images=before.release.images))
    assert any(p.where == "the host changed since" and p.what.startswith(told) for p in found), (
        found
    )


def test_a_checkout_that_renders_something_else_is_told_by_its_files() -> None:
    before = hosts.plan(hosts.serving(), TUNED)
    other = project.settings(swap=None, postgres_settings={"work_mem": "7MB"})
    [found] = given.stale(before, hosts.plan(hosts.serving(), other, images=before.release.images))
    assert found.where == "this checkout"
    assert "renders compose.yaml, postgres/postgresql.conf otherwise" in found.what
    machine = project.settings(
        swap=None, postgres_settings={"work_mem": "6MB"}, extra_packages=["htop"]
    )
    [found] = given.stale(
        before, hosts.plan(hosts.serving(), machine, images=before.release.images)
    )
    assert "asks for other packages, files or settings of the machine" in found.what
    tag = project.settings(swap=None, postgres_settings={"work_mem": "6MB"}, backend_image=NEW)
    [found] = given.stale(before, hosts.plan(hosts.serving(), tag, images=before.release.images))
    assert found.what.startswith(f"asks for {NEW}, and the plan for {TUNED.backend_image};")
    told = given.stale(
        before, hosts.plan(hosts.serving(), TUNED, OTHER_SECRET, images=before.release.images)
    )
    assert ".env.production" in {problem.where for problem in told}


# --- in the course of one run --------------------------------------------------------------------


def test_what_a_run_changes_itself_until_it_pushes_is_not_somebody_elses() -> None:
    host = hosts.serving()
    plan = hosts.plan(host, secrets=OTHER_SECRET)
    own = plan.release.secrets
    later = replace(
        host.stack,
        secrets={*host.stack.secrets, *own.values()},
        # The engine was restarted: what is healthy has to be found out again.
        containers={n: replace(c, health="starting") for n, c in host.stack.containers.items()},
    )
    assert seen.differences(plan.seen, seen.stack_facets(later, hosts.APPLIED), own) == []
    assert seen.differences(plan.seen, seen.stack_facets(later, None), own) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"candidate": hosts.live_manifest() | {"id": "r9"}}, "pushed release: none -> r9"),
        ({"secrets": {"theirs"}}, "secrets: theirs is there now"),
        ({"containers": {}}, "containers: backend-blue: "),
        ({"dynamic": "x"}, "routes: "),
    ],
)
def test_what_somebody_else_changes_meanwhile_is_named(changes: dict[str, Any], told: str) -> None:
    host = hosts.serving()
    plan = hosts.plan(host, TUNED)
    now = seen.stack_facets(replace(host.stack, **changes), hosts.APPLIED)
    found = seen.differences(plan.seen, now, plan.release.secrets)
    assert any(line.startswith(told) for line in found), found


def test_secrets_of_a_plan_are_directories_and_no_values() -> None:
    plan = hosts.plan(hosts.serving())
    assert plan.release.secrets == secret_directories(project.sets(BASE))
    assert json.loads(plan.model_dump_json())["release"]["secrets"] == plan.release.secrets


def test_details_are_empty_where_nothing_was_read() -> None:
    assert Details().migrations is None


def test_the_timers_and_the_key_of_the_backups_are_part_of_it() -> None:
    later = project.settings(swap=None, backup_schedule=["04:45"])
    plan = hosts.plan(hosts.serving(), later)
    assert plan.duration.kind == ("machine",)
    assert plan.machine.does == ("backups and drills are scheduled",)
    [timer] = [file for file in plan.files if file.action == "changed"]
    assert "04:45" in timer.diff
    other = Secrets({**project.SECRETS.values, "BACKUP_PASSWORD": "e" * 64})
    plan = hosts.plan(hosts.serving(), secrets=other)
    [password] = plan.files
    assert password.path.endswith("/data/backup/password")
    assert "e" * 64 not in plan.model_dump_json()
