"""What the stages decide, without a host: which release, which colour, what is missing."""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import accounts, files
from koprogo_deploy import machine as on_machine
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.facts.releases import Image
from koprogo_deploy.facts.stack import Container, StackState
from koprogo_deploy.files import RemoteFile
from koprogo_deploy.operations import (
    host,
    rehearse,
    release,
    routes,
    settle,
    shell,
)
from koprogo_deploy.plan import host as acceptable
from koprogo_deploy.plan.services import old_containers
from koprogo_deploy.plan.wanted import Wanted, known_digests, to_pull, wanted_release
from koprogo_deploy.problems import Problem
from koprogo_deploy.render import Release, container_names
from koprogo_deploy.settings import Settings
from koprogo_deploy.units import GB, MB
from tests import project

BASE = project.settings()
DIGEST = "@sha256:" + "d" * 64
NOW = 1_767_225_600
NEEDS = {"to stay free": 500 * MB, "backend image, size unknown": 600 * MB}


def manifest(rendered: Release, settings: Settings = BASE, **more: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "hash": rendered.hash,
        "specs": rendered.specs,
        "colours": rendered.colours,
        "images": rendered.images,
        "dynamic": "d1",
        "requested": {s: settings.image(s) for s in rendered.images},
        **more,
    }


def wanted(settings: Settings, state: StackState) -> Wanted:
    environment = Environment(settings, project.SECRETS, "host", {})
    images = project.digests(settings)
    return wanted_release(environment, project.sets(settings), images, state)


# --- release -------------------------------------------------------------------------------------


def test_a_first_release_is_blue() -> None:
    first = wanted(BASE, StackState())
    assert first.exists == ""
    assert set(first.release.colours.values()) == {"blue"}


def test_nothing_changed_is_the_release_that_is_there() -> None:
    live = manifest(project.release(BASE, backend="green"))
    assert wanted(BASE, StackState(current=live)).exists == "current"


def test_a_changed_backend_takes_the_other_colour_and_the_frontend_stays() -> None:
    state = StackState(current=manifest(project.release(BASE)))
    found = wanted(project.settings(backend_memory="129MB"), state)
    assert found.exists == ""
    assert found.release.colours == {"backend": "green", "frontend": "blue"}


def test_a_release_that_an_earlier_run_left_unfinished_is_found_again() -> None:
    changed = project.settings(backend_memory="129MB")
    old = manifest(project.release(BASE))
    new = manifest(project.release(changed, backend="green"), id="r2", dynamic="d2")
    state = StackState(current=old, candidate=new, dynamic="d1")
    assert wanted(changed, state).exists == "candidate"
    assert wanted(BASE, state).exists == "current", "group data was taken back meanwhile"


def test_a_run_cut_after_the_switch_goes_on_with_what_serves() -> None:
    changed = project.settings(backend_memory="129MB")
    old = manifest(project.release(BASE))
    new = manifest(project.release(changed, backend="green"), id="r2", dynamic="d2")
    state = StackState(current=old, candidate=new, dynamic="d2")
    found = wanted(project.settings(backend_memory="130MB"), state)
    assert found.release.colours["backend"] == "blue", "green serves now"


def test_a_tag_is_resolved_once_and_stands_until_another_is_asked() -> None:
    live = manifest(project.release(BASE))
    state = StackState(current=live)
    assert known_digests(BASE, StackState()) == {}
    assert known_digests(BASE, state) == live["images"]
    other = project.settings(backend_image="ghcr.io/gilmry/koprogo/backend:main-2")
    assert set(known_digests(other, state)) == {"traefik", "postgres", "frontend"}


def test_a_digest_in_group_data_is_taken_at_its_word() -> None:
    settings = project.settings(backend_image=f"ghcr.io/gilmry/koprogo/backend:main-2{DIGEST}")
    found = known_digests(settings, StackState())
    assert found == {"backend": f"ghcr.io/gilmry/koprogo/backend{DIGEST}"}


