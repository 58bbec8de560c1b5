"""A report as Markdown, for a pull request, and as JSON, for machines."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from koprogo_deploy.report import words
from koprogo_deploy.report.content import Content, Row, asked, content, named, room
from koprogo_deploy.runs.model import Run
from koprogo_deploy.visible import visible

FORMAT = 1
_SIGNS = {"passed": "✅ Passed", "missed": "❌ Missed", "invalid": "⚠️ Invalid"}
_LATENCIES = {"p50": "P50", "p90": "P90", "p99": "P99", "p999": "P99.9", "max": "max"}


def as_json(runs: Sequence[Run]) -> str:
    """The report's content as JSON: `format` and `runs`, keys as `content.Content` names them.

    Memory in bytes, times in milliseconds, rates a second; null where nothing was read.
    """
    found = {"format": FORMAT, "runs": [_plain(content(run)) for run in runs]}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def markdown(runs: Sequence[Run]) -> str:
    """The report as Markdown: verdict, objectives, requests, what was measured."""
    contents = [content(run) for run in runs]
    parts = [] if len(contents) == 1 else [_overview(contents)]
    return visible("\n".join([*parts, *(_run(one) for one in contents)]), lines=True)


def _overview(contents: Sequence[Content]) -> str:
    rows = [
        [f"`{_code(one.id)}`", _sign(one), f"{one.totals.achieved_rate:.1f}", *_row(one.row)]
        for one in contents
    ]
    heads = ["run", "verdict", "right/s", "errors", *_LATENCIES.values()]
    return f"# {len(contents)} runs\n\n{_table(heads, rows, left=2)}"


def _run(one: Content) -> str:
    head = (
        f"## {_text(one.id)}: {_sign(one)}\n\n{_text(one.headline)}\n\n"
        f"{_text(one.profile)} against {_text(one.environment)}, "
        f"{one.began:%Y-%m-%d %H:%M:%S} UTC, {words.duration(one.seconds)}"
    )
    parts = [head + (f", `{_code(one.command)}`" if one.command else "") + "\n"]
    if one.problems:
        parts.append("".join(f"- {_text(problem)}\n" for problem in one.problems))
    if one.objectives:
        rows = [
            ["✅" if j.met else "❌", _text(named(j)), _text(j.wanted), _text(j.measured), room(j),
             _text(j.busy)]
            for j in one.objectives
        ]  # fmt: skip
        heads = ["", "objective", "wanted", "measured", "room or miss", "busy when missed"]
        parts.append(_table(heads, rows, left=6))
    for phase in one.phases:
        unjudged = "" if phase.judged else " (not judged)"
        rows = [
            [_text(row.name), str(row.sent), str(row.right), *_row(row)]
            for row in (*phase.endpoints, dataclasses.replace(phase.row, name="all"))
        ]
        heads = [f"{_text(phase.name)}, {asked(phase)}{unjudged}", "sent", "right", "errors"]
        latencies = [f"{name} ms" for name in _LATENCIES.values()]
        parts.append(_table([*heads, *latencies], rows))
    if one.containers:
        parts.append(_containers(one))
    if one.unwatched:
        parts.append(f"No samples of the host: {_text(one.unwatched)}.\n")
    parts += [
        f"Not read: `{_code(missing.name)}`: {_text(missing.reason)} "
        f"({missing.samples} of {missing.of} samples)\n"
        for missing in one.unread
    ]
    for heading, facts in words.facts(one):
        rows = [[_text(name), _text(value)] for name, value in facts]
        parts.append(_table([heading, ""], rows, left=2))
    return "\n".join(parts)


def _containers(one: Content) -> str:
    def shown(value: float | None, digits: int, unit: str) -> str:
        return "not read" if value is None else f"{value:.{digits}f}{unit}"

    rows = [
        [
            _text(name), shown(use.cpu_mean, 1, "%"), shown(use.cpu_ms, 3, " ms"),
            words.size(use.memory_max), words.size(use.memory_limit),
        ]
        for name, use in one.containers.items()
    ]  # fmt: skip
    return _table(["container", "CPU mean", "CPU an answer", "memory max", "limit"], rows)


def _sign(one: Content) -> str:
    return _SIGNS.get(one.result, "Not judged")


def _row(row: Row) -> list[str]:
    errors = "none ended" if row.error_percent is None else f"{row.error_percent:.2f}%"
    times = [row.latency_ms[name] for name in _LATENCIES]
    return [errors, *("" if time is None else words.milliseconds(time) for time in times)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    lines = ["---" if number < left else "---:" for number in range(len(heads))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, lines, *rows))


def _text(text: str) -> str:
    """Text that Markdown takes for text: no table cell, tag or link is made of it."""
    one_line = " ".join(str(text).split())
    marked = re.sub(r"([\\`*_\[\]|#])", r"\\\1", one_line)
    # Only what could begin an entity or a tag: `< 100 ms` stays readable as it is.
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", re.sub(r"&(?=[#\w])", "&amp;", marked))


def _code(text: str) -> str:
    """Text between backticks."""
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")
