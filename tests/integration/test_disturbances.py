"""What is wrong around a deploy: a full disk, the clock, name server and registry.

Each is refused, or fails with the numbers; the site serves all the while, nothing is left behind,
and when it is over the same deploy goes through.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy.operations.release import ROOM
from koprogo_deploy.operations.shell import container
from koprogo_deploy.render import container_names
from sandbox import registry
from tests.integration.images import new_backend
from tests.integration.rig import PSQL, Rig, Watch, instead_of
from tests.integration.rig import ROOT as PROJECT
from tests.integration.traffic import Stream, Traffic, told, where

ROOT = "/opt/koprogo"
KOPROGO = str(Path(sys.executable).with_name("koprogo"))
VERSION = 29990101000000  # no image of group data's has it


@pytest.fixture(scope="module")
def serving(rig: Rig) -> Iterator[Rig]:
    """The rig; group data's release serves in the end."""
    yield rig
    rig.converge()
    assert rig.leftovers() == []


def refused(
    rig: Rig, data: dict[str, Any], *words: str, never: str = "Starting operation: Migrate"
) -> str:
    """A deploy that ends with 1 and these words, and leaves everything as it was.

    Args:
        rig: where.
        data: what is asked for.
        words: patterns of what is said.
        never: what is not said, since it does not get so far.
    """
    before, started = rig.manifest()["id"], rig.started()
    with Watch(rig) as watch:
        run = rig.deploy(**data)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    for word in words:
        assert re.search(word, run.output), f"no {word!r} in\n{run.output}"
    assert never not in run.output
    assert watch.failures == []
    assert rig.manifest()["id"] == before
    assert rig.started() == started
    return run.output


def goes_through(rig: Rig, data: dict[str, Any]) -> None:
    """The same deploy, now that it can."""
    with Watch(rig) as watch:
        run = rig.deploy(**data)
    assert run.code == 0, run.output
    assert watch.failures == []
    assert rig.leftovers() == []


def other(rig: Rig) -> dict[str, Any]:
    """Values that ask for another release than the serving one, of the same images."""
    now = rig.manifest()["values"].get("backend_log_level")
    return {"backend_log_level": "error"} if now != "error" else {}


# --- the disk ------------------------------------------------------------------------------------


@contextmanager
def small_disk(rig: Rig, directory: str, options: str, prepare: str = "true") -> Iterator[None]:
    """A small file system of its own in a directory's place; the old one comes back untouched."""
    rig.on_host(
        f"set -e; mkdir -p /run/small; mount -t tmpfs -o {options} small /run/small; "
        f"{prepare}; mount --bind /run/small {directory}"
    )
    try:
        yield
    finally:
        rig.on_host(f"umount -l {directory}; umount -l /run/small; rmdir /run/small")


# The box shares the machine's disk, which is not to be filled: its `df` sees a small file system in
# the place of the images'.
SMALL_DF = """\
exec unshare -m sh -c 'mount -t tmpfs -o size=100m small /var/lib/docker && exec /usr/bin/df "$@"' \
  df "$@"
"""


def test_a_disk_that_is_full_before_the_release_is_told_in_numbers(serving: Rig) -> None:
    data = other(serving)
    with instead_of(serving, "df", SMALL_DF):
        told = refused(
            serving, data, r"disk", r"100 MB free, and \d+ MB needed: \d+ MB to stay free"
        )
        plan = subprocess.run(
            [KOPROGO, "plan", "sandbox"], cwd=PROJECT, capture_output=True, text=True, check=False
        )
    assert (plan.returncode, "a deploy would refuse: disk: 100 MB free" in plan.stdout) == (1, True)
    assert "Starting operation: Release" not in told
    goes_through(serving, data)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("bytes", rf"no room in {ROOT}: \d{{1,3}} kB free, and {ROOM // 1024} kB needed"),
        ("files", r"No space left on device"),
    ],
)
def test_a_disk_that_fills_during_the_release(serving: Rig, what: str, words: str) -> None:
    """A copy of the releases' own directory, with room for less than a release."""
    data = other(serving)
    used = int(serving.on_host(f"du -sk {ROOT}").split()[0])
    number = int(serving.on_host(f"find {ROOT} | wc -l"))
    options = f"size={used + 1024}k" if what == "bytes" else f"size=1g,nr_inodes={number + 12}"
    fill = "head -c 1G /dev/zero > /run/small/full 2>/dev/null || true"
    copy = f"cp -a {ROOT}/. /run/small/" + (f"; {fill}" if what == "bytes" else "")
    with small_disk(serving, ROOT, options, copy):
        refused(serving, data, words)
        left = serving.on_host(f"ls -d {ROOT}/releases/.[!.]* {ROOT}/candidate 2>&1; true")
        assert ".incoming" not in left, "it has taken its room back"
    goes_through(serving, data)


