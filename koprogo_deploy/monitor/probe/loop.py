"""The loop: a look at everything, each interval, for as long as somebody listens."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import select
import signal
import time
from collections.abc import Mapping
from typing import Any

from koprogo_deploy.monitor.probe.engine import Engine
from koprogo_deploy.monitor.probe.host import Host
from koprogo_deploy.monitor.probe.keep import Rates, Sheet
from koprogo_deploy.monitor.probe.parse import UnreadError
from koprogo_deploy.monitor.probe.postgres import Database
from koprogo_deploy.monitor.probe.traefik import Proxy

ANSWER_WITHIN = 0.6  # of the interval: how long the database and the proxy may take to answer


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
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        run(Probe(config), float(config["seconds"]))


def run(probe: Probe, seconds: float) -> None:
    """The loop itself."""
    tell_time()
    began, number = time.monotonic(), 0
    while True:
        os.write(1, json.dumps(probe.sample(), separators=(",", ":")).encode() + b"\n")
        number = missed(began, probe.interval, number, time.monotonic())
        due = began + number * probe.interval
        if due > began + seconds:
            return
        # At a moment of its own: the look itself must not be what is counted.
        spare = due - time.monotonic()
        wait_until(due - spare * random.uniform(0.1, 0.8))  # noqa: S311 - no secret
        probe.look_at_tasks()
        wait_until(due)
