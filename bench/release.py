"""A new tag of the backend, released under load three ways; how long it takes, and what it loses.

    python -m bench.release                            five rounds, each way in turns
    python -m bench.release --docker-rollout FILE      ... docker-rollout among them
    python -m bench.release --measurements 4           four of them now ...
    python -m bench.release --go-on                    ... and the rest later

ours: `deploys/full.py`, from its start to its end: checks before, smoke tests after, journal.
compose: `docker compose pull` and `docker compose up -d --wait` of the service.
rollout: docker-rollout as its README says: Traefik with the Docker provider, `docker rollout
<service>`; and once more with the container draining of its documentation. Its script is the file
`docker-rollout` of the project wowu/docker-rollout on GitHub; download it and give its path.
Without it both rows are left out.

The rivals have the same box, Postgres, Traefik, image, limits and healthcheck as ours, and run
over one SSH connection. Meanwhile the same open loop asks through TLS: reads and writes on kept
and new connections, requests of 5 s, uploads of 6 s. What does not come back right is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx2
import typer
import yaml

from bench import box as boxes
from bench import floor
from bench.box import ANSWERS_WITHIN, Box
from bench.figures import RESULTS, Failed, Figures, err, seconds, timed
from bench.measure import rotated
from koprogo_deploy import door, remote
from koprogo_deploy.outside import Outside
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.render import container_names
from sandbox import engine, lifecycle
from sandbox.state import Sandbox
from tests.integration.images import new_backend
from tests.integration.traffic import SLOW_RELEASE, WITHOUT_PAGES, Traffic, losses, where

AT_MOST = 1.2
OURS, COMPOSE, ROLLOUT, DRAINED = "ours", "compose up --wait", "docker-rollout", "… with draining"
WAYS = (OURS, COMPOSE, ROLLOUT, DRAINED)
BY_SCRIPT = (ROLLOUT, DRAINED)
KEPT = RESULTS / "release"
OPTION = "--docker-rollout"
SOURCE = "the file docker-rollout of the project wowu/docker-rollout on GitHub"
PLACE = "/run/rival"
SERVICE = "api"
AROUND = 7.0  # seconds of load before and after: longer than any of its requests takes
# interval × retries of the healthcheck, and the longest request of the load: its documentation's
# rule for the hook.
DRAIN = "touch /tmp/drain && sleep 12"


@dataclass(frozen=True)
class Script:
    """The rival's script, as the user gave it: its path and its text."""

    path: Path
    text: str

    @property
    def sha256(self) -> str:
        """Which version of the script it is, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def script_problem(text: str) -> str:
    """Why a text cannot be docker-rollout's script, or nothing if it can. Pure."""
    first = text.partition("\n")[0].split()
    words = [Path(word.removeprefix("#!")).name for word in first]
    if not text.startswith("#!") or not {"sh", "bash", "dash"} & set(words):
        return "is no shell script: its first line names no shell"
    # The question that Docker asks each plugin; one that does not know it is not called.
    if "docker-cli-plugin-metadata" not in text:
        return "is no plugin of Docker's command line"
    return ""


def read_script(path: Path) -> Script:
    """The rival's script.

    Raises:
        Refusal: the path is none of a readable shell script that Docker takes for a plugin.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problem = "is no shell script: not UTF-8 text"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    else:
        problem = script_problem(text)
        if not problem:
            return Script(path, text)
    raise Refusal(
        "bench.release", [Problem(OPTION, f"{path} {problem}", f"give the path of {SOURCE}")]
    )


def ways(script: Script | None) -> tuple[str, ...]:
    """What is measured: the rows that need the rival's script are left out without one. Pure."""
    return tuple(way for way in WAYS if script or way not in BY_SCRIPT)


