"""How long a deploy takes, against plain scripts that lead to the same end.

    python -m bench.deploy                    all of it, medians of three interleaved runs
    python -m bench.deploy --no-cold --runs 7

Cold: a fresh machine each time. `floor` is one SSH connection with one shell script: the same
packages, images, rendered files, `docker compose up --wait` and SQL (`bench/floor.py`).

No change: `floor` is one SSH connection with one shell script that looks at everything the deploy
looks at (the same commands, each once) and compares it with the run before, then the same smoke
tests from outside and on the host. The deploy runs them, too; so they are in both times, and the
table says how long they take alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from bench import floor
from bench.figures import Failed, Figures, err, seconds, timed
from bench.link import NEAR, Link
from koprogo_deploy import connection, door, smoke
from koprogo_deploy.facts.stack import Stack
from koprogo_deploy.pyinfra_adapter.commands import text

COLD_AT_MOST = 1.3
NO_CHANGE_SECONDS = 5.0
NO_CHANGE_AT_MOST = 2.0

PYINFRA = [sys.executable, "-m", "pyinfra", "inventories/sandbox.py", "deploys/full.py", "-y"]


def hang_up(environment: door.Environment) -> None:
    """Close OpenSSH's shared connection: each run makes its own."""
    config = str(connection.ssh_config_file(environment))
    subprocess.run(
        ["ssh", "-F", config, "-O", "exit", environment.host], capture_output=True, check=False
    )


def deploy(environment: door.Environment, data: Mapping[str, object]) -> tuple[float, str]:
    """Seconds of `pyinfra inventories/sandbox.py deploys/full.py -y`, and its output."""
    hang_up(environment)
    overrides = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
    return timed([*PYINFRA, *overrides])


def smoke_alone(environment: door.Environment, data: Mapping[str, object]) -> float:
    """Seconds of the smoke tests by themselves."""
    hang_up(environment)
    began = time.monotonic()
    outcome = smoke.run("sandbox", overrides=data)
    if not outcome.passed:
        raise Failed(f"the smoke tests fail:\n{outcome.output}")
    return time.monotonic() - began


def look(environment: door.Environment) -> tuple[float, str]:
    """Seconds of the one-connection script, and the digest of what it saw."""
    took, output = timed(
        floor.script_command(environment, "sudo -n sh -s"), floor.look_script(environment)
    )
    return took, floor.seen(output)


def fresh_box() -> door.Environment:
    """Another machine, as the provider gives it; not part of any time."""
    for command in ("down", "up"):
        timed([sys.executable, "-m", "sandbox", command])
    return door.open_environment("sandbox")


def cold(runs: int) -> dict[str, list[float]]:
    """Fresh machine to KoproGo with its data, deploy and floor in turns."""
    series: dict[str, list[float]] = {"deploy": [], "floor": [], "smoke": []}
    for run in range(runs):
        environment = fresh_box()
        script = floor.cold_script(environment)
        took, _ = timed(floor.script_command(environment, floor.RUN_SCRIPT), script)
        series["floor"].append(took)
        # The end is the same one: the same tests pass.
        series["smoke"].append(smoke_alone(environment, {}))
        environment = fresh_box()
        took, _ = deploy(environment, {})
        series["deploy"].append(took)
        err.print(f"[dim]cold {run + 1}/{runs}: {_last(series)}[/]")
    return series


def no_change(runs: int, data: Mapping[str, object], title: str) -> dict[str, list[float]]:
    """A deploy that finds everything as it should be, and the script that looks at the same."""
    environment = door.open_environment("sandbox", data)
    _, expected = look(environment)
    series: dict[str, list[float]] = {"deploy": [], "look": [], "smoke": [], "floor": []}
    for run in range(runs):
        took, _ = deploy(environment, data)
        series["deploy"].append(took)
        hang_up(environment)
        took, found = look(environment)
        if found != expected:
            raise Failed("the script saw something else than before")
        series["look"].append(took)
        series["smoke"].append(smoke_alone(environment, data))
        series["floor"].append(series["look"][-1] + series["smoke"][-1])
        err.print(f"[dim]{title} {run + 1}/{runs}: {_last(series)}[/]")
    return series


def _last(series: Mapping[str, list[float]]) -> str:
    return ", ".join(f"{name} {values[-1]:.2f} s" for name, values in series.items())


def commands(environment: door.Environment) -> int:
    """Remote commands of a deploy that changes nothing, the smoke tests' own not counted."""
    _, output = deploy_loud(environment)
    return sum(">>> " in line for line in output.splitlines())


def deploy_loud(environment: door.Environment) -> tuple[float, str]:
    """The deploy with pyinfra naming each remote command."""
    hang_up(environment)
    return timed([*PYINFRA, "-vv"])


