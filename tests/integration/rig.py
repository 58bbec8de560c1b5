"""What the integration tests do to a sandbox: deploy with the real pyinfra, look, cut, load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

from koprogo_deploy import connection, door
from koprogo_deploy.operations import lock
from koprogo_deploy.operations.shell import psql
from koprogo_deploy.outside import Outside
from koprogo_deploy.render import container_names
from sandbox import box, client, engine, lifecycle
from sandbox.state import Kind, Sandbox, State

ROOT = door.ROOT
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
ENVIRONMENT = {**os.environ, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}
_ROW = re.compile(r"^ {4}(\S.*?) {2,}(\d+|-) +(\d+|-) +(\d+|-) +(\d+|-) *$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A finished pyinfra run."""

    code: int
    output: str
    seconds: float = 0.0

    @property
    def changed(self) -> list[str]:
        """Operations that the table of results says changed something."""
        return [row[0] for row in self._rows() if row[2] != "-"]

    @property
    def unchanged(self) -> int:
        """How many operations changed nothing."""
        return sum(row[4] != "-" for row in self._rows())

    @property
    def begun(self) -> list[str]:
        """Operations that began, in their order."""
        return re.findall(r"^--> Starting operation: (.*?) *$", self.output, re.MULTILINE)

    @property
    def would_change(self) -> list[str]:
        """Operations that `--dry` says would change something."""
        found = re.findall(r"^ {4}(\S.*? \| .*?) {2,}(\d+ \(|-)", self.output, re.MULTILINE)
        return [name for name, change in found if change != "-"]

    @property
    def asked(self) -> list[str]:
        """Operations that `--dry` asked whether they would change something, in their order."""
        return re.findall(r"^ {4}(\S.*? \| .*?) {2,}(?:\d+ \(|-)", self.output, re.MULTILINE)

    def _rows(self) -> list[tuple[str, ...]]:
        _, _, results = self.output.partition("--> Results:")
        return [row for row in _ROW.findall(results) if " | " in row[0]]


