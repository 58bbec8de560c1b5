"""What is wrong around a deploy: a full disk, the clock, name server and registry.

Each is refused, or fails with the numbers; the site serves all the while, nothing is left behind,
and when it is over the same deploy goes through.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from koprogo_deploy.operations.release import ROOM
from sandbox import registry
from tests.integration.images import new_backend
from tests.integration.rig import Rig, Watch, instead_of

ROOT = "/opt/koprogo"
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
