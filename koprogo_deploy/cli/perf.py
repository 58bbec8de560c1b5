"""`koprogo perf`: seed, monitor, load, gate and report in one command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koprogo_deploy import door
from koprogo_deploy.cli.common import (
    DataOption,
    EnvironmentOption,
    LoginOption,
    SecondsOption,
    Where,
    length_of,
    out,
    shown,
    stop_as_by_ctrl_c,
    write_down,
)
from koprogo_deploy.screen import complain

if TYPE_CHECKING:
    from koprogo_deploy.runs.model import Run

MISSED, INTERRUPTED = 1, 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="perf", rich_help_panel="Measure")(perf)


def perf(
    environment: EnvironmentOption = Where.sandbox,
    quick: Annotated[bool, typer.Option("--quick", help="two minutes in all")] = False,
    seconds: SecondsOption = "",
    on: Annotated[
        str, typer.Option(metavar="NAME", help="not the sandbox: type the environment's name")
    ] = "",
    login: LoginOption = None,
    data: DataOption = None,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="where to write the report")
    ] = None,
) -> None:
    """Show that the site meets its objectives: seed, monitor, load, gate, report.

    Two runs of the realistic load, at the objective and at our own goal; seven minutes in all,
    with --quick two.

    Exit code 0: every objective and goal met. 1: one was missed, a run is invalid, or a step could
    not be done. 2: refused, nothing was touched. 130: interrupted.
    """
    from koprogo_deploy import perf as workflow
    from koprogo_deploy import report
    from koprogo_deploy.command_line import overrides
    from koprogo_deploy.load import plan, show
    from koprogo_deploy.load.run import LoadFailed
    from koprogo_deploy.runs import store

    opened = door.open_environment(environment, overrides(data or ()))
    base = plan.Options(
        seconds=length_of(seconds, "Performance"),
        on=on,
        logins=tuple(login or ()),
        password=os.environ.get("KOPROGO_LOAD_PASSWORD", ""),
        command=" ".join(["koprogo", *sys.argv[1:]]),
    )

    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    def view() -> show.View:
        return show.Terminal(out) if out.is_terminal else show.Log(out)

    def finished(run: Run, path: Path) -> None:
        show.summary(out, run)
        if run.verdict is not None:
            show.verdict(out, run.verdict, gate=True)
        write_down(opened, run)
        say(f"run: {shown(path)}")

    stop_as_by_ctrl_c()
    steps = workflow.Steps(len(workflow.legs(opened.settings)) + 2, say)
    try:
        runs = workflow.measure(opened, base, quick, steps, say, view, finished)
    except (workflow.PerfFailed, LoadFailed) as failed:
        complain(f"\nThe measurement could not be done: {failed}")
        raise typer.Exit(MISSED) from None
    steps.begin("report")
    path = file or store.FOLDER / environment / f"perf-{runs[-1].id}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.html(runs), encoding="utf-8")
    say(f"report: {shown(path)}")
    if any(run.interrupted for run in runs):
        raise typer.Exit(INTERRUPTED)
    passed = [run.verdict is not None and run.verdict.passed for run in runs]
    say("")
    for run, good in zip(runs, passed, strict=True):
        asked = max(phase.asked_rate or 0 for phase in run.phases)
        style = "bold green" if good else "bold red"
        out.print(f"{'PASSED' if good else 'FAILED'}: {asked:g} req/s", style=style)
    say(f"done in {steps.elapsed:.0f} s")
    raise typer.Exit(0 if all(passed) else MISSED)
