"""The containers, by the engine's own word."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from koprogo_deploy.monitor.probe.groups import Group, docker_stats_memory
from koprogo_deploy.monitor.probe.keep import FIRST, File, Rates, Sheet
from koprogo_deploy.monitor.probe.parse import UnreadError, cgroup_paths, http_body

T = TypeVar("T")

COLOURS = ("blue", "green")


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
            self.stale, self.problem = not self._list(), ""
        except (UnreadError, OSError, ValueError, KeyError) as error:
            self.problem = str(error)
            self.next_try = now + 1.0

    def _unlisten(self) -> None:
        if self.events:
            self.events.close()
        self.events, self.stale = None, True

    def _list(self) -> bool:
        """Look at every container; whether all that were listed still ran."""
        whole = True
        filters = quote(json.dumps({"label": [self.label]}))
        found = {}
        for listed in self.ask(f"/containers/json?filters={filters}"):
            try:
                container = Container(
                    self.root, self.proc, self.ask(f"/containers/{listed['Id']}/json")
                )
            except UnreadError:
                whole = False  # it has ended, or is just being started
                continue
            found[container.service] = container
        for container in self.containers.values():
            container.group.close()
        staying = {container.key for container in found.values()}
        self.gone += [c.key for c in self.containers.values() if c.key not in staying]
        self.names = short_names([(c.service, c.created) for c in found.values()], self.names)
        self.containers = {self.names[service]: c for service, c in found.items()}
        return whole

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