@pytest.mark.faults
def test_a_disk_without_room_for_the_dump_stops_a_migration_before_it(serving: Rig) -> None:
    """Nothing is migrated without a dump that can be read back."""
    migrations = {f"{VERSION}_of_a_test.sql": "CREATE TABLE of_a_test (id int);"}
    count = f"SELECT count(*) FROM _sqlx_migrations WHERE version = {VERSION};"
    with new_backend(serving.docker, serving.sandbox, migrations=migrations) as image:
        with small_disk(serving, f"{ROOT}/dumps", "size=64k", f"mkdir -p {ROOT}/dumps"):
            never = "Starting operation: Migrate | Start the backend"
            refused(serving, {"backend_image": image}, r"\d+ MB are", never=never)
            assert serving.on_host(f"find {ROOT}/dumps -type f").split() == []
        assert serving.sql(count) == "0"
    goes_through(serving, other(serving))


@pytest.mark.faults
def test_an_image_pulled_onto_a_full_disk_leaves_nothing(serving: Rig) -> None:
    """Layers come into the engine's own temporary directory first, which has no room for one."""
    incoming = "/var/lib/docker/tmp"
    with new_backend(serving.docker, serving.sandbox, size=8 * 2**20) as image:
        data = {"backend_image": image}
        with small_disk(serving, incoming, "size=1m"):
            words = (
                f"cannot pull {image.rpartition(':')[0]}@sha256:",
                "no space left on device",
                f"no room: [01] MB free of 1 MB on the disk at {incoming}",
            )
            told = refused(serving, data, *words)
            assert serving.on_host(f"find {incoming} -type f").split() == [], "room again"
            assert "Starting operation: Settle" not in told
            goes_through(serving, other(serving))
        goes_through(serving, data)


DATA = "/var/lib/docker/volumes/koprogo_postgres_data/_data"
GROWS = """
SELECT pg_sleep({seconds});
CREATE TABLE of_a_test AS
  SELECT g AS id, repeat(md5(g::text), 30) AS filler FROM generate_series(1, {thousands} * 1000) g;
"""
SLOWLY = (Stream("write", 6), Stream("write", 2, kept=False), Stream("read", 4))


@contextmanager
def small_postgres(rig: Rig, room: int) -> Iterator[None]:
    """Postgres' data on a disk of its own, with so many MB free; afterwards it is where it was.

    What was written meanwhile is not there any more.
    """
    name = container("postgres")
    rig.sql("CHECKPOINT;")
    rig.on_host(
        f"set -e; docker stop -t 30 {name}; mkdir -p /run/small; "
        f"used=$(du -sm {DATA} | cut -f1); "
        f"mount -t tmpfs -o size=$((used + {room}))m small /run/small; cp -a {DATA}/. /run/small/; "
        f"chown --reference={DATA} /run/small; chmod --reference={DATA} /run/small; "
        f"mount --bind /run/small {DATA}; docker start {name}"
    )
    try:
        healthy(rig)
        yield
    finally:
        rig.on_host(
            f"docker stop -t 30 {name}; umount -l {DATA}; umount -l /run/small; rmdir /run/small; "
            f"docker start {name}"
        )
        healthy(rig)


def healthy(rig: Rig, within: float = 90) -> None:
    """Until what serves is; a colour that failed stays stopped."""
    rig.wait_until_healthy(within, only=container_names(rig.manifest()["colours"]))


def free(rig: Rig) -> int:
    """MB on the disk of Postgres' data."""
    return int(rig.on_host(f"df -Pm {DATA} | awk 'NR == 2 {{ print $4 }}'"))


def migrated(rig: Rig) -> str:
    """Whether the migration counts, and whether its table is there."""
    counted = f"SELECT count(*) FROM _sqlx_migrations WHERE version = {VERSION}"
    return rig.sql(f"{counted}; SELECT to_regclass('of_a_test') IS NOT NULL;")


@pytest.mark.faults
def test_a_migration_that_needs_more_than_postgres_disk_has_is_not_begun(serving: Rig) -> None:
    migrations = {f"{VERSION}_of_a_test.sql": GROWS.format(seconds=0, thousands=60)}
    with new_backend(serving.docker, serving.sandbox, migrations=migrations) as image:
        with small_postgres(serving, room=100):
            never = "Starting operation: Migrate | Start the backend"
            words = r"\d+ MB free, and \d+ MB needed: 64 MB to stay free, \d+ MB what the migr"
            refused(serving, {"backend_image": image}, words, never=never)
            assert migrated(serving) == "0\nf"
        goes_through(serving, other(serving))


