"""Who uses the memory, against the budget's lines: idle and loaded, warm and cold.

    python -m bench.memory
    python -m bench.memory --no-cold     leaves the machine's page cache and the box alone

Load: `wrk` from 127.0.0.1 through TLS on 20 and on 100 kept-alive connections, ten seconds each:
logged-in lists and /health. Cold: the box is stopped, the machine's page cache is dropped, the box
starts again. Each figure is the highest of samples taken twice a second meanwhile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from bench import floor
from bench.figures import Failed, Figures, err, timed
from koprogo_deploy import budget, door
from koprogo_deploy.outside import Outside
from koprogo_deploy.units import MB
from sandbox import box, engine
from sandbox import state as states
from sandbox.cli import here
from sandbox.machine import apt_install

CONNECTIONS = (20, 100)
LOAD_SECONDS = 10
IDLE_SECONDS = 5
PATHS = (
    "/api/v1/buildings?per_page=20",
    "/api/v1/units?per_page=20",
    "/api/v1/owners?per_page=20",
    "/api/v1/expenses?per_page=20",
    "/api/v1/health",
)

Sample = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Load:
    """What wrk says of a run."""

    rate: float
    errors: int


def gather(environment: door.Environment, seconds: int) -> Sample:
    """Sample the host for so many seconds."""
    script = (Path(__file__).parent / "memory_gather.py").read_text(encoding="utf-8")
    command = floor.script_command(environment, "sudo -n python3 -")
    _, output = timed(command, f"SECONDS = {seconds}\n{script}")
    found: Sample = json.loads(output.splitlines()[-1])
    return found


def wrk_script(token: str) -> str:
    """Lua: never another address than 127.0.0.1, one path after the other, logged in."""
    paths = ", ".join(f'"{path}"' for path in PATHS)
    return f"""