def rival(compose: Mapping[str, Any], backend: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """A compose file of the same stack as docker-rollout's documentation has it. Pure.

    Args:
        compose: the serving release's own file.
        backend: its service there.
        settings: `domain` of the API, and `draining` where it is wanted.
    """
    ours = dict(compose["services"][backend])
    labels = {
        "traefik.enable": "true",
        "traefik.docker.network": "koprogo_edge",
        "traefik.http.routers.api.entrypoints": "websecure",
        "traefik.http.routers.api.rule": f"Host(`{settings['domain']}`)",
        "traefik.http.services.api.loadbalancer.server.port": "8080",
    }
    if settings.get("draining"):
        probe = " ".join(ours["healthcheck"]["test"][1:])
        labels["docker-rollout.pre-stop-hook"] = DRAIN
        ours["healthcheck"] = {
            **ours["healthcheck"],
            "test": f"test ! -f /tmp/drain && {probe}",
            "interval": "5s",
            "retries": 1,
        }
    traefik = compose["services"]["traefik"]
    command = [
        "--providers.docker=true",
        "--providers.docker.exposedbydefault=false",
        "--providers.file.filename=/rival/tls.yaml",
        "--entrypoints.websecure.address=:443",
        "--entrypoints.websecure.http.tls=true",
        "--log.level=WARN",
    ]
    return {
        "name": "rival",
        "services": {
            SERVICE: {**ours, "image": "${IMAGE}", "labels": labels},
            "traefik": {
                "image": traefik["image"],
                "command": command,
                "mem_limit": traefik["mem_limit"],
                "cpu_shares": traefik["cpu_shares"],
                "environment": traefik["environment"],
                "ports": ["0.0.0.0:443:443"],
                "networks": ["edge"],
                "secrets": traefik.get("secrets", []),
                "volumes": [
                    "/var/run/docker.sock:/var/run/docker.sock:ro",
                    f"{PLACE}/tls.yaml:/rival/tls.yaml:ro",
                ],
            },
        },
        "networks": {
            name: {"external": True, "name": f"koprogo_{name}"} for name in ("edge", "data")
        },
        "volumes": {"uploads": {"external": True, "name": "koprogo_uploads"}},
        "secrets": compose.get("secrets", {}),
    }


TLS = yaml.safe_dump(
    {
        "tls": {
            "certificates": [
                {"certFile": "/run/secrets/tls_certificate", "keyFile": "/run/secrets/tls_key"}
            ]
        }
    }
)


class Stacks:
    """Ours and the rival's, of which one serves at a time."""

    def __init__(self, box: Box, script: Script | None) -> None:
        self.box, self.script = box, script

    def _ours(self) -> str:
        manifest = remote.stack(self.box.environment).current
        assert manifest is not None
        names = container_names(manifest["colours"])
        return " ".join(f"koprogo-{names[s]}-1" for s in ("traefik", "backend", "frontend"))

    @contextlib.contextmanager
    def rival(self, before: str, after: str, draining: bool) -> Iterator[None]:
        """The rival's stack in the place of ours; ours serves again afterwards.

        Args:
            before: the image that it begins with.
            after: the one that it will be given.
            draining: with docker-rollout's container draining.
        """
        box, ours = self.box, self._ours()
        settings = box.environment.settings
        root = settings.install_root
        compose = yaml.safe_load(box.root(f"cat {root}/current/compose.yaml"))
        (backend,) = [name for name in compose["services"] if name.startswith("backend-")]
        asked = {"domain": settings.api_domain, "draining": "yes" if draining else ""}
        text = yaml.safe_dump(rival(compose, backend, asked))
        box.root(f"mkdir -p {PLACE}; cat > {PLACE}/compose.yaml", text)
        box.root(f"cat > {PLACE}/tls.yaml", TLS)
        plugin = "/usr/local/lib/docker/cli-plugins"
        if self.script:
            box.root(
                f"mkdir -p {plugin}; cat > {plugin}/docker-rollout; "
                f"chmod 755 {plugin}/docker-rollout",
                self.script.text,
            )
        try:
            box.root(f"docker stop -t 40 {ours} >/dev/null")
            box.root(f"echo IMAGE={before} > {PLACE}/.env; cd {PLACE}; {_quiet('up -d --wait')}")
            self.answers()
            yield
        finally:
            with boxes.undisturbed():
                box.root(
                    f"cd {PLACE} && {_quiet('down -t 40')}; cd /; "
                    f"docker image rm {before} {after} >/dev/null 2>&1; "
                    f"rm -rf {PLACE} {plugin}/docker-rollout; docker start {ours} >/dev/null"
                )
                self.box.wait()

    def answers(self) -> None:
        """Until the API answers through TLS."""
        deadline = time.monotonic() + ANSWERS_WITHIN
        with Outside(self.box.environment.settings, timeout=3) as site:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx2.HTTPError):
                    if site.api.get("/health").status_code == 200:
                        return
                time.sleep(0.2)
        raise Failed(f"the rival's stack does not answer within {ANSWERS_WITHIN:.0f} s")


