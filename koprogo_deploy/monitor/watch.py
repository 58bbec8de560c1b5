"""The watcher's side: starts the probe on the host, and collects what it sends.

A thread of its own and plain pipes: it works beside any event loop, and a load that keeps the
loop busy loses no sample.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from koprogo_deploy import connection, database, render
from koprogo_deploy.door import Environment
from koprogo_deploy.monitor import probe
from koprogo_deploy.operations.shell import PROJECT
from koprogo_deploy.runs.sample import Sample
from koprogo_deploy.settings import SERVICES

LONGEST = 6 * 3600  # seconds; a probe that nobody ends, ends itself
ROUND_TRIPS = 5
END_WITHIN = 5.0
METRICS_PORT = 8082  # Traefik's internal entry point

# The probe comes by standard input and stays tied to it: no file on the host, nothing left behind.
_BOOT = """
import json, os, sys, types
size, data = int(sys.argv[2]), b""
while len(data) < size:
    data += os.read(0, size - len(data)) or sys.exit(3)
for name, text in json.loads(data):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules[name].main(json.loads(sys.argv[1]))
"""


def program() -> bytes:
    """The probe: its modules in their order, below packages that are empty on the host."""
    name = probe.__name__
    packages = [name.rsplit(".", levels)[0] for levels in (2, 1)] + [name]
    folder = Path(probe.__file__).parent
    modules = [(f"{name}.{m}", (folder / f"{m}.py").read_text("utf-8")) for m in probe.MODULES]
    return json.dumps([*((package, "") for package in packages), *modules]).encode()


class Monitor:
    """Watches an environment's host from `__enter__` to `__exit__`.

    Attributes:
        samples: all so far, oldest first; only ever appended to.
        problem: why there are none or not all; empty while all is well.
        clock_offset: the host's clock minus ours, in seconds; None until it was asked.

    Args:
        environment: whose host.
        interval: seconds between two samples.
        on_sample: called with each, in the monitor's own thread.
        longest: seconds after which the probe ends by itself.
    """

    def __init__(
        self,
        environment: Environment,
        interval: float = 1.0,
        on_sample: Callable[[Sample], None] | None = None,
        longest: float = LONGEST,
    ) -> None:
        self.environment = environment
        self.interval = interval
        self.on_sample = on_sample
        self.longest = longest
        self.samples: list[Sample] = []
        self.problem = ""
        self.clock_offset: float | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="koprogo monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the probe and wait until it has; the samples stay."""
        self._ended.set()
        process = self._process
        if process and process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()  # the probe ends with its input
        self._thread.join(END_WITHIN)
        process = self._process
        if process and process.poll() is None:
            process.kill()
            self._thread.join(END_WITHIN)

    @property
    def latest(self) -> Sample | None:
        """The newest sample."""
        return self.samples[-1] if self.samples else None

    @property
    def running(self) -> bool:
        """Whether samples may still come."""
        return self._thread.is_alive()

    def wait(self, timeout: float) -> bool:
        """Wait for the first sample with rates.

        Args:
            timeout: seconds.

        Returns:
            Whether it came; if not, `problem` may say why.
        """
        deadline = time.monotonic() + timeout
        while not self._ready.wait(min(0.1, max(0.0, deadline - time.monotonic()))):
            if not self.running or time.monotonic() >= deadline:
                break
        return self._ready.is_set()

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            began = time.monotonic()
            lost = self._watch()
            if self._ended.is_set():
                return
            passed = time.monotonic() - began
            if not lost:
                self.problem = f"the probe ended by itself after {passed:.0f} s"
                return
            after = f"connection lost after {passed:.0f} s: {lost}"
            if not self.samples:
                self.problem = lost
                return
            # What was missed is missing, whether it can be reached again or not.
            self.problem = after
            lost = self._watch()
            if lost and not self._ended.is_set():
                self.problem = f"{after}; and again: {lost}"
        except Exception as error:  # a thread's end would go unseen
            self.problem = f"the monitor failed: {type(error).__name__}: {error}"

    def _watch(self) -> str:
        """Run one probe to its end; why it ended, empty if it was to."""
        sent = program()
        line = command(self.environment, self.interval, self.longest, len(sent))
        process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
        self._process = process
        said: list[bytes] = []
        assert process.stdin and process.stdout and process.stderr
        errors = process.stderr
        # Beside: a full pipe would stop the probe.
        reader = threading.Thread(target=lambda: said.extend(errors), daemon=True)
        reader.start()
        try:
            with process.stdin, process.stdout:
                with contextlib.suppress(OSError):
                    process.stdin.write(sent)
                    process.stdin.flush()
                    self._ask_time(process)
                    if self._ended.is_set():
                        process.stdin.close()
                for text in process.stdout:
                    self._take(text)
        except ValueError:
            pass  # closed by stop()
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_WITHIN)
            if process.poll() is None:
                process.kill()
                process.wait()
            reader.join(1.0)
            process.stderr.close()
        return ended_by(process.returncode, b"".join(said).decode(errors="replace"))

    def _ask_time(self, process: subprocess.Popen[bytes]) -> None:
        """The host's clock, by the fastest of some round trips."""
        assert process.stdin and process.stdout
        best = float("inf")
        for _ in range(ROUND_TRIPS):
            sent = time.time()
            process.stdin.write(b"clock\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            came = time.time()
            if not answer:
                return
            if came - sent < best:
                best = came - sent
                self.clock_offset = float(json.loads(answer)["clock"]) - (sent + came) / 2
        process.stdin.write(b"go\n")
        process.stdin.flush()

    def _take(self, text: bytes) -> None:
        try:
            sample = Sample.model_validate_json(text)
        except ValidationError as error:
            self.problem = f"the probe sent what is no sample: {error.errors()[0]['msg']}"
            return
        self.samples.append(sample)
        if len(self.samples) > 1:
            self._ready.set()
        if self.on_sample:
            self.on_sample(sample)


def config(environment: Environment, interval: float, longest: float) -> dict[str, Any]:
    """What the probe is told: see `probe.loop.main`."""
    settings = environment.settings
    return {
        "interval": interval,
        "seconds": longest,
        "engine": "/var/run/docker.sock",
        "project": PROJECT,
        "services": list(SERVICES),
        "postgres_user": render.USERS["postgres"],
        "role": database.OBSERVER,
        "database": "koprogo_db",
        "traefik": render.traefik_address(settings.edge_network),
        "traefik_port": METRICS_PORT,
    }


def command(environment: Environment, interval: float, longest: float, size: int) -> list[str]:
    """The command line that runs a probe of `size` bytes, which then comes by standard input."""
    told = json.dumps(config(environment, interval, longest))
    remote = f"exec sudo -n python3 -c {shlex.quote(_BOOT)} {shlex.quote(told)} {size}"
    line = connection.ssh_command(environment, remote)
    if line[0] != "ssh":
        return line
    # A connection of its own: others close the shared one, and this one notices a dead link.
    options = {"ControlPath": "none", "ServerAliveInterval": 5, "ServerAliveCountMax": 3}
    own = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return [line[0], *own, "-o", "ConnectTimeout=15", *line[1:]]


def ended_by(code: int, said: str) -> str:
    """Why a probe ended, for people; empty if it was to.

    Args:
        code: the exit code of ssh, or of the shell.
        said: its standard error.
    """
    last = said.strip().splitlines()[-1].strip() if said.strip() else ""
    if code == 0:
        return ""
    if code == 127 or ("python3" in last and "not found" in last):
        return "python3 is missing on the host; koprogo's deploy installs it"
    if "sudo" in last:
        return f"no root on the host without a password: {last}"
    if code == 255:
        return last or "SSH ended"
    return last or f"the probe ended with {code}"
