"""Verify: the smoke tests, from outside and on the host. The same ones as `make smoke`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from pyinfra import host, logger, state
from pyinfra.api import deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import smoke
from koprogo_deploy.operations import context
from koprogo_deploy.operations.migrate import stack
from koprogo_deploy.operations.notes import note
from koprogo_deploy.operations.record import about
from koprogo_deploy.operations.routes import back_command, put_away_command
from koprogo_deploy.operations.step import step


@step
def smoke_tests_pass() -> Iterator[str]:
    """Run the smoke tests. If one fails, the release before this one serves again."""
    if not state.is_executing:
        return
    settings = context.current().settings
    found = stack(settings)  # before the verdict: afterwards each moment counts
    outcome = smoke.run(settings.environment, overrides=context.smoke_overrides(), verifying=True)
    for line in outcome.output.splitlines():
        logger.info("    %s", line)
    verdict = time.monotonic()
    note(smoke=outcome.summary)
    if outcome.passed:
        host.noop("the smoke tests pass")
        return
    if found.candidate is None or found.current is None:
        raise OperationError("the smoke tests failed; there is no release before this one to serve")
    bad, good = found.candidate["id"], found.current["id"]
    logger.error("    the smoke tests failed: taking release %s back", bad)
    reason = f"smoke tests failed {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {outcome.failures}"
    back = context.going_back() is not None
    yield back_command(settings, found.current, found.candidate, reason, unmark=back)
    back_after = round(time.monotonic() - verdict, 2)
    note(outcome="taken back", back_after=back_after, **about(found.candidate, found))
    yield put_away_command(settings, found.current, found.candidate, reason, unmark=back)
    raise OperationError(
        f"release {bad} was taken back; {good} serves again, since {back_after:.1f} s after the "
        "verdict. The failing tests are above; what it logged: koprogo ssh, then docker ps -a and "
        "docker logs. It is not deployed again as it is: change something, or give --data "
        "retry_bad_release=true"
    )


@deploy("Verify")
def verify_stage() -> None:
    """From outside through TLS, and on the host."""
    smoke_tests_pass(name="Run the smoke tests")
