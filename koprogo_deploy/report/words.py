"""Figures and facts as people read them."""

from __future__ import annotations

from koprogo_deploy.report.content import Content
from koprogo_deploy.units import MB


def number(value: float, digits: int = 0) -> str:
    """A number with so many digits, thousands apart from 10 000 on."""
    text = f"{value:,.{digits}f}" if abs(value) >= 10_000 else f"{value:.{digits}f}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}")


def milliseconds(value: float) -> str:
    """Three figures of a time in milliseconds; the unit stands in the heading."""
    if value >= 100:
        return number(value)
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(value: int | None) -> str:
    """Bytes as MB."""
    return "not read" if value is None else f"{value / MB:.1f} MB"


def duration(seconds: float) -> str:
    """Such as `45 s`, `3 min` or `2 min 30 s`."""
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def facts(content: Content) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was measured and by what: headings, each with names and values."""
    machine, deployed = content.machine, content.deployed
    unknown = "not recorded"
    limits = {name: size(value) for name, value in deployed["limits"].items()}
    release = [
        ("release", deployed["release"] or unknown),
        ("settings", deployed["settings_hash"] or unknown),
        ("seed's scale", str(deployed.get("seed_scale") or unknown)),
        ("revision", content.revision or unknown),
        *((f"image of {name}", image) for name, image in deployed["images"].items()),
        ("memory limits", _listed(limits)),
        ("Postgres", _listed(deployed["postgres"])),
    ]
    memory = machine["memory"]
    measured_on = [
        ("host", machine["host"] or unknown),
        ("CPUs", str(machine["cpus"] or unknown)),
        ("memory", size(memory) if memory else unknown),
        ("kernel", machine["kernel"] or unknown),
        ("load came from", machine["client"] or unknown),
    ]
    return [
        ("Release", release),
        ("Machine", measured_on),
        ("Load generator", _generator(content)),
        ("Cleanup", _cleanup(content)),
    ]


def _generator(content: Content) -> list[tuple[str, str]]:
    own = content.generator
    valid = "yes" if own["valid"] else f"no: {'; '.join(own['reasons']) or 'not said why'}"
    return [
        ("kept up", valid),
        ("CPU", f"{own['cpu_percent_mean']:.0f}% mean, {own['cpu_percent_max']:.0f}% at most"),
        ("sent late", f"{own['late_p99_ms']:.1f} ms P99, {own['late_max_ms']:.1f} ms at most"),
        ("connections", f"{own['connections']}, {own['workers']} worker(s)"),
    ]


def _cleanup(content: Content) -> list[tuple[str, str]]:
    done = content.cleanup
    left = {
        table: count - done["removed"].get(table, 0)
        for table, count in done["created"].items()
        if count != done["removed"].get(table, 0)
    }
    rows = [
        ("written", _listed(done["created"]) or "nothing"),
        ("removed", _listed(done["removed"]) or "nothing"),
    ]
    if done["kept"]:
        rows.append(("left", f"on purpose (--keep): {_listed(left) or 'nothing'}"))
    elif left:
        rows.append(("left", _listed(left)))
    if done["problem"]:
        rows.append(("problem", done["problem"]))
    return rows


def _listed(values: dict[str, object] | dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
