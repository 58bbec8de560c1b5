"""A report as one HTML file that needs nothing else: style, charts and plotly are in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from koprogo_deploy.render import TEMPLATES
from koprogo_deploy.report import charts, words
from koprogo_deploy.report.content import asked, content, room
from koprogo_deploy.runs.model import Run
from koprogo_deploy.visible import everywhere, finalized

FOLDER = TEMPLATES / "report"


def html(runs: Sequence[Run]) -> str:
    """A report of one or several runs, as a page that opens offline.

    Whatever a run's file says is shown as text: it is escaped, and the page's policy lets no
    script run but its own, nor anything be fetched.
    """
    contents = [content(run) for run in runs]
    plotly, script = _source(get_plotlyjs()), _source(_read("script.js"))
    page: str = (
        _jinja()
        .get_template("page.html.j2")
        .render(
            title=f"{contents[0].id}: {contents[0].result}"
            if len(runs) == 1
            else f"{len(runs)} runs",
            contents=contents,
            drawn=[charts.charts(run) for run in runs],
            ends=[charts.Clock.of(run).end for run in runs],
            overlaid=charts.overlaid(runs) if len(runs) > 1 else None,
            policy=_policy(plotly, script),
            style=Markup(_read("style.css")),  # noqa: S704 - our own file
            plotly=Markup(plotly),  # noqa: S704 - the kept library
            script=Markup(script),  # noqa: S704 - our own file
        )
    )
    return page


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """A script as a browser reads it: its hash is taken after line ends are made alike."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    """No request at all, and no script but these."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    # plotly writes style elements and saves pictures from blobs.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    )


def _figure(figure: go.Figure) -> Markup:
    """A figure as JSON that cannot end its script element."""
    text = json.dumps(everywhere(figure.to_plotly_json()), separators=(",", ":"), default=list)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))  # noqa: S704


@cache
def _jinja() -> Environment:
    jinja = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True, finalize=finalized,
    )  # fmt: skip
    filters: dict[str, Any] = {
        "asked": asked, "duration": words.duration, "facts": words.facts, "figure": _figure,
        "milliseconds": words.milliseconds, "number": words.number, "room": room,
        "size": words.size, "slug": lambda text: text.replace(" ", "-"),
    }  # fmt: skip
    jinja.filters.update(filters)
    return jinja
