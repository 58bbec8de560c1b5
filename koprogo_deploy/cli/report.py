"""`koprogo report` and `koprogo compare`."""

from __future__ import annotations

import enum
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from koprogo_deploy.cli.common import Where, out
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import json_text, machine


class Format(enum.StrEnum):
    """What a report can be written as."""

    html = "html"
    markdown = "markdown"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(report)
    app.command()(compare)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="a file, an id, the beginning of one, or latest"),
    ] = None,
    environment: Annotated[
        Where | None, typer.Option("--env", "-e", help="only runs of this environment")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--out", "-o", help="where to write; else beside the run's file")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", "-f", help="Markdown and JSON are printed without --out")
    ] = Format.html,
    show: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
) -> None:
    """Make a report of load runs: verdict, objectives, charts, and what was measured.

    One page that opens offline; without a name of the latest run: `koprogo report --open`
    """
    from koprogo_deploy.runs import store

    if show and form is not Format.html:
        raise Refusal("Report", [Problem("--open", f"not for {form}", "leave out --format")])
    paths = store.find(runs or ["latest"], environment)
    loaded = [store.load(path) for path in paths]

    from koprogo_deploy import report as reports  # plotly is heavy: not before the runs are read

    made = {Format.html: reports.html, Format.markdown: reports.markdown,
            Format.json: reports.as_json}[form](loaded)  # fmt: skip
    if form is not Format.html and file is None:
        (json_text if form is Format.json else machine)(made.removesuffix("\n"))
        return
    more = f"-and-{len(paths) - 1}-more" if len(paths) > 1 else ""
    written = write(file or paths[-1].with_name(f"{paths[-1].stem}{more}.html"), made)
    what = paths[0].stem if len(paths) == 1 else f"{len(paths)} runs"
    out.print(f"report of {what}: {written}", markup=False, soft_wrap=True)
    if show:
        webbrowser.open(written.resolve().as_uri())


def write(path: Path, text: str) -> Path:
    """Write a file.

    Raises:
        Refusal: it cannot be written there.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        what = error.strerror or str(error)
        fix = "name a file in a folder that is there and that you may write to"
        raise Refusal("Output", [Problem(str(path), what, fix)]) from None
    return path


def compare(
    groups: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="LABEL=RUNS or RUNS: a file, folder, pattern, id, beginning of ids, or several "
            "with commas; or original",
        ),
    ],
    environment: Annotated[
        Where | None, typer.Option("--env", "-e", help="only runs of this environment")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="for a pull request")] = False,
    file: Annotated[Path | None, typer.Option("--out", "-o", help="write it to a file")] = None,
) -> None:
    """Compare groups of repeated runs with the first: better, worse, or no difference shown.

    Repeat each, in turns (A B, B A, A B …): one run of each tells nothing. Four of each can show
    a difference between two groups, five between up to seven. `python -m bench.versus` does it for
    settings, in the sandbox.

    `koprogo compare before=runs/before after=runs/after`, or against what the original recorded of
    itself: `koprogo compare original realistic`
    """
    from koprogo_deploy.compare import comparison, find, words

    if as_json and as_markdown:
        raise Refusal("Compare", [Problem("--json", "with --markdown", "give one of the two")])
    recorded, runs = find.groups(groups, environment)
    made = comparison.groups(runs, recorded)
    if not as_json and not as_markdown and file is None:
        words.show(out, made)
        return
    text = words.as_json(made) if as_json else words.markdown(made)
    if file is None:
        (json_text if as_json else machine)(text.removesuffix("\n"))
    else:
        out.print(f"comparison: {write(file, text)}", markup=False, soft_wrap=True)
