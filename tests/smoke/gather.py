"""Runs on the host, as root, and prints one JSON object of what the smoke tests look at.

One command instead of a hundred: a round trip costs more than the look.
"""

import hashlib
import itertools
import json
import pathlib
import re
import subprocess


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def cgroup(pid: int) -> dict[str, str]:
    """Limits as the kernel has them, cgroup v1 or v2, of the cgroup that a process is in."""
    values = {}
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = f"/sys/fs/cgroup{path}"
            values["memory"] = values.get("memory") or read(f"{base}/memory.max")
            values["swap"] = values.get("swap") or read(f"{base}/memory.swap.max")
            quota = read(f"{base}/cpu.max").split()
            values["quota"] = values.get("quota") or (quota[0] if quota else "")
            values["weight"] = read(f"{base}/cpu.weight")
            values["used"] = values.get("used") or read(f"{base}/memory.current")
            values["stat"] = values.get("stat") or read(f"{base}/memory.stat")
            unit = path.rpartition("/")[2]
            if unit.endswith(".scope"):
                values["systemd_swap"] = run(
                    "systemctl", "show", "--property", "MemorySwapMax", "--value", unit
                )
        elif "memory" in controllers.split(","):
            base = f"/sys/fs/cgroup/memory{path}"
            values["memory"] = read(f"{base}/memory.limit_in_bytes")
            values["memsw"] = read(f"{base}/memory.memsw.limit_in_bytes")
            values["used"] = read(f"{base}/memory.usage_in_bytes")
            values["stat"] = read(f"{base}/memory.stat")
        elif "cpu" in controllers.split(","):
            values["quota"] = read(f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us")
            values["shares"] = read(f"/sys/fs/cgroup/cpu{path}/cpu.shares")
    return values


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/<pid>/status, by name."""
    lines = read(f"/proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def logs(container: str, lines: int = 200) -> str:
    """The first and the last lines of a container's log; empty if it cannot be read.

    Both of its streams: Postgres, the backend and nginx write to standard error.
    """
    command = ("docker", "logs", container)
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    last = subprocess.run([*command, "--tail", str(lines)], errors="replace", check=False, **both)
    with subprocess.Popen(command, errors="replace", **both) as whole:
        first = "".join(itertools.islice(whole.stdout, lines))
        whole.kill()
    return first + last.stdout if last.returncode == 0 else ""


def answers_to_the_host(*paths: str) -> dict[str, str]:
    """Status of each path at the front door, asked by the host itself, which is on no list.

    It says that it is somebody who is: a proxy that believed that would let anybody in.
    """
    there = [("-o", "/dev/null", f"https://{API}{path}") for path in paths]  # noqa: F821
    found = run(
        "curl", "-sk", "-m", "10", "--resolve", f"{API}:443:127.0.0.1",  # noqa: F821
        "-H", f"X-Forwarded-For: {LISTED}", "-w", r"%{http_code}\n",  # noqa: F821
        *(word for words in there for word in words),
    )  # fmt: skip
    return dict(zip(paths, found.split(), strict=True))


ids = run("docker", "ps", "-q", "--filter", "label=com.docker.compose.project=koprogo").split()
containers = {}
if ids:
    for found in json.loads(run("docker", "inspect", *ids)):
        pid = found["State"]["Pid"]
        containers[found["Config"]["Labels"]["com.docker.compose.service"]] = {
            "inspect": found,
            "cgroup": cgroup(pid),
            "status": status(pid),
        }

root = pathlib.Path(ROOT)  # noqa: F821 - the test puts the install root in front


def manifest(release: str) -> dict[str, object]:
    """The manifest of `current` or `candidate`; empty where there is none."""
    return dict(json.loads(read(str(root / release / "manifest.json")) or "{}"))


def digest(file: pathlib.Path) -> str:
    """SHA-256 of a file; empty where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


candidate = (root / "candidate").exists()
serving = "candidate" if candidate and VERIFYING else "current"  # noqa: F821
secrets = {}
for file in sorted(root.glob("secrets/*/*")):
    stat = file.stat()
    secrets[str(file)] = [oct(stat.st_mode & 0o777), stat.st_uid]

listeners = re.findall(r"^(\w+)\s+\w+\s+\d+\s+\d+\s+(\S+):(\d+)", run("ss", "-Hlntu"), re.M)
group = run("getent", "group", "koprogo-admins").rpartition(":")[2]
managed = {
    name: run("sshd", "-T", "-C", f"user={name},host=x,addr=192.0.2.1")
    for name in group.split(",")
    if name
}
bridges = {
    f"{network['Gateway']}/{network['IPPrefixLen']}"
    for found in containers.values()
    for network in found["inspect"]["NetworkSettings"]["Networks"].values()
    if network["Gateway"]
}
units = ["docker", "koprogo-traefik-binary", "ssh", "systemd-timesyncd", "unattended-upgrades"]
print(
    json.dumps(
        {
            "containers": containers,
            "secrets": secrets,
            "secrets_directory": oct((root / "secrets").stat().st_mode & 0o777),
            "manifest": manifest(serving),
            "routes": digest(root / "traefik/dynamic/dynamic.yaml"),
            "migrations": read(str(root / serving / "migrations.txt")).split(),
            "candidate": candidate and not VERIFYING,  # noqa: F821 - put in front as well
            "verifying": VERIFYING,  # noqa: F821
            "listeners": [list(listener) for listener in listeners],
            "bridges": sorted(bridges),
            "maintenance": (root / "traefik/dynamic/maintenance.yaml").exists(),
            "superadmin": answers_to_the_host(
                "/api/v1/users", "/api/v1/organizations", "/api/v1/stats/dashboard"
            ),
            "units": {unit: run("systemctl", "is-active", unit) for unit in units},
            "enabled": {unit: run("systemctl", "is-enabled", unit) for unit in units},
            "sshd": run("sshd", "-T"),
            "managed": managed,
            "journald": run("systemd-analyze", "cat-config", "systemd/journald.conf"),
            "swaps": read("/proc/swaps"),
            "sysctl": dict(
                line.split(" = ", 1) for line in run("sysctl", "-a").splitlines() if " = " in line
            ),
            "timezone": run("readlink", "-f", "/etc/localtime"),
            # The system's, the engine's and ours may be three.
            "disks": {
                row.split()[5]: int(row.split()[4].rstrip("%"))
                for row in run("df", "-P", "/", "/var/lib/docker", ROOT).splitlines()[1:]  # noqa: F821
            },
            "logs": {name: logs(found["inspect"]["Id"]) for name, found in containers.items()},
        }
    )
)