def far_away(
    environment: door.Environment, latency: float, runs: int, directory: Path
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The same with a slow line before SSH, HTTP and HTTPS; and what went over it."""
    settings, port = environment.settings, int(environment.connection["ssh_port"])
    known = Path(environment.connection["ssh_known_hosts_file"]).read_text(encoding="ascii")
    known_hosts = directory / "known_hosts"
    host = str(environment.connection["ssh_hostname"])
    known_hosts.write_text(known.replace(host, NEAR), encoding="ascii")
    data = {
        "ssh_hostname": NEAR,
        "ssh_known_hosts_file": str(known_hosts),
        "public_address": NEAR,
    }
    ports = (port, settings.public_http_port, settings.public_https_port)
    with Link(ports, latency / 1000) as link:
        series = no_change(runs, data, f"+{latency:.0f} ms")
        before = {p: (c.connections, c.turns) for p, c in link.counts.items()}
        deploy(door.open_environment("sandbox", data), data)
        hang_up(door.open_environment("sandbox", data))
        after = {p: (c.connections, c.turns) for p, c in link.counts.items()}
    crossed = {
        name: {
            "connections": after[p][0] - before[p][0],
            "round_trips": after[p][1] - before[p][1],
        }
        for name, p in zip(("ssh", "http", "https"), ports, strict=True)
    }
    return series, crossed


def ratio(over: list[float], under: list[float]) -> float:
    """Of medians, both taken in this run of the benchmark."""
    return median(over) / median(under)


def verdict(holds: bool) -> str:
    """For the table."""
    return "holds" if holds else "MISSED"


def ensure_deployed(environment: door.Environment) -> None:
    """There is a deploy to look at."""
    script = text(Stack().command(root=environment.settings.install_root))
    _, output = timed(floor.script_command(environment, "sudo -n sh -s"), script)
    if "current\t" not in output or floor.RELEASE in output:
        deploy(environment, {})


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    runs: Annotated[int, typer.Option(min=1, help="of each kind; the table shows medians")] = 3,
    latency: Annotated[float, typer.Option(min=0, help="added round trip, ms; 0: none")] = 50,
    with_cold: Annotated[
        bool, typer.Option("--cold/--no-cold", help="takes two fresh machines for each run")
    ] = True,
    markdown: Annotated[bool, typer.Option(help="print the README's table")] = False,
) -> None:
    """Measure, print the table, write all runs to bench/results/."""
    figures = Figures(
        "Deploy against plain scripts, medians (range)",
        " ".join(["python -m bench.deploy", *sys.argv[1:]]).replace(" --markdown", ""),
        ("", "deploy", "script", "ratio", "objective", ""),
    )
    try:
        _measure(figures, runs, latency, with_cold)
    except Failed as failed:
        err.print(str(failed), markup=False, style="red")
        raise typer.Exit(1) from None
    figures.finish("deploy", markdown)


def _measure(figures: Figures, runs: int, latency: float, with_cold: bool) -> None:
    if with_cold:
        series = cold(runs)
        figures.measured["cold"] = series
        quotient = ratio(series["deploy"], series["floor"])
        figures.rows.append(
            (
                "cold, fresh machine",
                seconds(series["deploy"]),
                seconds(series["floor"]),
                f"{quotient:.2f}",
                f"≤ {COLD_AT_MOST}",
                verdict(quotient <= COLD_AT_MOST),
            )
        )
        figures.notes.append(
            "cold: the deploy ends with its smoke tests, the script does not; after it they take "
            f"{seconds(series['smoke'])} and pass as well"
        )
    environment = door.open_environment("sandbox")
    ensure_deployed(environment)
    near = no_change(max(runs, 3), {}, "no change")
    figures.measured["no_change"] = near
    _no_change_row(figures, "no change", near, objective=True)
    counted = commands(environment)
    figures.measured["commands"] = counted
    if latency:
        with tempfile.TemporaryDirectory() as directory:
            far, crossed = far_away(environment, latency, max(runs, 3), Path(directory))
        figures.measured |= {f"no_change_{latency:.0f}ms": far, "line": crossed}
        _no_change_row(figures, f"no change, +{latency:.0f} ms", far, objective=False)
        ssh = crossed["ssh"]
        figures.notes.append(
            f"no change: {counted} remote commands by pyinfra over one SSH connection, and the "
            f"smoke tests' own over another: {ssh['connections']} connections, "
            f"{ssh['round_trips']} round trips, key exchange included; HTTPS: "
            f"{crossed['https']['connections']} and {crossed['https']['round_trips']}"
        )
    else:
        figures.notes.append(f"no change: {counted} remote commands by pyinfra")


def _no_change_row(
    figures: Figures, name: str, series: dict[str, list[float]], objective: bool
) -> None:
    quotient = ratio(series["deploy"], series["floor"])
    holds = quotient <= NO_CHANGE_AT_MOST and median(series["deploy"]) < NO_CHANGE_SECONDS
    figures.rows.append(
        (
            name,
            seconds(series["deploy"]),
            seconds(series["floor"]),
            f"{quotient:.2f}",
            f"< {NO_CHANGE_SECONDS:.0f} s, ≤ {NO_CHANGE_AT_MOST:.0f}" if objective else "",
            verdict(holds) if objective else "",
        )
    )
    figures.notes.append(
        f"{name}: the script looks in {seconds(series['look'])}, then the smoke tests take "
        f"{seconds(series['smoke'])}; without them on either side the deploy takes "
        f"{median(series['deploy']) - median(series['smoke']):.2f} s"
    )


if __name__ == "__main__":
    app()
