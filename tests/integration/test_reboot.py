"""The machine reboots: the stack comes back without help."""

from __future__ import annotations

import pytest

from koprogo_deploy import smoke
from tests.integration.rig import Rig


@pytest.mark.parametrize("hard", [False, True], ids=["clean", "hard reset"])
def test_stack_comes_back(rig: Rig, hard: bool) -> None:
    before = {name: found["Id"] for name, found in rig.containers().items()}
    rig.reboot(hard=hard)
    rig.wait_for_ssh()
    rig.wait_for_site(within=60)
    rig.wait_until_healthy()
    assert {name: found["Id"] for name, found in rig.containers().items()} == before
    outcome = smoke.run("sandbox")
    assert outcome.passed, outcome.output
    run = rig.converge()
    assert run.changed == [], run.output
