"""What the kernel and Traefik write: bytes in, numbers out. Pure."""

from __future__ import annotations

import os
import re

# Virtual devices: what goes through them is counted at the real one, or stays on the host.
VIRTUAL_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
VIRTUAL_INTERFACES = ("lo", "veth", "docker", "br-", "virbr")


class UnreadError(Exception):
    """A value cannot be read; the text says why."""


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