def test_configuration_lies_in_directories_named_by_content() -> None:
    before = release.config_directories(project.release(BASE))
    changed = project.settings(postgres_settings={"work_mem": "5MB"})
    after = release.config_directories(project.release(changed))
    assert {service for service in before if before[service] != after[service]} == {"postgres"}
    other = release.config_directories(project.release(project.settings(api_domain="a.koprogo.be")))
    assert other["frontend"] != before["frontend"]
    old = project.release(BASE)
    del old.definitions["frontend"]["volumes"]
    assert set(release.config_directories(old)) == {"traefik", "postgres", "backend"}
    assert all(name.startswith(f"{service}-") for service, name in before.items())


def test_one_image_that_cannot_be_pulled_fails_the_pull_and_is_named(tmp_path: Path) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\ncase $3 in good*) exit 0;; *) exit 1;; esac\n")
    fake.chmod(0o755)
    for images, code in ((["good:1", "good:2"], 0), (["good:1", "bad:1"], 1)):
        done = subprocess.run(
            ["sh", "-c", release.pull_command(images, 1)],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert ("cannot pull bad:1" in done.stderr) == bool(code)


def test_an_image_that_takes_too_long_is_given_up_and_the_number_is_told(tmp_path: Path) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\nexec sleep 5\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", release.pull_command(["slow:1"], 1)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=4,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot pull slow:1: not there after 1 s" in done.stderr


@pytest.mark.parametrize(("needed", "code"), [(1 * MB, 0), (1 << 60, 1)])
def test_too_little_room_is_told_in_numbers(tmp_path: Path, needed: int, code: int) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{release.room(str(tmp_path), needed)}; echo enough"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "" if code else "enough\n")
    if code:
        assert re.search(rf"no room in {tmp_path}: \d+ kB free, and \d+ kB needed", done.stderr)


def test_a_release_is_on_the_disk_before_it_has_its_name() -> None:
    command = release.push_command("/opt/koprogo", "r1", project.release(BASE), 600)
    written = command.index("find $new -depth -exec sync {} +")
    assert command.index("config -q") < written < command.index("mv -T $new releases/r1; sync")
    assert command.index("mv -T $new") < command.index("mv -T candidate.new candidate; sync .")
    for mounted in ("traefik", "postgres", "backend", "frontend"):
        incoming = f"config/.incoming-{mounted}"
        synced = command.index(f"find {incoming} -depth -exec sync")
        assert command.index(f"mkdir {incoming}") < synced < command.index(f"mv -T {incoming}")


def test_commands_are_shell_that_parses() -> None:
    rendered = project.release(BASE)
    commands = [
        release.push_command("/opt/koprogo", "r1", rendered, 600),
        release.pull_command(["a b", "c'd"], 600),
        routes.read_back(BASE, rendered.colours),
        routes.place_dynamic("/opt/koprogo", "/opt/koprogo/releases/r1"),
        settle.prune_command("/opt/koprogo", ["r1"]),
        settle.prune_dumps_command("/opt/koprogo", ["r1"]),
        shell.stop("backend-blue", "frontend-blue", remove=True),
        routes.back_command(BASE, manifest(rendered), manifest(rendered, id="r2"), "it's bad"),
        routes.warm_command(
            manifest(rendered), manifest(project.release(BASE, backend="green", frontend="green"))
        ),
        settle.remove_images_command(["a b", "c'd"]),
        shell.wait_until_healthy("backend-blue", 90),
        host.swap_command(1 * GB),
        host.place_sshd_command(accounts.SSHD_FILE),
        accounts.leave_command("anna"),
        accounts.return_command("anna"),
        accounts.make_command("anna"),
        host.install_command(["curl"], lists_fresh=False),
        rendered.files["backend/start.sh"],
    ]
    for command in commands:
        done = subprocess.run(["sh", "-n"], input=command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command


# --- cut over ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("releases", "current", "kept", "gone"),
    [
        (["r1", "r2", "r3"], "r3", 5, []),
        (["r1", "r2", "r3"], "r3", 2, ["r1"]),
        (["r1", "r2", "r3", "r4"], "r1", 2, ["r2", "r3"]),
        ([".incoming-r4", "r1", "r2"], "r2", 2, []),
        (["r1"], "r1", 2, []),
    ],
)
def test_the_oldest_releases_go_and_the_current_one_never(
    releases: list[str], current: str, kept: int, gone: list[str]
) -> None:
    assert settle.unused(releases, current, kept) == gone


def test_the_way_back_is_kept_whatever_failed_since() -> None:
    releases = ["r1", "r2", "r3", "r4", "r5"]
    assert settle.unused(releases, "r5", 2, before="r1") == ["r2", "r3", "r4"]
    state = StackState(served={"r1": 1.0, "r2": 3.0, "r3": 2.0, "r5": 9.0}, marked={"r2": "bad"})
    assert settle.before(state, {"id": "r5"}) == "r3"
    assert settle.before(StackState(), {"id": "r5"}) == ""


def image(*names: str) -> Image:
    return Image(names, 100 * MB)


def test_images_that_no_kept_release_names_go_and_nobody_elses() -> None:
    old, new = (
        {"images": {"backend": f"r.test:5000/k/backend@sha256:{d}"}, "requested": {"backend": t}}
        for d, t in (("old", "r.test:5000/k/backend:1"), ("new", "r.test:5000/k/backend:2"))
    )
    images = [
        image("r.test:5000/k/backend:1", "r.test:5000/k/backend@sha256:old", "mine:kept"),
        image("r.test:5000/k/backend:2", "r.test:5000/k/backend@sha256:new"),
        image("r.test:5000/k/backend@sha256:pulled-and-never-used"),
        image("r.test:5000/k/backend-tools:1"),
        image("elsewhere/k/backend:1", "elsewhere/k/backend@sha256:old"),
    ]
    assert settle.unused_images(images, [new], [old, new]) == [
        "r.test:5000/k/backend:1",
        "r.test:5000/k/backend@sha256:old",
        "r.test:5000/k/backend@sha256:pulled-and-never-used",
    ]
    assert settle.unused_images(images, [], []) == []


def test_an_image_without_its_registry_in_the_engines_own_words_is_the_same() -> None:
    about = {
        "images": {"traefik": "docker.io/library/traefik@sha256:a"},
        "requested": {"traefik": "docker.io/library/traefik:v3"},
    }
    images = [image("traefik:v3", "traefik@sha256:a"), image("traefik:v2", "traefik@sha256:b")]
    assert settle.unused_images(images, [about], [about]) == ["traefik:v2", "traefik@sha256:b"]


def test_the_old_colours_are_what_the_release_does_not_have() -> None:
    names = ("backend-blue", "backend-green", "frontend-blue", "postgres", "traefik")
    containers = dict.fromkeys(names, None)
    live = manifest(project.release(BASE, backend="green"))
    assert old_containers(containers, live["colours"]) == ["backend-blue"]


def running(release: Release, **health: str) -> dict[str, Container]:
    """Containers of a release by Compose service, healthy but for those that are named."""
    return {
        name: Container("0", name, release.specs[service], "running", health.get(service, ""), "")
        for service, name in container_names(release.colours).items()
    }


def test_what_requests_go_to_counts() -> None:
    live = project.release(BASE)
    assert (
        settle.does_not_serve(StackState(dynamic="d1", containers=running(live)), manifest(live))
        == ""
    )


def test_a_candidate_that_never_served_does_not_count_whatever_of_it_runs() -> None:
    """A run was cut before the switch, and the stage is asked for alone."""
    serving, pushed = project.release(BASE), project.release(BASE, backend="green")
    both = {**running(serving), **running(pushed)}
    state = StackState(dynamic="d1", containers=both)
    candidate = manifest(pushed, id="r2", dynamic="d2")
    assert settle.does_not_serve(state, candidate) == "requests do not go to it"


def test_a_release_with_another_postgres_does_not_count_by_its_routes_alone() -> None:
    serving = project.release(BASE)
    other = manifest(serving, id="r2", specs={**serving.specs, "postgres": "another"})
    state = StackState(dynamic="d1", containers=running(serving))
    assert settle.does_not_serve(state, other) == "another postgres runs than it says"
    ill = StackState(dynamic="d1", containers=running(serving, backend="unhealthy"))
    assert settle.does_not_serve(ill, manifest(serving)) == "its backend is running, unhealthy"
    gone = StackState(dynamic="d1", containers={})
    assert settle.does_not_serve(gone, manifest(serving)) == "its traefik has no container"


# --- preflight -----------------------------------------------------------------------------------


def machine(**changes: Any) -> HostState:
    return HostState(
        **{
            "os": "debian",
            "os_version": "13",
            "memory": 2 * GB,
            "disk_free": 10 * GB,
            "clock": NOW + 3,
            **changes,
        }
    )


def refusals(state: HostState, upgrading: bool = False) -> list[Problem]:
    on_host = acceptable.host_problems(state, BASE, NOW, NEEDS)
    return on_host + acceptable.data_problems(BASE, state, StackState(), upgrading)


def test_a_fitting_host_is_accepted() -> None:
    assert refusals(machine()) == []
    assert refusals(machine(postgres_version="17")) == []
    assert refusals(machine(postgres_version="15"), upgrading=True) == []
    assert refusals(machine(os="ubuntu", os_version="24.04")) == []


@pytest.mark.parametrize(
    ("changes", "where", "what", "fix"),
    [
        ({"os_version": "12"}, "operating system", "debian 12", "debian 13, ubuntu 24.04"),
        (
            {"memory": 1 * GB},
            "memory",
            "the budget needs 1 888 MB and the machine has 1 024 MB: 864 MB too much. "
            "The largest line is postgres (512 MB)",
            "lower a limit in group data, or take a bigger VPS",
        ),
        (
            {"disk_free": 100 * MB},
            "disk",
            "100 MB free, and 1 100 MB needed: 500 MB to stay free, 600 MB backend image, size "
            "unknown",
            "make room: journalctl --vacuum-size=100M, docker image ls, a lower releases_kept",
        ),
        (
            {"clock": NOW - 3600},
            "clock",
            "3600 s away from this machine's",
            "timedatectl on the host; certificates and tokens depend on the clock",
        ),
        (
            {"postgres_version": "16"},
            "postgres_major",
            "the data is of Postgres 16, the image of 17",
            "pyinfra inventories/production.py deploys/postgres_upgrade.py takes it along; until "
            "then write postgres_image and postgres_major of 16",
        ),
    ],
)
def test_a_host_that_does_not_fit_is_told_why(
    changes: dict[str, Any], where: str, what: str, fix: str
) -> None:
    problems = refusals(machine(**changes))
    assert [(p.where, p.what, p.fix) for p in problems] == [(where, what, fix)]


def test_disk_needs_are_counted_by_what_is_to_come() -> None:
    live = manifest(project.release(BASE))
    state = StackState(docker=True, current=live)
    same = acceptable.disk_needs(BASE, machine(), state, [])
    assert same == {"to stay free": 500 * MB, "the release": MB}
    other = project.settings(backend_image="ghcr.io/gilmry/koprogo/backend:main-2")
    known = [Image((live["images"]["backend"],), 200 * MB)]
    more = acceptable.disk_needs(other, machine(database=70 * MB), state, known)
    assert more["backend image, sized as the present one"] == 300 * MB
    assert more["a copy of the database"] == more["a dump of it, at most"] == 70 * MB
    first = acceptable.disk_needs(BASE, machine(), StackState(), [])
    assert first["Docker Engine"] == first["traefik image, size unknown"] == 600 * MB
    digest = project.settings(backend_image=f"ghcr.io/gilmry/koprogo/backend:main-2{DIGEST}")
    assert to_pull(digest, state) == ["backend"], "not there yet, by its digest"


def test_a_real_migration_needs_what_its_rehearsal_grew_by_and_its_wal() -> None:
    needs = rehearse.migration_needs(60 * MB)
    assert acceptable.no_room(184 * MB, needs) == ""
    assert acceptable.no_room(183 * MB, needs) == (
        "183 MB free, and 184 MB needed: 64 MB to stay free, 60 MB what the migrations add, "
        "60 MB as much again in WAL"
    )
    assert acceptable.no_room(64 * MB, rehearse.migration_needs(0)) == "", "an index less, say"


def test_a_disk_with_next_to_no_room_is_told_once_and_one_with_room_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["Filesystem 1024-blocks Used Available Capacity Mounted-on"]
    lines += ["/dev/a 20480000 20400000 2048 99% /", "/dev/a 20480000 20400000 2048 99% /"]
    lines += ["/dev/b 20480000 1000 204800 1% /var/lib/docker"]
    df = tmp_path / "df"
    df.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\nexit 1\n")
    df.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = f"set -e\n{shell.little_room()}\necho went on"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "went on\n"
    assert done.stderr == "    no room: 2 MB free of 20000 MB on the disk at /\n"


def test_everything_about_a_host_is_told_at_once() -> None:
    state = machine(os="arch", memory=MB, disk_free=0, clock=0, postgres_version="9.6")
    assert len(refusals(state)) == 5
    (loose,) = refusals(machine(loose=["/srv/anna"]))
    assert loose.where == "install_root"
    assert "chown root:root /srv/anna" in loose.fix


# --- host, engine, files -------------------------------------------------------------------------


def test_packages_come_in_one_run_and_lists_are_fetched_when_old() -> None:
    state = HostState(packages={"curl"})
    assert host.missing_packages(["curl", "procps"], state) == ["procps"]
    fresh = host.install_command(["a", "b"], lists_fresh=True)
    assert fresh.count("apt-get") == 1
    assert shlex.split(fresh)[-5:] == ["install", "--no-install-recommends", "--", "a", "b"]
    stale = host.install_command(["a"], lists_fresh=False)
    assert " update && " in stale
    assert stale.startswith("DEBIAN_FRONTEND=noninteractive apt-get")


def test_packages_follow_the_settings() -> None:
    assert "unattended-upgrades" in on_machine.packages(BASE)
    assert "unattended-upgrades" not in on_machine.packages(
        project.settings(unattended_upgrades=False)
    )
    assert "htop" in on_machine.packages(project.settings(extra_packages=["htop"]))


def test_an_account_comes_with_its_keys_and_sudo() -> None:
    settings = project.settings(admin_users={"anna": [f"{project.KEY} anna"]})
    found = {file.path: file for file in on_machine.host_files(settings)}
    assert found["/etc/sudoers.d/60-koprogo-anna"].mode == "440"
    assert found["/etc/ssh/koprogo-keys.d/anna"].content == f"{project.KEY} anna\n"


def test_every_supported_system_has_an_engine() -> None:
    for system, names in on_machine.ENGINE_PACKAGES.items():
        assert "docker.io" in names, system
        assert any("compose" in name for name in names), system


def test_only_files_that_differ_are_pushed() -> None:
    same, other, gone = (RemoteFile(f"/etc/{n}", n) for n in ("same", "other", "gone"))
    found = {"/etc/same": same.state, "/etc/other": f"{'0' * 64} 644 root:root"}
    assert files.differing([same, other, gone], found) == [other, gone]
    wider = RemoteFile("/etc/same", "same", "600")
    assert files.differing([wider], found) == [wider], "a mode is a difference too"


def test_an_archive_unpacks_to_the_same_files_with_their_modes(tmp_path: Path) -> None:
    pushed = [RemoteFile("/etc/a", "é\n", "640", 999), RemoteFile("b/c", "x" * 100_000, "755")]
    packed = files.archive(pushed)
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as tar:
        members = {member.name: member for member in tar}
        tar.extractall(tmp_path, filter="data")
    assert {name: (m.mode, m.uid) for name, m in members.items()} == {
        "etc/a": (0o640, 999),
        "b/c": (0o755, 0),
    }
    assert (tmp_path / "etc/a").read_text() == "é\n"
    assert (tmp_path / "b/c").read_text() == "x" * 100_000
    assert "--same-owner -C /x" in files.unpack_command("/x")
