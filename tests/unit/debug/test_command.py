"""The command line of `koprogo debug`: what it refuses before it touches a host."""

from __future__ import annotations

import pytest

from koprogo_deploy.cli.app import app
from koprogo_deploy.problems import Refusal

CASES = [
    (["slow-queries", "--by", "rows"], ["total, mean or calls"]),
    (["explain", "charges"], ["there are buildings, units"]),
    (["explain", "units", "--per-page", "500"], ["1 to 100"]),
    (["explain", "units", "--sort", "id"], ["it can sort by unit_number"]),
    (["explain", "units", "--order", "up"], ["asc or desc"]),
    (["logs", "db"], ["one of traefik, postgres, backend, frontend"]),
    (
        ["logs", "--level", "loud", "--slow", "soon"],
        ["trace, debug, info", "write a number and ms"],
    ),
    (["logs", "--since", "yesterday"], ["or a time: 2026-01-31T10:00:00Z"]),
]


@pytest.mark.parametrize(("arguments", "said"), CASES)
def test_what_makes_no_sense_is_refused_before_a_host_is_asked(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: list[str]
) -> None:
    from koprogo_deploy import door

    def touched(*_: object) -> None:
        raise AssertionError("the environment was opened")

    monkeypatch.setattr(door, "open_environment", touched)
    with pytest.raises(Refusal) as refusal:
        app(["debug", *arguments], standalone_mode=False)
    for words in said:
        assert words in str(refusal.value)
