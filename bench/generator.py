"""Whether the load generator is the limit: how fast it is, and how fast the stack is.

    python -m bench.generator
    python -m bench.generator --seconds 30 --rounds 5

The generator: against nginx with TLS on this machine, on another CPU, which gives the lists of the
application from memory: more than any application could. First as fast as it can (closed loop),
then an open loop at three times what the stack reaches, which has to be valid. The stack: the
realistic mix in the sandbox, closed loop. The generator must reach three times the stack's rate.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bench.figures import Failed, Figures, err
from koprogo_deploy import door
from koprogo_deploy.load import run as runs
from koprogo_deploy.load.ledger import Ledger
from koprogo_deploy.load.plan import Account, Options, PhasePlan, Plan, Target
from koprogo_deploy.load.profiles import PROFILES, REALISTIC
from koprogo_deploy.load.schedule import weights
from koprogo_deploy.runs.model import Generator, Phase
from sandbox import authority
from sandbox.machine import apt_install

FACTOR = 3
USERS = 20
PORT = 18443
EMAIL = "admin@small.be"
READS = {name: count for name, count in weights(REALISTIC).items() if name.startswith("GET")}


def item(kind: str, number: int) -> dict[str, Any]:
    """A row as KoproGo shows it, of the size that it has in the realistic data."""
    row: dict[str, Any] = {"id": f"5eed0001-0001-8000-8000-{number:012d}"}
    address = {"address": "Chaussée de Charleroi 112", "city": "Saint-Gilles",
               "postal_code": "1060", "country": "Belgium"}  # fmt: skip
    match kind:
        case "buildings":
            row |= {"name": "Résidence du Parc Royal", **address, "total_units": 10,
                    "construction_year": 1974, "created_at": "2025-03-01T09:30:00+00:00",
                    "updated_at": "2025-03-01T09:30:00+00:00"}  # fmt: skip
        case "units":
            row |= {"building_id": row["id"], "unit_number": f"{number}.1", "floor": 2,
                    "unit_type": "Apartment", "surface_area": 87.5, "quota": 100,
                    "owner_id": row["id"]}  # fmt: skip
        case "owners":
            row |= {"first_name": "Véronique", "last_name": "Van den Bossche",
                    "email": f"v.vandenbossche{number}@example.be", "phone": "+32 2 555 01 02",
                    **address}  # fmt: skip
        case "expenses":
            row |= {"building_id": row["id"], "category": "Maintenance", "amount": 1250.5,
                    "description": "Entretien annuel de la chaudière commune",
                    "expense_date": "2025-09-12T00:00:00+00:00", "payment_status": "Paid",
                    "supplier": "Chauffage Dumont SRL", "invoice_number": "2025-0912"}  # fmt: skip
    return row


def answers() -> dict[str, dict[str, Any]]:
    """What the fast server gives, by path."""
    user = {"id": "u", "email": EMAIL, "role": "syndic", "organization_id": "o", "is_active": True}
    lists = {
        f"/{kind}": {
            "data": [item(kind, number) for number in range(20)],
            "pagination": {"current_page": 1, "per_page": 20, "total_items": 20, "total_pages": 1,
                           "has_next": False, "has_previous": False},
        }
        for kind in ("buildings", "units", "owners", "expenses")
    }  # fmt: skip
    login = {"token": "t" * 250, "refresh_token": "r", "user": user}
    return {**lists, "/auth/me": user, "/auth/login": login}


@contextlib.contextmanager
def fast_server(cpu: int | None) -> Iterator[Target]:
    """nginx with TLS on this machine, on a CPU of its own."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        apt_install("nginx-light")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)  # nginx' workers are another user
        root = authority.root(path, "bench")
        authority.server(path, "server", ["api.koprogo.localhost"], root)
        (path / "nginx.conf").write_text(_configuration(path), encoding="utf-8")
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        process = subprocess.Popen(
            [*pin, nginx, "-c", str(path / "nginx.conf"), "-p", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            if process.poll() is not None:
                raise Failed(f"nginx did not start; is port {PORT} taken?")
            yield Target(
                f"https://api.koprogo.localhost:{PORT}/api/v1", "127.0.0.1", str(path / "ca.crt")
            )
        finally:
            process.terminate()
            process.wait(10)


def _configuration(path: Path) -> str:
    login = answers().pop("/auth/login")
    for name, answer in answers().items():
        file = path / f"api/v1{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(orjson.dumps(answer))
    return f"""
daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {path}/body;
  open_file_cache max=100; default_type application/json;
  server {{
    listen 127.0.0.1:{PORT} ssl;
    ssl_certificate {path}/server.crt; ssl_certificate_key {path}/server.key;
    root {path};
    location = /api/v1/auth/login {{ return 200 '{orjson.dumps(login).decode()}'; }}
  }}
}}
"""


def against(target: Target, phase: PhasePlan, cpus: tuple[int, ...] | None) -> tuple[
    Phase, Generator
]:  # fmt: skip
    """A run against the fast server."""
    plan = Plan(target, (Account(EMAIL, "password"),), (phase,), "0123abcd", 1, USERS, cpus=cpus)
    ledger = Ledger(plan)
    runs.generate(plan, ledger)
    if ledger.failed:
        raise Failed(ledger.failed)
    (found,) = ledger.phases()
    if found.failed:
        raise Failed(f"errors against nginx: {found.errors} {ledger.words}")
    return found, ledger.generator([found])


def stack(environment: door.Environment, seconds: int) -> tuple[Phase, Generator]:
    """The stack as fast as it can."""
    profile = PROFILES["realistic"]
    options = Options(users=USERS, seconds=seconds, monitor=False)
    run = runs.execute(environment, profile, options)
    phase = run.phases[-1]
    if phase.failed:
        raise Failed(f"errors of the stack: {phase.errors} {run.notes}")
    return phase, run.generator


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    seconds: Annotated[int, typer.Option(help="length of each measurement")] = 15,
    rounds: Annotated[int, typer.Option(help="how often, in turn; medians are shown")] = 3,
    markdown: Annotated[bool, typer.Option(help="print the README's table")] = False,
) -> None:
    """Measure, print the table, write everything to bench/results/."""
    environment = door.open_environment("sandbox")
    mine = tuple(environment.settings.load_cpus or ())
    others = sorted(os.sched_getaffinity(0) - set(mine)) if mine else []
    figures = Figures(
        "The load generator and the stack, requests a second",
        " ".join(["python -m bench.generator", *sys.argv[1:]]).replace(" --markdown", ""),
        ("", "req/s", "generator's CPU", "P50", "P99", "sent late (P99)"),
    )
    fastest = PhasePlan("ceiling", seconds, tuple(READS.items()), users=USERS)
    taken: dict[str, list[tuple[Phase, Generator]]] = {}
    try:
        for number in range(rounds):
            err.print(f"[dim]round {number + 1} of {rounds}[/]")
            taken.setdefault("stack", []).append(stack(environment, seconds))
            with fast_server(others[0] if others else None) as target:
                taken.setdefault("generator", []).append(against(target, fastest, mine or None))
        reached = statistics.median(phase.achieved_rate for phase, _ in taken["stack"])
        opened = replace(fastest, name="open", users=None, rate=float(round(FACTOR * reached)))
        with fast_server(others[0] if others else None) as target:
            taken["open"] = [against(target, opened, mine or None) for _ in range(rounds)]
    except Failed as failed:
        err.print(str(failed), markup=False, style="red")
        raise typer.Exit(1) from None
    passed = tabulate(figures, taken, opened)
    figures.finish("generator", markdown)
    raise typer.Exit(0 if passed else 1)


def tabulate(
    figures: Figures, taken: dict[str, list[tuple[Phase, Generator]]], opened: PhasePlan
) -> bool:
    """A row for each, and whether three times was reached."""
    titles = {
        "stack": f"the stack, realistic mix, {USERS} users",
        "generator": f"the generator against nginx, its reads, {USERS} users",
        "open": f"the same, open loop, {opened.rate:g} asked",
    }
    rates = {}
    for name, found in taken.items():
        rates[name] = statistics.median(phase.achieved_rate for phase, _ in found)
        every = ", ".join(f"{phase.achieved_rate:.0f}" for phase, _ in found)
        figures.rows.append(
            (
                titles[name],
                f"{rates[name]:.0f}",
                f"{statistics.median(own.cpu_percent_mean for _, own in found):.0f} %",
                f"{statistics.median(phase.latency.p50 or 0 for phase, _ in found):.2f} ms",
                f"{statistics.median(phase.latency.p99 or 0 for phase, _ in found):.2f} ms",
                f"{statistics.median(own.late_p99_ms for _, own in found):.2f} ms"
                if name == "open"
                else "",
            )
        )
        figures.notes.append(f"{titles[name]}: {every}")
        figures.measured[name] = [
            {"phase": phase.model_dump(exclude={"histogram", "endpoints"}), "own": own.model_dump()}
            for phase, own in found
        ]
    ratio = rates["generator"] / rates["stack"]
    valid = sum(own.valid for _, own in taken["open"])
    figures.notes.append(
        f"the generator reaches {ratio:.1f} times what the stack does ({FACTOR} are asked for)"
    )
    figures.notes.append(
        f"at {FACTOR} times the stack's rate {valid} of {len(taken['open'])} runs are valid"
    )
    return ratio >= FACTOR


if __name__ == "__main__":
    app()
