"""The benchmark of settings: what its command line means, and in which order it measures."""

from __future__ import annotations

import pytest

from bench import versus
from koprogo_deploy import compare
from koprogo_deploy.problems import Refusal


def test_a_configuration_is_a_name_and_what_is_other_than_in_group_data() -> None:
    now, both = versus.configurations(["now", "both=postgres_memory=384MB,workers=2"])
    assert (now.name, now.data) == ("now", {})
    assert (both.name, both.data) == ("both", {"postgres_memory": "384MB", "workers": 2})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["now"], "one against nothing"),
        (["now", "now=workers=2"], "now twice"),
        (["now", "less=postgres_memory"], "'postgres_memory' has no value"),
        (["now", "../x=workers=2"], "other than letters and digits"),
        (["now", ""], "other than letters and digits"),
    ],
)
def test_what_cannot_be_meant_is_refused(written: list[str], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        versus.configurations(written)


def test_they_take_turns_and_turn_back() -> None:
    chosen = versus.configurations(["a", "b=workers=2"])
    assert [each.name for each in compare.interleave(chosen, 3)] == ["a", "b", "b", "a", "a", "b"]
