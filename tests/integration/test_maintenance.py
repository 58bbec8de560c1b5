"""The maintenance page in the real Traefik: who gets it, who passes, and what it survives."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koprogo_deploy import remote
from koprogo_deploy.outside import Outside
from tests.integration.rig import ROOT, Rig

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
PAGE = "/opt/koprogo/traefik/dynamic/maintenance.yaml"


def koprogo(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [KOPROGO, "maintenance", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout


def from_elsewhere(rig: Rig, path: str = "/", api: bool = False) -> tuple[int, dict[str, str]]:
    """Status and headers as a client on the host itself gets them: its address does not pass."""
    settings = rig.environment.settings
    name = settings.api_domain if api else settings.domain
    text = rig.on_host(
        f"curl -sk -m 5 -o /dev/null -D - --resolve {name}:443:127.0.0.1 "
        f"{shlex.quote(f'https://{name}{path}')}"
    )
    first, *lines = text.splitlines()
    pairs = (line.partition(": ") for line in lines if line)
    return int(first.split()[1]), {key.lower(): value.strip() for key, _, value in pairs}


def from_here(rig: Rig) -> int:
    with Outside(rig.environment.settings) as outside:
        return outside.api.get("/health").status_code


@pytest.fixture
def tidy(rig: Rig) -> Iterator[Rig]:
    yield rig
    rig.on_host(f"rm -f {PAGE}")
    rig.converge()


def test_everybody_gets_503_but_this_machine_and_a_deploy_goes_on(tidy: Rig) -> None:
    rig = tidy
    assert from_elsewhere(rig)[0] == 200
    code, told = koprogo("on", "sandbox", "--message", "back at $ten", "--retry-after", "120")
    assert code == 0, told
    assert "this machine passes" in told
    for path, api in (("/", False), ("/api/v1/health", True), ("/metrics", True)):
        status, headers = from_elsewhere(rig, path, api)
        assert status == 503
        assert headers["retry-after"] == "120"
        assert headers["x-maintenance"] == "back at $ten"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert from_here(rig) == 200
    assert koprogo("status", "sandbox")[0] == 0

    run = rig.converge(frontend_memory="40MB")
    assert "this machine passes" in run.output
    assert remote.journal_of(rig.environment).runs[-1]["smoke"]["passed"]
    rig.on_host("docker restart koprogo-traefik-1")
    rig.wait_for_site(20)
    assert from_elsewhere(rig)[0] == 503, "a deploy and a restart leave it on"

    code, told = koprogo("off", "sandbox")
    assert (code, "everybody is let in" in told) == (0, True)
    assert from_elsewhere(rig)[0] == 200
    lines = remote.journal_of(rig.environment).entries
    kinds = [line.get("outcome") for line in lines if line["kind"] == "maintenance"]
    assert kinds[-2:] == ["on", "off"]
    assert koprogo("off", "sandbox") == (0, "maintenance was off already\n")


def test_no_application_container_is_needed_and_a_deploy_that_cannot_verify_is_refused(
    tidy: Rig,
) -> None:
    rig = tidy
    assert koprogo("on", "sandbox", "--allow", "203.0.113.7")[0] == 0
    # As if somebody else had switched it on: our address does not pass.
    rig.on_host(f"sed -i 's|ClientIP(`{_own(rig)}`)|ClientIP(`203.0.113.8`)|' {PAGE}")
    deadline = time.monotonic() + 10
    while from_here(rig) != 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert from_here(rig) == 503
    started = rig.started()
    run = rig.deploy(frontend_memory="41MB")
    assert run.code == 1, run.output
    assert "maintenance is on since" in run.output
    assert "koprogo maintenance on sandbox --allow ADDRESS" in run.output
    assert "Starting operation: Host" not in run.output
    assert rig.started() == started

    names = [n for n in rig.containers() if n.startswith(("backend", "frontend"))]
    names = [f"koprogo-{name}-1" for name in names]
    rig.on_host(f"docker stop -t 1 {' '.join(names)}")
    try:
        assert from_elsewhere(rig)[0] == 503
        assert from_elsewhere(rig)[1]["retry-after"] == "300"
    finally:
        rig.on_host(f"docker start {' '.join(names)}")
        rig.wait_until_healthy()
    _, told = koprogo("status", "sandbox")
    assert "203.0.113.7" in told


def _own(rig: Rig) -> str:
    line = rig.on_host(f"head -n 1 {PAGE}").removeprefix("# ")
    return str(json.loads(line)["allow"][-1]).removesuffix("/32") + "/32"


def test_wrong_words_are_refused_before_anything_is_asked() -> None:
    code, told = koprogo("on", "sandbox", "--allow", "everybody")
    assert (code, "not an address or network" in told) == (2, True)
    code, told = koprogo("on", "sandbox", "--message", "à demain")
    assert (code, "plain ASCII" in told) == (2, True)


@pytest.mark.slow
def test_a_reboot_leaves_it_on(tidy: Rig) -> None:
    rig = tidy
    assert koprogo("on", "sandbox")[0] == 0
    rig.reboot()
    rig.wait_for_ssh()
    rig.wait_for_site(60)
    assert from_elsewhere(rig)[0] == 503
    assert koprogo("off", "sandbox")[0] == 0
    assert from_elsewhere(rig)[0] == 200