@dataclass
class Rig:
    """A sandbox and the ways to work on it."""

    sandbox: Sandbox
    state: State
    docker: client.Docker = field(default_factory=engine.require)

    @property
    def environment(self) -> door.Environment:
        """Read anew each time: a test changes the secrets."""
        return door.open_environment("sandbox")

    # --- deploy ----------------------------------------------------------------------------------

    def command(self, deploy: str, arguments: tuple[str, ...], data: dict[str, Any]) -> list[str]:
        """The command line of a run; each of `data` becomes a `--data`."""
        values = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in data.items()]
        options = [part for value in values for part in ("--data", value)]
        yes = () if {"--dry", "--no-yes"} & set(arguments) else ("-y",)
        rest = [a for a in arguments if a != "--no-yes"]
        return [PYINFRA, "inventories/sandbox.py", f"deploys/{deploy}.py", *yes, *rest, *options]

    def start(self, *arguments: str, deploy: str = "full", **data: Any) -> subprocess.Popen[str]:
        """Start a run in a process group of its own; its output is a pipe of lines."""
        return subprocess.Popen(
            self.command(deploy, arguments, data),
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def deploy(
        self, *arguments: str, deploy: str = "full", within: float = 300, **data: Any
    ) -> Run:
        """Run a deploy to its end; it is killed when it takes longer than `within` seconds."""
        began = time.monotonic()
        process = self.start(*arguments, deploy=deploy, **data)
        try:
            output, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            end(process)
            output, _ = process.communicate()
            raise AssertionError(f"no end within {within:.0f} s:\n{output[-4000:]}") from None
        return Run(process.returncode, output, time.monotonic() - began)

    def converge(self, **data: Any) -> Run:
        """A deploy that has to succeed."""
        run = self.deploy(**data)
        assert run.code == 0, run.output[-6000:]
        return run

    # --- look ------------------------------------------------------------------------------------

    def on_host(
        self, command: str, *, stdin: str = "", check: bool = True, within: float = 60
    ) -> str:
        """Standard output of a shell command run as root on the host, over OpenSSH."""
        line = f"sudo -n sh -c {shlex.quote(command)}"
        done = subprocess.run(
            connection.ssh_command(self.environment, line),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sql(self, statements: str) -> str:
        """What the application's database answers, asked as superuser."""
        return self.on_host(psql(), stdin=statements).strip()

    def containers(self) -> dict[str, dict[str, Any]]:
        """`docker inspect` of the project's containers, by Compose service."""
        text = self.on_host(
            "docker ps -aq --filter label=com.docker.compose.project=koprogo | "
            "xargs -r docker inspect"
        )
        return {
            found["Config"]["Labels"]["com.docker.compose.service"]: found
            for found in json.loads(text or "[]")
        }

    def started(self) -> dict[str, str]:
        """When each service's container was started, by service without its colour."""
        return {
            name.partition("-")[0]: f"{found['Id'][:12]} {found['State']['StartedAt']}"
            for name, found in self.containers().items()
        }

    def manifest(self) -> dict[str, Any]:
        """Manifest of the serving release."""
        found = self.on_host("cat /opt/koprogo/current/manifest.json")
        manifest: dict[str, Any] = json.loads(found)
        return manifest

    def routed(self) -> dict[str, Any]:
        """Manifest of the release that requests go to, the one that counts or the next one."""
        text = self.on_host(
            "cd /opt/koprogo; sha256sum < traefik/dynamic/dynamic.yaml | cut -d' ' -f1; "
            "for link in current candidate; do "
            "[ ! -e $link ] || tr -d '\\n' < $link/manifest.json; echo; done"
        )
        digest, *manifests = text.strip().splitlines()
        found = [json.loads(line) for line in manifests if line]
        (routed,) = [each for each in found if each["dynamic"] == digest]
        return dict(routed)

    def files(self) -> dict[str, list[Any]]:
        """Inode, size, mode, owner and time of every file that a deploy could write."""
        found: dict[str, list[Any]] = json.loads(self.on_host(f"python3 -c {shlex.quote(_FILES)}"))
        return found

    def touched(self, before: Mapping[str, list[Any]]) -> dict[str, tuple[Any, Any]]:
        """What of `files` is other than before: each path, as it was and as it is."""
        now = self.files()
        paths = sorted(now.keys() | before.keys())
        return {p: (before.get(p), now.get(p)) for p in paths if now.get(p) != before.get(p)}

    def probes(self) -> list[str]:
        """Process ids of the monitor's probes on the host, and of the sudo of each."""
        return self.on_host("pgrep -f 'python3 -c .*koprogo_observe[r]' || true").split()

    def leftovers(self) -> list[str]:
        """What an interrupted deploy left behind: nothing, after one that ran to its end."""
        found = self.on_host(
            "cd /opt/koprogo; ls -d candidate candidate.new current.new secrets/new rehearsal "
            "releases/.[!.]* config/.[!.]* traefik/dynamic/.[!.]* dumps/*.part dumps/.[!.]* "
            "2>/dev/null; docker ps -a --format '{{.Names}}' | grep -E 'scratch|rehearsal'; "
            "docker network ls --format '{{.Name}}' | grep scratch; "
            "ls -d /tmp/*koprogo* /tmp/pyinfra* 2>/dev/null; "
            f"ls {lock.PATH}.holder 2>/dev/null; true"
        ).split()
        wanted = set(container_names(self.manifest()["colours"]).values())
        return found + sorted(set(self.containers()) ^ wanted)

    def cgroup(self, service: str) -> dict[str, int]:
        """Memory of a service's container as the kernel counts it, in bytes; faults in pages."""
        found: dict[str, int] = json.loads(
            self.on_host(f"python3 -c {shlex.quote(_CGROUP)} koprogo-{service}-1")
        )
        return found

    def image(self, base: str, script: str) -> str:
        """Another image in the box's registry: `base` after a script that runs in it as root."""
        made = f"{base.rpartition(':')[0]}:test-{time.time_ns()}"
        look = f"docker pull -q {base} >&2; docker image inspect -f '{{{{.Config.User}}}}' {base}"
        user = self.on_host(look).strip() or "0"
        run = json.dumps(["sh", "-ec", script])
        build = "DOCKER_BUILDKIT=0 docker build -q -t"
        self.on_host(
            f"set -e; {build} {made} -; docker push -q {made}; docker image rm {made}",
            stdin=f"FROM {base}\nUSER 0\nRUN {run}\nUSER {user}\n",
            within=120,
        )
        return made

    def migrating_image(self, version: int, sql: str, script: str = "") -> str:
        """A backend image with one migration more; `script` changes what else is in it."""
        file = f"/app/migrations/{version}_of_a_test.sql"
        write = f"printf '%s' {shlex.quote(sql)} > {file}"
        return self.image(self.environment.settings.backend_image, f"{write}\n{script}")

    # --- disturb ---------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Close the shared SSH connection of our own commands."""
        line = connection.ssh_command(self.environment, "true")
        subprocess.run([*line[:3], "-O", "exit", line[3]], capture_output=True, check=False)

    def cut_ssh(self) -> int:
        """Kill every SSH session on the host, as a lost connection does; how many there were."""
        listing = self.docker.call("exec", self.sandbox.vps, "ps", "-eo", "pid=,args=").stdout
        pids = re.findall(r"^\s*(\d+) sshd(?:-session)?: debian", listing, re.MULTILINE)
        if pids:
            self.docker.call("exec", self.sandbox.vps, "kill", "-9", *pids, check=False)
        return len(pids)

    def reboot(self, *, hard: bool = False, cold: bool = False) -> None:
        """Reboot the VPS; `cold`: with the machine's page cache dropped while a box is off.

        A virtual machine's page cache is its own: it is empty after each reboot.
        """
        self.hang_up()
        box.hang_up(self.sandbox, self.state)
        if cold and self.state.kind is Kind.box:
            self.docker.call("stop", "--time", "60", self.sandbox.vps)
            drop_page_cache()
            self.docker.call("start", self.sandbox.vps)
        else:
            lifecycle.restart(self.sandbox, self.state, hard=hard)

    def wait_for_ssh(self) -> None:
        """Until the VPS has booted."""
        lifecycle.wait(self.sandbox, self.state)

    def wait_for_site(self, within: float) -> float:
        """Wait for the first 200 through TLS, and return when it came (`time.monotonic`)."""
        deadline = time.monotonic() + within
        reason = "nothing"
        while time.monotonic() < deadline:
            with Outside(self.environment.settings, timeout=2) as outside:
                try:
                    answer = outside.api.get("/health")
                    if answer.status_code == 200:
                        return time.monotonic()
                    reason = str(answer.status_code)
                except httpx2.HTTPError as error:
                    reason = repr(error)
            time.sleep(0.05)
        raise AssertionError(f"no 200 within {within:.0f} s: {reason}")

    def wait_until_healthy(self, within: float = 60, only: Mapping[str, str] | None = None) -> None:
        """Until every container runs, and is healthy if it has a healthcheck.

        Args:
            within: seconds.
            only: Compose services to look at, by service; all that there are without it.
        """
        deadline = time.monotonic() + within
        while True:
            there = self.containers()
            bad = dict.fromkeys(set(only.values() if only else ()) - set(there), "not there")
            bad |= {
                name: found["State"]["Status"]
                for name, found in there.items()
                if (only is None or name in only.values())
                and (
                    found["State"]["Status"] != "running"
                    or found["State"].get("Health", {}).get("Status", "healthy") != "healthy"
                )
            }
            if not bad:
                return
            assert time.monotonic() < deadline, f"not healthy within {within:.0f} s: {bad}"
            time.sleep(0.3)


_FILES = r"""
import json, os, subprocess
found = {}
roots = ["/opt/koprogo", "/etc/docker", "/etc/ssh", "/etc/sudoers.d", "/etc/sysctl.d",
         "/etc/systemd/system", "/etc/systemd/journald.conf.d", "/etc/apt/apt.conf.d",
         "/etc/localtime", "/etc/fstab", "/etc/passwd", "/var/lib/dpkg/status"]
for root in roots:
    paths = [root] + [os.path.join(d, n) for d, ds, fs in os.walk(root) for n in ds + fs]
    for path in paths:
        if os.path.lexists(path):
            s = os.lstat(path)
            found[path] = [s.st_ino, s.st_size, s.st_mode, s.st_uid, s.st_mtime_ns]
for unit in ("docker", "ssh", "systemd-journald", "koprogo-traefik-binary"):
    found[unit] = [subprocess.run(["systemctl", "show", unit, "-p", "ActiveEnterTimestamp"],
                   capture_output=True, text=True).stdout]
print(json.dumps(found))
"""

_CGROUP = r"""
import json, pathlib, subprocess, sys
pid = subprocess.check_output(
    ["docker", "inspect", "-f", "{{.State.Pid}}", sys.argv[1]], text=True).strip()
for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
    _, controllers, path = line.split(":", 2)
    if "memory" in controllers.split(","):
        base, names = "/sys/fs/cgroup/memory" + path, ("memory.usage_in_bytes", "total_")
        break
else:
    base, names = "/sys/fs/cgroup" + path, ("memory.current", "")
base = pathlib.Path(base)
stat = dict(l.split() for l in (base / "memory.stat").read_text().splitlines())
used = int((base / names[0]).read_text())
anonymous = stat.get(names[1] + "rss") or stat.get("anon")
print(json.dumps({
    # As `docker stats` shows it.
    "used": used - int(stat[names[1] + "inactive_file"]),
    "anonymous": int(anonymous),
    "pgmajfault": int(stat[names[1] + "pgmajfault"]),
}))
"""


def said(process: subprocess.Popen[str], words: str) -> list[str]:
    """Wait for a run to say this; what it said so far, by line.

    Raises:
        AssertionError: it ended without a word of it.
    """
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"{words!r} was never said:\n{''.join(lines)[-4000:]}")


def end(process: subprocess.Popen[str]) -> None:
    """Kill a run and all that it started here."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def drop_page_cache() -> None:
    """Forget every cached page of the machine outside, so that files are read from disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def can_drop_page_cache() -> bool:
    """Whether this user may, on this machine."""
    return os.geteuid() == 0 and os.access("/proc/sys/vm/drop_caches", os.W_OK)


class Watch:
    """Asks `/health` through TLS all the while, on a kept connection and on new ones in turn."""

    def __init__(self, rig: Rig, pause: float = 0.05) -> None:
        self._settings = rig.environment.settings
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(kept,)) for kept in (True, False)]
        self._began = time.monotonic()
        self._answered = {True: 0, False: 0}
        self._failures: dict[bool, list[str]] = {True: [], False: []}
        self._broken: list[BaseException] = []

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """How many requests were answered 200."""
        return sum(self._answered.values())

    @property
    def failures(self) -> list[str]:
        """Requests that were not answered 200, in words.

        Raises:
            AssertionError: on either sort of connection nothing was asked, or not to the end: that
                nothing failed would say nothing.
        """
        assert not self._broken, f"the watch itself broke off: {self._broken}"
        for kept, answered in self._answered.items():
            connections = "a kept connection" if kept else "new connections"
            assert answered or self._failures[kept], f"nothing was asked on {connections}"
        return self._failures[True] + self._failures[False]

    def _run(self, kept: bool) -> None:
        try:
            self._ask(kept)
        except BaseException as error:
            self._broken.append(error)

    def _ask(self, kept: bool) -> None:
        outside = Outside(self._settings, timeout=10)
        while not self._stop.is_set():
            try:
                answer = outside.api.get("/health")
                if answer.status_code == 200:
                    self._answered[kept] += 1
                else:
                    self._failed(kept, f"{answer.status_code} {answer.text[:80]}")
            except httpx2.HTTPError as error:
                self._failed(kept, repr(error))
            if not kept:
                outside.api.close()
                outside = Outside(self._settings, timeout=10)
            self._stop.wait(self._pause)

    def _failed(self, kept: bool, what: str) -> None:
        self._failures[kept].append(f"at {time.monotonic() - self._began:.1f} s: {what}")


