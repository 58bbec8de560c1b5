"""Runs on the host, as root: CPU counters of each container and of the machine, twice a second.

One JSON line each time, until standard input ends: whoever started it is gone then.

With arguments it sets CPU quotas instead, in the cgroups themselves, so that no definition of a
container changes: `traefik=0.25 backend=none`; then it prints what the kernel says it has.
"""

from __future__ import annotations

import json
import pathlib
import select
import subprocess
import sys
import time

PERIOD = 0.5
CFS_PERIOD = 100_000  # microseconds: Docker's own for `--cpus`
ROOT = "/sys/fs/cgroup"


def read(path: str) -> str:
    """A file of the kernel's; empty if there is none."""
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    found = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in found if len(words) == 2 and words[1].isdigit()}


def directories(pid: int) -> dict[str, str]:
    """Where the CPU of a process' cgroup is counted: `cpu` and `cpuacct`; one in version 2."""
    paths = {}
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            paths[name] = path.removesuffix("/init.scope")
    if "cpuacct" in paths:
        return {name: f"{ROOT}/{name}{paths[name]}" for name in ("cpu", "cpuacct")}
    return dict.fromkeys(("cpu", "cpuacct"), f"{ROOT}{paths['']}")


def containers() -> dict[str, dict[str, str]]:
    """The cgroups of the project's containers, by service without its colour."""
    shown = subprocess.check_output(
        ["docker", "ps", "--filter", "label=com.docker.compose.project=koprogo", "--format",
         '{{.ID}} {{.Label "com.docker.compose.service"}}'],
        text=True,
    )  # fmt: skip
    found = {}
    for line in shown.splitlines():
        number, service = line.split()
        pid = subprocess.check_output(["docker", "inspect", "-f", "{{.State.Pid}}", number])
        found[service.partition("-")[0]] = directories(int(pid))
    return found


def count(group: dict[str, str]) -> dict[str, int]:
    """CPU time in microseconds, and periods of a quota: how many, how many throttled."""
    stat = pairs(read(f"{group['cpu']}/cpu.stat"))
    usage = read(f"{group['cpuacct']}/cpuacct.usage")
    return {
        "usage": int(usage) // 1000 if usage else stat.get("usage_usec", 0),
        "periods": stat.get("nr_periods", 0),
        "throttled": stat.get("nr_throttled", 0),
    }


def limit(group: dict[str, str], cpus: float | None) -> None:
    """Give a cgroup a quota, or take it away."""
    own = pathlib.Path(group["cpu"])
    quota = None if cpus is None else round(cpus * CFS_PERIOD)
    if (own / "cpu.max").exists():
        (own / "cpu.max").write_text(f"{quota or 'max'} {CFS_PERIOD}")
    else:
        (own / "cpu.cfs_period_us").write_text(str(CFS_PERIOD))
        (own / "cpu.cfs_quota_us").write_text(str(quota or -1))


def limited(group: dict[str, str]) -> float | None:
    """The CPUs that a cgroup may use at most, as the kernel says; None: no quota."""
    both = read(f"{group['cpu']}/cpu.max").split()
    if not both:
        both = [read(f"{group['cpu']}/cpu.cfs_{name}_us") for name in ("quota", "period")]
    return None if both[0] in ("max", "-1") else int(both[0]) / int(both[1])


def main(arguments: list[str]) -> None:
    """Set quotas, or count until standard input ends."""
    groups = containers()
    if arguments:
        for argument in arguments:
            service, _, cpus = argument.partition("=")
            limit(groups[service], None if cpus == "none" else float(cpus))
        print(json.dumps({service: limited(group) for service, group in groups.items()}))
        return
    groups["machine"] = directories(1)
    while True:
        found = {name: count(group) for name, group in groups.items()}
        print(json.dumps({"at": time.time(), "counts": found}), flush=True)
        if select.select([sys.stdin], [], [], PERIOD)[0]:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
