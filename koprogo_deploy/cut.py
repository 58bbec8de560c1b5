"""Cut: a run that was in the midst of the data, told by what it left, and what ends it. Pure.

A restore swaps database and uploads, a rollback with its data the database: between the two
halves of that nothing else may work on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from koprogo_deploy import maintenance
from koprogo_deploy.facts.stack import StackState

UPGRADE, RESTORE, RETURN = "upgrade", "restore", "return"  # what a run does to the data
PAGES = {  # the maintenance page that each of them puts up
    UPGRADE: maintenance.UPGRADING,
    RESTORE: maintenance.RESTORING,
    RETURN: maintenance.RETURNING,
}


@dataclass(frozen=True)
class Cut:
    """A run that was cut, or is at work.

    Attributes:
        kind: `restore` or `return`.
        what: it was, in words.
        ends: the command that ends it.
        release: which one a return goes back to.
    """

    kind: str
    what: str
    ends: str
    release: str = ""


def found(stack: StackState, environment: str) -> Cut | None:
    """The restore or the rollback with its data that is not at its end; None where there is none.

    Where nothing but the page of a return is left, the same command is right: it verifies, and
    opens the site.

    Args:
        stack: what is deployed.
        environment: its name, for the command.
    """
    page = maintenance.parse(stack.maintenance).message if stack.maintenance else ""
    run = f"pyinfra inventories/{environment}.py deploys"
    if stack.returning or page == maintenance.RETURNING:
        release = str((stack.returning or {}).get("release") or (stack.live or {}).get("id", ""))
        retry = " --data retry_bad_release=true" if release in stack.marked else ""
        ends = f"{run}/rollback.py --data release={release} --data restore_dump=true{retry}"
        return Cut(RETURN, "a rollback with its data", ends, release)
    if stack.restoring:
        # Ends the swap one way or the other; the same restore again would make another one.
        ends = f"{run}/restore.py --data backup=drop_old, which drops nothing then"
        return Cut(RESTORE, "a restore", ends)
    if page == maintenance.RESTORING:
        return Cut(RESTORE, "a restore", f"koprogo maintenance off {environment}")
    return None


def ended(cut: Cut, does: str, release: str | None) -> bool:
    """Whether a run ends what was cut.

    Args:
        cut: what was.
        does: what the run does to the data; empty for one that leaves it as it is.
        release: the one that it goes back to, as it was asked.
    """
    return cut.kind == does and (cut.kind != RETURN or cut.release == release)
