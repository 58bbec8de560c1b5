"""What the journal remembers of a gate: whether the release met its objectives. Pure."""

from __future__ import annotations

from typing import Any

from koprogo_deploy.runs.model import Run

_TOLD = ("rate", "p50", "p99", "errors")


def line(run: Run) -> dict[str, Any] | None:
    """Values of the journal's line about a run that was judged; None where there is none to write.

    A run that was interrupted judged nothing. One that is invalid is written down as such: nobody
    is to take the missing line for a gate that was never tried, nor the failure for the release's.
    """
    verdict = run.verdict
    if verdict is None or run.interrupted:
        return None
    missed = [each for each in verdict.judgements if not each.met]
    if verdict.problems:
        outcome, reason = "invalid", "; ".join(verdict.problems)
    elif verdict.passed:
        outcome, reason = "passed", ""
    else:
        outcome = "missed"
        reason = "; ".join(f"{each.label} {each.measured}, not {each.wanted}" for each in missed)
    measured = ", ".join(
        f"{each.label} {each.measured}"
        for name in _TOLD
        for each in verdict.judgements
        if each.name == name and not each.ours
    )
    return {
        "outcome": outcome,
        "run": f"gate {run.profile}",
        "release": run.deployed.release or None,
        "seconds": round(run.seconds, 1),
        "load": run.id,
        "seed_scale": run.deployed.seed_scale,
        "measured": measured or None,
        "reason": reason or None,
    }
