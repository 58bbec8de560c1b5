"""Runs on the host, as root, with Python's standard library only: looks once an interval and
prints one JSON line each time, a `runs.sample.Sample`.

It lives as long as its standard input: when the watcher goes, however it goes, so does this.

What looking costs is kept low: files stay open and are read again from their beginning, the
engine is asked only after it said that a container came or went, no program is started, and the
database answers one prepared query over one connection on its own socket.

A value that cannot be read is null and its reason is in `unread`; nothing is guessed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")

FIRST = "first sample"
ANSWER_WITHIN = 0.6  # of the interval: how long the database and the proxy may take to answer
RETRY = 5.0  # seconds between two attempts to reach what could not be reached
SIZE_EVERY = 60.0  # seconds; measuring a database walks through its files
MINUTE = 60.0
UNLIMITED = 1 << 50  # cgroup v1 writes "no limit" as a number near 2^63
# Virtual devices: what goes through them is counted at the real one, or stays on the host.
VIRTUAL_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
COLOURS = ("blue", "green")
VIRTUAL_INTERFACES = ("lo", "veth", "docker", "br-", "virbr")


class UnreadError(Exception):
    """A value cannot be read; the text says why."""


# --- parsers: bytes in, numbers out ---------------------------------------------------------------


def flat(text: bytes) -> dict[str, int]:
    """`name number` lines, as cgroup files and /proc/meminfo have them; a unit is left out."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].lstrip(b"-").isdigit():
            found[words[0].rstrip(b":").decode()] = int(words[1])
    return found


def pressure_totals(text: bytes) -> dict[str, float]:
    """Seconds that some and all tasks have waited, from a PSI file."""
    found = {}
    for line in text.splitlines():
        kind, total = line.split()[0], line.rpartition(b"total=")[2]
        found[kind.decode()] = int(total) / 1e6
    return found


