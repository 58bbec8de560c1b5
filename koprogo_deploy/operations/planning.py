"""Plan: what this run will do, decided and said before anything is touched; then held to.

A plan that was made before, by `koprogo plan --out` or before pyinfra's question, is carried out
as it is: if the host or the checkout changed since, the run stops and says what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pyinfra import host, logger, state
from pyinfra.api import deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.operations import context
from koprogo_deploy.operations.looks import look
from koprogo_deploy.operations.notes import note
from koprogo_deploy.operations.step import step
from koprogo_deploy.plan import gather, given, make, seen, words
from koprogo_deploy.plan.model import Plan
from koprogo_deploy.plan.seen import Seen
from koprogo_deploy.problems import Refusal


@dataclass(frozen=True)
class Decided:
    """The plan of this run, and what it rests on: the rendered release is in it."""

    plan: Plan
    seen: Seen


_decided: dict[str, Decided] = {}
_shown: dict[str, Plan] = {}  # before pyinfra's question


def decide(seeds: bool, upgrading: bool = False) -> Decided:
    """Look at the host and make the plan, or hold a plan that was made before against it.

    Args:
        seeds: the run has a seed stage.
        upgrading: the run brings the data to another major version of Postgres.

    Raises:
        OperationError: the host or the checkout is not what the plan was made for, or a deploy
            has to refuse. Nothing was touched.
    """
    environment = context.current()
    sets = context.secret_sets(environment)
    before = _before()
    from_file = bool(environment.settings.plan)
    images = before.release.images if before and not from_file else None
    # A file may not take the digest of a manifest out of play.
    tags = given.by_tag(before, environment.settings) if before and from_file else None
    secret = context.backup_files(environment)
    found = gather.gather(look, environment, sets, images, secret, seeds, tags)
    planner = make.Planner(datetime.now(UTC), context.who(), context.revision())
    now = make.make(environment, sets, found, planner, upgrading)
    if before and (changed := given.stale(before, now)):
        raise OperationError(f"\n{Refusal(f'Plan of {before.made}', changed)}")
    if now.problems:
        raise OperationError("; ".join(now.problems))
    # A file is only compared: nothing in it that the comparison leaves out decides anything.
    decided = Decided(now if environment.settings.plan else before or now, found)
    _decided[host.name] = decided
    return decided


def _before() -> Plan | None:
    """The plan to be carried out as it is: of the file that was given, or the one shown."""
    environment = context.current()
    file = environment.settings.plan
    if file:
        try:
            return given.read(file, environment)
        except Refusal as refusal:
            raise OperationError(f"\n{refusal}") from None
    return _shown.get(host.name) if state.is_executing else None


def of_this_run() -> Decided:
    """What was decided; made now where no stage before did."""
    return _decided.get(host.name) or decide(seeds=False)


def still_holds(decided: Decided, stack: StackState) -> None:
    """Just before the release is pushed: nobody else changed the host meanwhile.

    Raises:
        OperationError: somebody did; says what.
    """
    applied = gather.migrations_of(look, decided.seen.machine, stack)
    now = seen.stack_facets(stack, applied)
    own = decided.plan.release.secrets
    if changed := seen.differences(decided.plan.seen, now, own):
        raise OperationError(
            "the host is not any more what the plan was made for; somebody else changed it: "
            f"{'; '.join(changed)}. The release was not pushed; what serves goes on. Run it again"
        )


@step
def planned() -> Iterator[str]:
    """Decide what this run does, and say it. Changes nothing."""
    plan = decide(seeds=True).plan
    if state.is_executing:
        note(plan={"kind": list(plan.duration.kind), "expected": plan.duration.seconds})
    if plan is not _shown.get(host.name):
        for line in words.short(plan):
            logger.info("    %s", line)
    if not state.is_executing:
        _shown[host.name] = plan
    host.noop("nothing to do" if plan.nothing else f"planned on the state {plan.fingerprint}")
    return
    yield  # an operation is a generator; this one has no command


@deploy("Plan")
def plan_stage() -> None:
    """What changes, what is interrupted, how long it may take; refused where it cannot be."""
    planned(name="Decide what changes")
