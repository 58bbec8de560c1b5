"""Groups of repeated runs against the first: better, worse, or no difference shown. Pure."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from koprogo_deploy.compare import conditions, statistics
from koprogo_deploy.compare.conditions import Difference
from koprogo_deploy.compare.measured import ERRORS, Figure, all_figures, measured
from koprogo_deploy.compare.original import Recorded
from koprogo_deploy.compare.statistics import Interval
from koprogo_deploy.figures import result_of
from koprogo_deploy.runs.model import Run

Judged = Literal[
    "better", "worse", "no difference shown", "too few runs to tell", "not read", "not comparable"
]
# Not called better or worse below this: nobody would notice, and clocks round.
LEAST_PERCENT = 1.0
LEAST_ERRORS = 0.01  # percentage points

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """A figure in one group.

    Attributes:
        median: None where it could not be read in every run.
        interval: where the median lies.
        values: by run, in the order of the runs.
        said: what stands in its place: a recorded range, or why there is none.
    """

    median: float | None
    interval: Interval | None = None
    values: list[float | None] = field(default_factory=list)
    said: str = ""


@dataclass(frozen=True)
class Versus:
    """A figure of one group against the first group's.

    Attributes:
        verdict: in words.
        ratio: median by median; None where one is zero or missing.
        difference: median less median, in the figure's unit.
        interval: where the ratio lies, or the difference where there is no ratio.
        p: the chance to see as much where nothing differs, corrected for all figures and groups;
            None where it was not asked.
    """

    verdict: Judged
    ratio: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None


@dataclass(frozen=True)
class Row:
    """A figure in every group, and each against the first."""

    figure: Figure
    groups: dict[str, Group]
    versus: dict[str, Versus]


@dataclass(frozen=True)
class Comparison:
    """Groups of runs side by side.

    Attributes:
        labels: the first is what the others are compared with.
        runs: ids by label, in the order of time.
        rows: a figure each.
        conditions: under what each group's runs were made, in words.
        differs: conditions that are not the same everywhere.
        warnings: what a reader has to know before the verdicts.
        left_out: runs that are not in it, and why.
        needed: runs of each group that would be enough; None where there are enough.
        recorded: the original's figures, where they are the first group.
    """

    labels: list[str]
    runs: dict[str, list[str]]
    rows: list[Row]
    conditions: dict[str, list[str]]
    differs: list[Difference]
    warnings: list[str]
    left_out: list[str]
    needed: int | None = None
    recorded: Recorded | None = None


def groups(runs: Mapping[str, Sequence[Run]], recorded: Recorded | None = None) -> Comparison:
    """Compare groups of repeated runs, each with the first.

    Args:
        runs: by label. Runs that say nothing of the stack (invalid, interrupted) are left out.
        recorded: figures of the original; they come first, laid beside the others and not
            compared: they are single, and were taken under other conditions.

    Returns:
        A verdict for each figure of each group but the first.

    Raises:
        ValueError: fewer than two groups.
    """
    if len(runs) + (recorded is not None) < 2:
        raise ValueError("a comparison needs two groups")
    kept, left_out = _kept(runs)
    known = {label: [measured(run) for run in each] for label, each in kept.items()}
    figures = all_figures([one for each in known.values() for one in each])
    columns = {
        figure: {label: _group([one.get(figure) for one in each]) for label, each in known.items()}
        for figure in figures
    }
    labels = list(kept)
    comparisons = len(labels) - 1
    versus: dict[str, dict[Figure, Versus]] = {}
    if recorded is None:
        for label in labels[1:]:
            pairs = {f: (columns[f][labels[0]], columns[f][label]) for f in figures}
            versus[label] = _versus(pairs, comparisons)
    else:
        columns = {f: {recorded.label: _recorded(recorded, f)} | columns[f] for f in figures}
        apart = Versus("not comparable")
        versus = {label: dict.fromkeys(figures, apart) for label in labels}
        labels = [recorded.label, *labels]
    sizes = [len(each) for each in kept.values()]
    short = any(not statistics.enough(sizes[0], size, max(1, comparisons)) for size in sizes[1:])
    return Comparison(
        labels=labels,
        runs={label: [run.id for run in each] for label, each in kept.items()},
        rows=[
            Row(f, columns[f], {label: found[f] for label, found in versus.items()})
            for f in figures
        ],
        conditions=conditions.stated(kept),
        differs=conditions.differences(kept) if recorded is None else [],
        warnings=_warnings(kept, recorded),
        left_out=left_out,
        needed=statistics.needed(max(1, comparisons)) if short and recorded is None else None,
        recorded=recorded,
    )  # fmt: skip


def interleave(items: Sequence[T], rounds: int) -> list[T]:
    """The order in which to measure: rounds of all, every second one backwards.

    A drift that goes one way, a machine that warms up, then hits all alike: `A B, B A, A B`.
    """
    return [item for n in range(rounds) for item in (items if n % 2 == 0 else items[::-1])]


def _kept(runs: Mapping[str, Sequence[Run]]) -> tuple[dict[str, list[Run]], list[str]]:
    left_out = []
    kept: dict[str, list[Run]] = {}
    for label, each in runs.items():
        kept[label] = []
        for run in sorted(each, key=lambda run: run.began):
            if result_of(run) == "invalid":
                why = "interrupted" if run.interrupted else "; ".join(run.generator.reasons)
                left_out.append(f"{run.id} of {label}: {why or 'invalid'}")
            else:
                kept[label].append(run)
    return kept, left_out


def _group(values: list[float | None]) -> Group:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        missing = len(values) - len(known)
        said = f"not read in {missing} of {len(values)} runs" if values else "no run"
        return Group(None, None, values, said)
    return Group(plain.median(known), statistics.median_interval(known), values)


def _recorded(recorded: Recorded, figure: Figure) -> Group:
    value = recorded.figures.get(figure.name)
    if value is None:
        return Group(None, said="not recorded")
    if isinstance(value, (int, float)):
        return Group(float(value))
    return Group(None, said=f"{value[0]:g} to {value[1]:g}")


def _versus(pairs: Mapping[Figure, tuple[Group, Group]], comparisons: int) -> dict[Figure, Versus]:
    """Each figure of two groups, corrected for all of them together."""
    found: dict[Figure, Versus] = {}
    readable = [f for f, (a, b) in pairs.items() if a.median is not None and b.median is not None]
    found |= {figure: Versus("not read") for figure in pairs if figure not in readable}
    if not readable:
        return found
    scaled = {figure: _scaled(figure, *pairs[figure]) for figure in readable}
    before, after = (np.array([scaled[figure][side] for figure in readable]) for side in (0, 1))
    n, m = before.shape[1], after.shape[1]
    can_tell = statistics.enough(n, m, comparisons)
    chances = (
        np.minimum(1, comparisons * statistics.probabilities(before, after)) if can_tell else None
    )
    for number, figure in enumerate(readable):
        p = None if chances is None else float(chances[number])
        found[figure] = _judge(figure, *pairs[figure], *scaled[figure], p)
    return found


def _ratios(figure: Figure, *values: float) -> bool:
    """Whether a figure is compared by ratio. Errors are not: most are zero."""
    return figure != ERRORS and all(value > 0 for value in values)


def _scaled(figure: Figure, a: Group, b: Group) -> tuple[list[float], list[float]]:
    """Values on the scale that they are compared on: logarithms where ratios count."""
    first = [value for value in a.values if value is not None]
    second = [value for value in b.values if value is not None]
    if _ratios(figure, *first, *second):
        return [math.log(value) for value in first], [math.log(value) for value in second]
    return first, second


def _judge(
    figure: Figure, a: Group, b: Group, first: list[float], second: list[float], p: float | None
) -> Versus:
    assert a.median is not None and b.median is not None
    known = [value for value in (*a.values, *b.values) if value is not None]
    by_ratio = _ratios(figure, *known)
    interval = statistics.shift_interval(first, second)
    assert interval is not None
    difference = b.median - a.median
    ratio = b.median / a.median if by_ratio else None
    beyond = interval.low > 0 or interval.high < 0
    if ratio is not None:
        interval = Interval(math.exp(interval.low), math.exp(interval.high), interval.level)
        large = abs(ratio - 1) * 100 >= LEAST_PERCENT
    else:
        large = abs(difference) >= (LEAST_ERRORS if figure == ERRORS else 0)
    verdict: Judged = "no difference shown"
    if p is None:
        verdict = "too few runs to tell"
    elif p <= statistics.ALPHA and beyond and large:
        verdict = "better" if (difference > 0) == (figure.better == "more") else "worse"
    return Versus(verdict, ratio, difference, interval, p)


def _warnings(kept: Mapping[str, Sequence[Run]], recorded: Recorded | None) -> list[str]:
    found = [f"{label} has no run left" for label, each in kept.items() if not each]
    if recorded is not None:
        found += [f"not comparable as a measurement: {why}" for why in recorded.unlike]
    else:
        apart = [one.name for one in conditions.differences(kept) if one.apart]
        if apart:
            found.append(
                f"conditions differ: {', '.join(apart)}; what is shown is not the effect of one "
                "change"
            )
        found += conditions.turns(kept)
    return [*found, *conditions.unlike(kept), *conditions.at_once(kept)]
