"""A container's figures from control groups, versions 1 and 2, out of recorded files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from koprogo_deploy.monitor.probe.groups import Group, docker_stats_memory, surrounding
from koprogo_deploy.monitor.probe.parse import UnreadError
from tests.unit.monitor import recorded


def group(version: int, root: Path) -> Group:
    if version == 1:
        return Group(str(recorded.v1(root)), recorded.v1_paths())
    path = f"/system.slice/docker-{recorded.ID}.scope"
    return Group(str(recorded.v2(root, path)), {"": path})


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("read", "value"),
    [
        (Group.cpu_seconds, pytest.approx(1.787935, abs=1e-6)),
        (Group.throttled_seconds, 2.5),
        (Group.charged, 22269952),
        (Group.limit, 83886080),
        (Group.swap, 12288),
        (Group.oom_kills, 2),
        (Group.cpus, 0.25),
        (lambda g: g.memory()["anonymous"], 21016576),
        (lambda g: g.memory()["inactive_file"], 409600),
        (lambda g: g.memory()["active_file"], 4096),
        (lambda g: g.memory()["major_faults"], 130),
    ],
)
def test_both_versions_say_the_same(
    version: int, read: Callable[[Group], float], value: float, tmp_path: Path
) -> None:
    found = group(version, tmp_path)
    assert found.version == version
    assert read(found) == value


def test_memory_is_what_docker_stats_shows() -> None:
    assert docker_stats_memory(22269952, 409600) == 21860352
    assert docker_stats_memory(100, 200) == 100  # as the docker client does


@pytest.mark.parametrize(
    ("version", "file", "text"),
    [
        (1, "memory/docker/{}/memory.limit_in_bytes", "9223372036854771712\n"),
        (2, "system.slice/docker-{}.scope/memory.max", "max\n"),
    ],
)
def test_no_limit_is_said_and_is_not_a_number(
    version: int, file: str, text: str, tmp_path: Path
) -> None:
    found = group(version, tmp_path)
    (tmp_path / file.format(recorded.ID)).write_text(text)
    with pytest.raises(UnreadError, match="no limit"):
        found.limit()


def test_without_the_cpu_controller_throttling_is_unknown_not_nought(tmp_path: Path) -> None:
    found = group(2, tmp_path)
    (tmp_path / f"system.slice/docker-{recorded.ID}.scope/cpu.stat").write_text("usage_usec 5\n")
    with pytest.raises(UnreadError, match="no CPU controller"):
        found.throttled_seconds()


def test_a_container_that_ended_is_unread_and_one_that_is_back_is_read_again(
    tmp_path: Path,
) -> None:
    found = group(1, tmp_path)
    usage = tmp_path / f"memory/docker/{recorded.ID}/memory.usage_in_bytes"
    assert found.charged() == 22269952
    found.files["memory.usage_in_bytes"].close()
    usage.unlink()
    with pytest.raises(UnreadError, match="No such file"):
        found.charged()
    usage.write_text("5\n")
    assert found.charged() == 5


def proc(root: Path, cgroup: str) -> str:
    return str(recorded.write(root / "proc", {"1/cgroup": cgroup}))


V1_INIT = "4:memory:{0}\n3:cpuset:{0}\n2:cpuacct:{0}\n1:cpu:{0}\n0::{0}\n"


def test_a_machine_is_surrounded_by_nothing(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "9223372036854771712\n"}
    files["cpu/init.scope/cpu.cfs_quota_us"] = "-1\n"
    files["cpu/init.scope/cpu.cfs_period_us"] = "100000\n"
    root = recorded.write(tmp_path / "cgroup", files)
    assert surrounding(str(root), proc(tmp_path, V1_INIT.format("/init.scope"))) is None
    # Version 2: the real root has no memory.max at all.
    root = recorded.write(tmp_path / "two", {"init.scope/memory.max": "max\n"})
    assert surrounding(str(root), proc(tmp_path, "0::/init.scope\n")) is None


def test_a_box_is_the_nearest_group_with_a_limit_above_init(tmp_path: Path) -> None:
    root = recorded.v1(tmp_path / "cgroup", "/docker/box")
    box = surrounding(str(root), proc(tmp_path, V1_INIT.format("/docker/box/init.scope")))
    assert box and box.paths["memory"] == "/docker/box"
    assert box.limit() == 83886080
    # Version 2 with a namespace of its own: the box's group looks like the root, but has a limit.
    root = recorded.v2(tmp_path / "two", "/")
    box = surrounding(str(root), proc(tmp_path, "0::/init.scope\n"))
    assert box and box.paths[""] == ""
    assert box.limit() == 83886080