@pytest.mark.faults
@pytest.mark.parametrize("what", ["the data", "WAL"])
def test_postgres_disk_that_fills_in_the_midst_of_a_migration(serving: Rig, what: str) -> None:
    """Something else takes the room: the site stays up, and Postgres is back when there is some."""
    rig = serving
    migrations = {f"{VERSION}_of_a_test.sql": GROWS.format(seconds=6, thousands=15)}
    waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6)%of_a_test%'"
    own = " AND pid <> pg_backend_pid();"
    with new_backend(rig.docker, rig.sandbox, migrations=migrations) as image:
        data = {"backend_image": image}
        with small_postgres(rig, room=150):
            before, started, room = rig.manifest()["id"], rig.started()["backend"], free(rig)
            with Watch(rig) as watch, Traffic(where(rig.environment), SLOWLY) as traffic:
                deploy = rig.start(**data)
                deadline = time.monotonic() + 120
                while rig.sql(waits + own) == "0":
                    assert time.monotonic() < deadline
                    assert deploy.poll() is None, deploy.communicate()[0]
                    time.sleep(0.3)
                rig.on_host(f"head -c 1G /dev/zero > {DATA}/full 2>/dev/null; true")
                if what == "WAL":
                    # Until the segments that are there already are used up.
                    more = (
                        "SELECT pg_logical_emit_message(true, 'a', 'test'); SELECT pg_switch_wal();"
                    )
                    once = f"echo {shlex.quote(more)} | {PSQL}"
                    rig.on_host(f"for n in $(seq 99); do {once} || break; done", check=False)
                output, _ = deploy.communicate(timeout=150)
                time.sleep(3)
                rig.on_host(f"rm {DATA}/full")
                emptied = time.monotonic()
                healthy(rig)
                back = time.monotonic() - emptied
                time.sleep(5)
            kinds = {name: count for name, count in traffic.kinds.items() if name != "right"}
            print(f"{what}: Postgres is back after {back:.1f} s; {told(traffic, lost=kinds)}")
            assert deploy.returncode == 1, output
            assert "Traceback" not in output
            assert re.search(rf"no room: \d+ MB free of \d+ MB on the disk at {DATA}", output), (
                output
            )
            assert "No space left on device" in output or what == "WAL"
            assert watch.failures == []
            assert traffic.accounted(rig.sql) == []
            traffic.clean(rig.sql, rig.on_host)
            assert traffic.acknowledged.count > 50
            assert migrated(rig) == "0\nf"
            assert (rig.manifest()["id"], rig.started()["backend"]) == (before, started)
            assert free(rig) > room - 100, "room again; segments of WAL are kept for later"
            goes_through(rig, data)
            assert migrated(rig) == "1\nt"
        goes_through(rig, other(rig))


# --- the clock -----------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_wrong_is_told_by_how_much(serving: Rig, hours: int) -> None:
    """The box has no clock of its own: its `date` is another one in the meantime."""
    script = f'exec /usr/bin/date -d "@$(( $(/usr/bin/date +%s) + {hours * 3600} ))" "$@"'
    data = other(serving)
    with instead_of(serving, "date", script):
        refused(serving, data, r"clock", r"(3[56]\d\d) s away from this machine's")
    goes_through(serving, data)


# --- name server and registry --------------------------------------------------------------------


@contextmanager
def no_names(rig: Rig) -> Iterator[None]:
    """No name server answers, and the registry's name is not in the hosts file either."""
    kept = "/run/names"
    rig.on_host(
        f"set -e; mkdir -p {kept}; cat /etc/hosts > {kept}/hosts; "
        f"cat /etc/resolv.conf > {kept}/resolv.conf; "
        f"grep -v {registry.HOST} {kept}/hosts > /etc/hosts; "
        "echo 'nameserver 127.0.0.9' > /etc/resolv.conf"
    )
    try:
        yield
    finally:
        rig.on_host(
            f"cat {kept}/hosts > /etc/hosts; cat {kept}/resolv.conf > /etc/resolv.conf; "
            f"rm -r {kept}"
        )
        time.sleep(6)  # the engine reads resolv.conf anew every 5 s


@contextmanager
def registry_down(rig: Rig) -> Iterator[None]:
    """Nothing listens there."""
    rig.docker.call("stop", "--time", "5", rig.sandbox.registry)
    try:
        yield
    finally:
        rig.docker.call("start", rig.sandbox.registry)
        registry.wait(rig.docker, rig.sandbox)


@contextmanager
def registry_slow(rig: Rig) -> Iterator[None]:
    """Connections are made, and no answer comes."""
    rig.docker.call("pause", rig.sandbox.registry)
    try:
        yield
    finally:
        rig.docker.call("unpause", rig.sandbox.registry)


@pytest.mark.faults
def test_a_registry_that_is_down_is_named(serving: Rig) -> None:
    with new_backend(serving.docker, serving.sandbox) as image:
        data = {"backend_image": image}
        with registry_down(serving):
            refused(serving, data, f"cannot pull {image}", r"connection refused|no route to host")
        goes_through(serving, data)


@pytest.mark.faults
def test_a_registry_that_is_slow_is_given_up_after_a_time_that_is_told(serving: Rig) -> None:
    with new_backend(serving.docker, serving.sandbox) as image:
        data = {"backend_image": image}
        with registry_slow(serving):
            limited = {**data, "image_pull_timeout": "4s"}
            refused(serving, limited, f"cannot pull {image}: not there after 4 s")
        goes_through(serving, data)


@pytest.mark.faults
def test_without_names_a_new_image_is_refused_and_a_release_of_those_there_goes_through(
    serving: Rig,
) -> None:
    serving.converge()  # a test before may have left another image
    with new_backend(serving.docker, serving.sandbox) as image:
        data = {"backend_image": image}
        with no_names(serving):
            refused(
                serving, data, f"cannot pull {image}", r"lookup|no such host|server misbehaving"
            )
            goes_through(serving, other(serving))
        goes_through(serving, data)
