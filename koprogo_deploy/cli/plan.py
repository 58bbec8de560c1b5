"""`koprogo plan`: what a deploy would do, for people and machines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from koprogo_deploy import door
from koprogo_deploy.cli import show
from koprogo_deploy.cli.common import DataOption, Environment, out, shown
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import complain, foreign, machine_json
from koprogo_deploy.visible import visible

if TYPE_CHECKING:
    from koprogo_deploy.plan.model import FileChange, Plan

CHANGES = 2  # exit code, with --exit-code
_STYLE = {
    "keep": "dim", "start": "green", "switch": "cyan", "restart": "yellow", "recreate": "yellow",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plan)


def plan(
    environment: Environment,
    offline: Annotated[
        bool, typer.Option("--offline", help="the budget only; no host is asked")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="write it, for deploys/full.py --data plan=FILE"
        ),
    ] = None,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="exit 2 if something would change, 1 if it cannot be"),
    ] = False,
    data: DataOption = None,
) -> None:
    """Show the memory budget, and what a deploy would change and why.

    The host is looked at and not touched. With **--out** the plan can be carried out later as it
    is: `pyinfra … deploys/full.py --data plan=FILE` stops if the host or the checkout changed.

    Exit code 0: done. 1: a deploy would refuse, and the plan says why. 2: refused, or with
    --exit-code: something would change.
    """
    try:
        made = _plan(environment, offline, as_json, file, data)
    except Refusal as refusal:
        if not exit_code:
            raise
        complain(str(refusal))
        raise typer.Exit(1) from None
    if made is None:
        return
    if made.problems:
        raise typer.Exit(1)
    raise typer.Exit(CHANGES if exit_code and not made.nothing else 0)


def _plan(
    environment: str, offline: bool, as_json: bool, file: Path | None, data: list[str] | None
) -> Plan | None:
    from koprogo_deploy import remote
    from koprogo_deploy.command_line import overrides

    if offline and (as_json or file):
        fix = "leave one of them out"
        raise Refusal("Command line", [Problem("--offline", "asks no host: there is no plan", fix)])
    opened = door.open_environment(environment, overrides(data or ()))
    if offline:
        show.budget(out, opened)
        return None
    made = remote.plan(opened)
    if file:
        try:
            file.write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise Refusal("Plan", [Problem("--out", f"{file}: {error.strerror}")]) from None
    if as_json:
        values = {**made.model_dump(mode="json"), "nothing": made.nothing}
        machine_json(values)
    else:
        show.budget(out, opened)
        show_plan(out, made)
        show.backups(out, opened)
        if file and not made.nothing:
            where = shown(file.resolve())
            given = [f"plan={where}", *(data or ())]
            options = " ".join(f"--data {shlex.quote(value)}" for value in given)
            command = f"pyinfra inventories/{environment}.py deploys/full.py {options}"
            out.print(f"written to {where}; to carry it out as it is:", markup=False)
            out.print(f"  {command}", markup=False, soft_wrap=True)
    return made


def show_plan(out: Console, plan: Plan) -> None:
    """The whole plan, for a person."""
    from koprogo_deploy.plan import words

    since = f"serving: {plan.live} since {plan.live_since}" if plan.live else "nothing deployed yet"
    out.print(Text.assemble((f"Deploy to {plan.host}", "bold"), f" ({visible(since)})"))
    table = Table(box=None, pad_edge=False)
    for column in ("service", "action", "why"):
        table.add_column(column, no_wrap=column != "why")
    for service in plan.services:
        style = _STYLE[service.action]
        why = Text("\n".join(map(visible, service.reasons)))
        table.add_row(service.name, Text(words.action(service), style=style), why)
    out.print(table)
    if plan.nothing:
        out.print("nothing to do")
        _problems(out, plan)
        return
    if all(service.action == "keep" for service in plan.services):
        out.print("routes change; no container does" if plan.routes else "no container changes")
    out.print()
    for file in plan.files:
        _file(out, file)
    lines = [("packages", ", ".join(plan.machine.packages))]
    lines += [("machine", step) for step in plan.machine.does]
    lines += [
        ("pull", words.images(plan)),
        ("migrations", words.migrations(plan)),
        ("seed", plan.seed),
        ("memory", words.memory(plan)),
        *(("requests", line) for line in words.requests(plan)),
        ("stops later", ", ".join(plan.stops)),
        ("takes", words.duration(plan.duration)),
    ]
    before = ""
    told = Table.grid(padding=(0, 2))
    told.add_column(no_wrap=True)
    told.add_column()
    for name, value in lines:
        if value:
            told.add_row(name if name != before else "", Text(visible(value, lines=True)))
            before = name
    out.print(told)
    _problems(out, plan)


def _problems(out: Console, plan: Plan) -> None:
    for warning in plan.warnings:
        out.print(Text(visible(warning), style="yellow"))
    for problem in plan.problems:
        out.print(Text(visible(f"a deploy would refuse: {problem}", lines=True), style="red"))


def _file(out: Console, file: FileChange) -> None:
    out.print(foreign(f"{file.action:8}{file.path}", "bold"))
    for line in file.diff.splitlines():
        style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
        out.print(foreign(f"        {line}", style), soft_wrap=True)
