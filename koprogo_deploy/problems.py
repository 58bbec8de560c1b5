"""A problem an operator can mend: what is wrong, where it is set, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koprogo_deploy.visible import visible


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `where` it is set, `what` is wrong, and `fix`, what is right."""

    where: str
    what: str
    fix: str = ""


class Refusal(Exception):
    """The work was refused before a host was touched; carries every problem, not the first."""

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        self.subject = subject
        self.problems = list(problems)
        super().__init__(show(subject, problems))


def show(subject: str, problems: Sequence[Problem]) -> str:
    """The text of a refusal: a heading, then a numbered entry for each problem."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{subject}: {count}. Nothing was touched.", ""]
    for number, problem in enumerate(problems, start=1):
        lines.append(f"  {number}. {problem.where}: {problem.what}")
        if problem.fix:
            lines.append(f"     -> {problem.fix}")
    return visible("\n".join(lines), lines=True) + "\n"
