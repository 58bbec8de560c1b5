"""A refusal: every problem with its place and its mend, and that nothing was touched."""

from __future__ import annotations

from koprogo_deploy.problems import Problem, Refusal


def test_a_refusal_numbers_every_problem_and_says_what_would_be_right() -> None:
    problems = [Problem("here", "is wrong", "do this"), Problem("there", "is worse")]
    assert str(Refusal("Settings of production", problems)) == (
        "Settings of production: 2 problems. Nothing was touched.\n"
        "\n"
        "  1. here: is wrong\n"
        "     -> do this\n"
        "  2. there: is worse\n"
    )


def test_one_problem_is_no_plural() -> None:
    assert str(Refusal("X", [Problem("a", "b")])).startswith("X: 1 problem. Nothing was touched.")
