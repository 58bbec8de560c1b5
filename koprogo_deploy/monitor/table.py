"""A sample for people: a table that is watched, a line for a log, a summary at the end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from koprogo_deploy.monitor import reading
from koprogo_deploy.monitor.thresholds import Finding, Level, findings, worst
from koprogo_deploy.runs.sample import Sample
from koprogo_deploy.units import MB

_STYLES = {
    Level.normal: "green",
    Level.raised: "yellow",
    Level.alert: "bold red",
    Level.unknown: "magenta",
}
UNREAD_SHOWN = 8


def number(value: float | None, unit: str = "", scale: float = 1.0, digits: int = 0) -> str:
    """A value with its unit; `?` if it is unknown."""
    return "?" if value is None else f"{value / scale:.{digits}f}{unit}"


def amount(bytes_a_second: float | None) -> str:
    """Bytes a second, in a unit that suits them."""
    if bytes_a_second is None:
        return "?"
    for unit, size in (("MB/s", MB), ("kB/s", 1024)):
        if bytes_a_second >= size:
            return f"{bytes_a_second / size:.1f} {unit}"
    return f"{bytes_a_second:.0f} B/s"


class _Cells:
    """Cells of one sample: coloured by how their figure stands; `–` where there is nothing."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.found = findings(sample)
        self.levels = {finding.path: finding.level for finding in self.found}

    def cell(self, path: str, text: str) -> Text:
        if text == "?" and reading.reason(self.sample, path) in reading.QUIET:
            return Text("–", style="dim")
        level = self.levels.get(path, Level.unknown if text == "?" else None)
        return Text(text, style=_STYLES[level] if level and level is not Level.normal else "")

    def line(self, *parts: tuple[str, str] | str) -> Text:
        """Plain words, and values given as path and text."""
        line = Text()
        for part in parts:
            line.append(part if isinstance(part, str) else self.cell(*part))
        return line


def state(level: Level) -> Text:
    """A level's word, in its colour."""
    return Text(level, style=_STYLES[level])