def _quiet(command: str) -> str:
    return f"docker compose --progress quiet {command}"


def rival_command(way: str, image: str) -> str:
    """What its user would run on the host for a new tag."""
    step = _quiet(f"up -d --wait {SERVICE}") if way == COMPOSE else f"docker rollout {SERVICE}"
    script = (
        f"set -e; cd {PLACE}; echo IMAGE={image} > .env; "
        f"docker compose pull -q {SERVICE}; {step} >/dev/null"
    )
    return f"sudo -n sh -c '{script}'"


def released(box: Box, way: str, image: str) -> float:
    """Seconds that a release took."""
    if way != OURS:
        took, _ = timed(floor.script_command(box.environment, rival_command(way, image)))
        return took
    began = time.monotonic()
    box.deploy(backend_image=image, backend_environment=SLOW_RELEASE)
    return time.monotonic() - began


def measure(box: Box, way: str, image: str, round_: int) -> dict[str, Any]:
    """One release under load."""
    with Traffic(where(box.environment), WITHOUT_PAGES) as traffic:
        time.sleep(AROUND)
        since = time.time()
        took = released(box, way, image)
        until = time.time()
        time.sleep(AROUND)
    lost = losses(traffic.ended)
    missing = traffic.accounted(box.sql)
    traffic.clean(box.sql, box.root)
    measured = {
        "way": way,
        "round": round_,
        "seconds": round(took, 2),
        "requests": len(traffic.ended),
        "lost": len(lost),
        "how": dict(Counter(each.outcome for each in lost)),
        "examples": [str(each) for each in lost[:10]],
        "writes acknowledged": traffic.acknowledged.count,
        "writes not there once": missing,
        "least under way": traffic.under_way(since, until),
        "late": round(traffic.late, 3),
    }
    if way == OURS:
        line = remote.journal_of(box.environment).runs[-1]
        measured["to the switch"] = next(
            round(step["at"] + step["seconds"], 2)
            for step in line["steps"]
            if step["name"].endswith("| Switch to the release")
        )
    return measured


def file_of(way: str, round_: int) -> Path:
    """Where a measurement is kept."""
    return KEPT / f"{WAYS.index(way)}-{round_}.json"


def report(found: list[dict[str, Any]], figures: Figures, script: Script | None) -> None:
    """The table: medians, what was lost, and whether the objectives hold.

    Args:
        found: all measurements, those of ways that are left out among them.
        figures: get the rows and the notes.
        script: docker-rollout's; None leaves its rows out.
    """
    shown = ways(script)
    found = [one for one in found if one["way"] in shown]
    of = {way: [one for one in found if one["way"] == way] for way in shown}
    times = {way: [one["seconds"] for one in of[way]] for way in shown}
    quickest = min((way for way in shown if way != OURS), key=lambda way: median(times[way]))
    for way in shown:
        lost = [one["lost"] for one in of[way]]
        how: Counter[str] = Counter()
        for one in of[way]:
            how.update(one["how"])
        figures.rows.append(
            (
                way,
                seconds(times[way]),
                f"{median(times[way]) / median(times[quickest]):.2f}",
                f"{median(lost):.0f} ({min(lost)}–{max(lost)})",
                f"{median(one['requests'] for one in of[way]):.0f}",
                ", ".join(f"{count} × {kind}" for kind, count in how.most_common()) or "–",
            )
        )
    ratio = median(times[OURS]) / median(times[quickest])
    none = sum(one["lost"] for one in of[OURS]) == 0
    holds = {True: "holds", False: "MISSED"}
    figures.notes += [
        script_note(script),
        f"ours ≤ {AT_MOST} times the quickest ({quickest}): {ratio:.2f}, {holds[ratio <= AT_MOST]}",
        f"ours loses no request: {holds[none]}",
        "ours, until requests go to the new release: "
        f"{seconds([one['to the switch'] for one in of[OURS]])}; then its smoke tests, the drain "
        "of the old one, the journal",
        f"acknowledged writes that were not there once: "
        f"{sum(len(one['writes not there once']) for one in found)} of "
        f"{sum(one['writes acknowledged'] for one in found)}",
    ]


