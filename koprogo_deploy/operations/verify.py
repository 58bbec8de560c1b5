"""Verify: the smoke tests, from outside and on the host. The same ones as `make smoke`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pyinfra import host, logger, state
from pyinfra.api import deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import smoke
from koprogo_deploy.operations import context, take_back
from koprogo_deploy.operations.backup import results
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.notes import note
from koprogo_deploy.operations.step import step
from koprogo_deploy.settings import Settings


def way_back(settings: Settings, restored: bool) -> str:
    """What can be done where no release before this one is warm. Pure.

    Args:
        settings: for the command.
        restored: this run had a backup serve.
    """
    if not restored:
        return "there is no release before this one to serve"
    run = f"pyinfra inventories/{settings.environment}.py deploys/restore.py"
    return (
        "what was restored serves. What served before it is kept, and serves again by: "
        f"{run} --data backup=before"
    )


@step
def smoke_tests_pass() -> Iterator[str]:
    """Run the smoke tests. If one fails, the release before this one serves again.

    Not where the host fails, which would fail with any release: this one counts, and the run ends
    with what is wrong (`record`). One that fails for want of Postgres, or of room, goes back
    unmarked.
    """
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings)  # before the verdict: afterwards each moment counts
    outcome = smoke.run(settings.environment, overrides=context.smoke_overrides(), verifying=True)
    verdict = time.monotonic()
    for line in outcome.output.splitlines():
        logger.info("    %s", line)
    note(smoke=outcome.summary)
    if outcome.passed:
        take_back.no_more()
        host.noop("the smoke tests pass")
        return
    if outcome.of_the_host:
        take_back.no_more()
        logger.error("    of the host, and no fault of the release: %s", outcome.failures)
        host.noop("the smoke tests of the release pass")
        return
    if not take_back.switched(found):
        raise OperationError(f"the smoke tests failed; {way_back(settings, 'swap' in results)}")
    reason = f"smoke tests failed {context.minute()}: {outcome.failures}"
    told = take_back.back(settings, found, reason, verdict, take_back.excuse(found))
    raise OperationError(f"the smoke tests failed, see above: {told}")
    yield  # an operation is a generator; this one has no command


@deploy("Verify")
def verify_stage() -> None:
    """From outside through TLS, and on the host."""
    smoke_tests_pass(name="Run the smoke tests")
