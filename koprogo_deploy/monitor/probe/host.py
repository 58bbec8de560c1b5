"""The machine; or the box, where the probe runs in one."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable
from typing import Any

from koprogo_deploy.monitor.probe.groups import surrounding
from koprogo_deploy.monitor.probe.keep import FIRST, File, Rates, Sheet
from koprogo_deploy.monitor.probe.parse import (
    UnreadError,
    cpu_times,
    disk_counters,
    flat,
    network_counters,
    pressure_totals,
    task_waits,
)

MINUTE = 60.0


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
