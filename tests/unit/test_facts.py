"""What a host tells about itself: every line is understood, or it is an error."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from koprogo_deploy.accounts import Account
from koprogo_deploy.facts import host, stack
from koprogo_deploy.facts.releases import Releases
from koprogo_deploy.units import GB, MB

HOST = [
    "os\tdebian\t13",
    "arch\tx86_64",
    f"memtotal\t{4 * GB}",
    "limit\tmax",
    f"limit\t{2 * GB}",
    "limit\t9223372036854771712",
    f"disk\t{20 * GB}\t{15 * GB}",
    f"images\t{9 * GB}",
    f"database\t{70 * MB}\t{8 * GB}",
    "clock\t1767225600",
    "swap\t/swapfile ",
    "timezone\t/usr/share/zoneinfo/Europe/Brussels",
    "lists\t/var/lib/apt/lists/deb_Packages",
    "pgversion\t17",
    "file\t/etc/x\tabc\t644\troot:root",
    "package\tcurl",
    "sysctl\tvm.swappiness\t10",
    "sysctl\tnet.ipv4.ip_local_port_range\t1024\t65535",
    "unit\tdocker.service\tactive enabled",
    "account\tanna\tmanaged\t1\tremains",
    "account\tbert\tmarked\t\t",
    "account\tdebian\tforeign\t\t",
    "connected\tdebian\t2",
    "loose\t/srv/anna",
    "login\tdora",
    "match\t/etc/ssh/authorized_keys.d/bert",
]


def test_the_hosts_clock_is_told_last_and_compared_with_ours_as_it_comes() -> None:
    asked = str(host.Host().command(files=("/etc/x",), packages=("curl",), patterns=("/etc/*",)))
    assert asked.splitlines()[-1].startswith("printf 'clock")
    state = host.Host().process([*HOST, f"clock\t{int(time.time())}"])
    assert abs(state.read - state.clock) < 60


def test_the_host_is_read_line_by_line() -> None:
    state = host.parse(HOST)
    assert (state.os, state.os_version, state.architecture) == ("debian", "13", "x86_64")
    assert (state.disk_size, state.disk_free) == (20 * GB, 9 * GB), "where images lie"
    assert (state.database, state.data_free) == (70 * MB, 8 * GB)
    assert state.clock == 1_767_225_600
    assert state.swap == "/swapfile"
    assert state.timezone == "Europe/Brussels"
    assert state.apt_lists_fresh
    assert state.postgres_version == "17"
    assert state.files == {"/etc/x": "abc 644 root:root"}
    assert state.packages == {"curl"}
    assert state.other_logins == ["dora"]
    assert state.sysctl == {"vm.swappiness": "10", "net.ipv4.ip_local_port_range": "1024 65535"}
    assert state.units == {"docker.service": "active enabled"}
    assert state.accounts == {
        "anna": Account(managed=True, locked=True, remains=True),
        "bert": Account(marked=True),
        "debian": Account(),
    }
    assert state.loose == ["/srv/anna"]
    assert (state.connected, state.own_keys) == ("debian", 2)
    assert state.matches == {"/etc/ssh/authorized_keys.d/bert"}


def test_memory_is_the_smallest_limit_around_the_system() -> None:
    assert host.parse(HOST).memory == 2 * GB
    assert host.parse([f"memtotal\t{4 * GB}"]).memory == 4 * GB


def test_a_line_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="unexpected output of the host fact: 'what'"):
        host.parse([*HOST, "what"])
    with pytest.raises(ValueError, match="unexpected output of the stack fact: 'what'"):
        stack.parse_stack(["what"])


def test_names_with_shell_characters_are_quoted() -> None:
    command = host.Host().command(files=("/a b;rm",), users=("$x",)).get_raw_value()
    assert "'/a b;rm'" in command
    assert "listed=' $x '" in command


def test_the_hosts_script_is_shell_and_its_output_is_understood() -> None:
    """The real script on this machine, whatever it is."""
    command = host.Host().command(files=("/etc/passwd",), users=("root", "nobody-here"))
    script = command.get_raw_value()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    state = host.parse(done.stdout.splitlines())
    assert state.memory > 64 * MB
    assert state.accounts == {"root": Account()}
    assert state.connected
    assert state.files["/etc/passwd"].endswith(" 644 root:root")


def container(**changes: str) -> dict[str, str]:
    whole = {"id": "1", "service": "backend-blue", "spec": "s", "status": "running"}
    return whole | {"health": "healthy", "started": "t"} | changes


def test_the_stack_is_read_line_by_line() -> None:
    state = stack.parse_stack(
        [
            'current\t{"id": "r1"}',
            'candidate\t{"id": "r2"}',
            "migrations\tr2\t1_a.sql 2_b.sql ",
            "releases\tr2 r1 ",
            "config\ttraefik-1 postgres-1 ",
            "secrets\tbackend-1 ",
            "dynamic\tabc",
            "unit\tactive",
            "docker\tyes",
            f"container\t{json.dumps(container())}",
        ]
    )
    assert state.docker
    assert (state.current, state.candidate) == ({"id": "r1"}, {"id": "r2"})
    assert state.target == {"id": "r2"}
    assert state.releases == ["r1", "r2"]
    assert state.config == {"traefik-1", "postgres-1"}
    assert state.secrets == {"backend-1"}
    assert state.migrations == {"r2": ["1_a.sql", "2_b.sql"]}
    assert (state.dynamic, state.binary_unit) == ("abc", "active")
    assert state.containers["backend-blue"].serving


def test_an_empty_host_has_nothing() -> None:
    state = stack.parse_stack(["unit\tinactive"])
    assert not state.docker
    assert state.target is None
    assert state.live is None
    assert state.releases == []


def test_a_run_that_was_cut_after_the_switch_has_switched() -> None:
    state = stack.StackState(current={"dynamic": "old"}, candidate={"dynamic": "new"})
    state.dynamic = "old"
    assert state.live == state.current
    state.dynamic = "new"
    assert state.live == state.candidate


@pytest.mark.parametrize(
    ("changes", "serving"),
    [
        ({}, True),
        ({"health": ""}, True),
        ({"health": "starting"}, False),
        ({"health": "unhealthy"}, False),
        ({"status": "exited"}, False),
        ({"status": "restarting", "health": ""}, False),
    ],
)
def test_a_container_serves_when_it_runs_and_is_healthy(
    changes: dict[str, str], serving: bool
) -> None:
    assert stack.Container(**container(**changes)).serving == serving


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "as_the_engine_writes_it"),
    [
        ("docker.io/library/traefik:v3.7.15", "traefik"),
        ("docker.io/grafana/grafana:1", "grafana/grafana"),
        ("ghcr.io/gilmry/koprogo/backend:main-1", "ghcr.io/gilmry/koprogo/backend"),
        ("registry.test:5000/koprogo/backend:1", "registry.test:5000/koprogo/backend"),
        (f"ghcr.io/a/b@{DIGEST}", "ghcr.io/a/b"),
        (f"ghcr.io/a/b:1@{DIGEST}", "ghcr.io/a/b"),
    ],
)
def test_repositories_are_compared_as_the_engine_writes_them(
    reference: str, as_the_engine_writes_it: str
) -> None:
    assert stack.repository(reference) == as_the_engine_writes_it
    assert stack.same_repository(reference, f"{as_the_engine_writes_it}@{DIGEST}")
    assert not stack.same_repository(reference, f"other/image@{DIGEST}")


def test_an_image_keeps_the_digest_of_the_repository_that_was_asked_for() -> None:
    asked = "docker.io/library/traefik:v3.7.15"
    mirrored = json.dumps([f"mirror.test/traefik@{DIGEST}", f"traefik@{DIGEST}"])
    fact = stack.ImageDigests()
    assert fact.process([f"{asked}\t{mirrored}", "ghcr.io/a/b:1\t", "ghcr.io/a/c:1\t[]"]) == {
        asked: f"docker.io/library/traefik@{DIGEST}"
    }


def test_a_database_that_does_not_answer_is_an_empty_object() -> None:
    assert stack.Database().process([]) == stack.Database.default() == {}
    assert stack.Database().process(['{"guard":', " null}"]) == {"guard": None}


@pytest.mark.parametrize(
    ("engine", "found", "asked"),
    [
        ("echo '{\"a\": 1}'", {"a": 1}, 1),
        ("[ $(wc -l < calls) = 2 ] && echo '{}' || { echo OCI failed; exit 126; }", {}, 2),
        ("echo OCI failed; exit 126", {}, 3),
        ("echo '{\"cut\":'; exit 2", {}, 1),
        ("exit 1", {}, 1),
    ],
)
def test_only_what_the_database_said_is_its_answer(
    tmp_path: Path, engine: str, found: dict[str, int], asked: int
) -> None:
    """An engine that cannot start psql says so on standard output, and can the next time."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho >> calls\n{engine}\n")
    docker.chmod(0o755)
    fact = stack.Database()
    done = subprocess.run(
        ["sh", "-c", fact.command("SELECT 1").get_raw_value()],
        cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert fact.process(done.stdout.splitlines()) == found
    assert len((tmp_path / "calls").read_text().splitlines()) == asked


def test_a_manifest_that_a_loss_of_power_emptied_is_told_and_no_traceback() -> None:
    """As serving release it stops whatever would take the host for an empty one."""
    found = stack.parse_stack(
        ["current\t", 'candidate\t{"id": "r2", "ha', "served\tr1", "bad\tr1\th"]
    )
    assert (found.unreadable, found.current, found.candidate) == (True, None, None)
    assert (found.served, found.marked["r1"]) == ({}, "marked, and the reason was lost")
    assert set(found.bad) == {"h"}
    pushed = stack.parse_stack(['current\t{"id": "r1"}', "candidate\t"])
    assert (pushed.unreadable, pushed.candidate) == (False, None), "it is pushed again"
    assert not stack.parse_stack([]).unreadable
    assert list(Releases().process(["1_a.sql\t", '1_a.sql\t{"id": "r1"}'])) == ["r1"]


def test_what_a_killed_dump_left_is_no_dump() -> None:
    found = stack.parse_stack(["dumps\tr1.dump r1.json r2.dump.part "])
    assert (found.dumps, found.torn_dumps) == (["r1"], ["r2.dump.part"])


def test_postgres_version_is_read_from_a_file_alone(tmp_path: Path) -> None:
    """The server owns its directory: a link there showed a file of root's, a pipe held us up."""
    lines = host._SCRIPT.splitlines()
    begin = next(n for n, line in enumerate(lines) if "PG_VERSION" in line)
    (tmp_path / "secret").write_text("1.2 of the host")
    version = tmp_path / "PG_VERSION"

    def said() -> str:
        script = "\n".join([f"data={tmp_path}", *lines[begin:]])
        return subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=False, timeout=10
        ).stdout

    assert said() == ""
    version.symlink_to("secret")
    assert said() == ""
    version.unlink()
    os.mkfifo(version)
    assert said() == ""
    version.unlink()
    version.write_text("17\n")
    assert said() == "pgversion\t17\n"
    version.write_text("17\x1b]52;;\nclock\t1")
    assert said() == "pgversion\t1752\n"


def test_a_folder_that_others_may_write_in_is_found_whatever_lies_below(tmp_path: Path) -> None:
    root = tmp_path / "loose" / "a" / "koprogo"
    root.parent.mkdir(parents=True)
    (tmp_path / "loose").chmod(0o775)
    root.parent.chmod(0o757)
    script = host.Host().command(root=str(root)).get_raw_value()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    found = host.parse(done.stdout.splitlines()).loose
    assert found[:2] == [str(root.parent), str(tmp_path / "loose")]
    assert str(root) not in found, "it is not there yet"
    script = host.Host().command(root="/opt/koprogo").get_raw_value()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert host.parse(done.stdout.splitlines()).loose == []
