"""Verify: the smoke tests, from outside and on the host. The same ones as `make smoke`."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, deploy

from koprogo_deploy import smoke
from koprogo_deploy.operations import context
from koprogo_deploy.operations.step import step


@step
def smoke_tests_pass() -> Iterator[FunctionCommand]:
    """Run the smoke tests; a failing one fails the deploy. They change nothing."""
    if not state.is_executing:
        return
    environment = context.current().settings.environment
    outcome = smoke.run(environment, overrides=context.overrides())
    for line in outcome.output.splitlines():
        logger.info("    %s", line)
    if outcome.passed:
        host.noop("the smoke tests pass")
        return
    yield FunctionCommand(lambda state, host: False, [], {})


@deploy("Verify")
def verify_stage() -> None:
    """From outside through TLS, and on the host."""
    smoke_tests_pass(name="Run the smoke tests")