function wrk.resolve(host, service) wrk.addrs = wrk.lookup("127.0.0.1", service) end
wrk.headers["Authorization"] = "Bearer {token}"
local paths, n = {{ {paths} }}, 0
function request() n = n % #paths + 1; return wrk.format("GET", paths[n]) end
function done(summary)
  local e = summary.errors
  io.write(string.format("\\n%d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def loaded(environment: door.Environment, connections: int) -> tuple[Sample, Load]:
    """Sample the host while it is under load."""
    settings = environment.settings
    with Outside(settings, timeout=30) as site:
        login = site.login("admin@small.be", environment.secrets["SEED_PASSWORD"])
        login.raise_for_status()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(wrk_script(login.json()["token"]))
        script.flush()
        base = settings.api_url.removesuffix("/api/v1")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{LOAD_SECONDS}s", "-s", script.name, base]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            sample = gather(environment, LOAD_SECONDS - 1)
            output, _ = running.communicate(timeout=60)
    requests, microseconds, errors = map(int, output.splitlines()[-1].split())
    return sample, Load(requests / microseconds * 1e6, errors)


def measure(environment: door.Environment) -> dict[str, Any]:
    """Idle, then each load."""
    found: dict[str, Any] = {"idle": gather(environment, IDLE_SECONDS)}
    for connections in CONNECTIONS:
        sample, load = loaded(environment, connections)
        found[f"{connections}"] = sample
        found[f"{connections} load"] = {"rate": round(load.rate), "errors": load.errors}
        err.print(f"[dim]{connections} connections: {load.rate:.0f} req/s, {load.errors} errors[/]")
    return found


def restart_cold(environment: door.Environment) -> float:
    """Stop the box, drop the machine's page cache, start it; seconds until the API answers."""
    sandbox, docker = here(), engine.require()
    found = states.read(sandbox)
    assert found is not None
    box.hang_up(sandbox, found)
    docker.call("stop", "--time", str(box.STOP_WITHIN), sandbox.vps, timeout=90.0)
    timed(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"])
    began = time.monotonic()
    docker.call("start", sandbox.vps)
    box.wait(docker, sandbox, found)
    with Outside(environment.settings, timeout=5) as site:
        while time.monotonic() - began < 180:
            try:
                if site.api.get("/health").status_code == 200:
                    return time.monotonic() - began
            except httpx2.HTTPError:
                pass
            time.sleep(0.1)
    raise Failed("the API does not answer within 180 s of a cold start")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    with_cold: Annotated[
        bool, typer.Option("--cold/--no-cold", help="drops the machine's page cache; needs root")
    ] = True,
    markdown: Annotated[bool, typer.Option(help="print the README's table")] = False,
) -> None:
    """Measure, print the table, write everything to bench/results/."""
    if not shutil.which("wrk"):
        apt_install("wrk")
    environment = door.open_environment("sandbox")
    columns = ("MB", "budget", "idle", *(f"{c} conn." for c in CONNECTIONS))
    if with_cold:
        columns += tuple(f"cold, {c}" for c in ("idle", *(f"{c} conn." for c in CONNECTIONS)))
    figures = Figures(
        "Memory against the budget's lines",
        " ".join(["python -m bench.memory", *sys.argv[1:]]).replace(" --markdown", ""),
        (*columns, ""),
    )
    try:
        found = {"warm": measure(environment)}
        if with_cold:
            answered = restart_cold(environment)
            err.print(f"[dim]cold: first answer {answered:.1f} s after the start of the box[/]")
            found["cold"] = measure(environment)
            found["cold"]["first_answer_seconds"] = round(answered, 1)
    except Failed as failed:
        err.print(str(failed), markup=False, style="red")
        raise typer.Exit(1) from None
    figures.measured |= found
    tabulate(figures, environment, found)
    figures.finish("memory", markdown)


def tabulate(figures: Figures, environment: door.Environment, found: dict[str, Any]) -> None:
    """A row for each line of the budget, and whether it holds."""
    phases = [
        warmth[phase]
        for warmth in found.values()
        for phase in ("idle", *(f"{c}" for c in CONNECTIONS))
    ]
    names = {name.partition("-")[0]: name for name in phases[0]}
    lines = {line.name: line.size for line in budget.budget(environment.settings).lines}

    def row(title: str, size: int, values: list[int], holds: bool) -> None:
        cells = [f"{value / MB:.0f}" for value in values]
        verdict = "holds" if holds else "EXCEEDED"
        figures.rows.append((title, f"{size / MB:.0f}", *cells, verdict))

    for service in ("traefik", "postgres", "backend", "frontend"):
        samples = [phase[names[service]] for phase in phases]
        values = [sample["working_set"] for sample in samples]
        killed = any(sample["oom_kill"] for sample in samples)
        row(service, lines[service], values, max(values) <= lines[service] and not killed)
        anon = " / ".join(f"{sample['anon'] / MB:.0f}" for sample in samples)
        faults = " / ".join(str(sample["pgmajfault_meanwhile"]) for sample in samples)
        figures.notes.append(
            f"{service}: of it anonymous {anon} MB; major faults meanwhile {faults}, since its "
            f"start {samples[-1]['pgmajfault']}"
        )
    for title, group, key in (
        ("traefik binary, locked", "locked", "locked"),
        ("Docker Engine", "engine", "pss"),
        ("operating system", "system", "pss"),
    ):
        values = [phase[group].get(key, 0) for phase in phases]
        row(title, lines[title], values, 0 < max(values) <= lines[title])
    # Anonymous, shared, locked and the kernel's pages cannot go; the rest is left for files.
    room = [
        phase["whole"]["limit"]
        - phase["whole"]["anon"]
        - phase["whole"]["shmem"]
        - phase["whole"]["kernel"]
        - phase["locked"].get("locked", 0)
        for phase in phases
    ]
    row("page cache (room for it)", lines["page cache"], room, min(room) >= lines["page cache"])
    figures.notes.append(
        "containers: working set as `docker stats` shows it; engine and system: PSS, file pages "
        "included; the second colours' lines are the services' own, backup and rehearsal do not "
        "run here"
    )
    for warmth, phases_of in found.items():
        rates = ", ".join(
            f"{phases_of[f'{c} load']['rate']} req/s with {phases_of[f'{c} load']['errors']} errors"
            f" on {c} connections"
            for c in CONNECTIONS
        )
        figures.notes.append(f"{warmth}: {rates}")
    if "cold" in found:
        figures.notes.append(
            f"cold: first answer {found['cold']['first_answer_seconds']} s after the start of the "
            "box"
        )


if __name__ == "__main__":
    app()
