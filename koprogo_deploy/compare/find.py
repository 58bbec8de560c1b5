"""Which runs a person means by a group on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from koprogo_deploy.compare import original
from koprogo_deploy.compare.original import Recorded
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Run

_LABELLED = re.compile(r"([\w .:+-]{1,40})=(.+)")


def groups(
    written: Sequence[str], environment: str | None = None
) -> tuple[Recorded | None, dict[str, list[Run]]]:
    """Groups of runs by their labels, and the original's record if that is the first.

    Raises:
        Refusal: fewer than two groups, a label twice, a run in two groups, or nothing found.
    """
    if len(written) < 2:
        raise _refused(" ".join(written) or "no group", "one group", "name two or more to compare")
    recorded = None
    found: dict[str, list[Path]] = {}
    for place, text in enumerate(written):
        if text.partition(":")[0] == original.NAME:
            if place:
                fix = f"koprogo compare {text} {written[0]}"
                raise _refused(text, "the record is what others are laid beside", fix)
            recorded = original.recorded(text)
            continue
        label, runs = labelled(text)
        if label in found or (recorded and label == recorded.name):
            raise _refused(text, "a label twice", "give each group its own: LABEL=RUNS")
        found[label] = paths(runs, environment)
    places: dict[Path, str] = {}
    for label, files in found.items():
        for path in files:
            other = places.setdefault(path.resolve(), label)
            if other != label:
                raise _refused(path.stem, f"is in {other} and in {label}", "name its group alone")
    return recorded, {label: [store.load(path) for path in files] for label, files in found.items()}


def labelled(text: str) -> tuple[str, str]:
    """Label and runs: `before=realistic-20261125`, or both the same."""
    match = None if Path(text).exists() else _LABELLED.fullmatch(text)
    return (match[1], match[2]) if match else (text, text)


def paths(text: str, environment: str | None = None) -> list[Path]:
    """Files of runs: folders, patterns and names, with commas between them; each file once."""
    found: list[Path] = []
    for part in filter(None, text.split(",")):
        path = Path(part)
        if path.is_dir():
            inside = sorted(path.glob("*.json"))
            if not inside:
                raise _refused(part, "no run in this folder", "a run's file ends with .json")
            found += inside
        elif any(sign in part for sign in "*?["):
            fitting = _pattern(part, environment)
            if not fitting:
                raise _refused(part, "fits no run", "quote it, so that the shell leaves it alone")
            found += fitting
        else:
            found += store.find([part], environment)
    if not found:
        raise _refused(text, "names no run", "LABEL=RUNS, such as before=realistic-20261125")
    return list(dict.fromkeys(found))


def _pattern(text: str, environment: str | None) -> list[Path]:
    """Files that fit, or kept runs whose ids do."""
    path = Path(text)
    if len(path.parts) > 1:
        root = Path(path.anchor) if path.is_absolute() else Path()
        return sorted(root.glob(str(path.relative_to(path.anchor))))
    return [kept for kept in store.listed(environment) if kept.match(f"{text}.json")]


def _refused(where: str, what: str, fix: str) -> Refusal:
    return Refusal("Compare", [Problem(where, what, fix)])
