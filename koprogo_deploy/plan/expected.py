"""How long it may take: medians of what runs of the same kind took on this host. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from koprogo_deploy.plan.model import Duration

_GOOD = ("deployed", "rolled back", "done")
_LONGEST = 4  # steps that are named


def alike(journal: Sequence[Mapping[str, Any]], kind: Sequence[str]) -> list[Mapping[str, Any]]:
    """Runs of the journal that ended well and did the same."""
    return [
        entry
        for entry in journal
        if entry.get("kind") == "run"
        and entry.get("outcome") in _GOOD
        and list((entry.get("plan") or {}).get("kind", ())) == list(kind)
    ]


def duration(journal: Sequence[Mapping[str, Any]], kind: tuple[str, ...]) -> Duration:
    """Sum of each step's median; without a run of the kind there is none."""
    runs = alike(journal, kind)
    took: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for step in run.get("steps", ()):
            took[step["name"]].append(float(step["seconds"]))
    if not took:
        return Duration(kind=kind)
    # A step that only some of them had counts for its share of them.
    medians = {name: median(times) * len(times) / len(runs) for name, times in took.items()}
    longest = sorted(medians, key=lambda name: -medians[name])[:_LONGEST]
    return Duration(
        kind=kind,
        seconds=round(sum(medians.values()), 1),
        runs=len(runs),
        steps={name: round(medians[name], 1) for name in longest if medians[name] >= 0.1},
    )


def interrupted(journal: Sequence[Mapping[str, Any]], service: str) -> tuple[float | None, int]:
    """Median of the seconds that a service's restart interrupted requests here, and how often."""
    times = [
        float(entry["interrupted"][service])
        for entry in journal
        if service in (entry.get("interrupted") or {})
    ]
    return (round(median(times), 1), len(times)) if times else (None, 0)