def cpu_times(stat: bytes) -> tuple[float, float]:
    """Busy and all CPU time of /proc/stat's first line, in seconds.

    Stolen time counts as busy: the machine wanted to work and could not.
    """
    ticks = [int(word) for word in stat.splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # iowait is idle time with a reason
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / hertz, sum(ticks) / hertz


def disk_counters(diskstats: bytes) -> dict[str, tuple[int, int, int, int, int, int, int]]:
    """Whole disks that were ever used: reads, bytes and ms of reading; the same of writing; ms
    busy.
    """
    found = {}
    for line in diskstats.splitlines():
        words = line.split()
        name = words[2].decode()
        n = [int(word) for word in words[3:14]]
        if name.startswith(VIRTUAL_DISKS) or not (n[0] or n[4]):
            continue
        found[name] = (n[0], n[2] * 512, n[3], n[4], n[6] * 512, n[7], n[9])
    return found


def network_counters(dev: bytes) -> dict[str, tuple[int, int, int, int]]:
    """Bytes received and sent, errors and drops of each real interface."""
    found = {}
    for line in dev.splitlines()[2:]:
        name, _, rest = line.decode().partition(":")
        name = name.strip()
        if name.startswith(VIRTUAL_INTERFACES):
            continue
        n = [int(word) for word in rest.split()]
        found[name] = (n[0], n[8], n[2] + n[10], n[3] + n[11])
    return found


def task_waits(stat: bytes) -> bool:
    """Whether the load average counts a task: it runs, wants to run, or waits for a disk."""
    # The name before it may hold anything, brackets too.
    return stat[stat.rindex(b")") + 2] in b"RD"


def cgroup_paths(text: bytes) -> dict[str, str]:
    """Path by controller of /proc/<pid>/cgroup; version 2 and hybrid: under the empty name."""
    paths = {}
    for line in text.decode().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


_REQUESTS = re.compile(rb"^traefik_entrypoint_requests_total\{([^}]*)\} (\S+)$", re.M)
_OPEN = re.compile(rb"^traefik_open_connections\{([^}]*)\} (\S+)$", re.M)
_CODE = re.compile(rb'code="(\d)')


def traefik_counters(text: bytes) -> tuple[dict[str, float], int]:
    """Requests so far by status class, and open connections, without the internal entry point."""
    requests: dict[str, float] = {}
    for labels, value in _REQUESTS.findall(text):
        code = _CODE.search(labels)
        if b'entrypoint="internal"' in labels:
            continue
        status = f"{code[1].decode()}xx" if code else "none"
        requests[status] = requests.get(status, 0.0) + float(value)
    opened = sum(
        float(value)
        for labels, value in _OPEN.findall(text)
        if b'entrypoint="internal"' not in labels
    )
    return requests, int(opened)


def http_body(answer: bytes) -> bytes:
    """Body of an HTTP/1.0 answer.

    Raises:
        UnreadError: another status than 200.
    """
    head, found, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not found or not status:
        raise UnreadError("no whole answer")
    if status != [b"200"]:
        raise UnreadError(f"answered {status[0].decode(errors='replace')}")
    return body


# --- what is kept between two looks ---------------------------------------------------------------


class File:
    """A file that stays open and is read again from its beginning."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = -1

    def read(self) -> bytes:
        """Its content now.

        Raises:
            UnreadError: it is not there, or not any more.
        """
        try:
            if self.descriptor < 0:
                self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self.descriptor, 65536, 0)
        except OSError as error:
            self.close()
            raise UnreadError(f"{self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close it; the next read opens it again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Rates:
    """Counters of the last look; gives what they grew by a second since."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[float, float]] = {}

    def growth(self, name: str, value: float, at: float) -> tuple[float, float]:
        """How much a counter grew, and in how many seconds.

        Args:
            name: of the counter.
            value: now.
            at: when it was read, in seconds of the monotonic clock.

        Raises:
            UnreadError: this is the first look at it, or it began anew.
        """
        grown, seconds = self.growths({name: value}, at)
        return grown[name], seconds

    def growths(self, counters: Mapping[str, float], at: float) -> tuple[dict[str, float], float]:
        """The same for counters that are read together."""
        before = {name: self.last.get(name) for name in counters}
        for name, value in counters.items():  # all, before the first complaint
            self.last[name] = (value, at)
        grown = {}
        seconds = 0.0
        for name, value in counters.items():
            last = before[name]
            if last is None:
                raise UnreadError(FIRST)
            if value < last[0]:
                raise UnreadError("the counter began anew")
            if at <= last[1]:
                raise UnreadError("read twice at one time")
            grown[name], seconds = value - last[0], at - last[1]
        return grown, seconds

    def second(self, name: str, value: float, at: float) -> float:
        """Growth a second; errors as `growth`."""
        grown, seconds = self.growth(name, value, at)
        return grown / seconds

    def forget(self, prefix: str) -> None:
        """Counters of something that is gone."""
        for name in [name for name in self.last if name.startswith(prefix)]:
            del self.last[name]


class Sheet:
    """One sample in the making: takes values, and notes why one is missing."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}

    def take(self, path: str, read: Callable[[], T]) -> T | None:
        """What `read` gives; None with a reason where it cannot."""
        try:
            return read()
        except UnreadError as reason:
            self.unread[path] = str(reason)
        except OSError as error:
            self.unread[path] = error.strerror or str(error)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.unread[path] = f"not understood: {type(error).__name__}: {error}"
        return None


# --- control groups -------------------------------------------------------------------------------


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


# --- the machine ----------------------------------------------------------------------------------


class Tasks:
    """The load average of a box, which the kernel does not keep: its own tasks, counted.

    As the kernel: tasks that run, want to run or wait for a disk, damped over a minute. Each look
    at a random moment within the interval, so that it does not fall in step with a load.

    The kernel's average starts from the history before; there is none here. So it is the mean of
    what was counted, with the kernel's weights: the first count stands for itself, and after a few
    minutes it is the kernel's formula.
    """

    def __init__(self, proc: str, without: Iterable[int]) -> None:
        self.proc = proc
        self.without = {str(pid) for pid in without}
        self.known: dict[str, int] = {}  # threads by process
        self.open: dict[str, dict[str, int]] = {}  # descriptors by process and thread
        self.sum = self.weight = 0.0
        self.at: float | None = None

    def look(self, at: float) -> None:
        """Count now, in seconds of the monotonic clock."""
        self._refresh()
        self.note(self._count(), at)

    def note(self, count: int, at: float) -> None:
        """Take one count into the average."""
        passed = MINUTE / 60 if self.at is None else at - self.at
        kept = math.exp(-passed / MINUTE)
        self.sum = self.sum * kept + count * (1 - kept)
        self.weight = self.weight * kept + (1 - kept)
        self.at = at

    @property
    def load(self) -> float:
        """The average."""
        if not self.weight:
            raise UnreadError(FIRST)
        return self.sum / self.weight

    def _refresh(self) -> None:
        now = {name for name in os.listdir(self.proc) if name.isdigit()} - self.without
        for pid in self.known.keys() - now:
            self._drop(pid)
        for pid in now:
            folder = f"{self.proc}/{pid}/task"
            try:
                threads = os.stat(folder).st_nlink
                if self.known.get(pid) == threads:
                    continue
                self._drop(pid)
                self.open[pid] = opened = {}
                for name in os.listdir(folder):
                    opened[name] = os.open(f"{folder}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
                self.known[pid] = threads
            except OSError:
                self._drop(pid)  # it has ended meanwhile

    def _count(self) -> int:
        count = 0
        ended = []
        for pid, opened in self.open.items():
            for descriptor in opened.values():
                try:
                    count += task_waits(os.pread(descriptor, 512, 0))
                except (OSError, ValueError):
                    ended.append(pid)
        for pid in ended:
            self._drop(pid)  # the next look opens what is left of it
        return count

    def _drop(self, pid: str) -> None:
        for descriptor in self.open.pop(pid, {}).values():
            os.close(descriptor)
        self.known.pop(pid, None)


class Host:
    """The machine; or the box, where this runs in one."""

    def __init__(self, root: str, proc: str, sys_block: str, data: str) -> None:
        self.proc = proc
        self.data = data  # the engine's directory
        self.box = surrounding(root, proc)
        self.files: dict[str, File] = {}
        self.sys_block = sys_block
        self.tasks = Tasks(proc, [os.getpid()]) if self.box else None
        self.share = float(os.cpu_count() or 1)
        self.pressure = {}
        for what in ("cpu", "memory", "io"):
            self.pressure[what] = File(self._pressure_path(root, what))
        if self.box:
            quota = None
            with contextlib.suppress(UnreadError, ValueError):
                quota = self.box.cpus()
            allowed = float(len(os.sched_getaffinity(0)))
            self.share = min(quota, allowed) if quota else allowed

    def _pressure_path(self, root: str, what: str) -> str:
        if not self.box:
            return f"{self.proc}/pressure/{what}"
        base = root if self.box.version == 2 else f"{root}/unified"
        return f"{base}{self.box.paths.get('', '')}/{what}.pressure"

    def text(self, name: str) -> bytes:
        """A file of /proc."""
        if name not in self.files:
            self.files[name] = File(f"{self.proc}/{name}")
        return self.files[name].read()

    def sample(self, sheet: Sheet, rates: Rates, at: float) -> dict[str, Any]:
        """`HostSample`'s fields."""
        take = sheet.take
        memory = take("host.memory", self.memory) or {}
        for name in ("memory_total", "memory_used", "memory_available"):
            if name not in memory:
                sheet.unread[f"host.{name}"] = sheet.unread["host.memory"]
        sheet.unread.pop("host.memory", None)
        load = take("host.load1", self.load)
        found = {
            "cpus": max(1, math.ceil(self.share)),
            "cpu_percent": take("host.cpu_percent", lambda: self.cpu_percent(rates, at)),
            "load1": load,
            "load_source": "tasks" if self.tasks else "kernel",
            **memory,
            "swap_used": take("host.swap_used", self.swap),
            "pressure": {what: self._pressure(sheet, rates, at, what) for what in self.pressure},
            "disks": self._disks(sheet, rates, at),
            "network": self._network(sheet, rates, at),
        }
        space = take("host.disk_free", lambda: os.statvfs(self.data))
        if space is None:
            sheet.unread["host.disk_total"] = sheet.unread["host.disk_free"]
        else:
            found["disk_free"] = space.f_bavail * space.f_frsize
            # As df counts it: without what is kept for root or was never there to be used.
            usable = space.f_blocks - space.f_bfree + space.f_bavail
            found["disk_total"] = usable * space.f_frsize
        return found

    def cpu_percent(self, rates: Rates, at: float) -> float:
        """Busy share of all its CPUs together."""
        if self.box:
            return 100 * rates.second("host.cpu", self.box.cpu_seconds(), at) / self.share
        busy, total = cpu_times(self.text("stat"))
        # By the kernel's own clock: it counts in ticks.
        grown, seconds = rates.growth("host.cpu", busy, total)
        return min(100.0, 100 * grown / seconds)

    def load(self) -> float:
        """Load average of one minute."""
        return self.tasks.load if self.tasks else float(self.text("loadavg").split()[0])

    def memory(self) -> dict[str, int]:
        """All memory, what cannot be dropped of it, and the rest, in bytes."""
        if self.box:
            try:
                total = self.box.limit()
            except UnreadError:
                raise UnreadError("the box has no memory limit of its own") from None
            kinds = self.box.memory()
            droppable = kinds["active_file"] + kinds["inactive_file"] + kinds["reclaimable"]
            used = max(0, self.box.charged() - droppable)
        else:
            info = flat(self.text("meminfo"))
            total = info["MemTotal"] * 1024
            used = total - info["MemAvailable"] * 1024
        return {
            "memory_total": total,
            "memory_used": used,
            "memory_available": max(0, total - used),
        }

    def swap(self) -> int:
        """Bytes in swap space."""
        if self.box:
            return self.box.swap()
        info = flat(self.text("meminfo"))
        return (info["SwapTotal"] - info["SwapFree"]) * 1024

    def _pressure(self, sheet: Sheet, rates: Rates, at: float, what: str) -> dict[str, Any]:
        path = f"host.pressure.{what}"
        try:
            totals = pressure_totals(self.pressure[what].read())
        except (UnreadError, ValueError):
            sheet.unread[path] = (
                "the box has none of its own" if self.box else "the kernel keeps no PSI"
            )
            return {"some": None, "full": None}
        found = {}
        for kind in ("some", "full"):

            def share(kind: str = kind) -> float:
                if kind not in totals:
                    raise UnreadError("the kernel does not count it")
                name = f"{path}.{kind}"
                return min(100.0, 100 * rates.second(name, totals[kind], at))

            found[kind] = sheet.take(f"{path}.{kind}", share)
        return found

    def _disks(self, sheet: Sheet, rates: Rates, at: float) -> dict[str, Any]:
        counters = sheet.take("host.disks", lambda: disk_counters(self.text("diskstats"))) or {}
        return {
            name: disk_sample(sheet, rates, at, f"host.disks.{name}", counted)
            for name, counted in counters.items()
            if not os.path.exists(f"{self.sys_block}/{name}/partition")
        }

    def _network(self, sheet: Sheet, rates: Rates, at: float) -> dict[str, Any]:
        # Of this network namespace: /proc/net is the reader's own, in the box the box's.
        counters = sheet.take("host.network", lambda: network_counters(self.text("net/dev"))) or {}
        names = ("received_bytes", "sent_bytes", "errors", "dropped")
        return {
            interface: {
                name: sheet.take(
                    f"host.network.{interface}.{name}",
                    lambda n=f"net.{interface}.{name}", v=value: rates.second(n, v, at),  # type: ignore[misc]
                )
                for name, value in zip(names, counted, strict=True)
            }
            for interface, counted in counters.items()
        }


def disk_sample(
    sheet: Sheet,
    rates: Rates,
    at: float,
    path: str,
    counted: tuple[int, int, int, int, int, int, int],
) -> dict[str, float | None]:
    """`Disk`'s fields: what happened since the sample before, not since the machine started."""
    reads, read_bytes, read_ms, writes, write_bytes, write_ms, busy_ms = counted

    def latency(kind: str, operations: int, milliseconds: int) -> float:
        grown, _ = rates.growths(
            {f"{path}.{kind}s": operations, f"{path}.{kind} ms": milliseconds}, at
        )
        done, took = grown.values()
        if not done:
            raise UnreadError(f"no {kind}s")
        return took / done

    def busy() -> float:
        return min(100.0, rates.second(f"{path}.busy", busy_ms, at) / 10)

    take = sheet.take
    return {
        "busy_percent": take(f"{path}.busy_percent", busy),
        "read_ms": take(f"{path}.read_ms", lambda: latency("read", reads, read_ms)),
        "write_ms": take(f"{path}.write_ms", lambda: latency("write", writes, write_ms)),
        "read_bytes": take(
            f"{path}.read_bytes", lambda: rates.second(f"{path}.rb", read_bytes, at)
        ),
        "write_bytes": take(
            f"{path}.write_bytes", lambda: rates.second(f"{path}.wb", write_bytes, at)
        ),
    }


# --- containers -----------------------------------------------------------------------------------


class Container:
    """A container that runs: who it is, and its group."""

    def __init__(self, root: str, proc: str, inspected: Mapping[str, Any]) -> None:
        state = inspected["State"]
        labels = inspected["Config"].get("Labels") or {}
        self.id = str(inspected["Id"])
        self.service = str(
            labels.get("com.docker.compose.service") or str(inspected["Name"]).lstrip("/")
        )
        self.pid = int(state["Pid"])
        self.created = str(inspected["Created"])
        self.restarts = int(inspected.get("RestartCount", 0))
        self.key = f"{self.id}.{state['StartedAt']}"
        self.group = Group(root, cgroup_paths(File(f"{proc}/{self.pid}/cgroup").read()))

    def sample(self, sheet: Sheet, rates: Rates, at: float, path: str) -> dict[str, Any]:
        """`ContainerSample`'s fields."""
        group, key = self.group, self.key

        def take(name: str, read: Callable[[], T]) -> T | None:
            return sheet.take(f"{path}.{name}", read)

        kinds: dict[str, int] | str
        try:
            kinds = group.memory()
        except UnreadError as reason:
            kinds = str(reason)
        except (ValueError, KeyError) as error:
            kinds = f"not understood: {error}"

        def kind(name: str) -> int:
            if isinstance(kinds, str):
                raise UnreadError(kinds)
            return kinds[name]

        charged = take("memory_charged", group.charged)

        def shown() -> int:
            if charged is None:
                raise UnreadError(sheet.unread[f"{path}.memory_charged"])
            return docker_stats_memory(charged, kind("inactive_file"))

        return {
            "cpu_percent": take(
                "cpu_percent",
                lambda: 100 * rates.second(f"{key}.cpu", group.cpu_seconds(), at),
            ),
            "memory": take("memory", shown),
            "memory_charged": charged,
            "memory_limit": take("memory_limit", group.limit),
            "anonymous": take("anonymous", lambda: kind("anonymous")),
            "throttled_ms": take(
                "throttled_ms",
                lambda: 1000 * rates.second(f"{key}.throttled", group.throttled_seconds(), at),
            ),
            "major_faults": take(
                "major_faults", lambda: rates.second(f"{key}.faults", kind("major_faults"), at)
            ),
            "oom_kills": take("oom_kills", group.oom_kills),
            "restarts": self.restarts,
        }


def short_names(running: Iterable[tuple[str, str]], before: Mapping[str, str]) -> dict[str, str]:
    """Name in a sample by Compose's service: `backend` for `backend-blue`.

    While two colours run, the one that had the short name keeps it, else the older one has it; the
    second is called by its full name.

    Args:
        running: service and time of making, of each container.
        before: what this gave the last time.
    """

    def short(service: str) -> str:
        name, _, colour = service.rpartition("-")
        return name if colour in COLOURS else service

    names: dict[str, str] = {}
    for service, _ in sorted(
        running, key=lambda pair: (before.get(pair[0]) != short(pair[0]), pair[1])
    ):
        names[service] = service if short(service) in names.values() else short(service)
    return names


class Engine:
    """Docker's own interface, on its socket: asked only after it said that something changed."""

    def __init__(self, path: str, root: str, proc: str, project: str, services: list[str]) -> None:
        self.path, self.root, self.proc = path, root, proc
        self.label = f"com.docker.compose.project={project}"
        self.services = services
        self.containers: dict[str, Container] = {}  # by name in a sample
        self.names: dict[str, str] = {}
        self.gone: list[str] = []
        self.problem = FIRST
        self.stale = True
        self.events: socket.socket | None = None
        self.next_try = 0.0

    def ask(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """One question to the engine."""
        with self._connect(path) as line:
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        return json.loads(http_body(answer))

    def _connect(self, path: str) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(2.0)
        try:
            line.connect(self.path)
            line.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        except OSError as error:
            line.close()
            raise UnreadError(f"the engine does not answer: {error.strerror}") from None
        return line

    def data_directory(self) -> str:
        """Where the engine keeps its data."""
        try:
            return str(self.ask("/info")["DockerRootDir"])
        except (UnreadError, OSError, ValueError, KeyError):
            return "/var/lib/docker"

    def refresh(self, now: float) -> None:
        """List the containers again, if any came, went or was started again."""
        if self.events:
            try:
                while self.events.recv(65536):
                    self.stale = True
                self._unlisten()  # the engine has ended
            except BlockingIOError:
                pass
            except OSError:
                self._unlisten()
        if not self.stale or now < self.next_try:
            return
        try:
            if not self.events:
                # Before the list: what changes in between is then seen twice, not never.
                wanted = {"type": ["container"], "label": [self.label]}
                wanted["event"] = ["start", "die", "destroy", "rename", "restart"]
                self.events = self._connect(f"/events?filters={quote(json.dumps(wanted))}")
                self.events.setblocking(False)
            self._list()
            self.stale, self.problem = False, ""
        except (UnreadError, OSError, ValueError, KeyError) as error:
            self.problem = str(error)
            self.next_try = now + 1.0

    def _unlisten(self) -> None:
        if self.events:
            self.events.close()
        self.events, self.stale = None, True

    def _list(self) -> None:
        filters = quote(json.dumps({"label": [self.label]}))
        found = {}
        for listed in self.ask(f"/containers/json?filters={filters}"):
            try:
                container = Container(
                    self.root, self.proc, self.ask(f"/containers/{listed['Id']}/json")
                )
            except UnreadError:
                self.stale = True  # it ended meanwhile; the engine will say so
                continue
            found[container.service] = container
        for container in self.containers.values():
            container.group.close()
        staying = {container.key for container in found.values()}
        self.gone += [c.key for c in self.containers.values() if c.key not in staying]
        self.names = short_names([(c.service, c.created) for c in found.values()], self.names)
        self.containers = {self.names[service]: c for service, c in found.items()}

    def sample(self, sheet: Sheet, rates: Rates, at: float) -> dict[str, Any]:
        """`containers` of a sample; a service of ours that does not run is there too, unread."""
        found: dict[str, Any] = {}
        if self.problem:
            sheet.unread["containers"] = self.problem
        for name, container in sorted(self.containers.items()):
            found[name] = container.sample(sheet, rates, at, f"containers.{name}")
        for service in self.services:
            if service not in found:
                sheet.unread[f"containers.{service}"] = self.problem or "not running"
                found[service] = {}
        while self.gone:
            rates.forget(self.gone.pop())
        return found


# --- the database ---------------------------------------------------------------------------------


def activity_query(version: int) -> str:
    """One JSON object of everything that is asked each time, for a Postgres major version."""
    checkpoints = "num_timed, num_requested FROM pg_stat_checkpointer"
    if version < 17:
        checkpoints = "checkpoints_timed, checkpoints_req FROM pg_stat_bgwriter"
    return f"""
WITH others AS (
  SELECT coalesce(state, 'unknown') AS state, wait_event_type, xact_start FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
)
SELECT json_build_object(
  'connections', (SELECT coalesce(json_object_agg(state, n), '{{}}')
                  FROM (SELECT state, count(*) AS n FROM others GROUP BY state) AS states),
  'waiting', (SELECT count(*) FROM others WHERE wait_event_type = 'Lock'),
  'longest', (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)
              FROM others),
  'max', current_setting('max_connections')::int,
  'database', (SELECT json_build_array(xact_commit, xact_rollback, deadlocks, temp_bytes,
                                       blks_hit, blks_read)
               FROM pg_stat_database WHERE datname = current_database()),
  'wal', (SELECT wal_bytes FROM pg_stat_wal),
  'checkpoints', (SELECT json_build_array({checkpoints.partition(" FROM ")[0]})
                  FROM {checkpoints.partition(" FROM ")[2]}))"""  # noqa: S608 - no value of anybody's


def message(kind: bytes, body: bytes) -> bytes:
    """A message of Postgres' wire protocol; the first one of a connection has no kind."""
    return kind + struct.pack("!I", 4 + len(body)) + body


def messages(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Whole messages at the beginning of what was received, and what is left."""
    found = []
    while len(data) >= 5:
        end = 1 + struct.unpack("!I", data[1:5])[0]
        if len(data) < end:
            break
        found.append((data[:1], data[5:end]))
        data = data[end:]
    return found, data


def error_text(body: bytes) -> str:
    """What an error message of Postgres says."""
    for field in body.split(b"\0"):
        if field[:1] == b"M":
            return f"Postgres says: {field[1:].decode(errors='replace')}"
    return "Postgres reports an error"


class Database:
    """One connection to Postgres, by its own socket and wire protocol.

    Through the container's file system, as the user that the observer's role is mapped to: no
    client runs in the container, whose memory and CPU would be counted as Postgres' own.
    """

    def __init__(self, proc: str, user: int, role: str, database: str) -> None:
        self.proc, self.user, self.role, self.database = proc, user, role, database
        self.line: socket.socket | None = None
        self.backend: File | None = None  # CPU time of the server's process for us
        self.next_try = 0.0
        self.problem = "not connected"
        self.version = 0
        self.buffer = b""
        self.received: list[tuple[bytes, bytes]] = []
        self.asked = 0.0
        self.waiting = False
        self.own = 0  # transactions of ours since the last answer
        self.size: int | None = None
        self.next_size = 0.0
        self.asks_size = False
        self.pid = 0

    def ask(self, pid: int | None, now: float) -> None:
        """Send the query, unless the last one is still open. `pid` is the server's, on the host."""
        if self.line and pid != self.pid:
            self._close("Postgres was started again")
        if not self.line and now >= self.next_try:
            self.next_try = now + RETRY
            if pid is None:
                self.problem = "Postgres is not running"
                return
            try:
                self._connect(pid)
            except (UnreadError, OSError, ValueError) as error:
                self._close(getattr(error, "strerror", None) or str(error))
        if not self.line or self.waiting:
            return
        self.asks_size = now >= self.next_size
        size = f"SELECT pg_database_size('{self.database}');" if self.asks_size else ""
        self._send(f"EXECUTE look;{size}")
        self.asked, self.waiting = now, True

    def _send(self, query: str) -> None:
        try:
            assert self.line is not None
            self.line.sendall(message(b"Q", query.encode() + b"\0"))
            self.own += 1
        except OSError as error:
            self._close(f"connection lost: {error.strerror}")

    def answer(self, deadline: float) -> list[str]:
        """The rows that came, first column only.

        Raises:
            UnreadError: not connected, or no answer by then; it is waited for the next time.
        """
        while self.line and self.waiting:
            found, self.buffer = messages(self.buffer)
            self.received += found
            if self.received and self.received[-1][0] == b"Z":
                answer, self.received, self.waiting = self.received, [], False
                return self._rows(answer)
            left = deadline - time.monotonic()
            if not select.select([self.line], [], [], max(0.0, left))[0]:
                waited = time.monotonic() - self.asked
                raise UnreadError(f"Postgres has not answered for {waited:.1f} s")
            try:
                data = self.line.recv(65536)
            except OSError as lost:
                self._close(f"connection lost: {lost.strerror}")
                break
            if not data:
                said = [error_text(body) for kind, body in self.received if kind == b"E"]
                self._close(said[-1] if said else "Postgres closed the connection")
            self.buffer += data
        raise UnreadError(self.problem)

    def _rows(self, answer: list[tuple[bytes, bytes]]) -> list[str]:
        rows = []
        for kind, body in answer:
            if kind == b"D":
                length = struct.unpack("!i", body[2:6])[0]
                rows.append(body[6 : 6 + length].decode() if length >= 0 else "")
            elif kind == b"E":
                raise UnreadError(error_text(body))
            elif kind == b"K":
                self._find_backend(struct.unpack("!I", body[:4])[0])
            elif kind == b"S" and body.startswith(b"server_version\0"):
                self.version = int(body[15:].split(b".")[0].split(b"\0")[0])
        return rows

    def _connect(self, pid: int) -> None:
        folder = os.open(f"{self.proc}/{pid}/root/run/postgresql", os.O_PATH | os.O_CLOEXEC)
        self.line, self.pid, self.own = socket.socket(socket.AF_UNIX), pid, 0
        self.line.settimeout(2.0)
        try:
            os.seteuid(self.user)  # Postgres asks the kernel who is at the other end
            self.line.connect(f"/proc/self/fd/{folder}/.s.PGSQL.5432")
        finally:
            os.seteuid(0)
            os.close(folder)
        names = {
            "user": self.role,
            "database": self.database,
            "application_name": "koprogo monitor",
        }
        pairs = b"".join(f"{key}\0{value}\0".encode() for key, value in names.items())
        self.line.sendall(message(b"", struct.pack("!I", 196608) + pairs + b"\0"))
        self.asked, self.waiting = time.monotonic(), True
        self.answer(time.monotonic() + 2.0)
        self._send(f"PREPARE look AS {activity_query(self.version)}")
        self.waiting = True
        self.answer(time.monotonic() + 2.0)
        self.next_size = 0.0

    def _find_backend(self, inside: int) -> None:
        """The server's process for this connection: what it uses is a cost of looking."""
        self.backend = None
        with contextlib.suppress(OSError, UnreadError, ValueError):
            children = File(f"{self.proc}/{self.pid}/task/{self.pid}/children").read().split()
            for child in children:
                status = File(f"{self.proc}/{int(child)}/status").read()
                spaces = re.search(rb"^NSpid:(.*)$", status, re.M)
                if spaces and int(spaces[1].split()[-1]) == inside:
                    self.backend = File(f"{self.proc}/{int(child)}/schedstat")

    def cost(self) -> float:
        """CPU seconds that the server has used for us."""
        if not self.backend:
            return 0.0
        try:
            return int(self.backend.read().split()[0]) / 1e9
        except (UnreadError, ValueError, IndexError):
            return 0.0

    def _close(self, reason: str) -> None:
        if self.line:
            self.line.close()
        self.line, self.waiting, self.problem, self.backend = None, False, reason, None
        self.buffer, self.received = b"", []

    def sample(self, sheet: Sheet, rates: Rates, deadline: float) -> dict[str, Any]:
        """`PostgresSample`'s fields."""
        try:
            rows = self.answer(deadline)
            found = json.loads(rows[0])
        except (UnreadError, ValueError, IndexError) as reason:
            sheet.unread["postgres"] = str(reason) or "no answer"
            return {}
        at, own, self.own = self.asked, self.own, 0
        if self.asks_size and len(rows) > 1:
            self.size, self.next_size = int(rows[1]), at + SIZE_EVERY
        names = ("commits", "rollbacks", "deadlocks", "temp_bytes")
        counters = dict(zip(names, found["database"], strict=False))
        counters["wal_bytes"] = float(found["wal"])

        def second(name: str) -> float:
            grown, seconds = rates.growth(f"postgres.{name}", counters[name], at)
            # Each query of ours is a transaction of its own.
            return max(0.0, grown - (own if name == "commits" else 0)) / seconds

        def cache_hit() -> float:
            blocks = dict(
                zip(("postgres.hit", "postgres.read"), found["database"][4:6], strict=True)
            )
            hits, reads = rates.growths(blocks, at)[0].values()
            if not hits + reads:
                raise UnreadError("no blocks were asked for")
            return 100 * hits / (hits + reads)

        values: dict[str, Any] = {
            name: sheet.take(f"postgres.{name}", lambda n=name: second(n))  # type: ignore[misc]
            for name in (*names, "wal_bytes")
        }
        return values | {
            "connections": found["connections"],
            "max_connections": found["max"],
            "waiting": found["waiting"],
            "longest_transaction": float(found["longest"]),
            "cache_hit_percent": sheet.take("postgres.cache_hit_percent", cache_hit),
            "checkpoints_timed": found["checkpoints"][0],
            "checkpoints_requested": found["checkpoints"][1],
            "size": sheet.take("postgres.size", self._size),
        }

    def _size(self) -> int:
        if self.size is None:
            raise UnreadError("not measured yet")
        return self.size


# --- the proxy ------------------------------------------------------------------------------------


class Proxy:
    """Traefik's own counters, read from the host over its internal entry point."""

    def __init__(self, address: str, port: int) -> None:
        self.address = (address, port)
        self.line: socket.socket | None = None
        self.problem = "not asked"
        self.asked = 0.0
        self.before: tuple[dict[str, float], float] | None = None

    def ask(self, now: float) -> None:
        """Send the question."""
        self.close()
        self.asked = now
        self.line = socket.socket()
        self.line.settimeout(0.3)
        try:
            self.line.connect(self.address)
            self.line.sendall(b"GET /metrics HTTP/1.0\r\nHost: traefik\r\n\r\n")
        except OSError as error:
            self.close()
            self.problem = f"Traefik does not answer: {error.strerror or error}"

    def answer(self, deadline: float) -> bytes:
        """The counters as text."""
        if not self.line:
            raise UnreadError(self.problem)
        data = []
        try:
            while True:
                self.line.settimeout(max(0.001, deadline - time.monotonic()))
                part = self.line.recv(65536)
                if not part:
                    break
                data.append(part)
        except TimeoutError:
            raise UnreadError("Traefik has not answered in time") from None
        finally:
            self.close()
        try:
            return http_body(b"".join(data))
        except UnreadError as reason:
            raise UnreadError(f"Traefik's counters: {reason}") from None

    def sample(self, sheet: Sheet, deadline: float) -> dict[str, Any]:
        """`TraefikSample`'s fields."""
        counted = sheet.take("traefik", lambda: traefik_counters(self.answer(deadline)))
        if counted is None:
            return {}
        requests, opened = counted
        before, self.before = self.before, (requests, self.asked)

        def rate() -> dict[str, float]:
            if before is None:
                raise UnreadError(FIRST)
            seconds = self.asked - before[1]
            # A status that was never seen before has been counted from nought.
            grown = {s: n - before[0].get(s, 0.0) for s, n in requests.items()}
            if any(n < 0 for n in grown.values()) or before[0].keys() - requests.keys():
                raise UnreadError("the counter began anew")
            return {status: n / seconds for status, n in sorted(grown.items())}

        return {"requests": sheet.take("traefik.requests", rate), "open_connections": opened}

    def close(self) -> None:
        """End the connection."""
        if self.line:
            self.line.close()
        self.line = None


# --- the loop -------------------------------------------------------------------------------------


class Probe:
    """Everything that is looked at, and the clock it is looked at by."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        root, proc = "/sys/fs/cgroup", "/proc"
        self.interval = float(config["interval"])
        self.rates = Rates()
        self.engine = Engine(
            config["engine"], root, proc, config["project"], list(config["services"])
        )
        self.host = Host(root, proc, "/sys/class/block", self.engine.data_directory())
        self.database = Database(proc, config["postgres_user"], config["role"], config["database"])
        self.proxy = Proxy(config["traefik"], config["traefik_port"])

    def sample(self) -> dict[str, Any]:
        """One sample, now."""
        at, now = time.time(), time.monotonic()
        deadline = now + ANSWER_WITHIN * self.interval
        sheet = Sheet()
        self.engine.refresh(now)
        # They answer while the files are read.
        postgres = self.engine.containers.get("postgres")
        self.database.ask(postgres.pid if postgres else None, now)
        self.proxy.ask(now)
        read = time.monotonic()
        found = {
            "at": at,
            "host": self.host.sample(sheet, self.rates, read),
            "containers": self.engine.sample(sheet, self.rates, read),
            "postgres": self.database.sample(sheet, self.rates, deadline),
            "traefik": self.proxy.sample(sheet, deadline),
        }
        found["monitor_cpu_percent"] = sheet.take("monitor_cpu_percent", self._cost)
        return found | {"unread": sheet.unread}

    def _cost(self) -> float:
        own = self.rates.second("monitor", time.process_time(), time.monotonic())
        try:
            server = self.rates.second("monitor.server", self.database.cost(), time.monotonic())
        except UnreadError:
            server = 0.0
        return 100 * (own + server)

    def look_at_tasks(self) -> None:
        """Count the box's tasks; the kernel counts a machine's itself."""
        if self.host.tasks:
            self.host.tasks.look(time.monotonic())


def wait_until(moment: float) -> None:
    """Sleep until then; ends the program when its standard input ends."""
    while (left := moment - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0] and not os.read(0, 4096):
            raise SystemExit(0)


def missed(began: float, interval: float, number: int, now: float) -> int:
    """Number of the next look: they are due at whole intervals after the beginning, whatever one
    took; those that were missed are not made up for.
    """
    return max(number + 1, math.ceil((now - began) / interval))


def tell_time() -> None:
    """Answer each `clock` with this machine's time until `go` comes."""
    line = b""
    while True:
        data = os.read(0, 4096)
        if not data:
            raise SystemExit(0)
        line += data
        while b"\n" in line:
            word, _, line = line.partition(b"\n")
            if word == b"go":
                return
            os.write(1, json.dumps({"clock": time.time()}).encode() + b"\n")


def main(config: Mapping[str, Any]) -> None:
    """Sample until standard input ends, or `seconds` have passed.

    Args:
        config: `interval` and `seconds` in seconds; `engine`, the engine's socket; `project` and
            `services` of Compose; `postgres_user`, the server's numeric user; `role`, `database`;
            `traefik` and `traefik_port`, where its counters are.
    """
    signal.alarm(int(config["seconds"]) + 5)  # whatever hangs
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    probe = Probe(config)
    tell_time()
    began, number = time.monotonic(), 0
    interval, end = probe.interval, time.monotonic() + float(config["seconds"])
    while True:
        os.write(1, json.dumps(probe.sample(), separators=(",", ":")).encode() + b"\n")
        number = missed(began, interval, number, time.monotonic())
        due = began + number * interval
        if due > end:
            return
        # At a moment of its own: the look itself must not be what is counted.
        spare = due - time.monotonic()
        wait_until(due - spare * random.uniform(0.1, 0.8))  # noqa: S311 - no secret
        probe.look_at_tasks()
        wait_until(due)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main(json.loads(sys.argv[1]))
