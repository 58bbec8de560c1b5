"""Runs on the host, as root: samples who uses memory for SECONDS, and prints the highest as JSON.

The working set is what `docker stats` shows: usage without inactive file pages.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import time

ENGINE = ("dockerd", "containerd", "containerd-shim", "docker-proxy")
COUNTED = ("pgmajfault", "oom_kill")


def read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def pairs(text: str) -> dict[str, int]:
    found = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in found if len(words) == 2 and words[1].isdigit()}


def directories(pid: int) -> tuple[str, str]:
    """A process' path in the memory hierarchy, and that hierarchy's directory."""
    path, base = "", "/sys/fs/cgroup"
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, found = line.split(":", 2)
        if "memory" in controllers.split(","):
            return found, "/sys/fs/cgroup/memory"
        if controllers == "":
            path = found
    return path, base


def group(directory: str) -> dict[str, int]:
    """What the kernel has charged to a cgroup, version 1 or 2."""
    stat = pairs(read(f"{directory}/memory.stat"))
    if "total_rss" in stat:
        used = int(read(f"{directory}/memory.usage_in_bytes") or 0)
        return {
            "working_set": used - stat["total_inactive_file"],
            "anon": stat["total_rss"],
            "shmem": stat.get("total_shmem", 0),
            "kernel": int(read(f"{directory}/memory.kmem.usage_in_bytes") or 0),
            "pgmajfault": stat["total_pgmajfault"],
            "oom_kill": pairs(read(f"{directory}/memory.oom_control")).get("oom_kill", 0),
        }
    used = int(read(f"{directory}/memory.current") or 0)
    return {
        "working_set": used - stat.get("inactive_file", 0),
        "anon": stat.get("anon", 0),
        "shmem": stat.get("shmem", 0),
        "kernel": stat.get("kernel", 0),
        "pgmajfault": stat.get("pgmajfault", 0),
        "oom_kill": pairs(read(f"{directory}/memory.events")).get("oom_kill", 0),
    }


def whole() -> dict[str, int]:
    """The box around everything, or the machine: the nearest limit above init, else all RAM."""
    path, base = directories(1)
    while True:
        limit = read(f"{base}{path}/memory.limit_in_bytes") or read(f"{base}{path}/memory.max")
        if limit.isdigit() and int(limit) < 1 << 50:
            return group(f"{base}{path}") | {"limit": int(limit)}
        if path in ("", "/"):
            break
        path = path.rpartition("/")[0]
    info = {
        k: v * 1024
        for k, v in pairs(read("/proc/meminfo").replace(":", "").replace(" kB", "")).items()
    }
    return {
        "limit": info["MemTotal"],
        "anon": info["AnonPages"],
        "shmem": info["Shmem"],
        "kernel": info["SUnreclaim"] + info["KernelStack"] + info["PageTables"],
    }


def process(pid: int) -> dict[str, int]:
    rollup = read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]
    values = pairs("\n".join(f"{line.split()[0].rstrip(':')} {line.split()[1]}" for line in rollup))
    return {
        "pss": values.get("Pss", 0) * 1024,
        "rss": values.get("Rss", 0) * 1024,
        "anon": values.get("Pss_Anon", 0) * 1024,
        # Not the rollup's `Locked`: that is a share, and Traefik maps the same pages.
        "locked": pairs(status(pid)).get("VmLck", 0) * 1024,
    }


def status(pid: int) -> str:
    return read(f"/proc/{pid}/status").replace(":", "").replace(" kB", "")


def add(total: dict[str, int], one: dict[str, int]) -> None:
    for key, value in one.items():
        total[key] = total.get(key, 0) + value


def mine() -> set[int]:
    """This program and the SSH session it runs in: no part of what is measured."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        if read(f"/proc/{pid}/comm") == "sshd" and "listener" in read(f"/proc/{pid}/cmdline"):
            break
        pids.add(pid)
        pid = int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
    return pids


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


found = {}
for name in run("docker", "ps", "--format", "{{.Names}}").split():
    pid = json.loads(run("docker", "inspect", name))[0]["State"]["Pid"]
    path, base = directories(pid)
    found[name.removeprefix("koprogo-").removesuffix("-1")] = f"{base}{path}"

ours = mine()
most: dict[str, dict[str, int]] = {}
first: dict[str, dict[str, int]] = {}


def note(name: str, values: dict[str, int]) -> None:
    first.setdefault(name, values)
    kept = most.setdefault(name, dict(values))
    for key, value in values.items():
        kept[key] = max(kept[key], value)


end = time.monotonic() + SECONDS  # noqa: F821 - put in front
while True:
    for name, directory in found.items():
        note(name, group(directory))
    note("whole", whole())
    groups: dict[str, dict[str, int]] = {"engine": {}, "locked": {}, "system": {}}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        number = int(entry.name)
        path, base = directories(number)
        if f"{base}{path}" in found.values():
            continue
        command = read(f"/proc/{number}/comm")
        kind = "engine" if command.startswith(ENGINE) else "system"
        with contextlib.suppress(IndexError):
            add(groups["locked" if command == "vmtouch" else kind], process(number))
    for name, values in groups.items():
        note(name, values)
    if time.monotonic() >= end:
        break
    time.sleep(0.5)

for name, values in most.items():
    for key in COUNTED:
        if key in values:
            values[f"{key}_meanwhile"] = values[key] - first[name][key]
print(json.dumps(most))
