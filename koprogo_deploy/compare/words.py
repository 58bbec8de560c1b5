"""A comparison as a table in the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from koprogo_deploy.compare.comparison import Comparison, Group, Row, Versus
from koprogo_deploy.compare.measured import Figure
from koprogo_deploy.compare.original import Recorded
from koprogo_deploy.compare.statistics import ALPHA
from koprogo_deploy.visible import visible

FORMAT = 1
_STYLES = {
    "better": "bold green", "worse": "bold red", "too few runs to tell": "yellow",
    "not read": "yellow", "not comparable": "dim",
}  # fmt: skip
_SIGNS = {"better": "▲ better", "worse": "▼ worse"}


def show(out: Console, comparison: Comparison) -> None:
    """Print what a reader has to know first, then a table for each group against the first."""
    for line in _before(comparison):
        out.print(Text(f"! {line}", "yellow"), soft_wrap=True)
    if comparison.recorded is not None:
        _show_recorded(out, comparison)
    first = comparison.labels[0]
    for label in comparison.labels[1:]:
        title = f"{label} against {first}"
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for head in _heads(comparison, label):
            table.add_column(Text(head), justify="left" if head in ("", "verdict") else "right")
        for row in comparison.rows:
            *cells, said = _cells(comparison, row, label)
            style = _STYLES.get(row.versus[label].verdict, "")
            table.add_row(*map(Text, cells), Text(said, style=style))
        out.print(table)
        out.print()
    if comparison.differs:
        table = Table(title="What differs", title_justify="left", box=None, pad_edge=False)
        for head in ("", *comparison.labels):
            table.add_column(Text(head), overflow="fold")
        for difference in comparison.differs:
            values = [difference.values.get(label, "") for label in comparison.labels]
            table.add_row(Text(difference.name), *map(Text, values))
        out.print(table)
        out.print()
    for line in _after(comparison):
        out.print(Text(line, "dim"), soft_wrap=True)


def _show_recorded(out: Console, comparison: Comparison) -> None:
    assert comparison.recorded is not None
    recorded = comparison.recorded
    told = f": {recorded.test}, {recorded.when}"
    out.print(Text.assemble((recorded.name, "bold"), told))
    for line in _stated(recorded):
        out.print(Text(f"  {line}"), soft_wrap=True)
    for label, lines in comparison.conditions.items():
        out.print(Text(label, "bold"))
        for line in lines:
            out.print(Text(f"  {line}"), soft_wrap=True)
    out.print()


def _stated(recorded: Recorded) -> list[str]:
    doubts = (f"doubtful: {doubt}" for doubt in recorded.doubts)
    return [*recorded.conditions, *recorded.also, *doubts]


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    parts = ["".join(f"> ⚠️ {_text(line)}\n>\n" for line in _before(comparison))]
    if comparison.recorded is not None:
        recorded = comparison.recorded
        head = f"**{_text(recorded.name)}**: {_text(recorded.test)}, {recorded.when}\n\n"
        parts.append(head + "".join(f"- {_text(line)}\n" for line in _stated(recorded)))
        for label, lines in comparison.conditions.items():
            listed = "".join(f"- {_text(line)}\n" for line in lines)
            parts.append(f"**{_text(label)}**\n\n{listed}")
    for label in comparison.labels[1:]:
        title = f"### {_text(label)} against {_text(comparison.labels[0])}\n\n"
        rows = [_cells(comparison, row, label) for row in comparison.rows]
        parts.append(title + _table(_heads(comparison, label), rows))
    if comparison.differs:
        rows = [
            [one.name, *(one.values.get(label, "") for label in comparison.labels)]
            for one in comparison.differs
        ]
        parts.append("### What differs\n\n" + _table(["", *comparison.labels], rows))
    parts.append("".join(f"- {_text(line)}\n" for line in _after(comparison)))
    return visible("\n".join(part for part in parts if part), lines=True)


def as_json(comparison: Comparison) -> str:
    """The comparison as JSON, keys as `Comparison` names them; null where nothing was read."""
    found = dataclasses.asdict(
        dataclasses.replace(comparison, recorded=None)
    ) | {
        "format": FORMAT,
        "alpha": ALPHA,
        "recorded": comparison.recorded.model_dump() if comparison.recorded else None,
    }  # fmt: skip
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _before(comparison: Comparison) -> list[str]:
    lines = list(comparison.warnings)
    if comparison.needed is not None:
        sizes = ", ".join(f"{len(ids)} of {label}" for label, ids in comparison.runs.items())
        lines.append(
            f"too few runs to tell ({sizes}): with {comparison.needed} of each a difference that "
            "is larger than the noise can be shown"
        )
    return [*lines, *(f"left out: {what}" for what in comparison.left_out)]


def _after(comparison: Comparison) -> list[str]:
    sizes = ", ".join(f"{label} {len(ids)}" for label, ids in comparison.runs.items())
    lines = [f"runs: {sizes}; medians, with the interval that holds the median"]
    levels = {
        group.interval.level
        for row in comparison.rows
        for group in row.groups.values()
        if group.interval
    }
    if levels:
        lines[0] += f" with {', '.join(f'{100 * level:.0f}%' for level in sorted(levels))}"
    if comparison.recorded is None:
        levels = {v.interval.level for row in comparison.rows for v in row.versus.values()
                  if v.interval}  # fmt: skip
        said = ", ".join(f"{100 * level:.0f}%" for level in sorted(levels))
        lines.append(
            f"where nothing differs, the chance of any better or worse here is {100 * ALPHA:.0f}% "
            f"at most (permutation test over all figures at once); interval of a change: {said}"
        )
    return lines


def _heads(comparison: Comparison, label: str) -> list[str]:
    change = [] if comparison.recorded else ["change"]
    return ["", comparison.labels[0], label, *change, "verdict"]


def _cells(comparison: Comparison, row: Row, label: str) -> list[str]:
    unit = f" {row.figure.unit}" if row.figure.unit else ""
    versus = row.versus[label]
    change = [] if comparison.recorded else [_change(row.figure, versus)]
    return [
        f"{row.figure.label}{',' if unit else ''}{unit}",
        _group(row.groups[comparison.labels[0]]),
        _group(row.groups[label]),
        *change,
        _verdict(versus),
    ]


def _verdict(versus: Versus) -> str:
    return _SIGNS.get(versus.verdict, versus.verdict)


def _group(group: Group) -> str:
    if group.median is None:
        return group.said
    if group.interval is None:
        return number(group.median)
    return f"{number(group.median)} ({number(group.interval.low)}–{number(group.interval.high)})"


def _change(figure: Figure, versus: Versus) -> str:
    if versus.interval is None:
        return ""

    def percent(ratio: float) -> str:
        return f"{100 * (ratio - 1):+.1f}%"

    def points(difference: float) -> str:
        return f"{difference:+.2f}"

    show_: Callable[[float], str] = points if versus.ratio is None else percent
    middle = versus.difference if versus.ratio is None else versus.ratio
    assert middle is not None
    unit = f" {figure.unit}" if versus.ratio is None and figure.unit else ""
    return f"{show_(middle)} ({show_(versus.interval.low)} to {show_(versus.interval.high)}){unit}"


def number(value: float) -> str:
    """Three figures, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}" if value else "0"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["---", *("---:" for _ in heads[1:-1]), "---"]
    texts = [[_text(cell) for cell in row] for row in (heads, *rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (texts[0], lines, *texts[1:]))


def _text(text: str) -> str:
    """Text that Markdown takes for text."""
    marked = re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(text.split()))
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", re.sub(r"&(?=[#\w])", "&amp;", marked))