@dataclass
class Load:
    """What a closed loop over kept TLS connections saw."""

    seconds: float
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds that so many percent of the answers took at most."""
        ordered = sorted(self.times) or [float("inf")]
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


def load(rig: Rig, connections: int, seconds: float) -> Load:
    """Ask the API's `/health` over so many connections, each request right after the last answer.

    The API, because there alone the sandbox's own machine is exempt from the rate limit.
    """
    settings = rig.environment.settings
    assert settings.public_address == "127.0.0.1", "load stays on this machine"
    context = ssl.create_default_context(cafile=settings.ca_certificate)
    seen = Load(seconds)

    async def client() -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            settings.public_https_port,
            ssl=context,
            server_hostname=settings.api_domain,
        )
        request = f"GET /api/v1/health HTTP/1.1\r\nHost: {settings.api_domain}\r\n\r\n".encode()
        try:
            while True:
                began = time.monotonic()
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = re.search(rb"content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith(b"http/1.1 200"):
                    seen.answered += 1
                    seen.times.append(time.monotonic() - began)
                else:
                    seen.failures.append(head.split(b"\r\n")[0].decode())
        finally:
            writer.close()

    async def one() -> None:
        try:
            await client()
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.failures.append(repr(error))

    async def everybody() -> None:
        tasks = [asyncio.create_task(one()) for _ in range(connections)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(everybody())
    return seen


@contextlib.contextmanager
def instead_of(rig: Rig, program: str, script: str) -> Iterator[None]:
    """Another program under this name, for whoever looks by it."""
    shim = f"/usr/local/bin/{program}"
    rig.on_host(f"cat > {shim}; chmod 755 {shim}", stdin=f"#!/bin/sh\n{script}\n")
    try:
        yield
    finally:
        rig.on_host(f"rm -f {shim}")


@contextlib.contextmanager
def empty_host(rig: Rig) -> Iterator[dict[str, Any]]:
    """A host that nothing was ever deployed to, as `--data` that leads a run there.

    The sandbox's own image with nothing but sshd: enough for what only looks.
    """
    own = rig.sandbox.directory
    script = (
        "mkdir -p /run/sshd; install -m 600 -o debian -g debian /key "
        "/home/debian/.ssh/authorized_keys; "
        "install -m 600 /hostkey /etc/ssh/ssh_host_ed25519_key; exec /usr/sbin/sshd -D"
    )
    made = rig.docker.call(
        "run", "--detach", "--label", rig.sandbox.label, "--publish", "127.0.0.1::22",
        "--volume", f"{own}/id_ed25519.pub:/key:ro",
        "--volume", f"{own}/ssh_host_ed25519_key:/hostkey:ro",
        "--entrypoint", "sh", rig.state.box_image, "-c", script,
    ).stdout.strip()  # fmt: skip
    known_hosts = own / "known_hosts_empty"
    try:
        port = int(rig.docker.call("port", made, "22").stdout.split()[0].rpartition(":")[2])
        kind, key = Path(rig.state.known_hosts).read_text().split()[1:3]
        known_hosts.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
        deadline = time.monotonic() + 20
        while not box.banner(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield {"ssh_port": port, "ssh_known_hosts_file": str(known_hosts)}
    finally:
        rig.docker.call("rm", "--force", made)
        known_hosts.unlink(missing_ok=True)
