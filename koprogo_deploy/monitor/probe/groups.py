"""Control groups, version 1 and 2."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from koprogo_deploy.monitor.probe.keep import File
from koprogo_deploy.monitor.probe.parse import UnreadError, cgroup_paths, flat

UNLIMITED = 1 << 50  # version 1 writes "no limit" as a number near 2^63


class Group:
    """A control group's files, version 1 or 2, kept open.

    Args:
        root: where the hierarchies are mounted.
        paths: path by controller; version 2: one under the empty name, and no `memory`.
    """

    def __init__(self, root: str, paths: Mapping[str, str]) -> None:
        self.root = root
        self.paths = paths
        self.version = 1 if "memory" in paths else 2
        self.files: dict[str, File] = {}

    def directory(self, controller: str) -> str:
        """Directory of this group in a controller's hierarchy."""
        if self.version == 2:
            return f"{self.root}{self.paths['']}"
        if controller not in self.paths:
            raise UnreadError(f"no {controller} control group")
        return f"{self.root}/{controller}{self.paths[controller]}"

    def text(self, controller: str, name: str) -> bytes:
        """Content of one of its files."""
        file = self.files.get(name)
        if file is None:
            file = self.files[name] = File(f"{self.directory(controller)}/{name}")
        return file.read()

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        if self.version == 1:
            return int(self.text("cpuacct", "cpuacct.usage")) / 1e9
        return flat(self.text("cpu", "cpu.stat"))["usage_usec"] / 1e6

    def throttled_seconds(self) -> float:
        """Time so far that it waited for its CPU quota."""
        stat = flat(self.text("cpu", "cpu.stat"))
        name, unit = ("throttled_time", 1e9) if self.version == 1 else ("throttled_usec", 1e6)
        if name not in stat:
            raise UnreadError("the kernel does not count it here: no CPU controller")
        return stat[name] / unit

    def charged(self) -> int:
        """Bytes that the limit counts."""
        name = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        return int(self.text("memory", name))

    def limit(self) -> int:
        """Bytes that it may use.

        Raises:
            UnreadError: it has no limit.
        """
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        text = self.text("memory", name).strip()
        if text == b"max" or int(text) >= UNLIMITED:
            raise UnreadError("no limit")
        return int(text)

    def memory(self) -> dict[str, int]:
        """Memory by kind, in bytes: `anonymous`, `inactive_file`, `active_file`, `swap`; and
        `major_faults` so far. With all groups below it.
        """
        stat = flat(self.text("memory", "memory.stat"))
        if self.version == 1:
            return {
                "anonymous": stat["total_rss"],
                "inactive_file": stat["total_inactive_file"],
                "active_file": stat["total_active_file"],
                "reclaimable": 0,  # version 1 does not tell kernel memory apart
                "major_faults": stat["total_pgmajfault"],
            }
        return {
            "anonymous": stat["anon"],
            "inactive_file": stat["inactive_file"],
            "active_file": stat["active_file"],
            "reclaimable": stat.get("slab_reclaimable", 0),
            "major_faults": stat["pgmajfault"],
        }

    def swap(self) -> int:
        """Bytes in swap space."""
        if self.version == 2:
            return int(self.text("memory", "memory.swap.current"))
        stat = flat(self.text("memory", "memory.stat"))
        if "total_swap" not in stat:
            raise UnreadError("the kernel does not count swap here")
        return stat["total_swap"]

    def oom_kills(self) -> int:
        """Processes that were killed at the limit, since the group was made."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return flat(self.text("memory", name))["oom_kill"]

    def cpus(self) -> float | None:
        """CPUs' worth of its quota; None without one."""
        if self.version == 1:
            quota, period = (
                int(self.text("cpu", f"cpu.cfs_{name}_us")) for name in ("quota", "period")
            )
            return quota / period if quota > 0 else None
        first, second = self.text("cpu", "cpu.max").split()
        return None if first == b"max" else int(first) / int(second)

    def close(self) -> None:
        """Close its files."""
        for file in self.files.values():
            file.close()


def docker_stats_memory(charged: int, inactive_file: int) -> int:
    """Memory as `docker stats` shows it: without file pages that were not used lately."""
    return charged - inactive_file if inactive_file < charged else charged


def surrounding(root: str, proc: str) -> Group | None:
    """The group with a limit that init itself sits in: then this is a box, no machine.

    A container that plays a VPS sees the outer machine's /proc; what is its own is counted in its
    group. The nearest limit above init is the box's.
    """
    paths = cgroup_paths(File(f"{proc}/1/cgroup").read())
    first = "memory" if "memory" in paths else ""
    path = paths.get(first, "/")
    while True:
        path = path.rstrip("/")
        group = Group(root, dict.fromkeys(paths, path))
        for limited in (group.limit, group.cpus):
            with contextlib.suppress(UnreadError, ValueError):
                if limited() is not None:
                    return group
        group.close()
        if not path:
            return None
        path = path.rpartition("/")[0]
