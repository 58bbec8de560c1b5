"""`koprogo load`: a load test of the deployed stack, judged by the environment's objectives."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import complain

if TYPE_CHECKING:
    from koprogo_deploy.load.plan import Options
    from koprogo_deploy.load.profiles import Profile
    from koprogo_deploy.load.show import View
    from koprogo_deploy.runs.model import Run

INTERRUPTED, MISSED = 130, 1
PROFILES_HELP = (
    "warmup, light, medium, heavy, realistic, spike, soak or suite; or clean: remove what a run "
    "that was killed has left behind"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="load", rich_help_panel="Measure")(load)


def load(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help=PROFILES_HELP)],
    environment: EnvironmentOption = Where.sandbox,
    rate: Annotated[
        float | None,
        typer.Option(help="requests a second, whatever the answers take (open loop)"),
    ] = None,
    users: Annotated[
        int | None, typer.Option(help="users, each asking after its last answer (closed loop)")
    ] = None,
    seconds: SecondsOption = "",
    connections: Annotated[int | None, typer.Option(help="kept connections, at most")] = None,
    think: Annotated[
        float, typer.Option(help="with --users: seconds between an answer and the next request")
    ] = 0.0,
    gate: Annotated[
        bool, typer.Option("--gate", help="exit 1 if an objective is missed or the run is invalid")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="leave what was written")] = False,
    monitor: Annotated[
        bool, typer.Option("--monitor/--no-monitor", help="watch the host meanwhile")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="an object a line: steps, progress, the end")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="where to write the run, as JSON")
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="not the sandbox: type the environment's name, or --url's host"
        ),
    ] = "",
    url: Annotated[
        str, typer.Option(help="a site without inventory, such as https://api.koprogo.example.be")
    ] = "",
    login: LoginOption = None,
    data: DataOption = None,
    seed: Annotated[
        int | None, typer.Option(help="of the random numbers: the same gives the same arrivals")
    ] = None,
    renew_after: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure the site under load, and say whether it meets its objectives.

    **realistic** is what the gate judges: arrivals at a rate a little above `objective_rate`,
    latency counted from the moment a request was to be sent. Writes are marked and removed
    afterwards. The run is written to runs/: see `koprogo report`.

    Exit code 0: done. 1: with --gate, an objective was missed or the run is invalid; or it could
    not be done. 2: refused, nothing was touched. 130: interrupted.
    """
    from koprogo_deploy.command_line import overrides
    from koprogo_deploy.load import plan

    opened = None if url else door.open_environment(environment, overrides(data or ()))
    if profile == "clean":
        if opened is None:
            raise Refusal("Load", [Problem("clean", "--url has no host", "give --env")])
        _clean(opened, on)
        return
    found = plan.profile_named(profile)
    if isinstance(found, Problem):
        raise Refusal("Load", [found])
    length = length_of(seconds, "Load")
    options = plan.Options(
        rate=rate, users=users, seconds=length, connections=connections, think=think, keep=keep,
        monitor=monitor, on=on, url=url, logins=tuple(login or ()), seed=seed,
        password=os.environ.get("KOPROGO_LOAD_PASSWORD", ""),
        command=" ".join(["koprogo", *sys.argv[1:]]),
        **({} if renew_after is None else {"renew_after": float(renew_after)}),
    )  # fmt: skip
    if gate:
        problems = [Problem("--gate", "--url has no objectives", "give --env")] if url else []
        objective = opened.settings.objective_rate if opened else plan.OBJECTIVE_RATE
        problems += plan.ungateable(plan.phases(found, options, objective), profile)
        if problems:
            raise Refusal("Load", problems)
    raise typer.Exit(_run(opened, found, options, gate, as_json, file))


def _run(
    opened: door.Environment | None,
    profile: Profile,
    options: Options,
    gate: bool,
    as_json: bool,
    file: Path | None,
) -> int:
    from koprogo_deploy.load import run as runs
    from koprogo_deploy.load import show
    from koprogo_deploy.runs import store

    stop_as_by_ctrl_c()
    lines = show.JsonLines()
    view: View = lines if as_json else show.Terminal(out) if out.is_terminal else show.Log(out)
    try:
        run = runs.execute(opened, profile, options, view)
    except runs.LoadFailed as failed:
        view.close()
        if as_json:
            lines.write({"event": "failed", "text": str(failed)})
        complain(f"\nThe load test could not be done: {failed}")
        return MISSED
    finally:
        view.close()
    path = _save(run, file) if file else store.save(run)
    if gate and opened is not None:
        write_down(opened, run)
    if as_json:
        lines.finished(run, path)
    else:
        _end(run, path, gate, show)
    if run.interrupted:
        return INTERRUPTED
    missed = run.verdict is not None and not run.verdict.passed
    return MISSED if gate and missed else 0


def _save(run: Run, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return file


def _end(run: Run, path: Path, gate: bool, show: Any) -> None:  # noqa: ANN401 - a module
    out.print()
    show.summary(out, run)
    if run.verdict is not None:
        show.verdict(out, run.verdict, gate)
    elif not run.interrupted:
        out.print("nothing in it is judged: warm-ups, and closed loops, which make their own rate")
    out.print(f"\nrun: {shown(path)}", markup=False, soft_wrap=True)
    out.print(f"report: koprogo report {run.id}", markup=False, soft_wrap=True)


def _clean(opened: door.Environment, on: str) -> None:
    from koprogo_deploy.load import host

    name = opened.settings.environment
    if name != "sandbox" and on != name:
        fix = f"koprogo load clean --env {name} --on {name}"
        raise Refusal("Load", [Problem("--on", f"this removes rows in {name}", fix)])
    removed = host.clean(opened)
    rows = ", ".join(f"{count} {table}" for table, count in removed.items())
    out.print(
        f"removed what load tests had left: {rows}" if rows else "nothing was left", markup=False
    )
