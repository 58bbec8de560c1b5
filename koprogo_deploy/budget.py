"""The memory budget: what may be in use at once, at worst, against the machine's RAM.

Pure. Every line is a hard limit of the kernel's (a container) or a reserve measured in the
sandbox (`bench/memory`). If the lines do not fit, the deploy refuses before a host is touched.
"""

from __future__ import annotations

from dataclasses import dataclass

from koprogo_deploy.settings import SERVICES, SWITCHED, Settings
from koprogo_deploy.units import megabytes

# A switched service needs room twice while the new colour starts beside the old one.
_PURPOSE = {
    "traefik": "proxy, TLS",
    "postgres": "database",
    "backend": "API",
    "frontend": "static pages",
}


@dataclass(frozen=True)
class Line:
    """One line of the budget.

    Attributes:
        name: what uses the memory.
        size: bytes, at most.
        kind: `limit` (enforced by the kernel on a container), `switch` (a second colour, only
            during a release), or `reserve` (measured, for what has no limit of its own).
        why: a few words for the table.
    """

    name: str
    size: int
    kind: str
    why: str


@dataclass(frozen=True)
class Budget:
    """All lines and the RAM they must fit in, in bytes."""

    lines: tuple[Line, ...]
    ram: int

    @property
    def total(self) -> int:
        """Sum of all lines, bytes."""
        return sum(line.size for line in self.lines)

    @property
    def free(self) -> int:
        """RAM less the total, bytes; negative when the budget does not fit."""
        return self.ram - self.total

    @property
    def fits(self) -> bool:
        """Whether everything that may run at once fits in RAM."""
        return self.free >= 0


def budget(settings: Settings) -> Budget:
    """Make the budget of an environment.

    Args:
        settings: the validated settings; every service has a limit by construction.

    Returns:
        The budget against `vps_memory`; see `against` for the RAM a host really has.
    """
    running = [Line(s, settings.memory(s), "limit", _PURPOSE[s]) for s in SERVICES]
    second = [
        Line(f"{s}, second colour", settings.memory(s), "switch", "while a release switches")
        for s in SWITCHED
    ]
    reserves = [
        Line(
            "traefik binary, locked",
            settings.traefik_binary_memory,
            "reserve",
            "kept in RAM outside its container",
        ),
        Line("backup, rehearsal", settings.backup_memory, "reserve", "pg_dump, pg_restore, upload"),
        Line("Docker Engine", settings.engine_memory, "reserve", "dockerd, containerd, shims"),
        Line("operating system", settings.system_memory, "reserve", "systemd, sshd, journald"),
        Line("page cache", settings.page_cache_memory, "reserve", "files of Postgres and the OS"),
    ]
    return Budget(tuple(running + second + reserves), settings.vps_memory)


def against(proven: Budget, ram: int) -> Budget:
    """The same lines against another amount of RAM: what the host's kernel reports, in bytes."""
    return Budget(proven.lines, ram)


def overrun(proven: Budget) -> str:
    """Why a budget does not fit and what to do about it; empty when it fits.

    Names the service whose limit is the largest, since that is where room is found.
    """
    if proven.fits:
        return ""
    biggest = largest(proven)
    return (
        f"needs {megabytes(proven.total)} and the machine has {megabytes(proven.ram)}: "
        f"{megabytes(-proven.free)} too much. The largest line is {biggest.name} "
        f"({megabytes(biggest.size)})"
    )


def largest(proven: Budget) -> Line:
    """The service with the largest limit."""
    return max((line for line in proven.lines if line.kind == "limit"), key=lambda x: x.size)


def unlimited(compose: dict[str, object]) -> list[str]:
    """Services of a parsed Compose file that have no memory limit: each one is an error.

    Args:
        compose: the Compose file as `yaml.safe_load` gives it.

    Returns:
        Names of services without `mem_limit`, or with swap beyond it, in file order.
    """
    services = compose.get("services")
    if not isinstance(services, dict):
        return []
    return [
        name
        for name, service in services.items()
        if not service.get("mem_limit") or service.get("memswap_limit") != service["mem_limit"]
    ]
