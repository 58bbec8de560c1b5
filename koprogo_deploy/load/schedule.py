"""When to send and what: arrivals of an open loop, decks of requests. Pure, from a seeded RNG."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Generic, TypeVar

from koprogo_deploy.load.profiles import Mix

T = TypeVar("T")


def asked_in(second: int, rate: float) -> int:
    """How many requests a rate asks for in a phase's n-th second; over time exactly the rate."""
    return math.floor((second + 1) * rate + 1e-9) - math.floor(second * rate + 1e-9)


def arrivals(count: int, rng: random.Random) -> list[float]:
    """So many moments within a second, in order.

    Uniform order statistics: a Poisson process of which one knows how many came. The rate is met
    exactly, second by second, and still they come in the clusters that real ones come in.
    """
    return sorted(rng.random() for _ in range(count))


def weights(mix: Mix) -> dict[str, int]:
    """Whole-number weights of all requests of a mix, in their exact proportion."""
    shares: dict[str, Fraction] = {}
    for part, percent in ((mix.reads, mix.read_percent), (mix.writes, 100 - mix.read_percent)):
        total = sum(part.values())
        shares |= {name: Fraction(weight * percent, total) for name, weight in part.items()}
    scale = math.lcm(*(share.denominator for share in shares.values()))
    counts = {name: int(share * scale) for name, share in shares.items()}
    common = math.gcd(*counts.values())
    return {name: count // common for name, count in counts.items() if count}


class Deck(Generic[T]):
    """Draws without replacement, shuffled anew when it is empty.

    So every run has the same proportions, and not merely the same expectation.
    """

    def __init__(self, cards: Sequence[T], rng: random.Random) -> None:
        self._cards = list(cards)
        self._rng = rng
        self._left: list[T] = []

    def draw(self) -> T:
        """The next card."""
        if not self._left:
            self._left = self._cards.copy()
            self._rng.shuffle(self._left)
        return self._left.pop()


def cards(weighted: Mapping[str, int]) -> list[str]:
    """Each name as often as its weight says."""
    return [name for name, weight in weighted.items() for _ in range(weight)]


def numbers(first: int = 1) -> Iterator[int]:
    """1, 2, 3 and so on: what makes each row of a run unique."""
    while True:
        yield first
        first += 1
