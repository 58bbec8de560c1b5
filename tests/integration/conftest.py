"""A deployed sandbox for the tests of this folder: the real thing, over real SSH and TLS.

They change the sandbox and leave it deployed as group data says. Cheap ones come first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from koprogo_deploy import secrets
from koprogo_deploy.outside import Outside
from sandbox import lifecycle
from sandbox.state import Sandbox
from tests.integration.rig import ROOT, Rig

ORDER = (
    "test_refusals",
    "test_rendered_files",
    "test_backend_contract",
    "test_idempotence",
    "test_changes",
    "test_plan",
    "test_seed",
    "test_monitor",
    "test_debug",
    "test_load_truth",
    "test_load",
    "test_gate",
    "test_perf",
    "test_dashboard",
    "test_traffic_truth",
    "test_failures",
    "test_releases",
    "test_kills",
    "test_disturbances",
    "test_switch",
    "test_uploads",
    "test_migrations",
    "test_rollback",
    "test_rollback_command",
    "test_history",
    "test_maintenance",
    "test_backup",
    "test_postgres_upgrade",
    "test_secrets",
    "test_interruptions",
    "test_containment",
    "test_reboot",
    "test_cold_start",
    "test_acme",
    "test_report_page",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = Path(item.path).stem
        return ORDER.index(name) if name in ORDER else len(ORDER)

    items.sort(key=place)  # stable: within a file the written order stays


@pytest.fixture(scope="session")
def undeployed() -> Rig:
    """The sandbox is up; whether something is deployed to it is left open."""
    if secrets.path_for("sandbox", ROOT).exists():
        secrets.complete("sandbox", ROOT)
    else:
        secrets.initialise("sandbox", ROOT)
    # Another checkout's box, where two work on one machine that has room for one.
    sandbox = Sandbox(Path(os.environ.get("KOPROGO_SANDBOX_ROOT", ROOT)))
    return Rig(sandbox, lifecycle.up(sandbox))


@pytest.fixture(scope="session")
def rig(undeployed: Rig) -> Rig:
    """The sandbox with the release that group data asks for."""
    undeployed.converge()
    return undeployed


@pytest.fixture
def api(rig: Rig) -> Iterator[httpx2.Client]:
    """The API through the front door, by TLS."""
    with Outside(rig.environment.settings) as outside:
        yield outside.api


@pytest.fixture
def seed_password(rig: Rig) -> str:
    """Of the three seeded logins."""
    return rig.environment.secrets["SEED_PASSWORD"]