def script_note(script: Script | None) -> str:
    """Which script the rival's rows are of, or that there are none and how to have them. Pure."""
    if script:
        return f"docker-rollout: {script.path.name}, sha256 {script.sha256}"
    return f"docker-rollout was not measured; for its two rows give {OPTION} FILE, {SOURCE}"


def other_scripts(kept: Sequence[Mapping[str, Any]], script: Script | None) -> list[str]:
    """The sha256 of scripts that kept measurements were made with, and that is not this one.

    Pure.
    """
    others = {one.get("script") or "not known" for one in kept if one["way"] in BY_SCRIPT}
    return sorted(others - {script.sha256}) if script else []


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    rounds: Annotated[int, typer.Option(min=1, help="of each way; the table has medians")] = 5,
    measurements: Annotated[int, typer.Option(min=0, help="at most so many now; 0: all")] = 0,
    go_on: Annotated[bool, typer.Option("--go-on", help="with those that are finished")] = False,
    docker_rollout: Annotated[
        Path | None, typer.Option(OPTION, metavar="FILE", help=f"{SOURCE}; without it: no row")
    ] = None,
    markdown: Annotated[bool, typer.Option(help="print the README's table")] = False,
) -> None:
    """Measure, print the table, write all runs to bench/results/."""
    try:
        script = read_script(docker_rollout) if docker_rollout else None
        if go_on:
            _same_script(script)
    except Refusal as error:
        raise typer.Exit(boxes.interrupted(error)) from None
    if script is None:
        err.print(script_note(None), markup=False)
    KEPT.mkdir(parents=True, exist_ok=True)
    if not go_on:
        for file in KEPT.glob("*.json"):
            file.unlink()
    with boxes.taking_back():
        try:
            found = _measure(rounds, measurements, script)
        except (KeyboardInterrupt, Failed, Refusal) as error:
            code = boxes.interrupted(error)
            err.print("[dim]the rest: python -m bench.release --go-on, with the same options[/]")
            raise typer.Exit(code) from None
    if len(found) < rounds * len(ways(script)):
        err.print(f"{len(found)} of {rounds * len(ways(script))}; the rest: --go-on")
        return
    figures = Figures(
        "A new tag under load, medians (range)",
        f"python -m bench.release --rounds {rounds}"
        + (f" {OPTION} {script.path.name}" if script else ""),
        ("", "time", "of the quickest rival's", "lost", "of", "how"),
    )
    report(found, figures, script)
    figures.measured["runs"] = found
    figures.finish("release", markdown)


def _same_script(script: Script | None) -> None:
    kept = [json.loads(file.read_text("utf-8")) for file in sorted(KEPT.glob("*.json"))]
    if others := other_scripts(kept, script):
        found = f"finished measurements are of another script: sha256 {', '.join(others)}"
        right = "give that one, or begin anew without --go-on"
        raise Refusal("bench.release", [Problem(OPTION, found, right)])


def _measure(rounds: int, most: int, script: Script | None) -> list[dict[str, Any]]:
    asked = ways(script)
    wanted = [(way, round_) for round_ in range(rounds) for way in rotated(asked, round_)]
    left = [pair for pair in wanted if not file_of(*pair).exists()]
    if left:
        docker = engine.require()
        sandbox = Sandbox(Path(os.environ.get("KOPROGO_SANDBOX_ROOT", door.ROOT)))
        lifecycle.up(sandbox)  # with this checkout's stand-in, which can be slow when asked to
        box = boxes.open_box()
        stacks = Stacks(box, script)
        box.deploy(backend_environment=SLOW_RELEASE)
        try:
            for way, round_ in left[: most or None]:
                with contextlib.ExitStack() as stack:
                    image = stack.enter_context(new_backend(docker, sandbox))
                    if way != OURS:
                        before = stack.enter_context(new_backend(docker, sandbox))
                        stack.enter_context(stacks.rival(before, image, way == DRAINED))
                    measured = measure(box, way, image, round_)
                if script and way in BY_SCRIPT:
                    measured["script"] = script.sha256
                file_of(way, round_).write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
                err.print(
                    f"[dim]round {round_ + 1}, {way}: {measured['seconds']:.1f} s, "
                    f"{measured['lost']} of {measured['requests']} lost[/]"
                )
        finally:
            with boxes.undisturbed():
                box.deploy()
    return [
        json.loads(file_of(*pair).read_text("utf-8")) for pair in wanted if file_of(*pair).exists()
    ]


if __name__ == "__main__":
    app()
