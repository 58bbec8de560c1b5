"""The commands of `koprogo`."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from koprogo_deploy import connection, door, remote, secrets, seed, smoke
from koprogo_deploy.cli import (
    backups,
    dashboard,
    debug,
    load,
    maintenance,
    monitor,
    perf,
    plan,
    releases,
    report,
    show,
)
from koprogo_deploy.cli.common import Environment, out
from koprogo_deploy.operations.shell import psql
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import machine

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""KoproGo on one small VPS: look before you deploy, check after.

A deploy itself is pyinfra's: `pyinfra inventories/production.py deploys/full.py`

The first time, for production:

1. write your domains in group_data/production.py and your host in inventories/production.py
2. `koprogo secrets init production`
3. `koprogo plan production`, then deploy
4. `koprogo smoke production`, now and whenever in doubt
""",
)
secrets_app = typer.Typer(no_args_is_help=True, help="The secrets file of an environment.")
seed_app = typer.Typer(no_args_is_help=True, help="The realistic data.")
app.add_typer(secrets_app, name="secrets")
app.add_typer(seed_app, name="seed")


@app.command()
def check(environment: Environment) -> None:
    """Check settings, secrets, budget and tuning, without touching a host."""
    opened = door.open_environment(environment)
    out.print(f"{environment}: settings, secrets, budget and tuning are valid ({opened.host})")


plan.register(app)


@app.command()
def tuning(environment: Environment) -> None:
    """Show Postgres' settings as computed from the container's limit, each with its reason."""
    show.tuning(out, door.open_environment(environment))


@app.command()
def about(environment: Environment) -> None:
    """Say where the site is, how to log in, and what to try next."""
    show.about(out, door.open_environment(environment))


@app.command(name="smoke", context_settings={"allow_extra_args": True})
def smoke_command(environment: Environment, context: typer.Context) -> None:
    """Run the smoke tests: from outside through TLS, and on the host. They change nothing.

    Further arguments go to pytest: `koprogo smoke production -- -v -k certificate`
    """
    door.open_environment(environment)
    out.print(f"smoke tests of {environment} …")
    outcome = smoke.run(environment, context.args)
    out.print(outcome.output, markup=False)
    raise typer.Exit(0 if outcome.passed else 1)


@app.command()
def ssh(
    environment: Environment,
    command: Annotated[list[str] | None, typer.Argument(help="a command; none: a shell")] = None,
) -> None:
    """Open a shell on the host, or run one command there."""
    opened = door.open_environment(environment)
    line = connection.ssh_command(opened, " ".join(command or []))
    raise typer.Exit(subprocess.run(line if command else line[:-1], check=False).returncode)


@secrets_app.command("init")
def secrets_init(
    environment: Environment,
    missing: Annotated[
        bool, typer.Option("--missing", help="a file that lacks none is no mistake")
    ] = False,
) -> None:
    """Write .env.<environment> with generated values, mode 0600; never overwrites.

    A file that lacks some, as after an upgrade, gets those.
    """
    try:
        path = secrets.initialise(environment, door.ROOT)
    except FileExistsError:
        if added := secrets.complete(environment, door.ROOT):
            out.print(f"added to .env.{environment}: {', '.join(added)}. Keep a copy of it anew.")
            return
        if missing:
            return
        fix = "to start afresh, move it away yourself; the database keeps its old password"
        raise Refusal(
            "Secrets", [Problem(f".env.{environment}", "is there already", fix)]
        ) from None
    out.print(f"wrote {path.name} (0600, ignored by git). Keep a copy where you keep passwords:")
    out.print("without it nobody can log in as before, and no backup can be read.")


@secrets_app.command("show")
def secrets_show(
    environment: Environment, name: Annotated[str, typer.Argument(help="such as SEED_PASSWORD")]
) -> None:
    """Print one secret, for a login or a password manager."""
    kept, problems = secrets.read(environment, door.ROOT)
    if kept is None:
        raise Refusal(f"Secrets of {environment}", problems)
    if name not in kept.values:
        known = ", ".join(sorted(kept.values))
        raise Refusal("Secrets", [Problem(f".env.{environment}", f"no {name}", f"it has {known}")])
    machine(kept[name])


@seed_app.command("preview")
def seed_preview(
    environment: Environment,
    rows: Annotated[int, typer.Option(help="rows of each kind")] = 5,
) -> None:
    """Show rows of the data that the environment's number and scale give; touches nothing."""
    show.seed_preview(out, door.open_environment(environment).settings, rows)


@seed_app.command("clear")
def seed_clear(
    environment: Environment,
    yes: Annotated[
        str, typer.Option("--yes", metavar="ENVIRONMENT", help="the environment's name, to confirm")
    ] = "",
) -> None:
    """Remove seeded organisations with all that belongs to them, and nothing else."""
    opened = door.open_environment(environment)
    typed = yes or typer.prompt("This removes seeded data. Type the environment's name to go on")
    if typed != environment:
        fix = f"koprogo seed clear {environment} --yes {environment}"
        raise Refusal("Seed", [Problem("confirmation", f'"{typed}" is not {environment}', fix)])
    done = remote.run(opened, f"sudo -n {psql()}", seed.clear_sql())
    out.print(done.strip() or "nothing was seeded", markup=False)


load.register(app)
monitor.register(app)
debug.register(app)
report.register(app)
perf.register(app)
dashboard.register(app)
maintenance.register(app)
releases.register(app)
backups.register(app)