def containers(cells: _Cells) -> Table:
    """The containers, a line each."""
    table = Table(box=None, pad_edge=False)
    table.add_column("container", no_wrap=True)
    for column in ("CPU", "memory", "limit", "charged", "throttled", "faults", "OOM", "restarts"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name, c in cells.sample.containers.items():
        texts = {
            "cpu_percent": number(c.cpu_percent, " %", digits=1),
            "memory": number(c.memory, " MB", MB, 1),
            "memory_limit": number(c.memory_limit, " MB", MB),
            "memory_charged": number(c.memory_charged, " MB", MB, 1),
            "throttled_ms": number(c.throttled_ms, " ms/s"),
            "major_faults": number(c.major_faults, "/s"),
            "oom_kills": number(c.oom_kills),
            "restarts": number(c.restarts),
        }
        own = f"containers.{name}."
        level = worst(cells.found, lambda f, own=own: f.path.startswith(own))  # type: ignore[misc]
        values = [cells.cell(f"{own}{field}", text) for field, text in texts.items()]
        table.add_row(name, *values, state(level))
    return table


def host(cells: _Cells) -> Table:
    """The machine, the database and the proxy, a line each."""
    h, p, t = cells.sample.host, cells.sample.postgres, cells.sample.traefik
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    cpus = "" if h.cpus is None else f" of {h.cpus}"
    source = " (its own tasks)" if h.load_source == "tasks" else ""
    table.add_row(
        "host",
        cells.line(
            "CPU ", ("host.cpu_percent", number(h.cpu_percent, " %", digits=1)), cpus,
            "   load ", ("host.load1", number(h.load1, digits=2)), source,
            "   memory ", ("host.memory_used", number(h.memory_used, "", MB)),
            " of ", ("host.memory_total", number(h.memory_total, " MB", MB)),
            "   swap ", ("host.swap_used", number(h.swap_used, " MB", MB)),
        ),
    )  # fmt: skip
    waits: list[tuple[str, str] | str] = []
    for what, pressure in h.pressure.items():
        path = f"host.pressure.{what}.some"
        waits += [f"{what} ", (path, number(pressure.some, " %", digits=1)), "   "]
    table.add_row("pressure", cells.line(*waits))
    for name, disk in h.disks.items():
        path = f"host.disks.{name}"
        table.add_row(
            f"disk {name}",
            cells.line(
                (f"{path}.busy_percent", number(disk.busy_percent, " %", digits=1)), " busy",
                "   read ", (f"{path}.read_bytes", amount(disk.read_bytes)), " ",
                (f"{path}.read_ms", number(disk.read_ms, " ms", digits=2)), "   written ",
                (f"{path}.write_bytes", amount(disk.write_bytes)), " ",
                (f"{path}.write_ms", number(disk.write_ms, " ms", digits=2)),
            ),
        )  # fmt: skip
    free, total = (number(value, "", 1024 * MB, 1) for value in (h.disk_free, h.disk_total))
    table.add_row(
        "space", cells.line(("host.disk_free", free), " GB free of ", ("host.disk_total", total))
    )
    for name, net in h.network.items():
        path = f"host.network.{name}"
        table.add_row(
            f"net {name}",
            cells.line(
                "in ", (f"{path}.received_bytes", amount(net.received_bytes)),
                "   out ", (f"{path}.sent_bytes", amount(net.sent_bytes)),
                "   errors ", (f"{path}.errors", number(net.errors)),
                "   dropped ", (f"{path}.dropped", number(net.dropped)),
            ),
        )  # fmt: skip
    states = None
    if p.connections is not None:
        states = ", ".join(f"{n} {name}" for name, n in sorted(p.connections.items())) or "none"
    table.add_row(
        "postgres",
        cells.line(
            "connections ", ("postgres.connections", states or "?"), " of ",
            ("postgres.max_connections", number(p.max_connections)),
            "   waiting ", ("postgres.waiting", number(p.waiting)),
            "   longest transaction ",
            ("postgres.longest_transaction", number(p.longest_transaction, " s", digits=1)),
        ),
    )  # fmt: skip
    table.add_row(
        "",
        cells.line(
            "commits ", ("postgres.commits", number(p.commits, "/s")),
            "   rollbacks ", ("postgres.rollbacks", number(p.rollbacks, "/s")),
            "   cache hit ",
            ("postgres.cache_hit_percent", number(p.cache_hit_percent, " %", digits=1)),
            "   WAL ", ("postgres.wal_bytes", amount(p.wal_bytes)),
            "   size ", ("postgres.size", number(p.size, " MB", MB)),
        ),
    )  # fmt: skip
    requests = None
    if t.requests is not None:
        requests = "  ".join(f"{s} {n:.1f}/s" for s, n in t.requests.items()) or "none"
    table.add_row(
        "requests",
        cells.line(
            ("traefik.requests", requests or "?"), "   open connections ",
            ("traefik.open_connections", number(t.open_connections)),
        ),
    )  # fmt: skip
    return table


def screen(sample: Sample, title: str, problem: str = "") -> Group:
    """Everything of one sample, as it is shown live."""
    cells = _Cells(sample)
    at = datetime.fromtimestamp(sample.at).astimezone()
    cost = number(sample.monitor_cpu_percent, " %", digits=2)
    head = cells.line(
        f"{title}  {at:%H:%M:%S}   watching costs ", ("monitor_cpu_percent", cost), " of a CPU"
    )
    parts: list[Text | Table] = [head, Text(), containers(cells), Text(), host(cells), Text()]
    parts += [Text(line, style=style) for line, style in remarks(sample, cells.found)]
    if problem:
        parts.append(Text(problem, style=_STYLES[Level.alert]))
    return Group(*parts)


def remarks(sample: Sample, found: Sequence[Finding]) -> list[tuple[str, str]]:
    """What stands out, and what could not be read; each with its style."""
    lines = [
        (f"{finding.level}: {finding}", _STYLES[finding.level])
        for level in (Level.alert, Level.raised)
        for finding in found
        if finding.level is level
    ]
    unread = list(reading.troubles(sample).items())
    lines += [(f"unread: {p}: {why}", _STYLES[Level.unknown]) for p, why in unread[:UNREAD_SHOWN]]
    if len(unread) > UNREAD_SHOWN:
        lines.append((f"unread: and {len(unread) - UNREAD_SHOWN} more", _STYLES[Level.unknown]))
    return lines


def line(sample: Sample) -> str:
    """A sample in one line, for a log."""
    h, p, t = sample.host, sample.postgres, sample.traefik
    at = datetime.fromtimestamp(sample.at).astimezone()
    each = ", ".join(
        f"{name} {number(c.cpu_percent, '%')} {number(c.memory, 'MB', MB)}"
        for name, c in sample.containers.items()
    )
    rate = number(None if t.requests is None else sum(t.requests.values()), "/s")
    failed = None if t.requests is None else t.requests.get("5xx", 0.0)
    open_now = number(None if p.connections is None else sum(p.connections.values()))
    found = findings(sample)
    alarms = [str(finding) for finding in found if finding.level is Level.alert]
    unread = len(reading.troubles(sample))
    parts = [
        f"{at:%H:%M:%S}",
        f"CPU {number(h.cpu_percent, '%')} load {number(h.load1, digits=2)}"
        f" mem {number(h.memory_used, 'MB', MB)}",
        each,
        f"pg {open_now}/{number(p.max_connections)} conn {number(p.commits, '/s')}",
        f"req {rate} 5xx {number(failed, '/s')}",
        *([f"ALERT {'; '.join(alarms)}"] if alarms else []),
        *([f"{unread} unread"] if unread else []),
    ]
    return " | ".join(parts)


Read = Callable[[Sample], float | None]


def figures(samples: Sequence[Sample]) -> dict[str, tuple[Read, str]]:
    """The figures of a summary, with their units."""
    found: dict[str, tuple[Read, str]] = {
        "host CPU": (lambda s: s.host.cpu_percent, "%"),
        "host load average": (lambda s: s.host.load1, ""),
        "host memory": (lambda s: _mb(s.host.memory_used), "MB"),
    }
    for name in sorted({name for sample in samples for name in sample.containers}):

        def field(of: str, name: str = name) -> Read:
            return lambda s: getattr(s.containers[name], of) if name in s.containers else None

        memory = field("memory")
        found[f"{name} CPU"] = (field("cpu_percent"), "%")
        found[f"{name} memory"] = (lambda s, read=memory: _mb(read(s)), "MB")  # type: ignore[misc]
    for disk in sorted({name for sample in samples for name in sample.host.disks}):
        found[f"disk {disk} busy"] = (
            lambda s, d=disk: s.host.disks[d].busy_percent if d in s.host.disks else None,  # type: ignore[misc]
            "%",
        )
    found["postgres connections"] = (
        lambda s: sum(s.postgres.connections.values()) if s.postgres.connections else None, "",
    )  # fmt: skip
    found["postgres commits"] = (lambda s: s.postgres.commits, "/s")
    found["requests"] = (
        lambda s: sum(s.traefik.requests.values()) if s.traefik.requests is not None else None,
        "/s",
    )
    return found


def _mb(size: float | None) -> float | None:
    return None if size is None else size / MB


def summary(samples: Sequence[Sample]) -> Table:
    """Mean, P95 and highest of what was seen, and in how many samples it was."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("mean", "P95", "highest", "read in"):
        table.add_column(column, justify="right")
    for name, (read, unit) in figures(samples).items():
        values = sorted(value for value in map(read, samples) if value is not None)
        seen = f"{len(values)} of {len(samples)}"
        if not values:
            table.add_row(name, "?", "?", "?", seen)
            continue
        p95 = values[max(0, -(-len(values) * 95 // 100) - 1)]
        shown = (statistics.fmean(values), p95, values[-1])
        table.add_row(name, *(f"{value:.1f} {unit}".strip() for value in shown), seen)
    return table
