"""When to send and what."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from koprogo_deploy.load.profiles import PROFILES, Mix
from koprogo_deploy.load.schedule import Deck, arrivals, asked_in, cards, weights


@pytest.mark.parametrize("rate", [1, 220, 333.3, 0.25, 999.99])
def test_a_rate_is_met_exactly_over_time(rate: float) -> None:
    per_second = [asked_in(second, rate) for second in range(400)]
    for upto in (1, 4, 60, 400):
        assert abs(sum(per_second[:upto]) - rate * upto) < 1
    assert max(per_second) - min(per_second) <= 1


def test_arrivals_are_in_order_within_their_second_and_cluster_as_real_ones_do() -> None:
    rng = random.Random(3)
    found = arrivals(1000, rng)
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < 1
    gaps = [after - before for before, after in itertools.pairwise(found)]
    # Exponential gaps: a third is longer than the mean, and one in 150 more than five times.
    assert 0.33 < sum(gap > 0.001 for gap in gaps) / len(gaps) < 0.41
    assert any(gap > 0.005 for gap in gaps)


def test_equal_seeds_give_equal_arrivals() -> None:
    assert arrivals(50, random.Random(1)) == arrivals(50, random.Random(1))
    assert arrivals(50, random.Random(1)) != arrivals(50, random.Random(2))


def test_a_deck_gives_every_card_before_any_comes_again() -> None:
    deck = Deck(cards({"a": 3, "b": 1}), random.Random(1))
    drawn = [deck.draw() for _ in range(400)]
    for start in range(0, 400, 4):
        assert Counter(drawn[start : start + 4]) == {"a": 3, "b": 1}
    assert len({tuple(drawn[start : start + 4]) for start in range(0, 400, 4)}) > 1


def test_weights_are_whole_numbers_in_exact_proportion() -> None:
    assert weights(Mix({"a": 2, "b": 4}, {"c": 7}, 75)) == {"a": 1, "b": 2, "c": 1}
    assert weights(Mix({"a": 1}, {}, 100)) == {"a": 1}


def test_every_profile_has_a_deck_of_a_reasonable_size() -> None:
    for profile in PROFILES.values():
        for stretch in profile.stretches:
            assert 1 <= sum(weights(stretch.mix).values()) <= 2000
