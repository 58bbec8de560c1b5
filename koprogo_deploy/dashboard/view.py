"""What the page is given: plain values for JSON, made from what was looked at. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koprogo_deploy import seed
from koprogo_deploy.dashboard.watch import Seen
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.monitor import reading, thresholds
from koprogo_deploy.render import container_names
from koprogo_deploy.runs.model import Judgement, Run
from koprogo_deploy.runs.sample import Sample
from koprogo_deploy.settings import SERVICES, Settings
from koprogo_deploy.units import GB, MB

CAREFUL = ("production", "staging")
# States that Postgres does not list when nobody is in them: then it is none, not unknown.
STATES = ("active", "idle", "idle in transaction")
KINDS = ("organizations", "buildings", "units", "owners", "expenses", "users")


def point(sample: Sample) -> dict[str, Any]:
    """What the charts need of a sample."""
    connections = sample.postgres.connections
    return {
        "at": sample.at,
        "cpu": {name: part.cpu_percent for name, part in sample.containers.items()},
        "memory": {
            name: [part.memory, part.memory_limit] for name, part in sample.containers.items()
        },
        "load": sample.host.load1,
        "requests": sample.traefik.requests,
        "connections": (None if connections is None else dict.fromkeys(STATES, 0) | connections),
        "commits": sample.postgres.commits,
        "rollbacks": sample.postgres.rollbacks,
    }


def now(sample: Sample | None, seen: Seen) -> dict[str, Any]:
    """What is so at this moment, each value with its level and, unread, with the reason.

    Args:
        sample: the last one; None before the first.
        seen: whether it is of now.
    """
    found: dict[str, Any] = {
        "live": seen.live,
        "age": None if seen.age is None else round(seen.age),
        "problem": seen.problem,
    }
    if sample is None:
        return found
    judged = thresholds.findings(sample)
    levels = {finding.path: str(finding.level) for finding in judged}
    host, postgres = sample.host, sample.postgres
    connections = None if postgres.connections is None else sum(postgres.connections.values())

    def cell(path: str, text: str | None) -> dict[str, str]:
        return _cell(sample, levels, path, text)

    found["tiles"] = [
        ["CPU", cell("host.cpu_percent", _number(host.cpu_percent, "%"))],
        ["Load average", cell("host.load1", _number(host.load1, digits=2))],
        ["Memory", cell("host.memory_used", _share(host.memory_used, host.memory_total))],
        ["Disk used", cell("host.disk_free", _used(host.disk_free, host.disk_total))],
        ["Disk busy", _busiest(sample, levels)],
        [
            "Requests",
            cell(
                "traefik.requests",
                _number(sum(sample.traefik.requests.values()), "/s")
                if sample.traefik.requests is not None
                else None,
            ),
        ],
        [
            "Postgres connections",
            cell(
                "postgres.connections",
                None
                if connections is None
                else f"{connections} of {postgres.max_connections or '?'}",
            ),
        ],
        [
            "Cache hit",
            cell("postgres.cache_hit_percent", _number(postgres.cache_hit_percent, "%", 1)),
        ],
    ]
    found["containers"] = [
        {
            "name": name,
            "level": str(thresholds.worst([f for f in judged if f.subject == name])),
            "cpu": cell(f"containers.{name}.cpu_percent", _number(part.cpu_percent, "%", 1)),
            "memory": cell(
                f"containers.{name}.memory", _share(part.memory, part.memory_limit, "no limit")
            ),
            "throttled": cell(
                f"containers.{name}.throttled_ms", _number(part.throttled_ms, " ms/s")
            ),
            "faults": cell(f"containers.{name}.major_faults", _number(part.major_faults, "/s")),
            "killed": cell(f"containers.{name}.oom_kills", _number(part.oom_kills)),
            "restarts": cell(f"containers.{name}.restarts", _number(part.restarts)),
        }
        for name, part in sorted(sample.containers.items())
    ]
    found["findings"] = [
        [str(finding.level), str(finding)]
        for finding in judged
        if finding.level in (thresholds.Level.alert, thresholds.Level.raised)
    ]
    found["unjudged"] = any(finding.level == thresholds.Level.unknown for finding in judged)
    found["unread"] = [f"{path}: {why}" for path, why in sorted(reading.troubles(sample).items())]
    return found


def _cell(sample: Sample, levels: Mapping[str, str], path: str, text: str | None) -> dict[str, str]:
    if text is None:
        why = reading.reason(sample, path)
        if why in reading.QUIET:  # there was nothing to read
            return {"text": "–", "level": "", "why": why}
        return {"text": "?", "level": "unknown", "why": why}
    return {"text": text, "level": levels.get(path, ""), "why": ""}


def _number(value: float | None, unit: str = "", digits: int = 0) -> str | None:
    return None if value is None else f"{value:.{digits}f}{unit}"


def _share(used: int | None, limit: int | None, without: str = "?") -> str | None:
    if used is None:
        return None
    return f"{used / MB:.0f} MB of {f'{limit / MB:.0f} MB' if limit else without}"


def _used(free: int | None, total: int | None) -> str | None:
    if free is None or not total:
        return None
    return f"{100 * (total - free) / total:.0f}%, {free / GB:.1f} GB free"


def _busiest(sample: Sample, levels: Mapping[str, str]) -> dict[str, str]:
    known = {
        name: disk.busy_percent
        for name, disk in sample.host.disks.items()
        if disk.busy_percent is not None
    }
    if not known:
        return _cell(sample, levels, "host.disks", None)
    name = max(known, key=lambda name: known[name])
    return _cell(sample, levels, f"host.disks.{name}.busy_percent", f"{known[name]:.0f}%")


def release(state: StackState) -> dict[str, Any]:
    """What serves, what is kept, what was taken back.

    Args:
        state: of the host.

    Returns:
        `serving` is None where nothing was deployed yet.
    """
    live = state.live
    bad = [{"hash": digest, "why": why} for digest, why in sorted(state.bad.items())]
    kept = [
        {"id": name, "serving": live is not None and name == live["id"]}
        for name in reversed(state.releases)
    ]
    if live is None:
        return {"serving": None, "docker": state.docker, "kept": kept, "bad": bad}
    names = container_names(live["colours"])
    services = []
    for service in SERVICES:
        container = state.containers.get(names[service])
        services.append(
            {
                "service": service,
                "colour": live["colours"].get(service, ""),
                "image": live["images"][service],
                "asked": live["requested"][service],
                "good": container is not None and container.serving,
                "health": _health(container.status, container.health)
                if container
                else "there is no container",
                "started": container.started if container else None,
            }
        )
    others = sorted(set(state.containers) - set(names.values()))
    return {
        "serving": {
            "id": live["id"],
            "made": live["made"],
            "by": live.get("by", ""),
            "revision": live.get("revision", ""),
            "hash": live["hash"],
        },
        "candidate": state.candidate["id"] if state.candidate else None,
        "services": services,
        "others": [
            {"service": name, "health": _health(found.status, found.health)}
            for name in others
            for found in (state.containers[name],)
        ],
        "docker": state.docker,
        "kept": kept,
        "bad": bad,
    }


def _health(status: str, health: str) -> str:
    if status == "running":
        return health or "running"
    return status


def objectives(settings: Settings, judged: Sequence[Judgement]) -> list[dict[str, Any]]:
    """The environment's objectives, each with what the last run measured.

    Args:
        settings: the environment's.
        judged: of the last run; empty without one.
    """
    by_name = {judgement.name: judgement for judgement in judged}
    rows = []
    for name, label, wanted, ours in _objectives(settings):
        judgement = by_name.pop(name, None)
        rows.append(
            {
                "label": label,
                "wanted": wanted,
                "ours": ours,
                "met": judgement.met if judgement else None,
                "measured": judgement.measured if judgement else "",
                "busy": judgement.busy if judgement else "",
                # The objectives may have been changed since that run.
                "judged_by": judgement.wanted if judgement and judgement.wanted != wanted else "",
            }
        )
    return rows


def _objectives(s: Settings) -> list[tuple[str, str, str, bool]]:
    def memory(size: int) -> str:
        return f"< {size / MB:g} MB"

    return [
        ("rate", "Right answers", f"> {s.objective_rate:g} req/s", False),
        ("p99", "P99", f"< {s.objective_p99:g} ms", False),
        ("p50", "P50", f"< {s.objective_p50:g} ms", False),
        ("errors", "Errors", f"< {s.objective_errors:g} %", False),
        ("backend_memory", "Backend memory", memory(s.objective_backend_memory), False),
        ("postgres_memory", "Postgres memory", memory(s.objective_postgres_memory), False),
        ("traefik_memory", "Traefik memory", memory(s.objective_traefik_memory), False),
        ("load_average", "Load average", f"< {s.objective_load_average:g}", False),
        ("goal_p99", f"P99 at {s.objective_rate:g} req/s", f"< {s.goal_p99:g} ms", True),
        ("goal_rate", f"All at {s.goal_rate:g} req/s", f"> {s.goal_rate * 0.99:g} req/s", True),
    ]


def run_row(run: Run) -> dict[str, Any]:
    """A kept run in one row."""
    judged = [phase for phase in run.phases if phase.judged] or run.phases
    worst = max(judged, key=lambda phase: phase.latency.p99 or 0.0, default=None)
    asked = [phase.asked_rate for phase in judged if phase.asked_rate is not None]
    errors = [phase.error_percent for phase in judged if phase.error_percent is not None]
    return {
        "id": run.id,
        "began": run.began,
        "profile": run.profile,
        "seconds": run.seconds,
        "asked": max(asked, default=None),
        "achieved": min((phase.achieved_rate for phase in judged), default=None),
        "p99": worst.latency.p99 if worst else None,
        "errors": max(errors, default=None),
        "verdict": verdict_words(run),
        "passed": None if run.verdict is None else run.verdict.passed,
    }


def verdict_words(run: Run) -> str:
    """How a run came out, in few words."""
    if run.interrupted:
        return "interrupted"
    if not run.generator.valid:
        return "invalid: the generator fell behind"
    if run.verdict is None:
        return "not judged"
    if run.verdict.passed:
        return "passed"
    missed = [
        f"{judgement.label} (our goal)" if judgement.ours else judgement.label
        for judgement in run.verdict.judgements
        if not judgement.met
    ]
    said = [f"missed {', '.join(missed)}"] if missed else []
    return "; ".join((*said, *run.verdict.problems)) or "did not pass"


def seeded(state: seed.State, settings: Settings) -> dict[str, Any]:
    """What of the seed is there, and what each button would do."""
    decision = seed.decide(state, settings.seed_number, settings.seed_scale)
    says, complete = decision.what, decision.action == "nothing"
    if settings.seed_via == "api" and state.schema:
        complete = state.total_organizations > 0
        says = "Generated by the application's own endpoint, whose rows are not marked as a seed's."
    there = sum(state.counts.values())
    generate, clear = "", ""
    if not settings.seed_enabled:
        generate = (
            f"seed_enabled is off for {settings.environment}: "
            f"set it in group_data/{settings.environment}.py"
        )
    elif settings.seed_via == "sql" and decision.action == "refuse":
        generate = decision.message
    elif settings.seed_via == "api" and state.total_organizations:
        generate = "there is data already; the application's endpoint takes an empty database"
    if not state.schema:
        clear = "there are no tables yet: deploy first"
    elif not there:
        clear = "nothing seeded is there"
    return {
        "counts": [[kind, state.counts[kind]] for kind in KINDS],
        "others": state.total_organizations - state.counts["organizations"],
        "number": settings.seed_number,
        "scale": settings.seed_scale,
        "says": says,
        "complete": complete,
        "cannot_generate": generate,
        "cannot_clear": clear,
    }


def counts_words(found: Mapping[str, Any]) -> str:
    """What `seeded` found, as a part of a sentence."""
    said = [f"{count} {kind}" for kind, count in found["counts"]]
    if found["others"]:
        said.append(f"and {found['others']} organizations that are not the seed's")
    return ", ".join(said)
